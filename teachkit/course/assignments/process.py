"""The process that runs a submission, seen from the one that marks it: start, talk, limit, end."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import site
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil

from teachkit.course.assignments.report import Limits
from teachkit.course.assignments.values import Refused
from teachkit.course.assignments.wire import Peer, RemoteError, Stopped

__all__ = ["NoSandbox", "Sandbox", "end", "start"]

KEPT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
START_SECONDS = 180.0


class NoSandbox(RuntimeError):
    """A process for the student's code could not be started: the grader's trouble, not the student's."""


def start(module: str, **options: Any) -> subprocess.Popen[bytes]:
    """Another Python, which runs ``main`` of a module of this package; it reads its settings from standard input.

    It imports nothing from the folder that it starts in (``-P``): a ``json.py`` there may be a student's.
    """
    code = f"from teachkit.course.assignments.{module} import main; main()"
    return subprocess.Popen([sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, **options)


def end(pid: int) -> None:
    """Kill a process and everything that it started."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                member.kill()


class Sandbox(contextlib.ExitStack):
    """A running `teachkit.course.assignments.sandbox`; a context manager that leaves no process and no file behind.

    Parameters
    ----------
    limits : Limits
        Memory and threads.
    confined : bool
        Keep the code to its scratch folder, and away from other processes and the network.
    """

    def __init__(self, limits: Limits, confined: bool = True) -> None:
        super().__init__()
        self.limits, self.output, self.reason = limits, "", ""
        try:
            self.peer = Peer(self._started(confined), {})
            self.peer.request("ready", START_SECONDS)
        except BaseException as error:
            self.close()
            if isinstance(error, (Stopped, Refused, RemoteError, OSError)):
                raise NoSandbox(f"the process for submissions did not start: {self.output[-500:]}") from error
            raise
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def _started(self, confined: bool) -> socket.socket:
        """Start the process; the line to it."""
        folder = tempfile.TemporaryDirectory(prefix="teachkit-", ignore_cleanup_errors=True)
        scratch, token = self.enter_context(folder), secrets.token_bytes(16)
        line = self.enter_context(contextlib.ExitStack())  # closed when the process is no more, and so no orphans left
        own = {"cwd": scratch, "env": _environment(scratch, str(self.limits.threads)), "start_new_session": True}
        self.process = start("sandbox", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **own)
        drainer = threading.Thread(target=self._drain, daemon=True)
        drainer.start()
        self.callback(drainer.join, 2)  # for what was printed last
        self.callback(self.process.wait)
        self.callback(end, self.process.pid)
        with socket.create_server(("127.0.0.1", 0)) as server:
            settings = {
                **{"port": server.getsockname()[1], "token": token.hex(), "threads": self.limits.threads},
                **{"megabytes": self.limits.memory_megabytes, "scratch": scratch, "confined": confined},
            }
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(settings).encode() + b"\n")
            self.process.stdin.close()
            return line.enter_context(self._accept(server, token))

    def _accept(self, server: socket.socket, token: bytes) -> socket.socket:
        """The line on which the process calls back; whoever does not know the token is turned away."""
        deadline = time.monotonic() + START_SECONDS
        server.settimeout(1.0)
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(TimeoutError):
                line, _ = server.accept()
                line.settimeout(10)
                if secrets.compare_digest(line.recv(len(token), socket.MSG_WAITALL), token):
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return line
                line.close()
        raise Stopped("the process ended, or did not call back")

    def _drain(self) -> None:
        """Read everything that is printed, and keep the beginning."""
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 1 << 16):
            room = self.limits.output_characters - len(self.output)
            if room > 0:
                cut = "\n[output cut here]" if len(piece) > room else ""
                self.output += piece[:room].decode("utf-8", "replace") + cut

    def _watch_memory(self) -> None:
        with contextlib.suppress(psutil.Error):  # it has ended
            own = psutil.Process(self.process.pid)
            most = own.memory_info().rss + 1.2 * self.limits.memory_megabytes * 2**20
            while self.process.poll() is None:
                if sum(p.memory_info().rss for p in (own, *own.children(recursive=True))) > most:
                    self.reason = f"more than {self.limits.memory_megabytes} MB of memory"
                    end(self.process.pid)
                time.sleep(0.1)

    def why(self, error: Exception) -> str:
        """What stopped the process, for the student."""
        if self.reason or isinstance(error, Refused):
            return f"stopped: {self.reason or error}"
        if "time" in str(error):
            return "stopped: it did not finish in time (an endless loop?)"
        time.sleep(0.2)
        code = self.process.poll()
        return "stopped: the process died" + (f" (exit code {code})" if code is not None else "")


def _environment(home: str, threads: str) -> dict[str, str]:
    """What the process is told of this one's environment: no secrets, and where packages lie."""
    environment = {k: os.environ[k] for k in KEPT if k in os.environ} | {
        **dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "IPYTHONDIR"), home),
        **{"MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        **{"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"},
        **{"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    }
    if places := os.environ.get("PYTHONPATH"):  # the teachkit that marks, not another that is installed
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, places.split(os.pathsep))))
    if site.ENABLE_USER_SITE:  # packages of `pip install --user`, which are looked for below HOME
        environment["PYTHONUSERBASE"] = site.getuserbase()
    return environment

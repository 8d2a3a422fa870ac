"""The process that runs a submission, seen from the one that marks it: start, talk, limit, end."""

from __future__ import annotations

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

import psutil

from teachkit.course.assignments.report import Limits
from teachkit.course.assignments.wire import Peer, Refused, RemoteError, Stopped

__all__ = ["NoSandbox", "Sandbox", "end"]

KEPT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class NoSandbox(RuntimeError):
    """A process for the student's code could not be started: the grader's trouble, not the student's."""


def end(pid: int) -> None:
    """Kill a process and everything that it started."""
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.Error:
        return
    for member in family:
        try:
            member.kill()
        except psutil.Error:
            continue


class Sandbox:
    """A running `teachkit.course.assignments.sandbox`; a context manager that leaves no process and no file behind.

    Parameters
    ----------
    limits : Limits
        Memory and threads.
    confined : bool
        Keep the code to its scratch folder, and away from other processes and the network.
    """

    def __init__(self, limits: Limits, confined: bool = True) -> None:
        self.limits, self.output, self.reason = limits, "", ""
        self._folder = tempfile.TemporaryDirectory(prefix="teachkit-", ignore_cleanup_errors=True)
        self._line: socket.socket | None = None
        token = secrets.token_bytes(16)
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                server.settimeout(1.0)
                self.process = self._start()
                settings = {
                    **{"port": server.getsockname()[1], "token": token.hex(), "threads": limits.threads},
                    **{"megabytes": limits.memory_megabytes, "scratch": self._folder.name, "confined": confined},
                }
                assert self.process.stdin is not None
                self.process.stdin.write(json.dumps(settings).encode() + b"\n")
                self.process.stdin.close()
                self._drainer = threading.Thread(target=self._drain, daemon=True)
                self._drainer.start()
                self._line = self._accept(server, token)
            self.peer = Peer(self._line, {})
            self.peer.request("ready", 180)
            threading.Thread(target=self._watch_memory, daemon=True).start()
        except BaseException as error:
            self.close()
            if isinstance(error, (Stopped, Refused, RemoteError, OSError)):
                raise NoSandbox(f"the process for submissions did not start: {self.output[-500:]}") from error
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        home, threads = self._folder.name, str(self.limits.threads)
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
        return subprocess.Popen(
            [sys.executable, "-c", "from teachkit.course.assignments.sandbox import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
        )

    def _accept(self, server: socket.socket, token: bytes) -> socket.socket:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                line, _ = server.accept()
            except TimeoutError:
                continue
            line.settimeout(10)
            if secrets.compare_digest(line.recv(len(token), socket.MSG_WAITALL), token):
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return line
            line.close()
        time.sleep(0.2)  # for the last words of a process that died
        raise NoSandbox(f"the process for submissions did not start: {self.output[-500:]}")

    def _drain(self) -> None:
        """Read everything that is printed, and keep the beginning."""
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 1 << 16):
            room = self.limits.output_characters - len(self.output)
            if room > 0:
                cut = "\n[output cut here]" if len(piece) > room else ""
                self.output += piece[:room].decode("utf-8", "replace") + cut

    def _watch_memory(self) -> None:
        try:
            own = psutil.Process(self.process.pid)
            most = own.memory_info().rss + 1.2 * self.limits.memory_megabytes * 2**20
            while self.process.poll() is None:
                if sum(p.memory_info().rss for p in (own, *own.children(recursive=True))) > most:
                    self.reason = f"more than {self.limits.memory_megabytes} MB of memory"
                    end(self.process.pid)
                time.sleep(0.1)
        except psutil.Error:  # it has ended
            pass

    def why(self, error: Exception) -> str:
        """What stopped the process, for the student."""
        if self.reason:
            return f"stopped: {self.reason}"
        if isinstance(error, Refused):
            return f"stopped: {error}"
        if "time" in str(error):
            return "stopped: it did not finish in time (an endless loop?)"
        time.sleep(0.2)
        code = self.process.poll()
        return "stopped: the process died" + (f" (exit code {code})" if code is not None else "")

    def close(self) -> None:
        """End everything and delete the scratch folder."""
        if hasattr(self, "process"):
            end(self.process.pid)
            self.process.wait()
        if hasattr(self, "_drainer"):
            self._drainer.join(2)  # what was printed last
        if self._line is not None:
            self._line.close()
        self._folder.cleanup()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

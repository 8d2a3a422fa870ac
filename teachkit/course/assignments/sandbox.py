"""The process in which a submission's code runs; started by `teachkit.course.assignments.process`, not by hand.

It gets its settings on standard input, connects back, and then serves: run a cell, give the value of a name, call a
function. It knows neither the hidden tests nor the expected values, nor where they are. Before any of the student's
code runs it gives up what that code does not need: memory and file sizes beyond a limit (by the kernel), and by a
Python audit hook reading anything but Python's own folders and a scratch folder, writing outside the latter, starting
processes, and the network. The hook stops the curious, not the determined, who can reach the kernel without Python:
grade strangers' code in a container (INSTRUCTORS.md).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import site
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Any

import psutil
import torch
from traitlets.config import Config

import teachkit
from teachkit.course.assignments.magics import NOTEBOOK
from teachkit.course.assignments.wire import Handlers, Peer

__all__ = ["confine", "limit_resources", "main", "readable", "warm_up"]

FORBIDDEN = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.kill", "os.killpg", "socket.connect", "socket.bind", "socket.sendto", "ctypes.dlopen", "ctypes.dlsym"),
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sqlite3.connect", "os.startfile", "os.link"),
    *("resource.prlimit", "resource.setrlimit"),
}
READING = {"open", "os.listdir", "os.scandir", "os.chdir"}
CHANGES = {
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.symlink", "os.truncate"),
    *("os.utime", "os.setxattr"),
}
SYSTEM = ("/usr/lib", "/usr/share", "/usr/local/lib", "/usr/local/share", "/proc/self", os.devnull, "/dev/urandom")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def limit_resources(megabytes: int) -> None:
    """Cap memory (beyond what is in use now), core dumps and the size of files, where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, 2**26))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        used = psutil.Process().memory_info().data  # Linux's alone
        resource.setrlimit(resource.RLIMIT_DATA, (used + megabytes * 2**20,) * 2)


def readable(scratch: str) -> tuple[str, ...]:
    """What the code may read: the scratch folder and what Python needs to import what is installed."""
    package = Path(teachkit.__file__).resolve().parent
    places = {scratch, *SYSTEM, str(package), str(package.parent / "data")}
    places |= {*sysconfig.get_paths().values(), *site.getsitepackages()}
    if site.ENABLE_USER_SITE:
        places.add(site.getusersitepackages())
    return tuple(map(os.path.realpath, places))


def confine(scratch: str) -> None:
    """Install the audit hook: no processes, no network, nothing read but `readable`, nothing written elsewhere."""
    inside, allowed, real = os.path.realpath(scratch), readable(scratch), os.path.realpath
    forbidden, reading, changing = frozenset(FORBIDDEN), frozenset(READING), frozenset(CHANGES)

    def below(path: str, *folders: str) -> bool:
        return any(path == f or path.startswith(f + os.sep) for f in folders)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in forbidden:
            raise PermissionError(f"{event} is not allowed while an assignment is graded")
        if event not in reading and event not in changing:
            return
        for path in arguments[:2] if event in ("os.rename", "os.symlink") else arguments[:1]:
            if path is None or isinstance(path, int):
                path = "." if path is None else f"/proc/self/fd/{path}"
                if event == "open":  # a descriptor that is open already
                    continue
            if type(path) not in (str, bytes) and not isinstance(path, Path):
                raise PermissionError("paths must be strings while an assignment is graded")
            full = real(os.fsdecode(path))
            mode, flags = (arguments[1] or "", arguments[2] or 0) if event == "open" else ("", 0)
            changes = event in changing or bool(set(str(mode)) & set("wax+")) or bool(flags & WRITE_FLAGS)
            if full == os.devnull or below(full, *((inside,) if changes else allowed)):
                continue
            what = "writing outside the scratch folder" if changes else "reading this file or folder"
            raise PermissionError(f"{what} is not allowed while an assignment is graded")

    def refuse(*_: Any) -> None:
        raise PermissionError("this is not allowed while an assignment is graded")

    # No audit event tells of these: what multiprocessing starts processes with, and the other way to send a signal.
    for module, name in (("_posixsubprocess", "fork_exec"), *((m, "pidfd_send_signal") for m in ("signal", "_signal"))):
        with contextlib.suppress(ImportError):
            if hasattr(importlib.import_module(module), name):
                setattr(importlib.import_module(module), name, refuse)
    sys.addaudithook(hook)


def warm_up(threads: int) -> Any:
    """Import what submissions use, before memory is limited and files are closed to them; the IPython shell."""
    import matplotlib.pyplot  # noqa: F401  (reads the fonts)
    from IPython.core.interactiveshell import InteractiveShell

    torch.set_num_threads(threads)
    quiet = {"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "NoColor", "history_length": 0}}
    shell: Any = InteractiveShell.instance(config=Config(quiet))
    shell.enable_matplotlib = lambda gui=None: ("agg", "agg")  # no screen: `%matplotlib inline` changes nothing
    for name in NOTEBOOK:
        shell.register_magic_function(lambda line: None, "line", name)
    shell.run_cell("0;", silent=True)
    x = torch.zeros(1, 2, requires_grad=True)
    teachkit.Empirical(torch.eye(2))(x, 1.0).sum().backward()  # starts autograd's threads
    return shell


def main() -> None:
    """Connect, warm up, give up rights, serve."""
    settings = json.loads(sys.stdin.readline())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # input() finds the end of the file
    line = socket.create_connection(("127.0.0.1", settings["port"]), timeout=60)
    line.sendall(bytes.fromhex(settings["token"]))
    shell = warm_up(settings["threads"])

    def run(code: str) -> str | None:
        """Run a cell; return what went wrong, or None."""
        result = shell.run_cell(code, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        return None if error is None else f"{type(error).__name__}: {str(error)[:500]}"

    def skip(command: str, *_: Any, **__: Any) -> list[str]:
        """In place of ``!pip install ...``: a failed command does not end a cell in a notebook either."""
        print(f"not run while an assignment is marked: {command}")
        return []

    shell.system = shell.getoutput = skip
    limit_resources(settings["megabytes"])
    if settings["confined"]:
        confine(settings["scratch"])
    handlers: Handlers = {
        **{"run": run, "ready": lambda: True},
        **{"defined": lambda name: name in shell.user_ns, "value": lambda name: shell.user_ns[name]},
    }
    Peer(line, handlers, trusting=True).serve()
    os._exit(0)

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
import shutil
import site
import socket
import sys
import sysconfig
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from traitlets.config import Config

import teachkit
from teachkit.course.assignments.magics import NOTEBOOK
from teachkit.course.assignments.wire import Handlers, Peer

__all__ = ["audit_hook", "confine", "limit_resources", "main", "readable", "warm_up"]

FORBIDDEN = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.kill", "os.killpg", "fcntl.fcntl", "fcntl.ioctl", "cpython.PyInterpreterState_New", "sys._current_frames"),
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.getnameinfo"),
    *("socket.gethostbyname", "socket.gethostbyaddr", "ctypes.dlopen", "ctypes.dlsym", "sqlite3.connect"),
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "os.startfile", "os.link", "os.symlink"),
    *("resource.prlimit", "resource.setrlimit"),
}
READING = {"open", "os.listdir", "os.scandir"}
CHANGES = {  # and where among the arguments stand open folders, to which a path may be relative
    **{"os.remove": (1,), "os.rmdir": (1,), "os.rename": (2, 3), "os.mkdir": (2,), "os.chmod": (2,), "os.chown": (3,)},
    **{"os.utime": (3,), "os.chdir": (), "os.truncate": (), "os.setxattr": (), "os.removexattr": ()},
}
# No audit event tells of these: starting a process as multiprocessing does, signals and priorities of other processes,
# files of other kinds, memory that is a file, interpreters without the hook; and how a module is made anew, with these.
UNTOLD = {
    **{"_posixsubprocess": ("fork_exec",), "_posixshmem": ("shm_open", "shm_unlink"), "_imp": ("create_builtin",)},
    **{"_signal": ("pidfd_send_signal",), "_xxsubinterpreters": ("create",), "_interpreters": ("create",)},
    "posix": ("mknod", "mkfifo", "memfd_create", "pidfd_open", "setpriority", "sched_setaffinity", "chroot"),
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
    for name in (*sys.builtin_module_names, *UNTOLD):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    held = [getattr(sys.modules.get(module), name, None) for module, names in UNTOLD.items() for name in names]
    untold = {id(function) for function in held if function is not None}
    for module in list(sys.modules.values()):  # others have imported some of them
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if id(value) in untold:
                setattr(module, name, _not_allowed)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # folders are deleted by their paths
    sys.addaudithook(audit_hook(os.path.realpath(scratch), readable(scratch)))


def _not_allowed(*_: Any, **__: Any) -> None:
    raise PermissionError("this is not allowed while an assignment is graded")


def audit_hook(inside: str, allowed: Sequence[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """The audit hook of `confine`.

    It looks up no name but its own, so that nobody can patch what it uses (builtins, os, this module), and finds where
    a path leads by itself. All that it uses is a default of an argument: a frame shows these, but cannot change them.
    """

    def hook(
        event: str,
        arguments: tuple[Any, ...],
        *,
        forbidden: frozenset[str] = frozenset(FORBIDDEN),
        reading: frozenset[str] = frozenset(READING),
        changing: Any = types.MappingProxyType(dict(CHANGES)),
        once: frozenset[str] = frozenset(UNTOLD) | {"_testcapi", "_testinternalcapi"},
        inner: tuple[str, ...] = tuple(f"{place}{os.sep}" for place in (inside, os.devnull)),
        outer: tuple[str, ...] = tuple(f"{place}{os.sep}" for place in (*allowed, os.devnull)),
        sep: str = os.sep,
        writing: int = WRITE_FLAGS,
        real: Any = os.path.realpath if os.name == "nt" else None,
        cwd: Any = os.getcwd,
        link: Any = os.readlink,
        kind: Any = type,
        words: Any = str,
        raw: Any = bytes,
        number: Any = int,
        none: Any = (OSError, ValueError),
        error: Any = PermissionError,
    ) -> None:
        if event in forbidden:
            raise error(f"{event} is not allowed while an assignment is graded")
        if event == "import" and (kind(arguments[0]) is not words or arguments[0].rpartition(".")[2] in once):
            raise error("importing this anew is not allowed while an assignment is graded")
        if event not in reading and event not in changing:
            return
        changes, below = event in changing, False
        if event == "open":  # os.open gives no mode, and does not tell of an open folder
            mode, flags = arguments[1], arguments[2] or 0
            below = mode is None
            changes = flags & writing != 0
            for letter in mode or "":
                changes = changes or letter in "wax+"
        elif changes:
            for place in changing[event]:
                below = below or arguments[place] != -1
        for given in arguments[:2] if event == "os.rename" else arguments[:1]:
            path = given
            if kind(path) is number:
                if event == "open":  # a descriptor that is open already
                    continue
                path = link(f"/proc/self/fd/{path}")
            elif path is None:
                path = cwd()
            elif kind(path) is raw:
                path = path.decode()
            elif kind(path) is not words:
                raise error("paths must be strings while an assignment is graded")
            if real is not None:  # Windows
                full = real(path)
            else:
                if path[:1] != "/":  # other threads may change the folder that it is relative to
                    if ".." in path.split("/") or (below and changes):
                        raise error("give the whole path: this one is not allowed while an assignment is graded")
                    path = f"{cwd()}/{path}"
                full, rest, links = "", path.split("/")[::-1], 0
                while rest:
                    part = rest.pop()
                    if part == "..":
                        full = full.rpartition("/")[0]
                    elif part not in ("", "."):
                        full, before = f"{full}/{part}", full
                        try:
                            target = link(full)
                        except none:  # it is no link
                            continue
                        links += 1
                        if links > 40:
                            raise error("too many links")
                        full = "" if target[:1] == "/" else before
                        rest += target.split("/")[::-1]
            if not f"{full}{sep}".startswith(inner if changes else outer):
                what = "writing outside the scratch folder" if changes else "reading this file or folder"
                raise error(f"{what} is not allowed while an assignment is graded")

    return hook


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

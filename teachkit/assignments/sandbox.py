"""The process in which a submission's code runs; started by `teachkit.assignments.engine`, not by hand.

It gets its settings on standard input, connects back, and then serves: run a cell, give the value of a name, call a
function. It knows neither the hidden tests nor the expected values. Before any of the student's code runs it gives up
what that code does not need: memory beyond a limit, writing outside its scratch folder, reading the folders of
sources and submissions, starting processes, reaching the network. The kernel enforces the rules on files where it can
(Landlock, Linux 5.13 and later); a Python audit hook says no everywhere, which stops the curious and not the
determined. For strangers' code run the grader in a container as well: see INSTRUCTORS.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import site
import socket
import struct
import sys
import sysconfig
from pathlib import Path
from typing import Any

FORBIDDEN = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.kill", "os.killpg", "os.putenv", "socket.connect", "socket.bind", "socket.sendto", "ctypes.dlopen"),
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sqlite3.connect", "os.startfile"),
}
CHANGES = {
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink"),
    *("os.truncate", "os.utime", "os.setxattr"),
}


def limit_resources(megabytes: int) -> None:
    """Cap memory (beyond what is in use now), core dumps and the size of files; where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, 2**26))
    with contextlib.suppress(OSError, ValueError):
        status = Path("/proc/self/status").read_text()
        used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) * 1024
        allowed = used + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


def readable_folders() -> list[str]:
    """What Python needs to import what is installed."""
    package = Path(__file__).resolve().parents[1]
    places = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages()}
    places |= {str(package), str(package.parent / "data"), "/usr", "/lib", "/lib64", "/etc", "/proc/self", "/dev/null"}
    places |= {"/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"}
    return sorted(p for p in places if os.path.exists(p))


def landlock(read: list[str], write: list[str]) -> bool:
    """Let this process and its children read only ``read`` and write only ``write``; False where Linux cannot do it.

    See https://docs.kernel.org/userspace-api/landlock.html. From ABI 4 on TCP connections are refused too, from ABI 6
    on signals to processes outside.
    """
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    abi = call(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        return False
    reading = 0b1101  # execute, read a file, read a folder
    everything = {1: 2**13 - 1, 2: 2**14 - 1, 3: 2**15 - 1, 4: 2**15 - 1}.get(abi, 2**16 - 1)
    rules = struct.pack("QQQ", everything, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = call(444, ctypes.c_char_p(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        for path, access in [(p, reading) for p in read] + [(p, everything) for p in write]:
            folder = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
            try:
                if not os.path.isdir(path):
                    access &= 0b0110 | (0b1 if access & 1 else 0) | (2**14 if everything >= 2**15 - 1 else 0)
                    if path not in write:
                        access &= 0b0101
                rule = struct.pack("=Qi", access, folder)
                if call(445, ruleset, 1, ctypes.c_char_p(rule), ctypes.c_uint32(0)):
                    return False
            finally:
                os.close(folder)
        libc = ctypes.CDLL(None)
        if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
            return False
        return call(446, ruleset, ctypes.c_uint32(0)) == 0
    finally:
        os.close(ruleset)


def forbid(scratch: str, protected: list[str]) -> None:
    """Install the audit hook: no processes, no network, no writing outside ``scratch``, nothing under ``protected``."""
    inside = os.path.realpath(scratch) + os.sep
    secret = tuple(os.path.realpath(p) for p in protected)
    real, flags = os.path.realpath, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    busy: list[bool] = []

    def refuse(what: str) -> None:
        raise PermissionError(f"{what} is not allowed while an assignment is graded")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if busy:
            return
        if event in FORBIDDEN:
            refuse(event)
        if event == "object.__setattr__" and arguments and getattr(arguments[0], "__name__", "") in ("hook", "refuse"):
            refuse("changing the rules")
        if event in ("open", "os.listdir", "os.scandir", "os.chdir") or event in CHANGES:
            path = arguments[0] if arguments else None
            if not isinstance(path, (str, bytes, os.PathLike)):
                return
            busy.append(True)
            try:
                full = real(os.fsdecode(path))
            finally:
                busy.clear()
            if any(full == s or full.startswith(s + os.sep) for s in secret):
                refuse("reading this file")
            mode, flag = arguments[1:3] if event == "open" else (None, 0)
            changes = event in CHANGES or any(c in "wax+" for c in str(mode or "")) or bool((flag or 0) & flags)
            if changes and not full.startswith(inside) and full != os.devnull:
                refuse("writing outside the scratch folder")

    sys.addaudithook(hook)


def main() -> None:
    """Connect, warm up, give up rights, serve."""
    settings = json.loads(sys.stdin.readline())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # input() finds the end of the file
    line = socket.create_connection(("127.0.0.1", settings["port"]), timeout=60)
    line.sendall(bytes.fromhex(settings["token"]))

    import matplotlib.pyplot  # noqa: F401  (reads fonts, which is not allowed later)
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    import teachkit  # noqa: F401
    from teachkit import plots  # noqa: F401
    from teachkit.assignments.wire import Peer

    torch.set_num_threads(settings["threads"])
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.history_length = 0
    shell = InteractiveShell.instance(config=config)
    shell.run_cell("0;", silent=True)

    def run(code: str) -> str | None:
        """Run a cell; return what went wrong, or None."""
        result = shell.run_cell(code, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        return None if error is None else f"{type(error).__name__}: {str(error)[:500]}"

    def defined(name: str) -> bool:
        return name in shell.user_ns

    def value(name: str) -> Any:
        return shell.user_ns[name]

    limit_resources(settings["megabytes"])
    if settings["protected"]:
        landlock(readable_folders(), [settings["scratch"], os.devnull])
        forbid(settings["scratch"], settings["protected"])
    peer = Peer(line, {"run": run, "defined": defined, "value": value, "ready": lambda: True})
    peer.serve()
    os._exit(0)


if __name__ == "__main__":
    main()

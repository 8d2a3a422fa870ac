"""Processes that need not import torch: forked from one that has.

Importing torch, torchvision and nbformat is most of what a short command does, and the tests start hundreds. `Popen`
stands in for `subprocess.Popen` (fixture ``warm``): where that would start this Python, it forks a process that has
imported these three, and nothing of teachkit, to run the same; with ``-P``, as the grader starts Python, one that has
imported what a notebook does as well. All else is as ever: a child of the caller with its own arguments, environment,
folder, session, streams, signals and exit code. One such process waits for each of the last few settings of the
variables that are read when Python or torch start. Elsewhere than on Linux every process starts as usual.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

READ_AT_START = ("PYTHON", "OMP_", "MKL_", "KMP_", "LD_", "CUDA_", "TORCH", "LANG", "LC_", "TZ")
MOST = 3  # processes that wait, of 400 MB each: most tests use one setting
IMPORTED = "nbformat, torch, torchvision"
IMPORTED_SAFELY = f"{IMPORTED}, matplotlib.pyplot, IPython.core.interactiveshell"
PR_SET_CHILD_SUBREAPER = 36  # who sets it becomes the parent of its grandchildren that have lost theirs
SERVER = """
import gc, json, os, signal, socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
exec(f"import {sys.argv[2]}")
gc.freeze()
while True:
    job, streams, _, _ = socket.recv_fds(line, 1 << 20, 3)
    if not job:
        os._exit(0)
    begin, begun = os.pipe()
    if between := os.fork():
        os.waitpid(between, 0)  # from here on the grandchild is the caller's child
        for number in (begin, begun, *streams):
            os.close(number)
        continue
    if os.fork():
        os._exit(0)
    os.close(begun)
    os.read(begin, 1)  # until all others have closed it
    os.close(begin)
    break
job = json.loads(job)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
if job["session"]:
    os.setsid()
signal.signal(signal.SIGINT, signal.default_int_handler)
line.send(str(os.getpid()).encode())
line.close()
os.chdir(job["folder"])
os.environ.clear()
os.environ.update(job["environment"])
if "tempfile" in sys.modules:
    sys.modules["tempfile"].tempdir = None  # read from the environment again
option, what, *rest = job["arguments"]
if job["safely"]:
    del sys.path[0]
if option == "-c":
    sys.argv = [option, *rest]
    exec(compile(what, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
else:
    import runpy
    sys.argv = [what, *rest]
    if not job["safely"]:
        sys.path[0] = job["folder"] if option == "-m" else os.path.dirname(what)
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(what, run_name="__main__")
"""
_lines: dict[str, socket.socket] = {}
_one_at_a_time = threading.Lock()


def take_interrupts() -> None:
    """As ``preexec_fn``: Ctrl-C interrupts, also where the tests themselves run in the background and ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Popen(subprocess.Popen):
    """`subprocess.Popen`, but Python starts with torch imported."""

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest,
    ):  # fmt: skip
        ends = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        words = [] if isinstance(args, (str, bytes, os.PathLike)) else [os.fspath(word) for word in args]
        safely = words[1:2] == ["-P"]
        if safely:
            del words[1]
        option = words[1] if words[:1] == [sys.executable] and len(words) > 1 else None
        plain = not (shell or pass_fds) and preexec_fn in (None, take_interrupts)
        if not plain or sys.platform != "linux" or not (option in ("-c", "-m") or str(option).endswith(".py")):
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                                   creationflags, shell, *ends, *rest)  # fmt: skip
            return
        folder = os.path.abspath(cwd or ".")
        job = {
            "arguments": words[1:] if option in ("-c", "-m") else ["", os.path.join(folder, words[1]), *words[2:]],
            "environment": {os.fspath(k): os.fspath(v) for k, v in (os.environ if env is None else env).items()},
            "folder": folder,
            "safely": safely,
            "session": rest[-2],
        }
        streams = [given if given != -1 else usual for usual, given in enumerate((p2cread, c2pwrite, errwrite))]
        with _one_at_a_time:
            self.pid = _fork(job, streams)
        self._child_created = True
        self._close_pipe_fds(*ends)


def _fork(job: dict[str, Any], streams: list[int]) -> int:
    """The process id of a new child that does the job."""
    read = {name: value for name, value in job["environment"].items() if name.startswith(READ_AT_START)}
    imported = IMPORTED_SAFELY if job["safely"] else IMPORTED
    key = json.dumps([imported, read], sort_keys=True)
    line = _lines[key] = _lines.pop(key, None) or _serve(read, imported)  # last, as the one used last
    while len(_lines) > MOST:
        _lines.pop(next(iter(_lines))).close()  # without its line a process ends
    own = ctypes.CDLL(None, use_errno=True)
    own.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        socket.send_fds(line, [json.dumps(job).encode()], streams)
        answer = line.recv(20)
    finally:
        own.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert answer, "the process that imported torch has ended"
    return int(answer)


def _serve(variables: dict[str, str], imported: str) -> socket.socket:
    """Start a process that imports what takes long and forks; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(READ_AT_START)}
    subprocess.Popen(
        [sys.executable, "-c", SERVER, str(theirs.fileno()), imported], env=kept | variables, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
        start_new_session=True,
    )  # fmt: skip
    theirs.close()
    return ours

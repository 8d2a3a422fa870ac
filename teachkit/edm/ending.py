"""Long runs that end early: Ctrl-C at the end of a step, and files that are whole or absent, also on a full disk.

Used by `teachkit.edm.training`, `teachkit.evaluation` and the command line.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["end_of_step", "write_whole"]


@contextlib.contextmanager
def end_of_step(alone: bool) -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a step, where there is a state to save; a second one does not wait.

    Elsewhere than in the main thread, or where another handler is set, Ctrl-C stays what it was.

    Parameters
    ----------
    alone : bool
        Whether this process trains alone. Of several, one that waited would keep the others waiting.

    Yields
    ------
    callable
        Says whether Ctrl-C came.
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (alone and usual and threading.current_thread() is threading.main_thread()):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside ``path``, then rename it: whole or absent, and the old one stays until then.

    Two processes may do so at once.

    Parameters
    ----------
    path : Path
        The file in the end.
    write : callable
        Gets the path to write, which ends like ``path``.
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)

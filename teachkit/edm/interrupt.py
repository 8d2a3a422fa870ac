"""Training that ends early: Ctrl-C at the end of a step, where there is a state to save."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from teachkit.checks import flag

__all__ = ["end_of_step"]


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

    Examples
    --------
    >>> with end_of_step(alone=True) as interrupted:
    ...     interrupted()
    False
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    alone = flag("alone", alone)
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (alone and usual and threading.current_thread() is threading.main_thread()):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

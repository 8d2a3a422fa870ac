"""Training that ends early, by Ctrl-C or SIGTERM: at the end of a step, where there is a state to save."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from teachkit.checks import flag

__all__ = ["end_of_step"]


@contextlib.contextmanager
def end_of_step(alone: bool) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait for the end of a step, where there is a state to save; a second one does not wait.

    Elsewhere than in the main thread, or where another handler is set, they stay what they were.

    Parameters
    ----------
    alone : bool
        Whether this process trains alone. Of several, one that waited would keep the others waiting.

    Yields
    ------
    callable
        Says whether one came.

    Examples
    --------
    >>> with end_of_step(alone=True) as interrupted:
    ...     interrupted()
    False
    """
    came: list[int] = []
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(number, usual[signal.Signals(number)])

    alone = flag("alone", alone)
    if not (alone and threading.current_thread() is threading.main_thread()):
        yield lambda: False
        return
    taken = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    for number in taken:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number in taken:
            signal.signal(number, usual[number])

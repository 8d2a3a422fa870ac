"""What benchmarks measure by: one thread of torch, and the time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch within; a decorator too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def wall(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def processor(call: Callable[[], object], least: float = 0.0) -> float:
    """Seconds of processor time of one call, repeated until all of them took more than ``least``."""
    count, begun = 0, time.process_time()
    while True:
        call()
        count += 1
        spent = time.process_time() - begun
        if spent >= least:
            return spent / count

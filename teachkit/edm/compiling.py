"""Compiling a network where that is possible, and going on without where it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn


def compile_if_possible(network: nn.Module, rehearse: Callable[[], object], device: torch.device, world: int) -> None:
    """Have a network compiled at its first call, which is in ``rehearse``: for all processes, or for none.

    What compiling needs (a compiler, its headers, a driver that fits) shows only when it is done, so it is tried. The
    network is as before where something is missing, and the first process says so on stderr.
    """
    network.compile(dynamic=False)
    reason = ""
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            rehearse()
    except Exception as error:  # whatever compilers raise; an error that is not theirs comes again without them
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:200] or type(error).__name__  # torch says first who raised, then what
    failed = torch.tensor(float(bool(reason)), device=device, dtype=torch.float32)
    if world > 1:
        dist.all_reduce(failed)
    if not float(failed):
        return
    network._compiled_call_impl = None
    if world == 1 or dist.get_rank() == 0:
        print(
            "teachkit: the network cannot be compiled and is trained uncompiled, which takes longer "
            f"({reason or 'another process has no compiler'}). On a CPU torch needs a C++ compiler: apt install g++, "
            "or set CXX. Without this notice: --no-compile",
            file=sys.stderr,
        )

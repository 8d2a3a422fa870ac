"""Which process of how many this is, under ``torchrun`` or alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from teachkit.launcher import place

__all__ = ["Processes", "processes"]


@dataclass(frozen=True)
class Processes:
    """This process, and how many there are.

    Attributes
    ----------
    rank, world : int
        Number of this process, from 0, and of all.
    device : torch.device
        Where this process computes: with several GPUs, one each.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here. Returns at once for one process."""
        if self.world > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, in every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


@contextlib.contextmanager
def processes(device: torch.device | str = "cpu", patience: timedelta = timedelta(hours=12)) -> Iterator[Processes]:
    """Join the group that ``torchrun`` started (NCCL on GPUs, gloo on CPUs) for the time of a block; alone, just go on.

    Variables of a launcher that are missing in part, or empty, are no launcher: see `teachkit.launcher.place`.

    Parameters
    ----------
    device : torch.device or str
        Kind of device; a GPU without a number becomes that of this process on its machine.
    patience : timedelta
        How long the processes wait for one another.

    Yields
    ------
    Processes
        Rank, number of processes and device.
    """
    where = torch.device(device)
    here = place()
    if here.world == 1:
        yield Processes(0, 1, where)
        return
    if where.type == "cuda":
        where = torch.device("cuda", here.local) if where.index is None else where
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=patience)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), where)
    finally:
        dist.destroy_process_group()

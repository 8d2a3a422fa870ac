"""Which process of how many this is, as ``torchrun`` and other launchers say in the environment; and their group."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

__all__ = ["Place", "Processes", "place", "processes"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """Of a process among those that a launcher started: all are 0, 1, 0 for one that is alone.

    Attributes
    ----------
    rank, world : int
        Number of this process, from 0, and of all.
    local : int
        Its number on its machine: that of its GPU.

    Examples
    --------
    >>> Place(rank=0, world=2, local=0).first
    True
    """

    rank: int
    world: int
    local: int

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


def place() -> Place:
    """The place of this process.

    A launcher sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, all four. Where one is missing or empty, as when a
    cluster's variables are left over, no launcher started this process, and it is alone.

    Returns
    -------
    Place
        Rank, number of processes, and rank on this machine.

    Raises
    ------
    ValueError
        If a variable holds something else than a whole number, or the numbers do not fit each other.

    Examples
    --------
    >>> place()  # in a process of its own
    Place(rank=0, world=1, local=0)
    """
    if not all(os.environ.get(name) for name in _NEEDED):
        return Place(0, 1, 0)
    rank, world = _whole("RANK"), _whole("WORLD_SIZE")
    if not rank < world:
        raise ValueError(f"RANK must be below WORLD_SIZE, got {rank} and {world}")
    return Place(rank, world, _whole("LOCAL_RANK") if os.environ.get("LOCAL_RANK") else 0)


@dataclass(frozen=True)
class Processes:
    """This process, and how many there are.

    Attributes
    ----------
    rank, world : int
        Number of this process, from 0, and of all.
    device : torch.device
        Where this process computes: with several GPUs, one each.

    Examples
    --------
    >>> Processes(0, 1, torch.device("cpu")).gather("mine")
    ['mine']
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
def processes(
    device: torch.device | str = "cpu", patience: timedelta | None = timedelta(hours=12)
) -> Iterator[Processes]:
    """Join the group that ``torchrun`` started (NCCL on GPUs, gloo on CPUs) for the time of a block; alone, just go on.

    Variables of a launcher that are missing in part, or empty, are no launcher. A group that the program has joined by
    itself is used, and not left in the end.

    Parameters
    ----------
    device : torch.device or str
        Kind of device; a GPU without a number becomes that of this process on its machine.
    patience : timedelta or None
        How long the processes wait for one another; as long as torch does by default if None.

    Yields
    ------
    Processes
        Rank, number of processes and device.

    Raises
    ------
    ValueError
        If the launcher's variables hold something else than whole numbers, or do not fit each other.

    Examples
    --------
    >>> with processes() as group:
    ...     group.gather(group.rank)
    [0]
    """
    where, here = torch.device(device), place()
    joined = dist.is_available() and dist.is_initialized()
    if here.world == 1 and not joined:
        yield Processes(0, 1, where)
        return
    if where.type == "cuda":
        where = torch.device("cuda", here.local) if where.index is None else where
        torch.cuda.set_device(where)
    if not joined:
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo", timeout=patience)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), where)
    finally:
        if not joined:
            dist.destroy_process_group()


def _whole(name: str) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the environment variable {name} must be a whole number, got {text!r}")
    return int(text)

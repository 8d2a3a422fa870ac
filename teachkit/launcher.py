"""Which process of how many this is, as ``torchrun`` and other launchers say in the environment."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["Place", "place"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """Of a process among those that a launcher started: all are 0, 1, 0 for one that is alone.

    Attributes
    ----------
    rank, world : int
        Number of this process, from 0, and of all.
    local : int
        Its number on its machine: that of its GPU.
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
    """
    if not all(os.environ.get(name) for name in _NEEDED):
        return Place(0, 1, 0)
    rank, world = _whole("RANK"), _whole("WORLD_SIZE")
    if not rank < world:
        raise ValueError(f"RANK must be below WORLD_SIZE, got {rank} and {world}")
    return Place(rank, world, _whole("LOCAL_RANK") if os.environ.get("LOCAL_RANK") else 0)


def _whole(name: str) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the environment variable {name} must be a whole number, got {text!r}")
    return int(text)

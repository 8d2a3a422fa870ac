"""What every measure of this package asks of its input: finite paths, held whole, and a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import integer
from teachkit.denoisers import default_dtype
from teachkit.sampling import Trajectory


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers from a seed >= 0."""
    return torch.Generator().manual_seed(integer("seed", seed, 0))


def path(x: Tensor, name: str) -> Tensor:
    """``x`` itself, if it holds finite paths (N+1, B, *event) of at least two states; ``name`` is for the message."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a Trajectory or a floating-point tensor, got {type(x).__name__}")
    if x.ndim < 3 or len(x) < 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (N+1, B, *event) with at least two states, got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return x


def states(traj: Trajectory | Tensor) -> Tensor:
    """All states of a trajectory, flattened to (N+1, B, d), in the precision for sums."""
    if isinstance(traj, Trajectory) and len(traj.x) != len(traj.sigmas):
        raise ValueError("the trajectory holds only its final state; sample with keep='all'")
    x = path(traj.x if isinstance(traj, Trajectory) else traj, "traj")
    return x.flatten(2).to(default_dtype(x.device))

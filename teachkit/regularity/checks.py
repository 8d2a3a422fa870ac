"""What every measure of this package asks of its input: finite paths, held whole, and a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import integer, real_tensor, shown, squarable
from teachkit.denoisers import default_dtype
from teachkit.sampling import Trajectory


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers from a seed >= 0."""
    return torch.Generator().manual_seed(integer("seed", seed, 0))


def path(x: Tensor, name: str) -> Tensor:
    """``x`` itself, if it holds finite paths (N+1, B, *event) of at least two states; ``name`` is for the message."""
    real_tensor(name, x, "or a Trajectory")
    if x.ndim < 3 or len(x) < 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (N+1, B, *event) with at least two states, got {tuple(x.shape)}")
    return squarable(name, x)


def states(traj: Trajectory | Tensor, name: str = "traj") -> Tensor:
    """All states of a trajectory, flattened to (N+1, B, d), in the precision for sums."""
    if isinstance(traj, Trajectory) and len(traj.x) != len(traj.sigmas):
        raise ValueError(f"{name} holds only its final state; sample with keep='all'")
    x = path(traj.x if isinstance(traj, Trajectory) else traj, name)
    return x.flatten(2).to(default_dtype(x.device))


def kept(traj: Trajectory, name: str = "traj") -> Tensor:
    """The same of what must be a `Trajectory`, because its levels are needed too."""
    if not isinstance(traj, Trajectory):
        raise TypeError(f"{name} must be a Trajectory, got {shown(traj)}")
    return states(traj, name)


def outputs(traj: Trajectory, x: Tensor) -> Tensor:
    """What the denoiser said, (N, B, d), beside the states x."""
    if len(traj.denoised) != len(traj.sigmas) - 1:
        raise ValueError("traj holds no outputs of its denoiser; sample with keep='all' and a deterministic solver")
    return traj.denoised.flatten(2).to(x)

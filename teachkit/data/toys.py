"""Toys: points in the plane, drawn from two half circles, spirals, a board, a ring, a grid.

Each is ``(N, 2)`` float64, and visits its moons, arms, rows or modes in turn. Taught in
``notebooks/01_noise_and_denoising``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from teachkit.checks import integer, number

__all__ = ["CLASSES", "TOYS", "checkerboard", "gaussian_grid", "ring", "spiral", "two_moons"]


def two_moons(n: int, seed: int = 0, noise: float = 0.05) -> Tensor:
    """Two interleaved half circles of radius 1, in turn, with Gaussian noise.

    Parameters
    ----------
    n, seed : int
        Number of points, and the seed of their random numbers.
    noise : float
        Standard deviation of the noise.

    Returns
    -------
    Tensor
        ``(n, 2)`` float64.

    Examples
    --------
    >>> two_moons(3, noise=0.0).shape
    torch.Size([3, 2])
    """
    rng = _rng(n, seed, noise=noise)
    angle = math.pi * _uniform(rng, n)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    sign = 1 - 2 * (torch.arange(n) % 2)
    return sign[:, None] * upper + noise * _normal(rng, n)


def spiral(n: int, seed: int = 0, noise: float = 0.03, turns: float = 1.5) -> Tensor:
    """Two spiral arms, in turn, that wind out to radius 1, with Gaussian noise.

    Parameters
    ----------
    n, seed : int
        Number of points, and the seed of their random numbers.
    noise : float
        Standard deviation of the noise.
    turns : float
        How often each arm winds round.

    Returns
    -------
    Tensor
        ``(n, 2)`` float64.

    Examples
    --------
    >>> bool(spiral(100, noise=0.0).norm(dim=1).max() <= 1)
    True
    """
    rng = _rng(n, seed, noise=noise)
    radius, turns = _uniform(rng, n).sqrt(), number("turns", turns)
    angle = 2 * math.pi * turns * radius + math.pi * (torch.arange(n) % 2).double()
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1) + noise * _normal(rng, n)


def checkerboard(n: int, seed: int = 0, cells: int = 4) -> Tensor:
    """Uniform on the dark squares of a ``cells`` x ``cells`` board over [-1, 1]^2, row by row.

    Parameters
    ----------
    n, seed : int
        Number of points, and the seed of their random numbers.
    cells : int
        Squares along a side.

    Returns
    -------
    Tensor
        ``(n, 2)`` float64.

    Examples
    --------
    >>> bool(checkerboard(100).abs().max() <= 1)
    True
    """
    rng = _rng(n, seed)
    cells = integer("cells", cells, 2)
    if cells % 2:
        raise ValueError(f"cells must be an even integer >= 2, got {cells!r}")
    row = torch.arange(n) % cells
    column = 2 * torch.randint(cells // 2, (n,), generator=rng) + row % 2
    corner = torch.stack([column, row], 1)
    return (corner + torch.rand(n, 2, generator=rng, dtype=torch.float64)) * (2 / cells) - 1


def ring(n: int, seed: int = 0, modes: int = 8, radius: float = 1.0, noise: float = 0.05) -> Tensor:
    """``modes`` Gaussians evenly spaced on a circle, in turn.

    Parameters
    ----------
    n, seed : int
        Number of points, and the seed of their random numbers.
    modes : int
        Number of Gaussians.
    radius, noise : float
        Of the circle, and the standard deviation of each Gaussian.

    Returns
    -------
    Tensor
        ``(n, 2)`` float64.

    Examples
    --------
    >>> ring(8, noise=0.0).norm(dim=1)
    tensor([1., 1., 1., 1., 1., 1., 1., 1.], dtype=torch.float64)
    """
    rng = _rng(n, seed, noise=noise)
    modes, radius = integer("modes", modes, 1), number("radius", radius)
    angle = 2 * math.pi * (torch.arange(n) % modes).double() / modes
    return radius * torch.stack([angle.cos(), angle.sin()], 1) + noise * _normal(rng, n)


def gaussian_grid(n: int, seed: int = 0, side: int = 5, noise: float = 0.03) -> Tensor:
    """``side`` x ``side`` Gaussians on a grid over [-1, 1]^2, in turn.

    Parameters
    ----------
    n, seed : int
        Number of points, and the seed of their random numbers.
    side : int
        Gaussians along a side.
    noise : float
        Standard deviation of each.

    Returns
    -------
    Tensor
        ``(n, 2)`` float64.

    Examples
    --------
    >>> gaussian_grid(4, side=2, noise=0.0).tolist()
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    """
    rng = _rng(n, seed, noise=noise)
    side = integer("side", side, 2)
    mode = torch.arange(n) % side**2
    centre = torch.stack([mode % side, mode // side], 1).double() * (2 / (side - 1)) - 1
    return centre + noise * _normal(rng, n)


# Every toy visits its moons, arms, rows or modes in turn, so point i belongs to class i % classes.
TOYS: dict[str, Callable[..., Tensor]] = {f.__name__: f for f in (two_moons, spiral, checkerboard, ring, gaussian_grid)}
CLASSES = {"two_moons": 2, "spiral": 2, "checkerboard": 4, "ring": 8, "gaussian_grid": 25}


def _rng(n: int, seed: int, noise: float = 0.0) -> torch.Generator:
    n, seed = integer("n", n, 1), integer("seed", seed, 0)
    number("noise", noise, least=0)
    return torch.Generator().manual_seed(seed)


def _uniform(rng: torch.Generator, n: int) -> Tensor:
    return torch.rand(n, generator=rng, dtype=torch.float64)


def _normal(rng: torch.Generator, n: int) -> Tensor:
    return torch.randn(n, 2, generator=rng, dtype=torch.float64)

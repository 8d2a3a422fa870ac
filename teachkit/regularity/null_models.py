"""Curves made by chance: what a claim about the shape of a path must be compared with.

A random walk puts a share 6 / (pi k)^2 of its variance into principal component k, in however many dimensions: that
three components hold 83 % of a path says nothing by itself (Antognini & Sohl-Dickstein 2018, arXiv 1806.08805).
Deviations from a chord are zero at both ends, and so is a Brownian bridge: it is their null model. Taught in
``notebooks/07_the_boomerang``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit import geometry
from teachkit.checks import integer
from teachkit.denoisers import default_dtype
from teachkit.trajectory import Trajectory, flat, states


def random_walk(n: int, b: int, d: int, seed: int = 0) -> Tensor:
    """``b`` random walks of ``n`` steps in ``d`` dimensions, from 0, of variance 1 at the end.

    The share of its variance in principal component k is 6 / (pi k)^2 for large n and d: 60.8 %, 15.2 %, ...
    (Antognini & Sohl-Dickstein 2018, arXiv 1806.08805). A walk is not pinned at its end: the fair comparison for a
    deviation from a chord is `brownian_bridge`.

    Parameters
    ----------
    n, b, d : int
        Number of steps, of walks and of dimensions.
    seed : int
        For the random numbers.

    Returns
    -------
    Tensor
        ``(n+1, b, d)`` float64.

    Examples
    --------
    >>> random_walk(100, 5, 3).shape
    torch.Size([101, 5, 3])
    """
    n, b, d = integer("n", n, 1), integer("b", b, 1), integer("d", d, 1)
    steps = torch.randn(n, b, d, generator=_seeded(seed), dtype=default_dtype()) / n**0.5
    return torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])


def brownian_bridge(n: int, b: int, d: int, seed: int = 0, like: Trajectory | Tensor | None = None) -> Tensor:
    """``b`` random walks pinned at both ends, ``(n+1, b, d)``: the null model for what bends around a chord.

    Centred principal components have shares 3 / (pi k)^2, each twice: 30.4, 60.8, 68.4 % cumulative for large n, d.

    Parameters
    ----------
    n, b, d : int
        Number of steps, of paths and of dimensions.
    seed : int
        For the random numbers.
    like : Trajectory or (n+1, b, *event), optional
        Give the bridges the chords of these paths: state i keeps its place along the chord, and the bridge, made
        perpendicular to the chord and scaled to the same root-mean-square deviation, is what is put around it.

    Returns
    -------
    Tensor
        ``(n+1, b, d)``.

    Examples
    --------
    >>> bridge = brownian_bridge(100, 5, 3)
    >>> bridge.shape, bridge[0].abs().max().item(), bridge[-1].abs().max().item()
    (torch.Size([101, 5, 3]), 0.0, 0.0)
    >>> shares = geometry.explained_variance(brownian_bridge(200, 8, 2000), 3).mean(0)
    >>> [round(share, 1) for share in (100 * shares).tolist()]
    [31.4, 60.8, 68.6]
    """
    walk = random_walk(n, b, d, seed)
    time = torch.linspace(0, 1, n + 1, dtype=walk.dtype)[:, None, None]
    bridge = walk - time * walk[-1]
    bridge[-1] = 0
    if like is None:
        return bridge
    x = flat(states("like", like))
    if x.shape != bridge.shape:
        raise ValueError(f"like must hold paths of n+1, b, d = {tuple(bridge.shape)}, got {tuple(x.shape)}")
    offset = x - x[0]
    length = torch.linalg.vector_norm(offset[-1], dim=-1, keepdim=True)
    if not (length > 0).all():
        raise ValueError("like has a path that ends where it began: it has no chord")
    unit, bridge = offset[-1] / length, bridge.to(x)
    bridge = bridge - (bridge * unit).sum(-1, keepdim=True) * unit
    size = geometry.deviation(x).square().mean(0).sqrt()  # (b,)
    own = bridge.square().sum(-1).mean(0).sqrt().clamp(min=torch.finfo(x.dtype).tiny)
    return x[0] + (offset * unit).sum(-1, keepdim=True) * unit + bridge * (size / own)[:, None]


def time_shuffled(curves: Tensor, seed: int = 0) -> Tensor:
    """The same points in another order, drawn for each curve: a null model for alignment.

    Parameters
    ----------
    curves : (N+1, B, *event)
        The curves.
    seed : int
        For the orders.

    Returns
    -------
    Tensor
        ``(N+1, B, *event)``.

    Examples
    --------
    >>> curve = torch.arange(5.0)[:, None, None]  # (5, 1, 1)
    >>> time_shuffled(curve).flatten().tolist()
    [4.0, 0.0, 1.0, 3.0, 2.0]
    """
    x = states("curves", curves)
    rng = _seeded(seed)
    order = torch.stack([torch.randperm(len(x), generator=rng) for _ in range(x.shape[1])], 1).to(x.device)
    return x.gather(0, order.reshape(*order.shape, *[1] * (x.ndim - 2)).expand_as(x))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(integer("seed", seed, 0))

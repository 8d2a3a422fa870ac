"""Curves made by chance: what a claim about the shape of a path must be compared with.

A random walk puts a share 6 / (pi k)^2 of its variance into principal component k, in however many dimensions: that
three components hold 83 % of a path says nothing by itself (Antognini & Sohl-Dickstein 2018, arXiv 1806.08805).
Deviations from a chord are zero at both ends, and so are a Brownian bridge and an integrated walk that returns. A path
of an ODE is smooth, a bridge is not: what a claim about its shape must beat is the integrated walk. Taught in
``notebooks/07_one_line_and_a_bend`` and ``08_the_boomerang``.
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
    (Antognini & Sohl-Dickstein 2018, arXiv 1806.08805). A walk is not pinned at its end: to be compared with a
    deviation from a chord are `brownian_bridge` and, where paths are smooth, `integrated_walk`.

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
    """``b`` random walks pinned at both ends, ``(n+1, b, d)``: the rough null model for what bends around a chord.

    Centred principal components have shares 3 / (pi k)^2, each twice: 30.4, 60.8, 68.4 % cumulative for large n, d.
    A path of an ODE is smoother than this by nature: see `integrated_walk`.

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
    return _pinned(walk, time, like)


def integrated_walk(n: int, b: int, d: int, seed: int = 0, like: Trajectory | Tensor | None = None) -> Tensor:
    """``b`` smooth curves made by chance, pinned at both ends, ``(n+1, b, d)``: the null model for paths of an ODE.

    White noise summed twice, w'' = noise, is as smooth as a curve with a random second derivative. Of each coordinate
    is taken what its end foretells, w(t) - w(1) Cov(w(t), w(1)) / Var(w(1)); in many dimensions that is the walk
    without its component along the chord. Centred principal components have shares of about 69, 93, 97 % cumulative
    for large n and d: without any model at all, two components hold nine tenths of a smooth curve.

    Parameters
    ----------
    n, b, d : int
        Number of steps, of paths and of dimensions.
    seed : int
        For the random numbers.
    like : Trajectory or (n+1, b, *event), optional
        Give the curves the chords of these paths: state i keeps its place along the chord, and the curve, made
        perpendicular to the chord and scaled to the same root-mean-square deviation, is what is put around it.

    Returns
    -------
    Tensor
        ``(n+1, b, d)``; without ``like`` in float64, and of variance 1 at the end before it is pinned.

    Examples
    --------
    >>> curve = integrated_walk(100, 5, 3)
    >>> curve.shape, curve[0].abs().max().item(), curve[-1].abs().max().item()
    (torch.Size([101, 5, 3]), 0.0, 0.0)
    >>> shares = geometry.explained_variance(integrated_walk(200, 8, 2000), 2).mean(0)
    >>> [round(share) for share in (100 * shares).tolist()]
    [70, 93]
    """
    walk = random_walk(n, b, d, seed)[1:].cumsum(0)
    weights = torch.arange(len(walk), 0, -1, dtype=walk.dtype)  # of the n steps in the end of the walk
    share = weights.cumsum(0).cumsum(0) / weights.square().sum()  # Cov(w_i, w_n) / Var(w_n)
    walk = torch.cat([torch.zeros_like(walk[:1]), walk / weights.square().mean().sqrt()])
    return _pinned(walk, torch.cat([share.new_zeros(1), share])[:, None, None], like)


def _pinned(walk: Tensor, share: Tensor, like: Trajectory | Tensor | None) -> Tensor:
    """The walk without what its end foretells of it, by itself or around the chords of ``like``."""
    bridge = walk - share * walk[-1]
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

"""Mean shift: climb a kernel density by stepping, again and again, to the weighted mean of the data around you.

With a Gaussian kernel of bandwidth h the mean-shift map is m(x; h) = sum_i w_i y_i, w = softmax(-|x - y_i|^2 / 2h^2):
the same formula as the empirical denoiser, D(x; sigma = h). So every function here takes a denoiser. A full Euler
step of the sampling ODE, from sigma to 0, *is* one mean-shift step (arXiv 2506.10177, Sec. 4.2; Fukunaga &
Hostetler 1975; Comaniciu & Meer 2002; annealing: Shen, Brooks & van den Hengel 2007). Taught in
``notebooks/02_mean_shift``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from teachkit.checks import batch, function, integer, number, real_tensor, scalar, shown
from teachkit.denoisers import Denoiser

__all__ = ["annealed_mean_shift", "mean_shift", "merge", "modes"]


def mean_shift(
    denoiser: Denoiser, x: Tensor, bandwidth: float, max_steps: int = 500, tolerance: float = 1e-6
) -> Tensor:
    """Iterate x <- D(x; bandwidth) at a fixed bandwidth, and return the whole path.

    Parameters
    ----------
    denoiser : callable
        The mean-shift map; for a data set, ``Empirical(data)``.
    x : (B, *event)
        Starting points.
    bandwidth : float
        Bandwidth h > 0 of the kernel, in the units of x.
    max_steps : int
        Upper limit of steps.
    tolerance : float
        Stop when no point moves by more than ``tolerance * bandwidth`` (Euclidean distance).

    Returns
    -------
    Tensor
        ``(steps + 1, B, *event)``: the starting points first. Along it log_prob(x; bandwidth) never falls.
    """
    return torch.stack([x, *_climb(denoiser, x, bandwidth, max_steps, tolerance)])


def _climb(denoiser: Denoiser, x: Tensor, bandwidth: float, max_steps: int, tolerance: float) -> Iterator[Tensor]:
    """The points after x of a mean-shift path, one at a time: whoever needs only the last need not keep the others."""
    function("denoiser", denoiser, "D(x, sigma)")
    batch("x", x)
    bandwidth = scalar("bandwidth", bandwidth, above=0)
    max_steps = integer("max_steps", max_steps, 1)
    tolerance = number("tolerance", tolerance, above=0)
    for _ in range(max_steps):
        before, x = x, denoiser(x, bandwidth)
        yield x
        moved = torch.linalg.vector_norm((x - before).flatten(1), dim=1)
        if bool((moved <= tolerance * bandwidth).all()):
            break


def annealed_mean_shift(denoiser: Denoiser, x: Tensor, bandwidths: Iterable[float]) -> Tensor:
    """One full mean-shift step at each of a sequence of bandwidths (usually shrinking), returning the path.

    This is the ODE sampler in a hurry: at every level it jumps all the way to D(x; sigma), where an Euler step goes
    only the fraction 1 - sigma_next / sigma.

    Parameters
    ----------
    denoiser : callable
        The mean-shift map ``D(x, bandwidth)``.
    x : (B, *event)
        Starting points.
    bandwidths : iterable of float
        One step is made at each.

    Returns
    -------
    Tensor
        The path, ``(steps + 1, B, *event)``, from the starting points on.
    """
    function("denoiser", denoiser, "D(x, sigma)")
    if not isinstance(bandwidths, Iterable) or (isinstance(bandwidths, Tensor) and bandwidths.ndim != 1):
        raise TypeError(f"bandwidths must be a sequence of numbers, got {shown(bandwidths)}")
    levels = [scalar("bandwidths", h, above=0) for h in bandwidths]
    if not levels:
        raise ValueError("bandwidths must hold at least one value")
    path = [batch("x", x)]
    for h in levels:
        path.append(denoiser(path[-1], h))
    return torch.stack(path)


def merge(points: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Merge points that lie within ``tolerance`` of an earlier one.

    Parameters
    ----------
    points : (B, *event)
        The points.
    tolerance : float
        Distance, > 0, within which two are one.

    Returns
    -------
    kept : (M, *event)
        The distinct points, in order of first appearance.
    index : (B,)
        For every point, which of the kept ones stands for it.
    """
    tolerance = number("tolerance", tolerance, above=0)
    if real_tensor("points", points, "(B, *event)").ndim < 2:
        raise ValueError(f"points must have shape (B, *event), got {tuple(points.shape)}")
    flat = points.flatten(1)
    kept: list[int] = []
    index = torch.empty(len(flat), dtype=torch.long, device=flat.device)
    for i in range(len(flat)):
        if kept:
            distance = torch.linalg.vector_norm(flat[kept] - flat[i], dim=1)
            nearest = int(distance.argmin())
            if float(distance[nearest]) <= tolerance:
                index[i] = nearest
                continue
        index[i] = len(kept)
        kept.append(i)
    return points[kept], index


def modes(
    denoiser: Denoiser,
    x: Tensor,
    bandwidth: float,
    merge_tolerance: float = 0.1,
    max_steps: int = 2000,
    tolerance: float = 1e-7,
) -> tuple[Tensor, Tensor]:
    """Modes of the blurred density p_bandwidth that mean shift reaches from the starting points.

    Parameters
    ----------
    denoiser, x, bandwidth, max_steps, tolerance
        As in `mean_shift`. To find all modes of a kernel density estimate, start from the data.
    merge_tolerance : float
        End points closer than ``merge_tolerance * bandwidth`` count as one mode.

    Returns
    -------
    modes : (M, *event)
    index : (B,)
        The mode each starting point climbed to.
    """
    merge_tolerance = number("merge_tolerance", merge_tolerance, above=0)
    end = deque(_climb(denoiser, x, bandwidth, max_steps, tolerance), maxlen=1).pop()
    return merge(end, merge_tolerance * float(bandwidth))

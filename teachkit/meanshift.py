"""Mean shift: climb a kernel density by stepping, again and again, to the weighted mean of the data around you.

With a Gaussian kernel of bandwidth h the mean-shift map is m(x; h) = sum_i w_i y_i, w = softmax(-|x - y_i|^2 / 2h^2):
the same formula as the empirical denoiser, D(x; sigma = h). So every function here takes a denoiser. A full Euler
step of the sampling ODE, from sigma to 0, *is* one mean-shift step (arXiv 2506.10177, Sec. 4.2; Fukunaga &
Hostetler 1975; Comaniciu & Meer 2002; annealing: Shen, Brooks & van den Hengel 2007). Taught in
``notebooks/02_mean_shift``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from teachkit.checks import batch, function, integer, number, real_tensor, scalar, shown
from teachkit.denoisers import Denoiser

__all__ = ["annealed_mean_shift", "mean_shift", "merge", "modes"]

_ROUNDS = 4  # of climbs from where a climb ended
_TO_THE_RIDGE = 10  # steps


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

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, or of the wrong kind.

    Examples
    --------
    >>> from teachkit import Empirical
    >>> D = Empirical(torch.tensor([[0.0], [1.0], [9.0]], dtype=torch.float64))
    >>> path = mean_shift(D, torch.tensor([[0.0], [8.0]], dtype=torch.float64), 1.0)
    >>> path[-1].round(decimals=3).flatten().tolist()  # two crowds, two modes
    [0.5, 9.0]
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

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, or of the wrong kind.

    Examples
    --------
    >>> from teachkit import Empirical
    >>> D = Empirical(torch.tensor([[0.0], [1.0], [9.0]], dtype=torch.float64))
    >>> annealed_mean_shift(D, torch.tensor([[4.0]], dtype=torch.float64), [10.0, 1.0, 0.1]).flatten().round(decimals=2)
    tensor([4.0000, 3.2200, 0.9400, 1.0000], dtype=torch.float64)
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

    Raises
    ------
    ValueError, TypeError
        For a tolerance that is not positive, points of another shape or not finite.

    Examples
    --------
    >>> kept, index = merge(torch.tensor([[0.0], [5.0], [0.1]]), 0.5)
    >>> kept.tolist(), index.tolist()
    ([[0.0], [5.0]], [0, 1, 0])
    """
    tolerance = number("tolerance", tolerance, above=0)
    if real_tensor("points", points, "(B, *event)").ndim < 2:
        raise ValueError(f"points must have shape (B, *event), got {tuple(points.shape)}")
    flat = points.flatten(1)
    kept: list[int] = []
    index = torch.empty(len(flat), dtype=torch.long, device=flat.device)
    for i in range(len(flat)):
        distance = torch.linalg.vector_norm(flat[kept] - flat[i], dim=1)
        if kept and float(distance.min()) <= tolerance:
            index[i] = distance.argmin()
        else:
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

    Mean shift stops wherever the density is level: at a saddle or a minimum too, if it starts there or is led there by
    symmetry. So every end point is moved a little, both ways along a random line, and climbs again; one that does not
    come back was no maximum, and where it goes is taken in its place. End points between which the density does
    not fall, on a plateau, are one mode: the highest of them.

    Parameters
    ----------
    denoiser : callable
        The mean-shift map; for a data set, ``Empirical(data)``.
    x : (B, *event)
        Starting points. To find all modes of a kernel density estimate, start from the data.
    bandwidth : float
        Bandwidth h > 0 of the kernel, in the units of x.
    merge_tolerance : float
        End points closer than ``merge_tolerance * bandwidth`` count as one mode.
    max_steps : int
        Upper limit of steps of every climb.
    tolerance : float
        A climb ends when no point moves by more than ``tolerance * bandwidth`` (Euclidean distance).

    Returns
    -------
    modes : (M, *event)
        Where the density is highest around.
    index : (B,)
        The mode each starting point climbed to.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, or of the wrong kind.

    Examples
    --------
    >>> from teachkit import Empirical
    >>> points = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    >>> D = Empirical(points.repeat_interleave(torch.tensor([3, 1, 3]), 0))
    >>> abs(D(points[1:2], 0.7).item()) < 1e-15  # by symmetry 0 stays; but the density is least there
    True
    >>> modes(D, points, 0.7)[0].round(decimals=2).flatten().tolist()
    [-0.78, 0.78]
    """
    merge_tolerance = number("merge_tolerance", merge_tolerance, above=0)

    def climb(start: Tensor) -> Tensor:
        return deque(_climb(denoiser, start, bandwidth, max_steps, tolerance), maxlen=1).pop()

    ends = climb(x)
    radius = merge_tolerance * float(bandwidth)
    found, index = merge(ends, radius)
    sure = torch.zeros(len(found), dtype=torch.bool, device=found.device)
    level = sure.clone()
    for _ in range(_ROUNDS):
        unsure = (~sure).nonzero()[:, 0]
        if not len(unsure):
            break
        left, level[unsure], tops = _nudge(climb, found[unsure], radius)
        found, again = merge(found.index_put((unsure,), tops), radius)
        sure[unsure] = ~left
        first = torch.stack([(again == k).nonzero()[0, 0] for k in range(len(found))])
        index, sure, level = again[index], sure[first], level[first]
    creeping = (level | ~sure).nonzero()[:, 0]
    kept, again = _plateaus(denoiser, found, creeping, float(bandwidth), 10 * tolerance).unique(return_inverse=True)
    return found[kept], again[index]


def _nudge(climb: Callable[[Tensor], Tensor], points: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which points a climb from close by does not return to; to which it comes only half back; and where they end."""
    x = points.flatten(1)
    rng = torch.Generator().manual_seed(0)
    way = torch.nn.functional.normalize(torch.randn(x.shape, generator=rng, dtype=torch.float64), dim=1).to(x)
    size = torch.linalg.vector_norm(x, dim=1).mul(4 * torch.finfo(x.dtype).eps).clamp(min=radius / 10)  # (M,)
    start = torch.cat([x + size[:, None] * way, x - size[:, None] * way])
    ends = climb(start.reshape(-1, *points.shape[1:])).flatten(1).unflatten(0, (2, -1))
    away, side = torch.linalg.vector_norm(ends - x, dim=-1).max(0)
    left = away > 2 * size
    top = torch.where(left[:, None], ends[side, torch.arange(len(x), device=x.device)], x)
    return left, ~left & (away > 0.01 * size), top.reshape(points.shape)


def _plateaus(denoiser: Denoiser, found: Tensor, level: Tensor, bandwidth: float, tolerance: float) -> Tensor:
    """For every point found the highest of its plateau, (M,).

    Two neighbours among the ``level`` ones (m,) are on one where log p, on the line between them, moved to the ridge,
    does not fall below the lower of both. It is the integral of the score, (D(x) - x) / bandwidth^2, along the line.
    """
    top = torch.arange(len(found), device=found.device)
    if len(level) < 2:
        return top
    x = found.flatten(1)[level]
    share = torch.linspace(0, 1, 17, dtype=x.dtype, device=x.device)
    group, height = torch.arange(len(x), device=x.device), torch.zeros_like(x[:, 0])
    nearest, distance = torch.zeros_like(group), torch.linalg.vector_norm(x - x[0], dim=1)
    reached = group == 0
    for _ in x[1:]:  # the shortest tree through all of them, an edge at a time (Prim 1957)
        b = int(distance.masked_fill(reached, torch.inf).argmin())
        a, reached[b] = int(nearest[b]), True
        line = (x[a] + share[:, None] * (x[b] - x[a])).reshape(-1, *found.shape[1:])
        for _ in range(_TO_THE_RIDGE):
            line = denoiser(line, bandwidth)
        score, line = (denoiser(line, bandwidth) - line).flatten(1) / bandwidth**2, line.flatten(1)
        step = line.diff(dim=0)
        rise = torch.cat([height[:1] * 0, ((score[1:] + score[:-1]) / 2 * step).sum(1).cumsum(0)])
        height[b] = height[a] + rise[-1]
        whole = float(torch.linalg.vector_norm(step, dim=1).max()) < float(distance[b]) / 8  # no saddle tore it apart
        if whole and float((rise - rise[-1].clamp(max=0)).min()) >= -tolerance * float(distance[b]) / bandwidth:
            group[group == int(group[b])] = int(group[a])
        closer = torch.linalg.vector_norm(x - x[b], dim=1)
        nearest, distance = torch.where(closer < distance, b, nearest), distance.minimum(closer)
    for k in group.unique().tolist():
        members = (group == k).nonzero()[:, 0]
        top[level[members]] = level[members[height[members].argmax()]]
    return top

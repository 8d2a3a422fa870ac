"""Distances between sets of samples without features, and the error to a reference."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from teachkit.checks import choice, finite, integer, number, squarable
from teachkit.denoisers import default_dtype

_BLOCK = 2**24  # values handled at a time: 128 MiB in float64
_SAFE = 1e-6  # a squared distance this small beside its terms has lost digits: it is computed from the difference


def summable(name: str, value: Tensor) -> Tensor:
    """Finite numbers whose squares can be added up, in the precision for sums."""
    return squarable(name, finite(name, value)).to(default_dtype(value.device))


def _pair(a: Tensor, b: Tensor, least: int, names: tuple[str, str] = ("a", "b")) -> tuple[Tensor, Tensor]:
    """Both as ``(N, d)`` in the precision for sums."""
    for name, value in zip(names, (a, b)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.ndim < 2 or len(value) < least or value.numel() == 0:
            raise ValueError(f"{name} must have shape (N, *event) with N >= {least}, got {tuple(value.shape)}")
    if a.shape[1:] != b.shape[1:] or a.device != b.device:
        raise ValueError(
            f"{' and '.join(names)} must agree in event shape and device, got {tuple(a.shape[1:])} on {a.device} and "
            f"{tuple(b.shape[1:])} on {b.device}"
        )
    return summable(names[0], a.detach()).flatten(1), summable(names[1], b.detach()).flatten(1)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of two sets (n, d) and (m, d), to rounding wherever the origin lies: (n, m).

    |x|^2 + |y|^2 - 2 x.y by a matrix product, seen from one of the points; differences where that cancels.
    """
    x, y = x - y[0], y - y[0]
    x2, y2 = x.square().sum(1, keepdim=True), y.square().sum(1)
    out = torch.addmm(y2, x, y.T, alpha=-2) + x2
    rows, columns = (out < _SAFE * (x2 + y2)).nonzero().unbind(1)
    for i, j in zip(*(part.split(max(1, _BLOCK // x.shape[1])) for part in (rows, columns))):
        out[i, j] = (x[i] - y[j]).square().sum(1)
    return out


def sliced_wasserstein(a: Tensor, b: Tensor, n_projections: int = 256, seed: int = 0, p: float = 2.0) -> float:
    """Sliced Wasserstein distance: the one-dimensional Wasserstein-p distance along random directions.

    In one dimension optimal transport is sorting. Over directions u, (mean_u W_p(u.a, u.b)^p)^(1/p) (Bonneel et al.
    2015, "Sliced and Radon Wasserstein barycenters of measures"). Sets of different sizes are matched exactly,
    quantile by quantile. A shift by v costs |v| / sqrt(d) when p = 2.

    Parameters
    ----------
    a, b : (N, *event), (M, *event)
        Samples; anything beyond the first axis is flattened.
    n_projections : int
        Number of random directions; the same for every call with the same seed.
    seed : int
        For the directions.
    p : float
        Order of the distance, >= 1.

    Returns
    -------
    float
        In the units of the samples.

    Examples
    --------
    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> round(sliced_wasserstein(x, x + torch.tensor([3.0, 4.0])), 1)  # about 5 / sqrt(2)
    3.6
    """
    a, b = _pair(a, b, least=1)
    a, b = a - a[0], b - a[0]  # far from the origin a projection would be rounded
    n_projections = integer("n_projections", n_projections, 1)
    p = number("p", p, least=1)
    rng = torch.Generator().manual_seed(integer("seed", seed, 0))
    directions = torch.randn(n_projections, a.shape[1], generator=rng, dtype=torch.float64)
    directions = F.normalize(directions, dim=1).to(a)  # (P, d)
    # Between neighbouring quantile levels both sorted sets are constant.
    n, m = len(a), len(b)
    levels = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1 / (n m)
    weights = torch.diff(levels, prepend=levels.new_zeros(1)).to(a) / (n * m)
    from_a, from_b = ((levels - 1) // m).to(a.device), ((levels - 1) // n).to(a.device)
    total, largest = 0.0, 0.0  # powers are summed in units of the largest difference, and are numbers whatever p is
    for part in directions.split(max(1, _BLOCK // len(levels))):
        sorted_a, sorted_b = (a @ part.T).sort(0).values, (b @ part.T).sort(0).values  # (N, P), (M, P)
        gap = (sorted_a[from_a] - sorted_b[from_b]).abs()
        top = float(gap.max())
        if top > largest:
            total, largest = total * (largest / top) ** p, top
        if largest:
            total += float((weights @ (gap / largest) ** p).sum())
    return largest * (total / n_projections) ** (1 / p)


def mmd(a: Tensor, b: Tensor, kernel: str = "polynomial", bandwidth: float | None = None, degree: int = 3) -> float:
    """Squared maximum mean discrepancy, estimated without bias (Gretton et al. 2012, eq. 3).

    mean k(a, a') + mean k(b, b') - 2 mean k(a, b) over pairs of different samples. Its expectation is right at any
    sample size, so it may come out slightly negative when the sets agree.

    Parameters
    ----------
    a, b : (N, *event), (M, *event)
        Samples or features, at least two each.
    kernel : str
        "polynomial": (x.y / d + 1)^degree, which on features is the KID (Binkowski et al. 2018, arXiv 1801.01401);
        "rbf": exp(-|x - y|^2 / (2 bandwidth^2)).
    bandwidth : float, optional
        For "rbf". By default the median distance between samples of a and b (at most 1,000 of each).
    degree : int
        For "polynomial".

    Returns
    -------
    float

    Examples
    --------
    >>> a, b = torch.randn(2, 500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> abs(mmd(a, b, "rbf")) < 0.01 < mmd(a, b + 1, "rbf")
    True
    """
    a, b = _pair(a, b, least=2)
    choice("kernel", kernel, ("polynomial", "rbf"))
    degree = integer("degree", degree, 1)
    if kernel == "rbf" and bandwidth is None:
        bandwidth = float(squared_distances(a[:: -(-len(a) // 1000)], b[:: -(-len(b) // 1000)]).sqrt().median())
        bandwidth = bandwidth or 1.0  # all points equal: any kernel says so
    bandwidth = None if bandwidth is None else number("bandwidth", bandwidth, above=0)

    def k(x: Tensor, y: Tensor) -> Tensor:
        if kernel == "polynomial":
            return (x @ y.T / x.shape[1] + 1) ** degree
        assert bandwidth is not None
        return (squared_distances(x, y) / (-2 * bandwidth**2)).exp()

    def diagonal(x: Tensor) -> float:
        return float(((x.square().mean(1) + 1) ** degree).sum()) if kernel == "polynomial" else float(len(x))

    def mean(x: Tensor, y: Tensor, same: bool) -> float:
        total = sum(float(k(part, y).sum()) for part in x.split(max(1, _BLOCK // len(y))))
        return (total - diagonal(x)) / (len(x) * (len(x) - 1)) if same else total / (len(x) * len(y))

    found = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    if not math.isfinite(found):
        raise ValueError(f"a and b hold numbers too large for the kernel {kernel!r}; scale them down")
    return found


def error_to_reference(samples: Tensor, reference: Tensor) -> Tensor:
    """Root mean square error of every sample to its reference solution.

    It measures the solver and its schedule alone, not the network. Needs no features,
    is deterministic, and has no bias, which makes it the sharpest ruler for comparing solvers at small scale.

    Parameters
    ----------
    samples, reference : (B, *event)
        What a solver gave, and the exact solution from the same noise.

    Returns
    -------
    Tensor
        ``(B,)`` float64.

    Examples
    --------
    >>> error_to_reference(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2)).tolist()
    [3.5355339059327378, 0.0]
    """
    a, b = _pair(samples, reference, 1, ("samples", "reference"))
    if a.shape != b.shape:
        raise ValueError(
            f"samples and reference must share one shape (B, *event), got {tuple(samples.shape)} and "
            f"{tuple(reference.shape)}"
        )
    return (a - b).square().mean(1).sqrt()

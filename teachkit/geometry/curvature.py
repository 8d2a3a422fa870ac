"""Curvature and torsion of space curves, by a cubic in arc length fitted around every point.

With u the arc length from point i, X - X_i = r' u + r'' u^2 / 2 + r''' u^3 / 6 is fitted by least squares over a
window; curvature = |r' x r''| / |r'|^3 and torsion = (r' x r'') . r''' / |r' x r''|^2, signed (Lewiner et al. 2005;
arXiv 2506.10177, Sec. 3). The cubic leaves out the fourth derivative, which is what biases it: on a helix a window of
length L makes the curvature too small by the share 5 / 336 (curvature^2 + torsion^2) L^2, and several times that near
the ends, where the window cannot lie around its point. Compare two windows before believing a peak. Taught in
``notebooks/07_the_boomerang``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import choice, number, real_tensor, squarable
from teachkit.denoisers import default_dtype
from teachkit.geometry import paths

__all__ = ["curvature_torsion"]

_LEAST = 5  # points in a window: the cubic has three unknown vectors, its centre is given


def curvature_torsion(
    points: Tensor,
    window: int | None = None,
    edges: str | None = None,
    *,
    length: float | None = None,
    weights: str = "uniform",
) -> tuple[Tensor, Tensor]:
    """Curvature and torsion of space curves, by a cubic in arc length around every point: see the module.

    Parameters
    ----------
    points : (N, 3) or (N, B, 3)
        The curves. Successive points must differ.
    window : int
        Odd number of points per fit, at least 5 and at most N. Give either this or ``length``.
    edges : {"published", "one_sided", "nan"}
        Within half a window of an end the window cannot lie around its point. It is moved inside, as far as needed;
        errors are then many times those of the other points. Return those values ("one_sided", the default with
        ``length``), NaN in their place ("nan"), or, for a window in points only and the default there, what the
        published code returns: at the far end it drops the first point of the window and counts point
        i - window // 2 twice.
    length : float
        Arc length per fit, in the units of the points, at most the length of the shortest curve. Where points are
        sparse the five nearest along the curve are taken, though they span more.
    weights : {"uniform", "length", "tricube"}
        Every point of a window counts the same; or as the arc length it stands for, so that the result does not
        depend on where points are dense; or that, less and less towards the edge of the window,
        (1 - |u / u_max|^3)^3 (Cleveland 1979), which makes the bias about 0.6 times as large.

    Returns
    -------
    curvature, torsion : (N,) or (N, B)
        In 1 / units. Where the curvature is zero to rounding (a straight line) torsion has no meaning and is 0.
    """
    real_tensor("points", points, "(N, 3) or (N, B, 3)")
    single = points.ndim == 2
    x = _check_points(points[:, None] if single else points)
    s = paths.arc_length(x)
    edges = _check_window(s, window, length, edges, weights)
    half = (length or 0.0) / 2
    first, count = _by_length(s, half) if window is None else _by_number(s, window)  # (N, B) each
    share = torch.ones_like(s) if weights == "uniform" else _length_of_points(s)
    curvature, torsion = torch.empty_like(s), torch.empty_like(s)
    offset, columns = torch.arange(int(count.max()), device=x.device)[:, None], torch.arange(s.shape[1])
    for rows in torch.arange(len(s), device=x.device).split(max(1, paths._BLOCK // (8 * len(offset) * s.shape[1]))):
        index = first[rows, None] + offset  # (r, w, B)
        used = (offset < count[rows, None]).to(x)
        index = index.clamp(max=len(s) - 1)
        if edges == "published" and window is not None:
            late = rows >= len(s) - window // 2
            used[late, 0] = 0
            used[late] += index[late] == (rows[late] - window // 2)[:, None, None]
        u = s[index, columns] - s[rows][:, None]
        # Curvature and torsion do not depend on the unit of u: take the window, for well-conditioned equations.
        u = u / (u.abs() * used).amax(1, keepdim=True)
        weight = used * share[index, columns]
        if weights == "tricube":
            weight = weight * (1 - (u.abs().clamp(max=1) * (1 - 1 / count[rows, None])) ** 3) ** 3
        curvature[rows], torsion[rows] = _cubic(u, x[index, columns] - x[rows][:, None], weight)
    if edges == "nan":
        near = (s < half * (1 - 1e-9)) | (s > s[-1] - half * (1 - 1e-9))
        if window is not None:
            near[: window // 2], near[len(s) - window // 2 :] = True, True
        curvature[near], torsion[near] = torch.nan, torch.nan
    return (curvature[:, 0], torsion[:, 0]) if single else (curvature, torsion)


def _cubic(u: Tensor, delta: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Curvature and torsion (r, B) of weighted cubics through u = 0; u, weight (r, w, B), delta (r, w, B, 3)."""
    design = torch.stack([u, u**2 / 2, u**3 / 6], -1)
    weighted = design * (weight / weight.amax(1, keepdim=True))[..., None]
    normal = torch.einsum("rwbi,rwbj->rbij", weighted, design)
    r1, r2, r3 = torch.linalg.solve(normal, torch.einsum("rwbi,rwbc->rbic", weighted, delta)).unbind(2)
    cross, speed = torch.linalg.cross(r1, r2), torch.linalg.vector_norm(r1, dim=-1)
    area = torch.linalg.vector_norm(cross, dim=-1)
    straight = area <= 1e4 * torch.finfo(u.dtype).eps * speed**2
    volume = (cross * r3).sum(-1) / area.where(~straight, torch.ones_like(area)) ** 2
    return area / speed**3, volume.where(~straight, torch.zeros_like(volume))


def _by_number(s: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """First point and number of points of every window of so many points, moved inside at the ends."""
    first = (torch.arange(len(s), device=s.device) - window // 2).clamp(0, len(s) - window)
    return first[:, None].expand(s.shape), torch.full(s.shape, window, device=s.device)


def _by_length(s: Tensor, half: float) -> tuple[Tensor, Tensor]:
    """First point and number of points of every window of this half length, moved inside at the ends."""
    centre = s.clamp(min=half).minimum(s[-1] - half)
    reach = half * (1 + 1e-9)  # a point on the edge belongs to the window on either side
    sorted_s = s.T.contiguous()
    first = torch.searchsorted(sorted_s, (centre - reach).T.contiguous()).T
    last = torch.searchsorted(sorted_s, (centre + reach).T.contiguous(), right=True).T - 1
    nearest = (torch.arange(len(s), device=s.device) - _LEAST // 2).clamp(0, len(s) - _LEAST)[:, None]
    few = last - first + 1 < _LEAST
    return torch.where(few, nearest, first), torch.where(few, _LEAST, last - first + 1)


def _length_of_points(s: Tensor) -> Tensor:
    """Half the arc length to both neighbours of every point, (N, B)."""
    half = s.diff(dim=0) / 2
    return torch.cat([half, torch.zeros_like(half[:1])]) + torch.cat([torch.zeros_like(half[:1]), half])


def _check_points(points: Tensor) -> Tensor:
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape[1] == 0:
        raise ValueError(f"points must have shape (N, 3) or (N, B, 3), got {tuple(points.shape)}")
    if len(points) < _LEAST:
        raise ValueError(f"points must hold at least {_LEAST} points a curve, got shape {tuple(points.shape)}")
    x = squarable("points", points).to(default_dtype(points.device))
    if not (torch.linalg.vector_norm(x.diff(dim=0), dim=-1) > 0).all():
        raise ValueError("points must not repeat: two successive points coincide")
    return x


def _check_window(s: Tensor, window: int | None, length: float | None, edges: str | None, weights: str) -> str:
    """What to do near the ends, once the window is found fit."""
    if (window is None) == (length is None):
        raise ValueError(f"give either window (points) or length (arc length), got {window!r} and {length!r}")
    if length is None:
        if not isinstance(window, int) or window % 2 == 0 or not _LEAST <= window <= len(s):
            raise ValueError(f"window must be an odd integer from 5 to the number of points {len(s)}, got {window!r}")
    elif number("length", length, above=0) > float(s[-1].min()):
        shortest = f"{float(s[-1].min()):.4g}"
        raise ValueError(f"length must be a number > 0, at most that of the shortest curve {shortest}, got {length!r}")
    known = ("published", "one_sided", "nan") if length is None else ("one_sided", "nan")
    choice("weights", weights, ("uniform", "length", "tricube"))
    return known[0] if edges is None else choice("edges", edges, known)

"""Curvature and torsion: of space curves by a cubic in arc length fitted around every point, of paths without a window.

With u the arc length from point i, X - X_i = r' u + r'' u^2 / 2 + r''' u^3 / 6 is fitted by least squares over a
window; curvature = |r' x r''| / |r'|^3 and torsion = (r' x r'') . r''' / |r' x r''|^2, signed (Lewiner et al. 2005;
arXiv 2506.10177, Sec. 3). The cubic leaves out the fourth derivative, which is what biases it: on a helix a window of
length L makes the curvature too small by the share 5 / 336 (curvature^2 + torsion^2) L^2, and several times that near
the ends, where the window cannot lie around its point. Compare two windows before believing a peak.

A sampling path needs no window: dx/dsigma = (x - D) / sigma, and once more differentiated x'' = -(dD/dsigma) / sigma,
the derivative of D taken along the path. So the outputs of the denoiser at two levels give the curvature between them.
Taught in the lesson on curvature and torsion.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import pad

from teachkit.checks import choice, number, real_tensor, squarable
from teachkit.denoisers import default_dtype
from teachkit.geometry import chord
from teachkit.geometry.blocks import values_at_once
from teachkit.trajectory import Trajectory, flat, whole_path

_LEAST = 5  # points in a window: the cubic has three unknown vectors, its centre is given
_WORST = 1e4  # condition number of a fit; usual windows are below 100, and points that nearly coincide far above
_LEAP = 1e3  # times the steps beside it: what lies between two leaps, and is shorter by as much, is one point
_ROUNDED = 0.1  # relative error, from the rounding of the points alone, of what is still given as a number


def curvature_torsion(
    points: Tensor,
    window: int | None = None,
    edges: str | None = None,
    *,
    length: float | None = None,
    weights: str = "uniform",
    sparse: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Curvature and torsion of space curves, by a cubic in arc length fitted around every point (Lewiner et al. 2005).

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
        Arc length per fit, in the units of the points, at most the length of the shortest curve.
    weights : {"uniform", "length", "tricube"}
        Every point of a window counts the same; or as the arc length it stands for, so that the result does not
        depend on where points are dense; or that, less and less towards the edge of the window,
        (1 - |u / u_max|^3)^3 (Cleveland 1979), which makes the bias about 0.6 times as large.
    sparse : {"widen", "nan"}, optional
        Where fewer than five points lie in ``length``: take the five nearest along the curve, though they span more, or
        return NaN. By default the windows are widened, and a UserWarning says how many and how far.

    Returns
    -------
    curvature, torsion : (N,) or (N, B)
        In 1 / units. Where the curvature is zero to rounding (a straight line) torsion has no meaning and is 0. NaN
        where the points of a window cannot tell the unknowns of the cubic apart, because they nearly coincide, and
        where the rounding of the points alone could change the value by a tenth.

    Examples
    --------
    >>> u = torch.linspace(0, 6, 200, dtype=torch.float64)
    >>> helix = torch.stack([u.cos(), u.sin(), u], 1)  # curvature 1 / 2, torsion 1 / 2
    >>> curvature, torsion = curvature_torsion(helix, 11)
    >>> round(float(curvature[100]), 3), round(float(torsion[100]), 3)
    (0.499, 0.5)
    """
    real_tensor("points", points, "(N, 3) or (N, B, 3)")
    single = points.ndim == 2
    x = _check_points(points[:, None] if single else points)
    s = chord.arc_length(x)
    edges = _check_window(s, window, length, edges, weights)
    sparse = sparse if sparse is None else choice("sparse", sparse, ("widen", "nan"))
    half = (length or 0.0) / 2
    first, count, few = _by_length(s, half) if window is None else _by_number(s, window)  # (N, B) each
    if sparse is None and bool(few.any()):
        _warn(s, first, few, 2 * half)
    number = _number(s)
    unit = min(torch.finfo(points.dtype).eps, torch.finfo(torch.float32).eps)  # half precision is taken at its word
    rounding = 0.5 * unit * x.abs().amax((0, 2))  # (B,)
    part = pad(s.diff(dim=0) / 2, (0, 0, 1, 1))  # a point stands for half of the way to each of its neighbours
    share = torch.ones_like(s) if weights == "uniform" else part[:-1] + part[1:]
    curvature, torsion = torch.empty_like(s), torch.empty_like(s)
    offset, columns = torch.arange(int(count.max()), device=x.device)[:, None], torch.arange(s.shape[1])
    together = max(1, values_at_once(x.device) // (8 * len(offset) * s.shape[1]))
    for rows in torch.arange(len(s), device=x.device).split(together):
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
        values = _cubic(u, x[index, columns] - x[rows][:, None], weight, rounding)
        inside = number[index, columns].where(used > 0, number[rows][:, None])  # (r, w, B)
        enough = inside.amax(1) - inside.amin(1) >= 3  # the centre and one point for each unknown
        curvature[rows], torsion[rows] = (value.where(enough, torch.nan) for value in values)
    if sparse == "nan":
        curvature[few], torsion[few] = torch.nan, torch.nan
    if edges == "nan":
        near = (s < half * (1 - 1e-9)) | (s > s[-1] - half * (1 - 1e-9))
        if window is not None:
            near[: window // 2], near[len(s) - window // 2 :] = True, True
        curvature[near], torsion[near] = torch.nan, torch.nan
    return (curvature[:, 0], torsion[:, 0]) if single else (curvature, torsion)


def path_curvature(traj: Trajectory) -> tuple[Tensor, Tensor]:
    """Curvature of sampling paths in all their dimensions, from the outputs of the denoiser: no window, no projection.

    On a path x' = (x - D) / sigma and x'' = -(dD/dsigma) / sigma, so that between two levels, with the mean of their x'
    and the difference of their D, the curvature is the length of x'' across x', over |x'|^2.

    Parameters
    ----------
    traj : Trajectory
        The paths, kept whole, of two steps or more.

    Returns
    -------
    curvature : (N-1, B)
        In 1 / units of x, between successive levels at which the denoiser was evaluated. The error falls with the
        square of the step, besides that of the states themselves: on 200 Euler steps of a Gaussian of digits it is 4 %.
    sigma : (N-1,)
        The noise levels that it belongs to, the geometric means of two.

    Raises
    ------
    ValueError
        Also where a path does not move.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample, schedules
    >>> round_data = Gaussian(torch.zeros(3, dtype=torch.float64), 1.0)  # whose paths are straight
    >>> path = sample(round_data, initial_noise(4, (3,)), schedules.polynomial(10))
    >>> curvature, sigma = path_curvature(path)
    >>> curvature.shape, bool((curvature < 1e-9).all()), round(float(sigma[0]), 1)
    (torch.Size([9, 4]), True, 60.2)
    """
    whole_path("traj", traj, outputs=True)
    if len(traj.denoised) < 2:
        raise ValueError("traj must hold two steps or more, got one: a curvature needs two outputs of the denoiser")
    x, denoised = flat(traj.x[:-1]), flat(traj.denoised)  # (N, B, d) each
    levels = traj.sigmas[:-1].to(x)
    slope = (x - denoised) / levels[:, None, None]
    along = (slope[1:] + slope[:-1]) / 2
    between = (levels[1:] * levels[:-1]).sqrt()
    turn = -denoised.diff(dim=0) / (levels.diff() * between)[:, None, None]  # x''
    speed = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
    if not (speed > 0).all():
        raise ValueError("traj has a path that does not move between two levels: it has no curvature there")
    unit = along / speed
    across = turn - (turn * unit).sum(-1, keepdim=True) * unit
    return torch.linalg.vector_norm(across, dim=-1) / speed[..., 0] ** 2, between


def _cubic(u: Tensor, delta: Tensor, weight: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """Curvature and torsion (r, B) of weighted cubics through u = 0, or NaN where points rounded so much give none.

    u, weight (r, w, B), delta (r, w, B, 3), rounding (B,).
    """
    design = torch.stack([u, u**2 / 2, u**3 / 6], -1)
    weight = (weight / weight.amax(1, keepdim=True))[..., None]
    scale = (weight * design**2).sum(1, keepdim=True).sqrt()  # of each unknown: (r, 1, B, 3)
    design = design / scale
    weighted = weight * design
    inverse = torch.linalg.inv_ex(torch.einsum("rwbi,rwbj->rbij", weighted, design)).inverse
    sound = torch.linalg.matrix_norm(inverse) < _WORST**2  # False for NaN too
    solver = torch.einsum("rbij,rwbj->rbiw", inverse, weighted) / scale[:, 0, ..., None]
    r1, r2, r3 = torch.einsum("rbiw,rwbc->rbic", solver, delta).unbind(2)
    # Three standard errors of each, from the rounding of every point and of the centre, which all differences share.
    e1, e2, e3 = (3 * (solver.square().sum(-1) + solver.sum(-1) ** 2).sqrt() * rounding[:, None]).unbind(-1)
    cross, speed = torch.linalg.cross(r1, r2), torch.linalg.vector_norm(r1, dim=-1)
    area = torch.linalg.vector_norm(cross, dim=-1)
    off = e1 * torch.linalg.vector_norm(r2, dim=-1) + e2 * speed  # of the area
    straight = area <= (1e4 * torch.finfo(u.dtype).eps * speed**2).maximum(off)
    volume = (cross * r3).sum(-1) / area.where(~straight, torch.ones_like(area)) ** 2
    # In units of the window a bend of 1e-6, or a turn of 1e-3, is none: then a large share of it may be wrong.
    bend, turn = area / speed**2, volume.abs() * speed
    bent = off / speed**2 <= (_ROUNDED * bend).clamp(min=1e-6)
    lost = e3 / area + 3 * torch.linalg.vector_norm(r3, dim=-1) * off / area**2  # of the torsion
    twisted = speed * lost <= (_ROUNDED * turn).clamp(min=1e-3)
    curvature = (area / speed**3).where(sound & bent, torch.nan)
    return curvature, volume.where(~straight, 0.0).where(sound & bent & (straight | twisted), torch.nan)


def _number(s: Tensor) -> Tensor:
    """The points counted along each curve, (N, B), near copies of one as one: see `_LEAP`."""
    far = pad(s.diff(dim=0), (0, 0, 1, 1), value=torch.inf)  # each step, and one without end on either side
    leap = far[:-1] > _LEAP * pad(far[:-2].minimum(far[2:]), (0, 0, 1, 0))  # the shorter neighbour of each step
    place = torch.arange(len(s), device=s.device)[:, None].expand(s.shape)
    first = place.where(leap, 0).cummax(0).values
    last = place.where(torch.cat([leap[1:], leap[:1]]), len(s) - 1).flip(0).cummin(0).values.flip(0)
    length = s.gather(0, last) - s.gather(0, first)
    gap = far.gather(0, first).minimum(far.gather(0, last + 1))
    copies = gap.isfinite() & (_LEAP * length < gap)
    return (leap | ~copies).cumsum(0)


def _warn(s: Tensor, first: Tensor, few: Tensor, length: float) -> None:
    """Say that windows were widened, how many and how far."""
    span = s.gather(0, first + _LEAST - 1) - s.gather(0, first)
    warnings.warn(
        f"length = {length:.4g} holds fewer than {_LEAST} points at {int(few.sum())} of {few.numel()} points: there "
        f"the {_LEAST} nearest were taken, which span up to {float(span[few].max()):.4g}; take a longer length, or say "
        "sparse='widen' or sparse='nan'",
        stacklevel=3,
    )


def _by_number(s: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """First point and number of points of every window of so many points, moved inside at the ends; none widened."""
    first = (torch.arange(len(s), device=s.device) - window // 2).clamp(0, len(s) - window)
    return first[:, None].expand(s.shape), torch.full(s.shape, window, device=s.device), torch.zeros_like(s).bool()


def _by_length(s: Tensor, half: float) -> tuple[Tensor, Tensor, Tensor]:
    """First point and number of points of every window of this half length, moved inside at the ends; those widened."""
    centre = s.clamp(min=half).minimum(s[-1] - half)
    reach = half * (1 + 1e-9)  # a point on the edge belongs to the window on either side
    sorted_s = s.T.contiguous()
    first = torch.searchsorted(sorted_s, (centre - reach).T.contiguous()).T
    last = torch.searchsorted(sorted_s, (centre + reach).T.contiguous(), right=True).T - 1
    nearest = (torch.arange(len(s), device=s.device) - _LEAST // 2).clamp(0, len(s) - _LEAST)[:, None]
    few = last - first + 1 < _LEAST
    return torch.where(few, nearest, first), torch.where(few, _LEAST, last - first + 1), few


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

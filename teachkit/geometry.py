"""The shape of sampling paths: how straight, in how many dimensions, how alike.

Every function takes a `Trajectory` or a tensor ``(N+1, B, *event)`` and keeps the batch. The chord of a path is the
line through its two ends; the paper's finding is that what is left after removing the chord is small, nearly
two-dimensional and nearly the same curve, a boomerang, for every sample (arXiv 2506.10177, Secs. 2-3;
arXiv 2405.11326). The chord is so long (about sigma_max * sqrt(d)) that any measure which includes it proves
nothing; hence ``remove_chord`` below. Taught in ``notebooks/06_one_line_and_a_bend`` and ``07_the_boomerang``.

Sums are made in float64 over blocks of samples, so that a long path in float32 is never copied whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from teachkit.denoisers import default_dtype
from teachkit.sampling import Trajectory

__all__ = [
    "align",
    "arc_length",
    "cosines",
    "curvature_torsion",
    "deviation",
    "deviation_peak",
    "distance_to_end",
    "explained_variance",
    "norms",
    "procrustes",
    "procrustes_residual",
    "project",
]

_BLOCK = 2**24  # values handled at a time: 128 MiB in float64


def deviation(traj: Trajectory | Tensor, relative: bool = False) -> Tensor:
    """Distance of every state to its chord, the line through both ends of its path (arXiv 2405.11326, Sec. 3).

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths.
    relative : bool
        Divide by the length of the chord.

    Returns
    -------
    Tensor
        ``(N+1, B)``, in the units of x. Zero at both ends. A path that ends where it began has no chord; then the
        distance to that point is given (and ``relative`` is refused).
    """

    def block(x: Tensor) -> Tensor:
        residual, length = _remove_chord(x)
        out = torch.linalg.vector_norm(residual, dim=-1)
        if relative and not (length > 0).all():
            raise ValueError("traj has a path that ends where it began: it has no chord to be relative to")
        return out / length if relative else out

    return _blocks(block, traj)


def deviation_peak(traj: Trajectory) -> tuple[Tensor, Tensor]:
    """Largest deviation of each path relative to its chord, and the noise level where it occurs.

    Returns
    -------
    peak : (B,)
        Largest deviation / chord length.
    sigma : (B,)
        Noise level of that state.
    """
    if not isinstance(traj, Trajectory):
        raise TypeError(f"traj must be a Trajectory (its sigmas are needed), got {type(traj).__name__}")
    peak, index = deviation(traj, relative=True).max(0)
    return peak, traj.sigmas.to(peak)[index]


def distance_to_end(traj: Trajectory | Tensor) -> Tensor:
    """Distance of every state to the last one, ``(N+1, B)``: for images it falls monotonically (Sec. 3)."""
    return _blocks(lambda x: torch.linalg.vector_norm(x - x[-1], dim=-1), traj)


def arc_length(traj: Trajectory | Tensor) -> Tensor:
    """Length of the path travelled up to every state, ``(N+1, B)``, starting at 0."""

    def block(x: Tensor) -> Tensor:
        steps = torch.linalg.vector_norm(x.diff(dim=0), dim=-1)
        return torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])

    return _blocks(block, traj)


def norms(traj: Trajectory) -> tuple[Tensor, Tensor, Tensor]:
    """Norms of the state, of the denoised state and of the direction eps = (x - D) / sigma.

    Returns
    -------
    x, denoised, eps : (N, B) each
        At the N levels where the denoiser was evaluated. In high dimension |eps| stays near sqrt(d).
    """
    if not isinstance(traj, Trajectory) or len(traj.denoised) == 0:
        raise TypeError("traj must be a Trajectory that kept its whole path (keep='all')")
    x, denoised = traj.x[:-1], traj.denoised
    distance = _blocks(lambda pair: torch.linalg.vector_norm(pair[0] - pair[1], dim=-1), x, denoised)
    size = [_blocks(lambda y: torch.linalg.vector_norm(y, dim=-1), y) for y in (x, denoised)]
    return size[0], size[1], distance / traj.sigmas[:-1, None].to(distance)


def cosines(traj: Trajectory | Tensor) -> Tensor:
    """Cosine between every step of a path and its chord, ``(N, B)``: 1 on a straight path."""

    def block(x: Tensor) -> Tensor:
        steps, chord = x.diff(dim=0), x[-1] - x[0]
        return torch.nn.functional.cosine_similarity(steps, chord.expand_as(steps), dim=-1)

    return _blocks(block, traj)


def explained_variance(traj: Trajectory | Tensor, k: int, remove_chord: bool = False, centre: bool = True) -> Tensor:
    """Share of each path's variance in its first 1, 2, ..., k principal components: cumulative, ``(B, k)``.

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths; each gets its own principal components.
    k : int
        Number of components, at most the number of states.
    remove_chord : bool
        Remove the direction of the chord first. Without this the first component of *any* path from sigma = 80
        explains about 99.99 % and says only that the path is long; with it, the shape of the bend is measured.
    centre : bool
        Subtract the mean over the path, as principal component analysis does. The null models differ: a Brownian
        bridge has 30.4 / 60.8 / 68.4 % centred, and 60.8 / 76.0 / 82.7 % uncentred.

    Returns
    -------
    Tensor
        ``(B, k)`` in [0, 1], non-decreasing along k. A path with no variance left (exactly straight) gives 1.
    """
    _check_components(traj, k)

    def block(x: Tensor) -> Tensor:
        y = _remove_chord(x)[0] if remove_chord else x
        size = torch.linalg.vector_norm(x - x[-1], dim=-1).amax(0) ** 2
        if centre:
            y = y - y.mean(0)
        values = torch.linalg.eigvalsh(_gram(y)).flip(-1).clamp(min=0)  # (b, min(N+1, d)), largest first
        values = torch.nn.functional.pad(values, (0, max(0, k - values.shape[-1])))
        total = values.sum(-1, keepdim=True)
        nothing = total <= size[:, None] * _rounding(x) ** 2 * len(x)
        share = values.cumsum(-1) / total.where(~nothing, torch.ones_like(total))
        return share.where(~nothing, torch.ones_like(share))[:, :k].clamp(max=1)

    return _blocks(block, traj, batch_dim=0)


def project(traj: Trajectory | Tensor) -> Tensor:
    """Three coordinates of every path: along its chord, and along two components of what remains.

    The components are principal axes of the centred residual; the coordinates are those of the residual itself, so
    both ends of every path lie at (0, 0) in them. Signs are fixed: the entry of largest size in each of the two
    residual coordinates is positive (arXiv 2405.11326, Fig. 3).

    Returns
    -------
    Tensor
        ``(N+1, B, 3)``: distance along the chord from the first state, then the two residual coordinates, in the
        units of x. Coordinates that do not exist (a straight path, or d < 3) are 0.
    """
    _check_components(traj, 1)

    def block(x: Tensor) -> Tensor:
        residual, length = _remove_chord(x)
        chord = (x[-1] - x[0]) / length.where(length > 0, torch.ones_like(length))[:, None]
        along = ((x - x[0]) * chord).sum(-1)  # (N+1, b)
        centred = residual - residual.mean(0)
        values, vectors = torch.linalg.eigh(_gram(centred))  # (b, m), (b, m, m) with m = min(N+1, d)
        count = min(2, len(x), x.shape[-1])
        values, vectors = values.flip(-1)[:, :count], vectors.flip(-1)[..., :count]
        size = length.maximum(torch.linalg.vector_norm(x - x[0], dim=-1).amax(0))
        floor = (size[:, None] * _rounding(x)) ** 2 * len(x)
        scale = values.where(values > floor, torch.inf * torch.ones_like(values)).sqrt()
        if len(x) < x.shape[-1]:
            axes = torch.einsum("nbd,bnk->bkd", centred, vectors) / scale[..., None]  # unit vectors, or 0
        else:
            axes = vectors.mT * scale.isfinite()[..., None]
        pcs = torch.einsum("nbd,bkd->nbk", residual, axes)
        biggest = pcs.abs().argmax(0, keepdim=True)
        sign = torch.where(pcs.gather(0, biggest) < 0, -1.0, 1.0)
        out = torch.zeros(*along.shape, 3, dtype=x.dtype, device=x.device)
        out[..., 0], out[..., 1 : 1 + count] = along, pcs * sign
        return out

    return _blocks(block, traj)


def procrustes(curves: Tensor, reference: Tensor, reflections: bool = True) -> Tensor:
    """Orthogonal matrices R that bring each curve closest to a reference: argmin |curve @ R - reference|.

    Parameters
    ----------
    curves : (N+1, B, k)
        Curves in k dimensions (2 or 3, or any other).
    reference : (N+1, k)
        The curve to align to.
    reflections : bool
        Allow det R = -1. The signs of principal components are arbitrary, so this is usually wanted.

    Returns
    -------
    Tensor
        ``(B, k, k)``. With curve^T reference = U S Vh, R = U Vh (Schönemann 1966; arXiv 2506.10177, eq. 13). Note
        that ``torch.linalg.svd`` returns Vh, already transposed; multiplying by its transpose is a popular bug.
    """
    if not isinstance(curves, Tensor) or not isinstance(reference, Tensor):
        raise TypeError(
            f"curves and reference must be tensors, got {type(curves).__name__}, {type(reference).__name__}"
        )
    if curves.ndim != 3 or reference.shape != (curves.shape[0], curves.shape[2]):
        raise ValueError(
            f"curves must be (N+1, B, k) and reference (N+1, k), got {tuple(curves.shape)} and {tuple(reference.shape)}"
        )
    if not (torch.isfinite(curves).all() and torch.isfinite(reference).all()):
        raise ValueError("curves and reference must be finite, got NaN or infinity")
    u, _, vh = torch.linalg.svd(torch.einsum("nbi,nj->bij", curves, reference.to(curves)))
    if not reflections:
        flip = torch.ones_like(u[:, 0])
        flip[:, -1] = torch.linalg.det(u @ vh).sign()
        u = u * flip[:, None]
    return u @ vh


def align(curves: Tensor, reference: Tensor, reflections: bool = True) -> Tensor:
    """Rotate (and reflect) every curve onto the reference: ``(N+1, B, k)``. See `procrustes`."""
    return torch.einsum("nbi,bij->nbj", curves, procrustes(curves, reference, reflections))


def procrustes_residual(curves: Tensor, reference: Tensor, reflections: bool = True) -> Tensor:
    """Squared distance left after alignment, both curves scaled to unit norm: ``(B,)`` from 0 (same shape) to 2.

    A curve of zeros (what `project` leaves beside the chord of a straight path) has no shape and is refused.
    """
    size, target_size = torch.linalg.vector_norm(curves, dim=(0, 2), keepdim=True), torch.linalg.vector_norm(reference)
    if not (size > 0).all() or not target_size > 0:
        raise ValueError("curves and reference must not be all zeros: a straight path leaves no shape to compare")
    unit = curves / size
    target = (reference / target_size).to(curves)
    gap = align(unit, target, reflections) - target[:, None]
    return (gap**2).sum((0, 2))


def curvature_torsion(points: Tensor, window: int, edges: str = "published") -> tuple[Tensor, Tensor]:
    """Curvature and torsion of space curves, by fitting a cubic in arc length around every point.

    With u the arc length from point i, X - X_i = r' u + r'' u^2 / 2 + r''' u^3 / 6 is fitted by least squares over
    ``window`` points; curvature = |r' x r''| / |r'|^3 and torsion = (r' x r'') . r''' / |r' x r''|^2, signed
    (Lewiner et al. 2005; arXiv 2506.10177, Sec. 3). The fit is biased by O(window^2): compare two windows.

    Parameters
    ----------
    points : (N, 3) or (N, B, 3)
        The curves. Successive points must differ.
    window : int
        Odd number of points per fit, at least 5 and at most N.
    edges : {"published", "one_sided", "nan"}
        Near the ends the window lies to one side of its point, and errors are many times those inside. Return those
        values ("one_sided"), NaN in their place ("nan"), or what the published code returns: at the far end it
        drops the first point of the window and counts point i - window // 2 twice.

    Returns
    -------
    curvature, torsion : (N,) or (N, B)
        In 1 / units. Where the curvature is zero to rounding (a straight line) torsion has no meaning and is 0.
    """
    if not isinstance(points, Tensor):
        raise TypeError(f"points must be a tensor of shape (N, 3) or (N, B, 3), got {type(points).__name__}")
    single = points.ndim == 2
    x = _check_points(points[:, None] if single else points, window, edges)
    n, half = len(x), window // 2
    s = arc_length(x)
    offset = torch.arange(window, device=x.device)
    curvature, torsion = torch.empty_like(s), torch.empty_like(s)
    block = max(1, _BLOCK // (8 * window * x.shape[1]))
    for rows in torch.arange(n, device=x.device).split(block):
        index = (rows - half).clamp(0, n - window)[:, None] + offset  # (r, window)
        weight = torch.ones_like(index, dtype=x.dtype)
        if edges == "published":
            late = rows >= n - half
            weight[late, 0] = 0
            weight[late] += index[late] == (rows[late] - half)[:, None]
        u = s[index] - s[rows][:, None]  # (r, window, b)
        # Curvature and torsion do not depend on the unit of u: take the window, for well-conditioned equations.
        u = u / u.abs().amax(1, keepdim=True)
        design = torch.stack([u, u**2 / 2, u**3 / 6], -1)  # (r, window, b, 3)
        delta = x[index] - x[rows][:, None]
        weighted = design * weight[..., None, None]
        normal = torch.einsum("rwbi,rwbj->rbij", weighted, design)
        r1, r2, r3 = torch.linalg.solve(normal, torch.einsum("rwbi,rwbc->rbic", weighted, delta)).unbind(2)
        cross, speed = torch.linalg.cross(r1, r2), torch.linalg.vector_norm(r1, dim=-1)
        area = torch.linalg.vector_norm(cross, dim=-1)
        straight = area <= 1e4 * torch.finfo(x.dtype).eps * speed**2
        curvature[rows] = area / speed**3
        volume = (cross * r3).sum(-1) / area.where(~straight, torch.ones_like(area)) ** 2
        torsion[rows] = volume.where(~straight, torch.zeros_like(volume))
    if edges == "nan":
        for out in (curvature, torsion):
            out[:half], out[n - half :] = torch.nan, torch.nan
    return (curvature[:, 0], torsion[:, 0]) if single else (curvature, torsion)


def _check_points(points: Tensor, window: int, edges: str) -> Tensor:
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ValueError(f"points must have shape (N, 3) or (N, B, 3), got {tuple(points.shape)}")
    if not isinstance(window, int) or window % 2 == 0 or not 5 <= window <= len(points):
        raise ValueError(f"window must be an odd integer from 5 to the number of points {len(points)}, got {window!r}")
    if edges not in ("published", "one_sided", "nan"):
        raise ValueError(f"edges must be 'published', 'one_sided' or 'nan', got {edges!r}")
    x = points.to(default_dtype(points.device))
    if not torch.isfinite(x).all():
        raise ValueError("points must be finite, got NaN or infinity")
    if not (torch.linalg.vector_norm(x.diff(dim=0), dim=-1) > 0).all():
        raise ValueError("points must not repeat: two successive points coincide")
    return x


def _blocks(function: Callable[..., Tensor], *paths: Trajectory | Tensor, batch_dim: int = 1) -> Tensor:
    """Apply a function to float64 blocks of samples, flattened to (N+1, b, d), and put the results together."""
    tensors = [_path(p) for p in paths]
    first = tensors[0]
    size = max(1, _BLOCK // (first[:, 0].numel() * len(tensors)))
    dtype = default_dtype(first.device)
    out = []
    for pieces in zip(*(t.split(size, 1) for t in tensors)):
        flat = [p.flatten(2).to(dtype) for p in pieces]
        if not all(bool(p.sum().isfinite()) or bool(p.isfinite().all()) for p in flat):
            raise ValueError("traj must be finite, got NaN or infinity")
        out.append(function(flat[0] if len(flat) == 1 else torch.stack(flat)))
    return torch.cat(out, batch_dim)


def _path(traj: Trajectory | Tensor) -> Tensor:
    """The states (N+1, B, *event) of a trajectory or tensor, checked."""
    x = traj.x if isinstance(traj, Trajectory) else traj
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"traj must be a Trajectory or a floating-point tensor, got {type(traj).__name__}")
    if x.ndim < 3 or x.numel() == 0:
        raise ValueError(f"traj must have shape (N+1, B, *event), got {tuple(x.shape)}")
    if isinstance(traj, Trajectory) and len(x) != len(traj.sigmas):
        raise ValueError("traj holds only its final state; sample with keep='all' to measure the path")
    if len(x) < 2:
        raise ValueError(f"traj must hold at least two states, got shape {tuple(x.shape)}")
    return x


def _remove_chord(x: Tensor) -> tuple[Tensor, Tensor]:
    """x relative to its first state, without its component along the chord (N+1, b, d); chord lengths (b,)."""
    offset = x - x[0]
    chord = offset[-1]
    length = torch.linalg.vector_norm(chord, dim=-1)
    unit = chord / length.where(length > 0, torch.ones_like(length))[:, None]
    residual = offset - (offset * unit).sum(-1, keepdim=True) * unit
    residual[-1] = residual[-1] * (length == 0)[:, None]  # exactly on the chord
    return residual, length


def _gram(x: Tensor) -> Tensor:
    """Inner products of the states of each path (b, N+1, N+1), or of its coordinates (b, d, d) if there are fewer.

    Both have the same eigenvalues, apart from zeros, and neither is larger than the paths themselves.
    """
    y = x.transpose(0, 1)
    return y @ y.mT if len(x) < x.shape[-1] else y.mT @ y


def _rounding(x: Tensor) -> float:
    """Size, relative to the chord, below which a residual is rounding."""
    return 64 * torch.finfo(x.dtype).eps


def _check_components(traj: Trajectory | Tensor, k: int) -> None:
    states = len(_path(traj))
    if not isinstance(k, int) or not 1 <= k <= states:
        raise ValueError(f"k must be an integer from 1 to the number of states {states}, got {k!r}")

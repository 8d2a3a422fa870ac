"""Laying curves on one another: orthogonal Procrustes, and what is left after it.

The orthogonal matrix that brings a curve C (N+1, k) closest to a reference A is R = U Vh with C^T A = U S Vh
(Schönemann 1966; arXiv 2506.10177, eq. 13). Coordinates from `project` have the chord as their first axis, which all
paths share already and which is hundreds of times longer than the bend: turn them about it (``about_chord=True``), or
the residual is that of two straight lines. Taught in ``notebooks/08_the_boomerang``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import flag, real_tensor, squarable


def procrustes(
    curves: Tensor, reference: Tensor | None = None, reflections: bool = True, *, about_chord: bool = False
) -> Tensor:
    """Orthogonal matrices R that bring each curve closest to a reference: argmin |curve @ R - reference|.

    Parameters
    ----------
    curves : (N+1, B, k)
        Curves in k dimensions (2 or 3, or any other).
    reference : (N+1, k), optional
        The curve to align to; the first of the curves by default.
    reflections : bool
        Allow det R = -1. The signs of principal components are arbitrary, so this is usually wanted.
    about_chord : bool
        Keep the first coordinate, along the chord in what `project` returns, and turn the others only.

    Returns
    -------
    Tensor
        ``(B, k, k)``. With curve^T reference = U S Vh, R = U Vh (Schönemann 1966; arXiv 2506.10177, eq. 13). Note
        that ``torch.linalg.svd`` returns Vh, already transposed; multiplying by its transpose is a popular bug.

    Examples
    --------
    >>> curve = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]])
    >>> turned = torch.stack([-curve[:, 1], curve[:, 0]], 1)[:, None]  # by a quarter: (3, 1, 2)
    >>> torch.allclose(turned[:, 0] @ procrustes(turned, curve)[0], curve, atol=1e-6)
    True
    """
    curves, reference = _check(curves, reference, about_chord)
    fixed = int(about_chord)
    u, _, vh = torch.linalg.svd(torch.einsum("nbi,nj->bij", curves[..., fixed:], reference[:, fixed:]))
    if not flag("reflections", reflections):
        flip = torch.ones_like(u[:, 0])
        flip[:, -1] = torch.linalg.det(u @ vh).sign()
        u = u * flip[:, None]
    if not about_chord:
        return u @ vh
    out = torch.eye(curves.shape[2], dtype=curves.dtype, device=curves.device).repeat(curves.shape[1], 1, 1)
    out[:, 1:, 1:] = u @ vh
    return out


def align(
    curves: Tensor, reference: Tensor | None = None, reflections: bool = True, *, about_chord: bool = False
) -> Tensor:
    """Turn (and reflect) every curve onto the reference, by the orthogonal matrix that brings it closest.

    ``align(project(paths), about_chord=True)`` lays the bends of many paths on that of the first, chords untouched.

    Parameters
    ----------
    curves : (N+1, B, k)
        Curves in k dimensions.
    reference : (N+1, k), optional
        The curve to align to; the first of the curves by default.
    reflections : bool
        Allow reflections too.
    about_chord : bool
        Keep the first coordinate, along the chord in what `project` returns, and turn the others only.

    Returns
    -------
    Tensor
        ``(N+1, B, k)``.

    Examples
    --------
    >>> curve = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]])
    >>> turned = torch.stack([-curve[:, 1], curve[:, 0]], 1)[:, None]  # by a quarter: (3, 1, 2)
    >>> torch.allclose(align(turned, curve)[:, 0], curve, atol=1e-6)
    True
    """
    turn = procrustes(curves, reference, reflections, about_chord=about_chord)
    return torch.einsum("nbi,bij->nbj", curves.to(turn), turn)


def procrustes_residual(
    curves: Tensor, reference: Tensor | None = None, reflections: bool = True, *, about_chord: bool = False
) -> Tensor:
    """Squared distance left after alignment, both curves scaled to unit norm.

    With ``about_chord`` the first coordinate is left out: the bends are compared. Curves are not centred: bends that
    lie on the same side of their chords have something in common, and unrelated ones give less than 2. The control
    (``regularity.time_shuffled``, say) must be treated alike. A curve of zeros (what `project` leaves beside the
    chord of a straight path) has no shape and is refused.

    Parameters
    ----------
    curves : (N+1, B, k)
        Curves in k dimensions.
    reference : (N+1, k), optional
        The curve to align to; the first of the curves by default.
    reflections : bool
        Allow reflections too.
    about_chord : bool
        Leave out the first coordinate, along the chord in what `project` returns, and turn about it.

    Returns
    -------
    Tensor
        ``(B,)``, from 0 (same shape) to 2.

    Examples
    --------
    >>> shapes = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 3.0], [0.0, 0.0]]])  # two angles: (2, 2, 2)
    >>> [round(gap, 2) for gap in procrustes_residual(shapes).abs().tolist()]
    [0.0, 1.37]
    """
    curves, reference = _check(curves, reference, about_chord)
    if about_chord:
        curves, reference = curves[..., 1:], reference[:, 1:]
    size, target_size = torch.linalg.vector_norm(curves, dim=(0, 2), keepdim=True), torch.linalg.vector_norm(reference)
    if not (size > 0).all() or not target_size > 0:
        raise ValueError("curves and reference must not be all zeros: a straight path leaves no shape to compare")
    unit, target = curves / size, reference / target_size
    gap = align(unit, target, reflections) - target[:, None]
    return (gap**2).sum((0, 2))


def _check(curves: Tensor, reference: Tensor | None, about_chord: bool) -> tuple[Tensor, Tensor]:
    """Both in one precision of at least float32, once they are found fit."""
    real_tensor("curves", curves, "(N+1, B, k)")
    if curves.ndim != 3 or curves.numel() == 0:
        raise ValueError(f"curves must be (N+1, B, k), got {tuple(curves.shape)}")
    curves = squarable("curves", curves).to(torch.promote_types(curves.dtype, torch.float32))
    if reference is None:
        reference = curves[:, 0]
    real_tensor("reference", reference, "(N+1, k)")
    if reference.shape != (curves.shape[0], curves.shape[2]):
        raise ValueError(
            f"curves must be (N+1, B, k) and reference (N+1, k), got {tuple(curves.shape)} and {tuple(reference.shape)}"
        )
    if flag("about_chord", about_chord) and curves.shape[2] < 2:
        raise ValueError(f"about_chord needs a coordinate beside the chord, got curves of shape {tuple(curves.shape)}")
    return curves, squarable("reference", reference).to(curves)

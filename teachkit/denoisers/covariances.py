"""Covariances as objects: what a Gaussian needs of C + sigma^2 I, for K components at once.

With C = U diag(lam) U^T, where U (d, r) has orthonormal columns, and with u = x - mean,

    quadratic form     u^T (C + sigma^2 I)^-1 u  =  sum (U^T u)^2 / (lam + sigma^2)  +  |u - U U^T u|^2 / sigma^2
    log determinant    sum log(lam + sigma^2)  +  (d - r) log sigma^2
    shrink             C (C + sigma^2 I)^-1 u  =  U (lam / (lam + sigma^2) U^T u)
    square root        C^(1/2) z  =  U (sqrt(lam) z)

so the kinds differ in U alone: the identity, which is not kept (`Isotropic`, `Diagonal`), all eigenvectors (`Full`), or
some (`LowRank`). `Gaussian` and the mixtures are written once, over any of them. arXiv 2506.10177, Sec. 4.3; taught in
``notebooks/10_gaussians``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teachkit.denoisers.base import floating


class Covariance(nn.Module, ABC):
    """K covariances U diag(variances) U^T. Shapes: ``u`` is (B, K, d), coordinates (B, K, r), sigma (B or 1, 1)."""

    variances: Tensor  # (K, r), or (K, 1) where one is that of all directions
    axes: Tensor | None  # (K, d, r), or None where they are the coordinates
    thin = False  # whether axes may leave directions out

    @abstractmethod
    def __init__(self, variances: Tensor, axes: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("variances", variances.clone())  # the caller's tensors may change
        self.register_buffer("axes", None if axes is None else axes.clone(memory_format=torch.contiguous_format))

    @classmethod
    def _of(cls, variances: Tensor, axes: Tensor | None = None) -> Covariance:
        """From variances (K, r) and axes that are known to be right."""
        made = cls.__new__(cls)
        Covariance.__init__(made, variances, axes)
        return made

    @property
    def dim(self) -> int | None:
        """Number d of values in one sample; None where any will do."""
        return (self.variances if self.axes is None else self.axes).shape[1]

    def rank(self, d: int) -> int:
        """Number r of directions that have a variance of their own."""
        return d if self.axes is None else self.axes.shape[-1]

    def singular(self, d: int) -> bool:
        """Whether a direction is without variance: then there is no density without noise."""
        return self.rank(d) < d or bool((self.variances == 0).any())

    def refuse_no_noise(self, sigma: Tensor, d: int, why: str) -> None:
        """A ValueError for a level of 0 where a direction is without variance."""
        if not (sigma > 0).all() and self.singular(d):
            raise ValueError(f"sigma must be > 0: {why}")

    def leaves(self, d: int) -> bool:
        """Whether a part of u may lie outside the axes, where only noise is."""
        return self.thin and self.singular(d)

    def along(self, u: Tensor) -> Tensor:
        """Coordinates U^T u along the axes."""
        return u if self.axes is None else torch.einsum("kde,bkd->bke", self.axes.to(u.dtype), u)

    def back(self, along: Tensor) -> Tensor:
        """U times coordinates: (B, K, d)."""
        return along if self.axes is None else torch.einsum("kde,bke->bkd", self.axes.to(along.dtype), along)

    def total(self, sigma: Tensor) -> Tensor:
        """Eigenvalues of C + sigma^2 I along the axes: (B or 1, K, r or 1)."""
        return self.variances.to(sigma.dtype) + sigma[..., None] ** 2

    def quadratic(self, u: Tensor, along: Tensor, sigma: Tensor) -> Tensor:
        """u^T (C + sigma^2 I)^-1 u: (B, K)."""
        value = (along**2 / self.total(sigma)).sum(-1)
        if self.leaves(u.shape[-1]):  # what is outside itself: |u|^2 - |along|^2 would cancel
            value = value + (u - self.back(along)).square().sum(-1) / sigma**2
        return value

    def log_det(self, sigma: Tensor, d: int) -> Tensor:
        """Logarithm of the determinant of C + sigma^2 I: (B or 1, K)."""
        rank = self.rank(d)
        value = self.total(sigma).log().sum(-1) * (rank // self.variances.shape[-1])
        return value + 2 * (d - rank) * sigma.log() if rank < d else value

    def shrink(self, along: Tensor, sigma: Tensor) -> Tensor:
        """Coordinates of C (C + sigma^2 I)^-1 u from those of u: (B, K, r)."""
        kept = (self.variances / self.total(sigma)).nan_to_num(nan=0.0)  # 0 / 0: neither variance nor noise
        return kept * along

    def mix(self, share: Tensor, means: Tensor, along: Tensor) -> Tensor:
        """Sum over the components of share (B, K) times mean (K, d) + U coordinates: (B, d)."""
        if self.axes is not None and self.thin:  # no (B, K, d) numbers where (B, K, r) do
            return share @ means + (share[..., None] * along).flatten(1) @ self.axes.mT.flatten(0, 1)
        return torch.einsum("bk,bkd->bd", share, means + self.back(along))

    def root(self, noise: Tensor, component: Tensor) -> Tensor:
        """C^(1/2) times noise (n, r), of the components (n,), which may lie on the CPU: (n, d)."""
        scaled = self.variances[component.to(noise.device)].sqrt() * noise
        if self.axes is None:
            return scaled
        out = scaled.new_empty(len(noise), self.axes.shape[1])
        for k, axes in enumerate(self.axes):  # not axes[component], which would hold n matrices
            rows = (component == k).nonzero()[:, 0].to(scaled.device)
            out[rows] = scaled[rows] @ axes.mT
        return out

    def beside(self, x: Tensor, means: Tensor, sigma: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """Quadratic forms (B, K) less that of component ``near`` (B,), no large numbers subtracted; and that one (B,).

        For x (B, d) and means (K, d), in the precision of x.
        """
        row, noise = torch.arange(len(x), device=x.device), sigma[..., None] ** 2
        own, gap = x - means[near], means[near][:, None] - means  # (B, d), (B, K, d)
        turned, further = self.along(own[:, None].expand_as(gap)), self.along(gap)
        along, total = turned[row, near][:, None], self.total(sigma).expand(len(x), -1, -1)
        other = total[row, near][:, None]
        value = _square_gap(along, further + (turned - along), total, other)
        of_near = (along**2 / other).sum((1, 2))
        if self.leaves(x.shape[-1]):
            inside = self.back(turned)[row, near]  # the part of own along the axes of near
            across = (own - inside)[:, None]
            value = value + _square_gap(across, gap - (self.back(further + turned) - inside[:, None]), noise, noise)
            of_near = of_near + (across**2 / noise).sum((1, 2))
        return value, of_near


class Isotropic(Covariance):
    """Covariances variance_k I: one number for each of K components, in any dimension.

    Parameters
    ----------
    variances : (K,)
        Variance of every coordinate, in squared units of the data, >= 0.

    Raises
    ------
    ValueError, TypeError
        For another shape, numbers that are negative or not finite.

    Examples
    --------
    >>> from teachkit import Gaussian
    >>> D = Gaussian(torch.zeros(3, 64, 64), Isotropic(torch.tensor([0.25])))  # 12,288 values a sample, one variance
    >>> float(D(torch.ones(1, 3, 64, 64), 0.5).mean())
    0.5
    """

    def __init__(self, variances: Tensor | Sequence[float]) -> None:
        given = _shaped("variances", variances, "(K,)", 1)
        super().__init__(_checked("variances", given[:, None]))

    @property
    def dim(self) -> None:
        """Any number of values in one sample."""
        return None


class Diagonal(Covariance):
    """Covariances with a variance for every coordinate, and none between them: d numbers for each of K components.

    Parameters
    ----------
    variances : (K, *event)
        Variance of every coordinate, in squared units of the data, >= 0.

    Raises
    ------
    ValueError, TypeError
        For another shape, numbers that are negative or not finite.

    Examples
    --------
    >>> from teachkit import GaussianMixture
    >>> D = GaussianMixture([1.0], [[0.0, 0.0]], Diagonal([[1.0, 3.0]]))
    >>> D(torch.ones(1, 2, dtype=torch.float64), 1.0).tolist()
    [[0.5, 0.75]]
    """

    def __init__(self, variances: Tensor | Sequence[Any]) -> None:
        given = _shaped("variances", variances, "(K, *event)", 2, more=True)
        super().__init__(_checked("variances", given.flatten(1)))


class Full(Covariance):
    """Covariance matrices, kept as their eigenvalues and eigenvectors.

    Parameters
    ----------
    matrices : (K, d, d)
        Symmetric and positive semi-definite, in squared units of the data; eigenvalues that are below 0 by no more than
        rounding count as 0.

    Raises
    ------
    ValueError, TypeError
        For another shape, matrices that are not symmetric or have negative eigenvalues, numbers that are not finite.

    Examples
    --------
    >>> from teachkit import GaussianMixture
    >>> D = GaussianMixture([1.0], [[0.0, 0.0]], Full([[[2.0, 1.0], [1.0, 2.0]]]))
    >>> D(torch.tensor([[1.0, 1.0]], dtype=torch.float64), 1.0).round(decimals=6).tolist()
    [[0.75, 0.75]]
    """

    def __init__(self, matrices: Tensor | Sequence[Any]) -> None:
        given = _shaped("matrices", matrices, "(K, d, d)", 3)
        if given.shape[1] != given.shape[2]:
            raise ValueError(f"matrices must have shape (K, d, d), got {tuple(given.shape)}")
        super().__init__(*_eigen("matrices", given))


class LowRank(Covariance):
    """Covariances U_k diag(variances_k) U_k^T that vary in r directions only: K (d + 1) r numbers, no d x d matrix.

    Parameters
    ----------
    variances : (K, r)
        Variances along the axes, in squared units of the data, >= 0.
    axes : (K, d, r)
        Orthonormal columns; a column may also be zero if its variance is zero (a component of lower rank).

    Raises
    ------
    ValueError, TypeError
        For shapes that do not match, negative variances, axes that are not orthonormal, numbers that are not finite.

    Notes
    -----
    Where r < d or a variance is 0 there is no density without noise: sigma must be > 0.

    Examples
    --------
    >>> from teachkit import GaussianMixture
    >>> D = GaussianMixture([1.0], [[0.0, 0.0]], LowRank([[3.0]], [[[0.6], [0.8]]]))
    >>> D(torch.tensor([[3.0, 4.0], [5.0, 10.0]], dtype=torch.float64), 1.0).round(decimals=6).tolist()
    [[2.25, 3.0], [4.95, 6.6]]
    """

    thin = True

    def __init__(self, variances: Tensor | Sequence[Any], axes: Tensor | Sequence[Any]) -> None:
        u = _shaped("axes", axes, "(K, d, r)", 3)
        lam, (k, d, r) = floating(variances, "variances", u, "the axes"), u.shape
        if r > d:
            raise ValueError(f"axes must have shape (K, d, r) with r <= d, got {tuple(u.shape)}")
        if lam.shape != (k, r) or (lam < 0).any():
            raise ValueError(f"variances must be ({k}, {r}) numbers >= 0, as the axes are, got {tuple(lam.shape)}")
        used = (u != 0).any(1)  # (K, r)
        tolerance = 100 * d * torch.finfo(u.dtype).eps
        if ((u.mT @ u - torch.diag_embed(used.to(u))).abs() > tolerance).any() or (lam > 0).logical_and(~used).any():
            raise ValueError("axes must have orthonormal columns (zero ones only where the variance is zero)")
        super().__init__(lam, u)


def read_covariance(name: str, value: Any, means: Tensor, single: bool = False) -> Covariance:
    """What a denoiser keeps of covariances, or of the numbers they are given as, beside its means (K, *event).

    Numbers are one variance, (K,), (K, d) or (K, *event), or (K, d, d), and positive definite; without the K, and
    perhaps semi-definite, if ``single``.
    """
    k, d = len(means), means[0].numel()
    if isinstance(value, Covariance):
        floating(value.variances, name, means)
        if len(value.variances) != k or value.dim not in (None, d):
            got = f"{len(value.variances)} in {'any number of' if value.dim is None else value.dim} dimensions"
            raise ValueError(f"{name} must hold {k} in {d} dimensions, got {type(value).__name__} of {got}")
        return value._of(value.variances, value.axes)
    numbers = floating(value, name, means)
    given = numbers[None] if single else numbers
    if given.ndim == 0 or given.shape == (k,):
        return Isotropic._of(_checked(name, given.expand(k)[:, None], not single))
    if given.shape in ((k, d), means.shape):
        return Diagonal._of(_checked(name, given.reshape(k, d), not single))
    if given.shape == (k, d, d):
        return Full._of(*_eigen(name, given, not single))
    shapes = f"({d},) or ({d}, {d})" if single else f"({k},), ({k}, {d}) or ({k}, {d}, {d})"
    raise ValueError(f"{name} must be a number or have shape {shapes}, got {tuple(numbers.shape)}")


def _shaped(name: str, value: Any, shape: str, axes: int, more: bool = False) -> Tensor:
    """Finite numbers, some at least, with so many axes, or ``more``."""
    given = floating(value, name)
    if (given.ndim < axes if more else given.ndim != axes) or given.numel() == 0:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(given.shape)}")
    return given


def _eigen(name: str, matrices: Tensor, definite: bool = False) -> tuple[Tensor, Tensor]:
    """Eigenvalues (K, d) and eigenvectors (K, d, d) of symmetric matrices."""
    if not torch.allclose(matrices, matrices.mT, rtol=1e-5, atol=1e-8 * float(matrices.abs().max())):
        raise ValueError(f"{name} must be {'symmetric matrices' if len(matrices) > 1 else 'a symmetric matrix'}")
    variances, axes = torch.linalg.eigh(matrices.to(torch.promote_types(matrices.dtype, torch.float32)))
    return _checked(name, variances.to(matrices), definite), axes.to(matrices)


def _checked(name: str, variances: Tensor, definite: bool = False) -> Tensor:
    """Eigenvalues (K, d), none of them below 0 by more than rounding, or none that is not above 0."""
    least, most = (float(end) for end in variances.detach().aminmax())
    rounding = 100 * variances.shape[1] * torch.finfo(variances.dtype).eps * max(abs(least), abs(most))
    if least <= 0 if definite else least < -rounding:
        kind = "definite" if definite else "semi-definite"
        raise ValueError(f"{name} must be positive {kind}, got a smallest eigenvalue of {least:.3g}")
    return variances if definite else variances.clamp(min=0)


def _square_gap(a: Tensor, gap: Tensor, total: Tensor, other: Tensor) -> Tensor:
    """Sum over the last axis of (a + gap)^2 / total - a^2 / other, without the difference of the two squares.

    ``a`` and ``gap`` are coordinates and how much further others are, ``total`` and ``other`` the variances of those
    and of these, > 0.
    """
    return (gap * (2 * a + gap) / total + a**2 * (other - total) / (total * other)).sum(-1)

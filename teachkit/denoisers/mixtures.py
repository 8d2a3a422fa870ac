"""Mixtures of Gaussians, with full covariances or of low rank: D is the posterior mean over components.

D(x; sigma) = sum_k pi_k(x) r_k(x), with pi_k proportional to weight_k N(x; mean_k, cov_k + sigma^2 I) and r_k the
denoiser of component k. Taught in ``notebooks/01_noise_and_denoising`` and ``notebooks/08_closed_form_scores``;
arXiv 2506.10177, Sec. 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teachkit import checks
from teachkit.checks import integer
from teachkit.denoisers.base import MixtureModule, check_data, default_dtype, drawing_device, floating, square_gap
from teachkit.denoisers.gaussian import Gaussian


class GaussianMixture(MixtureModule):
    """A mixture of K Gaussians: D is the posterior mean over components (arXiv 2506.10177, Sec. 4.3).

    D(x; sigma) = sum_k pi_k(x) r_k(x), with pi_k proportional to weight_k N(x; mean_k, cov_k + sigma^2 I) and
    r_k = mean_k + cov_k (cov_k + sigma^2 I)^-1 (x - mean_k).

    Parameters
    ----------
    weights : (K,)
        Non-negative, summing to 1.
    means : (K, *event)
        Component means.
    covariances : float, (K,), (K, d) or (K, d, d)
        Variances: one for all, one per component (isotropic), one per coordinate (diagonal), or full matrices.
        Diagonal ones may also have shape (K, *event).

    Raises
    ------
    ValueError
        For weights that are negative or do not sum to 1, shapes that do not match, covariances that are not
        symmetric positive definite, values that are not finite.

    Notes
    -----
    With ``labels`` (B,), the denoiser is conditioned on component ``labels[b]``.

    Examples
    --------
    >>> D = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.01)
    >>> D(torch.tensor([[2.0, 0.0]], dtype=torch.float64), 1.0).round(decimals=3).tolist()
    [[0.973, 0.0]]
    """

    weights: Tensor
    means: Tensor  # (K, d)
    variances: Tensor  # (K, d) or (K, 1): eigenvalues of each covariance
    axes: Tensor | None  # (K, d, d): eigenvectors in columns, or None where the axes are the coordinates

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Any],
        covariances: Tensor | Sequence[Any] | float,
    ) -> None:
        super().__init__()
        mu = floating(means, "means")
        if mu.ndim < 2 or mu.numel() == 0:
            raise ValueError(f"means must have shape (K, *event) with at least one component, got {tuple(mu.shape)}")
        w = floating(weights, "weights", mu)
        if w.shape != mu.shape[:1]:
            raise ValueError(f"weights must have shape ({len(mu)},) to match means, got {tuple(w.shape)}")
        if (w < 0).any():
            raise ValueError(f"weights must not be negative, got {w.tolist()}")
        if abs(float(w.sum()) - 1) > 1e-5:
            raise ValueError(f"weights must sum to 1, got a sum of {float(w.sum()):.6g}")
        self.event_shape, self.num_classes = tuple(mu.shape[1:]), len(mu)
        variances, axes = self._eigen(floating(covariances, "covariances", mu))
        self.register_buffer("weights", w.clone())  # the caller's tensors may change
        self.register_buffer("means", mu.reshape(len(mu), -1).clone(memory_format=torch.contiguous_format))
        self.register_buffer("variances", variances.clone())
        self.register_buffer("axes", axes)

    def _eigen(self, cov: Tensor) -> tuple[Tensor, Tensor | None]:
        k, d = self.num_classes, self.dim
        assert k is not None
        axes = None
        if cov.ndim == 0:
            variances = cov.expand(k, 1).contiguous()
        elif cov.shape == (k,):
            variances = cov[:, None]
        elif cov.shape in ((k, d), (k, *self.event_shape)):
            variances = cov.reshape(k, d)
        elif cov.shape == (k, d, d):
            if not torch.allclose(cov, cov.mT, rtol=1e-5, atol=1e-8 * float(cov.abs().max())):
                raise ValueError("covariances must be symmetric matrices")
            variances, axes = torch.linalg.eigh(cov)
        else:
            raise ValueError(
                f"covariances must be a number or have shape ({k},), ({k}, {d}) or ({k}, {d}, {d}), "
                f"got {tuple(cov.shape)}"
            )
        if not (variances > 0).all():
            raise ValueError(
                f"covariances must be positive definite, got a smallest eigenvalue of {variances.min():.3g}"
            )
        return variances, axes

    def _terms(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offset = x[:, None] - self.means  # (B, K, d)
        if self.axes is not None:
            offset = torch.einsum("kde,bkd->bke", self.axes, offset)  # coordinates along the eigenvectors
        total = self.variances + sigma[..., None] ** 2  # (B or 1, K, d or 1)
        log_det = total.log().sum(-1) * (self.dim // self.variances.shape[1])
        shrunk = self.variances / total * offset
        if self.axes is not None:
            shrunk = torch.einsum("kde,bke->bkd", self.axes, shrunk)
        return (offset**2 / total).sum(-1), log_det, shrunk

    def _beside(self, x: Tensor, sigma: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        wide = default_dtype(x.device)
        means, total = self.means.to(wide), self.variances.to(wide) + sigma.to(wide)[..., None] ** 2
        row = torch.arange(len(x), device=x.device)
        own = x.to(wide) - means[near]  # (b, d)
        gap = means[near][:, None] - means  # (b, K, d)
        if self.axes is not None:
            axes = self.axes.to(wide)
            turned = torch.einsum("kde,bd->bke", axes, own)
            own = turned[row, near]
            gap = torch.einsum("kde,bkd->bke", axes, gap) + (turned - own[:, None])
        other = total[row, near]  # (b, d or 1)
        return square_gap(own[:, None], gap, total, other[:, None]), (own**2 / other).sum(-1)

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        log_joint, _, shrunk = self._components(x, sigma, labels)
        origin = self.means[0]  # near the others: averages of large numbers would be rounded
        return origin + torch.einsum("bk,bkd->bd", log_joint.softmax(-1), self.means - origin + shrunk)

    def sample_with_labels(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw ``n`` samples ``(n, *event)`` and the component each came from ``(n,)``, as `sample` does."""
        n, generator = integer("n", n, 1), checks.generator("generator", generator)
        there, here = drawing_device(generator, self.means), self.means.device
        labels = torch.multinomial(self.weights.to(there), n, replacement=True, generator=generator).to(here)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.means.dtype, device=there).to(here)
        scaled = self.variances[labels].sqrt() * noise
        if self.axes is not None:
            scaled = torch.einsum("bde,be->bd", self.axes[labels], scaled)
        return (self.means[labels] + scaled).reshape(n, *self.event_shape), labels


class LowRankMixture(MixtureModule):
    """A mixture of K Gaussians that each vary in r directions only: a class mixture of images, without d x d matrices.

    Component k is N(mean_k, U_k diag(lam_k) U_k^T), with U_k of shape (d, r). Blurred by noise, its quadratic form is
    |U_k^T u|^2 / (lam_k + sigma^2) + |u - U_k U_k^T u|^2 / sigma^2 with u = x - mean_k, and the logarithm of its
    determinant sum log(lam_k + sigma^2) + (d - r) log sigma^2 (arXiv 2506.10177, Sec. 4.3). Memory is O(K d r) for the
    parameters and O(B (d + K r)) for a batch.

    Parameters
    ----------
    weights : (K,)
        Non-negative, summing to 1.
    means : (K, *event)
        Component means.
    variances : (K, r)
        Variances along the axes, >= 0.
    axes : (K, d, r)
        Orthonormal columns; a column may also be zero if its variance is zero (a component of lower rank).

    Raises
    ------
    ValueError, TypeError
        For shapes that do not match, negative weights or variances, axes that are not orthonormal.

    Notes
    -----
    With ``labels`` (B,), the denoiser is that of component ``labels[b]`` alone. Where r < d or a variance is 0, there
    is no density without noise and sigma must be > 0.

    Examples
    --------
    >>> images = torch.tensor([[0.0, 0.0], [0.0, 2.0], [5.0, 0.0], [7.0, 0.0]], dtype=torch.float64)
    >>> D = LowRankMixture.fit(images, torch.tensor([0, 0, 1, 1]), rank=1)
    >>> D(torch.tensor([[0.1, 3.0]], dtype=torch.float64), 1.0).round(decimals=3).tolist()
    [[0.0, 2.0]]
    """

    weights: Tensor
    means: Tensor  # (K, d)
    variances: Tensor  # (K, r)
    axes: Tensor  # (K, d, r)

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Any],
        variances: Tensor | Sequence[Any],
        axes: Tensor | Sequence[Any],
    ) -> None:
        super().__init__()
        mu = floating(means, "means")
        if mu.ndim < 2 or mu.numel() == 0:
            raise ValueError(f"means must have shape (K, *event) with at least one component, got {tuple(mu.shape)}")
        k, d = len(mu), mu[0].numel()
        w, lam, u = (
            floating(v, name, mu) for v, name in ((weights, "weights"), (variances, "variances"), (axes, "axes"))
        )
        if w.shape != (k,) or (w < 0).any() or abs(float(w.sum()) - 1) > 1e-5:
            raise ValueError(f"weights must be {k} non-negative numbers that sum to 1, got {w.tolist()}")
        if lam.ndim != 2 or len(lam) != k or not 1 <= lam.shape[1] <= d or (lam < 0).any():
            raise ValueError(f"variances must be ({k}, r) numbers >= 0 with r from 1 to {d}, got {tuple(lam.shape)}")
        if u.shape != (k, d, lam.shape[1]):
            raise ValueError(f"axes must have shape ({k}, {d}, {lam.shape[1]}), got {tuple(u.shape)}")
        used = (u != 0).any(1)  # (K, r)
        tolerance = 100 * d * torch.finfo(mu.dtype).eps
        if ((u.mT @ u - torch.diag_embed(used.to(u))).abs() > tolerance).any() or (lam > 0).logical_and(~used).any():
            raise ValueError("axes must have orthonormal columns (zero ones only where the variance is zero)")
        self.event_shape, self.num_classes = tuple(mu.shape[1:]), k
        self.register_buffer("weights", w.clone())  # the caller's tensors may change
        self.register_buffer("means", mu.reshape(k, d).clone(memory_format=torch.contiguous_format))
        self.register_buffer("variances", lam.clone())
        self.register_buffer("axes", u.clone())

    @classmethod
    def fit(cls, data: Tensor, labels: Tensor, rank: int | None = None) -> LowRankMixture:
        """Fit one Gaussian to every class, keeping the ``rank`` largest principal directions (all by default).

        Parameters
        ----------
        data : (N, *event)
            At least two samples of every class; covariances are maximum-likelihood ones, mean directions are kept.
        labels : (N,) integers
            Classes from 0 to K - 1, each used.
        rank : int, optional
            From 1 to d. A class of n samples has at most n - 1 directions with variance.

        Raises
        ------
        ValueError, TypeError
            For labels that do not match the data or miss a class, a class with one sample, a rank out of range.
        """
        x = check_data(data)
        labels = checks.class_labels("labels", labels, len(x), x.device)
        counts = labels.bincount()
        if (counts < 2).any():
            raise ValueError(
                f"labels must use every class from 0 to {len(counts) - 1} at least twice, got {counts.tolist()}"
            )
        parts = [Gaussian.fit(x[labels == k], rank) for k in range(len(counts))]
        most = max(part.rank for part in parts)
        lam = torch.stack([nn.functional.pad(part.variances, (0, most - part.rank)) for part in parts])
        axes = torch.stack([nn.functional.pad(part.axes, (0, most - part.rank)) for part in parts])
        means = torch.stack([part.mean for part in parts]).reshape(len(parts), *x.shape[1:])
        return cls((counts / len(x)).to(means), means, lam, axes)

    @property
    def rank(self) -> int:
        """Number of directions kept in every component."""
        return self.axes.shape[2]

    def _outside(self, sigma: Tensor) -> bool:
        """Whether a part of x lies outside the axes, or along a zero column; then there must be noise."""
        outside = self.rank < self.dim or bool((self.variances == 0).any())
        if outside and not (sigma > 0).all():
            raise ValueError("sigma must be > 0: without noise a mixture of low rank has no density")
        return outside

    def _terms(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rest, outside = self.dim - self.rank, self._outside(sigma)
        quadratic, shrunk, log_det = [], [], []
        for mean, variances, axes in zip(self.means, self.variances, self.axes):
            offset = x - mean
            along, total = offset @ axes, variances + sigma**2  # (B, r), (B or 1, r)
            value = (along**2 / total).sum(-1)
            if outside:  # the part outside the axes itself: |offset|^2 - |along|^2 would cancel
                value = value + (offset - along @ axes.mT).square().sum(-1) / sigma[:, 0] ** 2
            quadratic.append(value)
            log_det.append(total.log().sum(-1) + (2 * rest * sigma[:, 0].log() if rest else 0.0))
            shrunk.append(variances / total * along)
        return torch.stack(quadratic, -1), torch.stack(log_det, -1), torch.stack(shrunk, 1)

    def _beside(self, x: Tensor, sigma: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        wide = default_dtype(x.device)
        x, noise, outside = x.to(wide), sigma.to(wide) ** 2, self._outside(sigma)
        means, variances, axes = self.means.to(wide), self.variances.to(wide), self.axes.to(wide)
        own, other = x - means[near], variances[near] + noise  # (b, d), (b, r)
        turned = [own @ u for u in axes]
        along = torch.stack(turned, 1)[torch.arange(len(x), device=x.device), near]
        inside = torch.empty_like(own)  # the part of own along the axes of near
        for k in near.unique().tolist():
            inside[near == k] = along[near == k] @ axes[k].mT
        across, beside = own - inside, []
        for k, (u, mine) in enumerate(zip(axes, turned)):
            gap = means[near] - means[k]
            further = gap @ u
            value = square_gap(along, further + (mine - along), variances[k] + noise, other)
            if outside:
                left = gap - ((further + mine) @ u.mT - inside)
                value = value + square_gap(across, left, noise, noise)
            beside.append(value)
        of_near = (along**2 / other).sum(-1) + (across.square().sum(-1) / noise[:, 0] if outside else 0.0)
        return torch.stack(beside, -1), of_near

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        log_joint, _, shrunk = self._components(x, sigma, labels)
        share, origin = log_joint.softmax(-1), self.means[0]  # (B, K)
        moved = share @ (self.means - origin) + (share[..., None] * shrunk).flatten(1) @ self.axes.mT.flatten(0, 1)
        return origin + moved

    def sample_with_labels(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw ``n`` samples ``(n, *event)`` and the component each came from ``(n,)``, as `sample` does."""
        n, generator = integer("n", n, 1), checks.generator("generator", generator)
        there, here = drawing_device(generator, self.means), self.means.device
        labels = torch.multinomial(self.weights.to(there), n, replacement=True, generator=generator).to(here)
        noise = torch.randn(n, self.rank, generator=generator, dtype=self.means.dtype, device=there).to(here)
        out = self.means[labels]
        for k in range(len(self.means)):  # not axes[labels], which would hold n matrices
            own = labels == k
            out[own] += (noise[own] * self.variances[k].sqrt()) @ self.axes[k].mT
        return out.reshape(n, *self.event_shape), labels

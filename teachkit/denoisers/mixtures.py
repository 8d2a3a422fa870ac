"""Mixtures of Gaussians, with covariances of any kind: D is the posterior mean over components.

D(x; sigma) = sum_k pi_k(x) r_k(x), with pi_k proportional to weight_k N(x; mean_k, cov_k + sigma^2 I) and r_k the
denoiser of component k. Taught in ``notebooks/01_noise_and_denoising`` and ``notebooks/10_gaussians``;
arXiv 2506.10177, Sec. 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teachkit import checks
from teachkit.checks import integer
from teachkit.denoisers.base import DenoiserModule, check_data, default_dtype, drawing_device, finite, floating
from teachkit.denoisers.covariances import Covariance, LowRank, read_covariance
from teachkit.denoisers.gaussian import Gaussian

_BLOCK = 2**19  # offsets, of samples from means, that are held at once


class Mixture(DenoiserModule):
    """K Gaussians with covariances of one kind: validation, posterior probabilities, denoiser, density and samples."""

    weights: Tensor  # (K,)
    means: Tensor  # (K, d)

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Any],
        covariances: Covariance | Tensor | Sequence[Any] | float,
    ) -> None:
        super().__init__()
        mu = _checked_means(means)
        w = floating(weights, "weights", mu)
        if w.shape != mu.shape[:1]:
            raise ValueError(f"weights must have shape ({len(mu)},) to match means, got {tuple(w.shape)}")
        if (w < 0).any():
            raise ValueError(f"weights must not be negative, got {w.tolist()}")
        if abs(float(w.sum()) - 1) > 1e-5:
            raise ValueError(f"weights must sum to 1, got a sum of {float(w.sum()):.6g}")
        self.event_shape, self.num_classes = tuple(mu.shape[1:]), len(mu)
        self.covariances = read_covariance("covariances", covariances, mu)
        self.register_buffer("weights", w.clone())  # the caller's tensors may change
        self.register_buffer("means", mu.reshape(len(mu), -1).clone(memory_format=torch.contiguous_format))

    @property
    def variances(self) -> Tensor:
        """Variances along the axes of each component: ``(K, r)``, or ``(K, 1)`` of isotropic ones."""
        return self.covariances.variances

    @property
    def axes(self) -> Tensor | None:
        """Axes of each component in columns, ``(K, d, r)``; None where they are the coordinates."""
        return self.covariances.axes

    def _components(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Joint log densities (B, K) less a number for each row, that number (B,), and each posterior mean's offset."""
        offset = x[:, None] - self.means  # (B, K, d)
        along = self.covariances.along(offset)
        quadratic, log_det = self.covariances.quadratic(offset, along, sigma), self.covariances.log_det(sigma, self.dim)
        least, near = quadratic.detach().min(1)
        common = torch.zeros_like(quadratic[:, 0])
        # Where all are so large that their rounding counts, they are compared instead of computed.
        error = 4 * torch.finfo(x.dtype).eps * least
        doubtful = (error > (1e-9 if x.dtype == torch.float64 else 1e-3)) & error.isfinite()
        if checks.anywhere(doubtful):
            wide, own = default_dtype(x.device), sigma.expand(len(x), 1)[doubtful]
            beside = self.covariances.beside(x[doubtful].to(wide), self.means.to(wide), own.to(wide), near[doubtful])
            quadratic, common = (
                whole.index_put((doubtful,), part.to(x.dtype)) for whole, part in zip((quadratic, common), beside)
            )
        log_joint = -0.5 * (quadratic + log_det + self.dim * math.log(2 * math.pi))
        if labels is None:
            log_joint = log_joint + self.weights.log()
        else:
            chosen = nn.functional.one_hot(labels, len(self.weights)).bool()
            log_joint = log_joint.masked_fill(~chosen, -math.inf)
        return log_joint, -0.5 * common, self.covariances.shrink(along, sigma)

    def _by_blocks(self, rule: Callable[..., Tensor], x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """A rule of `_components`, for so few samples at a time that their offsets from all means are few numbers."""
        self.covariances.refuse_no_noise(sigma, self.dim, f"without noise this {type(self).__name__} has no density")
        rows = max(1, _BLOCK // self.means.numel())
        if len(x) <= rows:
            return rule(*self._components(x, sigma, labels))
        parts = x.split(rows), sigma.expand(len(x), 1).split(rows)
        chosen = [None] * len(parts[0]) if labels is None else labels.split(rows)
        return torch.cat([rule(*self._components(*part)) for part in zip(*parts, chosen)])

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        origin = self.means[0]  # near the others: averages of large numbers would be rounded

        def mean(log_joint: Tensor, common: Tensor, shrunk: Tensor) -> Tensor:
            return origin + self.covariances.mix(log_joint.softmax(-1), self.means - origin, shrunk)

        return self._by_blocks(mean, x, sigma, labels)

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        return self._by_blocks(lambda joint, common, _: joint.logsumexp(-1) + common, x, sigma, labels)

    def responsibilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of each component given x: ``(B, K)``, rows sum to 1."""
        return finite(self._by_blocks(lambda joint, *_: joint.softmax(-1), *self._check(x, sigma), None), x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples of clean data: ``(n, *event)``; ``generator`` may lie on the CPU or beside the means."""
        return self.sample_with_labels(n, generator)[0]

    def sample_with_labels(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw ``n`` samples ``(n, *event)`` and the component each came from ``(n,)``.

        ``generator`` may lie on the CPU or beside the means.
        """
        n, generator = integer("n", n, 1), checks.generator("generator", generator)
        there, here = drawing_device(generator, self.means), self.means.device
        labels = torch.multinomial(self.weights.to(there), n, replacement=True, generator=generator)
        rank = self.covariances.rank(self.dim)
        noise = torch.randn(n, rank, generator=generator, dtype=self.means.dtype, device=there).to(here)
        spread = self.covariances.root(noise, labels)
        labels = labels.to(here)
        return (self.means[labels] + spread).reshape(n, *self.event_shape), labels


class GaussianMixture(Mixture):
    """A mixture of K Gaussians: D is the posterior mean over components (arXiv 2506.10177, Sec. 4.3).

    D(x; sigma) = sum_k pi_k(x) r_k(x), with pi_k proportional to weight_k N(x; mean_k, cov_k + sigma^2 I) and
    r_k = mean_k + cov_k (cov_k + sigma^2 I)^-1 (x - mean_k).

    Parameters
    ----------
    weights : (K,)
        Non-negative, summing to 1.
    means : (K, *event)
        Component means.
    covariances : float, (K,), (K, d), (K, d, d) or a covariance
        Variances: one for all, one per component (isotropic), one per coordinate (diagonal), or full matrices.
        Diagonal ones may also have shape (K, *event). Or an `Isotropic`, `Diagonal`, `Full` or `LowRank` of K
        components, which may have directions without variance; then sigma must be > 0.

    Raises
    ------
    ValueError, TypeError
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


class LowRankMixture(Mixture):
    """A mixture of K Gaussians that each vary in r directions only: a class mixture of images, without d x d matrices.

    Component k is N(mean_k, U_k diag(variances_k) U_k^T), with U_k of shape (d, r): the mixture over a `LowRank`
    covariance (arXiv 2506.10177, Sec. 4.3). Memory is O(K d r) for the parameters and O(B (d + K r)) for a batch.

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

    axes: Tensor

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Any],
        variances: Tensor | Sequence[Any],
        axes: Tensor | Sequence[Any],
    ) -> None:
        mu = _checked_means(means)
        lam, u, wanted = floating(variances, "variances", mu), floating(axes, "axes", mu), (len(mu), mu[0].numel())
        if u.ndim != 3 or u.shape[:2] != wanted:
            raise ValueError(f"axes must have shape ({wanted[0]}, {wanted[1]}, r), got {tuple(u.shape)}")
        super().__init__(weights, mu, LowRank(lam, u))

    @classmethod
    def fit(cls, data: Tensor, labels: Tensor, rank: int | None = None) -> LowRankMixture:
        """Fit one Gaussian to every class, keeping the ``rank`` largest principal directions (all by default).

        Fitted to the data of a network it can stand in for it: a solver that `scheduling.fit_solver` fits to its paths
        costs no evaluation of the network. Keep all directions for that.

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
        return self.covariances.rank(self.dim)


def _checked_means(means: Tensor | Sequence[Any]) -> Tensor:
    mu = floating(means, "means")
    if mu.ndim < 2 or mu.numel() == 0:
        raise ValueError(f"means must have shape (K, *event) with at least one component, got {tuple(mu.shape)}")
    return mu

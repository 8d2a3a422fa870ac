"""Closed-form denoisers: D(x; sigma) = E[x0 | x0 + sigma * noise = x], exact.

A denoiser is any callable ``D(x, sigma, labels=None)``. If the data distribution is known, D is known: for a Gaussian
mixture and for a finite data set (the empirical distribution) it is a formula. All of them obey Tweedie's identity,

    D(x; sigma) = x + sigma^2 * grad log p_sigma(x),

where p_sigma is the data density blurred by a Gaussian of standard deviation sigma (Robbins 1956; Efron 2011;
arXiv 2506.10177, Lemmas 1-3). Taught in ``notebooks/01_noise_and_denoising`` and ``notebooks/08_closed_form_scores``.

Shapes: ``x`` is ``(B, *event)``; ``sigma`` is a float, a 0-d tensor or ``(B,)``. The classes are ``nn.Module``s whose
numbers are buffers, so ``.to(device, dtype)`` works. They keep the floating-point type of the tensors they are given;
Python numbers become float64 (`default_dtype`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from teachkit.adapters import from_eps, from_v, from_velocity, from_x0

__all__ = [
    "Denoiser",
    "DenoiserModule",
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "default_dtype",
    "from_eps",
    "from_v",
    "from_velocity",
    "from_x0",
]


class Denoiser(Protocol):
    """Anything that maps (noisy x, noise level, labels) to E[x0 | x]."""

    def __call__(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor: ...


def default_dtype(device: torch.device | str | None = None) -> torch.dtype:
    """float64, or float32 on devices that have no float64 (Apple MPS)."""
    return torch.float32 if device is not None and torch.device(device).type == "mps" else torch.float64


class DenoiserModule(nn.Module):
    """Base of the closed-form denoisers: input checks, flattening, Tweedie.

    Subclasses give ``_denoise(x, sigma, labels)`` and ``_log_prob(x, sigma, labels)`` on flat ``(B, d)`` input with
    sigma as ``(B, 1)`` or ``(1, 1)``.
    """

    event_shape: tuple[int, ...]
    num_classes: int | None = None

    @property
    def dim(self) -> int:
        """Number of values in one sample."""
        return math.prod(self.event_shape)

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x0 | x]: ``(B, *event)`` to ``(B, *event)``. Raises ValueError or TypeError on bad input."""
        flat, s = self._check(x, sigma)
        return self._denoise(flat, s, self._check_labels(labels, len(flat))).reshape(x.shape)

    def log_prob(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """log p_sigma(x), the log density of the data blurred by noise of level sigma: ``(B,)``, in nats."""
        flat, s = self._check(x, sigma)
        return self._log_prob(flat, s, self._check_labels(labels, len(flat)))

    def score(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """grad_x log p_sigma(x) by Tweedie's identity: (D(x; sigma) - x) / sigma^2, ``(B, *event)``; sigma > 0."""
        denoised = self(x, sigma, labels)
        s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if not (s > 0).all():
            raise ValueError("sigma must be > 0: Tweedie's identity divides by sigma^2")
        return (denoised - x) / s.reshape(-1, *[1] * (x.ndim - 1)) ** 2

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples of clean data: ``(n, *event)``."""
        raise TypeError(f"{type(self).__name__} cannot be sampled")

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define _denoise")

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no density")

    def _check(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Validate and return x as (B, d) and sigma as (B, 1) or (1, 1)."""
        own = next(self.buffers())
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor of shape (B, {_shape(self.event_shape)}), got {type(x).__name__}")
        if x.ndim != 1 + len(self.event_shape) or x.shape[1:] != self.event_shape:
            raise ValueError(f"x must have shape (B, {_shape(self.event_shape)}), got {tuple(x.shape)}")
        if x.dtype != own.dtype:
            raise ValueError(
                f"x is {x.dtype} but this {type(self).__name__} holds {own.dtype}; convert one of them, "
                f"for example with .to({own.dtype})"
            )
        if x.device != own.device:
            raise ValueError(f"x is on {x.device} but this {type(self).__name__} is on {own.device}; move one of them")
        return x.flatten(1), check_sigma(sigma, x).reshape(-1, 1)

    def _check_labels(self, labels: Tensor | None, batch: int) -> Tensor | None:
        if labels is None:
            return None
        if self.num_classes is None:
            raise ValueError(f"labels were given but this {type(self).__name__} has no classes")
        labels = torch.as_tensor(labels, device=next(self.buffers()).device)
        if not _integral(labels) or labels.shape != (batch,):
            raise ValueError(f"labels must be ({batch},) integers, got {tuple(labels.shape)} {labels.dtype}")
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < self.num_classes):
            raise ValueError(f"labels must lie in [0, {self.num_classes - 1}], got {labels.tolist()}")
        return labels.long()


class GaussianMixture(DenoiserModule):
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
        means: Tensor | Sequence,
        covariances: Tensor | Sequence | float,
    ) -> None:
        super().__init__()
        mu = _floating(means, "means")
        if mu.ndim < 2 or mu.numel() == 0:
            raise ValueError(f"means must have shape (K, *event) with at least one component, got {tuple(mu.shape)}")
        w = _floating(weights, "weights", mu)
        if w.shape != mu.shape[:1]:
            raise ValueError(f"weights must have shape ({len(mu)},) to match means, got {tuple(w.shape)}")
        if (w < 0).any():
            raise ValueError(f"weights must not be negative, got {w.tolist()}")
        if abs(float(w.sum()) - 1) > 1e-5:
            raise ValueError(f"weights must sum to 1, got a sum of {float(w.sum()):.6g}")
        self.event_shape, self.num_classes = tuple(mu.shape[1:]), len(mu)
        variances, axes = self._eigen(_floating(covariances, "covariances", mu))
        self.register_buffer("weights", w)
        self.register_buffer("means", mu.reshape(len(mu), -1).contiguous())
        self.register_buffer("variances", variances)
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

    def _components(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Joint log densities (B, K) and per-component posterior means (B, K, d)."""
        offset = x[:, None] - self.means  # (B, K, d)
        if self.axes is not None:
            offset = torch.einsum("kde,bkd->bke", self.axes, offset)  # coordinates along the eigenvectors
        total = self.variances + sigma[..., None] ** 2  # (B or 1, K, d or 1)
        log_det = total.log().sum(-1) * (self.dim // self.variances.shape[1])
        log_joint = -0.5 * ((offset**2 / total).sum(-1) + log_det + self.dim * math.log(2 * math.pi))
        if labels is None:
            log_joint = log_joint + self.weights.log()
        else:
            chosen = nn.functional.one_hot(labels, self.num_classes or 0).bool()
            log_joint = log_joint.masked_fill(~chosen, -math.inf)
        shrunk = self.variances / total * offset
        if self.axes is not None:
            shrunk = torch.einsum("kde,bke->bkd", self.axes, shrunk)
        return log_joint, self.means + shrunk

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        log_joint, means = self._components(x, sigma, labels)
        return torch.einsum("bk,bkd->bd", log_joint.softmax(-1), means)

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        return self._components(x, sigma, labels)[0].logsumexp(-1)

    def responsibilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of each component given x: ``(B, K)``, rows sum to 1."""
        flat, s = self._check(x, sigma)
        return self._components(flat, s, None)[0].softmax(-1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples of clean data: ``(n, *event)``."""
        return self.sample_with_labels(n, generator)[0]

    def sample_with_labels(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw ``n`` samples ``(n, *event)`` and the component each came from ``(n,)``."""
        _check_count(n)
        labels = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.means.dtype, device=self.means.device)
        scaled = self.variances[labels].sqrt() * noise
        if self.axes is not None:
            scaled = torch.einsum("bde,be->bd", self.axes[labels], scaled)
        return (self.means[labels] + scaled).reshape(n, *self.event_shape), labels


class Gaussian(DenoiserModule):
    """One Gaussian, of full or low rank, with its exact probability-flow solution.

    With covariance U diag(lam) U^T (U of shape (d, r)), D(x) = mean + U diag(lam / (lam + sigma^2)) U^T (x - mean).
    Directions outside U have no variance: there D is the mean (arXiv 2506.10177, Sec. 4.3; arXiv 2412.09726).

    Parameters
    ----------
    mean : (*event)
        The mean.
    covariance : float, (d,) or (d, d)
        Isotropic, diagonal or full; positive semi-definite.
    """

    mean: Tensor  # (d,)
    variances: Tensor  # (r,)
    axes: Tensor  # (d, r)

    def __init__(self, mean: Tensor | Sequence, covariance: Tensor | Sequence | float) -> None:
        mu = _floating(mean, "mean")
        if mu.ndim == 0 or mu.numel() == 0:
            raise ValueError(f"mean must have the shape of one sample, got {tuple(mu.shape)}")
        cov, d = _floating(covariance, "covariance", mu), mu.numel()
        if cov.ndim == 0 or cov.shape in ((d,), tuple(mu.shape)):
            variances, axes = (
                cov.reshape(-1).expand(d).clone(),
                torch.eye(d, dtype=mu.dtype, device=mu.device),
            )
        elif cov.shape == (d, d):
            if not torch.allclose(cov, cov.mT, rtol=1e-5, atol=1e-8 * float(cov.abs().max())):
                raise ValueError("covariance must be a symmetric matrix")
            variances, axes = torch.linalg.eigh(cov)
        else:
            raise ValueError(f"covariance must be a number or have shape ({d},) or ({d}, {d}), got {tuple(cov.shape)}")
        rounding = 100 * d * torch.finfo(mu.dtype).eps * float(variances.abs().max())
        if (variances < -rounding).any():
            raise ValueError(
                f"covariance must be positive semi-definite, got a smallest eigenvalue of {variances.min():.3g}"
            )
        self._set(mu, variances.clamp(min=0), axes)

    def _set(self, mean: Tensor, variances: Tensor, axes: Tensor) -> None:
        super().__init__()
        self.event_shape = tuple(mean.shape)
        self.register_buffer("mean", mean.reshape(-1))
        self.register_buffer("variances", variances)
        self.register_buffer("axes", axes)

    @classmethod
    def fit(cls, data: Tensor, rank: int | None = None) -> Gaussian:
        """Fit mean and covariance to data, keeping the ``rank`` largest principal directions (all by default).

        Parameters
        ----------
        data : (N, *event)
            At least two samples. The covariance is the maximum-likelihood one (division by N).
        rank : int, optional
            Number of directions kept, from 1 to d.

        Raises
        ------
        ValueError, TypeError
            For too little data, values that are not finite, or a rank out of range.
        """
        x = _check_data(data)
        if len(x) < 2:
            raise ValueError(f"data must hold at least 2 samples to fit a covariance, got {len(x)}")
        flat = x.reshape(len(x), -1).to(default_dtype(x.device))
        d = flat.shape[1]
        if rank is not None and not (isinstance(rank, int) and 1 <= rank <= d):
            raise ValueError(f"rank must be an integer from 1 to {d}, got {rank!r}")
        mean = flat.mean(0)
        centred = flat - mean
        # Only the samples are centred: centring the covariance matrix too would lose the direction of the mean.
        if len(flat) >= d:
            variances, axes = torch.linalg.eigh(centred.mT @ centred / len(flat))
        else:
            _, singular, vh = torch.linalg.svd(centred, full_matrices=False)
            variances, axes = singular.flip(0) ** 2 / len(flat), vh.flip(0).mT
        keep = variances.shape[0] if rank is None else min(rank, variances.shape[0])
        variances, axes = variances[-keep:].flip(0).clamp(min=0), axes[:, -keep:].flip(1)
        out = cls.__new__(cls)
        out._set(mean.reshape(x.shape[1:]).to(x.dtype), variances.to(x.dtype), axes.to(x.dtype).contiguous())
        return out

    @property
    def rank(self) -> int:
        """Number of directions with their own variance."""
        return self.axes.shape[1]

    def _along_axes(self, x: Tensor, inside: Tensor, outside: Tensor | float) -> Tensor:
        """mean + (U diag(inside) U^T + outside (I - U U^T)) (x - mean)."""
        offset = x - self.mean
        return self.mean + ((offset @ self.axes) * (inside - outside)) @ self.axes.mT + outside * offset

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        total = self.variances + sigma**2  # 0 only without noise, in a direction without variance: there D is the mean
        return self._along_axes(x, self.variances / total.where(total > 0, torch.ones_like(total)), 0.0)

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        offset = x - self.mean
        along = offset @ self.axes  # (B, r)
        total = self.variances + sigma**2
        rest = self.dim - self.rank
        quadratic, log_det = (along**2 / total).sum(-1), total.log().sum(-1)
        if not (total > 0).all() or (rest and not (sigma > 0).all()):
            raise ValueError("sigma must be > 0: without noise this Gaussian has no density")
        if rest:  # outside the axes the blurred density is N(0, sigma^2)
            across = offset - along @ self.axes.mT  # not |offset|^2 - |along|^2, which cancels
            quadratic = quadratic + (across**2).sum(-1) / sigma[:, 0] ** 2
            log_det = log_det + rest * 2 * sigma[:, 0].log()
        return -0.5 * (quadratic + log_det + self.dim * math.log(2 * math.pi))

    def flow(self, x: Tensor, sigma: float | Tensor, sigma_next: float | Tensor) -> Tensor:
        """Exact solution of the probability-flow ODE dx/dsigma = (x - D) / sigma from ``sigma`` to ``sigma_next``.

        Each principal coordinate of x - mean is scaled by sqrt((lam + sigma_next^2) / (lam + sigma^2)), and what lies
        outside the principal directions by sigma_next / sigma. ``(B, *event)`` to ``(B, *event)``. Starting from clean
        data, ``sigma`` = 0, needs variance in every direction: elsewhere the solution is not unique (ValueError).
        """
        flat, s = self._check(x, sigma)
        s_next = check_sigma(sigma_next, x).reshape(-1, 1)
        total, full = self.variances + s**2, self.rank == self.dim
        if not (total > 0).all() or not (full or (s > 0).all()):
            raise ValueError("sigma must be > 0: from 0 there is no unique way along directions without variance")
        inside = ((self.variances + s_next**2) / total).sqrt()
        return self._along_axes(flat, inside, 0.0 if full else s_next / s).reshape(x.shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples ``(n, *event)``."""
        _check_count(n)
        noise = torch.randn(n, self.rank, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return (self.mean + (noise * self.variances.sqrt()) @ self.axes.mT).reshape(n, *self.event_shape)


class Empirical(DenoiserModule):
    """The exact denoiser of a finite data set: a softmax-weighted mean of all its points (arXiv 2506.10177, Lemma 3).

    D(x; sigma) = sum_i w_i y_i with w = softmax(-|x - y_i|^2 / (2 sigma^2)), the mean-shift map of a Gaussian kernel
    density estimate with bandwidth sigma. Exact, in memory O(B * chunk): two matrix products per chunk of data and a
    running softmax.

    Parameters
    ----------
    data : (N, *event)
        The data set y. It is not copied if already contiguous.
    bandwidth : float
        Standard deviation of a Gaussian put on every point (0: the points themselves). With a bandwidth this is the
        isotropic `GaussianMixture` with a component per point.
    labels : (N,) integers, optional
        Classes of the points; ``D(x, sigma, labels)`` then averages only over points of the class asked for.
    chunk : int
        Number of data points handled at a time.

    Raises
    ------
    ValueError, TypeError
        For empty data, values that are not finite, a negative bandwidth, labels of the wrong shape.
    """

    data: Tensor  # (N, d)
    half_norms: Tensor  # (N,)
    classes: Tensor | None  # (N,)

    # A float32 logit may be off by this much before it is computed again with more care.
    _logit_tolerance = 1e-3
    _candidates = 32

    def __init__(self, data: Tensor, bandwidth: float = 0.0, labels: Tensor | None = None, chunk: int = 4096) -> None:
        super().__init__()
        y = _check_data(data)
        if not (isinstance(bandwidth, (int, float)) and math.isfinite(bandwidth) and bandwidth >= 0):
            raise ValueError(f"bandwidth must be a finite number >= 0, got {bandwidth!r}")
        if not (isinstance(chunk, int) and chunk >= 1):
            raise ValueError(f"chunk must be an integer >= 1, got {chunk!r}")
        self.event_shape, self.bandwidth, self.chunk = tuple(y.shape[1:]), float(bandwidth), chunk
        flat = y.reshape(len(y), -1).contiguous()
        self.register_buffer("data", flat)
        self.register_buffer("half_norms", 0.5 * torch.linalg.vector_norm(flat, dim=1) ** 2)
        if labels is not None:
            labels = torch.as_tensor(labels, device=y.device)
            if labels.shape != (len(y),) or not _integral(labels) or int(labels.min()) < 0:
                raise ValueError(f"labels must be ({len(y)},) integers >= 0, got {tuple(labels.shape)} {labels.dtype}")
            self.num_classes = int(labels.max()) + 1
            if (labels.bincount(minlength=self.num_classes) == 0).any():
                raise ValueError(f"labels must use every class from 0 to {self.num_classes - 1} at least once")
        self.register_buffer("classes", labels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Empirical:
        """Where ``.to(dtype)`` and its kin pass through: norms follow the converted data, at its new precision."""
        super()._apply(fn, recurse)
        self.half_norms = 0.5 * torch.linalg.vector_norm(self.data, dim=1) ** 2
        return self

    def __len__(self) -> int:
        return len(self.data)

    def _blurred(self, sigma: Tensor) -> Tensor:
        """Standard deviation of noise and bandwidth together; must be positive."""
        total = (sigma**2 + self.bandwidth**2).sqrt()
        if not (total > 0).all():
            raise ValueError("sigma must be > 0 for a data set without bandwidth")
        return total

    def _logits(self, x: Tensor, s: Tensor, labels: Tensor | None, start: int) -> Tensor:
        """-|x - y|^2 / (2 s^2) up to a constant of x, for one chunk: (B, chunk)."""
        y = self.data[start : start + self.chunk].to(x.dtype)
        if x.dtype == self.data.dtype:
            half = self.half_norms[start : start + self.chunk]
        else:  # asked for more precision than the stored norms have
            half = 0.5 * (y**2).sum(1)
        logits = torch.addmm(-half, x, y.mT) / s**2
        if labels is not None and self.classes is not None:
            logits = logits.masked_fill(self.classes[start : start + self.chunk] != labels[:, None], -math.inf)
        return logits

    def _softmax_mean(self, x: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """Softmax-weighted mean of the data by a running softmax over chunks: (B, d)."""
        top = x.new_full((len(x), 1), -math.inf)  # running maximum
        norm, mean = torch.zeros_like(top), torch.zeros_like(x)  # running normaliser (B, 1) and sum (B, d)
        smallest = math.log(torch.finfo(x.dtype).tiny) + 7
        for start in range(0, len(self.data), self.chunk):
            logits = self._logits(x, s, labels, start)
            new = torch.maximum(top, logits.detach().amax(1, keepdim=True))
            below = logits - new.clamp(min=torch.finfo(x.dtype).min)
            # Weights too small to matter become 0, not denormal numbers, which slow the product down tenfold.
            w = below.masked_fill(below < smallest, -math.inf).exp()  # (B, chunk)
            keep = (top - new).nan_to_num(nan=0.0, neginf=-math.inf).exp()
            y = self.data[start : start + self.chunk].to(x.dtype)
            norm = norm * keep + w.sum(1, keepdim=True)
            mean = torch.addmm(mean * keep, w, y)
            top = new
        return mean / norm

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        s = self._blurred(sigma)
        eps = torch.finfo(x.dtype).eps
        biggest = float(self.half_norms.max().mul(2).sqrt())
        reach = torch.linalg.vector_norm(x.detach(), dim=1, keepdim=True) * biggest + biggest**2
        # Rounding may matter in these rows. An infinite x is left to become NaN, for the caller to see.
        careful = ((4 * eps * reach / s**2 > self._logit_tolerance) & reach.isfinite())[:, 0]
        if x.dtype == torch.float64 or x.device.type == "mps" or not careful.any():
            mean = self._softmax_mean(x, s, labels)
        else:
            mean = torch.empty_like(x)
            s = s.expand(len(x), 1)
            for rows, rule in ((~careful, self._softmax_mean), (careful, self._careful_mean)):
                if rows.any():
                    mean[rows] = rule(x[rows], s[rows], None if labels is None else labels[rows])
        if not self.bandwidth:
            return mean
        return (self.bandwidth**2 * x + sigma**2 * mean) / (self.bandwidth**2 + sigma**2)

    def _careful_mean(self, x: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """The same mean in float32, where rounding of |x - y|^2 could change the weights.

        One float32 pass finds the few nearest points of each row; their distances are then computed again from
        differences in float64. Rows with many near points are done wholly in float64.
        """
        k = min(self._candidates, len(self.data))
        best = x.new_full((len(x), 0), 0.0)
        index = torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
        with torch.no_grad():
            for start in range(0, len(self.data), self.chunk):
                value, at = self._logits(x, s, labels, start).topk(min(k, len(self.data) - start, self.chunk), 1)
                best, order = torch.cat([best, value], 1).topk(min(k, best.shape[1] + value.shape[1]), 1)
                index = torch.cat([index, at + start], 1).gather(1, order)
            biggest = float(self.half_norms.max().mul(2).sqrt())
            reach = torch.linalg.vector_norm(x, dim=1, keepdim=True) * biggest + biggest**2
            slack = 40 + 8 * torch.finfo(x.dtype).eps * reach / s**2  # exp(-40) is nothing beside 1
            near = best >= best[:, :1] - slack  # (B, k): everything else has no weight
            few = ~near[:, -1] if k < len(self.data) else torch.ones_like(near[:, 0])
        out = torch.empty_like(x)
        many = (~few).nonzero()[:, 0]
        if len(many):
            rows = x[many].double(), s[many].double(), None if labels is None else labels[many]
            out[many] = self._softmax_mean(*rows).to(x.dtype)
        block = max(1, 2**22 // (k * self.dim))
        for rows in few.nonzero()[:, 0].split(block) if few.any() else ():
            m = int(near[rows].sum(1).max())
            y = self.data[index[rows, :m]].double()  # (b, m, d)
            d2 = ((x[rows, None].double() - y) ** 2).sum(-1)
            logits = (-0.5 * d2 / s[rows].double() ** 2).masked_fill(~near[rows, :m], -math.inf)
            out[rows] = torch.einsum("bm,bmd->bd", logits.softmax(1), y).to(x.dtype)
        return out

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        wide = x.to(default_dtype(x.device))  # log densities differ by |x|^2 / sigma^2: float32 is not enough
        s = self._blurred(sigma).to(wide.dtype)
        total = wide.new_full((len(x),), -math.inf)
        for start in range(0, len(self.data), self.chunk):
            total = torch.logaddexp(total, self._logits(wide, s, labels, start).logsumexp(1))
        count = wide.new_full((1,), len(self.data))
        if labels is not None and self.classes is not None:
            count = self.classes.bincount()[labels].to(wide.dtype)
        constant = count.log() + self.dim * (s[:, 0].log() + _HALF_LOG_2PI)
        return (total - 0.5 * (wide**2).sum(1) / s[:, 0] ** 2 - constant).to(x.dtype)

    def weights(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Posterior probability of every data point given x: ``(B, N)``, rows sum to 1. Memory O(B * N)."""
        flat, s = self._check(x, sigma)
        labels, wide = self._check_labels(labels, len(x)), flat.to(default_dtype(x.device))
        starts = range(0, len(self.data), self.chunk)
        s = self._blurred(s).to(wide.dtype)
        return torch.cat([self._logits(wide, s, labels, i) for i in starts], 1).softmax(1).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` points of the data set, with replacement, plus noise of the bandwidth: ``(n, *event)``."""
        _check_count(n)
        device = self.data.device
        index = torch.randint(len(self.data), (n,), generator=generator, device=device)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.data.dtype, device=device)
        return (self.data[index] + self.bandwidth * noise).reshape(n, *self.event_shape)


_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def check_sigma(sigma: float | Tensor, x: Tensor) -> Tensor:
    """Validate a noise level against a batch and return it as a ``(1,)`` or ``(B,)`` tensor like x."""
    if not isinstance(sigma, (int, float, Tensor)) or isinstance(sigma, bool):
        raise TypeError(f"sigma must be a number or a tensor, got {type(sigma).__name__}")
    # The dtype matters: as_tensor(0.3) alone would round to float32.
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
    if isinstance(sigma, Tensor) and (sigma.ndim > 1 or len(s) not in (1, len(x))):
        raise ValueError(f"sigma must be a number, 0-d or ({len(x)},), got shape {tuple(sigma.shape)}")
    if not (torch.isfinite(s).all() and (s >= 0).all()):
        raise ValueError(f"sigma must be finite and >= 0, got {sigma!r}")
    return s


def _integral(labels: Tensor) -> bool:
    return not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)


def _check_count(n: int) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n must be an integer number of samples >= 1, got {n!r}")


def _floating(value: Tensor | Sequence | float, name: str, like: Tensor | None = None) -> Tensor:
    """A finite floating-point tensor: as given, or float64 from Python numbers and integers."""
    try:  # the dtype matters: as_tensor(0.3) alone would round to float32
        dtype = None if isinstance(value, Tensor) else default_dtype(None if like is None else like.device)
        out = torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a tensor or nested lists of numbers, got {type(value).__name__}") from error
    if like is not None:
        if isinstance(value, Tensor) and out.is_floating_point() and out.dtype != like.dtype:
            raise ValueError(f"{name} is {out.dtype} but must have one dtype with the means, {like.dtype}")
        if isinstance(value, Tensor) and out.device != like.device:
            raise ValueError(f"{name} is on {out.device} but must be on the device of the means, {like.device}")
        out = out.to(like)
    elif not out.is_floating_point():
        out = out.to(default_dtype(out.device))
    if not torch.isfinite(out).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return out


def _check_data(data: Tensor) -> Tensor:
    """A non-empty, finite floating-point data set (N, *event)."""
    y = _floating(data, "data")
    if y.ndim < 2 or y.numel() == 0:
        raise ValueError(f"data must have shape (N, *event) with at least one sample, got {tuple(y.shape)}")
    return y


def _shape(event: tuple[int, ...]) -> str:
    return ", ".join(map(str, event))

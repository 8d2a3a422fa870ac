"""One Gaussian: the linear denoiser, and the exact solution of its probability-flow ODE.

D(x; sigma) = mean + U diag(lam / (lam + sigma^2)) U^T (x - mean). Taught in ``notebooks/08_closed_form_scores``;
arXiv 2506.10177, Sec. 4.3, and arXiv 2412.09726.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teachkit import checks
from teachkit.checks import integer
from teachkit.denoisers.base import (
    DenoiserModule,
    check_data,
    check_sigma,
    default_dtype,
    drawing_device,
    finite,
    floating,
)


class Gaussian(DenoiserModule):
    """One Gaussian, of full or low rank, with its exact probability-flow solution.

    With covariance U diag(lam) U^T (U of shape (d, r)), D(x) = mean + U diag(lam / (lam + sigma^2)) U^T (x - mean).
    Directions outside U have no variance: there D is the mean (arXiv 2506.10177, Sec. 4.3; arXiv 2412.09726).

    Parameters
    ----------
    mean : (*event)
        The mean.
    covariance : float, (d,) or (d, d)
        Isotropic, diagonal or full; positive semi-definite. Whichever it is, d x d numbers are kept; for large images
        of one variance ``GaussianMixture([1.0], mean[None], variance)`` is the same without them.
    """

    mean: Tensor  # (d,)
    variances: Tensor  # (r,)
    axes: Tensor  # (d, r)

    def __init__(self, mean: Tensor | Sequence[Any], covariance: Tensor | Sequence[Any] | float) -> None:
        mu = floating(mean, "mean")
        if mu.ndim == 0 or mu.numel() == 0:
            raise ValueError(f"mean must have the shape of one sample, got {tuple(mu.shape)}")
        cov, d = floating(covariance, "covariance", mu), mu.numel()
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
        self._set(mu.clone(), variances.clamp(min=0), axes)

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
        x = check_data(data)
        if len(x) < 2:
            raise ValueError(f"data must hold at least 2 samples to fit a covariance, got {len(x)}")
        flat = x.reshape(len(x), -1).to(default_dtype(x.device))
        d = flat.shape[1]
        rank = None if rank is None else integer("rank", rank, 1, d)
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
        s_next = check_sigma(sigma_next, x, "sigma_next").reshape(-1, 1)
        total, full = self.variances + s**2, self.rank == self.dim
        if not (total > 0).all() or not (full or (s > 0).all()):
            raise ValueError("sigma must be > 0: from 0 there is no unique way along directions without variance")
        inside = ((self.variances + s_next**2) / total).sqrt()
        return finite(self._along_axes(flat, inside, 0.0 if full else s_next / s), x).reshape(x.shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples ``(n, *event)``; ``generator`` may lie on the CPU or beside the mean."""
        n = integer("n", n, 1)
        generator = checks.generator("generator", generator)
        device = drawing_device(generator, self.mean)
        noise = torch.randn(n, self.rank, generator=generator, dtype=self.mean.dtype, device=device).to(self.mean)
        return (self.mean + (noise * self.variances.sqrt()) @ self.axes.mT).reshape(n, *self.event_shape)

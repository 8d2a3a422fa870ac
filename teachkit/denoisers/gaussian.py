"""One Gaussian: the linear denoiser, and the exact solution of its probability-flow ODE.

D(x; sigma) = mean + C (C + sigma^2 I)^-1 (x - mean). Taught in ``notebooks/10_gaussians``;
arXiv 2506.10177, Sec. 4.3, and arXiv 2412.09726.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teachkit import checks
from teachkit.checks import integer, number
from teachkit.denoisers.base import DenoiserModule, check_data, default_dtype, drawing_device, finite, floating
from teachkit.denoisers.covariances import Covariance, Full, LowRank, read_covariance


class Gaussian(DenoiserModule):
    """One Gaussian, of full or low rank, with its exact probability-flow solution.

    With covariance U diag(lam) U^T (U of shape (d, r)), D(x) = mean + U diag(lam / (lam + sigma^2)) U^T (x - mean).
    Directions outside U have no variance: there D is the mean (arXiv 2506.10177, Sec. 4.3; arXiv 2412.09726).

    Parameters
    ----------
    mean : (*event)
        The mean.
    covariance : float, (d,), (d, d) or a covariance
        Isotropic, diagonal or full, positive semi-definite; or an `Isotropic`, `Diagonal`, `Full` or `LowRank` of one
        component. An isotropic or diagonal one holds no d x d numbers.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not match, a covariance that is not symmetric and positive semi-definite, values that are not
        finite.

    Examples
    --------
    >>> D = Gaussian([0.0, 0.0], [3.0, 1.0])
    >>> x = torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    >>> D(x, 1.0).tolist(), D.flow(x, 1.0, 0.0).round(decimals=3).tolist()
    ([[1.5, 1.0]], [[1.732, 1.414]])
    >>> Gaussian.power_law((3, 64, 64)).variances.reshape(3, 64, 64)[0, 0, :4].round(decimals=2).tolist()
    [39.31, 39.31, 9.83, 4.37]
    """

    mean: Tensor  # (d,)

    def __init__(self, mean: Tensor | Sequence[Any], covariance: Covariance | Tensor | Sequence[Any] | float) -> None:
        super().__init__()
        mu = floating(mean, "mean")
        if mu.ndim == 0 or mu.numel() == 0:
            raise ValueError(f"mean must have the shape of one sample, got {tuple(mu.shape)}")
        self.event_shape = tuple(mu.shape)
        self.register_buffer("mean", mu.reshape(-1).clone())  # the caller's tensor may change
        self.covariance = read_covariance("covariance", covariance, mu[None], single=True)

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
        rank = d if rank is None else integer("rank", rank, 1, d)
        mean = flat.mean(0)
        centred = flat - mean
        # Only the samples are centred: centring the covariance matrix too would lose the direction of the mean.
        if len(flat) >= d:
            variances, axes = torch.linalg.eigh(centred.mT @ centred / len(flat))
        else:
            _, singular, vh = torch.linalg.svd(centred, full_matrices=False)
            variances, axes = singular.flip(0) ** 2 / len(flat), vh.flip(0).mT
        variances, axes = variances[-rank:].flip(0).clamp(min=0), axes[:, -rank:].flip(1)
        kind = Full if len(variances) == d else LowRank
        covariance = kind._of(variances.to(x.dtype)[None], axes.to(x.dtype)[None])
        return cls(mean.reshape(x.shape[1:]).to(x.dtype), covariance)

    @classmethod
    def power_law(cls, event_shape: Sequence[int], alpha: float = 2.0, variance: float = 0.25) -> Gaussian:
        """Natural images by their spectrum alone, for a schedule without data or network: variances as 1 / f^alpha.

        Its coordinates are the frequencies of the image (real Fourier coefficients, orthonormal), not its pixels: noise
        has no axes, and what a solver does to it depends on the variances only. `scheduling.score_optimal` of its
        paths gives levels for a network on such images that cost no evaluation of it.

        Parameters
        ----------
        event_shape : tuple of int
            Shape of a sample, (..., H, W) or (W,): every channel has the same spectrum.
        alpha : float
            Exponent of the frequency, >= 0; about 2 for photographs (Field 1987), 0 for white noise.
        variance : float
            Mean variance of a value, > 0, in squared units of the data: 0.25 for images in [-1, 1].

        Returns
        -------
        Gaussian
            Of mean 0, float64. The mean brightness (f = 0) counts as one cycle per image.

        Raises
        ------
        ValueError, TypeError
            For what is no shape, alpha < 0 or variance <= 0.
        """
        shape = checks.event_shape("event_shape", event_shape, 1)
        if not shape:
            raise ValueError("event_shape must have an axis, got ()")
        alpha, variance = number("alpha", alpha, least=0), number("variance", variance, above=0)
        square = torch.zeros((), dtype=torch.float64)  # of the frequency, in cycles per image
        for size in shape[-2:]:
            square = square[..., None] + (torch.fft.fftfreq(size, dtype=torch.float64) * size) ** 2
        power = square.clamp(min=1) ** (-alpha / 2)
        return cls(torch.zeros(shape, dtype=torch.float64), (variance / power.mean() * power).expand(shape).flatten())

    @property
    def variances(self) -> Tensor:
        """Variance along each axis: ``(r,)``."""
        return self.covariance.variances[0].expand(self.rank)

    @property
    def axes(self) -> Tensor:
        """Orthonormal columns, ``(d, r)``, along which the variances are: the coordinates, if it holds no others."""
        axes = self.covariance.axes
        return torch.eye(self.dim, dtype=self.mean.dtype, device=self.mean.device) if axes is None else axes[0]

    @property
    def rank(self) -> int:
        """Number of directions with their own variance."""
        return self.covariance.rank(self.dim)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x - mean, and its coordinates along the axes: (B, 1, d) and (B, 1, r)."""
        offset = (x - self.mean)[:, None]
        return offset, self.covariance.along(offset)

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        return self.mean + self.covariance.back(self.covariance.shrink(self._parts(x)[1], sigma))[:, 0]

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        self.covariance.refuse_no_noise(sigma, self.dim, "without noise this Gaussian has no density")
        quadratic = self.covariance.quadratic(*self._parts(x), sigma)
        return -0.5 * (quadratic + self.covariance.log_det(sigma, self.dim) + self.dim * math.log(2 * math.pi))[:, 0]

    def flow(self, x: Tensor, sigma: float | Tensor, sigma_next: float | Tensor) -> Tensor:
        """Exact solution of the probability-flow ODE dx/dsigma = (x - D) / sigma from ``sigma`` to ``sigma_next``.

        Each principal coordinate of x - mean is scaled by sqrt((lam + sigma_next^2) / (lam + sigma^2)), and what lies
        outside the principal directions by sigma_next / sigma. ``(B, *event)`` to ``(B, *event)``. Starting from clean
        data, ``sigma`` = 0, needs variance in every direction: elsewhere the solution is not unique (ValueError).
        """
        flat, s = self._check(x, sigma)
        s_next = checks.level("sigma_next", sigma_next, x, zero=True).reshape(-1, 1)
        self.covariance.refuse_no_noise(s, self.dim, "from 0 there is no unique way along directions without variance")
        offset, along = self._parts(flat)
        inside = (self.covariance.total(s_next) / self.covariance.total(s)).sqrt()
        outside = s_next / s if self.covariance.leaves(self.dim) else torch.zeros_like(s)
        moved = self.mean + self.covariance.back((inside - outside[..., None]) * along)[:, 0]
        return finite(moved + outside * offset[:, 0], x).reshape(x.shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples ``(n, *event)``; ``generator`` may lie on the CPU or beside the mean."""
        n, generator = integer("n", n, 1), checks.generator("generator", generator)
        device = drawing_device(generator, self.mean)
        noise = torch.randn(n, self.rank, generator=generator, dtype=self.mean.dtype, device=device).to(self.mean)
        spread = self.covariance.root(noise, torch.zeros(n, dtype=torch.long))
        return (self.mean + spread).reshape(n, *self.event_shape)

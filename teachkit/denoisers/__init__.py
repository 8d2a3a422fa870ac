"""Closed-form denoisers: D(x; sigma) = E[x0 | x0 + sigma * noise = x], exact.

A denoiser is any callable ``D(x, sigma, labels=None)``. If the data distribution is known, D is known: for a Gaussian
mixture and for a finite data set (the empirical distribution) it is a formula. All of them obey Tweedie's identity,

    D(x; sigma) = x + sigma^2 * grad log p_sigma(x),

where p_sigma is the data density blurred by a Gaussian of standard deviation sigma (Robbins 1956; Efron 2011;
arXiv 2506.10177, Lemmas 1-3). Taught in ``notebooks/01_noise_and_denoising`` and ``notebooks/10_gaussians``.

Shapes: ``x`` is ``(B, *event)``; ``sigma`` is a float, a 0-d tensor or ``(B,)``. The classes are ``nn.Module``s whose
numbers are buffers, so ``.to(device, dtype)`` works. They keep the floating-point type of the tensors they are given;
Python numbers become float64 (`default_dtype`).
"""

from teachkit import renamed
from teachkit.denoisers.base import Denoiser, DenoiserModule, default_dtype
from teachkit.denoisers.covariances import Diagonal, Full, Isotropic, LowRank
from teachkit.denoisers.empirical import Empirical
from teachkit.denoisers.gaussian import Gaussian
from teachkit.denoisers.mixtures import GaussianMixture, LowRankMixture

__all__ = [
    "Denoiser",
    "DenoiserModule",
    "Diagonal",
    "Empirical",
    "Full",
    "Gaussian",
    "GaussianMixture",
    "Isotropic",
    "LowRank",
    "LowRankMixture",
    "default_dtype",
]

__getattr__ = renamed.attribute(__name__)

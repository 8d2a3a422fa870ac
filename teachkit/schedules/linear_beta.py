"""The variance-preserving process whose noise rate is linear in time, beta(t) = beta_min + beta_d t.

In the coordinates of this package, where a state is x0 + sigma * noise, its noise level is

    log(1 + sigma(t)^2) = integral of beta = beta_min t + beta_d t^2 / 2,

with t from 0 (data) to 1 (noise): arXiv 2011.13456, Appendix C; arXiv 2206.00364, Table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearBeta:
    """Noise level as a function of time and back, to rounding at both ends.

    Numbers are taken as float64, tensors in their own dtype. Nothing is checked here: callers know their ranges.

    Parameters
    ----------
    beta_min, beta_d : float
        Noise rate at t = 0, and by how much it is larger at t = 1: those of DDPM by default.

    Examples
    --------
    >>> clock = LinearBeta()
    >>> round(float(clock.sigma(1.0)), 3), float(clock.time(clock.sigma(0.25)))
    (152.167, 0.25)
    """

    beta_min: float = 0.1
    beta_d: float = 19.9

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float, time_min: float) -> LinearBeta | None:
        """The process with sigma(``time_min``) = ``sigma_min`` and sigma(1) = ``sigma_max``.

        None if there is none whose rate is positive from ``time_min`` to 1: for ``sigma_min`` is too large.
        """
        log_min, log_max = math.log1p(sigma_min * sigma_min), math.log1p(sigma_max * sigma_max)
        beta_d = 2 * (log_min / time_min - log_max) / (time_min - 1)
        beta_min = log_max - 0.5 * beta_d
        return cls(beta_min, beta_d) if min(beta_d * time_min, beta_d) + beta_min > 0 else None

    def sigma(self, t: Tensor | float) -> Tensor:
        """Noise level at time t."""
        t = _numbers(t)
        return (0.5 * self.beta_d * t**2 + self.beta_min * t).expm1().sqrt()

    def time(self, sigma: Tensor | float) -> Tensor:
        """Time at a noise level, by that form of the root which subtracts nothing."""
        rate = self.rate(sigma)
        if self.beta_min <= 0:
            return (rate - self.beta_min) / self.beta_d
        return 2 * _numbers(sigma).square().log1p() / (rate + self.beta_min)

    def rate(self, sigma: Tensor | float) -> Tensor:
        """beta(t) at the time of a noise level: the root of beta_min^2 + 2 beta_d log(1 + sigma^2)."""
        return (self.beta_min**2 + 2 * self.beta_d * _numbers(sigma).square().log1p()).sqrt()

    def elapsed(self, a: Tensor | float, b: float) -> Tensor:
        """t(a) - t(b): the difference of both logarithms over the mean rate, good for close levels and beta_d = 0."""
        a = _numbers(a)
        return 2 * ((a - b) * (a + b) / (1 + b**2)).log1p() / (self.rate(a) + self.rate(b))


def _numbers(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64, device="cpu")

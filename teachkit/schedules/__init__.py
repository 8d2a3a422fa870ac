"""Schedules: where the sampler stops on its way from noise to data.

A schedule is a 1-D float64 tensor of N + 1 strictly decreasing noise levels, ``sigmas[0] = sigma_max``, ending at
``sigma_min`` (the convention of arXiv 2506.10177) or, when asked, at 0. Time *is* the noise level:
x(sigma) = x0 + sigma * noise (the variance-exploding form of Karras et al. 2022, arXiv 2206.00364). Most functions
here place points evenly in some function of sigma and differ only in that; the four usual ones, which are compared
with one another and with what `scheduling` finds, are in `REGISTRY`. Taught in ``notebooks/03_the_ode`` and
``notebooks/04_solvers``.
"""

from collections.abc import Callable

from torch import Tensor

from teachkit.schedules.families import cosine, ddpm, flow_shift, linear, logsnr, polynomial, time_uniform
from teachkit.schedules.levels import interpolate, trained_levels, validate

# Each is called as make(n, sigma_min, sigma_max).
REGISTRY: dict[str, Callable[..., Tensor]] = {
    make.__name__: make for make in (polynomial, logsnr, time_uniform, cosine)
}

__all__ = [
    "REGISTRY",
    "cosine",
    "ddpm",
    "flow_shift",
    "interpolate",
    "linear",
    "logsnr",
    "polynomial",
    "time_uniform",
    "trained_levels",
    "validate",
]

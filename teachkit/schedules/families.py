"""Schedules by formula: levels evenly spaced in some function f of sigma, and those of models of discrete time.

    f(sigma_i) = f(sigma_max) + (i / n) (f(sigma_min) - f(sigma_max))

The functions differ only in f. All give exact ends, and refuse what float64 cannot tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from teachkit.checks import choice, integer, number
from teachkit.schedules.levels import checked_range, finished, with_zero
from teachkit.schedules.linear_beta import LinearBeta

_Map = Callable[[Tensor], Tensor]
_LARGE_RHO = 1e3  # beyond, powers 1 / rho of sigma lose digits


def polynomial(
    n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, zero: bool = False
) -> Tensor:
    """Evenly spaced in sigma^(1/rho): the schedule of EDM (Karras et al. 2022, eq. 5).

    Also known as the Karras schedule. ``rho=1`` is uniform in sigma; ``rho -> inf`` tends to `logsnr`.

    Parameters
    ----------
    n : int
        Number of steps between ``sigma_max`` and ``sigma_min``.
    sigma_min, sigma_max : float
        The ends, 0 < sigma_min < sigma_max.
    rho : float
        Exponent, > 0. Larger values put more points at small sigma.
    zero : bool
        Append a 0: one more step, from ``sigma_min`` to clean data.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64, or ``(n + 2,)`` with ``zero=True``.

    Raises
    ------
    ValueError, TypeError
        For n < 1, sigmas out of order or not finite, rho <= 0.

    Examples
    --------
    >>> [round(s, 3) for s in polynomial(4).tolist()]
    [80.0, 17.528, 2.515, 0.17, 0.002]
    """
    rho = number("rho", rho, above=0)
    if rho <= _LARGE_RHO:
        return _even(n, sigma_min, sigma_max, zero, lambda s: s ** (1 / rho), lambda u: u**rho)
    # All powers are near 1. Even in them is even in rho (sigma^(1/rho) - 1), which tends to log sigma.
    power, inverse = (lambda s: rho * torch.expm1(s.log() / rho)), (lambda u: (rho * torch.log1p(u / rho)).exp())
    return _even(n, sigma_min, sigma_max, zero, power, inverse)


def linear(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, zero: bool = False) -> Tensor:
    """Evenly spaced in sigma itself (`polynomial` with rho = 1).

    Parameters
    ----------
    n : int
        Number of steps between ``sigma_max`` and ``sigma_min``.
    sigma_min, sigma_max : float
        The ends, 0 < sigma_min < sigma_max.
    zero : bool
        Append a 0: one more step, from ``sigma_min`` to clean data.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64, or ``(n + 2,)`` with ``zero=True``.

    Raises
    ------
    ValueError, TypeError
        For n < 1, sigmas out of order or not finite.

    Examples
    --------
    >>> [round(s, 3) for s in linear(4).tolist()]
    [80.0, 60.001, 40.001, 20.001, 0.002]
    """
    return polynomial(n, sigma_min, sigma_max, rho=1.0, zero=zero)


def logsnr(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, zero: bool = False) -> Tensor:
    """Evenly spaced in log sigma, that is, in the log signal-to-noise ratio (DPM-Solver, arXiv 2206.00927).

    Also known as the exponential schedule.

    Parameters
    ----------
    n : int
        Number of steps between ``sigma_max`` and ``sigma_min``.
    sigma_min, sigma_max : float
        The ends, 0 < sigma_min < sigma_max.
    zero : bool
        Append a 0: one more step, from ``sigma_min`` to clean data.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64, or ``(n + 2,)`` with ``zero=True``.

    Raises
    ------
    ValueError, TypeError
        For n < 1, sigmas out of order or not finite.

    Examples
    --------
    >>> [round(s, 3) for s in logsnr(4).tolist()]
    [80.0, 5.657, 0.4, 0.028, 0.002]
    """
    return _even(n, sigma_min, sigma_max, zero, torch.log, torch.exp)


def cosine(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, zero: bool = False) -> Tensor:
    """Evenly spaced in the angle arctan(sigma): the cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672).

    With alpha = cos(u) and standard deviation sin(u) of a variance-preserving process, sigma = tan(u). Also the
    optimal Euler schedule of Align Your Steps for a unit Gaussian.

    Parameters
    ----------
    n : int
        Number of steps between ``sigma_max`` and ``sigma_min``.
    sigma_min, sigma_max : float
        The ends, 0 < sigma_min < sigma_max.
    zero : bool
        Append a 0: one more step, from ``sigma_min`` to clean data.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64, or ``(n + 2,)`` with ``zero=True``.

    Raises
    ------
    ValueError, TypeError
        For n < 1, sigmas out of order or not finite.

    Examples
    --------
    >>> [round(s, 3) for s in cosine(4).tolist()]
    [80.0, 2.355, 0.99, 0.412, 0.002]
    """
    return _even(n, sigma_min, sigma_max, zero, torch.atan, torch.tan)


def time_uniform(
    n: int,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 1.0,
    zero: bool = False,
    time_min: float = 1e-3,
) -> Tensor:
    """Evenly spaced in the time of a variance-preserving process with linear beta (Song et al. 2021, arXiv 2011.13456).

    sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1, with beta_d and beta_min chosen so that
    sigma(1) = ``sigma_max`` and sigma(``time_min``) = ``sigma_min``.
    The grid of DDIM and Stable Diffusion samplers. No such process exists
    when ``sigma_min`` is large (its noise would have to jump before ``time_min``); that is a ValueError.

    Parameters
    ----------
    n : int
        Number of steps between ``sigma_max`` and ``sigma_min``.
    sigma_min, sigma_max : float
        The ends, 0 < sigma_min < sigma_max.
    rho : float
        Times are even in t^(1/rho), rho > 0.
    zero : bool
        Append a 0: one more step, from ``sigma_min`` to clean data.
    time_min : float
        Time of ``sigma_min``, between 0 and 1.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64, or ``(n + 2,)`` with ``zero=True``.

    Raises
    ------
    ValueError, TypeError
        For n < 1, sigmas out of order or not finite, rho <= 0, or ends that no such process has.

    Examples
    --------
    >>> [round(s, 3) for s in time_uniform(4).tolist()]
    [80.0, 11.734, 2.824, 0.856, 0.002]
    """
    rho = number("rho", rho, above=0)
    time_min = number("time_min", time_min, above=0, below=1)
    n, sigma_min, sigma_max = checked_range(n, sigma_min, sigma_max)
    clock = LinearBeta.between(sigma_min, sigma_max, time_min)
    if clock is None:
        raise ValueError(
            f"sigma_min = {sigma_min} is too large for time_min = {time_min}: no linear beta goes from there to "
            f"sigma_max = {sigma_max}; choose a larger time_min or another schedule"
        )
    step = torch.arange(n + 1, dtype=torch.float64) / n
    if rho <= _LARGE_RHO:
        t = (1 + step * (time_min ** (1 / rho) - 1)) ** rho
    else:  # as in `polynomial`
        t = (rho * torch.log1p(step * math.expm1(math.log(time_min) / rho))).exp()
    return finished(clock.sigma(t), sigma_min, sigma_max, zero)


def ddpm(
    n: int,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    train_steps: int = 1000,
    kind: str = "linear",
    zero: bool = False,
) -> Tensor:
    """Levels of a discrete-time model: n + 1 of the noise levels it was trained on, evenly spaced in the time index.

    Parameters
    ----------
    n : int
        Number of steps, at most ``train_steps - 1``.
    beta_start, beta_end : float
        Ends of the beta schedule: (1e-4, 0.02) for DDPM (arXiv 2006.11239); (0.00085, 0.012) with
        ``kind="scaled_linear"`` for latent diffusion (arXiv 2112.10752).
    train_steps : int
        Length of the training schedule.
    kind : {"linear", "scaled_linear"}
        Betas even in beta, or in sqrt(beta).
    zero : bool
        Append a 0.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64 (one more with ``zero``): sigma_t = sqrt((1 - abar_t) / abar_t), from the last index to
        the first.

    Raises
    ------
    ValueError, TypeError
        For betas that do not rise inside (0, 1), and numbers of steps that the training schedule does not have.

    Examples
    --------
    >>> [round(s, 3) for s in ddpm(4).tolist()]
    [157.407, 17.247, 3.443, 0.958, 0.01]
    """
    choice("kind", kind, ("linear", "scaled_linear"))
    beta_start, beta_end = number("beta_start", beta_start), number("beta_end", beta_end)
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"need 0 < beta_start <= beta_end < 1, got {beta_start!r} and {beta_end!r}")
    train_steps, n = integer("train_steps", train_steps, 1), integer("n", n, 1)
    if not n < train_steps:
        raise ValueError(f"n must be from 1 to train_steps - 1 = {train_steps - 1}, got {n!r}")
    power = 1.0 if kind == "linear" else 0.5
    beta = torch.linspace(beta_start**power, beta_end**power, train_steps, dtype=torch.float64) ** (1 / power)
    log_alphabar = torch.log1p(-beta).cumsum(0)
    sigma = torch.expm1(-log_alphabar).sqrt()
    index = torch.linspace(train_steps - 1, 0, n + 1, dtype=torch.float64).round().long()
    if not torch.isfinite(sigma).all():
        raise ValueError(f"beta_end = {beta_end} over train_steps = {train_steps} gives noise levels beyond float64")
    return with_zero(sigma[index], zero)


def flow_shift(
    n: int, shift: float = 1.0, sigma_min: float = 0.002, sigma_max: float = 80.0, zero: bool = False
) -> Tensor:
    """Evenly spaced in the shifted time of a flow-matching model (Esser et al. 2024, arXiv 2403.03206, eq. 23).

    Flow matching runs z = (1 - s) x0 + s noise, so sigma = s / (1 - s). The usual "shift" of s,
    s' = shift * s / (1 + (shift - 1) s), is simply sigma' = shift * sigma: here the grid is even in the time s that
    belongs to sigma / ``shift``. ``shift > 1`` spends more steps at large sigma.

    Parameters
    ----------
    n : int
        Number of steps between ``sigma_max`` and ``sigma_min``.
    shift : float
        Factor of sigma, > 0.
    sigma_min, sigma_max : float
        The ends, 0 < sigma_min < sigma_max.
    zero : bool
        Append a 0: one more step, from ``sigma_min`` to clean data.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64, or ``(n + 2,)`` with ``zero=True``.

    Raises
    ------
    ValueError, TypeError
        For n < 1, sigmas out of order or not finite, shift <= 0.

    Examples
    --------
    >>> [round(s, 3) for s in flow_shift(4, shift=3.0).tolist()]
    [80.0, 7.833, 2.794, 0.955, 0.002]
    """
    shift = number("shift", shift, above=0)
    return _even(n, sigma_min, sigma_max, zero, lambda s: s / (s + shift), lambda u: shift * u / (1 - u))


def _even(n: int, sigma_min: float, sigma_max: float, zero: bool, f: _Map, inverse: _Map) -> Tensor:
    """n + 1 values evenly spaced in f(sigma), with exact ends."""
    n, sigma_min, sigma_max = checked_range(n, sigma_min, sigma_max)
    high, low = f(torch.tensor([sigma_max, sigma_min], dtype=torch.float64))
    step = torch.arange(n + 1, dtype=torch.float64) / n
    return finished(inverse(high + step * (low - high)), sigma_min, sigma_max, zero)

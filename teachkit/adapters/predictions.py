"""Models trained in other coordinates, as denoisers D(x; sigma).

Every Gaussian diffusion or flow model sees z = scale * x, with x = x0 + sigma * eps the variance-exploding state of
this package, and predicts some mixture of x0 and eps. Undo both, and the same solvers run it:

    variance preserving   z = x / sqrt(1 + sigma^2)    from_eps        D = x - sigma * eps
    (DDPM, DDIM, VP)                                   from_v          D = (z - sigma * v) / sqrt(1 + sigma^2)
                                                       from_x0         D = x0
    flow matching         z = x / (1 + sigma)          from_velocity   D = z - s * velocity,  s = sigma / (1 + sigma)

The paths are the same curves up to the factor ``scale``, with the same end, though not equally straight
(arXiv 2506.10177, Lemma 4). Rectified flow, stochastic interpolants with a linear path and iterative alpha-blending
are `from_velocity`. Taught in ``notebooks/05_five_evaluations``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from teachkit.adapters.adapted import AdaptedDenoiser, Model, Time
from teachkit.checks import flag, function, number
from teachkit.schedules import trained_levels
from teachkit.schedules.linear_beta import LinearBeta

__all__ = ["from_eps", "from_v", "from_velocity", "from_x0", "time_index", "vp_time"]

Numbers: TypeAlias = Tensor | Sequence[float]


def from_eps(
    model: Model, alphas_cumprod: Numbers | None = None, *, time: Time | None = None, round_time: bool = False
) -> AdaptedDenoiser:
    """A variance-preserving model that predicts the noise, eps = (x - x0) / sigma (DDPM, arXiv 2006.11239).

    Parameters
    ----------
    model : callable
        ``model(z, t)``, or ``model(z, t, labels)`` with labels: ``z`` (B, *event) of unit scale, ``t`` (B,). An
        ``nn.Module`` runs in its own dtype; of 2 C channels for C, a learned variance beside, the first C count.
    alphas_cumprod : (T,) numbers, optional
        For a model of T training steps: their abar, decreasing inside (0, 1). Its ``t`` is the index of the step, a
        fraction between two, linear in log sigma.
    time : callable, optional
        In place of ``alphas_cumprod``: the function from sigma to the model's ``t``, for example `vp_time()`.
    round_time : bool
        Round ``t`` to the nearest whole step, for a model that looks it up in a table.

    Returns
    -------
    AdaptedDenoiser
        ``D(x, sigma, labels=None)``.

    Raises
    ------
    ValueError, TypeError
        For alphas_cumprod that do not decrease inside (0, 1); for what is not callable; unless exactly one of
        ``alphas_cumprod`` and ``time`` is given.

    Examples
    --------
    >>> D = from_eps(lambda z, t: torch.zeros_like(z), [0.9, 0.5, 0.1])
    >>> D(torch.ones(1, 2), 1.0)
    tensor([[1., 1.]])
    """
    return _preserving(model, alphas_cumprod, time, round_time, lambda x, eps, sigma: x - sigma * eps)


def from_v(
    model: Model, alphas_cumprod: Numbers | None = None, *, time: Time | None = None, round_time: bool = False
) -> AdaptedDenoiser:
    """A variance-preserving model that predicts v = (eps - sigma * x0) / sqrt(1 + sigma^2) (arXiv 2202.00512).

    A model of the trigonometric interpolant z = cos(a) x0 + sin(a) eps is one of these:
    sigma = tan(a), and v is its velocity dz/da (arXiv 2303.08797; 2410.11081): give ``time=torch.atan``.

    Parameters
    ----------
    model : callable
        ``model(z, t)``, or ``model(z, t, labels)`` with labels: ``z`` (B, *event) of unit scale, ``t`` (B,). An
        ``nn.Module`` runs in its own dtype; of 2 C channels for C, a learned variance beside, the first C count.
    alphas_cumprod : (T,) numbers, optional
        For a model of T training steps: their abar, decreasing inside (0, 1). Its ``t`` is the index of the step, a
        fraction between two, linear in log sigma.
    time : callable, optional
        In place of ``alphas_cumprod``: the function from sigma to the model's ``t``, for example ``torch.atan``.
    round_time : bool
        Round ``t`` to the nearest whole step, for a model that looks it up in a table.

    Returns
    -------
    AdaptedDenoiser
        ``D(x, sigma, labels=None)``.

    Raises
    ------
    ValueError, TypeError
        For alphas_cumprod that do not decrease inside (0, 1); for what is not callable; unless exactly one of
        ``alphas_cumprod`` and ``time`` is given.

    Examples
    --------
    >>> D = from_v(lambda z, t: torch.zeros_like(z), time=torch.atan)
    >>> D(torch.ones(1, 2), 1.0)
    tensor([[0.5000, 0.5000]])
    """

    def denoised(x: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        return _vp_scale(sigma) * (_vp_scale(sigma) * x - sigma * v)

    return _preserving(model, alphas_cumprod, time, round_time, denoised)


def from_x0(
    model: Model, alphas_cumprod: Numbers | None = None, *, time: Time | None = None, round_time: bool = False
) -> AdaptedDenoiser:
    """A variance-preserving model that predicts the clean data x0 itself.

    Parameters
    ----------
    model : callable
        ``model(z, t)``, or ``model(z, t, labels)`` with labels: ``z`` (B, *event) of unit scale, ``t`` (B,). An
        ``nn.Module`` runs in its own dtype; of 2 C channels for C, a learned variance beside, the first C count.
    alphas_cumprod : (T,) numbers, optional
        For a model of T training steps: their abar, decreasing inside (0, 1). Its ``t`` is the index of the step, a
        fraction between two, linear in log sigma.
    time : callable, optional
        In place of ``alphas_cumprod``: the function from sigma to the model's ``t``, for example `vp_time()`.
    round_time : bool
        Round ``t`` to the nearest whole step, for a model that looks it up in a table.

    Returns
    -------
    AdaptedDenoiser
        ``D(x, sigma, labels=None)``.

    Raises
    ------
    ValueError, TypeError
        For alphas_cumprod that do not decrease inside (0, 1); for what is not callable; unless exactly one of
        ``alphas_cumprod`` and ``time`` is given.

    Examples
    --------
    >>> D = from_x0(lambda z, t: torch.zeros_like(z), time=vp_time())
    >>> D(torch.ones(1, 2), 1.0)
    tensor([[0., 0.]])
    """
    return _preserving(model, alphas_cumprod, time, round_time, lambda x, x0, sigma: x0)


def from_velocity(model: Model, *, time_scale: float = 1.0, data_at_one: bool = False) -> AdaptedDenoiser:
    """A flow-matching model: z = (1 - s) x0 + s * eps, predicting the velocity dz/ds = eps - x0.

    The state is z = x / (1 + sigma) with s = sigma / (1 + sigma), from 0 at the data to 1 at the noise. Such are
    rectified flow (arXiv 2209.03003), linear stochastic interpolants (arXiv 2303.08797) and iterative alpha-blending
    (arXiv 2305.03486).

    Parameters
    ----------
    model : callable
        ``model(z, t)`` or ``model(z, t, labels)``, ``t`` of shape ``(B,)``. An ``nn.Module`` runs in its own dtype; of
        2 C channels for C, a learned variance beside, the first C count.
    time_scale : float
        The model takes ``t = time_scale * s`` (1000 for some published image models).
    data_at_one : bool
        The model's time runs the other way, from noise at 0 to data at ``time_scale``, and its velocity is x0 - eps.

    Returns
    -------
    AdaptedDenoiser
        ``D(x, sigma, labels=None)``.

    Raises
    ------
    ValueError, TypeError
        For a model that is not callable, or a time_scale that is not a number > 0.

    Examples
    --------
    >>> D = from_velocity(lambda z, t: torch.zeros_like(z))
    >>> D(torch.ones(1, 2), 1.0)
    tensor([[0.5000, 0.5000]])
    """
    time_scale = number("time_scale", time_scale, above=0)
    sign = -1 if flag("data_at_one", data_at_one) else 1

    def time(sigma: Tensor) -> Tensor:
        return time_scale * (1 if data_at_one else sigma) / (1 + sigma)

    def denoised(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
        return (x - sign * sigma * velocity) / (1 + sigma)

    return AdaptedDenoiser(model, time, lambda sigma: 1 / (1 + sigma), denoised)


def time_index(alphas_cumprod: Numbers) -> Time:
    """The function from sigma to the fractional index of a training step, linear in log sigma between steps.

    Step t was trained at sigma_t = sqrt(1 / abar_t - 1). A sigma outside the trained range gives the first or the
    last step: the model is then asked outside what it has learned, so let schedules stay within.

    Parameters
    ----------
    alphas_cumprod : (T,) numbers
        Of the training steps, decreasing inside (0, 1).

    Returns
    -------
    callable
        From sigma, a tensor, to a fractional index in [0, T - 1].

    Raises
    ------
    ValueError, TypeError
        For values that are not numbers which decrease inside (0, 1).

    Examples
    --------
    >>> time_index([0.9, 0.5, 0.1])(torch.tensor([0.2, 1.0, 2.0]))  # trained at sigma = 1/3, 1 and 3
    tensor([0.0000, 1.0000, 1.6309])
    """
    levels = trained_levels(alphas_cumprod)

    def index(sigma: Tensor) -> Tensor:
        table, at = levels.to(sigma), sigma.log()
        upper = torch.searchsorted(table, at).clamp(1, len(table) - 1)
        low, high = table[upper - 1], table[upper]
        return upper - 1 + ((at - low) / (high - low)).clamp(0, 1)

    return index


def vp_time(beta_min: float = 0.1, beta_max: float = 20.0) -> Time:
    """The function from sigma to the time of a continuous variance-preserving process (arXiv 2011.13456, Appendix C).

    beta(t) = beta_min + t (beta_max - beta_min), so log(1 + sigma^2) = beta_min t + (beta_max - beta_min) t^2 / 2.

    Parameters
    ----------
    beta_min, beta_max : float
        Noise rate at the start and at the end of the process, whose time runs from 0 to 1.

    Returns
    -------
    callable
        From sigma, a tensor, to time.

    Raises
    ------
    ValueError, TypeError
        Unless ``0 < beta_min < beta_max``, two numbers.

    Examples
    --------
    >>> vp_time()(torch.tensor([0.002, 80.0]))
    tensor([3.9842e-05, 9.3351e-01])
    """
    beta_min, beta_max = number("beta_min", beta_min, above=0), number("beta_max", beta_max)
    if not beta_min < beta_max:
        raise ValueError(f"need 0 < beta_min < beta_max, got {beta_min!r} and {beta_max!r}")
    return LinearBeta(beta_min, beta_max - beta_min).time


def _vp_scale(sigma: Tensor) -> Tensor:
    return (1 + sigma**2).rsqrt()


def _preserving(
    model: Callable[..., Tensor], alphas_cumprod: Any, time: Any, round_time: bool, denoised: Callable[..., Tensor]
) -> AdaptedDenoiser:
    """A variance-preserving model, its t from whichever of the two arguments was given."""
    if (alphas_cumprod is None) == (time is None):
        raise ValueError("give exactly one of alphas_cumprod (a discrete-time model) and time (a function of sigma)")
    levels = (0.0, math.inf)
    if time is None:
        time, trained = time_index(alphas_cumprod), trained_levels(alphas_cumprod).exp()
        levels = float(trained[0]), float(trained[-1])
    function("time", time, "time(sigma)")
    clock = (lambda sigma: time(sigma).round()) if flag("round_time", round_time) else time
    return AdaptedDenoiser(model, clock, _vp_scale, denoised, levels)

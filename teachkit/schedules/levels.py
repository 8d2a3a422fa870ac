"""Levels in general: what a schedule is checked for, and how one is stretched to another number of steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from teachkit.checks import as_real, flag, integer, number, shown, torch_array


def validate(sigmas: Tensor | Sequence[float]) -> Tensor:
    """Check a schedule and return a copy of it as a float64 tensor on the CPU.

    Parameters
    ----------
    sigmas : (N+1,)
        Noise levels; only the last may be 0.

    Returns
    -------
    Tensor
        ``(N+1,)`` float64.

    Raises
    ------
    TypeError
        If ``sigmas`` is not a tensor, array or sequence of numbers.
    ValueError
        If it is not 1-D, has fewer than two values, or is not finite, non-negative and strictly decreasing.

    Examples
    --------
    >>> validate([80, 1.5, 0])
    tensor([80.0000,  1.5000,  0.0000], dtype=torch.float64)
    """
    try:
        given = torch.as_tensor(torch_array(sigmas))
        if given.is_complex():
            raise TypeError("complex numbers")
        out = torch.as_tensor(torch_array(sigmas), dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"sigmas must be a 1-D tensor or a list of numbers, got {type(sigmas).__name__}") from error
    if out.ndim != 1 or len(out) < 2:
        raise ValueError(f"sigmas must be 1-D with at least 2 values, got shape {tuple(out.shape)}")
    if not torch.isfinite(out).all():
        raise ValueError(f"sigmas must be finite, got {out.tolist()}")
    if (out < 0).any():
        raise ValueError(f"sigmas must not be negative, got {out[out < 0][0].item()}")
    if not (out[1:] < out[:-1]).all():
        i = int((out[1:] >= out[:-1]).nonzero()[0])
        raise ValueError(
            f"sigmas must be strictly decreasing, got sigmas[{i}] = {out[i].item()} before "
            f"sigmas[{i + 1}] = {out[i + 1].item()}"
        )
    return out


def interpolate(sigmas: Tensor | Sequence[float], n: int) -> Tensor:
    """Resample a schedule to ``n`` steps, linearly in log sigma against the step index.

    The way published short lists (Align Your Steps, arXiv 2404.14507) are stretched to other step counts. A trailing
    0 is kept as the last step.

    Parameters
    ----------
    sigmas : (N+1,) tensor or list
        A valid schedule.
    n : int
        Number of steps wanted.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64 on the CPU, with the same ends.

    Raises
    ------
    ValueError, TypeError
        For what is not a schedule, and fewer steps than it takes to keep its ends.

    Examples
    --------
    >>> [round(s, 3) for s in interpolate([16.0, 4.0, 1.0, 0.0], 5).tolist()]
    [16.0, 8.0, 4.0, 2.0, 1.0, 0.0]
    """
    sigmas = validate(sigmas)
    zero = bool(sigmas[-1] == 0)
    positive = sigmas[:-1] if zero else sigmas
    n = integer("n", n, 1)
    inner = n - zero
    if inner < 1:
        raise ValueError(f"n must be at least 2 steps for a schedule that ends at 0, got {n}")
    if len(positive) < 2:
        raise ValueError("sigmas must hold at least two positive values to interpolate between")
    at = torch.linspace(0, len(positive) - 1, inner + 1, dtype=torch.float64)
    left = at.floor().long().clamp(max=len(positive) - 2)
    log = positive.log()
    out = torch.lerp(log[left], log[left + 1], at - left).exp()
    return finished(out, float(positive[-1]), float(positive[0]), zero)


def trained_levels(alphas_cumprod: Tensor | Sequence[float]) -> Tensor:
    """Logarithms of the noise levels that a model of discrete steps was trained at.

    At step t its state is sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, so sigma_t = sqrt(1 / abar_t - 1)
    (arXiv 2006.11239, with the scaling of arXiv 2206.00364).

    Parameters
    ----------
    alphas_cumprod : (T,)
        abar_1 > abar_2 > … of the training steps, T >= 2 numbers inside (0, 1).

    Returns
    -------
    Tensor
        ``(T,)`` float64 on the CPU, increasing: log sigma of each step.

    Raises
    ------
    ValueError, TypeError
        For what is no such list of numbers.

    Examples
    --------
    >>> trained_levels([0.9, 0.5, 0.1]).exp()
    tensor([0.3333, 1.0000, 3.0000], dtype=torch.float64)
    """
    if callable(alphas_cumprod) and not isinstance(alphas_cumprod, Tensor):
        raise TypeError("alphas_cumprod must be the numbers abar of the training steps; a function of sigma is time=")
    abar = as_real("alphas_cumprod", alphas_cumprod, torch.float64).detach().cpu().double()
    if abar.ndim != 1 or len(abar) < 2 or not bool(((abar > 0) & (abar < 1)).all()):
        raise ValueError(
            f"alphas_cumprod must be 1-D with at least two numbers inside (0, 1), got {shown(alphas_cumprod)}"
        )
    if not bool((abar.diff() < 0).all()):
        raise ValueError("alphas_cumprod must decrease from step to step")
    return 0.5 * (torch.log1p(-abar) - abar.log())


def checked_range(n: int, sigma_min: float, sigma_max: float) -> tuple[int, float, float]:
    """A number of steps and the ends of a schedule, if they are fit for one."""
    n = integer("n", n, 1)
    low, high = number("sigma_min", sigma_min), number("sigma_max", sigma_max)
    if not 0 < low < high:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min!r} and {sigma_max!r}")
    return n, low, high


def finished(sigmas: Tensor, sigma_min: float, sigma_max: float, zero: bool) -> Tensor:
    """Levels with exact ends, and a 0 after them if asked for; refused where rounding has made two of them equal."""
    sigmas[0], sigmas[-1] = sigma_max, sigma_min  # exact ends, whatever f rounds to
    if not (torch.isfinite(sigmas).all() and (sigmas[1:] < sigmas[:-1]).all()):
        raise ValueError(
            f"n = {len(sigmas) - 1} steps from sigma_max = {sigma_max} to sigma_min = {sigma_min} cannot be told apart "
            "in float64 with these options; take fewer steps, a wider range or a milder rho or shift"
        )
    return with_zero(sigmas, zero)


def with_zero(sigmas: Tensor, zero: bool) -> Tensor:
    """Levels, and a 0 after them if asked for."""
    return torch.cat([sigmas, sigmas.new_zeros(1)]) if flag("zero", zero) else sigmas

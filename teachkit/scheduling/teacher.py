"""The teacher that every search follows: its paths in many steps, its states at any level, and where its levels end."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from teachkit import schedules
from teachkit.checks import as_real, function, number, shown
from teachkit.checks import batch as check_batch
from teachkit.denoisers import Denoiser
from teachkit.sampling import Labels, Trajectory
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.costs import whole
from teachkit.scheduling.meter import Meter, check_progress
from teachkit.scheduling.planned import Planned

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # where schedules end that nobody and no model says otherwise of


def teacher_paths(
    denoiser: Denoiser,
    x: Tensor,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    *,
    labels: Labels | None = None,
    guidance: float | None = None,
    dynamic_threshold: float | None = None,
    batch: int | None = None,
    grid: int = 60,
    file: str | os.PathLike[str] | None = None,
    progress: bool | str = False,
) -> Trajectory:
    """The teacher's paths: many steps of UniPC on the polynomial schedule.

    Parameters
    ----------
    denoiser : callable
        The model.
    x : (B, *event)
        Noise at ``sigma_max``.
    sigma_min, sigma_max : float, optional
        Ends of the levels; by default 0.002 and 80, or the model's own (its attributes of these names) where it was
        trained on less.
    labels : (B,), (B, K) or dict of (B, ...), optional
        Classes, or whatever the model is conditioned on, one entry per sample.
    guidance : float, optional
        Classifier-free guidance scale, as for `teachkit.sample`.
    dynamic_threshold : float, optional
        Percentile to which outputs are clipped, as for `teachkit.sample`.
    batch : int, optional
        Samples that the model sees at a time; all by default. With it x, and so the paths, may lie on the CPU while
        the model is on a GPU.
    grid : int
        Number of steps.
    file : path, optional
        Where paths are kept as they come (.safetensors, which `Trajectory.load` reads too): after each batch, or each
        eighth of the samples. What is there of the same model, noise, levels, labels, guidance and threshold is not
        computed again, so that after an interruption the same call goes on.
    progress : bool or "cost"
        Show a progress bar over the evaluations, and say how many there are and how long they will take; "cost": only
        say it, in one line on the error output.

    Returns
    -------
    Trajectory
        Kept whole.

    Raises
    ------
    ValueError, TypeError
        For ends outside the model's range, bad arguments of `teachkit.sample`, a file that holds other paths, or a
        model that cannot be told from others, whose paths cannot be kept.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise
    >>> teacher = teacher_paths(Gaussian([0.0, 1.0], [0.2, 0.4]), initial_noise(8, (2,)), grid=20)
    >>> teacher.x.shape, teacher.nfe
    (torch.Size([21, 8, 2]), 20)
    """
    function("denoiser", denoiser, "D(x, sigma)")
    how = Conditions(labels, guidance, dynamic_threshold, batch)
    planned = plan(denoiser, x, (sigma_min, sigma_max), grid, how, file, "file")
    with Meter(planned.cost, planned.cost, check_progress(progress)) as meter:
        return planned.run(meter)


def plan(
    denoiser: Denoiser,
    x: Tensor,
    ends: tuple[float | None, float | None],
    grid: int,
    how: Conditions,
    file: str | os.PathLike[str] | None = None,
    name: str = "teacher",
) -> Planned:
    """The teacher's paths, checked and not yet computed; ``name`` is what errors call the file."""
    low, high = level_range(denoiser, *ends, x)
    levels = schedules.polynomial(grid, low, high)
    how.check(denoiser, check_batch("x", x))
    return Planned(denoiser, x, levels, how, file, name)


def level_range(
    denoiser: Denoiser, sigma_min: float | None = None, sigma_max: float | None = None, x: Tensor | None = None
) -> tuple[float, float]:
    """Ends of the schedules for a model: those asked for, or 0.002 and 80 as far as the model was trained there.

    Raises a ValueError where an end lies outside the model's ``sigma_min`` and ``sigma_max``, and where ``x``, the
    noise to start from, is that of another level than the model's own largest.
    """
    own_low, own_high = (getattr(denoiser, name, None) for name in ("sigma_min", "sigma_max"))
    least = float(own_low) if isinstance(own_low, int | float) else 0.0
    most = float(own_high) if isinstance(own_high, int | float) else math.inf
    low = max(SIGMA_MIN, least) if sigma_min is None else number("sigma_min", sigma_min)
    high = min(SIGMA_MAX, most) if sigma_max is None else number("sigma_max", sigma_max)
    # A model's ends were often computed in single precision, and so are the ends that one copies from it.
    for name, value in (("sigma_min", low), ("sigma_max", high)):
        if not least * (1 - 1e-5) <= value <= most * (1 + 1e-5):
            raise ValueError(
                f"{name} must lie within the levels that the model was trained on, {least:.4g} to {most:.4g}, "
                f"got {value:.4g}"
            )
    if x is not None and sigma_max is None and high < SIGMA_MAX:
        size = float(check_batch("x", x).detach().double().square().mean().sqrt())
        if not 0.5 * high < size < 2 * high:
            raise ValueError(
                f"x must be noise at sigma_max, here the model's own largest level, {high:.4g}; "
                f"got numbers of root mean square {size:.4g}"
            )
    return low, high


def states_at(teacher: Trajectory, sigmas: Tensor, rows: slice = slice(None)) -> Tensor:
    """The teacher's states at other levels, by cubic interpolation in sigma between its own.

    The direction (x - D) / sigma is the derivative of the path, so each piece is the cubic with the states and
    directions at its ends; at the last level, where none was evaluated, the quadratic through what is there.

    Parameters
    ----------
    teacher : Trajectory
        Paths, kept whole.
    sigmas : (M+1,)
        Levels within the teacher's.
    rows : slice
        Samples of the batch.

    Returns
    -------
    Tensor
        ``(M+1, b, *event)``.

    Raises
    ------
    ValueError, TypeError
        For a teacher without its path, levels outside the teacher's, and rows that are not a slice.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise
    >>> teacher = teacher_paths(Gaussian([0.0, 1.0], [0.2, 0.4]), initial_noise(8, (2,)), grid=20)
    >>> states_at(teacher, [80.0, 1.0, 0.002]).shape
    torch.Size([3, 8, 2])
    """
    whole(teacher)
    levels = as_real("sigmas", sigmas)
    if levels.ndim != 1 or levels.numel() == 0:
        raise ValueError(f"sigmas must hold one or more levels (M+1,), got shape {tuple(levels.shape)}")
    high, low = float(teacher.sigmas[0]), float(teacher.sigmas[-1])
    if not bool(((levels <= high * (1 + 1e-9)) & (levels >= low * (1 - 1e-9))).all()):
        raise ValueError(
            f"sigmas must lie within the levels of the teacher, {low:.4g} to {high:.4g}, got {shown(levels)}"
        )
    if not isinstance(rows, slice):
        raise TypeError(f"rows must be a slice of the batch, got {shown(rows)}")
    return interpolated(teacher, levels, rows)


def interpolated(teacher: Trajectory, sigmas: Tensor, rows: slice) -> Tensor:
    """`states_at` of arguments that were found fit."""
    own, x, denoised = teacher.sigmas.tolist(), teacher.x[:, rows], teacher.denoised[:, rows]
    states = []
    for level in sigmas.tolist():
        i = min(max(sum(s > level * (1 + 1e-12) for s in own), 1), len(own) - 1)  # between own[i - 1] and own[i]
        high, low = own[i - 1], own[i]
        t, slope = (level - high) / (low - high), (x[i - 1] - denoised[i - 1]) / high * (low - high)
        rise = x[i] - x[i - 1]
        if i < len(denoised):
            slope_low = (x[i] - denoised[i]) / low * (low - high)
            bend = t**2 * (3 - 2 * t) * rise + t * (1 - t) ** 2 * slope - t**2 * (1 - t) * slope_low
        else:
            bend = t * slope + t**2 * (rise - slope)
        states.append(x[i - 1] + bend)
    return torch.stack(states)

"""What every search on warm-up noise shares: the range of levels, the teacher, what is judged and what is recorded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from teachkit import schedules
from teachkit.checks import batch, choice, function, number
from teachkit.denoisers import Denoiser
from teachkit.fingerprints import fingerprint
from teachkit.sampling import Trajectory, check_labels, sample
from teachkit.scheduling.costs import whole
from teachkit.scheduling.refine import OBJECTIVES, sample_errors

TEACHER = "unipc"  # the most accurate at 60 evaluations of those that were tried on digits, mixtures and networks
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # where schedules end that nobody and no model says otherwise of


def teacher_paths(
    denoiser: Denoiser,
    x: Tensor,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    *,
    labels: Tensor | None = None,
    guidance: float | None = None,
    grid: int = 60,
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
    labels : optional
        For a conditional model, as for `teachkit.sample`.
    guidance : float, optional
        Classifier-free guidance scale, as for `teachkit.sample`.
    grid : int
        Number of steps.

    Returns
    -------
    Trajectory
        Kept whole.

    Raises
    ------
    ValueError, TypeError
        For ends outside the model's range, and bad arguments of `teachkit.sample`.
    """
    low, high = level_range(denoiser, sigma_min, sigma_max, x)
    levels = schedules.polynomial(grid, low, high)
    return sample(denoiser, x, levels, TEACHER, labels=labels, guidance=guidance)


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
        size = float(batch("x", x).detach().double().square().mean().sqrt())
        if not 0.5 * high < size < 2 * high:
            raise ValueError(
                f"x must be noise at sigma_max, here the model's own largest level, {high:.4g}; "
                f"got numbers of root mean square {size:.4g}"
            )
    return low, high


def check_warm_up(
    denoiser: Denoiser,
    x: Tensor,
    budget: float,
    teacher: Trajectory | None,
    labels: Tensor | None = None,
    guidance: float | None = None,
    objective: str = "mean",
) -> None:
    """What every search on warm-up noise asks of its arguments."""
    function("denoiser", denoiser, "D(x, sigma)")
    if len(batch("x", x)) < 8:
        raise ValueError(f"x must hold at least 8 warm-up samples (B, *event), got shape {tuple(x.shape)}")
    number("budget", budget, above=1)
    choice("objective", objective, OBJECTIVES)
    check_labels(x, labels, guidance)
    if teacher is not None:
        whole(teacher)
        if teacher.x.shape[1:] != x.shape or not torch.equal(teacher.x[0], x):
            raise ValueError("teacher must start from x")
        if not float(teacher.sigmas[-1]) > 0:
            raise ValueError("teacher must end above 0, where the schedules to be compared end")


def calls(guidance: float | None) -> int:
    """How often the model is called for one evaluation: guidance also asks it without labels."""
    return 1 if guidance is None or guidance == 1 else 2


def elsewhere(gap: Tensor, ends: Tensor, sigma: float, rows: slice = slice(None)) -> Tensor:
    """Which samples end elsewhere: nearer to where the teacher takes another sample than to where it takes this one.

    ``gap`` (b, d) are the final samples minus the teacher's, of the samples ``rows``; ``ends`` (B, *event) are the
    teacher's at the last level ``sigma``. The answer is (b,) booleans. Ends that differ by no more than the noise left
    in them, as those at one picture of a data set do, are the same.
    """
    ends = ends.detach().flatten(1).cpu().double()
    own, gap = ends[rows], gap.flatten(1).cpu().double()
    noise_left = 3 * math.sqrt(2 * ends.shape[1]) * sigma
    other = _distances(own, ends) > noise_left
    nearest = _distances(own + gap, ends).masked_fill(~other, math.inf).amin(1)
    return nearest < torch.linalg.vector_norm(gap, dim=1)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """From every row to every row, from differences: products would lose the digits of near ones."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def provenance(
    method: str,
    denoiser: Denoiser,
    labels: Tensor | None,
    guidance: float | None,
    objective: str,
    teacher: Trajectory,
    evaluations: int,
    gap: Tensor,
    rows: slice,
) -> dict[str, Any]:
    """How a schedule was found and how well it does: what `Schedule.provenance` holds.

    ``gap`` (b, d) are the final samples minus the teacher's, of the judging samples ``rows``.
    """
    count = teacher.x.shape[1]
    return {
        "method": method,
        "objective": objective,
        "model": _identity(denoiser),
        "labels": _label_counts(labels),
        "guidance": guidance,
        "warm_up": count,
        "teacher": f"{teacher.nfe} evaluations on {len(teacher.sigmas) - 1} steps",
        "evaluations": evaluations,
        "teacher_evaluations": teacher.nfe * count,
        "rms_error": float(sample_errors(gap).square().mean().sqrt()),
        "ends_elsewhere": float(elsewhere(gap, teacher.final, float(teacher.sigmas[-1]), rows).double().mean()),
    }


def _identity(denoiser: Denoiser) -> dict[str, str | None]:
    """What kind of model it is, and the first digits of the fingerprint of all that it computes with.

    None stands for a fingerprint where something in the model cannot be told apart from others.
    """
    kind = denoiser if isinstance(denoiser, type) or hasattr(denoiser, "__qualname__") else type(denoiser)
    try:
        return {"type": kind.__qualname__, "fingerprint": fingerprint(denoiser)[:16]}
    except Exception:  # whatever a stranger's model holds: a record is no reason to lose a finished search
        return {"type": kind.__qualname__, "fingerprint": None}


def _label_counts(labels: Tensor | None) -> dict[str, int] | str | None:
    """How many warm-up samples were of each class; of labels that are not classes, only their form."""
    if labels is None:
        return None
    if labels.ndim != 1 or labels.is_floating_point():
        return f"shape {tuple(labels.shape)}"
    classes, counts = labels.unique(return_counts=True)
    return {str(c): n for c, n in zip(classes.tolist(), counts.tolist())}

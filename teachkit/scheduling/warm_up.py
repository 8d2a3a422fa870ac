"""What every search on warm-up noise shares: what it asks for, its two parts, what it spends and what it records."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from teachkit import schedules
from teachkit.checks import batch, choice, function, number, shown
from teachkit.denoisers import Denoiser
from teachkit.fingerprints import fingerprint
from teachkit.sampling import Trajectory
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.costs import whole
from teachkit.scheduling.meter import Meter
from teachkit.scheduling.planned import Planned
from teachkit.scheduling.refine import OBJECTIVES, sample_errors
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.teacher import plan
from teachkit.solvers import Solver


def check_warm_up(denoiser: Denoiser, x: Tensor, budget: float, objective: str, how: Conditions) -> None:
    """What every search on warm-up noise asks of its arguments."""
    function("denoiser", denoiser, "D(x, sigma)")
    if len(batch("x", x)) < 8:
        raise ValueError(f"x must hold at least 8 warm-up samples (B, *event), got shape {tuple(x.shape)}")
    number("budget", budget, above=1)
    choice("objective", objective, OBJECTIVES)
    how.check(denoiser, x)


def the_teacher(
    denoiser: Denoiser,
    x: Tensor,
    teacher: Trajectory | str | os.PathLike[str] | None,
    ends: tuple[float | None, float | None],
    grid: int,
    how: Conditions,
) -> Trajectory | Planned:
    """The teacher's paths that are given, or that are to be computed and kept in the file that is given.

    ``ends`` are the sigma_min and sigma_max asked for.
    """
    if teacher is None or isinstance(teacher, str | os.PathLike):
        return plan(denoiser, x, ends, grid, how, teacher)
    if not isinstance(teacher, Trajectory):
        raise TypeError(f"teacher must be a Trajectory or a path, got {shown(teacher)}")
    whole(teacher)
    if teacher.x.shape[1:] != x.shape or not torch.equal(teacher.x[0], x):
        raise ValueError("teacher must start from x")
    if not float(teacher.sigmas[-1]) > 0:
        raise ValueError("teacher must end above 0, where the schedules to be compared end")
    check_ends("teacher", teacher.sigmas, *ends)
    return teacher


def check_ends(name: str, sigmas: Tensor, sigma_min: float | None, sigma_max: float | None) -> None:
    """Raise a ValueError where ends are asked for beside levels, called ``name``, that have others."""
    for end, asked, own in (("sigma_min", sigma_min, float(sigmas[-1])), ("sigma_max", sigma_max, float(sigmas[0]))):
        if asked is not None and not math.isclose(number(end, asked), own, rel_tol=1e-5):
            raise ValueError(f"{end} must be left out, or be that of {name}, {own:.4g}, got {asked:.4g}")


def levels_to_begin_with(start: Schedule | str, steps: int, teacher: Tensor) -> Tensor:
    """The levels of a schedule found before, or of a usual grid, of so many steps between the teacher's ends."""
    high, low = teacher[[0, -1]].tolist()
    if isinstance(start, str):
        make = schedules.REGISTRY[choice("start", start, tuple(schedules.REGISTRY))]
        return make(steps, sigma_min=low, sigma_max=high)
    if not isinstance(start, Schedule):
        raise TypeError(f"start must be a Schedule or the name of a usual grid, got {shown(start)}")
    if len(start.sigmas) != steps + 1:
        raise ValueError(f"start must have {steps} steps, got {len(start.sigmas) - 1}")
    check_ends("start", start.sigmas, low, high)
    return start.sigmas


class WarmUp:
    """A model on warm-up noise, beside its teacher: a share of the samples to fit to, the rest to judge by.

    ``nfe`` is what one sample costs the student. All evaluations are counted, the teacher's included, and shown in a
    progress bar; they are kept to ``budget`` times the teacher's by asking what can be afforded. The teacher's paths
    are computed here if they are not there yet.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        teacher: Trajectory | Planned,
        nfe: int,
        fit_share: float,
        how: Conditions | None = None,
        objective: str = "mean",
        budget: float = 3.0,
        progress: bool | str = False,
    ) -> None:
        self.denoiser, self.how, self.nfe, self.objective = denoiser, how or Conditions(), nfe, objective
        self.calls = self.how.calls(denoiser)
        self.teacher_cost = teacher.nfe * teacher.x.shape[1] if isinstance(teacher, Trajectory) else teacher.cost
        self.meter = Meter(round(budget * self.teacher_cost), self.teacher_cost, progress)
        self.teacher = self._followed(teacher)
        self.x = self.teacher.x[0]
        fitted_to = int(fit_share * len(self.x))
        self.fit, self.judges = slice(0, fitted_to), slice(fitted_to, len(self.x))

    def __enter__(self) -> WarmUp:
        return self

    def __exit__(self, *_: object) -> None:
        self.meter.bar.close()

    def _followed(self, teacher: Trajectory | Planned) -> Trajectory:
        """The teacher's paths, computed if need be."""
        if isinstance(teacher, Trajectory):
            self.meter.known(self.teacher_cost)
            return teacher
        try:
            return teacher.run(self.meter)
        except BaseException:
            self.meter.bar.close()
            raise

    @property
    def spent(self) -> int:
        """Evaluations so far, the teacher's included."""
        return self.meter.spent

    def gap(self, sigmas: Tensor, solver: Solver, rows: slice) -> Tensor:
        """The student's final samples minus the teacher's, (b, d) float64."""
        path = self.how.of(rows).sample(self.denoiser, self.x[rows], sigmas, solver, keep="final")
        self.meter(path.nfe * len(path.final))
        return (path.final - self.teacher.final[rows]).flatten(1).double()

    def evaluator(self, rows: slice) -> Callable[[Tensor, float], Tensor]:
        """The model under the conditions of these samples, counted."""
        model = self.how.of(rows).evaluator(self.denoiser)

        def evaluate(y: Tensor, sigma: float) -> Tensor:
            before, denoised = model.nfe, model(y, sigma)
            self.meter((model.nfe - before) * len(y))
            return denoised

        return evaluate

    def afford(self, share: float, trials: float, most: int = 1, judgings: int = 1) -> tuple[slice, int]:
        """Samples to fit to, and rounds of ``trials`` (``most`` at most), for a share of what is left to spend.

        So many runs of the samples that judge as are to come are not for sharing. Samples give way to rounds, to 8;
        then rounds do, down to none.
        """
        once, left = self.nfe * self.calls, self.meter.limit - self.meter.spent
        pays = share * (left / once - judgings * len(self.x[self.judges])) / trials
        least = min(8, self.fit.stop)
        rounds = max(0, min(most, int(pays / least)))
        return slice(0, max(least, min(self.fit.stop, int(pays / max(1, rounds))))), rounds

    def record(self, method: str, gap: Tensor) -> dict[str, Any]:
        """How a schedule was found and how well it does: what `Schedule.provenance` holds.

        ``gap`` (b, d) are the final samples minus the teacher's, of the samples that judge.
        """
        teacher = self.teacher
        away = elsewhere(gap, teacher.final, float(teacher.sigmas[-1]), self.judges)
        return {
            "method": method,
            "objective": self.objective,
            "model": _identity(self.denoiser),
            **self.how.record(self.denoiser),
            "warm_up": len(self.x),
            "teacher": f"{teacher.nfe} evaluations on {len(teacher.sigmas) - 1} steps",
            "evaluations": self.spent,
            "teacher_evaluations": self.teacher_cost,
            "rms_error": float(sample_errors(gap).square().mean().sqrt()),
            "ends_elsewhere": float(away.double().mean()),
        }


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


def _identity(denoiser: Denoiser) -> dict[str, str | None]:
    """What kind of model it is, and the first digits of the fingerprint of all that it computes with.

    None stands for a fingerprint where something in the model cannot be told apart from others.
    """
    kind = denoiser if isinstance(denoiser, type) or hasattr(denoiser, "__qualname__") else type(denoiser)
    try:
        return {"type": kind.__qualname__, "fingerprint": fingerprint(denoiser)[:16]}
    except Exception:  # whatever a stranger's model holds: a record is no reason to lose a finished search
        return {"type": kind.__qualname__, "fingerprint": None}

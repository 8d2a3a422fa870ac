"""Fitting a multistep solver to the paths of a model, and levels and weights together.

All paths have nearly one shape, so what is learned on a few warm-up paths holds for all. ``fit_solver`` rolls the
student out and solves one small least-squares problem a step for its weights (``teachkit.scheduling.fitted``); the
teacher's states between its own levels come from cubic interpolation, so that any levels can be fitted without
further evaluations by the teacher. Given a number of steps, it looks for the levels too: they move by Gauss-Newton
steps in log sigma, the weights being solved again at every trial. Then the weights are solved for so that each step is
right one Euler step later, and at last they move together towards the smallest error at the end point. Each of these
is kept only where it is better on warm-up noise that took no part.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import torch
from torch import Tensor

from teachkit import schedules, solvers
from teachkit.checks import as_real, flag, integer, shown
from teachkit.denoisers import Denoiser
from teachkit.progress import tqdm
from teachkit.sampling import Evaluator, Trajectory, sample
from teachkit.scheduling.costs import cost_matrix, whole
from teachkit.scheduling.dynamic_programme import shortest_path
from teachkit.scheduling.fitted import FittedMultistep, fit_weights
from teachkit.scheduling.refine import refine_levels, refine_numbers, sample_errors, score
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.search import usual_levels
from teachkit.scheduling.warm_up import calls, check_warm_up, level_range, provenance, teacher_paths

_RIDGES = (1e-3, 1e-1)
_TRIED = 24  # warm-up samples on which starting levels are compared, at least
_ENOUGH = 1024  # samples for a handful of weights; further ones had better judge
_ROUNDS = 2  # of looking ahead; better than one on the digits
_SHARE_AHEAD = 0.3  # of the budget for it


def fit_solver(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor | int,
    order: int = 3,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    labels: Tensor | None = None,
    guidance: float | None = None,
    objective: str = "mean",
    grid: int = 60,
    budget: float = 3.0,
    teacher: Trajectory | None = None,
    refine: bool = True,
    progress: bool = False,
) -> tuple[FittedMultistep, Schedule]:
    """Fit multistep weights to the paths of a model on warm-up noise, and the levels too if only their number is given.

    Parameters
    ----------
    denoiser : callable
        The model.
    x : (B, *event)
        Warm-up noise at the first level, B >= 8. A third or more is kept apart to judge.
    sigmas : (N+1,) or int
        The schedule that will be used, ending above 0; or the number of steps N (one evaluation each, which with
        guidance calls the model twice), and the levels are found as well.
    order : int
        Directions combined at a step, 1 to 4; 2 has most of the gain, 3 nearly all.
    sigma_min, sigma_max : float, optional
        Ends of the schedule, where ``sigmas`` is a number; by default 0.002 and 80, or the model's own (its attributes
        of these names) where it was trained on less.
    labels : (B, ...), optional
        Classes of the warm-up samples.
    guidance : float, optional
        Classifier-free guidance scale, as for `teachkit.sample`: the best levels depend on it.
    objective : {"mean", "rms"}
        Error that is made small: the mean over samples, or the root mean square, in which the few samples that end
        elsewhere than the teacher's count most.
    grid : int
        Steps of the teacher.
    budget : float
        Limit of all evaluations, the teacher's included, as a multiple of the teacher's. Trying the starting levels,
        and fitting once with each ridge, is done whatever it costs: on few samples and for many steps more than the
        limit.
    teacher : Trajectory, optional
        The teacher's paths from ``x``, if they are there already (`teacher_paths`).
    refine : bool
        Also move levels (if they are free) and weights by Gauss-Newton steps; without, weights are solved for once.
    progress : bool
        Show a progress bar over the evaluations.

    Returns
    -------
    solver : FittedMultistep
        For `teachkit.sample`, on exactly the levels of the schedule.
    schedule : Schedule
        The levels with the weights, to be saved; the error on the samples kept apart is in it, and its ``provenance``
        is as that of `find_schedule`.

    Raises
    ------
    ValueError
        For levels that are not a schedule, end at 0 or leave the model's range, an order outside 1 to 4, too few
        samples.
    """
    solvers.base.check_choice("order", order, (1, 2, 3, 4))
    check_warm_up(denoiser, x, budget, teacher, labels, guidance, objective)
    levels: Tensor | None = None
    if isinstance(sigmas, int | numbers.Number):
        sigmas = steps = integer("sigmas, a number of steps,", sigmas, 2)
    else:
        levels = schedules.validate(sigmas)
        sigma_max, sigma_min = float(levels[0]), float(levels[-1])
        if sigma_min == 0:
            raise ValueError("sigmas must end above 0 to fit weights")
        level_range(denoiser, sigma_min, sigma_max)
        steps = len(levels) - 1
    if teacher is None:
        grid = max(integer("grid", grid, 1), steps)
        teacher = teacher_paths(denoiser, x, sigma_min, sigma_max, labels=labels, guidance=guidance, grid=grid)
    if levels is not None:
        _check_within(levels, teacher)
    with tqdm(
        total=round(budget * teacher.nfe * len(x)), unit="eval", disable=not flag("progress", progress), leave=False
    ) as bar:
        fit = _Fit(denoiser, x, labels, teacher, order, bar, guidance, objective)
        best = fit.run(levels, steps, budget if flag("refine", refine) else 0.0)
    found = provenance(
        f"{best.name}, order {order}", denoiser, labels, guidance, objective, teacher, fit.spent, best.gap, fit.apart
    )
    error = float(sample_errors(best.gap).mean())
    schedule = Schedule(best.sigmas, FittedMultistep.name, steps, {"weights": best.weights}, error, found)
    return FittedMultistep(best.weights, best.sigmas), schedule


class _Fitted:
    """Levels with their weights; how far off the samples kept apart end with them, and the objective of that."""

    gap: Tensor
    error: float = math.inf

    def __init__(self, name: str, sigmas: Tensor, weights: list[list[float]]) -> None:
        self.name, self.sigmas, self.weights = name, sigmas, weights


class _Fit:
    """Fits on the first two thirds of the warm-up samples, or as many as are enough, judged on the rest."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        labels: Tensor | None,
        teacher: Trajectory,
        order: int,
        bar: tqdm,
        guidance: float | None = None,
        objective: str = "mean",
    ) -> None:
        self.denoiser, self.x, self.labels, self.guidance = denoiser, x, labels, guidance
        self.teacher, self.order, self.bar, self.objective = teacher, order, bar, objective
        self.rows = slice(0, min(len(x) - len(x) // 3, _ENOUGH))
        self.apart = slice(self.rows.stop, len(x))
        self.spent = 0
        self._count(teacher.nfe * len(x))
        self.teacher_cost = self.spent

    def run(self, levels: Tensor | None, steps: int, budget: float) -> _Fitted:
        """Starting levels or refined ones; weights as they are, with ridge, looking ahead or polished: the best."""
        beyond = max(budget - 1, 0.0) * self.spent  # calls of the model that may be spent beside the teacher's
        once = steps * calls(self.guidance)  # what a sample costs
        starts = {"given levels": levels} if levels is not None else self._starts(steps)
        tried = max(_TRIED, int(0.1 * beyond / (len(starts) * once)))
        name, start = self._nearest(starts, slice(0, min(tried, self.rows.stop)))
        rows_ahead, _ = self._share(_SHARE_AHEAD * beyond, once * (1 + _ROUNDS * (self.order + 2)), 1)
        whole = once * len(self.x)  # to fit once and judge once
        room = ((1 - _SHARE_AHEAD) * beyond - self.spent + self.teacher_cost - 4.5 * whole) / 2
        candidates = [(name, start)]
        if levels is None:
            rows, trials = self._share(room, once, 3 * steps + 8)
            if trials > steps + 1:
                moved = refine_levels(lambda s: self._refit_gap(s, rows), start, trials, self.objective)
                candidates.append((f"{name}, levels moved", moved))
        best = min((self._fitted(label, s, 1e-12) for label, s in candidates), key=lambda f: f.error)
        more = [self._fitted(f"{best.name}, ridge {r:g}", best.sigmas, r) for r in (_RIDGES if self.order > 1 else ())]
        if beyond > 0 and steps > 2:
            more.append(self._fitted(f"{best.name}, looking ahead", best.sigmas, 1e-12, rows_ahead, _ROUNDS))
        best = min([best, *more], key=lambda f: f.error)
        count = sum(map(len, best.weights))
        rows, trials = self._share(room if levels is None else 2 * room, once, count + 12)
        if trials > count + 2:
            best = min([best, self._polished(best, rows, trials)], key=lambda f: f.error)
        return best

    def _nearest(self, starts: dict[str, Tensor], rows: slice) -> tuple[str, Tensor]:
        """The starting levels with the smallest error, weights being fitted to the same samples."""
        if len(starts) > 1:
            errors = {n: score(sample_errors(self._refit_gap(s, rows)), self.objective) for n, s in starts.items()}
            name = min(errors, key=errors.__getitem__)
            return name, starts[name]
        return next(iter(starts.items()))

    def _share(self, room: float, steps: int, trials: int) -> tuple[slice, int]:
        """How many samples and trials fit into so many evaluations; at least 8 samples."""
        size = int(min(self.rows.stop, max(8, room / (steps * trials))))
        return slice(0, size), min(2 * trials, int(max(room, 0) / (steps * size)))

    def _starts(self, steps: int) -> dict[str, Tensor]:
        low, high = float(self.teacher.sigmas[-1]), float(self.teacher.sigmas[0])
        usual = {
            make.__name__: usual_levels(make, steps, low, high) for make in (schedules.cosine, schedules.time_uniform)
        }
        starts = {name: levels for name, levels in usual.items() if levels is not None}
        if steps < len(self.teacher.sigmas):
            cost = cost_matrix(self.teacher, "l2")
            paths = {c: shortest_path(cost, steps, c) for c in (1.0, 1.05, 1.1, 0.9)}
            starts |= {f"dynamic programme, l2, coefficient {c}": self.teacher.sigmas[p] for c, p in paths.items()}
            # The cosine levels go lower before the last jump than the programme's: good ones often lie between.
            logs = starts["cosine"].log(), self.teacher.sigmas[paths[1.05]].to(starts["cosine"]).log()
            starts["between cosine and dynamic programme"] = (0.7 * logs[0] + 0.3 * logs[1]).exp()
        return starts

    def _evaluator(self, rows: slice) -> Callable[[Tensor, float], Tensor]:
        labels = None if self.labels is None else self.labels[rows]
        model = Evaluator(self.denoiser, labels, self.guidance, None)

        def evaluate(y: Tensor, sigma: float) -> Tensor:
            self._count(calls(self.guidance) * len(y))
            return model(y, sigma)

        return evaluate

    def _weights(self, sigmas: Tensor, rows: slice, ridge: float, ahead: int = 0) -> tuple[list[list[float]], Tensor]:
        targets = _interpolated(self.teacher, sigmas, rows)
        evaluate = self._evaluator(rows)
        return fit_weights(evaluate, self.x[rows], sigmas, targets, self.order, ridge, ahead, self.objective)

    def _refit_gap(self, sigmas: Tensor, rows: slice) -> Tensor:
        """Final samples minus the teacher's, with weights solved for on the same samples."""
        final = self._weights(sigmas, rows, 1e-12)[1]
        return (final - self.teacher.final[rows]).flatten(1).double()

    def _gap(self, sigmas: Tensor, weights: list[list[float]], rows: slice) -> Tensor:
        labels = None if self.labels is None else self.labels[rows]
        path = sample(
            self.denoiser, self.x[rows], sigmas, FittedMultistep(weights),
            labels=labels, guidance=self.guidance, keep="final",
        )  # fmt: skip
        self._count(path.nfe * len(path.final))
        return (path.final - self.teacher.final[rows]).flatten(1).double()

    def _fitted(self, name: str, sigmas: Tensor, ridge: float, rows: slice | None = None, ahead: int = 0) -> _Fitted:
        return self._judged(_Fitted(name, sigmas, self._weights(sigmas, rows or self.rows, ridge, ahead)[0]))

    def _judged(self, fitted: _Fitted) -> _Fitted:
        fitted.gap = self._gap(fitted.sigmas, fitted.weights, self.apart)
        fitted.error = score(sample_errors(fitted.gap), self.objective)
        return fitted

    def _polished(self, start: _Fitted, rows: slice, trials: int) -> _Fitted:
        """All weights together, moved towards the smallest error at the end point."""
        lengths = [len(row) for row in start.weights]

        def unflatten(numbers: Tensor) -> list[list[float]]:
            return [row.tolist() for row in numbers.split(lengths)]

        numbers = torch.tensor([w for row in start.weights for w in row], dtype=torch.float64)
        moved = refine_numbers(lambda u: self._gap(start.sigmas, unflatten(u), rows), numbers, trials, self.objective)
        return self._judged(_Fitted(f"{start.name}, weights moved", start.sigmas, unflatten(moved)))

    def _count(self, evaluations: int) -> None:
        self.spent += evaluations
        self.bar.update(evaluations)


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
    """
    whole(teacher)
    levels = as_real("sigmas", sigmas)
    if levels.ndim != 1 or levels.numel() == 0:
        raise ValueError(f"sigmas must hold one or more levels (M+1,), got shape {tuple(levels.shape)}")
    _check_within(levels, teacher)
    if not isinstance(rows, slice):
        raise TypeError(f"rows must be a slice of the batch, got {shown(rows)}")
    return _interpolated(teacher, levels, rows)


def _check_within(sigmas: Tensor, teacher: Trajectory) -> None:
    high, low = float(teacher.sigmas[0]), float(teacher.sigmas[-1])
    if not bool(((sigmas <= high * (1 + 1e-9)) & (sigmas >= low * (1 - 1e-9))).all()):
        raise ValueError(
            f"sigmas must lie within the levels of the teacher, {low:.4g} to {high:.4g}, got {shown(sigmas)}"
        )


def _interpolated(teacher: Trajectory, sigmas: Tensor, rows: slice) -> Tensor:
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

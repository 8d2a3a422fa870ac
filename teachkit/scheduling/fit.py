"""Fitting a multistep solver to the paths of a model, and levels and weights together.

All paths have nearly one shape, so what is learned on a few warm-up paths holds for all. ``fit_solver`` rolls the
student out and solves one small least-squares problem a step for its weights (``teachkit.scheduling.fitted``); the
teacher's states between its own levels come from cubic interpolation (`states_at`), so that any levels can be fitted
without further evaluations by the teacher. On one half of the warm-up noise

1. the usual grids and the cheapest paths of the dynamic programme race, each with the weights solved for on it,
2. the levels of the best are moved, the weights being solved for again at every trial,
3. weights are solved for in each of `WAYS`,
4. all weights are moved together towards the smallest error at the end point.

Each is kept only where it is better on the other half, which takes no part.
"""

from __future__ import annotations

import numbers
import os
from dataclasses import replace

import torch
from torch import Tensor

from teachkit import schedules
from teachkit.checks import choice, flag, integer
from teachkit.denoisers import Denoiser
from teachkit.sampling import Labels, Trajectory
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.fitted import FittedMultistep, fit_weights
from teachkit.scheduling.meter import check_progress
from teachkit.scheduling.refine import sample_errors, score
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.search import Candidate, cheapest_paths, judged, move_levels, moved, race, usual_grids
from teachkit.scheduling.teacher import interpolated, level_range
from teachkit.scheduling.warm_up import WarmUp, check_ends, check_warm_up, the_teacher

AHEAD = 2  # rounds of looking one step ahead; better than one on the digits
_CHANGE = 5e-3  # of the largest weight of its step: how much a weight is changed to measure a derivative
WAYS = {"ridge 0.001": 1e-3, "ridge 0.1": 1e-1}  # of solving for weights beside plain least squares


def fit_solver(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor | int,
    order: int = 3,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    labels: Labels | None = None,
    guidance: float | None = None,
    dynamic_threshold: float | None = None,
    batch: int | None = None,
    objective: str = "mean",
    grid: int = 60,
    budget: float = 3.0,
    teacher: Trajectory | str | os.PathLike[str] | None = None,
    refine: bool = True,
    progress: bool | str = False,
) -> Schedule:
    """Fit multistep weights to the paths of a model on warm-up noise, and the levels too if only their number is given.

    Parameters
    ----------
    denoiser : callable
        The model.
    x : (B, *event)
        Warm-up noise at the first level, B >= 8. Half of it is kept apart to judge.
    sigmas : (N+1,) or int
        The schedule that will be used, ending above 0; or the number of steps N (one evaluation each, which with
        guidance calls the model twice), and the levels are found as well.
    order : int
        Directions combined at a step, 1 to 4; 2 has most of the gain, 3 nearly all.
    sigma_min, sigma_max : float, optional
        Ends of the schedule, where ``sigmas`` is a number; by default 0.002 and 80, or the model's own (its attributes
        of these names) where it was trained on less.
    labels : (B,), (B, K) or dict of (B, ...), optional
        Classes of the warm-up samples, or whatever the model is conditioned on, one entry per sample.
    guidance : float, optional
        Classifier-free guidance scale, as for `teachkit.sample`: the best levels depend on it.
    dynamic_threshold : float, optional
        Percentile to which outputs are clipped, as for `teachkit.sample`.
    batch : int, optional
        Samples that the model sees at a time; all by default. With it x, and so the teacher's paths, may lie on the
        CPU while the model is on a GPU.
    objective : {"mean", "rms"}
        Error that is made small: the mean over samples, or the root mean square, in which the few samples that end
        elsewhere than the teacher's count most.
    grid : int
        Steps of the teacher.
    budget : float
        Limit of all evaluations, the teacher's included, as a multiple of the teacher's: what is left of it decides on
        how many samples levels and weights are moved. Starting levels are tried and weights solved for whatever it
        costs: on few samples and for many steps more than the limit.
    teacher : Trajectory or path, optional
        The teacher's paths from ``x``, if they are there already (`teacher_paths`). Or a file (.safetensors) in which
        they are kept as they come: what it holds of the same model, noise, levels and conditions is not computed
        again, so that after an interruption the same call goes on.
    refine : bool
        Also move levels (if they are free) and weights by Gauss-Newton steps; without, weights are solved for once.
    progress : bool or "cost"
        Show a progress bar over all evaluations, the teacher's included, and say how many there may be and how long
        they will take as soon as the first are timed; "cost": only say it, in one line on the error output.

    Returns
    -------
    Schedule
        Its levels lie on the CPU.
        Of solver "fitted": the levels, and the weights in its options. ``schedule.make_solver()`` gives the solver for
        `teachkit.sample`, on exactly these levels. ``error`` is the mean on the half that was kept apart.
        ``provenance`` holds how the winner was found, what it was fitted on (model, labels, guidance, teacher), the
        "evaluations" that it took, and beside the mean the root-mean-square error and "ends_elsewhere": the share of
        samples that come nearer to another sample's end than to their own.

    Raises
    ------
    ValueError
        For levels that are not a schedule, end at 0 or leave the model's range, an order outside 1 to 4, too few
        samples, or ends that are not the teacher's.

    Examples
    --------
    >>> from teachkit import GaussianMixture, initial_noise
    >>> D = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1])
    >>> found = fit_solver(D, initial_noise(16, (2,)), 4, order=2, grid=20)
    >>> found.solver, found.nfe, [len(row) for row in found.options["weights"]]
    ('fitted', 4, [1, 2, 2, 2])
    """
    choice("order", order, (1, 2, 3, 4))
    how = Conditions(labels, guidance, dynamic_threshold, batch)
    check_warm_up(denoiser, x, budget, objective, how)
    refine = flag("refine", refine)
    levels: Tensor | None = None
    ends = (sigma_min, sigma_max)
    if isinstance(sigmas, int | numbers.Number):
        steps = integer("sigmas, a number of steps,", sigmas, 2)
    else:
        levels = schedules.validate(sigmas)
        if float(levels[-1]) == 0:
            raise ValueError("sigmas must end above 0 to fit weights")
        check_ends("sigmas", levels, sigma_min, sigma_max)
        own = (float(levels[-1]), float(levels[0]))
        level_range(denoiser, *own)
        ends = ends if isinstance(teacher, Trajectory) else own
        steps = len(levels) - 1
    given = the_teacher(denoiser, x, teacher, ends, max(integer("grid", grid, 1), steps), how)
    if levels is not None and not torch.allclose(levels[[0, -1]], given.sigmas[[0, -1]], rtol=1e-5, atol=0):
        theirs, got = ("{:.4g} and {:.4g}".format(*s[[0, -1]].tolist()) for s in (given.sigmas, levels))
        raise ValueError(f"sigmas must begin and end where the teacher does, at {theirs}, got {got}")
    with WarmUp(denoiser, given, steps, 0.5, how, objective, budget, check_progress(progress)) as warm_up:
        best = _Fit(warm_up, order).run(levels, steps, refine)
    error, found = float(sample_errors(best.gap).mean()), warm_up.record(f"{best.name}, order {order}", best.gap)
    return Schedule(best.sigmas, FittedMultistep.name, best.nfe, best.options, error, found)


class _Fit:
    """Levels and weights on the fitting half of the warm-up noise, judged on the other."""

    def __init__(self, warm_up: WarmUp, order: int) -> None:
        self.warm_up, self.order = warm_up, order

    def run(self, levels: Tensor | None, steps: int, refine: bool) -> Candidate:
        """Starting levels or moved ones; weights by least squares, in other ways, or moved with them: the best."""
        if levels is None:
            teacher = self.warm_up.teacher
            starts = [*usual_grids(teacher, steps), *cheapest_paths(teacher, steps, ("l2",))]
        else:
            starts = [Candidate("given levels", levels)]
        best = self.best([self.solved(start) for start in race(self.warm_up, starts, self.gap_of_levels)])
        if refine and levels is None:
            better = self.solved(move_levels(self.warm_up, best, self.gap_of_levels, 0.4, judgings=6))
            best = self.best([best, better])
        tried = [self.solved(best, f", {name}", ridge) for name, ridge in WAYS.items()]
        if refine:
            rows, ahead = self.warm_up.afford(0.4, 1 + AHEAD * (self.order + 2), 1, judgings=2)
            tried += [self.solved(best, ", looking ahead", ahead=AHEAD, rows=rows)] if ahead else []
        best = self.best([best, *tried])
        return self.best([best, self.polished(best)]) if refine else best

    def best(self, candidates: list[Candidate]) -> Candidate:
        """The one that does best on the judging half."""
        return min(candidates, key=lambda c: score(c.gap, self.warm_up.objective))

    def solved(
        self, start: Candidate, how: str = "", ridge: float = 1e-12, ahead: int = 0, rows: slice | None = None
    ) -> Candidate:
        """The levels of a candidate with weights solved for on them, judged."""
        weights, _ = self.weights(start.sigmas, rows or self.warm_up.fit, ridge, ahead)
        return judged(self.warm_up, Candidate(start.name + how, start.sigmas, {"weights": weights}), self.gap)

    def polished(self, start: Candidate) -> Candidate:
        """All weights, moved together towards the smallest error at the end point, judged."""
        rows = [torch.tensor(row, dtype=torch.float64) for row in start.options["weights"]]
        lengths, unit = [len(row) for row in rows], torch.cat([row.abs().max().expand_as(row) for row in rows])

        def at(u: Tensor) -> Candidate:
            weights = [row.tolist() for row in (u * unit).split(lengths)]
            return replace(start, name=f"{start.name}, weights moved", options={"weights": weights})

        numbers = torch.cat(rows) / unit
        end = moved(self.warm_up, numbers, torch.full_like(numbers, _CHANGE), at, self.gap, 1.0, judgings=1)
        return start if end is None else judged(self.warm_up, end, self.gap)

    def weights(self, sigmas: Tensor, rows: slice, ridge: float, ahead: int = 0) -> tuple[list[list[float]], Tensor]:
        """Weights solved for on some rows, and their final states."""
        warm_up, targets = self.warm_up, interpolated(self.warm_up.teacher, sigmas, rows)
        evaluate = warm_up.evaluator(rows)
        return fit_weights(evaluate, warm_up.x[rows], sigmas, targets, self.order, ridge, ahead, warm_up.objective)

    def gap_of_levels(self, candidate: Candidate, rows: slice) -> Tensor:
        """Final samples minus the teacher's, with weights solved for on the same samples."""
        final = self.weights(candidate.sigmas, rows, 1e-12)[1]
        return (final - self.warm_up.teacher.final[rows]).flatten(1).double()

    def gap(self, candidate: Candidate, rows: slice) -> Tensor:
        """Final samples minus the teacher's, with the candidate's weights."""
        return self.warm_up.gap(candidate.sigmas, FittedMultistep(**candidate.options), rows)

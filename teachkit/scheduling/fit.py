"""Fitting a multistep solver to the paths of a model: all weights and levels together, by Gauss-Newton.

All paths have nearly one shape, so what is learned on a few warm-up paths holds for all. On one half of the warm-up
noise

1. the usual grids and the cheapest paths of the dynamic programme race, each with the weights that one small
   least-squares problem a step gives on it (``teachkit.scheduling.fitted``): the teacher's states between its own
   levels come from cubic interpolation (`states_at`), so that any levels can be fitted without evaluations by it;
2. the levels of the best and all its weights, on every direction so far, are moved together towards the smallest error
   at the end point (``teachkit.scheduling.tangents``).

What does best on the other half, which takes no part, is kept. The first is the least-squares problem of OLSS
(arXiv 2305.14677), on levels that are found as well; the second has the aim of solvers learned by gradients
(`learn_solver`), and needs far fewer evaluations because it has so few numbers to find.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from teachkit import schedules
from teachkit.checks import flag, integer
from teachkit.denoisers import Denoiser
from teachkit.sampling import Labels, Trajectory
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.fitted import FittedMultistep, fit_weights
from teachkit.scheduling.meter import check_progress
from teachkit.scheduling.refine import gauss_newton, sample_errors, score
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.search import Candidate, cheapest_paths, judged, race, usual_grids
from teachkit.scheduling.tangents import end_tangents, tangent_cost
from teachkit.scheduling.teacher import interpolated, level_range
from teachkit.scheduling.warm_up import WarmUp, check_ends, check_warm_up, the_teacher

FIRST_ORDER = 3  # at most, of the weights to begin with
ROUNDS, TRIALS = 6, 4  # of measuring tangents, and of steps with each
DAMPING = 1e-4  # of the first step: tangents are better derivatives than wide differences, and there are more numbers


def fit_solver(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor | int,
    order: int | None = None,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    labels: Labels | None = None,
    guidance: float | None = None,
    dynamic_threshold: float | None = None,
    batch: int | None = None,
    objective: str = "mean",
    grid: int = 60,
    budget: float = 10.0,
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
    order : int, optional
        Directions combined at a step; by default all that there are. 3 have most of the gain.
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
        By which of all that was tried the best is chosen: the mean of the samples' errors, which every step makes
        smaller, or their root mean square, in which the few that end elsewhere than the teacher's count most.
    grid : int
        Steps of the teacher.
    budget : float
        Limit of all evaluations, the teacher's included, as a multiple of the teacher's: what is left of it decides on
        how many samples, and how often, levels and weights are moved. Starting levels are tried and weights solved for
        whatever it costs: on few samples and for many steps more than the limit.
    teacher : Trajectory or path, optional
        The teacher's paths from ``x``, if they are there already (`teacher_paths`). Or a file (.safetensors) in which
        they are kept as they come: what it holds of the same model, noise, levels and conditions is not computed
        again, so that after an interruption the same call goes on.
    refine : bool
        Also move weights, and levels where these are free, by Gauss-Newton steps; without, weights are solved for once.
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
        For levels that are not a schedule, end at 0 or leave the model's range, an order below 1, too few samples,
        or ends that are not the teacher's.

    Examples
    --------
    >>> from teachkit import GaussianMixture, initial_noise
    >>> D = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1])
    >>> found = fit_solver(D, initial_noise(16, (2,)), 4, order=2, grid=20)
    >>> found.solver, found.nfe, [len(row) for row in found.options["weights"]]
    ('fitted', 4, [1, 2, 2, 2])
    """
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
    order = steps if order is None else integer("order", order, 1)
    given = the_teacher(denoiser, x, teacher, ends, max(integer("grid", grid, 1), steps), how)
    if levels is not None and not torch.allclose(levels[[0, -1]], given.sigmas[[0, -1]], rtol=1e-5, atol=0):
        theirs, got = ("{:.4g} and {:.4g}".format(*s[[0, -1]].tolist()) for s in (given.sigmas, levels))
        raise ValueError(f"sigmas must begin and end where the teacher does, at {theirs}, got {got}")
    with WarmUp(denoiser, given, steps, 0.5, how, objective, budget, check_progress(progress)) as warm_up:
        best = _Fit(warm_up, order).run(levels, steps, refine)
    order = max(map(len, best.options["weights"]))
    found = warm_up.record(f"{best.name}, order {order}", best.gap)
    error = float(sample_errors(best.gap).mean())
    return Schedule(best.sigmas, FittedMultistep.name, best.nfe, best.options, error, found)


def best_of(candidates: list[Candidate], objective: str) -> Candidate:
    """The one that does best on the judging half."""
    return min(candidates, key=lambda c: score(c.gap, objective))


class _Fit:
    """Levels and weights on the fitting half of the warm-up noise, judged on the other."""

    def __init__(self, warm_up: WarmUp, order: int) -> None:
        self.warm_up, self.order = warm_up, order

    def run(self, levels: Tensor | None, steps: int, refine: bool) -> Candidate:
        """The best of the starting levels with weights solved for, and of what they become."""
        if levels is None:
            teacher = self.warm_up.teacher
            starts = [*usual_grids(teacher, steps), *cheapest_paths(teacher, steps, ("l2",))]
        else:
            starts = [Candidate("given levels", levels)]
        found = [self.solved(start) for start in race(self.warm_up, starts, self.gap_of_levels, "mean")]
        if refine:
            found += self.moved(best_of(found, "mean"), levels is None)
        return best_of(found, self.warm_up.objective)

    def solved(self, start: Candidate) -> Candidate:
        """The levels of a candidate with weights solved for on them, judged."""
        weights, _ = self.weights(start.sigmas, self.warm_up.fit)
        return judged(self.warm_up, replace(start, options={"weights": weights}), self.gap)

    def moved(self, start: Candidate, free: bool) -> Iterator[Candidate]:
        """Weights, and levels where they are ``free``, moved together: what they are after each round, judged."""
        steps = len(start.sigmas) - 1
        lengths = [min(n + 1, self.order) for n in range(steps)]
        inner = steps - 1 if free else 0
        round_cost = 1 + tangent_cost(lengths, free) / steps + TRIALS
        rows, rounds = self.warm_up.afford(1.0, round_cost, ROUNDS, judgings=ROUNDS)

        def sampler(u: Tensor) -> tuple[Tensor, list[Tensor]]:
            levels = torch.cat([start.sigmas[:1], u[:inner].exp(), start.sigmas[-1:]]) if free else start.sigmas
            return levels, list(u[inner:].split(lengths))

        def at(u: Tensor) -> Candidate:
            levels, weights = sampler(u)
            options = {"weights": [row.tolist() for row in weights]}
            return replace(
                start, name=f"{start.name}, levels and weights moved together", sigmas=levels, options=options
            )

        def gap_at(u: Tensor) -> Tensor:
            if not bool((sampler(u)[0].diff() < 0).all()):  # levels that have crossed
                return torch.full_like(own, math.inf)
            return self.gap(at(u), rows)

        def measure(u: Tensor, gap: Tensor, done: int) -> tuple[Tensor, Tensor]:
            tangents = end_tangents(self.warm_up.evaluator(rows), self.warm_up.x[rows], *sampler(u), free)
            return tangents, torch.full_like(u, math.inf)

        own = self.warm_up.teacher.final[rows].flatten(1).double()
        begun = [torch.tensor(row + [0.0] * (k - len(row))) for row, k in zip(start.options["weights"], lengths)]
        numbers = torch.cat([start.sigmas[1:-1].log()] * free + begun).double()
        for u in gauss_newton(gap_at, measure, numbers, rounds, "mean", TRIALS, DAMPING):
            yield judged(self.warm_up, at(u), self.gap)

    def weights(self, sigmas: Tensor, rows: slice) -> tuple[list[list[float]], Tensor]:
        """Weights solved for on some rows, and their final states."""
        warm_up, targets = self.warm_up, interpolated(self.warm_up.teacher, sigmas, rows)
        order = min(self.order, FIRST_ORDER)
        return fit_weights(warm_up.evaluator(rows), warm_up.x[rows], sigmas, targets, order)

    def gap_of_levels(self, candidate: Candidate, rows: slice) -> Tensor:
        """Final samples minus the teacher's, with weights solved for on the same samples."""
        final = self.weights(candidate.sigmas, rows)[1]
        return (final - self.warm_up.teacher.final[rows]).flatten(1).double()

    def gap(self, candidate: Candidate, rows: slice) -> Tensor:
        """Final samples minus the teacher's, with the candidate's weights."""
        return self.warm_up.gap(candidate.sigmas, FittedMultistep(**candidate.options), rows)

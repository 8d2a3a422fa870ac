"""Finding a schedule for the solver that will use it.

The published method takes the cheapest path of Euler jumps, at a coefficient set by hand. Here the usual grids, and the
paths of the dynamic programme at several coefficients, are only candidates, tried with the *student's own solver* on
warm-up noise against the teacher's final samples. On seven tenths of the noise the best two grids and the best two
paths are found (`race`); on the rest they are judged, the levels of the best two are moved (`refine.gauss_newton`) and
judged as well. The best is taken, or a usual grid where it is not clearly better than that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from teachkit import schedules, solvers
from teachkit.checks import integer, shown
from teachkit.denoisers import Denoiser
from teachkit.sampling import Labels, Trajectory
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.costs import cost_matrix
from teachkit.scheduling.dynamic_programme import shortest_path
from teachkit.scheduling.meter import check_progress
from teachkit.scheduling.refine import (
    TRIALS,
    by_differences,
    gauss_newton,
    losses,
    sample_errors,
    score,
    to_levels,
    to_numbers,
)
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.warm_up import WarmUp, check_warm_up, the_teacher

COEFFICIENTS = (1.0, 1.1, 0.9, 1.2, 0.8)
_MARGIN = 0.5  # standard errors by which a schedule must be better than a usual grid: a guard, not a test
# To measure derivatives steps are made shorter by a tenth: wide enough to see past the ridge on which the cosine grid
# lies for some solvers, between a valley of higher and one of lower last levels.
CHANGE = -0.1
ROUNDS = 3  # of measuring derivatives


def find_schedule(
    denoiser: Denoiser,
    x: Tensor,
    nfe: int,
    solver: str = "ipndm",
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
    options: dict[str, Any] | None = None,
    progress: bool | str = False,
) -> Schedule:
    """Find noise levels with which ``solver`` comes closest to a teacher in ``nfe`` evaluations.

    Parameters
    ----------
    denoiser : callable
        The model.
    x : (B, *event)
        Warm-up noise at ``sigma_max``, B >= 8. For a network 32 samples do nearly as well as 256; where a few samples
        decide the error (the Empirical denoiser of few data), more are needed.
    nfe : int
        Evaluations one sample may cost, at least 2. With guidance an evaluation calls the model twice.
    solver : str
        A deterministic solver of ``solvers.REGISTRY``. Two-evaluation solvers get nfe / 2 steps, or as many and an
        Euler step last, with nfe - 1 evaluations; an odd nfe gets (nfe + 1) / 2 steps, an Euler step last.
    sigma_min, sigma_max : float, optional
        Ends of the schedule; by default 0.002 and 80, or the model's own (its attributes of
        these names) where it was trained on less.
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
        Steps of the teacher (UniPC on the polynomial schedule), on whose levels the dynamic programme chooses.
    budget : float
        Limit of all evaluations, the teacher's included, as a multiple of the teacher's: what is left of it after the
        race decides on how many samples levels are moved. The race is run whatever it costs: on few samples a limit
        close to 1 is exceeded.
    teacher : Trajectory or path, optional
        The teacher's paths from ``x``, if they are there already (`teacher_paths`). Or a file (.safetensors) in which
        they are kept as they come: what it holds of the same model, noise, levels and conditions is not computed
        again, so that after an interruption the same call goes on.
    options : dict, optional
        Options of the solver.
    progress : bool or "cost"
        Show a progress bar over all evaluations, the teacher's included, and say how many there may be and how long
        they will take as soon as the first are timed; "cost": only say it, in one line on the error output.

    Returns
    -------
    Schedule
        Its levels lie on the CPU.
        With the mean error on the part of the noise that judges. ``provenance`` holds the name of the winner, what was
        searched on (model, labels, guidance, teacher), the "evaluations" that it took, and beside the mean the
        root-mean-square error and "ends_elsewhere": the share of samples that come nearer to another sample's end than
        to their own.

    Raises
    ------
    ValueError
        For too few evaluations or samples, a solver that is not deterministic, ends outside the model's range, or
        ends that are not those of the teacher that is given.

    Examples
    --------
    >>> from teachkit import GaussianMixture, initial_noise
    >>> D = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1])
    >>> found = find_schedule(D, initial_noise(16, (2,)), 4, "ipndm", grid=20)
    >>> found.solver, found.nfe, found.sigmas[[0, -1]].tolist()
    ('ipndm', 4, [80.0, 0.002])
    """
    forms = step_counts(solver, nfe, options)
    how = Conditions(labels, guidance, dynamic_threshold, batch)
    check_warm_up(denoiser, x, budget, objective, how)
    given = the_teacher(denoiser, x, teacher, (sigma_min, sigma_max), grid, how)
    with WarmUp(denoiser, given, nfe, 0.7, how, objective, budget, check_progress(progress)) as warm_up:

        def gap(candidate: Candidate, rows: slice) -> Tensor:
            return warm_up.gap(candidate.sigmas, solvers.get(solver, **candidate.options), rows)

        grids, paths = (
            [replace(c, options=form) for c in proposals(warm_up.teacher, forms[0][0]) for _, form in forms]
            for proposals in (usual_grids, cheapest_paths)
        )
        usual, routes = (
            [judged(warm_up, c, gap) for c in race(warm_up, kind, gap, objective)] for kind in (grids, paths)
        )
        finalists = sorted(usual + routes, key=lambda c: score(c.gap, objective))
        for left, start in zip((2, 1), finalists[:2]):
            better = move_levels(warm_up, start, gap, 1 / left, judgings=left)
            finalists += [judged(warm_up, better, gap)] if better is not start else []
        best = _clearly_better(finalists, min(usual, key=lambda c: score(c.gap, objective)), objective)
    found = warm_up.record(best.name, best.gap)
    return Schedule(best.sigmas, solver, best.nfe, best.options, float(sample_errors(best.gap).mean()), found)


@dataclass(frozen=True, eq=False)
class Candidate:
    """Levels and the solver options they go with; once judged, how far off the judges end, and what a sample cost."""

    name: str
    sigmas: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    gap: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    nfe: int = 0


Gap = Callable[[Candidate, slice], Tensor]  # final samples minus the teacher's of some rows, (b, d) float64


def usual_grids(teacher: Trajectory, steps: int) -> list[Candidate]:
    """The grids of the textbooks between the teacher's ends, those that there are between these."""
    high, low = teacher.sigmas[[0, -1]].tolist()
    found = []
    for make in schedules.REGISTRY.values():
        try:
            found.append(Candidate(make.__name__, make(steps, sigma_min=low, sigma_max=high)))
        except ValueError:  # the family has no levels between these ends
            continue
    return found


def cheapest_paths(teacher: Trajectory, steps: int, metrics: Sequence[str] = ("l2", "deviation")) -> list[Candidate]:
    """The paths of the dynamic programme, without repetitions; none where the teacher has fewer steps."""
    found: dict[tuple[int, ...], Candidate] = {}
    for metric in metrics if steps < len(teacher.sigmas) else ():
        cost = cost_matrix(teacher, metric)
        for coefficient in COEFFICIENTS:
            path = shortest_path(cost, steps, coefficient)
            name = f"dynamic programme, {metric}, coefficient {coefficient}"
            found.setdefault(tuple(path.tolist()), Candidate(name, teacher.sigmas[path]))
    return list(found.values())


def race(warm_up: WarmUp, candidates: list[Candidate], gap: Gap, objective: str) -> list[Candidate]:
    """The best two, by successive halving: all run on a few samples, the better half on twice as many, and so on.

    Every round costs the same; the last is run on half of the samples to fit to.
    """
    size = warm_up.fit.stop >> int(math.log2(len(candidates) or 1))
    while len(candidates) > 2:
        size *= 2
        rows = slice(0, max(4, size))
        candidates = sorted(candidates, key=lambda c: score(gap(c, rows), objective))
        candidates = candidates[: max(2, len(candidates) // 2)]
    return candidates


def move_levels(warm_up: WarmUp, start: Candidate, gap: Gap, share: float, judgings: int) -> Candidate:
    """The candidate with its levels moved to where its error is smaller, as far as a share of the budget goes."""

    def at(u: Tensor) -> Candidate:
        return replace(start, name=f"{start.name}, levels moved", sigmas=to_levels(u, start.sigmas))

    def gap_at(u: Tensor) -> Tensor:
        return gap(at(u), rows)

    numbers = to_numbers(start.sigmas)
    rows, rounds = warm_up.afford(share, 1 + len(numbers) + TRIALS, ROUNDS, judgings)
    if not len(numbers) or not rounds:
        return start
    measure = by_differences(gap_at, torch.full_like(numbers, CHANGE))
    *_, better = gauss_newton(gap_at, measure, numbers, rounds, warm_up.objective)
    return at(better)


def judged(warm_up: WarmUp, candidate: Candidate, gap: Gap) -> Candidate:
    """The candidate, tried on the samples that judge."""
    before = warm_up.spent
    off = gap(candidate, warm_up.judges)
    return replace(candidate, gap=off, nfe=(warm_up.spent - before) // (len(off) * warm_up.calls))


def _clearly_better(finalists: list[Candidate], grid: Candidate, objective: str) -> Candidate:
    """The best finalist, or the usual grid where none beats it by half a standard error of the difference."""
    usual = losses(sample_errors(grid.gap), objective)
    for candidate in sorted(finalists, key=lambda c: score(c.gap, objective)):
        gain = usual - losses(sample_errors(candidate.gap), objective)
        if gain.mean() > _MARGIN * gain.std() / len(gain) ** 0.5:
            return candidate
    return grid


def step_counts(solver: str, nfe: int, options: dict[str, Any] | None = None) -> list[tuple[int, dict[str, Any]]]:
    """(steps, options): the ways in which a solver can spend ``nfe`` evaluations, at least 2 of them."""
    nfe = integer("nfe", nfe, 2)
    if not isinstance(options, dict | None):
        raise TypeError(f"options must be a dict of the solver's options, got {shown(options)}")
    options = dict(options or {})
    student = solvers.get(solver, **options)
    if not student.analytic_first_step:
        raise ValueError(f"solver must be deterministic to be compared path by path, got {solver!r}")
    if student.evaluations == 1:
        return [(nfe, options)]
    euler_last = ((nfe + 1) // 2, {**options, "euler_last": True})
    return [euler_last] if nfe % 2 else [(nfe // 2, options), euler_last]

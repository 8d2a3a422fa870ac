"""Finding a schedule for the solver that will use it.

The published method takes the cheapest path of Euler jumps, at a coefficient set by hand. Here the paths of the dynamic
programme, at many coefficients, and the usual grids are only candidates, tried with the *student's own solver* on
warm-up noise against the teacher's final samples. They race: all run on a few samples, the better half on more, and so
on. The best two are refined (``teachkit.scheduling.refine``) on samples that take no part in the race. A path of the
dynamic programme is taken only where it clearly beats the best usual grid (`_clearly_better`), and a refined schedule
only where it beats both so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from teachkit import schedules, solvers
from teachkit.checks import flag, integer, shown
from teachkit.denoisers import Denoiser
from teachkit.progress import tqdm
from teachkit.sampling import Trajectory, sample
from teachkit.scheduling.costs import cost_matrix
from teachkit.scheduling.dynamic_programme import shortest_path
from teachkit.scheduling.refine import losses, refine_levels, sample_errors, score
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.warm_up import calls, check_warm_up, provenance, teacher_paths

COEFFICIENTS = (1.0, 1.1, 0.9, 1.05, 1.15, 0.95, 1.2, 0.85, 0.8)
_FAMILIES = (schedules.cosine, schedules.time_uniform, schedules.logsnr, schedules.polynomial)
_MARGIN = 0.5  # standard errors by which a schedule must be better than a simpler one: a guard, not a test


def find_schedule(
    denoiser: Denoiser,
    x: Tensor,
    nfe: int,
    solver: str = "ipndm",
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    labels: Tensor | None = None,
    guidance: float | None = None,
    objective: str = "mean",
    grid: int = 60,
    budget: float = 3.0,
    teacher: Trajectory | None = None,
    options: dict[str, Any] | None = None,
    progress: bool = False,
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
    labels : (B, ...), optional
        Classes of the warm-up samples.
    guidance : float, optional
        Classifier-free guidance scale, as for `teachkit.sample`: the best levels depend on it.
    objective : {"mean", "rms"}
        Error that is made small: the mean over samples, or the root mean square, in which the few samples that end
        elsewhere than the teacher's count most.
    grid : int
        Steps of the teacher (UniPC on the polynomial schedule), on whose levels the dynamic programme chooses.
    budget : float
        Limit of all evaluations, the teacher's included, as a multiple of the teacher's. The race's first round, all
        candidates on a few samples, is run whatever it costs: on few samples a limit close to 1 is exceeded.
    teacher : Trajectory, optional
        The teacher's paths from ``x``, if they are there already (`teacher_paths`).
    options : dict, optional
        Options of the solver.
    progress : bool
        Show a progress bar over the evaluations.

    Returns
    -------
    Schedule
        With the mean error on warm-up noise. ``provenance`` holds the name of the winner, what was searched on (model,
        labels, guidance, teacher), the calls of the model it took, and beside the mean the root-mean-square error and
        "ends_elsewhere": the share of samples that come nearer to another sample's end than to their own.

    Raises
    ------
    ValueError
        For too few evaluations or samples, a solver that is not deterministic, or ends outside the model's range.
    """
    forms = step_counts(solver, nfe, options)
    check_warm_up(denoiser, x, budget, teacher, labels, guidance, objective)
    if teacher is None:
        teacher = teacher_paths(denoiser, x, sigma_min, sigma_max, labels=labels, guidance=guidance, grid=grid)
    with tqdm(
        total=round(budget * teacher.nfe * len(x)), unit="eval", disable=not flag("progress", progress), leave=False
    ) as bar:
        search = _Search(denoiser, x, labels, teacher, budget, solver, bar, guidance, objective)
        best = search.run(forms, float(teacher.sigmas[-1]), float(teacher.sigmas[0]))
    found = provenance(
        best.name, denoiser, labels, guidance, objective, teacher, search.spent, torch.cat(best.gaps),
        slice(0, len(best.errors)),
    )  # fmt: skip
    return Schedule(best.sigmas, solver, best.nfe, best.options, float(best.errors.mean()), found)


def usual_levels(make: Callable[..., Tensor], steps: int, low: float, high: float) -> Tensor | None:
    """A family's schedule, or None where it has none from ``high`` to ``low``."""
    try:
        return make(steps, sigma_min=low, sigma_max=high)
    except ValueError:
        return None


class _Candidate:
    """Levels, the solver options they go with, and how far off the samples were that they were tried on so far."""

    def __init__(
        self, name: str, sigmas: Tensor, options: dict[str, Any], usual: bool = False, objective: str = "mean"
    ) -> None:
        self.name, self.sigmas, self.options, self.usual = name, sigmas, options, usual
        self.objective = objective
        self.errors = torch.zeros(0, dtype=torch.float64)
        self.gaps: list[Tensor] = []
        self.nfe = 0

    @property
    def score(self) -> float:
        return score(self.errors, self.objective)


class _Search:
    """Trials of schedules on warm-up noise within a limit of evaluations."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        labels: Tensor | None,
        teacher: Trajectory,
        budget: float,
        solver: str,
        bar: tqdm,
        guidance: float | None = None,
        objective: str = "mean",
    ) -> None:
        self.denoiser, self.x, self.labels, self.guidance = denoiser, x, labels, guidance
        self.teacher, self.solver, self.bar, self.objective = teacher, solver, bar, objective
        self.spent = 0
        self._count(teacher.nfe * len(x))
        self.limit = round(budget * self.spent)
        self.judges = len(x) - max(4, len(x) // 4)  # the first samples judge; the last are for the refinement

    def run(self, forms: list[tuple[int, dict[str, Any]]], sigma_min: float, sigma_max: float) -> _Candidate:
        """Race, refine, judge."""
        ranked = self.race(self.candidates(forms, sigma_min, sigma_max))
        usual = next(c for c in ranked if c.usual)
        ranked = [*ranked[:4], *([usual] if usual not in ranked[:4] else [])]
        for candidate in ranked:  # a race that ran out of its half of the budget ended before the last sample
            self.try_out(candidate, self.judges)
        ranked.sort(key=lambda c: c.score)
        best = _clearly_better(ranked, next(c for c in ranked if c.usual))
        starts = _distinct([c for c in ranked if c.score < 1.3 * best.score], 2)
        refined = [self.refine(start, len(starts)) for start in starts]
        for candidate in refined:
            self.try_out(candidate, self.judges)
        return _clearly_better(sorted(refined, key=lambda c: c.score), best)

    def candidates(
        self, forms: list[tuple[int, dict[str, Any]]], sigma_min: float, sigma_max: float
    ) -> list[_Candidate]:
        """The usual grids, and the paths of the dynamic programme, without repetitions."""
        costs = {metric: cost_matrix(self.teacher, metric) for metric in ("l2", "deviation")}
        out, seen = [], set()
        for steps, options in forms:
            for make in _FAMILIES:
                levels = usual_levels(make, steps, sigma_min, sigma_max)
                if levels is not None:
                    out.append(_Candidate(make.__name__, levels, options, True, self.objective))
            for coefficient in COEFFICIENTS:
                for metric, cost in costs.items():
                    if steps > len(cost) - 1:
                        continue
                    path = shortest_path(cost, steps, coefficient)
                    key = (tuple(path.tolist()), str(options))
                    if key not in seen:
                        seen.add(key)
                        name = f"dynamic programme, {metric}, coefficient {coefficient}"
                        out.append(_Candidate(name, self.teacher.sigmas[path], options, False, self.objective))
        return out

    def race(self, alive: list[_Candidate]) -> list[_Candidate]:
        """Those that lasted to the last sample of the judges, best first; the best usual grid is always among them."""
        size = min(max(8, self.judges // 12), self.judges)
        while True:
            for candidate in alive:
                self.try_out(candidate, size)
            alive = sorted(alive, key=lambda c: c.score)
            if size >= self.judges or self.spent > (self.limit + self.teacher.nfe * len(self.x)) / 2:
                return [c for c in alive if len(c.errors) == size]
            usual = [c for c in alive if c.usual]
            kept = alive[: max(2, (len(alive) - len(usual)) // 2)]
            alive = kept + [c for c in usual[: max(2, len(usual) * 3 // 4)] if c not in kept]
            size = min(2 * size, self.judges)

    def try_out(self, candidate: _Candidate, size: int) -> None:
        """Make sure that the candidate has run on the first ``size`` samples."""
        done = len(candidate.errors)
        if done < size:
            gap = self._gap(candidate.sigmas, candidate, slice(done, size))
            candidate.errors = torch.cat([candidate.errors, sample_errors(gap).cpu()])
            candidate.gaps.append(gap.cpu())

    def refine(self, start: _Candidate, shares: int) -> _Candidate:
        """Move the levels, on as many of the last samples as the budget allows."""
        steps = len(start.sigmas) - 1
        cost = start.nfe * calls(self.guidance)
        room = (self.limit - self.spent) / shares - cost * self.judges
        size = int(min(len(self.x) - self.judges, max(4, room / (cost * (3 * steps + 8)))))
        trials = int(room / (cost * size))
        rows = slice(len(self.x) - size, len(self.x))
        sigmas = refine_levels(lambda levels: self._gap(levels, start, rows), start.sigmas, trials, self.objective)
        return _Candidate(f"{start.name}; refined", sigmas, start.options, False, self.objective)

    def _gap(self, sigmas: Tensor, candidate: _Candidate, rows: slice) -> Tensor:
        """The student's final samples minus the teacher's, (b, d) float64."""
        labels, x = None if self.labels is None else self.labels[rows], self.x[rows]
        solver = solvers.get(self.solver, **candidate.options)
        path = sample(self.denoiser, x, sigmas, solver, labels=labels, guidance=self.guidance, keep="final")
        candidate.nfe = path.nfe // calls(self.guidance)
        self._count(path.nfe * len(x))
        return (path.final - self.teacher.final[rows]).flatten(1).double()

    def _count(self, evaluations: int) -> None:
        self.spent += evaluations
        self.bar.update(evaluations)


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


def _clearly_better(ranked: list[_Candidate], best: _Candidate) -> _Candidate:
    """The first candidate that beats ``best`` by half a standard error of the difference, on one set of samples."""
    for candidate in ranked:
        gain = losses(best.errors, best.objective) - losses(candidate.errors, candidate.objective)
        if gain.mean() > _MARGIN * gain.std() / len(gain) ** 0.5:
            return candidate
    return best


def _distinct(ranked: list[_Candidate], count: int) -> list[_Candidate]:
    """The best candidates that differ clearly (by more than 0.3 in log sigma somewhere)."""
    out: list[_Candidate] = []
    for candidate in ranked:
        logs = [c.sigmas.log() for c in out]
        if all(len(g) != len(candidate.sigmas) or (g - candidate.sigmas.log()).abs().max() > 0.3 for g in logs):
            out.append(candidate)
        if len(out) == count:
            break
    return out

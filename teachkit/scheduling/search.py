"""Finding a schedule for the solver that will use it, and fitting a solver to a schedule.

The published method takes the cheapest path of Euler jumps, at a coefficient set by hand. Here paths of the dynamic
programme, at many coefficients, and the usual grids are only candidates: each is tried with the *student's own
solver* on warm-up noise, against the teacher's final samples. The best are then refined, all interior levels at once,
by damped Gauss-Newton steps in log sigma, and the winner is chosen on warm-up noise that took no part in the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from teachkit import schedules, solvers
from teachkit.denoisers import Denoiser
from teachkit.sampling import Trajectory, sample
from teachkit.scheduling.costs import cost_matrix
from teachkit.scheduling.fitted import FittedMultistep, fit_weights
from teachkit.scheduling.paths import shortest_path
from teachkit.scheduling.schedule import Schedule
from teachkit.solvers import Solver

COEFFICIENTS = (1.0, 1.1, 0.9, 1.05, 1.15, 0.95, 1.2, 0.85, 0.8)
_TWO_EVALUATIONS = ("heun", "dpm2")
_FAMILIES = (schedules.cosine, schedules.time_uniform, schedules.logsnr, schedules.polynomial)


def find_schedule(
    denoiser: Denoiser,
    x: Tensor,
    nfe: int,
    solver: str = "ipndm",
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    labels: Tensor | None = None,
    grid: int = 60,
    budget: float = 3.0,
    options: dict[str, Any] | None = None,
    progress: bool = False,
) -> Schedule:
    """Find noise levels with which ``solver`` comes closest to a teacher in ``nfe`` evaluations.

    Parameters
    ----------
    denoiser : callable
        The model.
    x : (B, *event)
        Warm-up noise at ``sigma_max``, B >= 4; 32 samples do nearly as well as 256. A third of it is kept apart to
        choose the winner.
    nfe : int
        Evaluations one sample may cost, at least 2.
    solver : str
        A deterministic solver of ``solvers.REGISTRY``. Two-evaluation solvers get nfe / 2 steps, or, where nfe is
        odd, one step more that ends with an Euler step.
    sigma_min, sigma_max : float
        Ends of the schedule.
    labels : (B, ...), optional
        Classes of the warm-up samples.
    grid : int
        Steps of the teacher (iPNDM on the polynomial schedule), on whose levels the dynamic programme chooses.
    budget : float
        Limit of all evaluations, the teacher's included, as a multiple of the teacher's.
    options : dict, optional
        Options of the solver.
    progress : bool
        Show a progress bar over the evaluations.

    Returns
    -------
    Schedule
        With the error on the samples kept apart, the evaluations spent and the best candidates in ``provenance``.

    Raises
    ------
    ValueError
        For too few evaluations or samples, or a solver that is not deterministic.
    """
    forms = _forms(solver, nfe, dict(options or {}))
    if x.ndim < 2 or len(x) < 4:
        raise ValueError(f"x must hold at least 4 warm-up samples (B, *event), got shape {tuple(x.shape)}")
    if not (isinstance(budget, (int, float)) and budget > 1):
        raise ValueError(f"budget must exceed 1, the teacher itself, got {budget!r}")
    levels = schedules.polynomial(grid, sigma_min, sigma_max)
    teacher = sample(denoiser, x, levels, "ipndm", labels=labels)
    with tqdm(total=round(budget * grid * len(x)), unit="eval", disable=not progress, leave=False) as bar:
        bar.update(grid * len(x))
        search = _Search(denoiser, x, labels, teacher, round(budget * grid * len(x)), bar)
        best = search.run(forms, sigma_min, sigma_max)
    return Schedule(
        best.sigmas,
        solver,
        best.nfe,
        best.options,
        best.checked,
        {
            "method": best.name,
            "warm_up": len(x),
            "teacher": f"ipndm, {grid} steps, polynomial",
            "evaluations": search.spent,
            "teacher_evaluations": grid * len(x),
        },
    )


class _Candidate:
    """Levels, the solver options they go with, and their errors so far."""

    def __init__(self, name: str, sigmas: Tensor, options: dict[str, Any]) -> None:
        self.name, self.sigmas, self.options = name, sigmas, options
        self.error = self.checked = math.inf
        self.nfe = 0


class _Search:
    """Trials of schedules on warm-up noise within a limit of evaluations."""

    def __init__(
        self, denoiser: Denoiser, x: Tensor, labels: Tensor | None, teacher: Trajectory, limit: int, bar: Any
    ) -> None:
        self.denoiser, self.x, self.labels, self.teacher, self.bar = denoiser, x, labels, teacher, bar
        self.limit, self.spent = limit, len(teacher.sigmas[1:]) * len(x)
        self.apart = max(1, len(x) // 3)  # the last third is kept apart

    def final(self, solver: str, sigmas: Tensor, options: dict[str, Any], rows: slice) -> tuple[Tensor, int]:
        labels = None if self.labels is None else self.labels[rows]
        x = self.x[rows]
        path = sample(self.denoiser, x, sigmas, solvers.get(solver, **options), labels=labels, keep="final")
        self.spent += path.nfe * len(x)
        self.bar.update(path.nfe * len(x))
        return path.final, path.nfe

    def errors(self, final: Tensor, rows: slice) -> Tensor:
        gap = (final - self.teacher.final[rows]).flatten(1).double()
        return (gap**2).mean(1).sqrt()

    def try_out(self, solver: str, candidate: _Candidate, rows: slice) -> float:
        final, candidate.nfe = self.final(solver, candidate.sigmas, candidate.options, rows)
        return float(self.errors(final, rows).mean())

    def run(self, forms: list[tuple[str, int, dict[str, Any]]], sigma_min: float, sigma_max: float) -> _Candidate:
        search_size = len(self.x) - self.apart
        few, all_rows = slice(0, min(search_size, 32)), slice(0, search_size)
        candidates = self.candidates(forms, sigma_min, sigma_max)
        solver, room = forms[0][0], self.limit - self.spent
        for candidate in candidates:
            cost = (len(candidate.sigmas) - 1) * (2 if solver in _TWO_EVALUATIONS else 1) * (few.stop or 1)
            if candidate is not candidates[0] and self.spent + cost > self.limit - 0.6 * room:
                break
            candidate.error = self.try_out(solver, candidate, few)
        ranked = sorted((c for c in candidates if c.error < math.inf), key=lambda c: c.error)
        starts = _distinct(ranked, 2)
        refined = [self.refine(solver, c, all_rows, share=0.9 if len(starts) == 1 else 0.45) for c in starts]
        return self.choose(solver, [*ranked[:3], *[r for r in refined if r is not None]], search_size)

    def candidates(
        self, forms: list[tuple[str, int, dict[str, Any]]], sigma_min: float, sigma_max: float
    ) -> list[_Candidate]:
        """The usual grids, and the paths of the dynamic programme, without repetitions."""
        costs = {metric: cost_matrix(self.teacher, metric) for metric in ("l2", "deviation")}
        out, seen = [], set()
        for _, steps, options in forms:
            for make in _FAMILIES:
                out.append(_Candidate(make.__name__, make(steps, sigma_min=sigma_min, sigma_max=sigma_max), options))
            for coefficient in COEFFICIENTS:
                for metric, cost in costs.items():
                    if steps > len(cost) - 1:
                        continue
                    path = shortest_path(cost, steps, coefficient)
                    key = (tuple(path.tolist()), str(options))
                    if key not in seen:
                        seen.add(key)
                        name = f"dynamic programme, {metric}, coefficient {coefficient}"
                        out.append(_Candidate(name, self.teacher.sigmas[path], options))
        return out

    def refine(self, solver: str, start: _Candidate, rows: slice, share: float) -> _Candidate | None:
        """Damped Gauss-Newton steps on the interior levels in log sigma, on as many samples as the budget allows."""
        interior = len(start.sigmas) - 2
        cost = start.nfe * (interior + 2)  # evaluations of one step, per sample
        room = share * (self.limit - self.spent - 3 * start.nfe * self.apart)
        size = int(min(rows.stop, room / (3 * cost)))
        if interior < 1 or size < 8:
            return None
        rows, stop = slice(0, size), self.spent + room
        log = start.sigmas.log()
        end_low = float(log[-1])

        def run(u: Tensor) -> Tensor:
            sigmas = torch.cat([start.sigmas[:1], u.exp(), start.sigmas[-1:]])
            return self.final(solver, sigmas, start.options, rows)[0]

        u, damping = log[1:-1].clone(), 1e-2
        final = run(u)
        best = float(self.errors(final, rows).mean())
        while self.spent + (interior + 1) * start.nfe * size <= stop:
            matrix, gradient = self._normal_equations(run, u, end_low, final, rows)
            improved = False
            for _ in range(3):
                trial = _monotone(log, u, -torch.linalg.solve(matrix + damping * matrix.diagonal().diag(), gradient))
                moved = run(trial)
                error = float(self.errors(moved, rows).mean())
                if error < best:
                    gain = 1 - error / best
                    u, final, best, damping, improved = trial, moved, error, damping / 5, gain > 1e-3
                    break
                damping *= 10
            if not improved:
                break
        sigmas = torch.cat([start.sigmas[:1], u.exp(), start.sigmas[-1:]])
        out = _Candidate(f"{start.name}; refined", sigmas, start.options)
        out.error = best
        return out

    def _normal_equations(
        self, run: Callable[[Tensor], Tensor], u: Tensor, low: float, final: Tensor, rows: slice
    ) -> tuple[Tensor, Tensor]:
        columns = []
        for k in range(len(u)):
            below = float(u[k + 1]) if k + 1 < len(u) else low
            shift = -min(0.03, 0.3 * (float(u[k]) - below))
            moved = u.clone()
            moved[k] += shift
            columns.append((run(moved) - final).flatten(1).double() / shift)
        jacobian = torch.stack(columns, -1)  # (b, d, interior)
        gap = (final - self.teacher.final[rows]).flatten(1).double()
        error = self.errors(final, rows)
        weight = 1 / error.clamp(min=0.1 * float(error.median()) + 1e-300)
        matrix = torch.einsum("bdi,bdj,b->ij", jacobian, jacobian, weight).cpu()
        return matrix, torch.einsum("bdi,bd,b->i", jacobian, gap, weight).cpu()

    def choose(self, solver: str, candidates: list[_Candidate], search_size: int) -> _Candidate:
        """The best on the samples kept apart; ties and near-ties go to what the search preferred."""
        rows = slice(search_size, len(self.x))
        for candidate in candidates:
            candidate.checked = self.try_out(solver, candidate, rows)
        return min(candidates, key=lambda c: c.checked)


def fit_solver(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    order: int = 3,
    *,
    labels: Tensor | None = None,
    grid: int = 60,
) -> tuple[Solver, Schedule]:
    """Fit multistep weights to the shape of the paths, on warm-up noise, by one least-squares solve a step.

    Parameters
    ----------
    denoiser : callable
        The model.
    x : (B, *event)
        Warm-up noise at ``sigmas[0]``, B >= 4. A third is kept apart to choose how far to trust the fit.
    sigmas : (N+1,)
        The schedule that will be used, ending above 0.
    order : int
        Directions combined at a step, 1 to 4; 2 has most of the gain, 3 nearly all.
    labels : (B, ...), optional
        Classes of the warm-up samples.
    grid : int
        Steps of the teacher.

    Returns
    -------
    solver : FittedMultistep
        For `teachkit.sample`, on exactly this schedule.
    schedule : Schedule
        The levels with the weights, to be saved.
    """
    levels = schedules.validate(sigmas)
    solvers.base.check_choice("order", order, (1, 2, 3, 4))
    if float(levels[-1]) == 0:
        raise ValueError("sigmas must end above 0 to fit weights")
    if x.ndim < 2 or len(x) < 4:
        raise ValueError(f"x must hold at least 4 warm-up samples (B, *event), got shape {tuple(x.shape)}")
    dense = schedules.polynomial(max(grid, len(levels) - 1), float(levels[-1]), float(levels[0]))
    union = _merge(dense, levels)
    teacher = sample(denoiser, x, union, solvers.get("ipndm_v", order=3), labels=labels)
    targets = teacher.x[torch.searchsorted(-union, -levels)]
    fit, apart = slice(0, len(x) - len(x) // 3), slice(len(x) - len(x) // 3, len(x))

    def evaluate(rows: slice) -> Callable[[Tensor, float], Tensor]:
        if labels is None:
            return lambda y, s: denoiser(y, s)
        return lambda y, s: denoiser(y, s, labels[rows])

    best: tuple[float, list[list[float]], float] | None = None
    for ridge in (0.0, 1e-6, 1e-4):
        weights, _ = fit_weights(evaluate(fit), x[fit], levels, targets[:, fit], order, ridge)
        rows_labels = None if labels is None else labels[apart]
        final = sample(denoiser, x[apart], levels, FittedMultistep(weights), labels=rows_labels, keep="final").final
        error = float((final - teacher.final[apart]).flatten(1).double().pow(2).mean(1).sqrt().mean())
        if best is None or error < best[0]:
            best = (error, weights, ridge)
    assert best is not None
    error, weights, ridge = best
    provenance = {
        "method": f"least-squares weights, order {order}, ridge {ridge:g}",
        "warm_up": len(x),
        "teacher": f"ipndm_v, {len(union) - 1} steps",
        "evaluations": teacher.nfe * len(x) + 3 * (len(levels) - 1) * len(x),
    }
    schedule = Schedule(levels, FittedMultistep.name, len(levels) - 1, {"weights": weights}, error, provenance)
    return schedule.make_solver(), schedule


def _forms(solver: str, nfe: int, options: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """(solver, steps, options): the ways to spend ``nfe`` evaluations."""
    if not isinstance(nfe, int) or isinstance(nfe, bool) or nfe < 2:
        raise ValueError(f"nfe must be an integer >= 2, got {nfe!r}")
    if not solvers.get(solver, **options).analytic_first_step:
        raise ValueError(f"solver must be deterministic to be compared path by path, got {solver!r}")
    if solver not in _TWO_EVALUATIONS:
        return [(solver, nfe, options)]
    euler_last = (solver, (nfe + 1) // 2, {**options, "euler_last": True})
    return [euler_last] if nfe % 2 else [(solver, nfe // 2, options), euler_last]


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


def _monotone(log: Tensor, u: Tensor, change: Tensor) -> Tensor:
    """u + change, shortened so that no gap between neighbouring levels shrinks by more than 70 %."""
    full = torch.cat([log[:1], u, log[-1:]])
    moved = torch.cat([log[:1] * 0, change, log[-1:] * 0])
    gaps, closing = -full.diff(), -moved.diff()
    shrink = torch.where(closing < 0, -0.7 * gaps / closing, torch.inf)
    return u + min(1.0, float(shrink.min())) * change


def _merge(dense: Tensor, levels: Tensor) -> Tensor:
    """All of ``levels``, and those of ``dense`` that are not within 1 % of one of them, decreasing."""
    near = ((dense[:, None] / levels) - 1).abs().amin(1) < 0.01
    return torch.cat([dense[~near], levels]).sort(descending=True).values

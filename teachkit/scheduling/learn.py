"""Learning levels and weights of a solver by gradients through the sampler.

A multistep solver without a stationary rule has a row of weights for every step; with directions d_j = (x_j - D_j)/s_j,

    x_{n+1} = x_n + (s_{n+1} - s_n) * sum over j <= n of w_{nj} d_j.

Every linear multistep solver of the textbooks is one choice of these rows (`multistep_weights`). ``learn_solver`` moves
levels, weights or both by Adam, from any start, towards the teacher's final samples: LD3 (arXiv 2405.15506) learns the
levels, S4S (arXiv 2502.17423) the weights, and BNS (arXiv 2403.01329), S4S-Alt and the generalised solvers
(arXiv 2510.17699) both. `fit_solver` asks the same question of a few least-squares problems.

Found without gradients through the sampler, in contrast:

- OLSS (arXiv 2305.14677), the precedent of `fit_solver`, projects the next state of the full path on the span of the
  start and all predictions so far, one least-squares problem a step, and also searches for the steps to take.
- DPM-Solver-v3 (arXiv 2310.13268) computes coefficients of every noise level once for a model, its "empirical model
  statistics", which make the first-order discretisation error small, and steps by formula with them on any grid.
- DMN (arXiv 2402.17376) moves the levels of a given solver so that a bound of its distance from the exact solution is
  small, by a constrained trust-region method in seconds; its weights stay.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from teachkit import solvers
from teachkit.checks import choice, flag, integer, number, shown
from teachkit.denoisers import Denoiser
from teachkit.sampling import Labels, Trajectory
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.fitted import FittedMultistep
from teachkit.scheduling.meter import check_progress
from teachkit.scheduling.refine import losses, sample_errors, score
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.student import Student
from teachkit.scheduling.warm_up import WarmUp, check_warm_up, levels_to_begin_with, the_teacher

FREE = ("levels", "weights")
LOOKS = 10  # how often a state on the way is judged


def learn_solver(
    denoiser: Denoiser,
    x: Tensor,
    nfe: int,
    free: Sequence[str] = FREE,
    *,
    start: Schedule | str = "cosine",
    solver: str = "ipndm",
    order: int | None = None,
    iterations: int = 300,
    learning_rate: float = 0.02,
    rows: int = 32,
    relax: float = 0.0,
    save_memory: bool = True,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    labels: Labels | None = None,
    guidance: float | None = None,
    dynamic_threshold: float | None = None,
    batch: int | None = None,
    objective: str = "mean",
    grid: int = 60,
    teacher: Trajectory | str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool | str = False,
) -> Schedule:
    """Learn levels, weights or both by gradient descent through the sampler, from any start.

    Parameters
    ----------
    denoiser : callable
        The model; it must be differentiable in x, and in sigma where levels are free.
    x : (B, *event)
        Warm-up noise at ``sigma_max``, B >= 8. Half of it is kept apart to judge.
    nfe : int
        Number of steps N, one evaluation each.
    free : sequence of {"levels", "weights"}
        What is learned: ("levels",) for a classical solver is LD3's problem (arXiv 2405.15506), ("weights",) on given
        levels S4S's (arXiv 2502.17423), both those of BNS (arXiv 2403.01329) and its relatives.
    start : Schedule or str
        A schedule found before, of one evaluation a step, which brings its solver; or the name of a usual grid.
    solver : str
        With a grid: the linear multistep solver that steps, or whose weights are the start.
    order : int, optional
        Directions that a learned row combines; all there are by default.
    iterations : int
        Steps of Adam, with a learning rate that falls to zero along a cosine.
    learning_rate : float
        Of the first; levels are moved in the logarithms of ratios of steps, weights in shares of a step.
    rows : int
        Warm-up samples in each iteration.
    relax : float
        Radius, in units of sigma_max * sqrt(d), of a ball around each starting point in which the nearest start is
        taken that leads to the teacher's end: LD3's relaxed objective. 0 for the point itself.
    save_memory : bool
        Evaluate once more on the way back in place of keeping what the network computed (arXiv 1604.06174).
    sigma_min, sigma_max : float, optional
        Ends of the levels; by default 0.002 and 80, or the model's own where it was trained on less.
    labels, guidance, dynamic_threshold, batch
        How the model is asked, as for `teachkit.sample`.
    objective : {"mean", "rms"}
        Error that is made small: the mean over samples, or the root mean square.
    grid : int
        Steps of the teacher.
    teacher : Trajectory or path, optional
        The teacher's paths from ``x``, or the file in which they are kept.
    seed : int
        Of the samples drawn in each iteration.
    progress : bool or "cost"
        Show a progress bar over the evaluations; "cost": only say what they will cost.

    Returns
    -------
    Schedule
        Its levels lie on the CPU.
        The best of ten states on the way, and the start, by the half that judges: of ``solver`` where weights are not
        free, else of solver "fitted". ``provenance["evaluations"]`` counts a backward pass as two.

    Raises
    ------
    ValueError, TypeError
        For bad arguments, before any evaluation; for a solver that evaluates between levels, or is not linear.

    Examples
    --------
    >>> from teachkit import GaussianMixture, initial_noise
    >>> D = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1])
    >>> noise = initial_noise(16, (2,))
    >>> learned = learn_solver(D, noise, 4, grid=20, iterations=20)
    >>> learned.solver, learned.nfe, learned.error < learn_solver(D, noise, 4, grid=20, iterations=1).error
    ('fitted', 4, True)
    """
    if not isinstance(free, Sequence):
        raise TypeError(f"free must be a sequence of names of {', '.join(FREE)}, got {shown(free)}")
    wanted = tuple(choice("free", name, FREE) for name in ([free] if isinstance(free, str) else free))
    if not wanted:
        raise ValueError(f"free must name one of {', '.join(FREE)} at least, got none")
    seed = integer("seed", seed, 0)
    steps, how = integer("nfe", nfe, 2), Conditions(labels, guidance, dynamic_threshold, batch)
    iterations, order = integer("iterations", iterations, 1), integer("order", steps if order is None else order, 1)
    learning_rate, relax = number("learning_rate", learning_rate, above=0), number("relax", relax, least=0, below=1)
    check_warm_up(denoiser, x, 2.0, objective, how)
    given = the_teacher(denoiser, x, teacher, (sigma_min, sigma_max), grid, how)
    levels = levels_to_begin_with(start, steps, given.sigmas)
    rule = start.make_solver() if isinstance(start, Schedule) else solvers.get(solver)
    student = Student(levels, rule, wanted, order)
    size = min(integer("rows", rows, 1), len(x) // 2)
    each = (4 if flag("save_memory", save_memory) else 3) * steps * how.calls(denoiser)
    spent = iterations * size * each + LOOKS * (len(x) - len(x) // 2) * steps * how.calls(denoiser)
    teacher_cost = (len(given.sigmas) - 1) * how.calls(denoiser) * len(x)
    with WarmUp(denoiser, given, steps, 0.5, how, objective, 1 + spent / teacher_cost, check_progress(progress)) as on:
        best = _Learning(on, student, relax, save_memory).run(iterations, learning_rate, size, seed)
    name = f"learned by gradients: {', '.join(wanted)}, from {start if isinstance(start, str) else start.solver}"
    error, found = float(sample_errors(best.gap).mean()), on.record(name, best.gap)
    return Schedule(best.sigmas, best.solver, steps, best.options, error, found)


@dataclass(frozen=True, eq=False)
class Found:
    """A state on the way: levels, solver, options, and how far off the samples that judge end, (b, d)."""

    sigmas: Tensor
    solver: str
    options: dict[str, Any]
    gap: Tensor


class _Learning:
    """Adam on what is free of a student, looked at ten times by samples that take no part."""

    def __init__(self, warm_up: WarmUp, student: Student, relax: float, save_memory: bool) -> None:
        self.warm_up, self.student, self.relax, self.save_memory = warm_up, student, relax, save_memory

    def run(self, iterations: int, learning_rate: float, size: int, seed: int) -> Found:
        """The best state seen."""
        rng, moved = torch.Generator().manual_seed(seed), torch.zeros_like(self.warm_up.x[self.warm_up.fit])
        parts, rates = self.student.parameters(), [learning_rate] * len(self.student.parameters())
        if self.relax:
            parts, rates = [*parts, moved.requires_grad_()], [*rates, 10 * learning_rate]
        adam = torch.optim.Adam([{"params": [part], "lr": rate} for part, rate in zip(parts, rates)])
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
        best = self.look()
        for k in range(1, iterations + 1):
            rows = torch.randperm(self.warm_up.fit.stop, generator=rng)[:size]
            loss = self.loss(rows, moved)
            for part, grad in zip(parts, torch.autograd.grad(loss, parts)):  # and none for the network's weights
                part.grad = grad
            adam.step()
            fall.step()
            if k % max(1, iterations // LOOKS) == 0 or k == iterations:
                best = min(best, self.look(), key=lambda found: score(found.gap, self.warm_up.objective))
        return best

    def loss(self, rows: Tensor, moved: Tensor) -> Tensor:
        """The objective on some of the samples to fit to, with gradients."""
        on, levels = self.warm_up, self.student.start
        x = on.x[rows]
        if self.relax:
            shift = moved[rows].flatten(1)
            radius = self.relax * float(levels[0]) * shift.shape[1] ** 0.5
            x = x + (shift * (radius / torch.linalg.vector_norm(shift, dim=1, keepdim=True).clamp(min=radius))).reshape(
                x.shape
            )
        evaluate, each = on.how.of(rows).evaluator(on.denoiser), (4 if self.save_memory else 3) * on.calls
        with torch.enable_grad():
            final = self.student.final(evaluate, x, self.save_memory)
            gap = (final - on.teacher.final[rows]).flatten(1).double()
            loss = losses(sample_errors(gap), on.objective).mean()
        on.meter((len(levels) - 1) * len(rows) * each)
        return loss

    def look(self) -> Found:
        """The state as it is, judged."""
        levels, name, options = self.student.schedule_parts()
        solver = FittedMultistep(**options) if name == FittedMultistep.name else self.student.rule
        return Found(levels, name, options, self.warm_up.gap(levels, solver, self.warm_up.judges))

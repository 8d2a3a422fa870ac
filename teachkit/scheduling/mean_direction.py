"""AMED: one more look in every step, at a level and with a length learned from the teacher, step by step.

By the mean value theorem the exact step is one direction seen somewhere on the way, times a scale, if paths are nearly
flat (arXiv 2312.00094). ``learn_amed`` learns both numbers of each step, on the states to which the steps before it
lead, by the distance from the teacher's state at the step's end. In the paper a small network reads them off the
U-Net's bottleneck for every sample; here all samples share them, as their paths share one shape.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from teachkit.checks import integer, number
from teachkit.denoisers import Denoiser
from teachkit.sampling import Labels, Trajectory
from teachkit.scheduling.amed import AMED
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.meter import check_progress
from teachkit.scheduling.refine import losses, sample_errors, score
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.teacher import interpolated
from teachkit.scheduling.warm_up import WarmUp, check_warm_up, levels_to_begin_with, the_teacher

LIMIT = 9.0  # of r's logit: r stays inside (0, 1) by a ten thousandth


def learn_amed(
    denoiser: Denoiser,
    x: Tensor,
    nfe: int,
    *,
    start: Schedule | str = "cosine",
    iterations: int = 100,
    learning_rate: float = 0.1,
    rows: int = 32,
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
    """Learn where each step of given levels looks a second time, and how far it then goes (AMED, arXiv 2312.00094).

    Parameters
    ----------
    denoiser : callable
        The model; it must be differentiable in x and sigma.
    x : (B, *event)
        Warm-up noise at ``sigma_max``, B >= 8. Half of it is kept apart to judge.
    nfe : int
        Evaluations, at least 2: two for each step, and one for the last where their number is odd (the paper saves the
        first evaluation there, by its analytical first step).
    start : Schedule or str
        Whose levels are stepped through: a schedule found before, or the name of a usual grid.
    iterations : int
        Steps of Adam for each step of the sampler, with a learning rate that falls to zero along a cosine.
    learning_rate : float
        Of the first; r is moved in its logit, c as it is.
    rows : int
        Warm-up samples in each iteration.
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
        Its levels lie on the CPU. Of solver "amed", with what was learned in its options; or r = 1/2 and c = 1
        (DPM-Solver-2), where that is better on the half that judges. ``provenance["evaluations"]`` counts a backward
        pass as two.

    Raises
    ------
    ValueError, TypeError
        For bad arguments, before any evaluation.

    Examples
    --------
    >>> from teachkit import GaussianMixture, initial_noise
    >>> D = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1])
    >>> learned = learn_amed(D, initial_noise(16, (2,)), 5, grid=20, iterations=20)
    >>> learned.solver, learned.nfe, len(learned.sigmas) - 1, learned.options["r"][-1]
    ('amed', 5, 3, 0.0)
    """
    nfe, how = integer("nfe", nfe, 2), Conditions(labels, guidance, dynamic_threshold, batch)
    iterations, rows = integer("iterations", iterations, 1), integer("rows", rows, 1)
    learning_rate, seed = number("learning_rate", learning_rate, above=0), integer("seed", seed, 0)
    check_warm_up(denoiser, x, 2.0, objective, how)
    given = the_teacher(denoiser, x, teacher, (sigma_min, sigma_max), grid, how)
    levels, fit = levels_to_begin_with(start, (nfe + 1) // 2, given.sigmas), len(x) // 2
    calls, looks = how.calls(denoiser), nfe - (nfe + 1) // 2  # steps that look a second time
    each = iterations * 3 * min(rows, fit)  # of a step, with a backward pass as two
    spent = (nfe * (fit + 2 * (len(x) - fit)) + each * looks) * calls
    budget = 1 + spent / ((len(given.sigmas) - 1) * calls * len(x))
    with WarmUp(denoiser, given, nfe, 0.5, how, objective, budget, check_progress(progress)) as on:
        middle = [0.5] * looks + [0.0] * (nfe % 2)
        learned = _learn(on, levels, looks, iterations, learning_rate, rows, seed)
        tried = [(solver, on.gap(levels, solver, on.judges)) for solver in (learned, AMED(middle, [1.0] * len(middle)))]
    best, gap = min(tried, key=lambda one: score(one[1], objective))
    name = f"{'AMED' if best is learned else 'DPM-Solver-2'}, on {start if isinstance(start, str) else 'given levels'}"
    error, options = float(sample_errors(gap).mean()), {"r": best.r, "c": best.c}
    return Schedule(levels, AMED.name, nfe, options, error, on.record(name, gap))


def _learn(on: WarmUp, levels: Tensor, looks: int, iterations: int, learning_rate: float, size: int, seed: int) -> AMED:
    """r and c of every step, one step after another, on the samples to fit to; of ``looks`` steps, then r = 0."""
    rng, targets, x = torch.Generator().manual_seed(seed), interpolated(on.teacher, levels, on.fit), on.x[on.fit]
    evaluate, size, r, c = on.evaluator(on.fit), min(size, len(x)), list[float](), list[float]()
    for n, ends in enumerate(levels.unfold(0, 2, 1)):
        with torch.no_grad():
            direction = (x - evaluate(x, float(ends[0]))) / float(ends[0])
        numbers = torch.tensor([1.0, 0.0] if n < looks else [1.0], dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([numbers], lr=learning_rate)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
        for _ in range(iterations):
            first = int(torch.randint(len(x) - size + 1, (), generator=rng))
            rows = slice(first, first + size)
            with torch.enable_grad():
                end = _step(on, rows, x[rows], direction[rows], ends, numbers)
                gap = (end - targets[n + 1][rows]).flatten(1).double()
                loss = losses(sample_errors(gap), on.objective).mean()
            (grad,) = torch.autograd.grad(loss, [numbers])  # and none for the network's weights
            numbers.grad = grad.nan_to_num(0, 0, 0)  # an error of exactly 0 has none
            on.meter(2 * size * on.calls * (n < looks))
            adam.step()
            fall.step()
        with torch.no_grad():
            x = _step(on, on.fit, x, direction, ends, numbers)
        c.append(float(numbers[0].detach()))
        r.append(float(numbers[1].detach().clamp(-LIMIT, LIMIT).sigmoid()) if n < looks else 0.0)
    return AMED(r, c)


def _step(on: WarmUp, rows: slice, x: Tensor, direction: Tensor, ends: Tensor, numbers: Tensor) -> Tensor:
    """Where the step between two levels takes the samples ``rows``, with gradients for c and, if it is there, r."""
    sigma, sigma_next = ends
    if len(numbers) == 2:
        level = (sigma.log() + numbers[1].clamp(-LIMIT, LIMIT).sigmoid() * (sigma_next / sigma).log()).exp().to(x)
        y = x + (level - sigma.to(x)) * direction
        direction = (y - on.evaluator(rows)(y, level)) / level
    return x + (numbers[0] * (sigma_next - sigma)).to(x) * direction

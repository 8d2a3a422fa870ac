"""Damped Gauss-Newton steps on the few numbers that decide a sampler: its levels, or its weights.

The student's final samples are smooth in those numbers, and all paths have one shape, so one small Jacobian on a few
warm-up samples says where to move. It is measured by finite differences once, then kept up to date by every trial
(Broyden 1965), which costs nothing. Steps are damped (Levenberg-Marquardt). For the objective "mean" samples are
weighted by 1 / error, so that it is the mean of their errors that falls; for "rms", the root of the mean of their
squares, in which the few that end elsewhere count most, they are not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

OBJECTIVES = ("mean", "rms")
Gap = Callable[[Tensor], Tensor]  # numbers (k,) -> final samples minus the teacher's (B, d), float64


def sample_errors(gap: Tensor) -> Tensor:
    """Root-mean-square error of each sample, of ``gap`` (B, d)."""
    return (gap.double() ** 2).mean(1).sqrt()


def losses(errors: Tensor, objective: str) -> Tensor:
    """What each sample adds to the objective, (B,), from its error: the error itself, or its square."""
    return errors if objective == "mean" else errors.square()


def score(errors: Tensor, objective: str) -> float:
    """The objective, in the unit of the errors (B,): their mean, or their root mean square."""
    mean = float(losses(errors, objective).mean())
    return mean if objective == "mean" else mean**0.5


def refine_levels(gap_at: Gap, sigmas: Tensor, trials: int, objective: str = "mean") -> Tensor:
    """Levels (N+1,) with a smaller error than ``sigmas``, both ends kept.

    ``gap_at`` maps levels to the student's final samples minus the teacher's; it is called ``trials`` times at most,
    and takes N + 1 calls to make a first step.
    """
    ends = sigmas[:1], sigmas[-1:]

    def levels(u: Tensor) -> Tensor:
        return torch.cat([ends[0], u.exp(), ends[1]])

    def shift(u: Tensor) -> Tensor:
        below = torch.cat([u, ends[1].log()])[1:]
        return -(0.3 * (u - below)).clamp(max=0.03)

    if len(sigmas) < 3:
        return sigmas
    start = sigmas[1:-1].log()
    return levels(
        gauss_newton(
            lambda u: gap_at(levels(u)), start, trials, shift, lambda u, s: _shorten(levels(u).log(), s), objective
        )
    )


def refine_numbers(gap_at: Gap, start: Tensor, trials: int, objective: str = "mean") -> Tensor:
    """Numbers (k,) with a smaller error than ``start``, each measured by a change of a thousandth."""

    def shift(u: Tensor) -> Tensor:
        return 1e-3 * u.abs().clamp(min=1e-3)

    return gauss_newton(gap_at, start, trials, shift, lambda u, step: step, objective)


def gauss_newton(
    gap_at: Gap,
    start: Tensor,
    trials: int,
    shift: Callable[[Tensor], Tensor],
    limit: Callable[[Tensor, Tensor], Tensor],
    objective: str = "mean",
) -> Tensor:
    """Minimise the objective over a few numbers, with ``trials`` calls of ``gap_at`` at most.

    ``shift(u)`` are the changes by which derivatives are measured, ``limit(u, step)`` is how far a step may go.
    """
    u, gap, spent, damping = start.clone(), gap_at(start), 1, 1e-2
    error = score(sample_errors(gap), objective)
    jacobian: Tensor | None = None
    while spent + (len(u) if jacobian is None else 0) < trials:
        fresh = jacobian is None
        if jacobian is None:
            jacobian, spent = _jacobian(gap_at, u, gap, shift(u)), spent + len(u)
        step = limit(u, _step(jacobian, gap, damping, objective))
        moved, spent = gap_at(u + step), spent + 1
        change = step.to(gap)
        jacobian += torch.einsum("bd,i->bdi", moved - gap - jacobian @ change, change / (change @ change + 1e-30))
        new_error = score(sample_errors(moved), objective)
        stuck = damping > 1 if not new_error < error else new_error > 0.998 * error
        if new_error < error:
            u, gap, error, damping = u + step, moved, new_error, max(damping / 4, 1e-6)
        else:
            damping *= 8
        if stuck and fresh:
            break
        if stuck:
            jacobian, damping = None, min(damping, 0.1)
    return u


def _jacobian(gap_at: Gap, u: Tensor, gap: Tensor, shift: Tensor) -> Tensor:
    """d gap / d u, (B, d, k), by one-sided differences."""
    columns = []
    for k, amount in enumerate(shift.tolist()):
        moved = u.clone()
        moved[k] += amount
        columns.append((gap_at(moved) - gap) / amount)
    return torch.stack(columns, -1)


def _step(jacobian: Tensor, gap: Tensor, damping: float, objective: str = "mean") -> Tensor:
    """The damped Gauss-Newton step for the objective."""
    error = sample_errors(gap)
    weight = 1 / error.clamp(min=0.1 * float(error.median()) + 1e-300)
    weight = weight if objective == "mean" else torch.ones_like(weight)
    matrix = torch.einsum("bdi,bdj,b->ij", jacobian, jacobian, weight).cpu()
    gradient = torch.einsum("bdi,bd,b->i", jacobian, gap, weight).cpu()
    scale = matrix.diagonal().clamp(min=1e-12 * float(matrix.diagonal().max()) + 1e-300)
    return torch.linalg.solve(matrix + damping * scale.diag(), -gradient)


def _shorten(log: Tensor, step: Tensor) -> Tensor:
    """The step of the interior levels, shortened so that no gap between neighbours shrinks by more than 70 %."""
    full = torch.cat([step.new_zeros(1), step, step.new_zeros(1)])
    gaps, closing = -log.diff(), full.diff()
    room = torch.where(closing > 0, 0.7 * gaps / closing, torch.inf).min()
    return step * min(1.0, float(room))

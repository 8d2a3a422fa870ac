"""Damped Gauss-Newton steps on the few numbers that decide a sampler: its noise levels, its weights, or both.

The student's final samples are smooth in those numbers, and all paths have one shape, so one small Jacobian on a few
warm-up samples says where to move. It is measured once a round, then kept up to date by every trial (Broyden 1965),
which costs nothing. Steps are damped (Levenberg-Marquardt). For the objective "mean" samples are
weighted by 1 / error, so that it is the mean of their errors that falls; for "rms", the root of the mean of their
squares, in which the few that end elsewhere count most, they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

OBJECTIVES = ("mean", "rms")
TRIALS = 8  # steps tried with each measured Jacobian
_FARTHEST = 20  # times the change by which a derivative is measured: how far a number may move in one step


def sample_errors(gap: Tensor) -> Tensor:
    """Root-mean-square error of each sample, of ``gap`` (B, d)."""
    return (gap.double() ** 2).mean(1).sqrt()


def losses(errors: Tensor, objective: str) -> Tensor:
    """What each sample adds to the objective, (B,), from its error: the error itself, or its square."""
    return errors if objective == "mean" else errors.square()


def score(gap: Tensor, objective: str) -> float:
    """The objective of final samples minus the teacher's (B, d): mean, or root mean square, of the samples' errors."""
    mean = float(losses(sample_errors(gap), objective).mean())
    return mean if objective == "mean" else mean**0.5


Numbers = Tensor  # (k,)
# Of numbers, their gap and the count of rounds before: the Jacobian (B, d, k), and the farthest moves in a step (k,).
Measure = Callable[[Numbers, Tensor, int], tuple[Tensor, Tensor]]


def by_differences(gap_at: Callable[[Numbers], Tensor], change: Tensor) -> Measure:
    """A Jacobian measured by ``change`` (k,) in the first round, by a quarter of it in the next, and so on."""

    def measure(u: Tensor, gap: Tensor, done: int) -> tuple[Tensor, Tensor]:
        by = change / 4**done
        return torch.stack([(gap_at(u + shift) - gap) / float(shift.sum()) for shift in by.diag()], -1), _FARTHEST * by

    return measure


def gauss_newton(
    gap_at: Callable[[Numbers], Tensor],
    measure: Measure,
    start: Numbers,
    rounds: int,
    objective: str = "mean",
    trials: int = TRIALS,
    damping: float = 1e-2,
) -> Iterator[Numbers]:
    """Numbers (k,) with a smaller objective than ``start``, or ``start`` itself: those after each round.

    ``gap_at`` maps numbers to final samples minus the teacher's (B, d) float64, or to what is not finite where they
    stand for nothing. It is called 1 + rounds * trials times at most, and ``measure`` as often as there are rounds.
    """
    u, gap = start, gap_at(start)
    for done in range(rounds):
        before = score(gap, objective)
        jacobian, farthest = measure(u, gap, done)
        for _ in range(trials):
            step = _step(jacobian, gap, damping, objective)  # (k,)
            step = step * min(1.0, float((farthest / step).abs().min()))
            moved, along = gap_at(u + step), step.to(jacobian)
            if bool(moved.isfinite().all()):
                missed = moved - gap - jacobian @ along
                jacobian = jacobian + missed[..., None] * along / (along @ along + 1e-300)
            if score(moved, objective) < score(gap, objective):
                u, gap, damping = u + step, moved, damping / 4
            else:
                damping *= 8
            if damping > 10:  # however short the step, it leads nowhere
                break
        yield u
        if score(gap, objective) > 0.998 * before:
            break


def _step(jacobian: Tensor, gap: Tensor, damping: float, objective: str) -> Tensor:
    """The damped Gauss-Newton step (k,) for the objective, from the Jacobian (B, d, k)."""
    error = sample_errors(gap)
    weight = 1 / error.clamp(min=0.1 * float(error.median()) + 1e-300)
    weight = weight if objective == "mean" else torch.ones_like(weight)
    matrix = torch.einsum("bdi,bdj,b->ij", jacobian, jacobian, weight).cpu()
    gradient = torch.einsum("bdi,bd,b->i", jacobian, gap, weight).cpu()
    scale = matrix.diagonal().clamp(min=1e-12 * float(matrix.diagonal().max()) + 1e-300)
    return torch.linalg.solve(matrix + damping * scale.diag(), -gradient)


def to_numbers(sigmas: Tensor) -> Tensor:
    """N - 1 numbers, without limits, that stand for levels (N+1,): how much longer each step is than the first.

    They are log of ratios of steps in log sigma, so that any numbers are levels from one end to the other.
    """
    steps = -sigmas.log().diff()
    return (steps[1:] / steps[0]).log()


def to_levels(numbers: Tensor, like: Tensor) -> Tensor:
    """Levels (N+1,) from their N - 1 numbers, between the ends of the levels ``like``."""
    share = torch.cat([numbers.new_zeros(1), numbers]).softmax(0).cumsum(0)[:-1]
    inner = like[0].log() + share * (like[-1] / like[0]).log()
    return torch.cat([like[:1], inner.exp(), like[-1:]])

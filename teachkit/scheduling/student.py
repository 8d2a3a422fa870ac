"""A multistep sampler by its numbers, through which gradients flow: levels, and a row of weights for every step.

With directions d_j = (x_j - D_j) / s_j a step is x_{n+1} = x_n + (s_{n+1} - s_n) * sum over j <= n of w_{nj} d_j. The
classical solvers are special rows, found by stepping through basis vectors in place of directions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from teachkit import schedules, solvers
from teachkit.checks import shown
from teachkit.scheduling.fitted import FittedMultistep
from teachkit.scheduling.refine import to_levels, to_numbers
from teachkit.solvers import Point, Solver


def multistep_weights(solver: str | Solver, sigmas: Tensor | Sequence[float]) -> Tensor:
    """The rows of weights by which a linear multistep solver steps through given levels.

    Parameters
    ----------
    solver : str or Solver
        One evaluation a step, and no corrector: "euler", "ipndm", "dpmpp_2m", "deis", ..., or a fitted one.
    sigmas : (N+1,)
        The levels.

    Returns
    -------
    Tensor
        ``(N, N)`` float64, on the CPU: row n holds the weights of the directions 0 to n in step n, as a share of the
        step's length; zeros after them. A consistent solver has rows that sum to 1.

    Raises
    ------
    ValueError
        For a solver that is not linear in its directions, or evaluates between the levels.

    Examples
    --------
    >>> multistep_weights("ipndm", [4.0, 3.0, 2.0, 1.0])
    tensor([[ 1.0000,  0.0000,  0.0000],
            [-0.5000,  1.5000,  0.0000],
            [ 0.4167, -1.3333,  1.9167]], dtype=torch.float64)
    """
    rule = solvers.get(solver) if isinstance(solver, str) else solver
    if not isinstance(rule, Solver):
        raise TypeError(f"solver must be a name or a Solver instance, got {shown(solver)}")
    return _rows(rule, schedules.validate(sigmas)).tril()


def _rows(rule: Solver, sigmas: Tensor) -> Tensor:
    """`multistep_weights` of fit arguments, by stepping through basis vectors in place of directions."""
    if rule.evaluations != 1 or type(rule).correct is not Solver.correct or not rule.analytic_first_step:
        raise ValueError(f"solver must take one evaluation a step, correct nothing and add no noise, got {rule.name}")
    levels, steps = tuple(sigmas.tolist()), len(sigmas) - 1
    basis = torch.eye(steps + 1, dtype=torch.float64)
    x, history, rows = basis[:1], deque[Point](maxlen=rule.memory), []
    for n in range(steps):
        now = Point(x, levels[n], _refuse, levels, n, basis[n + 1 : n + 2])
        x = rule.step(now, levels[n + 1], history)
        history.append(now)
        rows.append((x - now.x)[0, 1:] / (levels[n + 1] - levels[n]))
    if abs(float(x[0, 0]) - 1) > 1e-9:
        raise ValueError(f"solver must be linear in its directions, got {rule.name}")
    return torch.stack(rows)


def _refuse(x: Tensor, sigma: float) -> Tensor:
    raise ValueError("solver must evaluate at its levels alone")


class _Classical(torch.autograd.Function):
    """The rows of a classical solver as a function of the logarithms of its levels, differentiable by differences."""

    @staticmethod
    def forward(ctx: Any, log_levels: Tensor, rule: Solver) -> Tensor:
        shifts = 1e-5 * torch.eye(len(log_levels), dtype=torch.float64)
        ends = [[_rows(rule, (log_levels + sign * shift).exp()) for sign in (1, -1)] for shift in shifts]
        ctx.save_for_backward(torch.stack([(above - below) / 2e-5 for above, below in ends]))
        return _rows(rule, log_levels.exp())

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return torch.einsum("kij,ij->k", slopes, grad[0]), None


class Student:
    """A sampler by its numbers: those that stand for its levels, and its rows of weights, free or not.

    ``order`` is how many directions a free row combines, the newest first.
    """

    def __init__(self, levels: Tensor, rule: Solver, free: tuple[str, ...], order: int) -> None:
        self.start, self.rule, self.free = levels, rule, free
        steps = len(levels) - 1
        self.numbers = to_numbers(levels).requires_grad_("levels" in free)
        self.rows = _rows(rule, levels).requires_grad_("weights" in free)
        ago = torch.arange(steps)[:, None] - torch.arange(steps)
        self.used = ((ago >= 0) & (ago < order)).double() if "weights" in free else (ago >= 0).double()

    def parameters(self) -> list[Tensor]:
        """What is free."""
        return [part for part in (self.numbers, self.rows) if part.requires_grad]

    def sampler(self) -> tuple[Tensor, Tensor]:
        """Levels (N+1,) and rows (N, N), with gradients where they are free."""
        levels = to_levels(self.numbers, self.start) if "levels" in self.free else self.start
        rows = self.rows if "weights" in self.free else _Classical.apply(levels.log(), self.rule)
        return levels, rows * self.used

    def final(self, evaluate: Callable[[Tensor, Any], Tensor], x: Tensor, save_memory: bool) -> Tensor:
        """Where it takes x, (B, *event), with gradients for what is free."""
        levels, rows = self.sampler()
        directions: list[Tensor] = []
        for n, (sigma, sigma_next) in enumerate(pairwise(levels)):
            sigma_x = sigma.to(x)
            denoised = checkpoint(evaluate, x, sigma_x, use_reentrant=False) if save_memory else evaluate(x, sigma_x)
            directions.append((x - denoised) / sigma_x)
            steps = ((sigma_next - sigma) * rows[n, : n + 1]).to(x)
            x = x + sum(w * d for w, d in zip(steps, directions))
        return x

    def schedule_parts(self) -> tuple[Tensor, str, dict[str, Any]]:
        """Levels, name and options of the solver it has become."""
        levels, rows = (part.detach().clone() for part in self.sampler())
        if "weights" not in self.free:
            return levels, self.rule.name, {}
        steps = (rows * levels.diff()[:, None]).tolist()
        used = self.used.bool()
        weights = [[row[j] for j in range(n, -1, -1) if used[n, j]] for n, row in enumerate(steps)]
        return levels, FittedMultistep.name, {"weights": weights}

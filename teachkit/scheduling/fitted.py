"""A solver fitted to the boomerang: if all paths share one shape, one set of multistep weights fits them all.

At every step the next state is x + sum_j c_j * direction_j, over the current and the past directions, as in
Adams-Bashforth; but the weights c are not those that are exact for polynomials: they are the ones that bring a batch
of warm-up paths nearest to the teacher's states, by least squares,

    c = argmin sum over samples of weight * |x_n + sum_j c_j d_{n-j} - teacher_{n+1}|^2,

one small closed-form solve a step, on the states the student itself visits (OLSS, arXiv 2305.14677). Solvers learned
by gradients are relatives: AMED (arXiv 2312.00094), S4S (arXiv 2502.17423), Bespoke solvers (arXiv 2310.19075).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from teachkit import schedules
from teachkit.checks import number, shown
from teachkit.solvers.base import Point, Solver, combine
from teachkit.solvers.multistep import adams_bashforth

_RIDGE = 1e-12  # of the mean square of a direction: for directions that are all alike


class FittedMultistep(Solver):
    """Linear multistep with its own weights for every step of one schedule (see `fit_solver`).

    Parameters
    ----------
    weights : list of lists
        For each step, the weights of the current direction and of the earlier ones, newest first.
    sigmas : (N+1,), optional
        The levels they were fitted for. On others the weights mean nothing, and `teachkit.sample` with these then
        raises a ValueError; without, only the number of steps is looked at.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample
    >>> solver = FittedMultistep([[-79.0], [-1.2, 0.202]], [80.0, 1.0, 0.002])
    >>> sample(Gaussian([0.0, 1.0], [0.2, 0.4]), initial_noise(4, (2,)), [80.0, 1.0, 0.002], solver).nfe
    2
    """

    name = "fitted"

    def __init__(self, weights: Sequence[Sequence[float]], sigmas: Tensor | Sequence[float] | None = None) -> None:
        for row in (weights, *(weights if isinstance(weights, Sequence) else ())):
            if not isinstance(row, Sequence) or isinstance(row, str):
                raise TypeError(f"weights must be a list of lists of numbers, got {shown(weights)}")
        self.weights = [[number("weights", w) for w in row] for row in weights]
        if not self.weights or any(not 1 <= len(row) <= n + 1 for n, row in enumerate(self.weights)):
            raise ValueError("weights must hold a list for every step, of 1 to (step number) values")
        self.memory = max(map(len, self.weights)) - 1
        self.sigmas: tuple[float, ...] | None = None
        if sigmas is not None:
            self.check(schedules.validate(sigmas))
            self.sigmas = tuple(schedules.validate(sigmas).tolist())

    def check(self, sigmas: Tensor | Sequence[float]) -> None:
        """Raise a ValueError unless there is a row of weights for every step of ``sigmas``, and for these levels."""
        check_levels("weights", len(self.weights), self.sigmas, sigmas)

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        if len(now.levels) != len(self.weights) + 1:
            raise ValueError(f"this solver was fitted for {len(self.weights)} steps, got {len(now.levels) - 1}")
        if now.levels != self.sigmas:
            self.check(now.levels)
        points = [now, *reversed(history)]
        return combine(now.x, 1.0, *((w, p.direction) for w, p in zip(self.weights[now.index], points)))


def check_levels(
    what: str, steps: int, own: tuple[float, ...] | None, sigmas: Tensor | Sequence[float]
) -> tuple[float, ...]:
    """Levels with which ``what`` was learned, in so many steps, as they are or as single precision has them."""
    levels = tuple(schedules.validate(sigmas).tolist())
    if steps != len(levels) - 1:
        raise ValueError(f"{what} are for {steps} steps, but the schedule has {len(levels) - 1}")
    if own and not all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(levels, own)):
        known, got = (", ".join(f"{s:.4g}" for s in some) for some in (own, levels))
        raise ValueError(f"{what} are for the levels {known}, but the schedule has {got}")
    return levels


@torch.no_grad()
def fit_weights(
    evaluate: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Tensor,
    targets: Tensor,
    order: int,
) -> tuple[list[list[float]], Tensor]:
    """Roll out on a warm-up batch, fitting the weights of each step; returns them and the final states.

    ``targets`` (N+1, B, *event) are the teacher's states at ``sigmas``. What the samples leave open is as in
    variable-step Adams-Bashforth.
    """
    levels, rows = tuple(sigmas.tolist()), []
    history: list[Point] = []
    for n in range(len(levels) - 1):
        now = Point(x, levels[n], evaluate, levels, n)
        points = [now, *reversed(history)][:order]
        columns = torch.stack([p.direction.flatten(1).double() for p in points], -1)  # (B, d, k)
        weights = columns.new_tensor(adams_bashforth(tuple(p.sigma for p in points), levels[n + 1]))
        gap = (targets[n + 1] - x).flatten(1).double()
        weights += _least_squares(columns, gap - columns @ weights)
        rows.append(weights.tolist())
        x = combine(x, 1.0, *((w, p.direction) for w, p in zip(rows[-1], points)))
        history = [*history, now][-(order - 1) :] if order > 1 else []
    return rows, x


def _least_squares(columns: Tensor, gap: Tensor) -> Tensor:
    """Weights (k,) of ``columns`` (B, d, k) that come nearest to ``gap`` (B, d).

    Rounds of reweighting (1 / distance), which lead to the smallest mean of distances, keep the few samples that end
    elsewhere from deciding.
    """
    weight, solution = gap.new_ones(len(gap)), gap.new_zeros(columns.shape[-1])
    for _ in range(3):
        normal = torch.einsum("bdi,bdj,b->ij", columns, columns, weight)
        right = torch.einsum("bdi,bd,b->i", columns, gap, weight)
        scale = normal.diagonal().mean().clamp(min=1e-200)
        solution = torch.linalg.solve(normal + _RIDGE * scale * torch.eye(len(normal)).to(normal), right)
        left = torch.linalg.vector_norm(gap - columns @ solution, dim=1)
        weight = 1 / left.clamp(min=0.1 * float(left.median()) + 1e-300)
    return solution

"""The solver of AMED: a step takes one direction seen on its way, at a level and of a length learned for each step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from teachkit.checks import number, shown
from teachkit.scheduling.fitted import check_levels
from teachkit.solvers.base import Point, Solver, euler_step


class AMED(Solver):
    """Steps with an intermediate level and a scale of the direction of their own (arXiv 2312.00094; see `learn_amed`).

    Step n goes by Euler to the level sigma_n^(1-r) sigma_{n+1}^r, looks there, and takes the whole step in c times the
    direction seen. With r = 1/2 and c = 1 this is `DPM2`; a step with r = 0 looks nowhere else and costs one
    evaluation.

    Parameters
    ----------
    r : list of float
        For each step, where it looks, as a share of the step in log sigma: 0 <= r < 1.
    c : list of float
        For each step, the scale of its direction.
    sigmas : (N+1,), optional
        The levels they were learned for. On others they mean little, and `teachkit.sample` with these then raises a
        ValueError; without, only the number of steps is looked at.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample
    >>> solver = AMED([0.5, 0.0], [1.02, 0.98])
    >>> sample(Gaussian([0.0, 1.0], [0.2, 0.4]), initial_noise(4, (2,)), [80.0, 1.0, 0.002], solver).nfe
    3
    """

    name = "amed"
    evaluations = 2

    def __init__(self, r: Sequence[float], c: Sequence[float], sigmas: Tensor | Sequence[float] | None = None) -> None:
        for name, values in (("r", r), ("c", c)):
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise TypeError(f"{name} must be a list of numbers, got {shown(values)}")
        self.r, self.c = [number("r", v, least=0, below=1) for v in r], [number("c", v) for v in c]
        if not self.r or len(self.r) != len(self.c):
            raise ValueError(f"r and c must hold a number for every step, got {len(self.r)} and {len(self.c)}")
        self.sigmas: tuple[float, ...] | None = None
        if sigmas is not None:
            self.sigmas = self.check(sigmas)

    def check(self, sigmas: Tensor | Sequence[float]) -> tuple[float, ...]:
        """The levels, with a ValueError unless there is an r and a c for every step, and for these levels."""
        levels = check_levels("r and c", len(self.r), self.sigmas, sigmas)
        if levels[-1] == 0 and self.r[-1] > 0:
            raise ValueError("sigmas must end above 0 where the last step looks between its ends in log sigma")
        return levels

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        if now.levels != self.sigmas:
            self.check(now.levels)
        r, c, seen = self.r[now.index], self.c[now.index], now
        if r > 0:
            sigma = now.sigma ** (1 - r) * sigma_next**r
            seen = Point(euler_step(now, sigma), sigma, now.evaluate)
        return now.x + c * (sigma_next - now.sigma) * seen.direction

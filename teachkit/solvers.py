"""Solvers: how to step from one noise level to the next along dx/dsigma = (x - D(x; sigma)) / sigma.

A solver is only a step rule. It sees the current `Point`, the next sigma and the earlier points, newest last, and
returns the next x; the loop, the history and the count of evaluations belong to `teachkit.sample`. Two forms of the
same first-order step are worth knowing:

    x_next = x + (sigma_next - sigma) * direction              direction = (x - D) / sigma
           = (sigma_next / sigma) * x + (1 - sigma_next / sigma) * D,

a convex combination of where we are and where D points (arXiv 2506.10177, Prop. 1). Taught in
``notebooks/03_the_ode`` and ``notebooks/04_solvers``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["REGISTRY", "Euler", "Heun", "Point", "Solver", "get"]


class Point:
    """One visited point of a path: x, sigma and, evaluated once when first asked for, D(x; sigma)."""

    __slots__ = ("_denoised", "_direction", "evaluate", "sigma", "x")

    def __init__(self, x: Tensor, sigma: float, evaluate: Callable[[Tensor, float], Tensor]) -> None:
        self.x, self.sigma, self.evaluate = x, sigma, evaluate
        self._denoised: Tensor | None = None
        self._direction: Tensor | None = None

    @property
    def denoised(self) -> Tensor:
        """D(x; sigma), costing one evaluation the first time."""
        if self._denoised is None:
            if self._direction is not None:  # a first step given analytically
                self._denoised = self.x - self.sigma * self._direction
            else:
                self._denoised = self.evaluate(self.x, self.sigma)
        return self._denoised

    @property
    def direction(self) -> Tensor:
        """dx/dsigma = (x - D) / sigma, the noise as the denoiser sees it (eps)."""
        if self._direction is None:
            self._direction = (self.x - self.denoised) / self.sigma
        return self._direction


class Solver:
    """Base class. A subclass sets ``name`` and defines ``step``; ``memory`` says how many earlier points it reads."""

    name: ClassVar[str]
    memory: int = 0

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        """x at ``sigma_next``, from the current point and up to ``memory`` earlier ones (newest last)."""
        raise TypeError(f"{type(self).__name__} must define step")


def euler_step(now: Point, sigma_next: float) -> Tensor:
    """The first-order step, written as the convex combination of x and D."""
    return torch.lerp(now.denoised, now.x, sigma_next / now.sigma)


class Euler(Solver):
    """Euler's method, order 1, one evaluation a step. Also known as DDIM (arXiv 2010.02502), in sigma."""

    name = "euler"

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        return euler_step(now, sigma_next)


class Heun(Solver):
    """Heun's method (explicit trapezoid), order 2, two evaluations a step: EDM's Algorithm 1 (arXiv 2206.00364).

    Not to be confused with the midpoint rule (`dpm2`). A step to sigma = 0, where the second slope is undefined, is
    an Euler step.
    """

    name = "heun"

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        x_euler = euler_step(now, sigma_next)
        if sigma_next == 0:
            return x_euler
        end = Point(x_euler, sigma_next, now.evaluate)
        return now.x + 0.5 * (sigma_next - now.sigma) * (now.direction + end.direction)


REGISTRY: dict[str, type[Solver]] = {cls.name: cls for cls in (Euler, Heun)}


def get(name: str, **options: Any) -> Solver:
    """Build a solver by name, for example ``get("heun")``.

    Raises
    ------
    ValueError
        For an unknown name (the nearest one is suggested) or an option the solver does not take.
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(str(name).lower(), REGISTRY, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown solver {name!r}{hint} Known: {', '.join(REGISTRY)}")
    try:
        return REGISTRY[name](**options)
    except TypeError as error:
        raise ValueError(f"solver {name!r} does not take these options: {options} ({error})") from error

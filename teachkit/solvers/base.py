"""What every solver shares: the visited `Point`, the `Solver` base class, and the first-order step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor
from torch import lerp as torch_lerp


class Point:
    """One visited point of a path: x, sigma and, evaluated once when first asked for, D(x; sigma).

    Attributes
    ----------
    x : (B, *event)
        The state.
    sigma : float
        Its noise level, ``levels[index]``.
    evaluate : callable
        ``evaluate(x, sigma)``: the denoiser, counted.
    levels : tuple of float
        The whole schedule.
    index : int
        Which step starts here.
    evaluated_at : tuple of (B, *event) and float, or None
        State and level at which D was evaluated, once it was; a solver may move ``x`` and ``sigma`` before and after.
    """

    __slots__ = ("_denoised", "_direction", "evaluate", "evaluated_at", "index", "levels", "sigma", "x")

    def __init__(
        self,
        x: Tensor,
        sigma: float,
        evaluate: Callable[[Tensor, float], Tensor],
        levels: tuple[float, ...] = (),
        index: int = 0,
        direction: Tensor | None = None,
    ) -> None:
        self.x, self.sigma, self.evaluate, self.levels, self.index = x, sigma, evaluate, levels, index
        self._denoised: Tensor | None = None
        self._direction = direction
        self.evaluated_at: tuple[Tensor, float] | None = None

    @property
    def denoised(self) -> Tensor:
        """D(x; sigma), costing one evaluation the first time (none where the direction was given)."""
        if self._denoised is None:
            if self._direction is not None:
                self._denoised = self.x - self.sigma * self._direction
            else:
                self.evaluated_at = self.x, self.sigma
                self._denoised = self.evaluate(self.x, self.sigma)
        return self._denoised

    @property
    def direction(self) -> Tensor:
        """dx/dsigma = (x - D) / sigma: the noise as the denoiser sees it, eps."""
        if self._direction is None:
            self._direction = (self.x - self.denoised) / self.sigma
        return self._direction

    @property
    def steps_left(self) -> int:
        """Number of steps from here to the end, this one included."""
        return len(self.levels) - 1 - self.index


class Solver:
    """Base class of solvers.

    A subclass sets ``name`` and defines ``step``; one with a free parameter stores it as an attribute. ``evaluations``
    is what a step costs (a two-evaluation method can end with a cheaper one: option ``euler_last``). ``memory`` is
    how many earlier points ``step`` reads; ``analytic_first_step`` says whether its first direction may be given
    instead of evaluated.
    """

    name: ClassVar[str]
    evaluations: ClassVar[int] = 1
    memory: int = 0
    analytic_first_step: ClassVar[bool] = True

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        """x at ``sigma_next``, from the current point and up to ``memory`` earlier ones (newest last)."""
        raise TypeError(f"{type(self).__name__} must define step")

    def correct(self, now: Point, history: Sequence[Point]) -> Tensor:
        """Improve the current state with the evaluation just made there. Predictor-corrector methods define this."""
        return now.x

    def for_samples(self, seed: int, first: int) -> Solver:
        """This solver for a batch that starts at sample number ``first``: itself, unless it adds noise of its own."""
        return self

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k != "memory")
        return f"{type(self).__name__}({options})"


def euler_step(now: Point, sigma_next: float) -> Tensor:
    """The first-order step, written as the convex combination of x and D."""
    return torch_lerp(now.denoised, now.x, sigma_next / now.sigma)


def combine(first: Tensor, weight: float, *terms: tuple[float, Tensor]) -> Tensor:
    """weight * first + sum of weight * tensor, in one pass a term: what every linear multistep method computes."""
    out = first * weight
    for w, tensor in terms:
        out = out.add_(tensor, alpha=w)
    return out


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a ValueError unless ``value`` is one of ``choices``."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")

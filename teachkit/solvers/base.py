"""What every solver shares: the visited `Point`, the abstract `Solver`, and the first-order step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar

from torch import Tensor


class Point:
    """One visited point of a path: x, sigma and, evaluated once when first asked for, D(x; sigma).

    Parameters
    ----------
    x : (B, *event)
        The state.
    sigma : float
        Its noise level, ``levels[index]``. A solver may move ``x`` and ``sigma``, before or after D is evaluated.
    evaluate : callable
        ``evaluate(x, sigma)``: the denoiser, counted.
    levels : tuple of float
        The whole schedule.
    index : int
        Which step starts here.
    direction : (B, *event), optional
        dx/dsigma where it is known; then D follows from it and is not evaluated.

    Attributes
    ----------
    evaluated_at : tuple of (B, *event) and float, or None
        The state and the level at which D was evaluated, once it was.

    Examples
    --------
    >>> from teachkit import Gaussian
    >>> now = Point(torch.ones(1, 1, dtype=torch.float64), 2.0, Gaussian([0.0], 1.0), levels=(2.0, 1.0, 0.5))
    >>> now.denoised, now.direction, now.steps_left
    (tensor([[0.2000]], dtype=torch.float64), tensor([[0.4000]], dtype=torch.float64), 2)
    """

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
        self.evaluated_at: tuple[Tensor, float] | None = None
        if direction is not None:
            self.direction = direction

    @cached_property
    def denoised(self) -> Tensor:
        """D(x; sigma), costing one evaluation the first time (none where the direction was given)."""
        if "direction" in vars(self):
            return self.x - self.sigma * self.direction
        self.evaluated_at = self.x, self.sigma
        return self.evaluate(self.x, self.sigma)

    @cached_property
    def direction(self) -> Tensor:
        """dx/dsigma = (x - D) / sigma: the noise as the denoiser sees it, eps."""
        return (self.x - self.denoised) / self.sigma

    @property
    def steps_left(self) -> int:
        """Number of steps from here to the end, this one included."""
        return len(self.levels) - 1 - self.index


class Solver(ABC):
    """What `teachkit.sample` asks of a solver: one method, ``step``.

    A subclass sets ``name`` and defines ``step``; its options are its attributes. It says what a step costs
    (``evaluations``; an odd budget is spent with one cheaper step at the end, option ``euler_last``), how many earlier
    points it reads (``memory``), and whether its first direction may be given instead of evaluated
    (``analytic_first_step``: not if it moves the state first). ``found_for_guidance`` is the guidance scale for which
    its schedule was found, 1 for none, where that is known: `teachkit.sample` warns at another.
    ``docs/WRITE_A_SOLVER.md`` writes one in full.

    Examples
    --------
    >>> class Jump(Solver):
    ...     name = "jump"
    ...
    ...     def step(self, now, sigma_next, history):
    ...         return now.denoised
    >>> from teachkit import Gaussian, sample
    >>> sample(Gaussian([0.0], 1.0), torch.ones(1, 1, dtype=torch.float64), [2.0, 1.0], Jump()).final
    tensor([[0.2000]], dtype=torch.float64)
    """

    name: ClassVar[str]
    evaluations: ClassVar[int] = 1
    memory: int = 0
    analytic_first_step: ClassVar[bool] = True
    found_for_guidance: float | None = None

    @abstractmethod
    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        """x at ``sigma_next``, from the current point and up to ``memory`` earlier ones (newest last)."""

    def correct(self, now: Point, history: Sequence[Point]) -> Tensor:
        """Improve the current state with the evaluation just made there. Predictor-corrector methods define this."""
        return now.x

    def for_samples(self, seed: int, first: int) -> Solver:
        """This solver for a batch that starts at sample number ``first``: itself, unless it adds noise of its own."""
        return self

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k not in ("memory", "found_for_guidance"))
        return f"{type(self).__name__}({options})"


def euler_step(now: Point, sigma_next: float) -> Tensor:
    """The first-order step, written as the convex combination of x and D."""
    return now.denoised.lerp(now.x, sigma_next / now.sigma)


def combine(first: Tensor, weight: float, *terms: tuple[float, Tensor]) -> Tensor:
    """weight * first + sum of weight * tensor, in one pass a term: what every linear multistep method computes."""
    out = first * weight
    for w, tensor in terms:
        out = out.add_(tensor, alpha=w)
    return out

"""A Taylor step: the direction's own derivative, by one Jacobian-vector product, in place of a second look elsewhere.

Along the path the direction d = (x - D) / sigma changes, with dx/dsigma = d, at the rate

    d' = (d - D') / sigma - (x - D) / sigma^2 = -D' / sigma,        D' = (dD/dx) d + dD/dsigma,

so that only D' is needed: a directional derivative of the denoiser, in x and sigma together, and never its Jacobian.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from teachkit.checks import flag
from teachkit.solvers.base import Point, Solver, euler_step


class GENIE(Solver):
    """GENIE: follow the direction and its rate of change here, x + h d + h^2/2 d', to the next level.

    The paper expands in gamma = sigma the state x / sqrt(alpha_bar): the sigma and x of this package. It distils the
    rate of change into a small head of the network; here it is exact, by forward-mode automatic differentiation. A step
    to sigma = 0 is an Euler step.

    The denoiser is asked with sigma as a 0-d tensor, and must compute with it and with x in operations of torch that
    have a forward derivative.

    - order: 2
    - cost: two evaluations a step, the second with its Jacobian-vector product (one such call takes longer than one
      evaluation); one for a last step by Euler
    - also known as: the second truncated Taylor method (TTM). No public sampler with exact products is known to us
    - not for: models that cannot be differentiated forwards; and where time counts, not evaluations: on the digits'
      network a step takes about three times as long as one of `DPM2`, which errs less in as much time
    - source: GENIE, arXiv 2210.05475, Sec. 3

    Parameters
    ----------
    euler_last : bool
        Make the last step an Euler step on any schedule, for one evaluation less.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(20), GENIE())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.01495)
    """

    name = "genie"
    evaluations = 2

    def __init__(self, euler_last: bool = False) -> None:
        self.euler_last = flag("euler_last", euler_last)

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        if sigma_next == 0 or (self.euler_last and now.steps_left == 1):
            return euler_step(now, sigma_next)
        denoised, rate = _along(now)
        change = sigma_next - now.sigma
        # D as it came with its derivative: in a first step with a given direction it is the only one there is.
        return denoised.lerp(now.x, sigma_next / now.sigma) - (0.5 * change**2 / now.sigma) * rate


def _along(now: Point) -> tuple[Tensor, Tensor]:
    """D at a point and its derivative by sigma along the path, each (B, *event), in one counted evaluation."""
    sigma, direction = now.x.new_tensor(now.sigma), now.direction

    def evaluate(x: Tensor, level: Tensor) -> Tensor:
        with _Watched(level), sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward derivative
            return now.evaluate(x, level)  # type: ignore[arg-type]

    _load()
    try:
        denoised, rate = torch.func.jvp(evaluate, (now.x, sigma), (direction, torch.ones_like(sigma)))[:2]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError) as error:  # it has just been evaluated here: the derivative is what fails
        raise TypeError(
            "denoiser must have a forward derivative (torch.func.jvp) in x and sigma for the solver genie: compute "
            f"with both in operations of torch, or choose heun or dpm2, which need none; got {error}"
        ) from error
    return denoised, rate


@cache
def _load() -> None:
    """Load torch's forward derivatives, without telling every user of what torch itself has deprecated there."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        torch.func.jvp(torch.neg, (torch.zeros(()),), (torch.zeros(()),))


class _Watched(TorchFunctionMode):
    """A level that nobody may read as a number, by which its part of the derivative would be lost without a word."""

    READING = (
        *(Tensor.__float__, Tensor.item, Tensor.tolist, Tensor.detach, Tensor.new_full, Tensor.new_tensor),
        *(torch.tensor, torch.full, torch.full_like),
    )

    def __init__(self, level: Tensor) -> None:
        super().__init__()
        self.level, self.outside = level, torch.is_inference_mode_enabled()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.READING and any(given is self.level for given in (*args, *kwargs.values())):
            raise RuntimeError("a denoiser that reads sigma as a number")
        if torch.is_inference_mode_enabled() != self.outside:
            raise RuntimeError("a denoiser in torch.inference_mode, which keeps no derivative (torch.no_grad does)")
        return func(*args, **kwargs)

"""Linear multistep solvers: one evaluation a step, a better slope from the directions already seen.

All of them approximate x_next = x + integral of the direction over sigma by replacing the direction with the
polynomial through its last values. They differ only in the variable in which it is a polynomial:

    sigma itself, as if steps were equal       ipndm          constant Adams-Bashforth weights
    sigma, with the true step sizes            ipndm_v, lms   variable-step Adams-Bashforth
    the time of a variance-preserving process  deis           tAB-DEIS

The order ramps up from 1 as history fills; order 1 is Euler everywhere.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from teachkit.checks import choice
from teachkit.schedules.linear_beta import LinearBeta
from teachkit.solvers.base import Point, Solver, combine, euler_step

# Adams-Bashforth weights for equal steps, newest direction first (PNDM, arXiv 2202.09778; DEIS, arXiv 2204.13902).
ADAMS_BASHFORTH: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(eq=False)
class _Multistep(Solver):
    """x_next = x + sum of weight * direction, the weights given by ``_weights``."""

    order: int = 4

    def __post_init__(self) -> None:
        choice("order", self.order, (1, 2, 3, 4))
        self.memory = self.order - 1

    @abstractmethod
    def _weights(self, now: Point, sigma_next: float, past: tuple[float, ...]) -> Sequence[float]:
        """Weights of the directions at the levels ``past``, newest first; they sum to sigma_next - sigma."""

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        if self.order == 1 or not history:
            return euler_step(now, sigma_next)
        points = [now, *reversed(history)][: self.order]
        weights = self._weights(now, sigma_next, tuple(p.sigma for p in points))
        return combine(now.x, 1.0, *((w, p.direction) for w, p in zip(weights, points)))


class IPNDM(_Multistep):
    """iPNDM: the Adams-Bashforth weights of equal steps, used on any grid.

    The last directions are combined with fixed weights, (3, -1) / 2 at order 2. The order rises from 1 as the history
    fills (PNDM begins with Runge-Kutta steps instead: that is what the i, improved, leaves out).

    - order: as named where steps are equal in sigma; 2 where they change slowly from one to the next, and 1 where
      they do not. At five to ten evaluations this matters less than one would think
    - cost: one evaluation a step
    - also known as: ``ipndm`` of diff-sampler and ComfyUI; ``IPNDMScheduler`` of diffusers, which does the same in
      another variable; PLMS, apart from the start
    - not for: many steps on an uneven grid, where `IPNDMV` keeps its order
    - source: DEIS, arXiv 2204.13902, Sec. 3; the weights are those of PNDM, arXiv 2202.09778

    Parameters
    ----------
    order : int
        1, 2, 3 or 4: how many directions are combined.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), IPNDM())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.00154)
    """

    name = "ipndm"

    def _weights(self, now: Point, sigma_next: float, past: tuple[float, ...]) -> Sequence[float]:
        return [(sigma_next - now.sigma) * w for w in ADAMS_BASHFORTH[len(past) - 1]]


class IPNDMV(_Multistep):
    """Variable-step iPNDM: Adams-Bashforth weights for the steps as they are.

    The direction is taken as the polynomial in sigma through its last values and integrated exactly. Public code for
    this method (diff-sampler, ComfyUI) has mistaken coefficients from order 3 on, which do not sum to 1: these are
    the method's own, and agree with that code at orders 1 and 2.

    - order: 4 by default, as named on every grid
    - cost: one evaluation a step
    - also known as: variable-step Adams-Bashforth; `LMS`; rho-AB-DEIS, ``DEIS(mode="rhoab")``; ``ipndm_v`` of
      diff-sampler and ComfyUI
    - not for: five to ten steps over four decades of sigma, where the polynomial overshoots and the fixed weights of
      `IPNDM` err less
    - source: Adams-Bashforth; for diffusion, DEIS, arXiv 2204.13902, Sec. 3

    Parameters
    ----------
    order : int
        1, 2, 3 or 4: how many directions the polynomial goes through.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), IPNDMV())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.00215)
    """

    name = "ipndm_v"

    def _weights(self, now: Point, sigma_next: float, past: tuple[float, ...]) -> Sequence[float]:
        return adams_bashforth(past, sigma_next)


class LMS(_Multistep):
    """Linear multistep: Adams-Bashforth weights for the steps as they are, under the name k-diffusion gave it.

    The direction is taken as the polynomial in sigma through its last values and integrated exactly.

    - order: 4 by default, as named on every grid
    - cost: one evaluation a step
    - also known as: variable-step Adams-Bashforth; `IPNDMV`, the same method; ``sample_lms`` of k-diffusion and
      ``LMSDiscreteScheduler`` of diffusers, which integrate the weights numerically
    - not for: five to ten steps over four decades of sigma, where the polynomial overshoots and the fixed weights of
      `IPNDM` err less
    - source: Adams-Bashforth; for diffusion, k-diffusion

    Parameters
    ----------
    order : int
        1, 2, 3 or 4: how many directions the polynomial goes through.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), LMS())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.00215)
    """

    name = "lms"

    def _weights(self, now: Point, sigma_next: float, past: tuple[float, ...]) -> Sequence[float]:
        return adams_bashforth(past, sigma_next)


@dataclass(eq=False)
class DEIS(_Multistep):
    """DEIS: the direction as a polynomial in the time of a variance-preserving process, its integral exact.

    That process has a linear beta, and its noise levels run between the ends of the schedule (where there is no such
    process, it is DDPM's). The integrals are done by Gauss-Legendre quadrature, to rounding, and cached; public code
    sums over 10,000 points. A step to sigma = 0 in this time is an Euler step.

    - order: 4 by default, as named on every grid
    - cost: one evaluation a step
    - also known as: tAB-DEIS (and, with ``mode="rhoab"``, rho-AB-DEIS, which is `IPNDMV`); ``deis`` of diff-sampler
      and ComfyUI. ``DEISMultistepScheduler`` of diffusers is another method: `RES3M` with ``prediction="eps"``
    - not for: steps that must not depend on the rest of the schedule: its ends set the time, and so the weights
    - source: DEIS, arXiv 2204.13902, Sec. 3

    Parameters
    ----------
    order : int
        1, 2, 3 or 4: how many directions the polynomial goes through.
    mode : {"tab", "rhoab"}
        The variable of the polynomial: that time, or sigma.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), DEIS())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.00052)
    """

    name = "deis"
    mode: str = "tab"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("mode", self.mode, ("tab", "rhoab"))

    def _weights(self, now: Point, sigma_next: float, past: tuple[float, ...]) -> Sequence[float]:
        if self.mode == "rhoab":
            return adams_bashforth(past, sigma_next)
        if sigma_next == 0:
            return [sigma_next - now.sigma] + [0.0] * (len(past) - 1)
        return _integrate_in_time(past, sigma_next, now.levels[-1] or now.levels[-2], now.levels[0])


_gauss = lru_cache(np.polynomial.legendre.leggauss)  # nodes and weights on [-1, 1]


@lru_cache(maxsize=4096)
def adams_bashforth(past: tuple[float, ...], sigma_next: float) -> tuple[float, ...]:
    """Integrals, from past[0] to sigma_next, of the Lagrange polynomials in sigma through ``past``."""
    # An n-point Gauss rule is exact for polynomials of degree 2 n - 1: this is a closed form.
    nodes, weights = _gauss(len(past))
    half = 0.5 * (sigma_next - past[0])
    return _weighted(past, past[0] + half * (1 + nodes), half * weights, lambda a, b: a - b)


@lru_cache(maxsize=4096)
def _integrate_in_time(
    past: tuple[float, ...], sigma_next: float, sigma_min: float, sigma_max: float, time_min: float = 1e-3
) -> tuple[float, ...]:
    """Integrals over sigma, from past[0] to sigma_next, of the Lagrange polynomials through ``past`` in the time t.

    That of the variance-preserving process between the given levels.
    """
    clock = LinearBeta.between(sigma_min, sigma_max, time_min) or LinearBeta()  # DDPM's, defined for every sigma
    # In log sigma the integrand is smooth, and 128 points reach rounding for any step between 1e-4 and 1e3.
    nodes, weights = _gauss(128)
    half = 0.5 * math.log(sigma_next / past[0])
    sigma = past[0] * np.exp(half * (1 + nodes))
    return _weighted(past, sigma, half * weights * sigma, lambda a, b: clock.elapsed(a, b).numpy())


def _weighted(
    past: tuple[float, ...], sigma: np.ndarray, weights: np.ndarray, between: Callable[[Any, float], Any]
) -> tuple[float, ...]:
    """sum_q weights_q * L_j(sigma_q) for each Lagrange polynomial L_j through ``past``.

    ``between(a, b)`` is the difference of two levels in the variable of the polynomials.
    """
    out = []
    for j, node in enumerate(past):
        others = [other for i, other in enumerate(past) if i != j]
        lagrange = np.prod([between(sigma, other) / between(node, other) for other in others], axis=0)
        out.append(float(np.sum(weights * lagrange)))
    return tuple(out)

"""Exponential multistep solvers: exact in the linear part of the ODE, polynomial in log sigma for the rest.

With lambda = -log sigma and h = lambda_next - lambda the ODE has the exact solutions

    x_next = (sigma_next / sigma) x + sigma_next * integral of e^lambda D dlambda       (data prediction, "x0")
    x_next = x - integral of e^-lambda eps dlambda                                      (noise prediction, "eps")

and the methods here replace D (or eps) by m0 + h m' (..) + ..., with derivatives from differences of earlier values.
The integrals are the functions phi_1(z) = e^z - 1, phi_2 = phi_1 / z - 1, phi_3 = phi_2 / z - 1/2 at z = -h (data) or
z = h (noise). One step in both forms:  x_next = carry * x - scale * (phi_1 m0 + phi_2 D1 + ...), with carry =
sigma_next / sigma, scale = 1 for data, and carry = 1, scale = sigma_next for noise. A step to sigma = 0, where
lambda is infinite, is an Euler step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from teachkit.checks import choice, flag
from teachkit.solvers.base import Point, Solver, combine, euler_step


def phi(z: float) -> tuple[float, float, float, float]:
    """phi_1 .. phi_4 with phi_{k+1} = phi_k / z - 1 / k!, each the tail of the exponential series over z^{k-1}."""
    if abs(z) < 0.5:  # the recurrence cancels: sum the series
        terms = [z**j / math.factorial(j) for j in range(1, 24)]
        return tuple(sum(terms[k:]) / z**k if z else 0.0 for k in range(4))  # type: ignore[return-value]
    one = math.expm1(z)
    two = one / z - 1
    three = two / z - 0.5
    return one, two, three, three / z - 1 / 6


def log_ratio(a: float, b: float) -> float:
    """log(a / b) of levels > 0; where they are close, without the difference of two equal logarithms."""
    gap = (a - b) / b
    return math.log1p(gap) if abs(gap) < 1e-6 else math.log(a) - math.log(b)


@dataclass(eq=False)
class _Exponential(Solver):
    """Shared parts: the options, the order in force, the step's z, carry and scale, and the step by differences."""

    order: int = 3
    prediction: str = "x0"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        choice("order", self.order, range(1, type(self).order + 1))  # the default is the highest
        choice("prediction", self.prediction, ("x0", "eps"))
        self.lower_order_final = flag("lower_order_final", self.lower_order_final)
        self.memory = self.order - 1

    def _model(self, point: Point) -> Tensor:
        return point.denoised if self.prediction == "x0" else point.direction

    def _order_at(self, steps_done: int, steps_left: int) -> int:
        order = min(self.order, steps_done + 1)
        return min(order, steps_left) if self.lower_order_final else order

    def _frame(self, sigma: float, sigma_next: float) -> tuple[float, float, float]:
        """z, carry and scale of a step."""
        h = log_ratio(sigma, sigma_next)
        return (-h, sigma_next / sigma, 1.0) if self.prediction == "x0" else (h, 1.0, sigma_next)

    def _advance(self, now: Point, sigma_next: float, history: Sequence[Point], exact: bool, corrected: bool) -> Tensor:
        """One step of an exponential multistep method, orders 1 to 3, from divided differences of earlier values.

        ``exact`` weighs the first difference of the second-order step by phi_2, in place of phi_1 / 2;
        ``corrected`` the second difference of the third-order step by 2 phi_3, in place of phi_3.
        """
        order = self._order_at(len(history), now.steps_left)
        if order == 1 or sigma_next == 0:
            return euler_step(now, sigma_next)
        z, carry, scale = self._frame(now.sigma, sigma_next)
        h, (phi_1, phi_2, phi_3, _) = abs(z), phi(z)
        points = [now, *reversed(history)][:order]
        r0 = log_ratio(points[1].sigma, points[0].sigma) / h
        if order == 2:  # phi_1 m0 + a (m0 - m1) / r0
            a = phi_2 if exact else 0.5 * phi_1
            weights = [phi_1 + a / r0, -a / r0]
        else:  # phi_1 m0 + a (m0 - m1) / r0 + b (m1 - m2) / r1
            r1 = log_ratio(points[2].sigma, points[1].sigma) / h
            second = phi_3 * (2 if corrected else 1)
            a = phi_2 * (1 + r0 / (r0 + r1)) + second / (r0 + r1)
            b = -(phi_2 * r0 + second) / (r0 + r1)
            weights = [phi_1 + a / r0, b / r1 - a / r0, -b / r1]
        return combine(now.x, carry, *((-scale * w, self._model(p)) for w, p in zip(weights, points)))


@dataclass(eq=False)
class DPMPP2M(_Exponential):
    """DPM-Solver++(2M): the straight line in log sigma through the last two denoised states, integrated.

    The term of the difference has the weight phi_1 / 2 in place of the exact phi_2 (`RES2M`), which agrees to the
    order of the method. A step to sigma = 0 is an Euler step.

    - order: 2
    - cost: one evaluation a step
    - also known as: "DPM++ 2M"; ``sample_dpmpp_2m`` of k-diffusion (``lower_order_final=False``);
      ``DPMSolverMultistepScheduler`` and ``EDMDPMSolverMultistepScheduler`` of diffusers, with their default order.
      With ``prediction="eps"`` it is the multistep DPM-Solver
    - not for: many steps and small errors, where methods of order 3 and 4 fall faster
    - source: DPM-Solver++, arXiv 2211.01095, Algorithm 2

    Parameters
    ----------
    order : int
        1, which is Euler's method, or 2.
    prediction : {"x0", "eps"}
        What is extrapolated: the denoised state D, or the direction (x - D) / sigma.
    lower_order_final : bool
        Make the last step one of order 1, which steadies runs of few steps.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), DPMPP2M())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.00213)
    """

    name = "dpmpp_2m"
    order: int = 2

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        return self._advance(now, sigma_next, history, exact=False, corrected=False)


@dataclass(eq=False)
class DPMPP3M(_Exponential):
    """DPM-Solver++(3M): the parabola in log sigma through the last three denoised states, as published.

    The published step takes half of the second difference that the parabola has, and so converges with order 2;
    ``corrected=True`` takes all of it. A step to sigma = 0 is an Euler step.

    - order: 2; with ``corrected=True`` and ``lower_order_final=False`` it is 3
    - cost: one evaluation a step
    - also known as: ``DPMSolverMultistepScheduler(solver_order=3)`` and
      ``EDMDPMSolverMultistepScheduler(solver_order=3)`` of diffusers; ``sample_dpmpp_3m_sde`` of k-diffusion with
      eta = 0 has the same third-order step. Corrected, and once three points are known, it is `RES3M`
    - not for: order 3, unless corrected; at order 2 it is `DPMPP2M`
    - source: DPM-Solver++, arXiv 2211.01095, and its authors' code

    Parameters
    ----------
    order : int
        1, which is Euler's method, 2 or 3.
    prediction : {"x0", "eps"}
        What is extrapolated: the denoised state D, or the direction (x - D) / sigma.
    lower_order_final : bool
        Make the last two steps ones of order 2 and 1, which steadies runs of few steps.
    corrected : bool
        Give the method the order in its name, by the whole second difference; otherwise it is as published.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), DPMPP3M(corrected=True))
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.00013)
    """

    name = "dpmpp_3m"
    corrected: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.corrected = flag("corrected", self.corrected)

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        return self._advance(now, sigma_next, history, exact=False, corrected=self.corrected)


@dataclass(eq=False)
class RES2M(_Exponential):
    """RES of order 2, multistep: the straight line in log sigma through the last two denoised states, exactly.

    The exponential Adams-Bashforth method of two points; it meets every order condition, and is exact when D is
    linear in log sigma. A step to sigma = 0 is an Euler step.

    - order: 2
    - cost: one evaluation a step
    - also known as: ``res_multistep`` of ComfyUI, ``res_2m`` of RES4LYF; with ``prediction="eps"`` it is
      ``DEISMultistepScheduler`` of diffusers at order 2
    - not for: very few steps without ``lower_order_final``, where the last one extrapolates far
    - source: RES, arXiv 2308.02157

    Parameters
    ----------
    order : int
        1, which is Euler's method, or 2.
    prediction : {"x0", "eps"}
        What is extrapolated: the denoised state D, or the direction (x - D) / sigma.
    lower_order_final : bool
        Make the last step one of order 1, which steadies runs of few steps (RES as published does not).

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), RES2M())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.0038)
    """

    name = "res_2m"
    order: int = 2
    lower_order_final: bool = False

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        return self._advance(now, sigma_next, history, exact=True, corrected=True)


@dataclass(eq=False)
class RES3M(_Exponential):
    """RES of order 3, multistep: the parabola in log sigma through the last three denoised states, exactly.

    The exponential Adams-Bashforth method of three points, exact when D is a quadratic in log sigma. A step to
    sigma = 0 is an Euler step.

    - order: 3
    - cost: one evaluation a step
    - also known as: ``res_3m`` of RES4LYF; with ``prediction="eps"`` it is ``DEISMultistepScheduler`` of diffusers
      at order 3
    - not for: very few steps without ``lower_order_final``, where the last one extrapolates far
    - source: RES, arXiv 2308.02157

    Parameters
    ----------
    order : int
        1, which is Euler's method, 2 or 3.
    prediction : {"x0", "eps"}
        What is extrapolated: the denoised state D, or the direction (x - D) / sigma.
    lower_order_final : bool
        Make the last two steps ones of order 2 and 1, which steadies runs of few steps (RES as published does not).

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), RES3M())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.00013)
    """

    name = "res_3m"
    lower_order_final: bool = False

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        return self._advance(now, sigma_next, history, exact=True, corrected=True)


@dataclass(eq=False)
class UniPC(_Exponential):
    """UniPC: a predictor, and a corrector that makes use of the next evaluation, which is needed anyway.

    The evaluation made at the predicted point first improves that point, then serves the next step: one evaluation a
    step, one order more. The last point stays as predicted. Thresholding, which public code hides in here, is
    ``dynamic_threshold`` of `teachkit.sample`. A step to sigma = 0 is an Euler step.

    - order: 2; with ``lower_order_final=False`` it is ``order`` + 1, so 4 by default
    - cost: one evaluation a step
    - also known as: ``UniPCMultistepScheduler`` of diffusers; ``uni_pc`` and ``uni_pc_bh2`` of ComfyUI
    - not for: paths of which every state should lie on the solution: those kept are the predictions
    - source: UniPC, arXiv 2302.04867, Algorithms 1 (corrector) and 2 (predictor)

    Parameters
    ----------
    order : int
        1, 2 or 3 (of the predictor).
    prediction : {"x0", "eps"}
        What is extrapolated: the denoised state D, or the direction (x - D) / sigma.
    lower_order_final : bool
        Make the last two steps ones of order 2 and 1, which steadies runs of few steps.
    variant : {"bh1", "bh2"}
        B(h) = h, or e^h - 1: how the weights, exact for small steps, go on to large ones.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), UniPC())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 4e-05)
    """

    name = "unipc"
    variant: str = "bh2"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("variant", self.variant, ("bh1", "bh2"))
        self.memory = self.order  # the corrector looks one point further back

    def _update(self, start: Point, sigma_next: float, older: Sequence[Point], end: Tensor | None) -> Tensor:
        """Predict (end=None) or correct (with the model output at the end) the step from ``start``."""
        order = self._order_at(len(older), start.steps_left)
        z, carry, scale = self._frame(start.sigma, sigma_next)
        h, phis = abs(z), phi(z)
        past = list(reversed(older))[: order - 1]
        ratios = [log_ratio(start.sigma, p.sigma) / h for p in past]  # negative: how far back, in steps
        outputs = [self._model(p) for p in past]
        if end is not None:
            ratios, outputs = [*ratios, 1.0], [*outputs, end]
        count = len(ratios)
        b_h = z if self.variant == "bh1" else phis[0]
        rhs = [phis[k] * math.factorial(k) / b_h for k in range(1, 4)][:count]
        powers = np.vander(ratios, count, increasing=True).T
        rho = [0.5] if count == 1 else np.linalg.solve(powers, rhs).tolist()  # the published choice in place of rhs[0]
        m0 = self._model(start)
        # Differences, not a weight on m0: the weights are large and opposite, and rounding would show.
        terms = ((-scale * b_h * (w / r), output - m0) for w, r, output in zip(rho, ratios, outputs))
        return combine(start.x, carry, (-scale * phis[0], m0), *terms)

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        if sigma_next == 0:
            return euler_step(now, sigma_next)
        return self._update(now, sigma_next, history, None)

    def correct(self, now: Point, history: Sequence[Point]) -> Tensor:
        *older, start = history
        return self._update(start, now.sigma, older, self._model(now))

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

import numpy as np
from torch import Tensor

from teachkit.checks import flag
from teachkit.solvers.base import Point, Solver, check_choice, combine, euler_step


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


class _Exponential(Solver):
    """Shared parts: the prediction type, the order in force, and the step's z, carry and scale."""

    def __init__(self, order: int, prediction: str, lower_order_final: bool) -> None:
        check_choice("order", order, (1, 2, 3))
        check_choice("prediction", prediction, ("x0", "eps"))
        self.order, self.prediction = order, prediction
        self.lower_order_final = flag("lower_order_final", lower_order_final)
        self.memory = order - 1

    def _model(self, point: Point) -> Tensor:
        return point.denoised if self.prediction == "x0" else point.direction

    def _order_at(self, steps_done: int, steps_left: int) -> int:
        order = min(self.order, steps_done + 1)
        return min(order, steps_left) if self.lower_order_final else order

    def _frame(self, sigma: float, sigma_next: float) -> tuple[float, float, float]:
        """z, carry and scale of a step."""
        h = log_ratio(sigma, sigma_next)
        return (-h, sigma_next / sigma, 1.0) if self.prediction == "x0" else (h, 1.0, sigma_next)


class DPMPP3M(_Exponential):
    """DPM-Solver++ multistep, third order by name (arXiv 2211.01095); `order` 2 is the usual 2M, order 1 is DDIM.

    The published third-order step leaves out a factor 2 in its second difference and converges with order 2;
    ``corrected=True`` puts it in, and the order is 3 (then it is `RES3M` once three points are known).

    Parameters
    ----------
    order : int
        1, 2 or 3.
    prediction : {"x0", "eps"}
        What is extrapolated: D, or the direction eps (then it is the multistep DPM-Solver).
    lower_order_final : bool
        Let the order fall to 2 and 1 on the last two steps, which steadies short runs.
    corrected : bool
        Use the full second difference.
    """

    name = "dpmpp_3m"
    exact_second = False  # the published second-order term uses phi_1 / 2 in place of phi_2

    def __init__(
        self, order: int = 3, prediction: str = "x0", lower_order_final: bool = True, corrected: bool = False
    ) -> None:
        super().__init__(order, prediction, lower_order_final)
        self.corrected = flag("corrected", corrected)

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        order = self._order_at(len(history), now.steps_left)
        if order == 1 or sigma_next == 0:
            return euler_step(now, sigma_next)
        z, carry, scale = self._frame(now.sigma, sigma_next)
        h, (phi_1, phi_2, phi_3, _) = abs(z), phi(z)
        points = [now, *reversed(history)][:order]
        r0 = log_ratio(points[1].sigma, points[0].sigma) / h
        if order == 2:  # phi_1 m0 + a (m0 - m1) / r0
            a = phi_2 if self.exact_second else 0.5 * phi_1
            weights = [phi_1 + a / r0, -a / r0]
        else:  # phi_1 m0 + a (m0 - m1) / r0 + b (m1 - m2) / r1
            r1 = log_ratio(points[2].sigma, points[1].sigma) / h
            second = phi_3 * (2 if self.corrected else 1)
            a = phi_2 * (1 + r0 / (r0 + r1)) + second / (r0 + r1)
            b = -(phi_2 * r0 + second) / (r0 + r1)
            weights = [phi_1 + a / r0, b / r1 - a / r0, -b / r1]
        return combine(now.x, carry, *((-scale * w, self._model(p)) for w, p in zip(weights, points)))


class DPMPP2M(DPMPP3M):
    """DPM-Solver++(2M): order 2, one evaluation a step (arXiv 2211.01095, Alg. 2). Options as in `DPMPP3M`."""

    name = "dpmpp_2m"

    def __init__(self, order: int = 2, prediction: str = "x0", lower_order_final: bool = True) -> None:
        check_choice("order", order, (1, 2))
        super().__init__(order, prediction, lower_order_final)


class RES2M(DPMPP3M):
    """RES, multistep of order 2 (arXiv 2308.02157): exponential Adams-Bashforth meeting all order conditions.

    Like DPM-Solver++(2M) with the exact phi_2 in its second term.
    """

    name = "res_2m"
    exact_second = True

    def __init__(self, order: int = 2, lower_order_final: bool = False) -> None:
        check_choice("order", order, (1, 2))
        super().__init__(order, "x0", lower_order_final, corrected=True)


class RES3M(DPMPP3M):
    """RES, multistep of order 3 (arXiv 2308.02157): exact when D is a quadratic in log sigma."""

    name = "res_3m"
    exact_second = True

    def __init__(self, order: int = 3, lower_order_final: bool = False) -> None:
        super().__init__(order, "x0", lower_order_final, corrected=True)


class UniPC(_Exponential):
    """UniPC, orders 1-3 (arXiv 2302.04867): a predictor, and a corrector that reuses the next evaluation.

    The evaluation made at the predicted point first improves that point, then serves the next step: one evaluation
    a step, one order more. The last point is left as predicted. No thresholding is hidden in here; see
    ``dynamic_threshold`` of `teachkit.sample`.

    Parameters
    ----------
    order : int
        1, 2 or 3 (of the predictor).
    variant : {"bh1", "bh2"}
        B(h) = h, or e^h - 1.
    prediction, lower_order_final
        As in `DPMPP3M`.
    """

    name = "unipc"

    def __init__(
        self, order: int = 3, variant: str = "bh2", prediction: str = "x0", lower_order_final: bool = True
    ) -> None:
        super().__init__(order, prediction, lower_order_final)
        check_choice("variant", variant, ("bh1", "bh2"))
        self.variant = variant
        self.memory = order  # the corrector looks one point further back

    def _update(self, start: Point, sigma_next: float, older: Sequence[Point], end: Tensor | None) -> Tensor:
        """Predict (end=None) or correct (with the model output at the end) the step from ``start``."""
        order = self._order_at(len(older), start.steps_left)
        z, carry, scale = self._frame(start.sigma, sigma_next)
        h, phis = abs(z), phi(z)
        past = list(reversed(older))[: order - 1]
        ratios = [log_ratio(start.sigma, p.sigma) / h for p in past]  # negative: how far back, in steps
        count = len(ratios) + (end is not None)
        b_h = z if self.variant == "bh1" else phis[0]
        rhs = [phis[k] * math.factorial(k) / b_h for k in range(1, 4)][:count]
        if count == 0:
            rho = []
        elif count == 1:
            rho = [0.5]  # the published choice at the lowest order, in place of rhs[0]
        else:
            nodes = np.array([*ratios, 1.0][:count])
            rho = np.linalg.solve(np.vander(nodes, count, increasing=True).T, rhs).tolist()
        m0 = self._model(start)
        # Differences, not a weight on m0: the weights are large and opposite, and rounding would show.
        terms = [(w / r, self._model(p) - m0) for w, r, p in zip(rho, ratios, past)]
        if end is not None:
            terms.append((rho[-1], end - m0))
        return combine(start.x, carry, (-scale * phis[0], m0), *((-scale * b_h * w, d) for w, d in terms))

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        if sigma_next == 0:
            return euler_step(now, sigma_next)
        return self._update(now, sigma_next, history, None)

    def correct(self, now: Point, history: Sequence[Point]) -> Tensor:
        *older, start = history
        return self._update(start, now.sigma, older, self._model(now))

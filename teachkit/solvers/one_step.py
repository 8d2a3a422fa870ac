"""One-step solvers: Euler, Heun, DPM-Solver-2, and EDM's stochastic sampler for contrast."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from torch import Tensor

from teachkit.checks import flag, integer, number
from teachkit.noise import initial_noise
from teachkit.solvers.base import Point, Solver, euler_step


class Euler(Solver):
    """Euler's method: order 1, one evaluation a step. Also known as DDIM (arXiv 2010.02502), written in sigma."""

    name = "euler"

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        return euler_step(now, sigma_next)


class Heun(Solver):
    """Heun's method (explicit trapezoid): order 2, two evaluations a step. EDM's Algorithm 1 (arXiv 2206.00364).

    Not to be confused with the midpoint rule (`DPM2`). A step to sigma = 0, where the second slope is undefined, is
    an Euler step; with ``euler_last`` the last step is one on any schedule, which at few steps avoids dividing a
    rough x - D by a tiny sigma_min.
    """

    name = "heun"
    evaluations = 2

    def __init__(self, euler_last: bool = False) -> None:
        self.euler_last = flag("euler_last", euler_last)

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        x_euler = euler_step(now, sigma_next)
        if sigma_next == 0 or (self.euler_last and now.steps_left == 1):
            return x_euler
        end = Point(x_euler, sigma_next, now.evaluate)
        return now.x + 0.5 * (sigma_next - now.sigma) * (now.direction + end.direction)


class DPM2(Solver):
    """DPM-Solver-2: order 2, two evaluations a step, the second at an intermediate sigma (arXiv 2206.00927, Alg. 4).

    The intermediate level is sigma^(1-r) sigma_next^r: the midpoint in log sigma for the usual r = 1/2. A step to
    sigma = 0 is an Euler step; with ``euler_last`` the last step is one on any schedule.
    """

    name = "dpm2"
    evaluations = 2

    def __init__(self, r: float = 0.5, euler_last: bool = False) -> None:
        self.r, self.euler_last = number("r", r, above=0, below=1), flag("euler_last", euler_last)

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        if sigma_next == 0 or (self.euler_last and now.steps_left == 1):
            return euler_step(now, sigma_next)
        sigma_mid = now.sigma ** (1 - self.r) * sigma_next**self.r
        mid = Point(euler_step(now, sigma_mid), sigma_mid, now.evaluate)
        slope = mid.direction if self.r == 0.5 else now.direction.lerp(mid.direction, 1 / (2 * self.r))
        return now.x + (sigma_next - now.sigma) * slope


class EDMStochastic(Solver):
    """EDM's stochastic sampler, Algorithm 2 (arXiv 2206.00364): add a little noise, then a Heun step from there.

    The one solver here that is not deterministic. With ``churn=0`` it is `Heun`.

    Parameters
    ----------
    churn : float
        S_churn: amount of noise added over all steps; each step raises sigma by the factor
        1 + min(churn / N, sqrt(2) - 1).
    sigma_low, sigma_high : float
        S_tmin, S_tmax: noise is added only between these levels.
    noise_scale : float
        S_noise: standard deviation of the added noise, relative to its nominal value.
    seed, first : int
        Seed, and number of the first sample of this batch: a sample's noise depends on nothing else.
    """

    name = "edm_stochastic"
    evaluations = 2
    analytic_first_step = False

    def __init__(
        self,
        churn: float = 40.0,
        sigma_low: float = 0.05,
        sigma_high: float = 50.0,
        noise_scale: float = 1.003,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        self.churn, self.noise_scale = number("churn", churn, least=0), number("noise_scale", noise_scale, least=0)
        self.sigma_low = number("sigma_low", sigma_low, least=0)
        no_limit = isinstance(sigma_high, float) and sigma_high == math.inf
        self.sigma_high = math.inf if no_limit else number("sigma_high", sigma_high, least=self.sigma_low)
        self.seed, self.first = integer("seed", seed, 0), integer("first", first, 0)

    def for_samples(self, seed: int, first: int) -> EDMStochastic:
        """The same with the noise of samples ``first`` on, seed and number being counted from its own."""
        own = copy.copy(self)
        own.seed, own.first = self.seed + integer("seed", seed, 0), self.first + integer("first", first, 0)
        return own

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        steps = len(now.levels) - 1
        inside = self.sigma_low <= now.sigma <= self.sigma_high
        gamma = min(self.churn / steps, math.sqrt(2) - 1) if inside else 0.0
        if gamma:
            sigma_hat = now.sigma * (1 + gamma)
            added = self.noise_scale * math.sqrt(sigma_hat**2 - now.sigma**2)
            noise = initial_noise(len(now.x), now.x.shape[1:], added, self.seed, first=self.first, stream=1 + now.index)
            now.x, now.sigma = now.x + noise.to(now.x), sigma_hat
        return Heun().step(now, sigma_next, history)

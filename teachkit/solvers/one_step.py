"""One-step solvers: Euler, Heun, DPM-Solver-2, and EDM's stochastic sampler for contrast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from teachkit.checks import flag, integer, number
from teachkit.noise import initial_noise
from teachkit.solvers.base import Point, Solver, euler_step


class Euler(Solver):
    """Euler's method: follow the direction seen here in a straight line to the next level.

    Equally: keep the share sigma_next / sigma of x and take the rest from D. The fewest assumptions, and the yardstick
    for every other method.

    - order: 1
    - cost: one evaluation a step
    - also known as: DDIM (with eta = 0, in the variable x / sqrt(1 + sigma^2)); ``sample_euler`` of k-diffusion;
      ``EulerDiscreteScheduler`` and ``DDIMScheduler`` of diffusers; DPM-Solver-1 and DPM-Solver++(1)
    - not for: few evaluations, where methods with memory cost the same and err less
    - source: DDIM, arXiv 2010.02502, eq. 13; as an ODE solver EDM, arXiv 2206.00364, Sec. 3

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(40), Euler())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.03184)
    """

    name = "euler"

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        return euler_step(now, sigma_next)


class Heun(Solver):
    """Heun's method: go to the next level by Euler, look there, and go back to take the mean of both directions.

    A step to sigma = 0, where there is no second direction, is an Euler step.

    - order: 2
    - cost: two evaluations a step, one for a last step by Euler
    - also known as: the explicit trapezoidal rule, improved Euler; EDM's deterministic sampler; ``sample_heun`` of
      k-diffusion; ``HeunDiscreteScheduler`` of diffusers. It is not the midpoint rule
    - not for: fewer than about ten evaluations: half the steps cost more than the second look gains, and a last step
      to a tiny sigma_min divides a rough x - D by it (``euler_last`` avoids that)
    - source: EDM, arXiv 2206.00364, Algorithm 1

    Parameters
    ----------
    euler_last : bool
        Make the last step an Euler step on any schedule, for one evaluation less.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(20), Heun())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.02006)
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
    """DPM-Solver-2: go part of the way by Euler, look there, and take the whole step in what was seen.

    The level in between is sigma^(1-r) sigma_next^r: for the usual r = 1/2 the midpoint in log sigma. A step to
    sigma = 0 is an Euler step.

    - order: 2, for every r
    - cost: two evaluations a step, one for a last step by Euler
    - also known as: the explicit midpoint rule in log sigma; ``sample_dpm_2`` of k-diffusion ("DPM2");
      ``KDPM2DiscreteScheduler`` of diffusers. It is not DPM-Solver++(2M), which has a memory (`DPMPP2M`)
    - not for: budgets where a method with memory can take twice as many steps
    - source: DPM-Solver, arXiv 2206.00927, Algorithm 4

    Parameters
    ----------
    r : float
        Where the second look is, as a share of the step in log sigma: 0 < r < 1.
    euler_last : bool
        Make the last step an Euler step on any schedule, for one evaluation less.

    Examples
    --------
    >>> from teachkit import Gaussian, sample, schedules
    >>> D, x = Gaussian([0.5], 0.25), torch.full((1, 1), 80.0, dtype=torch.float64)
    >>> path = sample(D, x, schedules.logsnr(20), DPM2())
    >>> path.nfe, round(float((path.final - D.flow(x, 80.0, 0.002)).abs()), 5)
    (40, 0.0095)
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


@dataclass(eq=False)
class EDMStochastic(Solver):
    """EDM's stochastic sampler: raise the level by adding a little noise, then take a Heun step down from there.

    The noise pushes a sample back towards the distribution and so forgives errors made before. The only solver here
    that is not deterministic: where a sample ends depends on its noise, drawn from the seed and its number.

    - order: 2 with ``churn=0``, where it is `Heun`
    - cost: two evaluations a step, one for a last step by Euler
    - also known as: ``sample_heun`` of k-diffusion with ``s_churn`` > 0; ``KarrasVeScheduler`` of diffusers
    - not for: few evaluations; and whatever needs one path per start, such as geometry and the search for schedules
    - source: EDM, arXiv 2206.00364, Algorithm 2

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
    euler_last : bool
        Make the last step an Euler step on any schedule, for one evaluation less.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample, schedules
    >>> D, sigmas = Gaussian([0.5], 0.25), schedules.polynomial(40)
    >>> path = sample(D, initial_noise(1000, (1,), 80.0), sigmas, EDMStochastic(churn=20, noise_scale=1.0))
    >>> path.nfe, round(float(path.final.std()), 1)
    (80, 0.5)
    """

    name = "edm_stochastic"
    evaluations = 2
    analytic_first_step = False
    churn: float = 40.0
    sigma_low: float = 0.05
    sigma_high: float = 50.0
    noise_scale: float = 1.003
    seed: int = 0
    first: int = 0
    euler_last: bool = False

    def __post_init__(self) -> None:
        self.churn, self.sigma_low = number("churn", self.churn, least=0), number("sigma_low", self.sigma_low, least=0)
        if not (isinstance(self.sigma_high, float) and self.sigma_high == math.inf):  # which means no limit
            self.sigma_high = number("sigma_high", self.sigma_high, least=self.sigma_low)
        self.noise_scale = number("noise_scale", self.noise_scale, least=0)
        self.seed, self.first = integer("seed", self.seed, 0), integer("first", self.first, 0)
        self.euler_last = flag("euler_last", self.euler_last)

    def for_samples(self, seed: int, first: int) -> EDMStochastic:
        """The same with the noise of samples ``first`` on, seed and number being counted from its own."""
        return replace(self, seed=self.seed + integer("seed", seed, 0), first=self.first + integer("first", first, 0))

    def step(self, now: Point, sigma_next: float, history: Sequence[Point]) -> Tensor:
        steps = len(now.levels) - 1
        inside = self.sigma_low <= now.sigma <= self.sigma_high
        gamma = min(self.churn / steps, math.sqrt(2) - 1) if inside else 0.0
        if gamma:
            sigma_hat = now.sigma * (1 + gamma)
            added = self.noise_scale * math.sqrt(sigma_hat**2 - now.sigma**2)
            noise = initial_noise(len(now.x), now.x.shape[1:], added, self.seed, first=self.first, stream=1 + now.index)
            now.x, now.sigma = now.x + noise.to(now.x), sigma_hat
        return Heun(self.euler_last).step(now, sigma_next, history)

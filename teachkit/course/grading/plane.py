"""The checks of the first lessons, up to solvers. Most of them in the plane, or on a line."""

from __future__ import annotations

import math
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from teachkit import Empirical, Gaussian, GaussianMixture, meanshift
from teachkit.course.grading.engine import Cases, normal, register


def _shape(answer: Any) -> tuple[int, ...]:
    """The shape of an array or tensor; () for anything else."""
    return tuple(getattr(answer, "shape", ()))


# 00_start_here


@register("share_kept", "sort x + (lower - sigma) (x - D) / sigma by x and D: what multiplies x?")
def _share_kept(answer: Any, rng: Generator) -> Cases:
    for sigma, lower in ((80.0, 24.0), (3.0, 0.6), (0.5, 0.0)):
        yield f"share of x kept from {sigma:g} to {lower:g}", answer(sigma, lower), lower / sigma


# 01_noise_and_denoising


@register(
    "posterior_covariance",
    "the Jacobian of D at each x, by torch.func.jacrev or one autograd call per output; times what?",
)
def _posterior_covariance(answer: Any, rng: Generator) -> Cases:
    data = normal(rng, 8, 2)
    for sigma in (0.4, 2.0):
        D, x = Empirical(data), normal(rng, 5, 2)
        off = data - D(x, sigma)[:, None]  # (5, 8, 2): from the posterior mean to the data
        expected = torch.einsum("bi,bij,bik->bjk", D.weights(x, sigma), off, off)
        yield f"covariances (B, 2, 2) at sigma = {sigma}", answer(partial(D, sigma=sigma), x, sigma), expected


@register("two_points", "Bayes: the weight of each point is proportional to exp(-(x - y)^2 / (2 sigma^2))")
def _two_points(answer: Any, rng: Generator) -> Cases:
    for sigma in (0.1, 0.7, 5.0):
        x = 2 * normal(rng, 7)
        yield f"D at sigma = {sigma}", answer(x, sigma), torch.tanh(x / sigma**2)


@register("denoise_by_gradient", "differentiate log_prob(x).sum() to get the score of every point, then use Tweedie")
def _denoise_by_gradient(answer: Any, rng: Generator) -> Cases:
    D = GaussianMixture([0.3, 0.7], normal(rng, 2, 2), [0.5, 0.2])
    for sigma in (0.3, 2.0):
        x = normal(rng, 6, 2)
        yield f"D at sigma = {sigma}", answer(partial(D.log_prob, sigma=sigma), x, sigma), D(x, sigma)


@register("sigma_that_keeps", "the share kept is s^2 / (s^2 + sigma^2); solve for sigma")
def _sigma_that_keeps(answer: Any, rng: Generator) -> Cases:
    for share, s in ((0.5, 3.0), (0.9, 0.4), (0.01, 7.0)):
        yield f"sigma for share {share} and s = {s}", answer(share, s), s * (1 / share - 1) ** 0.5


# 02_mean_shift


@register(
    "climb",
    "evaluate log p at the start and after every step; log-sum-exp keeps it finite far from the data",
    rtol=1e-8,
)
def _climb(answer: Any, rng: Generator) -> Cases:
    for bandwidth, reach in ((0.5, 1.0), (0.3, 100.0)):
        x, data = reach * normal(rng, 4, 2), normal(rng, 20, 2)
        density = Empirical(data)
        path = list(accumulate([x, *[bandwidth] * 5], density))
        heights, got = torch.stack([density.log_prob(p, bandwidth) for p in path]), answer(x, data, bandwidth, 5)
        what = f"4 points about {reach:g} away, bandwidth {bandwidth}: "
        if _shape(got) == heights.shape:
            off = torch.as_tensor(got) - heights
            if off.abs().max() > 1e-6 and off.std() < 1e-6:
                what += "everywhere the same is missing, so look at the constants of the density; "
            yield what + "log density at the start", got[0], heights[0]
            yield what + "log density after each of 5 steps", got[1:], heights[1:]
        else:
            yield what + "log density at the start and after 5 steps", got, heights


@register(
    "missed_by_annealing", "what decides is where the mean of all data lies, and which hill a wide bandwidth sees"
)
def _missed_by_annealing(answer: Any, rng: Generator) -> Cases:
    if answer is not None and answer is not ... and not callable(answer):
        answer = torch.as_tensor(answer).double()
        least = min(answer.shape, default=0)
        if answer.ndim != 2 or answer.shape[1] != 2 or not least or len(answer) > 300 or not answer.abs().max() <= 4:
            got = f"shape {tuple(answer.shape)}" + (f", largest {float(answer.abs().max()):g}" if least else "")
            yield "the data, to be at most 300 points (n, 2) with coordinates from -4 to 4", got, "such data"
            return
        h, start = 0.15, 8 * torch.rand(60, 2, generator=rng, dtype=torch.float64) - 4
        density, shrinking = Empirical(answer), [*np.geomspace(3.2, h, 40).tolist(), *[h] * 200]
        highest = density.log_prob(meanshift.annealed_mean_shift(density, answer, [h] * 200)[-1], h).max()
        ends = density.log_prob(meanshift.annealed_mean_shift(density, start, shrinking)[-1], h)
        answer = (ends > highest - 0.1).double().mean()
    yield "share of 60 annealed starts that end on the highest hill, which none should", answer, 0.0


@register("critical_bandwidth", "the slope of the mean-shift map at 0 decides whether points near 0 stay")
def _critical_bandwidth(answer: Any, rng: Generator) -> Cases:
    yield "the bandwidth", answer, 1.0


# 03_the_ode


def _line(rng: Generator) -> GaussianMixture:
    """A mixture of Gaussians on a line."""
    return GaussianMixture([0.5, 0.3, 0.2], 2 * normal(rng, 3, 1), [0.3, 0.1, 0.6])


def _below(data: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The mass of the noisy data (N,) below each x (B,)."""
    return torch.special.ndtr((x[:, None] - data) / sigma).mean(1)


@register(
    "velocity_from_mass", "the mass to the left of a moving point stays the same: differentiate F(x(sigma), sigma)"
)
def _velocity_from_mass(answer: Any, rng: Generator) -> Cases:
    D = _line(rng)
    width = D.variances[:, 0]

    def mass(x: Tensor, sigma: Tensor | float) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1)
        return torch.special.ndtr((x[:, None] - D.means[:, 0]) / (width + sigma**2).sqrt()) @ D.weights

    for sigma in (0.2, 1.0, 4.0):
        x = D.sample(6, rng)[:, 0] + sigma * normal(rng, 6)
        yield f"velocity at sigma = {sigma}", answer(mass, x, sigma), (x - D(x[:, None], sigma)[:, 0]) / sigma


@register(
    "end_by_rank", "paths on a line never cross, so the share of the mass to the left of x is the share at its end"
)
def _end_by_rank(answer: Any, rng: Generator) -> Cases:
    for sigma, n in ((0.5, 9), (5.0, 20)):
        data = normal(rng, n)
        x = data[torch.randint(n, (40,), generator=rng)] + sigma * normal(rng, 40)
        share = n * _below(data, x, sigma)
        x, share = (v[(share - share.round()).abs() > 1e-6] for v in (x, share))  # no start on the border of two basins
        yield f"end points of starts at sigma = {sigma}", answer(x, sigma, data), data.sort().values[share.long()]


@register(
    "predict_end", "let the Gaussian with the mean and covariance of the data flow to sigma = 0, take the nearest"
)
def _predict_end(answer: Any, rng: Generator) -> Cases:
    for sigma, stretch in ((10.0, 1.0), (3.0, 4.0)):
        data = normal(rng, 12, 2) * torch.tensor([stretch, 1.0], dtype=torch.float64) + 1
        x = sigma * normal(rng, 40, 2)
        end = Gaussian.fit(data).flow(x, sigma, 0.0)
        what = f"index of the forecast for 40 starts at sigma = {sigma:g}, 12 data points"
        yield what, answer(x, sigma, data), torch.cdist(end, data).argmin(1)


# 04_solvers


@register("ab2_step", "the slope of the line is the difference of directions over the difference of sigmas")
def _ab2_step(answer: Any, rng: Generator) -> Cases:
    for previous, sigma, sigma_next in ((9.0, 4.0, 1.0), (0.9, 0.5, 0.0)):
        x, direction, older = normal(rng, 3, 5, 2)
        h, back = sigma_next - sigma, sigma - previous
        expected = x + h * ((1 + h / (2 * back)) * direction - h / (2 * back) * older)
        what = f"step from {sigma} to {sigma_next} after one from {previous}"
        yield what, answer(x, direction, older, sigma, sigma_next, previous), expected


@register("exact_line_step", "with u = mu - lambda you need the integrals of e^(u - h) and of u e^(u - h) from 0 to h")
def _exact_line_step(answer: Any, rng: Generator) -> Cases:
    for previous, sigma, sigma_next in ((9.0, 4.0, 1.0), (0.9, 0.5, 0.4)):
        x, denoised, older = normal(rng, 3, 5, 2)
        h, back = math.log(sigma / sigma_next), math.log(previous / sigma)
        expected = math.exp(-h) * x - math.expm1(-h) * denoised + (h + math.expm1(-h)) / back * (denoised - older)
        what = f"step from {sigma} to {sigma_next} after one from {previous}"
        yield what, answer(x, denoised, older, sigma, sigma_next, previous), expected


@register("bug_museum", "a line that never falls, a line you know, a slope that is too low: which bug can do that?")
def _bug_museum(answer: Any, rng: Generator) -> Cases:
    for letter, bug in zip("ABCDE", ("ramp", "level", "denoiser", "history", "sign")):
        yield f"exhibit {letter}", answer[letter], bug


# five_evaluations


@register("heun_weights", "put both directions into the last line, and collect what stands before each answer of D")
def _heun_weights(answer: Any, rng: Generator) -> Cases:
    for sigma, sigma_next in ((2.5, 0.002), (3.0, 1.5), (0.9, 0.6)):
        x, here, there = normal(rng, 3, 4)
        direction = (x - here) / sigma
        ahead = x + (sigma_next - sigma) * direction
        expected = x + (sigma_next - sigma) * (direction + (ahead - there) / sigma_next) / 2
        w = answer(sigma, sigma_next)
        made = w if w is None or w is ... else w[0] * x + w[1] * here + w[2] * there
        yield f"Heun's step from {sigma} to {sigma_next}, by your weights", made, expected


@register("same_steps", "undo the scaling after a step: is it x + (sigma_next - sigma) * direction, for all x and D?")
def _same_steps(answer: Any, rng: Generator) -> Cases:
    for letter, same in zip("ABCDE", (True, False, True, False, False)):
        yield f"coordinates {letter}", answer[letter], same

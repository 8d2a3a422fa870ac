"""The checks of the lessons, in their order: what each exercise asks for, computed by the library.

A check is a generator of (what, got, expected) on inputs drawn from ``rng``; a hint goes with it. Several cases each:
small and large noise, near and far, so that an answer that is right by chance is found out.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from teachkit import Empirical, Gaussian, GaussianMixture, geometry, scheduling
from teachkit.course.grading.engine import Cases, register


def _normal(rng: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@register("mean_shift_step", "weights are a softmax of minus the squared distance over twice the squared bandwidth")
def _mean_shift_step(answer: Any, rng: Generator) -> Cases:
    for bandwidth, reach in ((0.4, 1.0), (3.0, 1.0), (0.4, 100.0)):
        x, data = reach * _normal(rng, 4, 2), _normal(rng, 30, 2)
        what = f"new points at bandwidth {bandwidth}, starting about {reach:g} away"
        yield what, answer(x, data, bandwidth), Empirical(data)(x, bandwidth)


@register("euler_step", "the step keeps the share sigma_next / sigma of x and takes the rest from D")
def _euler_step(answer: Any, rng: Generator) -> Cases:
    for sigma, sigma_next in ((10.0, 4.0), (0.5, 0.0)):
        x, denoised = _normal(rng, 5, 2), _normal(rng, 5, 2)
        expected = denoised + sigma_next / sigma * (x - denoised)
        yield f"step from {sigma} to {sigma_next}", answer(x, denoised, sigma, sigma_next), expected


# 00_start_here


@register("count_evaluations", "Euler evaluates the denoiser once a step; count the steps between the levels")
def _count_evaluations(answer: Any, rng: Generator) -> Cases:
    yield "evaluations for 11 levels", answer, 10


# 01_noise_and_denoising


@register("score_from_denoiser", "Tweedie: the step from x to D is the score times the variance of the noise")
def _score_from_denoiser(answer: Any, rng: Generator) -> Cases:
    for sigma in (0.3, 2.0):
        x, denoised = _normal(rng, 5, 2), _normal(rng, 5, 2)
        yield f"the score at sigma = {sigma}", answer(x, denoised, sigma), (denoised - x) / sigma**2


@register("two_points", "Bayes: the weight of each point is proportional to exp(-(x - y)^2 / (2 sigma^2))")
def _two_points(answer: Any, rng: Generator) -> Cases:
    for sigma in (0.1, 0.7, 5.0):
        x = 2 * _normal(rng, 7)
        yield f"D at sigma = {sigma}", answer(x, sigma), torch.tanh(x / sigma**2)


@register("denoise_by_gradient", "differentiate log_prob(x).sum() to get the score of every point, then use Tweedie")
def _denoise_by_gradient(answer: Any, rng: Generator) -> Cases:
    D = GaussianMixture([0.3, 0.7], _normal(rng, 2, 2), [0.5, 0.2])
    for sigma in (0.3, 2.0):
        x = _normal(rng, 6, 2)
        yield f"D at sigma = {sigma}", answer(partial(D.log_prob, sigma=sigma), x, sigma), D(x, sigma)


@register("sigma_that_keeps", "the share kept is s^2 / (s^2 + sigma^2); solve for sigma")
def _sigma_that_keeps(answer: Any, rng: Generator) -> Cases:
    for share, s in ((0.5, 3.0), (0.9, 0.4), (0.01, 7.0)):
        yield f"sigma for share {share} and s = {s}", answer(share, s), s * (1 / share - 1) ** 0.5


# 02_mean_shift


@register("climb", "evaluate log p at the start and after every step; log-sum-exp keeps it finite far from the data")
def _climb(answer: Any, rng: Generator) -> Cases:
    for bandwidth, reach in ((0.5, 1.0), (0.3, 100.0)):
        x, data = reach * _normal(rng, 4, 2), _normal(rng, 20, 2)
        density = Empirical(data)
        path = list(accumulate([x, *[bandwidth] * 5], density))
        what = f"log density of 4 points over 5 steps at bandwidth {bandwidth}, starting about {reach:g} away"
        yield what, answer(x, data, bandwidth, 5), torch.stack([density.log_prob(p, bandwidth) for p in path])


@register("count_modes", "at a mode the differences of neighbouring values change from positive to negative")
def _count_modes(answer: Any, rng: Generator) -> Cases:
    x = torch.linspace(-8, 8, 801, dtype=torch.float64)[:, None]
    for n, bandwidth in ((1, 1.0), (6, 0.1), (30, 0.2)):
        values = Empirical(2 * _normal(rng, n, 1)).log_prob(x, bandwidth)
        rises = (values.diff() > 0).tolist()
        modes = sum(a and not b for a, b in pairwise(rises))
        yield f"modes of {n} points at bandwidth {bandwidth}", answer(values), modes


@register("critical_bandwidth", "the slope of the mean-shift map at 0 decides whether points near 0 stay")
def _critical_bandwidth(answer: Any, rng: Generator) -> Cases:
    yield "the bandwidth", answer, 1.0


# 03_the_ode


@register("unrolled_weights", "they are non-negative and add up to 1 - sigmas[-1] / sigmas[0]")
def _unrolled_weights(answer: Any, rng: Generator) -> Cases:
    for n in (1, 6):
        sigmas = torch.rand(n + 1, generator=rng, dtype=torch.float64).add(0.1).cumsum(0).flip(0)
        yield f"weights for {n} steps", answer(sigmas), sigmas[-1] * (1 / sigmas[1:] - 1 / sigmas[:-1])


@register(
    "predict_end", "let the Gaussian with the mean and covariance of the data flow to sigma = 0, take the nearest"
)
def _predict_end(answer: Any, rng: Generator) -> Cases:
    for sigma, stretch in ((10.0, 1.0), (3.0, 4.0)):
        data = _normal(rng, 12, 2) * torch.tensor([stretch, 1.0], dtype=torch.float64) + 1
        x = sigma * _normal(rng, 40, 2)
        end = Gaussian.fit(data).flow(x, sigma, 0.0)
        yield f"ends of 40 starts at sigma = {sigma:g}", answer(x, sigma, data), torch.cdist(end, data).argmin(1)


# 04_solvers


@register("ab2_step", "the slope of the line is the difference of directions over the difference of sigmas")
def _ab2_step(answer: Any, rng: Generator) -> Cases:
    for previous, sigma, sigma_next in ((9.0, 4.0, 1.0), (0.9, 0.5, 0.0)):
        x, direction, older = _normal(rng, 3, 5, 2)
        h, back = sigma_next - sigma, sigma - previous
        expected = x + h * ((1 + h / (2 * back)) * direction - h / (2 * back) * older)
        what = f"step from {sigma} to {sigma_next} after one from {previous}"
        yield what, answer(x, direction, older, sigma, sigma_next, previous), expected


@register("measured_order", "fit log error = a - order * log steps by least squares")
def _measured_order(answer: Any, rng: Generator) -> Cases:
    for order in (1.0, 3.0):
        steps = [8, 16, 32, 64]
        noise = 1 + 0.1 * torch.rand(4, generator=rng, dtype=torch.float64)
        errors = (noise * 5 / torch.tensor(steps) ** order).tolist()
        expected = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
        yield f"order of errors {[f'{e:.2g}' for e in errors]}", answer(steps, errors), expected


@register("bug_museum", "a line that never falls, a line you know, a slope that is too low: which bug can do that?")
def _bug_museum(answer: Any, rng: Generator) -> Cases:
    for letter, bug in zip("ABCDE", ("ramp", "level", "denoiser", "history", "sign")):
        yield f"exhibit {letter}", answer[letter], bug


# 05_high_dimensions


@register("sigma_from_norm", "Pythagoras: the mean of |x|^2 is the power of the clean pictures plus sigma^2 d")
def _sigma_from_norm(answer: Any, rng: Generator) -> Cases:
    for dim, power in ((50, 3.0), (200, 40.0)):
        x = 4 * _normal(rng, 6, dim)
        yield f"sigma in {dim} dimensions", answer(x, power), (((x**2).sum(1) - power) / dim).sqrt()


@register("effective_number", "square the weights, add them up along each row, and invert")
def _effective_number(answer: Any, rng: Generator) -> Cases:
    weights = _normal(rng, 6, 20).mul(2).softmax(1)
    yield "the number", answer(weights), 1 / (weights**2).sum(1)


# 06_one_line_and_a_bend


@register("monotone_share", "compare every row with the next; a path counts only if no comparison fails")
def _monotone_share(answer: Any, rng: Generator) -> Cases:
    for steps in (2, 5):
        distance = torch.rand(steps + 1, 40, generator=rng, dtype=torch.float64)
        distance[:, ::3] = distance[:, ::3].sort(0, descending=True).values
        yield f"share for {steps} steps", answer(distance), (distance.diff(dim=0) <= 0).all(0).double().mean()


@register("gaussian_path", "each coordinate keeps its place in a blurred Gaussian of variance lam + sigma^2")
def _gaussian_path(answer: Any, rng: Generator) -> Cases:
    lam = torch.rand(4, generator=rng, dtype=torch.float64) + 0.1
    for sigma, sigma_next in ((80.0, 2.0), (1.0, 0.002)):
        x = sigma * _normal(rng, 5, 4)
        expected = Gaussian(torch.zeros_like(lam), lam).flow(x, sigma, sigma_next)
        yield f"states at sigma = {sigma_next}", answer(x, lam, sigma, sigma_next), expected


# 07_the_boomerang


@register("pin", "subtract the straight line from 0 to the last state, at the time of every state")
def _pin(answer: Any, rng: Generator) -> Cases:
    for steps in (3, 20):
        w = torch.cat([torch.zeros(1, 4, 6, dtype=torch.float64), _normal(rng, steps, 4, 6).cumsum(0)])
        share = (torch.arange(steps + 1) / steps).double()
        yield f"bridges of {steps} steps", answer(w), w - torch.einsum("n,bd->nbd", share, w[-1])


@register("residual_shares", "remove the component along last state minus first, then centre, then take squares")
def _residual_shares(answer: Any, rng: Generator) -> Cases:
    for steps, dim, k in ((30, 8, 3), (12, 50, 2)):
        x = _normal(rng, steps + 1, dim).cumsum(0) + 10 * torch.linspace(1, 0, steps + 1).double()[:, None]
        expected = geometry.explained_variance(x[:, None], k, remove_chord=True)[0]
        yield f"{k} shares in {dim} dimensions", answer(x, k), expected


@register("best_rotation", "U @ Vh, with the last column of U times the sign of its determinant; svd returns Vh")
def _best_rotation(answer: Any, rng: Generator) -> Cases:
    for k in (2, 3):
        for mirror in (False, True):
            reference = _normal(rng, 20, k).cumsum(0)
            turn = torch.linalg.qr(_normal(rng, k, k))[0]
            turn[:, 0] *= torch.linalg.det(turn).sign() * (-1 if mirror else 1)
            curve = reference @ turn + 0.1 * _normal(rng, 20, k)
            expected = geometry.procrustes(curve[:, None], reference, reflections=False)[0]
            yield f"R in {k} dimensions{', mirrored curve' if mirror else ''}", answer(curve, reference), expected


# 08_closed_form_scores


@register("low_rank_jump", "split x - mean into what U spans and the rest; each part has its own factor")
def _low_rank_jump(answer: Any, rng: Generator) -> Cases:
    for d, r in ((5, 2), (4, 4)):
        axes, lam = torch.linalg.qr(_normal(rng, d, r))[0], torch.rand(r, generator=rng, dtype=torch.float64) + 0.1
        mean, x = _normal(rng, d), 3 * _normal(rng, 6, d)
        expected = Gaussian(mean, axes @ lam.diag() @ axes.mT).flow(x, 5.0, 0.7)
        yield f"rank {r} in {d} dimensions", answer(x, mean, axes, lam, 5.0, 0.7), expected


@register("split_sigma", "at the middle of two equal Gaussians the second derivative of the density changes sign")
def _split_sigma(answer: Any, rng: Generator) -> Cases:
    for _ in range(3):
        s = 0.1 + float(torch.rand((), generator=rng))
        m = s + 0.1 + float(torch.rand((), generator=rng))
        yield f"m = {m:.2f}, s = {s:.2f}", answer(m, s), (m**2 - s**2) ** 0.5


# 09_training_edm


@register("edm_constants", "inputs and targets of the network have unit variance, and c_out is as small as possible")
def _edm_constants(answer: Any, rng: Generator) -> Cases:
    for sigma, sigma_data in ((0.1, 0.5), (2.0, 0.7)):
        total = sigma_data**2 + sigma**2
        expected = (sigma_data**2 / total, sigma * sigma_data / total**0.5, total**-0.5)
        answered = answer(sigma, sigma_data)
        for name, got, value in zip(("c_skip", "c_out", "c_in"), answered or (None,) * 3, expected):
            yield f"{name} at sigma = {sigma}", got, value


@register("denoised_from_noise", "solve x = x0 + sigma * eps for x0")
def _denoised_from_noise(answer: Any, rng: Generator) -> Cases:
    x, eps = _normal(rng, 3, 4), _normal(rng, 3, 4)
    yield "D", answer(x, eps, 0.8), x - 0.8 * eps


# 10_learned_vs_optimal


@register("suspicious_share", "compare every sample with the smallest of the real distances")
def _suspicious_share(answer: Any, rng: Generator) -> Cases:
    samples, real = torch.rand(40, generator=rng), torch.rand(10, generator=rng) + 0.3
    yield "the share", answer(samples, real), (samples < real.min()).double().mean()


# 11_schedules_by_dynamic_programming


@register("cheapest_path", "V_k(i) = min over j > i of C[i, j] + c V_{k-1}(j); remember each j, then walk forwards")
def _cheapest_path(answer: Any, rng: Generator) -> Cases:
    for n, steps, coefficient in ((7, 3, 1.0), (9, 4, 1.3), (6, 1, 1.0), (8, 5, 0.7)):
        cost = torch.rand(n + 1, n + 1, generator=rng, dtype=torch.float64).triu(1)
        expected = scheduling.shortest_path(cost, steps, coefficient)
        given = answer(cost.clone(), steps, coefficient)
        got = given if given is None or given is Ellipsis else [float(i) for i in given]
        yield f"the route of {steps} steps on {n + 1} levels, coefficient {coefficient}", got, expected.double()


@register("two_weights", "one column per direction, samples and coordinates below one another; solve for target - x")
def _two_weights(answer: Any, rng: Generator) -> Cases:
    for batch, d in ((5, 3), (1, 6), (12, 8)):
        x, e, before, target = (_normal(rng, batch, d) for _ in range(4))
        normal = torch.stack([torch.stack([(a * b).sum() for b in (e, before)]) for a in (e, before)])
        expected = torch.linalg.solve(normal, torch.stack([((target - x) * a).sum() for a in (e, before)]))
        yield f"the weights for {batch} samples", answer(x, e, before, target), expected


# one_step


@register("student_target", "the step is a straight line through x and target: where is it at level 0?")
def _student_target(answer: Any, rng: Generator) -> Cases:
    for sigma, sigma_next in ((80.0, 0.002), (80.0, 2.1), (2.1, 0.8)):
        x, target = sigma * _normal(rng, 4, 3), sigma_next * _normal(rng, 4, 3) + 1
        expected = (sigma * target - sigma_next * x) / (sigma - sigma_next)
        yield f"D for a step from {sigma} to {sigma_next}", answer(x, target, sigma, sigma_next), expected


@register("variety", "what is left when every image has its own class's mean removed? compare how large that is")
def _variety(answer: Any, rng: Generator) -> Cases:
    for classes, more in ((2, 90), (5, 40)):
        labels = torch.arange(classes).repeat_interleave(60 + more * torch.arange(classes))
        centres = 4 * _normal(rng, classes, 16)[labels]
        ends, own = (_normal(rng, len(labels), 16) for _ in range(2))
        few = torch.where((labels == 0)[:, None], own, 0.1 * own)
        got = [answer(centres + made, centres + ends, labels) for made in (own, 0 * own, own / 2, few)]
        if any(value is None or value is ... for value in got):
            yield "variety", None, 1.0
        same, none, half, mostly = (float(value) for value in got)
        yield "as varied as the teacher: between 0.9 and 1.1", 0.9 < same < 1.1, True
        yield "one image a class: below 0.01", none < 0.01, True
        yield "half as far from the mean of the class: between 0.45 and 0.55", 0.45 < half < 0.55, True
        yield "all classes but one nearly collapsed: below 0.8", mostly < 0.8, True
        yield "the same in another unit", float(answer(50 * (centres + own), 50 * (centres + ends), labels)), same
        yield "the same when every sample is too bright", float(answer(centres + own + 3, centres + ends, labels)), same


# 13_your_own_model


@register("denoised_from_v", "v = (eps - sigma x0) / sqrt(1 + sigma^2) and z = (x0 + sigma eps) / sqrt(1 + sigma^2)")
def _denoised_from_v(answer: Any, rng: Generator) -> Cases:
    for sigma in (0.05, 0.8, 14.0):
        x0, eps = _normal(rng, 3, 4), _normal(rng, 3, 4)
        z, v = ((a + b) / (1 + sigma**2) ** 0.5 for a, b in ((x0, sigma * eps), (eps, -sigma * x0)))
        yield f"D at sigma = {sigma}", answer(z, v, sigma), x0


@register("correction", "noise the clean data to sigma, tell the model each multiple of it, and take the least error")
def _correction(answer: Any, rng: Generator) -> Cases:
    exact = Gaussian(_normal(rng, 6), 0.3)
    clean = exact.sample(4000, rng)
    for planted in (1.0, 3.0, 0.5):

        def model(x: Tensor, sigma: float | Tensor, labels: Tensor | None = None, planted: float = planted) -> Tensor:
            return exact(x, planted * sigma)

        got = answer(model, clean, 0.7, [1 / 3, 0.5, 1.0, 2.0, 3.0])
        yield f"the factor for a model that takes {planted:g} sigma for sigma", got, 1 / planted

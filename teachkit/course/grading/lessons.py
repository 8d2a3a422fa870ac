"""The checks of the lessons from high dimensions on: what each exercise asks for, computed by the library.

A check is a generator of (what, got, expected) on inputs drawn from ``rng``; a hint goes with it. Several cases each:
small and large noise, near and far, so that an answer that is right by chance is found out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from teachkit import Gaussian, geometry
from teachkit.course.grading.engine import Cases, normal, register

# 06_high_dimensions


@register("sigma_from_norm", "Pythagoras: the mean of |x|^2 is the power of the clean pictures plus sigma^2 d")
def _sigma_from_norm(answer: Any, rng: Generator) -> Cases:
    for dim, power in ((50, 3.0), (200, 40.0)):
        x = 4 * normal(rng, 6, dim)
        yield f"sigma in {dim} dimensions", answer(x, power), (((x**2).sum(1) - power) / dim).sqrt()


@register("told_apart", "only the noise along the line between the two pictures decides which is nearer")
def _told_apart(answer: Any, rng: Generator) -> Cases:
    for dim, sigma in ((3, 0.4), (300, 20.0), (300, 4.0)):
        one, other = normal(rng, 2, dim)
        expected = torch.special.ndtr((one - other).norm() / (2 * sigma))
        yield f"probability in {dim} dimensions at sigma = {sigma}", answer(one, other, sigma), expected


# 07_one_line_and_a_bend


@register("highest_point", "multiply out, and set the derivative to 0: the level is the root of a sigma_max / (2 h)")
def _highest_point(answer: Any, rng: Generator) -> Cases:
    for sigma_max in (20.0, 80.0, 320.0):
        h, a = (1 + 3 * torch.rand(2, generator=rng, dtype=torch.float64)).tolist()
        sigma = torch.logspace(-1, 1.3, 200_001, dtype=torch.float64)
        law = (1 - sigma / sigma_max) * (h - a / (2 * sigma))
        found, name = answer(h, a, sigma_max), f"from sigma_max = {sigma_max:g}"
        if found is None or found is ...:
            yield f"level and height {name}", found, 0.0
        level, height = found
        yield f"level {name}", level, float(sigma[law.argmax()])
        yield f"height {name}", height, float(law.max())


@register(
    "smooth_null", "a smooth curve over each chord, to a side drawn by chance across it, as high as the path's own bend"
)
def _smooth_null(answer: Any, rng: Generator) -> Cases:
    steps, paths, dim = 100, 12, 40
    normal(rng, 7)  # an answer that draws from the same seed must not find the chord's own numbers
    along = 600 * torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:, None, None] ** 0.5
    unit = torch.nn.functional.normalize(normal(rng, paths, dim), dim=1)
    line = 5 * normal(rng, paths, dim) + along * unit
    side = normal(rng, paths, dim)
    side = torch.nn.functional.normalize(side - (side * unit).sum(1, keepdim=True) * unit, dim=1)
    share = along / 600
    corner = torch.minimum(share / 0.94, (1 - share) / 0.06)  # straight, but for one late corner
    wave = (torch.pi * share).sin() + 0.2 * (2 * torch.pi * share).sin() * normal(rng, paths, 1)  # smooth, by chance
    planted, real = (line + 3 * shape / shape.amax(0) * side for shape in (wave, corner))

    def within(x: Any, factor: float) -> float:
        """Share of the length whose angle to the chord is at most so many times height / chord."""
        length = geometry.arc_length(x).diff(dim=0)
        slope = factor * geometry.deviation(x).amax(0) / geometry.distance_to_end(x)[0]
        return float(((length * (geometry.cosines(x).clamp(max=1).acos() <= slope)).sum(0) / length.sum(0)).mean())

    for x, name in ((planted, "planted"), (real, "real")):
        fake = answer(x, 1009)
        if not isinstance(fake, torch.Tensor):
            yield "curves", fake, x
        yield f"ends of the curves, {name}", fake[[0, -1]], x[[0, -1]]
        yield f"largest deviation, {name}", geometry.deviation(fake).amax(0), geometry.deviation(x).amax(0)
        yield "another seed gives other curves", bool((fake - answer(x, 2027)).abs().max() > 0.1), True
        turned = torch.nn.functional.cosine_similarity(fake - line, x - line, dim=2)[10:90].abs().mean()
        yield "curves that bend to a side of their own, not to the paths'", bool(turned < 0.5), True
    reached = within(answer(planted, 1009), 5) > within(planted, 5) - 0.3
    yield "nothing is found where nothing is: as straight as smooth curves by chance", reached, True
    below = within(answer(real, 1009), 1.25) < within(real, 1.25) - 0.2
    yield "the late corner is found where it is: the null has none", below, True


# 08_the_boomerang


@register("best_rotation", "U @ Vh, with the last column of U times the sign of its determinant; svd returns Vh")
def _best_rotation(answer: Any, rng: Generator) -> Cases:
    for k in (2, 3):
        for mirror in (False, True):
            reference = normal(rng, 20, k).cumsum(0)
            turn = torch.linalg.qr(normal(rng, k, k))[0]
            turn[:, 0] *= torch.linalg.det(turn).sign() * (-1 if mirror else 1)
            curve = reference @ turn + 0.1 * normal(rng, 20, k)
            expected = geometry.procrustes(curve[:, None], reference, reflections=False)[0]
            yield f"R in {k} dimensions{', mirrored curve' if mirror else ''}", answer(curve, reference), expected


@register("fair_null", "beside the chord: a sum of sine waves in time, each of its own size, in directions of chance")
def _fair_null(answer: Any, rng: Generator) -> Cases:
    steps, paths, d = 40, 16, 400
    for falls, flat in ((1, False), (2, False), (3, False), (2, True), (1, True)):
        k = torch.arange(1, steps, dtype=torch.float64)
        where = normal(rng, steps - 1, paths, d)
        where[..., 0], where[..., 3 if flat else d :] = 0, 0  # across the chord, which has direction 0; in a plane
        wave = torch.sin(torch.pi * torch.arange(steps + 1) * k[:, None] / steps)
        x = torch.einsum("kn,kbd->nbd", wave, where * k[:, None, None] ** -falls) * d**-0.5
        x[..., 0] = 80 * torch.linspace(1, 0, steps + 1).double()[:, None] ** 2
        null = answer(x, 0)
        if null is None or null is ...:
            yield "curves", null, x
            return
        what = f"{'flat' if flat else 'chance'} paths whose waves fall as 1 / k^{falls}"
        yield f"{what}: both ends", null[[0, -1]], x[[0, -1]]
        yield f"{what}: progress along the chord", null[..., 0], x[..., 0]
        size, wanted = (geometry.deviation(y).square().mean(0).sqrt() for y in (null, x))
        yield f"{what}: size of the bend", size, wanted
        found, own = (geometry.explained_variance(y, 2, remove_chord=True)[:, 1].mean() for y in (null, x))
        if flat:
            yield f"{what}: is their flatness more than the null has", bool(found < own - 0.02), True
        else:
            yield f"{what}: is the null as flat as they are", bool(abs(found - own) < 0.04), True
        yield f"{what}: is it another curve with another seed", not torch.allclose(null, answer(x, 1)), True


# curvature_and_torsion


@register("gaussian_curvature", "x' and x'' follow from f(sigma); take from x'' what lies along x', then over |x'|^2")
def _gaussian_curvature(answer: Any, rng: Generator) -> Cases:
    for d, sigma in ((2, 1.0), (5, 30.0), (5, 0.05)):
        lam = torch.rand(d, generator=rng, dtype=torch.float64) + 0.1
        x = (lam + sigma**2).sqrt() * normal(rng, 4, d)  # states at this sigma
        first, second = x * sigma / (lam + sigma**2), x * lam / (lam + sigma**2) ** 2
        speed = torch.linalg.vector_norm(first, dim=1, keepdim=True)
        across = second - (second * first).sum(1, keepdim=True) * first / speed**2
        yield f"{d} dimensions at sigma = {sigma}", answer(x, lam, sigma), across.norm(dim=1) / speed[:, 0] ** 2


@register(
    "apparent_peak", "half a window is window // 2 steps; at which sigma is that much of the path left?", rtol=0.01
)
def _apparent_peak(answer: Any, rng: Generator) -> Cases:
    for steps, window in ((1000, 101), (400, 61), (2000, 51)):
        yield f"{steps} steps, window {window}", answer(steps, window), 80 * (window // 2) / steps


# 10_gaussians


@register("mean_is_enough", "write s = sigma* / sqrt(lam), set sqrt(1 + s^2) - s = tau, and solve for s")
def _mean_is_enough(answer: Any, rng: Generator) -> Cases:
    for lam, tau in ((1.0, 0.5), (2.8, 0.1), (0.3, 0.9)):
        # sqrt(1 + s^2) = cosh a and s = sinh a: their difference is exp(-a)
        yield f"lam = {lam}, tau = {tau}", answer(lam, tau), lam**0.5 * float(np.sinh(-np.log(tau)))


@register("low_rank_jump", "split x - mean into what U spans and the rest; each part has its own factor")
def _low_rank_jump(answer: Any, rng: Generator) -> Cases:
    for d, r in ((5, 2), (4, 4)):
        axes, lam = torch.linalg.qr(normal(rng, d, r))[0], torch.rand(r, generator=rng, dtype=torch.float64) + 0.1
        mean, x = normal(rng, d), 3 * normal(rng, 6, d)
        expected = Gaussian(mean, axes @ lam.diag() @ axes.mT).flow(x, 5.0, 0.7)
        yield f"rank {r} in {d} dimensions", answer(x, mean, axes, lam, 5.0, 0.7), expected


# 12_training_edm


@register("equal_errors", "an error of F of size 1 becomes an error of D of size c_out: which c_out have the three?")
def _equal_errors(answer: Any, rng: Generator) -> Cases:
    for sigma_data in (0.5, 0.2 + float(torch.rand((), generator=rng))):
        answered = answer(sigma_data)
        for name, got, value in zip(("the level", "the factor"), answered or (None,) * 2, (sigma_data, 2**0.5)):
            yield f"{name} for sigma_d = {sigma_data:.2f}", got, value


@register(
    "skip_by_direction", "in the principal directions the pixels are independent: three constants for each of them"
)
def _skip_by_direction(answer: Any, rng: Generator) -> Cases:
    for sigma, spread in ((0.3, 1.0), (5.0, 1.0), (1.0, 10.0)):
        points = normal(rng, 20, 3) @ normal(rng, 3, 3) * spread + 2
        fitted = Gaussian.fit(points)
        variances, axes = torch.linalg.eigh(torch.cov(points.T, correction=0))
        x = normal(rng, 4, 3) * (sigma + spread)
        yield f"D at sigma = {sigma}", answer(x, points.mean(0), axes, variances, sigma), fitted(x, sigma)


# 13_learned_vs_optimal


@register("tied_share", "by how much does the share exceed that of samples which do not depend on the split?")
def _tied_share(answer: Any, rng: Generator) -> Cases:
    for n, m, copies in ((40, 10, 0), (40, 10, 9), (8, 40, 12), (20, 20, 20)):
        train, held_out, samples = normal(rng, n, 3), normal(rng, m, 3), normal(rng, 20, 3)
        samples[:copies] = train[torch.randint(n, (copies,), generator=rng)] + 1e-3 * normal(rng, copies, 3)
        nearest = torch.cdist(samples, torch.cat([train, held_out])).argmin(1)
        share, chance = float((nearest < n).double().mean()), n / (n + m)
        what = f"{copies} copies planted among 20, {n} digits trained on, {m} held out"
        yield what, answer(samples, train, held_out), (share - chance) / (1 - chance)


# 14_schedules_by_dynamic_programming


@register("greedy_trap", "make the cheapest first jump end where every way on is dear")
def _greedy_trap(answer: Any, rng: Generator) -> Cases:
    for ratio in (1.5, 4.0, 30.0):
        given = answer(ratio)
        if given is None or given is Ellipsis:
            yield "the costs", given, torch.zeros(1)
            return
        cost = torch.as_tensor(given).double()
        yield "the shape", torch.tensor(cost.shape), torch.tensor([4, 4])
        above = cost[torch.ones(4, 4).triu(1).bool()]
        yield "whether all costs above the diagonal are positive", bool((above > 0).all()), True
        through = cost[0, 1:3] + cost[1:3, 3]
        greedy = through[cost[0, 1:3].argmin()]
        yield f"whether greed costs at least {ratio:g} times as much", bool(greedy >= ratio * through.min()), True


# learned_solvers


@register("two_step_row", "the two weights sum to 1; for d(sigma) = sigma their sum must be the middle of the step")
def _two_step_row(answer: Any, rng: Generator) -> Cases:
    for before, now, after in ((8.0, 4.0, 2.0), (3.0, 2.0, 1.0), (5.0, 1.5, 0.002)):
        older = (after - now) / (2 * (before - now))
        yield f"the row for {before}, {now} and {after}", answer(before, now, after), torch.tensor([older, 1 - older])


@register("two_weights", "one column per direction, samples and coordinates below one another; solve for target - x")
def _two_weights(answer: Any, rng: Generator) -> Cases:
    for batch, d in ((5, 3), (1, 6), (12, 8)):
        x, e, before, target = (normal(rng, batch, d) for _ in range(4))
        products = torch.stack([torch.stack([(a * b).sum() for b in (e, before)]) for a in (e, before)])
        expected = torch.linalg.solve(products, torch.stack([((target - x) * a).sum() for a in (e, before)]))
        yield f"the weights for {batch} samples", answer(x, e, before, target), expected


# one_step


@register("student_target", "the step is a straight line through x and target: where is it at level 0?")
def _student_target(answer: Any, rng: Generator) -> Cases:
    for sigma, sigma_next in ((80.0, 0.002), (80.0, 2.1), (2.1, 0.8)):
        x, target = sigma * normal(rng, 4, 3), sigma_next * normal(rng, 4, 3) + 1
        expected = (sigma * target - sigma_next * x) / (sigma - sigma_next)
        yield f"D for a step from {sigma} to {sigma_next}", answer(x, target, sigma, sigma_next), expected


@register("variety", "what is left when every image has its own class's mean removed? compare how large that is")
def _variety(answer: Any, rng: Generator) -> Cases:
    for classes, more in ((2, 90), (5, 40)):
        labels = torch.arange(classes).repeat_interleave(60 + more * torch.arange(classes))
        centres = 4 * normal(rng, classes, 16)[labels]
        ends, own = (normal(rng, len(labels), 16) for _ in range(2))
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


# 18_your_own_model


@register("denoised_from_v", "v = (eps - sigma x0) / sqrt(1 + sigma^2) and z = (x0 + sigma eps) / sqrt(1 + sigma^2)")
def _denoised_from_v(answer: Any, rng: Generator) -> Cases:
    for sigma in (0.05, 0.8, 14.0):
        x0, eps = normal(rng, 3, 4), normal(rng, 3, 4)
        z, v = ((a + b) / (1 + sigma**2) ** 0.5 for a, b in ((x0, sigma * eps), (eps, -sigma * x0)))
        yield f"D at sigma = {sigma}", answer(z, v, sigma), x0


@register("correction", "noise the clean data to sigma, tell the model each multiple of it, and take the least error")
def _correction(answer: Any, rng: Generator) -> Cases:
    exact = Gaussian(normal(rng, 6), 0.3)
    clean = exact.sample(4000, rng)
    for planted in (1.0, 3.0, 0.5):

        def model(x: Tensor, sigma: float | Tensor, labels: Tensor | None = None, planted: float = planted) -> Tensor:
            return exact(x, planted * sigma)

        got = answer(model, clean, 0.7, [1 / 3, 0.5, 1.0, 2.0, 3.0])
        yield f"the factor for a model that takes {planted:g} sigma for sigma", got, 1 / planted

"""Claims about exact denoisers and the mean-shift picture: identities, likelihood, the two ends, Gaussians.

r(x; sigma) = x + sigma^2 grad log p_sigma(x) = sum_i w_i y_i is a mean-shift step with bandwidth sigma; Euler's method
goes a part of the way. Taught in ``notebooks/01_noise_and_denoising`` to ``03_the_ode``, ``10_gaussians`` and
``11_stages``.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor

from teachkit import data, geometry, meanshift, metrics, regularity, sample, schedules
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import above_one, at_least, at_most, exact, same_size
from teachkit.course.claims.fixtures import ratio
from teachkit.course.claims.registry import DEFAULT_MODEL, Measurement, Setting, claim, measured
from teachkit.denoisers import Denoiser, Empirical, Gaussian
from teachkit.sampling import Trajectory

P3, P2, P1 = "arXiv 2506.10177", "arXiv 2405.11326", "arXiv 2305.19947"


@claim("tweedie", place=f"{P3}, Lemma 1", figure="equal", criterion=exact(1e-8), lesson="noise_and_denoising")
def _tweedie(run: Setting) -> Measurement:
    """The best denoiser is x + sigma^2 times the gradient of the log-density."""
    D = fixtures.exact_denoiser()
    worst = 0.0
    for sigma in (0.5, 2.0, 10.0, 80.0):
        x = (fixtures.noise(run, run.pick(16, 256), (1, 8, 8)) * sigma / 80).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(D.log_prob(x, sigma).sum(), x)
        right = D(x, sigma).detach()
        worst = max(worst, float((x.detach() + sigma**2 * gradient - right).abs().max() / right.abs().max()))
    return measured(worst, detail="largest relative difference, digits 8x8, four noise levels")


@claim("denoiser-ends", place=f"{P3}, Lemma 3 and Sec. 4", figure="equal in the limits", criterion=at_most(5), digits=1,
       unit="%", lesson="noise_and_denoising")  # fmt: skip
def _ends(run: Setting) -> Measurement:
    """The exact denoiser is the nearest data point at small noise and the mean of the data at large noise."""
    images = fixtures.digits().images
    some = images[:: run.pick(20, 2)]
    eps = fixtures.noise(run, len(some), (1, 8, 8)) / 80
    mean = images.mean(0)
    size = (images - mean).flatten(1).norm(dim=1).mean()
    near, far = some + 0.002 * eps, some + 80 * eps
    nearest = images[torch.cdist(near.flatten(1), images.flatten(1)).argmin(1)]
    noise = (near - nearest).flatten(1).norm(dim=1)

    def share(D: Denoiser) -> Tensor:
        left, off = ((D(x, s) - y).flatten(1).norm(dim=1) for x, s, y in ((near, 0.002, nearest), (far, 80.0, mean)))
        return 100 * torch.maximum(left / noise, off / size)

    detail = "larger of: noise left at sigma 0.002; off the mean at 80, over digit to mean; control: a Gaussian's"
    return measured(share(fixtures.exact_denoiser()), "%", detail, share(Gaussian.fit(images)))


@claim("one-ode", place=f"{P3}, Lemma 4; DDIM: arXiv 2010.02502", figure="equal", criterion=exact(), lesson="the_ode")
def _one_ode(run: Setting) -> Measurement:
    """Variance-preserving and variance-exploding sampling follow one curve: DDIM is Euler's method in sigma."""
    D, sigmas = fixtures.exact_denoiser(), schedules.polynomial(30)
    x = fixtures.noise(run, run.pick(16, 256), (1, 8, 8))
    path = sample(D, x, sigmas)
    alpha = (1 + sigmas**2).rsqrt()
    z = alpha[0] * x
    for n, s in enumerate(sigmas[:-1].tolist()):
        x0 = D(z / alpha[n], s)
        eps = (z - alpha[n] * x0) / (1 - alpha[n] ** 2).sqrt()
        z = alpha[n + 1] * x0 + (1 - alpha[n + 1] ** 2).sqrt() * eps
    return measured((z / alpha[-1] - path.final).abs().max(), detail="largest difference of the ends")


@claim("mean-shift-step", place=f"{P3}, Sec. 4.2", figure="equal", criterion=exact(1e-12), lesson="mean_shift")
def _mean_shift(run: Setting) -> Measurement:
    """A full Euler step of the exact denoiser, from sigma to 0, is one step of mean shift."""
    moons = data.two_moons(300, seed=0)
    start = fixtures.noise(run, run.pick(200, 20_000), (2,)) / 80
    step = sample(Empirical(moons), start, [0.3, 0.0]).final
    by_hand = torch.softmax(-torch.cdist(start, moons).square() / (2 * 0.3**2), 1) @ moons
    library = meanshift.annealed_mean_shift(Empirical(moons), start, [0.3])[-1]
    worst = max(float((step - other).abs().max()) for other in (by_hand, library))
    return measured(worst, detail="largest difference, two moons, bandwidth 0.3")


@claim("euler-average", place=f"this library; follows from {P3}, Prop. 1", criterion=exact(1e-12),
       lesson="the_ode")  # fmt: skip
def _average(run: Setting) -> Measurement:
    """A path by Euler's method is a weighted average of its start and of the denoiser's outputs."""
    x = fixtures.noise(run, run.pick(100, 4000), (2,))
    path = sample(Empirical(data.ring(400, seed=0)), x, schedules.polynomial(40))
    start, weights = regularity.unrolled_weights(path.sigmas)
    rebuilt = start[-1] * path.x[0] + torch.einsum("m,mbd->bd", weights[-1], path.denoised)
    negative = float(weights.clamp(max=0).abs().max())
    off = float((weights.sum(1) + start - 1).abs().max())
    worst = max(float((rebuilt - path.final).abs().max()), negative, off)
    return measured(worst, detail="largest of: difference of the ends, a negative weight, sum of weights - 1")


@claim("likelihood-one-bandwidth", place=f"{P2}, Prop. A.14", figure="never falls", criterion=at_least(0), digits=1,
       unit="nats", lesson="the_ode")  # fmt: skip
def _likelihood(run: Setting) -> Measurement:
    """Moving to the denoised point raises the likelihood, with one bandwidth for mean and density."""
    paths = fixtures.exact_paths(run)
    rises = []
    for n in range(0, len(paths.denoised), run.pick(10, 2)):
        gain, bound = regularity.likelihood_gain(fixtures.exact_denoiser(), paths.x[n], float(paths.sigmas[n]), steps=1)
        if bool((gain[-1] < bound[-1] * (1 - 1e-9)).any()):
            raise RuntimeError("a rise of the likelihood is below its lower bound: the density is wrong")
        rises.append(gain[-1])
    detail = "smallest rise of log p on paths of digits 8x8; all above |D - x|^2 / 2 sigma^2"
    return measured(torch.stack(rises).min(), "nats", detail)


@claim("likelihood-any-bandwidth", place=f"{P2}, Prop. A.14, carried over to other bandwidths",
       criterion=at_least(0), unit="nats",
       remark="the mean must be taken with the bandwidth of the density: between two points it falls into the valley",
       lesson="the_ode")  # fmt: skip
def _any_bandwidth(run: Setting) -> Measurement:
    """Moving to the denoised point raises the likelihood at any bandwidth of the density."""
    two = Empirical(torch.tensor([[0.0], [10.0]], dtype=torch.float64))
    x = torch.tensor([[1.0]], dtype=torch.float64)
    changes = {s: float(two.log_prob(two(x, s), 1.0) - two.log_prob(x, 1.0)) for s in (1.0, 3.0, 10.0, 30.0, 100.0)}
    detail = "worst change of log p_1 from x = 1, data {0, 10}, mean at sigma 1 to 100"
    return measured(min(changes.values()), "nats", detail)


@claim("isotropic-straight", place="closed form; the control of the deviation", figure="deviation 0", criterion=exact(),
       lesson="one_line_and_a_bend")  # fmt: skip
def _isotropic(run: Setting) -> Measurement:
    """For data with one variance in all directions the paths are straight lines."""
    D = Gaussian(torch.zeros(1, 8, 8, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64))
    path = sample(D, fixtures.noise(run, run.pick(32, 512), (1, 8, 8)), schedules.polynomial(50))
    return measured(geometry.deviation(path, relative=True).max(), detail="largest deviation / chord")


@claim("replay", place=f"{P3}, Lemma 3, followed to the end", criterion=at_least(99), digits=1, unit="%",
       lesson="learned_vs_optimal")  # fmt: skip
def _replay(run: Setting) -> Measurement:
    """The exact denoiser of a data set can only replay it."""
    images = fixtures.digits().images.flatten(1)
    own = torch.cdist(images[:: run.pick(8, 1)], images).kthvalue(2, dim=1).values.median()
    nearest = torch.cdist(fixtures.exact_paths(run).final.flatten(1), images).amin(1)
    return measured(100 * (nearest < 0.1 * own).double(), "%", "samples that are a digit of the data, 8x8")


@claim("covariance-matters", place=f"this library; after {P3}, Sec. 4.3, and arXiv 2412.09726", criterion=above_one(),
       lesson="gaussians")  # fmt: skip
def _covariance(run: Setting) -> Measurement:
    """A Gaussian with the covariance of the data follows the exact paths longer than one without directions."""
    images, paths = fixtures.digits().images, fixtures.exact_paths(run)
    full, plain = (fixtures.follows(D, paths, images) for D in fixtures.two_gaussians(images))
    detail = f"steps within 5 % of the data radius: {full.mean():.0f} % against {plain.mean():.0f} %"
    return ratio(full, plain, detail=detail)


@claim("span", place=f"{P3}, Prop. 1, step after step", figure="distance 0", criterion=exact(), lesson="stages")
def _span(run: Setting) -> Measurement:
    """A path stays in the span of its start and of what the denoiser said on the way."""
    x = fixtures.noise(run, run.pick(32, 256), (1, 8, 8))
    path = sample(fixtures.exact_denoiser(), x, schedules.polynomial(20))
    swapped = dataclasses.replace(path, denoised=path.denoised.roll(1, dims=1))
    own, control = (regularity.span_residual(paths)[-1] for paths in (path, swapped))
    return measured(own.max(), detail="end to its span; control: to another path's", control=control)


@claim("rotation", place=f"{P3}, Sec. 4, which draws it; how much turns where: this library", criterion=at_least(50),
       digits=0, unit="%", lesson="stages")  # fmt: skip
def _rotation(run: Setting) -> Measurement:
    """Most of the turn of a path about the denoised point falls where several images compete."""
    images, paths = fixtures.digits().images, fixtures.exact_paths(run)
    gaussian = sample(Gaussian.fit(images), paths.x[0], paths.sigmas)
    own, control = (fixtures.turned_between(p, paths, fixtures.exact_denoiser()) for p in (paths, gaussian))
    whole = regularity.rotation(paths).sum(0).mean()
    detail = f"share of {whole:.0f} degrees while 1.1 images to a tenth of them count"
    return measured(own, "%", f"{detail}; control: a Gaussian's path, same levels", control)


THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the way from guessing to certain


@claim("speciation", place="arXiv 2402.18491, carried over to ten classes", figure="ratio 1",
       criterion=same_size(1), lesson="stages",
       remark="it depends on what counts as chosen: between a tenth of the way from guessing to certain and nine "
              "tenths the ratio falls more than fivefold")  # fmt: skip
def _speciation(run: Setting) -> Measurement:
    """A path chooses its class where the noise is as wide as the data in its widest direction."""
    own, control = commitment_ratios(*fixtures.digits(), fixtures.exact_paths(run), run.seed)
    half, ends = THRESHOLDS.index(0.5), (min(m.low for m in own), max(m.high for m in own))
    detail = "level of commitment / predicted, ten digits, half way; interval: paths, and a tenth to nine tenths"
    if run.full and run.model == DEFAULT_MODEL:
        large = []
        for name, of in (("emoji32", "nine categories"), ("photos32", "which photograph")):
            there, chance = commitment_ratios(*data.load(name), fixtures.large_paths(run, name), run.seed)
            large.append(f"{name} {there[half].value:.2f} ({of}; shuffled {chance[half].value:.2f})")
        detail += f"; in 3,072 dimensions: {', '.join(large)}"
    return Measurement(own[half].value, *ends, "", f"{detail}; control: labels shuffled", control[half].value)


def commitment_ratios(images: Tensor, classes: Tensor, paths: Trajectory, seed: int) -> list[list[Measurement]]:
    """Level of commitment over the predicted one at each of ``THRESHOLDS``, for the labels and for shuffled ones."""
    predicted, least = regularity.speciation_sigma(images), 1 / len(classes.unique())
    shuffled = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))]
    found = []
    for labels in (classes, shuffled):
        posteriors = regularity.class_posteriors(Empirical(images.to(paths.x), labels=labels), paths)
        shares = (least + (1 - least) * t for t in THRESHOLDS)
        levels = (regularity.commitment_sigma(posteriors, paths.sigmas, share) for share in shares)
        found.append([measured(level / predicted) for level in levels])
    return found


@claim("speciation-order", place="arXiv 2402.18491; the test on pairs: this library", criterion=at_least(0.7),
       lesson="stages")  # fmt: skip
def _speciation_order(run: Setting) -> Measurement:
    """Which two classes part first is told by the widest direction of their data."""
    images, classes = fixtures.digits()
    x, levels = fixtures.noise(run, run.pick(128, 512), (1, 8, 8), stream=3), schedules.polynomial(40)
    rows, pairs = [], list(itertools.combinations(range(10), 2))
    for a, b in pairs:
        both = (classes == a) | (classes == b)
        D = Empirical(images[both], labels=(classes[both] == b).long())
        posteriors = regularity.class_posteriors(D, sample(D, x, levels))
        chosen = [regularity.commitment_sigma(posteriors, levels, (1 + t) / 2).log().nanmean() for t in THRESHOLDS[1:]]
        spread = (images[both] - images[both].mean(0)).square().mean().sqrt().log()
        rows.append(torch.stack([torch.tensor(regularity.speciation_sigma(images[both])).log(), spread, *chosen]))
    table = torch.stack(rows).double()  # (45 pairs, ...): logarithms

    def correlation(values: Tensor) -> Tensor:
        return torch.corrcoef(values.T)[0, 1]

    others = [float(correlation(table[:, [0, k]])) for k in range(2, table.shape[1])]
    half = 2 + THRESHOLDS[1:].index(0.5)
    detail = f"correlation over 45 pairs of digits, half way; {min(others):.2f} to {max(others):.2f} from 1/4 to 9/10"
    own, low, high = metrics.bootstrap(correlation, table[:, [0, half]])
    without = [correlation(table[[k not in p for p in pairs]][:, [0, half]]) for k in range(10)]
    error = (9 * torch.stack(without).var(correction=0)).sqrt()  # jackknife: pairs share classes
    interval = min(low, own - 1.96 * float(error)), min(1.0, max(high, own + 1.96 * float(error)))
    control = float(correlation(table[:, [1, half]]))
    return Measurement(own, *interval, "", f"{detail}; control: the total variance", control)

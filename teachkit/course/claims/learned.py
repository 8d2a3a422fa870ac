"""Claims about trained networks beside the exact denoiser of their training data, r_net against r*.

The optimum of the training loss replays its data; where a network departs from it is where it draws something new.
Taught in ``notebooks/10_gaussians``, ``11_stages``, ``12_training_edm``, ``13_learned_vs_optimal`` and
``18_your_own_model``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit import geometry, metrics, regularity, sample, schedules
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import above_one, at_least, same_size
from teachkit.course.claims.fixtures import ratio
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.denoisers import Denoiser, Gaussian, LowRankMixture
from teachkit.edm.loss import edm_loss

P1, P2, P3 = "arXiv 2305.19947", "arXiv 2405.11326", "arXiv 2506.10177"
OWN = "model and its data"


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm((a - b).flatten(1), dim=1)


@claim("generalises", place=f"this library; after {P1}", criterion=above_one(), digits=1, needs=OWN,
       lesson="training_edm")  # fmt: skip
def _generalises(run: Setting) -> Measurement:
    """At sigma 0.4 a trained network denoises new images better than the exact denoiser of its data and a Gaussian."""
    held_out = fixtures.training_data(run)[1].images
    images = held_out[: run.pick(180, len(held_out))]
    noise = fixtures.noise(run, len(images), tuple(images.shape[1:])).to(images) / 80
    sigma = torch.full((len(images),), 0.4, dtype=images.dtype, device=images.device)
    denoisers = fixtures.optimum(run), fixtures.gaussians(run)[0], fixtures.network(run)
    exact, gaussian, own = (edm_loss(D, images, sigma, noise) for D in denoisers)
    best = min(exact, gaussian, key=lambda losses: float(losses.mean()))
    found = ratio(
        best, own, detail="loss on held-out digits at sigma 0.4, better closed form / network; control: Gaussian"
    )
    return found._replace(control=float(best.mean() / gaussian.mean()))


@claim("draws-new", place=f"this library; after {P1}, Sec. 5", criterion=at_least(50), digits=0, unit="%", needs=OWN,
       lesson="learned_vs_optimal")  # fmt: skip
def _new(run: Setting) -> Measurement:
    """A trained network draws new images: no copies of its training data, and no farther from them than real ones."""
    train, held_out = (part.images.flatten(1) for part in fixtures.training_data(run))
    paths = fixtures.network_paths(run), fixtures.optimal_paths(run), fixtures.gaussian_paths(run)
    own, *others = (torch.cdist(p.final.flatten(1), train).amin(1).double().cpu() for p in paths)
    real = torch.cdist(held_out, train).amin(1).double().cpu()
    found = metrics.bootstrap(_as_far_as_real, own, real)  # both are drawn: samples and held-out images
    detail = "samples within the middle 90 % of held-out images' distances; control: exact denoiser or Gaussian"
    control = max(float(_as_far_as_real(other, real)) for other in others)
    return measured(found, detail=detail, control=control)._replace(unit="%")


def _as_far_as_real(distances: Tensor, real: Tensor) -> Tensor:
    """Share of the samples, in %, no nearer to the training data and no farther than the middle 90 % of real images."""
    low, high = torch.quantile(real, real.new_tensor([0.05, 0.95]))
    return 100 * ((distances >= low) & (distances <= high)).double().mean()


@claim("same-bend", place=f"this library; after {P3}, Sec. 3 and 4", criterion=same_size(1), needs=OWN,
       lesson="learned_vs_optimal",
       remark="a Gaussian with the mean and the covariance of the data bends as much: the size alone does not show "
              "that the images were learned")  # fmt: skip
def _same(run: Setting) -> Measurement:
    """Learned and exact denoisers make bends of one size."""
    paths = fixtures.network_paths(run), fixtures.optimal_paths(run), fixtures.gaussian_paths(run)
    own, exact, plain = (geometry.deviation_peak(p)[0] for p in paths)
    found = ratio(own, exact, detail="largest deviation, network / exact; control: Gaussian of the data / exact")
    return found._replace(control=ratio(plain, exact).value)


@claim("bend-follows-end", place="this library", criterion=at_least(0.7), needs=OWN, lesson="learned_vs_optimal")
def _follows_end(run: Setting) -> Measurement:
    """The farther from the mean of the data a network's path ends, the higher its bend."""
    paths = fixtures.network_paths(run)
    centre = fixtures.training_data(run)[0].images.mean(0)
    length = _distance(paths.x[-1], paths.x[0])
    height = (geometry.deviation_peak(paths)[0] * length).double().cpu()
    end, start = (_distance(x, centre).double().cpu() for x in (paths.x[-1], paths.x[0]))
    found = metrics.bootstrap(_correlation, height, end, paired=True)
    detail = "correlation of the bend's height with |end - mean|; control: with |start - mean|"
    return measured(found, detail=detail, control=float(_correlation(height, start)))


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([a, b]))[0, 1]


def _regions(run: Setting, on_network: bool) -> Measurement:
    paths = fixtures.network_paths(run) if on_network else fixtures.optimal_paths(run)
    rows = range(0, len(paths.denoised), 6)

    def gaps(other: Denoiser) -> Tensor:
        each = [_distance(paths.denoised[n], other(paths.x[n], float(paths.sigmas[n]))) for n in rows]
        return torch.stack(each, 1).double().cpu()

    def statistic(g: Tensor) -> Tensor:
        middle = g.median(0).values
        return middle[1:-1].max() / torch.maximum(middle[0], middle[-1])

    if on_network:
        detail = "largest gap between / larger gap at the ends, on paths of the network"
        return measured(metrics.bootstrap(statistic, gaps(fixtures.optimum(run))), detail=detail)
    detail = "largest gap between / larger gap at the ends, on paths of the exact denoiser; control: Gaussian"
    control = statistic(gaps(fixtures.gaussians(run)[0]))
    return measured(metrics.bootstrap(statistic, gaps(fixtures.network(run))), detail=detail, control=control)


@claim("three-regions-exact-path", place=P1, figure="small, large, small", criterion=at_least(2), digits=1, needs=OWN,
       lesson="learned_vs_optimal",
       remark="a Gaussian of the data does so too: whatever has the right mean agrees at large noise, and whatever "
              "returns its input at small")  # fmt: skip
def _regions_exact(run: Setting) -> Measurement:
    """Network and exact denoiser agree at large and at small noise and differ between, on paths of the exact one."""
    return _regions(run, on_network=False)


@claim("three-regions-network-path", place=P1, figure="small, large, small", criterion=at_least(2), digits=1, needs=OWN,
       remark="a network's path ends away from all training data, and the exact denoiser points there until the end",
       lesson="learned_vs_optimal")  # fmt: skip
def _regions_network(run: Setting) -> Measurement:
    """Network and exact denoiser agree at large and at small noise and differ between, on paths of the network."""
    return _regions(run, on_network=True)


@claim("closer-than-step", place=f"{P2}, Prop. A.14", figure="all of 50,000 paths", criterion=at_least(99), digits=0,
       unit="%", needs=OWN, lesson="learned_vs_optimal",
       remark="once the network has settled on a new image, the nearest training image is elsewhere")  # fmt: skip
def _closer(run: Setting) -> Measurement:
    """The network's output is closer to the exact denoiser's than the state is, all along its path."""
    paths, D = fixtures.network_paths(run), fixtures.optimum(run)
    share = []
    for n in range(0, len(paths.denoised), 4):
        right = D(paths.x[n], float(paths.sigmas[n]))
        share.append((_distance(paths.denoised[n], right) <= _distance(right, paths.x[n])).double())
    return measured(100 * torch.stack(share).mean(0), "%", "states with |r_net - r*| <= |r* - x|")


@claim("gaussian-first-steps", place="arXiv 2412.09726", figure="15 to 30 %", criterion=at_least(15), digits=0,
       unit="%", needs=OWN, lesson="gaussians",
       remark="a Gaussian without directions nearly does so too: what ends it is the network's own error at "
              "large noise")  # fmt: skip
def _first_steps(run: Setting) -> Measurement:
    """A Gaussian with the data's covariance can replace the first 15 to 30 % of a network's steps."""
    images = fixtures.training_data(run)[0].images.double()
    paths = fixtures.network_sample(run, fixtures.network_paths(run).x[0], schedules.polynomial(50))
    own, plain = (fixtures.follows(D, paths, images) for D in fixtures.gaussians(run))
    return measured(own, "%", "steps within 5 % of the data radius; control: one variance for all directions", plain)


@fixtures.cached
def _jumps(run: Setting) -> tuple[Tensor, dict[str, Tensor]]:
    """Errors of plain sampling with 8, 12 and 16 evaluations ``(B, 3)``, and with 8 after jumps to 10 ``(B,)``."""
    x, end = fixtures.network_reference(run)

    def error(start: Tensor, sigmas: Tensor) -> Tensor:
        final = fixtures.network_sample(run, start, sigmas, "ipndm", keep="final").final
        return metrics.error_to_reference(final, end).double().cpu()

    centre = fixtures.training_data(run)[0].images.double().mean(0)
    forms = {"Gaussian": fixtures.gaussians(run)[0], "mean": Gaussian(centre, 0.0).to(x)}
    short = schedules.polynomial(8, sigma_max=10.0)
    at_ten = {name: error(regularity.teleport(form, x, 80.0, 10.0), short) for name, form in forms.items()}
    return torch.stack([error(x, schedules.polynomial(n)) for n in (8, 12, 16)], 1), at_ten


def _saved(rows: Tensor) -> float:
    """Evaluations saved at equal error by what needs 8: rows of errors of plain sampling at 8, 12, 16, and its own."""
    mean, nfe = rows.mean(0).log(), torch.tensor([8.0, 12.0, 16.0]).double().log()
    curve, target = mean[:-1], mean[-1]
    i = int((curve > target).sum().clamp(1, len(curve) - 1))
    share = ((target - curve[i - 1]) / (curve[i] - curve[i - 1])).clamp(0, 1)
    return float((nfe[i - 1] + share * (nfe[i] - nfe[i - 1])).exp()) - 8


@claim("teleport", place="arXiv 2412.09726; the control: this library", criterion=at_least(1), digits=1, needs=OWN,
       lesson="gaussians",
       remark="shrinking the distance to the mean, without any covariance, saves nearly as much")  # fmt: skip
def _teleport(run: Setting) -> Measurement:
    """Jumping to sigma 10 by the flow of a Gaussian saves evaluations of the network."""
    plain, at_ten = _jumps(run)
    own, control = (metrics.bootstrap(_saved, torch.cat([plain, e[:, None]], 1)) for e in at_ten.values())
    return measured(own, detail="evaluations saved at equal error, 8 used; control: the mean only", control=control)


@claim("teleport-covariance", place="this library", criterion=at_least(1), digits=1, needs=OWN,
       lesson="gaussians",
       remark="at sigma 10 the mean does nearly all of it; nearer to the data the covariance counts")  # fmt: skip
def _teleport_covariance(run: Setting) -> Measurement:
    """The covariance, and not only the mean, is what makes a jump save evaluations."""
    plain, at_ten = _jumps(run)

    def more(rows: Tensor) -> float:
        return _saved(rows[:, :4]) - _saved(rows[:, [0, 1, 2, 4]])

    pairs = metrics.bootstrap(more, torch.cat([plain, torch.stack(list(at_ten.values()), 1)], 1))
    return measured(pairs, detail="saved with the covariance minus saved with the mean only, jump to 10, 8 used")


@claim("rotation-network", place="this library", criterion=at_least(50), digits=0, unit="%", needs=OWN, lesson="stages",
       remark="it has no image to settle on: its direction turns to the end, as a Gaussian's does")  # fmt: skip
def _rotation_network(run: Setting) -> Measurement:
    """Most of the turn of a network's path, too, falls where several images compete."""
    paths, optimal = fixtures.network_paths(run), fixtures.optimal_paths(run)
    own, exact = (fixtures.turned_between(p, optimal, fixtures.optimum(run)) for p in (paths, optimal))
    detail = f"share of the turning at levels where 1.1 images to a tenth count; the optimum: {exact.mean():.0f} %"
    return measured(own, "%", detail)


@claim("guidance-bends", place="this library; the paper samples without guidance", criterion=at_least(1.5), digits=1,
       needs=OWN, lesson="your_own_model",
       remark="it depends on the data; Gaussians of the classes, in closed form, bend as much")  # fmt: skip
def _guided(run: Setting) -> Measurement:
    """Guidance at w = 4 makes paths leave their chord at least one and a half times as far."""
    train, model = fixtures.training_data(run)[0], fixtures.network(run)
    closed = LowRankMixture.fit(train.images.double(), train.labels).to(next(model.parameters()))
    x, kept = fixtures.network_noise(run, run.pick(32, 256), stream=2), []
    classes = torch.arange(len(x), device=run.device) % (int(train.labels.max()) + 1)
    levels = schedules.polynomial(60)
    for denoiser in (model, closed):
        free = sample(denoiser, x, levels, "unipc")
        guided = sample(denoiser, x, levels, "unipc", labels=classes, guidance=4.0)
        kept.append(ratio(*(geometry.deviation_peak(paths)[0] for paths in (guided, free))))
    detail = "largest deviation, w = 4 / without the class (w = 0); control: Gaussians of the classes"
    return kept[0]._replace(detail=detail, control=kept[1].value)

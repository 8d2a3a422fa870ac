"""Claims about the shape of paths: length, one line and a bend, flatness, one shape, and the controls of each.

Everything is measured on 100 Euler steps of dx/dsigma = (x - D) / sigma from 80 to 0.002, mostly of a trained network;
null models around the same chords are a Brownian bridge, which is rough, an integrated walk and a bow, which are smooth
as paths of an ODE are, and Gaussians with random variances. Full measurements add exact denoisers of pictures in 3,072
dimensions. Taught in the lessons from high dimensions to curvature and torsion.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from teachkit import data, geometry, metrics, regularity, sample, schedules
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import at_least, at_most, below_one, between, same_size
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.denoisers import Empirical, Gaussian
from teachkit.sampling import Trajectory

P3 = "arXiv 2506.10177, Sec. 3"
KINDS: dict[Callable[..., Tensor], str] = {
    fixtures.bridges: "Brownian bridges",
    fixtures.walks: "integrated walks",
    fixtures.bows: "smooth bows",
}
A12 = "arXiv 2405.11326, Remark A.12"


@claim("path-length", place=P3, figure="1 (8868 of 8868)", criterion=between(0.95, 1.05), needs="model",
       lesson="high_dimensions")  # fmt: skip
def _length(run: Setting) -> Measurement:
    """The length of a path is sigma_max times the root of the dimension."""
    paths = fixtures.network_paths(run)

    def share(p: Trajectory) -> Tensor:
        return geometry.arc_length(p)[-1] / (80 * p.x[0, 0].numel() ** 0.5)

    return measured(share(paths), detail=f"length / (80 sqrt(d)), network{fixtures.beyond(run, share)}")


def _constancy(paths: Trajectory, where: str) -> Measurement:
    mean, spread = regularity.noise_norm_spread(paths)
    detail = f"largest - smallest |eps| / sqrt(d) on a path, {where}; mean {mean.mean():.2f}"
    return measured(spread, detail=detail)


@claim("eps-constant-exact", place=A12, figure="small", criterion=at_most(0.1), lesson="high_dimensions")
def _eps_exact(run: Setting) -> Measurement:
    """On a path of an exact denoiser of images |eps| stays at the root of the dimension."""
    return _constancy(fixtures.exact_paths(run), "digits 8x8")


@claim("eps-constant-network", place=f"carried over to a network from {A12}", criterion=at_most(0.1), needs="model",
       lesson="high_dimensions",
       remark="below the grain of the density that a network has learned, |eps| falls")  # fmt: skip
def _eps_network(run: Setting) -> Measurement:
    """On a path of a trained network |eps| stays at the root of the dimension."""
    return _constancy(fixtures.network_paths(run), "network")


@claim("eps-constant-plane", place=f"carried over to the plane from {A12}", criterion=at_most(0.1),
       remark="concentration needs many dimensions", lesson="high_dimensions")  # fmt: skip
def _eps_plane(run: Setting) -> Measurement:
    """In two dimensions, too, |eps| stays constant on a path."""
    x = fixtures.noise(run, run.pick(128, 2048), (2,))
    return _constancy(sample(Empirical(data.ring(1000, seed=0)), x, schedules.polynomial(60)), "ring")


@claim("deviation-size", place=P3, figure="0.34 % (30 of 8868)", criterion=same_size(0.34, factor=1.5), unit="%",
       needs="model", lesson="one_line_and_a_bend",
       remark="the height follows from how far ends lie from the mean of the data, and from the level where a path "
              "turns: of small pictures it turns later, and higher")  # fmt: skip
def _deviation(run: Setting) -> Measurement:
    """A path leaves the straight line between its ends by a third of a percent of its length."""
    paths = fixtures.network_paths(run)
    spread = (paths.final - paths.denoised[0]).square().mean()  # of the samples around the mean of the data
    plain = Gaussian(torch.zeros_like(paths.x[0, 0]), spread)

    def share(p: Trajectory) -> Tensor:
        return 100 * geometry.deviation_peak(p)[0]

    straight = share(sample(plain, paths.x[0], paths.sigmas))
    detail = f"largest deviation / chord, network{fixtures.beyond(run, share, '%')}"
    return measured(share(paths), "%", f"{detail}; control: one variance for all directions", straight)


@claim("deviation-where", place=P3, figure="about 10", criterion=same_size(10), digits=1, needs="model",
       lesson="one_line_and_a_bend",
       remark="the level grows with the largest variance of the data, and with the root of sigma_max")  # fmt: skip
def _where(run: Setting) -> Measurement:
    """The deviation is largest near sigma 10."""
    paths = fixtures.network_paths(run)
    bow = paths.sigmas.to(paths.x)[geometry.deviation(fixtures.bows(paths)).argmax(0)]

    def level(p: Trajectory) -> Tensor:
        return geometry.deviation_peak(p)[1]

    detail = f"sigma of the largest deviation, network{fixtures.beyond(run, level, digits=1)}; control: smooth bows"
    return measured(level(paths), detail=detail, control=bow)


@claim("bend-law", place="this library; follows from D = mean at large noise", criterion=at_least(0.8), needs="model",
       lesson="one_line_and_a_bend")  # fmt: skip
def _law(run: Setting) -> Measurement:
    """The bend of a path is as high as its end is far from the mean of the data, across the chord."""
    paths = fixtures.network_paths(run)
    height = geometry.deviation(paths).amax(0)
    away = (paths.final - paths.denoised[0]).flatten(1)  # at sigma_max D is the mean
    chord = (paths.final - paths.x[0]).flatten(1)
    unit = chord / chord.norm(dim=1, keepdim=True)
    across = (away - (away * unit).sum(1, keepdim=True) * unit).norm(dim=1)

    def correlation(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / (a.norm() * b.norm())

    at = int((paths.sigmas - 10).abs().argmin())
    law = float(1 - paths.sigmas[at] / paths.sigmas[0]) * across / geometry.deviation(paths)[at]
    detail = (
        f"correlation over paths, network; at sigma 10 law / deviation {law.mean():.2f}; control: another path's end"
    )
    both = height.double().cpu(), across.double().cpu()
    own, other = (metrics.bootstrap(correlation, both[0], b, paired=True) for b in (both[1], both[1].roll(1)))
    return measured(own, detail=detail, control=float(other.value))


@claim("bend-predicted", place=f"{P3}, predicted here", figure="0.34 %", criterion=same_size(0.34, factor=1.15),
       unit="%", lesson="one_line_and_a_bend")  # fmt: skip
def _predicted(run: Setting) -> Measurement:
    """A Gaussian with the spectrum of photographs bends as much as a network's paths on ImageNet 64, in closed form."""
    shape, sigmas = (3, 64, 64), schedules.polynomial(100)
    x = fixtures.noise(run, run.pick(8, 64), shape)
    found = []
    for alpha in (2.0, 1.0):  # of photographs (Field 1987); and a flatter one
        flow = Gaussian.power_law(shape, alpha, variance=0.25)
        path = torch.stack([flow.flow(x, 80.0, float(s)) for s in sigmas])
        dev = geometry.deviation(path)
        found.append((100 * dev.amax(0) / geometry.distance_to_end(path)[0], float(sigmas[dev.argmax(0)].mean())))
    detail = f"deviation / chord, spectrum 1 / f^2, largest at sigma {found[0][1]:.0f}; control: spectrum 1 / f"
    return measured(found[0][0], "%", detail, found[1][0])


def _beside(
    run: Setting, share: Callable[[Trajectory | Tensor], Tensor], detail: str, null: Callable[..., Tensor]
) -> Measurement:
    """A share in % of each of the network's paths, and as the control that of curves by chance around their chords."""
    paths = fixtures.network_paths(run)
    return measured(share(paths), "%", f"{detail}; control: {KINDS[null]}", share(null(paths)))


def _straight(paths: Trajectory | Tensor) -> Tensor:
    steps = geometry.arc_length(paths).diff(dim=0)
    near = geometry.cosines(paths) > torch.cos(torch.deg2rad(torch.tensor(1.0, dtype=torch.float64)))
    return 100 * (steps * near).sum(0) / steps.sum(0)


@claim("straight-share", place=P3, figure="about 80 %", criterion=at_least(80), digits=0, unit="%", needs="model",
       remark="a smooth bow as high around the same chord is as straight: the share says that the bend is low",
       lesson="one_line_and_a_bend")  # fmt: skip
def _straight_share(run: Setting) -> Measurement:
    """At least 80 % of the length of a path is nearly straight."""
    return _beside(run, _straight, "length within 1 degree of the chord", fixtures.bows)


def _to_the_corner(paths: Trajectory | Tensor) -> Tensor:
    steps, angle = geometry.arc_length(paths).diff(dim=0), geometry.cosines(paths).clamp(max=1).acos()
    slope = geometry.deviation(paths).amax(0) / geometry.distance_to_end(paths)[0]
    return 100 * (steps * (angle <= 1.25 * slope)).sum(0) / steps.sum(0)


@claim("one-corner", place="this library; a fairer form of straight-share", criterion=at_least(80), digits=0, unit="%",
       needs="model", lesson="one_line_and_a_bend")  # fmt: skip
def _one_corner(run: Setting) -> Measurement:
    """On 80 % of its length a path is no steeper, within a quarter, than a straight line as high as its bend."""
    return _beside(run, _to_the_corner, "angle to the chord <= 1.25 height / chord", fixtures.walks)


def _monotone(paths: Trajectory | Tensor) -> Tensor:
    return 100 * (geometry.distance_to_end(paths).diff(dim=0) <= 1e-9).all(0).double()


@claim("monotone-images", place=P3, figure="all paths", criterion=at_least(100), digits=0, unit="%", needs="model",
       remark="true of every path drawn, and of smooth curves made by chance around the same chords: it follows from "
              "a low bend; no count of all excludes rare exceptions",
       lesson="one_line_and_a_bend")  # fmt: skip
def _monotone_images(run: Setting) -> Measurement:
    """The distance to the end falls at every step."""
    return _beside(run, _monotone, "paths of the network", fixtures.walks)


@claim("monotone-plane", place=f"carried over to the plane from {P3}", criterion=at_least(100), digits=0,
       unit="%", lesson="one_line_and_a_bend",
       remark="a path heads for the mean of all modes, goes past its own end, and comes back")  # fmt: skip
def _monotone_plane(run: Setting) -> Measurement:
    """The distance to the end falls at every step, whatever the data: also on a ring of modes in the plane."""
    return measured(_monotone(fixtures.ring_paths(run)), "%", "paths on the ring")


@claim("raw-pca", place="the naive reading of a principal component analysis", criterion=at_least(99), unit="%",
       needs="model",
       remark="a Brownian bridge around the same chord does as well: the share says that the chord is long",
       lesson="the_boomerang")  # fmt: skip
def _raw(run: Setting) -> Measurement:
    """One principal component explains a path: sampling is one-dimensional."""
    return _beside(
        run,
        lambda p: 100 * geometry.explained_variance(p, 1)[:, 0],
        "one component, chord included",
        fixtures.bridges,
    )


@claim("residual-pca", place=P3, figure="about 85 %", criterion=at_least(85), digits=1, unit="%", needs="model",
       remark="smooth curves made by chance have 93 %: the reported 85 % lies below them, and only what is above says "
              "anything",
       lesson="the_boomerang")  # fmt: skip
def _residual(run: Setting) -> Measurement:
    """Two components explain 85 % of what is left of a path without its chord."""

    def share(p: Trajectory | Tensor) -> Tensor:
        return 100 * geometry.explained_variance(p, 2, remove_chord=True)[:, 1]

    detail = f"two components, chord removed{fixtures.beyond(run, share, '%', digits=1)}"
    return _beside(run, share, detail, fixtures.walks)


@claim("chord-in-alignment", place=f"{P3}, eq. 13, carried over to curves with their chord",
       criterion=at_most(0.1), needs="model",
       remark="with the times of the bends shuffled they coincide as well: only the long chord is compared",
       lesson="the_boomerang")  # fmt: skip
def _with_chord(run: Setting) -> Measurement:
    """Turned onto one another in three dimensions, all paths coincide."""
    curves = geometry.project(fixtures.network_paths(run))
    shuffled = torch.cat([curves[..., :1], regularity.time_shuffled(curves[..., 1:], seed=0)], -1)
    own, null = (geometry.procrustes_residual(c, curves[:, 0])[1:] for c in (curves, shuffled))
    return measured(own, detail="misfit, 0 to 2; control: times of the bends shuffled", control=null)


@claim("one-shape", place=f"{P3}, eq. 13", figure="nearly coincide", criterion=at_most(0.005), digits=4,
       needs="model", lesson="the_boomerang",
       remark="paths of an exact denoiser scatter more: each must end on an image of the data")  # fmt: skip
def _one_shape(run: Setting) -> Measurement:
    """The bends of all paths, turned about the chord onto one another, nearly coincide."""
    curves = geometry.project(fixtures.network_paths(run))
    halves = curves[:, ::2], curves[:, 1::2]
    own = torch.cat([_misfit(one, _mean_bend(other)) for one, other in (halves, halves[::-1])])
    null = _misfit(geometry.project(_random_spectra(run)).to(curves), _mean_bend(curves))
    detail = "misfit, 0 to 2, with the mean bend of the other half; control: Gaussians with random variances"
    return measured(own, detail=detail, control=null)


@claim("one-shape-everywhere", place=f"our extension of {P3}", criterion=at_most(0.005), digits=2, needs="model",
       lesson="the_boomerang",
       remark="where a path bends follows from the variances of the data: each set of data has its own")  # fmt: skip
def _everywhere(run: Setting) -> Measurement:
    """Paths to photographs have the bend of paths to digits."""
    mean = _mean_bend(geometry.project(fixtures.network_paths(run)))
    photographs = data.load("photos32").images[:: run.pick(20, 5)].double()
    paths = sample(Empirical(photographs), fixtures.noise(run, run.pick(8, 64), (3, 32, 32)), schedules.polynomial(100))
    own = _misfit(geometry.project(paths).to(mean), mean)
    return measured(own, detail="misfit, 0 to 2, of exact paths to photographs with the network's mean bend")


@claim("shape-of-a-root", place="our reading of arXiv 2506.10177, Sec. 4.3", criterion=at_most(0.05), digits=3,
       needs="model", lesson="the_boomerang")  # fmt: skip
def _root(run: Setting) -> Measurement:
    """One number tells the bend of a path: it is that of sqrt(lambda + sigma^2) with one lambda."""
    paths = fixtures.network_paths(run)
    n, b, d = paths.x.flatten(2).shape
    smooth = regularity.integrated_walk(n - 1, b, d, seed=0, like=paths)
    own, null = (_best_root(geometry.project(x), paths.sigmas) for x in (paths, smooth))
    return measured(own, detail="misfit, 0 to 2, best lambda for each path; control: smooth curves", control=null)


def _mean_bend(curves: Tensor) -> Tensor:
    """The bends (N+1, B, 3) scaled to unit size, laid on the first and averaged, with its chord: (N+1, 3)."""
    aligned = geometry.align(curves, about_chord=True)
    size = torch.linalg.vector_norm(aligned[..., 1:], dim=(0, 2), keepdim=True)
    return torch.cat([aligned[:, 0, :1], (aligned[..., 1:] / size).mean(1)], 1)


def _misfit(curves: Tensor, reference: Tensor) -> Tensor:
    """Squared distance left when the bends (N+1, B, 3) are laid on a reference (N+1, 3): (B,)."""
    return geometry.procrustes_residual(curves, reference, about_chord=True)


def _random_spectra(run: Setting) -> Tensor:
    """Exact paths of Gaussians in 64 dimensions, each with 64 variances drawn evenly between 0 and 1: (101, B, 64)."""
    x = fixtures.noise(run, run.pick(32, 256), (64,), stream=2)
    lam = torch.rand(x.shape, generator=torch.Generator().manual_seed(run.seed), dtype=x.dtype)
    sigmas = schedules.polynomial(100)[:, None, None]
    return x * ((lam + sigmas**2) / (lam + 6400)).sqrt()


def _best_root(curves: Tensor, sigmas: Tensor) -> Tensor:
    """The smallest misfit of each bend (N+1, B, 3) with the flat bend of one root, over its lambda: (B,)."""
    found = []
    for lam in torch.logspace(-2, 3, 41, dtype=torch.float64):
        pair = torch.stack([((lam + sigmas**2) / (lam + sigmas[0] ** 2)).sqrt(), sigmas / sigmas[0]], 1)
        flat = torch.nn.functional.pad(geometry.project(pair[:, None])[:, 0], (0, 3))[:, :3]
        found.append(_misfit(curves, flat.to(curves)))
    return torch.stack(found).amin(0)


@claim("shuffled-control", place="the usual control of an alignment", criterion=same_size(2), digits=1,
       needs="model",
       remark="after turning, curves lie on one side and share their mean whatever the order; centre them, or know it",
       lesson="the_boomerang")  # fmt: skip
def _shuffled(run: Setting) -> Measurement:
    """Bends with their times shuffled have nothing in common: their misfit is near 2."""
    curves = geometry.project(fixtures.network_paths(run))
    shuffled = torch.cat([curves[..., :1], regularity.time_shuffled(curves[..., 1:], seed=0)], -1)
    own = geometry.procrustes_residual(shuffled, curves[:, 0], about_chord=True)[1:]
    return measured(own, detail="misfit with times shuffled, network")


@claim("turning-late", place=P3, figure="nearly straight for about 80 % of the length", criterion=at_most(10), unit="%",
       needs="model", lesson="curvature_and_torsion")  # fmt: skip
def _turning(run: Setting) -> Measurement:
    """The first 80 % of the length of a path hardly turns: less than a tenth of all its turning lies there."""
    detail = "turning in the first 80 % of the length, network, without a window; control: an arc, evenly bent"
    return measured(_early_turning(fixtures.network_paths(run)), "%", detail, control=80.0)


def _early_turning(paths: Trajectory) -> Tensor:
    """Share in % of the turning of each path that lies in the first 80 % of its length: (B,)."""
    curvature, _ = geometry.path_curvature(paths)
    length = geometry.arc_length(paths)
    turn = curvature * length.diff(dim=0)[:-1]
    return 100 * (turn * (length[1:-1] <= 0.8 * length[-1])).sum(0) / turn.sum(0)


@claim("torsion-peak", place=P3, figure="about 4", criterion=same_size(4), digits=1, needs="model",
       lesson="curvature_and_torsion",
       remark="so does a Gaussian's, whose exact torsion only rises: there the window reaches the end")  # fmt: skip
def _torsion(run: Setting) -> Measurement:
    """The torsion of a path, by the published estimator in a window of a tenth of the path, peaks near sigma 4."""
    own, null = (_torsion_peak(paths, 0.1) for paths in (_even_paths(run), _even_gaussian_paths(run)))
    return measured(own, detail="sigma of the largest torsion; control: the Gaussian of 8 x 8 digits", control=null)


@claim("torsion-window", place=f"our question to {P3}", criterion=same_size(1, factor=1.5), digits=1, needs="model",
       lesson="curvature_and_torsion",
       remark="it lies where half a window reaches the end; a peak made at sigma 4 stays, ratio 0.9")  # fmt: skip
def _torsion_window(run: Setting) -> Measurement:
    """That peak stays where it is in a window of four times the length."""
    wide, narrow = (_torsion_peak(_even_paths(run), share) for share in (0.2, 0.05))
    estimate = metrics.bootstrap(lambda a, b: a.median() / b.median(), wide, narrow, paired=True)
    return measured(estimate, detail="sigma of the peak in windows of 20 % and of 5 % of the path, their ratio")


@fixtures.cached
def _even_paths(run: Setting) -> Trajectory:
    """Paths of the network by Euler steps that are evenly spaced in sigma, as in the paper (there 1,000)."""
    sigmas = torch.linspace(80, 0.002, run.pick(200, 1000) + 1, dtype=torch.float64)
    return fixtures.network_sample(run, fixtures.network_noise(run, run.pick(8, 32)), sigmas)


@fixtures.cached
def _even_gaussian_paths(run: Setting) -> Trajectory:
    """The same of the Gaussian that has mean and covariance of the digits."""
    gaussian = fixtures.two_gaussians(fixtures.digits().images)[0]
    return sample(gaussian, fixtures.noise(run, run.pick(8, 32), (1, 8, 8)), _even_paths(run).sigmas)


def _torsion_peak(paths: Trajectory, share: float) -> Tensor:
    """Noise level of the largest torsion, by the published estimator in a window of this share of the points: (B,)."""
    window = 2 * round(share * (len(paths.sigmas) - 1) / 2) + 1
    _, torsion = geometry.curvature_torsion(geometry.project(paths), window)
    return paths.sigmas[torsion.abs().nan_to_num(0).argmax(0).cpu()]


@claim("gaussian-shape", place="our reading of arXiv 2506.10177, Sec. 4.3", criterion=below_one(),
       needs="model and its data", lesson="the_boomerang")  # fmt: skip
def _gaussian_shape(run: Setting) -> Measurement:
    """The bend of the network's paths is that of the data's Gaussian, rather than of one with random variances."""
    paths = fixtures.network_paths(run)
    own = geometry.project(paths)
    flow = sample(fixtures.gaussians(run)[0], paths.x[0], paths.sigmas)
    fitted, random = (_misfit(own, _mean_bend(geometry.project(x)).to(own)) for x in (flow, _random_spectra(run)))
    detail = (
        f"misfit with the data's Gaussian, {fitted.mean():.4f}, over that with random variances, {random.mean():.4f}"
    )
    return fixtures.ratio(fitted, random, detail=detail)

"""Claims about the geometry of paths: length, one line and a bend, flatness, and the controls of each.

Everything is measured on 100 Euler steps of dx/dsigma = (x - D) / sigma from 80 to 0.002, mostly of a trained network;
null models around the same chords are a Brownian bridge, which is rough, an integrated walk and a bow, which are smooth
as paths of an ODE are. Full measurements add pictures in 3,072 dimensions. Taught in the lessons
from high dimensions to the boomerang.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from teachkit import data, geometry, metrics, regularity, sample, schedules
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import at_least, at_most, between, same_size
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
       remark="so is the chord of each path: it is the length of the noise, and says nothing of the shape",
       lesson="high_dimensions")  # fmt: skip
def _length(run: Setting) -> Measurement:
    """The length of a path is sigma_max times the root of the dimension."""
    paths = fixtures.network_paths(run)

    def share(p: Trajectory) -> Tensor:
        return geometry.arc_length(p)[-1] / (80 * p.x[0, 0].numel() ** 0.5)

    chord = geometry.distance_to_end(paths)[0] / (80 * paths.x[0, 0].numel() ** 0.5)
    detail = f"length / (80 sqrt(d)), network{fixtures.beyond(run, share)}; control: the chord"
    return measured(share(paths), detail=detail, control=chord)


def _constancy(paths: Trajectory, where: str) -> Measurement:
    mean, spread = regularity.noise_norm_spread(paths)
    detail = f"largest - smallest |eps| / sqrt(d) on a path, {where}; mean {mean.mean():.2f}"
    return measured(spread, detail=detail)


@claim("eps-constant-exact", place=A12, figure="small", criterion=at_most(0.1), lesson="high_dimensions")
def _eps_exact(run: Setting) -> Measurement:
    """On a path of an exact denoiser of images |eps| stays at the root of the dimension."""
    paths = fixtures.exact_paths(run)
    plain = sample(Gaussian.fit(fixtures.digits().images), paths.x[0], paths.sigmas)
    control = float(regularity.noise_norm_spread(plain)[1].mean())
    return _constancy(paths, "digits 8x8; control: their Gaussian")._replace(control=control)


@claim("eps-constant-network", place=f"carried over to a network from {A12}", criterion=at_most(0.1), needs="model",
       lesson="high_dimensions",
       remark="below the grain of the density that a network has learned, |eps| falls")  # fmt: skip
def _eps_network(run: Setting) -> Measurement:
    """On a path of a trained network |eps| stays at the root of the dimension."""
    found = _constancy(fixtures.network_paths(run), "network")
    return found._replace(detail=found.detail + fixtures.beyond(run, lambda p: regularity.noise_norm_spread(p)[1]))


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


@claim("monotone-images", place=P3, figure="all paths", criterion=at_least(95), digits=0, unit="%", needs="model",
       remark="true of every path drawn, and of smooth curves made by chance around the same chords: it follows from "
              "a low bend; no count says all, so 95 in 100 are asked for",
       lesson="one_line_and_a_bend")  # fmt: skip
def _monotone_images(run: Setting) -> Measurement:
    """The distance to the end falls at every step."""
    return _beside(run, _monotone, "paths of the network", fixtures.walks)


@claim("monotone-plane", place=f"carried over to the plane from {P3}", criterion=at_least(95), digits=0,
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

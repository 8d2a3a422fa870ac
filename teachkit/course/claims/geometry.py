"""Claims about the shape of paths: length, one line and a bend, flatness, one shape, and the controls of each.

Everything is measured on 100 Euler steps of dx/dsigma = (x - D) / sigma from 80 to 0.002, mostly of a trained network;
the null model is a Brownian bridge around the same chords. Taught in ``notebooks/05_high_dimensions`` to
``07_the_boomerang``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from teachkit import data, geometry, metrics, regularity, sample, schedules
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import at_least, at_most, between, same_size
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.denoisers import Empirical
from teachkit.sampling import Trajectory

P3 = "arXiv 2506.10177, Sec. 3"
A12 = "arXiv 2405.11326, Remark A.12"


@claim("path-length", place=P3, figure="1 (8868 of 8868)", criterion=between(0.95, 1.05), needs="model",
       lesson="high_dimensions")  # fmt: skip
def _length(run: Setting) -> Measurement:
    """The length of a path is sigma_max times the root of the dimension."""
    paths = fixtures.network_paths(run)
    unit = 80 * paths.x[0, 0].numel() ** 0.5
    return measured(geometry.arc_length(paths)[-1] / unit, detail="length / (80 sqrt(d)), network")


def _constancy(paths: Trajectory, where: str) -> Measurement:
    mean, spread = regularity.noise_norm_spread(paths)
    detail = f"largest - smallest |eps| / sqrt(d) on a path, {where}; mean {mean.mean():.2f}"
    return measured(spread, detail=detail)


@claim("eps-constant-exact", place=A12, figure="small", criterion=at_most(0.1), lesson="high_dimensions")
def _eps_exact(run: Setting) -> Measurement:
    """On a path of an exact denoiser of images |eps| stays at the root of the dimension."""
    return _constancy(fixtures.exact_paths(run), "digits 8x8")


@claim("eps-constant-network", place=A12, figure="small", criterion=at_most(0.1), needs="model",
       lesson="high_dimensions",
       remark="below the grain of the density that a network has learned, |eps| falls")  # fmt: skip
def _eps_network(run: Setting) -> Measurement:
    """On a path of a trained network |eps| stays at the root of the dimension."""
    return _constancy(fixtures.network_paths(run), "network")


@claim("eps-constant-plane", place=A12, figure="small", criterion=at_most(0.1), lesson="high_dimensions",
       remark="concentration needs many dimensions")  # fmt: skip
def _eps_plane(run: Setting) -> Measurement:
    """In two dimensions, too, |eps| stays constant on a path."""
    x = fixtures.noise(run, run.pick(128, 2048), (2,))
    return _constancy(sample(Empirical(data.ring(1000, seed=0)), x, schedules.polynomial(60)), "ring")


@claim("deviation-size", place=P3, figure="0.34 % (30 of 8868)", criterion=same_size(0.34), unit="%", needs="model",
       lesson="one_line_and_a_bend")  # fmt: skip
def _deviation(run: Setting) -> Measurement:
    """A path leaves the straight line between its ends by a third of a percent of its length."""
    peak, _ = geometry.deviation_peak(fixtures.network_paths(run))
    return measured(100 * peak, "%", "largest deviation / chord, network")


@claim("deviation-where", place=P3, figure="about 10", criterion=same_size(10), digits=1, needs="model",
       lesson="one_line_and_a_bend")  # fmt: skip
def _where(run: Setting) -> Measurement:
    """The deviation is largest near sigma 10."""
    _, where = geometry.deviation_peak(fixtures.network_paths(run))
    return measured(where, detail="sigma of the largest deviation, network")


def _beside_bridges(run: Setting, share: Callable[[Trajectory | Tensor], Tensor], detail: str) -> Measurement:
    """A share in % of each of the network's paths, and as the control that of Brownian bridges around their chords."""
    paths = fixtures.network_paths(run)
    return measured(share(paths), "%", f"{detail}; control: Brownian bridges", share(fixtures.bridges(paths)))


def _straight(paths: Trajectory | Tensor) -> Tensor:
    steps = geometry.arc_length(paths).diff(dim=0)
    near = geometry.cosines(paths) > torch.cos(torch.deg2rad(torch.tensor(1.0, dtype=torch.float64)))
    return 100 * (steps * near).sum(0) / steps.sum(0)


@claim("straight-share", place=P3, figure="about 80 %", criterion=at_least(80), digits=0, unit="%", needs="model",
       lesson="one_line_and_a_bend")  # fmt: skip
def _straight_share(run: Setting) -> Measurement:
    """At least 80 % of the length of a path is nearly straight."""
    return _beside_bridges(run, _straight, "length within 1 degree of the chord")


def _monotone(paths: Trajectory) -> Tensor:
    return 100 * (geometry.distance_to_end(paths).diff(dim=0) <= 1e-9).all(0).double()


@claim("monotone-images", place=P3, figure="all paths", criterion=at_least(100), digits=0, unit="%", needs="model",
       remark="true of every path drawn; a count of all cannot exclude exceptions as rare as its lower end allows",
       lesson="one_line_and_a_bend")  # fmt: skip
def _monotone_images(run: Setting) -> Measurement:
    """The distance to the end falls at every step."""
    return measured(_monotone(fixtures.network_paths(run)), "%", "paths of the network")


@claim("monotone-plane", place=P3, figure="all paths", criterion=at_least(100), digits=0, unit="%",
       lesson="one_line_and_a_bend",
       remark="a path that passes one mode on its way to another comes near, and leaves again")  # fmt: skip
def _monotone_plane(run: Setting) -> Measurement:
    """The distance to the end falls at every step, whatever the data: also on a ring of modes in the plane."""
    return measured(_monotone(fixtures.ring_paths(run)), "%", "paths on the ring")


@claim("raw-pca", place="the naive reading of a principal component analysis", figure="99.99 %", criterion=at_least(99),
       unit="%", needs="model",
       remark="a Brownian bridge around the same chord does as well: the share says that the chord is long",
       lesson="the_boomerang")  # fmt: skip
def _raw(run: Setting) -> Measurement:
    """One principal component explains a path: sampling is one-dimensional."""
    return _beside_bridges(
        run, lambda p: 100 * geometry.explained_variance(p, 1)[:, 0], "one component, chord included"
    )


@claim("residual-pca", place=P3, figure="about 85 %", criterion=at_least(85), digits=1, unit="%", needs="model",
       lesson="the_boomerang")  # fmt: skip
def _residual(run: Setting) -> Measurement:
    """Two components explain 85 % of what is left of a path without its chord."""
    return _beside_bridges(
        run, lambda p: 100 * geometry.explained_variance(p, 2, remove_chord=True)[:, 1], "two components, chord removed"
    )


@claim("chord-in-alignment", place=f"{P3}, eq. 13, taken with the chord", figure="nearly coincide",
       criterion=at_most(0.1), needs="model",
       remark="with the times of the bends shuffled they coincide as well: only the long chord is compared",
       lesson="the_boomerang")  # fmt: skip
def _with_chord(run: Setting) -> Measurement:
    """Turned onto one another in three dimensions, all paths coincide."""
    curves = geometry.project(fixtures.network_paths(run))
    shuffled = torch.cat([curves[..., :1], regularity.time_shuffled(curves[..., 1:], seed=0)], -1)
    own, null = (geometry.procrustes_residual(c, curves[:, 0])[1:] for c in (curves, shuffled))
    return measured(own, detail="misfit, 0 to 2; control: times of the bends shuffled", control=null)


@claim("one-shape", place=f"{P3}, eq. 13", figure="nearly coincide", criterion=at_most(0.1), digits=3, needs="model",
       lesson="the_boomerang")  # fmt: skip
def _one_shape(run: Setting) -> Measurement:
    """The bends of all paths, turned about the chord onto one another, nearly coincide."""
    paths = fixtures.network_paths(run)
    curves = geometry.project(paths)
    null = geometry.procrustes_residual(geometry.project(fixtures.bridges(paths)), curves[:, 0], about_chord=True)
    own = geometry.procrustes_residual(curves, about_chord=True)[1:]
    return measured(own, detail="misfit, 0 to 2; control: Brownian bridges on a path", control=null)


@claim("shuffled-control", place="the usual control of an alignment", figure="2", criterion=same_size(2), digits=1,
       needs="model",
       remark="after turning, curves lie on one side and share their mean whatever the order; centre them, or know it",
       lesson="the_boomerang")  # fmt: skip
def _shuffled(run: Setting) -> Measurement:
    """Bends with their times shuffled have nothing in common: their misfit is near 2."""
    curves = geometry.project(fixtures.network_paths(run))
    shuffled = torch.cat([curves[..., :1], regularity.time_shuffled(curves[..., 1:], seed=0)], -1)
    own = geometry.procrustes_residual(shuffled, curves[:, 0], about_chord=True)[1:]
    return measured(own, detail="misfit with times shuffled, network")


@claim("torsion-peak", place=P3, figure="ratio 1", criterion=same_size(1, factor=1.5), digits=1, needs="model",
       lesson="the_boomerang",
       remark="the peak follows the window: it sits where the window reaches the end of the path")  # fmt: skip
def _torsion(run: Setting) -> Measurement:
    """The torsion of a path peaks near sigma 4, whatever the window: sigma with 20 % over sigma with 5 % is 1."""
    paths = fixtures.network_paths(run)
    curves = geometry.project(paths)
    curves = curves / curves[-1, :, :1]
    peaks = []
    for share in (0.05, 0.2):
        tau = geometry.curvature_torsion(curves, length=share, weights="length", sparse="widen")[1]
        whole = (paths.sigmas >= 40 * share) & (paths.sigmas <= 80 - 40 * share)
        peaks.append(paths.sigmas[(tau.abs().cpu() * whole[:, None]).argmax(0)])
    estimate = metrics.bootstrap(lambda a, b: b.median() / a.median(), *peaks, paired=True)
    detail = f"peak in a window of 20 % / in one of 5 %: sigma {peaks[1].median():.0f} / {peaks[0].median():.0f}"
    return measured(estimate, detail=detail)


@claim("gaussian-shape", place="arXiv 2506.10177, Sec. 4.3", criterion=at_most(0.1), digits=3,
       needs="model and its data", lesson="the_boomerang")  # fmt: skip
def _gaussian_shape(run: Setting) -> Measurement:
    """A Gaussian with the mean and the covariance of the data has the bend of the network's paths."""
    paths = fixtures.network_paths(run)
    own = geometry.project(paths)
    flow = sample(fixtures.gaussians(run)[0], paths.x[0], paths.sigmas)
    mean = geometry.align(geometry.project(flow), about_chord=True).mean(1)
    null = geometry.procrustes_residual(geometry.project(fixtures.bridges(paths)), mean, about_chord=True)
    misfit = geometry.procrustes_residual(own, mean, about_chord=True)
    return measured(misfit, detail="misfit with the Gaussian's mean bend; control: bridges", control=null)

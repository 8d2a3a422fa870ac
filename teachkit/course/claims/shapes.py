"""Claims about the shape of the bend: whether it is one, whose it is, and where a path turns and twists.

Bends are compared as they are turned about their chords onto one another. The controls are curves with their times
shuffled, Gaussians with random variances, smooth curves made by chance and arcs. Taught in the lessons on the boomerang
and on curvature and torsion.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit import data, geometry, metrics, regularity, sample, schedules
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import at_most, below_one, same_size
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.denoisers import Empirical
from teachkit.sampling import Trajectory

P3 = "arXiv 2506.10177, Sec. 3"


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

    def misfit(paths: Trajectory) -> Tensor:
        halves = geometry.project(paths)[:, ::2], geometry.project(paths)[:, 1::2]
        return torch.cat([_misfit(one, _mean_bend(other)) for one, other in (halves, halves[::-1])])

    curves = geometry.project(fixtures.network_paths(run))
    null = _misfit(geometry.project(_random_spectra(run)).to(curves), _mean_bend(curves))
    large = fixtures.beyond(run, misfit, digits=4)
    detail = f"misfit, 0 to 2, with the mean bend of the other half{large}; control: Gaussians with random variances"
    return measured(misfit(fixtures.network_paths(run)), detail=detail, control=null)


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

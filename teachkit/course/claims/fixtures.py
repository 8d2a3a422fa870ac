"""What several measurements share: data, networks, paths and references, each made once for a `Setting`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from teachkit import data, edm, geometry, metrics, regularity, sample, schedules
from teachkit.course.claims.registry import DEFAULT_MODEL, Measurement, Setting, measured
from teachkit.denoisers import Denoiser, Empirical, Gaussian, GaussianMixture
from teachkit.noise import initial_noise
from teachkit.sampling import Trajectory

# What the networks that ship were trained on.
TRAINED_ON = {"edm-digits8": "digits8", "edm-mnist": "mnist5k", "edm-emoji": "emoji32"}

_Function = TypeVar("_Function", bound=Callable[..., Any])
_kept: list[Callable[[], None]] = []  # what empties each cache, of this module and of others


def cached(function: _Function) -> _Function:
    """Keep the last eight values of a function, until `forget`."""
    kept = functools.lru_cache(maxsize=8)(function)
    _kept.append(kept.cache_clear)
    return kept  # type: ignore[return-value]


def ratio(above: Tensor, below: Tensor, *, detail: str = "") -> Measurement:
    """Ratio of two means over the same paths, which are drawn together: ``(B,)`` each."""
    both = above.double().cpu(), below.double().cpu()
    return measured(metrics.bootstrap(lambda a, b: a.mean() / b.mean(), *both, paired=True), detail=detail)


def over_draws(each: Sequence[tuple[Any, ...]], detail: str = "") -> Measurement:
    """Numbers measured with several draws of the warm-up noise, as one: their mean, and the hull of their intervals.

    Examples
    --------
    >>> over_draws([Measurement(0.5, 0.4, 0.6), Measurement(0.7, 0.6, 0.9)])[:3]
    (0.6, 0.4, 0.9)
    """
    values, lows, highs = zip(*(m[:3] for m in each))
    return Measurement(sum(values) / len(values), min(lows), max(highs), "", detail)


@cached
def digits() -> data.Dataset:
    """1,797 digits of 8 x 8 pixels, float64, with labels."""
    images, labels = data.load("digits8")
    return data.Dataset(images.double(), labels)


@cached
def exact_denoiser() -> Empirical:
    """The exact denoiser of these digits, which knows their classes."""
    return Empirical(digits().images, labels=digits().labels)


@cached
def exact_paths(run: Setting) -> Trajectory:
    """Paths of the exact denoiser: 100 Euler steps."""
    return sample(exact_denoiser(), noise(run, run.pick(96, 1024), (1, 8, 8)), schedules.polynomial(100))


def ring() -> GaussianMixture:
    """A mixture of eight Gaussians of standard deviation 0.05 on a ring of radius 1."""
    turn = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    return GaussianMixture([1 / 8] * 8, torch.stack([turn.cos(), turn.sin()], 1), [0.05**2] * 8)


@cached
def ring_paths(run: Setting) -> Trajectory:
    """Paths in the plane, to the `ring`."""
    return sample(ring(), noise(run, run.pick(400, 4096), (2,)), schedules.polynomial(100))


@cached
def network(run: Setting) -> edm.LearnedDenoiser:
    """The trained network; small ones on the CPU in float64, so that the digits printed are the same everywhere."""
    model = edm.load(run.model, device=run.device)
    if run.device == "cpu" and sum(p.numel() for p in model.parameters()) < 1e6:
        model = edm.load(run.model, device=run.device, dtype=torch.float64)
    return model.requires_grad_(False)


def labels(run: Setting, n: int) -> Tensor | None:
    """Classes in turn, for a network that wants them; the networks that ship also go without."""
    model = network(run)
    if run.model in TRAINED_ON or not model.label_dim:
        return None
    return torch.arange(n, device=run.device) % model.label_dim


def network_noise(run: Setting, n: int, stream: int = 0) -> Tensor:
    """Starting noise for the network, in its dtype, on its device."""
    model = network(run)
    shape = model.img_channels, model.img_resolution, model.img_resolution
    return noise(run, n, shape, stream).to(next(model.parameters()))


def network_sample(run: Setting, x: Tensor, sigmas: Tensor, solver: object = "euler", keep: str = "all") -> Trajectory:
    """`sample` with the network and the labels it wants."""
    return sample(network(run), x, sigmas, solver, labels=labels(run, len(x)), keep=keep)  # type: ignore[arg-type]


@cached
def network_paths(run: Setting) -> Trajectory:
    """Paths of the network: 100 Euler steps."""
    return network_sample(run, network_noise(run, run.pick(96, 256)), schedules.polynomial(100))


@cached
def network_reference(run: Setting) -> tuple[Tensor, Tensor]:
    """Fresh noise, and where the network's exact paths from it end."""
    x = network_noise(run, run.pick(64, 256), stream=1)
    return x, network_sample(run, x, schedules.polynomial(run.pick(50, 120)), "unipc", keep="final").final


def network_error(run: Setting, sigmas: Tensor, solver: object) -> Tensor:
    """Root-mean-square error of the network's samples to the reference: ``(B,)``."""
    x, end = network_reference(run)
    return metrics.error_to_reference(network_sample(run, x, sigmas, solver, keep="final").final, end)


@cached
def exact_reference(run: Setting) -> tuple[Tensor, Tensor]:
    """Fresh noise, and where the exact denoiser's paths from it end."""
    x = noise(run, run.pick(128, 1024), (1, 8, 8), stream=1)
    return x, sample(exact_denoiser(), x, schedules.polynomial(200), "unipc", keep="final").final


def exact_error(run: Setting, sigmas: Tensor, solver: object) -> Tensor:
    """Root-mean-square error of the exact denoiser's samples to the reference: ``(B,)``."""
    x, end = exact_reference(run)
    final = sample(exact_denoiser(), x, sigmas, solver, keep="final").final  # type: ignore[arg-type]
    return metrics.error_to_reference(final, end)


@cached
def training_data(run: Setting) -> tuple[data.Dataset, data.Dataset]:
    """What the network was trained on, and what was held out, in its dtype.

    Raises
    ------
    ValueError
        If the network is not one of those that ship.
    """
    if run.model not in TRAINED_ON:
        raise ValueError(f"model must be one whose data ship, {' or '.join(TRAINED_ON)}, got {run.model!r}")
    parameter = next(network(run).parameters())
    train, held_out = data.split(data.load(TRAINED_ON[run.model]))
    return train._replace(images=train.images.to(parameter)), held_out._replace(images=held_out.images.to(parameter))


@cached
def optimum(run: Setting) -> Empirical:
    """The exact denoiser of the network's training data."""
    return Empirical(training_data(run)[0].images)


@cached
def optimal_paths(run: Setting) -> Trajectory:
    """Its paths from the noise of `network_paths`."""
    paths = network_paths(run)
    return sample(optimum(run), paths.x[0], paths.sigmas)


@cached
def gaussians(run: Setting) -> tuple[Gaussian, Gaussian]:
    """The `two_gaussians` of the training data, for the network's dtype and device."""
    full, plain = two_gaussians(training_data(run)[0].images.double())
    like = next(network(run).parameters())
    return full.to(like), plain.to(like)


@cached
def gaussian_paths(run: Setting) -> Trajectory:
    """Paths of the Gaussian with the mean and the covariance of the training data, from the same noise."""
    paths = network_paths(run)
    return sample(gaussians(run)[0], paths.x[0], paths.sigmas)


def two_gaussians(images: Tensor) -> tuple[Gaussian, Gaussian]:
    """Gaussians of data: with their covariance, and with one variance for all directions."""
    centre = images.mean(0)
    return Gaussian.fit(images), Gaussian(centre, (images - centre).square().mean())


def noise(run: Setting, n: int, shape: tuple[int, ...], stream: int = 0) -> Tensor:
    """Starting noise at sigma = 80, float64 on the CPU."""
    return initial_noise(n, shape, seed=run.seed, stream=stream, dtype=torch.float64, device="cpu")


def bridges(traj: Trajectory, seed: int = 0) -> Tensor:
    """Brownian bridges around the chords of these paths, of the same size: the null model."""
    n, b, d = traj.x.flatten(2).shape
    return regularity.brownian_bridge(n - 1, b, d, seed=seed, like=traj)


def walks(traj: Trajectory, seed: int = 0) -> Tensor:
    """Integrated walks around the chords of these paths, of the same size: the null model that is as smooth as they."""
    n, b, d = traj.x.flatten(2).shape
    return regularity.integrated_walk(n - 1, b, d, seed=seed, like=traj)


def bows(traj: Trajectory, seed: int = 0) -> Tensor:
    """Half waves of a sine over the chords of these paths, as high as their bends, each to a side drawn by chance."""
    x = traj.x.flatten(2)
    offset = x - x[0]
    length = torch.linalg.vector_norm(offset[-1], dim=1, keepdim=True)
    unit = offset[-1] / length
    along = (offset * unit).sum(2, keepdim=True)  # (N+1, B, 1)
    side = torch.randn(unit.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(unit)
    side = side - (side * unit).sum(1, keepdim=True) * unit
    wave = (torch.pi * along / length).sin()
    scale = geometry.deviation(traj).amax(0)[:, None] / (wave.amax(0) * side.norm(dim=1, keepdim=True))
    return x[0] + along * unit + scale * wave * side


@cached
def large_paths(run: Setting, name: str) -> Trajectory:
    """Paths in 3,072 dimensions, of the exact denoiser of "photos32" or "emoji32" or of "edm-emoji": a minute."""
    if name in TRAINED_ON:
        return sample(edm.load(name), noise(run, 48, (3, 32, 32)).float(), schedules.polynomial(100))
    images = data.load(name).images.double()
    return sample(Empirical(images), noise(run, 32, tuple(images.shape[1:])), schedules.polynomial(100))


def beyond(run: Setting, measure: Callable[[Trajectory], Tensor], unit: str = "", digits: int = 2) -> str:
    """For a full measurement, in words: the same number for others in 3,072 dimensions."""
    if not run.full or run.model != DEFAULT_MODEL:
        return ""
    parts = []
    for name in ("photos32", "emoji32", "edm-emoji"):
        found = measured(measure(large_paths(run, name)), unit)
        own, low, high = (f"{number:.{digits}f}" for number in found[:3])
        parts.append(f"{name} {own}{f' {unit}' if unit else ''} [{low}, {high}]")
    return f"; in 3,072 dimensions: {', '.join(parts)}"


def follows(denoiser: Denoiser, paths: Trajectory, images: Tensor) -> Tensor:
    """Share of the steps, in %, for which a path of ``denoiser`` stays within 5 % of the data radius: ``(B,)``."""
    radius = float((images - images.mean(0)).flatten(1).square().sum(1).mean().sqrt())
    own = sample(denoiser, paths.x[0], paths.sigmas)
    near = regularity.state_gap(own, paths, radius) <= 0.05
    steps = len(paths.sigmas) - 1
    return 100 * near.cumprod(0).sum(0).clamp(max=steps).double() / steps  # all of them, where it never leaves


def turned_between(paths: Trajectory, exact: Trajectory, denoiser: Empirical) -> Tensor:
    """Share of the turning of ``paths``, in %, at levels where several images count on ``exact`` ones: ``(B,)``.

    Several: from a tenth of all images down to 1.1 of them, by ``denoiser``, on the path from the same noise.
    """
    count = regularity.effective_neighbours(denoiser, exact)[:-1]
    angle = regularity.rotation(paths)
    several = (count[1:] < len(denoiser.data) / 10) & (count[:-1] > 1.1)  # at some place between the two states
    return 100 * (angle * several).sum(0) / angle.sum(0)


def forget() -> None:
    """Free what was kept by any function that is `cached`."""
    for clear in _kept:
        clear()

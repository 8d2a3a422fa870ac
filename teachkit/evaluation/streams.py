"""What is computed for a shard of samples, and how shards are put together without holding them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from teachkit import geometry, initial_noise, metrics, sample, solvers
from teachkit.checks import choice
from teachkit.denoisers import Denoiser
from teachkit.metrics import FeatureStatistics
from teachkit.sampling import Trajectory
from teachkit.solvers import Solver

__all__ = ["GeometryStatistics", "features_for", "geometry_of", "samples_of"]


def samples_of(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    sigmas: Tensor,
    solver: Solver | str,
    samples: range,
    *,
    seed: int = 0,
    classes: int = 0,
    keep: str = "final",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> Trajectory:
    """Sample the numbers ``samples``: each depends on the seed and its number alone (to rounding within its batch).

    Parameters
    ----------
    denoiser : callable
        ``D(x, sigma, labels=None)``.
    shape : tuple of int
        Of one sample.
    sigmas : (N+1,)
        Noise levels, decreasing; the noise has the first of them.
    solver : Solver or str
        Or its name in ``solvers.REGISTRY``.
    samples : range
        Numbers of the samples.
    seed : int
        For their noise, that of a stochastic solver included.
    classes : int
        Sample i gets class i modulo this; 0 for none.
    keep : str
        "final" for the end of each path, "all" for the whole.
    dtype, device
        Of the noise.
    **options
        Passed on to `teachkit.sample`.

    Returns
    -------
    Trajectory
        The paths, ``samples`` in their order.

    Examples
    --------
    >>> from teachkit import Gaussian, schedules
    >>> D, sigmas = Gaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 0.1]]), schedules.polynomial(4)
    >>> whole = samples_of(D, (2,), sigmas, "heun", range(4), seed=1).final
    >>> part = samples_of(D, (2,), sigmas, "heun", range(2, 4), seed=1).final
    >>> torch.allclose(whole[2:], part)
    True
    """
    x = initial_noise(len(samples), shape, float(sigmas[0]), seed=seed, first=samples.start, dtype=dtype, device=device)
    labels = torch.tensor([i % classes for i in samples], device=device) if classes else None
    step = (solvers.get(solver) if isinstance(solver, str) else solver).for_samples(seed, samples.start)
    return sample(denoiser, x, sigmas, step, labels=labels, keep=keep, **options)


def features_for(name: str) -> Callable[[Tensor], Tensor]:
    """The features in which a Fréchet distance is measured.

    Parameters
    ----------
    name : str
        "digits", "emoji": the classifiers that ship; "inception": Inception-v3 (extra ``fid``); "pixels".

    Returns
    -------
    callable
        (B, C, H, W) -> (B, F).

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> features_for("pixels")(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 64])
    """
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "digits": metrics.digit_features,
        "emoji": metrics.emoji_features,
        "inception": metrics.inception_features,
        "pixels": lambda images: images.flatten(1),
    }
    return kinds[choice("features", name, kinds)]


def pack(features: Tensor) -> dict[str, Tensor]:
    """The statistics of a shard: its moments, or its features where those take less room."""
    if len(features) <= features.shape[1]:
        return {"features": features.float()}
    stats = FeatureStatistics(features)
    return {"count": torch.tensor(stats.count), "mean": stats.mean, "scatter": stats.scatter}


def unpack(shards: Iterable[dict[str, Tensor]]) -> FeatureStatistics:
    """All shards of `pack`, merged in their order (Chan, Golub & LeVeque 1979)."""
    total = FeatureStatistics()
    for shard in shards:
        part = FeatureStatistics(shard.get("features"))
        if "features" not in shard:
            part.count, part.mean, part.scatter = int(shard["count"]), shard["mean"], shard["scatter"]
        total.merge(part)
    return total


def geometry_of(path: Trajectory, components: int = 3) -> dict[str, Tensor]:
    """The shape of each path in a few numbers, and the deviation at each level summed over the paths, float64.

    Parameters
    ----------
    path : Trajectory
        Paths, kept whole.
    components : int
        Shares of the variance to give.

    Returns
    -------
    dict
        ``peak`` (B,) largest deviation as a share of the chord, ``peak_sigma`` (B,) where, ``length`` (B,) arc length
        over chord, ``explained`` (B, components) share of the variance without the chord; ``count`` (), ``sum`` and
        ``squares`` (N+1,) of the relative deviation.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample, schedules
    >>> D = Gaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 0.1]])
    >>> path = sample(D, initial_noise(4, (2,)), schedules.polynomial(20))
    >>> {name: tuple(value.shape) for name, value in geometry_of(path, components=2).items() if value.ndim}
    {'peak': (4,), 'peak_sigma': (4,), 'length': (4,), 'explained': (4, 2), 'sum': (21,), 'squares': (21,)}
    """
    peak, where = geometry.deviation_peak(path)
    off = geometry.deviation(path, relative=True).double()
    chord = (path.x[-1] - path.x[0]).flatten(1).norm(dim=1)
    return {
        "peak": peak.double(),
        "peak_sigma": where.double(),
        "length": (geometry.arc_length(path)[-1] / chord).double(),
        "explained": geometry.explained_variance(path, components, remove_chord=True).double(),
        "count": torch.tensor(off.shape[1], device=off.device),
        "sum": off.sum(1),
        "squares": off.square().sum(1),
    }


class GeometryStatistics:
    """The shape of any number of paths: merge what `geometry_of` gave, some 50 bytes for each path.

    Attributes
    ----------
    count : int
        Paths so far.
    peak, peak_sigma, length : (count,)
        Of each path the largest deviation as a share of its chord, the level at which, and its arc length over chord.
    explained : (count, components)
        Share of the variance without the chord in so many directions.
    deviation : (N+1,)
        Mean relative deviation at each level; ``spread`` is its standard deviation over the paths.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, schedules
    >>> D, sigmas = Gaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 0.1]]), schedules.polynomial(20)
    >>> parts = (geometry_of(sample(D, initial_noise(4, (2,), seed=k), sigmas), 2) for k in range(3))
    >>> stats = GeometryStatistics(parts)
    >>> stats.count, stats.peak.shape
    (12, torch.Size([12]))
    """

    def __init__(self, shards: Iterable[dict[str, Tensor]] = ()) -> None:
        self.count = 0
        self._parts: list[dict[str, Tensor]] = []
        self._sum = self._squares = torch.zeros((), dtype=torch.float64)
        for shard in shards:
            self.add(shard)

    def add(self, shard: dict[str, Tensor]) -> GeometryStatistics:
        """Add the paths of a shard; returns itself."""
        if self.count and shard["sum"].shape != self._sum.shape:
            raise ValueError(f"shard has {len(shard['sum'])} levels, but those before had {len(self._sum)}")
        self.count += int(shard["count"])
        self._sum, self._squares = self._sum + shard["sum"], self._squares + shard["squares"]
        self._parts.append({name: shard[name] for name in ("peak", "peak_sigma", "length", "explained")})
        return self

    def __getattr__(self, name: str) -> Tensor:
        if name not in ("peak", "peak_sigma", "length", "explained"):
            raise AttributeError(name)
        if not self._parts:
            raise ValueError("no paths were added yet")
        return torch.cat([part[name] for part in self._parts])

    @property
    def deviation(self) -> Tensor:
        return self._sum / self.count

    @property
    def spread(self) -> Tensor:
        return (self._squares / self.count - self.deviation**2).clamp(min=0).sqrt()

"""Moments of features, merged over batches and machines, and the Fréchet distance between two Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import flag, integer, shown
from teachkit.metrics.distances import summable


class FeatureStatistics:
    """Mean and covariance of a stream of features, in one pass, mergeable across batches and machines.

    Two parts with n_a and n_b samples merge exactly: the mean moves by (n_b / n) delta and the scatter matrix gains
    (n_a n_b / n) delta delta^T, where delta = m_b - m_a (Chan, Golub & LeVeque 1979). Sums are made in float64.

    Parameters
    ----------
    features : (N, F), optional
        First batch.

    Attributes
    ----------
    count : int
        Number of samples so far.
    mean : Tensor
        ``(F,)`` float64.
    scatter : Tensor
        ``(F, F)`` float64: the sum of (x - mean)(x - mean)^T.

    Examples
    --------
    >>> batches = torch.arange(12.0).reshape(2, 3, 2)
    >>> stats = FeatureStatistics(batches[0]).update(batches[1])
    >>> stats.count, stats.mean.tolist()
    (6, [5.0, 6.0])
    """

    def __init__(self, features: Tensor | None = None) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)  # kept as a first feature and the way from there
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)
        if features is not None:
            self.update(features)

    @property
    def mean(self) -> Tensor:
        return self._origin + self._offset

    @mean.setter
    def mean(self, value: Tensor) -> None:
        self._origin, self._offset = value, torch.zeros_like(value)

    def _from(self, other: FeatureStatistics) -> Tensor:
        """The mean here less that of the other: features far from 0 would be rounded in each."""
        device = self._offset.device
        return (self._origin - other._origin.to(device)) + (self._offset - other._offset.to(device))

    @classmethod
    def from_moments(cls, count: int, mean: Tensor, covariance: Tensor) -> FeatureStatistics:
        """Take a known mean ``(F,)`` and (unbiased) covariance ``(F, F)`` of ``count`` samples."""
        count = integer("count", count, 2)
        mean, covariance = summable("mean", mean), summable("covariance", covariance)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean must be (F,) and covariance (F, F), got {tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        if not torch.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * float(covariance.abs().max())):
            raise ValueError("covariance must be symmetric")
        stats = cls()
        stats.count, stats.mean = count, mean.clone()
        stats.scatter = (covariance + covariance.T) * ((count - 1) / 2)
        return stats

    def update(self, features: Tensor) -> FeatureStatistics:
        """Add a batch ``(N, F)``; returns itself."""
        x = _features("features", features, least=1)
        batch = FeatureStatistics()
        batch.count, batch._origin = len(x), x[0].clone()
        batch._offset = (x - x[0]).mean(0)
        centred = x - x[0] - batch._offset
        batch.scatter = centred.T @ centred
        return self.merge(batch)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Add the samples that another one has seen; returns itself."""
        if not isinstance(other, FeatureStatistics):
            raise TypeError(f"other must be a FeatureStatistics, got {shown(other)}")
        if other.count == 0:
            return self
        if self.count == 0:
            self.count, self.scatter = other.count, other.scatter.clone()
            self._origin, self._offset = other._origin.clone(), other._offset.clone()
            return self
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"features have {len(other.mean)} components here and {len(self.mean)} before")
        total = self.count + other.count
        delta = -self._from(other)
        self.scatter += other.scatter.to(delta.device) + torch.outer(delta, delta) * (self.count * other.count / total)
        self._offset = self._offset + delta * (other.count / total)
        self.count = total
        return self

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance ``(F, F)``; needs two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(
    a: Tensor | FeatureStatistics, b: Tensor | FeatureStatistics, *, extrapolate: bool = False, seed: int = 0
) -> float:
    """Fréchet distance (squared, as FID is) between Gaussians fitted to two sets of features.

    The trace of the matrix square root is computed as a sum of singular values: with C_a = A A^T and C_b = B B^T
    it is the nuclear norm of A^T B. No square root of a matrix that is nearly singular is ever taken, so fewer
    samples than features do no harm and equal inputs give 0 to rounding.

    Parameters
    ----------
    a, b : (N, F) features or FeatureStatistics
        The two sets; at least two samples each.
    extrapolate : bool
        Remove the bias of finite samples, about c / N, by a straight line in 1 / N read off at 0 (FID_infinity:
        Chong & Forsyth 2020, arXiv 1911.07023). The line goes through the distance of all samples and the mean
        over random halves, which use every sample and so add little noise. Sets given as features are halved
        together; statistics are taken as exact. Needs more than 2 F samples; may come out slightly negative.
    seed : int
        For the random halves.

    Returns
    -------
    float
        In squared units of the features.

    Raises
    ------
    ValueError, TypeError
        For arguments of the wrong kind or shape, values that are not finite, and too few samples.

    Examples
    --------
    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> round(frechet_distance(x, x + torch.tensor([3.0, 4.0, 0.0])), 6)
    25.0
    """
    sets = [_set(name, value) for name, value in (("a", a), ("b", b))]
    sizes = [s.mean.shape[0] if isinstance(s, FeatureStatistics) else s.shape[1] for s in sets]
    if sizes[0] != sizes[1]:
        raise ValueError(f"a and b must have the same number of features, got {sizes[0]} and {sizes[1]}")
    seed = integer("seed", seed, 0)
    halves = _of_halves(sets, sizes[0], seed) if flag("extrapolate", extrapolate) else []
    whole = _frechet(*(s if isinstance(s, FeatureStatistics) else FeatureStatistics(s) for s in sets))
    # The line through 1 / N and 2 / N, read off at 0.
    return 2 * whole - sum(halves) / len(halves) if halves else whole


def _frechet(a: FeatureStatistics, b: FeatureStatistics) -> float:
    root_a, root_b = _factor(a.covariance), _factor(b.covariance.to(a.mean.device))
    cross = torch.linalg.svdvals(root_a.T @ root_b).sum() if root_a.numel() and root_b.numel() else 0.0
    spread = root_a.square().sum() + root_b.square().sum() - 2 * cross
    shift = a._from(b).square().sum()
    return max(float(shift + spread), 0.0)


def _factor(covariance: Tensor) -> Tensor:
    """A with A A^T = covariance and one column for each direction that varies: ``(F, rank)``."""
    values, vectors = torch.linalg.eigh(covariance)
    largest = float(values[-1])
    floor = largest * len(values) * torch.finfo(values.dtype).eps
    if float(values[0]) < -max(10 * floor, 1e-6 * largest):
        raise ValueError(f"covariance must have no negative eigenvalue, got {float(values[0]):.3g}")
    keep = values > max(floor, 0.0)
    return vectors[:, keep] * values[keep].sqrt()


def _of_halves(sets: list[Tensor | FeatureStatistics], features: int, seed: int) -> list[float]:
    """Distances between random halves of the sets; statistics are taken whole."""
    counts = [len(s) for s in sets if isinstance(s, Tensor)]
    if not counts:
        raise TypeError("extrapolate needs features for a or b, got statistics for both")
    if min(counts) <= 2 * features:
        raise ValueError(f"extrapolate needs more than 2 F = {2 * features} samples, got {min(counts)}")
    rng = torch.Generator().manual_seed(seed)

    def halved(s: Tensor | FeatureStatistics) -> list[FeatureStatistics]:
        if isinstance(s, FeatureStatistics):
            return [s, s]
        order = torch.randperm(len(s), generator=rng).to(s.device)
        return [FeatureStatistics(s[half]) for half in order.tensor_split(2)]

    return [_frechet(a, b) for _ in range(8) for a, b in zip(*map(halved, sets))]


def _set(name: str, value: Tensor | FeatureStatistics) -> Tensor | FeatureStatistics:
    if not isinstance(value, FeatureStatistics):
        return _features(name, value, least=2)
    if value.count < 2:
        raise ValueError(f"{name} must have seen at least 2 samples, got {value.count}")
    return value


def _features(name: str, value: Tensor, least: int) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.ndim != 2 or len(value) < least or value.shape[1] < 1:
        raise ValueError(f"{name} must have shape (N, F) with N >= {least}, got {tuple(value.shape)}")
    return summable(name, value.detach())

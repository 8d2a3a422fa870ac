"""How good are these samples? Distances between two sets, the error to a reference solution, and honest error bars.

One equation does most of the work: for two Gaussians fitted to features of real and of generated images,
d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the Fréchet distance (Dowson & Landau 1982; with
Inception features it is the FID of Heusel et al. 2017, arXiv 1706.08500). Beside it: the sliced Wasserstein distance
(Bonneel et al. 2015), the maximum mean discrepancy (Gretton et al. 2012; with a cubic kernel it is the KID of
Binkowski et al. 2018, arXiv 1801.01401), and the plain distance of each sample to where the exact ODE solution ends,
which needs no features at all. `bootstrap` puts error bars on any of them. Features of digits come from a small
classifier that ships with the package. Taught in ``notebooks/09_training_edm`` and ``12_real_gpu_models``.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teachkit import data
from teachkit.denoisers import default_dtype

__all__ = [
    "DigitClassifier",
    "Estimate",
    "FeatureStatistics",
    "bootstrap",
    "digit_classifier",
    "digit_features",
    "digit_probabilities",
    "error_to_reference",
    "frechet_distance",
    "inception_features",
    "mmd",
    "sliced_wasserstein",
]

_BLOCK = 2**24  # values handled at a time: 128 MiB in float64


class Estimate(NamedTuple):
    """A measured value with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


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
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)
        if features is not None:
            self.update(features)

    @classmethod
    def from_moments(cls, count: int, mean: Tensor, covariance: Tensor) -> FeatureStatistics:
        """Take a known mean ``(F,)`` and (unbiased) covariance ``(F, F)`` of ``count`` samples."""
        if not isinstance(count, int) or count < 2:
            raise ValueError(f"count must be an integer >= 2, got {count!r}")
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean must be (F,) and covariance (F, F), got {tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        covariance = _finite("covariance", covariance)
        if not torch.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * float(covariance.abs().max())):
            raise ValueError("covariance must be symmetric")
        stats = cls()
        stats.count, stats.mean = count, _finite("mean", mean)
        stats.scatter = (covariance + covariance.T) * ((count - 1) / 2)
        return stats

    def update(self, features: Tensor) -> FeatureStatistics:
        """Add a batch ``(N, F)``; returns itself."""
        x = _features("features", features, least=1)
        batch = FeatureStatistics()
        batch.count, batch.mean = len(x), x.mean(0)
        centred = x - batch.mean
        batch.scatter = centred.T @ centred
        return self.merge(batch)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Add the samples that another one has seen; returns itself."""
        if other.count == 0:
            return self
        if self.count == 0:
            self.count, self.mean, self.scatter = other.count, other.mean.clone(), other.scatter.clone()
            return self
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"features have {len(other.mean)} components here and {len(self.mean)} before")
        total = self.count + other.count
        delta = other.mean.to(self.mean.device) - self.mean
        self.scatter += other.scatter.to(delta.device) + torch.outer(delta, delta) * (self.count * other.count / total)
        self.mean = self.mean + delta * (other.count / total)
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
    if extrapolate:
        return _extrapolated(sets, sizes[0], seed)
    stats = [s if isinstance(s, FeatureStatistics) else FeatureStatistics(s) for s in sets]
    return _frechet(stats[0], stats[1])


def _frechet(a: FeatureStatistics, b: FeatureStatistics) -> float:
    root_a, root_b = _factor(a.covariance), _factor(b.covariance.to(a.mean.device))
    cross = torch.linalg.svdvals(root_a.T @ root_b).sum() if root_a.numel() and root_b.numel() else 0.0
    spread = root_a.square().sum() + root_b.square().sum() - 2 * cross
    shift = (a.mean - b.mean.to(a.mean.device)).square().sum()
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


def _extrapolated(sets: list[Tensor | FeatureStatistics], features: int, seed: int) -> float:
    counts = [len(s) for s in sets if isinstance(s, Tensor)]
    if not counts:
        raise TypeError("extrapolate needs features for a or b, got statistics for both")
    if min(counts) <= 2 * features:
        raise ValueError(f"extrapolate needs more than 2 F = {2 * features} samples, got {min(counts)}")
    rng = torch.Generator().manual_seed(seed)
    halves = []
    for _ in range(8):
        parts = []
        for s in sets:
            if isinstance(s, FeatureStatistics):
                parts.append((s, s))
            else:
                order = torch.randperm(len(s), generator=rng).to(s.device)
                first, second = order.tensor_split(2)
                parts.append((FeatureStatistics(s[first]), FeatureStatistics(s[second])))
        halves += [_frechet(a, b) for a, b in zip(*parts)]
    whole = _frechet(*(s if isinstance(s, FeatureStatistics) else FeatureStatistics(s) for s in sets))
    return 2 * whole - sum(halves) / len(halves)  # the line through 1 / N and 2 / N, read off at 0


def sliced_wasserstein(a: Tensor, b: Tensor, n_projections: int = 256, seed: int = 0, p: float = 2.0) -> float:
    """Sliced Wasserstein distance: the one-dimensional Wasserstein-p distance along random directions.

    In one dimension optimal transport is sorting. Over directions u, (mean_u W_p(u.a, u.b)^p)^(1/p) (Bonneel et al.
    2015, "Sliced and Radon Wasserstein barycenters of measures"). Sets of different sizes are matched exactly,
    quantile by quantile. A shift by v costs |v| / sqrt(d) when p = 2.

    Parameters
    ----------
    a, b : (N, *event), (M, *event)
        Samples; anything beyond the first axis is flattened.
    n_projections : int
        Number of random directions; the same for every call with the same seed.
    seed : int
        For the directions.
    p : float
        Order of the distance, >= 1.

    Returns
    -------
    float
        In the units of the samples.
    """
    a, b = _pair(a, b, least=1)
    if not isinstance(n_projections, int) or n_projections < 1:
        raise ValueError(f"n_projections must be an integer >= 1, got {n_projections!r}")
    if not (math.isfinite(p) and p >= 1):
        raise ValueError(f"p must be a finite number >= 1, got {p!r}")
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_projections, a.shape[1], generator=rng, dtype=torch.float64)
    directions = F.normalize(directions, dim=1).to(a)  # (P, d)
    # Between neighbouring quantile levels both sorted sets are constant.
    n, m = len(a), len(b)
    levels = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1 / (n m)
    weights = torch.diff(levels, prepend=levels.new_zeros(1)).to(a) / (n * m)
    from_a, from_b = ((levels - 1) // m).to(a.device), ((levels - 1) // n).to(a.device)
    total = 0.0
    for part in directions.split(max(1, _BLOCK // len(levels))):
        sorted_a, sorted_b = (a @ part.T).sort(0).values, (b @ part.T).sort(0).values  # (N, P), (M, P)
        total += float((weights @ (sorted_a[from_a] - sorted_b[from_b]).abs() ** p).sum())
    return (total / n_projections) ** (1 / p)


def mmd(a: Tensor, b: Tensor, kernel: str = "polynomial", bandwidth: float | None = None, degree: int = 3) -> float:
    """Squared maximum mean discrepancy, estimated without bias (Gretton et al. 2012, eq. 3).

    mean k(a, a') + mean k(b, b') - 2 mean k(a, b) over pairs of different samples. Its expectation is right at any
    sample size, so it may come out slightly negative when the sets agree.

    Parameters
    ----------
    a, b : (N, *event), (M, *event)
        Samples or features, at least two each.
    kernel : str
        "polynomial": (x.y / d + 1)^degree, which on features is the KID (Binkowski et al. 2018, arXiv 1801.01401);
        "rbf": exp(-|x - y|^2 / (2 bandwidth^2)).
    bandwidth : float, optional
        For "rbf". By default the median distance between samples of a and b (at most 1,000 of each).
    degree : int
        For "polynomial".

    Returns
    -------
    float
    """
    a, b = _pair(a, b, least=2)
    if kernel not in ("polynomial", "rbf"):
        raise ValueError(f"kernel must be 'polynomial' or 'rbf', got {kernel!r}")
    if not isinstance(degree, int) or degree < 1:
        raise ValueError(f"degree must be an integer >= 1, got {degree!r}")
    if kernel == "rbf" and bandwidth is None:
        bandwidth = float(torch.cdist(a[:: -(-len(a) // 1000)], b[:: -(-len(b) // 1000)]).median())
        bandwidth = bandwidth or 1.0  # all points equal: any kernel says so
    if bandwidth is not None and not (math.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"bandwidth must be a finite number > 0, got {bandwidth!r}")

    def k(x: Tensor, y: Tensor) -> Tensor:
        if kernel == "polynomial":
            return (x @ y.T / x.shape[1] + 1) ** degree
        assert bandwidth is not None
        return (torch.cdist(x, y).square() / (-2 * bandwidth**2)).exp()

    def diagonal(x: Tensor) -> float:
        return float(((x.square().mean(1) + 1) ** degree).sum()) if kernel == "polynomial" else float(len(x))

    def mean(x: Tensor, y: Tensor, same: bool) -> float:
        total = sum(float(k(part, y).sum()) for part in x.split(max(1, _BLOCK // len(y))))
        return (total - diagonal(x)) / (len(x) * (len(x) - 1)) if same else total / (len(x) * len(y))

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


def error_to_reference(samples: Tensor, reference: Tensor) -> Tensor:
    """Root mean square error of every sample to its reference solution: ``(B, *event)`` twice -> ``(B,)`` float64.

    Both from the same noise: it measures the solver and its schedule alone, not the network. Needs no features,
    is deterministic, and has no bias, which makes it the sharpest ruler for comparing solvers at small scale.
    """
    if samples.shape != reference.shape or samples.ndim < 2:
        raise ValueError(
            f"samples and reference must share one shape (B, *event), got {tuple(samples.shape)} and "
            f"{tuple(reference.shape)}"
        )
    a, b = _pair(samples, reference, least=1)
    return (a - b).square().mean(1).sqrt()


def bootstrap(
    statistic: Callable[..., float | Tensor],
    *samples: Tensor,
    n_resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
    paired: bool = False,
) -> Estimate:
    """Error bars for any statistic of samples, by resampling them with replacement (Efron 1979).

    The interval is the spread of the resampled values around their own mean, put around the value. Resampling with
    repeats makes distances between sets look larger than they are; centring takes that shift out. What remains is
    the scatter from one data set to the next of this size, not the bias that the statistic itself has at this size
    (for which see ``frechet_distance(..., extrapolate=True)``).

    Parameters
    ----------
    statistic : callable
        ``statistic(*samples)`` -> a number.
    *samples : (N, ...), (M, ...), ...
        One or more tensors, each resampled along its first axis.
    n_resamples : int
        Number of resamples, at least 10.
    seed : int
        For the resampling.
    confidence : float
        Level of the interval, between 0 and 1.
    paired : bool
        Resample all tensors with the same indices, for samples that belong together one by one.

    Returns
    -------
    Estimate
        ``value``, ``low``, ``high``.

    Examples
    --------
    >>> x = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> value, low, high = bootstrap(torch.mean, x)
    >>> low < 0 < high and 0.15 < high - low < 0.25    # 4 standard errors of 1 / sqrt(400)
    True
    """
    if not callable(statistic):
        raise TypeError(f"statistic must be callable, got {type(statistic).__name__}")
    if not samples or any(not isinstance(s, Tensor) or s.ndim < 1 or len(s) < 2 for s in samples):
        raise ValueError("samples must be one or more tensors with at least 2 entries along their first axis")
    if not isinstance(n_resamples, int) or n_resamples < 10:
        raise ValueError(f"n_resamples must be an integer >= 10, got {n_resamples!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    if paired and len({len(s) for s in samples}) > 1:
        raise ValueError(f"paired samples must have equal lengths, got {[len(s) for s in samples]}")
    rng = torch.Generator().manual_seed(seed)
    value = float(statistic(*samples))
    draws = torch.empty(n_resamples, dtype=torch.float64)
    for i in range(n_resamples):
        index = [torch.randint(len(s), (len(s),), generator=rng) for s in (samples[:1] if paired else samples)]
        index = index * len(samples) if paired else index
        draws[i] = float(statistic(*(s[j.to(s.device)] for s, j in zip(samples, index))))
    if not (math.isfinite(value) and bool(draws.isfinite().all())):
        raise ValueError("statistic returned a value that is not finite")
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = (value + torch.quantile(draws - draws.mean(), tails)).tolist()
    return Estimate(value, low, high)


class DigitClassifier(nn.Module):
    """Five convolutions and two linear layers that tell 28x28 digits apart: 0.2 million parameters.

    ``forward`` maps ``(N, 1, 28, 28)`` in [-1, 1] to logits ``(N, 10)``; ``features`` gives the 64 numbers before
    the last non-linearity, in which distances between sets of digits are measured.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, stride=2)  # 28 -> 14
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1, stride=2)  # 14 -> 7
        self.conv5 = nn.Conv2d(64, 128, 3, padding=1, stride=2)  # 7 -> 4
        self.hidden = nn.Linear(128 * 4 * 4, 64)
        self.head = nn.Linear(64, 10)
        self.dropout = nn.Dropout(0.3)

    def features(self, images: Tensor) -> Tensor:
        """Features ``(N, 64)`` of images ``(N, 1, 28, 28)``."""
        x = images
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = F.relu(conv(x))
        return self.hidden(self.dropout(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, 10)`` of images ``(N, 1, 28, 28)``."""
        return self.head(self.dropout(F.relu(self.features(images))))


def digit_classifier(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> DigitClassifier:
    """Load the digit classifier in evaluation mode, in float32.

    Parameters
    ----------
    path : path, optional
        A .safetensors file that ``tools/train_digit_features.py`` wrote; by default the one that ships, whose
        checksum is compared first.
    device : torch.device or str
        Where it is put.

    Raises
    ------
    FileNotFoundError, ValueError
        When the file is missing or corrupt, or its tensors are not those of the classifier.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = data.verify("digit-features.safetensors") if path is None else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from None
    net = DigitClassifier()
    wanted = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(f"{file} does not hold the digit classifier: missing, unknown or misshapen {', '.join(wrong)}")
    net.load_state_dict({name: _finite(name, value, dtype=torch.float32) for name, value in state.items()})
    return net.eval().requires_grad_(False).to(device)


@functools.lru_cache(maxsize=4)
def _shipped_classifier(device: str) -> DigitClassifier:
    return digit_classifier(device=device)


def digit_features(images: Tensor, batch_size: int = 512) -> Tensor:
    """Features of digits for `frechet_distance` and `mmd`: ``(N, 1, 28, 28)`` in [-1, 1] -> ``(N, 64)`` float32.

    Values beyond [-1, 1] are clamped, as they would be on the way to an 8-bit picture.

    Raises
    ------
    ValueError
        For another shape, values that are not finite, or images scaled to [0, 1] or [0, 255].
    """
    return _apply(lambda net, x: net.features(x), images, batch_size)


def digit_probabilities(images: Tensor, batch_size: int = 512) -> Tensor:
    """How sure the classifier is of every digit: ``(N, 1, 28, 28)`` in [-1, 1] -> ``(N, 10)`` float32, rows sum to 1.

    ``digit_probabilities(x).max(1)`` gives confidence and class. Clamps and raises as `digit_features` does.
    """
    return _apply(lambda net, x: net(x).softmax(1), images, batch_size)


def _apply(function: Callable[[DigitClassifier, Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating-point tensor, got {got}")
    if images.ndim != 4 or images.shape[1:] != (1, 28, 28) or len(images) == 0:
        raise ValueError(f"images must have shape (N, 1, 28, 28) with N >= 1, got {tuple(images.shape)}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
    images = images.detach()
    if not bool(images.isfinite().all()):
        raise ValueError("images must be finite, got NaN or infinity")
    if float(images.min()) >= 0 and float(images.max()) > 0:
        raise ValueError("images must be scaled to [-1, 1] with a background of -1; these have no negative pixel")
    net = _shipped_classifier(str(images.device))
    with torch.no_grad():
        return torch.cat([function(net, x.float().clamp(-1, 1)) for x in images.split(batch_size)])


def inception_features(images: Tensor, batch_size: int = 64) -> Tensor:
    """Inception-v3 features for the FID, ``(N, 3, H, W)`` in [-1, 1] -> ``(N, 2048)``, from torchmetrics.

    Optional: it needs ``pip install torchmetrics torch-fidelity`` and, the first time, the internet for the
    network's weights. Images are rounded to 8 bits first, as published FIDs are; one channel is repeated to three.

    Raises
    ------
    ImportError, ConnectionError
        When a package is missing, or the weights cannot be downloaded.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must have shape (N, 1 or 3, H, W) with N >= 1, got {tuple(images.shape)}")
    if not bool(images.isfinite().all()):
        raise ValueError("images must be finite, got NaN or infinity")
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        network = FrechetInceptionDistance(feature=2048).inception.to(images.device).eval()
    except ImportError as error:
        raise ImportError(
            "Inception features need two more packages: pip install torchmetrics torch-fidelity. "
            "For 28x28 digits, digit_features needs neither."
        ) from error
    except OSError as error:
        raise ConnectionError(f"the Inception weights could not be downloaded: {error}") from error
    pixels = (images.detach().float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
    with torch.no_grad():
        return torch.cat([network(part) for part in pixels.split(batch_size)])


def _finite(name: str, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    if not isinstance(value, Tensor) or not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be a tensor of finite numbers")
    return value.to(dtype or default_dtype(value.device))


def _features(name: str, value: Tensor, least: int) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.ndim != 2 or len(value) < least or value.shape[1] < 1:
        raise ValueError(f"{name} must have shape (N, F) with N >= {least}, got {tuple(value.shape)}")
    return _finite(name, value.detach())


def _set(name: str, value: Tensor | FeatureStatistics) -> Tensor | FeatureStatistics:
    if not isinstance(value, FeatureStatistics):
        return _features(name, value, least=2)
    if value.count < 2:
        raise ValueError(f"{name} must have seen at least 2 samples, got {value.count}")
    return value


def _pair(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both as ``(N, d)`` in float64 (float32 on devices without it)."""
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.ndim < 2 or len(value) < least or value.numel() == 0:
            raise ValueError(f"{name} must have shape (N, *event) with N >= {least}, got {tuple(value.shape)}")
    if a.shape[1:] != b.shape[1:] or a.device != b.device:
        raise ValueError(
            f"a and b must agree in event shape and device, got {tuple(a.shape[1:])} on {a.device} and "
            f"{tuple(b.shape[1:])} on {b.device}"
        )
    return _finite("a", a.detach()).flatten(1), _finite("b", b.detach()).flatten(1)

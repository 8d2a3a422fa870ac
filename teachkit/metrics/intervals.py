"""Error bars: by resampling for any statistic of samples, exact for a share that is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from teachkit.checks import flag, integer, number


class Estimate(NamedTuple):
    """A measured value with the ends of its confidence interval.

    Examples
    --------
    >>> print(Estimate(0.123456, 0.1, 0.15))
    0.1235 [0.1, 0.15]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


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
    n_resamples = integer("n_resamples", n_resamples, 10)
    confidence, seed = number("confidence", confidence, above=0, below=1), integer("seed", seed, 0)
    if any(s.is_meta for s in samples):
        raise TypeError("samples must have their numbers in memory, got some on meta")
    if flag("paired", paired) and len({len(s) for s in samples}) > 1:
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


def proportion(successes: int, trials: int, *, confidence: float = 0.95) -> Estimate:
    """A share that was counted, with its exact interval (Clopper & Pearson 1934).

    Either end is the probability at which a count as far off as this one, or farther, has only the chance that is left
    for that side: half of what ``confidence`` leaves, or all of it where none or all were counted, for then the other
    end is certain. So 0 of 96 does not mean that there are none: their share may be up to 3.1 %, about 3 / 96.
    Resampling zeros gives zeros: `bootstrap` has no width there.

    Parameters
    ----------
    successes : int
        How many were counted, from 0 to ``trials``.
    trials : int
        Of how many independent ones.
    confidence : float
        Level of the interval, between 0 and 1.

    Returns
    -------
    Estimate
        ``value``, ``low``, ``high``, as shares from 0 to 1.

    Examples
    --------
    >>> print(proportion(0, 96))
    0 [0, 0.03072]
    >>> print(proportion(30, 40))
    0.75 [0.588, 0.8731]
    """
    trials = integer("trials", trials, 1, 10**7)
    successes = integer("successes", successes, 0, trials)
    left = 1 - number("confidence", confidence, above=0, below=1)
    left = left / 2 if 0 < successes < trials else left
    low = 0.0 if successes == 0 else 1 - _highest(trials - successes, trials, left)
    high = 1.0 if successes == trials else _highest(successes, trials, left)
    return Estimate(successes / trials, low, high)


def _highest(count: int, trials: int, chance: float) -> float:
    """The probability at which at most ``count`` of ``trials`` come with this chance, by halving."""
    i = torch.arange(count + 1, dtype=torch.float64)
    ways = torch.special.gammaln(torch.tensor([trials + 1.0], dtype=torch.float64)) - torch.special.gammaln(i + 1)
    ways = ways - torch.special.gammaln(trials - i + 1)
    low, high = count / trials, 1.0
    while low < (middle := (low + high) / 2) < high:
        at_most = torch.exp(ways + i * math.log(middle) + (trials - i) * math.log1p(-middle)).sum()
        low, high = (middle, high) if float(at_most) > chance else (low, middle)
    return low

"""Noise that depends on the seed and the number of the sample only, never on how a batch was split.

A counter-based generator (Philox, Salmon et al. 2011) is keyed by (seed, sample number), so 50,000 samples can be
drawn in any order, on any number of machines, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from teachkit import checks
from teachkit.checks import floating_dtype, integer, scalar
from teachkit.denoisers import default_dtype

__all__ = ["initial_noise"]


def initial_noise(
    n: int,
    event_shape: Sequence[int],
    sigma: float | Tensor = 80.0,
    seed: int = 0,
    *,
    first: int = 0,
    stream: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Pure noise at level ``sigma``, the usual starting point of a sampler.

    Sample number i depends only on ``seed`` and ``first + i``: ``initial_noise(8, s)[5:]`` equals
    ``initial_noise(3, s, first=5)``.

    Parameters
    ----------
    n : int
        Number of samples.
    event_shape : tuple of int
        Shape of one sample.
    sigma : float
        Standard deviation, >= 0.
    seed, first, stream : int
        Seed; number of the first sample; and a number for independent draws under one seed. All >= 0.
    dtype, device
        float64 on the CPU by default (float32 where a device has no float64).

    Returns
    -------
    Tensor
        ``(n, *event_shape)``.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, or of the wrong kind.

    Examples
    --------
    >>> x = initial_noise(8, (2, 3), sigma=5.0)
    >>> x.shape, bool((initial_noise(3, (2, 3), sigma=5.0, first=5) == x[5:]).all())
    (torch.Size([8, 2, 3]), True)
    """
    n = integer("n", n, 1)
    seed, first, stream = integer("seed", seed, 0), integer("first", first, 0), integer("stream", stream, 0)
    event = checks.event_shape("event_shape", event_shape)
    level = scalar("sigma", sigma, least=0)
    dtype, device = floating_dtype("dtype", dtype), checks.device("device", device)
    draw = np.empty((n, *event))
    for i in range(n):
        bits = np.random.Philox(key=[seed, first + i], counter=[0, 0, 0, stream])
        draw[i] = np.random.Generator(bits).standard_normal(event)
    return torch.from_numpy(draw).mul_(level).to(dtype or default_dtype(device)).to(device)

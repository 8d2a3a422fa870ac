"""The empirical denoiser against the two bare matrix products it cannot do without, and its peak memory."""

from __future__ import annotations

import resource
import statistics
import sys

import torch

from benchmarks.clock import one_thread, wall
from teachkit import Empirical

POINTS, DIM, QUERIES, REPEATS = 50_000, 3072, 256, 3
PEERS = ()
ABOUT = f"""
`Empirical` on {POINTS:,} random points of {DIM:,} numbers, {QUERIES} queries, float32, one thread. The floor is
`x @ data.T` followed by `weights @ data`, over all points at once; medians of {REPEATS} runs, in turns. Where few
points have weight the second product is not needed, and the rate exceeds 100 %. Wanted: a rate of 50 % or more, and a
peak below 3 GiB. The peak is that of the process so far: data, floor and Python included.
"""


def peak() -> float:
    """Peak memory of this process, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each noise level."""
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(POINTS, DIM, generator=rng)
    D = Empirical(data)
    noise = torch.randn(QUERIES, DIM, generator=rng)
    weights = torch.rand(QUERIES, POINTS, generator=rng)

    def floor(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x @ data.T, weights @ data

    rows: list[dict[str, object]] = []
    for sigma in (80.0, 5.0, 0.5, 0.002):
        x = data[:QUERIES] + sigma * noise
        pairs = [(wall(lambda x=x, s=sigma: D(x, s)), wall(lambda x=x: floor(x))) for _ in range(REPEATS)]
        ours, bare = (statistics.median(pair[k] for pair in pairs) for k in (0, 1))
        rows.append(
            {
                "sigma": sigma,
                "denoiser, s": round(ours, 2),
                "two products, s": round(bare, 2),
                "rate of the floor, %": round(100 * bare / ours),
                "peak, GiB": round(peak(), 2),
            }
        )
    return rows

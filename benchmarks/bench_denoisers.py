"""The empirical denoiser against the two bare matrix products it cannot do without, and its peak memory.

50,000 random "images" of 3,072 numbers, 256 queries, float32. The floor is x @ y.T followed by weights @ y, over the
whole data set at once; both are timed alternately in one run.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import torch

from teachkit import Empirical

POINTS, DIM, QUERIES = 50_000, 3072, 256


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def run(repeats: int = 3) -> None:
    """Print a row for each noise level."""
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(POINTS, DIM, generator=rng)
    D = Empirical(data)
    noise = torch.randn(QUERIES, DIM, generator=rng)
    weights = torch.rand(QUERIES, POINTS, generator=rng)
    print(f"{POINTS:,} x {DIM:,} data, {QUERIES} queries, float32, {torch.get_num_threads()} thread(s)\n")
    print("| sigma | denoiser, s | two products, s | rate of the floor |\n|---:|---:|---:|---:|")
    for sigma in (80.0, 5.0, 0.5, 0.002):
        x = data[:QUERIES] + sigma * noise
        pairs = [(seconds(lambda x=x, s=sigma: D(x, s)), seconds(lambda x=x: (x @ data.T, weights @ data)))
                 for _ in range(repeats)]  # fmt: skip
        ours, floor = (statistics.median(p[k] for p in pairs) for k in (0, 1))
        print(f"| {sigma:g} | {ours:.2f} | {floor:.2f} | {100 * floor / ours:.0f} % |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"\npeak memory of the process, data and Python included: {peak:.2f} GiB")


if __name__ == "__main__":
    run()

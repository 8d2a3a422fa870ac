"""How the time of each area grows with the size of its problem: slopes of log time against log size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import torch

from benchmarks.clock import one_thread, processor
from teachkit import Empirical, Gaussian, edm, geometry, initial_noise, metrics, sample, schedules, scheduling

REPEATS = 5
PEERS = ()
ABOUT = f"""
Processor time of one call, one thread, at sizes in geometric progression; the sizes in turns, {REPEATS} rounds. Each
round gives the slope of the line through (log size, log time); the table has their median and range. A slope of 1 means
time in proportion, 2 its square. Expected is what the arithmetic says for large sizes; where a fixed cost counts at the
small end the slope is less. Times are compared within one process and one round, as other load changes both.
"""
Task = tuple[str, str, str, Sequence[int], Callable[[int], Callable[[], object]]]


def cases() -> list[Task]:
    """Area, what grows, the slope expected, the sizes, and what makes the call for a size."""
    rng = torch.Generator().manual_seed(0)
    stored = torch.randn(64, 3, 32, 32, generator=rng)
    bell = Gaussian(torch.zeros(64, dtype=torch.float64), torch.linspace(0.1, 4, 64, dtype=torch.float64))
    network = edm.load("edm-digits8")

    def loop(x: torch.Tensor, steps: int) -> Callable[[], object]:
        free = torch.zeros_like(x)
        return lambda: sample(lambda x, sigma, labels=None: free, x, schedules.polynomial(steps), "dpmpp_2m")

    def empirical(points: int, queries: int, dim: int) -> Callable[[], object]:
        data = torch.randn(points, dim, generator=rng)
        denoiser, x = Empirical(data), data[:queries] + 5.0
        return lambda: denoiser(x, 5.0)

    def teacher(levels: int, batch: int = 16) -> Callable[[], object]:
        path = sample(bell, initial_noise(batch, (64,), seed=0), schedules.polynomial(levels))
        return lambda: scheduling.cost_matrix(path, "l2")

    def routes(levels: int) -> Callable[[], object]:
        cost = torch.rand(levels + 1, levels + 1, generator=rng, dtype=torch.float64).triu(1)
        return lambda: scheduling.shortest_paths(cost, 10)

    def shape(paths: int, measure: str) -> Callable[[], object]:
        x = torch.randn(51, paths, 256, generator=rng).cumsum(0)
        calls: dict[str, Callable[[], object]] = {
            "deviation": lambda: geometry.deviation(x),
            "components": lambda: geometry.explained_variance(x, 2, remove_chord=True),
        }
        return calls[measure]

    def frechet(width: int) -> Callable[[], object]:
        a, b = (metrics.FeatureStatistics(torch.randn(2 * width, width, generator=rng).double()) for _ in range(2))
        return lambda: metrics.frechet_distance(a, b)

    def forward(batch: int) -> Callable[[], object]:
        x = torch.randn(batch, 1, 8, 8, generator=rng)
        return lambda: network(x, torch.tensor(2.0))

    return [
        ("sampling", "steps", "1", (20, 40, 80, 160), lambda n: loop(stored[:8], n)),
        ("sampling", "samples", "1", (8, 16, 32, 64), lambda n: loop(stored[:n], 20)),
        ("Empirical", "points", "1", (4000, 8000, 16000, 32000), lambda n: empirical(n, 64, 256)),
        ("Empirical", "queries", "1", (16, 32, 64, 128), lambda n: empirical(16000, n, 256)),
        ("Empirical", "dimension", "1", (128, 256, 512, 1024), lambda n: empirical(16000, 64, n)),
        ("cost matrix", "levels", "2", (60, 120, 240, 480), teacher),
        ("programme", "levels", "2", (125, 250, 500, 1000), routes),
        ("geometry, deviation", "paths", "1", (125, 250, 500, 1000), lambda n: shape(n, "deviation")),
        ("geometry, components", "paths", "1", (125, 250, 500, 1000), lambda n: shape(n, "components")),
        ("Fréchet distance", "features", "3", (128, 256, 512, 1024), frechet),
        ("network, 8 x 8", "batch", "1", (32, 64, 128, 256), forward),
    ]


def slope(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Least-squares slope of log time against log size."""
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(max(t, 1e-7)) for t in times]).slope


@one_thread()
@torch.no_grad()
def run() -> list[dict[str, object]]:
    """A row for each area and what grows in it."""
    return [_row(*case) for case in cases()]


def _row(
    area: str, what: str, expected: str, sizes: Sequence[int], make: Callable[[int], Callable[[], object]]
) -> dict[str, object]:
    calls = [make(n) for n in sizes]
    for call in calls:
        call()
    rounds = [[processor(call, least=0.005) for call in calls] for _ in range(REPEATS)]
    slopes = sorted(slope(sizes, times) for times in rounds)
    return {
        "area": area,
        "what grows": what,
        "from": sizes[0],
        "to": sizes[-1],
        "largest, ms": round(1e3 * statistics.median(times[-1] for times in rounds), 1),
        "expected": expected,
        "slope": round(statistics.median(slopes), 2),
        "its range": f"{slopes[0]:.2f} to {slopes[-1]:.2f}",
    }

"""The empirical denoiser against smalldiffusion's `IdealDenoiser`, which computes the same by its definition."""

from __future__ import annotations

import statistics

import torch

from benchmarks.clock import one_thread, processor
from benchmarks.peers import ideal_denoiser
from teachkit import Empirical, data

QUERIES, REPEATS = 64, 7
SIGMAS = (80.0, 2.0, 0.02)
PEERS = ("smalldiffusion",)
ABOUT = f"""
`Empirical` and smalldiffusion's `IdealDenoiser` on the same points and the same {QUERIES} queries, float32, one thread.
Before the clock starts, both results are compared. The two are run in turns in one process, {REPEATS} times; medians of
processor time, and the range of the ratios of the turns. The peer gives the noise; the denoised point follows
by one subtraction. Ratio: ours over theirs. Wanted: 1 or less.
"""


def points() -> dict[str, torch.Tensor]:
    """Data sets by name, float32, (N, ...)."""
    rng = torch.Generator().manual_seed(0)
    sets = {f"{name}, {data.load(name).images.flatten(1).shape[1]} numbers": data.load(name).images.float()
            for name in ("digits8", "mnist5k")}  # fmt: skip
    return sets | {"random, 3072 numbers": torch.randn(20_000, 3, 32, 32, generator=rng)}


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each data set and noise level. ImportError with what to install where the peer is absent."""
    kind = ideal_denoiser()
    return [row for name, images in points().items() for row in compare(name, images, kind)]


@torch.no_grad()
def compare(name: str, images: torch.Tensor, kind: type) -> list[dict[str, object]]:
    """The rows of one data set."""
    ours, theirs = Empirical(images), kind(images)
    noise = torch.randn(QUERIES, *images.shape[1:], generator=torch.Generator().manual_seed(1))
    rows: list[dict[str, object]] = []
    for sigma in SIGMAS:
        x, level = images[:QUERIES] + sigma * noise, torch.tensor(sigma)

        def peer(x: torch.Tensor = x, level: torch.Tensor = level) -> torch.Tensor:
            return x - level * theirs(x, level)

        def own(x: torch.Tensor = x, sigma: float = sigma) -> torch.Tensor:
            return ours(x, sigma)

        torch.testing.assert_close(own(), peer(), rtol=1e-2, atol=1e-2)
        turns = [(processor(own, least=0.005), processor(peer, least=0.005)) for _ in range(REPEATS)]
        mine, other = (statistics.median(turn[k] for turn in turns) for k in (0, 1))
        ratios = sorted(a / b for a, b in turns)
        rows.append(
            {
                "data": name,
                "points": len(images),
                "sigma": sigma,
                "ours, ms": round(1e3 * mine, 1),
                "IdealDenoiser, ms": round(1e3 * other, 1),
                "ratio": round(statistics.median(ratios), 2),
                "its range": f"{ratios[0]:.2f}–{ratios[-1]:.2f}",
            }
        )
    return rows

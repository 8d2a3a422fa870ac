"""A path of the exact denoiser at the paper's own dimension: is it interactive, and how near the matrix products?"""

from __future__ import annotations

import statistics

import torch
from torch import Tensor

from benchmarks.clock import one_thread, processor
from teachkit import Empirical, data, initial_noise, sample, schedules

COUNT, STEPS, REPEATS, STRIDE = 64, 100, 3, 1
PEERS = ()
ABOUT = f"""
One Euler path of {COUNT} samples and {STEPS} steps with `Empirical` of all 5,000 patches of `photos32`, 3,072 numbers
each, one thread. The floor is the two matrix products of every step, `x @ data.T` and `weights @ data`, over all
points. The two are run in turns, {REPEATS} times; medians of processor time. Wanted: 20 s or less. At low
noise few points have weight, and the second product is not needed.
"""


@one_thread()
@torch.no_grad()
def run() -> list[dict[str, object]]:
    """A row for each precision."""
    images = data.load("photos32").images[::STRIDE]
    rows: list[dict[str, object]] = []
    for dtype in (torch.float64, torch.float32):
        denoiser = Empirical(images.to(dtype))
        x, points = initial_noise(COUNT, images.shape[1:], seed=0).to(dtype), images.to(dtype).flatten(1)

        def path(denoiser: Empirical = denoiser, x: Tensor = x) -> object:
            return sample(denoiser, x, schedules.polynomial(STEPS), keep="final")

        def products(x: Tensor = x, points: Tensor = points) -> None:
            for _ in range(STEPS):
                (x.flatten(1) @ points.T) @ points

        turns = [(processor(path), processor(products)) for _ in range(REPEATS)]
        ours, floor = (statistics.median(turn[k] for turn in turns) for k in (0, 1))
        rows.append(
            {
                "precision": str(dtype).removeprefix("torch."),
                "path, s": round(ours, 1),
                "two products, s": round(floor, 1),
                "ratio": round(ours / floor, 2),
            }
        )
    return rows

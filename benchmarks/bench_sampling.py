"""What a step costs beside the denoiser: `teachkit.sample` against k-diffusion's function for the same solver."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.clock import one_thread
from benchmarks.peers import k_diffusion_sampling
from teachkit import initial_noise, sample, schedules

# our name -> k-diffusion's function
SHARED = {
    "euler": "sample_euler",
    "heun": "sample_heun",
    "dpm2": "sample_dpm_2",
    "dpmpp_2m": "sample_dpmpp_2m",
    "lms": "sample_lms",
}
SHAPE, STEPS, REPEATS = (64, 3, 32, 32), 20, 60
PEERS = ("k-diffusion",)
ABOUT = f"""
Microseconds a step beside the denoiser, which costs nothing here (it returns one stored tensor): the loop and the
solver's arithmetic. Batch {" x ".join(map(str, SHAPE))} float32, one thread, same start and grid, in turns in one
process; fastest of {REPEATS} runs of {STEPS} steps, as other load disturbs those least. Before the clock starts, both
results are compared. k-diffusion does not keep the path, so `keep="final"` is the fair column; wanted: a ratio of 1 or
less there. Our `lms` caches its weights, which depend on the grid alone; k-diffusion integrates them anew each run.
"""


def alternate(calls: Sequence[Callable[[], Tensor]], repeats: int) -> list[float]:
    """Seconds of the fastest of ``repeats`` runs of each, in turns."""
    best = [float("inf")] * len(calls)
    gc.collect()
    gc.disable()
    try:
        for repeat in range(repeats + 2):
            for i, call in enumerate(calls):
                begin = time.perf_counter()
                call()
                if repeat > 1:  # the first two warm up
                    best[i] = min(best[i], time.perf_counter() - begin)
    finally:
        gc.enable()
    return best


def compare(repeats: int = REPEATS) -> dict[str, tuple[float, float, float]]:
    """Microseconds a step for each shared solver: ours keeping only the end, ours keeping the path, theirs."""
    peer = k_diffusion_sampling()
    x = initial_noise(SHAPE[0], SHAPE[1:], 80.0, dtype=torch.float32)
    sigmas = schedules.polynomial(STEPS - 1, zero=True)
    levels = sigmas.float()
    stored = initial_noise(SHAPE[0], SHAPE[1:], 0.5, seed=1, dtype=torch.float32)

    def free(x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        return stored

    @torch.no_grad()
    def theirs(function: str) -> Tensor:
        return getattr(peer, function)(free, x, levels, disable=True)

    def ours(name: str, keep: str) -> Tensor:
        return sample(free, x, sigmas, name, keep=keep).final

    rows = {}
    for name, function in SHARED.items():
        calls = [partial(ours, name, "final"), partial(ours, name, "all"), partial(theirs, function)]
        torch.testing.assert_close(calls[0](), calls[2](), rtol=1e-3, atol=1e-3)
        end, path, other = (1e6 * seconds / STEPS for seconds in alternate(calls, repeats))
        rows[name] = (end, path, other)
    return rows


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each shared solver. ImportError with what to install where k-diffusion is absent."""
    return [
        {
            "solver": name,
            '`keep="final"`': round(end),
            '`keep="all"`': round(path),
            "k-diffusion": round(other),
            "ratio (final)": round(end / other, 2),
            "ratio (all)": round(path / other, 2),
        }
        for name, (end, path, other) in compare().items()
    ]

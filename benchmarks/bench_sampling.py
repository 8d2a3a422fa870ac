"""What a step costs beside the denoiser: `teachkit.sample` against k-diffusion's function for the same solver.

The denoiser costs nothing (it returns one stored tensor), so what is timed is the loop and the solver's arithmetic.
Both run in one process on one thread, on the same start and grid, in turns; before the clock starts their results are
compared. Fastest runs are reported, as other load on the machine disturbs them least. `lms` caches its weights, which
depend on the grid alone; k-diffusion integrates them anew on each run.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

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


def run() -> None:
    """Print the table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = compare()
    except ImportError as error:
        print(f"skipped: {error}")
        return
    finally:
        torch.set_num_threads(threads)
    print(
        f"Overhead of a step in microseconds, denoiser free, batch {' x '.join(map(str, SHAPE))} float32, one thread;"
    )
    print(f"fastest of {REPEATS} runs of {STEPS} steps, in turns. k-diffusion does not keep the path.\n")
    print('| solver | `keep="final"` | `keep="all"` | k-diffusion | ratio (final) | ratio (all) |')
    print("|---|---:|---:|---:|---:|---:|")
    for name, (end, path, other) in rows.items():
        print(f"| {name} | {end:.0f} | {path:.0f} | {other:.0f} | {end / other:.2f} | {path / other:.2f} |")

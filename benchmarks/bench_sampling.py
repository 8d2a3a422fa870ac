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
results are compared. k-diffusion returns the end; its path is what its callback is given, states and denoised outputs:
in lists, which costs nothing but the memory (no copy is made, as each is a new tensor), and then stacked into the two
tensors that `keep="all"` returns. Like is compared with like: end with end, stacked path with path; wanted: ratios of 1
or less. Our `lms` caches its weights, which depend on the grid alone; k-diffusion integrates them anew each run.
"""


def alternate(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
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


def compare(repeats: int = REPEATS) -> dict[str, tuple[float, ...]]:
    """Microseconds a step for each shared solver: our end and path; their end, path in lists, and path stacked."""
    peer = k_diffusion_sampling()
    x = initial_noise(SHAPE[0], SHAPE[1:], 80.0, dtype=torch.float32)
    sigmas = schedules.polynomial(STEPS - 1, zero=True)
    levels = sigmas.float()
    stored = initial_noise(SHAPE[0], SHAPE[1:], 0.5, seed=1, dtype=torch.float32)

    def free(x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        return stored

    @torch.no_grad()
    def end(function: str) -> Tensor:
        return getattr(peer, function)(free, x, levels, disable=True)

    @torch.no_grad()
    def lists(function: str) -> tuple[list[Tensor], list[Tensor]]:
        states: list[Tensor] = []
        outputs: list[Tensor] = []

        def keep(seen: dict[str, Tensor]) -> None:
            states.append(seen["x"])
            outputs.append(seen["denoised"])

        final = getattr(peer, function)(free, x, levels, disable=True, callback=keep)
        return [*states, final], outputs

    def stacked(function: str) -> tuple[Tensor, ...]:
        return tuple(map(torch.stack, lists(function)))

    def ours(name: str, keep: str) -> tuple[Tensor, ...]:
        path = sample(free, x, sigmas, name, keep=keep)
        return path.x, path.denoised

    rows = {}
    for name, function in SHARED.items():
        calls = [*(partial(ours, name, keep) for keep in ("final", "all")),
                 *(partial(theirs, function) for theirs in (end, lists, stacked))]  # fmt: skip
        torch.testing.assert_close(ours(name, "final")[0][-1], end(function), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours(name, "all"), stacked(function), rtol=1e-3, atol=1e-3)
        rows[name] = tuple(1e6 * seconds / STEPS for seconds in alternate(calls, repeats))
    return rows


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each shared solver. ImportError with what to install where k-diffusion is absent."""
    return [
        {
            "solver": name,
            '`keep="final"`': round(end),
            '`keep="all"`': round(path),
            "k-diffusion, end": round(other),
            "path in lists": round(lists),
            "path stacked": round(stacked),
            "ratio (end)": round(end / other, 2),
            "ratio (path)": round(path / stacked, 2),
        }
        for name, (end, path, other, lists, stacked) in compare().items()
    ]

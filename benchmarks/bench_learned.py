"""Solvers fitted by least squares against solvers learned by gradients: errors, evaluations and time."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.clock import one_thread
from teachkit import data, edm, initial_noise, sample, schedules, scheduling
from teachkit.denoisers import Denoiser, LowRankMixture
from teachkit.scheduling import Schedule

WARM_UP, HELD_OUT, TIMES = 128, 256, 10
PEERS = ()
ABOUT = f"""
`fit_solver` against `learn_solver` (levels and all weights, by Adam through the sampler), both on {WARM_UP} warm-up
samples from one teacher, their errors on {HELD_OUT} from other noise. What is learned may spend {TIMES} times the
evaluations of what is fitted, a backward pass counted as two; it starts from the cosine grid, and from what was fitted.
One thread. *error*: the fitted solver's over the learned one's, wanted at most 1.05; *evaluations* and *time*: the
learned one's over the fitted one's, the teacher left out.
"""


def class_mixture() -> Denoiser:
    """A Gaussian for each class of the 8x8 digits, in closed form."""
    digits = data.load("digits8")
    return LowRankMixture.fit(digits.images.double(), digits.labels)


PROBLEMS: dict[str, tuple[Callable[[], Denoiser], torch.dtype, tuple[int, ...]]] = {
    "mixture of the digits": (class_mixture, torch.float64, (3, 4, 5, 6, 8, 10)),
    "edm-digits8": (lambda: edm.load("edm-digits8"), torch.float32, (4, 6, 10)),
}


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each problem and number of evaluations."""
    return [row for name in PROBLEMS for row in _rows(name)]


def _rows(name: str) -> list[dict[str, object]]:
    make, dtype, budgets = PROBLEMS[name]
    D = make()
    x, fresh = (initial_noise(n, (1, 8, 8), seed=seed, dtype=dtype) for n, seed in ((WARM_UP, 0), (HELD_OUT, 1)))
    teacher = scheduling.teacher_paths(D, x)
    end = sample(D, fresh, schedules.polynomial(200), "unipc", keep="final").final

    def judged(find: Callable[[], Schedule]) -> tuple[Schedule, float, int, float]:
        begun = time.perf_counter()
        found = find()
        seconds = time.perf_counter() - begun
        final = sample(D, fresh, found.sigmas, found.make_solver(), keep="final").final
        error = float((final - end).flatten(1).pow(2).mean(1).sqrt().mean())
        spent = found.provenance["evaluations"] - found.provenance["teacher_evaluations"]
        return found, error, spent, seconds

    rows = []
    for nfe in budgets:
        fitted, error, spent, seconds = judged(lambda n=nfe: scheduling.fit_solver(D, x, n, teacher=teacher))
        iterations = TIMES * spent // (32 * 3 * nfe)
        for start in ("cosine", fitted):
            _, theirs, cost, wall = judged(
                lambda n=nfe, start=start, k=iterations: scheduling.learn_solver(
                    D, x, n, start=start, teacher=teacher, iterations=k, save_memory=False
                )
            )
            row: dict[str, object] = {
                "problem": name,
                "NFE": nfe,
                "from": start if isinstance(start, str) else "fitted",
            }
            row |= {"fitted": f"{error:.5f}", "learned": f"{theirs:.5f}", "error": f"{error / theirs:.2f}"}
            rows.append(row | {"evaluations": f"{cost / spent:.1f}", "time": f"{wall / seconds:.1f}"})
    return rows

"""How long an explorer takes to answer: the redraw after a control has moved."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.clock import one_thread, processor
from teachkit import Empirical, GaussianMixture, data, initial_noise, sample, schedules
from teachkit.course import widgets

REPEATS = 9
PEERS = ("ipywidgets", "matplotlib")
ABOUT = f"""
Processor time of one redraw of each explorer on a small problem, one thread, median and largest of {REPEATS}, in
milliseconds. Wanted: below 250, so that a slider feels attached to its picture. There is no peer.
"""


def makers() -> dict[str, Callable[[], widgets.Explorer]]:
    """Name -> an explorer of the problem that its lesson shows."""
    mixture = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], 0.02)
    moons = data.two_moons(200, seed=0, noise=0.1)
    digits = data.load("digits8").images[:200].double()
    path = sample(Empirical(digits), initial_noise(12, (1, 8, 8)), schedules.polynomial(30))
    return {
        "denoiser_field": lambda: widgets.denoiser_field(mixture, data=moons),
        "mean_shift_steps": lambda: widgets.mean_shift_steps(Empirical(moons), moons[::10], data=moons, extent=2.0),
        "noise_walk": lambda: widgets.noise_walk({"teacher": digits[:20], "student": digits[20:40]}),
        "path_player": lambda: widgets.path_player(path),
        "turn_boomerang": lambda: widgets.turn_boomerang(path),
        "solver_lab": lambda: widgets.solver_lab(mixture, initial_noise(24, (2,)), data=moons),
        "schedule_lab": lambda: widgets.schedule_lab(mixture, initial_noise(24, (2,))),
    }


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each explorer."""
    rows: list[dict[str, object]] = []
    for name, make in makers().items():
        explorer = make()
        taken = [1e3 * processor(explorer.update) for _ in range(REPEATS)]
        rows.append({"explorer": name, "median, ms": round(statistics.median(taken)), "largest, ms": round(max(taken))})
    return rows

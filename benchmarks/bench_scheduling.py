"""Cost matrices and the dynamic programme against straightforward loops of the same mathematics."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.clock import one_thread, processor
from teachkit import Empirical, Trajectory, data, initial_noise, sample, schedules, scheduling

GRIDS, BATCH, STEPS = (60, 200, 500), 16, 10
PEERS = ()
ABOUT = f"""
`cost_matrix` on {BATCH} paths of 8x8 digits (float64) against a double loop over pairs of levels, each pair one tensor
expression; and all schedules of 1 to {STEPS} steps against a triple loop in plain Python that fills the same table. One
thread; the two are run in turns and the faster of two runs counts. Ratio: the loop's time over ours. Wanted: above 1
everywhere, l1 at 501 levels included.
"""


def looped_costs(teacher: Trajectory, metric: str) -> Tensor:
    """The definition of the costs, pair by pair."""
    x, n = teacher.x.flatten(2), len(teacher.sigmas) - 1
    eps = (x[:-1] - teacher.denoised.flatten(2)) / teacher.sigmas[:-1, None, None]
    chord = x[-1] - x[0]
    unit = chord / chord.norm(dim=1, keepdim=True)

    def off_chord(y: Tensor) -> Tensor:
        offset = y - x[0]
        return (offset - (offset * unit).sum(1, keepdim=True) * unit).norm(dim=1)

    out = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    for i in range(n):
        for j in range(i + 1, n + 1):
            landed = x[i] + (teacher.sigmas[j] - teacher.sigmas[i]) * eps[i]
            if metric == "deviation":
                out[i, j] = (off_chord(landed) - off_chord(x[j])).mean()
            else:
                out[i, j] = (landed - x[j]).norm(p=1 if metric == "l1" else 2, dim=1).mean()
    return out


def looped_programme(cost: Tensor, steps: int) -> list[list[float]]:
    """Values of the cheapest routes in 1 to ``steps`` jumps, by three loops."""
    c, n = cost.tolist(), len(cost) - 1
    value = [[row[n] for row in c]]
    for _ in range(steps - 1):
        new = [math.inf] * (n + 1)
        for i in range(n):
            for j in range(i + 1, n):
                new[i] = min(new[i], c[i][j] + value[-1][j])
        value.append(new)
    return value


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each size of the grid and each task."""
    return [row for n in GRIDS for row in _rows(n)]


def _rows(n: int) -> list[dict[str, object]]:
    denoiser = Empirical(data.load("digits8").images.double())
    teacher = sample(denoiser, initial_noise(BATCH, (1, 8, 8), seed=0), schedules.polynomial(n))
    cost = scheduling.cost_matrix(teacher, "l2")
    tasks: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        f"costs, {metric}": (
            lambda m=metric: scheduling.cost_matrix(teacher, m),
            lambda m=metric: looped_costs(teacher, m),
        )
        for metric in ("deviation", "l1", "l2")
    }
    tasks["programme"] = (lambda: scheduling.shortest_paths(cost, STEPS), lambda: looped_programme(cost, STEPS))
    rows = []
    for name, (ours, loop) in tasks.items():
        mine, theirs = zip(*((processor(ours), processor(loop)) for _ in range(2)))
        row: dict[str, object] = {"levels": n + 1, "task": name}
        row |= {"ours, ms": round(1e3 * min(mine), 2), "loops, ms": round(1e3 * min(theirs), 1)}
        rows.append(row | {"ratio": round(min(theirs) / max(min(mine), 1e-6), 1)})
    return rows

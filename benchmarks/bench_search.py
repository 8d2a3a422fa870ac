"""What looking for a schedule costs beside the teacher's sampling, on the shipped MNIST network."""

from __future__ import annotations

import time

import torch

from benchmarks.clock import one_thread
from teachkit import edm, initial_noise, scheduling
from teachkit.scheduling.search import COEFFICIENTS

WARM_UP, STEPS = 32, 6
PEERS = ()
ABOUT = f"""
The teacher samples {WARM_UP} warm-up paths with 60 evaluations each; the cost matrices (l2 and deviation) and the
cheapest routes of {STEPS} steps at {len(COEFFICIENTS)} coefficients reuse its paths, without further evaluations.
Processor time on one thread. Wanted: at most 5 % of the teacher's.
"""


@one_thread()
def run() -> list[dict[str, object]]:
    """A row for each part."""
    network = edm.load("edm-mnist")
    x = initial_noise(WARM_UP, (1, 28, 28), dtype=torch.float32)
    with torch.no_grad():
        network(x, 80.0)  # the first call also sets the library up
        begun = time.process_time()
        teacher = scheduling.teacher_paths(network, x)
    sampled = time.process_time()
    costs = [scheduling.cost_matrix(teacher, metric) for metric in ("l2", "deviation")]
    priced = time.process_time()
    for cost in costs:
        for coefficient in COEFFICIENTS:
            scheduling.shortest_path(cost, STEPS, coefficient)
    parts = {"the teacher": sampled - begun, "cost matrices": priced - sampled}
    parts["routes"] = time.process_time() - priced
    whole = parts["the teacher"]
    return [{"part": k, "s": round(v, 3), "% of the teacher": round(100 * v / whole, 2)} for k, v in parts.items()]

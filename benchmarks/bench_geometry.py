"""Time and peak memory of the geometry of a thousand paths of small colour pictures."""

from __future__ import annotations

import subprocess
import sys

SIZES, STEPS, DIM = (250, 500, 1000), 100, 3072
PEERS = ()
ABOUT = f"""
Every measure of `teachkit.geometry` on random walks of {STEPS} steps in {DIM:,} dimensions, float32, one thread, a new
process for each number of paths: deviation, arc length, explained variance without the chord (2 components), and
projection with alignment; then curvature and torsion of the projections (window of 21 points). Seconds of processor
time, which other load disturbs least. Wanted: time and memory that grow in proportion to the number of paths, and a
peak below 4 GiB for a thousand. The peak is that of the process: paths, blocks, Python and torch included.
"""

SCRIPT = """
import resource, sys, time, torch
from teachkit import geometry
torch.set_num_threads(1)
count, steps, dim = map(int, sys.argv[1:])
x = torch.empty(steps + 1, count, dim)
rng = torch.Generator().manual_seed(0)
for n in range(steps + 1):
    torch.randn(count, dim, generator=rng, out=x[n])
    if n:
        x[n] += x[n - 1]
calls = (
    lambda: geometry.deviation(x),
    lambda: geometry.arc_length(x),
    lambda: geometry.explained_variance(x, 2, remove_chord=True),
    lambda: geometry.align(geometry.project(x), about_chord=True),
)
for call in calls:
    begun = time.process_time()
    curves = call()
    print(time.process_time() - begun)
begun = time.process_time()
geometry.curvature_torsion(curves, 21)
print(time.process_time() - begun)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10) / 2**10)
"""
COLUMNS = ("deviation, s", "arc length, s", "explained variance, s", "project and align, s", "curvature, s")


def run() -> list[dict[str, object]]:
    """A row for each number of paths."""
    rows: list[dict[str, object]] = []
    for count in SIZES:
        command = [sys.executable, "-c", SCRIPT, *map(str, (count, STEPS, DIM))]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        *seconds, peak = (float(number) for number in out)
        size = (STEPS + 1) * count * DIM * 4 / 2**30
        rows.append(
            {
                "paths": count,
                "their size, GiB": round(size, 2),
                **{name: round(value, 2) for name, value in zip(COLUMNS, seconds)},
                "per path, ms": round(1e3 * sum(seconds) / count, 1),
                "peak, GiB": round(peak, 2),
            }
        )
    return rows

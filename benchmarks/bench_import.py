"""What ``import teachkit`` takes, against ``import torch``, which it cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.clock import wall

PEERS = ()
RUNS = 7
ABOUT = f"""
Seconds from the start of a fresh Python to the end of the import, in turns, median and range of {RUNS}. Wanted: a ratio
of at most 1.05.
"""


def run() -> list[dict[str, object]]:
    """A row for each of the two."""
    taken: dict[str, list[float]] = {"torch": [], "teachkit": []}
    for package in taken:
        _import(package)  # into the file cache
    for _ in range(RUNS):
        for package, seconds in taken.items():
            seconds.append(_import(package))
    least = statistics.median(taken["torch"])
    return [
        {
            "import": package,
            "median, s": round(statistics.median(seconds), 2),
            "range, s": f"{min(seconds):.2f}–{max(seconds):.2f}",
            "ratio": round(statistics.median(seconds) / least, 2),
        }
        for package, seconds in taken.items()
    ]


def _import(package: str) -> float:
    return wall(lambda: subprocess.run([sys.executable, "-c", f"import {package}"], check=True))

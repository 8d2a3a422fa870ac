"""How long the whole course takes: every lesson from top to bottom in a fresh kernel, by tools/run_course.py."""

from __future__ import annotations

import importlib
import resource
import tempfile
import time
from pathlib import Path

import torch

PEERS = ("nbclient", "ipykernel")
ABOUT = f"""
Each lesson once, from top to bottom in a fresh kernel, one after another; {torch.get_num_threads()} thread(s) of torch.
Processor time is that of the kernel, its start and its imports included; wall time depends on what else is running.
There is no peer. Wanted: twelve minutes in all, and at most 90 s of processor time a lesson.
"""


def run() -> list[dict[str, object]]:
    """A row for each lesson, and their sum. ImportError where Jupyter is not installed."""
    course = importlib.import_module("tools.run_course")
    with tempfile.TemporaryDirectory() as folder:
        rows = [lesson(course, path, Path(folder)) for path in course.find([])]
    total = {name: sum(float(str(row[name])) for row in rows) for name in ("processor, s", "wall, s")}
    return [*rows, {"lesson": "all", **{name: round(value, 1) for name, value in total.items()}}]


def lesson(course: object, path: Path, folder: Path) -> dict[str, object]:
    """Run one lesson; RuntimeError if it fails, for its time would mean nothing."""
    begun, spent = time.perf_counter(), processor()
    if not course.run(path, out=folder):  # type: ignore[attr-defined]
        raise RuntimeError(f"{path.name} failed: nothing was measured")
    wall, cpu = time.perf_counter() - begun, processor() - spent
    return {"lesson": path.stem, "processor, s": round(cpu, 1), "wall, s": round(wall, 1)}


def processor() -> float:
    """Seconds of processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""Run the notebooks again and again and compare their outputs: ``python tools/repeat_notebooks.py [--times N]``.

Each time with another number of threads, drawn at random: a cell whose output depends on them, on the order of sums or
on time fails sooner or later. A line per run goes to the screen and to ``build/repeats.log``, which a later call adds
to; the exit code is 1 if a cell failed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build" / "repeats.log"


def run_once(threads: int, notebooks: list[str]) -> tuple[bool, str]:
    """One run of ``pytest --nbval``: whether all cells passed, and a line that says so, with those that did not."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", *notebooks],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    last = (done.stdout.strip() or done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
    line = f"{time.strftime('%Y-%m-%d %H:%M')}  {threads} threads  {time.perf_counter() - start:4.0f} s  {last}"
    return done.returncode == 0, "  ".join([line, *failed])


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the notebooks again and again, with random numbers of threads.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--most-threads", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("notebooks", nargs="*", default=["notebooks"])
    given = parser.parse_args()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    passed = []
    for _ in range(given.times):
        good, line = run_once(random.randint(1, given.most_threads), given.notebooks)
        passed.append(good)
        print(line, flush=True)
        with LOG.open("a") as log:
            log.write(line + "\n")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()

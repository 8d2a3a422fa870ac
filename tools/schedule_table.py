"""Measure schedules and fitted solvers against the usual ones, on noise that no search has seen; write the report.

    python tools/schedule_table.py edm-digits8          # adds to docs/schedules.jsonl what is not there yet
    python tools/schedule_table.py --report             # docs/SCHEDULES.md, and data/schedules/ for the shipped models

Per problem, seed, solver and number of evaluations: the mean error of the final samples to a converged reference from
the same held-out noise, for the usual grids, for the dynamic programme at its published setting (deviation,
coefficient 1.15) and at all coefficients from 0.8 to 1.2, and for the schedule that ``find_schedule`` found on
warm-up noise. And per number of evaluations, the solver that ``fit_solver`` fitted. Resumable: a row is written when
it is known.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teachkit import Empirical, GaussianMixture, data, edm, initial_noise, sample, scheduling, schedules, solvers
from teachkit.denoisers import Denoiser

ROOT = Path(__file__).resolve().parents[1]
ROWS, REPORT, FOUND = ROOT / "docs" / "schedules.jsonl", ROOT / "docs" / "SCHEDULES.md", ROOT / "data" / "schedules"
SOLVERS = ("euler", "heun", "dpm2", "ipndm", "dpmpp_2m", "dpmpp_3m", "deis", "unipc")
BUDGETS = (4, 5, 6, 8, 10)
GRIDS = (schedules.polynomial, schedules.logsnr, schedules.time_uniform, schedules.cosine)
COEFFICIENTS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)
HELD_OUT = 20_000  # added to the seed of the warm-up noise


@dataclass(frozen=True)
class Problem:
    """A denoiser, and how many samples it is searched and judged on."""

    title: str
    make: Callable[[], tuple[Denoiser, tuple[int, ...]]]
    warm_up: int
    held_out: int
    dtype: torch.dtype = torch.float64


def _mixture() -> tuple[Denoiser, tuple[int, ...]]:
    """Ten full-covariance Gaussians, one for each class of the 8x8 digits."""
    digits = data.load("digits8")
    rows = digits.images.double().flatten(1)
    classes = [rows[digits.labels == k] for k in range(10)]
    covariances = torch.stack([torch.cov(c.T, correction=0) + 1e-3 * torch.eye(64) for c in classes])
    return GaussianMixture([0.1] * 10, torch.stack([c.mean(0) for c in classes]), covariances), (64,)


PROBLEMS = {
    "mixture": Problem("mixture, 64-D, 10 components", _mixture, 256, 1024),
    "empirical": Problem(
        "Empirical, digits 8x8", lambda: (Empirical(data.load("digits8").images.double()), (1, 8, 8)), 1024, 1024
    ),
    "edm-digits8": Problem("edm-digits8", lambda: (edm.load("edm-digits8"), (1, 8, 8)), 128, 128, torch.float32),
    "edm-mnist": Problem("edm-mnist", lambda: (edm.load("edm-mnist"), (1, 28, 28)), 32, 48, torch.float32),
}


def errors(final: Tensor, reference: Tensor) -> dict[str, float]:
    """Mean and median over samples of the root-mean-square error."""
    each = (final - reference).flatten(1).double().pow(2).mean(1).sqrt()
    return {"mean": float(each.mean()), "median": float(each.median())}


def measure(name: str, seed: int, known: set[tuple[str, int, str, int]]) -> Iterator[dict[str, Any]]:
    """Rows of one problem and one seed, but for those known already."""
    problem = PROBLEMS[name]
    wanted = [(s, n) for n in BUDGETS for s in ("fitted", *SOLVERS) if (name, seed, s, n) not in known]
    if not wanted:
        return
    denoiser, shape = problem.make()
    noise = initial_noise(problem.held_out, shape, seed=HELD_OUT + seed).to(problem.dtype)
    reference = sample(denoiser, noise, schedules.polynomial(200), "unipc", keep="final").final
    warm_up = initial_noise(problem.warm_up, shape, seed=seed).to(problem.dtype)
    teacher = scheduling.teacher_paths(denoiser, warm_up)
    costs = {metric: scheduling.cost_matrix(teacher, metric) for metric in ("deviation", "l2")}

    def error(sigmas: Tensor, solver: solvers.Solver) -> dict[str, float]:
        return errors(sample(denoiser, noise, sigmas, solver, keep="final").final, reference)

    for solver, nfe in wanted:
        row: dict[str, Any] = {"problem": name, "seed": seed, "solver": solver, "nfe": nfe}
        if solver == "fitted":
            fitted, schedule = scheduling.fit_solver(denoiser, warm_up, nfe, teacher=teacher)
            row["found"] = error(schedule.sigmas, fitted)
        else:
            schedule = scheduling.find_schedule(denoiser, warm_up, nfe, solver, teacher=teacher)
            row["found"] = error(schedule.sigmas, schedule.make_solver())
            row["usual"], row["programme"] = {}, {}
            for steps, options in scheduling.search.step_counts(solver, nfe):
                suffix = ", Euler last" if options.get("euler_last") else ""
                for make in GRIDS:
                    row["usual"][make.__name__ + suffix] = error(make(steps), solvers.get(solver, **options))
                tried: dict[tuple[int, ...], dict[str, float]] = {}
                for metric, cost in costs.items():
                    for coefficient in COEFFICIENTS:
                        path = scheduling.shortest_path(cost, steps, coefficient)
                        key = tuple(path.tolist())
                        if key not in tried:
                            tried[key] = error(teacher.sigmas[path], solvers.get(solver, **options))
                        row["programme"][f"{metric} {coefficient}{suffix}"] = tried[key]
        row["schedule"] = json.loads(schedule.to_json())
        yield row


def rows() -> list[dict[str, Any]]:
    """All that was measured so far."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="problem", help=", ".join(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.problems) - set(PROBLEMS):
        parser.error(f"problem must be one of {', '.join(PROBLEMS)}, got {', '.join(sorted(unknown))}")
    torch.set_grad_enabled(False)
    ROWS.parent.mkdir(exist_ok=True)
    for seed in range(options.seeds):
        for name in options.problems:
            known = {(r["problem"], r["seed"], r["solver"], r["nfe"]) for r in rows()}
            for row in measure(name, seed, known):
                with ROWS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(name, seed, row["solver"], row["nfe"], f"{row['found']['mean']:.4f}", flush=True)


if __name__ == "__main__":
    main()

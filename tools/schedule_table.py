"""Measure schedules and fitted solvers against the usual ones, on noise that no search has seen; write the report.

    python tools/schedule_table.py                      # all that is missing or out of date, then the report
    python tools/schedule_table.py edm-digits8          # the same for one problem
    python tools/schedule_table.py --samples edm-digits8   # adds to docs/schedule_samples.json
    python tools/schedule_table.py --report             # docs/SCHEDULES.md, and data/schedules/ for the shipped models

Per problem, seed, solver and number of evaluations: the mean error of the final samples to a converged reference from
the same held-out noise, for the usual grids, for the dynamic programme at its published setting (deviation,
coefficient 1.15) and at all coefficients from 0.8 to 1.2, and for the schedule that ``find_schedule`` found on
warm-up noise. And per number of evaluations, the solver that ``fit_solver`` fitted. For the found schedules and the
usual grids also the share of samples that end elsewhere: nearer to another sample's reference than to their own. Then
`tools/learned_table.py` measures learned samplers.
Resumable: a row is written when it is known, with a key of the network and of the code of search, teacher and solvers;
rows of another key are measured again and replaced.
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

from teachkit import (
    Empirical,
    GaussianMixture,
    data,
    edm,
    initial_noise,
    metrics,
    sample,
    schedules,
    scheduling,
    solvers,
)
from teachkit.denoisers import Denoiser
from teachkit.files import write_whole
from teachkit.fingerprints import fingerprint, without_prose
from teachkit.scheduling.teacher import SIGMA_MIN
from teachkit.scheduling.warm_up import elsewhere

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "docs" / "schedule_samples.json"
ROWS, REPORT, FOUND = ROOT / "docs" / "schedules.jsonl", ROOT / "docs" / "SCHEDULES.md", ROOT / "data" / "schedules"
SOLVERS = ("euler", "heun", "dpm2", "ipndm", "dpmpp_2m", "dpmpp_3m", "deis", "unipc")
BUDGETS = (4, 5, 6, 8, 10)
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
    fit_warm_up: int | None = None  # if the fitted solver gets more than the search does

    @property
    def fitted_on(self) -> int:
        """Warm-up samples of the fitted solver."""
        return self.fit_warm_up or self.warm_up


def _mixture() -> tuple[Denoiser, tuple[int, ...]]:
    """Ten full-covariance Gaussians, one for each class of the 8x8 digits."""
    digits = data.load("digits8")
    rows = digits.images.double().flatten(1)
    classes = [rows[digits.labels == k] for k in range(10)]
    covariances = torch.stack([torch.cov(c.T, correction=0) + 1e-3 * torch.eye(64) for c in classes])
    return GaussianMixture([0.1] * 10, torch.stack([c.mean(0) for c in classes]), covariances), (64,)


PROBLEMS = {
    "mixture": Problem("mixture, 64-D, 10 components", _mixture, 256, 1024),
    # Here a share of a per cent of the paths, those that end at another digit, makes up the error: many samples.
    "empirical": Problem(
        "Empirical, digits 8x8",
        lambda: (Empirical(data.load("digits8").images), (1, 8, 8)),
        2048,
        4096,
        torch.float32,
        4096,
    ),
    "edm-digits8": Problem("edm-digits8", lambda: (edm.load("edm-digits8"), (1, 8, 8)), 128, 128, torch.float32),
    "edm-mnist": Problem("edm-mnist", lambda: (edm.load("edm-mnist"), (1, 28, 28)), 32, 48, torch.float32, 128),
    "edm-emoji": Problem("edm-emoji", lambda: (edm.load("edm-emoji"), (3, 32, 32)), 16, 32, torch.float32, 32),
    "empirical-photos": Problem(
        "Empirical, photographs 32x32",
        lambda: (Empirical(data.load("photos32").images), (3, 32, 32)),
        16,
        32,
        torch.float32,
        32,
    ),
}


def errors(final: Tensor, reference: Tensor) -> dict[str, float]:
    """Mean and median over samples of the root-mean-square error."""
    each = (final - reference).flatten(1).double().pow(2).mean(1).sqrt()
    return {"mean": float(each.mean()), "median": float(each.median())}


def key_of(denoiser: Denoiser) -> str:
    """What a row depends on: the model, and the code that searches, steps and samples (not its prose)."""
    package = Path(scheduling.__file__).parents[1]
    rooms = ("scheduling", "solvers", "schedules")
    files = [package / "sampling.py", *(file for room in rooms for file in (package / room).glob("*.py"))]
    return fingerprint([fingerprint(denoiser), [without_prose(file.read_text("utf-8")) for file in sorted(files)]])[:16]


def share_elsewhere(final: Tensor, reference: Tensor) -> dict[str, float]:
    """The share of samples that come nearer to where another belongs than to where they do."""
    return {"elsewhere": float(elsewhere(final - reference, reference, SIGMA_MIN).double().mean())}


def held_out(problem: Problem, denoiser: Denoiser, shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Noise that no search has seen, and where it belongs: the end of 200 steps."""
    noise = initial_noise(problem.held_out, shape, seed=HELD_OUT + seed).to(problem.dtype)
    return noise, sample(denoiser, noise, schedules.polynomial(200), "unipc", keep="final").final


def measure(name: str, seed: int, known: set[tuple[str, int, str, int]]) -> Iterator[dict[str, Any]]:
    """Rows of one problem and one seed, but for those known already."""
    problem = PROBLEMS[name]
    wanted = [(s, n) for n in BUDGETS for s in ("fitted", *SOLVERS) if (name, seed, s, n) not in known]
    if not wanted:
        return
    denoiser, shape = problem.make()
    noise, reference = held_out(problem, denoiser, shape, seed)
    warm_up = initial_noise(problem.warm_up, shape, seed=seed).to(problem.dtype)
    more = initial_noise(problem.fitted_on, shape, seed=seed).to(problem.dtype)
    teacher = scheduling.teacher_paths(denoiser, warm_up)
    fit_teacher = None if problem.fitted_on == problem.warm_up else scheduling.teacher_paths(denoiser, more)
    costs = {metric: scheduling.cost_matrix(teacher, metric) for metric in ("deviation", "l2")}

    def error(sigmas: Tensor, solver: solvers.Solver, share: bool = False) -> dict[str, float]:
        final = sample(denoiser, noise, sigmas, solver, keep="final").final
        return errors(final, reference) | (share_elsewhere(final, reference) if share else {})

    for solver, nfe in wanted:
        row: dict[str, Any] = {"problem": name, "seed": seed, "solver": solver, "nfe": nfe}
        if solver == "fitted":
            schedule = scheduling.fit_solver(denoiser, more, nfe, teacher=fit_teacher or teacher)
            row["found"] = error(schedule.sigmas, schedule.make_solver(), share=True)
        else:
            schedule = scheduling.find_schedule(denoiser, warm_up, nfe, solver, teacher=teacher)
            row["found"] = error(schedule.sigmas, schedule.make_solver(), share=True)
            row["usual"], row["programme"] = {}, {}
            for steps, options in scheduling.search.step_counts(solver, nfe):
                suffix = ", Euler last" if options.get("euler_last") else ""
                for make in schedules.REGISTRY.values():
                    row["usual"][make.__name__ + suffix] = error(
                        make(steps), solvers.get(solver, **options), share=True
                    )
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


def sample_quality(name: str) -> list[dict[str, Any]]:
    """Whether a smaller error means better samples: distances between sets, and how often the class changes.

    Distances are to the reference run of the *same model* from other noise; the first row is the floor, that of two
    such runs. Labels are not given. The class is that of a classifier that ships or of the nearest real 8x8 digit.
    """
    problem = PROBLEMS[name]
    denoiser, shape = problem.make()
    count = 1024 if shape[-1] == 8 else 256
    noise, other = (initial_noise(count, shape, seed=30_000 + k).to(problem.dtype) for k in (0, 1))
    fine = schedules.polynomial(60)
    reference, target = (sample(denoiser, x, fine, "unipc", keep="final").final for x in (noise, other))
    digits, colour = data.load("digits8"), shape[0] == 3

    def features(images: Tensor) -> Tensor:
        if shape[-1] == 8:
            return images.flatten(1)
        return (metrics.emoji_features if colour else metrics.digit_features)(images)

    def classes(images: Tensor) -> Tensor:
        if shape[-1] == 8:
            return digits.labels[torch.cdist(images.flatten(1), digits.images.flatten(1)).argmin(1)]
        return (metrics.emoji_probabilities if colour else metrics.digit_probabilities)(images).argmax(1)

    def row(solver: str, levels: str, nfe: int, final: Tensor) -> dict[str, Any]:
        return {
            "problem": name,
            "solver": solver,
            "levels": levels,
            "nfe": nfe,
            "error": float(metrics.error_to_reference(final, reference).mean()),
            "sliced": metrics.sliced_wasserstein(final, target),
            "frechet": metrics.frechet_distance(features(final), features(target)),
            "flips": float((classes(final) != classes(reference)).double().mean()),
        }

    out = [row("unipc", "60 steps: the floor", 60, reference)]
    for nfe in (4, 6, 10):
        for solver in ("ipndm", "unipc"):
            grid = schedules.cosine(nfe)
            out.append(row(solver, "cosine", nfe, sample(denoiser, noise, grid, solver, keep="final").final))
        for solver in ("ipndm", "unipc", "fitted"):
            shipped = scheduling.Schedule.shipped(name, solver, nfe)
            final = sample(denoiser, noise, shipped.sigmas, shipped.make_solver(), keep="final").final
            out.append(row(solver, "found", nfe, final))
    return out


def rows() -> list[dict[str, Any]]:
    """All that was measured so far."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def save_rows(every: list[dict[str, Any]]) -> None:
    """Write all rows; the file is whole or as it was."""
    write_whole(ROWS, lambda beside: beside.write_text("".join(json.dumps(row) + "\n" for row in every)))


def by_cell(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per problem, solver and budget: errors averaged over seeds, and what was best in hindsight."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in measured:
        groups[row["problem"], row["solver"], row["nfe"]].append(row)
    cells = []
    for (problem, solver, nfe), same in groups.items():
        cell: dict[str, Any] = {"problem": problem, "solver": solver, "nfe": nfe, "seeds": len(same)}
        cell["found"] = statistics.mean(r["found"]["mean"] for r in same)
        cell["median"] = statistics.mean(r["found"]["median"] for r in same)
        cell["elsewhere"] = statistics.mean(r["found"].get("elsewhere", math.nan) for r in same)
        cell["schedule"] = min(same, key=lambda r: r["seed"])["schedule"]
        if solver != "fitted":

            def averages(*parts: str, rows: list[dict[str, Any]] = same) -> dict[str, float]:
                return {k: statistics.mean(r[p][k]["mean"] for r in rows) for p in parts for k in rows[0][p]}

            published = {k: v for k, v in averages("programme").items() if k.startswith("deviation 1.15")}
            usual, every = averages("usual") | published, averages("usual", "programme")
            cell["usual"], cell["hindsight"] = min(usual.values()), min(every.values())
            of_best = [r["usual"].get(min(usual, key=usual.__getitem__), {}) for r in same]
            cell["usual_elsewhere"] = statistics.mean(u.get("elsewhere", math.nan) for u in of_best)
            cell["best"], cell["best_hindsight"] = min(usual, key=usual.__getitem__), min(every, key=every.__getitem__)
            ratios = [r["found"]["mean"] / min(v["mean"] for v in (r["usual"] | r["programme"]).values()) for r in same]
            cell["spread"] = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else math.nan
        cells.append(cell)
    for cell in cells:
        if cell["solver"] == "fitted":
            same_work = [c for c in cells if (c["problem"], c["nfe"]) == (cell["problem"], cell["nfe"])]
            rivals = [c for c in same_work if c["solver"] != "fitted"]
            best = min(rivals, key=lambda c: c["hindsight"]) if len(rivals) == len(SOLVERS) else None
            cell["rival"] = best["solver"] if best else ""
            cell["hindsight"] = best["hindsight"] if best else math.nan
    return cells


def geometric_mean(values: list[float]) -> float:
    """exp of the mean logarithm; NaN of nothing."""
    return math.exp(statistics.mean(map(math.log, values))) if values else math.nan


def cell_text(value: float, digits: int = 2) -> str:
    """A number, or nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def misses(searched: list[dict[str, Any]], fitted: list[dict[str, Any]]) -> list[str]:
    """The paragraph on cells that are not as good as they should be."""
    bad = [f"{c['solver']} at {c['nfe']}, {c['problem']}" for c in searched if c["found"] > 1.02 * c["usual"]]
    worse = [f"{c['nfe']} evaluations, {c['problem']}" for c in fitted if c["found"] > 0.9 * c["hindsight"]]
    return [
        "## Where it misses",
        "",
        f"Found schedules more than 2 % above the best usual grid: {'; '.join(bad) or 'none'}.",
        f"Fitted solvers above 0.9 of the best classical one in hindsight: {'; '.join(worse) or 'none'}.",
        "With the exact denoiser of few pictures and many evaluations nearly all paths end right (see the medians);",
        "the mean is made by the one or two in a hundred that end at another digit. There the regularity that a fit",
        "lives on has ended: each path turns at a noise level of its own, and no one set of weights is right for all.",
        "",
    ]


def report() -> str:
    """The page ``docs/SCHEDULES.md``."""
    import learned_table  # which needs this module

    cells = by_cell(rows())
    fitted_cells = [c for c in cells if c["solver"] == "fitted" and c["rival"]]
    lines = [
        "# Found schedules and fitted solvers, measured",
        "",
        "Written by `tools/schedule_table.py` from `docs/schedules.jsonl`, which it measured. Numbers are the mean",
        "over held-out noise of the root-mean-square error of the final sample to a converged reference from the same",
        "noise; no search has seen that noise. *usual*: the best, per cell in hindsight, of the polynomial, logsnr,",
        "time-uniform and cosine grids and of the published dynamic programme (deviation, coefficient 1.15).",
        "*hindsight*: the best of those and of the dynamic programme with both metrics at nine coefficients from 0.8",
        "to 1.2. *found*: `find_schedule`, which sees only warm-up noise. *±* is the standard error over seeds of",
        "found / hindsight; *median* is that of found over the held-out samples. *elsewhere*: share of the held-out",
        "samples that come nearer to where another one belongs than to where they do, for found and, after the slash,",
        "for the best usual grid (where that is a grid).",
        "",
        "| problem | cells | seeds | found / usual | worst | found / hindsight | worst | fitted / classical | worst |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, problem in PROBLEMS.items():
        own = [c for c in cells if c["problem"] == name and c["solver"] != "fitted"]
        fit = [c["found"] / c["hindsight"] for c in fitted_cells if c["problem"] == name]
        if not own:
            continue
        a, b = [c["found"] / c["usual"] for c in own], [c["found"] / c["hindsight"] for c in own]
        seeds = sorted({c["seeds"] for c in own})
        lines.append(
            f"| {problem.title} | {len(own)} | {'-'.join(map(str, seeds))} | {geometric_mean(a):.2f} | {max(a):.2f} | "
            f"{geometric_mean(b):.2f} | {max(b):.2f} | {cell_text(geometric_mean(fit))} | "
            f"{cell_text(max(fit, default=math.nan))} |"
        )
    every = [c for c in cells if c["solver"] != "fitted"]
    found = geometric_mean([c["found"] / c["usual"] for c in every])
    hindsight = geometric_mean([c["found"] / c["hindsight"] for c in every])
    fits = geometric_mean([c["found"] / c["hindsight"] for c in fitted_cells])
    lines += [
        f"| **all** | {len(every)} | | **{found:.2f}** | | **{hindsight:.2f}** | | **{fits:.2f}** | |",
        "",
        "(Geometric means of ratios; below 1 is better. *classical* is the best of all eight solvers on all their",
        "grids in hindsight, at the same number of evaluations.)",
        "",
    ]
    lines += misses(every, fitted_cells)
    lines += learned_table.report()
    if SAMPLES.exists():
        lines += [
            "## Are the samples better?",
            "",
            "Samples from fresh noise, without labels. *error*: to the reference from the same noise. *sliced",
            "Wasserstein* and *Fréchet* distance: to the reference run from other noise; the rows of 60 steps are the",
            "floor. Fréchet over pixels (8x8) or the features of the shipped classifier (28x28). *flips*: share of",
            "samples of another class than the reference from the same noise.",
            "",
            "| model | NFE | solver | levels | error | sliced Wasserstein | Fréchet | flips |",
            "|---|---:|---|---|---:|---:|---:|---:|",
        ]
        for r in json.loads(SAMPLES.read_text()):
            line = [r["problem"], str(r["nfe"]), r["solver"], r["levels"], f"{r['error']:.3f}", f"{r['sliced']:.4f}"]
            lines.append(f"| {' | '.join(line)} | {r['frechet']:.3g} | {100 * r['flips']:.1f} % |")
        lines.append("")
    for name, problem in PROBLEMS.items():
        own = [c for c in cells if c["problem"] == name]
        if not own:
            continue
        lines += [
            f"## {problem.title}",
            "",
            f"{problem.warm_up} warm-up samples ({problem.fitted_on} for the fitted solver), {problem.held_out} "
            "held-out ones per seed.",
            "",
            "| solver | NFE | usual | which | hindsight | found | / usual | / hindsight | ± | median | elsewhere |",
            "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for cell in sorted(own, key=lambda c: (("fitted", *SOLVERS).index(c["solver"]), c["nfe"])):
            line = [cell["solver"], str(cell["nfe"])]
            if cell["solver"] == "fitted":
                line += ["", f"hindsight: {cell['rival']}" if cell["rival"] else ""]
            else:
                line += [f"{cell['usual']:.4f}", cell["best"]]
            line += [cell_text(cell["hindsight"], 4), f"{cell['found']:.4f}"]
            line += ["" if cell["solver"] == "fitted" else f"{cell['found'] / cell['usual']:.2f}"]
            line += [cell_text(cell["found"] / cell["hindsight"])]
            line += [cell_text(cell.get("spread", math.nan)), f"{cell['median']:.4f}"]
            shares = (cell["elsewhere"], cell.get("usual_elsewhere", math.nan))
            line.append(" / ".join(f"{100 * s:.1f} %" for s in shares if not math.isnan(s)))
            lines.append(f"| {' | '.join(line)} |")
        lines.append("")
    return "\n".join(lines)


def write_found() -> int:
    """Schedules of the shipped models, from the first seed, as files of ``data/schedules``; how many."""
    FOUND.mkdir(exist_ok=True)
    count = 0
    for row in rows():
        if row["seed"] == 0 and row["problem"].startswith("edm-"):
            path = FOUND / f"{row['problem']}-{row['solver']}-{row['nfe']}.json"
            if path.exists() and scheduling.Schedule.load(path).provenance.get("labels"):
                continue  # found for what people ask of the network, and not here
            row["schedule"]["provenance"].setdefault("guidance", None)  # nothing here was, also where no row says so
            path.write_text(json.dumps(row["schedule"], indent=1) + "\n")
            scheduling.Schedule.load(path)  # that it can be read back
            count += 1
    return count


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="problem", help=", ".join(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--solvers", nargs="+", choices=("fitted", *SOLVERS), help="measure these alone")
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := set(options.problems) - set(PROBLEMS):
        parser.error(f"problem must be one of {', '.join(PROBLEMS)}, got {', '.join(sorted(unknown))}")
    if options.report:
        write_report()
        return
    if options.samples:
        old = json.loads(SAMPLES.read_text()) if SAMPLES.exists() else []
        new = [r for name in options.problems for r in sample_quality(name)]
        kept = [r for r in old if r["problem"] not in options.problems]
        SAMPLES.write_text(json.dumps(kept + new, indent=1) + "\n")
        return
    import learned_table

    ROWS.parent.mkdir(exist_ok=True)
    names = options.problems or list(PROBLEMS)
    keys = {name: key_of(PROBLEMS[name].make()[0]) for name in names}
    for seed in range(options.seeds):
        for name in names:
            known = {cell_of(r) for r in rows() if r.get("key") == keys[name]}
            others = {"fitted", *SOLVERS} - set(options.solvers or ("fitted", *SOLVERS))
            left_out = {(name, seed, solver, nfe) for solver in others for nfe in BUDGETS}
            for row in measure(name, seed, known | left_out):
                kept = [r for r in rows() if cell_of(r) != cell_of(row)] + [row | {"key": keys[name]}]
                save_rows(kept)
                print(name, seed, row["solver"], row["nfe"], f"{row['found']['mean']:.4f}", flush=True)
    if options.solvers is None:
        learned_table.run([name for name in names if name in learned_table.SEEDS])
    write_report()


def cell_of(row: dict[str, Any]) -> tuple[str, int, str, int]:
    """What a row is a measurement of."""
    return row["problem"], row["seed"], row["solver"], row["nfe"]


def write_report() -> None:
    """The page and the schedules that ship, from all rows there are."""
    REPORT.write_text(report())
    print(f"{REPORT.relative_to(ROOT)}; {write_found()} schedules in {FOUND.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

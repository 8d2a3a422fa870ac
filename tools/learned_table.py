"""Measure learned samplers beside grids and programmes, at equal cost; `tools/schedule_table.py` puts it on its page.

    python tools/learned_table.py                  # all that is missing or out of date
    python tools/learned_table.py edm-digits8      # the same for one problem

Per problem, seed and number of evaluations, every method of `METHODS` finds levels (and weights) on warm-up noise from
one teacher. What is learned by gradients may spend as many evaluations as `fit_solver` did, or ten times as many where
its name says so; a backward pass counts as two. Errors, the share of samples that end elsewhere and the distances
between sets are those of noise that nothing was searched on. Resumable: a row is written when it is known, with a key
as in `tools/schedule_table.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from schedule_table import PROBLEMS, ROOT, cell_of, errors, held_out, key_of, share_elsewhere
from torch import Tensor

from teachkit import Gaussian, data, initial_noise, metrics, sample, schedules, scheduling, solvers
from teachkit.denoisers import Denoiser, LowRankMixture
from teachkit.files import write_whole
from teachkit.scheduling import Schedule

ROWS = ROOT / "docs" / "learned.jsonl"
BUDGETS = {
    "mixture": (3, 4, 5, 6, 8, 10),
    "edm-digits8": (3, 4, 5, 6, 8, 10),
    "edm-mnist": (4, 6, 10),
    "edm-emoji": (4, 6, 10),
}
SEEDS = {"mixture": 3, "edm-digits8": 3, "edm-mnist": 1, "edm-emoji": 1}
WARM_UP = {"mixture": 128, "edm-digits8": 128, "edm-mnist": 32, "edm-emoji": 32}
DATA = {"mixture": "digits8", "edm-digits8": "digits8", "edm-mnist": "mnist5k", "edm-emoji": "emoji32"}
QUALITY = 512  # samples of a set whose distance to another set is measured
ROWS_EACH = 16  # samples of an iteration of Adam


@dataclass
class Bench:
    """A problem at one seed: model, warm-up noise with its teacher, and what judges."""

    name: str
    seed: int
    D: Denoiser = field(init=False)
    x: Tensor = field(init=False)

    def __post_init__(self) -> None:
        problem = PROBLEMS[self.name]
        self.D, self.shape = problem.make()
        self.dtype = problem.dtype
        self.x = initial_noise(WARM_UP[self.name], self.shape, seed=self.seed).to(self.dtype)
        self.teacher = scheduling.teacher_paths(self.D, self.x)
        self.noise, self.reference = held_out(problem, self.D, self.shape, self.seed)
        self.fitted: dict[int, tuple[Schedule, float]] = {}
        count = QUALITY if math.prod(self.shape) < 500 else QUALITY // 4
        start, other = (initial_noise(count, self.shape, seed=40_000 + k + self.seed).to(self.dtype) for k in (0, 500))
        fine = schedules.polynomial(60)
        self.start = start
        self.same, self.target = (sample(self.D, y, fine, "unipc", keep="final").final for y in (start, other))

    def fit(self, nfe: int) -> Schedule:
        """The fitted solver, once; and the seconds it took beside it."""
        if nfe not in self.fitted:
            begun = time.perf_counter()
            found = scheduling.fit_solver(self.D, self.x, nfe, teacher=self.teacher)
            self.fitted[nfe] = found, time.perf_counter() - begun
        return self.fitted[nfe][0]

    def learn(self, nfe: int, times: int = 1, **options: Any) -> Schedule:
        """Learned by gradients with so many times the evaluations of the fitted solver, the teacher's left out."""
        found = self.fit(nfe).provenance
        spent = times * (found["evaluations"] - found["teacher_evaluations"])
        iterations = max(10, spent // (ROWS_EACH * 3 * nfe))
        given = {"teacher": self.teacher, "rows": ROWS_EACH, "iterations": iterations, "save_memory": False}
        return scheduling.learn_solver(self.D, self.x, nfe, **given, **options)

    def learn_amed(self, nfe: int) -> Schedule:
        """AMED; its steps are learned one by one from the teacher's states, which costs what it costs."""
        return scheduling.learn_amed(self.D, self.x, nfe, teacher=self.teacher)

    def grids(self, nfe: int) -> Schedule:
        """The best of the usual grids with the best of three solvers, chosen on the warm-up noise."""
        tried = []
        for solver in ("ipndm", "unipc", "deis"):
            for make in schedules.REGISTRY.values():
                sigmas = make(nfe)
                final = sample(self.D, self.x, sigmas, solver, keep="final").final
                error = errors(final, self.teacher.final)["mean"]
                tried.append(Schedule(sigmas, solver, nfe, {}, error, {"method": make.__name__}))
        return min(tried, key=lambda found: found.error)

    def programme(self, nfe: int, metric: str, coefficient: float = 1.0) -> Schedule:
        """The cheapest path of a cost, for iPNDM."""
        cost = scheduling.cost_matrix(self.teacher, metric)
        return Schedule(self.teacher.sigmas[scheduling.shortest_path(cost, nfe, coefficient)], "ipndm", nfe)

    def genie(self, nfe: int) -> Schedule:
        """GENIE on the best usual grid, chosen on the warm-up noise."""
        steps, options = scheduling.search.step_counts("genie", nfe)[-1]
        tried = []
        for make in schedules.REGISTRY.values():
            final = sample(self.D, self.x, make(steps), solvers.get("genie", **options), keep="final").final
            tried.append(Schedule(make(steps), "genie", nfe, options, errors(final, self.teacher.final)["mean"]))
        return min(tried, key=lambda found: found.error)

    def for_nothing(self, nfe: int, kind: str) -> Schedule:
        """Fitted to a closed form in place of the model: no evaluation of it."""
        known = data.load(DATA[self.name])
        images = known.images.double().reshape(len(known.images), *self.shape)
        if kind == "mixture":
            stand_in: Denoiser = LowRankMixture.fit(images, known.labels)
        elif kind == "Gaussian":
            stand_in = Gaussian.fit(images)
        else:
            stand_in = Gaussian.power_law(self.shape)
        noise = initial_noise(128, self.shape, seed=self.seed)
        if kind == "power law":  # its levels alone: its weights do not carry over
            path = scheduling.teacher_paths(stand_in, noise)
            return Schedule(scheduling.score_optimal(path, nfe), "deis", nfe)
        return scheduling.fit_solver(stand_in, noise, nfe, refine=kind == "mixture")


METHODS: dict[str, Callable[[Bench, int], Schedule]] = {
    "best usual grid (12 tried)": Bench.grids,
    "programme, deviation, 1.15": lambda b, n: b.programme(n, "deviation", 1.15),
    "programme, l2": lambda b, n: b.programme(n, "l2"),
    "programme, kl_bound (AYS)": lambda b, n: b.programme(n, "kl_bound"),
    "programme, elbo (Watson)": lambda b, n: b.programme(n, "elbo"),
    "equal work along the path": lambda b, n: Schedule(scheduling.score_optimal(b.teacher, n), "deis", n),
    "find_schedule, unipc": lambda b, n: scheduling.find_schedule(b.D, b.x, n, "unipc", teacher=b.teacher),
    "GENIE": Bench.genie,
    "AMED": Bench.learn_amed,
    "levels (LD3)": lambda b, n: b.learn(n, free=("levels",)),
    "weights (S4S)": lambda b, n: b.learn(n, free=("weights",)),
    "both (BNS, S4S-Alt)": lambda b, n: b.learn(n),
    "both, ten times the cost": lambda b, n: b.learn(n, 10),
    "both from the fitted one, ten times": lambda b, n: b.learn(n, 10, start=b.fit(n), learning_rate=3e-4),
    "for nothing: power law": lambda b, n: b.for_nothing(n, "power law"),
    "for nothing: Gaussian of the data": lambda b, n: b.for_nothing(n, "Gaussian"),
    "for nothing: a Gaussian per class": lambda b, n: b.for_nothing(n, "mixture"),
    "step by step (OLSS)": lambda b, n: scheduling.fit_solver(b.D, b.x, n, teacher=b.teacher, refine=False),
    "fit_solver": Bench.fit,
}
_TEN_TIMES = ("both, ten times the cost", "both from the fitted one, ten times")
TOO_DEAR = {"edm-mnist": _TEN_TIMES, "edm-emoji": (*_TEN_TIMES, "for nothing: a Gaussian per class")}
LEARNED = tuple(name for name in METHODS if name.startswith(("levels", "weights", "both")))


def methods(name: str) -> tuple[str, ...]:
    """What is measured on a problem."""
    return tuple(method for method in METHODS if method not in TOO_DEAR.get(name, ()))


def measure(bench: Bench, nfe: int, method: str) -> dict[str, Any]:
    """One row."""
    with torch.enable_grad() if method in LEARNED else torch.no_grad():
        if method in (*LEARNED, "fit_solver"):
            bench.fit(nfe)  # which says what the others may spend
        begun = time.perf_counter()
        found = METHODS[method](bench, nfe)
        seconds = bench.fitted[nfe][1] if method == "fit_solver" else time.perf_counter() - begun

    def end(start: Tensor) -> Tensor:
        return sample(bench.D, start, found.sigmas, found.make_solver(), keep="final").final

    final, drawn = end(bench.noise), end(bench.start)
    each = (final - bench.reference).flatten(1).double().pow(2).mean(1).sqrt()
    spent = found.provenance.get("evaluations", 0) if not method.startswith("for nothing") else 0
    row = errors(final, bench.reference) | share_elsewhere(final, bench.reference)
    row |= {"sem": float(each.std()) / len(each) ** 0.5, "evaluations": spent, "seconds": seconds}
    row |= {"sliced": metrics.sliced_wasserstein(drawn, bench.target)}
    row |= {"floor": metrics.sliced_wasserstein(bench.same, bench.target)}
    return row | {"sigmas": found.sigmas.tolist()}


def rows() -> list[dict[str, Any]]:
    """All that was measured so far."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def save(every: list[dict[str, Any]]) -> None:
    """Write all rows; the file is whole or as it was."""
    write_whole(ROWS, lambda beside: beside.write_text("".join(json.dumps(row) + "\n" for row in every)))


def run(names: list[str]) -> None:
    """Measure what is missing or out of date, seed by seed, so that a first answer is there early."""
    for seed in range(max(SEEDS.values())):
        for name in names:
            if seed >= SEEDS[name]:
                continue
            key = key_of(PROBLEMS[name].make()[0])
            known = {cell_of(r) for r in rows() if r["key"] == key}
            cells = [(n, m) for n in BUDGETS[name] for m in methods(name) if (name, seed, m, n) not in known]
            if not cells:
                continue
            bench = Bench(name, seed)
            for nfe, method in cells:
                row = {"problem": name, "seed": seed, "solver": method, "nfe": nfe, "key": key}
                row |= measure(bench, nfe, method)
                save([*(r for r in rows() if cell_of(r) != cell_of(row)), row])
                print(name, seed, nfe, method, f"{row['mean']:.4f}", f"{row['seconds']:.0f} s", flush=True)


def report() -> list[str]:
    """The part of ``docs/SCHEDULES.md`` on learned samplers."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows():
        groups[row["problem"], row["nfe"], row["solver"]].append(row)
    if not groups:
        return []
    lines = ["## Learned samplers, at equal cost", "", *ABOUT.strip().splitlines(), *_left_out(groups), ""]
    lines += _limit(groups)
    for name in SEEDS:
        budgets = sorted({nfe for problem, nfe, _ in groups if problem == name})
        for nfe in budgets:
            own = {m: groups[name, nfe, m] for m in METHODS if (name, nfe, m) in groups}
            best = min(_mean(same, "mean") for same in own.values())
            floor = statistics.mean(r["floor"] for same in own.values() for r in same)
            lines += [
                f"### {PROBLEMS[name].title}, {nfe} evaluations",
                "",
                f"{WARM_UP[name]} warm-up samples; {SEEDS[name]} draws of warm-up and held-out noise. Floor of the "
                f"sliced Wasserstein distance: {floor:.4f}.",
                "",
                "| method | error | ± | median | elsewhere | sliced Wasserstein | evaluations | seconds |",
                "|---|---:|---:|---:|---:|---:|---:|---:|",
            ]
            for method, same in own.items():
                error = _mean(same, "mean")
                mark = "**" if error == best else ""
                line = [method, f"{mark}{error:.4f}{mark}", f"{_spread(same):.4f}", f"{_mean(same, 'median'):.4f}"]
                line += [f"{100 * _mean(same, 'elsewhere'):.1f} %", f"{_mean(same, 'sliced'):.4f}"]
                line += [f"{_mean(same, 'evaluations'):,.0f}", f"{_mean(same, 'seconds'):.0f}"]
                lines.append(f"| {' | '.join(line)} |")
            lines.append("")
    return lines


ABOUT = """
Every method finds its levels (and weights) on the same warm-up noise with the same teacher; numbers are those of other
noise. What is learned by gradients (Adam through the sampler; LD3 arXiv 2405.15506, S4S arXiv 2502.17423, BNS arXiv
2403.01329) spends as many evaluations as `fit_solver`, or ten times as many where it says so; a backward pass counts as
two. *error*: mean over samples of the root-mean-square error of the final sample to a converged one from the same
noise. *±*: its standard error; with several draws of the warm-up noise their spread, with one that of the held-out
samples alone. *elsewhere*: share that comes nearer to where another sample belongs. *sliced Wasserstein*: to samples of
the model from other noise; the floor is that of two converged sets. *evaluations* and *seconds* are what it took to
find, the teacher's evaluations included; what is fitted to a closed form costs none. Times are those of a busy machine.
"""


def _left_out(groups: dict[tuple[str, int, str], list[dict[str, Any]]]) -> list[str]:
    """What was too dear on the problems that were measured, in a sentence each."""
    measured = {problem for problem, _, _ in groups}
    return [
        f"For `{name}` these are too dear on a CPU and left out: {'; '.join(dear)}."
        for name, dear in TOO_DEAR.items()
        if name in measured
    ]


def _limit(groups: dict[tuple[str, int, str], list[dict[str, Any]]]) -> list[str]:
    """How near `fit_solver` comes to the best that gradients reach, cell by cell."""
    lines: list[str] = []
    for without, how in (((), "up to ten times its evaluations"), (_TEN_TIMES, "no more evaluations than it")):
        rivals = set(LEARNED) - set(without)
        ratios: dict[str, float] = {}
        medians: dict[str, float] = {}
        for problem, nfe in sorted({(p, n) for p, n, m in groups if rivals == set(methods(p)) & set(LEARNED)}):
            own = {m: groups[problem, nfe, m] for m in (*rivals, "fit_solver") if (problem, nfe, m) in groups}
            if len(own) <= len(rivals):
                continue
            best = own[min(rivals, key=lambda m: _mean(own[m], "mean"))]
            for found, what in ((ratios, "mean"), (medians, "median")):
                found[f"{problem} at {nfe}"] = _mean(own["fit_solver"], what) / _mean(best, what)
        if ratios:
            mean, median = (math.exp(statistics.mean(map(math.log, r.values()))) for r in (ratios, medians))
            above = [f"{cell}: {r:.2f} (medians: {medians[cell]:.2f})" for cell, r in ratios.items() if r > 1.05]
            lines += [
                f"`fit_solver` against the best that any of the solvers learned by gradients reaches from any start, "
                f"with {how}: geometric mean of the ratio of errors {mean:.2f} over {len(ratios)} cells, largest "
                f"{max(ratios.values()):.2f}; of their medians {median:.2f}. Above 1.05: {'; '.join(above) or 'none'}.",
                "",
            ]
    return lines


def _mean(same: list[dict[str, Any]], what: str) -> float:
    return statistics.mean(r[what] for r in same)


def _spread(same: list[dict[str, Any]]) -> float:
    """The standard error of the mean error."""
    return statistics.stdev(r["mean"] for r in same) / len(same) ** 0.5 if len(same) > 1 else same[0]["sem"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="problem", help=", ".join(SEEDS))
    options = parser.parse_args(arguments)
    if unknown := set(options.problems) - set(SEEDS):
        parser.error(f"problem must be one of {', '.join(SEEDS)}, got {', '.join(sorted(unknown))}")
    run(options.problems or [name for name in SEEDS if name in PROBLEMS])


if __name__ == "__main__":
    main()

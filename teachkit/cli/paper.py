"""``teachkit evaluate --paper``: a table of the paper filled by this computer, beside the published numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import typer

from teachkit.cli.base import check_choice, choose_device
from teachkit.files import cache_directory

if TYPE_CHECKING:
    from teachkit.evaluation import Row
    from teachkit.evaluation.paper import PaperTable
    from teachkit.metrics import FeatureStatistics

Truth = Callable[[str, tuple[int, ...], Path | None, int], tuple["FeatureStatistics", str]]


def fill_paper(
    paper: str,
    model: str | None,
    rows: list[str] | None,
    budgets: list[int] | None,
    *,
    count: int | None,
    seed: int,
    features: str | None,
    real: Path | None,
    folder: Path,
    as_json: bool,
    device: str | None,
    truth: Truth,
) -> None:
    """Run the rows of a table, resumably, and print them beside what was published; ``truth`` gives real features."""
    from teachkit import edm, evaluation
    from teachkit.evaluation import paper as papers
    from teachkit.scheduling.teacher import level_range

    check_choice("--paper", paper, papers.PAPER)
    table = papers.PAPER[paper]
    chosen, spent = _rows(table, rows), list(papers.BUDGETS) if budgets is None else budgets
    if not spent:
        raise typer.BadParameter("--nfe must name at least one")
    for nfe in spent:
        check_choice("--nfe", str(nfe), [str(each) for each in papers.BUDGETS])
    count, kind, name = count or papers.SAMPLES, features or "inception", model or table.model
    _check_needs(table, model, kind, real)
    with evaluation.processes(choose_device(device)) as group, torch.no_grad():
        denoiser: Any = edm.load(name, device=group.device)
        shape, classes = (denoiser.img_channels, *[denoiser.img_resolution] * 2), denoiser.label_dim
        known, _ = truth(kind, shape, real, count)
        tried = evaluation.features_for(kind)(torch.zeros(2, *shape, device=group.device))  # what it lacks shows now
        if tried.shape[1] != len(known.mean):
            raise typer.BadParameter(
                f"--real must hold moments of {tried.shape[1]:,} {kind} features, got {len(known.mean):,}"
            )
        low, high = level_range(denoiser)
        about = evaluation.identify(denoiser, name)
        common: dict[str, Any] = {"identity": about, "seed": seed, "classes": classes, "dtype": torch.float32}
        wanted = papers.paper_methods(
            chosen, spent, denoiser, shape, group, folder, sigma_min=low, sigma_max=high, **common
        )
        cells, _ = evaluation.table(
            denoiser, shape, wanted, known, group, folder, features=kind, count=count, progress=sys.stderr.isatty(),
            report=lambda row: print(f"{row.schedule} {row.nfe}: {row.frechet:.4g}", file=sys.stderr), **common,
        )  # fmt: skip
        if not group.first:
            return
    ours = {(row.schedule, row.nfe): row for row in cells[1:]}
    if as_json:
        print(json.dumps(_plain(table, ours), indent=1))
        return
    print(f"Fréchet distance, {kind} features, {count:,} samples of {name}, seed {seed}. Published: {papers.SOURCE},")
    print(f"Inception features, {papers.SAMPLES:,} samples of {table.model}.\n")
    print(_markdown(table, ours))
    print(f"\nThe model itself, solved in {cells[0].nfe} evaluations of UniPC: {cells[0].frechet:.4g}")


def _rows(table: PaperTable, rows: list[str] | None) -> list[str]:
    """The rows asked for, all that can be run by default."""
    from teachkit.evaluation.paper import RUNS

    asked = list(RUNS) if rows is None else rows
    if not asked:
        raise typer.BadParameter("--rows must name at least one")
    for row in asked:
        if row in table.published and row not in RUNS:
            raise typer.BadParameter(f"--rows: {row} needs a trained predictor of its authors', which teachkit lacks")
        check_choice("--rows", row, RUNS)
    return list(dict.fromkeys(asked))


def _check_needs(table: PaperTable, model: str | None, kind: str, real: Path | None) -> None:
    """Refuse before anything is computed, with all that is missing in one message."""
    from teachkit.edm.published import URL

    lacking = []
    if kind == "inception":
        if real is None:
            lacking.append(f"--real FILE, the moments of the real images ({table.moments})")
        packages = [name for name in ("torchmetrics", "torch_fidelity") if find_spec(name) is None]
        if packages:
            lacking.append(f"{' and '.join(packages)} for Inception features (pip install 'teachkit[fid]')")
    weights = cache_directory() / f"{table.model}.pkl"
    if lacking and model is None and not weights.is_file():
        lacking.append(f"the weights, which are downloaded then ({URL}{table.model}.pkl to {weights})")
    if lacking:
        raise typer.BadParameter("--paper needs " + "; ".join(lacking))


def _plain(table: PaperTable, ours: dict[tuple[str, int], Row]) -> list[dict[str, Any]]:
    """A dict for each cell; None where nothing was run, or published."""
    from teachkit.evaluation.paper import BUDGETS

    out = []
    for method, published in table.published.items():
        for nfe, value in zip(BUDGETS, published):
            row = ours.get((method, nfe))
            mine = {"ours": row.frechet if row else None, "samples": row.samples if row else None}
            out.append({"method": method, "nfe": nfe, "published": value, **mine})
    return out


def _markdown(table: PaperTable, ours: dict[tuple[str, int], Row]) -> str:
    """Two columns for each number of evaluations, and why cells are empty."""
    from teachkit.evaluation.paper import BUDGETS, RUNS

    lines = ["| method | " + " | ".join(f"{nfe}, ours | {nfe}, published" for nfe in BUDGETS) + " |"]
    lines.append("|---|" + "---:|" * (2 * len(BUDGETS)))
    for method, published in table.published.items():
        cells = []
        for nfe, value in zip(BUDGETS, published):
            row = ours.get((method, nfe))
            cells += [f"{row.frechet:.2f}" if row else "", "–" if value is None else f"{value:.2f}"]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    absent = [method for method in table.published if method not in RUNS]
    idle = [method for method in RUNS if not any((method, nfe) in ours for nfe in BUDGETS)]
    lines.append(f"\nEmpty: not run. {' and '.join(absent)} need a trained predictor, which teachkit lacks.")
    return "\n".join(lines) + (f" Left out this time: {', '.join(idle)}." if idle else "")

"""``teachkit evaluate``."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer

from teachkit import data
from teachkit.cli.base import Device, Store, app, choose_device
from teachkit.cli.paper import fill_paper
from teachkit.files import cache_directory

if TYPE_CHECKING:
    from teachkit.evaluation import GeometryStatistics, Row
    from teachkit.metrics import FeatureStatistics

SOLVERS = "heun,dpm2,ipndm,dpmpp_2m,unipc"
MOST_BYTES = 2**28  # of a file of moments, unpacked; those of 2,048 Inception features take 34 MB


@app.command("evaluate")
def evaluate(
    model: Annotated[str | None, typer.Option(help="A name or a file; default: edm-mnist, or the paper's own.")] = None,
    paper: Annotated[
        str | None, typer.Option(help="Fill a table of the paper, beside its numbers: cifar10, ffhq, imagenet64.")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="With --paper: rows to run, with commas; default: all.")] = None,
    solvers: Annotated[str, typer.Option(help="Names with commas between them.")] = SOLVERS,
    nfe: Annotated[
        str | None, typer.Option(help="Evaluations per sample, with commas; default: 4,5,6,8,10, or the paper's.")
    ] = None,
    schedules: Annotated[
        str, typer.Option(help="polynomial, logsnr, time_uniform, cosine, found (the levels that ship), with commas.")
    ] = "polynomial",
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=2, help="Samples per cell; default: 1024, or the paper's 50000.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    features: Annotated[
        str | None, typer.Option(help="digits, emoji, pixels, inception; default: what suits the model's images.")
    ] = None,
    real: Annotated[
        Path | None, typer.Option(help="Moments of the real features (.npz with mu and sigma); needed for inception.")
    ] = None,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: Device = None,
) -> None:
    """Tables of methods against evaluations: Fréchet distance to real data, and error to the exact solution.

    Run again after an interruption, it goes on where it was; under torchrun the processes share the work.
    """
    from teachkit import evaluation
    from teachkit.cli.sampling import _learned
    from teachkit.scheduling.teacher import level_range

    if paper is not None:
        if (solvers, schedules) != (SOLVERS, "polynomial"):
            raise typer.BadParameter("--solvers and --schedules are those of the table with --paper: choose --rows")
        fill_paper(
            paper, model, None if rows is None else _list(rows), None if nfe is None else _numbers(nfe), count=count,
            seed=seed, features=features, real=real, folder=_writable(store), as_json=as_json, device=device,
            truth=moments_of,
        )  # fmt: skip
        return
    if rows is not None:
        raise typer.BadParameter("--rows are those of a table of --paper, which is not given")
    model, count = model or "edm-mnist", count or 1024
    names, budgets, kinds = _list(solvers), _numbers("4,5,6,8,10" if nfe is None else nfe), _list(schedules)
    folder = _writable(store)
    if not (names and budgets and kinds):
        raise typer.BadParameter("--solvers, --nfe and --schedules must each name at least one")
    with evaluation.processes(choose_device(device)) as group:
        denoiser, shape, classes, dtype = _learned(model, group.device)
        low, high = level_range(denoiser)
        suits = "digits" if shape == (1, 28, 28) else "pixels" if shape[-1] <= 8 else "inception"
        chosen = features or ("emoji" if model == "edm-emoji" else suits)
        wanted = []
        for kind in kinds:
            wanted += evaluation.methods(names, kind, budgets, model=model, sigma_min=low, sigma_max=high)
        truth, floor = moments_of(chosen, shape, real, count)
        show = sys.stderr.isatty()
        with torch.no_grad():
            cells, shape_of_paths = evaluation.table(
                denoiser, shape, wanted, truth, group, folder, identity=evaluation.identify(denoiser, model),
                features=chosen, count=count, seed=seed, classes=classes, dtype=dtype, progress=show,
                report=lambda row: print(f"{row.solver} {row.schedule} {row.nfe}: {row.frechet:.4g}", file=sys.stderr),
            )  # fmt: skip
        if not group.first:
            return
    if as_json:
        print(json.dumps([asdict(row) for row in cells], indent=1))
        return
    print(f"{model}, {count} samples, seed {seed}; features: {chosen}{floor}\n")
    print(_markdown("Fréchet distance to the data", cells, lambda row: f"{row.frechet:.4g}"))
    print(_markdown("Mean error to the reference from the same noise", cells, lambda row: f"{row.error:.4f}"))
    print(_boomerang(shape_of_paths))


def _markdown(title: str, rows: list[Row], cell: Any) -> str:
    """Methods against evaluations; the reference is named below."""
    reference, rest = rows[0], rows[1:]
    budgets = sorted({row.nfe for row in rest})
    found = {(row.solver, row.schedule, row.nfe): cell(row) for row in rest}
    lines = [f"{title}:", "", "| method | " + " | ".join(map(str, budgets)) + " |"]
    lines.append("|---|" + "---:|" * len(budgets))
    for solver, schedule in dict.fromkeys((row.solver, row.schedule) for row in rest):
        cells = [found.get((solver, schedule, budget), "") for budget in budgets]
        lines.append(f"| {solver}, {schedule} | " + " | ".join(cells) + " |")
    lines.append(f"\nThe reference, {reference.solver} with {reference.nfe} evaluations: {cell(reference)}\n")
    return "\n".join(lines)


def _boomerang(paths: GeometryStatistics) -> str:
    """The shape of the reference's paths, in a sentence."""
    share = float(paths.explained[:, 1].mean())
    return (
        f"Their {paths.count} paths leave the chord by {100 * float(paths.peak.mean()):.2f} % of its length (standard "
        f"deviation {100 * float(paths.peak.std()):.2f}), near sigma {float(paths.peak_sigma.median()):.2g}; two "
        f"directions hold {100 * share:.1f} % of what is left without the chord."
    )


def moments_of(features: str, shape: tuple[int, ...], file: Path | None, count: int) -> tuple[FeatureStatistics, str]:
    """Statistics of the real data in the chosen features, and what real images themselves score, in words."""
    from teachkit import evaluation
    from teachkit.metrics import FeatureStatistics, frechet_distance

    if file is not None:
        return _moments(file), ""
    names = {(1, 28, 28): "mnist5k", (1, 8, 8): "digits8"}
    if features == "emoji":  # other models draw pictures of this size too, of something else
        names = {(3, 32, 32): "emoji32"}
    if shape not in names or features == "inception":
        raise typer.BadParameter(
            "--real must name the moments of the real data for this model and these features (.npz with mu and sigma, "
            "as fid-refs are published)"
        )
    known = evaluation.features_for(features)(data.load(names[shape]).images.float())
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    few = min(count, len(known) // 2)
    floor = frechet_distance(known[order[:few]], known[order[few:]])
    return FeatureStatistics(known), f"; {few} real images score {floor:.3g} against the other {len(known) - few}"


def _moments(file: Path) -> FeatureStatistics:
    from teachkit.metrics import FeatureStatistics

    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"it unpacks to {size:,} bytes, more than {MOST_BYTES:,}")
        with np.load(file, allow_pickle=False) as content:
            mean, covariance = (torch.from_numpy(content[name]).double() for name in ("mu", "sigma"))
            count = int(content["count"]) if "count" in content else 50_000
    except (KeyError, ValueError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise typer.BadParameter(f"--real: {file} does not hold mu and sigma ({error})") from None
    return FeatureStatistics.from_moments(count, mean, covariance)


def _writable(chosen: Path | None) -> Path:
    """The folder, made if need be; refused before any work is done if nothing can be written into it."""
    store = chosen or cache_directory("evaluations")
    try:
        store.mkdir(parents=True, exist_ok=True)
        if not os.access(store, os.W_OK):
            raise PermissionError("it cannot be written")
    except OSError as error:
        raise typer.BadParameter(f"--store must name a folder for finished parts, got {store} ({error})") from None
    return store


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _list(text)]
    except ValueError:
        raise typer.BadParameter(f"--nfe must be whole numbers with commas between them, got {text!r}") from None

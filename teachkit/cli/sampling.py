"""``teachkit sample`` and ``teachkit schedule``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from teachkit import Empirical, Trajectory, data, initial_noise, sample, schedules, solvers
from teachkit.cli.base import Device, Guidance, Model, app, check_choice, check_target, choose_device
from teachkit.denoisers import default_dtype
from teachkit.files import held, write_images, write_whole
from teachkit.fingerprints import fingerprint
from teachkit.solvers import Solver

FAMILIES = (*schedules.REGISTRY, "linear", "flow_shift")
Labels = Annotated[
    str | None,
    typer.Option("--labels", "--label", help="Classes in turn: 3 or 0,1,2; default for a model: all its classes."),
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Clip outputs to this percentile, as 0.995: for images, strong guidance."),
]
FORMATS = ("list", "json", "comfyui")


@app.command("sample")
def draw(
    model: Annotated[str | None, typer.Option(help="A name (edm-emoji, ...) or a file; default: edm-mnist.")] = None,
    data: Annotated[str | None, typer.Option(help="Instead of a model: the exact denoiser of this data set.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of samples.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Sample i depends on the seed and on i alone.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps; default: 18.")] = None,
    nfe: Annotated[int | None, typer.Option(min=2, help="Instead: evaluations per sample, guidance aside.")] = None,
    solver: Annotated[str | None, typer.Option(help="Name of a solver; default: heun.")] = None,
    schedule: Annotated[
        str, typer.Option(help=f"{', '.join(FAMILIES)}; or a saved schedule (.json) with its solver.")
    ] = "polynomial",
    sigma_min: Annotated[
        float | None, typer.Option(help="Last level of a family; default: 0.002, or the model's own where larger.")
    ] = None,
    sigma_max: Annotated[
        float | None, typer.Option(help="First level of a family; default: 80, or the model's own where smaller.")
    ] = None,
    labels: Labels = None,
    guidance: Guidance = None,
    dynamic_threshold: Threshold = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time, up to 64; they change by rounding only.")] = 64,
    out: Annotated[Path, typer.Option(help="Picture to write (.png).")] = Path("samples.png"),
    tensors: Annotated[Path | None, typer.Option(help="Also write the samples (.safetensors).")] = None,
    trajectories: Annotated[Path | None, typer.Option(help="Also write the whole paths (.safetensors).")] = None,
    device: Device = None,
) -> None:
    """Draw samples from a model, or from the exact denoiser of a data set, as one picture.

    Run again after an interruption, it goes on where it was; under torchrun the processes share the work.
    """
    from teachkit import evaluation
    from teachkit.scheduling.teacher import SIGMA_MAX, SIGMA_MIN, level_range

    check_target(out, "--out", ".png")
    check_target(tensors, "--tensors", ".safetensors")
    check_target(trajectories, "--trajectories", ".safetensors")
    if model and data:
        raise typer.BadParameter("--model and --data exclude each other")
    low, high = SIGMA_MIN if sigma_min is None else sigma_min, SIGMA_MAX if sigma_max is None else sigma_max
    sigmas, step = _walk(schedule, solver, steps, nfe, low, high)  # wrong options are refused before a model is loaded
    with evaluation.processes(choose_device(device)) as group:
        opened = _exact(data, group.device) if data else _learned(model or "edm-mnist", group.device)
        denoiser, shape, classes, dtype = opened
        if schedule in FAMILIES:
            sigmas, step = _walk(schedule, solver, steps, nfe, *level_range(denoiser, sigma_min, sigma_max))
        chosen = _classes(labels, classes, count, all_by_default=data is None or guidance is not None)
        if guidance is not None and chosen is None:
            raise typer.BadParameter("--guidance needs a model or data set with classes")
        keep = "all" if trajectories else "final"

        def compute(samples: range) -> dict[str, Tensor]:
            paths = []
            for first in samples[::batch]:
                size, place = min(batch, samples.stop - first), {"dtype": dtype, "device": group.device}
                x = initial_noise(size, shape, float(sigmas[0]), seed=seed, first=first, **place)
                these = None if chosen is None else chosen[first : first + size].to(group.device)
                own = step.for_samples(seed, first)
                asked: dict[str, Any] = {"guidance": guidance, "dynamic_threshold": dynamic_threshold, "keep": keep}
                paths.append(sample(denoiser, x, sigmas, own, labels=these, **asked))
            return {name: torch.cat([getattr(path, name) for path in paths], 1) for name in ("x", "denoised")}

        about = {**evaluation.identify(denoiser, model or data or ""), "sigmas": sigmas.tolist(), "seed": seed}
        about |= {"solver": [repr(step), evaluation.fingerprint(step)], "guidance": guidance, "keep": keep}
        about |= {"labels": None if chosen is None else chosen.tolist(), "device": group.device.type}
        about |= {"dynamic_threshold": dynamic_threshold}
        parts = out.with_name(f".{out.stem}.parts")

        def refuse() -> None:
            raise RuntimeError(f"another process is drawing {out.stem} here; wait, or name another --out")

        with held(parts / "lock", wait=refuse) if group.first else contextlib.nullcontext():
            shards = evaluation.Shards(parts, about, count, ["cli/sampling.py"])
            shards.run(compute, group, progress=sys.stderr.isatty(), title="samples")
            if not group.first:
                return
            done = list(shards.read())
            states = torch.cat([shard["x"] for shard in done], 1)
            _picture(states[-1], out, columns=classes if chosen is not None and labels is None else None)
            named = {} if chosen is None else {"labels": chosen}
            if tensors:
                _save({"samples": states[-1], **named}, tensors)
            if trajectories:
                denoised = torch.cat([shard["denoised"] for shard in done], 1)
                _save({"sigmas": sigmas, "x": states, "denoised": denoised, **named}, trajectories)
            shutil.rmtree(parts)
    for written in (out, tensors, trajectories):
        if written:
            print(written)


@app.command("schedule")
def find(
    model: Model = "edm-mnist",
    solver: Annotated[str, typer.Option(help="A solver, or 'fitted': weights fitted with the levels.")] = "ipndm",
    nfe: Annotated[int, typer.Option(min=2, help="Evaluations one sample may cost.")] = 6,
    warm_up: Annotated[int, typer.Option(min=8, help="Warm-up samples.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of the warm-up samples.")] = 0,
    labels: Labels = None,
    guidance: Guidance = None,
    dynamic_threshold: Threshold = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Samples that the model sees at a time; the paths then lie in main memory."),
    ] = None,
    objective: Annotated[str, typer.Option(help="Error to make small: mean, or rms if a few samples matter.")] = "mean",
    save: Annotated[Path | None, typer.Option(help="Write the schedule (.json).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (.png): costs, and where the levels lie.")] = None,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "list",
    device: Device = None,
) -> None:
    """Find the noise levels at which a solver comes closest to a teacher of 60 evaluations, and print them.

    What it will cost, and then error and the share of samples that end elsewhere than the teacher's, on warm-up noise,
    go to the error output. Run again after an interruption, it goes on from the teacher's paths that it had.
    """
    from teachkit import scheduling
    from teachkit.scheduling.refine import OBJECTIVES
    from teachkit.scheduling.teacher import level_range

    check_choice("--format", form, FORMATS)
    check_choice("--objective", objective, OBJECTIVES)
    if solver != "fitted":
        check_choice("--solver", solver, solvers.REGISTRY, "fitted or ")
    if solver == "fitted" and form == "comfyui":
        raise typer.BadParameter("--format comfyui cannot hold fitted weights; choose json, or another --solver")
    check_target(save, "--save", ".json")
    check_target(plot, "--plot", ".png")
    where = choose_device(device)
    denoiser, shape, classes, dtype = _learned(model, where)
    paths_on = "cpu" if batch else where
    noise = initial_noise(warm_up, shape, level_range(denoiser)[1], seed=seed, dtype=dtype, device=paths_on)
    chosen = _classes(labels, classes, warm_up, all_by_default=True)
    if guidance is not None and chosen is None:
        raise typer.BadParameter("--guidance needs a model with classes")
    how: dict[str, Any] = {"labels": None if chosen is None else chosen.to(paths_on), "guidance": guidance}
    how["dynamic_threshold"] = dynamic_threshold
    kept = _kept(model, save, [denoiser, noise, *how.values()])
    how |= {"batch": batch, "objective": objective, "teacher": kept}
    search = scheduling.fit_solver if solver == "fitted" else partial(scheduling.find_schedule, solver=solver)
    with torch.no_grad():
        found = search(denoiser, noise, nfe, **how, progress=sys.stderr.isatty() or "cost")
    known = {"model": {"name": model, **found.provenance["model"]}, "seed": seed}
    found = dataclasses.replace(found, provenance=found.provenance | known)
    if save:
        found.save(save)
    off = f"mean error {found.error:.3g}, {100 * found.provenance['ends_elsewhere']:.1f} % end elsewhere"
    print(f"{found.solver}, {found.nfe} evaluations: {off}", file=sys.stderr)
    if plot:
        from teachkit.course import plots

        teacher = Trajectory.load(kept)
        nearest = [int((teacher.sigmas.log() - s.log()).abs().argmin()) for s in found.sigmas]
        title = f"{model}, {found.solver}, {found.nfe} evaluations: costs, and the nearest levels of the teacher"
        picture = plots.cost_matrix(scheduling.cost_matrix(teacher, "l2"), teacher.sigmas, nearest, title=title)
        write_whole(plot, picture.savefig)
    kept.unlink(missing_ok=True)
    if form == "list":
        print("\n".join(f"{s:.6g}" for s in found.sigmas.tolist()))
        if solver == "fitted" and not save:
            print("These levels are for weights fitted to them: --save or --format json writes both.", file=sys.stderr)
    else:
        print(found.to_json() if form == "json" else found.to_comfyui())


def _kept(model: str, save: Path | None, settings: list[Any]) -> Path:
    """The hidden file for the teacher's paths of these settings: beside what is saved, or where one is."""
    folder = save.parent if save else Path.cwd()
    folder = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    return folder / f".{Path(model).stem}-{fingerprint(settings)[:12]}.paths.safetensors"


def _walk(
    schedule: str, solver: str | None, steps: int | None, nfe: int | None, sigma_min: float, sigma_max: float
) -> tuple[Tensor, Solver]:
    """Noise levels and solver, from the options."""
    from teachkit import scheduling
    from teachkit.scheduling.search import step_counts

    if steps and nfe:
        raise typer.BadParameter("--steps and --nfe exclude each other")
    if schedule.endswith(".json"):
        if steps or nfe or solver:
            raise typer.BadParameter("a saved schedule has its own levels and solver: no --steps, --nfe or --solver")
        saved = scheduling.Schedule.load(schedule)
        return saved.sigmas, saved.make_solver()
    name = solver or "heun"
    check_choice("--schedule", schedule, FAMILIES, "a .json file or ")
    check_choice("--solver", name, solvers.REGISTRY)
    number, options = step_counts(name, nfe)[0] if nfe else (steps or 18, {})
    levels = getattr(schedules, schedule)(number, sigma_min=sigma_min, sigma_max=sigma_max)
    return levels, solvers.get(name, **options)


def _learned(model: str, device: torch.device | str) -> tuple[Any, tuple[int, ...], int, Any]:
    """A trained denoiser, the shape of one sample, its number of classes, its dtype."""
    from teachkit import edm

    denoiser: Any = edm.load(model, device=device)
    shape = (denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)
    return denoiser, shape, denoiser.label_dim, torch.float32


def _exact(name: str, device: torch.device | str) -> tuple[Any, tuple[int, ...], int, Any]:
    """The same for the closed form over a data set."""
    images, labels = data.load(name)
    dtype = default_dtype(device)
    denoiser = Empirical(images.to(device, dtype), labels=labels.to(device))
    return denoiser, tuple(images.shape[1:]), int(labels.max()) + 1, dtype


def _classes(labels: str | None, known: int, count: int, all_by_default: bool) -> Tensor | None:
    """The class of each sample, (count,), or None."""
    if labels is None:
        return torch.arange(count) % known if known and all_by_default else None
    if not known:
        raise typer.BadParameter("--labels needs a model or data set with classes")
    try:
        numbers = [int(part) for part in labels.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--labels must be numbers with commas between them, got {labels!r}") from None
    if not all(0 <= k < known for k in numbers):
        raise typer.BadParameter(f"--labels must be from 0 to {known - 1}, got {labels}")
    return torch.tensor(numbers)[torch.arange(count) % len(numbers)]


def _picture(samples: Tensor, path: Path, columns: int | None) -> None:
    """Images as a grid, one pixel for a pixel; points in the plane as dots."""
    if samples.ndim == 2:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 5))
        ax = figure.subplots()
        ax.scatter(samples[:, 0], samples[:, 1], s=8)
        ax.set_aspect("equal", adjustable="datalim")
        write_whole(path, figure.savefig)
        return
    row = columns if columns and columns <= 20 else math.ceil(math.sqrt(len(samples)))
    write_images(path, samples, row)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    write_whole(path, lambda beside: save_file({name: t.contiguous() for name, t in tensors.items()}, beside))

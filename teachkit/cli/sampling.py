"""``teachkit sample`` and ``teachkit schedule``."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from teachkit.cli.base import Device, Model, app, check_target, choose_device
from teachkit.schedules import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from teachkit.solvers import Solver

FAMILIES = (*REGISTRY, "linear", "flow_shift")
FORMATS = ("list", "json", "comfyui")


@app.command("sample")
def draw(
    model: Annotated[str | None, typer.Option(help="A name or a file; default: edm-mnist.")] = None,
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
    labels: Annotated[
        str | None,
        typer.Option("--labels", "--label", help="Classes in turn: 3 or 0,1,2; default for a model: all its classes."),
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Samples at a time, at most 64; changes them by rounding only.")
    ] = 64,
    out: Annotated[Path, typer.Option(help="Picture to write (.png).")] = Path("samples.png"),
    tensors: Annotated[Path | None, typer.Option(help="Also write the samples (.safetensors).")] = None,
    trajectories: Annotated[Path | None, typer.Option(help="Also write the whole paths (.safetensors).")] = None,
    device: Device = None,
) -> None:
    """Draw samples from a model, or from the exact denoiser of a data set, as one picture.

    Run again after an interruption, it goes on where it was; under torchrun the processes share the work.
    """
    import torch

    from teachkit import evaluation, initial_noise, sample
    from teachkit.evaluation import processes
    from teachkit.scheduling.teacher import SIGMA_MAX, SIGMA_MIN, level_range

    check_target(out, "--out", ".png")
    check_target(tensors, "--tensors", ".safetensors")
    check_target(trajectories, "--trajectories", ".safetensors")
    if model and data:
        raise typer.BadParameter("--model and --data exclude each other")
    low, high = SIGMA_MIN if sigma_min is None else sigma_min, SIGMA_MAX if sigma_max is None else sigma_max
    sigmas, step = _walk(schedule, solver, steps, nfe, low, high)  # wrong options are refused before a model is loaded
    with processes(choose_device(device)) as group:
        denoiser, shape, classes, dtype = (
            _exact(data, group.device) if data else _learned(model or "edm-mnist", group.device)
        )
        if schedule in FAMILIES:
            sigmas, step = _walk(schedule, solver, steps, nfe, *level_range(denoiser, sigma_min, sigma_max))
        chosen = _classes(labels, classes, count, all_by_default=data is None or guidance is not None)
        if guidance is not None and chosen is None:
            raise typer.BadParameter("--guidance needs a model or data set with classes")
        keep = "all" if trajectories else "final"

        def compute(samples: range) -> dict[str, Tensor]:
            parts = []
            for first in range(samples.start, samples.stop, batch):
                some = slice(first, min(first + batch, samples.stop))
                size = some.stop - first
                x = initial_noise(
                    size, shape, float(sigmas[0]), seed=seed, first=first, dtype=dtype, device=group.device
                )
                these = None if chosen is None else chosen[some].to(group.device)
                own = step.for_samples(seed, first)
                parts.append(sample(denoiser, x, sigmas, own, labels=these, guidance=guidance, keep=keep))
            return {name: torch.cat([getattr(path, name) for path in parts], 1) for name in ("x", "denoised")}

        about = {**evaluation.identify(denoiser, model or data or ""), "sigmas": sigmas.tolist(), "seed": seed}
        about |= {"solver": [repr(step), evaluation.fingerprint(step)], "guidance": guidance, "keep": keep}
        about |= {"labels": None if chosen is None else chosen.tolist(), "device": group.device.type}
        parts = out.with_name(f".{out.stem}.parts")
        with _alone(parts) if group.first else contextlib.nullcontext():
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
    labels: Annotated[
        str | None,
        typer.Option("--labels", "--label", help="Classes in turn: 3 or 0,1,2; default: all that the model has."),
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")] = None,
    objective: Annotated[str, typer.Option(help="Error to make small: mean, or rms where a few samples matter.")] = (
        "mean"
    ),
    save: Annotated[Path | None, typer.Option(help="Write the schedule (.json).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (.png): costs, and where the levels lie.")] = None,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "list",
    device: Device = None,
) -> None:
    """Find the noise levels at which a solver comes closest to a teacher of 60 evaluations, and print them.

    Error and the share of samples that end elsewhere than the teacher's, on warm-up noise, go to the error output.
    """
    import dataclasses

    import torch

    from teachkit import initial_noise, scheduling, solvers
    from teachkit.scheduling.refine import OBJECTIVES
    from teachkit.scheduling.teacher import level_range

    if form not in FORMATS:
        raise typer.BadParameter(f"--format must be one of {', '.join(FORMATS)}, got {form!r}")
    if objective not in OBJECTIVES:
        raise typer.BadParameter(f"--objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if solver != "fitted" and solver not in solvers.REGISTRY:
        raise typer.BadParameter(f"--solver must be fitted or one of {', '.join(solvers.REGISTRY)}, got {solver!r}")
    if solver == "fitted" and form == "comfyui":
        raise typer.BadParameter("--format comfyui cannot hold fitted weights; choose json, or another --solver")
    check_target(save, "--save", ".json")
    check_target(plot, "--plot", ".png")
    where, show = choose_device(device), sys.stderr.isatty()
    denoiser, shape, classes, dtype = _learned(model, where)
    noise = initial_noise(warm_up, shape, level_range(denoiser)[1], seed=seed, dtype=dtype, device=where)
    chosen = _classes(labels, classes, warm_up, all_by_default=True)
    if guidance is not None and chosen is None:
        raise typer.BadParameter("--guidance needs a model with classes")
    chosen = None if chosen is None else chosen.to(where)
    with torch.no_grad():
        teacher = scheduling.teacher_paths(denoiser, noise, labels=chosen, guidance=guidance)
        asked: dict[str, Any] = {"labels": chosen, "guidance": guidance, "objective": objective}
        if solver == "fitted":
            found = scheduling.fit_solver(denoiser, noise, nfe, **asked, teacher=teacher, progress=show)
        else:
            found = scheduling.find_schedule(denoiser, noise, nfe, solver, **asked, teacher=teacher, progress=show)
    known = {"model": {"name": model, **found.provenance["model"]}, "seed": seed}
    found = dataclasses.replace(found, provenance=found.provenance | known)
    if save:
        found.save(save)
    off = f"mean error {found.error:.3g}, {100 * found.provenance['ends_elsewhere']:.1f} % end elsewhere"
    print(f"{found.solver}, {found.nfe} evaluations: {off}", file=sys.stderr)
    if plot:
        from teachkit.course import plots
        from teachkit.files import write_whole

        nearest = [int((teacher.sigmas.log() - s.log()).abs().argmin()) for s in found.sigmas]
        title = f"{model}, {found.solver}, {found.nfe} evaluations: costs, and the nearest levels of the teacher"
        picture = plots.cost_matrix(scheduling.cost_matrix(teacher, "l2"), teacher.sigmas, nearest, title=title)
        write_whole(plot, picture.savefig)
    if form == "list":
        print("\n".join(f"{s:.6g}" for s in found.sigmas.tolist()))
        if solver == "fitted" and not save:
            print("These levels are for weights fitted to them: --save or --format json writes both.", file=sys.stderr)
    else:
        print(found.to_json() if form == "json" else found.to_comfyui())


def _walk(
    schedule: str, solver: str | None, steps: int | None, nfe: int | None, sigma_min: float, sigma_max: float
) -> tuple[Tensor, Solver]:
    """Noise levels and solver, from the options."""
    from teachkit import schedules, scheduling, solvers
    from teachkit.scheduling.search import step_counts

    if steps and nfe:
        raise typer.BadParameter("--steps and --nfe exclude each other")
    if schedule.endswith(".json"):
        if steps or nfe or solver:
            raise typer.BadParameter("a saved schedule has its own levels and solver: no --steps, --nfe or --solver")
        saved = scheduling.Schedule.load(schedule)
        return saved.sigmas, saved.make_solver()
    if schedule not in FAMILIES:
        raise typer.BadParameter(f"--schedule must be a .json file or one of {', '.join(FAMILIES)}, got {schedule!r}")
    name = solver or "heun"
    if name not in solvers.REGISTRY:
        raise typer.BadParameter(f"--solver must be one of {', '.join(solvers.REGISTRY)}, got {name!r}")
    number, options = step_counts(name, nfe)[0] if nfe else (steps or 18, {})
    levels = getattr(schedules, schedule)(number, sigma_min=sigma_min, sigma_max=sigma_max)
    return levels, solvers.get(name, **options)


def _learned(model: str, device: torch.device | str) -> tuple[Any, tuple[int, ...], int, Any]:
    """A trained denoiser, the shape of one sample, its number of classes, its dtype."""
    import torch

    from teachkit import edm

    denoiser: Any = edm.load(model, device=device)
    shape = (denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)
    return denoiser, shape, denoiser.label_dim, torch.float32


def _exact(name: str, device: torch.device | str) -> tuple[Any, tuple[int, ...], int, Any]:
    """The same for the closed form over a data set."""
    from teachkit import Empirical, data
    from teachkit.denoisers import default_dtype

    images, labels = data.load(name)
    dtype = default_dtype(device)
    denoiser = Empirical(images.to(device, dtype), labels=labels.to(device))
    return denoiser, tuple(images.shape[1:]), int(labels.max()) + 1, dtype


def _classes(labels: str | None, known: int, count: int, all_by_default: bool) -> Tensor | None:
    """The class of each sample, (count,), or None."""
    import torch

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


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder of parts for this process; RuntimeError if another that is alive holds it."""
    from teachkit.files import held

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder / "lock"))
        except BlockingIOError:
            raise RuntimeError(
                f"another process is drawing {folder.name[1:-6]} here; wait, or name another --out"
            ) from None
        yield


def _picture(samples: Tensor, path: Path, columns: int | None) -> None:
    """Images as a grid, one pixel for a pixel; points in the plane as dots."""
    from teachkit.files import write_images, write_whole

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
    from safetensors.torch import save_file

    from teachkit.files import write_whole

    write_whole(path, lambda beside: save_file({name: t.contiguous() for name, t in tensors.items()}, beside))

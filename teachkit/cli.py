"""The command line: ``teachkit train | convert | sample | schedule``, or ``python -m teachkit`` under torchrun.

What a command prints for further use goes to stdout, everything else to stderr. Exit codes: 0 done, 1 could not be done
(one line says why; ``teachkit --debug …`` shows the traceback), 2 wrong usage, 130 interrupted. torch and the rest are
imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How diffusion models sample: train, convert and sample models, and find their schedules.",
)
_DEBUG = False

Model = Annotated[str, typer.Option(help="A name (edm-mnist, edm-cifar10-32x32-uncond-vp, ...) or a file.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: cuda where there is one.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options that come before the command."""
    global _DEBUG
    _DEBUG = debug


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="mnist or digits8: a recipe of teachkit.edm.training.")],
    run_dir: Annotated[
        Path | None, typer.Option(help="For checkpoints, log and samples; default: runs/RECIPE.")
    ] = None,
    device: Device = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images to see instead of the recipe's number.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's seed.")] = None,
) -> None:
    """Train a small model; run again to resume. Under torchrun, every process takes a share of each batch."""
    import dataclasses

    import torch.distributed as dist

    from teachkit.edm.training import RECIPES, train

    if recipe not in RECIPES:
        raise typer.BadParameter(f"recipe must be one of {', '.join(sorted(RECIPES))}, got {recipe!r}")
    changes: dict[str, Any] = {name: value for name, value in (("images", images), ("seed", seed)) if value is not None}
    folder = run_dir or Path("runs") / recipe
    try:
        train(dataclasses.replace(RECIPES[recipe], **changes), folder, device=_device(device))
    except KeyboardInterrupt:
        message = f"the last checkpoint is in {folder}: the same command goes on from there"
        raise SystemExit(_interrupted(message)) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if int(os.environ.get("RANK", 0)) == 0:
        print(folder)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published .pkl snapshot.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.", dir_okay=False)],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the target.")] = False,
) -> None:
    """Convert a pickled snapshot to safetensors, without running anything that it holds."""
    from teachkit import edm

    if target.suffix != ".safetensors":
        raise typer.BadParameter(f"target must end in .safetensors, got {target.name!r}")
    if target.exists() and not force:
        raise FileExistsError(f"{target} is there already; --force overwrites it")
    edm.convert(source, target)
    print(target)


@app.command("sample")
def draw(
    model: Model = "edm-mnist",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of samples.")] = 16,
    out: Annotated[Path, typer.Option(help="Picture to write (.png), a grid.")] = Path("samples.png"),
    steps: Annotated[int, typer.Option(min=1, help="Steps, on the polynomial schedule.")] = 18,
    solver: Annotated[str, typer.Option(help="Name of a solver.")] = "heun",
    schedule: Annotated[Path | None, typer.Option(help="A saved schedule (JSON): its levels and its solver.")] = None,
    label: Annotated[int | None, typer.Option(min=0, help="Class of all samples; default: classes in turn.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time; does not change them.")] = 64,
    tensors: Annotated[Path | None, typer.Option(help="Also write the samples (.safetensors).")] = None,
    device: Device = None,
) -> None:
    """Draw samples from a model as a grid of pictures."""
    import torch
    from tqdm.auto import tqdm

    from teachkit import edm, initial_noise, sample, schedules, scheduling, solvers

    where = _device(device)
    denoiser = edm.load(model, device=where)
    saved = scheduling.Schedule.load(schedule) if schedule else None
    sigmas = saved.sigmas if saved else schedules.polynomial(steps)
    step = saved.make_solver() if saved else solvers.get(solver)
    network: Any = denoiser
    shape = (network.img_channels, network.img_resolution, network.img_resolution)
    noise = initial_noise(count, shape, float(sigmas[0]), seed=seed, dtype=torch.float32)
    classes = None
    if network.label_dim:
        numbers = torch.arange(count) % network.label_dim if label is None else torch.full((count,), label)
        if label is not None and label >= network.label_dim:
            raise typer.BadParameter(f"label must be below {network.label_dim}, got {label}")
        classes = numbers
    elif label is not None or guidance is not None:
        raise typer.BadParameter(f"{model} has no classes: neither --label nor --guidance can be used")
    finals = []
    with torch.no_grad():
        for start in tqdm(range(0, count, batch), unit="batch", disable=not sys.stderr.isatty()):
            rows = slice(start, start + batch)
            labels = None if classes is None else classes[rows].to(where)
            path = sample(denoiser, noise[rows].to(where), sigmas, step, labels=labels, guidance=guidance, keep="final")
            finals.append(path.final.cpu())
    final = torch.cat(finals)
    _save_grid(final, out)
    if tensors:
        _save_tensors({"samples": final}, tensors)
    print(out)


@app.command("schedule")
def find(
    model: Model = "edm-mnist",
    solver: Annotated[str, typer.Option(help="A solver, or 'fitted': weights fitted with the levels.")] = "ipndm",
    nfe: Annotated[int, typer.Option(min=2, help="Evaluations one sample may cost.")] = 6,
    warm_up: Annotated[int, typer.Option(min=8, help="Warm-up samples.")] = 32,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    save: Annotated[Path | None, typer.Option(help="Write the schedule as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (.png): costs, and where the levels lie.")] = None,
    form: Annotated[str, typer.Option("--format", help="list, json or comfyui")] = "list",
    device: Device = None,
) -> None:
    """Find the noise levels at which a solver comes closest to a teacher of 60 evaluations."""
    import torch

    from teachkit import edm, initial_noise, scheduling

    if form not in ("list", "json", "comfyui"):
        raise typer.BadParameter(f"format must be list, json or comfyui, got {form!r}")
    where = _device(device)
    denoiser: Any = edm.load(model, device=where)
    shape = (denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)
    noise = initial_noise(warm_up, shape, seed=seed, dtype=torch.float32).to(where)
    show = sys.stderr.isatty()
    with torch.no_grad():
        teacher = scheduling.teacher_paths(denoiser, noise)
        if solver == "fitted":
            found = scheduling.fit_solver(denoiser, noise, nfe, teacher=teacher, progress=show)[1]
        else:
            found = scheduling.find_schedule(denoiser, noise, nfe, solver, teacher=teacher, progress=show)
    if save:
        found.save(save)
    if plot:
        from teachkit import plots

        nearest = [int((teacher.sigmas - s).abs().argmin()) for s in found.sigmas]
        cost = scheduling.cost_matrix(teacher, "l2")
        title = f"{model}, {found.solver}, {found.nfe} evaluations"
        plots.cost_matrix(cost, teacher.sigmas, nearest, title=title).savefig(plot)
    print({"list": _levels, "json": lambda f: f.to_json(), "comfyui": lambda f: f.to_comfyui()}[form](found))


def main() -> None:
    """Entry point: errors in one line, without a traceback unless asked for."""
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(_interrupted("nothing was left half-written")) from None
    except (ValueError, TypeError, OSError, RuntimeError, FloatingPointError) as error:
        if _DEBUG:
            raise
        print(f"teachkit: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _interrupted(message: str) -> int:
    print(f"\nteachkit: interrupted; {message}", file=sys.stderr)
    return 130


def _device(name: str | None) -> str:
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def _levels(found: Any) -> str:
    return "\n".join(f"{s:.6g}" for s in found.sigmas.tolist())


def _save_grid(images: Tensor, path: Path) -> None:
    from torchvision.utils import save_image

    beside = path.with_name(f".{path.stem}.{os.getpid()}.png")
    try:
        save_image(images.clamp(-1, 1) / 2 + 0.5, beside, nrow=10)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: t.contiguous() for name, t in tensors.items()}, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)

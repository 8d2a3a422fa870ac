"""``teachkit train`` and ``teachkit convert``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from teachkit.cli.base import Device, app, check_choice, check_target, choose_device
from teachkit.launcher import place


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="mnist, digits8, emoji, or a distillation, as digits8-1step.")],
    run_dir: Annotated[
        Path | None, typer.Option(help="Checkpoints, log and sample grids; default: runs/RECIPE.", file_okay=False)
    ] = None,
    device: Device = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images to see instead of the recipe's number.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's seed.")] = None,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Time between checkpoints.")] = 30.0,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the network or not; default: the recipe's.")
    ] = None,
) -> None:
    """Train or distil a small model; run again to resume. Under torchrun, every process takes a share of each batch."""
    from teachkit.edm.distillation import DISTILLATIONS, Distillation, distil
    from teachkit.edm.recipes import RECIPES, Recipe
    from teachkit.edm.training import train

    recipes: dict[str, Recipe | Distillation] = {**RECIPES, **DISTILLATIONS}
    check_choice("recipe", recipe, sorted(recipes))
    changes: dict[str, Any] = {k: v for k, v in (("images", images), ("seed", seed)) if v is not None}
    chosen = dataclasses.replace(recipes[recipe], **changes)
    if isinstance(chosen, Distillation) and compiled is not None:
        raise typer.BadParameter("--compile and --no-compile are for training, not for distilling")
    folder = run_dir or Path("runs") / recipe
    first, where = place().first, choose_device(device)
    try:
        if isinstance(chosen, Distillation):
            distil(chosen, folder, device=where, checkpoint_seconds=checkpoint_seconds)
        else:
            train(chosen, folder, device=where, checkpoint_seconds=checkpoint_seconds, compile=compiled)
    except KeyboardInterrupt:
        if not first:
            raise SystemExit(130) from None
        there = (folder / "checkpoint.pt").exists()
        state = "the same command goes on from its last checkpoint" if there else "it had no checkpoint yet"
        raise KeyboardInterrupt(f"the run is in {folder}: {state}") from None
    if first:
        print(folder)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published .pkl snapshot.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the target.")] = False,
) -> None:
    """Convert a pickled snapshot to safetensors, without running anything that it holds."""
    from teachkit import edm

    check_target(target, "target", ".safetensors")
    if target.exists() and not force:
        raise FileExistsError(f"{target} is there already; --force overwrites it")
    edm.convert(source, target)
    print(target)

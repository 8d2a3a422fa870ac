"""The typer application, its entry point, and what the commands share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How diffusion models sample: train, convert and sample models, find their schedules, open the course.",
)
_DEBUG = False

Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: cuda where there is one.")]
Model = Annotated[str, typer.Option(help="A name (edm-mnist, edm-cifar10-32x32-uncond-vp, ...) or a file.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Options that come before the command."""
    global _DEBUG
    _DEBUG = debug


def main() -> None:
    """Entry point: errors in one line, without a traceback unless asked for."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has gone; nothing may be flushed at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nteachkit: interrupted; files are whole or absent", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if _DEBUG:
            raise
        kind = "" if isinstance(error, (ValueError, TypeError, OSError, RuntimeError)) else f"{type(error).__name__}: "
        print(f"teachkit: {kind}{error}", file=sys.stderr)
        raise SystemExit(1) from None


def choose_device(name: str | None) -> str:
    """The device asked for, after making sure that it works; by default the GPU where there is one."""
    import torch

    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"device {chosen!r} cannot be used here: {reason}") from None
    return chosen


def check_target(path: Path | None, option: str, suffix: str) -> None:
    """Refuse, before any work is done, a file that could not be written at the end."""
    if path is None:
        return
    if path.suffix != suffix:
        raise typer.BadParameter(f"{option} must end in {suffix}, got {path.name!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(f"{option}: {path} is a folder or lies in one that does not exist")

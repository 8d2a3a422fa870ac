"""The typer application, its entry point, and what the commands share."""

from __future__ import annotations

import contextlib
import errno
import getpass
import importlib.util
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from typer.core import TyperGroup

from teachkit.course import needs
from teachkit.files import home

RESUMED = ("assignments", "claims", "evaluate", "sample", "schedule")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _interruptible(context: Any = None) -> Iterator[None]:
    """Ctrl-C in the block, during a command if ``context`` is given, is one line and exit code 130."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        told = str(stopped)
        if context and not told:
            kept = "what is finished is kept, and the same command goes on from there"
            told = kept if context.invoked_subcommand in RESUMED else "no file is left half-written"
        print("\nteachkit: interrupted" + (f"; {told}" if told else ""), file=sys.stderr)
        raise SystemExit(130) from None


class Commands(TyperGroup):
    """The commands; Ctrl-C in any of them is one line and exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of this context."""
        with _interruptible(ctx):
            return super().invoke(ctx)

    @_interruptible()
    def make_context(self, info_name: Any, args: list[str], *more: Any, **options: Any) -> Any:
        """Read the command line, ``~`` in it being the home directory also where a shell leaves it."""
        _settle()
        return super().make_context(info_name, [_expanded(each) for each in args], *more, **options)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How diffusion models sample: train, convert and sample models, find their schedules, open the course.",
)
_DEBUG = False

Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: cuda where there is one.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")]
Model = Annotated[str, typer.Option(help="A name (edm-mnist, edm-emoji, edm-cifar10-32x32-uncond-vp, ...) or a file.")]
Store = Annotated[
    Path | None, typer.Option(help="Where finished work is kept; default: $TEACHKIT_CACHE or ~/.cache/teachkit.")
]


@app.callback()
def options(
    context: typer.Context, debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False
) -> None:
    """Options that come before the command."""
    global _DEBUG
    _DEBUG = debug
    if context.invoked_subcommand != "lab":
        os.environ["MPLBACKEND"] = "agg"  # files only; what a notebook has set may not even be installed here


def _settle() -> None:
    """A home directory and a name for a user id without an account: libraries ask for both."""
    try:
        os.environ.setdefault("HOME", str(home()))
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _expanded(argument: str) -> str:
    option, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + sign + os.path.expanduser(value)


@_interruptible()
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
    except Exception as error:
        if _DEBUG:
            raise
        print(f"teachkit: {in_words(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def in_words(error: Exception) -> str:
    """An error for who has not read the code: what happened and, where the disk is the reason, what helps."""
    text = str(error) or type(error).__name__
    if (isinstance(error, OSError) and error.errno in FULL) or any(f"(os error {code})" in text for code in FULL):
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        return f"no room left to write{where}; what was there before is whole. Make room and run the same command again"
    known = isinstance(error, (ValueError, TypeError, OSError, RuntimeError, ModuleNotFoundError))
    return text if known else f"{type(error).__name__}: {text}"


def choose_device(name: str | None) -> str:
    """The device asked for, after making sure that it works; by default the GPU where there is one."""
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"device {chosen!r} cannot be used here: {reason}") from None
    return chosen


def check_choice(option: str, value: str, among: Collection[str], besides: str = "") -> None:
    """Refuse what is none of a few words; ``besides`` says what else would do."""
    if value not in among:
        raise typer.BadParameter(f"{option} must be {besides}one of {', '.join(among)}, got {value!r}")


def check_target(path: Path | None, option: str, suffix: str) -> None:
    """Refuse, before any work is done, a file that could not be written at the end."""
    if path is None:
        return
    if path.suffix != suffix:
        raise typer.BadParameter(f"{option} must end in {suffix}, got {path.name!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(f"{option}: {path} is a folder or lies in one that does not exist")
    if not os.access(path.parent, os.W_OK):
        raise typer.BadParameter(f"{option}: {path.parent} cannot be written; name a file in another folder")
    if suffix == ".png":
        with needs("course", "pictures"):
            for package in ("matplotlib", "torchvision"):
                if importlib.util.find_spec(package) is None:
                    raise ModuleNotFoundError(name=package)

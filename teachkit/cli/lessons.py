"""``teachkit lab``: the lessons in a folder of one's own, opened in JupyterLab."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from teachkit import __version__
from teachkit.cli.base import app
from teachkit.files import write_whole

FOLDER = "teachkit-lessons"
RECORD = ".teachkit.json"  # what was copied here, as checksums by name


@app.command(context_settings={"ignore_unknown_options": True})
def lab(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[FOLDER] [OPTIONS OF JUPYTERLAB]")] = None,
) -> None:
    """Copy the lessons to FOLDER and open them in JupyterLab; options such as --no-browser or --port=8888 go to it.

    What you have changed there stays as it is, also after an upgrade. Without FOLDER the lessons are opened where they
    lie in a checkout, and otherwise copied to ./teachkit-lessons.
    """
    options = arguments or []
    source, given = shipped(), [options.pop(0)] if options and not options[0].startswith("-") else []
    if not lessons(source):
        raise FileNotFoundError(f"the lessons are not in {source}; reinstall teachkit")
    if importlib.util.find_spec("jupyterlab") is None:
        raise RuntimeError("JupyterLab is not installed; pip install 'teachkit[lab]'")
    folder = Path(*given) if given else source if source.name == "notebooks" else Path(FOLDER)
    if folder.resolve() != source.resolve():
        for line in hand_out(source, folder):
            print(line, file=sys.stderr)
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder.resolve()}", *root, *options]
    sys.stderr.flush()
    os.execv(sys.executable, command)


def shipped() -> Path:
    """Where the lessons are: beside the modules in an installed package, in ``notebooks/`` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_lessons"
    return inside if inside.is_dir() else package.parent / "notebooks"


def lessons(folder: Path) -> list[Path]:
    """The lessons in a folder, in reading order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def hand_out(source: Path, folder: Path) -> list[str]:
    """Copy the lessons of ``source`` to ``folder``, and say what was done. Nothing that was changed there is lost.

    A file is replaced, or taken away with a lesson that is gone, only if it is byte for byte what an earlier call
    wrote. Beside one that was changed the lesson's new state is put under a name with the version. An interrupted call
    can be repeated.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"FOLDER must be a folder, got a file: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    record = _read(folder / RECORD)
    wanted, said = {}, []
    for lesson in lessons(source):
        path, content = folder / lesson.name, lesson.read_bytes()
        if _changed(path, record) and record.get(path.name) != _digest(content) != _digest(path.read_bytes()):
            path = path.with_name(f"{lesson.stem}-{__version__}.ipynb")
            said.append(f"{lesson.name} is yours and stays; the lesson of teachkit {__version__} is {path.name}")
        wanted[path] = content
    for path, content in wanted.items():
        there = path.exists() and path.read_bytes() == content
        if there or not _changed(path, record):
            if not there:
                _write(path, content)
            record[path.name] = _digest(content)
    kept = {path.name for path in wanted} | {lesson.name for lesson in lessons(source)}
    for name in [name for name in record if name not in kept]:
        if not _changed(folder / name, record):
            (folder / name).unlink(missing_ok=True)
            del record[name]
    _write(folder / RECORD, json.dumps(record, indent=1).encode())
    return [*said, f"{len(lessons(source))} lessons in {folder}"]


def _write(path: Path, content: bytes) -> None:
    write_whole(path, lambda beside: beside.write_bytes(content))


def _changed(path: Path, record: dict[str, str]) -> bool:
    """Whether there is a file that no earlier call has written as it is."""
    return path.exists() and record.get(path.name) != _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> dict[str, str]:
    """The record; without one, or with one that cannot be read, every file there is the student's."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}

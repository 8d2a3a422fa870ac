"""The first cell of every lesson, which installs teachkit in a hosted notebook: ``python tools/hosted.py [--check]``.

It is folded and does nothing where teachkit is installed. From where it installs is the address that pyproject.toml
gives as ``Repository`` under ``[project.urls]``; without one the cell says what to fill in. May be run again at any
time, after a change of the address or of the lessons. ``--check`` writes nothing; the exit code tells.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TAG = "hosted"
CELL = """# Only for a hosted notebook (Colab, Kaggle): installs teachkit. Where it is installed, nothing happens.
# No lesson needs a GPU; it is chosen by Runtime > Change runtime type (Colab) or Settings > Accelerator (Kaggle).
import importlib.util
import os
import subprocess
import sys

SOURCE = "{source}"  # where teachkit is: "git+https://github.com/OWNER/NAME", or the address of a wheel
os.environ.setdefault("TEACHKIT_FULL", "0")  # "1": more paths and samples, for a GPU
if not getattr(importlib.util.find_spec("teachkit"), "origin", None):  # a folder of that name is no package
    assert SOURCE, "teachkit is not installed here: put its address into SOURCE"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"teachkit[course] @ {{SOURCE}}"], check=True)"""


def repository(root: Path = ROOT) -> str | None:
    """The address of the repository, where pyproject.toml gives one."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")


def with_cell(notebook: dict[str, Any], address: str | None) -> dict[str, Any]:
    """A lesson with the cell below its heading, in place of an earlier one, and its cells counted anew."""
    cells = [cell for cell in notebook["cells"] if TAG not in cell["metadata"].get("tags", [])]
    source = CELL.format(source=f"git+{address}" if address else "")
    cells.insert(1, {
        "cell_type": "code", "execution_count": None, "id": TAG,
        "metadata": {"jupyter": {"source_hidden": True}, "tags": [TAG]},
        "outputs": [], "source": source.splitlines(keepends=True),
    })  # fmt: skip
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = count
    return {**notebook, "cells": cells}


def changes(root: Path = ROOT) -> dict[Path, str]:
    """Every lesson whose cell is missing or another, with its new text."""
    found = {}
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        before = path.read_text(encoding="utf-8")
        after = json.dumps(with_cell(json.loads(before), repository(root)), indent=1, ensure_ascii=False) + "\n"
        if after != before:
            found[path] = after
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a lesson disagrees")
    check, found = parser.parse_args().check, changes()
    for path, text in found.items():
        print(f"{path.relative_to(ROOT)}: {'disagrees' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    raise SystemExit(check and bool(found))

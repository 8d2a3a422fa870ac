"""The explorers of a lesson as flip books: ``python tools/flip_book.py LESSON.ipynb OUT``, for ``build_site.py``.

A page of the site runs nothing, so what an explorer shows is drawn before: for two of its controls (sliders first, a
list where there are fewer), over the range that they have, at most `MOST` pictures. The cells that an explorer needs
are run, no others. OUT gets a folder of pictures for each explorer, and ``LESSON.json``: for the index of each
explorer's cell its controls with their positions, and its frames, each with its file, alternative text and caption.
"""

from __future__ import annotations

import ast
import base64
import builtins
import contextlib
import io
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets as W
import numpy as np
from PIL import Image

from teachkit.course import widgets

MOST = 80  # pictures of one explorer
FEW = 5  # positions of a second slider
DPI = 120
MAKERS = {f"widgets.{name}" for name in widgets.__all__} - {"widgets.Prediction", "widgets.predict"}
LISTS = (W.Dropdown, W.SelectionSlider)


# ---- which cells an explorer needs


def shows_explorer(source: str) -> bool:
    """Whether the last line of a cell makes an explorer: ``widgets.path_player(...)``."""
    body = ast.parse(source).body
    call = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func) in MAKERS


def names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - set(dir(builtins))


def binds(tree: ast.Module) -> set[str]:
    """Names that a cell binds, or whose value it may change: by ``x = ...``, ``x[k] = ...`` and ``x.append(...)``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            found |= names(node)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            found |= names(called.value) if isinstance(called, ast.Attribute) else set()
    return found


def imports(tree: ast.Module) -> set[str]:
    aliases = [each for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for each in node.names]
    return {(each.asname or each.name).split(".")[0] for each in aliases}


def needed(sources: list[str]) -> list[int]:
    """Which of the cells the last one needs, itself included, in their order."""
    trees = [ast.parse(source) for source in sources]
    modules = set().union(*map(imports, trees))
    wanted, chosen = names(trees[-1]), [len(trees) - 1]
    for k in range(len(trees) - 2, -1, -1):
        if ((binds(trees[k]) - modules) | imports(trees[k])) & wanted:
            wanted |= names(trees[k])
            chosen.append(k)
    return chosen[::-1]


def explorers(notebook: dict) -> Iterator[tuple[int, widgets.Explorer]]:
    """The explorers of a lesson, each with the index of its cell, made by running what they need.

    What the cells have made, temporary files too, stays until the next one is asked for.
    """
    code = {k: "".join(cell["source"]) for k, cell in enumerate(notebook["cells"]) if cell["cell_type"] == "code"}
    space: dict[str, Any] = {"__name__": "__main__"}
    ran: set[int] = set()
    for place in [k for k in code if shows_explorer(code[k])]:
        above = [k for k in code if k <= place]
        for k in [above[index] for index in needed([code[k] for k in above])]:
            if k in ran:
                continue
            ran.add(k)
            tree = ast.parse(code[k])
            if k == place or shows_explorer(code[k]):
                tree.body[-1] = ast.parse(f"_ = {ast.unparse(tree.body[-1])}").body[0]
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(tree, f"cell {k}", "exec"), space)
            if shows_explorer(code[k]):
                yield k, space["_"]


# ---- which pictures it shows


def positions(control: W.Widget) -> list[tuple[str, Any]]:
    """All values that a control can take, each with how it is written."""
    if isinstance(control, LISTS):
        return [option if isinstance(option, tuple) else (str(option), option) for option in control.options]
    steps = control.min + control.step * np.arange(round((control.max - control.min) / control.step) + 1)
    steps = control.base**steps if isinstance(control, W.FloatLogSlider) else steps.round(9) + 0.0  # no -0
    return [(f"{step:.3g}", type(control.value)(step)) for step in steps]


def thinned(control: W.Widget, most: int) -> tuple[list[tuple[str, Any]], int]:
    """At most so many positions, and which of them is where the control stands now.

    They are spread evenly; those of a number of steps, which says more when it is small, by their ratio.
    """
    every = positions(control)
    if isinstance(control, LISTS):
        now = control.index
    else:
        now = int(np.abs([value - control.value for _, value in every]).argmin())
        every[now] = f"{control.value:.3g}", control.value
    places = np.linspace(0, len(every) - 1, min(most, len(every)))
    if isinstance(control, W.IntSlider) and 0 < control.min < control.max / 3 and len(every) > most:
        places = (np.geomspace(control.min, control.max, len(places)) - control.min) / control.step
    chosen = np.unique(places.round().astype(int))
    at = int(np.abs(chosen - now).argmin())
    chosen[at] = now
    return [every[k] for k in chosen], at


def movable(explorer: widgets.Explorer) -> list[W.Widget]:
    """The controls of an explorer that a reader would move, sliders first."""
    shown = [each for each in explorer.controls if hasattr(each, "value") and each.layout.display != "none"]
    return sorted(
        (each for each in shown if not isinstance(each, (W.Play, W.Label))),
        key=lambda each: isinstance(each, W.Dropdown),
    )


def write(shown: str, path: Path) -> None:
    """Write the image that an explorer shows, given as HTML; an error that it shows is raised."""
    found = re.search(r"base64,([^\"]+)", shown)
    if found is None:
        raise RuntimeError(f"{path.parent.name}: {shown[:500]}")
    Image.open(io.BytesIO(base64.b64decode(found[1]))).save(path, quality=60, method=6)


def flip_book(explorer: widgets.Explorer, folder: Path) -> dict[str, Any]:
    """Draw the frames of an explorer into a folder, and say what they show."""
    controls, others = movable(explorer)[:2], movable(explorer)[2:]
    second = [thinned(each, MOST if isinstance(each, W.Dropdown) else FEW) for each in controls[1:]]
    most = MOST // len(second[0][0]) if second else MOST // 3
    kept = [thinned(controls[0], most), *second]
    folder.mkdir(parents=True)
    explorer.dpi = DPI
    frames: list[dict[str, str]] = []
    for chosen in itertools.product(*[each for each, _ in kept]):
        explorer.turn({control: value for control, (_, value) in zip(controls, chosen)})
        path = folder / f"{len(frames):03d}.webp"
        write(explorer.screen.value, path)
        alt, caption = explorer.picture.alt, explorer.picture.caption
        frames.append({"file": path.name, "alt": alt, "caption": caption if alt in caption else f"{alt} {caption}"})
    turned = [
        {"label": control.description, "list": isinstance(control, W.Dropdown), "names": [n for n, _ in each], "at": at}
        for control, (each, at) in zip(controls, kept)
    ]
    size = [round(96 * inches) for inches in explorer.picture.get_size_inches()]
    return {"controls": turned, "frames": frames, "size": size, "others": [each.description for each in others]}


def main(lesson: Path, out: Path) -> None:
    found = explorers(json.loads(lesson.read_text(encoding="utf-8")))
    books = {k: flip_book(explorer, out / f"{lesson.stem}-{k}") for k, explorer in found}
    (out / f"{lesson.stem}.json").write_text(json.dumps(books))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

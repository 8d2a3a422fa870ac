"""Explorers drawn beforehand: the cells that they need, the positions of their controls, and their frames."""

import json
import sys
from pathlib import Path

import ipywidgets as W
import pytest
from PIL import Image

from teachkit.course import plots, widgets
from tests.test_widgets import NAMES, digits_path, make, run_dir  # noqa: F401  (fixtures)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import flip_book  # noqa: E402

CELLS = [
    "import torch\nfrom teachkit.course import plots, widgets",
    "x = torch.zeros(3)",
    "y = x + 1",  # not needed
    "def twice(v):\n    return 2 * v",
    "x[0] = twice(1)",
    "rows = []",
    "rows.append(x)",
    "print(rows, x)",
    "plots.show(x)",
    "widgets.noise_walk(rows)",
]


def test_only_what_an_explorer_needs_is_run():
    assert flip_book.needed(CELLS) == [0, 1, 3, 4, 5, 6, 9]


def test_explorers_are_told_from_questions():
    assert flip_book.shows_explorer(CELLS[-1])
    assert not flip_book.shows_explorer("widgets.predict('How many?', 3)")
    assert not flip_book.shows_explorer("lab = widgets.noise_walk(rows)")


@pytest.mark.parametrize(
    ("control", "names", "at"),
    [
        (W.IntSlider(value=4, min=0, max=20), ["0", "4", "10", "15", "20"], 1),
        (W.IntSlider(value=6, min=2, max=32), ["2", "6", "8", "16", "32"], 1),  # a number of steps
        (W.FloatLogSlider(value=0.15, min=-2, max=1, step=0.1), ["0.01", "0.0631", "0.15", "1.58", "10"], 2),
        (W.Dropdown(options=["a", "b"], value="b"), ["a", "b"], 1),
        (W.SelectionSlider(options=[(f"level {k}", k) for k in range(9)], value=8),
         ["level 0", "level 2", "level 4", "level 6", "level 8"], 4),
    ],
)  # fmt: skip
def test_positions_are_few_and_hold_the_present_one(control, names, at):
    kept, now = flip_book.thinned(control, 5)
    assert [name for name, _ in kept] == names
    assert (now, kept[now][1]) == (at, control.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_explorer_has_a_flip_book(make, name, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(flip_book, "MOST", 6)
    monkeypatch.setattr(flip_book, "FEW", 3)
    explorer = make(name)
    book = flip_book.flip_book(explorer, tmp_path / "book")
    assert 1 <= len(book["controls"]) <= 2
    frames = book["frames"]
    assert len(frames) > 1
    assert len({frame["alt"] for frame in frames}) == len(frames)
    assert all(frame["alt"] in frame["caption"] for frame in frames)
    pictures = {(tmp_path / "book" / frame["file"]).read_bytes() for frame in frames}
    assert len(pictures) > len(frames) / 2  # two solvers may draw the same
    width, height = Image.open(tmp_path / "book" / frames[0]["file"]).size
    assert width / height == pytest.approx(book["size"][0] / book["size"][1], rel=0.02)


def test_an_explorer_that_fails_is_not_drawn(tmp_path):
    def redraw():
        if level.value > 1:
            raise RuntimeError("the network is gone")
        return f"Level {level.value}.", ""

    level = widgets.explorer.slider("level", 1, 0, 3)
    with pytest.raises(RuntimeError, match="the network is gone"):
        flip_book.flip_book(widgets.Explorer(plots.panels()[0], redraw, [level]), tmp_path / "book")


@pytest.mark.slow
def test_the_first_picture_is_the_one_of_the_lesson():
    notebook = json.loads((ROOT / "notebooks" / "04_solvers.ipynb").read_text())
    for place, explorer in flip_book.explorers(notebook):
        stored = notebook["cells"][place]["outputs"][-1]["data"]["text/plain"]
        assert explorer.picture.alt == "".join(stored)

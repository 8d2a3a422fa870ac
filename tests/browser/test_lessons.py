"""The lessons in JupyterLab: all as they are stored, and some run by Run All, which shows no error in any cell.

That every cell of every lesson runs, that exercises take the right answer and refuse a wrong one, and what is printed,
is what `pytest --nbval notebooks` tests; that every explorer moves, test_explorers.py.
"""

from __future__ import annotations

import shutil

import nbformat
import pytest

from .conftest import CELLS, ROOT, SHOTS, choose_theme, open_and_run, open_notebook

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
RUN = [lesson for lesson in LESSONS if lesson.stem == "04_solvers"]  # with explorers, and quick
SECONDS = 300


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_can_be_read_as_it_is_stored(lab, page, lesson):
    """Before anything has run: every picture is there with its text, and no explorer shows an error."""
    shutil.copy(lesson, lab.root)
    notebook = open_notebook(page, lab, lesson.name)
    assert all(cell["count"] and not cell["error"] for cell in page.evaluate(CELLS))
    read(notebook)
    page.screenshot(path=SHOTS / f"{lesson.stem}-stored.png")


@pytest.mark.parametrize("lesson", RUN, ids=lambda path: path.stem)
def test_a_lesson_runs_by_run_all_in_either_theme(lab, page, lesson):
    shutil.copy(lesson, lab.root)
    notebook = open_and_run(page, lab, lesson.name, SECONDS)
    pictures = read(notebook)
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        choose_theme(page, theme)
        pictures.first.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        page.screenshot(path=SHOTS / f"{lesson.stem}-{theme.split()[1].lower()}.png")


def read(notebook):
    """Look at the pictures, which are returned, and for alerts."""
    pictures = notebook.locator(".jp-OutputArea-output img")
    pictures.first.wait_for(timeout=20_000)
    texts = pictures.evaluate_all("all => all.map(image => image.alt)")
    assert texts
    assert all(text.strip() for text in texts), "a picture has no alternative text"
    assert notebook.get_by_role("alert").count() == 0, "an explorer shows an error"
    return pictures


@pytest.mark.parametrize("folded", [False, True], ids=["shown", "folded"])
def test_a_cell_that_fails_would_be_noticed(lab, page, folded):
    """The negative control: the same run refuses a notebook with an error in it, also in a folded last cell."""
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "2 + 2", "1 / 0")]
    cells[-1].metadata["jupyter"] = {"source_hidden": folded}
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, lab.root / "fails.ipynb")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        open_and_run(page, lab, "fails.ipynb", 60)

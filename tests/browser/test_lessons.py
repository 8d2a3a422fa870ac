"""Every lesson, opened in JupyterLab and run by its Run All: no cell shows an error, in either theme."""

from __future__ import annotations

import shutil

import pytest

from .conftest import ROOT, SHOTS, choose_theme, open_and_run

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SECONDS = 300


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_in_the_browser(lab, page, lesson):
    shutil.copy(lesson, lab.root)
    notebook = open_and_run(page, lab, lesson.name, SECONDS)
    pictures = notebook.locator(".jp-OutputArea-output img")
    texts = pictures.evaluate_all("all => all.map(image => image.alt)")
    assert texts
    assert all(text.strip() for text in texts), "a picture has no alternative text"
    assert notebook.get_by_role("alert").count() == 0, "an explorer shows an error"
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        choose_theme(page, theme)
        pictures.first.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        page.screenshot(path=SHOTS / f"{lesson.stem}-{theme.split()[1].lower()}.png")


@pytest.mark.parametrize("folded", [False, True], ids=["shown", "folded"])
def test_a_cell_that_fails_would_be_noticed(lab, page, folded):
    """The negative control: the same run refuses a notebook with an error in it, also in a folded last cell."""
    import nbformat

    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "2 + 2", "1 / 0")]
    cells[-1].metadata["jupyter"] = {"source_hidden": folded}
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, lab.root / "fails.ipynb")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        open_and_run(page, lab, "fails.ipynb", 60)

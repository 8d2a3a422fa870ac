"""Every lesson, opened in JupyterLab and run by its Run All: no cell shows an error, in either theme.

The exercises are done wrong first, each by the lesson's own solution with what it gives spoilt, then right.
"""

from __future__ import annotations

import re

import nbformat
import pytest

from .conftest import CELLS, ROOT, SHOTS, choose_theme, open_and_run

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SECONDS = 300


SPOILT = """
def spoilt(answer):
    if callable(answer):
        return lambda *given: spoilt(answer(*given))
    if isinstance(answer, dict):
        return dict(zip(answer, [*list(answer.values())[1:], *list(answer.values())[:1]]))
    return tuple(map(spoilt, answer)) if isinstance(answer, (list, tuple)) else -2 * answer - 1
"""
CHECK = re.compile(r"(?m)^grading\.check\((.+), (\w+)\)$")


def with_wrong_answers(lesson):
    """The lesson with a wrong answer in each exercise that is checked, and where these and the right ones stand."""
    book = nbformat.read(lesson, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    wrong = [
        i for i, cell in enumerate(code) if "exercise" in cell.metadata.get("tags", ()) and CHECK.search(cell.source)
    ]
    for i in wrong:
        assert "solution" in code[i + 1].metadata.tags
        code[i].source = SPOILT + CHECK.sub(r"grading.check(\1, spoilt(\2))", code[i + 1].source)
    return book, wrong, [i + 1 for i in wrong]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_in_the_browser(lab, page, lesson):
    book, wrong, right = with_wrong_answers(lesson)
    nbformat.write(book, lab.root / lesson.name)
    notebook = open_and_run(page, lab, lesson.name, SECONDS)
    printed = [cell["printed"] for cell in page.evaluate(CELLS)]
    assert [printed[i][:1] for i in wrong] == ["✗"] * len(wrong), [printed[i] for i in wrong]
    assert [printed[i][:1] for i in right] == ["✓"] * len(right), [printed[i] for i in right]
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
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "2 + 2", "1 / 0")]
    cells[-1].metadata["jupyter"] = {"source_hidden": folded}
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, lab.root / "fails.ipynb")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        open_and_run(page, lab, "fails.ipynb", 60)

"""What a reader meets in a lesson in JupyterLab: a question to be answered first, and drawings that are folded."""

from __future__ import annotations

import nbformat
import pytest

from .conftest import SHOTS, open_and_run

CELLS = [
    "from teachkit.course import plots, widgets",
    "widgets.predict('How far does it stray?', 12.08, unit='pixels')",
    "picture, ax = plots.panels()\nax.plot([1, 2])\npicture.alt = 'A line from 1 to 2.'\npicture",
]


@pytest.fixture
def notebook(lab, page):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    book.cells[2].metadata |= {"tags": ["drawing"], "jupyter": {"source_hidden": True}}
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, lab.root / "reading.ipynb")
    return open_and_run(page, lab, "reading.ipynb", 60)


def test_a_guess_is_typed_and_compared_and_a_drawing_unfolded(notebook):
    asked = notebook.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea")
    box = asked.get_by_role("textbox", name="your guess")
    box.wait_for(timeout=20_000)
    assert "12" not in asked.inner_text(), "the answer is not there before a guess"
    assert asked.locator("details").count() == 0
    box.focus()
    notebook.page.keyboard.type("70")
    notebook.page.keyboard.press("Enter")
    status = asked.get_by_role("status")
    status.wait_for(timeout=10_000)
    assert status.inner_text() == "Your guess: 70 pixels. Measured: 12 pixels. 5.8 times too large."
    notebook.page.screenshot(path=SHOTS / "prediction.png")
    box.fill("12")
    asked.get_by_role("button", name="compare").click()
    asked.get_by_text("well predicted").wait_for(timeout=10_000)

    drawing = notebook.locator(".jp-CodeCell").nth(2)
    assert drawing.get_by_role("img", name="A line from 1 to 2.").is_visible()
    assert not drawing.locator(".jp-InputArea-editor").is_visible()
    drawing.locator(".jp-InputPlaceholder").click()
    drawing.locator(".jp-InputArea-editor").wait_for(state="visible", timeout=10_000)

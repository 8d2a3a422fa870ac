"""The page for the first lecture: three pictures that are there, and numbers that lesson 00 prints."""

import json
import re
from pathlib import Path

from teachkit.course import outline

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "FIRST_LECTURE.md").read_text()
LESSON = ROOT / "notebooks" / f"{outline.name(outline.LESSONS[0].slug)}.ipynb"


def test_it_has_three_pictures_with_their_texts_and_fits_a_page():
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", PAGE)
    assert len(pictures) == 3
    assert all(len(text) > 60 and (ROOT / "docs" / name).is_file() for text, name in pictures)
    assert len(PAGE.split()) < 600


def test_it_quotes_what_the_lesson_prints():
    cells = json.loads(LESSON.read_text())["cells"]
    printed = "".join(line for cell in cells for output in cell.get("outputs", []) for line in output.get("text", []))
    quoted = [line for block in re.findall(r"```text\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(quoted) == 3
    assert not [line for line in quoted if line not in printed]
    assert any("widgets.path_player" in "".join(cell["source"]) for cell in cells), "the demo"

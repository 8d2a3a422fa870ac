"""The time of a lesson is reckoned from what it holds."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import reading_time  # noqa: E402

TEXT = "# A title\n\nTwo $x$ and $y$ in the [text](elsewhere.ipynb).\n\n$$x = y$$\n\n<b>Bold</b> `<- yours`"


def cell(source, **metadata):
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": []}


LESSON = {
    "cells": [
        {"cell_type": "markdown", "source": TEXT.splitlines(keepends=True), "metadata": {}},
        cell("x = 1\n\ny = 2") | {"outputs": [{"output_type": "display_data", "data": {"image/png": ""}}]},
        cell("z = 3", jupyter={"source_hidden": True}),
        cell("widgets.predict('How many?', 3)"),
        cell("widgets.path_player(path)"),
        cell("def f(): ...", tags=["exercise"]),
    ]
}


def test_what_a_lesson_holds_is_counted():
    assert list(reading_time.count(LESSON).values()) == [9, 2, 1, 5, 1, 1, 1, 1]
    assert list(reading_time.count(LESSON)) == list(reading_time.SECONDS)


def test_minutes_are_the_sum_to_the_nearest_five(monkeypatch):
    assert reading_time.minutes({"cells": []}) == 0
    assert reading_time.minutes(LESSON) == 10  # nine and a half
    monkeypatch.setitem(reading_time.SECONDS, "exercise", 0)
    assert reading_time.minutes(LESSON) == 5


def test_the_speeds_are_stated_where_the_times_are():
    assert reading_time.stated() in (ROOT / "INSTRUCTORS.md").read_text()
    assert "238 words a minute" in reading_time.stated()

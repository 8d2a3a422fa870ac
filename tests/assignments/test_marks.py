"""Marks are what is deserved: small submissions, each of which was once marked wrongly."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from typer.testing import CliRunner

from teachkit.cli import app
from teachkit.course.assignments import Limits, mark, summary
from teachkit.course.assignments import notebook as nb

from .tiny import SHORT, SOLVED, cell, solved, tiny

pytestmark = [pytest.mark.usefixtures("warm"), pytest.mark.slow]


def with_own(*cells, first=(), **answers):
    """A submission with cells of the student's own: ``first`` above, the others at the end."""
    given = solved(**answers)
    given.cells[3:3] = [new_code_cell(code) for code in first]
    given.cells += [new_code_cell(code) for code in cells]
    return given


# Time


@pytest.mark.parametrize(
    ("cells", "remark"),
    [
        (["import torch, time\ntime.sleep(55)"] * 3, "cell 13 and the 2 own cells below it were not run to their end"),
        (["while True: pass"], "cell 13 was not run to its end"),
        (["import os\nos._exit(3)", "1 / 0"], "cell 13 and the 1 own cell below it were not run to their end"),
    ],
)
def test_own_cells_have_no_part_in_the_marks(cells, remark):
    report = mark(tiny(), with_own(*cells), limits=Limits(total_seconds=12))
    assert report.points == report.maximum, summary(report)
    assert [note for note in report.notes if remark in note], report.notes
    assert "free cell" in report.output


def test_own_cells_that_answers_need_run_before_the_tests():
    """Functions, constants and settings of own cells, wherever they stand; what they need themselves, too."""
    code = "from math import gcd as g\nTWO = {}\n\ndef double(x):\n    return TWO['a'] * x * g(3, 5)"
    given = with_own("import time\nTWO['a'] = 2", "slow = 1\nwhile True: pass", first=[code])
    given.cells[4]["source"] = "def twice(x):\n    return double(x)"
    report = mark(tiny(), given, limits=Limits(total_seconds=12))
    assert report.points == report.maximum, summary(report)


def test_the_last_definition_counts_also_in_an_own_cell():
    report = mark(tiny(), with_own(SOLVED, twice="def twice(x):\n    ..."), limits=SHORT)
    assert report.points == report.maximum, summary(report)


def test_tests_that_were_not_run_are_told_of(tmp_path):
    slow = "import time\ndef twice(x):\n    time.sleep(50)"
    source, given = tiny(), with_own(twice=slow)
    for number in range(12):  # each takes a tenth of the time
        again = cell(f"again_{number}", "twice(1)", grade=True, points=1)
        source.cells.append(again)
    report = mark(source, given, limits=Limits(total_seconds=5))
    assert 1 <= report.untested <= 4
    note = f"{report.untested} test(s) were not run (time): grade again with more --seconds"
    assert [n for n in report.notes if note in n], report.notes
    assert [s.points for s in report.scores[:3]] == [0, 1, 3]
    (tmp_path / "in").mkdir()
    nbformat.write(given, tmp_path / "in" / "ann.ipynb")
    nbformat.write(source, tmp_path / "tiny.ipynb")
    arguments = [str(tmp_path / "in"), "--source", str(tmp_path / "tiny.ipynb"), "--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(app, ["assignments", "grade", *arguments, "--seconds", "5"])
    assert outcome.exit_code == 1
    assert "not run (time)" in outcome.output + outcome.stderr


def test_limits_follow_the_time_of_a_submission():
    assert (Limits(total_seconds=40).cell_seconds, Limits(total_seconds=40).own_seconds) == (4, 8)
    report = mark(tiny(), with_own(twice="while True: pass"), limits=Limits(total_seconds=10))
    assert report.points == 4, summary(report)


# The student's own data


@pytest.mark.parametrize(
    ("line", "points"),
    [("ID = 31415  # of this copy", 7), ("ID=31415", 7), ("ID = 'x'", 6), ("ID = 31415\nID = 2", 7), (None, 6)],
)
def test_own_data_are_drawn_by_the_id_of_the_copy(line, points):
    source = tiny()
    source.cells[-1:] = [
        cell("own", "### BEGIN SOLUTION\nown = 3 * ID\n### END SOLUTION", solution=True, locked=False),
        cell("own_test", "expect('three times the id', own, 3 * ID)", grade=True, points=1),
    ]
    copy = nb.student_copy(source, 31415)
    for c, answer in zip(copy.cells, solved().cells):
        c["source"] = answer.source if nb.role(c) == "answer" else c.source
    copy.cells[-2]["source"] = "own = 3 * 31415"
    copy.cells[1]["source"] = line or ""
    if line is None:
        del copy.cells[1]
    report = mark(source, copy, limits=SHORT)
    assert (report.points, report.id) == (points, 31415 if points == 7 else None), summary(report)

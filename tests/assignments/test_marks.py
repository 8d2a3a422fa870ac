"""Marks are what is deserved: small submissions, each of which was once marked wrongly."""

import base64
import csv
import hashlib
import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from typer.testing import CliRunner

from teachkit.cli import app
from teachkit.course.assignments import Limits, grade, mark, summary
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.markdown import rendered
from teachkit.course.assignments.tables import slug

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


def test_tests_that_were_not_run_are_told_of(tmp_path, near):
    slow = "import time\ndef twice(x):\n    time.sleep(50)"
    source, given = tiny(), with_own(twice=slow)
    for number in range(12):  # each takes a tenth of the time
        again = cell(f"again_{number}", "twice(1)", grade=True, points=1)
        source.cells.append(again)
    (tmp_path / "in").mkdir()
    nbformat.write(given, tmp_path / "in" / "ann.ipynb")
    nbformat.write(source, tmp_path / "tiny.ipynb")
    arguments = [str(tmp_path / "in"), "--source", str(tmp_path / "tiny.ipynb"), "--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(app, ["assignments", "grade", *arguments, "--seconds", "5"])
    assert outcome.exit_code == 1
    assert re.search(
        r"[1-9]\d* test\(s\) were not run \(time\): grade again with more --seconds", outcome.output + outcome.stderr
    )


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


# What a person marks, and what the tables keep


def class_of(folder, names=("ann", "bob", "cy")):
    """A graded class: folder, source, and a function that grades again and gives rows of grades.csv and stderr."""
    (folder / "in").mkdir()
    source = tiny()
    where = next(i for i, c in enumerate(source.cells) if nb.grade_id(c) == "why_text")
    source.cells.insert(where, new_code_cell("twice(21)"))
    nbformat.write(source, folder / "tiny.ipynb")
    for number, name in enumerate(names):
        given = nb.student_copy(source, 1000 + number)
        texts = {nb.grade_id(c): c.source for c in solved(why=f"Because $p < {number}$ <b>of</b> **it**.").cells}
        for c in given.cells:
            if nb.role(c) in ("answer", "written"):
                c["source"] = texts[nb.grade_id(c)]
        shown = {"text/plain": f"the number {42 + number}"}
        given.cells[where]["outputs"] = [nbformat.v4.new_output("execute_result", shown)]
        nbformat.write(given, folder / "in" / f"{name}.ipynb")
    arguments = [str(folder / "in"), "--source", str(folder / "tiny.ipynb"), "--out", str(folder / "out")]

    def again(*more):
        outcome = CliRunner().invoke(app, ["assignments", "grade", *arguments, *more])
        assert outcome.exit_code == 0, outcome.output
        with (folder / "out" / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
            return {row["student"]: row for row in csv.DictReader(file)}, outcome.output

    return again


def test_words_are_marked_on_a_page_without_names(tmp_path, near):
    again = class_of(tmp_path)
    rows, _ = again()
    assert [row["total"] for row in rows.values()] == [""] * 3
    page = (tmp_path / "out" / "marking" / "why.html").read_text()
    assert not [name for name in rows if f">{name}<" in page or f'"{name}"' in page]
    for text in ("Because the rubric says so", "<strong>it</strong>", "&lt;b&gt;of", "<mo>&lt;</mo>", "the number 43"):
        assert text in page, text
    assert "BEGIN SOLUTION" not in page
    (script,) = re.findall(r"<script>(.*)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert "localStorage" in script
    found = re.findall(r'data-token="(\w+)" data-version="(\w+)".*?the number (\d+)', page, re.S)
    lines = [f"{token},why,{int(number) - 40},Good.,{version}" for token, version, number in found]
    table = "answer,question,points,comment,version\n" + "\n".join(lines)
    (tmp_path / "out" / "marking" / "marks-why.csv").write_text(table)
    rows, _ = again()
    assert [row["written"] for row in rows.values()] == ["2", "3", "4"]
    assert [row["total"] for row in rows.values()] == ["8", "9", "10"]
    assert rows["ann"]["feedback"] == "feedback/ann.html"
    assert "8 in all" in (tmp_path / "out" / rows["ann"]["feedback"]).read_text()
    assert not (tmp_path / "out" / "marking" / "marks-why.csv").exists(), "it is read once"
    assert [row["written"] for row in again()[0].values()] == ["2", "3", "4"]
    written = (tmp_path / "out" / "written.csv").read_text(encoding="utf-8-sig")
    assert "the number 42" in written
    (tmp_path / "out" / "marking" / "marks-why.csv").write_text(table.replace(found[0][0], "0" * 8))
    assert "is not the one handed in" in again()[1]


def test_overrides_last_and_hand_edits_are_kept(tmp_path, near):
    again = class_of(tmp_path)
    again()
    out = tmp_path / "out"
    (out / "overrides.csv").write_text(
        "student,item,points,reason\nann,wave_test,0,copied\nann,bonus,1.5,talk\nbob,why,4,oral\nzoe,bonus,1,?\n"
    )
    for _ in range(2):
        rows, told = again()
        assert (rows["ann"]["points"], rows["ann"]["wave_test"], rows["ann"]["changes"]) == ("5", "0", "1.5")
        assert (rows["bob"]["written"], rows["bob"]["total"]) == ("4", "10")
        assert "overrides.csv: 1 row(s) belong to no submission: zoe, bonus" in told
    page = (out / "feedback" / "ann.html").read_text()
    assert "+1.5 for bonus (talk)" in page
    assert "0 points given by a person: copied" in page
    (out / "overrides.csv").write_text("student,item,points,reason\nann,bonus,many,?\n")
    with pytest.raises(ValueError, match="points of ann, bonus must be a number, got 'many'"):
        grade(tmp_path / "in", tmp_path / "tiny.ipynb", out)
    (out / "overrides.csv").unlink()
    assert "by hand" not in again()[1]
    text = (out / "grades.csv").read_text(encoding="utf-8-sig")
    (out / "grades.csv").write_text(text.replace("ann,,1000,tiny,6", "ann,,1000,tiny,99"))
    _, told = again()
    assert "grades.csv was changed by hand: kept as grades-edited-1.csv" in told
    assert ",99," in (out / "grades-edited-1.csv").read_text()
    assert not (out / "grades-edited-2.csv").exists()
    assert "by hand" not in again()[1]


def test_ids_bring_names_and_tell_what_is_odd(tmp_path, near):
    again = class_of(tmp_path)
    (tmp_path / "ids.csv").write_text("student,assignment,id\nAnn Lee,tiny,1000\nBob Ray,tiny,1001\n")
    shutil.copy(tmp_path / "in" / "bob.ipynb", tmp_path / "in" / "dan.ipynb")
    rows, _ = again("--ids", str(tmp_path / "ids.csv"))
    assert [(row["name"], row["id"]) for row in rows.values()] == [
        ("Ann Lee", "1000"),
        ("Bob Ray", "1001"),
        ("", "1002"),
        ("Bob Ray", "1001"),
    ]
    assert "The id 1001 of this copy stands in 2 submissions" in rows["dan"]["remarks"]
    assert "The id 1002 of this copy was given to nobody" in rows["cy"]["remarks"]
    assert rows["ann"]["remarks"] == ""


@pytest.mark.parametrize(
    ("latex", "wanted"),
    [
        (r"x<1 \text{<script>}", "&lt;script&gt;"),
        (r"\operatorname{Cov}\lVert x\rVert", "<mo>Cov</mo>"),
        (r"\left(", "<code>"),
    ],
)
def test_formulas_are_drawn_and_run_nothing(latex, wanted):
    for text in (f"see ${latex}$.", f"$$\n{latex}\n$$"):
        page = rendered(text)
        assert wanted in page
        assert "<script" not in page


@pytest.mark.parametrize("text", ["[a](javascript:alert(1))", "<img src=x onerror=alert(1)>", "![a](http://b/c.png)"])
def test_markdown_of_students_runs_and_fetches_nothing(text):
    page = rendered(text)
    assert "<img" not in page
    assert 'href="javascript' not in page


def test_what_would_take_the_square_of_its_length_to_read_is_shown_as_it_is():
    assert rendered("[" * 10**6) == f"<pre>{'[' * 10**6}</pre>"
    assert rendered("<b>" * 10**5).startswith("<pre>&lt;b&gt;")


# What a submission could spoil


def test_an_id_with_zeros_in_front_stops_nothing():
    for line in ("ID = 007", "ID = ٧"):
        copy = solved()
        copy.cells[1]["source"] = line
        assert "ID = 7" in [part.code for part in nb.merge(tiny(), copy)[0]], line


def test_a_name_that_looks_like_the_page_of_another_gets_another_page():
    page = slug("bob!")
    assert slug(page) != page
    assert slug("bob") == "bob"


def test_what_a_patched_shell_says_is_text_of_a_size():
    long = (
        "get_ipython().run_cell = lambda *a, **k: type('R', (), {'error_before_exec': type('x' * 10**6, (), {})()})()"
    )
    report = mark(tiny(), solved(twice=f"{long}\n{SOLVED}"), limits=SHORT)
    assert report.errors
    assert all(len(what) <= 2000 for _, what in report.errors)

"""Assignments: student copies do not leak, marks depend on answers alone, and no submission ends a batch."""

import csv
import dis
import functools
import json
import os
import re
import site
import socket
import sys
import threading
import unicodedata
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
from typer.testing import CliRunner

import teachkit
from teachkit.cli import app
from teachkit.course.assignments import (
    Limits,
    build,
    check,
    feedback,
    grade,
    mark,
    rules,
    summary,
    tables,
    testing,
    written,
)
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.names import names_in
from teachkit.course.assignments.process import NoSandbox, Sandbox
from teachkit.course.assignments.report import Report, Score, Written
from teachkit.course.assignments.sandbox import audit_hook, readable
from teachkit.course.assignments.values import Refused
from teachkit.course.assignments.wire import Peer, RemoteError, Stopped

from .assignments.tiny import SHORT, SOLVED, cell, solved, tiny

pytestmark = pytest.mark.usefixtures("warm")
build_module = sys.modules["teachkit.course.assignments.build"]
SOURCES = Path(__file__).resolve().parents[1] / "notebooks" / "assignments"


# Student copies


@pytest.mark.slow
def test_a_copy_says_which_version_made_it_and_feedback_when_another_marks(tmp_path):
    assert nb.student_copy(tiny()).metadata["teachkit"] == teachkit.__version__
    given = solved()
    assert not mark(tiny(), given).notes
    given.metadata["teachkit"] = "0.1"
    given.cells.append(new_code_cell("from teachkit import plots"))
    given.cells.append(new_code_cell("from teachkit.widgets import solver_lab"))
    report = mark(tiny(), given)
    (note,) = report.notes
    assert f"made with teachkit 0.1, and marked by {teachkit.__version__}" in note
    assert note.replace("'", "&#39;") in feedback.page(report)
    moved = [what for _, what in report.errors]
    assert "write `from teachkit.course import plots`" in moved[0]
    assert "write `from teachkit.course import widgets`" in moved[1]
    assert report.points == report.maximum, "what does not need the old names still counts"


def test_an_old_set_up_cell_says_what_has_moved(tmp_path):
    given = solved()
    (first, *_) = (c for c in given.cells if nb.role(c) == "setup")
    first["source"] = "from teachkit import plots\n" + first.source
    given.metadata["teachkit"] = "0.1"
    nbformat.write(given, tmp_path / "old.ipynb")
    with pytest.raises(ValueError, match=r"set-up cell .*`from teachkit\.course import plots"):
        check(tmp_path / "old.ipynb")


def test_student_copies_show_nothing(tmp_path):
    source = tiny()
    secret = new_code_cell("1 + 1", outputs=[nbformat.v4.new_output("stream", text="the answer is 2 * x")])
    source.cells.append(secret)
    for c in source.cells:
        c.metadata["answer"] = "return 2 * x"
        c["attachments"] = {"a.txt": {"text/plain": "return 2 * x"}}
    source.metadata["hint"] = "return 2 * x"
    folder = tmp_path / "in"
    folder.mkdir()
    for c in source.cells:  # attachments are not valid in code cells
        if c.cell_type == "code":
            del c["attachments"]
    nbformat.write(source, folder / "tiny.ipynb")
    (path,) = build(folder, tmp_path / "out")
    text = path.read_text()
    for word in ("2 * x\\n    ###", "return 2", "hid", "x + x", "rubric", "SOLUTION", "HIDDEN", "answer is", "attach"):
        assert word not in text, word
    copy = nbformat.read(path, 4)
    nbformat.validate(copy)
    locked = [c for c in copy.cells if nb.role(c) in ("setup", "test", "text")]
    assert len(locked) == 6
    assert all(c.metadata.editable is False for c in locked)
    assert [nb.grade_id(c) for c in copy.cells] == [nb.grade_id(c) for c in source.cells]


def test_leaks_are_found():
    source = tiny()
    assert not rules.leaks(source, nbformat.writes(nb.student_copy(source)))
    assert rules.leaks(source, "... return f(x) + 1 ...") == ["return f(x) + 1"]
    assert rules.leaks(source, json.dumps("a\nBecause the rubric says so."))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("twice", {"source": "def twice(x):\n    ### BEGIN SOLUTION\n    return 1"}, "do not pair up"),
        ("twice", {"source": "def twice(x): ..."}, "an answer needs"),
        ("twice_test", {"points": 0}, "points belong to graded cells"),
        ("twice_test", {"locked": False}, "answers are not locked"),
        ("setup", {"locked": False}, "must hold the number of the copy"),
        ("twice_test", {"grade_id": "wave_test"}, "more than once"),
        ("twice_test", {"grade_id": "a b"}, "grade_id of letters"),
        ("wave_test", {"source": "y = unheard_of(1)"}, "'unheard_of', which neither"),
        ("setup", {"source": "\nimport os\n%run a.py"}, r"cell 'setup', line 3 \(%run a.py\): %run needs a notebook"),
        ("setup", {"source": "%%time\nx = 1 +"}, r"cell 'setup', line 2 \(x = 1 \+\): invalid syntax"),
        ("setup", {"source": "%%bash\nls"}, r"cell 'setup', line 1 \(%%bash\): %%bash needs a notebook"),
        ("wave_test", {"source": "# A test\nreturn 1"}, r"cell 'wave_test', line 2 \(return 1\): 'return' outside"),
        ("setup", {"source": "### BEGIN HIDDEN TESTS\n1\n### END HIDDEN TESTS"}, "belong into test cells"),
    ],
)
def test_faulty_sources_are_refused(name, change, message):
    source = tiny()
    target = next(c for c in source.cells if nb.grade_id(c) == name)
    target["source"] = change.pop("source", target.source)
    target.metadata.nbgrader.update(change)
    with pytest.raises(ValueError, match=message):
        rules.validate(source)


def test_build_refuses_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="must hold notebooks"):
        build(tmp_path, tmp_path / "out")
    nbformat.write(tiny(), tmp_path / "tiny.ipynb")
    with pytest.raises(ValueError, match="another folder"):
        build(tmp_path, tmp_path)


def test_student_copies_keep_pictures_and_raw_cells(tmp_path):
    source = tiny()
    source.cells[0] = cell("intro", "![f](attachment:f.png) ![g](attachment:g%201.png) ![h](figs/h.png)", "markdown")
    attached = {name: {"image/png": PNG} for name in ("f.png", "g 1.png", "unused.png")}
    source.cells[0]["attachments"] = attached
    why = next(c for c in source.cells if nb.grade_id(c) == "why")
    why["source"] = why.source.replace("Because", "![s](attachment:s.png) Because")
    why["attachments"] = {"s.png": {"image/png": PNG}}
    source.cells.append(new_raw_cell("as it is"))
    folder = tmp_path / "in"
    (folder / "figs").mkdir(parents=True)
    nbformat.write(source, folder / "tiny.ipynb")
    with pytest.raises(ValueError, match=r"tiny.ipynb: shows figs/h.png, which must be a picture in the folder"):
        build(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folder / "figs" / "h.png").write_bytes(b"PNG")
    (path,) = build(folder, tmp_path / "out")
    copy = nbformat.read(path, 4)
    nbformat.validate(copy)
    assert {n: list(c.attachments) for n, c in enumerate(copy.cells) if "attachments" in c} == {0: ["f.png", "g 1.png"]}
    assert (copy.cells[-1].cell_type, copy.cells[-1].source) == ("raw", "as it is")
    assert (tmp_path / "out" / "figs" / "h.png").read_bytes() == b"PNG"
    source.cells[0]["source"] += " ![k](attachment:k.png)"
    with pytest.raises(ValueError, match=r"cell 'intro': shows attachment:k.png, which is not attached to it"):
        rules.validate(source)
    for link in ("../tiny.png", "/etc/passwd", "tiny.ipynb"):
        source.cells[0]["source"] = f"![h]({link})"
        nbformat.write(source, folder / "tiny.ipynb")
        with pytest.raises(ValueError, match="must be a picture in the folder of the source"):
            build(folder, tmp_path / "out")


def test_every_student_gets_a_copy_with_an_id_of_their_own(tmp_path):
    nbformat.write(tiny(), tmp_path / "tiny.ipynb")
    build(tmp_path / "tiny.ipynb", tmp_path / "out", ["Ann Lee", "=bob"])
    first = build_module.read_ids(tmp_path / "out" / "ids.csv")
    for name in ("Ann Lee", "=bob"):
        copy = nb.read(tmp_path / "out" / name / "tiny.ipynb")
        assert nb.copy_id(copy) == first[name, "tiny"] != 2027
        assert "# of this copy" in copy.cells[1].source
    build(tmp_path / "tiny.ipynb", tmp_path / "out", ["cy", "Ann Lee"])
    ids = build_module.read_ids(tmp_path / "out" / "ids.csv")
    assert len(set(ids.values())) == 3
    assert ids.items() > first.items()
    (alone,) = build(tmp_path / "tiny.ipynb", tmp_path / "alone")
    assert nb.copy_id(nb.read(alone)) in build_module.IDS
    assert not (tmp_path / "alone" / "ids.csv").exists()
    for name in ("", "..", "a/b", " a"):
        with pytest.raises(ValueError, match="students must be names that a folder can bear"):
            build(tmp_path / "tiny.ipynb", tmp_path / "out", [name])


# Putting a submission together


def test_locked_cells_come_from_the_source():
    given = solved()
    given.cells = [c for c in given.cells if nb.grade_id(c) != "setup"]
    for c in given.cells:
        if nb.grade_id(c) == "twice_test":
            c["source"] = "assert True"
    parts, notes = nb.merge(tiny(), given)
    assert parts[0].code == tiny().cells[2].source
    assert not any("assert True" in p.code for p in parts)
    assert any("twice_test was changed" in n for n in notes)
    assert any("setup is missing" in n for n in notes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_editors_do_to_files_is_no_change(tmp_path, encoding):
    given = solved()
    for c in given.cells:
        c["source"] = "\r\n".join(f"{line}  " for line in c.source.splitlines()) + "\r\n"
    (tmp_path / "a.ipynb").write_bytes(nbformat.writes(given).replace("\n", "\r\n").encode(encoding))
    parts, notes = nb.merge(tiny(), nb.read(tmp_path / "a.ipynb"))
    assert not notes
    assert [p.label for p in parts] == ["id", "setup", "twice", "wave", "level", "cell 12"]


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        (["why:Because."], "Because."),
        (["why:*Your answer here.*", ":Because."], "Because."),
        (["why:Because,", "why:and so."], "Because,\n\nand so."),
        (["why:Twice.", "why:Twice."], "Twice."),
        ([":Because."], "Because."),
        (["why:", ":"], ""),
    ],
)
@pytest.mark.parametrize("metadata", [True, False])
def test_written_answers_are_found_where_students_put_them(cells, text, metadata):
    given = solved()
    where = next(i for i, c in enumerate(given.cells) if nb.grade_id(c) == "why")
    given.cells[where : where + 1] = [
        cell("why", c[4:], "markdown") if c[0] == "w" else new_markdown_cell(c[1:]) for c in cells
    ]
    given.cells.insert(2, new_markdown_cell("A note."))
    given.cells.append(new_markdown_cell("Another, after a cell of the source."))
    for c in given.cells:
        if not metadata:
            c["metadata"] = {}
    assert nb.written_answers(tiny(), given) == {"why": text}


WORDS = "Because the mean is what minimises it."
ELSEWHERE = {
    "comment": new_code_cell(f"x = 1\n# {WORDS}"),
    "comment alone": new_code_cell(f"# {WORDS}"),
    "comment after a shell line": new_code_cell(f"!ls it's\nx = 1  # {WORDS}"),
    "string": new_code_cell(f'"""{WORDS}"""'),
    "one word": new_code_cell("print('Because.')"),
    "variable": new_code_cell(f"answer = '{WORDS}'"),
    "f-string": new_code_cell(f"print(f'{WORDS} {{1 + 1}}')"),
    "prose in a cell of code": new_code_cell(WORDS),
    "cell magic": new_code_cell(f"%%markdown\n{WORDS}"),
    "raw": new_raw_cell(WORDS),
    "markdown": new_markdown_cell(WORDS),
    "formula": new_markdown_cell("$$p = 1 / 2$$"),
    "Chinese": new_code_cell("# 因为p(x)最大。"),
    "printed": new_code_cell("x = words()", outputs=[new_output("stream", name="stdout", text=f"{WORDS}\n")]),
    "shown": new_code_cell("words", outputs=[new_output("execute_result", {"text/plain": repr(WORDS)})]),
}


@pytest.mark.parametrize("place", ["below", "end", "start"])
@pytest.mark.parametrize("words", ELSEWHERE)
def test_written_answers_elsewhere_are_undecided(words, place):
    """Neither 0 nor lost: the person who marks gets the words, and where they stand."""
    given = solved(why=nb.WRITTEN_STUB)
    where = next(i for i, c in enumerate(given.cells) if nb.grade_id(c) == "why") + 1
    given.cells.insert({"below": where, "end": len(given.cells), "start": 0}[place], ELSEWHERE[words])
    (answer,), notes = written.collect(tiny(), given)
    assert answer.points is None
    expected = {"one word": "Because.", "formula": "p = 1 / 2", "Chinese": "因为"}.get(words, WORDS)
    assert expected in answer.text
    assert answer.text.startswith("[") == ("\n\n[cell" in answer.text), "each piece is a paragraph, with its place"
    in_place = place == "below" and ELSEWHERE[words].cell_type != "code"
    assert notes == [] if in_place else re.fullmatch(r"why: nothing in its cell, but words in cell \d+ .*", *notes)


def test_words_in_answers_and_locked_cells_are_found():
    for name in ("twice", "why_text", "setup", "twice_test"):
        given = solved(why="")
        for c in given.cells:
            if nb.grade_id(c) == name:
                c["source"] += f"\n# {WORDS}"
        (answer,), notes = written.collect(tiny(), given)
        assert answer.points is None
        assert WORDS in answer.text
        assert len(notes) == 1


def test_nothing_written_is_zero_with_a_remark():
    given = solved(
        why="", twice="# your code here\ndef twice(x):\n    return {'mode': 'euler', 'x': 2 * x}['x']  # :-)"
    )
    given.cells.append(
        new_code_cell("wave(f, x)", outputs=[new_output("execute_result", {"text/plain": "tensor([1.])"})])
    )
    given.cells.append(new_markdown_cell(" "))
    for c in given.cells:
        if nb.grade_id(c) == "wave":
            c["outputs"] = [new_output("stream", name="stderr", text="UserWarning: all of it"), new_output("error")]
    (answer,), notes = written.collect(tiny(), given)
    assert (answer.text, answer.points, notes) == ("", 0, ["why: no answer was found."])


def test_the_answer_to_one_question_is_none_to_another():
    source = tiny()
    extra = cell(
        "how", "### BEGIN SOLUTION\nSo.\n### END SOLUTION", "markdown", grade=True, solution=True, locked=False
    )
    extra.metadata.nbgrader["points"] = 1
    source.cells += [cell("how_text", "How?", "markdown"), extra]
    given = nb.student_copy(source)
    next(c for c in given.cells if nb.grade_id(c) == "why")["source"] = WORDS
    (why, how), notes = written.collect(source, given)
    assert (why.text, why.points, how.text, how.points) == (WORDS, None, "", 0)
    assert notes == ["how: no answer was found."]
    given = nb.student_copy(source)
    given.cells.append(new_markdown_cell(WORDS))  # at the end, which is also the place of the last question
    (why, how), notes = written.collect(source, given)
    assert (why.points, how.points, how.text) == (None, None, WORDS)
    assert WORDS in why.text
    assert notes == ["why: nothing in its cell, but words in cell 15 (markdown): a person must look for the answer."]


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("![f](attachment:f.png)", "f.png"),
        ("![my photo](<attachment:my photo (1).png>)", "my photo (1).png"),
        ("![my photo](attachment:my%20photo%20%281%29.png)", "my photo (1).png"),
        ("<img src='attachment:李.png' width=100>", "李.png"),
        ("![1]\n\n[1]: attachment:f.png", "f.png"),
        (f"![f](data:image/png;base64,{PNG})", ""),
        (f'<img alt="f" src="data:image/png;base64,{PNG}">', ""),
    ],
)
@pytest.mark.parametrize("place", ["its cell", "below", "end"])
def test_pictures_as_answers_reach_the_person_who_marks(text, file, place):
    given = solved(why=text if place == "its cell" else "")
    where = next(i for i, c in enumerate(given.cells) if nb.grade_id(c) == "why")
    if place != "its cell":
        given.cells.insert({"below": where + 1, "end": len(given.cells)}[place], new_markdown_cell(text))
    target = next(c for c in given.cells if text in c.source)
    if file:
        target["attachments"] = {file: {"image/png": PNG}, "other.png": {"image/png": "AAAA"}}
    (answer,), _ = written.collect(tiny(), given)
    assert answer.points is None
    assert list(answer.pictures.values()) == [f"data:image/png;base64,{PNG}"]
    (label,) = answer.pictures
    assert label in answer.text
    assert PNG not in answer.text
    page = feedback.page(Report.from_dict(json.loads(json.dumps(Report("a", "b", written=[answer]).to_dict()))))
    assert f'<img src="data:image/png;base64,{PNG}"' in page
    for c in given.cells:  # another picture is another answer
        c["source"] = c.source.replace(PNG, "AAAA")
        c["attachments"] = {file: {"image/png": "AAAA"}}
    (other,), _ = written.collect(tiny(), given)
    assert tables.version(other.text) != tables.version(answer.text)


def test_a_plot_below_the_question_is_an_answer():
    given = solved(why="")
    where = next(i for i, c in enumerate(given.cells) if nb.grade_id(c) == "why")
    plot = new_output("display_data", {"image/png": PNG, "text/plain": "<Figure size 640x480 with 1 Axes>"})
    given.cells.insert(where + 1, new_code_cell("ax.plot(x)", outputs=[plot]))
    (answer,), (note,) = written.collect(tiny(), given)
    assert (answer.points, list(answer.pictures.values())) == (None, [f"data:image/png;base64,{PNG}"])
    assert "words in cell 12 (picture)" in note


@pytest.mark.parametrize(
    "text", ["![f](attachment:f.png)", "![f](photo.jpg)", "<img src=photo.jpg>", "![f](data:image/heic;base64,AAAA)"]
)
def test_pictures_that_nobody_will_see_are_told_of(text):
    (answer,), (note,) = written.collect(tiny(), solved(why=text))
    assert answer.points is None
    assert re.match(r"why: the picture (f.png|photo.jpg|image/heic) is (not in|a link to what is not in)", note)
    assert answer.pictures == {}


@pytest.mark.parametrize("held", [{"f.png": {"image/png": data}} for data in ([3], '"<', "", {})] + [{"f.png": {}}])
def test_malformed_pictures_are_none(tmp_path, held):
    given = solved(why="![f](attachment:f.png)")
    for c in given.cells:
        c["attachments"] = held
    (tmp_path / "a.ipynb").write_text(json.dumps(given))
    (answer,), _ = written.collect(tiny(), nb.read(tmp_path / "a.ipynb"))
    assert (answer.points, answer.pictures) == (None, {})


def test_cells_of_another_type_are_told_of():
    given = solved()
    for i, c in enumerate(given.cells):
        if nb.grade_id(c) == "twice":
            given.cells[i] = new_markdown_cell(c.source, metadata=c.metadata)
        if nb.grade_id(c) == "why":
            given.cells[i] = new_code_cell(c.source, metadata=c.metadata)
    parts, notes = nb.merge(tiny(), given)
    assert notes == ["The cell twice is not a code cell any more; it was not run."]
    assert not {"twice", "why"} & {p.role for p in parts}
    assert "Because." not in [p.code for p in parts]
    assert nb.written_answers(tiny(), given) == {"why": "Because."}


def test_names_that_a_test_reads():
    code = "import a.b as c\nfor i in f(i):\n    g = lambda z: z + h\n    def k(m): return m\nexcept_ = [u for u in v]"
    assert names_in(code) == {"f", "h", "v"}


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe\x00", b'{"cells": 3}', b"[" * 100_000])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    (tmp_path / "a.ipynb").write_bytes(content)
    with pytest.raises(ValueError, match="not a Jupyter notebook"):
        nb.read(tmp_path / "a.ipynb")


def test_large_files_are_refused(tmp_path):
    with (tmp_path / "a.ipynb").open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(ValueError, match="100 MB, more than the 20 MB"):
        nb.read(tmp_path / "a.ipynb")


# What tests are written with


def test_inputs_vary_with_the_cohort(monkeypatch):
    draws = set()
    for seed in (None, "1", "2"):
        monkeypatch.delenv("TEACHKIT_COHORT", raising=False)
        if seed:
            monkeypatch.setenv("TEACHKIT_COHORT", seed)
        draws.add(torch.rand(1, generator=testing.generator("a")).item())
        assert torch.rand(1, generator=testing.generator("a")).item() in draws
    assert len(draws) == 3
    monkeypatch.setenv("TEACHKIT_COHORT", "x")
    with pytest.raises(ValueError, match="TEACHKIT_COHORT must be an integer"):
        testing.cohort()
    with testing.seeded(5):
        assert testing.cohort() == 5
    monkeypatch.delenv("TEACHKIT_COHORT")
    with testing.seeded(5), testing.seeded(6):
        assert testing.cohort() == 6
    assert "TEACHKIT_COHORT" not in os.environ  # as it was: child processes are given what there is
    assert testing.cohort() == 0


def test_expect_says_what_differs_but_not_the_value():
    testing.expect("x", np.float32(2.0), torch.tensor(2.0))
    for got in (None, ..., 3.0, "2", torch.ones(2), float("nan"), [1, [2]], {}, object()):
        with pytest.raises(AssertionError, match=r"^x: ") as raised:
            testing.expect("x", got, 2.125)
        assert "2.125" not in str(raised.value)


@pytest.mark.parametrize(
    ("got", "expected", "message"),
    [
        (1.0 + 3e-5, 1.0, "off by 3e-05, which is 3e-05 of the right value; 1e-06 is allowed"),
        ([1.0, 2.0], [1.0, 2.001], "50% of the values are off, by up to 0.001, which is 0.0005 of the largest"),
        (0.5, 0.0, "off by 0.5; 1e-08 is allowed"),
        ([1, 2], [1, 2, 3], r"expected a list of shape \(3,\), got a list of shape \(2,\)"),
        ([[1], [2, 3]], [1.0, 2.0], "got a list that is no table of numbers"),
        (None, [1.0], "not answered yet"),
    ],
)
def test_messages_show_error_and_tolerance(got, expected, message):
    with pytest.raises(AssertionError, match=message):
        testing.expect("x", got, expected, rtol=1e-6)


def test_several_says_what_it_got():
    assert testing.several("both", [1, 2], 2) == [1, 2]
    for got, message in [(None, "not answered yet"), ([1], "got a list of 1"), (3.0, "got a float")]:
        with pytest.raises(AssertionError, match=rf"^both: .*{message}"):
            testing.several("both", got, 2)


def test_score_from_ratio():
    def points(ratio):
        return testing.score_from_ratio(ratio, full=0.25, none=1.0, points=4)

    ratios = [0.0, 0.2, 0.25, 0.5, 1.0, 3.0, float("inf"), float("nan"), -1.0]
    assert [points(r) for r in ratios] == [4, 4, 4, 2, 0, 0, 0, 0, 0]
    assert points(0.5).ratio == 0.5
    assert repr(points(0.5)) == "2.0"  # nbgrader reads it from the output
    with pytest.raises(ValueError, match="0 < full < none"):
        testing.score_from_ratio(1.0, full=1.0, none=0.5, points=1)


@pytest.mark.parametrize("name", ["Empirical", "GaussianMixture", "solvers.Heun.step", "GaussianMixture.log_prob"])
def test_forbid_refuses_and_restores(name):
    """What a class makes itself and what it inherits."""
    *owner, last = name.split(".")
    owner = functools.reduce(getattr, owner, teachkit)
    found, own = getattr(owner, last), dict(vars(owner))
    inner = dict(vars(found)) if isinstance(found, type) else None
    with testing.forbid(name):
        assert testing.forbidden() == [name]
        with pytest.raises(AssertionError, match="write it yourself"):
            getattr(owner, last)(torch.zeros(1, 1))
    assert not testing.forbidden()
    assert dict(vars(owner)) == own
    assert inner is None or dict(vars(found)) == inner


def test_forbid_knows_modules_and_functions_under_other_names():
    from teachkit import sample as other_name
    from teachkit.geometry import align

    D, x, sigmas = teachkit.GaussianMixture([1.0], [[0.0]], 1.0), torch.ones(1, 1).double(), torch.tensor([2.0, 1.0])
    with testing.forbid("geometry", "sample"):
        for called in (lambda: align(1, 2), lambda: teachkit.geometry.norms(x), lambda: other_name(D, x, sigmas)):
            with pytest.raises(AssertionError, match=r"teachkit\.(geometry\.\w+|sample) is not allowed"):
                called()
    assert other_name(D, x, sigmas.double()).final.shape == (1, 1)
    call = testing.unaided("geometry")
    with pytest.raises(AssertionError, match="not answered yet"):
        call(lambda y: [y.zero_(), None][1], x)
    assert x == 1, "the answer got a tensor of its own"


# The line between the processes


@pytest.fixture
def line():
    """A Peer whose other side, in a thread, echoes and calls back."""
    near, far = socket.socketpair()
    handlers = {"echo": lambda value: value, "call_it": lambda f, x: f(x), "bad": lambda: 1 / 0}
    thread = threading.Thread(target=Peer(far, handlers).serve, daemon=True)
    thread.start()
    yield Peer(near, {})
    near.close()
    thread.join(5)
    far.close()


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 2.5, "ä\ud800"[:1], [1, (2, None)], {"a": [1.5]}, ..., float("inf")),
        *(torch.zeros(0, 3), torch.arange(6).view(2, 3).T, torch.tensor(1.5, dtype=torch.bfloat16)),
        *(torch.tensor([1 + 2j]).conj(), torch.ones(2, requires_grad=True), torch.tensor([True])),
        *(np.eye(3, dtype=np.float32)[::2], np.float64(2), np.int8(3)),
    ],
    ids=str,
)
def test_plain_values_cross_unchanged(line, value):
    got = line.request("echo", 5, value=value)
    assert type(got) is type(value)
    if isinstance(value, (torch.Tensor, np.ndarray)):
        assert got.dtype == value.dtype
        assert got.shape == value.shape
        assert bool((got == value).all())
    else:
        assert got == value


def test_generators_functions_and_errors_cross(line):
    rng = torch.Generator().manual_seed(3)
    torch.rand(5, generator=rng)
    twin = line.request("echo", 5, value=rng)
    assert torch.equal(torch.rand(3, generator=twin), torch.rand(3, generator=rng))
    assert line.request("call_it", 5, f=lambda x: x + 1, x=2) == 3
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        line.request("bad", 5)
    with pytest.raises(RemoteError, match=r"^ZeroDivisionError"):  # through both sides, named once
        line.request("call_it", 5, f=lambda x: x / 0, x=2)

    class Sly(str):
        def __eq__(self, other):
            return True

    assert type(line.request("echo", 5, value=object())).__name__ == "object"
    assert type(line.request("echo", 5, value=Sly("a"))) is str
    nested = []
    nested.append(nested)
    with pytest.raises(Refused, match="too deeply"):
        line.request("echo", 5, value=nested)


@pytest.mark.parametrize(
    "tree",
    [
        *({"$": "tensor", "dtype": "float32", "shape": [5], "data": ""}, {"$": "array", "dtype": "O", "shape": [1]}),
        *({"$": "array", "dtype": "<f8", "shape": [10**30], "data": "AAAA"}, {"$": []}, {"a": 1}, {"$": "tuple"}),
        *({"$": "known", "number": 0}, {"$": "new", "number": 5, "value": []}, {"$": "dict", "items": [[[], 1]]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("changes", [[], [[0, 1]]], ids=["", "changes"])
def test_malformed_messages_are_refused(tree, changes):
    near, far = socket.socketpair()
    text = json.dumps({"$": "message", "op": "reply", "changes": changes, "value": None if changes else tree}).encode()
    far.sendall(len(text).to_bytes(8, "big") + text)
    with pytest.raises(Refused, match="malformed"):
        Peer(near, {}).request("anything", 5)
    near.close()
    far.close()


@pytest.fixture
def answers():
    """A Peer that calls functions of the other side, as a test does those of a student."""
    near, far = socket.socketpair()
    student = Peer(far, {}, trusting=True)
    threading.Thread(target=student.serve, daemon=True).start()
    test = Peer(near, {})

    def remote(function):
        student._values.functions.append(function)
        return test._remote(len(student._values.functions) - 1, function.__name__)

    yield remote
    near.close()
    far.close()


def test_what_is_handed_over_stays_one_object(answers):
    """Changes of lists, dicts, tensors, arrays and generators arrive, and what comes back is known again."""

    def change(numbers, table, x, a, rng):
        numbers.append(len(numbers))
        table[2, "b"] = x
        x.mul_(2)
        a[0] = 7
        torch.rand(1, generator=rng)
        return x

    change = answers(change)
    numbers, table, x, a = [0], {(1, "a"): None}, torch.ones(2), np.zeros(2)
    rng, twin = (torch.Generator().manual_seed(1) for _ in range(2))
    for times in (1, 2):
        assert change(numbers, table, x, a, rng) is x
        torch.rand(1, generator=twin)
        assert numbers == [*range(times + 1)]
        assert table.keys() == {(1, "a"), (2, "b")}
        assert table[2, "b"] is x
        assert (x.tolist(), a.tolist()) == ([2.0**times] * 2, [7, 0])
        assert torch.equal(rng.get_state(), twin.get_state())
    x.zero_()  # and the other way round
    assert change(numbers, table, x, a, rng).tolist() == [0, 0]


def test_a_memory_that_the_answer_keeps_is_the_one_that_it_gave(answers):
    class Own:
        count = 0

    kept = [torch.zeros(1)]

    def give(fresh):
        kept[0].add_(1)
        return Own() if fresh else kept

    def take(memory):
        memory.count += 1
        return memory.count

    give, take = answers(give), answers(take)
    memory, own = give(False), give(True)
    assert memory[0].item() == 2, "the second call has changed what the first gave"
    assert give(False) is memory
    assert (take(own), take(own)) == (1, 2), "an object of a class of the student's comes back as itself"
    with pytest.raises(RemoteError, match="AttributeError"):
        take(object())


def test_every_tensor_and_key_travels(answers):
    same = answers(lambda value: [value][0])
    one = torch.tensor(1.5)
    for value in (one.expand(1), one.expand(3), torch.eye(3)[:, :1].T, one.expand(1, 1).to(torch.bfloat16)):
        copy = answers(lambda v: v.expand(1, *v.shape)[0])(value)
        assert torch.equal(copy, value)
    for keys in ((1, "1"), ((1, 2), None), (2.5, True)):
        got = answers(dict)(tuple((key, [key]) for key in keys))
        assert got == {key: [key] for key in keys}
    sparse = torch.eye(2).to_sparse()
    assert type(answers(lambda _: torch.eye(2).to_sparse())(sparse)).__name__ == "Tensor"
    assert same(1 + 2j) == 1 + 2j
    nested = []
    nested.append(nested)
    with pytest.raises(Refused, match="too deeply"):
        same(nested)
    assert same([1]) == [1], "a refusal leaves both sides in step"


def test_silence_and_size_are_limited():
    near, far = socket.socketpair()
    with pytest.raises(Stopped, match="out of time"):
        Peer(near, {}).request("anything", 0.2)
    far.sendall((2**40).to_bytes(8, "big"))
    with pytest.raises(Refused, match="too large"):
        Peer(near, {}).request("anything", 5)
    near.close()
    far.close()


# Marking


def test_mark_gives_points_for_what_is_right():
    given = solved(twice="def twice(x):\n    return 2 * x if x.dim() == 1 else 3 * x", level="level = 0.5**0.5")
    report = mark(tiny(), given, student="a", limits=SHORT)
    assert [s.points for s in report.scores] == [0, 1, 1.5]  # the hidden test found it
    assert "twice of a matrix" in report.scores[0].message
    assert report.scores[2].ratio == pytest.approx(0.5**0.5)
    assert report.written[0].text == "Because."
    assert report.written_points is None
    assert "free cell" in report.output
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


MAGICS = "!pip install x\n%pip install x\nfiles = !ls\n%matplotlib inline\n%matplotlib widget\n"
MAGICS += "%config InlineBackend.figure_format = 'retina'\n%load_ext autoreload\n%autoreload 2\n"


@pytest.mark.slow
@pytest.mark.parametrize("confined", [True, False])
def test_lines_for_a_notebook_cost_nothing_and_start_nothing(confined):
    report = mark(tiny(), solved(twice=MAGICS + SOLVED), limits=SHORT, confined=confined)
    assert (report.points, report.errors) == (6, [])
    assert "not run while an assignment is marked: pip install x" in report.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "magic", ["%%time\n", "\n%%capture\n", "%matplotlib inline\n", "!pip install x\nfiles = !ls\n"]
)
def test_magics_in_set_up_cells_and_tests(tmp_path, magic):
    source = tiny()
    for c in source.cells:
        if nb.role(c) in ("setup", "test"):
            c["source"] = magic + c.source + ("\n%autosave 5\n%conda install x" if "%%" not in magic else "")
    nbformat.write(source, tmp_path / "tiny.ipynb")
    (copy,) = build(tmp_path / "tiny.ipynb", tmp_path / "out")
    assert nb.read(copy).cells[2].source == source.cells[2].source
    report = mark(source, solved(), limits=SHORT)
    assert (report.points, report.errors) == (6, [])


def test_a_set_up_cell_that_fails_names_its_line():
    source = tiny()
    for last, message in [
        ("1 / 0", "ZeroDivisionError: division"),
        ("%run a.py", "SyntaxError: %run needs a notebook"),
    ]:
        source.cells[2]["source"] = f"import torch\n\n{last}"
        with pytest.raises(ValueError, match=rf"set-up cell setup fails in line 3 \({last}\): {message}"):
            mark(source, solved(), limits=SHORT)


@pytest.mark.slow
def test_processes_are_refused():
    report = mark(tiny(), solved(twice=f"import os\nos.system('ls')\n{SOLVED}"), limits=SHORT)
    assert report.points == 4
    assert "os.system is not allowed" in report.errors[0][1]


@pytest.mark.slow
def test_a_set_up_cell_that_fails_is_not_the_students_fault():
    source = tiny()
    source.cells[2]["source"] += "\nopen('/etc/passwd').close()"  # can be read here, and not by submissions
    with pytest.raises(NoSandbox, match="the set-up cell setup fails where submissions run"):
        mark(source, solved(), limits=SHORT)
    given = solved()
    given.cells.insert(0, new_code_cell("torch = 1"))  # now it might be
    assert mark(source, given, limits=SHORT).errors[0][0] == "setup"


@pytest.mark.slow
def test_submissions_find_the_packages_of_this_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "a"), prepend=os.pathsep)
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "USER_BASE", str(tmp_path / "b"))
    monkeypatch.setattr(site, "USER_SITE", str(tmp_path / "b" / "site-packages"))
    assert os.path.realpath(tmp_path / "b" / "site-packages") in readable("/scratch")
    assert os.path.realpath(tmp_path / "b") not in readable("/scratch")
    code = "import os, sys\nassert {!r} in sys.path\nassert os.environ['PYTHONUSERBASE'] == {!r}"
    with Sandbox(SHORT) as sandbox:
        assert sandbox.peer.request("run", 5, code=code.format(str(tmp_path / "a"), str(tmp_path / "b"))) is None


@pytest.mark.slow
def test_check_needs_no_source(tmp_path, recwarn):
    text = nbformat.writes(solved(wave="def wave(f, x):\n    return x"))
    (tmp_path / "tiny.ipynb").write_text(re.sub(r'"id": "\w+"', '"id": "a"', text))  # other editors know no ids
    outcome = CliRunner().invoke(app, ["assignments", "check", str(tmp_path / "tiny.ipynb")])
    assert outcome.exit_code == 1
    assert "5 of 6 visible points" in outcome.output
    assert "This is no grade yet" in outcome.output
    assert "a person gives 4 points for words" in outcome.output
    assert "✗ wave · Wave (0/1)" in outcome.output
    assert not any("id" in str(w.message) for w in recwarn)
    nbformat.write(new_notebook(), tmp_path / "empty.ipynb")
    with pytest.raises(ValueError, match="holds no tests"):
        check(tmp_path / "empty.ipynb")


@pytest.mark.slow
def test_mark_knows_forbidden_functions():
    source, given = (
        tiny(),
        solved(twice="import teachkit\ndef twice(x):\n    return teachkit.Empirical(x[:, None]) and 2 * x"),
    )
    test = next(c for c in source.cells if nb.grade_id(c) == "twice_test")
    test["source"] = (
        "from teachkit.course.assignments.testing import forbid\nwith forbid('Empirical'):\n    twice(torch.ones(2))"
    )
    report = mark(source, given, limits=SHORT)
    assert "write it yourself" in report.scores[0].message
    source.cells[2]["source"] = "1 / 0"
    with pytest.raises(ValueError, match="set-up cell setup fails"):
        mark(source, given, limits=SHORT)


# Tables and pages


def reports():
    first = Report("=Ann", "tiny", [Score("t", "T", "a", 1.5, 2, "off", 0.7)], [Written("w", "Why?", "=1+1", 4)])
    other = Report("Bob", "tiny", [Score("t", "T", "a", 2, 2, "", 0.5)], [Written("w", "Why?", "", 4, 0.0)])
    return [first, other, Report("Cy", "tiny", [Score("t", "T", "a", 0, 2)], failed=True, notes=["a\nb"])]


def test_tables(tmp_path):
    rows = list(csv.DictReader(tables.grades_csv(reports()).splitlines()))
    assert [r["student"] for r in rows] == ["'=Ann", "Bob", "Cy"]  # no formula for the spreadsheet
    assert [r["points"] for r in rows] == ["1.5", "2", ""]
    assert [r["written"] for r in rows] == ["", "0", ""]
    assert [r["student"] for r in json.loads(tables.leaderboard_json(reports()))] == ["Bob", "=Ann"]
    assert tables.leaderboard_json([]) is None
    path = tmp_path / "written.csv"
    path.write_text(tables.written_csv(reports()).replace("w,,4,", "w,3.5,4,well"))
    row = tables.read_written(path)["=Ann", "w"]
    assert (row["points"], row["comment"]) == ("3.5", "well")
    lost = tables.written_csv(reports()[1:], tables.read_written(path))  # her submission is gone, the work on it is not
    assert "'=Ann,w,3.5,4,well" in lost
    path.write_text(tables.written_csv(reports()).replace("w,,4,", "w,5,4,"))
    with pytest.raises(ValueError, match="Ann, w must be a number from 0 to 4"):
        tables.read_written(path)


def test_written_points_from_spreadsheets(tmp_path):
    path, text = tmp_path / "written.csv", tables.written_csv(reports())
    path.write_text(text.replace(",", ";").replace("w;;4;", "w;3,5;4;schön"), encoding="utf-8-sig")
    row = tables.read_written(path)["=Ann", "w"]
    assert (row["points"], row["comment"]) == ("3.5", "schön")
    path.write_bytes(text.replace("w,,4,", "w,3.5,4,schön").encode("cp1252"))
    with pytest.raises(ValueError, match="is not in UTF-8: save it as 'CSV UTF-8'"):
        tables.read_written(path)
    path.write_text(text.replace("question", "q"))
    with pytest.raises(ValueError, match="no column 'question'"):
        tables.read_written(path)
    path.write_text(text.replace(",version", ""))  # of an older release
    assert tables.read_written(path)["=Ann", "w"]["version"] == ""


NAMES = [
    "'t Hooft", "'", "''", "=1+1", "'=1+1", "''=1+1", "+a", "-a", "@a", "\ta", "\ra", "\na", " =1+1", "#ref", "_",
    "ann", "Ann", "ann ", " ann", "O'Neil, J.; \"Jo\"", "Müller", unicodedata.normalize("NFD", "Müller"), "李", "x.y.z",
    "a\nb", "a\rb", "a\r\nb", "a\x0bb\u2028c", "007", "7", "NA", "1e5", "2024-01-02", os.fsdecode(b"\xff"), "a" * 100,
]  # fmt: skip


@pytest.mark.parametrize("folders", [False, True])
def test_points_arrive_whatever_the_name(tmp_path, monkeypatch, folders):
    def marked(source, student, files, limits, seed):
        return Report(student, "tiny", [Score("t", "T", "a", 1, 2)], [Written("why", "Why?", student, 4)])

    monkeypatch.setattr(sys.modules["teachkit.course.assignments.grade"], "mark_apart", marked)
    nbformat.write(tiny(), tmp_path / "tiny.ipynb")
    for name in NAMES:
        file = tmp_path / "in" / name / "tiny.ipynb" if folders else tmp_path / "in" / f"{name}.ipynb"
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text("")
    written = tmp_path / "out" / "written.csv"
    arguments = tmp_path / "in", tmp_path / "tiny.ipynb", tmp_path / "out"
    first = grade(*arguments)
    assert len({r.student for r in first}) == len(NAMES) == len(list((tmp_path / "out" / "feedback").iterdir()))
    for _ in range(2):  # as the person does it, and then what grading wrote
        with written.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(NAMES)
        assert not [r for r in rows if r["student"].startswith(("=", "+", "-", "@", "\t", "\r"))]
        for number, row in enumerate(rows):
            row |= {"points": f"{number % 9 / 2:g}", "comment": f"no. {number}"}
        with written.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        reports = grade(*arguments)
        assert [r.student for r in reports] == [r.student for r in first]
        assert [(r.written[0].points, r.written[0].comment) for r in reports] == [
            (number % 9 / 2, f"no. {number}") for number in range(len(NAMES))
        ]
    assert len(list(csv.DictReader((tmp_path / "out" / "grades.csv").open(newline="", encoding="utf-8")))) == len(NAMES)


def test_points_arrive_where_a_spreadsheet_changed_the_name():
    """Apostrophes and spaces dropped, zeros gone; not if it could be another's, or was given for another answer."""

    def marked(*rows):
        return {(name, "w"): dict(zip(tables.COLUMNS, (name, "w", "3", "4", "", "x", v))) for name, v in rows}

    def given(*names):
        return [Report(name, "tiny", [], [Written("w", "", "answer", 4)]) for name in names]

    same, other = tables.version("answer"), tables.version("another")
    for name, changed in [("'t Hooft", "t Hooft"), ("ann ", "ann"), ("007", "7"), ("a\rb", "a\nb")]:
        assert tables.settle(marked((changed, same)), given(name))[name, "w"]["points"] == "3"
        assert tables.settle(marked((changed, other)), given(name)).keys() == {(changed, "w")}
        assert tables.settle(marked((changed, same), (name, same)), given(name)).keys() == {(changed, "w"), (name, "w")}
    assert tables.settle(marked(("7", same)), given("07", "007")).keys() == {("7", "w")}
    blank = {("'t Hooft", "w"): marked(("'t Hooft", same))["'t Hooft", "w"] | {"points": ""}}
    assert tables.settle(blank | marked(("t Hooft", same)), given("'t Hooft"))["'t Hooft", "w"]["points"] == "3"


def test_names_of_files_can_be_shown_and_stay_apart(tmp_path):
    for name in (b"\xff", rb"\udcff", "a\x1b[2J\u202eb".encode(), "Ümit Ş.".encode()):
        (tmp_path / os.fsdecode(name + b".ipynb")).write_text("{}")
    find = sys.modules["teachkit.course.assignments.grade"]._find
    found = [name for name, _ in find(tmp_path, tmp_path / "out")]
    assert found == [r"\\udcff", r"a\x1b[2J\u202eb", "Ümit Ş.", r"\udcff"]


def test_folders_too_deep_to_be_looked_into_hold_no_notebook(tmp_path, monkeypatch):
    def too_deep(*_):
        raise RecursionError

    (tmp_path / "ann").mkdir()
    monkeypatch.setattr(Path, "rglob", too_deep)
    find = sys.modules["teachkit.course.assignments.grade"]._find
    assert find(tmp_path, tmp_path / "out") == [("ann", [])]


def test_names_without_their_ending_stay_apart(tmp_path):
    find = sys.modules["teachkit.course.assignments.grade"]._find
    (tmp_path / "ann").mkdir()
    for name in ("ann.ipynb", "ann.ipynb.ipynb"):
        (tmp_path / name).write_text("")
    assert sorted(name for name, _ in find(tmp_path, tmp_path / "out")) == [
        "ann", "ann.ipynb", "ann.ipynb.ipynb",
    ]  # fmt: skip


def test_feedback_shows_markup_as_text():
    report = reports()[0]
    report.output = report.student = report.scores[0].message = report.written[0].text = "<script>alert(1)</script>"
    page = feedback.page(report)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "✗" in summary(report)


# A batch

INTERPRETERS = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
LEAVES_ITS_LIMITS = {  # name: code that must be refused, in Python alone
    "patches_builtins": "import builtins\nbuiltins.any = lambda _: True\nopen(SECRET)",
    "patches_paths": "import posixpath\nposixpath._joinrealpath = lambda *a, **k: ('/dev/null', True)\nopen(SECRET)",
    "patches_os": "import os\nos.fsdecode = lambda p: '/dev/null'\nopen(SECRET)",
    "lies": "class S(str):\n    startswith = lambda *_: True\nopen(S(SECRET))",
    "reads_below": "import os\nos.makedirs('x/y')\nos.chdir('x/y')\n"
    "os.open('../..' + SECRET, os.O_RDONLY, dir_fd=os.open('/usr/lib', os.O_RDONLY))",
    "makes_below": "import os\nos.mkdir('made', dir_fd=os.open('/usr/lib', os.O_RDONLY))",
    "links": "import os\nos.symlink(SECRET, 'link')",
    "other_files": "import os\nos.mkfifo(SECRET + '.fifo')",
    "memory_as_files": "import os\nos.memfd_create('more')",
    "processes": "import subprocess\nsubprocess._fork_exec()",
    "processes_anew": "import sys\ndel sys.modules['_posixsubprocess']\nimport _posixsubprocess",
    "signals": "import fcntl, os, socket\nfcntl.fcntl(socket.socket(), fcntl.F_SETOWN, os.getppid())",
    "signals_anew": "import _imp, importlib.machinery as m\n_imp.create_builtin(m.ModuleSpec('_signal', None))",
    "interpreters": f"import {INTERPRETERS} as i\ni.create()",
    "names_in_the_network": "import socket\nsocket.getaddrinfo('a.example', 80)",
    "datagrams": "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('127.0.0.1', 9))",
}


@pytest.mark.slow
def test_limits_are_left_by_no_patch_and_no_detour(tmp_path):
    (tmp_path / "secret").write_text("the solution")
    usual = """
import os, tempfile, pathlib
pathlib.Path('a').mkdir()
pathlib.Path('a/b').write_text('c')
with tempfile.TemporaryDirectory() as d:
    os.mkdir(d + '/a')
    open(d + '/a/b', 'w').close()
assert list(pathlib.Path('a').iterdir()) == [pathlib.Path('a/b')]
import scipy.signal, tqdm
list(tqdm.tqdm([1]))
import matplotlib.pyplot as p
p.plot([1])
p.savefig('a/b.png')
os.remove('a/b')
"""
    with Sandbox(SHORT) as sandbox:
        assert sandbox.peer.request("run", 30, code=usual) is None
        for name, code in LEAVES_ITS_LIMITS.items():
            told = sandbox.peer.request("run", 10, code=code.replace("SECRET", repr(str(tmp_path / "secret"))))
            assert re.search("PermissionError.* (not allowed|must be strings)", str(told)), (name, told)


def test_the_hook_uses_no_name_that_could_be_patched():
    hook = audit_hook("/scratch", ["/scratch", "/usr/lib"])
    code = hook.__code__
    assert code.co_freevars == ()
    assert not [
        i for i in dis.get_instructions(code) if "GLOBAL" in i.opname or i.opname in ("LOAD_NAME", "LOAD_DEREF")
    ]


ABUSES = {  # name: (answer to `twice`, points that are left for the rest)
    "endless_cell": ("while True: pass", 4),
    "endless_answer": ("def twice(x):\n    while True: pass", 4),
    "kernel_death": ("import os\nos._exit(0)", 4),
    "death_in_answer": ("import os\ndef twice(x):\n    os._exit(0)", 4),
    "segfault": ("import signal\ndef twice(x):\n    signal.raise_signal(signal.SIGSEGV)", 4),
    "syntax_error": ("def twice(x:\n", 4),
    "exits": ("import sys\ndef twice(x):\n    sys.exit(0)\nsys.exit(0)", 4),
    "gigabytes": ("while True: print('x' * 10**6)", 4),
    "memory": ("import torch\nkeep = [torch.ones(10**8) for _ in range(100)]", 4),
    "large_value": ("import torch\ndef twice(x):\n    return torch.ones(10**8)", 4),
    "wrong_type": ("def twice(x):\n    return {'a': print}", 4),
    "always_equal": ("class Sly(float):\n    __eq__ = __le__ = lambda *_: True\ndef twice(x):\n    return Sly(1)", 4),
    "patches": (
        "import torch, teachkit.course.grading as g, teachkit.course.assignments.testing as t\n"
        "torch.allclose = torch.equal = lambda *a, **k: True\ng.compare = lambda *a, **k: None\n"
        "t.expect = expect = lambda *a, **k: None\ndef twice(x):\n    return x",
        4,
    ),
    "fork_bomb": ("import os\ndef twice(x):\n    while True: os.fork()", 4),
    "many_processes": ("import multiprocessing as m\nm.get_context('spawn').Process(target=print).start()", 4),
    "reads_sources": ("import glob, pathlib\ndef twice(x):\n    return pathlib.Path(SOURCE).read_text()", 4),
    "kills_the_grader": ("import os, signal\ndef twice(x):\n    os.kill(os.getppid(), signal.SIGKILL)", 4),
    "interrupts": ("def twice(x):\n    raise KeyboardInterrupt", 4),
    "deep": ("def twice(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a", 4),
    "answers_late": ("import time\ndef twice(x):\n    time.sleep(1000)", 4),
    "calls_forever": ("def wave(f, x):\n    while True: f(x)", 3),
    "large_calls": ("import torch\ndef wave(f, x):\n    return f(torch.ones(10**9))", 3),
    "no_number": ("level = 'zero'", 1),
    "not_a_number": ("level = float('nan')", 1),
}


IN_A_BATCH = ("memory", "kills_the_grader")
ALONE = ("endless_answer", "kernel_death", "syntax_error", "gigabytes", "wrong_type", "patches", "fork_bomb")
ALONE += ("reads_sources", "deep", "not_a_number")


def abuse(name, source):
    code = ABUSES[name][0]
    last = "\n" + code.replace("SOURCE", repr(str(source)))
    keep = "twice" if "wave(" not in code and "level =" not in code else "wave" if "wave(" in code else "level"
    return solved(**{keep: last, **({} if keep == "twice" else {"twice": "..."})})


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_abuses_take_no_other_points(name):
    source = SOURCES / "A1_denoisers_and_mean_shift.ipynb"
    report = mark(tiny(), abuse(name, source), limits=Limits(total_seconds=20, memory_megabytes=600))
    assert report.points == ABUSES[name][1], summary(report)


def write_batch(folder, source, names):
    folder.mkdir()
    for name in names:
        nbformat.write(abuse(name, source), folder / f"{name}.ipynb")
    (folder / "no_notebook.ipynb").write_bytes(os.urandom(1000))
    (folder / "essay.docx").write_text("Dear Professor")
    with (folder / "large.ipynb").open("wb") as file:
        file.truncate(100_000_000)
    (folder / "link.ipynb").symlink_to(source)
    (folder / "nothing").mkdir()
    tampered = solved(twice="def twice(x):\n    return x")
    for c in tampered.cells:
        if nb.role(c) == "test":
            c["source"] = "assert True"
            c.metadata.nbgrader["points"] = 1000
    nbformat.write(tampered, folder / "tampered.ipynb")
    doubled = solved()
    doubled.cells = [c for c in doubled.cells for _ in range(2) if nb.grade_id(c) != "wave_test"]
    nbformat.write(doubled, folder / "doubled.ipynb")
    text = nbformat.writes(solved(why="WORDS")).replace("WORDS", r"\ud800 \u0000 =1+1")  # half a character, and none
    (folder / os.fsdecode(b"\xff.ipynb")).write_text(text)
    for name, file in (("aaa", "mine.ipynb"), ("zzz", "tiny.ipynb"), ("two", "tiny.ipynb"), ("two", "tiny_v2.ipynb")):
        (folder / name).mkdir(exist_ok=True)
        nbformat.write(solved(), folder / name / file)
    for left in ("__MACOSX/._mine.ipynb", ".ipynb_checkpoints/mine-checkpoint.ipynb"):  # by an archive, by Jupyter
        (folder / "aaa" / left).parent.mkdir()
        (folder / "aaa" / left).write_bytes(b"\0\5\x16\7")
    nbformat.write(solved(level="level = 0.75"), folder / "zzz.ipynb")  # of the same name as a folder


@pytest.mark.slow
def test_nothing_beside_a_submission_is_imported(tmp_path, monkeypatch):
    nbformat.write(tiny(), tmp_path / "tiny.ipynb")
    (tmp_path / "in" / "ann").mkdir(parents=True)
    nbformat.write(solved(), tmp_path / "in" / "ann" / "tiny.ipynb")
    for name in ("json", "torch", "teachkit", "sitecustomize"):
        (tmp_path / "in" / "ann" / f"{name}.py").write_text(f"open({str(tmp_path / 'read')!r}, 'w'); raise SystemExit")
    monkeypatch.chdir(tmp_path / "in" / "ann")
    (report,) = grade(tmp_path / "in", tmp_path / "tiny.ipynb", tmp_path / "out", limits=SHORT)
    assert (report.points, report.notes) == (6, [])
    assert not (tmp_path / "read").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [IN_A_BATCH, pytest.param(tuple(ABUSES), marks=pytest.mark.mutants)], ids=["some", "all"]
)
def test_no_submission_stops_the_batch(tmp_path, names):
    (tmp_path / "source").mkdir()
    source = tmp_path / "source" / "tiny.ipynb"
    nbformat.write(tiny(), source)
    write_batch(tmp_path / "in", source, names)
    out = tmp_path / "out"
    grade(tmp_path / "in", source, out, limits=SHORT, jobs=2)
    rows = {r["student"]: r for r in csv.DictReader((out / "grades.csv").read_text("utf-8-sig").splitlines())}
    two = rows.pop("two")  # which of them counts nobody knows
    assert (two["points"], two["remarks"][:38]) == ("", "2 notebooks (tiny.ipynb, tiny_v2.ipynb)"[:38])
    points = {name: float(r["points"]) for name, r in rows.items()}
    full = {"aaa": 6, "zzz": 6, "doubled": 6, "tampered": 4, r"\udcff": 6}
    assert {n: points[n] for n in full} == full
    assert points["zzz.ipynb"] == pytest.approx(4.25, abs=0.05)
    nothing = ("no_notebook", "essay", "large", "link", "nothing")
    assert [points[n] for n in nothing] == [0] * 5
    assert all(rows[n]["remarks"] for n in nothing)
    for name in names:
        assert points[name] == ABUSES[name][1], (name, rows[name])
    assert len(list((out / "feedback").glob("*.html"))) == len(rows) + 1 == len(names) + 12
    board = json.loads((out / "leaderboard.json").read_text())
    assert board[-1]["student"] == "zzz.ipynb"
    assert not [p for p in (out, out / "feedback", out / "reports") for q in p.iterdir() if q.name.startswith(".")]


@pytest.mark.slow
def test_grading_resumes_and_takes_written_points(tmp_path):
    (tmp_path / "in").mkdir()
    nbformat.write(tiny(), tmp_path / "tiny.ipynb")
    nbformat.write(solved(), tmp_path / "in" / "ann.ipynb")
    arguments = [str(tmp_path / "in"), "--source", str(tmp_path / "tiny.ipynb"), "--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(app, ["assignments", "grade", *arguments])
    assert outcome.exit_code == 0, outcome.output
    written = tmp_path / "out" / "written.csv"
    written.write_text(written.read_text().replace("why,,4,,", "why,3,4,Nearly.,"))
    seed = json.loads((tmp_path / "out" / "grading.json").read_text())["seed"]
    kept = tmp_path / "out" / "reports" / "ann.json"
    before = kept.stat().st_mtime_ns
    (report,) = grade(tmp_path / "in", tmp_path / "tiny.ipynb", tmp_path / "out")
    assert (report.points, report.written_points) == (6, 3)
    assert kept.stat().st_mtime_ns == before  # not run again
    assert "Nearly." in (tmp_path / "out" / "feedback" / "ann.html").read_text()
    nbformat.write(solved(twice="twice = 3"), tmp_path / "in" / "ann.ipynb")
    (report,) = grade(tmp_path / "in", tmp_path / "tiny.ipynb", tmp_path / "out")
    assert (report.points, report.written_points) == (4, 3)
    assert json.loads((tmp_path / "out" / "grading.json").read_text())["seed"] == seed
    nbformat.write(tiny(), tmp_path / "other.ipynb")
    with pytest.raises(ValueError, match="holds the grades of tiny"):
        grade(tmp_path / "in", tmp_path / "other.ipynb", tmp_path / "out")


@pytest.mark.slow
def test_points_are_not_kept_for_another_answer(tmp_path, near):
    student = "Jane Doe_12_assignsubmission_file_"
    (tmp_path / "in" / student).mkdir(parents=True)
    (tmp_path / "in" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "in" / "grades").symlink_to(tmp_path / "out")  # who grades "." gets the default --out in there
    nbformat.write(tiny(), tmp_path / "tiny.ipynb")
    written = tmp_path / "out" / "written.csv"

    def again(words, **marks):
        nbformat.write(solved(why=words), tmp_path / "in" / student / "mine.ipynb")
        if marks:
            rows = list(csv.DictReader(written.read_text(encoding="utf-8-sig").splitlines()))
            written.write_text(written.read_text().replace(f"why,{rows[0]['points']},4,,", "why,3,4,Nearly.,"))
        (report,) = grade(tmp_path / "in", tmp_path / "tiny.ipynb", tmp_path / "out")
        return report.written[0].points, report.written[0].comment

    assert again(nb.WRITTEN_STUB) == (0, "")
    assert again("Late.") == (None, "")  # the 0 was for an empty answer
    assert again("Late.", points=3) == (3, "Nearly.")
    assert again("Late.") == (3, "Nearly.")
    assert again("Later.") == (None, "[to an earlier answer: 3 points; Nearly.]")
    assert again("Later.") == (None, "[to an earlier answer: 3 points; Nearly.]")
    assert written.read_bytes().startswith(b"\xef\xbb\xbf")  # for spreadsheets
    assert [p.name[:34] for p in (tmp_path / "out" / "feedback").iterdir()] == ["Jane_Doe_12_assignsubmission_file_"]
    written.write_text(written.read_text().replace(",,4,", ",3,4,").replace(student, "Jane"))
    arguments = [str(tmp_path / "in"), "--source", str(tmp_path / "tiny.ipynb"), "--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(app, ["assignments", "grade", *arguments])
    assert "1 row(s) with points belong to no submission, the first to Jane, why" in outcome.output


# The assignments of the course


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.ipynb")), ids=lambda p: p.stem[:2])
def test_sources_obey_the_rules(path, tmp_path):
    source = nb.read(path)
    rules.validate(source, path.name)
    (copy,) = build(path, tmp_path)
    text = copy.read_text()
    assert "### BEGIN" not in text
    assert all(not c.get("outputs") for c in nbformat.read(copy, 4).cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.ipynb")), ids=lambda p: p.stem[:2])
def test_sources_get_full_marks_and_empty_copies_none(path):
    source = nb.read(path)
    solution = mark(source, source, seed=11)
    assert solution.points == solution.maximum > 0, summary(solution)
    assert not solution.errors
    empty = mark(source, nb.student_copy(source), seed=11)
    assert empty.points == 0, summary(empty)

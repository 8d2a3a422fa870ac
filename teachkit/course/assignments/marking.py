"""A page for every question in words: all answers without names, the model answer and the rubric beside them.

A page is one HTML file that needs no server and no network. It keeps points and comments in the browser while a person
marks, and saves them as a small table, which `taken` brings into ``written.csv`` under the students' names.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from nbformat import NotebookNode

from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments import sheets, tables
from teachkit.course.assignments.markdown import rendered
from teachkit.course.assignments.report import Report, Written

__all__ = ["pages", "taken"]

TEMPLATE = Path(__file__).with_name("marking.html")
COLUMNS = ("answer", "question", "points", "comment", "version")


def pages(source: NotebookNode, reports: Sequence[Report], seed: int) -> dict[str, str]:
    """The page of every written question, by its name.

    Parameters
    ----------
    source : NotebookNode
        The instructor source, from which question, model answer and rubric are taken.
    reports : sequence of Report
        Of all submissions. Answers are shown in an order that says nothing of their names; empty ones are left out.
    seed : int
        Of the cohort: without it nobody can tell whose answer bears which mark.
    """
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text("utf-8"))
    made, before, asked = dict[str, str](), "", ""
    for cell in source.cells:
        kind, name = nb.role(cell), nb.grade_id(cell)
        before = name if kind == "answer" else before
        if kind == "written":
            model = re.sub(r"(?m)^### (BEGIN|END) SOLUTION[ \t]*\n?", "", cell.source)
            found = [(_token(r, seed), r, w) for r in reports for w in r.written if w.name == name and w.text]
            answers = [_shown(token, r, w, before) for token, r, w in sorted(found, key=lambda item: item[0])]
            head = {"assignment": reports[0].assignment if reports else "", "name": name, "maximum": nb.points(cell)}
            body = {"question": rendered(asked), "model": rendered(model), "answers": answers}
            code = template.module.script(name, COLUMNS)  # type: ignore[attr-defined]
            digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()  # this script runs, and no other
            made[name] = template.render(**head, **body, code=code, digest=digest)
        asked = cell.source if kind == "text" else asked
    return made


def _token(report: Report, seed: int) -> str:
    """What stands for a student on the pages."""
    return hashlib.sha256(f"{seed}/{report.student}".encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _shown(token: str, report: Report, answer: Written, before: str) -> dict[str, Any]:
    return {
        **{"token": token, "version": tables.version(answer.text), "points": answer.points, "comment": answer.comment},
        **{"html": rendered(answer.text), "output": answer.output, "pictures": {**answer.pictures, **answer.shown}},
        "tests": [score for score in report.scores if score.answer == before],
    }


def taken(folder: Path, reports: Sequence[Report], seed: int, marked: tables.Rows) -> list[str]:
    """Bring what the pages saved (``marks-*.csv`` in ``folder``) into ``marked``; each file is read once and renamed.

    Returns remarks on rows that could not be used.

    Raises
    ------
    ValueError
        That names the row, if points are no number from 0 to the maximum.
    """
    students, remarks, files = {_token(r, seed): r for r in reports}, list[str](), sorted(folder.glob("marks-*.csv"))
    for file in files:
        for row in sheets.read(file, COLUMNS):
            report = students.get(row["answer"])
            answer = next((w for w in report.written if w.name == row["question"]), None) if report else None
            if report is None or answer is None or row["version"] != tables.version(answer.text):
                remarks.append(f"{file.name}: the answer {row['answer']} to {row['question']} is not the one handed in")
            elif row["points"] and not 0 <= float(row["points"]) <= answer.maximum:
                raise ValueError(
                    f"{file.name}: points of {row['answer']} must be a number from 0 to {answer.maximum:g}"
                )
            else:
                own = {"student": report.student, "maximum": f"{answer.maximum:g}", "answer": answer.text}
                marked[report.student, answer.name] = row | own
    for file in files:
        file.replace(file.with_name(f"taken-{file.name}"))
    return remarks

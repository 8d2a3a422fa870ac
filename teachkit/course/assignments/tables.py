"""The files that grading writes for the instructor: grades.csv, written.csv, leaderboard.json."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from teachkit.course.assignments import sheets
from teachkit.course.assignments.report import Report

COLUMNS = ("student", "question", "points", "maximum", "comment", "answer", "version")
Rows = dict[tuple[str, str], dict[str, str]]

__all__ = [
    "grades_csv", "leaderboard_json", "override", "read_written", "settle", "slug", "version", "written_csv"
]  # fmt: skip


def grades_csv(reports: Sequence[Report], names: Mapping[int, str] | None = None) -> str:
    """A row per student: points, remarks, the page for the student, points of every test; ``names`` belong to ids.

    ``total`` is empty until a person has marked all written answers.
    """
    tests = list(dict.fromkeys(s.name for r in reports for s in r.scores))
    head = ["student", "name", "id", "assignment", "points", "maximum", "written", "written_maximum"]
    rows = [[*head, "changes", "total", "remarks", "feedback", *tests]]
    for r in reports:
        points = {} if r.failed else {s.name: _number(s.points) for s in r.scores}
        remarks = re.sub(r"\s+", " ", "; ".join([*r.notes, *(f"{where}: {what}" for where, what in r.errors)]))
        row = [sheets.safe(r.student), sheets.safe((names or {}).get(r.id or -1, "")), str(r.id or "")]
        row += [sheets.safe(r.assignment), _number(None if r.failed else r.points), _number(r.maximum)]
        row += [_number(r.written_points if r.written else None), _number(r.written_maximum)]
        row += [_number(sum(p for _, p, _ in r.changes)) if r.changes else "", _number(r.total)]
        row += [sheets.safe(remarks[:500]), f"feedback/{slug(r.student)}.html"]
        rows.append(row + [points.get(t, "") for t in tests])
    return sheets.text(rows)


def written_csv(reports: Sequence[Report], before: Mapping[tuple[str, str], dict[str, str]] | None = None) -> str:
    """A row per written answer, for a person to fill in points and a comment.

    Rows of ``before`` (from `read_written`) that were filled in and that no report has any more are kept at the end.
    """
    rows = [[*COLUMNS, "output"]]
    for r in reports:
        for w in r.written:
            row = [sheets.safe(r.student), w.name, _number(w.points), _number(w.maximum), w.comment]
            rows.append([*row, sheets.safe(w.text[:20_000]), version(w.text), sheets.safe(w.output[:8000])])
    known = {(r.student, w.name) for r in reports for w in r.written}
    rows += [[row[c] for c in COLUMNS] for key, row in (before or {}).items() if key not in known and _filled(row)]
    return sheets.text(rows)


def slug(student: str) -> str:
    """A file name; names that differ stay apart, also where file names know no case."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", student).strip(".")[:80]
    tag = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    alone = plain == student == student.lower() and not re.search(r"-[0-9a-f]{16}$", plain)  # no tag of another's
    return plain if alone else f"{plain}-{tag}"


def override(reports: Sequence[Report], path: Path) -> list[str]:
    """Apply ``overrides.csv`` (student, item, points, reason) and name its rows that belong to nobody.

    An item that is a test or a question gets these points; any other, such as ``bonus``, adds them to the total.

    Raises
    ------
    ValueError
        That names the row, if points are no number.
    """
    lost = []
    for row in sheets.read(path, ("student", "item", "points", "reason")):
        who, item, reason = sheets.plain(row["student"]), row["item"].strip(), row["reason"].strip()
        try:
            points = float(row["points"].replace(",", "."))
            if not math.isfinite(points):
                raise ValueError
        except ValueError:
            raise ValueError(f"{path.name}: points of {who}, {item} must be a number, got {row['points']!r}") from None
        found = [r for r in reports if r.student == who]
        lost += [] if found else [f"{who}, {item}"]
        for r in found:
            scores, words = [s for s in r.scores if s.name == item], [w for w in r.written if w.name == item]
            for score in scores:
                score.points, score.message = points, f"{points:g} points given by a person: {reason}"
            for answer in words:
                answer.points, answer.comment = points, "; ".join(filter(None, [answer.comment, reason]))
            if not (scores or words):
                r.changes.append((item, points, reason))
    return lost


def version(text: str) -> str:
    """A short name of an answer's text, by which points are known to be for it and not for an earlier one."""
    return "v" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def settle(marked: Rows, reports: Sequence[Report]) -> Rows:
    """The rows under the names of submissions, also where a spreadsheet has changed these.

    Programs drop the apostrophe or the spaces around a name, and the zeros that a number begins with. A row with points
    or a comment whose name is no submission's belongs to the only one that is called so but for these and has the same
    answer, unless that one has a row with points or a comment of its own.
    """
    answers = {(r.student, w.name): version(w.text) for r in reports for w in r.written}
    settled = {key: row for key, row in marked.items() if key in answers}
    for key, row in marked.items():
        if key not in answers and _filled(row):
            own = [k for k in answers if k[1] == key[1] and _bare(k[0]) == _bare(key[0])]
            if len(own) == 1 and row["version"] in ("", answers[own[0]]) and not _filled(settled.get(own[0], {})):
                key = own[0]
        if not _filled(settled.get(key, {})):
            settled[key] = row
    return settled


def _filled(row: Mapping[str, str]) -> bool:
    return bool(row.get("points") or row.get("comment"))


def _bare(name: str) -> str:
    return re.sub(r"[\s']+", "", unicodedata.normalize("NFC", name)).lstrip("0")


def read_written(path: Path) -> Rows:
    """The rows that a person filled in, by (student, question); empty if there is no file.

    Columns may be parted by semicolons and points have a decimal comma, as spreadsheets write in some countries.

    Raises
    ------
    ValueError
        That names the row, if points are no number from 0 to the maximum; or if it is another kind of file.
    """
    rows = sheets.read(path, COLUMNS[:-1])
    marked: Rows = {}
    for row in rows:
        try:
            row = {column: row.get(column) or "" for column in COLUMNS}
            row |= {column: row[column].strip() for column in ("question", "points", "maximum", "comment", "version")}
            row["points"] = row["points"].replace(",", ".")
            if row["points"] and not 0 <= float(row["points"]) <= float(row["maximum"]):
                raise ValueError
        except ValueError:
            who = f"{row.get('student')}, {row.get('question')}"
            raise ValueError(f"{path.name}: points of {who} must be a number from 0 to {row.get('maximum')}") from None
        key = sheets.plain(row["student"]), row["question"]
        if key not in marked or _filled(row):
            marked[key] = row
    return marked


def leaderboard_json(reports: Sequence[Report]) -> str | None:
    """The error ratios of the tests that give points on a scale, best first; None if no test does."""
    scores = [(r.student, s) for r in reports for s in r.scores if s.ratio is not None and math.isfinite(s.ratio)]
    rows = [{"student": who, "test": s.name, "ratio": s.ratio, "points": s.points} for who, s in scores]
    rows.sort(key=lambda row: (row["test"], row["ratio"]))
    return json.dumps(rows, indent=2) + "\n" if rows else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"

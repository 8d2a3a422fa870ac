"""The files that grading writes for the instructor: grades.csv, written.csv, leaderboard.json."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from teachkit.assignments.report import Report

COLUMNS = ("student", "question", "points", "maximum", "comment", "answer")

__all__ = ["grades_csv", "leaderboard_json", "read_written", "written_csv"]


def grades_csv(reports: Sequence[Report]) -> str:
    """A row per student: points, written points once a person gave them, remarks, points of every test."""
    tests = list(dict.fromkeys(s.name for r in reports for s in r.scores))
    head = ["student", "assignment", "points", "maximum", "written", "written_maximum", "remarks"]
    rows = [[*head, *tests]]
    for r in reports:
        points = {s.name: "" if r.failed else f"{s.points:g}" for s in r.scores}
        written = "" if r.written_points is None or not r.written else f"{r.written_points:g}"
        remarks = re.sub(r"\s+", " ", "; ".join([*r.notes, *(f"{where}: {what}" for where, what in r.errors)]))
        row = [_safe(r.student), r.assignment, "" if r.failed else f"{r.points:g}", f"{r.maximum:g}"]
        row += [written, f"{r.written_maximum:g}", _safe(remarks[:500])]
        rows.append(row + [points.get(t, "") for t in tests])
    return _csv(rows)


def written_csv(reports: Sequence[Report], before: Mapping[tuple[str, str], dict[str, str]] | None = None) -> str:
    """A row per written answer, for a person to fill in points and a comment.

    Rows of ``before`` (from `read_written`) that were filled in and that no report has any more are kept at the end.
    """
    rows = [list(COLUMNS)]
    for r in reports:
        for w in r.written:
            points = "" if w.points is None else f"{w.points:g}"
            answer = w.text[:20_000].replace("\x00", "")
            rows.append([_safe(r.student), w.name, points, f"{w.maximum:g}", w.comment, _safe(answer)])
    known = {(r.student, w.name) for r in reports for w in r.written}
    for key, row in (before or {}).items():
        if key not in known and (row["points"] or row["comment"]):
            rows.append([row[column] for column in COLUMNS])
    return _csv(rows)


def read_written(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows that a person filled in, by (student, question); empty if there is no file.

    Raises
    ------
    ValueError
        That names the row, if points are no number from 0 to the maximum.
    """
    if not path.is_file():
        return {}
    csv.field_size_limit(10_000_000)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    marked: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        try:
            row = {column: (row[column] or "").strip() for column in COLUMNS}
            if row["points"] and not 0 <= float(row["points"]) <= float(row["maximum"]):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            who = f"{row.get('student')}, {row.get('question')}"
            raise ValueError(f"{path.name}: points of {who} must be a number from 0 to {row.get('maximum')}") from None
        marked[row["student"].removeprefix("'"), row["question"]] = row
    return marked


def leaderboard_json(reports: Sequence[Report]) -> str | None:
    """The error ratios of the tests that give points on a scale, best first; None if no test does."""
    rows = [
        {"student": r.student, "test": s.name, "ratio": s.ratio, "points": s.points}
        for r in reports
        for s in r.scores
        if s.ratio is not None and math.isfinite(s.ratio)
    ]
    rows.sort(key=lambda row: (row["test"], row["ratio"]))
    return json.dumps(rows, indent=2) + "\n" if rows else None


def _csv(rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _safe(text: str) -> str:
    """Keep a spreadsheet from taking a student's text for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text

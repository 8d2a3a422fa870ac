"""The rules of an instructor source, which `validate` checks; and `leaks`, what a copy must not show of it."""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections import Counter

import nbformat
from nbformat import NotebookNode

from teachkit.course.assignments import magics, pictures
from teachkit.course.assignments.names import bound, names_in
from teachkit.course.assignments.notebook import HIDDEN, ID, SOLUTION, grade_id, meta, role, student_copy

__all__ = ["leaks", "validate"]

MARKERS = re.compile(r"### (BEGIN|END) (SOLUTION|HIDDEN TESTS)")


def validate(notebook: NotebookNode, name: str = "source") -> None:
    """Raise a ValueError that names the cell, if a source breaks a rule: ids, points, markers, roles."""
    nbformat.validate(notebook)
    ids = Counter(grade_id(c) for c in notebook.cells if meta(c))
    for cell, copied in zip(notebook.cells, student_copy(notebook).cells):
        m, kind, kinds = meta(cell), role(cell), Counter(kind for _, kind in MARKERS.findall(cell.source))
        unpaired = MARKERS.search(HIDDEN.sub("", SOLUTION.sub("", cell.source))) or set(kinds.values()) - {2}
        missing = pictures.attached(cell, copied.source)[1] if cell.cell_type != "code" else []
        faults: dict[str, object] = {
            "BEGIN and END markers do not pair up": unpaired,
            "has markers but no nbgrader metadata, so it would not be graded": kinds and not m,
            "needs schema_version 3 and a grade_id of letters, digits, _ and -": m
            and (m.get("schema_version") != 3 or not re.fullmatch(r"[A-Za-z][\w-]*", grade_id(cell))),
            "the grade_id occurs more than once": m and ids[grade_id(cell)] > 1,
            "points belong to graded cells, and only to those": bool(m.get("grade")) != (m.get("points", 0) > 0),
            "answers are not locked, everything else is": m
            and kind != "id"
            and bool(m.get("locked")) == bool(m.get("solution")),
            "an unlocked cell that is no answer must hold the number of the copy, 'ID = 123456'": kind == "id"
            and not ID.search(cell.source),
            "an answer needs ### BEGIN SOLUTION and ### END SOLUTION": m.get("solution") and "SOLUTION" not in kinds,
            "hidden tests belong into test cells": "HIDDEN TESTS" in kinds and kind != "test",
            f"shows attachment:{''.join(missing[:1])}, which is not attached to it": missing,
        }
        for fault, found in faults.items():
            if found:
                raise ValueError(f"{name}, cell {grade_id(cell) or cell.source[:40]!r}: {fault}")
    _check_tests(notebook, name)


def leaks(source: NotebookNode, text: str) -> list[str]:
    """Lines of solutions, rubrics and hidden tests of ``source`` that occur in ``text``, which should not."""
    visible = "\n".join(c.source for c in student_copy(source).cells)
    found = [match[0] for c in source.cells for secret in (SOLUTION, HIDDEN) for match in secret.finditer(c.source)]
    lines = [line.strip() for line in "\n".join(found).splitlines()]
    return [line for line in lines if len(line) > 8 and line not in visible and _in_json(line, text)]


def _in_json(line: str, text: str) -> bool:
    return line in text or json.dumps(line)[1:-1] in text or json.dumps(line, ensure_ascii=False)[1:-1] in text


def _check_tests(notebook: NotebookNode, name: str) -> None:
    """Raise a ValueError if a test uses a name that neither set-up nor an answer defines: each test stands alone.

    And if a cell cannot be read, or only a notebook could run what also runs without one.
    """
    known, read = set(dir(builtins)), []
    for cell in notebook.cells:
        kind, where = role(cell), f"{name}, cell {grade_id(cell)!r}"
        if cell.cell_type != "code" or kind not in ("id", "setup", "answer", "test"):
            continue
        try:
            tree = magics.parse(cell.source, strict=kind != "answer")
            compile(tree, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if kind == "answer" else 0)
        except SyntaxError as error:
            raise ValueError(f"{where}, {magics.line_of(cell.source, error.lineno)}: {error.msg}") from error
        if kind == "test":
            read.append((where, names_in(cell.source)))
        else:
            known |= bound(tree)
    for where, names in read:
        if unknown := sorted(names - known):
            raise ValueError(f"{where}: uses {unknown[0]!r}, which neither a set-up cell nor an answer defines")

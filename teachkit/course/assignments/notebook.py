"""Assignment notebooks: one instructor source, from which student copies and hidden tests are taken.

A source is an ordinary notebook that carries nbgrader's cell metadata (schema version 3) and markers. `role` tells what
a cell is for:

    id        one line, ``ID = 123456``: the number of the copy, which the student leaves alone
    setup     locked, runs first on both sides: imports and helpers
    answer    the student's code; the source holds the solution between ``### BEGIN SOLUTION`` and ``### END SOLUTION``
    test      locked, worth points; ``### BEGIN HIDDEN TESTS`` ... ``### END HIDDEN TESTS`` is taken out of the copies
    written   a question answered in words and marked by a person; the source holds the model answer and its rubric
    text      locked text (markdown)
    free      anything else: the student may change, add or delete it

`student_copy` strips a source, `merge` puts a student's answers back into it. Everything locked always comes from the
source, so a tampered test has no effect. The metadata and markers are those of nbgrader
(https://nbgrader.readthedocs.io), which can therefore be used on the same files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbformat import NotebookNode

from teachkit import __version__, checks
from teachkit.course.assignments import pictures

__all__ = [
    "Part", "answer_cells", "answers_to", "copy_id", "merge", "other_version", "places", "points", "read", "role",
    "student_copy", "tests", "without_stub", "written_answers",
]  # fmt: skip

STUB = "...  # your code here"
WRITTEN_STUB = "*Your answer here.*"
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.S | re.M)
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS[ \t]*\n.*?^[ \t]*### END HIDDEN TESTS[ \t]*\n?", re.S | re.M)
LOCKED = ("setup", "test", "text")  # what always comes from the source
ID = re.compile(r"^ID[ \t]*=[ \t]*(\d{1,9})\b", re.M)
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Part(NamedTuple):
    """A piece of code that a submission runs: its label for messages, its role, and its source."""

    label: str
    role: str
    code: str


def read(path: Path | str, max_megabytes: float = 20.0) -> NotebookNode:
    """Read a notebook of at most ``max_megabytes``.

    Raises
    ------
    ValueError
        With a sentence for the student, if it is too large, no notebook, or none that can be read.
    """
    path = checks.path("path", path)
    if not path.is_file():
        raise ValueError(f"{path.name} is not a file")
    size = path.stat().st_size / 1e6
    if size > max_megabytes:
        raise ValueError(
            f"the file is {size:.0f} MB, more than the {max_megabytes:g} MB allowed; clear the outputs and save again"
        )
    try:
        raw = path.read_bytes()
        text = raw.decode(json.detect_encoding(raw))  # Windows may put a byte order mark first, or write UTF-16
        notebook = nbformat.reads(text, as_version=4)
        notebook["cells"] = [NotebookNode(c) for c in notebook["cells"]]
        for cell in notebook.cells:
            if not isinstance(cell["source"], str) or cell["cell_type"] not in ("code", "markdown", "raw"):
                raise ValueError("a cell without source or type")
            if not isinstance(cell.get("metadata"), dict):
                cell["metadata"] = NotebookNode()
            if not isinstance(cell["metadata"].get("nbgrader", {}), dict):
                del cell["metadata"]["nbgrader"]
    except MemoryError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise ValueError(f"the file is not a Jupyter notebook that can be read ({reason})") from error
    return notebook


def meta(cell: NotebookNode) -> dict[str, Any]:
    """nbgrader's metadata of a cell, empty if it has none."""
    return cell.metadata.get("nbgrader") or {}


def grade_id(cell: NotebookNode) -> str:
    """The name of a cell in nbgrader's metadata, or an empty string."""
    return str(meta(cell).get("grade_id", ""))


def points(cell: NotebookNode) -> float:
    """What a graded cell is worth."""
    return float(meta(cell)["points"])


def role(cell: NotebookNode) -> str:
    """``id``, ``setup``, ``answer``, ``test``, ``written``, ``text`` or ``free``: see the module's description."""
    m = meta(cell)
    if not m:
        return "free"
    if m.get("solution"):
        return "written" if m.get("grade") else "answer"
    if cell.cell_type != "code":
        return "text"
    return "test" if m.get("grade") else "setup" if m.get("locked") else "id"


def copy_id(notebook: NotebookNode) -> int | None:
    """The number of a copy, by which its student's own data are drawn; None if there is none."""
    found = [ID.search(cell.source) for cell in notebook.cells if role(cell) == "id"]
    return int(found[0][1]) if found and found[0] else None


def student_copy(source: NotebookNode, number: int | None = None) -> NotebookNode:
    """The copy for students: solutions replaced by a stub, hidden tests, outputs and metadata gone.

    It says which version of teachkit it was made with, and gets the id ``number``.
    Of attachments, pictures above all, those stay that the text which stays refers to.
    """
    cells = []
    for original in source.cells:
        text = HIDDEN.sub("", original.source)
        stub = STUB if original.cell_type == "code" else WRITTEN_STUB
        text = SOLUTION.sub(rf"\g<1>{stub}", text).rstrip("\n")
        if role(original) == "id" and number is not None:
            text = ID.sub(f"ID = {number}", text)
        cell = getattr(nbformat.v4, f"new_{original.cell_type}_cell")(text, id=original["id"])
        if kept := pictures.attached(original, text)[0]:
            cell["attachments"] = kept
        if meta(original):
            cell.metadata.update(nbgrader=dict(meta(original)), deletable=False)
        if role(original) in LOCKED:
            cell.metadata["editable"] = False
        cells.append(cell)
    metadata = nbformat.from_dict({**KERNEL, "teachkit": __version__})
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def other_version(notebook: NotebookNode) -> str:
    """A remark, if a copy was made with another version of teachkit than this one; else an empty string."""
    held = notebook.get("metadata")
    made = str(held.get("teachkit", __version__) if isinstance(held, dict) else __version__)[:40]
    remark = f"This copy was made with teachkit {made}, and marked by {__version__}: "
    remark += "if an import fails below, its message says where the name is now."
    return remark if made != __version__ else ""


def tests(source: NotebookNode, hidden: bool) -> list[NotebookNode]:
    """The test cells of a notebook, with or without their hidden part."""
    cells = [NotebookNode(cell) for cell in source.cells if role(cell) == "test"]
    for cell in cells:
        cell["source"] = cell.source if hidden else HIDDEN.sub("", cell.source)
    return cells


def answers_to(source: NotebookNode) -> dict[str, str]:
    """For every test, the grade_id of the answer it marks: the last one before it."""
    owner, last = {}, ""
    for cell in source.cells:
        if role(cell) == "answer":
            last = grade_id(cell)
        elif role(cell) == "test":
            owner[grade_id(cell)] = last
    return owner


def merge(source: NotebookNode, submission: NotebookNode) -> tuple[list[Part], list[str]]:
    """The code a submission runs, in its order, with everything locked taken from the source; and remarks for feedback.

    Test cells are not among it. A locked set-up cell that was deleted is put back. Of a duplicated answer every copy
    runs, as it would in the student's own kernel, so that the last one counts.
    """
    roles = {grade_id(c): role(c) for c in source.cells if meta(c)}
    locked = {grade_id(c): c.source for c in source.cells if role(c) in LOCKED}
    parts, notes = list[Part](), list[str]()
    present = Counter(grade_id(c) for c in submission.cells if grade_id(c) in roles)
    for number, cell in enumerate(submission.cells, 1):
        name = grade_id(cell)
        kind = roles.get(name, "free")
        if kind in LOCKED:
            if _plain(locked[name]) != _plain(cell.source):
                notes.append(f"The locked cell {name} was changed; the original was used.")
            if kind == "setup" and not any(p.label == name for p in parts):
                parts.append(Part(name, kind, locked[name]))
        elif kind == "id":
            if cell.cell_type == "code" and (held := ID.search(cell.source)):
                parts.append(Part(name, kind, f"ID = {int(held[1])}"))
            else:
                notes.append(f"The cell {name} does not hold the number of the copy any more.")
        elif kind == "answer" and cell.cell_type != "code":
            notes.append(f"The cell {name} is not a code cell any more; it was not run.")
        elif kind != "written" and cell.cell_type == "code" and cell.source.strip():
            parts.append(Part(name if kind == "answer" else f"cell {number}", kind, cell.source))
    for name, count in present.items():
        if count > 1 and roles[name] == "answer":
            notes.append(f"The cell {name} occurs {count} times; all ran, and the last definition counts.")
    before = ""
    for name, kind in roles.items():
        if kind == "setup" and not present[name]:
            index = next((i + 1 for i, p in enumerate(parts) if p.label == before), 0)
            parts.insert(index, Part(name, kind, locked[name]))
        if kind != "text" and not present[name]:
            notes.append(f"The cell {name} is missing" + ("; the original was used." if name in locked else "."))
        if kind in ("setup", "answer"):
            before = name
    return parts, notes


def _plain(text: str) -> str:
    """A cell's text as students see it: without hidden tests, ends of lines as editors may leave them."""
    return "\n".join(line.rstrip() for line in HIDDEN.sub("", text).splitlines()).strip()


def written_answers(source: NotebookNode, submission: NotebookNode) -> dict[str, str]:
    """What a student wrote to every written question: in its cells, and in own cells of text at the same place."""
    texts = {name: [without_stub(c.source) for c in cells] for name, cells in answer_cells(source, submission).items()}
    return {name: "\n\n".join(dict.fromkeys(filter(None, found))) for name, found in texts.items()}


def without_stub(text: str) -> str:
    """What a student wrote to a cell for a written answer."""
    return text.replace(WRITTEN_STUB, "").strip()


def answer_cells(source: NotebookNode, submission: NotebookNode) -> dict[str, list[NotebookNode]]:
    """For every written question the cells that answer it, if only with the stub.

    Many students answer below the cell that is meant for it, split it, or delete it and add another.
    """
    cells: dict[str, list[NotebookNode]] = {grade_id(c): [] for c in source.cells if role(c) == "written"}
    for cell, question, own in places(source, submission):
        if question and (grade_id(cell) in cells or (own and cell.cell_type != "code")):
            cells[question].append(cell)
    return cells


def places(source: NotebookNode, submission: NotebookNode) -> Iterator[tuple[NotebookNode, str, bool]]:
    """Every cell of a submission with the written question that it stands at, or "", and whether it is the student's.

    Cells that lost their metadata are known by their text.
    """
    questions: dict[str, str] = {}  # grade_id or text of a source cell -> the written question that it opens
    for cell, after in zip(source.cells, [*source.cells[1:], None]):
        opens = cell if role(cell) == "written" else after if cell.cell_type == "markdown" else None
        name = grade_id(opens) if opens is not None and role(opens) == "written" else ""
        questions[_plain(cell.source)] = name
        if meta(cell):
            questions[grade_id(cell)] = name
    current = ""
    for cell in submission.cells:
        known = next((key for key in (grade_id(cell), _plain(cell.source)) if key and key in questions), None)
        current = current if known is None else questions[known]
        yield cell, current, known is None

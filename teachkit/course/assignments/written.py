"""Answers in words: what a person gets to mark, wherever a student put it, with its pictures.

Most answers stand in the cell meant for them or right below. Where nothing does, all else that the student wrote is
looked through (comments, strings, prints, raw cells, text at the end): if there are words, the answer is undecided,
with a remark, and the person gets them; only where there are none it is empty and gets 0. Pictures, pasted or dropped,
are data inside the notebook: they go to the feedback page, and the text names them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Any

from nbformat import NotebookNode

from teachkit.course.assignments import magics, pictures
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.report import Written

__all__ = ["collect", "elsewhere"]

Said = tuple[str, str]  # where something stands, and its words
SHOWN = 6000  # characters of a cell's output, and of what is shown of all
LETTERS = r"[^\W\d_]{2}"
WORD = re.compile(r"(?<!\S)[^\w\s]*[^\W\d_][^\W\d_]+(?:['’-][^\W\d_]+)*[^\w\s]*(?!\S)")


def collect(source: NotebookNode, submission: NotebookNode) -> tuple[list[Written], list[str]]:
    """Every written question with what was answered, and remarks about what could not be found where it belongs.

    ``points`` are None, for a person to decide, unless there is no word anywhere that could be the answer.
    """
    found, notes, question = list[Written](), list[str](), ""
    cells = nb.answer_cells(source, submission)
    given = {link for cell in source.cells for link in pictures.linked(cell.source)}
    for cell in source.cells:
        if nb.role(cell) != "written":
            question = cell.source if cell.cell_type == "markdown" else question
            continue
        name, texts = nb.grade_id(cell), []
        answer = Written(name, question, "", nb.points(cell))
        for part in cells[name]:
            text, remarks = pictures.told(part, answer.pictures, given)
            texts.append(nb.without_stub(text))
            notes += [f"{name}: {remark}." for remark in remarks]
        answer.text = "\n\n".join(dict.fromkeys(filter(None, texts)))
        if not answer.text and (pieces := elsewhere(source, submission, name, answer.pictures)):
            where = ", ".join(dict.fromkeys(where for where, _ in pieces))
            notes.append(f"{name}: nothing in its cell, but words in {where}: a person must look for the answer.")
            answer.text = "\n\n".join(["[not in its cell; this stands elsewhere]", *(f"[{w}] {t}" for w, t in pieces)])
        elif not answer.text:
            answer.points = 0.0
            notes += [f"{name}: no answer was found."] if source is not submission else []
        found.append(answer)
    _outputs(source, submission, {answer.name: answer for answer in found})
    return found, notes


def _outputs(source: NotebookNode, submission: NotebookNode, answers: dict[str, Written]) -> None:
    """Give every answer what the student's cells above it, and own ones below, had printed and drawn when saved."""
    roles = {nb.grade_id(c): nb.role(c) for c in source.cells if nb.meta(c)}
    waiting, last = list[tuple[int, NotebookNode]](), ""
    for number, (cell, question, own) in enumerate(nb.places(source, submission), 1):
        if nb.grade_id(cell) in answers:
            last = nb.grade_id(cell)
            for where, before in waiting:
                _show(answers[last], where, before)
            waiting = []
        elif cell.cell_type == "code" and roles.get(nb.grade_id(cell), "free") in ("free", "answer"):
            if own and question == last != "":
                _show(answers[last], number, cell)
            else:
                waiting.append((number, cell))


def _show(answer: Written, number: int, cell: NotebookNode) -> None:
    texts = [o.get("text") for o in cell.get("outputs", []) if o.get("name") == "stdout"]
    for bundle in _bundles(cell):
        picture = pictures.taken_out(bundle, f"cell {number}", answer.shown)
        texts.append(f"[{picture.partition(',')[0]}]" if picture else bundle.get("text/plain"))
    text = "\n".join(text.rstrip() for text in texts if isinstance(text, str) and text.strip())
    if text and len(answer.output) < SHOWN:
        cut = "\n[cut here]" if len(text) > SHOWN else ""
        answer.output = f"{answer.output}\n\n[cell {number}]\n{text[:SHOWN]}{cut}".strip()


def elsewhere(source: NotebookNode, submission: NotebookNode, name: str, shown: dict[str, str]) -> list[Said]:
    """What a student wrote outside the cells of written answers, and where, for a question whose own cell is empty.

    Pictures are added to ``shown``.
    """
    copy, questions = nb.student_copy(source), {nb.grade_id(c) for c in source.cells if nb.role(c) == "written"}
    known = {text for cell in copy.cells for _, text in _said(cell)}
    given = {cell.source for cell in copy.cells}
    pieces = []
    for number, (cell, question, own) in enumerate(nb.places(source, submission), 1):
        if nb.grade_id(cell) in questions:  # what stands below another question may still be for this one
            continue
        said, labels = list(_said(cell)), []
        if cell.cell_type == "code":
            said += _printed(cell) if own or (nb.role(cell) == "answer" and cell.source not in given) else []
            bundles = _bundles(cell) if own and question == name else []
            labels = [pictures.taken_out(bundle, "shown", shown) for bundle in bundles]
        elif own:
            before = len(shown)
            pictures.told(cell, shown)
            labels = list(shown)[before:]
        said += [("picture", label) for label in labels if label]
        pieces += [(f"cell {number} ({kind})", text) for kind, text in said if text not in known]
    return pieces


def _said(cell: NotebookNode) -> Iterator[Said]:
    """What a cell says to a reader: its lines, or the comments and strings of its code."""
    if cell.cell_type != "code":
        text = pictures.LINK.sub("", nb.without_stub(cell.source))
        yield from _lines(cell.cell_type, text, r"\w")
        return
    try:
        tree = magics.parse(cell.source, strict=False)
    except Exception:  # whatever it is, it was meant to be read
        tree = ast.Module([], [])
    if not tree.body:  # prose typed into a cell of code, %%markdown, comments alone
        yield from _lines("no code", cell.source, LETTERS)
        return
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(cell.source).readline))
        comments = "\n".join(t.string for t in tokens if t.type == tokenize.COMMENT)
    except (SyntaxError, tokenize.TokenError):  # shell lines
        comments = "\n".join(re.findall(r"(?m)(?:^|\s)(#.*)$", cell.source))
    yield from _lines("comment", comments, LETTERS)
    alone = set[ast.AST]()
    for node in ast.walk(tree):  # from the outside in
        match node:
            case ast.Expr(value):
                alone.add(value)
            case ast.Call(ast.Name("print" | "display"), arguments):
                alone |= set(arguments)
            case ast.Constant(str(text)) if re.search(LETTERS, text) and (node in alone or len(WORD.findall(text)) > 1):
                yield "string", text.strip()


def _printed(cell: NotebookNode) -> Iterator[Said]:
    """Lines of words that a cell printed or showed when it was saved."""
    for output in cell.get("outputs", []):
        if output.get("name") == "stdout":
            yield from _lines("output", output.get("text"), WORD)
    for bundle in _bundles(cell):
        if not any(kind.startswith("image/") for kind in bundle):
            yield from _lines("output", bundle.get("text/markdown") or bundle.get("text/plain"), WORD)


def _bundles(cell: NotebookNode) -> list[dict[str, Any]]:
    return [o["data"] for o in cell.get("outputs", []) if isinstance(o.get("data"), dict)]


def _lines(kind: str, text: object, pattern: str | re.Pattern[str]) -> Iterator[Said]:
    for line in text.splitlines() if isinstance(text, str) else ():  # nbformat has joined lists of lines
        if re.search(pattern, line):
            yield kind, line.strip().removeprefix("#").strip() if kind == "comment" else line.strip()

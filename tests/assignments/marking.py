"""Mark many answers to an assignment quickly, in this process: set-up once, then answer and tests, with a time limit.

`teachkit.course.assignments.mark` starts a process for every submission, which takes seconds; testing the tests means
marking thousands of answers, nearly all of them short. The rules are the same: what is locked comes from the source, a
test cell gives all its points or none, unless its last line is a number.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from teachkit.course.assignments import Limits, Report, Score, engine, names
from teachkit.course.assignments import notebook as nb

from .mutants import mutants

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "assignments"
TABLE: list[str] = []  # printed at the end of the run, see conftest.py

Answers = dict[str, list[tuple[str, str]]]  # name of the exercise -> [(what it does, code)]


class Overtime(BaseException):
    """Raised into an answer that takes too long; no `except Exception` catches it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Overtime

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@dataclass
class Mark:
    """Points for one answer, and why some are missing."""

    points: float
    maximum: float
    messages: list[str]

    @property
    def full(self) -> bool:
        return self.points >= self.maximum


class Desk:
    """An assignment with its set-up done and its own solutions at hand."""

    def __init__(self, name: str) -> None:
        self.source: NotebookNode = nb.read(SOURCES / f"{name}.ipynb")
        cells = {nb.grade_id(c): c for c in self.source.cells if nb.meta(c)}
        owners = nb.answers_to(self.source)
        self.references = {i: c.source for i, c in cells.items() if nb.role(c) == "answer"}
        self.tests = {i: [cells[t] for t, owner in owners.items() if owner == i] for i in self.references}
        self.setup: dict[str, Any] = {"__name__": "__assignment__"}
        with warnings.catch_warnings():
            for cell in self.source.cells:
                if nb.role(cell) in ("id", "setup"):
                    exec(compile(cell.source, f"<{nb.grade_id(cell)}>", "exec"), self.setup)
        self.marked: dict[tuple[str, str, str | None], Mark] = {}
        self.solved = dict(self.setup)
        for code in self.references.values():
            exec(compile(code, "<solution>", "exec"), self.solved)

    def mark(self, exercise: str, code: str, seconds: float = 60.0) -> Mark:
        """Run ``code`` in place of the solution of ``exercise``, then the tests of that exercise, hidden ones too.

        Once for a cohort: what ended in time is known the next time.
        """
        key = exercise, code, os.environ.get("TEACHKIT_COHORT")
        if key not in self.marked:
            result = self._mark(exercise, code, seconds)
            if any(Overtime.__name__ in message for message in result.messages):
                return result
            self.marked[key] = result
        return self.marked[key]

    def _mark(self, exercise: str, code: str, seconds: float) -> Mark:
        cells = self.tests[exercise]
        result = Mark(0.0, sum(float(nb.meta(c)["points"]) for c in cells), [])
        student = dict(self.solved)
        for name in defined_by(self.references[exercise]):
            student.pop(name, None)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                with time_limit(seconds):
                    exec(compile(code, "<answer>", "exec"), student)
            except (Exception, Overtime) as error:
                result.messages.append(f"{type(error).__name__}: {error}")
            for cell in cells:
                maximum = float(nb.meta(cell)["points"])
                try:
                    with time_limit(seconds):
                        value = _run(cell.source, {**student, **self.setup})
                    number = isinstance(value, (int, float)) and not isinstance(value, bool)
                    result.points += max(0.0, min(float(value), maximum)) if number else maximum
                except (Exception, Overtime) as error:
                    result.messages.append(f"{nb.grade_id(cell)}: {type(error).__name__}: {error}")
        return result

    def survivors(self, exercise: str, answers: list[tuple[str, str]]) -> list[str]:
        """Descriptions of those answers that get full marks."""
        return [what for what, code in answers if self.mark(exercise, code, seconds=10.0).full]

    def mutants(self, exercise: str, limit: int | None = None) -> list[tuple[str, str]]:
        """Mechanical mutants of the solution."""
        return [] if limit == 0 else mutants(self.references[exercise], limit)

    def submission(self, answers: dict[str, str]) -> NotebookNode:
        """A student's notebook with these answers, and the source's own solutions to the other exercises."""
        copy = nb.student_copy(self.source)
        for cell in copy.cells:
            if nb.role(cell) == "answer":
                name = nb.grade_id(cell)
                cell["source"] = answers.get(name, self.references[name])
        return copy


class Grader:
    """Marks answers as `teachkit.course.assignments.mark` does, in a process apart, which serves for many of them."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.report = desk, Report("", "")
        cells = [c for c in desk.source.cells if nb.role(c) in ("id", "setup", "answer")]
        parts = [nb.Part(nb.grade_id(c), nb.role(c), c.source) for c in cells]
        self.session = engine._Session(parts, [], self.report, Limits(total_seconds=600), confined=True)

    def mark(self, exercise: str, code: str) -> Mark:
        """Run ``code`` in place of the solution of ``exercise``, then the tests of that exercise, hidden ones too."""
        cells, result = self.desk.tests[exercise], Mark(0.0, 0.0, [])
        reference = self.desk.references[exercise]
        self.session.left = 600.0
        self.session.start()
        for name in defined_by(reference):
            self.session.run(nb.Part("", "answer", f"{name} = None; del {name}"))
        self.session.run(nb.Part("", "answer", code))
        for cell in cells:
            value, message = engine._test(cell.source, dict(self.desk.setup), self.session)
            score = Score("", "", "", 0.0, nb.points(cell), message)
            result.points += score.points if message else engine._scored(score, value).points
            result.maximum += score.maximum
            result.messages += [message] if message else []
        if self.session.sandbox:
            self.session.run(nb.Part("", "answer", reference))
        return result


def edited(code: str, *changes: tuple[str, str]) -> str:
    """``code`` with every (old, new) replaced; each old text must occur."""
    for old, new in changes:
        if old not in code:
            raise ValueError(f"{old!r} does not occur in the solution any more")
        code = code.replace(old, new)
    return code


def check_wrong(
    desk: Desk, exercise: str, wrong: list[tuple[str, str]], known: dict[str, str], limit: int | None = None
) -> None:
    """Assert that no wrong answer gets full marks, but for the survivors ``known`` (what -> reason); keep a row.

    Equivalent mutants, whose reason begins with "equivalent", are not wrong and do not count. Without a limit to the
    number of mechanical ones, at least 95 % must lose marks.
    """
    mechanical = desk.mutants(exercise, limit)
    everything = wrong + mechanical
    assert len(dict(everything)) == len(everything), "two wrong answers bear the same description"
    alive = desk.survivors(exercise, everything)
    equivalent = [what for what, _ in everything if known.get(what, "").startswith("equivalent")]
    unknown = [what for what in alive if what not in known]
    survived = [what for what in alive if what not in equivalent]
    count = len(everything) - len(equivalent)
    share = 1 - len(survived) / count
    TABLE.append(
        f"{exercise:28} {len(wrong):3} hand-written + {len(mechanical):3} mechanical - {len(equivalent):2} equivalent: "
        f"{count - len(survived):3} of {count:3} lose marks ({share:.1%}); survivors: {'; '.join(survived) or 'none'}"
    )
    stale = [what for what in known if what not in alive and what in dict(everything)]
    assert not unknown, f"{exercise}: wrong answers get full marks: {unknown}"
    assert not stale, f"{exercise}: listed as surviving, but they lose marks: {stale}"
    assert share >= 0.95 or limit is not None, f"{exercise}: only {share:.1%} of the wrong answers lose marks"


def defined_by(code: str) -> list[str]:
    """Names that an answer defines at its top level."""
    return sorted(names.made(ast.parse(code)))


def _run(code: str, namespace: dict[str, Any]) -> Any:
    tree = ast.parse(code)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name("_last", ast.Store())], last.value)
    exec(compile(ast.fix_missing_locations(tree), "<test>", "exec"), namespace)
    return namespace.get("_last")

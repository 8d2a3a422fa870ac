"""Mark one submission: its code in a process of its own, the tests here.

The tests of the source run in this process; what the student wrote runs in another one (`sandbox`). A test that calls
``my_denoiser(x, sigma)`` sends x and sigma over and compares what comes back, so the student's code never sees a hidden
test or an expected value, and cannot replace the comparison. If that process dies or hangs, the cell or test that did
it is charged, a new one is started without it, and marking goes on. What is marked runs first: own cells that no answer
needs have a time of their own, after the tests. `mark` never raises for what a student did.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import re
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

from nbformat import NotebookNode

from teachkit.course.assignments import magics, names, testing, written
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.process import START_SECONDS, NoSandbox, Sandbox
from teachkit.course.assignments.report import Limits, Report, Score
from teachkit.course.assignments.values import Refused
from teachkit.course.assignments.wire import RemoteError, Stopped

__all__ = ["mark"]

_LONGEST = 2000  # characters of a message


def mark(
    source: NotebookNode,
    submission: NotebookNode,
    *,
    student: str = "",
    assignment: str = "",
    hidden: bool = True,
    limits: Limits | None = None,
    seed: int | None = None,
    confined: bool = True,
) -> Report:
    """Mark a submission against its source.

    Parameters
    ----------
    source, submission : NotebookNode
        Everything locked is taken from ``source``; from ``submission`` come answers and the student's own cells.
    student, assignment : str
        Names for the report.
    hidden : bool
        Run the hidden tests too.
    limits : Limits, optional
        Time and memory.
    seed : int, optional
        Seed of the tests' inputs; default: `teachkit.course.assignments.testing.cohort`.
    confined : bool
        Keep the student's code to a scratch folder, and away from processes and the network.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a set-up cell of the source fails.
    NoSandbox
        If no process can be started, or set-up cells fail in it before any code of the student has run.

    Examples
    --------
    >>> from nbformat.v4 import new_notebook
    >>> empty = new_notebook()
    >>> mark(empty, empty, student="ann").maximum
    0
    """
    start = time.monotonic()
    limits = limits or Limits()
    parts, notes = nb.merge(source, submission)
    answers, remarks = written.collect(source, submission)
    notes = [*filter(None, [nb.other_version(submission)]), *notes, *remarks]
    report = Report(student, assignment, notes=notes, written=answers, id=nb.copy_id(submission), hidden=hidden)
    owners, tests = nb.answers_to(source), nb.tests(source, hidden)
    with (
        testing.seeded(seed),
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.closing(_Session(parts, [cell.source for cell in tests], report, limits, confined)) as session,
    ):
        namespace = _setup(source) | ({} if report.id is None else {"ID": report.id})
        for cell in tests:
            name = nb.grade_id(cell)
            value, message = _test(cell.source, dict(namespace), session)
            score = Score(name, _title(cell), owners[name], 0.0, nb.points(cell), message)
            report.scores.append(score if message else _scored(score, value))
        if report.untested:
            report.notes.append(f"{report.untested} test(s) were not run (time): grade again with more --seconds.")
        session.rest()
    report.seconds = time.monotonic() - start
    return report


class _Session:
    """A sandbox in which the parts of a submission have run, replaced by a new one when it breaks.

    Own cells that neither an answer nor a test needs are left for the end (`rest`). All own cells share a time of their
    own, so that none of it is taken from the tests.
    """

    def __init__(self, parts: list[nb.Part], tests: list[str], report: Report, limits: Limits, confined: bool) -> None:
        later = names.unneeded(parts, tests)
        self.parts = [part for part in parts if part not in later]
        self.later, self.report, self.limits, self.confined = later, report, limits, confined
        self.left, self.own = limits.total_seconds, limits.own_seconds
        self.sandbox: Sandbox | None = None
        self.broken, self.told = set[int](), set[str]()  # parts by their number; labels

    @contextlib.contextmanager
    def seconds(self, own: bool = False) -> Iterator[float]:
        """The time for a cell or a test, taken from what the submission has left. Raises Stopped if none is."""
        left = self.own if own else self.left
        if left <= 0:
            raise Stopped("out of time")
        start = time.monotonic()
        try:
            yield min(left, self.limits.cell_seconds)
        finally:
            left -= time.monotonic() - start
            self.own, self.left = (left, self.left) if own else (self.own, left)

    def start(self) -> Sandbox:
        """The sandbox, started if need be, with every part run but those that broke an earlier one."""
        while self.sandbox is None:
            with self.seconds():  # is there any?
                pass
            self.sandbox = Sandbox(self.limits, self.confined)
            pure = True  # nothing of the student's has run yet
            for index, part in enumerate(self.parts):
                if index in self.broken:
                    continue
                pure = pure and part.role in ("id", "setup")
                error = self.run(part, START_SECONDS if pure else None)
                if error and pure:
                    raise NoSandbox(f"the set-up cell {part.label} fails where submissions run ({error})")
                if self.sandbox is None:
                    self.broken.add(index)
                    break
        return self.sandbox

    def run(self, part: nb.Part, seconds: float | None = None) -> str | None:
        """Run a part; what went wrong, if anything did. The sandbox is closed if it broke."""
        sandbox = self.sandbox
        assert sandbox is not None
        try:
            with contextlib.nullcontext(seconds) if seconds else self.seconds(part.role == "free") as most:
                said = sandbox.peer.request("run", most, code=part.code)
            error = None if said is None else str(said)[:_LONGEST]  # whatever a submission has made of it
        except (RemoteError, Stopped, Refused) as caught:
            error = str(caught) if isinstance(caught, RemoteError) else sandbox.why(caught)
            self.close()
        if error and part.label not in self.told:
            self.told.add(part.label)
            self.report.errors.append((part.label, str(error)))
        return error

    def rest(self) -> None:
        """Run the own cells that are left; the first that breaks the sandbox is the last."""
        for number, part in enumerate(self.later, 1):
            if self.sandbox is None:
                with contextlib.suppress(Stopped):
                    self.left = max(self.left, self.limits.cell_seconds)
                    self.start()
            if self.sandbox is not None:
                self.run(part)
            if self.sandbox is None:
                more = len(self.later) - number
                below = f" and the {more} own cell{'s' if more > 1 else ''} below it were" if more else " was"
                kind = "their" if more else "its"
                self.report.notes.append(f"{part.label}{below} not run to {kind} end; this takes no points.")
                break

    def close(self) -> None:
        """End the sandbox, if there is one."""
        if self.sandbox is not None:
            self.sandbox.close()
            self.report.output = self.report.output or self.sandbox.output
            self.sandbox = None


def _setup(source: NotebookNode) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__assignment__", "get_ipython": lambda: None}
    for cell in source.cells:
        if nb.role(cell) == "setup":
            name = f"<{nb.grade_id(cell)}>"
            try:
                exec(compile(magics.parse(cell.source), name, "exec"), namespace)
            except Exception as error:
                lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
                if isinstance(error, SyntaxError):
                    lines, error = lines or [error.lineno], SyntaxError(error.msg)
                where = magics.line_of(cell.source, lines[-1] if lines else None)
                what = f"{type(error).__name__}: {error}"
                raise ValueError(f"the set-up cell {nb.grade_id(cell)} fails in {where}: {what}") from error
    return namespace


def _test(code: str, namespace: dict[str, Any], session: _Session) -> tuple[Any, str]:
    """The value of a test cell's last line, and why it failed: an empty string if it passed."""
    sandbox: Sandbox | None = None
    try:
        sandbox = session.start()
        with session.seconds() as most:
            sandbox.peer.deadline = time.monotonic() + most
            sandbox.peer.forget()
            for name in sorted(names.names_in(code) - set(namespace) - set(dir(builtins))):
                if sandbox.peer.request("defined", name=name):
                    namespace[name] = sandbox.peer.request("value", name=name)
            return _execute(code, namespace), ""
    except NoSandbox:
        raise
    except AssertionError as error:
        return None, str(error)[:_LONGEST] or "the test failed"
    except NameError as error:
        return None, f"`{error.name}` is not defined; did the cell that defines it fail?"
    except RemoteError as error:
        return None, f"your code raised {error}"
    except (Stopped, Refused) as error:
        session.report.untested += not sandbox
        message = f"your code was {sandbox.why(error)}" if sandbox else "not run: no time was left for this test"
        session.close()
        return None, message
    except Exception as error:  # what came back was so far from what is expected that the test itself tripped
        if re.search("NoneType|ellipsis", str(error)):
            return None, "not answered yet: your code gave nothing."
        return None, f"your answer could not be used: {type(error).__name__}: {str(error)[:300]}"


def _execute(code: str, namespace: dict[str, Any]) -> Any:
    """Run a test cell; the value of its last line if that is an expression."""
    tree = magics.parse(code)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name("_last", ast.Store())], last.value)
    exec(compile(ast.fix_missing_locations(tree), "<test>", "exec"), namespace)
    return namespace.get("_last")


def _scored(score: Score, value: Any) -> Score:
    """A test that passed gives its points, or as many as the number that is the value of its last line."""
    score.points = score.maximum
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        score.points = float(max(0.0, min(value, score.maximum)))  # also for NaN and for huge integers
        score.ratio = getattr(value, "ratio", None)
        if score.points < score.maximum:
            score.message = f"{score.points:g} of {score.maximum:g} points on the scale of this test."
        if score.ratio is not None:
            score.title += f" (error ratio {score.ratio:.3g})"
    return score


def _title(cell: NotebookNode) -> str:
    first = cell.source.lstrip().splitlines()[0] if cell.source.strip() else ""
    return first.lstrip("# ").rstrip(".") if first.startswith("#") else nb.grade_id(cell)

"""Mark one submission: its code in a process of its own, the tests here.

The tests of the source run in this process; what the student wrote runs in another one (`sandbox`). A test that calls
``my_denoiser(x, sigma)`` sends x and sigma over and compares what comes back, so the student's code never sees a hidden
test or an expected value, and cannot replace the comparison. If that process dies or hangs, the cell or test that did
it is charged, a new one is started without it, and marking goes on. `mark` never raises for what a student did.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import time
import traceback
import warnings
from typing import Any

from nbformat import NotebookNode

from teachkit.course.assignments import magics, testing, written
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.process import NoSandbox, Sandbox
from teachkit.course.assignments.report import Limits, Report, Score
from teachkit.course.assignments.wire import Refused, RemoteError, Stopped

__all__ = ["mark"]


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
    report = Report(student, assignment, notes=notes, written=answers)
    owners = nb.answers_to(source)
    with (
        testing.seeded(seed),
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.closing(_Session(parts, report, limits, confined)) as session,
    ):
        namespace = _setup(source)
        for cell in nb.tests(source, hidden):
            name = nb.grade_id(cell)
            value, message = _test(cell.source, dict(namespace), session)
            score = Score(name, _title(cell), owners[name], 0.0, nb.points(cell), message)
            report.scores.append(score if message else _scored(score, value))
    report.seconds = time.monotonic() - start
    return report


class _Session:
    """A sandbox in which the parts of a submission have run, replaced by a new one when it breaks."""

    def __init__(self, parts: list[nb.Part], report: Report, limits: Limits, confined: bool) -> None:
        self.parts, self.report, self.limits, self.confined = parts, report, limits, confined
        self.end = time.monotonic() + limits.total_seconds
        self.sandbox: Sandbox | None = None
        self.broken, self.told = set[int](), set[int]()  # parts, by their number

    def seconds(self, wanted: float) -> float:
        """At most what is left of the submission's time. Raises Stopped if nothing is."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise Stopped("out of time")
        return min(wanted, left)

    def start(self) -> Sandbox:
        """The sandbox, started if need be, with every part run but those that broke an earlier one."""
        while self.sandbox is None:
            self.seconds(1)
            sandbox = self.sandbox = Sandbox(self.limits, self.confined)
            for index, part in enumerate(self.parts):
                if index in self.broken:
                    continue
                try:
                    error = sandbox.peer.request("run", self.seconds(self.limits.cell_seconds), code=part.code)
                except (RemoteError, Stopped, Refused) as caught:
                    self.broken.add(index)
                    error = str(caught) if isinstance(caught, RemoteError) else sandbox.why(caught)
                    self.close()
                if error and all(p.role == "setup" for p in self.parts[: index + 1]):
                    raise NoSandbox(f"the set-up cell {part.label} fails where submissions run ({error})")
                if error and index not in self.told:
                    self.told.add(index)
                    self.report.errors.append((part.label, str(error)))
                if self.sandbox is None:
                    break
        return self.sandbox

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
        sandbox.peer.forget()
        sandbox.peer.deadline = time.monotonic() + session.seconds(session.limits.test_seconds)
        for name in sorted(nb.names_in(code) - set(namespace) - set(dir(builtins))):
            if sandbox.peer.request("defined", name=name):
                namespace[name] = sandbox.peer.request("value", name=name)
        return _execute(code, namespace), ""
    except NoSandbox:
        raise
    except AssertionError as error:
        return None, str(error) or "the test failed"
    except NameError as error:
        return None, f"`{error.name}` is not defined; did the cell that defines it fail?"
    except RemoteError as error:
        return None, f"your code raised {error}"
    except (Stopped, Refused) as error:
        message = f"your code was {sandbox.why(error)}" if sandbox else "no time was left for this test"
        session.close()
        return None, message
    except Exception as error:  # what came back was so far from what is expected that the test itself tripped
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

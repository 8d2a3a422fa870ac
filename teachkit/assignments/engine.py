"""Mark one submission: its code in a process of its own, the tests here.

The tests of the source run in this process; what the student wrote runs in another one
(`teachkit.assignments.sandbox`). A test that calls ``my_denoiser(x, sigma)`` sends x and sigma over and compares what
comes back, so the student's code never sees a hidden test or an expected value, and cannot replace the comparison. If
that process dies or hangs, the cell or test that did it is charged, a new one is started without it, and marking goes
on. `mark` never raises for what a student did.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from teachkit.assignments import notebook as nb
from teachkit.assignments.wire import Peer, Refused, RemoteError, Stopped

__all__ = ["Limits", "Report", "Score", "Written", "mark"]


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds for a cell, a test and everything, and megabytes of memory and of file."""

    cell_seconds: float = 60.0
    test_seconds: float = 60.0
    total_seconds: float = 600.0
    memory_megabytes: int = 2048
    file_megabytes: float = 20.0
    output_characters: int = 4000
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (isinstance(value, (int, float)) and value > 0):
                raise ValueError(f"{name} must be a number > 0, got {value!r}")


@dataclass
class Score:
    """Outcome of one test."""

    name: str
    title: str
    answer: str
    points: float
    maximum: float
    message: str = ""


@dataclass
class Written:
    """A question answered in words: what the student wrote, to be marked by a person."""

    name: str
    question: str
    text: str
    maximum: float
    points: float | None = None
    comment: str = ""


@dataclass
class Report:
    """Everything that is known about one submission after marking."""

    student: str
    assignment: str
    scores: list[Score] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    output: str = ""
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """Points from tests."""
        return sum(s.points for s in self.scores)

    @property
    def maximum(self) -> float:
        """What the tests can give."""
        return sum(s.maximum for s in self.scores)

    @property
    def written_points(self) -> float | None:
        """Points for the written questions, or None while one of them is not marked."""
        marks = [w.points for w in self.written]
        return None if any(p is None for p in marks) else sum(p for p in marks if p is not None)

    @property
    def written_maximum(self) -> float:
        """What the written questions can give."""
        return sum(w.maximum for w in self.written)


class NoSandbox(RuntimeError):
    """A process for the student's code could not be started: the grader's trouble, not the student's."""


class Sandbox:
    """A running process for a student's code; a context manager that leaves no process and no file behind."""

    def __init__(self, limits: Limits, protected: Sequence[Path | str] = ()) -> None:
        self.limits, self.output, self.reason = limits, "", ""
        self._folder = tempfile.TemporaryDirectory(prefix="teachkit-", ignore_cleanup_errors=True)
        self._marker, token = secrets.token_hex(8), secrets.token_bytes(16)
        keep = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
        threads = str(limits.threads)
        environment = {k: os.environ[k] for k in keep if k in os.environ} | {
            **{"HOME": self._folder.name, "TMPDIR": self._folder.name, "MPLCONFIGDIR": self._folder.name},
            **{"IPYTHONDIR": self._folder.name, "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
            **{"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": threads, "TEACHKIT_SANDBOX": self._marker},
        }
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                server.settimeout(1.0)
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "teachkit.assignments.sandbox"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    cwd=self._folder.name, env=environment, start_new_session=True,
                )  # fmt: skip
                settings = {
                    **{"port": server.getsockname()[1], "token": token.hex(), "scratch": self._folder.name},
                    **{"megabytes": limits.memory_megabytes, "threads": limits.threads},
                    **{"protected": [str(p) for p in protected]},
                }
                assert self.process.stdin is not None
                self.process.stdin.write(json.dumps(settings).encode() + b"\n")
                self.process.stdin.close()
                threading.Thread(target=self._drain, daemon=True).start()
                self._line = self._accept(server, token)
            self.peer = Peer(self._line, {})
            threading.Thread(target=self._watch_memory, daemon=True).start()
            self.peer.request("ready", 180)
        except BaseException as error:
            self.close()
            if isinstance(error, (Stopped, Refused, RemoteError)):
                raise NoSandbox(f"the process for submissions did not start: {self.output[-500:]}") from error
            raise

    def _accept(self, server: socket.socket, token: bytes) -> socket.socket:
        end = time.monotonic() + 180
        while time.monotonic() < end and self.process.poll() is None:
            try:
                line, _ = server.accept()
            except TimeoutError:
                continue
            line.settimeout(10)
            if secrets.compare_digest(line.recv(len(token), socket.MSG_WAITALL), token):
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return line
            line.close()
        time.sleep(0.2)
        raise NoSandbox(f"the process for submissions did not start: {self.output[-500:]}")

    def _drain(self) -> None:
        """Read everything that is printed, and keep the beginning."""
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 1 << 16):
            room = self.limits.output_characters - len(self.output)
            if room > 0:
                self.output += piece[:room].decode("utf-8", "replace")
                if len(piece) > room:
                    self.output += "\n[output cut here]"

    def _watch_memory(self) -> None:
        import psutil

        try:
            own = psutil.Process(self.process.pid)
            base = own.memory_info().rss
            while self.process.poll() is None:
                used = own.memory_info().rss + sum(c.memory_info().rss for c in own.children(recursive=True))
                if used - base > 1.2 * self.limits.memory_megabytes * 2**20:
                    self.reason = f"more than {self.limits.memory_megabytes} MB of memory"
                    self.kill()
                time.sleep(0.1)
        except psutil.Error:
            pass

    def kill(self) -> None:
        """End the process and everything it started."""
        import psutil

        victims = []
        for process in psutil.process_iter():
            try:
                if process.pid == self.process.pid or process.environ().get("TEACHKIT_SANDBOX") == self._marker:
                    victims.append(process)
            except (psutil.Error, OSError):
                continue
        for process in victims:
            try:
                process.kill()
            except psutil.Error:
                continue
        self.process.wait()

    def why(self, error: Exception) -> str:
        """What stopped the process, for the student."""
        if self.reason:
            return f"stopped: {self.reason}"
        if isinstance(error, Refused):
            return f"stopped: {error}"
        if "time" in str(error):
            return "stopped: it did not finish in time (an endless loop?)"
        time.sleep(0.2)
        code = self.process.poll()
        return "stopped: the process died" + (f" (exit code {code})" if code is not None else "")

    def close(self) -> None:
        """End everything and delete the scratch folder."""
        if hasattr(self, "process"):
            self.kill()
        if hasattr(self, "_line"):
            self._line.close()
        self._folder.cleanup()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Session:
    """A sandbox in which the parts of a submission have run, replaced by a new one when it breaks."""

    def __init__(self, parts: list[nb.Part], report: Report, limits: Limits, protected: Sequence[Path | str]) -> None:
        self.parts, self.report, self.limits, self.protected = parts, report, limits, protected
        self.end = time.monotonic() + limits.total_seconds
        self.sandbox: Sandbox | None = None
        self.broken: set[int] = set()
        self.told: set[int] = set()

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
            sandbox = self.sandbox = Sandbox(self.limits, self.protected)
            for index, part in enumerate(self.parts):
                if index in self.broken:
                    continue
                try:
                    error = sandbox.peer.request("run", self.seconds(self.limits.cell_seconds), code=part.code)
                except RemoteError as caught:
                    error = str(caught)
                except (Stopped, Refused) as caught:
                    self.broken.add(index)
                    self.report.errors.append((part.label, sandbox.why(caught)))
                    self.stop()
                    break
                if error and index not in self.told:
                    self.told.add(index)
                    self.report.errors.append((part.label, str(error)))
        return self.sandbox

    def stop(self) -> None:
        if self.sandbox is not None:
            self.report.output = self.report.output or self.sandbox.output
            self.sandbox.close()
            self.sandbox = None


def mark(
    source: NotebookNode,
    submission: NotebookNode,
    *,
    student: str = "",
    assignment: str = "",
    hidden: bool = True,
    limits: Limits | None = None,
    protected: Sequence[Path | str] = (),
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
    limits : Limits
        Time and memory.
    protected : sequence of paths
        Folders that the student's code may not read. If there are any, it is confined to its scratch folder.

    Returns
    -------
    Report
    """
    start = time.monotonic()
    limits = limits or Limits()
    parts, notes = nb.merge(source, submission)
    report = Report(student, assignment, notes=notes, written=_written(source, submission))
    owners = nb.answers_to(source)
    session = _Session(parts, report, limits, protected)
    try:
        namespace = _setup(source)
        for cell in nb.tests(source, hidden):
            name, maximum = nb.grade_id(cell), float(nb.meta(cell)["points"])
            points, message = _test(cell.source, maximum, dict(namespace), session)
            report.scores.append(Score(name, _title(cell), owners[name], points, maximum, message))
    finally:
        session.stop()
    report.seconds = time.monotonic() - start
    return report


def _setup(source: NotebookNode) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__assignment__"}
    for cell in source.cells:
        if nb.role(cell) == "setup":
            exec(compile(cell.source, f"<{nb.grade_id(cell)}>", "exec"), namespace)
    return namespace


def _test(code: str, maximum: float, namespace: dict[str, Any], session: _Session) -> tuple[float, str]:
    """Points and message of one test cell."""
    sandbox: Sandbox | None = None
    try:
        sandbox = session.start()
        sandbox.peer.forget()
        sandbox.peer.deadline = time.monotonic() + session.seconds(session.limits.test_seconds)
        for name in sorted(nb.names_in(code) - set(namespace) - set(dir(builtins))):
            if sandbox.peer.request("defined", name=name):
                namespace[name] = sandbox.peer.request("value", name=name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = _execute(code, namespace)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            points = max(0.0, min(float(value), maximum))
            return points, "" if points == maximum else f"{points:g} of {maximum:g} points on the scale of this test."
        return maximum, ""
    except NoSandbox:
        raise
    except AssertionError as error:
        return 0.0, str(error) or "the test failed"
    except NameError as error:
        return 0.0, f"`{error.name}` is not defined; did the cell that defines it fail?"
    except RemoteError as error:
        return 0.0, f"your code raised {error}"
    except (Stopped, Refused) as error:
        message = f"your code was {sandbox.why(error)}" if sandbox else "no time was left for this test"
        session.stop()
        return 0.0, message
    except Exception as error:  # what came back was so far from what is expected that the test itself tripped
        return 0.0, f"your answer could not be used: {type(error).__name__}: {str(error)[:300]}"


def _execute(code: str, namespace: dict[str, Any]) -> Any:
    """Run a test cell; the value of its last line if that is an expression."""
    tree = ast.parse(code)
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name("_last", ast.Store())], last.value)
    exec(compile(ast.fix_missing_locations(tree), "<test>", "exec"), namespace)
    return namespace.get("_last")


def _title(cell: NotebookNode) -> str:
    first = cell.source.lstrip().splitlines()[0] if cell.source.strip() else ""
    return first.lstrip("# ").rstrip(".") if first.startswith("#") else nb.grade_id(cell)


def _written(source: NotebookNode, submission: NotebookNode) -> list[Written]:
    texts = {nb.grade_id(c): c.source for c in submission.cells if nb.grade_id(c)}
    found, question = [], ""
    for cell in source.cells:
        if nb.role(cell) == "written":
            name = nb.grade_id(cell)
            text = texts.get(name, "").replace(nb.WRITTEN_STUB, "").strip()
            found.append(Written(name, question, text, float(nb.meta(cell)["points"]), None if text else 0.0))
        elif cell.cell_type == "markdown":
            question = cell.source
    return found

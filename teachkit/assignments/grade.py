"""Check one notebook, or grade a folder of them: what ``teachkit assignments check`` and ``grade`` do.

`grade` never stops for a bad submission: whatever a file holds, its row is written and the next one follows. See
`teachkit.assignments.engine` for how a submission is run.
"""

from __future__ import annotations

import csv
import io
import json
import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from teachkit.assignments import feedback, testing
from teachkit.assignments import notebook as nb
from teachkit.assignments.build import write_text
from teachkit.assignments.engine import Limits, Report, Score, mark

__all__ = ["check", "grade"]


def check(file: Path | str, *, limits: Limits | None = None) -> Report:
    """Run a student's notebook and its visible tests; needs no network and no source.

    Parameters
    ----------
    file : path
        The notebook.
    limits : Limits, optional
        Time and memory; generous by default.

    Returns
    -------
    Report
        ``teachkit.assignments.feedback.summary(report)`` is its text.

    Raises
    ------
    ValueError
        If the file cannot be read or holds no tests.
    """
    path = Path(file)
    limits = limits or Limits(memory_megabytes=8192)
    notebook = nb.read(path, limits.file_megabytes)
    if not nb.tests(notebook, hidden=False):
        raise ValueError(f"{path.name} holds no tests: is it an assignment?")
    return mark(notebook, notebook, assignment=path.stem, hidden=False, limits=limits)


def grade(
    submissions: Path | str,
    source: Path | str,
    out: Path | str,
    *,
    seed: int | None = None,
    limits: Limits | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Report]:
    """Grade a folder of submissions with the hidden tests.

    Parameters
    ----------
    submissions : path
        Holds one notebook per student, ``NAME.ipynb``, or one folder per student, ``NAME/anything.ipynb``.
    source : path
        The instructor source.
    out : path
        Gets ``grades.csv`` (one row per student), ``written.csv`` (answers for a person to mark; fill in ``points`` and
        ``comment`` and grade again), ``grading.json`` (the seed and limits used) and ``feedback/NAME.html``.
    seed : int, optional
        Seed of the tests' random inputs. A fresh one by default, the same for all in this call, kept in
        ``grading.json``.
    limits : Limits, optional
        Time, memory and file size for each submission.
    jobs : int
        How many submissions to run at a time.
    progress : callable
        Gets a line for every submission done.

    Returns
    -------
    list of Report
        In the order of the students' names.

    Raises
    ------
    ValueError
        If there are no submissions, or the source breaks a rule. Never for what a submission holds.
    """
    submissions, source, out = Path(submissions), Path(source), Path(out)
    if not submissions.is_dir():
        raise ValueError(f"submissions must be a folder, got {submissions}")
    if not (isinstance(jobs, int) and jobs >= 1):
        raise ValueError(f"jobs must be an integer >= 1, got {jobs!r}")
    limits = limits or Limits()
    original = nb.read(source)
    nb.validate(original, source.name)
    if not nb.tests(original, hidden=True):
        raise ValueError(f"source must hold tests, but {source.name} has none")
    found = _find(submissions, source.stem)
    if not found:
        raise ValueError(f"submissions must hold at least one file or folder, but {submissions} is empty")
    seed = testing.cohort(secrets.randbelow(2**31) if seed is None else seed)
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    marked = _read_written(out / "written.csv")
    protected = [source.resolve().parent, submissions.resolve(), out.resolve()]

    def one(item: tuple[str, list[Path]]) -> Report:
        student, files = item
        report = _grade_one(original, source.stem, student, files, limits, protected)
        for answer in report.written:
            if (student, answer.name) in marked:
                points, answer.comment = marked[student, answer.name]
                answer.points = min(points, answer.maximum) if points is not None else answer.points
        write_text(out / "feedback" / f"{_slug(student)}.html", feedback.page(report))
        progress(f"{student}: {report.points:g} of {report.maximum:g} in {report.seconds:.0f} s")
        return report

    with ThreadPoolExecutor(jobs) as pool:
        reports = list(pool.map(one, found))
    settings = {"assignment": source.stem, "seed": seed, "limits": vars(limits)}
    write_text(out / "grading.json", json.dumps(settings, indent=2) + "\n")
    write_text(out / "written.csv", _written_csv(reports))
    write_text(out / "grades.csv", _grades_csv(reports))
    return reports


def _find(folder: Path, assignment: str) -> list[tuple[str, list[Path]]]:
    """Students and their files; several files are left to `_grade_one` to complain about."""
    found: list[tuple[str, list[Path]]] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_symlink():
            found.append((entry.stem, []))
        elif entry.is_dir():
            files = [p for p in sorted(entry.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts and p.is_file()]
            files = [p for p in files if not p.is_symlink()]
            named = [p for p in files if p.stem == assignment]
            found.append((entry.name, named if len(named) == 1 else files))
        else:
            found.append((entry.stem, [entry]))
    return found


def _grade_one(
    original: nb.NotebookNode,
    assignment: str,
    student: str,
    files: Sequence[Path],
    limits: Limits,
    protected: Sequence[Path],
) -> Report:
    try:
        if len(files) != 1:
            raise ValueError(f"expected one notebook called {assignment}.ipynb, found {len(files)}")
        if files[0].suffix != ".ipynb":
            raise ValueError(f"expected a notebook (.ipynb), got {files[0].name}")
        notebook = nb.read(files[0], limits.file_megabytes)
        return mark(original, notebook, student=student, assignment=assignment, limits=limits, protected=protected)
    except Exception as error:  # one bad submission must not stop the others
        text = str(error) if isinstance(error, ValueError) else f"could not be graded: {type(error).__name__}: {error}"
        report = Report(student, assignment, notes=[text[:1000]])
        owners = nb.answers_to(original)
        for cell in nb.tests(original, hidden=False):
            name = nb.grade_id(cell)
            report.scores.append(Score(name, name, owners[name], 0.0, float(nb.meta(cell)["points"]), "not run"))
        return report


def _grades_csv(reports: Sequence[Report]) -> str:
    tests = list(dict.fromkeys(s.name for r in reports for s in r.scores))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["student", "assignment", "points", "maximum", "written", "written_maximum", "remarks"]
    writer.writerow([*head, *tests])
    for r in reports:
        by_name = {s.name: s for s in r.scores}
        written = "" if r.written_points is None or not r.written else f"{r.written_points:g}"
        remarks = "; ".join([*r.notes, *(f"{where}: {what}" for where, what in r.errors)])
        row = [_safe(r.student), r.assignment, f"{r.points:g}", f"{r.maximum:g}", written, f"{r.written_maximum:g}"]
        row.append(_safe(re.sub(r"\s+", " ", remarks)[:500]))
        writer.writerow(row + [f"{by_name[t].points:g}" if t in by_name else "" for t in tests])
    return file.getvalue()


def _written_csv(reports: Sequence[Report]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["student", "question", "points", "maximum", "comment", "answer"])
    for r in reports:
        for w in r.written:
            points = "" if w.points is None else f"{w.points:g}"
            answer = w.text[:20_000].replace("\x00", "")
            writer.writerow([_safe(r.student), w.name, points, f"{w.maximum:g}", w.comment, _safe(answer)])
    return file.getvalue()


def _read_written(path: Path) -> dict[tuple[str, str], tuple[float | None, str]]:
    if not path.is_file():
        return {}
    csv.field_size_limit(10_000_000)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    marked: dict[tuple[str, str], tuple[float | None, str]] = {}
    for row in rows:
        try:
            points = float(row["points"]) if row["points"].strip() else None
            if points is not None and not 0 <= points <= float(row["maximum"]):
                raise ValueError
        except (ValueError, KeyError):
            who = f"{row.get('student')}, {row.get('question')}"
            raise ValueError(f"{path.name}: points of {who} must be a number from 0 to {row.get('maximum')}") from None
        marked[row["student"].removeprefix("'"), row["question"]] = (points, row.get("comment") or "")
    return marked


def _safe(text: str) -> str:
    """Keep a spreadsheet from taking a student's text for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _slug(student: str) -> str:
    """A file name; names that differ stay apart."""
    plain = re.sub(r"[^\w.-]", "_", student).strip(".") or "_"
    return plain if plain == student else f"{plain}-{sum(student.encode()) % 9973}"

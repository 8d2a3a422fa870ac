"""Check one notebook, or grade a folder of them: what ``teachkit assignments check`` and ``grade`` do.

`grade` never stops for a bad submission: whatever a file holds, its row is written and the next one follows. What is
done is kept, so that grading again (after an interruption, with one more submission, or after marking the written
answers) runs only what is new. See `teachkit.course.assignments.worker` and `engine` for how a submission is run.
"""

from __future__ import annotations

import itertools
import json
import secrets
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from nbformat import NotebookNode
from tqdm import tqdm

from teachkit import checks
from teachkit.course.assignments import feedback, marking, rules, tables
from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.build import read_ids, write_text
from teachkit.course.assignments.engine import mark
from teachkit.course.assignments.report import Limits, Report
from teachkit.course.assignments.worker import mark_apart, not_marked
from teachkit.files import checksum
from teachkit.fingerprints import fingerprint, surroundings

__all__ = ["check", "grade"]

Submission = tuple[str, list[Path]]
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # bidirectional classes of Unicode


def check(file: Path | str, *, limits: Limits | None = None) -> Report:
    """Run a student's notebook and its visible tests; needs no network and no source.

    Parameters
    ----------
    file : path
        The notebook.
    limits : Limits, optional
        Time and memory, by default those of `grade`.

    Returns
    -------
    Report
        ``teachkit.course.assignments.feedback.summary(report)`` is its text.

    Raises
    ------
    ValueError
        If the file cannot be read or holds no tests.

    Examples
    --------
    >>> check("no such file.ipynb")
    Traceback (most recent call last):
        ...
    ValueError: no such file.ipynb is not a file
    """
    path = checks.path("file", file)
    limits = limits or Limits()
    with warnings.catch_warnings(action="ignore"):  # of cells without ids: nothing that a student could do
        notebook = nb.read(path, limits.file_megabytes)
    if not nb.tests(notebook, hidden=False):
        raise ValueError(f"{path.name} holds no tests: is it an assignment?")
    return mark(notebook, notebook, assignment=path.stem, hidden=False, limits=limits, confined=False)


def grade(
    submissions: Path | str,
    source: Path | str,
    out: Path | str,
    *,
    seed: int | None = None,
    limits: Limits | None = None,
    jobs: int = 1,
    ids: Path | str | None = None,
    progress: bool = False,
) -> list[Report]:
    """Grade a folder of submissions with the hidden tests.

    Parameters
    ----------
    submissions : path
        Holds one notebook per student, ``NAME.ipynb``, or one folder per student, ``NAME/ASSIGNMENT.ipynb``.
    source : path
        The instructor source.
    out : path
        Gets ``grades.csv`` (one row per student), ``written.csv`` (answers for a person to mark) and
        ``marking/QUESTION.html`` (pages to do so; what they save goes into that folder), ``leaderboard.json`` if a test
        gives points on a scale, ``feedback/NAME.html``, and ``grading.json`` (seed, limits) with ``reports/`` (what is
        done). ``overrides.csv``, if it is there, changes points. Every file is whole or absent.
    seed : int, optional
        Seed of the tests' random inputs: by default that of ``grading.json``, or a fresh one.
    limits : Limits, optional
        Time, memory and file size for each submission.
    jobs : int
        How many submissions to run at a time.
    ids : path, optional
        The ``ids.csv`` of `build`: names for the ids of copies, and a remark where an id is not there.
    progress : bool
        Show a progress bar on stderr, and say there what of the tables could not be used.

    Returns
    -------
    list of Report
        In the order of the students' names.

    Raises
    ------
    ValueError
        If there are no submissions, or the source breaks a rule. Never for what a submission holds.

    Examples
    --------
    >>> grade("no such folder", "no such source.ipynb", "grades")
    Traceback (most recent call last):
        ...
    ValueError: no such source.ipynb is not a file
    """
    submissions, source = checks.path("submissions", submissions), checks.path("source", source)
    out, limits = checks.path("out", out), limits or Limits()
    jobs = checks.integer("jobs", jobs, 1)
    original = nb.read(source)
    rules.validate(original, source.name)
    if not nb.tests(original, hidden=True):
        raise ValueError(f"source must hold tests, but {source.name} has none")
    found = _find(submissions, out)
    seed = _seed(seed, out, source.stem, limits)
    marked = tables.read_written(out / "written.csv")
    # What marks besides the source may change too. Read in this thread: two at once confuse Python 3.11's ast.parse.
    marker = fingerprint(surroundings("course/assignments", "course/grading"))
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_one, source, item, out, limits, seed, marker) for item in found]
        try:
            for done in tqdm(as_completed(waiting), total=len(waiting), disable=not progress, unit="submission"):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    reports = [done.result() for done in waiting]
    marked = tables.settle(marked, reports)
    remarks = marking.taken(out / "marking", reports, seed, marked)
    known = {(report.student, answer.name) for report in reports for answer in report.written}
    if lost := [who for who, row in marked.items() if row["points"] and who not in known]:
        remarks.append(
            f"written.csv: {len(lost)} row(s) with points belong to no submission, the first to {', '.join(lost[0])}"
        )
    names = {number: who for (who, what), number in read_ids(Path(ids)).items() if what == source.stem} if ids else {}
    _check_ids(reports, names if ids else None)
    _settle_written(reports, marked)
    if lost_changes := tables.override(reports, out / "overrides.csv"):
        remarks.append(f"overrides.csv: {len(lost_changes)} row(s) belong to no submission: {lost_changes[0]}")
    remarks += _write(reports, marked, names, original, seed, out)
    for remark in remarks if progress else ():
        tqdm.write(remark, file=sys.stderr)
    return reports


def _check_ids(reports: Sequence[Report], names: Mapping[int, str] | None) -> None:
    """Remarks on ids that several bear, or that no copy was given."""
    count = Counter(report.id for report in reports if report.id is not None)
    for report in reports:
        if report.id is not None and len(count) > 1 and count[report.id] > 1:
            report.notes.append(f"The id {report.id} of this copy stands in {count[report.id]} submissions.")
        if names is not None and report.id is not None and report.id not in names:
            report.notes.append(f"The id {report.id} of this copy was given to nobody.")


def _seed(seed: int | None, out: Path, assignment: str, limits: Limits) -> int:
    """The seed to use, kept in ``grading.json``. Raises a ValueError if ``out`` belongs to another assignment."""
    path = out / "grading.json"
    before = json.loads(path.read_text(encoding="utf-8") if path.is_file() else "{}")
    if before.get("assignment", assignment) != assignment:
        raise ValueError(f"out must be another folder: {out} holds the grades of {before['assignment']}")
    seed = before.get("seed", secrets.randbelow(2**31)) if seed is None else seed
    for folder in ("feedback", "marking", "reports"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    settings = {**before, "assignment": assignment, "seed": seed, "limits": vars(limits)}
    write_text(path, json.dumps(settings, indent=2) + "\n")
    return seed


def _find(folder: Path, out: Path) -> list[Submission]:
    """Students and their notebooks; ``out`` is none. Students whose names differ in the ending only keep it."""
    if not folder.is_dir():
        raise ValueError(f"submissions must be a folder, got {folder}")
    entries = sorted(e for e in folder.iterdir() if not _hidden(e.name) and e.resolve() != out.resolve())
    if not entries:
        raise ValueError(f"submissions must hold at least one file or folder, but {folder} is empty")
    names = {e: _readable(e.name if e.is_dir() else e.stem) for e in entries}
    for _ in range(2):  # a full name may be what another is called without its ending
        same = Counter(name.casefold() for name in names.values())
        names = {e: _readable(e.name) if same[name.casefold()] > 1 else name for e, name in names.items()}
    return [(names[e], _notebooks(e)) for e in entries]


def _readable(name: str) -> str:
    """A name that can be shown: what is no text, or would steer a terminal, is spelt out, and so is a backslash."""

    def steers(c: str) -> bool:  # a backslash, control characters, halves of characters, changes of direction
        return c == "\\" or unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in _TURNS

    return "".join(c.encode("unicode_escape").decode() if steers(c) else c for c in name)


def _hidden(name: str) -> bool:
    """Whether a file or folder is one that systems leave beside what a student made."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _notebooks(entry: Path) -> list[Path]:
    if entry.is_symlink():
        return []
    if not entry.is_dir():
        return [entry]
    try:
        files = [p for p in sorted(entry.rglob("*.ipynb")) if not any(map(_hidden, p.relative_to(entry).parts))]
        return [p for p in files if p.is_file() and not p.is_symlink()]
    except (OSError, RecursionError):  # folders that may not be read, or too deep
        return []


def _one(source: Path, item: Submission, out: Path, limits: Limits, seed: int, marker: str) -> Report:
    """The report on one submission: the one kept in ``reports/``, if nothing has changed since."""
    student, files = item
    kept = out / "reports" / f"{tables.slug(student)}.json"
    state = _fingerprint([source, *files], f"{student}/{limits}/{seed}/{marker}", limits)
    if kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before["state"] == state:
            return Report.from_dict(before["report"])
    try:
        report = mark_apart(source, student, files, limits, seed)
    except Exception as error:  # the machine's trouble, not the batch's
        why = f"marking failed ({type(error).__name__}: {str(error)[:200]}); a person must look"
        return not_marked(source, student, why, failed=True)
    if not report.failed:
        write_text(kept, json.dumps({"state": state, "report": report.to_dict()}))
    return report


def _fingerprint(files: Sequence[Path], text: str, limits: Limits) -> str:
    found: list[object] = [text]
    for file in files:
        try:
            size = file.stat().st_size
            found += [file.name, size]
            if file.is_file() and size <= 1e6 * limits.file_megabytes:
                found.append(checksum(file))
        except OSError as error:
            found.append(type(error).__name__)
    return fingerprint(found)


def _settle_written(reports: Sequence[Report], marked: tables.Rows) -> None:
    """Give every written answer the points and the comment of its row."""
    for report in reports:
        for answer in report.written:
            if row := marked.get((report.student, answer.name)):
                answer.comment = row["comment"]
                if row["version"] not in ("", tables.version(answer.text)):  # another text was handed in since
                    if row["answer"]:
                        before = f"{row['points']} points; " if row["points"] else ""
                        answer.comment = f"[to an earlier answer: {before}{row['comment']}]"
                elif row["points"]:
                    answer.points = min(float(row["points"]), answer.maximum)


def _write(
    reports: Sequence[Report], marked: tables.Rows, names: Mapping[int, str], source: NotebookNode, seed: int, out: Path
) -> list[str]:
    """Write tables and pages; a ``grades.csv`` that a person has changed is kept under another name, with a remark."""
    for report in reports:
        write_text(out / "feedback" / f"{tables.slug(report.student)}.html", feedback.page(report))
    for question, page in marking.pages(source, reports, seed).items():
        write_text(out / "marking" / f"{question}.html", page)
    # The mark in front tells spreadsheets that this is UTF-8; without it they spoil names when they save.
    write_text(out / "written.csv", "\ufeff" + tables.written_csv(reports, marked))
    if board := tables.leaderboard_json(reports):
        write_text(out / "leaderboard.json", board)
    remarks, grades, path = [], out / "grades.csv", out / "grading.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if grades.is_file() and checksum(grades) != settings.get("grades"):
        number = next(n for n in itertools.count(1) if not (out / f"grades-edited-{n}.csv").exists())
        grades.replace(out / f"grades-edited-{number}.csv")
        kept = f"grades-edited-{number}.csv"
        remarks.append(f"grades.csv was changed by hand: kept as {kept}; what shall last belongs into overrides.csv")
    write_text(grades, "\ufeff" + tables.grades_csv(reports, names))
    write_text(path, json.dumps({**settings, "grades": checksum(grades)}, indent=2) + "\n")
    return remarks

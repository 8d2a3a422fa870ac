"""Mark one submission in a process of its own, so that nothing it does can end the batch.

`mark_apart` starts a process that runs `main`, and waits for the report, which that process writes to a file. The
student's code runs in a third one (`teachkit.course.assignments.sandbox`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from teachkit.course.assignments import notebook as nb
from teachkit.course.assignments.build import write_text
from teachkit.course.assignments.engine import mark
from teachkit.course.assignments.process import end, start
from teachkit.course.assignments.report import Limits, Report, Score
from teachkit.course.assignments.sandbox import limit_resources

__all__ = ["main", "mark_apart", "not_marked"]

START_SECONDS = 600.0  # for importing torch on a busy machine, again after each cell or test that breaks a process


def mark_apart(source: Path, student: str, files: Sequence[Path], limits: Limits, seed: int) -> Report:
    """The report on one submission; never raises for what it holds.

    Parameters
    ----------
    source : Path
        The instructor source.
    student : str
        Name of the student.
    files : sequence of Path
        The notebooks found; of several none is marked, and a person must look.
    limits : Limits
        Time, memory and file size.
    seed : int
        Seed of the cohort.
    """
    if not files:
        return not_marked(source, student, "there is no notebook")
    if len(files) > 1:  # the newest is not known: archives and learning systems change dates
        names = ", ".join(sorted(file.name for file in files))
        why = f"{len(files)} notebooks ({names}): none was marked; leave the one that counts, and grade again"
        return not_marked(source, student, why, failed=True)
    if files[0].suffix != ".ipynb":
        return not_marked(source, student, f"expected a notebook (.ipynb), got {files[0].name}")
    with tempfile.TemporaryDirectory(prefix="teachkit-") as folder:
        result = Path(folder) / "report.json"
        paths = [str(path.resolve()) for path in (source, files[0], result)]
        job = {"paths": paths, "student": student, "seed": seed, "limits": vars(limits)}
        allowed = limits.total_seconds + limits.own_seconds
        process = start("worker", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, words = process.communicate(json.dumps(job).encode(), allowed + START_SECONDS)
            why = words.decode("utf-8", "replace").strip().rpartition("\n")[2] or f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            why = f"it did not end after {allowed:g} s, the time limit, and {START_SECONDS:g} s more"
        finally:
            end(process.pid)
            process.wait()
        if result.is_file():
            return Report.from_dict(json.loads(result.read_text(encoding="utf-8")))
    return not_marked(source, student, f"marking failed ({why[:300]}); a person must look", failed=True)


def not_marked(source: Path, student: str, why: str, failed: bool = False) -> Report:
    """A report without points: ``why`` is its remark."""
    original = nb.read(source)
    owners, tests = nb.answers_to(original), nb.tests(original, hidden=False)
    scores = [
        Score(nb.grade_id(c), nb.grade_id(c), owners[nb.grade_id(c)], 0.0, nb.points(c), "not run") for c in tests
    ]
    return Report(student, source.stem, scores, notes=[why[:1000]], failed=failed)


def main() -> None:
    """Read the job from standard input, mark, write the report."""
    job = json.loads(sys.stdin.readline())
    source, file, result = map(Path, job["paths"])
    student, limits = job["student"], Limits(**job["limits"])
    limit_resources(2 * limits.memory_megabytes)
    try:
        submission = nb.read(file, limits.file_megabytes)
    except ValueError as error:
        report = not_marked(source, student, str(error))
    else:
        original, name = nb.read(source), source.stem
        report = mark(original, submission, student=student, assignment=name, limits=limits, seed=job["seed"])
    write_text(result, json.dumps(report.to_dict()))

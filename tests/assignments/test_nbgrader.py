"""nbgrader itself marks the same notebooks: cell for cell it gives what `teachkit assignments grade` gives."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from teachkit.course.assignments import Limits, mark, testing
from teachkit.course.assignments import notebook as nb

from .marking import SOURCES
from .test_answers import ANSWERS, desk_of, wrong_answers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm")]
MIXED = 4  # submissions for each assignment, besides a right and an empty one
CONFIG = """
c = get_config()
c.CourseDirectory.course_id = "course"
c.CourseDirectory.db_url = "sqlite:///{folder}/gradebook.db"
c.ExecutePreprocessor.timeout = 60
c.ExecutePreprocessor.iopub_timeout = 60  # for a busy machine
c.ExecutePreprocessor.interrupt_on_timeout = True
"""


def mixed(name: str, count: int) -> dict[str, nbformat.NotebookNode]:
    """Submissions that answer every exercise with another one of the right and wrong answers, spread over them all."""
    desk, given = desk_of(name), dict[str, nbformat.NotebookNode]()
    tried = {e: [*answers, *wrong_answers(name)[e]] for e, answers in ANSWERS[name].RIGHT.items()}
    for k in range(count):
        answers = {e: codes[k * len(codes) // count][1] for e, codes in tried.items()}
        given[f"mixed_{k}"] = desk.submission(answers)
    return given


def by_nbgrader(folder: Path, name: str, given: dict[str, nbformat.NotebookNode]) -> dict[str, dict[str, float]]:
    """Points by submission and test cell, of a course made in ``folder``."""
    from nbgrader.api import Gradebook

    def nbgrader(*arguments: str) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it calls alembic
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
        command = [sys.executable, "-m", "nbgrader", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    (folder / "nbgrader_config.py").write_text(CONFIG.format(folder=folder))
    (folder / "source" / name).mkdir(parents=True)
    nbformat.write(nb.read(SOURCES / f"{name}.ipynb"), folder / "source" / name / f"{name}.ipynb")
    nbgrader("generate_assignment", name, "--create")
    assert "### BEGIN" not in (folder / "release" / name / f"{name}.ipynb").read_text()
    for student, notebook in given.items():
        (folder / "submitted" / student / name).mkdir(parents=True)
        nbformat.write(notebook, folder / "submitted" / student / name / f"{name}.ipynb")
    nbgrader("autograde", name, "--create")
    nbgrader("generate_feedback", name)
    assert (folder / "feedback" / "right" / name / f"{name}.html").stat().st_size > 1000
    tests = {nb.grade_id(c) for c in nb.tests(desk_source(name), hidden=True)}
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as book:
        graded = {student: book.find_submission_notebook(name, name, student).grades for student in given}
        return {s: {g.name: float(g.auto_score or 0) for g in cells if g.name in tests} for s, cells in graded.items()}


def desk_source(name: str) -> nbformat.NotebookNode:
    """The source of an assignment."""
    return nb.read(SOURCES / f"{name}.ipynb")


@pytest.mark.peers("nbgrader")
@pytest.mark.parametrize("short", ANSWERS)
def test_nbgrader_gives_the_same_marks(short: str, tmp_path: Path) -> None:
    name = ANSWERS[short].NAME
    source = desk_source(name)
    given = {"right": nb.student_copy(source), "empty": nb.student_copy(source), **mixed(short, MIXED)}
    for cell, answer in zip(given["right"].cells, source.cells):
        cell["source"] = answer.source if nb.role(cell) == "answer" else cell.source
    theirs = by_nbgrader(tmp_path, name, given)
    for student, notebook in given.items():
        report = mark(source, notebook, limits=Limits(total_seconds=600), seed=testing.cohort())
        ours = {score.name: score.points for score in report.scores}
        assert theirs[student] == pytest.approx(ours, abs=0.01), student
        assert student != "right" or report.points == report.maximum
        assert student != "empty" or report.points == 0

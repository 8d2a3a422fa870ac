"""A small assignment, and submissions to it, for tests of the grader."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from teachkit.course.assignments import Limits
from teachkit.course.assignments import notebook as nb

__all__ = ["SHORT", "SOLVED", "WAVE", "cell", "solved", "submission", "tiny"]

SHORT = Limits(total_seconds=60, memory_megabytes=600)  # 6 for a cell or a test
SOLVED = "def twice(x):\n    return 2 * x"
WAVE = "def wave(f, x):\n    return f(x) + 1"


def cell(name, text, kind="code", **roles):
    make = new_code_cell if kind == "code" else new_markdown_cell
    made = make(text)
    flags = {"grade": False, "solution": False, "locked": True, "task": False, **roles}
    made.metadata["nbgrader"] = {"schema_version": 3, "grade_id": name, "cell_type": kind, **flags}
    return made


def tiny():
    """An assignment with two exercises, a race and a question in words: 2 + 1 + 3 and 4 points."""
    answer, test = {"solution": True, "locked": False}, {"grade": True}
    return new_notebook(
        cells=[
            cell("intro", "# Tiny", "markdown"),
            cell("id", "ID = 2027  # of this copy", locked=False),
            cell(
                "setup",
                "import torch\nfrom teachkit.course.assignments.testing import expect, generator, score_from_ratio",
            ),
            cell("twice", f"def twice(x):\n    ### BEGIN SOLUTION\n{SOLVED[14:]}\n    ### END SOLUTION", **answer),
            cell(
                "twice_test",
                "# Twice\nx = torch.randn(3, generator=generator('a'))\nexpect('twice', twice(x), 2 * x)\n"
                "### BEGIN HIDDEN TESTS\nx = torch.randn(2, 2, generator=generator('hid')).double()\n"
                "expect('twice of a matrix', twice(x), x + x)\n### END HIDDEN TESTS",
                points=2,
                **test,
            ),
            cell("wave", f"def wave(f, x):\n    ### BEGIN SOLUTION\n{WAVE[16:]}\n    ### END SOLUTION", **answer),
            cell(
                "wave_test",
                "# Wave\nx = torch.randn(4, generator=generator('b'))\n"
                "expect('a sine', wave(torch.sin, x), torch.sin(x) + 1)",
                points=1,
                **test,
            ),
            cell("level", "level = None\n### BEGIN SOLUTION\nlevel = 0.5\n### END SOLUTION", **answer),
            cell("race", "# Race\nscore_from_ratio(level, full=0.5, none=1.0, points=3)", points=3, **test),
            cell("why_text", "## Why?", "markdown"),
            cell(
                "why",
                "### BEGIN SOLUTION\nBecause the rubric says so.\n### END SOLUTION",
                "markdown",
                grade=True,
                points=4,
                **answer,
            ),
            new_code_cell("print('free cell')"),
        ],
        metadata=nbformat.from_dict(nb.KERNEL),
    )


def submission(**answers):
    """The student copy with these answers."""
    copy = nb.student_copy(tiny())
    for c in copy.cells:
        c["source"] = answers.pop(nb.grade_id(c), c.source)
    assert not answers
    return copy


def solved(**answers):
    return submission(**{"twice": SOLVED, "wave": WAVE, "level": "level = 0.5", "why": "Because.", **answers})

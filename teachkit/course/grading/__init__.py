"""Instant checks for the exercises of the lessons, without marks: ``grading.check("two_points", answer)``.

A check draws fresh random inputs, compares the answer with a reference within a tolerance, and says what differs
(shape, type, size of the error) without giving the answer away. An exercise that is still ``...`` is reported as not
answered yet. Nothing a student writes makes `check` raise, so a lesson always runs from top to bottom.

`engine` registers, runs and compares; `plane` holds the checks of the first lessons, `stages` those of the lesson of
that name, `lessons` all others. Adding one takes five lines: a generator registered under a name and a hint, which
yields (what, got, expected).
"""

from teachkit.course.grading import lessons, plane, stages  # noqa: F401  (registers the checks)
from teachkit.course.grading.engine import CHECKS, Check, Result, check, compare, evaluate, register

__all__ = ["CHECKS", "Check", "Result", "check", "compare", "evaluate", "register"]

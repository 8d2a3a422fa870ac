"""Assignments that grade themselves: student copies from instructor sources, instant feedback, and a grader.

    build   source notebook -> student copy, without solutions and hidden tests
    check   a student's notebook -> what its visible tests say
    grade   a folder of submissions -> grades.csv, pages on which a person marks words, a feedback page per student

The answers run in a process that knows neither hidden tests nor expected values; the tests run in another and call the
answers by message (`engine`, `sandbox`, `wire`). Sources carry nbgrader's metadata and markers (`notebook`), so
nbgrader can be used in place of all this. The sources are in ``notebooks/assignments``; INSTRUCTORS.md is the manual.
"""

from teachkit.course import needs

with needs("course", "assignments"):
    from teachkit.course.assignments.build import build
    from teachkit.course.assignments.engine import mark
    from teachkit.course.assignments.feedback import summary
    from teachkit.course.assignments.grade import check, grade
    from teachkit.course.assignments.report import Limits, Report, Score, Written

__all__ = ["Limits", "Report", "Score", "Written", "build", "check", "grade", "mark", "summary"]

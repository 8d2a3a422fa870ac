"""A feedback page for each student: one HTML file without scripts, everything of the student's escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment

from teachkit.course.assignments.markdown import rendered
from teachkit.course.assignments.report import Report

__all__ = ["page", "summary"]

TEMPLATE = Path(__file__).with_name("feedback.html")


def page(report: Report) -> str:
    """The page of one report. Texts of the student are escaped: markup in an answer is shown, not run."""
    return Environment(autoescape=True).from_string(TEMPLATE.read_text("utf-8")).render(r=report, rendered=rendered)


def summary(report: Report) -> str:
    """The report as plain text, a line per test: ``✓`` passed, ``✗`` failed and why.

    Parameters
    ----------
    report : Report
        Of one submission.

    Returns
    -------
    str
        A line per test.

    Examples
    --------
    >>> from teachkit.course.assignments.report import Score
    >>> print(summary(Report("ann", "A1", scores=[Score("t", "Basics", "climb", 1.0, 1.0)])))
    A1: 1 of 1 points
      ✓ climb · Basics (1/1)
    """
    kind = "points" if report.hidden else "visible points"
    lines = [f"{report.assignment}: {report.points:g} of {report.maximum:g} {kind}"]
    if not report.hidden:
        words = f"; a person gives {report.written_maximum:g} points for words" if report.written else ""
        lines += [
            "  This is no grade yet. After you hand in, every test has a hidden part, which must pass too" + words + "."
        ]
    for s in report.scores:
        lines.append(f"  {'✗' if s.message else '✓'} {s.answer} · {s.title} ({s.points:g}/{s.maximum:g})")
        lines += [f"      {s.message}"] if s.message else []
    lines += [f"  ! {where}: {what}" for where, what in report.errors]
    lines += [f"  ! {note}" for note in report.notes]
    if unanswered := [w.name for w in report.written if not w.text]:
        lines.append(f"  ○ written answers still empty: {', '.join(unanswered)} (only their own cells were looked at)")
    return "\n".join(lines)

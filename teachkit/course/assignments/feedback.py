"""A feedback page for each student: one HTML file without scripts, everything of the student's escaped."""

from __future__ import annotations

from jinja2 import Environment

from teachkit.course.assignments.report import Report

__all__ = ["page", "summary"]

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ r.assignment }}: {{ r.student }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
color: #222; background: #fff }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .4rem .6rem; vertical-align: top;
border-bottom: 1px solid #ccc } td.n { white-space: nowrap; text-align: right }
.ok { color: #00664a } .no { color: #a33600 }
figure { margin: 1rem 0 } img { max-width: 100%; border: 1px solid #ccc }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: .6rem; max-height: 24rem;
overflow: auto }
</style></head><body>
<h1>{{ r.assignment }}</h1>
<p>{{ r.student }}: <strong>{{ '%g' % r.points }} of {{ '%g' % r.maximum }} points</strong> from tests
{%- if r.written %}, {% if r.written_points is none %}written answers not marked yet
{%- else %}{{ '%g' % r.written_points }} of {{ '%g' % r.written_maximum }} for written answers{% endif -%}
{% endif %}.</p>
{% for note in r.notes %}<p class="no">{{ note }}</p>{% endfor %}
{% if r.scores %}<h2>Tests</h2>
<table><thead><tr><th scope="col">Exercise</th><th scope="col">Test</th><th scope="col">Points</th></tr></thead><tbody>
{% for s in r.scores %}<tr><td>{{ s.answer }}</td><td>{{ s.title }}
{%- if s.message %}<br><span class="no">✗ {{ s.message }}</span>{% else %} <span class="ok">✓</span>{% endif %}</td>
<td class="n">{{ '%g' % s.points }} / {{ '%g' % s.maximum }}</td></tr>
{% endfor %}</tbody></table>{% endif %}
{% if r.written %}<h2>Written answers</h2>{% for w in r.written %}
<h3>{{ w.name }} ({% if w.points is none %}up to {{ '%g' % w.maximum }} points, to be marked by a person
{%- else %}{{ '%g' % w.points }} of {{ '%g' % w.maximum }} points{% endif %})</h3>
<pre>{{ w.text or 'no answer' }}</pre>
{%- for name, address in w.pictures.items() %}<figure><img src="{{ address }}" alt="{{ name }}">
<figcaption>{{ name.partition(',')[0] }}</figcaption></figure>{% endfor -%}
{% if w.comment %}<p>{{ w.comment }}</p>{% endif %}{% endfor %}{% endif %}
{% if r.errors %}<h2>Cells that failed</h2>
<table><tbody>{% for where, what in r.errors %}<tr><td>{{ where }}</td><td>{{ what }}</td></tr>{% endfor %}
</tbody></table>{% endif %}
{% if r.output %}<h2>What your notebook printed (beginning)</h2><pre>{{ r.output }}</pre>{% endif %}
</body></html>
"""


def page(report: Report) -> str:
    """The page of one report. Texts of the student are escaped: markup in an answer is shown, not run."""
    return Environment(autoescape=True).from_string(TEMPLATE).render(r=report)


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
    lines = [f"{report.assignment}: {report.points:g} of {report.maximum:g} points"]
    for s in report.scores:
        mark = "✓" if not s.message else "✗"
        lines.append(
            f"  {mark} {s.answer} · {s.title} ({s.points:g}/{s.maximum:g})"
            + (f"\n      {s.message}" if s.message else "")
        )
    lines += [f"  ! {where}: {what}" for where, what in report.errors]
    lines += [f"  ! {note}" for note in report.notes]
    unanswered = [w.name for w in report.written if not w.text]
    if unanswered:
        lines.append(f"  ○ written answers still empty: {', '.join(unanswered)} (only their own cells were looked at)")
    return "\n".join(lines)

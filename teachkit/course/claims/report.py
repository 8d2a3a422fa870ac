"""Measuring the ledger, and showing it: plain text, JSON, a page of HTML."""

from __future__ import annotations

import platform
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import HOLDS, LIMIT, UNDECIDED, VERDICTS
from teachkit.course.claims.registry import Claim, Measurement, Setting, chosen

FORMAT = "teachkit claims 1"
TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Result:
    """A claim with what was measured; ``measured`` is None, and ``problem`` says why, where that was impossible.

    Examples
    --------
    >>> Result(chosen(["tweedie"])[0], None, "no network here").verdict
    'not measured'
    """

    claim: Claim
    measured: Measurement | None
    problem: str = ""

    @property
    def verdict(self) -> str:
        """By the claim's criterion, or "not measured"."""
        return "not measured" if self.measured is None else self.claim.verdict(self.measured)

    @property
    def shown(self) -> str:
        """Value, interval and control in words."""
        return self.problem if self.measured is None else self.claim.show(self.measured)

    @property
    def detail(self) -> str:
        """What was measured, in words."""
        return self.measured.detail if self.measured else ""

    @property
    def why(self) -> str:
        """What to say where the claim does not simply hold."""
        return self.claim.why(self.measured) if self.measured else ""


def applicable(claims: Sequence[Claim], model: str | None) -> list[Claim]:
    """Those that a model is about, and whose data there are; without a model, all of them."""
    if model is None:
        return list(claims)
    needs = ("model", "model and its data") if model in fixtures.TRAINED_ON else ("model",)
    return [entry for entry in claims if entry.needs in needs]


def measure_all(claims: Sequence[Claim] | None = None, setting: Setting | None = None) -> Iterator[Result]:
    """Measure claims one after another; what cannot be measured does not stop the others.

    Parameters
    ----------
    claims : sequence of Claim, optional
        By default all of the ledger.
    setting : Setting, optional
        By default the fast one.

    Yields
    ------
    Result

    Examples
    --------
    >>> results = list(measure_all(chosen(["mean-shift-step"])))
    >>> results[0].verdict
    'holds'
    """
    run = setting or Setting()
    try:
        for entry in chosen() if claims is None else claims:
            try:
                with torch.no_grad():
                    measured = entry.measure(run)
                entry.verdict(measured)  # refuses numbers that are not finite
                yield Result(entry, measured)
            except (ValueError, TypeError, OSError, RuntimeError) as error:
                yield Result(entry, None, f"{type(error).__name__}: {error}".splitlines()[0])
    finally:
        fixtures.forget()


def tally(results: Sequence[Result]) -> str:
    """How many claims have which verdict."""
    count = Counter(r.verdict for r in results)
    parts = [f"{v}: {count[v]}" for v in (*VERDICTS, "not measured") if count[v]]
    return f"{len(results)} claim{'' if len(results) == 1 else 's'}; " + ", ".join(parts)


def to_text(results: Sequence[Result], width: int | None = None) -> str:
    """A table for the terminal, no wider than it.

    Parameters
    ----------
    results : sequence of Result
        As from `measure_all`.
    width : int, optional
        Of the terminal; without it wide enough for a pipe.

    Returns
    -------
    str
        A few lines for each claim, and the tally.

    Examples
    --------
    >>> results = list(measure_all(chosen(["mean-shift-step"])))
    >>> print(to_text(results).splitlines()[0])
    + mean-shift-step: holds
    """
    width = max(60, width or shutil.get_terminal_size((120, 24)).columns)
    lines = []
    for r in results:
        mark = {HOLDS: "+", LIMIT: "~", UNDECIDED: "~"}.get(r.verdict, "-" if r.measured else "?")
        lines.append(f"{mark} {r.claim.id}: {r.verdict}")
        here = f"here: {r.shown} ({r.detail})" if r.detail else f"here: {r.shown}"
        rows = [r.claim.sentence, here, r.claim.source, *([f"why: {r.why}"] if r.why else [])]
        lines += [textwrap.fill(row, width, initial_indent="    ", subsequent_indent="      ") for row in rows]
    return "\n".join([*lines, tally(results)])


def to_json(results: Sequence[Result], setting: Setting) -> dict[str, Any]:
    """What a file keeps: numbers as they are shown, so that machines agree.

    Parameters
    ----------
    results : sequence of Result
        As from `measure_all`.
    setting : Setting
        They were measured in.

    Returns
    -------
    dict
        Plain values.

    Examples
    --------
    >>> results = list(measure_all(chosen(["mean-shift-step"])))
    >>> to_json(results, Setting())["claims"][0]["here"]
    'below 1e-12'
    """
    rows = []
    for r in results:
        row: dict[str, Any] = {"id": r.claim.id, "claim": r.claim.sentence, "place": r.claim.place}
        row |= {"figure": r.claim.figure, "criterion": r.claim.criterion.words, "here": r.shown}
        row |= {"verdict": r.verdict, "remark": r.claim.remark, "lesson": r.claim.lesson}
        if r.measured:
            row |= {"detail": r.detail, "unit": r.measured.unit}
            numbers = ((name, getattr(r.measured, name)) for name in ("value", "low", "high", "control"))
            row |= {name: r.claim.rounded(number) for name, number in numbers if number is not None}
        rows.append(row)
    head = {"format": FORMAT, "full": setting.full, "seed": setting.seed, "model": setting.model}
    return {**head, "claims": rows}


def to_html(results: Sequence[Result], setting: Setting) -> str:
    """One self-contained page: no scripts, no links to styles; everything that came from outside is escaped.

    Parameters
    ----------
    results : sequence of Result
        As from `measure_all`.
    setting : Setting
        They were measured in.

    Returns
    -------
    str
        The page.

    Examples
    --------
    >>> results = list(measure_all(chosen(["mean-shift-step"])))
    >>> "<h1>Claims, measured</h1>" in to_html(results, Setting())
    True
    """
    from jinja2 import Environment

    how = f"{'full' if setting.full else 'fast'}, seed {setting.seed}, model {setting.model}"
    under = f"Measured: {how}, torch {torch.__version__}, {platform.machine()}."
    page = Environment(autoescape=True, keep_trailing_newline=True).from_string(TEMPLATE.read_text("utf-8"))
    return page.render(results=results, verdicts=VERDICTS, tally=tally(results), under=under)

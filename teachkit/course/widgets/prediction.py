"""Predict first: a question, a box for a guess, and the measured number beside it once a guess is there."""

from __future__ import annotations

import html
import types
from typing import Any

import ipywidgets as W

from teachkit.checks import number, text
from teachkit.course.plots.shared import short

__all__ = ["Prediction", "predict"]


def predict(
    question: str, truth: float, *, unit: str = "", guess: float | types.EllipsisType | None = None
) -> Prediction:
    """Ask for a guess before a number is shown, and compare.

    The guess is typed into the box, or given as ``guess`` in the cell, where it outlives a restart. Until there is one
    the number stays hidden, and nothing waits: cells below run on. Where widgets cannot run, in a preview or an
    exported page, the question stands with the number folded below it.

    Parameters
    ----------
    question : str
        What is to be guessed, a number.
    truth : float
        What was measured.
    unit : str
        Of both.
    guess : float, optional
        A guess made in the cell; ``...`` stands for one that is not made yet.

    Returns
    -------
    Prediction
        To be shown as the last line of a cell.

    Raises
    ------
    TypeError, ValueError
        If a number is none, or the question is empty.

    Examples
    --------
    >>> predict("How long is the diagonal of a square of side 1?", 2**0.5, guess=1.5).message
    'Your guess: 1.5. Measured: 1.4. Within a tenth: well predicted.'
    """
    return Prediction(question, truth, unit, guess)


def compared(guess: float, truth: float, unit: str = "") -> str:
    """A guess beside the truth: their ratio where that says something, and their difference otherwise.

    >>> compared(200, 12, "pixels")
    'Your guess: 200 pixels. Measured: 12 pixels. 17 times too large.'
    >>> compared(-1, 0)
    'Your guess: -1. Measured: 0. Too small by 1.'
    """
    unit = f" {unit}" if unit else ""
    if guess == truth or abs(guess - truth) <= 0.1 * abs(truth):
        verdict = "Within a tenth: well predicted."
    elif guess * truth > 0:
        ratio, side = abs(guess / truth), "large" if abs(guess) > abs(truth) else "small"
        verdict = f"{short(max(ratio, 1 / ratio))} times too {side}."
    else:
        verdict = f"Too {'large' if guess > truth else 'small'} by {short(abs(guess - truth))}{unit}."
    return f"Your guess: {short(guess)}{unit}. Measured: {short(truth)}{unit}. {verdict}"


class Prediction(W.VBox):
    """What `predict` returns: the question, a box with a button, and, after a guess, the comparison (``message``).

    Examples
    --------
    >>> asked = Prediction("How many sides has a cube?", 6)
    >>> asked.message
    ''
    >>> asked.box.value = "4"
    >>> asked.message
    'Your guess: 4. Measured: 6. 1.5 times too small.'
    """

    def __init__(
        self, question: str, truth: float, unit: str = "", guess: float | types.EllipsisType | None = None
    ) -> None:
        self.question, self.truth, self.unit = text("question", question), number("truth", truth), text("unit", unit)
        if not self.question:
            raise ValueError("question must be a text that says what is to be guessed")
        self.message = ""
        self.box = W.Text(description="your guess", continuous_update=False, style={"description_width": "initial"})
        self.button, self.screen = W.Button(description="compare"), W.HTML()
        self.box.observe(self.compare, "value")
        self.button.on_click(self.compare)
        if guess is not None and guess is not ...:
            self.box.value = f"{number('guess', guess):g}"
        asked = W.HTML(f"<b>Predict first.</b> {html.escape(self.question)}")
        super().__init__([asked, W.HBox([self.box, self.button]), self.screen])

    def compare(self, change: Any = None) -> None:
        """Read the guess, and show what it is compared with; called on every guess."""
        typed = self.box.value.strip()
        try:
            guess = number("guess", float(typed.replace(",", ".") if typed.count(",") == 1 else typed))
            self.message = compared(guess, self.truth, self.unit)
        except ValueError:
            self.message = "A number, please, such as 0.5 or 12." if typed else ""
        self.screen.value = f'<p role="status">{html.escape(self.message)}</p>' if self.message else ""

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live widget; and, for readers without one, the question with its answer folded."""
        answer = html.escape(self.message or f"Measured: {short(self.truth)} {self.unit}".rstrip() + ".")
        folded = f"<details><summary>Show what was measured</summary><p>{answer}</p></details>"
        plain = f"predict: {self.question} {self.message or 'no guess yet'}"
        still = {"text/html": f"<p>{self.children[0].value}</p>{folded}", "text/plain": plain}
        return super()._repr_mimebundle_(**kwargs) | still

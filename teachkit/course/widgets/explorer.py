"""The box that every explorer is: controls above one picture that is drawn again when a control moves."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from traceback import format_exc
from typing import Any

import ipywidgets as W
import numpy as np
import torch
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray
from torch import Tensor

from teachkit import checks
from teachkit.checks import function, shown
from teachkit.course import plots

_WIDE = {"description_width": "initial"}


class Explorer(W.VBox):
    """Controls over a picture.

    Parameters
    ----------
    picture : Picture
        Drawn once with everything that stays; its layout is settled at the first drawing and kept.
    redraw : callable
        ``redraw() -> (alt, caption)`` moves what changes, according to the controls.
    controls : sequence of widgets
        Shown in a row that wraps; a change of any ``value`` redraws.

    Attributes
    ----------
    controls : tuple of widgets
    screen : HTML
        Holds the image, or the message of an exception in an element with the role "alert".
    seconds : float
        What the last redraw took.
    dpi : int
        Dots per inch of the image, 96.

    Examples
    --------
    >>> level, picture = slider("level", 1, 0, 3), plots.panels()[0]
    >>> explorer = Explorer(picture, lambda: (f"Level {level.value}.", ""), [level])
    >>> level.value = 2
    >>> picture.alt
    'Level 2.'
    """

    def __init__(
        self, picture: plots.Picture, redraw: Callable[[], tuple[str, str]], controls: Sequence[W.DOMWidget]
    ) -> None:
        if not isinstance(picture, plots.Picture):
            raise TypeError(f"picture must be a Picture, got {shown(picture)}")
        function("redraw", redraw, "redraw()")
        if not isinstance(controls, Sequence) or not all(isinstance(control, W.Widget) for control in controls):
            raise TypeError(f"controls must be a sequence of widgets, got {shown(controls)}")
        self.picture, self._redraw, self.controls = picture, redraw, tuple(controls)
        self.seconds, self.dpi, self._settled, self._busy = 0.0, 96, False, False
        self.screen = W.HTML(layout=W.Layout(width="100%", max_width="100%"))
        row = W.HBox(list(controls), layout=W.Layout(flex_flow="row wrap", width="100%", overflow="hidden"))
        for control in controls:
            control.observe(self.update, "value")
        self.update()
        super().__init__([row, self.screen], layout=W.Layout(width="100%"))

    def update(self, change: Any = None) -> None:
        """Draw again; called on every change of a control, except by those that a redraw itself moves."""
        with plots.style():  # also: one thread at a time
            if not self._busy:
                self._busy, begun = True, time.perf_counter()
                self.screen.value = self._drawn()
                self._busy, self.seconds = False, time.perf_counter() - begun

    def turn(self, values: Mapping[W.Widget, Any]) -> None:
        """Move several controls, and draw once.

        Parameters
        ----------
        values : mapping of widgets
            New values of some of the ``controls``.

        Raises
        ------
        TypeError
            If it is not that.
        """
        if not isinstance(values, Mapping) or not all(each in self.controls for each in values):
            raise TypeError(f"values must be a mapping of some of the controls, got {shown(values)}")
        with plots.style():
            self._busy = True
            try:
                for control, value in values.items():
                    control.value = value
            finally:
                self._busy = False
        self.update()

    def _drawn(self) -> str:
        """The picture as HTML, or what went wrong."""
        try:
            self.picture.alt, self.picture.caption = self._redraw()
            if not self._settled:
                self.picture.draw_without_rendering()
                self.picture.set_layout_engine("none")
                self._settled = True
            return plots.markup(self.picture, self.dpi)
        except Exception as error:
            message, where = (html.escape(words) for words in (f"{type(error).__name__}: {error}", format_exc()))
            alert = f'<pre role="alert" style="white-space: pre-wrap">{message}</pre>'
            return f"{alert}<details><summary>where it happened</summary><pre>{where}</pre></details>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget; and, for readers without one, the picture as it is now, with its text."""
        still, metadata = self.picture._repr_mimebundle_()
        return super()._repr_mimebundle_(**kwargs) | still, metadata


def points(name: str, x: Tensor) -> Tensor:
    """Points of the plane (B, 2), to be drawn."""
    if checks.batch(name, x).ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"{name} must have shape (B, 2), got {tuple(x.shape)}")
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))  # numpy knows no bfloat16


def slider(description: str, value: float, least: float, most: float, kind: type = W.IntSlider, **options: Any) -> Any:
    """A slider with its whole label visible: for integers, or another ``kind`` of ipywidgets'."""
    return kind(value=value, min=least, max=most, description=description, style=_WIDE, **options)


def log_slider(description: str, value: float, least: float, most: float, step: float = 0.05) -> W.FloatLogSlider:
    """A slider that moves in log10 of its value and shows the value."""
    ends = np.log10(least), np.log10(most)
    return slider(description, value, *ends, W.FloatLogSlider, step=step, readout_format=".3g")


def choice(description: str, options: Sequence[str], value: str | None = None) -> W.Dropdown:
    """A drop-down list with its whole label visible."""
    look = {"style": _WIDE, "layout": W.Layout(width="auto")}
    return W.Dropdown(options=list(options), value=value or options[0], description=description, **look)


def player(description: str, value: int, last: int, interval: int = 300) -> tuple[W.Play, W.IntSlider]:
    """A play button and the slider it moves, from 0 to ``last``."""
    play = W.Play(value=value, min=0, max=last, interval=interval, show_repeat=False)
    position = slider(description, value, 0, last)
    W.jslink((play, "value"), (position, "value"))
    W.jslink((position, "max"), (play, "max"))
    return play, position


def trace(line: Line2D, paths: NDArray[Any]) -> None:
    """Show many curves ``(N, B, 2)`` as one line, which is much faster to draw than B lines."""
    gap = np.full((1, paths.shape[1], 2), np.nan)
    line.set_data(*np.concatenate([paths, gap]).transpose(1, 0, 2).reshape(-1, 2).T)


def plain_ticks(axis: Axis, every: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """Write 0.1, 0.2, 0.5 on a logarithmic axis, not powers of ten: easier to read over a narrow range, and faster."""
    axis.set_major_locator(LogLocator(subs=every, numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

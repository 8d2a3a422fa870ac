"""A figure that describes itself, the style of the course, and how a picture is shown in a notebook."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from teachkit.checks import integer, number, shown, text

BLUE, VERMILLION, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#777777"
STYLE = Path(__file__).with_name("teachkit.mplstyle")
_ONE_AT_A_TIME = threading.RLock()
_MOST = 100  # rows or columns of panels


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Context manager: the course's style on matplotlib's defaults; the user's settings come back after it.

    One thread at a time: JupyterLab answers to widgets in a thread of their own, and settings saved by one thread while
    another has changed them would come back wrong.

    Examples
    --------
    >>> with style():
    ...     print(matplotlib.rcParams["axes.grid"])
    True
    """
    with _ONE_AT_A_TIME, matplotlib.style.context(["default", STYLE]):
        yield


class Picture(Figure):
    """A matplotlib figure that displays itself with a caption and alternative text (``caption``, ``alt``).

    Examples
    --------
    >>> picture = Picture()
    >>> picture.alt = "Nothing yet."
    >>> sorted(picture._repr_mimebundle_()[0])
    ['image/png', 'text/html', 'text/plain']
    """

    alt: str = ""
    caption: str = ""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        with style():
            super().savefig(*args, **kwargs)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return _mimebundle(self, self.alt or "A picture without a description.", self.caption)


def panels(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **kwargs: Any
) -> tuple[Picture, Any]:
    """An empty `Picture` in the course's style and its axes.

    Parameters
    ----------
    rows, columns : int
        Of axes.
    size : (float, float), optional
        Width and height in inches.
    **kwargs
        For ``Figure.subplots``.

    Returns
    -------
    figure : Picture
        Empty.
    axes : Axes, or array of Axes
        As ``pyplot.subplots`` would return them.

    Examples
    --------
    >>> picture, axes = panels(1, 2)
    >>> axes.shape
    (2,)
    """
    rows, columns = integer("rows", rows, 1, _MOST), integer("columns", columns, 1, _MOST)
    if size is not None:
        if not isinstance(size, Sequence) or len(size) != 2:
            raise TypeError(f"size must be (width, height) in inches, got {shown(size)}")
        size = number("size", size[0], above=0), number("size", size[1], above=0)
    with style():
        picture = Picture(figsize=size or (min(4.4 * columns, 9.6) if columns > 1 else 6.4, 3.1 * rows + 0.6))
        return picture, picture.subplots(rows, columns, **kwargs)


def show(figure: Figure, alt: str | None = None, caption: str | None = None) -> None:
    """Display a figure in a notebook with alternative text (required, unless a `Picture` that has its own).

    Also takes figures made with pyplot, which are closed so that they are not shown twice.

    Parameters
    ----------
    figure : Picture or Figure
        What to display.
    alt : str, optional
        Alternative text: what is seen, in words.
    caption : str, optional
        Printed below.

    Examples
    --------
    >>> show(Figure())  # a picture that nobody describes
    Traceback (most recent call last):
        ...
    ValueError: alt must be a text that says what is seen
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure must be a Figure, got {shown(figure)}")
    alt = getattr(figure, "alt", "") if alt is None else text("alt", alt)
    if not alt:
        raise ValueError("alt must be a text that says what is seen")
    from IPython.display import display

    caption = getattr(figure, "caption", "") if caption is None else text("caption", caption)
    data, metadata = _mimebundle(figure, alt, caption)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    display(data, metadata=metadata, raw=True)


def markup(figure: Picture, dpi: int = 96) -> str:
    """The picture as HTML with its alternative text, for a widget that draws it anew at every change: made in haste.

    It keeps all its colours and fits itself into a narrower place.

    Parameters
    ----------
    figure : Picture
        What to write out.
    dpi : int
        Dots per inch.

    Returns
    -------
    str
        HTML that needs nothing from elsewhere.

    Examples
    --------
    >>> picture, axes = panels(size=(1, 1))
    >>> picture.alt = "An empty frame."
    >>> markup(picture)[:32]
    '<figure style="margin: 0"><img a'
    """
    if not isinstance(figure, Picture):
        raise TypeError(f"figure must be a Picture, got {shown(figure)}")
    dpi = integer("dpi", dpi, 10, 2400)
    canvas = FigureCanvasAgg(figure)
    with style():
        figure.set_dpi(dpi)
        canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    fit, flush = ' style="max-width: 100%; height: auto"', ' style="margin: 0"'
    return _element(_png(image, compress_level=3), image.width, figure.alt, figure.caption, fit, flush)


def _png(image: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="png", **options)
    return base64.b64encode(buffer.getvalue()).decode()


def _element(data: str, width: int, alt: str, caption: str, attributes: str = "", around: str = "") -> str:
    text = html.escape(alt, quote=True)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    image = f'<img alt="{text}" width="{width}"{attributes} src="data:image/png;base64,{data}">'
    return f"<figure{around}>{image}{below}</figure>"


def _mimebundle(figure: Figure, alt: str, caption: str) -> tuple[dict[str, Any], dict[str, Any]]:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB")
    image = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    data = _png(image, optimize=True)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return (
        {"text/html": _element(data, width, alt, caption), "image/png": data, "text/plain": alt},
        {"image/png": {"width": width, "height": height, "alt": alt}},
    )

"""Labels at the ends of lines: read where one looks, without a legend."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from teachkit.checks import flag, number, shown
from teachkit.course.plots.figure import style


def label_ends(ax: Axes, *, gap: float = 11.0, left: bool = False) -> None:
    """Write the label of each line beside its right end, or its left one, in its colour, in place of a legend.

    Labels that would overlap are moved apart, up and down. Call it last, when the limits of the axes are final.

    Parameters
    ----------
    ax : Axes
        Whose lines have labels; those without one, and those that are never finite, are left alone.
    gap : float
        Least distance between two labels, in points.
    left : bool
        At the left ends, where the lines begin: for lines that run together. Leave room there.

    Examples
    --------
    >>> from teachkit.course import plots
    >>> picture, ax = plots.panels()
    >>> _ = ax.plot([1, 2], [3, 4], label="Euler"), ax.plot([1, 2], [5, 4.01], label="Heun")
    >>> plots.label_ends(ax)
    >>> [text.get_text() for text in ax.texts]
    ['Euler', 'Heun']
    """
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be the Axes whose lines are labelled, got {shown(ax)}")
    gap, left = number("gap", gap, least=0), flag("left", left)
    found = []
    with style():
        ax.figure.draw_without_rendering()  # type: ignore[union-attr]  # settles where the ends are
        for line in ax.lines:
            at = np.asarray(line.get_xydata(), dtype=float)
            at = at[np.isfinite(at).all(1)]
            if len(at) and not str(line.get_label()).startswith("_"):
                end = at[at[:, 0].argmin() if left != ax.xaxis_inverted() else at[:, 0].argmax()]
                found.append((float(ax.transData.transform(end)[1]) * 72 / ax.figure.dpi, tuple(end), line))
        found.sort(key=lambda entry: entry[0])
        heights = [height for height, _, _ in found]
        for _ in range(200):  # push neighbours apart, half the lack each
            for k in range(len(heights) - 1):
                lack = gap - (heights[k + 1] - heights[k])
                if lack > 1e-3:
                    heights[k], heights[k + 1] = heights[k] - lack / 2, heights[k + 1] + lack / 2
        for height, (was, end, line) in zip(heights, found):
            ax.annotate(
                str(line.get_label()), end, (-7 if left else 7, height - was), textcoords="offset points",
                va="center", ha="right" if left else "left", fontsize=9, color=line.get_color(), annotation_clip=False,
            )  # fmt: skip

"""A boomerang to be turned: paths in three dimensions, from any side, magnified or at their true scale."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachkit import geometry
from teachkit.checks import integer, real_tensor, squarable
from teachkit.course import plots
from teachkit.course.plots.shared import short
from teachkit.course.widgets.explorer import Explorer, log_slider, slider, trace
from teachkit.trajectory import Trajectory, whole_path

_MOST = 60  # more curves would hide one another


@plots.style()
def turn_boomerang(paths: Trajectory | Tensor, *, turn: int = 30, tilt: int = 20, shown: int = 40) -> Explorer:
    """Turn paths about their chord, tip the chord towards the eye, and choose how much to magnify what is across it.

    Parameters
    ----------
    paths : Trajectory or (N+1, B, 3)
        Paths, projected and laid on the first one here; or coordinates, as from `geometry.project`.
    turn, tilt : int
        Degrees at first: about the chord, and of the chord, which at 0 lies in the picture and at 90 points at the eye.
    shown : int
        At most so many paths are drawn.

    Raises
    ------
    ValueError, TypeError
        For anything but paths with a chord and a bend.

    Examples
    --------
    >>> along = torch.linspace(0, 10, 9)
    >>> curves = torch.stack([along, (10 - along) * along / 100, 0 * along], -1)[:, None]
    >>> turn_boomerang(curves, turn=90, tilt=0).picture.alt[:57]
    'Turned by 90 degrees about the chord, which is tipped by '
    """
    if isinstance(paths, Trajectory):
        whole = whole_path("paths", paths).detach().to("cpu")
        curves = geometry.align(geometry.project(whole), about_chord=True)
    else:
        curves = real_tensor("paths", paths, "(N+1, B, 3), or a Trajectory")
        if curves.ndim != 3 or curves.shape[-1] != 3 or curves.numel() == 0:
            raise ValueError(f"paths must have shape (N+1, B, 3), got {tuple(curves.shape)}")
        curves = squarable("paths", curves).detach().cpu().double()
    chord = torch.linalg.vector_norm(curves[-1] - curves[0], dim=-1)  # (B,)
    if not (chord > 0).all() or not curves[..., 1:].abs().amax() > 0:
        raise ValueError("paths must end away from where they began, and bend")
    share = (100 * curves / chord[:, None]).double().numpy()[:, : integer("shown", shown, 1, _MOST)]
    turn, tilt = integer("turn", turn, 0, 360), integer("tilt", tilt, 0, 90)
    fitting = float(f"{30 / np.abs(share[..., 1:]).max():.1g}")  # the bend is then a third as high as the chord is long

    picture, ax = plots.panels(size=(7.2, 4.2))
    ax.set(xlim=(-66, 66), ylim=(-37, 37), xticks=[], yticks=[], aspect="equal")
    ax.axis("off")
    (chords,) = ax.plot([], [], "--", color=plots.GREY, lw=1)
    (curve,) = ax.plot([], [], color=plots.BLUE, lw=0.8, alpha=0.5)
    (start,), (end,) = (ax.plot([], [], mark, color="black", ms=size, zorder=5) for mark, size in (("o", 6), ("*", 10)))
    axes = [ax.plot([], [], color=colour, lw=1.5)[0] for colour in (plots.VERMILLION, plots.GREEN)]
    style = {"fontsize": 9, "ha": "center", "va": "center"}
    names = [ax.text(0, 0, f"component {k}", color=line.get_color(), **style) for k, line in zip((1, 2), axes)]
    ends = [
        ax.text(0, 0, name, fontsize=9, ha=side, va="center") for name, side in (("noise", "right"), ("data", "left"))
    ]
    about, tipped = slider("turn", turn, 0, 360, step=5), slider("tilt", tilt, 0, 90, step=5)
    factor = log_slider("magnify", fitting, 1, max(2.0, 2 * fitting))

    def seen(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points (..., 3), in percent of the chord, are in the picture: (..., 2)."""
        phi, theta = math.radians(about.value), math.radians(tipped.value)
        along, up, aside = points[..., 0] - 50, factor.value * points[..., 1], factor.value * points[..., 2]
        up, aside = up * math.cos(phi) - aside * math.sin(phi), up * math.sin(phi) + aside * math.cos(phi)
        return np.stack([along * math.cos(theta) - aside * math.sin(theta), up], -1)

    def redraw() -> tuple[str, str]:
        flat = seen(share)
        trace(curve, flat)
        first, last = (seen(np.array([along, 0.0, 0.0])) for along in (0, 100))
        chords.set_data(*zip(first, last))
        start.set_data(*first[:, None])
        end.set_data(*last[:, None])
        for name, place, off in zip(ends, (first, last), (-2.5, 2.5)):
            name.set_position((place[0] + off, place[1]))
        reach = 20 / factor.value
        for line, name, tip in zip(axes, names, ([0, reach, 0], [0, 0, reach])):
            to = seen(np.array(tip))
            line.set_data(*zip(first, to))
            name.set_position(first + 1.15 * (to - first))
        high = np.ptp(flat[..., 1], axis=0) / factor.value  # (B,) in percent of the chord
        alt = (
            f"Turned by {about.value} degrees about the chord, which is tipped by {tipped.value}, magnified "
            f"{short(factor.value)} times across: {share.shape[1]} paths, seen {short(np.median(high))} % of the chord "
            f"high (median), at most {short(high.max())} %."
        )
        scale = "True scale." if factor.value < 1.05 else "Only what is across the chord is magnified."
        return alt, f"{alt} {scale}"

    return Explorer(picture, redraw, (about, tipped, factor))

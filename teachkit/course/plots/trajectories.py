"""Pictures of trajectories: the boomerang, the deviation, the variance explained, and the film strip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from teachkit import geometry
from teachkit.checks import flag, integer, text
from teachkit.course.plots import shared
from teachkit.course.plots.figure import BLUE, GREY, ORANGE, VERMILLION, Picture, style
from teachkit.course.plots.shared import Array, as_array, short
from teachkit.sampling import Trajectory


def boomerang(
    curves: Trajectory | Array,
    *,
    dims: int = 3,
    relative: bool = True,
    ax: Axes | None = None,
    title: str | None = None,
) -> Picture:
    """Trajectories on their chord and two components across it, in 3-D, or (``dims=2``) on chord and component 1.

    Real trajectories are nearly straight, so distances across the chord are magnified; the caption says how much.
    Dots mark noise levels on the median.

    Parameters
    ----------
    curves : Trajectory or (N+1, B, 3)
        Paths, projected here; or coordinates from ``geometry.project`` or ``geometry.align``.
    dims : int
        3, or 2 for chord and component 1.
    relative : bool
        Each in percent of its own chord.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str, optional
        Above the axes.

    Examples
    --------
    >>> along = torch.linspace(0, 10, 9)
    >>> curves = torch.stack([along, (10 - along) * along / 100, 0 * along], -1)[:, None]
    >>> print(boomerang(curves, dims=2).alt[-51:])
     % of its length, the one that bends most by 2.5 %.
    """
    sigmas, marked = np.empty(0), []  # noise levels of the path, and those that get a dot
    if isinstance(curves, Trajectory):
        sigmas, curves = curves.sigmas.numpy(), geometry.project(curves)
        marked = [v for v in (40, 20, 10, 5, 2) if sigmas[-1] <= v <= sigmas[0]]
    c = as_array("curves", curves, (None, None, 3))
    dims, relative = integer("dims", dims, 2, 3), flag("relative", relative)
    length = np.linalg.norm(c[-1] - c[0], axis=1)  # (B,)
    if not length.all():
        raise ValueError("curves must end away from where they began: there is no chord to draw them on")
    across = 100 * np.linalg.norm(c[..., 1:], axis=-1).max(0) / length
    c = 100 * c / length[:, None] if relative else c
    c = c[..., [0, 2, 1]] if dims == 3 else c[..., :2]  # component 1 points up
    middle, unit = np.median(c, axis=1), ", %" if relative else ""  # (N+1, dims)
    size, projection = ((6.4, 4.2), "3d") if dims == 3 else ((6.4, 3.6), None)
    with shared.drawing(ax, size, projection) as ax:
        for k in range(c.shape[1]):
            ax.plot(*c[:, k].T, color=BLUE, lw=0.9, alpha=max(0.1, min(0.8, 10 / c.shape[1])))
        ax.plot(*middle[[0, -1]].T, color=GREY, lw=1, ls="--", label="chord")
        ax.plot(*middle[:1].T, "o", color="black", label="noise, start")
        ax.plot(*middle[-1:].T, "*", color=VERMILLION, ms=11, label="data, end")
        at = [int(np.abs(np.log(np.maximum(sigmas, 1e-9) / v)).argmin()) for v in marked]
        levels = [short(sigmas[m]) for m in at]
        if at:
            label = "median at σ = " + ", ".join(levels)
            ax.plot(*middle[at].T, "o", color=ORANGE, mec="black", mew=0.5, label=label)
        for m, value, level in zip(at, marked, levels if dims == 2 else []):
            place, side = {5: ((0, 12), "center"), 2: ((7, 2), "left")}.get(value, ((-6, 3), "right"))
            note = ax.annotate(level, middle[m], place, textcoords="offset points", ha=side, fontsize=8)
            note.set_bbox({"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8})
        ax.set(xlabel=f"along the chord{unit}", ylabel=f"component {dims - 1}{unit}")
        if dims == 3:
            _one_scale_across(ax, f"component 1{unit}")
        ax.legend(loc="upper left")
    magnified = 100 / max(np.percentile(across, 90), 1e-9) / 2
    alt = (
        f"{c.shape[1]} trajectories on a chord {short(np.median(length))} long (median). The median one leaves it by "
        f"at most {short(np.median(across))} % of its length, the one that bends most by {short(across.max())} %."
    )
    caption = f"Distances across the chord are magnified about {float(f'{magnified:.1g}'):g} times."
    return shared.finish(ax, f"{c.shape[1]} trajectories, one shape" if title is None else title, alt, caption)


def deviation(
    values: Trajectory | Array,
    sigmas: Array | None = None,
    *,
    relative: bool = True,
    ax: Axes | None = None,
    title: str = "Deviation from the chord",
) -> Picture:
    """Distance to the chord against noise level, as a share of the chord's length: median and 10-90 % band.

    Parameters
    ----------
    values : Trajectory or (N+1, B)
        Paths, or distances, which are drawn as they are.
    sigmas : (N+1,), optional
        Noise levels of the distances.
    relative : bool
        Divide by the length of the chord.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> print(deviation([[0.0], [2.0], [0.0]], [80, 10, 1]).alt)
    Deviation from the chord: 1 trajectories, deviation peaks at 2 near sigma 10.
    """
    label, unit, scale = "distance to the chord", "", 1
    if isinstance(values, Trajectory):
        sigmas, values = values.sigmas, geometry.deviation(values, relative=relative)
        if relative:
            label, unit, scale = "distance to the chord, % of its length", " % of the chord", 100
    y = scale * as_array("values", values, (None, None))
    s = shared.as_levels(sigmas, len(y))
    with shared.drawing(ax) as ax:
        middle = shared.band(ax, s, y, BLUE, f"median of {y.shape[1]}")
        peak = int(middle.argmax())
        height, place = short(middle[peak]), short(s[peak])
        ax.plot(s[peak], middle[peak], "o", color=VERMILLION, label=f"peak {height}{unit[:2]} at σ = {place}")
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        shared.noise_axis(ax)
        ax.legend()
    alt = f"{y.shape[1]} trajectories, deviation peaks at {height}{unit} near sigma {place}."
    return shared.finish(ax, title, alt, "Shaded: from the 10th to the 90th percentile.")


def explained_variance(
    shares: Mapping[str, Array] | Array, *, ax: Axes | None = None, title: str = "Variance explained by k components"
) -> Picture:
    """Cumulative shares against k; a mapping of names to shares draws a line each.

    Parameters
    ----------
    shares : (k,) or (B, k), or a mapping of names to these
        Cumulative, from 0 to 1; with a batch, median and band.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> print(explained_variance([0.8, 0.95, 1.0]).alt)
    Variance explained by k components: Share explained by the first components. 80.0, 95.0, 100.0 %.
    """
    lines = {n: np.atleast_2d(100 * s) for n, s in shared.as_lines("shares", shares).items()}
    parts = []
    with shared.drawing(ax) as ax:
        for (name, y), marker in zip(lines.items(), shared.MARKERS * len(lines)):
            middle = shared.band(ax, range(1, y.shape[1] + 1), y.T, None, name, marker + "-")
            parts.append(f"{name + ': ' if name else ''}" + ", ".join(f"{m:.1f}" for m in middle[:3]) + " %")
        ax.set_xticks(range(1, max(y.shape[1] for y in lines.values()) + 1))
        ax.set(xlabel="number of components k", ylabel="variance explained, %", ylim=(0, 103))
        shared.legend(ax)
    return shared.finish(ax, title, "Share explained by the first components. " + "; ".join(parts) + ".", "")


def film_strip(
    trajectory: Trajectory, *, sample: int = 0, frames: int = 8, title: str = "One path, frame by frame"
) -> Picture:
    """States and denoiser outputs of one image trajectory, grey or RGB, at ``frames`` noise levels.

    States are divided by sqrt(1 + sigma^2) for display, so that noise does not saturate the picture.

    Parameters
    ----------
    trajectory : Trajectory
        Paths of images, kept whole.
    sample : int
        Which of them.
    frames : int
        Number of noise levels shown.
    title : str
        Above the strip.

    Examples
    --------
    >>> from teachkit import Empirical, initial_noise, sample, schedules
    >>> images = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)]).double()
    >>> path = sample(Empirical(images), initial_noise(1, (1, 4, 4)), schedules.polynomial(5))
    >>> print(film_strip(path, frames=3).alt[:40])
    3 frames from sigma 80 to 0.085; the den
    """
    if not isinstance(trajectory, Trajectory) or trajectory.x.ndim != 5:
        raise ValueError("trajectory must be a Trajectory of images, with x of shape (N+1, B, C, H, W)")
    if len(trajectory.whole(outputs=True).denoised) < 2:
        raise ValueError("trajectory must hold two outputs of the denoiser or more, got one")
    sample, frames = integer("sample", sample, 0, trajectory.x.shape[1] - 1), integer("frames", frames, 2)
    sigmas = trajectory.sigmas.numpy()
    at = np.unique(np.linspace(0, len(trajectory.denoised) - 1, frames).round().astype(int))
    with style():
        picture = Picture(figsize=(min(0.95 * len(at), 9.6), 2.5))
        axes = picture.subplots(2, len(at), squeeze=False)
        for column, i in zip(axes.T, at):
            state = trajectory.x[i, sample] / (1 + sigmas[i] ** 2) ** 0.5
            for ax, image in zip(column, (state, trajectory.denoised[i, sample])):
                shared.show_pixels(ax, as_array("trajectory", image))
            column[0].set_title(f"σ = {short(sigmas[i])}", fontsize=8, loc="center")
        for ax, label in zip(axes[:, 0], ("state x", "D(x; σ)")):
            ax.set_ylabel(label, fontsize=9)
        picture.suptitle(text("title", title), x=0.01, ha="left", fontsize=11)
    change = trajectory.denoised[at, sample].diff(dim=0).flatten(1).norm(dim=1)
    late = at[1:][int(change.argmax())]
    picture.alt = (
        f"{len(at)} frames from sigma {short(sigmas[at[0]])} to {short(sigmas[at[-1]])}; the "
        f"denoiser output changes most on the way to sigma {short(sigmas[late])}."
    )
    picture.caption = "Above: the state x, scaled for display. Below: the image the denoiser expects at that moment."
    return picture


def _one_scale_across(ax: Any, zlabel: str) -> None:
    """Give both components of a 3-D picture the same scale: a nearly flat curve then looks flat."""
    (y0, y1), (z0, z1) = ax.get_ylim(), ax.get_zlim()
    spare = max(0.0, 0.6 * (z1 - z0) - (y1 - y0)) / 2
    ax.set_ylim(y0 - spare, y1 + spare)
    ax.set_box_aspect((2, (y1 - y0 + 2 * spare) / (z1 - z0), 1), zoom=1.12)
    ax.locator_params(axis="y", nbins=2)
    ax.locator_params(axis="z", nbins=5)
    ax.set_zlabel(zlabel)
    ax.view_init(elev=18, azim=-64)

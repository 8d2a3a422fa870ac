"""Pictures of the plane: arrows, densities, and the steps of a sampler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from teachkit.checks import flag, integer, number, scalar, shown
from teachkit.course.plots.figure import BLUE, GREY, ORANGE, VERMILLION, Picture
from teachkit.course.plots.shared import Array, as_array, as_indices, as_plane, dots, drawing, finish, legend, short
from teachkit.trajectory import Trajectory, whole_path


def grid(extent: float | Sequence[float], n: int = 20) -> Tensor:
    """A lattice of points in the plane.

    Parameters
    ----------
    extent : float or (left, right, bottom, top)
        Half-width around 0, or the sides.
    n : int
        Points along a side.

    Returns
    -------
    Tensor
        ``(n*n, 2)`` float64.

    Examples
    --------
    >>> grid(1.0, 2).tolist()
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    """
    n = integer("n", n, 1)
    if not isinstance(extent, Sequence) or isinstance(extent, str):
        extent = [sign * number("extent", extent) for sign in (-1, 1, -1, 1)]
    if len(extent) != 4:
        raise ValueError(f"extent must be a half-width or (left, right, bottom, top), got {shown(extent)}")
    left, right, bottom, top = (scalar("extent", side) for side in extent)
    u, v = np.meshgrid(np.linspace(left, right, n), np.linspace(bottom, top, n))
    return torch.from_numpy(np.stack([u, v], -1).reshape(-1, 2))


def vector_field(
    points: Array,
    vectors: Array,
    *,
    data: Array | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
    title: str = "Vector field",
) -> Picture:
    """Arrows at points of the plane, for example D(x; sigma) - x on a `grid`.

    All arrows are drawn with one length and coloured by their true length.

    Parameters
    ----------
    points, vectors : (M, 2)
        Where, and the arrow there.
    data : (K, 2), optional
        Dots to add.
    colorbar : bool
        Without it several panels stand closer.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> print(vector_field([[0, 0], [1, 0]], [[3, 4], [0, 1]]).alt)
    Vector field: 2 arrows, 1 to 5 long (median 3).
    """
    p, v = as_array("points", points, (None, 2)), as_array("vectors", vectors, (None, 2))
    if p.shape != v.shape:
        raise ValueError(f"vectors must have the shape of points, {p.shape}, got {v.shape}")
    length = np.linalg.norm(v, axis=1)
    unit = v / np.where(length > 0, length, 1)[:, None]
    with drawing(ax, size=(5.6, 4.6)) as ax:
        dots(ax, data)
        arrows = ax.quiver(
            *p.T, *unit.T, length, cmap="cividis", angles="xy", pivot="mid", scale=32, width=0.005, zorder=3
        )
        if flag("colorbar", colorbar):
            ax.figure.colorbar(arrows, ax=ax, label="length of the arrow", shrink=0.85)
        as_plane(ax)
    alt = f"{len(p)} arrows, {short(length.min())} to {short(length.max())} long (median {short(np.median(length))})."
    return finish(ax, title, alt, "All arrows are drawn equally long; their colour is their true length.")


def mixture_contours(
    points: Array,
    log_density: Array,
    *,
    data: Array | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
    title: str = "Density",
) -> Picture:
    """Filled contours of a density in the plane.

    Parameters
    ----------
    points : (n*n, 2)
        A square `grid`.
    log_density : (n*n,)
        In nats, at those points.
    data : (K, 2), optional
        Dots to add.
    colorbar : bool
        Without it several panels stand closer.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> points = grid(2.0, 5)
    >>> print(mixture_contours(points, -points.square().sum(1)).alt)
    Density: Highest near (0.0, 0.0); above a tenth of that on 36% of the plane shown.
    """
    p, values = as_array("points", points, (None, 2)), as_array("log_density", log_density, (None,))
    n = round(len(p) ** 0.5)
    if n * n != len(p) or len(values) != len(p):
        raise ValueError(f"points and log_density must cover a square grid, got {len(p)} points, {len(values)} values")
    lattice = p.reshape(n, n, 2)
    if np.ptp(lattice[..., 0], axis=0).max() > 0 or np.ptp(lattice[..., 1], axis=1).max() > 0:
        raise ValueError("points must be a square lattice, row by row, as grid() makes them")
    u, v, z = (a.reshape(n, n) for a in (p[:, 0], p[:, 1], np.exp(values - values.max())))
    peak = p[values.argmax()]
    with drawing(ax, size=(5.6, 4.6)) as ax:
        filled = ax.contourf(u, v, z, levels=np.linspace(0, 1, 11), cmap="Blues")
        ax.contour(u, v, z, levels=[0.1, 0.5], colors=GREY, linewidths=0.8)
        if flag("colorbar", colorbar):
            ax.figure.colorbar(filled, ax=ax, label="density / its maximum", shrink=0.85, ticks=[0, 0.5, 1])
        dots(ax, data, colour=VERMILLION)
        as_plane(ax)
    share = np.mean(z > 0.1)
    alt = f"Highest near ({peak[0]:.1f}, {peak[1]:.1f}); above a tenth of that on {share:.0%} of the plane shown."
    return finish(ax, title, alt, "Grey lines: half and a tenth of the maximum.")


def steps_on_path(
    trajectory: Trajectory,
    *,
    samples: Sequence[int] = (0,),
    data: Array | None = None,
    ax: Axes | None = None,
    title: str = "Steps of the sampler",
) -> Picture:
    """2-D paths step by step: each state x, and a thin line to the denoiser output D(x; sigma) it aims at.

    Parameters
    ----------
    trajectory : Trajectory
        Paths of points in the plane, kept whole.
    samples : sequence of int
        Which of them.
    data : (K, 2), optional
        Dots to add.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> from teachkit import Empirical, initial_noise, sample, schedules
    >>> path = sample(Empirical(torch.eye(2).double()), initial_noise(1, (2,)), schedules.polynomial(4))
    >>> print(steps_on_path(path).alt[:40])
    Steps of the sampler: 1 path of 4 steps;
    """
    whole_path("trajectory", trajectory, outputs=True)
    x = as_array("trajectory.x", trajectory.x, (None, None, 2))
    d = as_array("outputs of trajectory", trajectory.denoised)
    samples = as_indices("samples", samples, x.shape[1])
    with drawing(ax, size=(5.6, 4.6)) as ax:
        dots(ax, data, label="data")
        for i in samples:
            lines = np.stack([x[:-1, i], d[:, i]]).transpose(2, 0, 1)  # coordinate, end, step
            ax.plot(*lines, color=ORANGE, lw=1, label="from x to D", zorder=2)
            ax.plot(*d[:, i].T, "s", color=ORANGE, ms=3.5, label="D(x; σ)", zorder=3)
            ax.plot(*x[:, i].T, "o-", color=BLUE, ms=4, label="state x", zorder=4)
            ax.plot(*x[-1, i], "*", color=VERMILLION, ms=10, label="end", zorder=5)
        legend(ax)
        as_plane(ax, "datalim")
    start, end = x[0, samples[0]], x[-1, samples[0]]
    alt = (
        f"{len(samples)} path{'s' * (len(samples) > 1)} of {len(x) - 1} steps; the first runs "
        f"from ({start[0]:.1f}, {start[1]:.1f}) to ({end[0]:.1f}, {end[1]:.1f})."
    )
    return finish(ax, title, alt, "Each step moves along a thin line, part of the way to D(x; σ).")

"""Pictures: one function per kind, each returning a figure that describes itself.

Every function takes plain arrays, tensors or a `Trajectory`, draws with labels and units, and returns a
`Picture`: a matplotlib figure with a ``caption`` and, in ``alt``, a text that states the numbers seen. Pass ``ax=``
to draw into a panel of a larger picture (`panels`). The style and its colour-blind-safe palette (Okabe and Ito)
stand in ``teachkit.mplstyle`` and never touch the user's own settings. Used in every notebook.

A picture is shown in three forms: an HTML image, the only one that carries alternative text in JupyterLab;
image/png for PDF export; and, as text/plain, the alternative text, which nbval compares in place of the pixels.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib.style
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from teachkit import geometry
from teachkit.sampling import Trajectory

__all__ = ["Picture", "boomerang", "cost_matrix", "deviation", "explained_variance", "film_strip", "grid"]
__all__ += ["image_grid", "loss_by_noise_level", "mixture_contours", "panels", "show", "steps_on_path", "style"]
__all__ += ["vector_field", "work_precision"]

Array: TypeAlias = ArrayLike | Tensor
BLUE, VERMILLION, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#777777"
_MARKERS = "osD^vPX"
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Context manager: the course's style on matplotlib's defaults; the user's settings come back after it.

    One thread at a time: JupyterLab answers to widgets in a thread of their own, and settings saved by one thread while
    another has changed them would come back wrong.
    """
    with _ONE_AT_A_TIME, matplotlib.style.context(["default", Path(__file__).with_name("teachkit.mplstyle")]):
        yield


class Picture(Figure):
    """A matplotlib figure that displays itself with a caption and alternative text (``caption``, ``alt``)."""

    alt: str = ""
    caption: str = ""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        with style():
            super().savefig(*args, **kwargs)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        return _mimebundle(self, self.alt or "A picture without a description.", self.caption)


def panels(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **kwargs: Any
) -> tuple[Picture, Any]:
    """An empty `Picture` in the course's style and its axes, as ``pyplot.subplots`` would return them.

    ``size`` is (width, height) in inches; other keywords go to ``Figure.subplots``.
    """
    with style():
        picture = Picture(figsize=size or (min(4.4 * columns, 9.6) if columns > 1 else 6.4, 3.1 * rows + 0.6))
        return picture, picture.subplots(rows, columns, **kwargs)


def show(figure: Figure, alt: str | None = None, caption: str | None = None) -> None:
    """Display a figure in a notebook with alternative text (required, unless a `Picture` that has its own).

    Also takes figures made with pyplot, which are closed so that they are not shown twice.
    """
    alt = alt or getattr(figure, "alt", "")
    if not isinstance(figure, Figure) or not alt:
        raise ValueError(f"show needs a Figure and alt, a text that says what is seen; got {figure!r}, alt={alt!r}")
    from IPython.display import display

    caption = getattr(figure, "caption", "") if caption is None else caption
    data, metadata = _mimebundle(figure, alt, caption)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    display(data, metadata=metadata, raw=True)


def grid(extent: float | Sequence[float], n: int = 20) -> Tensor:
    """Lattice ``(n*n, 2)``, float64, over ``extent``: a half-width or (left, right, bottom, top)."""
    left, right, bottom, top = extent if isinstance(extent, Sequence) else (-extent, extent, -extent, extent)
    u, v = np.meshgrid(np.linspace(left, right, n), np.linspace(bottom, top, n))
    return torch.from_numpy(np.stack([u, v], -1).reshape(-1, 2))


# --- the plane ---------------------------------------------------------------------------------------------


def vector_field(
    points: Array, vectors: Array, *, data: Array | None = None, ax: Axes | None = None, title: str = "Vector field"
) -> Picture:
    """Arrows ``vectors (M, 2)`` at ``points (M, 2)``, for example D(x; sigma) - x on a `grid`.

    All arrows are drawn with one length and coloured by their true length; ``data (K, 2)`` adds dots.
    """
    p, v = _array("points", points, (None, 2)), _array("vectors", vectors, (None, 2))
    if p.shape != v.shape:
        raise ValueError(f"vectors must have the shape of points, {p.shape}, got {v.shape}")
    length = np.linalg.norm(v, axis=1)
    unit = v / np.where(length > 0, length, 1)[:, None]
    with style():
        ax = _axes(ax, size=(5.6, 4.6))
        _dots(ax, data)
        arrows = ax.quiver(
            *p.T, *unit.T, length, cmap="cividis", angles="xy", pivot="mid", scale=32, width=0.005, zorder=3
        )
        ax.figure.colorbar(arrows, ax=ax, label="length of the arrow", shrink=0.85)
        _plane(ax)
    alt = f"{len(p)} arrows, {_num(length.min())} to {_num(length.max())} long (median {_num(np.median(length))})."
    return _finish(ax, title, alt, "All arrows are drawn equally long; their colour is their true length.")


def mixture_contours(
    points: Array, log_density: Array, *, data: Array | None = None, ax: Axes | None = None, title: str = "Density"
) -> Picture:
    """Filled contours of a density given as ``log_density (n*n,)`` on a square `grid` ``points (n*n, 2)``."""
    p, values = _array("points", points, (None, 2)), _array("log_density", log_density, (None,))
    n = round(len(p) ** 0.5)
    if n * n != len(p) or len(values) != len(p):
        raise ValueError(f"points and log_density must cover a square grid, got {len(p)} points, {len(values)} values")
    u, v, z = (a.reshape(n, n) for a in (p[:, 0], p[:, 1], np.exp(values - values.max())))
    peak = p[values.argmax()]
    with style():
        ax = _axes(ax, size=(5.6, 4.6))
        filled = ax.contourf(u, v, z, levels=np.linspace(0, 1, 11), cmap="Blues")
        ax.contour(u, v, z, levels=[0.1, 0.5], colors=GREY, linewidths=0.8)
        ax.figure.colorbar(filled, ax=ax, label="density / its maximum", shrink=0.85, ticks=[0, 0.5, 1])
        _dots(ax, data, colour=VERMILLION)
        _plane(ax)
    share = np.mean(z > 0.1)
    alt = f"Highest near ({peak[0]:.1f}, {peak[1]:.1f}); above a tenth of that on {share:.0%} of the plane shown."
    return _finish(ax, title, alt, "Grey lines: half and a tenth of the maximum.")


def steps_on_path(
    trajectory: Trajectory,
    *,
    samples: Sequence[int] = (0,),
    data: Array | None = None,
    ax: Axes | None = None,
    title: str = "Steps of the sampler",
) -> Picture:
    """2-D paths step by step: each state x, and a thin line to the denoiser output D(x; sigma) it aims at."""
    if not isinstance(trajectory, Trajectory):
        raise TypeError(f"trajectory must be a Trajectory, got {type(trajectory).__name__}")
    x, d = _array("trajectory.x", trajectory.x, (None, None, 2)), _array("denoised", trajectory.denoised)
    with style():
        ax = _axes(ax, size=(5.6, 4.6))
        _dots(ax, data)
        for i in samples:
            for a, b in zip(x[:-1, i], d[:, i]):
                ax.plot(*np.stack([a, b]).T, color=ORANGE, lw=0.7, alpha=0.8, zorder=2)
            ax.plot(*d[:, i].T, "s", color=ORANGE, ms=3, label="D(x; σ)", zorder=3)
            ax.plot(*x[:, i].T, "o-", color=BLUE, ms=3.5, label="state x", zorder=4)
            ax.plot(*x[-1, i], "*", color=VERMILLION, ms=10, label="end", zorder=5)
        _legend(ax)
        _plane(ax, "datalim")
    start, end = x[0, samples[0]], x[-1, samples[0]]
    alt = (
        f"{len(samples)} path{'s' * (len(samples) > 1)} of {len(x) - 1} steps; the first runs "
        f"from ({start[0]:.1f}, {start[1]:.1f}) to ({end[0]:.1f}, {end[1]:.1f})."
    )
    return _finish(ax, title, alt, "Each step moves along a thin line, part of the way to D(x; σ).")


# --- the shape of a trajectory -----------------------------------------------------------------------------


def boomerang(
    curves: Trajectory | Array,
    *,
    dims: int = 3,
    relative: bool = True,
    ax: Axes | None = None,
    title: str | None = None,
) -> Picture:
    """Trajectories on their chord and two components across it, in 3-D, or (``dims=2``) on chord and component 1.

    ``curves`` is a `Trajectory`, projected here, or coordinates ``(N+1, B, 3)`` from ``geometry.project`` or
    ``geometry.align``. With ``relative`` each is in percent of its own chord. Real trajectories are nearly straight,
    so distances across the chord are magnified; the caption says how much. Dots mark noise levels on the median.
    """
    sigmas = curves.sigmas.numpy() if isinstance(curves, Trajectory) else None
    c = _array("curves", geometry.project(curves) if isinstance(curves, Trajectory) else curves, (None, None, 3))
    if dims not in (2, 3):
        raise ValueError(f"dims must be 2 or 3, got {dims!r}")
    length = np.linalg.norm(c[-1] - c[0], axis=1)  # (B,)
    if not length.all():
        raise ValueError("curves must end away from where they began: there is no chord to draw them on")
    across = 100 * np.linalg.norm(c[..., 1:], axis=-1).max(0) / length
    c = 100 * c / length[:, None] if relative else c
    c = c[..., [0, 2, 1]] if dims == 3 else c[..., :2]  # component 1 points up
    middle, unit = np.median(c, axis=1), ", %" if relative else ""  # (N+1, dims)
    with style():
        ax = _axes(ax, size=(6.4, 4.2) if dims == 3 else (6.4, 3.6), projection="3d" if dims == 3 else None)
        for k in range(c.shape[1]):
            ax.plot(*c[:, k].T, color=BLUE, lw=0.9, alpha=max(0.1, min(0.8, 10 / c.shape[1])))
        ax.plot(*middle[[0, -1]].T, color=GREY, lw=1, ls="--", label="chord")
        ax.plot(*middle[:1].T, "o", color="black", label="noise, start")
        ax.plot(*middle[-1:].T, "*", color=VERMILLION, ms=11, label="data, end")
        shown = [] if sigmas is None else [v for v in (40, 20, 10, 5, 2) if sigmas[-1] <= v <= sigmas[0]]
        at = [int(np.abs(np.log(np.maximum(sigmas, 1e-9) / v)).argmin()) for v in shown]  # type: ignore[arg-type]
        levels = [_num(sigmas[m]) for m in at]  # type: ignore[index]
        if at:
            label = "median at σ = " + ", ".join(levels)
            ax.plot(*middle[at].T, "o", color=ORANGE, mec="black", mew=0.5, label=label)
        for m, value, level in zip(at, shown, levels if dims == 2 else []):
            place, side = {5: ((0, 12), "center"), 2: ((7, 2), "left")}.get(value, ((-6, 3), "right"))
            note = ax.annotate(level, middle[m], place, textcoords="offset points", ha=side, fontsize=8)
            note.set_bbox({"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8})
        ax.set(xlabel=f"along the chord{unit}", ylabel=f"component {dims - 1}{unit}")
        if dims == 3:
            _one_scale_across(ax, f"component 1{unit}")
        ax.legend(loc="upper left")
    magnified = 100 / max(np.percentile(across, 90), 1e-9) / 2
    alt = (
        f"{c.shape[1]} trajectories on a chord {_num(np.median(length))} long (median). The median one leaves it by at "
        f"most {_num(np.median(across))} % of its length, the one that bends most by {_num(across.max())} %."
    )
    caption = f"Distances across the chord are magnified about {float(f'{magnified:.1g}'):g} times."
    return _finish(ax, title or f"{c.shape[1]} trajectories, one shape", alt, caption)


def deviation(
    values: Trajectory | Array,
    sigmas: Array | None = None,
    *,
    relative: bool = True,
    ax: Axes | None = None,
    title: str = "Deviation from the chord",
) -> Picture:
    """Distance to the chord against noise level, as a share of the chord's length: median and 10-90 % band.

    ``values`` is a `Trajectory`, or distances ``(N+1, B)`` with their ``sigmas (N+1,)``, drawn as they are.
    """
    label, unit = "distance to the chord", ""
    if isinstance(values, Trajectory):
        sigmas = values.sigmas
        y = _array("values", geometry.deviation(values, relative=relative), (None, None))
        if relative:
            y = 100 * y
            label, unit = "distance to the chord, % of its length", " % of the chord"
    else:
        y = _array("values", values, (None, None))
    s = _sigmas(sigmas, len(y))
    with style():
        ax = _axes(ax)
        middle = _band(ax, s, y, BLUE, f"median of {y.shape[1]}")
        peak = int(middle.argmax())
        ax.plot(
            s[peak],
            middle[peak],
            "o",
            color=VERMILLION,
            label=f"peak {_num(middle[peak])}{unit[:2]} at σ = {_num(s[peak])}",
        )
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        _noise_axis(ax)
        ax.legend()
    alt = f"{y.shape[1]} trajectories, deviation peaks at {_num(middle[peak])}{unit} near sigma {_num(s[peak])}."
    return _finish(ax, title, alt, "Shaded: from the 10th to the 90th percentile.")


def explained_variance(
    shares: Mapping[str, Array] | Array, *, ax: Axes | None = None, title: str = "Variance explained by k components"
) -> Picture:
    """Cumulative shares ``(k,)`` or ``(B, k)`` against k; a mapping of names to shares draws a line each."""
    lines = {n: np.atleast_2d(100 * _array("shares", s)) for n, s in _named(shares).items()}
    parts = []
    with style():
        ax = _axes(ax)
        for (name, y), marker in zip(lines.items(), _MARKERS * len(lines)):
            k, middle = np.arange(1, y.shape[1] + 1), np.median(y, axis=0)
            (line,) = ax.plot(k, middle, marker + "-", label=name or None)
            ax.fill_between(k, *np.percentile(y, [10, 90], axis=0), color=line.get_color(), alpha=0.2, lw=0)
            parts.append(f"{name + ': ' if name else ''}" + ", ".join(f"{m:.1f}" for m in middle[:3]) + " %")
        ax.set_xticks(range(1, max(y.shape[1] for y in lines.values()) + 1))
        ax.set_xlabel("number of components k")
        ax.set_ylabel("variance explained, %")
        ax.set_ylim(0, 103)
        _legend(ax)
    return _finish(ax, title, "Share explained by the first components. " + "; ".join(parts) + ".", "")


def film_strip(
    trajectory: Trajectory, *, sample: int = 0, frames: int = 8, title: str = "One path, frame by frame"
) -> Picture:
    """States and denoiser outputs of one image trajectory, grey or RGB, at ``frames`` noise levels.

    States are divided by sqrt(1 + sigma^2) for display, so that noise does not saturate the picture.
    """
    if not isinstance(trajectory, Trajectory) or trajectory.x.ndim != 5:
        raise ValueError("trajectory must be a Trajectory of images, with x of shape (N+1, B, C, H, W)")
    sigmas = trajectory.sigmas.numpy()
    at = np.unique(np.linspace(0, len(trajectory.denoised) - 1, frames).round().astype(int))
    with style():
        picture = Picture(figsize=(min(0.95 * len(at), 9.6), 2.5))
        axes = picture.subplots(2, len(at), squeeze=False)
        for column, i in zip(axes.T, at):
            state = trajectory.x[i, sample] / (1 + sigmas[i] ** 2) ** 0.5
            for ax, image in zip(column, (state, trajectory.denoised[i, sample])):
                _imshow(ax, _array("trajectory", image))
            column[0].set_title(f"σ = {_num(sigmas[i])}", fontsize=8, loc="center")
        for ax, label in zip(axes[:, 0], ("state x", "D(x; σ)")):
            ax.set_ylabel(label, fontsize=9)
        picture.suptitle(title, x=0.01, ha="left", fontsize=11)
    change = (trajectory.denoised[at][1:, sample] - trajectory.denoised[at][:-1, sample]).flatten(1).norm(dim=1)
    late = at[1:][int(change.argmax())]
    picture.alt = (
        f"{len(at)} frames from sigma {_num(sigmas[at[0]])} to {_num(sigmas[at[-1]])}; the "
        f"denoiser output changes most on the way to sigma {_num(sigmas[late])}."
    )
    picture.caption = "Above: the state x, scaled for display. Below: the image the denoiser expects at that moment."
    return picture


def image_grid(
    images: Array, *, columns: int = 8, titles: Sequence[object] | None = None, title: str = "Images"
) -> Picture:
    """Images ``(B, C, H, W)`` or ``(B, H, W)`` in [-1, 1], row by row; values outside are clipped."""
    a = _array("images", images)
    if a.ndim not in (3, 4) or not len(a) or (a.ndim == 4 and a.shape[1] not in (1, 3)):
        raise ValueError(f"images must have shape (B, H, W), (B, 1, H, W) or (B, 3, H, W), got {a.shape}")
    columns, rows = min(columns, len(a)), -(-len(a) // columns)
    with style():
        cell = 0.75 if titles is None else 0.9
        picture = Picture(figsize=(max(cell * columns, 3.0), cell * rows + 0.4))
        axes = picture.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(a) :]:
            ax.remove()
        for k, (ax, image) in enumerate(zip(axes, a)):
            _imshow(ax, image)
            if titles is not None:
                ax.set_title(str(titles[k]), fontsize=8, loc="center", pad=2)
        picture.suptitle(title, x=0.01, ha="left", fontsize=11)
    picture.alt = f"{title}: {len(a)} images of {a.shape[-2]} by {a.shape[-1]} pixels."
    picture.caption = ""
    return picture


# --- schedules, solvers, training --------------------------------------------------------------------------


def cost_matrix(
    cost: Array,
    sigmas: Array | None = None,
    path: Sequence[int] | None = None,
    *,
    ax: Axes | None = None,
    title: str = "Cost of one jump",
) -> Picture:
    """Costs ``(N+1, N+1)`` of jumping from level i (down) to j > i (across), and a chosen ``path`` of indices.

    Logarithmic colour; entries that are not positive (or not above the diagonal) stay white.
    """
    c = np.array(_array("cost", cost, (None, None), finite=False))
    if c.shape[0] != c.shape[1]:
        raise ValueError(f"cost must be square, got {c.shape}")
    c[~(np.isfinite(c) & (c > 0)) | np.tri(len(c), dtype=bool)] = np.nan
    if not np.isfinite(c).any():
        raise ValueError("cost has no positive entry above its diagonal")
    low, high = max(np.nanmin(c), 1e-6 * np.nanmax(c)), np.nanmax(c)
    alt = f"Costs between {len(c)} noise levels, from {_num(np.nanmin(c))} to {_num(high)}."
    with style():
        ax = _axes(ax, size=(5.6, 4.8))
        image = ax.imshow(c, norm=LogNorm(low, high) if low < high else Normalize(), cmap="cividis")
        ax.figure.colorbar(image, ax=ax, label="cost", shrink=0.85, extend="min" if low > np.nanmin(c) else "neither")
        if path is not None:
            p = np.asarray(path)
            corners = np.repeat(p, 2)
            ax.plot(corners[1:], corners[:-1], color=VERMILLION, lw=1.2)
            ax.plot(p[1:], p[:-1], "o", color=VERMILLION, mec="white", label=f"path of {len(p) - 1} jumps")
            ax.legend(loc="lower left")
            names = p if sigmas is None else [_num(s) for s in _sigmas(sigmas, len(c))[p]]
            alt += f" The path stops at {', '.join(map(str, names))}."
        if sigmas is not None:
            s, at = _sigmas(sigmas, len(c)), np.linspace(0, len(c) - 1, 6).round().astype(int)
            ax.set_xticks(at, [_num(v) for v in s[at]])
            ax.set_yticks(at, [_num(v) for v in s[at]])
        unit = "index of the level" if sigmas is None else "noise level σ"
        ax.set(xlabel=f"to: {unit}", ylabel=f"from: {unit}")
        ax.grid(False)
    return _finish(
        ax,
        title,
        alt,
        "" if path is None else "A dot is a jump: its row is where it starts, its column where it lands.",
    )


def work_precision(
    results: Mapping[str, tuple[Array, Array]],
    *,
    error: str = "error",
    ax: Axes | None = None,
    title: str = "Work and precision",
) -> Picture:
    """Error against function evaluations, one line per name: ``{name: (nfe (K,), errors (K,))}``."""
    if not results:
        raise ValueError("results must have at least one entry, got an empty mapping")
    parts = []
    with style():
        ax = _axes(ax)
        for (name, (nfe, errors)), marker in zip(results.items(), _MARKERS * len(results)):
            n, e = _array("nfe", nfe, (None,)), _array("errors", errors, (None,))
            ax.loglog(n, e, marker + "-", label=name)
            parts.append(f"{name} from {_num(e[0])} at {n[0]:.0f} to {_num(e[-1])} at {n[-1]:.0f}")
        ticks = sorted({float(v) for nfe, _ in results.values() for v in _array("nfe", nfe)})
        ticks = ticks if len(ticks) <= 8 else ticks[:: -(-len(ticks) // 8)]
        ax.set_xticks(ticks, [f"{t:.0f}" for t in ticks])
        ax.set_xticks([], minor=True)
        ax.set(xlabel="number of function evaluations (NFE)", ylabel=error)
        ax.legend()
    return _finish(ax, title, f"{error} against evaluations: " + "; ".join(parts) + ".", "Lower left is better.")


def loss_by_noise_level(
    sigmas: Array,
    losses: Mapping[str, Array] | Array,
    *,
    ylabel: str = "loss",
    ax: Axes | None = None,
    title: str = "Loss by noise level",
) -> Picture:
    """Loss against noise level, ``(S,)`` or ``(S, B)`` (median and band); a mapping of names draws a line each."""
    lines = {n: _array("losses", v) for n, v in _named(losses).items()}
    s = _sigmas(sigmas, len(next(iter(lines.values()))))
    parts = []
    with style():
        ax = _axes(ax)
        for k, (name, y) in enumerate(lines.items()):
            middle = _band(ax, s, y.reshape(len(y), -1), f"C{k}", name)
            i, j = int(middle.argmax()), int(middle.argmin())
            parts.append(
                f"{name + ': ' if name else ''}from {_num(middle[j])} at sigma {_num(s[j])}"
                f" to {_num(middle[i])} at {_num(s[i])}"
            )
        ax.set_ylabel(ylabel)
        ax.set_yscale("log")
        _noise_axis(ax)
        _legend(ax)
    return _finish(ax, title, f"{ylabel} by noise level. " + "; ".join(parts) + ".", "")


# --- shared ------------------------------------------------------------------------------------------------


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


def _array(name: str, value: Array, shape: tuple[int | None, ...] | None = None, finite: bool = True) -> NDArray:
    a = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=float)
    if shape is not None and (a.ndim != len(shape) or any(w not in (None, g) for w, g in zip(shape, a.shape))):
        want = ", ".join("*" if w is None else str(w) for w in shape)
        raise ValueError(f"{name} must have shape ({want}), got {a.shape}")
    if not a.size or (finite and not np.isfinite(a).all()):
        raise ValueError(f"{name} must be finite and not empty, got shape {a.shape}")
    return a


def _sigmas(sigmas: Array | None, n: int) -> NDArray:
    """Noise levels for a logarithmic axis: a final 0 is drawn at a tenth of the level before it."""
    if sigmas is None:
        raise ValueError("sigmas must be given with plain arrays, got None")
    s = _array("sigmas", sigmas, (n,)).copy()
    if s[-1] == 0 and n > 1:
        s[-1] = s[-2] / 10
    return s


def _named(values: Mapping[str, Array] | Array) -> dict[str, Array]:
    return dict(values) if isinstance(values, Mapping) else {"": values}


def _num(value: float) -> str:
    """Two significant digits, three from 100 on: 0.0056, 5.4, 634."""
    return f"{float(f'{value:.{3 if abs(value) >= 100 else 2}g}'):g}"


def _axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0), projection: str | None = None) -> Any:
    return ax if ax is not None else Picture(figsize=size).add_subplot(projection=projection)


def _plane(ax: Axes, adjustable: Literal["box", "datalim"] = "box") -> None:
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.set_aspect("equal", adjustable=adjustable)
    ax.grid(False)


def _dots(ax: Axes, data: Array | None, colour: str = GREY) -> None:
    if data is not None:
        ax.plot(*_array("data", data, (None, 2)).T, ".", color=colour, ms=3, alpha=0.6, zorder=1)


def _noise_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    if not ax.xaxis_inverted():
        ax.invert_xaxis()
    ax.set_xlabel("noise level σ (sampling →)")


def _band(ax: Axes, x: NDArray, y: NDArray, colour: str, label: str) -> NDArray:
    low, middle, high = np.percentile(y, [10, 50, 90], axis=1)
    ax.plot(x, middle, color=colour, label=label or None)
    if y.shape[1] > 1:
        ax.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    return middle


def _legend(ax: Axes) -> None:
    handles = dict(zip(*reversed(ax.get_legend_handles_labels())))
    if handles:
        ax.legend(handles.values(), handles.keys())


def _imshow(ax: Axes, image: NDArray) -> None:
    pixels = image.squeeze(0) if image.ndim == 3 and len(image) == 1 else image
    pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
    ax.imshow(((pixels + 1) / 2).clip(0, 1), cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _finish(ax: Any, title: str, alt: str, caption: str) -> Picture:
    """Set the title, and describe the picture; a further panel adds its sentence to the alternative text."""
    with style():
        ax.set_title(title)
    picture: Picture = ax.figure
    picture.alt = " ".join(filter(None, [getattr(picture, "alt", ""), f"{title}: {alt}"]))
    picture.caption = caption
    return picture


def markup(figure: Picture, dpi: int = 96) -> str:
    """The picture as HTML with its alternative text, for a widget that draws it anew at every change: made in haste.

    It keeps all its colours and fits itself into a narrower place.
    """
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    with style():
        figure.set_dpi(dpi)
        canvas.draw()
    image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    image.save(buffer, format="png", compress_level=3)
    data = base64.b64encode(buffer.getvalue()).decode()
    fit, flush = ' style="max-width: 100%; height: auto"', ' style="margin: 0"'
    return _element(data, image.width, figure.alt, figure.caption, fit, flush)


def _element(data: str, width: int, alt: str, caption: str, attributes: str = "", around: str = "") -> str:
    text = html.escape(alt, quote=True)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    image = f'<img alt="{text}" width="{width}"{attributes} src="data:image/png;base64,{data}">'
    return f"<figure{around}>{image}{below}</figure>"


def _mimebundle(figure: Figure, alt: str, caption: str, dpi: int = 144) -> tuple[dict, dict]:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return (
        {"text/html": _element(data, width, alt, caption), "image/png": data, "text/plain": alt},
        {"image/png": {"width": width, "height": height, "alt": alt}},
    )

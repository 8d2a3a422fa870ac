"""Pictures of results: samples, cost matrices, work against precision, and loss by noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from teachkit.checks import integer, shown, text
from teachkit.course.plots import shared
from teachkit.course.plots.figure import VERMILLION, Picture, style
from teachkit.course.plots.shared import Array, as_array, short


def image_grid(
    images: Array,
    *,
    columns: int = 8,
    titles: Sequence[object] | None = None,
    rows: Sequence[object] | None = None,
    title: str = "Images",
) -> Picture:
    """Images row by row, grey or RGB.

    Parameters
    ----------
    images : (B, C, H, W) or (B, H, W)
        In [-1, 1]; values outside are clipped.
    columns : int
        Images in a row.
    titles : sequence, optional
        One for each image, or one for each column.
    rows : sequence, optional
        One for each row, beside it.
    title : str
        Above them all.

    Examples
    --------
    >>> print(image_grid(np.zeros((3, 4, 4))).alt)
    Images: 3 images of 4 by 4 pixels.
    """
    a = as_array("images", images)
    if a.ndim not in (3, 4) or not len(a) or (a.ndim == 4 and a.shape[1] not in (1, 3)):
        raise ValueError(f"images must have shape (B, H, W), (B, 1, H, W) or (B, 3, H, W), got {a.shape}")
    columns = integer("columns", columns, 1)
    columns, count = min(columns, len(a)), -(-len(a) // columns)
    above = _names("titles", titles, (len(a), columns), "image or column")
    beside = _names("rows", rows, (count,), "row")
    with style():
        cell = 0.75 if titles is None else 0.9
        room = max((0.08 * len(line) for name in beside for line in name.split("\n")), default=0)  # inches
        picture = Picture(figsize=(max(cell * columns, 3.0) + room, cell * count + 0.4))
        axes = picture.subplots(count, columns, squeeze=False).ravel()
        for ax in axes[len(a) :]:
            ax.remove()
        for k, (ax, image) in enumerate(zip(axes, a)):
            shared.show_pixels(ax, image)
            if k < len(above):
                ax.set_title(above[k], fontsize=8, loc="center", pad=2)
        for ax, name in zip(axes[::columns], beside):
            ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        picture.suptitle(text("title", title), x=0.01, ha="left", fontsize=11)
    picture.alt = f"{title}: {len(a)} images of {a.shape[-2]} by {a.shape[-1]} pixels."
    return picture


def _names(name: str, given: Sequence[object] | None, sizes: tuple[int, ...], of: str) -> list[str]:
    """What is written beside pictures: as many as one of ``sizes``."""
    if given is None:
        return []
    listed = isinstance(given, Sequence) or getattr(given, "ndim", 0) > 0
    if not (listed and len(given) in sizes):
        many = " or ".join(map(str, dict.fromkeys(sizes)))
        raise ValueError(f"{name} must hold one for each {of}, {many}, got {shown(given)}")
    return [str(each) for each in given]


def cost_matrix(
    cost: Array,
    sigmas: Array | None = None,
    path: Sequence[int] | None = None,
    *,
    ax: Axes | None = None,
    title: str = "Cost of one jump",
) -> Picture:
    """Costs of jumping from level i (down) to j > i (across), and a chosen path.

    Logarithmic colour; entries that are not positive (or not above the diagonal) stay white.

    Parameters
    ----------
    cost : (N+1, N+1)
        As from ``scheduling.cost_matrix``.
    sigmas : (N+1,), optional
        Noise levels, to label the axes.
    path : sequence of int, optional
        Indices of a chosen route.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> print(cost_matrix([[0, 1, 4], [0, 0, 1], [0, 0, 0]], path=[0, 1, 2]).alt)
    Cost of one jump: Costs between 3 noise levels, from 1 to 4. The path stops at 0, 1, 2.
    """
    c = np.array(as_array("cost", cost, (None, None), finite=False))
    if c.shape[0] != c.shape[1]:
        raise ValueError(f"cost must be square, got {c.shape}")
    c[~(np.isfinite(c) & (c > 0)) | np.tri(len(c), dtype=bool)] = np.nan
    if not np.isfinite(c).any():
        raise ValueError("cost has no positive entry above its diagonal")
    path = None if path is None else shared.as_indices("path", path, len(c), least=2)
    low, high = max(np.nanmin(c), 1e-6 * np.nanmax(c)), np.nanmax(c)
    alt = f"Costs between {len(c)} noise levels, from {short(np.nanmin(c))} to {short(high)}."
    with shared.drawing(ax, size=(5.6, 4.8)) as ax:
        image = ax.imshow(c, norm=LogNorm(low, high) if low < high else Normalize(), cmap="cividis")
        ax.figure.colorbar(image, ax=ax, label="cost", shrink=0.85, extend="min" if low > np.nanmin(c) else "neither")
        if path is not None:
            corners = np.repeat(path, 2)
            ax.plot(corners[1:], corners[:-1], color=VERMILLION, lw=1.2)
            ax.plot(path[1:], path[:-1], "o", color=VERMILLION, mec="white", label=f"path of {len(path) - 1} jumps")
            ax.legend(loc="lower left")
            stops = path if sigmas is None else map(short, shared.as_levels(sigmas, len(c))[path])
            alt += f" The path stops at {', '.join(map(str, stops))}."
        if sigmas is not None:
            at = np.linspace(0, len(c) - 1, 6).round().astype(int)
            names = [short(s) for s in shared.as_levels(sigmas, len(c))[at]]
            ax.set(xticks=at, xticklabels=names, yticks=at, yticklabels=names)
        unit = "index of the level" if sigmas is None else "noise level σ"
        ax.set(xlabel=f"to: {unit}", ylabel=f"from: {unit}")
        ax.grid(False)
    caption = "A dot is a jump: its row is where it starts, its column where it lands."
    return shared.finish(ax, title, alt, "" if path is None else caption)


def work_precision(
    results: Mapping[str, tuple[Array, Array]],
    *,
    error: str = "error",
    ax: Axes | None = None,
    title: str = "Work and precision",
) -> Picture:
    """Error against function evaluations, one line per name.

    Parameters
    ----------
    results : mapping of names to (K,), (K,)
        Numbers of evaluations and errors of each method.
    error : str
        What the error is, for the axis.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> print(work_precision({"Euler": ([5, 10], [0.2, 0.1])}).alt)
    Work and precision: error against evaluations: Euler from 0.2 at 5 to 0.1 at 10.
    """
    if not isinstance(results, Mapping) or not all(isinstance(r, Sequence) and len(r) == 2 for r in results.values()):
        raise TypeError(f"results must be a mapping of names to (nfe, errors), got {shown(results)}")
    if not results:
        raise ValueError("results must have at least one entry, got an empty mapping")
    parts = []
    with shared.drawing(ax) as ax:
        for (name, (nfe, errors)), marker in zip(results.items(), shared.MARKERS * len(results)):
            n = as_array("nfe", nfe, (None,))
            e = as_array("errors", errors, (len(n),))
            if (n <= 0).any() or (e <= 0).any():
                raise ValueError(f"nfe and errors must be positive on logarithmic axes, got those of {name!r}")
            ax.loglog(n, e, marker + "-", label=name)
            parts.append(f"{name} from {short(e[0])} at {n[0]:.0f} to {short(e[-1])} at {n[-1]:.0f}")
        ticks = np.unique(np.concatenate([as_array("nfe", nfe) for nfe, _ in results.values()]))
        ticks = ticks[:: -(-len(ticks) // 8)]  # eight at most
        ax.set_xticks(ticks, [f"{t:.0f}" for t in ticks])
        ax.set_xticks([], minor=True)
        ax.set(xlabel="number of function evaluations (NFE)", ylabel=text("error", error))
        ax.legend()
    return shared.finish(ax, title, f"{error} against evaluations: " + "; ".join(parts) + ".", "Lower left is better.")


def loss_by_noise_level(
    sigmas: Array,
    losses: Mapping[str, Array] | Array,
    *,
    ylabel: str = "loss",
    ax: Axes | None = None,
    title: str = "Loss by noise level",
) -> Picture:
    """Loss against noise level; a mapping of names draws a line each.

    Parameters
    ----------
    sigmas : (S,)
        Noise levels.
    losses : (S,) or (S, B), or a mapping of names to these
        With a batch, median and band.
    ylabel : str
        What the loss is, for the axis.
    ax : Axes, optional
        Draw into these; otherwise a figure is made.
    title : str
        Above the axes.

    Examples
    --------
    >>> print(loss_by_noise_level([10.0, 1.0, 0.1], [0.1, 0.5, 0.9]).alt)
    Loss by noise level: loss by noise level. from 0.1 at sigma 10 to 0.9 at 0.1.
    """
    lines = shared.as_lines("losses", losses)
    s = shared.as_levels(sigmas, len(next(iter(lines.values()))))
    for name, y in lines.items():
        if len(y) != len(s):
            raise ValueError(f"losses must have a row for each of the {len(s)} sigmas, got {len(y)} for {name!r}")
    parts = []
    with shared.drawing(ax) as ax:
        for k, (name, y) in enumerate(lines.items()):
            middle = shared.band(ax, s, y.reshape(len(y), -1), f"C{k}", name)
            i, j = int(middle.argmax()), int(middle.argmin())
            ends = f"from {short(middle[j])} at sigma {short(s[j])} to {short(middle[i])} at {short(s[i])}"
            parts.append(f"{name}: {ends}" if name else ends)
        ax.set(ylabel=text("ylabel", ylabel), yscale="log")
        shared.noise_axis(ax)
        shared.legend(ax)
    return shared.finish(ax, title, f"{ylabel} by noise level. " + "; ".join(parts) + ".", "")

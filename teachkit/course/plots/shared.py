"""What the pictures share: checked arrays, axes for noise levels and the plane, bands, and the final description."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from teachkit.checks import as_real, shown, text
from teachkit.course.plots.figure import GREY, Picture, style

Array: TypeAlias = ArrayLike | Tensor
MARKERS = "osD^vPX"


def as_array(name: str, value: Array, shape: tuple[int | None, ...] | None = None, finite: bool = True) -> NDArray[Any]:
    try:
        if value.is_complex() if isinstance(value, Tensor) else np.iscomplexobj(value):
            raise TypeError("complex numbers")
        a = np.asarray(value.detach().cpu().double() if isinstance(value, Tensor) else value, dtype=float)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{name} must be an array of real numbers, got {type(value).__name__}: {error}") from error
    if shape is not None and (a.ndim != len(shape) or any(w not in (None, g) for w, g in zip(shape, a.shape))):
        want = ", ".join("*" if w is None else str(w) for w in shape)
        raise ValueError(f"{name} must have shape ({want}), got {a.shape}")
    if not a.size or (finite and not np.isfinite(a).all()):
        raise ValueError(f"{name} must be finite and not empty, got shape {a.shape}")
    return a


def as_levels(sigmas: Array | None, n: int) -> NDArray[Any]:
    """Noise levels for a logarithmic axis: a final 0 is drawn at a tenth of the level before it."""
    if sigmas is None:
        raise ValueError("sigmas must be given with plain arrays, got None")
    s = as_array("sigmas", sigmas, (n,)).copy()
    if (s < 0).any() or (s[:-1] == 0).any():
        raise ValueError(f"sigmas must be positive, but for a last 0, got {s.min():g} at {int(s.argmin())}")
    if s[-1] == 0 and n > 1:
        s[-1] = s[-2] / 10
    return s


def as_lines(name: str, values: Mapping[str, Array] | Array) -> dict[str, NDArray[Any]]:
    """Lines (K,) or (K, B) by name; a single one has none."""
    lines = values if isinstance(values, Mapping) else {"": values}
    if not lines:
        raise ValueError(f"{name} must have at least one entry, got an empty mapping")
    found = {label: as_array(f"{name} of {label}" if label else name, line) for label, line in lines.items()}
    for label, line in found.items():
        if line.ndim not in (1, 2):
            raise ValueError(f"{name} must have one axis or two, got shape {line.shape} {label}".rstrip())
    return found


def as_indices(name: str, indices: Sequence[int] | Tensor, size: int, least: int = 1) -> list[int]:
    """At least ``least`` integers from 0 to size - 1."""
    i = as_real(name, indices)
    if i.ndim != 1 or i.is_floating_point() or len(i) < least or not bool(((i >= 0) & (i < size)).all()):
        raise ValueError(f"{name} must be at least {least} of 0 to {size - 1}, got {shown(indices)}")
    return i.tolist()


def short(value: float) -> str:
    """Two significant digits, three from 100 on: 0.0056, 5.4, 634."""
    return f"{float(f'{value:.{3 if abs(value) >= 100 else 2}g}'):g}"


@contextlib.contextmanager
def drawing(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0), projection: str | None = None) -> Iterator[Any]:
    """Context manager: the axes to draw into, or those of a new picture, in the style of the course."""
    if not isinstance(ax, Axes | None):
        raise TypeError(f"ax must be the Axes to draw into, or None, got {shown(ax)}")
    with style():
        yield Picture(figsize=size).add_subplot(projection=projection) if ax is None else ax


def as_plane(ax: Axes, adjustable: Literal["box", "datalim"] = "box") -> None:
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.set_aspect("equal", adjustable=adjustable)
    ax.grid(False)


def dots(ax: Axes, data: Array | None, colour: str = GREY, label: str | None = None) -> None:
    if data is not None:
        ax.plot(*as_array("data", data, (None, 2)).T, ".", color=colour, ms=3, alpha=0.6, label=label, zorder=1)


def noise_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    if not ax.xaxis_inverted():
        ax.invert_xaxis()
    ax.set_xlabel("noise level σ (sampling →)")


def band(ax: Axes, x: Array, y: NDArray[Any], colour: str | None, label: str, form: str = "-") -> NDArray[Any]:
    """Draw the median of each row of y, and from where to where the middle 80 % lie."""
    low, middle, high = np.percentile(y, [10, 50, 90], axis=1)
    (line,) = ax.plot(x, middle, form, color=colour, label=label or None)
    if y.shape[1] > 1:
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
    return middle


def legend(ax: Axes) -> None:
    handles = dict(zip(*reversed(ax.get_legend_handles_labels())))
    if handles:
        ax.legend(handles.values(), handles.keys())


def pixels(image: NDArray[Any]) -> NDArray[Any]:
    """An image (H, W) or (C, H, W) in [-1, 1] as matplotlib takes it: (H, W) or (H, W, 3) in [0, 1]."""
    image = ((image + 1) / 2).clip(0, 1)
    return image if image.ndim == 2 else image[0] if len(image) == 1 else image.transpose(1, 2, 0)


def show_pixels(ax: Axes, image: NDArray[Any]) -> AxesImage:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax.imshow(pixels(image), cmap="gray", vmin=0, vmax=1)


def finish(ax: Any, title: str, alt: str, caption: str) -> Picture:
    """Set the title, and describe the picture; a further panel adds its sentence to the alternative text."""
    with style():
        ax.set_title(text("title", title))
    picture: Picture = ax.figure
    picture.alt = " ".join(filter(None, [getattr(picture, "alt", ""), f"{title}: {alt}"]))
    picture.caption = caption
    return picture

"""Explorers in the plane: what a denoiser answers, and where mean shift climbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import ipywidgets as W
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from teachkit import meanshift
from teachkit.checks import function, integer, number, shown
from teachkit.course import plots
from teachkit.course.widgets.explorer import Explorer, log_slider, player, points, slider, trace
from teachkit.denoisers import Denoiser

_FINE = 64
_BARS = 12


@plots.style()
def denoiser_field(
    denoiser: Denoiser,
    *,
    data: Tensor | None = None,
    point: tuple[float, float] = (1.5, 1.5),
    sigma: float = 1.0,
    sigma_min: float = 0.05,
    sigma_max: float = 10.0,
    extent: float = 4.0,
) -> Explorer:
    """Arrows from everywhere to D(x; sigma), one point with its answer, and the posterior weights behind it.

    Parameters
    ----------
    denoiser : callable
        A denoiser of points in the plane. The weights are those of its components (``responsibilities``, of
        mixtures) or of its data points (``weights``, of `Empirical`); with neither they are left out. With
        ``log_prob`` the blurred density is drawn below.
    data : (K, 2), optional
        Dots to draw.
    point, sigma : float
        Where the sliders begin.
    sigma_min, sigma_max : float
        Range of the noise level.
    extent : float
        Half-width of the part of the plane shown.

    Raises
    ------
    ValueError
        If the denoiser does not take points in the plane.

    Examples
    --------
    >>> from teachkit import Empirical
    >>> print(denoiser_field(Empirical(torch.eye(2).double()), point=(1.0, 0.0)).picture.alt[:39])
    At sigma 1 the point (1, 0) is denoised
    """
    function("denoiser", denoiser, "D(x, sigma)")
    extent, sigma_min = number("extent", extent, above=0), number("sigma_min", sigma_min, above=0)
    sigma_max = number("sigma_max", sigma_max, above=sigma_min)
    sigma = number("sigma", sigma, least=sigma_min, most=sigma_max)
    if not isinstance(point, Sequence) or len(point) != 2:
        raise TypeError(f"point must be two numbers, got {shown(point)}")
    point = number("point", point[0], -extent, extent), number("point", point[1], -extent, extent)
    data = None if data is None else points("data", data)
    places = plots.grid(0.94 * extent, 13)
    picture, (ax, bars) = plots.panels(1, 2, size=(8.2, 4.0), width_ratios=(1.25, 1))
    show_density = plane(denoiser, data, ax, extent)
    ax.set_ylabel("x₂")
    arrows = ax.quiver(*places.T.numpy(), *np.zeros((2, len(places))), angles="xy", scale_units="xy", scale=1,
                       color="0.25", width=0.0035)  # fmt: skip
    (jump,) = ax.plot([], [], "-", color=plots.VERMILLION, lw=2)
    (here,) = ax.plot([], [], "o", color=plots.VERMILLION, mec="black", ms=8, label="x")
    (answer,) = ax.plot([], [], "*", color=plots.ORANGE, mec="black", ms=13, label="D(x; σ)")
    ax.legend(loc="upper left", frameon=True, framealpha=0.85)
    show_weights = _weight_bars(denoiser, bars)
    level = log_slider("noise level σ", sigma, sigma_min, sigma_max)
    first, second = (slider(f"x{s}", v, -extent, extent, W.FloatSlider, step=extent / 40) for s, v in zip("₁₂", point))

    def redraw() -> tuple[str, str]:
        s, x = level.value, torch.tensor([[first.value, second.value]], dtype=torch.float64)
        target = denoiser(torch.cat([x, places]), s)
        if target.shape != (1 + len(places), 2):
            raise ValueError(f"denoiser must answer points (B, 2) with as many, got {tuple(target.shape)}")
        shift = (target[1:] - places).numpy()
        arrows.set_UVC(*(0.25 * shift).T)
        jump.set_data(*torch.stack([x[0], target[0]]).T.numpy())
        here.set_data(*x.T.numpy())
        answer.set_data(*target[:1].T.numpy())
        show_density(s)
        ax.set_title(f"σ = {s:.3g}")
        text = show_weights(x, s)
        alt = (
            f"At sigma {s:.3g} the point ({first.value:.2g}, {second.value:.2g}) is denoised to "
            f"({target[0, 0]:.2f}, {target[0, 1]:.2f}), {float((target[0] - x[0]).norm()):.2f} away. {text}"
        )
        return alt, f"{alt} Arrows: a quarter of the way from x to D(x; σ). Blue: the density of noisy data."

    return Explorer(picture, redraw, (level, first, second))


@plots.style()
def mean_shift_steps(
    denoiser: Denoiser,
    x: Tensor,
    *,
    data: Tensor | None = None,
    bandwidth: float = 0.15,
    start: float = 3.0,
    steps: int = 30,
    extent: float = 4.0,
) -> Explorer:
    """Mean shift step by step: at a fixed bandwidth, and annealed from a wide bandwidth down to the same one.

    Parameters
    ----------
    denoiser : callable
        The mean-shift map of points in the plane, with ``log_prob``: ``Empirical(data)``.
    x : (B, 2)
        Starting points.
    data : (K, 2), optional
        Dots to draw.
    bandwidth, start : float
        The final bandwidth, and the one that annealing begins with.
    steps : int
        Steps of both, at least 2.
    extent : float
        Half-width of the part of the plane shown.

    Raises
    ------
    ValueError
        For starting points of another shape or too few steps.

    Examples
    --------
    >>> from teachkit import Empirical
    >>> explorer = mean_shift_steps(Empirical(torch.eye(2).double()), torch.zeros(1, 2).double())
    >>> len(explorer.controls)
    4
    """
    function("denoiser", denoiser, "D(x, sigma)")
    x, data = points("x", x), None if data is None else points("data", data)
    bandwidth, start = number("bandwidth", bandwidth, above=0), number("start", start, above=0)
    steps, extent = integer("steps", steps, 2), number("extent", extent, above=0)
    picture, axes = plots.panels(1, 2, size=(8.2, 4.0), sharey=True)
    shown = []
    for ax in axes:
        show_density = plane(denoiser, data, ax, extent)
        (trail,), (dots,) = ax.plot([], [], color=plots.ORANGE, lw=0.8), ax.plot([], [], "o", color="C1", ms=4)
        shown.append((show_density, trail, dots))
    axes[0].set_ylabel("x₂")
    play, step = player("step", 6, steps)
    final = log_slider("bandwidth h", bandwidth, bandwidth / 3, bandwidth * 5)
    wide = log_slider("annealed from", start, start / 5, start * 2)

    @lru_cache(maxsize=32)
    def walk(first: float, last: float) -> tuple[list[float], Tensor]:
        levels = np.geomspace(first, last, steps).tolist()
        return levels, meanshift.annealed_mean_shift(denoiser, x, levels)

    def redraw() -> tuple[str, str]:
        k, parts = step.value, []
        begun = final.value, max(wide.value, final.value)
        for (show_density, trail, dots), ax, name, first in zip(shown, axes, ("fixed", "annealed"), begun):
            levels, path = walk(first, final.value)
            h = levels[max(k - 1, 0)]
            places = len(meanshift.merge(path[k], final.value / 2)[0])
            show_density(h)
            trace(trail, path[: k + 1].numpy())
            dots.set_data(*path[k].T.numpy())
            where = f"{places} place{'s' * (places > 1)}"
            ax.set_title(f"{name}: h = {h:.2g}, {where}")
            parts.append(f"{name} at bandwidth {h:.2g} they stand on {where}")
        alt = f"{len(x)} points after {k} of {steps} mean-shift steps: " + "; ".join(parts) + "."
        return alt, f"{alt} Blue: the density at the bandwidth of the step. Places: further apart than h/2."

    return Explorer(picture, redraw, (play, step, final, wide))


def plane(denoiser: Any, data: Tensor | None, ax: Axes, extent: float) -> Callable[[float], None]:
    """The plane with the data; the function returned draws the density of noisy data below, kept per noise level."""
    ax.set(xlabel="x₁", xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    ax.grid(False)
    if data is not None:
        ax.plot(*data.T.numpy(), ".", ms=2, color="0.45", alpha=0.6)
    if not hasattr(denoiser, "log_prob"):
        return lambda sigma: None
    image = ax.imshow(np.zeros((_FINE, _FINE)), extent=(-extent, extent, -extent, extent), origin="lower", cmap="Blues",
                      vmin=0, vmax=1.3, interpolation="bilinear", zorder=0)  # fmt: skip
    fine = plots.grid(extent, _FINE)

    @lru_cache(maxsize=256)
    def density(sigma: float) -> np.ndarray:
        log_density = denoiser.log_prob(fine, sigma)
        return (log_density - log_density.max()).exp().reshape(_FINE, _FINE).numpy()

    return lambda sigma: image.set_data(density(sigma))


def _weight_bars(denoiser: Any, ax: Axes) -> Callable[[Tensor, float], str]:
    """Bars of the largest posterior weights, if the denoiser can tell; the function returned moves and tells them."""
    components = hasattr(denoiser, "responsibilities")
    weights = denoiser.responsibilities if components else getattr(denoiser, "weights", None)
    if not callable(weights):
        ax.set_axis_off()
        return lambda x, sigma: ""
    kind = "components" if components else "data points"
    ax.set(ylim=(0, 1.05), ylabel="posterior weight")
    ax.set_xlabel("component" if components else "data points, heaviest first")
    bars: list[Any] = []

    def show(x: Tensor, sigma: float) -> str:
        w = weights(x, sigma)[0]
        effective = 1 / float(w.square().sum())
        digits = 1 if effective < 10 else 0
        took_part = f"as if {effective:.{digits}f} {kind} took part"
        w = w if components and len(w) <= _BARS else w.sort(descending=True).values[:_BARS]
        if not bars:
            bars.extend(ax.bar(range(1, len(w) + 1), w.numpy(), color=plots.BLUE))
            ax.set_xticks(range(1, len(w) + 1))
        for bar, value in zip(bars, w.tolist()):
            bar.set_height(value)
        ax.set_title(took_part)
        return f"Largest posterior weight {float(w.max()):.2f}, {took_part}."

    return show

"""Cloud player: noise carries a cloud of points away, and the ODE brings it back to the data."""

from __future__ import annotations

import ipywidgets as W
import torch
from torch import Tensor

from teachkit import sample, schedules
from teachkit.checks import function, integer, number
from teachkit.course import plots
from teachkit.course.widgets.explorer import Explorer, points, slider, trace
from teachkit.course.widgets.plane import plane
from teachkit.denoisers import Denoiser

_TRAILS = 30
_SHOWN = 120  # milliseconds a frame is shown


@plots.style()
def cloud_player(
    denoiser: Denoiser,
    x: Tensor,
    *,
    data: Tensor | None = None,
    sigma_min: float = 0.02,
    sigma_max: float = 2.0,
    steps: int = 40,
    point: int = 0,
    seed: int = 0,
    extent: float = 4.0,
) -> Explorer:
    """Play a cloud of points: first noise is added to it, then the probability-flow ODE carries it back.

    On the way up every point moves along a straight line, x + sigma * noise with its own noise. On the way down each
    follows the ODE (`sample`, Heun's method) from where the noise has left it. A star shows D(x; sigma) of one point.

    Parameters
    ----------
    denoiser : callable
        A denoiser of points in the plane. With ``log_prob`` the density of noisy data is drawn below.
    x : (B, 2)
        Clean points.
    data : (K, 2), optional
        Dots to draw.
    sigma_min, sigma_max : float
        Range of the noise level.
    steps : int
        Of each of the two ways, at least 2.
    point : int
        The point whose D is shown first.
    seed : int
        Of the noise.
    extent : float
        Half-width of the part of the plane shown.

    Raises
    ------
    ValueError, TypeError
        For points of another shape, a point that is not there, or too few steps.

    Examples
    --------
    >>> from teachkit import Empirical
    >>> print(cloud_player(Empirical(torch.eye(2).double()), torch.eye(2).double(), steps=5).picture.alt[:46])
    Noise has reached sigma 2: 2 points, root mean
    """
    function("denoiser", denoiser, "D(x, sigma)")
    x, data = points("x", x), None if data is None else points("data", data)
    sigma_min = number("sigma_min", sigma_min, above=0)
    sigma_max, steps = number("sigma_max", sigma_max, above=sigma_min), integer("steps", steps, 2, 500)
    point, seed = integer("point", point, 0, len(x) - 1), integer("seed", seed, 0)
    extent = number("extent", extent, above=0)
    levels = schedules.polynomial(steps, sigma_min, sigma_max)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x)
    up = torch.stack([x + float(s) * noise for s in levels.flip(0)])
    down = sample(denoiser, up[-1], levels, "heun").x
    clouds = torch.cat([up, down[1:]]).cpu()  # (2 steps + 1, B, 2): up, and down again
    sigmas = [*levels.flip(0).tolist(), *levels[1:].tolist()]

    picture, ax = plots.panels(1, 1, size=(5.8, 5.0))
    show_density = plane(denoiser, data, ax, extent)
    ax.set_ylabel("x₂")
    (trails,) = ax.plot([], [], color=plots.ORANGE, lw=0.6, alpha=0.7)
    (cloud,) = ax.plot([], [], "o", color=plots.BLUE, ms=3, alpha=0.7, label="x")
    (jump,) = ax.plot([], [], "-", color=plots.VERMILLION, lw=1.5)
    (here,) = ax.plot([], [], "o", color=plots.VERMILLION, mec="black", ms=8, label="one x")
    (answer,) = ax.plot([], [], "*", color=plots.ORANGE, mec="black", ms=14, label="its D(x; σ)", zorder=5)
    ax.legend(loc="upper left", frameon=True, framealpha=0.85, ncols=3)
    names = [f"{s:.2g} {'↑' if k <= steps else '↓'}" for k, s in enumerate(sigmas)]
    play = W.Play(value=steps, min=0, max=2 * steps, interval=_SHOWN, show_repeat=False)
    level = W.SelectionSlider(
        options=[(name, k) for k, name in enumerate(names)], value=steps, description="noise level σ",
        continuous_update=True, style={"description_width": "initial"}, layout=W.Layout(width="420px"),
    )  # fmt: skip
    W.jslink((play, "value"), (level, "index"))
    which = slider("point", point, 0, len(x) - 1)

    def redraw() -> tuple[str, str]:
        k, b = level.value, which.value
        s, now = sigmas[k], clouds[k]
        target = denoiser(now[b : b + 1].to(x), s)[0].cpu()
        show_density(s)
        trace(trails, clouds[[0, k] if k <= steps else range(steps, k + 1), :_TRAILS].numpy())
        cloud.set_data(*now.T.numpy())
        jump.set_data(*torch.stack([now[b], target]).T.numpy())
        here.set_data(*now[b, :, None].numpy())
        answer.set_data(*target[:, None].numpy())
        ax.set_title(f"{'noise going up ↑' if k <= steps else 'the ODE coming down ↓'}   σ = {s:.2g}")
        radius = float(now.square().sum(1).mean().sqrt())
        way = "Noise has reached" if k <= steps else "The ODE has come down to"
        alt = (
            f"{way} sigma {s:.2g}: {len(now)} points, root mean square radius {radius:.2f}. Point {b} is at "
            f"({now[b, 0]:.2f}, {now[b, 1]:.2f}), its D at ({target[0]:.2f}, {target[1]:.2f})."
        )
        return alt, f"{alt} Orange: the way of {min(_TRAILS, len(now))} points so far, from where it last turned."

    return Explorer(picture, redraw, (play, level, which))

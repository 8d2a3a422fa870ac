"""Schedule lab: the cheapest route through the cost matrix, and what becomes of it when the times are moved by hand."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import ipywidgets as W
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from teachkit import schedules, scheduling
from teachkit.checks import batch, function, integer
from teachkit.checks import choice as one_of
from teachkit.course import plots
from teachkit.course.plots.shared import pixels
from teachkit.course.widgets.explorer import Explorer, choice, log_slider, plain_ticks, slider, trace
from teachkit.course.widgets.solvers import DETERMINISTIC
from teachkit.denoisers import Denoiser
from teachkit.sampling import sample
from teachkit.trajectory import Trajectory, whole_path

_SHOWN = 8
_MOST_STEPS = 40  # sliders
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_STEP = 0.01  # of a level slider, in log10 of the level


@plots.style()
def schedule_lab(
    denoiser: Denoiser,
    x: Tensor,
    *,
    teacher: Trajectory | None = None,
    solver: str = "euler",
    steps: int = 5,
    max_steps: int = 8,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Explorer:
    """Find a schedule by dynamic programming, move its levels one by one, and follow the student's error.

    The coefficient, the cost and the number of steps choose a route through the cost matrix and set the level
    sliders to it; a level slider moves that level alone. The last panel compares the error with that of the polynomial
    schedule (EDM). Level sliders may pass each other: the levels are put in order, at least 2 % apart.

    Parameters
    ----------
    denoiser : callable
        The model.
    x : (B, *event)
        Noise at ``sigma_max``: points in the plane, or images; the first eight are shown.
    teacher : Trajectory, optional
        The teacher's paths from ``x``; found here if left out (`scheduling.teacher_paths`).
    solver : str
        The student's solver at first.
    steps, max_steps : int
        Steps at first and at most, 2 <= steps <= max_steps.
    sigma_min, sigma_max : float, optional
        Ends of the schedules, if there is no teacher; by default 0.002 and 80, or the model's own where it was trained
        on less.

    Raises
    ------
    ValueError
        For steps out of range, an unknown solver, or samples that are neither points in the plane nor images.

    Examples
    --------
    >>> from teachkit import Empirical, initial_noise
    >>> explorer = schedule_lab(Empirical(torch.eye(2).double()), initial_noise(4, (2,)))
    >>> explorer.controls[0].description
    'solver'
    """
    max_steps = integer("max_steps", max_steps, 2, _MOST_STEPS)
    steps = integer("steps", steps, 2, max_steps)
    one_of("solver", solver, DETERMINISTIC)
    function("denoiser", denoiser, "D(x, sigma)")
    x = batch("x", x).detach()
    if not (x.ndim == 2 and x.shape[1] == 2) and x.ndim != 4:
        raise ValueError(f"x must have shape (B, 2) or (B, C, H, W), got {tuple(x.shape)}")
    teacher = scheduling.teacher_paths(denoiser, x, sigma_min, sigma_max) if teacher is None else teacher
    if whole_path("teacher", teacher, outputs=True).x.shape[1:] != x.shape or len(teacher.denoised) < max_steps:
        raise ValueError(f"teacher must hold whole paths from x, of max_steps = {max_steps} steps or more")
    teacher = teacher.detach()
    board = _Board(teacher, max_steps)
    rule = choice("solver", DETERMINISTIC, solver)
    metric = choice("cost", scheduling.METRICS, "l2")
    coefficient = slider("coefficient", 1.0, 0.6, 1.6, W.FloatSlider, step=0.05)
    count = slider("steps", steps, 2, max_steps)
    top, low = float(teacher.sigmas[0]), float(teacher.sigmas[-1])
    levels = [log_slider(f"σ{str(k).translate(_SUBSCRIPTS)}", 1.0, low, top, _STEP) for k in range(1, max_steps)]
    costs = cache(lambda name: scheduling.cost_matrix(teacher, name))
    state: dict[str, Any] = {"route": [], "moving": False}

    def run(sigmas: Tensor, solver: str) -> tuple[Trajectory, float]:
        path = sample(denoiser, x, sigmas, solver)
        return path, float(torch.linalg.vector_norm((path.final - teacher.final).flatten(1), dim=1).mean())

    @cache
    def usual_errors(solver: str) -> list[float]:
        """Of the polynomial schedule with 2, ..., ``max_steps`` steps."""
        return [run(schedules.polynomial(n, low, top), solver)[1] for n in range(2, max_steps + 1)]

    def follow_route(change: Any = None) -> None:
        """Put the level sliders on the cheapest route; one redraw comes after, from the control that moved."""
        route = scheduling.shortest_path(costs(metric.value), count.value, coefficient.value)
        state["route"], state["moving"] = teacher.sigmas[route].tolist(), True
        for k, level in enumerate(levels, 1):
            level.layout.display = None if k < count.value else "none"
            if k < count.value:
                level.value = state["route"][k]
        state["moving"] = False

    def chosen() -> tuple[list[float], bool]:
        """The levels, and whether they are the route's: the browser sends back what it shows, rounded to a step."""
        now = [top, *(level.value for level in levels[: count.value - 1]), low]
        on_route = all(abs(math.log10(a / b)) < 0.51 * _STEP for a, b in zip(now, state["route"]))
        return (state["route"] if on_route else now), on_route

    def by_hand(change: Any) -> None:
        if not state["moving"] and chosen()[0] != state["drawn"]:
            explorer.update()

    for control in (metric, coefficient, count):
        control.observe(follow_route, "value")
    follow_route()

    def redraw() -> tuple[str, str]:
        state["drawn"], on_route = chosen()
        sigmas = _apart(state["drawn"])
        (path, error), usual = run(sigmas, rule.value), usual_errors(rule.value)
        board.show(costs(metric.value), sigmas, path, error, usual)
        by = f"cheapest route, coefficient {coefficient.value:g}" if on_route else "levels moved by hand"
        by += f" ({metric.value} cost shown)"
        alt = (
            f"{rule.value} in {count.value} steps, {by}: levels {', '.join(f'{s:.3g}' for s in sigmas.tolist())}; "
            f"{path.nfe} evaluations, error {error:.3g}; polynomial schedule: {usual[count.value - 2]:.3g}."
        )
        return alt, alt

    explorer = Explorer(board.picture, redraw, (rule, metric, coefficient, count, *levels))
    for level in levels:  # a route moves many sliders at once: draw once, when the control that chose it reports
        level.unobserve(explorer.update, "value")
        level.observe(by_hand, "value")
    return explorer


class _Board:
    """Cost matrix with the route, samples or paths, and error against steps."""

    def __init__(self, teacher: Trajectory, most: int) -> None:
        self.grid, self.flat = np.log(teacher.sigmas.numpy()), teacher.x.ndim == 3
        self.picture, (matrix, samples, self.errors) = plots.panels(1, 3, size=(8.6, 3.3))
        self._draw_matrix(matrix, teacher.sigmas.tolist())
        if self.flat:
            self._draw_paths(samples, teacher)
        else:
            self._draw_images(samples, teacher.final)
        (self.usual,) = self.errors.plot([], [], "o-", color=plots.GREY, label="polynomial (EDM)")
        (self.star,) = self.errors.plot([], [], "*", color=plots.VERMILLION, ms=13, mec="black", label="this schedule")
        self.errors.set(xlabel="steps", ylabel="mean distance to the teacher", yscale="log", title="error")
        self.errors.set(xlim=(1.6, most + 0.4), ylim=(1e-2, 1e1), xticks=range(2, most + 1))
        plain_ticks(self.errors.yaxis)
        self.errors.legend(loc="upper right")

    def _draw_matrix(self, ax: Axes, sigmas: list[float]) -> None:
        n = len(sigmas)
        self.image = ax.imshow(np.ones((n, n)), cmap="cividis", vmin=-6, vmax=0)
        (self.route,) = ax.plot([], [], color=plots.VERMILLION, lw=1.2)
        (self.stops,) = ax.plot([], [], "o", color=plots.VERMILLION, mec="white")
        at = np.linspace(0, n - 1, 5).round().astype(int)
        names = [f"{sigmas[k]:.2g}" for k in at]
        ax.set(xticks=at, xticklabels=names, yticks=at, yticklabels=names)
        ax.set(xlabel="to: noise level σ", ylabel="from: noise level σ", title="cost of a jump (bright: high)")
        ax.grid(False)

    def _draw_paths(self, ax: Axes, teacher: Trajectory) -> None:
        trace(ax.plot([], [], color="0.75", lw=2)[0], teacher.x[:, :_SHOWN].cpu().numpy())
        ends = teacher.final.cpu().numpy()
        ax.plot(*ends.T, ".", ms=3, color="0.5")
        (self.steps,) = ax.plot([], [], "o-", ms=3, lw=1, color=plots.BLUE)
        (self.ends,) = ax.plot([], [], "*", color=plots.VERMILLION, ms=8, zorder=4)
        centre, reach = ends.mean(0), 2.2 * np.abs(ends - ends.mean(0)).max() + 1e-9
        ax.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
        ax.set(xlabel="x₁", ylabel="x₂", title="paths near the data")

    def _draw_images(self, ax: Axes, exact: Tensor) -> None:
        self.exact, both = exact, _mosaic(exact, exact)
        self.mosaic = ax.imshow(both, cmap="gray", vmin=0, vmax=1)
        ax.axhline(len(both) / 2 - 0.5, color=plots.VERMILLION, lw=2)
        ax.set(xticks=[], yticks=[], title="teacher above, student below")
        ax.grid(False)

    def show(self, cost: Tensor, sigmas: Tensor, path: Trajectory, error: float, usual: list[float]) -> None:
        c = cost.numpy()
        above = np.where(np.triu(c > 0, 1), c, np.nan)
        tint = np.log10(above / np.nanmax(above))
        self.image.set_data(tint)
        self.image.set_clim(max(-6.0, float(np.nanmin(tint))), 0)
        at = np.interp(-np.log(sigmas.numpy()), -self.grid, np.arange(len(self.grid)))
        corners = np.repeat(at, 2)
        self.route.set_data(corners[1:], corners[:-1])
        self.stops.set_data(at[1:], at[:-1])
        if self.flat:
            trace(self.steps, path.x[:, :_SHOWN].cpu().numpy())
            self.ends.set_data(*path.final[:_SHOWN].T.cpu().numpy())
        else:
            self.mosaic.set_data(_mosaic(self.exact, path.final))
        self.usual.set_data(range(2, len(usual) + 2), usual)
        self.star.set_data([len(sigmas) - 1], [error])
        values = [v for v in (*usual, error) if v > 0]
        self.errors.set_ylim(10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(2 * max(values))))


def _mosaic(*batches: Tensor) -> np.ndarray:
    """The first eight images of each batch in two rows, for imshow; a gap at the end is white."""
    rows: list[Tensor] = []
    for images in batches:
        tiles = images[:_SHOWN].detach().cpu()
        columns = -(-len(tiles) // 2)
        tiles = torch.cat([tiles, tiles.new_ones(2 * columns - len(tiles), *tiles.shape[1:])])
        rows += (torch.cat(list(row), dim=2) for row in tiles.split(columns))  # (C, H, columns * W) each
    return pixels(torch.cat(rows, dim=1).numpy())


def _apart(levels: list[float]) -> Tensor:
    """Levels in order and at least 2 % apart: sliders may cross or meet, the steps of a schedule may not."""
    s = sorted(levels, reverse=True)
    for k in range(1, len(s) - 1):
        s[k] = min(s[k], s[k - 1] / 1.02)
    for k in range(len(s) - 2, 0, -1):
        s[k] = max(s[k], s[k + 1] * 1.02)
    return schedules.validate(s)

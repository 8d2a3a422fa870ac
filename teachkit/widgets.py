"""Explorers for JupyterLab: move a slider, see the picture and the numbers change.

Each function returns one ipywidgets box. Pictures are drawn into an HTML widget as an image with alternative text, so
they can be read aloud, survive export, and be tested in a browser. An exception shows in place of the picture; it is
never swallowed.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import Any

import ipywidgets as W
import torch
from torch import Tensor

from teachkit import plots, schedules, solvers
from teachkit.denoisers import Denoiser
from teachkit.sampling import sample

__all__ = ["solver_lab"]

_SCHEDULES: dict[str, Callable[..., Tensor]] = {
    "polynomial (EDM)": schedules.polynomial,
    "logsnr": schedules.logsnr,
    "time uniform": schedules.time_uniform,
    "cosine": schedules.cosine,
}


def solver_lab(
    denoiser: Denoiser,
    x: Tensor,
    *,
    data: Tensor | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> W.VBox:
    """Choose solver, steps and schedule; see the steps on the exact path, the error and the evaluations.

    Parameters
    ----------
    denoiser : callable
        A denoiser of points in the plane.
    x : (B, 2)
        Starting points at ``sigma_max``; the error is their mean distance to the exact end, found once by Heun's
        method with 200 steps.
    data : (K, 2), optional
        Dots to draw below.
    sigma_min, sigma_max : float
        Ends of the schedules.
    """
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"x must have shape (B, 2), got {tuple(x.shape)}")
    exact = sample(denoiser, x, schedules.polynomial(200, sigma_min, sigma_max), "heun")
    names = [n for n, cls in solvers.REGISTRY.items() if cls.analytic_first_step]
    solver = W.Dropdown(options=names, value="euler", description="solver")
    steps = W.IntSlider(value=6, min=2, max=20, description="steps", continuous_update=True)
    kind = W.Dropdown(options=list(_SCHEDULES), description="schedule")

    def draw() -> str:
        grid = _SCHEDULES[kind.value](steps.value, sigma_min=sigma_min, sigma_max=sigma_max)
        path = sample(denoiser, x, grid, solver.value)
        error = float(torch.linalg.vector_norm(path.final - exact.final, dim=1).mean())
        picture, axes = plots.panels(1, 2, size=(9.6, 3.9))
        for ax, reach in zip(axes, (None, 2.5)):
            ax.plot(*exact.x[:, :6].permute(2, 0, 1).numpy(), color="0.75", lw=2.5)
            if data is not None:
                ax.scatter(*data.T.numpy(), s=3, color="0.5")
            ax.plot(*path.x[:, :6].permute(2, 0, 1).numpy(), "o-", ms=3.5, color="C0", lw=1)
            ax.scatter(*path.final[:6].T.numpy(), marker="*", s=60, color="C1", zorder=4)
            ax.set(xlabel="x₁", ylabel="x₂", title="whole paths" if reach is None else "near the data")
            if reach is not None:
                centre = exact.final.mean(0).tolist()
                ax.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
        picture.alt = (
            f"{solver.value} with {steps.value} steps on the {kind.value} schedule: "
            f"{path.nfe} evaluations, mean error {error:.3g}"
        )
        picture.caption = f"{picture.alt}. Grey: exact paths; blue: the solver's steps; stars: where it ends."
        return plots.markup(picture)

    return explorer(draw, solver, steps, kind)


def explorer(draw: Callable[[], str], *controls: Any) -> W.VBox:
    """A box of controls over a picture that is drawn again, by ``draw() -> html``, whenever one of them changes."""
    screen = W.HTML()

    def update(change: Any = None) -> None:
        begun = time.perf_counter()
        try:
            screen.value = draw()
        except Exception as error:
            screen.value = f'<pre role="alert">{html.escape(f"{type(error).__name__}: {error}")}</pre>'
        screen.tooltip = f"drawn in {1000 * (time.perf_counter() - begun):.0f} ms"

    for control in controls:
        control.observe(update, "value")
    update()
    return W.VBox([W.HBox(list(controls), layout=W.Layout(flex_flow="row wrap")), screen])

"""Solver labs: which solver, how many steps, which schedule; and what comes out of few evaluations."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from teachkit import checks, schedules, solvers
from teachkit.course import plots
from teachkit.course.widgets.explorer import Explorer, choice, points, slider, trace
from teachkit.denoisers import Denoiser
from teachkit.sampling import sample

FAMILIES = {
    name.replace("polynomial", "polynomial (EDM)").replace("_", " "): make for name, make in schedules.REGISTRY.items()
}
DETERMINISTIC = tuple(name for name, cls in solvers.REGISTRY.items() if cls.analytic_first_step)
_SHOWN = 6


@plots.style()
def solver_lab(
    denoiser: Denoiser, x: Tensor, *, data: Tensor | None = None, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> Explorer:
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

    Raises
    ------
    ValueError
        If x has another shape.

    Examples
    --------
    >>> from teachkit import Empirical, initial_noise
    >>> print(solver_lab(Empirical(torch.eye(2).double()), initial_noise(4, (2,))).picture.alt[:54])
    euler with 6 steps on the polynomial (EDM) schedule: 6
    """
    x, data = points("x", x), None if data is None else points("data", data)
    exact = sample(denoiser, x, schedules.polynomial(200, sigma_min, sigma_max), "heun")
    picture, lines = _board(exact.x[:, :_SHOWN], data)
    solver = choice("solver", DETERMINISTIC, "euler")
    steps = slider("steps", 6, 2, 20)
    kind = choice("schedule", list(FAMILIES))

    def redraw() -> tuple[str, str]:
        grid = FAMILIES[kind.value](steps.value, sigma_min=sigma_min, sigma_max=sigma_max)
        path = sample(denoiser, x, grid, solver.value)
        error = float(torch.linalg.vector_norm(path.final - exact.final, dim=1).mean())
        for line in lines:
            trace(line, path.x[:, :_SHOWN].numpy())
        alt = (
            f"{solver.value} with {steps.value} steps on the {kind.value} schedule: "
            f"{path.nfe} evaluations, mean error {error:.3g}"
        )
        return alt, f"{alt}. Grey: exact paths; stars: their ends; blue: the solver's steps."

    return Explorer(picture, redraw, (solver, steps, kind))


@plots.style()
def ends_lab(denoiser: Denoiser, x: Tensor, images: Tensor, *, shown: int = 10) -> Explorer:
    """Choose solver and evaluations; see the ends, which of them are at the right image, and how far from any.

    Parameters
    ----------
    denoiser : callable
        A denoiser of images.
    x : (B, 1, H, W)
        Starting noise at sigma 80. The right image of a path is the nearest to its exact end, which is found once by
        UniPC with 60 steps.
    images : (K, 1, H, W)
        The data.
    shown : int
        How many ends are drawn.

    Raises
    ------
    ValueError
        If x or images have another shape.

    Examples
    --------
    >>> from teachkit import Empirical, data, initial_noise
    >>> digits = data.load("digits8").images[:50].double()
    >>> print(ends_lab(Empirical(digits), initial_noise(12, (1, 8, 8)), digits).picture.alt[:31])
    euler, 6 evaluations: the right
    """
    for name, value in (("x", x), ("images", images)):
        if checks.batch(name, value).ndim != 4 or value.shape[1] != 1:
            raise ValueError(f"{name} must have shape (B, 1, H, W), got {tuple(value.shape)}")
    shown = checks.integer("shown", shown, 1, 20)
    x, flat = x.detach(), images.detach().flatten(1).to(x)

    def nearest(ends: Tensor) -> tuple[Tensor, Tensor]:
        away, which = torch.cdist(ends.flatten(1), flat).min(dim=1)
        return away, which

    exact = sample(denoiser, x, schedules.polynomial(60), "unipc", keep="final").final
    right = nearest(exact)[1]
    picture, axes = plots.panels(2, 1, size=(8.2, 2.1))
    rows = []
    for ax, label in zip(axes, ("exact", "here")):
        strip = _strip(exact[:shown])
        rows.append(ax.imshow(strip, cmap="gray", vmin=-1, vmax=1))
        ax.set(xticks=[], yticks=[len(strip) / 2], yticklabels=[label])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    cured = [f"{name}, Euler last" for name in DETERMINISTIC if solvers.REGISTRY[name].evaluations == 2]
    solver, evaluations = choice("solver", [*DETERMINISTIC, *cured], "euler"), slider("evaluations", 6, 4, 40)

    def redraw() -> tuple[str, str]:
        name, _, last = solver.value.partition(", ")
        made = solvers.get(name, **({"euler_last": True} if last else {}))
        steps = (evaluations.value + bool(last)) // made.evaluations
        path = sample(denoiser, x, schedules.polynomial(steps), made, keep="final")
        rows[1].set_data(_strip(path.final[:shown]))
        away, which = nearest(path.final)
        share = 100 * float((which == right).double().mean())
        alt = (
            f"{solver.value}, {path.nfe} evaluations: the right image at the end of {share:.0f} % of {len(x)} paths, "
            f"median distance to the nearest image {float(away.median()):.2g}"
        )
        return alt, f"{alt}. Above: the exact ends from the same starts."

    return Explorer(picture, redraw, (solver, evaluations))


def _strip(images: Tensor) -> NDArray[Any]:
    """Images (K, 1, H, W) in a row, with gaps."""
    gap = images.new_full((images.shape[2], 1), torch.nan)
    return torch.cat([part for image in images for part in (image[0], gap)], dim=1).float().numpy()


def _board(exact: Tensor, data: Tensor | None) -> tuple[plots.Picture, list[Line2D]]:
    """Two views of the exact paths and their ends, whole and near the data, with empty lines for the solver's."""
    picture, axes = plots.panels(1, 2, size=(8.2, 3.6))
    centre, lines = exact[-1].mean(0), []
    near = 1.5 * float((exact[-1] - centre).abs().amax()) + 0.1
    u, v = centre.tolist()
    for ax, reach, title in zip(axes, (1.05 * float(exact.abs().amax()), near), ("whole paths", "near the data")):
        trace(ax.plot([], [], color="0.75", lw=2.5)[0], exact.numpy())
        if data is not None:
            ax.plot(*data.T.numpy(), ".", ms=3, color="0.5")
        ax.plot(*exact[-1].T.numpy(), "*", color="C1", ms=11)
        lines.append(ax.plot([], [], "o-", color="C0", ms=3.5, lw=1, zorder=3)[0])
        ax.set(xlabel="x₁", ylabel="x₂", title=title)
        ax.set(xlim=(u - reach, u + reach), ylim=(v - reach, v + reach))
    return picture, lines

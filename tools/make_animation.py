"""Make docs/ode.png, a looping picture of the ODE that brings noise down to data, and docs/ode_still.png, its end.

An animated PNG below 1 MB. Where motion is not wanted the still says the same: in HTML, ``<picture>`` with a source for
``(prefers-reduced-motion: reduce)``.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from teachkit import Empirical, data, initial_noise, sample, schedules
from teachkit.course import plots

DOCS = Path(__file__).resolve().parents[1] / "docs"
TARGET, STILL = DOCS / "ode.png", DOCS / "ode_still.png"
PARTICLES, MODES, REACH = 300, 5, 3.2
FRAMES, TAIL = 45, 12  # frames of motion, and how many of them a tail is long
SHOWN, HELD = 80, 2000  # milliseconds that a frame is shown, and the first and the last one
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7")
ALT = (
    "300 points start as noise around five small clusters. The ODE carries each along a smooth curve into one of the "
    "clusters; its colour, from the beginning, says which."
)


def main() -> None:
    """Sample, draw each frame, write both files and say how to show them."""
    D = Empirical(data.ring(400, seed=0, modes=MODES), bandwidth=0.05)
    levels = schedules.polynomial(FRAMES, 0.01, 2.0, rho=3.0)
    paths = sample(D, initial_noise(PARTICLES, (2,), 2.0, seed=0), levels, "heun").x  # (FRAMES + 1, PARTICLES, 2)
    end = torch.cdist(paths[-1], data.ring(MODES, modes=MODES, noise=0.0)).argmin(1)
    frames = [_frame(paths[max(0, k - TAIL) : k + 1], end, float(level)) for k, level in enumerate(levels)]
    still = _frame(paths, end, float(levels[-1])).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
    frames = [frame.quantize(palette=still, dither=Image.Dither.NONE) for frame in frames]
    times = [HELD if k in (0, FRAMES) else SHOWN for k in range(FRAMES + 1)]
    frames[0].save(TARGET, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)
    still.save(STILL, optimize=True)
    for file in (TARGET, STILL):
        print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
    print(f"![{ALT}](docs/{TARGET.name})")


def _frame(way: torch.Tensor, end: torch.Tensor, sigma: float) -> Image.Image:
    """The particles where they are, each with the way (K, PARTICLES, 2) it came, in the colour of its cluster."""
    picture, ax = plots.panels(1, 1, size=(4.2, 4.4))
    for k, colour in enumerate(COLOURS):
        ax.plot(*way[:, end == k].permute(2, 0, 1), color=colour, lw=0.5, alpha=0.35)
        ax.plot(*way[-1, end == k].T, "o", color=colour, ms=2.8, mew=0)
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[], yticks=[])
    ax.set_title(f"noise level σ = {sigma:.2f}", fontsize=10)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=110, facecolor="white")
    return Image.open(buffer).convert("RGB")


if __name__ == "__main__":
    main()

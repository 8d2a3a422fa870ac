"""Make the pictures of the README, of edm-emoji: docs/five.png, five evaluations spent in two ways, beside sixty; and
docs/boomerang.png, the paths of the sixty on one another. The first lesson makes the same from the same noise.
"""

from __future__ import annotations

from pathlib import Path

import torch

from teachkit import data, edm, geometry, initial_noise, sample, schedules, scheduling
from teachkit.course import plots
from teachkit.sampling import Trajectory

DOCS = Path(__file__).resolve().parents[1] / "docs"


def drawn() -> tuple[torch.Tensor, Trajectory]:
    """The three rows, one sample of each class (27, 3, 32, 32), and the paths of four of each."""
    D, labels = edm.load("edm-emoji"), torch.arange(36) % 9
    noise = initial_noise(36, (3, 32, 32), seed=0).float()
    fitted = scheduling.Schedule.shipped("edm-emoji", "fitted", 5)
    ways = (schedules.polynomial(5), "euler"), (fitted.sigmas, fitted.make_solver())
    five = [sample(D, noise[:9], *way, labels=labels[:9]).final for way in ways]
    paths = sample(D, noise, schedules.polynomial(60), "unipc", labels=labels)
    return torch.cat([*five, paths.final[:9]]), paths


def main() -> None:
    """Sample, draw, and say how large the files are."""
    with torch.no_grad():
        images, paths = drawn()
    rows = ["5 evaluations,\nas usual", "5 evaluations,\nfitted", "60 evaluations"]
    names = [name.split()[0] for name in data.class_names("emoji32")]
    title = "The same noise, the same network"
    curves = geometry.align(geometry.project(paths), about_chord=True)
    pictures = {
        "five": plots.image_grid(images, columns=9, titles=names, rows=rows, title=title),
        "boomerang": plots.boomerang(curves, dims=2, title="36 emoji, 36 paths, one boomerang"),
    }
    for name, picture in pictures.items():
        picture.savefig(DOCS / f"{name}.png", dpi=130, facecolor="white")
        print(f"{name}.png {(DOCS / f'{name}.png').stat().st_size / 1e3:.0f} kB:", picture.alt)


if __name__ == "__main__":
    main()

"""Make docs/boomerang.png, the picture in the README: 64 sampling paths of real digits on one another."""

from __future__ import annotations

from pathlib import Path

import torch

from teachkit import Empirical, data, geometry, initial_noise, sample, schedules
from teachkit.course import plots

TARGET = Path(__file__).resolve().parents[1] / "docs" / "boomerang.png"


def main() -> None:
    """Sample, project, align, draw."""
    D = Empirical(data.load("mnist5k").images.double())
    paths = sample(D, initial_noise(64, (1, 28, 28), seed=0), schedules.polynomial(100))
    curves = geometry.project(paths)
    across = geometry.align(curves[..., 1:], curves[:, 0, 1:])
    picture = plots.boomerang(torch.cat([curves[..., :1], across], -1), title="64 digits, 64 paths, one boomerang")
    picture.savefig(TARGET, dpi=130, facecolor="white")
    print(TARGET.name, f"{TARGET.stat().st_size / 1e3:.0f} kB:", picture.alt)


if __name__ == "__main__":
    main()

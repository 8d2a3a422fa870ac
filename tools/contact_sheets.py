"""Draw what the colour sets hold: ``python tools/contact_sheets.py`` writes data/sheets/.

The spectrum is of grey values (mean of the colours, its own mean removed, Hann window), averaged over pictures and over
rings of frequency. Its slope in log-log axes is minus the exponent.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import save_image

from teachkit import data

SHEETS = data.directory() / "sheets"


def power_spectrum(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean power at 1, 2, ... cycles a picture, up to the highest that all directions have: ``(K,)`` each."""
    grey = images.double().mean(1)
    side = grey.shape[-1]
    window = torch.hann_window(side, dtype=torch.float64)
    power = torch.fft.fft2((grey - grey.mean((1, 2), keepdim=True)) * window[:, None] * window).abs().square().mean(0)
    cycles = torch.fft.fftfreq(side, dtype=torch.float64) * side
    ring = torch.hypot(cycles[:, None], cycles).round()
    radii = torch.arange(1, side // 2)
    return radii, torch.stack([power[ring == r].mean() for r in radii])


def main() -> None:
    """Two sheets of 240 pictures in the order stored, held-out ones included, and one figure."""
    for name in ("emoji32", "photos32"):
        pictures = data.load(name).images[:240] / 2 + 0.5
        save_image(pictures, SHEETS / f"{name}.png", nrow=24, padding=1, pad_value=1)
    figure = Figure(figsize=(5, 3.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for name, colour in (("photos32", "#0072b2"), ("emoji32", "#d55e00")):
        radii, power = power_spectrum(data.load(name).images)
        slope, _ = np.polyfit(radii[2:].log().numpy(), power[2:].log().numpy(), 1)
        axes.loglog(radii, power, "o-", color=colour, markersize=3)
        label = f"{name}: slope {slope:.2f}"
        axes.annotate(label, (radii[3], power[3]), (4, 4), textcoords="offset points", color=colour)
        print(f"{name}: slope {slope:.3f} at 3 to {len(radii)} cycles a picture")
    axes.set(xlabel="frequency (cycles a picture)", ylabel="power")
    figure.savefig(SHEETS / "spectrum.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

"""Noise walk: where several samplers end while the noise they start from is moved along a curve."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from teachkit import checks
from teachkit.checks import shown
from teachkit.course import plots
from teachkit.course.plots.shared import pixels, short, show_pixels
from teachkit.course.widgets.explorer import Explorer, player

_COLOURS = (plots.GREY, plots.BLUE, plots.VERMILLION, plots.GREEN, plots.ORANGE)


@plots.style()
def noise_walk(ends: Mapping[str, Tensor]) -> Explorer:
    """Walk through noise: the image that each sampler draws from it, and how far that is from the first one's.

    Parameters
    ----------
    ends : mapping of str to Tensor
        For two to five samplers, by name, the images (K, C, H, W) drawn from the same K noises, which follow one
        another along a curve. Distances, root mean square per pixel, are to the first sampler's.

    Raises
    ------
    ValueError, TypeError
        For other than two to five samplers, or images that are not finite or not of one shape.

    Examples
    --------
    >>> light, dark = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 4, 4), -torch.ones(5, 1, 4, 4)
    >>> noise_walk({"moves": light, "stays": dark}).picture.alt
    'Noise 2 of 0 to 4: away from moves by 1 (stays).'
    """
    if not isinstance(ends, Mapping) or not all(isinstance(name, str) for name in ends):
        raise TypeError(f"ends must be a mapping of names to images, got {shown(ends)}")
    if not 2 <= len(ends) <= len(_COLOURS):
        raise ValueError(f"ends must hold two to {len(_COLOURS)} samplers, got {len(ends)}")
    images = {name: checks.batch(f"ends[{name!r}]", value).detach().double().cpu() for name, value in ends.items()}
    first, truth = next(iter(images.items()))
    if truth.ndim != 4 or len(truth) < 2 or any(value.shape != truth.shape for value in images.values()):
        shapes = ", ".join(str(tuple(value.shape)) for value in images.values())
        raise ValueError(f"ends must hold images of one shape (K, C, H, W), K at least 2, got {shapes}")
    away = {name: (value - truth).flatten(1).square().mean(1).sqrt() for name, value in images.items() if name != first}
    last = len(truth) - 1

    picture, axes = plots.panels(1, len(images) + 1, size=(8.6, 2.9), width_ratios=(*[1] * len(images), 2.2))
    shots = [show_pixels(ax, value[0].numpy()) for ax, value in zip(axes, images.values())]
    for ax, name, colour in zip(axes, images, _COLOURS):
        ax.set_title(name, color=colour)
    right = axes[-1]
    for (_, values), colour in zip(away.items(), _COLOURS[1:]):
        right.plot(values, color=colour)
    here = right.axvline(0, color="black", lw=1)
    top = 1.1 * max(float(torch.stack(list(away.values())).max()), 1e-3)
    right.set(xlabel="noise, along the walk", title=f"away from {first}", ylim=(0, top), xlim=(0, last))
    play, step = player("noise", last // 2, last)

    def redraw() -> tuple[str, str]:
        k = step.value
        for shot, value in zip(shots, images.values()):
            shot.set_data(pixels(value[k].numpy()))
        here.set_xdata([k, k])
        told = ", ".join(f"{short(float(values[k]))} ({name})" for name, values in away.items())
        alt = f"Noise {k} of 0 to {last}: away from {first} by {told}."
        return alt, f"{alt} Root mean square per pixel."

    return Explorer(picture, redraw, (play, step))

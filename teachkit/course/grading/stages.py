"""The checks of the lesson on stages: a null to be designed, and where two classes part.

A null is right when a test that uses it finds what is real and does not find what was planted; so the check of
`meaningless_labels` makes data of both kinds, runs the test on them with the answer as its null, and counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from teachkit import Empirical, initial_noise, regularity, sample, schedules
from teachkit.course.grading.engine import Cases, normal, register

_LAST = 0.05
_LEVELS = schedules.polynomial(20, _LAST, 20.0)
_STARTS = initial_noise(48, (6,), 20.0, seed=0)
_DRAWS = 19  # of labels without meaning: the true ones must lie above all of them, which chance does one time in 20


def _weights(images: Tensor) -> Tensor:
    """What each image weighs on paths of the data set's exact denoiser: ``(N+1, B, images)``."""
    D = Empirical(images)
    paths = sample(D, _STARTS, _LEVELS)
    return torch.stack([D.weights(x, float(s)) for x, s in zip(paths.x, _LEVELS)])


def _committed(weights: Tensor, labels: Tensor) -> float:
    """What is claimed to show a choice: the mean log level from which on paths give their label half way to certain."""
    member = torch.nn.functional.one_hot(labels, 2).to(weights)
    half = (1 + float(member.mean(0).square().sum())) / 2
    return float(regularity.commitment_sigma(weights @ member, _LEVELS, min(half, 0.99)).nan_to_num(_LAST).log().mean())


@register(
    "meaningless_labels",
    "what else do the true labels have that yours have not? sizes of classes, and copies of an image",
)
def _meaningless_labels(answer: Any, rng: Generator) -> Cases:
    for copies, share in ((1, 0.5), (1, 0.25), (4, 0.5)):
        real, planted, n = 0, 0, 32
        for _ in range(5):
            centres = torch.tensor([0.0, 3.0], dtype=torch.float64)
            label = (torch.arange(n) >= share * n).long()
            cloud = normal(rng, n, 6)
            apart = torch.cat([cloud[:, :1] + centres[label][:, None], cloud[:, 1:]], 1)
            for images, name in ((apart, "real"), (cloud, "planted")):
                order = torch.randperm(n * copies, generator=rng)
                images, labels = images.repeat(copies, 1)[order], label.repeat(copies)[order]
                draws = [answer(images.clone(), labels.clone(), rng) for _ in range(_DRAWS)]
                if any(draw is None or draw is Ellipsis for draw in draws):
                    yield "labels", None, labels
                draws = [torch.as_tensor(draw).long() for draw in draws]
                for draw in draws:
                    yield "the labels' shape", list(draw.shape), [n * copies]
                weights = _weights(images)
                found = _committed(weights, labels) > max(_committed(weights, draw) for draw in draws)
                real, planted = real + (found and name == "real"), planted + (found and name == "planted")
        data = f"{n} images in {copies} cop{'y' if copies == 1 else 'ies'}, {share:.0%} in the smaller class"
        yield f"{data}: a choice that is real is found", real >= 4, True
        yield f"{data}: a planted one, labels drawn by chance, is not", planted <= 2, True


@register("split_sigma", "at the middle of two equal Gaussians the second derivative of the density changes sign")
def _split_sigma(answer: Any, rng: Generator) -> Cases:
    for _ in range(3):
        s = 0.1 + float(torch.rand((), generator=rng))
        m = s + 0.1 + float(torch.rand((), generator=rng))
        yield f"m = {m:.2f}, s = {s:.2f}", answer(m, s), (m**2 - s**2) ** 0.5

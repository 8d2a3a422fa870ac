"""The batch of a training step: everything random in it follows from the recipe's seed and the number of the step.

It is drawn for the whole batch at once, and a process then takes its share, so that any number of processes see the
same images with the same noise. Used by `teachkit.edm.training`.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from teachkit.data import Dataset
from teachkit.edm.denoiser import LearnedDenoiser
from teachkit.edm.loss import AUGMENT_DIM, affine_augment, noise_levels
from teachkit.edm.recipes import Recipe

_SPREAD = (0.05, 0.05, 0.12, 0.1)  # of shifts (widths), angles (radians) and the log of sizes


# Images (B, C, H, W), noise levels (B,), unit noise as the images, class vectors (B, label_dim), and what the
# augmentation did (B, augment_dim), None for a network that does not ask.
Batch: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]


def check_data(recipe: Recipe, dataset: Dataset, denoiser: LearnedDenoiser) -> None:
    """Raise a ValueError unless the recipe's network takes the recipe's data and knows all their classes."""
    shape = tuple(dataset.images.shape[1:])
    wanted = (denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)
    if shape != wanted:
        raise ValueError(f"network must be for the data {recipe.data!r} of shape {shape}, got one for {wanted}")
    classes = int(dataset.labels.max()) + 1
    if 0 < denoiser.label_dim < classes:
        raise ValueError(
            f"network must have label_dim 0, or at least {classes} for the classes of {recipe.data!r}, "
            f"got {denoiser.label_dim}"
        )


def draw_batch(recipe: Recipe, dataset: Dataset, denoiser: LearnedDenoiser, step: int, rank: int, world: int) -> Batch:
    """The share of process ``rank`` in the batch of a step, on the device of the denoiser."""
    rng, size = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step), recipe.batch

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, dtype=torch.float32)

    index = torch.randint(len(dataset.images), (size,), generator=rng)
    images, labels = dataset.images[index], dataset.labels[index]
    sigma = noise_levels(rand(size), log_uniform_share=recipe.log_uniform_share)
    noise = torch.randn(images.shape, generator=rng, dtype=torch.float32)
    keep = rand(size) >= recipe.label_dropout
    classes = denoiser.label_dim
    known = max(classes, int(dataset.labels.max()) + 1)
    vectors = torch.nn.functional.one_hot(labels, known).float()[:, :classes] * keep[:, None]
    spread = torch.tensor(_SPREAD, dtype=torch.float32)
    parameters = torch.randn(size, AUGMENT_DIM, generator=rng, dtype=torch.float32) * spread
    parameters = parameters * (rand(size, 1) < recipe.augment)
    # Zeros where nothing is augmented: then every weight has a gradient, which processes wait for.
    width = denoiser.model.augment_dim
    augmented = torch.zeros(size, width, dtype=torch.float32) if width else None
    if recipe.augment:
        images, augmented = affine_augment(images, parameters, fill=recipe.background)
    share = slice(rank * size // world, (rank + 1) * size // world)
    images, sigma, noise, vectors = (t[share].to(denoiser.device) for t in (images, sigma, noise, vectors))
    return images, sigma, noise, vectors, None if augmented is None else augmented[share].to(denoiser.device)

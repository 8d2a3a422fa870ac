"""Recipes: all that decides a training run of a small EDM network, in one table.

A recipe is plain data: the data set, the network's arguments, lengths counted in training images, and a seed. The
same recipe gives the same network: what is random in a step follows from the seed and the number of the step, for the
whole batch at once, of which a process takes its share. The choices follow Karras et al. 2022 (arXiv 2206.00364),
Table 1 and Appendix F, scaled down to minutes on a laptop. Taught in ``notebooks/12_training_edm``.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from teachkit.checks import choice, flag, integer, number, shown, text
from teachkit.data import Dataset
from teachkit.edm.denoiser import LearnedDenoiser
from teachkit.edm.loss import AUGMENT_DIM, affine_augment, noise_levels
from teachkit.edm.preconditioning import EDMPrecond

__all__ = ["RECIPES", "Recipe", "make_denoiser"]

_LARGEST_SEED = 2**42  # every step has a seed of its own, a million apart from recipe to recipe, below 2^63

_SPREAD = (0.05, 0.05, 0.12, 0.1)  # of shifts (widths), angles (radians) and the log of sizes

# Images (B, C, H, W), noise levels (B,), unit noise as the images; class vectors (B, label_dim) and what the
# augmentation did (B, augment_dim), None for a network that does not ask.
Batch: TypeAlias = tuple[Tensor | None, ...]


class Optimised:
    """What every recipe says of its optimisation: lengths, counted in images seen, rates, averaging, and a seed."""

    images: int
    batch: int
    learning_rate: float
    schedule: str
    cycles: int
    warmup: int
    ema_half_life: int
    ema_ramp: float
    label_dropout: float
    gradient_clip: float
    precision: str
    seed: int
    validate_every: int

    def check_optimisation(self) -> None:
        """Raise a TypeError or ValueError that names what makes no run."""
        choice("schedule", self.schedule, ("cosine", "constant"))
        choice("precision", self.precision, ("float32", "bfloat16", "float16"))
        integer("seed", self.seed, 0, _LARGEST_SEED)
        for name in ("images", "batch", "validate_every", "cycles"):
            integer(name, getattr(self, name), 1)
        for name in ("learning_rate", "gradient_clip"):
            number(name, getattr(self, name), above=0)
        number("label_dropout", self.label_dropout, least=0, most=1)
        for name in ("warmup", "ema_half_life", "ema_ramp"):
            number(name, getattr(self, name), least=0)

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return math.ceil(self.images / self.batch)

    def text(self) -> str:
        """Everything in it as one line of JSON, by which a run directory knows its recipe again."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Recipe(Optimised):
    """All that decides a training run.

    Lengths (``images``, ``warmup``, ``ema_half_life``, ``validate_every``) count training images seen.

    Examples
    --------
    >>> short = dataclasses.replace(RECIPES["digits8"], images=1280, batch=128)
    >>> short.steps
    10
    """

    data: str
    network: dict[str, Any]
    sigma_data: float = 0.5
    images: int = 200_000
    batch: int = 128
    micro_batch: int | None = None  # gradient accumulation: images at a time (default: all)
    learning_rate: float = 1e-3
    schedule: str = "cosine"  # or "constant", after the warm-up
    cycles: int = 1  # the schedule, warm-up included, is run this many times (warm restarts, arXiv 1608.03983)
    warmup: int = 10_000
    ema_half_life: int = 20_000
    ema_ramp: float = 0.05  # the half-life is at most this share of the images seen so far
    log_uniform_share: float = 0.15
    label_dropout: float = 0.15
    augment: float = 0.0  # probability that an image is shifted, turned and resized
    background: float = -1.0  # what moves in from outside when it is
    gradient_clip: float = 1.0
    precision: str = "float32"  # or "bfloat16", "float16": of the network's arithmetic, not of the weights
    compile: bool = False
    seed: int = 0
    validate_every: int = 50_000
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text("data", self.data)
        for name in ("network", "tags"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} must be a dict, got {shown(getattr(self, name))}")
            object.__setattr__(self, name, copy.deepcopy(getattr(self, name)))  # not shared with another recipe
        flag("compile", self.compile)
        self.check_optimisation()
        if self.micro_batch is not None:
            integer("micro_batch", self.micro_batch, 1, self.batch)
        number("background", self.background, -1, 1)
        number("sigma_data", self.sigma_data, above=0)
        for name in ("log_uniform_share", "augment"):
            number(name, getattr(self, name), least=0, most=1)
        try:
            self.text()
        except (TypeError, ValueError) as error:
            raise TypeError(f"network and tags must hold plain values, as JSON has them: {error}") from None
        if self.augment and self.network.get("augment_dim", 0) != AUGMENT_DIM:
            raise ValueError(f"augment needs a network with augment_dim={AUGMENT_DIM}, got {self.augment} without")


def check_recipe(recipe: Recipe) -> None:
    """Raise a TypeError unless it is one."""
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe, got {shown(recipe)}")


def _network(side: int, width: int, mult: tuple[int, ...], channels: int = 1, classes: int = 10) -> dict[str, Any]:
    """A small class-conditional U-Net with attention at its lowest resolution."""
    return {
        "img_resolution": side,
        "img_channels": channels,
        "label_dim": classes,
        "model_channels": width,
        "channel_mult": mult,
        "channel_mult_emb": 4,
        "num_blocks": 1,
        "attn_resolutions": (side >> len(mult) - 1,),
        "augment_dim": AUGMENT_DIM,
        "dropout": 0.0,
    }


RECIPES: dict[str, Recipe] = {
    "mnist": Recipe(
        data="mnist5k",
        network=_network(28, 32, (1, 2, 3)),
        sigma_data=0.62,
        images=600_000,
        learning_rate=2e-3,
        cycles=2,
        ema_half_life=12_000,
        augment=0.7,
        precision="bfloat16",
        compile=True,
    ),
    "digits8": Recipe(
        data="digits8",
        network=_network(8, 24, (1, 2)),
        sigma_data=0.75,
        images=400_000,
        learning_rate=2e-3,
        augment=0.3,
    ),
    "emoji": Recipe(
        data="emoji32",
        network=_network(32, 32, (1, 2, 4), channels=3, classes=9),
        sigma_data=0.58,
        images=1_000_000,
        learning_rate=2e-3,
        ema_half_life=50_000,
        augment=0.5,
        background=1.0,
        precision="bfloat16",
        compile=True,
        validate_every=100_000,
    ),
}


def learning_rate(recipe: Optimised, step: int) -> float:
    """Of a step: a warm-up, then a half cosine or a constant, ``cycles`` times."""
    length = recipe.images / recipe.cycles
    seen = step * recipe.batch % length
    factor = min(1.0, (seen + recipe.batch) / max(recipe.warmup, 1))
    if recipe.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * seen / length))
    return recipe.learning_rate * factor


def share_kept(recipe: Optimised, step: int) -> float:
    """How much of the averaged weights stays after a step: half of it in a half-life, which grows at first."""
    half_life = max(min(recipe.ema_half_life, step * recipe.batch * recipe.ema_ramp), 1e-8)
    return 0.5 ** (recipe.batch / half_life)


def make_denoiser(recipe: Recipe) -> EDMPrecond:
    """The untrained network of a recipe, initialised from its seed.

    Parameters
    ----------
    recipe : Recipe
        Its network, ``sigma_data`` and ``seed``.

    Returns
    -------
    EDMPrecond
        In training mode.

    Raises
    ------
    TypeError
        For something else than a `Recipe`.

    Examples
    --------
    >>> make_denoiser(RECIPES["digits8"]).img_resolution
    8
    """
    check_recipe(recipe)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)  # the same weights whatever a program prefers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return EDMPrecond(sigma_data=recipe.sigma_data, **recipe.network)
    finally:
        torch.set_default_dtype(before)


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
    vectors = torch.nn.functional.one_hot(labels, known).float()[:, :classes] * keep[:, None] if classes else None
    spread = torch.tensor(_SPREAD, dtype=torch.float32)
    parameters = torch.randn(size, AUGMENT_DIM, generator=rng, dtype=torch.float32) * spread
    parameters = parameters * (rand(size, 1) < recipe.augment)
    # Zeros where nothing is augmented: then every weight has a gradient, which processes wait for.
    width = denoiser.model.augment_dim
    augmented = torch.zeros(size, width, dtype=torch.float32) if width else None
    if recipe.augment:
        images, augmented = affine_augment(images, parameters, fill=recipe.background)
    share = slice(rank * size // world, (rank + 1) * size // world)
    whole = images, sigma, noise, vectors, augmented
    return tuple(None if part is None else part[share].to(denoiser.device) for part in whole)

"""The latents of a diffusers pipeline: their shape, and the pictures that its autoencoder makes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from teachkit.checks import integer


@torch.no_grad()
def decoded(vae: Any, latents: Tensor, batch: int | None) -> Tensor:
    """Pictures in [-1, 1] from latents, ``batch`` at a time, in the autoencoder's dtype and where it lies."""
    with _precise_enough(vae) as place:
        shift, scale = _units(vae.config, place)
        outputs = [vae.decode(part) for part in _parts(latents.to(place) * scale + shift, batch)]
    return torch.cat([getattr(out, "sample", out) for out in outputs]).clamp(-1, 1).to(latents)


@torch.no_grad()
def encoded(vae: Any, pictures: Tensor, batch: int | None) -> Tensor:
    """Latents of about unit variance from pictures in [-1, 1]; of an encoder that gives a distribution its mean."""
    with _precise_enough(vae) as place:
        outputs = [vae.encode(part) for part in _parts(pictures.to(place), batch)]
        means = [out.latent_dist.mean if hasattr(out, "latent_dist") else out.latents for out in outputs]
        shift, scale = _units(vae.config, place)
        return ((torch.cat(means) - shift) / scale).to(pictures)


def _parts(x: Tensor, batch: int | None) -> tuple[Tensor, ...]:
    return x.split(len(x) if batch is None else integer("batch", batch, 1))


@contextlib.contextmanager
def _precise_enough(vae: Any) -> Iterator[Tensor]:
    """The autoencoder in a type in which it does not overflow, and a tensor of that type where it lies."""
    own = next(vae.parameters())
    wide = own.dtype == torch.float16 and bool(getattr(vae.config, "force_upcast", False))
    if wide:
        vae.float()
    try:
        yield own.new_empty(0, dtype=torch.float32 if wide else own.dtype)
    finally:
        if wide:
            vae.half()


def _units(config: Any, place: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale that turn latents of unit variance into the autoencoder's own."""
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    shift, scale = (
        place.new_tensor(getattr(config, "shift_factor", None) or 0),
        1 / place.new_tensor(config.scaling_factor),
    )
    if mean is None or std is None:
        return shift, scale
    mean, std = (place.new_tensor(part)[:, None, None] for part in (mean, std))
    return mean + shift, std * scale


def component(pipe: Any, *names: str) -> Any:
    """The first part of a pipeline that there is, by one of its names; None if there is none."""
    found = (getattr(pipe, name, None) for name in names)
    return next((part for part in found if part is not None), None)  # a compiled network refuses bool()


def pixels_per_latent(pipe: Any) -> int:
    """By how much the autoencoder shrinks a picture's sides; 1 without."""
    vae = component(pipe, "vae", "vqvae")
    blocks = getattr(getattr(vae, "config", None), "block_out_channels", None)
    return 2 ** (len(blocks) - 1) if blocks else int(getattr(pipe, "vae_scale_factor", 1))


def latent_shape(
    pipe: Any, told: tuple[Any, ...], packed: int, height: int | None, width: int | None
) -> tuple[int, int, int]:
    """(C, h, w) of the latents, from a picture's size in pixels or from what the network or the pipeline tells."""
    factor, usual = pixels_per_latent(pipe), getattr(pipe, "default_sample_size", None)
    sides = []
    for name, asked, own in (("height", height, told[1]), ("width", width, told[2])):
        if asked is not None:
            pixels, unit = integer(name, asked, 1), factor * packed
            if pixels % unit:
                raise ValueError(f"{name} must be a multiple of {unit} for this model, got {pixels}")
            sides.append(pixels // factor)
            continue
        side = usual if own is None else own
        if side is None:
            raise ValueError(f"{name} must be given, in pixels: this model's configuration does not tell it")
        sides.append(int(side))
    return int(told[0]), sides[0], sides[1]

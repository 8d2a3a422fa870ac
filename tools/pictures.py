"""What the makers of picture sets share: area-averaged resizing in linear light, and one lossless WebP for a set."""

from __future__ import annotations

import io
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
COLUMNS = 80  # pictures in a row of the sheet

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def to_linear(values: Bytes) -> Floats:
    """Intensity of light from sRGB values 0 to 255 (IEC 61966-2-1)."""
    v = np.arange(256) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)[values]


def to_srgb(light: Floats) -> Bytes:
    """The inverse of `to_linear`, rounded."""
    v = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    return np.round(np.clip(v, 0, 1) * 255).astype(np.uint8)


def average(light: Floats, factor: int) -> Floats:
    """Mean over squares of ``factor`` x ``factor`` pixels: ``(H, W, C)`` to ``(H / factor, W / factor, C)``."""
    height, width, channels = light.shape
    return light.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))


def on_white(picture: Image.Image) -> Bytes:
    """A picture with transparency, shrunk to 32 x 32 on white: ``(32, 32, 3)``."""
    factor = -(-max(picture.size) // SIDE)
    square = Image.new("RGBA", (SIDE * factor, SIDE * factor))
    square.paste(picture.convert("RGBA"), tuple((SIDE * factor - length) // 2 for length in picture.size))
    rgba = np.asarray(square)
    cover = rgba[..., 3:] / 255.0
    return to_srgb(average(to_linear(rgba[..., :3]) * cover + (1 - cover), factor))


def pack(pictures: Bytes) -> Bytes:
    """``(N, 32, 32, 3)`` as the bytes of one lossless WebP, `COLUMNS` pictures in a row."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = np.full((rows * COLUMNS, SIDE, SIDE, 3), 255, np.uint8)
    sheet[: len(pictures)] = pictures
    whole = sheet.reshape(rows, COLUMNS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(rows * SIDE, COLUMNS * SIDE, 3)
    out = io.BytesIO()
    Image.fromarray(whole).save(out, "WEBP", lossless=True, quality=100, method=6)
    return np.frombuffer(out.getvalue(), np.uint8)


def hold_out(groups: list[list[int]]) -> list[int]:
    """An order of the pictures in which number 0, 10, 20, ... belong to whole groups, and all else is shuffled.

    `teachkit.data.split` holds out every tenth picture; so ordered, nothing that belongs together is split by it.
    """
    total = sum(map(len, groups))
    wanted, shuffled = -(-total // 10), random.Random(0).sample
    for start in range(len(groups)):  # the first groups that fit; from a later one where they do not add up
        held: list[int] = []
        for group in groups[start:] + groups[:start]:
            if len(held) + len(group) <= wanted:
                held += group
        if len(held) == wanted:
            break
    else:
        raise ValueError(f"no choice of whole groups holds out {wanted} pictures")
    rest = sorted({k for group in groups for k in group} - set(held))
    front, back = iter(shuffled(held, wanted)), iter(shuffled(rest, len(rest)))
    return [next(front if place % 10 == 0 else back) for place in range(total)]

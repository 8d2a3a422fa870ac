"""Data sets, offline first: two sets of real digits that ship, 2-D toys that are computed, and downloads on request.

Images are ``(N, 1, H, W)`` float32 scaled to [-1, 1]; toys are ``(N, 2)`` float64. ``data/README.md`` says where each
file came from and under which licence.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "NAMES",
    "TOYS",
    "Dataset",
    "checkerboard",
    "directory",
    "gaussian_grid",
    "load",
    "ring",
    "spiral",
    "split",
    "two_moons",
    "verify",
]


class Dataset(NamedTuple):
    """Images ``(N, C, H, W)`` in [-1, 1], or points ``(N, 2)``, and their integer labels ``(N,)``."""

    images: Tensor
    labels: Tensor


def directory() -> Path:
    """The folder with the data files: beside the modules in an installed package, ``data/`` in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_data"
    return inside if inside.is_dir() else package.parent / "data"


def load(name: str, root: str | Path | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        "digits8" (1,797 real 8x8 digits) or "mnist5k" (5,000 real 28x28 digits), which ship with the package;
        "cifar10" or "fashion-mnist", which torchvision downloads the first time; or a 2-D toy (`TOYS`), with 2,000
        points and seed 0.
    root : path, optional
        Where downloads are kept; by default torch's cache directory.

    Returns
    -------
    Dataset
        ``images`` (N, C, H, W) float32 in [-1, 1] (toys: (N, 2) float64) and ``labels`` (N,) int64.

    Raises
    ------
    ValueError
        For an unknown name (the nearest one is suggested) or a file whose checksum is wrong.
    FileNotFoundError, ConnectionError
        For a file that is missing, or cannot be downloaded; the message says what to do.
    """
    if name in _SHIPPED:
        with np.load(verify(f"{name}.npz"), allow_pickle=False) as stored:
            pixels, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])
        return Dataset(pixels[:, None].float() / (_SHIPPED[name] / 2) - 1, labels.long())
    if name in _DOWNLOADS:
        return _download(name, root)
    if name in TOYS:
        return TOYS[name](2000)
    near = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"unknown data set {name!r}{hint} Known: {', '.join(NAMES)}")


def split(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Split into training and held-out data: every tenth sample (number 0, 10, 20, ...) is held out.

    The digits of ``mnist5k`` are sorted by class, 500 each, so both parts have all classes in equal numbers.
    """
    held_out = torch.arange(len(dataset.images)) % 10 == 0
    train, test = (Dataset(dataset.images[m], dataset.labels[m]) for m in (~held_out, held_out))
    return train, test


def verify(file_name: str) -> Path:
    """Path of a shipped file, after comparing its SHA-256 with the one recorded in ``checksums.json``."""
    path = directory() / file_name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; reinstall teachkit, or restore it with 'git checkout -- data'")
    recorded = json.loads((directory() / "checksums.json").read_text())
    if file_name not in recorded:
        raise ValueError(f"{file_name} has no checksum in checksums.json")
    if hashlib.sha256(path.read_bytes()).hexdigest() != recorded[file_name]:
        raise ValueError(f"{path} is corrupt (wrong checksum); restore it with 'git checkout -- data' or reinstall")
    return path


def two_moons(n: int, seed: int = 0, noise: float = 0.05) -> Dataset:
    """Two interleaved half circles of radius 1, with Gaussian noise; the label is the moon."""
    rng = _rng(n, seed)
    label = torch.arange(n) % 2
    angle = math.pi * _uniform(rng, n)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return Dataset(torch.where(label[:, None] == 0, upper, -upper) + noise * _normal(rng, n), label)


def spiral(n: int, seed: int = 0, noise: float = 0.03, turns: float = 1.5) -> Dataset:
    """Two spiral arms that wind out to radius 1, with Gaussian noise; the label is the arm."""
    rng = _rng(n, seed)
    label = torch.arange(n) % 2
    radius = _uniform(rng, n).sqrt()
    angle = 2 * math.pi * turns * radius + math.pi * label
    points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return Dataset(points + noise * _normal(rng, n), label)


def checkerboard(n: int, seed: int = 0, cells: int = 4) -> Dataset:
    """Uniform on the dark squares of a ``cells`` x ``cells`` board over [-1, 1]^2; the label is the row."""
    rng = _rng(n, seed)
    row = torch.randint(cells, (n,), generator=rng)
    column = 2 * torch.randint(cells // 2, (n,), generator=rng) + row % 2
    corner = torch.stack([column, row], 1).double()
    return Dataset((corner + torch.rand(n, 2, generator=rng, dtype=torch.float64)) * (2 / cells) - 1, row)


def ring(n: int, seed: int = 0, modes: int = 8, radius: float = 1.0, noise: float = 0.05) -> Dataset:
    """``modes`` Gaussians evenly spaced on a circle; the label is the mode."""
    rng = _rng(n, seed)
    label = torch.arange(n) % modes
    angle = 2 * math.pi * label.double() / modes
    return Dataset(radius * torch.stack([angle.cos(), angle.sin()], 1) + noise * _normal(rng, n), label)


def gaussian_grid(n: int, seed: int = 0, side: int = 5, noise: float = 0.03) -> Dataset:
    """``side`` x ``side`` Gaussians on a grid over [-1, 1]^2; the label is the mode."""
    rng = _rng(n, seed)
    label = torch.arange(n) % side**2
    centre = torch.stack([label % side, label // side], 1).double() * (2 / max(side - 1, 1)) - 1
    return Dataset(centre + noise * _normal(rng, n), label)


TOYS: dict[str, Callable[..., Dataset]] = {
    f.__name__: f for f in (two_moons, spiral, checkerboard, ring, gaussian_grid)
}
_SHIPPED = {"digits8": 16, "mnist5k": 255}  # name -> largest pixel value
_DOWNLOADS = {"cifar10": "CIFAR10", "fashion-mnist": "FashionMNIST"}  # name -> torchvision class
NAMES = (*_SHIPPED, *_DOWNLOADS, *TOYS)


def _download(name: str, root: str | Path | None) -> Dataset:
    import torchvision

    folder = Path(root) if root is not None else Path(torch.hub.get_dir()) / "teachkit"
    try:
        source = getattr(torchvision.datasets, _DOWNLOADS[name])(str(folder), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"could not download {name!r} to {folder}: {error}. It needs the internet once; offline, use "
            f"'mnist5k' or 'digits8', or copy an existing torchvision download of it into that folder."
        ) from error
    pixels = torch.as_tensor(source.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Dataset(pixels.float() / 127.5 - 1, torch.as_tensor(source.targets).long())


def _rng(n: int, seed: int) -> torch.Generator:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be an integer >= 1, got {n!r}")
    return torch.Generator().manual_seed(seed)


def _uniform(rng: torch.Generator, n: int) -> Tensor:
    return torch.rand(n, generator=rng, dtype=torch.float64)


def _normal(rng: torch.Generator, n: int) -> Tensor:
    return torch.randn(n, 2, generator=rng, dtype=torch.float64)

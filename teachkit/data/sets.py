"""Sets by name: digits, emoji and photographs that ship, toys that are computed, downloads on request.

``data/README.md`` says where each file that ships came from and under which licence.
"""

from __future__ import annotations

import difflib
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from teachkit.checks import choice, installed, same, shown
from teachkit.checks import path as checked_path
from teachkit.data.toys import CLASSES, TOYS
from teachkit.files import cache_directory, checksum, held

__all__ = ["NAMES", "Dataset", "captions", "class_names", "directory", "load", "split", "verify"]

_REMEDY = "restore it with 'git checkout -- data' in a checkout, or reinstall teachkit"


class Dataset(NamedTuple):
    """Images ``(N, C, H, W)`` in [-1, 1], or points ``(N, 2)``, and their integer labels ``(N,)``.

    Examples
    --------
    >>> load("digits8").images.shape
    torch.Size([1797, 1, 8, 8])
    """

    images: Tensor
    labels: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dataset) and same(self, other)

    def __ne__(self, other: object) -> bool:  # a tuple has its own
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(part.shape for part in self))


def directory() -> Path:
    """The folder with the data files: beside the modules in an installed package, ``data/`` in a checkout.

    Returns
    -------
    Path
        Of the folder.

    Examples
    --------
    >>> (directory() / "checksums.json").is_file()
    True
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / "_data"
    return inside if inside.is_dir() else package.parent / "data"


def load(name: str, root: str | Path | None = None, *, n: int = 2000, seed: int = 0) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        What ships with the package: "digits8" (1,797 grey 8x8 digits), "mnist5k" (5,000 grey 28x28 digits), "emoji32"
        (6,920 colour emoji, 32x32, of four designs, in nine categories) or "photos32" (5,000 colour patches, 32x32, of
        19 photographs);
        "cifar10" or "fashion-mnist" (the training sets), which torchvision downloads the first time; or a 2-D toy:
        "two_moons", "spiral", "checkerboard", "ring", "gaussian_grid".
    root : path, optional
        Where downloads are kept; by default ``data`` in `teachkit.files.cache_directory`.
    n, seed : int
        Number of points and seed, for the toys only.

    Returns
    -------
    Dataset
        ``images`` (N, C, H, W) float32 in [-1, 1] (toys: points (N, 2) float64) and ``labels`` (N,) int64: the digit,
        the emoji's category, the photograph a patch is from (toys: the moon, arm, row or mode). `class_names` names
        them, `captions` every picture.

    Raises
    ------
    ValueError
        For an unknown name (the nearest one is suggested) or a file whose checksum is wrong.
    FileNotFoundError, ConnectionError
        For a file that is missing, or cannot be downloaded; the message says what to do.

    Examples
    --------
    >>> images, labels = load("mnist5k")
    >>> images.shape, labels[::500].tolist()
    (torch.Size([5000, 1, 28, 28]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be the name of a data set, got {shown(name)}")
    if name in _SHIPPED:
        with np.load(verify(f"{name}.npz"), allow_pickle=False) as stored:
            labels = torch.from_numpy(stored["labels"]).long()
            pixels = _unpack(stored["webp"], len(labels)) if "webp" in stored else stored["images"][:, None]
        return Dataset(torch.from_numpy(pixels).to(torch.float32) / (_SHIPPED[name] / 2) - 1, labels)
    if name in _DOWNLOADS:
        return _download(name, root)
    if name in TOYS:
        points = TOYS[name](n, seed)
        return Dataset(points, torch.arange(n) % CLASSES[name])
    near = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"unknown data set {name!r}{hint} Known: {', '.join(NAMES)}")


def split(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Split into training and held-out data: every tenth sample (number 0, 10, 20, ...) is held out.

    The digits of ``mnist5k`` are sorted by class, 500 each, so both parts have all classes in equal numbers: 4,500 to
    train on and 500 held out. ``emoji32`` and ``photos32`` are stored in an order that makes the rule fair: no emoji is
    in both parts, in whatever design, and no photograph. Everything that ships was trained under this rule.

    Parameters
    ----------
    dataset : Dataset
        For example of `load`.

    Returns
    -------
    Dataset, Dataset
        To train on, and held out.

    Raises
    ------
    ValueError, TypeError
        For something else than a `Dataset`, or as many labels as there are not images.

    Examples
    --------
    >>> train, held_out = split(load("mnist5k"))
    >>> len(train.images), len(held_out.images)
    (4500, 500)
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a Dataset of images and labels, got {shown(dataset)}")
    if len(dataset.images) != len(dataset.labels):
        raise ValueError(f"dataset has {len(dataset.images)} images but {len(dataset.labels)} labels")
    held_out = torch.arange(len(dataset.images)) % 10 == 0
    train, test = (Dataset(dataset.images[m], dataset.labels[m]) for m in (~held_out, held_out))
    return train, test


def class_names(name: str) -> tuple[str, ...]:
    """What the labels of a set that ships stand for.

    Parameters
    ----------
    name : str
        "digits8", "mnist5k", "emoji32" or "photos32".

    Returns
    -------
    tuple of str
        Label k stands for entry k: "0" to "9", the Unicode categories, or the photographs.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> class_names("emoji32")[:3]
    ('Smileys & Emotion', 'People & Body', 'Animals & Nature')
    """
    with np.load(verify(f"{choice('name', name, tuple(_SHIPPED))}.npz"), allow_pickle=False) as stored:
        named = stored[_CLASSES[name]] if name in _CLASSES else np.arange(10)
    return tuple(str(entry) for entry in named)


def captions(name: str) -> list[str]:
    """What each colour picture shows and whose it is, in the order of `load`.

    Parameters
    ----------
    name : str
        "emoji32" or "photos32".

    Returns
    -------
    list of str
        Name and design of an emoji; title, author and licence of the photograph of a patch.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> captions("photos32")[0]
    'coffee, Rachel Michetti, CC0-1.0'
    """
    with np.load(verify(f"{choice('name', name, tuple(_CLASSES))}.npz"), allow_pickle=False) as stored:
        if name == "emoji32":
            names, designs = stored["names"][stored["emoji"]], stored["designs"][stored["design"]]
            return [f"{what} ({design})" for what, design in zip(names, designs)]
        parts = [stored[key][stored["labels"]] for key in ("photos", "authors", "licences")]
    return [", ".join(entries) for entries in zip(*parts)]


def verify(file_name: str) -> Path:
    """Path of a shipped file, after comparing its SHA-256 with the one recorded in ``checksums.json``.

    Parameters
    ----------
    file_name : str
        Its name in the folder of the data.

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    FileNotFoundError, ValueError
        When the file, or the list of checksums, is missing or not what was shipped.

    Examples
    --------
    >>> verify("digits8.npz").name
    'digits8.npz'
    """
    if not isinstance(file_name, str):
        raise TypeError(f"file_name must be the name of a file, got {shown(file_name)}")
    path, listed = directory() / file_name, directory() / "checksums.json"
    for needed in (path, listed):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is missing; {_REMEDY}")
    try:
        recorded = json.loads(listed.read_text()).get(file_name)
    except (ValueError, AttributeError):
        raise ValueError(f"{listed} is corrupt; {_REMEDY}") from None
    if recorded is None:
        raise ValueError(f"{listed} has no checksum for {file_name}; {_REMEDY}")
    found = checksum(path)
    if found != recorded:
        raise ValueError(f"{path} is corrupt: its SHA-256 is {found[:12]}…, not {str(recorded)[:12]}…; {_REMEDY}")
    return path


_SHIPPED = {"digits8": 16, "mnist5k": 255, "emoji32": 255, "photos32": 255}  # name -> largest pixel value
_CLASSES = {"emoji32": "categories", "photos32": "photos"}  # name -> the array with what its labels stand for
_DOWNLOADS = {"cifar10": "CIFAR10", "fashion-mnist": "FashionMNIST"}  # name -> torchvision class
NAMES = (*_SHIPPED, *_DOWNLOADS, *TOYS)


def _unpack(webp: np.ndarray, count: int, side: int = 32) -> np.ndarray:
    """The first ``count`` pictures of a sheet stored as the bytes of a WebP, row by row: ``(count, 3, side, side)``."""
    with installed("PIL.Image", "opening colour pictures").open(io.BytesIO(webp.tobytes())) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    tiles = sheet.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    return tiles.reshape(-1, 3, side, side)[:count]


def _download(name: str, root: str | Path | None) -> Dataset:
    sets = installed("torchvision.datasets", f"downloading {name!r}")
    folder = cache_directory("data") if root is None else checked_path("root", root)
    try:
        with held(folder / f".{name}.lock", wait=lambda: None):  # of several processes one downloads
            source = getattr(sets, _DOWNLOADS[name])(str(folder), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"could not download {name!r} to {folder}: {error}. It needs the internet once; offline, use "
            f"'mnist5k' or 'digits8', or copy an existing torchvision download of it into that folder."
        ) from error
    pixels = torch.as_tensor(source.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return Dataset(pixels.float() / 127.5 - 1, torch.as_tensor(source.targets).long())

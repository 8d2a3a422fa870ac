"""Checkpoints: networks in files, opened without trusting the file.

:func:`load` opens three things: a name (a model that ships with teachkit, or a published one, which is downloaded),
a ``.safetensors`` file written by :func:`save`, and a published ``.pkl`` snapshot.  A snapshot is a pickle, which
Python would *run*; here it is only read (:mod:`teachkit.edm.snapshots`).  In every case the file gives no more than
constructor arguments and tensors, which :mod:`teachkit.edm.building` makes a network of.  Used from
``notebooks/13_learned_vs_optimal.ipynb`` and ``notebooks/17_real_gpu_models.ipynb``.

The snapshot format is that of Karras et al. 2022 (arXiv 2206.00364); safetensors is https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teachkit import checks
from teachkit.files import write_whole

from . import published
from .building import EXACT, STORED_DTYPES, build, check_finite
from .denoiser import LearnedDenoiser
from .errors import CheckpointError, CorruptCheckpointError, UnknownArchitectureError
from .preconditioning import PRECONDITIONINGS
from .snapshots import State, read_snapshot

SHIPPED = ("edm-mnist", "edm-digits8", "edm-emoji", "edm-digits8-1step", "edm-digits8-2step", "edm-digits8-4step")
FORMAT = "teachkit-edm-1"


def load(
    path_or_name: str | os.PathLike[str], device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> LearnedDenoiser:
    """Open a learned denoiser.

    Parameters
    ----------
    path_or_name : path or str
        A ``.safetensors`` file of :func:`save`; a published ``.pkl`` snapshot; a model that ships with teachkit
        ("edm-mnist", "edm-digits8", "edm-emoji", and "edm-digits8-1step", "-2step", "-4step", which were distilled from
        "edm-digits8" for their ``levels``); or the name of a published one ("edm-cifar10-32x32-uncond-vp", ...; the
        whole list is ``published.CONFIGS``), which is downloaded once and kept.
    device : device, optional
        Where to put it; torch's default device if None.
    dtype : torch.dtype, optional
        Dtype of the weights, in which the network runs; float32 if None, whatever the file stores.

    Returns
    -------
    LearnedDenoiser
        ``D(x, sigma, labels=None)`` in evaluation mode, without gradients on its weights.

    Raises
    ------
    FileNotFoundError
        If there is no such file or name.
    DownloadError
        If a published checkpoint is neither here nor reachable.
    CheckpointError
        If the file is not what it should be: one subclass per reason, see :mod:`teachkit.edm.errors`.

    Examples
    --------
    >>> denoiser = load("edm-digits8")
    >>> denoiser.img_resolution
    8
    """
    dtype, device = checks.floating_dtype("dtype", dtype), checks.device("device", device)
    path = _find(path_or_name)
    try:
        read = _read_safetensors if _is_safetensors(path) else read_snapshot
        denoiser = build(*read(path), dtype or torch.float32)
    except CheckpointError as error:
        again = ""
        if str(path_or_name) in published.CONFIGS and not Path(path_or_name).is_file():
            again = f". It came from {published.URL}{path.name}: delete it to fetch it anew"
        raise type(error)(f"{path}: {error}{again}") from None
    return denoiser.to(device if device is not None else torch.get_default_device())


def save(
    denoiser: LearnedDenoiser,
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a denoiser as ``.safetensors`` with its constructor arguments and a checksum in the metadata.

    The file is written beside ``path`` and renamed, so that ``path`` never holds half a model.

    Parameters
    ----------
    denoiser : LearnedDenoiser
        The model.
    path : path
        Destination; must end in ".safetensors".
    dtype : torch.dtype, optional
        Dtype to store, for example ``torch.float16`` for half the size; that of the weights if None.
    metadata : mapping of str to str, optional
        Further text to keep with the model, such as how it was trained.

    Returns
    -------
    Path
        The path written.

    Raises
    ------
    TypeError, ValueError
        For something that is no denoiser of this package, another ending, or a dtype that is not stored.
    NonFiniteWeightsError
        If a weight is NaN or infinite, in itself or in ``dtype``.
    OSError
        If the file cannot be written, as on a full disk; what was at ``path`` is kept.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "half.safetensors"
    >>> saved = save(load("edm-digits8"), path, torch.float16, metadata={"made": "by hand"})
    >>> metadata(path)["made"], metadata(path)["dtype"]
    ('by hand', 'float16')
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    denoiser = getattr(denoiser, "_orig_mod", denoiser)  # what torch.compile wraps
    if type(denoiser).__name__ not in PRECONDITIONINGS:
        raise TypeError(f"denoiser must be one of {sorted(PRECONDITIONINGS)}, got {type(denoiser).__name__}")
    path = checks.path("path", path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {path.name!r}")
    dtype = checks.floating_dtype("dtype", dtype) or denoiser.dtype
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, Mapping) or not all(isinstance(t, str) for item in metadata.items() for t in item):
        raise TypeError(f"metadata must be a mapping of strings to strings, got {checks.shown(metadata)}")
    if dtype not in STORED_DTYPES.values():
        raise ValueError(f"dtype must be one of {sorted(STORED_DTYPES)}, got {dtype}")
    state = {}
    for name, value in denoiser.state_dict().items():
        stored = value.dtype if name.endswith(EXACT) else dtype
        state[name] = value.detach().to("cpu", stored, copy=True).contiguous(memory_format=torch.contiguous_format)
        check_finite(name, state[name])
    header = {
        **metadata,
        "format": FORMAT,
        "class": type(denoiser).__name__,
        "arguments": json.dumps(_to_json(denoiser.config)),
        "dtype": str(dtype).removeprefix("torch."),
        "sha256": digest(state),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_whole(path, lambda beside: save_file(state, beside, metadata=header))
    except SafetensorError as error:  # all that writing can fail of is the disk
        raise OSError(f"{path} could not be written: {error}") from error
    return path


def convert(
    source: str | os.PathLike[str], destination: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> Path:
    """Open a denoiser and save it as another file.

    Parameters
    ----------
    source : path or name
        A ``.safetensors`` file, a published ``.pkl`` snapshot, or the name of a model that ships or is published.
    destination : path
        The new file; must end in ".safetensors".
    dtype : torch.dtype, optional
        To store, float16, bfloat16, float32 or float64; float32 by default.

    Returns
    -------
    Path
        Of the new file.

    Raises
    ------
    FileNotFoundError, DownloadError, CheckpointError
        If the source is not there, cannot be fetched, or is not what it should be.
    ValueError, OSError
        If the destination has another ending or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = convert("edm-digits8", Path(tempfile.mkdtemp()) / "copy.safetensors")
    >>> load(path).img_resolution
    8
    """
    return save(load(source, device="cpu"), destination, dtype)


def metadata(path_or_name: str | os.PathLike[str]) -> dict[str, str]:
    """What a ``.safetensors`` checkpoint says of itself: class, arguments, dtype, checksum, and what it was given."""
    return _open_safetensors(_find(path_or_name))[0]


def _find(path_or_name: str | os.PathLike[str]) -> Path:
    path = checks.path("path_or_name", path_or_name).expanduser()
    if path.is_file():
        return path
    name = str(path_or_name)
    if name in SHIPPED:
        from teachkit import data

        shipped = data.directory() / f"{name}.safetensors"
        if shipped.is_file():
            return shipped
        raise FileNotFoundError(f"{name} ships with teachkit, but {shipped} is not there")
    if name in published.CONFIGS:
        return published.fetch(name)
    names = [*SHIPPED, *published.CONFIGS]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names
    raise FileNotFoundError(f"no file and no model is called {name!r}; models: {', '.join(near)}")


def _is_safetensors(path: Path) -> bool:
    """Decided by content: a safetensors file starts with the length of a JSON object, and that object."""
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise CorruptCheckpointError(f"{path.name} is empty")
    if start[:2] == b"PK":
        raise UnknownArchitectureError(f"{path.name} is a torch.save archive: it names no architecture")
    return start[8:] == b"{"


def _open_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise CorruptCheckpointError(f"{path.name} is no readable safetensors file: {str(error)[:200]}") from None


def _read_safetensors(path: Path) -> tuple[str, dict[str, Any], State]:
    header, state = _open_safetensors(path)
    if header.get("format") != FORMAT:
        raise UnknownArchitectureError(f"{path.name} says nothing of its architecture (metadata 'format': {FORMAT!r})")
    try:
        arguments = json.loads(header["arguments"])
        class_name, stated = header["class"], header["sha256"]
    except (KeyError, ValueError, RecursionError):
        raise CorruptCheckpointError(f"the metadata of {path.name} is damaged") from None
    if not isinstance(arguments, dict):
        raise CorruptCheckpointError(f"the metadata of {path.name} is damaged")
    if digest(state) != stated:
        raise CorruptCheckpointError(f"the weights in {path.name} are not those that were saved (checksum)")
    return class_name, {k: math.inf if v == "inf" else v for k, v in arguments.items()}, state


def _to_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: "inf" if v == math.inf else list(v) if isinstance(v, tuple) else v for k, v in config.items()}


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()

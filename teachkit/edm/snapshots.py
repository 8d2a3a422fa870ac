"""Published snapshots: from the objects in the file to constructor arguments and tensors.

A snapshot is a pickled ``{'ema': network, ...}``, the network a tree of modules, each with its tensors and the
arguments it was made with.  :mod:`teachkit.edm.unpickling` turns it into inert records; here the tree is walked,
within bounds, and its tensors are renamed and reordered for the networks of this package.

The format is that of Karras et al. 2022 (arXiv 2206.00364).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .denoiser import LearnedDenoiser
from .errors import CorruptCheckpointError, OversizedCheckpointError, TensorMismatchError, UnknownArchitectureError
from .layers import BOXES
from .pickle_machine import Record
from .preconditioning import PRECONDITIONINGS
from .unpickling import TensorRecord, read

MAX_ENTRIES, MAX_DEPTH, MAX_NAME = 200_000, 16, 100  # of a tree of modules: many times what any network has

State = Mapping[str, Tensor | TensorRecord]


def read_snapshot(path: Path) -> tuple[str, dict[str, Any], State]:
    """Class, constructor arguments and tensors of a published pickle."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        top = read(mapped)
    net = top.get("ema") if isinstance(top, dict) else top
    if not isinstance(net, Record):
        raise UnknownArchitectureError(f"{path.name} holds no network under 'ema'")
    names = class_named(net.class_name).argument_names()
    positional, arguments = net.state.get("_init_args", ()), net.state.get("_init_kwargs", {})
    if not isinstance(positional, (tuple, list)) or not isinstance(arguments, dict):
        raise CorruptCheckpointError("the constructor arguments are damaged")
    if len(positional) > len(names) or not all(isinstance(name, str) for name in arguments):
        raise UnknownArchitectureError("the constructor arguments do not fit the network")
    arguments = {**dict(zip(names, positional)), **arguments}
    for name in ("sigma_min", "sigma_max", "sigma_data"):  # attributes that users set after construction
        if name in names and isinstance(net.state.get(name), (int, float)):
            arguments[name] = net.state[name]
    state = collect(net)
    held = {id(record.storage): record.storage.count for record in state.values()}
    needed = sum(math.prod(record.size) for record in state.values())
    if needed > sum(held.values()):
        raise OversizedCheckpointError(f"the tensors claim {needed} numbers, the file holds {sum(held.values())}")
    state.pop("u", None)  # the noise levels of iDDPM, which follow from its arguments
    return (
        net.class_name,
        arguments,
        from_published(state, 64 if arguments.get("model_type") == "DhariwalUNet" else None),
    )


def from_published(state: State, channels_per_head: int | None) -> dict[str, Tensor | TensorRecord]:
    """Turn the tensors of a published snapshot into those of a network of this package.

    Names and shapes are the same, with two exceptions. The rows of the attention's ``qkv`` layers are ordered
    (head, channel, q|k|v) there and (q|k|v, head, channel) here, where q, k and v are then views without a copy.
    The resampling filters are stored there and known here: they are checked and left out.

    Parameters
    ----------
    state
        Published tensors by name.
    channels_per_head
        64 for ADM; None for the other networks, which have one head.
    """
    result: dict[str, Tensor | TensorRecord] = {}
    for name, value in state.items():
        if name.endswith(".resample_filter"):
            _check_filter(name, in_memory(value))
        elif name.endswith((".qkv.weight", ".qkv.bias")):
            tensor = in_memory(value)
            channels = tensor.shape[0] // 3 if tensor.ndim else 0
            heads = 1 if channels_per_head is None else channels // channels_per_head
            if not heads or tensor.shape[0] != 3 * channels or channels % heads:
                raise TensorMismatchError(f"{name[:80]} has no whole attention heads: shape {tuple(tensor.shape)}")
            rows = tensor.reshape(heads, channels // heads, 3, *tensor.shape[1:])
            result[name] = rows.movedim(2, 0).reshape(tensor.shape)
        else:
            result[name] = value
    return result


def class_named(class_name: str) -> type[LearnedDenoiser]:
    """The class of that name."""
    if class_name not in PRECONDITIONINGS:
        raise UnknownArchitectureError(f"the file holds a {class_name[:80]!r}, not one of {sorted(PRECONDITIONINGS)}")
    return PRECONDITIONINGS[class_name]


def in_memory(value: Tensor | TensorRecord) -> Tensor:
    """A tensor, also from the record of one."""
    return value.tensor() if isinstance(value, TensorRecord) else value


def _check_filter(name: str, value: Tensor) -> None:
    for taps in BOXES:
        line = torch.tensor(taps, dtype=torch.float64) / sum(taps)
        kernel = torch.outer(line, line)[None, None]
        if value.shape == kernel.shape and torch.allclose(value.double(), kernel, atol=1e-3):
            return
    raise TensorMismatchError(f"{name[:80]} is none of the filters {[list(t) for t in BOXES]}")


def collect(net: Record) -> dict[str, TensorRecord]:
    """All tensors of a tree of module records, by their dotted names."""
    found: dict[str, TensorRecord] = {}
    waiting = [("", net, 0)]
    entries = 0
    while waiting:
        prefix, record, depth = waiting.pop()
        parts = [record.state.get(kind, {}) for kind in ("_parameters", "_buffers", "_modules")]
        if not all(isinstance(part, dict) for part in parts):
            raise CorruptCheckpointError(f"module {prefix[:80]!r} is damaged")
        parameters, buffers, modules = parts
        entries += 1 + sum(map(len, parts))
        if entries > MAX_ENTRIES or depth > MAX_DEPTH:  # a module inside itself, or a tree that doubles at each level
            raise OversizedCheckpointError("the file nests its modules endlessly")
        for name, value in [*parameters.items(), *buffers.items(), *modules.items()]:
            if not isinstance(name, str) or len(name) > MAX_NAME:
                raise CorruptCheckpointError(f"module {prefix[:80]!r} has an impossible part")
            wanted = Record if name in modules else TensorRecord
            if value is not None and not isinstance(value, wanted):
                raise CorruptCheckpointError(f"{(prefix + name)[:80]} is a {type(value).__name__}")
            if isinstance(value, Record):
                waiting.append((f"{prefix}{name}.", value, depth + 1))
            elif value is not None:
                found[prefix + name] = value
    return found

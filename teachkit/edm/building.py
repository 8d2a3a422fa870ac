"""From the constructor arguments and the tensors of a file, neither of which is trusted, to a network.

The network is built from the arguments without memory (on the ``meta`` device), compared tensor by tensor with what the
file holds, and only then filled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .denoiser import LearnedDenoiser
from .errors import NonFiniteWeightsError, OversizedCheckpointError, TensorMismatchError, UnknownArchitectureError
from .snapshots import State, class_named, in_memory

STORED_DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
EXACT = "freqs"  # buffers of this name are stored in full precision whatever the rest is stored in


def build(
    class_name: str, arguments: Mapping[str, Any], state: State, dtype: torch.dtype = torch.float32
) -> LearnedDenoiser:
    """Make a network from constructor arguments and fill it with tensors, after checking that the two belong together.

    Parameters
    ----------
    class_name, arguments
        Name of the preconditioning and its constructor arguments.
    state
        Tensors by parameter name, as ``state_dict`` gives them.
    dtype
        Dtype of the weights.

    Raises
    ------
    CheckpointError
        If they do not.
    """
    denoiser = _build_empty(class_name, arguments, len(state))
    expected = denoiser.state_dict()
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise TensorMismatchError(f"tensors missing: {_some(missing)}; unexpected: {_some(unexpected)}")
    filled = {}
    for name, value in expected.items():
        tensor = in_memory(state[name])
        if tensor.shape != value.shape:
            raise TensorMismatchError(f"{name[:80]} must have shape {tuple(value.shape)}, got {tuple(tensor.shape)}")
        if tensor.dtype not in STORED_DTYPES.values():
            raise TensorMismatchError(f"{name[:80]} must hold one of {', '.join(STORED_DTYPES)}, got {tensor.dtype}")
        check_finite(name, tensor)
        target = torch.promote_types(dtype, torch.float32) if name.endswith(EXACT) else dtype
        layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
        filled[name] = torch.empty(tensor.shape, dtype=target, memory_format=layout).copy_(tensor)
        check_finite(name, filled[name])  # half precision ends at 65504
    denoiser.load_state_dict(filled, assign=True)
    return denoiser.eval().requires_grad_(False)


def _build_empty(class_name: str, arguments: Mapping[str, Any], tensors: int) -> LearnedDenoiser:
    """The network on the ``meta`` device, from arguments that may be hostile."""
    make = class_named(class_name)
    for name, value in arguments.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise UnknownArchitectureError(f"constructor argument {str(name)[:40]!r} is no plain number, word or list")
    # Every block has tensors, so a network of more blocks than tensors cannot be the one in the file.
    blocks, mult = arguments.get("num_blocks", 1), arguments.get("channel_mult", [1])
    levels = len(mult) if isinstance(mult, (list, tuple)) else 0
    if not isinstance(blocks, int) or not levels or blocks * levels > tensors:
        raise OversizedCheckpointError(f"the file describes {blocks} x {levels} blocks but holds {tensors} tensors")
    steps = arguments.get("M", 1)
    if not isinstance(steps, int) or not 0 < steps <= 10**5:
        raise OversizedCheckpointError("the file describes a discrete schedule of impossible length")
    try:
        with torch.device("meta"):
            return make(**arguments)
    except Exception as error:  # whatever a hostile argument brings about
        raise UnknownArchitectureError(f"the constructor arguments make no network: {str(error)[:300]}") from None


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 64 and all(isinstance(v, (int, float)) and abs(v) < 2**31 for v in value)
    if isinstance(value, str):
        return len(value) <= 64
    return value is None or (isinstance(value, (int, float)) and (abs(value) < 2**31 or value == math.inf))


def check_finite(name: str, tensor: Tensor) -> None:
    if tensor.numel() and not all(bool(extreme.isfinite()) for extreme in tensor.aminmax()):
        raise NonFiniteWeightsError(f"{name[:80]} holds NaN or infinite weights in {tensor.dtype}")


def _some(names: set[str]) -> str:
    listed = ", ".join(name[:80] for name in sorted(names)[:4])
    return f"{listed or 'none'}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"

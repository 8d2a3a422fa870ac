"""Paths taken a few samples at a time, in double precision, however many there are.

What a block needs in between stays in the cache of the processor and in memory that the process has already; ten times
as much time goes by where every sum over all paths at once is written to fresh memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from teachkit.denoisers import default_dtype

_BLOCK = 2**18  # values handled at a time on a processor: 2 MiB in float64


def by_blocks(function: Callable[..., Tensor], *tensors: Tensor, batch_dim: int = 1) -> Tensor:
    """Apply a function to float64 blocks of samples, flattened to (N+1, b, d), and put the results together."""
    first = tensors[0]
    size = max(1, values_at_once(first.device) // (first[:, 0].numel() * len(tensors)))
    dtype = default_dtype(first.device)
    _keep_freed_memory()
    out: Tensor | None = None
    for i, pieces in enumerate(zip(*(t.split(size, 1) for t in tensors))):
        flat = [p.flatten(2).to(dtype) for p in pieces]
        result = function(flat[0] if len(flat) == 1 else torch.stack(flat))
        if out is None:  # made once: small results kept between large blocks would leave holes in the heap
            shape = list(result.shape)
            shape[batch_dim] = first.shape[1]
            out = result.new_empty(shape)
        out.narrow(batch_dim, i * size, result.shape[batch_dim]).copy_(result)
    assert out is not None  # there is one path at least
    return out


def values_at_once(device: torch.device) -> int:
    """How many float64 values a block has: so few that they stay near a processor, so many that they fill a GPU."""
    return _BLOCK if device.type == "cpu" else 64 * _BLOCK


def _keep_freed_memory() -> None:
    """Let the C library keep what one block frees for the next, not fetch it from the system page by page each time.

    GNU's gives the free end of the heap back at once until a large piece has been freed, of at most 32 MiB; from then
    on it keeps twice the size of that. Where another is in use, this does nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)

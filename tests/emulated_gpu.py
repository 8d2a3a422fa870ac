"""A GPU that needs no GPU: tensors that say cuda:0, hold their numbers on the CPU, and refuse what a GPU refuses.

    with EmulatedGPU():
        x = torch.zeros(3, device="cuda")      # also x.to("cuda"), network.to("cuda"), device=torch.device("cuda", 0)
        x + torch.zeros(3)                     # RuntimeError, as with a GPU

What is proven with it: that tensors meet only tensors of their own device, that random numbers come from a generator
beside them, and that nothing reads numbers in place as numpy does. What is not: the rounding, speed and memory of a
GPU, and operations for which one has no kernel; `tools/gpu_check.py` looks at those.

It stands on three things of torch, all needed for "cuda" where no driver is:

- the tensors are a subclass whose outside is a meta tensor with another device written on it, so that shapes, strides
  and autograd are torch's own, and every operation below autograd comes to ``__torch_dispatch__``;
- Python is told cuda:0, and torch's own C++ the numbered meta device, which nobody else speaks of: told cuda,
  autograd would look for CUDA's queues, of which there are none;
- a mode of the key FAKE, for calls that no such tensor takes part in yet (``torch.zeros(3, device="cuda")``); with any
  other key torch begins by starting CUDA, and fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
INSIDE = torch.device("meta", 0)  # what torch's own C++ is told, which asks by ``prim.device``
aten = torch.ops.aten
# Moves numbers between devices; the only operations that may.
MOVES = {aten._to_copy, aten.copy_, aten.copy}
# Takes an index that lies on the CPU, and brings it over itself.
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_}
# Gives numbers to Python.
READS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.is_same_size}
# Takes a single number from the CPU although it is no pointwise operation.
TAKES_A_NUMBER = {aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_, aten.index_fill, aten.index_fill_}
NOT_NUMPY = (
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
)


class GPUTensor(Tensor):
    """A tensor on the emulated device: `numbers` are on the CPU, and nobody else sees them."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # results are wrapped below, and only those that must

    @staticmethod
    def __new__(cls, numbers: Tensor, requires_grad: bool = False) -> GPUTensor:
        with _disable_current_modes():
            outside = torch.empty_strided(numbers.size(), numbers.stride(), dtype=numbers.dtype, device="meta")
        made = Tensor._make_subclass(cls, outside, requires_grad, dispatch_device=True, device_for_backend_keys=CUDA)
        made.numbers = numbers
        return made

    def __init__(self, numbers: Tensor, requires_grad: bool = False) -> None: ...

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"GPUTensor({self.numbers!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> GPUTensor:
        if id(self) not in memo:
            copied: Any = type(self)(self.numbers.detach().clone(), self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied.detach(), self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.numbers.detach().__reduce_ex__(protocol)  # a file holds the numbers; its reader says where they go

    def tolist(self) -> Any:
        return self.numbers.detach().tolist()

    def numpy(self, **options: object) -> Any:
        raise TypeError(NOT_NUMPY)

    def __array__(self, dtype: object = None) -> Any:
        raise TypeError(NOT_NUMPY)


class EmulatedGPU(TorchDispatchMode):
    """Within it "cuda" is a device, for tensors and networks, on a machine that has none."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __enter__(self) -> EmulatedGPU:
        with contextlib.ExitStack() as settings:
            # network.to(device) otherwise keeps its parameters, and exchanges what they hold for more of its kind only.
            overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
            settings.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
            torch.__future__.set_overwrite_module_params_on_conversion(True)
            # torch.tensor([1, 2], device="cuda") otherwise starts CUDA before it makes anything.
            settings.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
            torch._C._set_only_lift_cpu_tensors(True)
            # torch.random.fork_rng asks for the state of the GPU's own source of numbers: here the CPU's.
            for name, own in (("get_rng_state", _get_state), ("set_rng_state", _set_state)):
                settings.enter_context(mock.patch.object(torch.cuda, name, own))
            super().__enter__()
            self._settings = settings.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._settings.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def _get_state(device: object = "cuda") -> Tensor:
    return torch.get_rng_state()


def _set_state(state: Tensor, device: object = "cuda") -> None:
    torch.set_rng_state(state)


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One operation of torch: refused where a GPU would, else computed on the CPU and given back where it belongs."""
    if func is torch.ops.prim.device.default:
        return INSIDE
    packet = func.overloadpacket
    if packet is aten._fused_sdp_choice:  # attention by plain products: the fused kernels of a GPU are not here
        return 0
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    place = CUDA if kwargs.get("device") == INSIDE else kwargs.get("device")
    refuse(func, args, kwargs, tensors, place)
    there = any(isinstance(t, GPUTensor) for t in tensors)
    if packet is aten._to_copy or place is not None:
        there = isinstance(args[0], GPUTensor) if place is None else torch.device(place).type == "cuda"
    inside = {**kwargs, "device": torch.device("cpu")} if place is not None and there else dict(kwargs)
    inside |= {"pin_memory": False} if inside.get("pin_memory") else {}
    with _disable_current_modes():
        result = func(*tree_map(held, tuple(args)), **tree_map(held, inside))
    if packet in READS:
        return result
    if written := changed(func, args, kwargs):  # into tensors that were given: those come back, and not new ones
        if torch.Tag.inplace_view in func.tags and there:  # squeeze_: the outside changes its shape too
            with torch._C._DisableTorchDispatch():
                func(*args, **kwargs)
        for tensor in written:
            if isinstance(tensor, GPUTensor) and tensor.numbers.shape != tensor.shape:
                raise RuntimeError(f"{func} changes the shape of a tensor in place, which is not emulated")
        return written[0] if len(func._schema.returns) == 1 else tuple(written)
    return tree_map(lambda t: GPUTensor(t) if isinstance(t, Tensor) and there else t, result)


def held(value: Any) -> Any:
    """What is computed with."""
    return value.numbers if isinstance(value, GPUTensor) else value


def changed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operation gives back, written into: of ``x.add_(y)`` and ``torch.add(x, y, out=z)``."""
    back = {alias for r in func._schema.returns if r.alias_info and r.alias_info.is_write for alias in names(r)}
    found = []
    for k, argument in enumerate(func._schema.arguments):
        if argument.alias_info and argument.alias_info.is_write and names(argument) & back:
            found.append(args[k] if k < len(args) else kwargs[argument.name])
    return found


def names(argument: Any) -> set[str]:
    """Those under which a schema says what shares memory with what."""
    return set(argument.alias_info.before_set)


def refuse(func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Tensor], place: Any) -> None:
    """Raise RuntimeError for what a GPU refuses."""
    there = any(isinstance(t, GPUTensor) for t in tensors)
    on_gpu = torch.device(place).type == "cuda" if place is not None else there
    generator = kwargs.get("generator") or next((a for a in args if isinstance(a, torch.Generator)), None)
    if generator is not None and on_gpu:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({func})")
    packet = func.overloadpacket
    if not there or packet in MOVES:
        return
    elsewhere = [t for t in tensors if not isinstance(t, GPUTensor)]
    if packet in INDEXING:
        if not isinstance(args[0], GPUTensor):
            raise RuntimeError(f"indices should be on the same device as the indexed tensor (cpu) ({func})")
        elsewhere = [t for t in args[2:3] if isinstance(t, Tensor) and not isinstance(t, GPUTensor)]
    # A number is let through: pointwise operations of a GPU take one, unless the result would lie on the CPU.
    number = torch.Tag.pointwise in func.tags or packet in TAKES_A_NUMBER or packet in INDEXING
    target = next(iter(changed(func, args, kwargs)), None)
    refused = [t for t in elsewhere if t.ndim or not number or t is target]
    if refused:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}, shapes on the CPU: {[tuple(t.shape) for t in refused]})"
        )

"""Arguments checked before anything is done with them: errors that name the argument, what came and what is taken.

What is of the wrong kind is a TypeError, what is out of range a ValueError. ``name`` is the argument's, for the
message; each check gives the value back, numbers of numpy as Python's.
"""

from __future__ import annotations

import importlib
import math
import numbers
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 2**63 - 1  # that torch holds


def choice(name: str, value: Any, among: Collection[Any]) -> Any:
    """One of a few words, or of a few integers; True is not 1."""
    known_kind = isinstance(value, tuple({type(one) for one in among})) and not isinstance(value, bool)
    if known_kind and value in among:
        return value
    raise (ValueError if known_kind else TypeError)(
        f"{name} must be one of {', '.join(map(repr, among))}, got {shown(value)}"
    )


def integer(name: str, value: Any, least: int, most: int = LARGEST) -> int:
    """An integer in a range, ends included; True, False and 2.0 are none."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if whole and least <= value <= most:
        return int(value)
    wanted = f"from {least} to {most}" if most < LARGEST or (whole and value > most) else f">= {least}"
    raise (ValueError if whole else TypeError)(f"{name} must be an integer {wanted}, got {shown(value)}")


def event_shape(name: str, value: Any, least: int = 0) -> tuple[int, ...]:
    """Shape of one sample: a sequence of integers, none of them below ``least``."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of integers, got {shown(value)}")
    return tuple(integer(name, size, least) for size in value)


def number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """A finite real number that a float can hold, with least <= value <= most and above < value < below."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if real:
        try:
            got = float(value)
        except OverflowError:
            got = math.inf
        if math.isfinite(got) and least <= got <= most and above < got < below:
            return got
    ends = ((">", above), (">=", least), ("<=", most), ("<", below))
    wanted = " and ".join(f"{sign} {end:g}" for sign, end in ends if math.isfinite(end))
    raise (ValueError if real else TypeError)(
        f"{name} must be a finite number {wanted}".rstrip() + f", got {shown(value)}"
    )


def scalar(name: str, value: Any, **limits: float) -> float:
    """A `number`, also as a tensor of one."""
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_meta and not value.is_complex():
        value = value.item()
    return number(name, value, **limits)


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {shown(value)}")


def text(name: str, value: Any) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    raise TypeError(f"{name} must be a string, got {shown(value)}")


def path(name: str, value: Any) -> Path:
    """A path, from a string too; ``~`` at its beginning is the home directory, as a shell has it."""
    expanded = os.path.expanduser(os.fspath(value)) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(expanded, str):
        raise TypeError(f"{name} must be a path, got {shown(value)}")
    if expanded == "~" or expanded.startswith("~/"):  # never a folder of that name
        raise ValueError(f"{name} must not begin with ~ for a user without a home directory, got {expanded!r}")
    return Path(expanded)


def real_tensor(name: str, value: Any, shape: str = "") -> Tensor:
    """A dense tensor of finite floating-point numbers that are in memory; ``shape`` is said, and not checked, here."""
    wanted = f"a floating-point tensor {shape}".rstrip()
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}")
    if value.is_meta or value.layout != torch.strided:
        raise TypeError(f"{name} must be {wanted} with its numbers in memory, got {shown(value)}")
    if not is_finite(value):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return value


def finite(name: str, value: Any) -> Tensor:
    """A dense tensor of finite real numbers that are in memory, of one at least; integers too."""
    if not isinstance(value, Tensor) or value.is_complex() or value.is_meta or value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor of real numbers, got {shown(value)}")
    if not is_finite(value) or not value.numel():
        raise ValueError(f"{name} must be a tensor of finite numbers, got {shown(value)}")
    return value


def is_finite(value: Tensor) -> bool:
    """Whether every number of a tensor is finite; a sum that is tells so without a copy."""
    value = value.detach()
    try:
        return bool(value.sum().isfinite()) or bool(value.isfinite().all())
    except RuntimeError:
        if value.is_meta:
            raise
        return True  # inside torch.func.vmap nobody may look at values


def anywhere(mask: Tensor) -> bool:
    """Whether a mask is True anywhere; not inside torch.func.vmap, where nobody may look at values."""
    try:
        return bool(mask.any())
    except RuntimeError:
        if mask.is_meta:
            raise
        return False


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether values are equal pair by pair: tensors where their types, places and numbers are."""

    def alike(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape) and torch.equal(a, b)
        return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)

    return len(one) == len(other) and all(map(alike, one, other))


def squarable(name: str, value: Tensor) -> Tensor:
    """Finite numbers, not empty, whose squares have a finite sum in double precision."""
    low, high = map(float, torch.aminmax(value.detach()))  # unlike abs(), this copies nothing
    most = max(abs(low), abs(high))
    if not math.isfinite(most * most * value.numel()):
        raise ValueError(f"{name} must be finite, and so must the sum of its squares; got numbers up to {most:.3g}")
    return value


def batch(name: str, value: Any) -> Tensor:
    """A batch (B, *event) of finite floating-point numbers, of one sample at least."""
    x = real_tensor(name, value, "(B, *event)")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (B, *event) with at least one sample, got {tuple(x.shape)}")
    return x


def level(
    name: str, value: Any, x: Tensor, zero: bool = False, dtype: torch.dtype | None = None, read: bool = True
) -> Tensor:
    """A noise level for a batch x (B, *event) that is a tensor already: > 0, or 0 too where ``zero``.

    Given as a number, 0-d or (B,), back as (1 or B, 1, …), to multiply x, on its device. The square must be a number of
    ``dtype``, that of x by default, too. ``read=False`` does not look into a tensor: it is traced, or far away.
    """
    if read and x.is_meta:
        raise TypeError(f"x must be a tensor with its numbers in memory, got {shown(x)}")
    dtype = dtype or x.dtype
    if not isinstance(value, Tensor):
        limit = {"least": 0.0} if zero else {"above": 0.0}
        levels = torch.full((1,), number(name, value, **limit), dtype=dtype, device=x.device)
    elif value.ndim > 1 or value.numel() not in (1, len(x)):
        raise ValueError(f"{name} must be a number, 0-d or ({len(x)},), got shape {tuple(value.shape)}")
    else:
        known = value if value.is_meta and x.is_meta else as_real(name, value)
        levels = known.to(x.device, dtype).reshape(-1)
    limits = torch.finfo(dtype)
    least, most = limits.tiny**0.5, limits.max**0.5
    if read and not bool((((levels == 0) & zero) | ((levels >= least) & (levels <= most))).all()):
        kind, also = ("finite and >= 0", ", or 0") if zero else ("positive and finite", "")
        got = levels.tolist() if isinstance(value, Tensor) and value.numel() < 10 else shown(value)
        raise ValueError(
            f"{name} must be {kind}, its square a number of {dtype} (from {least:.2g} to {most:.2g}{also}), got {got}"
        )
    return levels.reshape(-1, *[1] * (x.ndim - 1))


def torch_array(value: Any) -> Any:
    """An array of numpy as torch can read it, copied where its strides are negative; anything else as it is."""
    return np.asarray(value, order="C") if isinstance(value, np.ndarray) else value


def as_real(name: str, value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of real numbers from a tensor, an array or nested lists; ``dtype`` is for what is not a tensor."""
    try:
        out = value if isinstance(value, Tensor) else torch.as_tensor(torch_array(value), dtype=dtype)
        if out.is_complex() or out.dtype == torch.bool or out.is_meta or out.layout != torch.strided:
            raise TypeError
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{name} must be a tensor or nested lists of real numbers, got {shown(value)}") from None
    return out


def class_labels(name: str, value: Any, size: int, device: torch.device) -> Tensor:
    """Integers (size,) >= 0, as int64."""
    wanted = f"{name} must be ({size},) integers >= 0"
    try:
        out = torch.as_tensor(torch_array(value), device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{wanted}, got {shown(value)}") from None
    whole = not (out.is_floating_point() or out.is_complex() or out.dtype == torch.bool)
    if not whole or out.is_meta or out.layout != torch.strided or out.shape != (size,) or bool((out < 0).any()):
        raise ValueError(f"{wanted}, got {shown(value)}")
    return out.long()


def generator(name: str, value: Any) -> torch.Generator | None:
    """A source of random numbers, or None for torch's own."""
    if value is None or isinstance(value, torch.Generator):
        return value
    raise TypeError(f"{name} must be a torch.Generator or None, got {shown(value)}")


def device(name: str, value: Any) -> torch.device | None:
    """A device, from its name too; None stays None."""
    if value is None or isinstance(value, torch.device):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a torch.device or the name of one, got {shown(value)}")
    try:
        return torch.device(value)
    except RuntimeError:
        raise ValueError(f"{name} must be the name of a device, such as 'cpu' or 'cuda', got {value!r}") from None


def floating_dtype(name: str, value: Any) -> torch.dtype | None:
    """A floating-point dtype; None stays None."""
    if value is None or (isinstance(value, torch.dtype) and value.is_floating_point):
        return value
    wrong = ValueError if isinstance(value, torch.dtype) else TypeError
    raise wrong(f"{name} must be a floating-point dtype of torch, got {shown(value)}")


def function(name: str, value: Any, form: str) -> None:
    """Something to call; ``form`` says how it is called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable as {form}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value in a few words, however large it is."""
    if isinstance(value, Tensor):
        layout = "" if value.layout == torch.strided else f" {str(value.layout).removeprefix('torch.')}"
        return f"a{layout} tensor of {value.dtype}, shape {tuple(value.shape)}, on {value.device}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "an integer of more than 30 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}..."


def installed(module: str, purpose: str, extra: str = "course") -> Any:
    """A module that only an extra of teachkit brings; a ModuleNotFoundError that says what to install without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ModuleNotFoundError(
            f"{purpose} needs {package}: pip install 'teachkit[{extra}]' ({error})", name=package
        ) from None

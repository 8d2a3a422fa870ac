"""Arguments checked before anything is done with them: errors that name the argument, what came and what is taken.

What is of the wrong kind is a TypeError, what is out of range a ValueError. ``name`` is the argument's, for the
message; each check gives the value back, numbers of numpy as Python's.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 2**63 - 1  # that torch holds


def choice(name: str, value: Any, among: Collection[str]) -> str:
    """One of a few words."""
    word = isinstance(value, str)
    if word and value in among:
        return value
    raise (ValueError if word else TypeError)(
        f"{name} must be one of {', '.join(map(repr, among))}, got {shown(value)}"
    )


def integer(name: str, value: Any, least: int, most: int = LARGEST) -> int:
    """An integer in a range, ends included; True, False and 2.0 are none."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if whole and least <= value <= most:
        return int(value)
    wanted = f"from {least} to {most}" if most < LARGEST or (whole and value > most) else f">= {least}"
    raise (ValueError if whole else TypeError)(f"{name} must be an integer {wanted}, got {shown(value)}")


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


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {shown(value)}")


def real_tensor(name: str, value: Any, shape: str = "") -> Tensor:
    """A dense tensor of finite floating-point numbers that are in memory; ``shape`` is said, and not checked, here."""
    wanted = f"a floating-point tensor {shape}".rstrip()
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}")
    if value.is_meta or value.layout != torch.strided:
        raise TypeError(f"{name} must be {wanted} with its numbers in memory, got {shown(value)}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return value


def shown(value: Any) -> str:
    """A value in a few words, however large it is."""
    if isinstance(value, Tensor):
        layout = "" if value.layout == torch.strided else f" {str(value.layout).removeprefix('torch.')}"
        return f"a{layout} tensor of {value.dtype}, shape {tuple(value.shape)}, on {value.device}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "an integer of more than 30 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}..."

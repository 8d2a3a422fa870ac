"""Arguments checked before anything is done with them: errors that name the argument, what came and what is taken."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

__all__ = ["choice", "flag", "integer", "number", "real_tensor"]

LARGEST_COUNT = 10**9


def choice(name: str, value: Any, among: Collection[str]) -> str:
    """One of a few words.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : Any
        What came.
    among : collection of str
        What is taken.

    Returns
    -------
    str
        The value.

    Raises
    ------
    TypeError
        No word.
    ValueError
        Another word.
    """
    if isinstance(value, str) and value in among:
        return value
    wanted = ", ".join(repr(each) for each in among)
    raise (ValueError if isinstance(value, str) else TypeError)(f"{name} must be one of {wanted}, got {shown(value)}")


def integer(name: str, value: Any, least: int, most: int = LARGEST_COUNT) -> int:
    """An integer of Python or numpy, as Python's.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : Any
        What came.
    least, most : int
        The range taken, ends included; by default up to a billion.

    Returns
    -------
    int
        The value.

    Raises
    ------
    TypeError
        No integer; True and False are none here, nor is 2.0.
    ValueError
        Out of range.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if whole and least <= value <= most:
        return int(value)
    wanted = f">= {least}" if most >= LARGEST_COUNT else f"from {least} to {most}"
    raise (ValueError if whole else TypeError)(f"{name} must be an integer {wanted}, got {shown(value)}")


def number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """A finite real number of Python or numpy, as a float.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : Any
        What came.
    least, most : float
        The range taken, ends included.
    above, below : float
        The range taken, ends not included.

    Returns
    -------
    float
        The value.

    Raises
    ------
    TypeError
        No number: a tensor, a word, True or False.
    ValueError
        Out of range, NaN, infinity, or more than a float can hold.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if real:
        try:
            got = float(value)
        except OverflowError:
            got = math.inf
        if math.isfinite(got) and least <= got <= most and above < got < below:
            return got
    ends = [f"> {above:g}"] * (above > -math.inf) + [f">= {least:g}"] * (least > -math.inf)
    ends += [f"<= {most:g}"] * (most < math.inf) + [f"< {below:g}"] * (below < math.inf)
    wanted = " ".join(["a finite number", " and ".join(ends)]).rstrip()
    raise (ValueError if real else TypeError)(f"{name} must be {wanted}, got {shown(value)}")


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : Any
        What came.

    Returns
    -------
    bool
        The value.

    Raises
    ------
    TypeError
        For anything else.
    """
    if isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be True or False, got {shown(value)}")


def real_tensor(name: str, value: Any, shape: str = "") -> Tensor:
    """A dense tensor of finite floating-point numbers that are really there (no meta device).

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : Any
        What came.
    shape : str, optional
        The shape that is taken, for the message only: ``"(B, *event)"``.

    Returns
    -------
    Tensor
        The value itself.

    Raises
    ------
    TypeError
        No tensor, or one that holds no real numbers.
    ValueError
        NaN or infinity in it.
    """
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

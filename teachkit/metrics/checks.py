"""Checked arguments of the metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import is_finite, shown, squarable
from teachkit.denoisers import default_dtype


def finite(name: str, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    if not isinstance(value, Tensor) or value.is_complex() or value.is_meta or value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor of real numbers, got {shown(value)}")
    if not is_finite(value) or not value.numel():
        raise ValueError(f"{name} must be a tensor of finite numbers, got {shown(value)}")
    if value.is_floating_point():
        squarable(name, value)
    return value.to(dtype or default_dtype(value.device))


def checked_features(name: str, value: Tensor, least: int) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.ndim != 2 or len(value) < least or value.shape[1] < 1:
        raise ValueError(f"{name} must have shape (N, F) with N >= {least}, got {tuple(value.shape)}")
    return finite(name, value.detach())


def checked_pair(a: Tensor, b: Tensor, least: int, names: tuple[str, str] = ("a", "b")) -> tuple[Tensor, Tensor]:
    """Both as ``(N, d)`` in float64 (float32 on devices without it)."""
    for name, value in zip(names, (a, b)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.ndim < 2 or len(value) < least or value.numel() == 0:
            raise ValueError(f"{name} must have shape (N, *event) with N >= {least}, got {tuple(value.shape)}")
    if a.shape[1:] != b.shape[1:] or a.device != b.device:
        raise ValueError(
            f"{' and '.join(names)} must agree in event shape and device, got {tuple(a.shape[1:])} on {a.device} and "
            f"{tuple(b.shape[1:])} on {b.device}"
        )
    return finite(names[0], a.detach()).flatten(1), finite(names[1], b.detach()).flatten(1)

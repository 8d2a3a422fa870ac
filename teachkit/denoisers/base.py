"""What every closed-form denoiser shares: the interface, checks of the input, the score by Tweedie's identity.

A subclass of `DenoiserModule` gives E[x0 | x] and log p_sigma(x) on flat vectors; the score
(D(x; sigma) - x) / sigma^2 follows (Robbins 1956; Efron 2011). Taught in ``notebooks/01_noise_and_denoising``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Denoiser(Protocol):
    """Anything that maps (noisy x, noise level, labels) to E[x0 | x]."""

    def __call__(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor: ...


def default_dtype(device: torch.device | str | None = None) -> torch.dtype:
    """float64, or float32 on devices that have no float64 (Apple MPS).

    Parameters
    ----------
    device : device or str, optional
        The CPU by default.

    Returns
    -------
    torch.dtype
        What closed forms and geometry are computed in.
    """
    return torch.float32 if device is not None and torch.device(device).type == "mps" else torch.float64


class DenoiserModule(nn.Module):
    """Base of the closed-form denoisers: input checks, flattening, Tweedie.

    Subclasses give ``_denoise(x, sigma, labels)`` and ``_log_prob(x, sigma, labels)`` on flat ``(B, d)`` input with
    sigma as ``(B, 1)`` or ``(1, 1)``.
    """

    event_shape: tuple[int, ...]
    num_classes: int | None = None

    @property
    def dim(self) -> int:
        """Number of values in one sample."""
        return math.prod(self.event_shape)

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x0 | x]: ``(B, *event)`` to ``(B, *event)``. Raises ValueError or TypeError on bad input."""
        flat, s = self._check(x, sigma)
        return self._denoise(flat, s, self._check_labels(labels, len(flat))).reshape(x.shape)

    def log_prob(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """log p_sigma(x), the log density of the data blurred by noise of level sigma: ``(B,)``, in nats."""
        flat, s = self._check(x, sigma)
        return self._log_prob(flat, s, self._check_labels(labels, len(flat)))

    def score(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """grad_x log p_sigma(x) by Tweedie's identity: (D(x; sigma) - x) / sigma^2, ``(B, *event)``; sigma > 0."""
        denoised = self(x, sigma, labels)
        s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if not (s > 0).all():
            raise ValueError("sigma must be > 0: Tweedie's identity divides by sigma^2")
        return (denoised - x) / s.reshape(-1, *[1] * (x.ndim - 1)) ** 2

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples of clean data: ``(n, *event)``."""
        raise TypeError(f"{type(self).__name__} cannot be sampled")

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define _denoise")

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no density")

    def _check(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Validate and return x as (B, d) and sigma as (B, 1) or (1, 1)."""
        own = next(self.buffers())
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor of shape (B, {shape_text(self.event_shape)}), got {type(x).__name__}")
        if x.ndim != 1 + len(self.event_shape) or x.shape[1:] != self.event_shape:
            raise ValueError(f"x must have shape (B, {shape_text(self.event_shape)}), got {tuple(x.shape)}")
        if x.dtype != own.dtype:
            raise ValueError(
                f"x is {x.dtype} but this {type(self).__name__} holds {own.dtype}; convert one of them, "
                f"for example with .to({own.dtype})"
            )
        if x.device != own.device:
            raise ValueError(f"x is on {x.device} but this {type(self).__name__} is on {own.device}; move one of them")
        return x.flatten(1), check_sigma(sigma, x).reshape(-1, 1)

    def _check_labels(self, labels: Tensor | None, batch: int) -> Tensor | None:
        if labels is None:
            return None
        if self.num_classes is None:
            raise ValueError(f"labels were given but this {type(self).__name__} has no classes")
        labels = torch.as_tensor(labels, device=next(self.buffers()).device)
        if not integral(labels) or labels.shape != (batch,):
            raise ValueError(f"labels must be ({batch},) integers, got {tuple(labels.shape)} {labels.dtype}")
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < self.num_classes):
            raise ValueError(f"labels must lie in [0, {self.num_classes - 1}], got {labels.tolist()}")
        return labels.long()


def check_sigma(sigma: float | Tensor, x: Tensor) -> Tensor:
    """Validate a noise level against a batch.

    Parameters
    ----------
    sigma : float, 0-d or (B,)
        Noise level.
    x : (B, *event)
        The batch it goes with.

    Returns
    -------
    Tensor
        ``(1,)`` or ``(B,)``, with dtype and device of x.
    """
    if not isinstance(sigma, (int, float, Tensor)) or isinstance(sigma, bool):
        raise TypeError(f"sigma must be a number or a tensor, got {type(sigma).__name__}")
    # The dtype matters: as_tensor(0.3) alone would round to float32.
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
    if isinstance(sigma, Tensor) and (sigma.ndim > 1 or len(s) not in (1, len(x))):
        raise ValueError(f"sigma must be a number, 0-d or ({len(x)},), got shape {tuple(sigma.shape)}")
    if not (torch.isfinite(s).all() and (s >= 0).all()):
        raise ValueError(f"sigma must be finite and >= 0, got {sigma!r}")
    return s


def integral(labels: Tensor) -> bool:
    return not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)


def floating(value: Tensor | Sequence[Any] | float, name: str, like: Tensor | None = None) -> Tensor:
    """A finite floating-point tensor: as given, or float64 from Python numbers and integers."""
    try:  # the dtype matters: as_tensor(0.3) alone would round to float32
        dtype = None if isinstance(value, Tensor) else default_dtype(None if like is None else like.device)
        out = torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a tensor or nested lists of numbers, got {type(value).__name__}") from error
    if like is not None:
        if isinstance(value, Tensor) and out.is_floating_point() and out.dtype != like.dtype:
            raise ValueError(f"{name} is {out.dtype} but must have one dtype with the means, {like.dtype}")
        if isinstance(value, Tensor) and out.device != like.device:
            raise ValueError(f"{name} is on {out.device} but must be on the device of the means, {like.device}")
        out = out.to(like)
    elif not out.is_floating_point():
        out = out.to(default_dtype(out.device))
    if not torch.isfinite(out).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return out


def check_data(data: Tensor) -> Tensor:
    """A non-empty, finite floating-point data set (N, *event)."""
    y = floating(data, "data")
    if y.ndim < 2 or y.numel() == 0:
        raise ValueError(f"data must have shape (N, *event) with at least one sample, got {tuple(y.shape)}")
    return y


def shape_text(event: tuple[int, ...]) -> str:
    return ", ".join(map(str, event))

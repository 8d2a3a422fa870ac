"""What every closed-form denoiser shares: the interface, checks of the input, the score by Tweedie's identity.

A subclass of `DenoiserModule` gives E[x0 | x] and log p_sigma(x) on flat vectors; the score
(D(x; sigma) - x) / sigma^2 follows (Robbins 1956; Efron 2011). Taught in ``notebooks/01_noise_and_denoising``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from teachkit import checks


class Denoiser(Protocol):
    """Anything that maps (noisy x, noise level, labels) to E[x0 | x]; what labels are is its own affair."""

    def __call__(self, x: Tensor, sigma: float | Tensor, labels: Any = None) -> Tensor: ...


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

    Raises
    ------
    ValueError, TypeError
        For what is not a device or the name of one.

    Examples
    --------
    >>> default_dtype(), default_dtype("mps")
    (torch.float64, torch.float32)
    """
    chosen = checks.device("device", device)
    return torch.float32 if chosen is not None and chosen.type == "mps" else torch.float64


class DenoiserModule(nn.Module, ABC):
    """Base of the closed-form denoisers: input checks, flattening, and the score by Tweedie's identity.

    A subclass sets ``event_shape``, holds at least one buffer, whose dtype and device x must have, and gives
    ``_denoise(x, sigma, labels)`` (B, d) and ``_log_prob(x, sigma, labels)`` (B,) for flat x (B, d) and sigma (B, 1) or
    (1, 1). With ``num_classes`` it also takes labels, (B,) integers, or None.

    Examples
    --------
    >>> class Point(DenoiserModule):  # all data at one point
    ...     event_shape = (2,)
    ...
    ...     def __init__(self, point):
    ...         super().__init__()
    ...         self.register_buffer("point", point)
    ...
    ...     def _denoise(self, x, sigma, labels):
    ...         return self.point.expand_as(x)
    ...
    ...     def _log_prob(self, x, sigma, labels):
    ...         return torch.distributions.Normal(self.point, sigma).log_prob(x).sum(1)
    >>> Point(torch.zeros(2)).score(torch.ones(1, 2), 0.5).tolist()
    [[-4.0, -4.0]]
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
        return finite(self._denoise(flat, s, self._check_labels(labels, len(flat))), x).reshape(x.shape)

    def log_prob(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """log p_sigma(x), the log density of the data blurred by noise of level sigma: ``(B,)``, in nats."""
        flat, s = self._check(x, sigma)
        return finite(self._log_prob(flat, s, self._check_labels(labels, len(flat))), x)

    def score(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """grad_x log p_sigma(x) by Tweedie's identity: (D(x; sigma) - x) / sigma^2, ``(B, *event)``; sigma > 0."""
        denoised, s = self(x, sigma, labels), checks.level("sigma", sigma, x, zero=True)
        if not (s > 0).all():
            raise ValueError("sigma must be > 0: Tweedie's identity divides by sigma^2")
        return finite((denoised - x) / s**2, x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples of clean data: ``(n, *event)``; ``generator`` may lie on the CPU or beside the data."""
        raise TypeError(f"{type(self).__name__} cannot be sampled")

    @abstractmethod
    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor: ...

    def _check(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Validate and return x as (B, d) and sigma as (B, 1) or (1, 1)."""
        own, shape = next(self.buffers()), f"(B, {', '.join(map(str, self.event_shape))})"
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor of shape {shape}, got {type(x).__name__}")
        if x.ndim != 1 + len(self.event_shape) or x.shape[1:] != self.event_shape:
            raise ValueError(f"x must have shape {shape}, got {tuple(x.shape)}")
        if x.dtype != own.dtype:
            raise ValueError(
                f"x is {x.dtype} but this {type(self).__name__} holds {own.dtype}; convert one of them, "
                f"for example with .to({own.dtype})"
            )
        if x.device != own.device:
            raise ValueError(f"x is on {x.device} but this {type(self).__name__} is on {own.device}; move one of them")
        return x.flatten(1), checks.level("sigma", sigma, x, zero=True).reshape(-1, 1)

    def _check_labels(self, labels: Tensor | None, batch: int) -> Tensor | None:
        if labels is None:
            return None
        if self.num_classes is None:
            raise ValueError(f"labels were given but this {type(self).__name__} has no classes")
        labels = checks.class_labels("labels", labels, batch, next(self.buffers()).device)
        if batch and int(labels.max()) >= self.num_classes:
            raise ValueError(f"labels must lie in [0, {self.num_classes - 1}], got {labels.tolist()}")
        return labels


def finite(result: Tensor, x: Tensor) -> Tensor:
    """``result`` itself, unless it holds NaN or infinity: then what is wrong with x."""
    if checks.is_finite(result):
        return result
    checks.real_tensor("x", x)
    raise ValueError(
        f"x must be near enough for its squared distance to the data, over sigma^2, to be a {x.dtype}, got values up "
        f"to {float(x.detach().abs().max()):.3g}"
    )


def drawing_device(generator: torch.Generator | None, own: Tensor) -> torch.device:
    """Where random numbers are drawn before they go to a denoiser: one generator on the CPU does for any device."""
    return own.device if generator is None else generator.device


def floating(
    value: Tensor | Sequence[Any] | float, name: str, like: Tensor | None = None, whose: str = "the means"
) -> Tensor:
    """A finite floating-point tensor: as given, or float64 from Python numbers and integers."""
    if like is not None and isinstance(value, Tensor) and value.device != like.device:
        raise ValueError(f"{name} is on {value.device} but must be on the device of {whose}, {like.device}")
    # The dtype matters: as_tensor(0.3) alone would round to float32.
    out = checks.as_real(name, value, default_dtype(None if like is None else like.device))
    if like is not None:
        if isinstance(value, Tensor) and out.is_floating_point() and out.dtype != like.dtype:
            raise ValueError(f"{name} is {out.dtype} but must have one dtype with {whose}, {like.dtype}")
        out = out.to(like)
    elif not out.is_floating_point():
        out = out.to(default_dtype(out.device))
    return checks.real_tensor(name, out)


def check_data(data: Tensor) -> Tensor:
    """A non-empty, finite floating-point data set (N, *event)."""
    y = floating(data, "data")
    if y.ndim < 2 or y.numel() == 0:
        raise ValueError(f"data must have shape (N, *event) with at least one sample, got {tuple(y.shape)}")
    if not bool((torch.linalg.vector_norm(y) ** 2).isfinite()):
        raise ValueError(f"data must have squares that are numbers of {y.dtype}, got values up to {y.abs().max():.3g}")
    return y

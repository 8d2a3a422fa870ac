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

from teachkit import checks


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
    chosen = checks.device("device", device)
    return torch.float32 if chosen is not None and chosen.type == "mps" else torch.float64


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
        return finite(self._denoise(flat, s, self._check_labels(labels, len(flat))), x).reshape(x.shape)

    def log_prob(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """log p_sigma(x), the log density of the data blurred by noise of level sigma: ``(B,)``, in nats."""
        flat, s = self._check(x, sigma)
        return finite(self._log_prob(flat, s, self._check_labels(labels, len(flat))), x)

    def score(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """grad_x log p_sigma(x) by Tweedie's identity: (D(x; sigma) - x) / sigma^2, ``(B, *event)``; sigma > 0."""
        denoised = self(x, sigma, labels)
        s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if not (s > 0).all():
            raise ValueError("sigma must be > 0: Tweedie's identity divides by sigma^2")
        return finite((denoised - x) / s.reshape(-1, *[1] * (x.ndim - 1)) ** 2, x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples of clean data: ``(n, *event)``; ``generator`` may lie on the CPU or beside the data."""
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
        labels = checks.class_labels("labels", labels, batch, next(self.buffers()).device)
        if batch and int(labels.max()) >= self.num_classes:
            raise ValueError(f"labels must lie in [0, {self.num_classes - 1}], got {labels.tolist()}")
        return labels


class MixtureModule(DenoiserModule):
    """Base of the mixtures of K Gaussians: posterior probabilities of the components, also where x is far from all.

    Subclasses give ``_terms(x, sigma)``, the quadratic forms (B, K), the log determinants (B or 1, K) and a posterior
    mean of each component beside its own mean, and ``_beside(x, sigma, near)``, in double precision the differences of
    the quadratic forms from that of component ``near`` (B,), and that one.
    """

    weights: Tensor  # (K,)

    def _terms(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise TypeError(f"{type(self).__name__} must define _terms")

    def _beside(self, x: Tensor, sigma: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        raise TypeError(f"{type(self).__name__} must define _beside")

    def _components(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Joint log densities (B, K) less a number for each row, that number (B,), and the means of `_terms`."""
        quadratic, log_det, shrunk = self._terms(x, sigma)
        least, near = quadratic.detach().min(1)
        common = torch.zeros_like(quadratic[:, 0])
        # Where all are so large that their rounding counts, they are compared instead of computed.
        error = 4 * torch.finfo(x.dtype).eps * least
        doubtful = (error > (1e-9 if x.dtype == torch.float64 else 1e-3)) & error.isfinite()
        if checks.anywhere(doubtful):
            own = sigma.expand(len(x), 1)[doubtful]
            beside, of_near = (part.to(x.dtype) for part in self._beside(x[doubtful], own, near[doubtful]))
            quadratic, common = quadratic.index_put((doubtful,), beside), common.index_put((doubtful,), of_near)
        log_joint = -0.5 * (quadratic + log_det + self.dim * math.log(2 * math.pi))
        if labels is None:
            log_joint = log_joint + self.weights.log()
        else:
            chosen = nn.functional.one_hot(labels, len(self.weights)).bool()
            log_joint = log_joint.masked_fill(~chosen, -math.inf)
        return log_joint, -0.5 * common, shrunk

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        log_joint, common, _ = self._components(x, sigma, labels)
        return log_joint.logsumexp(-1) + common

    def responsibilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of each component given x: ``(B, K)``, rows sum to 1."""
        flat, s = self._check(x, sigma)
        return finite(self._components(flat, s, None)[0].softmax(-1), x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` samples of clean data: ``(n, *event)``."""
        return self.sample_with_labels(n, generator)[0]

    def sample_with_labels(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw ``n`` samples ``(n, *event)`` and the component each came from ``(n,)``."""
        raise TypeError(f"{type(self).__name__} must define sample_with_labels")


def square_gap(a: Tensor, gap: Tensor, total: Tensor, other: Tensor) -> Tensor:
    """Sum over the last axis of (a + gap)^2 / total - a^2 / other, without forming the difference of the two squares.

    Parameters
    ----------
    a, gap, total, other : (..., e)
        Coordinates, how much further others are, and the variances of those and of these, > 0.

    Returns
    -------
    Tensor
        ``(...)``.
    """
    return (gap * (2 * a + gap) / total + a**2 * (other - total) / (total * other)).sum(-1)


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


def check_sigma(sigma: float | Tensor, x: Tensor, name: str = "sigma") -> Tensor:
    """Validate a noise level against a batch.

    Parameters
    ----------
    sigma : float, 0-d or (B,)
        Noise level.
        Its square must be a number of the dtype of x too, and above 0 unless it is 0 itself.
    x : (B, *event)
        The batch it goes with.
    name : str
        Of the level, for messages.

    Returns
    -------
    Tensor
        ``(1,)`` or ``(B,)``, with dtype and device of x.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.is_meta or x.ndim == 0:
        raise TypeError(f"x must be a floating-point tensor (B, *event) with its numbers, got {checks.shown(x)}")
    if isinstance(sigma, Tensor):
        if sigma.ndim > 1 or sigma.numel() not in (1, len(x)):
            raise ValueError(f"{name} must be a number, 0-d or ({len(x)},), got shape {tuple(sigma.shape)}")
        s = checks.as_real(name, sigma).to(x).reshape(-1)
    else:
        s = torch.full((1,), checks.number(name, sigma, least=0), dtype=x.dtype, device=x.device)
    limits = torch.finfo(x.dtype)
    least, most = limits.tiny**0.5, limits.max**0.5
    if not bool(((s == 0) | ((s >= least) & (s <= most))).all()):
        raise ValueError(
            f"{name} must be finite and >= 0, its square a number of {x.dtype} (from {least:.2g} to {most:.2g}, or 0), "
            f"got {checks.shown(sigma) if s.numel() > 9 else s.tolist()}"
        )
    return s


def floating(value: Tensor | Sequence[Any] | float, name: str, like: Tensor | None = None) -> Tensor:
    """A finite floating-point tensor: as given, or float64 from Python numbers and integers."""
    if like is not None and isinstance(value, Tensor) and value.device != like.device:
        raise ValueError(f"{name} is on {value.device} but must be on the device of the means, {like.device}")
    # The dtype matters: as_tensor(0.3) alone would round to float32.
    out = checks.as_real(name, value, default_dtype(None if like is None else like.device))
    if like is not None:
        if isinstance(value, Tensor) and out.is_floating_point() and out.dtype != like.dtype:
            raise ValueError(f"{name} is {out.dtype} but must have one dtype with the means, {like.dtype}")
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


def shape_text(event: tuple[int, ...]) -> str:
    return ", ".join(map(str, event))

"""The small parts that the U-Nets are built from: initialised layers, noise embeddings, resampling filters.

The two resampling filters of the papers, [1, 1] and [1, 3, 3, 1], are the box [1, 1] convolved with itself once and
three times.  Averaging over two neighbours, repeated, therefore *is* the filter, and no filter weights are stored::

    [1, 1] * [1, 1] * [1, 1] = [1, 3, 3, 1]

Taught in ``notebooks/09_training_edm.ipynb``.  References: Karras et al. 2022 (arXiv 2206.00364), Table 7 and
Appendix F.5; Song et al. 2021 (arXiv 2011.13456), Appendix H.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BOXES = {(1, 1): 1, (1, 3, 3, 1): 3}  # filter taps -> how many two-pixel boxes they are made of


@dataclass(frozen=True)
class Init:
    """How the weight and bias of a layer are drawn.

    Attributes
    ----------
    mode
        "xavier_uniform": bound sqrt(6 / (fan_in + fan_out)); "kaiming_uniform": bound sqrt(3 / fan_in);
        "kaiming_normal": standard deviation sqrt(1 / fan_in).
    weight, bias
        Factors on top of that; 0 gives zeros.
    """

    mode: Literal["xavier_uniform", "kaiming_uniform", "kaiming_normal"]
    weight: float = 1.0
    bias: float = 0.0

    def fill_(self, tensor: Tensor, factor: float, fan_in: int, fan_out: int) -> None:
        """Draw ``tensor`` in place from torch's default generator."""
        if tensor.is_meta:
            return
        if factor == 0:
            tensor.zero_()
        elif self.mode == "xavier_uniform":
            bound = factor * math.sqrt(6 / (fan_in + fan_out))
            tensor.uniform_(-bound, bound)
        elif self.mode == "kaiming_uniform":
            bound = factor * math.sqrt(3 / fan_in)
            tensor.uniform_(-bound, bound)
        else:
            tensor.normal_(0, factor * math.sqrt(1 / fan_in))


class Linear(nn.Linear):
    """Fully connected layer with the initialisation of its network."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, init: Init) -> None:
        self.init = init
        super().__init__(in_features, out_features, bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        fans = self.in_features, self.out_features
        self.init.fill_(self.weight, self.init.weight, *fans)
        if self.bias is not None:
            self.init.fill_(self.bias, self.init.bias, *fans)


class Conv2d(nn.Conv2d):
    """Convolution of odd size, by default keeping the resolution; its weight is stored ``channels_last``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        init: Init,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        self.init = init
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2 if padding is None else padding)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        self.weight = nn.Parameter(torch.empty_like(self.weight, memory_format=torch.channels_last))
        area = self.kernel_size[0] * self.kernel_size[1]
        fans = self.in_channels * area, self.out_channels * area
        self.init.fill_(self.weight, self.init.weight, *fans)
        if self.bias is not None:
            self.init.fill_(self.bias, self.init.bias, *fans)


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Group normalisation with at most 32 groups of at least 4 channels."""
    groups = min(32, channels // 4)
    if groups < 1 or channels % groups:
        raise ValueError(f"channels must be a multiple of 4, and of 32 from 128 on, to form groups; got {channels}")
    return nn.GroupNorm(groups, channels, eps)


class PositionalEmbedding(nn.Module):
    """Cosines and sines of c_noise at geometrically spaced frequencies from 1 down to 1/10000.

    Parameters
    ----------
    channels
        Length of the embedding, even.
    endpoint
        Whether the lowest frequency, 1/10000, is reached.
    sine_first
        Sines before cosines.

    References
    ----------
    Ho et al. 2020 (arXiv 2006.11239), after Vaswani et al. 2017.
    """

    def __init__(self, channels: int, *, endpoint: bool, sine_first: bool) -> None:
        super().__init__()
        if channels % 2 or channels < 4:
            raise ValueError(f"a noise embedding takes an even number of channels, at least 4, got {channels}")
        self.count, self.last, self.sine_first = channels // 2, channels // 2 - endpoint, sine_first

    def forward(self, c_noise: Tensor) -> Tensor:
        """Embed ``c_noise`` (B,) as (B, channels), in its dtype."""
        exponents = torch.arange(self.count, device=c_noise.device, dtype=c_noise.dtype) / self.last
        phase = c_noise[:, None] * 10000.0**-exponents
        parts = (phase.sin(), phase.cos()) if self.sine_first else (phase.cos(), phase.sin())
        return torch.cat(parts, dim=1)


class FourierEmbedding(nn.Module):
    """Cosines and sines of c_noise at fixed random frequencies, drawn once from N(0, 16^2).

    The frequencies are never held in less than single precision: rounding them to half precision would turn the
    phases by a radian.

    References
    ----------
    Song et al. 2021 (arXiv 2011.13456), Appendix H, after Tancik et al. 2020.
    """

    freqs: Tensor

    def __init__(self, channels: int, *, sine_first: bool, scale: float = 16.0) -> None:
        super().__init__()
        if channels % 2 or channels < 4:
            raise ValueError(f"a noise embedding takes an even number of channels, at least 4, got {channels}")
        self.sine_first = sine_first
        self.register_buffer("freqs", torch.empty(channels // 2))
        Init("kaiming_normal").fill_(self.freqs, scale, fan_in=1, fan_out=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = self.freqs
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.freqs.dtype.itemsize < 4:
            self.freqs = exact.to(self.freqs.device)
        return self

    def forward(self, c_noise: Tensor) -> Tensor:
        """Embed ``c_noise`` (B,) as (B, channels), in its dtype."""
        phase = c_noise[:, None] * (2 * math.pi * self.freqs.to(c_noise.dtype))
        parts = (phase.sin(), phase.cos()) if self.sine_first else (phase.cos(), phase.sin())
        return torch.cat(parts, dim=1)


def downsample(x: Tensor, taps: tuple[int, ...], stride: int = 2) -> Tensor:
    """Low-pass filter with zero padding, then keep every second pixel.

    Parameters
    ----------
    x
        (B, C, H, W), H and W even.
    taps
        (1, 1) or (1, 3, 3, 1), applied along both axes and normalised to sum 1.
    stride
        2; or 1 for the filtered image alone, one pixel larger, (B, C, H + 1, W + 1), as a convolution of size 3 and
        stride 2 without padding needs it.
    """
    boxes = BOXES[taps]
    if stride == 1:
        x = F.avg_pool2d(x, 2, 1, padding=1)
        return F.avg_pool2d(F.avg_pool2d(x, 2, 1, padding=1), 2, 1) if boxes == 3 else x
    if boxes == 3:
        x = F.avg_pool2d(F.avg_pool2d(x, 2, 1, padding=1), 2, 1)
    return F.avg_pool2d(x, 2)


def upsample(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """Double the resolution: each pixel repeated, then smoothed with zero padding where the filter is longer.

    ``x`` (B, C, H, W) becomes (B, C, 2 H, 2 W).
    """
    boxes = BOXES[taps]
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.avg_pool2d(F.avg_pool2d(x, 2, 1, padding=1), 2, 1) if boxes == 3 else x

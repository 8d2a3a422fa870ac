"""The small parts that the U-Nets are built from: initialised layers, noise embeddings, resampling filters.

The two resampling filters of the papers, [1, 1] and [1, 3, 3, 1], are the box [1, 1] convolved with itself once and
three times.  Averaging over two neighbours, repeated, therefore *is* the filter, and no filter weights are stored::

    [1, 1] * [1, 1] * [1, 1] = [1, 3, 3, 1]

Taught in ``notebooks/12_training_edm.ipynb``.  References: Karras et al. 2022 (arXiv 2206.00364), Table 7 and
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
        elif self.mode == "kaiming_normal":
            tensor.normal_(0, factor * math.sqrt(1 / fan_in))
        else:
            bound = factor * math.sqrt(6 / (fan_in + fan_out) if self.mode == "xavier_uniform" else 3 / fan_in)
            tensor.uniform_(-bound, bound)

    def fill_layer_(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Draw weight and bias in place."""
        fans = layer.weight[0].numel(), layer.weight[:, 0].numel()
        for tensor, factor in ((layer.weight, self.weight), (layer.bias, self.bias)):
            if tensor is not None:
                self.fill_(tensor, factor, *fans)


class Linear(nn.Linear):
    """Fully connected layer with the initialisation of its network."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, init: Init) -> None:
        self.init = init
        super().__init__(in_features, out_features, bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        self.init.fill_layer_(self)


class Conv2d(nn.Conv2d):
    """Convolution of odd size, keeping the resolution unless it strides; its weight is stored ``channels_last``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, init: Init, stride: int = 1) -> None:
        self.init = init
        super().__init__(in_channels, out_channels, kernel, stride, padding=kernel // 2 if stride == 1 else 0)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        self.weight = nn.Parameter(torch.empty_like(self.weight, memory_format=torch.channels_last))
        self.init.fill_layer_(self)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that takes no longer in half precision than in single.

    Before 1,024 pixels, PyTorch takes the channels of a group pixel by pixel on a processor; in half precision fewer
    than 16 of them are then handled one by one, in five times the time. Those are computed in single precision, in
    which both ways sum, and rounded once, as both do.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (B, C, H, W) over the channels of each group and all pixels."""
        short = self.num_channels < 16 * self.num_groups and math.prod(x.shape[2:]) < 1024
        if not short or x.dtype.itemsize > 2 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def group_norm(channels: int, eps: float) -> GroupNorm:
    """Group normalisation with at most 32 groups of at least 4 channels."""
    groups = min(32, channels // 4)
    if groups < 1 or channels % groups:
        raise ValueError(f"channels must be a multiple of 4, and of 32 from 128 on, to form groups; got {channels}")
    return GroupNorm(groups, channels, eps)


class _Embedding(nn.Module):
    """Cosines and sines of c_noise, times a frequency each; ``channels`` of them, an even number."""

    def __init__(self, channels: int, sine_first: bool) -> None:
        super().__init__()
        if channels % 2 or channels < 4:
            raise ValueError(f"a noise embedding takes an even number of channels, at least 4, got {channels}")
        self.count, self.sine_first = channels // 2, sine_first

    def _waves(self, c_noise: Tensor, frequencies: Tensor) -> Tensor:
        phase = c_noise[:, None] * frequencies
        parts = (phase.sin(), phase.cos()) if self.sine_first else (phase.cos(), phase.sin())
        return torch.cat(parts, dim=1)


class PositionalEmbedding(_Embedding):
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
        super().__init__(channels, sine_first)
        self.last = self.count - endpoint

    def forward(self, c_noise: Tensor) -> Tensor:
        """Embed ``c_noise`` (B,) as (B, channels), in its dtype."""
        exponents = torch.arange(self.count, device=c_noise.device, dtype=c_noise.dtype) / self.last
        return self._waves(c_noise, 10000.0**-exponents)


class FourierEmbedding(_Embedding):
    """Cosines and sines of c_noise at fixed random frequencies, drawn once from N(0, 16^2).

    The frequencies are never held in less than single precision: rounding them to half precision would turn the
    phases by a radian.

    References
    ----------
    Song et al. 2021 (arXiv 2011.13456), Appendix H, after Tancik et al. 2020.
    """

    freqs: Tensor

    def __init__(self, channels: int, *, sine_first: bool) -> None:
        super().__init__(channels, sine_first)
        self.register_buffer("freqs", torch.empty(self.count).normal_(0, 16))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = self.freqs
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.freqs.dtype.itemsize < 4:
            self.freqs = exact.to(self.freqs.device)
        return self

    def forward(self, c_noise: Tensor) -> Tensor:
        """Embed ``c_noise`` (B,) as (B, channels), in its dtype."""
        return self._waves(c_noise, 2 * math.pi * self.freqs.to(c_noise.dtype))


def _smoothed(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """Two boxes more, where the filter has three; the size stays."""
    return F.avg_pool2d(F.avg_pool2d(x, 2, 1, padding=1), 2, 1) if BOXES[taps] == 3 else x


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
    if stride == 1:
        return _smoothed(F.avg_pool2d(x, 2, 1, padding=1), taps)
    return F.avg_pool2d(_smoothed(x, taps), 2)


def upsample(x: Tensor, taps: tuple[int, ...]) -> Tensor:
    """Double the resolution: each pixel repeated, then smoothed with zero padding where the filter is longer.

    ``x`` (B, C, H, W) becomes (B, C, 2 H, 2 W).
    """
    return _smoothed(F.interpolate(x, scale_factor=2.0, mode="nearest"), taps)

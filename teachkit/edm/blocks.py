"""The residual block that all of EDM's U-Nets repeat, and the encoder and decoder made of it.

    h = conv0(resample(silu(norm0(x))));   h = conv1(silu(norm1(h + affine(emb))));   y = (h + skip(x)) * skip_scale

with self-attention over all pixels after it where asked for.  Activations stay in the ``channels_last`` layout of the
weights from end to end, where the attention's queries, keys and values are views.  Taught in
``notebooks/12_training_edm.ipynb``.

References: Karras et al. 2022 (arXiv 2206.00364), Table 7; Song et al. 2021 (arXiv 2011.13456), Appendix H; Dhariwal
and Nichol 2021 (arXiv 2105.05233), Section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachkit.checks import integer, is_finite, number, shown

from .layers import Conv2d, Init, Linear, downsample, group_norm, upsample

SQRT_HALF = math.sqrt(0.5)
_LARGEST = 2**20  # of any size: more is a mistake, and would take the memory before anyone could say so


def readable(values: Tensor) -> bool:
    """Whether looking at the values costs nothing: not in a traced graph, not across a device queue."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of one network share; see the table in :mod:`teachkit.edm.networks`."""

    emb_channels: int
    dropout: float
    skip_scale: float
    eps: float
    adaptive_scale: bool
    channels_per_head: int | None  # None: a single head
    project_resampled: bool  # a 1x1 convolution on the shortcut of every resampling block
    taps: tuple[int, ...]
    init: Init
    init_out: Init
    init_attention: Init


class UNetBlock(nn.Module):
    """Residual block with optional resampling and self-attention.

    Parameters
    ----------
    in_channels, out_channels
        Channels before and after.
    style
        Settings shared by the whole network.
    resample
        "up" doubles the resolution, "down" halves it, None keeps it.
    attention
        Whether self-attention over all pixels follows.  A block too narrow for one head of
        ``style.channels_per_head`` has none, as in the published networks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style: BlockStyle,
        *,
        resample: Literal["up", "down"] | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.dropout, self.skip_scale, self.taps = style.dropout, style.skip_scale, style.taps
        self.adaptive_scale, self.resample = style.adaptive_scale, resample

        self.norm0 = group_norm(in_channels, style.eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, init=style.init)
        affine_channels = 2 * out_channels if style.adaptive_scale else out_channels
        self.affine = Linear(style.emb_channels, affine_channels, init=style.init)
        self.norm1 = group_norm(out_channels, style.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=style.init_out)
        projects = in_channels != out_channels or (resample is not None and style.project_resampled)
        self.skip = Conv2d(in_channels, out_channels, 1, init=style.init) if projects else None
        self.num_heads = out_channels // (style.channels_per_head or out_channels) if attention else 0
        if self.num_heads:
            if out_channels % self.num_heads:
                raise ValueError(f"{out_channels} channels cannot be divided between {self.num_heads} attention heads")
            self.norm2 = group_norm(out_channels, style.eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, init=style.init_attention)
            self.proj = Conv2d(out_channels, out_channels, 1, init=style.init_out)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Transform ``x`` (B, C, H, W), steered by ``emb`` (B or 1, emb_channels)."""
        h = F.silu(self.norm0(x), inplace=True)
        if self.resample == "up":
            h = upsample(h, self.taps)
        elif self.resample == "down":
            h = downsample(h, self.taps)
        h = self.conv0(h)
        steer = self.affine(emb)[:, :, None, None]  # (B or 1, C or 2 C, 1, 1)
        if self.adaptive_scale:
            scale, shift = steer.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h.add_(steer))
        h = F.silu(h, inplace=True)
        if self.training and self.dropout:
            h = F.dropout(h, self.dropout)
        x = self._scaled_sum(self.conv1(h), self._shortcut(x))
        return self._scaled_sum(self._attend(x), x) if self.num_heads else x

    def _scaled_sum(self, a: Tensor, b: Tensor) -> Tensor:
        a.add_(b)  # a comes fresh from a convolution, whose gradient does not need it
        return a if self.skip_scale == 1 else a.mul_(self.skip_scale)

    def _shortcut(self, x: Tensor) -> Tensor:
        # A 1x1 convolution and a resampling filter commute: each runs at the lower of the two resolutions.
        if self.resample == "down":
            x = downsample(x, self.taps)
        if self.skip is not None:
            if self.resample == "up" and len(self.taps) > 2:  # zero padding dims the border, but not the bias
                x = upsample(F.conv2d(x, self.skip.weight), self.taps)
                return x if self.skip.bias is None else x.add_(self.skip.bias[:, None, None])
            x = self.skip(x)
        return upsample(x, self.taps) if self.resample == "up" else x

    def _attend(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        heads = self.num_heads
        rows = self.qkv(self.norm2(x)).permute(0, 2, 3, 1)  # (B, H, W, 3 C): a view
        rows = rows.reshape(b, h * w, 3, heads, c // heads)
        q, k, v = rows.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, HW, C/heads) each
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = mixed.transpose(1, 2).reshape(b, h, w, c)
        return self.proj(mixed.permute(0, 3, 1, 2))


class UNet(nn.Module):
    """What both families are: an encoder and a decoder of blocks, steered by noise level, class and augmentation.

    A family makes the layers of the embedding, then the levels, in the order of the published parameters.
    """

    attends_in_decoder: Literal["all", "last"] = "all"  # blocks of the levels that have attention
    labels_enter: Literal["before", "after"]  # the layers of the embedding
    label_scale = 1.0
    encoder_type = "standard"
    decoder_type: str | None = None  # of a family whose last layers are out_norm and out_conv
    taps: tuple[int, ...] = (1, 1)
    map_noise: nn.Module
    map_label: Linear | None
    map_augment: Linear | None
    map_layer0: Linear
    map_layer1: Linear
    out_norm: nn.GroupNorm
    out_conv: Conv2d

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int,
        augment_dim: int,
        model_channels: int,
        channel_mult: Sequence[int],
        channel_mult_emb: int,
        num_blocks: int,
        attn_resolutions: Sequence[int],
        dropout: float,
        label_dropout: float,
    ) -> None:
        super().__init__()
        given, least = locals(), {"label_dim": 0, "augment_dim": 0, "model_channels": 4}
        for name in ("img_resolution", "in_channels", "out_channels", *least, "channel_mult_emb", "num_blocks"):
            integer(name, given[name], least.get(name, 1), _LARGEST)
        for name, values in (("channel_mult", channel_mult), ("attn_resolutions", attn_resolutions)):
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise TypeError(f"{name} must be a sequence of integers, got {shown(values)}")
            for value in values:
                integer(name, value, 1, _LARGEST)
        if not channel_mult:
            raise ValueError("channel_mult must hold a factor for one level at least")
        for name, share in (("dropout", dropout), ("label_dropout", label_dropout)):
            number(name, share, least=0, most=1)
        halvings = len(channel_mult) - 1
        if img_resolution % 2**halvings:
            raise ValueError(f"img_resolution must halve {halvings} times without remainder, got {img_resolution}")
        self.img_resolution, self.in_channels, self.out_channels = img_resolution, in_channels, out_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        sides = [img_resolution >> level for level in range(len(channel_mult))]
        self.num_blocks, self.widths = num_blocks, [model_channels * mult for mult in channel_mult]
        # Name, channels of the blocks, and whether they attend.
        self.levels = [(f"{s}x{s}", width, s in attn_resolutions) for s, width in zip(sides, self.widths)]

    def _add_levels(self, channels: int, style: BlockStyle) -> int:
        """Make encoder and decoder; ``channels`` leave the first convolution, and those of the last block return."""
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        left = []  # channels of the feature maps that the encoder leaves for the decoder
        beside = self.in_channels  # of the image that goes down beside the features
        for level, (name, width, attends) in enumerate(self.levels):
            if level == 0:
                self.enc[f"{name}_conv"] = Conv2d(self.in_channels, channels, 3, init=style.init)
            else:
                self.enc[f"{name}_down"] = UNetBlock(channels, channels, style, resample="down")
                if self.encoder_type == "skip":
                    self.enc[f"{name}_aux_skip"] = Conv2d(beside, channels, 1, init=style.init)
                elif self.encoder_type == "residual":
                    self.enc[f"{name}_aux_residual"] = Conv2d(beside, channels, 3, stride=2, init=style.init)
                    beside = channels
            left.append(channels)
            for i in range(self.num_blocks):
                self.enc[f"{name}_block{i}"] = UNetBlock(channels, width, style, attention=attends)
                channels = width
                left.append(channels)
        for level, (name, width, attends) in reversed(list(enumerate(self.levels))):
            if level == len(self.levels) - 1:
                self.dec[f"{name}_in0"] = UNetBlock(channels, channels, style, attention=True)
                self.dec[f"{name}_in1"] = UNetBlock(channels, channels, style)
            else:
                self.dec[f"{name}_up"] = UNetBlock(channels, channels, style, resample="up")
            for i in range(self.num_blocks + 1):
                attention = attends and (self.attends_in_decoder == "all" or i == self.num_blocks)
                self.dec[f"{name}_block{i}"] = UNetBlock(channels + left.pop(), width, style, attention=attention)
                channels = width
            if self.decoder_type == "skip" or (self.decoder_type and level == 0):
                self.dec[f"{name}_aux_norm"] = group_norm(channels, style.eps)
                self.dec[f"{name}_aux_conv"] = Conv2d(channels, self.out_channels, 3, init=style.init_out)
        return channels

    def check_form(self, name: str, value: Tensor, *shape: int | None, batch: int | None = None) -> None:
        """Refuse what is no floating-point tensor of this shape (None: any length) where the weights are.

        ``batch`` samples may share one value.
        """
        device = self.map_layer0.weight.device
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
            raise TypeError(f"{name} must be a floating-point tensor, got {shown(value)}")
        fits = value.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, value.shape))
        if not fits or len(value) == 0 or (batch is not None and len(value) not in (1, batch)):
            wanted = ", ".join("B" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} must have shape ({wanted}), got {tuple(value.shape)}")
        if value.device != device:
            raise ValueError(f"{name} is on {value.device} but the network is on {device}; move one of them")

    def _check(self, name: str, value: Tensor, *shape: int | None, batch: int | None = None) -> None:
        """Beside the form, the dtype; NaN and infinity are looked for where looking costs nothing."""
        if torch.compiler.is_compiling():
            return
        self.check_form(name, value, *shape, batch=batch)
        weight = self.map_layer0.weight
        mixed = torch.is_autocast_enabled(value.device.type) if value.device.type != "meta" else False
        if value.dtype != weight.dtype and not mixed and name != "c_noise":  # which keeps its precision
            raise ValueError(f"{name} is {value.dtype} but the network holds {weight.dtype}; convert one of them")
        if readable(value) and not is_finite(value):
            raise ValueError(f"{name} must be finite in {value.dtype}, got NaN or infinity")

    def embed(self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """Embedding of noise level, class and augmentation, (B or 1, emb_channels)."""
        self._check("c_noise", c_noise, None)
        batch = len(c_noise) if len(c_noise) > 1 else None
        if labels is not None:
            self._check("labels", labels, None, self.label_dim, batch=batch)
        if augment_labels is not None:
            self._check("augment_labels", augment_labels, None, self.augment_dim, batch=batch)
        emb = self.map_noise(c_noise).to(self.map_layer0.weight.dtype)
        if self.labels_enter == "before":
            emb = self._with_labels(emb, labels)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        return F.silu(emb if self.labels_enter == "before" else self._with_labels(emb, labels))

    def _with_labels(self, emb: Tensor, labels: Tensor | None) -> Tensor:
        if self.map_label is None:
            return emb
        if labels is None:
            return emb if self.map_label.bias is None else emb + self.map_label.bias
        if self.training and self.label_dropout:  # none for some of the batch: classifier-free guidance
            keep = torch.rand(labels.shape[0], 1, dtype=torch.float32, device=labels.device) >= self.label_dropout
            labels = labels * keep.to(labels.dtype)
        return emb + self.map_label(labels * self.label_scale)

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Raw output F: ``x`` (B, C, H, W) scaled image, ``c_noise`` (B or 1,), ``labels`` (B, label_dim) or None.

        Returns (B, out_channels, H, W) in the dtype of the weights.
        """
        self._check("x", x, None, self.in_channels, self.img_resolution, self.img_resolution)
        emb = self.embed(c_noise, labels, augment_labels)
        if len(emb) not in (1, len(x)):
            raise ValueError(f"c_noise and labels must be of 1 sample or of {len(x)}, as x is, got {len(emb)}")
        beside, skips = x, []  # the image beside the features; feature maps left for the decoder
        for name, part in self.enc.items():
            if "_aux_" not in name:
                x = part(x, emb) if isinstance(part, UNetBlock) else part(x)
                skips.append(x)
            elif self.encoder_type == "skip":
                beside = downsample(beside, self.taps)
                x = skips[-1] = x + part(beside)
            else:
                beside = part(downsample(beside, self.taps, stride=1))
                x = skips[-1] = beside = (x + beside) * SQRT_HALF
        total: Tensor | None = None
        for name, part in self.dec.items():
            if isinstance(part, UNetBlock):
                x = part(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, emb)
            elif name.endswith("_aux_norm"):
                features = F.silu(part(x), inplace=True)
            else:
                total = part(features) if total is None else upsample(total, self.taps) + part(features)
        return self.out_conv(F.silu(self.out_norm(x), inplace=True)) if total is None else total

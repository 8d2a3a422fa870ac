"""The residual block that all of EDM's U-Nets repeat, and what the networks share around it.

    h = conv0(resample(silu(norm0(x))));   h = conv1(silu(norm1(h + affine(emb))));   y = (h + skip(x)) * skip_scale

with self-attention over all pixels after it where asked for.  Activations stay in the ``channels_last`` layout of the
weights from end to end, where the attention's queries, keys and values are views.  Taught in
``notebooks/09_training_edm.ipynb``.

References: Karras et al. 2022 (arXiv 2206.00364), Table 7; Song et al. 2021 (arXiv 2011.13456), Appendix H; Dhariwal
and Nichol 2021 (arXiv 2105.05233), Section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachkit.checks import integer, is_finite, number, shown

from .layers import Conv2d, Init, Linear, downsample, group_norm, upsample

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
        self.in_channels, self.out_channels = in_channels, out_channels
        self.dropout, self.skip_scale, self.taps = style.dropout, style.skip_scale, style.taps
        self.adaptive_scale, self.resample = style.adaptive_scale, resample

        self.norm0 = group_norm(in_channels, style.eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, init=style.init)
        affine_channels = 2 * out_channels if style.adaptive_scale else out_channels
        self.affine = Linear(style.emb_channels, affine_channels, init=style.init)
        self.norm1 = group_norm(out_channels, style.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=style.init_out)
        if in_channels != out_channels or (resample is not None and style.project_resampled):
            self.skip: Conv2d | None = Conv2d(in_channels, out_channels, 1, init=style.init)
        else:
            self.skip = None
        self.num_heads = 0
        if attention:
            self.num_heads = 1 if style.channels_per_head is None else out_channels // style.channels_per_head
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
    """What both families share: checked sizes, and the labels of a batch turned into an embedding."""

    map_layer0: Linear
    attends_in_decoder: Literal["all", "last"] = "all"  # blocks of the levels that have attention

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
        integer("img_resolution", img_resolution, 1, _LARGEST)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            integer(name, value, 1, _LARGEST)
        for name, value in (("label_dim", label_dim), ("augment_dim", augment_dim)):
            integer(name, value, 0, _LARGEST)
        integer("model_channels", model_channels, 4, _LARGEST)
        integer("channel_mult_emb", channel_mult_emb, 1, _LARGEST)
        integer("num_blocks", num_blocks, 1, _LARGEST)
        for name, values in (("channel_mult", channel_mult), ("attn_resolutions", attn_resolutions)):
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise TypeError(f"{name} must be a sequence of integers, got {shown(values)}")
            for value in values:
                integer(name, value, 1, _LARGEST)
        if not channel_mult:
            raise ValueError("channel_mult must hold a factor for one level at least")
        for name, share in (("dropout", dropout), ("label_dropout", label_dropout)):
            number(name, share, least=0, most=1)
        if img_resolution % 2 ** (len(channel_mult) - 1):
            raise ValueError(
                f"img_resolution must halve {len(channel_mult) - 1} times without remainder, got {img_resolution}"
            )
        self.img_resolution, self.in_channels, self.out_channels = img_resolution, in_channels, out_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        self.num_blocks = num_blocks
        sides = [img_resolution >> level for level in range(len(channel_mult))]
        self.level_names = [f"{side}x{side}" for side in sides]
        self.widths = [model_channels * mult for mult in channel_mult]  # channels of the blocks of each level
        self.attends = [side in attn_resolutions for side in sides]

    def _add_levels(self, channels: int, style: BlockStyle) -> int:
        """Make encoder and decoder; ``channels`` leave the first convolution, and those of the last block return."""
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        left = []  # channels of the feature maps that the encoder leaves for the decoder
        levels = list(enumerate(zip(self.level_names, self.widths, self.attends)))
        for level, (name, width, attends) in levels:
            if level == 0:
                self.enc[f"{name}_conv"] = Conv2d(self.in_channels, channels, 3, init=style.init)
            else:
                self.enc[f"{name}_down"] = UNetBlock(channels, channels, style, resample="down")
                self._add_beside_encoder(name, channels, style)
            left.append(channels)
            for i in range(self.num_blocks):
                self.enc[f"{name}_block{i}"] = UNetBlock(channels, width, style, attention=attends)
                channels = width
                left.append(channels)
        for level, (name, width, attends) in reversed(levels):
            if level == len(levels) - 1:
                self.dec[f"{name}_in0"] = UNetBlock(channels, channels, style, attention=True)
                self.dec[f"{name}_in1"] = UNetBlock(channels, channels, style)
            else:
                self.dec[f"{name}_up"] = UNetBlock(channels, channels, style, resample="up")
            for i in range(self.num_blocks + 1):
                attention = attends and (self.attends_in_decoder == "all" or i == self.num_blocks)
                self.dec[f"{name}_block{i}"] = UNetBlock(channels + left.pop(), width, style, attention=attention)
                channels = width
            self._add_beside_decoder(level, channels, style)
        return channels

    def _add_beside_encoder(self, name: str, channels: int, style: BlockStyle) -> None:
        """What a family has beside the blocks where the encoder goes down to level ``name``: nothing here."""

    def _add_beside_decoder(self, level: int, channels: int, style: BlockStyle) -> None:
        """What a family has beside the blocks at the end of a level of the decoder: nothing here."""

    def _check(self, name: str, value: Tensor, *shape: int | None, batch: int | None = None) -> None:
        """Refuse what is no floating-point tensor of this shape (None: any length) where the weights are.

        ``batch`` samples may share one value. NaN and infinity are looked for where looking costs nothing.
        """
        if torch.compiler.is_compiling():
            return
        weight = self.map_layer0.weight
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
            raise TypeError(f"{name} must be a floating-point tensor, got {shown(value)}")
        fits = value.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, value.shape))
        if not fits or len(value) == 0 or (batch is not None and len(value) not in (1, batch)):
            wanted = ", ".join("B" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} must have shape ({wanted}), got {tuple(value.shape)}")
        if value.device != weight.device:
            raise ValueError(f"{name} is on {value.device} but the network is on {weight.device}; move one of them")
        mixed = torch.is_autocast_enabled(value.device.type) if value.device.type != "meta" else False
        if value.dtype != weight.dtype and not mixed and name != "c_noise":  # which keeps its precision
            raise ValueError(f"{name} is {value.dtype} but the network holds {weight.dtype}; convert one of them")
        if readable(value) and not is_finite(value):
            raise ValueError(f"{name} must be finite in {value.dtype}, got NaN or infinity")

    def _check_steering(self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None) -> None:
        """What `embed` takes."""
        self._check("c_noise", c_noise, None)
        batch = len(c_noise) if len(c_noise) > 1 else None
        for name, value, size in (
            ("labels", labels, self.label_dim),
            ("augment_labels", augment_labels, self.augment_dim),
        ):
            if value is not None:
                self._check(name, value, None, size, batch=batch)

    def _check_batch(self, emb: Tensor, batch: int) -> Tensor:
        """The embedding itself, if it is that of one sample or of all."""
        if len(emb) not in (1, batch):
            raise ValueError(f"c_noise and labels must be of 1 sample or of {batch}, as x is, got {len(emb)}")
        return emb

    def _kept_labels(self, labels: Tensor) -> Tensor:
        """Zero the labels of a random part of the batch while training (classifier-free guidance)."""
        if self.training and self.label_dropout:
            keep = torch.rand(labels.shape[0], 1, dtype=torch.float32, device=labels.device) >= self.label_dropout
            labels = labels * keep.to(labels.dtype)
        return labels

    def _decode(self, x: Tensor, emb: Tensor, skips: list[Tensor], name: str, first: bool) -> Tensor:
        """One level of the decoder: enter it, then one block for each feature map the encoder left there."""
        if first:
            x = self.dec[f"{name}_in1"](self.dec[f"{name}_in0"](x, emb), emb)
        else:
            x = self.dec[f"{name}_up"](x, emb)
        for i in range(self.num_blocks + 1):
            x = self.dec[f"{name}_block{i}"](torch.cat([x, skips.pop()], dim=1), emb)
        return x

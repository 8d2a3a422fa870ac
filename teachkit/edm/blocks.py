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

from .layers import Conv2d, Init, Linear, downsample, group_norm, upsample


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

    enc: nn.ModuleDict
    dec: nn.ModuleDict

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int,
        augment_dim: int,
        channel_mult: Sequence[int],
        num_blocks: int,
        label_dropout: float,
    ) -> None:
        super().__init__()
        sizes = {"img_resolution": img_resolution, "in_channels": in_channels, "out_channels": out_channels}
        for name, value in {**sizes, "num_blocks": num_blocks, "len(channel_mult)": len(channel_mult)}.items():
            if int(value) != value or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value}")
        if img_resolution % 2 ** (len(channel_mult) - 1):
            raise ValueError(
                f"img_resolution must halve {len(channel_mult) - 1} times without remainder, got {img_resolution}"
            )
        self.img_resolution, self.in_channels, self.out_channels = img_resolution, in_channels, out_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        self.num_blocks = num_blocks
        self.level_names = [f"{img_resolution >> i}x{img_resolution >> i}" for i in range(len(channel_mult))]

    def _kept_labels(self, labels: Tensor) -> Tensor:
        """Zero the labels of a random part of the batch while training (classifier-free guidance)."""
        if self.training and self.label_dropout:
            keep = torch.rand(labels.shape[0], 1, device=labels.device) >= self.label_dropout
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

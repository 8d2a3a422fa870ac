"""The U-Nets of EDM: what a learned denoiser looks like inside.

A denoiser network is an image-to-image map F(x, c_noise, labels): an encoder that halves the resolution level by
level, a decoder that doubles it again, a skip connection between equals, and a noise embedding that steers every
residual block.  All of that is :class:`teachkit.edm.blocks.UNet`; here are the two published families, which differ in
the details only:

==============  =======================================  ==========================================
                :class:`SongUNet` (DDPM++, NCSN++)       :class:`DhariwalUNet` (ADM)
==============  =======================================  ==========================================
skip_scale      1/sqrt(2)                                1
embedding       added before ``norm1``                   scale and shift after ``norm1``
attention       one head; last block of a decoder level  64 channels per head; every block
filters         [1, 1] (DDPM++), [1, 3, 3, 1] (NCSN++)   [1, 1]
==============  =======================================  ==========================================

Parameters carry the names of the published checkpoints; only the order of the attention rows differs
(:func:`teachkit.edm.snapshots.from_published`).  Weights are stored ``channels_last``, so that every activation
is, and no layer changes the layout of its input.  Taught in ``notebooks/12_training_edm.ipynb``.

References: Karras et al. 2022 (arXiv 2206.00364, Table 7 and Appendix F); Song et al. 2021 (arXiv 2011.13456,
Appendix H); Dhariwal and Nichol 2021 (arXiv 2105.05233, Section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from teachkit.checks import choice, integer, shown

from .blocks import SQRT_HALF, BlockStyle, UNet
from .layers import BOXES, Conv2d, FourierEmbedding, Init, Linear, PositionalEmbedding, group_norm


class SongUNet(UNet):
    """DDPM++ and NCSN++ of score-SDE as used in EDM.

    Parameters
    ----------
    img_resolution, in_channels, out_channels
        Side of the square images in pixels; channels in and out.
    label_dim, augment_dim
        Length of the class-label and augmentation-label vectors, 0 for none.
    model_channels, channel_mult
        Channels of level i are ``model_channels * channel_mult[i]``.
    channel_mult_emb, channel_mult_noise
        Width of the embedding and of the raw noise features, in units of ``model_channels``.
    num_blocks
        Residual blocks per level of the encoder (the decoder has one more).
    attn_resolutions
        Resolutions with self-attention.
    dropout, label_dropout
        Probability of dropping a feature, and the class label of an image, while training.
    embedding_type
        "positional" (DDPM++) or "fourier" (NCSN++).
    encoder_type, decoder_type
        "standard"; "residual" (NCSN++) or "skip" feed a downsampled input image to every level of the encoder,
        "skip" sums an image from every level of the decoder.
    resample_filter
        [1, 1] (DDPM++) or [1, 3, 3, 1] (NCSN++).

    Raises
    ------
    ValueError
        For sizes that do not fit together or an unknown type.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 7; Song et al. 2021 (arXiv 2011.13456), Appendix H.

    Examples
    --------
    >>> net = SongUNet(8, 1, 1, model_channels=4, channel_mult=[1], num_blocks=1)
    >>> net(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape
    torch.Size([2, 1, 8, 8])
    """

    attends_in_decoder = "last"
    labels_enter = "before"

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__(
            img_resolution, in_channels, out_channels, label_dim, augment_dim, model_channels, channel_mult,
            channel_mult_emb, num_blocks, attn_resolutions, dropout, label_dropout,
        )  # fmt: skip
        choice("embedding_type", embedding_type, ("positional", "fourier"))
        choice("encoder_type", encoder_type, ("standard", "skip", "residual"))
        choice("decoder_type", decoder_type, ("standard", "skip"))
        integer("channel_mult_noise", channel_mult_noise, 1)
        known = [list(taps) for taps in BOXES]
        if not isinstance(resample_filter, Sequence) or list(resample_filter) not in known:
            raise ValueError(f"resample_filter must be one of {known}, got {shown(resample_filter)}")
        taps = tuple(resample_filter)
        self.encoder_type, self.decoder_type, self.taps = encoder_type, decoder_type, taps
        self.label_scale = math.sqrt(label_dim)

        noise_channels, emb_channels = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        init, init_out = Init("xavier_uniform"), Init("xavier_uniform", 1e-5)
        style = BlockStyle(
            emb_channels, dropout, SQRT_HALF, 1e-6, False, None, True, taps,
            init, init_out, Init("xavier_uniform", math.sqrt(0.2)),
        )  # fmt: skip
        if embedding_type == "positional":
            self.map_noise = PositionalEmbedding(noise_channels, endpoint=True, sine_first=True)
        else:
            self.map_noise = FourierEmbedding(noise_channels, sine_first=True)
        self.map_label = Linear(label_dim, noise_channels, init=init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise_channels, bias=False, init=init) if augment_dim else None
        self.map_layer0 = Linear(noise_channels, emb_channels, init=init)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=init)
        self._add_levels(model_channels, style)


class DhariwalUNet(UNet):
    """ADM of Dhariwal and Nichol as used in EDM for ImageNet-64.

    There is one type of embedding, encoder, decoder and filter.

    Parameters
    ----------
    img_resolution, in_channels, out_channels
        Side of the square images in pixels; channels in and out.
    label_dim, augment_dim
        Length of the class-label and augmentation-label vectors, 0 for none.
    model_channels, channel_mult
        Channels of level i are ``model_channels * channel_mult[i]``.
    channel_mult_emb
        Width of the embedding, in units of ``model_channels``.
    num_blocks
        Residual blocks per level of the encoder (the decoder has one more).
    attn_resolutions
        Resolutions with self-attention.
    dropout, label_dropout
        Probability of dropping a feature, and the class label of an image, while training.

    Raises
    ------
    ValueError
        For sizes that do not fit together.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 7; Dhariwal and Nichol 2021 (arXiv 2105.05233), Section 3.

    Examples
    --------
    >>> net = DhariwalUNet(8, 1, 1, model_channels=32, channel_mult=[1], num_blocks=1)
    >>> net(torch.zeros(2, 1, 8, 8), torch.zeros(2)).shape
    torch.Size([2, 1, 8, 8])
    """

    labels_enter = "after"

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            img_resolution, in_channels, out_channels, label_dim, augment_dim, model_channels, channel_mult,
            channel_mult_emb, num_blocks, attn_resolutions, dropout, label_dropout,
        )  # fmt: skip
        emb_channels = model_channels * channel_mult_emb
        init = Init("kaiming_uniform", math.sqrt(1 / 3), math.sqrt(1 / 3))
        zero = Init("kaiming_uniform", 0.0, 0.0)
        style = BlockStyle(emb_channels, dropout, 1.0, 1e-5, True, 64, False, (1, 1), init, zero, init)
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False, sine_first=False)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, init=zero) if augment_dim else None
        self.map_layer0 = Linear(model_channels, emb_channels, init=init)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=init)
        label_init = Init("kaiming_normal", math.sqrt(label_dim))
        self.map_label = Linear(label_dim, emb_channels, bias=False, init=label_init) if label_dim else None

        channels = self._add_levels(self.widths[0], style)
        self.out_norm = group_norm(channels, 1e-5)
        self.out_conv = Conv2d(channels, out_channels, 3, init=zero)

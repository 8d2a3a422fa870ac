"""The published EDM models: their architectures as constructor arguments, and where their weights live.

One row per checkpoint of Karras et al. 2022.  The architectures are those of Table 7 there; the weights belong to
NVIDIA and are licensed CC BY-NC-SA 4.0: they are downloaded on request and never part of teachkit.
Used in ``notebooks/12_real_gpu_models.ipynb``.

Reference: Karras et al. 2022 (arXiv 2206.00364), Table 7 and Appendix F.
"""

from __future__ import annotations

from typing import Any

URL = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"
LICENCE = (
    "These weights are the work of NVIDIA (Karras et al. 2022), licensed CC BY-NC-SA 4.0: non-commercial use, "
    "with attribution, shared alike. https://creativecommons.org/licenses/by-nc-sa/4.0/"
)

DDPMPP: dict[str, Any] = {
    "model_type": "SongUNet",
    "embedding_type": "positional",
    "encoder_type": "standard",
    "decoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
    "model_channels": 128,
    "augment_dim": 9,
}
NCSNPP: dict[str, Any] = {
    **DDPMPP,
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
ADM: dict[str, Any] = {"model_type": "DhariwalUNet", "model_channels": 192, "channel_mult": [1, 2, 3, 4]}

_SIZE_32: dict[str, Any] = {"img_resolution": 32, "img_channels": 3, "channel_mult": [2, 2, 2], "dropout": 0.13}
_SIZE_64: dict[str, Any] = {"img_resolution": 64, "img_channels": 3, "channel_mult": [1, 2, 2, 2]}

#: Name of a published checkpoint -> constructor arguments of its EDMPrecond.
CONFIGS: dict[str, dict[str, Any]] = {
    "edm-cifar10-32x32-cond-vp": {**DDPMPP, **_SIZE_32, "label_dim": 10},
    "edm-cifar10-32x32-cond-ve": {**NCSNPP, **_SIZE_32, "label_dim": 10},
    "edm-cifar10-32x32-uncond-vp": {**DDPMPP, **_SIZE_32},
    "edm-cifar10-32x32-uncond-ve": {**NCSNPP, **_SIZE_32},
    "edm-ffhq-64x64-uncond-vp": {**DDPMPP, **_SIZE_64, "dropout": 0.05},
    "edm-ffhq-64x64-uncond-ve": {**NCSNPP, **_SIZE_64, "dropout": 0.05},
    "edm-afhqv2-64x64-uncond-vp": {**DDPMPP, **_SIZE_64, "dropout": 0.25},
    "edm-afhqv2-64x64-uncond-ve": {**NCSNPP, **_SIZE_64, "dropout": 0.25},
    "edm-imagenet-64x64-cond-adm": {
        **ADM, "img_resolution": 64, "img_channels": 3, "label_dim": 1000, "dropout": 0.10,
    },
}  # fmt: skip

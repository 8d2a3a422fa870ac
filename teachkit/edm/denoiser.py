"""A U-Net inside its preconditioning: inputs checked, precision chosen, coefficients applied.

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

What the four coefficients are is said in :mod:`teachkit.edm.preconditioning`; here is what all models share: they
take states and noise levels in any of their forms, keep the precision of the state whatever the network's, and refuse
what they were not made for.  Taught in ``notebooks/12_training_edm.ipynb``.

Reference: Karras et al. 2022 (arXiv 2206.00364), Section 5, Eq. 7.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachkit.checks import choice, flag, integer, level, same, shown

from .blocks import readable
from .networks import DhariwalUNet, SongUNet

NETWORKS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
Labels: TypeAlias = Tensor | int | None


class Coefficients(NamedTuple):
    """The four functions of the noise level, each of the shape of sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coefficients) and same(self, other)

    def __ne__(self, other: object) -> bool:  # a tuple has its own
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(part.shape for part in self))


class LearnedDenoiser(nn.Module):
    """A U-Net with preconditioning around it: ``D(x, sigma, labels=None) -> E[x0 | x]``.

    Subclasses give the coefficients.  The coefficients are computed in single precision (double when the weights are
    double), the network runs in the dtype of its weights, and the result has the dtype of ``x``: a sampler may keep
    its state in float64 around a float16 network.

    Parameters
    ----------
    img_resolution, img_channels
        Side of the square images in pixels, and their channels.
    label_dim
        Number of classes, 0 for an unconditional model.
    model_type
        "SongUNet" or "DhariwalUNet".
    use_fp16
        Recorded for round trips with published checkpoints; the dtype of the weights decides how the network runs.
    **model_kwargs
        Further arguments of the network.

    Attributes
    ----------
    model
        The network F.
    sigma_min, sigma_max
        Noise levels the model was made for.
    sigma_data
        Standard deviation of the data that the preconditioning assumes.
    config
        Constructor arguments; ``type(d)(**d.config)`` is a network of the same architecture.

    Examples
    --------
    >>> from teachkit import edm
    >>> D = edm.load("edm-digits8")
    >>> isinstance(D, LearnedDenoiser), D.img_channels, D.img_resolution, D.label_dim
    (True, 1, 8, 10)
    """

    sigma_min: float
    sigma_max: float
    sigma_data: float = 0.5
    outputs: ClassVar[int] = 1  # channels that the network gives for each of the image

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        *,
        model_type: str = "SongUNet",
        **model_kwargs: Any,
    ) -> None:
        super().__init__()
        choice("model_type", model_type, NETWORKS)
        integer("img_channels", img_channels, 1, 2**20)
        use_fp16 = flag("use_fp16", use_fp16)
        self.img_resolution, self.img_channels, self.label_dim = img_resolution, img_channels, label_dim
        shared = {"img_resolution": img_resolution, "label_dim": label_dim, **model_kwargs}
        self.config = {"img_channels": img_channels, "use_fp16": use_fp16, "model_type": model_type, **shared}
        self.model = NETWORKS[model_type](in_channels=img_channels, out_channels=self.outputs * img_channels, **shared)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.model.map_layer0.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.map_layer0.weight.device

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """``(c_skip, c_out, c_in, c_noise)`` at ``sigma``, a tensor of any shape; dimensionless but for c_out, c_in."""
        return self._coefficients(self._levels(sigma))

    def _levels(self, sigma: Tensor) -> Tensor:
        """Noise levels as they are, in at least single precision, once found positive."""
        if not isinstance(sigma, Tensor) or sigma.layout != torch.strided:
            raise TypeError(f"sigma must be a dense tensor of noise levels, got {shown(sigma)}")
        floating = sigma.is_floating_point()
        precision = torch.promote_types(sigma.dtype, torch.float32) if floating else torch.float64
        batch = torch.empty(sigma.numel(), 1, device=sigma.device if floating else self.device)
        return level("sigma", sigma.flatten(), batch, dtype=precision, read=readable(batch)).reshape(sigma.shape)

    def _coefficients(self, sigma: Tensor) -> Coefficients:
        raise TypeError("LearnedDenoiser is the base class: use EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond")

    @classmethod
    def argument_names(cls) -> list[str]:
        """Names of the constructor's arguments in the order of the published classes: shared, then the class's own."""
        shared, own = (inspect.signature(c).parameters.values() for c in (LearnedDenoiser, cls))
        names = [p.name for p in shared if p.kind is p.POSITIONAL_OR_KEYWORD]
        return names + [p.name for p in own if p.kind is p.KEYWORD_ONLY]

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level that the model knows; all of them but for models of discrete time."""
        return self._levels(sigma)

    def forward(
        self, x: Tensor, sigma: float | Tensor, labels: Labels = None, *, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Denoise.

        Parameters
        ----------
        x
            Noisy images (B, C, H, W), of standard deviation about sqrt(sigma_data^2 + sigma^2).
        sigma
            Noise level > 0: a float, a 0-d tensor or (B,).
        labels
            Class indices (B,) or one int for all; or weights (B, label_dim); None for the unconditional model.
        augment_labels
            (B, augment_dim) parameters of the augmentation applied to x, None for none.

        Returns
        -------
        Tensor
            E[x0 | x], shape and dtype of ``x``.

        Raises
        ------
        ValueError, TypeError
            For a wrong shape or dtype, a non-positive sigma, or labels the model cannot take.
        """
        coefficients, raw = self._evaluate(x, sigma, labels, augment_labels)
        work = torch.promote_types(x.dtype, coefficients.c_out.dtype)
        c_skip, c_out = coefficients.c_skip.to(work), coefficients.c_out.to(work)
        return torch.addcmul(c_skip * x, c_out, raw.to(work)).to(x.dtype)

    def raw(
        self, x: Tensor, sigma: float | Tensor, labels: Labels = None, *, augment_labels: Tensor | None = None
    ) -> Tensor:
        """The network's own output F(c_in x; c_noise), in the dtype of the weights; arguments as for a call."""
        return self._evaluate(x, sigma, labels, augment_labels)[1]

    def _evaluate(
        self, x: Tensor, sigma: float | Tensor, labels: Labels, augment_labels: Tensor | None
    ) -> tuple[Coefficients, Tensor]:
        self.model.check_form("x", x, None, self.img_channels, self.img_resolution, self.img_resolution)
        batch, dtype = x.shape[0], self.dtype
        precision = torch.promote_types(dtype, torch.float32)
        levels = level("sigma", sigma, x, dtype=precision, read=readable(x))  # (B or 1, 1, 1, 1)
        vectors = self._checked_labels(labels, batch, x.device)
        augment_labels = self._checked_augment_labels(augment_labels, batch)
        coefficients = self._coefficients(levels)
        scaled = (coefficients.c_in * x).to(dtype)
        raw = self.model(scaled, coefficients.c_noise.flatten(), vectors, augment_labels)
        return coefficients, raw[:, : self.img_channels]

    def _checked_labels(self, labels: Labels, batch: int, device: torch.device) -> Tensor | None:
        if labels is None:
            return None
        if not self.label_dim:
            raise ValueError("labels must be None: this model is unconditional (label_dim is 0)")
        if not isinstance(labels, Tensor):
            labels = torch.tensor(integer("labels", labels, 0, self.label_dim - 1))
        if labels.layout != torch.strided or (labels.is_meta and device.type != "meta"):
            raise TypeError(f"labels must be integers or floats in memory, got {shown(labels)}")
        labels, shape, classes = labels.to(device), tuple(labels.shape), self.label_dim
        if labels.is_floating_point():
            if shape != (batch, classes):
                raise ValueError(
                    f"labels must be ({batch},) integers or ({batch}, {classes}) floats, got {shape} floats"
                )
            return labels.to(self.dtype)
        if labels.dtype == torch.bool or labels.is_complex():
            raise TypeError(f"labels must be integers or floats, got {labels.dtype}")
        if shape not in ((), (batch,)):
            raise ValueError(f"integer labels must have shape ({batch},), got {shape}")
        if readable(labels) and bool(((labels < 0) | (labels >= classes)).any()):
            raise ValueError(f"labels must lie in 0 … {classes - 1}, got {labels.tolist()}")
        return F.one_hot(labels.long().expand(batch), classes).to(self.dtype)

    def _checked_augment_labels(self, augment_labels: Tensor | None, batch: int) -> Tensor | None:
        if augment_labels is None:
            return None
        if not self.model.augment_dim:
            raise ValueError("augment_labels must be None: this network has no augmentation input (augment_dim is 0)")
        self.model.check_form("augment_labels", augment_labels, batch, self.model.augment_dim)
        return augment_labels.to(self.dtype)

    def extra_repr(self) -> str:
        """One line for ``print``."""
        return f"img_resolution={self.img_resolution}, img_channels={self.img_channels}, label_dim={self.label_dim}"

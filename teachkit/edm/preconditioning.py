"""Preconditioning: how a network F of unit-scale signals becomes a denoiser D for every noise level.

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

The four coefficients keep what F sees and what it must predict at unit variance whether sigma is 0.002 or 80.  The
EDM choice follows from asking exactly that; VP, VE and iDDPM are earlier models written in the same form, so that one
sampler serves all.  Taught in ``notebooks/09_training_edm.ipynb``.

Reference: Karras et al. 2022 (arXiv 2206.00364), Section 5, Table 1 and Appendix B.6 and C.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import DhariwalUNet, SongUNet

NETWORKS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


def _readable(values: Tensor) -> bool:
    """Whether looking at the values costs nothing: not in a traced graph, not across a device queue."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


class Coefficients(NamedTuple):
    """The four functions of the noise level, each of the shape of sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Denoiser(nn.Module):
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
    """

    sigma_min: float
    sigma_max: float
    sigma_data: float = 0.5

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        model_type: str = "SongUNet",
        **model_kwargs: Any,
    ) -> None:
        super().__init__()
        if model_type not in NETWORKS:
            raise ValueError(f"model_type must be one of {sorted(NETWORKS)}, got {model_type!r}")
        self.img_resolution, self.img_channels, self.label_dim = img_resolution, img_channels, label_dim
        self.config: dict[str, Any] = {
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "label_dim": label_dim,
            "use_fp16": use_fp16,
            "model_type": model_type,
            **model_kwargs,
        }
        self.model = NETWORKS[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=self._network_channels(img_channels),
            label_dim=label_dim,
            **model_kwargs,
        )

    def _network_channels(self, img_channels: int) -> int:
        return img_channels

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
        raise TypeError("Denoiser is the base class: use EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond")

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level that the model knows; all of them but for models of discrete time."""
        return sigma

    def forward(
        self,
        x: Tensor,
        sigma: float | Tensor,
        labels: Tensor | int | None = None,
        *,
        augment_labels: Tensor | None = None,
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
        self,
        x: Tensor,
        sigma: float | Tensor,
        labels: Tensor | int | None = None,
        *,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """The network's own output F(c_in x; c_noise), in the dtype of the weights; arguments as for a call."""
        return self._evaluate(x, sigma, labels, augment_labels)[1]

    def _evaluate(
        self, x: Tensor, sigma: float | Tensor, labels: Tensor | int | None, augment_labels: Tensor | None
    ) -> tuple[Coefficients, Tensor]:
        self._check_images(x)
        batch, dtype = x.shape[0], self.dtype
        levels = self._checked_sigma(sigma, batch, x.device)  # (B or 1, 1, 1, 1)
        vectors = self._checked_labels(labels, batch, x.device)
        augment_labels = self._checked_augment_labels(augment_labels, batch)
        coefficients = self.coefficients(levels)
        scaled = (coefficients.c_in * x).to(dtype)
        raw = self.model(scaled, coefficients.c_noise.flatten(), vectors, augment_labels)
        return coefficients, raw[:, : self.img_channels]

    def _check_images(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"x must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")
        event = (self.img_channels, self.img_resolution, self.img_resolution)
        if x.ndim != 4 or tuple(x.shape[1:]) != event:
            raise ValueError(f"x must have shape (B, {', '.join(map(str, event))}), got {tuple(x.shape)}")

    def _checked_sigma(self, sigma: float | Tensor, batch: int, device: torch.device) -> Tensor:
        precision = torch.promote_types(self.dtype, torch.float32)
        levels = sigma if isinstance(sigma, Tensor) else torch.tensor(sigma, dtype=torch.float64)
        if levels.numel() not in (1, batch) or levels.ndim > 1:
            raise ValueError(f"sigma must be a number, a 0-d tensor or ({batch},), got shape {tuple(levels.shape)}")
        if _readable(levels) and not bool(((levels > 0) & (levels < math.inf)).all()):
            raise ValueError(f"sigma must be positive and finite, got {levels.tolist()}")
        return levels.to(device=device, dtype=precision).reshape(-1, 1, 1, 1)

    def _checked_labels(self, labels: Tensor | int | None, batch: int, device: torch.device) -> Tensor | None:
        if labels is None:
            return None
        if not self.label_dim:
            raise ValueError("labels must be None: this model is unconditional (label_dim is 0)")
        labels = torch.as_tensor(labels, device=device)
        if labels.is_floating_point():
            if tuple(labels.shape) != (batch, self.label_dim):
                raise ValueError(
                    f"labels must be ({batch},) integers or ({batch}, {self.label_dim}) floats, "
                    f"got {tuple(labels.shape)} floats"
                )
            return labels.to(self.dtype)
        if labels.dtype == torch.bool or labels.is_complex():
            raise TypeError(f"labels must be integers or floats, got {labels.dtype}")
        if tuple(labels.shape) not in ((), (batch,)):
            raise ValueError(f"integer labels must have shape ({batch},), got {tuple(labels.shape)}")
        if _readable(labels) and bool(((labels < 0) | (labels >= self.label_dim)).any()):
            raise ValueError(f"labels must lie in 0 … {self.label_dim - 1}, got {labels.tolist()}")
        return F.one_hot(labels.long().expand(batch), self.label_dim).to(self.dtype)

    def _checked_augment_labels(self, augment_labels: Tensor | None, batch: int) -> Tensor | None:
        if augment_labels is None:
            return None
        if not self.model.augment_dim:
            raise ValueError("augment_labels must be None: this network has no augmentation input (augment_dim is 0)")
        if tuple(augment_labels.shape) != (batch, self.model.augment_dim):
            raise ValueError(
                f"augment_labels must have shape ({batch}, {self.model.augment_dim}), got {tuple(augment_labels.shape)}"
            )
        return augment_labels.to(self.dtype)

    def extra_repr(self) -> str:
        """One line for ``print``."""
        return f"img_resolution={self.img_resolution}, img_channels={self.img_channels}, label_dim={self.label_dim}"


class EDMPrecond(Denoiser):
    """Unit variance at both ends of the network for data of standard deviation sigma_data (EDM).

        c_skip = sigma_data^2 / (sigma^2 + sigma_data^2)         c_in = 1 / sqrt(sigma^2 + sigma_data^2)
        c_out  = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)   c_noise = ln(sigma) / 4

    Parameters are those of :class:`Denoiser`, and ``sigma_min``, ``sigma_max``, ``sigma_data``.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix B.6.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "DhariwalUNet",
        **model_kwargs: Any,
    ) -> None:
        if not (0 <= sigma_min < sigma_max):
            raise ValueError(f"sigma_min must be at least 0 and below sigma_max, got {sigma_min} and {sigma_max}")
        if not (0 < sigma_data < math.inf):
            raise ValueError(f"sigma_data must be positive and finite, got {sigma_data}")
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, **model_kwargs)
        self.sigma_min, self.sigma_max, self.sigma_data = float(sigma_min), float(sigma_max), float(sigma_data)
        self.config |= {"sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data}

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """``(c_skip, c_out, c_in, c_noise)`` at ``sigma``."""
        variance = sigma.square() + self.sigma_data**2
        c_in = variance.rsqrt()
        return Coefficients(self.sigma_data**2 / variance, sigma * self.sigma_data * c_in, c_in, sigma.log() / 4)


class VPPrecond(Denoiser):
    """The variance-preserving model of score-SDE in variance-exploding coordinates.

        c_skip = 1    c_out = -sigma    c_in = 1 / sqrt(sigma^2 + 1)    c_noise = (M - 1) t(sigma)

    with sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1.

    Parameters
    ----------
    beta_d, beta_min
        Extent and start of the linear noise rate.
    M
        Number of time steps the network was trained with.
    epsilon_t
        Smallest training time.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix C.1.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        **model_kwargs: Any,
    ) -> None:
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, **model_kwargs)
        self.beta_d, self.beta_min, self.M, self.epsilon_t = beta_d, beta_min, M, epsilon_t
        self.sigma_min, self.sigma_max = self.sigma(epsilon_t), self.sigma(1.0)
        self.config |= {"beta_d": beta_d, "beta_min": beta_min, "M": M, "epsilon_t": epsilon_t}

    def sigma(self, t: float) -> float:
        """Noise level at time ``t`` of the original process."""
        return math.sqrt(math.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))

    def time(self, sigma: Tensor) -> Tensor:
        """Time of the original process at noise level ``sigma``: the inverse of :meth:`sigma`."""
        log_variance = sigma.square().log1p()
        # The rationalised root: no cancellation at small sigma.
        root = (self.beta_min**2 + 2 * self.beta_d * log_variance).sqrt()
        return 2 * log_variance / (root + self.beta_min)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """``(c_skip, c_out, c_in, c_noise)`` at ``sigma``."""
        c_in = (sigma.square() + 1).rsqrt()
        return Coefficients(torch.ones_like(sigma), -sigma, c_in, (self.M - 1) * self.time(sigma))


class VEPrecond(Denoiser):
    """The variance-exploding model of score-SDE.

        c_skip = 1    c_out = sigma    c_in = 1    c_noise = ln(sigma / 2)

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix C.2.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.02,
        sigma_max: float = 100.0,
        model_type: str = "SongUNet",
        **model_kwargs: Any,
    ) -> None:
        if not (0 <= sigma_min < sigma_max):
            raise ValueError(f"sigma_min must be at least 0 and below sigma_max, got {sigma_min} and {sigma_max}")
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, **model_kwargs)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.config |= {"sigma_min": sigma_min, "sigma_max": sigma_max}

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """``(c_skip, c_out, c_in, c_noise)`` at ``sigma``."""
        one = torch.ones_like(sigma)
        return Coefficients(one, sigma, one, (0.5 * sigma).log())


class iDDPMPrecond(Denoiser):
    """Improved DDPM with its cosine schedule of M discrete noise levels u_0 > ... > u_M = 0.

        c_skip = 1    c_out = -sigma    c_in = 1 / sqrt(sigma^2 + 1)    c_noise = M - 1 - argmin_j |u_j - sigma|

    The network predicts twice the channels; the second half, the variances, is not used here.

    Parameters
    ----------
    C_1, C_2
        Limit of the noise added per step, and offset of the cosine schedule.
    M
        Number of noise levels.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix C.3; Nichol and Dhariwal 2021 (arXiv 2102.09672).
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        model_type: str = "DhariwalUNet",
        **model_kwargs: Any,
    ) -> None:
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, **model_kwargs)
        self.M = M
        levels = [0.0] * (M + 1)
        signal = [math.sin(0.5 * math.pi * j / M / (C_2 + 1)) ** 2 for j in range(M + 1)]
        for j in range(M, 0, -1):
            ratio = max(signal[j - 1] / signal[j], C_1)
            levels[j - 1] = math.sqrt((levels[j] ** 2 + 1) / ratio - 1)
        self.levels = tuple(levels)
        self.sigma_min, self.sigma_max = levels[M - 1], levels[0]
        self.config |= {"C_1": C_1, "C_2": C_2, "M": M}

    def _network_channels(self, img_channels: int) -> int:
        return 2 * img_channels

    def _nearest(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        levels = torch.tensor(self.levels, device=sigma.device, dtype=sigma.dtype)
        index = (sigma[..., None] - levels).abs().argmin(dim=-1)
        return levels[index], index

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest of the model's noise levels."""
        return self._nearest(sigma)[0]

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """``(c_skip, c_out, c_in, c_noise)`` at ``sigma``."""
        c_noise = (self.M - 1 - self._nearest(sigma)[1]).to(sigma.dtype)
        return Coefficients(torch.ones_like(sigma), -sigma, (sigma.square() + 1).rsqrt(), c_noise)


PRECONDITIONINGS: dict[str, type[Denoiser]] = {
    cls.__name__: cls for cls in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)
}

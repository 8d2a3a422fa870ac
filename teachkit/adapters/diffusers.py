"""Networks of diffusers as denoisers D(x; sigma).

Such a network is called as ``unet(z, t)`` or ``unet(z, t, class_labels=labels)`` and answers with a record whose
``sample`` is its prediction; its scheduler knows the noise levels it was trained on and what it predicts. That is all
it takes: the rest is a conversion of predictions. Used in ``notebooks/12_real_gpu_models``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from teachkit.adapters.predictions import from_eps, from_v, from_x0
from teachkit.checks import batch, choice, shown
from teachkit.schedules import trained_levels

__all__ = ["from_diffusers"]

PREDICTIONS = {"epsilon": from_eps, "sample": from_x0, "v_prediction": from_v}  # by their names there


class DiffusersDenoiser(nn.Module):
    """A diffusers U-Net as ``D(x, sigma, labels=None)``; made by :func:`from_diffusers`.

    Attributes
    ----------
    sigma_min, sigma_max : float
        Smallest and largest noise level of its training.
    levels : tuple of float
        All of them, increasing.
    time : callable
        The function from sigma (B,) to the network's time step.
    img_channels, img_resolution, label_dim : int
        What the network says of its images, None where it does not, and of its classes, 0 without.
    """

    def __init__(self, unet: nn.Module, alphas_cumprod: Any, prediction_type: str) -> None:
        super().__init__()
        self.adapted = PREDICTIONS[prediction_type](_Called(unet), alphas_cumprod)
        self.prediction_type, self.time = prediction_type, self.adapted.time
        self.levels = tuple(trained_levels(alphas_cumprod).exp().tolist())
        self.sigma_min, self.sigma_max, self.sigma_data = self.levels[0], self.levels[-1], 0.5
        config = getattr(unet, "config", None)
        self.img_channels = getattr(config, "in_channels", None)
        self.img_resolution = getattr(config, "sample_size", None)
        self.label_dim = getattr(config, "num_class_embeds", None) or 0

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x0 | x] for ``x`` (B, C, H, W) at ``sigma``, a float, a 0-d tensor or (B,); ``labels`` (B,) integers."""
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
            raise ValueError(f"x must be floating-point images (B, C, H, W), got {shown(x)}")
        batch("x", x)
        if labels is not None and not self.label_dim:
            raise ValueError("labels must be None: this model is unconditional")
        return self.adapted(x, sigma, labels)


class _Called(nn.Module):
    """A network of diffusers, called as ``model(z, t, labels)``: in its own dtype, and its answer unpacked."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, z: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        given = next((p.dtype for p in self.unet.parameters()), z.dtype)
        classes = {} if labels is None else {"class_labels": labels}
        output = self.unet(z.to(given), t.to(torch.float32), **classes)
        return getattr(output, "sample", output).to(z.dtype)


def from_diffusers(unet: nn.Module, scheduler_or_alphas: Any, prediction_type: str | None = None) -> DiffusersDenoiser:
    """Wrap a diffusers ``UNet2DModel`` (or any module called the same way) as a denoiser.

    Parameters
    ----------
    unet : Module
        Called as ``unet(z, t)``, and with ``class_labels=`` where it is conditional; predicts for images z of unit
        scale.
    scheduler_or_alphas : object
        The scheduler it was trained with, of which ``alphas_cumprod`` and ``config.prediction_type`` are used; or the
        values of alphas_cumprod themselves, one per training step, decreasing inside (0, 1).
    prediction_type : str, optional
        "epsilon", "sample" or "v_prediction"; the scheduler's, or "epsilon", if None.

    Returns
    -------
    DiffusersDenoiser
        In evaluation mode.

    Raises
    ------
    TypeError
        For alphas that are not numbers.
    ValueError
        For impossible alphas or an unknown prediction type.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Appendix C; Salimans and Ho 2022 (arXiv 2202.00512) for v.

    Examples
    --------
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, z, t, class_labels=None):
    ...         return 0 * z
    >>> D = from_diffusers(Zero(), [0.9, 0.5, 0.1])
    >>> D(torch.ones(1, 1, 1, 2), sigma=2.0)
    tensor([[[[1., 1.]]]])
    >>> round(D.sigma_min, 4), round(D.sigma_max, 4)
    (0.3333, 3.0)
    """
    alphas = getattr(scheduler_or_alphas, "alphas_cumprod", scheduler_or_alphas)
    if prediction_type is None:
        prediction_type = getattr(getattr(scheduler_or_alphas, "config", None), "prediction_type", "epsilon")
    choice("prediction_type", prediction_type, tuple(PREDICTIONS))
    if not isinstance(unet, nn.Module):
        raise TypeError(f"unet must be a network called as unet(z, t), got {shown(unet)}")
    return DiffusersDenoiser(unet, alphas, prediction_type).eval()

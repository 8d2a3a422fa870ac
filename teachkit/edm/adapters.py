"""Networks from elsewhere as denoisers.

A DDPM-type network predicts the noise in a variance-preserving image z_t = sqrt(abar_t) (x0 + sigma_t eps), with
sigma_t^2 = (1 - abar_t) / abar_t.  Divided by sqrt(abar_t) that is the variance-exploding state x of this package, so

    D(x; sigma) = x - sigma eps(x / sqrt(1 + sigma^2); t(sigma))

Used in ``notebooks/12_real_gpu_models.ipynb``.

Reference: Karras et al. 2022 (arXiv 2206.00364), Appendix C; Ho et al. 2020 (arXiv 2006.11239).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from teachkit.adapters import time_index
from teachkit.checks import batch, choice, level, shown

PREDICTIONS = ("epsilon", "sample", "v_prediction")


class DiffusersDenoiser(nn.Module):
    """A diffusers U-Net as ``D(x, sigma, labels=None)``; made by :func:`from_diffusers`.

    Attributes
    ----------
    sigma_min, sigma_max
        Smallest and largest noise level of its training.
    levels
        All of them, increasing, float64.
    time
        The function from sigma (B,) to the network's time step: :func:`teachkit.adapters.time_index`.
    """

    def __init__(self, unet: nn.Module, alphas_cumprod: Any, prediction_type: str) -> None:
        super().__init__()
        self.unet, self.prediction_type = unet, prediction_type
        self.time = time_index(alphas_cumprod)  # refuses what is not a schedule
        abar = torch.as_tensor(alphas_cumprod, dtype=torch.float64).detach().cpu()
        variance = (1 - abar) / abar
        self.levels = tuple(variance.sqrt().tolist())
        self.sigma_min, self.sigma_max = self.levels[0], self.levels[-1]
        self.sigma_data = 0.5
        config = getattr(unet, "config", None)
        self.img_channels, self.img_resolution = (
            getattr(config, "in_channels", None),
            getattr(config, "sample_size", None),
        )
        self.label_dim = getattr(config, "num_class_embeds", None) or 0

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x0 | x] for ``x`` (B, C, H, W) at ``sigma``, a float, a 0-d tensor or (B,); ``labels`` (B,) integers."""
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
            raise ValueError(f"x must be floating-point images (B, C, H, W), got {shown(x)}")
        batch("x", x)
        if labels is not None and not self.label_dim:
            raise ValueError("labels must be None: this model is unconditional")
        levels = level("sigma", sigma, x, dtype=torch.promote_types(x.dtype, torch.float32)).flatten()
        dtype = next((p.dtype for p in self.unet.parameters()), x.dtype)
        levels = levels.expand(len(x))
        scale = (levels.square() + 1).rsqrt()[:, None, None, None]  # sqrt(abar)
        kwargs: dict[str, Any] = {} if labels is None else {"class_labels": labels}
        output = self.unet((scale * x).to(dtype), self.time(levels).to(torch.float32), **kwargs)
        prediction = getattr(output, "sample", output).to(levels.dtype)
        noise = levels[:, None, None, None]
        if self.prediction_type == "epsilon":
            result = x - noise * prediction
        elif self.prediction_type == "sample":
            result = prediction
        else:  # v = sqrt(abar) eps - sqrt(1 - abar) x0
            result = scale * (scale * x - noise * prediction)
        return result.to(x.dtype)


def from_diffusers(unet: nn.Module, scheduler_or_alphas: Any, prediction_type: str | None = None) -> DiffusersDenoiser:
    """Wrap a diffusers ``UNet2DModel`` (or any module called the same way) as a denoiser.

    Parameters
    ----------
    unet
        Called as ``unet(z, t)``, and with ``class_labels=`` where it is conditional; predicts for images z of unit
        scale.
    scheduler_or_alphas
        The scheduler it was trained with, of which ``alphas_cumprod`` and ``config.prediction_type`` are used; or the
        values of alphas_cumprod themselves, one per training step, decreasing inside (0, 1).
    prediction_type
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
    """
    alphas = getattr(scheduler_or_alphas, "alphas_cumprod", scheduler_or_alphas)
    if prediction_type is None:
        prediction_type = getattr(getattr(scheduler_or_alphas, "config", None), "prediction_type", "epsilon")
    choice("prediction_type", prediction_type, PREDICTIONS)
    if not isinstance(unet, nn.Module):
        raise TypeError(f"unet must be a network called as unet(z, t), got {shown(unet)}")
    return DiffusersDenoiser(unet, alphas, prediction_type).eval()

"""Networks of diffusers as denoisers D(x; sigma).

Such a network is called as ``unet(z, t)`` or ``unet(z, t, class_labels=labels)`` and answers with a record whose
``sample`` is its prediction; its scheduler knows the noise levels it was trained on and what it predicts. That is all
it takes: the rest is a conversion of predictions. Used in ``notebooks/17_real_gpu_models``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from teachkit.adapters.adapted import require_raw
from teachkit.adapters.families import FAMILIES
from teachkit.adapters.pipelines import PipelineDenoiser
from teachkit.checks import shown

__all__ = ["from_diffusers"]


def from_diffusers(unet: nn.Module, scheduler_or_alphas: Any, prediction_type: str | None = None) -> PipelineDenoiser:
    """Wrap a diffusers ``UNet2DModel`` (or any module called the same way) as a denoiser.

    Parameters
    ----------
    unet : Module
        Called as ``unet(z, t)``, and with ``class_labels=`` where it is conditional; predicts for images z of unit
        scale.
    scheduler_or_alphas : object
        The scheduler it was trained with, of which ``alphas_cumprod`` and ``config.prediction_type`` are used, or of
        flow matching the number of training steps and the shift; or the values of alphas_cumprod themselves, one per
        training step, decreasing inside (0, 1).
    prediction_type : str, optional
        "epsilon", "sample", "v_prediction" or "flow_prediction"; the scheduler's, or "epsilon", if None.

    Returns
    -------
    PipelineDenoiser
        ``D(x, sigma, labels=None)`` in evaluation mode, ``labels`` (B,) integers. The network runs in its own dtype
        whatever that of x; of 2 C channels for C, a learned variance beside, the first C are its prediction.

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
    if not isinstance(unet, nn.Module):
        raise TypeError(f"unet must be a network called as unet(z, t), got {shown(unet)}")
    require_raw("unet", unet)
    return PipelineDenoiser(unet, FAMILIES["UNet2DModel"], scheduler_or_alphas, prediction_type)

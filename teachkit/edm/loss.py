"""What an EDM network is trained on: noise levels, the weighted denoising loss, and label-aware augmentation.

The loss of one image at one noise level is lambda(sigma) |D(y + n; sigma) - y|^2 / d with
lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, which makes an untrained network's loss about 1 at every
level (Karras et al. 2022, arXiv 2206.00364, eqs. 2 and 8, Table 1). Taught in ``notebooks/12_training_edm``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from teachkit.checks import as_real, function, integer, level, number, real_tensor, shown
from teachkit.denoisers import default_dtype

__all__ = ["AUGMENT_DIM", "affine_augment", "edm_loss", "noise_levels", "validation_loss"]

AUGMENT_DIM = 4  # shift right, shift down, turn, log size


def noise_levels(
    uniform: Tensor,
    mean: float = -1.2,
    std: float = 1.2,
    log_uniform_share: float = 0.15,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Tensor:
    """Noise levels for training: log-normal, with a share of log-uniform ones.

    EDM's log-normal prior (exp(mean + std * normal)) almost never visits sigma near 80, 4.7 standard deviations out,
    where every sampling path starts; the log-uniform share covers [sigma_min, sigma_max] evenly.

    Parameters
    ----------
    uniform : (B,)
        Numbers from 0 to 1, one per image: random for training, evenly spaced for a fixed set of levels. In the
        log-uniform part 0 is ``sigma_min`` and 1, where all is log-uniform, ``sigma_max``.
    mean, std : float
        Mean and standard deviation of log sigma in the log-normal part.
    log_uniform_share : float
        Share of the log-uniform part, in [0, 1].
    sigma_min, sigma_max : float
        Ends of the log-uniform part.

    Returns
    -------
    Tensor
        ``(B,)`` levels > 0.

    Raises
    ------
    ValueError
        For a share outside [0, 1], a spread that is not positive, or ends out of order.

    Examples
    --------
    >>> noise_levels(torch.tensor([0.5]), log_uniform_share=0).log()
    tensor([-1.2000])
    """
    uniform = real_tensor("uniform", uniform, "(B,)")
    if uniform.ndim != 1 or not bool(((uniform >= 0) & (uniform <= 1)).all()):
        raise ValueError(f"uniform must hold numbers from 0 to 1, of shape (B,), got {shown(uniform)}")
    mean, std = number("mean", mean, -100, 100), number("std", std, above=0, most=100)
    sigma_min = number("sigma_min", sigma_min, above=0)
    sigma_max = number("sigma_max", sigma_max, above=sigma_min)
    log_uniform_share = number("log_uniform_share", log_uniform_share, least=0, most=1)
    dtype, share = torch.promote_types(uniform.dtype, torch.float32), log_uniform_share
    u = uniform.to(default_dtype(uniform.device))
    # One number decides both which part and where in it; what the other part would give is not looked at.
    in_uniform = (u < share) | (share == 1)
    within = torch.where(in_uniform, u / (share or 1), (u - share) / ((1 - share) or 1))
    log_normal = mean + std * math.sqrt(2) * torch.erfinv(2 * within.clamp(1e-6, 1 - 1e-6) - 1)
    even = (math.log(sigma_min) + within * (math.log(sigma_max) - math.log(sigma_min))).exp()
    even = even.where(within > 0, sigma_min).where(within < 1, sigma_max)  # exact ends
    return torch.where(in_uniform, even, log_normal.exp()).to(dtype)


def edm_loss(
    denoiser: Callable[..., Tensor],
    images: Tensor,
    sigma: Tensor,
    noise: Tensor,
    labels: Tensor | None = None,
    augment_labels: Tensor | None = None,
    sigma_data: float = 0.5,
) -> Tensor:
    """Weighted denoising loss of every image: lambda(sigma) * mean over pixels of (D(y + sigma noise) - y)^2.

    Parameters
    ----------
    denoiser : callable
        ``D(x, sigma, labels)``; called with ``augment_labels=`` only where those are given.
    images, noise : (B, C, H, W)
        Clean images y and standard normal noise.
    sigma : (B,)
        Noise levels.
    labels : optional
        (B,) classes or (B, K) weights.
    augment_labels : (B, A), optional
        What the augmentation did to the images.
    sigma_data : float
        Standard deviation of the data, in the weight.

    Returns
    -------
    Tensor
        ``(B,)``.

    Raises
    ------
    ValueError
        For shapes that do not belong together, or a ``sigma_data`` that is not positive.

    Examples
    --------
    >>> y, noise = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    >>> edm_loss(lambda x, sigma, labels: 0 * x, y, torch.ones(2), noise)  # right for these images
    tensor([0., 0.])
    """
    function("denoiser", denoiser, "D(x, sigma, labels)")
    for name, value in (("images", images), ("noise", noise), ("sigma", sigma)):
        real_tensor(name, value)
    if noise.shape != images.shape or images.ndim < 2:
        raise ValueError(f"noise must have the shape of images, got {tuple(noise.shape)} and {tuple(images.shape)}")
    if tuple(sigma.shape) != (len(images),):
        raise ValueError(f"sigma must have shape ({len(images)},), got {tuple(sigma.shape)}")
    sigma_data = number("sigma_data", sigma_data, above=0)
    levels = level("sigma", sigma, images, dtype=sigma.dtype)
    extra = {} if augment_labels is None else {"augment_labels": augment_labels}
    denoised = denoiser(images + levels * noise, sigma, labels, **extra)
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return weight * ((denoised - images) ** 2).flatten(1).mean(1)


@torch.no_grad()
def validation_loss(
    denoiser: Callable[..., Tensor],
    images: Tensor,
    labels: Tensor | None,
    sigmas: Sequence[float] | Tensor,
    sigma_data: float = 0.5,
    seed: int = 0,
    batch: int = 256,
) -> Tensor:
    """Mean weighted loss at each of ``sigmas`` with fixed noise, the same for every level.

    Parameters
    ----------
    denoiser : callable
        ``D(x, sigma, labels)``.
    images : (B, C, H, W)
        Clean images.
    labels : (B,) or (B, K), or None
        Their classes, or weights of them.
    sigma_data : float
        Standard deviation of the data, in the weight.
    sigmas : (S,)
        Noise levels > 0.
    seed : int
        For the noise.
    batch : int
        Images at a time; the result does not depend on it.

    Returns
    -------
    Tensor
        ``(S,)`` float64, on the CPU.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not belong together, or levels that are not positive.

    Examples
    --------
    >>> y = torch.zeros(2, 1, 4, 4)
    >>> validation_loss(lambda x, sigma, labels: 0 * x, y, None, [0.1, 10.0])
    tensor([0., 0.], dtype=torch.float64)
    """
    function("denoiser", denoiser, "D(x, sigma, labels)")
    if real_tensor("images", images, "(B, C, H, W)").ndim < 2 or len(images) == 0:
        raise ValueError(f"images must have shape (B, C, H, W) with at least one image, got {tuple(images.shape)}")
    batch, rng = integer("batch", batch, 1), torch.Generator().manual_seed(integer("seed", seed, 0))
    levels = as_real("sigmas", sigmas, torch.float64).double()
    if levels.ndim != 1 or levels.numel() == 0 or not bool(((levels > 0) & levels.isfinite()).all()):
        raise ValueError(f"sigmas must be finite levels > 0 of shape (S,), got {shown(sigmas)}")
    if labels is not None and (not isinstance(labels, Tensor) or labels.shape[:1] != images.shape[:1]):
        raise ValueError(f"labels must be a tensor with one entry for each image ({len(images)}), got {shown(labels)}")
    noise = torch.randn(images.shape, generator=rng, dtype=torch.float32).to(images)
    out = []
    for sigma in levels.tolist():
        total = 0.0
        for start in range(0, len(images), batch):
            rows = slice(start, start + batch)
            level = torch.full((len(images[rows]),), sigma, dtype=images.dtype, device=images.device)
            kept = None if labels is None else labels[rows]
            loss = edm_loss(denoiser, images[rows], level, noise[rows], kept, sigma_data=sigma_data)
            total += float(loss.double().sum())
        out.append(total / len(images))
    return torch.tensor(out, dtype=torch.float64)


def affine_augment(images: Tensor, parameters: Tensor, fill: float = -1.0) -> tuple[Tensor, Tensor]:
    """Shift, turn and resize images, and return the labels that tell the network what was done.

    With the labels as an input the network can learn from changed images without producing any (EDM, Appendix F.2):
    when sampling, the labels are zero.

    Parameters
    ----------
    images : (B, C, H, W)
        Clean images.
    parameters : (B, 4)
        Shift right and down (in widths), angle (radians), log of the size; a row of zeros leaves an image as it is.
    fill : float
        Value of the background.

    Returns
    -------
    images : (B, C, H, W)
    labels : (B, 4)
        The parameters, scaled to unit order.

    Raises
    ------
    ValueError
        For other shapes.

    Examples
    --------
    >>> turned, labels = affine_augment(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4))
    >>> bool((turned == 0).all()), labels.tolist()
    (True, [[0.0, 0.0, 0.0, 0.0]])
    """
    real_tensor("images", images), real_tensor("parameters", parameters)
    fill = number("fill", fill)
    if images.ndim != 4 or images.numel() == 0 or tuple(parameters.shape) != (len(images), AUGMENT_DIM):
        raise ValueError(
            f"need images (B, C, H, W) and parameters (B, {AUGMENT_DIM}), "
            f"got {tuple(images.shape)} and {tuple(parameters.shape)}"
        )
    dx, dy, angle, log_size = parameters.unbind(1)
    cos, sin = (angle.cos() * (-log_size).exp(), angle.sin() * (-log_size).exp())
    # grid_sample maps output to input positions: the inverse of the change wanted, across in half widths, down in half
    # heights.
    tall = images.shape[2] / images.shape[3]
    across = torch.stack([cos, sin * tall, -2 * (cos * dx + sin * dy)], 1)
    down = torch.stack([-sin / tall, cos, -2 * (-sin * dx + cos * dy) / tall], 1)
    grid = F.affine_grid(torch.stack([across, down], 1).to(images), list(images.shape), align_corners=False)
    moved = F.grid_sample(images - fill, grid, align_corners=False) + fill
    changed = (parameters != 0).any(1)
    return torch.where(changed[:, None, None, None], moved, images), parameters * parameters.new_tensor([8, 8, 4, 4])

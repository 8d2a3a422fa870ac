"""A small latent pipeline that stands in for one's own: an autoencoder of emoji, and a network in its latents.

It has what text-to-image pipelines of diffusers have (``unet``, ``scheduler``, ``vae``, ``encode_prompt``) and is asked
in the same way: what a lesson does with it is done with those as well. Made by ``tools/train_latents.py``; used in
``notebooks/18_your_own_model``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teachkit import checks, data, edm, schedules

__all__ = ["pipeline"]

AUTOENCODER, NETWORK = "latents-autoencoder.safetensors", "latents-network.safetensors"
STEPS, BETAS = 1000, (0.00085, 0.012)  # training steps of Stable Diffusion, and the ends of their betas
CLASSES = data.class_names("emoji32")


class Block(nn.Module):
    """Two convolutions around a shortcut, at one resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Autoencoder(nn.Module):
    """Pictures (B, 3, 32, 32) in [-1, 1] as latents (B, 4, 8, 8) of unit variance, and back: 0.85 million weights.

    Attributes
    ----------
    scale : Tensor
        What the encoder's answer is to be multiplied by to have unit variance over the training pictures;
        ``config.scaling_factor`` is its name in pipelines.

    Examples
    --------
    >>> Autoencoder().encode(torch.zeros(2, 3, 32, 32)).latents.shape
    torch.Size([2, 4, 8, 8])
    """

    scale: Tensor

    def __init__(self, width: int = 48, latent: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            Block(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            Block(2 * width),
            nn.Conv2d(2 * width, latent, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, 2 * width, 3, padding=1),
            Block(2 * width),
            Block(2 * width),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            Block(width),
            Block(width),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("scale", torch.ones(()))

    @property
    def config(self) -> SimpleNamespace:
        """What pipelines ask of it."""
        return SimpleNamespace(scaling_factor=float(self.scale))

    def encode(self, images: Tensor) -> SimpleNamespace:
        """Latents (B, 4, 8, 8), as ``.latents``, of pictures (B, 3, 32, 32); to be multiplied by the scaling factor."""
        return SimpleNamespace(latents=self.encoder(images))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        """Pictures (B, 3, 32, 32), as ``.sample``, of latents (B, 4, 8, 8) divided by the scaling factor."""
        return SimpleNamespace(sample=self.decoder(latents))


class UNet2DConditionModel(nn.Module):
    """The network in the latents, in the language of Stable Diffusion: it predicts the noise in z of unit variance.

    Inside is an `EDMPrecond` with classes. ``encoder_hidden_states`` (B, 1, 9) holds the class as a vector, zeros for
    none; ``timestep`` is the number of a training step, or a fraction between two.
    """

    def __init__(self, denoiser: edm.LearnedDenoiser, log_levels: Tensor) -> None:
        super().__init__()
        self.denoiser, self.log_levels = denoiser, log_levels
        self.config = SimpleNamespace(
            in_channels=denoiser.img_channels,
            out_channels=denoiser.img_channels,
            sample_size=denoiser.img_resolution,
            cross_attention_dim=denoiser.label_dim,
        )

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **_: Any) -> SimpleNamespace:
        """The noise in ``sample`` (B, 4, 8, 8), as ``.sample``."""
        levels = self.log_levels.to(sample.device)
        at = timestep.to(levels).expand(len(sample))
        low = at.floor().clamp(0, len(levels) - 2).long()
        sigma = torch.lerp(levels[low], levels[low + 1], at - low).exp()[:, None, None, None]
        x = sample.to(sigma) * (1 + sigma**2).sqrt()  # in double precision: x - D is small beside x
        denoised = self.denoiser(x, sigma.flatten(), encoder_hidden_states[:, 0])
        return SimpleNamespace(sample=((x - denoised) / sigma).to(sample.dtype))


class EulerScheduler:
    """Levels for Euler's method, set and asked for as diffusers' EulerDiscreteScheduler has it."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod, self.config = alphas_cumprod, SimpleNamespace(prediction_type="epsilon")
        self.sigmas: list[float] = []

    def set_timesteps(self, sigmas: Sequence[float]) -> None:
        """Take these levels, decreasing."""
        self.sigmas = schedules.validate(sigmas).tolist()

    @property
    def init_noise_sigma(self) -> float:
        """What noise of unit variance is multiplied by, to begin with."""
        return self.sigmas[0]

    def timestep(self, sigma: float) -> Tensor:
        """The training step of a level, a fraction between two, linear in log sigma."""
        trained, at = schedules.trained_levels(self.alphas_cumprod), torch.tensor(sigma, dtype=torch.float64).log()
        above = int((trained < at).sum().clamp(1, len(trained) - 1))
        part = (at - trained[above - 1]) / (trained[above] - trained[above - 1])
        return above - 1 + part.clamp(0, 1)


class LatentPipeline:
    """Network, autoencoder and scheduler together, called as a text-to-image pipeline is; made by `pipeline`.

    Attributes
    ----------
    unet, vae : Module
        The network in the latents, and the autoencoder.
    scheduler : EulerScheduler
        With ``alphas_cumprod`` (T,) of the training steps and ``config.prediction_type``.

    Examples
    --------
    >>> embeds, empty = pipeline().encode_prompt(["animals", "food"])
    >>> embeds.shape
    torch.Size([2, 1, 9])
    """

    def __init__(self, unet: UNet2DConditionModel, vae: Autoencoder, scheduler: EulerScheduler) -> None:
        self.unet, self.vae, self.scheduler = unet, vae, scheduler
        self.text_encoder, self.vae_scale_factor = _embedding, 4

    def encode_prompt(self, prompt: str | list[str], *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Embeddings (B, 1, 9) of prompts, each a word from the name of a class, and as many of the empty prompt."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        embeds = torch.stack([_embedding(checks.text("prompt", words)) for words in prompts])[:, None]
        embeds = embeds.to(next(self.unet.parameters()))
        return embeds, torch.zeros_like(embeds)

    @torch.no_grad()
    def __call__(
        self,
        prompt: list[str],
        *,
        latents: Tensor,
        sigmas: Sequence[float],
        guidance_scale: float = 1.0,
        output_type: str = "pt",
    ) -> SimpleNamespace:
        """Pictures (B, 3, 32, 32) in [0, 1], as ``.images``: Euler's method from unit noise ``latents`` (B, 4, 8, 8).

        Raises
        ------
        ValueError
            Unless there is one prompt for each of the latents; for levels that do not decrease.
        """
        checks.choice("output_type", output_type, ("pt",))
        asked, empty = self.encode_prompt(prompt)
        if len(asked) != len(latents):
            raise ValueError(f"prompt must be one text for each of {len(latents)} latents, got {len(asked)}")
        self.scheduler.set_timesteps(sigmas)
        x = latents * self.scheduler.init_noise_sigma
        for sigma, sigma_next in pairwise(self.scheduler.sigmas):
            z, t = x / (1 + sigma**2) ** 0.5, self.scheduler.timestep(sigma)
            noise, unasked = (self.unet(z, t, encoder_hidden_states=words).sample for words in (asked, empty))
            x = x + (sigma_next - sigma) * (unasked + guidance_scale * (noise - unasked))
        pictures = self.vae.decode(x / self.vae.config.scaling_factor).sample
        return SimpleNamespace(images=(pictures / 2 + 0.5).clamp(0, 1))


def _embedding(words: str) -> Tensor:
    """A class as a vector (9,), zeros for the empty prompt."""
    found = [words.lower() in name.lower() for name in CLASSES] if words else [False] * len(CLASSES)
    if words and sum(found) != 1:
        raise ValueError(f"prompt must be empty or a word from one of {', '.join(CLASSES)}; got {words!r}")
    return torch.tensor(found).float()


def pipeline(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LatentPipeline:
    """The pipeline that ships: colour emoji of 32 x 32 through 4 x 8 x 8 latents, with nine words for prompts.

    Parameters
    ----------
    device : torch.device or str
        Where network and autoencoder are put.
    dtype : torch.dtype
        Of their weights.

    Returns
    -------
    LatentPipeline
        ``pipe(prompts, latents=, sigmas=, guidance_scale=)``, with ``pipe.unet``, ``pipe.vae``, ``pipe.scheduler`` and
        ``pipe.encode_prompt``; a prompt is a word from the name of a class of emoji32.

    Raises
    ------
    TypeError, ValueError
        For what is no device, or no floating-point dtype.
    FileNotFoundError, ValueError
        If one of its files is missing, or not what was shipped.

    Examples
    --------
    >>> pipe = pipeline()
    >>> pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.scheduler.config.prediction_type
    (4, 8, 'epsilon')
    """
    from safetensors.torch import load_file

    place, kind = checks.device("device", device), checks.floating_dtype("dtype", dtype)
    vae = Autoencoder()
    vae.load_state_dict(load_file(data.verify(AUTOENCODER)))
    denoiser = edm.load(data.verify(NETWORK))
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, STEPS, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    unet = UNet2DConditionModel(denoiser, schedules.trained_levels(alphas))
    unet, vae = unet.eval().requires_grad_(False).to(place, kind), vae.eval().requires_grad_(False).to(place, kind)
    return LatentPipeline(unet, vae, EulerScheduler(alphas))

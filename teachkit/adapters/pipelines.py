"""Diffusers' pipelines as denoisers D(x; sigma) of their latents, with prompts, guidance and pictures.

A pipeline is a network, a scheduler that knows what it was trained on, perhaps encoders of text, perhaps an
autoencoder. `from_pipeline` takes them apart: the network's prediction becomes D, the prompts become labels that are
computed once, and ``decode`` turns latents into pictures. diffusers is not imported here, and `teachkit.sample` takes
the place of its loop.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teachkit.adapters.adapted import AdaptedDenoiser, Labels
from teachkit.adapters.families import (
    FAMILIES,
    Called,
    Family,
    converted,
    distills_guidance,
    encoder,
    family_of,
    fixed_conditions,
)
from teachkit.adapters.latents import component, decoded, encoded, latent_shape
from teachkit.adapters.prompts import Rows, embeddings, given_prompts
from teachkit.checks import integer, number, real_tensor, shown
from teachkit.denoisers import Denoiser

__all__ = ["from_pipeline"]


class PipelineDenoiser(nn.Module):
    """A network of diffusers as ``D(x, sigma, labels=None)``; made by `from_pipeline` and `from_diffusers`.

    Attributes
    ----------
    shape : tuple of int
        (C, h, w) of a state; None for a length that nothing tells.
    sigma_min, sigma_max : float
        Smallest and largest finite noise level of its training.
    levels : tuple of float
        All of them, increasing.
    time : callable
        The function from sigma (B,) to the network's time step.
    prediction_type : str
        "epsilon", "sample", "v_prediction" or "flow_prediction".
    guidance : float or None
        Its own guidance scale, if it has one; `teachkit.sample` then takes none.
    evaluations : int
        Of the network, for one call: 2 with guidance that needs a second one.
    img_channels, img_resolution, label_dim : int
        C; the network's ``sample_size``; how many classes, 0 without.
    """

    def __init__(
        self,
        network: nn.Module,
        family: Family,
        scheduler_or_alphas: Any,
        prediction_type: str | None = None,
        guidance: float | None = None,
        vae: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.adapted: AdaptedDenoiser
        self.adapted, self.prediction_type, self.levels = converted(
            Called(network, family), scheduler_or_alphas, prediction_type
        )
        self.vae, self.family, self.time = vae, family, self.adapted.time
        self.sigma_min, self.sigma_max, self.sigma_data = self.levels[0], self.levels[-1], 0.5
        config = getattr(network, "config", None)
        self.takes = family.takes(config)
        channels, size = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
        self.img_channels, self.img_resolution = channels and channels // family.packed**2, size
        self.label_dim = self.takes["class_labels"][1] if "class_labels" in self.takes else 0
        self.shape = (self.img_channels, *(size if isinstance(size, (tuple, list)) else (size, size)))
        self.prompts, self.negative, self.fixed = _Rows(), _Rows(), _Rows()
        self.guidance = guidance
        self.evaluations = 1 if guidance in (None, 1) or distills_guidance(config) else 2
        self.eval()

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Labels | None = None) -> Tensor:
        """E[x0 | x] for ``x`` (B, C, h, w) at ``sigma``, a float, a 0-d tensor or (B,), given the labels or prompt."""
        self._check(x)
        rows = self._prompt(x) if labels is None else self._conditions(x, labels)
        if self.evaluations == 1:
            return self._denoised(x, sigma, rows)
        free, own = self.unconditional(x, sigma), self._denoised(x, sigma, rows)
        return torch.lerp(free, own, self.guidance)  # type: ignore[arg-type]

    @property
    def unconditional(self) -> Denoiser:
        """The denoiser without a prompt, ``D.unconditional(x, sigma)``; a ValueError where there is none."""
        if not self.takes:
            raise ValueError("guidance must be None: this model is unconditional")
        if not self.negative and "class_labels" not in self.takes:
            raise ValueError(
                "guidance needs negative_embeds, the embeddings of the empty prompt: this pipeline cannot encode it"
            )
        return self._free

    @property
    def conditioned(self) -> bool:
        """Whether it was given a prompt, which ``D(x, sigma)`` then goes by."""
        return bool(self.prompts)

    def labels(self, n: int) -> Labels:
        """The prompts in turn, for a batch of n: class numbers (n,), or a dict of embeddings (n, ...)."""
        if not self.conditioned:
            raise ValueError("labels must be made from prompts, and this denoiser was given none")
        turn = torch.arange(integer("n", n, 1)) % self.prompts.count
        chosen = {name: part[turn.to(part.device)] for name, part in self.prompts.rows().items()}
        return chosen.get("class_labels", chosen)

    def decode(self, latents: Tensor, batch: int | None = None) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] from latents (B, C, h, w), ``batch`` at a time, in the autoencoder's dtype.

        Raises
        ------
        ValueError
            Without an autoencoder, or for latents of the wrong shape.
        """
        if self.vae is None:
            raise ValueError("decode needs an autoencoder, and this pipeline has none: its states are its pictures")
        self._check(real_tensor("latents", latents, "(B, C, h, w)"), "latents", self.shape[0])
        return decoded(self.vae, latents, batch)

    def encode(self, pictures: Tensor, batch: int | None = None) -> Tensor:
        """Latents (B, C, h, w) of pictures (B, 3, H, W) in [-1, 1]: the mean, where the encoder has a distribution.

        Raises
        ------
        ValueError
            Without an autoencoder, or for pictures of the wrong shape or range.
        """
        if self.vae is None:
            raise ValueError("encode needs an autoencoder, and this pipeline has none: its states are its pictures")
        self._check(real_tensor("pictures", pictures, "(B, 3, H, W)"), "pictures")
        if float(pictures.abs().max()) > 1.5:
            raise ValueError(f"pictures must lie in [-1, 1], got values up to {float(pictures.abs().max()):.3g}")
        return encoded(self.vae, pictures, batch)

    def _free(self, x: Tensor, sigma: float | Tensor, labels: None = None) -> Tensor:
        self._check(x)
        return self._denoised(x, sigma, self._nothing(x))

    def _nothing(self, x: Tensor) -> Rows:
        """The negative prompt, or the class that stands for none, or nothing where the network asks for nothing."""
        if self.family.null_class:
            return {"class_labels": torch.full((1,), self.label_dim, device=x.device)}
        if self.takes and "class_labels" not in self.takes and not self.negative:
            raise ValueError("labels must be given: this denoiser has neither a prompt nor negative_embeds")
        return self.negative.rows()

    def _prompt(self, x: Tensor) -> Rows:
        if self.prompts.count > 1:
            raise ValueError(f"labels must be given for {self.prompts.count} prompts: pass labels=D.labels(n)")
        return self.prompts.rows() if self.prompts else self._nothing(x)

    def _conditions(self, x: Tensor, labels: Labels) -> Rows:
        if not self.takes:
            raise ValueError("labels must be None: this model is unconditional")
        return embeddings("labels", labels, self.takes, len(x))

    def _denoised(self, x: Tensor, sigma: float | Tensor, rows: Rows) -> Tensor:
        together = {**self.fixed.rows(), **rows}
        each = {name: part.to(x.device).expand(len(x), *part.shape[1:]) for name, part in together.items()}
        return self.adapted(x, sigma, each or None)

    def _check(self, x: Any, name: str = "x", channels: int | None = None) -> None:
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or channels not in (None, x.shape[1]):
            wanted = "C" if channels is None else channels
            raise ValueError(f"{name} must be floating-point images (B, {wanted}, H, W), got {shown(x)}")


class _Rows(nn.Module):
    """Conditions by name, one row per prompt, as buffers: they move with the network and are part of what it is."""

    def __init__(self, rows: Rows | None = None) -> None:
        super().__init__()
        for name, part in (rows or {}).items():
            self.register_buffer(name, part)

    @property
    def count(self) -> int:
        """How many rows."""
        return len(next(iter(self.rows().values()), ()))

    def __bool__(self) -> bool:
        return self.count > 0

    def rows(self) -> Rows:
        """The conditions as a dict."""
        return dict(self.named_buffers())


def from_pipeline(
    pipe: Any,
    prompt: str | int | Sequence[str] | Sequence[int] | Tensor | None = None,
    *,
    prompt_embeds: Tensor | Mapping[str, Tensor] | None = None,
    negative_embeds: Tensor | Mapping[str, Tensor] | None = None,
    negative_prompt: str | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    scheduler: Any = None,
    prediction_type: str | None = None,
) -> PipelineDenoiser:
    """Wrap a pipeline of diffusers as a denoiser of its latents.

    Supported are pipelines around a UNet2DConditionModel with text (Stable Diffusion 1 and 2, SDXL), a UNet2DModel
    (DDPM), a DiTTransformer2DModel with classes, an SD3Transformer2DModel and a FluxTransformer2DModel. Noise levels
    are sigma = sqrt(1 / abar - 1), and s / (1 - s) for flow matching: those of `teachkit.sample`, whatever scheduler
    and shift the pipeline has. The state is x = x0 + sigma * noise; diffusers' state is x / sqrt(1 + sigma^2) or,
    for flow matching, x / (1 + sigma).

    Parameters
    ----------
    pipe : diffusers' DiffusionPipeline
        Its network is put into evaluation mode and used where it lies and in its dtype, whatever the state's.
    prompt : str, int or a list of them, optional
        What to condition on: texts, encoded once and now; class numbers, or names that the pipeline knows. With one of
        them ``D(x, sigma)`` is conditioned on it, with several ``labels=D.labels(n)`` must be passed, with none
        ``D(x, sigma)`` is unconditional.
    prompt_embeds : (P, n, width) tensor or dict of tensors, optional
        In place of ``prompt``, embeddings by the names that diffusers has for them: ``prompt_embeds``, and
        ``pooled_prompt_embeds`` (P, width) where the network takes that too.
    negative_embeds : tensor or dict of tensors, optional
        The same, of one row, for the unconditional denoiser; by default ``negative_prompt`` is encoded, where the
        pipeline has encoders. Only guidance, and D without prompt, need it.
    negative_prompt : str, optional
        The empty one by default (zeros, where the pipeline is set to have zeros for it).
    guidance : float, optional
        Have D guided by itself: D_free + w (D_prompt - D_free), two calls of the network one after the other (one at
        w = 1), the same numbers as ``sample(..., guidance=w)`` gives for D without. A model with distilled guidance
        takes w as its input, in one call, and needs it.
    height, width : int, optional
        Of the pictures in pixels; by default what the network's configuration says.
    scheduler : object, optional
        In place of the pipeline's, the scheduler that the network was trained with: IPNDMScheduler and
        the EDM ones do not know their alphas_cumprod. Or the (T,) values of alphas_cumprod themselves.
    prediction_type : str, optional
        "epsilon", "sample", "v_prediction" or "flow_prediction"; what the scheduler says by default.

    Returns
    -------
    PipelineDenoiser
        ``D(x, sigma, labels=None)`` with ``labels`` a dict of embeddings or a tensor, one row per sample;
        ``D.unconditional(x, sigma)``, ``D.labels(n)``, ``D.decode(latents)``, ``D.encode(pictures)``, ``D.shape``,
        ``D.sigma_min``, ``D.sigma_max``, ``D.levels``, ``D.time``.

    Raises
    ------
    TypeError
        For what is no pipeline, and for embeddings that are no tensors.
    ValueError
        For a pipeline or a network of another kind, a text without encoders, embeddings of the wrong shape, guidance
        without negative embeddings, and what the configuration does not tell.

    Notes
    -----
    A wrong convention, as when a model is converted twice or a shift is put on times that have it, gives no error. It
    shows in the noise that D removes: for clean latents x0 and noise n the error of D(x0 + sigma n) is below sigma
    times that of n at every level, and near 0 at the smallest one. Pure noise at sigma_max should give the mean.

    To start the pipeline itself from the state x at sigma that `sample` starts from, give it as ``latents``
    x / (1 + sigma) for flow matching (packed, for FLUX), x / sqrt(1 + sigma^2) for schedulers on that scale (DDIM,
    DPMSolverMultistep, UniPC), x / scheduler.init_noise_sigma, read after set_timesteps, for EulerDiscreteScheduler.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Appendix C; Ho and Salimans 2022 (arXiv 2207.12598) for guidance.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class UNet2DModel(torch.nn.Module):  # what is used of diffusers'
    ...     config = SimpleNamespace(in_channels=1, sample_size=8)
    ...     def forward(self, z, t):
    ...         return 0 * z
    >>> scheduler = SimpleNamespace(alphas_cumprod=[0.9, 0.5, 0.1])
    >>> D = from_pipeline(SimpleNamespace(unet=UNet2DModel(), scheduler=scheduler))
    >>> D.shape, round(D.sigma_max, 3), float(D(torch.ones(1, *D.shape), 2.0).mean())
    ((1, 8, 8), 3.0, 1.0)
    """
    network, family = _network(pipe)
    config = network.config
    if guidance is not None:
        guidance = number("guidance", guidance)
    elif distills_guidance(config):
        raise ValueError("guidance must be given: this model takes the scale as an input")
    trained = pipe.scheduler if scheduler is None else scheduler
    vae = component(pipe, "vae", "vqvae")
    D = PipelineDenoiser(network, family, trained, prediction_type, guidance, vae)
    D.shape = latent_shape(pipe, D.shape, family.packed, height, width)
    place = next(network.parameters(), torch.empty(0)).device
    fixed = fixed_conditions(pipe, config, D.shape, guidance)
    encode = encoder(pipe, family, D.takes, place)
    prompts, negative = given_prompts(pipe, D.takes, encode, prompt, prompt_embeds, negative_embeds, negative_prompt)
    if prompts and negative and any(torch.equal(row, other) for row in _first(prompts) for other in _first(negative)):
        warnings.warn(
            "prompt_embeds hold a row that is the negative prompt, with which samples are drawn without a prompt: give "
            "the two apart, as prompt_embeds and negative_embeds",
            stacklevel=2,
        )
    D.prompts, D.negative, D.fixed = (_Rows(rows).to(place) for rows in (prompts, negative, fixed))
    if D.evaluations == 2:
        _ = D.unconditional  # there must be one
    return D


def _first(rows: Rows) -> Tensor:
    return next(iter(rows.values()))


def _network(pipe: Any) -> tuple[nn.Module, Family]:
    """The network of a pipeline and what kind it is; an error that names those supported for any other."""
    network = component(pipe, "unet", "transformer")
    if not isinstance(network, nn.Module) or getattr(pipe, "scheduler", None) is None:
        bare = "; of a network alone use from_diffusers(unet, scheduler)" * isinstance(pipe, nn.Module)
        got = type(pipe).__name__ if bare else shown(pipe)
        raise TypeError(f"pipe must be a pipeline of diffusers, with a network and a scheduler, got {got}{bare}")
    family, config = family_of(network), getattr(network, "config", None)
    if family is None or config is None:
        raise ValueError(f"pipe must have one of {', '.join(FAMILIES)}, got {type(network).__name__}")
    beside = [name for name in ("controlnet", "adapter") if getattr(pipe, name, None) is not None]
    outputs = getattr(config, "out_channels", None) or config.in_channels
    if outputs not in (config.in_channels, 2 * config.in_channels):
        beside.append(f"{config.in_channels} channels to predict {outputs}")
    if beside:
        raise ValueError(f"pipe must take latents and a prompt alone, got one that takes also: {', '.join(beside)}")
    return network, family

"""How the networks of diffusers' pipelines are called, what they are conditioned on, and what their schedulers say.

One row of `FAMILIES` for each kind of network, found by the name of its class: diffusers itself is never imported. A
row says how the network is called, and of each condition how many axes it has and its size: the last axis of an
embedding, the number of classes of what has one axis. Times follow from the scheduler: a step's index for one of
``alphas_cumprod``; for flow matching the number of training steps times s = sigma / (1 + sigma), whatever its shift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teachkit.adapters.adapted import AdaptedDenoiser
from teachkit.adapters.latents import pixels_per_latent
from teachkit.adapters.predictions import from_eps, from_v, from_velocity, from_x0
from teachkit.adapters.prompts import Encode, Rows, Takes, fitting
from teachkit.checks import choice, integer, number, shown
from teachkit.schedules import trained_levels

PREDICTIONS = {"epsilon": from_eps, "sample": from_x0, "v_prediction": from_v}  # by their names there
FLOW = "flow_prediction"


@dataclass(frozen=True)
class Family:
    """A kind of network: how it is called as ``call(network, z, t, **conditions)``, and what its conditions are."""

    call: Callable[..., Any]
    takes: Callable[[Any], Takes]
    encode: tuple[tuple[str, Any], ...] = ()  # encode_prompt's arguments beside the usual
    encoded: tuple[str, ...] = ("prompt_embeds", "", "pooled_prompt_embeds")  # what it returns then, in turn
    null_class: bool = False  # the number after the last class stands for none
    packed: int = 1  # latents side by side that the network sees as one, along each axis


def _text_unet(
    unet: nn.Module,
    z: Tensor,
    t: Tensor,
    prompt_embeds: Tensor,
    pooled_prompt_embeds: Tensor | None = None,
    time_ids: Tensor | None = None,
    timestep_cond: Tensor | None = None,
) -> Any:
    added = None if time_ids is None else {"text_embeds": pooled_prompt_embeds, "time_ids": time_ids}
    further = {"added_cond_kwargs": added, "timestep_cond": timestep_cond}
    return unet(z, t, encoder_hidden_states=prompt_embeds, **{k: v for k, v in further.items() if v is not None})


def _text_unet_takes(config: Any) -> Takes:
    width = getattr(config, "encoder_hid_dim", None) or config.cross_attention_dim
    if not isinstance(width, int):
        raise ValueError(f"pipe must have a U-Net with one width of cross-attention, got {shown(width)}")
    kind = getattr(config, "addition_embed_type", None)
    if kind not in (None, "text_time") or getattr(config, "class_embed_type", None) is not None:
        raise ValueError(
            f"pipe must have a U-Net conditioned on text alone, got one that also takes {kind or 'classes'}"
        )
    takes = {"prompt_embeds": (3, width)}
    if kind == "text_time":  # SDXL: the size and the crop of the picture are six numbers, embedded beside the text
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        takes["pooled_prompt_embeds"] = (2, pooled)
    return takes


def _class_unet(unet: nn.Module, z: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Any:
    return unet(z, t) if class_labels is None else unet(z, t, class_labels=class_labels)


def _class_unet_takes(config: Any) -> Takes:
    classes = getattr(config, "num_class_embeds", None)
    return {"class_labels": (1, classes)} if classes else {}


def _dit(transformer: nn.Module, z: Tensor, t: Tensor, class_labels: Tensor) -> Any:
    return transformer(z, timestep=t, class_labels=class_labels)


def _sd3(transformer: nn.Module, z: Tensor, t: Tensor, prompt_embeds: Tensor, pooled_prompt_embeds: Tensor) -> Any:
    return transformer(
        hidden_states=z, timestep=t, encoder_hidden_states=prompt_embeds, pooled_projections=pooled_prompt_embeds
    )


def _flux(
    transformer: nn.Module,
    z: Tensor,
    t: Tensor,
    prompt_embeds: Tensor,
    pooled_prompt_embeds: Tensor,
    guidance: Tensor | None = None,
) -> Tensor:
    """Squares of 2 x 2 latents are one token each; the ids are the row and the column of a token, 0 for text."""
    B, C, h, w = z.shape
    tokens = z.unfold(2, 2, 2).unfold(3, 2, 2)  # (B, C, h/2, w/2, 2, 2)
    rows, columns = torch.meshgrid(torch.arange(h // 2), torch.arange(w // 2), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
    out = transformer(
        hidden_states=tokens.permute(0, 2, 3, 1, 4, 5).reshape(B, -1, 4 * C),
        timestep=t / 1000,  # the network multiplies by 1000
        guidance=guidance,
        pooled_projections=pooled_prompt_embeds,
        encoder_hidden_states=prompt_embeds,
        txt_ids=z.new_zeros(prompt_embeds.shape[1], 3),
        img_ids=ids.to(z),
    )
    squares = getattr(out, "sample", out).reshape(B, h // 2, w // 2, C, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(B, C, h, w)


def _pooled(config: Any) -> Takes:
    return {
        "prompt_embeds": (3, config.joint_attention_dim),
        "pooled_prompt_embeds": (2, config.pooled_projection_dim),
    }


_ALONE = ("do_classifier_free_guidance", False)

FAMILIES = {
    "UNet2DConditionModel": Family(_text_unet, _text_unet_takes, encode=(_ALONE,)),
    "UNet2DModel": Family(_class_unet, _class_unet_takes),
    "DiTTransformer2DModel": Family(
        _dit, lambda config: {"class_labels": (1, config.num_embeds_ada_norm)}, null_class=True
    ),
    "SD3Transformer2DModel": Family(_sd3, _pooled, encode=(_ALONE, ("prompt_2", None), ("prompt_3", None))),
    "FluxTransformer2DModel": Family(_flux, _pooled, encoded=("prompt_embeds", "pooled_prompt_embeds"), packed=2),
}


class Called(nn.Module):
    """A network as ``model(z, t, conditions)``, the conditions a dict by the names of its family."""

    def __init__(self, network: nn.Module, family: Family) -> None:
        super().__init__()
        self.network, self.family = network, family

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network says of its own dtype."""
        return getattr(self.network, "dtype", None)

    def forward(self, z: Tensor, t: Tensor, conditions: Rows | None = None) -> Any:
        """The network's prediction."""
        return self.family.call(self.network, z, t, **(conditions or {}))


def family_of(network: Any) -> Family | None:
    """The row of a network, compiled or not, by the name of its class or of one it comes from."""
    plain = getattr(network, "_orig_mod", network)
    return next((FAMILIES[c.__name__] for c in type(plain).__mro__ if c.__name__ in FAMILIES), None)


def converted(
    network: nn.Module, scheduler_or_alphas: Any, prediction_type: str | None
) -> tuple[AdaptedDenoiser, str, tuple[float, ...]]:
    """A network called as ``network(z, t, conditions)`` as D, what it predicts, and the levels of its training."""
    config = getattr(scheduler_or_alphas, "config", None)
    flow = any(c.__name__.startswith("FlowMatch") for c in type(scheduler_or_alphas).__mro__)
    kind = getattr(config, "prediction_type", FLOW if flow else "epsilon")
    kind = choice("prediction_type", kind if prediction_type is None else prediction_type, (*PREDICTIONS, FLOW))
    if (
        kind == FLOW
        and hasattr(scheduler_or_alphas, "alphas_cumprod")
        and not getattr(config, "use_flow_sigmas", False)
    ):
        raise ValueError(f"prediction_type must be one of {', '.join(PREDICTIONS)} for a scheduler with alphas_cumprod")
    if getattr(config, "timestep_type", "discrete") != "discrete" or getattr(config, "invert_sigmas", False):
        raise ValueError("scheduler must count discrete steps from the data on, got one with times of its own")
    if kind == FLOW:
        steps = integer("num_train_timesteps", getattr(config, "num_train_timesteps", 1000), 2)
        levels = _shift(scheduler_or_alphas, config) * torch.arange(1, steps) / torch.arange(steps - 1, 0, -1)
        return from_velocity(network, time_scale=steps), kind, tuple(levels.tolist())
    alphas = getattr(scheduler_or_alphas, "alphas_cumprod", scheduler_or_alphas)
    if alphas is scheduler_or_alphas and config is not None:
        raise ValueError(
            f"scheduler must be of flow matching or have alphas_cumprod, got {type(scheduler_or_alphas).__name__}; "
            "give scheduler= the one the model was trained with"
        )
    if isinstance(alphas, Tensor) and alphas.ndim == 1 and len(alphas) > 2 and not alphas.is_meta and alphas[-1] == 0:
        alphas = alphas[:-1]  # a last step of nothing but noise: its sigma is infinite
    return PREDICTIONS[kind](network, alphas), kind, tuple(trained_levels(alphas).exp().tolist())


def _shift(scheduler: Any, config: Any) -> float:
    """The factor on sigma of a flow-matching scheduler; 1 where it depends on the picture."""
    if getattr(config, "use_dynamic_shifting", False):
        return 1.0
    said = (getattr(scheduler, "shift", None), getattr(config, "shift", None), getattr(config, "flow_shift", None))
    return number("shift", next((value for value in said if value is not None), 1.0), above=0)


def encoder(pipe: Any, family: Family, takes: Takes, device: torch.device) -> Encode | None:
    """The pipeline's own way from texts to embeddings; None without text encoders."""
    encoders = [getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")]
    if not callable(getattr(pipe, "encode_prompt", None)) or not any(one is not None for one in encoders):
        return None

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Rows:
        out = pipe.encode_prompt(prompt=list(texts), device=device, num_images_per_prompt=1, **dict(family.encode))
        rows = dict(zip(family.encoded, out))
        return {name: fitting(f"encode_prompt's {name}", rows[name], form, len(texts)) for name, form in takes.items()}

    return encode


def distills_guidance(config: Any) -> bool:
    """Whether a network takes the guidance scale as an input."""
    return bool(getattr(config, "guidance_embeds", False)) or getattr(config, "time_cond_proj_dim", None) is not None


def fixed_conditions(pipe: Any, config: Any, shape: tuple[Any, ...], guidance: float | None) -> Rows:
    """What a network takes that does not depend on the prompt, one row: the picture's size, the guidance scale."""
    rows: Rows = {}
    if getattr(config, "addition_embed_type", None) == "text_time":
        size = [float(length * pixels_per_latent(pipe)) for length in shape[1:]]
        rows["time_ids"] = torch.tensor([[*size, 0.0, 0.0, *size]])  # as it was, where it was cropped, as it is wanted
    if getattr(config, "guidance_embeds", False):
        rows["guidance"] = torch.tensor([guidance])
    elif distills_guidance(config):
        scale = torch.tensor([guidance]) - 1  # consistency models count from 0
        rows["timestep_cond"] = pipe.get_guidance_scale_embedding(scale, embedding_dim=config.time_cond_proj_dim)
    return rows

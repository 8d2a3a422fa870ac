"""Prompts for diffusers' networks: texts, class numbers or embeddings as conditions of the right form.

Conditions are a dict of tensors, one row per sample, by the names that diffusers has for them: ``prompt_embeds``,
``pooled_prompt_embeds``, ``class_labels``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from teachkit.checks import as_real, real_tensor, shown

Rows: TypeAlias = dict[str, Tensor]
Takes: TypeAlias = dict[str, tuple[int, int]]  # of a condition its axes, and its last axis' length or its classes
Encode: TypeAlias = Callable[[Sequence[str]], Rows]


def given_prompts(
    pipe: Any,
    takes: Takes,
    encode: Encode | None,
    prompt: Any = None,
    prompt_embeds: Any = None,
    negative_embeds: Any = None,
    negative_prompt: Any = None,
) -> tuple[Rows, Rows]:
    """The conditions of the prompts and of the negative one, {} for none; ``encode`` makes embeddings of texts."""
    asked = {"prompt": prompt, "prompt_embeds": prompt_embeds, "negative_embeds": negative_embeds}
    asked["negative_prompt"] = negative_prompt
    asked = {name: value for name, value in asked.items() if value is not None}
    if {"prompt", "prompt_embeds"} <= set(asked) or {"negative_embeds", "negative_prompt"} <= set(asked):
        raise ValueError(f"give a text or embeddings, not both; got {', '.join(asked)}")
    if not takes and asked:
        raise ValueError(f"{next(iter(asked))} must be None: this model is unconditional")
    if "class_labels" in takes:
        if set(asked) - {"prompt"}:
            raise ValueError(f"{', '.join(set(asked) - {'prompt'})} must be None: this model takes classes, as prompt=")
        return ({} if prompt is None else class_numbers(pipe, prompt, takes["class_labels"][1])), {}
    if not takes:
        return {}, {}

    def of_text(name: str, text: Any) -> Rows:
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, Sequence) or not texts or not all(isinstance(one, str) for one in texts):
            raise TypeError(f"{name} must be a text or a list of texts, got {shown(text)}")
        if encode is None:
            raise ValueError(f"{name} needs text encoders, and this pipeline has none: give embeddings")
        return encode(texts)

    prompts = {} if prompt is None else of_text("prompt", prompt)
    if prompt_embeds is not None:
        prompts = checked(embeddings("prompt_embeds", prompt_embeds, takes))
    if negative_embeds is not None:
        return prompts, checked(embeddings("negative_embeds", negative_embeds, takes, 1))
    if negative_prompt is None and encode is None:
        return prompts, {}
    negative = of_text("negative_prompt", negative_prompt or "")
    if negative_prompt is None and getattr(getattr(pipe, "config", None), "force_zeros_for_empty_prompt", False):
        negative = {name: torch.zeros_like(part) for name, part in negative.items()}
    return prompts, negative


def fitting(name: str, value: Any, form: tuple[int, int], rows: int | None = None) -> Tensor:
    """A condition of the right form for the network: embeddings, or class numbers."""
    axes, size = form
    count = "rows" if rows is None else str(rows)
    wanted = {1: f"({count},) integers below {size}", 2: f"({count}, {size}) floats", 3: f"({count}, n, {size}) floats"}
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor of {wanted[axes]}, got {shown(value)}")
    right = value.ndim == axes and len(value) > 0 and rows in (None, len(value))
    if axes == 1:
        right = right and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    else:
        right = right and value.is_floating_point() and value.shape[-1] == size and value.numel() > 0
    if not right:
        raise ValueError(f"{name} must be {wanted[axes]}, got {shown(value)}")
    return value


def checked(rows: Rows) -> Rows:
    """Embeddings whose numbers are finite."""
    return {name: real_tensor(name, part) for name, part in rows.items()}


def embeddings(name: str, given: Any, takes: Takes, count: int | None = None) -> Rows:
    """Conditions as a dict: a dict as it is, a tensor as the only one there is; their forms checked."""
    first = next(iter(takes))
    rows = dict(given) if isinstance(given, Mapping) else {first: given}
    if set(rows) != set(takes):
        wanted = ", ".join(takes)
        raise ValueError(f"{name} must be {'a tensor, or ' * (len(takes) == 1)}a dict of {wanted}; got {shown(given)}")
    for key, value in rows.items():
        fitting(f"{name}[{key!r}]" if isinstance(given, Mapping) else name, value, takes[key], count)
    if len({len(value) for value in rows.values()}) > 1:
        raise ValueError(f"{name} must have one number of rows, got {[len(value) for value in rows.values()]}")
    return rows


def class_numbers(pipe: Any, prompt: Any, classes: int) -> Rows:
    """Classes as a tensor, from numbers or from the names that the pipeline knows."""
    given = [prompt] if isinstance(prompt, (str, int)) else prompt
    if isinstance(given, Sequence) and all(isinstance(one, str) for one in given):
        if not getattr(pipe, "labels", None):
            raise ValueError(
                f"prompt must be class numbers: this pipeline knows no names of classes, got {shown(prompt)}"
            )
        given = pipe.get_label_ids(list(given))
    numbers = fitting("prompt", as_real("prompt", given), (1, classes))
    if not bool(((numbers >= 0) & (numbers < classes)).all()):
        raise ValueError(f"prompt must be class numbers from 0 to {classes - 1}, got {numbers.tolist()}")
    return {"class_labels": numbers.long()}

"""Prompts for diffusers' networks: texts, class numbers or embeddings as conditions of the right form.

Conditions are a dict of tensors, one row per sample, by the names that diffusers has for them: ``prompt_embeds``,
``pooled_prompt_embeds``, ``class_labels``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from teachkit.checks import as_real, class_labels, real_tensor, shown

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
        prompts = embeddings("prompt_embeds", prompt_embeds, takes)
    if negative_embeds is not None:
        return prompts, embeddings("negative_embeds", negative_embeds, takes, 1)
    if negative_prompt is None and encode is None:
        return prompts, {}
    negative = of_text("negative_prompt", "" if negative_prompt is None else negative_prompt)
    if len(next(iter(negative.values()))) != 1:
        raise ValueError(f"negative_prompt must be one text, got {shown(negative_prompt)}")
    if negative_prompt is None and getattr(getattr(pipe, "config", None), "force_zeros_for_empty_prompt", False):
        negative = {name: torch.zeros_like(part) for name, part in negative.items()}
    return prompts, negative


def fitting(name: str, value: Any, form: tuple[int, int], rows: int | None = None) -> Tensor:
    """A condition of the right form for the network: embeddings, or class numbers."""
    axes, size = form
    count = "rows" if rows is None else str(rows)
    if axes == 1:
        if not isinstance(value, Tensor) or value.ndim != 1 or len(value) == 0 or rows not in (None, len(value)):
            raise ValueError(f"{name} must be a tensor of ({count},) class numbers, got {shown(value)}")
        numbers = class_labels(name, value, len(value), value.device)
        if int(numbers.max()) >= size:
            raise ValueError(f"{name} must be class numbers from 0 to {size - 1}, got {int(numbers.max())}")
        return numbers
    wanted = f"({count}, {'n, ' * (axes == 3)}{size})"
    real = real_tensor(name, value, wanted)
    if real.ndim != axes or real.shape[-1] != size or real.numel() == 0 or rows not in (None, len(real)):
        raise ValueError(f"{name} must be a floating-point tensor {wanted}, got {shown(value)}")
    return real


def embeddings(name: str, given: Any, takes: Takes, count: int | None = None) -> Rows:
    """Conditions as a dict: a dict as it is, a tensor as the only one there is; their forms checked."""
    first = next(iter(takes))
    rows = dict(given) if isinstance(given, Mapping) else {first: given}
    if set(rows) != set(takes):
        wanted = ", ".join(takes)
        raise ValueError(f"{name} must be {'a tensor, or ' * (len(takes) == 1)}a dict of {wanted}; got {shown(given)}")
    label = "{}[{!r}]" if isinstance(given, Mapping) else "{}"
    rows = {key: fitting(label.format(name, key), value, takes[key], count) for key, value in rows.items()}
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
    return {"class_labels": fitting("prompt", as_real("prompt", given), (1, classes))}

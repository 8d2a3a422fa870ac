"""The words of a model card, and what differs in them from set to set: `model_card` measures the numbers."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from teachkit import data, edm, metrics
from teachkit.edm.recipes import Recipe

STEPS = 25  # of Heun's method: 49 evaluations
NUMBERS = {9: "Nine", 10: "Ten"}


@dataclass(frozen=True)
class Judge:
    """A classifier that ships."""

    file: str
    probabilities: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """What a network was trained on, and how to speak of it."""

    one: str
    many: str
    source: str
    licence: str
    zoom: int  # of the picture of samples
    samples: int = 500
    judge: Judge | None = None
    classified: str = "a {}"  # as what a picture of a class is classified
    makes: str = "writes"
    note: str = ""  # on the training
    split: str = ""  # on what was held out
    looked_at: tuple[str, ...] = ()  # what a person sees in the samples


SUBJECTS = {
    "mnist5k": Subject(
        "digit",
        "digits",
        "5,000 digits of MNIST",
        "MNIST, as CC BY-SA 3.0",
        zoom=2,
        judge=Judge("digit-features.safetensors", metrics.digit_probabilities, metrics.digit_features),
    ),
    "digits8": Subject(
        "digit",
        "digits",
        "1,797 digits of the UCI repository",
        "Optical Recognition of Handwritten Digits, CC BY 4.0",
        zoom=6,
    ),
    "emoji32": Subject(
        "emoji",
        "emoji",
        "6,920 emoji of four designs, labelled by category",
        "Apache 2.0, CC BY 4.0 and MIT, by design: `licences/README.md`",
        zoom=2,
        samples=270,
        judge=Judge("emoji-features.safetensors", metrics.emoji_probabilities, metrics.emoji_features),
        classified="{}",
        makes="drew",
        note="Trained on a CPU, for the first of the three cycles that were planned (3,000,064 images).",
        split="Emoji were held out in all their designs at once, not picture by picture: the interval is a little too "
        "narrow.",
        looked_at=(
            "To the eye: faces, signs and flags are told at a glance, but signs bear strokes that are no letters and "
            "flags are of no country. Most animals, plants, food, activities and objects are shapes in the colours of "
            "emoji that nobody could name.",
        ),
    ),
}


def counted(share: float, count: int) -> str:
    """A share of ``count`` with its exact 95 % interval."""
    value, low, high = metrics.proportion(round(share * count), count)
    return f"{value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def weaknesses(recipe: Recipe, found: dict[str, Any]) -> str:
    """What the figures say against the model, as a list."""
    loss, clear, quantiles = found["loss"], found["clarity"], found["copies"]["quantiles"]
    subject, names = SUBJECTS[recipe.data], data.class_names(recipe.data)
    one, many, points = subject.one, subject.many, list(subject.looked_at)
    if subject.judge:
        told = clear["frechet_samples"] > clear["frechet_floor"][2]
        points += [
            f"{1 - clear['clear_samples']:.1%} of the samples are no clear {one} of the class asked for "
            f"({1 - clear['clear_real']:.1%} of the real {many} are none either).",
            f"The Fréchet distance of {found['samples']} samples lies "
            + (
                f"above that of as many real {many}: the sets can be told apart."
                if told
                else f"where that of as many real {many} does: so few tell nothing either way."
            ),
            f"Without labels {1 - clear['confident_unlabelled']:.0%} of the samples are no clear {one}: give labels.",
        ]
    worst = min(range(len(names)), key=lambda k: clear["right_by_class"][k])
    points.append(
        f"The worst class is {names[worst]}: {clear['right_by_class'][worst]:.0%} of its samples are classified as "
        f"{subject.classified.format(names[worst])}."
    )
    gaps = [1 - t / h for t, h in zip(loss["training"], loss["held_out"])]
    at = max(range(len(gaps)), key=lambda i: gaps[i])
    sign = "it has begun to fit" if gaps[at] > 0.05 else "no sign of fitting"
    points.append(
        f"On training {many} the loss is at most {gaps[at]:.1%} below that on held-out ones, "
        f"at sigma = {loss['sigmas'][at]:.4g}: {sign} its training {many}."
    )
    near, chance = found["copies"]["nearest_is_training"], found["copies"]["chance"]
    if near > chance[2]:
        points.append(
            f"The nearest real {one} is one trained on for {near:.1%} of the samples, where chance gives "
            f"{chance[1]:.1%} to {chance[2]:.1%}: they lean a little towards single training {many}."
        )
    medians = {k: quantiles[k][3] for k in ("samples", f"held-out {many}")}
    farther = medians["samples"] / medians[f"held-out {many}"] - 1
    if farther > 0.05:
        points.append(
            f"Samples lie {farther:.0%} farther from the training {many} than real {many} do (medians, below): "
            f"some have shapes that nobody {subject.makes}."
        )
    return "\n".join(textwrap.fill("- " + point, 120, subsequent_indent="  ") for point in points)


def quality(recipe: Recipe, found: dict[str, Any], held_out: int) -> str:
    """How good the samples are: by the classifier that ships, or by the nearest training picture."""
    subject, clear, count = SUBJECTS[recipe.data], found["clarity"], found["samples"]
    many = subject.many
    if subject.judge is None:
        return f"""\
No classifier of these {many} ships; the class of the nearest training {subject.one} stands in for one. It is right for
{counted(clear["right_real"], held_out)} of the {held_out} held-out real {many},
and equals the class asked for in {counted(clear["right_samples"], count)} of {count} samples (in brackets exact 95 %
intervals)."""
    frechet = {k: f"{clear[f'frechet_{k}']:.0f}" for k in ("real", "samples")}
    floor = "{:.0f} [{:.0f}, {:.0f}]".format(*clear["frechet_floor"])
    size = {"real": held_out, "samples": count, "unlabelled": found["unlabelled"]}
    sure, right, both = (
        {k: counted(clear[f"{what}_{k}"], n) for k, n in size.items() if f"{what}_{k}" in clear}
        for what in ("confident", "right", "clear")
    )
    each = count // recipe.network["label_dim"]
    return f"""\
Judged by the classifier in `{subject.judge.file}`, which has seen none of the held-out {many}:

| | more than 90 % sure | class as asked for | both | Fréchet distance to the training {many} |
|---|---:|---:|---:|---:|
| {count} samples, {each} a class | {sure["samples"]} | {right["samples"]} | {both["samples"]} | {frechet["samples"]} |
| {found["unlabelled"]} samples without labels | {sure["unlabelled"]} | | | |
| {size["real"]} held-out real {many} | {sure["real"]} | {right["real"]} | {both["real"]} | {frechet["real"]} |
| floor: {count} real {many}, drawn anew | | | | {floor} |

The Fréchet distance is in the classifier's 64 features and never 0 for so few pictures. The floor says what to compare
it with: {count} real {many} against all others, most of which the classifier has seen; 200 draws, their median and
where the middle 95 % lie. A distance within the floor says nothing against the samples, and little for them. In
brackets behind shares are exact 95 % intervals."""


def by_class(recipe: Recipe, clear: dict[str, Any], count: int) -> str:
    """Class as asked for, class by class; of real pictures too, where that was measured."""
    names = data.class_names(recipe.data)
    every, least = count // len(names), metrics.proportion(count // len(names), count // len(names)).low
    ours, real = clear["right_by_class"], clear.get("right_by_class_real")
    rows = {"samples": ours, "held-out": real} if real else {"": ours}
    lead = "| " if real else ""
    cells = "\n".join(
        (f"| {k} " if real else "") + f"| {' | '.join(f'{v:.0%}' for v in row)} |" for k, row in rows.items()
    )
    return f"""\
Class as asked for, by class:

{lead}| {" | ".join(names)} |
{"|---" if real else ""}|{"---:|" * len(names)}
{cells}

With {every} samples of each class, 100% means at least {least:.0%} (95 % confidence)."""


def course(found: dict[str, Any]) -> str:
    """How the held-out loss fell, at some of the levels."""
    log = found["log"]
    levels = list(log[0]["held_out"])[2::2]
    rows = (f"| {row['images']:,} | " + " | ".join(f"{row['held_out'][k]:.4f}" for k in levels) + " |" for row in log)
    head = f"| images seen | {' | '.join(f'sigma = {k}' for k in levels)} |\n|{'---:|' * (len(levels) + 1)}"
    return "\n".join((head, *rows))


def card(name: str, recipe: Recipe, found: dict[str, Any]) -> str:
    """The text of the model card, every number from ``found``."""
    file, loss, near = found["file"], found["loss"], found["copies"]
    chance, subject = near["chance"], SUBJECTS[recipe.data]
    one, many, classes = subject.one, subject.many, recipe.network["label_dim"]
    held_out = len(data.split(data.load(recipe.data))[1].images)
    side, count = recipe.network["img_resolution"], found["samples"]
    table = "\n".join(
        f"| {s:.4g} | {h:.4f} | {t:.4f} | {u:.4f} |"
        for s, h, t, u in zip(loss["sigmas"], loss["held_out"], loss["training"], loss["held_out_without_labels"])
    )
    distances = "\n".join(f"| {k} | " + " | ".join(f"{v:.2f}" for v in q) + " |" for k, q in near["quantiles"].items())
    kind = type(edm.load(f"edm-{name}").model).__name__
    shown = f"edm-{name}-samples.png"
    options = dataclasses.asdict(recipe)
    options.pop("tags")
    network = ", ".join(f"{k} {v}" for k, v in options.pop("network").items())
    settings = ", ".join(f"{k} {v}" for k, v in options.items() if v is not None)
    note = textwrap.fill("- " + subject.note, 120, subsequent_indent="  ") + "\n" if subject.note else ""
    split = subject.split + "\n" if subject.split else ""
    return f"""# edm-{name}: a small EDM model of {side}×{side} {many}

![{NUMBERS[classes]} {many} in each of seven rows: the top row, above a grey line, is real; below are samples.]({shown})

*Top row: real {many}, held out. Below: the first six samples of each class (not chosen), Heun's method, {STEPS} steps.*

Written by `tools/model_card.py`, which measured every number here; they are also in `edm-{name}.json`.

- **What**: an `EDMPrecond` denoiser around a `{kind}`, {file["parameters"]:,} parameters, stored in
  {file["stored"]} ({file["bytes"]:,} bytes). Class-conditional; without labels it is unconditional, so guidance works.
- **Use**: `teachkit.edm.load("edm-{name}")` gives `D(x, sigma, labels=None)`.
- **For**: lessons and quick experiments on one CPU core. Not for recognising {many}, nor for anything else.

## Training

- **Data**: {subject.source} (`{recipe.data}`, scaled to [-1, 1]), without numbers 0, 10, 20, …, which are the
  held-out {many} below (`teachkit.data.split`).
- **Recipe**: `teachkit train {name}` (`RECIPES["{name}"]`); {file["images"]:,} images were seen.
  The noise levels are EDM's log-normal ones (P_mean -1.2, P_std 1.2), {recipe.log_uniform_share:.0%} of them replaced
  by log-uniform ones from 0.002 to 80, where every sampling path starts.
{note}- **Settings**: {settings}.
- **Network**: {network}.
- **sigma_data** is {recipe.sigma_data}; the standard deviation of the training pixels is
  {loss["sigma_data_measured"]:.4f}.
- To repeat it: run that command, then `python tools/model_card.py {name}`. Batches and noise depend on the
  seed alone, but rounding depends on the machine and the version of torch: expect nearly the same numbers.

Held-out loss (as below) in the course of it:

{course(found)}

## Loss per noise level

EDM's weighted loss, lambda(sigma) times the mean squared error per pixel, which is about 1 for an untrained network
at every level; the averaged weights as they are stored. Training {many} are as many as the held-out ones.

| sigma | held-out | training | held-out, no labels |
|---:|---:|---:|---:|
{table}

Averaged over EDM's log-normal prior: **{loss["log_normal"]:.4f}** ± {loss["log_normal_error"]:.4f} on held-out {many}
({loss["log_normal_sigma_data_0.5"]:.4f} with the weight of sigma_data = 0.5). Storing float16 changes the held-out
loss by at most {file["float16_difference"]:.3%} at any level.

## Samples

{quality(recipe, found, held_out)}

Doubling the steps of the solver moves {found["converged_count"]} of the samples by {found["converged"]:.4f} per pixel
(root mean square; pixels go from -1 to 1).

{by_class(recipe, found["clarity"], count)}

## Weaknesses

{weaknesses(recipe, found)}

## Does it copy?

Euclidean distance to the nearest training {one}:

| from | least | 1 % | 5 % | median | 95 % |
|---|---:|---:|---:|---:|---:|
{distances}

A model that copies has samples far nearer to the training set than unseen real {many} are. And of
**{near["nearest_is_training"]:.1%}** of the samples the nearest of all real {many} is one trained on. A model that
remembers no single {one} gets {chance[0]:.1%}, for so many of the {many} were trained on, and had others been held
out, between {chance[1]:.1%} and {chance[2]:.1%} (95 % of 2,000 splits drawn anew). A model that only copies gets 100 %.
{split}
## Licence

The weights are under the MIT licence, like the code. The {many} they were trained on keep theirs ({subject.licence}).
"""

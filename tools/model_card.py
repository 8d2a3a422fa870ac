"""Export a trained model and write its card: ``python tools/model_card.py mnist --run-dir runs/mnist``.

Takes the averaged weights of a run of ``teachkit train``, stores them as data/edm-NAME.safetensors
(in float16 if the held-out loss shows no difference), and measures what data/edm-NAME.md says: the held-out loss per
noise level, samples beside real pictures, how sure a classifier is of them, and whether they are copies of training
pictures. The words are in `card_text`, with what differs from set to set. The figures are also in data/edm-NAME.json,
with the log of the run; the card has no number from elsewhere. The checksum of the weights goes into
data/checksums.json (and, by hand, into the table of data/README.md). ``--export-only`` stops after the weights;
``--again`` measures samples of the weights that ship anew, ``--redraw`` writes text and picture again from the .json
file. All of it takes a few minutes on one CPU core, for emoji a quarter of an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import checksums
import torch
from card_text import STEPS, SUBJECTS, card
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from teachkit import data, edm, metrics, sample
from teachkit.edm.loss import edm_loss, noise_levels, validation_loss
from teachkit.edm.recipes import RECIPES, Recipe
from teachkit.edm.training import load_ema, validation_sigmas
from teachkit.noise import initial_noise
from teachkit.schedules import polynomial

DATA = Path(__file__).resolve().parents[1] / "data"
INDISTINGUISHABLE = 0.002  # relative difference in held-out loss below which float16 storage is taken


def export(name: str, recipe: Recipe, run_dir: Path) -> dict[str, Any]:
    """Store the averaged weights, in float16 if that costs nothing, and say what was compared."""
    trained = load_ema(recipe, run_dir)
    state = torch.load(run_dir / "checkpoint.pt", map_location="cpu", weights_only=True)
    images = state["step"] * recipe.batch
    held_out = data.split(data.load(recipe.data))[1]
    note = {
        "trained": f"teachkit train {name}",
        "images": str(images),
        "recipe": json.dumps(dataclasses.asdict(recipe), sort_keys=True),
        "held_out": "samples 0, 10, 20, ... of " + recipe.data,
        "licence": "MIT",
    }
    sigmas = validation_sigmas()
    with tempfile.TemporaryDirectory() as folder:
        half = edm.load(edm.save(trained, Path(folder) / "half.safetensors", torch.float16, note))
        losses = [
            validation_loss(d, held_out.images, held_out.labels, sigmas, recipe.sigma_data) for d in (trained, half)
        ]
    difference = float((losses[1] / losses[0] - 1).abs().max())
    dtype = torch.float16 if difference < INDISTINGUISHABLE else torch.float32
    path = edm.save(trained, DATA / f"edm-{name}.safetensors", dtype, note)
    checksums.record(path)
    return {
        "images": images,
        "finished": images >= recipe.images,
        "parameters": sum(p.numel() for p in trained.parameters()),
        "bytes": path.stat().st_size,
        "stored": str(dtype).removeprefix("torch."),
        "float16_difference": difference,
        "held_out": losses[dtype == torch.float16].tolist(),
    }


def measure_losses(denoiser: edm.LearnedDenoiser, recipe: Recipe, held_out_loss: list[float]) -> dict[str, Any]:
    """Loss per noise level on held-out and training pictures, and averaged over EDM's log-normal prior."""
    train, held_out = data.split(data.load(recipe.data))
    rows = torch.linspace(0, len(train.images) - 1, len(held_out.images)).long()
    sigmas = validation_sigmas()
    training = validation_loss(denoiser, train.images[rows], train.labels[rows], sigmas, recipe.sigma_data).tolist()
    unlabelled = validation_loss(denoiser, held_out.images, None, sigmas, recipe.sigma_data).tolist()
    rng, repeats = torch.Generator().manual_seed(1), 4
    images, labels = held_out.images.repeat(repeats, 1, 1, 1), held_out.labels.repeat(repeats)
    uniform = (torch.randperm(len(images), generator=rng) + 0.5) / len(images)
    sigma = noise_levels(uniform, log_uniform_share=0)
    noise = torch.randn(images.shape, generator=rng)
    with torch.no_grad():
        parts = [
            edm_loss(denoiser, images[r], sigma[r], noise[r], labels[r], sigma_data=recipe.sigma_data)
            for r in torch.arange(len(images)).split(250)
        ]
    each = torch.cat(parts)
    reweighted = each * noise_weight(sigma, 0.5) / noise_weight(sigma, recipe.sigma_data)
    return {
        "sigmas": sigmas.tolist(),
        "held_out": held_out_loss,
        "training": training,
        "held_out_without_labels": unlabelled,
        "log_normal": float(each.mean()),
        "log_normal_error": float(each.std() / math.sqrt(len(each))),
        "log_normal_sigma_data_0.5": float(reweighted.mean()),
        "sigma_data_measured": float(train.images.std()),
    }


def noise_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """EDM's lambda(sigma)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def draw(denoiser: edm.LearnedDenoiser, labels: Tensor | None, count: int, steps: int, seed: int) -> Tensor:
    """Samples by Heun's method on EDM's schedule: ``(count, C, H, W)`` in [-1, 1]."""
    side = denoiser.img_resolution
    noise = initial_noise(count, (denoiser.img_channels, side, side), seed=seed, dtype=torch.float32)
    finals = [
        sample(
            denoiser, noise[rows], polynomial(steps), "heun", labels=None if labels is None else labels[rows],
            keep="final",
        ).final
        for rows in torch.arange(count).split(100)
    ]  # fmt: skip
    return torch.cat(finals).float().clamp(-1, 1)


def nearest(a: Tensor, b: Tensor, itself: bool = False) -> tuple[Tensor, Tensor]:
    """Distance from every image of ``a`` to the nearest of ``b``, and which; ``itself`` leaves out equal positions."""
    distances = torch.cdist(a.flatten(1).double(), b.flatten(1).double())
    if itself:
        distances.fill_diagonal_(math.inf)
    return tuple(distances.min(1))  # type: ignore[return-value]


def copies(samples: Tensor, recipe: Recipe) -> dict[str, Any]:
    """Is a sample nearer to a training picture than a real, unseen one is, and is the nearest one of these too often?

    Samples that do not depend on which were held out have their nearest among the training pictures as often as
    the sizes of the two sets say. How far a share strays from that by chance is found by drawing the split anew, with
    the samples kept: an exact test, whatever the samples look like.
    """
    train, held_out = data.split(data.load(recipe.data))
    many = SUBJECTS[recipe.data].many
    sets = {
        "samples": nearest(samples, train.images)[0],
        f"held-out {many}": nearest(held_out.images, train.images)[0],
        f"training {many} (to another one)": nearest(train.images, train.images, itself=True)[0],
    }
    levels = torch.tensor([0.01, 0.05, 0.5, 0.95], dtype=torch.float64)
    rng, every = torch.Generator().manual_seed(2), torch.cat([train.images, held_out.images])
    found, trained_on = nearest(samples, every)[1], torch.arange(len(every)) < len(train.images)
    chance = [float(trained_on[torch.randperm(len(every), generator=rng)][found].double().mean()) for _ in range(2000)]
    return {
        "quantiles": {k: [float(v.min()), *torch.quantile(v, levels).tolist()] for k, v in sets.items()},
        "nearest_is_training": float(trained_on[found].double().mean()),
        "chance": [len(train.images) / len(every), *spread(chance)],
    }


def spread(values: list[float]) -> list[float]:
    """Between which two numbers the middle 95 % of repeated draws lie."""
    return torch.quantile(torch.tensor(values, dtype=torch.float64), torch.tensor([0.025, 0.975]).double()).tolist()


def frechet_floor(features: Tensor, count: int, draws: int = 200) -> list[float]:
    """Fréchet distance of ``count`` real pictures to all others, drawn again and again: median, and the middle 95 %."""
    rng, found = torch.Generator().manual_seed(3), []
    for _ in range(draws):
        rows = torch.randperm(len(features), generator=rng)
        found.append(float(metrics.frechet_distance(features[rows[:count]], features[rows[count:]])))
    return [sorted(found)[draws // 2], *spread(found)]


def clarity(samples: Tensor, labels: Tensor, unlabelled: Tensor, recipe: Recipe) -> dict[str, Any]:
    """How sure a classifier is of the samples, and how far their features are from those of real pictures."""
    train, held_out = data.split(data.load(recipe.data))
    judge = SUBJECTS[recipe.data].judge
    if judge is None:  # no classifier of these ships: the nearest training picture decides
        real = train.labels[nearest(held_out.images, train.images)[1]]
        ours = train.labels[nearest(samples, train.images)[1]]
        return {
            "right_real": float((real == held_out.labels).double().mean()),
            "right_samples": float((ours == labels).double().mean()),
            "right_by_class": by_class(ours == labels, labels),
        }
    result: dict[str, Any] = {}
    for kind, images, wanted in (
        ("real", held_out.images, held_out.labels), ("samples", samples, labels), ("unlabelled", unlabelled, None),
    ):  # fmt: skip
        confidence, found = judge.probabilities(images).max(1)
        result[f"confident_{kind}"] = float((confidence > 0.9).double().mean())
        if wanted is not None:
            result[f"right_{kind}"] = float((found == wanted).double().mean())
            result[f"clear_{kind}"] = float(((found == wanted) & (confidence > 0.9)).double().mean())
            result[f"right_by_class_{kind}"] = by_class(found == wanted, wanted)
    real, unseen, drawn = (judge.features(images) for images in (train.images, held_out.images, samples))
    result["frechet_real"] = float(metrics.frechet_distance(unseen, real))
    result["frechet_samples"] = float(metrics.frechet_distance(drawn, real))
    result["right_by_class"] = result.pop("right_by_class_samples")
    return result | {"frechet_floor": frechet_floor(torch.cat([real, unseen]), len(samples))}


def by_class(right: Tensor, labels: Tensor) -> list[float]:
    """Share of ``right`` among the pictures of each class."""
    return [float(right[labels == k].double().mean()) for k in range(int(labels.max()) + 1)]


def picture(name: str, samples: Tensor, labels: Tensor, recipe: Recipe) -> Path:
    """A column per class: held-out pictures in the top row, a grey line, the first samples below."""
    held_out, classes = data.split(data.load(recipe.data))[1], recipe.network["label_dim"]
    real = torch.stack([held_out.images[held_out.labels == k][1] for k in range(classes)])
    rows = [torch.stack([samples[labels == k][i] for k in range(classes)]) for i in range(6)]
    zoom = SUBJECTS[recipe.data].zoom
    strips = [
        torch.cat([F.pad(image, (1, 1, 1, 1), value=recipe.background) for image in row], 2)  # (C, H, W)
        .repeat_interleave(zoom, 1)
        .repeat_interleave(zoom, 2)
        for row in (real, *rows)
    ]
    line = torch.zeros(len(real[0]), 4, strips[0].shape[2])
    pixels = torch.cat([strips[0], line, *strips[1:]], 1).movedim(0, 2)
    path = DATA / f"edm-{name}-samples.png"
    bytes_ = ((pixels + 1) * 127.5).round().to(torch.uint8)
    Image.fromarray((bytes_ if pixels.shape[2] == 3 else bytes_[..., 0]).numpy()).save(path, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--run-dir", type=Path, help="default: runs/RECIPE")
    parser.add_argument("--redraw", action="store_true", help="write text and picture again from the .json file")
    parser.add_argument("--again", action="store_true", help="measure samples of the weights that ship anew")
    parser.add_argument("--export-only", action="store_true", help="write the weights, measure nothing else")
    options = parser.parse_args()
    name, recipe, start = options.recipe, RECIPES[options.recipe], time.monotonic()
    run_dir = options.run_dir or Path("runs") / name
    classes, count = recipe.network["label_dim"], SUBJECTS[recipe.data].samples
    labels = torch.arange(count) % classes
    if options.redraw:
        found = json.loads((DATA / f"edm-{name}.json").read_text())
        shown = labels[: 6 * classes]
        picture(name, draw(edm.load(f"edm-{name}"), shown, len(shown), STEPS, seed=1), shown, recipe)
        (DATA / f"edm-{name}.md").write_text(card(name, recipe, found))
        return
    if options.again:
        found = json.loads((DATA / f"edm-{name}.json").read_text())
        denoiser = edm.load(f"edm-{name}")
    else:
        file = export(name, recipe, run_dir)
        print(f"{time.monotonic() - start:.0f} s", file, flush=True)
        if options.export_only:
            return
        denoiser = edm.load(f"edm-{name}")
        found = {"file": file, "loss": measure_losses(denoiser, recipe, file.pop("held_out"))}
        found["log"] = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
        print(f"{time.monotonic() - start:.0f} s", found["loss"]["log_normal"], flush=True)
    samples = draw(denoiser, labels, count, STEPS, seed=1)
    found |= {"samples": len(samples), "unlabelled": 100, "converged_count": classes}
    finer = draw(denoiser, labels[:classes], classes, 2 * STEPS, seed=1)
    found["converged"] = float((finer - samples[:classes]).square().mean().sqrt())
    unlabelled = draw(denoiser, None, 100, STEPS, seed=2)
    found["clarity"] = clarity(samples, labels, unlabelled, recipe)
    found["copies"] = copies(samples, recipe)
    print(f"{time.monotonic() - start:.0f} s", found["clarity"], found["copies"], flush=True)
    picture(name, samples, labels, recipe)
    (DATA / f"edm-{name}.json").write_text(json.dumps(rounded(found), indent=1) + "\n")
    (DATA / f"edm-{name}.md").write_text(card(name, recipe, found))


def rounded(value: Any) -> Any:
    """Numbers to six digits, which is what they are worth."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()

"""Train one small network on 16, 64, 256 and all 1,617 digits: ``python tools/memorisation.py --run-dir runs/memory``.

The same network, the same number of steps, from the same first weights; only how many different digits it sees
differs. At a few moments of each run 200 samples are drawn from one noise, and data/memorisation.json receives how far
they lie from the digits trained on, and the loss on these and on the 180 held-out ones. Lesson *Learned against
optimal* draws that file. Stopped, it goes on from the run directory; about half an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import checksums
import torch
from torch import Tensor

from teachkit import data, initial_noise, sample, schedules
from teachkit.data import Dataset
from teachkit.edm.denoiser import LearnedDenoiser
from teachkit.edm.loss import validation_loss
from teachkit.edm.recipes import RECIPES, Recipe
from teachkit.edm.training import train, validation_sigmas
from teachkit.files import write_whole

OUT = Path(__file__).resolve().parents[1] / "data" / "memorisation.json"
SIZES = (16, 64, 256, 1617)
STEPS = (125, 250, 500, 1000, 2000)
SAMPLES, SHOWN = 200, 10
RECIPE = Recipe(
    data="digits8",
    network={
        **RECIPES["digits8"].network,
        "model_channels": 16,
        "label_dim": 0,  # classes would tell it which few digits to choose from
        "augment_dim": 0,
    },
    sigma_data=0.75,
    images=128 * STEPS[-1],
    learning_rate=2e-3,
    ema_half_life=4_000,
    validate_every=128 * STEPS[-1],
)


def digits(size: int) -> tuple[Dataset, Dataset]:
    """The first ``size`` of the training digits, in an order drawn once, and the 180 that are held out."""
    train_set, held_out = data.split(data.load("digits8"))
    rows = torch.randperm(len(train_set.images), generator=torch.Generator().manual_seed(0))[:size]
    return Dataset(train_set.images[rows], train_set.labels[rows]), held_out


def mixed(size: int) -> Dataset:
    """The same as one set, in which every tenth is a held-out one: `train` leaves these out by itself."""
    chosen, held_out = digits(size)
    total = next(n for n in range(size, 2 * size) if n - len(range(0, n, 10)) == size)
    parts: list[Tensor] = []
    for own, other in zip(chosen, held_out):
        whole = torch.empty(total, *own.shape[1:], dtype=own.dtype)
        out = torch.arange(0, total, 10)
        keep = torch.ones(total, dtype=torch.bool)
        keep[out] = False
        whole[keep], whole[out] = own, other[: len(out)]
        parts.append(whole)
    return Dataset(*parts)


def distances(samples: Tensor, images: Tensor) -> Tensor:
    """From every sample to every image: (samples, images)."""
    return torch.cdist(samples.flatten(1).double(), images.flatten(1).double())


def measure(network: LearnedDenoiser, size: int) -> tuple[dict[str, Any], Tensor]:
    """Losses by noise level, and where samples lie."""
    chosen, held_out = digits(size)
    x = initial_noise(SAMPLES, (1, 8, 8), seed=0, dtype=torch.float32)
    samples = sample(network, x, schedules.polynomial(25), "dpmpp_2m", keep="final").final
    own = distances(samples, chosen.images)
    count = min(size, len(held_out.images))
    nearer = own[:, :count].amin(1) < distances(samples, held_out.images[:count]).amin(1)
    sigmas = validation_sigmas()
    losses = {
        name: [round(v, 4) for v in validation_loss(network, part.images[:180], None, sigmas, 0.75).tolist()]
        for name, part in (("trained_on", chosen), ("held_out", held_out))
    }
    two = own.topk(2, largest=False).values
    return {
        "loss": losses,
        "nearest": [round(v, 3) for v in two[:, 0].tolist()],
        "second_nearest": [round(v, 3) for v in two[:, 1].tolist()],
        "nearer_to_trained_on": int(nearer.sum()),
        "compared_with": count,
    }, samples


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    """What the file says of a moment: copies are within 0.2, a tenth of what a new digit is away from all 1,617."""
    near, second = torch.tensor(figures["nearest"]), torch.tensor(figures["second_nearest"])
    own = {
        "median_distance": round(float(near.median()), 3),
        "copies": int((near < 0.2).sum()),
        "three_times_nearer_than_the_second": int((3 * near < second).sum()),
    }
    return own | {name: value for name, value in figures.items() if name not in ("nearest", "second_nearest")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/memorisation"), help="where a run goes on from")
    parser.add_argument("--seed", type=int, default=0, help="of first weights, batches and noise")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="how many digits to train on")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write the figures")
    options = parser.parse_args()
    recipe = dataclasses.replace(RECIPE, seed=options.seed)
    found: dict[str, Any] = {
        "made_by": "python tools/memorisation.py",
        "recipe": json.loads(recipe.text()),
        "sigmas": [round(v, 5) for v in validation_sigmas().tolist()],
        "samples": SAMPLES,
        "runs": {},
    }
    for size in options.sizes:
        folder = options.run_dir / f"seed-{options.seed}-digits-{size}"
        rows: dict[str, Any] = {}
        for step in STEPS:
            kept = folder / f"figures-{step}.json"
            if not kept.is_file():
                network = train(recipe, folder, dataset=mixed(size), stop_after=step, progress=False)
                figures, samples = measure(network, size)
                if step == STEPS[-1]:
                    near = distances(samples[:SHOWN], digits(size)[0].images).argmin(1)
                    for name, images in (("drawn", samples[:SHOWN]), ("beside", digits(size)[0].images[near])):
                        grey = ((images.clamp(-1, 1) + 1) * 127.5).round().int()
                        figures[name] = grey.flatten(1).tolist()
                write_whole(kept, lambda beside, figures=figures: beside.write_text(json.dumps(figures)))  # type: ignore[misc]
            row = rows[str(step)] = summary(json.loads(kept.read_text()))
            print(f"{size:5d} digits, step {step:5d}: {row['copies']} copies among {SAMPLES} samples", flush=True)
        found["runs"][str(size)] = rows
        text = json.dumps(found, separators=(",", ":")).replace('"runs"', '\n"runs"') + "\n"
        write_whole(options.out, lambda beside, text=text: beside.write_text(text))  # type: ignore[misc]
    if options.out == OUT:
        checksums.record(OUT)


if __name__ == "__main__":
    main()

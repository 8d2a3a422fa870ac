"""Train a classifier that ships as data/NAME-features.safetensors: ``python tools/train_features.py NAME``.

NAME is ``digit`` or ``emoji``. Trained on the pictures of the set that are not held out, with small affine warps;
minutes on one CPU core. One image in five shows nothing of its set (mixed, shuffled or noisy pictures) and is to be
answered with doubt, for otherwise a classifier is sure of anything it is shown (outlier exposure: Hendrycks et al.
2019, arXiv 1812.04606; mixtures: Zhang et al. 2018, arXiv 1710.09412). The same seed on the same machine gives the same
weights. Prints accuracy, confidence and calibration on the held-out pictures, stores the weights in float16 with these
figures beside them, and records the checksum.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import checksums
import torch
from optimising import adamw
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from teachkit import data
from teachkit.metrics import Classifier, digit_classifier, emoji_classifier

DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True)
class Subject:
    """What differs from set to set."""

    data: str
    network: dict[str, int]
    background: float
    epochs: int
    load: Callable[[Path], Classifier]
    flip: bool = False  # half of the pictures, left to right


SUBJECTS = {
    "digit": Subject("mnist5k", {}, -1, 80, digit_classifier),
    "emoji": Subject(
        "emoji32", {"channels": 3, "classes": 9, "side": 32, "width": 20}, 1, 50, emoji_classifier, flip=True
    ),
}


def warp(images: Tensor, subject: Subject, rng: torch.Generator) -> Tensor:
    """Turn by up to 14 degrees, scale and shear by up to 15 %, shift by up to 2 pixels; flip where that may be."""
    side = images.shape[-1]

    def even(width: float) -> Tensor:
        return (2 * torch.rand(len(images), generator=rng) - 1) * width

    angle, shear, log_x, log_y = even(math.radians(14)), even(0.15), even(0.15), even(0.15)
    c, s = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)  # (B, 2, 2)
    zero = torch.zeros_like(shear)
    stretch = torch.stack([torch.stack([log_x.exp(), shear], 1), torch.stack([zero, log_y.exp()], 1)], 1)
    shift = torch.stack([even(4 / side), even(4 / side)], 1)[:, :, None]  # half a side is one unit of the grid
    grid = F.affine_grid(torch.cat([turn @ stretch, shift], 2), list(images.shape), align_corners=False)
    if subject.flip:
        images = torch.where(torch.rand(len(images), 1, 1, 1, generator=rng) < 0.5, images.flip(3), images)
    shown = F.grid_sample(images - subject.background, grid, align_corners=False)  # outside is 0
    return shown + subject.background


def confuse(images: Tensor, targets: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures that are of no class, as ``images``, and how sure to be of each: ``(B, classes)``, as ``targets``."""
    batch, side, tile = len(images), images.shape[-1], images.shape[-1] // 4

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, generator=rng)

    mixed = (images + images.flip(0)) / 2
    plain = draw(-1, 1).expand_as(images)
    noise = torch.randn(images.shape, generator=rng)
    noisy = torch.where(draw(0, 1) < 0.5, images, plain) + draw(0.6, 2) * noise
    smooth = plain + draw(0, 1) * F.interpolate(noise[:, :, :6, :6], side, mode="bilinear")
    tiles = images.reshape(batch, -1, 4, tile, 4, tile).permute(0, 1, 2, 4, 3, 5).flatten(2, 3)  # (B, C, 16, 7, 7)
    tiles = tiles[:, :, torch.randperm(16, generator=rng)].unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5)
    kinds = torch.stack([mixed, noisy, smooth, tiles.reshape(images.shape)])
    kind = torch.randint(4, (batch,), generator=rng)
    unsure = torch.full_like(targets, 1 / targets.shape[1])
    doubt = torch.where(kind[:, None] == 0, (targets + targets.flip(0)) / 2, unsure)
    return kinds[kind, torch.arange(batch)].clamp(-1, 1), doubt


def train(subject: Subject, seed: int, epochs: int, batch: int, rate: float) -> Classifier:
    """AdamW with a short warm-up and a cosine to zero."""
    torch.manual_seed(seed)  # for the initial weights and dropout
    rng = torch.Generator().manual_seed(seed)
    images, labels = data.split(data.load(subject.data))[0]
    net = Classifier(**subject.network).to(memory_format=torch.channels_last)
    per_epoch, classes = len(images) // batch, net.head.out_features
    optimizer, schedule = adamw(net, rate, 0.02, epochs * per_epoch)
    start = time.perf_counter()
    for epoch in range(epochs):
        order, loss_sum = torch.randperm(len(images), generator=rng), 0.0
        for chosen in order[: per_epoch * batch].split(batch):
            x, targets = warp(images[chosen], subject, rng), F.one_hot(labels[chosen], classes).float()
            odd, doubt = confuse(x[: batch // 4], targets[: batch // 4], rng)
            x, targets = torch.cat([x, odd]).contiguous(memory_format=torch.channels_last), torch.cat([targets, doubt])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = net(x)
            loss = F.cross_entropy(logits.float(), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item()
        if epoch % 5 == 4 or epoch == epochs - 1:
            print(
                f"epoch {epoch + 1:3d}  loss {loss_sum / per_epoch:.4f}  {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return net.eval()


@torch.no_grad()
def evaluate(subject: Subject, net: Classifier) -> dict[str, float]:
    """Accuracy, confident answers, log loss and calibration on held-out pictures, and doubt about what is none."""
    images, labels = data.split(data.load(subject.data))[1]
    logits = net(images)
    confidence, guess = logits.softmax(1).max(1)
    right = (guess == labels).double()
    bins = (confidence * 10).long().clamp(max=9)
    gap = sum(abs(float((right - confidence)[bins == k].sum())) for k in range(10)) / len(images)
    odd, _ = confuse(images, F.one_hot(labels, net.head.out_features).float(), torch.Generator().manual_seed(1))
    return {
        "held_out_accuracy": float(right.mean()),
        "confident_above_0.9": float((confidence > 0.9).double().mean()),
        "negative_log_likelihood": float(F.cross_entropy(logits, labels)),
        "calibration_error": gap,
        "confident_about_others": float((net(odd).softmax(1).amax(1) > 0.9).double().mean()),
    }


def main() -> None:
    """Train, store, load again, and measure what was stored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: as the classifier that ships")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--output", type=Path, help="default: in data/")
    options = parser.parse_args()
    subject, shipped = SUBJECTS[options.subject], DATA / f"{options.subject}-features.safetensors"
    options.epochs, options.output = options.epochs or subject.epochs, options.output or shipped
    net = train(subject, options.seed, options.epochs, options.batch, options.rate)
    weights = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    settings = {name: str(getattr(options, name)) for name in ("seed", "epochs", "batch", "rate")}
    beside = options.output.with_suffix(".part")
    save_file(weights, beside)
    figures = evaluate(subject, subject.load(beside))
    card = settings | {name: f"{value:.4f}" for name, value in figures.items()}
    save_file(weights, beside, metadata={"card": json.dumps(card, sort_keys=True)})  # one entry: the order is settled
    beside.chmod(0o644)
    os.replace(beside, options.output)
    for name, value in figures.items():
        print(f"{name:28s}{value:.4f}")
    if options.output.resolve() == shipped:
        checksums.record(shipped)


if __name__ == "__main__":
    main()

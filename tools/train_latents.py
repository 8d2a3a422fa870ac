"""Train the pipeline of ``teachkit.course.latents``: ``python tools/train_latents.py --run-dir runs/latents``.

First the autoencoder of emoji32, a quarter of an hour on one CPU core; then the network in its latents, half an hour.
Stopped, it goes on from the run directory. The same seed on the same machine gives the same weights. Both are stored
in float16 in data/, with a card, data/latents.md, of what was measured on held-out emoji.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import checksums
import torch
from optimising import adamw
from safetensors.torch import load_file, save_file
from torch import Tensor

from teachkit import data, edm, initial_noise, sample, schedules
from teachkit.adapters import from_pipeline
from teachkit.course.latents import AUTOENCODER, NETWORK, Autoencoder, pipeline
from teachkit.data import Dataset
from teachkit.edm.loss import validation_loss
from teachkit.edm.recipes import Recipe
from teachkit.edm.training import train, validation_sigmas
from teachkit.files import write_images, write_whole

DATA = Path(__file__).resolve().parents[1] / "data"
RECIPE = Recipe(
    data="emoji32",  # their latents, of unit variance
    network={
        "img_resolution": 8,
        "img_channels": 4,
        "label_dim": 9,
        "model_channels": 32,
        "channel_mult": (1, 2),
        "channel_mult_emb": 4,
        "num_blocks": 1,
        "attn_resolutions": (8, 4),
        "dropout": 0.0,
    },
    sigma_data=1.0,
    images=700_000,
    learning_rate=2e-3,
    ema_half_life=30_000,
    compile=True,
    validate_every=100_000,
)


def pixel_loss(made: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error of the pixels and, so that edges stay sharp, of the differences between neighbours."""
    error = made - images
    return error.abs().mean() + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


def train_autoencoder(images: Tensor, seed: int, epochs: int, batch: int = 64, rate: float = 2e-3) -> Autoencoder:
    """AdamW with a short warm-up and a cosine to zero; a little noise on the latents, so that near ones look alike."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = Autoencoder().to(memory_format=torch.channels_last)
    per_epoch = len(images) // batch
    optimizer, schedule = adamw(net, rate, 0.01, epochs * per_epoch)
    start = time.perf_counter()
    for epoch in range(epochs):
        order, loss_sum = torch.randperm(len(images), generator=rng), 0.0
        for chosen in order[: per_epoch * batch].split(batch):
            x = images[chosen].contiguous(memory_format=torch.channels_last)
            x = torch.where(torch.rand(len(x), 1, 1, 1, generator=rng) < 0.5, x, x.flip(3))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                latents = net.encoder(x).float()
                size = latents.square().mean().sqrt().detach()
                made = net.decoder(latents + 0.05 * size * torch.randn(latents.shape, generator=rng))
            loss = pixel_loss(made.float(), x) + 1e-3 * latents.square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            loss_sum += loss.item()
        print(f"epoch {epoch + 1:3d}  loss {loss_sum / per_epoch:.4f}  {time.perf_counter() - start:.0f} s", flush=True)
    net = net.eval().requires_grad_(False)
    net.scale.copy_(1 / torch.cat([net.encoder(part) for part in images.split(256)]).std())
    return net


def encoded(net: Autoencoder, dataset: Dataset) -> Dataset:
    """The latents of a set of pictures."""
    latents = [net.scale * net.encode(part.float()).latents for part in dataset.images.split(256)]
    return Dataset(torch.cat(latents), dataset.labels)


def measured(net: Autoencoder, denoiser: edm.LearnedDenoiser, held_out: Dataset) -> dict[str, Any]:
    """Of held-out emoji: how far off they come back from their latents, and the network's loss by noise level."""
    images, latents = held_out.images.float(), encoded(net, held_out)
    back = torch.cat([net.decode(part / net.scale).sample for part in latents.images.split(256)])
    sigmas = validation_sigmas()
    loss = validation_loss(denoiser, latents.images, latents.labels, sigmas, RECIPE.sigma_data)
    return {
        "error": float((back - images).square().mean().sqrt()),
        "deviation": float((images - images.mean(0)).square().mean().sqrt()),
        "loss": dict(zip((f"{s:.4g}" for s in sigmas.tolist()), loss.tolist())),
    }


def draw_samples() -> None:
    """A picture of the first six samples of each word, not chosen: guidance 2, 30 steps of UniPC."""
    pipe = pipeline()
    words = [name.split()[0].lower() for name in data.class_names("emoji32")]
    D = from_pipeline(pipe, prompt=words)
    x = initial_noise(6 * len(words), D.shape, D.sigma_max, seed=0, dtype=torch.float32)
    levels = schedules.polynomial(30, D.sigma_min, D.sigma_max)
    final = sample(D, x, levels, "unipc", labels=D.labels(len(x)), guidance=2.0, keep="final").final
    write_images(DATA / "latents-samples.png", D.decode(final), columns=len(words))


def write_card(recipe: Recipe) -> None:
    """data/latents.md, from what was measured on the files that are stored."""
    pipe = pipeline()
    found = measured(pipe.vae, pipe.unet.denoiser, data.split(data.load("emoji32"))[1])
    sizes = {name: (DATA / name).stat().st_size for name in (AUTOENCODER, NETWORK)}
    weights = {
        name: sum(p.numel() for p in part.parameters()) for name, part in (("vae", pipe.vae), ("net", pipe.unet))
    }
    rows = "\n".join(f"| {sigma} | {loss:.4f} |" for sigma, loss in found["loss"].items())
    write_whole(
        DATA / "latents.md",
        lambda beside: beside.write_text(
            f"""# A small latent pipeline: an autoencoder of emoji, and a network in its latents

![Six emoji-like samples for each of nine words, one word a column.](latents-samples.png)

*The first six samples for each word (not chosen), guidance 2, UniPC, 30 steps. A word a column:
{", ".join(data.class_names("emoji32"))}.*

Written by `tools/train_latents.py`, which measured every number here.

- **Use**: `teachkit.course.latents.pipeline()`, then `teachkit.adapters.from_pipeline`.
- **For**: the lesson on one's own model. It stands in for a large pipeline, and draws nothing that one would publish.
- **Autoencoder**: 3 x 32 x 32 pixels to 4 x 8 x 8 numbers and back, {weights["vae"]:,} weights
  (`{AUTOENCODER}`, {sizes[AUTOENCODER]:,} bytes, float16). Held-out emoji come back with a root-mean-square error of
  {found["error"]:.3f}; their own standard deviation is {found["deviation"]:.3f} (pixels go from -1 to 1).
- **Network**: `EDMPrecond` around a `DhariwalUNet` with nine classes, {weights["net"]:,} weights
  (`{NETWORK}`, {sizes[NETWORK]:,} bytes, float16), trained on {recipe.images:,} latents; the classes left out
  {100 * recipe.label_dropout:.0f} % of the time, so guidance works.
- **Data**: `emoji32` without its held-out tenth. No augmentation of the latents.
- **Copies**: not measured; the picture is all there is. Do not take it for a model of emoji.

EDM's weighted loss on held-out latents, about 1 for an untrained network:

| sigma | held-out |
|---:|---:|
{rows}

## Licence

The weights are under the MIT licence, like the code. The emoji they were trained on keep theirs: see `licences/`.
"""
        ),
    )


def main() -> None:
    """Train, store, and measure what was stored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40, help="of the autoencoder")
    options = parser.parse_args()
    options.run_dir.mkdir(parents=True, exist_ok=True)
    parts, kept = data.split(data.load("emoji32")), options.run_dir / AUTOENCODER
    if kept.exists():
        net = Autoencoder().eval().requires_grad_(False)
        net.load_state_dict(load_file(kept))
    else:
        net = train_autoencoder(parts[0].images.float(), options.seed, options.epochs)
        write_whole(kept, lambda beside: save_file(net.state_dict(), beside))
    recipe = dataclasses.replace(RECIPE, seed=options.seed)
    denoiser = train(recipe, options.run_dir, dataset=encoded(net, data.load("emoji32")))
    half = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    write_whole(DATA / AUTOENCODER, lambda beside: save_file(half, beside))
    edm.save(denoiser, DATA / NETWORK, torch.float16, {"recipe": recipe.text()})
    for name in (AUTOENCODER, NETWORK):
        checksums.record(DATA / name)
    draw_samples()
    write_card(recipe)


if __name__ == "__main__":
    main()

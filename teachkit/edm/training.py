"""Training a small EDM network by a recipe: resumable to the bit, on one processor or several.

Everything random in step k (which images, their noise, augmentation, dropped labels) is drawn from a generator seeded
with (seed, k), for the whole batch at once; a process then takes its share. So a run that was killed goes on exactly
where it was, and two processes see what one would have seen, dropout's masks excepted. The loss is that of Karras
et al. 2022 (arXiv 2206.00364), Table 1; the weights are averaged with the half-life of its Appendix F. Taught in
``notebooks/09_training_edm``.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from teachkit import checks, data
from teachkit.checks import flag, integer, number
from teachkit.edm.batches import Batch, check_data, draw_batch
from teachkit.edm.compiling import compile_if_possible
from teachkit.edm.interrupt import end_of_step
from teachkit.edm.loss import edm_loss, validation_loss
from teachkit.edm.preconditioning import EDMPrecond
from teachkit.edm.recipes import Recipe, check_recipe, learning_rate, make_denoiser, share_kept
from teachkit.files import write_whole
from teachkit.launcher import Place, place
from teachkit.noise import initial_noise
from teachkit.progress import tqdm
from teachkit.sampling import sample
from teachkit.schedules import polynomial

__all__ = ["load_ema", "train", "validation_sigmas"]


def validation_sigmas(n: int = 13) -> Tensor:
    """Noise levels at which the held-out loss is followed: even in log sigma from 0.005 to 80.

    Parameters
    ----------
    n : int
        Number of levels.

    Returns
    -------
    Tensor
        ``(n,)`` float64, increasing.
    """
    n = integer("n", n, 1)
    return torch.logspace(math.log10(0.005), math.log10(80), n, dtype=torch.float64)


def train(
    recipe: Recipe,
    run_dir: str | Path,
    *,
    device: torch.device | str = "cpu",
    stop_after: int | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
    compile: bool | None = None,
) -> EDMPrecond:
    """Train by a recipe, resuming from ``run_dir`` if it holds a checkpoint, and return the averaged network.

    A network that cannot be compiled, as without a C++ compiler, is trained uncompiled, with a line on stderr.

    Parameters
    ----------
    recipe : Recipe
        What to train. A run directory of another recipe is refused.
    run_dir : path
        Receives ``checkpoint.pt`` (replaced atomically), ``log.jsonl`` and sample grids.
    device : device
        Where to train. Under ``torchrun`` every process trains its share of each batch.
    stop_after : int, optional
        Stop after this many optimiser steps in all (to be resumed later).
    checkpoint_seconds : float
        Time between checkpoints.
    progress : bool
        Show a progress bar with loss and images per second.
    compile : bool, optional
        Compile the network or not, whatever the recipe says; it changes rounding only.

    Returns
    -------
    EDMPrecond
        The exponential moving average of the weights, in evaluation mode.

    Raises
    ------
    ValueError
        If ``run_dir`` belongs to another recipe, the batch cannot be shared evenly among the processes, or the network
        is for other images, or for fewer classes, than the data have; before the first step, as an OSError for
        ``run_dir``.
    FloatingPointError
        If the loss stops being finite; the last checkpoint is kept.
    KeyboardInterrupt
        After Ctrl-C, at the end of the step and with a checkpoint; a second Ctrl-C does not wait.
    """
    check_recipe(recipe)
    folder = checks.path("run_dir", run_dir)
    if stop_after is not None:
        stop_after = integer("stop_after", stop_after, 0)
    number("checkpoint_seconds", checkpoint_seconds, least=0)
    progress = flag("progress", progress)
    compiled = recipe.compile if compile is None else flag("compile", compile)
    device = checks.device("device", device) or torch.device("cpu")
    rank, world, local = _join_group(device)
    if device.type == "cuda" and device.index is None and world > 1:
        device = torch.device("cuda", local)
    run = _Run(recipe, folder, device, rank, world)
    run.resume()
    last = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    if run.step < last:
        run.prepare(compiled)
    saved, shown = time.monotonic(), run.step
    bar = tqdm(total=last * recipe.batch, initial=run.step * recipe.batch, unit="img", disable=not progress or rank > 0)
    with bar, end_of_step(alone=world == 1) as interrupted:
        while run.step < last:
            loss = run.train_step()
            if interrupted():
                run.save()
                raise KeyboardInterrupt
            bar.update(recipe.batch)
            if run.step - shown >= 10:
                bar.set_postfix(loss=f"{loss:.4f}")
                shown = run.step
            seen = run.step * recipe.batch
            if seen // recipe.validate_every > (seen - recipe.batch) // recipe.validate_every or run.step == last:
                run.validate(loss)
            if time.monotonic() - saved > checkpoint_seconds:
                run.save()
                saved = time.monotonic()
    run.save()
    return run.ema.eval().requires_grad_(False)


def load_ema(recipe: Recipe, run_dir: str | Path) -> EDMPrecond:
    """The averaged network from a run's last checkpoint, finished or not, in evaluation mode.

    Parameters
    ----------
    recipe : Recipe
        Whose network it is; lengths and rates may differ from the run's.
    run_dir : path
        The folder that `train` was given.

    Returns
    -------
    EDMPrecond
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If the run has no checkpoint yet.
    ValueError
        If it trains another network than the recipe's, or for data of another ``sigma_data``.
    """
    check_recipe(recipe)
    file = checks.path("run_dir", run_dir) / "checkpoint.pt"
    if not file.is_file():
        raise FileNotFoundError(f"run_dir holds no checkpoint yet: there is no {file}")
    state = torch.load(file, map_location="cpu", weights_only=True)
    own, wanted = json.loads(state["recipe"]), json.loads(recipe.text())
    if any(own[name] != wanted[name] for name in ("network", "sigma_data")):  # the preconditioning is part of it
        raise ValueError(f"{run_dir} holds a run of another network or sigma_data than the recipe's")
    denoiser = make_denoiser(recipe)
    denoiser.load_state_dict(state["ema"])
    return denoiser.eval().requires_grad_(False)


class _Run:
    """The state of one training run on one process."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device, rank: int, world: int) -> None:
        self.recipe, self.folder, self.device, self.rank, self.world = recipe, folder, device, rank, world
        if recipe.batch % world:
            raise ValueError(f"batch must be a multiple of the {world} processes, got {recipe.batch}")
        self.train_set, self.held_out = data.split(data.load(recipe.data))
        self.denoiser = make_denoiser(recipe).to(device)
        check_data(recipe, self.train_set, self.denoiser)
        self.ema = copy.deepcopy(self.denoiser).eval().requires_grad_(False)
        self.forward: Callable[..., Tensor] = self.denoiser
        self.optimiser = torch.optim.Adam(self.denoiser.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["recipe"] != self.recipe.text():
            raise ValueError(f"{self.folder} holds a run of another recipe; choose another folder or delete it")
        self.denoiser.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self._forget_after(self.step * self.recipe.batch)

    def prepare(self, compiled: bool) -> None:
        """Before the first step: what validation and checkpoints will need, the compiler, and the other processes."""
        if self.rank == 0:
            import torchvision.utils  # noqa: F401  (for the pictures, at the first validation)

            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(f"run_dir {self.folder} cannot be written")
        if compiled:
            compile_if_possible(self.denoiser.model, self._accumulate_gradients, self.device, self.world)
            self.optimiser.zero_grad(set_to_none=True)
        if self.world > 1:
            self.forward = DistributedDataParallel(self.denoiser)

    def _forget_after(self, images: int) -> None:
        """Drop what a killed run logged after its last checkpoint: it will be logged again."""
        if self.rank or not self.log.exists():
            return
        lines = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        text = "".join(line for line in lines if json.loads(line)["images"] <= images)
        write_whole(self.log, lambda beside: beside.write_text(text))

    def save(self) -> None:
        """Write a checkpoint, which is whole or absent."""
        if self.rank:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self.recipe.text(),
            "step": self.step,
            "model": self.denoiser.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

        content = io.BytesIO()  # not straight into the file: on a full disk torch would not say so
        torch.save(state, content)
        write_whole(self.checkpoint, lambda beside: beside.write_bytes(content.getbuffer()))

    def batch(self) -> Batch:
        """This process's share of the current step."""
        return draw_batch(self.recipe, self.train_set, self.denoiser, self.step, self.rank, self.world)

    def train_step(self) -> float:
        """One optimiser step on a full batch; returns its mean loss over all processes."""
        self._set_learning_rate()
        self.denoiser.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.recipe.seed * 1_000_003 + self.step * self.world + self.rank)  # dropout
            total = self._accumulate_gradients()
        if self.world > 1:
            dist.all_reduce(total)
            total /= self.world
        if not math.isfinite(float(total)):
            raise FloatingPointError(f"the loss is {float(total)} at step {self.step}; the last checkpoint is kept")
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.recipe.gradient_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._average()
        return float(total)

    def _accumulate_gradients(self) -> Tensor:
        """Forward and backward over this process's images, ``micro_batch`` at a time; returns their mean loss."""
        recipe, device = self.recipe, self.device
        images, sigma, noise, labels, augmented = self.batch()
        total = torch.zeros((), dtype=torch.float32, device=device)
        size = min(recipe.micro_batch or len(images), len(images))
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.precision, torch.float32)
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            with torch.autocast(device.type, dtype, enabled=recipe.precision != "float32"):
                loss = edm_loss(
                    self.forward, images[rows], sigma[rows], noise[rows], labels[rows] if labels.shape[1] else None,
                    None if augmented is None else augmented[rows], recipe.sigma_data,
                ).sum() / len(images)  # fmt: skip
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _set_learning_rate(self) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)

    @torch.no_grad()
    def _average(self) -> None:
        keep = share_kept(self.recipe, self.step)
        for mean, value in zip(self.ema.parameters(), self.denoiser.parameters()):
            mean.lerp_(value, 1 - keep)
        for target, source in zip(self.ema.buffers(), self.denoiser.buffers()):
            target.copy_(source)

    def validate(self, loss: float) -> None:
        """Append the held-out loss per noise level to the log, and write a grid of samples."""
        if self.rank:
            return
        images, labels = self.held_out.images.to(self.device), self.held_out.labels.to(self.device)
        classes = labels if self.denoiser.label_dim else None
        sigmas = validation_sigmas()
        held_out = validation_loss(self.ema, images, classes, sigmas, self.recipe.sigma_data)
        seen = self.step * self.recipe.batch
        row = {
            "images": seen,
            "loss": round(loss, 5),
            "held_out": {f"{s:.4g}": round(v, 5) for s, v in zip(sigmas.tolist(), held_out.tolist())},
        }
        with open(self.log, "a") as file:
            file.write(json.dumps(row) + "\n")
        self._draw(seen)

    def _draw(self, seen: int) -> None:
        from torchvision.utils import save_image  # optional at import time: slow to load

        count = 40
        x = initial_noise(count, self.held_out.images.shape[1:], seed=0, dtype=torch.float32, device=self.device)
        classes = self.denoiser.label_dim
        labels = torch.arange(count, device=self.device) % classes if classes else None
        final = sample(self.ema, x, polynomial(18), "heun", labels=labels, keep="final").final
        picture = final.clamp(-1, 1) / 2 + 0.5
        write_whole(self.folder / f"samples-{seen:09d}.png", lambda beside: save_image(picture, beside, nrow=10))


def _join_group(device: torch.device) -> Place:
    """The place of this process; joins the group that its launcher describes."""
    found = place()
    if found.world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Place(dist.get_rank(), dist.get_world_size(), found.local) if dist.is_initialized() else found

"""A run on one of its processes: its step, its checkpoint, its log, and its compiler where there is one.

What is random in a step, and how long a run is, follows from its recipe (`teachkit.edm.recipes`);
`teachkit.edm.training` runs it. `Optimisation` is what training and distillation share, `Run` is training.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from teachkit import data
from teachkit.checks import installed
from teachkit.edm.loss import edm_loss, validation_loss
from teachkit.edm.preconditioning import EDMPrecond
from teachkit.edm.recipes import (
    Batch,
    Optimised,
    Recipe,
    check_data,
    draw_batch,
    learning_rate,
    make_denoiser,
    share_kept,
)
from teachkit.files import write_images, write_whole
from teachkit.launcher import Processes
from teachkit.noise import initial_noise
from teachkit.sampling import sample
from teachkit.schedules import polynomial


class Optimisation(ABC):
    """The state of one network that is being optimised, on one process; a subclass says what its loss is."""

    recipe: Optimised
    decided_by = "recipe"
    parts: dict[str, Any]  # what a checkpoint holds beside the recipe and the step

    def __init__(self, recipe: Optimised, folder: Path, group: Processes, denoiser: EDMPrecond) -> None:
        self.recipe, self.folder, self.group, self.device = recipe, folder, group, group.device
        self.checkpoint, self.log = folder / "checkpoint.pt", folder / "log.jsonl"
        if recipe.batch % group.world:
            raise ValueError(f"batch must be a multiple of the {group.world} processes, got {recipe.batch}")
        self.identity = recipe.text()  # by which a folder knows its run again
        self.denoiser = denoiser.to(self.device)
        self.ema = copy.deepcopy(self.denoiser).eval().requires_grad_(False)
        self.forward: Callable[..., Tensor] = self.denoiser
        self.optimiser = torch.optim.Adam(self.denoiser.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.step = 0
        self.parts = {"model": self.denoiser, "ema": self.ema, "optimiser": self.optimiser, "scaler": self.scaler}

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["recipe"] != self.identity:
            raise ValueError(
                f"{self.folder} holds a run of another {self.decided_by}; choose another folder or delete it"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        self._forget_after(self.step * self.recipe.batch)

    def prepare(self, compiled: bool) -> None:
        """Before the first step: what validation and checkpoints will need, the compiler, and the other processes."""
        if self.group.first:
            installed("torchvision.utils", "the pictures of a training run")  # at the first validation
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(f"run_dir {self.folder} cannot be written")
        if compiled:
            compile_if_possible(self.denoiser.model, self._accumulate_gradients, self.group)
            self.optimiser.zero_grad(set_to_none=True)
        if self.group.world > 1:
            self.forward = DistributedDataParallel(self.denoiser)

    def _forget_after(self, images: int) -> None:
        """Drop what a killed run logged after its last checkpoint: it will be logged again."""
        if not self.group.first or not self.log.exists():
            return
        lines = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        text = "".join(line for line in lines if json.loads(line)["images"] <= images)
        write_whole(self.log, lambda beside: beside.write_text(text))

    def save(self) -> None:
        """Write a checkpoint, which is whole or absent."""
        if not self.group.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        content = io.BytesIO()  # not straight into the file: on a full disk torch would not say so
        torch.save({"recipe": self.identity, "step": self.step, **parts}, content)
        write_whole(self.checkpoint, lambda beside: beside.write_bytes(content.getbuffer()))

    def train_step(self) -> float:
        """One optimiser step on a full batch; returns its mean loss over all processes."""
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = learning_rate(self.recipe, self.step)
        self.denoiser.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.recipe.seed * 1_000_003 + self.step * self.group.world + self.group.rank)  # dropout
            total = self._accumulate_gradients()
        if self.group.world > 1:
            dist.all_reduce(total)
            total /= self.group.world
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

    @abstractmethod
    def _accumulate_gradients(self) -> Tensor:
        """Forward and backward over this process's share of the step's batch; returns its mean loss."""

    @torch.no_grad()
    def _average(self) -> None:
        keep = share_kept(self.recipe, self.step)
        for mean, value in zip(self.ema.parameters(), self.denoiser.parameters()):
            mean.lerp_(value, 1 - keep)  # and no buffers: all there are is fixed frequencies

    def _note(self, loss: float, held_out: dict[str, float], finals: Tensor) -> None:
        """Append a line to the log, and write a grid of samples."""
        seen = self.step * self.recipe.batch
        with open(self.log, "a") as file:
            file.write(json.dumps({"images": seen, "loss": round(loss, 5), "held_out": held_out}) + "\n")
        shown = finals if finals.shape[1] in (1, 3) else finals[:, :1]  # of what is not pictures, the first channel
        write_images(self.folder / f"samples-{seen:09d}.png", shown, columns=10)


class Run(Optimisation):
    """The state of one training run on one process."""

    recipe: Recipe

    def __init__(self, recipe: Recipe, folder: Path, group: Processes, dataset: data.Dataset | None = None) -> None:
        self.train_set, self.held_out = data.split(dataset or data.load(recipe.data))
        super().__init__(recipe, folder, group, make_denoiser(recipe))
        check_data(recipe, self.train_set, self.denoiser)

    def batch(self) -> Batch:
        """This process's share of the current step."""
        return draw_batch(self.recipe, self.train_set, self.denoiser, self.step, self.group.rank, self.group.world)

    def _accumulate_gradients(self) -> Tensor:
        """Forward and backward over this process's images, ``micro_batch`` at a time; returns their mean loss."""
        recipe, device, batch = self.recipe, self.device, self.batch()
        total = torch.zeros((), dtype=torch.float32, device=device)
        count = recipe.batch // self.group.world
        size = recipe.micro_batch or count
        for start in range(0, count, size):
            part: list[Any] = [None if each is None else each[start : start + size] for each in batch]
            with torch.autocast(device.type, getattr(torch, recipe.precision), enabled=recipe.precision != "float32"):
                loss = edm_loss(self.forward, *part, recipe.sigma_data).sum() / count  # type: ignore[call-arg]
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def validate(self, loss: float, sigmas: Tensor) -> None:
        """Append the held-out loss at these noise levels to the log, and write a grid of samples."""
        if not self.group.first:
            return
        images, labels = self.held_out.images.to(self.device), self.held_out.labels.to(self.device)
        classes = labels if self.denoiser.label_dim else None
        held_out = validation_loss(self.ema, images, classes, sigmas, self.recipe.sigma_data)
        by_level = {f"{s:.4g}": round(v, 5) for s, v in zip(sigmas.tolist(), held_out.tolist())}
        x = initial_noise(40, images.shape[1:], seed=0, dtype=torch.float32, device=self.device)
        classes = torch.arange(40, device=self.device) % self.denoiser.label_dim if self.denoiser.label_dim else None
        final = sample(self.ema, x, polynomial(18), "heun", labels=classes, keep="final").final
        self._note(loss, by_level, final)


def compile_if_possible(network: nn.Module, rehearse: Callable[[], object], group: Processes) -> None:
    """Have a network compiled at its first call, which is in ``rehearse``: for all processes, or for none.

    What compiling needs (a compiler, its headers, a driver that fits) shows only when it is done, so it is tried. The
    network is as before where something is missing, and the first process says so on stderr.
    """
    network.compile(dynamic=False)
    reason = ""
    try:
        with torch.random.fork_rng(devices=[group.device] if group.device.type == "cuda" else []):
            rehearse()
    except Exception as error:  # whatever compilers raise; an error that is not theirs comes again without them
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:200] or type(error).__name__  # torch says first who raised, then what
    if not any(group.gather(reason)):
        return
    network._compiled_call_impl = None
    if group.first:
        print(
            "teachkit: the network cannot be compiled and is trained uncompiled, which takes longer "
            f"({reason or 'another process has no compiler'}). On a CPU torch needs a C++ compiler: apt install g++, "
            "or set CXX. Without this notice: --no-compile",
            file=sys.stderr,
        )

"""Distilling a sampler of many steps into a network that needs one, two or four.

No solver can do with one evaluation what a network was not trained to say: at the largest noise level D(x; sigma) is
nearly the mean of all images, whatever the noise. So the network itself is changed. The student starts from the
teacher's weights and is asked only at the few levels s_0 > ... > s_N at which it will be sampled. From noise x_0 it
takes Euler's steps, each from where it came to itself,

    x_{n+1} = x_n + (s_{n+1} - s_n) (x_n - D(x_n; s_n)) / s_n,

and every x_{n+1} is drawn to where the teacher's path from the same noise is at s_{n+1}, by the mean absolute
difference; gradients stay within a step. So a later step learns to mend what an earlier one left undone. This is the
trajectory distillation of SFD (Zhou et al. 2024, arXiv 2409.19681), without its analytical first step and its second
stage, and with the numbers of a small network. It takes no data, only the teacher. What comes out is still a denoiser:
``sample(D, x, D.levels)`` draws from it.
"""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teachkit import checks, schedules, solvers
from teachkit.checks import choice, flag, integer, number, shown, text
from teachkit.denoisers import Denoiser
from teachkit.edm.checkpoints import digest, load
from teachkit.edm.preconditioning import EDMPrecond
from teachkit.edm.recipes import Optimised
from teachkit.edm.runs import Optimisation
from teachkit.edm.training import go_on
from teachkit.launcher import Processes, processes
from teachkit.noise import initial_noise
from teachkit.sampling import sample
from teachkit.scheduling import Schedule
from teachkit.solvers import Solver

__all__ = ["DISTILLATIONS", "Distillation", "distil"]

_TRAINED, _FOLLOWED = 1, 2  # streams of noise: whatever else draws from the stream 0 has noise never trained on
_FOLLOW = 200  # paths by which a run is followed


@dataclass(frozen=True)
class Distillation(Optimised):
    """All that decides a distillation.

    The student stops at every (teacher_steps / nfe)-th of the teacher's levels. Lengths (``images``, ``warmup``,
    ``ema_half_life``, ``validate_every``) count paths seen, of which ``paths`` are different.

    Examples
    --------
    >>> DISTILLATIONS["digits8-2step"].nfe, DISTILLATIONS["digits8-2step"].teacher
    (2, 'edm-digits8')
    """

    nfe: int  # evaluations that the student will take
    teacher: str = "edm-digits8"  # what edm.load opens
    solver: str = "fitted"  # of the teacher: the shipped one, fitted to it, or any other on the polynomial schedule
    teacher_steps: int = 8
    paths: int = 49_152
    images: int = 98_304
    batch: int = 128
    learning_rate: float = 2e-3
    schedule: str = "cosine"  # or "constant", after the warm-up
    cycles: int = 1
    warmup: int = 5_000
    ema_half_life: int = 10_000
    ema_ramp: float = 0.05
    label_dropout: float = 0.15  # share of paths without a class
    gradient_clip: float = 1.0
    precision: str = "float32"  # or "bfloat16", "float16": of the student's arithmetic, not of the weights
    seed: int = 0
    validate_every: int = 16_384

    def __post_init__(self) -> None:
        integer("nfe", self.nfe, 1)
        text("teacher", self.teacher)
        choice("solver", self.solver, ("fitted", *solvers.REGISTRY))
        integer("teacher_steps", self.teacher_steps, 1)
        if self.teacher_steps % self.nfe:
            raise ValueError(f"teacher_steps must be a multiple of nfe, {self.nfe}, got {self.teacher_steps}")
        self.check_optimisation()
        integer("paths", self.paths, 1)
        if self.paths % self.batch:
            raise ValueError(f"paths must be a multiple of batch, {self.batch}, got {self.paths}")

    def teacher_sampler(self) -> tuple[Solver, Tensor]:
        """The teacher's solver, and the levels that it steps through."""
        if self.solver == "fitted":
            found = Schedule.shipped(self.teacher, "fitted", self.teacher_steps)
            return found.make_solver(), found.sigmas
        return solvers.get(self.solver), schedules.polynomial(self.teacher_steps)


DISTILLATIONS: dict[str, Distillation] = {
    "digits8-1step": Distillation(nfe=1, images=196_608),
    "digits8-2step": Distillation(nfe=2),
    "digits8-4step": Distillation(nfe=4, images=49_152),
}


def distil(
    recipe: Distillation,
    run_dir: str | Path,
    *,
    teacher: EDMPrecond | None = None,
    device: torch.device | str = "cpu",
    stop_after: int | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
) -> EDMPrecond:
    """Distil a teacher's paths into a network of few evaluations, resuming from ``run_dir`` if it holds a checkpoint.

    Parameters
    ----------
    recipe : Distillation
        What to distil, and how. A run directory of another recipe or teacher is refused.
    run_dir : path
        Receives ``checkpoint.pt`` (replaced atomically), ``log.jsonl`` with the mean distance to the teacher's path at
        each level, per pixel, on noise that is not trained on, and grids of samples.
    teacher : EDMPrecond, optional
        A network of your own, in place of the one that the recipe names.
    device : device
        Where to do it. Under ``torchrun`` every process takes its share of each batch.
    stop_after : int, optional
        Stop after this many optimiser steps in all (to be resumed later).
    checkpoint_seconds : float
        Time between checkpoints.
    progress : bool
        Show a progress bar with loss and paths per second.

    Returns
    -------
    EDMPrecond
        The exponential moving average of the weights, in evaluation mode, whose ``levels`` are those it was distilled
        for: ``sample(D, x, D.levels)`` takes ``nfe`` evaluations. At other levels its answers mean nothing.

    Raises
    ------
    ValueError
        If ``run_dir`` belongs to another recipe or teacher, or the batch cannot be shared evenly among the processes;
        before the first step, as an OSError for ``run_dir``.
    FileNotFoundError
        If there is no such teacher, or no solver of so many steps that was fitted to it.
    TypeError
        If the teacher is not an EDMPrecond.
    FloatingPointError
        If the loss stops being finite; the last checkpoint is kept.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, at the end of the step and with a checkpoint; a second one does not wait.

    Examples
    --------
    >>> import tempfile
    >>> recipe = Distillation(nfe=2, paths=8, images=8, batch=8)
    >>> D = distil(recipe, tempfile.mkdtemp(), stop_after=0, progress=False)
    >>> [round(s, 3) for s in D.levels]
    [80.0, 0.799, 0.002]
    """
    if not isinstance(recipe, Distillation):
        raise TypeError(f"recipe must be a Distillation, got {shown(recipe)}")
    folder = checks.path("run_dir", run_dir)
    if stop_after is not None:
        stop_after = integer("stop_after", stop_after, 0)
    number("checkpoint_seconds", checkpoint_seconds, least=0)
    progress = flag("progress", progress)
    device = checks.device("device", device) or torch.device("cpu")
    network = load(recipe.teacher, device="cpu") if teacher is None else teacher
    if not isinstance(network, EDMPrecond) or network.distilled:
        got = shown(recipe.teacher if teacher is None else teacher)
        raise TypeError(f"teacher must be an EDMPrecond of all noise levels, got {got}")
    with processes(device, patience=None) as group:
        run = Distilling(recipe, folder, group, network)
        run.resume()
        last = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
        if run.step < last:
            run.prepare(compiled=False)
        go_on(run, last, checkpoint_seconds, progress, run.validate)
        run.save()
    return run.ema.eval().requires_grad_(False)


class Distilling(Optimisation):
    """The state of one distillation on one process.

    What is in a batch follows from its number, which begins again after all different paths. Where the teacher takes
    it is kept from the first time on, in memory: a run that goes on computes it again.
    """

    recipe: Distillation
    decided_by = "recipe or teacher"

    def __init__(self, recipe: Distillation, folder: Path, group: Processes, teacher: EDMPrecond) -> None:
        self.solver, self.teacher_levels = recipe.teacher_sampler()
        self.stride = recipe.teacher_steps // recipe.nfe
        self.levels: list[float] = self.teacher_levels[:: self.stride].tolist()
        super().__init__(recipe, folder, group, student_of(teacher, self.levels))
        self.teacher: Denoiser = copy.deepcopy(teacher).to(self.device).eval().requires_grad_(False)
        weights = digest({name: value.cpu() for name, value in teacher.state_dict().items()})
        decided = {"weights": weights, "teacher_levels": self.teacher_levels.tolist()}  # shipped solvers may change
        self.identity = json.dumps({**json.loads(recipe.text()), **decided}, sort_keys=True)
        self.states = functools.cache(self._states)

    def _states(self, number: int) -> tuple[Tensor, Tensor | None]:
        """Of this process's share of a batch: the teacher's states at the student's levels, and vectors of classes."""
        size, world = self.recipe.batch, self.group.world
        share = slice(self.group.rank * size // world, (self.group.rank + 1) * size // world)
        vectors, classes = None, self.denoiser.label_dim
        if classes:
            rng = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + number)
            labels = torch.randint(classes, (size,), generator=rng)
            keep = torch.rand(size, generator=rng, dtype=torch.float32) >= self.recipe.label_dropout
            vectors = (torch.nn.functional.one_hot(labels, classes).float() * keep[:, None])[share].to(self.device)
        return self.follow(share.stop - share.start, vectors, number * size + share.start, _TRAINED), vectors

    def follow(self, count: int, vectors: Tensor | None, first: int, stream: int) -> Tensor:
        """Where the teacher's paths from some of a stream's noise are at the student's levels: (N+1, count, *event)."""
        side, place = self.denoiser.img_resolution, {"dtype": torch.float32, "device": self.device}
        event = (self.denoiser.img_channels, side, side)
        how: dict[str, Any] = {"seed": self.recipe.seed, "first": first, "stream": stream, **place}
        x = initial_noise(count, event, self.levels[0], **how)
        with torch.no_grad():
            return sample(self.teacher, x, self.teacher_levels, self.solver, labels=vectors).x[:: self.stride].clone()

    def _accumulate_gradients(self) -> Tensor:
        recipe, device, world = self.recipe, self.device, self.group.world
        states, vectors = self.states(self.step % (recipe.paths // recipe.batch))
        # Zeros where nothing is augmented: then every weight has a gradient, which processes wait for.
        width = self.denoiser.model.augment_dim
        augmented = torch.zeros(recipe.batch // world, width, device=device) if width else None
        total, x = torch.zeros((), dtype=torch.float32, device=device), states[0]
        for (sigma, sigma_next), target in zip(pairwise(self.levels), states[1:]):
            with torch.autocast(device.type, getattr(torch, recipe.precision), enabled=recipe.precision != "float32"):
                denoised = self.forward(x, sigma, vectors, augment_labels=augmented)
            ahead = x + (sigma_next - sigma) / sigma * (x - denoised)
            loss = (ahead - target).abs().mean()
            self.scaler.scale(loss).backward()
            x, total = ahead.detach(), total + loss.detach()
        return total

    def validate(self, loss: float) -> None:
        """Append the distances to the teacher's paths on held-out noise to the log, and write a grid of samples."""
        if not self.group.first:
            return
        vectors, classes = None, self.denoiser.label_dim
        if classes:
            vectors = torch.nn.functional.one_hot(torch.arange(_FOLLOW, device=self.device) % classes, classes).float()
        teacher = self.follow(_FOLLOW, vectors, 0, _FOLLOWED)
        student = sample(self.ema, teacher[0], self.levels, labels=vectors).x
        away = (student - teacher).flatten(2).square().mean(2).sqrt().mean(1)[1:].tolist()
        self._note(loss, {f"{s:.4g}": round(v, 5) for s, v in zip(self.levels[1:], away)}, student[-1, :40])


def student_of(teacher: EDMPrecond, levels: list[float]) -> EDMPrecond:
    """A network with the teacher's weights that is for these levels alone, and drops nothing out."""
    own = {"levels": levels, "sigma_min": levels[-1], "sigma_max": levels[0], "dropout": 0.0}
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        with torch.random.fork_rng(devices=[]):
            student = EDMPrecond(**{**teacher.config, **own})
    finally:
        torch.set_default_dtype(before)
    student.load_state_dict(teacher.state_dict())
    return student

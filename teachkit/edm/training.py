"""Training a small EDM network by a recipe: resumable to the bit, on one processor or several.

Everything random in step k (which images, their noise, augmentation, dropped labels) is drawn from a generator seeded
with (seed, k), for the whole batch at once; a process then takes its share. So a run that was killed goes on exactly
where it was, and two processes see what one would have seen, dropout's masks excepted. The loss is that of Karras
et al. 2022 (arXiv 2206.00364), Table 1; the weights are averaged with the half-life of its Appendix F. Taught in
``notebooks/12_training_edm``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from teachkit import checks
from teachkit.checks import flag, integer, number, shown
from teachkit.data import Dataset
from teachkit.edm.interrupt import end_of_step
from teachkit.edm.preconditioning import EDMPrecond
from teachkit.edm.recipes import Recipe, check_recipe, make_denoiser
from teachkit.edm.runs import Optimisation, Run
from teachkit.launcher import processes
from teachkit.progress import tqdm

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

    Examples
    --------
    >>> validation_sigmas(3)
    tensor([5.0000e-03, 6.3246e-01, 8.0000e+01], dtype=torch.float64)
    """
    n = integer("n", n, 1)
    return torch.logspace(math.log10(0.005), math.log10(80), n, dtype=torch.float64)


def train(
    recipe: Recipe,
    run_dir: str | Path,
    *,
    dataset: Dataset | None = None,
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
    dataset : Dataset, optional
        Images (N, C, H, W) and labels (N,) of your own, in place of the set that the recipe names; every tenth is held
        out.
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
        After Ctrl-C or SIGTERM, at the end of the step and with a checkpoint; a second one does not wait.

    Examples
    --------
    >>> import tempfile
    >>> network = {
    ...     "img_resolution": 8, "img_channels": 1, "model_channels": 4, "channel_mult": [1], "num_blocks": 1,
    ...     "attn_resolutions": [],
    ... }
    >>> recipe = Recipe("digits8", network, images=16, batch=8)
    >>> folder = Path(tempfile.mkdtemp())
    >>> stopped = train(recipe, folder, stop_after=0, progress=False)
    >>> [file.name for file in folder.iterdir()]  # from which the next call goes on
    ['checkpoint.pt']
    """
    check_recipe(recipe)
    folder = checks.path("run_dir", run_dir)
    if stop_after is not None:
        stop_after = integer("stop_after", stop_after, 0)
    if not isinstance(dataset, Dataset | None):
        raise TypeError(f"dataset must be a Dataset of images and labels, got {shown(dataset)}")
    number("checkpoint_seconds", checkpoint_seconds, least=0)
    progress = flag("progress", progress)
    compiled = recipe.compile if compile is None else flag("compile", compile)
    device = checks.device("device", device) or torch.device("cpu")
    with processes(device, patience=None) as group:
        run = Run(recipe, folder, group, dataset)
        run.resume()
        last = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
        if run.step < last:
            run.prepare(compiled)
        go_on(run, last, checkpoint_seconds, progress, lambda loss: run.validate(loss, validation_sigmas()))
        run.save()
    return run.ema.eval().requires_grad_(False)


def go_on(
    run: Optimisation, last: int, checkpoint_seconds: float, progress: bool, validate: Callable[[float], None]
) -> None:
    """Steps up to ``last``, with validation and checkpoints in between."""
    recipe, saved, hidden = run.recipe, time.monotonic(), not (progress and run.group.first)
    bar = tqdm(total=last * recipe.batch, initial=run.step * recipe.batch, unit="img", disable=hidden)
    with bar, end_of_step(alone=run.group.world == 1) as interrupted:
        while run.step < last:
            loss = run.train_step()
            if interrupted():
                run.save()
                raise KeyboardInterrupt
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(recipe.batch)
            seen = run.step * recipe.batch
            if seen // recipe.validate_every > (seen - recipe.batch) // recipe.validate_every or run.step == last:
                validate(loss)
            if time.monotonic() - saved > checkpoint_seconds:
                run.save()
                saved = time.monotonic()


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

    Examples
    --------
    >>> import tempfile
    >>> network = {
    ...     "img_resolution": 8, "img_channels": 1, "model_channels": 4, "channel_mult": [1], "num_blocks": 1,
    ...     "attn_resolutions": [],
    ... }
    >>> recipe = Recipe("digits8", network, images=16, batch=8)
    >>> folder = Path(tempfile.mkdtemp())
    >>> trained = train(recipe, folder, stop_after=0, progress=False)
    >>> load_ema(recipe, folder).img_resolution
    8
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

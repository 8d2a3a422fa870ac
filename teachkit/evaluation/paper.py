"""The tables of Fréchet distances that the paper published, and the methods that fill them.

The numbers are those of arXiv 2405.11326 (the paper's short version, ICML 2024), its table of FID on 50,000 samples at
5, 6, 8 and 10 evaluations. Rows that teachkit can run say how: DDIM, iPNDM and both with GITS on the levels that the
authors' commands name (polynomial, rho 7; github.com/zju-pi/diff-sampler). On which levels the other baselines stood
the table does not say, so they are run on the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teachkit import initial_noise, sample, schedules, scheduling, solvers
from teachkit.denoisers import Denoiser
from teachkit.evaluation.shards import Shards
from teachkit.evaluation.table import Method
from teachkit.launcher import Processes
from teachkit.scheduling.search import step_counts

__all__ = ["BUDGETS", "PAPER", "RUNS", "SAMPLES", "SOURCE", "PaperTable", "gits_levels", "paper_methods"]

SOURCE = "Chen et al. 2024, arXiv 2405.11326"
BUDGETS, SAMPLES = (5, 6, 8, 10), 50_000
# Row -> solver and kind of levels; a row that is not here needs what teachkit does not have.
RUNS = {
    "DDIM": ("euler", "polynomial"),
    "DDIM+GITS": ("euler", "gits"),
    "DPM-Solver-2": ("dpm2", "polynomial"),
    "DPM++(3M)": ("dpmpp_3m", "polynomial"),
    "DEIS-tAB3": ("deis", "polynomial"),
    "UniPC": ("unipc", "polynomial"),
    "iPNDM": ("ipndm", "polynomial"),
    "iPNDM+GITS": ("ipndm", "gits"),
}
# GITS as the authors' command has it.
GRID, WARM_UP, COEFFICIENT = 60, 256, 1.15
_FID_REFS = "https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs/"


@dataclass(frozen=True)
class PaperTable:
    """A column of the paper's table: one set of images, its model, and what was published.

    Attributes
    ----------
    model : str
        The published weights that the authors' commands name.
    moments : str
        Where the moments of the real images' features are published.
    published : dict
        Row -> FID at each of `BUDGETS`; None where nothing was published.

    Examples
    --------
    >>> PAPER["cifar10"].published["iPNDM+GITS"]
    (8.38, 4.88, 3.24, 2.49)
    """

    model: str
    moments: str
    published: dict[str, tuple[float | None, ...]]


PAPER = {
    "cifar10": PaperTable(
        "edm-cifar10-32x32-uncond-vp",
        _FID_REFS + "cifar10-32x32.npz",
        {
            "DDIM": (49.66, 35.62, 22.32, 15.69),
            "DDIM+GITS": (28.05, 21.04, 13.30, 10.37),
            "DPM-Solver-2": (None, 60.00, 10.30, 5.01),
            "DPM++(3M)": (24.97, 11.99, 4.54, 3.00),
            "DEIS-tAB3": (14.39, 9.40, 5.55, 4.09),
            "UniPC": (23.98, 11.14, 3.99, 2.89),
            "AMED-Solver": (None, 7.04, 5.56, 4.14),
            "AMED-Plugin": (None, 6.67, 3.34, 2.48),
            "iPNDM": (13.59, 7.05, 3.69, 2.77),
            "iPNDM+GITS": (8.38, 4.88, 3.24, 2.49),
        },
    ),
    "ffhq": PaperTable(
        "edm-ffhq-64x64-uncond-vp",
        _FID_REFS + "ffhq-64x64.npz",
        {
            "DDIM": (43.93, 35.22, 24.39, 18.37),
            "DDIM+GITS": (29.80, 23.67, 16.60, 13.06),
            "DPM-Solver-2": (None, 83.17, 22.84, 9.46),
            "DPM++(3M)": (22.51, 13.74, 6.04, 4.12),
            "DEIS-tAB3": (17.36, 12.25, 7.59, 5.56),
            "UniPC": (21.40, 12.85, 5.50, 3.84),
            "AMED-Solver": (None, 10.28, 6.90, 5.49),
            "AMED-Plugin": (None, 9.54, 5.28, 3.66),
            "iPNDM": (17.17, 10.03, 5.52, 3.98),
            "iPNDM+GITS": (11.22, 7.00, 4.52, 3.62),
        },
    ),
    "imagenet64": PaperTable(
        "edm-imagenet-64x64-cond-adm",
        _FID_REFS + "imagenet-64x64.npz",
        {
            "DDIM": (43.81, 34.03, 22.59, 16.72),
            "DDIM+GITS": (24.92, 19.54, 13.79, 10.83),
            "DPM-Solver-2": (None, 44.83, 12.42, 6.84),
            "DPM++(3M)": (25.49, 15.06, 7.84, 5.67),
            "DEIS-tAB3": (14.75, 12.57, 6.84, 5.34),
            "UniPC": (24.36, 14.30, 7.52, 5.53),
            "AMED-Solver": (None, 10.63, 7.71, 6.06),
            "AMED-Plugin": (None, 12.05, 7.03, 5.01),
            "iPNDM": (18.99, 12.92, 7.20, 5.11),
            "iPNDM+GITS": (10.79, 8.43, 5.82, 4.48),
        },
    ),
}


def gits_levels(
    denoiser: Denoiser,
    x: Tensor,
    budgets: Sequence[int],
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    labels: Tensor | None = None,
) -> dict[int, Tensor]:
    """Levels as the paper chooses them: iPNDM's paths in 60 steps, deviations as costs, a coefficient of 1.15.

    Parameters
    ----------
    denoiser : callable
        ``D(x, sigma, labels=None)``.
    x : (B, *event)
        Noise of level ``sigma_max``.
    budgets : list of int
        Numbers of steps.
    sigma_min, sigma_max : float
        Ends of the levels.
    labels : (B, ...), optional
        Classes of the samples.

    Returns
    -------
    dict
        Steps -> levels (steps + 1,) float64, on the CPU.

    Examples
    --------
    >>> from teachkit import Gaussian
    >>> D = Gaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 0.1]])
    >>> gits_levels(D, initial_noise(8, (2,)), [5])[5].shape
    torch.Size([6])
    """
    levels = schedules.polynomial(GRID, sigma_min=sigma_min, sigma_max=sigma_max)
    cost = scheduling.cost_matrix(sample(denoiser, x, levels, "ipndm", labels=labels), "deviation")
    return {steps: levels[scheduling.shortest_path(cost, steps, COEFFICIENT)] for steps in budgets}


def paper_methods(
    rows: Sequence[str],
    budgets: Sequence[int],
    denoiser: Denoiser,
    shape: tuple[int, ...],
    group: Processes,
    folder: str | Path,
    *,
    identity: dict[str, Any],
    sigma_min: float,
    sigma_max: float,
    seed: int = 0,
    classes: int = 0,
    dtype: torch.dtype | None = None,
) -> list[Method]:
    """What fills the named rows, in their order; GITS's levels are found once and kept in the folder.

    Parameters
    ----------
    rows : list of str
        Of `RUNS`.
    budgets : list of int
        Evaluations for a sample; two-evaluation solvers leave out what they cannot spend as the paper does.
    denoiser, shape
        The model, on ``group.device``, and the shape of one sample.
    group : Processes
        Those that share the work; all must call it.
    folder : path
        Where finished work is kept.
    identity : dict
        What tells this model from others, as from `identify`.
    sigma_min, sigma_max : float
        Ends of the levels.
    seed, classes, dtype
        Of the noise that GITS is found on, other than that of the samples; classes in turn; its type.

    Returns
    -------
    list of Method
        Their ``schedule`` is the row's name.

    Examples
    --------
    >>> import tempfile
    >>> from teachkit import Gaussian
    >>> from teachkit.launcher import processes
    >>> D, ends = Gaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 0.1]]), {"sigma_min": 0.002, "sigma_max": 80.0}
    >>> with processes() as group:
    ...     found = paper_methods(["DDIM", "UniPC"], [5], D, (2,), group, tempfile.mkdtemp(), identity={}, **ends)
    >>> [(method.schedule, method.solver, method.nfe) for method in found]
    [('DDIM', 'euler', 5), ('UniPC', 'unipc', 5)]
    """

    def search(_: range) -> dict[str, Tensor]:
        x = initial_noise(WARM_UP, shape, sigma_max, seed=seed, stream=1, dtype=dtype, device=group.device)
        labels = torch.arange(WARM_UP, device=group.device) % classes if classes else None
        found = gits_levels(denoiser, x, budgets, sigma_min, sigma_max, labels)
        return {str(steps): levels for steps, levels in found.items()}

    gits: dict[str, Tensor] = {}
    if any(RUNS[row][1] == "gits" for row in rows):
        about = {**identity, "what": "GITS", "budgets": list(budgets), "seed": seed, "classes": classes}
        kept = Shards(folder, {**about, "ends": [sigma_min, sigma_max], "dtype": str(dtype)}, 1)
        kept.run(search, group)
        gits = kept.one(range(1))
    methods = []
    for row in rows:
        solver, kind = RUNS[row]
        for nfe in budgets:
            steps, options = step_counts(solver, nfe)[0]
            if options:  # an Euler step last, which the paper's DPM-Solver-2 does not take
                continue
            levels = schedules.polynomial(steps, sigma_min=sigma_min, sigma_max=sigma_max)
            step = solvers.get(solver)
            methods.append(Method(solver, row, nfe, gits[str(nfe)] if kind == "gits" else levels, step))
    return methods

"""Methods against numbers of evaluations, as the paper's tables have them (arXiv 2506.10177, Tables 2 to 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teachkit import metrics, schedules, solvers
from teachkit.checks import choice
from teachkit.denoisers import Denoiser
from teachkit.evaluation.shards import Shards
from teachkit.evaluation.streams import GeometryStatistics, features_for, geometry_of, pack, samples_of, unpack
from teachkit.fingerprints import fingerprint
from teachkit.launcher import Processes
from teachkit.metrics import FeatureStatistics
from teachkit.scheduling import Schedule
from teachkit.scheduling.search import step_counts
from teachkit.solvers import Solver

__all__ = ["Method", "Row", "identify", "methods", "table"]

REFERENCE_STEPS = 60  # of UniPC, on the polynomial levels


@dataclass(frozen=True, eq=False)
class Method:
    """A solver on its levels: what one cell of a table is made with.

    Examples
    --------
    >>> method = methods(["euler"], "polynomial", [4], sigma_min=0.002, sigma_max=80.0)[0]
    >>> method.solver, method.nfe
    ('euler', 4)
    """

    solver: str
    schedule: str
    nfe: int
    sigmas: Tensor
    step: Solver

    def about(self) -> dict[str, Any]:
        """What its samples depend on, in plain values."""
        step = {"solver": self.solver, "options": repr(self.step), "step": fingerprint(self.step)}
        return {**step, "sigmas": self.sigmas.tolist()}


@dataclass(frozen=True)
class Row:
    """One cell: the Fréchet distance to the real data, and the mean error to the reference from the same noise.

    Examples
    --------
    >>> Row("euler", "polynomial", 4, frechet=1.5, error=0.25, samples=64).frechet
    1.5
    """

    solver: str
    schedule: str
    nfe: int
    frechet: float
    error: float
    samples: int


def methods(
    names: Sequence[str], schedule: str, budgets: Sequence[int], *, model: str = "", sigma_min: float, sigma_max: float
) -> list[Method]:
    """Solvers by name with the numbers of evaluations ``budgets``, on one kind of levels.

    Parameters
    ----------
    names : list of str
        Names in ``solvers.REGISTRY``; or "fitted", with ``schedule="found"``.
    schedule : str
        "polynomial", "logsnr", "time_uniform", "cosine"; or "found", the levels that ship for ``model``.
    budgets : list of int
        Evaluations for a sample. A solver with two evaluations a step spends an odd number with an Euler step last.
    model : str
        Whose shipped levels or weights; "" for none.
    sigma_min, sigma_max : float
        Ends of the levels.

    Returns
    -------
    list of Method
        For each solver, each number of evaluations.

    Raises
    ------
    ValueError, FileNotFoundError
        For unknown names, and levels that do not ship.

    Examples
    --------
    >>> found = methods(["heun"], "polynomial", [5, 8], sigma_min=0.002, sigma_max=80.0)
    >>> [(method.nfe, len(method.sigmas) - 1) for method in found]
    [(5, 3), (8, 4)]
    """
    out = []
    for name in names:
        for nfe in budgets:
            if schedule == "found":
                found = Schedule.shipped(model, name, nfe)
                out.append(Method(name, schedule, nfe, found.sigmas, found.make_solver()))
                continue
            if schedule not in schedules.REGISTRY:
                raise ValueError(f"schedule must be found or one of {', '.join(schedules.REGISTRY)}, got {schedule!r}")
            choice("solver", name, solvers.REGISTRY)
            steps, options = step_counts(name, nfe)[0]
            levels = schedules.REGISTRY[schedule](steps, sigma_min=sigma_min, sigma_max=sigma_max)
            out.append(Method(name, schedule, nfe, levels, solvers.get(name, **options)))
    return out


def table(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    wanted: Sequence[Method],
    real: FeatureStatistics,
    group: Processes,
    folder: str | Path,
    *,
    identity: dict[str, Any],
    features: str = "digits",
    count: int = 1024,
    seed: int = 0,
    classes: int = 0,
    dtype: torch.dtype | None = None,
    report: Callable[[Row], None] | None = None,
    progress: bool = False,
) -> tuple[list[Row], GeometryStatistics]:
    """Sample with every method and measure, resumably; all processes must call it, and all get the rows.

    The first row is the reference: what the model itself gives when it is solved well (60 steps of UniPC). No method
    can be expected to come closer to the data than that; its error is 0 by definition.

    Parameters
    ----------
    denoiser, shape
        The model, on ``group.device``, and the shape of one sample.
    wanted : list of Method
        Solvers on their levels, as `methods` makes them.
    real : FeatureStatistics
        Of the real data, in the same features.
    group : Processes
        Those that share the work, as from `processes`.
    folder : path
        Where finished shards are kept (`Shards`).
    identity : dict
        What tells this model from others, of plain values; add `fingerprint` of its weights.
    features : str
        "digits" (28x28), "emoji", "pixels" or "inception": in what the distances are measured.
    count, seed, classes, dtype
        Samples, their seed, their classes in turn, their type.
    report : callable, optional
        Is called with each row as soon as it is known.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Row, GeometryStatistics
        The cells, the reference first; and the shape of the reference's paths.

    Raises
    ------
    ValueError
        Without a method, or for unknown features.

    Examples
    --------
    >>> import tempfile
    >>> from teachkit.launcher import processes
    >>> from teachkit import Gaussian
    >>> D = Gaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 0.1]])
    >>> real = FeatureStatistics(D.sample(500, generator=torch.Generator().manual_seed(0)))
    >>> wanted = methods(["euler"], "polynomial", [4], sigma_min=0.002, sigma_max=80.0)
    >>> with processes() as group:
    ...     rows, shape = table(
    ...         D, (2,), wanted, real, group, tempfile.mkdtemp(), identity=identify(D, "D"), features="pixels", count=64
    ...     )
    >>> [(row.solver, row.nfe, row.error > 0.01) for row in rows]
    [('unipc', 60, False), ('euler', 4, True)]
    """
    if not wanted:
        raise ValueError("wanted must name at least one method, got none")
    extract = features_for(features)
    common = {**identity, "shape": list(shape), "seed": seed, "classes": classes}
    common |= {"dtype": str(dtype), "device": group.device.type}
    ends = (float(wanted[0].sigmas[-1]), float(wanted[0].sigmas[0]))
    levels = schedules.polynomial(REFERENCE_STEPS, sigma_min=max(ends[0], 0.002), sigma_max=ends[1])
    reference = Method("unipc", "polynomial", REFERENCE_STEPS, levels, solvers.get("unipc"))

    draw = partial(samples_of, denoiser, shape, seed=seed, classes=classes, dtype=dtype, device=group.device)

    def solved(samples: range) -> dict[str, Tensor]:
        path = draw(reference.sigmas, reference.step, samples, keep="all")
        return {"final": path.final, **geometry_of(path)}

    finals = Shards(folder, {**common, **reference.about(), "kept": "samples"}, count)
    finals.run(solved, group, progress, "reference")
    rows = []
    for method in (reference, *wanted):

        def measured(samples: range, method: Method = method) -> dict[str, Tensor]:
            there = finals.one(samples)["final"].to(group.device)
            made = there if method is reference else draw(method.sigmas, method.step, samples).final
            return {"error": metrics.error_to_reference(made, there), **pack(extract(made))}

        kept = {"kept": "statistics", "features": features, "reference": finals.key}
        shards = Shards(folder, {**common, **method.about(), **kept}, count)
        shards.run(measured, group, progress, f"{method.solver} {method.nfe}")
        error = torch.cat([shard["error"] for shard in shards.read()])
        distance = metrics.frechet_distance(unpack(shards.read()), real)
        rows.append(Row(method.solver, method.schedule, method.nfe, distance, float(error.mean()), count))
        if report and group.first:
            report(rows[-1])
    return rows, GeometryStatistics(finals.read())


def identify(denoiser: Any, name: str) -> dict[str, Any]:
    """What tells a model from others: its name, and the fingerprint of all that decides what it computes.

    Parameters
    ----------
    denoiser : Module or callable
        The model.
    name : str
        What it is called.

    Returns
    -------
    dict
        Plain values, for a file.

    Raises
    ------
    TypeError
        For a model that holds something which cannot be told from another: identify it in a way of your own.

    Examples
    --------
    >>> from teachkit import Gaussian
    >>> identify(Gaussian([0.0, 1.0], [[1.0, 0.0], [0.0, 1.0]]), "mine")["model"]
    'mine'
    """
    return {"model": name, "fingerprint": fingerprint(denoiser)}

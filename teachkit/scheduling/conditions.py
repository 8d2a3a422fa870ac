"""How a model is asked wherever a search asks it: labels, guidance, thresholding, and so many samples at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from teachkit.checks import number
from teachkit.denoisers import Denoiser
from teachkit.sampling import Evaluator, Labels, Trajectory, check_conditions, rows_of, sample
from teachkit.solvers import Solver


@dataclass(frozen=True, eq=False)
class Conditions:
    """Arguments of `teachkit.sample` that every evaluation of one search shares, under their names there."""

    labels: Labels | None = None
    guidance: float | None = None
    dynamic_threshold: float | None = None
    batch: int | None = None

    def check(self, denoiser: Denoiser, x: Tensor) -> None:
        """Raise an error unless a batch of noise can be asked about in this way."""
        check_conditions(denoiser, x, self.labels, self.guidance, self.batch)
        if self.dynamic_threshold is not None:
            number("dynamic_threshold", self.dynamic_threshold, above=0, most=1)

    def of(self, rows: slice | Tensor) -> Conditions:
        """The same for some of the samples."""
        return replace(self, labels=rows_of(self.labels, rows))

    def sample(self, denoiser: Denoiser, x: Tensor, sigmas: Tensor, solver: str | Solver, **more: Any) -> Trajectory:
        """`teachkit.sample` under these conditions."""
        return sample(denoiser, x, sigmas, solver, **vars(self), **more)

    def evaluator(self, denoiser: Denoiser) -> Evaluator:
        """The denoiser under these conditions, for as many samples as there are labels."""
        return Evaluator(denoiser, self.labels, self.guidance, self.dynamic_threshold, self.batch)

    def calls(self, denoiser: Denoiser) -> int:
        """How often the model is called for one evaluation of a solver: guidance also asks it without labels."""
        return int(getattr(denoiser, "evaluations", 1)) * (1 if self.guidance is None or self.guidance == 1 else 2)

    def in_use(self, denoiser: Denoiser) -> float | None:
        """The guidance scale asked for, or the denoiser's own; None for none."""
        given = getattr(denoiser, "guidance", None) if self.guidance is None else self.guidance
        return None if given is None else float(given)

    def record(self, denoiser: Denoiser) -> dict[str, Any]:
        """What a schedule that was found so says of it, in plain values."""
        threshold = self.dynamic_threshold
        return {
            "labels": _counts(self.labels),
            "guidance": self.in_use(denoiser),
            "dynamic_threshold": None if threshold is None else float(threshold),
        }


def _counts(labels: Labels | None) -> dict[str, Any] | str | None:
    """How many samples were of each class; of labels that are not classes, only their form; of a dict, each part."""
    if labels is None:
        return None
    if isinstance(labels, Mapping):
        return {str(name): _counts(part) for name, part in labels.items()}
    if labels.ndim != 1 or labels.is_floating_point():
        return f"shape {tuple(labels.shape)}"
    classes, counts = labels.unique(return_counts=True)
    return {str(c): n for c, n in zip(classes.tolist(), counts.tolist())}

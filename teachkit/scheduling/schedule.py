"""A found schedule: the noise levels, the solver they were found for, and how they were found."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teachkit import checks, data, schedules, solvers
from teachkit.checks import flag, integer, number
from teachkit.files import write_whole
from teachkit.scheduling.amed import AMED
from teachkit.scheduling.fitted import FittedMultistep
from teachkit.scheduling.flow import before_shift, is_flow_scheduler, times
from teachkit.solvers import Solver

FORMAT = "teachkit schedule 1"
LEARNED: dict[str, type[Solver]] = {cls.name: cls for cls in (FittedMultistep, AMED)}  # by one schedule, for it alone


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels together with the solver they belong to. Two are equal if they would be saved alike.

    Attributes
    ----------
    sigmas : (N+1,)
        The levels, decreasing, float64, on the CPU.
    solver : str
        Name in ``solvers.REGISTRY``, or "fitted" for weights that were fitted with the schedule, or "amed" for steps
        that were learned on it.
    options : dict
        Options of the solver.
    nfe : int
        Evaluations one sample costs: as many as steps, or twice as many, less one where the last step is one of Euler.
        With guidance each calls the model twice.
    error : float
        Mean root-mean-square error of the final samples to the teacher's, on warm-up noise kept apart from the search.
    provenance : dict
        How it was found: method, objective, model, labels, guidance, dynamic threshold, warm-up size, teacher and
        evaluations spent; and beside the mean error the root-mean-square one and the share of samples that end
        elsewhere. Plain values only.
    guidance : float or None
        The guidance scale that it was found for, 1 for none, as the provenance says; None where that does not say.
        `teachkit.sample` warns if the schedule's solver is used at another.

    Examples
    --------
    >>> found = Schedule([80.0, 1.0, 0.002], "ipndm", 2, {"order": 2})
    >>> found.make_solver().order, found.to_comfyui()
    (2, '80, 1, 0.002')
    """

    sigmas: Tensor
    solver: str
    nfe: int
    options: dict[str, Any] = field(default_factory=dict)
    error: float = math.nan
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", schedules.validate(self.sigmas))
        for name in ("options", "provenance"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} must be a dict, got {type(getattr(self, name)).__name__}")
            object.__setattr__(self, name, copy.deepcopy(getattr(self, name)))  # the caller's may change
        _ = self.guidance  # which raises an error where the provenance says what is no number
        if not (isinstance(self.error, float) and math.isnan(self.error)):  # NaN: it is not known
            object.__setattr__(self, "error", number("error", self.error, least=0))
        if not isinstance(self.solver, str):
            raise TypeError(f"solver must be a name, got {type(self.solver).__name__}")
        if self.solver not in LEARNED and self.solver not in solvers.REGISTRY:
            learned = ", ".join(map(repr, LEARNED))
            raise ValueError(f"solver must be {learned} or one of {', '.join(solvers.REGISTRY)}, got {self.solver!r}")
        object.__setattr__(self, "nfe", integer("nfe", self.nfe, 1))
        try:
            solver = self.make_solver()
        except (ValueError, TypeError) as error:
            raise ValueError(f"options must be those of the solver {self.solver!r}: {error}") from error
        steps = len(self.sigmas) - 1
        most = steps * solver.evaluations
        least = most if solver.evaluations == 1 else most - 1  # the last step may be one of Euler
        if not least <= self.nfe <= most:
            fits = " or ".join(str(n) for n in sorted({least, most}))
            raise ValueError(f"nfe must be {fits} for sigmas of {steps} steps with {self.solver}, got {self.nfe}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and json.loads(self.to_json()) == json.loads(other.to_json())

    def __hash__(self) -> int:
        return hash((self.solver, self.nfe, *self.sigmas.tolist()))

    @property
    def guidance(self) -> float | None:
        """The guidance scale that it was found for, 1 for none; None where that is not known."""
        if "guidance" not in self.provenance:
            return None
        given = self.provenance["guidance"]
        return 1.0 if given is None else number("guidance in provenance", given)

    def make_solver(self) -> Solver:
        """The solver this schedule was found for, with its options; it knows for which guidance that was."""
        if self.solver in LEARNED:
            solver = LEARNED[self.solver](**self.options, sigmas=self.sigmas)  # type: ignore[call-arg]
        else:
            solver = solvers.get(self.solver, **self.options)
        solver.found_for_guidance = self.guidance
        return solver

    def to_json(self) -> str:
        """The text that `save` writes."""
        content = {"format": FORMAT, **asdict(self), "sigmas": self.sigmas.tolist()}
        content["error"] = None if math.isnan(self.error) else self.error
        return json.dumps(content, indent=1)

    def save(self, path: str | Path) -> None:
        """Write as JSON; the file is whole or absent."""
        file = checks.path("path", path)
        try:
            write_whole(file, lambda beside: beside.write_text(self.to_json() + "\n"))
        except OSError as error:
            raise OSError(error.errno, f"could not write the schedule: {error.strerror}", str(path)) from error

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is not a schedule, or holds levels or options that are not valid.
        """
        try:
            content = json.loads(checks.path("path", path).read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a schedule file: {error}") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not a schedule file (its format is not {FORMAT!r})")
        expected = {"sigmas", "solver", "nfe", "options", "error", "provenance"}
        if set(content) != expected:
            raise ValueError(f"{path} must hold {sorted(expected)}, got {sorted(content)}")
        content["error"] = math.nan if content["error"] is None else content["error"]
        try:
            content["sigmas"] = schedules.validate(content["sigmas"])
            return cls(**content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is not a valid schedule: {error}") from error

    @classmethod
    def shipped(cls, model: str, solver: str, nfe: int) -> Schedule:
        """The schedule that ships for a model: ``Schedule.shipped("edm-digits8", "fitted", 6)``.

        Raises
        ------
        FileNotFoundError
            If there is none; the message lists what there is for that model.
        """
        nfe = integer("nfe", nfe, 1)
        shipped = {path.stem: path for path in (data.directory() / "schedules").glob("*.json")}
        name, prefix = f"{model}-{solver}-{nfe}", f"{model}-"
        if name not in shipped:
            there = sorted(stem.removeprefix(prefix) for stem in shipped if stem.startswith(prefix))
            raise FileNotFoundError(f"no schedule {name} ships; for {model}: {', '.join(there) or 'none'}")
        return cls.load(shipped[name])

    def to_comfyui(self) -> str:
        """Comma-separated levels, as custom-sigmas nodes of ComfyUI take them: N + 1 of them make N steps.

        Raises
        ------
        ValueError
            For fitted weights and learned steps, which no other software takes.
        """
        self.require_classical()
        return ", ".join(f"{s:.6g}" for s in self.sigmas.tolist())

    def to_diffusers(
        self,
        alphas_cumprod: Tensor | None = None,
        *,
        flow: bool = False,
        scheduler: Any = None,
        mu: float | None = None,
    ) -> dict[str, Any]:
        """Keyword arguments for ``set_timesteps`` of diffusers' schedulers, for as many evaluations as here.

        By default ``{"sigmas": [...]}`` with all levels, as EulerDiscreteScheduler takes them. With the
        ``alphas_cumprod`` (T,) of a model of T discrete steps ``{"timesteps": [...]}`` for the schedulers that take
        times (DPMSolverMultistepScheduler, HeunDiscreteScheduler): nearest in log sigma, and without the last one,
        which they choose themselves. For IPNDM and the EDM schedulers see `scheduling.drive`.

        For flow matching give the ``scheduler`` (FlowMatchEulerDiscreteScheduler) and, if its shift is dynamic, the
        pipeline's ``mu``: ``{"sigmas": [...]}`` are then the times s = sigma / (1 + sigma) with the scheduler's shift
        undone, which it will put on them again, and without the last one: it appends 0. ``flow=True`` gives the times
        themselves, for software that does not shift (a scheduler of shift 1).

        Raises
        ------
        ValueError
            For fitted weights and learned steps, which no other software takes; if two levels fall on one of the T
            steps; for arguments of two kinds of model; for a scheduler whose settings change the times in other ways
            than by a shift, or that adds noise.
        """
        self.require_classical()
        if (alphas_cumprod is not None) + flag("flow", flow) + (scheduler is not None) > 1:
            raise ValueError("alphas_cumprod, flow and scheduler exclude each other: they are for different models")
        if scheduler is None and mu is not None:
            raise ValueError("mu must come with the scheduler whose shift it gives")
        if scheduler is not None:
            if not is_flow_scheduler(scheduler):
                raise TypeError(
                    f"scheduler must be diffusers' FlowMatchEulerDiscreteScheduler, got {type(scheduler).__name__}"
                )
            given = before_shift(scheduler, times(self.sigmas[:-1]), mu)
            return {"sigmas": given.tolist()} | ({} if mu is None else {"mu": mu})
        if flow:
            return {"sigmas": times(self.sigmas[:-1]).tolist()}
        if alphas_cumprod is None:
            return {"sigmas": self.sigmas.tolist()}
        trained = schedules.trained_levels(alphas_cumprod)
        levels = self.sigmas[:-1].log()
        at = torch.searchsorted(trained, levels).clamp(1, len(trained) - 1)
        part = (levels - trained[at - 1]) / (trained[at] - trained[at - 1])
        nearest = (at - 1 + part.clamp(0, 1)).round().long()
        kept = list(dict.fromkeys(nearest.tolist()))
        if len(kept) < len(levels):
            raise ValueError("two levels fall on one timestep of this model; use fewer steps or pass sigmas")
        return {"timesteps": kept}

    def require_classical(self) -> None:
        """Raise a ValueError for fitted weights or learned steps: without them the levels give other samples."""
        if self.solver in LEARNED:
            own = "fitted weights" if self.solver == FittedMultistep.name else "learned steps"
            raise ValueError(
                f"this schedule has {own}, which other software does not take, and without them its levels "
                "give other samples: use teachkit.sample with make_solver(), or find_schedule for a classical solver"
            )

"""Times of flow matching, s = sigma / (1 + sigma), and the shift that diffusers' scheduler of such models puts on them.

Given times s, `FlowMatchEulerDiscreteScheduler` steps through shift * s / (1 + (shift - 1) * s): sigma times ``shift``.
With "dynamic shifting" the shift is exp(mu), or mu, of a number ``mu`` that the pipeline computes from the size of the
picture. Levels that are to be kept must have it undone first.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from teachkit.checks import number


def times(sigmas: Tensor) -> Tensor:
    """s = sigma / (1 + sigma) of flow matching, from 0 at the data to 1 at the noise."""
    return sigmas / (1 + sigmas)


def is_flow_scheduler(scheduler: Any) -> bool:
    """Whether it is diffusers' FlowMatchEulerDiscreteScheduler, or a subclass."""
    return any(c.__name__ == "FlowMatchEulerDiscreteScheduler" for c in type(scheduler).__mro__)


def require_deterministic(scheduler: Any) -> None:
    """Raise a ValueError for a scheduler that adds noise: its samples would not be those of the schedule."""
    config = getattr(scheduler, "config", None)
    algorithm = str(getattr(config, "algorithm_type", ""))
    if getattr(config, "stochastic_sampling", False) or algorithm.startswith("sde"):
        raise ValueError(f"scheduler must be deterministic, got a {type(scheduler).__name__} set to add noise")


def before_shift(scheduler: Any, shifted: Tensor, mu: float | None) -> Tensor:
    """The times that the scheduler's ``set_timesteps`` turns into ``shifted``."""
    require_deterministic(scheduler)
    config = scheduler.config
    for name in ("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        if getattr(config, name, None):
            raise ValueError(
                f"scheduler must take the times it is given, got one with {name}; make it without, or use "
                "scheduling.drive"
            )
    if not config.use_dynamic_shifting:
        if mu is not None:
            raise ValueError("mu must be None: this scheduler has no dynamic shifting")
        shift = float(getattr(scheduler, "shift", config.shift))
    elif mu is None:
        raise ValueError("mu must be given, as the pipeline will give it: this scheduler's shift depends on it")
    else:
        linear = getattr(config, "time_shift_type", "exponential") == "linear"
        shift = number("mu", mu, above=0) if linear else math.exp(number("mu", mu, most=50, least=-50))
    return shifted / (shift - (shift - 1) * shifted)

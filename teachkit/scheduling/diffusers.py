"""Schedules on diffusers' schedulers that do not take noise levels as they are: IPNDM, the EDM family, flow matching.

Most of diffusers' schedulers take ``sigmas=`` or ``timesteps=`` (`Schedule.to_diffusers` gives them). Two of those that
the paper compares do not: they compute their levels from their settings; and that of flow matching changes what it is
given. `drive` puts the levels of a schedule in their place. The scheduler then runs as always: ``scale_model_input``,
network, ``step``, for each of ``scheduler.timesteps``.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from teachkit import checks
from teachkit.checks import shown
from teachkit.scheduling.flow import is_flow_scheduler, require_deterministic, times
from teachkit.scheduling.schedule import Schedule

__all__ = ["drive"]


def drive(scheduler: Any, schedule: Schedule, device: torch.device | str | None = None) -> None:
    """Make a diffusers scheduler step through the levels of ``schedule``, in place, instead of ``set_timesteps``.

    Parameters
    ----------
    scheduler : diffusers' IPNDM-, EDMDPMSolverMultistep-, EDMEuler- or FlowMatchEulerDiscreteScheduler
        IPNDM works on z = x / sqrt(1 + sigma^2): start from ``z`` at the first level, give it a network that predicts
        v; its ``timesteps`` are (2 / pi) atan(sigma). The EDM ones work on x, and take the raw output of the network
        inside EDM's preconditioning; their ``timesteps`` are ln(sigma) / 4. That of flow matching works on
        x / (1 + sigma) and takes the velocity; its times are sigma / (1 + sigma) whatever its shift.
    schedule : Schedule
        Of N steps; its last level is kept. The schedule's solver is the scheduler's, if that was made with the same
        settings: "ipndm" is IPNDM, "dpmpp_2m" and "dpmpp_3m" are EDM's DPM-Solver of ``solver_order`` 2 and 3 up to 14
        steps (both lower their order at the end), "euler" is EDMEulerScheduler and FlowMatchEulerDiscreteScheduler.
    device : torch.device or str, optional
        Where the timesteps are to lie.

    Raises
    ------
    TypeError
        For a scheduler of another kind; those take ``**schedule.to_diffusers()``.
    ValueError
        For fitted weights, which no scheduler takes, and a scheduler set to add noise.

    Examples
    --------
    >>> class Scheduler:  # what is used of diffusers' IPNDMScheduler
    ...     betas, ets = None, []
    ...     def set_timesteps(self, steps, device=None): ...
    >>> scheduler = Scheduler()
    >>> drive(scheduler, Schedule([8.0, 1.0, 0.1], "ipndm", 2))
    >>> scheduler.timesteps
    tensor([0.9208, 0.5000])
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be a Schedule, got {shown(schedule)}")
    schedule.require_classical()
    require_deterministic(scheduler)
    device = checks.device("device", device)
    steps, levels = len(schedule.sigmas) - 1, schedule.sigmas.to(torch.float32)
    if hasattr(scheduler, "precondition_noise"):
        scheduler.set_timesteps(steps, device=device)
        scheduler.timesteps = scheduler.precondition_noise(levels[:-1]).to(device)
        scheduler.sigmas = levels
    elif hasattr(scheduler, "betas") and hasattr(scheduler, "ets"):
        scheduler.set_timesteps(steps, device=device)
        scale = (1 + schedule.sigmas**2).rsqrt()
        scheduler.betas = (schedule.sigmas * scale).to(torch.float32)
        scheduler.alphas = scale.to(torch.float32)
        scheduler.timesteps = (2 / math.pi * schedule.sigmas.atan()[:-1]).to(torch.float32).to(device)
    elif is_flow_scheduler(scheduler):
        config = scheduler.config
        scheduler.set_timesteps(steps, device=device, **({"mu": 1.0} if config.use_dynamic_shifting else {}))
        at = times(schedule.sigmas).to(torch.float32)
        scheduler.sigmas = (1 - at if config.invert_sigmas else at).to(device)
        scheduler.timesteps = scheduler.sigmas[:-1] * config.num_train_timesteps
    else:
        raise TypeError(
            "scheduler must be diffusers' IPNDM-, EDMDPMSolverMultistep-, EDMEuler- or FlowMatchEulerDiscreteScheduler,"
            f" got {type(scheduler).__name__}; others take set_timesteps(**schedule.to_diffusers())"
        )

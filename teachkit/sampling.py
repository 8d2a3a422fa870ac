"""The one sampling loop, with guidance, thresholding and the count of evaluations around the denoiser.

`sample` walks down a schedule with a solver and counts, by wrapping the denoiser, how often it is evaluated. A 2-D
mixture in closed form and a U-Net go through the same lines. Deterministic sampling solves the probability-flow ODE

    dx/dsigma = (x - D(x; sigma)) / sigma

(Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364, eq. 1). Taught in ``notebooks/03_the_ode``.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from teachkit import schedules, solvers
from teachkit.checks import anywhere, choice, flag, function, integer, is_finite, number, shown
from teachkit.checks import batch as check_batch
from teachkit.denoisers import Denoiser, default_dtype
from teachkit.noise import initial_noise
from teachkit.progress import tqdm
from teachkit.solvers import Point, Solver
from teachkit.trajectory import Trajectory

__all__ = ["Trajectory", "initial_noise", "sample"]

Callback = Callable[[int, float, Tensor, Tensor], object]
Labels: TypeAlias = Tensor | Mapping[str, Tensor]


@dataclass(eq=False)
class Evaluator:
    """The denoiser with labels, guidance and thresholding applied, in batches, counting its evaluations."""

    denoiser: Denoiser
    labels: Labels | None = None
    guidance: float | None = None
    threshold: float | None = None
    batch: int | None = None
    nfe: int = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        denoised = self._in_batches(self.denoiser, x, sigma, self.labels)
        if self.guidance is not None and self.guidance != 1:
            free = self._in_batches(getattr(self.denoiser, "unconditional", self.denoiser), x, sigma, None)
            denoised = torch.lerp(free, denoised, self.guidance)
        if self.threshold is not None:
            denoised = _dynamic_threshold(denoised, self.threshold)
        return denoised

    def _in_batches(self, model: Denoiser, x: Tensor, sigma: float, labels: Labels | None) -> Tensor:
        self.nfe += getattr(self.denoiser, "evaluations", 1)
        if self.batch is None:
            return self._call(model, x, sigma, labels)
        place = _device(self.denoiser) or x.device
        parts = [slice(first, first + self.batch) for first in range(0, len(x), self.batch)]
        outputs = (self._call(model, x[rows].to(place), sigma, rows_of(labels, rows, place)) for rows in parts)
        return torch.cat([output.to(x.device) for output in outputs])

    def _call(self, model: Denoiser, x: Tensor, sigma: float, labels: Labels | None) -> Tensor:
        out = model(x, sigma) if labels is None else model(x, sigma, labels)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"denoiser must return a tensor of the shape of x, {tuple(x.shape)}, got {got}")
        if out.dtype != x.dtype:
            raise ValueError(f"denoiser must return the dtype of x, {x.dtype}, got {out.dtype}")
        return out


def sample(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    solver: str | Solver = "euler",
    *,
    labels: Labels | None = None,
    guidance: float | None = None,
    afs: bool = False,
    dynamic_threshold: float | None = None,
    batch: int | None = None,
    keep: str = "all",
    callback: Callback | None = None,
    progress: bool = False,
) -> Trajectory:
    """Follow the probability-flow ODE from ``sigmas[0]`` to ``sigmas[-1]``.

    Parameters
    ----------
    denoiser : callable
        ``D(x, sigma, labels=None)``, returning a new tensor (not a reused buffer) of the shape and dtype of x.
    x : (B, *event)
        The state at ``sigmas[0]``, already scaled: for pure noise, ``sigmas[0] * standard_normal`` (`initial_noise`).
        Gradients are tracked only if x requires them: without, not for the denoiser's parameters either.
    sigmas : (N+1,)
        A schedule: strictly decreasing, ending above 0 or at 0.
    solver : str or Solver
        A name from ``solvers.REGISTRY`` or an instance with its options.
    labels : (B,), (B, K) or dict of (B, ...), optional
        Classes, or whatever the denoiser is conditioned on, one entry per sample; passed on to it.
    guidance : float, optional
        Classifier-free guidance scale w (arXiv 2207.12598): D = D_free + w (D_class - D_free), where D_free is the
        denoiser without labels, or its method ``unconditional(x, sigma)`` if it has one. Costs two evaluations a
        time, except at w = 1, where only the class-conditional one is needed. Needs ``labels``, or that method.
    afs : bool
        Analytical first step: take x / sqrt(1 + sigma^2), the direction for unit-variance data, as the first
        direction instead of evaluating the denoiser (arXiv 2210.05475). Saves one evaluation.
    dynamic_threshold : float, optional
        Percentile in (0, 1], for example 0.995: clip every D to that percentile s >= 1 of its own absolute values and
        divide by s (arXiv 2205.11487). For images in [-1, 1] under strong guidance; wrong for other data.
    batch : int, optional
        Samples that the denoiser sees at a time; all by default. With it x may lie elsewhere than the network, for
        example on the CPU: batches are brought to the network and back. Samples change by rounding at most.
    keep : {"all", "final"}
        Keep the whole path, or only the end (and memory for a single state).
    callback : callable, optional
        ``callback(step, sigma, x, denoised)`` is called once a step, when the step is done, with its number from 0
        and with a level, a state and an output that belong together: D(x; sigma) is ``denoised``, as under one index
        of the `Trajectory`. Of Heun's method and DPM-Solver-2 that is the first of their two evaluations, of UniPC
        the prediction, of EDM's stochastic sampler the state with noise added and its raised level, and of an
        analytical first step what that takes in place of D. Look at the tensors, or copy them; do not change them.
        What it raises ends the sampling.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError, TypeError
        For bad arguments, before any evaluation.
    FloatingPointError
        If the denoiser produced NaN or infinity on the way: after the step that did.

    Warns
    -----
    UserWarning
        Where a model that says what it was trained for, by its attributes ``sigma_min`` and ``sigma_max``, is asked
        outside, or started from noise of another size; and where the solver belongs to a schedule that was found for
        another guidance scale.

    Examples
    --------
    >>> from teachkit import Gaussian, schedules
    >>> D, sigmas = Gaussian([0.0, 1.0], 0.25), schedules.polynomial(20)
    >>> path = sample(D, initial_noise(4, (2,), sigmas[0]), sigmas, solver="heun")
    >>> path.x.shape, path.nfe
    (torch.Size([21, 4, 2]), 40)
    >>> seen = []
    >>> _ = sample(D, path.x[0], sigmas[:3], callback=lambda step, sigma, x, denoised: seen.append((step, sigma)))
    >>> [(step, round(sigma, 2)) for step, sigma in seen]
    [(0, 80.0), (1, 60.56)]
    """
    grid = schedules.validate(sigmas)
    rule = solvers.get(solver) if isinstance(solver, str) else solver
    function("denoiser", denoiser, "D(x, sigma)")
    if callback is not None:
        function("callback", callback, "callback(step, sigma, x, denoised)")
    check_batch("x", x)
    if not isinstance(rule, Solver):
        raise TypeError(f"solver must be a name or a Solver instance, got {rule!r}")
    check_conditions(denoiser, x, labels, guidance, batch)
    _warn_of_guidance(rule, denoiser, guidance)
    _warn_of_levels(rule, denoiser, x, grid)
    if dynamic_threshold is not None:
        number("dynamic_threshold", dynamic_threshold, above=0, most=1)
    choice("keep", keep, ("all", "final"))
    if flag("afs", afs) and not rule.analytic_first_step:
        raise ValueError(f"afs is not defined for {rule.name}")
    evaluate = Evaluator(denoiser, labels, guidance, dynamic_threshold, batch)
    levels = tuple(grid.tolist())
    whole = together = keep == "all"
    # Buffers filled as we go: stacking a list at the end would take twice the memory.
    path = x.new_empty(len(levels) if whole else 1, *x.shape)
    denoised = x.new_empty(len(levels) - 1 if whole else 0, *x.shape)
    history: deque[Point] = deque(maxlen=rule.memory)
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
        for i in tqdm(range(len(levels) - 1), desc=rule.name, disable=not flag("progress", progress), leave=False):
            given = x / math.hypot(1, levels[0]) if afs and i == 0 else None
            now = Point(x, levels[i], evaluate, levels, i, given)
            if history:
                now.x = rule.correct(now, history)
            start, x = now.x, rule.step(now, levels[i + 1], history)
            if not is_finite(x):
                at = f"at sigma = {levels[i + 1]:.4g}"
                raise FloatingPointError(f"sampling with {rule.name} ended in NaN or infinity {at}; check the denoiser")
            history.append(now)
            if not whole and callback is None:
                continue
            # Where D was evaluated: before a corrector moved the state. After noise was added, at another level.
            output, (seen, level) = now.denoised, now.evaluated_at or (start, levels[i])
            if whole:
                denoised[i] = output
                together = together and level == levels[i]
                path[i] = seen if level == levels[i] else start
            if callback is not None:
                callback(i, level, seen, output)
        path[-1] = x
        return Trajectory(grid, path, denoised if together else denoised[:0], evaluate.nfe)


def check_conditions(
    denoiser: Denoiser, x: Tensor, labels: Labels | None, guidance: float | None, batch: int | None = None
) -> None:
    """Raise an error unless a batch, its labels and guidance are such as the denoiser can be asked about."""
    own = _device(denoiser)
    if batch is not None:
        integer("batch", batch, 1)
    elif own is not None and own != x.device:
        raise ValueError(
            f"x is on {x.device} but the denoiser is on {own}; move one of them, or give batch= to have x brought there"
        )
    parts: dict[str, Any] = {"": labels} if not isinstance(labels, Mapping) else dict(labels)
    for name, part in parts.items() if labels is not None else ():
        if not isinstance(part, Tensor) or part.is_meta or part.ndim == 0 or len(part) != len(x):
            what = f"labels[{name!r}]" if isinstance(labels, Mapping) else "labels"
            got = str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__
            got += " without numbers" if isinstance(part, Tensor) and part.is_meta else ""
            raise ValueError(f"{what} must be a tensor with one entry per sample ({len(x)}), got {got}")
    if guidance is not None:
        number("guidance", guidance)
        if getattr(denoiser, "guidance", None) is not None:
            raise ValueError(f"guidance must be None: this denoiser has its own, {shown(denoiser.guidance)}")  # type: ignore[attr-defined]
        free = getattr(denoiser, "unconditional", None)  # of a pipeline without one this raises the reason
        if labels is None and (free is None or not getattr(denoiser, "conditioned", True)):
            raise ValueError("guidance needs labels: it moves away from the unconditional denoiser")


def rows_of(labels: Labels | None, rows: slice | Tensor, device: torch.device | None = None) -> Labels | None:
    """The labels of some samples, on a device if one is given."""
    if labels is None:
        return None
    if isinstance(labels, Mapping):
        return {name: part[rows].to(device) for name, part in labels.items()}
    return labels[rows].to(device)


def guidance_in_use(denoiser: Denoiser, guidance: float | None) -> float:
    """The guidance scale asked for, or the denoiser's own (its attribute ``guidance``), or 1: none."""
    given = getattr(denoiser, "guidance", None) if guidance is None else guidance
    return 1.0 if given is None else float(given)


def _warn_of_guidance(solver: Solver, denoiser: Denoiser, guidance: float | None) -> None:
    used = guidance_in_use(denoiser, guidance)
    if solver.found_for_guidance is not None and not math.isclose(solver.found_for_guidance, used, abs_tol=1e-9):
        warnings.warn(
            f"this schedule was found for guidance {solver.found_for_guidance:g} and is used at {used:g}: "
            "its error is not known there; search again with guidance=",
            stacklevel=3,
        )


def _warn_of_levels(solver: Solver, denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> None:
    """Of a model that says what it was trained for, used elsewhere: it answers all the same, and wrongly."""
    low, high = (getattr(denoiser, name, None) for name in ("sigma_min", "sigma_max"))
    first, last = float(sigmas[0]), float(sigmas[-2])  # where it is evaluated first and last
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return
    if first > 1.01 * high or last < 0.99 * low:
        warnings.warn(
            f"sigmas go from {first:.4g} to {last:.4g} where the denoiser is evaluated, but it was trained from "
            f"{high:.4g} to {low:.4g}: take levels between these",
            stacklevel=3,
        )
    if getattr(denoiser, "distilled", False):
        own = torch.tensor(denoiser.levels, dtype=torch.float64)  # type: ignore[attr-defined]
        if solver.name != "euler" or not bool(((sigmas[:-1, None] / own - 1).abs() < 0.01).any(1).all()):
            warnings.warn(
                f"this denoiser was distilled for Euler's method at {shown(own.tolist())} and means nothing at other "
                "levels or by other solvers: sample(D, x, D.levels)",
                stacklevel=3,
            )
    if first <= 10:  # the data decide the size as well
        return
    size = x.detach().square().mean(dtype=default_dtype(x.device)).sqrt()
    if anywhere(~((size > 0.5 * first) & (size < 2 * first))):
        warnings.warn(
            f"x must be the state at sigmas[0], noise of standard deviation {first:.4g}, but its numbers have a root "
            f"mean square of {float(size):.3g}: multiply noise by sigmas[0], as initial_noise does",
            stacklevel=3,
        )


def _device(denoiser: Denoiser) -> torch.device | None:
    """Where a network lies; None for what has no numbers of its own."""
    if not isinstance(denoiser, nn.Module):
        return None
    own: Tensor | None = next(denoiser.parameters(), next(denoiser.buffers(), None))
    return None if own is None else own.device


def _dynamic_threshold(denoised: Tensor, percentile: float) -> Tensor:
    flat = denoised.flatten(1)
    size = flat.abs().to(torch.promote_types(flat.dtype, torch.float32))  # quantile takes no half precision
    s = size.quantile(percentile, dim=1, keepdim=True).clamp(min=1).to(flat.dtype)
    return (flat.clamp(-s, s) / s).reshape(denoised.shape)

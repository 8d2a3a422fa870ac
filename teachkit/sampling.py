"""The one sampling loop, with guidance, thresholding and the count of evaluations around the denoiser.

`sample` walks down a schedule with a solver and counts, by wrapping the denoiser, how often it is evaluated. A 2-D
mixture in closed form and a U-Net go through the same lines. Deterministic sampling solves the probability-flow ODE

    dx/dsigma = (x - D(x; sigma)) / sigma

(Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364, eq. 1). Taught in ``notebooks/03_the_ode``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teachkit import schedules, solvers
from teachkit.checks import batch, choice, flag, function, is_finite, number
from teachkit.denoisers import Denoiser
from teachkit.noise import initial_noise
from teachkit.progress import tqdm
from teachkit.solvers import Point, Solver
from teachkit.trajectory import Trajectory

__all__ = ["Trajectory", "initial_noise", "sample"]

Callback = Callable[[int, float, Tensor, Tensor], object]


@dataclass(eq=False)
class Evaluator:
    """The denoiser with labels, guidance and thresholding applied, counting its evaluations."""

    denoiser: Denoiser
    labels: Tensor | None
    guidance: float | None
    threshold: float | None
    nfe: int = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        denoised = self._call(x, sigma, self.labels)
        if self.guidance is not None and self.guidance != 1:
            denoised = torch.lerp(self._call(x, sigma, None), denoised, self.guidance)
        if self.threshold is not None:
            denoised = _dynamic_threshold(denoised, self.threshold)
        return denoised

    def _call(self, x: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
        out = self.denoiser(x, sigma) if labels is None else self.denoiser(x, sigma, labels)
        self.nfe += 1
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
    labels: Tensor | None = None,
    guidance: float | None = None,
    afs: bool = False,
    dynamic_threshold: float | None = None,
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
    labels : (B,) or (B, K), optional
        Classes, passed on to the denoiser.
    guidance : float, optional
        Classifier-free guidance scale w (arXiv 2207.12598): D = D_free + w (D_class - D_free). Costs two evaluations
        a time, except at w = 1, where only the class-conditional one is needed. Needs ``labels``.
    afs : bool
        Analytical first step: take x / sqrt(1 + sigma^2), the direction for unit-variance data, as the first
        direction instead of evaluating the denoiser (arXiv 2210.05475). Saves one evaluation.
    dynamic_threshold : float, optional
        Percentile in (0, 1], for example 0.995: clip every D to that percentile s >= 1 of its own absolute values and
        divide by s (arXiv 2205.11487). For images in [-1, 1] under strong guidance; wrong for other data.
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
    batch("x", x)
    if not isinstance(rule, Solver):
        raise TypeError(f"solver must be a name or a Solver instance, got {rule!r}")
    _check_device(denoiser, x)
    check_labels(x, labels, guidance)
    if dynamic_threshold is not None:
        number("dynamic_threshold", dynamic_threshold, above=0, most=1)
    choice("keep", keep, ("all", "final"))
    if flag("afs", afs) and not rule.analytic_first_step:
        raise ValueError(f"afs is not defined for {rule.name}")
    evaluate = Evaluator(denoiser, labels, guidance, dynamic_threshold)
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


def _check_device(denoiser: Denoiser, x: Tensor) -> None:
    if isinstance(denoiser, nn.Module):
        own: Tensor | None = next(denoiser.parameters(), next(denoiser.buffers(), None))
        if own is not None and own.device != x.device:
            raise ValueError(f"x is on {x.device} but the denoiser is on {own.device}; move one of them")


def check_labels(x: Tensor, labels: Tensor | None, guidance: float | None) -> None:
    """Raise an error unless there is one label per sample, or none, and guidance has labels to guide by."""
    if labels is not None and (not isinstance(labels, Tensor) or labels.ndim == 0 or len(labels) != len(x)):
        got = str(tuple(labels.shape)) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels must be a tensor with one entry per sample ({len(x)}), got {got}")
    if guidance is not None:
        if labels is None:
            raise ValueError("guidance needs labels: it moves away from the unconditional denoiser")
        number("guidance", guidance)


def _dynamic_threshold(denoised: Tensor, percentile: float) -> Tensor:
    flat = denoised.flatten(1)
    size = flat.abs().to(torch.promote_types(flat.dtype, torch.float32))  # quantile takes no half precision
    s = size.quantile(percentile, dim=1, keepdim=True).clamp(min=1).to(flat.dtype)
    return (flat.clamp(-s, s) / s).reshape(denoised.shape)

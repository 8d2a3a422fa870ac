"""The one conversion under every adapter: a model ``model(z, t, labels)`` in other coordinates as D(x; sigma).

    z = scale(sigma) * x,    t = time(sigma),    D(x; sigma) = denoised(x, model(z, t), sigma)

The network runs in its own dtype, whatever the state's: bfloat16 weights under a float32 or float64 state. Levels,
times and the arithmetic around the network are in float32 at least. Used by all of `teachkit.adapters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from teachkit.checks import batch, function, level, number, shown

Model: TypeAlias = Callable[..., Any]
Time: TypeAlias = Callable[[Tensor], Tensor]
Labels: TypeAlias = Tensor | Mapping[str, Tensor]

__all__ = ["AdaptedDenoiser"]

_COMPUTED_IN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # weights may be stored in less


class AdaptedDenoiser(nn.Module):
    """A model in other coordinates as ``D(x, sigma, labels=None)``; made by `from_eps` and its like.

    ``D = denoised(x, model(z, time(sigma)), sigma)`` with ``z = scale(sigma) * x``.

    A model that is an ``nn.Module`` gets ``z``, and labels that are not integers, in the dtype of its parameters, and
    ``t`` in that or float32, whichever is finer; it may answer with a record whose ``sample`` is the prediction, as
    networks of diffusers do. Where it answers with 2 C channels for z of shape (B, C, ...), three axes or more, it
    predicts a variance too, and the first C are taken.

    Attributes
    ----------
    sigma_min, sigma_max : float
        The noise levels the model was trained on: of a discrete-time model its first and last; otherwise 0 and
        infinity.

    Examples
    --------
    >>> from teachkit.adapters import from_velocity
    >>> D = from_velocity(lambda z, t: torch.zeros_like(z))
    >>> isinstance(D, AdaptedDenoiser), D.sigma_max
    (True, inf)
    """

    def __init__(
        self,
        model: Model,
        time: Time,
        scale: Callable[[Tensor], Tensor],
        denoised: Callable[[Tensor, Tensor, Tensor], Tensor],
        levels: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        super().__init__()
        function("model", model, "model(z, t)")
        function("time", time, "time(sigma)")
        function("scale", scale, "scale(sigma)")
        function("denoised", denoised, "denoised(x, out, sigma)")
        require_raw("model", model)
        self.model, self.time, self.scale, self.denoised = model, time, scale, denoised
        self.sigma_min, self.sigma_max = levels

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Labels | None = None) -> Tensor:
        """E[x0 | x]: ``(B, *event)`` to ``(B, *event)``, ``sigma`` a number, 0-d or ``(B,)``; ValueError otherwise."""
        batch("x", x)
        own = dtype_of(self.model, x)
        work = torch.promote_types(torch.promote_types(x.dtype, own), torch.float32)
        at, exact = levelled(sigma, x, work), x.to(work)
        t = self.time(at).to(x.device, torch.promote_types(own, torch.float32)).flatten().expand(len(x))
        given = () if labels is None else (cast(labels, own),)
        out = self.model((self.scale(at) * exact).to(own), t, *given)
        return self.denoised(exact, _prediction(out, x).to(work), at).to(x.dtype)


def dtype_of(model: Any, x: Tensor) -> torch.dtype:
    """The floating-point type a network computes in: what it says, or that of its first numbers, or that of x."""
    if not isinstance(model, nn.Module):
        return x.dtype
    said = (getattr(model, "dtype", None), *(t.dtype for own in (model.parameters(), model.buffers()) for t in own))
    return next((dtype for dtype in said if dtype in _COMPUTED_IN), x.dtype)


def cast(labels: Any, dtype: torch.dtype) -> Any:
    """Labels, one tensor or a dict, with their floating-point numbers in another type; all else stays as it is."""
    if isinstance(labels, Mapping):
        return {name: cast(part, dtype) for name, part in labels.items()}
    return labels.to(dtype) if isinstance(labels, Tensor) and labels.is_floating_point() else labels


def require_raw(name: str, model: Any) -> None:
    """Raise a TypeError for what an adapter made: converted twice, it would answer with nonsense."""
    if getattr(model, "sigma_max", None) is not None and type(model).__module__.startswith("teachkit.adapters."):
        raise TypeError(
            f"{name} must be a model as it was trained, got {type(model).__name__}: that is a denoiser already"
        )


def _prediction(out: Any, x: Tensor) -> Tensor:
    """What a model answered, its record opened and a predicted variance left out."""
    out = getattr(out, "sample", out)
    whole = isinstance(out, Tensor) and out.ndim == x.ndim >= 3 and out.shape[1] == 2 * x.shape[1]
    out = out[:, : x.shape[1]] if whole else out
    if not isinstance(out, Tensor) or out.shape != x.shape:
        got = tuple(out.shape) if isinstance(out, Tensor) else shown(out)
        raise ValueError(f"model must return a tensor of the shape of z, {tuple(x.shape)}, got {got}")
    return out


def levelled(sigma: float | Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A checked noise level: 0-d float64 on the CPU for a number, else shaped to multiply x, (B, 1, ...)."""
    if isinstance(sigma, Tensor):
        return level("sigma", sigma, x, dtype=dtype)
    return torch.tensor(number("sigma", sigma, above=0), dtype=torch.float64)

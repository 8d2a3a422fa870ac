"""k-diffusion both ways: its denoisers with our solvers, ours with its samplers.

Both speak of D(x; sigma) with x = x0 + sigma * noise; k-diffusion's is called with one sigma per sample, and with what
it is conditioned on as keyword arguments. Nothing is converted but the call: its wrappers (``CompVisDenoiser``,
``VDenoiser``, ``Denoiser``) have done that. A model is never wrapped twice: `from_eps` is for the network inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from teachkit.adapters.adapted import Labels, cast, dtype_of, levelled, require_raw
from teachkit.checks import as_real, batch, function, number, shown
from teachkit.denoisers import Denoiser
from teachkit.sampling import Evaluator, check_conditions

__all__ = ["from_k_diffusion", "to_k_diffusion"]


class KDiffusionDenoiser(nn.Module):
    """A denoiser of k-diffusion as ``D(x, sigma, labels=None)``; made by `from_k_diffusion`.

    Attributes
    ----------
    sigma_min, sigma_max : float
        The ends of the model's own ``sigmas``; 0 and infinity if it has none.
    levels : tuple of float
        All of them, increasing; empty if it has none.
    """

    def __init__(self, model: Any, extra: Mapping[str, Any]) -> None:
        super().__init__()
        function("model", model, "model(x, sigma)")
        require_raw("model", model)
        self.model, self.extra = model, dict(extra)
        sigmas = getattr(model, "sigmas", None)
        known = () if sigmas is None else as_real("sigmas", sigmas, torch.float64).detach().double().flatten().tolist()
        self.levels: tuple[float, ...] = tuple(sorted(sigma for sigma in known if sigma > 0))
        self.sigma_min, self.sigma_max = min(self.levels, default=0.0), max(self.levels, default=math.inf)

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Mapping[str, Tensor] | None = None) -> Tensor:
        """E[x0 | x] for ``x`` (B, *event) at ``sigma``, a number, 0-d or (B,); ``labels`` are its arguments."""
        own = dtype_of(self.model, batch("x", x))
        if labels is not None and not isinstance(labels, Mapping):
            raise TypeError(f"labels must be a dict of the model's keyword arguments, got {shown(labels)}")
        at = levelled(sigma, x, torch.promote_types(x.dtype, torch.float32)).flatten().to(x.device, own).expand(len(x))
        out = self.model(x.to(own), at, **cast({**self.extra, **(labels or {})}, own))
        if not isinstance(out, Tensor) or out.shape != x.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else shown(out)
            raise ValueError(f"model must return a tensor of the shape of x, {tuple(x.shape)}, got {got}")
        return out.to(x.dtype)


class KDiffusionModel(nn.Module):
    """A denoiser as k-diffusion's samplers call it, ``model(x, sigma, labels=None)``; made by `to_k_diffusion`."""

    def __init__(self, denoiser: Denoiser, labels: Labels | None, guidance: float | None) -> None:
        super().__init__()
        function("denoiser", denoiser, "D(x, sigma)")
        if guidance is not None:
            number("guidance", guidance)
        self.inner_model, self.labels, self.guidance = denoiser, labels, guidance

    def forward(self, x: Tensor, sigma: float | Tensor, labels: Labels | None = None) -> Tensor:
        """D(x; sigma), guided; ``labels``, of the sampler's ``extra_args``, in place of those given before."""
        chosen = self.labels if labels is None else labels
        check_conditions(self.inner_model, x, chosen, self.guidance)
        return Evaluator(self.inner_model, chosen, self.guidance)(x, sigma)  # type: ignore[arg-type]


def from_k_diffusion(model: Any, **extra: Any) -> KDiffusionDenoiser:
    """Wrap a denoiser of k-diffusion, called as ``model(x, sigma, **extra)``, as ``D(x, sigma, labels=None)``.

    Parameters
    ----------
    model : callable
        For example ``k_diffusion.external.CompVisDenoiser(network)``: takes ``x`` (B, *event) and ``sigma`` (B,), and
        returns the denoised x. An ``nn.Module`` gets both in the dtype of its parameters, as k-diffusion has it: of a
        half-precision one that rounds sigma too, by up to 0.4 % in bfloat16; `from_eps` of the network inside does not.
    **extra
        Arguments for every call, for example ``cond=embeddings``; floating-point tensors in the model's dtype.

    Returns
    -------
    KDiffusionDenoiser
        ``D(x, sigma, labels=None)``; ``labels`` are a dict of such arguments with one row per sample, in place of those
        of ``extra``. ``D.levels`` are the model's own ``sigmas``, increasing, ``D.sigma_min`` and ``D.sigma_max`` their
        ends; of a model without, nothing, 0 and infinity.

    Raises
    ------
    TypeError
        For what is not callable, and for what is an adapter's denoiser already.

    Examples
    --------
    >>> D = from_k_diffusion(lambda x, sigma, cond: cond / (1 + sigma[:, None]), cond=torch.ones(1, 2))
    >>> D(torch.zeros(1, 2), 3.0)
    tensor([[0.2500, 0.2500]])
    """
    return KDiffusionDenoiser(model, extra)


def to_k_diffusion(denoiser: Denoiser, labels: Labels | None = None, guidance: float | None = None) -> KDiffusionModel:
    """Give a denoiser the form that k-diffusion's samplers and ComfyUI's take: ``model(x, sigma, **extra_args)``.

    Parameters
    ----------
    denoiser : callable
        ``D(x, sigma, labels=None)``.
    labels : (B,) or (B, K) tensor or dict of (B, ...), optional
        What to condition on, one row per sample; or ``extra_args={"labels": labels}`` in the call of the sampler.
    guidance : float, optional
        Classifier-free guidance scale w: D_free + w (D_label - D_free), as `teachkit.sample` has it.

    Returns
    -------
    KDiffusionModel
        ``model(x, sigma)`` with ``sigma`` (B,).

    Raises
    ------
    TypeError, ValueError
        For what is not callable, for a guidance that is not a number; in the call for labels that do not fit x.

    Examples
    --------
    >>> from teachkit import Gaussian
    >>> model = to_k_diffusion(Gaussian([0.0, 1.0], 0.25))  # as in k_diffusion.sampling.sample_euler(model, x, sigmas)
    >>> model(torch.ones(1, 2).double(), torch.tensor([2.0]))
    tensor([[0.0588, 1.0000]], dtype=torch.float64)
    """
    return KDiffusionModel(denoiser, labels, guidance)

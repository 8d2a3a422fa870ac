"""What a jump costs: the error of one Euler step between any two states of a teacher's path, or what likelihood asks.

With the teacher's states x_i at levels s_0 > ... > s_N and its directions eps_i = (x_i - D_i) / s_i, the jump from i
to j > i lands on y = x_i + (s_j - s_i) eps_i. Its error is the distance to x_j ("l1", "l2"), or how much further y
lies from the chord of the path than x_j does ("deviation", arXiv 2405.11326, Sec. 4). The likelihood of a sampler with
noise is a sum over its steps as well, so that the same programme finds its best levels: a bound of the divergence from
the exact process ("kl_bound", arXiv 2404.14507), and the terms of the variational bound ("elbo", arXiv 2106.03802). No
evaluation is needed beyond those of the teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import choice
from teachkit.denoisers import default_dtype
from teachkit.trajectory import Trajectory, whole_path

METRICS = ("deviation", "l1", "l2", "kl_bound", "elbo")

_BLOCK = 2**24  # values handled at a time: 128 MiB in float64
_SAFE = 1e-6  # a squared distance this small beside its terms has lost digits: compute it directly


def cost_matrix(teacher: Trajectory, metric: str = "deviation") -> Tensor:
    """Mean cost over the batch of every jump along a teacher's paths (arXiv 2405.11326, Alg. 1).

    Parameters
    ----------
    teacher : Trajectory
        Paths with N + 1 states, kept whole (``keep="all"``).
    metric : {"deviation", "l1", "l2", "kl_bound", "elbo"}
        "deviation": mean distance of the landing point from the chord, minus that of the teacher; signed, and
        slightly negative where a jump lands closer to the chord. "l1", "l2": mean norm of the error of an Euler jump.
        "kl_bound": integral of |D - D_i|^2 / sigma^3 along the path from i to j, by which a sampler that holds D_i all
        the way departs from the exact process in the sense of Kullback and Leibler (arXiv 2404.14507). "elbo":
        (1 / s_j^2 - 1 / s_i^2) |x_N - D_i|^2 / 2, the term of the jump in the bound of the likelihood of the path's own
        end, in nats (arXiv 2106.03802; 2107.00630, eq. 13). These two are for likelihood: for a deterministic sampler
        they place all levels near the data.

    Returns
    -------
    Tensor
        ``(N+1, N+1)`` float64 on the CPU; entry [i, j] for i < j, zeros elsewhere.

    Raises
    ------
    ValueError, TypeError
        For an unknown metric, or a teacher without its path.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample, schedules
    >>> teacher = sample(Gaussian([0.0, 1.0], [0.2, 0.4]), initial_noise(8, (2,)), schedules.polynomial(10), "heun")
    >>> cost = cost_matrix(teacher, "l2")
    >>> cost.shape, bool(cost[0, 10] > cost[0, 5])  # the longer jump lands farther off
    (torch.Size([11, 11]), True)
    """
    choice("metric", metric, METRICS)
    whole(teacher)
    if metric in ("kl_bound", "elbo") and float(teacher.sigmas[-1]) == 0:
        raise ValueError(f"teacher must end above 0 for {metric!r}: at 0 the likelihood of a path has no bound")
    states, batch = teacher.x.shape[:2]
    dtype = default_dtype(teacher.x.device)
    total = torch.zeros(states, states, dtype=dtype, device=teacher.x.device)
    block = max(1, _BLOCK // (4 * states * max(teacher.x[0, 0].numel(), states)))  # of (N+1, b, d) and (N, N+1, b)
    rule = {"deviation": _deviation, "l1": _l1, "l2": _l2, "kl_bound": _kl_bound, "elbo": _elbo}[metric]
    sigma = teacher.sigmas.to(total)
    for x, denoised in zip(teacher.x.split(block, 1), teacher.denoised.split(block, 1)):
        x, denoised = x.flatten(2).to(dtype), denoised.flatten(2).to(dtype)
        total += rule(x, (x[:-1] - denoised) / sigma[:-1, None, None], sigma)
    return total.triu(1).cpu() / batch


def whole(teacher: Trajectory) -> None:
    """Raise an error unless a teacher is a trajectory kept whole, of numbers whose distances are numbers too."""
    whole_path("teacher", teacher, outputs=True)


def _l1(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """Sum over samples of |y_ij - x_j|_1: ``(N+1, N+1)``."""
    out = x.new_zeros(len(x), len(x))
    rows = max(1, _BLOCK // (8 * x[0].numel()))  # a block that stays near the processor
    for i in range(len(eps)):
        for j in range(i + 1, len(x), rows):
            jump = (sigma[j : j + rows] - sigma[i])[:, None, None]
            gap = torch.addcmul(x[i] - x[j : j + rows], jump, eps[i])  # (rows, b, d)
            out[i, j : j + rows] = torch.linalg.vector_norm(gap, ord=1, dim=(1, 2))
    return out


def _l2(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """Sum over samples of |y_ij - x_j|_2, from inner products where that loses no digits.

    With E the mean slope of the path and r_i = x_i - x_0 - (s_i - s_0) E, f_i = eps_i - E, the error of a jump is
    (r_i - r_j) + (s_j - s_i) f_i: the long straight part is gone before anything is squared.
    """
    slope = (x[0] - x[-1]) / (sigma[0] - sigma[-1])
    r = x - x[0] - (sigma - sigma[0])[:, None, None] * slope  # (N+1, b, d)
    f = eps - slope  # (N, b, d)
    jump = (sigma - sigma[:-1, None])[..., None]  # (N, N+1, 1)
    a, b = r.transpose(0, 1), f.transpose(0, 1)  # (b, N+1, d), (b, N, d)
    rr, fr = (a @ a.mT).permute(1, 2, 0), (b @ a.mT).permute(1, 2, 0)  # inner products (., ., b)
    r2, f2 = rr.diagonal().mT, (f**2).sum(-1)  # (N+1, b), (N, b)
    cross = fr.diagonal(dim1=0, dim2=1).mT[:, None] - fr  # <f_i, r_i - r_j>
    squared = r2[:-1, None] + r2 - 2 * rr[:-1] + 2 * jump * cross + jump**2 * f2[:, None]
    scale = r2[:-1, None] + r2 + jump**2 * f2[:, None]
    return _finish(squared, scale, lambda i, j: r[i] - r[j] + jump[i, j] * f[i])


def _deviation(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """Sum over samples of dev(y_ij) - dev(x_j): only inner products of one state with its own direction are needed."""
    chord = x[-1] - x[0]
    unit = chord / torch.linalg.vector_norm(chord, dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    p, q = (v - (v * unit).sum(-1, keepdim=True) * unit for v in (x - x[0], eps))  # off the chord
    jump = (sigma - sigma[:-1, None])[..., None]  # (N, N+1, 1)
    p2, q2, pq = (p[:-1] ** 2).sum(-1), (q**2).sum(-1), (p[:-1] * q).sum(-1)  # (N, b)
    scale = p2[:, None] + jump**2 * q2[:, None]
    squared = scale + 2 * jump * pq[:, None]
    out = _finish(squared, scale, lambda i, j: p[i] + jump[i, j] * q[i])
    own = torch.linalg.vector_norm(p, dim=-1).sum(-1)  # (N+1,)
    own[-1] = 0
    return out - own


def _kl_bound(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """Sum over samples of the integral of |D(s) - D_i|^2 / s^3 from s_j to s_i, D held between the teacher's levels."""
    D = (x[:-1] - sigma[:-1, None, None] * eps).transpose(0, 1)  # (b, N, d)
    moved = torch.cdist(D, D, compute_mode="donot_use_mm_for_euclid_dist").square().sum(0)  # (N, N)
    weight = (sigma[1:] ** -2 - sigma[:-1] ** -2) / 2
    out = x.new_zeros(len(x), len(x))
    out[:-1, 1:] = (moved * weight).triu().cumsum(1)
    return out


def _elbo(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """Sum over samples of (1 / s_j^2 - 1 / s_i^2) |x_N - D_i|^2 / 2."""
    gap = (x[-1] - x[:-1] + sigma[:-1, None, None] * eps).square().sum((1, 2))  # (N,)
    out = x.new_zeros(len(x), len(x))
    out[:-1] = gap[:, None] * (sigma**-2 - sigma[:-1, None] ** -2) / 2
    return out


def _finish(squared: Tensor, scale: Tensor, gap) -> Tensor:  # type: ignore[no-untyped-def]
    """Square roots summed over samples, (N+1, N+1); entries that cancelled are taken from ``gap(i, j)`` instead."""
    n = len(squared)
    unsafe = (squared < _SAFE * scale).any(-1)
    out = squared.new_zeros(n + 1, n + 1)
    out[:-1] = squared.clamp(min=0).sqrt().sum(-1)
    for i, j in unsafe.triu(1).nonzero().tolist():
        out[i, j] = torch.linalg.vector_norm(gap(i, j), dim=-1).sum()
    return out

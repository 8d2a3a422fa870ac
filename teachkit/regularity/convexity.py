"""Why a path must look as it does: every step is a convex combination, and climbs the likelihood.

Euler's method unrolls to

    x_n = (sigma_n / sigma_0) x_0 + sum_{m < n} sigma_n (1 / sigma_{m+1} - 1 / sigma_m) D(x_m; sigma_m),

weights that are non-negative and add up to 1: a path lies in the span of its start and of what the denoiser said
(arXiv 2405.11326, Prop. 4.1; arXiv 2506.10177, Prop. 1). On the way to D the likelihood rises, and what is left over,
eps = (x - D) / sigma, keeps the length of pure noise. Taught in ``notebooks/03_the_ode`` and ``06_high_dimensions``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit import geometry, schedules
from teachkit.checks import integer, level
from teachkit.denoisers import DenoiserModule
from teachkit.trajectory import Trajectory, flat, whole_path


def step_targets(traj: Trajectory) -> Tensor:
    """The point towards which every step of a path moves, from the states alone.

    A step from sigma_n to sigma_{n+1} is a convex combination, whatever the solver and the data:

        x_{n+1} = r x_n + (1 - r) R_n,  with r = sigma_{n+1} / sigma_n.

    For Euler's method R_n is D(x_n; sigma_n), so that these are the denoising trajectory; for a step of second order
    it is D + (sigma_{n+1} - sigma_n) / 2 * dD/dsigma up to higher orders (arXiv 2405.11326, Prop. 4.1;
    arXiv 2506.10177, Prop. 1).

    Parameters
    ----------
    traj : Trajectory
        The paths, kept whole.

    Returns
    -------
    Tensor
        ``(N, B, *event)``.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample
    >>> path = sample(Gaussian([0.0, 1.0], 0.25), initial_noise(4, (2,)), schedules.polynomial(20), "euler")
    >>> torch.allclose(step_targets(path), path.denoised)
    True
    """
    x = flat(whole_path("traj", traj).x)
    ratio = (traj.sigmas[1:] / traj.sigmas[:-1]).to(x)[:, None, None]
    # Not (x_{n+1} - r x_n) / (1 - r), whose terms are large far from the origin.
    return (x[1:] + ratio / (1 - ratio) * x.diff(dim=0)).reshape(-1, *traj.x.shape[1:])


def unrolled_weights(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the start and of every denoiser output in every state of a path by Euler's method.

    Parameters
    ----------
    sigmas : (N+1,)
        A schedule: strictly decreasing, only the last level may be 0.

    Returns
    -------
    start : (N+1,)
        Weight sigma_n / sigma_0 of the starting point in state n; on the CPU, as schedules are.
    weights : (N+1, N)
        Weight of D(x_m; sigma_m) in state n: sigma_n / sigma_{m+1} - sigma_n / sigma_m for m < n, else 0. All are
        >= 0, and row n adds up to 1 - sigma_n / sigma_0 (from arXiv 2405.11326, Prop. 4.1, step after step).

    Examples
    --------
    >>> start, weights = unrolled_weights([4.0, 2.0, 1.0])
    >>> start.tolist(), weights.tolist()
    ([1.0, 0.5, 0.25], [[0.0, 0.0], [0.5, 0.0], [0.25, 0.5]])
    """
    s = schedules.validate(sigmas)
    ratio = torch.ones(len(s), len(s), dtype=s.dtype, device=s.device)  # sigma_n / sigma_m; 1 on the diagonal
    ratio[:, :-1] = s[:, None] / s[None, :-1]
    ratio[-1, -1] = 1.0  # also when the last level is 0
    weights = (ratio[:, 1:] - ratio[:, :-1]).tril(-1)  # (N+1, N): column m is 1 / sigma_{m+1} - 1 / sigma_m
    return ratio[:, 0].clone(), weights


def span_residual(traj: Trajectory) -> Tensor:
    """Distance of every state to the span of the start and of all denoiser outputs of its path.

    Zero to rounding, whatever the data, for every solver whose steps combine states
    and denoiser outputs that the trajectory holds, as Euler's and the multistep methods do. It says something only if
    there are fewer outputs than dimensions.

    Parameters
    ----------
    traj : Trajectory
        The paths, kept whole.

    Returns
    -------
    Tensor
        ``(N+1, B)``, in the units of x.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample
    >>> path = sample(Gaussian([0.0] * 50, 0.25), initial_noise(4, (50,)), schedules.polynomial(5), "ipndm")
    >>> bool(span_residual(path).max() < 1e-9)
    True
    """
    whole_path("traj", traj, outputs=True)
    x, denoised = flat(traj.x), flat(traj.denoised)
    out = x.new_empty(x.shape[:2])
    for b in range(x.shape[1]):
        start = x[:1, b] / torch.linalg.vector_norm(x[0, b]).clamp(min=torch.finfo(x.dtype).tiny)
        rows = torch.cat([start, denoised[:, b]])  # (N+1, d)
        _, size, axes = torch.linalg.svd(rows, full_matrices=False)
        axes = axes[size > torch.finfo(x.dtype).eps * size[0]]
        rest = x[:, b] - (x[:, b] @ axes.mT) @ axes
        out[:, b] = torch.linalg.vector_norm(rest, dim=-1)
    return out


def likelihood_gain(
    denoiser: DenoiserModule, x: Tensor, sigma: float | Tensor, steps: int = 16
) -> tuple[Tensor, Tensor]:
    """How much log p_sigma rises on the way from x to D(x; sigma), and how much it must rise at least.

    log p_sigma(x) + |x|^2 / (2 sigma^2) is convex, because it is the logarithm of an average of exponentials that
    are linear in x; hence with u = D - x, log p_sigma(x + t u) - log p_sigma(x) >= (t - t^2 / 2) |u|^2 / sigma^2.
    Mean and density must be taken at the same sigma (compare arXiv 2405.11326, Prop. A.14).

    Parameters
    ----------
    denoiser : Empirical, Gaussian or GaussianMixture
        A closed-form denoiser, with ``log_prob``.
    x : (B, *event)
        Where to start.
    sigma : float, 0-d or (B,)
        Noise level, > 0.
    steps : int
        The segment is cut into so many pieces, at least 1.

    Returns
    -------
    gain, bound : (steps+1, B)
        In nats, at t = 0, 1 / steps, ..., 1. The bound at t = 1 is |D - x|^2 / (2 sigma^2).

    Examples
    --------
    >>> from teachkit import Gaussian
    >>> x = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    >>> gain, bound = likelihood_gain(Gaussian([0.0, 0.0], 1.0), x, sigma=2.0, steps=2)
    >>> gain[:, 0].round(decimals=3).tolist(), bound[:, 0].round(decimals=3).tolist()
    ([0.0, 1.6, 2.4], [0.0, 1.5, 2.0])
    """
    if not isinstance(denoiser, DenoiserModule):
        raise TypeError(f"denoiser must be a closed-form denoiser with log_prob, got {type(denoiser).__name__}")
    steps = integer("steps", steps, 1)
    u = denoiser(x, sigma) - x
    s = level("sigma", sigma, x).flatten()
    t = torch.linspace(0, 1, steps + 1, dtype=x.dtype, device=x.device)
    log_p = torch.stack([denoiser.log_prob(x + share * u, sigma) for share in t])
    bound = (t - t**2 / 2)[:, None] * u.flatten(1).square().sum(1) / s**2
    return log_p - log_p[0], bound


def noise_norm_spread(traj: Trajectory) -> tuple[Tensor, Tensor]:
    """How constant the norm of eps = (x - D) / sigma is along each path, in units of sqrt(d).

    In high dimension both numbers say that eps keeps the length of pure noise: for data on an m-dimensional manifold
    the spread of |eps| is of order sqrt(m), small beside sqrt(d) (arXiv 2405.11326, Remark A.12, a sketch). So it is
    for the exact denoiser of finitely many points, whatever directions they fill (``notebooks/06_high_dimensions``).

    Parameters
    ----------
    traj : Trajectory
        The paths, kept whole.

    Returns
    -------
    mean : (B,)
        Mean of |eps| / sqrt(d) over the path: near 1.
    spread : (B,)
        Largest minus smallest |eps| on the path, divided by sqrt(d).

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise, sample
    >>> path = sample(Gaussian([0.0] * 1000, 1e-6), initial_noise(1, (1000,)), schedules.polynomial(20))
    >>> [round(float(number), 2) for number in noise_norm_spread(path)]
    [1.0, 0.02]
    """
    eps = geometry.norms(traj)[2] / traj.x[0, 0].numel() ** 0.5  # (N, B)
    return eps.mean(0), eps.amax(0) - eps.amin(0)

"""Why sampling paths have the shape they have, and the null models that the shape must be compared with.

`geometry` measures a path; this module holds the statements that explain the measurement. Euler's method unrolls to

    x_n = (sigma_n / sigma_0) x_0 + sum_{m < n} sigma_n (1 / sigma_{m+1} - 1 / sigma_m) D(x_m; sigma_m),

weights that are non-negative and add up to 1: a path lies in the span of its start and of what the denoiser said
(`unrolled_weights`, `span_residual`; arXiv 2405.11326, Prop. 4.1; arXiv 2506.10177, Prop. 1). The likelihood rises on
the way to D (`likelihood_gain`), few data points have a say in D after a certain level (`effective_neighbours`,
`speciation_sigma`, `commitment_sigma`), and before it a Gaussian does just as well (`state_gap`, `score_gap`,
`teleport`). A claim about the shape of
a path means something only beside what chance would give: `random_walk`, `brownian_bridge` (which is pinned at both
ends, as deviations from a chord are), `time_shuffled`. Taught in ``notebooks/05_high_dimensions`` to
``08_closed_form_scores``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit import geometry, schedules
from teachkit.denoisers import (
    Denoiser,
    DenoiserModule,
    Empirical,
    Gaussian,
    GaussianMixture,
    LowRankMixture,
    default_dtype,
)
from teachkit.sampling import Trajectory

__all__ = [
    "brownian_bridge",
    "class_posteriors",
    "commitment_sigma",
    "effective_neighbours",
    "likelihood_gain",
    "noise_norm_spread",
    "random_walk",
    "score_gap",
    "span_residual",
    "speciation_sigma",
    "state_gap",
    "step_targets",
    "teleport",
    "time_shuffled",
    "unrolled_weights",
]


def step_targets(traj: Trajectory) -> Tensor:
    """The point towards which every step of a path moves: ``(N, B, *event)``, from the states alone.

    A step from sigma_n to sigma_{n+1} is a convex combination, whatever the solver and the data:

        x_{n+1} = r x_n + (1 - r) R_n,  with r = sigma_{n+1} / sigma_n.

    For Euler's method R_n is D(x_n; sigma_n), so that these are the denoising trajectory; for a step of second order
    it is D + (sigma_{n+1} - sigma_n) / 2 * dD/dsigma up to higher orders (arXiv 2405.11326, Prop. 4.1;
    arXiv 2506.10177, Prop. 1).
    """
    x = _states(traj)
    ratio = (traj.sigmas[1:] / traj.sigmas[:-1]).to(x)[:, None, None]
    return ((x[1:] - ratio * x[:-1]) / (1 - ratio)).reshape(-1, *traj.x.shape[1:])


def unrolled_weights(sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the start and of every denoiser output in every state of a path by Euler's method.

    Parameters
    ----------
    sigmas : (N+1,)
        A schedule: strictly decreasing, only the last level may be 0.

    Returns
    -------
    start : (N+1,)
        Weight sigma_n / sigma_0 of the starting point in state n.
    weights : (N+1, N)
        Weight of D(x_m; sigma_m) in state n: sigma_n / sigma_{m+1} - sigma_n / sigma_m for m < n, else 0. All are
        >= 0, and row n adds up to 1 - sigma_n / sigma_0 (from arXiv 2405.11326, Prop. 4.1, step after step).
    """
    s = schedules.validate(sigmas)
    ratio = torch.ones(len(s), len(s), dtype=s.dtype, device=s.device)  # sigma_n / sigma_m; 1 on the diagonal
    ratio[:, :-1] = s[:, None] / s[None, :-1]
    ratio[-1, -1] = 1.0  # also when the last level is 0
    weights = (ratio[:, 1:] - ratio[:, :-1]).tril(-1)  # (N+1, N): column m is 1 / sigma_{m+1} - 1 / sigma_m
    return ratio[:, 0].clone(), weights


def span_residual(traj: Trajectory) -> Tensor:
    """Distance of every state to the span of the start and of all denoiser outputs of its path.

    ``(N+1, B)``, in the units of x: zero to rounding, whatever the data, for every solver whose steps combine states
    and denoiser outputs that the trajectory holds, as Euler's and the multistep methods do. It says something only if
    there are fewer outputs than dimensions.
    """
    x, denoised = _states(traj), traj.denoised.to(traj.x.device).flatten(2)
    out = x.new_empty(x.shape[:2])
    for b in range(x.shape[1]):
        start = x[:1, b] / torch.linalg.vector_norm(x[0, b]).clamp(min=torch.finfo(x.dtype).tiny)
        rows = torch.cat([start, denoised[:, b].to(x)])  # (N+1, d)
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
    """
    if not isinstance(denoiser, DenoiserModule):
        raise TypeError(f"denoiser must be a closed-form denoiser with log_prob, got {type(denoiser).__name__}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    u = denoiser(x, sigma) - x
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if not (s > 0).all():
        raise ValueError(f"sigma must be > 0, got {sigma!r}")
    t = torch.linspace(0, 1, steps + 1, dtype=x.dtype, device=x.device)
    log_p = torch.stack([denoiser.log_prob(x + share * u, sigma) for share in t])
    bound = (t - t**2 / 2)[:, None] * u.flatten(1).square().sum(1) / s**2
    return log_p - log_p[0], bound


def effective_neighbours(empirical: Empirical, traj: Trajectory) -> Tensor:
    """Number of data points with a say in the denoiser at every state: 1 / sum of squared weights.

    From the size of the data set (all weigh the same) down to 1 (one has won): the three stages of a path, linear,
    nonlinear, linear (arXiv 2506.10177, Sec. 4).

    Returns
    -------
    Tensor
        ``(N+1, B)``. The last sigma must be > 0 unless the data set has a bandwidth.
    """
    if not isinstance(empirical, Empirical):
        raise TypeError(f"empirical must be an Empirical denoiser, got {type(empirical).__name__}")
    _states(traj)
    counts = [1 / (empirical.weights(x, float(s)) ** 2).sum(1) for x, s in zip(traj.x, traj.sigmas)]
    return torch.stack(counts)


def speciation_sigma(data: Tensor) -> float:
    """Noise level at which paths commit to a class: the square root of the top eigenvalue of the data covariance.

    Biroli et al. 2024 (arXiv 2402.18491) find the time t at which the classes part, for the variance-preserving
    process x_t = exp(-t) x_0 + sqrt(1 - exp(-2 t)) noise, from eigenvalue * exp(-2 t) = 1. Here sigma^2 =
    exp(2 t) - 1, and the eigenvalue is large where their theory holds, so sigma = sqrt(eigenvalue): the level at which
    the noise is as wide as the data in its widest direction. For two equal point masses at distance 2 m this is m,
    exactly where the blurred density splits in two; for two Gaussians of standard deviation s the split is at
    sqrt(m^2 - s^2), and the formula gives sqrt(m^2 + s^2).

    Parameters
    ----------
    data : (N, *event)
        At least two samples.
    """
    return float(Gaussian.fit(data).variances.max().sqrt())


def class_posteriors(denoiser: Empirical | GaussianMixture | LowRankMixture, traj: Trajectory) -> Tensor:
    """Probability of every class given each state of a path, exactly: ``(N+1, B, K)``, rows sum to 1.

    ``denoiser`` is an `Empirical` with labels, or a mixture with a component per class. The last sigma must be > 0
    where the denoiser needs noise.
    """
    if not isinstance(denoiser, (Empirical, GaussianMixture, LowRankMixture)) or denoiser.num_classes is None:
        raise TypeError(f"denoiser must be a mixture or an Empirical with labels, got {type(denoiser).__name__}")
    _states(traj)
    if not isinstance(denoiser, Empirical):
        return torch.stack([denoiser.responsibilities(x, float(s)) for x, s in zip(traj.x, traj.sigmas)])
    assert denoiser.classes is not None
    member = torch.nn.functional.one_hot(denoiser.classes.long(), denoiser.num_classes).to(traj.x)
    return torch.stack([denoiser.weights(x, float(s)) @ member for x, s in zip(traj.x, traj.sigmas)])


def commitment_sigma(posteriors: Tensor, sigmas: Tensor, level: float = 0.5) -> Tensor:
    """Noise level from which on a path gives its final class at least the probability ``level``, for good: ``(B,)``.

    What `speciation_sigma` predicts from a covariance alone, measured from the class posteriors of the path.

    Parameters
    ----------
    posteriors : (N+1, B, K)
        As from `class_posteriors`; the final class is the most probable one in the last row.
    sigmas : (N+1,)
        The levels of the rows, decreasing.
    level : float
        Between 0 and 1. NaN is returned for a path that does not reach it by its end.
    """
    p = posteriors
    if not isinstance(p, Tensor) or p.ndim != 3 or not p.is_floating_point():
        raise ValueError("posteriors must be a floating-point tensor of shape (N+1, B, K)")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")
    s = schedules.validate(sigmas)
    if len(s) != len(p):
        raise ValueError(f"sigmas must hold one level per row of posteriors, {len(p)}, got {len(s)}")
    final = p[-1].argmax(-1)  # (B,)
    chosen = p.gather(2, final.expand(len(p), -1)[..., None])[..., 0]  # (N+1, B)
    held = (chosen >= level).flip(0).to(torch.int64).cumprod(0).sum(0)  # rows from the end for which it holds
    first = (len(p) - held).clamp(max=len(p) - 1)
    return torch.where(held > 0, s.to(p)[first], torch.full_like(chosen[0], float("nan")))


def noise_norm_spread(traj: Trajectory) -> tuple[Tensor, Tensor]:
    """How constant the norm of eps = (x - D) / sigma is along each path, in units of sqrt(d).

    In high dimension both numbers say that eps keeps the length of pure noise: for data on an m-dimensional manifold
    the spread of |eps| is of order sqrt(m), small beside sqrt(d) (arXiv 2405.11326, Remark A.12, a sketch).

    Returns
    -------
    mean : (B,)
        Mean of |eps| / sqrt(d) over the path: near 1.
    spread : (B,)
        Largest minus smallest |eps| on the path, divided by sqrt(d).
    """
    eps = geometry.norms(traj)[2] / traj.x[0, 0].numel() ** 0.5  # (N, B)
    return eps.mean(0), eps.amax(0) - eps.amin(0)


def random_walk(n: int, b: int, d: int, seed: int = 0) -> Tensor:
    """``b`` random walks of ``n`` steps in ``d`` dimensions: ``(n+1, b, d)``, from 0, of variance 1 at the end.

    The share of its variance in principal component k is 6 / (pi k)^2 for large n and d: 60.8 %, 15.2 %, ...
    (Antognini & Sohl-Dickstein 2018, arXiv 1806.08805). A walk is not pinned at its end: the fair comparison for a
    deviation from a chord is `brownian_bridge`.
    """
    for name, value in (("n", n), ("b", b), ("d", d)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    steps = torch.randn(n, b, d, generator=_generator(seed), dtype=default_dtype()) / n**0.5
    return torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])


def brownian_bridge(n: int, b: int, d: int, seed: int = 0, like: Trajectory | Tensor | None = None) -> Tensor:
    """``b`` random walks pinned at both ends, ``(n+1, b, d)``: the null model for what bends around a chord.

    Centred principal components have shares 3 / (pi k)^2, each twice: 30.4, 60.8, 68.4 % cumulative for large n, d.

    Parameters
    ----------
    n, b, d : int
        Number of steps, of paths and of dimensions.
    seed : int
        For the random numbers.
    like : Trajectory or (n+1, b, *event), optional
        Give the bridges the chords of these paths: state i keeps its place along the chord, and the bridge, made
        perpendicular to the chord and scaled to the same root-mean-square deviation, is what is put around it.

    Returns
    -------
    Tensor
        ``(n+1, b, d)``.
    """
    walk = random_walk(n, b, d, seed)
    time = torch.linspace(0, 1, n + 1, dtype=walk.dtype)[:, None, None]
    bridge = walk - time * walk[-1]
    bridge[-1] = 0
    if like is None:
        return bridge
    x = _states(like)
    if x.shape != bridge.shape:
        raise ValueError(f"like must hold paths of n+1, b, d = {tuple(bridge.shape)}, got {tuple(x.shape)}")
    offset = x - x[0]
    length = torch.linalg.vector_norm(offset[-1], dim=-1, keepdim=True)
    if not (length > 0).all():
        raise ValueError("like has a path that ends where it began: it has no chord")
    unit, bridge = offset[-1] / length, bridge.to(x)
    bridge = bridge - (bridge * unit).sum(-1, keepdim=True) * unit
    size = geometry.deviation(x).square().mean(0).sqrt()  # (b,)
    own = bridge.square().sum(-1).mean(0).sqrt().clamp(min=torch.finfo(x.dtype).tiny)
    return x[0] + (offset * unit).sum(-1, keepdim=True) * unit + bridge * (size / own)[:, None]


def time_shuffled(curves: Tensor, seed: int = 0) -> Tensor:
    """The same points in another order, drawn for each curve: ``(N+1, B, *event)``, a null model for alignment."""
    x = _path(curves, "curves")
    rng = _generator(seed)
    order = torch.stack([torch.randperm(len(x), generator=rng) for _ in range(x.shape[1])], 1).to(x.device)
    return x.gather(0, order.reshape(*order.shape, *[1] * (x.ndim - 2)).expand_as(x))


def state_gap(traj_a: Trajectory, traj_b: Trajectory, radius: float | None = None) -> Tensor:
    """Distance between two paths from the same noise at every level, relative to the size of the data.

    Parameters
    ----------
    traj_a, traj_b : Trajectory
        Paths on the same levels from the same starts, for example with an approximate and an exact denoiser.
    radius : float, optional
        The size of the data. By default the root-mean-square distance of the samples in ``traj_b`` from their mean.

    Returns
    -------
    Tensor
        ``(N+1, B)``. Small until the approximation fails (arXiv 2412.09726 for a Gaussian).
    """
    a, b = _states(traj_a), _states(traj_b)
    if a.shape != b.shape or not torch.allclose(traj_a.sigmas.cpu(), traj_b.sigmas.cpu(), rtol=1e-12, atol=0):
        raise ValueError(f"traj_a and traj_b must have equal shapes and levels, got {tuple(a.shape)}, {tuple(b.shape)}")
    if not torch.equal(a[0], b[0].to(a)):
        raise ValueError("traj_a and traj_b must start from the same noise")
    if radius is None:
        radius = float((b[-1] - b[-1].mean(0)).square().sum(-1).mean().sqrt())
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius must be a finite number > 0, got {radius!r}")
    return torch.linalg.vector_norm(a - b.to(a), dim=-1) / radius


def score_gap(denoiser: Denoiser, traj: Trajectory) -> Tensor:
    """Relative difference of two scores in the states of a path: that of ``denoiser`` and that which made the path.

    |score_a - score| / |score| = |D_a - D| / |x - D| for sigma > 0, because score = (D - x) / sigma^2. Unlike
    `state_gap`, which adds up along the path, it compares the two at the same input.

    Parameters
    ----------
    denoiser : callable
        The approximation, ``D(x, sigma, labels)``; it is evaluated in the states of ``traj`` without labels.
    traj : Trajectory
        A path whose ``denoised`` are the outputs of the reference (an exact denoiser or a network).

    Returns
    -------
    Tensor
        ``(N, B)``: at every level but the last, where the path holds no output.
    """
    x = _states(traj)[:-1]
    reference = traj.denoised.to(traj.x.device).flatten(2).to(x)
    # Where the path comes from a network, the closed form may be of another precision.
    dtype = next(denoiser.buffers()).dtype if isinstance(denoiser, DenoiserModule) else traj.x.dtype
    with torch.no_grad():
        own = [denoiser(state.to(dtype), float(s)) for state, s in zip(traj.x[:-1], traj.sigmas)]
    gap = torch.linalg.vector_norm(torch.stack(own).flatten(2).to(x) - reference, dim=-1)
    return gap / torch.linalg.vector_norm(x - reference, dim=-1)


def teleport(gaussian: Gaussian, x: Tensor, sigma_from: float, sigma_to: float) -> Tensor:
    """Jump from one noise level to a lower one by the exact flow of a Gaussian, without evaluating a network.

    Sampling then goes on from ``sigma_to`` with the real denoiser (Wang & Vastola 2024, arXiv 2412.09726). ``x`` is
    ``(B, *event)``, and so is the result.
    """
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"gaussian must be a Gaussian, got {type(gaussian).__name__}")
    if not 0 <= sigma_to <= sigma_from:
        raise ValueError(f"sigma_to must lie between 0 and sigma_from = {sigma_from!r}, got {sigma_to!r}")
    return gaussian.flow(x, sigma_from, sigma_to)


def _generator(seed: int) -> torch.Generator:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
    return torch.Generator().manual_seed(seed)


def _path(x: Tensor, name: str) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a Trajectory or a floating-point tensor, got {type(x).__name__}")
    if x.ndim < 3 or len(x) < 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (N+1, B, *event) with at least two states, got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return x


def _states(traj: Trajectory | Tensor) -> Tensor:
    """All states of a trajectory, flattened to (N+1, B, d), in the precision for sums."""
    if isinstance(traj, Trajectory) and len(traj.x) != len(traj.sigmas):
        raise ValueError("the trajectory holds only its final state; sample with keep='all'")
    x = _path(traj.x if isinstance(traj, Trajectory) else traj, "traj")
    return x.flatten(2).to(default_dtype(x.device))

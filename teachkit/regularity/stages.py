"""The stages of a path: all data speak, then a class is chosen, then one point has won.

At a high noise level every data point has a say in the denoiser, sum_i w_i y_i with w a softmax of -|x - y_i|^2 /
(2 sigma^2), and a Gaussian with the mean and covariance of the data does just as well; below the level at which the
noise is as wide as the data the classes part (Biroli et al. 2024, arXiv 2402.18491); in the end one point is left
(arXiv 2506.10177, Sec. 4; for the Gaussian, Wang & Vastola 2024, arXiv 2412.09726). Taught in
``notebooks/03_the_ode``, ``10_gaussians`` and ``11_stages``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit import schedules
from teachkit.checks import function, number, real_tensor, scalar, shown
from teachkit.denoisers import Denoiser, DenoiserModule, Empirical, Gaussian, GaussianMixture, LowRankMixture
from teachkit.trajectory import Trajectory, flat, whole_path


def effective_neighbours(empirical: Empirical, traj: Trajectory) -> Tensor:
    """Number of data points with a say in the denoiser at every state: 1 / sum of squared weights.

    From the size of the data set (all weigh the same) down to 1 (one has won): the three stages of a path, linear,
    nonlinear, linear (arXiv 2506.10177, Sec. 4).

    Parameters
    ----------
    empirical : Empirical
        The denoiser of the data set.
    traj : Trajectory
        The paths, kept whole.

    Returns
    -------
    Tensor
        ``(N+1, B)``. The last sigma must be > 0 unless the data set has a bandwidth.

    Examples
    --------
    >>> from teachkit import initial_noise, sample
    >>> points = Empirical(torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.1]], dtype=torch.float64))
    >>> path = sample(points, initial_noise(4, (2,)), schedules.polynomial(20))
    >>> [round(count, 2) for count in effective_neighbours(points, path)[[0, 10, -1], 0].tolist()]
    [3.0, 2.97, 1.0]
    """
    if not isinstance(empirical, Empirical):
        raise TypeError(f"empirical must be an Empirical denoiser, got {type(empirical).__name__}")
    whole_path("traj", traj)
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

    Returns
    -------
    float
        In the units of the data.

    Examples
    --------
    >>> data = torch.tensor([[-3.0, 0.0], [3.0, 0.0]] * 50)
    >>> round(speciation_sigma(data), 2)
    3.0
    """
    return float(Gaussian.fit(data).variances.max().sqrt())


def class_posteriors(denoiser: Empirical | GaussianMixture | LowRankMixture, traj: Trajectory) -> Tensor:
    """Probability of every class given each state of a path, exactly.

    Parameters
    ----------
    denoiser : Empirical, GaussianMixture or LowRankMixture
        A data set with labels, or a mixture with a component per class.
    traj : Trajectory
        The paths, kept whole. The last sigma must be > 0 where the denoiser needs noise.

    Returns
    -------
    Tensor
        ``(N+1, B, K)``; rows sum to 1.

    Examples
    --------
    >>> from teachkit import initial_noise, sample
    >>> points = Empirical(torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.1]], dtype=torch.float64), labels=[0, 1, 1])
    >>> path = sample(points, initial_noise(4, (2,)), schedules.polynomial(20))
    >>> class_posteriors(points, path)[[0, -1], 0].round(decimals=2).tolist()
    [[0.33, 0.67], [0.0, 1.0]]
    """
    if not isinstance(denoiser, (Empirical, GaussianMixture, LowRankMixture)) or denoiser.num_classes is None:
        raise TypeError(f"denoiser must be a mixture or an Empirical with labels, got {type(denoiser).__name__}")
    whole_path("traj", traj)
    if not isinstance(denoiser, Empirical):
        return torch.stack([denoiser.responsibilities(x, float(s)) for x, s in zip(traj.x, traj.sigmas)])
    assert denoiser.classes is not None
    member = torch.nn.functional.one_hot(denoiser.classes.long(), denoiser.num_classes).to(traj.x)
    return torch.stack([denoiser.weights(x, float(s)) @ member for x, s in zip(traj.x, traj.sigmas)])


def commitment_sigma(posteriors: Tensor, sigmas: Tensor, level: float = 0.5) -> Tensor:
    """Noise level from which on a path gives its final class at least the probability ``level``, for good.

    What `speciation_sigma` predicts from a covariance alone, measured from the class posteriors of the path.

    Parameters
    ----------
    posteriors : (N+1, B, K)
        As from `class_posteriors`; the final class is the most probable one in the last row.
    sigmas : (N+1,)
        The levels of the rows, decreasing.
    level : float
        Between 0 and 1. NaN is returned for a path that does not reach it by its end.

    Returns
    -------
    Tensor
        ``(B,)``.

    Examples
    --------
    >>> p = torch.tensor([0.5, 0.9, 0.4, 0.8, 1.0])[:, None]  # of the final class, for one path
    >>> commitment_sigma(torch.stack([p, 1 - p], -1), torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5])).tolist()
    [1.0]
    """
    p = posteriors
    real_tensor("posteriors", p, "(N+1, B, K)")
    if p.ndim != 3 or p.numel() == 0 or bool((p < 0).any()) or bool(((p.sum(-1) - 1).abs() > 0.05).any()):
        raise ValueError(f"posteriors must have shape (N+1, B, K), each row adding up to 1, got {shown(p)}")
    level = number("level", level, above=0, below=1)
    s = schedules.validate(sigmas)
    if len(s) != len(p):
        raise ValueError(f"sigmas must hold one level per row of posteriors, {len(p)}, got {len(s)}")
    final = p[-1].argmax(-1)  # (B,)
    chosen = p.gather(2, final.expand(len(p), -1)[..., None])[..., 0]  # (N+1, B)
    held = (chosen >= level).flip(0).to(torch.int64).cumprod(0).sum(0)  # rows from the end for which it holds
    first = (len(p) - held).clamp(max=len(p) - 1)
    return torch.where(held > 0, s.to(p)[first], torch.full_like(chosen[0], float("nan")))


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

    Examples
    --------
    >>> from teachkit import initial_noise, sample
    >>> x, levels = initial_noise(4, (2,)), schedules.polynomial(20)
    >>> exact = sample(Empirical(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)), x, levels)
    >>> gaussian = sample(Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]]), x, levels)
    >>> gap = state_gap(gaussian, exact).mean(1)
    >>> bool(gap[0] == 0), bool(gap[5] < 0.01), bool(gap[-1] > 0.1)
    (True, True, True)
    """
    a, b = flat(whole_path("traj_a", traj_a).x), flat(whole_path("traj_b", traj_b).x)
    if a.shape != b.shape or not torch.allclose(traj_a.sigmas.cpu(), traj_b.sigmas.cpu(), rtol=1e-12, atol=0):
        raise ValueError(f"traj_a and traj_b must have equal shapes and levels, got {tuple(a.shape)}, {tuple(b.shape)}")
    if not torch.equal(a[0], b[0].to(a)):
        raise ValueError("traj_a and traj_b must start from the same noise")
    if radius is None:
        radius = float((b[-1] - b[-1].mean(0)).square().sum(-1).mean().sqrt())
    radius = number("radius", radius, above=0)
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

    Examples
    --------
    >>> from teachkit import initial_noise, sample
    >>> points = Empirical(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    >>> path = sample(points, initial_noise(4, (2,)), schedules.polynomial(20))
    >>> bool(score_gap(points, path).max() < 1e-12)
    True
    """
    function("denoiser", denoiser, "D(x, sigma)")
    whole_path("traj", traj, outputs=True)
    x, reference = flat(traj.x[:-1]), flat(traj.denoised)
    # Where the path comes from a network, the closed form may be of another precision.
    dtype = next(denoiser.buffers()).dtype if isinstance(denoiser, DenoiserModule) else traj.x.dtype
    with torch.no_grad():
        own = [denoiser(state.to(dtype), float(s)) for state, s in zip(traj.x[:-1], traj.sigmas)]
    gap = torch.linalg.vector_norm(torch.stack(own).flatten(2).to(x) - reference, dim=-1)
    size = torch.linalg.vector_norm(x - reference, dim=-1)
    if not bool((size > 0).all()):
        raise ValueError("traj has a state that equals the output there: its score is 0, and nothing is relative to it")
    return gap / size


def rotation(traj: Trajectory) -> Tensor:
    """Angle by which the direction from the denoiser's output to the state turns from one state to the next.

    A step moves x along the line to D; then D itself moves, and the line turns about it while its length, about
    sigma sqrt(d), shrinks (arXiv 2506.10177, Sec. 4, draws it). The angles of a path add up to how far it turns in all.

    Parameters
    ----------
    traj : Trajectory
        The paths, kept whole.

    Returns
    -------
    Tensor
        ``(N-1, B)``, in degrees: entry n lies between the states n and n + 1; the last state has no output.

    Examples
    --------
    >>> from teachkit import initial_noise, sample
    >>> point = sample(Empirical(torch.tensor([[1.0, 0.0]], dtype=torch.float64)), initial_noise(4, (2,)), [9, 3, 1, 0])
    >>> bool(rotation(point).max() < 1e-5)  # one point: D never moves, and nothing turns
    True
    """
    whole_path("traj", traj, outputs=True)
    away = flat(traj.x[:-1]) - flat(traj.denoised)  # (N, B, d)
    size = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
    if not bool((size > 0).all()):
        raise ValueError("traj has a state that equals the output there: no direction leads from one to the other")
    unit = away / size
    apart, together = (torch.linalg.vector_norm(unit[1:] + k * unit[:-1], dim=-1) for k in (-1, 1))
    return torch.rad2deg(2 * torch.atan2(apart, together))  # small angles too; the arc cosine loses them


def teleport(gaussian: Gaussian, x: Tensor, sigma_from: float, sigma_to: float) -> Tensor:
    """Jump from one noise level to a lower one by the exact flow of a Gaussian, without evaluating a network.

    Sampling then goes on from ``sigma_to`` with the real denoiser (Wang & Vastola 2024, arXiv 2412.09726).

    Parameters
    ----------
    gaussian : Gaussian
        Mean and covariance of the data, as from ``Gaussian.fit``.
    x : (B, *event)
        States at ``sigma_from``.
    sigma_from, sigma_to : float
        Noise levels, 0 <= sigma_to <= sigma_from.

    Returns
    -------
    Tensor
        ``(B, *event)``: the states at ``sigma_to``.

    Examples
    --------
    >>> x = torch.tensor([[80.0, 0.0]], dtype=torch.float64)
    >>> teleport(Gaussian([0.0, 0.0], 1.0), x, 80.0, 0.0).round(decimals=4).tolist()
    [[0.9999, 0.0]]
    """
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"gaussian must be a Gaussian, got {type(gaussian).__name__}")
    sigma_from, sigma_to = scalar("sigma_from", sigma_from, least=0), scalar("sigma_to", sigma_to, least=0)
    if not sigma_to <= sigma_from:
        raise ValueError(f"sigma_to must lie between 0 and sigma_from = {sigma_from!r}, got {sigma_to!r}")
    return gaussian.flow(x, sigma_from, sigma_to)

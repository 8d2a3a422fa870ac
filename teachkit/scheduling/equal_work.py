"""Score-optimal schedules: levels between which a sampler has equally much work (arXiv 2412.07877).

A step from sigma to sigma' takes samples of p_sigma, moves them by a predictor F, and leaves to a corrector what the
score of F(p_sigma) still differs by from that of p_sigma': the work of the step. Where it is delta(sigma) h^2 for a
short step h, equal work a step is least work in all, and the best levels are even in the length

    L(sigma)  =  integral of sqrt(delta) dsigma.

Without a predictor, F(x) = x, the work is sigma^2 E |ds/dsigma at fixed x|^2. Along a path the score changes by
transport as well: the derivative of s(x(sigma), sigma) is that at fixed x plus (grad s) dx/dsigma. For a Gaussian of
variances lam, where s = -u / (lam + sigma^2) and u grows as sqrt(lam + sigma^2), the first is 2 sigma u / (lam +
sigma^2)^2 and the whole is half of it, in every direction and at every level. A factor moves no level, so that the
path's own quantities do. (Of the network ``edm-digits8`` the factor lies between 1.6 and 2.2 all the way.)

With the exact direction as its predictor, dx/dsigma = eps = (x - D) / sigma, both scores agree to first order (the
density moves by that very flow) and no delta is left. What is left of an Euler step is h^2 / 2 * deps/dsigma. Its sum
over steps is least for levels even in the integral of sqrt(|deps/dsigma|): what `shortest_path` over `cost_matrix` of
"l2" tends to for many steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import choice, integer
from teachkit.denoisers import default_dtype
from teachkit.schedules.levels import finished
from teachkit.scheduling.costs import whole
from teachkit.trajectory import Trajectory

COSTS = ("predictor", "corrector")


def score_optimal(teacher: Trajectory, n: int, cost: str = "predictor") -> Tensor:
    """Levels with equal work a step, from the paths of a teacher and no further evaluation.

    Parameters
    ----------
    teacher : Trajectory
        Paths in many steps, kept whole and ending above 0 (`teacher_paths`).
    n : int
        Number of steps; it may be larger than the teacher's.
    cost : {"predictor", "corrector"}
        Work that is made equal. "predictor": the error of an Euler step, h^2 / 2 * deps/dsigma with eps = (x - D) /
        sigma, which is what a deterministic solver leaves to do. "corrector": the change of the score times sigma, the
        corrector-optimised work of arXiv 2412.07877, with the change along the path in place of that at a fixed
        point: for a Gaussian exactly half of it, so that the levels are the same. It is for samplers that add noise,
        and near to `schedules.logsnr` far above the data's scale.

    Returns
    -------
    Tensor
        ``(n + 1,)`` float64 on the CPU, between the teacher's ends. Those for 2 n steps contain those for n.

    Raises
    ------
    ValueError, TypeError
        For an unknown cost, a teacher without its path, with less than two steps or one that ends at 0, paths whose
        direction never changes (all levels are equally good), and levels that float64 cannot tell apart.

    References
    ----------
    Williams et al., "Score-optimal diffusion schedules", arXiv 2412.07877.

    Examples
    --------
    >>> from teachkit import Gaussian, initial_noise
    >>> from teachkit.scheduling import teacher_paths
    >>> teacher = teacher_paths(Gaussian([0.0, 1.0], [0.2, 0.4]), initial_noise(64, (2,)))
    >>> score_optimal(teacher, 4).round(decimals=2).tolist()
    [80.0, 3.67, 1.07, 0.37, 0.0]
    """
    choice("cost", cost, COSTS)
    n = integer("n", n, 1)
    whole(teacher)
    sigmas = teacher.sigmas
    if len(sigmas) < 3 or float(sigmas[-1]) == 0:
        raise ValueError(f"teacher must have two or more steps and end above 0, got the levels {sigmas.tolist()}")
    work = _work(teacher, cost)
    length = torch.cat([work.new_zeros(1), work.cumsum(0)])
    if not float(length[-1]) > 0:
        raise ValueError("teacher must have paths that change direction: of straight ones all levels are equally good")
    wanted = length[-1] * torch.arange(n + 1, dtype=length.dtype) / n
    at = torch.searchsorted(length, wanted).clamp(1, len(work))  # length[at - 1] < wanted <= length[at]
    part = (wanted - length[at - 1]) / (length[at] - length[at - 1])
    levels = torch.lerp(sigmas.log()[at - 1], sigmas.log()[at], part).exp()
    return finished(levels, float(sigmas[-1]), float(sigmas[0]), zero=False)


def _work(teacher: Trajectory, cost: str) -> Tensor:
    """Length of each of the teacher's steps, (N,) float64 on the CPU.

    At the last level nothing was evaluated: there the density of the step before is kept, in sigma or in log sigma.
    """
    sigmas = teacher.sigmas
    dtype, count = default_dtype(teacher.x.device), teacher.x.shape[1]
    changes, before = [], None
    for x, denoised, sigma in zip(teacher.x, teacher.denoised, sigmas.tolist()):
        vector = (x.to(dtype) - denoised.to(dtype)) / sigma ** (2 if cost == "corrector" else 1)  # -s, or eps
        if before is not None:
            changes.append(float(torch.linalg.vector_norm(vector - before)) / count**0.5)
        before = vector
    change = torch.tensor(changes, dtype=torch.float64)  # (N-1,): root mean square over the samples
    step, log_step = -sigmas.diff(), -sigmas.log().diff()
    if cost == "corrector":
        work, scale = (sigmas[:-2] * sigmas[1:-1]).sqrt() * change, log_step
    else:
        work, scale = (change * step[:-1]).sqrt(), step
    return torch.cat([work, work[-1:] / scale[-2] * scale[-1]])

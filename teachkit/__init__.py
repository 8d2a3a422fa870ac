"""teachkit: how diffusion models actually sample.

    a denoiser D(x; sigma)      where the arrow points      denoisers, edm
    a schedule s0 > s1 > ...    where we stop               schedules, scheduling
    a solver                    how we step                 solvers

``sample(D, x, sigmas, solver)`` puts the three together and returns a `Trajectory`, whose shape `geometry` measures
and from which `scheduling` finds better schedules.
"""

from teachkit import (
    data,
    denoisers,
    edm,
    geometry,
    meanshift,
    metrics,
    regularity,
    renamed,
    sampling,
    schedules,
    scheduling,
    solvers,
)
from teachkit.denoisers import Empirical, Gaussian, GaussianMixture, LowRankMixture
from teachkit.sampling import Trajectory, initial_noise, sample

__version__ = "0.1.0"

renamed.install()
__getattr__ = renamed.attribute(__name__)

__all__ = [
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "LowRankMixture",
    "Trajectory",
    "data",
    "denoisers",
    "edm",
    "geometry",
    "initial_noise",
    "meanshift",
    "metrics",
    "regularity",
    "sample",
    "sampling",
    "schedules",
    "scheduling",
    "solvers",
]

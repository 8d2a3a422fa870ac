"""teachkit: how diffusion models actually sample.

    a denoiser D(x; sigma)      where the arrow points      denoisers, edm, adapters
    a schedule s0 > s1 > ...    where we stop               schedules, scheduling
    a solver                    how we step                 solvers

``sample(D, x, sigmas, solver)`` puts the three together and returns a `Trajectory`, whose shape `geometry` measures
and from which `scheduling` finds better schedules.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING

# Threads of torch that wait give way soon (GNU's OpenMP reads this when torch is loaded). Where another program keeps a
# core busy, those that spin on make small networks up to a hundred times slower; on an idle machine nothing changes.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from teachkit import renamed

try:
    from teachkit.denoisers import Empirical, Gaussian, GaussianMixture, LowRankMixture
    from teachkit.sampling import Trajectory, initial_noise, sample
except KeyboardInterrupt:  # while torch was loading: of the command line there is nothing yet that would say so
    if os.path.basename(sys.argv[0]) not in ("teachkit", "-m"):
        raise
    print("\nteachkit: interrupted", file=sys.stderr)
    raise SystemExit(130) from None

if TYPE_CHECKING:  # each room is loaded when it is first asked for: `import teachkit` takes little more than torch does
    from teachkit import (
        adapters,
        data,
        denoisers,
        edm,
        geometry,
        meanshift,
        metrics,
        regularity,
        sampling,
        schedules,
        scheduling,
        solvers,
    )

__version__ = "0.2.0"

renamed.install()
_moved = renamed.attribute(__name__)


def __getattr__(name: str) -> object:
    return importlib.import_module(f"teachkit.{name}") if name in __all__ else _moved(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "LowRankMixture",
    "Trajectory",
    "adapters",
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

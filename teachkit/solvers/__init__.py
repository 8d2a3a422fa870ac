"""Solvers: how to step from one noise level to the next along dx/dsigma = (x - D(x; sigma)) / sigma.

A solver is only a step rule. It sees the current `Point`, the next sigma and the earlier points, newest last, and
returns the next x; the loop, the history and the count of evaluations belong to `teachkit.sample`. Two forms of the
same first-order step are worth knowing:

    x_next = x + (sigma_next - sigma) * direction              direction = (x - D) / sigma
           = (sigma_next / sigma) * x + (1 - sigma_next / sigma) * D,

a convex combination of where we are and where D points (arXiv 2506.10177, Prop. 1). Every other method here improves
on it with a second evaluation (`one_step`), a derivative (`taylor`) or memory (`multistep`, `exponential`).

Every option is by default as the method was published. Where that misses the order in the method's name, the option
``corrected`` gives it (`DPMPP3M`); all others have the order they state, as the tests measure. Options shared by
several solvers have one name and one order in all: ``order`` (by default the highest), ``prediction``,
``lower_order_final``, then a method's own; ``euler_last`` where a step costs two evaluations.

Taught in ``notebooks/03_the_ode``, ``notebooks/04_solvers`` and ``notebooks/05_five_evaluations``.
How to write one's own: ``docs/WRITE_A_SOLVER.md``.
"""

from __future__ import annotations

import difflib
from typing import Any

from teachkit.checks import shown
from teachkit.solvers.base import Point, Solver
from teachkit.solvers.exponential import DPMPP2M, DPMPP3M, RES2M, RES3M, UniPC
from teachkit.solvers.multistep import DEIS, IPNDM, IPNDMV, LMS
from teachkit.solvers.one_step import DPM2, EDMStochastic, Euler, Heun
from teachkit.solvers.taylor import GENIE

__all__ = [
    "DEIS",
    "DPM2",
    "DPMPP2M",
    "DPMPP3M",
    "GENIE",
    "IPNDM",
    "IPNDMV",
    "LMS",
    "REGISTRY",
    "RES2M",
    "RES3M",
    "EDMStochastic",
    "Euler",
    "Heun",
    "Point",
    "Solver",
    "UniPC",
    "get",
]

REGISTRY: dict[str, type[Solver]] = {
    cls.name: cls
    for cls in (
        Euler, Heun, DPM2, GENIE, DPMPP2M, DPMPP3M, IPNDM, IPNDMV, DEIS, UniPC, RES2M, RES3M, LMS, EDMStochastic
    )
}  # fmt: skip


def get(name: str, **options: Any) -> Solver:
    """Build a solver from its name and its options.

    Parameters
    ----------
    name : str
        A name in ``REGISTRY``.
    **options
        The arguments of that solver's class, for example ``order`` of "ipndm".

    Returns
    -------
    Solver
        Ready for `teachkit.sample`.

    Raises
    ------
    ValueError
        For an unknown name (the nearest one is suggested), an option the solver does not take, or a value out of
        range.
    TypeError
        For a name that is not a string.

    Examples
    --------
    >>> get("dpmpp_3m", corrected=True)
    DPMPP3M(order=3, prediction='x0', lower_order_final=True, corrected=True)
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be the name of a solver, got {shown(name)}")
    if name not in REGISTRY:
        near = difflib.get_close_matches(str(name).lower(), REGISTRY, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown solver {name!r}{hint} Known: {', '.join(REGISTRY)}")
    try:
        return REGISTRY[name](**options)
    except TypeError as error:
        raise ValueError(f"solver {name!r} does not take these options: {options} ({error})") from error

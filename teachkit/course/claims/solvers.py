"""Claims about solvers: the orders they are named for, and which of them is best at few evaluations.

Orders are slopes of the error against the exact flow of a Gaussian, dx/dsigma = (x - D) / sigma solved in closed form,
from 64 to 128 steps on two grids: even in log sigma, and with every second level moved by a sixth of a step. The first
step is cut into geometric pieces, so that multistep methods start at full order. Taught in ``notebooks/04_solvers``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from teachkit import metrics, sample, schedules, solvers
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import at_least, below_one, order
from teachkit.course.claims.fixtures import ratio
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.denoisers import Gaussian

TOP, BOTTOM = 2.0, 0.2


def _even(n: int) -> Tensor:
    return schedules.logsnr(n, BOTTOM, TOP)


def _uneven(n: int) -> Tensor:
    levels = _even(n).log()
    shift = 0.17 * (levels[0] - levels[1])
    levels[1:-1:2] += shift
    levels[2:-1:2] -= shift
    return levels.exp()


def _slope(run: Setting, solver: solvers.Solver, grid: Callable[[int], Tensor]) -> metrics.Estimate:
    """Observed order: log2 of the ratio of mean errors with 64 and 128 steps, with its interval over starts."""
    flow = Gaussian([0.5, -0.5], [[0.3, 0.1], [0.1, 0.1]])
    begin = fixtures.noise(run, run.pick(16, 256), (2,)) * TOP / 80
    end = flow.flow(begin, TOP, BOTTOM)
    errors = []
    for n in (64, 128):
        sigmas = grid(n)
        slow = sigmas[0] + (sigmas[1] - sigmas[0]) * 2.0 ** torch.arange(-14, 0)
        final = sample(flow, begin, torch.cat([sigmas[:1], slow, sigmas[1:]]), solver, keep="final").final
        errors.append((final - end).norm(dim=1))
    return metrics.bootstrap(lambda a, b: (a.mean() / b.mean()).log2(), *errors, paired=True)


@claim("orders", place="arXiv 2206.00364, 2211.01095, 2204.13902, 2302.04867", figure="slope - order: 0",
       criterion=at_least(-0.25), digits=1, lesson="solvers")  # fmt: skip
def _orders(run: Setting) -> Measurement:
    """Euler, Heun, DPM-Solver++(2M), variable-step iPNDM(4) and UniPC(3) have orders 1, 2, 2, 4 and 4."""
    full = {"lower_order_final": False}
    stated = {"euler": 1, "heun": 2, "dpmpp_2m": 2, "ipndm_v": 4, "unipc": 4}
    options = {"dpmpp_2m": full, "unipc": full}
    found = []
    for name, number in stated.items():
        for grid in (_even, _uneven):
            slope = _slope(run, solvers.get(name, **options.get(name, {})), grid)
            found.append((metrics.Estimate(*(end - number for end in slope)), name))
    least, name = min(found)
    return measured(least, detail=f"least slope - order on two grids ({name})")


@claim("order-dpmpp-3m", place="arXiv 2211.01095", figure="3", criterion=order(3), digits=1, lesson="solvers",
       remark="its second difference lacks a factor 2; with it the order is 3")  # fmt: skip
def _dpmpp_3m(run: Setting) -> Measurement:
    """DPM-Solver++(3M), in its published code, has order 3."""
    slopes = [_slope(run, solvers.get("dpmpp_3m", lower_order_final=False), grid) for grid in (_even, _uneven)]
    fixed = _slope(run, solvers.get("dpmpp_3m", lower_order_final=False, corrected=True), _uneven).value
    return measured(min(slopes), detail=f"lesser slope of two grids; corrected: {fixed:.1f}")


@claim("order-ipndm-even", place="read into its name; arXiv 2204.13902", figure="4", criterion=order(4), digits=1,
       lesson="solvers",
       remark="its weights are those of equal steps in sigma, and steps even in log sigma are not")  # fmt: skip
def _ipndm_even(run: Setting) -> Measurement:
    """iPNDM(4) has order 4 on the usual grids."""
    return measured(_slope(run, solvers.get("ipndm"), _even), detail="slope, steps even in log sigma")


@claim("order-ipndm-uneven", place="read into its name; arXiv 2204.13902", figure="4", criterion=order(4), digits=1,
       lesson="solvers",
       remark="with neighbouring steps of unequal size it falls to the order of Euler's method")  # fmt: skip
def _ipndm_uneven(run: Setting) -> Measurement:
    """iPNDM(4) has order 4 on any grid."""
    return measured(_slope(run, solvers.get("ipndm"), _uneven), detail="slope, every second level moved")


def _ranked(run: Setting, better: str, worse: str, nfe: int) -> Measurement:
    sigmas = schedules.polynomial(nfe)
    errors = [fixtures.network_error(run, sigmas, name) for name in (better, worse)]
    return ratio(*errors, detail=f"error of {better} / {worse}, {nfe} evaluations, network")


@claim("rank-10", place="arXiv 2405.11326, tables of FID; errors of paths here", figure="FID 2.77 / 3.00 = 0.92",
       criterion=below_one(),
       needs="model", lesson="solvers")  # fmt: skip
def _rank_10(run: Setting) -> Measurement:
    """iPNDM(4) is better than DPM-Solver++(3M) with 10 evaluations."""
    return _ranked(run, "ipndm", "dpmpp_3m", 10)


@claim("rank-5", place="arXiv 2405.11326, tables of FID; errors of paths here", figure="FID 13.59 / 24.97 = 0.54",
       criterion=below_one(),
       needs="model", lesson="solvers",
       remark="error of paths, not FID; the ranking depends on the denoiser")  # fmt: skip
def _rank_5(run: Setting) -> Measurement:
    """iPNDM(4) is better than DPM-Solver++(3M) with 5 evaluations."""
    return _ranked(run, "ipndm", "dpmpp_3m", 5)


@claim("rank-variable", place="arXiv 2405.11326, tables of FID; errors of paths here",
       figure="FID 13.59 / 23.58 = 0.58",
       criterion=below_one(), needs="model", lesson="solvers")  # fmt: skip
def _rank_variable(run: Setting) -> Measurement:
    """iPNDM with constant weights is better than its variable-step form with 5 evaluations."""
    return _ranked(run, "ipndm", "ipndm_v", 5)


@claim("rank-exact", place="carried over to an exact denoiser from arXiv 2405.11326",
       criterion=below_one(),
       remark="an exact denoiser of few data switches within a step, and large weights of opposite signs amplify that",
       lesson="solvers")  # fmt: skip
def _rank_exact(run: Setting) -> Measurement:
    """The same solver is best whatever the denoiser: iPNDM(4) also beats DPM-Solver++(3M) on an exact one."""
    errors = [fixtures.exact_error(run, schedules.polynomial(10), name) for name in ("ipndm", "dpmpp_3m")]
    return ratio(*errors, detail="10 evaluations, exact denoiser of digits 8x8")


@claim("heun-last-step", place="arXiv 2206.00364, Sec. 3, carried to few steps", criterion=below_one(), needs="model",
       digits=1, lesson="solvers",
       remark="an order is about small steps: four large ones of order 2 lose to eight of order 1")  # fmt: skip
def _heun(run: Setting) -> Measurement:
    """A solver of higher order is better: Heun's method beats Euler's at 8 evaluations down to sigma 0.002."""
    heun = fixtures.network_error(run, schedules.polynomial(4), "heun")
    euler = fixtures.network_error(run, schedules.polynomial(8), "euler")
    cured = fixtures.network_error(run, schedules.polynomial(4), solvers.get("heun", euler_last=True))
    detail = f"error of Heun / Euler; with an Euler step at the end (7 evaluations): {cured.mean() / euler.mean():.1f}"
    return ratio(heun, euler, detail=detail)

"""Claims about solvers: the orders they are named for, and which of them is best at few evaluations.

Orders are slopes of the error against the exact flow of a Gaussian, dx/dsigma = (x - D) / sigma solved in closed form,
from 64 to 128 steps on two grids: even in log sigma, and with every second level moved by a sixth of a step. The first
step is cut into geometric pieces, so that multistep methods start at full order. Taught in ``notebooks/04_solvers``.

At few evaluations the error on digits is split in two, which have different causes: whether a path ends at the digit
of its exact end, and how far from the nearest digit it ends. Taught in ``notebooks/05_five_evaluations``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from teachkit import metrics, sample, schedules, solvers
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import at_least, at_most, below_one, order
from teachkit.course.claims.fixtures import ratio
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.denoisers import Gaussian, GaussianMixture

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
    """The ratio of errors on the network; the control is the same on the Gaussian of the digits 8x8."""
    sigmas = schedules.polynomial(nfe)
    errors = [fixtures.network_error(run, sigmas, name) for name in (better, worse)]
    plain = Gaussian.fit(fixtures.digits().images)
    x = fixtures.noise(run, run.pick(128, 1024), (1, 8, 8), stream=1)
    end = plain.flow(x, 80.0, 0.002)
    trivial = [
        metrics.error_to_reference(sample(plain, x, sigmas, name, keep="final").final, end).mean()
        for name in (better, worse)
    ]
    detail = f"error of {better} / {worse}, {nfe} evaluations, network; control: a Gaussian of the digits"
    return ratio(*errors, detail=detail)._replace(control=float(trivial[0] / trivial[1]))


@claim("rank-10", place="arXiv 2405.11326, tables of FID; errors of paths here", figure="FID 2.77 / 3.00 = 0.92",
       criterion=below_one(),
       needs="model", lesson="five_evaluations",
       remark="a Gaussian of the data ranks them alike: it is smooth, as a network is")  # fmt: skip
def _rank_10(run: Setting) -> Measurement:
    """iPNDM(4) is better than DPM-Solver++(3M) with 10 evaluations."""
    return _ranked(run, "ipndm", "dpmpp_3m", 10)


@claim("rank-5", place="arXiv 2405.11326, tables of FID; errors of paths here", figure="FID 13.59 / 24.97 = 0.54",
       criterion=below_one(),
       needs="model", lesson="five_evaluations",
       remark="error of paths, not FID; the ranking depends on the denoiser")  # fmt: skip
def _rank_5(run: Setting) -> Measurement:
    """iPNDM(4) is better than DPM-Solver++(3M) with 5 evaluations."""
    return _ranked(run, "ipndm", "dpmpp_3m", 5)


@claim("rank-variable", place="arXiv 2405.11326, tables of FID; errors of paths here",
       figure="FID 13.59 / 23.58 = 0.58",
       criterion=below_one(), needs="model", lesson="five_evaluations",
       remark="a Gaussian of the data ranks them alike: it is smooth, as a network is")  # fmt: skip
def _rank_variable(run: Setting) -> Measurement:
    """iPNDM with constant weights is better than its variable-step form with 5 evaluations."""
    return _ranked(run, "ipndm", "ipndm_v", 5)


@claim("rank-exact", place="this library; for FID and networks, arXiv 2405.11326", figure="FID 2.77 / 3.00 = 0.92",
       criterion=below_one(),
       remark="an exact denoiser of few data switches within a step, and large weights of opposite signs amplify that",
       lesson="five_evaluations")  # fmt: skip
def _rank_exact(run: Setting) -> Measurement:
    """The same solver is best whatever the denoiser: iPNDM(4) also beats DPM-Solver++(3M) on an exact one."""
    errors = [fixtures.exact_error(run, schedules.polynomial(10), name) for name in ("ipndm", "dpmpp_3m")]
    return ratio(*errors, detail="10 evaluations, exact denoiser of digits 8x8")


@claim("heun-last-step", place="read into its order; arXiv 2206.00364 ends at 0, by Euler", criterion=below_one(),
       needs="model", digits=1, lesson="five_evaluations",
       remark="an order is about small steps: four large ones of order 2 lose to eight of order 1")  # fmt: skip
def _heun(run: Setting) -> Measurement:
    """A solver of higher order is better: Heun's method beats Euler's at 8 evaluations down to sigma 0.002."""
    heun = fixtures.network_error(run, schedules.polynomial(4), "heun")
    euler = fixtures.network_error(run, schedules.polynomial(8), "euler")
    cured = fixtures.network_error(run, schedules.polynomial(4), solvers.get("heun", euler_last=True))
    detail = f"error of Heun / Euler; with an Euler step at the end (7 evaluations): {cured.mean() / euler.mean():.1f}"
    return ratio(heun, euler, detail=detail)


# name, steps that cost about five evaluations, options
FIVE: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("euler", 5, {}), ("heun", 2, {}), ("heun", 3, {"euler_last": True}), ("dpm2", 2, {}),
    ("dpm2", 3, {"euler_last": True}), ("ipndm", 5, {}), ("ipndm", 5, {"order": 2}), ("ipndm_v", 5, {}),
    ("deis", 5, {}), ("dpmpp_2m", 5, {}), ("dpmpp_3m", 5, {}), ("res_2m", 5, {}), ("res_3m", 5, {}),
    ("res_3m", 5, {"lower_order_final": True}), ("unipc", 5, {}), ("unipc", 5, {"lower_order_final": False}),
)  # fmt: skip


def _nearest(images: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each image to the nearest digit, and which that is: ``(B,)`` each."""
    away, which = torch.cdist(images.flatten(1), fixtures.digits().images.flatten(1)).min(dim=1)
    return away, which


def _weight_sum(solver: solvers.Solver, sigmas: Tensor) -> float:
    """Sum of the absolute weights that the answers of the denoiser have in the final state."""
    answers = iter(torch.eye(2 * len(sigmas), dtype=torch.float64))
    start = torch.zeros(1, 2 * len(sigmas), dtype=torch.float64)

    def one_hot(x: Tensor, sigma: float | Tensor, labels: object = None) -> Tensor:
        return next(answers)[None]

    return float(sample(one_hot, start, sigmas, solver, keep="final").final.abs().sum())


def _ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


def _agreement(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation of two numbers over the solvers."""
    return torch.corrcoef(torch.stack([_ranks(a), _ranks(b)]))[0, 1]


@claim("negative-weights", place="this library", criterion=at_least(0.8), lesson="five_evaluations")
def _negative_weights(run: Setting) -> Measurement:
    """Negative weights are what throws the ends of five evaluations off the data: the sum of |weights| ranks solvers
    by their distance to the nearest digit, and does not rank them so well by which digit it is."""
    x, end = fixtures.exact_reference(run)
    right, sums, away, wrong = _nearest(end)[1], [], [], []
    for name, steps, options in FIVE:
        solver, sigmas = solvers.get(name, **options), schedules.polynomial(steps)
        off, which = _nearest(sample(fixtures.exact_denoiser(), x, sigmas, solver, keep="final").final)
        sums.append(_weight_sum(solver, sigmas))
        away.append(off)
        wrong.append((which != right).double())
    total = torch.tensor(sums, dtype=torch.float64)
    found = metrics.bootstrap(lambda d: _agreement(total, d.median(0).values), torch.stack(away, 1))
    control = _agreement(total, torch.stack(wrong, 1).mean(0))
    return measured(
        found, detail=f"rank correlation over {len(FIVE)} solvers; control: with the share at another digit",
        control=float(control),
    )  # fmt: skip


@claim("coarse-steps", place="this library", criterion=at_least(33), digits=0, unit="%", lesson="five_evaluations")
def _coarse_steps(run: Setting) -> Measurement:
    """Coarse steps choose another digit without any negative weight: a third or more of Euler's paths of six steps."""
    x, end = fixtures.exact_reference(run)
    right, shares = _nearest(end)[1], []
    for steps in (6, 60):
        final = sample(fixtures.exact_denoiser(), x, schedules.polynomial(steps), keep="final").final
        shares.append(100 * (_nearest(final)[1] != right).double())
    return measured(shares[0], "%", "ends of 6 Euler steps; control: 60", control=shares[1])


@claim("noise-repairs", place="arXiv 2206.00364, Sec. 4, on earlier errors; from any level: this library",
       criterion=at_most(0.5), lesson="five_evaluations",
       remark="only where the basins still overlap; below that level the choice stands")  # fmt: skip
def _noise_repairs(run: Setting) -> Measurement:
    """Noise while sampling corrects errors made before: of a wrong choice of basins half or less remains, from any
    level."""
    shares = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    centres = torch.tensor([[-1.0, -0.3], [0.9, 0.7], [0.5, -1.1]], dtype=torch.float64)
    mixture, n = GaussianMixture(shares, centres, 0.02), run.pick(1000, 8000)

    def basins(level: float, churn: float) -> Tensor:
        x = centres[2] + 0.5 * (0.02 + level**2) ** 0.5 * fixtures.noise(run, n, (2,)) / 80
        solver = solvers.get("edm_stochastic", churn=churn, sigma_low=0.0, sigma_high=80.0, noise_scale=1.0)
        final = sample(mixture, x, schedules.polynomial(20, 0.02, level), solver, keep="final").final
        return torch.nn.functional.one_hot(torch.cdist(final, centres).argmin(1), 3).double()

    def left(noisy: Tensor, plain: Tensor) -> Tensor:
        return (noisy.mean(0) - shares).abs().sum() / (plain.mean(0) - shares).abs().sum()

    def remains(level: float) -> metrics.Estimate:
        return metrics.bootstrap(left, basins(level, 1000.0), basins(level, 0.0), paired=True)

    return measured(remains(0.25), detail=f"from level 0.25, where basins are apart; from 1: {remains(1.0).value:.2f}")

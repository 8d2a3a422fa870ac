"""Solvers: measured orders, exactness identities, equivalences. (Counting, shapes and labels: ``test_sampling``.)"""

import inspect
import math
import re
import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import simpson, solve_ivp

from teachkit import Gaussian, GaussianMixture, initial_noise, sample, schedules, solvers
from teachkit.solvers.exponential import phi

F64 = torch.float64
GAUSSIAN = Gaussian([0.5, -0.5], [[0.3, 0.1], [0.1, 0.1]])
MIXTURE = GaussianMixture(
    [0.3, 0.7], [[-0.6, 0.2], [0.5, -0.3]], [[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.3]]]
)
HIGH, LOW = 2.0, 0.2
START = initial_noise(8, (2,), HIGH, seed=7)
STEPS = (8, 16, 32, 64, 128)
# Published six-step list for CIFAR-10 (arXiv 2405.11326).
FOUND = [80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002]
MULTISTEP = ["ipndm", "ipndm_v", "lms", "deis", "dpmpp_2m", "dpmpp_3m", "res_2m", "res_3m"]


# --- order of convergence ---------------------------------------------------------------------------------------


def smooth(n):
    return schedules.logsnr(n, LOW, HIGH)


def uneven(n):
    """Steps alternately longer and shorter by a third, in log sigma."""
    u = torch.arange(n + 1, dtype=F64)
    u[1:-1] += torch.where(torch.arange(1, n) % 2 == 0, 0.17, -0.17)
    sigmas = HIGH * torch.exp(math.log(LOW / HIGH) * u / n)
    sigmas[-1] = LOW
    return sigmas


def with_slow_start(sigmas):
    """Cut the first step into 14 that double: a multistep method starts with an Euler step, whose error would show."""
    first, second = float(sigmas[0]), float(sigmas[1])
    extra = [first + (second - first) * 2.0**-k for k in range(14, 0, -1)]
    return torch.cat([sigmas[:1], torch.tensor(extra, dtype=F64), sigmas[1:]])


def fall(errors):
    """Order of convergence: minus the slope of log error over log steps, over the last three step counts."""
    return -np.polyfit(np.log(STEPS[-3:]), np.log(errors[-3:]), 1)[0]


@pytest.fixture(scope="module")
def exact():
    """The exact ends: of the Gaussian in closed form, of the mixture by an adaptive method of order 8."""

    def slope(sigma, flat):
        x = torch.tensor(flat).reshape(-1, 2)
        return ((x - MIXTURE(x, float(sigma))) / sigma).flatten().numpy()

    solved = solve_ivp(slope, (HIGH, LOW), START.flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
    ends = {
        "gaussian": (GAUSSIAN, GAUSSIAN.flow(START, HIGH, LOW)),
        "mixture": (MIXTURE, torch.tensor(solved.y[:, -1]).reshape(-1, 2)),
    }
    return ends


FULL = {"lower_order_final": False}
ORDERS = [
    ("euler", {}, 1),
    ("heun", {}, 2),
    ("edm_stochastic", {"churn": 0.0}, 2),
    ("edm_stochastic", {"churn": 0.0, "euler_last": True}, 2),
    ("dpm2", {}, 2),
    ("dpm2", {"r": 0.7}, 2),
    ("genie", {}, 2),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_2m", FULL, 2),
    ("dpmpp_2m", {"prediction": "eps", **FULL}, 2),
    ("dpmpp_3m", {}, 2),
    ("dpmpp_3m", FULL, 2),  # as published: a factor 2 is missing in the second difference
    ("dpmpp_3m", {"corrected": True, **FULL}, 3),
    ("dpmpp_3m", {"corrected": True, "prediction": "eps", **FULL}, 3),
    ("dpmpp_3m", {"corrected": True}, 2),  # the last step is an Euler step
    ("res_2m", {}, 2),
    ("res_2m", {"prediction": "eps"}, 2),
    ("res_3m", {}, 3),
    ("res_3m", {"prediction": "eps"}, 3),
    ("ipndm_v", {"order": 2}, 2),
    ("ipndm_v", {"order": 3}, 3),
    ("ipndm_v", {}, 4),
    ("lms", {}, 4),
    ("deis", {"order": 2}, 2),
    ("deis", {"order": 3}, 3),
    ("deis", {}, 4),
    ("deis", {"mode": "rhoab"}, 4),
    ("unipc", {}, 2),  # the last step is an Euler step
    ("unipc", {"order": 1, **FULL}, 2),  # the corrector adds one
    ("unipc", {"order": 2, **FULL}, 3),
    ("unipc", {"order": 2, "variant": "bh1", **FULL}, 3),
    ("unipc", {"order": 2, "prediction": "eps", **FULL}, 3),
    ("unipc", {"order": 3, **FULL}, 4),
]


@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize("grid", [smooth, uneven])
@pytest.mark.parametrize(("name", "options", "order"), ORDERS)
def test_order(exact, name, options, order, grid, problem):
    D, end = exact[problem]
    errors = []
    for n in STEPS:
        path = sample(D, START, with_slow_start(grid(n)), solvers.get(name, **options), keep="final")
        errors.append(float((path.final - end).norm()))
    assert fall(errors) == pytest.approx(order, abs=0.25), errors


STATED = {name: order for name, options, order in ORDERS if options in ({}, {"churn": 0.0})}


def test_the_orders_of_all_solvers_are_measured_and_said():
    assert set(STATED) | {"ipndm"} == set(solvers.REGISTRY)  # ipndm has two tests of its own, below
    for name, order in STATED.items():
        assert f"\n    - order: {order}" in solvers.REGISTRY[name].__doc__


def test_corrected_gives_a_method_the_order_in_its_name():
    with_option = [name for name, cls in solvers.REGISTRY.items() if "corrected" in inspect.signature(cls).parameters]
    assert "dpmpp_3m" in with_option
    for name in with_option:
        assert (name, {"corrected": True, **FULL}, solvers.get(name).order) in ORDERS


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize(("grid", "left"), [(smooth, 2), (uneven, 1)])
def test_ipndm_loses_its_order_where_steps_are_not_equal_in_sigma(exact, order, grid, left):
    # Neighbouring steps of a smooth grid differ by O(h), which costs all orders above 2; those of an uneven one do
    # not come closer as steps shrink, and only order 1 is left.
    D, end = exact["mixture"]
    errors = [float((sample(D, START, grid(n), solvers.get("ipndm", order=order)).final - end).norm()) for n in STEPS]
    assert fall(errors) == pytest.approx(left, abs=0.25), errors


@pytest.mark.parametrize("order", [2, 3, 4])
def test_ipndm_has_its_order_on_a_grid_that_is_even_in_sigma(order):
    errors = []
    for n in STEPS:
        # Start from exact history: constant coefficients allow no slow start.
        levels = tuple(schedules.linear(n, 1.0, HIGH).tolist())
        points = [
            solvers.Point(GAUSSIAN.flow(START, HIGH, s), s, GAUSSIAN, levels, i)
            for i, s in enumerate(levels[: order - 1])
        ]
        x, solver = GAUSSIAN.flow(START, HIGH, levels[order - 1]), solvers.get("ipndm", order=order)
        for i in range(order - 1, n):
            points.append(solvers.Point(x, levels[i], GAUSSIAN, levels, i))
            x = solver.step(points[-1], levels[i + 1], points[-order:-1])
        errors.append(float((x - GAUSSIAN.flow(START, HIGH, 1.0)).norm()))
    assert fall(errors) == pytest.approx(order, abs=0.25), errors


# --- problems that a method must solve exactly ------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in solvers.REGISTRY if n != "edm_stochastic"])
@pytest.mark.parametrize("sigmas", [schedules.polynomial(7), schedules.polynomial(7, zero=True), FOUND])
def test_exact_when_the_denoised_point_is_constant(name, sigmas):
    sigmas = schedules.validate(sigmas)
    target = torch.tensor([0.3, -0.8], dtype=F64)
    path = sample(lambda x, s, labels=None: target.expand_as(x), 40 * START, sigmas, name)
    expected = target + sigmas[:, None, None] / 80 * (40 * START - target)
    torch.testing.assert_close(path.x, expected, rtol=1e-9, atol=1e-8)


def integral(function, sigma, sigma_next):
    """Gauss-Legendre in log sigma: exact to rounding for what is integrated here."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    half = 0.5 * math.log(sigma_next / sigma)
    at = sigma * np.exp(half * (1 + nodes))
    return float(np.sum(half * weights * at * function(at)))


def vp_time(sigma):
    """Time of the variance-preserving process of `DEIS` that runs between the ends of `uneven`, from 1e-3 to 1."""
    low, high, t0 = math.log1p(LOW**2), math.log1p(HIGH**2), 1e-3
    d = 2 * (low / t0 - high) / (t0 - 1)
    m = high - d / 2
    if min(d * t0, d) + m <= 0:
        d, m = 19.9, 0.1
    return (np.sqrt(m**2 + 2 * d * np.log1p(sigma**2)) - m) / d


DIRECTIONS = [
    ("euler", {}, lambda s: 1 + 0 * s),
    ("heun", {}, lambda s: 2 - s),
    ("dpm2", {}, lambda s: 1 + 1 / s**2),  # its mean over a step is its value at the geometric mean
    *(
        (name, {"order": k}, lambda s, k=k: (1 + s) ** (k - 1))
        for name in ("ipndm_v", "lms", "deis/rhoab")
        for k in (2, 3, 4)
    ),
    *(("deis", {"order": k}, lambda s, k=k: (1 + vp_time(s)) ** (k - 1)) for k in (2, 3, 4)),
    ("dpmpp_3m", {"prediction": "eps", "corrected": True, **FULL}, lambda s: 1 + np.log(s) ** 2),
    ("dpmpp_3m", {"prediction": "eps", **FULL}, lambda s: 1 + np.log(s)),
    ("res_2m", {"prediction": "eps"}, lambda s: 1 + np.log(s)),
    ("res_3m", {"prediction": "eps"}, lambda s: 1 + np.log(s) ** 2),
    ("unipc", {"order": 3, "prediction": "eps", **FULL}, lambda s: 1 + np.log(s) ** 2),
    ("unipc", {"order": 3, "prediction": "eps", "variant": "bh1", **FULL}, lambda s: 1 + np.log(s) ** 2),
]


@pytest.mark.parametrize(("name", "options", "direction"), DIRECTIONS)
def test_a_direction_that_the_method_integrates_exactly(name, options, direction):
    name, _, mode = name.partition("/")
    options = {**options, "mode": mode} if mode else options
    sigmas = uneven(8)

    def D(x, sigma, labels=None):
        return x - sigma * float(direction(sigma))

    # The last step alone: the first ones, with less history, are of lower order.
    path = sample(D, START, sigmas, solvers.get(name, **options))
    step = integral(direction, float(sigmas[-2]), float(sigmas[-1]))
    torch.testing.assert_close(path.x[-1] - path.x[-2], torch.full_like(START, step), rtol=1e-9, atol=1e-11)


DENOISED = [
    ("res_2m", {}, 1),
    ("res_3m", {}, 2),
    ("dpmpp_3m", {"corrected": True, **FULL}, 2),
    ("dpmpp_3m", FULL, 1),
    ("unipc", {"order": 3, **FULL}, 2),
    ("unipc", {"order": 3, "variant": "bh1", **FULL}, 2),
]


@pytest.mark.parametrize(("name", "options", "degree"), DENOISED)
def test_exponential_methods_are_exact_when_the_denoised_point_is_a_polynomial_in_log_sigma(name, options, degree):
    def denoised(s):
        return (1 + np.log(s)) ** degree

    def D(x, sigma, labels=None):
        return torch.full_like(x, float(denoised(sigma)))

    sigmas = uneven(8)
    path = sample(D, START, sigmas, solvers.get(name, **options))
    s, s_next = float(sigmas[-2]), float(sigmas[-1])
    exact = s_next / s * path.x[-2] - s_next * integral(lambda t: denoised(t) / t**2, s, s_next)
    torch.testing.assert_close(path.x[-1], exact, rtol=1e-10, atol=1e-11)


def test_published_third_order_step_misses_a_quadratic_and_the_corrected_one_does_not():
    def D(x, sigma, labels=None):
        return torch.full_like(x, math.log(sigma) ** 2)

    ends = [
        float(sample(D, START, uneven(8), solvers.get("dpmpp_3m", corrected=c, **FULL)).final[0, 0])
        for c in (False, True)
    ]
    assert abs(ends[0] - ends[1]) > 1e-3


# --- weights ----------------------------------------------------------------------------------------------------

GRIDS = st.lists(st.floats(0.05, 3.0), min_size=2, max_size=5).map(lambda steps: np.exp(-np.cumsum([0.0, *steps])))


@given(GRIDS)
def test_weights_integrate_every_polynomial_of_their_degree(grid):
    past, sigma_next = tuple(grid[:-1][::-1].tolist()), float(grid[-1])
    in_sigma = solvers.multistep.adams_bashforth(past, sigma_next)
    in_time = solvers.multistep._integrate_in_time(past, sigma_next, sigma_next, past[-1])
    for weights in (in_sigma, in_time):
        assert sum(weights) == pytest.approx(sigma_next - past[0], rel=1e-8)
    scale = max(abs(w) for w in in_sigma)
    for k in range(len(past)):
        exact = (sigma_next ** (k + 1) - past[0] ** (k + 1)) / (k + 1)
        assert sum(w * s**k for w, s in zip(in_sigma, past)) == pytest.approx(exact, rel=1e-9, abs=1e-10 * scale)


def test_equal_steps_give_the_textbook_weights():
    for order, weights in enumerate(solvers.multistep.ADAMS_BASHFORTH, start=1):
        past = tuple(float(5 + k) for k in range(order))
        assert [-w for w in solvers.multistep.adams_bashforth(past, 4.0)] == pytest.approx(list(weights))


@pytest.mark.parametrize("z", [-9.0, -0.5, -0.499, -1e-3, -1e-9, 1e-9, 1e-3, 0.499, 0.5, 9.0])
def test_phi_functions_are_the_tails_of_the_exponential_series(z):
    terms = [Fraction(1)]
    for j in range(1, 80):
        terms.append(terms[-1] * Fraction(z) / j)
    expected = [float(sum(terms[k + 1 :]) / Fraction(z) ** k) for k in range(4)]
    assert phi(z) == pytest.approx(expected, rel=1e-12)
    assert phi(0.0) == (0, 0, 0, 0)


# --- one method under several names -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MULTISTEP)
@pytest.mark.parametrize("grid", [schedules.polynomial(6), FOUND, [9.0, 3.0, 0.0]])
def test_first_order_is_euler_in_every_multistep_family(name, grid):
    x = 4 * START
    euler = sample(MIXTURE, x, grid).x
    torch.testing.assert_close(sample(MIXTURE, x, grid, solvers.get(name, order=1)).x, euler)


def test_first_order_predictor_of_unipc_is_euler():
    torch.testing.assert_close(
        sample(MIXTURE, START, [2.0, 0.7], solvers.get("unipc", order=1)).final,
        sample(MIXTURE, START, [2.0, 0.7]).final,
    )


EQUAL = [
    (("lms", {"order": 4}), ("ipndm_v", {"order": 4}), uneven(9)),
    (("deis", {"order": 3, "mode": "rhoab"}), ("ipndm_v", {"order": 3}), uneven(9)),
    (("ipndm", {"order": 4}), ("ipndm_v", {"order": 4}), schedules.linear(9, LOW, HIGH)),
    (("dpmpp_2m", {}), ("dpmpp_3m", {"order": 2}), uneven(9)),
    (("dpmpp_3m", {"order": 2, "corrected": True}), ("dpmpp_2m", {}), uneven(9)),
    (("res_3m", {"prediction": "eps", "order": 2}), ("res_2m", {"prediction": "eps"}), uneven(9)),
    (("edm_stochastic", {"churn": 0.0}), ("heun", {}), schedules.polynomial(9, LOW, HIGH, zero=True)),
    (("edm_stochastic", {"churn": 0.0, "euler_last": True}), ("heun", {"euler_last": True}), uneven(9)),
    (("edm_stochastic", {"sigma_low": 90.0, "sigma_high": 95.0}), ("heun", {}), uneven(9)),
]


@pytest.mark.parametrize(("one", "other", "grid"), EQUAL)
def test_methods_that_coincide(one, other, grid):
    paths = [sample(MIXTURE, START, grid, solvers.get(name, **options)).x for name, options in (one, other)]
    torch.testing.assert_close(*paths, rtol=1e-10, atol=1e-10)


# --- grids, ends and starts -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far():
    """Starts at sigma = 80 and the exact ends at 0.002 (Heun with 1000 steps: right to 1e-4)."""
    x = 40 * START
    return x, sample(MIXTURE, x, schedules.polynomial(1000), "heun", keep="final").final


@pytest.mark.parametrize("name", [n for n in solvers.REGISTRY if n != "edm_stochastic"])
def test_an_uneven_list_found_by_search_is_good_for_every_solver(name, far):
    x, exact = far
    options = {"euler_last": True} if name in ("heun", "dpm2") else {}
    final = sample(MIXTURE, x, FOUND, solvers.get(name, **options)).final
    assert float((final - exact).norm(dim=1).mean()) < 0.7  # two samples of the data are 1.0 apart


@pytest.mark.parametrize("name", [n for n in solvers.REGISTRY if n != "edm_stochastic"])
def test_an_end_at_zero_is_as_good_as_one_near_it(name, far):
    x, exact = far
    final = sample(MIXTURE, x, schedules.polynomial(60, zero=True), name).final
    assert float((final - exact).norm(dim=1).mean()) < (0.08 if name == "euler" else 0.02)


def test_the_analytic_first_direction_stays_in_the_history():
    sigmas = [20.0, 10.0, 2.0]
    x = 10 * START
    path = sample(MIXTURE, x, sigmas, solvers.get("ipndm", order=2), afs=True)
    first = x / math.sqrt(1 + 20.0**2)
    second = (path.x[1] - MIXTURE(path.x[1], 10.0)) / 10.0
    torch.testing.assert_close(path.x[1], x - 10 * first)
    torch.testing.assert_close(path.x[2], path.x[1] - 8 * (1.5 * second - 0.5 * first))


@pytest.mark.parametrize("name", [name for name, cls in solvers.REGISTRY.items() if cls.evaluations == 2])
def test_an_euler_last_step_saves_an_evaluation(name):
    sigmas, quiet = schedules.polynomial(3), {"churn": 0.0} if name == "edm_stochastic" else {}
    path = sample(MIXTURE, 40 * START, sigmas, solvers.get(name, euler_last=True, **quiet))
    assert path.nfe == 5
    ratio = float(sigmas[-1] / sigmas[-2])
    torch.testing.assert_close(path.final, path.denoised[-1] + ratio * (path.x[-2] - path.denoised[-1]))


def test_a_solver_keeps_no_state_between_runs():
    for name in solvers.REGISTRY:
        solver = solvers.get(name)
        first = sample(MIXTURE, START, uneven(6), solver).x
        sample(MIXTURE, 3 * START, FOUND, solver)
        assert torch.equal(sample(MIXTURE, START, uneven(6), solver).x, first)


# --- the stochastic sampler -------------------------------------------------------------------------------------


def test_the_stochastic_sampler_samples_the_distribution():
    x = initial_noise(4000, (2,), 80.0, seed=1)
    solver = solvers.get("edm_stochastic", churn=20.0, noise_scale=1.0)
    final = sample(GAUSSIAN, x, schedules.polynomial(40), solver, keep="final").final
    torch.testing.assert_close(final.mean(0), GAUSSIAN.mean, atol=0.03, rtol=0)
    expected = GAUSSIAN.axes * GAUSSIAN.variances @ GAUSSIAN.axes.mT
    torch.testing.assert_close(torch.cov(final.T), expected, atol=0.02, rtol=0)
    # The noise is really there: where a sample ends is hardly tied to where the deterministic sampler takes it.
    quiet = sample(GAUSSIAN, x, schedules.polynomial(40), "heun", keep="final").final
    assert abs(float(torch.corrcoef(torch.stack([final[:, 0], quiet[:, 0]]))[0, 1])) < 0.95


def test_the_stochastic_sampler_follows_algorithm_2_of_edm():
    # One churned step by hand: raise sigma by the factor 1 + gamma, add noise of the missing variance, a Heun step.
    sigmas, churn, scale = [4.0, 1.0, 0.3], 1.0, 1.1
    solver = solvers.get("edm_stochastic", churn=churn, sigma_low=2.0, sigma_high=9.0, noise_scale=scale, seed=3)
    path = sample(MIXTURE, 2 * START, sigmas, solver)
    gamma = min(churn / 2, math.sqrt(2) - 1)
    high = 4.0 * (1 + gamma)
    x = 2 * START + scale * math.sqrt(high**2 - 16) * initial_noise(8, (2,), 1.0, seed=3, stream=1)
    slope = (x - MIXTURE(x, high)) / high
    guess = x + (1.0 - high) * slope
    end = x + (1.0 - high) * 0.5 * (slope + guess - MIXTURE(guess, 1.0))
    torch.testing.assert_close(path.x[1], end)
    quiet = sample(MIXTURE, path.x[1], sigmas[1:], "heun").final  # sigma = 1 lies below sigma_low
    torch.testing.assert_close(path.final, quiet)


# --- registry ---------------------------------------------------------------------------------------------------


def test_every_solver_is_registered_under_its_name_and_shows_its_options():
    for name, cls in solvers.REGISTRY.items():
        solver = solvers.get(name)
        assert type(solver) is cls
        assert cls.name == name
        options = inspect.signature(cls).parameters
        assert repr(solver).startswith(f"{cls.__name__}(")
        assert all(f"{option}={getattr(solver, option)!r}" in repr(solver) for option in options)
        assert repr(solver).count("=") == len(options)
    assert "order=3" in repr(solvers.get("ipndm", order=3))


@pytest.mark.parametrize("cls", solvers.REGISTRY.values(), ids=solvers.REGISTRY)
def test_a_solver_says_its_order_cost_names_limits_and_source(cls):
    text = cls.__doc__
    said = re.findall(r"\n    - ([a-z ]+): ", text)
    assert said == ["order", "cost", "also known as", "not for", "source"]
    assert f"- cost: {'two evaluations' if cls.evaluations == 2 else 'one evaluation'} a step" in text
    assert ("Parameters\n" in text) == bool(inspect.signature(cls).parameters)
    assert "Examples\n" in text


# Options that several solvers have: one name, one order and one default in all. RES as published has no such last step.
SHARED = ("order", "prediction", "lower_order_final", "corrected", "euler_last")
HIGHEST = {"dpmpp_2m": 2, "res_2m": 2, "dpmpp_3m": 3, "res_3m": 3, "unipc": 3}


@pytest.mark.parametrize(("name", "cls"), solvers.REGISTRY.items())
def test_options_have_one_name_one_order_and_one_default(name, cls):
    defaults = {key: option.default for key, option in inspect.signature(cls).parameters.items()}
    shared = [key for key in defaults if key in SHARED]
    assert shared == sorted(shared, key=SHARED.index)
    leading = [key for key in SHARED[:3] if key in defaults]
    assert list(defaults)[: len(leading)] == leading
    expected = {
        **{"order": HIGHEST.get(name, 4), "prediction": "x0", "lower_order_final": name not in ("res_2m", "res_3m")},
        **{"corrected": False, "euler_last": False},
    }
    assert {key: defaults[key] for key in shared} == {key: expected[key] for key in shared}
    assert ("euler_last" in shared) == (cls.evaluations == 2)
    with_log = name in ("dpmpp_2m", "dpmpp_3m", "res_2m", "res_3m", "unipc")
    assert {"prediction", "lower_order_final"} <= set(shared) if with_log else "prediction" not in shared


# --- points, histories, options ---------------------------------------------------------------------------------


def counted(D, calls):
    def evaluate(x, sigma):
        calls.append(sigma)
        return D(x, sigma)

    return evaluate


def test_a_point_evaluates_once_and_only_when_asked():
    calls = []
    point = solvers.Point(START, 1.5, counted(MIXTURE, calls), (2.0, 1.5, 1.0, 0.5), 1)
    assert calls == []
    assert point.steps_left == 2
    denoised, direction = point.denoised, point.direction
    assert point.denoised is denoised
    assert point.direction is direction
    assert calls == [1.5]
    torch.testing.assert_close(direction, (START - MIXTURE(START, 1.5)) / 1.5)
    given = solvers.Point(START, 1.5, counted(MIXTURE, calls), direction=direction)
    torch.testing.assert_close(given.denoised, denoised)
    assert given.direction is direction
    assert calls == [1.5]


EVALUATIONS = {"heun": 2, "dpm2": 2, "edm_stochastic": 2}
MEMORY = [
    *((name, {}, 0) for name in ("euler", "heun", "dpm2", "edm_stochastic")),
    *((name, {"order": k}, k - 1) for name in ("ipndm", "ipndm_v", "lms", "deis") for k in (1, 2, 3, 4)),
    *((name, {"order": k, **FULL}, k - 1) for name in ("dpmpp_3m", "res_3m") for k in (1, 2, 3)),
    *((name, {"order": k, **FULL}, k - 1) for name in ("dpmpp_2m", "res_2m") for k in (1, 2)),
    *(("unipc", {"order": k, **FULL}, k) for k in (1, 2, 3)),
]


@pytest.mark.parametrize(("name", "options", "memory"), MEMORY)
def test_a_solver_reads_the_points_it_says_and_no_others(name, options, memory):
    solver = solvers.get(name, **options)
    assert solver.memory == memory
    levels, calls = tuple(uneven(8).tolist()), []
    points = [
        solvers.Point(MIXTURE(START, s) + s * START, s, counted(MIXTURE, calls), levels, i)
        for i, s in enumerate(levels[:6])
    ]

    def both(history):
        now = solvers.Point(points[-1].x, points[-1].sigma, points[-1].evaluate, levels, 5)
        corrected = solver.correct(now, history) if history else now.x
        return torch.stack([solver.step(now, levels[6], history), corrected])

    long = both(points[:-1])
    assert len(set(calls)) <= memory + EVALUATIONS.get(name, 1)
    if memory:
        torch.testing.assert_close(both(points[-1 - memory : -1]), long, rtol=0, atol=0)
        assert not torch.allclose(both(points[-memory:-1]), long, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("name", "memory"), [("dpmpp_3m", 2), ("unipc", 3), ("res_3m", 2)])
def test_the_order_falls_on_the_last_two_steps(name, memory):
    levels = tuple(uneven(6).tolist())
    points = [solvers.Point(MIXTURE(START, s) + s * START, s, MIXTURE, levels, i) for i, s in enumerate(levels[:6])]

    def step(i, order, lower):
        now = solvers.Point(points[i].x, levels[i], MIXTURE, levels, i)
        return solvers.get(name, order=order, lower_order_final=lower).step(now, levels[i + 1], points[:i])

    for i, order in ((3, 3), (4, 2), (5, 1)):
        assert torch.equal(step(i, 3, True), step(i, order, False))
        assert order == 3 or not torch.allclose(step(i, 3, True), step(i, 3, False), rtol=1e-6, atol=0)
    euler = levels[6] / levels[5] * points[5].x + (1 - levels[6] / levels[5]) * points[5].denoised
    torch.testing.assert_close(step(5, 3, True), euler)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_deis_is_exact_for_polynomials_in_the_time_of_its_process(order, zero):
    # sigma(t)^2 = exp(d t^2 / 2 + m t) - 1 with sigma(1e-3) and sigma(1) at the ends of the schedule.
    sigmas = schedules.polynomial(8, zero=zero)
    low = float(sigmas[-2] if zero else sigmas[-1])
    t = np.array([1e-3, 1.0])
    d, m = np.linalg.solve(np.stack([t**2 / 2, t], 1), np.log1p(np.array([low, 80.0]) ** 2))
    assert d > 0

    def direction(sigma):
        log = np.log1p(np.asarray(sigma) ** 2)
        time = 2 * log / (m + np.sqrt(m**2 + 2 * d * log))
        return (0.5 + time) ** (order - 1)

    def D(x, sigma, labels=None):
        return x - sigma * float(direction(sigma))

    path = sample(D, START, sigmas, solvers.get("deis", order=order))
    for i in range(order - 1, 7):
        step = integral(direction, float(sigmas[i]), float(sigmas[i + 1]))
        torch.testing.assert_close(path.x[i + 1] - path.x[i], torch.full_like(START, step), rtol=1e-7, atol=1e-9)
    if zero:  # an Euler step
        torch.testing.assert_close(path.final, path.denoised[-1])


@pytest.mark.parametrize(("low", "high"), [(0.002, 80.0), (0.2, 2.0), (0.01, 1.0), (0.5, 0.6)])
def test_weights_in_time_are_exact_for_polynomials_in_it_whatever_the_ends(low, high):
    t = np.array([1e-3, 1.0])
    d, m = np.linalg.solve(np.stack([t**2 / 2, t], 1), np.log1p(np.array([low, high]) ** 2))
    if min(m + d * 1e-3, m + d) <= 0:  # sigma would not rise throughout
        d, m = 19.9, 0.1

    def time(sigma):
        return (np.sqrt(m**2 + 2 * d * np.log1p(np.asarray(sigma) ** 2)) - m) / d

    levels = np.geomspace(high, low, 5)
    past, sigma_next = tuple(levels[:4][::-1].tolist()), float(levels[4])
    weights = solvers.multistep._integrate_in_time(past, sigma_next, low, high)
    for k in range(4):
        exact = integral(lambda s, k=k: time(s) ** k, past[0], sigma_next)
        assert sum(w * float(time(s)) ** k for w, s in zip(weights, past)) == pytest.approx(exact, rel=1e-6)


REFUSED = [
    ("dpmpp_2m", {"order": 3}, "order must be one of 1, 2, got 3"),
    ("res_2m", {"order": 3}, "order must be one of 1, 2, got 3"),
    ("res_3m", {"order": 4}, "order must be one of 1, 2, 3, got 4"),
    ("dpmpp_3m", {"order": 0}, "order must be one of 1, 2, 3, got 0"),
    ("dpmpp_2m", {"prediction": "v"}, "prediction must be one of 'x0', 'eps', got 'v'"),
    ("unipc", {"order": 4}, "order must be one of 1, 2, 3, got 4"),
    ("unipc", {"prediction": "v"}, "prediction must be one of"),
    ("ipndm", {"order": 0}, "order must be one of 1, 2, 3, 4, got 0"),
    ("ipndm", {"order": True}, "order must be one of 1, 2, 3, 4, got True"),
    ("deis", {"mode": "xab"}, "mode must be one of 'tab', 'rhoab', got 'xab'"),
    ("dpm2", {"r": 0.0}, "r must be a finite number > 0 and < 1, got 0.0"),
    ("dpm2", {"r": 1}, "r must be a finite number > 0 and < 1, got 1"),
    ("dpm2", {"r": "half"}, "r must be a finite number > 0 and < 1, got 'half'"),
    ("dpm2", {"r": math.nan}, "r must be a finite number > 0 and < 1, got nan"),
    ("edm_stochastic", {"churn": math.nan}, "churn must be a finite number >= 0, got nan"),
    ("edm_stochastic", {"churn": math.inf}, "churn must be a finite number >= 0, got inf"),
    ("edm_stochastic", {"sigma_low": -0.1}, "sigma_low must be a finite number >= 0, got -0.1"),
    ("edm_stochastic", {"noise_scale": -1.0}, "noise_scale must be a finite number >= 0, got -1.0"),
    ("edm_stochastic", {"sigma_high": 0.01}, "sigma_high must be a finite number >= 0.05, got 0.01"),
    ("edm_stochastic", {"sigma_high": math.nan}, "sigma_high must be a finite number"),
    ("heum", {}, "unknown solver 'heum'; did you mean 'heun'[?] Known: euler, heun"),
    ("HEUN", {}, "did you mean 'heun'"),
    ("zzzzzz", {}, r"unknown solver 'zzzzzz'\. Known"),
    ("euler", {"order": 2}, r"solver 'euler' does not take these options: \{'order': 2\}"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        solvers.get(name, **options)


def test_options_at_the_ends_of_their_range_are_taken():
    assert solvers.get("edm_stochastic", churn=0.0, sigma_low=0.0, sigma_high=0.0, noise_scale=0.0).sigma_low == 0
    assert solvers.get("edm_stochastic", sigma_high=math.inf).sigma_high == math.inf
    assert solvers.get("dpm2", r=1e-3).r == 1e-3
    assert repr(solvers.get("ipndm", order=3)) == "IPNDM(order=3)"
    assert repr(solvers.get("dpm2", r=0.25)) == "DPM2(r=0.25, euler_last=False)"
    assert repr(solvers.get("euler")) == "Euler()"


@pytest.mark.parametrize("abstract", [solvers.Solver, solvers.multistep._Multistep, solvers.exponential._Exponential])
def test_a_base_class_alone_is_no_solver(abstract):
    with pytest.raises(TypeError, match="abstract"):
        abstract()


def test_the_page_on_writing_a_solver_is_true(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parents[1] / "docs" / "WRITE_A_SOLVER.md").read_text()
    program = tmp_path / "page.py"
    program.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    monkeypatch.setattr(solvers, "REGISTRY", dict(solvers.REGISTRY))
    runpy.run_path(str(program))
    assert capsys.readouterr().out == "".join(re.findall(r"```text\n(.*?)```", page, re.DOTALL))


@pytest.mark.parametrize(("churn", "gamma"), [(0.3, 0.1), (1.2, 0.4), (9.0, math.sqrt(2) - 1)])
def test_churn_raises_sigma_by_its_share_a_step_and_no_more_than_root_two(churn, gamma):
    # D = 0 and x = 0: what is left of the noise tells by how much sigma was raised.
    sigmas, zero = [4.0, 2.0, 1.0, 0.5], torch.zeros(8, 2, dtype=F64)
    solver = solvers.get("edm_stochastic", churn=churn, sigma_low=1.0, sigma_high=2.0, noise_scale=1.0, seed=3)
    path = sample(lambda x, s, labels=None: 0 * x, zero, sigmas, solver)
    assert torch.equal(path.x[1], zero)  # above sigma_high
    expected = zero
    for i in (1, 2):  # at both ends of the range; without data a step only shrinks the noise
        high = (1 + gamma) * sigmas[i]
        added = math.sqrt(high**2 - sigmas[i] ** 2) * initial_noise(8, (2,), 1.0, seed=3, stream=1 + i)
        expected = (expected + added) * sigmas[i + 1] / high
        torch.testing.assert_close(path.x[i + 1], expected)


def test_the_noise_of_a_sample_depends_on_its_number_alone():
    def run(x, **options):
        return sample(MIXTURE, x, uneven(5), solvers.get("edm_stochastic", sigma_low=0.0, **options)).final

    whole = run(START)
    torch.testing.assert_close(run(START[3:], first=3), whole[3:])
    assert not torch.allclose(run(START[3:]), whole[3:])
    assert not torch.allclose(run(START, seed=1), whole)


@pytest.mark.parametrize("off", [0.0, 1e-15, -1e-12, 1e-9, -1e-6, 1e-3, 0.2])
def test_deis_goes_on_smoothly_where_its_process_has_a_constant_rate(off):
    # With log(1 + sigma_min^2) = time_min log(1 + sigma_max^2) the rate does not grow: d = 0, and t is that logarithm.
    low = math.sqrt(math.expm1(1e-3 * math.log1p(80.0**2)))
    D, x = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.01), initial_noise(4, (2,))
    grid = schedules.polynomial(8, low * (1 + off))
    assert sample(D, x, grid, "deis").final.isfinite().all()
    past, end = (10.0, 20.0, 40.0), 5.0
    constant = solvers.multistep._integrate_in_time(past, end, low, 80.0)
    got = solvers.multistep._integrate_in_time(past, end, low * (1 + off), 80.0)
    assert sum(constant) == pytest.approx(end - past[0], rel=1e-12)
    np.testing.assert_allclose(got, constant, rtol=3 * abs(off) + 1e-12)
    # By Simpson's rule, in t = log(1 + sigma^2) itself.
    s = np.linspace(past[0], end, 2001)
    t, nodes = np.log1p(s**2), np.log1p(np.square(past))
    for j, weight in enumerate(constant):
        a, b = (nodes[i] for i in range(3) if i != j)
        assert simpson((t - a) * (t - b) / ((nodes[j] - a) * (nodes[j] - b)), x=s) == pytest.approx(weight, rel=1e-9)


@pytest.mark.parametrize("name", sorted(solvers.REGISTRY))
@pytest.mark.parametrize("level", [80.0, 10.0, 1.0, 0.1])
def test_levels_that_are_neighbours_among_floating_point_numbers_end_in_numbers(name, level):
    D, below = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.01), math.nextafter(level, 0)
    for grid in ([80.1, level, below, level / 2], [level, below, math.nextafter(below, 0)], [level, below]):
        assert sample(D, initial_noise(4, (2,), grid[0]), grid, name).final.isfinite().all()

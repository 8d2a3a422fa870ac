"""Solvers: measured orders, exactness, and agreement with the methods' public implementations."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from teachkit import Gaussian, GaussianMixture, initial_noise, sample, schedules, solvers

F64 = torch.float64
ORACLES = Path(__file__).resolve().parents[1].parent / "shared" / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.is_dir(), reason="the folder of shared reference values is absent")

GAUSSIAN = Gaussian([0.5, -0.5], [[0.3, 0.1], [0.1, 0.1]])
MIXTURE = GaussianMixture(
    [0.3, 0.7], [[-0.6, 0.2], [0.5, -0.3]], [[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.3]]]
)
HIGH, LOW = 4.0, 0.05
START = initial_noise(16, (2,), HIGH, seed=7)
STEPS = (16, 32, 64, 128)

# name, options, order on a smooth grid, order on an uneven one
ORDERS = [
    ("euler", {}, 1, 1),
    ("heun", {}, 2, 2),
    ("dpm2", {}, 2, 2),
    ("dpm2", {"r": 0.7}, 2, 2),
    ("dpmpp_2m", {"lower_order_final": False}, 2, 2),
    ("dpmpp_2m", {"prediction": "eps", "lower_order_final": False}, 2, 2),
    ("dpmpp_3m", {"lower_order_final": False}, 2, 2),  # as published: a factor 2 is missing
    ("dpmpp_3m", {"lower_order_final": False, "corrected": True}, 3, 3),
    ("dpmpp_3m", {"prediction": "eps", "lower_order_final": False, "corrected": True}, 3, 3),
    ("ipndm_v", {"order": 2}, 2, 2),
    ("ipndm_v", {"order": 3}, 3, 3),
    ("ipndm_v", {"order": 4}, 4, 4),
    ("lms", {"order": 3}, 3, 3),
    ("ipndm", {"order": 4}, 2, 1),  # constant coefficients on grids that are not even in sigma
    ("deis", {"order": 2}, 2, 2),
    ("deis", {"order": 3}, 3, 3),
    ("unipc", {"order": 2, "lower_order_final": False}, 3, 3),
    ("res_2m", {}, 2, 2),
    ("res_3m", {}, 3, 3),
    ("edm_stochastic", {"churn": 0.0}, 2, 2),
]


def uneven(n):
    """A smooth grid whose steps are alternately longer and shorter by a third."""
    u = torch.arange(n + 1, dtype=F64)
    u[1:-1] += torch.where(torch.arange(1, n) % 2 == 0, 0.17, -0.17)
    rate = math.log(LOW / HIGH)
    sigmas = HIGH * torch.exp(rate * u / n)
    sigmas[-1] = LOW
    return sigmas


def smooth(n):
    return schedules.logsnr(n, LOW, HIGH)


def with_slow_start(sigmas):
    """Cut the first step into ten that double: a multistep method starts with an Euler step, whose error would show."""
    first, second = float(sigmas[0]), float(sigmas[1])
    extra = [first + (second - first) * 2.0**-k for k in range(10, 0, -1)]
    return torch.cat([sigmas[:1], torch.tensor(extra, dtype=F64), sigmas[1:]])


@pytest.fixture(scope="module")
def truth():
    def slope(sigma, flat):
        x = torch.tensor(flat).reshape(-1, 2)
        return ((x - MIXTURE(x, float(sigma))) / sigma).flatten().numpy()

    solved = solve_ivp(slope, (HIGH, LOW), START.flatten().numpy(), method="DOP853", rtol=1e-11, atol=1e-12)
    return torch.tensor(solved.y[:, -1]).reshape(-1, 2)


def measured_order(denoiser, exact, name, options, grid):
    errors = []
    for n in STEPS:
        sigmas = with_slow_start(grid(n))
        final = sample(denoiser, START, sigmas, solvers.get(name, **options), keep="final").final
        errors.append(float((final - exact).norm()))
    steps, logs = np.log(STEPS[1:]), np.log(errors[1:])
    return -np.polyfit(steps, logs, 1)[0], errors


@pytest.mark.parametrize(("name", "options", "even_order", "uneven_order"), ORDERS)
def test_order_on_a_mixture(truth, name, options, even_order, uneven_order):
    for grid, expected in ((smooth, even_order), (uneven, uneven_order)):
        order, errors = measured_order(MIXTURE, truth, name, options, grid)
        if name == "ipndm":
            # No nominal order to keep here: it must be at least 1 and clearly below its nominal 4.
            assert 0.7 < order < 2.6, errors
        else:
            assert order > expected - 0.25, (grid.__name__, order, errors)
        if name == "dpmpp_3m" and not options.get("corrected"):
            assert order < 2.5, "the published third-order step should reach order 2 only"


@pytest.mark.parametrize("order", [2, 3, 4])
def test_ipndm_has_its_order_on_a_grid_that_is_even_in_sigma(order):
    exact = GAUSSIAN.flow(START, HIGH, 2.0)
    errors = []
    for n in STEPS:
        # Start from exact history: the constant coefficients allow no slow start.
        sigmas = schedules.linear(n, 2.0, HIGH)
        points = [_exact_point(sigmas, i) for i in range(order - 1)]
        x, solver = GAUSSIAN.flow(START, HIGH, float(sigmas[order - 1])), solvers.get("ipndm", order=order)
        for i in range(order - 1, n):
            now = solvers.Point(x, float(sigmas[i]), GAUSSIAN)
            x = solver.step(now, float(sigmas[i + 1]), points)
            points.append(now)
        errors.append(float((x - exact).norm()))
    slope = -np.polyfit(np.log(STEPS), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.25, errors


def _exact_point(sigmas, i):
    return solvers.Point(GAUSSIAN.flow(START, HIGH, float(sigmas[i])), float(sigmas[i]), GAUSSIAN)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm2", "ipndm_v", "dpmpp_2m", "unipc", "deis"])
def test_converges_to_the_exact_flow_of_a_gaussian(name):
    exact = GAUSSIAN.flow(START, HIGH, LOW)
    final = sample(GAUSSIAN, START, schedules.polynomial(400, LOW, HIGH), name).final
    assert float((final - exact).abs().max()) < (0.02 if name == "euler" else 1e-4)


@pytest.mark.parametrize("name", [n for n in solvers.REGISTRY if n != "edm_stochastic"])
def test_exact_when_the_denoised_point_is_constant(name):
    target = torch.tensor([0.3, -0.8], dtype=F64)
    for zero in (False, True):
        sigmas = schedules.polynomial(7, zero=zero)
        path = sample(lambda x, s, labels=None: target.expand_as(x), 80 * START, sigmas, name)
        expected = target + sigmas[:, None, None] / 80 * (80 * START - target)
        torch.testing.assert_close(path.x, expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "options", "degree"),
    [("res_2m", {}, 1), ("res_3m", {}, 2), ("dpmpp_3m", {"corrected": True, "lower_order_final": False}, 2)],
)
def test_exponential_methods_are_exact_for_polynomials_in_log_sigma(name, options, degree):
    # D = (log sigma)^degree does not depend on x: x' = (s'/s) x + s' * integral of D / s^2 ds.
    def D(x, sigma, labels=None):
        return torch.full_like(x, math.log(sigma) ** degree)

    def primitive(s):  # of (log s)^degree / s^2
        log = math.log(s)
        return -(log + 1) / s if degree == 1 else -(log**2 + 2 * log + 2) / s

    sigmas = uneven(8)
    # Start with exact points so that the ramp-up does not count: compare the last step alone.
    path = sample(D, START, sigmas, solvers.get(name, **options))
    s, s_next = float(sigmas[-2]), float(sigmas[-1])
    exact = s_next / s * path.x[-2] + s_next * (primitive(s) - primitive(s_next))
    torch.testing.assert_close(path.x[-1], exact, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_variable_step_adams_bashforth_is_exact_for_polynomials_in_sigma(order):
    def D(x, sigma, labels=None):  # direction sigma^(order - 1)
        return x - sigma * torch.full_like(x, sigma ** (order - 1))

    sigmas = uneven(8)
    for name in ("ipndm_v", "lms"):
        path = sample(D, START, sigmas, solvers.get(name, order=order))
        step = (sigmas[-1] ** order - sigmas[-2] ** order) / order
        torch.testing.assert_close(path.x[-1] - path.x[-2], step.expand(16, 2), rtol=1e-9, atol=1e-12)
    weights = solvers.multistep._integrate_in_sigma(tuple(sigmas[-5:-1].flip(0).tolist()), float(sigmas[-1]))
    assert sum(weights) == pytest.approx(float(sigmas[-1] - sigmas[-2]), rel=1e-12)


@pytest.mark.parametrize("name", ["ipndm", "ipndm_v", "lms", "deis", "dpmpp_2m", "dpmpp_3m", "res_2m", "res_3m"])
def test_first_order_is_euler_in_every_multistep_family(name):
    sigmas = schedules.polynomial(6)
    euler = sample(MIXTURE, 80 * START, sigmas).final
    torch.testing.assert_close(sample(MIXTURE, 80 * START, sigmas, solvers.get(name, order=1)).final, euler)


def test_without_churn_the_stochastic_sampler_is_heun():
    sigmas = schedules.polynomial(9, zero=True)
    quiet = sample(MIXTURE, 80 * START, sigmas, solvers.get("edm_stochastic", churn=0.0)).final
    torch.testing.assert_close(quiet, sample(MIXTURE, 80 * START, sigmas, "heun").final)


def test_the_stochastic_sampler_samples_the_distribution():
    x = initial_noise(4000, (2,), 80.0, seed=1)
    solver = solvers.get("edm_stochastic", churn=20.0, noise_scale=1.0)
    final = sample(GAUSSIAN, x, schedules.polynomial(40), solver, keep="final").final
    torch.testing.assert_close(final.mean(0), GAUSSIAN.mean, atol=0.03, rtol=0)
    expected = GAUSSIAN.axes * GAUSSIAN.variances @ GAUSSIAN.axes.mT
    torch.testing.assert_close(torch.cov(final.T), expected, atol=0.02, rtol=0)
    assert not torch.equal(final, sample(GAUSSIAN, x, schedules.polynomial(40), "heun", keep="final").final)


@pytest.mark.parametrize("name", list(solvers.REGISTRY))
def test_any_grid_will_do(name):
    found = [80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002]  # published six-step list for CIFAR-10
    final = sample(MIXTURE, 20 * START, found, name).final
    exact = sample(MIXTURE, 20 * START, schedules.polynomial(300), "heun").final
    assert float((final - exact).norm(dim=1).median()) < 2.0


def test_euler_last_step_of_heun():
    sigmas = schedules.polynomial(3)
    path = sample(MIXTURE, 20 * START, sigmas, solvers.get("heun", euler_last=True))
    assert path.nfe == 5
    ratio = float(sigmas[-1] / sigmas[-2])
    torch.testing.assert_close(path.final, path.denoised[-1] + ratio * (path.x[-2] - path.denoised[-1]))


# --- the methods' public implementations ------------------------------------------------------------------------


def problems():
    spec = importlib.util.spec_from_file_location("problems", ORACLES / "problems.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference_denoiser(name):
    network = problems().make(name)
    return lambda x, sigma, labels=None: network(x, torch.tensor(sigma, dtype=F64))


def from_row(row):
    """Our solver for a row of the reference table, or None where the reference itself is at fault."""
    args, name = row["args"], {"dpm_2": "dpm2", "dpm_pp": "dpmpp_3m"}.get(row["solver"], row["solver"])
    if "error" in row or (name == "ipndm_v" and args["max_order"] > 2) or args.get("deis_mode") == "rhoab":
        return None
    options = {"order": args["max_order"]} if "max_order" in args else {}
    if name in ("dpmpp_3m", "unipc"):
        options |= {
            "prediction": "x0" if args["predict_x0"] else "eps", "lower_order_final": args["lower_order_final"]
        }  # fmt: skip
    return solvers.get(name, **options, **({"variant": args["variant"]} if name == "unipc" else {}))


def published_deis_weights(past, sigma_next, sigma_min, sigma_max, time_min=1e-3):
    """The public code's integrals: a mean over 10,000 points of time, up to 1e-3 off in the end result."""
    log_min, log_max = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    beta_d = 2 * (log_min / time_min - log_max) / (time_min - 1)
    beta_min = log_max - beta_d / 2

    def time(s):
        return (np.sqrt(beta_min**2 + 2 * beta_d * np.log1p(np.asarray(s) ** 2)) - beta_min) / beta_d

    t = np.linspace(time(past[0]), time(sigma_next), 10_000)
    sigma = np.sqrt(np.expm1(beta_d * t**2 / 2 + beta_min * t))
    slope = (1 + sigma**2) * (beta_d * t + beta_min) / (2 * sigma) * (t[-1] - t[0])
    nodes = time(past)
    basis = [
        np.prod([(t - other) / (node - other) for other in np.delete(nodes, j)], axis=0) for j, node in enumerate(nodes)
    ]
    return [float(np.mean(slope * b)) for b in basis]


@needs_oracles
def test_agrees_with_the_public_implementations(monkeypatch):
    monkeypatch.setattr(solvers.multistep, "_integrate_in_time", published_deis_weights)
    rows = json.loads((ORACLES / "solvers" / "gmm_in_f64.json").read_text())
    stored = np.load(ORACLES / "solvers" / "gmm_in_f64.npz")
    latents, D, compared = torch.tensor(stored["latents"]), reference_denoiser("gmm_in"), 0
    for row in rows:
        solver = from_row(row)
        if solver is None:
            continue
        sigmas = torch.tensor(stored["t_flat"][row["t_start"] : row["t_start"] + row["t_len"]])
        path = sample(D, latents * sigmas[0], sigmas, solver, afs=row["afs"])
        tolerance = max(row["tol_f64"], 1e-12)
        np.testing.assert_allclose(path.final, stored["final"][row["row"]], atol=tolerance, rtol=0, err_msg=str(row))
        assert path.nfe == row["nfe_actual"]
        compared += 1
    assert compared > 900


@needs_oracles
@pytest.mark.parametrize(
    ("table", "name", "tolerance"),
    [("deis_rhoab_fixed_f64", "ipndm_v", 1e-12), ("deis_tab_exactquad_f64", "deis", 1e-10)],
)
def test_agrees_with_exact_coefficients(table, name, tolerance):
    stored = np.load(ORACLES / "solvers" / f"{table}.npz")
    for row in json.loads((ORACLES / "solvers" / f"{table}.json").read_text()):
        problem, order = row["problem"], row.get("args", row)["max_order"]
        if row["schedule"].startswith("custom"):
            sigmas = torch.tensor([80.0, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002], dtype=F64)
        elif row["schedule"] == "logsnr":
            sigmas = schedules.logsnr(row["num_steps"] - 1)
        else:
            sigmas = getattr(schedules, row["schedule"])(row["num_steps"] - 1, rho=float(row["rho"]))
        latents = torch.tensor(stored[f"{problem}_latents"])
        solver = solvers.get(name, order=order)
        path = sample(reference_denoiser(problem), latents * sigmas[0], sigmas, solver, afs=row.get("afs", False))
        np.testing.assert_allclose(path.final, stored[f"{problem}_final"][row["row"]], atol=tolerance, rtol=0)


@needs_oracles
def test_agrees_with_k_diffusion():
    stored = np.load(ORACLES / "solvers" / "kdiffusion_f64.npz")
    for row in json.loads((ORACLES / "solvers" / "kdiffusion_f64.json").read_text()):
        name, options, problem = row["solver"], {}, row["problem"]
        if name.startswith("lms"):
            name, options = "lms", {"order": int(name[3:])}
        elif name == "dpmpp_2m":
            options = {"lower_order_final": False}
        sigmas = torch.tensor(row["sigmas"], dtype=F64)
        latents = torch.tensor(stored[f"{problem}_latents"])
        solver = solvers.get({"dpm_2": "dpm2"}.get(name, name), **options)
        path = sample(reference_denoiser(problem), latents * sigmas[0], sigmas, solver, keep="final")
        np.testing.assert_allclose(path.final, stored[f"{problem}_final"][row["row"]], atol=2e-12, rtol=0)
        assert path.nfe == row["nfe_actual"]

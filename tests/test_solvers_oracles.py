"""Solvers against numbers made by the methods' public implementations, where the folder of reference values is."""

import importlib.util
import json
import math

import numpy as np
import pytest
import torch

from teachkit import sample, schedules, solvers

F64 = torch.float64
# Published six-step list for CIFAR-10 (arXiv 2405.11326).
FOUND = torch.tensor([80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002], dtype=F64)


@pytest.fixture(scope="module")
def make_denoiser(oracles):
    """name -> the closed-form denoiser the numbers were made with."""
    spec = importlib.util.spec_from_file_location("problems", oracles / "problems.py")
    problems = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(problems)

    def make(name):
        network = problems.make(name)
        return lambda x, sigma, labels=None: network(x, torch.tensor(sigma, dtype=F64))

    return make


def table(oracles, name):
    """Rows and arrays of one reference table."""
    folder = oracles / "solvers"
    return json.loads((folder / f"{name}.json").read_text()), np.load(folder / f"{name}.npz")


def ours(row):
    """Our solver for a row of the reference table, or None where the reference itself is at fault."""
    args, name = row["args"], {"dpm_2": "dpm2", "dpm_pp": "dpmpp_3m"}.get(row["solver"], row["solver"])
    mistaken = name == "ipndm_v" and args["max_order"] > 2  # their weights do not sum to 1
    if "error" in row or mistaken or args.get("deis_mode") == "rhoab":
        return None
    options = {"order": args["max_order"]} if "max_order" in args else {}
    if name in ("dpmpp_3m", "unipc"):
        options["prediction"] = "x0" if args["predict_x0"] else "eps"
        options["lower_order_final"] = args["lower_order_final"]
    if name == "unipc":
        options["variant"] = args["variant"]
    return solvers.get(name, **options)


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


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "dpm_pp", "ipndm", "ipndm_v", "deis", "unipc"])
def test_finals_paths_and_counts(oracles, make_denoiser, monkeypatch, name):
    monkeypatch.setattr(solvers.multistep, "_integrate_in_time", published_deis_weights)
    rows, stored = table(oracles, "gmm_in_f64")
    latents, D, compared = torch.tensor(stored["latents"]), make_denoiser("gmm_in"), 0
    for row in rows:
        solver = ours(row) if row["solver"] == name else None
        if solver is None:
            continue
        sigmas = torch.tensor(stored["t_flat"][row["t_start"] : row["t_start"] + row["t_len"]])
        path = sample(D, latents * sigmas[0], sigmas, solver, afs=row["afs"])
        atol = max(row["tol_f64"], 1e-12)
        np.testing.assert_allclose(path.final, stored["final"][row["row"]], atol=atol, rtol=0, err_msg=str(row))
        expected = stored["traj_flat"][row["traj_start"] : row["traj_start"] + row["t_len"]]
        if name != "unipc":  # theirs are the corrected states, ours those at which the denoiser was evaluated
            np.testing.assert_allclose(path.x, expected, atol=100 * atol, rtol=0, err_msg=str(row))
        assert path.nfe == row["nfe_actual"]
        compared += 1
    assert compared >= 12


@pytest.mark.parametrize(
    ("name", "solver", "tolerance"),
    [("deis_rhoab_fixed_f64", "ipndm_v", 1e-12), ("deis_tab_exactquad_f64", "deis", 1e-10)],
)
def test_exact_coefficients(oracles, make_denoiser, name, solver, tolerance):
    rows, stored = table(oracles, name)
    for row in rows:
        problem, order, n = row["problem"], row.get("args", row)["max_order"], row["num_steps"] - 1
        if row["schedule"].startswith("custom"):
            sigmas = FOUND
        elif row["schedule"] == "logsnr":
            sigmas = schedules.logsnr(n)
        else:
            sigmas = getattr(schedules, row["schedule"])(n, rho=float(row["rho"]))
        x = torch.tensor(stored[f"{problem}_latents"]) * sigmas[0]
        rule = solvers.get(solver, order=order)
        path = sample(make_denoiser(problem), x, sigmas, rule, afs=row.get("afs", False), keep="final")
        np.testing.assert_allclose(path.final, stored[f"{problem}_final"][row["row"]], atol=tolerance, rtol=0)


def test_the_exact_path_of_the_mixture(oracles, make_denoiser):
    stored = np.load(oracles / "solvers" / "gmm_in_truth.npz")
    sigmas = torch.tensor(stored["t"])
    fine = schedules.interpolate(sigmas, 10 * (len(sigmas) - 1))
    x = torch.tensor(stored["latents"]) * sigmas[0]
    path = sample(make_denoiser("gmm_in"), x, fine, solvers.get("unipc", lower_order_final=False))
    np.testing.assert_allclose(path.x[::10], stored["traj"], atol=1e-5, rtol=0)


def test_k_diffusion(oracles, make_denoiser):
    rows, stored = table(oracles, "kdiffusion_f64")
    for row in rows:
        name, options, problem = row["solver"], {}, row["problem"]
        if name.startswith("lms"):
            name, options = "lms", {"order": int(name[3:])}
        elif name == "dpmpp_2m":
            options = {"lower_order_final": False}
        sigmas = torch.tensor(row["sigmas"], dtype=F64)
        x = torch.tensor(stored[f"{problem}_latents"]) * sigmas[0]
        solver = solvers.get({"dpm_2": "dpm2"}.get(name, name), **options)
        path = sample(make_denoiser(problem), x, sigmas, solver, keep="final")
        np.testing.assert_allclose(path.final, stored[f"{problem}_final"][row["row"]], atol=2e-12, rtol=0)
        assert path.nfe == row["nfe_actual"]

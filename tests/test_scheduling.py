"""Costs, the dynamic programme, found schedules and fitted solvers."""

import importlib.util
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachkit import (
    Gaussian,
    GaussianMixture,
    data,
    edm,
    geometry,
    initial_noise,
    sample,
    schedules,
    scheduling,
    solvers,
)
from teachkit.scheduling import FittedMultistep, Schedule

F64 = torch.float64
ORACLES = Path(__file__).resolve().parents[1].parent / "shared" / "oracles"
needs_oracles = pytest.mark.skipif(not ORACLES.is_dir(), reason="the folder of shared reference values is absent")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mixture(d=12, k=5):
    weights = torch.full((k,), 1 / k, dtype=F64)
    return GaussianMixture(weights, normal(k, d), torch.full((k,), 0.02, dtype=F64))


@pytest.fixture(scope="module")
def teacher():
    return sample(mixture(), initial_noise(8, (12,)), schedules.polynomial(20), "ipndm")


def direct_costs(teacher, metric):
    """The definition, jump by jump."""
    n, s = len(teacher.sigmas) - 1, teacher.sigmas
    out = torch.zeros(n + 1, n + 1, dtype=F64)
    own = geometry.deviation(teacher)
    chord = teacher.x[-1] - teacher.x[0]
    unit = chord / chord.norm(dim=1, keepdim=True)
    for i in range(n):
        slope = (teacher.x[i] - teacher.denoised[i]) / s[i]
        for j in range(i + 1, n + 1):
            y = teacher.x[i] + (s[j] - s[i]) * slope
            if metric == "deviation":
                offset = y - teacher.x[0]
                off = offset - (offset * unit).sum(1, keepdim=True) * unit
                out[i, j] = (off.norm(dim=1) - own[j]).mean()
            else:
                out[i, j] = torch.linalg.vector_norm(y - teacher.x[j], ord=int(metric[1]), dim=1).mean()
    return out


@pytest.mark.parametrize("metric", scheduling.METRICS)
def test_costs_equal_their_definition(teacher, metric):
    cost = scheduling.cost_matrix(teacher, metric)
    torch.testing.assert_close(cost, direct_costs(teacher, metric), rtol=1e-9, atol=1e-10)
    if metric != "deviation":
        assert float(cost[0, 1]) < 1e-10  # the teacher's own first step is an Euler step


def test_costs_of_a_straight_path_vanish():
    paths = sample(Gaussian(torch.zeros(6, dtype=F64), 1e-12), initial_noise(3, (6,)), schedules.polynomial(15))
    assert float(scheduling.cost_matrix(paths, "deviation").abs().max()) < 1e-10
    assert float(scheduling.cost_matrix(paths, "l2").abs().max()) < 1e-9


def brute_force(cost, steps, coefficient):
    n = len(cost) - 1
    paths = [(0, *inner, n) for inner in itertools.combinations(range(1, n), steps - 1)]
    values = [scheduling.path_cost(cost, torch.tensor(p), coefficient) for p in paths]
    return min(values), paths[int(np.argmin(values))]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 8),
    seed=st.integers(0, 10**6),
    coefficient=st.floats(0.5, 1.5),
    signed=st.booleans(),
    data=st.data(),
)
def test_the_programme_is_optimal(n, seed, coefficient, signed, data):
    steps = data.draw(st.integers(1, n))
    cost = normal(n + 1, n + 1, seed=seed)
    cost = cost if signed else cost.abs()
    path = scheduling.shortest_path(cost, steps, coefficient)
    value, expected = brute_force(cost, steps, coefficient)
    assert path.tolist() == list(expected)
    assert scheduling.path_cost(cost, path, coefficient) == pytest.approx(value)


def test_one_table_serves_all_step_counts_and_ties_go_to_the_smallest_index():
    cost = normal(12, 12).abs()
    table = scheduling.shortest_paths(cost, 11, 1.1)
    for steps, path in enumerate(table, start=1):
        assert path.tolist() == scheduling.shortest_path(cost, steps, 1.1).tolist()
    assert scheduling.shortest_path(torch.ones(6, 6), 3).tolist() == [0, 1, 2, 5]


@needs_oracles
def test_costs_and_paths_equal_the_published_ones():
    folder = ORACLES / "scheduling"
    spec = importlib.util.spec_from_file_location("problems", ORACLES / "problems.py")
    problems = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(problems)
    network = problems.make("gmm_in")

    def D(x, sigma, labels=None):
        return network(x, torch.tensor(sigma, dtype=torch.float64))

    stored = np.load(folder / "cost_matrices.npz")
    latents = torch.tensor(stored["gmm_in/latents"])
    for row in json.loads((folder / "gits_dp.json").read_text()):
        paths = sample(D, latents * 80, schedules.polynomial(60), row["teacher"])
        cost = scheduling.cost_matrix(paths, {"dev": "deviation"}.get(row["metric"], row["metric"]))
        np.testing.assert_allclose(cost, np.triu(stored[row["cost_key"]], 1), atol=1e-10)
        for key, expected in row["dp"].items():
            points, coefficient = key.split("/")
            assert scheduling.shortest_path(cost, int(points) - 1, float(coefficient)).tolist() == expected
    matrices = np.load(folder / "dp_random_matrices.npz")
    for row in json.loads((folder / "dp_random.json").read_text()):
        cost, steps = torch.tensor(matrices[row["matrix"]]), row["num_steps"] - 1
        if steps > len(cost) - 1:
            with pytest.raises(ValueError, match="steps must be an integer"):
                scheduling.shortest_path(cost, steps, row["coeff"])
        elif row.get("brute_best") is not None:
            path = scheduling.shortest_path(cost, steps, row["coeff"])
            assert scheduling.path_cost(cost, path, row["coeff"]) == pytest.approx(row["brute_best"], abs=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: scheduling.shortest_path(torch.ones(3, 4), 2), ValueError, r"square matrix.*got shape \(3, 4\)"),
        (lambda: scheduling.shortest_path(torch.full((4, 4), math.nan), 2), ValueError, "NaN or infinity"),
        (lambda: scheduling.shortest_path(torch.ones(4, 4), 4), ValueError, "steps must be an integer from 1 to 3"),
        (lambda: scheduling.shortest_path(torch.ones(4, 4), 2, 0.0), ValueError, "coefficient must be"),
        (lambda: scheduling.shortest_path("cost", 2), TypeError, "cost must be a square matrix"),
        (lambda: scheduling.cost_matrix(3), TypeError, "teacher must be a Trajectory"),
        (lambda: scheduling.find_schedule(mixture(), initial_noise(8, (12,)), 1), ValueError, "nfe must be"),
        (lambda: scheduling.find_schedule(mixture(), initial_noise(3, (12,)), 4), ValueError, "at least 8 warm-up"),
        (
            lambda: scheduling.find_schedule(mixture(), initial_noise(8, (12,)), 4, "edm_stochastic"),
            ValueError,
            "deterministic",
        ),
        (lambda: scheduling.fit_solver(mixture(), initial_noise(8, (12,)), [80.0, 0.0]), ValueError, "end above 0"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_unknown_metric_is_named(teacher):
    with pytest.raises(ValueError, match="metric must be one of 'deviation', 'l1', 'l2', got 'l3'"):
        scheduling.cost_matrix(teacher, "l3")


def held_out_error(D, sigmas, solver, seed=99):
    x = initial_noise(512, (12,), seed=seed)
    exact = sample(D, x, schedules.polynomial(150), "heun", keep="final").final
    final = sample(D, x, sigmas, solver, keep="final").final
    return float((final - exact).pow(2).mean(1).sqrt().mean())


@pytest.mark.parametrize(("solver", "nfe"), [("ipndm", 6), ("dpmpp_2m", 5), ("heun", 7), ("dpm2", 8)])
def test_a_found_schedule_beats_the_usual_ones_on_new_noise_within_its_budget(solver, nfe):
    # Few samples end at another component and decide the mean: it takes some hundreds to judge by.
    D, warm_up = mixture(), initial_noise(384, (12,), seed=0)
    found = scheduling.find_schedule(D, warm_up, nfe, solver)
    assert found.sigmas[[0, -1]].tolist() == [80.0, 0.002]
    assert found.provenance["evaluations"] <= 3 * found.provenance["teacher_evaluations"]
    assert sample(D, warm_up[:2], found.sigmas, found.make_solver()).nfe == found.nfe <= nfe
    steps = len(found.sigmas) - 1
    usual = [
        held_out_error(D, make(steps), found.make_solver())
        for make in (schedules.polynomial, schedules.logsnr, schedules.time_uniform, schedules.cosine)
    ]
    assert held_out_error(D, found.sigmas, found.make_solver()) < 1.02 * min(usual)
    again = scheduling.find_schedule(D, warm_up, nfe, solver)
    assert torch.equal(again.sigmas, found.sigmas)


@pytest.mark.parametrize(("samples", "budget"), [(8, 1.01), (8, 3.0), (32, 1.5), (33, 3.0)])
def test_few_samples_or_a_small_budget_still_give_a_schedule(samples, budget):
    D, warm_up = mixture(), initial_noise(samples, (12,), seed=0)
    found = scheduling.find_schedule(D, warm_up, 10, "dpmpp_2m", budget=budget)
    assert len(found.sigmas) == 11
    assert math.isfinite(found.error)
    _, schedule = scheduling.fit_solver(D, warm_up, 10, budget=budget)
    assert math.isfinite(schedule.error)
    assert schedule.nfe == 10


def test_a_fitted_solver_beats_the_classical_ones_on_new_noise():
    D, warm_up = mixture(), initial_noise(96, (12,), seed=0)
    sigmas = scheduling.find_schedule(D, warm_up, 6, "ipndm").sigmas
    solver, schedule = scheduling.fit_solver(D, warm_up, sigmas)
    classical = min(held_out_error(D, sigmas, name) for name in ("euler", "ipndm", "dpmpp_2m", "unipc"))
    assert held_out_error(D, sigmas, solver) < 0.7 * classical
    assert schedule.nfe == 6
    assert schedule.solver == "fitted"
    with pytest.raises(ValueError, match="was fitted for 6 steps, got 4"):
        sample(D, warm_up, schedules.polynomial(4), solver)


def test_fitting_recovers_exact_steps_where_they_exist():
    # For one isotropic Gaussian the direction never turns: some multiple of it is the exact step.
    D = Gaussian(torch.zeros(6, dtype=F64), 0.3)
    sigmas = schedules.polynomial(4)
    solver, schedule = scheduling.fit_solver(D, initial_noise(24, (6,)), sigmas, order=1, grid=400)
    x = initial_noise(16, (6,), seed=5)
    torch.testing.assert_close(sample(D, x, sigmas, solver).final, D.flow(x, 80.0, 0.002), rtol=1e-3, atol=1e-4)
    assert schedule.error < 1e-3


def test_schedules_survive_being_saved(tmp_path):
    found = Schedule(schedules.polynomial(3), "ipndm", 3, {"order": 2}, 0.5, {"method": "by hand"})
    found.save(tmp_path / "s.json")
    loaded = Schedule.load(tmp_path / "s.json")
    assert torch.equal(loaded.sigmas, found.sigmas)
    assert (loaded.solver, loaded.nfe, loaded.options, loaded.error) == ("ipndm", 3, {"order": 2}, 0.5)
    fitted = Schedule(schedules.polynomial(2), "fitted", 2, {"weights": [[-70.0], [-9.0, -0.5]]})
    fitted.save(tmp_path / "f.json")
    assert Schedule.load(tmp_path / "f.json").make_solver().weights == [[-70.0], [-9.0, -0.5]]
    assert math.isnan(Schedule.load(tmp_path / "f.json").error)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.json", "s.json"]


def test_damaged_schedule_files_are_refused(tmp_path):
    path = tmp_path / "s.json"
    Schedule(schedules.polynomial(3), "euler", 3).save(path)
    whole = json.loads(path.read_text())
    for change, message in (
        ({"sigmas": [1.0, 2.0]}, "strictly decreasing"),
        ({"solver": "magic"}, "solver must be"),
        ({"nfe": 0}, "nfe must be"),
        ({"options": {"order": 3}}, "does not take these options"),
        ({"format": "other"}, "not a schedule file"),
        ({"extra": 1}, "must hold"),
    ):
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(ValueError, match=message):
            Schedule.load(path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match="not a schedule file"):
        Schedule.load(path)
    with pytest.raises(ValueError, match="weights are for 1 steps, but the schedule has 2"):
        Schedule(schedules.polynomial(2), "fitted", 2, {"weights": [[-70.0]]})
    with pytest.raises(ValueError, match="weights must hold"):
        FittedMultistep([[1.0, 2.0]])


def test_schedules_for_other_software():
    found = Schedule([80.0, 10.0, 0.5, 0.002], "euler", 3)
    assert found.to_comfyui() == "80, 10, 0.5, 0.002, 0"
    assert found.to_diffusers() == {"sigmas": [80.0, 10.0, 0.5, 0.002]}
    alphabar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64)).cumprod(0)
    times = Schedule(schedules.ddpm(4), "euler", 4).to_diffusers(alphabar)["timesteps"]
    assert times == [999, 749, 500, 250]
    flow = Schedule([3.0, 1.0, 0.25, 0.0], "euler", 3).to_diffusers(flow=True)["sigmas"]
    assert flow == pytest.approx([0.75, 0.5, 0.2])
    with pytest.raises(ValueError, match="two levels fall on one timestep"):
        Schedule([1.0, 0.999, 0.5], "euler", 2).to_diffusers(alphabar)
    assert solvers.get("heun", euler_last=True).euler_last


def test_every_schedule_that_ships_loads_and_one_does_what_it_says():
    paths = sorted((data.directory() / "schedules").glob("*.json"))
    assert paths
    for path in paths:
        found = scheduling.Schedule.load(path)
        _, _, solver, nfe = path.stem.split("-")
        assert found.solver == solver
        assert int(nfe) - 1 <= found.nfe <= int(nfe)
    D = edm.load("edm-digits8", dtype=F64)
    shipped = scheduling.Schedule.shipped("edm-digits8", "fitted", 6)
    x = initial_noise(48, (1, 8, 8), seed=5)
    exact = sample(D, x, schedules.polynomial(60), "unipc", keep="final").final
    final = sample(D, x, shipped.sigmas, shipped.make_solver(), keep="final").final
    usual = sample(D, x, schedules.cosine(6), "unipc", keep="final").final
    error, worse = ((f - exact).flatten(1).pow(2).mean(1).sqrt().mean() for f in (final, usual))
    assert error < 1.3 * shipped.error
    assert error < 0.6 * worse
    with pytest.raises(FileNotFoundError, match=r"for edm-digits8: .*fitted-6"):
        scheduling.Schedule.shipped("edm-digits8", "fitted", 7)

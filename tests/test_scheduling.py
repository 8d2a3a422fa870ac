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
    Empirical,
    Gaussian,
    GaussianMixture,
    Trajectory,
    adapters,
    data,
    edm,
    geometry,
    initial_noise,
    regularity,
    sample,
    schedules,
    scheduling,
    solvers,
)
from teachkit.fingerprints import fingerprint
from teachkit.scheduling import FittedMultistep, Schedule, fit, fitted, meter, refine, search, warm_up

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


JUMPS = ("deviation", "l1", "l2")  # the metrics of an Euler jump


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


@pytest.mark.parametrize("metric", JUMPS)
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
        (lambda: scheduling.shortest_path("cost", 2), TypeError, "cost must be a tensor or nested lists"),
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
    with pytest.raises(ValueError, match="metric must be one of 'deviation', 'l1', 'l2', 'kl_bound', 'elbo', got 'l3'"):
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
    schedule = scheduling.fit_solver(D, warm_up, 10, budget=budget)
    assert math.isfinite(schedule.error)
    assert schedule.nfe == 10


def test_a_fitted_solver_beats_the_classical_ones_on_new_noise():
    D, warm_up, sigmas = mixture(), initial_noise(96, (12,), seed=0), schedules.cosine(6)
    schedule = scheduling.fit_solver(D, warm_up, sigmas)
    solver = schedule.make_solver()
    classical = min(held_out_error(D, sigmas, name) for name in ("euler", "ipndm", "dpmpp_2m", "unipc"))
    assert held_out_error(D, sigmas, solver) < 0.2 * classical
    assert schedule.nfe == 6
    assert schedule.solver == "fitted"
    with pytest.raises(ValueError, match="was fitted for 6 steps, got 4"):
        sample(D, warm_up, schedules.polynomial(4), solver)


def test_fitting_recovers_exact_steps_where_they_exist():
    # For one isotropic Gaussian the direction never turns: some multiple of it is the exact step.
    D = Gaussian(torch.zeros(6, dtype=F64), 0.3)
    sigmas = schedules.polynomial(4)
    schedule = scheduling.fit_solver(D, initial_noise(24, (6,)), sigmas, order=1, grid=400)
    solver = schedule.make_solver()
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


def test_a_loaded_schedule_equals_the_saved_one(tmp_path):
    found = Schedule(schedules.polynomial(2), "fitted", np.int64(2), {"weights": [[-70.0], [-9.0, -0.5]]})
    found.save(tmp_path / "s.json")
    loaded = Schedule.load(tmp_path / "s.json")
    assert loaded == found
    assert len({loaded, found}) == 1
    other = Schedule(schedules.polynomial(2), "fitted", 2, {"weights": [[-70.0], [-9.0, -0.4]]})
    assert found != other
    assert found != "s.json"


def test_a_schedule_keeps_its_options_when_the_caller_s_change():
    weights, options = [[-70.0], [-9.0, -0.5]], {"order": 3}
    fitted_, other = (
        Schedule(schedules.polynomial(2), "fitted", 2, {"weights": weights}),
        Schedule(schedules.polynomial(3), "ipndm", 3, options),
    )
    weights[1][0], options["order"] = 0.0, 9
    assert fitted_.make_solver().weights == [[-70.0], [-9.0, -0.5]]
    assert other.make_solver().order == 3


def test_a_save_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        Schedule(schedules.polynomial(3), "euler", 3).save(tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_damaged_schedule_files_are_refused(tmp_path):
    path = tmp_path / "s.json"
    Schedule(schedules.polynomial(3), "euler", 3).save(path)
    whole = json.loads(path.read_text())
    for change, message in (
        ({"sigmas": [1.0, 2.0]}, "strictly decreasing"),
        ({"solver": "magic"}, "solver must be"),
        ({"nfe": 0}, "nfe must be"),
        ({"nfe": 4}, "nfe must be 3 for sigmas of 3 steps with euler, got 4"),
        ({"nfe": 4, "solver": "heun"}, "nfe must be 5 or 6 for sigmas of 3 steps with heun, got 4"),
        ({"error": -0.1}, "error must be a finite number >= 0, got -0.1"),
        ({"error": 10**400}, "error must be"),
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
    for sigmas in ([80.0, 10.0, 0.5, 0.002], [3.0, 1.0, 0.0], [3.0, 1.0]):
        levels = Schedule(sigmas, "euler", len(sigmas) - 1).to_comfyui().split(", ")
        assert [float(level) for level in levels] == sigmas  # one more is one more evaluation
    assert found.to_diffusers() == {"sigmas": [80.0, 10.0, 0.5, 0.002]}
    alphabar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64)).cumprod(0)
    times = Schedule(schedules.ddpm(4), "euler", 4).to_diffusers(alphabar)["timesteps"]
    assert times == [999, 749, 500, 250]
    flow = Schedule([3.0, 1.0, 0.25, 0.0], "euler", 3).to_diffusers(flow=True)["sigmas"]
    assert flow == pytest.approx([0.75, 0.5, 0.2])
    for both in ({"flow": True}, {"scheduler": FakeIPNDM()}):
        with pytest.raises(ValueError, match="exclude each other"):
            found.to_diffusers(alphabar, **both)
    with pytest.raises(ValueError, match="mu must come with the scheduler"):
        found.to_diffusers(mu=1.0)
    with pytest.raises(ValueError, match="two levels fall on one timestep"):
        Schedule([1.0, 0.999, 0.5], "euler", 2).to_diffusers(alphabar)
    assert solvers.get("heun", euler_last=True).euler_last


def test_fitted_weights_are_not_lost_on_the_way_to_other_software():
    fitted_ = Schedule(schedules.polynomial(2), "fitted", 2, {"weights": [[-70.0], [-9.0, -0.5]]})
    alphabar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64)).cumprod(0)
    for export in (
        fitted_.to_comfyui,
        fitted_.to_diffusers,
        lambda: fitted_.to_diffusers(flow=True),
        lambda: fitted_.to_diffusers(alphabar),
        lambda: scheduling.drive(FakeIPNDM(), fitted_),
    ):
        with pytest.raises(ValueError, match="fitted weights"):
            export()


def test_a_fitted_solver_knows_its_levels():
    D, x, sigmas = mixture(), initial_noise(24, (12,)), schedules.cosine(4)
    schedule = scheduling.fit_solver(D, x, sigmas, grid=20, refine=False)
    solver = schedule.make_solver()
    calls = []

    def counted(y, sigma):
        calls.append(sigma)
        return D(y, sigma)

    for each in (solver, schedule.make_solver(), FittedMultistep(solver.weights, sigmas.tolist())):
        final = sample(D, x, sigmas, each).final
        assert torch.equal(final, sample(D, x, sigmas, solver).final)
        sample(D, x, sigmas.float(), each)  # the same levels, rounded
        with pytest.raises(ValueError, match=r"weights are for the levels 80, .*, 0\.002, but the schedule has 80, 17"):
            sample(counted, x, schedules.polynomial(4), each)
        assert not calls
        with pytest.raises(ValueError, match="weights are for the levels"):
            each.check(schedules.polynomial(4))
    with pytest.raises(ValueError, match="weights are for 4 steps, but the schedule has 3"):
        FittedMultistep(solver.weights, schedules.cosine(3))


@pytest.mark.slow
def test_every_schedule_that_ships_loads_and_one_does_what_it_says():
    paths = sorted((data.directory() / "schedules").glob("*.json"))
    assert paths
    for path in paths:
        found = scheduling.Schedule.load(path)
        _, _, solver, nfe = path.stem.split("-")
        assert found.solver == solver
        assert int(nfe) - 1 <= found.nfe <= int(nfe)
    D = edm.load("edm-digits8")
    shipped = scheduling.Schedule.shipped("edm-digits8", "fitted", 6)
    x = initial_noise(256, (1, 8, 8), seed=5).float()  # a few paths that end elsewhere make a third of the mean
    exact = sample(D, x, schedules.polynomial(60), "unipc", keep="final").final
    final = sample(D, x, shipped.sigmas, shipped.make_solver(), keep="final").final
    usual = sample(D, x, schedules.cosine(6), "unipc", keep="final").final
    error, worse = ((f - exact).flatten(1).pow(2).mean(1).sqrt().mean() for f in (final, usual))
    assert error < 1.3 * shipped.error
    assert error < 0.6 * worse
    with pytest.raises(FileNotFoundError, match=r"for edm-digits8: .*fitted-6"):
        scheduling.Schedule.shipped("edm-digits8", "fitted", 7)


# --- states, weights and steps against closed forms -------------------------------------------------------------


def polynomial_paths(degree, steps=6):
    """A teacher whose states are polynomials in sigma, with their exact directions; and the function they follow."""
    sigmas, c = schedules.polynomial(steps, 0.1, 4.0), normal(degree + 1, 3, 2)

    def state(s):
        return sum(c[k] * s**k for k in range(degree + 1))

    def slope(s):
        return sum(k * c[k] * s ** (k - 1) for k in range(1, degree + 1))

    levels = sigmas.tolist()
    denoised = torch.stack([state(s) - s * slope(s) for s in levels[:-1]])
    return Trajectory(sigmas, torch.stack([state(s) for s in levels]), denoised, steps), state


@pytest.mark.parametrize(("degree", "exact_down_to"), [(3, 1), (2, 0)])
def test_states_between_levels_are_exact_for_cubics_and_in_the_last_gap_for_quadratics(degree, exact_down_to):
    paths, state = polynomial_paths(degree)
    own = paths.sigmas.tolist()
    between = [(1 - t) * a + t * b for a, b in itertools.pairwise(own) for t in (0.2, 0.5, 0.9)]
    levels = sorted({*own, *between}, reverse=True)
    states = scheduling.states_at(paths, torch.tensor(levels, dtype=F64))
    for level, got in zip(levels, states):
        if level >= own[-1 - exact_down_to] or level == own[-1]:
            torch.testing.assert_close(got, state(level), rtol=1e-10, atol=1e-10)
        else:
            assert float((got - state(level)).abs().max()) > 1e-6
    own_states = scheduling.states_at(paths, paths.sigmas, slice(1, 3))
    torch.testing.assert_close(own_states, paths.x[:, 1:3], rtol=1e-12, atol=1e-12)


def test_the_teachers_directions_are_the_derivatives_at_its_states():
    D = mixture()
    paths = scheduling.teacher_paths(D, initial_noise(8, (12,)), grid=6)
    again = torch.stack([D(x, float(s)) for x, s in zip(paths.x, paths.sigmas[:-1])])
    asked = Trajectory(paths.sigmas, paths.x, again, paths.nfe)
    assert float(regularity.score_gap(D, paths).abs().max()) == 0
    for metric in scheduling.METRICS:
        assert torch.equal(scheduling.cost_matrix(paths, metric), scheduling.cost_matrix(asked, metric))


def test_states_at_the_teachers_own_levels_are_its_states():
    paths = scheduling.teacher_paths(mixture(), initial_noise(8, (12,)), grid=10)
    torch.testing.assert_close(scheduling.states_at(paths, paths.sigmas), paths.x, rtol=1e-12, atol=1e-12)


def test_weights_of_a_network_in_single_precision_are_solved_for_in_double():
    D, x, sigmas = mixture(), initial_noise(64, (12,)), schedules.polynomial(4)
    targets = scheduling.states_at(sample(D, x, schedules.polynomial(40), "unipc"), sigmas)
    single = [t.float() for t in (x, targets)]
    exact, _ = fitted.fit_weights(D, x, sigmas, targets, 3)
    rows, _ = fitted.fit_weights(lambda y, s: D(y.double(), s).float(), single[0], sigmas, single[1], 3)
    for row, expected in zip(rows, exact):
        assert row == pytest.approx(expected, rel=5e-3)


def test_pictures_are_searched_as_the_vectors_they_are():
    D, x = mixture(), initial_noise(16, (12,))
    flat = scheduling.find_schedule(D, x, 4, "ipndm", grid=20)
    D_of_pictures = lambda y, sigma: D(y.flatten(1), sigma).reshape(y.shape)  # noqa: E731
    found = scheduling.find_schedule(D_of_pictures, x.reshape(16, 1, 3, 4), 4, "ipndm", grid=20)
    torch.testing.assert_close(found.sigmas, flat.sigmas)
    assert found.error == pytest.approx(flat.error)


def test_the_teacher_of_a_fit_takes_as_many_steps_as_the_student_at_least():
    schedule = scheduling.fit_solver(mixture(), initial_noise(8, (12,)), 6, grid=3, refine=False)
    assert schedule.provenance["teacher"] == "6 evaluations on 6 steps"


def test_the_number_of_steps_may_be_a_number_of_numpys():
    schedule = scheduling.fit_solver(mixture(), initial_noise(8, (12,)), np.int64(3), refine=False)
    assert schedule.nfe == 3


def test_least_squares_has_its_closed_form_and_is_not_led_by_outliers():
    # Two orthogonal columns and equal samples.
    columns = torch.stack([torch.tensor([2.0, 0, 0]), torch.tensor([0, 1.0, 0])], -1).double().expand(5, 3, 2)
    gap = torch.tensor([6.0, 5.0, 1.0], dtype=F64).expand(5, 3)
    assert fitted._least_squares(columns, gap).tolist() == pytest.approx([3, 5], rel=1e-9)
    columns, truth = normal(30, 8, 3), torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    gap = columns @ truth + 1e-3 * normal(30, 8, seed=1)
    gap[4] += 50
    error = float((fitted._least_squares(columns, gap) - truth).abs().max())
    plain = torch.linalg.lstsq(columns.flatten(0, 1), gap.flatten()).solution
    assert error < 0.03 < 0.3 < float((plain - truth).abs().max())
    # Reweighted least squares ends at the smallest sum of distances, clipped below: no small change is better.
    best = fitted._least_squares(columns, gap)
    total = torch.linalg.vector_norm(gap - columns @ best, dim=1).sum()
    assert total < torch.linalg.vector_norm(gap - columns @ plain, dim=1).sum()


@pytest.mark.parametrize("unit", [1e-5, 1e4])
def test_fitted_weights_do_not_depend_on_the_unit(unit):
    columns, gap = normal(20, 6, 2), normal(20, 6, seed=1)
    solution = fitted._least_squares(columns, gap)
    torch.testing.assert_close(fitted._least_squares(columns, unit * gap), unit * solution)
    torch.testing.assert_close(fitted._least_squares(unit * columns, gap), solution / unit)
    twice = torch.cat([columns, columns]), torch.cat([gap, gap])
    torch.testing.assert_close(fitted._least_squares(*twice), solution)


def test_pictures_are_fitted_as_the_vectors_they_are():
    D, x, sigmas = mixture(), initial_noise(9, (12,)), schedules.polynomial(3)
    targets = scheduling.states_at(sample(D, x, schedules.polynomial(12), "unipc"), sigmas)

    def picture(y, sigma):
        return D(y.flatten(1), sigma).reshape(y.shape)

    flat, final = fitted.fit_weights(D, x, sigmas, targets, 2)
    rows, end = fitted.fit_weights(picture, x.reshape(9, 1, 3, 4), sigmas, targets.reshape(4, 9, 1, 3, 4), 2)
    torch.testing.assert_close(end.flatten(1), final)
    for row, expected in zip(rows, flat):
        assert row == pytest.approx(expected)


def rollout(order, steps=5):
    """Weights fitted to a mixture's paths, the final states, the levels and the sizes of all evaluations."""
    D, x, calls = mixture(), initial_noise(16, (12,), seed=2), []
    sigmas = schedules.polynomial(steps)
    paths = sample(D, x, schedules.polynomial(8 * steps), "unipc")

    def evaluate(y, sigma):
        calls.append(sigma)
        return D(y, sigma)

    rows, final = fitted.fit_weights(evaluate, x, sigmas, scheduling.states_at(paths, sigmas), order)
    return D, x, sigmas, rows, final, calls


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_rollout_uses_the_weights_it_returns(order):
    D, x, sigmas, rows, final, calls = rollout(order)
    assert [len(row) for row in rows] == [min(n + 1, order) for n in range(5)]
    assert calls == sigmas[:-1].tolist()  # one evaluation a step
    torch.testing.assert_close(sample(D, x, sigmas, FittedMultistep(rows)).final, final)
    assert FittedMultistep(rows).memory == order - 1


def test_the_rms_error_of_a_sample():
    assert refine.sample_errors(torch.tensor([[3.0, 4.0, 0, 0], [1.0, -1.0, 1.0, -1.0]])).tolist() == [2.5, 1.0]


def test_a_damped_step_minimises_its_weighted_sum_of_squares():
    jacobian, gap = normal(7, 5, 3), normal(7, 5, seed=1) * torch.logspace(-3, 1, 7, dtype=F64)[:, None]
    jacobian[..., 2] *= 1e-8  # hardly any effect: damped as if it had a millionth of the largest
    error = gap.pow(2).mean(1).sqrt()
    weight = 1 / error.clamp(min=0.1 * float(error.median()))
    for damping in (1e-9, 0.5, 20.0):
        # As one least-squares problem: the weighted samples, and a row sqrt(damping * size) for every number.
        rows = (weight.sqrt()[:, None, None] * jacobian).flatten(0, 1)
        right = -(weight.sqrt()[:, None] * gap).flatten()
        size = rows.pow(2).sum(0)
        penalty = (damping * size.clamp(min=1e-12 * float(size.max()))).sqrt().diag()
        expected = torch.linalg.lstsq(
            torch.cat([rows, penalty]), torch.cat([right, torch.zeros(3, dtype=F64)])
        ).solution
        torch.testing.assert_close(refine._step(jacobian, gap, damping, "mean"), expected, rtol=1e-6, atol=1e-9)


def test_a_number_without_effect_stays_where_it_is():
    jacobian = torch.cat([normal(6, 4, 1), torch.zeros(6, 4, 1, dtype=F64)], -1)
    step = refine._step(jacobian, normal(6, 4, seed=1), 1e-2, "mean")
    assert torch.isfinite(step).all()
    assert float(step[1]) == 0


@given(seed=st.integers(0, 10**6), n=st.integers(1, 8), size=st.floats(1e-3, 5.0))
def test_any_numbers_stand_for_levels_and_levels_for_numbers(seed, n, size):
    start = schedules.polynomial(n + 1, 0.01, 50.0)
    numbers = size * normal(n, seed=seed)
    levels = refine.to_levels(numbers, start)
    assert torch.equal(schedules.validate(levels), levels)
    assert torch.equal(levels[[0, -1]], start[[0, -1]])
    torch.testing.assert_close(refine.to_numbers(levels), numbers, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(refine.to_levels(refine.to_numbers(start), start), start)


def gauss_newton(gap_at, start, change, rounds, objective="mean"):
    """Rounds with a Jacobian of differences."""
    return refine.gauss_newton(gap_at, refine.by_differences(gap_at, change), start, rounds, objective)


def test_derivatives_are_measured_by_the_changes_asked_for_and_then_by_a_quarter():
    seen, change = [], torch.tensor([0.1, -0.2], dtype=F64)

    def gap_at(u):
        seen.append(u.clone())
        return normal(3, 4) * (1 + (u - 1).square().sum())

    start = torch.tensor([2.0, -0.5], dtype=F64)
    *_, end = gauss_newton(gap_at, start, change, 1)
    first = len(seen)
    assert first <= 1 + 2 + refine.TRIALS
    torch.testing.assert_close(torch.stack(seen[1:3]) - start, change.diag())
    seen.clear()
    list(gauss_newton(gap_at, start, change, 2))
    torch.testing.assert_close(torch.stack(seen[first : first + 2]) - end, change.diag() / 4)


def test_levels_are_found_where_the_error_says_they_are():
    start, target = schedules.polynomial(5), schedules.logsnr(5)
    share = normal(6, 8, 4)

    def gap_at(numbers):
        levels = refine.to_levels(numbers, start)
        return torch.einsum("bdi,i->bd", share, levels[1:-1].log() - target[1:-1].log())

    *_, found = gauss_newton(gap_at, refine.to_numbers(start), torch.full((4,), -0.1, dtype=F64), 3)
    torch.testing.assert_close(refine.to_levels(found, start), target, rtol=1e-4, atol=0)


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_gauss_newton_keeps_to_its_rounds_and_never_ends_worse(rounds):
    a, calls, target = normal(9, 5, 3), [], torch.tensor([1.2, -0.3, 0.8], dtype=F64)

    def gap_at(u):
        calls.append(u.clone())
        return a @ (u + 0.1 * u**2 - target)

    start = torch.tensor([0.2, 0.4, -0.6], dtype=F64)
    *_, end = [start, *gauss_newton(gap_at, start, torch.full((3,), 0.1, dtype=F64), rounds)]
    assert len(calls) <= 1 + rounds * (3 + refine.TRIALS)
    tried = list(calls)
    errors = [refine.score(gap_at(u), "mean") for u in tried]
    assert torch.equal(end, tried[int(np.argmin(errors))])
    # Derivatives are measured once a round and kept up to date: eight trials take three digits off the error.
    assert min(errors) <= {0: 1, 1: 1e-3, 2: 1e-6, 5: 1e-9}[rounds] * errors[0]


def test_gauss_newton_minimises_the_mean_of_the_errors_and_not_of_their_squares():
    # One number, one coordinate a sample: the mean of |u - t| is smallest near 0, of the squares at 2.
    targets = torch.tensor([[0.0], [0.1], [-0.1], [10.0], [0.05]], dtype=F64)
    *_, end = gauss_newton(lambda u: u - targets, torch.tensor([2.0], dtype=F64), torch.tensor([0.1]).double(), 9)
    assert abs(float(end)) < 0.15


def test_a_start_that_cannot_be_improved_is_kept():
    start = torch.tensor([1.0, 2.0], dtype=F64)
    change = torch.full((2,), 0.1, dtype=F64)
    ones = torch.ones(4, 3, dtype=F64)
    *_, end = gauss_newton(lambda u: (1 + (u - start).abs().sum()) * ones, start, change, 5)
    assert torch.equal(end, start)
    # Nor does one that ends in NaN wherever it is moved to.
    broken = lambda u: ones if torch.equal(u, start) else ones * math.nan  # noqa: E731
    *_, end = gauss_newton(broken, start, change, 2)
    assert torch.equal(end, start)


# --- the search, piece by piece ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "nfe", "expected"),
    [
        ("ipndm", 5, [(5, {})]),
        ("heun", 6, [(3, {}), (3, {"euler_last": True})]),
        ("heun", 7, [(4, {"euler_last": True})]),
        ("dpm2", 2, [(1, {}), (1, {"euler_last": True})]),
        ("dpm2", 3, [(2, {"euler_last": True})]),
    ],
)
def test_the_ways_to_spend_a_number_of_evaluations(solver, nfe, expected):
    assert search.step_counts(solver, nfe) == expected
    for steps, options in expected:
        spent = sample(mixture(), initial_noise(2, (12,)), schedules.polynomial(steps), solvers.get(solver, **options))
        assert nfe - 1 <= spent.nfe <= nfe


def candidate(*errors):
    return search.Candidate("by hand", schedules.polynomial(2), gap=torch.tensor(errors, dtype=F64)[:, None])


def test_only_a_gain_beyond_chance_replaces_the_usual_grid():
    usual = candidate(1.0, 1.0, 1.0, 1.0)
    lucky, sure, worse = candidate(0.1, 1.3, 1.2, 1.25), candidate(0.9, 0.91, 0.92, 0.9), candidate(1.1, 1.1, 1.1, 1.1)
    # mean gain 0.0375 and standard deviation 0.577: half a standard error is 0.144
    assert search._clearly_better([usual, lucky, worse], usual, "mean") is usual
    assert search._clearly_better([usual, lucky, sure], usual, "mean") is sure
    assert search._clearly_better([usual], usual, "mean") is usual
    # mean gain 0.25, deviation 0.5: one standard error is 0.25, and half of one is beaten
    assert search._clearly_better([usual, candidate(0.0, 1.0, 1.0, 1.0)], usual, "mean") is not usual


def test_every_candidate_is_a_schedule_and_no_path_comes_twice():
    paths = scheduling.teacher_paths(mixture(), initial_noise(8, (12,)), grid=24)
    grids, found = search.usual_grids(paths, 4), search.cheapest_paths(paths, 4)
    assert [c.name for c in grids] == list(schedules.REGISTRY)
    for c in (*grids, *found):
        assert torch.equal(schedules.validate(c.sigmas), c.sigmas)
        assert len(c.sigmas) == 5
        assert c.sigmas[[0, -1]].tolist() == pytest.approx([80.0, 0.002])
    keys = [tuple(c.sigmas.tolist()) for c in found]
    assert len(keys) == len(set(keys)) > 3
    cost = scheduling.cost_matrix(paths, "l2")
    assert keys[0] == tuple(paths.sigmas[scheduling.shortest_path(cost, 4, search.COEFFICIENTS[0])].tolist())
    # a teacher of as many steps offers a path, a coarser one none
    assert len(search.cheapest_paths(paths, 24)) == 1
    assert search.cheapest_paths(paths, 25) == []


@pytest.mark.parametrize(("samples", "runners"), [(8, 20), (40, 3), (200, 20), (200, 1)])
def test_a_race_is_won_by_the_best_two_and_the_worst_leave_early(samples, runners):
    tries = []

    def gap(runner, rows):  # each has its error by name, and every try is written down
        tries.append((int(runner.name), rows))
        return torch.full((rows.stop - rows.start, 4), float(runner.name), dtype=F64)

    paths = scheduling.teacher_paths(mixture(), initial_noise(samples, (12,)), grid=1)
    warm = warm_up.WarmUp(mixture(), paths, 4, 0.5)
    field = [search.Candidate(str(1 + k), paths.sigmas) for k in range(runners)]
    assert {c.name for c in search.race(warm, field[::-1], gap, "mean")} == {"1", "2"} - (
        {"2"} if runners == 1 else set()
    )
    assert all(rows.start == 0 and rows.stop <= samples // 2 for _, rows in tries)  # none of those that judge
    counts = [sum(name == k for name, _ in tries) for k in range(1, runners + 1)]
    assert counts == sorted(counts, reverse=True)
    assert runners < 20 or counts[0] == counts[1] == 3 > counts[-1] == 1
    if samples == 200:
        sizes = [rows.stop for _, rows in tries]
        assert sorted(set(sizes)) == ([] if runners == 1 else [12, 24, 48])


@pytest.mark.parametrize("budget", [2.0, 3.0])
def test_a_search_keeps_to_its_budget_and_counts_what_it_spends(budget):
    D, spent = mixture(), [0]

    def counted(y, sigma, labels=None):
        spent[0] += len(y)
        return D(y, sigma)

    found = scheduling.find_schedule(counted, initial_noise(48, (12,)), 5, "dpmpp_2m", budget=budget, grid=40)
    assert found.provenance["evaluations"] == spent[0] <= budget * 48 * 40 * 1.001
    assert spent[0] > (1 + 0.6 * (budget - 1)) * 48 * 40  # and uses most of it
    assert found.provenance["teacher_evaluations"] == 48 * 40
    assert found.provenance["warm_up"] == 48
    spent[0] = 0
    schedule = scheduling.fit_solver(counted, initial_noise(48, (12,)), 4, budget=budget, grid=40)
    assert schedule.provenance["evaluations"] == spent[0] <= budget * 48 * 40 * 1.001
    assert spent[0] > (1 + 0.6 * (budget - 1)) * 48 * 40


def test_labels_stay_with_their_samples():
    means = 3 * normal(2, 6)
    x, labels = initial_noise(16, (6,)), torch.arange(16) % 2

    def D(y, sigma, labels=None):
        assert labels is not None
        assert len(labels) == len(y)
        share = 1 / (1 + sigma**2)
        return means[labels] + (y - means[labels]) * share

    found = scheduling.find_schedule(D, x, 4, "ipndm", labels=labels, grid=24)
    schedule = scheduling.fit_solver(D, x, 4, labels=labels, grid=24)
    solver = schedule.make_solver()
    exact = sample(D, x, schedules.polynomial(100), "unipc", labels=labels).final
    for sigmas, by in ((found.sigmas, found.make_solver()), (schedule.sigmas, solver)):
        error = (sample(D, x, sigmas, by, labels=labels).final - exact).pow(2).mean(1).sqrt().mean()
        assert float(error) < 0.1
        assert float(error) == pytest.approx(found.error if by.name == "ipndm" else schedule.error, rel=1.0, abs=0.02)


@pytest.mark.parametrize("metric", scheduling.METRICS)
def test_costs_do_not_depend_on_the_blocks(teacher, metric, monkeypatch):
    whole = scheduling.cost_matrix(teacher, metric)
    for block in (1, 300, 2000):
        monkeypatch.setattr(scheduling.costs, "_BLOCK", block)
        torch.testing.assert_close(scheduling.cost_matrix(teacher, metric), whole)


@pytest.mark.slow
@pytest.mark.parametrize("metric", scheduling.METRICS)
def test_costs_of_many_long_paths_in_the_plane_take_the_memory_of_a_block(metric, monkeypatch):
    # 61 x 61 jumps of each path are 30 times the path itself.
    paths = sample(Gaussian([0.0, 1.0], [0.2, 0.4]), initial_noise(50, (2,)), schedules.polynomial(60))
    monkeypatch.setattr(scheduling.costs, "_BLOCK", 2**16)
    with torch.profiler.profile(profile_memory=True) as profile:
        scheduling.cost_matrix(paths, metric)
    biggest = max((e.cpu_memory_usage for e in profile.events() if e.name.startswith("aten::")), default=0)
    assert biggest <= 2**16 * 8


def test_costs_of_almost_straight_paths_lose_no_digits():
    # Bends of 1e-6 of the chord: squares of distances alone would leave nothing but rounding.
    paths = sample(
        Gaussian(torch.zeros(5, dtype=F64), 1e-6 * torch.arange(1, 6).double()), initial_noise(4, (5,)),
        schedules.polynomial(12, 1.0, 80.0), "heun",
    )  # fmt: skip
    for metric in JUMPS:
        cost, expected = scheduling.cost_matrix(paths, metric), direct_costs(paths, metric)
        assert float(expected.abs().max()) < 1e-3
        torch.testing.assert_close(cost, expected, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("metric", JUMPS)
def test_the_jumps_that_an_euler_teacher_made_cost_nothing(metric):
    paths = sample(mixture(), initial_noise(2, (12,)), schedules.polynomial(9), "euler")
    cost = scheduling.cost_matrix(paths, metric)
    assert float(cost.diagonal(1).abs().max()) < 1e-11
    assert float(cost[0, 5]) > 1e-3


def test_the_cost_of_a_path_is_its_nested_sum():
    cost = torch.arange(25, dtype=F64).reshape(5, 5)
    assert scheduling.path_cost(cost, torch.tensor([0, 2, 3, 4]), 2.0) == 2 + 2 * (13 + 2 * 19)
    assert scheduling.path_cost(cost, torch.tensor([0, 4])) == 4


class FakeIPNDM:
    """What `drive` touches of diffusers' IPNDMScheduler; test_peers drives the real one."""

    def __init__(self):
        self.betas, self.ets, self.called = None, [], None

    def set_timesteps(self, steps, device=None):
        self.called = (steps, device)


class FakeEDM(FakeIPNDM):
    def precondition_noise(self, sigma):
        return 0.25 * sigma.log()


def test_driven_schedulers_get_the_levels_of_the_schedule():
    schedule = Schedule([8.0, 1.0, 0.5, 0.1], "ipndm", 3)
    sigma = torch.tensor([8.0, 1.0, 0.5, 0.1])
    ipndm, edm_like = FakeIPNDM(), FakeEDM()
    for scheduler in (ipndm, edm_like):
        scheduling.drive(scheduler, schedule, "cpu")
        assert scheduler.called == (3, torch.device("cpu"))
        assert scheduler.timesteps.dtype == torch.float32
    torch.testing.assert_close(edm_like.sigmas, sigma)
    torch.testing.assert_close(edm_like.timesteps, sigma[:-1].log() / 4)
    torch.testing.assert_close(ipndm.betas / ipndm.alphas, sigma)  # x = alpha x0 + beta noise
    torch.testing.assert_close(ipndm.betas**2 + ipndm.alphas**2, torch.ones(4))
    torch.testing.assert_close((ipndm.timesteps * math.pi / 2).tan(), sigma[:-1], rtol=1e-4, atol=0)
    with pytest.raises(TypeError, match=r"got object.*to_diffusers"):
        scheduling.drive(object(), schedule)


def test_progress_counts_every_evaluation(capsys):
    D, x = mixture(), initial_noise(8, (12,))
    for find, budget in ((scheduling.find_schedule, 3), (scheduling.fit_solver, 10)):
        find(D, x, 4, grid=12)
        assert capsys.readouterr().err == ""
        find(D, x, 4, grid=12, progress=True)
        assert f"/{budget * 12 * 8}" in capsys.readouterr().err


def test_a_teacher_that_is_there_already_is_used_and_must_start_from_x():
    D, x = mixture(), initial_noise(8, (12,))
    paths = scheduling.teacher_paths(D, x, 0.01, 50.0, grid=20)
    assert paths.nfe == 20
    torch.testing.assert_close(paths.sigmas, schedules.polynomial(20, 0.01, 50.0))
    found = scheduling.find_schedule(D, x, 4, teacher=paths)
    assert found.sigmas[[0, -1]].tolist() == pytest.approx([50.0, 0.01])
    schedule = scheduling.fit_solver(D, x, 4, teacher=paths)
    assert schedule.sigmas[[0, -1]].tolist() == pytest.approx([50.0, 0.01])
    assert torch.equal(found.sigmas, scheduling.find_schedule(D, x, 4, sigma_min=0.01, sigma_max=50.0, grid=20).sigmas)
    for other in (x + 1, x[:7].repeat(2, 1), initial_noise(8, (11,))):
        with pytest.raises(ValueError, match="teacher must start from x"):
            scheduling.find_schedule(D, other, 4, teacher=paths)
        with pytest.raises(ValueError, match="teacher must start from x"):
            scheduling.fit_solver(D, other, 4, teacher=paths)


def test_ends_beside_a_teacher_or_levels_must_be_theirs():
    D, x = mixture(), initial_noise(8, (12,), 50.0)
    paths = scheduling.teacher_paths(D, x, 0.01, 50.0, grid=8)
    for find in (scheduling.find_schedule, scheduling.fit_solver):
        kept = find(D, x, 3, teacher=paths, sigma_min=0.01, sigma_max=50.0)
        assert kept.sigmas[[0, -1]].tolist() == pytest.approx([50.0, 0.01])
        for name, value in (("sigma_min", 0.02), ("sigma_max", 80.0)):
            with pytest.raises(ValueError, match=f"{name} must be left out, or be that of teacher"):
                find(D, x, 3, teacher=paths, **{name: value})
    with pytest.raises(ValueError, match="sigma_max must be left out, or be that of sigmas, 50, got 40"):
        scheduling.fit_solver(D, x, schedules.polynomial(3, 0.01, 50.0), sigma_max=40.0)
    for low, high in ((0.01, 40.0), (0.02, 50.0)):  # the noise is that of 50; the teacher ends at 0.01
        with pytest.raises(ValueError, match=r"sigmas must begin and end where the teacher does, at 50 and 0\.01"):
            scheduling.fit_solver(D, x, schedules.polynomial(3, low, high), teacher=paths)


# --- what is judged, recorded and respected -----------------------------------------------------------------------


def crowd(samples=64, d=64, k=7):
    """A mixture of seven far components, of which few steps send some paths to another than they belong to."""
    D = GaussianMixture([1 / k] * k, normal(k, d), 0.02 * torch.ones(k, dtype=F64))
    return D, initial_noise(samples, (d,))


def test_the_share_that_ends_elsewhere_stands_beside_the_mean():
    D, x = crowd()
    teacher = scheduling.teacher_paths(D, x)
    found = scheduling.find_schedule(D, x, 9, "dpmpp_2m", teacher=teacher)
    judges = torch.arange(7 * len(x) // 10, len(x))  # of a search; of a fit, half
    distance = (sample(D, x, found.sigmas, found.make_solver()).final[judges, None] - teacher.final).norm(dim=-1)
    own = distance[torch.arange(len(judges)), judges]
    share = float((distance.argmin(1) != judges).double().mean())
    rms = own / 8  # of 64 dimensions
    assert found.provenance["ends_elsewhere"] == pytest.approx(share)
    assert found.error == pytest.approx(float(rms.mean()))
    assert found.provenance["rms_error"] == pytest.approx(float(rms.square().mean().sqrt()))
    schedule, half = scheduling.fit_solver(D, x, 4, teacher=teacher), len(x) // 2
    solver = schedule.make_solver()
    distance = (sample(D, x, schedule.sigmas, solver).final[half:, None] - teacher.final).norm(dim=-1)
    expected = (distance.argmin(1) != torch.arange(half, len(x))).double().mean()
    assert schedule.provenance["ends_elsewhere"] == pytest.approx(float(expected))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_ends_count_as_elsewhere_only_where_they_are_others(offset):
    # Ends at 0, at 0 but for the noise that is left, at 10 and at 20.
    ends = offset + torch.tensor([[0.0, 0.0], [0.001, 0.0], [10.0, 0.0], [20.0, 0.0]], dtype=F64)
    gap = torch.tensor([[0.001, 0.0], [4.9, 0.0], [5.1, 0.0], [-5.1, 0.0]], dtype=F64)
    assert warm_up.elsewhere(gap, ends, 0.002).tolist() == [False, False, True, True]
    assert warm_up.elsewhere(gap[2:], ends, 0.002, slice(2, 4)).tolist() == [True, True]


def test_the_objective_of_a_search_may_be_the_root_mean_square():
    assert refine.score(torch.tensor([[3.0], [4.0]]), "mean") == 3.5
    assert refine.score(torch.tensor([[3.0], [4.0]]), "rms") == pytest.approx(12.5**0.5)
    # One number, one coordinate a sample: the mean of |u - t| is smallest at 0, of the squares at 2.5.
    targets = torch.tensor([[0.0], [0.1], [-0.1], [10.0]], dtype=F64)
    start, change = torch.tensor([2.0], dtype=F64), torch.tensor([0.1], dtype=F64)
    *_, end = gauss_newton(lambda u: u - targets, start, change, 5, "rms")
    assert float(end) == pytest.approx(2.5, abs=1e-6)
    steady, lucky = candidate(1.0, 1.0, 1.0, 1.0), candidate(0.2, 0.2, 0.2, 2.2)
    assert search._clearly_better([steady, lucky], steady, "mean") is lucky
    assert search._clearly_better([steady, lucky], steady, "rms") is steady


# Where paths fork a few decide the root mean square, and which levels win it differs from draw to draw. A fit tries the
# same for either objective.
@pytest.mark.parametrize(("find", "samples"), [("find_schedule", 96), ("fit_solver", 384)])
def test_the_objective_is_what_gets_small(find, samples):
    D, x = crowd(samples)
    teacher = scheduling.teacher_paths(D, x, grid=30)
    found = {}
    for objective in ("mean", "rms"):
        found[objective] = getattr(scheduling, find)(D, x, 5, teacher=teacher, objective=objective)
        assert found[objective].provenance["objective"] == objective
    assert found["rms"].provenance["rms_error"] <= found["mean"].provenance["rms_error"]
    with pytest.raises(ValueError, match="objective must be one of 'mean', 'rms', got 'max'"):
        getattr(scheduling, find)(D, x, 5, teacher=teacher, objective="max")


class Ranged:
    """A model that was trained between two levels, and refuses to be asked elsewhere."""

    sigma_min, sigma_max = 0.029, 14.6

    def __call__(self, x, sigma, labels=None):
        assert self.sigma_min * (1 - 1e-5) <= sigma <= self.sigma_max * (1 + 1e-5)
        return mixture()(x, sigma)


def test_schedules_keep_to_the_levels_a_model_was_trained_on():
    D, x = Ranged(), initial_noise(8, (12,), 14.6)
    for found in (scheduling.find_schedule(D, x, 4, grid=12), scheduling.fit_solver(D, x, 4, grid=12)):
        assert found.sigmas[[0, -1]].tolist() == pytest.approx([14.6, 0.029])
    inside = scheduling.find_schedule(D, initial_noise(8, (12,), 10.0), 4, sigma_min=0.1, sigma_max=10.0, grid=12)
    assert inside.sigmas[[0, -1]].tolist() == pytest.approx([10.0, 0.1])
    for name, call in (
        ("sigma_max", lambda: scheduling.teacher_paths(D, x, sigma_max=80.0)),
        ("sigma_min", lambda: scheduling.find_schedule(D, x, 4, sigma_min=0.002)),
        ("sigma_min", lambda: scheduling.fit_solver(D, x, [14.6, 1.0, 0.002])),
        ("sigma_max", lambda: scheduling.fit_solver(D, x, [80.0, 1.0, 0.03])),
        ("x must be noise at sigma_max", lambda: scheduling.find_schedule(D, initial_noise(8, (12,)), 4)),
    ):
        with pytest.raises(ValueError, match=name):
            call()
    # Wider than usual: the usual ends.
    D.sigma_min, D.sigma_max = 1e-5, 152.0
    assert scheduling.teacher_paths(D, initial_noise(8, (12,)), grid=2).sigmas[[0, -1]].tolist() == [80.0, 0.002]


def test_a_discrete_model_of_other_coordinates_knows_its_levels():
    abar = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64) ** 2).cumprod(0)
    levels = ((1 - abar) / abar).sqrt()
    for make in (adapters.from_eps, adapters.from_v, adapters.from_x0):
        D = make(lambda z, t: torch.zeros_like(z), abar)
        assert (D.sigma_min, D.sigma_max) == pytest.approx((float(levels[0]), float(levels[-1])))
        paths = scheduling.teacher_paths(D, initial_noise(8, (3,), D.sigma_max), grid=3)
        assert paths.sigmas[[0, -1]].tolist() == pytest.approx([D.sigma_max, D.sigma_min])
    for D in (
        adapters.from_velocity(lambda z, t: torch.zeros_like(z)),
        adapters.from_eps(lambda z, t: z, time=torch.atan),
    ):
        assert (D.sigma_min, D.sigma_max) == (0.0, math.inf)


def class_means(y, sigma, labels=None):
    """A class-conditional model in closed form; without labels, that of one Gaussian around 0."""
    means = torch.zeros(1, 6, dtype=F64) if labels is None else 3 * normal(2, 6)[labels]
    return means + (y - means) / (1 + sigma**2)


def test_provenance_says_on_what_a_schedule_was_found():
    x, labels = initial_noise(12, (6,)), torch.arange(12) % 3 % 2
    found = scheduling.find_schedule(class_means, x, 4, labels=labels, guidance=2.0, grid=10)
    assert found.provenance["labels"] == {"0": 8, "1": 4}
    assert found.provenance["guidance"] == 2.0
    assert found.provenance["model"] == {"type": "class_means", "fingerprint": fingerprint(class_means)[:16]}
    assert Schedule(**{**vars(found)}) == found  # plain values only
    one, same, other = (
        scheduling.fit_solver(mixture(k=k), initial_noise(8, (12,)), 3, grid=6).provenance for k in (5, 5, 4)
    )
    assert one["model"] == same["model"] != other["model"]
    points = normal(6, 12)  # same weights and buffers, another model
    sharp, blurred = (
        scheduling.fit_solver(Empirical(points, bandwidth), initial_noise(8, (12,)), 3, grid=6).provenance["model"]
        for bandwidth in (0.0, 0.5)
    )
    assert sharp != blurred
    assert one["model"]["type"] == "GaussianMixture"
    assert (one["labels"], one["guidance"], one["objective"]) == (None, None, "mean")


def test_a_schedule_is_found_for_the_guidance_it_will_have():
    x, labels, spent = initial_noise(32, (6,)), torch.arange(32) % 2, [0]

    def D(y, sigma, labels=None):
        spent[0] += len(y)
        return class_means(y, sigma, labels)

    for find, budget in ((scheduling.find_schedule, 3), (scheduling.fit_solver, 10)):
        spent[0] = 0
        found = find(D, x, 4, labels=labels, guidance=3.0, grid=20)
        solver = found.make_solver()
        assert found.provenance["evaluations"] == spent[0] <= budget * found.provenance["teacher_evaluations"]
        assert found.provenance["teacher_evaluations"] == 2 * 20 * 32
        assert found.nfe == 4
        path = sample(D, x, found.sigmas, solver, labels=labels, guidance=3.0)
        assert path.nfe == 8
        exact = sample(D, x, schedules.polynomial(100), "unipc", labels=labels, guidance=3.0).final
        assert float((path.final - exact).pow(2).mean(1).sqrt().mean()) < 0.1
        with pytest.raises(ValueError, match="guidance needs labels"):
            find(D, x, 4, guidance=3.0)


# --- the fit, piece by piece ------------------------------------------------------------------------------------


def fitting(samples=24, grid=20, order=2, steps=4):
    D, x = mixture(), initial_noise(samples, (12,))
    return fit._Fit(warm_up.WarmUp(D, scheduling.teacher_paths(D, x, grid=grid), steps, 0.5), order)


@pytest.mark.parametrize(("samples", "half"), [(8, 4), (9, 4), (24, 12), (25, 12)])
def test_half_of_the_samples_take_no_part_in_the_fit(samples, half):
    warm = fitting(samples, grid=1).warm_up  # a teacher of one step is enough to count by
    assert (warm.fit, warm.judges) == (slice(0, half), slice(half, samples))
    assert warm.spent == warm.teacher_cost == samples


@given(left=st.integers(-(10**3), 10**6), share=st.floats(0.1, 1), trials=st.integers(1, 60), most=st.integers(1, 4))
def test_samples_and_rounds_fit_into_what_is_left(left, share, trials, most):
    warm = object.__new__(warm_up.WarmUp)
    warm.nfe, warm.calls, warm.x, warm.fit, warm.judges = 5, 1, torch.zeros(200), slice(0, 100), slice(100, 200)
    warm.meter = meter.Meter(left, 0)
    rows, rounds = warm.afford(share, trials, most, judgings=2)
    size, room = rows.stop, share * (left - 2 * 100 * 5)
    assert rows.start == 0
    assert 8 <= size <= 100
    assert 0 <= rounds <= most
    assert 5 * size * trials * rounds <= max(room, 0) * (1 + 1e-9)
    if room >= 8 * 5 * trials * most:
        assert rounds == most  # samples give way to rounds, not the other way round
        assert size in (100, int(room / (5 * trials * most)))


def test_the_start_with_the_smallest_error_wins_the_race():
    run = fitting(24)
    starts = {"bad": schedules.linear(5), "good": schedules.cosine(5), "worse": [80, 79, 78, 77, 76, 0.002]}
    field = [search.Candidate(name, torch.as_tensor(s, dtype=F64)) for name, s in starts.items()]
    assert search.race(run.warm_up, field, run.gap_of_levels, "mean")[0].name == "good"
    errors = [refine.score(run.gap_of_levels(c, slice(0, 12)), "mean") for c in field]
    assert min(errors) == errors[1]


def test_the_error_of_a_fit_is_that_of_the_samples_kept_apart():
    run = fitting(24)
    sigmas = schedules.cosine(4)
    made = run.solved(search.Candidate("by hand", sigmas))
    D, x = mixture(), initial_noise(24, (12,))
    final = sample(D, x[12:], sigmas, FittedMultistep(**made.options)).final
    torch.testing.assert_close(made.gap, final - run.warm_up.teacher.final[12:])
    assert run.warm_up.spent == run.warm_up.teacher_cost + 4 * 12 + 4 * 12  # fitted once, judged once
    assert made.nfe == 4
    *_, better = run.moved(made, True)
    assert [len(row) for row in better.options["weights"]] == [1, 2, 2, 2]
    before, after = (refine.score(run.gap(c, slice(0, 12)), "mean") for c in (made, better))
    assert after < before


def test_without_refinement_weights_are_solved_for_once():
    D, x, sigmas = mixture(), initial_noise(12, (12,)), schedules.cosine(4)
    schedule = scheduling.fit_solver(D, x, sigmas, grid=20, refine=False)
    solver = schedule.make_solver()
    run = fitting(12, order=3)
    weights, _ = run.weights(sigmas, run.warm_up.fit)
    assert all(np.allclose(a, b) for a, b in zip(weights, solver.weights))
    assert torch.equal(schedule.sigmas, sigmas)
    assert schedule.provenance["warm_up"] == 12
    assert schedule.provenance["teacher"] == "20 evaluations on 20 steps"
    assert schedule.provenance["method"].startswith("given levels")
    assert schedule.provenance["method"].endswith("order 3")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda D, x: scheduling.find_schedule(D, x[0], 4), r"x must have shape \(B, \*event\)"),
        (lambda D, x: scheduling.find_schedule(D, x[:7], 4), "at least 8 warm-up samples"),
        (lambda D, x: scheduling.find_schedule(D, x, 4, budget=1.0), "budget must be a finite number > 1"),
        (lambda D, x: scheduling.find_schedule(D, x, 4, budget=math.inf), "budget must be a finite number > 1"),
        (lambda D, x: scheduling.fit_solver(D, x[0], 4), r"x must have shape \(B, \*event\)"),
        (lambda D, x: scheduling.fit_solver(D, x[:7], 4), "at least 8 warm-up samples"),
        (lambda D, x: scheduling.fit_solver(D, x, 1), "a number of steps, must be an integer >= 2, got 1"),
        (lambda D, x: scheduling.fit_solver(D, x, 4, order=0), "order must be an integer >= 1, got 0"),
        (lambda D, x: scheduling.shortest_path(torch.ones(1, 1), 1), "at least 2 grid points"),
        (lambda D, x: scheduling.shortest_path(torch.ones(4, 4), 0), "steps must be an integer from 1 to 3"),
        (lambda D, x: scheduling.shortest_path(torch.ones(4, 4), 2, math.inf), "coefficient must be"),
        (lambda D, x: FittedMultistep([]), "weights must hold"),
        (lambda D, x: FittedMultistep([[1.0], []]), "weights must hold"),
        (lambda D, x: FittedMultistep([[1.0], [1.0, 2.0, 3.0]]), "weights must hold"),
    ],
)
def test_values_just_outside_their_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(mixture(), initial_noise(8, (12,)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda D, x: scheduling.find_schedule(D, x, 2.0), "nfe must be an integer >= 2, got 2.0"),
        (lambda D, x: scheduling.find_schedule(D, x, True), "nfe must be an integer >= 2, got True"),
        (lambda D, x: scheduling.shortest_path(torch.ones(4, 4), True), "steps must be an integer from 1 to 3"),
        (lambda D, x: scheduling.shortest_path(torch.ones(4, 4), 2, "1"), "coefficient must be"),
        (lambda D, x: scheduling.Schedule([2.0, 1.0], "euler", 1.0), "nfe must be an integer >= 1"),
        (lambda D, x: scheduling.find_schedule(D, x, 4, budget=True), "budget must be a finite number > 1"),
        (lambda D, x: scheduling.find_schedule(D, x, 4, budget="3"), "budget must be a finite number > 1"),
        (lambda D, x: scheduling.fit_solver(D, x, True), "must be an integer >= 2, got True"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call(mixture(), initial_noise(8, (12,)))


def test_a_teacher_with_a_bad_value_or_without_its_path_is_refused(teacher):
    poisoned = Trajectory(teacher.sigmas, teacher.x.clone(), teacher.denoised, teacher.nfe)
    poisoned.x[-1, 3, 2] = math.nan
    with pytest.raises(ValueError, match="teacher must be finite"):
        scheduling.cost_matrix(poisoned)
    end = sample(mixture(), initial_noise(2, (12,)), schedules.polynomial(4), keep="final")
    with pytest.raises(ValueError, match="keep='all'"):
        scheduling.cost_matrix(end)


def test_times_of_a_discrete_model_are_the_nearest_in_log_sigma():
    alphabar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64)).cumprod(0)
    trained = ((1 - alphabar) / alphabar).sqrt()
    levels = torch.cat([trained[[900, 500, 30, 0]], torch.zeros(1, dtype=F64)])
    assert Schedule(levels, "euler", 4).to_diffusers(alphabar)["timesteps"] == [900, 500, 30, 0]
    between = trained[:-1].log() + 0.4 * trained.log().diff()  # nearer to the smaller
    pick = [990, 412, 7]
    times = Schedule([*between[pick].exp().tolist(), 1e-3], "euler", 3).to_diffusers(alphabar)["timesteps"]
    assert times == pick
    outside = Schedule([500.0, 1.0, 1e-4, 0.0], "euler", 3).to_diffusers(alphabar)["timesteps"]
    assert (outside[0], outside[-1]) == (999, 0)

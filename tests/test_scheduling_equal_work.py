"""Score-optimal schedules: the closed form of a Gaussian, what they do not depend on, and where they lead."""

from dataclasses import replace

import pytest
import torch

from teachkit import Gaussian, GaussianMixture, Trajectory, edm, initial_noise, sample, schedules, scheduling

F64 = torch.float64
COSTS = ("predictor", "corrector")
VARIANCES = torch.tensor([0.02, 0.2, 0.4, 3.0], dtype=F64)
NARROW = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.3]], [0.1, 0.2])


@pytest.fixture(scope="module")
def paths():
    return scheduling.teacher_paths(NARROW, initial_noise(64, (2,)))


def on_any_grid(density, n, sigma_min=0.002, sigma_max=80.0):
    """Levels even in the integral of a density, on 200,000 points in log sigma."""
    sigma = torch.logspace(1, 0, 200_001, base=sigma_max / sigma_min, dtype=F64) * sigma_min
    length = torch.cumulative_trapezoid(density(sigma[:, None]) * sigma, -sigma.log())
    length = torch.cat([length.new_zeros(1), length])
    wanted = torch.linspace(0, float(length[-1]), n + 1, dtype=F64)
    return sigma[torch.searchsorted(length, wanted).clamp(max=len(sigma) - 1)]


@pytest.mark.parametrize("n", [1, 3, 6, 40, 100])
@pytest.mark.parametrize(
    ("cost", "density"),
    [
        ("predictor", lambda s: (VARIANCES**2 / (VARIANCES + s**2) ** 3).sum(1) ** 0.25),
        ("corrector", lambda s: (s**4 / (VARIANCES + s**2) ** 3).sum(1).sqrt()),
    ],
)
def test_of_a_gaussian_they_are_those_of_the_closed_form(cost, density, n):
    # One sample that is the root mean square in every direction: the mean over the noise is then exact.
    x = 80.0 * torch.ones(1, 4, dtype=F64)
    levels, D = schedules.logsnr(400), Gaussian(torch.zeros(4, dtype=F64), VARIANCES)
    states = torch.stack([D.flow(x, 80.0, s) for s in levels.tolist()])
    exact = Trajectory(levels, states, torch.stack([D(y, s) for y, s in zip(states[:-1], levels.tolist())]), 400)
    found = scheduling.score_optimal(exact, n, cost)
    torch.testing.assert_close(found, on_any_grid(density, n), rtol=5e-3, atol=0)
    usual = scheduling.score_optimal(scheduling.teacher_paths(D, x.expand(8, 4)), n, cost)  # 60 steps do as well
    torch.testing.assert_close(usual, found, rtol=0.03, atol=0)


@pytest.mark.parametrize("D", [Gaussian(torch.ones(4, dtype=F64), VARIANCES), "edm-digits8"], ids=["exact", "network"])
def test_the_change_of_the_score_at_a_fixed_point_is_twice_that_along_the_path(D):
    network = isinstance(D, str)
    D, event = (edm.load(D), (1, 8, 8)) if network else (D, (4,))
    path = scheduling.teacher_paths(D, initial_noise(32, event), grid=120)
    score = (path.denoised - path.x[:-1]) / path.sigmas[:-1].reshape(-1, *[1] * (path.x.ndim - 1)) ** 2
    along = score.diff(dim=0).flatten(1).norm(dim=1)
    fixed = torch.stack(
        [
            ((D(path.x[i], s := float(path.sigmas[i + 1])) - path.x[i]) / s**2 - score[i]).flatten().norm()
            for i in range(119)
        ]
    )
    assert float((fixed / along).min()) > (1.6 if network else 1.9)
    assert float((fixed / along).max()) < (2.3 if network else 2.1)


@pytest.mark.parametrize("cost", COSTS)
def test_levels_for_twice_as_many_steps_contain_those_for_n(paths, cost):
    for n in (1, 2, 5, 50):
        levels = scheduling.score_optimal(paths, n, cost)
        assert torch.equal(levels, schedules.validate(levels))
        assert levels[[0, -1]].tolist() == [80.0, 0.002]
        torch.testing.assert_close(scheduling.score_optimal(paths, 2 * n, cost)[::2], levels, rtol=1e-12, atol=0)


@pytest.mark.parametrize("cost", COSTS)
def test_they_depend_on_no_unit_no_origin_and_no_order_of_the_samples(paths, cost):
    levels = scheduling.score_optimal(paths, 6, cost)
    scaled = Trajectory(3 * paths.sigmas, 3 * paths.x, 3 * paths.denoised, paths.nfe)
    torch.testing.assert_close(scheduling.score_optimal(scaled, 6, cost), 3 * levels, rtol=1e-12, atol=0)
    shifted = replace(paths, x=paths.x + 5, denoised=paths.denoised + 5)
    torch.testing.assert_close(scheduling.score_optimal(shifted, 6, cost), levels, rtol=1e-9, atol=0)
    twice = replace(paths, x=paths.x.flip(1).repeat(1, 2, 1), denoised=paths.denoised.flip(1).repeat(1, 2, 1))
    torch.testing.assert_close(scheduling.score_optimal(twice, 6, cost), levels, rtol=1e-12, atol=0)
    single = replace(paths, x=paths.x.float(), denoised=paths.denoised.float())
    torch.testing.assert_close(scheduling.score_optimal(single, 6, cost), levels, rtol=1e-3, atol=0)


def test_many_steps_are_those_of_the_dynamic_programme():
    """The sum of Euler errors is least: of one variance, where mean and root mean square are one up to a factor."""
    path = scheduling.teacher_paths(Gaussian([0.0, 0.0], 0.3), initial_noise(64, (2,)), grid=400)
    cost = scheduling.cost_matrix(path, "l2")
    best, found = scheduling.shortest_path(cost, 40), scheduling.score_optimal(path, 40)

    def total(levels):
        return float(scheduling.path_cost(cost, (path.sigmas.log() - levels.log()[:, None]).abs().argmin(1)))

    assert total(found) < 1.02 * total(path.sigmas[best])
    assert total(found) < 0.9 * min(total(make(40)) for make in (schedules.polynomial, schedules.logsnr))


def test_the_work_of_a_deterministic_solver_pays_on_a_network():
    D = edm.load("edm-digits8")
    warm_up, new = (initial_noise(n, (1, 8, 8), seed=seed) for n, seed in ((32, 0), (64, 1)))
    paths, exact = scheduling.teacher_paths(D, warm_up), scheduling.teacher_paths(D, new).final

    def error(levels):
        return float((sample(D, new, levels, "deis").final - exact).flatten(1).square().mean(1).sqrt().mean())

    found = error(scheduling.score_optimal(paths, 8))
    assert found < 0.9 * min(error(make(8)) for make in schedules.REGISTRY.values())
    corrector = error(scheduling.score_optimal(paths, 8, "corrector"))  # which is for samplers with noise
    assert found < corrector < error(schedules.polynomial(8))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"cost": "kl"}, ValueError, "cost must be one of 'predictor', 'corrector', got 'kl'"),
        ({"n": 0}, ValueError, "n must be an integer >= 1, got 0"),
        ({"teacher": torch.zeros(3, 2, 2)}, TypeError, "teacher must be a Trajectory"),
        ({"teacher": sample(NARROW, initial_noise(3, (2,)), [80.0, 1.0])}, ValueError, "teacher must have two or more"),
        ({"teacher": sample(NARROW, initial_noise(3, (2,)), [80.0, 1.0, 0])}, ValueError, "steps and end above 0"),
        (
            {"teacher": Trajectory(torch.tensor([2.0, 1.0, 0.5]), torch.zeros(3, 1, 2), torch.zeros(2, 1, 2), 2)},
            ValueError,
            "teacher must have paths that change direction",
        ),
    ],
)
def test_bad_arguments_are_refused(paths, change, kind, message):
    with pytest.raises(kind, match=message):
        scheduling.score_optimal(**({"teacher": paths, "n": 4} | change))

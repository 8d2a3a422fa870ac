"""Solvers learned by gradients: classical ones are rows of weights, gradients those of differences, nothing leaks."""

import math

import pytest
import torch

from teachkit import Gaussian, GaussianMixture, edm, initial_noise, sample, schedules, scheduling, solvers
from teachkit.scheduling.fitted import FittedMultistep
from teachkit.scheduling.student import Student

F64 = torch.float64
MIXTURE = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.3]], [0.1, 0.2])
LEVELS = schedules.polynomial(6)
LINEAR = ("euler", "ab2", "ab3", "ab4", "ipndm", "deis", "dpmpp_2m", "dpmpp_3m", "res_2m", "res_3m")


@pytest.mark.parametrize("name", [n for n in LINEAR if n in solvers.REGISTRY])
def test_a_classical_solver_is_its_rows_of_weights(name):
    rows = scheduling.multistep_weights(name, LEVELS)
    torch.testing.assert_close(rows.sum(1), torch.ones(6, dtype=F64))  # consistent
    assert torch.equal(rows, rows.tril())
    steps = (rows * LEVELS.diff()[:, None]).tolist()
    solver = FittedMultistep([[row[j] for j in range(n, -1, -1)] for n, row in enumerate(steps)])
    x = initial_noise(4, (2,), seed=1)
    torch.testing.assert_close(sample(MIXTURE, x, LEVELS, solver).final, sample(MIXTURE, x, LEVELS, name).final)


@pytest.mark.parametrize("name", ["heun", "dpm2", "unipc", "edm_stochastic"])
def test_what_is_no_row_of_weights_is_refused(name):
    with pytest.raises(ValueError, match="solver must take one evaluation a step, correct nothing and add no noise"):
        scheduling.multistep_weights(name, LEVELS)


@pytest.mark.parametrize("free", [("levels",), ("weights",), ("levels", "weights")])
@pytest.mark.parametrize("save_memory", [False, True])
def test_gradients_are_those_of_differences(free, save_memory):
    student, x = Student(schedules.cosine(4), solvers.get("dpmpp_2m"), free, 3), initial_noise(3, (2,), seed=2)
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)

    def loss():
        return (student.final(MIXTURE, x, save_memory) * weight).sum()

    parts = student.parameters()
    for part, grad in zip(parts, torch.autograd.grad(loss(), parts)):
        for k in range(part.numel()):
            ends = []
            for shift in (1e-6, -1e-6):
                with torch.no_grad():
                    part.view(-1)[k] += shift
                    ends.append(float(loss()))
                    part.view(-1)[k] -= shift
            assert float(grad.view(-1)[k]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("free", [("levels",), ("weights",), ("levels", "weights")])
def test_what_is_learned_is_better_on_noise_never_seen(free):
    x, new = (initial_noise(32, (2,), seed=seed) for seed in (0, 1))
    end = sample(MIXTURE, new, schedules.polynomial(200), "unipc").final
    learned = scheduling.learn_solver(MIXTURE, x, 6, free, solver="ipndm", grid=30, iterations=300)

    def error(sigmas, solver):
        return float((sample(MIXTURE, new, sigmas, solver).final - end).square().mean().sqrt())

    assert error(learned.sigmas, learned.make_solver()) < 0.7 * error(schedules.cosine(6), "ipndm")
    assert (learned.solver == "fitted") == ("weights" in free)
    assert torch.equal(learned.sigmas, schedules.cosine(6)) == ("levels" not in free)
    passes = 300 * 16 * 6 * 4 + (1 + 10) * 16 * 6  # with a backward pass as two, and one more forward to save memory
    assert learned.provenance["evaluations"] == 30 * 32 + passes


def test_a_start_that_was_fitted_is_never_made_worse_on_what_judges():
    x = initial_noise(32, (2,), seed=3)
    teacher = scheduling.teacher_paths(MIXTURE, x, grid=30)
    fitted = scheduling.fit_solver(MIXTURE, x, 5, teacher=teacher)
    learned = scheduling.learn_solver(MIXTURE, x, 5, start=fitted, teacher=teacher, iterations=30, learning_rate=0.3)
    assert learned.error <= fitted.error * (1 + 1e-9)


def test_the_network_learns_nothing_and_saving_memory_changes_nothing():
    D = edm.load("edm-digits8").requires_grad_(True)
    x = initial_noise(8, (1, 8, 8), seed=0, dtype=torch.float32)
    found = [scheduling.learn_solver(D, x, 3, grid=8, iterations=3, save_memory=flag) for flag in (True, False)]
    assert all(part.grad is None for part in D.parameters())
    torch.testing.assert_close(found[0].sigmas, found[1].sigmas, rtol=1e-4, atol=0)


def test_the_start_may_move_within_a_ball():
    x = initial_noise(16, (2,), seed=4)
    plain, relaxed = (
        scheduling.learn_solver(MIXTURE, x, 4, ("levels",), grid=20, iterations=40, relax=relax) for relax in (0, 0.02)
    )
    assert not torch.equal(plain.sigmas, relaxed.sigmas)
    assert math.isfinite(relaxed.error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"free": ()}, "free must name one of levels, weights at least"),
        ({"free": ("times",)}, "free must be one of 'levels', 'weights', got 'times'"),
        ({"nfe": 1}, "nfe must be an integer >= 2"),
        ({"solver": "heun"}, "solver must take one evaluation a step"),
        ({"start": "nothing"}, "start must be one of"),
        ({"start": scheduling.Schedule([80.0, 1.0, 0.002], "euler", 2)}, "start must have 4 steps, got 2"),
        ({"relax": 1.0}, "relax must be a finite number >= 0 and < 1"),
        ({"iterations": 0}, "iterations must be an integer >= 1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    def never(x, sigma, labels=None):
        raise AssertionError("evaluated")

    arguments = {"denoiser": never, "x": initial_noise(8, (2,)), "nfe": 4} | change
    with pytest.raises(ValueError, match=message):
        scheduling.learn_solver(**arguments)


def test_two_more_costs_of_the_programme_are_those_of_likelihood():
    D = Gaussian([0.0, 1.0], [0.2, 0.4])
    teacher = scheduling.teacher_paths(D, initial_noise(16, (2,)), grid=12)
    x, outputs, s = teacher.x, teacher.denoised, teacher.sigmas
    kl, elbo = (scheduling.cost_matrix(teacher, metric) for metric in ("kl_bound", "elbo"))
    for i, j in ((0, 1), (0, 12), (3, 7), (11, 12)):
        held = sum(
            (outputs[k] - outputs[i]).square().sum(1).mean() * (s[k + 1] ** -2 - s[k] ** -2) / 2 for k in range(i, j)
        )
        assert float(kl[i, j]) == pytest.approx(float(held), rel=1e-9, abs=1e-9)
        gap = (x[-1] - outputs[i]).square().sum(1).mean() * (s[j] ** -2 - s[i] ** -2) / 2
        assert float(elbo[i, j]) == pytest.approx(float(gap), rel=1e-9)
    path = scheduling.shortest_path(elbo, 4)
    assert float(s[path[1]]) < float(s[scheduling.shortest_path(scheduling.cost_matrix(teacher, "l2"), 4)[1]])

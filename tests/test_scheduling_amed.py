"""AMED: a step is DPM-Solver-2's with numbers of its own, learned by true gradients, and kept in a schedule."""

import math

import pytest
import torch

from teachkit import GaussianMixture, edm, initial_noise, sample, schedules, scheduling, solvers
from teachkit.scheduling import mean_direction as module
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.warm_up import WarmUp

F64 = torch.float64
MIXTURE = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.3]], [0.1, 0.2])
LEVELS = schedules.cosine(3)


def test_half_way_and_unscaled_it_is_dpm_solver_2_and_without_a_second_look_euler():
    x = initial_noise(4, (2,), seed=1)
    for options, name in (({"r": [0.5] * 3, "c": [1.0] * 3}, "dpm2"), ({"r": [0.0] * 3, "c": [1.0] * 3}, "euler")):
        ours, theirs = (sample(MIXTURE, x, LEVELS, s) for s in (scheduling.AMED(**options), name))
        torch.testing.assert_close(ours.final, theirs.final)
        assert ours.nfe == theirs.nfe


def test_a_step_goes_the_scaled_way_in_the_direction_seen_between():
    x, r, c = initial_noise(4, (2,), 3.0, seed=1), 0.3, 1.1
    level = 3.0**0.7 * 0.5**0.3
    y = x + (level - 3.0) * (x - MIXTURE(x, 3.0)) / 3.0
    expected = x + c * (0.5 - 3.0) * (y - MIXTURE(y, level)) / level
    torch.testing.assert_close(sample(MIXTURE, x, [3.0, 0.5], scheduling.AMED([r], [c])).final, expected)


@pytest.mark.parametrize("looks", [True, False])
def test_gradients_are_those_of_differences(looks):
    x = initial_noise(8, (2,), seed=2)
    with WarmUp(MIXTURE, scheduling.teacher_paths(MIXTURE, x, grid=8), 4, 0.5) as on:
        ends, rows = torch.tensor([3.0, 0.5], dtype=F64), slice(1, 4)
        y = 3 / 80 * x[rows]
        direction = (y - MIXTURE(y, 3.0)) / 3.0

        def loss(numbers):
            end = module._step(on, rows, y, direction, ends, numbers)
            return (end * torch.arange(6, dtype=F64).reshape(3, 2)).sum()

        numbers = torch.tensor([0.9, 0.4] if looks else [0.9], dtype=F64, requires_grad=True)
        (grad,) = torch.autograd.grad(loss(numbers), numbers)
        for k, shift in enumerate(1e-6 * torch.eye(len(numbers), dtype=F64)):
            slope = (loss(numbers.detach() + shift) - loss(numbers.detach() - shift)) / 2e-6
            assert float(grad[k]) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("nfe", [4, 5, 6])
def test_what_is_learned_is_better_on_noise_never_seen_and_its_cost_is_counted(nfe):
    x, new = (initial_noise(32, (2,), seed=seed) for seed in (0, 1))
    end = sample(MIXTURE, new, schedules.polynomial(200), "unipc").final
    learned = scheduling.learn_amed(MIXTURE, x, nfe, grid=30, rows=8)

    def error(solver):
        path = sample(MIXTURE, new, learned.sigmas, solver)
        assert path.nfe == nfe
        return float((path.final - end).square().mean().sqrt())

    steps = (nfe + 1) // 2
    assert error(learned.make_solver()) < 0.7 * error(solvers.get("dpm2", euler_last=nfe % 2 == 1))
    assert torch.equal(learned.sigmas, schedules.cosine(steps))
    assert [value == 0 for value in learned.options["r"]] == [n >= nfe - steps for n in range(steps)]
    # The teacher; the steps once on what is fitted to, twice on what judges; the learning, a backward pass as two.
    assert learned.provenance["evaluations"] == 30 * 32 + nfe * (16 + 2 * 16) + 100 * 8 * 3 * (nfe - steps)


def test_labels_and_guidance_are_asked_and_counted():
    x, labels = initial_noise(16, (2,), seed=5), torch.arange(16) % 2
    plain = scheduling.learn_amed(MIXTURE, x, 4, grid=8, labels=labels)
    guided = scheduling.learn_amed(MIXTURE, x, 4, grid=8, labels=labels, guidance=2.0, batch=5)
    assert guided.provenance["evaluations"] == 2 * plain.provenance["evaluations"]
    assert (plain.guidance, guided.guidance) == (1.0, 2.0)
    assert guided.options != plain.options


def test_a_schedule_keeps_what_was_learned(tmp_path):
    start = scheduling.find_schedule(
        MIXTURE, initial_noise(16, (2,)), 6, "dpm2", grid=20, options={"euler_last": False}
    )
    x = initial_noise(16, (2,), seed=3)
    learned = scheduling.learn_amed(MIXTURE, x, 2 * (len(start.sigmas) - 1), start=start, grid=20, iterations=20)
    assert torch.equal(learned.sigmas, start.sigmas)
    learned.save(tmp_path / "amed.json")
    again = scheduling.Schedule.load(tmp_path / "amed.json")
    assert again == learned
    ends = [sample(MIXTURE, x, s.sigmas, s.make_solver()).final for s in (learned, again)]
    assert torch.equal(*ends)
    with pytest.raises(ValueError, match="this schedule has learned steps, which other software does not take"):
        learned.to_comfyui()
    with pytest.raises(ValueError, match="r and c are for the levels"):
        sample(MIXTURE, x, schedules.polynomial(len(start.sigmas) - 1), learned.make_solver())


def test_what_is_worse_than_dpm_solver_2_on_what_judges_is_not_kept():
    x = initial_noise(16, (2,), seed=3)
    found = scheduling.learn_amed(MIXTURE, x, 4, grid=20, iterations=1, learning_rate=50.0)
    assert found.options == {"r": [0.5, 0.5], "c": [1.0, 1.0]}
    assert found.provenance["method"] == "DPM-Solver-2, on cosine"
    gap = (
        Conditions().sample(MIXTURE, x[8:], found.sigmas, "dpm2").final
        - scheduling.teacher_paths(MIXTURE, x, grid=20).final[8:]
    )
    assert found.error == pytest.approx(float(gap.square().mean(1).sqrt().mean()))


def test_the_network_learns_nothing_and_single_precision_is_kept():
    D = edm.load("edm-digits8").requires_grad_(True)
    x = initial_noise(8, (1, 8, 8), seed=0, dtype=torch.float32)
    learned = scheduling.learn_amed(D, x, 4, grid=8, iterations=3)
    assert all(part.grad is None for part in D.parameters())
    assert learned.sigmas.dtype == F64
    assert sample(D, x, learned.sigmas, learned.make_solver()).final.dtype == torch.float32
    assert math.isfinite(learned.error)


def test_an_error_of_nothing_teaches_nothing():
    def straight(x, sigma, labels=None):  # every solver is exact: there is no derivative of the error
        return 0 * x

    x = torch.zeros(8, 2, dtype=F64)
    assert scheduling.learn_amed(straight, x, 4, grid=8, iterations=2).error == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nfe": 1}, "nfe must be an integer >= 2"),
        ({"start": "nothing"}, "start must be one of"),
        ({"start": scheduling.Schedule([80.0, 1.0, 0.1, 0.002], "euler", 3)}, "start must have 2 steps"),
        (
            {"start": scheduling.Schedule([80.0, 1.0, 0.1], "euler", 2)},
            "sigma_min must be left out, or be that of start",
        ),
        ({"iterations": 0}, "iterations must be an integer >= 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0"),
        ({"rows": 0}, "rows must be an integer >= 1"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"x": initial_noise(7, (2,))}, "at least 8 warm-up samples"),
    ],
)
def test_bad_arguments_are_named(change, message):
    def never(x, sigma, labels=None):
        raise AssertionError("evaluated")

    with pytest.raises(ValueError, match=message):
        scheduling.learn_amed(**({"denoiser": never, "x": initial_noise(8, (2,)), "nfe": 4} | change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": [], "c": []}, "r and c must hold a number for every step, got 0 and 0"),
        ({"r": [0.5], "c": [1.0, 1.0]}, "r and c must hold a number for every step, got 1 and 2"),
        ({"r": [1.0], "c": [1.0]}, "r must be a finite number >= 0 and < 1"),
        ({"r": [0.5], "c": [math.inf]}, "c must be a finite number"),
        ({"r": [0.5], "c": [1.0], "sigmas": [2.0, 1.0, 0.5]}, "r and c are for 1 steps, but the schedule has 2"),
        ({"r": [0.5], "c": [1.0], "sigmas": [2.0, 0.0]}, "sigmas must end above 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        scheduling.AMED(**options)


def test_a_last_step_without_a_second_look_may_end_at_zero():
    x = initial_noise(4, (2,), 3.0, seed=1)
    path = sample(MIXTURE, x, [3.0, 1.0, 0.0], scheduling.AMED([0.5, 0.0], [1.0, 1.0]))
    torch.testing.assert_close(path.final, path.denoised[-1])
    with pytest.raises(ValueError, match="sigmas must end above 0"):
        sample(MIXTURE, x, [3.0, 1.0, 0.0], scheduling.AMED([0.5, 0.5], [1.0, 1.0]))

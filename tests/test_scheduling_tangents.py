"""Tangents of a multistep path's end against derivatives of the whole rollout, and what they cost."""

import pytest
import torch

from teachkit import GaussianMixture, initial_noise, schedules, scheduling
from teachkit.scheduling.fitted import fit_weights
from teachkit.scheduling.tangents import end_tangents, tangent_cost

F64 = torch.float64
MIXTURE = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.3]], [0.1, 0.2])


def rows_of(flat, lengths):
    """The weights of each step, newest first."""
    return list(flat.split(lengths))


def end(D, x, levels, rows):
    """Where a multistep path ends: the definition, step by step."""
    past = []
    for sigma, row in zip(levels, rows):
        past.insert(0, (x - D(x, sigma)) / sigma)
        x = x + sum(w * d for w, d in zip(row, past))
    return x


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("free", [True, False])
def test_tangents_are_the_derivatives_of_the_end(order, free):
    sigmas, x = schedules.cosine(5), initial_noise(6, (2,), seed=1)
    lengths = [min(n + 1, order) for n in range(5)]
    flat = torch.randn(sum(lengths), generator=torch.Generator().manual_seed(0), dtype=F64)
    flat = (
        torch.cat([torch.tensor([h] + [0.0] * (k - 1)) for h, k in zip(sigmas.diff().tolist(), lengths)]) + 0.01 * flat
    )
    numbers = torch.cat([sigmas[1:-1].log(), flat]) if free else flat

    def of(u):
        inner = 4 if free else 0
        levels = torch.cat([sigmas[:1], u[:inner].exp(), sigmas[-1:]]) if free else sigmas
        return end(MIXTURE, x, levels, rows_of(u[inner:], lengths)).flatten(1)

    expected = torch.autograd.functional.jacobian(of, numbers)
    found = end_tangents(MIXTURE, x, sigmas, rows_of(flat, lengths), free, 1e-6)
    scale = expected.abs().amax((0, 1))
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("levels", [True, False])
@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [1, 2, 3, 4], [1, 2, 2, 2, 2]])
def test_they_cost_what_is_said(lengths, levels):
    calls, sigmas = [], schedules.polynomial(len(lengths))

    def counted(y, sigma):
        calls.append(sigma)
        return MIXTURE(y, sigma)

    rows = [torch.full((k,), -0.1, dtype=F64) for k in lengths]
    end_tangents(counted, initial_noise(3, (2,)), sigmas, rows, levels)
    assert len(calls) == len(lengths) + tangent_cost(lengths, levels)


def test_a_number_costs_nothing_before_it_enters():
    assert [tangent_cost([1, 2, 3], free) for free in (False, True)] == [0 + 1 + 3, 0 + 2 + 5]


def test_fitted_weights_and_levels_beat_what_is_solved_for_step_by_step_on_fresh_noise():
    x, new = (initial_noise(64, (2,), seed=seed) for seed in (0, 1))
    truth = scheduling.teacher_paths(MIXTURE, new).final
    errors = []
    for refine in (False, True):
        found = scheduling.fit_solver(MIXTURE, x, 5, refine=refine)
        final = end(MIXTURE, new, found.sigmas, [torch.tensor(row) for row in found.options["weights"]])
        errors.append(float((final - truth).norm(dim=1).mean()))
    assert errors[1] < 0.5 * errors[0], errors


def test_a_direction_of_no_length_is_no_trouble():
    """All data in one point and the state on it: nothing moves, and the weights stay finite."""
    point = GaussianMixture([1.0], torch.zeros(1, 3).double(), torch.eye(3).double()[None])
    x, sigmas = torch.zeros(8, 3, dtype=F64), schedules.polynomial(4)
    weights, final = fit_weights(point, x, sigmas, torch.zeros(5, 8, 3).double(), 2)
    assert torch.tensor([w for row in weights for w in row]).isfinite().all()
    assert torch.equal(final, x)
    tangents = end_tangents(point, x, sigmas, [torch.tensor(row) for row in weights], True)
    assert torch.equal(tangents, torch.zeros(8, 3, 3 + 7, dtype=F64))

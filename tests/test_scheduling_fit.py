"""Looking ahead where paths fork: what it makes smaller, and where it changes nothing."""

import pytest
import torch

from teachkit import GaussianMixture, initial_noise, sample, schedules, scheduling
from teachkit.scheduling.fitted import FittedMultistep, fit_weights
from teachkit.scheduling.teacher import states_at


@pytest.fixture(scope="module")
def forked() -> GaussianMixture:
    """Two narrow components: paths fork, and the denoiser is steep across the fork and flat along it."""
    means = torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]], dtype=torch.float64)
    return GaussianMixture([0.5, 0.5], means, torch.eye(4).double().mul(0.01).expand(2, 4, 4))


def test_looking_ahead_lands_nearer_one_euler_step_later(forked):
    """The distance after an Euler step falls, though that at the level itself, which plain fitting minimises, rises."""
    sigmas = torch.tensor([80.0, 1.5, 0.3, 0.002], dtype=torch.float64)
    x = initial_noise(512, (4,), seed=0).double()
    targets = states_at(scheduling.teacher_paths(forked, x), sigmas)
    now, later = [], []
    for ahead in (0, 2):
        weights, _ = fit_weights(forked, x, sigmas, targets, 1, 0.0, ahead)
        state = x + weights[0][0] * (x - forked(x, 80.0)) / 80.0
        steps = [0.2 * y + 0.8 * forked(y, 1.5) for y in (state, targets[1])]  # from 1.5 to 0.3
        now.append(float((state - targets[1]).norm(dim=1).mean()))
        later.append(float((steps[0] - steps[1]).norm(dim=1).mean()))
    assert later[1] < 0.95 * later[0]
    assert now[1] > now[0]


def test_looking_ahead_ends_nearer_on_fresh_noise(forked):
    sigmas = schedules.cosine(4)
    x, fresh = (initial_noise(512, (4,), seed=s).double() for s in (0, 1))
    targets = states_at(scheduling.teacher_paths(forked, x), sigmas)
    truth = scheduling.teacher_paths(forked, fresh).final
    errors = []
    for ahead in (0, 2):
        weights, _ = fit_weights(forked, x, sigmas, targets, 3, 1e-12, ahead)
        final = sample(forked, fresh, sigmas, FittedMultistep(weights), keep="final").final
        errors.append(float((final - truth).norm(dim=1).mean()))
    assert errors[1] < 0.9 * errors[0], errors


def test_looking_ahead_changes_nothing_where_all_is_exact():
    """One Gaussian with scaled identity covariance: one direction is exact, before and after looking ahead."""
    gaussian = GaussianMixture([1.0], torch.zeros(1, 3).double(), 0.25 * torch.eye(3).double()[None])
    sigmas = schedules.polynomial(5)
    x = initial_noise(32, (3,), seed=0).double()
    targets = torch.stack([x * ((0.25 + s**2) / (0.25 + sigmas[0] ** 2)).sqrt() for s in sigmas])
    for ahead in (0, 1, 2):
        _, final = fit_weights(gaussian, x, sigmas, targets, 1, 0.0, ahead)
        torch.testing.assert_close(final, targets[-1], rtol=1e-6, atol=1e-9)


def test_a_direction_of_no_length_is_no_trouble():
    """All data in one point and the state on it: nothing moves, and the weights stay finite."""
    point = GaussianMixture([1.0], torch.zeros(1, 3).double(), torch.eye(3).double()[None])
    x = torch.zeros(8, 3, dtype=torch.float64)
    sigmas = schedules.polynomial(4)
    weights, final = fit_weights(point, x, sigmas, torch.zeros(5, 8, 3).double(), 2, 1e-3, 1)
    assert torch.tensor([w for row in weights for w in row]).isfinite().all()
    assert torch.equal(final, x)

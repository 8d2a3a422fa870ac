"""A model in closed form in place of the network: levels and weights that cost no evaluation of it."""

import pytest
import torch

from teachkit import Gaussian, LowRankMixture, data, edm, initial_noise, sample, schedules, scheduling

ONES = torch.ones(8, 1, 8, 8, dtype=torch.float64)  # 80 times it: the mean over the noise, exactly


@pytest.fixture(scope="module")
def error():
    """Mean error on the network, on noise that nothing was fitted to."""
    D, x = edm.load("edm-digits8"), initial_noise(96, (1, 8, 8), seed=1001)
    exact = scheduling.teacher_paths(D, x).final

    def of(sigmas, solver):
        gap = sample(D, x, sigmas, solver, keep="final").final - exact
        return float(gap.flatten(1).square().mean(1).sqrt().mean())

    return of


@pytest.mark.parametrize(("nfe", "share"), [(5, 0.95), (6, 0.9), (8, 0.9)])
def test_levels_from_a_power_law_are_better_than_every_usual_grid(error, nfe, share):
    paths = scheduling.teacher_paths(Gaussian.power_law((1, 8, 8)), 80.0 * ONES)
    usual = min(error(make(nfe), "deis") for make in schedules.REGISTRY.values())
    assert error(scheduling.score_optimal(paths, nfe), "deis") < share * usual


@pytest.mark.parametrize(("nfe", "share"), [(4, 0.75), (6, 0.6)])
def test_a_solver_fitted_to_the_mixture_of_the_classes_is_better_than_every_usual_one(error, nfe, share):
    digits = data.load("digits8")
    mixture = LowRankMixture.fit(digits.images.double(), digits.labels)
    found = scheduling.fit_solver(mixture, initial_noise(96, (1, 8, 8), seed=7), nfe)
    assert found.provenance["model"]["type"] == "LowRankMixture"
    usual = min(
        error(make(nfe), solver) for make in schedules.REGISTRY.values() for solver in ("ipndm", "deis", "unipc")
    )
    assert error(found.sigmas, found.make_solver()) < share * usual


def test_the_mean_over_the_noise_is_one_sample_of_its_root_mean_square():
    """So that a fit to a Gaussian needs no noise: what it finds is what many samples find."""
    D, nfe = Gaussian.power_law((1, 8, 8)), 4
    exact = scheduling.fit_solver(D, 80.0 * ONES, nfe, refine=False)
    new = initial_noise(4096, (1, 8, 8), seed=5)
    gap = sample(D, new, exact.sigmas, exact.make_solver(), keep="final").final - D.flow(new, 80.0, 0.002)
    assert float(gap.square().mean().sqrt()) == pytest.approx(exact.error, rel=0.02)


def test_large_images_need_no_large_matrices():
    D = Gaussian.power_law((3, 64, 64))
    levels = scheduling.score_optimal(scheduling.teacher_paths(D, torch.full((1, 3, 64, 64), 80.0).double()), 6)
    assert max(buffer.numel() for buffer in D.buffers()) == 3 * 64 * 64
    assert levels[[0, -1]].tolist() == [80.0, 0.002]

"""Mean shift: ascent, modes, merging, and Silverman's theorem in one dimension."""

import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachkit import Empirical, GaussianMixture, meanshift, sample, schedules

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), h=st.floats(0.05, 5))
def test_density_rises_by_at_least_the_squared_step(seed, h):
    D, x = Empirical(normal(25, 3, seed=seed)), 3 * normal(5, 3, seed=seed + 1)
    path = meanshift.mean_shift(D, x, h, max_steps=20)
    log_p = torch.stack([D.log_prob(p, h) for p in path])
    bound = ((path[1:] - path[:-1]) ** 2).sum(-1) / (2 * h**2)
    assert (log_p.diff(dim=0) >= bound - 1e-7).all()


def test_another_bandwidth_gives_no_such_promise():
    # Two points 0 and 10, x = 1: the mean at bandwidth 100 is 4.99, and log p_1 falls by 11.3 nats.
    D, x = Empirical(torch.tensor([[0.0], [10.0]], dtype=F64)), torch.tensor([[1.0]], dtype=F64)
    moved = D(x, 100.0)
    assert float(moved) == pytest.approx(4.99, abs=1e-3)
    assert float(D.log_prob(moved, 1.0) - D.log_prob(x, 1.0)) == pytest.approx(-11.3, abs=0.1)


def test_modes_of_well_separated_clusters_are_found_and_starts_assigned():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], dtype=F64)
    D = GaussianMixture([0.2, 0.3, 0.5], centres, 0.05)
    start = centres.repeat_interleave(4, 0) + 0.3 * normal(12, 2)
    modes, index = meanshift.modes(D, start, 0.2)
    assert len(modes) == 3
    torch.testing.assert_close(modes[index[[0, 4, 8]]], centres, atol=1e-3, rtol=0)
    assert index.tolist() == sorted(index.tolist())


def test_annealing_forgets_the_start_where_a_fixed_bandwidth_does_not():
    y = torch.cat([normal(60, 2) * 0.1, normal(20, 2, seed=1) * 0.1 + 3.0])
    D, x = Empirical(y), torch.tensor([[5.0, 5.0], [-3.0, -2.0]], dtype=F64)
    fixed = meanshift.mean_shift(D, x, 0.1)[-1]
    annealed = meanshift.annealed_mean_shift(D, x, torch.logspace(1, -1, 30).tolist())[-1]
    assert float((fixed[0] - fixed[1]).norm()) > 3
    assert float((annealed[0] - annealed[1]).norm()) < 0.1


def test_number_of_modes_never_rises_with_bandwidth_in_one_dimension():
    D = Empirical(normal(30, 1, seed=4))
    x = torch.linspace(-4, 4, 3001, dtype=F64)[:, None]
    counts = []
    for h in torch.logspace(-2, 0.7, 40).tolist():
        rising = D.log_prob(x, h).diff() > 0
        counts.append(int((rising[:-1] & ~rising[1:]).sum()))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 10
    assert counts[-1] == 1


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), h=st.floats(0.1, 5))
def test_density_rises_on_a_mixture_too_and_the_end_is_a_fixed_point(seed, h):
    spread = torch.tensor([0.5, 0.1, 0.9], dtype=F64)
    D, x = GaussianMixture([0.2, 0.3, 0.5], normal(3, 2, seed=seed), spread), 3 * normal(5, 2, seed=seed + 1)
    path = meanshift.mean_shift(D, x, h, max_steps=20_000, tolerance=1e-9)
    assert len(path) < 20_000  # it stopped by itself
    assert (torch.stack([D.log_prob(p, h) for p in path]).diff(dim=0) >= -1e-9).all()
    (slope,) = torch.autograd.grad(D.log_prob(end := path[-1].clone().requires_grad_(True), h).sum(), end)
    assert float(slope.norm(dim=1).max()) < 1e-8 / h  # tolerance * bandwidth / bandwidth^2


def test_one_step_is_the_kernel_weighted_mean_and_a_full_euler_step():
    y, x = normal(30, 2), normal(5, 2, seed=1)
    for h in (0.1, 0.7, 3.0):
        kernel = torch.exp(-((x[:, None] - y) ** 2).sum(-1) / (2 * h**2))
        expected = (kernel[..., None] * y).sum(1) / kernel.sum(1, keepdim=True)
        step = meanshift.mean_shift(Empirical(y), x, h, max_steps=1)
        assert step.shape == (2, 5, 2)
        assert torch.equal(step[0], x)
        torch.testing.assert_close(step[1], expected)
        torch.testing.assert_close(sample(Empirical(y), x, [h, 0.0]).final, step[1])


def test_annealing_is_a_chain_of_full_euler_steps_of_which_the_sampler_goes_a_fraction():
    D, x, levels = Empirical(normal(30, 2)), 5 * normal(4, 2, seed=1), schedules.logsnr(6, 0.1, 5.0).tolist()
    annealed, point = meanshift.annealed_mean_shift(D, x, levels), x
    for i, h in enumerate(levels):
        point = sample(D, point, [h, 0.0]).final
        torch.testing.assert_close(annealed[i + 1], point)
    path = sample(D, x, levels)
    for i in range(6):  # Euler goes the fraction 1 - sigma_next / sigma of the mean-shift step
        full = meanshift.mean_shift(D, path.x[i], levels[i], max_steps=1)[1]
        fraction = 1 - levels[i + 1] / levels[i]
        torch.testing.assert_close(path.x[i + 1] - path.x[i], fraction * (full - path.x[i]))


def test_annealing_finds_the_global_mode_that_a_fixed_bandwidth_misses():
    # One broad heavy cluster, one light: from beside the light one, only annealing crosses over.
    D = GaussianMixture([0.95, 0.05], [[0.0, 0.0], [4.0, 0.0]], 0.05)
    x = torch.tensor([[4.5, 0.0], [4.0, 1.0], [-1.0, 1.0]], dtype=F64)
    annealed = meanshift.annealed_mean_shift(D, x, torch.logspace(1.5, -1, 60).tolist())[-1]
    assert float(annealed.norm(dim=1).max()) < 0.1
    fixed = meanshift.mean_shift(D, x, 0.1)[-1]
    torch.testing.assert_close(fixed[:2], torch.tensor([[4.0, 0.0]] * 2, dtype=F64), atol=0.01, rtol=0)


def test_the_modes_found_by_climbing_from_the_data_are_the_peaks_of_the_density():
    y = normal(40, 1, seed=3)
    x = torch.linspace(-4, 4, 8001, dtype=F64)[:, None]
    for h in (0.1, 0.2, 0.4, 1.0):
        D = Empirical(y)
        log_p = D.log_prob(x, h)
        peaks = x[1:-1][(log_p[1:-1] > log_p[:-2]) & (log_p[1:-1] > log_p[2:])].flatten()
        found, index = meanshift.modes(D, y, h, max_steps=20_000)
        torch.testing.assert_close(found.flatten().sort().values, peaks, atol=2e-3, rtol=0)
        assert index.shape == (40,)
        assert set(index.tolist()) == set(range(len(found)))


def test_looking_for_modes_does_not_hold_the_paths():
    made, most = [], 0

    def denoiser(x, sigma, labels=None):
        nonlocal most
        out = 0.999 * x
        made.append(weakref.ref(out))
        most = max(most, sum(ref() is not None for ref in made))
        return out

    meanshift.modes(denoiser, normal(3, 2), 1.0, max_steps=200, tolerance=1e-12)
    assert len(made) == 200
    assert most <= 4  # counted while it runs: the current points and the ones before


@given(
    points=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=15),
    tolerance=st.floats(0.01, 3),
)
def test_merging_keeps_distant_points_and_assigns_every_one_to_a_near_one(points, tolerance):
    points = torch.tensor(points, dtype=F64)
    kept, index = meanshift.merge(points, tolerance)
    assert float((points - kept[index]).norm(dim=1).max()) <= tolerance
    gaps = (kept[:, None] - kept).norm(dim=-1) + 1e9 * torch.eye(len(kept), dtype=F64)
    assert float(gaps.min()) > tolerance
    again, _ = meanshift.merge(kept, tolerance)
    assert torch.equal(again, kept)
    assert index.unique().tolist() == list(range(len(kept)))


def test_merge():
    points = torch.tensor([[0.0], [0.05], [1.0], [0.02], [1.04]], dtype=F64)
    kept, index = meanshift.merge(points, 0.1)
    assert kept.tolist() == [[0.0], [1.0]]
    assert index.tolist() == [0, 0, 1, 0, 1]


def test_bad_arguments_are_named():
    D, x = Empirical(normal(5, 2)), normal(2, 2)
    with pytest.raises(ValueError, match="bandwidth must be a finite number > 0"):
        meanshift.mean_shift(D, x, 0.0)
    with pytest.raises(ValueError, match="max_steps must be an integer >= 1"):
        meanshift.mean_shift(D, x, 1.0, max_steps=0)
    with pytest.raises(ValueError, match="bandwidths must hold"):
        meanshift.annealed_mean_shift(D, x, [])
    with pytest.raises(ValueError, match="bandwidths must be a finite number > 0"):
        meanshift.annealed_mean_shift(D, x, [1.0, 0.0])
    for bad in (1.0, ["a"], None):
        with pytest.raises(TypeError, match="bandwidths must be a"):
            meanshift.annealed_mean_shift(D, x, bad)
    for bad, name in (
        (torch.zeros(3), r"points must have shape \(B, \*event\)"),
        (x * math.nan, "points must be finite"),
    ):
        with pytest.raises(ValueError, match=name):
            meanshift.merge(bad, 0.1)
    with pytest.raises(ValueError, match="tolerance must be"):
        meanshift.merge(x, -1.0)


@pytest.mark.parametrize(
    "options",
    [{"bandwidth": math.nan}, {"max_steps": 0}, {"tolerance": 0.0}, {"merge_tolerance": -1.0}],
)
def test_bad_options_are_named_before_any_evaluation(options):
    def denoiser(x, sigma, labels=None):
        raise AssertionError("evaluated")

    with pytest.raises(ValueError, match=next(iter(options))):
        meanshift.modes(denoiser, normal(2, 2), **{"bandwidth": 1.0, **options})
    with pytest.raises(TypeError, match=r"max_steps must be an integer >= 1, got 2\.5"):
        meanshift.modes(denoiser, normal(2, 2), bandwidth=1.0, max_steps=2.5)

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
    assert len(made) >= 400  # a climb of 200 steps, and one from beside its ends at least
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


# --- modes that are none ---------------------------------------------------------------------------------------------


def is_a_maximum(D, points, h, reach=0.05):
    """Whether the density is lower on a sphere around every point."""
    around = torch.nn.functional.normalize(normal(200, *points.shape[1:], seed=3), dim=1) * reach * h
    return all(bool((D.log_prob(p + around, h) < D.log_prob(p[None], h)).all()) for p in points)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("shift", [0.0, 2.0**20, -(2.0**30)])
def test_a_minimum_where_symmetry_stops_the_climb_is_no_mode(dtype, shift):
    unit = 1.0 if dtype == F64 else 2.0**12  # what float32 can resolve there
    y = (unit * torch.tensor([[-1.0]] * 3 + [[0.0]] + [[1.0]] * 3, dtype=F64) + shift).to(dtype)
    modes, index = meanshift.modes(Empirical(y), y, 0.7 * unit)
    peak = 0.779081 * unit
    expected = (torch.tensor([[-peak], [peak]], dtype=F64) + shift).to(dtype)
    off = 2e-3 * unit + 2 * torch.finfo(dtype).eps * abs(shift)
    torch.testing.assert_close(modes, expected, rtol=0, atol=off)
    assert index.tolist()[:3] == [0] * 3
    assert index.tolist()[4:] == [1] * 3
    alone, index = meanshift.modes(Empirical(y), y[3:4], 0.7 * unit)  # one mode or the other, never the middle
    assert float((alone - shift).abs()) == pytest.approx(peak, abs=off)
    assert index.tolist() == [0]


def test_saddles_and_the_minimum_of_four_corners_are_no_modes():
    corners = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)], dtype=F64)
    others = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=F64)
    for weights in (1, torch.tensor([5, 1, 1, 5])):
        D = Empirical(corners.repeat_interleave(torch.as_tensor(weights).expand(4), 0))
        modes, index = meanshift.modes(D, torch.cat([others, corners]), 0.5)
        assert len(modes) == 4
        assert is_a_maximum(D, modes, 0.5)
        torch.testing.assert_close(modes[index[5:]], corners, rtol=0, atol=5e-3)
        only, _ = meanshift.modes(D, others, 0.5)
        assert is_a_maximum(D, only, 0.5)
        assert float((only[:, None] - corners).norm(dim=-1).amin(1).max()) < 5e-3


def test_many_copies_are_one_mode_each():
    y = torch.tensor([[-1.0]] * 9 + [[0.0]] * 3 + [[1.0]] * 9, dtype=F64)
    modes, index = meanshift.modes(Empirical(y), y, 0.2)
    torch.testing.assert_close(modes, torch.tensor([[-1.0], [0.0], [1.0]], dtype=F64), rtol=0, atol=1e-4)
    assert index.tolist() == [0] * 9 + [1] * 3 + [2] * 9


@pytest.mark.parametrize(("h", "count"), [(0.95, 2), (0.999, 2), (1.0, 1), (1.001, 1), (1.2, 1)])
def test_two_points_make_two_modes_below_half_their_distance(h, count):
    y = torch.tensor([[-1.0], [1.0], [0.0]], dtype=F64)  # at h = 1 the density is flat to the fourth order at 0
    modes, _ = meanshift.modes(Empirical(y[:2]), y, h)
    assert len(modes) == count
    if count == 2:  # a solution of x = tanh(x / h^2)
        torch.testing.assert_close(modes.abs(), torch.tanh(modes.abs() / h**2), rtol=0, atol=1e-5)


def test_a_shoulder_is_no_mode():
    D = GaussianMixture([0.7, 0.3], [[0.0], [2.1]], torch.tensor([0.81, 0.25], dtype=F64))
    x = torch.linspace(-3, 4, 1401, dtype=F64)[:, None]
    for h in (0.1, 0.4, 0.5, 0.52, 0.55, 0.7):
        log_p = D.log_prob(x, h)
        peaks = x[1:-1][(log_p[1:-1] > log_p[:-2]) & (log_p[1:-1] > log_p[2:])]
        modes, _ = meanshift.modes(D, x[::50], h)
        torch.testing.assert_close(modes.sort(0).values, peaks, rtol=0, atol=0.01)


@pytest.mark.slow
def test_a_plateau_is_one_mode_and_a_dip_makes_two():
    even, turn = torch.linspace(0, 6, 61, dtype=F64)[:, None], torch.arange(60, dtype=F64)[:, None] * (math.pi / 30)
    assert len(meanshift.modes(Empirical(even), even, 0.3)[0]) == 1
    gap = torch.cat([even[:26], even[35:]])
    modes, index = meanshift.modes(Empirical(gap), gap, 0.3)
    assert len(modes) == 2
    assert index.tolist() == [0] * 26 + [1] * 26
    assert len(meanshift.modes(Empirical(even), even, 0.04)[0]) == 61  # points far apart, for this bandwidth
    ring = torch.cat([turn.cos(), turn.sin()], 1)  # level along the ring, which no straight line follows
    assert len(meanshift.modes(Empirical(ring), ring, 0.3)[0]) == 1
    assert len(meanshift.modes(Empirical(ring), torch.cat([ring, torch.zeros(1, 2, dtype=F64)]), 0.04)[0]) == 60


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), h=st.floats(0.15, 1.5), d=st.integers(1, 3), mirror=st.booleans())
def test_every_mode_is_a_maximum_of_the_density(seed, h, d, mirror):
    y = normal(8, d, seed=seed)
    if mirror:  # a saddle or a minimum on the plane of symmetry, and starts that are led there
        flipped = y * torch.tensor([-1.0] + [1.0] * (d - 1), dtype=F64)
        y = torch.cat([y, flipped, (y + flipped) / 2])
    D = Empirical(y[:16])
    modes, index = meanshift.modes(D, y, h, max_steps=20_000)
    assert is_a_maximum(D, modes, h, reach=0.2)
    assert index.shape == (len(y),)
    assert set(index.tolist()) == set(range(len(modes)))

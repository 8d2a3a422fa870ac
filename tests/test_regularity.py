"""Why paths are shaped as they are: each statement as a property, each null model against its theory."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teachkit import (
    Empirical,
    Gaussian,
    GaussianMixture,
    Trajectory,
    geometry,
    initial_noise,
    regularity,
    sample,
    schedules,
)

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.fixture(scope="module")
def empirical(digits):
    return Empirical(digits[:300])


@pytest.fixture(scope="module")
def paths(empirical):
    return sample(empirical, initial_noise(6, (1, 8, 8), seed=0), schedules.polynomial(40))


@given(st.lists(st.floats(0.01, 2), min_size=1, max_size=12), st.booleans())
def test_unrolled_weights_are_shares_of_one(increments, zero):
    sigmas = torch.tensor([0.0 if zero else 0.002, *increments], dtype=F64).cumsum(0).flip(0)
    start, weights = regularity.unrolled_weights(sigmas)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(start + weights.sum(1), torch.ones(len(sigmas), dtype=F64), atol=1e-12, rtol=0)
    torch.testing.assert_close(weights.sum(1), 1 - sigmas / sigmas[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("zero", [False, True])
def test_unrolled_weights_rebuild_every_state_of_euler_and_not_of_heun(empirical, zero):
    sigmas = schedules.polynomial(20, zero=zero)
    start, weights = regularity.unrolled_weights(sigmas)
    gap = []
    for solver in ("euler", "heun"):
        traj = sample(empirical, initial_noise(3, (64,), seed=1).reshape(3, 1, 8, 8), sigmas, solver)
        rebuilt = start.reshape(-1, 1, 1, 1, 1) * traj.x[0] + torch.einsum("nm,mb...->nb...", weights, traj.denoised)
        gap.append(float((rebuilt - traj.x).abs().max()))
    assert gap[0] < 1e-12 * 80 * 8
    assert gap[1] > 1e-3


@pytest.mark.parametrize("solver", ["euler", "ipndm", "dpmpp_2m"])
def test_paths_lie_in_the_span_of_start_and_outputs(paths, empirical, solver):
    traj = sample(empirical, paths.x[0], paths.sigmas, solver)
    assert float(regularity.span_residual(traj).max()) < 1e-9
    moved = traj.x.clone()
    moved[20] += 0.1 * normal(*moved[20].shape)
    residual = regularity.span_residual(type(traj)(traj.sigmas, moved, traj.denoised, traj.nfe))
    assert float(residual[20].min()) > 0.1


@given(st.integers(0, 1000), st.floats(0.05, 20.0))
def test_likelihood_rises_along_the_segment_by_at_least_the_bound(seed, sigma):
    D = GaussianMixture([0.2, 0.5, 0.3], 3 * normal(3, 4, seed=seed), [0.3, 0.1, 0.6])
    x = 3 * normal(5, 4, seed=seed + 1) + sigma * normal(5, 4, seed=seed + 2)
    gain, bound = regularity.likelihood_gain(D, x, sigma)
    assert gain.shape == bound.shape == (17, 5)
    slack = 1e-9 * (1 + float(gain.abs().max()))
    assert float((gain - bound).min()) > -slack
    assert float(gain.diff(dim=0).min()) > -slack
    torch.testing.assert_close(bound[-1], ((D(x, sigma) - x) ** 2).sum(1) / (2 * sigma**2))


def test_the_likelihood_bound_is_reached_by_a_single_point():
    gain, bound = regularity.likelihood_gain(Empirical(normal(1, 3)), normal(4, 3, seed=1), 0.7)
    torch.testing.assert_close(gain, bound)


def test_the_mean_at_one_bandwidth_can_lower_the_density_at_another():
    D, x = Empirical(torch.tensor([[0.0], [10.0]], dtype=F64)), torch.tensor([[1.0]], dtype=F64)
    assert float(D.log_prob(D(x, 100.0), 1.0) - D.log_prob(x, 1.0)) == pytest.approx(-11.3, abs=0.05)


def test_effective_neighbours_fall_from_all_to_one(paths, empirical):
    count = regularity.effective_neighbours(empirical, paths)
    assert count.shape == (41, 6)
    assert float(count[0].min()) > 0.8 * len(empirical)
    torch.testing.assert_close(count[-1], torch.ones(6, dtype=F64))
    two = Empirical(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=F64))
    middle = sample(two, torch.tensor([[0.0, 3.0]], dtype=F64), [5.0, 2.0, 1.0])
    torch.testing.assert_close(regularity.effective_neighbours(two, middle), torch.full((3, 1), 2.0, dtype=F64))


def curvature_at_the_centre(D, sigma, h=1e-3):
    x = torch.tensor([[-h, 0.0], [0.0, 0.0], [h, 0.0]], dtype=F64)
    below, at, above = D.log_prob(x, sigma)
    return float(below - 2 * at + above)


@pytest.mark.parametrize("m", [1.0, 4.0])
def test_speciation_is_where_two_points_split(m):
    points = torch.tensor([[-m, 0.0], [m, 0.0]], dtype=F64)
    level = regularity.speciation_sigma(points)
    assert level == pytest.approx(m)
    assert (
        curvature_at_the_centre(Empirical(points), 1.01 * level)
        < 0
        < curvature_at_the_centre(Empirical(points), 0.99 * level)
    )


def test_speciation_of_two_gaussians_is_close_when_they_are_far_apart():
    m, s = 5.0, 1.0
    D = GaussianMixture([0.5, 0.5], torch.tensor([[-m, 0.0], [m, 0.0]], dtype=F64), [s**2, s**2])
    exact = math.sqrt(m**2 - s**2)
    assert curvature_at_the_centre(D, 1.001 * exact) < 0 < curvature_at_the_centre(D, 0.999 * exact)
    level = regularity.speciation_sigma(D.sample(20_000, generator=torch.Generator().manual_seed(0)))
    assert level == pytest.approx(math.sqrt(m**2 + s**2), rel=0.01)
    assert level == pytest.approx(exact, rel=0.06)


@pytest.mark.parametrize("d", [4, 1024])
def test_noise_norm_is_constant_in_high_dimension_only(d):
    D = Gaussian(torch.zeros(d, dtype=F64), torch.eye(d, dtype=F64)[0] * 0.5)  # a line of data
    traj = sample(D, initial_noise(20, (d,), seed=0), schedules.polynomial(60))
    mean, spread = regularity.noise_norm_spread(traj)
    assert mean.shape == spread.shape == (20,)
    if d == 1024:
        assert float((mean - 1).abs().max()) < 0.1
        assert float(spread.max()) < math.sqrt(2 / d)
    else:
        assert float(mean.std()) > 0.1


def test_random_walk_has_the_shares_of_theory():
    shares = geometry.explained_variance(regularity.random_walk(300, 4, 3000), 3).mean(0)
    assert shares.tolist() == pytest.approx([0.608, 0.760, 0.827], abs=0.015)


def test_brownian_bridge_has_the_shares_of_theory():
    bridge = regularity.brownian_bridge(300, 4, 3000)
    assert float(bridge[[0, -1]].abs().max()) == 0
    assert geometry.explained_variance(bridge, 3).mean(0).tolist() == pytest.approx([0.304, 0.608, 0.684], abs=0.015)
    uncentred = geometry.explained_variance(bridge, 3, centre=False).mean(0)
    assert uncentred.tolist() == pytest.approx([0.608, 0.760, 0.827], abs=0.015)


def test_integrated_walk_is_smooth_and_has_the_shares_of_two_integrations():
    walk = regularity.integrated_walk(300, 4, 3000)
    assert float(walk[[0, -1]].abs().max()) == 0
    assert geometry.explained_variance(walk, 3).mean(0).tolist() == pytest.approx([0.693, 0.933, 0.965], abs=0.015)
    # Removing the chord of a free walk, as a geometer would, gives the same shares.
    free = regularity.random_walk(300, 4, 3000, seed=9).cumsum(0)
    cut = geometry.explained_variance(free, 3, remove_chord=True).mean(0)
    assert cut.tolist() == pytest.approx([0.693, 0.933, 0.965], abs=0.015)
    # Twice as many steps: differences of neighbours fall in proportion (smooth), those of a bridge as the root.
    for null, ratio in ((regularity.integrated_walk, 2.0), (regularity.brownian_bridge, 2**0.5)):
        coarse, fine = (null(n, 4, 300).diff(dim=0).square().mean().sqrt() for n in (200, 400))
        assert float(coarse / fine) == pytest.approx(ratio, rel=0.05)


def test_integrated_walk_has_the_covariance_of_a_pinned_integrated_walk():
    # Var(w(t) | w(1) = 0) = t^3/3 - (t^2/2 - t^3/6)^2 / (1/3) for w'' = white noise, here in units of Var(w(1)) = 1/3.
    walk = regularity.integrated_walk(400, 200, 50, seed=4).flatten(1)
    t = torch.linspace(0, 1, 401, dtype=F64)
    theory = 3 * (t**3 / 3 - 3 * (t**2 / 2 - t**3 / 6) ** 2)
    torch.testing.assert_close(walk.square().mean(1), theory, atol=5e-4, rtol=0.05)
    later = regularity.integrated_walk(400, 200, 50, seed=5).flatten(1)
    assert abs(float((walk * later).mean())) < 1e-3
    assert torch.equal(walk, regularity.integrated_walk(400, 200, 50, seed=4).flatten(1))
    assert float(regularity.integrated_walk(1, 3, 2).abs().max()) == 0


@pytest.mark.parametrize("null", ["brownian_bridge", "integrated_walk"])
def test_nulls_do_not_depend_on_where_the_origin_lies_or_on_the_unit(paths, null):
    fake = getattr(regularity, null)(40, 6, 64, seed=3, like=paths.x)
    moved = getattr(regularity, null)(40, 6, 64, seed=3, like=10 * paths.x + 7)
    torch.testing.assert_close(moved, 10 * fake + 7)


@pytest.mark.parametrize(("null", "most"), [("brownian_bridge", 0.85), ("integrated_walk", 0.98)])
def test_null_around_a_chord_keeps_ends_and_size(paths, null, most):
    fake = getattr(regularity, null)(40, 6, 64, seed=3, like=paths)
    real = paths.x.flatten(2)
    torch.testing.assert_close(fake[[0, -1]], real[[0, -1]])
    size = [geometry.deviation(c).square().mean(0).sqrt() for c in (fake, real)]
    torch.testing.assert_close(size[0], size[1])
    along = [geometry.project(c)[..., 0] for c in (fake, real)]
    torch.testing.assert_close(along[0], along[1])
    shares = [geometry.explained_variance(c, 2, remove_chord=True)[:, 1] for c in (fake, real)]
    assert float(shares[0].mean()) < most < float(shares[1].mean())


def test_time_shuffled_keeps_points_and_loses_order():
    curves = torch.arange(50, dtype=F64).reshape(50, 1, 1).expand(50, 3, 2)
    shuffled = regularity.time_shuffled(curves, seed=1)
    torch.testing.assert_close(shuffled.sort(0).values, curves)
    assert not torch.equal(shuffled[:, 0], shuffled[:, 1])
    assert torch.equal(shuffled, regularity.time_shuffled(curves, seed=1))
    assert torch.equal(shuffled[..., 0], shuffled[..., 1])  # points stay whole


def test_state_gap_is_zero_for_the_same_denoiser_and_grows_for_a_gaussian(paths, digits):
    assert float(regularity.state_gap(paths, paths).max()) == 0
    gaussian = sample(Gaussian.fit(digits[:300]), paths.x[0], paths.sigmas)
    gap = regularity.state_gap(gaussian, paths)
    radius = float((paths.final - paths.final.mean(0)).flatten(1).square().sum(1).mean().sqrt())
    torch.testing.assert_close(gap * radius, (gaussian.x - paths.x).flatten(2).norm(dim=-1))
    at = [int((paths.sigmas - s).abs().argmin()) for s in (12.4, 2.5, 0.5)]
    early, middle, late = gap.mean(1)[at].tolist()
    assert early < 0.01 < middle < 0.2 < late
    torch.testing.assert_close(regularity.state_gap(gaussian, paths, radius=1.0), gap * radius)


def test_teleport_is_what_many_small_steps_do(digits):
    gaussian, x = Gaussian.fit(digits), initial_noise(3, (1, 8, 8), seed=0)
    sigmas = schedules.polynomial(400, 10.0, 80.0)
    torch.testing.assert_close(
        regularity.teleport(gaussian, x, 80.0, 10.0), sample(gaussian, x, sigmas, "heun").final, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda p: regularity.unrolled_weights([1.0, 2.0]), ValueError, "sigmas"),
        (lambda p: regularity.span_residual(p.x), TypeError, "traj must be a Trajectory"),
        (lambda p: regularity.likelihood_gain(lambda x, s: x, p.final, 1.0), TypeError, "denoiser"),
        (lambda p: regularity.likelihood_gain(Empirical(p.final, 0.1), p.final, 0.0), ValueError, "sigma"),
        (lambda p: regularity.likelihood_gain(Empirical(p.final), p.final, 1.0, steps=0), ValueError, "steps"),
        (lambda p: regularity.effective_neighbours(Gaussian([0.0], 1.0), p), TypeError, "empirical"),
        (lambda p: regularity.random_walk(0, 1, 1), ValueError, "n must"),
        (lambda p: regularity.random_walk(1, 1, 1, seed=-1), ValueError, "seed"),
        (lambda p: regularity.brownian_bridge(40, 6, 63, like=p), ValueError, "like"),
        (lambda p: regularity.brownian_bridge(40, 6, 64, like=p.x * 0), ValueError, "chord"),
        (lambda p: regularity.integrated_walk(40, 6, 63, like=p), ValueError, "like"),
        (lambda p: regularity.integrated_walk(0, 6, 64), ValueError, "n must"),
        (lambda p: regularity.time_shuffled(torch.zeros(4, 2, dtype=F64)), ValueError, "curves"),
        (lambda p: regularity.time_shuffled([1.0]), TypeError, "curves"),
        (lambda p: regularity.state_gap(p, p, radius=0.0), ValueError, "radius"),
        (lambda p: regularity.teleport(Gaussian([0.0], 1.0), p.final, 1.0, 2.0), ValueError, "sigma_to"),
        (lambda p: regularity.teleport(Empirical(p.final), p.final, 2.0, 1.0), TypeError, "gaussian"),
    ],
)
def test_bad_arguments_are_named(paths, call, error, word):
    with pytest.raises(error, match=word):
        call(paths)


def test_state_gap_refuses_other_noise_and_other_levels(paths, empirical):
    other = sample(empirical, initial_noise(6, (1, 8, 8), seed=9), paths.sigmas)
    with pytest.raises(ValueError, match="same noise"):
        regularity.state_gap(paths, other)
    levels = sample(empirical, paths.x[0], schedules.time_uniform(40))
    with pytest.raises(ValueError, match="levels"):
        regularity.state_gap(paths, levels)
    with pytest.raises(ValueError, match="final"):
        regularity.state_gap(sample(empirical, paths.x[0], paths.sigmas, keep="final"), paths)


def gaussian_path(levels):
    D = Gaussian(torch.zeros(2, dtype=torch.float64), torch.tensor([4.0, 0.25], dtype=torch.float64))
    x = torch.tensor([[30.0, -20.0]], dtype=torch.float64)
    states = torch.stack([D.flow(x, float(levels[0]), float(s)) for s in levels])
    outputs = torch.stack([D(y, float(s)) for y, s in zip(states[:-1], levels)])
    return D, Trajectory(levels, states, outputs, len(levels) - 1)


def test_step_targets_of_euler_are_the_denoising_trajectory(paths):
    torch.testing.assert_close(regularity.step_targets(paths), paths.denoised.to(paths.x), rtol=0, atol=1e-9)


def test_step_targets_of_an_exact_path_are_denoiser_plus_half_a_step_of_its_derivative():
    errors = []
    for h in (0.1, 0.05):
        s = torch.tensor([3.0, 3.0 - h], dtype=torch.float64)
        _, traj = gaussian_path(s)
        ends = gaussian_path(torch.tensor([3.0, 3.0 - 1e-5], dtype=torch.float64))
        moved = ends[0](ends[1].x[1], 3.0 - 1e-5)
        slope = (moved - ends[1].denoised[0]) / -1e-5
        first = regularity.step_targets(traj)[0]
        errors.append(float((first - traj.denoised[0] + h / 2 * slope).norm()))
        assert errors[-1] < 0.2 * float((first - traj.denoised[0]).norm())
    assert 3.5 < errors[0] / errors[1] < 4.5  # what is left out is of second order


def test_score_gap_is_zero_for_itself_and_the_definition_otherwise(paths, empirical, digits):
    assert regularity.score_gap(empirical, paths).max() < 1e-9
    D = Gaussian.fit(digits)
    gap, n = regularity.score_gap(D, paths), 30
    x, s = paths.x[n], float(paths.sigmas[n])
    ours, exact = (score.flatten(1) for score in (D.score(x, s), empirical.score(x, s)))
    expected = (ours - exact).norm(dim=1) / exact.norm(dim=1)
    torch.testing.assert_close(gap[n], expected, rtol=1e-6, atol=1e-9)
    assert gap[0].max() < 0.01 < gap[-1].min()


def test_class_posteriors_sum_to_one_and_agree_between_mixture_and_points(digits):
    y = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    classes = torch.tensor([0, 1, 1])
    points = Empirical(y, bandwidth=0.5, labels=classes)
    traj = sample(points, 80 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=y.dtype),
                  schedules.polynomial(20))  # fmt: skip
    ours = regularity.class_posteriors(points, traj)
    parts = regularity.class_posteriors(GaussianMixture([1 / 3] * 3, y, 0.25), traj)
    torch.testing.assert_close(ours.sum(-1), torch.ones_like(ours[..., 0]))
    torch.testing.assert_close(ours, torch.stack([parts[..., 0], parts[..., 1] + parts[..., 2]], -1))
    with pytest.raises(TypeError, match="with labels"):
        regularity.class_posteriors(Empirical(y), traj)


def test_commitment_is_the_last_level_at_which_the_final_class_took_over():
    s = torch.tensor([8.0, 4.0, 2.0, 1.0])
    p = torch.tensor([[0.9, 0.1, 0.6, 0.5], [0.2, 0.4, 0.7, 0.4], [0.6, 0.7, 0.8, 0.6], [0.9, 0.9, 0.9, 0.55]])
    both = torch.stack([p, 1 - p], -1)
    assert regularity.commitment_sigma(both, s).tolist() == [2.0, 2.0, 8.0, 2.0]
    strict = regularity.commitment_sigma(both, s, 0.8)
    assert strict[:3].tolist() == [1.0, 1.0, 2.0]
    assert strict[3].isnan()
    with pytest.raises(ValueError, match="level"):
        regularity.commitment_sigma(both, s, 1.0)
    with pytest.raises(ValueError, match="sigmas"):
        regularity.commitment_sigma(both, s[:3])
    with pytest.raises(ValueError, match="posteriors"):
        regularity.commitment_sigma(both[0], s)


def test_two_points_commit_where_the_posterior_of_a_path_on_the_axis_says():
    m = 5.0  # the posterior of +m at (x, sigma) is 1 / (1 + exp(-2 m x / sigma^2))
    D = GaussianMixture([0.5, 0.5], [[-m, 0.0], [m, 0.0]], 1e-6)
    x = torch.tensor([[40.0, 0.0], [-8.0, 3.0]], dtype=torch.float64)
    traj = sample(D, x, schedules.polynomial(200))
    p = regularity.class_posteriors(D, traj)
    expected = torch.sigmoid(2 * m * traj.x[..., 0] / (traj.sigmas[:, None] ** 2 + 1e-6))
    torch.testing.assert_close(p[..., 1], expected)
    at = regularity.commitment_sigma(p, traj.sigmas, 0.9)
    assert (at < 3 * m).all()
    assert (at > m / 3).all()


@pytest.mark.parametrize("far", [0.0, 2.0**20, 2.0**30])
def test_measures_of_paths_do_not_depend_on_where_the_origin_lies(far):
    y, start = torch.round(64 * normal(30, 8)) / 64, torch.round(4096 * normal(5, 8, seed=1)) / 64
    labels, grid = torch.arange(30) % 3, schedules.polynomial(12, 0.01, 64.0)
    D, moved = Empirical(y, labels=labels), Empirical(y + far, labels=labels)
    here = sample(D, start, grid)
    there = type(here)(grid, here.x + far, here.denoised + far, here.nfe)
    rounding = 8 * torch.finfo(torch.float64).eps * (far + 100)
    targets = regularity.step_targets(there) - far
    torch.testing.assert_close(targets, regularity.step_targets(here), rtol=0, atol=100 * rounding)
    torch.testing.assert_close(targets, here.denoised, rtol=0, atol=100 * rounding)
    exact = type(here)(grid, there.x - far, there.denoised - far, here.nfe)  # as adding far has rounded it
    for x, s in zip(exact.x, grid.tolist()):
        torch.testing.assert_close(moved(x + far, s) - far, D(x, s), rtol=0, atol=rounding)
        gain, own = (regularity.likelihood_gain(E, start, s)[0] for E, start in ((moved, x + far), (D, x)))
        torch.testing.assert_close(gain, own, rtol=1e-6, atol=1e-6 + 1e4 * rounding / s**2)
    for measure in (regularity.effective_neighbours, regularity.class_posteriors):
        torch.testing.assert_close(measure(moved, there), measure(D, exact), rtol=1e-9, atol=1e-9)
    assert regularity.speciation_sigma(y + far) == pytest.approx(regularity.speciation_sigma(y), rel=1e-9)
    for shape in (geometry.deviation, geometry.arc_length, geometry.cosines, geometry.project):
        torch.testing.assert_close(shape(there), shape(exact), rtol=1e-9, atol=1e-6 * (1 + far / 2**30))

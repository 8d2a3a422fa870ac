"""Identities that every closed-form denoiser must satisfy, against independent computations."""

import copy
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import linprog
from scipy.stats import multivariate_normal

from teachkit import Empirical, Gaussian, GaussianMixture, data, initial_noise, meanshift, sample, schedules
from teachkit.denoisers import DenoiserModule, Diagonal, Full, Isotropic, LowRank, LowRankMixture

F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=F64)


def covariances(k, d, seed=0):
    a = normal(k, d, d, seed=seed)
    return a @ a.mT / d + 0.05 * torch.eye(d, dtype=F64)


def mixture(kind="full", k=4, d=3, seed=0):
    weights = torch.rand(k, generator=rng(seed), dtype=F64) + 0.1
    cov = covariances(k, d, seed)
    cov = {"full": cov, "diagonal": cov.diagonal(dim1=1, dim2=2), "isotropic": cov[:, 0, 0]}[kind]
    return GaussianMixture(weights / weights.sum(), 2 * normal(k, d, seed=seed + 1), cov)


def low_rank(k=3, d=3, rank=2, n=40, seed=0):
    stretch = torch.tensor([2.0, 1.0, 0.3], dtype=F64).repeat(d)[:d]
    y = normal(k, n, d, seed=seed) * stretch + 2 * normal(k, 1, d, seed=seed + 1)
    return LowRankMixture.fit(y.flatten(0, 1), torch.arange(k).repeat_interleave(n), rank)


ALL = {
    "mixture-low-rank": low_rank,
    "mixture-fitted-full-rank": lambda: low_rank(rank=None),
    "mixture-full": lambda: mixture("full"),
    "mixture-diagonal": lambda: mixture("diagonal"),
    "mixture-isotropic": lambda: mixture("isotropic"),
    "gaussian": lambda: Gaussian(normal(3), covariances(1, 3)[0]),
    "gaussian-low-rank": lambda: Gaussian.fit(normal(40, 3) * torch.tensor([3.0, 1.0, 0.2], dtype=F64), rank=2),
    "empirical": lambda: Empirical(normal(30, 3), chunk=7),
    "empirical-bandwidth": lambda: Empirical(normal(30, 3), bandwidth=0.3, chunk=7),
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


@pytest.mark.parametrize(
    ("make", "given_"),
    [
        (Gaussian, (torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64))),
        (GaussianMixture, (torch.full((2,), 0.5, dtype=F64), torch.eye(2, dtype=F64), torch.ones(2, 2, dtype=F64))),
        (
            LowRankMixture,
            (torch.full((2,), 0.5, dtype=F64), torch.eye(2, dtype=F64), torch.ones(2, 2, dtype=F64),
             torch.eye(2, dtype=F64).repeat(2, 1, 1)),
        ),
    ],
)  # fmt: skip
def test_parameters_are_not_the_caller_s_tensors(make, given_):
    given_ = [value.clone() for value in given_]
    D, x = make(*given_), torch.tensor([[0.3, -2.0]], dtype=F64)
    before = D(x, 0.7)
    for value in given_:
        value += 1
    assert torch.equal(D(x, 0.7), before)


@every
@pytest.mark.parametrize("sigma", [0.05, 0.6, 4.0, 80.0])
def test_tweedie_against_the_gradient_of_the_log_density(make, sigma):
    D = make()
    x = (1 + sigma) * normal(6, 3, seed=5)
    x.requires_grad_(True)
    (score,) = torch.autograd.grad(D.log_prob(x, sigma).sum(), x)
    torch.testing.assert_close(D.score(x, sigma), score, rtol=1e-7, atol=1e-7 * float(score.abs().max()))
    torch.testing.assert_close(x + sigma**2 * score, D(x, sigma), rtol=1e-7, atol=1e-7 * (1 + sigma**2) * 1e-2)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_jacobian_is_posterior_covariance_over_sigma_squared(sigma):
    y, x = normal(30, 3), normal(1, 3, seed=1)
    D = Empirical(y, chunk=8)
    jacobian = torch.autograd.functional.jacobian(lambda v: D(v, sigma)[0], x)[:, 0]
    w = torch.softmax(-((x - y) ** 2).sum(1) / (2 * sigma**2), 0)
    centred = y - w @ y
    torch.testing.assert_close(jacobian, (w[:, None] * centred).T @ centred / sigma**2)


@every
def test_limits_of_small_and_large_noise(make):
    D = make()
    clean = D.sample(4, rng())
    mean = D(torch.zeros(1, 3, dtype=F64), 1e6)
    many = D.sample(200_000, rng())
    torch.testing.assert_close(mean[0], many.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(D(clean, 1e-5), clean, atol=1e-4, rtol=0)


def test_a_sigma_given_as_python_float_is_not_rounded_to_single_precision():
    # 0.3 in float32 differs from 0.3 by 1e-8; this was once lost on the way into the denoiser.
    D, x = Empirical(normal(50, 2)), normal(5, 2, seed=1)
    assert torch.equal(D(x, 0.3), D(x, torch.tensor(0.3, dtype=F64)))
    assert torch.equal(D(x, 0.3), D(x, torch.full((5,), 0.3, dtype=F64)))


@settings(max_examples=40, deadline=None)
@given(sigma=st.floats(1e-3, 100), seed=st.integers(0, 10**6), chunk=st.integers(1, 60))
def test_empirical_equals_its_definition_for_any_chunk(sigma, seed, chunk):
    y, x = normal(50, 4, seed=seed), (1 + sigma) * normal(6, 4, seed=seed + 1)
    w = torch.softmax(-((x[:, None] - y) ** 2).sum(-1) / (2 * sigma**2), 1)
    D = Empirical(y, chunk=chunk)
    torch.testing.assert_close(D(x, sigma), w @ y, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(D.weights(x, sigma), w, rtol=1e-5, atol=1e-9)
    assert (D(x, sigma) <= y.amax(0) + 1e-9).all()
    assert (D(x, sigma) >= y.amin(0) - 1e-9).all()


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.05, 0.3, 1.0, 5.0, 80.0])
@pytest.mark.parametrize("kind", ["spread", "dense", "duplicates", "midway"])
def test_empirical_in_single_precision_is_as_good_as_its_input(kind, sigma):
    if kind == "dense":  # many points within one sigma of each other
        y = torch.rand(6000, 2, generator=rng())
        x = y[:50] + sigma * torch.randn(50, 2, generator=rng(1))
    elif kind == "midway":  # exactly between two data points: both must keep half the weight
        y = torch.cat([normal(20, 64).float(), torch.zeros(2, 64)])
        y[-1, 0], y[-2, 0] = 3.0, 3.004
        x = y[-2:].mean(0, keepdim=True)
    else:
        y = normal(300, 64).float()
        y = y.repeat(2, 1) if kind == "duplicates" else y
        x = y[:50] + sigma * torch.randn(50, 64, generator=rng(1))
    w = torch.softmax(-((x[:, None].double() - y.double()) ** 2).sum(-1) / (2 * sigma**2), 1)
    got = Empirical(y, chunk=1000)(x, sigma)
    assert got.dtype == torch.float32
    # x itself is rounded to eps |x|, which D magnifies by at most the Jacobian |Cov| / sigma^2.
    assert float((got - w @ y.double()).abs().max()) < 2e-3 * max(sigma, 1e-3)


def test_empirical_memory_does_not_hold_a_batch_by_data_by_dimension_array():
    D, x = Empirical(torch.rand(4000, 500, generator=rng()), chunk=512), torch.rand(200, 500, generator=rng(1))
    with torch.profiler.profile(profile_memory=True) as profile:
        D(x, 1.0)
    biggest = max(abs(e.self_cpu_memory_usage) for e in profile.key_averages())
    assert biggest < 20 * 4 * (200 * 512 + 200 * 500) * 8  # the full array would be 1.6 GB


def test_one_component_is_the_gaussian_and_bandwidth_is_an_isotropic_mixture():
    cov, mean, x = covariances(1, 3)[0], normal(3), 3 * normal(7, 3, seed=2)
    one, gaussian = GaussianMixture([1.0], mean[None], cov[None]), Gaussian(mean, cov)
    y = normal(20, 3)
    kde, many = Empirical(y, bandwidth=0.4), GaussianMixture([1 / 20] * 20, y, 0.16)
    for sigma in (0.1, 2.0):
        torch.testing.assert_close(one(x, sigma), gaussian(x, sigma))
        torch.testing.assert_close(one.log_prob(x, sigma), gaussian.log_prob(x, sigma))
        torch.testing.assert_close(kde(x, sigma), many(x, sigma), rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(kde.log_prob(x, sigma), many.log_prob(x, sigma), rtol=1e-6, atol=1e-8)


def test_densities_against_scipy():
    D, x = mixture("full"), normal(9, 3, seed=3)
    cov = D.axes @ torch.diag_embed(D.variances) @ D.axes.mT + 0.49 * torch.eye(3, dtype=F64)
    total = sum(
        float(w) * multivariate_normal(m.numpy(), c.numpy()).pdf(x.numpy()) for w, m, c in zip(D.weights, D.means, cov)
    )
    torch.testing.assert_close(D.log_prob(x, 0.7).exp(), torch.as_tensor(total))


@pytest.mark.parametrize("make", [lambda y: Empirical(y), lambda y: GaussianMixture([0.05] * 20, y, 0.2)])
def test_equivariance(make):
    y, x, shift = normal(20, 3), normal(5, 3, seed=1), normal(3, seed=2)
    turn = torch.linalg.qr(normal(3, 3, seed=3))[0]
    D = make(y)
    torch.testing.assert_close(make(y + shift)(x + shift, 0.7), D(x, 0.7) + shift)
    torch.testing.assert_close(make(y @ turn)(x @ turn, 0.7), D(x, 0.7) @ turn)
    torch.testing.assert_close(make(y[torch.randperm(20, generator=rng())])(x, 0.7), D(x, 0.7))


def test_one_full_euler_step_is_one_mean_shift_step():
    D, x = Empirical(normal(40, 3)), normal(6, 3, seed=1)
    torch.testing.assert_close(sample(D, x, [0.8, 0.0]).final, meanshift.mean_shift(D, x, 0.8, max_steps=1)[1])


def test_gaussian_flow_solves_the_ode_and_composes():
    D, x = Gaussian.fit(normal(50, 3), rank=2), 10 * normal(4, 3, seed=1)
    h = 1e-5
    slope = (D.flow(x, 2.0, 2.0 + h) - D.flow(x, 2.0, 2.0 - h)) / (2 * h)
    torch.testing.assert_close(slope, (x - D(x, 2.0)) / 2.0, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(D.flow(D.flow(x, 10.0, 1.0), 1.0, 0.1), D.flow(x, 10.0, 0.1))
    torch.testing.assert_close(D.flow(D.flow(x, 10.0, 0.1), 0.1, 10.0), x)


def test_fit_recovers_mean_and_covariance_and_keeps_the_direction_of_the_mean():
    y = normal(500, 4) * torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=F64) + torch.tensor([50.0, 0, 0, 0], dtype=F64)
    D = Gaussian.fit(y)
    torch.testing.assert_close(D.mean, y.mean(0))
    torch.testing.assert_close(D.axes * D.variances @ D.axes.mT, torch.cov(y.T, correction=0))
    # Centring the covariance matrix as if it were data would lose the first axis, along which the mean lies.
    assert abs(float(Gaussian.fit(y, rank=1).axes[0, 0])) > 0.99
    few = normal(5, 40)  # fewer samples than dimensions
    short, long = Gaussian.fit(few), Gaussian(few.mean(0), torch.cov(few.T, correction=0))
    torch.testing.assert_close(short(normal(3, 40, seed=1), 0.5), long(normal(3, 40, seed=1), 0.5))


def test_labels_condition_on_a_component_or_a_class():
    y, classes, x = normal(30, 2), torch.arange(30) % 3, normal(6, 2, seed=1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    D = Empirical(y, labels=classes)
    for k in range(3):
        rows = labels == k
        alone = Empirical(y[classes == k])
        torch.testing.assert_close(D(x, 0.5, labels)[rows], alone(x[rows], 0.5))
        torch.testing.assert_close(D.log_prob(x, 0.5, labels)[rows], alone.log_prob(x[rows], 0.5))
    M = mixture("isotropic", d=2)
    part = GaussianMixture([1.0], M.means[1:2], M.variances[1])
    torch.testing.assert_close(M(x, 0.5, torch.ones(6, dtype=torch.long)), part(x, 0.5))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\]"):
        M(x, 0.5, torch.full((6,), 4))
    with pytest.raises(ValueError, match="has no classes"):
        Empirical(y)(x, 0.5, labels)


def test_samples_have_the_moments_of_the_distribution():
    D = mixture("full")
    x, labels = D.sample_with_labels(100_000, rng())
    torch.testing.assert_close(labels.bincount().double() / 1e5, D.weights, atol=0.01, rtol=0)
    torch.testing.assert_close(x[labels == 2].mean(0), D.means[2], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianMixture([0.5, 0.6], [[0.0], [1.0]], 1.0), "weights must sum to 1, got a sum of 1.1"),
        (lambda: GaussianMixture([1.5, -0.5], [[0.0], [1.0]], 1.0), "weights must not be negative"),
        (lambda: GaussianMixture([1.0], [[0.0], [1.0]], 1.0), r"weights must have shape \(2,\)"),
        (lambda: GaussianMixture([1.0], [[0.0, 1.0]], [[[1.0, 2.0], [2.0, 1.0]]]), "positive definite"),
        (lambda: GaussianMixture([1.0], [[0.0, 1.0]], [[[1.0, 0.5], [0.0, 1.0]]]), "symmetric"),
        (lambda: GaussianMixture([1.0], [[0.0, 1.0]], 0.0), "positive definite"),
        (lambda: GaussianMixture([1.0], [[math.nan, 1.0]], 1.0), "means must be finite"),
        (
            lambda: GaussianMixture([1.0], [[0.0, 1.0]], torch.ones(3).double()),
            "covariances must be a number or have shape",
        ),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, -1.0]]), "positive semi-definite"),
        (lambda: Gaussian.fit(torch.zeros(1, 3)), "at least 2 samples"),
        (lambda: Gaussian.fit(torch.zeros(5, 3), rank=4), "rank must be an integer from 1 to 3"),
        (lambda: Empirical(torch.zeros(0, 3)), "at least one sample"),
        (lambda: Empirical(torch.full((2, 3), math.inf)), "data must be finite"),
        (lambda: Empirical(torch.zeros(4, 3), bandwidth=-1), "bandwidth must be a finite number >= 0"),
        (lambda: Empirical(torch.zeros(4, 3), labels=torch.tensor([0, 2, 2, 2])), "every class from 0 to 2"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@every
def test_bad_inputs_are_named(make):
    D, x = make(), normal(4, 3)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3\), got \(4, 2\)"):
        D(x[:, :2], 1.0)
    with pytest.raises(ValueError, match=r"x is torch\.float32 but this"):
        D(x.float(), 1.0)
    with pytest.raises(ValueError, match="x is on meta but this"):
        D(x.to("meta"), 1.0)
    with pytest.raises(TypeError, match="x must be a tensor"):
        D([[1.0, 2.0, 3.0]], 1.0)
    for sigma in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma must be a finite number >= 0"):
            D(x, sigma)
    with pytest.raises(ValueError, match="sigma must be a number, 0-d or"):
        D(x, torch.ones(3))
    with pytest.raises(TypeError, match="sigma must be a finite number"):
        D(x, "1.0")


def test_zero_noise_is_refused_where_there_is_no_density():
    with pytest.raises(ValueError, match="sigma must be > 0"):
        Empirical(normal(5, 2))(normal(1, 2), 0.0)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        Gaussian.fit(normal(5, 3), rank=1).log_prob(normal(1, 3), 0.0)


def test_modules_move_and_convert():
    D = Empirical(data.two_moons(50)).to(torch.float32)
    assert D(torch.zeros(2, 2), 1.0).dtype == torch.float32


# ---- Independent truths: integrals, quadrature, another library ------------------------------------------------------


def posterior_covariance(D, x, sigma):
    """Cov[x0 | x] of every denoiser, from dense matrices and the law of total covariance."""
    if isinstance(D, LowRankMixture):
        D = with_floor(D, 1e-14)
    eye, d = torch.eye(3, dtype=F64), 3
    if isinstance(D, Gaussian):
        cov = D.axes * D.variances @ D.axes.mT
        return sigma**2 * cov @ torch.linalg.inv(cov + sigma**2 * eye)
    if isinstance(D, Empirical):
        weights, means = torch.full((len(D),), 1 / len(D), dtype=F64), D.data
        covs = D.bandwidth**2 * eye.expand(len(D), d, d)
    else:
        weights, means = D.weights, D.means
        axes = eye.expand(len(means), d, d) if D.axes is None else D.axes
        covs = axes @ torch.diag_embed(D.variances.expand(len(means), d)) @ axes.mT
    total = covs + sigma**2 * eye
    gain = covs @ torch.linalg.inv(total)
    posterior = torch.distributions.MultivariateNormal(means, total).log_prob(x) + weights.log()
    w = posterior.softmax(0)
    r = means + torch.einsum("kde,ke->kd", gain, x - means)
    r = r - w @ r
    return torch.einsum("k,kde->de", w, sigma**2 * gain) + torch.einsum("k,kd,ke->de", w, r, r)


@every
@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_jacobian_of_every_denoiser_is_posterior_covariance_over_sigma_squared(make, sigma):
    D, x = make(), (1 + sigma) * normal(3, seed=7)
    jacobian = torch.autograd.functional.jacobian(lambda v: D(v[None], sigma)[0], x)
    torch.testing.assert_close(jacobian, posterior_covariance(D, x, sigma) / sigma**2, rtol=1e-7, atol=1e-9)


@every
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), sigma=st.floats(0.02, 50))
def test_every_denoiser_is_the_gradient_of_a_convex_function(make, seed, sigma):
    # Its Jacobian is a covariance: two points never denoise past each other.
    D, (a, b) = make(), (1 + sigma) * normal(2, 8, 3, seed=seed)
    assert (((D(a, sigma) - D(b, sigma)) * (a - b)).sum(1) >= -1e-10).all()


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_posterior_mean_and_density_by_numerical_integration(sigma):
    D = GaussianMixture([0.2, 0.5, 0.3], [[-1.0], [0.5], [2.0]], torch.tensor([0.04, 0.25, 0.01], dtype=F64))
    x = torch.linspace(-3, 4, 15, dtype=F64)[:, None]
    clean = torch.linspace(-6, 8, 200_001, dtype=F64)
    prior = sum(w * torch.exp(-((clean - m) ** 2) / (2 * v)) / (2 * math.pi * v) ** 0.5
                for w, m, v in ((0.2, -1.0, 0.04), (0.5, 0.5, 0.25), (0.3, 2.0, 0.01)))  # fmt: skip
    joint = prior * torch.exp(-((x - clean) ** 2) / (2 * sigma**2)) / (2 * math.pi * sigma**2) ** 0.5
    evidence = torch.trapezoid(joint, clean)
    torch.testing.assert_close(D.log_prob(x, sigma), evidence.log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(D(x, sigma)[:, 0], torch.trapezoid(joint * clean, clean) / evidence)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
@pytest.mark.parametrize("kind", ["mixture", "gaussian", "low rank", "empirical", "bandwidth", "class", "component"])
def test_densities_integrate_to_one_in_the_plane(kind, sigma):
    y = normal(12, 2)
    D = {
        "mixture": lambda: mixture("full", d=2), "component": lambda: mixture("full", d=2),
        "gaussian": lambda: Gaussian([0.5, 0.0], [[1.0, 0.6], [0.6, 0.5]]),
        "low rank": lambda: Gaussian.fit(y, rank=1), "empirical": lambda: Empirical(y, chunk=5),
        "bandwidth": lambda: Empirical(y, bandwidth=0.4), "class": lambda: Empirical(y, 0.1, torch.arange(12) % 3),
    }[kind]()  # fmt: skip
    axis = torch.linspace(-16, 16, 321, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    labels = torch.ones(len(grid), dtype=torch.long) if kind in ("class", "component") else None
    assert float(D.log_prob(grid, sigma, labels).exp().sum()) * 0.01 == pytest.approx(1, abs=1e-6)


def test_gaussian_and_empirical_densities_against_scipy():
    mean, cov, x = normal(3), covariances(1, 3)[0], normal(9, 3, seed=3)
    got = Gaussian(mean, cov).log_prob(x, 0.7)
    expected = multivariate_normal(mean.numpy(), (cov + 0.49 * torch.eye(3, dtype=F64)).numpy()).logpdf(x.numpy())
    torch.testing.assert_close(got, torch.as_tensor(expected))
    y = normal(11, 3)
    pdf = sum(multivariate_normal(p, 0.49 + 0.09).pdf(x.numpy()) for p in y.numpy()) / 11
    torch.testing.assert_close(Empirical(y, bandwidth=0.3).log_prob(x, 0.7).exp(), torch.as_tensor(pdf))


@given(seed=st.integers(0, 10**6), sigma=st.floats(0.01, 100))
def test_empirical_output_lies_in_the_convex_hull(seed, sigma):
    # By linear programming, without looking at the weights: is D a mixture of data points?
    y, x = normal(12, 2, seed=seed), (1 + sigma) * normal(3, 2, seed=seed + 1)
    for point in Empirical(y, chunk=5)(x, sigma):
        rows = np.vstack([y.T.numpy(), np.ones(12)])
        answer = linprog(np.zeros(12), A_eq=rows, b_eq=np.append(point.numpy(), 1.0), bounds=(0, None))
        assert answer.status == 0


def test_barycentric_coordinates_in_a_triangle_are_the_posterior_weights():
    y, x = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]], dtype=F64), 3 * normal(40, 2)
    D = Empirical(y)
    coordinates = torch.linalg.solve(torch.cat([y.T, torch.ones(1, 3, dtype=F64)]),
                                     torch.cat([D(x, 1.5), torch.ones(40, 1, dtype=F64)], 1).T).T  # fmt: skip
    assert (coordinates >= -1e-12).all()
    torch.testing.assert_close(coordinates, D.weights(x, 1.5), rtol=1e-8, atol=1e-12)


def test_numbers_given_as_python_floats_are_not_rounded_to_single_precision():
    narrow = GaussianMixture([0.2, 0.8], [[0.1], [0.7]], 0.3)
    assert narrow.weights.tolist() == [0.2, 0.8]
    assert narrow.variances.tolist() == [[0.3], [0.3]]
    assert Gaussian([0.1, 0.2], [0.3, 0.7]).variances.tolist() == [0.3, 0.7]
    assert GaussianMixture([0.3, 0.7], torch.zeros(2, 1), 0.1).weights.dtype == torch.float32
    assert Gaussian(np.array([0.1]), np.array([0.3])).variances.tolist() == [0.3]


def test_limits_are_the_nearest_point_and_the_mean():
    y, x = normal(40, 5), normal(20, 5, seed=1)
    D, nearest = Empirical(y, chunk=7), torch.cdist(x, y).argmin(1)
    torch.testing.assert_close(D(x, 1e-3), y[nearest])
    torch.testing.assert_close(D(x, 1e-150), y[nearest])  # sigma^2 is near the smallest float64
    centred = y - y.mean(0)
    third = (centred * centred.square().sum(1, keepdim=True)).mean(0) / 2
    first = (x - y.mean(0)) @ torch.cov(y.T, correction=0) - third
    for sigma in (30.0, 100.0, 300.0):  # D = mean + first / sigma^2 + O(1 / sigma^4)
        assert float((D(x, sigma) - y.mean(0) - first / sigma**2).abs().max()) < 300 / sigma**4
    torch.testing.assert_close(D(x, 1e9), y.mean(0).expand_as(x))


@every
def test_one_noise_level_per_sample_is_the_same_as_one_by_one(make):
    D, x, sigma = make(), normal(5, 3), torch.tensor([0.01, 0.1, 1.0, 10.0, 80.0], dtype=F64)
    for call in (D, D.log_prob, D.score):
        one_by_one = torch.cat([call(x[i : i + 1], float(sigma[i])) for i in range(5)])
        torch.testing.assert_close(call(x, sigma), one_by_one)
    assert torch.equal(D(x, 2), D(x, 2.0))
    assert D(x[:0], 1.0).shape == (0, 3)
    assert D.log_prob(x[:0], 1.0).shape == (0,)


def test_images_are_treated_as_vectors_and_keep_their_shape():
    y, x = normal(30, 2, 3, 4), normal(5, 2, 3, 4, seed=1)
    flat_y, flat_x = y.flatten(1), x.flatten(1)
    for image, flat in (
        (Empirical(y, bandwidth=0.1), Empirical(flat_y, bandwidth=0.1)),
        (Gaussian.fit(y, rank=4), Gaussian.fit(flat_y, rank=4)),
        (GaussianMixture([1 / 30] * 30, y, 0.3), GaussianMixture([1 / 30] * 30, flat_y, 0.3)),
        (GaussianMixture([1.0], y[:1], 0.1 + y[1:2] ** 2), GaussianMixture([1.0], flat_y[:1], 0.1 + flat_y[1:2] ** 2)),
    ):
        assert image(x, 0.7).shape == image.score(x, 0.7).shape == x.shape
        torch.testing.assert_close(image(x, 0.7).flatten(1), flat(flat_x, 0.7))
        torch.testing.assert_close(image.log_prob(x, 0.7), flat.log_prob(flat_x, 0.7))
        assert image.sample(3, rng()).shape == (3, 2, 3, 4)


@given(seed=st.integers(0, 10**6), sigma=st.floats(0.05, 20))
def test_everything_turns_shifts_and_scales_with_the_data(seed, sigma):
    turn, shift = torch.linalg.qr(normal(3, 3, seed=seed))[0], 3 * normal(3, seed=seed + 1)
    y, x, cov, c = normal(8, 3, seed=seed + 2), (1 + sigma) * normal(4, 3, seed=seed + 3), covariances(8, 3, seed), 2.5

    def moved(v):
        return c * v @ turn.T + shift

    for build in (
        lambda y, cov, c: Empirical(y, bandwidth=0.1 * c),
        lambda y, cov, c: GaussianMixture([1 / 8] * 8, y, cov),
        lambda y, cov, c: Gaussian(y[0], cov[0]),
        lambda y, cov, c: Gaussian.fit(y, rank=2),
    ):
        still, other = build(y, cov, 1.0), build(moved(y), c**2 * turn @ cov @ turn.T, c)
        got = other(moved(x), c * sigma)
        torch.testing.assert_close(got, moved(still(x, sigma)), rtol=1e-7, atol=1e-8)
        gap = other.log_prob(moved(x), c * sigma) - still.log_prob(x, sigma)
        torch.testing.assert_close(gap, torch.full((4,), -3 * math.log(c), dtype=F64), rtol=1e-6, atol=1e-6)


# ---- Precision ------------------------------------------------------------------------------------------------------


def exact(y, x, sigma, labels=None, classes=None):
    """Weights and posterior means from float64 differences."""
    logits = -((x[:, None].double() - y.double()) ** 2).sum(-1) / (2 * torch.as_tensor(sigma, dtype=F64) ** 2)
    if labels is not None:
        logits = logits.masked_fill(classes != labels[:, None], -math.inf)
    w = logits.softmax(1)
    return w, w @ y.double()


@pytest.mark.parametrize("sigma", [0.002, 0.005, 0.02])
@pytest.mark.parametrize("norm", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("chunk", [300, 4096])
def test_a_crowd_far_from_the_origin_keeps_its_weights_in_single_precision(norm, sigma, chunk):
    # Hundreds of points share the weight, and |y|^2 / 2 sigma^2 is up to 1e8: norms in float32 were not enough.
    y = norm / 4 + 0.5 * sigma * torch.randn(1000, 16, generator=rng())
    x = y[:10] + sigma * torch.randn(10, 16, generator=rng(1))
    D, (w, mean) = Empirical(y, chunk=chunk), exact(y, x, sigma)
    assert float((D.weights(x, sigma) - w).abs().max() / w.max()) < 1e-5
    assert float((D(x, sigma) - mean).abs().max()) < 1e-6 * norm + 1e-6 * sigma  # a float32 number of that size


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.2, 80.0])
def test_density_of_single_precision_data_is_that_of_the_same_data_in_double(sigma):
    y = torch.rand(300, 64, generator=rng()) * 2 - 1
    x = y[:20] + sigma * torch.randn(20, 64, generator=rng(1))
    truth = Empirical(y.double()).log_prob(x.double(), sigma)
    torch.testing.assert_close(Empirical(y).log_prob(x, sigma).double(), truth, rtol=1e-6, atol=1e-4)


def test_converted_modules_equal_newly_built_ones():
    y, x = torch.rand(300, 64, generator=rng()), torch.rand(20, 64, generator=rng(1))
    near = (y[:20] + 0.004 * torch.randn(20, 64, generator=rng(2))).double()
    for points, sigma in ((near, 0.002), (x.double(), 0.5)):
        widened, built = Empirical(y).double(), Empirical(y.double())
        torch.testing.assert_close(widened(points, sigma), built(points, sigma), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(widened.log_prob(points, sigma), built.log_prob(points, sigma), rtol=1e-12, atol=0)
    for make in ALL.values():
        D = make()
        narrow, points = make().to(torch.float32), normal(5, 3)
        assert all(b.dtype == torch.float32 for b in narrow.buffers())
        torch.testing.assert_close(narrow(points.float(), 0.5).double(), D(points, 0.5), rtol=1e-4, atol=1e-5)
        again = make()
        again.load_state_dict(D.state_dict())
        assert torch.equal(copy.deepcopy(D)(points, 0.5), again(points, 0.5))


@pytest.mark.parametrize("sigma", [0.002, 0.05, 1.0, 80.0])
def test_single_precision_with_classes_bandwidth_many_levels_and_gradients(sigma):
    y, classes = torch.rand(200, 32, generator=rng()), torch.arange(200) % 7
    x = y[:14] + sigma * torch.randn(14, 32, generator=rng(1))
    labels = (torch.arange(14) + 3) % 7  # not the class of the nearest point
    D = Empirical(y, labels=classes, chunk=5)
    assert float((D(x, sigma, labels) - exact(y, x, sigma, labels, classes)[1]).abs().max()) < 1e-3 * sigma + 1e-6
    levels = sigma * torch.linspace(0.5, 2, 14)
    rows = torch.cat([exact(y, x[i : i + 1], float(levels[i]))[1] for i in range(14)])
    assert float((Empirical(y)(x, levels) - rows).abs().max()) < 1e-3 * sigma + 1e-6
    blurred, wide = Empirical(y, bandwidth=0.01), Empirical(y.double(), bandwidth=0.01)
    assert float((blurred(x, sigma) - wide(x.double(), sigma)).abs().max()) < 1e-3 * sigma + 1e-6
    start, wide_start = (x.to(t).requires_grad_(True) for t in (torch.float32, F64))
    (grad,) = torch.autograd.grad(Empirical(y)(start, sigma).square().sum(), start)
    (truth,) = torch.autograd.grad(Empirical(y.double())(wide_start, sigma).square().sum(), wide_start)
    torch.testing.assert_close(grad.double(), truth, rtol=2e-2, atol=2e-2 * float(truth.abs().max()) + 1e-9)


def test_duplicates_and_ties_share_their_weight():
    point = torch.tensor([[0.3, -0.7]], dtype=F64)
    for y, expected in (
        (point.repeat(50, 1), point),  # fifty copies of one point
        (torch.cat([point, point, -point]), point / 3),  # a doubled point weighs twice
        (torch.cat([point, -point]), 0 * point),
    ):
        for dtype in (torch.float32, F64):
            for sigma in (0.002, 1.0, 80.0):
                D, x = Empirical(y.to(dtype)), torch.zeros(1, 2, dtype=dtype)
                torch.testing.assert_close(D(x, sigma), expected.to(dtype), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_infinity_is_not_turned_into_a_plausible_number(dtype):
    D = Empirical(torch.rand(50, 4, generator=rng()).to(dtype))
    for sigma in (0.01, 10.0):
        with pytest.raises(ValueError, match="x must be finite"):
            D(torch.full((1, 4), math.inf, dtype=dtype), sigma)


def test_a_state_too_far_for_its_square_is_named():
    D = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], 0.1)
    with pytest.raises(ValueError, match=r"x must be near enough .* values up to 1e\+200"):
        D(torch.tensor([[1e200]], dtype=F64), 1.0)


@pytest.mark.parametrize("sigma", [1e200, 1e-200])
def test_a_level_whose_square_is_no_number_is_named(sigma):
    D = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], 0.1)
    with pytest.raises(ValueError, match="its square a number"):
        D(torch.ones(1, 1, dtype=F64), sigma)


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.2, 80.0])
def test_low_rank_density_in_single_precision(sigma):
    y = 3 * normal(50, 8).float()
    narrow, wide = Gaussian.fit(y, rank=3), Gaussian.fit(y.double(), rank=3)
    wide.load_state_dict({k: v.double() for k, v in narrow.state_dict().items()})
    x = wide.sample(6, rng()).float() + sigma * torch.randn(6, 8, generator=rng(1))
    truth = wide.log_prob(x.double(), sigma)
    torch.testing.assert_close(narrow.log_prob(x, sigma).double(), truth, rtol=1e-4, atol=1e-3)


# ---- The Gaussian's exact flow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 2])
def test_flow_against_a_high_order_integrator_and_by_the_density_it_carries(rank):
    D, x = Gaussian.fit(normal(30, 4), rank=rank), 5 * normal(3, 4, seed=1)

    def slope(s, v):
        state = torch.as_tensor(v).reshape(3, 4)
        return ((state - D(state, s)) / s).flatten().numpy()

    answer = solve_ivp(slope, (5.0, 0.05), x.flatten().numpy(), method="DOP853", rtol=1e-11, atol=1e-12)
    end = D.flow(x, 5.0, 0.05)
    torch.testing.assert_close(end.flatten(), torch.as_tensor(answer.y[:, -1]), rtol=1e-8, atol=1e-9)
    # Probability is carried along: log p(x) = log p(flow(x)) + log |det d flow / dx|.
    jacobian = torch.autograd.functional.jacobian(lambda v: D.flow(v[None], 5.0, 0.05)[0], x[0])
    change = torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(D.log_prob(x, 5.0), D.log_prob(end, 0.05) + change, rtol=1e-8, atol=1e-8)


@given(seed=st.integers(0, 10**6), levels=st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_flow_composes_and_inverts(seed, levels):
    a, b, c = levels
    full, thin = (Gaussian.fit(normal(30, 4, seed=seed), rank=r) for r in (None, 2))
    x = a * normal(3, 4, seed=seed + 1)
    for D in (full, thin):
        torch.testing.assert_close(D.flow(D.flow(x, a, b), b, c), D.flow(x, a, c), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(D.flow(D.flow(x, a, b), b, a), x, rtol=1e-8, atol=1e-8)
    clean = full.flow(x, a, 0.0)
    torch.testing.assert_close(full.flow(clean, 0.0, a), x, rtol=1e-7, atol=1e-7)


def test_a_direction_without_variance_is_the_mean_and_has_no_way_back():
    flat, x = Gaussian([1.0, 2.0], [[1.0, 0.0], [0.0, 0.0]]), normal(4, 2)
    for sigma in (0.0, 1e-8, 1.0):
        assert torch.isfinite(flat(x, sigma)).all()
        torch.testing.assert_close(flat(x, sigma)[:, 1], torch.full((4,), 2.0, dtype=F64))
    thin, y = Gaussian.fit(normal(20, 3), rank=2), normal(4, 3)
    for D, start in ((flat, x), (thin, y)):
        torch.testing.assert_close(D.flow(start, 2.0, 0.0), D(D.flow(start, 2.0, 0.0), 0.0))
        with pytest.raises(ValueError, match="sigma must be > 0"):
            D.flow(start, 0.0, 1.0)
        with pytest.raises(ValueError, match="sigma must be > 0"):
            D.log_prob(start, 0.0)


def test_fit_truncates_to_the_largest_directions():
    y = normal(60, 6) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.1], dtype=F64) + 4
    full, values = Gaussian.fit(y), np.linalg.svd((y - y.mean(0)).numpy(), compute_uv=False) ** 2 / 60
    torch.testing.assert_close(full.variances, torch.as_tensor(values))
    for rank in range(1, 7):
        part = Gaussian.fit(y, rank=rank)
        assert part.rank == rank
        torch.testing.assert_close(part.variances, full.variances[:rank])
        torch.testing.assert_close(part.axes.mT @ part.axes, torch.eye(rank, dtype=F64))
        cut = full.axes[:, :rank] * full.variances[:rank] @ full.axes[:, :rank].mT
        x = normal(5, 6, seed=1)
        torch.testing.assert_close(part(x, 0.8), Gaussian(y.mean(0), cut)(x, 0.8))
        torch.testing.assert_close(part.log_prob(x, 0.8), Gaussian(y.mean(0), cut).log_prob(x, 0.8))


@pytest.mark.parametrize("n", [2, 5, 9, 10, 11])
def test_fit_is_one_formula_on_both_sides_of_n_equals_d(n):
    y, x = normal(n, 10), normal(4, 10, seed=1)
    short, dense = Gaussian.fit(y), Gaussian(y.mean(0), torch.cov(y.T, correction=0))
    for sigma in (0.1, 3.0):
        torch.testing.assert_close(short(x, sigma), dense(x, sigma))
        torch.testing.assert_close(short.log_prob(x, sigma), dense.log_prob(x, sigma))
        torch.testing.assert_close(short.flow(x, sigma, 0.05), dense.flow(x, sigma, 0.05))
    one = Gaussian.fit(y, rank=1)
    assert one.rank == 1
    torch.testing.assert_close(one.variances[0], short.variances[0])


def test_fit_keeps_type_and_takes_integers_and_a_huge_mean():
    assert Gaussian.fit(normal(9, 3).float())(torch.zeros(1, 3), 1.0).dtype == torch.float32
    assert Gaussian.fit(torch.tensor([[0, 1], [2, 3], [4, 6]])).mean.tolist() == [2.0, 10 / 3]
    y = normal(400, 3).float() * torch.tensor([1.0, 0.1, 0.01]) + 1000.0
    torch.testing.assert_close(Gaussian.fit(y).variances, Gaussian.fit(y.double() - 1000).variances.float(), rtol=1e-4,
                               atol=0)  # fmt: skip


# ---- Classes --------------------------------------------------------------------------------------------------------


def test_the_unconditional_denoiser_is_the_average_of_the_conditional_ones():
    x, y, classes = normal(6, 3), normal(30, 3, seed=4), torch.arange(30) % 4
    M, E = mixture("full"), Empirical(y, bandwidth=0.1, labels=classes, chunk=4)
    for D, prior in ((M, M.weights), (E, classes.bincount() / 30.0)):
        labels = [torch.full((6,), k) for k in range(4)]
        posterior = torch.stack([D.log_prob(x, 0.9, k) + p.log() for k, p in zip(labels, prior)]).softmax(0)
        mean = sum(posterior[k][:, None] * D(x, 0.9, labels[k]) for k in range(4))
        torch.testing.assert_close(D(x, 0.9), mean)
    torch.testing.assert_close(M.responsibilities(x, 0.9).sum(1), torch.ones(6, dtype=F64))


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_tweedie_holds_for_every_class_even_where_chunks_hold_none_of_it(sigma):
    D = Empirical(normal(30, 3), labels=torch.arange(30) // 10, chunk=3)
    x, labels = normal(6, 3, seed=1).requires_grad_(True), torch.arange(6) % 3
    for model in (D, mixture("full")):
        (score,) = torch.autograd.grad(model.log_prob(x, sigma, labels).sum(), x)
        torch.testing.assert_close(model.score(x, sigma, labels), score, rtol=1e-7, atol=1e-7 / sigma**2)


def test_a_component_without_weight_can_still_be_asked_for():
    D, x = GaussianMixture([1.0, 0.0], [[0.0, 0.0], [3.0, 3.0]], 0.1), normal(2, 2)
    alone = GaussianMixture([1.0], [[3.0, 3.0]], 0.1)
    torch.testing.assert_close(D(x, 1.0, torch.tensor([1, 1])), alone(x, 1.0))
    torch.testing.assert_close(D.log_prob(x, 1.0, torch.tensor([1, 1])), alone.log_prob(x, 1.0))
    torch.testing.assert_close(D(x, 1.0), GaussianMixture([1.0], [[0.0, 0.0]], 0.1)(x, 1.0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type(dtype):
    labels = torch.tensor([0, 1, 2])
    for D in (mixture("full"), Empirical(normal(9, 3), labels=(torch.arange(9) % 3).to(dtype))):
        x = normal(3, 3)
        assert torch.equal(D(x, 1.0, labels.to(dtype)), D(x, 1.0, labels))


@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False], [[0, 1]], [0], [0, -1], [0, 9]])
def test_bad_labels_are_named(labels):
    for D in (mixture("full"), Empirical(normal(9, 3), labels=torch.arange(9) % 3)):
        with pytest.raises(ValueError, match="labels must"):
            D(normal(2, 3), 1.0, torch.tensor(labels))


# ---- More bad input -------------------------------------------------------------------------------------------------


def test_mixed_types_and_devices_are_named():
    mean, meta = torch.zeros(2, 3, dtype=F64), torch.device("meta")
    half = torch.full((2,), 0.5, dtype=F64)
    for weights, means, cov, name in (
        (half.float(), mean, 1.0, "weights is torch.float32"),
        (half, mean, torch.ones(2, 3), "covariances is torch.float32"),
        (half.to(meta), mean, 1.0, "weights is on meta"),
        (half, mean, torch.ones(2, 3, dtype=F64, device=meta), "covariances is on meta"),
    ):
        with pytest.raises(ValueError, match=name):
            GaussianMixture(weights, means, cov)
    with pytest.raises(ValueError, match=r"covariance is torch\.float32"):
        Gaussian(mean[0], torch.eye(3))
    with pytest.raises(ValueError, match="covariance is on meta"):
        Gaussian(mean[0], torch.eye(3, dtype=F64, device=meta))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Empirical([[1.0, 2.0], [3.0]]), TypeError, "data must be a tensor or nested lists"),
        (lambda: Empirical(torch.zeros(4)), ValueError, r"data must have shape \(N, \*event\)"),
        (lambda: Empirical(torch.zeros(4, 2), chunk=0), ValueError, "chunk must be an integer >= 1"),
        (lambda: Empirical(torch.zeros(2, 2), labels=torch.tensor([True, False])), ValueError, "labels must be"),
        (lambda: Empirical(torch.zeros(2, 2), labels=torch.tensor([0, -1])), ValueError, "labels must be"),
        (lambda: Gaussian([], 1.0), ValueError, "mean must have the shape of one sample"),
        (lambda: Gaussian([0.0, 0.0], -1.0), ValueError, "positive semi-definite"),
        (lambda: Gaussian([0.0, 0.0], math.nan), ValueError, "covariance must be finite"),
        (lambda: Gaussian([0.0, 0.0], [1.0, 1.0, 1.0]), ValueError, "covariance must be a number or have shape"),
        (lambda: Gaussian.fit(torch.zeros(5, 3), rank=0), ValueError, "rank must be an integer"),
        (lambda: Gaussian.fit(torch.full((5, 3), math.nan)), ValueError, "data must be finite"),
        (lambda: GaussianMixture([], torch.zeros(0, 2), 1.0), ValueError, "at least one component"),
        (lambda: GaussianMixture([math.nan, 1.0], [[0.0], [1.0]], 1.0), ValueError, "weights must be finite"),
        (lambda: GaussianMixture("ab", [[0.0], [1.0]], 1.0), TypeError, "weights must be a tensor or nested lists"),
        (lambda: mixture().sample(0), ValueError, "n must be an integer >= 1"),
        (lambda: Gaussian([0.0], 1.0).sample(-1), ValueError, "n must be an integer >= 1"),
        (lambda: Empirical(torch.zeros(2, 2)).sample(2.0), TypeError, "n must be an integer >= 1"),
    ],
)
def test_more_bad_parameters_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()


@every
def test_the_score_is_refused_without_noise(make):
    D, x = make(), normal(3, 3)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        D.score(x, 0.0)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        D.score(x, torch.tensor([1.0, 0.0, 1.0], dtype=F64))


@pytest.mark.parametrize("near", [1, 2, 3, 4, 5, 31, 32, 40])
@pytest.mark.parametrize("chunk", [3, 50, 4096])
def test_all_points_that_may_have_weight_are_found_however_many(near, chunk):
    y = 100 * torch.eye(90)  # all far from one another, but for `near` of them
    y[1:near, 50:] = y[0, 50:] + 0.001 * torch.randn(near - 1, 40, generator=rng())
    y[1:near, :50] = y[0, :50]
    y = y[torch.randperm(90, generator=rng())]
    x, sigma = y[:10] + 0.002 * torch.randn(10, 90, generator=rng()), 0.002
    exact = torch.softmax(-torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
                          / (2 * sigma**2), 1) @ y.double()  # fmt: skip
    torch.testing.assert_close(Empirical(y, chunk=chunk)(x, sigma).double(), exact, atol=1e-5, rtol=1e-5)


def test_few_points_are_searched_for_where_few_can_have_weight(monkeypatch):
    lengths, topk = [], torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda x, k, *args: (lengths.append(k), topk(x, k, *args))[1])
    y = torch.randn(500, 20, generator=rng())
    Empirical(y)(y[:8] + 1e-3, 1e-3)
    assert lengths  # care was taken
    assert max(lengths) <= 4


@pytest.mark.parametrize("crowd", [False, True])
def test_memory_stays_small_where_single_precision_takes_care(crowd):
    # 200 x 4000 x 500 values would be 1.6 GB. In a crowd every row needs float64.
    y = torch.rand(4000, 500, generator=rng()) * (1e-4 if crowd else 1.0) + crowd
    D, x = Empirical(y, chunk=512), y[:200] + 1e-3
    with torch.profiler.profile(profile_memory=True) as profile:
        D(x, 0.002)
    assert max(e.cpu_memory_usage for e in profile.events()) < 100e6


# --- mixtures of low rank ------------------------------------------------------------------------------------------


def with_floor(D, floor):
    """The same mixture with full covariances, and a small variance outside the axes."""
    cov = D.axes @ torch.diag_embed(D.variances) @ D.axes.mT + floor * torch.eye(D.dim, dtype=D.axes.dtype)
    return GaussianMixture(D.weights, D.means, cov)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 5.0, 80.0])
@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("labelled", [False, True])
def test_low_rank_mixture_equals_the_one_with_full_covariances(sigma, rank, labelled):
    D = low_rank(k=4, d=6, rank=rank)
    full = with_floor(D, 1e-14)
    x = (1 + sigma) * normal(9, 6, seed=3)
    labels = torch.arange(9) % 4 if labelled else None
    torch.testing.assert_close(D(x, sigma, labels), full(x, sigma, labels), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(D.log_prob(x, sigma, labels), full.log_prob(x, sigma, labels), rtol=1e-8, atol=1e-7)
    torch.testing.assert_close(D.responsibilities(x, sigma), full.responsibilities(x, sigma), rtol=1e-7, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 5]), st.floats(0.05, 50))
def test_low_rank_mixture_with_labels_is_the_gaussian_of_the_class(seed, rank, sigma):
    y, labels = normal(30, 5, seed=seed), torch.arange(30) % 3
    D, x = LowRankMixture.fit(y, labels, rank), normal(4, 5, seed=seed + 1)
    for k in range(3):
        own = Gaussian.fit(y[labels == k], rank)
        chosen = torch.full((4,), k)
        torch.testing.assert_close(D(x, sigma, chosen), own(x, sigma))
        torch.testing.assert_close(D.log_prob(x, sigma, chosen), own.log_prob(x, sigma))
    one = LowRankMixture.fit(y, torch.zeros(30, dtype=torch.long), rank)
    torch.testing.assert_close(one(x, sigma), Gaussian.fit(y, rank)(x, sigma))


def test_low_rank_mixture_limits_are_a_projection_and_the_mean_of_means():
    D = low_rank(k=3, d=6, rank=2)
    x, labels = D.means[[0, 1, 2]] + 0.3 * normal(3, 6, seed=4), torch.arange(3)
    torch.testing.assert_close(D(x, 1e6), (D.weights @ D.means).expand(3, 6), rtol=1e-4, atol=1e-4)
    near = D(x, 1e-5, labels)
    for k in range(3):
        expected = D.means[k] + (x[k] - D.means[k]) @ D.axes[k] @ D.axes[k].mT
        torch.testing.assert_close(near[k], expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        D(x, 0.0)
    full = low_rank(rank=None)
    y = full.sample(5, rng())
    torch.testing.assert_close(full(y, 0.0), y)


def test_low_rank_mixture_takes_classes_with_fewer_samples_than_directions():
    y = normal(13, 8)
    labels = torch.tensor([0] * 10 + [1] * 3)
    D, x = LowRankMixture.fit(y, labels), normal(4, 8, seed=2)
    full, second = with_floor(D, 1e-14), Gaussian.fit(y[10:])
    assert D.rank == 8
    torch.testing.assert_close(D.log_prob(x, 0.5), full.log_prob(x, 0.5), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(D(x, 0.5, torch.ones(4, dtype=torch.long)), second(x, 0.5))


def test_low_rank_mixture_samples_have_the_moments_of_their_component():
    D = low_rank(k=2, d=4, rank=2)
    samples, labels = D.sample_with_labels(40_000, rng(1))
    assert labels.double().mean() == pytest.approx(float(D.weights[1]), abs=0.01)
    for k in range(2):
        own = samples[labels == k]
        torch.testing.assert_close(own.mean(0), D.means[k], rtol=0, atol=0.06)
        cov = D.axes[k] @ D.variances[k].diag() @ D.axes[k].mT
        torch.testing.assert_close(own.T.cov(), cov, rtol=0.05, atol=0.08)
        rest = own - D.means[k]
        torch.testing.assert_close(rest @ D.axes[k] @ D.axes[k].mT, rest)
    assert low_rank().sample(3, rng()).shape == (3, 3)


def test_low_rank_mixture_needs_no_matrix_of_pixels_by_pixels():
    images = normal(60, 1, 28, 28).float()
    D = LowRankMixture.fit(images, torch.arange(60) % 3, rank=4)
    assert max(b.numel() for b in D.buffers()) == 3 * 784 * 4
    x = torch.randn(5, 1, 28, 28, generator=rng())
    assert D(x, torch.linspace(0.1, 9, 5)).shape == x.shape
    assert D(x, 1.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LowRankMixture([1.0], [[0.0, 0.0]], [[1.0]], [[[1.0], [1.0]]]), "axes must have orthonormal"),
        (lambda: LowRankMixture([1.0], [[0.0, 0.0]], [[1.0]], [[[0.0], [0.0]]]), "axes must have orthonormal"),
        (lambda: LowRankMixture([1.0], [[0.0, 0.0]], [[-1.0]], [[[1.0], [0.0]]]), "variances must be"),
        (lambda: LowRankMixture([0.4], [[0.0, 0.0]], [[1.0]], [[[1.0], [0.0]]]), "weights must sum to 1"),
        (lambda: LowRankMixture([1.0], [[0.0, 0.0]], [[1.0]], [[[1.0]]]), "axes must have shape"),
        (lambda: LowRankMixture([1.0], [0.0, 0.0], [[1.0]], [[[1.0]]]), "means must have shape"),
        (lambda: LowRankMixture.fit(normal(5, 2), torch.tensor([0, 0, 1, 1, 3])), "labels must use every class"),
        (lambda: LowRankMixture.fit(normal(5, 2), torch.zeros(4, dtype=torch.long)), "labels must be"),
        (lambda: LowRankMixture.fit(normal(4, 2), torch.tensor([0, 0, 1, 1]), rank=3), "rank must be"),
    ],
)
def test_bad_parameters_of_a_low_rank_mixture_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# --- covariances -----------------------------------------------------------------------------------------------------


def covariance(kind, k=4, d=3):
    """Components of every kind, and the same as dense matrices."""
    dense, axes = covariances(k, d), torch.linalg.qr(normal(k, d, 2))[0]
    variances = dense.diagonal(dim1=1, dim2=2)
    return {
        "isotropic": (Isotropic(variances[:, 0]), torch.diag_embed(variances[:, :1].expand(k, d))),
        "diagonal": (Diagonal(variances), torch.diag_embed(variances)),
        "full": (Full(dense), dense),
        "low rank": (LowRank(variances[:, :2], axes), axes @ torch.diag_embed(variances[:, :2]) @ axes.mT),
    }[kind]


kinds = pytest.mark.parametrize("kind", ["isotropic", "diagonal", "full", "low rank"])


@kinds
@pytest.mark.parametrize("sigma", [0.05, 1.0, 80.0])
def test_a_covariance_is_its_dense_matrix(kind, sigma):
    C, dense = covariance(kind)
    u, component = normal(5, 4, 3, seed=9), torch.tensor([2, 0, 3])
    total, level = dense + sigma**2 * torch.eye(3, dtype=F64), torch.full((1, 1), sigma, dtype=F64)
    along = C.along(u)
    expected = torch.einsum("bkd,kde,bke->bk", u, torch.linalg.inv(total), u)
    torch.testing.assert_close(C.quadratic(u, along, level), expected)
    torch.testing.assert_close(C.log_det(level, 3)[0], torch.linalg.slogdet(total)[1])
    shrunk = torch.einsum("kde,bke->bkd", dense @ torch.linalg.inv(total), u)
    torch.testing.assert_close(C.back(C.shrink(along, level)), shrunk)
    share = torch.rand(5, 4, generator=rng(), dtype=F64)
    mixed = C.mix(share, normal(4, 3), C.shrink(along, level))
    torch.testing.assert_close(mixed, torch.einsum("bk,bkd->bd", share, normal(4, 3) + shrunk))
    noise = torch.eye(C.rank(3), dtype=F64)
    for k in component.tolist():
        root = C.root(noise, torch.full((len(noise),), k))
        torch.testing.assert_close(root.mT @ root, dense[k])


@kinds
@pytest.mark.parametrize("sigma", [0.05, 1.0, 80.0])
def test_a_mixture_and_a_gaussian_take_every_kind_of_covariance(kind, sigma):
    C, dense = covariance(kind)
    dense = dense + 1e-12 * torch.eye(3, dtype=F64) * (kind == "low rank")
    weights, means = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64), normal(4, 3, seed=1)
    D, same = GaussianMixture(weights, means, C), GaussianMixture(weights, means, dense)
    x = (1 + sigma) * normal(6, 3, seed=2)
    for method in ("forward", "log_prob", "responsibilities"):
        torch.testing.assert_close(getattr(D, method)(x, sigma), getattr(same, method)(x, sigma), rtol=1e-7, atol=1e-8)
    one = {
        "isotropic": lambda: Isotropic(C.variances[1]),
        "full": lambda: Full(dense[1:2]),
        "diagonal": lambda: Diagonal(C.variances[1:2]),
        "low rank": lambda: LowRank(C.variances[1:2], C.axes[1:2]),
    }
    G, like = Gaussian(means[1], one[kind]()), Gaussian(means[1], dense[1])
    for method, given_ in (("forward", ()), ("log_prob", ()), ("flow", (sigma / 3,))):
        got, expected = getattr(G, method)(x, sigma, *given_), getattr(like, method)(x, sigma, *given_)
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(D.sample_with_labels(9, rng())[1], same.sample_with_labels(9, rng())[1])
    assert D.sample(9, rng()).shape == G.sample(9, rng()).shape == (9, 3)


@kinds
def test_a_covariance_is_copied_and_moves_with_its_denoiser(kind):
    C, _ = covariance(kind)
    D, x = GaussianMixture([0.25] * 4, normal(4, 3), C), normal(2, 3)
    before = D(x, 0.7)
    assert D.float()(x.float(), 0.7).dtype == torch.float32
    assert C.variances.dtype == F64
    again = GaussianMixture([0.25] * 4, normal(4, 3), C)
    C.variances.mul_(3)
    assert torch.equal(again(x, 0.7), before)


@pytest.mark.parametrize("variance", [0.25, torch.linspace(0.1, 2, 12_288).reshape(3, 64, 64)])
def test_a_gaussian_of_images_without_axes_holds_no_matrix_of_pixels_by_pixels(variance):
    with torch.profiler.profile(profile_memory=True) as profile:
        D = Gaussian(torch.zeros(3, 64, 64), variance)
        x = torch.randn(4, 3, 64, 64, generator=rng())
        denoised, log_p, end = D(x, 0.5), D.log_prob(x, 0.5), D.flow(x, 0.5, 0.1)
        assert D.sample(2, rng()).shape == (2, 3, 64, 64)
    assert sum(b.numel() for b in D.buffers()) <= 2 * D.dim  # d x d numbers would be 1.2 GB twice
    assert sum(max(0, e.self_cpu_memory_usage) for e in profile.key_averages()) < 50e6
    variance = torch.as_tensor(variance)
    torch.testing.assert_close(denoised, variance / (variance + 0.25) * x)
    torch.testing.assert_close(end, ((variance + 0.01) / (variance + 0.25)).sqrt() * x)
    normal_ = torch.distributions.Normal(0.0, (variance.double() + 0.25).sqrt())
    torch.testing.assert_close(log_p.double(), normal_.log_prob(x.double()).sum((1, 2, 3)), rtol=1e-5, atol=0)


def test_a_diagonal_gaussian_still_tells_its_rank_variances_and_axes():
    for covariance_ in (0.5, [0.5, 0.5]):
        D = Gaussian([1.0, 2.0], covariance_)
        assert (D.rank, D.variances.tolist(), D.axes.tolist()) == (2, [0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.slow
def test_a_mixture_of_many_components_takes_its_samples_in_blocks():
    y, x = torch.rand(600, 500, generator=rng()), torch.rand(400, 500, generator=rng(1))
    levels = torch.linspace(0.5, 2, 400)
    D, kde = GaussianMixture([1 / 600] * 600, y, 0.01), Empirical(y, bandwidth=0.1)
    with torch.profiler.profile(profile_memory=True) as profile:
        got, log_p = D(x, levels), D.log_prob(x, levels)
    assert max(e.cpu_memory_usage for e in profile.events()) < 50e6  # offsets from all means are 480 MB
    torch.testing.assert_close(got, kde(x, levels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_p, kde.log_prob(x, levels), rtol=1e-5, atol=1e-3)
    labels = torch.arange(400)
    alone = GaussianMixture([1.0], y[7:8], 0.01)
    torch.testing.assert_close(D(x, levels, labels)[7], alone(x[7:8], levels[7])[0])


@pytest.mark.parametrize("kind", ["diagonal", "full", "isotropic"])
def test_directions_without_variance_need_noise(kind):
    flat = {"diagonal": Diagonal([[1.0, 0.0]]), "full": Full([[[1.0, 0.0], [0.0, 0.0]]]), "isotropic": Isotropic([0.0])}
    D, x = GaussianMixture([1.0], [[0.0, 0.0]], flat[kind]), normal(3, 2)
    assert torch.isfinite(D(x, 0.1)).all()
    for call in (D, D.log_prob, D.responsibilities, Gaussian([0.0, 0.0], flat[kind]).log_prob):
        with pytest.raises(ValueError, match="sigma must be > 0: without noise"):
            call(x, 0.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Isotropic(2.0), r"variances must have shape \(K,\), got \(\)"),
        (lambda: Isotropic([-1.0, 2.0]), "variances must be positive semi-definite, got a smallest eigenvalue of -1"),
        (lambda: Diagonal([1.0, 2.0]), r"variances must have shape \(K, \*event\), got \(2,\)"),
        (lambda: Diagonal([[1.0, -2.0]]), "variances must be positive semi-definite"),
        (lambda: Full([[1.0, 0.0], [0.0, 1.0]]), r"matrices must have shape \(K, d, d\), got \(2, 2\)"),
        (lambda: Full([[[1.0, 0.5], [0.0, 1.0]]]), "matrices must be a symmetric matrix"),
        (lambda: Full([[[1.0, 2.0], [2.0, 1.0]]]), "matrices must be positive semi-definite"),
        (lambda: LowRank([[1.0]], [[1.0], [0.0]]), r"axes must have shape \(K, d, r\)"),
        (lambda: LowRank([[1.0, 1.0]], [[[1.0], [0.0]]]), r"variances must be \(1, 1\) numbers"),
        (lambda: LowRank(torch.ones(1, 1), torch.ones(1, 1, 1, dtype=F64)), "variances is torch.float32 .* the axes"),
        (
            lambda: GaussianMixture([0.5, 0.5], [[0.0], [1.0]], Isotropic([1.0])),
            "covariances must hold 2 in 1 dimensions, got Isotropic of 1 in any number of dimensions",
        ),
        (
            lambda: Gaussian([0.0, 0.0], Diagonal([[1.0, 1.0, 1.0]])),
            "covariance must hold 1 in 2 dimensions, got Diagonal of 1 in 3 dimensions",
        ),
        (lambda: Gaussian(torch.zeros(2), Isotropic([1.0])), "covariance is torch.float64 but must have one dtype"),
    ],
)
def test_bad_covariances_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_what_is_fitted_is_made_as_any_other(monkeypatch):
    # so that an exercise that forbids a class forbids its fit
    monkeypatch.setattr(Gaussian, "__init__", lambda self, *_: pytest.fail("made"))
    with pytest.raises(pytest.fail.Exception, match="made"):
        Gaussian.fit(normal(9, 3))


def test_a_denoiser_without_a_density_is_not_made():
    class Half(DenoiserModule):
        def _denoise(self, x, sigma, labels):
            return x / 2

    with pytest.raises(TypeError, match=r"abstract method '?_log_prob"):
        Half()
    with pytest.raises(TypeError, match="abstract"):
        DenoiserModule()


# --- far from the origin ---------------------------------------------------------------------------------------------


def exact_rational(y, x, sigma):
    """Denoised point, weights and log density of a data set at one x, by rational arithmetic but for exp and log."""
    points, at, var = [[Fraction(v) for v in row] for row in y.tolist()], [Fraction(v) for v in x.tolist()], sigma**2
    logits = [-sum((a - b) ** 2 for a, b in zip(at, point)) / (2 * Fraction(var)) for point in points]
    top = max(logits)
    w = [math.exp(max(-800.0, float(logit - top))) for logit in logits]
    mean = [sum(Fraction(v) * p for v, p in zip(w, column)) / Fraction(sum(w)) for column in zip(*points)]
    log_p = float(top) + math.log(sum(w) / len(w)) - 0.5 * len(at) * math.log(2 * math.pi * var)
    return torch.tensor([float(v) for v in mean], dtype=F64), torch.tensor(w, dtype=F64) / sum(w), log_p


def on_a_grid(seed, dtype, *shape):
    return torch.randint(-300, 301, shape, generator=rng(seed)).to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    double=st.booleans(),
    quantum=st.integers(-6, 1),
    far=st.integers(0, 2**20),
    sigma=st.sampled_from([0.002, 0.02, 0.3, 2.0, 80.0]),
    spread=st.sampled_from([0, 1, 40, 10**4]),
)
def test_nothing_depends_on_where_the_origin_lies(seed, double, quantum, far, sigma, spread):
    # Data, queries and shifts are multiples of one power of two: all sums are exact, so only the denoiser can round.
    dtype = F64 if double else torch.float32
    step, shift = 2.0**quantum, far * 2.0**quantum * (2**10 if double else 2)  # up to 2e9, and to 2^22 in float32
    y = on_a_grid(seed, dtype, 12, 2) * step
    x = y[:4] + on_a_grid(seed + 1, dtype, 4, 2).clamp(-spread, spread) * step
    cov = covariances(12, 2, seed).to(dtype)
    weights = torch.full((12,), 1 / 12, dtype=dtype)
    axes, lam = torch.linalg.qr(cov)[0], cov.diagonal(dim1=1, dim2=2).clone()
    eps = torch.finfo(dtype).eps
    for make in (
        lambda y: Empirical(y, chunk=5),
        lambda y: Empirical(y, bandwidth=0.1),
        lambda y: GaussianMixture(weights, y, cov),
        lambda y: GaussianMixture(weights, y, 0.01),
        lambda y: LowRankMixture(weights, y, lam[:, :1], axes[:, :, :1]),
        lambda y: Gaussian(y[0], cov[0]),
    ):
        here, there = make(y), make(y + shift)
        tolerance = 4 * eps * (shift + 1e3)
        torch.testing.assert_close(there(x + shift, sigma), here(x, sigma) + shift, rtol=0, atol=tolerance)
        torch.testing.assert_close(there.log_prob(x + shift, sigma), here.log_prob(x, sigma), rtol=16 * eps, atol=1e-6)
        if not isinstance(here, Gaussian):
            posterior = "weights" if isinstance(here, Empirical) else "responsibilities"
            got, same = getattr(there, posterior)(x + shift, sigma), getattr(here, posterior)(x, sigma)
            torch.testing.assert_close(got, same, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    double=st.booleans(),
    spacing=st.floats(0.01, 600),
    far=st.sampled_from([0.0, 1e2, 1e6, 1e9]),
    away=st.sampled_from([0.01, 1.0, 1e3, 1e7]),
    sigma=st.sampled_from([0.002, 0.02, 0.3, 2.0, 80.0]),
    crowds=st.booleans(),
    chunk=st.sampled_from([7, 4096]),
)
def test_data_far_away_far_apart_and_far_from_x_against_rational_arithmetic(
    seed, double, spacing, far, away, sigma, crowds, chunk
):
    dtype = F64 if double else torch.float32
    y = far + spacing * normal(45, 2, seed=seed)
    if crowds:  # no origin is near both
        y[20:] = -y[20:]
    y = y.to(dtype)
    x = (y[18:22].double() + away * normal(4, 2, seed=seed + 1)).to(dtype)
    D, level = Empirical(y, chunk=chunk), torch.tensor(sigma, dtype=dtype)
    got, weights, log_p = D(x, level), D.weights(x, level), D.log_prob(x, level)
    eps = torch.finfo(dtype).eps
    for i in range(4):
        mean, w, density = exact_rational(y, x[i], float(level))
        off = 4 * eps * float(mean.abs().max()) + (1e-8 if double else 2e-4) * sigma + eps * spacing
        torch.testing.assert_close(got[i].double(), mean, rtol=0, atol=off)
        torch.testing.assert_close(weights[i].double(), w, rtol=0, atol=1e-8 if double else 1e-6)
        assert float(log_p[i]) == pytest.approx(density, rel=8 * eps, abs=1e-6)


def test_samples_in_seconds_since_1970_are_told_apart():
    y = 1.7e9 + torch.tensor([[0.0], [5.0], [10.0], [600.0]], dtype=F64)
    assert float((Empirical(y)(y, 1.0) - y).abs().max()) < 2e-5
    torch.testing.assert_close(Empirical(y).log_prob(y, 1.0), Empirical(y - 1.7e9).log_prob(y - 1.7e9, 1.0))
    close = torch.tensor([[0.0], [0.01]], dtype=F64) + 1e6
    torch.testing.assert_close(Empirical(close)(close, 0.002), close, rtol=0, atol=1e-7)


def test_a_crowd_with_no_origin_near_it_is_compared_by_differences_too():
    near, away = 0.002 * normal(200, 2), (1e8 + 0.002 * normal(200, 2, seed=1))
    D, one, two = Empirical(torch.cat([near, away]), chunk=64), Empirical(near), Empirical(away - 1e8)
    torch.testing.assert_close(D(near[:3], 0.002), one(near[:3], 0.002))
    rounding = 8 * torch.finfo(F64).eps * 1e8
    torch.testing.assert_close(D(away[:3], 0.002) - 1e8, two(away[:3] - 1e8, 0.002), rtol=0, atol=rounding)
    torch.testing.assert_close(D.log_prob(near[:3], 0.002), one.log_prob(near[:3], 0.002) - math.log(2))
    torch.testing.assert_close(D.log_prob(away[:3], 0.002), two.log_prob(away[:3] - 1e8, 0.002) - math.log(2))
    torch.testing.assert_close(D.weights(near[:3], 0.002)[:, :200], one.weights(near[:3], 0.002))
    torch.testing.assert_close(D.weights(away[:3], 0.002)[:, 200:], two.weights(away[:3] - 1e8, 0.002))


@pytest.mark.parametrize("sigma", [0.002, 0.3])
def test_careful_rows_keep_gradients_classes_and_other_rows(sigma):
    one, two = normal(20, 2), normal(20, 2, seed=1)
    classes = torch.arange(40) % 2
    D = Empirical(torch.cat([one, 1e8 + two]), labels=classes)
    for alone, shift, row, k in ((Empirical(one, labels=classes[:20]), 0.0, one[3], 1),
                                 (Empirical(two, labels=classes[:20]), 1e8, two[5], 0)):  # fmt: skip
        labels = torch.tensor([k])

        def moved(v, denoiser=D, shift=shift, labels=labels):
            return denoiser(v + shift, sigma, labels)[0] - shift

        def truth(v, denoiser=alone, labels=labels):
            return denoiser(v, sigma, labels)[0]

        x = (row + 0.1).round(decimals=2)[None]
        expected = torch.autograd.functional.jacobian(truth, x)
        got = torch.autograd.functional.jacobian(moved, x)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))
        far = (x + shift).requires_grad_(True)
        (slope,) = torch.autograd.grad(D.log_prob(far, sigma, labels).sum(), far)
        torch.testing.assert_close(slope, D.score(far, sigma, labels).detach(), rtol=1e-5, atol=1e-7 / sigma**2)


def test_data_near_the_origin_are_not_copied_and_others_once():
    near = torch.rand(50, 4, generator=rng())
    assert Empirical(near).centred.data_ptr() == near.data_ptr()
    D = Empirical(near + 1000)
    assert float(D.centred.abs().max()) <= 1
    assert torch.equal(D.centred + D.centre, near + 1000)
    moved = Empirical(near)
    moved.load_state_dict(D.state_dict())
    assert torch.equal(moved(near + 1000, 0.1), D(near + 1000, 0.1))
    wide = D.double()
    assert wide.centre.dtype == wide.centred.dtype == wide.half_norms.dtype == F64


def mixture_rational(means, variances, x, sigma):
    """Denoised point and log density of equally likely Gaussians with diagonal covariances, by rational arithmetic."""
    at, noise, parts = [Fraction(v) for v in x.tolist()], Fraction(sigma) ** 2, []
    for mean, var in zip(means.tolist(), variances.tolist()):
        terms = [(Fraction(m), Fraction(v), Fraction(v) + noise, a - Fraction(m)) for m, v, a in zip(mean, var, at)]
        quadratic = -sum(a * a / total for _, _, total, a in terms) / 2
        log_det = -0.5 * sum(math.log(total) for _, _, total, _ in terms)
        parts.append((quadratic, log_det, [m + v / total * a for m, v, total, a in terms]))
    top = max(quadratic for quadratic, _, _ in parts)
    w = [math.exp(max(-800.0, float(quadratic - top)) + log_det) for quadratic, log_det, _ in parts]
    point = [
        sum(Fraction(v) * p for v, p in zip(w, column)) / Fraction(sum(w)) for column in zip(*(p[2] for p in parts))
    ]
    log_p = float(top) + math.log(sum(w) / len(w)) - 0.5 * len(at) * math.log(2 * math.pi)
    return torch.tensor([float(v) for v in point], dtype=F64), log_p


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    double=st.booleans(),
    kind=st.sampled_from(["one variance", "one covariance", "each its own"]),
    spacing=st.floats(0.01, 600),
    far=st.sampled_from([0.0, 1e6, 1e9]),
    away=st.sampled_from([0.0, 1.0, 1e4, 1e8]),
    sigma=st.sampled_from([0.002, 0.02, 0.3, 80.0]),
    across=st.booleans(),
)
def test_mixtures_far_away_and_far_from_x_against_rational_arithmetic(
    seed, double, kind, spacing, far, away, sigma, across
):
    dtype = F64 if double else torch.float32
    means = (far + spacing * normal(4, 3, seed=seed)).to(dtype)
    variances = 10 ** (6 * torch.rand(4, 3, generator=rng(seed), dtype=F64) - 4)
    variances = {"one variance": variances[:1, :1], "one covariance": variances[:1]}.get(kind, variances)
    variances = variances.expand(4, 3).to(dtype).contiguous()
    x = (means[:2].double() + away * normal(2, 3, seed=seed + 1)).to(dtype)
    if across:  # x is far only in a direction in which the means do not differ
        means[:, 1:], x[:, 0] = means[:1, 1:], means[:2, 0]
    weights, eps = torch.full((4,), 0.25, dtype=dtype), torch.finfo(dtype).eps
    level = torch.tensor(sigma, dtype=dtype)
    for D in (
        GaussianMixture(weights, means, variances),
        LowRankMixture(weights, means, variances, torch.eye(3, dtype=dtype).repeat(4, 1, 1)),
    ):
        got, log_p = D(x, level), D.log_prob(x, level)
        for i in range(2):
            mean, density = mixture_rational(means, variances, x[i], float(level))
            size = float(mean.abs().max()) + spacing + float((x[i] - means[0]).abs().max())
            off = 8 * eps * size + (1e-8 if double else 2e-4) * (sigma + float(variances.max()) ** 0.5)
            torch.testing.assert_close(got[i].double(), mean, rtol=0, atol=off)
            assert float(log_p[i]) == pytest.approx(density, rel=32 * eps, abs=1e-6 if double else 1e-3)


def test_a_component_is_chosen_however_far_x_is_in_a_direction_they_share():
    means, x = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=F64), torch.tensor([[1e9, 0.3], [1e9, 0.6]], dtype=F64)
    turned = torch.tensor([[1e-4, 0.0], [0.0, 1e-4]], dtype=F64).repeat(2, 1, 1)
    line = torch.tensor([[1.0], [0.0]], dtype=F64).repeat(2, 1, 1)
    for D in (
        Empirical(means),
        GaussianMixture([0.5, 0.5], means, 1e-4),
        GaussianMixture([0.5, 0.5], means, turned),
        LowRankMixture([0.5, 0.5], means, [[1e-4], [1e-4]], line),
    ):
        own = 1e-4 / (1e-4 + 0.002**2) if isinstance(D, GaussianMixture) else 0.0  # the share of x in D
        torch.testing.assert_close(D(x, 0.002)[:, 1], own * x[:, 1] + (1 - own) * means[:, 1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 6, 8), (6, 8), (7,), (2, 1, 5, 4)])
def test_a_power_law_has_the_variances_of_its_frequencies(shape):
    D = Gaussian.power_law(shape, alpha=1.7, variance=0.4)
    assert D.event_shape == shape
    assert not D.mean.any()
    assert float(D.variances.mean()) == pytest.approx(0.4, rel=1e-12)
    lam = D.variances.reshape(shape)
    for at in itertools.product(*map(range, shape)):
        cycles = math.hypot(*(min(k, n - k) for k, n in zip(at[-2:], shape[-2:])))
        expected = lam.flatten()[0] * max(cycles, 1) ** -1.7
        assert float(lam[at]) == pytest.approx(float(expected), rel=1e-12)
    assert bool((Gaussian.power_law(shape, alpha=0).variances == 0.25).all())


def test_a_solver_sees_of_a_gaussian_only_its_variances():
    """Why a power law needs no axes: turned noise through the turned Gaussian is the turned path, for every solver."""
    D, x = Gaussian.power_law((3, 4)), initial_noise(5, (3, 4), seed=3)
    turn = torch.linalg.qr(initial_noise(12, (12,), 1.0, seed=4))[0]
    turned = Gaussian(torch.zeros(12, dtype=F64), turn @ D.variances.diag() @ turn.mT)
    for solver in ("euler", "dpmpp_2m", "unipc", "heun"):
        path = sample(D, x, schedules.cosine(5), solver).final.flatten(1) @ turn.mT
        torch.testing.assert_close(sample(turned, x.flatten(1) @ turn.mT, schedules.cosine(5), solver).final, path)

"""Identities that every closed-form denoiser must satisfy, against independent computations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from teachkit import Empirical, Gaussian, GaussianMixture, data, meanshift, sample

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


ALL = {
    "mixture-full": lambda: mixture("full"),
    "mixture-diagonal": lambda: mixture("diagonal"),
    "mixture-isotropic": lambda: mixture("isotropic"),
    "gaussian": lambda: Gaussian(normal(3), covariances(1, 3)[0]),
    "gaussian-low-rank": lambda: Gaussian.fit(normal(40, 3) * torch.tensor([3.0, 1.0, 0.2], dtype=F64), rank=2),
    "empirical": lambda: Empirical(normal(30, 3), chunk=7),
    "empirical-bandwidth": lambda: Empirical(normal(30, 3), bandwidth=0.3, chunk=7),
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


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
        with pytest.raises(ValueError, match="sigma must be finite and >= 0"):
            D(x, sigma)
    with pytest.raises(ValueError, match="sigma must be a number, 0-d or"):
        D(x, torch.ones(3))
    with pytest.raises(TypeError, match="sigma must be a number"):
        D(x, "1.0")


def test_zero_noise_is_refused_where_there_is_no_density():
    with pytest.raises(ValueError, match="sigma must be > 0"):
        Empirical(normal(5, 2))(normal(1, 2), 0.0)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        Gaussian.fit(normal(5, 3), rank=1).log_prob(normal(1, 3), 0.0)


def test_modules_move_and_convert():
    D = Empirical(data.two_moons(50)).to(torch.float32)
    assert D(torch.zeros(2, 2), 1.0).dtype == torch.float32

"""Distances against closed forms for Gaussians, their bias, their error bars, and the classifier on unseen digits."""

import doctest
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from teachkit import data, metrics
from teachkit.metrics import FeatureStatistics, bootstrap, frechet_distance, mmd, proportion, sliced_wasserstein
from teachkit.metrics.distances import squared_distances


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(mean, covariance):
    """Statistics of a Gaussian itself."""
    return FeatureStatistics.from_moments(10**9, torch.as_tensor(mean).double(), torch.as_tensor(covariance).double())


def whitened(n, d, seed=0):
    """Samples whose sample mean and covariance are exactly 0 and the identity."""
    x = normal(n, d, seed=seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T


# --- Fréchet distance


def test_frechet_of_commuting_gaussians():
    """With a shared eigenbasis the distance is |shift|^2 + sum (s_a - s_b)^2 over standard deviations."""
    basis = torch.linalg.qr(normal(4, 4)).Q
    s_a, s_b = torch.tensor([[1.0, 2.0, 0.5, 3.0], [2.0, 2.0, 0.0, 1.0]]).double()
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5]).double()
    a = exact(torch.zeros(4), basis * s_a**2 @ basis.T)
    b = exact(shift, basis * s_b**2 @ basis.T)
    truth = float(shift.square().sum() + (s_a - s_b).square().sum())
    assert frechet_distance(a, b) == pytest.approx(truth, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(truth, rel=1e-12)


def test_frechet_of_general_gaussians_against_scipy():
    linalg = pytest.importorskip("scipy.linalg", reason="SciPy comes with the test extra")
    root_a, root_b = normal(6, 6, seed=1), normal(6, 6, seed=2)
    c_a, c_b = root_a @ root_a.T, root_b @ root_b.T
    cross = linalg.sqrtm((c_a @ c_b).numpy()).real.trace()
    truth = 6.0 + float(c_a.trace() + c_b.trace()) - 2 * cross
    assert frechet_distance(exact(torch.zeros(6), c_a), exact(torch.ones(6), c_b)) == pytest.approx(truth, rel=1e-10)


def test_frechet_of_samples_with_known_moments():
    x = whitened(200, 5)
    stretch = torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0]).double()
    assert frechet_distance(x, x * stretch + 2) == pytest.approx(5 * 4 + float((stretch - 1).square().sum()), rel=1e-10)


@pytest.mark.parametrize("n", [2, 10, 50])
def test_frechet_with_fewer_samples_than_features(n):
    """Rank-deficient covariances: equal sets are at distance 0, a shift costs its square, a turn changes nothing."""
    x, shift = normal(n, 50), normal(50, seed=1)
    assert frechet_distance(x, x.clone()) < 1e-10
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)
    turn, y = torch.linalg.qr(normal(50, 50, seed=2)).Q, normal(n, 50, seed=3)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_frechet_of_constant_sets():
    assert frechet_distance(torch.zeros(5, 3), torch.ones(4, 3)) == pytest.approx(3.0)


def test_frechet_is_sharp_for_nearby_sets_of_very_different_scales():
    """A product under a square root would lose half the digits; here a change of 1e-6 in the smallest one shows."""
    s = torch.tensor([1e4, 1.0, 1e-4]).double()
    moved = s + torch.tensor([0.0, 1e-3, 0.0]).double()
    found = frechet_distance(exact(torch.zeros(3), (s**2).diag()), exact(torch.zeros(3), (moved**2).diag()))
    assert found == pytest.approx(1e-6, abs=1e-7)  # 1e-15 of the largest term


def test_extrapolation_removes_the_bias():
    """Two sets from one Gaussian are at distance 0: the plain estimate says c / N, the extrapolated one about 0."""
    plain, straight = [], []
    for seed in range(8):
        a, b = normal(600, 12, seed=2 * seed), normal(600, 12, seed=2 * seed + 1)
        plain.append(frechet_distance(a, b))
        straight.append(frechet_distance(a, b, extrapolate=True, seed=seed))
    plain, straight = torch.tensor(plain), torch.tensor(straight)
    error = float(straight.std()) / math.sqrt(len(straight))
    assert plain.mean() > 0.05
    assert abs(float(straight.mean())) < 3 * error + 0.1 * float(plain.mean())


def test_extrapolation_against_exact_statistics():
    truth = 12 * 0.5**2
    reference = exact(torch.full((12,), 0.5), torch.eye(12))
    found = [frechet_distance(normal(500, 12, seed=s), reference, extrapolate=True) for s in range(8)]
    plain = [frechet_distance(normal(500, 12, seed=s), reference) for s in range(8)]
    assert abs(sum(found) / 8 - truth) < 0.1
    assert abs(sum(found) / 8 - truth) < abs(sum(plain) / 8 - truth)


# --- FeatureStatistics


@pytest.mark.parametrize("sizes", [(100,), (1, 99), (30, 30, 40), (1,) * 100])
def test_statistics_do_not_depend_on_how_the_stream_was_cut(sizes):
    x = normal(100, 4) * 3 + 1000  # a large mean, where the naive sum of squares loses digits
    left, right = FeatureStatistics(), FeatureStatistics()
    for i, part in enumerate(x.split(list(sizes))):
        (left if i % 2 else right).update(part)
    merged = FeatureStatistics().merge(left).merge(right)
    assert merged.count == 100
    torch.testing.assert_close(merged.mean, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(merged.covariance, torch.cov(x.T), rtol=1e-11, atol=1e-11)


def test_merging_leaves_the_other_one_alone():
    a, b = FeatureStatistics(), FeatureStatistics(normal(5, 2))
    before = b.scatter.clone()
    a.merge(b).update(normal(3, 2, seed=1))
    assert torch.equal(b.scatter, before)
    assert (a.count, b.count) == (8, 5)


# --- sliced Wasserstein


def test_sliced_wasserstein_of_a_shift_and_of_a_stretch():
    x = normal(300, 6)
    shift = torch.tensor([3.0, 0, 0, 0, 0, 0]).double()
    assert sliced_wasserstein(x, x + shift, 4000) == pytest.approx(3 / math.sqrt(6), rel=0.03)
    sphere = sliced_wasserstein(x, 2 * x, 2000)  # along u: the standard deviation of u.x, for a centred x
    assert sphere == pytest.approx(float(x.square().sum(1).mean() / 6) ** 0.5, rel=0.03)


def test_sliced_wasserstein_in_one_dimension_against_scipy():
    stats = pytest.importorskip("scipy.stats", reason="SciPy comes with the test extra")
    a, b = normal(70, 1), normal(45, 1, seed=1) * 2 + 1  # sizes with no common divisor but 5
    truth = stats.wasserstein_distance(a[:, 0], b[:, 0])
    assert sliced_wasserstein(a, b, 3, p=1.0) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
@pytest.mark.parametrize("p", [2.0, 64.0, 1000.0])
def test_sliced_wasserstein_is_in_the_units_of_the_samples(p, unit, monkeypatch):
    a, b = normal(30, 3), normal(20, 3, seed=1)
    whole = sliced_wasserstein(a, b, 40, p=p)
    assert sliced_wasserstein(unit * a, unit * b, 40, p=p) == pytest.approx(unit * whole, rel=1e-9)
    monkeypatch.setattr(metrics.distances, "_BLOCK", 100)
    assert sliced_wasserstein(a, b, 40, p=p) == pytest.approx(whole, rel=1e-9)


def test_sliced_wasserstein_is_a_distance():
    a, b, c = normal(40, 3), normal(40, 3, seed=1) + 1, normal(40, 3, seed=2) - 1
    d = sliced_wasserstein
    assert d(a, a[torch.randperm(40, generator=torch.Generator().manual_seed(0))]) < 1e-12
    assert d(a, b) == pytest.approx(d(b, a), rel=1e-12)
    assert d(b, c) <= d(b, a) + d(a, c) + 1e-12
    assert d(a, b) == pytest.approx(d(a.repeat(2, 1), b.repeat(3, 1)), rel=1e-12)
    assert d(a, b, seed=1) != d(a, b)


# --- MMD


def test_mmd_with_a_gaussian_kernel_of_gaussians():
    """Unbiased: small sets average to the closed form."""
    d, h, shift, scale = 3, 1.5, 1.0, 2.0
    between = lambda v, m: (h**2 / (h**2 + v)) ** (d / 2) * math.exp(-m / (2 * (h**2 + v)))  # noqa: E731
    truth = between(2.0, 0) + between(2 * scale**2, 0) - 2 * between(1 + scale**2, d * shift**2)
    found = torch.tensor(
        [mmd(normal(20, d, seed=s), normal(15, d, seed=1000 + s) * scale + shift, "rbf", h) for s in range(400)]
    )
    assert abs(float(found.mean()) - truth) < 4 * float(found.std()) / 20
    assert float(found.std()) / 20 < 0.05 * truth


def test_mmd_with_the_cubic_kernel_of_one_dimensional_gaussians():
    """E (xy + 1)^3 = sum_k C(3, k) E x^k E y^k, from moments."""

    def moments(m, s):
        return [1, m, m**2 + s**2, m**3 + 3 * m * s**2]

    def kernel(p, q):
        return sum(math.comb(3, k) * p[k] * q[k] for k in range(4))

    p, q = moments(0.0, 1.0), moments(0.7, 1.2)
    truth = kernel(p, p) + kernel(q, q) - 2 * kernel(p, q)
    found = torch.tensor([mmd(normal(30, 1, seed=s), normal(30, 1, seed=999 + s) * 1.2 + 0.7) for s in range(600)])
    assert abs(float(found.mean()) - truth) < 4 * float(found.std()) / math.sqrt(600)


def test_mmd_of_equal_distributions_takes_both_signs():
    found = [mmd(normal(30, 4, seed=s), normal(30, 4, seed=500 + s)) for s in range(20)]
    assert min(found) < 0 < max(found)


def test_statistics_keep_their_mean_when_the_caller_s_changes():
    mean = torch.zeros(2, dtype=torch.float64)
    stats = FeatureStatistics.from_moments(9, mean, torch.eye(2, dtype=torch.float64))
    mean += 1
    assert stats.mean.tolist() == [0, 0]


def test_mmd_with_a_gaussian_kernel_does_not_depend_on_the_origin():
    a, b = normal(60, 3), normal(50, 3, seed=1) * 1.3
    for bandwidth in (None, 0.7):
        near, far = mmd(a, b, "rbf", bandwidth), mmd(a + 2.0**23, b + 2.0**23, "rbf", bandwidth)
        assert far == pytest.approx(near, rel=1e-5)  # the samples themselves are rounded to 1e-9 out there
    same = torch.full((60, 784), 0.1, dtype=torch.float64)
    assert mmd(same, same, "rbf") == 0


def test_mmd_in_blocks_equals_mmd_at_once(monkeypatch):
    a, b = normal(37, 3), normal(21, 3, seed=1)
    for kernel in ("polynomial", "rbf"):
        whole = mmd(a, b, kernel)
        monkeypatch.setattr(metrics.distances, "_BLOCK", 50)
        assert mmd(a, b, kernel) == pytest.approx(whole, rel=1e-10, abs=1e-12)
        assert sliced_wasserstein(a, b, 30) > 0
        monkeypatch.undo()


# --- error to a reference, bootstrap


def test_error_to_reference_is_per_sample():
    x = torch.zeros(3, 1, 2, 2)
    y = x.clone()
    y[1] += 2.0
    y[2, 0, 0, 0] = 4.0
    assert metrics.error_to_reference(x, y).tolist() == [0.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="share one shape"):
        metrics.error_to_reference(x, y[:2])


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        value, low, high = bootstrap(torch.mean, normal(50, seed=seed) + 3, n_resamples=100, seed=seed)
        assert low < value < high
        hits += low < 3 < high
    assert 175 <= hits <= 198  # 95 %, less a little for 50 samples and 100 resamples


@pytest.mark.parametrize("distance", [frechet_distance, sliced_wasserstein, mmd])
def test_error_bars_of_distances_match_fresh_samples(distance):
    """The width of the interval is that of the scatter over independent data sets, and the value lies inside."""
    fresh = torch.tensor([distance(normal(150, 3, seed=s), normal(150, 3, seed=900 + s) + 0.5) for s in range(60)])
    bars = [
        bootstrap(distance, normal(150, 3, seed=s), normal(150, 3, seed=900 + s) + 0.5, n_resamples=60)
        for s in range(4)
    ]
    assert all(b.low < b.value < b.high for b in bars)
    width = sum(b.high - b.low for b in bars) / len(bars)
    assert width == pytest.approx(2 * 1.96 * float(fresh.std()), rel=0.4)


def test_paired_bootstrap_keeps_pairs_together():
    x = normal(60, 2)
    y = x + 0.25
    mean_error = lambda a, b: metrics.error_to_reference(a, b).mean()  # noqa: E731
    assert bootstrap(mean_error, x, y, paired=True).high == pytest.approx(0.25)
    assert bootstrap(mean_error, x, y).high > 0.3  # torn apart, they are far from one another
    assert str(bootstrap(torch.mean, torch.zeros(5))) == "0 [0, 0]"


@pytest.mark.parametrize("trials", [1, 2, 7, 96, 5000])
@pytest.mark.parametrize("confidence", [0.68, 0.95, 0.999])
def test_proportion_is_the_exact_interval(trials, confidence):
    stats = pytest.importorskip("scipy.stats")
    for count in sorted({0, 1, trials // 3, trials - 1, trials}):
        value, low, high = proportion(count, trials, confidence=confidence)
        left = (1 - confidence) / (1 if count in (0, trials) else 2)
        assert value == count / trials
        assert low == pytest.approx(count and stats.beta.ppf(left, count, trials - count + 1), rel=1e-9, abs=1e-13)
        assert high == pytest.approx(
            1 if count == trials else stats.beta.ppf(1 - left, count + 1, trials - count), rel=1e-9
        )


def test_proportion_of_none_and_of_all():
    assert proportion(0, 96)[:2] == (0, 0)
    assert proportion(0, 96).high == pytest.approx(1 - 0.05 ** (1 / 96), rel=1e-12)  # 3.1 %
    assert proportion(96, 96).low == pytest.approx(0.05 ** (1 / 96), rel=1e-12)
    assert proportion(0, 1) == pytest.approx((0, 0, 0.95))
    for count in range(8):
        value, low, high = proportion(count, 7)
        other = proportion(7 - count, 7)
        assert (value, low, high) == pytest.approx((1 - other.value, 1 - other.high, 1 - other.low))


def test_either_end_of_a_proportion_is_missed_as_seldom_as_it_says():
    """Over all counts of 40, at every true share: either end lies beyond it with at most its chance."""
    log = [math.lgamma(41) - math.lgamma(k + 1) - math.lgamma(41 - k) for k in range(41)]
    intervals = [proportion(k, 40) for k in range(41)]
    for share in torch.linspace(0.001, 0.999, 500).tolist():
        chance = [math.exp(c + k * math.log(share) + (40 - k) * math.log1p(-share)) for k, c in enumerate(log)]
        above = sum(p for p, e in zip(chance, intervals) if e.low > share)
        below = sum(p for p, e in zip(chance, intervals) if e.high < share)
        assert max(above, below) <= 0.05
        assert min(above, below) <= 0.025


def test_bootstrap_is_seeded():
    x = normal(30)
    assert bootstrap(torch.median, x, seed=3) == bootstrap(torch.median, x, seed=3)
    assert bootstrap(torch.median, x, seed=3) != bootstrap(torch.median, x, seed=4)


# --- bad input

ONE, TWO = normal(9, 2), normal(9, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: frechet_distance(ONE, TWO), ValueError, "same number of features, got 2 and 3"),
        (lambda: frechet_distance(ONE[:1], ONE), ValueError, r"a must have shape \(N, F\) with N >= 2, got \(1, 2\)"),
        (lambda: frechet_distance(ONE, ONE[0]), ValueError, "b must have shape"),
        (lambda: frechet_distance(ONE, ONE * math.nan), ValueError, "b must be a tensor of finite numbers"),
        (lambda: frechet_distance([1.0], ONE), TypeError, "a must be a tensor, got list"),
        (lambda: frechet_distance(ONE, FeatureStatistics()), ValueError, "b must have seen at least 2"),
        (lambda: frechet_distance(ONE[:4], ONE, extrapolate=True), ValueError, "more than 2 F = 4 samples, got 4"),
        (lambda: frechet_distance(*[FeatureStatistics(ONE)] * 2, extrapolate=True), TypeError, "statistics for both"),
        (lambda: FeatureStatistics(ONE).update(TWO), ValueError, "3 components here and 2 before"),
        (lambda: FeatureStatistics(ONE[:1]).covariance, ValueError, "at least 2 samples, got 1"),
        (lambda: exact(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), ValueError, "symmetric"),
        (lambda: exact(torch.zeros(3), torch.eye(2)), ValueError, r"covariance \(F, F\)"),
        (
            lambda: frechet_distance(exact(torch.zeros(2), -torch.eye(2)), ONE),
            ValueError,
            "covariance must have no negative eigenvalue, got -1",
        ),
        (lambda: sliced_wasserstein(ONE, TWO), ValueError, "agree in event shape"),
        (lambda: sliced_wasserstein(ONE, ONE, 0), ValueError, "n_projections must be"),
        (lambda: sliced_wasserstein(ONE, ONE, p=0.5), ValueError, "p must be"),
        (lambda: mmd(ONE, ONE, "cubic"), ValueError, "kernel must be one of 'polynomial', 'rbf', got 'cubic'"),
        (lambda: mmd(ONE, ONE, "rbf", 0.0), ValueError, "bandwidth must be"),
        (lambda: mmd(ONE, ONE, degree=0), ValueError, "degree must be"),
        (lambda: mmd(ONE[:1], ONE), ValueError, "N >= 2"),
        (lambda: proportion(5, 4), ValueError, "successes must be"),
        (lambda: proportion(-1, 4), ValueError, "successes must be"),
        (lambda: proportion(1.0, 4), TypeError, "successes must be"),
        (lambda: proportion(0, 0), ValueError, "trials must be"),
        (lambda: proportion(0, 10**9), ValueError, "trials must be"),
        (lambda: proportion(0, 4, confidence=1), ValueError, "confidence must be"),
        (lambda: bootstrap(3, ONE), TypeError, "statistic must be callable"),
        (lambda: bootstrap(torch.mean), ValueError, "samples must be"),
        (lambda: bootstrap(torch.mean, ONE, n_resamples=5), ValueError, "n_resamples must be"),
        (
            lambda: bootstrap(torch.mean, ONE, confidence=1.0),
            ValueError,
            "confidence must be a finite number > 0 and < 1",
        ),
        (lambda: bootstrap(frechet_distance, ONE, ONE[:4], paired=True), ValueError, "equal lengths"),
        (lambda: bootstrap(lambda x: math.nan, ONE), ValueError, "not finite"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- the classifiers


@pytest.fixture(scope="module")
def held_out():
    return data.split(data.load("mnist5k"))[1]


def test_classifier_on_digits_it_has_not_seen(held_out):
    confidence, guess = metrics.digit_probabilities(held_out.images).max(1)
    right = guess == held_out.labels
    assert right.double().mean() >= 0.97
    assert (confidence > 0.9).double().mean() > 0.95
    assert abs(float(confidence.mean() - right.double().mean())) < 0.02  # neither boastful nor shy on average
    assert confidence[~right].mean() < confidence[right].mean()


def test_classifier_is_not_confident_about_noise(held_out):
    """None of these was shown in training."""
    x = held_out.images
    noise = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    stripes = torch.where(torch.arange(28) % 4 < 2, 1.0, -1.0).expand(1, 1, 28, 28)
    average = x.mean(0, keepdim=True)
    inverted, swapped = -x, torch.cat([x[..., 14:, :], x[..., :14, :]], 2)
    for images, most in ((noise, 0.0), (stripes, 0.0), (average, 0.0), (inverted, 0.2), (swapped, 0.5)):
        assert (metrics.digit_probabilities(images).max(1).values > 0.9).double().mean() <= most


def test_features_tell_sets_of_digits_apart(held_out):
    """Distance grows with damage; two halves of the real digits are nearer than real and damaged ones."""
    features = metrics.digit_features(held_out.images)
    assert features.shape == (500, 64)
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(held_out.images.shape, generator=rng)
    found = [frechet_distance(features[1::2], features[::2])]
    for level in (0.3, 0.6, 1.0):
        found.append(
            frechet_distance(metrics.digit_features(held_out.images[::2] + level * noise[::2]), features[1::2])
        )
    assert found == sorted(found)
    assert found[-1] > 3 * found[0]


def test_features_do_not_depend_on_the_batch_split_and_clamp(held_out):
    x = held_out.images[:20]
    torch.testing.assert_close(metrics.digit_features(x, batch_size=7), metrics.digit_features(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(metrics.digit_features(x * 1.5), metrics.digit_features((x * 1.5).clamp(-1, 1)))
    assert not metrics.digit_features(x.double().requires_grad_()).requires_grad
    rows = metrics.digit_probabilities(x).sum(1)
    torch.testing.assert_close(rows, torch.ones(20))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 28, 28), ValueError, r"\(N, 1, 28, 28\) with N >= 1, got \(2, 28, 28\)"),
        (torch.zeros(0, 1, 28, 28), ValueError, "N >= 1"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.uint8), TypeError, "floating-point tensor, got a tensor of torch.uint8"),
        (torch.full((1, 1, 28, 28), math.nan), ValueError, "finite"),
        (torch.rand(1, 1, 28, 28) + 0.01, ValueError, r"scaled to \[-1, 1\]"),
    ],
)
def test_bad_images_are_refused(images, error, message):
    with pytest.raises(error, match=message):
        metrics.digit_features(images)


@pytest.fixture(scope="module")
def unseen_emoji():
    return data.split(data.load("emoji32"))[1]


def test_emoji_classifier_on_emoji_it_has_not_seen(unseen_emoji):
    """Far from certain, as what a picture of 32 x 32 stands for is: but three times better than the largest class."""
    confidence, guess = metrics.emoji_probabilities(unseen_emoji.images).max(1)
    right = (guess == unseen_emoji.labels).double()
    largest = unseen_emoji.labels.bincount().max() / len(unseen_emoji.labels)
    assert right.mean() > 3 * largest
    assert abs(float(confidence.mean() - right.mean())) < 0.1
    assert confidence[right == 0].mean() < confidence[right == 1].mean()


def test_features_tell_sets_of_emoji_apart(unseen_emoji):
    images = unseen_emoji.images[::2]
    features = metrics.emoji_features(unseen_emoji.images)
    assert features.shape == (len(unseen_emoji.images), 64)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    same = frechet_distance(features[1::2], features[::2])
    noisy, grey = images + 0.5 * noise, images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    for damaged in (noisy, grey):
        assert frechet_distance(metrics.emoji_features(damaged), features[1::2]) > 1.5 * same


def test_one_emoji_may_be_pale_but_no_set_of_them(unseen_emoji):
    images = data.load("emoji32").images
    pale = images[images.amin((1, 2, 3)) >= 0]
    assert metrics.emoji_features(pale[:1]).shape == (1, 64)
    for scaled in (unseen_emoji.images[:9] / 2 + 0.5, unseen_emoji.images[:1] * 127.5 + 127.5):
        with pytest.raises(ValueError, match=r"scaled to \[-1, 1\]"):
            metrics.emoji_features(scaled)
    with pytest.raises(ValueError, match=r"\(N, 3, 32, 32\) with N >= 1, got \(1, 1, 28, 28\)"):
        metrics.emoji_features(torch.zeros(1, 1, 28, 28))


def test_each_classifier_has_a_file_of_its_own():
    assert (data.directory() / "emoji-features.safetensors").stat().st_size < 0.3e6
    with pytest.raises(ValueError, match="does not hold the emoji classifier"):
        metrics.emoji_classifier(data.directory() / "digit-features.safetensors")


def test_classifier_file_is_checked(tmp_path):
    shipped = data.directory() / "digit-features.safetensors"
    assert shipped.stat().st_size < 1e6
    state, file = load_file(shipped), tmp_path / "net.safetensors"
    save_file(state, file)
    assert torch.equal(metrics.digit_classifier(file).head.weight, metrics.digit_classifier().head.weight)
    save_file(state | {"head.bias": torch.zeros(11)}, file)
    with pytest.raises(ValueError, match=r"misshapen head\.bias"):
        metrics.digit_classifier(file)
    save_file({k: v for k, v in state.items() if k != "conv1.bias"}, file)
    with pytest.raises(ValueError, match=r"conv1\.bias"):
        metrics.digit_classifier(file)
    save_file(state | {"head.bias": torch.full((10,), math.inf)}, file)
    with pytest.raises(ValueError, match=r"head\.bias must be a tensor of finite"):
        metrics.digit_classifier(file)
    file.write_bytes(shipped.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        metrics.digit_classifier(file)
    with pytest.raises(FileNotFoundError, match="no file"):
        metrics.digit_classifier(tmp_path / "none.safetensors")


# --- Inception, optional


def test_inception_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(ImportError, match=r"pip install 'teachkit\[fid\]'"):
        metrics.inception_features(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="N, 1 or 3, H, W"):
        metrics.inception_features(torch.zeros(1, 2, 32, 32))


def test_inception_gets_eight_bit_colour(monkeypatch):
    """Against a stand-in with torchmetrics' interface: the pixels handed over are those of a saved picture."""

    class Network(torch.nn.Module):
        def forward(self, x):
            assert x.dtype == torch.uint8
            return x.float().flatten(1)

    fid = SimpleNamespace(FrechetInceptionDistance=lambda feature: SimpleNamespace(inception=Network()))
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", fid)
    images = torch.tensor([-1.0, 0.0, 1.0, 7.0]).reshape(4, 1, 1, 1)
    found = metrics.inception_features(images, batch_size=3)
    assert found.tolist() == [[0.0] * 3, [128.0] * 3, [255.0] * 3, [255.0] * 3]


@pytest.mark.peers("torchmetrics", "torch_fidelity")
@pytest.mark.parametrize("side", [32, 320])  # enlarged and made smaller
def test_inception_features_are_those_of_published_distances(monkeypatch, side):
    """torch-fidelity repeats the original network bit by bit; here with random weights, for nothing is downloaded."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    def fill(network, state):
        for weight in network.parameters():
            if weight.ndim == 4:
                torch.nn.init.kaiming_normal_(weight, generator=torch.Generator().manual_seed(weight.numel()))

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *args, **kwargs: {})
    monkeypatch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", fill)
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = (images * 127.5 + 127.5).round().to(torch.uint8)
    with torch.no_grad():
        (theirs,) = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])(pixels)
    ours = metrics.inception_features(images, batch_size=2)
    assert ours.shape == (3, 2048)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.peers("torchmetrics", "torch_fidelity")
def test_frechet_distance_equals_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    peer = FrechetInceptionDistance(feature=torch.nn.Flatten(), input_img_size=(1, 2, 3))  # the features: six pixels
    real, made = normal(60, 1, 2, 3), normal(50, 1, 2, 3, seed=1) * 1.4 + 0.3
    peer.update(real, real=True)
    peer.update(made, real=False)
    assert frechet_distance(real.flatten(1), made.flatten(1)) == pytest.approx(float(peer.compute()), rel=1e-10)


def test_examples_in_docstrings():
    assert doctest.testmod(metrics).failed == 0


# --- Far from the origin


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    far=st.sampled_from([0, 1, 10**3, 10**6]),
    quantum=st.integers(-6, 1),
    double=st.booleans(),
)
def test_no_distance_depends_on_where_the_origin_lies(seed, far, quantum, double):
    # Multiples of one power of two: the shift itself rounds nothing. Up to 2e9, and to 1.6e7 units in float32.
    dtype, step = (torch.float64, 2.0**quantum) if double else (torch.float32, 2.0**quantum)
    rng = torch.Generator().manual_seed(seed)
    a, b = ((torch.randint(-300, 301, (n, 3), generator=rng) * step).to(dtype) for n in (40, 31))
    b = torch.cat([b, a[:3], a[:1] + step])  # some points twice, some close
    shift = far * step * (1024 if double else 8)
    there = a + shift, b + shift
    for distance in (
        lambda x, y: metrics.mmd(x, y, "rbf"),
        lambda x, y: metrics.mmd(x, y, "rbf", bandwidth=2 * step),
        lambda x, y: metrics.sliced_wasserstein(x, y, 32),
        metrics.frechet_distance,
        lambda x, y: metrics.frechet_distance(x, y, extrapolate=True),
        lambda x, y: metrics.frechet_distance(
            metrics.FeatureStatistics(x[:7]).update(x[7:20]).update(x[20:]), metrics.FeatureStatistics(y)
        ),
        lambda x, y: float(metrics.error_to_reference(x[:30], y[:30]).mean()),
    ):
        expected = distance(a, b)
        assert distance(*there) == pytest.approx(expected, rel=1e-9, abs=1e-12 * (1 + 1e5 * step**2))


@pytest.mark.parametrize("far", [0.0, 1e4, 1e9])
def test_squared_distances_of_crowds_far_apart_are_those_of_differences(far):
    x = torch.cat([normal(40, 5), far + normal(40, 5, seed=1)])
    y = torch.cat([x[:10], x[50:60] + 1e-3, far / 2 + normal(10, 5, seed=2)])
    truth = (x[:, None] - y).square().sum(-1)
    torch.testing.assert_close(squared_distances(x, y), truth, rtol=1e-9, atol=0)


def test_statistics_of_features_far_from_zero_merge_without_losing_their_spread():
    x = torch.randint(-50, 51, (4000, 3), generator=torch.Generator().manual_seed(0)).double() / 64
    far = x + 2.0**30
    merged = metrics.FeatureStatistics()
    for part in far.split(7):
        merged.update(part)
    torch.testing.assert_close(merged.covariance, torch.cov(x.T), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(merged.mean - 2.0**30, x.mean(0), rtol=0, atol=2e-7)
    assert metrics.frechet_distance(merged, metrics.FeatureStatistics(far)) == pytest.approx(0, abs=1e-12)

"""Schedules: monotone, exact at the ends, even in the variable they are named after."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachkit import adapters, edm, schedules
from teachkit.schedules.linear_beta import LinearBeta

MAKERS = [
    schedules.polynomial, schedules.linear, schedules.logsnr, schedules.cosine, schedules.flow_shift,
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    make=st.sampled_from(MAKERS),
    n=st.integers(1, 200),
    sigma_min=st.floats(1e-4, 0.5),
    ratio=st.floats(2, 1e5),
    zero=st.booleans(),
)
def test_every_schedule_is_valid_with_exact_ends(make, n, sigma_min, ratio, zero):
    sigmas = make(n, sigma_min=sigma_min, sigma_max=sigma_min * ratio, zero=zero)
    assert sigmas.dtype == torch.float64
    assert len(sigmas) == n + 1 + zero
    assert torch.equal(schedules.validate(sigmas), sigmas)
    assert float(sigmas[0]) == sigma_min * ratio
    assert float(sigmas[n]) == sigma_min


@pytest.mark.parametrize(
    ("make", "variable"),
    [
        (lambda: schedules.polynomial(20, rho=3.0), lambda s: s ** (1 / 3)),
        (lambda: schedules.linear(20), lambda s: s),
        (lambda: schedules.logsnr(20), torch.log),
        (lambda: schedules.cosine(20), torch.atan),
        (lambda: schedules.flow_shift(20, shift=3.0), lambda s: (s / 3) / (1 + s / 3)),
    ],
)
def test_even_in_its_own_variable(make, variable):
    steps = variable(make()).diff()
    torch.testing.assert_close(steps, steps.mean().expand(20), rtol=1e-9, atol=1e-12)


def test_time_uniform_is_even_in_the_time_of_a_variance_preserving_process():
    # log(1 + sigma^2) = beta_d t^2 / 2 + beta_min t is a quadratic in t: its second differences are constant.
    second = schedules.time_uniform(50).square().log1p().diff().diff()
    torch.testing.assert_close(second, second.mean().expand(49), rtol=1e-6, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 200), sigma_min=st.floats(1e-4, 2), ratio=st.floats(2, 1e5), rho=st.floats(0.5, 8))
def test_time_uniform_is_valid_or_refused(n, sigma_min, ratio, rho):
    try:
        sigmas = schedules.time_uniform(n, sigma_min, sigma_min * ratio, rho)
    except ValueError:
        with pytest.raises(ValueError, match="too large for time_min"):
            schedules.time_uniform(n, sigma_min, sigma_min * ratio, rho)
        refused_rightly = sigma_min > 0.02 or ratio < 1000  # the usual 0.002 to 80 is always there
        if not refused_rightly:
            raise
    else:
        assert torch.equal(schedules.validate(sigmas), sigmas)


def test_time_uniform_is_the_published_process():
    # Song et al.: log alpha(t) = -beta_d t^2 / 4 - beta_min t / 2 and sigma = sqrt(1 / alpha^2 - 1), solved for here.
    betas = np.linalg.solve([[1e-6 / 4, 1e-3 / 2], [1 / 4, 1 / 2]], 0.5 * np.log1p([0.002**2, 80.0**2]))
    for rho in (1.0, 3.0):
        t = np.linspace(1, 1e-3 ** (1 / rho), 21) ** rho
        alpha = np.exp(-betas[0] * t**2 / 4 - betas[1] * t / 2)
        expected = torch.as_tensor(np.sqrt(1 / alpha**2 - 1))
        torch.testing.assert_close(schedules.time_uniform(20, rho=rho), expected, rtol=1e-9, atol=1e-9)


# Those of DDPM and of usual ranges; a rate that begins below 0, one that falls.
CLOCKS = {
    "ddpm": LinearBeta(),
    "usual": LinearBeta.between(0.01, 10.0, 1e-3),
    "begins below 0": LinearBeta.between(0.002, 80.0, 1e-3),
    "falls": LinearBeta.between(0.03, 1.0, 1e-3),
}


def decimals(clock, t):
    """sigma(t), and dt/dsigma * sigma / t, with 60 digits."""
    with localcontext() as context:
        context.prec = 60
        m, d, t = map(Decimal, (clock.beta_min, clock.beta_d, t))
        e = (m * t + d * t * t / 2).exp()
        sigma = (e - 1).sqrt()
        return sigma, 2 * (e - 1) / (e * (m + d * t) * t)


@pytest.mark.parametrize("name", CLOCKS)
def test_noise_level_and_time_of_a_linear_rate_are_right_to_rounding_at_both_ends(name):
    clock = CLOCKS[name]
    first = 1e-3 if name == "begins below 0" else 1e-15
    for t in (first, 2 * first, 1e-3, 0.01, 0.3, 0.999999, 1.0):
        sigma, conditioned = decimals(clock, t)
        assert float(clock.sigma(t)) == pytest.approx(float(sigma), rel=4e-15)
        rounded = float(sigma)
        expected = Decimal(t) * (1 + conditioned * (Decimal(rounded) / sigma - 1))
        assert float(clock.time(rounded)) == pytest.approx(float(expected), rel=2e-15)
        assert float(clock.time(torch.tensor(rounded, dtype=torch.float32))) == pytest.approx(t, rel=2e-6)
        assert float(clock.rate(rounded)) == pytest.approx(clock.beta_min + clock.beta_d * t, rel=1e-14)


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize("gap", [0.5, 1e-4, 1e-9, 1e-14])
def test_time_that_passes_between_close_levels_keeps_its_digits(name, gap):
    clock, t = CLOCKS[name], 0.3
    a, b = (float(decimals(clock, u)[0]) for u in (t + gap, t))
    with localcontext() as context:
        context.prec = 60
        m, d = Decimal(clock.beta_min), Decimal(clock.beta_d)
        times = [((m * m + 2 * d * (1 + Decimal(s) ** 2).ln()).sqrt() - m) / d for s in (a, b)]
        expected = float(times[0] - times[1])
    assert float(clock.elapsed(a, b)) == pytest.approx(expected, rel=2e-14)


def test_a_linear_rate_goes_through_the_levels_it_is_asked_for_or_there_is_none():
    for low, high, first in ((0.002, 80.0, 1e-3), (0.03, 1.0, 1e-3), (0.5, 3.0, 0.2)):
        clock = LinearBeta.between(low, high, first)
        torch.testing.assert_close(clock.sigma(torch.tensor([first, 1.0])).tolist(), [low, high], rtol=1e-6, atol=0)
    assert LinearBeta.between(0.2, 2.0, 1e-3) is None


def test_everything_that_has_this_clock_shows_the_same_time():
    t = torch.tensor([1e-6, 1e-3, 0.5, 1.0], dtype=torch.float64)
    sigma = LinearBeta().sigma(t)
    net = edm.VPPrecond(8, 1, model_channels=8, channel_mult=[1], num_blocks=1, attn_resolutions=[])
    for time in (adapters.vp_time(), net.time):
        torch.testing.assert_close(time(sigma), t, rtol=1e-14, atol=0)
    assert [net.sigma(float(u)) for u in t] == sigma.tolist()


def test_the_registry_holds_what_is_called_alike():
    assert list(schedules.REGISTRY) == ["polynomial", "logsnr", "time_uniform", "cosine"]
    for name, make in schedules.REGISTRY.items():
        assert make is getattr(schedules, name)
        assert make(5, 0.01, 10.0)[[0, -1]].tolist() == [10.0, 0.01]


def test_a_large_rho_tends_to_even_steps_in_log_sigma():
    torch.testing.assert_close(schedules.polynomial(12, rho=1e6), schedules.logsnr(12), rtol=1e-4, atol=0)


def test_flow_shift_is_the_formula_of_the_shifted_time():
    low, high = 0.01 / 3 / (1 + 0.01 / 3), 20 / 3 / (1 + 20 / 3)  # times that belong to sigma / 3
    s = torch.linspace(high, low, 11, dtype=torch.float64)
    shifted = 3 * s / (1 + 2 * s)
    torch.testing.assert_close(schedules.flow_shift(10, 3.0, 0.01, 20.0), shifted / (1 - shifted))


WILD = st.one_of(st.floats(1e-300, 1e300), st.floats(1e-3, 1e3), st.sampled_from([1.0, 1.0 + 2**-52, 80.0, 0.002]))


@settings(max_examples=200)
@given(
    n=st.integers(1, 300), a=WILD, b=WILD, option=WILD,
    kind=st.sampled_from(["polynomial", "logsnr", "cosine", "time_uniform", "flow_shift"]),
)  # fmt: skip
def test_whatever_is_asked_a_schedule_is_valid_or_refused_by_name(n, a, b, option, kind):
    extra = {"rho": option} if kind in ("polynomial", "time_uniform") else {}
    extra = {"shift": option} if kind == "flow_shift" else extra

    def build():
        return getattr(schedules, kind)(n, sigma_min=min(a, b), sigma_max=max(a, b), **extra)

    try:
        sigmas = build()
    except ValueError:
        with pytest.raises(ValueError, match="sigma_m"):
            build()
    else:
        assert torch.equal(schedules.validate(sigmas), sigmas)
        assert (float(sigmas[0]), float(sigmas[-1])) == (max(a, b), min(a, b))


@given(
    train=st.integers(2, 1200), part=st.floats(0, 1), kind=st.sampled_from(["linear", "scaled_linear"]),
    zero=st.booleans(),
)  # fmt: skip
def test_ddpm_picks_distinct_training_levels(train, part, kind, zero):
    n = 1 + int(part * (train - 2))
    sigmas = schedules.ddpm(n, train_steps=train, kind=kind, zero=zero)
    schedules.validate(sigmas)
    every = schedules.ddpm(train - 1, train_steps=train, kind=kind)
    assert len(sigmas) == n + 1 + zero
    assert np.isin(sigmas[: n + 1], every).all()
    assert (float(sigmas[0]), float(sigmas[n])) == (float(every[0]), float(every[-1]))


@given(
    logs=st.lists(st.floats(-8, 8), min_size=2, max_size=20, unique_by=lambda v: round(v, 3)),
    times=st.integers(1, 5), zero=st.booleans(),
)  # fmt: skip
def test_refining_keeps_every_level_and_splits_its_steps_evenly_in_log_sigma(logs, times, zero):
    sigmas = torch.tensor(sorted(logs, reverse=True), dtype=torch.float64).exp()
    given_ = torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]) if zero else sigmas
    fine = schedules.interpolate(given_, times * (len(sigmas) - 1) + zero)
    schedules.validate(fine)
    assert bool(fine[-1] == 0) == zero
    inner = fine[:-1] if zero else fine
    torch.testing.assert_close(inner[::times], sigmas, rtol=1e-12, atol=0)
    assert (float(inner[0]), float(inner[-1])) == (float(sigmas[0]), float(sigmas[-1]))
    steps = inner.log().diff().reshape(-1, times)
    torch.testing.assert_close(steps, steps.mean(1, keepdim=True).expand_as(steps), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "sigmas",
    [
        [3, 2, 1], (3.0, 2.0, 1.0), np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0])[::-1], torch.tensor([3, 2, 1]),
        torch.tensor([3.0, 2.0, 1.0]),
    ],
)  # fmt: skip
def test_a_list_of_any_kind_becomes_float64(sigmas):
    out = schedules.validate(sigmas)
    assert out.dtype == torch.float64
    assert out.tolist() == [3, 2, 1]


def test_the_validated_schedule_is_a_copy_without_gradient():
    given_ = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    out = schedules.validate(given_)
    out[0] = 7.0
    assert given_.tolist() == [2.0, 1.0]
    assert not out.requires_grad


def test_known_values_of_the_edm_schedule():
    # Published six-step rho = 7 grid (arXiv 2405.11326, Table 7).
    expected = [80, 30.18, 9.723, 2.515, 0.470, 0.0515, 0.002]
    torch.testing.assert_close(schedules.polynomial(6), torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=0)


def test_ddpm_levels_follow_from_the_betas():
    sigmas = schedules.ddpm(999)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphabar = (1 - beta).cumprod(0)
    torch.testing.assert_close(sigmas.flip(0), ((1 - alphabar) / alphabar).sqrt())
    assert len(schedules.ddpm(10, 0.00085, 0.012, kind="scaled_linear", zero=True)) == 12


def test_shifting_flow_time_scales_sigma():
    plain = schedules.flow_shift(10, 1.0, 0.01, 10.0)
    shifted = schedules.flow_shift(10, 4.0, 0.04, 40.0)
    torch.testing.assert_close(shifted, 4 * plain)


def test_interpolate_keeps_ends_and_zero_and_is_the_identity_at_its_own_length():
    sigmas = schedules.polynomial(10, zero=True)
    torch.testing.assert_close(schedules.interpolate(sigmas, 11), sigmas)
    longer = schedules.interpolate(sigmas, 30)
    assert longer[[0, -2, -1]].tolist() == sigmas[[0, -2, -1]].tolist()
    even = schedules.interpolate(torch.tensor([8.0, 2.0, 0.5]), 4)
    torch.testing.assert_close(even, torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([1.0, 2.0], r"strictly decreasing, got sigmas\[0\] = 1.0 before sigmas\[1\] = 2.0"),
        ([2.0, 1.0, 1.0], "strictly decreasing"),
        ([2.0, 0.0, 0.0], "strictly decreasing"),
        ([math.inf, 1.0], "must be finite"),
        (torch.tensor(2.0), r"must be 1-D with at least 2 values, got shape \(\)"),
        ([], "at least 2 values"),
        ([1.0, -1.0], "must not be negative, got -1.0"),
        ([1.0, math.nan], "must be finite"),
        ([[2.0, 1.0]], r"must be 1-D with at least 2 values, got shape \(1, 2\)"),
        ([1.0], "at least 2 values"),
    ],
)
def test_a_bad_list_is_named(sigmas, message):
    with pytest.raises(ValueError, match=message):
        schedules.validate(sigmas)


def test_bad_arguments_are_named():
    for bad in ("karras", None, [[1.0], [2.0, 1.0]], torch.tensor([2 + 1j, 1]), torch.ones(3, device="meta")):
        with pytest.raises(TypeError, match="sigmas must be a 1-D tensor"):
            schedules.validate(bad)
    with pytest.raises(ValueError, match="n must be an integer >= 1"):
        schedules.polynomial(0)
    with pytest.raises(TypeError, match="n must be an integer"):
        schedules.polynomial(2.5)
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        schedules.logsnr(5, sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="rho must be"):
        schedules.polynomial(5, rho=0)
    with pytest.raises(ValueError, match="sigma_max must be a finite number"):
        schedules.cosine(5, sigma_max=math.inf)
    with pytest.raises(ValueError, match="n must be from 1 to"):
        schedules.ddpm(1000)
    for bad in (2.5, "9", True):
        with pytest.raises(TypeError, match="n must be an integer"):
            schedules.ddpm(bad)
        with pytest.raises(TypeError, match="n must be an integer"):
            schedules.interpolate([2.0, 1.0], bad)
    with pytest.raises(ValueError, match="n must be an integer >= 1"):
        schedules.interpolate([2.0, 1.0], 0)
    with pytest.raises(ValueError, match="n must be at least 2 steps"):
        schedules.interpolate([2.0, 1.0, 0.0], 1)
    with pytest.raises(ValueError, match="at least two positive values"):
        schedules.interpolate([2.0, 0.0], 3)
    with pytest.raises(ValueError, match="beyond float64"):
        schedules.ddpm(100, beta_start=0.9, beta_end=0.99)
    with pytest.raises(ValueError, match="kind must be"):
        schedules.ddpm(10, kind="quadratic")
    with pytest.raises(ValueError, match="0 < beta_start <= beta_end < 1"):
        schedules.ddpm(10, beta_start=0.1, beta_end=0.01)
    with pytest.raises(ValueError, match="shift must be"):
        schedules.flow_shift(5, shift=-1.0)
    with pytest.raises(TypeError, match="time_min must be a finite number > 0 and < 1"):
        schedules.time_uniform(5, time_min="0.1")
    with pytest.raises(ValueError, match="cannot be told apart in float64"):
        schedules.polynomial(5, rho=0.001)
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        schedules.polynomial(5, sigma_min=0.0)  # a last step to 0 is asked for with zero=True


@pytest.mark.parametrize("rho", [1e4, 1e8, 1e12, 1e17])
def test_a_large_rho_tends_to_even_steps_in_the_logarithm_without_losing_digits(rho):
    # Between them lies (log sigma)^2 / rho: sigma^(1/rho) itself is 1 to rounding.
    for make, limit in (
        (lambda r: schedules.polynomial(6, rho=r), schedules.logsnr(6)),
        (lambda r: schedules.time_uniform(6, rho=r), schedules.time_uniform(6, rho=1e200)),
    ):
        torch.testing.assert_close(make(rho), limit, rtol=200 / rho + 1e-13, atol=0)
        assert torch.isfinite(make(rho)).all()

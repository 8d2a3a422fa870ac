"""Schedules: monotone, exact at the ends, even in the variable they are named after."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachkit import schedules

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
    with pytest.raises(TypeError, match="sigmas must be a 1-D tensor"):
        schedules.validate("karras")
    with pytest.raises(ValueError, match="n must be at least 1"):
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
    with pytest.raises(ValueError, match="n must be an integer >= 1"):
        schedules.interpolate([2.0, 1.0], 0)

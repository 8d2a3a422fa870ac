"""Wrong arguments to data, schedules, adapters, closed-form denoisers, noise and mean shift."""

import pytest

from teachkit import schedules
from tests.fuzz.harness import Call, faults

RANGE = {"n": 4, "sigma_min": 0.1, "sigma_max": 10.0, "zero": True}
ENDS = dict.fromkeys(RANGE, ("sigma_min", "n =", "float64"))  # a range is refused as a whole

CALLS = {
    "schedules.cosine": Call(schedules.cosine, RANGE, ENDS),
    "schedules.linear": Call(schedules.linear, RANGE, ENDS),
    "schedules.logsnr": Call(schedules.logsnr, RANGE, ENDS),
    "schedules.polynomial": Call(schedules.polynomial, {**RANGE, "rho": 7.0}, ENDS),
    "schedules.flow_shift": Call(schedules.flow_shift, {**RANGE, "shift": 3.0}, ENDS),
    "schedules.time_uniform": Call(
        schedules.time_uniform, {**RANGE, "sigma_min": 0.01, "rho": 2.0, "time_min": 1e-3}, ENDS
    ),
    "schedules.ddpm": Call(
        schedules.ddpm,
        {"n": 4, "beta_start": 1e-4, "beta_end": 0.02, "train_steps": 100, "kind": "linear", "zero": True},
        {"beta_start": ("beta_end",)},
    ),
    "schedules.interpolate": Call(schedules.interpolate, {"sigmas": schedules.polynomial(4), "n": 3}),
    "schedules.validate": Call(schedules.validate, {"sigmas": schedules.polynomial(4)}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named_or_the_answer_is_right(name):
    found = faults(CALLS[name])
    assert not found, f"{len(found)} faults\n" + "\n".join(found)

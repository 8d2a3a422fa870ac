"""Explorers: every control changes the picture and its text; an error shows instead of vanishing."""

import re

import pytest
import torch

from teachkit import GaussianMixture, initial_noise, widgets

MIXTURE = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], 0.02)


@pytest.fixture
def lab():
    return widgets.solver_lab(MIXTURE, initial_noise(4, (2,)))


def parts(box):
    controls, screen = box.children
    return [*controls.children, screen]


def alt(screen):
    return re.search(r'<img alt="([^"]+)"', screen.value)[1]


def test_every_control_changes_picture_and_text(lab):
    solver, steps, kind, screen = parts(lab)
    seen = {screen.value}
    for control, value in ((solver, "dpmpp_2m"), (steps, 12), (kind, "cosine")):
        before = alt(screen)
        control.value = value
        assert alt(screen) != before
        assert str(value) in alt(screen)
        assert screen.value not in seen
        seen.add(screen.value)


def test_more_steps_mean_a_smaller_error(lab):
    _, steps, _, screen = parts(lab)
    errors = []
    for n in (5, 20):
        steps.value = n
        errors.append(float(re.search(r"mean error ([\d.e-]+)", alt(screen))[1]))
    assert errors[1] < errors[0]


def test_an_error_shows_in_the_widget():
    calls = []

    def fragile(x, sigma, labels=None):
        calls.append(sigma)
        if len(calls) > 600:
            raise RuntimeError("the <network> is gone")
        return MIXTURE(x, sigma)

    *_, steps, _, screen = parts(widgets.solver_lab(fragile, initial_noise(2, (2,))))
    for n in range(3, 21):
        steps.value = n
    for n in range(3, 21):
        steps.value = n
    assert 'role="alert"' in screen.value
    assert "RuntimeError: the &lt;network&gt; is gone" in screen.value


def test_controls_are_labelled_and_bad_input_is_named(lab):
    assert [c.description for c in parts(lab)[:-1]] == ["solver", "steps", "schedule"]
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2\), got \(4, 3\)"):
        widgets.solver_lab(MIXTURE, torch.zeros(4, 3))

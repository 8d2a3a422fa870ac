"""Explorers: every control changes the picture and its text; an error shows instead of vanishing."""

import base64
import io
import itertools
import json
import re

import ipywidgets as W
import numpy as np
import pytest
import torch
from PIL import Image

from teachkit import (
    Empirical,
    Gaussian,
    GaussianMixture,
    data,
    geometry,
    initial_noise,
    meanshift,
    sample,
    schedules,
    solvers,
)
from teachkit.course import widgets

MIXTURE = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], 0.02)
MOONS = data.two_moons(200, seed=0, noise=0.1)
DIGITS = data.load("digits8").images[:200].double()


def log_row(images, loss):
    return {"images": images, "loss": loss, "held_out": {"0.01": loss / 2, "1": loss, "80": 2 * loss}}


def write_run(folder, rows):
    (folder / "log.jsonl").write_text("".join(json.dumps(log_row(*row)) + "\n" for row in rows))
    for images, _ in rows:
        pixels = np.random.default_rng(images).integers(0, 255, (32, 80), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"samples-{images:09d}.png")


_STILL = -torch.ones(6, 1, 4, 4)
WALK = {"teacher": _STILL, "student": _STILL + torch.linspace(0, 2, 6)[:, None, None, None], "twin": _STILL}


@pytest.fixture
def run_dir(tmp_path):
    write_run(tmp_path, [(100, 0.9), (200, 0.5), (300, 0.4)])
    return tmp_path


@pytest.fixture(scope="module")
def digits_path():
    return sample(Empirical(DIGITS), initial_noise(12, (1, 8, 8)), schedules.polynomial(30))


@pytest.fixture
def make(digits_path, run_dir):
    makers = {
        "cloud_player": lambda: widgets.cloud_player(MIXTURE, MOONS[::4], data=MOONS, steps=6),
        "denoiser_field": lambda: widgets.denoiser_field(MIXTURE, data=MOONS),
        "mean_shift_steps": lambda: widgets.mean_shift_steps(Empirical(MOONS), MOONS[::10], data=MOONS, extent=2.0),
        "noise_walk": lambda: widgets.noise_walk(WALK),
        "path_player": lambda: widgets.path_player(digits_path),
        "solver_lab": lambda: widgets.solver_lab(MIXTURE, initial_noise(24, (2,)), data=MOONS),
        "ends_lab": lambda: widgets.ends_lab(Empirical(DIGITS), initial_noise(12, (1, 8, 8)), DIGITS),
        "schedule_lab": lambda: widgets.schedule_lab(MIXTURE, initial_noise(24, (2,))),
        "training_monitor": lambda: widgets.training_monitor(run_dir),
        "turn_boomerang": lambda: widgets.turn_boomerang(digits_path),
    }
    return lambda name: makers[name]()


NAMES = [name for name in widgets.__all__ if name not in ("Explorer", "Prediction", "predict")]


def alt(explorer):
    return re.search(r'<img alt="([^"]+)"', explorer.screen.value)[1]


def control(explorer, description):
    return next(c for c in explorer.controls if c.description == description)


def another_value(widget):
    """A value that the control does not have now, as a reader would choose it."""
    if isinstance(widget, W.Dropdown):
        return next(v for v in reversed(widget.options) if v != widget.value)
    if isinstance(widget, W.SelectionSlider):
        return next(v for _, v in reversed(widget.options) if v != widget.value)
    if isinstance(widget, W.IntSlider):
        return widget.value + 1 if widget.value < widget.max else widget.value - 1
    least, most = (10**widget.min, 10**widget.max) if isinstance(widget, W.FloatLogSlider) else (widget.min, widget.max)
    return least + 0.3 * (most - least) if widget.value > least + 0.5 * (most - least) else 0.7 * most + 0.3 * least


def movable(explorer):
    return [c for c in explorer.controls if not isinstance(c, W.Play | W.Label) and c.layout.display != "none"]


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_picture_and_text(make, name):
    explorer = make(name)
    assert movable(explorer)
    for widget in movable(explorer):
        before, words = explorer.screen.value, alt(explorer)
        widget.value = another_value(widget)
        assert alt(explorer) != words, widget.description
        assert explorer.screen.value.split("base64,")[1] != before.split("base64,")[1], widget.description
        assert re.search(r"\d", alt(explorer))


@pytest.mark.parametrize("name", NAMES)
def test_controls_have_visible_labels_and_the_picture_fits_its_place(make, name):
    explorer = make(name)
    for widget in movable(explorer):
        assert widget.description
        assert widget.style.description_width == "initial", "a long label would be cut"
    assert explorer.children[0].layout.flex_flow == "row wrap"
    assert "max-width: 100%" in explorer.screen.value
    assert explorer.screen.layout.max_width == "100%"


@pytest.mark.parametrize("name", NAMES)
def test_without_widgets_the_picture_stays_with_its_text(make, name):
    explorer = make(name)
    shown, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"] == explorer.picture.alt == metadata["image/png"]["alt"]
    assert 'alt="' in shown["text/html"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["image/png"]))).convert("RGB"))
    assert pixels.std() > 5


@pytest.mark.parametrize("name", NAMES)
def test_an_error_shows_in_the_widget_and_goes_when_it_is_mended(make, name):
    explorer, redraw = make(name), None

    def fails():
        raise RuntimeError("the <network> is gone")

    redraw, explorer._redraw = explorer._redraw, fails
    explorer.update()
    assert 'role="alert"' in explorer.screen.value
    assert "RuntimeError: the &lt;network&gt; is gone" in explorer.screen.value
    explorer._redraw = redraw
    explorer.update()
    assert "<img" in explorer.screen.value


def test_an_explorer_that_fails_at_once_says_so_and_recovers(tmp_path):
    explorer = widgets.training_monitor(tmp_path)
    assert 'role="alert"' in explorer.screen.value
    assert "nothing is logged" in explorer.screen.value
    write_run(tmp_path, [(100, 0.9), (200, 0.5)])
    next(c for c in explorer.controls if isinstance(c, W.Play)).value += 1
    assert "After 200 images" in alt(explorer)


def test_the_field_states_the_denoiser_and_its_weights():
    explorer = widgets.denoiser_field(MIXTURE, point=(0.5, 1.0), sigma=0.7)
    x = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    u, v = MIXTURE(x, 0.7)[0].tolist()
    assert f"is denoised to ({u:.2f}, {v:.2f})" in alt(explorer)
    assert f"posterior weight {float(MIXTURE.responsibilities(x, 0.7).max()):.2f}" in alt(explorer)
    plain = widgets.denoiser_field(lambda x, sigma, labels=None: x / (1 + sigma**2))
    assert "weight" not in alt(plain)


def test_mean_shift_walks_as_the_library_does():
    density, start = Empirical(MOONS), 2.0 * MOONS[::8]
    explorer = widgets.mean_shift_steps(density, start, bandwidth=0.2, start=2.0, steps=10)
    control(explorer, "step").value = 10
    for name, levels in (("fixed", [0.2] * 10), ("annealed", np.geomspace(2.0, 0.2, 10))):
        end = meanshift.annealed_mean_shift(density, start, levels)[-1]
        places = len(meanshift.merge(end, 0.1)[0])
        assert f"{name} at bandwidth 0.2 they stand on {places} place" in alt(explorer)
    control(explorer, "step").value = 0
    assert "after 0 of 10" in alt(explorer)


def test_the_cloud_goes_up_by_noise_and_comes_down_by_the_ode():
    clean = MIXTURE.sample(80, torch.Generator().manual_seed(0))
    explorer = widgets.cloud_player(MIXTURE, clean, steps=10, sigma_max=3.0, point=5, seed=3)
    noise = torch.randn(80, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    levels = schedules.polynomial(10, 0.02, 3.0)
    down = sample(MIXTURE, clean + 3.0 * noise, levels, "heun").x
    level = control(explorer, "noise level σ")
    assert [level.value, len(level.options)] == [10, 21]
    for k, cloud, sigma, way in (
        (0, clean + 0.02 * noise, 0.02, "Noise has reached sigma 0.02"),
        (10, clean + 3.0 * noise, 3.0, "Noise has reached sigma 3"),
        (13, down[3], float(levels[3]), f"The ODE has come down to sigma {levels[3]:.2g}"),
        (20, down[-1], 0.02, "The ODE has come down to sigma 0.02"),
    ):
        level.index = k
        (shown,) = (line for line in explorer.picture.axes[0].lines if line.get_label() == "x")
        assert np.allclose(shown.get_xydata(), cloud)
        u, v = MIXTURE(cloud[5:6], sigma)[0].tolist()
        assert way in alt(explorer)
        assert explorer.picture.axes[0].get_title("left").startswith("noise" if way.startswith("Noise") else "the ODE")
        assert f"its D at ({u:.2f}, {v:.2f})" in alt(explorer)


def test_the_player_tells_where_on_the_boomerang_it_is(digits_path):
    explorer = widgets.path_player(digits_path, sample=3)
    control(explorer, "step").value = 0
    assert "Path 3, step 0 of 30, sigma 80: 0.0 % of the chord done, 0.00 % of it away" in alt(explorer)
    control(explorer, "step").value = 29
    done = float(re.search(r"([\d.]+) % of the chord done", alt(explorer))[1])
    assert 95 < done <= 100


def test_a_turned_boomerang_is_as_high_as_the_component_that_points_up(digits_path):
    curves = geometry.align(geometry.project(digits_path), about_chord=True)
    high = 100 * (curves[..., 1:].amax(0) - curves[..., 1:].amin(0)) / curves[-1, :, :1]  # (B, 2)
    explorer = widgets.turn_boomerang(digits_path, turn=0)
    for turn, component in ((0, 0), (90, 1), (180, 0)):
        control(explorer, "turn").value = turn
        for tilt, factor in ((0, 1.0), (90, 30.0)):
            control(explorer, "tilt").value, control(explorer, "magnify").value = tilt, factor
            median, most = re.search(
                r"seen ([\d.]+) % of the chord high \(median\), at most ([\d.]+) %", alt(explorer)
            ).groups()
            assert float(median) == pytest.approx(float(np.median(high[:, component])), rel=0.06)
            assert float(most) == pytest.approx(float(high[:, component].max()), rel=0.06)
    control(explorer, "magnify").value = 1.0
    assert "True scale." in explorer.screen.value


def test_a_walk_through_noise_tells_how_far_each_sampler_is():
    explorer = widgets.noise_walk(WALK)
    for k, away in ((0, 0.0), (3, 1.2), (5, 2.0)):
        control(explorer, "noise").value = k
        assert alt(explorer).startswith(f"Noise {k} of 0 to 5: away from teacher by {away:g} (student), 0 (twin).")
        (mark,) = {line.get_xdata()[0] for line in explorer.picture.axes[-1].lines[-1:]}
        assert mark == k


def test_more_steps_mean_a_smaller_error(make):
    explorer, errors = make("solver_lab"), []
    for n in (5, 20):
        control(explorer, "steps").value = n
        errors.append(float(re.search(r"mean error ([\d.e-]+)", alt(explorer))[1]))
    assert errors[1] < errors[0]


def test_the_stars_of_the_solver_lab_are_the_exact_ends(make):
    explorer = make("solver_lab")
    exact = sample(MIXTURE, initial_noise(24, (2,)), schedules.polynomial(200), "heun").final[:6]
    for n in (5, 20):
        control(explorer, "steps").value = n
        for ax in explorer.picture.axes:
            (stars,) = (line for line in ax.lines if line.get_marker() == "*")
            assert np.allclose(stars.get_xydata(), exact)


def test_the_ends_lab_states_both_errors(make):
    explorer, x = make("ends_lab"), initial_noise(12, (1, 8, 8))
    control(explorer, "solver").value = "heun, Euler last"
    control(explorer, "evaluations").value = 5
    exact = sample(Empirical(DIGITS), x, schedules.polynomial(60), "unipc").final
    cured = sample(Empirical(DIGITS), x, schedules.polynomial(3), solvers.get("heun", euler_last=True)).final
    away, which = torch.cdist(cured.flatten(1), DIGITS.flatten(1)).min(dim=1)
    same = which == torch.cdist(exact.flatten(1), DIGITS.flatten(1)).argmin(dim=1)
    words = alt(explorer)
    assert f"heun, Euler last, 5 evaluations: the right image at the end of {100 * same.double().mean():.0f} %" in words
    assert f"median distance to the nearest image {float(away.median()):.2g}" in words


def test_a_level_moved_by_hand_changes_the_error_and_a_route_takes_it_back(make):
    explorer = make("schedule_lab")
    first = alt(explorer)
    assert "cheapest route" in first
    level = control(explorer, "σ₂")
    level.value = level.value * 1.3
    assert "levels moved by hand" in alt(explorer)
    assert re.search(r"error ([\d.]+)", alt(explorer))[1] != re.search(r"error ([\d.]+)", first)[1]
    coefficient = control(explorer, "coefficient")
    coefficient.value = 1.1
    coefficient.value = 1.0
    assert alt(explorer) == first


def test_level_sliders_may_meet_and_cross(make):
    explorer = make("schedule_lab")
    for name, value in (("σ₁", 3.0), ("σ₂", 3.0), ("σ₃", 80.0), ("σ₄", 0.002)):
        control(explorer, name).value = value
        levels = [float(s) for s in re.search(r"levels ([\d., ]+);", alt(explorer))[1].split(", ")]
        assert all(a > b for a, b in itertools.pairwise(levels))


def test_one_change_of_the_route_draws_once(make):
    explorer, drawn = make("schedule_lab"), []
    redraw = explorer._redraw
    explorer._redraw = lambda: drawn.append(1) or redraw()
    control(explorer, "steps").value = 7
    assert len(drawn) == 1
    visible = [c.description for c in movable(explorer) if c.description.startswith("σ")]
    assert visible == ["σ₁", "σ₂", "σ₃", "σ₄", "σ₅", "σ₆"]


def test_the_schedule_lab_takes_images_too(digits_path):
    digits = Empirical(data.load("digits8").images[:200].double())
    explorer = widgets.schedule_lab(digits, initial_noise(6, (1, 8, 8)), solver="ipndm", steps=4)
    assert "ipndm in 4 steps" in alt(explorer)


def test_the_monitor_follows_a_run_and_looks_back(run_dir):
    explorer = widgets.training_monitor(run_dir)
    assert "After 300 images" in alt(explorer)
    assert "entry 3 of 3" in alt(explorer)
    control(explorer, "moment").value = 0
    assert "After 100 images: training loss 0.9, held-out loss 1.05, worst 1.8 at sigma 80" in alt(explorer)
    with open(run_dir / "log.jsonl", "a") as file:
        file.write(json.dumps(log_row(400, 0.3)) + "\n" + '{"images": 500, "lo')  # a line still being written
    explorer.update()
    assert "After 100 images" in alt(explorer), "whoever looks back is left there"
    control(explorer, "moment").value = 3
    assert "After 400 images" in alt(explorer)
    assert "no samples drawn" in alt(explorer)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: widgets.solver_lab(MIXTURE, torch.zeros(4, 3)), r"x must have shape \(B, 2\), got \(4, 3\)"),
        (lambda: widgets.ends_lab(Empirical(DIGITS), MOONS, DIGITS), r"x must have shape \(B, 1, H, W\), got"),
        (lambda: widgets.mean_shift_steps(Empirical(MOONS), torch.zeros(4, 3)), r"x must have shape \(B, 2\)"),
        (lambda: widgets.cloud_player(MIXTURE, torch.zeros(4, 3)), r"x must have shape \(B, 2\), got \(4, 3\)"),
        (lambda: widgets.cloud_player(MIXTURE, MOONS, point=200), "point must be an integer from 0 to 199, got 200"),
        (lambda: widgets.cloud_player(MIXTURE, MOONS, steps=1), "steps must be an integer"),
        (lambda: widgets.cloud_player(MIXTURE, MOONS, sigma_max=0.01), "sigma_max"),
        (lambda: widgets.mean_shift_steps(Empirical(MOONS), MOONS, steps=1), "steps must be an integer >= 2"),
        (lambda: widgets.noise_walk({"alone": WALK["twin"]}), "ends must hold two to 5 samplers, got 1"),
        (lambda: widgets.noise_walk([WALK["twin"]] * 2), "ends must be a mapping of names to images"),
        (lambda: widgets.noise_walk({**WALK, "short": WALK["twin"][:3]}), r"one shape \(K, C, H, W\), K at least 2"),
        (lambda: widgets.path_player(torch.zeros(3, 2, 1, 4, 4)), "trajectory must be a Trajectory"),
        (lambda: widgets.turn_boomerang(torch.zeros(3, 2, 4)), r"paths must have shape \(N\+1, B, 3\)"),
        (lambda: widgets.turn_boomerang(torch.zeros(3, 2, 3)), "must end away from where they began, and bend"),
        (
            lambda: widgets.path_player(
                sample(Gaussian([0.0, 1.0], 0.3), initial_noise(3, (2,)), schedules.polynomial(4))
            ),
            "paths of images",
        ),
        (
            lambda: widgets.schedule_lab(MIXTURE, initial_noise(4, (2,)), steps=9),
            "steps must be an integer from 2 to 8",
        ),
        (lambda: widgets.schedule_lab(MIXTURE, initial_noise(4, (2,)), solver="magic"), "solver must be one of"),
        (lambda: widgets.schedule_lab(MIXTURE, initial_noise(4, (3,))), r"x must have shape \(B, 2\) or"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_a_path_that_is_not_there_is_refused(digits_path):
    with pytest.raises(ValueError, match="sample must be an integer from 0 to 11, got 12"):
        widgets.path_player(digits_path, sample=12)


# --- predictions ------------------------------------------------------------------------------------------------------


def test_the_answer_is_hidden_until_there_is_a_guess():
    asked = widgets.predict("How far?", 12.08, unit="pixels")
    assert "12" not in "".join(str(w.value) for w in (asked.screen, asked.box, asked.children[0]))
    asked.box.value = "many"
    assert "12" not in asked.screen.value.replace("or 12", "")
    assert "A number, please" in asked.screen.value
    asked.box.value = "70"
    assert asked.message == "Your guess: 70 pixels. Measured: 12 pixels. 5.8 times too large."
    assert f'<p role="status">{asked.message}</p>' == asked.screen.value
    asked.box.value = ""
    assert asked.screen.value == ""


@pytest.mark.parametrize(
    ("guess", "truth", "verdict"),
    [
        (11, 12, "Within a tenth"),
        (3, 12, "4 times too small"),
        (-24, -12, "2 times too large"),
        (-1, 12, "Too small by 13"),
        (0.5, 0, "Too large by 0.5"),
        (0, 0, "Within a tenth"),
    ],
)
def test_a_guess_is_compared_by_ratio_or_difference(guess, truth, verdict):
    assert verdict in widgets.predict("?", truth, guess=guess).message


def test_an_open_prediction_is_a_stable_line_and_a_folded_answer():
    asked = widgets.predict("How many <b>?", 12.08, guess=...)
    bundle = asked._repr_mimebundle_()
    assert bundle["text/plain"] == "predict: How many <b>? no guess yet"
    assert "<details><summary>Show what was measured</summary><p>Measured: 12.</p></details>" in bundle["text/html"]
    assert "How many &lt;b&gt;?" in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "Your guess: 12,5" not in asked.message
    asked.box.value = "12,5"  # a decimal comma
    assert asked._repr_mimebundle_()["text/plain"].endswith(
        "Your guess: 12. Measured: 12. Within a tenth: well predicted."
    )


@pytest.mark.parametrize("wrong", [{"truth": float("nan")}, {"question": ""}, {"guess": "many"}, {"unit": 3}])
def test_a_prediction_that_cannot_be_made_is_refused(wrong):
    (name,) = wrong
    with pytest.raises((TypeError, ValueError), match=name):
        widgets.predict(**{"question": "How many?", "truth": 1.0, **wrong})

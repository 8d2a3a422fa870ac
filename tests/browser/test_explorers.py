"""Every explorer in JupyterLab: moved by keyboard and mouse, its picture and text seen to change, in both themes."""

from __future__ import annotations

import json
import re
import time

import nbformat
import pytest
from PIL import Image

from teachkit.course import widgets

from .conftest import SHOTS, choose_theme, open_and_run

SETUP = """
import json, tempfile
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from teachkit import Empirical, GaussianMixture, data, initial_noise, sample, schedules
from teachkit.course import widgets
mixture = GaussianMixture([0.5, 0.3, 0.2], [[-2, -1], [2, -1], [0, 2]], 0.1)
moons = data.two_moons(200, noise=0.1)
digits = Empirical(data.load("digits8").images[:300].double())
nine = data.load("digits8").images[:9]
faded = nine - torch.linspace(0, 1, 9)[:, None, None, None]
run = Path(tempfile.mkdtemp())
rows = [{"images": 100 * k, "loss": 1 / k, "held_out": {"0.01": 0.4 / k, "1": 0.1, "80": 1.0}} for k in (1, 2, 3)]
(run / "log.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
for k in (1, 2, 3):
    Image.fromarray(np.full((40, 100), 60 * k, np.uint8)).save(run / f"samples-{100 * k:09d}.png")
"""
EXPLORERS = {
    "cloud_player": "widgets.cloud_player(Empirical(moons), moons, data=moons, steps=12)",
    "denoiser_field": "widgets.denoiser_field(mixture, data=mixture.sample(200, torch.Generator().manual_seed(0)))",
    "mean_shift_steps": "widgets.mean_shift_steps(Empirical(moons), moons[::8], data=moons, extent=2.0)",
    "noise_walk": "widgets.noise_walk({'plain': nine, 'fading': faded})",
    "path_player": "widgets.path_player(sample(digits, initial_noise(12, (1, 8, 8)), schedules.polynomial(30)))",
    "solver_lab": "widgets.solver_lab(mixture, initial_noise(24, (2,)))",
    "ends_lab": "widgets.ends_lab(digits, initial_noise(12, (1, 8, 8)), data.load('digits8').images[:300].double())",
    "schedule_lab": "widgets.schedule_lab(mixture, initial_noise(24, (2,)))",
    "training_monitor": "widgets.training_monitor(run)",
    "turn_boomerang": "widgets.turn_boomerang(sample(digits, initial_noise(12, (1, 8, 8)), schedules.polynomial(30)))",
}
DEAF = (
    "deaf = widgets.solver_lab(mixture, initial_noise(24, (2,)))\nfor c in deaf.controls:\n    c.unobserve_all()\ndeaf"
)
BROKEN = """def broken(x, sigma, labels=None):
    if sigma < 0.7:
        raise RuntimeError("the network is gone")
    return x / 2

widgets.denoiser_field(broken, sigma=1.0)"""
PATIENCE = 8  # seconds until a picture must have changed; how long it took is written down


@pytest.fixture(scope="module")
def notebook(lab, context):
    """All explorers, and two that are broken on purpose, in one notebook that has been run."""
    cells = [SETUP, *EXPLORERS.values(), DEAF, BROKEN]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells])
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, lab.root / "explorers.ipynb")
    page = context.new_page()
    yield open_and_run(page, lab, "explorers.ipynb", 120)
    page.close()
    lab.stop_kernels()


def cell(notebook, name):
    """The output of one explorer, scrolled into sight."""
    output = notebook.locator(".jp-CodeCell").nth(1 + [*EXPLORERS, "deaf", "broken"].index(name))
    output.scroll_into_view_if_needed()
    return output


def seen(output):
    image = output.locator(".widget-html img, .jupyter-widgets img").first
    return image.get_attribute("alt"), image.get_attribute("src")


def wait_for_change(output, before, patience=PATIENCE):
    """Seconds until both the text and the picture are others than ``before``."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < patience:
        alt, src = seen(output)
        if alt != before[0] and src != before[1]:
            return time.perf_counter() - begun
        output.page.wait_for_timeout(10)
    raise AssertionError(f"the picture did not change within {patience} s: {before[0]}")


def press(output, key="ArrowRight", slider=0):
    output.get_by_role("slider").nth(slider).focus()
    output.page.keyboard.press(key)


def test_every_explorer_is_tried():
    assert set(EXPLORERS) == set(widgets.__all__) - {"Explorer", "Prediction", "predict"}


@pytest.mark.parametrize("name", EXPLORERS)
def test_sliders_answer_to_the_keyboard(notebook, name):
    output, took = cell(notebook, name), {}
    for slider in range(output.get_by_role("slider").count()):
        handle = output.get_by_role("slider").nth(slider)
        if not handle.is_visible():
            continue  # a level that this number of steps does not use
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        before = seen(output)
        presses = 6 if (name, slider) == ("schedule_lab", 0) else 1  # a small change may leave the route as it is
        for _ in range(presses):
            press(output, "ArrowLeft" if at_end else "ArrowRight", slider)
        took[slider] = round(wait_for_change(output, before), 3)
    assert took
    output.page.screenshot(path=SHOTS / f"{name}-light.png")
    record = SHOTS / "seconds.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    record.write_text(json.dumps({**known, name: took}, indent=1))


@pytest.mark.parametrize("name", ["solver_lab", "ends_lab", "schedule_lab"])
def test_lists_change_the_picture(notebook, name):
    output = cell(notebook, name)
    for k in range(output.locator("select").count()):
        before = seen(output)
        output.locator("select").nth(k).select_option(index=1)
        wait_for_change(output, before)


def test_a_route_moves_the_level_sliders_and_stays_a_route(notebook):
    """The browser sends the levels back, rounded or not: that must not count as moved by hand."""
    output = cell(notebook, "schedule_lab")
    for key in ("ArrowLeft", "ArrowRight"):
        before = seen(output)
        press(output, key, slider=1)  # the number of steps
        wait_for_change(output, before)
        output.page.wait_for_timeout(1000)
        assert "cheapest route" in seen(output)[0]


@pytest.mark.parametrize("name", ["cloud_player", "mean_shift_steps", "noise_walk", "path_player"])
def test_play_moves_the_picture(notebook, name):
    output = cell(notebook, name)
    before = seen(output)
    buttons = output.locator(".widget-play button")
    buttons.first.click()
    wait_for_change(output, before)
    buttons.first.click()


@pytest.mark.parametrize("name", EXPLORERS)
def test_nothing_is_cut_off(notebook, name):
    output = cell(notebook, name)
    place, image = output.locator(".jp-OutputArea-output").first.bounding_box(), output.locator("img").first
    box = image.bounding_box()
    assert box["x"] + box["width"] <= place["x"] + place["width"] + 1, "the picture is clipped at the right"
    assert box["width"] > 400
    labels = output.locator(".widget-label:visible")
    for text, wanted, given in labels.evaluate_all(
        "all => all.map(e => [e.textContent, e.scrollWidth, e.clientWidth])"
    ):
        assert wanted <= given, f"the label {text!r} is cut"


@pytest.mark.parametrize("name", EXPLORERS)
def test_captions_can_be_read_in_both_themes(notebook, name):
    page = notebook.page
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        choose_theme(page, theme)
        output = cell(notebook, name)
        light, dark = sorted(output.locator("figcaption").first.evaluate(LUMINANCES))
        assert (dark + 0.05) / (light + 0.05) >= 4.5, f"the caption is hard to read in {theme}"
        if theme.endswith("Dark"):
            page.wait_for_timeout(300)
            page.screenshot(path=SHOTS / f"{name}-dark.png")
    shades = Image.open(SHOTS / f"{name}-dark.png").convert("L").getextrema()
    assert shades[0] < 60, "the page is dark"


LUMINANCES = """caption => {
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = caption;
  while (behind && /rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) {
    behind = behind.parentElement;
  }
  return [luminance(getComputedStyle(caption).color), luminance(getComputedStyle(behind).backgroundColor)];
}"""


def test_an_error_is_shown_in_place_of_the_picture(notebook):
    output = cell(notebook, "broken")
    for _ in range(6):
        press(output, "ArrowLeft")
    alert = output.get_by_role("alert")
    alert.wait_for(timeout=PATIENCE * 1000)
    assert re.search("RuntimeError: the network is gone", alert.inner_text())
    output.page.screenshot(path=SHOTS / "broken.png")


def test_a_deaf_explorer_would_be_noticed(notebook):
    """The negative control: without its observers the same check fails."""
    output = cell(notebook, "deaf")
    before = seen(output)
    press(output)
    with pytest.raises(AssertionError, match="did not change"):
        wait_for_change(output, before, patience=2)

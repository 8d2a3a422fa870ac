"""Every picture describes itself in numbers, checked here against the data; the user's settings stay as they are."""

import base64
import io
import re
import subprocess
import sys
import threading
import time

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from teachkit import Gaussian, geometry, initial_noise, sample, schedules
from teachkit.course import plots

POINTS = plots.grid(2.0, 12)
PLANE = sample(Gaussian([0.0, 0.0], 1.0), initial_noise(3, (2,)), schedules.polynomial(5))
IMAGES = sample(lambda x, sigma: x / (1 + sigma**2), initial_noise(3, (1, 4, 4)), schedules.polynomial(5))


@pytest.fixture(scope="module")
def path():
    """Straight to the eye, bent by an anisotropic Gaussian: 6 trajectories in 16 dimensions, as 4 x 4 images."""
    variances = torch.linspace(0.05, 2, 16, dtype=torch.float64)
    denoiser = Gaussian(torch.zeros(16, dtype=torch.float64), torch.diag(variances))
    flat = sample(denoiser, initial_noise(6, (16,), 80.0), schedules.polynomial(30))
    return type(flat)(flat.sigmas, flat.x.reshape(31, 6, 1, 4, 4), flat.denoised.reshape(30, 6, 1, 4, 4), flat.nfe)


@pytest.fixture(scope="module")
def plane():
    return sample(Gaussian([1.0, 0.0], 0.3), initial_noise(3, (2,), 10.0), schedules.polynomial(8, sigma_max=10.0))


@pytest.fixture(scope="module")
def pictures(path, plane):
    triangle = torch.triu(torch.rand(9, 9, generator=torch.Generator().manual_seed(0)) + 0.1, 1)
    levels = schedules.polynomial(8)
    return {
        "vector_field": plots.vector_field(POINTS, -POINTS, data=POINTS[:9]),
        "mixture_contours": plots.mixture_contours(POINTS, -(POINTS**2).sum(1), data=POINTS[:9]),
        "steps_on_path": plots.steps_on_path(plane, samples=(0, 2), data=POINTS[:9]),
        "boomerang": plots.boomerang(path),
        "boomerang 2-D": plots.boomerang(path, dims=2),
        "boomerang of coordinates": plots.boomerang(geometry.project(path), relative=False),
        "deviation": plots.deviation(path),
        "deviation of an array": plots.deviation(np.abs(np.sin(np.arange(9.0)))[:, None], levels),
        "explained_variance": plots.explained_variance(geometry.explained_variance(path, 3, remove_chord=True)),
        "film_strip": plots.film_strip(path, sample=1, frames=5),
        "image_grid": plots.image_grid(path.final, columns=4, titles=range(6)),
        "cost_matrix": plots.cost_matrix(triangle, levels, [0, 3, 8]),
        "cost_matrix of indices": plots.cost_matrix(triangle),
        "work_precision": plots.work_precision({"euler": ([4, 8], [0.4, 0.1]), "heun": ([4, 8], [0.9, 0.05])}),
        "loss_by_noise_level": plots.loss_by_noise_level(levels, {"a": torch.rand(9, 4) + 0.1, "b": np.ones(9)}),
    }


def test_every_kind_of_picture_is_tried(pictures):
    tried = {name.split()[0] for name in pictures}
    others = {"Picture", "grid", "label_ends", "markup", "panels", "show", "style"}
    assert tried == {name for name in plots.__all__ if not name.isupper()} - others


def test_every_picture_carries_a_description_with_numbers_and_labels(pictures):
    for name, picture in pictures.items():
        assert isinstance(picture, plots.Picture), name
        assert re.search(r"\d", picture.alt), name
        assert len(picture.alt) > 30, name
        for ax in picture.axes:
            if not ax.images or name.startswith("cost"):  # images of digits need no axes
                assert ax.get_xlabel() or ax.get_ylabel(), name


@pytest.mark.parametrize("left", [False, True])
def test_labels_stand_at_the_ends_of_their_lines_and_apart(left):
    picture, ax = plots.panels(size=(5, 3))
    for name, end in (("a", 1.0), ("b", 1.01), ("c", 5.0), ("nothing", float("nan"))):
        ax.plot([0.0, 1.0], [end, end], label=name)
    ax.plot([0.0, 1.0], [3.0, 3.0])  # without a label
    plots.label_ends(ax, gap=12, left=left)
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]
    assert all(text.xy[0] == (0 if left else 1) for text in ax.texts)
    picture.draw_without_rendering()
    middles = [text.get_window_extent().get_points()[:, 1].mean() * 72 / picture.dpi for text in ax.texts]
    assert middles[1] - middles[0] == pytest.approx(12, abs=2)
    assert middles[2] - middles[1] > 30
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in ax.lines[:3]]


def test_display_has_image_with_alternative_text_and_text_that_nbval_compares(pictures):
    for name, picture in pictures.items():
        data, metadata = picture._repr_mimebundle_()
        assert data["text/plain"] == picture.alt, name
        assert data["text/html"].startswith('<figure><img alt="'), name
        assert f'src="data:image/png;base64,{data["image/png"]}"' in data["text/html"], name
        assert metadata["image/png"]["alt"] == picture.alt, name
        image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        assert np.asarray(image.convert("RGB")).std() > 1, f"{name} is blank"
        assert len(data["image/png"]) < 120_000, name


def test_alternative_text_is_escaped_in_html():
    picture, _ = plots.panels()
    picture.alt, picture.caption = 'a "quote" & <tag>', "<b>"
    markup = picture._repr_mimebundle_()[0]["text/html"]
    assert 'alt="a &quot;quote&quot; &amp; &lt;tag&gt;"' in markup
    assert "<figcaption>&lt;b&gt;</figcaption>" in markup


def test_colours_of_the_palette_survive_compression():
    picture, axes = plots.panels(1, 2)
    axes[0].axhspan(0, 1, color=plots.VERMILLION)
    axes[1].axhspan(0, 1, color=plots.ORANGE)
    axes[1].imshow(np.random.default_rng(0).random((40, 40)), extent=(0, 1, 0, 0.5))
    image = Image.open(io.BytesIO(base64.b64decode(picture._repr_mimebundle_()[0]["image/png"]))).convert("RGB")
    pixels = np.asarray(image).reshape(-1, 3)
    for colour in ((0xD5, 0x5E, 0x00), (0xE6, 0x9F, 0x00)):
        assert (np.abs(pixels - np.array(colour)).max(1) <= 2).mean() > 0.02


def test_the_levels_of_a_contour_keep_their_colours():
    """Beside lines in other colours, too: with a palette chosen for coverage alone each blue was off by several."""
    picture, ax = plots.panels()
    picture.set_layout_engine("none")  # which may move things by a pixel at the second drawing
    plots.mixture_contours(plots.grid(2.2, 90), Gaussian([0.0, 0.0], 0.3).log_prob(plots.grid(2.2, 90), 0.3), ax=ax)
    for k, colour in enumerate(("C1", "C2", "C3", "black")):
        ax.plot([-2, 2], [k - 1.5, 1.5 - k], "o-", color=colour)
    stored = Image.open(io.BytesIO(base64.b64decode(picture._repr_mimebundle_()[0]["image/png"])))
    drawn = io.BytesIO()
    with plots.style():
        picture.savefig(drawn, format="png", dpi=144, facecolor="white")
    pixels = [np.asarray(image.convert("RGB")).astype(int) for image in (stored, Image.open(drawn))]
    assert np.abs(pixels[0] - pixels[1]).mean() < 0.3


def test_the_deviation_stated_is_the_deviation_measured(path):
    relative = 100 * geometry.deviation(path, relative=True).median(1).values
    peak = int(relative.argmax())
    alt = plots.deviation(path).alt
    assert f"6 trajectories, deviation peaks at {float(relative[peak]):.2g} % of the chord" in alt
    assert f"near sigma {float(path.sigmas[peak]):.2g}" in alt


def test_the_boomerang_states_chord_and_bend(path):
    chord = (path.x[-1] - path.x[0]).flatten(1).norm(dim=1)
    bend = 100 * geometry.project(path)[..., 1:].norm(dim=-1).amax(0) / chord
    alt = plots.boomerang(path).alt
    assert f"chord {np.median(chord):.0f} long" in alt
    assert f"bends most by {float(f'{float(bend.max()):.2g}'):g} %" in alt


def test_panels_collect_the_descriptions(path):
    picture, (left, right) = plots.panels(1, 2)
    assert plots.deviation(path, ax=left, title="First") is picture
    plots.boomerang(path, dims=2, ax=right, title="Second")
    assert picture.alt.index("First: ") < picture.alt.index("Second: ")


def test_the_same_call_gives_the_same_bytes(path):
    first, second = (plots.deviation(path)._repr_mimebundle_()[0] for _ in range(2))
    assert first == second


def test_settings_of_the_user_are_left_alone_and_do_not_leak_in(path):
    plain = plots.deviation(path)._repr_mimebundle_()[0]["image/png"]
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        assert plots.deviation(path)._repr_mimebundle_()[0]["image/png"] == plain
        assert dict(mpl.rcParams) == before


def test_two_threads_in_the_style_leave_the_settings_as_they_were():
    before, entered = dict(mpl.rcParams), threading.Event()

    def other():
        with plots.style():
            entered.set()
            time.sleep(0.05)  # stays in after the first has left

    with plots.style():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(0.05)
    thread.join()
    assert dict(mpl.rcParams) == before


def test_show_displays_once_and_insists_on_a_description(monkeypatch, path):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **kw: shown.append((data, kw)))
    plots.show(plots.deviation(path), caption="other words")
    plots.show(Figure(), alt="An empty square, 0 lines.")
    assert [kw["raw"] for _, kw in shown] == [True, True]
    assert "<figcaption>other words</figcaption>" in shown[0][0]["text/html"]
    assert shown[1][0]["text/plain"] == "An empty square, 0 lines."
    with pytest.raises(ValueError, match="alt"):
        plots.show(Figure())


def test_panels_can_do_without_their_colour_bars():
    log_density = -(POINTS**2).sum(1)
    for draw in (plots.vector_field, plots.mixture_contours):
        second = -POINTS if draw is plots.vector_field else log_density
        assert len(draw(POINTS, second).axes) == 2
        assert len(draw(POINTS, second, colorbar=False).axes) == 1


def test_a_schedule_that_ends_at_zero_can_be_drawn():
    levels = schedules.polynomial(8, zero=True)
    picture = plots.deviation(np.ones((len(levels), 2)), levels)
    assert np.isfinite(picture.axes[0].get_xlim()).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plots.vector_field(POINTS[:, :1], POINTS), "points must have shape"),
        (lambda: plots.vector_field(POINTS, POINTS[:5]), "vectors must have the shape of points"),
        (lambda: plots.vector_field(POINTS, POINTS * torch.nan), "vectors must be finite"),
        (lambda: plots.mixture_contours(POINTS[:5], torch.zeros(5)), "square grid"),
        (lambda: plots.steps_on_path(POINTS), "trajectory must be a Trajectory"),
        (lambda: plots.boomerang(torch.zeros(5, 2, 3)), "no chord"),
        (lambda: plots.boomerang(torch.rand(5, 2, 3), dims=4), "dims must be an integer from 2 to 3"),
        (lambda: plots.deviation(np.ones((5, 2))), "sigmas must be given"),
        (lambda: plots.deviation(np.ones((5, 2)), np.ones(4)), "sigmas must have shape"),
        (lambda: plots.film_strip(POINTS), "Trajectory of images"),
        (lambda: plots.image_grid(torch.zeros(4, 2, 8, 8)), "images must have shape"),
        (lambda: plots.cost_matrix(torch.zeros(4, 4)), "no positive entry"),
        (lambda: plots.cost_matrix(torch.ones(4, 3)), "square"),
        (lambda: plots.work_precision({}), "at least one entry"),
        (lambda: plots.cost_matrix(np.triu(np.ones((4, 4))), path=[0, 9]), "path must be at least 2 of 0 to 3"),
        (lambda: plots.cost_matrix(np.triu(np.ones((4, 4))), path=[]), "path must be at least 2 of 0 to 3"),
        (lambda: plots.deviation(np.ones((2, 2)), [1.0, -1.0]), "sigmas must be positive"),
        (lambda: plots.mixture_contours(torch.rand(9, 2), torch.zeros(9)), "square lattice"),
        (lambda: plots.work_precision({"a": ([4, 6], [0.1, 0.0])}), "must be positive"),
        (lambda: plots.work_precision({"a": ([4, 6], [0.1])}), "errors must have shape"),
        (lambda: plots.loss_by_noise_level([1.0, 0.1], {}), "at least one entry"),
        (lambda: plots.loss_by_noise_level([1.0, 0.1], {"a": [1.0, 2.0], "b": [1.0]}), "a row for each"),
        (lambda: plots.explained_variance({}), "at least one entry"),
        (lambda: plots.image_grid(torch.zeros(4, 1, 8, 8), columns=0), "columns must be"),
        (lambda: plots.image_grid(torch.zeros(4, 1, 8, 8), titles=["a"]), "titles must hold one"),
        (lambda: plots.image_grid(torch.zeros(4, 1, 8, 8), columns=2, rows=["a"]), "rows must hold one for each row"),
        (lambda: plots.steps_on_path(PLANE, samples=()), "samples must be at least 1"),
        (lambda: plots.steps_on_path(PLANE, samples=(99,)), "samples must be at least 1 of 0 to 2"),
        (lambda: plots.film_strip(IMAGES, sample=9), "sample must be an integer from 0 to 2"),
        (lambda: plots.film_strip(IMAGES, frames=0), "frames must be"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_rows_and_columns_of_images_are_named():
    picture = plots.image_grid(torch.zeros(5, 1, 8, 8), columns=3, titles=["a", "b", "c"], rows=["above", "below"])
    assert [ax.get_title(loc="center") for ax in picture.axes] == ["a", "b", "c", "", ""]
    assert [ax.get_ylabel() for ax in picture.axes] == ["above", "", "", "below", ""]


@pytest.mark.slow
def test_the_library_below_does_not_import_matplotlib():
    code = "import sys, teachkit; print('matplotlib' in sys.modules, 'ipywidgets' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


# Machado, Oliveira & Fernandes (2009), severity 1.0, on linear RGB.
CONES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "normal": np.eye(3).tolist(),
}


def lightness_and_colour(linear):
    """CIE L*a*b* of linear sRGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", CONES)
def test_the_palette_can_be_told_apart(eye):
    from matplotlib.colors import to_rgb

    with plots.style():
        palette = [*mpl.rcParams["axes.prop_cycle"].by_key()["color"], "white"]
    assert {plots.BLUE, plots.VERMILLION, plots.GREEN, plots.ORANGE} <= set(palette)
    rgb = np.array([to_rgb(colour) for colour in palette])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab = [lightness_and_colour(np.clip(np.array(CONES[eye]) @ colour, 0, 1)) for colour in linear]
    apart = [np.linalg.norm(a - b) for k, a in enumerate(lab) for b in lab[:k]]
    assert min(apart) > 15  # 2 is just noticeable side by side

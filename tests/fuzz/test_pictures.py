"""Wrong arguments to pictures and widgets."""

import pytest
import torch

from teachkit import denoisers, geometry, initial_noise, sample, schedules
from teachkit.course import plots, widgets
from tests.fuzz.harness import Call, faults, normal
from tests.fuzz.test_core import MIXTURE
from tests.fuzz.test_paths import COST, PATH

FRAME = {"ax": None, "title": "A title"}  # None: a figure of its own, so that each call draws on empty paper
SIGMAS = torch.tensor([10.0, 3.0, 1.0, 0.1])
LATTICE = plots.grid(2.0, 5)
IMAGES = sample(
    denoisers.Empirical(normal(6, 1, 4, 4)), initial_noise(3, (1, 4, 4), 10.0), schedules.polynomial(4, 0.1, 10.0)
)
LEVELS = {"values": ("sigmas", "traj"), "sigmas": ("values",), "losses": ("sigmas",)}

PLOTS = {
    "course.plots.boomerang": Call(
        plots.boomerang, {"curves": PATH, "dims": 3, "relative": True, **FRAME}, {"curves": ("traj",)}
    ),
    "course.plots.boomerang, coordinates": Call(
        plots.boomerang, {"curves": geometry.project(PATH), "dims": 2, "relative": False, **FRAME}
    ),
    "course.plots.deviation": Call(
        plots.deviation, {"values": PATH, "sigmas": None, "relative": True, **FRAME}, LEVELS
    ),
    "course.plots.deviation, distances": Call(
        plots.deviation, {"values": normal(4, 3).abs(), "sigmas": SIGMAS, **FRAME}, LEVELS
    ),
    "course.plots.explained_variance": Call(
        plots.explained_variance, {"shares": torch.tensor([0.5, 0.9, 1.0]), **FRAME}
    ),
    "course.plots.film_strip": Call(
        plots.film_strip,
        {"trajectory": IMAGES, "sample": 1, "frames": 3, "title": "A title"},
        {"trajectory": ("sample",)},
    ),
    "course.plots.grid": Call(plots.grid, {"extent": (-1.0, 1.0, -2.0, 2.0), "n": 3}),
    "course.plots.vector_field": Call(
        plots.vector_field,
        {"points": LATTICE, "vectors": LATTICE / 2, "data": normal(3, 2), "colorbar": True, **FRAME},
        {"points": ("vectors",)},
    ),
    "course.plots.mixture_contours": Call(
        plots.mixture_contours,
        {
            **{"points": LATTICE, "log_density": -LATTICE.square().sum(1), "data": normal(3, 2)},
            **{"colorbar": True, **FRAME},
        },
        {"points": ("lattice",)},
    ),
    "course.plots.steps_on_path": Call(
        plots.steps_on_path,
        {"trajectory": PATH, "samples": (0, 2), "data": normal(3, 2), **FRAME},
        {"trajectory": ("samples",)},
    ),
    "course.plots.image_grid": Call(
        plots.image_grid,
        {
            **{"images": normal(3, 1, 4, 4), "columns": 2, "titles": ["a", "b", "c"], "rows": ["one", "two"]},
            "title": "A title",
        },
        {"images": ("titles", "rows"), "columns": ("rows",)},
    ),
    "course.plots.cost_matrix": Call(
        plots.cost_matrix,
        {"cost": COST, "sigmas": PATH.sigmas, "path": [0, 3, 8], **FRAME},
        {"cost": ("path", "sigmas")},
    ),
    "course.plots.work_precision": Call(
        plots.work_precision,
        {"results": {"euler": (torch.tensor([4.0, 8.0]), torch.tensor([0.2, 0.1]))}, "error": "error", **FRAME},
        {"results": ("nfe", "errors")},
    ),
    "course.plots.loss_by_noise_level": Call(
        plots.loss_by_noise_level,
        {"sigmas": SIGMAS, "losses": normal(4, 3).abs(), "ylabel": "loss", **FRAME},
        LEVELS,
    ),
    "course.plots.panels": Call(plots.panels, {"rows": 1, "columns": 2, "size": (4.0, 3.0)}),
    "course.plots.label_ends": Call(plots.label_ends, {"ax": plots.panels()[1], "gap": 11.0, "left": False}),
    "course.plots.markup": Call(plots.markup, {"figure": plots.panels()[0], "dpi": 50}),
    "course.plots.show": Call(plots.show, {"figure": plots.panels()[0], "alt": "Empty axes.", "caption": "Nothing."}),
}

PLANE = {"denoiser": MIXTURE, "x": 10 * normal(4, 2), "data": normal(3, 2)}
WIDGETS = {
    "course.widgets.denoiser_field": Call(
        widgets.denoiser_field,
        {
            **{"denoiser": MIXTURE, "data": normal(3, 2), "point": (1.0, 1.5), "sigma": 1.0},
            **{"sigma_min": 0.1, "sigma_max": 10.0, "extent": 4.0},
        },
        {"sigma": ("sigma_min",), "sigma_min": ("sigma",), "sigma_max": ("sigma_min",)},
    ),
    "course.widgets.cloud_player": Call(
        widgets.cloud_player,
        {
            **PLANE,
            **{"sigma_min": 0.1, "sigma_max": 2.0, "steps": 4, "point": 1, "seed": 1, "extent": 4.0},
        },
        {"sigma_min": ("sigma_max",), "sigma_max": ("sigma_min",)},
    ),
    "course.widgets.mean_shift_steps": Call(
        widgets.mean_shift_steps, {**PLANE, "bandwidth": 0.5, "start": 3.0, "steps": 4, "extent": 4.0}
    ),
    "course.widgets.solver_lab": Call(
        widgets.solver_lab, {**PLANE, "sigma_min": 0.1, "sigma_max": 10.0}, {"sigma_max": ("sigma_min",)}
    ),
    "course.widgets.ends_lab": Call(
        widgets.ends_lab,
        {
            "denoiser": denoisers.Empirical(normal(6, 1, 4, 4)),
            "x": 80 * normal(3, 1, 4, 4),
            "images": normal(6, 1, 4, 4),
            "shown": 2,
        },
        {"x": ("images",), "images": ("x",)},
    ),
    "course.widgets.schedule_lab": Call(
        widgets.schedule_lab,
        {
            **{"denoiser": MIXTURE, "x": PATH.x[0], "teacher": PATH, "solver": "euler", "steps": 3, "max_steps": 4},
            **{"sigma_min": 0.1, "sigma_max": 10.0},
        },
        {"x": ("teacher",), "teacher": ("x",), "max_steps": ("steps",)},
    ),
    "course.widgets.noise_walk": Call(
        widgets.noise_walk, {"ends": {"teacher": normal(4, 1, 3, 3), "student": normal(4, 1, 3, 3)}}
    ),
    "course.widgets.path_player": Call(
        widgets.path_player, {"trajectory": IMAGES, "sample": 1}, {"trajectory": ("traj", "sample")}
    ),
    "course.widgets.turn_boomerang": Call(
        widgets.turn_boomerang, {"paths": IMAGES, "turn": 30, "tilt": 20, "shown": 2}
    ),
    "course.widgets.training_monitor": Call(
        widgets.training_monitor, {"run_dir": "build/no-run-yet", "interval": 2000}
    ),
    "course.widgets.predict": Call(
        widgets.predict, {"question": "How many?", "truth": 2.5, "unit": "legs", "guess": 4.0}
    ),
    "course.widgets.Prediction": Call(
        widgets.Prediction, {"question": "How many?", "truth": 2.5, "unit": "legs", "guess": 4.0}
    ),
    "course.widgets.Explorer": Call(
        widgets.Explorer, {"picture": plots.panels()[0], "redraw": lambda: ("alt", "caption"), "controls": []}
    ),
}
CALLS = {**PLOTS, **WIDGETS}


@pytest.mark.slow  # each row draws some hundred pictures
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named_or_the_answer_is_right(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = faults(CALLS[name])
    assert not found, f"{len(found)} faults\n" + "\n".join(found)

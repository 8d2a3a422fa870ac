"""Wrong arguments to geometry, regularity and scheduling."""

import dataclasses

import pytest
import torch

from teachkit import geometry, initial_noise, regularity, sample, schedules, scheduling
from tests.fuzz.harness import Call, faults, normal
from tests.fuzz.test_core import DATA_SET, GAUSSIAN, MIXTURE

SIGMAS = schedules.polynomial(8, 0.1, 10.0)
PATH = sample(MIXTURE, initial_noise(8, (2,), 10.0), SIGMAS)
SECOND = sample(GAUSSIAN, initial_noise(8, (2,), 10.0), SIGMAS)
CURVES, REFERENCE = geometry.project(PATH), geometry.project(SECOND)[:, 0]
LABELS = torch.arange(8) % 2
SPACE = torch.stack([SIGMAS.cos(), SIGMAS.sin(), SIGMAS], -1)

ALIGN = {"curves": CURVES, "reference": REFERENCE, "reflections": False, "about_chord": True}
TRAJ = {"traj": ("x must", "x is")}  # of another dimension or dtype than the denoiser that is given with it
GEOMETRY = {
    "geometry.align": Call(geometry.align, ALIGN),
    "geometry.procrustes": Call(geometry.procrustes, ALIGN),
    "geometry.procrustes_residual": Call(geometry.procrustes_residual, ALIGN),
    "geometry.curvature_torsion": Call(
        geometry.curvature_torsion, {"points": SPACE, "window": 5, "edges": "one_sided", "weights": "length"}
    ),
    "geometry.curvature_torsion, a length": Call(
        geometry.curvature_torsion,
        {"points": SPACE, "length": 4.0, "edges": "one_sided", "weights": "tricube", "sparse": "widen"},
    ),
    "geometry.deviation": Call(geometry.deviation, {"traj": PATH.x, "relative": True}),
    "geometry.explained_variance": Call(
        geometry.explained_variance, {"traj": PATH.x, "k": 2, "remove_chord": True, "centre": True}
    ),
    **{
        f"geometry.{name}{form}": Call(getattr(geometry, name), {"traj": value})
        for name in ("arc_length", "cosines", "distance_to_end", "project")
        for form, value in ((", a trajectory", PATH), ("", PATH.x))
    },
    "geometry.deviation_peak": Call(geometry.deviation_peak, {"traj": PATH}),
    "geometry.norms": Call(geometry.norms, {"traj": PATH}),
    "geometry.path_curvature": Call(geometry.path_curvature, {"traj": PATH}),
}

POSTERIORS = regularity.class_posteriors(MIXTURE, PATH)
WALKS = {"n": 6, "b": 3, "d": 2, "seed": 1}
NULL = torch.cumsum(normal(7, 3, 2), 0)
REGULARITY = {
    "regularity.random_walk": Call(regularity.random_walk, WALKS),
    **{
        f"regularity.{name}": Call(getattr(regularity, name), {**WALKS, "like": NULL}, dict.fromkeys("nbd", ("like",)))
        for name in ("brownian_bridge", "integrated_walk")
    },
    "regularity.time_shuffled": Call(regularity.time_shuffled, {"curves": NULL, "seed": 1}),
    "regularity.effective_neighbours": Call(
        regularity.effective_neighbours, {"empirical": DATA_SET, "traj": PATH}, TRAJ
    ),
    "regularity.speciation_sigma": Call(regularity.speciation_sigma, {"data": normal(6, 2)}),
    "regularity.class_posteriors": Call(regularity.class_posteriors, {"denoiser": MIXTURE, "traj": PATH}, TRAJ),
    "regularity.commitment_sigma": Call(
        regularity.commitment_sigma, {"posteriors": POSTERIORS, "sigmas": SIGMAS, "level": 0.5}
    ),
    "regularity.state_gap": Call(
        regularity.state_gap, {"traj_a": PATH, "traj_b": SECOND, "radius": 1.0}, {"traj_a": ("traj_b",)}
    ),
    "regularity.rotation": Call(regularity.rotation, {"traj": PATH}),
    "regularity.score_gap": Call(regularity.score_gap, {"denoiser": GAUSSIAN, "traj": PATH}, TRAJ),
    "regularity.teleport": Call(
        regularity.teleport, {"gaussian": GAUSSIAN, "x": PATH.x[0], "sigma_from": 10.0, "sigma_to": 1.0}
    ),
    "regularity.step_targets": Call(regularity.step_targets, {"traj": PATH}),
    "regularity.span_residual": Call(regularity.span_residual, {"traj": PATH}),
    "regularity.noise_norm_spread": Call(regularity.noise_norm_spread, {"traj": PATH}),
    "regularity.unrolled_weights": Call(regularity.unrolled_weights, {"sigmas": SIGMAS}),
    "regularity.likelihood_gain": Call(
        regularity.likelihood_gain,
        {"denoiser": MIXTURE, "x": PATH.x[4], "sigma": torch.full((8,), 2.0, dtype=torch.float64), "steps": 4},
        {"x": ("sigma",)},
    ),
}

STEPS = torch.tensor([0, 3, 5, 8])
COST = scheduling.cost_matrix(PATH, "l2")
COUNT = {"cost": ("path", "steps")}  # a smaller matrix is in order, but too small for the path
WARM_UP = {
    **{"denoiser": MIXTURE, "x": PATH.x[0], "sigma_min": 0.1, "sigma_max": 10.0},
    **{"labels": LABELS, "guidance": 1.5, "dynamic_threshold": 0.9, "batch": 3, "objective": "rms"},
    **{"grid": 8, "budget": 2.0, "teacher": None, "progress": False},
}
# The noise, its levels and the teacher belong together; the levels are those of a schedule.
WARM_UP_NAMES = {
    **dict.fromkeys(("x", "labels"), ("teacher", "labels")),
    **dict.fromkeys(("sigma_min", "sigma_max", "grid"), ("sigma_m", "n =", "n must", "grid")),
}
FITTED = scheduling.Schedule(
    schedules.polynomial(3, 0.1, 10.0), "fitted", 3, {"weights": [[-1.0], [-1.5, 0.5], [-1.5, 0.5]]}
)
PLAIN = scheduling.Schedule(schedules.polynomial(3, 0.1, 10.0), "ipndm", 3, {"order": 2}, 0.1, {"method": "by hand"})


class Scheduler:
    """What `drive` looks for in one of diffusers' schedulers."""

    betas, ets = torch.ones(1), ()

    def set_timesteps(self, steps, device=None):
        self.sigmas = torch.zeros(steps + 1)


def driven(**given):
    scheduling.drive(**given)
    return given["scheduler"].timesteps


SCHEDULING = {
    "scheduling.cost_matrix": Call(scheduling.cost_matrix, {"teacher": PATH, "metric": "l1"}),
    "scheduling.cost_matrix, deviation": Call(scheduling.cost_matrix, {"teacher": PATH, "metric": "deviation"}),
    "scheduling.cost_matrix, l2": Call(scheduling.cost_matrix, {"teacher": PATH, "metric": "l2"}),
    "scheduling.path_cost": Call(scheduling.path_cost, {"cost": COST, "path": STEPS, "coefficient": 1.1}, COUNT),
    "scheduling.shortest_path": Call(scheduling.shortest_path, {"cost": COST, "steps": 3, "coefficient": 1.1}, COUNT),
    "scheduling.shortest_paths": Call(
        scheduling.shortest_paths, {"cost": COST, "max_steps": 3, "coefficient": 1.1}, COUNT
    ),
    "scheduling.score_optimal": Call(scheduling.score_optimal, {"teacher": PATH, "n": 3, "cost": "predictor"}),
    "scheduling.score_optimal, corrector": Call(
        scheduling.score_optimal, {"teacher": PATH, "n": 3, "cost": "corrector"}
    ),
    "scheduling.teacher_paths": Call(
        scheduling.teacher_paths,
        {
            **{name: value for name, value in WARM_UP.items() if name not in ("objective", "budget", "teacher")},
            "file": None,
        },
        WARM_UP_NAMES,
    ),
    "scheduling.find_schedule": Call(
        scheduling.find_schedule, {**WARM_UP, "nfe": 3, "solver": "ipndm", "options": {"order": 2}}, WARM_UP_NAMES
    ),
    "scheduling.find_schedule, a teacher": Call(
        scheduling.find_schedule,
        {"denoiser": MIXTURE, "x": PATH.x[0], "nfe": 3, "teacher": PATH},
        {"x": ("teacher",), "nfe": ("n =",)},
    ),
    "scheduling.fit_solver": Call(
        scheduling.fit_solver, {**WARM_UP, "sigmas": 3, "order": 2, "refine": True}, WARM_UP_NAMES
    ),
    "scheduling.fit_solver, levels": Call(
        scheduling.fit_solver,
        {"denoiser": MIXTURE, "x": PATH.x[0], "sigmas": schedules.polynomial(3, 0.1, 10.0), "teacher": PATH},
        {"x": ("teacher",), "sigmas": ("teacher",), "teacher": ("sigmas",)},
    ),
    "scheduling.learn_solver": Call(
        scheduling.learn_solver,
        {
            **{name: value for name, value in WARM_UP.items() if name != "budget"},
            "nfe": 3,
            "free": ("levels", "weights"),
            "start": "cosine",
            "solver": "ipndm",
            "order": 2,
            "iterations": 2,
            "learning_rate": 0.02,
            "rows": 4,
            "relax": 0.01,
            "save_memory": True,
            "seed": 0,
        },
        WARM_UP_NAMES,
    ),
    "scheduling.multistep_weights": Call(
        scheduling.multistep_weights, {"solver": "ipndm", "sigmas": schedules.polynomial(3, 0.1, 10.0)}
    ),
    "scheduling.learn_amed": Call(
        scheduling.learn_amed,
        {
            **{name: value for name, value in WARM_UP.items() if name != "budget"},
            **{"nfe": 3, "start": "logsnr", "iterations": 2, "learning_rate": 0.1, "rows": 4, "seed": 1},
        },
        WARM_UP_NAMES,
    ),
    "scheduling.states_at": Call(
        scheduling.states_at,
        {"teacher": PATH, "sigmas": schedules.polynomial(3, 0.1, 10.0), "rows": slice(2, 5)},
        {"teacher": ("sigmas",)},
    ),
    "scheduling.drive": Call(driven, {"scheduler": Scheduler(), "schedule": PLAIN, "device": "cpu"}),
    "scheduling.FittedMultistep": Call(
        lambda **given: scheduling.FittedMultistep(**given).weights,
        {"weights": FITTED.options["weights"], "sigmas": FITTED.sigmas},
        {"sigmas": ("schedule",), "weights": ("schedule",)},
    ),
    "scheduling.AMED": Call(
        lambda **given: (scheduling.AMED(**given).r, scheduling.AMED(**given).c),
        {"r": [0.4, 0.0], "c": [1.1, 0.9], "sigmas": [10.0, 1.0, 0.1]},
        {"r": ("c",), "c": ("r",), "sigmas": ("schedule",)},
    ),
    "scheduling.AMED.check": Call(
        scheduling.AMED([0.4, 0.0], [1.1, 0.9], [10.0, 1.0, 0.1]).check,
        {"sigmas": [10.0, 1.0, 0.1]},
        {"sigmas": ("schedule",)},
    ),
    "scheduling.FittedMultistep.check": Call(
        FITTED.make_solver().check, {"sigmas": FITTED.sigmas}, {"sigmas": ("schedule",)}
    ),
    "scheduling.Schedule": Call(
        lambda **given: scheduling.Schedule(**given).sigmas,  # without the error, NaN where it is not known
        {field.name: getattr(PLAIN, field.name) for field in dataclasses.fields(PLAIN)},
        {"solver": ("options",)},
    ),
    "scheduling.Schedule.to_diffusers": Call(
        PLAIN.to_diffusers,
        {
            **{"alphas_cumprod": torch.linspace(0.99, 0.01, 100, dtype=torch.float64), "flow": False},
            **{"scheduler": None, "mu": None},
        },
        {"alphas_cumprod": ("timestep",)},
    ),
    "scheduling.Schedule.shipped": Call(
        scheduling.Schedule.shipped,
        {"model": "edm-digits8", "solver": "fitted", "nfe": 6},
        {"nfe": ("no schedule",), "model": ("no schedule",), "solver": ("no schedule",)},
    ),
}
CALLS = {**GEOMETRY, **REGULARITY, **SCHEDULING}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named_or_the_answer_is_right(name):
    found = faults(CALLS[name])
    assert not found, f"{len(found)} faults\n" + "\n".join(found)

"""Every public function, class and method that takes arguments is tried with wrong ones, or it is said why not."""

import inspect

import pytest

from tests.fuzz import test_core, test_learned, test_paths, test_pictures
from tests.test_house import CLASSES, FUNCTIONS, TOOLS, part

CALLS = {**test_core.CALLS, **test_paths.CALLS, **test_pictures.CALLS, **test_learned.CALLS}
TRIED = {name.partition(",")[0] for name in CALLS}

WITHOUT = {
    "denoisers.Denoiser": "a protocol",
    "data.Dataset": "a pair of tensors that data.load made; what takes one checks it",
    "denoisers.DenoiserModule": "a base class; its methods are tried on those that inherit them",
    **{
        f"denoisers.DenoiserModule.{method}": "tried on the classes that inherit it"
        for method in ("forward", "log_prob", "sample", "score")
    },
    "edm.LearnedDenoiser": "a base class; its methods are tried on those that inherit them",
    "edm.LearnedDenoiser.coefficients": "tried on the classes that define it",
    "edm.LearnedDenoiser.forward": "tried on the classes that inherit it",
    "edm.LearnedDenoiser.raw": "tried on the classes that inherit it",
    "edm.LearnedDenoiser.round_sigma": "tried on the classes that inherit it",
    "files.cache_directory": "its argument is written in the code; what it reads is tried in test_environment",
    "files.held": "its arguments are written in the code; tried by processes in test_edm_checkpoints",
    "fingerprints.surroundings": "its arguments are written in the code",
    "launcher.Place": "a result",
    "launcher.Processes": "a result",
    "launcher.Processes.gather": "any value at all; tried by processes in test_evaluation",
    "launcher.processes": "its arguments are torch's to check; tried by processes in test_evaluation",
    "course.grading.Check": "what grading.register made of arguments that it checked",
    "course.grading.Result": "a result",
    **{f"course.outline.{name}": "a row of the list, written in the code" for name in ("Assignment", "Lesson")},
    **{f"course.outline.{name}": "tests/test_outline.py" for name in ("lesson", "name", "number")},
    "metrics.Estimate": "a result",
    "metrics.inception_features": "needs optional packages and the internet; its checks are those of digit_features",
    "course.plots.Picture": "a Figure of matplotlib",
    "course.plots.Picture.savefig": "matplotlib's",
    "course.plots.Picture.set": "matplotlib's",
    "renamed.attribute": "its argument is written in the code",
    "Trajectory.save": "tests/test_trajectory.py",
    "Trajectory.load": "tests/test_trajectory.py",
    "scheduling.Schedule.save": "tests/fuzz/test_files.py",
    "scheduling.Schedule.load": "tests/fuzz/test_files.py",
    "solvers.Solver.for_samples": "a base class, which uses none of its arguments",
    "solvers.Point": "made by the sampling loop, of what it checked",
    "course.widgets.Explorer.update": "called by widgets",
    "course.widgets.Prediction.compare": "called by widgets",
}


def called(cls: type) -> dict[str, object]:
    """The public methods that a class defines itself and that take arguments."""
    own = {name: getattr(cls, name) for name in vars(cls) if not name.startswith("_") and callable(getattr(cls, name))}
    return {n: m for n, m in own.items() if set(inspect.signature(m).parameters) - {"self"}}


def wanted() -> list[str]:
    names = [name for value, name in FUNCTIONS.items() if inspect.signature(value).parameters]
    for cls, name in CLASSES.items():
        if issubclass(cls, Exception):
            continue
        names += [name] if inspect.signature(cls).parameters else []
        # Steps of a solver are called by the sampling loop, and tried through its constructor's row.
        names += [f"{name}.{method}" for method in called(cls) if method not in ("step", "correct", "extra_repr")]
    return sorted(name.removeprefix("teachkit.") for name in names if part(name) not in TOOLS)


@pytest.mark.parametrize("name", wanted())
def test_every_public_name_is_tried_or_excused(name):
    assert (name in TRIED) != (name in WITHOUT), "neither tried nor excused, or both"


def test_no_excuse_is_for_what_is_not_there():
    assert set(WITHOUT) <= set(wanted())

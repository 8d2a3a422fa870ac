"""Searches under the conditions of sampling, what they cost, and teacher's paths that survive an interruption."""

import json
import math
import re
import warnings
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from teachkit import GaussianMixture, Trajectory, edm, initial_noise, metrics, sample, schedules, scheduling
from teachkit.fingerprints import fingerprint
from teachkit.scheduling import Schedule

F64 = torch.float64
FINDERS = {"find_schedule": scheduling.find_schedule, "fit_solver": scheduling.fit_solver}
each_search = pytest.mark.parametrize("find", FINDERS.values(), ids=FINDERS)


class Calls:
    """How many samples a model was asked about, call by call; no part of what tells one model from another."""

    def __init__(self):
        self.sizes = []

    def __reduce__(self):
        return "calls"


calls = Calls()


class Classes:
    """Three classes in closed form, each a mixture of two; labels alone or in a dict. Is interrupted when told to."""

    def __init__(self, shift=0.0, stop_after=math.inf):
        self.means = shift + 0.7 * torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
        self.stop_after = stop_after

    def __reduce__(self):  # what tells it from others: not when it is interrupted
        return Classes, (float(self.means[0, 0]),)

    def __call__(self, x, sigma, labels=None):
        calls.sizes.append(len(x))
        if len(calls.sizes) > self.stop_after:
            raise KeyboardInterrupt
        labels = labels["class"] if isinstance(labels, Mapping) else labels
        far = -(x[:, None] - self.means).square().sum(-1) / (2 * (0.2 + sigma**2))  # (B, 6)
        if labels is not None:
            far = far.masked_fill(torch.arange(6) // 2 != labels[:, None], -math.inf)
        return (far.softmax(1) @ self.means) * (sigma**2 / (0.2 + sigma**2)) + x * (0.2 / (0.2 + sigma**2))


@pytest.fixture(autouse=True)
def _no_calls_yet():
    calls.sizes.clear()


def warm_up(count=24, seed=0):
    return initial_noise(count, (6,), seed=seed), torch.arange(count) % 3


def evaluations():
    """Evaluations of one sample since the last time."""
    counted = sum(calls.sizes)
    calls.sizes.clear()
    return counted


# --- guidance, labels, threshold, batches -------------------------------------------------------------------------


@each_search
def test_what_is_found_at_a_guidance_is_better_there_and_warns_elsewhere(find):
    D, (x, labels), (fresh, theirs) = Classes(), warm_up(32), warm_up(192, seed=1)
    goal = sample(D, fresh, schedules.polynomial(150), "unipc", labels=theirs, guidance=4.0).final
    errors = {}
    for w in (1.0, 4.0):
        found = find(D, x, 4, labels={"class": labels}, guidance=w, grid=30)
        assert (found.guidance, found.make_solver().found_for_guidance) == (w, w)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            final = sample(D, fresh, found.sigmas, found.make_solver(), labels=theirs, guidance=4.0).final
        assert [str(one.message)[:50] for one in said] == ["this schedule was found for guidance 1 and is used"] * (
            w == 1
        )
        errors[w] = float((final - goal).square().mean(1).sqrt().mean())
    assert errors[4.0] < 0.9 * errors[1.0]


@each_search
def test_what_is_found_does_not_depend_on_the_batch(find):
    D, (x, labels) = Classes(), warm_up()
    asked = {"labels": {"class": labels}, "guidance": 4.0, "dynamic_threshold": 0.9, "grid": 12}
    whole, alone = find(D, x, 4, **asked), find(D, x, 4, **asked | {"labels": labels})
    spent = evaluations()
    parts = find(D, x, 4, **asked, batch=5)
    assert max(calls.sizes) == 5
    assert 2 * evaluations() == spent
    torch.testing.assert_close(parts.sigmas, whole.sigmas, rtol=1e-6, atol=0)
    assert parts.error == pytest.approx(whole.error, rel=1e-4)
    assert alone.sigmas.tolist() == whole.sigmas.tolist()
    assert {**parts.provenance, "rms_error": 0} == {**whole.provenance, "rms_error": 0}


@each_search
def test_the_threshold_is_that_of_the_search(find):
    """A denoiser that clips by itself is the same one: the same levels."""
    D, (x, labels) = Classes(), warm_up()

    def clipped(y, sigma, labels=None):
        out = D(y, sigma, labels)
        s = out.abs().quantile(0.8, dim=1, keepdim=True).clamp(min=1)
        return out.clamp(-s, s) / s

    found = find(D, x, 4, labels=labels, dynamic_threshold=0.8, grid=12)
    torch.testing.assert_close(found.sigmas, find(clipped, x, 4, labels=labels, grid=12).sigmas)
    assert not torch.allclose(found.sigmas, find(D, x, 4, labels=labels, grid=12).sigmas)


class Own:
    """A denoiser with a guidance of its own, which asks a network twice each time it is called."""

    evaluations, guidance = 2, 4.0

    def __call__(self, x, sigma, labels=None):
        return torch.lerp(Classes()(x, sigma), Classes()(x, sigma, labels), 4.0)


@each_search
def test_provenance_says_under_which_conditions_a_schedule_was_found(find):
    (x, labels), D = warm_up(), Classes()
    parts = {"class": labels, "prompt": torch.zeros(24, 7, 3), "time": torch.rand(24)}
    about = find(D, x, 3, labels=parts, guidance=2, dynamic_threshold=0.9, grid=6).provenance
    assert about["labels"] == {"class": {"0": 8, "1": 8, "2": 8}, "prompt": "shape (24, 7, 3)", "time": "shape (24,)"}
    assert (about["guidance"], about["dynamic_threshold"]) == (2.0, 0.9)
    about = find(D, x, 3, grid=6).provenance
    assert (about["labels"], about["guidance"], about["dynamic_threshold"]) == (None, None, None)
    evaluations()
    own = find(Own(), x, 3, labels=labels, grid=12)
    assert (own.guidance, own.nfe, own.provenance["teacher_evaluations"]) == (4.0, 3, 2 * 12 * 24)
    assert own.provenance["evaluations"] == evaluations() <= 10 * own.provenance["teacher_evaluations"]
    given = find(D, x, 3, labels=labels, guidance=4.0, grid=12)
    torch.testing.assert_close(own.sigmas, given.sigmas)


def test_a_schedule_knows_its_guidance_where_its_provenance_says_it():
    made = [Schedule([80.0, 1.0, 0.1], "euler", 2, provenance=p) for p in ({}, {"guidance": None}, {"guidance": 3})]
    assert [one.guidance for one in made] == [one.make_solver().found_for_guidance for one in made] == [None, 1.0, 3.0]
    with pytest.raises(TypeError, match="guidance in provenance must be a finite number, got 'much'"):
        Schedule([80.0, 1.0], "euler", 1, provenance={"guidance": "much"})
    assert Schedule.shipped("edm-digits8", "fitted", 6).guidance == 1.0


@pytest.mark.slow
def test_the_solver_of_the_first_picture_was_fitted_to_the_network_that_ships():
    """Five evaluations of it come nearer than twenty of Euler's method, on noise that it was not fitted to."""
    D, found = edm.load("edm-emoji"), Schedule.shipped("edm-emoji", "fitted", 5)
    assert found.provenance["model"]["fingerprint"] == fingerprint(D)[:16]
    x, labels = initial_noise(4, (3, 32, 32), seed=100).float(), torch.arange(4)
    end = sample(D, x, schedules.polynomial(40), "unipc", labels=labels).final
    ways = (found.sigmas, found.make_solver()), (schedules.polynomial(20), "euler")
    own, euler = (metrics.error_to_reference(sample(D, x, *w, labels=labels).final, end).mean() for w in ways)
    assert own < euler


@each_search
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dynamic_threshold": 0.0}, "dynamic_threshold must be a finite number > 0 and <= 1"),
        ({"batch": 0}, "batch must be an integer >= 1"),
        ({"labels": {"class": torch.zeros(3)}}, r"labels\['class'\] must be a tensor with one entry per sample"),
        ({"guidance": 2.0}, "guidance needs labels"),
        ({"teacher": "paths.bin"}, "teacher must be a file that ends in .safetensors"),
        ({"teacher": "absent/paths.safetensors"}, "teacher must be a file in a folder that exists"),
        ({"progress": "bar"}, "progress must be True, False or 'cost', got 'bar'"),
    ],
)
def test_wrong_conditions_are_named_before_any_evaluation(find, wrong, message):
    with pytest.raises(ValueError, match=message):
        find(Classes(), warm_up()[0], 3, **wrong)
    assert not calls.sizes


# --- what it costs ------------------------------------------------------------------------------------------------


def test_the_cost_is_said_early_and_the_bar_runs_over_all(capsys):
    D, (x, labels) = Classes(), warm_up()
    said = []

    def watching(y, sigma, labels=None):
        said.append(capsys.readouterr().err)
        return D(y, sigma, labels)

    scheduling.find_schedule(watching, x, 4, labels=labels, guidance=2.0, grid=12, batch=6, progress="cost")
    lines = [(i, text) for i, text in enumerate(said) if text]
    (at, line), *more = lines
    assert not more
    assert re.fullmatch(r"limit of 1,728 evaluations, 576 of them by the teacher: about [\d,]+ s\n", line)
    assert at == 4  # after two steps of the teacher, each asking with labels and without, of the first six samples
    assert capsys.readouterr().err == ""
    D.stop_after = 7
    calls.sizes.clear()
    with pytest.raises(KeyboardInterrupt):
        scheduling.fit_solver(D, x, 4, labels=labels, grid=12, batch=6, progress=True)
    shown = capsys.readouterr().err
    assert re.search(r"[1-9]\d*/2880 ", shown)  # it was the teacher who was interrupted


def test_the_paths_of_a_teacher_say_what_they_cost(capsys):
    paths = scheduling.teacher_paths(Classes(), warm_up()[0], grid=6, progress="cost")
    assert re.fullmatch(r"144 evaluations: about [1-9]\d* s\n", capsys.readouterr().err)
    assert paths.nfe == 6


# --- paths that are kept ------------------------------------------------------------------------------------------


@each_search
@pytest.mark.parametrize("asked_in", [7, None], ids=["in sevens", "all at once"])
def test_an_interruption_loses_one_batch_and_the_same_call_goes_on(find, asked_in, tmp_path):
    (x, labels), file = warm_up(), tmp_path / "paths.safetensors"
    asked = {"labels": {"class": labels}, "guidance": 4.0, "grid": 12, "batch": asked_in}
    expected = find(Classes(), x, 4, **asked)
    whole = evaluations()
    size = asked_in or 8  # without a batch size, an eighth of the samples, and 8 at least
    stop = 2 * 12 * 2 + 5  # two batches and some of the third, each of 12 steps with labels and without
    with pytest.raises(KeyboardInterrupt):
        find(Classes(stop_after=stop), x, 4, **asked, teacher=file)
    assert Trajectory.load(file).x.shape == (13, 2 * size, 6)
    evaluations()
    found = find(Classes(), x, 4, **asked, teacher=file)
    assert evaluations() == whole - 2 * 12 * 2 * size
    torch.testing.assert_close(found.sigmas, expected.sigmas, rtol=1e-6, atol=0)
    assert found.provenance["evaluations"] == expected.provenance["evaluations"] == whole
    again = find(Classes(), x, 4, **asked, teacher=str(file))
    assert evaluations() == whole - found.provenance["teacher_evaluations"]
    assert again == found
    assert [path.name for path in tmp_path.iterdir()] == ["paths.safetensors"]


def test_kept_paths_are_those_of_the_teacher_and_a_trajectory(tmp_path):
    (x, labels), file = warm_up(), tmp_path / "paths.safetensors"
    asked = {"labels": labels, "guidance": 2.0, "grid": 8}
    paths = scheduling.teacher_paths(Classes(), x, **asked)
    kept = scheduling.teacher_paths(Classes(), x, **asked, file=file)
    for name in ("sigmas", "x", "denoised"):
        torch.testing.assert_close(getattr(kept, name), getattr(paths, name))
    assert Trajectory.load(file) == kept == scheduling.teacher_paths(Classes(), x, **asked, file=file)
    assert kept.nfe == paths.nfe == 16


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"denoiser": Classes(shift=1.0)}, "other model;"),
        (
            {"denoiser": GaussianMixture([1.0], torch.zeros(1, 6, dtype=F64), [0.1]), "labels": None, "guidance": None},
            "model, ",
        ),
        ({"x": warm_up(seed=1)[0]}, "other noise x;"),
        ({"grid": 9}, r"levels \(8 steps from 80.0 to 0.002 there, 9 steps from 80.0 to 0.002 here\)"),
        ({"sigma_min": 0.01}, r"levels \(8 steps from 80.0 to 0.002 there, 8 steps from 80.0 to 0.01 here\)"),
        ({"labels": torch.ones(24, dtype=torch.int64)}, "other labels;"),
        ({"labels": {"class": torch.arange(24) % 3}}, "other labels;"),
        ({"guidance": 4.0}, r"guidance \(2.0 there, 4.0 here\)"),
        ({"dynamic_threshold": 0.9}, r"dynamic_threshold \(None there, 0.9 here\)"),
    ],
)
def test_paths_of_something_else_are_refused_by_what_differs(other, differs, tmp_path):
    (x, labels), file = warm_up(), tmp_path / "paths.safetensors"
    asked = {"denoiser": Classes(), "x": x, "labels": labels, "guidance": 2.0, "grid": 8}
    scheduling.teacher_paths(**asked, file=file)
    before = file.read_bytes()
    calls.sizes.clear()
    with pytest.raises(ValueError, match=rf"teacher: .*paths\.safetensors holds paths of .*{differs}"):
        scheduling.find_schedule(**asked | other, nfe=4, teacher=file)
    assert not calls.sizes
    assert file.read_bytes() == before


def test_what_holds_no_such_paths_is_refused(tmp_path):
    x, file = warm_up()[0], tmp_path / "paths.safetensors"
    scheduling.teacher_paths(Classes(), x, grid=4).save(file)
    with pytest.raises(ValueError, match="does not say whose paths it holds; load it, and give the Trajectory"):
        scheduling.find_schedule(Classes(), x, 4, teacher=file)
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match="file is a file that holds no paths"):
        scheduling.teacher_paths(Classes(), x, file=file)
    with (
        (tmp_path / "open").open("w") as handle,
        pytest.raises(TypeError, match="teacher cannot be a file for this denoiser"),
    ):
        scheduling.find_schedule(lambda y, sigma: (handle, y)[1], x, 4, teacher=tmp_path / "new.safetensors")


class Placed(nn.Module):
    """A model that lies somewhere, and takes only what lies there."""

    def __init__(self, place):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=F64, device=place))

    def forward(self, x, sigma, labels=None):
        calls.sizes.append(len(x))
        assert x.device == self.weight.device
        return x * (0.3 / (0.3 + sigma**2))


@each_search
def test_paths_lie_on_the_cpu_and_only_batches_go_to_the_model(find, monkeypatch):
    D, x = Placed("cpu"), warm_up()[0]
    moved = []
    to = torch.Tensor.to

    def noted(self, *where, **how):
        if where == (torch.device("cpu"),) and self.ndim == 2:
            moved.append(len(self))
        return to(self, *where, **how)

    monkeypatch.setattr(torch.Tensor, "to", noted)
    found = find(D, x, 4, grid=12, batch=5)
    assert max(calls.sizes) == max(moved) == 5
    assert found.nfe == 4
    with pytest.raises(ValueError, match="give batch= to have x brought there"):
        find(Placed("meta"), x, 4, grid=12)


def test_provenance_is_plain(tmp_path):
    (x, labels), file = warm_up(), tmp_path / "s.json"
    found = scheduling.find_schedule(Classes(), x, 3, labels={"class": labels}, guidance=2.0, grid=6)
    found.save(file)
    assert Schedule.load(file) == found
    assert json.loads(file.read_text())["provenance"]["labels"] == {"class": {"0": 8, "1": 8, "2": 8}}

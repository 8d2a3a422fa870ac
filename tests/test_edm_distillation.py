"""Distillation: targets exact where the teacher is, runs that resume to the bit, and the networks that ship."""

import dataclasses
import hashlib
import json
import math
import signal
import warnings

import pytest
import torch
from typer.testing import CliRunner

from teachkit import Gaussian, data, edm, initial_noise, metrics, sample, schedules, scheduling
from teachkit.cli import app
from teachkit.edm.distillation import DISTILLATIONS, Distillation, Distilling, distil, student_of
from teachkit.launcher import Processes

pytestmark = pytest.mark.usefixtures("warm")
ALONE = Processes(0, 1, torch.device("cpu"))
SIZE = {
    "img_resolution": 8, "img_channels": 1, "label_dim": 10, "augment_dim": 4, "model_channels": 8,
    "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": (), "dropout": 0.3,
}  # fmt: skip
TINY = Distillation(nfe=2, teacher_steps=4, paths=32, images=48, batch=8, warmup=0, ema_half_life=16)


@pytest.fixture(scope="module")
def teacher():
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = edm.EDMPrecond(sigma_data=0.75, **SIZE)
        for part in net.parameters():
            part.normal_().mul_(0.1)
    return net.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def by_ipndm(monkeypatch):
    """Four steps are no shipped solver's."""
    for_any = Distillation.teacher_sampler

    def own(recipe):
        return for_any(dataclasses.replace(recipe, solver="ipndm") if recipe.teacher_steps < 6 else recipe)

    monkeypatch.setattr(Distillation, "teacher_sampler", own)


@pytest.fixture
def quickly(monkeypatch):
    """Validation is tested by itself."""
    monkeypatch.setattr(Distilling, "validate", lambda self, loss: None)


def weights(denoiser):
    return torch.cat([p.detach().flatten() for p in denoiser.parameters()])


# --- What is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"nfe": 0}, "nfe"), ({"nfe": 3}, "teacher_steps must be a multiple of nfe, 3, got 4"),
        ({"paths": 12}, "paths must be a multiple of batch, 8, got 12"),
        ({"solver": "heum"}, "solver"), ({"teacher_steps": 0}, "teacher_steps"), ({"images": 0}, "images"),
        ({"batch": 0}, "batch"), ({"learning_rate": 0.0}, "learning_rate"), ({"label_dropout": 2.0}, "label_dropout"),
        ({"seed": -1}, "seed"), ({"precision": "int8"}, "precision"), ({"ema_half_life": math.nan}, "ema_half_life"),
    ],
)  # fmt: skip
def test_recipes_refuse_what_makes_no_run(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(TINY, **change)


def test_what_cannot_be_distilled_is_refused_before_the_first_step(tmp_path, teacher):
    folder = tmp_path / "run"
    with pytest.raises(TypeError, match="recipe must be a Distillation"):
        distil("digits8-1step", folder)
    with pytest.raises(TypeError, match="teacher must be an EDMPrecond of all noise levels"):
        distil(TINY, folder, teacher=student_of(teacher, [80.0, 0.002]))
    with pytest.raises(TypeError, match="teacher must be an EDMPrecond"):
        distil(TINY, folder, teacher=edm.VPPrecond(**SIZE))
    with pytest.raises(FileNotFoundError, match="edm-digits9"):
        distil(dataclasses.replace(TINY, teacher="edm-digits9"), folder)
    with pytest.raises(FileNotFoundError, match="no schedule edm-digits8-fitted-7 ships"):
        distil(dataclasses.replace(TINY, nfe=1, teacher_steps=7), folder, teacher=teacher)
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        Distilling(TINY, folder, Processes(0, 3, torch.device("cpu")), teacher)
    assert not folder.exists()


# --- What is learned --------------------------------------------------------------------------------------------------


def test_targets_are_where_an_exact_teacher_goes(tmp_path, teacher):
    """Of one Gaussian the paths are known: each direction shrinks by sqrt((lam + s'^2) / (lam + s^2))."""
    variance = torch.linspace(0.05, 2.0, 64, dtype=torch.float64)
    exact = Gaussian(torch.zeros(64, dtype=torch.float64), variance)
    recipe = dataclasses.replace(TINY, teacher_steps=1000, solver="heun", label_dropout=1.0)
    run = Distilling(recipe, tmp_path, ALONE, teacher)
    run.teacher = lambda x, sigma, labels=None: exact(x.double().flatten(1), sigma).reshape(x.shape).to(x.dtype)
    states, vectors = run.states(0)
    assert states.shape == (3, 8, 1, 8, 8)
    assert vectors.shape == (8, 10)
    s = schedules.polynomial(2)
    assert run.levels == pytest.approx(s.tolist())
    shrunk = ((variance + s[1:, None, None] ** 2) / (variance + s[0] ** 2)).sqrt() * states[0].double().flatten(1)
    torch.testing.assert_close(states[1:].double().flatten(2), shrunk, rtol=0, atol=2e-4)


def test_a_step_has_the_gradient_of_the_written_loss(tmp_path, teacher):
    """Two steps of Euler from the student's own states, the second without a gradient to the first."""
    run = Distilling(TINY, tmp_path, ALONE, teacher)
    run.step = 5  # the second batch once more: there are four different ones
    states, vectors = run.states(1)
    total = run._accumulate_gradients()
    twin = student_of(teacher, run.levels)
    (s0, s1, s2), zeros = run.levels, torch.zeros(8, 4)
    first = s1 / s0 * states[0] + (1 - s1 / s0) * twin(states[0], s0, vectors, augment_labels=zeros)
    second = s2 / s1 * first.detach() + (1 - s2 / s1) * twin(first.detach(), s1, vectors, augment_labels=zeros)
    loss = (first - states[1]).abs().mean() + (second - states[2]).abs().mean()
    loss.backward()
    assert float(total) == pytest.approx(loss.item(), rel=1e-5)
    for own, other in zip(run.denoiser.parameters(), twin.parameters()):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)
    assert [name for name, p in run.denoiser.named_parameters() if p.grad is None] == []  # processes wait for all


def test_without_learning_the_student_is_the_teacher(teacher):
    twin = student_of(teacher, [80.0, 1.0, 0.002])
    assert torch.equal(weights(twin), weights(teacher))
    assert (twin.levels, twin.sigma_min, twin.sigma_max) == ((80.0, 1.0, 0.002), 0.002, 80.0)
    assert (twin.config["dropout"], twin.sigma_data) == (0.0, 0.75)
    x = initial_noise(3, (1, 8, 8), dtype=torch.float32)
    assert torch.equal(twin.eval()(x, 80.0), teacher(x, 80.0))


def test_noise_that_others_draw_is_never_trained_on(tmp_path, teacher):
    run = Distilling(TINY, tmp_path, ALONE, teacher)
    trained = torch.cat([run.states(k)[0][0] for k in range(4)])
    usual = torch.cat([initial_noise(64, (1, 8, 8), seed=s, dtype=torch.float32) for s in range(3)])
    assert len(trained.flatten(1).unique(dim=0)) == 32
    assert float(torch.cdist(trained.flatten(1), usual.flatten(1)).min()) > 80


def test_processes_take_shares_of_the_same_batch(tmp_path, teacher):
    whole, vectors = Distilling(TINY, tmp_path, ALONE, teacher).states(2)
    runs = [Distilling(TINY, tmp_path, Processes(rank, 2, ALONE.device), teacher) for rank in range(2)]
    shares = [run.states(2) for run in runs]
    assert torch.equal(torch.cat([v for _, v in shares]), vectors)
    assert torch.equal(torch.cat([states[0] for states, _ in shares], 0), whole[0])
    torch.testing.assert_close(torch.cat([states for states, _ in shares], 1), whole)


# --- Runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("change", [{}, {"nfe": 1}, {"precision": "bfloat16"}, {"label_dropout": 1.0}], ids=str)
def test_a_run_that_stops_on_the_way_ends_with_the_same_bits(tmp_path, teacher, change):
    recipe = dataclasses.replace(TINY, **change)
    whole = distil(recipe, tmp_path / "whole", teacher=teacher, progress=False)
    for stop in (1, 5):
        distil(recipe, tmp_path / "parts", teacher=teacher, progress=False, stop_after=stop)
    parts = distil(recipe, tmp_path / "parts", teacher=teacher, progress=False)
    assert torch.equal(weights(whole), weights(parts))
    assert not torch.equal(weights(whole), weights(teacher))
    assert not any(p.requires_grad for p in whole.parameters())


@pytest.fixture
def interruptible():
    """Ctrl-C raises, which it does not in a job of the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("quickly", "interruptible")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved(tmp_path, teacher, monkeypatch, sent):
    step = Distilling.train_step

    def interrupt(run):
        loss = step(run)
        if run.step == 2:
            signal.raise_signal(sent)
        return loss

    monkeypatch.setattr(Distilling, "train_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        distil(TINY, tmp_path / "run", teacher=teacher, progress=False)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 2
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("quickly")
def test_a_folder_of_another_recipe_or_teacher_is_refused(tmp_path, teacher):
    distil(TINY, tmp_path, teacher=teacher, progress=False, stop_after=0)
    with pytest.raises(ValueError, match="another recipe"):
        distil(dataclasses.replace(TINY, seed=1), tmp_path, teacher=teacher, progress=False)
    with pytest.raises(ValueError, match="another recipe"):
        distil(TINY, tmp_path, teacher=student_teacher(teacher), progress=False)


@pytest.mark.usefixtures("quickly")
def test_the_command_distils_and_does_nothing_twice(tmp_path):
    arguments = ["train", "digits8-1step", "--images", "256", "--run-dir", str(tmp_path), "--device", "cpu"]
    for _ in range(2):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2


def student_teacher(teacher):
    other = edm.EDMPrecond(**teacher.config)
    other.load_state_dict({name: 0.5 * value for name, value in teacher.state_dict().items()})
    return other


@pytest.mark.usefixtures("quickly")
def test_unconditional_networks_are_distilled_too(tmp_path):
    net = edm.EDMPrecond(**{**SIZE, "label_dim": 0, "augment_dim": 0})
    D = distil(TINY, tmp_path, teacher=net, progress=False, stop_after=2)
    assert D.label_dim == 0
    assert weights(D).isfinite().all()


def test_a_run_comes_nearer_to_its_teacher_and_says_so(tmp_path, teacher):
    recipe = dataclasses.replace(TINY, images=8 * 60, learning_rate=3e-3, validate_every=8 * 60)
    start = Distilling(recipe, tmp_path / "start", ALONE, teacher)
    (tmp_path / "start").mkdir()
    start.validate(1.0)
    distil(recipe, tmp_path, teacher=teacher, progress=False)
    before, after = (
        json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("start", ".")
    )
    assert after["images"] == 480
    assert list(after["held_out"]) == ["2.515", "0.002"]
    assert after["held_out"]["0.002"] < 0.8 * before["held_out"]["0.002"]
    assert (tmp_path / "samples-000000480.png").read_bytes().startswith(b"\x89PNG")


# --- Levels -----------------------------------------------------------------------------------------------------------


def test_a_distilled_network_keeps_its_levels_in_a_file(tmp_path, teacher):
    student = student_of(teacher, [80.0, 1.0, 0.002])
    path = edm.save(student, tmp_path / "student.safetensors", torch.float16)
    again = edm.load(path)
    assert again.distilled
    assert again.levels == student.levels
    assert type(again)(**again.config).levels == student.levels
    assert not edm.load("edm-digits8").distilled


@pytest.mark.parametrize("levels", [[80.0], [1.0, 2.0], [80.0, 0.0], [90.0, 1.0], [2.0, 2.0], [math.nan, 1.0]])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(ValueError, match="levels"):
        edm.EDMPrecond(**SIZE, levels=levels, sigma_max=80.0)


def test_sampling_elsewhere_than_at_the_levels_is_warned_of(teacher):
    student = student_of(teacher, [80.0, 1.0, 0.002]).eval()
    x = initial_noise(2, (1, 8, 8), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(student, x, student.levels)
        sample(student, x, [80.0, 1.0, 0.5])  # evaluated at its levels
    with pytest.warns(UserWarning, match=r"distilled for Euler's method at \[80.0, 1.0, 0.002\]"):
        sample(student, x, [80.0, 2.0, 0.002])
    with pytest.warns(UserWarning, match="distilled"):
        sample(student, x, student.levels, "ipndm")


# --- The networks that ship -------------------------------------------------------------------------------------------

FIGURES = data.directory() / "edm-digits8-distilled.json"
SHIPPED = {int(name[8]): f"edm-{name}" for name in DISTILLATIONS}


@pytest.fixture(scope="module")
def found():
    return json.loads(FIGURES.read_text())


@pytest.fixture(scope="module")
def fresh():
    """Noise of a seed that nothing else uses, classes in turn, and where the teacher's paths end."""
    x, labels = initial_noise(200, (1, 8, 8), seed=98765, dtype=torch.float32), torch.arange(200) % 10
    teacher = edm.load("edm-digits8")
    ends = sample(teacher, x, schedules.polynomial(40), "unipc", labels=labels, keep="final").final
    return teacher, x, labels, ends


def error(ends, images):
    return float(metrics.error_to_reference(images, ends).mean())


@pytest.mark.parametrize("nfe", SHIPPED)
def test_shipped_networks_are_small_listed_and_of_the_committed_recipe(nfe):
    path = data.verify(f"{SHIPPED[nfe]}.safetensors")
    said = edm.checkpoints.metadata(path)
    recipe = DISTILLATIONS[SHIPPED[nfe].removeprefix("edm-")]
    assert path.stat().st_size < 1e6
    assert (Distillation(**json.loads(said["recipe"])), said["dtype"]) == (recipe, "float16")
    denoiser = edm.load(SHIPPED[nfe])
    assert len(denoiser.levels) == nfe + 1 == recipe.nfe + 1
    assert list(denoiser.levels) == recipe.teacher_sampler()[1][:: recipe.teacher_steps // nfe].tolist()
    assert (denoiser.sigma_max, denoiser.sigma_min) == (80.0, 0.002)
    row = [line for line in (data.directory() / "README.md").read_text().splitlines() if f"| `{path.name}`" in line]
    assert len(row) == 1
    assert f"{path.stat().st_size:,}" in row[0]
    assert hashlib.sha256(path.read_bytes()).hexdigest() in row[0]


@pytest.mark.parametrize("nfe", SHIPPED)
def test_shipped_networks_beat_the_solvers_of_the_teacher(nfe, fresh):
    """At one and two evaluations by a margin; at four the fitted solver is nearly as good: see the card."""
    teacher, x, labels, ends = fresh
    student = edm.load(SHIPPED[nfe])
    path = sample(student, x, student.levels, labels=labels)
    assert path.nfe == nfe
    away = error(ends, path.final)
    assert away < 0.35 * error(ends, sample(teacher, x, student.levels, labels=labels).final)
    if nfe == 2:
        warm_up = initial_noise(64, (1, 8, 8), seed=55, dtype=torch.float32)
        fitted = scheduling.fit_solver(teacher, warm_up, nfe, labels=torch.arange(64) % 10)
        best = sample(teacher, x, fitted.sigmas, fitted.make_solver(), labels=labels).final
        assert away < 0.5 * error(ends, best)


def test_the_card_says_what_is_measured(found, fresh):
    """A line of it anew: how far one evaluation leads astray, within the standard error, and how varied samples are."""
    _, x, labels, ends = fresh
    said = found["rows"]["1, distilled"]
    student = edm.load(SHIPPED[1])
    off = metrics.error_to_reference(sample(student, x, student.levels, labels=labels).final, ends)
    assert float(off.mean()) == pytest.approx(said["mean"], abs=4 * float(off.std()) / len(off) ** 0.5)
    noise = initial_noise(found["count"], (1, 8, 8), seed=1234, dtype=torch.float32)
    classes = torch.arange(found["count"]) % 10
    images = sample(student, noise, student.levels, labels=classes, batch=512, keep="final").final
    pairs = [torch.pdist(images[classes == k].flatten(1).double()).mean() / 8 for k in range(10)]
    assert float(torch.stack(pairs).mean()) == pytest.approx(said["spread"], rel=1e-3)
    text = FIGURES.with_suffix(".md").read_text()
    assert f"| 1 | distilled | {said['mean']:.4f} ± {said['standard_error']:.4f} | {said['median']:.4f} |" in text
    for nfe, name in SHIPPED.items():
        said = found["files"][name.removeprefix("edm-")]
        assert said["bytes"] == (FIGURES.parent / f"{name}.safetensors").stat().st_size
        assert len(said["levels"]) == nfe + 1


def test_a_distilled_network_is_no_denoiser_between_its_levels(fresh):
    teacher, x, labels, _ = fresh
    path = sample(teacher, x, schedules.polynomial(12), "unipc", labels=labels)
    student, at = edm.load(SHIPPED[1]), int((path.sigmas - 3.0).abs().argmin())
    sigma = float(path.sigmas[at])
    assert error(path.denoised[at], student(path.x[at], sigma, labels)) > 0.1
    assert torch.equal(teacher(path.x[at], sigma, labels), path.denoised[at])

"""Training: runs that end with the same bits after stops and kills, on one process or two, and the models that ship."""

import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from teachkit import data, edm, metrics, sample
from teachkit.edm import runs, training
from teachkit.edm.loss import AUGMENT_DIM, edm_loss, validation_loss
from teachkit.edm.recipes import RECIPES, Recipe, learning_rate, make_denoiser
from teachkit.edm.runs import Run
from teachkit.edm.training import load_ema, train
from teachkit.launcher import Processes
from teachkit.noise import initial_noise
from teachkit.schedules import polynomial

pytestmark = pytest.mark.usefixtures("warm")
TINY = Recipe(
    data="digits8",
    network={
        "img_resolution": 8, "img_channels": 1, "label_dim": 10, "augment_dim": AUGMENT_DIM, "model_channels": 8,
        "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": (), "dropout": 0.2, "model_type": "SongUNet",
    },
    images=16 * 12, batch=16, warmup=32, ema_half_life=64, augment=0.5, validate_every=10**9,
)  # fmt: skip
ALONE = Processes(0, 1, torch.device("cpu"))
SLOWLY = """
import json, sys
import teachkit.edm.training as training
from teachkit.edm.recipes import Recipe
from teachkit.edm.training import train
options = json.loads(sys.argv[1])
options["network"]["channel_mult"] = tuple(options["network"]["channel_mult"])
train(Recipe(**options), sys.argv[2], checkpoint_seconds=float(sys.argv[3]), progress=False)
"""


@pytest.fixture(autouse=True)
def quick_validation(monkeypatch):
    """Validation is tested by itself; elsewhere it would cost more than the training."""
    monkeypatch.setattr(Run, "validate", lambda self, loss, sigmas: None)


def weights(denoiser):
    return torch.cat([p.detach().flatten() for p in denoiser.parameters()])


def program(recipe, folder, seconds=60.0, processes=1):
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = folder.parent / "slowly.py"
    script.write_text(SLOWLY)
    return [*launcher, str(script), json.dumps(dataclasses.asdict(recipe)), str(folder), str(seconds)]


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schedule": "linear"}, "schedule"), ({"precision": "int8"}, "precision"), ({"images": 0}, "images"),
        ({"batch": -2}, "batch"), ({"micro_batch": 17}, "micro_batch"), ({"sigma_data": 0.0}, "sigma_data"),
        ({"learning_rate": math.nan}, "learning_rate"), ({"label_dropout": 1.5}, "label_dropout"),
        ({"ema_half_life": -1}, "ema_half_life"), ({"network": {}}, "augment"), ({"seed": 2**62}, "seed"),
    ],
)  # fmt: skip
def test_recipes_refuse_what_makes_no_run(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(TINY, **change)


def test_a_recipe_made_from_another_shares_nothing_with_it():
    other = dataclasses.replace(TINY, images=32)
    other.network["model_channels"] = 16
    assert TINY.network["model_channels"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"network": {**TINY.network, "label_dim": 5}},
            "label_dim 0, or at least 10 for the classes of 'digits8', got 5",
        ),
        ({"network": {**TINY.network, "img_resolution": 16}}, r"of shape \(1, 8, 8\), got one for \(1, 16, 16\)"),
        ({"network": {**TINY.network, "img_channels": 3}}, r"of shape \(1, 8, 8\), got one for \(3, 8, 8\)"),
        ({"data": "two_moons"}, r"the data 'two_moons' of shape \(2,\)"),
        ({"data": "digits9"}, "unknown data set 'digits9'"),
        ({"network": {**TINY.network, "channel_mult": (0,)}}, "channel_mult"),
    ],
)
def test_a_recipe_that_cannot_train_is_refused_before_the_first_step(tmp_path, change, message):
    recipe = dataclasses.replace(TINY, **change)
    with pytest.raises(ValueError, match=message):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_recipe_holds_plain_values():
    with pytest.raises(TypeError, match="network and tags must hold plain values"):
        dataclasses.replace(TINY, network={**TINY.network, "dropout": torch.tensor(0.2)})


@pytest.mark.skipif(os.name != "posix", reason="folders as POSIX has them")
def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Run, "train_step", lambda self: pytest.fail("a step was made"))
    with pytest.raises(OSError, match="file"):
        train(TINY, tmp_path / "file" / "run", progress=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"run_dir .* cannot be written"):
        train(TINY, tmp_path / "run", progress=False)


def test_more_classes_than_the_data_have_are_drawn_too(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(training, "validation_sigmas", lambda: torch.tensor([1.0]))
    monkeypatch.setattr(runs, "polynomial", lambda n: polynomial(2))
    recipe = dataclasses.replace(TINY, network={**TINY.network, "label_dim": 12}, images=16, validate_every=16)
    train(recipe, tmp_path, progress=False)
    assert (tmp_path / "samples-000000016.png").is_file()


def test_the_largest_seed_trains(tmp_path):
    recipe = dataclasses.replace(TINY, seed=2**42, images=2**20)
    Run(recipe, tmp_path, ALONE).train_step()


def test_half_a_batch_is_no_batch():
    with pytest.raises(TypeError, match=r"batch must be an integer >= 1, got 2\.5"):
        dataclasses.replace(TINY, batch=2.5)


# --- Runs -------------------------------------------------------------------------------------------------------------


def test_a_run_stopped_and_resumed_ends_with_the_same_bits(tmp_path):
    """With dropout, augmentation and dropped labels, and whatever the global generator does."""
    whole = train(TINY, tmp_path / "whole", progress=False)
    for stop in (1, 5, None):
        torch.manual_seed(time.time_ns() % 2**31)
        parts = train(TINY, tmp_path / "parts", progress=False, stop_after=stop)
    assert torch.equal(weights(whole), weights(parts))
    assert torch.equal(weights(load_ema(TINY, tmp_path / "parts")), weights(whole))
    assert not torch.equal(weights(whole), weights(make_denoiser(TINY)))
    assert not parts.training
    other = train(dataclasses.replace(TINY, seed=1), tmp_path / "other", progress=False)
    assert not torch.equal(weights(whole), weights(other))


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(TINY, tmp_path, progress=False, stop_after=2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    train(TINY, tmp_path, progress=False, stop_after=1)
    with pytest.raises(ValueError, match="another recipe"):
        train(dataclasses.replace(TINY, seed=1), tmp_path, progress=False)
    other = dataclasses.replace(TINY, network={**TINY.network, "model_channels": 16})
    with pytest.raises(ValueError, match="another network"):
        load_ema(other, tmp_path)
    with pytest.raises(ValueError, match="sigma_data"):
        load_ema(dataclasses.replace(TINY, sigma_data=2.0), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    train(TINY, tmp_path, progress=False, stop_after=2)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(runs, "edm_loss", lambda *a, **k: edm_loss(*a, **k) * math.nan)
    with pytest.raises(FloatingPointError, match="step 2"):
        train(TINY, tmp_path, progress=False)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


@pytest.mark.parametrize("where", ["torch.save", "os.fsync", "os.replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, where):
    train(TINY, tmp_path, progress=False, stop_after=1)
    kept = (tmp_path / "checkpoint.pt").read_bytes()

    def full(*arguments):
        if where == "torch.save":
            arguments[1].write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(where, full)
    with pytest.raises(OSError, match="no space"):
        train(TINY, tmp_path, progress=False, stop_after=2)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_the_scale_of_float16_gradients_survives_a_stop(tmp_path):
    recipe = dataclasses.replace(TINY, precision="float16")
    made = [Run(recipe, tmp_path, ALONE) for _ in range(2)]
    made[0].scaler.scale(torch.ones(()))
    made[0].scaler.update(8.0)
    made[0].save()
    made[1].resume()
    assert made[1].scaler.get_scale() == 8


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    exact = dataclasses.replace(TINY, network={**TINY.network, "dropout": 0.0}, images=16 * 3)
    parts = dataclasses.replace(exact, micro_batch=5)
    a, b = (weights(train(r, tmp_path / str(r.micro_batch), progress=False)) for r in (exact, parts))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_learning_rate_warms_up_and_falls_as_a_cosine(tmp_path):
    recipe = dataclasses.replace(TINY, images=16 * 100, warmup=160)
    rates = [learning_rate(recipe, step) / TINY.learning_rate for step in range(100)]
    run = Run(recipe, tmp_path, ALONE)
    run.train_step()
    assert run.optimiser.param_groups[0]["lr"] == learning_rate(recipe, 0)
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-3)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_average_forgets_at_the_stated_half_life(tmp_path):
    run = Run(dataclasses.replace(TINY, ema_ramp=1e9), tmp_path, ALONE)
    with torch.no_grad():
        start = weights(run.ema).clone()
        for p in run.denoiser.parameters():
            p.add_(1.0)
    for run.step in range(1, TINY.ema_half_life // TINY.batch + 1):
        run._average()
    torch.testing.assert_close(weights(run.ema), start + 0.5, rtol=0, atol=1e-5)


def test_average_follows_closely_at_first(tmp_path):
    """After one step of 16 images the half-life is 0.05 * 16 of them: 20 half-lives, 2^-20 of the start is left."""
    run = Run(TINY, tmp_path, ALONE)
    with torch.no_grad():
        for p in run.denoiser.parameters():
            p.add_(1.0)
    run.step = 1
    run._average()
    torch.testing.assert_close(weights(run.ema), weights(run.denoiser), rtol=0, atol=2e-6)


def test_labels_are_dropped_at_the_stated_rate(tmp_path):
    run = Run(dataclasses.replace(TINY, batch=4000, label_dropout=0.25), tmp_path, ALONE)
    labels = run.batch()[3]
    assert (labels.sum(1) == 0).double().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 4000))


def test_processes_see_shares_of_the_same_batch(tmp_path):
    made = [Run(TINY, tmp_path, ALONE)]
    whole = made[0].batch()
    shares = []
    for rank in range(2):
        made[0].group = Processes(rank, 2, ALONE.device)
        shares.append(made[0].batch())
    for part, (a, b) in zip(whole, zip(*shares)):
        assert torch.equal(part, torch.cat([a, b]))
    with pytest.raises(ValueError, match="multiple of the 3"):
        Run(TINY, tmp_path, Processes(0, 3, torch.device("cpu")))


@pytest.mark.parametrize(
    "change",
    [
        {"network": {**TINY.network, "label_dim": 0, "augment_dim": 0}, "augment": 0.0}, {"label_dropout": 1.0},
        {"precision": "float16"}, {"precision": "bfloat16"}, {"schedule": "constant", "micro_batch": 16},
    ],
    ids=["unconditional", "labels never shown", "float16", "bfloat16", "constant"],
)  # fmt: skip
def test_every_kind_of_recipe_resumes_with_the_same_bits(tmp_path, change):
    recipe = dataclasses.replace(TINY, images=16 * 2, **change)
    whole = train(recipe, tmp_path / "whole", progress=False)
    train(recipe, tmp_path / "parts", progress=False, stop_after=1)
    parts = train(recipe, tmp_path / "parts", progress=False)
    assert torch.equal(weights(whole), weights(parts))
    assert weights(whole).isfinite().all()
    assert weights(whole).dtype == torch.float32
    assert not torch.equal(weights(whole), weights(make_denoiser(recipe)))


def test_a_compiled_network_trains_to_the_same_weights(tmp_path, monkeypatch):
    original, asked = torch.nn.Module.compile, []

    def without_a_compiler(module, **options):
        asked.append(options)
        original(module, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", without_a_compiler)
    recipe = dataclasses.replace(TINY, images=16 * 2)
    plain = train(recipe, tmp_path / "plain", progress=False)
    compiled = train(dataclasses.replace(recipe, compile=True), tmp_path / "compiled", progress=False)
    assert asked == [{"dynamic": False}]
    torch.testing.assert_close(weights(compiled), weights(plain))
    train(dataclasses.replace(recipe, compile=True), tmp_path / "compiled", progress=False)  # done: nothing to compile
    train(dataclasses.replace(recipe, compile=True), tmp_path / "asked", progress=False, compile=False)
    assert len(asked) == 1


def test_without_a_compiler_a_network_is_trained_uncompiled_with_a_notice(tmp_path, monkeypatch, capsys):
    original = torch.nn.Module.compile

    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nin this test")

    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: original(module, backend=broken))
    recipe = dataclasses.replace(TINY, images=16 * 2)
    plain = train(recipe, tmp_path / "plain", progress=False)
    assert capsys.readouterr().err == ""
    left = train(dataclasses.replace(recipe, compile=True), tmp_path / "compiled", progress=False)
    assert torch.equal(weights(left), weights(plain))
    told = capsys.readouterr().err
    assert told.count("teachkit:") == 1
    assert "is trained uncompiled" in told
    assert "No working C++ compiler found" in told
    resumed = train(dataclasses.replace(recipe, compile=True), tmp_path / "resumed", progress=False, stop_after=1)
    resumed = train(dataclasses.replace(recipe, compile=True), tmp_path / "resumed", progress=False, compile=False)
    assert torch.equal(weights(resumed), weights(plain))


@pytest.mark.slow
def test_the_command_trains_where_there_is_no_compiler(tmp_path):
    nothing = {name: value for name, value in os.environ.items() if name != "CXX"}
    nothing |= {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "teachkit", "train", "digits8", "--images", "128", "--device", "cpu", "--run-dir"]
    told = []
    for option in ("--compile", "--no-compile"):
        done = subprocess.run([*command, tmp_path / option, option], env=nothing, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (tmp_path / option / "checkpoint.pt").is_file()
        told.append("is trained uncompiled" in done.stderr)
    assert told == [True, False]


@pytest.mark.parametrize("kind", ["SongUNet", "DhariwalUNet"])
@pytest.mark.parametrize("change", [{}, {"label_dim": 0}, {"augment_dim": 0}, {"encoder_type": "residual"}], ids=str)
def test_every_weight_has_a_gradient_which_processes_wait_for(tmp_path, kind, change):
    if kind == "DhariwalUNet" and "encoder_type" in change:
        return
    recipe = dataclasses.replace(TINY, network={**TINY.network, "model_type": kind, **change}, augment=0.0)
    run = Run(recipe, tmp_path, ALONE)
    run._accumulate_gradients()
    assert [name for name, p in run.denoiser.named_parameters() if p.grad is None] == []


def test_checkpoints_are_written_as_often_as_asked(tmp_path, monkeypatch):
    steps, save = [], Run.save
    monkeypatch.setattr(Run, "save", lambda run: (steps.append(run.step), save(run)))
    train(dataclasses.replace(TINY, images=16 * 3), tmp_path, progress=False, checkpoint_seconds=0.0)
    assert steps == [1, 2, 3, 3]


def test_validation_levels_span_the_noise_levels_of_sampling():
    levels = training.validation_sigmas()
    assert len(levels) == 13
    assert [float(levels[0]), float(levels[-1])] == pytest.approx([0.005, 80])
    torch.testing.assert_close(levels.log().diff().diff(), torch.zeros(11, dtype=torch.float64))


def test_a_negative_number_of_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="stop_after"):
        train(TINY, tmp_path, stop_after=-1)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_training_learns(tmp_path, precision):
    images, labels = data.split(data.load("digits8"))[1]
    recipe = dataclasses.replace(TINY, images=16 * 60, precision=precision, learning_rate=5e-3, ema_half_life=100)
    net = train(recipe, tmp_path, progress=False)
    losses = [validation_loss(d, images, labels, [0.5], 0.75).item() for d in (net, make_denoiser(recipe).eval())]
    assert losses[0] < 0.7 * losses[1]


def test_validation_writes_a_log_and_a_picture_and_forgets_what_is_repeated(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(training, "validation_sigmas", lambda: torch.tensor([0.1, 1.0]))
    monkeypatch.setattr(runs, "polynomial", lambda n: polynomial(2))
    recipe = dataclasses.replace(TINY, images=16 * 4, validate_every=32)
    train(recipe, tmp_path, progress=False, stop_after=2)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write(json.dumps({"images": 48, "loss": 0.0}) + '\n{"images"')  # killed after its last checkpoint
    train(recipe, tmp_path, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [32, 64]
    assert list(rows[0]["held_out"]) == ["0.1", "1"]
    assert (tmp_path / "samples-000000064.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    """SIGKILL at arbitrary moments, with a checkpoint after every step so that some fall within a write."""
    recipe = dataclasses.replace(TINY, images=16 * 60)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    for after in (0.05, 0.13, 0.31):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        child = subprocess.Popen(program(recipe, checkpoint.parent, seconds=0), env=environment)
        while child.poll() is None and (checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0) == before:
            time.sleep(0.002)
        time.sleep(after)
        child.send_signal(signal.SIGKILL)
        child.wait()
    subprocess.run(program(recipe, checkpoint.parent), env=environment, check=True)
    subprocess.run(program(recipe, tmp_path / "whole"), env=environment, check=True)
    assert torch.equal(*(weights(load_ema(recipe, tmp_path / name)) for name in ("killed", "whole")))


@pytest.mark.slow
def test_two_processes_train_without_augmentation(tmp_path):
    recipe = dataclasses.replace(TINY, augment=0.0, images=16 * 2, network={**TINY.network, "dropout": 0.0})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        program(recipe, tmp_path / "two", processes=2), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one = train(recipe, tmp_path / "one", progress=False)
    torch.testing.assert_close(weights(load_ema(recipe, tmp_path / "two")), weights(one), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_two_processes_follow_the_same_curve_as_one(tmp_path, monkeypatch):
    """The loss of every second step, which is the mean over both processes, and the weights at the end."""
    recipe = dataclasses.replace(
        TINY, network={**TINY.network, "dropout": 0.0}, micro_batch=4, images=16 * 6, validate_every=32
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(program(recipe, tmp_path / "two", processes=2), env=environment, check=True, capture_output=True)
    two = [json.loads(line)["loss"] for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    one: list[float] = []
    monkeypatch.setattr(Run, "validate", lambda self, loss, sigmas: one.append(loss))
    one_process = train(recipe, tmp_path / "one", progress=False)
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-4)
    torch.testing.assert_close(weights(load_ema(recipe, tmp_path / "two")), weights(one_process), rtol=0, atol=1e-4)


# --- The models that ship ---------------------------------------------------------------------------------------------

LIMITS = {"mnist": (2_500_000, 6e6, 0.09), "digits8": (1_000_000, 1e6, 0.32), "emoji": (3_200_000, 8e6, 0.09)}


@pytest.fixture(params=sorted(LIMITS))
def shipped(request):
    if not (data.directory() / f"edm-{request.param}.safetensors").is_file():
        pytest.skip("the trained model is not in this checkout")
    return request.param, edm.load(f"edm-{request.param}")


def test_shipped_models_are_small_and_of_the_committed_recipe(shipped):
    name, net = shipped
    recipe, path = RECIPES[name], data.directory() / f"edm-{name}.safetensors"
    parameters, size, _ = LIMITS[name]
    assert sum(p.numel() for p in net.parameters()) <= parameters
    assert path.stat().st_size <= size
    assert Recipe(**json.loads(edm.checkpoints.metadata(path)["recipe"])).text() == recipe.text()
    assert float(data.split(data.load(recipe.data))[0].images.std()) == pytest.approx(recipe.sigma_data, rel=0.02)


def test_shipped_models_are_listed(shipped):
    """Size and checksum, as data/README.md and data/checksums.json say."""
    path = data.verify(f"edm-{shipped[0]}.safetensors")
    row = [line for line in (data.directory() / "README.md").read_text().splitlines() if f"| `{path.name}`" in line]
    assert len(row) == 1
    assert f"{path.stat().st_size:,}" in row[0]
    assert hashlib.sha256(path.read_bytes()).hexdigest() in row[0]


def test_shipped_models_denoise_pictures_they_have_not_seen(shipped):
    name, net = shipped
    images, labels = data.split(data.load(RECIPES[name].data))[1]
    loss = validation_loss(net, images[::10], labels[::10], [0.3], RECIPES[name].sigma_data).item()
    assert loss < LIMITS[name][2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "figures", [data.directory() / f"edm-{name}.json" for name in sorted(LIMITS)], ids=lambda p: p.stem
)
def test_model_cards_are_of_the_models_beside_them(figures):
    found, name = json.loads(figures.read_text()), figures.stem.removeprefix("edm-")
    net = edm.load(f"edm-{name}")
    assert found["file"]["finished"]
    assert found["file"]["bytes"] == figures.with_suffix(".safetensors").stat().st_size
    images, labels = data.split(data.load(RECIPES[name].data))[1]
    level = found["loss"]["sigmas"][6]
    loss = validation_loss(net, images, labels, [level], RECIPES[name].sigma_data).item()
    assert loss == pytest.approx(found["loss"]["held_out"][6], rel=1e-3)
    assert figures.with_suffix(".md").is_file()


@pytest.mark.slow
def test_shipped_mnist_samples_are_clear_digits_of_the_class_asked_for():
    labels = torch.arange(50) % 10
    noise = initial_noise(50, (1, 28, 28), seed=11, dtype=torch.float32)
    final = sample(edm.load("edm-mnist"), noise, polynomial(18), "heun", labels=labels, keep="final").final
    confidence, found = metrics.digit_probabilities(final).max(1)
    assert (confidence > 0.9).double().mean() >= 0.9
    assert (found == labels).double().mean() >= 0.9

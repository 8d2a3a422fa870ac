"""The command line: what it prints and writes, its exit codes, and that errors are one line."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from teachkit import Empirical, Trajectory, data, edm, initial_noise, sample, schedules, solvers
from teachkit.cli import app, environment, sampling
from teachkit.scheduling import Schedule, planned
from tests import warm
from tests.test_edm_checkpoints import ORACLES, needs_oracles

run = CliRunner().invoke
ROOT = Path(__file__).resolve().parents[1]


def command(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "teachkit", *arguments], capture_output=True, text=True, env=environment, **options
    )


def plain(output):
    """Without the frame that errors are drawn in."""
    return re.sub(r"[\s│]+", " ", output)


@pytest.mark.slow
def test_help_names_every_command_and_loads_no_matplotlib():
    shown = run(app, ["--help"]).output
    assert all(name in shown for name in ("train", "convert", "sample", "schedule", "doctor", "lab"))
    code = "import sys, teachkit.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_importing_teachkit_does_not_import_the_command_line():
    code = "import sys, teachkit; sys.exit('typer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("loading", ["torch", pytest.param("typer", marks=pytest.mark.slow)])
@pytest.mark.parametrize("started", ["as a module", "as a command", "by another program"])
def test_ctrl_c_while_modules_are_loaded_is_one_line(tmp_path, loading, started):
    (tmp_path / f"{loading}.py").write_text("raise KeyboardInterrupt")
    script = tmp_path / ("teachkit" if started == "as a command" else "other.py")
    entry = "from teachkit.__main__ import main; main()"
    script.write_text(entry if started == "as a command" else "import teachkit.cli")
    path = os.pathsep.join(filter(None, (str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH"))))
    how = ["-m", "teachkit"] if started == "as a module" else [str(script)]
    done = subprocess.run(
        [sys.executable, *how], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    if started == "by another program":
        assert "Traceback" in done.stderr
    else:
        assert (done.returncode, done.stderr.strip()) == (130, "teachkit: interrupted")


@pytest.mark.parametrize(
    "source",
    [
        ["--model", "edm-digits8"], ["--data", "digits8", "--labels", "3,4"],
        ["--data", "digits8", "--solver", "edm_stochastic"],
    ],
)  # fmt: skip
def test_sampling_writes_a_picture_and_tensors_whatever_the_batch(tmp_path, source):
    for batch in (3, 8):
        arguments = ["sample", *source, "-n", "8", "--steps", "4", "--batch", str(batch), "--device", "cpu"]
        files = ["--out", str(tmp_path / f"{batch}.png"), "--tensors", str(tmp_path / f"{batch}.safetensors")]
        result = run(app, [*arguments, *files])
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == [str(tmp_path / f"{batch}.png"), str(tmp_path / f"{batch}.safetensors")]
    few, all_ = (load_file(tmp_path / f"{b}.safetensors")["samples"] for b in (3, 8))
    torch.testing.assert_close(few, all_, rtol=1e-4, atol=1e-4)
    assert few.shape == (8, 1, 8, 8)
    assert (tmp_path / "3.png").read_bytes()[:4] == b"\x89PNG"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_trajectories_are_those_of_the_library(tmp_path):
    file = tmp_path / "paths.safetensors"
    arguments = [
        "sample",
        "--data",
        "digits8",
        "-n",
        "5",
        "--seed",
        "7",
        "--nfe",
        "5",
        "--solver",
        "heun",
        "--batch",
        "2",
    ]
    options = ["--schedule", "logsnr", "--labels", "3", "--guidance", "2", "--device", "cpu"]
    files = ["--trajectories", str(file), "--out", str(tmp_path / "a.png")]
    result = run(app, [*arguments, *options, *files])
    assert result.exit_code == 0, result.output
    stored = load_file(file)
    images, labels = data.load("digits8")
    exact, sigmas = Empirical(images.double(), labels=labels), schedules.logsnr(3)
    x = initial_noise(5, (1, 8, 8), 80.0, seed=7)
    path = sample(exact, x, sigmas, solvers.get("heun", euler_last=True), labels=torch.full((5,), 3), guidance=2.0)
    assert path.nfe == 2 * 5
    for name, wanted in (("sigmas", sigmas), ("x", path.x), ("denoised", path.denoised)):
        torch.testing.assert_close(stored[name], wanted, rtol=1e-9, atol=1e-9)
    assert stored["labels"].tolist() == [3] * 5


def test_points_in_the_plane_are_drawn_as_dots(tmp_path):
    target = tmp_path / "moons.png"
    result = run(app, ["sample", "--data", "two_moons", "-n", "20", "--steps", "4", "--out", str(target)])
    assert result.exit_code == 0, result.output
    assert target.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("solver", ["ipndm", pytest.param("fitted", marks=pytest.mark.slow)])
def test_a_found_schedule_is_printed_saved_drawn_and_used(tmp_path, solver):
    saved, plot = tmp_path / "found.json", tmp_path / "found.png"
    arguments = ["schedule", "--model", "edm-digits8", "--solver", solver, "--nfe", "4", "--warm-up", "8"]
    result = run(app, [*arguments, "--save", str(saved), "--plot", str(plot), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    found = Schedule.load(saved)
    assert [float(line) for line in result.stdout.split()] == pytest.approx(found.sigmas.tolist(), rel=1e-5)
    assert found.nfe == 4
    assert plot.stat().st_size > 1000
    picture = tmp_path / "used.png"
    used = run(app, ["sample", "--model", "edm-digits8", "-n", "4", "--schedule", str(saved), "--out", str(picture)])
    assert used.exit_code == 0, used.output
    twice = run(app, ["sample", "--schedule", str(saved), "--solver", "euler"])
    assert twice.exit_code == 2
    as_json = run(app, [*arguments, "--format", "json"])
    assert json.loads(as_json.stdout)["solver"] == solver


class Conditional:
    """A model of 8x8 pictures of three classes, trained between two noise levels, that notes what it is asked."""

    sigma_min, sigma_max, label_dim = 0.029, 14.6, 3

    def __init__(self):
        self.labels, self.levels, self.stop_after = [], [], math.inf

    def __call__(self, x, sigma, labels=None):
        if len(self.levels) == self.stop_after:
            raise KeyboardInterrupt
        self.labels.append(None if labels is None else tuple(labels.tolist()))
        self.levels.append(float(sigma))
        means = torch.zeros(len(x)) if labels is None else labels.to(x) - 1
        return means[:, None, None, None] + (x - means[:, None, None, None]) / (1 + sigma**2)


@pytest.fixture
def conditional(monkeypatch):
    model = Conditional()
    monkeypatch.setattr(sampling, "_learned", lambda name, device: (model, (1, 8, 8), 3, torch.float32))
    return model


@pytest.mark.parametrize("solver", ["ipndm", "fitted"])
def test_a_schedule_is_found_with_the_classes_that_are_sampled(tmp_path, conditional, solver):
    arguments = ["schedule", "--solver", solver, "--nfe", "3", "--warm-up", "9", "--save", str(tmp_path / "s.json")]
    assert run(app, arguments).exit_code == 0
    assert None not in conditional.labels
    assert {k for some in conditional.labels for k in some} == {0, 1, 2}
    about = Schedule.load(tmp_path / "s.json").provenance
    assert about["labels"] == {"0": 3, "1": 3, "2": 3}
    assert (about["guidance"], about["objective"], about["seed"]) == (None, "mean", 0)
    assert (about["model"]["name"], about["model"]["type"]) == ("edm-mnist", "Conditional")
    conditional.labels.clear()
    asked = [*arguments, "--labels", "1", "--guidance", "2", "--objective", "rms"]
    result = run(app, asked)
    assert result.exit_code == 0
    assert "% end elsewhere" in result.stderr
    assert {k for some in conditional.labels if some for k in some} == {1}
    assert None in conditional.labels  # guidance asks without labels too
    about = Schedule.load(tmp_path / "s.json").provenance
    assert (about["labels"], about["guidance"], about["objective"]) == ({"1": 9}, 2.0, "rms")


def test_a_schedule_says_what_it_costs_and_keeps_nothing_at_the_end(tmp_path, conditional):
    arguments = ["schedule", "--nfe", "3", "--warm-up", "9", "--guidance", "2", "--batch", "4"]
    result = run(app, [*arguments, "--save", str(tmp_path / "s.json"), "--dynamic-threshold", "0.9"])
    assert result.exit_code == 0, result.output
    cost = r"limit of 3,240 evaluations, 1,080 of them by the teacher: about [1-9]\d* s"
    assert re.fullmatch(cost, result.stderr.splitlines()[0])
    assert max(len(some) for some in conditional.labels if some) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
    assert Schedule.load(tmp_path / "s.json").provenance["dynamic_threshold"] == 0.9


def test_a_schedule_is_used_at_its_guidance_or_there_is_a_warning(tmp_path, conditional):
    saved, picture = str(tmp_path / "s.json"), ["--out", str(tmp_path / "a.png")]
    found = run(app, ["schedule", "--nfe", "3", "--warm-up", "9", "--guidance", "4", "--save", saved])
    assert found.exit_code == 0, found.output
    use = ["sample", "-n", "4", "--schedule", saved, *picture]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(app, [*use, "--guidance", "4"], catch_exceptions=False).exit_code == 0
    for other, used in ((["--guidance", "2"], "2"), ([], "1")):
        with pytest.warns(UserWarning, match=f"found for guidance 4 and is used at {used}"):
            assert run(app, [*use, *other], catch_exceptions=False).exit_code == 0


def test_samples_are_clipped_to_the_percentile(tmp_path):
    arguments = ["sample", "--model", "edm-digits8", "-n", "3", "--steps", "4", "--guidance", "6", "--device", "cpu"]
    drawn = []
    for extra in ([], ["--dynamic-threshold", "0.8"]):
        written = tmp_path / "t.safetensors"
        target = ["--out", str(tmp_path / "a.png"), "--tensors", str(written)]
        assert run(app, [*arguments, *extra, *target], catch_exceptions=False).exit_code == 0
        drawn.append(load_file(written)["samples"])
    x, labels = initial_noise(3, (1, 8, 8), 80.0, seed=0, dtype=torch.float32), torch.arange(3)
    how = {"labels": labels, "guidance": 6.0, "keep": "final"}
    for got, threshold in zip(drawn, (None, 0.8)):
        with torch.no_grad():
            path = sample(
                edm.load("edm-digits8"), x, schedules.polynomial(4), "heun", dynamic_threshold=threshold, **how
            )
        torch.testing.assert_close(got, path.final, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(*drawn, atol=0.1)


def test_an_interrupted_search_goes_on_from_its_teachers_paths(tmp_path, conditional, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sampling, "fingerprint", lambda settings: "0" * 64)
    monkeypatch.setattr(
        planned, "fingerprint", lambda value: "0" * 64
    )  # what the model notes would tell it from itself
    arguments = ["schedule", "--nfe", "3", "--warm-up", "24"]
    whole = run(app, arguments, catch_exceptions=False)
    conditional.levels.clear()
    conditional.stop_after = 150  # in the third batch of eight
    stopped = run(app, arguments)
    assert stopped.exit_code == 130
    assert "the same command goes on from there" in stopped.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".edm-mnist-000000000000.paths.safetensors"]
    conditional.stop_after = math.inf
    again = run(app, arguments, catch_exceptions=False)
    assert "960 kept from before" in again.stderr
    assert again.stdout == whole.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on(tmp_path):
    arguments = [
        sys.executable,
        "-m",
        "teachkit",
        "schedule",
        "--model",
        "edm-digits8",
        "--nfe",
        "2",
        "--warm-up",
        "12",
    ]
    arguments += ["--batch", "4", "--save", str(tmp_path / "s.json"), "--device", "cpu"]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(tmp_path.glob(".edm-digits8-*.paths.safetensors")):
            time.sleep(0.01)
        process.kill()
    assert process.returncode < 0
    kept = next(tmp_path.glob(".edm-digits8-*.paths.safetensors"))
    done = Trajectory.load(kept).x.shape[1]
    again = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert f"{60 * done:,} kept from before" in again.stderr
    assert Schedule.load(tmp_path / "s.json").provenance["warm_up"] == 12
    assert not kept.exists()


def test_levels_keep_to_those_the_model_was_trained_on(tmp_path, conditional):
    picture = ["--out", str(tmp_path / "a.png")]
    for arguments in (["schedule", "--nfe", "3", "--warm-up", "8"], ["sample", "-n", "3", "--steps", "3", *picture]):
        conditional.levels.clear()
        result = run(app, [*arguments, "--device", "cpu"])
        assert result.exit_code == 0, result.output
        assert max(conditional.levels) == pytest.approx(14.6)
        assert min(conditional.levels) >= 0.029 * (1 - 1e-6)
    result = run(app, ["sample", "-n", "3", "--sigma-max", "80", *picture])
    assert result.exit_code == 1
    assert "sigma_max must lie within the levels that the model was trained on" in str(result.exception)


def test_the_weights_of_a_fitted_schedule_are_not_lost(conditional):
    arguments = ["schedule", "--solver", "fitted", "--nfe", "3", "--warm-up", "8"]
    refused = run(app, [*arguments, "--format", "comfyui"], env={"COLUMNS": "200"})
    assert refused.exit_code == 2
    assert "cannot hold fitted weights" in plain(refused.output)
    assert not conditional.levels
    assert "--save or --format json writes both" in run(app, arguments).stderr
    assert "weights" in json.loads(run(app, [*arguments, "--format", "json"]).stdout)["options"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "cifar"],
            "recipe must be one of digits8, digits8-1step, digits8-2step, digits8-4step, emoji, mnist",
        ),
        (["schedule", "--format", "xml"], "--format must be one of list, json, comfyui"),
        (["schedule", "--solver", "best"], "--solver must be fitted or one of euler"),
        (["schedule", "--nfe", "1"], "nfe"),
        (["schedule", "--objective", "max"], "--objective must be one of mean, rms"),
        (["convert", "absent.pkl", "out.safetensors"], "absent.pkl"),
        (["sample", "--model", "edm-digits8", "--label", "12"], "--labels must be from 0 to 9"),
        (["sample", "--model", "edm-digits8", "--labels", "one"], "--labels must be numbers"),
        (["sample", "--model", "edm-digits8", "--data", "digits8"], "--model and --data exclude each other"),
        (["sample", "--steps", "4", "--nfe", "4"], "--steps and --nfe exclude each other"),
        (["sample", "--schedule", "quadratic"], "--schedule must be a .json file or one of polynomial"),
        (["sample", "--out", "picture.jpg"], "--out must end in .png"),
        (["sample", "--out", "no/such/folder/a.png"], "does not exist"),
        (["sample", "--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message):
    result = run(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in plain(result.output)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_errors_are_one_line_and_debug_shows_the_traceback(tmp_path):
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(b"not a pickle")
    result = command("convert", str(broken), str(tmp_path / "out.safetensors"))
    assert result.returncode == 1
    assert result.stderr.startswith("teachkit: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.safetensors").exists()
    assert "Traceback" in command("--debug", "convert", str(broken), str(tmp_path / "out.safetensors")).stderr


def test_converting_never_overwrites_by_accident(tmp_path):
    source, target = data.directory() / "edm-digits8.safetensors", tmp_path / "out.safetensors"
    target.write_text("precious")
    refused = run(app, ["convert", str(source), str(target)])
    assert isinstance(refused.exception, FileExistsError)
    assert target.read_text() == "precious"
    assert run(app, ["convert", str(source), str(target), "--force"]).exit_code == 0
    ours, theirs = edm.load(target).state_dict(), edm.load(source).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [p.name for p in tmp_path.iterdir()] == ["out.safetensors"]


@needs_oracles
def test_converting_a_published_snapshot_keeps_the_numbers(tmp_path):
    source, target = sorted(ORACLES.glob("*.pkl"))[0], tmp_path / "out.safetensors"
    assert run(app, ["convert", str(source), str(target)]).exit_code == 0
    ours, theirs = edm.load(target).state_dict(), edm.load(source).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_doctor_finds_nothing_broken_here():
    result = run(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert f"ok      torch       {torch.__version__.split('+')[0]}" in result.stdout
    assert result.stdout.endswith("0 problems\n")


def test_doctor_names_a_corrupt_file_and_its_remedy(tmp_path, monkeypatch):
    shutil.copy(data.directory() / "checksums.json", tmp_path)
    for name in json.loads((tmp_path / "checksums.json").read_text()):
        shutil.copy(data.directory() / name, tmp_path)
    (tmp_path / "digits8.npz").write_bytes(b"not what was shipped")
    for module in (data, data.sets):
        monkeypatch.setattr(module, "directory", lambda: tmp_path)
    result = run(app, ["doctor"])
    assert result.exit_code == 1
    assert "digits8.npz is corrupt" in result.stdout
    assert "-> restore it" in result.stdout
    assert result.stdout.endswith("1 problem\n")


def test_doctor_reports_a_check_that_breaks(monkeypatch):
    def _data():
        raise OSError("unreadable")

    monkeypatch.setattr(environment, "CHECKS", (_data,))
    result = run(app, ["doctor"])
    assert result.exit_code == 1
    assert "OSError: unreadable" in result.stdout


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error_worth_a_traceback():
    process = subprocess.Popen(
        [sys.executable, "-m", "teachkit", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_training_can_be_interrupted_and_resumed(tmp_path):
    arguments = ["train", "digits8", "--images", "2560", "--run-dir", str(tmp_path), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "teachkit", *arguments, "--checkpoint-seconds", "0"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=warm.take_interrupts,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "the same command goes on from its last checkpoint" in text
    assert "Traceback" not in text
    step = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < step < 20
    finished = command(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == str(tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 20


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_training_under_torchrun(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "teachkit"]
    arguments = ["train", "digits8", "--images", "512", "--run-dir", str(tmp_path), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4


# --- Doctor, with one thing broken at a time --------------------------------------------------------------------------


def broken_data(tmp_path, monkeypatch, damage):
    shutil.copy(data.directory() / "checksums.json", tmp_path)
    for name in json.loads((tmp_path / "checksums.json").read_text()):
        (tmp_path / name).symlink_to(data.directory() / name)
    damage(tmp_path)
    for module in (data, data.sets):
        monkeypatch.setattr(module, "directory", lambda: tmp_path)


def flip(folder):
    content = bytearray((folder / "digits8.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "digits8.npz").unlink()  # not through the link
    (folder / "digits8.npz").write_bytes(content)


def no_module(monkeypatch, name):
    usual = environment.importlib.util.find_spec
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda n: None if n == name else usual(n))


def kernel_that_starts(program):
    class Specs:
        def get_kernel_spec(self, name):
            from jupyter_client.kernelspec import NoSuchKernel

            if program is None:
                raise NoSuchKernel(name)
            return type("Spec", (), {"argv": [program]})

    return Specs


def no_torch(tmp_path, monkeypatch):
    def importing(name):
        if name == "torchvision":
            raise ImportError("undefined symbol: of another torch")
        return sys.modules[name]

    monkeypatch.setattr(environment.importlib, "import_module", importing)


def nearly_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: usage)


def other_kernel(program):
    def breaks(tmp_path, monkeypatch):
        kernelspec = pytest.importorskip("jupyter_client.kernelspec", reason="needs the extra lab")
        monkeypatch.setattr(kernelspec, "KernelSpecManager", kernel_that_starts(program))

    return breaks


BROKEN = {
    "a byte flipped": (lambda t, m: broken_data(t, m, flip), 1, "digits8.npz is corrupt", "restore it"),
    "a file gone": (lambda t, m: broken_data(t, m, lambda d: (d / "digits8.npz").unlink()), 1, "digits8.npz", "->"),
    "no checksums": (
        lambda t, m: broken_data(t, m, lambda d: (d / "checksums.json").write_text("{")),
        1, "the list of checksums cannot be read", "-> restore the folder data/",
    ),
    "a package of another torch": (no_torch, 1, "torchvision cannot be imported", "-> pip install --force-reinstall"),
    "no torchvision": (lambda t, m: no_module(m, "torchvision"), 0, "torchvision not installed", "teachkit[course]"),
    "a kernel that is gone": (other_kernel("/no/such/python"), 1, "does not exist", "-m ipykernel install"),
    "no kernel": (other_kernel(None), 1, "no kernel called python3", "-m ipykernel install"),
    "no pictures": (
        lambda t, m: no_module(m, "matplotlib"), 0, "matplotlib not installed: needed for pictures", "teachkit[course]"
    ),
    "no Jupyter": (lambda t, m: no_module(m, "jupyterlab"), 0, "jupyterlab not installed", "teachkit[lab]"),
    "no browser": (lambda t, m: m.setenv("PATH", str(t)), 0, "chromium not found", "-> only for testing"),
    "no room": (nearly_full, 0, "0.0 GiB free here", "-> make room"),
    "no lessons": (lambda t, m: m.setattr(environment, "shipped", lambda: t), 0, "lessons 0 in", "-> reinstall"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_doctor_names_what_is_broken_and_its_remedy(name, tmp_path, monkeypatch):
    breaks, code, told, remedy = BROKEN[name]
    breaks(tmp_path, monkeypatch)
    result = run(app, ["doctor"])
    assert result.exit_code == code, result.output
    output = plain(result.stdout)
    assert told in output
    assert remedy in output
    assert result.stdout.endswith(f"{code} problem{'s' if code == 0 else ''}\n")

"""The command line: what it prints and writes, its exit codes, and that errors are one line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from test_edm_checkpoints import ORACLES, needs_oracles
from typer.testing import CliRunner

from teachkit import edm
from teachkit.cli import app
from teachkit.scheduling import Schedule

run = CliRunner().invoke


def command(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "teachkit", *arguments], capture_output=True, text=True, env=environment, **options
    )


def test_help_names_every_command_and_loads_no_matplotlib():
    shown = run(app, ["--help"]).output
    assert all(name in shown for name in ("train", "convert", "sample", "schedule"))
    code = "import sys, teachkit.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_importing_teachkit_does_not_import_the_command_line():
    code = "import sys, teachkit; sys.exit('typer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_sampling_writes_a_picture_and_tensors_whatever_the_batch(tmp_path):
    for batch in (3, 8):
        arguments = [
            "sample",
            "--model",
            "edm-digits8",
            "-n",
            "8",
            "--steps",
            "4",
            "--batch",
            str(batch),
            "--device",
            "cpu",
        ]
        files = ["--out", str(tmp_path / f"{batch}.png"), "--tensors", str(tmp_path / f"{batch}.safetensors")]
        result = run(app, [*arguments, *files])
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(tmp_path / f"{batch}.png")
    few, all_ = (load_file(tmp_path / f"{b}.safetensors")["samples"] for b in (3, 8))
    torch.testing.assert_close(few, all_, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "3.png").read_bytes()[:4] == b"\x89PNG"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("solver", ["ipndm", "fitted"])
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
    as_json = run(app, [*arguments, "--format", "json"])
    assert json.loads(as_json.stdout)["solver"] == solver


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "cifar"], 2, "recipe must be one of digits8, mnist"),
        (["schedule", "--format", "xml"], 2, "format must be list, json or comfyui"),
        (["schedule", "--nfe", "1"], 2, "nfe"),
        (["convert", "absent.pkl", "out.safetensors"], 2, "absent.pkl"),
        (["sample", "--model", "edm-digits8", "--label", "12"], 2, "label must be below 10"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, code, message):
    result = run(app, arguments)
    assert result.exit_code == code
    assert message in result.output.replace("\n", " ")


def test_errors_are_one_line_and_debug_shows_the_traceback(tmp_path):
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(b"not a pickle")
    result = command("convert", str(broken), str(tmp_path / "out.safetensors"))
    assert result.returncode == 1
    assert result.stderr.startswith("teachkit: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.safetensors").exists()
    assert "Traceback" in command("--debug", "convert", str(broken), str(tmp_path / "out.safetensors")).stderr


@needs_oracles
def test_converting_keeps_the_numbers_and_never_overwrites_by_accident(tmp_path):
    source = sorted(ORACLES.glob("*.pkl"))[0]
    target = tmp_path / "out.safetensors"
    assert run(app, ["convert", str(source), str(target)]).exit_code == 0
    ours, theirs = edm.load(target).state_dict(), edm.load(source).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    refused = run(app, ["convert", str(source), str(target)])
    assert isinstance(refused.exception, FileExistsError)
    assert run(app, ["convert", str(source), str(target), "--force"]).exit_code == 0


@pytest.mark.slow
def test_training_can_be_interrupted_and_resumed(tmp_path):
    arguments = [sys.executable, "-m", "teachkit", "train", "digits8", "--images", "2560", "--run-dir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    for _ in range(600):  # until the progress bar shows a loss
        if "loss" in (process.stderr.read(200) or ""):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in rest
    finished = command("train", "digits8", "--images", "2560", "--run-dir", str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == str(tmp_path)
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.slow
def test_training_under_torchrun(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "teachkit"]
    arguments = ["train", "digits8", "--images", "512", "--run-dir", str(tmp_path), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path)

"""Evaluation: the same table for any number of processes, after a kill, and without holding all the samples."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from teachkit import (
    Empirical,
    GaussianMixture,
    data,
    evaluation,
    geometry,
    initial_noise,
    metrics,
    sample,
    schedules,
    solvers,
)
from teachkit.cli import app
from teachkit.cli import evaluation as evaluation_command
from teachkit.cli.evaluation import moments_of

run = CliRunner().invoke
pytestmark = pytest.mark.usefixtures("warm")
ALONE = evaluation.Processes(0, 1, torch.device("cpu"))
MIXTURE = GaussianMixture([0.4, 0.6], torch.eye(2, 4, dtype=torch.float64), 0.1)
WORK = ["--model", "edm-digits8", "--solvers", "euler,ipndm", "--nfe", "4", "-n", "200", "--device", "cpu"]


# --- Shards -----------------------------------------------------------------------------------------------------------


def test_shards_are_computed_once_and_read_in_order(tmp_path):
    calls = []

    def compute(samples):
        calls.append(samples)
        return {"number": torch.arange(samples.start, samples.stop)}

    shards = evaluation.Shards(tmp_path, {"work": 1}, 150)
    shards.run(compute, ALONE)
    assert [len(c) for c in calls] == [64, 64, 22]
    assert torch.cat([s["number"] for s in shards.read()]).tolist() == list(range(150))
    shards.run(compute, ALONE)
    assert len(calls) == 3
    longer = evaluation.Shards(tmp_path, {"work": 1}, 200)  # keeps the two whole shards
    assert [s.start for s in longer.missing()] == [128, 192]
    assert evaluation.Shards(tmp_path, {"work": 2}, 150).missing() == shards.ranges()


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"", lambda b: b[:-1] + b"x"])
def test_a_broken_or_foreign_shard_is_computed_again(tmp_path, damage):
    shards = evaluation.Shards(tmp_path, {"work": 1}, 100)
    shards.run(lambda samples: {"x": torch.ones(len(samples))}, ALONE)
    path = shards.path(shards.ranges()[1])
    path.write_bytes(damage(path.read_bytes()))
    assert shards.missing() == [range(64, 100)]
    other = evaluation.Shards(tmp_path, {"work": 2}, 100)
    other.folder.mkdir()
    os.replace(shards.path(range(64)), other.path(range(64)))
    assert len(other.missing()) == 2
    with pytest.raises(FileNotFoundError, match="run again to finish"):
        list(shards.read())


def test_an_interrupted_shard_leaves_no_file(tmp_path):
    def compute(samples):
        if samples.start:
            raise KeyboardInterrupt
        return {"x": torch.ones(len(samples))}

    shards = evaluation.Shards(tmp_path, {"work": 1}, 100)
    with pytest.raises(KeyboardInterrupt):
        shards.run(compute, ALONE)
    assert sorted(p.suffix for p in shards.folder.iterdir()) == [".json", ".safetensors"]
    with pytest.raises(ValueError, match="count must be an integer >= 1, got 0"):
        evaluation.Shards(tmp_path, {}, 0)


def test_a_fingerprint_tells_weights_apart():
    net = torch.nn.Linear(2, 2)
    before = evaluation.fingerprint(net)
    assert before == evaluation.fingerprint(net) != evaluation.fingerprint(torch.nn.Linear(2, 2))
    with torch.no_grad():
        net.bias[0] += 1e-7
    assert evaluation.fingerprint(net) != before
    assert evaluation.fingerprint({"a": 1, "b": 2}) == evaluation.fingerprint({"b": 2, "a": 1})


# --- Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3, 200])
def test_merged_features_have_the_moments_of_all(width):
    from teachkit.evaluation.streams import pack, unpack

    x = torch.randn(150, width, generator=torch.Generator().manual_seed(0))
    stats = unpack(pack(part) for part in x.split(64))
    whole = metrics.FeatureStatistics(x)
    assert stats.count == 150
    torch.testing.assert_close(stats.mean, whole.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(stats.covariance, whole.covariance, rtol=1e-10, atol=1e-10)


def test_geometry_in_parts_is_the_geometry_of_all():
    sigmas, x = schedules.polynomial(30), initial_noise(50, (4,))
    whole = sample(MIXTURE, x, sigmas)
    parts = (evaluation.geometry_of(sample(MIXTURE, part, sigmas)) for part in x.split(20))
    stats = evaluation.GeometryStatistics(parts)
    assert stats.peak.shape == stats.peak_sigma.shape == stats.length.shape == (len(x),)
    assert bool((stats.length >= 1).all())  # of the whole path over its chord
    peak, where = geometry.deviation_peak(whole)
    off = geometry.deviation(whole, relative=True)
    assert stats.count == 50
    torch.testing.assert_close(stats.peak, peak)
    torch.testing.assert_close(stats.peak_sigma, where)
    torch.testing.assert_close(stats.deviation, off.mean(1))
    torch.testing.assert_close(stats.spread, off.std(1, correction=0), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(stats.explained, geometry.explained_variance(whole, 3, remove_chord=True))
    with pytest.raises(ValueError, match="no paths were added yet"):
        evaluation.GeometryStatistics().peak  # noqa: B018
    with pytest.raises(ValueError, match="shard has 11 levels"):
        stats.add(evaluation.geometry_of(sample(MIXTURE, x, schedules.polynomial(10))))


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_a_table_says_what_sampling_and_measuring_by_hand_say(tmp_path):
    digits = data.load("digits8")
    denoiser = Empirical(digits.images[:300].double())
    wanted = evaluation.methods(["euler", "heun"], "cosine", [5], sigma_min=0.002, sigma_max=80.0)
    real = metrics.FeatureStatistics(digits.images.flatten(1))
    arguments = {"identity": {"model": "test"}, "features": "pixels", "count": 70, "seed": 3}
    rows, shape = evaluation.table(denoiser, (1, 8, 8), wanted, real, ALONE, tmp_path, **arguments)
    assert [(r.solver, r.nfe, r.samples) for r in rows] == [("unipc", 60, 70), ("euler", 5, 70), ("heun", 5, 70)]
    x = initial_noise(70, (1, 8, 8), seed=3)
    path = sample(denoiser, x, schedules.polynomial(60), "unipc")
    reference = path.final
    torch.testing.assert_close(shape.peak, geometry.deviation_peak(path)[0], rtol=1e-6, atol=1e-9)
    for row, method in zip(rows[1:], wanted):
        path = sample(denoiser, x, method.sigmas, method.step)
        assert path.nfe == 5
        assert row.error == pytest.approx(float(metrics.error_to_reference(path.final, reference).mean()), rel=1e-6)
        by_hand = metrics.frechet_distance(path.final.flatten(1), digits.images.flatten(1))
        assert row.frechet == pytest.approx(by_hand, rel=1e-4)
    assert rows[0].error == 0


@pytest.mark.parametrize("solver", ["ipndm", "edm_stochastic"])
def test_a_sample_depends_on_the_seed_and_its_number_alone(solver):
    sigmas = schedules.polynomial(8)
    whole = evaluation.samples_of(MIXTURE, (4,), sigmas, solver, range(0, 6), seed=2).final
    part = evaluation.samples_of(MIXTURE, (4,), sigmas, solver, range(3, 6), seed=2).final
    torch.testing.assert_close(part, whole[3:], rtol=1e-9, atol=1e-10)


def test_the_noise_of_a_stochastic_solver_follows_the_seed():
    own = solvers.get("edm_stochastic", seed=5, first=1)
    given = own.for_samples(2, 3)
    assert (given.seed, given.first, given.churn) == (7, 4, own.churn)
    assert (own.seed, own.first) == (5, 1)


def test_methods_refuse_what_there_is_not():
    ends = {"sigma_min": 0.002, "sigma_max": 80.0}
    for names, schedule, message in (
        (["eular"], "cosine", "solver must be one of"),
        (["euler"], "cosinus", "schedule must be found or one of"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.methods(names, schedule, [4], **ends)
    with pytest.raises(FileNotFoundError, match="no schedule"):
        evaluation.methods(["euler"], "found", [99], model="edm-digits8", **ends)
    assert evaluation.methods(["fitted"], "found", [6], model="edm-digits8", **ends)[0].step.name == "fitted"
    with pytest.raises(ValueError, match="features must be one of"):
        evaluation.features_for("vgg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--nfe", "4,x"], "--nfe must be whole numbers"),
        (["--nfe", ""], "must each name at least one"),
        (["--store", "/dev/null/store"], "--store must name a folder"),
        (["--features", "inception"], "--real must name the moments"),
        (["--real", "README.md"], "does not hold mu and sigma"),
    ],
)
def test_evaluate_refuses_bad_options(tmp_path, change, message):
    result = run(app, ["evaluate", *WORK, "--store", str(tmp_path), *change])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_moments_are_read_from_a_file_of_bounded_size(tmp_path):
    file, fine = tmp_path / "bomb.npz", tmp_path / "moments.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("mu.npy", "w") as member:
        for _ in range(257):
            member.write(bytes(2**20))
    assert file.stat().st_size < 2**20
    result = run(app, ["evaluate", *WORK, "--store", str(tmp_path), "--real", str(file)])
    assert result.exit_code == 2
    assert "unpacks to 269,484,032 bytes" in " ".join(result.output.replace("│", " ").split())
    np.savez_compressed(fine, mu=np.zeros(3), sigma=np.eye(3), count=7)
    read = evaluation_command._moments(fine)
    assert read.count == 7
    assert torch.equal(read.covariance, torch.eye(3, dtype=torch.float64))
    (tmp_path / "single.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(typer.BadParameter, match="does not hold mu and sigma"):
        evaluation_command._moments(tmp_path / "single.npy")


# --- Many processes ---------------------------------------------------------------------------------------------------


def launch(processes, *arguments):
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "teachkit", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    return output


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc to find the processes to kill")
def test_one_two_or_three_processes_and_a_killed_one_give_the_same_table(tmp_path):
    evaluate = [*WORK, "--json", "--store"]
    alone = finish(launch(1, "evaluate", *evaluate, str(tmp_path / "1")))
    assert len(json.loads(alone)) == 3
    assert finish(launch(2, "evaluate", *evaluate, str(tmp_path / "2"))) == alone

    store = tmp_path / "3"
    killed = launch(2, "evaluate", *evaluate, str(store))
    deadline = time.monotonic() + 120
    while not (done := list(store.rglob("0*.safetensors"))):
        assert killed.poll() is None, killed.stderr.read()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for worker in children(killed.pid):
        os.kill(worker, signal.SIGKILL)
    killed.communicate(timeout=120)
    assert killed.returncode != 0
    before = {path: path.stat().st_mtime_ns for path in done}
    assert finish(launch(3, "evaluate", *evaluate, str(store))) == alone
    assert {path: path.stat().st_mtime_ns for path in done} == before  # what was finished was not done again


@pytest.mark.slow
def test_sampling_with_two_processes_gives_the_samples_of_one(tmp_path):
    for processes in (1, 2):
        out, tensors = tmp_path / f"{processes}.png", tmp_path / f"{processes}.safetensors"
        options = ["--model", "edm-digits8", "-n", "100", "--steps", "3", "--device", "cpu"]
        printed = finish(launch(processes, "sample", *options, "--out", str(out), "--tensors", str(tensors)))
        assert printed.split() == [str(out), str(tensors)]
    one, two = (load_file(tmp_path / f"{n}.safetensors") for n in (1, 2))
    assert torch.equal(one["samples"], two["samples"])
    assert torch.equal(one["labels"], two["labels"])
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert not list(tmp_path.glob(".*"))  # the parts are gone


@pytest.mark.slow
def test_claims_measured_by_two_processes_are_those_of_one():
    options = ["claims", "--device", "cpu"]
    for name in ("tweedie", "euler-average", "isotropic-straight"):
        options += ["--only", name]
    alone = finish(launch(1, *options))
    assert alone.count("holds") >= 3
    assert finish(launch(2, *options)) == alone


def test_real_emoji_are_known_in_their_own_features_and_not_as_any_colour_pictures():
    """Models of photographs draw 3 x 32 x 32 too: they are not to be compared with emoji by default."""
    truth, told = moments_of("emoji", (3, 32, 32), None, 50)
    assert truth.mean.shape == (64,)
    assert told.startswith("; 50 real images score ")
    with pytest.raises(typer.BadParameter, match="--real must name the moments"):
        moments_of("pixels", (3, 32, 32), None, 50)

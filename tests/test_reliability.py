"""The commands when something comes in between: Ctrl-C, SIGKILL, a full disk, a second process on the same store.

Each is started as a user would, is stopped after its first sign of work, and must say so in a line, leave no half file,
and be done by the same command again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from safetensors import safe_open

from teachkit import data
from teachkit.cli import base
from teachkit.cli.ledger import Ledger
from teachkit.course import claims
from teachkit.edm.interrupt import end_of_step
from tests import warm
from tests.assignments.tiny import solved, tiny

pytestmark = pytest.mark.usefixtures("warm")

DIGITS = ["--model", "edm-digits8", "--device", "cpu"]
EVALUATE = ["evaluate", *DIGITS, "--solvers", "euler", "--nfe", "3", "-n", "130", "--store", "store", "--json"]
SAMPLE = ["sample", *DIGITS, "-n", "200", "--steps", "30", "--tensors", "a.safetensors"]
CLAIMS = ["claims", "--device", "cpu", "--store", "store"]
for _name in ("tweedie", "isotropic-straight", "euler-average", "mean-shift-step"):
    CLAIMS += ["--only", _name]
MEASURED = "store/[!.]*.json"
# A limit on the size of a file stands for a full disk: the system refuses to write on, with another number.
LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = ["teachkit", *sys.argv[2:]]
runpy.run_module("teachkit", run_name="__main__")
"""
# As ``python -m teachkit``, and a file says when the modules are loaded.
READY = """
import pathlib, sys
import teachkit.cli, teachkit.edm, teachkit.evaluation, teachkit.scheduling
pathlib.Path(".cache").mkdir(exist_ok=True)
pathlib.Path(".cache/ready").touch()
teachkit.cli.main()
"""


def environment(folder):
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / ".cache")}


def start(folder, arguments, before=("-c", READY)):
    return subprocess.Popen(
        [sys.executable, *before, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(folder), start_new_session=True,
        preexec_fn=warm.take_interrupts,
    )  # fmt: skip


def finish(folder, arguments):
    process = start(folder, arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    return output


def once(process, sign):
    """Wait for a sign of work; False if the process ended before."""
    deadline = time.monotonic() + 200
    while not sign():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "no sign of work"
        time.sleep(0.002)
    return True


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".cache" not in p.parts)


def assert_whole(folder, finished=True):
    """Every file is what its ending says, and none is left beside its place but paths from which a search goes on."""
    for name in files(folder):
        path = folder / name
        assert path.suffix not in (".tmp", ".part"), name
        assert not path.name.startswith(".") or (path.name.endswith(".paths.safetensors") and not finished), name
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as content:
                for key in content.keys():  # noqa: SIM118
                    content.get_tensor(key)
        if path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), name


def submissions(folder):
    """Two students hand in a small assignment."""
    source = folder / "source" / "tiny.ipynb"
    for place in (folder / "in", source.parent):
        place.mkdir()
    nbformat.write(tiny(), source)
    for student in ("ada", "emmy"):
        nbformat.write(solved(), folder / "in" / f"{student}.ipynb")
    return ["assignments", "grade", "in", "--source", str(source), "--seed", "1", "--seconds", "200"]


# What is run, and the glob of the first file that it leaves; without one, a moment after its modules are loaded. Files
# still being written begin with a dot, and pathlib's * would match them.
LONG = {
    "sample": (SAMPLE, ".samples.parts/*/[!.]*.safetensors"),
    "evaluate": (EVALUATE, "store/*/0*.safetensors"),
    "claims": (CLAIMS, MEASURED),
    "schedule": (["schedule", *DIGITS, "--nfe", "3", "--warm-up", "64", "--save", "s.json", "--plot", "p.png"], None),
    "train": (["train", "digits8", "--images", "640", "--run-dir", "run", "--device", "cpu"], None),
    "grade": (None, "grades/grading.json"),
}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_is_one_line_and_the_same_command_finishes(tmp_path, name):
    arguments, left = LONG[name]
    if name == "grade":
        pytest.importorskip("psutil", reason="grading needs the extra lab")
    arguments = arguments or submissions(tmp_path)
    process = start(tmp_path, arguments)

    working = once(process, lambda: any(tmp_path.glob(left or ".cache/ready")))
    if left is None:
        time.sleep(0.5)
    if working and process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and what it started
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors[-2000:]
    if process.returncode != 0:  # a fast machine may be done before
        assert process.returncode == 130, errors[-2000:]
        assert "teachkit: interrupted" in errors
        assert output == ""
    assert_whole(tmp_path, finished=process.returncode == 0)
    kept = {file: (tmp_path / file).stat().st_mtime_ns for file in files(tmp_path)}
    code = start(tmp_path, arguments)
    _, errors = code.communicate(timeout=300)
    assert code.returncode in ((0, 1) if name == "grade" else (0,)), errors[-2000:]
    assert_whole(tmp_path)
    if name in ("evaluate", "claims"):  # what was finished was not done again
        again = {f: (tmp_path / f).stat().st_mtime_ns for f in kept if not f.endswith("about.json")}
        assert again == {f: kept[f] for f in again}
        assert again


@pytest.mark.slow
def test_training_saves_where_ctrl_c_found_it(tmp_path):
    import torch

    arguments = ["train", "digits8", "--images", "12800", "--run-dir", "run", "--device", "cpu"]
    process = start(tmp_path, [*arguments, "--checkpoint-seconds", "1000"])
    words = ""
    while "/12800 [" not in words or " 0/12800" in words[-60:]:
        piece = os.read(process.stderr.fileno(), 4096).decode()
        assert piece, words
        words += piece
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "goes on from its last checkpoint" in errors
    assert 0 < torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] < 100


def test_a_second_ctrl_c_does_not_wait():
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with end_of_step(alone=True) as interrupted:
            assert not interrupted()
            signal.raise_signal(signal.SIGINT)
            assert interrupted()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with end_of_step(alone=False) as interrupted, pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not interrupted()
    finally:
        signal.signal(signal.SIGINT, handler)


# --- Killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_ledger_that_was_killed_goes_on_and_measures_nothing_twice(tmp_path):
    process = start(tmp_path, CLAIMS)
    assert once(process, lambda: any(tmp_path.glob(MEASURED)))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob(MEASURED)}
    output = finish(tmp_path, CLAIMS)
    assert "4 claims" in output
    assert {file: file.stat().st_mtime_ns for file in before} == before
    (tmp_path / "other").mkdir()
    assert finish(tmp_path / "other", CLAIMS) == output  # as without a kill
    assert len(list(tmp_path.glob(MEASURED))) == 4


def test_a_measurement_is_read_back_only_for_the_same_work(tmp_path):
    entry, other = claims.get("tweedie"), claims.get("mean-shift-step")
    ledger = Ledger(tmp_path, claims.Setting())
    assert ledger.read(entry) is None
    measured = claims.Measurement(0.1 + 0.2, 0.0, 1 / 3, "nats", "how", control=None)
    ledger.write(entry, measured)
    assert ledger.read(entry) == measured
    assert ledger.read(other) is None
    for setting in (claims.Setting(seed=1), claims.Setting(full=True)):
        assert Ledger(tmp_path, setting).read(entry) is None
    assert Ledger(tmp_path, claims.Setting(model="another")).read(entry) == measured  # it is about no network
    network = next(e for e in claims.chosen() if e.needs == "model")
    assert {"model", "weights"} <= set(ledger.about(network))
    whole = ledger.path(entry).read_text()
    for damaged in (whole[:50], "", "[]", whole.replace("0.333", "0.433")):
        ledger.path(entry).write_text(damaged)
        assert ledger.read(entry) is None
    with pytest.raises(TypeError, match="setting must be a Setting, got str"):
        Ledger(tmp_path, "full")


# --- A full disk ------------------------------------------------------------------------------------------------------

WRITES = {
    "sample, shards": (["sample", *DIGITS, "-n", "2", "--steps", "1"], "samples.png", 100),
    "sample, picture": (["sample", "--data", "two_moons", "-n", "2", "--steps", "1"], "samples.png", 4000),
    "evaluate": (EVALUATE, "store/nothing", 1000),
    "schedule": (["schedule", *DIGITS, "--nfe", "3", "--warm-up", "64", "--save", "s.json"], "s.json", 50),
    "train": (["train", "digits8", "--images", "128", "--run-dir", "run", "--device", "cpu"], "run/nothing", 100_000),
    "convert": (
        ["convert", str(data.directory() / "edm-digits8.safetensors"), "c.safetensors", "--force"],
        "c.safetensors", 1000,
    ),
    "claims": (["claims", "--only", "tweedie", "--device", "cpu", "--json", "c.json"], "c.json", 50),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on the size of files")
@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_is_one_line_and_the_old_file_is_whole(tmp_path, name):
    arguments, target, size = WRITES[name]
    old = tmp_path / target
    old.parent.mkdir(exist_ok=True)
    old.write_text("old")
    process = start(tmp_path, [str(size), *arguments], before=("-c", LIMITED))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors[-2000:]
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("teachkit: no room left to write"), errors[-500:]
    assert old.read_text() == "old"
    left = [f for f in files(tmp_path) if f != target and not f.endswith(("lock", ".jsonl"))]
    assert all(not Path(f).name.startswith(".") for f in left)
    assert not [f for f in left if f.endswith((".pt", ".tmp", ".part"))]


def test_a_full_disk_in_words():
    for code in (28, 27):
        assert base.in_words(OSError(code, "words", "a.png")).startswith("no room left to write (a.png)")
    assert base.in_words(OSError(2, "No such file", "a")) == "[Errno 2] No such file: 'a'"
    assert base.in_words(KeyError("x")) == "KeyError: 'x'"
    assert base.in_words(ValueError()) == "ValueError"


# --- Two at once ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_evaluations_on_one_store_give_the_table_of_one(tmp_path):
    both = [start(tmp_path, EVALUATE) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert_whole(tmp_path)
    (tmp_path / "alone").mkdir()
    assert finish(tmp_path / "alone", EVALUATE) == outputs[0][0]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_two_samplings_into_one_file_do_not_disturb_each_other(tmp_path):
    first = start(tmp_path, SAMPLE)
    assert once(first, lambda: (tmp_path / ".samples.parts" / "lock").exists())
    second = start(tmp_path, SAMPLE)
    results = [process.communicate(timeout=300) for process in (first, second)]
    assert first.returncode == 0, results
    assert second.returncode in (0, 1)  # 0 where the first was done before it came
    if second.returncode:
        assert "another process is drawing samples here" in results[1][1]
    assert files(tmp_path) == ["a.safetensors", "samples.png"]
    assert_whole(tmp_path)

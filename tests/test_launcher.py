"""A launcher's environment counts when it is whole, and half of one is none."""

import os
import subprocess
import sys

import pytest

from teachkit import evaluation
from teachkit.launcher import Place, place

pytestmark = pytest.mark.usefixtures("warm")
WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    """Sets exactly these variables of a launcher."""

    def only(**given):
        for name in WHOLE:
            monkeypatch.delenv(name, raising=False)
            if name in given:
                monkeypatch.setenv(name, given[name])

    return only


def test_a_whole_environment_is_believed(environment):
    environment(**WHOLE)
    assert place() == Place(1, 2, 1)
    assert not place().first
    environment(**{**WHOLE, "LOCAL_RANK": ""})
    assert place() == Place(1, 2, 0)


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_half_an_environment_is_no_launcher(environment, missing):
    environment()
    assert place() == Place(0, 1, 0)
    for given in ({k: v for k, v in WHOLE.items() if k != missing}, {**WHOLE, missing: ""}, {missing: WHOLE[missing]}):
        environment(**given)
        assert place() == Place(0, 1, 0)
        with evaluation.processes() as group:
            assert (group.rank, group.world) == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"RANK": "one"}, "RANK must be a whole number"), ({"WORLD_SIZE": "-2"}, "WORLD_SIZE"), ({"RANK": "2"}, "below")],
)
def test_numbers_that_are_none_are_named(environment, change, message):
    environment(**{**WHOLE, **change})
    with pytest.raises(ValueError, match=message):
        place()


@pytest.mark.slow
@pytest.mark.parametrize(
    "left", [{"WORLD_SIZE": "1"}, {"WORLD_SIZE": "4"}, {"WORLD_SIZE": "", "RANK": "", "LOCAL_RANK": ""}]
)
@pytest.mark.parametrize("command", ["train", "sample"])
def test_commands_run_alone_in_half_an_environment(tmp_path, left, command):
    clean = {name: value for name, value in os.environ.items() if name not in WHOLE}
    options = {
        "train": ["digits8", "--images", "128", "--run-dir", str(tmp_path / "run")],
        "sample": ["--model", "edm-digits8", "-n", "2", "--steps", "2", "--out", str(tmp_path / "a.png")],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "teachkit", command, *options, "--device", "cpu"],
        env={**clean, **left, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]

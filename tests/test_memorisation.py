"""What is said about memory: the figures of one network on few and many digits."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from teachkit import data

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import memorisation  # noqa: E402

FOUND = json.loads((data.directory() / "memorisation.json").read_text())


def test_the_figures_are_of_the_tool_that_ships():
    assert FOUND["recipe"] == json.loads(memorisation.RECIPE.text())
    assert [*FOUND["runs"]] == [str(size) for size in memorisation.SIZES]
    assert all([*rows] == [str(step) for step in memorisation.STEPS] for rows in FOUND["runs"].values())


def test_few_digits_are_memorised_and_many_are_not():
    last = [rows[str(memorisation.STEPS[-1])] for rows in FOUND["runs"].values()]
    for few, more in itertools.pairwise(last):
        assert few["median_distance"] < more["median_distance"]
        assert sum(few["loss"]["held_out"]) > sum(more["loss"]["held_out"])
        assert sum(few["loss"]["trained_on"]) < sum(more["loss"]["trained_on"])
    assert last[0]["copies"] > 0.9 * FOUND["samples"]
    assert last[-1]["copies"] == 0


@pytest.mark.parametrize("size", [16, 64, 1617])
def test_training_sees_the_chosen_digits_only(size):
    chosen, held_out = memorisation.digits(size)
    train, other = data.split(memorisation.mixed(size))
    assert torch.equal(train.images, chosen.images)
    assert torch.equal(train.labels, chosen.labels)
    assert torch.equal(other.images, held_out.images[: len(other.images)])


def test_copies_are_counted_and_a_near_second_is_no_copy():
    figures = {"nearest": [0.1, 1.0, 1.0], "second_nearest": [0.11, 3.5, 2.0], "loss": 1}
    assert memorisation.summary(figures) == {
        "median_distance": 1.0, "copies": 1, "three_times_nearer_than_the_second": 1, "loss": 1,
    }  # fmt: skip

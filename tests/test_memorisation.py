"""What is said about memory: the figures of one network on few and many digits, and the cards of those that ship."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from teachkit import data
from teachkit.edm.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import memorisation  # noqa: E402
import model_card  # noqa: E402

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


def test_the_card_tells_a_copier_from_chance():
    recipe = RECIPES["digits8"]
    train, held_out = data.split(data.load("digits8"))
    noise = 0.75 * torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))  # knows of no split
    copier, blind = (model_card.copies(samples, recipe) for samples in (train.images[::30], noise))
    share, low, high = copier["chance"]
    assert copier["nearest_is_training"] == 1 > high
    assert low < share == len(train.images) / (len(train.images) + len(held_out.images)) < high
    assert blind["chance"][1] <= blind["nearest_is_training"] <= blind["chance"][2]


def test_the_floor_of_repeated_draws_falls_with_their_size():
    features = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    floors = [model_card.frechet_floor(features, count, draws=20) for count in (20, 100)]
    for middle, low, high in floors:
        assert 0 < low <= middle <= high
    assert floors[1][0] < floors[0][0]

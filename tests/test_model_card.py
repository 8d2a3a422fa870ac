"""Model cards: their words are those of the figures beside them, and the tests in them can fail."""

import json
import sys
from pathlib import Path

import pytest
import torch

from teachkit import data
from teachkit.edm.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import card_text  # noqa: E402
import model_card  # noqa: E402


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_card_says_what_the_figures_beside_it_say(name):
    figures = json.loads((data.directory() / f"edm-{name}.json").read_text())
    written = (data.directory() / f"edm-{name}.md").read_text()
    assert card_text.card(name, RECIPES[name], figures) == written, "run python tools/model_card.py NAME --redraw"
    assert (data.directory() / f"edm-{name}-samples.png").is_file()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_figures_are_of_every_class_and_of_the_whole_run(name):
    figures, recipe = json.loads((data.directory() / f"edm-{name}.json").read_text()), RECIPES[name]
    assert figures["log"][-1]["images"] == figures["file"]["images"] == recipe.steps * recipe.batch
    assert len(figures["clarity"]["right_by_class"]) == len(data.class_names(recipe.data))
    assert figures["samples"] == card_text.SUBJECTS[recipe.data].samples


def test_pictures_of_samples_are_in_colour_where_the_data_are(tmp_path, monkeypatch):
    monkeypatch.setattr(model_card, "DATA", tmp_path)
    for name, channels in (("digits8", 1), ("emoji", 3)):
        recipe = RECIPES[name]
        side, classes = recipe.network["img_resolution"], recipe.network["label_dim"]
        labels = torch.arange(6 * classes) % classes
        path = model_card.picture(name, torch.zeros(len(labels), channels, side, side), labels, recipe)
        with model_card.Image.open(path) as shown:
            zoom = card_text.SUBJECTS[recipe.data].zoom
            assert shown.size == (zoom * classes * (side + 2), zoom * 7 * (side + 2) + 4)
            assert shown.mode == {1: "L", 3: "RGB"}[channels]


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

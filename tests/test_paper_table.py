"""``teachkit evaluate --paper``: the paper's own table, with a network that ships in the place of the weights."""

import json
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from teachkit import Gaussian, initial_noise, sample, schedules, scheduling
from teachkit.cli import app
from teachkit.edm.published import CONFIGS
from teachkit.evaluation import paper as papers

run = CliRunner().invoke
STAND_IN = ["--paper", "cifar10", "--model", "edm-digits8", "--features", "pixels", "--device", "cpu", "-n", "64"]


def nothing_is_computed(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("samples were drawn")

    monkeypatch.setattr(sys.modules["teachkit.evaluation.table"], "samples_of", refuse)
    monkeypatch.setattr(papers, "gits_levels", refuse)


def words(result):
    return " ".join(result.output.replace("│", " ").split())


def test_a_table_is_filled_where_it_was_run_and_a_second_run_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "WARM_UP", 16)
    asked = ["evaluate", *STAND_IN, "--rows", "DDIM,DDIM+GITS,DPM-Solver-2", "--nfe", "5", "--store", str(tmp_path)]
    result = run(app, [*asked, "--json"])
    assert result.exit_code == 0, result.output
    cells = {(cell["method"], cell["nfe"]): cell for cell in json.loads(result.stdout)}
    assert len(cells) == 10 * 4
    # Five evaluations are no whole number of DPM-Solver-2's steps: the paper has none there either.
    assert {key for key, cell in cells.items() if cell["ours"] is not None} == {("DDIM", 5), ("DDIM+GITS", 5)}
    assert cells["DDIM+GITS", 5]["ours"] < cells["DDIM", 5]["ours"]
    assert cells["iPNDM+GITS", 10]["published"] == 2.49
    assert cells["AMED-Plugin", 5]["published"] is None

    nothing_is_computed(monkeypatch)
    again = run(app, asked)
    assert again.exit_code == 0, again.output
    line = next(line for line in again.stdout.splitlines() if line.startswith("| DDIM+GITS |"))
    assert [cell.strip() for cell in line.split("|")[2:4]] == [f"{cells['DDIM+GITS', 5]['ours']:.2f}", "28.05"]
    assert "Left out this time: DPM-Solver-2, DPM++(3M)" in again.stdout
    assert "need a trained predictor" in again.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--paper", "cifar100"], "--paper must be one of"),
        (["--rows", "DDIM,Heun"], "--rows must be one of"),
        (["--rows", "AMED-Solver"], "needs a trained predictor"),
        (["--rows", ","], "--rows must name at least one"),
        (["--nfe", "7"], "--nfe must be one of 5, 6, 8, 10"),
        (["--nfe", ","], "--nfe must name at least one"),
        (["--solvers", "heun"], "choose --rows"),
        (["--real", "{narrow}"], "moments of 64 pixels features, got 3"),
        (["--features", "inception"], "fid-refs/cifar10-32x32.npz"),
    ],
)
def test_what_cannot_be_filled_is_refused_before_anything_is_computed(tmp_path, monkeypatch, change, message):
    nothing_is_computed(monkeypatch)
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(3), sigma=np.eye(3))
    change = [each.format(narrow=tmp_path / "narrow.npz") for each in change]
    result = run(app, ["evaluate", *STAND_IN, "--store", str(tmp_path), *change])
    assert result.exit_code == 2, result.output
    assert message.replace(" ", "") in words(result).replace(" ", "")


def test_without_weights_and_features_all_that_is_lacking_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("teachkit.cli.paper.find_spec", lambda name: None)
    result = run(app, ["evaluate", "--paper", "imagenet64", "--device", "cpu"])
    assert result.exit_code == 2
    said = words(result).replace(" ", "")
    for part in ("--realFILE", "imagenet-64x64.npz", "teachkit[fid]", "edm-imagenet-64x64-cond-adm.pkl"):
        assert part in said


def test_rows_are_of_a_table(tmp_path):
    result = run(app, ["evaluate", "--rows", "DDIM", "--store", str(tmp_path)])
    assert result.exit_code == 2
    assert "--rows are those of a table" in words(result)


@pytest.mark.parametrize("name", papers.PAPER)
def test_published_numbers_are_of_one_form(name):
    table = papers.PAPER[name]
    assert table.model in CONFIGS
    assert set(papers.RUNS) < set(table.published)
    assert all(len(values) == len(papers.BUDGETS) for values in table.published.values())
    for method, values in table.published.items():  # fewer evaluations never gave better images
        given = [value for value in values if value is not None]
        assert given == sorted(given, reverse=True), method


def test_levels_are_those_of_the_cheapest_path_over_the_paths_of_the_teacher():
    D = Gaussian([1.0, 0.0], [[1.0, 0.0], [0.0, 0.1]])
    x, grid = initial_noise(16, (2,)), schedules.polynomial(60)
    levels = papers.gits_levels(D, x, [6])[6]
    cost = scheduling.cost_matrix(sample(D, x, grid, "ipndm"), "deviation")
    index = [int((grid - level).abs().argmin()) for level in levels]
    assert torch.equal(grid[index], levels)
    best = scheduling.path_cost(cost, torch.tensor(index), 1.15)
    for position in range(1, 6):  # no level can be moved for the better
        for step in (-1, 1):
            other = [*index]
            other[position] += step
            if sorted(set(other)) == other:
                assert scheduling.path_cost(cost, torch.tensor(other), 1.15) >= best

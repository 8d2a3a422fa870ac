"""The table of found schedules: its page says what was measured, and the share that ends elsewhere beside the mean."""

import json
import sys
from pathlib import Path

import pytest

from teachkit import GaussianMixture, initial_noise, sample, schedules, scheduling

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import learned_table  # noqa: E402
import schedule_table  # noqa: E402


def test_the_page_is_that_of_the_rows():
    assert schedule_table.report() == schedule_table.REPORT.read_text(), "run python tools/schedule_table.py --report"


def two_hills():
    return GaussianMixture([0.5, 0.5], [[-3.0, 0.0], [3.0, 1.0]], [0.1, 0.1]), (2,)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One small problem, measured at two of its cells."""
    monkeypatch.setattr(schedule_table, "PROBLEMS", {"hills": schedule_table.Problem("hills", two_hills, 16, 64)})
    monkeypatch.setattr(schedule_table, "ROWS", tmp_path / "rows.jsonl")
    wanted = {("heun", 5), ("fitted", 4)}
    known = {
        ("hills", 0, s, n)
        for s in (*schedule_table.SOLVERS, "fitted")
        for n in schedule_table.BUDGETS
        if (s, n) not in wanted
    }
    measured = list(schedule_table.measure("hills", 0, known))
    assert {(row["solver"], row["nfe"]) for row in measured} == wanted
    return measured


def test_rows_and_page_hold_the_share_that_ends_elsewhere(small):
    heun = next(row for row in small if row["solver"] == "heun")
    D, _ = two_hills()
    x = initial_noise(64, (2,), seed=schedule_table.HELD_OUT)
    exact = sample(D, x, schedules.polynomial(200), "unipc").final
    schedule = scheduling.Schedule(**{k: v for k, v in heun["schedule"].items() if k != "format"})
    final = sample(D, x, schedule.sigmas, schedule.make_solver()).final
    nearest = (final[:, None] - exact).norm(dim=-1).argmin(1)
    # Of ends so near to each other that only noise tells them apart, either will do.
    away = (exact[nearest] - exact).norm(dim=1) > 3 * 2 * 0.002
    assert heun["found"]["elsewhere"] == pytest.approx(float(away.double().mean()), abs=1 / 64)
    assert 0 < heun["found"]["elsewhere"] <= 1
    schedule_table.ROWS.write_text("".join(json.dumps(row) + "\n" for row in small))
    line = next(line for line in schedule_table.report().splitlines() if line.startswith("| heun | 5 |"))
    shares = [100 * heun["found"]["elsewhere"], 100 * min(heun["usual"].values(), key=lambda e: e["mean"])["elsewhere"]]
    assert line.endswith(f"| {shares[0]:.1f} % / {shares[1]:.1f} % |")


def test_what_is_known_is_not_measured_again_until_the_model_changes(tmp_path, monkeypatch):
    measured = []

    def measure(name, seed, known):
        if (name, seed, "heun", 5) not in known:
            measured.append(seed)
            yield {"problem": name, "seed": seed, "solver": "heun", "nfe": 5, "found": {"mean": 0.1}}

    monkeypatch.setattr(schedule_table, "measure", measure)
    monkeypatch.setattr(schedule_table, "write_report", lambda: None)
    monkeypatch.setattr(schedule_table, "ROWS", tmp_path / "rows.jsonl")
    for hills in (two_hills, two_hills, lambda: (GaussianMixture([1.0], [[0.0, 0.0]], [0.1]), (2,))):
        monkeypatch.setattr(schedule_table, "PROBLEMS", {"hills": schedule_table.Problem("hills", hills, 16, 64)})
        schedule_table.main(["--seeds", "2"])
    assert measured == [0, 1, 0, 1]
    assert len(schedule_table.rows()) == 2


def test_a_row_depends_on_all_code_that_decides_it(monkeypatch):
    """Search, solvers, schedules and sampling; a key that cannot find its files keeps nothing."""
    read, seen = Path.read_text, set()
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: (seen.add(self.name), read(self, *a, **k))[1])
    assert schedule_table.key_of(two_hills()[0]) == schedule_table.key_of(two_hills()[0])
    assert {"search.py", "fit.py", "teacher.py", "multistep.py", "families.py", "levels.py", "sampling.py"} <= seen


def test_the_table_of_learned_samplers_is_of_known_problems_and_says_what_it_leaves_out():
    assert set(learned_table.SEEDS) <= set(schedule_table.PROBLEMS)
    assert set(learned_table.methods("edm-digits8")) == set(learned_table.METHODS)
    dear = learned_table.TOO_DEAR["edm-emoji"]
    assert set(learned_table.methods("edm-emoji")) == set(learned_table.METHODS) - set(dear)
    (told,) = learned_table._left_out({("edm-emoji", 4, "fit_solver"): []})
    assert all(method in told for method in dear)
    assert learned_table._left_out({("mixture", 4, "fit_solver"): []}) == []

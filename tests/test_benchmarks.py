"""The runner of the benchmarks: tables, sections that are replaced or kept, and peers that are absent.

Nothing is timed here: a slow machine must not fail a test.
"""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import __main__ as runner
from benchmarks import bench_denoisers, bench_geometry, bench_networks, bench_photos, bench_sampling, peers
from teachkit import edm


def test_a_table_has_a_line_for_each_row_and_aligns_numbers():
    lines = runner.table([{"solver": "euler", "ratio": 0.5}, {"solver": "heun", "ratio": 1.25}]).splitlines()
    assert lines == ["| solver | ratio |", "| --- | ---: |", "| euler | 0.5 |", "| heun | 1.25 |"]


def test_a_section_is_replaced_and_the_others_are_kept(tmp_path):
    path = tmp_path / "RESULTS.md"
    runner.write({"sampling": "first", "denoisers": "kept"}, path)
    runner.write({"sampling": "second\n\n| a |\n| --- |\n| 1 |"}, path)
    runner.write({"other": "new"}, path)
    text = path.read_text()
    assert text.startswith("# Benchmarks\n")
    assert text.count("# Benchmarks") == 1
    assert "first" not in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## denoisers", "## other", "## sampling"]
    assert "kept\n" in text
    assert text.endswith("second\n\n| a |\n| --- |\n| 1 |\n")
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written stays


def test_a_section_says_where_it_was_measured_and_with_which_versions(monkeypatch):
    monkeypatch.setattr(bench_sampling, "compare", lambda: {"euler": (10.0, 30.0, 20.0, 25.0, 60.0)})
    text = runner.section(bench_sampling)
    assert "| euler | 10 | 30 | 20 | 25 | 60 | 0.5 | 0.5 |" in text
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert "k-diffusion" in text.splitlines()[-1]
    assert "no-such-package of unknown version" in runner.versions(("no-such-package",))


def test_an_absent_peer_is_named_with_its_remedy_and_nothing_is_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runner, "write", lambda sections: pytest.fail("wrote"))
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "k_diffusion", raising=False)
    before = torch.get_num_threads()
    runner.main(["sampling", "empirical"])
    told = capsys.readouterr().out
    assert "skipped: k-diffusion is not installed: pip install" in told
    assert "skipped: smalldiffusion is not installed: pip install" in told
    assert torch.get_num_threads() == before


def test_an_unknown_benchmark_is_named():
    known = sorted(path.stem.removeprefix("bench_") for path in Path(runner.__file__).parent.glob("bench_*.py"))
    assert "sampling" in known
    with pytest.raises(SystemExit, match=f"unknown benchmark nothing; known: {', '.join(known)}"):
        runner.main(["nothing"])


def test_the_benchmark_of_denoisers_runs_on_a_small_problem(monkeypatch):
    for name, value in {"POINTS": 200, "DIM": 16, "QUERIES": 8, "REPEATS": 1}.items():
        monkeypatch.setattr(bench_denoisers, name, value)
    rows = bench_denoisers.run()
    assert [row["sigma"] for row in rows] == [80.0, 5.0, 0.5, 0.002]
    assert all(row["peak, GiB"] > 0 for row in rows)


def test_the_benchmark_of_photographs_runs_on_a_few(monkeypatch):
    for name, value in {"COUNT": 2, "STEPS": 3, "REPEATS": 1, "STRIDE": 500}.items():
        monkeypatch.setattr(bench_photos, name, value)
    rows = bench_photos.run()
    assert [row["precision"] for row in rows] == ["float64", "float32"]
    assert all(row["path, s"] >= 0 and row["ratio"] > 0 for row in rows)


def test_the_floor_of_networks_is_every_product_of_one_pass_and_no_more(monkeypatch):
    net = edm.EDMPrecond(
        8, 3, model_type="SongUNet", model_channels=32, channel_mult=[1, 1], attn_resolutions=[4]
    ).eval()
    count = {"conv": 0, "linear": 0, "attention": 0}

    def counted(kind, function):
        def call(*args, **kwargs):
            count[kind] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(F, "conv2d", counted("conv", F.conv2d))
    monkeypatch.setattr(F, "linear", counted("linear", F.linear))
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted("attention", F.scaled_dot_product_attention))
    with torch.inference_mode():
        x = torch.zeros(2, 3, 8, 8)
        whole = F.scaled_dot_product_attention
        call = bench_networks.floor(net, x)
        assert F.scaled_dot_product_attention is whole
        once = dict(count)
        call()
    assert all(once.values())
    assert count == {kind: 2 * calls for kind, calls in once.items()}


@pytest.mark.slow
def test_what_is_above_the_floor_is_given_by_family():
    norm, x = torch.nn.GroupNorm(2, 8), torch.randn(64, 8, 32, 32)
    rows = {str(row["what"]): float(row["s"]) for row in bench_networks.above("net", lambda: norm(x) + x, 1.0)}
    assert list(rows) == [f"net: {family}" for family in bench_networks.FAMILIES]
    assert rows["net: normalisation"] > 0 < rows["net: sums and scalings"]
    assert rows["net: activations"] == 0


def test_the_benchmark_of_geometry_runs_on_a_small_problem(monkeypatch):
    for name, value in {"SIZES": (3, 6), "STEPS": 30, "DIM": 8}.items():
        monkeypatch.setattr(bench_geometry, name, value)
    rows = bench_geometry.run()
    assert [row["paths"] for row in rows] == [3, 6]
    assert all(row["peak, GiB"] > 0 for row in rows)
    assert len(runner.table(rows).splitlines()) == 4


def test_the_loops_of_the_benchmark_of_scheduling_compute_the_same():
    from benchmarks import bench_scheduling
    from teachkit import Gaussian, initial_noise, sample, schedules, scheduling

    D = Gaussian(torch.zeros(6, dtype=torch.float64), torch.linspace(0.1, 4, 6, dtype=torch.float64))
    teacher = sample(D, initial_noise(5, (6,), seed=0), schedules.polynomial(12))
    for metric in ("deviation", "l1", "l2"):  # those that it times
        loop = bench_scheduling.looped_costs(teacher, metric)
        torch.testing.assert_close(scheduling.cost_matrix(teacher, metric), loop, rtol=1e-7, atol=1e-7)
    cost = scheduling.cost_matrix(teacher, "l1")
    values = bench_scheduling.looped_programme(cost, 5)
    for steps, path in enumerate(scheduling.shortest_paths(cost, 5), start=1):
        assert scheduling.path_cost(cost, path) == pytest.approx(values[steps - 1][0])


@pytest.mark.parametrize("power", [1, 2, 2.5])
def test_a_slope_is_the_power_of_the_growth(power):
    from benchmarks import bench_growth

    sizes = (100, 200, 400, 800)
    assert bench_growth.slope(sizes, [3e-4 * n**power for n in sizes]) == pytest.approx(power)


def test_the_benchmark_of_growth_runs_on_small_problems(monkeypatch):
    from benchmarks import bench_growth

    monkeypatch.setattr(bench_growth, "REPEATS", 1)
    small = [(area, what, power, (16, 32), make) for area, what, power, _, make in bench_growth.cases()]
    monkeypatch.setattr(bench_growth, "cases", lambda: small)
    rows = bench_growth.run()
    assert {row["area"] for row in rows} >= {"sampling", "Empirical", "cost matrix", "programme", "network, 8 x 8"}
    assert all(row["largest, ms"] >= 0 for row in rows)
    assert len(runner.table(rows).splitlines()) == len(rows) + 2


def test_a_part_of_a_package_leaves_the_package_as_it_was(monkeypatch, tmp_path):
    """Whatever was imported before: a part twice, then the whole, then a part of the whole."""
    folder = tmp_path / "a_peer_of_ours"
    folder.mkdir()
    (folder / "__init__.py").write_text("whole = True\n")
    (folder / "part.py").write_text("from . import other\nvalue = other.value\n")
    (folder / "other.py").write_text("value = 7\n")
    (folder / "needy.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    for _ in range(2):
        assert peers._part("a_peer_of_ours", "part", "remedy").value == 7
        with pytest.raises(ImportError, match=r"no_such_package.*: pip install it"):
            peers._part("a_peer_of_ours", "needy", "pip install it")
    assert set(sys.modules) == before
    import a_peer_of_ours

    assert a_peer_of_ours.whole
    assert peers._part("a_peer_of_ours", "part", "remedy") is a_peer_of_ours.part
    assert sys.modules["a_peer_of_ours"] is a_peer_of_ours
    for name in set(sys.modules) - before:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.peers("smalldiffusion", "einops")
def test_the_peer_of_the_empirical_denoiser_computes_the_same(monkeypatch):
    from benchmarks import bench_empirical

    rng = torch.Generator().manual_seed(0)
    monkeypatch.setattr(bench_empirical, "REPEATS", 1)
    monkeypatch.setattr(bench_empirical, "points", lambda: {"few": torch.randn(70, 1, 4, 4, generator=rng)})
    rows = bench_empirical.run()  # compares both before it times them
    assert [row["sigma"] for row in rows] == list(bench_empirical.SIGMAS)


def test_the_course_is_timed_lesson_by_lesson_and_a_failure_is_no_time(monkeypatch):
    import types

    from benchmarks import bench_course

    ran = []
    course = types.SimpleNamespace(
        find=lambda names: [Path("00_a.ipynb"), Path("01_b.ipynb")],
        run=lambda path, out: ran.append(path.stem) or path.stem != "broken",
    )
    monkeypatch.setattr(bench_course.importlib, "import_module", lambda name: course)
    rows = bench_course.run()
    assert [row["lesson"] for row in rows] == ["00_a", "01_b", "all"]
    assert ran == ["00_a", "01_b"]
    with pytest.raises(RuntimeError, match=r"broken\.ipynb failed: nothing was measured"):
        bench_course.lesson(course, Path("broken.ipynb"), Path("."))

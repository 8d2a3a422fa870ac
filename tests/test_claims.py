"""The ledger of claims: its rule, its bootstrap, its records; and what is written down is what is measured."""

import ast
import itertools
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from teachkit import data, geometry, metrics
from teachkit.cli import app
from teachkit.course import claims
from teachkit.course.claims import criteria, fixtures, registry, report

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import claims_table  # noqa: E402

RECORD = json.loads((ROOT / "docs" / "claims.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
needs_network = pytest.mark.skipif(
    not (data.directory() / "edm-digits8.safetensors").is_file(), reason="edm-digits8 is not in this checkout"
)
numbers = st.floats(-1e6, 1e6)


# ---- the ledger itself


def test_the_ledger_is_whole():
    entries = claims.chosen()
    assert len(entries) >= 25
    assert len({e.sentence for e in entries}) == len(entries)
    for e in entries:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", e.id)
        assert e.sentence.endswith(".")
        assert "\n" not in e.sentence
        assert e.place
        assert e.criterion.least <= e.criterion.most
        assert re.fullmatch(r"\d\d", e.lesson)
        assert list((ROOT / "notebooks").glob(f"{e.lesson}_*.ipynb"))


def test_names_are_unique_and_unknown_ones_are_refused():
    with pytest.raises(ValueError, match="in the ledger already"):
        registry.claim("tweedie", place="here", criterion=criteria.exact())(lambda run: None)
    with pytest.raises(ValueError, match="needs must be one of"):
        registry.claim("new", place="here", criterion=criteria.exact(), needs="luck")(lambda run: None)
    assert "new" not in claims.REGISTRY
    with pytest.raises(ValueError, match="'no-such'"):
        claims.get("no-such")
    with pytest.raises(ValueError, match="'no-such'"):
        claims.chosen(["tweedie", "no-such"])
    with pytest.raises(ValueError, match="seed"):
        claims.Setting(seed=-1)


@pytest.mark.slow
def test_nothing_below_the_command_line_imports_the_ledger():
    for path in (ROOT / "teachkit").rglob("*.py"):
        if any(path.is_relative_to(ROOT / "teachkit" / own) for own in ("cli", "course/claims")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not {"claims", "teachkit.course.claims"} & {*names, ".".join(module.split(".")[:3])}, path
    code = (
        "import sys, teachkit.course.claims; sys.exit(bool({'matplotlib', 'ipywidgets', 'typer'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- the rule


@given(numbers, st.floats(0, 1e3), st.floats(0, 1e3), numbers, numbers)
def test_the_verdict_follows_the_rule(value, below, above, a, b):
    criterion = criteria.between(min(a, b), max(a, b))
    low, high = value - below, value + above
    inside = criterion.least <= low and high <= criterion.most
    outside = high < criterion.least or low > criterion.most
    expected = "holds" if inside else "does not hold here" if outside else "undecided"
    assert criterion.verdict(value, low, high) == expected


@given(numbers, numbers)
def test_a_control_that_passes_too_is_a_limit(value, control):
    criterion = criteria.at_least(0)
    alone, beside = criterion.verdict(value), criterion.verdict(value, control=control)
    assert beside == ("holds with a limit" if alone == "holds" and control >= 0 else alone)


def test_criteria():
    assert criteria.same_size(10).passes(5)
    assert criteria.same_size(10).passes(20)
    assert not criteria.same_size(10).passes(4.9)
    assert not criteria.same_size(10).passes(20.1)
    assert not criteria.below_one().passes(1.0)
    assert criteria.below_one().passes(0.999)
    assert not criteria.above_one().passes(1.0)
    assert criteria.above_one().passes(1.001)
    assert criteria.order(3).passes(2.75)
    assert not criteria.order(3).passes(2.7)
    assert criteria.exact().passes(1e-11)
    assert not criteria.exact().passes(1e-9)


@pytest.mark.parametrize("bad", [(math.nan, None, None), (1.0, 2.0, 3.0), (1.0, 0.0, math.inf)])
def test_numbers_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="low"):
        criteria.at_least(0).verdict(*bad)


# ---- the bootstrap behind the intervals


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_intervals_cover_a_known_mean_as_often_as_they_say(draw):
    rng = torch.Generator().manual_seed(0)
    covered, trials = 0, 150
    for k in range(trials):
        u = torch.rand(60, generator=rng, dtype=torch.float64)
        x = math.sqrt(2) * torch.erfinv(2 * u - 1) if draw == "normal" else -torch.log1p(-u) - 1
        _, low, high = metrics.bootstrap(torch.mean, x, seed=k)
        covered += low <= 0 <= high
    assert 0.87 <= covered / trials <= 0.99  # 0.95 nominal, less for few samples; 0.018 is its standard error


@given(st.floats(-100, 100), st.floats(0.1, 100))
def test_intervals_follow_shift_and_scale(shift, scale):
    x = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain, moved = (torch.tensor(metrics.bootstrap(torch.mean, y, n_resamples=50)) for y in (x, shift + scale * x))
    torch.testing.assert_close(moved.double(), (shift + scale * plain).double(), rtol=1e-5, atol=1e-4)


def test_intervals_shrink_with_the_root_of_the_number_of_samples():
    rng = torch.Generator().manual_seed(2)
    widths = []
    for n in (100, 1600):
        found = [metrics.bootstrap(torch.mean, torch.randn(n, generator=rng, dtype=torch.float64)) for _ in range(10)]
        widths.append(sum(high - low for _, low, high in found) / len(found))
    assert 3.4 < widths[0] / widths[1] < 4.6


def test_pairs_are_drawn_together():
    rng = torch.Generator().manual_seed(3)
    b = 1 + torch.rand(50, generator=rng, dtype=torch.float64) * 10
    measured = fixtures.ratio(2 * b, b)
    assert measured.low == pytest.approx(2)
    assert measured.high == pytest.approx(2)


def test_an_interval_always_holds_its_value():
    x = torch.tensor([0.0] * 30 + [1.0] * 2, dtype=torch.float64)
    for seed in range(20):
        m = registry.measured(x.roll(seed))
        assert m.low <= m.value <= m.high


# ---- what is printed


@pytest.mark.parametrize("seen", [0.0, 100.0])
def test_none_or_all_of_a_few_paths_do_not_prove_a_rule(seen):
    """A bootstrap of values that are all alike has no width; the exact bound of a share has."""
    values, end = torch.full((96,), seen), 100 * (1 - 0.05 ** (1 / 96))
    for found in (registry.measured(values, "%"), registry.mean(values, "%")):
        assert found[:3] == pytest.approx((0, 0, end) if seen == 0 else (100, 100 - end, 100))
    assert 3.0 < end < 3.1
    assert claims.get("replay").verdict(registry.measured(torch.full((96,), 100.0), "%")) == "undecided"
    assert claims.get("replay").verdict(registry.measured(torch.full((300,), 100.0), "%")) == "holds"


def test_what_is_no_count_is_resampled():
    values = torch.tensor([0.0, 100.0, 50.0, 100.0])
    assert registry.mean(values, "%") == metrics.bootstrap(torch.mean, values.double())
    assert registry.mean(torch.ones(5)) == (1, 1, 1)


@pytest.mark.slow
@needs_network
@pytest.mark.parametrize("name", ["replay", "draws-new", "monotone-images"])
def test_claims_that_count_paths_have_an_interval(fast, name):
    measured = fast[name].measured
    assert measured.high - measured.low > 2


def test_a_lesson_prints_what_the_ledger_says(capsys):
    claims.state(
        "monotone-images", {"digits": metrics.Estimate(100.0, 100.0, 100.0), "ring": metrics.Estimate(62, 58, 66)}
    )
    lines = capsys.readouterr().out.splitlines()
    entry = claims.get("monotone-images")
    assert lines[0] == f"claim: {entry.sentence}"
    assert entry.figure in lines[1]
    assert entry.criterion.words in lines[1]
    assert lines[2] == "  here, digits: 100 % -> holds"
    assert lines[3] == "  here, ring  : 62 % [58, 66] -> does not hold here"
    claims.state("residual-pca", 99.4, 99.3, 99.5, control=61)
    assert capsys.readouterr().out.splitlines()[2] == "  here: 99.4 % [99.3, 99.5]; control 61.0 % -> holds"
    claims.state("raw-pca", {"a": 99.99}, control={"a": 99.98})
    assert capsys.readouterr().out.splitlines()[2] == "  here, a: 99.99 %; control 99.98 % -> holds with a limit"
    claims.state("monotone-images", torch.tensor([100.0, 100.0]), control=torch.tensor([0.0, 50.0]))
    assert capsys.readouterr().out.splitlines()[2] == "  here: 100 % [22, 100]; control 25 % -> undecided"
    claims.state("programme-polynomial", metrics.Estimate(0.9, 0.7, 1.1))
    assert capsys.readouterr().out.splitlines()[3] == "  why: the interval reaches beyond the criterion"
    claims.state("turning-late", {"a": 5.0, "b": 50.0}, control={"a": 9.0})
    reasons = capsys.readouterr().out.splitlines()[4:]
    assert reasons == ["  why, a: the control passes as well"]
    with pytest.raises(ValueError, match="'no-such'"):
        claims.state("no-such", 1.0)
    assert claims.verdict("monotone-images", 62) == "does not hold here"


def test_rounding_to_nothing_has_no_sign_and_an_identity_no_digits(capsys):
    claims.state("orders", -0.01, -0.02, 0.0)
    assert "here: 0.0 ->" in capsys.readouterr().out
    entry = claims.get("tweedie")
    assert entry.show(claims.Measurement(3e-12, 3e-12, 3e-12)) == "below 1e-08"
    assert entry.show(claims.Measurement(0.5, 0.5, 0.5)) == "0.5"


@pytest.fixture
def hostile():
    """A claim whose every text is markup."""
    evil = "<script>alert('x')</script> & \"quoted\""
    entry = registry.Claim(
        "evil", evil, evil, evil, criteria.Criterion(0, 1, evil), lambda run: None, unit=evil, remark=evil
    )
    good = report.Result(entry, claims.Measurement(2.0, 1.5, 2.5, evil, evil, control=3.0))
    return [good, report.Result(entry, None, evil)]


def test_the_page_is_one_file_and_escapes_everything(hostile):
    page = claims.to_html(hostile, claims.Setting(model="<b>model</b>"))
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)

    stack: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta",):
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    parser = Balanced()
    parser.feed(page)
    assert stack == []
    assert page.count("<tr>") == 3


def test_json_keeps_numbers_as_they_are_shown(hostile):
    entry = claims.get("deviation-size")
    result = report.Result(entry, claims.Measurement(0.4812345, 0.46123, 0.50987, "%", "d"))
    row = claims.to_json([result, *hostile], claims.Setting())["claims"][0]
    assert (row["value"], row["low"], row["high"]) == (0.48, 0.46, 0.51)
    assert row["verdict"] == "holds"
    assert "control" not in row
    assert json.loads(json.dumps(row)) == row


def test_one_measurement_that_fails_does_not_stop_the_others():
    def broken(run):
        raise RuntimeError("no luck\nat all")

    def nan(run):
        return claims.Measurement(math.nan, math.nan, math.nan)

    bad = [registry.Claim(n, "S.", "p", None, criteria.at_least(0), f) for n, f in (("a", broken), ("b", nan))]
    results = list(claims.measure_all([*bad, claims.get("isotropic-straight")]))
    assert [r.verdict for r in results] == ["not measured", "not measured", "holds"]
    assert results[0].problem == "RuntimeError: no luck"
    assert "not measured: 2" in claims.to_text(results)


# ---- the command


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory, monkeypatch):
    """Nothing measured elsewhere before is taken for a measurement here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_the_command_prints_measures_and_writes(tmp_path):
    page, record = tmp_path / "claims.html", tmp_path / "claims.json"
    arguments = ["--only", "mean-shift-step", "--only", "likelihood-any-bandwidth", "--device", "cpu"]
    done = CliRunner().invoke(app, ["claims", *arguments, "--json", str(record), "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "2 claims; holds: 1, does not hold here: 1" in done.stdout
    assert "-11.31 nats" in done.stdout
    written = json.loads(record.read_text(encoding="utf-8"))
    assert [c["id"] for c in written["claims"]] == ["mean-shift-step", "likelihood-any-bandwidth"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["claims.html", "claims.json"]


def test_what_was_measured_is_kept_and_can_be_measured_again(tmp_path, monkeypatch):
    calls = []

    def counted(run):
        calls.append(run)
        return claims.Measurement(float(len(calls)), 0.0, 3.0)

    entry = registry.Claim("tweedie", "S.", "p", None, criteria.at_least(0), counted)
    monkeypatch.setitem(claims.REGISTRY, "tweedie", entry)
    arguments = ["claims", "--only", "tweedie", "--device", "cpu", "--store", str(tmp_path)]
    first, second, third = (CliRunner().invoke(app, [*arguments, *more]) for more in ([], [], ["--again"]))
    assert len(calls) == 2
    assert first.stdout == second.stdout != third.stdout
    assert "1 measured before" in second.stderr
    assert "before" not in first.stderr + third.stderr
    (tmp_path / "file").touch()
    lost = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "file" / "store")])
    assert lost.exit_code == 0  # the table is worth printing
    assert "tweedie is not kept for later" in lost.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_the_command_works_in_a_pipe_and_keeps_progress_off_stdout():
    arguments = [sys.executable, "-m", "teachkit", "claims", "--only", "isotropic-straight", "--device", "cpu"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("+ isotropic-straight: holds")
    assert "%|" not in done.stdout
    assert "\r" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--only", "no-such"], 2, "no-such"),
        (["--json", "x.txt"], 2, "must end in .json"),
        (["--seed", "-1"], 2, "seed"),
        (["--model", "edm-digits8", "--only", "tweedie"], 2, "none of the chosen"),
    ],
)
def test_wrong_usage(arguments, code, told):
    done = CliRunner().invoke(app, ["claims", *arguments, "--device", "cpu"])
    assert done.exit_code == code
    assert told in re.sub(r"[\s│]+", " ", done.output)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_a_model_that_is_not_there_is_one_error(tmp_path):
    arguments = [sys.executable, "-m", "teachkit", "claims", "--model", str(tmp_path / "none.safetensors")]
    done = subprocess.run([*arguments, "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("teachkit: ")
    assert "Traceback" not in done.stderr


def test_what_cannot_be_measured_is_exit_code_1(monkeypatch):
    def broken(run):
        raise ValueError("no data")

    entry = registry.Claim("tweedie", "S.", "p", None, criteria.at_least(0), broken)
    monkeypatch.setitem(claims.REGISTRY, "tweedie", entry)
    done = CliRunner().invoke(app, ["claims", "--only", "tweedie", "--device", "cpu"])
    assert done.exit_code == 1
    assert "not measured" in done.stdout
    assert "no data" in done.stdout


def test_claims_apply_to_the_models_they_are_about():
    everything = claims.chosen()
    assert report.applicable(everything, None) == everything
    shipped, other = (report.applicable(everything, m) for m in ("edm-mnist", "edm-cifar10-32x32-uncond-vp"))
    assert {e.needs for e in shipped} == {"model", "model and its data"}
    assert {e.needs for e in other} == {"model"}
    setting = claims.Setting(model="somebody's")
    with pytest.raises(ValueError, match="whose data ship"):
        fixtures.training_data(setting)


# ---- what is written down


def test_the_record_says_what_the_ledger_says():
    for row, entry in zip(RECORD["claims"], claims.chosen(), strict=True):
        assert (row["id"], row["claim"], row["place"]) == (entry.id, entry.sentence, entry.place)
        assert (row["figure"], row["criterion"]) == (entry.figure, entry.criterion.words)
        assert (row["remark"], row["lesson"]) == (entry.remark, entry.lesson)
        assert row["verdict"] in claims.VERDICTS
        assert row["fast"]["verdict"] in claims.VERDICTS


def test_a_claim_with_a_limit_or_a_failure_says_why():
    for row in RECORD["claims"]:
        if row["verdict"] != "holds":
            assert row["remark"], row["id"]  # the reason, not only the rule


def test_the_readme_shows_the_record():
    assert claims_table.render(README, RECORD) == README, "run python tools/claims_table.py --from-file"
    rows = re.findall(r"^\| .+ \| (.+) \|$", README.split(claims_table.START)[1].split(claims_table.END)[0], re.M)[1:]
    assert rows == [row["verdict"] for row in RECORD["claims"]]


@pytest.mark.parametrize("lesson", sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_a_lesson_prints_claims_as_the_ledger_words_them(lesson):
    cells = [
        c for c in json.loads(lesson.read_text(encoding="utf-8"))["cells"] if "claim" in c["metadata"].get("tags", [])
    ]
    words = {e.sentence: (e.place, e.criterion.words) for e in claims.chosen()}
    seen = 0
    for cell in cells:
        assert "claims.state(" in "".join(cell["source"])
        lines = "".join("".join(o.get("text", "")) for o in cell["outputs"]).splitlines()
        for above, below in itertools.pairwise(lines):
            if above.startswith("claim: "):
                place, criterion = words[above.removeprefix("claim: ")]
                assert below.startswith(f"  {place}: ")
                assert below.endswith(f"criterion: {criterion}")
                seen += 1
    assert seen >= len(cells) > 0


@pytest.fixture(scope="module")
def fast():
    """Every claim as `teachkit claims` measures it, by its name."""
    return {result.claim.id: result for result in claims.measure_all()}


@pytest.mark.slow
@needs_network
def test_the_fast_measurements_still_give_these_verdicts(fast):
    recorded = {row["id"]: row for row in RECORD["claims"]}
    for result in fast.values():
        row = recorded[result.claim.id]["fast"]
        assert result.verdict == row["verdict"], (result.claim.id, result.shown, row["here"])
        slack = 10.0**-result.claim.digits + 0.02 * abs(row["value"])
        if not result.claim.identity:
            assert abs(result.measured.value - row["value"]) <= slack, (result.claim.id, result.shown, row["here"])


@needs_network
def test_another_seed_gives_other_noise_and_the_same_verdict():
    entry = claims.get("covariance-matters")
    first, second = (next(claims.measure_all([entry], claims.Setting(seed=s))) for s in (0, 1))
    assert first.verdict == second.verdict == "holds"
    assert first.measured.value != second.measured.value


@needs_network
def test_smooth_controls_keep_chord_and_size_and_are_made_by_chance():
    paths = fixtures.network_paths(registry.Setting())
    x, bows, walks = paths.x.flatten(2), fixtures.bows(paths), fixtures.walks(paths)
    for fake in (bows, walks):
        torch.testing.assert_close(fake[[0, -1]], x[[0, -1]])
        torch.testing.assert_close(geometry.project(fake)[..., 0], geometry.project(paths)[..., 0])
    height = [geometry.deviation(c).amax(0) for c in (paths, bows)]
    torch.testing.assert_close(height[0], height[1])
    assert float((fixtures.bows(paths, seed=1) - bows).abs().max()) > 0.1
    assert float(geometry.explained_variance(bows, 1, remove_chord=True).min()) > 0.9999  # they bend to one side
    assert fixtures.beyond(registry.Setting(), geometry.deviation) == ""  # half a minute: in full measurements only
    fixtures.forget()


@pytest.mark.slow
@needs_network
@pytest.mark.parametrize("name", ["path-length", "straight-share", "monotone-images", "residual-pca"])
def test_what_chords_and_smooth_curves_by_chance_do_too_is_no_evidence(fast, name):
    result = fast[name]
    assert result.verdict == "holds with a limit"
    assert result.claim.criterion.passes(result.measured.control)


@pytest.mark.slow
@needs_network
@pytest.mark.parametrize("name", ["deviation-size", "deviation-where", "bend-law", "bend-predicted", "one-corner"])
def test_what_they_do_not_do_is(fast, name):
    result = fast[name]
    assert result.verdict == "holds"
    assert not result.claim.criterion.passes(result.measured.control)


@pytest.mark.parametrize("name", ["denoiser-ends", "eps-constant-exact"])
def test_what_the_exact_denoiser_does_a_gaussian_does_not(name):
    result = next(claims.measure_all([claims.get(name)]))
    assert result.verdict == "holds"
    assert result.measured.control > 5 * result.claim.criterion.most


def test_what_a_distilled_network_must_beat_is_fitted_and_every_rival_counts():
    rng = torch.Generator().manual_seed(0)
    x, labels = 80 * torch.randn(400, 1, 3, 3, generator=rng), torch.arange(400) % 2
    matrix = torch.randn(2, 9, 9, generator=rng) / 80
    ends = (torch.einsum("bi,bij->bj", x.flatten(1), matrix[labels]) + labels[:, None]).reshape(x.shape)
    fit, rest = slice(0, 300), slice(300, 400)
    found = claims.distilled.affine_map(x[fit], ends[fit], labels[fit], x[rest], labels[rest], ridge=1e-6)
    torch.testing.assert_close(found, ends[rest], rtol=0, atol=1e-3)
    shared = claims.distilled.affine_map(x[fit], ends[fit], 0 * labels[fit], x[rest], 0 * labels[rest], ridge=1e-6)
    assert float((shared - ends[rest]).abs().mean()) > 0.1  # one map for all classes is no rival

    near, far, own = (ends + size * torch.randn(ends.shape, generator=rng) for size in (0.5, 1.0, 0.5))
    m = claims.distilled.against(own, [near, far], ends)
    assert m.low < 0.5 < m.value < 1 < m.high
    assert claims.get("four-steps-distilled").verdict(m) != "holds"


def test_variety_is_within_a_class():
    images, labels = torch.arange(6.0)[:, None] // 2 * 100 + torch.tensor([0.0, 2.0] * 3)[:, None], torch.arange(6) // 2
    assert float(claims.distilled.spread(images, labels)) == 1
    collapsed = images // 100 * 100
    assert float(claims.distilled.spread(collapsed, labels)) == 0
    assert not claims.get("distilled-spread").criterion.passes(0.0)


def test_forgetting_empties_the_caches_of_every_module():
    run = registry.Setting(seed=3)
    before = fixtures.digits(), claims.scheduling._exact_teacher(run, 10)
    assert fixtures.digits() is before[0]
    assert claims.scheduling._exact_teacher(run, 10) is before[1]
    fixtures.forget()
    after = fixtures.digits(), claims.scheduling._exact_teacher(run, 10)
    assert all(new is not old for new, old in zip(after, before))
    fixtures.forget()
    caches = [f for name, module in sys.modules.items() if name.startswith("teachkit.course.claims")
              for f in vars(module).values() if hasattr(f, "cache_info")]  # fmt: skip
    assert len(caches) > 12
    assert all(f.cache_info().currsize == 0 for f in caches)


def test_a_path_that_never_leaves_is_followed_to_its_end():
    run = claims.Setting()
    images, paths = fixtures.digits().images, fixtures.exact_paths(run)[:3]
    assert fixtures.follows(fixtures.exact_denoiser(), paths, images).tolist() == [100.0] * 3


def test_an_interval_over_draws_holds_those_of_all():
    each = [claims.Measurement(0.5, 0.4, 0.6), claims.Measurement(0.9, 0.8, 1.1)]
    assert fixtures.over_draws(each)[:3] == pytest.approx((0.7, 0.4, 1.1))
    found = claims.get("few-paths").measure(claims.Setting())
    assert found.low < 1 < found.high  # sixteen paths do not always find the same route

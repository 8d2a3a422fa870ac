"""Keys of kept results: no two computations share one, and prose, devices and the order of a dict do not count."""

import collections
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from teachkit import Empirical, GaussianMixture, adapters, edm, evaluation, fingerprints, solvers
from teachkit.fingerprints import fingerprint, surroundings, without_prose
from teachkit.scheduling.fitted import FittedMultistep
from teachkit.solvers.one_step import Euler

PACKAGE = Path(fingerprints.__file__).parent
POINTS = torch.eye(3, dtype=torch.float64)
ABAR = [0.9, 0.5, 0.1]
SCALE = 2.0
NET = {"img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1], "num_blocks": 1}
NET |= {"attn_resolutions": [], "model_type": "SongUNet"}


def network(**options):
    torch.manual_seed(0)
    return edm.EDMPrecond(**NET, **options).eval()


def linear(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 3)


def sequential(*names):
    parts = {"a": torch.nn.Tanh(), "b": torch.nn.Softplus()}
    return torch.nn.Sequential(collections.OrderedDict((name, parts[name]) for name in names))


def closing_over(value):
    return lambda x, sigma: value * x


def scaled(x, sigma):
    return SCALE * x


class Own:
    """A denoiser of the user's."""

    def __init__(self, centre):
        self.centre = centre

    def __call__(self, x, sigma, labels=None):
        return 0 * x + self.centre


class Other(Own):
    def __call__(self, x, sigma, labels=None):
        return 0 * x - self.centre


def hooked():
    net = linear()
    net.register_forward_hook(lambda module, inputs, output: 2 * output)
    return net


def not_persistent(value):
    net = linear()
    net.register_buffer("scale", torch.tensor(value), persistent=False)
    return net


APART = {
    "bandwidth": lambda: [Empirical(POINTS), Empirical(POINTS, bandwidth=0.5), Empirical(POINTS, bandwidth=0.25)],
    "classes": lambda: [Empirical(POINTS), Empirical(POINTS, labels=torch.tensor([0, 1, 1]))],
    "kinds": lambda: [
        GaussianMixture([1.0], POINTS[:1], 1.0), GaussianMixture([1.0], POINTS[:1], 2.0), Empirical(POINTS[:1])
    ],
    "wrapped networks": lambda: [adapters.from_eps(linear(seed), ABAR) for seed in (0, 1)],
    "wrapped functions": lambda: [adapters.from_eps(f, ABAR) for f in (lambda z, t: z, lambda z, t: 0 * z)],
    "alphas": lambda: [adapters.from_eps(linear(), a) for a in (ABAR, [0.9, 0.4, 0.1])],
    "rounding": lambda: [adapters.from_eps(linear(), ABAR, round_time=r) for r in (False, True)],
    "predictions": lambda: [f(linear(), ABAR) for f in (adapters.from_eps, adapters.from_v, adapters.from_x0)],
    "time": lambda: [adapters.from_velocity(linear(), time_scale=s, data_at_one=s == 3) for s in (1, 2, 3)],
    "sigma_data": lambda: [network(), network(sigma_data=0.6), network(sigma_min=0.1), network().train()],
    "dtypes": lambda: [network(), network().double()],
    "closures": lambda: [closing_over(value) for value in (1.0, 2.0, POINTS)],
    "partial": lambda: [functools.partial(torch.add, alpha=a) for a in (1, 2)] + [torch.sub],
    "objects": lambda: [Own(0.0), Own(1.0), Other(0.0), Own(0.0).__call__],
    "order of layers": lambda: [sequential("a", "b"), sequential("b", "a")],
    "hooks": lambda: [linear(), hooked()],
    "buffers that are not saved": lambda: [not_persistent(1.0), not_persistent(2.0)],
    "weight norm": lambda: [linear(), torch.nn.utils.parametrizations.weight_norm(linear())],
    "solvers": lambda: [solvers.get(name) for name in solvers.REGISTRY],
    "options": lambda: [solvers.get("ipndm", order=2), solvers.get("ipndm", order=3), solvers.get("dpm2", r=0.4)],
    "fitted": lambda: [FittedMultistep([[w]]) for w in (-1.0, -2.0)],
    "values": lambda: [1, 1.0, True, "1", b"1", None, [1], {1: 1}, {"1": 1}, {1}, [[1]], torch.tensor(1), float("nan")],
    "shapes": lambda: [torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.zeros(2, 3, dtype=torch.int32)],
    "neighbours": lambda: [["ab", "c"], ["a", "bc"], ["abc"], [["ab"], "c"]],
}  # fmt: skip


@pytest.mark.parametrize("kind", APART)
def test_what_computes_other_numbers_has_another_fingerprint(kind):
    first, second = ([fingerprint(value) for value in APART[kind]()] for _ in range(2))
    assert first == second  # made anew, it is the same
    assert len(set(first)) == len(first)


def test_a_name_that_a_function_refers_to_counts(monkeypatch):
    before = fingerprint(scaled)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert fingerprint(scaled) != before


def test_devices_compilation_and_order_do_not_count():
    net = linear()
    before = fingerprint(net)
    assert fingerprint(torch.compile(net, backend="eager")) == before
    net.compile(backend="eager")
    assert fingerprint(net) == before
    net(torch.zeros(1, 3)).sum().backward()
    assert fingerprint(net) == before
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})
    assert fingerprint([torch.device("cuda:1")]) == fingerprint([torch.device("cuda:0")])


def test_an_object_that_holds_itself_is_told_apart_too():
    def loop(value):
        found = Own(value)
        found.itself = [found]
        return fingerprint(found)

    assert loop(1.0) == loop(1.0) != loop(2.0)


def test_what_cannot_be_told_apart_is_refused():
    own = Own(0.0)
    own.session = (number for number in range(3))
    with pytest.raises(TypeError, match=r"a builtins\.generator cannot be told from another one"):
        fingerprint(own)
    with pytest.raises(TypeError, match="cannot be told"):
        evaluation.identify(own, "mine")


@pytest.mark.slow
def test_fingerprints_are_the_same_in_another_process():
    code = "from test_fingerprints import *; print(*[fingerprint(v) for make in APART.values() for v in make()])"
    found = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, text=True, capture_output=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1]


# --- Code -------------------------------------------------------------------------------------------------------------


def test_prose_does_not_count_and_everything_else_does():
    program = 'class A:\n    """Prose."""\n\n    def f(self, x):\n        """More."""\n        return x + 1  # so\n'
    same = "class A:\n    # other words\n    def f(self, x):\n        return (x + 1)\n"
    assert without_prose(program) == without_prose(same)
    assert without_prose(program) != without_prose(program.replace("x + 1", "x + 2"))
    assert without_prose("s = 'a'") != without_prose("s = 'b'")
    assert without_prose("def f():\n    'only'\n") == without_prose("def f():\n    'this'\n")


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package that may be edited, and the key of its code."""
    shutil.copytree(PACKAGE, tmp_path / "teachkit", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprints, "_PACKAGE", tmp_path / "teachkit")

    def edited(file, old="", new=""):
        path = tmp_path / "teachkit" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        fingerprints._code.cache_clear()
        return surroundings()["code"], surroundings("course/claims")["code"]

    yield edited
    fingerprints._code.cache_clear()


@pytest.mark.slow
def test_the_key_follows_what_computes_and_nothing_else(copy):
    library, ledger = copy("solvers/one_step.py")
    assert copy("solvers/one_step.py", "Euler's method: follow", "Of Euler") == (library, ledger)
    assert copy("solvers/one_step.py", "from __future__", "# a remark\nfrom __future__") == (library, ledger)
    assert copy("course/plots/plane.py", "linewidth", "linewidths") == (library, ledger)
    other = copy("course/claims/geometry.py", "100 * geometry.deviation_peak", "101 * geometry.deviation_peak")
    assert other[0] == library
    assert other[1] != ledger
    changed = copy("solvers/one_step.py", "return euler_step(now, sigma_next)", "return now.x")
    assert changed[0] != library
    assert changed[1] != other[1]


def table(folder, denoiser=None):
    wanted = evaluation.methods(["euler"], "cosine", [3], sigma_min=0.002, sigma_max=80.0)
    alone = evaluation.Processes(0, 1, torch.device("cpu"))
    denoiser = denoiser or Empirical(POINTS)
    real = evaluation.streams.FeatureStatistics(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
    options = {"identity": evaluation.identify(denoiser, "test"), "features": "pixels", "count": 8}
    return evaluation.table(denoiser, (3,), wanted, real, alone, folder, **options)[0][1].error


def test_a_changed_solver_or_denoiser_is_evaluated_anew(tmp_path, monkeypatch):
    before = table(tmp_path)
    assert table(tmp_path, Empirical(POINTS, bandwidth=0.5)) != before
    monkeypatch.setattr(Euler, "step", lambda self, now, sigma_next, history: now.denoised)
    changed = table(tmp_path)
    assert changed == table(tmp_path / "fresh") != before


@pytest.mark.slow
def test_the_command_measures_anew_after_an_edit_of_code_and_not_of_prose(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "teachkit", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data").symlink_to(PACKAGE.parent / "data")
    file = tmp_path / "teachkit" / "solvers" / "one_step.py"
    arguments = ["evaluate", "--model", "edm-digits8", "--solvers", "euler", "--nfe", "3", "-n", "70", "--json"]

    def run(old="", new=""):
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))
        done = subprocess.run(
            [sys.executable, "-m", "teachkit", *arguments, "--device", "cpu", "--store", "store"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout, {path: path.stat().st_mtime_ns for path in tmp_path.rglob("0*.safetensors")}

    first, shards = run()
    assert run("Euler's method: follow", "# Of Euler") == (first, shards)
    again, more = run("return euler_step(now, sigma_next)", "return 1.01 * euler_step(now, sigma_next)")
    assert again != first
    assert len(more) == 2 * len(shards)
    assert {path: more[path] for path in shards} == shards

"""Nothing depends on where a program runs: torch's defaults, generators, leftover variables, homes, absent packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from teachkit import (
    Empirical,
    Gaussian,
    GaussianMixture,
    checks,
    data,
    edm,
    evaluation,
    files,
    geometry,
    initial_noise,
    metrics,
    regularity,
    sample,
    schedules,
    scheduling,
    solvers,
)
from teachkit.cli import app
from teachkit.cli.ledger import Ledger
from teachkit.course.claims import Setting
from teachkit.edm import loss, recipes, training
from teachkit.edm.runs import Run
from teachkit.files import cache_directory
from teachkit.fingerprints import fingerprint
from teachkit.launcher import Processes

POINTS = torch.eye(3, dtype=torch.float64)
HOMELESS = """
import os, pwd, sys
def unknown(user): raise KeyError(f"getpwuid(): uid not found: {user}")
pwd.getpwuid = unknown
from teachkit.cli import main
sys.argv[0] = "teachkit"
main()
"""


def python(*arguments, cwd=None, **environment):
    """What a fresh process says; variables that are None are left out of its environment."""
    env = {k: v for k, v in {**os.environ, "OMP_NUM_THREADS": "1", **environment}.items() if v is not None}
    return subprocess.run([sys.executable, *arguments], env=env, cwd=cwd, capture_output=True, text=True)


# --- torch's default dtype --------------------------------------------------------------------------------------------


def recipe():
    network = {"img_resolution": 8, "img_channels": 1, "label_dim": 10, "model_channels": 8, "channel_mult": (1,)}
    network |= {"num_blocks": 1, "attn_resolutions": (), "dropout": 0.1, "label_dropout": 0.1}
    return recipes.Recipe("digits8", {**network, "model_type": "SongUNet"}, images=8, batch=4, validate_every=10**9)


def trained(folder):
    run = Run(recipe(), folder, Processes(0, 1, torch.device("cpu")))
    run.train_step()
    return run.ema


def found_schedule():
    with torch.no_grad():
        return scheduling.find_schedule(Empirical(POINTS), initial_noise(8, (3,)), 4, "ipndm").sigmas


PATHS = sample(Empirical(POINTS), initial_noise(6, (3,)), schedules.polynomial(12))
DIGITS = data.load("mnist5k").images[:4]
SAME = {
    "toys": lambda folder: [make(50, 1) for make in data.TOYS.values()],
    "images": lambda folder: data.load("digits8").images,
    "closed forms": lambda folder: [
        Empirical([[0.1, 0.2], [0.3, 0.4]]), Gaussian([0.1, 0.2], 0.3), GaussianMixture([0.3, 0.7], [[0.1], [0.2]], 0.3)
    ],
    "levels": lambda folder: [schedules.polynomial(7), schedules.cosine(7), schedules.linear(7)],
    "noise": lambda folder: initial_noise(3, (2,)),
    "solvers": lambda folder: [
        sample(Empirical(POINTS), initial_noise(4, (3,)), schedules.logsnr(6), name).final for name in solvers.REGISTRY
    ],
    "shapes": lambda folder: [
        geometry.deviation(PATHS), geometry.explained_variance(PATHS, 2), geometry.curvature_torsion(PATHS.x, 5),
        geometry.project(PATHS),
    ],
    "null models": lambda folder: [
        regularity.brownian_bridge(5, 4, 3, seed=1), regularity.brownian_bridge(12, 6, 3, like=PATHS),
        regularity.integrated_walk(5, 4, 3, seed=1), regularity.integrated_walk(12, 6, 3, like=PATHS),
    ],
    "features": lambda folder: [metrics.digit_features(DIGITS), metrics.digit_probabilities(DIGITS.double())],
    "distances": lambda folder: [
        metrics.sliced_wasserstein(POINTS, 2 * POINTS), metrics.mmd(POINTS, 2 * POINTS),
        metrics.frechet_distance(PATHS.x[0], PATHS.x[-1]), metrics.bootstrap(torch.mean, PATHS.x[0, :, 0]),
    ],
    "schedules": lambda folder: found_schedule(),
    "networks": lambda folder: [
        edm.load("edm-digits8"), edm.load("edm-digits8")(data.load("digits8").images[:2], 0.5),
        recipes.make_denoiser(recipe()),
    ],
    "losses": lambda folder: loss.validation_loss(lambda x, s, labels: 0 * x, DIGITS, None, [0.5]),
    "training": trained,
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_numbers_do_not_depend_on_the_default_dtype(kind, dtype, tmp_path):
    metrics.features._kept.cache_clear()
    expected = fingerprint(SAME[kind](tmp_path))
    metrics.features._kept.cache_clear()
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        assert fingerprint(SAME[kind](tmp_path)) == expected
    finally:
        torch.set_default_dtype(before)
        metrics.features._kept.cache_clear()


# --- Generators -------------------------------------------------------------------------------------------------------

SAMPLED = {
    "empirical": lambda: Empirical(POINTS, bandwidth=0.1),
    "gaussian": lambda: Gaussian(POINTS[0], POINTS),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_a_generator_on_the_cpu_draws_for_any_device(name, generator):
    """The device ``meta`` holds no numbers, and no generator: drawing there with one of the CPU fails."""
    drawn = SAMPLED[name]().to("meta").sample(5, generator)
    assert drawn.device.type == "meta"
    assert drawn.shape == (5, 3)
    assert drawn.dtype == torch.float64


@pytest.mark.parametrize("covariances", [0.1, torch.stack([POINTS, POINTS])], ids=["isotropic", "full"])
def test_a_mixture_draws_its_components_with_that_generator_too(covariances, generator):
    """All but the weights, which are read, lie on ``meta``."""
    denoiser = GaussianMixture([0.5, 0.5], POINTS[:2], covariances)
    weights = denoiser.weights
    denoiser.to("meta").weights = weights
    drawn, labels = denoiser.sample_with_labels(5, generator)
    assert {drawn.device.type, labels.device.type} == {"meta"}
    assert drawn.shape == (5, 3)


# --- matplotlib's backend ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("backend", ["module://not_installed_here.backend", "nonsense", "TkAgg"])
def test_pictures_are_written_whatever_backend_is_inherited(tmp_path, backend):
    for arguments in (
        ["sample", "--data", "two_moons", "-n", "4", "--steps", "2"],
        ["schedule", "--model", "edm-digits8", "--nfe", "3", "--warm-up", "8", "--plot", "plot.png", "--device", "cpu"],
        ["doctor"],
    ):
        done = python("-m", "teachkit", *arguments, cwd=tmp_path, MPLBACKEND=backend)
        assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plot.png", "samples.png"]


# --- The home directory -----------------------------------------------------------------------------------------------


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A home directory of this test's."""
    for name in ("TEACHKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_every_path_knows_the_home_directory(at_home):
    net = edm.load("edm-digits8")
    edm.save(net, "~/nets/a.safetensors")
    edm.convert("~/nets/a.safetensors", "~/nets/b.safetensors")
    assert edm.checkpoints.metadata("~/nets/b.safetensors")["class"] == "EDMPrecond"
    found = scheduling.Schedule(schedules.polynomial(4), "euler", 4)
    found.save("~/found.json")
    assert scheduling.Schedule.load("~/found.json") == found
    (at_home / "features.safetensors").write_bytes(data.verify("digit-features.safetensors").read_bytes())
    metrics.digit_classifier("~/features.safetensors")
    training.train(recipe(), "~/run", progress=False, stop_after=1)
    training.load_ema(recipe(), "~/run")
    shards = evaluation.Shards("~/store", {}, 1)
    shards.run(lambda samples: {"x": POINTS}, evaluation.Processes(0, 1, torch.device("cpu")))
    files.write_whole("~/text", lambda beside: beside.write_text("here"))
    with files.held("~/lock") as held:
        assert (at_home / "lock").exists() == held
    assert Ledger("~/claims", Setting()).folder == at_home / "claims"
    assert checks.path("path", Path("~")) == at_home
    assert not list(at_home.parent.glob("~*"))
    names = ["features.safetensors", "found.json", "nets", "run", "store", "text"]
    assert sorted(p.name for p in at_home.iterdir()) == names


def test_assignments_know_the_home_directory_too(at_home):
    assignments = pytest.importorskip("teachkit.course.assignments", reason="needs the extra course")
    source = next((Path(data.__file__).parents[2] / "notebooks" / "assignments").glob("A1*.ipynb"))
    (at_home / source.name).write_bytes(source.read_bytes())
    built = assignments.build(f"~/{source.name}", "~/copies")
    assert built == [at_home / "copies" / source.name]
    with pytest.raises(ValueError, match="submissions must be a folder"):
        assignments.grade("~/none", f"~/{source.name}", "~/grades")


def test_the_command_line_expands_what_a_shell_leaves(at_home):
    arguments = ["sample", "--model=edm-digits8", "-n", "2", "--steps", "1", "--device", "cpu", "--out=~/a.png"]
    done = CliRunner().invoke(app, [*arguments, "--tensors", "~/a.safetensors"])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in at_home.iterdir()) == ["a.png", "a.safetensors"]
    edm.save(edm.load("edm-digits8"), "~/net.safetensors")
    done = CliRunner().invoke(app, ["convert", "~/net.safetensors", "~/other.safetensors"])
    assert done.exit_code == 0, done.output
    assert not list(at_home.parent.glob("~*"))


def test_one_variable_moves_everything_that_is_kept(at_home, monkeypatch):
    assert cache_directory("claims") == at_home / ".cache" / "teachkit" / "claims"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert cache_directory() == at_home / "xdg" / "teachkit"
    monkeypatch.setenv("TEACHKIT_CACHE", "~/kept")
    assert cache_directory() == at_home / "kept"
    arguments = ["claims", "--only", "isotropic-straight", "--device", "cpu"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    arguments = ["evaluate", "--model", "edm-digits8", "--solvers", "euler", "--nfe", "2", "-n", "2", "--device", "cpu"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with pytest.raises(edm.DownloadError, match=str(at_home / "kept")):
        edm.published.fetch("edm-ffhq-64x64-uncond-ve", url="http://127.0.0.1:9/", quiet=True)
    asked = []
    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda root, **options: asked.append(root) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        data.load("cifar10")
    assert asked == [str(at_home / "kept" / "data")]
    assert sorted(p.name for p in (at_home / "kept").iterdir()) == ["claims", "data", "evaluations"]
    assert [p.name for p in at_home.iterdir()] == ["kept"]


def test_a_user_without_a_home_gets_a_private_folder(tmp_path, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = files.home()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert files.home() == folder
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    os.rename(folder, tmp_path / "teachkit-12345")
    with pytest.raises(PermissionError, match="set HOME or TEACHKIT_CACHE"):
        files.home()
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ValueError, match="must not begin with ~ for a user without a home directory"):
        checks.path("path", "~/a")
    assert checks.path("path", "~a") == Path("~a")  # as a shell has it


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="accounts as POSIX has them")
def test_commands_work_for_a_user_id_without_an_account(tmp_path):
    nobody = dict.fromkeys(("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "TEACHKIT_CACHE"))
    work = ["--model", "edm-digits8", "--solvers", "euler", "--nfe", "2", "-n", "2", "--device", "cpu"]
    for arguments in (["doctor"], ["evaluate", *work], ["train", "digits8", "--images", "128", "--device", "cpu"]):
        done = python("-c", HOMELESS, *arguments, cwd=tmp_path, TMPDIR=str(tmp_path), **nobody)
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]
        if arguments == ["doctor"]:
            assert f"note    cache       {tmp_path}" in done.stdout
            assert "-> set TEACHKIT_CACHE" in done.stdout
    assert list(tmp_path.glob("teachkit-*/.cache/teachkit/evaluations/*/about.json"))


# --- Without Jupyter's widgets ----------------------------------------------------------------------------------------

IN_A_NOTEBOOK = """
import sys, types, warnings
warnings.simplefilter("error")
sys.modules["ipywidgets"] = None
kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython"].get_ipython = lambda: kernel
sys.modules["IPython.display"] = types.ModuleType("IPython.display")
sys.modules["IPython.display"].HTML = sys.modules["IPython.display"].display = object
import teachkit
D = teachkit.Empirical(teachkit.data.two_moons(5))
teachkit.sample(D, teachkit.initial_noise(2, (2,)), teachkit.schedules.polynomial(3), progress=True)
try:
    from teachkit.course import widgets
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_widgets_nothing_is_warned_of_and_the_remedy_is_named():
    done = python("-c", IN_A_NOTEBOOK)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pip install 'teachkit[course]'" in done.stdout
    assert "Warning" not in done.stderr
    assert "0/3" in done.stderr  # the bar, as text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "package"), [("assignments", "nbformat"), ("assignments", "jinja2"), ("plots", "matplotlib")]
)
def test_a_part_of_the_course_names_the_extra_that_is_missing(room, package):
    code = f"import sys; sys.modules[{package!r}] = None; from teachkit.course import {room}"
    told = python("-c", code).stderr.splitlines()[-1]
    assert f"need {package}: pip install 'teachkit[course]'" in told


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_samples(tmp_path):
    code = """if True:
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "torchvision" else find(name, *more)
        sys.argv = ["teachkit", "sample", "-n", "1"]
        from teachkit.cli import main
        main()
    """
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "teachkit: pictures need torchvision: pip install 'teachkit[course]'"
    assert not list(tmp_path.iterdir())

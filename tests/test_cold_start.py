"""teachkit where it was not made: other folders, rights, homes and versions than those of whoever wrote it."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from teachkit.course import outline

ROOT = Path(__file__).resolve().parents[1]
NO_HOME = "/proc/nowhere"  # even root cannot make it

pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="these are tests of a checkout")

# --- Versions ---------------------------------------------------------------------------------------------------------


def direct_requirements() -> dict[str, Requirement]:
    """What pyproject.toml asks for: to run teachkit, and to test it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["course"], *extras["lab"], *extras["docs"], *extras["test"]]
    asked = [Requirement(line) for line in lines]
    return {r.name: r for r in asked if r.name != "teachkit"}


def locked(name: str) -> dict[str, Version]:
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    return {n: Version(v) for n, v in re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)}


@pytest.mark.parametrize("lock", ["oldest", "newest"])
def test_a_lock_holds_an_allowed_version_of_everything(lock):
    pins = locked(lock)
    for name, requirement in direct_requirements().items():
        assert pins[name] in requirement.specifier, f"{name}: {pins[name]} in locks/{lock}.txt, {requirement}"


def test_the_oldest_lock_holds_the_lower_bounds():
    pins = locked("oldest")
    for name, requirement in direct_requirements().items():
        (bound,) = (Version(s.version).release for s in requirement.specifier if s.operator == ">=")
        assert pins[name].release[: len(bound)] == bound, f"{name}: {pins[name]} in locks/oldest.txt, {requirement}"


# --- Places -----------------------------------------------------------------------------------------------------------


def run(*command: object, cwd: Path, **variables: str) -> str:
    """What a command prints, in an environment without traces of this one."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "JUPYTER", "IPYTHON"))}
    environment = {**clean, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout below a folder with a space and letters beyond ASCII, with an environment as `make lab` makes it.

    The environment is new, and borrows torch and the rest from this one.
    """
    copy = tmp_path_factory.mktemp("cold") / "cold start äöü" / "teachkit"
    parts = [
        "teachkit",
        "data",
        "notebooks",
        "tools",
        "locks",
        "Makefile",
        "pyproject.toml",
        "README.md",
        "conftest.py",
    ]
    for part in parts:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / part)
    run(sys.executable, "-m", "venv", "--without-pip", copy / ".venv", cwd=copy)
    python = copy / ".venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=copy).strip())
    site.joinpath("borrowed.pth").write_text(f"{copy}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    (copy / ".venv" / ".stamp-lab").touch()
    return copy


@pytest.mark.slow
def test_a_path_with_spaces_and_letters_beyond_ascii(checkout, tmp_path):
    assert "make lab" in run("make", "help", cwd=checkout)
    shown = run("make", "run", "ARGS=04", cwd=checkout)
    assert "1 of 1 lessons ran" in shown
    assert list((checkout / "build" / "course").glob("04_*.png"))
    python = checkout / ".venv" / "bin" / "python"
    assert f"{len(outline.LESSONS)} in {checkout / 'notebooks'}" in run(
        python, "-m", "teachkit", "doctor", cwd=tmp_path
    )
    sampled = ["sample", "--model", "edm-digits8", "-n", "4", "--steps", "3", "--out", "Ziffern für alle.png"]
    run(python, "-m", "teachkit", *sampled, cwd=tmp_path)
    assert (tmp_path / "Ziffern für alle.png").read_bytes().startswith(b"\x89PNG")


# Inside namespaces of its own: the folder read-only, no network but the loopback that kernels talk over.
ISOLATE = """
import fcntl, os, socket, struct, subprocess, sys
folder, *command = sys.argv[1:]
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.chdir(os.environ["START"])
os.execvp(command[0], command)
"""


def isolated(folder: Path, *command: object, cwd: Path) -> str:
    """What a command prints that can write nothing in ``folder`` and reach no network and no home."""
    root = () if os.geteuid() == 0 else ("--map-root-user",)
    unshare = ["unshare", *root, "--mount", "--net", sys.executable, "-c", ISOLATE, folder]
    return run(*unshare, *command, cwd=cwd, HOME=NO_HOME, START=str(cwd))


@pytest.fixture(scope="module")
def namespaces(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("namespace")
    try:
        isolated(folder, "true", cwd=folder)
    except (AssertionError, FileNotFoundError) as error:
        pytest.skip(f"no namespaces without network and with read-only folders here: {str(error)[-200:]}")


@pytest.mark.slow
def test_a_checkout_that_cannot_be_written_without_home_and_network(checkout, tmp_path, namespaces):
    python = checkout / ".venv" / "bin" / "python"
    probe = (
        "import pathlib, socket, sys\n"
        f"try: (pathlib.Path({str(checkout)!r}) / 'new').touch(); sys.exit('the checkout can be written')\n"
        "except OSError: pass\n"
        "try: socket.create_connection(('192.0.2.1', 80), 2); sys.exit('there is a network')\n"
        "except OSError: pass\n"
        "try: pathlib.Path.home().mkdir(parents=True); sys.exit('there is a home')\n"
        "except OSError: pass\n"
    )
    isolated(checkout, python, "-c", probe, cwd=tmp_path)
    assert "0 problems" in isolated(checkout, python, "-m", "teachkit", "doctor", cwd=tmp_path)
    sampled = ["sample", "--data", "digits8", "-n", "4", "--steps", "3", "--trajectories", "paths.safetensors"]
    shown = isolated(checkout, python, "-m", "teachkit", *sampled, cwd=tmp_path)
    assert shown.split() == ["samples.png", "paths.safetensors"]
    out = tmp_path / "results"
    shown = isolated(checkout, python, checkout / "tools" / "run_course.py", "04", "--out", out, cwd=tmp_path)
    assert "1 of 1 lessons ran" in shown
    assert list(out.glob("04_*.png"))


@pytest.mark.slow
def test_lessons_say_where_they_cannot_write(checkout, tmp_path, namespaces):
    out = checkout / "nowhere"
    command = [checkout / ".venv" / "bin" / "python", checkout / "tools" / "run_course.py", "04", "--out", out]
    with pytest.raises(AssertionError, match=r"cannot write to .*name another folder with --out"):
        isolated(checkout, *command, cwd=tmp_path)

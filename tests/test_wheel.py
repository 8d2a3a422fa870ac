"""An installed wheel finds its own data: built, installed in a fresh environment, used from outside the checkout."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="a wheel is built from a checkout"),
]


def run(*command: object, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_wheel_brings_its_digits(tmp_path):
    for needed in ("build", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.fail(f"{needed} is part of the test extra but not installed; run 'make test' again")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("teachkit-*.whl")

    # A fresh environment that borrows torch and the rest from this one, so that only the wheel is installed.
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=tmp_path)

    code = (
        "import teachkit, importlib.resources as r; from teachkit import data, edm, metrics; "
        "print(teachkit.__file__); print(data.directory()); print((r.files('teachkit') / 'py.typed').is_file()); "
        "print(tuple(data.load('mnist5k').images.shape), tuple(data.load('digits8').images.shape)); "
        "print((metrics.digit_probabilities(data.load('mnist5k').images[::500]).argmax(1)).tolist()); "
        "print(edm.load('edm-emoji').label_dim, tuple(metrics.emoji_features(data.load('emoji32').images[:9]).shape))"
    )
    where, folder, typed, shapes, digits, emoji = run(python, "-c", code, cwd=tmp_path).splitlines()
    for path in (where, folder):
        assert Path(path).resolve().is_relative_to(site.resolve())
    assert Path(folder).name == "_data"
    assert typed == "True"
    assert shapes == "(5000, 1, 28, 28) (1797, 1, 8, 8)"
    assert digits == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
    assert emoji == "9 (9, 64)"

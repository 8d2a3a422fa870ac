"""How the tests run: what a skip means, and that they are these tests, whatever else is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = {
    "peer": "import pytest\n@pytest.mark.peers('no_such_peer', 'json')\ndef test(): assert False",
    "module": "import pytest\npytest.importorskip('no_such_module')\ndef test(): assert False",
    "GPU": "import pytest\ndef test(): pytest.skip('needs a GPU')",
    "run": "def test(): pass",
}


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_skip_that_an_install_could_spare_fails_the_run(workers, tmp_path):
    """With ``--no-skips``, as in `.ci/run`; what the machine itself lacks is no gap."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\nmarkers = peers\n")
    for name, code in CASES.items():
        (tmp_path / f"test_{name}.py").write_text(code)

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", str(workers), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout

    code, shown = run()
    assert code == 0
    assert "1 passed, 3 skipped" in shown
    code, shown = run("--no-skips")
    assert code == 1
    assert "FAILED --no-skips: no_such_peer: not installed, `make peers` does it" in shown
    assert "FAILED --no-skips: could not import 'no_such_module'" in shown
    assert shown.count("FAILED --no-skips") == 2
    code, shown = run("--no-skips", "test_GPU.py", "test_run.py")
    assert code == 0


@pytest.mark.slow
def test_another_package_named_tests_is_not_taken_for_these(tmp_path):
    """Some projects install their own tests under that name."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path)])}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--collect-only",
            "-q",
            "tests/fuzz/test_harness.py",
        ],
        cwd=Path(__file__).resolve().parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout

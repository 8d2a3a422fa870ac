"""A skipped test is a gap: with ``--no-skips``, as in `.ci/run`, it fails the run, unless no install could spare it."""

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
@pytest.mark.parametrize("workers", [0, 1])
def test_a_skip_that_an_install_could_spare_fails_the_run(workers, tmp_path):
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

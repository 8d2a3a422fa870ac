"""Processes forked from one that has imported torch behave as those that are started."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests import warm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("warm"),
    pytest.mark.skipif(sys.platform != "linux", reason="forks as Linux does"),
]
TOLD = """
import os, sys
print(os.getppid(), os.getcwd(), os.environ["HERE"], os.getsid(0) == os.getpid(), sys.argv[1:], input())
print("teachkit" in sys.modules, "torch" in sys.modules, sys.path[0] == "", file=sys.stderr)
sys.exit(3)
"""


def test_a_child_has_its_own_arguments_environment_folder_session_and_streams(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TOLD, "a b"], cwd=tmp_path, env={**os.environ, "HERE": "yes"}, input="in\n", text=True,
        capture_output=True, start_new_session=True,
    )  # fmt: skip
    assert done.stdout == f"{os.getpid()} {tmp_path} yes True ['a b'] in\n"
    assert done.stderr == "False True True\n"  # forked indeed, and without teachkit
    assert done.returncode == 3


def test_a_child_can_be_stopped_and_its_errors_are_told():
    asleep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    assert asleep.poll() is None
    os.killpg(asleep.pid, signal.SIGKILL)
    assert asleep.wait(60) == -signal.SIGKILL
    code = """
import time
try:
    print(1, flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    raise SystemExit(7)
"""
    asleep = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, preexec_fn=warm.take_interrupts
    )
    assert asleep.stdout.readline() == "1\n"
    asleep.send_signal(signal.SIGINT)
    assert asleep.wait(60) == 7
    asleep.stdout.close()
    failed = subprocess.run([sys.executable, "-c", "1 / 0"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_modules_and_files_are_run_and_other_programs_started_as_usual(tmp_path):
    (tmp_path / "own.py").write_text("import sys\nprint(__name__, sys.argv)\n")
    for way in (["-m", "own"], ["own.py"]):
        shown = subprocess.run([sys.executable, *way, "x"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert shown.stdout.startswith("__main__ ['")
        assert shown.stdout.endswith("own.py', 'x']\n")
    told = "import sys\nprint('matplotlib.pyplot' in sys.modules, '' in sys.path)"
    for options, answer in (["-P"], "True False\n"), ([], "False True\n"):
        command = [sys.executable, *options, "-c", told]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout == answer
    assert subprocess.run(["echo", "a"], capture_output=True, text=True).stdout == "a\n"


def test_few_processes_wait(monkeypatch):
    """They hold 400 MB each: the name of the running test starts no new one, and of many settings the last few stay."""

    def children():
        alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        return {child.pid for child in alive if warm.SERVER in child.cmdline()}

    before = children()  # of other tests: also what was forked and still runs, which looks the same
    monkeypatch.setattr(warm, "IMPORTED", "json")  # what they import is not the matter
    say_nothing = [sys.executable, "-c", ""]
    subprocess.run(say_nothing, check=True)
    waiting = list(warm._lines.values())
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "another (call)")
    subprocess.run(say_nothing, check=True)
    assert list(warm._lines.values()) == waiting
    for seed in range(warm.MOST + 1):
        monkeypatch.setenv("PYTHONHASHSEED", str(seed))
        subprocess.run(say_nothing, check=True)
    assert len(warm._lines) == warm.MOST
    patience = time.monotonic() + 60
    while len(children() - before) != warm.MOST:
        assert time.monotonic() < patience, children()
        time.sleep(0.1)

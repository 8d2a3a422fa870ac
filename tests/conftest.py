"""Fixtures shared by the tests, and Hypothesis settings that give the same examples on every run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from teachkit import data

settings.register_profile("teachkit", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("teachkit")


# What a machine may lack and a checkout cannot install, as the reason of a skip names it.
BEYOND_REACH = ("GPU", "CUDA", "internet", "namespaces", "reference")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help=f"fail if a test is skipped, unless for want of what no install brings: {', '.join(BEYOND_REACH)}",
    )


def gaps(reporter: pytest.TerminalReporter) -> list[str]:
    """Reasons of the skips that ``--no-skips`` forbids."""
    if not reporter.config.option.no_skips:
        return []
    skipped = [report.longrepr for report in reporter.stats.get("skipped", [])]  # (file, line, reason)
    reasons = {str(reason).removeprefix("Skipped: ") for _, _, reason in skipped}
    return sorted(reason for reason in reasons if not any(word in reason for word in BEYOND_REACH))


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and gaps(reporter) and session.exitstatus == pytest.ExitCode.OK:  # a worker of xdist has no reporter
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in gaps(terminalreporter):
        terminalreporter.write_line(f"FAILED --no-skips: {reason}", red=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs absent peers; leave out the runs of every wrong answer, unless asked for with ``-m mutants``."""
    for item in items:
        peers = {name for mark in item.iter_markers("peers") for name in mark.args}
        absent = sorted(name for name in peers if importlib.util.find_spec(name) is None)
        if absent:
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(absent)}: not installed, `make peers` does it"))
    if "mutants" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("mutants")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def oracles() -> Path:
    """The folder of reference values, made with the methods' public implementations."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "oracles"
    if not folder.is_dir():
        pytest.skip("the folder of shared reference values is absent")
    return folder


@pytest.fixture(scope="session")
def digits() -> torch.Tensor:
    """1,797 real digits of 8 x 8 pixels in [-1, 1]: (1797, 1, 8, 8), float64."""
    return data.load("digits8").images.double()


# The lessons whose explorers move in the site that tests look at: a slider and a list, a slider alone; quick to draw.
MOVING = ("04", "09")


@pytest.fixture(scope="session")
def built_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the course's site: that named by TEACHKIT_SITE, or one built once for all processes."""
    if named := os.environ.get("TEACHKIT_SITE"):
        return Path(named).resolve()
    fcntl = pytest.importorskip("fcntl", reason="processes wait for each other as POSIX has it")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root, out = Path(__file__).resolve().parents[1], shared / "site" / "html"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "whole").is_file():
            address = ["--repository", "https://github.com/someone/teachkit"]
            command = [sys.executable, root / "tools" / "build_site.py", out, *address, "--moving", *MOVING]
            subprocess.run(command, check=True, capture_output=True)
            (out / "whole").touch()
    return out


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Commands start without having to import torch, see warm.py; but not where few are started (`make quick`)."""
    from tests.warm import Popen

    if "not slow" not in (request.config.option.markexpr or ""):
        monkeypatch.setattr(subprocess, "Popen", Popen)


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grading a folder marks in this process: what stands between it and the marks is not the matter."""
    from teachkit.course.assignments import grade, mark
    from teachkit.course.assignments import notebook as nb

    def marked(source, student, files, limits, seed):  # type: ignore[no-untyped-def]
        return mark(
            nb.read(source), nb.read(files[0]), student=student, assignment=source.stem, limits=limits, seed=seed
        )

    monkeypatch.setattr(sys.modules[grade.__module__], "mark_apart", marked)


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator."""
    return torch.Generator().manual_seed(0)

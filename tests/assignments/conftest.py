"""After marking wrong answers: the table of those that lose marks, also of those that other processes marked."""

from typing import Any

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    from .marking import TABLE

    if hasattr(session.config, "workeroutput"):  # a process of xdist
        session.config.workeroutput["wrong answers"] = TABLE


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    from .marking import TABLE

    TABLE.extend(getattr(node, "workeroutput", {}).get("wrong answers", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from .marking import TABLE

    if TABLE:
        terminalreporter.section("wrong answers that lose marks")
        for row in TABLE:
            terminalreporter.write_line(row)

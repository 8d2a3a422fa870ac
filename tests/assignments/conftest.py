"""After marking wrong answers: the table of those that lose marks."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from .marking import TABLE

    if TABLE:
        terminalreporter.section("wrong answers that lose marks")
        for row in TABLE:
            terminalreporter.write_line(row)

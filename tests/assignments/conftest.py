"""The long run of every wrong answer: left out unless asked for with ``-m mutants``, as `make mutants` does."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mutants: grades every wrong solution; only with -m mutants (make mutants)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "mutants" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("mutants")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from .marking import TABLE

    if TABLE:
        terminalreporter.section("wrong answers that lose marks")
        for row in TABLE:
            terminalreporter.write_line(row)

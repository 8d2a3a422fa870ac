"""Settings for notebooks compared by ``pytest --nbval notebooks``, alone or beside the tests.

This environment's kernel, a time limit, pictures compared by text; and where several processes take a file at a time
(``--dist loadfile``), they begin with what the command line names first. After a lesson's own solution of an exercise,
the same check is given that solution spoilt, in the same kernel, and must refuse it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECK = re.compile(r"^grading\.check\((.+), (\w+)\)$", re.MULTILINE)
SPOILT = """
def _spoilt(answer):
    if callable(answer):
        return lambda *given: _spoilt(answer(*given))
    if isinstance(answer, dict):
        return dict(zip(answer, [*list(answer.values())[1:], *list(answer.values())[:1]]))
    return tuple(map(_spoilt, answer)) if isinstance(answer, (list, tuple)) else -2 * answer - 1

grading.check({}, _spoilt({}))
"""


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # else files go by their number of tests, and the longest by far come last
    if not getattr(config.option, "nbval", False):
        return
    config.option.nbval_current_env = True
    config.option.nbval_sanitize_with = (
        config.option.nbval_sanitize_with or Path(__file__).parent / "tools" / "nbval_sanitize.cfg"
    )
    config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, 900)  # a busy machine is no error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield
    cell = getattr(item, "cell", None)  # an item of nbval has one
    if cell is None or "solution" not in cell.metadata.get("tags", ()) or not (asked := CHECK.search(cell.source)):
        return
    messages: list[dict] = []
    client = item.parent.kernel.kc
    limit = item.config.option.nbval_cell_timeout
    client.execute_interactive(SPOILT.format(*asked.groups()), False, False, timeout=limit, output_hook=messages.append)
    told = "".join(m["content"].get("text", "") for m in messages) or messages
    assert str(told).startswith("✗"), f"the check of {asked[1]} does not refuse a spoilt answer: {told}"

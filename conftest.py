"""Settings for notebooks compared by ``pytest --nbval notebooks``, alone or beside the tests.

This environment's kernel, a time limit, pictures compared by text; and a notebook's cells run in order in one process.
"""

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not getattr(config.option, "nbval", False):
        return
    config.option.nbval_current_env = True
    config.option.nbval_sanitize_with = (
        config.option.nbval_sanitize_with or Path(__file__).parent / "tools" / "nbval_sanitize.cfg"
    )
    config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, 900)  # a busy machine is no error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup``, each notebook is run by one process of the tests, which has its kernel."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group(item.path.stem))

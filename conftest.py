"""Settings for ``pytest --nbval notebooks``: this environment's kernel, a time limit, pictures compared by text."""

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

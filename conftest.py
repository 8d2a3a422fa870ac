"""Settings for notebooks compared by ``pytest --nbval notebooks``, alone or beside the tests.

This environment's kernel, a time limit, pictures compared by text; and where several processes take a file at a time
(``--dist loadfile``), they begin with what the command line names first.
"""

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # else files go by their number of tests, and the longest by far come last
    if not getattr(config.option, "nbval", False):
        return
    config.option.nbval_current_env = True
    config.option.nbval_sanitize_with = (
        config.option.nbval_sanitize_with or Path(__file__).parent / "tools" / "nbval_sanitize.cfg"
    )
    config.option.nbval_cell_timeout = min(config.option.nbval_cell_timeout, 900)  # a busy machine is no error

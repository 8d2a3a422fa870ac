"""Fixtures shared by the tests, and Hypothesis settings that give the same examples on every run."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from teachkit import data

settings.register_profile("teachkit", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("teachkit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long runs of every wrong answer are left out unless asked for with ``-m mutants``, as `make mutants` does."""
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


@pytest.fixture
def generator() -> torch.Generator:
    """A freshly seeded generator."""
    return torch.Generator().manual_seed(0)

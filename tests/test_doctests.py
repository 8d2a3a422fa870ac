"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import teachkit
from teachkit import data

NAMES = [m.name for m in pkgutil.walk_packages(teachkit.__path__, "teachkit.")]
# Examples that open a trained network, which a checkout may not hold.
NEEDS = {"teachkit.edm.checkpoints": "edm-digits8.safetensors"}


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    weights = NEEDS.get(name)
    if weights and not (data.directory() / weights).is_file():
        pytest.skip(f"{weights} is not in this checkout")
    assert doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch}).failed == 0

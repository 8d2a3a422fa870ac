"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import teachkit

NAMES = [m.name for m in pkgutil.walk_packages(teachkit.__path__, "teachkit.")]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    import torch

    result = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    assert result.failed == 0

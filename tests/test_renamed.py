"""Old names say where they have gone."""

import importlib

import pytest

import teachkit
from teachkit import edm, renamed


def from_teachkit():
    from teachkit import plots

    return plots


def from_edm():
    from teachkit.edm import Denoiser

    return Denoiser


def deeper():
    from teachkit.widgets import path_player

    return path_player


@pytest.mark.parametrize("old", renamed.RENAMED)
def test_an_old_name_says_the_new_one(old):
    place, _, name = renamed.RENAMED[old].rpartition(".")
    for module in (old, f"{old}.deeper"):
        with pytest.raises(ImportError, match=f"from {place} import {name}") as caught:
            importlib.import_module(module)
        assert caught.type is ImportError  # not ModuleNotFoundError, which `from` would hide
    assert hasattr(importlib.import_module(place), name) or importlib.import_module(f"{place}.{name}")


@pytest.mark.parametrize(
    ("statement", "new"),
    [
        (from_teachkit, r"from teachkit\.course import plots"),
        (from_edm, r"from teachkit\.edm import LearnedDenoiser in place of Denoiser"),
        (deeper, r"from teachkit\.course import widgets"),
    ],
)
def test_from_says_it_too(statement, new):
    with pytest.raises(ImportError, match=new):
        statement()


def test_attributes_say_it_and_others_are_as_ever():
    with pytest.raises(AttributeError, match=r"from teachkit\.course import plots"):
        teachkit.plots  # noqa: B018
    with pytest.raises(AttributeError, match="LearnedDenoiser"):
        edm.Denoiser  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'teachkit' has no attribute 'nothing'"):
        teachkit.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("teachkit.nothing")
    assert not hasattr(teachkit, "widgets")

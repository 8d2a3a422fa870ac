"""Old names say where they have gone."""

import importlib

import pytest

import teachkit
from teachkit import edm, renamed


@pytest.mark.parametrize("old", renamed.RENAMED)
def test_an_old_name_says_the_new_one(old):
    module, _, name = old.rpartition(".")
    new = renamed.RENAMED[old]
    place, _, last = new.rpartition(".")
    for names, what in ((module, (name,)), (old, ()), (f"{old}.deeper", ())):  # from ... import ..., import ...
        with pytest.raises(ImportError) as caught:
            __import__(names, fromlist=what)
        assert caught.type is ImportError  # not ModuleNotFoundError, which `from` would hide
        assert new in str(caught.value)
        assert f"from {place} import {last}" in str(caught.value)
    found = importlib.import_module(place)
    assert hasattr(found, last) or importlib.import_module(new)


def test_attributes_say_it_too_and_others_are_as_ever():
    with pytest.raises(AttributeError, match=r"from teachkit\.course import plots"):
        teachkit.plots  # noqa: B018
    with pytest.raises(AttributeError, match="LearnedDenoiser"):
        edm.Denoiser  # noqa: B018
    with pytest.raises(AttributeError, match="module 'teachkit' has no attribute 'nothing'"):
        teachkit.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("teachkit.nothing")
    assert not hasattr(teachkit, "widgets")

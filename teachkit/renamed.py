"""Names of version 0.1 that have moved: whoever imports one is told where it is now. To be deleted after 0.2."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["RENAMED", "attribute", "install"]

RENAMED = {
    "teachkit.assignments": "teachkit.course.assignments",
    "teachkit.claims": "teachkit.course.claims",
    "teachkit.denoisers.check_sigma": "teachkit.checks.level",
    **{f"teachkit.denoisers.{n}": f"teachkit.adapters.{n}" for n in ("from_eps", "from_v", "from_velocity", "from_x0")},
    "teachkit.edm.Denoiser": "teachkit.edm.LearnedDenoiser",
    "teachkit.edm.adapters": "teachkit.adapters",
    "teachkit.edm.ending": "teachkit.edm.interrupt",
    "teachkit.geometry.paths": "teachkit.geometry.chord",
    "teachkit.edm.from_diffusers": "teachkit.adapters.from_diffusers",
    "teachkit.grading": "teachkit.course.grading",
    "teachkit.plots": "teachkit.course.plots",
    "teachkit.scheduling.paths": "teachkit.scheduling.dynamic_programme",
    "teachkit.widgets": "teachkit.course.widgets",
}


def _told(name: str) -> str:
    old, new = name.rpartition("."), RENAMED[name].rpartition(".")
    write = f"from {new[0]} import {new[2]}" + (f" in place of {old[2]}" if old[2] != new[2] else "")
    return f"{name} is {RENAMED[name]} since version 0.2: write `{write}`"


class _Finder(importlib.abc.MetaPathFinder):
    """Asked last, so only for what is nowhere; ``from teachkit import plots`` comes here too."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in RENAMED:
            raise ImportError(_told(name), name=name)


def install() -> None:
    """Have imports of the old names raise an ImportError that says the new one."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def attribute(module: str) -> Callable[[str], NoReturn]:
    """A module's ``__getattr__``, for old names that are used without an import of their own (``teachkit.plots``).

    Parameters
    ----------
    module : str
        Its name.

    Returns
    -------
    callable
        Raises an AttributeError that says the new name, or that there is none.
    """

    def missing(name: str) -> NoReturn:
        old = f"{module}.{name}"
        raise AttributeError(
            _told(old) if old in RENAMED else f"module {module!r} has no attribute {name!r}", name=name
        )

    return missing

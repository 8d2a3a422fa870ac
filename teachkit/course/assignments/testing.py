"""What the test cells of an assignment are written with: fresh inputs, and a comparison that explains itself.

A test draws random inputs with `generator`, calls the answer, and passes what came to `expect`, which compares within a
tolerance and says what differs without showing the value expected. The inputs depend on the seed of the cohort, so that
no printed number can be copied from last year. Used by the test cells in ``notebooks/assignments``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import math
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from teachkit.course import grading

__all__ = [
    "PartialScore", "cohort", "expect", "forbid", "forbidden", "generator", "score_from_ratio", "seeded",
    "several",
    "unaided",
]  # fmt: skip

_FORBIDDEN: list[str] = []


class PartialScore(float):
    """Points on a scale, which remember the error ratio they were given for."""

    ratio: float


def cohort(seed: int | None = None) -> int:
    """The seed of this cohort: TEACHKIT_COHORT, which ``seed`` sets for this process, else 0.

    Raises
    ------
    ValueError
        If TEACHKIT_COHORT is not an integer.
    """
    if seed is not None:
        if not isinstance(seed, int):
            raise TypeError(f"seed must be an integer, got {type(seed).__name__}")
        os.environ["TEACHKIT_COHORT"] = str(int(seed))
    text = os.environ.get("TEACHKIT_COHORT") or "0"
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"TEACHKIT_COHORT must be an integer, got {text!r}") from None


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Within the block ``seed`` is the seed of the cohort; None changes nothing."""
    with mock.patch.dict(os.environ):  # put back as it was, also where the variable was not set
        if seed is not None:
            cohort(seed)
        yield


def generator(name: str) -> torch.Generator:
    """Random generator for the test ``name``: the same for the whole cohort, another for the next."""
    digest = hashlib.sha256(f"{cohort()}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def expect(what: str, got: Any, expected: Any, *, rtol: float = 1e-4, atol: float = 1e-8, hint: str = "") -> None:
    """Raise an AssertionError that says how ``got`` differs from ``expected``, if it does.

    Numbers, arrays and tensors of any floating type agree when ``|got - expected| <= atol + rtol * max|expected|``.
    Strings and bools must be equal. A 0-d tensor stands for a number. The message names type, shape and the size of the
    error beside what is allowed, never the values expected. See `teachkit.course.grading.compare`.
    """
    if problem := grading.compare(got, expected, rtol=rtol, atol=atol):
        raise AssertionError(f"{what}: {problem}." + (f" Hint: {hint}" if hint else ""))


def several(what: str, got: Any, count: int) -> Any:
    """``got`` if it is a tuple or list of ``count`` values, otherwise an AssertionError that says what it is."""
    if got is None or got is ...:
        raise AssertionError(f"{what}: not answered yet.")
    if not isinstance(got, (tuple, list)) or len(got) != count:
        size = f" of {len(got)}" if isinstance(got, (tuple, list)) else ""
        raise AssertionError(f"{what}: expected a tuple of {count} values, got a {type(got).__name__}{size}.")
    return got


def score_from_ratio(ratio: float, *, full: float, none: float, points: float) -> PartialScore:
    """Points on a scale: all of them for an error ratio of at most ``full``, none from ``none`` on, log-linear between.

    Parameters
    ----------
    ratio : float
        Error of the answer over the error of the baseline; smaller is better.
    full, none : float
        0 < full < none.
    points : float
        The maximum.

    Returns
    -------
    PartialScore
        A float; its ``ratio`` goes to the leaderboard if it is the value of a test's last line.
    """
    if not 0 < full < none:
        raise ValueError(f"full and none must satisfy 0 < full < none, got {full} and {none}")
    share = math.log(none / max(ratio, full)) / math.log(none / full) if 0 <= ratio < none else 0.0  # NaN too
    score = PartialScore(round(share * points, 2))
    score.ratio = float(ratio)
    return score


@contextlib.contextmanager
def forbid(*names: str) -> Iterator[None]:
    """Within the block, the named parts of teachkit raise when called: ``with forbid("Empirical"): answer(x)``.

    While a submission is graded this holds for the calls of its functions, in the process that runs them. Names are
    classes, functions and modules of ``teachkit``, for example ``"GaussianMixture"``, ``"meanshift.mean_shift"``,
    ``"solvers.Heun.step"``, or ``"geometry"`` for all that is public in it. A function is refused under whatever name
    it was imported.
    """
    import teachkit

    with contextlib.ExitStack() as undo:
        for name in names:
            target: Any = functools.reduce(getattr, name.split("."), teachkit)
            inside = target.__all__ if inspect.ismodule(target) else ()
            parts = {f"{name}.{part}": getattr(target, part) for part in inside} or {name: target}
            for called, part in parts.items():
                if isinstance(part, type):
                    undo.enter_context(mock.patch.object(part, "__init__", functools.partial(_refuse, called)))
                elif inspect.isfunction(part):
                    inner, code = inspect.unwrap(part), _refuse_all.__code__
                    undo.callback(setattr, inner, "__code__", inner.__code__)
                    texts = tuple(_words(called) if c == _WORDS else c for c in code.co_consts)
                    inner.__code__ = code.replace(co_consts=texts)
            _FORBIDDEN.append(name)
            undo.callback(_FORBIDDEN.pop)
        yield


def forbidden() -> list[str]:
    """What is forbidden now."""
    return list(_FORBIDDEN)


def unaided(*names: str) -> Callable[..., Any]:
    """A way to call answers without these parts of teachkit: ``call = unaided("geometry"); call(align, x, y)``.

    An answer gets tensors of its own, so that what it does to them cannot change what is expected of it.
    """

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        with forbid(*names):
            got = function(*(a.clone() if isinstance(a, torch.Tensor) else a for a in arguments))
        if got is None or got is ...:
            raise AssertionError("not answered yet: your function returned nothing.")
        return got

    return call


def _words(name: str) -> str:
    return f"write it yourself: teachkit.{name} is not allowed in this exercise"


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    raise AssertionError(_words(name))


def _refuse_all(*args: Any, **kwargs: Any) -> None:  # its code takes the place of another function's
    raise AssertionError("write it yourself")


_WORDS = "write it yourself"

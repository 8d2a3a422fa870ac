"""Registering, running and comparing: an answer is right when all that its check yields agrees within tolerance."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from teachkit.checks import integer, number, text

__all__ = ["CHECKS", "Check", "Result", "check", "compare", "evaluate", "register"]

Cases = Iterator[tuple[str, Any, Any]]
Question = Callable[[Any, Generator], Cases]


@dataclass(frozen=True)
class Check:
    """A registered check: ``cases(answer, rng)`` yields (what, got, expected).

    Examples
    --------
    >>> CHECKS["share_kept"].hint
    'sort x + (lower - sigma) (x - D) / sigma by x and D: what multiplies x?'
    """

    cases: Question
    hint: str
    rtol: float
    atol: float


@dataclass(frozen=True)
class Result:
    """Outcome of a check; ``passed`` is None while the exercise is not answered.

    Examples
    --------
    >>> Result("climb", False, "look again").passed
    False
    """

    name: str
    passed: bool | None
    message: str

    def __str__(self) -> str:
        return f"{ {True: '✓', False: '✗', None: '○'}[self.passed] } {self.name}: {self.message}"


CHECKS: dict[str, Check] = {}


def register(name: str, hint: str = "", *, rtol: float = 1e-4, atol: float = 1e-8) -> Callable[[Question], Question]:
    """Decorator: register a generator ``(answer, rng) -> (what, got, expected), ...`` as the check ``name``.

    Parameters
    ----------
    name : str
        A new name.
    hint : str
        Shown with a wrong answer.
    rtol, atol : float
        Tolerated error, relative to the largest value expected, and absolute.

    Returns
    -------
    callable
        The decorator. The inputs of the generator must be drawn from ``rng``, a seeded generator of random numbers.

    Examples
    --------
    >>> @register("double", "add it to itself")
    ... def _double(answer, rng):
    ...     yield "twice 3", answer(3), 6
    >>> check("double", lambda x: 2 * x)
    ✓ double: correct
    >>> del CHECKS["double"]
    """
    hint, rtol, atol = text("hint", hint), number("rtol", rtol, least=0), number("atol", atol, least=0)
    if text("name", name) in CHECKS:
        raise ValueError(f"name must be new, but a check called {name!r} exists")

    def add(cases: Question) -> Question:
        CHECKS[name] = Check(cases, hint, rtol, atol)
        return cases

    return add


def check(name: str, answer: Any, *, seed: int = 0) -> None:
    """Check an exercise and print the outcome: ``✓`` right, ``✗`` wrong and why, ``○`` not answered yet.

    Parameters
    ----------
    name : str
        A name from ``grading.CHECKS``; an unknown one is a ValueError that suggests the nearest.
    answer : callable or value
        What the exercise asks for.
    seed : int
        Seed of the random inputs.

    Examples
    --------
    >>> check("two_points", lambda x, sigma: ...)
    ○ two_points: not answered yet
    >>> check("two_points", lambda x, sigma: torch.tanh(x / sigma**2))
    ✓ two_points: correct
    """
    print(evaluate(name, answer, seed=seed))


def evaluate(name: str, answer: Any, *, seed: int = 0) -> Result:
    """The outcome of a check as a `Result`, without printing: for graders and tests.

    Parameters
    ----------
    name : str
        A name from ``grading.CHECKS``; an unknown one is a ValueError that suggests the nearest.
    answer : callable or value
        What the exercise asks for.
    seed : int
        Seed of the random inputs.

    Returns
    -------
    Result
        Passed, failed or not answered, with the message.

    Examples
    --------
    >>> evaluate("share_kept", lambda sigma, lower: 0.5).passed
    False
    """
    seed = integer("seed", seed, 0)
    if text("name", name) not in CHECKS:
        near = difflib.get_close_matches(name, CHECKS, n=1)
        raise ValueError(f"name must be one of {sorted(CHECKS)}, got {name!r}" + (f"; {near[0]!r}?" if near else ""))
    entry, count = CHECKS[name], 0
    try:
        for what, got, expected in entry.cases(answer, torch.Generator().manual_seed(seed)):
            count += 1
            if got is None or got is ...:
                return Result(name, None, "not answered yet")
            problem = compare(got, expected, rtol=entry.rtol, atol=entry.atol)
            if problem:
                return Result(name, False, f"{what}: {problem}." + (f" Hint: {entry.hint}" if entry.hint else ""))
    except Exception as error:
        if "ellipsis" in str(error) or answer is None or answer is ...:
            return Result(name, None, "not answered yet")
        return Result(name, False, f"your answer raised {type(error).__name__}: {error}")
    if not count:
        raise RuntimeError(f"the check {name!r} compared nothing")
    return Result(name, True, "correct")


def compare(got: Any, expected: Any, *, rtol: float = 1e-4, atol: float = 1e-8) -> str | None:
    """Say how ``got`` differs from ``expected``, or return None if it does not.

    Numbers, arrays and tensors agree when |got - expected| <= atol + rtol * max|expected|; bools and strings when
    equal, those of numpy and torch too. The message names type, shape and the size of the error, never the expected
    values. Integers in an array are taken as indices: it says how many are wrong, since by how much means nothing.

    Parameters
    ----------
    got, expected : number, bool, str, array or tensor
        The answer, and what is right.
    rtol, atol : float
        Relative to the largest value expected, and absolute.

    Returns
    -------
    str or None
        What is wrong, None if nothing is.

    Examples
    --------
    >>> compare(2.0, 2.00001)
    >>> compare([1.0, 2.0], [1.0, 3.0])
    '50% of the values are off, by up to 1, which is 0.33 of the largest value expected; 0.0001 is allowed'
    >>> compare(torch.tensor([3, 1, 0]), torch.tensor([3, 1, 2]))
    '1 of 3 indices is wrong'
    """
    rtol, atol = number("rtol", rtol, least=0), number("atol", atol, least=0)
    got, expected = _plain_bool(got), _plain_bool(expected)
    if got is None or got is ...:
        return "not answered yet"
    if isinstance(expected, (str, bool)):
        return None if type(got) is type(expected) and got == expected else f"{got!r} is not right"
    try:
        a, b = _numbers(got), _numbers(expected)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return f"expected {_kind(expected)}, got {_kind(got)}"
    if a.shape != b.shape:
        return f"expected {_kind(expected)}, got {_kind(got)}"
    if not np.isfinite(a).all():
        return f"{np.mean(~np.isfinite(a)):.0%} of the values are NaN or infinite"
    error, scale = np.abs(a - b).max(initial=0), np.abs(b).max(initial=0)
    if error <= atol + rtol * scale:
        return None
    wrong = np.abs(a - b) > atol + rtol * scale
    if b.ndim and _whole(expected):
        return f"{wrong.sum()} of {wrong.size} indices {'is' if wrong.sum() == 1 else 'are'} wrong"
    off = f"off by {error:.2g}" if not b.ndim else f"{wrong.mean():.0%} of the values are off, by up to {error:.2g}"
    if rtol * scale < atol:
        return f"{off}; {atol:.2g} is allowed"
    whole = "the largest value expected" if b.ndim else "the right value"
    return f"{off}, which is {error / scale:.2g} of {whole}; {rtol:.2g} is allowed"


def _whole(value: Any) -> bool:
    """Whether an array or tensor holds integers."""
    return not np.issubdtype(np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value).dtype, np.inexact)


def _plain_bool(value: Any) -> Any:
    """A single bool of numpy or torch as Python's; anything else as it is."""
    single = isinstance(value, np.bool_) or (isinstance(value, Tensor) and value.dtype == torch.bool and not value.ndim)
    return bool(value) if single else value


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=float)


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    name = "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}"
    if isinstance(value, (list, tuple)):
        try:
            shape = _numbers(value).shape
        except Exception:
            return f"{name} that is no table of numbers"
    return name if shape is None else f"{name} of shape {tuple(shape)}"


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers for a check, float64."""
    return torch.randn(*shape, generator=rng, dtype=torch.float64)

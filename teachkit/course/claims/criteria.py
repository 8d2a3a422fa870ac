"""What a measured value must lie between for its claim to hold, and the verdict:

    holds               the whole interval lies between ``least`` and ``most``, and the control's value does not
    holds with a limit  the whole interval does, but the control passes as well
    undecided           the interval lies on both sides, so that the number says neither yes nor no
    does not hold here  the whole interval lies outside

Where a paper gives a figure, "of the same size" is a factor of it. Limits that no paper gives are choices of this
library, and not all were made before measuring. Some were chosen, or narrowed, with values known, so that a trivial
model fails: `one-shape` (0.005), `deviation-size` (a factor of 1.5), `one-corner` (1.25), `draws-new` (50),
`bend-follows-end` (0.7), `speciation-order` (0.7) and `rotation` (50). `monotone-images` and `monotone-plane` asked for
all paths, which no count can show, and ask for 95 in 100 now. These verdicts describe what was seen; they predicted
nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOLDS, LIMIT, UNDECIDED, FAILS = "holds", "holds with a limit", "undecided", "does not hold here"
VERDICTS = (HOLDS, LIMIT, UNDECIDED, FAILS)


@dataclass(frozen=True)
class Criterion:
    """What the value must lie between, and the same in words.

    Examples
    --------
    >>> at_most(0.1).verdict(0.05, low=0.02, high=0.2)
    'undecided'
    """

    least: float
    most: float
    words: str

    def passes(self, value: float) -> bool:
        """Whether a value lies within the criterion."""
        return self.least <= value <= self.most

    def verdict(
        self, value: float, low: float | None = None, high: float | None = None, control: float | None = None
    ) -> str:
        """One of `VERDICTS`, by the rule at the head of this module; without an interval the value stands for it."""
        low, high = value if low is None else low, value if high is None else high
        numbers = (value, low, high) if control is None else (value, low, high, control)
        if not all(math.isfinite(v) for v in numbers):
            raise ValueError(f"value, low, high and control must be finite, got {numbers}")
        if not low <= value <= high:
            raise ValueError(f"need low <= value <= high, got low={low!r}, value={value!r}, high={high!r}")
        if high < self.least or low > self.most:
            return FAILS
        if not (self.passes(low) and self.passes(high)):
            return UNDECIDED
        return LIMIT if control is not None and self.passes(control) else HOLDS


def exact(tolerance: float = 1e-10) -> Criterion:
    """An identity: equal to rounding."""
    return Criterion(-tolerance, tolerance, f"difference below {tolerance:g}")


def between(least: float, most: float) -> Criterion:
    """Between two numbers."""
    return Criterion(least, most, f"between {least:g} and {most:g}")


def same_size(figure: float, factor: float = 2) -> Criterion:
    """The same size as a reported figure, on other data: within a factor, by default two."""
    return Criterion(figure / factor, figure * factor, f"within a factor of {factor:g} of {figure:g}")


def at_least(least: float) -> Criterion:
    """At least a number."""
    return Criterion(least, math.inf, f"at least {least:g}")


def at_most(most: float) -> Criterion:
    """At most a number."""
    return Criterion(-math.inf, most, f"at most {most:g}")


def below_one() -> Criterion:
    """A ratio of errors: below 1."""
    return Criterion(-math.inf, math.nextafter(1.0, 0.0), "a ratio below 1")


def above_one() -> Criterion:
    """A ratio: above 1."""
    return Criterion(math.nextafter(1.0, 2.0), math.inf, "a ratio above 1")


def order(stated: int) -> Criterion:
    """A measured order of convergence: less than a quarter below the stated one."""
    return Criterion(stated - 0.25, math.inf, f"a slope of {stated - 0.25:g} or more")

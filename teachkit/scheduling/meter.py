"""What a search spends: a progress bar over its evaluations, and one line that says what they will cost."""

from __future__ import annotations

import sys
import time

from teachkit.checks import shown
from teachkit.progress import tqdm

COST = "cost"  # of ``progress``: the line alone


def check_progress(value: object) -> bool | str:
    """``progress`` of a search: True, False or "cost"."""
    if isinstance(value, bool) or (isinstance(value, str) and value == COST):
        return value
    wrong = ValueError if isinstance(value, str) else TypeError
    raise wrong(f"progress must be True, False or {COST!r}, got {shown(value)}")


class Meter:
    """Counts evaluations towards a limit: in a bar, and in one line once their time is known.

    The line is written to the error output when the second call of the model is done, so that it is early, and the
    time of the first, in which much is set up, does not count.
    """

    def __init__(self, limit: int, teacher: int, progress: bool | str = False) -> None:
        self.limit, self.teacher, self.spent, self.kept = limit, teacher, 0, 0
        self.told, self.last = progress is False, 0.0
        self.bar = tqdm(total=limit, unit="eval", disable=progress is not True, leave=False)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def known(self, evaluations: int) -> None:
        """Count what needs no evaluation any more."""
        self.kept += evaluations
        self.spent += evaluations
        self.bar.update(evaluations)

    def __call__(self, evaluations: int) -> None:
        """Count evaluations that have just been made."""
        before, self.last = self.last, time.perf_counter()
        if before and evaluations and not self.told:
            self.told = True
            seconds = (self.limit - self.spent) * (self.last - before) / evaluations
            tqdm.write(self.line(seconds), file=sys.stderr)
        self.spent += evaluations
        self.bar.update(evaluations)

    def line(self, seconds: float) -> str:
        """What it will cost, in words; ``seconds`` are for what is left of it."""
        found = f"{self.limit:,} evaluations"
        if self.limit != self.teacher:
            found = f"limit of {found}, {self.teacher:,} of them by the teacher"
        kept = f", {self.kept:,} kept from before" if self.kept else ""
        return f"{found}{kept}: about {max(seconds, 1):,.0f} s"

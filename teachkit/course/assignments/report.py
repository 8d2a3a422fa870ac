"""What is known about a submission after marking, and what a submission may use."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Limits", "Report", "Score", "Written"]


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds for answers and tests, megabytes of memory and of file.

    A cell or a test may take a tenth of the seconds. Cells of the student's own, which no answer needs, have a fifth of
    them in addition, and cannot take any from the tests.

    Examples
    --------
    >>> Limits(total_seconds=40).cell_seconds
    4.0
    """

    total_seconds: float = 600.0
    memory_megabytes: int = 2048
    file_megabytes: float = 20.0
    output_characters: int = 4000
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (isinstance(value, (int, float)) and value > 0):
                raise ValueError(f"{name} must be a number > 0, got {value!r}")

    @property
    def cell_seconds(self) -> float:
        """For one cell, or one test."""
        return self.total_seconds / 10

    @property
    def own_seconds(self) -> float:
        """For all own cells of a student together."""
        return self.total_seconds / 5


@dataclass
class Score:
    """Outcome of one test; ``ratio`` is the error ratio, where the test gives points on a scale.

    Examples
    --------
    >>> Score("a_test", "Basics", "a", 1.0, 2.0, "off by one").maximum
    2.0
    """

    name: str
    title: str
    answer: str
    points: float
    maximum: float
    message: str = ""
    ratio: float | None = None


@dataclass
class Written:
    """A question answered in words: what the student wrote, marked by a person; pictures as data addresses.

    ``output`` and ``shown`` are what the student's cells above printed and drew when the notebook was saved.

    Examples
    --------
    >>> Written("why", "Why?", "Because.", 4.0).points is None
    True
    """

    name: str
    question: str
    text: str
    maximum: float
    points: float | None = None
    comment: str = ""
    pictures: dict[str, str] = field(default_factory=dict)
    output: str = ""
    shown: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """One submission after marking.

    ``id`` is the number of the student's copy. ``errors`` are cells that failed, with the reason; ``untested`` is the
    number of tests for which no time was left; ``hidden`` says whether hidden tests were run; ``failed`` that marking
    itself did not come to an end, so that a person must look. ``changes`` are points that a person added or took off:
    what for, how many, why.

    Examples
    --------
    >>> Report("ann", "A1", scores=[Score("t", "Basics", "a", 1.0, 2.0)]).points
    1.0
    """

    student: str
    assignment: str
    scores: list[Score] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    output: str = ""
    seconds: float = 0.0
    id: int | None = None
    untested: int = 0
    hidden: bool = True
    failed: bool = False
    changes: list[tuple[str, float, str]] = field(default_factory=list)

    @property
    def points(self) -> float:
        """Points from tests."""
        return sum(s.points for s in self.scores)

    @property
    def maximum(self) -> float:
        """What the tests can give."""
        return sum(s.maximum for s in self.scores)

    @property
    def written_points(self) -> float | None:
        """Points for the written questions, or None while one of them is not marked."""
        marks = [w.points for w in self.written if w.points is not None]
        return sum(marks) if len(marks) == len(self.written) else None

    @property
    def written_maximum(self) -> float:
        """What the written questions can give."""
        return sum(w.maximum for w in self.written)

    @property
    def total(self) -> float | None:
        """All points; None while a written question is not marked, or if marking failed."""
        if self.failed or self.written_points is None:
            return None
        return self.points + self.written_points + sum(points for _, points, _ in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Report:
        """The inverse of `to_dict`."""
        scores, written = [Score(**s) for s in plain["scores"]], [Written(**w) for w in plain["written"]]
        errors = [(where, what) for where, what in plain["errors"]]
        changes = [(what, points, why) for what, points, why in plain["changes"]]
        return cls(**{**plain, "scores": scores, "written": written, "errors": errors, "changes": changes})

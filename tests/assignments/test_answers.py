"""The assignments give full marks to every right answer, and take marks from the wrong ones."""

from functools import cache

import pytest

from teachkit.course.assignments import mark

from . import a1_answers, a2_answers, a3_answers, a4_answers
from .marking import Desk, Grader, check_wrong, defined_by

pytestmark = pytest.mark.usefixtures("warm")
ANSWERS = {"a1": a1_answers, "a2": a2_answers, "a3": a3_answers, "a4": a4_answers}
EVERY = pytest.mark.parametrize(("name", "exercise"), [(n, e) for n, a in ANSWERS.items() for e in a.RIGHT])
# All that was written, or one in so many, as often as `make test` can afford it.
ONE_IN = pytest.mark.parametrize(
    "one_in", [pytest.param(4, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.mutants)]
)


@cache
def desk_of(name: str) -> Desk:
    return Desk(ANSWERS[name].NAME)


@cache
def wrong_answers(name: str) -> dict:
    return ANSWERS[name].wrong(desk_of(name))


@pytest.mark.parametrize("name", ANSWERS)
def test_every_exercise_is_covered(name: str):
    right = ANSWERS[name].RIGHT
    assert list(right) == list(desk_of(name).references) == list(wrong_answers(name))
    for exercise in right:
        assert len(right[exercise]) >= 4
        assert len(wrong_answers(name)[exercise]) >= 12


@pytest.mark.slow
@EVERY
def test_right_answers_get_full_marks(name: str, exercise: str):
    desk = desk_of(name)
    for what, code in [("the solution", desk.references[exercise]), *ANSWERS[name].RIGHT[exercise]]:
        result = desk.mark(exercise, code)
        assert result.full, f"{what}: {result.messages}"


FLOAT32 = """
import functools


def _rounded(value):
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(map(_rounded, value))
    return functools.wraps(value)(lambda *a, **k: _rounded(value(*a, **k))) if callable(value) else value


"""


@pytest.mark.slow
@EVERY
def test_answers_in_float32_get_full_marks(name: str, exercise: str):
    """The tolerance is what the texts promise: 1e-4, where nothing else is said."""
    desk = desk_of(name)
    code = desk.references[exercise]
    again = "".join(f"\n{defined} = _rounded({defined})" for defined in defined_by(code))
    result = desk.mark(exercise, code + FLOAT32 + again)
    assert result.full, result.messages


@ONE_IN
@EVERY
def test_wrong_answers_lose_marks(name: str, exercise: str, one_in: int):
    known, wrong = ANSWERS[name].KNOWN.get(exercise, {}), wrong_answers(name)[exercise][::one_in]
    limit = 0 if exercise in getattr(ANSWERS[name], "NUMBERS_ONLY", ()) else None if one_in == 1 else 3
    check_wrong(desk_of(name), exercise, wrong, known, limit=limit)


@pytest.mark.slow
@EVERY
def test_another_cohort(name: str, exercise: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEACHKIT_COHORT", "1")
    desk = desk_of(name)
    result = desk.mark(exercise, desk.references[exercise])
    assert result.full, result.messages


@pytest.mark.mutants
@EVERY
def test_all_answers_in_other_cohorts(name: str, exercise: str, monkeypatch: pytest.MonkeyPatch):
    desk, known = desk_of(name), ANSWERS[name].KNOWN.get(exercise, {})
    wrong = [a for a in wrong_answers(name)[exercise] if a[0] not in known]
    for seed in range(1, 21):
        monkeypatch.setenv("TEACHKIT_COHORT", str(seed))
        for what, code in [("the solution", desk.references[exercise]), *ANSWERS[name].RIGHT[exercise]]:
            result = desk.mark(exercise, code)
            assert result.full, f"cohort {seed}, {what}: {result.messages}"
        if seed <= 3:
            assert not desk.survivors(exercise, wrong), f"cohort {seed}"


@cache
def grader_of(name: str) -> Grader:
    return Grader(desk_of(name))


@ONE_IN
@EVERY
def test_both_graders_give_the_same(name: str, exercise: str, one_in: int):
    """In one process, as nbgrader does, and across the boundary between two: points for points."""
    desk, grader, answers = desk_of(name), grader_of(name), ANSWERS[name]
    right, wrong = answers.RIGHT[exercise], wrong_answers(name)[exercise]
    tried = [*right, *wrong] if one_in == 1 else [right[0], *wrong[:2]]
    marks = {what: (desk.mark(exercise, code), grader.mark(exercise, code)) for what, code in tried}
    differ = {what: (a.points, b.points, b.messages) for what, (a, b) in marks.items() if a.points != b.points}
    assert not differ


@pytest.mark.mutants
@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_submission_gets_the_same(name: str):
    """One right answer to each exercise, together."""
    desk, right = desk_of(name), ANSWERS[name].RIGHT
    report = mark(desk.source, desk.submission({e: right[e][0][1] for e in right}))
    assert report.points == report.maximum, [s.message for s in report.scores if s.message]

"""Assignment 3 gives full marks to every right answer, and takes marks from the wrong ones."""

import pytest

from teachkit.assignments import mark

from . import a3_answers as answers
from .marking import Desk, check_wrong

EXERCISES = list(answers.RIGHT)


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(answers.NAME)


def test_every_exercise_is_covered(desk: Desk):
    assert EXERCISES == list(desk.references) == list(answers.wrong(desk))
    for exercise in EXERCISES:
        assert len(answers.RIGHT[exercise]) >= 4
        assert len(answers.wrong(desk)[exercise]) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("exercise", EXERCISES)
def test_right_answers_get_full_marks(desk: Desk, exercise: str):
    for what, code in [("the solution", desk.references[exercise]), *answers.RIGHT[exercise]]:
        result = desk.mark(exercise, code)
        assert result.full, f"{what}: {result.messages}"


@pytest.mark.slow
@pytest.mark.parametrize("exercise", EXERCISES)
def test_wrong_answers_lose_marks(desk: Desk, exercise: str):
    check_wrong(desk, exercise, answers.wrong(desk)[exercise], answers.KNOWN.get(exercise, {}), limit=10)


@pytest.mark.mutants
@pytest.mark.parametrize("exercise", EXERCISES)
def test_all_wrong_answers_lose_marks(desk: Desk, exercise: str):
    check_wrong(desk, exercise, answers.wrong(desk)[exercise], answers.KNOWN.get(exercise, {}))


@pytest.mark.slow
@pytest.mark.parametrize("exercise", EXERCISES)
def test_other_cohorts(desk: Desk, exercise: str, monkeypatch: pytest.MonkeyPatch):
    for seed in range(1, 6):
        monkeypatch.setenv("TEACHKIT_COHORT", str(seed))
        result = desk.mark(exercise, desk.references[exercise])
        assert result.full, f"cohort {seed}: {result.messages}"


@pytest.mark.mutants
@pytest.mark.parametrize("exercise", EXERCISES)
def test_all_answers_in_other_cohorts(desk: Desk, exercise: str, monkeypatch: pytest.MonkeyPatch):
    wrong = [a for a in answers.wrong(desk)[exercise] if a[0] not in answers.KNOWN.get(exercise, {})]
    for seed in range(1, 21):
        monkeypatch.setenv("TEACHKIT_COHORT", str(seed))
        for what, code in answers.RIGHT[exercise]:
            result = desk.mark(exercise, code)
            assert result.full, f"cohort {seed}, {what}: {result.messages}"
        if seed <= 3:
            assert not desk.survivors(exercise, wrong), f"cohort {seed}"


@pytest.mark.slow
def test_the_grader_agrees(desk: Desk):
    """Right answers across the process boundary: the first of each exercise together in one submission."""
    report = mark(desk.source, desk.submission({e: answers.RIGHT[e][0][1] for e in EXERCISES}))
    assert report.points == report.maximum, [s.message for s in report.scores if s.message]


@pytest.mark.mutants
@pytest.mark.parametrize("number", range(1, 4))
def test_the_grader_agrees_on_more(desk: Desk, number: int):
    report = mark(desk.source, desk.submission({e: answers.RIGHT[e][number][1] for e in EXERCISES}))
    assert report.points == report.maximum, [s.message for s in report.scores if s.message]
    wrong = answers.wrong(desk)
    report = mark(desk.source, desk.submission({e: wrong[e][5 * number][1] for e in EXERCISES}))
    for exercise in EXERCISES:
        points = sum(s.points for s in report.scores if s.answer == exercise)
        assert points == desk.mark(exercise, wrong[exercise][5 * number][1]).points, exercise

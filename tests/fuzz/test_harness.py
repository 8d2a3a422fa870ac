"""The negative control: functions that break the promise, each in its way, are found out; one that keeps it is not."""

import time

import pytest
import torch

from teachkit import checks
from tests.fuzz import harness
from tests.fuzz.harness import Call, fault, faults


def test_a_function_that_keeps_the_promise_has_no_fault():
    assert faults(Call(lambda n: checks.integer("n", n, 1), {"n": 3})) == []


@pytest.mark.parametrize(
    ("function", "value", "says"),
    [
        (lambda x: x.sqrt(), torch.tensor([-1.0]), "not finite"),
        (lambda x: x + torch.ones(3), torch.ones(2), "RuntimeError out of test_harness"),
        (lambda x: x.sum(), "a word", "AttributeError out of test_harness"),
        (lambda x: torch.as_tensor(x), "a word", "TypeError out of test_harness"),
        (lambda x: checks.integer("n", x, 1), 2.5, "does not name it"),
        (lambda x: time.sleep(5), 1.0, "TimeoutError"),
    ],
    ids=["silent NaN", "torch's RuntimeError", "AttributeError", "torch's TypeError", "another name", "hang"],
)
def test_a_broken_promise_is_found(monkeypatch, function, value, says):
    monkeypatch.setattr(harness, "SECONDS", 1)
    assert says in fault(Call(function, {"x": None}), "x", "a kind", value, None)


def test_another_answer_for_the_same_numbers_is_found():
    right = torch.ones(3)
    found = fault(Call(lambda x: 2 * x, {"x": right}), "x", "torch.float32", right, right)
    assert "another answer" in found

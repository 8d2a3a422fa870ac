"""The mutator makes the mistakes it promises, and only code that compiles."""

import ast

import pytest

from .mutants import mutants

STEP = """
def step(x, slope, previous, sigmas, i):
    h = sigmas[i + 1] - sigmas[i]
    if previous is None:
        return x + h * slope
    return x + h * (1.5 * slope - 0.5 * previous)
"""


def test_expected_mistakes_are_among_them():
    codes = {code for _, code in mutants(STEP)}
    for mistake in (
        STEP.replace("sigmas[i + 1] - sigmas[i]", "sigmas[i] - sigmas[i + 1]"),
        STEP.replace("1.5 * slope - 0.5", "1.5 * slope + 0.5"),
        STEP.replace("(1.5 * slope - 0.5 * previous)", "(1.5 * slope)"),
        STEP.replace("- sigmas[i]", "- sigmas[i - 1]"),
        STEP.replace("is None", "is not None"),
        STEP.replace("x + h * slope", "x - h * slope"),
    ):
        assert ast.unparse(ast.parse(mistake)) in codes


def test_each_is_new_and_compiles():
    found = [code for _, code in mutants(STEP)]
    assert len(found) == len(set(found)) > 30
    assert ast.unparse(ast.parse(STEP)) not in found
    for code in found:
        compile(code, "<mutant>", "exec")


def test_limit_and_seed():
    everything = mutants(STEP)
    some = mutants(STEP, 10, seed=3)
    assert len(some) == 10
    assert some == mutants(STEP, 10, seed=3) != mutants(STEP, 10, seed=4)
    assert set(some) < set(everything)
    assert mutants(STEP, 10_000) == everything


def test_bad_input():
    with pytest.raises(ValueError, match="limit"):
        mutants(STEP, 0)
    with pytest.raises(SyntaxError):
        mutants("def f(:")

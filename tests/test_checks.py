"""Arguments are checked by kind and range, and errors are short however large the value."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from teachkit.checks import as_real, choice, class_labels, flag, integer, level, number, real_tensor


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_python_and_numpy_become_python_s(value):
    got = integer("n", value, 1)
    assert type(got) is int
    assert got == 3


@pytest.mark.parametrize("value", [True, 3.0, "3", None, 1j, torch.tensor(3), [3]])
def test_what_merely_looks_like_an_integer_is_none(value):
    with pytest.raises(TypeError, match=r"n must be an integer >= 1, got"):
        integer("n", value, 1)


def test_the_range_of_an_integer_includes_its_ends():
    assert integer("n", 1, 1, 4) == 1
    assert integer("n", 4, 1, 4) == 4
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f"n must be an integer from 1 to 4, got {wrong}"):
            integer("n", wrong, 1, 4)
    with pytest.raises(ValueError, match="from 1 to 9223372036854775807, got an integer of more than 30 digits"):
        integer("n", 10**5000, 1)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), Fraction(2)])
def test_real_numbers_become_floats(value):
    got = number("rho", value)
    assert type(got) is float
    assert got == 2


@pytest.mark.parametrize("value", [True, "2", None, 1j, torch.tensor(2.0), np.ones(2)])
def test_what_is_no_number_is_refused_by_kind(value):
    with pytest.raises(TypeError, match="rho must be a finite number, got"):
        number("rho", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_numbers_are_finite(value):
    with pytest.raises(ValueError, match="rho must be a finite number > 0, got"):
        number("rho", value, above=0)


@pytest.mark.parametrize(
    ("ends", "inside", "outside", "words"),
    [
        ({"least": 0}, 0, -1e-9, ">= 0"),
        ({"most": 1}, 1, 1.001, "<= 1"),
        ({"above": 0}, 1e-300, 0, "> 0"),
        ({"below": 1}, 0.999, 1, "< 1"),
        ({"above": 0, "most": 1}, 1, 0, "> 0 and <= 1"),
    ],
)
def test_the_range_of_a_number(ends, inside, outside, words):
    assert number("p", inside, **ends) == inside
    with pytest.raises(ValueError, match=f"p must be a finite number {words}, got"):
        number("p", outside, **ends)


def test_a_flag_is_true_or_false():
    assert flag("zero", True) is True
    assert flag("zero", np.False_) is False
    for wrong in (1, 0, "yes", None, torch.ones(2)):
        with pytest.raises(TypeError, match="zero must be True or False, got"):
            flag("zero", wrong)


def test_a_choice_lists_what_there_is():
    assert choice("kind", "b", ("a", "b")) == "b"
    with pytest.raises(ValueError, match="kind must be one of 'a', 'b', got 'c'"):
        choice("kind", "c", ("a", "b"))
    for wrong in (np.ones(2), ["a"], None):
        with pytest.raises(TypeError, match="kind must be one of 'a', 'b', got"):
            choice("kind", wrong, ("a", "b"))


def test_a_real_tensor_is_given_back_as_it_is():
    x = torch.ones(2, 3, requires_grad=True)
    assert real_tensor("x", x) is x
    assert real_tensor("x", torch.empty(0)).numel() == 0  # whether that is too few, the caller knows


@pytest.mark.parametrize(
    "value", [1.0, [1.0], np.ones(2), torch.ones(2, dtype=int), torch.ones(2) + 1j, torch.ones(2, device="meta")]
)
def test_other_tensors_are_refused_by_kind(value):
    with pytest.raises(TypeError, match=r"x must be a floating-point tensor \(B, d\)"):
        real_tensor("x", value, "(B, d)")


def test_a_sparse_tensor_and_one_with_holes_are_refused():
    with pytest.raises(TypeError, match="sparse_coo tensor"):
        real_tensor("x", torch.eye(3).to_sparse())
    for hole in (math.nan, math.inf):
        with pytest.raises(ValueError, match="x must be finite, got NaN or infinity"):
            real_tensor("x", torch.tensor([1.0, hole]))


def test_arrays_may_be_reversed_views():
    upward = np.arange(4)
    assert as_real("x", upward[::-1]).tolist() == [3, 2, 1, 0]
    assert class_labels("labels", upward[::-1], 4, torch.device("cpu")).tolist() == [3, 2, 1, 0]
    assert as_real("x", np.float64(3)).ndim == 0


def test_a_noise_level_comes_back_in_the_shape_that_multiplies_a_batch():
    x = torch.zeros(3, 2, 2)
    for one in (2, 2.0, torch.tensor(2), torch.tensor([2.0], dtype=torch.float64)):
        got = level("sigma", one, x)
        assert got.shape == (1, 1, 1)
        assert got.dtype == torch.float32
        assert got.item() == 2
    each = level("sigma", torch.tensor([1, 2, 3]), x, dtype=torch.float64)
    assert each.dtype == torch.float64
    assert each[:, 0, 0].tolist() == [1, 2, 3]
    assert level("sigma", 0.3, x, dtype=torch.float64).item() == 0.3  # not by way of single precision
    assert level("sigma", 0.0, x, zero=True).item() == 0
    assert level("sigma", torch.tensor(-1.0), x, read=False).item() == -1  # left unread
    assert level("sigma", torch.ones(3, device="meta"), x.to("meta"), read=False).is_meta


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0, ValueError, "sigma must be a finite number > 0, got 0"),
        (math.nan, ValueError, "sigma must be a finite number > 0, got nan"),
        ("1", TypeError, "sigma must be a finite number > 0, got '1'"),
        (torch.ones(2), ValueError, r"sigma must be a number, 0-d or \(3,\), got shape \(2,\)"),
        (torch.ones(3, 1), ValueError, r"sigma must be a number, 0-d or \(3,\), got shape \(3, 1\)"),
        (torch.tensor([1.0, 0.0, 1.0]), ValueError, "sigma must be positive and finite"),
        (torch.tensor(math.nan), ValueError, "sigma must be positive and finite"),
        (1e20, ValueError, r"its square a number of torch.float32 \(from 1.1e-19 to 1.8e\+19\), got 1e\+20"),
        (1e-20, ValueError, "its square a number of torch.float32"),
        (torch.tensor(1j), TypeError, "sigma must be a tensor or nested lists of real numbers"),
        (torch.ones(3, device="meta"), TypeError, "sigma must be a tensor or nested lists of real numbers"),
    ],
)
def test_what_is_no_noise_level_is_refused(value, error, words):
    with pytest.raises(error, match=words):
        level("sigma", value, torch.zeros(3, 2))


def test_a_negative_level_is_refused_where_0_is_taken():
    with pytest.raises(ValueError, match=r"sigma must be finite and >= 0, .* or 0\), got \[-1\.0\]"):
        level("sigma", torch.tensor(-1.0), torch.zeros(3, 2), zero=True)
    with pytest.raises(TypeError, match="x must be a tensor with its numbers in memory"):
        level("sigma", 1.0, torch.zeros(3, 2, device="meta"))


def test_messages_stay_short():
    with pytest.raises(TypeError) as caught:
        number("rho", list(range(10_000)))
    assert len(str(caught.value)) < 150

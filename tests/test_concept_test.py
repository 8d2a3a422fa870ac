"""The ten questions of docs/CONCEPT_TEST.md: their form, what the key says, and its numbers, worked out again."""

import csv
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from teachkit import Empirical, Gaussian, geometry, regularity, sample, schedules

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "CONCEPT_TEST.md").read_text()
QUESTIONS, REST = PAGE.split("\n## For instructors\n")
KEY = re.findall(r"\b[A-D]\b", re.search(r"^\| right \|(.+)$", REST, re.M)[1])
ANSWERS = re.split(r"^\*\*\d+ is [A-D]\*\*", REST.split("\n## Form ")[0], flags=re.M)[1:]


def test_ten_questions_of_four_options_of_one_length():
    asked = re.split(r"^\*\*\d+\.\*\*", QUESTIONS, flags=re.M)[1:]
    assert len(asked) == len(KEY) == len(ANSWERS) == 10
    longest = 0
    for text, right in zip(asked, KEY):
        options = dict(re.findall(r"^- ([A-D])\. (.+)$", text, re.M))
        assert list(options) == list("ABCD")
        lengths = {letter: len(option) for letter, option in options.items()}
        assert max(lengths.values()) <= 1.08 * min(lengths.values())
        longest += lengths[right] == max(lengths.values())
    assert longest <= 5, "the longest option is not the right one"


def test_the_key_says_what_each_wrong_answer_reveals_and_where_the_right_one_is_taught():
    assert re.findall(r"^\*\*(\d+) is ([A-D])\*\*", REST, re.M) == [(str(k + 1), right) for k, right in enumerate(KEY)]
    for text, right in zip(ANSWERS, KEY):
        assert re.findall(r"^- ([A-D])\b", text, re.M) == sorted(set("ABCD") - {right})
        assert re.search(r"lessons? \[[^\]]+\]\(\.\./notebooks/\w+\.ipynb\)", text)
    assert "notebooks/" not in QUESTIONS, "the sheet does not say where the answers are"
    assert all(2 <= KEY.count(letter) <= 3 for letter in "ABCD")


def rms(levels):
    """Euler's root-mean-square error on data from a standard Gaussian; starts are those of the exact paths."""
    normal = Gaussian(torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    x = torch.full((1, 1), math.sqrt(1 + levels[0] ** 2), dtype=torch.float64)  # one standard deviation: all is linear
    levels = torch.as_tensor(levels, dtype=torch.float64)
    return abs(sample(normal, x, levels, "euler").x[-1].item() - math.sqrt(1 + levels[-1].item() ** 2))


def test_the_numbers_of_the_key():
    two = Empirical(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    assert two(torch.tensor([[0.5]], dtype=torch.float64), 10.0).item() == pytest.approx(math.tanh(0.005))  # 1
    assert two(torch.tensor([[0.5]], dtype=torch.float64), 0.05).item() == pytest.approx(1, abs=5e-4)  # 10
    assert [round(rms(schedules.logsnr(n).tolist()), 3) for n in (10, 100)] == [0.233, 0.026]  # 2
    shares = geometry.explained_variance(regularity.integrated_walk(200, 8, 2000), 2).mean(0)
    assert [round(100 * share) for share in shares.tolist()] == [70, 93]  # 4
    deviation = math.sqrt(24) * (1.04 - 0.84) / 3.92
    assert 0.5 * (1 + math.erf((1 - 0.93) / deviation / math.sqrt(2))) == pytest.approx(0.61, abs=0.005)  # 5
    given, ten = (schedules.polynomial(n).tolist() for n in (5, 10))
    chosen, even = schedules.cosine(5).tolist(), np.linspace(80, 0.002, 6).tolist()
    assert [sum(0.3 < s < 5 for s in levels[:-1]) for levels in (given, chosen, even)] == [1, 4, 0]  # 6
    more = sorted({*given, *np.linspace(80, 5.9, 7)[1:-1].tolist()}, reverse=True)
    higher = [160.0, *given[1:]]
    errors = [round(rms(levels), 2) for levels in (given, chosen, more, even, higher, ten)]
    assert errors == [0.38, 0.22, 0.38, 0.94, 0.38, 0.23]
    assert 1 / math.sqrt(1.09) - 1 / math.sqrt(26) == pytest.approx(0.76, abs=0.005)
    for d in (100, 10_000):  # 7
        mean = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
        assert (mean, math.sqrt(d - mean**2)) == pytest.approx((math.sqrt(d), 0.71), abs=0.03)
    z = torch.randn(100_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # 9
    both = torch.cat([80 * z, two(80 * z, 80.0)], 1)
    for made_of, missed in ((both[:, :1], 1 - 2 / math.pi), (both, 1 - 7 / (3 * math.pi))):
        weights = torch.linalg.lstsq(made_of, z.sign()).solution
        assert (made_of @ weights - z.sign()).square().mean().item() == pytest.approx(missed, abs=0.005)
    assert weights[-1].item() == pytest.approx(200_000, rel=0.05)
    at_least_six = sum(math.comb(10, k) * 3 ** (10 - k) for k in range(6, 11)) / 4**10
    assert at_least_six == pytest.approx(1 / 50, abs=0.001)


def test_the_program_of_the_form_counts(tmp_path):
    program = re.search(r"```python\n(.+?)```", REST, re.S)[1]
    assert re.search(r'key = "(\w+)"', program)[1] == "".join(KEY)
    wrong = "".join("BADC"["ABCD".index(right)] for right in KEY)
    with open(tmp_path / "answers.csv", "w", newline="") as file:
        rows = [("----------", wrong), (wrong, "".join(KEY[:4]) + wrong[4:])]
        csv.writer(file).writerows([("before", "after"), *rows])
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2.0 of 10 [0.0, 4.0], 2 students\n"

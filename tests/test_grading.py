"""Right answers pass, wrong ones fail with a message that helps and gives nothing away, and nothing ever raises."""

import itertools
import math

import numpy as np
import pytest
import torch

from teachkit import Empirical, meanshift
from teachkit.course import grading


def _gaussian_forecast(x, sigma, y):
    lam, axes = torch.linalg.eigh(torch.cov(y.T, correction=0))
    end = y.mean(0) + ((x - y.mean(0)) @ axes * (lam / (lam + sigma**2)).sqrt()) @ axes.T
    return (end[:, None] - y).square().sum(2).argmin(1)


def _shares_by_covariance(x, k):
    v = (x[-1] - x[0]) / (x[-1] - x[0]).norm()
    values = torch.linalg.eigvalsh(torch.cov((x @ (torch.eye(len(v)).double() - torch.outer(v, v))).T)).flip(0)
    return [float(values[: j + 1].sum() / values.sum()) for j in range(k)]


def _kabsch(curve, reference):
    v, _, wt = np.linalg.svd((reference.T @ curve).numpy())  # the transposed problem
    return (v @ np.diag([1.0] * (len(v) - 1) + [np.linalg.det(v @ wt)]) @ wt).T


def _noisy(y, s):
    return y + s * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))


def _every_route(cost, steps, coefficient):
    n = len(cost) - 1
    routes = [(0, *middle, n) for middle in itertools.combinations(range(1, n), steps - 1)]
    price = [sum(coefficient**k * cost[a, b] for k, (a, b) in enumerate(itertools.pairwise(r))) for r in routes]
    return routes[int(np.argmin(price))]


RIGHT = {
    "low_rank_jump": lambda x, m, u, lam, s, t: (
        m
        + (t / s) * ((x - m) - (x - m) @ u @ u.T)
        + torch.einsum("dr,br->bd", u, torch.sqrt((lam + t * t) / (lam + s * s)) * ((x - m) @ u))
    ),
    "split_sigma": lambda m, s: float(np.sqrt((m - s) * (m + s))),
    "cheapest_path": _every_route,
    "two_weights": lambda x, e, f, y: np.linalg.lstsq(
        np.stack([e.numpy().ravel(), f.numpy().ravel()], 1), (y - x).numpy().ravel(), rcond=None
    )[0],
    "sigma_from_norm": lambda x, power: (x.pow(2).mean(1) - power / x.shape[1]) ** 0.5,
    "effective_number": lambda w: torch.stack([1 / (row @ row) for row in w]),
    "monotone_share": lambda d: sum(p == sorted(p, reverse=True) for p in d.T.tolist()) / d.shape[1],
    "gaussian_path": lambda x, lam, s, t: x * torch.sqrt(lam + t * t) / torch.sqrt(lam + s * s),
    "score_from_denoiser": lambda x, denoised, sigma: -(x / sigma - denoised / sigma) / sigma,
    "mean_shift_step": lambda x, data, h: torch.softmax(-(torch.cdist(x, data) ** 2) / (2 * h**2), 1) @ data,
    "euler_step": lambda x, d, s, t: x + (t - s) * (x - d) / s,
    "count_evaluations": 11 - 1,
    "two_points": lambda x, s: (
        (torch.exp(x / s**2) - torch.exp(-x / s**2)) / (torch.exp(x / s**2) + torch.exp(-x / s**2))
        if s > 0.5
        else 2 * torch.sigmoid(2 * x / s**2) - 1
    ),
    "denoise_by_gradient": lambda f, x, s: x + s**2 * torch.func.vmap(torch.func.grad(lambda y: f(y[None])[0]))(x),
    "sigma_that_keeps": lambda share, s: torch.tensor(s**2 / share - s**2).sqrt(),
    "climb": lambda x, y, h, n: torch.stack(
        [
            torch.exp(-0.5 * ((p[:, None] - y) / h).square().sum(2) - peak).mean(1).log()
            + peak[:, 0]
            - torch.tensor(2 * torch.pi * h**2).double().log()
            for p in meanshift.mean_shift(Empirical(y), x, h, n, 1e-300)
            for peak in [-0.5 * ((p[:, None] - y) / h).square().sum(2).amin(1, keepdim=True)]
        ]
    ),
    "count_modes": lambda v: int(((v[1:-1] > v[:-2]) & (v[1:-1] > v[2:])).sum()),
    "critical_bandwidth": 1,
    "edm_constants": lambda s, d: (1 - s**2 / (s**2 + d**2), (1 / s**2 + 1 / d**2) ** -0.5, 1 / (s**2 + d**2) ** 0.5),
    "denoised_from_noise": lambda x, eps, s: x + -s * eps,
    "denoised_from_v": lambda z, v, s: math.cos(math.atan(s)) * z - math.sin(math.atan(s)) * v,
    "student_target": lambda x, target, s, t: target + t / (s - t) * (target - x),
    "variety": lambda a, b, labels: np.divide(
        *(
            np.mean([torch.pdist(v[labels == k]).square().mean().sqrt() for k in range(int(labels.max()) + 1)])
            for v in (a, b)
        )
    ),
    "correction": lambda D, y, s, cs: min(cs, key=lambda c: float((D(_noisy(y, s), c * s) - y).norm())),
    "suspicious_share": lambda a, b: sum(float(v) < min(b.tolist()) for v in a) / len(a),
    "ab2_step": lambda x, d, p, s, t, r: x + (t - s) * d + (t - s) ** 2 / (s - r) / 2 * (d - p),
    "measured_order": lambda n, e: float(
        -torch.linalg.lstsq(
            torch.stack([torch.ones(len(n)), torch.tensor(n).log()], 1).double(), torch.tensor(e).double().log()
        ).solution[1]
    ),
    "bug_museum": {"E": "sign", "D": "history", "C": "denoiser", "B": "level", "A": "ramp"},
    "predict_end": _gaussian_forecast,
    "pin": lambda w: torch.lerp(w, w - w[-1:], torch.arange(len(w)).double()[:, None, None] / (len(w) - 1)),
    "residual_shares": _shares_by_covariance,
    "best_rotation": _kabsch,
    "unrolled_weights": lambda s: torch.stack([s[-1] / s[i + 1] - s[-1] / s[i] for i in range(len(s) - 1)]),
}
FUNCTIONS = [name for name in grading.CHECKS if callable(RIGHT.get(name, len))]


def test_every_check_has_a_right_answer_here():
    assert set(RIGHT) == set(grading.CHECKS)


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", range(3))
def test_an_independently_written_answer_passes(name, seed):
    assert grading.evaluate(name, RIGHT[name], seed=seed).passed is True


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("answer", [lambda *a: None, lambda *a: ..., lambda *a: a[0] @ ...])
def test_an_unfinished_function_is_not_counted_wrong(name, answer):
    assert grading.evaluate(name, answer).passed is None


@pytest.mark.parametrize("name", grading.CHECKS)
@pytest.mark.parametrize("answer", [None, ...])
def test_unanswered_is_said_and_not_counted_wrong(name, answer):
    result = grading.evaluate(name, answer)
    assert result.passed is None
    assert str(result) == f"○ {name}: not answered yet"


@pytest.mark.parametrize("name", grading.CHECKS)
@pytest.mark.parametrize("answer", [lambda *a: 1 / 0, lambda: 1, lambda *a: "text", lambda *a: a[0] * torch.nan, 3.0])
def test_broken_answers_fail_and_never_raise(name, answer):
    assert grading.evaluate(name, answer).passed is False


def test_a_slip_of_one_percent_is_seen():
    slip = grading.evaluate("score_from_denoiser", lambda x, denoised, sigma: 1.01 * (denoised - x) / sigma**2)
    assert slip.passed is False
    assert "Hint" in slip.message


def test_the_popular_bugs_of_the_boomerang_are_seen():
    def transposed(curve, reference):
        u, _, vh = torch.linalg.svd(curve.T @ reference)
        return u @ vh.T

    def with_chord(x, k):
        size = torch.linalg.svdvals(x - x.mean(0)) ** 2
        return (size.cumsum(0) / size.sum())[:k]

    for seed in range(5):
        assert grading.evaluate("best_rotation", transposed, seed=seed).passed is False
        assert grading.evaluate("residual_shares", with_chord, seed=seed).passed is False


def test_a_measure_of_variety_that_can_be_fooled_is_refused():
    def whole(samples, ends, labels):  # sees how far classes are apart, too
        return samples.std(0).mean() / ends.std(0).mean()

    def within(images, labels):
        return torch.cat([images[labels == k] - images[labels == k].mean(0) for k in labels.unique()]).std()

    def variances(samples, ends, labels):  # a half counts as a quarter
        return (within(samples, labels) / within(ends, labels)) ** 2

    def best(samples, ends, labels):  # one class that is varied hides the others
        return max(within(samples[labels == k], labels[labels == k]) for k in labels.unique()) / within(ends, labels)

    def error(samples, ends, labels):  # far from the ends is not the same as varied
        return 1 - (samples - ends).square().mean().sqrt()

    for wrong in (whole, variances, best, error, lambda samples, ends, labels: within(samples, labels)):
        assert grading.evaluate("variety", wrong).passed is False


def test_the_end_of_a_step_is_not_the_answer_that_leads_there():
    for wrong in (lambda x, y, s, t: y, lambda x, y, s, t: x + s * (y - x) / (s + t), lambda x, y, s, t: (y - x) / s):
        assert grading.evaluate("student_target", wrong).passed is False


def test_check_prints_and_returns_nothing(capsys):
    assert grading.check("euler_step", RIGHT["euler_step"]) is None
    assert capsys.readouterr().out == "✓ euler_step: correct\n"


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="euler_step"):
        grading.evaluate("euler_stop", None)


def test_a_check_that_compares_nothing_is_an_error(monkeypatch):
    monkeypatch.setitem(grading.CHECKS, "empty", grading.Check(lambda answer, rng: iter(()), "", 0.0, 0.0))
    with pytest.raises(RuntimeError, match="compared nothing"):
        grading.evaluate("empty", 1)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="exists"):
        grading.register("euler_step")


@pytest.mark.parametrize(
    ("got", "expected", "says"),
    [
        (1.0, 1.00001, None),
        (np.float32(2), 2, None),
        ([1.0, 2.0], torch.tensor([1.0, 2.0]), None),
        (torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0]]), "shape (1, 2), got a Tensor of shape (2,)"),
        (1.0, 1.01, "off"),
        ("euler", "heun", "'euler' is not right"),
        (1, True, "1 is not right"),
        (np.False_, True, "False is not right"),
        (True, np.False_, "True is not right"),
        (np.True_, True, None),
        (torch.tensor(True), True, None),
        (True, torch.tensor(True), None),
        (True, True, None),
        (0.0, 0.0, None),
        (float("nan"), 1.0, "NaN"),
        ("a", 1.0, "expected a number, got a str"),
    ],
)
def test_compare(got, expected, says):
    message = grading.compare(got, expected)
    assert (message is None) if says is None else (says in message)


def test_messages_do_not_give_the_answer_away():
    expected = 0.123456789
    for got in (0.2, [1.0, 2.0], "x"):
        message = grading.compare(got, expected)
        assert message is not None
        assert "0.1234" not in message

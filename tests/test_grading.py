"""Right answers pass, wrong ones fail with a message that helps and gives nothing away, and nothing ever raises."""

import math
import re

import numpy as np
import pytest
import torch

from teachkit import Empirical, geometry, meanshift, regularity
from teachkit.course import grading


def _gaussian_forecast(x, sigma, y):
    lam, axes = torch.linalg.eigh(torch.cov(y.T, correction=0))
    end = y.mean(0) + ((x - y.mean(0)) @ axes * (lam / (lam + sigma**2)).sqrt()) @ axes.T
    return (end[:, None] - y).square().sum(2).argmin(1)


def _surrogate(x, seed):
    steps, paths, d = len(x) - 1, x.shape[1], x.shape[2]
    frame = torch.linalg.qr((x[-1] - x[0]).T[None].permute(2, 1, 0))[0]  # (B, d, 1), the chords
    along = torch.einsum("nbd,bdk,bek->nbe", x - x[0], frame, frame)
    rest = (x - x[0] - along).numpy()
    waves = np.sin(np.pi * np.outer(np.arange(steps + 1), np.arange(1, steps)) / steps)
    sizes = np.linalg.norm(np.einsum("nk,nbd->kbd", waves, rest), axis=-1, keepdims=True) * 2 / steps
    there = np.random.default_rng(seed).standard_normal((steps - 1, paths, d))
    axis = frame[..., 0].numpy()
    there -= np.einsum("kbd,bd->kb", there, axis)[..., None] * axis
    there *= sizes / np.linalg.norm(there, axis=-1, keepdims=True)
    return x[0] + along + torch.from_numpy(np.einsum("nk,kbd->nbd", waves, there))


def _kabsch(curve, reference):
    v, _, wt = np.linalg.svd((reference.T @ curve).numpy())  # the transposed problem
    return (v @ np.diag([1.0] * (len(v) - 1) + [np.linalg.det(v @ wt)]) @ wt).T


def _line_in_log_sigma(x, denoised, older, sigma, sigma_next, previous):
    mu = torch.linspace(-math.log(sigma), -math.log(sigma_next), 4001, dtype=torch.float64)  # Simpson's rule
    weights = torch.tensor([1.0, *[4.0, 2.0] * 1999, 4.0, 1.0]).double() * (mu[1] - mu[0]) / 3
    line = denoised + (mu[:, None, None] + math.log(sigma)) / math.log(previous / sigma) * (denoised - older)
    return sigma_next / sigma * x + sigma_next * torch.einsum("m,mbd->bd", weights * mu.exp(), line)


def _over_the_chord(x):
    chord = x[-1] - x[0]
    u = ((x - x[0]) * chord).sum(2, keepdim=True) / chord.square().sum(1, keepdim=True)  # (N+1, B, 1)
    return u, x[0] + u * chord, chord


def _beside(x, seed, shape, side=None):
    """Over each chord a curve of this shape, to a side by chance: a null model for paths of one corner."""
    u, foot, chord = _over_the_chord(x)
    if side is None:
        side = torch.randn(chord.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
        side = side - (side * chord).sum(1, keepdim=True) / chord.square().sum(1, keepdim=True) * chord
    return _as_high(x, foot + shape(u) * side)


def _as_high(x, curve):
    foot = _over_the_chord(x)[1]
    bend = curve - foot
    return foot + bend * ((x - foot).norm(dim=2).amax(0) / bend.norm(dim=2).amax(0))[:, None]


def _noisy(y, s):
    return y + s * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))


def _by_image(images, labels, rng):
    keys = [tuple(row) for row in images.tolist()]
    own = dict(zip(keys, labels.tolist()))  # one label for all copies of an image
    names, values = list(own), list(own.values())
    new = [values[int(k)] for k in torch.randperm(len(values), generator=rng)]
    return [dict(zip(names, new))[key] for key in keys]


RIGHT = {
    "mean_is_enough": lambda lam, tau: (1 / tau - tau) / 2 * math.sqrt(lam),
    "meaningless_labels": _by_image,
    "low_rank_jump": lambda x, m, u, lam, s, t: (
        m
        + (t / s) * ((x - m) - (x - m) @ u @ u.T)
        + torch.einsum("dr,br->bd", u, torch.sqrt((lam + t * t) / (lam + s * s)) * ((x - m) @ u))
    ),
    "split_sigma": lambda m, s: float(np.sqrt((m - s) * (m + s))),
    "greedy_trap": lambda r: np.array([[0, 1, 3, 1], [0, 0, 1, 10 * r], [0, 0, 0, 1], [0, 0, 0, 0.0]]),
    "two_step_row": lambda r, s, t: np.linalg.solve([[1, 1], [r, s]], [1, (s + t) / 2]),
    "two_weights": lambda x, e, f, y: np.linalg.lstsq(
        np.stack([e.numpy().ravel(), f.numpy().ravel()], 1), (y - x).numpy().ravel(), rcond=None
    )[0],
    "sigma_from_norm": lambda x, power: (x.pow(2).mean(1) - power / x.shape[1]) ** 0.5,
    "told_apart": lambda one, other, s: 0.5 + 0.5 * math.erf(float((one - other).norm()) / (8**0.5 * s)),
    "posterior_covariance": lambda D, x, s: s**2 * torch.func.vmap(torch.func.jacrev(lambda y: D(y[None])[0]))(x),
    "missed_by_annealing": [[0.02 * k - 1, 0.0] for k in range(150)] + [[3.5, 3.5]] * 50,
    "velocity_from_mass": lambda F, x, s: (
        -(F(x, s + 1e-5) - F(x, s - 1e-5)) / (F(x + 1e-5, s) - F(x - 1e-5, s))  # by finite differences
    ),
    "end_by_rank": lambda x, s, y: y.msort()[
        torch.bucketize((0.5 + 0.5 * torch.erf((x[:, None] - y) / s / 2**0.5)).sum(1), torch.arange(1.0, len(y)))
    ],
    "highest_point": lambda h, a, top: (
        math.sqrt(a * top / 2 / h),
        h + a / (2 * top) - 2 * math.sqrt(a * h / (2 * top)),
    ),
    "smooth_null": lambda x, seed: _beside(x, seed, lambda u: u * (1 - u)),
    "share_kept": lambda sigma, lower: 1 + (lower - sigma) / sigma,
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
    "critical_bandwidth": 1,
    "equal_errors": lambda d: (d, d / (d * d / (2 * d * d) ** 0.5)),
    "skip_by_direction": lambda x, m, u, v, s: (
        torch.linalg.solve(
            torch.eye(len(m)).double() + s**2 * (u @ (1 / v).diag() @ u.T), (x + s**2 * (m @ u / v) @ u.T).T
        ).T
    ),
    "denoised_from_v": lambda z, v, s: math.cos(math.atan(s)) * z - math.sin(math.atan(s)) * v,
    "student_target": lambda x, target, s, t: target + t / (s - t) * (target - x),
    "variety": lambda a, b, labels: np.divide(
        *(
            np.mean([torch.pdist(v[labels == k]).square().mean().sqrt() for k in range(int(labels.max()) + 1)])
            for v in (a, b)
        )
    ),
    "correction": lambda D, y, s, cs: min(cs, key=lambda c: float((D(_noisy(y, s), c * s) - y).norm())),
    "tied_share": lambda x, t, h: (
        1 - (torch.cdist(x, h).amin(1) < torch.cdist(x, t).amin(1)).double().mean() * (len(t) + len(h)) / len(h)
    ),
    "ab2_step": lambda x, d, p, s, t, r: x + (t - s) * d + (t - s) ** 2 / (s - r) / 2 * (d - p),
    "exact_line_step": _line_in_log_sigma,
    "heun_weights": lambda s, t: (t / s, (1 - t / s) * (2 - s / t) / 2, (s / t - 1) / 2),
    "same_steps": {letter: letter in "AC" for letter in "ABCDE"},
    "bug_museum": {"E": "sign", "D": "history", "C": "denoiser", "B": "level", "A": "ramp"},
    "predict_end": _gaussian_forecast,
    "fair_null": _surrogate,
    "gaussian_curvature": lambda x, lam, s: torch.stack(
        [
            (a @ a * (b @ b) - (a @ b) ** 2).clamp(min=0).sqrt() / (a @ a) ** 1.5
            for p in x
            for a, b in [(s * p / (lam + s * s), lam * p / (lam + s * s) ** 2)]
        ]
    ),
    "apparent_peak": lambda n, w: (w - 1) / 2 * 80 / n,
    "best_rotation": _kabsch,
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
    slip = grading.evaluate("two_points", lambda x, sigma: 1.01 * torch.tanh(x / sigma**2))
    assert slip.passed is False
    assert "Hint" in slip.message


def test_the_popular_bugs_of_the_boomerang_are_seen():
    def transposed(curve, reference):
        u, _, vh = torch.linalg.svd(curve.T @ reference)
        return u @ vh.T

    for seed in range(5):
        assert grading.evaluate("best_rotation", transposed, seed=seed).passed is False


def _turned(x, seed):  # the same curves in other directions: as flat as they were
    turn = torch.linalg.qr(torch.randn(399, 399, generator=torch.Generator().manual_seed(seed)).double())[0]
    return torch.cat([x[..., :1], x[..., 1:] @ turn], -1)


@pytest.mark.parametrize(
    ("null", "caught"),
    [
        (lambda x, seed: x, "is it another curve|more than the null has"),
        (lambda x, seed: regularity.brownian_bridge(len(x) - 1, *x.shape[1:], seed, like=x), "as flat as they are"),
        (lambda x, seed: regularity.integrated_walk(len(x) - 1, *x.shape[1:], seed, like=x), "as flat as they are"),
        (lambda x, seed: torch.cat([x[:1], regularity.time_shuffled(x[1:-1], seed), x[-1:]]), "progress"),
        (_turned, "more than the null has"),
        (lambda x, seed: x[0] + 1.1 * (_surrogate(x, seed) - x[0]), "both ends"),
    ],
)
def test_nulls_that_are_not_fair_are_caught(null, caught):
    result = grading.evaluate("fair_null", null)
    assert result.passed is False
    assert re.search(caught, result.message)


@pytest.mark.parametrize(
    "slip",
    [
        lambda x, lam, s: (
            (x * lam / (lam + s**2) ** 2).norm(dim=1) / (x * s / (lam + s**2)).norm(dim=1) ** 2
        ),  # all of x''
        lambda x, lam, s: (
            RIGHT["gaussian_curvature"](x, lam, s) * (x * s / (lam + s**2)).norm(dim=1)
        ),  # a rate in sigma
    ],
)
def test_slips_in_the_curvature_are_caught(slip):
    assert grading.evaluate("gaussian_curvature", slip).passed is False


def _covariance(scale):
    return lambda D, x, s: scale(s) * torch.func.vmap(torch.func.jacrev(lambda y: D(y[None])[0]))(x)


def _velocity(form):
    def answer(mass, x, sigma):
        x, level = x.clone().requires_grad_(True), torch.full_like(x, sigma).requires_grad_(True)
        return form(*torch.autograd.grad(mass(x, level).sum(), (x, level)))

    return answer


def _climb(height, shift=0.0, skip=False):
    def answer(x, y, h, steps):
        path = meanshift.mean_shift(Empirical(y), x, h, steps, 1e-300)
        return torch.stack([height(p, y, h) + shift for p in (path[1:] if skip else path)])

    return answer


def _log_p(x, y, h):
    return Empirical(y).log_prob(x, h)


def _naive(x, y, h):
    return torch.exp(-(torch.cdist(x, y) ** 2) / (2 * h**2)).mean(1).log() - torch.tensor(2 * torch.pi * h**2).log()


MUTANTS = [
    ("posterior_covariance", _covariance(lambda s: 1.0), "off"),
    ("posterior_covariance", _covariance(lambda s: s), "off"),
    ("posterior_covariance", lambda D, x, s: s**2 * torch.autograd.functional.jacobian(D, x), "shape (5, 2, 2)"),
    ("missed_by_annealing", torch.zeros(20, 2), "off by 1"),
    ("missed_by_annealing", [[-2.0, 0.0]] * 100 + [[2.0, 0.0]] * 20, "off by"),  # the highest is also the largest
    ("missed_by_annealing", torch.zeros(20), "shape (20,)"),
    ("missed_by_annealing", torch.full((20, 2), 9.0), "largest 9"),
    ("missed_by_annealing", torch.full((20, 2), torch.nan), "largest nan"),
    ("missed_by_annealing", torch.zeros(301, 2), "shape (301, 2)"),
    ("missed_by_annealing", torch.zeros(0, 2), "shape (0, 2)"),
    ("velocity_from_mass", _velocity(lambda by_x, by_sigma: by_sigma / by_x), "off"),
    ("velocity_from_mass", _velocity(lambda by_x, by_sigma: -by_sigma), "off"),
    ("velocity_from_mass", _velocity(lambda by_x, by_sigma: -by_sigma.sum() / by_x), "off"),
    ("end_by_rank", lambda x, s, y: y[torch.cdist(x[:, None], y[:, None]).argmin(1)], "off"),  # the nearest
    ("end_by_rank", lambda x, s, y: y[(len(y) * torch.special.ndtr((x[:, None] - y) / s).mean(1)).long()], "off"),
    ("climb", _climb(_log_p, shift=1.0), "everywhere the same is missing"),
    ("climb", _climb(_log_p, skip=True), "shape"),
    ("climb", _climb(_naive), "NaN or infinite"),
    ("climb", lambda x, y, h, n: _log_p(x, y, h).expand(n + 1, -1), "after each of 5 steps"),
    ("told_apart", lambda one, other, s: torch.special.ndtr((one - other).norm() / s), "off by"),
    (
        "told_apart",
        lambda one, other, s: torch.special.ndtr((one - other).norm() / (2 * s * len(one) ** 0.5)),
        "off by",
    ),
    ("share_kept", lambda sigma, lower: 1 - lower / sigma, "from 80 to 24"),
    ("predict_end", lambda x, s, y: torch.cdist(x, y).argmin(1), "of 40 indices are wrong"),
    ("predict_end", lambda x, s, y: torch.zeros(40, dtype=torch.long), "of 40 indices are wrong"),
]


@pytest.mark.parametrize(("name", "answer", "says"), MUTANTS)
@pytest.mark.parametrize("seed", range(2))
def test_a_wrong_answer_is_caught_and_told_what_is_wrong(name, answer, says, seed):
    result = grading.evaluate(name, answer, seed=seed)
    assert result.passed is False
    assert says in result.message


def test_a_list_is_an_answer_where_data_are_asked_for_and_spread_data_are_not_missed():
    assert grading.evaluate("missed_by_annealing", RIGHT["missed_by_annealing"]).passed is True
    spread = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    assert grading.evaluate("missed_by_annealing", spread).passed is False


def _by_row(images, labels, rng):
    return labels[torch.randperm(len(labels), generator=rng)]


def _of_equal_size(images, labels, rng):
    distinct, which = images.unique(dim=0, return_inverse=True)
    return (torch.randperm(len(distinct), generator=rng) % 2)[which]


@pytest.mark.parametrize(
    ("null", "caught"),
    [
        (_by_row, "4 copies.*planted one"),
        (_of_equal_size, "25%.*planted one"),
        (lambda images, labels, rng: labels, "real is found"),
        (lambda images, labels, rng: 1 - labels, "real is found"),
        (lambda images, labels, rng: torch.zeros_like(labels), "real is found"),
        (lambda images, labels, rng: labels[:-1], "shape"),
        (lambda images, labels, rng: (images[:, 0] > images[:, 0].median()).long(), "real is found|planted one"),
    ],
)
def test_nulls_that_would_find_a_choice_in_anything_are_caught(null, caught):
    for seed in range(2):
        result = grading.evaluate("meaningless_labels", null, seed=seed)
        assert result.passed is False
        assert re.search(caught, result.message), result.message


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("exact_line_step", lambda x, d, p, s, t, r: t / s * x + (1 - t / s) * d),  # Euler's
        (  # DPM-Solver++(2M): the line's value in the middle of the step
            "exact_line_step",
            lambda x, d, p, s, t, r: t / s * x + (1 - t / s) * (d + math.log(s / t) / math.log(r / s) / 2 * (d - p)),
        ),
        ("exact_line_step", lambda x, d, p, s, t, r: _line_in_log_sigma(x, d, 2 * d - p, s, t, r)),  # its slope turned
        ("exact_line_step", lambda x, d, p, s, t, r: _line_in_log_sigma(x, d, p, s, t, s * s / t)),  # as if steps equal
        ("heun_weights", lambda s, t: (t / s, 1 - t / s, 0.0)),  # Euler's
        ("heun_weights", lambda s, t: ((t / s + 1) / 2, (1 - t / s) / 2, (s / t - 1) / 2)),  # as if x stayed
        ("heun_weights", lambda s, t: (t / s, (s / t - 1) / 2, (1 - t / s) * (2 - s / t) / 2)),  # exchanged
        ("same_steps", dict.fromkeys("ABCDE", True)),
        ("same_steps", {letter: letter == "A" for letter in "ABCDE"}),
        ("same_steps", {letter: letter in "ACD" for letter in "ABCDE"}),
    ],
)
def test_the_popular_mistakes_about_few_steps_are_seen(name, wrong):
    for seed in range(5):
        assert grading.evaluate(name, wrong, seed=seed).passed is False


def test_the_null_that_fits_and_those_that_do_not():
    def chance(null):
        return lambda x, seed: _as_high(x, null(len(x) - 1, *x.shape[1:], seed=seed, like=x))

    def own_bend(x, seed):  # the paths' own, to another side
        return _beside(x, seed, lambda u: geometry.deviation(x)[..., None])

    def not_across(x, seed):
        side = torch.randn(x[0].shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
        return _beside(x, seed, lambda u: u * (1 - u), side=side + 2 * (x[-1] - x[0]) / 600)

    wrong = {
        "rough": (chance(regularity.brownian_bridge), "nothing is found where nothing is"),
        "the paths": (lambda x, seed: x, "another seed"),
        "the same bend to another side": (own_bend, "the late corner"),
        "one side for all seeds": (lambda x, seed: _beside(x, 0, lambda u: u * (1 - u)), "another seed"),
        "straight": (lambda x, seed: _over_the_chord(x)[1], "largest deviation"),
        "half as high": (
            lambda x, seed: (RIGHT["smooth_null"](x, seed) + _over_the_chord(x)[1]) / 2,
            "largest deviation",
        ),
        "not across the chord": (not_across, "largest deviation"),
    }
    for seed in range(3):
        assert grading.evaluate("smooth_null", chance(regularity.integrated_walk), seed=seed).passed
        for name, (answer, part) in wrong.items():
            result = grading.evaluate("smooth_null", answer, seed=seed)
            assert not result.passed, name
            assert part in result.message, (name, result.message)


def test_half_of_the_highest_point_is_not_enough():
    def level(h, a, top):
        return math.sqrt(a * top / (2 * h)), h

    assert "height" in grading.evaluate("highest_point", level).message
    assert "level" in grading.evaluate("highest_point", lambda h, a, top: (math.sqrt(a * top / h), h)).message


def _nearer_to_training(x, t, h, count=None):
    return (torch.cdist(x, t[:count]).amin(1) < torch.cdist(x, h).amin(1)).double().mean()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("tied_share", _nearer_to_training),
        ("tied_share", lambda x, t, h: 2 * _nearer_to_training(x, t, h) - 1),
        ("tied_share", lambda x, t, h: 2 * _nearer_to_training(x, t, h, len(h)) - 1),
        ("tied_share", lambda x, t, h: _nearer_to_training(x, t, h) - len(t) / (len(t) + len(h))),
        ("tied_share", lambda x, t, h: (torch.cdist(x, t).amin(1) < torch.cdist(h, t).min()).double().mean()),
        ("equal_errors", lambda d: (1.0, 2**0.5)),
        ("equal_errors", lambda d: (d, 2.0)),
        ("equal_errors", lambda d: (d, 0.5**0.5)),
        ("skip_by_direction", lambda x, m, u, v, s: x @ u * (v / (v + s**2)) @ u.T),
        ("skip_by_direction", lambda x, m, u, v, s: m + (x - m) * v.mean() / (v.mean() + s**2)),
        ("skip_by_direction", lambda x, m, u, v, s: m + (x - m) @ u * (v / (v + s**2)).sqrt() @ u.T),
        ("skip_by_direction", lambda x, m, u, v, s: m + (x - m) @ u.T * (v / (v + s**2)) @ u),
    ],
)
def test_answers_that_miss_the_thought_are_seen(name, answer):
    for seed in range(3):
        assert grading.evaluate(name, answer, seed=seed).passed is False


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
    assert grading.check("two_points", RIGHT["two_points"]) is None
    assert capsys.readouterr().out == "✓ two_points: correct\n"


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="two_points"):
        grading.evaluate("two_pints", None)


def test_a_check_that_compares_nothing_is_an_error(monkeypatch):
    monkeypatch.setitem(grading.CHECKS, "empty", grading.Check(lambda answer, rng: iter(()), "", 0.0, 0.0))
    with pytest.raises(RuntimeError, match="compared nothing"):
        grading.evaluate("empty", 1)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="exists"):
        grading.register("two_points")


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
        (2.0, 4.0, "off by 2, which is 0.5 of the right value; 0.0001 is allowed"),
        (torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4]), "1 of 3 indices is wrong"),
        (torch.tensor([1.0, 2.0]), np.array([2, 1]), "2 of 2 indices are wrong"),
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

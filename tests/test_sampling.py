"""The loop: what it counts, what it keeps, what it refuses before spending an evaluation."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from teachkit import (
    Empirical,
    Gaussian,
    GaussianMixture,
    Trajectory,
    geometry,
    initial_noise,
    regularity,
    sample,
    schedules,
    scheduling,
    solvers,
)

F64 = torch.float64
GAUSSIAN = Gaussian([0.5, -0.5, 0.0], [[0.3, 0.1, 0.0], [0.1, 0.1, 0.0], [0.0, 0.0, 1.0]])
SIGMAS = schedules.polynomial(8)


class Counting:
    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x, sigma, labels=None):
        self.calls += 1
        return self.denoiser(x, sigma, labels)


def start(n=4, d=3, sigma=80.0, seed=0):
    return initial_noise(n, (d,), sigma, seed)


def test_a_trajectory_holds_states_and_denoised_states():
    path = sample(GAUSSIAN, start(), SIGMAS)
    assert isinstance(path, Trajectory)
    assert path.x.shape == (9, 4, 3)
    assert path.denoised.shape == (8, 4, 3)
    assert torch.equal(path.final, path.x[-1])
    for i in range(8):
        torch.testing.assert_close(path.denoised[i], GAUSSIAN(path.x[i], float(SIGMAS[i])))


def test_every_euler_step_is_a_convex_combination_and_the_path_unrolls():
    path, s = sample(GAUSSIAN, start(), SIGMAS), SIGMAS
    for i in range(8):
        ratio = float(s[i + 1] / s[i])
        torch.testing.assert_close(path.x[i + 1], ratio * path.x[i] + (1 - ratio) * path.denoised[i])
    for n in range(1, 9):
        weights = s[n] * (1 / s[1 : n + 1] - 1 / s[:n])
        assert (weights >= 0).all()
        assert float(weights.sum()) == pytest.approx(1 - float(s[n] / s[0]), abs=1e-12)
        unrolled = s[n] / s[0] * path.x[0] + torch.einsum("m,mbd->bd", weights, path.denoised[:n])
        assert float((unrolled - path.x[n]).abs().max()) < 1e-12


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_against_the_exact_solution_of_a_gaussian(name, order):
    x = start(sigma=10.0)
    exact = GAUSSIAN.flow(x, 10.0, 0.05)
    counts = [40, 80, 160]
    grids = [schedules.polynomial(n, 0.05, 10.0) for n in counts]
    errors = [float((sample(GAUSSIAN, x, g, name).final - exact).norm()) for g in grids]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.1)


# Every solver, and of those with options what changes where and how often they evaluate.
ALL_SOLVERS = [
    *((name, {}) for name in solvers.REGISTRY if name != "edm_stochastic"),
    *((name, {"euler_last": True}) for name in ("heun", "dpm2", "genie")),
    ("dpm2", {"r": 0.3}),
    ("unipc", {"prediction": "eps", "variant": "bh1"}),
    ("edm_stochastic", {"churn": 0.0}),
    ("edm_stochastic", {"churn": 0.0, "euler_last": True}),
]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL_SOLVERS)
def test_state_and_denoised_state_under_one_index_belong_together(name, options, zero):
    sigmas = schedules.polynomial(6, zero=zero)
    path = sample(GAUSSIAN, start(), sigmas, solvers.get(name, **options))
    for i, sigma in enumerate(sigmas[:-1].tolist()):
        torch.testing.assert_close(GAUSSIAN(path.x[i], sigma), path.denoised[i], rtol=0, atol=0)


def test_a_path_holds_the_predictions_of_a_predictor_corrector_method():
    # UniPC evaluates the denoiser at its prediction, then corrects the state with what it learned there.
    sigmas, x, predicted = schedules.logsnr(24, 0.05, 10.0), start(sigma=10.0), []

    def D(x, sigma, labels=None):
        predicted.append(x.clone())
        return GAUSSIAN(x, sigma)

    path = sample(D, x, sigmas, "unipc")
    assert torch.equal(path.x[:-1], torch.stack(predicted))


def test_a_solver_that_evaluates_at_other_levels_keeps_no_outputs_and_measures_that_need_them_say_so():
    path = sample(GAUSSIAN, start(), SIGMAS, solvers.get("edm_stochastic", churn=10.0))
    assert path.x.shape == (9, 4, 3)
    assert path.denoised.shape == (0, 4, 3)
    for measure in (geometry.norms, regularity.span_residual, scheduling.cost_matrix):
        with pytest.raises((ValueError, TypeError), match="a deterministic solver"):
            measure(path)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), levels=st.lists(st.floats(-6, 4.4), min_size=2, max_size=12, unique=True))
def test_convex_combination_and_hull_on_any_schedule(seed, levels):
    # Whatever the schedule, the path stays in the hull of x0 / sigma0 and the denoiser's outputs, here data points.
    sigmas = torch.tensor(sorted(levels, reverse=True), dtype=F64).exp()
    assume(bool((sigmas.diff() < 0).all()))
    y = torch.randn(15, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    path = sample(Empirical(y), start(sigma=float(sigmas[0]), seed=seed), sigmas)
    share = (sigmas / sigmas[0])[:, None, None]
    rest = path.x - share * path.x[0]
    assert (rest <= (1 - share) * y.amax(0) + 1e-9).all()
    assert (rest >= (1 - share) * y.amin(0) - 1e-9).all()
    steps = sigmas[1:] / sigmas[:-1]
    for i, ratio in enumerate(steps.tolist()):
        torch.testing.assert_close(path.x[i + 1], ratio * path.x[i] + (1 - ratio) * path.denoised[i])


@pytest.mark.parametrize("name", ["euler", "heun", "dpm2"])
def test_one_step_methods_can_stop_and_go_on(name):
    whole = sample(GAUSSIAN, start(), SIGMAS, name)
    first = sample(GAUSSIAN, start(), SIGMAS[:4], name)
    second = sample(GAUSSIAN, first.final, SIGMAS[3:], name)
    assert torch.equal(second.final, whole.final)
    assert first.nfe + second.nfe == whole.nfe


@pytest.mark.parametrize("name", list(solvers.REGISTRY))
def test_a_solver_instance_keeps_nothing_between_runs_and_inputs_are_left_alone(name):
    solver, x, sigmas = solvers.get(name), start(), SIGMAS.clone()
    first = sample(GAUSSIAN, x, sigmas, solver)
    assert torch.equal(x, start())
    assert torch.equal(sigmas, SIGMAS)
    sample(GAUSSIAN, start(seed=1), schedules.polynomial(3), solver)
    again = sample(GAUSSIAN, x, sigmas, solver)
    assert torch.equal(first.final, again.final)
    sigmas[0] = 1e9
    assert torch.equal(again.sigmas, SIGMAS)


@pytest.mark.parametrize("name", list(solvers.REGISTRY))
def test_a_schedule_in_any_form_is_the_same_schedule(name):
    path = sample(GAUSSIAN, start(), SIGMAS, name)
    for same in (SIGMAS.tolist(), SIGMAS.numpy(), tuple(SIGMAS.tolist())):
        assert torch.equal(sample(GAUSSIAN, start(), same, name).final, path.final)


@pytest.mark.parametrize("name", [n for n in solvers.REGISTRY if n != "edm_stochastic"])
def test_one_step_to_zero_lands_on_the_denoised_state(name):
    x = start(sigma=3.0)
    path = sample(GAUSSIAN, x, [3.0, 0.0], name)
    torch.testing.assert_close(path.denoised[0], GAUSSIAN(x, 3.0))
    torch.testing.assert_close(path.final, GAUSSIAN(x, 3.0))
    assert path.nfe == 1


@pytest.mark.parametrize("name", list(solvers.REGISTRY))
def test_keeping_only_the_end_changes_nothing(name):
    whole, end = (sample(GAUSSIAN, start(), SIGMAS, name, keep=k) for k in ("all", "final"))
    assert torch.equal(whole.final, end.final)
    assert whole.nfe == end.nfe
    assert end.x.shape == (1, 4, 3)
    assert end.denoised.shape[0] == 0


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    ("name", "afs"),  # a stochastic solver has no analytic first step
    [(name, afs) for name in solvers.REGISTRY for afs in (False, True) if not (afs and name == "edm_stochastic")],
)
def test_evaluations_are_counted_and_as_stated(name, zero, afs, guided):
    D = Counting(GaussianMixture([0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], 0.1))
    sigmas = schedules.polynomial(6, zero=zero)
    extra = {"labels": torch.tensor([0, 1, 1, 0]), "guidance": 2.0} if guided else {}
    path = sample(D, start(d=2), sigmas, name, afs=afs, **extra)
    steps = 6 + zero
    twice = name in ("heun", "dpm2", "genie", "edm_stochastic")
    stated = (2 * steps - zero if twice else steps) - afs
    assert path.nfe == D.calls == stated * (2 if guided else 1)
    assert torch.isfinite(path.x).all()


@pytest.mark.parametrize("keep", ["all", "final"])
@pytest.mark.parametrize(("name", "options"), ALL_SOLVERS)
def test_a_callback_sees_every_step_as_the_path_holds_it(name, options, keep):
    seen = []
    solver, sigmas = solvers.get(name, **options), schedules.polynomial(6, zero=True)
    path = sample(GAUSSIAN, start(), sigmas, solver, keep=keep, callback=lambda *step: seen.append(step))
    whole = sample(GAUSSIAN, start(), sigmas, solver)
    assert path.nfe == whole.nfe
    assert torch.equal(path.final, whole.final)
    steps, levels, states, outputs = zip(*seen)
    assert steps == tuple(range(7))
    assert list(levels) == sigmas[:-1].tolist()
    assert torch.equal(torch.stack(states), whole.x[:-1])
    assert torch.equal(torch.stack(outputs), whole.denoised)


@pytest.mark.parametrize("keep", ["all", "final"])
def test_a_callback_is_given_what_belongs_together_where_noise_was_added(keep):
    seen = []
    solver = solvers.get("edm_stochastic", churn=40.0)
    sample(GAUSSIAN, start(), SIGMAS, solver, keep=keep, callback=lambda *step: seen.append(step))
    assert [step for step, *_ in seen] == list(range(8))
    raised = [sigma / float(level) for (_, sigma, _, _), level in zip(seen, SIGMAS)]
    assert max(raised) > 1.4
    assert min(raised) == 1.0
    for _, sigma, x, denoised in seen:
        assert torch.equal(GAUSSIAN(x, sigma), denoised)


def test_a_callback_sees_the_analytical_first_step():
    seen, x = [], start()
    D = Counting(GAUSSIAN)
    path = sample(D, x, SIGMAS, afs=True, callback=lambda *step: seen.append(step))
    assert D.calls == path.nfe == 7
    assert torch.equal(seen[0][2], x)
    assert torch.equal(seen[0][3], path.denoised[0])
    torch.testing.assert_close(seen[0][3], x - 80 * x / math.hypot(1, 80))


def test_what_a_callback_raises_ends_the_sampling():
    D = Counting(GAUSSIAN)

    def stop(step, sigma, x, denoised):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(D, start(), SIGMAS, callback=stop)
    assert D.calls == 3


def test_guidance_moves_away_from_the_unconditional_denoiser():
    D = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.1)
    x, labels = start(d=2, sigma=2.0), torch.tensor([0, 1, 1, 0])
    for w in (0.0, 0.5, 1.0, 3.0):
        got = sample(D, x, [2.0, 0.0], labels=labels, guidance=w).final
        torch.testing.assert_close(got, D(x, 2.0) + w * (D(x, 2.0, labels) - D(x, 2.0)))
    assert sample(D, x, [2.0, 0.0], labels=labels, guidance=1.0).nfe == 1
    torch.testing.assert_close(sample(D, x, [2.0, 0.0], labels=labels).final, D(x, 2.0, labels))


def test_labels_of_any_form_reach_the_denoiser_and_none_reach_it_where_none_were_given():
    seen = []

    def D(x, sigma, labels=None):
        seen.append(labels)
        return 0 * x

    for labels in (torch.tensor([0, 1, 1, 0]), torch.eye(4)[:, :3]):  # class numbers, or one-hot rows
        seen.clear()
        sample(D, start(), [2.0, 1.0, 0.5], labels=labels, guidance=3.0)
        assert sum(given is None for given in seen) == sum(given is labels for given in seen) == 2
    sample(lambda x, sigma: 0 * x, start(), [2.0, 1.0])  # a denoiser that takes no labels


def test_analytic_first_step_is_the_direction_of_unit_variance_data():
    path = sample(GAUSSIAN, start(), [80.0, 10.0, 1.0], afs=True)
    torch.testing.assert_close(path.x[1], path.x[0] * (1 + (10.0 - 80.0) / math.sqrt(1 + 80.0**2)))
    with pytest.raises(ValueError, match="afs is not defined for edm_stochastic"):
        sample(GAUSSIAN, start(), SIGMAS, "edm_stochastic", afs=True)


def test_dynamic_threshold_clips_to_a_percentile_and_is_off_by_default():
    def D(x, sigma, labels=None):
        return torch.tensor([[0.1, -0.2, 0.3, 8.0], [0.1, 0.2, 0.3, 0.4]], dtype=F64)

    x = start(2, 4)
    assert sample(D, x, [1.0, 0.0]).final.max() == 8
    got = sample(D, x, [1.0, 0.0], dynamic_threshold=0.5).final
    torch.testing.assert_close(got[0], torch.tensor([0.1, -0.2, 0.3, 1.0], dtype=F64))  # percentile .25, raised to 1
    torch.testing.assert_close(got[1], D(x, 1.0)[1])
    half = sample(D, x, [1.0, 0.0], dynamic_threshold=1.0).final
    torch.testing.assert_close(half[0], D(x, 1.0)[0] / 8)


@pytest.mark.parametrize("name", list(solvers.REGISTRY))
def test_batch_split_changes_nothing(name):
    def solver(first=0):
        return solvers.get(name, **({"first": first} if name == "edm_stochastic" else {}))

    D = Empirical(torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=F64))
    whole = sample(D, initial_noise(7, (3,), seed=3), SIGMAS, solver()).final
    parts = [sample(D, initial_noise(n, (3,), seed=3, first=f), SIGMAS, solver(f)).final for n, f in ((3, 0), (4, 3))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-10)


def test_initial_noise_is_standard_normal_and_seeded_by_sample():
    x = initial_noise(2000, (5,), 2.0, seed=1)
    assert float(x.std()) == pytest.approx(2.0, rel=0.02)
    assert abs(float(x.mean())) < 0.06
    assert torch.equal(x[70:75], initial_noise(5, (5,), 2.0, seed=1, first=70))
    assert not torch.equal(x[:5], initial_noise(5, (5,), 2.0, seed=2))
    assert not torch.equal(x[:5], initial_noise(5, (5,), 2.0, seed=1, stream=1))
    for bad in ({"n": 0}, {"seed": -1}, {"sigma": math.nan}, {"first": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            initial_noise(**{"n": 2, "event_shape": (3,), **bad})
    with pytest.raises(TypeError, match=r"first must be an integer >= 0, got 1\.5"):
        initial_noise(2, (3,), first=1.5)


def test_the_gradient_of_a_path_is_that_of_the_steps_multiplied():
    x = start(sigma=10.0).requires_grad_(True)
    sigmas = schedules.polynomial(6, 0.1, 10.0)
    (grad,) = torch.autograd.grad(sample(GAUSSIAN, x, sigmas).final.sum(), x)
    cov = GAUSSIAN.axes * GAUSSIAN.variances @ GAUSSIAN.axes.mT
    eye, product = torch.eye(3, dtype=F64), torch.eye(3, dtype=F64)
    for s, s_next in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        shrink = cov @ torch.linalg.inv(cov + s**2 * eye)
        product = (s_next / s * eye + (1 - s_next / s) * shrink) @ product
    torch.testing.assert_close(grad, product.sum(0).expand(4, 3))
    with torch.no_grad():
        assert not sample(GAUSSIAN, x, sigmas).final.requires_grad


@pytest.mark.parametrize("name", list(solvers.REGISTRY))
def test_a_network_leaves_no_graph_behind_unless_asked(name):
    net = torch.nn.Linear(3, 3, dtype=F64)

    def denoiser(x, sigma, labels=None):
        return net(x)

    assert not sample(denoiser, start(), [5.0, 2.0, 1.0], name).x.requires_grad


def test_progress_is_shown_only_when_asked(capsys):
    sample(GAUSSIAN, start(), SIGMAS)
    assert capsys.readouterr() == ("", "")
    sample(GAUSSIAN, start(), SIGMAS, "heun", progress=True)
    shown = capsys.readouterr().err
    assert "heun" in shown
    assert "/8" in shown


def test_gradients_flow_when_the_start_asks_for_them():
    x = start().requires_grad_(True)
    path = sample(GAUSSIAN, x, SIGMAS, "dpmpp_2m")
    (grad,) = torch.autograd.grad(path.final.sum(), x)
    assert torch.isfinite(grad).all()
    assert not sample(GAUSSIAN, start(), SIGMAS).final.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shape", [(5,), (2, 4, 4)])
@pytest.mark.parametrize("name", list(solvers.REGISTRY))
def test_shapes_and_dtypes_are_kept(name, shape, dtype):
    D = Gaussian(torch.zeros(shape, dtype=dtype), 0.25)
    final = sample(D, initial_noise(3, shape, dtype=dtype), SIGMAS, name).final
    assert final.shape == (3, *shape)
    assert final.dtype == dtype


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"denoiser": 3}, TypeError, "denoiser must be callable"),
        ({"x": [[1.0]]}, TypeError, "x must be a floating-point tensor"),
        ({"x": torch.ones(2, 3, dtype=torch.long)}, TypeError, "got a tensor of torch.int64"),
        ({"x": torch.ones(3)}, ValueError, r"x must have shape \(B, \*event\)"),
        ({"x": torch.full((2, 3), math.nan)}, ValueError, "x must be finite"),
        ({"x": torch.zeros(2, 3, device="meta"), "denoiser": GAUSSIAN}, Exception, "meta"),
        ({"x": torch.zeros(0, 3)}, ValueError, "at least one sample"),
        ({"x": torch.full((2, 3), math.inf)}, ValueError, "x must be finite"),
        ({"sigmas": [1.0, 2.0]}, ValueError, "strictly decreasing"),
        ({"sigmas": [[2.0, 1.0]]}, ValueError, "sigmas must be 1-D"),
        ({"sigmas": [2.0, -1.0]}, ValueError, "sigmas must not be negative"),
        ({"sigmas": [math.nan, 1.0]}, ValueError, "sigmas must be finite"),
        ({"sigmas": 5}, ValueError, "sigmas must be 1-D"),
        ({"sigmas": "polynomial"}, TypeError, "sigmas must be a 1-D tensor"),
        ({"solver": solvers.Euler}, TypeError, "solver must be a name or a Solver"),
        ({"solver": "Huen"}, ValueError, "unknown solver 'Huen'; did you mean 'heun'"),
        ({"labels": [0, 1]}, ValueError, "labels must be a tensor"),
        ({"labels": torch.zeros(2), "guidance": "high"}, TypeError, "guidance must be a finite number"),
        ({"dynamic_threshold": math.nan}, ValueError, "dynamic_threshold must be a finite number > 0 and <= 1"),
        ({"solver": "edm_stochastic", "afs": True}, ValueError, "afs is not defined"),
        ({"solver": "ipdnm"}, ValueError, "unknown solver 'ipdnm'; did you mean 'ipndm'"),
        ({"solver": 4}, TypeError, "solver must be a name or a Solver"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, ValueError, r"one entry per sample \(2\), got \(3,\)"),
        ({"guidance": 2.0}, ValueError, "guidance needs labels"),
        ({"labels": torch.zeros(2), "guidance": math.inf}, ValueError, "guidance must be a finite number"),
        ({"dynamic_threshold": 2.0}, ValueError, "dynamic_threshold must be a finite number > 0 and <= 1"),
        ({"keep": "none"}, ValueError, "keep must be one of 'all', 'final'"),
        ({"callback": 3}, TypeError, r"callback must be callable as callback\(step, sigma, x, denoised\)"),
    ],
)
def test_bad_arguments_are_named_before_any_evaluation(change, error, message):
    D = Counting(GAUSSIAN)
    arguments = {"denoiser": D, "x": start(2), "sigmas": SIGMAS, **change}
    with pytest.raises(error, match=message):
        sample(**arguments)
    assert D.calls == 0


@pytest.mark.parametrize("name", list(solvers.REGISTRY))
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_single_bad_value_at_any_step_is_never_returned(name, poison):
    count = len(SIGMAS) - 1
    for bad_call in range(count):
        calls = [0]

        def D(x, sigma, labels=None, calls=calls, bad_call=bad_call):
            calls[0] += 1
            out = GAUSSIAN(torch.nan_to_num(x), sigma)
            if calls[0] == bad_call + 1:
                out[1, 2] = poison
            return out

        for keep in ("all", "final"):
            calls[0] = 0
            with pytest.raises(FloatingPointError, match=f"sampling with {name} ended in NaN or infinity"):
                sample(D, start(), SIGMAS, name, keep=keep)


def test_a_module_of_another_type_or_device_is_named():
    with pytest.raises(ValueError, match=r"x is torch\.float32 but this Gaussian holds torch\.float64"):
        sample(GAUSSIAN, start().float(), SIGMAS)
    with pytest.raises(ValueError, match="x is on cpu but the denoiser is on meta"):
        sample(torch.nn.Linear(3, 3, device="meta"), start(), SIGMAS)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3\), got \(4, 2\)"):
        sample(GAUSSIAN, start(d=2), SIGMAS)


def test_a_denoiser_that_misbehaves_is_named():
    with pytest.raises(ValueError, match=r"must return a tensor of the shape of x, \(4, 3\), got \(4, 2\)"):
        sample(lambda x, s: x[:, :2], start(), SIGMAS)
    with pytest.raises(FloatingPointError, match="ended in NaN"):
        sample(lambda x, s: x * math.nan, start(), SIGMAS)


def test_solver_options_are_checked():
    for name, options, message in (
        ("ipndm", {"order": 5}, "order must be one of 1, 2, 3, 4, got 5"),
        ("ipndm", {"oder": 2}, "does not take these options"),
        ("unipc", {"variant": "bh3"}, "variant must be one of 'bh1', 'bh2'"),
        ("dpmpp_3m", {"prediction": "v"}, "prediction must be one of"),
        ("dpm2", {"r": 1.0}, "r must be a finite number > 0 and < 1"),
        ("edm_stochastic", {"churn": -1.0}, "churn must be"),
    ):
        with pytest.raises(ValueError, match=message):
            solvers.get(name, **options)


def test_a_denoiser_of_another_dtype_is_named_and_thresholding_works_in_half_precision():
    with pytest.raises(ValueError, match=r"must return the dtype of x, torch\.float64, got torch\.float32"):
        sample(lambda x, s: x.float(), start(), SIGMAS)
    half = sample(lambda x, s: 0 * x + 4, start().half(), [1.0, 0.0], dynamic_threshold=0.9).final
    assert torch.equal(half, torch.ones_like(half))


class Conditioned:
    """The denoiser of one Gaussian per sample, its mean among the labels; without labels that of the mean 0."""

    def __init__(self):
        self.seen = []

    def __call__(self, x, sigma, labels=None):
        self.seen.append(len(x))
        mean = 0 if labels is None else labels["mean"] * labels["sign"][:, None]
        return mean + (x - mean) / (1 + sigma**2)


def conditions(n):
    g = torch.Generator().manual_seed(4)
    return {"mean": torch.randn(n, 3, generator=g, dtype=F64), "sign": torch.ones(n, dtype=F64)}


def test_labels_may_be_a_dict_of_tensors_with_one_row_per_sample():
    labels, x = conditions(5), start(5)
    path = sample(Conditioned(), x, SIGMAS, "heun", labels=labels)
    for i in range(5):
        one = sample(Conditioned(), x[i : i + 1], SIGMAS, "heun", labels={k: v[i : i + 1] for k, v in labels.items()})
        torch.testing.assert_close(one.final, path.final[i : i + 1])
    with pytest.raises(
        ValueError, match=r"labels\['sign'\] must be a tensor with one entry per sample \(5\), got \(4,\)"
    ):
        sample(Conditioned(), x, SIGMAS, labels=labels | {"sign": torch.ones(4)})


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_the_denoiser_sees_no_more_than_a_batch_at_a_time_and_nothing_changes(guidance):
    labels, x, denoiser = conditions(5), start(5), Conditioned()
    whole = sample(Conditioned(), x, SIGMAS, "ipndm", labels=labels, guidance=guidance, dynamic_threshold=0.9)
    parts = sample(denoiser, x, SIGMAS, "ipndm", labels=labels, guidance=guidance, dynamic_threshold=0.9, batch=2)
    torch.testing.assert_close(parts.x, whole.x, rtol=1e-12, atol=1e-12)
    assert parts.nfe == whole.nfe
    assert set(denoiser.seen) == {1, 2}
    with pytest.raises(ValueError, match="batch must be an integer >= 1, got 0"):
        sample(denoiser, x, SIGMAS, labels=labels, batch=0)


class Prompted(Conditioned):
    """It knows what it draws, and how to draw without: guidance needs no labels from outside."""

    def __call__(self, x, sigma, labels=None):
        return super().__call__(x, sigma, {"mean": torch.ones(3), "sign": torch.ones(len(x))})

    def unconditional(self, x, sigma):
        return super().__call__(x, sigma)


def test_guidance_asks_a_denoiser_for_its_own_unconditional_one():
    x, ones = start(4), {"mean": torch.ones(4, 3), "sign": torch.ones(4)}
    prompted = sample(Prompted(), x, SIGMAS, guidance=2.0)
    assert torch.equal(prompted.x, sample(Conditioned(), x, SIGMAS, labels=ones, guidance=2.0).x)
    assert prompted.nfe == 2 * (len(SIGMAS) - 1)


def test_a_denoiser_with_guidance_of_its_own_says_what_it_costs_and_takes_no_other():
    denoiser = Prompted()
    denoiser.guidance, denoiser.evaluations = 5.0, 2
    assert sample(denoiser, start(), SIGMAS).nfe == 2 * (len(SIGMAS) - 1)
    with pytest.raises(ValueError, match=r"guidance must be None: this denoiser has its own, 5\.0"):
        sample(denoiser, start(), SIGMAS, guidance=2.0)


@pytest.mark.parametrize(
    ("found_for", "used", "warned"), [(4.0, None, 1), (4.0, 4.0, 0), (1.0, None, 0), (1.0, 2.0, 1), (None, 2.0, 0)]
)
def test_a_solver_found_for_another_guidance_warns(found_for, used, warned):
    solver = solvers.get("ipndm")
    solver.found_for_guidance = found_for
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sample(Prompted(), start(), SIGMAS, solver, guidance=used)
    assert len(caught) == warned
    assert all("was found for guidance" in str(one.message) and one.filename == __file__ for one in caught)


class Trained(Conditioned):
    """A model that says what it was trained for."""

    sigma_min, sigma_max = 0.03, 15.0


@pytest.mark.parametrize(
    ("sigmas", "scale", "warning"),
    [
        ([15.0, 1.0, 0.03], 15.0, None),
        ([15.0, 1.0, 0.03, 0.0], 15.0, None),
        ([15.0, 1.0, 0.002], 15.0, None),  # where it ends it is not asked
        (
            [80.0, 1.0, 0.03],
            80.0,
            "sigmas go from 80 to 1 where the denoiser is evaluated, but it was trained from 15 to",
        ),
        ([15.0, 1.0, 0.002, 0.0], 15.0, "sigmas go from 15 to 0.002"),
        ([15.0, 1.0], 1.0, "x must be the state at sigmas"),
        ([1.0, 0.1], 5.0, None),  # at small noise the data decide the size
    ],
)
def test_a_model_asked_outside_its_training_or_started_from_other_noise_warns(sigmas, scale, warning):
    x = start(16, 3, scale)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sample(Trained(), x, sigmas)
    assert [str(one.message).startswith(warning) for one in caught] == ([] if warning is None else [True])
    assert all(one.filename == __file__ for one in caught)


def test_a_model_that_says_what_it_was_trained_for_samples_inside_vmap_too():
    x = start(4, 3, 15.0)[:, None]
    ends = torch.func.vmap(lambda one: sample(Trained(), one, [15.0, 1.0, 0.03], keep="final").final)(x)
    torch.testing.assert_close(ends[:, 0], sample(Trained(), x[:, 0], [15.0, 1.0, 0.03]).final)

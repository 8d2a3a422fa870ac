"""The Taylor step: exact derivatives of whatever a denoiser is asked with, counted, and clear words where none."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from teachkit import Empirical, Gaussian, GaussianMixture, adapters, edm, initial_noise, sample, schedules, solvers
from teachkit.sampling import Evaluator
from teachkit.solvers import Point, taylor

F64 = torch.float64
X = initial_noise(6, (1, 8, 8), 2.0, seed=3)
CLASSES = torch.arange(6) % 3
POINTS = initial_noise(40, (1, 8, 8), 0.5, seed=4)


def network(model_type):
    torch.manual_seed(0)
    net = (
        edm.EDMPrecond(img_resolution=8, img_channels=1, label_dim=3, model_type=model_type, model_channels=16)
        .double()
        .eval()
    )
    for part in net.parameters():
        torch.nn.init.normal_(part, std=0.1)
    return net


def model(z, t):
    return torch.tanh(z * torch.cos(t.reshape(-1, 1, 1, 1) / 10))


DENOISERS = {
    "mixture": GaussianMixture([0.5, 0.5], POINTS[:2], 0.1),
    "data": Empirical(POINTS, 0.3),
    "DhariwalUNet": network("DhariwalUNet"),  # with attention
    "SongUNet": network("SongUNet"),
    "eps of trained steps": adapters.from_eps(model, torch.linspace(0.999, 0.01, 50, dtype=F64)),
    "velocity": adapters.from_velocity(model),
}
ASKED = {
    "plain": {},
    "labels": {"labels": CLASSES},
    "guidance": {"labels": CLASSES, "guidance": 3.0},
    "threshold": {"threshold": 0.9},
    "batch": {"labels": CLASSES, "batch": 4},
}


@pytest.mark.parametrize(
    ("name", "how"), [*((name, "plain") for name in DENOISERS), *(("SongUNet", how) for how in ASKED)]
)
def test_the_derivative_along_the_path_is_that_of_differences_and_counts_once_more(name, how):
    evaluate, sigma, small = Evaluator(DENOISERS[name], **ASKED[how]), 2.03, 1e-5
    now = Point(X, sigma, evaluate)
    denoised, rate = taylor._along(now)
    assert evaluate.nfe == (4 if how == "guidance" else 2)
    torch.testing.assert_close(denoised, now.denoised)
    with torch.no_grad():
        ends = [evaluate(X + s * now.direction, sigma + s) for s in (small, -small)]
    size = float(rate.detach().abs().max())
    torch.testing.assert_close(rate, (ends[0] - ends[1]) / (2 * small), rtol=0, atol=1e-7 * size)


def test_a_step_is_exact_where_the_direction_is_linear_in_sigma():
    x = initial_noise(4, (3,), 2.0)
    path = sample(lambda y, s: y - s * (2 - torch.as_tensor(s)), x, [2.0, 0.7, 0.2], "genie")
    torch.testing.assert_close(path.final, x + (2 * 0.2 - 0.02) - (2 * 2.0 - 2.0))


def test_a_step_of_a_gaussian_is_that_of_its_formula():
    # One coordinate of variance v about 0: D = v x / (v + s^2), so d = s x / (v + s^2) and d' = v x / (v + s^2)^2.
    x, v, s, s_next = initial_noise(5, (1,), 3.0), 0.25, 3.0, 1.2
    step = (s_next - s) * s / (v + s**2) + 0.5 * (s_next - s) ** 2 * v / (v + s**2) ** 2
    torch.testing.assert_close(
        sample(Gaussian(torch.zeros(1, dtype=F64), v), x, [s, s_next], "genie").final, x + step * x
    )


def test_a_first_direction_that_is_given_saves_one_of_two_evaluations():
    D, x = DENOISERS["mixture"], 40 * X
    path = sample(D, x, schedules.polynomial(4), "genie", afs=True)
    assert path.nfe == 7
    given = x / (1 + 80.0**2) ** 0.5
    now = Point(x, 80.0, D, direction=given)
    denoised, rate = taylor._along(now)
    small = 1e-4
    ends = [D(x + s * given, 80.0 + s) for s in (small, -small)]
    torch.testing.assert_close(rate, (ends[0] - ends[1]) / (2 * small), rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(denoised, D(x, 80.0))


def shrink(x, sigma):
    return x * 0.25 / (0.25 + sigma**2)


def through_numpy(x, sigma):
    return torch.from_numpy(np.asarray(x)) * 0.5


class Backward(torch.autograd.Function):
    """Has a backward derivative and no forward one."""

    @staticmethod
    def forward(ctx, x):
        return 0.5 * x

    @staticmethod
    def backward(ctx, grad):
        return 0.5 * grad


WITHOUT = {
    "float": lambda x, s: shrink(x, float(s)),
    "item": lambda x, s: shrink(x, s.item() if isinstance(s, torch.Tensor) else s),
    "full": lambda x, s: shrink(x, torch.full((len(x), 1), s, dtype=F64)),
    "new_full": lambda x, s: shrink(x, x.new_full((len(x), 1), fill_value=s)),
    "numpy": through_numpy,
    "backward only": lambda x, s: Backward.apply(x),
    "inference": torch.inference_mode()(shrink),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor")
@pytest.mark.parametrize("name", WITHOUT)
def test_a_denoiser_without_a_forward_derivative_is_told_what_to_do(name):
    message = r"denoiser must have a forward derivative \(torch.func.jvp\) in x and sigma .* choose heun or dpm2"
    with pytest.raises(TypeError, match=message):
        sample(WITHOUT[name], initial_noise(4, (3,), 2.0), [2.0, 1.0], "genie")
    sample(WITHOUT[name], initial_noise(4, (3,), 2.0), [2.0, 1.0], "dpm2")


def test_what_has_one_is_taken_however_it_is_wrapped():
    x, grid = initial_noise(4, (3,), 2.0), [2.0, 1.0, 0.3]
    wanted = sample(shrink, x, grid, "genie").final
    for same in (torch.no_grad()(shrink), lambda x, s: shrink(x, torch.as_tensor(s)) if s > 0 else x):
        assert torch.equal(sample(same, x, grid, "genie").final, wanted)
    with torch.inference_mode():
        assert torch.equal(sample(shrink, x, grid, "genie").final, wanted)


def test_what_is_no_fault_of_the_derivative_is_not_called_one():
    calls = []

    def full(x, sigma):
        calls.append(sigma)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("no memory left")
        return 0.5 * x

    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        sample(full, initial_noise(4, (3,), 2.0), [2.0, 1.0], "genie")


def test_a_constant_has_the_derivative_zero_and_gradients_flow_through_a_path():
    x = initial_noise(4, (3,), 2.0)
    now = Point(x, 2.0, lambda y, s: torch.ones_like(x))
    assert torch.equal(taylor._along(now)[1], torch.zeros_like(x))
    x.requires_grad_()
    (grad,) = torch.autograd.grad(sample(shrink, x, [2.0, 1.0, 0.3], "genie").final.sum(), x)
    torch.testing.assert_close(grad, sample(shrink, torch.ones(4, 3, dtype=F64), [2.0, 1.0, 0.3], "genie").final)


def test_nobody_is_told_what_torch_has_deprecated():
    program = "from teachkit import *\nsample(Gaussian([0.0], 1.0), initial_noise(2, (1,)), [80.0, 1.0], 'genie')"
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_a_network_in_single_precision_steps_as_in_double():
    D, x, grid = edm.load("edm-digits8"), initial_noise(4, (1, 8, 8), seed=0), schedules.polynomial(6)
    wide = sample(edm.load("edm-digits8", dtype=F64), x, grid, solvers.get("genie")).final
    single = sample(D, x.float(), grid, "genie")
    assert single.final.dtype == torch.float32
    assert single.nfe == 12
    torch.testing.assert_close(single.final.double(), wide, rtol=0, atol=2e-3)

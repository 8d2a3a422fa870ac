"""Models in other coordinates: exact predictions must give exact denoisers, and the same solvers the same samples."""

import math
import types
from itertools import pairwise

import pytest
import torch

from teachkit import Gaussian, GaussianMixture, geometry, initial_noise, sample, schedules
from teachkit.adapters import from_eps, from_v, from_velocity, from_x0, time_index, vp_time

F64 = torch.float64
ABAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64)).cumprod(0)
MIXTURE = GaussianMixture([0.3, 0.7], [[-0.6, 0.2], [0.5, -0.3]], [0.05, 0.02])


def sigma_of_index(t):
    """Noise level at a fractional training step, linear in log sigma between steps."""
    levels = (1 / ABAR - 1).sqrt().log()
    low = t.floor().long().clamp(0, len(levels) - 2)
    return torch.lerp(levels[low], levels[low + 1], t - low).exp()


def exact_model(kind, sigma_of_time, denoiser=MIXTURE):
    """The optimal prediction from (z, t) alone, for a variance-preserving model."""

    def model(z, t, labels=None):
        sigma = sigma_of_time(t.double())
        s = sigma.reshape(-1, *[1] * (z.ndim - 1))
        x = z.double() * (1 + s**2).sqrt()
        x0 = denoiser(x, sigma, labels)
        eps = (x - x0) / s
        v = (eps - s * x0) / (1 + s**2).sqrt()
        return {"eps": eps, "v": v, "x0": x0}[kind].to(z.dtype)

    return model


def exact_velocity(z, s, labels=None):
    """z = (1 - s) x0 + s eps, velocity eps - x0, written without sigma's own formulas: D from x = z / (1 - s)."""
    s = s.double()
    column = s.reshape(-1, 1)
    x0 = MIXTURE(z.double() / (1 - column), s / (1 - s), labels)
    return ((z - (1 - column) * x0) / column - x0).to(z.dtype)


def points(dtype=F64):
    sigma = torch.tensor([0.02, 0.5, 7.123, 79.0], dtype=dtype)
    return initial_noise(4, (2,), 1.0, dtype=dtype) * (1 + sigma[:, None] ** 2).sqrt(), sigma


ADAPTERS = {
    "eps": lambda: from_eps(exact_model("eps", sigma_of_index), ABAR),
    "v": lambda: from_v(exact_model("v", sigma_of_index), ABAR),
    "x0": lambda: from_x0(exact_model("x0", sigma_of_index), alphas_cumprod=ABAR.tolist()),
    "continuous time": lambda: from_eps(
        exact_model("eps", lambda t: torch.expm1(0.1 * t + 19.9 * t**2 / 2).sqrt()), time=vp_time()
    ),
    "trigonometric": lambda: from_v(exact_model("v", torch.tan), time=torch.atan),
    "velocity": lambda: from_velocity(exact_velocity),
    "velocity, time to 1000": lambda: from_velocity(
        lambda z, t, y=None: exact_velocity(z, t / 1000, y), time_scale=1e3
    ),
    "velocity towards the data": lambda: from_velocity(
        lambda z, t, y=None: -exact_velocity(z, 1 - t, y), data_at_one=True
    ),
}


@pytest.mark.parametrize("kind", list(ADAPTERS))
def test_exact_predictions_give_the_exact_denoiser(kind):
    D, (x, sigma) = ADAPTERS[kind](), points()
    torch.testing.assert_close(D(x, sigma), MIXTURE(x, sigma), rtol=1e-9, atol=1e-9)
    for i, s in enumerate(sigma.tolist()):  # one level for the batch: a number or a 0-d tensor
        torch.testing.assert_close(D(x, s)[i], MIXTURE(x, s)[i], rtol=1e-9, atol=1e-9)
        assert torch.equal(D(x, torch.tensor(s, dtype=F64)), D(x, s))
    labels = torch.tensor([0, 1, 1, 0])
    torch.testing.assert_close(D(x, sigma, labels), MIXTURE(x, sigma, labels), rtol=1e-9, atol=1e-9)
    half, level = points(torch.float32)
    assert D(half, level).dtype == D(half, 0.5).dtype == torch.float32
    torch.testing.assert_close(D(half, level).double(), MIXTURE(x, sigma), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", list(ADAPTERS))
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ipndm"])
def test_the_same_solvers_run_them(kind, solver):
    x, sigmas = initial_noise(6, (2,), 79.0), schedules.polynomial(8, 0.02, 79.0)
    ours, theirs = sample(MIXTURE, x, sigmas, solver), sample(ADAPTERS[kind](), x, sigmas, solver)
    torch.testing.assert_close(theirs.final, ours.final, rtol=1e-7, atol=1e-7)
    assert theirs.nfe == ours.nfe


def test_ddim_in_alpha_bar_is_euler_in_sigma():
    steps = torch.linspace(999, 0, 21).round().long()
    model = exact_model("eps", sigma_of_index)
    z = initial_noise(8, (2,), 1.0)
    x = z / ABAR[steps[0]].sqrt()
    for t, t_next in pairwise(steps):  # DDIM with eta = 0, arXiv 2010.02502, eq. 12
        eps = model(z, t.double().expand(8))
        predicted = (z - (1 - ABAR[t]).sqrt() * eps) / ABAR[t].sqrt()
        z = ABAR[t_next].sqrt() * predicted + (1 - ABAR[t_next]).sqrt() * eps
    sigmas = (1 / ABAR[steps] - 1).sqrt()
    final = sample(from_eps(model, ABAR), x, sigmas).final
    torch.testing.assert_close(final, z / ABAR[0].sqrt(), rtol=1e-9, atol=1e-9)


def test_an_euler_step_in_flow_time_is_an_euler_step_in_sigma():
    # z' = z + (s' - s) velocity = (1 - s') x0 + s' eps: rescaled, x0 + sigma' eps, however few the steps.
    sigmas = schedules.polynomial(7, 0.02, 20.0)
    x, s = initial_noise(8, (2,), 20.0), sigmas / (1 + sigmas)
    z, path = x * (1 - s[0]), []
    for i in range(7):
        path.append(z)
        z = z + (s[i + 1] - s[i]) * exact_velocity(z, s[i].expand(8))
    ours = sample(from_velocity(exact_velocity), x, sigmas)
    torch.testing.assert_close(torch.stack([*path, z]) / (1 - s)[:, None, None], ours.x, rtol=1e-9, atol=1e-9)


def test_one_path_in_three_coordinates_has_one_end_and_three_shapes():
    sigmas = schedules.flow_shift(400, 1.0, 0.002, 80.0)
    path, s = sample(MIXTURE, initial_noise(32, (2,), 80.0), sigmas, "heun").x, sigmas[:, None, None]
    scales = {"exploding": torch.ones_like(s), "preserving": (1 + s**2).rsqrt(), "flow": 1 / (1 + s)}
    bend = {}
    for name, scale in scales.items():
        curve = scale * path
        torch.testing.assert_close(curve[-1], path[-1], rtol=3e-3, atol=0)
        chord = (curve[-1] - curve[0]).norm(dim=-1)
        bend[name] = float((geometry.deviation(curve).amax(0) / chord).median())
    # Relative to its chord, the exploding path is the straightest by far; the others bend visibly.
    assert 10 * bend["exploding"] < bend["preserving"] < bend["flow"]


def test_time_index_is_exact_at_the_levels_and_constant_outside():
    index = time_index(ABAR)
    levels = (1 / ABAR - 1).sqrt()
    torch.testing.assert_close(index(levels), torch.arange(1000, dtype=F64), rtol=0, atol=1e-8)
    between = (levels[10] * levels[11]).sqrt()  # half-way in log sigma
    assert float(index(between)) == pytest.approx(10.5)
    assert index(torch.tensor([1e-6, 1e6], dtype=F64)).tolist() == [0, 999]
    assert index(levels[7]).ndim == 0


def test_round_time_asks_only_for_whole_steps():
    asked = []

    def model(z, t):
        asked.append(t)
        return torch.zeros_like(z)

    D = from_eps(model, ABAR, round_time=True)
    x = initial_noise(3, (2,))
    for sigma in (0.02, 1.234, 50.0):
        D(x, sigma)
    assert all(torch.equal(t, t.round()) and t.shape == (3,) for t in asked)
    from_eps(model, ABAR)(x, 1.234)
    assert not torch.equal(asked[-1], asked[-1].round())


def test_continuous_time_runs_from_zero_to_one():
    time = vp_time()
    t = torch.tensor([1e-5, 0.3, 1.0], dtype=F64)
    sigma = torch.expm1(0.1 * t + 0.5 * 19.9 * t**2).sqrt()
    torch.testing.assert_close(time(sigma), t, rtol=1e-10, atol=0)


def test_a_module_moves_with_its_adapter_and_images_pass():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = torch.nn.Parameter(torch.tensor(0.25))

        def forward(self, z, t, labels=None):
            return self.mean.expand_as(z)

    D = from_x0(Network(), ABAR).double()
    assert [p.dtype for p in D.parameters()] == [F64]
    final = sample(D, initial_noise(2, (3, 4, 4)), [80.0, 1.0, 0.0]).final
    torch.testing.assert_close(final, torch.full((2, 3, 4, 4), 0.25, dtype=F64))


class Net(torch.nn.Module):
    """A network whose layers take one dtype, told the dtypes it is called with."""

    def __init__(self, dtype, outputs=2):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.times = torch.nn.Conv2d(2, outputs, 3, padding=1, dtype=dtype), []

    def forward(self, z, t, labels=None):
        self.times.append(t)
        shift = 0 if labels is None else labels["text"].mean(1)[:, None, None, None] + labels["number"][0]
        return types.SimpleNamespace(sample=self.conv(z) + shift)


CONVERTED = {
    "eps": lambda net: from_eps(net, ABAR),
    "v": lambda net: from_v(net, ABAR),
    "x0": lambda net: from_x0(net, ABAR),
    "velocity": lambda net: from_velocity(net, time_scale=1000.0),
}
HALVES = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("kind", list(CONVERTED))
@pytest.mark.parametrize("own", [*HALVES, torch.float32, F64], ids=str)
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, F64], ids=str)
def test_a_network_runs_in_its_own_dtype_whatever_the_state_has(kind, own, dtype):
    net, exact = Net(own), Net(F64)
    exact.load_state_dict(net.state_dict())
    x = initial_noise(3, (2, 4, 4), 1.0)
    exact.requires_grad_(False)
    labels = {"text": torch.ones(3, 2, dtype=F64), "number": torch.tensor([1, 1, 1])}
    tolerance = max(HALVES.get(own, 1e-5), HALVES.get(dtype, 1e-5))
    for sigma in (50.0, torch.tensor([0.02, 1.0, 50.0], dtype=F64)):
        ours = CONVERTED[kind](net)(x.to(dtype), sigma, labels)
        truth = CONVERTED[kind](exact)(x, sigma, labels)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), truth, rtol=tolerance, atol=10 * tolerance * float(truth.abs().max()))
    assert {t.dtype for t in net.times} == {F64 if own == F64 else torch.float32}  # bfloat16 would round 999 to 1000


@pytest.mark.parametrize("half", list(HALVES), ids=str)
def test_a_half_precision_state_loses_nothing_around_the_network(half):
    # At sigma = 50 the numbers of x and sigma * eps are large and nearly equal: their difference is taken in float32.
    x, eps = initial_noise(64, (2,), 50.0).to(half), initial_noise(64, (2,), 1.0, seed=0).to(half)
    D = from_eps(lambda z, t: eps, ABAR)
    for sigma in (50.1, torch.tensor(50.1)):
        assert torch.equal(D(x, sigma), (x.float() - 50.1 * eps.float()).to(half))


@pytest.mark.parametrize("kind", list(CONVERTED))
@pytest.mark.parametrize("half", list(HALVES), ids=str)
def test_autocast_around_the_sampler(kind, half):
    D = CONVERTED[kind](Net(torch.float32))
    x, sigmas = initial_noise(3, (2, 4, 4), 20.0, dtype=torch.float32), schedules.polynomial(6, 0.1, 20.0)
    plain = sample(D, x, sigmas, "heun").final
    with torch.autocast("cpu", half):
        ours = sample(D, x, sigmas, "heun").final
    assert ours.dtype == torch.float32
    assert not torch.equal(ours, plain)
    torch.testing.assert_close(ours, plain, rtol=0, atol=HALVES[half] * float(x.abs().max()))


@pytest.mark.parametrize("kind", list(CONVERTED))
def test_a_learned_variance_is_left_out(kind):
    wide, narrow = Net(F64, outputs=4), Net(F64)
    narrow.load_state_dict({name: value[:2] for name, value in wide.state_dict().items()})
    x, sigma = initial_noise(3, (2, 4, 4), 3.0), torch.tensor([0.1, 1.0, 3.0], dtype=F64)
    torch.testing.assert_close(CONVERTED[kind](wide)(x, sigma), CONVERTED[kind](narrow)(x, sigma))
    for model in (Net(F64, outputs=3), lambda z, t: torch.cat([z, z], dim=2)):
        with pytest.raises(ValueError, match="shape of z"):
            CONVERTED[kind](model)(x, sigma)
    with pytest.raises(ValueError, match="shape of z"):  # points have no channels
        CONVERTED[kind](lambda z, t: torch.cat([z, z], dim=1))(x[:, :, 0, 0], sigma)


def test_what_is_a_denoiser_already_is_not_converted_again():
    D = from_eps(Net(F64), ABAR)
    for again in (lambda: from_eps(D, ABAR), lambda: from_velocity(D)):
        with pytest.raises(TypeError, match="must be a model as it was trained, got AdaptedDenoiser"):
            again()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_eps(3, ABAR), TypeError, "model must be callable"),
        (lambda: from_eps(torch.sin, [0.9]), ValueError, "at least two numbers"),
        (lambda: from_eps(torch.sin, [1.1, 0.9]), ValueError, r"inside \(0, 1\)"),
        (lambda: from_v(torch.sin, [0.5, 0.9]), ValueError, "must decrease"),
        (lambda: from_x0(torch.sin, [0.9, math.nan]), ValueError, r"inside \(0, 1\)"),
        (lambda: from_x0(torch.sin, "cosine"), TypeError, "alphas_cumprod must be"),
        (lambda: from_x0(torch.sin, torch.atan), TypeError, "a function of sigma is time="),
        (lambda: from_eps(torch.sin), ValueError, "exactly one of alphas_cumprod .* and time"),
        (lambda: from_v(torch.sin, ABAR, time=torch.atan), ValueError, "exactly one of"),
        (lambda: from_v(torch.sin, time=3.0), TypeError, "time must be callable"),
        (lambda: from_velocity(torch.sin, time_scale=0.0), ValueError, "time_scale must be"),
        (lambda: from_velocity(torch.sin, time_scale="1"), TypeError, "time_scale must be"),
        (lambda: vp_time(2.0, 1.0), ValueError, "beta_min < beta_max"),
        (lambda: from_velocity(lambda z, t: z[:, :1])(torch.zeros(2, 3), 1.0), ValueError, "shape of z"),
        (lambda: from_velocity(exact_velocity)(torch.zeros(2), 1.0), ValueError, "x must have shape"),
        (
            lambda: from_velocity(exact_velocity)(torch.zeros(2, 2), 0.0),
            ValueError,
            "sigma must be a finite number > 0",
        ),
        (
            lambda: from_velocity(exact_velocity)(torch.zeros(2, 2), math.nan),
            ValueError,
            "sigma must be a finite number",
        ),
        (lambda: from_velocity(exact_velocity)(torch.zeros(2, 2), torch.ones(3)), ValueError, r"or \(2,\)"),
        (lambda: from_velocity(exact_velocity)(torch.zeros(2, 2), "1"), TypeError, "sigma must be a finite number"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_gaussian_through_every_adapter_has_the_exact_flow():
    gaussian = Gaussian([0.5, -0.5], [[0.3, 0.1], [0.1, 0.1]])
    x = initial_noise(5, (2,), 40.0)
    D = from_v(exact_model("v", sigma_of_index, gaussian), ABAR)
    final = sample(D, x, schedules.polynomial(400, 0.02, 40.0), "dpmpp_2m").final
    torch.testing.assert_close(final, gaussian.flow(x, 40.0, 0.02), rtol=0, atol=1e-4)

"""Side by side with k-diffusion's samplers, torchdiffeq and diffusers' schedulers (`make peers`).

The same closed-form denoiser, start and grid go through both; what must agree is the path's end and, where the peer
counts, the number of evaluations.
"""

import itertools
import math

import pytest
import torch

from benchmarks.peers import k_diffusion_sampling
from teachkit import GaussianMixture, initial_noise, sample, schedules, scheduling, solvers

pytestmark = [
    pytest.mark.peers("k_diffusion", "torchdiffeq", "torchsde", "diffusers"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers"),
]
F64 = torch.float64
MIXTURE = GaussianMixture(
    [0.3, 0.7], [[-0.6, 0.2], [0.5, -0.3]], [[[0.2, 0.05], [0.05, 0.1]], [[0.1, 0.0], [0.0, 0.3]]]
)
# Published six-step list for CIFAR-10 (arXiv 2405.11326).
FOUND = torch.tensor([80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002], dtype=F64)
GRIDS = {
    "polynomial": schedules.polynomial(12),
    "polynomial to 0": schedules.polynomial(12, zero=True),
    "found": FOUND,
    "latent diffusion": schedules.ddpm(10, 0.00085, 0.012, kind="scaled_linear", zero=True),
}


def start(sigma):
    return initial_noise(16, (2,), float(sigma), seed=5)


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, x, sigma, labels=None):
        self.calls += 1
        return MIXTURE(x, sigma)


# --- k-diffusion ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def k_diffusion():
    return k_diffusion_sampling()


K_DIFFUSION = [
    ("euler", {}, "sample_euler", {}),
    ("heun", {}, "sample_heun", {}),
    ("dpm2", {}, "sample_dpm_2", {}),
    ("dpmpp_2m", {"lower_order_final": False}, "sample_dpmpp_2m", {}),
    *(("lms", {"order": k}, "sample_lms", {"order": k}) for k in (1, 2, 3, 4)),
]


@pytest.mark.parametrize("grid", list(GRIDS))
@pytest.mark.parametrize(("name", "options", "function", "arguments"), K_DIFFUSION)
def test_k_diffusion(k_diffusion, name, options, function, arguments, grid):
    sigmas, peer = GRIDS[grid], Counting()
    with torch.no_grad():
        theirs = getattr(k_diffusion, function)(peer, start(sigmas[0]), sigmas, disable=True, **arguments)
    ours = sample(MIXTURE, start(sigmas[0]), sigmas, solvers.get(name, **options))
    # k-diffusion integrates the weights of lms to 1e-4 only.
    tolerance = 5e-4 if name == "lms" else 1e-11
    torch.testing.assert_close(ours.final, theirs, rtol=tolerance, atol=tolerance)
    assert ours.nfe == peer.calls


@pytest.mark.parametrize("grid", list(GRIDS))
def test_k_diffusion_with_added_noise(k_diffusion, monkeypatch, grid):
    """EDM's stochastic sampler: theirs draws from ours, one standard normal for each step."""
    sigmas, peer, draws = GRIDS[grid], Counting(), itertools.count(1)
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "randn_like", lambda x: initial_noise(16, (2,), 1.0, seed=3, stream=next(draws)))
        theirs = k_diffusion.sample_heun(
            peer, start(sigmas[0]), sigmas, disable=True, s_churn=40, s_tmin=0.05, s_tmax=50, s_noise=1.003
        )
    solver = solvers.get("edm_stochastic", churn=40.0, sigma_low=0.05, sigma_high=50.0, noise_scale=1.003, seed=3)
    ours = sample(MIXTURE, start(sigmas[0]), sigmas, solver)
    torch.testing.assert_close(ours.final, theirs, rtol=1e-11, atol=1e-11)
    assert ours.nfe == peer.calls
    assert not torch.allclose(ours.final, sample(MIXTURE, start(sigmas[0]), sigmas, "heun").final, atol=1e-3)


def test_k_diffusion_schedules(k_diffusion):
    for rho in (3.0, 7.0):
        theirs = k_diffusion.get_sigmas_karras(12, 0.002, 80.0, rho)  # float32
        torch.testing.assert_close(schedules.polynomial(11, rho=rho, zero=True).float(), theirs, rtol=1e-5, atol=0)
    theirs = k_diffusion.get_sigmas_exponential(12, 0.002, 80.0)
    torch.testing.assert_close(schedules.logsnr(11, zero=True).float(), theirs, rtol=1e-5, atol=0)


# --- torchdiffeq ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "method"), [("euler", "euler"), ("heun", "heun2")])
@pytest.mark.parametrize("grid", ["polynomial", "found"])
def test_torchdiffeq(name, method, grid):
    from torchdiffeq import odeint

    sigmas = GRIDS[grid]
    theirs = odeint(lambda sigma, x: (x - MIXTURE(x, float(sigma))) / sigma, start(sigmas[0]), sigmas, method=method)
    torch.testing.assert_close(sample(MIXTURE, start(sigmas[0]), sigmas, name).x, theirs, rtol=1e-11, atol=1e-11)


# --- diffusers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diffusers():
    import diffusers

    return diffusers


STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
STEPS = 12


def exploding(scheduler, **step):
    """Run a scheduler that keeps x itself and scales it on the way into the model."""
    scheduler.set_timesteps(STEPS)
    x, calls = start(scheduler.sigmas[0]), 0
    for t in scheduler.timesteps:
        scale = scheduler.scale_model_input(torch.ones((), dtype=F64), t)  # 1 / sqrt(1 + sigma^2)
        sigma = math.sqrt(float(scale) ** -2 - 1)
        x = scheduler.step((x - MIXTURE(x, sigma)) / sigma, t, x, **step).prev_sample
        calls += 1
    return x, calls


def preserving(scheduler):
    """Run a scheduler that keeps z = x / sqrt(1 + sigma^2)."""
    scheduler.set_timesteps(STEPS)
    sigmas = scheduler.sigmas.double()
    scale = (1 + sigmas**2).rsqrt()
    z = scale[0] * start(sigmas[0])
    for i, t in enumerate(scheduler.timesteps):
        x = z / scale[i]
        z = scheduler.step((x - MIXTURE(x, float(sigmas[i]))) / sigmas[i], t, z).prev_sample
    return z / scale[-1], sigmas


def assert_same_end(sigmas, theirs, name, nfe=None, **options):
    solver = name if isinstance(name, solvers.Solver) else solvers.get(name, **options)
    ours = sample(MIXTURE, start(sigmas[0]), sigmas, solver)
    torch.testing.assert_close(ours.final, theirs.double(), rtol=1e-4, atol=1e-4)  # their sigmas are float32
    assert nfe in (None, ours.nfe)


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [("EulerDiscreteScheduler", "euler"), ("HeunDiscreteScheduler", "heun"), ("LMSDiscreteScheduler", "lms")],
)
def test_diffusers_schedulers_in_sigma(diffusers, scheduler, name):
    peer = getattr(diffusers, scheduler)(**STABLE, use_karras_sigmas=True)
    theirs, calls = exploding(peer)
    assert_same_end(peer.sigmas.double().unique().flip(0), theirs, name, nfe=calls)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    ("algorithm", "prediction", "end"),
    [("dpmsolver++", "x0", "zero"), ("dpmsolver++", "x0", "sigma_min"), ("dpmsolver", "eps", "sigma_min")],
)  # noise prediction in diffusers refuses to end at 0
def test_diffusers_dpm_solver_multistep(diffusers, algorithm, prediction, end, order):
    peer = diffusers.DPMSolverMultistepScheduler(
        **STABLE, algorithm_type=algorithm, solver_order=order, solver_type="midpoint", final_sigmas_type=end
    )
    theirs, sigmas = preserving(peer)
    assert_same_end(sigmas, theirs, "dpmpp_3m", order=order, prediction=prediction)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    ("variant", "prediction", "end"),
    [
        ("bh2", "x0", "zero"),
        *((variant, prediction, "sigma_min") for variant in ("bh1", "bh2") for prediction in ("x0", "eps")),
    ],
)  # the others that end at 0 give NaN in diffusers
def test_diffusers_unipc(diffusers, variant, prediction, end, order):
    peer = diffusers.UniPCMultistepScheduler(
        **STABLE, solver_type=variant, solver_order=order, predict_x0=prediction == "x0", final_sigmas_type=end
    )
    theirs, sigmas = preserving(peer)
    assert_same_end(sigmas, theirs, "unipc", order=order, variant=variant, prediction=prediction)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_diffusers_deis_is_noise_prediction_in_log_sigma(diffusers, order):
    peer = diffusers.DEISMultistepScheduler(**STABLE, solver_order=order)
    theirs, sigmas = preserving(peer)
    assert_same_end(sigmas, theirs, "res_3m", order=order, prediction="eps", lower_order_final=True)


def test_diffusers_ipndm(diffusers):
    sigmas = schedules.polynomial(STEPS, 0.02, 20.0)
    scale = (1 + sigmas**2).rsqrt()
    peer = diffusers.IPNDMScheduler(trained_betas=(sigmas * scale).tolist())
    peer.set_timesteps(STEPS)
    z = scale[0] * start(20.0)
    for i, t in enumerate(peer.timesteps):
        x = z / scale[i]
        denoised = MIXTURE(x, float(sigmas[i]))
        v = scale[i] * ((x - denoised) / sigmas[i] - sigmas[i] * denoised)
        z = peer.step(v, t, z).prev_sample
    assert_same_end(sigmas, z / scale[-1], "ipndm", order=4)


def edm_output(scheduler, x, sigma):
    """What an EDM network would say there: D = c_skip x + c_out F, solved for F."""
    data = scheduler.config.sigma_data
    skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2) ** 0.5
    return (MIXTURE(x, sigma) - skip * x) / out


SHORT = [20.0, 5.0, 1.8, 0.7, 0.25, 0.06, 0.02]


@pytest.mark.parametrize(
    ("scheduler", "settings", "solver", "options"),
    [
        ("EDMEulerScheduler", {}, "euler", {}),
        ("EDMDPMSolverMultistepScheduler", {"solver_order": 2}, "dpmpp_2m", {}),
        ("EDMDPMSolverMultistepScheduler", {"solver_order": 3}, "dpmpp_3m", {"order": 3}),
    ],
)
def test_a_schedule_drives_the_edm_schedulers_of_diffusers(diffusers, scheduler, settings, solver, options):
    schedule = scheduling.Schedule(SHORT, solver, 6, options)
    peer = getattr(diffusers, scheduler)(sigma_min=0.02, sigma_max=20.0, **settings)
    scheduling.drive(peer, schedule)
    x, calls = start(20.0), 0
    for t in peer.timesteps:
        sigma = float((4 * t.double()).exp())
        peer.scale_model_input(x, t)
        x = peer.step(edm_output(peer, x, sigma), t, x).prev_sample
        calls += 1
    assert_same_end(schedule.sigmas, x, schedule.make_solver(), nfe=calls)


def test_a_schedule_drives_ipndm_of_diffusers(diffusers):
    schedule = scheduling.Schedule(SHORT, "ipndm", 6, {"order": 4})
    peer = diffusers.IPNDMScheduler()
    scheduling.drive(peer, schedule)
    scale = (1 + schedule.sigmas**2).rsqrt()
    z = scale[0] * start(20.0)
    for t in peer.timesteps:
        sigma = float((t.double() * math.pi / 2).tan())
        x = z * math.sqrt(1 + sigma**2)
        denoised = MIXTURE(x, sigma)
        v = ((x - denoised) / sigma - sigma * denoised) / math.sqrt(1 + sigma**2)
        z = peer.step(v, t, z).prev_sample
    assert_same_end(schedule.sigmas, z / scale[-1], schedule.make_solver(), nfe=len(peer.timesteps))


@pytest.mark.parametrize("last", [0.02, 0.0])
def test_schedulers_with_an_argument_for_levels_take_them(diffusers, last):
    schedule = scheduling.Schedule([*SHORT[:-1], last], "euler", 6)
    peer = diffusers.EulerDiscreteScheduler(**STABLE)
    peer.set_timesteps(**schedule.to_diffusers())
    torch.testing.assert_close(peer.sigmas.double(), schedule.sigmas, rtol=1e-6, atol=0)
    with pytest.raises(TypeError, match="got EulerDiscreteScheduler; others take set_timesteps"):
        scheduling.drive(peer, schedule)


SHIFTS = [
    ({}, None),
    ({"shift": 3.0}, None),
    ({"use_dynamic_shifting": True}, 0.8),
    ({"use_dynamic_shifting": True, "time_shift_type": "linear"}, 2.5),
    ({"shift": 3.0, "invert_sigmas": True}, None),
]


def flowing(peer, settings):
    """Run a flow-matching scheduler on z = x / (1 + sigma), from where its first time says; and count."""
    sign = -1 if settings.get("invert_sigmas") else 1
    s = peer.sigmas.double() if sign == 1 else 1 - peer.sigmas.double()
    sigma = s / (1 - s)
    z, calls = start(sigma[0]) / (1 + sigma[0]), 0
    for i, t in enumerate(peer.timesteps):
        velocity = (z - MIXTURE(z * (1 + sigma[i]), float(sigma[i]))) / s[i]
        z = peer.step(sign * velocity, t, z).prev_sample.double()
        calls += 1
    return z * (1 + sigma[-1]), calls


@pytest.mark.parametrize(("settings", "mu"), SHIFTS)
def test_a_flow_matching_scheduler_steps_through_the_levels_whatever_its_shift(diffusers, settings, mu):
    schedule = scheduling.Schedule([80.0, 5.1, 2.5, 0.7, 0.0], "euler", 4)
    peer = diffusers.FlowMatchEulerDiscreteScheduler(**settings)
    peer.set_timesteps(**schedule.to_diffusers(scheduler=peer, mu=mu))
    theirs, calls = flowing(peer, settings)
    assert calls == schedule.nfe
    assert_same_end(schedule.sigmas, theirs, "euler", nfe=calls)


@pytest.mark.parametrize(("settings", "mu"), [*SHIFTS, ({"shift_terminal": 0.1, "shift": 3.0}, None)])
def test_a_schedule_drives_the_flow_matching_scheduler_to_its_last_level(diffusers, settings, mu):
    schedule = scheduling.Schedule(SHORT, "euler", 6)
    peer = diffusers.FlowMatchEulerDiscreteScheduler(**settings)
    scheduling.drive(peer, schedule)
    theirs, calls = flowing(peer, settings)
    assert_same_end(schedule.sigmas, theirs, "euler", nfe=calls)


def test_a_flow_matching_scheduler_that_would_change_the_samples_is_refused(diffusers):
    schedule = scheduling.Schedule([80.0, 5.1, 2.5, 0.0], "euler", 3)
    make = diffusers.FlowMatchEulerDiscreteScheduler
    for settings, mu, message in (
        ({"use_dynamic_shifting": True}, None, "mu must be given"),
        ({"shift": 3.0}, 0.8, "mu must be None"),
        ({"shift_terminal": 0.1}, None, "got one with shift_terminal"),
        ({"use_karras_sigmas": True}, None, "got one with use_karras_sigmas"),
        ({"stochastic_sampling": True}, None, "must be deterministic"),
    ):
        with pytest.raises(ValueError, match=message):
            schedule.to_diffusers(scheduler=make(**settings), mu=mu)
    with pytest.raises(ValueError, match="must be deterministic"):
        scheduling.drive(make(stochastic_sampling=True), schedule)
    with pytest.raises(ValueError, match="must be deterministic"):
        scheduling.drive(diffusers.EDMDPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), schedule)
    with pytest.raises(TypeError, match="scheduler must be diffusers' FlowMatchEuler"):
        schedule.to_diffusers(scheduler=diffusers.IPNDMScheduler())


def test_schedulers_with_an_argument_for_times_take_them(diffusers):
    peer = diffusers.DPMSolverMultistepScheduler(**STABLE)
    schedule = scheduling.Schedule(schedules.polynomial(6, 0.05, 10.0), "dpmpp_2m", 6)
    peer.set_timesteps(**schedule.to_diffusers(peer.alphas_cumprod))
    assert len(peer.timesteps) == 6
    torch.testing.assert_close(peer.sigmas[:-1].double(), schedule.sigmas[:-1], rtol=0.03, atol=0)


def test_diffusers_levels(diffusers):
    peer = diffusers.EulerDiscreteScheduler(**STABLE, timestep_spacing="linspace")
    peer.set_timesteps(1000)
    ours = schedules.ddpm(999, 0.00085, 0.012, kind="scaled_linear", zero=True)
    torch.testing.assert_close(ours.float(), peer.sigmas, rtol=1e-4, atol=0)

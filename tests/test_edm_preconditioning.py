"""Preconditioning: coefficients against the formulas they come from, and the denoiser convention."""

import math

import pytest
import torch

from teachkit.edm import EDMPrecond, LearnedDenoiser, VEPrecond, VPPrecond, iDDPMPrecond
from teachkit.edm.preconditioning import PRECONDITIONINGS

SMALL = {
    "img_resolution": 8,
    "img_channels": 1,
    "model_type": "SongUNet",
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [],
}
SIGMAS = torch.tensor([0.002, 0.1, 1.0, 20.0, 80.0], dtype=torch.float64)


def make(cls=EDMPrecond, **kwargs):
    torch.manual_seed(0)
    net = cls(**{**SMALL, **kwargs})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return net.eval().requires_grad_(False)


def images(n=3, dtype=torch.float32):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=dtype)


def test_edm_keeps_unit_variance():
    """Input, target and the error of an optimal linear F have the variances EDM asks for (its Appendix B.6)."""
    net = make(sigma_data=0.7)
    c_skip, c_out, c_in, c_noise = net.coefficients(SIGMAS)
    torch.testing.assert_close(c_in**2 * (0.49 + SIGMAS**2), torch.ones_like(SIGMAS))
    # Var[target] = Var[(x0 - c_skip (x0 + n)) / c_out] = 1
    target = ((1 - c_skip) ** 2 * 0.49 + c_skip**2 * SIGMAS**2) / c_out**2
    torch.testing.assert_close(target, torch.ones_like(SIGMAS))
    # c_skip minimises c_out: no other value does better.
    for other in (0.9 * c_skip, c_skip + 0.01):
        assert ((1 - other) ** 2 * 0.49 + other**2 * SIGMAS**2 > c_out**2).all()
    torch.testing.assert_close(c_noise, SIGMAS.log() / 4)


def test_vp_time_inverts_sigma():
    net = make(VPPrecond)
    t = torch.linspace(1e-5, 1, 50, dtype=torch.float64)
    sigma = torch.tensor([net.sigma(float(u)) for u in t], dtype=torch.float64)
    torch.testing.assert_close(net.time(sigma), t, rtol=1e-12, atol=0)
    rate = 0.1 + 19.9 * t  # beta(t); alpha-bar = exp(-integral) = 1 / (1 + sigma^2)
    torch.testing.assert_close(1 / (1 + sigma**2), torch.exp(-(rate + 0.1) / 2 * t))
    assert (net.sigma_min, net.sigma_max) == (pytest.approx(1.0005e-3, rel=1e-3), pytest.approx(152.17, rel=1e-3))
    c_skip, c_out, c_in, c_noise = net.coefficients(sigma)
    torch.testing.assert_close(c_noise, 999 * t, rtol=1e-12, atol=0)
    assert torch.equal(c_out, -sigma)
    assert (c_skip == 1).all()
    torch.testing.assert_close(c_in**-2 - 1, sigma**2, rtol=1e-6, atol=0)


def test_ve_coefficients():
    c_skip, c_out, c_in, c_noise = make(VEPrecond).coefficients(SIGMAS)
    assert (c_skip == 1).all()
    assert (c_in == 1).all()
    assert torch.equal(c_out, SIGMAS)
    torch.testing.assert_close(c_noise, (SIGMAS / 2).log())


def test_iddpm_levels():
    net = make(iDDPMPrecond, M=100)
    levels = torch.tensor(net.levels, dtype=torch.float64)
    assert len(levels) == 101
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()
    # Away from the clipped end the levels are the cosine schedule: alpha-bar_j = f(j) / f(M), up to the common factor.
    alpha_bar = 1 / (1 + levels**2)
    cosine = torch.sin(0.5 * math.pi * torch.arange(101, dtype=torch.float64) / 100 / 1.008) ** 2
    torch.testing.assert_close(alpha_bar[5:], cosine[5:] / cosine[100])
    between = 0.6 * levels[40] + 0.4 * levels[41]
    assert net.round_sigma(between) == levels[40]
    assert net.coefficients(between).c_noise == 99 - 40
    assert net.model.out_channels == 2
    assert net(images(), float(levels[40])).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("cls", PRECONDITIONINGS.values())
def test_denoiser_is_the_combination(cls):
    net, x = make(cls).double(), images(dtype=torch.float64)
    sigma = torch.tensor([0.5, 2.0, 30.0], dtype=torch.float64)
    c = [v.view(-1, 1, 1, 1) for v in net.coefficients(sigma)]
    raw = net.model(c[2] * x, c[3].flatten())[:, :1]
    torch.testing.assert_close(net(x, sigma), c[0] * x + c[1] * raw)
    torch.testing.assert_close(net.raw(x, sigma), raw)


def test_sigma_forms_agree():
    net, x = make(), images()
    expected = net(x, torch.full((3,), 0.7))
    for sigma in (0.7, torch.tensor(0.7), torch.tensor([0.7]), torch.tensor(0.7, dtype=torch.float64)):
        torch.testing.assert_close(net(x, sigma), expected)


def test_label_forms_agree():
    net, x = make(label_dim=4), images()
    expected = net(x, 1.0, torch.eye(4)[[2, 2, 2]])
    for labels in (torch.tensor([2, 2, 2]), torch.tensor([2, 2, 2], dtype=torch.int32), 2, torch.tensor(2)):
        torch.testing.assert_close(net(x, 1.0, labels), expected)
    torch.testing.assert_close(net(x, 1.0), net(x, 1.0, torch.zeros(3, 4)))
    assert not torch.allclose(net(x, 1.0), expected)


@pytest.mark.parametrize("state", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [torch.float64, torch.float32, torch.bfloat16])
def test_result_has_the_dtype_of_the_state(state, weights):
    net, x = make().to(weights), images(dtype=state)
    seen = []
    net.model.register_forward_pre_hook(lambda m, args: seen.append((args[0].dtype, args[1].dtype)))
    assert net(x, 0.5).dtype == state
    assert seen == [(weights, torch.float64 if weights == torch.float64 else torch.float32)]


def test_double_state_keeps_its_digits_around_a_single_precision_network():
    """At small noise D is x to many digits; a float32 network must not round the state itself."""
    net, x = make(VEPrecond), images(dtype=torch.float64)
    assert (net(x, 1e-12) - x).abs().max() < 1e-11


def test_config_round_trip():
    net = make(label_dim=3, sigma_data=0.3, dropout=0.2)
    again = type(net)(**net.config)
    again.load_state_dict(net.state_dict())
    again.eval()
    assert torch.equal(again(images(), 0.5, 1), net(images(), 0.5, 1))
    assert again.config == net.config


def test_a_denoiser_says_what_it_is():
    net = make(label_dim=3).double()
    assert (net.device, net.dtype) == (torch.device("cpu"), torch.float64)
    assert "img_resolution=8, img_channels=1, label_dim=3" in repr(net)
    assert torch.equal(net.round_sigma(SIGMAS), SIGMAS)


def test_arguments_are_in_the_order_of_the_published_constructors():
    """Snapshots may hold them by position."""
    shared = ["img_resolution", "img_channels", "label_dim", "use_fp16"]
    own = {
        EDMPrecond: ["sigma_min", "sigma_max", "sigma_data", "model_type", "levels"],  # the last is ours
        VPPrecond: ["beta_d", "beta_min", "M", "epsilon_t", "model_type"],
        VEPrecond: ["sigma_min", "sigma_max", "model_type"],
        iDDPMPrecond: ["C_1", "C_2", "M", "model_type"],
    }
    assert {cls: cls.argument_names() for cls in own} == {cls: shared + names for cls, names in own.items()}
    assert set(own) == set(PRECONDITIONINGS.values())


@pytest.mark.parametrize(
    ("args", "error", "word"),
    [
        ((torch.zeros(2, 1, 8, 7), 1.0), ValueError, "x must have shape"),
        ((torch.zeros(2, 3, 8, 8), 1.0), ValueError, "x must have shape"),
        ((torch.zeros(1, 8, 8), 1.0), ValueError, "x must have shape"),
        ((torch.zeros(2, 1, 8, 8, dtype=torch.int64), 1.0), TypeError, "floating-point"),
        (([[0.0]], 1.0), TypeError, "floating-point"),
        ((torch.zeros(2, 1, 8, 8), 0.0), ValueError, "sigma must be a finite number > 0"),
        ((torch.zeros(2, 1, 8, 8), -1.0), ValueError, "sigma must be a finite number > 0"),
        ((torch.zeros(2, 1, 8, 8), math.nan), ValueError, "sigma must be a finite number > 0"),
        ((torch.zeros(2, 1, 8, 8), torch.tensor([1.0, math.inf])), ValueError, "positive"),
        ((torch.zeros(2, 1, 8, 8), torch.ones(3)), ValueError, "sigma must be"),
        ((torch.zeros(2, 1, 8, 8), torch.ones(2, 1)), ValueError, "sigma must be"),
        ((torch.zeros(2, 1, 8, 8), 1.0, torch.tensor([0, 4])), ValueError, "labels must lie in 0 … 3"),
        ((torch.zeros(2, 1, 8, 8), 1.0, torch.tensor([0, -1])), ValueError, "labels must lie"),
        ((torch.zeros(2, 1, 8, 8), 1.0, torch.tensor([0, 1, 2])), ValueError, "integer labels must have shape"),
        ((torch.zeros(2, 1, 8, 8), 1.0, torch.zeros(2, 3)), ValueError, "labels must be"),
        ((torch.zeros(2, 1, 8, 8), 1.0, torch.tensor([True, False])), TypeError, "integers or floats"),
    ],
)
def test_bad_input_is_refused(args, error, word):
    with pytest.raises(error, match=word):
        make(label_dim=4)(*args)


def test_inputs_the_network_does_not_have_are_refused():
    with pytest.raises(ValueError, match="unconditional"):
        make()(images(), 1.0, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="augment_dim is 0"):
        make()(images(), 1.0, augment_labels=torch.zeros(3, 9))
    with pytest.raises(ValueError, match=r"\(3, 9\)"):
        make(augment_dim=9)(images(), 1.0, augment_labels=torch.zeros(3, 8))


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"model_type": "UNet"}, "model_type"),
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_max must be a finite number > 2"),
    ],
)
def test_bad_construction_is_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        EDMPrecond(**{**SMALL, **kwargs})


def test_base_class_has_no_coefficients():
    with pytest.raises(TypeError, match="base class"):
        LearnedDenoiser(**SMALL)(images(), 1.0)


@pytest.mark.slow
def test_compiles_into_one_graph_for_all_noise_levels():
    net, x = make(label_dim=4), images()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for sigma in (torch.tensor(0.5), torch.tensor(7.0)):
        torch.testing.assert_close(compiled(x, sigma, torch.tensor([0, 1, 2])), net(x, sigma, torch.tensor([0, 1, 2])))


def test_coefficients_can_be_compared():
    one, two = (EDMPrecond.__new__(EDMPrecond) for _ in range(2))
    one.sigma_data = two.sigma_data = 0.5
    levels = torch.tensor([0.1, 1.0])
    assert one._coefficients(levels) == two._coefficients(levels)
    assert one._coefficients(levels) != two._coefficients(2 * levels)
    assert hash(one._coefficients(levels)) == hash(two._coefficients(levels))

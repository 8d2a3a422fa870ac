"""Networks from elsewhere: exact noise predictions must give exact denoisers."""

import types

import pytest
import torch

from teachkit import adapters

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHAS = (1 - BETAS).cumprod(0)


class ExactNetwork(torch.nn.Module):
    """The optimal prediction for data N(0.3, 0.5^2), computed from (z, t) alone."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, z, t, class_labels=None):
        log_sigma = ((1 - ALPHAS) / ALPHAS).log() / 2
        low = t.double().floor().long().clamp(0, 998)
        sigma = (log_sigma[low] + (t.double() - low) * (log_sigma[low + 1] - log_sigma[low])).exp()[:, None, None, None]
        x = z.double() * (1 + sigma**2).sqrt()
        x0 = 0.3 + 0.25 / (0.25 + sigma**2) * (x - 0.3)
        eps = (x - x0) / sigma
        v = (eps - sigma * x0) / (1 + sigma**2).sqrt()
        out = {"epsilon": eps, "sample": x0, "v_prediction": v}[self.kind]
        return types.SimpleNamespace(sample=out.to(z.dtype))


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_exact_prediction_gives_the_exact_denoiser(kind):
    scheduler = types.SimpleNamespace(alphas_cumprod=ALPHAS, config=types.SimpleNamespace(prediction_type=kind))
    denoiser = adapters.from_diffusers(ExactNetwork(kind), scheduler)
    sigma = torch.tensor([0.02, 0.5, 7.123, 120.0], dtype=torch.float64)
    s2 = sigma[:, None, None, None] ** 2
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (1 + s2).sqrt()
    exact = 0.3 + 0.25 / (0.25 + s2) * (x - 0.3)
    torch.testing.assert_close(denoiser(x, sigma), exact, rtol=1e-4, atol=1e-4)  # time steps pass through float32
    torch.testing.assert_close(denoiser(x[1:2], 0.5), exact[1:2], rtol=1e-4, atol=1e-4)
    assert denoiser(x.float(), sigma).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("epsilon", adapters.from_eps), ("sample", adapters.from_x0), ("v_prediction", adapters.from_v)],
)
def test_the_conversion_is_that_of_every_other_model(kind, plain):
    network = ExactNetwork(kind)
    ours = adapters.from_diffusers(network, ALPHAS, kind)
    theirs = plain(lambda z, t: network(z, t).sample, ALPHAS)
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    for sigma in (0.3, torch.tensor([0.1, 2.0, 30.0])):
        assert torch.equal(ours(x, sigma), theirs(x, sigma))
    assert (ours.sigma_min, ours.sigma_max) == (theirs.sigma_min, theirs.sigma_max)


def test_a_prediction_of_another_shape_is_refused():
    wide = torch.nn.Conv2d(1, 3, 1)

    class Network(torch.nn.Module):
        def forward(self, z, t):
            return wide(z)

    with pytest.raises(ValueError, match="shape of z"):
        adapters.from_diffusers(Network(), ALPHAS)(torch.zeros(2, 1, 4, 4), 1.0)


def test_time_is_exact_at_the_levels_and_constant_outside():
    denoiser = adapters.from_diffusers(torch.nn.Identity(), ALPHAS)
    levels = torch.tensor(denoiser.levels, dtype=torch.float64)
    torch.testing.assert_close(denoiser.time(levels), torch.arange(1000, dtype=torch.float64))
    assert denoiser.time(torch.tensor([1e-6, 1e6], dtype=torch.float64)).tolist() == [0, 999]
    assert (denoiser.sigma_min, denoiser.sigma_max) == (pytest.approx(0.01, rel=1e-3), pytest.approx(157.4, rel=1e-3))


@pytest.mark.parametrize(
    ("alphas", "kind", "word"),
    [
        ([0.9], None, "at least two"),
        ([1.1, 0.9], None, r"inside \(0, 1\)"),
        ([0.5, 0.9], None, "decrease"),
        ([0.9, float("nan")], None, r"inside \(0, 1\)"),
        ([0.9, 0.5], "score", "prediction_type"),
    ],
)
def test_bad_schedules_are_refused(alphas, kind, word):
    with pytest.raises(ValueError, match=word):
        adapters.from_diffusers(torch.nn.Identity(), alphas, kind)


def test_bad_input_is_refused():
    denoiser = adapters.from_diffusers(ExactNetwork("epsilon"), ALPHAS)
    x = torch.zeros(2, 1, 4, 4)
    for args, word in [
        ((x[0], 1.0), "images"),
        ((x, 0.0), "sigma must be a finite number > 0"),
        ((x, torch.ones(3)), "sigma must be"),
        ((x, 1.0, torch.tensor([0, 1])), "unconditional"),
    ]:
        with pytest.raises(ValueError, match=word):
            denoiser(*args)


@pytest.mark.peers("diffusers")
@pytest.mark.parametrize("classes", [None, 4])
def test_a_diffusers_network(classes):
    import diffusers

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
    )
    scheduler = diffusers.DDPMScheduler()
    denoiser = adapters.from_diffusers(unet, scheduler)
    t, abar = 500, scheduler.alphas_cumprod[500]
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = None if classes is None else torch.tensor([0, 3])
    kwargs = {} if labels is None else {"class_labels": labels}
    with torch.no_grad():
        eps = unet(z, t, **kwargs).sample
        result = denoiser(z / abar.sqrt(), float(((1 - abar) / abar).sqrt()), labels)
    torch.testing.assert_close(result, (z - (1 - abar).sqrt() * eps) / abar.sqrt(), rtol=1e-3, atol=1e-3)
    assert (denoiser.img_channels, denoiser.img_resolution, denoiser.label_dim) == (3, 8, classes or 0)

"""What is trained on: noise levels and loss against closed forms, augmentation against exact pictures."""

import math

import pytest
import torch
from scipy import stats

from teachkit import Gaussian, data
from teachkit.edm.loss import AUGMENT_DIM, affine_augment, edm_loss, noise_levels, validation_loss
from teachkit.edm.preconditioning import EDMPrecond


def network(sigma_data=0.5):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EDMPrecond(
            sigma_data=sigma_data, img_resolution=8, img_channels=1, label_dim=10, augment_dim=AUGMENT_DIM,
            model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), model_type="SongUNet",
        ).eval()  # fmt: skip


# --- Loss -------------------------------------------------------------------------------------------------------------


def test_noise_levels_follow_the_stated_distribution():
    n = 20_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    mixed = noise_levels(uniform, log_uniform_share=0.25).log()
    normal, even = stats.norm(-1.2, 1.2), stats.uniform(math.log(0.002), math.log(80 / 0.002))
    for level in (-5.0, -2.0, -1.2, 0.0, 2.0, 4.0):
        wanted = 0.75 * normal.cdf(level) + 0.25 * even.cdf(level)
        assert (mixed < level).double().mean().item() == pytest.approx(wanted, abs=2e-4)
    assert noise_levels(uniform, log_uniform_share=0).log().std().item() == pytest.approx(1.2, rel=1e-3)
    assert noise_levels(uniform, log_uniform_share=1).max().item() == pytest.approx(80, rel=1e-2)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0, 80.0])
def test_loss_of_the_best_denoiser_of_white_data_is_one_at_every_level(sigma):
    """For data N(0, sd^2 I) the posterior variance is sd^2 sigma^2 / (sd^2 + sigma^2): exactly 1 / lambda."""
    rng, sd = torch.Generator().manual_seed(0), 0.7
    images = sd * torch.randn(400, 1, 8, 8, generator=rng, dtype=torch.float64)
    noise = torch.randn(images.shape, generator=rng, dtype=torch.float64)
    exact = Gaussian(torch.zeros(64, dtype=torch.float64), sd**2 * torch.eye(64, dtype=torch.float64))

    def best(x, level, labels=None):
        return exact(x.flatten(1), level).reshape(x.shape)

    losses = edm_loss(best, images, torch.full((400,), sigma, dtype=torch.float64), noise, sigma_data=sd)
    assert losses.shape == (400,)
    assert losses.mean().item() == pytest.approx(1, abs=5 / math.sqrt(400 * 64 / 2))


def test_loss_of_a_denoiser_that_says_zero_is_the_weighted_power_of_the_image():
    """At sigma = sigma_data = 1/2 the weight is 2 / sigma_data^2 = 8; far above it tends to 1 / sigma_data^2 = 4."""
    images = torch.tensor([1.0, -1.0, 0.5, 0.0]).reshape(1, 1, 2, 2).repeat(2, 1, 1, 1)  # mean square 9/16
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    losses = edm_loss(lambda x, sigma, labels: torch.zeros_like(x), images, torch.tensor([0.5, 5e4]), noise)
    torch.testing.assert_close(losses, torch.tensor([8.0, 4.0]) * 9 / 16, rtol=1e-6, atol=0)


def test_a_denoiser_gets_the_noisy_image_its_level_and_the_labels_given():
    rng = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 3, 1, 4, 4, generator=rng)
    sigma, labels, changes = torch.tensor([0.1, 1.0, 10.0]), torch.tensor([1, 2, 3]), torch.ones(3, AUGMENT_DIM)
    got = []

    def clean(x, level, classes, **extra):
        got.append((classes, extra))
        torch.testing.assert_close(x, images + sigma[:, None, None, None] * noise)
        assert level is sigma
        return images

    for kept, augment_labels in ((labels, changes), (None, None)):
        assert torch.equal(edm_loss(clean, images, sigma, noise, kept, augment_labels), torch.zeros(3))
    assert got == [(labels, {"augment_labels": changes}), (None, {})]


def test_loss_of_an_untrained_network_is_about_one_at_every_level():
    digits = data.load("digits8").images[:256]
    sigma_data = float(digits.square().mean().sqrt())
    levels = torch.logspace(math.log10(0.005), math.log10(80), 5)
    losses = validation_loss(network(sigma_data), digits, None, levels, sigma_data)
    assert ((losses > 0.8) & (losses < 1.2)).all()


def test_validation_loss_is_fixed_and_does_not_depend_on_the_batch():
    net = network()
    images, labels = data.load("digits8")
    arguments = (net, images[:50], labels[:50], [0.1, 2.0])
    whole = validation_loss(*arguments)
    assert torch.equal(whole, validation_loss(*arguments))
    torch.testing.assert_close(validation_loss(*arguments, batch=7), whole, rtol=1e-5, atol=0)
    assert not torch.equal(whole, validation_loss(*arguments, seed=1))


# --- Augmentation -----------------------------------------------------------------------------------------------------


def one(dx=0.0, dy=0.0, angle=0.0, log_size=0.0):
    return torch.tensor([[dx, dy, angle, log_size]], dtype=torch.float64)


@pytest.fixture
def spot():
    image = torch.full((1, 1, 8, 8), -1.0, dtype=torch.float64)
    image[0, 0, 3, 2:4] = torch.tensor([1.0, 0.25], dtype=torch.float64)
    return image


def test_no_augmentation_is_the_identity_and_says_so(spot):
    images, labels = affine_augment(spot, one())
    assert torch.equal(images, spot)
    assert not labels.any()


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 2), (-1, 3)])
def test_a_shift_by_whole_pixels_moves_them(spot, dx, dy):
    images, labels = affine_augment(spot, one(dx / 8, dy / 8))
    torch.testing.assert_close(images, spot.roll((dy, dx), (2, 3)), rtol=0, atol=1e-9)
    assert labels.any()


def test_a_quarter_turn_turns(spot):
    turned = affine_augment(spot, one(angle=math.pi / 2))[0]
    assert any(torch.allclose(turned, torch.rot90(spot, k, (2, 3)), atol=1e-9) for k in (1, -1))
    twice = affine_augment(turned, one(angle=math.pi / 2))[0]
    torch.testing.assert_close(twice, spot.flip(2, 3), rtol=0, atol=1e-9)


def test_pictures_that_are_not_square_are_shifted_and_turned_as_they_are():
    image = torch.full((1, 1, 9, 15), -1.0, dtype=torch.float64)
    image[0, 0, 4, 6:11] = 1
    moved = affine_augment(image, one(dx=1 / 15, dy=3 / 15))[0]
    torch.testing.assert_close(moved, image.roll((3, 1), (2, 3)), rtol=0, atol=1e-9)
    turned = affine_augment(image, one(angle=math.pi / 2))[0]
    column = torch.full_like(image, -1.0)
    column[0, 0, 3:8, 7] = 1
    torch.testing.assert_close(turned, column, rtol=0, atol=1e-9)


def test_size_scales_the_area():
    image = torch.full((1, 1, 64, 64), -1.0, dtype=torch.float64)
    image[:, :, 24:40, 24:40] = 1
    area = [(affine_augment(image, one(log_size=math.log(s)))[0] + 1).sum().item() for s in (1.0, 1.5)]
    assert area[1] / area[0] == pytest.approx(1.5**2, rel=0.02)


def test_a_shift_is_of_the_picture_also_when_it_is_turned(spot):
    """First turned and resized about the centre, then shifted: two steps equal one."""
    wide = torch.nn.functional.interpolate(spot, 64, mode="bicubic")
    parameters = one(0.125, -0.0625, 0.3, 0.1)
    turned = affine_augment(wide, one(angle=0.3, log_size=0.1))[0]
    both = affine_augment(turned, one(0.125, -0.0625))[0]
    once = affine_augment(wide, parameters)[0]
    inside = (..., slice(None, -5), slice(9, None))  # what the two steps do not lose over the edge
    torch.testing.assert_close(once[inside], both[inside], rtol=0, atol=1e-9)


def test_opposite_changes_undo_each_other():
    """Of a smooth picture, within what two bilinear interpolations cost; a turn alone costs far more."""
    across = torch.linspace(-1, 1, 64, dtype=torch.float64)
    image = 2 * torch.exp(-8 * ((across - 0.1) ** 2 + 3 * (across[:, None] + 0.15) ** 2))[None, None] - 1
    for change in (one(dx=0.04), one(dy=-0.03), one(angle=0.4), one(log_size=0.2)):
        moved = affine_augment(image, change)[0]
        assert (moved - image).abs().max() > 0.15
        torch.testing.assert_close(affine_augment(moved, -change)[0], image, rtol=0, atol=0.03)


# --- Bad input --------------------------------------------------------------------------------------------------------


def test_loss_functions_refuse_what_does_not_fit():
    images, ones = torch.zeros(2, 1, 8, 8), torch.ones(2)
    net = network()
    with pytest.raises(ValueError, match="noise"):
        edm_loss(net, images, ones, images[:1])
    with pytest.raises(ValueError, match="sigma must"):
        edm_loss(net, images, torch.ones(3), images)
    with pytest.raises(ValueError, match="sigma_data"):
        edm_loss(net, images, ones, images, sigma_data=0)
    with pytest.raises(ValueError, match="at least one image"):
        validation_loss(net, images[:0], None, [1.0])
    with pytest.raises(ValueError, match="parameters"):
        affine_augment(images, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="log_uniform_share"):
        noise_levels(ones / 2, log_uniform_share=1.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [1e-13, 0.15, 1 - 1e-9, 1])
def test_the_ends_of_the_unit_interval_are_the_ends_of_the_levels(share, dtype):
    low, high = noise_levels(torch.tensor([0.0, 1.0], dtype=dtype), log_uniform_share=share).tolist()
    assert low == pytest.approx(0.002, rel=1e-7)
    if share == 1:
        assert high == 80
    else:  # the last of the log-normal part, at the quantile 1 - 1e-6
        assert high == pytest.approx(math.exp(-1.2 + 1.2 * stats.norm.ppf(1 - 1e-6)), rel=1e-5)

"""The U-Nets: published sizes, the filters they resample with, and the paths they must run on."""

import copy
import json
import math
import shutil
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from teachkit.edm import DhariwalUNet, EDMPrecond, SongUNet
from teachkit.edm.layers import FourierEmbedding, Init, Linear, PositionalEmbedding, downsample, group_norm, upsample
from teachkit.edm.published import CONFIGS

ORACLES = Path(__file__).resolve().parents[1].parent / "shared" / "oracles" / "checkpoints"
SMALL = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
PUBLISHED_PARAMETERS = {  # trainable parameters of the released snapshots
    "edm-cifar10-32x32-uncond-vp": 55_733_891,
    "edm-cifar10-32x32-cond-vp": 55_735_299,
    "edm-cifar10-32x32-uncond-ve": 56_397_827,
    "edm-ffhq-64x64-uncond-vp": 61_805_571,
    "edm-ffhq-64x64-uncond-ve": 62_761_091,
    "edm-imagenet-64x64-cond-adm": 295_899_267,
}


def song(**kwargs):
    torch.manual_seed(0)
    return SongUNet(8, 3, 3, **{**SMALL, **kwargs})


def adm(**kwargs):
    torch.manual_seed(0)
    return DhariwalUNet(8, 3, 3, **{**SMALL, "model_channels": 32, "channel_mult": [2, 4], **kwargs})


def randomise(net, seed=1):
    """Weights of ordinary size everywhere: freshly made networks start near zero, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            scale = (p[0].numel() if p.ndim > 1 else 4) ** -0.5
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (p.ndim == 1) * 0.5)
    return net.eval()


VARIANTS = {
    "ddpmpp": lambda: song(),
    "ncsnpp": lambda: song(
        embedding_type="fourier", encoder_type="residual", channel_mult_noise=2, resample_filter=[1, 3, 3, 1]
    ),
    "skip": lambda: song(encoder_type="skip", decoder_type="skip", resample_filter=[1, 3, 3, 1]),
    "labels": lambda: song(label_dim=5, augment_dim=9),
    "adm": lambda: adm(),
    "adm-labels": lambda: adm(label_dim=5, augment_dim=9),
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
def test_published_sizes(name, count):
    with torch.device("meta"):
        net = EDMPrecond(**CONFIGS[name])
    assert all(p.is_meta for p in net.parameters())
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("name", ["ddpmpp_uncond_vp", "ncsnpp_cond_ve", "adm_cond"])
def test_names_and_shapes_are_the_published_ones(name):
    if not ORACLES.exists():
        pytest.skip("reference checkpoints are not here")
    reference = json.loads((ORACLES / f"{name}.json").read_text())
    with torch.device("meta"):
        net = EDMPrecond(**reference["init_kwargs"])
    published = {k: tuple(v) for k, v in reference["state_dict_shapes"].items() if not k.endswith("resample_filter")}
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == published


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_shape_and_every_parameter_matters(variant):
    net = randomise(VARIANTS[variant]()).requires_grad_(True)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 3, 8, 8, generator=generator)
    labels = F.one_hot(torch.tensor([0, 3, 1]), 5).float() if net.label_dim else None
    augment = torch.randn(3, 9, generator=generator) if net.augment_dim else None
    out = net(x, torch.tensor([-1.0, 0.0, 1.0]), labels, augment)
    assert out.shape == (3, 3, 8, 8)
    out.square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not dead


@pytest.mark.parametrize("variant", VARIANTS)
def test_samples_do_not_see_each_other(variant):
    net = randomise(VARIANTS[variant]())
    x, c_noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3)), torch.linspace(-1, 1, 4)
    labels = F.one_hot(torch.tensor([0, 3, 1, 1]), 5).float() if net.label_dim else None
    with torch.no_grad():
        together = net(x, c_noise, labels)
        rows = [(x[i : i + 1], c_noise[i : i + 1], None if labels is None else labels[i : i + 1]) for i in range(4)]
        apart = torch.cat([net(*row) for row in rows])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_one_noise_level_for_the_whole_batch_equals_one_each():
    net = randomise(song())
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(net(x, torch.tensor([0.3])), net(x, torch.full((3,), 0.3)))


NORMED = [(8, 4, 16), (128, 32, 16), (256, 32, 16), (384, 32, 8), (512, 32, 8), (256, 32, 32)]  # channels, groups, side


@pytest.mark.parametrize(("channels", "groups", "side"), NORMED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_group_norm_in_half_precision_is_rounded_once(channels, groups, side, dtype, layout):
    norm, generator = group_norm(channels, 1e-6), torch.Generator().manual_seed(0)
    norm.num_groups = groups
    with torch.no_grad():
        for p in norm.parameters():
            p.normal_(1, 0.5, generator=generator)
    norm.to(dtype)
    x = torch.randn(2, channels, side, side, generator=generator).to(dtype).to(memory_format=layout).requires_grad_()
    out = norm(x)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=layout)
    weight, bias = norm.weight.double(), norm.bias.double()
    exact = F.group_norm(x.double(), norm.num_groups, weight, bias, norm.eps)
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    sent = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    (got,), (wanted,) = (torch.autograd.grad((y.double() * sent).sum(), x, retain_graph=True) for y in (out, exact))
    torch.testing.assert_close(got.double(), wanted.double(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_group_norm_in_full_precision_is_that_of_torch(dtype):
    norm, x = group_norm(256, 1e-6).to(dtype), torch.randn(2, 256, 16, 16, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)
    assert torch.equal(norm(x), F.group_norm(x, 32, norm.weight, norm.bias, 1e-6))


def test_group_norm_takes_no_longer_in_half_precision_than_converting_costs():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        norm, x = group_norm(256, 1e-6), torch.randn(4, 256, 16, 16).to(memory_format=torch.channels_last)
        pairs = [(norm, x), (copy.deepcopy(norm).bfloat16(), x.bfloat16())]
        best = [math.inf, math.inf]
        with torch.inference_mode():
            for _ in range(30):
                for i, (layer, given) in enumerate(pairs):
                    begun = time.process_time()
                    for _ in range(5):
                        layer(given)
                    best[i] = min(best[i], time.process_time() - begun)
    finally:
        torch.set_num_threads(threads)
    assert best[1] < 3 * best[0]


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_is_the_filter_of_the_papers(taps):
    x = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    line = torch.tensor(taps, dtype=torch.float64)
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, -1, -1)
    pad = (len(taps) - 1) // 2
    torch.testing.assert_close(downsample(x, taps), F.conv2d(x, kernel, stride=2, padding=pad, groups=3))
    torch.testing.assert_close(
        upsample(x, taps), F.conv_transpose2d(x, 4 * kernel, stride=2, padding=pad, groups=3)
    )  # fmt: skip
    torch.testing.assert_close(downsample(x, taps, stride=1), F.conv2d(x, kernel, padding=pad + 1, groups=3))
    # Convolve, then filter and subsample (the published order) = filter, then convolve with stride 2 (ours).
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    wide = F.conv2d(x, weight, padding=1 + pad)
    published = F.conv2d(wide, kernel[:1].expand(4, 1, -1, -1), stride=2, groups=4)
    torch.testing.assert_close(F.conv2d(downsample(x, taps, stride=1), weight, stride=2), published)


def test_unknown_filter_is_refused():
    with pytest.raises(ValueError, match="resample_filter"):
        SongUNet(8, 3, 3, **SMALL, resample_filter=[1, 2, 1])


def test_embeddings():
    c = torch.tensor([0.0, 0.7], dtype=torch.float64)
    emb = PositionalEmbedding(8, endpoint=True, sine_first=True)(c)
    freqs = 10000.0 ** -(torch.arange(4, dtype=torch.float64) / 3)
    torch.testing.assert_close(emb, torch.cat([(c[:, None] * freqs).sin(), (c[:, None] * freqs).cos()], 1))
    emb = PositionalEmbedding(8, endpoint=False, sine_first=False)(c)
    torch.testing.assert_close(emb[1, 1], (0.7 * c.new_tensor(10000.0) ** -0.25).cos())
    fourier = FourierEmbedding(8, sine_first=False)
    before = fourier.freqs.clone()
    assert torch.equal(fourier.to(torch.bfloat16).freqs, before)  # phases of 2 pi 16 do not survive 8 bits
    assert fourier.to(torch.float64).freqs.dtype == torch.float64


def test_initialisation_has_the_right_spread():
    torch.manual_seed(0)
    weight = Linear(300, 200, init=Init("xavier_uniform", 0.5)).weight
    assert weight.abs().max() <= 0.5 * (6 / 500) ** 0.5
    assert weight.detach().std() == pytest.approx(0.5 * (2 / 500) ** 0.5, rel=0.02)
    assert Linear(300, 200, init=Init("kaiming_normal", 2.0)).weight.detach().std() == pytest.approx(
        2 / 300**0.5, rel=0.02
    )
    assert not Linear(300, 200, init=Init("kaiming_uniform", 0.0)).weight.any()
    assert not adm().out_conv.weight.any()
    assert 0 < song().dec["8x8_aux_conv"].weight.abs().max() < 1e-4


@pytest.mark.parametrize("groups", [3, 9, 130])
def test_group_norm_needs_whole_groups(groups):
    with pytest.raises(ValueError, match="channels"):
        group_norm(groups, 1e-5)


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"embedding_type": "sine"}, "embedding_type"),
        ({"encoder_type": "unet"}, "encoder_type"),
        ({"decoder_type": "residual"}, "decoder_type"),
        ({"num_blocks": 0}, "num_blocks"),
        ({"channel_mult": [1, 1, 1, 1, 1]}, "img_resolution"),
    ],
)
def test_bad_sizes_are_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        song(**kwargs)


def test_attention_heads_of_64_channels():
    with pytest.raises(ValueError, match="3 attention heads"):
        adm(channel_mult=[2, 7])  # 224 channels
    assert adm(channel_mult=[1, 1]).enc["4x4_block0"].num_heads == 0  # as published: too narrow, no attention
    assert adm().enc["4x4_block0"].num_heads == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_activations_stay_channels_last(variant):
    net = randomise(VARIANTS[variant]())
    seen = []
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, args, out, name=name: seen.append((name, args[0], out)))
    with torch.no_grad():
        net(torch.randn(2, 3, 8, 8), torch.zeros(1))
    assert seen
    wrong = [n for n, x, y in seen if not y.is_contiguous(memory_format=torch.channels_last)]
    wrong += [n for n, x, _ in seen if x.shape[1] > 3 and not x.is_contiguous(memory_format=torch.channels_last)]
    assert not wrong


@pytest.mark.parametrize("variant", ["ddpmpp", "ncsnpp", "adm-labels"])
def test_bfloat16_is_close_and_float64_is_closer(variant):
    net = randomise(VARIANTS[variant]())
    x, c = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(7)), torch.tensor([0.5])
    with torch.no_grad():
        single = net(x, c)
        half = net.to(torch.bfloat16)(x.bfloat16(), c)
        assert half.dtype == torch.bfloat16
        assert (half.float() - single).norm() < 0.05 * single.norm()
        net = randomise(VARIANTS[variant]()).double()
        double = net(x.double(), c.double())
    assert (double - single).norm() < 1e-5 * single.norm()


def test_labels_are_dropped_only_in_training():
    net = randomise(song(label_dim=5, label_dropout=1.0, dropout=0.0))
    x, c, labels = torch.randn(2, 3, 8, 8), torch.zeros(1), F.one_hot(torch.tensor([0, 1]), 5).float()
    with torch.no_grad():
        assert not torch.allclose(net(x, c, labels), net(x, c))
        net.train()
        torch.testing.assert_close(net(x, c, labels), net(x, c).expand(2, -1, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["labels", "ncsnpp", "adm"])
def test_compiles_into_one_graph(variant):
    net = randomise(VARIANTS[variant]())
    x, c = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.2])
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, c), net(x, c), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiled_code_gives_the_same_numbers():
    net = randomise(VARIANTS["ncsnpp"]())
    x, c = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(8)), torch.tensor([0.1, 0.2])
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net, fullgraph=True)(x, c), net(x, c), rtol=1e-4, atol=1e-5)

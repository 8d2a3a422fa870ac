"""Wrong arguments to EDM networks, their training and checkpoints, metrics, checks of exercises, and files."""

import dataclasses
import functools
import inspect
import types
from pathlib import Path

import pytest
import torch

from teachkit import adapters, data, edm, files, metrics
from teachkit.course import grading, latents
from teachkit.edm import distillation, interrupt, loss, recipes, training
from tests.fuzz.harness import Call, faults, normal
from tests.fuzz.test_core import ABAR

SMALL = {"model_channels": 4, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}
WIDE = {**SMALL, "model_channels": 32}  # normalisation in groups of four channels, heads of 64 of them
IMAGES, LEVELS = normal(2, 1, 4, 4), torch.tensor([0.5, 2.0], dtype=torch.float64)
LABELS, MORE = torch.tensor([0, 2]), normal(2, 3)
NET = {"label_dim": 3, "augment_dim": 3, **SMALL}
NETS = {
    cls.__name__: cls(4, 1, model_type="SongUNet", **NET).eval()
    for cls in (edm.EDMPrecond, edm.VPPrecond, edm.VEPrecond, edm.iDDPMPrecond)
}
GIVEN = {"x": IMAGES, "sigma": LEVELS, "labels": LABELS, "augment_labels": MORE}
TOGETHER = {"x": ("sigma", "labels")}


class Half(torch.nn.Module):
    """A network called as diffusers' are."""

    def forward(self, z, t):
        return z / 2


class UNet2DConditionModel(torch.nn.Module):
    """A network called as the text-conditioned one of diffusers is."""

    config = types.SimpleNamespace(in_channels=1, sample_size=4, cross_attention_dim=3)

    def forward(self, z, t, encoder_hidden_states):
        return z / 2 + encoder_hidden_states.mean()


class Pipeline:
    """What is used of a pipeline of diffusers."""

    unet, scheduler = UNet2DConditionModel(), types.SimpleNamespace(alphas_cumprod=ABAR)
    text_encoder = "one"

    def encode_prompt(self, prompt, **options):
        return torch.ones(len(prompt), 2, 3), None


def made(make):
    """Of a network made, its numbers."""

    def function(**given):
        torch.manual_seed(0)
        return dict(make(**given).state_dict())

    return function


def arguments(cls, **given):
    """Every argument of a class by its default, or as given."""
    names = inspect.signature(cls).parameters.items()
    return {name: given.get(name, each.default) for name, each in names if each.kind is not each.VAR_KEYWORD}


UNETS = {
    cls.__name__: arguments(cls, img_resolution=4, in_channels=1, out_channels=1, **{**NET, **WIDE})
    for cls in (edm.SongUNet, edm.DhariwalUNet)
}
UNET_INPUT = {
    "x": IMAGES.float(),
    "c_noise": LEVELS.float(),
    "labels": normal(2, 3).float(),
    "augment_labels": normal(2, 3).float(),
}
SIZES = dict.fromkeys(
    ("img_resolution", "channel_mult", "model_channels", "attn_resolutions"),
    ("img_resolution", "channel_mult", "model_channels", "attn_resolutions", "channels"),
)
RECIPE = recipes.Recipe(
    "digits8", {"img_resolution": 8, "img_channels": 1, "label_dim": 10, **SMALL}, images=8, batch=8, validate_every=8
)

DISTILLATION = distillation.Distillation(nfe=1, solver="ipndm", teacher_steps=2, paths=8, images=8, batch=8)
TEACHER = edm.EDMPrecond(8, 1, label_dim=3, **SMALL).eval()

NETWORKS = {
    **{f"edm.{name}.forward": Call(net, GIVEN, TOGETHER) for name, net in NETS.items()},
    **{f"edm.{name}.raw": Call(net.raw, GIVEN, TOGETHER) for name, net in NETS.items()},
    **{f"edm.{name}.coefficients": Call(net.coefficients, {"sigma": LEVELS}) for name, net in NETS.items()},
    **{f"edm.{name}.round_sigma": Call(net.round_sigma, {"sigma": LEVELS}) for name, net in NETS.items()},
    "edm.VPPrecond.sigma": Call(NETS["VPPrecond"].sigma, {"t": 0.5}),
    "edm.VPPrecond.time": Call(NETS["VPPrecond"].time, {"sigma": LEVELS}),
    "edm.EDMPrecond": Call(
        made(edm.EDMPrecond),
        {
            **{"img_resolution": 4, "img_channels": 1, "label_dim": 3, "use_fp16": False, "model_type": "SongUNet"},
            **{"sigma_min": 0.0, "sigma_max": 80.0, "sigma_data": 0.5, **SMALL},
        },
        {**SIZES, "sigma_max": ("sigma_min",)},
    ),
    "edm.VPPrecond": Call(
        made(functools.partial(edm.VPPrecond, 4, 1, **SMALL)),
        {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5, "model_type": "SongUNet"},
    ),
    "edm.VEPrecond": Call(
        made(functools.partial(edm.VEPrecond, 4, 1, **SMALL)),
        {"sigma_min": 0.02, "sigma_max": 100.0, "model_type": "SongUNet"},
        {"sigma_max": ("sigma_min",)},
    ),
    "edm.iDDPMPrecond": Call(
        made(functools.partial(edm.iDDPMPrecond, 4, 1, **SMALL)),
        {"C_1": 0.001, "C_2": 0.008, "M": 100, "model_type": "SongUNet"},
    ),
    "edm.SongUNet": Call(made(edm.SongUNet), UNETS["SongUNet"], SIZES),
    "edm.DhariwalUNet": Call(made(edm.DhariwalUNet), UNETS["DhariwalUNet"], SIZES),
    "edm.SongUNet.forward": Call(edm.SongUNet(**UNETS["SongUNet"]).eval(), UNET_INPUT, {"x": ("c_noise",)}),
    "edm.DhariwalUNet.forward": Call(edm.DhariwalUNet(**UNETS["DhariwalUNet"]).eval(), UNET_INPUT, {"x": ("c_noise",)}),
    **{
        f"edm.{cls.__name__}.embed": Call(
            cls(**UNETS[cls.__name__]).eval().embed, {name: v for name, v in UNET_INPUT.items() if name != "x"}
        )
        for cls in (edm.SongUNet, edm.DhariwalUNet)
    },
    "adapters.from_diffusers": Call(
        lambda **given: adapters.from_diffusers(**given)(IMAGES, LEVELS),
        {"unet": Half(), "scheduler_or_alphas": ABAR, "prediction_type": "epsilon"},
        {"scheduler_or_alphas": ("alphas",)},
    ),
    "adapters.from_pipeline": Call(
        lambda **given: adapters.from_pipeline(**given)(IMAGES, LEVELS),
        {
            **{"pipe": Pipeline(), "prompt": ["a cat"], "negative_embeds": normal(1, 2, 3), "guidance": 2.0},
            **{"height": 4, "width": 4, "scheduler": ABAR, "prediction_type": "epsilon"},
        },
        {"scheduler": ("alphas_cumprod",), "prompt": ("labels",)},
    ),
    "adapters.from_pipeline, embeddings": Call(
        lambda **given: adapters.from_pipeline(**given)(IMAGES, LEVELS),
        {"pipe": Pipeline(), "prompt_embeds": normal(1, 2, 3), "negative_prompt": "a dog", "guidance": 2.0},
    ),
    "adapters.from_pipeline, called": Call(
        adapters.from_pipeline(Pipeline(), guidance=2.0),
        {"x": IMAGES, "sigma": LEVELS, "labels": normal(2, 2, 3)},
        TOGETHER,
    ),
    "adapters.from_k_diffusion": Call(
        lambda **given: adapters.from_k_diffusion(**given)(IMAGES, LEVELS), {"model": lambda x, sigma: x / 2}
    ),
    "adapters.from_k_diffusion, called": Call(
        adapters.from_k_diffusion(lambda x, sigma: x / 2), {"x": IMAGES, "sigma": LEVELS}, TOGETHER
    ),
    "adapters.to_k_diffusion": Call(
        lambda **given: adapters.to_k_diffusion(**given)(IMAGES, LEVELS),
        {"denoiser": lambda x, sigma, labels=None: x / 2, "labels": LABELS, "guidance": 2.0},
    ),
    "adapters.from_diffusers, called": Call(
        adapters.from_diffusers(Half(), ABAR), {"x": IMAGES, "sigma": LEVELS}, TOGETHER
    ),
}

CHECKPOINTS = {
    "edm.load": Call(
        lambda **given: dict(edm.load(**given).state_dict()),
        {"path_or_name": "edm-digits8", "device": "cpu", "dtype": torch.float32},
        {"path_or_name": ("called",)},
    ),
    "edm.save": Call(
        edm.save,
        {
            **{"denoiser": NETS["EDMPrecond"], "path": "net.safetensors", "dtype": torch.float16},
            **{"metadata": {"trained": "never"}},
        },
    ),
    "edm.convert": Call(
        edm.convert,
        {"source": "edm-digits8", "destination": "digits.safetensors", "dtype": torch.float32},
        {"source": ("called", "path_or_name"), "destination": ("path",)},
    ),
}

LOSS = {"denoiser": NETS["EDMPrecond"], "images": IMAGES, "labels": LABELS, "sigma_data": 0.5}
TRAINING = {
    "edm.loss.noise_levels": Call(
        loss.noise_levels,
        {
            **{"uniform": torch.tensor([0.1, 0.9], dtype=torch.float64), "mean": -1.2, "std": 1.2},
            **{"log_uniform_share": 0.2, "sigma_min": 0.01, "sigma_max": 10.0},
        },
        {"sigma_max": ("sigma_min",)},
    ),
    "edm.loss.edm_loss": Call(
        loss.edm_loss,
        {**LOSS, "sigma": LEVELS, "noise": normal(2, 1, 4, 4, seed=1), "augment_labels": MORE},
        {"images": ("noise", "sigma", "labels", "x must"), "noise": ("x must",)},
    ),
    "edm.loss.validation_loss": Call(
        loss.validation_loss,
        {**LOSS, "sigmas": LEVELS, "seed": 1, "batch": 1},
        {"images": ("labels", "x must"), "sigmas": ("sigma must",)},
    ),
    "edm.loss.affine_augment": Call(
        loss.affine_augment,
        {"images": IMAGES, "parameters": 0.1 * normal(2, 4), "fill": -1.0},
        {"images": ("parameters",)},
    ),
    "edm.recipes.Recipe": Call(
        lambda **given: recipes.Recipe(**given).steps,
        {field.name: getattr(RECIPE, field.name) for field in dataclasses.fields(RECIPE)},
        {"network": ("augment",), "batch": ("micro_batch",)},
    ),
    "edm.recipes.make_denoiser": Call(made(recipes.make_denoiser), {"recipe": RECIPE}),
    "edm.training.validation_sigmas": Call(training.validation_sigmas, {"n": 5}),
    "edm.training.train": Call(
        lambda **given: dict(training.train(**given).state_dict()),
        {
            **{"recipe": RECIPE, "run_dir": "run", "device": "cpu", "stop_after": 0, "checkpoint_seconds": 60.0},
            **{"progress": False},
        },
    ),
    "edm.training.load_ema": Call(
        lambda **given: dict(training.load_ema(**given).state_dict()), {"recipe": RECIPE, "run_dir": "run"}
    ),
    "edm.distillation.Distillation": Call(
        lambda **given: distillation.Distillation(**given).steps,
        {field.name: getattr(DISTILLATION, field.name) for field in dataclasses.fields(DISTILLATION)},
        {"batch": ("paths",), "nfe": ("teacher_steps",)},
    ),
    "edm.distil": Call(
        lambda **given: dict(edm.distil(**given).state_dict()),
        {
            **{"recipe": DISTILLATION, "run_dir": "run", "teacher": TEACHER, "device": "cpu", "stop_after": 0},
            **{"checkpoint_seconds": 60.0, "progress": False},
        },
    ),
    "edm.interrupt.end_of_step": Call(lambda **given: interrupt.end_of_step(**given).__enter__()(), {"alone": False}),
}

A, B = normal(12, 3), normal(12, 3, seed=1) + 0.5
STATISTICS = metrics.FeatureStatistics(A)
PAIR = {"a": A, "b": B}
BOTH = {"a": ("b",), "b": ("a",)}
DIGITS, EMOJI = normal(3, 1, 28, 28), normal(3, 3, 32, 32)
METRICS = {
    "metrics.sliced_wasserstein": Call(
        metrics.sliced_wasserstein, {**PAIR, "n_projections": 8, "seed": 1, "p": 2.0}, BOTH
    ),
    "metrics.mmd": Call(metrics.mmd, {**PAIR, "kernel": "polynomial", "bandwidth": None, "degree": 3}, BOTH),
    "metrics.mmd, rbf": Call(metrics.mmd, {**PAIR, "kernel": "rbf", "bandwidth": 1.0}, BOTH),
    "metrics.mmd, the median": Call(metrics.mmd, {**PAIR, "kernel": "rbf"}, BOTH),
    "metrics.error_to_reference": Call(
        metrics.error_to_reference, {"samples": A, "reference": B}, {"samples": ("reference",)}
    ),
    "metrics.frechet_distance": Call(metrics.frechet_distance, {**PAIR, "extrapolate": True, "seed": 1}, BOTH),
    "metrics.FeatureStatistics": Call(
        lambda **given: metrics.FeatureStatistics(**given).scatter, {"features": A}, {"features": ("covariance",)}
    ),
    "metrics.FeatureStatistics.from_moments": Call(
        lambda **given: metrics.FeatureStatistics.from_moments(**given).scatter,
        {"count": 12, "mean": STATISTICS.mean, "covariance": STATISTICS.covariance},
        {"mean": ("covariance",)},
    ),
    "metrics.FeatureStatistics.update": Call(
        lambda features: metrics.FeatureStatistics(B).update(features).covariance, {"features": A}
    ),
    "metrics.FeatureStatistics.merge": Call(
        lambda other: metrics.FeatureStatistics(B).merge(other).covariance, {"other": STATISTICS}
    ),
    "metrics.bootstrap": Call(
        lambda samples, **given: metrics.bootstrap(given.pop("statistic"), samples, B, **given),
        {
            **{"statistic": lambda a, b: (a - b).mean(), "samples": A, "n_resamples": 10, "seed": 1},
            **{"confidence": 0.9, "paired": True},
        },
        {"samples": ("samples", "statistic")},
    ),
    "metrics.proportion": Call(
        lambda **given: list(metrics.proportion(**given)),
        {"successes": 3, "trials": 12, "confidence": 0.9},
        {"trials": ("successes",)},
    ),
    "metrics.digit_classifier": Call(
        lambda **given: dict(metrics.digit_classifier(**given).state_dict()),
        {"path": None, "device": "cpu"},
        {"path": ("no file",)},
    ),
    "metrics.digit_features": Call(metrics.digit_features, {"images": DIGITS, "batch_size": 2}),
    "metrics.digit_probabilities": Call(metrics.digit_probabilities, {"images": DIGITS, "batch_size": 2}),
    "metrics.emoji_classifier": Call(
        lambda **given: dict(metrics.emoji_classifier(**given).state_dict()),
        {"path": None, "device": "cpu"},
        {"path": ("no file",)},
    ),
    "metrics.emoji_features": Call(metrics.emoji_features, {"images": EMOJI, "batch_size": 2}),
    "metrics.emoji_probabilities": Call(metrics.emoji_probabilities, {"images": EMOJI, "batch_size": 2}),
    "metrics.Classifier": Call(
        lambda **given: [tuple(p.shape) for p in metrics.Classifier(**given).parameters()],
        {"channels": 3, "classes": 9, "side": 32, "width": 4},
    ),
    "metrics.Classifier.forward": Call(metrics.digit_classifier(), {"images": DIGITS.float()}),
    "metrics.Classifier.features": Call(metrics.digit_classifier().features, {"images": DIGITS.float()}),
}


def registered(**given):
    try:
        return grading.register(**given)(lambda answer, rng: iter([("what", 1.0, 1.0)])).__name__
    finally:
        grading.CHECKS.pop(given["name"] if isinstance(given["name"], str) else "", None)


def written(**given):
    files.write_whole(**given)
    return Path("file.txt").read_text()


ANSWER = {"name": "two_points", "answer": lambda x, s: (x / s**2).tanh(), "seed": 1}
REST = {
    "course.grading.check": Call(grading.check, ANSWER),
    "course.grading.evaluate": Call(grading.evaluate, ANSWER),
    "course.grading.compare": Call(
        grading.compare,
        {"got": A, "expected": A, "rtol": 1e-4, "atol": 1e-8},
        {"got": ("expected",), "expected": ("expected",)},
    ),
    "course.grading.register": Call(registered, {"name": "a new name", "hint": "Think.", "rtol": 1e-4, "atol": 1e-8}),
    "course.latents.pipeline": Call(latents.pipeline, {"device": "cpu", "dtype": torch.float32}),
    "files.checksum": Call(files.checksum, {"path": data.directory() / "checksums.json"}),
    "files.write_images": Call(
        files.write_images, {"path": Path("grid.png"), "images": torch.zeros(2, 1, 4, 4), "columns": 2}
    ),
    "files.write_whole": Call(written, {"path": Path("file.txt"), "write": lambda path: path.write_text("x")}),
}
CALLS = {**NETWORKS, **CHECKPOINTS, **TRAINING, **METRICS, **REST}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named_or_the_answer_is_right(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "load_ema" in name:
        training.train(RECIPE, "run", progress=False)
    found = faults(CALLS[name])
    assert not found, f"{len(found)} faults\n" + "\n".join(found)

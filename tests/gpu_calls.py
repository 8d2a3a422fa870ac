"""A call of every public function that takes tensors, for any device: `test_gpu` makes each on two."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from teachkit import (
    Empirical,
    Gaussian,
    GaussianMixture,
    LowRankMixture,
    Trajectory,
    adapters,
    data,
    denoisers,
    edm,
    evaluation,
    geometry,
    initial_noise,
    meanshift,
    metrics,
    regularity,
    sample,
    schedules,
    scheduling,
    solvers,
)  # fmt: skip
from teachkit.edm import distillation, recipes, runs, training
from teachkit.edm import loss as losses
from teachkit.evaluation.paper import gits_levels

Call = Callable[["Place"], object]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a call is made: what the call is given is put there, a copy of networks."""

    device: torch.device

    def __call__(self, value: Any) -> Any:
        return (copy.deepcopy(value) if isinstance(value, nn.Module) else value).to(self.device)


# --- What the calls are given -----------------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


POINTS, CLASSES = normal(40, 3), torch.arange(40) % 2
AXES = torch.eye(3, dtype=torch.float64)[None, :, :2].repeat(2, 1, 1)
SPREAD = POINTS[2:4, :2].abs()
LEVELS = schedules.polynomial(8)
SOME = torch.linspace(0.5, 3, 5, dtype=torch.float64)
TOY = Gaussian([1.0, 0.0, -1.0], torch.diag(torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64)))
MIXTURE = GaussianMixture([0.4, 0.6], POINTS[:2], 0.2)
EXACT = Empirical(POINTS, labels=CLASSES)
PATH = sample(TOY, initial_noise(12, (3,), seed=1), LEVELS)
OTHER = sample(EXACT, PATH.x[0], LEVELS)
POSTERIORS = regularity.class_posteriors(EXACT, PATH)
CURVES = sample(EXACT, initial_noise(3, (3,), seed=1), schedules.polynomial(30)).x
IMAGES = data.load("digits8").images[:6].float()
NOISE = normal(6, 1, 8, 8).float()
DIGITS = data.load("mnist5k").images[:3].float()
EMOJI = data.load("emoji32").images[:3].float()
ABAR = torch.linspace(0.99, 0.01, 50)
TINY: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 1, "label_dim": 3, "model_channels": 8, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [4],
}  # fmt: skip
RECIPE = recipes.Recipe("digits8", {**TINY, "label_dim": 10, "attn_resolutions": []}, images=16, batch=8, compile=False)


def folder() -> Path:
    return Path(tempfile.mkdtemp())


def random_weights(cls: Any, **options: Any) -> Any:
    """A network none of whose weights is zero, as the last layer's are before training: all of it shows."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = cls(**{**TINY, **options}).eval()
        for part in network.parameters():
            part.normal_().mul_(0.1)
    return network


SONG = random_weights(edm.EDMPrecond, model_type="SongUNet")
TEACHER = random_weights(edm.EDMPrecond, attn_resolutions=[])


# --- Calls that take more than a line ---------------------------------------------------------------------------------


def closed_form(D: Any) -> Call:
    """All that a closed-form denoiser can be asked."""

    def call(on: Place) -> object:
        own, x = on(D), on(normal(5, 3, seed=2))
        labels = on(torch.arange(5) % 2) if own.num_classes else None
        drawn = own.sample(7, generator=torch.Generator().manual_seed(0))
        return [own(x, 0.7, labels), own(x, on(SOME)), own.log_prob(x, on(SOME), labels), own.score(x, 0.3), drawn]

    return call


def covariance(own: Any) -> Call:
    return closed_form(GaussianMixture([0.4, 0.6], POINTS[:2], own))


def network(cls: Any, **options: Any) -> Call:
    """A preconditioned network: its output, its own network's, its coefficients, and samples."""
    D = random_weights(cls, **options)

    def call(on: Place) -> object:
        own, x, level = on(D), on(normal(3, 1, 8, 8).float()), on(torch.tensor([0.1, 1.0, 10.0]))
        outputs = [own(x, level, 1), own(x, 2.0), own.raw(x, level, on(torch.tensor([0, 1, 2])))]
        return [*outputs, *own.coefficients(level), own.round_sigma(level), sample(own, 80 * x, LEVELS, "ipndm").final]

    return call


def u_net(cls: Any) -> Call:
    D = random_weights(lambda img_channels, **options: cls(in_channels=1, out_channels=1, **options))
    return lambda on: on(D)(on(normal(3, 1, 8, 8).float()), on(torch.zeros(3)), on(torch.eye(3)))


def with_derivative(call: Call) -> Call:
    """A call whose forward derivatives an emulated GPU computes by two backward passes: it has no others."""

    def run(on: Place) -> object:
        with pytest.MonkeyPatch.context() as patch:
            if on.device.type != "cpu":
                patch.setattr(torch.func, "jvp", torch.autograd.functional.jvp)
            return call(on)

    return run


def solver(name: str) -> Call:
    return lambda on: sample(on(TOY), on(PATH.x[0]), LEVELS, name)


class Model(nn.Module):
    """A model that others adapt: its layer lies on the device, and meets what it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.double()
        with torch.no_grad():
            for part in self.parameters():
                part.copy_(torch.linspace(-0.3, 0.4, part.numel()).reshape(part.shape))

    def forward(self, z: Tensor, t: Tensor, **given: Any) -> Tensor:
        return self.layer(z) + 0.01 * t.reshape(-1, *[1] * (z.ndim - 1)).to(z.dtype)


def adapted(make: Callable[..., Any], *more: Any, shape: tuple[int, ...] = (3,), **options: Any) -> Call:
    """A model in other coordinates; levels as a number and as a tensor."""
    model = Model(nn.Linear(3, 3) if shape == (3,) else nn.Conv2d(1, 1, 3, padding=1))

    def call(on: Place) -> object:
        D, x = make(on(model), *more, **options), on(normal(5, *shape))
        return [D(x, 0.7), D(x, on(SOME)), sample(D, x, LEVELS).final]

    return call


class UNet2DConditionModel(Model):
    """The network of a pipeline with prompts."""

    config = types.SimpleNamespace(in_channels=1, out_channels=1, sample_size=8, cross_attention_dim=4)

    def forward(self, z: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        return self.layer(z) + encoder_hidden_states.mean((1, 2))[:, None, None, None] * t[:, None, None, None] / 100


def piped(on: Place) -> Any:
    """A denoiser made of such a pipeline, with two prompts."""
    unet = on(UNet2DConditionModel(nn.Conv2d(1, 1, 3, padding=1)))
    pipe = types.SimpleNamespace(unet=unet, scheduler=types.SimpleNamespace(alphas_cumprod=ABAR))
    embeds = {"prompt_embeds": on(normal(2, 3, 4)), "negative_embeds": on(normal(1, 3, 4))}
    return adapters.from_pipeline(pipe, **embeds)


def sampled_from_pipeline(on: Place) -> object:
    D, x = piped(on), on(normal(5, 1, 8, 8))
    guided = sample(D, x, LEVELS, labels=D.labels(5), guidance=2.0, batch=2).final
    return [D(x, 0.7, D.labels(5)), D.unconditional(x, on(SOME)), guided]


def from_k_diffusion(on: Place) -> object:
    D = adapters.from_k_diffusion(adapters.to_k_diffusion(on(MIXTURE)))
    return sample(D, on(normal(5, 3)), LEVELS).final


def to_k_diffusion(on: Place) -> object:
    D, x = piped(on), on(normal(5, 1, 8, 8))
    return adapters.to_k_diffusion(D, D.labels(5), guidance=2.0)(x, on(SOME))


def searched(search: Callable[..., Any], *more: Any, **options: Any) -> Call:
    noise = initial_noise(16, (3,), seed=5)
    return lambda on: search(on(MIXTURE), on(noise), *more, grid=12, **options)


class EDMEulerScheduler:
    """What `scheduling.drive` needs of the scheduler of this name."""

    config = types.SimpleNamespace(sigma_min=0.002, sigma_max=80.0, final_sigmas_type="zero")

    def set_timesteps(self, steps: int, device: object = None) -> None: ...

    def precondition_noise(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4


def driven(on: Place) -> object:
    scheduler: Any = EDMEulerScheduler()
    scheduling.drive(scheduler, scheduling.Schedule(LEVELS, "euler", 8), device=on.device)
    return scheduler.timesteps  # its sigmas stay on the CPU, as those of its own do


def saved(on: Place) -> object:
    return list(edm.load(edm.save(on(SONG), folder() / "net.safetensors"), device=on.device).state_dict().values())


def kept(on: Place) -> object:
    """What a trajectory can be asked."""
    path, file = on(PATH), folder() / "path.safetensors"
    path.save(file)
    assert Trajectory.load(file) == PATH
    assert path == on(PATH)
    return [path[3].x, path[:2].denoised, path.final, path.detach().x, path.to(dtype=torch.float32).x]


def statistics(on: Place) -> object:
    stats, more = metrics.FeatureStatistics(on(POINTS)), metrics.FeatureStatistics(on(POINTS[:7]))
    return [stats.mean, stats.covariance, stats.merge(more).covariance]


def frechet(on: Place) -> object:
    a, b = on(POINTS), on(POINTS[:30] + 1)
    from_moments = metrics.frechet_distance(a, metrics.FeatureStatistics(b))
    return [metrics.frechet_distance(a, b), from_moments, metrics.frechet_distance(a, b, extrapolate=True)]


def inception(on: Place) -> object:
    """Without the network that is downloaded: what it is given lies where it does."""

    class Stub(nn.Module):
        def __init__(self, feature: int) -> None:
            super().__init__()
            self.inception = nn.Module()
            self.inception.register_buffer("scale", torch.tensor([2.0]))
            self.inception.forward = lambda pixels: pixels.float().mean((2, 3)) * self.inception.scale  # type: ignore[method-assign]

    with pytest.MonkeyPatch.context() as patch:
        stub = types.SimpleNamespace(FrechetInceptionDistance=Stub)
        patch.setattr("teachkit.metrics.features.installed", lambda module, *more: stub)
        return metrics.inception_features(on(IMAGES), batch_size=2)


def trained(on: Place) -> object:
    """Steps of training, with what they draw and average, and a look at held-out images."""
    run = runs.Run(RECIPE, folder(), evaluation.Processes(0, 1, on.device))
    steps = [run.train_step() for _ in range(2)]
    run.prepare(compiled=False)
    run.validate(steps[-1], torch.tensor([0.1, 1.0]))
    return [*steps, *run.ema.state_dict().values(), *run.denoiser.state_dict().values()]


def distilled(on: Place) -> object:
    """Steps of distillation, with what they draw, and a look at held-out noise; and the whole of it."""
    recipe = distillation.Distillation(nfe=2, teacher_steps=4, solver="ipndm", paths=8, images=16, batch=8)
    run = distillation.Distilling(recipe, folder(), evaluation.Processes(0, 1, on.device), TEACHER)
    steps = [run.train_step() for _ in range(2)]
    run.prepare(compiled=False)
    run.validate(steps[-1])
    whole = edm.distil(recipe, folder(), teacher=TEACHER, device=on.device, stop_after=1, progress=False)
    return [*steps, *run.ema.state_dict().values(), *whole.state_dict().values()]


def averaged(on: Place) -> object:
    where = folder()
    runs.Run(RECIPE, where, evaluation.Processes(0, 1, on.device)).save()
    return list(training.load_ema(RECIPE, where).state_dict().values())


def measured(on: Place) -> object:
    return evaluation.samples_of(on(TOY), (3,), LEVELS, "heun", range(3, 7), keep="all", device=on.device)


def table(on: Place) -> object:
    wanted = evaluation.methods(["euler"], "polynomial", [4], sigma_min=0.002, sigma_max=80.0)
    D, group, about = on(TOY), evaluation.Processes(0, 1, on.device), evaluation.identify(TOY, "toy")
    real = metrics.FeatureStatistics(POINTS)
    rows, paths = evaluation.table(D, (3,), wanted, real, group, folder(), identity=about, features="pixels", count=32)
    return [*((row.frechet, row.error) for row in rows), float(paths.peak.mean())]


def of_path(measure: Callable[..., Any], *more: Any, **options: Any) -> Call:
    return lambda on: measure(on(PATH), *more, **options)


shape_of = of_path(evaluation.geometry_of)


def of_curves(measure: Callable[..., Any]) -> Call:
    return lambda on: [measure(on(CURVES)), measure(on(CURVES), on(CURVES[:, 0]))]


def of_tensors(measure: Callable[..., Any], *given: Any, **options: Any) -> Call:
    """A call with tensors, networks and paths put on the device, and the rest as it is."""
    movable = (Tensor, nn.Module, Trajectory)
    return lambda on: measure(*(on(value) if isinstance(value, movable) else value for value in given), **options)


# --- The calls --------------------------------------------------------------------------------------------------------

CALLS: dict[str, Call] = {
    "adapters.AdaptedDenoiser": adapted(adapters.from_velocity, data_at_one=True),
    "adapters.from_diffusers": adapted(adapters.from_diffusers, ABAR, "epsilon", shape=(1, 8, 8)),
    "adapters.from_eps": adapted(adapters.from_eps, ABAR, round_time=True),
    "adapters.from_k_diffusion": from_k_diffusion,
    "adapters.from_pipeline": sampled_from_pipeline,
    "adapters.from_v": adapted(adapters.from_v, time=torch.atan),
    "adapters.from_velocity": adapted(adapters.from_velocity),
    "adapters.from_x0": adapted(adapters.from_x0, time=adapters.vp_time()),
    "adapters.time_index": of_tensors(adapters.time_index(ABAR), SOME),
    "adapters.to_k_diffusion": to_k_diffusion,
    "adapters.vp_time": of_tensors(adapters.vp_time(), SOME),
    "data.Dataset": lambda on: data.Dataset(on(POINTS), on(CLASSES)),
    "data.split": lambda on: data.split(data.Dataset(on(POINTS), on(CLASSES))),
    "denoisers.DenoiserModule": closed_form(Empirical(POINTS, bandwidth=0.3, chunk=16)),
    "denoisers.Diagonal": covariance(denoisers.Diagonal(POINTS[:2].abs())),
    "denoisers.Empirical": closed_form(EXACT),
    "denoisers.Full": covariance(denoisers.Full(torch.eye(3, dtype=torch.float64).repeat(2, 1, 1))),
    "denoisers.Gaussian": closed_form(TOY),
    "denoisers.GaussianMixture": closed_form(MIXTURE),
    "denoisers.Isotropic": covariance(denoisers.Isotropic([0.1, 0.2])),
    "denoisers.LowRank": covariance(denoisers.LowRank(SPREAD, AXES)),
    "denoisers.LowRankMixture": closed_form(LowRankMixture([0.5, 0.5], POINTS[:2], SPREAD, AXES)),
    "edm.DhariwalUNet": u_net(edm.DhariwalUNet),
    "edm.EDMPrecond": network(edm.EDMPrecond, model_type="SongUNet"),
    "edm.LearnedDenoiser": network(edm.EDMPrecond, model_type="SongUNet", embedding_type="fourier"),
    "edm.SongUNet": u_net(edm.SongUNet),
    "edm.VEPrecond": network(edm.VEPrecond, encoder_type="residual", resample_filter=[1, 3, 3, 1]),
    "edm.VPPrecond": network(edm.VPPrecond),
    "edm.iDDPMPrecond": network(edm.iDDPMPrecond),
    "edm.distil": distilled,
    "edm.load": lambda on: edm.load("edm-digits8", device=on.device)(on(IMAGES), 1.0, on(torch.arange(6))),
    "edm.loss.affine_augment": of_tensors(losses.affine_augment, IMAGES, normal(6, 4).float() / 9),
    "edm.loss.edm_loss": of_tensors(losses.edm_loss, SONG, IMAGES, torch.linspace(0.1, 9, 6), NOISE),
    "edm.loss.noise_levels": of_tensors(losses.noise_levels, torch.linspace(0, 1, 9)),
    "edm.loss.validation_loss": of_tensors(losses.validation_loss, SONG, IMAGES, None, torch.ones(1), batch=4),
    "edm.save": saved,
    "edm.training.load_ema": averaged,
    "edm.training.train": trained,
    "evaluation.GeometryStatistics": lambda on: evaluation.GeometryStatistics([shape_of(on)]).spread,
    "evaluation.features_for": of_tensors(evaluation.features_for("pixels"), IMAGES),
    "evaluation.geometry_of": shape_of,
    "evaluation.paper.gits_levels": of_tensors(gits_levels, TOY, PATH.x[0], [5]),
    "evaluation.samples_of": measured,
    "evaluation.table": table,
    "geometry.align": of_curves(geometry.align),
    "geometry.procrustes": of_curves(geometry.procrustes),
    "geometry.procrustes_residual": of_curves(geometry.procrustes_residual),
    "geometry.curvature_torsion": lambda on: [
        geometry.curvature_torsion(on(CURVES), 11), geometry.curvature_torsion(on(CURVES), 9, weights="tricube"),
        geometry.curvature_torsion(on(CURVES), length=20.0, sparse="nan"),
    ],
    **{
        f"geometry.{name}": of_path(getattr(geometry, name))
        for name in ("arc_length", "cosines", "deviation", "deviation_peak", "distance_to_end", "norms", "project")
    },
    "geometry.path_curvature": of_path(geometry.path_curvature),
    "geometry.explained_variance": of_path(geometry.explained_variance, 2, remove_chord=True),
    "meanshift.annealed_mean_shift": of_tensors(meanshift.annealed_mean_shift, EXACT, PATH.final, [3.0, 1.0, 0.3]),
    "meanshift.mean_shift": of_tensors(meanshift.mean_shift, EXACT, PATH.final, 0.5, 50),
    "meanshift.merge": of_tensors(meanshift.merge, POINTS, 0.5),
    "meanshift.modes": of_tensors(meanshift.modes, EXACT, POINTS, 0.6),
    "metrics.Classifier": lambda on: metrics.digit_classifier(device=on.device).double()(on(DIGITS.double())),
    "metrics.FeatureStatistics": statistics,
    "metrics.bootstrap": of_tensors(metrics.bootstrap, torch.mean, POINTS, n_resamples=20),
    "metrics.digit_classifier": lambda on: metrics.digit_classifier(device=on.device)(on(DIGITS)),
    "metrics.digit_features": of_tensors(metrics.digit_features, DIGITS),
    "metrics.digit_probabilities": of_tensors(metrics.digit_probabilities, DIGITS),
    "metrics.emoji_classifier": lambda on: metrics.emoji_classifier(device=on.device)(on(EMOJI)),
    "metrics.emoji_features": of_tensors(metrics.emoji_features, EMOJI),
    "metrics.emoji_probabilities": of_tensors(metrics.emoji_probabilities, EMOJI),
    "metrics.error_to_reference": of_tensors(metrics.error_to_reference, POINTS, POINTS.flip(0)),
    "metrics.frechet_distance": frechet,
    "metrics.inception_features": inception,
    "metrics.mmd": lambda on: [metrics.mmd(on(POINTS), on(POINTS[:30]), kernel) for kernel in ("polynomial", "rbf")],
    "metrics.sliced_wasserstein": of_tensors(metrics.sliced_wasserstein, POINTS, POINTS[:30] + 1),
    "regularity.brownian_bridge": lambda on: regularity.brownian_bridge(8, 12, 3, like=on(PATH)),
    "regularity.class_posteriors": of_tensors(regularity.class_posteriors, EXACT, PATH),
    "regularity.commitment_sigma": of_tensors(regularity.commitment_sigma, POSTERIORS, LEVELS),
    "regularity.effective_neighbours": of_tensors(regularity.effective_neighbours, EXACT, PATH),
    "regularity.integrated_walk": lambda on: regularity.integrated_walk(8, 12, 3, like=on(PATH)),
    "regularity.likelihood_gain": of_tensors(regularity.likelihood_gain, EXACT, PATH.x[3], 1.0),
    "regularity.noise_norm_spread": of_path(regularity.noise_norm_spread),
    "regularity.rotation": of_path(regularity.rotation),
    "regularity.score_gap": of_tensors(regularity.score_gap, EXACT, PATH),
    "regularity.span_residual": of_path(regularity.span_residual),
    "regularity.speciation_sigma": of_tensors(regularity.speciation_sigma, POINTS),
    "regularity.state_gap": of_tensors(regularity.state_gap, PATH, OTHER),
    "regularity.step_targets": of_path(regularity.step_targets),
    "regularity.teleport": of_tensors(regularity.teleport, TOY, PATH.x[0], 80.0, 10.0),
    "regularity.time_shuffled": of_tensors(regularity.time_shuffled, PATH.x),
    "regularity.unrolled_weights": of_tensors(regularity.unrolled_weights, LEVELS),
    "sampling.Trajectory": kept,
    "sampling.initial_noise": lambda on: initial_noise(3, (2,), on(torch.tensor(5.0)), device=on.device),
    "sampling.sample": lambda on: [
        sample(on(EXACT), on(PATH.x[0]), on(LEVELS), "heun", labels=on(CLASSES[:12]), guidance=2.0),
        sample(on(EXACT), on(PATH.x[0]), LEVELS, dynamic_threshold=0.9),
        sample(on(EXACT), on(PATH.x[0]), LEVELS, afs=True, keep="final"),
    ],
    "schedules.interpolate": of_tensors(schedules.interpolate, LEVELS, 5),
    "schedules.trained_levels": of_tensors(schedules.trained_levels, ABAR),
    "schedules.validate": of_tensors(schedules.validate, LEVELS),
    "scheduling.FittedMultistep": lambda on: sample(
        on(TOY), on(PATH.x[0]), LEVELS[[0, 4, 8]], scheduling.FittedMultistep([[1.0], [1.1, -0.1]])
    ),
    "scheduling.Schedule": lambda on: scheduling.Schedule(on(LEVELS), "euler", 8),
    "scheduling.cost_matrix": lambda on: [scheduling.cost_matrix(on(PATH), metric) for metric in scheduling.METRICS],
    "scheduling.drive": driven,
    "scheduling.find_schedule": searched(scheduling.find_schedule, 5, "ipndm"),
    "scheduling.fit_solver": searched(scheduling.fit_solver, 5),
    "scheduling.learn_solver": searched(scheduling.learn_solver, 3, iterations=3, relax=0.01),
    "scheduling.multistep_weights": of_tensors(lambda levels: scheduling.multistep_weights("ipndm", levels), LEVELS),
    "scheduling.AMED": lambda on: sample(
        on(TOY), on(PATH.x[0]), LEVELS[[0, 4, 8]], scheduling.AMED([0.4, 0.0], [1.1, 0.9])
    ),
    "scheduling.learn_amed": searched(scheduling.learn_amed, 5, iterations=3, rows=4),
    "scheduling.path_cost": of_tensors(scheduling.path_cost, normal(9, 9).abs(), torch.tensor([0, 4, 8])),
    "scheduling.score_optimal": lambda on: [
        scheduling.score_optimal(on(PATH), 4, cost) for cost in ("predictor", "corrector")
    ],
    "scheduling.shortest_path": of_tensors(scheduling.shortest_path, normal(9, 9).abs(), 4),
    "scheduling.shortest_paths": of_tensors(scheduling.shortest_paths, normal(9, 9).abs(), 4),
    "scheduling.states_at": of_tensors(scheduling.states_at, PATH, torch.tensor([30.0, 5.0, 0.1], dtype=torch.float64)),
    "scheduling.teacher_paths": searched(scheduling.teacher_paths),
    **{f"solvers.{cls.__name__}": solver(name) for name, cls in solvers.REGISTRY.items()},
    "solvers.GENIE": with_derivative(solver("genie")),
    "solvers.Point": lambda on: [
        (now := solvers.Point(on(PATH.x[0]), 80.0, on(TOY), tuple(LEVELS.tolist()))).denoised, now.direction
    ],
}  # fmt: skip

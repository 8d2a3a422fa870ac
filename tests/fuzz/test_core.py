"""Wrong arguments to data, schedules, adapters, closed-form denoisers, noise, mean shift, solvers and the sampler."""

import inspect

import pytest
import torch

from teachkit import adapters, data, denoisers, meanshift, noise, sampling, schedules, solvers
from tests.fuzz.harness import Call, faults, normal

RANGE = {"n": 4, "sigma_min": 0.1, "sigma_max": 10.0, "zero": True}
ENDS = dict.fromkeys(RANGE, ("sigma_min", "n =", "float64"))  # a range is refused as a whole

SCHEDULES = {
    "schedules.cosine": Call(schedules.cosine, RANGE, ENDS),
    "schedules.linear": Call(schedules.linear, RANGE, ENDS),
    "schedules.logsnr": Call(schedules.logsnr, RANGE, ENDS),
    "schedules.polynomial": Call(schedules.polynomial, {**RANGE, "rho": 7.0}, ENDS),
    "schedules.flow_shift": Call(schedules.flow_shift, {**RANGE, "shift": 3.0}, ENDS),
    "schedules.time_uniform": Call(
        schedules.time_uniform, {**RANGE, "sigma_min": 0.01, "rho": 2.0, "time_min": 1e-3}, ENDS
    ),
    "schedules.ddpm": Call(
        schedules.ddpm,
        {"n": 4, "beta_start": 1e-4, "beta_end": 0.02, "train_steps": 100, "kind": "linear", "zero": True},
        {"beta_start": ("beta_end",)},
    ),
    "schedules.interpolate": Call(schedules.interpolate, {"sigmas": schedules.polynomial(4), "n": 3}),
    "schedules.trained_levels": Call(schedules.trained_levels, {"alphas_cumprod": torch.tensor([0.99, 0.5, 0.01])}),
    "schedules.validate": Call(schedules.validate, {"sigmas": schedules.polynomial(4)}),
}

POINTS = {"n": 6, "seed": 1}
DATA = {
    "data.checkerboard": Call(data.checkerboard, {**POINTS, "cells": 4}),
    "data.gaussian_grid": Call(data.gaussian_grid, {**POINTS, "side": 3, "noise": 0.1}),
    "data.ring": Call(data.ring, {**POINTS, "modes": 4, "radius": 1.0, "noise": 0.1}),
    "data.spiral": Call(data.spiral, {**POINTS, "noise": 0.1, "turns": 1.5}),
    "data.two_moons": Call(data.two_moons, {**POINTS, "noise": 0.1}),
    "data.load": Call(data.load, {"name": "digits8", "root": None, "n": 8, "seed": 1}, {"name": ("data set",)}),
    "data.load, a toy": Call(data.load, {"name": "ring", "n": 8, "seed": 1}, {"name": ("data set",)}),
    "data.split": Call(data.split, {"dataset": data.Dataset(normal(20, 2), torch.arange(20))}),
    "data.captions": Call(data.captions, {"name": "photos32"}),
    "data.class_names": Call(data.class_names, {"name": "emoji32"}),
    "data.verify": Call(data.verify, {"file_name": "digits8.npz"}, {"file_name": ("is missing",)}),
}

ABAR = torch.tensor([0.99, 0.8, 0.4, 0.1], dtype=torch.float64)
X, S = normal(4, 2), torch.tensor([0.1, 1.0, 2.0, 3.0], dtype=torch.float64)


def adapted(make):
    """The denoiser that an adapter makes, called."""

    def function(**given):
        return make(**given)(X, S)

    return function


MODEL = {"model": lambda z, t: torch.zeros_like(z), "alphas_cumprod": ABAR, "round_time": True}
MODEL_NAMES = {"alphas_cumprod": ("time",), "time": ("alphas_cumprod",)}
ADAPTERS = {
    "adapters.from_eps": Call(adapted(adapters.from_eps), MODEL, MODEL_NAMES),
    "adapters.from_v": Call(adapted(adapters.from_v), MODEL, MODEL_NAMES),
    "adapters.from_x0": Call(adapted(adapters.from_x0), MODEL, MODEL_NAMES),
    "adapters.from_eps, a time": Call(
        adapted(adapters.from_eps), {"model": MODEL["model"], "time": adapters.vp_time()}, MODEL_NAMES
    ),
    "adapters.from_velocity": Call(
        adapted(adapters.from_velocity), {"model": MODEL["model"], "time_scale": 1000.0, "data_at_one": True}
    ),
    "adapters.time_index": Call(lambda **given: adapters.time_index(**given)(S), {"alphas_cumprod": ABAR}),
    "adapters.vp_time": Call(
        lambda **given: adapters.vp_time(**given)(S),
        {"beta_min": 0.1, "beta_max": 20.0},
        {"beta_min": ("beta_max",)},
    ),
    "adapters.AdaptedDenoiser": Call(
        adapters.AdaptedDenoiser,
        {"model": torch.sin, "time": torch.log, "scale": torch.sin, "denoised": lambda x, out, sigma: x},
    ),
    "adapters.AdaptedDenoiser.forward": Call(
        adapters.from_eps(lambda z, t, labels=None: z / 2, ABAR),
        {"x": X, "sigma": S, "labels": torch.arange(4)},
        {"x": ("sigma",)},
    ),
}

GAUSSIAN = denoisers.Gaussian([0.0, 1.0], [[1.0, 0.5], [0.5, 2.0]])
MIXTURE = denoisers.GaussianMixture([0.25, 0.75], [[-1.0, 0.0], [1.0, 0.0]], 0.1)
LOW_RANK = denoisers.LowRankMixture.fit(normal(12, 2), torch.arange(12) % 2, rank=1)
DATA_SET = denoisers.Empirical(normal(12, 2), 0.1, torch.arange(12) % 3)
LABELS = torch.tensor([0, 1, 0, 1])
CLOSED = {"Gaussian": GAUSSIAN, "GaussianMixture": MIXTURE, "LowRankMixture": LOW_RANK, "Empirical": DATA_SET}


def buffers(make):
    """A denoiser made: its numbers."""

    def function(**given):
        return dict(make(**given).state_dict())

    return function


WEIGHTS, MEANS = torch.tensor([0.25, 0.75], dtype=torch.float64), normal(2, 2)
WITH_MEANS = dict.fromkeys(("weights", "covariances", "covariance", "variances", "axes", "mean"), ("means", "mean"))
WITH_MEANS["means"] = ("weights", "covariances", "variances", "axes")
WITH_MEANS["variances"] = ("axes", "means")
RNG = torch.Generator().manual_seed(0)


def drawn(method):
    """Samples drawn from a fixed seed: with ``generator=RNG`` every call would draw others."""

    def function(n, generator):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(0)
        return method(n, generator)

    return function


STATES = {"x": X, "sigma": S, "labels": LABELS}
DENOISERS = {
    "denoisers.default_dtype": Call(denoisers.default_dtype, {"device": "cpu"}),
    "denoisers.Isotropic": Call(buffers(denoisers.Isotropic), {"variances": WEIGHTS}),
    "denoisers.Diagonal": Call(buffers(denoisers.Diagonal), {"variances": MEANS**2}),
    "denoisers.Full": Call(buffers(denoisers.Full), {"matrices": torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)}),
    "denoisers.LowRank": Call(
        buffers(denoisers.LowRank),
        {"variances": LOW_RANK.variances, "axes": LOW_RANK.axes},
        {"variances": ("axes",), "axes": ("variances",)},
    ),
    "Gaussian": Call(
        buffers(denoisers.Gaussian),
        {"mean": MEANS[0], "covariance": torch.eye(2, dtype=torch.float64)},
        {"mean": ("covariance",), "covariance": ("mean",)},
    ),
    "GaussianMixture": Call(
        buffers(denoisers.GaussianMixture),
        {"weights": WEIGHTS, "means": MEANS, "covariances": torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)},
        WITH_MEANS,
    ),
    "GaussianMixture, an object": Call(
        buffers(denoisers.GaussianMixture),
        {"weights": WEIGHTS, "means": MEANS, "covariances": LOW_RANK.covariances},
        WITH_MEANS,
    ),
    "LowRankMixture": Call(
        buffers(denoisers.LowRankMixture),
        {"weights": WEIGHTS, "means": MEANS, "variances": LOW_RANK.variances, "axes": LOW_RANK.axes},
        WITH_MEANS,
    ),
    "Empirical": Call(
        buffers(denoisers.Empirical),
        {"data": normal(6, 2), "bandwidth": 0.1, "labels": torch.arange(6) % 2, "chunk": 4},
        {"data": ("labels",)},
    ),
    "Gaussian.fit": Call(buffers(denoisers.Gaussian.fit), {"data": normal(6, 2), "rank": 1}),
    "Gaussian.power_law": Call(
        buffers(denoisers.Gaussian.power_law), {"event_shape": (2, 4, 3), "alpha": 1.5, "variance": 0.5}
    ),
    "LowRankMixture.fit": Call(
        buffers(denoisers.LowRankMixture.fit),
        {"data": normal(6, 2), "labels": torch.arange(6) % 2, "rank": 1},
        {"data": ("labels",)},
    ),
    "Gaussian.flow": Call(GAUSSIAN.flow, {"x": X, "sigma": S, "sigma_next": S / 2}, {"x": ("sigma",)}),
    "Empirical.weights": Call(DATA_SET.weights, STATES, {"x": ("sigma", "labels")}),
    **{
        f"{name}.responsibilities": Call(D.responsibilities, {"x": X, "sigma": S}, {"x": ("sigma",)})
        for name, D in CLOSED.items()
        if hasattr(D, "responsibilities")
    },
    **{
        f"{name}.{method}": Call(getattr(D, method), given, {"x": ("sigma", "labels")})
        for name, D in CLOSED.items()
        for method in ("forward", "log_prob", "score")
        for given in [STATES if D.num_classes else {"x": X, "sigma": S}]
    },
    **{
        f"{name}.{method}": Call(drawn(getattr(D, method)), {"n": 5, "generator": RNG})
        for name, D in CLOSED.items()
        for method in ("sample", "sample_with_labels")
        if hasattr(D, method)
    },
}

LEVELS = schedules.polynomial(4, 0.1, 10.0)
TRAJECTORY = sampling.Trajectory(LEVELS, normal(5, 3, 2), normal(4, 3, 2), 4)
SAMPLING = {
    "initial_noise": Call(
        noise.initial_noise,
        {
            **{"n": 3, "event_shape": (2,), "sigma": 2.0, "seed": 1, "first": 2, "stream": 3},
            **{"dtype": torch.float32, "device": "cpu"},
        },
    ),
    "sample": Call(
        sampling.sample,
        {
            **{"denoiser": MIXTURE, "x": 10 * X, "sigmas": LEVELS, "solver": "heun", "labels": LABELS},
            **{"guidance": 2.0, "afs": True, "dynamic_threshold": 0.9, "keep": "all"},
            **{"callback": lambda *step: None, "progress": False},
        },
        {"x": ("labels",), "labels": ("guidance",), "guidance": ("labels",), "sigmas": ("sigma must",)},
    ),
    "Trajectory": Call(
        sampling.Trajectory,
        {"sigmas": LEVELS, "x": normal(5, 3, 2), "denoised": normal(4, 3, 2), "nfe": 4},
        {"x": ("sigmas", "denoised"), "sigmas": ("x",)},
    ),
    "Trajectory.to": Call(TRAJECTORY.to, {"device": "cpu", "dtype": torch.float32}),
    "Trajectory.whole": Call(TRAJECTORY.whole, {"outputs": True}),
    "solvers.EDMStochastic.for_samples": Call(
        lambda **given: vars(solvers.EDMStochastic().for_samples(**given)), {"seed": 2, "first": 3}
    ),
    "solvers.get": Call(solvers.get, {"name": "ipndm", "order": 3}, {"name": ("solver",)}),
}

MEANSHIFT = {
    "meanshift.annealed_mean_shift": Call(
        meanshift.annealed_mean_shift, {"denoiser": DATA_SET, "x": X, "bandwidths": [2.0, 1.0]}
    ),
    "meanshift.mean_shift": Call(
        meanshift.mean_shift, {"denoiser": DATA_SET, "x": X, "bandwidth": 1.0, "max_steps": 9, "tolerance": 0.1}
    ),
    "meanshift.merge": Call(meanshift.merge, {"points": X, "tolerance": 0.1}),
    "meanshift.modes": Call(
        meanshift.modes,
        {
            **{"denoiser": DATA_SET, "x": X, "bandwidth": 1.0, "merge_tolerance": 0.1},
            **{"max_steps": 9, "tolerance": 0.1},
        },
    ),
}

# A solver made and used: its options are numbers and words, whose every value must be taken or refused.
SOLVERS = {
    f"solvers.{cls.__name__}": Call(
        lambda cls=cls, **options: sampling.sample(MIXTURE, 10 * X, LEVELS, cls(**options)).final,
        {name: option.default for name, option in inspect.signature(cls).parameters.items()},
        {"sigma_high": ("sigma_low",)},
    )
    for cls in solvers.REGISTRY.values()
}

CALLS = {**SCHEDULES, **DATA, **ADAPTERS, **DENOISERS, **SAMPLING, **MEANSHIFT, **SOLVERS}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_named_or_the_answer_is_right(name):
    found = faults(CALLS[name])
    assert not found, f"{len(found)} faults\n" + "\n".join(found)

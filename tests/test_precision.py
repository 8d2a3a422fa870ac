"""Networks in half precision, under autocast, compiled and in other layouts of memory, through every path.

The state keeps its precision, float32 or float64, around a network of float16 or bfloat16; what that costs in the
samples was measured on the networks that ship, and is held here.
"""

import copy
import functools

import pytest
import torch
from torch import Tensor, nn

from teachkit import (
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
)
from tests.gpu_calls import random_weights

HALVES = (torch.float16, torch.bfloat16)
STATES = (torch.float32, torch.float64)
LEVELS = schedules.polynomial(60)
# Root mean square of final samples in half precision minus those in float32, same noise, 60 steps of Euler or iPNDM:
# measured 0.00011 to 0.00032 in float16 and 0.0016 to 0.0042 in bfloat16, on 6 to 64 digits and 1 to 16 of MNIST.
BOUNDS = {torch.float16: 0.001, torch.bfloat16: 0.012}


def rms(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).square().mean().sqrt())


def drawn(D: nn.Module, count: int, dtype: torch.dtype, solver: str = "ipndm") -> Tensor:
    shape = (D.img_channels, D.img_resolution, D.img_resolution)
    labels = torch.arange(count) % D.label_dim if D.label_dim else None
    x = initial_noise(count, shape, seed=4, dtype=torch.float32)  # float64 from the same numbers
    return sample(D, x.to(dtype), LEVELS, solver, labels=labels, keep="final").final


@functools.cache
def in_full(name: str, count: int) -> Tensor:
    return drawn(edm.load(name), count, torch.float32)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("name", "count"), [("edm-digits8", 6), ("edm-mnist", 1)])
def test_half_precision_moves_the_samples_of_what_ships_by_little(name, count, dtype):
    for state in STATES if name == "edm-digits8" and dtype == torch.bfloat16 else STATES[:1]:
        final = drawn(edm.load(name, dtype=dtype), count, state)
        assert final.dtype == state
        assert 0 < rms(final, in_full(name, count)) < BOUNDS[dtype]


def test_autocast_moves_the_samples_of_what_ships_by_little():
    D = edm.load("edm-digits8")
    with torch.autocast("cpu", torch.bfloat16):
        final = drawn(D, 6, torch.float32)
    assert final.dtype == torch.float32
    assert 0 < rms(final, in_full("edm-digits8", 6)) < BOUNDS[torch.bfloat16]


# --- Every path -------------------------------------------------------------------------------------------------------

SONG = random_weights(edm.EDMPrecond, model_type="SongUNet")
FEW = schedules.polynomial(8)
NOISE = initial_noise(8, (1, 8, 8), seed=1)
CLASSES = torch.arange(8) % 3


def measures(D: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """What is done with a model, from noise of ``dtype``: paths, their shape, what they are compared with."""
    x = NOISE.to(dtype)
    path = sample(D, x, FEW, "heun", labels=CLASSES, guidance=2.0)
    out = {f"sample, {name}": sample(D, x, FEW, name, keep="final").final for name in solvers.REGISTRY}
    out |= {"path": path.x, "denoised": path.denoised, "project": geometry.project(path).abs()}
    for name in ("arc_length", "cosines", "deviation", "distance_to_end"):
        out[name] = getattr(geometry, name)(path)
    out["explained_variance"] = geometry.explained_variance(path, 2, remove_chord=True)
    out["deviation_peak"] = geometry.deviation_peak(path)[0]
    out["path_curvature"] = geometry.path_curvature(path)[0]
    out["geometry_of"] = evaluation.geometry_of(path)["length"]
    out |= {f"cost, {metric}": scheduling.cost_matrix(path, metric) for metric in scheduling.METRICS}
    out["states_at"] = scheduling.states_at(path, torch.tensor([30.0, 1.0]))
    out["score_gap"] = 1 + regularity.score_gap(D, sample(D, x, FEW, "heun"))
    out["mean shift"] = meanshift.annealed_mean_shift(D, path.final, [2.0, 1.0])
    out["error"] = 1 + metrics.error_to_reference(path.final, path.x[-2])
    return out


@functools.cache
def measured_in_full() -> dict[str, Tensor]:
    return measures(SONG, torch.float64)


def close(got: dict[str, Tensor], share: float) -> None:
    """Each within a share of the largest of its numbers."""
    for name, wanted in measured_in_full().items():
        off = (got[name].double() - wanted.double()).abs().max() / wanted.abs().max()
        assert off < share, f"{name}: {off}"


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "state"), zip(HALVES, STATES), ids=str)
def test_what_is_measured_of_a_network_in_half_precision_is_nearly_that_of_the_network(dtype, state):
    D = copy.deepcopy(SONG).to(dtype)
    got = measures(D, state)
    assert got["path"].dtype == state
    close(got, 40 * torch.finfo(dtype).eps)
    with torch.autocast("cpu", dtype):
        again = measures(SONG, state)
    assert again["path"].dtype == state
    close(again, 40 * torch.finfo(dtype).eps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "dtype", "state"),
    [("find_schedule", torch.bfloat16, torch.float32), ("fit_solver", torch.float16, torch.float64)],
)
def test_a_search_over_a_network_in_half_precision_finds_nearly_as_good(search, dtype, state):
    x, given = initial_noise(16, (1, 8, 8), seed=1), {"labels": torch.arange(16) % 10, "grid": 20}
    full, half = (edm.load("edm-digits8", dtype=each) for each in (torch.float32, dtype))
    wanted = getattr(scheduling, search)(full, x.float(), 4, **given)
    found = getattr(scheduling, search)(half, x.to(state), 4, **given)
    assert sample(half, x.to(state), found.sigmas, found.make_solver()).x.dtype == state
    assert found.error < 1.1 * wanted.error, (found.error, wanted.error)  # the way to it is another one


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_layout_of_weights_and_images_does_not_matter(layout):
    D, x = copy.deepcopy(SONG).to(memory_format=layout), NOISE.float()
    got = [sample(D, start, FEW, "ipndm").final for start in (x, x.to(memory_format=torch.channels_last))]
    for final in got:
        torch.testing.assert_close(final, sample(SONG, x, FEW, "ipndm").final, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_network_samples_as_it_does_without_and_is_the_same_model():
    """Traced and taken apart; the code that is made of it is tested in test_edm_networks.py."""
    torch.compiler.reset()
    D = random_weights(edm.EDMPrecond, model_type="SongUNet", channel_mult=[1], attn_resolutions=[])
    compiled, x = torch.compile(D.requires_grad_(False), backend="aot_eager"), NOISE.float()
    assert evaluation.identify(compiled, "it") == evaluation.identify(D, "it")
    path, known = (sample(each, x, FEW, "heun", labels=CLASSES) for each in (compiled, D))
    torch.testing.assert_close(path.x, known.x, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(geometry.deviation(path), geometry.deviation(known), rtol=1e-4, atol=1e-3)

"""Every public function that takes tensors, on a GPU: the numbers of the CPU, on the device they were asked for.

The GPU is the emulated one of `emulated_gpu`, which every machine has. What is public comes from the ``__all__`` of the
rooms, so a function without its call in `gpu_calls` fails the test.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import teachkit
from benchmarks.bench_networks import floor
from teachkit import Trajectory, edm, initial_noise, sample, schedules, scheduling
from tests.emulated_gpu import CUDA, EmulatedGPU, GPUTensor
from tests.gpu_calls import CALLS, SONG, Place, piped

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import gpu_check

ROOMS = (
    "adapters", "data", "denoisers", "edm", "edm.loss", "edm.recipes", "edm.training", "evaluation", "evaluation.paper",
    "geometry", "meanshift", "metrics", "regularity", "sampling", "schedules", "scheduling", "solvers",
)  # fmt: skip
# Public, and nothing that takes tensors: tables of names, errors, words, files, and makers of numbers on the CPU.
WITHOUT_TENSORS = {
    *(f"data.{name}" for name in ("NAMES", "TOYS", "captions", "class_names", "directory", "load", "verify")),
    *(f"data.{name}" for name in ("checkerboard", "gaussian_grid", "ring", "spiral", "two_moons")),
    "denoisers.Denoiser", "denoisers.default_dtype",
    *(f"edm.{name}" for name in edm.__all__ if name.endswith("Error")),
    "edm.convert", "edm.loss.AUGMENT_DIM", "edm.training.validation_sigmas",
    *(f"edm.recipes.{name}" for name in ("RECIPES", "Recipe", "make_denoiser")),
    *(f"evaluation.{name}" for name in ("SHARD", "Method", "Processes", "Row", "Shards")),
    *(f"evaluation.{name}" for name in ("fingerprint", "identify", "methods", "processes")),
    *(f"evaluation.paper.{name}" for name in ("BUDGETS", "PAPER", "RUNS", "SAMPLES", "SOURCE", "PaperTable")),
    "evaluation.paper.paper_methods", "metrics.Estimate", "metrics.proportion", "regularity.random_walk",
    "schedules.REGISTRY", *(f"schedules.{name}" for name in schedules.REGISTRY),
    *(f"schedules.{name}" for name in ("ddpm", "flow_shift", "linear")),
    "scheduling.METRICS", "solvers.REGISTRY", "solvers.Solver", "solvers.get",
}  # fmt: skip
# Gives tensors on the CPU wherever those that it is given lie, and says so: lists of a few numbers that Python reads.
ON_THE_CPU = {
    "edm.loss.validation_loss", "edm.training.load_ema", "evaluation.paper.gits_levels", "regularity.unrolled_weights",
    "schedules.interpolate", "schedules.trained_levels", "schedules.validate", "scheduling.Schedule",
    "scheduling.cost_matrix", "scheduling.find_schedule", "scheduling.fit_solver", "scheduling.learn_solver",
    "scheduling.learn_amed", "scheduling.multistep_weights", "scheduling.score_optimal", "scheduling.shortest_path",
    "scheduling.shortest_paths",
}  # fmt: skip

# --- The tests --------------------------------------------------------------------------------------------------------


def public() -> dict[str, object]:
    rooms = {room: importlib.import_module(f"teachkit.{room}") for room in ROOMS}
    return {f"{room}.{name}": getattr(module, name) for room, module in rooms.items() for name in module.__all__}


def test_every_public_function_has_its_call():
    rooms = {name for name in teachkit.__all__ if isinstance(getattr(teachkit, name), types.ModuleType)}
    assert rooms <= set(ROOMS)
    assert set(public()) == CALLS.keys() | WITHOUT_TENSORS
    assert not CALLS.keys() & WITHOUT_TENSORS


def leaves(result: object) -> Iterator[Any]:
    """Tensors and numbers in what a function gives; of paths the states, as their levels always lie on the CPU."""
    if isinstance(result, Trajectory):
        yield from (result.x, result.denoised)
    elif dataclasses.is_dataclass(result):
        for field in dataclasses.fields(result):
            yield from leaves(getattr(result, field.name))
    elif isinstance(result, (dict, list, tuple)):
        for value in result.values() if isinstance(result, dict) else result:
            yield from leaves(value)
    elif isinstance(result, (Tensor, int, float)) and not isinstance(result, bool):
        yield result


@pytest.mark.parametrize("name", CALLS)
def test_a_gpu_gives_the_numbers_of_the_cpu_where_they_were_asked_for(name):
    wanted = list(leaves(CALLS[name](Place(torch.device("cpu")))))
    with EmulatedGPU():
        got = list(leaves(CALLS[name](Place(CUDA))))
    assert len(got) == len(wanted) > 0
    tensors = [value for value in got if isinstance(value, Tensor)]
    assert {isinstance(value, GPUTensor) for value in tensors} <= {name not in ON_THE_CPU}
    # In double precision the last digits may differ, as those of a copy with other strides do; networks are in single
    # precision, and their attention is not computed by one kernel on both.
    tolerance = 2e-5 if name.startswith("edm.") else 1e-12
    for ours, known in zip(got, wanted):
        ours = torch.as_tensor(ours.numbers if isinstance(ours, GPUTensor) else ours).detach()
        known = torch.as_tensor(known).detach()
        size = 1 + float(known.abs().nan_to_num().max()) if known.numel() else 1.0
        torch.testing.assert_close(ours, known, equal_nan=True, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("name", sorted(ON_THE_CPU))
def test_what_comes_back_on_the_cpu_says_so(name):
    assert "CPU" in (public()[name].__doc__ or "")


def test_networks_in_half_precision_sample_on_a_gpu_as_on_the_cpu():
    x = initial_noise(3, (1, 8, 8), dtype=torch.float64)
    for dtype in (torch.float16, torch.bfloat16):
        D = edm.load("edm-digits8", dtype=dtype)
        levels, labels = schedules.polynomial(6), torch.arange(3)
        wanted = sample(D, x, levels, "heun", labels=labels, guidance=2.0)
        with EmulatedGPU():
            place = Place(CUDA)
            path = sample(
                place(D), place(x), schedules.polynomial(6), "heun", labels=place(torch.arange(3)), guidance=2.0
            )
        assert isinstance(path.final, GPUTensor)
        assert path.final.dtype == torch.float64
        # Another kernel for attention, whose roundings grow on the way: far below those of half precision itself.
        off = (path.final.numbers - wanted.final).square().mean().sqrt()
        assert off < 20 * torch.finfo(dtype).eps, off


# --- The emulated GPU itself ------------------------------------------------------------------------------------------


def refused() -> dict[str, Any]:
    """What a GPU refuses, with tensors here and there."""
    here, there, number = torch.ones(3), torch.ones(3, device="cuda"), torch.tensor(2.0)
    generator = torch.Generator()
    return {
        "a sum": lambda: here + there,
        "a sum into the CPU": lambda: here.add_(there),
        "into a number on the CPU": lambda: number.add_(there[0]),
        "a product": lambda: there @ here,
        "a product with a number": lambda: torch.cat([there, number[None]]),
        "a stack of numbers": lambda: torch.stack([there[0], number]),
        "an index from there": lambda: here[there.long()],
        "values from here": lambda: there.index_put_((there.long(),), here),
        "where": lambda: torch.where(here > 0, there, there),
        "a search": lambda: torch.searchsorted(here, there),
        "a gather": lambda: there.gather(0, here.long()),
        "a linear layer": lambda: nn.Linear(3, 3)(there),
        "a loss": lambda: nn.functional.mse_loss(there, here),
        "a source of numbers": lambda: torch.randn(3, generator=generator, device="cuda"),
        "a source of numbers in place": lambda: there.normal_(generator=generator),
        "a permutation": lambda: torch.randperm(3, generator=generator, device="cuda"),
        "numpy": lambda: there.numpy(),
        "numpy itself": lambda: np.asarray(there),
        "an output": lambda: torch.add(there, there, out=here),
    }


def allowed() -> dict[str, Any]:
    """What a GPU takes, and gives back."""
    here, there, number = torch.arange(3.0), torch.arange(3.0, device="cuda"), torch.tensor(2.0, dtype=torch.float64)
    return {
        "a number": lambda: there * number + 1,
        "an index from here": lambda: there[here.long()],
        "a mask from here": lambda: there[here > 0],
        "a copy": lambda: torch.empty(3, device="cuda").copy_(here),
        "rows from here": lambda: there.clone().__setitem__(slice(0, 2), here[:2]),
        "a new one": lambda: there.new_tensor([1.0, 2.0]) + torch.tensor([1, 2], device=there.device),
        "its kind": lambda: here.to(there) + torch.zeros_like(there),
        "in place": lambda: there.clone().add_(there).squeeze_().unsqueeze_(0).mul_(number),
        "a quantile": lambda: there.quantile(0.5, dim=0, keepdim=True),
        "a gradient": lambda: torch.autograd.grad((w := there.clone().requires_grad_()).square().sum(), w)[0],
    }


def test_the_emulated_gpu_refuses_what_a_gpu_refuses():
    with EmulatedGPU():
        for what, call in refused().items():
            with pytest.raises((RuntimeError, TypeError), match=r"device|numpy"):
                pytest.fail(f"took {what}: {call()}")


def test_the_emulated_gpu_takes_what_a_gpu_takes():
    with EmulatedGPU():
        for what, call in allowed().items():
            made = call()
            assert made is None or (made.device == CUDA and made.is_cuda and not made.is_cpu), what
            assert made is None or made.cpu().shape == made.shape, what
        assert torch.zeros(3).device == torch.device("cpu")
        assert torch.zeros(3, device="meta").is_meta
    with pytest.raises((RuntimeError, AssertionError)):  # outside there is none
        torch.zeros(3, device="cuda")


# --- The check of a real one ------------------------------------------------------------------------------------------


def test_the_check_of_a_gpu_says_where_there_is_none_and_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["--out", str(tmp_path / "GPU.md")]) == 1
    assert "no GPU here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_check_of_a_gpu_goes_through_all_it_measures(tmp_path):
    assert gpu_check.main(["--device", "cpu", "--quick", "--out", str(tmp_path / "GPU.md")]) == 0
    page = (tmp_path / "GPU.md").read_text()
    assert "no measurement" in page
    for title, rows in (("The numbers of the CPU", 8), ("Speed", 8), ("Searches", 4)):
        table = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
        assert table.count("\n| ") == 1 + rows, title
    assert "**no**" not in page


def test_a_gpu_that_gives_other_numbers_is_told(monkeypatch):
    check = gpu_check.Check("cpu", quick=True)
    monkeypatch.setattr(gpu_check, "KINDS", {"float32": (torch.bfloat16, False, 1e-3)})
    assert [row["within"] for row in gpu_check.parity(check)] == ["**no**", "**no**"]
    assert len(check.failed) == 2


def test_what_no_time_is_left_for_is_left_out_and_said_so(monkeypatch):
    monkeypatch.setattr(gpu_check, "SECONDS", -1.0)
    check = gpu_check.Check("cpu", quick=True)
    for measure in (gpu_check.speed, gpu_check.searches):
        assert "no time left" in gpu_check.markdown(measure(check))


def test_the_products_a_network_is_measured_by_lie_where_it_does(monkeypatch):
    seen, attention = set(), nn.functional.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.add(q.device)
        return attention(q, k, v)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    with EmulatedGPU(), torch.no_grad():
        floor(Place(CUDA)(SONG), torch.ones(1, 1, 8, 8, device="cuda"))()
    assert seen == {CUDA}


def test_paths_may_lie_on_the_cpu_while_the_network_is_on_a_gpu():
    searches = (scheduling.find_schedule, scheduling.fit_solver)
    x = initial_noise(16, (1, 8, 8), sigma=10.0, seed=3)

    def found(on: Place) -> list[scheduling.Schedule]:
        D = piped(on)
        asked = {"labels": D.labels(16), "guidance": 2.0, "grid": 12, "batch": 5}
        asked["labels"] = {name: part.to("cpu") for name, part in asked["labels"].items()}
        return [search(D, x, 4, sigma_min=0.2, sigma_max=9.9, **asked) for search in searches]

    wanted = found(Place(torch.device("cpu")))
    with EmulatedGPU():
        got = found(Place(CUDA))
        with pytest.raises(ValueError, match=r"x is on cpu but the denoiser is on cuda:0; .* give batch="):
            sample(piped(Place(CUDA)), x, [9.9, 1.0])
    for ours, known in zip(got, wanted):
        torch.testing.assert_close(ours.sigmas, known.sigmas, rtol=1e-9, atol=0)
        assert ours.error == pytest.approx(known.error, rel=1e-9)

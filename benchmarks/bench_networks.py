"""The U-Nets: time to build the published sizes, and the forward pass beside the bare layers it cannot do without."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.clock import one_thread, wall
from teachkit import edm
from teachkit.edm.published import CONFIGS

BUILDS = {"CIFAR-10 DDPM++ (VP)": "edm-cifar10-32x32-uncond-vp", "ImageNet-64 ADM": "edm-imagenet-64x64-cond-adm"}
SIZE: dict[str, Any] = CONFIGS["edm-cifar10-32x32-uncond-vp"]
SHIPPED = ("edm-mnist", "edm-digits8")
BATCH, BATCHES, REPEATS = 4, (1, 64, 256), 3
PEERS = ()
ABOUT = f"""
Building, with weights drawn on the CPU: wanted, below 2 s each. The forward pass of the CIFAR-10 network on {BATCH}
images, beside the floor: the same convolutions, linear layers and attention products alone, on stored tensors of the
same shapes and layout, in the same dtype; for `torch.compile` too, the floor is eager. What is above it is
normalisation, activations, sums, and copies (concatenations, resampling, casts); of the two eager passes each is given
with its part of the ratio, from profiles. They take about as long in bfloat16 as in float32: PyTorch computes them in
float32 and rounds each result. So they weigh the more, the faster a processor multiplies in bfloat16; wanted:
a ratio of at most 1.2 there. Then the models that ship, where a floor is not taken. One thread; medians of {REPEATS}
calls, network and floor in turns, after one call that is not counted.
"""
FAMILIES = {  # of what is above the floor, by the names of the operators
    "normalisation": ("native_group_norm",),
    "activations": ("silu", "silu_"),
    "sums and scalings": ("add", "add_", "mul", "mul_", "addcmul"),
    "copies": ("cat", "copy_", "upsample_nearest2d", "avg_pool2d"),
}


def medians(*calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call, taken in turns after one of each."""
    for call in calls:
        call()
    turns = [[wall(call) for call in calls] for _ in range(REPEATS)]
    return [statistics.median(column) for column in zip(*turns)]


def floor(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """The matrix products of ``net(x, 1.0)``, recorded once and then called alone."""
    products: list[Callable[[], Tensor]] = []
    hooks = []

    def record(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        stored = torch.empty_like(args[0]).normal_()
        products.append(lambda: layer.forward(stored))

    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            hooks.append(layer.register_forward_pre_hook(record))
    attention = F.scaled_dot_product_attention

    def recorded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # empty_like keeps the strides of dense tensors only: these are views into one, as in the network.
        packed = torch.randn(q.shape[0], q.shape[2], 3, q.shape[1], q.shape[3], dtype=q.dtype, device=q.device)
        stored = packed.permute(2, 0, 3, 1, 4).unbind(0)
        products.append(lambda: attention(*stored))
        return attention(q, k, v)

    F.scaled_dot_product_attention = recorded
    try:
        net(x, 1.0)
    finally:
        F.scaled_dot_product_attention = attention
        for hook in hooks:
            hook.remove()

    def call() -> None:
        for product in products:
            product()

    return call


def row(what: str, ours: float, bare: float | None = None, images: int | None = None) -> dict[str, object]:
    """One row; a dash where a column does not apply."""
    return {
        "what": what,
        "s": f"{ours:.3g}",
        "floor, s": "–" if bare is None else f"{bare:.3g}",
        "ratio": "–" if bare is None else f"{ours / bare:.2f}",
        "images/s": "–" if images is None else f"{float(f'{images / ours:.3g}'):,g}",
    }


def above(title: str, call: Callable[[], object], bare: float) -> list[dict[str, object]]:
    """A row for each family of operators above the floor of ``bare`` seconds: medians of profiles of one call."""
    turns: list[dict[str, float]] = []
    for _ in range(REPEATS):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            call()
        spent = {event.key.removeprefix("aten::"): 1e-6 * event.self_cpu_time_total for event in profile.key_averages()}
        turns.append({family: sum(spent.get(name, 0.0) for name in names) for family, names in FAMILIES.items()})
    return [row(f"{title}: {name}", statistics.median(turn[name] for turn in turns), bare) for name in FAMILIES]


def builds() -> list[dict[str, object]]:
    """A row for each published size."""
    rows = []
    for title, name in BUILDS.items():
        (taken,) = medians(lambda name=name: edm.EDMPrecond(**CONFIGS[name]))
        rows.append(row(f"build {title}", taken))
    return rows


def forwards() -> list[dict[str, object]]:
    """The CIFAR-10 network: eager in two dtypes and two layouts, and compiled."""
    x = torch.randn(BATCH, SIZE["img_channels"], *[SIZE["img_resolution"]] * 2, generator=torch.Generator())
    net = edm.EDMPrecond(**SIZE).eval()
    bare = floor(net, x)
    rows = []
    for title, call in {"eager": net, "compiled": torch.compile(net)}.items():
        taken = medians(lambda call=call: call(x, 1.0), bare)
        rows.append(row(f"forward, float32, {title}", *taken, images=BATCH))
        if title == "eager":
            rows += above("float32, eager", lambda: net(x, 1.0), taken[1])
    net.to(memory_format=torch.contiguous_format)
    taken = medians(lambda: net(x, 1.0), floor(net, x))
    rows.append(row("forward, float32, eager, weights not `channels_last`", *taken, images=BATCH))
    net.to(torch.bfloat16).to(memory_format=torch.channels_last)
    taken = medians(lambda: net(x, 1.0), floor(net, x))
    rows.append(row("forward, bfloat16, eager", *taken, images=BATCH))
    return rows + above("bfloat16, eager", lambda: net(x, 1.0), taken[1])


def shipped() -> list[dict[str, object]]:
    """The models that ship, at several batch sizes."""
    rows = []
    for name in SHIPPED:
        D = edm.load(name)
        for batch in BATCHES:
            x = torch.randn(batch, D.img_channels, D.img_resolution, D.img_resolution, generator=torch.Generator())
            torch.compiler.reset()
            compiled = torch.compile(D)
            eager, fast = medians(lambda x=x, call=D: call(x, 1.0), lambda x=x, call=compiled: call(x, 1.0))
            rows.append(row(f"{name}, batch {batch}, eager", eager, images=batch))
            rows.append(row(f"{name}, batch {batch}, compiled", fast, images=batch))
    return rows


@one_thread()
@torch.inference_mode()
def run() -> list[dict[str, object]]:
    """All rows."""
    return builds() + forwards() + shipped()

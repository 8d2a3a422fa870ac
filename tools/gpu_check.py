"""What a GPU gives: the numbers of the CPU, at which speed and in how much memory; into docs/GPU.md.

    python tools/gpu_check.py                             # on one NVIDIA GPU, ten minutes at most
    python tools/gpu_check.py --device cpu --quick        # the same steps on tiny sizes, to try the tool; prints only

The networks that ship and one of the size of EDM's for CIFAR-10, its weights drawn at random: nothing is downloaded.
Without a GPU it says so, writes nothing and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bench_networks import floor  # noqa: E402
from teachkit import edm, initial_noise, sample, schedules, scheduling  # noqa: E402
from teachkit.edm.published import CONFIGS  # noqa: E402
from teachkit.files import write_whole  # noqa: E402

PAGE = ROOT / "docs" / "GPU.md"
SHIPPED = ("edm-digits8", "edm-mnist")
CIFAR: dict[str, Any] = CONFIGS["edm-cifar10-32x32-uncond-vp"]
SMALL: dict[str, Any] = {**CIFAR, "img_resolution": 16, "model_channels": 16, "num_blocks": 1}
# Kind -> dtype, whether products may be rounded to TF32, and the largest root mean square of final samples minus those
# of the CPU in float32 that passes. A GPU does not sum in the order of a CPU; of half precision are held here
# three times what tests/test_precision.py holds of the same networks.
KINDS: dict[str, tuple[torch.dtype, bool, float]] = {
    "float32": (torch.float32, False, 1e-3),
    "float32, TF32": (torch.float32, True, 3e-3),
    "float16": (torch.float16, False, 3e-3),
    "bfloat16": (torch.bfloat16, False, 3e-2),
}
SECONDS = 540.0  # after which what is left is left out, and said so
REPEATS = 5

Rows = list[dict[str, str]]


class Check:
    """One run: where, how large, and until when."""

    def __init__(self, device: str, quick: bool) -> None:
        self.device, self.quick = torch.device(device), quick
        self.until = time.monotonic() + SECONDS
        self.failed: list[str] = []

    def late(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() > self.until

    def seconds(self, call: Callable[[], object], repeats: int = REPEATS) -> float:
        """Median seconds of a call, with all that it has queued done, after one that is not counted."""
        taken = []
        for _ in range(1 + (1 if self.quick else repeats)):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        """Begin to count memory anew."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> str:
        """Most memory held since then."""
        if self.device.type != "cuda":
            return "–"
        return f"{torch.cuda.max_memory_allocated(self.device) / 2**20:,.0f} MiB"


def cifar(check: Check) -> nn.Module:
    """The network of the size of CIFAR-10's; what is nearly zero before training is drawn too, so that all shows."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = edm.EDMPrecond(**(SMALL if check.quick else CIFAR)).eval().requires_grad_(False)
        for name, part in network.named_parameters():
            if name.endswith("aux_conv.weight"):
                part.normal_().mul_(0.02)
    return network


def networks(check: Check) -> Iterator[tuple[str, Any, Tensor, Tensor | None]]:
    """Each network on the CPU, with noise and labels for it."""
    for name in (*SHIPPED[: 1 if check.quick else None], "CIFAR-10 size"):
        network: Any = edm.load(name, device="cpu") if name in SHIPPED else cifar(check)
        count = 2 if check.quick else 16 if name in SHIPPED else 4
        shape = (network.img_channels, network.img_resolution, network.img_resolution)
        labels = torch.arange(count) % network.label_dim if network.label_dim else None
        yield name, network, initial_noise(count, shape, dtype=torch.float32), labels


def parity(check: Check) -> Rows:
    """Final samples of Heun's method against those of the CPU in float32, from the same noise."""
    rows, levels = [], schedules.polynomial(3 if check.quick else 18)
    for name, network, x, labels in networks(check):
        known = sample(network, x, levels, "heun", labels=labels, keep="final").final
        there = None if labels is None else labels.to(check.device)
        for kind, (dtype, rounded, limit) in KINDS.items():
            moved = copy.deepcopy(network).to(check.device, dtype)
            with tf32(rounded):
                final = sample(moved, x.to(check.device), levels, "heun", labels=there, keep="final").final.cpu()
            off = float((final - known).square().mean().sqrt())
            if not off < limit:
                check.failed.append(f"{name} in {kind} is {off:.2g} from the CPU, more than {limit:g}")
            within = "yes" if off < limit else "**no**"
            rows.append({"network": name, "kind": kind, "rms": f"{off:.2g}", "limit": f"{limit:g}", "within": within})
    return rows


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Convolutions and products of float32 rounded to TF32 on the way, or not."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def speed(check: Check) -> Rows:
    """The forward pass in each precision, as it is and compiled, beside its matrix products alone; and memory."""
    rows: Rows = []
    for name, network, _, _ in networks(check):
        batch = 2 if check.quick else 256
        x = torch.randn(batch, network.img_channels, *[network.img_resolution] * 2).to(check.device)
        for kind, (dtype, rounded, _) in KINDS.items():
            moved = copy.deepcopy(network).to(check.device, dtype)
            for way in ("eager",) if check.quick else ("eager", "compiled"):
                if check.late():
                    return [*rows, {"network": name, "kind": kind, "way": "left out: no time left"}]
                torch.compiler.reset()
                call = moved if way == "eager" else torch.compile(moved)
                with tf32(rounded), torch.inference_mode():
                    check.forget_peak()
                    taken, memory = check.seconds(partial(call, x, 1.0)), check.peak()
                    bare = check.seconds(floor(moved, x))
                rows.append({
                    "network": name, "kind": kind, "way": way, "images/s": f"{batch / taken:,.0f}",
                    "products alone, images/s": f"{batch / bare:,.0f}", "ratio": f"{taken / bare:.2f}",
                    "memory": memory,
                })  # fmt: skip
    return rows


def searches(check: Check) -> Rows:
    """Schedules and solvers found for six evaluations: seconds, evaluations, memory."""
    rows: Rows = []
    for name, network, _, _ in networks(check):
        count, dtype = (8, torch.float32) if check.quick else (64, torch.bfloat16)
        moved = copy.deepcopy(network).to(check.device, dtype).requires_grad_(False)
        x = initial_noise(count, (network.img_channels, *[network.img_resolution] * 2), dtype=torch.float32)
        labels = torch.arange(count, device=check.device) % network.label_dim if network.label_dim else None
        for search in (scheduling.find_schedule, scheduling.fit_solver):
            if check.late():
                return [*rows, {"network": name, "search": "left out: no time left"}]
            check.forget_peak()
            start = time.perf_counter()
            with torch.no_grad():
                found = search(moved, x.to(check.device), 6, labels=labels, grid=8 if check.quick else 60)
            check.wait()
            rows.append({
                "network": name, "search": f"{search.__name__}, {short(dtype)}, {count} samples",
                "s": f"{time.perf_counter() - start:.1f}", "evaluations": f"{found.provenance['evaluations']:,}",
                "error": f"{found.error:.3g}", "memory": check.peak(),
            })  # fmt: skip
    return rows


def short(dtype: torch.dtype) -> str:
    """A dtype without its library."""
    return str(dtype).removeprefix("torch.")


def markdown(rows: Rows) -> str:
    """A table, its columns those of the first row."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(row.get(name, "") for name in names) + " |" for row in rows])


def page(check: Check) -> str:
    """The whole of docs/GPU.md."""
    cuda = check.device.type == "cuda"
    name = torch.cuda.get_device_name(check.device) if cuda else f"{platform.machine()} CPU, tiny sizes: no measurement"
    parts = [
        "# On a GPU",
        f"Measured {date.today():%d %B %Y} on {name}; torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"Python {platform.python_version()}. `python tools/gpu_check.py` writes this page anew, in ten minutes.",
    ]
    for title, measure in TABLES.items():
        parts += [f"## {title}", " ".join((measure.__doc__ or "").split()), markdown(measure(check))]
        print(f"{title}: done", file=sys.stderr)
    return "\n\n".join(parts) + "\n"


TABLES: dict[str, Callable[[Check], Rows]] = {"The numbers of the CPU": parity, "Speed": speed, "Searches": searches}


def main(arguments: list[str] | None = None) -> int:
    """Check and write the page; 0 if all is within its limits, 2 if not, 1 without a GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu with --quick, to try the tool")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: no measurement, but every step of one")
    parser.add_argument("--out", type=Path, help="page to write; default: docs/GPU.md, and none with --quick")
    chosen = parser.parse_args(arguments)
    if torch.device(chosen.device).type == "cuda" and not torch.cuda.is_available():
        print("gpu_check: torch finds no GPU here; nothing was measured, and nothing written", file=sys.stderr)
        return 1
    check = Check(chosen.device, chosen.quick)
    text = page(check)
    target = chosen.out or (None if chosen.quick else PAGE)
    if target:
        write_whole(target, lambda beside: beside.write_text(text))
    print(text if target is None else f"written: {target}")
    for line in check.failed:
        print(f"gpu_check: {line}", file=sys.stderr)
    return 2 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every argument of a public function, replaced by what it should not be: a named error or a right, finite answer.

A table of calls (`Call`) says how each function is rightly called. `faults` replaces one argument at a time with values
of the wrong type, shape, size, dtype or device, and tells what happened that should not have: an error that does not
name the argument, an error from inside another library, a silent NaN, a hang, or another answer where only the memory
layout or the dtype differed.
"""

import dataclasses
import functools
import math
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import teachkit

PACKAGE = str(Path(teachkit.__file__).parent)
SECONDS = 30  # a call with small arguments that takes longer hangs


@dataclasses.dataclass(frozen=True)
class Call:
    """A right call of a function, by keyword.

    ``names`` says what an error may call an argument, where it is not the argument's own name.
    """

    function: Callable
    arguments: dict
    names: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WRONG = {
    "None": None,
    "word": "no such thing",
    "object": object(),
    "list of words": ["a", "b"],
    "ragged list": [[1.0], [1.0, 2.0]],
    "empty list": [],
    "mapping": {"a": "b"},
    "complex number": 1j,
    "half": 2.5,
    "zero": 0,
    "negative": -3,
    "not a number": math.nan,
    "infinite": math.inf,
    "huge integer": 10**400,
    "true": True,
    "array": np.ones((2, 2)),
    "empty tensor": torch.empty(0),
    "no rows": torch.empty(0, 2),
    "0-d": torch.tensor(1.0),
    "3-d": torch.ones(2, 3, 4),
    "NaN tensor": torch.full((4, 2), math.nan),
    "integers": torch.ones(4, 2, dtype=torch.int64),
    "booleans": torch.ones(4, 2, dtype=torch.bool),
    "complex": torch.ones(4, 2, dtype=torch.complex64),
    "meta": torch.ones(4, 2, device="meta"),
    "sparse": torch.eye(4).to_sparse(),
}
# The same numbers: the same answer.
SAME = ("requires grad", "not contiguous", "torch.float32")


def corruptions(value: object) -> Iterator[tuple[str, object]]:
    """Wrong values by kind; for a tensor also itself holding NaN or infinity, in other dtypes, layouts and shapes."""
    yield from WRONG.items()
    if isinstance(value, teachkit.Trajectory):
        yield from paths_like(value)
    if not isinstance(value, torch.Tensor):
        return
    yield "on meta", value.to("meta")
    yield "no rows left", value[:0]
    yield "one axis more", value[None]
    yield "one axis less", value[0] if value.ndim else value
    yield "one row less", value[1:]
    yield "not contiguous", torch.stack([value, value], -1)[..., 0]
    if value.is_floating_point():
        yield "requires grad", value.clone().requires_grad_()
        for name, number in (("NaN", math.nan), ("inf", math.inf), ("-inf", -math.inf)):
            changed = value.clone()
            changed.view(-1)[-1] = number
            yield f"one {name}", changed
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            yield str(dtype), value.to(dtype)
        yield "huge", value * 1e200
        yield "tiny", value * 1e-200
        yield "negated", -value


def paths_like(path: teachkit.Trajectory) -> Iterator[tuple[str, teachkit.Trajectory]]:
    """Trajectories that are in order, and not what most functions expect."""
    change = functools.partial(dataclasses.replace, path)
    yield "final state only", change(x=path.x[-1:], denoised=path.denoised[:0])
    yield "no outputs", change(denoised=path.denoised[:0])
    yield "ends at 0", change(sigmas=torch.cat([path.sigmas[:-1], path.sigmas.new_zeros(1)]))
    yield "two states", change(x=path.x[:2], sigmas=path.sigmas[:2], denoised=path.denoised[:1])
    yield "standing still", change(x=torch.ones_like(path.x), denoised=torch.ones_like(path.denoised))
    yield "one sample", change(x=path.x[:, :1], denoised=path.denoised[:, :1])
    yield "one dimension", change(x=path.x[..., :1], denoised=path.denoised[..., :1])
    yield "huge", change(x=path.x * 1e200, denoised=path.denoised * 1e200)
    yield "requires grad", change(x=path.x.clone().requires_grad_())
    for dtype in (torch.float16, torch.float32):
        yield str(dtype), change(x=path.x.to(dtype), denoised=path.denoised.to(dtype))


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def finite(result: object) -> bool:
    """Whether every number in a result is finite; strings, functions and networks hold none."""
    if isinstance(result, torch.Tensor):
        return not result.is_meta and result.layout == torch.strided and bool(result.isfinite().all())
    if isinstance(result, (float, complex)):
        return math.isfinite(abs(result))
    if isinstance(result, dict):
        return all(map(finite, result.values()))
    if isinstance(result, (list, tuple)):
        return all(map(finite, result))
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return all(finite(getattr(result, field.name)) for field in dataclasses.fields(result))
    return True


def on_meta(result: object) -> bool:
    """Whether a result is of tensors without numbers alone."""
    parts = result if isinstance(result, (list, tuple)) else [result]
    return all(isinstance(part, torch.Tensor) and part.is_meta for part in parts)


def alike(a: object, b: object) -> bool:
    """The same answer, to single precision."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a.detach().double(), b.detach().double(), rtol=2e-3, atol=2e-3)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=2e-3, abs_tol=2e-3)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    if dataclasses.is_dataclass(a) and not isinstance(a, type) and type(a) is type(b):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a == b if isinstance(a, (bool, int, str)) else type(a) is type(b)


def run(call: Call, **changed: object) -> object:
    with warnings.catch_warnings(), time_limit():
        warnings.simplefilter("ignore")
        return call.function(**{**call.arguments, **changed})


def fault(call: Call, name: str, kind: str, value: object, right: object) -> str | None:
    """None where the promise is kept, otherwise what happened."""
    try:
        result = run(call, **{name: value})
    except (ValueError, TypeError, FileNotFoundError) as error:
        said = str(error)
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not last.filename.startswith(PACKAGE) or not (last.line or "").startswith("raise"):
            return f"{type(error).__name__} out of {Path(last.filename).name}:{last.lineno}: {said[:90]}"
        named = any(word in said for word in (name, *call.names.get(name, ())))
        return None if named else f"{type(error).__name__} does not name it: {said[:110]}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} out of {Path(last.filename).name}:{last.lineno}: {str(error)[:90]}"
    if "meta" in kind and on_meta(result):
        return None  # no numbers in, no numbers out
    if not finite(result):
        return f"not finite: {str(result)[:90]}"
    if kind in SAME and not alike(right, result):
        return f"another answer: {str(result)[:90]}"
    return None


def faults(call: Call) -> list[str]:
    """What goes wrong when one argument is."""
    right = run(call)
    assert finite(right), right
    return [
        f"{name} = {kind}: {found}"
        for name, valid in call.arguments.items()
        for kind, value in corruptions(valid)
        if (found := fault(call, name, kind, value, right))
    ]

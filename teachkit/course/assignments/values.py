"""Values as JSON between two processes, and the objects that both of them hold.

Numbers go as they are, the bytes of tensors and arrays in base64, functions as numbers; whatever is not a plain value
arrives as an empty object that bears the name of its type. What a test hands to an answer, and what it gets, is *one*
object on both sides, known by a number; with every message goes what has changed of it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["LIMIT", "Refused", "Values"]

LIMIT = 2**26 // 3 * 4  # bytes of a message: 64 MiB of numbers, three of which become four characters
NUMBERS = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16",
           "float32", "float64")  # fmt: skip
DTYPES = {name: getattr(torch, name) for name in (*NUMBERS, "complex64", "complex128")}


class Refused(Exception):
    """A message that breaks the rules: too large, or malformed."""


class Values:
    """What one side holds of a conversation.

    Parameters
    ----------
    remote : callable
        Makes, of a number and a name, a function that calls the other side's of this number.
    """

    def __init__(self, remote: Callable[[int, str], Callable[..., Any]]) -> None:
        self._remote = remote
        self.functions: list[Callable[..., Any]] = []
        self._shared: list[Any] = []  # what is one object on both sides, under the same number
        self._numbers: dict[int, int] = {}  # id of an object -> its number
        self._stamps: list[Any] = []  # what each held when both sides last agreed on it

    def forget(self) -> None:
        """Forget what was handed over."""
        for kept in (self.functions, self._shared, self._numbers, self._stamps):
            kept.clear()

    def written(self, message: dict[str, Any], shared: bool) -> bytes:
        """A message as text; ``shared`` if what it carries, and what has changed, is to be one object on both sides."""
        known, changes = len(self._shared), list[Any]()
        try:
            for number, value in enumerate(self._shared[:known] if shared else ()):
                if self._stamp(value) != self._stamps[number]:
                    changes.append([number, self._content(value, True, 0)])
            parts = {key: self._encode(part, shared) for key, part in message.items()}
            text = json.dumps({"$": "message", "changes": changes, **parts}).encode()
            if len(text) > LIMIT:
                raise Refused("the value is too large to be handed over")
        except Exception:  # the other side does not come to know of these
            for value in self._shared[known:]:
                del self._numbers[id(value)]
            del self._shared[known:]
            raise
        if shared:
            self._agree([*(number for number, _ in changes), *range(known, len(self._shared))])
        return text

    def read(self, text: bytes) -> dict[str, Any]:
        """The message of a text, with its changes made. Raises Refused if it is none."""
        known = len(self._shared)
        try:
            message = dict(json.loads(text, object_hook=self._decode))
            changes = message["changes"]
            for number, value in changes:
                _become(self._shared[number], value)
            self._agree([*(number for number, _ in changes), *range(known, len(self._shared))])
            return message
        except Exception as error:
            raise Refused(f"a message was malformed ({type(error).__name__})") from error

    def _agree(self, numbers: Sequence[int]) -> None:
        """Note what these objects hold now, when both sides know it."""
        self._stamps += [None] * (len(self._shared) - len(self._stamps))
        for number in numbers:
            self._stamps[number] = self._stamp(self._shared[number])

    def _stamp(self, value: Any) -> Any:
        """What tells whether an object has changed: numbers by a checksum, a list by its elements."""
        if isinstance(value, Tensor) and _plain(value):
            return value.shape, value.dtype, hashlib.blake2b(_bytes(value)).digest()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            return value.shape, value.dtype, hashlib.blake2b(value.tobytes()).digest()
        if isinstance(value, torch.Generator):
            return hashlib.blake2b(_bytes(value.get_state())).digest()
        parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [self._numbers.get(id(v), f"{type(v)} {v!r}" if _scalar(v) else id(v)) for v in parts]

    def _encode(self, value: Any, shared: bool = False, depth: int = 0) -> Any:
        """A value as JSON knows it; all that is no number or text as an object that says its kind, or its number."""
        if depth > 30:
            raise Refused("the value is nested too deeply to be handed over")
        if not shared or _scalar(value):
            return self._content(value, shared, depth)
        if id(value) not in self._numbers:
            content = self._content(value, True, depth)
            self._numbers[id(value)] = len(self._shared)
            self._shared.append(value)
            return {"$": "new", "number": len(self._shared) - 1, "value": content}
        return {"$": "known", "number": self._numbers[id(value)]}

    def _content(self, value: Any, shared: bool, depth: int) -> Any:
        if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
            return value
        if isinstance(value, Tensor) and _plain(value):
            return _packed("tensor", str(value.dtype).removeprefix("torch."), value.shape, _bytes(value))
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return _packed(kind, value.dtype.str, value.shape, value.tobytes())
        if isinstance(value, (list, tuple)):
            items = [self._encode(v, shared, depth + 1) for v in value]
            return items if type(value) is list else {"$": "tuple", "items": items}
        if isinstance(value, dict):
            pairs = [[self._encode(v, shared, depth + 1) for v in pair] for pair in value.items()]
            return {"$": "dict", "items": pairs}
        if isinstance(value, complex):
            return {"$": "complex", "parts": [value.real, value.imag]}
        if value is ...:
            return {"$": "ellipsis"}
        if isinstance(value, torch.Generator):
            return {"$": "generator", "state": self._content(value.get_state(), False, depth)}
        if callable(value):
            self.functions.append(value)
            return {"$": "function", "number": len(self.functions) - 1, "name": getattr(value, "__name__", "function")}
        return {"$": "opaque", "type": type(value).__name__}

    def _decode(self, tree: dict[str, Any]) -> Any:
        """The value of an object of JSON, whose parts have been decoded."""
        kind = tree["$"]
        if kind == "message":
            return tree
        if kind == "new":
            if tree["number"] != len(self._shared):
                raise ValueError("number")
            value = tree["value"]
            self._numbers[id(value)] = len(self._shared)
            self._shared.append(value)
            return value
        if kind == "known":
            return self._shared[tree["number"]]
        if kind == "dict":
            return dict(map(tuple, tree["items"]))
        if kind == "tuple":
            return tuple(tree["items"])
        if kind == "complex":
            return complex(*tree["parts"])
        if kind == "tensor":
            return torch.from_numpy(_unpacked(tree)).view(DTYPES[tree["dtype"]]).reshape(tree["shape"])
        if kind in ("array", "scalar"):
            numeric = np.dtype(str(tree["dtype"]))
            if numeric.kind not in "biufc":
                raise ValueError("dtype")
            array = _unpacked(tree).view(numeric).reshape(tree["shape"])
            return array if kind == "array" else array[()]
        if kind == "ellipsis":
            return ...
        if kind == "generator":
            rng = torch.Generator()
            rng.set_state(tree["state"])
            return rng
        if kind == "function":
            return self._remote(int(tree["number"]), _name(tree["name"]))
        if kind == "opaque":
            return type(_name(tree["type"]), (), {})()
        raise ValueError("kind")


def _scalar(value: Any) -> bool:
    """Whether a value is one that cannot change: no need to know it again."""
    return value is None or value is ... or isinstance(value, (bool, int, float, complex, str, np.generic))


def _plain(tensor: Tensor) -> bool:
    name = str(tensor.dtype).removeprefix("torch.")
    return name in DTYPES and tensor.layout == torch.strided and tensor.device.type != "meta"


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    return plain.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()


def _become(kept: Any, value: Any) -> None:
    """Change an object in place to what the other side has made of it."""
    if isinstance(kept, Tensor):
        with torch.no_grad(), contextlib.suppress(RuntimeError):
            if kept.shape == value.shape:
                kept.copy_(value)
                return
        kept.data = value  # of another shape now, or its numbers lie in one place
    elif isinstance(kept, np.ndarray):
        np.copyto(kept, value)
    elif isinstance(kept, torch.Generator):
        kept.set_state(value.get_state())
    elif isinstance(kept, list):
        kept[:] = value
    else:
        kept.clear()
        kept.update(value)


def _packed(kind: str, dtype: str, shape: Sequence[int], data: bytes) -> dict[str, Any]:
    return {"$": kind, "dtype": dtype, "shape": list(shape), "data": base64.b64encode(data).decode()}


def _unpacked(tree: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(bytearray(base64.b64decode(tree["data"])), np.uint8)


def _name(text: Any) -> str:
    return re.sub(r"\W", "_", str(text))[:60] or "object"

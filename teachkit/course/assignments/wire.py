"""How the process that runs a submission and the one that marks it talk: plain values over a socket, never pickle.

Both sides hold a `Peer`. A message is JSON, with the bytes of tensors and arrays in base64. Functions travel as
numbers: calling one on the other side sends a message back, so a test can hand a denoiser to a student's sampler, and
the student's process never holds the test's code or the values it expects. Whatever is not a plain value arrives as an
empty object that bears the name of its type.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachkit.course.assignments import testing

__all__ = ["Peer", "Refused", "RemoteError", "Stopped"]

Handlers = dict[str, Callable[..., Any]]
LIMIT = 2**26 // 3 * 4  # bytes of a message: 64 MiB of numbers, three of which become four characters
NUMBERS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
DTYPES = {name: getattr(torch, name) for name in (*NUMBERS, "complex64", "complex128")}


class RemoteError(Exception):
    """The other side raised; the text is ``Type: message``."""


class Stopped(Exception):
    """The other side ended, or did not answer in time."""


class Refused(Exception):
    """A message that breaks the rules: too large, or malformed."""


class Peer:
    """One end of the line.

    Parameters
    ----------
    connection : socket.socket
        Connected stream socket.
    handlers : dict
        What the other side may ask for: name of the request -> function of its fields.
    trusting : bool
        Let the other side say which functions are forbidden (`testing.forbid`) during a call.
    """

    def __init__(self, connection: socket.socket, handlers: Handlers, trusting: bool = False) -> None:
        self._socket, self._trusting = connection, trusting
        self._handlers = {**handlers, "call": self._call}
        self._functions: list[Callable[..., Any]] = []
        self.deadline: float | None = None

    def forget(self) -> None:
        """Forget the functions that were handed out."""
        self._functions.clear()

    def request(self, op: str, seconds: float | None = None, **fields: Any) -> Any:
        """Ask the other side, and serve its calls until the answer is there. Raises RemoteError, Stopped or Refused."""
        if seconds is not None:
            self.deadline = time.monotonic() + seconds
        self._send({"op": op, "fields": fields})
        while (message := self._receive()).get("op") != "reply":
            self._answer(message)
        if message.get("error") is not None:
            raise RemoteError(str(message["error"])[:2000])
        return message.get("value")

    def serve(self) -> None:
        """Answer requests until the other side goes away."""
        with contextlib.suppress(Stopped):
            while True:
                self._answer(self._receive())

    def _answer(self, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"op": "reply"}
        try:
            reply["value"] = self._handlers[message["op"]](**message["fields"])
        except (Stopped, Refused):
            raise
        except RemoteError as caught:
            reply["error"] = str(caught)
        except (Exception, SystemExit) as caught:
            reply["error"] = f"{type(caught).__name__}: {_text(caught)}"
        try:
            self._send(reply)
        except Refused as refused:
            self._send({"op": "reply", "error": f"ValueError: {refused}"})

    def _call(self, function: int, args: tuple[Any, ...], kwargs: dict[str, Any], forbidden: list[str]) -> Any:
        if not (isinstance(function, int) and 0 <= function < len(self._functions)):
            raise ValueError("no such function")
        with testing.forbid(*(forbidden if self._trusting else [])):
            return self._functions[function](*args, **kwargs)

    def _send(self, message: dict[str, Any]) -> None:
        text = json.dumps(self._encode(message)).encode()
        if len(text) > LIMIT:
            raise Refused("the value is too large to be handed over")
        with self._in_time():
            self._socket.sendall(len(text).to_bytes(8, "big") + text)

    def _receive(self) -> dict[str, Any]:
        size = int.from_bytes(self._exactly(8), "big")
        if size > LIMIT:
            raise Refused("a message was too large")
        text = self._exactly(size)
        try:
            return dict(json.loads(text, object_hook=self._decode))
        except Exception as error:
            raise Refused(f"a message was malformed ({type(error).__name__})") from error

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            with self._in_time():
                piece = self._socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise Stopped("the process ended")
            data += piece
        return bytes(data)

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """Around one use of the socket: raises Stopped if the deadline passes or the other side has ended."""
        left = None if self.deadline is None else self.deadline - time.monotonic()
        try:
            if left is not None and left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            yield
        except OSError as error:
            raise Stopped("out of time" if isinstance(error, TimeoutError) else "the process ended") from error

    def _encode(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON knows it; all that is no number, text or list as an object that says its kind."""
        if depth > 30:
            raise Refused("the value is nested too deeply to be handed over")
        if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
            return value
        if isinstance(value, Tensor):
            name = str(value.dtype).removeprefix("torch.")
            if name in DTYPES and value.layout == torch.strided and value.device.type != "meta":
                plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
                return _packed("tensor", name, value.shape, plain.view(torch.uint8).numpy())
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
            return _packed("array" if isinstance(value, np.ndarray) else "scalar", value.dtype.str, value.shape, value)
        if isinstance(value, (list, tuple)):
            items = [self._encode(v, depth + 1) for v in value]
            return items if type(value) is list else {"$": "tuple", "items": items}
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {"$": "dict", "items": [[k, self._encode(v, depth + 1)] for k, v in value.items()]}
        if value is ...:
            return {"$": "ellipsis"}
        if isinstance(value, torch.Generator):
            return {"$": "generator", "state": self._encode(value.get_state(), depth + 1)}
        if callable(value):
            self._functions.append(value)
            return {"$": "function", "number": len(self._functions) - 1, "name": getattr(value, "__name__", "function")}
        return {"$": "opaque", "type": type(value).__name__}

    def _decode(self, tree: dict[str, Any]) -> Any:
        """The value of an object of JSON, whose parts have been decoded."""
        kind = tree["$"]
        if kind == "dict":
            return {str(k): v for k, v in tree["items"]}
        if kind == "tuple":
            return tuple(tree["items"])
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

    def _remote(self, number: int, name: str) -> Callable[..., Any]:
        def remote(*args: Any, **kwargs: Any) -> Any:
            return self.request("call", function=number, args=args, kwargs=kwargs, forbidden=testing.forbidden())

        remote.__name__ = remote.__qualname__ = name
        return remote


def _packed(kind: str, dtype: str, shape: Sequence[int], data: np.ndarray | np.generic) -> dict[str, Any]:
    return {"$": kind, "dtype": dtype, "shape": list(shape), "data": base64.b64encode(data.tobytes()).decode()}


def _unpacked(tree: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(bytearray(base64.b64decode(tree["data"])), np.uint8)


def _name(text: Any) -> str:
    return re.sub(r"\W", "_", str(text))[:60] or "object"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1000]
    except Exception:
        return "(its message could not be shown)"

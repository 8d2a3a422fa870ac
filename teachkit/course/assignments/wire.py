"""How the process that runs a submission and the one that marks it talk: plain values over a socket, never pickle.

Both sides hold a `Peer`. A message is JSON plus raw bytes for tensors and arrays. Functions travel as numbers:
calling one on the other side sends a message back, so a test can hand a denoiser to a student's sampler, and the
student's process never holds the test's code or the values it expects. Whatever is not a plain value arrives as an
empty object that bears the name of its type.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachkit.course.assignments import testing

__all__ = ["Peer", "Refused", "RemoteError", "Stopped"]

Handlers = dict[str, Callable[..., Any]]
LIMIT = 2**26  # bytes of a message
DTYPES = {
    str(t).removeprefix("torch."): t
    for t in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


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
        blobs: list[bytes] = []
        text = json.dumps({"tree": self._encode(message, blobs, 0), "sizes": [*map(len, blobs)]}).encode()
        if len(text) + sum(map(len, blobs)) > LIMIT:
            raise Refused("the value is too large to be handed over")
        with self._in_time():
            self._socket.sendall(len(text).to_bytes(8, "big") + text + b"".join(blobs))

    def _receive(self) -> dict[str, Any]:
        size = int.from_bytes(self._exactly(8), "big")
        if size > LIMIT:
            raise Refused("a message was too large")
        try:
            head = json.loads(self._exactly(size))
            sizes = [int(n) for n in head["sizes"]]
            if min(sizes, default=0) < 0 or sum(sizes) + size > LIMIT:
                raise ValueError("sizes")
            message = self._decode(head["tree"], [self._exactly(n) for n in sizes])
            if not isinstance(message, dict):
                raise ValueError("message")
        except Stopped:
            raise
        except Exception as error:
            raise Refused(f"a message was malformed ({type(error).__name__})") from error
        return message

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

    def _encode(self, value: Any, blobs: list[bytes], depth: int) -> Any:
        if depth > 30:
            raise Refused("the value is nested too deeply to be handed over")
        if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
            return value
        if isinstance(value, Tensor):
            name = str(value.dtype).removeprefix("torch.")
            if name in DTYPES and value.layout == torch.strided and value.device.type != "meta":
                plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
                blobs.append(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
                return {"$": "tensor", "dtype": name, "shape": list(value.shape), "blob": len(blobs) - 1}
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
            blobs.append(np.ascontiguousarray(value).tobytes())
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return {"$": kind, "dtype": value.dtype.str, "shape": list(value.shape), "blob": len(blobs) - 1}
        if isinstance(value, (list, tuple)):
            items = [self._encode(v, blobs, depth + 1) for v in value]
            return items if type(value) is list else {"$": "tuple", "items": items}
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {"$": "dict", "items": [[k, self._encode(v, blobs, depth + 1)] for k, v in value.items()]}
        if value is ...:
            return {"$": "ellipsis"}
        if isinstance(value, torch.Generator):
            return {"$": "generator", "state": self._encode(value.get_state(), blobs, depth + 1)}
        if callable(value):
            self._functions.append(value)
            return {"$": "function", "number": len(self._functions) - 1, "name": getattr(value, "__name__", "function")}
        return {"$": "opaque", "type": type(value).__name__}

    def _decode(self, tree: Any, blobs: list[bytes]) -> Any:
        if isinstance(tree, list):
            return [self._decode(v, blobs) for v in tree]
        if not isinstance(tree, dict):
            return tree
        kind = tree["$"]
        if kind == "dict":
            return {str(k): self._decode(v, blobs) for k, v in tree["items"]}
        if kind == "tuple":
            return tuple(self._decode(v, blobs) for v in tree["items"])
        if kind == "tensor":
            shape, dtype = [int(n) for n in tree["shape"]], DTYPES[tree["dtype"]]
            data = bytearray(blobs[tree["blob"]])
            return (torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)).reshape(shape)
        if kind in ("array", "scalar"):
            numeric = np.dtype(str(tree["dtype"]))
            if numeric.kind not in "biufc":
                raise ValueError("dtype")
            array = np.frombuffer(bytearray(blobs[tree["blob"]]), numeric).reshape([int(n) for n in tree["shape"]])
            return array if kind == "array" else array[()]
        if kind == "ellipsis":
            return ...
        if kind == "generator":
            rng = torch.Generator()
            rng.set_state(self._decode(tree["state"], blobs))
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


def _name(text: Any) -> str:
    return re.sub(r"\W", "_", str(text))[:60] or "object"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1000]
    except Exception:
        return "(its message could not be shown)"

"""How the process that runs a submission and the one that marks it talk: plain values over a socket, never pickle.

Both sides hold a `Peer`. A message is JSON (`teachkit.course.assignments.values`). Calling a function of the other side
sends a message back, so a test can hand a denoiser to a student's sampler, and the student's process never holds the
test's code or the values it expects.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from teachkit.course.assignments import testing
from teachkit.course.assignments.values import LIMIT, Refused, Values

__all__ = ["Peer", "RemoteError", "Stopped"]

Handlers = dict[str, Callable[..., Any]]


class RemoteError(Exception):
    """The other side raised; the text is ``Type: message``."""


class Stopped(Exception):
    """The other side ended, or did not answer in time."""


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
        self._values = Values(self._remote)
        self._handlers: Handlers = {**handlers, "call": self._call, "forget": self._values.forget}
        self.deadline: float | None = None

    def forget(self) -> None:
        """Forget, on both sides, functions and objects that were handed over. Raises as `request` does."""
        self._values.forget()
        self.request("forget")

    def request(self, op: str, seconds: float | None = None, **fields: Any) -> Any:
        """Ask the other side, and serve its calls until the answer is there. Raises RemoteError, Stopped or Refused."""
        if seconds is not None:
            self.deadline = time.monotonic() + seconds
        self._send({"op": op, "fields": fields}, shared=op == "call" and not self._trusting)
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
            self._send(reply, shared=message["op"] == "call" and self._trusting)
        except Stopped:
            raise
        except Exception as refused:
            self._send({"op": "reply", "error": f"ValueError: {_text(refused)}"})

    def _call(self, function: int, args: tuple[Any, ...], kwargs: dict[str, Any], forbidden: list[str]) -> Any:
        if not (isinstance(function, int) and 0 <= function < len(self._values.functions)):
            raise ValueError("no such function")
        with testing.forbid(*(forbidden if self._trusting else [])):
            return self._values.functions[function](*args, **kwargs)

    def _send(self, message: dict[str, Any], shared: bool = False) -> None:
        text = self._values.written(message, shared)
        with self._in_time():
            self._socket.sendall(len(text).to_bytes(8, "big") + text)

    def _receive(self) -> dict[str, Any]:
        size = int.from_bytes(self._exactly(8), "big")
        if size > LIMIT:
            raise Refused("a message was too large")
        return self._values.read(self._exactly(size))

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

    def _remote(self, number: int, name: str) -> Callable[..., Any]:
        def remote(*args: Any, **kwargs: Any) -> Any:
            return self.request("call", function=number, args=args, kwargs=kwargs, forbidden=testing.forbidden())

        remote.__name__ = remote.__qualname__ = name
        return remote


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1000]
    except Exception:
        return "(its message could not be shown)"

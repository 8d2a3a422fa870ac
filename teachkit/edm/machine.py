"""A stack machine for pickles that calls nothing: it builds plain values and answers from a table.

A pickle is a program: push a number, make a list of what lies above the mark, call this function.  This machine knows
the opcodes that snapshots use (they are documented in Python's ``pickletools``); where the program asks for a function
it answers from the table it was given, keys are plain strings or integers, no object is copied, and nothing recurses.
:mod:`teachkit.edm.unpickling` writes the tables.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from .errors import CorruptCheckpointError, OversizedCheckpointError, UnsafePickleError

Meanings = Mapping[tuple[str, str], Any]

_MARK = object()


@dataclass
class Record:
    """What is left of an object: the name of its class and its state."""

    class_name: str
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Global:
    """A name the pickle asked for; it stands for an entry of the table and nothing else."""

    module: str
    name: str


@dataclass(frozen=True)
class NumberType:
    """The code of a number type of numpy."""

    code: str


class Stream:
    """``read`` and ``readline`` over a memoryview: never more than is there, whatever length is asked for."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.position = data, 0

    def read(self, count: int) -> bytes:
        chunk = bytes(self.data[self.position : self.position + max(count, 0)])
        self.position += len(chunk)
        return chunk

    def readline(self) -> bytes:
        rest = bytes(self.data[self.position : self.position + 4096])
        line = rest[: rest.find(b"\n") + 1] or rest
        self.position += len(line)
        return line

    def tell(self) -> int:
        return self.position


_PUSH = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_EMPTY: dict[str, Callable[[], Any]] = {
    **{"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set},
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: _MARK},
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def run(stream: Stream, meanings: Meanings, persistent: Callable[[Any], Any] | None = None) -> tuple[Any, list[Any]]:
    """Run one pickle program to its end.

    Parameters
    ----------
    stream : Stream
        Where the program begins; it is left behind the program's last byte.
    meanings : mapping
        For each (module, name) that the program may ask for, the harmless function that stands for it.
    persistent : callable, optional
        Makes an object of a persistent id; without it a program that uses one is refused.

    Returns
    -------
    result
        What the program built.
    made : list
        Whatever ``persistent`` made on the way.

    Raises
    ------
    UnsafePickleError
        If it asks for a name or uses an opcode that is not known here.
    CorruptCheckpointError
        If it is damaged.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    made: list[Any] = []

    def to_mark() -> list[Any]:
        for i in range(len(stack) - 1, -1, -1):
            if stack[i] is _MARK:
                items = stack[i + 1 :]
                del stack[i:]
                return items
        raise CorruptCheckpointError("the pickle is damaged: a mark is missing")

    try:
        for name, argument in _operations(stream):
            if name in _PUSH:
                stack.append(argument)
            elif name in _EMPTY:
                stack.append(_EMPTY[name]())
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in _TUPLES:
                count = _TUPLES[name]
                items = stack[-count:]
                if len(items) != count:
                    raise IndexError
                del stack[-count:]
                stack.append(tuple(items))
            elif name == "TUPLE":
                stack.append(tuple(to_mark()))
            elif name == "LIST":
                stack.append(to_mark())
            elif name == "DICT":
                items = to_mark()
                stack.append({})
                _set_items(stack[-1], items)
            elif name in ("APPEND", "SETITEM"):
                count = 1 if name == "APPEND" else 2
                items = stack[-count:]
                del stack[-count:]
                (_extend if name == "APPEND" else _set_items)(stack[-1], items)
            elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
                items = to_mark()
                {"APPENDS": _extend, "SETITEMS": _set_items, "ADDITEMS": _add_items}[name](stack[-1], items)
            elif name in ("GLOBAL", "STACK_GLOBAL", "INST"):
                if name == "STACK_GLOBAL":
                    module, attribute = stack[-2:]
                    del stack[-2:]
                else:
                    module, _, attribute = argument.partition(" ")
                stack.append(_permitted(module, attribute, meanings))
                if name == "INST":
                    raise CorruptCheckpointError("the pickle uses INST, which snapshots do not")
            elif name in ("REDUCE", "NEWOBJ"):
                arguments, target = stack.pop(), stack.pop()
                if not isinstance(target, Global) or not isinstance(arguments, tuple):
                    raise CorruptCheckpointError("the pickle calls something that is no function")
                stack.append(meanings[target.module, target.name](*arguments))
            elif name == "BUILD":
                state, target = stack.pop(), stack[-1]
                if isinstance(target, Record) and isinstance(state, dict):
                    target.state = state
                elif not isinstance(target, (NumberType, dict)):
                    raise CorruptCheckpointError("the pickle gives state to something that has none")
            elif name == "BINPERSID" and persistent is not None:
                made.append(persistent(stack.pop()))
                stack.append(made[-1])
            elif name in ("POP", "POP_MARK"):
                stack.pop() if name == "POP" else to_mark()
            elif name == "DUP":
                stack.append(stack[-1])
            elif name == "STOP":
                return stack.pop(), made
            elif name not in ("PROTO", "FRAME"):
                raise UnsafePickleError(f"the pickle uses {name}, which snapshots do not")
    except (CorruptCheckpointError, UnsafePickleError, OversizedCheckpointError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise CorruptCheckpointError(f"the pickle is damaged ({type(error).__name__})") from None
    raise CorruptCheckpointError("the pickle ends too early")


def _operations(stream: Stream) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], stream)):
            yield opcode.name, argument
    except (ValueError, OverflowError, MemoryError, struct.error, AssertionError) as error:
        raise CorruptCheckpointError(f"no pickle, or a truncated or damaged one: {error}"[:200]) from None


def _permitted(module: Any, name: Any, meanings: Meanings) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise CorruptCheckpointError("the pickle asks for a function whose name is no string")
    if (module, name) not in meanings:
        raise UnsafePickleError(
            f"the pickle asks for {module[:80]}.{name[:80]}, which a snapshot of weights does not need; nothing was run"
        )
    return Global(module, name)


def checked_key(key: Any) -> Any:
    # Only keys that hash at once: a nest of tuples can take longer than the age of the universe.
    if type(key) not in (str, int, bool, type(None)):
        raise CorruptCheckpointError(f"the pickle uses a {type(key).__name__} as a key")
    return key


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise CorruptCheckpointError("the pickle sets items of something that is no dictionary")
    for key, value in zip(items[::2], items[1::2]):
        target[checked_key(key)] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise CorruptCheckpointError("the pickle appends to something that is no list")
    target.extend(items)


def _add_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, set):
        raise CorruptCheckpointError("the pickle adds to something that is no set")
    target.update(checked_key(item) for item in items)

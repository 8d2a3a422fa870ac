"""Python's own reader of pickles with everything taken out that runs code, or takes more time or memory than the file.

A pickle is a program: push a number, make a list of what lies above the mark, call this function.  `run` leaves the
opcodes for plain values as :class:`pickle.Unpickler` has them, in its Python version, where each is a method that can
be replaced; those that call, fill or set something are written anew here, and all others are refused.  Where the
program asks for a function it gets a :class:`Global`, which stands for an entry of a table and can neither be called
nor changed.  :mod:`teachkit.edm.unpickling` writes the tables.

A ``find_class`` that knows ten names, which is all that the documented reader (written in C) lets one replace, is not
enough.  Tried with Python 3.11 and torch 2.14, and kept in ``tests/test_edm_pickle_machine.py``:

- eight bytes that put something into the memo under the number 2^31 take 32 GB;
- a nest of sixty tuples as a key of a dictionary (180 bytes) takes 2^60 steps to hash;
- an extension code that the program has used before is answered from a cache, without asking ``find_class``;
- BUILD sets attributes of whatever ``find_class`` returned, so of the reader's own functions.

``torch.load(weights_only=True)`` on the storages within has the second of these too, and unpacks a compressed
storage to a thousand times its size.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, ClassVar

from .errors import CheckpointError, CorruptCheckpointError, UnsafePickleError

Meanings = Mapping[tuple[str, str], Any]
File = IO[bytes] | mmap.mmap


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


def run(file: File, meanings: Meanings, persistent: Callable[[Any], Any] | None = None) -> tuple[Any, list[Any]]:
    """Run one pickle program to its end.

    Parameters
    ----------
    file : binary file or memory map
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
    reader = _Reader(file, meanings, persistent)
    try:
        return reader.load(), reader.made
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged program brings about
        reason = f"{type(error).__name__}: {error}"[:150]
        raise CorruptCheckpointError(f"no pickle, or a truncated or damaged one ({reason})") from None


def checked_key(key: Any) -> Any:
    # Only keys that hash at once: a nest of tuples can take longer than the age of the universe.
    if type(key) not in (str, int, bool, type(None)):
        raise CorruptCheckpointError(f"the pickle uses a {type(key).__name__} as a key")
    return key


class _Reader(pickle._Unpickler):
    # Of the reader that this one is made from:
    dispatch: ClassVar[dict[int, Any]]  # what is done for each opcode, below
    stack: list[Any]  # what lies above the last mark
    append: Callable[[Any], None]  # to the stack
    pop_mark: Callable[[], list[Any]]  # takes all that lies above the last mark

    def __init__(self, file: File, meanings: Meanings, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(file, encoding="latin-1")
        self.meanings, self.persistent, self.made = meanings, persistent, list[Any]()

    def find_class(self, module: Any, name: Any) -> Any:
        if (module, name) not in self.meanings:
            raise UnsafePickleError(
                f"the pickle asks for {module[:80]}.{name[:80]}, which a snapshot of weights does not need; "
                "nothing was run"
            )
        return Global(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise UnsafePickleError("the pickle uses BINPERSID, which snapshots do not")
        self.made.append(self.persistent(pid))
        return self.made[-1]

    def call(self) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise CorruptCheckpointError("the pickle calls something that is no function")
        self.append(self.meanings[target.module, target.name](*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record) and isinstance(state, dict):
            target.state = state
        elif not isinstance(target, (NumberType, dict)):
            raise CorruptCheckpointError("the pickle gives state to something that has none")

    def dictionary(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(items)

    def set_items(self, items: list[Any] | None = None) -> None:
        items = self.pop_mark() if items is None else items
        if not isinstance(self.stack[-1], dict) or len(items) % 2:
            raise CorruptCheckpointError("the pickle sets items of something that is no dictionary")
        self.stack[-1].update((checked_key(key), value) for key, value in zip(items[::2], items[1::2]))

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def add_items(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise CorruptCheckpointError("the pickle adds to something that is no set")
        self.stack[-1].update(map(checked_key, items))


_KEPT = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "EMPTY_SET"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"),
    *("GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "BINPERSID"),
}
_ANEW = {
    **{"REDUCE": _Reader.call, "NEWOBJ": _Reader.call, "BUILD": _Reader.build, "DICT": _Reader.dictionary},
    **{"SETITEM": _Reader.set_item, "SETITEMS": _Reader.set_items, "ADDITEMS": _Reader.add_items},
}


def _refusal(name: str) -> Callable[[_Reader], None]:
    def refuse(reader: _Reader) -> None:
        raise UnsafePickleError(f"the pickle uses {name}, which snapshots do not")

    return refuse


_Reader.dispatch = {ord(op.code): _ANEW.get(op.name, _refusal(op.name)) for op in pickletools.opcodes} | {
    ord(op.code): pickle._Unpickler.dispatch[ord(op.code)] for op in pickletools.opcodes if op.name in _KEPT
}

"""Reading a published snapshot without running anything in it.

A pickle is a program for a small stack machine, and the standard machine can call any function on the computer.
The one here cannot: it builds numbers, strings, lists and dictionaries, and where the program asks for a function it
answers from a table of ten names (:data:`MEANINGS`), none of which is looked up, imported or called.  A persistent
class becomes a :class:`Record` of its name and state, a tensor a :class:`TensorRecord` of its bytes; the source text
that such files carry stays a string.  Everything is bounded by the size of the file: keys are plain strings or
integers, no object is copied, and nothing recurses.

Used by :mod:`teachkit.edm.checkpoints`.  The opcodes are documented in Python's ``pickletools``; the nested format of
the weights is that of ``torch.save`` before and after version 1.6.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

import torch
from torch import Tensor

from .errors import CorruptCheckpointError, OversizedCheckpointError, UnsafePickleError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # opens every torch.save file of the format before 1.6
LEGACY_PROTOCOL = 1001
DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
NUMPY_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}

_MARK = object()


@dataclass
class Record:
    """What is left of an object: the name of its class and its state."""

    class_name: str
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class StorageRecord:
    """The bytes of one block of numbers."""

    data: memoryview
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """Number of elements."""
        return len(self.data) // self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A view of a storage, checked to lie inside it and to be dense."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """The tensor itself, in memory of its own."""
        dtype, elements = self.storage.dtype, math.prod(self.size)
        if not elements:
            return torch.empty(self.size, dtype=dtype)
        start = self.offset * dtype.itemsize
        flat = torch.frombuffer(bytearray(self.storage.data[start : start + elements * dtype.itemsize]), dtype=dtype)
        return flat.as_strided(self.size, self.stride)


@dataclass(frozen=True)
class _Global:
    """A name the pickle asked for; it stands for an entry of :data:`MEANINGS` and nothing else."""

    module: str
    name: str


@dataclass(frozen=True)
class _Dtype:
    code: str


def read(data: memoryview) -> Any:
    """Run the pickle program in ``data`` on the restricted machine and return what it built.

    Raises
    ------
    UnsafePickleError
        If it asks for a function or class not in :data:`MEANINGS`, by name.
    CorruptCheckpointError, OversizedCheckpointError
        If it is damaged, or claims more numbers than it holds.
    """
    parsed: dict[int, tuple[Any, StorageRecord]] = {}

    def storage_once(raw: Any) -> StorageRecord:  # a file that names one storage a million times costs one parse
        if id(raw) not in parsed:
            parsed[id(raw)] = raw, _storage(raw)
        return parsed[id(raw)][1]

    return _run(_Stream(data), {**MEANINGS, ("torch.storage", "_load_from_bytes"): storage_once})[0]


class _Stream:
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


def _operations(stream: _Stream) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], stream)):
            yield opcode.name, argument
    except (ValueError, OverflowError, MemoryError, struct.error, AssertionError) as error:
        raise CorruptCheckpointError(f"no pickle, or a truncated or damaged one: {error}"[:200]) from None


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


def _run(
    stream: _Stream, meanings: dict[tuple[str, str], Any], persistent: Callable[[Any], Any] | None = None
) -> tuple[Any, list[Any]]:
    """The stack machine.  Returns the result and whatever ``persistent`` made on the way."""
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
                if not isinstance(target, _Global) or not isinstance(arguments, tuple):
                    raise CorruptCheckpointError("the pickle calls something that is no function")
                stack.append(meanings[target.module, target.name](*arguments))
            elif name == "BUILD":
                state, target = stack.pop(), stack[-1]
                if isinstance(target, Record) and isinstance(state, dict):
                    target.state = state
                elif not isinstance(target, (_Dtype, dict)):
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


def _permitted(module: Any, name: Any, meanings: dict[tuple[str, str], Any]) -> _Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise CorruptCheckpointError("the pickle asks for a function whose name is no string")
    if (module, name) not in meanings:
        raise UnsafePickleError(
            f"the pickle asks for {module[:80]}.{name[:80]}, which a snapshot of weights does not need; nothing was run"
        )
    return _Global(module, name)


def _checked_key(key: Any) -> Any:
    # Only keys that hash at once: a nest of tuples can take longer than the age of the universe.
    if type(key) not in (str, int, bool, type(None)):
        raise CorruptCheckpointError(f"the pickle uses a {type(key).__name__} as a key")
    return key


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise CorruptCheckpointError("the pickle sets items of something that is no dictionary")
    for key, value in zip(items[::2], items[1::2]):
        target[_checked_key(key)] = value


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise CorruptCheckpointError("the pickle appends to something that is no list")
    target.extend(items)


def _add_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, set):
        raise CorruptCheckpointError("the pickle adds to something that is no set")
    target.update(_checked_key(item) for item in items)


# What the permitted names mean.  None of these functions is the one of that name: they only keep what they are given.


def _ordered_dict() -> dict[Any, Any]:
    return {}


def _set(items: Any = ()) -> set[Any]:
    if len(items) > 1000:
        raise CorruptCheckpointError("the pickle makes a set that is too large")
    return {_checked_key(item) for item in items}


def _persistent_object(meta: Any) -> Record:
    class_name, state = meta["class_name"], meta["state"]
    if not isinstance(class_name, str) or not isinstance(state, dict):
        raise CorruptCheckpointError("a persistent object has no name or no state")
    return Record(class_name, state)


def _dtype(code: Any, *_: Any) -> _Dtype:
    return _Dtype(str(code) if isinstance(code, str) else "")


def _numpy_scalar(dtype: Any, data: Any = b"") -> Any:
    layout = NUMPY_SCALARS.get(dtype.code) if isinstance(dtype, _Dtype) else None
    return struct.unpack(layout, data)[0] if layout else None


def _parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, TensorRecord):
        raise CorruptCheckpointError("a parameter is no tensor")
    return data


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    if not isinstance(storage, StorageRecord) or len(size) != len(stride) or len(size) > 8:
        raise CorruptCheckpointError("a tensor has an impossible layout")
    if any(type(n) is not int or not 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise CorruptCheckpointError("a tensor has an impossible layout")
    elements = math.prod(size)
    if offset + elements > storage.count:
        raise OversizedCheckpointError(f"a tensor claims {elements} elements of a storage of {storage.count}")
    if elements and sum((n - 1) * s for n, s in zip(size, stride)) != elements - 1:
        raise CorruptCheckpointError("a tensor has gaps or holds an element twice")
    return TensorRecord(storage, offset, tuple(size), tuple(stride))


def _storage(data: Any) -> StorageRecord:
    """A storage out of the bytes that torch.save wrote for it: an own pickle, in one of two containers."""
    if not isinstance(data, bytes):
        raise CorruptCheckpointError("a storage has no bytes")
    return _zip_storage(data) if data[:2] == b"PK" else _legacy_storage(memoryview(data))


def _declared(reference: Any) -> tuple[str, torch.dtype, int]:
    """Key, dtype and element count out of a persistent id ('storage', type, key, location, count, ...)."""
    kind, storage_type, key, _, count = reference[:5]
    if kind != "storage" or not isinstance(storage_type, _Global) or not isinstance(key, str):
        raise CorruptCheckpointError("a storage is described wrongly")
    if type(count) is not int or count < 0 or (len(reference) > 5 and reference[5] is not None):
        raise CorruptCheckpointError("a storage is described wrongly")
    return key, DTYPES[storage_type.name], count


def _legacy_storage(data: memoryview) -> StorageRecord:
    stream = _Stream(data)
    header = [_run(stream, {})[0] for _ in range(3)]
    if header[0] != LEGACY_MAGIC or header[1] != LEGACY_PROTOCOL or not isinstance(header[2], dict):
        raise CorruptCheckpointError("a storage does not begin as torch.save begins it")
    if header[2].get("little_endian") is not True:
        raise CorruptCheckpointError("a storage was written on a big-endian machine")
    described, made = _run(stream, STORAGE_TYPES, _declared)
    keys = _run(stream, {})[0]
    if len(made) != 1 or described != made[0] or keys != [described[0]]:
        raise CorruptCheckpointError("a storage file holds something else than one storage")
    _, dtype, count = described
    if stream.read(8) != struct.pack("<q", count):
        raise CorruptCheckpointError("a storage holds another number of elements than it declares")
    body = data[stream.position :]
    if len(body) != count * dtype.itemsize:
        raise CorruptCheckpointError(f"a storage declares {count} elements but holds {len(body)} bytes")
    return StorageRecord(body, dtype)


def _zip_storage(data: bytes) -> StorageRecord:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise OversizedCheckpointError("a storage is compressed, which torch.save never does")
            program = archive.read(members["data.pkl"])
            described, made = _run(_Stream(memoryview(program)), STORAGE_TYPES, _declared)
            if len(made) != 1 or described != made[0]:
                raise CorruptCheckpointError("a storage file holds something else than one storage")
            key, dtype, count = described
            if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
                raise CorruptCheckpointError("a storage was written on a big-endian machine")
            info = members[f"data/{key}"]
            if info.file_size != count * dtype.itemsize or info.file_size > len(data):
                raise CorruptCheckpointError(f"a storage declares {count} elements but holds {info.file_size} bytes")
            return StorageRecord(memoryview(archive.read(info)), dtype)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, struct.error, RuntimeError, UnicodeDecodeError) as error:
        raise CorruptCheckpointError(f"a storage is damaged ({type(error).__name__})") from None


#: Inside a storage: the names of the element types.
STORAGE_TYPES: dict[tuple[str, str], Any] = {("torch", name): None for name in DTYPES}

#: Names a snapshot may ask for, and the harmless function that each stands for here.
MEANINGS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
    ("torch.nn.modules.container", "ModuleDict"): lambda: Record("ModuleDict"),
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): _ordered_dict,
    ("builtins", "set"): _set,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}

"""Reading a published snapshot without running anything in it.

The standard reader of pickles can call any function on the computer.  That of :mod:`teachkit.edm.pickle_machine`
cannot: it builds numbers, strings, lists and dictionaries, and where the program asks for a function it answers from a
table of ten names (:data:`MEANINGS`), none of which is looked up, imported or called.  A persistent class becomes a
:class:`Record` of its name and state, a tensor a :class:`TensorRecord` of its bytes; the source text that such files
carry stays a string.  Everything is bounded by the size of the file.

Used by :mod:`teachkit.edm.checkpoints`.  The nested format of the weights is that of ``torch.save`` before and after
version 1.6.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import CorruptCheckpointError, OversizedCheckpointError
from .pickle_machine import File, Global, NumberType, Record, checked_key, run

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


def read(file: File) -> Any:
    """Run the pickle program in ``file`` on the restricted reader and return what it built.

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

    return run(file, {**MEANINGS, ("torch.storage", "_load_from_bytes"): storage_once})[0]


# What the permitted names mean.  None of these functions is the one of that name: they only keep what they are given.


def _set(items: Any = ()) -> set[Any]:
    if len(items) > 1000:
        raise CorruptCheckpointError("the pickle makes a set that is too large")
    return {checked_key(item) for item in items}


def _persistent_object(meta: Any) -> Record:
    class_name, state = meta["class_name"], meta["state"]
    if not isinstance(class_name, str) or not isinstance(state, dict):
        raise CorruptCheckpointError("a persistent object has no name or no state")
    return Record(class_name, state)


def _dtype(code: Any, *_: Any) -> NumberType:
    return NumberType(str(code) if isinstance(code, str) else "")


def _numpy_scalar(dtype: Any, data: Any = b"") -> Any:
    layout = NUMPY_SCALARS.get(dtype.code) if isinstance(dtype, NumberType) else None
    return struct.unpack(layout, data)[0] if layout else None


def _parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, TensorRecord):
        raise CorruptCheckpointError("a parameter is no tensor")
    return data


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    possible = all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride))
    if not possible or not isinstance(storage, StorageRecord) or len(size) != len(stride) or len(size) > 8:
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
    return _zip_storage(data) if data[:2] == b"PK" else _legacy_storage(data)


def _declared(reference: Any) -> tuple[str, torch.dtype, int]:
    """Key, dtype and element count out of a persistent id ('storage', type, key, location, count, ...)."""
    kind, storage_type, key, _, count, *view = reference
    named = kind == "storage" and isinstance(storage_type, Global) and isinstance(key, str)
    if not named or type(count) is not int or count < 0 or view not in ([], [None]):
        raise CorruptCheckpointError("a storage is described wrongly")
    return key, DTYPES[storage_type.name], count


def _described(program: File) -> Any:
    """Key, dtype and element count of the one storage that a program describes."""
    described, made = run(program, STORAGE_TYPES, _declared)
    if len(made) != 1 or described != made[0]:
        raise CorruptCheckpointError("a storage file holds something else than one storage")
    return described


def _filled(body: memoryview, dtype: torch.dtype, count: int) -> StorageRecord:
    if len(body) != count * dtype.itemsize:
        raise CorruptCheckpointError(f"a storage declares {count} elements but holds {len(body)} bytes")
    return StorageRecord(body, dtype)


def _legacy_storage(data: bytes) -> StorageRecord:
    stream = io.BytesIO(data)
    magic, protocol, system = (run(stream, {})[0] for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
        raise CorruptCheckpointError("a storage does not begin as torch.save begins it")
    if system.get("little_endian") is not True:
        raise CorruptCheckpointError("a storage was written on a big-endian machine")
    key, dtype, count = _described(stream)
    if run(stream, {})[0] != [key]:
        raise CorruptCheckpointError("a storage file holds something else than one storage")
    if stream.read(8) != struct.pack("<q", count):
        raise CorruptCheckpointError("a storage holds another number of elements than it declares")
    return _filled(memoryview(data)[stream.tell() :], dtype, count)


def _zip_storage(data: bytes) -> StorageRecord:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise OversizedCheckpointError("a storage is compressed, which torch.save never does")
            key, dtype, count = _described(io.BytesIO(archive.read(members["data.pkl"])))
            if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
                raise CorruptCheckpointError("a storage was written on a big-endian machine")
            return _filled(memoryview(archive.read(members[f"data/{key}"])), dtype, count)
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
    ("collections", "OrderedDict"): lambda: {},
    ("builtins", "set"): _set,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}

"""Storages and tensors of published snapshots: what torch wrote is read, and what cannot be is refused."""

import io
import pickle
import struct
import zipfile

import pytest
import torch

from teachkit.edm import CorruptCheckpointError, OversizedCheckpointError
from teachkit.edm.unpickling import DTYPES, LEGACY_MAGIC, LEGACY_PROTOCOL, MEANINGS, Record, StorageRecord, read

VALUES = [0.5, -2.0, 3.25]
BYTES = struct.pack("<3f", *VALUES)
storage_of = MEANINGS["torch.storage", "_load_from_bytes"]
tensor_of = MEANINGS["torch._utils", "_rebuild_tensor_v2"]


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def described(*references):
    """A pickle of the persistent ids of storages; several as a tuple."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value[1:] if isinstance(value, tuple) and value[0] is Pickler else None

    buffer, marked = io.BytesIO(), [(Pickler, *reference) for reference in references]
    Pickler(buffer, 2).dump(marked[0] if len(marked) == 1 else marked)
    return buffer.getvalue()


REFERENCE = ("storage", torch.FloatStorage, "0", "cpu", 3)


def legacy(magic=LEGACY_MAGIC, little=True, reference=(*REFERENCE, None), keys=("0",), count=3, body=BYTES):
    """A storage in the format of torch.save before 1.6."""
    head = [magic, LEGACY_PROTOCOL, {"protocol_version": 1001, "little_endian": little, "type_sizes": {}}]
    parts = [*(pickle.dumps(part, 2) for part in head), described(reference), pickle.dumps(list(keys), 2)]
    return b"".join(parts) + struct.pack("<q", count) + body


def zipped(program=None, order=b"little", body=BYTES, compression=zipfile.ZIP_STORED, left_out=()):
    """A storage in the format of torch.save since 1.6."""
    members = {"data.pkl": program or described(REFERENCE), "byteorder": order, "data/0": body}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            if name not in left_out:
                archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [legacy(), zipped(), zipped(left_out=["byteorder"])])
def test_storages_are_read(data):
    record = storage_of(data)
    assert record.count == 3
    assert tensor_of(record, 0, (3,), (1,)).tensor().tolist() == VALUES
    assert tensor_of(record, 1, (1, 2), (2, 1)).tensor().tolist() == [VALUES[1:]]


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("dtype", sorted(DTYPES.values(), key=str))
def test_what_torch_writes_is_read(dtype, new):
    values, buffer = torch.tensor([0, 1, 1, 0, 1, 1]).to(dtype), io.BytesIO()
    torch.save(values.storage(), buffer, _use_new_zipfile_serialization=new)
    assert torch.equal(tensor_of(storage_of(buffer.getvalue()), 0, (2, 3), (3, 1)).tensor(), values.reshape(2, 3))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("text", "no bytes"),
        (legacy(magic=1), "does not begin"),
        (legacy(little=False), "big-endian"),
        (legacy(reference=("module", *REFERENCE[1:])), "described wrongly"),
        (legacy(reference=("storage", "FloatStorage", "0", "cpu", 3)), "described wrongly"),
        (legacy(reference=("storage", torch.FloatStorage, "0", "cpu", -1)), "described wrongly"),
        (legacy(reference=(*REFERENCE, ("view", 0, 1))), "described wrongly"),
        (legacy(keys=["1"]), "something else than one storage"),
        (legacy(count=4), "another number of elements"),
        (legacy(body=BYTES[:-1]), "holds 11 bytes"),
        (legacy()[:-20], "another number of elements"),
        (zipped(order=b"big"), "big-endian"),
        (zipped(body=BYTES[:-4]), "holds 8 bytes"),
        (zipped(program=described(REFERENCE, REFERENCE)), "something else than one storage"),
        (zipped(left_out=["data/0"]), "KeyError"),
        (zipped(left_out=["data.pkl"]), "KeyError"),
        (zipped()[:-30], "BadZipFile"),
    ],
)
def test_damaged_storages_are_refused(data, says):
    with pytest.raises(CorruptCheckpointError, match=says):
        storage_of(data)


def test_a_compressed_storage_is_refused():
    with pytest.raises(OversizedCheckpointError, match="compressed"):
        storage_of(zipped(compression=zipfile.ZIP_DEFLATED))


FLOATS = StorageRecord(memoryview(BYTES), torch.float32)


@pytest.mark.parametrize(
    ("layout", "error", "says"),
    [
        ((None, 0, (3,), (1,)), CorruptCheckpointError, "impossible layout"),
        ((FLOATS, 0, (3,), (1, 1)), CorruptCheckpointError, "impossible layout"),
        ((FLOATS, 0, (1,) * 9, (1,) * 9), CorruptCheckpointError, "impossible layout"),
        ((FLOATS, -1, (3,), (1,)), CorruptCheckpointError, "impossible layout"),
        ((FLOATS, 0, (3.0,), (1,)), CorruptCheckpointError, "impossible layout"),
        ((FLOATS, 0, (True,), (1,)), CorruptCheckpointError, "impossible layout"),
        ((FLOATS, 0, (2**48,), (1,)), CorruptCheckpointError, "impossible layout"),
        ((FLOATS, 1, (3,), (1,)), OversizedCheckpointError, "3 elements of a storage of 3"),
        ((FLOATS, 0, (2**40, 2**40), (0, 0)), OversizedCheckpointError, "claims"),
        ((FLOATS, 0, (2,), (2,)), CorruptCheckpointError, "gaps"),
        ((FLOATS, 0, (3,), (0,)), CorruptCheckpointError, "twice"),
    ],
)
def test_impossible_tensors_are_refused(layout, error, says):
    with pytest.raises(error, match=says):
        tensor_of(*layout)


def test_a_tensor_of_no_elements_keeps_its_shape():
    empty = tensor_of(FLOATS, 3, (0, 4), (4, 1)).tensor()
    assert empty.shape == (0, 4)
    assert empty.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        (("builtins", "set"), (range(1001),), "too large"),
        (("builtins", "set"), ([(1, 2)],), "a tuple as a key"),
        (("torch._utils", "_rebuild_parameter"), ("weights",), "no tensor"),
        (("torch_utils.persistence", "_reconstruct_persistent_obj"), ({"class_name": 1, "state": {}},), "no name"),
        (("torch_utils.persistence", "_reconstruct_persistent_obj"), ({"class_name": "a", "state": []},), "no state"),
    ],
)
def test_wrong_arguments_are_refused(name, arguments, says):
    with pytest.raises(CorruptCheckpointError, match=says):
        MEANINGS[name](*arguments)


def test_a_persistent_object_is_its_name_and_its_state():
    made = MEANINGS["torch_utils.persistence", "_reconstruct_persistent_obj"](
        {"class_name": "Net", "state": {"a": 1}, "module_src": "raise SystemExit", "type": "class", "version": 6}
    )
    assert made == Record("Net", {"a": 1})


def test_one_storage_named_often_is_parsed_once():
    data = legacy()
    program = pickle.dumps([Call(torch.storage._load_from_bytes, data) for _ in range(3)], 4)
    records = read(io.BytesIO(program))
    assert [type(record) for record in records] == [StorageRecord] * 3
    assert records[0] is records[1] is records[2]

"""The pickle machine: plain values come back as they were, and every other program is refused by name."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachkit.edm import CorruptCheckpointError, UnsafePickleError
from teachkit.edm.machine import Record, Stream, run

TABLE = {("shop", "Part"): lambda: Record("Part"), ("shop", "pair"): lambda a, b: (b, a)}

keys = st.text(max_size=5) | st.integers() | st.booleans() | st.none()
plain = st.recursive(
    keys | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


def built(program):
    return run(Stream(memoryview(program)), TABLE)[0]


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back(value, protocol):
    again = built(pickle.dumps(value, protocol))
    assert again == value
    assert repr(again) == repr(value)  # 1, 1.0 and True are equal, but not the same


@given(st.sets(st.text(max_size=5) | st.integers()))
def test_sets_come_back(value):
    assert built(pickle.dumps(value, 4)) == value


def test_one_object_in_two_places_is_one_object():
    inner = [1]
    again = built(pickle.dumps([inner, inner], 2))
    assert again[0] is again[1]


@pytest.mark.parametrize(
    ("program", "value"),
    [
        (b"K\x01K\x020.", 1),  # POP
        (b"K\x01(K\x02K\x031.", 1),  # POP_MARK
        (b"K\x012\x86.", (1, 1)),  # DUP
        (b"cshop\npair\n(K\x01K\x02tR.", (2, 1)),  # a name of the table, called
        (b"cshop\nPart\n)R}X\x01\x00\x00\x00aK\x01sb.", Record("Part", {"a": 1})),
    ],
)
def test_what_a_program_builds(program, value):
    assert built(program) == value


@pytest.mark.parametrize(
    ("program", "error", "says"),
    [
        (b"]K\x01e.", CorruptCheckpointError, "a mark is missing"),
        (b"K\x01\x86.", CorruptCheckpointError, "IndexError"),
        (b"h\x07.", CorruptCheckpointError, "KeyError"),
        (b"K\x01", CorruptCheckpointError, "truncated"),
        (b"", CorruptCheckpointError, "truncated"),
        (b"\xfe.", CorruptCheckpointError, "damaged"),
        (b"(ishop\nPart\n.", CorruptCheckpointError, "INST"),
        (b"\x80\x04K\x01K\x02\x93.", CorruptCheckpointError, "no string"),
        (b"K\x01)R.", CorruptCheckpointError, "no function"),
        (b"cshop\nPart\nK\x01R.", CorruptCheckpointError, "no function"),
        (b"K\x01}b.", CorruptCheckpointError, "has none"),
        (b"\x80\x04](K\x01\x90.", CorruptCheckpointError, "no set"),
        (b"}K\x01a.", CorruptCheckpointError, "no list"),
        (b"]K\x01K\x02s.", CorruptCheckpointError, "no dictionary"),
        (b"}](K\x01K\x02tK\x03s.", CorruptCheckpointError, "no dictionary"),
        (b"})K\x03s.", CorruptCheckpointError, "a tuple as a key"),
        (b"cshop\nPart\n(K\x01tR.", CorruptCheckpointError, "TypeError"),
        (b"cos\nsystem\n.", UnsafePickleError, "os.system"),
        (b"K\x01Q.", UnsafePickleError, "BINPERSID"),
        (b"\x82\x01.", UnsafePickleError, "EXT1"),
    ],
)
def test_every_other_program_is_refused(program, error, says):
    with pytest.raises(error, match=says):
        built(program)


def test_persistent_ids_are_handed_over():
    made = run(Stream(memoryview(b"K\x05QK\x06Q\x86.")), {}, lambda number: 10 * number)
    assert made == ((50, 60), [50, 60])


def test_the_stream_gives_no_more_than_there_is_and_stands_behind_the_program():
    stream = Stream(memoryview(b"K\x01.rest\nmore"))
    assert run(stream, {})[0] == 1
    assert stream.tell() == 3
    assert stream.readline() == b"rest\n"
    assert stream.read(-1) == b""
    assert stream.read(10**12) == b"more"

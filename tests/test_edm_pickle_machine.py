"""The pickle machine: plain values come back as they were, and every other program is refused by name."""

import copyreg
import io
import pickle
import pickletools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachkit.edm import CorruptCheckpointError, UnsafePickleError
from teachkit.edm.pickle_machine import _ANEW, _KEPT, Record, _Reader, run

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
    return run(io.BytesIO(program), TABLE)[0]


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
        (b"]K\x01e.", CorruptCheckpointError, "IndexError"),
        (b"K\x01\x86.", CorruptCheckpointError, "IndexError"),
        (b"h\x07.", CorruptCheckpointError, "Memo value not found"),
        (b"K\x01", CorruptCheckpointError, "truncated"),
        (b"", CorruptCheckpointError, "truncated"),
        (b"\xfe.", CorruptCheckpointError, "damaged"),
        (b"(ishop\nPart\n.", UnsafePickleError, "INST"),
        (b"\x80\x04K\x01K\x02\x93.", CorruptCheckpointError, "requires str"),
        (b"K\x01)R.", CorruptCheckpointError, "no function"),
        (b"cshop\nPart\nK\x01R.", CorruptCheckpointError, "no function"),
        (b"K\x01}b.", CorruptCheckpointError, "has none"),
        (b"\x80\x04](K\x01\x90.", CorruptCheckpointError, "no set"),
        (b"}K\x01a.", CorruptCheckpointError, "no attribute 'append'"),
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
    made = run(io.BytesIO(b"K\x05QK\x06Q\x86."), {}, lambda number: 10 * number)
    assert made == ((50, 60), [50, 60])


def test_the_file_is_left_behind_the_program():
    file = io.BytesIO(b"K\x01.rest")
    assert run(file, {})[0] == 1
    assert file.read() == b"rest"


# What a reader of pickles with a `find_class` of its own, and nothing else, lets through.


@pytest.mark.parametrize("number", [2**31 - 1, 2**32 - 1])
def test_a_large_number_in_the_memo_takes_no_memory(number):
    """The reader written in C makes room for as many entries: 32 GB for these eight bytes."""
    start = time.perf_counter()
    assert built(b"Nr" + number.to_bytes(4, "little") + b".") is None
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("end", [b"Ns.", b"N1}2.", b"\x90."])
def test_a_key_that_takes_for_ever_to_hash_is_not_hashed(end):
    nest = b")" + b"2\x86" * 60
    program = {b"Ns.": b"}" + nest + end, b"N1}2.": b"(" + nest + b"Nd.", b"\x90.": b"\x80\x04\x8f(" + nest + end}[end]
    with pytest.raises(CorruptCheckpointError, match="a tuple as a key"):
        built(program)


def test_what_an_extension_code_stood_for_is_not_given(monkeypatch):
    """It is kept once somebody has used it, and `find_class` is not asked again."""
    monkeypatch.setattr(copyreg, "_extension_cache", {5: print})
    with pytest.raises(UnsafePickleError, match="EXT1"):
        built(b"\x82\x05.")


def test_what_a_name_stands_for_cannot_be_changed():
    for program in (b"cshop\npair\n}X\x01\x00\x00\x00aK\x01sb.", b"cshop\npair\nN}X\x04\x00\x00\x00nameK\x01s\x86b."):
        with pytest.raises(CorruptCheckpointError, match="has none"):
            built(program)


def test_an_opcode_is_kept_written_anew_or_refused():
    """Also one of a later Python: what is not listed is refused, by name."""
    names = {op.name: ord(op.code) for op in pickletools.opcodes}
    assert not _KEPT & _ANEW.keys()
    assert names.keys() >= _KEPT | _ANEW.keys()
    for name in names.keys() - _KEPT - _ANEW.keys():
        with pytest.raises(UnsafePickleError, match=f"uses {name},"):
            _Reader.dispatch[names[name]](None)

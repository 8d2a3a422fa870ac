"""Schedule files and checkpoints that are cut, changed byte by byte, or written to a disk that is full: a named error.

Arrays of pictures and metrics of the wrong kind are refused by name.
"""

import json
import math
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachkit import edm, metrics
from teachkit.course import plots
from teachkit.scheduling import Schedule
from teachkit.scheduling.schedule import FORMAT

LEVELS = torch.tensor([10.0, 3.0, 1.0, 0.1])
TEXT = Schedule(LEVELS, "euler", 3, error=0.1, provenance={"method": "none"}).to_json()
FIELDS = ["format", "sigmas", "solver", "nfe", "options", "error", "provenance"]
JSON_WRONG = [  # each in place of every field
    None, True, -1, 0, 1.5, 1e308, "x", "", [], [[1]], ["a"], {}, {"a": 1}, [1, 2, 3], [3, 2, None], 10**30,
    math.nan, math.inf,
]  # fmt: skip


def read(folder, text):
    path = folder / "found.json"
    path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
    return Schedule.load(path)


def test_a_cut_schedule_file_is_refused(tmp_path):
    for end in range(len(TEXT)):
        with pytest.raises(ValueError, match=r"found\.json"):
            read(tmp_path, TEXT[:end])


@pytest.mark.parametrize("field", FIELDS)
def test_a_schedule_file_with_a_wrong_field_names_file_and_field(tmp_path, field):
    content = json.loads(TEXT)
    with pytest.raises(ValueError, match=rf"found\.json.*{field}"):
        read(tmp_path, json.dumps({k: v for k, v in content.items() if k != field}))
    for wrong in JSON_WRONG:
        try:
            found = read(tmp_path, json.dumps({**content, field: wrong}))
        except ValueError as error:
            assert re.search(rf"found\.json.*{field}", str(error)), (wrong, error)  # noqa: PT017
        else:
            assert field in ("error", "options", "nfe", "provenance", "sigmas"), wrong
            assert math.isnan(found.error) or math.isfinite(found.error)
            assert isinstance(found.nfe, int)
            assert isinstance(found.options, dict)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "", "null", "[]", "[1]", "3", b"\xff\xfe"]
)
def test_a_strange_schedule_file_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"found\.json"):
        read(tmp_path, text)


@given(st.integers(0, len(TEXT) - 1), st.characters(max_codepoint=0x2FF))
@settings(max_examples=150, deadline=None)
def test_a_changed_character_gives_a_schedule_or_a_named_error(tmp_path_factory, at, character):
    try:
        found = read(tmp_path_factory.getbasetemp(), TEXT[:at] + character + TEXT[at + 1 :])
    except ValueError as error:
        assert "found.json" in str(error)  # noqa: PT017
    else:
        assert FORMAT in found.to_json()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    net = edm.EDMPrecond(8, 1, model_channels=4, channel_mult=[1], num_blocks=1, attn_resolutions=[])
    return edm.save(net, tmp_path_factory.mktemp("edm") / "net.safetensors")


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(edm.CheckpointError):
        edm.load(path)


def test_a_changed_byte_of_a_checkpoint_is_found(checkpoint, tmp_path):
    """In the header and in the weights; free text and the recorded dtype decide nothing."""
    whole = bytearray(checkpoint.read_bytes())
    body = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(8), *range(8, body, 37), *range(body, len(whole), max(1, (len(whole) - body) // 25))]:
        data = bytearray(whole)
        data[at] ^= 0x15
        (tmp_path / "net.safetensors").write_bytes(data)
        try:
            edm.load(tmp_path / "net.safetensors")
        except edm.CheckpointError as error:
            assert str(error)  # noqa: PT017
        else:
            assert at < body, f"byte {at} of the weights changed unseen"


def test_a_cut_checkpoint_is_refused(checkpoint, tmp_path):
    whole = checkpoint.read_bytes()
    for end in [*range(12), *range(12, len(whole), len(whole) // 20)]:
        refused(tmp_path / "net.safetensors", whole[:end])


FULL = """
import resource, signal, sys, torch
from teachkit import edm, scheduling
path, limit = sys.argv[1], int(sys.argv[2])
if path.endswith(".json"):
    write = scheduling.Schedule(torch.linspace(9, 0, 900), "euler", 899).save
else:
    net = edm.EDMPrecond(8, 1, model_channels=4, channel_mult=[1], num_blocks=1, attn_resolutions=[])
    write = lambda path: edm.save(net, path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    write(path)
except OSError as error:
    sys.exit(0 if path.split("/")[-1] in str(error) else f"not named: {error}")
sys.exit("written")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("name", ["found.json", "net.safetensors"])
def test_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path, name):
    (tmp_path / name).write_text("the old file")
    command = [sys.executable, "-c", FULL, str(tmp_path / name), "4096"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-600:]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "the old file"


@pytest.mark.parametrize(
    "wrong",
    [None, "word", object(), [[1.0], [1.0, 2.0]], torch.ones(3, 2, device="meta"), torch.ones(3, 2).to_sparse(),
     torch.ones(3, 2, dtype=torch.complex64), torch.full((3, 2), math.nan), torch.empty(0, 2)],
)  # fmt: skip
def test_arrays_of_another_kind_are_refused_by_name(wrong):
    good = torch.ones(3, 2)
    for call in (metrics.sliced_wasserstein, metrics.mmd, metrics.frechet_distance):
        with pytest.raises((ValueError, TypeError), match=r"\ba\b"):
            call(wrong, good)
    with pytest.raises((ValueError, TypeError), match="points"):
        plots.vector_field(wrong, good)
    with pytest.raises((ValueError, TypeError), match="images"):
        plots.image_grid(wrong)

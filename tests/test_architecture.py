"""The picture of the house and its table of rooms are those of the code."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("grimp", reason="the picture needs the extra test: pip install -e '.[test]'")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import architecture  # noqa: E402

AGAIN = "run python tools/architecture.py"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def edges():
    return architecture.needed()


def test_picture_and_table_are_those_of_the_code():
    assert architecture.draw() == architecture.PICTURE.read_text(), AGAIN
    page = architecture.PAGE.read_text()
    assert architecture.page(page) == page, AGAIN
    assert architecture.table() in page


def test_every_room_is_drawn_once_and_has_a_purpose(edges):
    folders = {"adapters"} | {
        path.relative_to(ROOT / "teachkit").as_posix().replace("/", ".").removesuffix(".py")
        for path in (*(ROOT / "teachkit").glob("*"), *(ROOT / "teachkit" / "course").glob("*"))
        if path.name[0] not in "._"
        and path.name != "course"
        and (path / "__init__.py").is_file() | (path.suffix == ".py")
    }
    assert set(edges) == folders
    drawn = [text.text for text in ElementTree.parse(architecture.PICTURE).iter(f"{SVG}text")]
    for name in edges:
        assert drawn.count(name.rpartition(".")[2]) == 1
        assert len(architecture.purpose(name).split()) > 3


def test_no_two_boxes_overlap_and_all_arrows_point_down():
    boxes = [
        tuple(float(rect.get(key)) for key in ("x", "y", "width", "height"))
        for rect in ElementTree.parse(architecture.PICTURE).iter(f"{SVG}rect")
        if rect.get("class") == "room"
    ]
    for k, (x, y, width, height) in enumerate(boxes):
        assert 0 <= x <= architecture.WIDTH - width
        assert not any(abs(x - a) < width and abs(y - b) < height for a, b, *_ in boxes[k + 1 :])
    for path in ElementTree.parse(architecture.PICTURE).iter(f"{SVG}path"):
        if path.get("class") == "arrow":
            first, last = re.findall(r"[\d.]+", path.get("d"))[1], re.findall(r"[\d.]+", path.get("d"))[-1]
            assert float(first) < float(last)


@pytest.mark.slow
def test_it_depends_on_nothing_but_the_code():
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import architecture; print(architecture.draw())"
    seeds = (("0", ROOT), ("1", ROOT / "tests"))
    drawn = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=where, env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed, where in seeds
    }  # fmt: skip
    assert len(drawn) == 1

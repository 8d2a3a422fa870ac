"""The pictures of ``emoji32``: every base emoji of four freely licensed designs, 32 x 32 on white."""

from __future__ import annotations

import io
import json
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pictures import hold_out, on_white, to_linear
from PIL import Image

PACKAGES = {  # name -> npm package and its version
    "noto": ("emoji-datasource-google", "16.0.0"),
    "twemoji": ("emoji-datasource-twitter", "16.0.0"),
    "fluent-3d": ("@lobehub/fluent-emoji-3d", "1.1.0"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6"),
}
CATEGORIES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
# Pictures whose root mean square difference (in linear light) is below this are one picture: 2 % of the range.
SAME = 0.02


def unpack(folder: Path, package: str, version: str) -> Path:
    """Fetch an npm package once, and return the folder of its files."""
    target = folder / f"{package.replace('/', '-').lstrip('@')}-{version}"
    if not (target / "package").is_dir():
        target.mkdir(parents=True, exist_ok=True)
        said = subprocess.run(
            ["npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", str(folder)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        with tarfile.open(folder / said.stdout.split()[-1]) as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def sequence(code: str) -> str:
    """Code points of an emoji without variation selectors: the same for all designs."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def family(code: str) -> str:
    """What an emoji has in common with its variants by gender and direction: they stay on one side of the split."""
    parts = [p for p in code.split("-") if p not in ("200d", "2640", "2642", "27a1")]
    person = ["1f9d1" if p in ("1f468", "1f469") else p for p in parts] or [code]
    return "-".join(person[1:] if person[0] == "1f9d1" and len(person) > 1 else person)


def drawings(folder: Path, design: str, codes: set[str]) -> Iterator[tuple[str, Image.Image]]:
    """All pictures of a design that are among ``codes``, with their code.

    Fluent has no flags of countries; those that one package adds to it come from elsewhere and are left out.
    """
    import resvg_py

    root = unpack(folder, *PACKAGES[design])
    if design == "fluent-3d":
        named = unpack(folder, *PACKAGES["fluent-flat"]) / "chars.json"
        codes = codes & {sequence(code) for code in json.loads(named.read_text())}
    if design == "fluent-flat":
        icons, names = (json.loads((root / f"{part}.json").read_text()) for part in ("icons", "chars"))
        for code, name in sorted(names.items()):
            if sequence(code) in codes and name in icons["icons"]:
                body = icons["icons"][name]["body"]
                svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>'
                drawn = resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256, skip_system_fonts=True)
                yield sequence(code), Image.open(io.BytesIO(bytes(drawn)))
        return
    for file in sorted(root.rglob("*.png" if design != "fluent-3d" else "*.webp")):
        if "sheets" not in str(file) and sequence(file.stem) in codes:
            yield sequence(file.stem), Image.open(file)


def collect(folder: Path) -> dict[str, Any]:
    """Everything that ``emoji32.npz`` holds; pictures that occur twice, or show nothing, are left out."""
    listed = json.loads((unpack(folder, *PACKAGES["noto"]) / "emoji.json").read_text())
    known = {sequence(e["unified"]): e for e in listed if e["category"] in CATEGORIES}
    pictures, codes, designs = [], [], []
    for number, design in enumerate(PACKAGES):
        seen: set[str] = set()
        for code, drawing in drawings(folder, design, set(known)):
            picture = on_white(drawing)
            if code not in seen and picture.std((0, 1)).max() > 2:
                seen.add(code)
                pictures.append(picture), codes.append(code), designs.append(number)
        print(f"{design:12s}{len(seen):6,d} of {len(known):,d} emoji")
    groups = _groups(np.stack(pictures), codes)
    order = hold_out(groups)
    unified = sorted({codes[k] for k in order}, key=lambda code: known[code]["sort_order"])
    return {
        "pictures": np.stack([pictures[k] for k in order]),
        "labels": np.array([CATEGORIES.index(known[codes[k]]["category"]) for k in order], np.uint8),
        "design": np.array([designs[k] for k in order], np.uint8),
        "emoji": np.array([unified.index(codes[k]) for k in order], np.uint16),
        "categories": np.array(CATEGORIES),
        "designs": np.array(list(PACKAGES)),
        "codes": np.array(unified),
        "names": np.array([known[code]["short_name"].replace("_", " ") for code in unified]),
    }


def _groups(pictures: NDArray[np.uint8], codes: list[str]) -> list[list[int]]:
    """Numbers of the pictures that differ from all before them, in groups that belong together, shuffled."""
    flat = to_linear(pictures).reshape(len(pictures), -1).astype(np.float32)
    norms = (flat**2).sum(1)
    leader = {code: family(code) for code in set(codes)}
    kept: list[int] = []
    for start in range(0, len(flat), 512):
        squares = norms[start : start + 512, None] + norms - 2 * flat[start : start + 512] @ flat.T
        for row, near in enumerate(squares < flat.shape[1] * SAME**2):
            number = start + row
            twins = [k for k in np.flatnonzero(near) if k < number]
            for k in twins:
                old, new = leader[codes[number]], leader[codes[k]]
                leader = {code: new if name == old else name for code, name in leader.items()} if old != new else leader
            if not twins:
                kept.append(number)
    groups: dict[str, list[int]] = {}
    for number in kept:
        groups.setdefault(leader[codes[number]], []).append(number)
    return random.Random(0).sample(sorted(groups.values()), len(groups))

"""The pictures of ``photos32``: patches of freely licensed photographs at several scales, 32 x 32.

Every photograph is cut into squares that do not overlap, of several sizes; each square becomes one patch, averaged in
linear light. The held-out patches are those of two photographs, and of no other.
"""

from __future__ import annotations

import random
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pictures import SIDE, average, hold_out, to_linear, to_srgb
from PIL import Image

DEBIAN = ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04")  # packages; their files lie under usr/share/backgrounds
COUNT, HELD_OUT = 5000, 500
MOST = 420  # patches of one photograph
FLAT = 8  # grey levels: squares that vary less, of clear sky or of what is out of focus, are left out


class Photo(NamedTuple):
    """Where a photograph is found, whose it is, and how often a patch of it is shrunk at the most."""

    source: str  # "debian", or the Python package that carries it
    file: str
    author: str
    licence: str
    coarsest: int = 16  # pixels of the photograph for one of the patch, at the coarsest scale


PHOTOS = (
    Photo("debian", "life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo("skimage", "coffee.png", "Rachel Michetti", "CC0-1.0", 2),
    # The two above are held out.
    Photo("debian", "Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", "CC-BY-SA-4.0"),
    Photo("debian", "Dragonfly_by_Bolly.jpg", "Bolly", "CC-BY-SA-4.0"),
    Photo("debian", "Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", "CC-BY-SA-3.0"),
    Photo("debian", "Picture_0B_by_freespace.jpg", "Trevor 'Freespace'", "CC-BY-4.0", 8),
    Photo("debian", "Picture_1A_by_freespace.jpg", "Trevor 'Freespace'", "CC-BY-4.0", 8),
    Photo("debian", "Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0"),
    Photo("debian", "aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo("debian", "free_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
    Photo("debian", "friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo("debian", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo("debian", "seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0"),
    Photo("debian", "sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo("sklearn", "china.jpg", "danielbuechele", "CC-BY-2.0", 2),
    Photo("sklearn", "flower.jpg", "vultilion", "CC-BY-2.0", 2),
    Photo("skimage", "astronaut.png", "NASA", "public domain", 2),
    Photo("skimage", "chelsea.png", "Stefan van der Walt", "CC0-1.0", 2),
    Photo("skimage", "rocket.jpg", "SpaceX", "CC0-1.0", 2),
)


def find(folder: Path, photo: Photo) -> Path:
    """Path of a photograph; Debian's packages are fetched once."""
    if photo.source != "debian":
        place = {"skimage": "skimage.data", "sklearn": "sklearn.datasets.images"}[photo.source]
        return Path(str(resources.files(place) / photo.file))
    for package in DEBIAN:
        target = folder / package
        if not target.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
            (archive,) = folder.glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", str(archive), str(target)], check=True)
        if (file := target / "usr/share/backgrounds" / photo.file).is_file():
            return file
    raise FileNotFoundError(f"{photo.file} is in none of {', '.join(DEBIAN)}")


def patches(light: NDArray[np.float64], coarsest: int, rng: random.Random) -> list[NDArray[np.uint8]]:
    """Squares of a photograph that do not overlap, each averaged to 32 x 32, the coarsest scale first.

    A square of the coarsest scale is kept whole with probability 1/4, or else quartered and its parts treated alike;
    at the finest scale, an eighth of the coarsest or a pixel for a pixel, all are kept.
    """
    side, finest = SIDE * coarsest, max(1, coarsest // 8)
    found: list[tuple[int, NDArray[np.uint8]]] = []

    def cut(top: int, left: int, factor: int) -> None:
        size = SIDE * factor
        if factor == finest or rng.random() < 0.25:
            patch = to_srgb(average(light[top : top + size, left : left + size], factor))
            if patch.std((0, 1)).max() > FLAT:
                found.append((factor, patch))
        else:
            for down, right in ((0, 0), (0, size // 2), (size // 2, 0), (size // 2, size // 2)):
                cut(top + down, left + right, factor // 2)

    for top in range(0, light.shape[0] - side + 1, side):
        for left in range(0, light.shape[1] - side + 1, side):
            cut(top, left, coarsest)
    rng.shuffle(found)
    return [patch for _, patch in sorted(found, key=lambda pair: -pair[0])]


def collect(folder: Path) -> dict[str, Any]:
    """Everything that ``photos32.npz`` holds."""
    rng, parts = random.Random(0), []
    for number, photo in enumerate(PHOTOS):
        with Image.open(find(folder, photo)) as picture:
            light = to_linear(np.asarray(picture.convert("RGB")))
        found = patches(light, photo.coarsest, rng)[:MOST]
        parts.append([(p, number) for p in found])
        print(f"{photo.file:45s}{len(found):5d} patches")
    held, rest = parts[0] + parts[1], [pair for part in parts[2:] for pair in part]
    chosen = rng.sample(held, HELD_OUT) + rng.sample(rest, COUNT - HELD_OUT)
    order = hold_out([list(range(HELD_OUT)), *([k] for k in range(HELD_OUT, COUNT))])
    return {
        "pictures": np.stack([chosen[k][0] for k in order]),
        "labels": np.array([chosen[k][1] for k in order], np.uint8),
        "photos": np.array([Path(photo.file).stem for photo in PHOTOS]),
        "authors": np.array([photo.author for photo in PHOTOS]),
        "licences": np.array([photo.licence for photo in PHOTOS]),
    }

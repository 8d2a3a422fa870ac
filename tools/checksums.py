"""The list of checksums in data/, by which the files that ship are told from damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

from teachkit.files import checksum, write_whole


def record(path: Path) -> None:
    """Put the SHA-256 of a file into checksums.json beside it."""
    listed = path.parent / "checksums.json"
    checksums = (json.loads(listed.read_text()) if listed.exists() else {}) | {path.name: checksum(path)}
    write_whole(listed, lambda beside: beside.write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n"))

"""Files that are whole or absent, also when a run is killed or the disk is full."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from teachkit.checks import function
from teachkit.checks import path as checked_path

__all__ = ["write_whole"]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside ``path``, then rename it: whole or absent, and the old one stays until then.

    Two processes may do so at once.

    Parameters
    ----------
    path : Path
        The file in the end.
    write : callable
        Gets the path to write, which ends like ``path``.
    """
    function("write", write, "write(path)")
    path = checked_path("path", path)
    if not path.name:
        raise ValueError(f"path must name a file, got {str(path)!r}")
    beside = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        beside.touch()
        mode = beside.stat().st_mode  # that of any new file here; safetensors would keep its files to their owner
        write(beside)
        beside.chmod(mode)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)

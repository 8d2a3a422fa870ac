"""Files that are whole or absent, also after a kill or on a full disk; checksums, locks, and where files are kept."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from teachkit.checks import batch, function, installed, integer
from teachkit.checks import path as checked_path

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what such file systems say

__all__ = ["cache_directory", "checksum", "held", "home", "write_images", "write_whole"]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside ``path``, then rename it: whole or absent, and the old one stays until then.

    Two processes may do so at once.

    Parameters
    ----------
    path : Path
        The file in the end.
    write : callable
        Gets the path to write, which ends like ``path``.

    Raises
    ------
    ValueError, TypeError
        For a path without a file's name, or a ``write`` that cannot be called.
    OSError
        If it cannot be written; what was at ``path`` is kept.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_whole(folder / "a.txt", lambda beside: beside.write_text("all of it"))
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
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
        with open(beside, "r+b") as file:
            os.fsync(file.fileno())  # on the disk before it takes the place of the old one
        beside.chmod(mode)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_images(path: Path, images: Tensor, columns: int) -> None:
    """Write images as one picture, row by row; needs torchvision, which ``pip install 'teachkit[course]'`` brings.

    Parameters
    ----------
    path : Path
        The file, which must end in ".png".
    images : Tensor
        ``(B, C, H, W)`` with values from -1 to 1, and C 1 or 3; what lies beyond is cut off.
    columns : int
        Images in a row.

    Raises
    ------
    ModuleNotFoundError
        Without torchvision.
    ValueError, TypeError
        For what is no batch of images, or another ending.

    Examples
    --------
    >>> import torch
    >>> file = Path(tempfile.mkdtemp()) / "two.png"
    >>> write_images(file, torch.zeros(2, 1, 8, 8), columns=2)
    >>> file.read_bytes()[1:4]
    b'PNG'
    """
    utils = installed("torchvision.utils", "a picture of many images")
    columns, path = integer("columns", columns, 1), checked_path("path", path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path.name!r}")
    if batch("images", images).ndim != 4 or not images.numel():
        raise ValueError(f"images must have shape (B, C, H, W), none of them 0, got {tuple(images.shape)}")
    grid = images.detach().float().clamp(-1, 1) / 2 + 0.5
    write_whole(path, lambda beside: utils.save_image(grid, beside, nrow=columns))


def checksum(path: Path) -> str:
    """SHA-256 of the content of a file, which need not fit into memory.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        If it is not there or cannot be read.

    Examples
    --------
    >>> file = Path(tempfile.mkdtemp()) / "empty"
    >>> file.touch()
    >>> checksum(file)[:12]
    'e3b0c44298fc'
    """
    path = checked_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"path must name a file, and there is no {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def held(lock: Path, wait: Callable[[], object] | None = None) -> Iterator[bool]:
    """Hold a lock for the time of a block: of all processes and threads that ask for it, one at a time.

    The lock is on an open file, so a process that was killed holds nothing; the file is gone at the end.

    Parameters
    ----------
    lock : Path
        The file; its folder is made if need be.
    wait : callable, optional
        Is called before waiting for another that holds it. Without, there is no waiting.

    Yields
    ------
    bool
        Whether it is held: False where the system, or the file system, has no locks.

    Raises
    ------
    BlockingIOError
        If another holds it and ``wait`` is None.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> with held(folder / "lock"):
    ...     (folder / "lock").exists()
    True
    >>> (folder / "lock").exists()
    False
    """
    lock = checked_path("lock", lock)
    file = _lock(lock, wait)
    try:
        yield file is not None
    finally:
        if file is not None:
            lock.unlink(missing_ok=True)
            os.close(file)


def _lock(lock: Path, wait: Callable[[], object] | None) -> int | None:
    """The open and locked file; None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # who held it has removed it, or its folder, since
            file = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
            try:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if wait is None:
                        raise
                    wait()
                    fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(lock.stat(), os.fstat(file)):  # what others would open
                    return file
                os.close(file)
            except BaseException as error:
                os.close(file)
                if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                    lock.unlink(missing_ok=True)
                    return None
                raise


def cache_directory(kind: str = "") -> Path:
    """Where teachkit keeps what it downloads and what it has finished, unless it is told otherwise.

    That is ``$TEACHKIT_CACHE``, or ``teachkit`` in the user's cache directory (``$XDG_CACHE_HOME`` or ``~/.cache``).

    Parameters
    ----------
    kind : str
        A folder in it: "evaluations", "claims", "data"; published checkpoints lie in the directory itself.

    Returns
    -------
    Path
        It need not exist yet.

    Examples
    --------
    >>> cache_directory("data").name
    'data'
    >>> cache_directory("data").parent == cache_directory()
    True
    """
    chosen, base = (os.environ.get(name) for name in ("TEACHKIT_CACHE", "XDG_CACHE_HOME"))
    if chosen:
        return checked_path("TEACHKIT_CACHE", chosen) / kind
    return (checked_path("XDG_CACHE_HOME", base) if base else home() / ".cache") / "teachkit" / kind


def home() -> Path:
    """The user's home directory; for a user id without an account, a folder of its own among the temporary files.

    Returns
    -------
    Path
        A directory that exists.

    Raises
    ------
    PermissionError
        If that folder belongs to somebody else.

    Examples
    --------
    >>> home().is_absolute()
    True
    """
    try:
        return Path.home()
    except RuntimeError:
        user = os.getuid()
    folder = Path(tempfile.gettempdir()) / f"teachkit-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != user or not stat.S_ISDIR(found.st_mode):
        raise PermissionError(
            f"user id {user} has no home directory, and {folder} belongs to somebody else: "
            "set HOME or TEACHKIT_CACHE to a folder of your own"
        )
    return folder

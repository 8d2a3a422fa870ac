"""Files that are whole or absent, also after a kill or on a full disk; locks on them; and where they are kept."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from teachkit.checks import function
from teachkit.checks import path as checked_path

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what such file systems say

__all__ = ["cache_directory", "held", "home", "write_whole"]


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
        with open(beside, "r+b") as file:
            os.fsync(file.fileno())  # on the disk before it takes the place of the old one
        beside.chmod(mode)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


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
    """
    chosen, base = (os.environ.get(name) for name in ("TEACHKIT_CACHE", "XDG_CACHE_HOME"))
    if chosen:
        return checked_path("TEACHKIT_CACHE", chosen) / kind
    return (checked_path("XDG_CACHE_HOME", base) if base else home() / ".cache") / "teachkit" / kind


def home() -> Path:
    """The user's home directory; for a user id without an account, a folder of its own among the temporary files.

    Raises
    ------
    PermissionError
        If that folder belongs to somebody else.
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

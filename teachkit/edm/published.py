"""The published EDM models: their architectures as constructor arguments, and where their weights live.

One row per checkpoint of Karras et al. 2022.  The architectures are those of Table 7 there; the weights belong to
NVIDIA and are licensed CC BY-NC-SA 4.0: they are downloaded on request and never part of teachkit.
Used in ``notebooks/17_real_gpu_models.ipynb``.

Reference: Karras et al. 2022 (arXiv 2206.00364), Table 7 and Appendix F.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from teachkit import checks
from teachkit.files import cache_directory, checksum, held, write_whole

from .errors import CheckpointError, CorruptCheckpointError, DownloadError
from .snapshots import read_snapshot

URL = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"
LICENCE = (
    "These weights are the work of NVIDIA (Karras et al. 2022), licensed CC BY-NC-SA 4.0: non-commercial use, "
    "with attribution, shared alike. https://creativecommons.org/licenses/by-nc-sa/4.0/"
)

DDPMPP: dict[str, Any] = {"model_type": "SongUNet", "augment_dim": 9}  # otherwise as SongUNet is by default
NCSNPP: dict[str, Any] = {
    **DDPMPP,
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
ADM: dict[str, Any] = {"model_type": "DhariwalUNet", "model_channels": 192, "channel_mult": [1, 2, 3, 4]}

_SIZE_32: dict[str, Any] = {"img_resolution": 32, "img_channels": 3, "channel_mult": [2, 2, 2], "dropout": 0.13}
_SIZE_64: dict[str, Any] = {"img_resolution": 64, "img_channels": 3, "channel_mult": [1, 2, 2, 2]}

#: Name of a published checkpoint -> constructor arguments of its EDMPrecond.
CONFIGS: dict[str, dict[str, Any]] = {
    "edm-cifar10-32x32-cond-vp": {**DDPMPP, **_SIZE_32, "label_dim": 10},
    "edm-cifar10-32x32-cond-ve": {**NCSNPP, **_SIZE_32, "label_dim": 10},
    "edm-cifar10-32x32-uncond-vp": {**DDPMPP, **_SIZE_32},
    "edm-cifar10-32x32-uncond-ve": {**NCSNPP, **_SIZE_32},
    "edm-ffhq-64x64-uncond-vp": {**DDPMPP, **_SIZE_64, "dropout": 0.05},
    "edm-ffhq-64x64-uncond-ve": {**NCSNPP, **_SIZE_64, "dropout": 0.05},
    "edm-afhqv2-64x64-uncond-vp": {**DDPMPP, **_SIZE_64, "dropout": 0.25},
    "edm-afhqv2-64x64-uncond-ve": {**NCSNPP, **_SIZE_64, "dropout": 0.25},
    "edm-imagenet-64x64-cond-adm": {
        **ADM, "img_resolution": 64, "img_channels": 3, "label_dim": 1000, "dropout": 0.10,
    },
}  # fmt: skip


def fetch(name: str, cache: str | Path | None = None, url: str = URL, quiet: bool = False) -> Path:
    """The published snapshot ``name`` on this computer, downloaded if it is not here yet.

    Of several processes one downloads, and the others wait for it.  An interrupted download is continued.  What came
    is kept only if it can be read as a snapshot; its checksum is kept beside it and verified at each use.

    Parameters
    ----------
    name
        A key of :data:`CONFIGS`.
    cache
        Directory to keep it in; :func:`teachkit.files.cache_directory` if None.
    url
        Where the snapshots are, ending in "/"; over https, but on this machine.
    quiet
        No licence note and no progress bar.

    Raises
    ------
    KeyError
        For an unknown name.
    ValueError
        For a ``url`` without https.
    DownloadError
        If it cannot be fetched, or what came is no snapshot: what to do instead is in the message.
    CorruptCheckpointError
        If the file in the cache is no longer the one that was downloaded.
    """
    if name not in CONFIGS:
        raise KeyError(f"{name!r} is none of {', '.join(CONFIGS)}")
    directory = cache_directory() if cache is None else checks.path("cache", cache)
    path, address = directory / f"{name}.pkl", f"{url}{name}.pkl"
    if not _is_private(address):
        raise ValueError(f"url must begin with https:// (or be on this machine), got {url!r}")
    if not path.is_file():
        note = f"{name}: another process is downloading it to {directory}; waiting"
        try:
            with held(directory / f".{name}.lock", lambda: _tell(note, quiet)) as alone:
                if not path.is_file():
                    _obtain(name, address, path, quiet, alone)
        except DownloadError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(
                f"{name} is not in {directory} (TEACHKIT_CACHE names another folder) and could not be downloaded "
                f"({error}). Without a connection, use a model that ships with teachkit (edm-mnist), or fetch "
                f"{address} elsewhere and save it as {path}."
            ) from None
    record = path.with_suffix(".sha256")
    if record.is_file() and record.read_text().strip() != checksum(path):
        raise CorruptCheckpointError(f"{path} has changed since its download: delete it to fetch it anew")
    return path


def _tell(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr)


def _obtain(name: str, address: str, path: Path, quiet: bool, alone: bool) -> None:
    """Download to ``path``, whole and a snapshot or not at all.

    Without a lock (``alone`` is False) into a file of this process, which nothing can continue.
    """
    _tell(f"{name}: {LICENCE}", quiet)
    part = path.with_suffix(".part") if alone else path.with_name(f".{name}.{secrets.token_hex(4)}.part")
    try:
        _download(address, part, name, quiet)
        try:
            read_snapshot(part)
        except (CheckpointError, ValueError) as error:
            with part.open("rb") as file:
                page = file.read(100).lstrip().startswith(b"<")
            part.unlink()
            raise DownloadError(
                f"{address} sent {'a page for a browser' if page else 'something else'} in place of {path.name} "
                f"({error}); nothing of it was kept. If your network wants a log-in, log in with a browser and call "
                f"again; or fetch the file elsewhere and save it as {path}."
            ) from None
        line = checksum(part) + "\n"
        write_whole(path.with_suffix(".sha256"), lambda beside: beside.write_text(line))
        os.replace(part, path)
    finally:
        if not alone:
            part.unlink(missing_ok=True)


class _PrivateRedirects(urllib.request.HTTPRedirectHandler):
    """Follows to no address in the clear, as that of a log-in page may be."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request for where the answer leads to."""
        if not _is_private(newurl):
            raise OSError(f"the answer leads to {newurl[:200]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_private(address: str) -> bool:
    """Whether nobody on the way can read or change what is fetched: over TLS, or from this machine."""
    where = urllib.parse.urlsplit(address)
    return where.scheme == "https" or where.hostname in ("127.0.0.1", "localhost", "::1")


def _download(address: str, part: Path, name: str, quiet: bool) -> None:
    """Fetch ``address`` into ``part``, continuing what is there, and check the size that the server promises."""
    from teachkit.progress import tqdm

    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.build_opener(_PrivateRedirects).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing after what is there
            raise
        part.unlink()  # complete or not, it cannot be told: begin again
        return _download(address, part, name, quiet)
    with response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(desc=name, initial=have, total=total, unit="B", unit_scale=True, disable=quiet) as bar,
        ):
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f"the connection ended after {size} of {total} bytes; call again to continue")

"""Work in shards of fixed content, each a file that is whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from teachkit.checks import integer, path
from teachkit.files import write_whole
from teachkit.fingerprints import fingerprint, surroundings
from teachkit.launcher import Processes
from teachkit.progress import tqdm

__all__ = ["SHARD", "Shards"]

SHARD = 64  # samples; always computed as one batch, so that rounding does not depend on how the work was dealt out


class Shards:
    """The finished parts of one piece of work, in ``folder/<first digits of the key>/``.

    Parameters
    ----------
    folder : path
        Where works are kept; made if need be. Several machines must share it.
    about : dict
        Everything that the result depends on (model, levels, solver, seed, dtype, ...), of plain values. With the
        code of this package and the versions of what it stands on (`teachkit.fingerprints.surroundings`) it makes the
        key, and is written beside the shards as ``about.json``.
    count : int
        Number of samples in all.
    parts : sequence of str
        Modules of this package, or folders, that compute beside the library ("cli/sampling.py"): part of the key.

    Examples
    --------
    >>> import tempfile, torch
    >>> from teachkit.launcher import processes
    >>> shards = Shards(tempfile.mkdtemp(), {"what": "numbers"}, count=100)
    >>> with processes() as group:
    ...     shards.run(lambda samples: {"n": torch.tensor(list(samples))}, group)
    >>> [len(shard["n"]) for shard in shards.read()]
    [64, 36]
    """

    def __init__(
        self, folder: str | os.PathLike[str], about: dict[str, Any], count: int, parts: Sequence[str] = ()
    ) -> None:
        count = integer("count", count, 1)
        self.about, self.count = {**about, "surroundings": surroundings(*parts)}, count
        self.key = fingerprint(self.about)
        self.folder = path("folder", folder) / self.key[:16]

    def ranges(self) -> list[range]:
        """The samples of each shard."""
        return [range(first, min(first + SHARD, self.count)) for first in range(0, self.count, SHARD)]

    def path(self, samples: range) -> Path:
        """The file of a shard."""
        return self.folder / f"{samples.start:07d}-{samples.stop:07d}.safetensors"

    def missing(self) -> list[range]:
        """Shards that are not there, or cannot be read as what they should be."""
        return [samples for samples in self.ranges() if self._read(samples) is None]

    def run(
        self, compute: Callable[[range], dict[str, Tensor]], group: Processes, progress: bool = False, title: str = ""
    ) -> None:
        """Compute what is missing, dealt out to the processes, and wait for all of them.

        ``compute`` takes the numbers of the samples and returns named tensors.
        """
        if group.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            about = json.dumps(self.about, indent=1, sort_keys=True)
            write_whole(self.folder / "about.json", lambda beside: beside.write_text(about))
        group.wait()
        missing = self.missing()
        group.wait()  # nobody begins before all have looked
        mine = missing[group.rank :: group.world]
        for samples in tqdm(mine, desc=title, unit="shard", disable=not (progress and group.first), leave=False):
            tensors = {name: t.detach().cpu().contiguous() for name, t in compute(samples).items()}
            marks = {"key": self.key, "content": fingerprint(tensors)}
            write_whole(self.path(samples), partial(save_file, tensors, metadata=marks))
        group.wait()

    def read(self) -> Iterator[dict[str, Tensor]]:
        """All shards in order, one at a time.

        Raises
        ------
        FileNotFoundError
            If one is missing.
        """
        return map(self.one, self.ranges())

    def one(self, samples: range) -> dict[str, Tensor]:
        """One shard, by its samples. Raises FileNotFoundError."""
        tensors = self._read(samples)
        if tensors is None:
            raise FileNotFoundError(f"no shard {self.path(samples)}; run again to finish")
        return tensors

    def _read(self, samples: range) -> dict[str, Tensor] | None:
        try:
            with safe_open(self.path(samples), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                marks = {"key": self.key, "content": fingerprint(tensors)}
                return tensors if file.metadata() == marks else None
        except (OSError, SafetensorError):
            return None

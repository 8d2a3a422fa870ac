"""The teacher's paths before they are there: what they cost, and a file that keeps them as they come.

The file holds a `Trajectory` of the samples that are finished, and beside it what tells these paths from others: model,
noise, levels, labels, guidance and thresholding. It is written after every batch, whole or not at all, so that whatever
ends the work loses one batch at most, and the same call goes on from there.
"""

from __future__ import annotations

import json
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from teachkit import checks
from teachkit.denoisers import Denoiser
from teachkit.files import write_whole
from teachkit.fingerprints import fingerprint
from teachkit.sampling import Trajectory
from teachkit.scheduling.conditions import Conditions
from teachkit.scheduling.meter import Meter
from teachkit.trajectory import FORMAT

TEACHER = "unipc"  # the most accurate at 60 evaluations of those that were tried on digits, mixtures and networks
_MARKS, _LEAST, _PARTS = "paths of", 8, 8  # without a batch size a file is written eight times, for 8 samples at least


class Planned:
    """Paths of a teacher from ``x`` at ``sigmas``: `run` computes them, but for those that ``file`` holds already.

    ``name`` is what errors call the file.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        how: Conditions,
        file: str | PathLike[str] | None = None,
        name: str = "teacher",
    ) -> None:
        self.denoiser, self.x, self.sigmas, self.how = denoiser, x if file is None else x.detach(), sigmas, how
        self.cost = (len(sigmas) - 1) * how.calls(denoiser) * len(x)  # the teacher evaluates once a step
        self.file = None if file is None else _target(name, file)
        self.marks = {} if file is None else self._identity(name)
        self.kept = None if self.file is None or not self.file.exists() else self._read(self.file, name)

    def run(self, meter: Meter) -> Trajectory:
        """The paths, on the device of x; counted as they come."""
        count, kept, size = len(self.x), self.kept, self.how.batch or len(self.x)
        if self.file is not None and self.how.batch is None:
            size = max(_LEAST, -(-count // _PARTS))
        done = 0 if kept is None else kept.x.shape[1]
        meter.known(self.cost // count * done)
        if kept is None and self.file is None and size >= count:
            return self._paths(slice(0, count), meter)
        if kept is not None and done == count:
            return kept.to(self.x.device)
        states, outputs = (self.x.new_empty(n, *self.x.shape) for n in (len(self.sigmas), len(self.sigmas) - 1))
        if kept is not None:
            kept, self.kept = kept.to(self.x.device), None
            states[:, :done], outputs[:, :done] = kept.x, kept.denoised
        for first in range(done, count, size):
            rows = slice(first, min(first + size, count))
            path = self._paths(rows, meter)
            states[:, rows], outputs[:, rows] = path.x, path.denoised
            finished = Trajectory(self.sigmas, states[:, : rows.stop], outputs[:, : rows.stop], path.nfe)
            if self.file is not None:
                _write(self.file, finished, self.marks)
        return finished

    def _paths(self, rows: slice, meter: Meter) -> Trajectory:
        """Those of some samples."""
        x, how, each = self.x[rows], self.how.of(rows), self.how.calls(self.denoiser)
        return how.sample(self.denoiser, x, self.sigmas, TEACHER, callback=lambda *_: meter(each * len(x)))

    def _identity(self, name: str) -> dict[str, str]:
        """What tells these paths from others, by the names that an error would give it."""
        high, low = self.sigmas[[0, -1]].tolist()
        try:
            model = fingerprint(self.denoiser)
        except TypeError as error:
            raise TypeError(f"{name} cannot be a file for this denoiser: {error}") from None
        return {
            "model": model,
            "noise x": fingerprint(self.x),
            "levels": f"{len(self.sigmas) - 1} steps from {high!r} to {low!r}",
            "labels": fingerprint(self.how.labels),
            "guidance": repr(self.how.record(self.denoiser)["guidance"]),
            "dynamic_threshold": repr(self.how.dynamic_threshold),
        }

    def _read(self, file: Path, name: str) -> Trajectory:
        """What is finished of these paths; a ValueError where the file holds others."""
        try:
            kept = Trajectory.load(file)
            with safe_open(file, "pt") as opened:
                marks: Any = json.loads((opened.metadata() or {}).get(_MARKS, "{}"))
        except ValueError as error:
            raise ValueError(f"{name} is a file that holds no paths: {error}") from None
        if not marks:
            raise ValueError(f"{name}: {file} does not say whose paths it holds; load it, and give the Trajectory")
        plain = ("levels", "guidance", "dynamic_threshold")
        other = [
            f"{word} ({marks.get(word)} there, {here} here)" if word in plain else word
            for word, here in self.marks.items()
            if marks.get(word) != here
        ]
        if other:
            raise ValueError(f"{name}: {file} holds paths of other {', '.join(other)}; name another file, or remove it")
        return kept


def _target(name: str, file: str | PathLike[str]) -> Path:
    """A file that can be written, or is there already."""
    path = checks.path(name, file)
    if path.suffix != ".safetensors":
        raise ValueError(f"{name} must be a file that ends in .safetensors, got {str(file)!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{name} must be a file in a folder that exists, got {str(file)!r}")
    return path


def _write(file: Path, path: Trajectory, marks: dict[str, str]) -> None:
    """As `Trajectory.save` does, with the marks beside; the file is whole or as it was."""
    about = {"format": FORMAT, "nfe": str(path.nfe), _MARKS: json.dumps(marks)}
    tensors = {"sigmas": path.sigmas, "x": path.x.cpu().contiguous(), "denoised": path.denoised.cpu().contiguous()}
    write_whole(file, partial(save_file, tensors, metadata=about))

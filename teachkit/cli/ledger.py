"""Measured claims as files, so that a ledger that was interrupted goes on where it was, and none is measured twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from teachkit import checks
from teachkit.course.claims import fixtures
from teachkit.course.claims.registry import Claim, Measurement, Setting
from teachkit.files import write_whole
from teachkit.fingerprints import fingerprint, surroundings

__all__ = ["Ledger"]


class Ledger:
    """The claims measured so far in one setting, in ``folder/<first digits of the key>.json``.

    The key is the fingerprint of everything that a measurement depends on: the claim and its function, the setting,
    the network it is about, the data that ship, the code of the library and the claims, and torch.

    Parameters
    ----------
    folder : path
        Where measurements are kept; made at the first one.
    setting : Setting
        How they are made.
    """

    def __init__(self, folder: str | os.PathLike[str], setting: Setting) -> None:
        if not isinstance(setting, Setting):
            raise TypeError(f"setting must be a Setting, got {type(setting).__name__}")
        self.folder, self.setting = checks.path("folder", folder), setting
        self._weights: str | None = None

    def about(self, entry: Claim) -> dict[str, Any]:
        """What the measurement of a claim depends on, in plain values."""
        run = self.setting
        about: dict[str, Any] = {"claim": entry.id, "full": run.full, "seed": run.seed}
        about["function"] = [f"{entry.measure.__module__}.{entry.measure.__qualname__}", fingerprint(entry.measure)]
        about |= {"device": torch.device(run.device).type, "surroundings": surroundings("course/claims")}
        if entry.needs != "nothing":
            self._weights = self._weights or fingerprint(fixtures.network(run))
            about |= {"model": run.model, "weights": self._weights}
        return about

    def path(self, entry: Claim) -> Path:
        """The file of a claim."""
        return self.folder / f"{entry.id}-{fingerprint(self.about(entry))[:16]}.json"

    def read(self, entry: Claim) -> Measurement | None:
        """What was measured before; None if it was not, or its file is damaged or of something else."""
        try:
            kept = json.loads(self.path(entry).read_text(encoding="utf-8"))
            if kept["about"] != self.about(entry) or kept["content"] != fingerprint(kept["measured"]):
                return None
            return Measurement(**kept["measured"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None

    def write(self, entry: Claim, measured: Measurement) -> None:
        """Keep a measurement; the file is whole or absent. Raises OSError where the folder cannot be written."""
        plain = measured._asdict()
        for name in ("value", "low", "high", "control"):
            plain[name] = None if plain[name] is None else float(plain[name])
        kept = {"about": self.about(entry), "measured": plain, "content": fingerprint(plain)}
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(kept, indent=1) + "\n"
        write_whole(self.path(entry), lambda beside: beside.write_text(text, encoding="utf-8"))

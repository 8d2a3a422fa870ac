"""Training monitor: a run as it goes on, from the log and the samples that `teachkit.edm.training.train` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ipywidgets as W
import numpy as np
from matplotlib import image

from teachkit import checks
from teachkit.checks import integer
from teachkit.course import plots
from teachkit.course.widgets.explorer import Explorer, plain_ticks, slider


@plots.style()
def training_monitor(run_dir: str | Path, *, interval: int = 2000) -> Explorer:
    """Follow a run: loss, held-out loss by noise level, and samples, at any moment of the training.

    Move the slider to look back; press play to read the log again every ``interval`` milliseconds, while the training
    runs in another process or notebook.

    Parameters
    ----------
    run_dir : path
        Where `train` writes ``log.jsonl`` and ``samples-*.png``; may be empty as yet, which the explorer then says.
    interval : int
        Milliseconds between two readings.

    Examples
    --------
    >>> explorer = training_monitor("no-run-yet")
    >>> "nothing is logged" in explorer.screen.value
    True
    """
    folder, interval = checks.path("run_dir", run_dir), integer("interval", interval, 1, 10**6)
    board = _Board()
    follow = W.Play(value=0, min=0, max=10**6, interval=interval, show_repeat=False)
    moment = slider("moment", 0, 0, 0)
    known = 0

    def redraw() -> tuple[str, str]:
        nonlocal known
        rows = read_log(folder)
        if len(rows) != known:
            latest = moment.value == max(known - 1, 0)
            known, moment.max = len(rows), len(rows) - 1
            if latest:
                moment.value = len(rows) - 1
        return board.show(rows, min(moment.value, len(rows) - 1), folder)

    return Explorer(board.picture, redraw, (W.Label("follow the run:"), follow, moment))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of a run's log: ``{"images", "loss", "held_out": {sigma: loss}}``.

    Raises
    ------
    FileNotFoundError
        If the run has logged nothing yet.
    """
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    if not rows:
        raise FileNotFoundError(f"nothing is logged in {path} yet; press play to wait for it")
    return rows


class _Board:
    """Loss against images seen, held-out loss by noise level, and the grid of samples."""

    def __init__(self) -> None:
        self.picture, axes = plots.panels(1, 3, size=(8.6, 3.2), width_ratios=(1, 1, 1.35))
        self.course, self.levels, self.samples = axes
        (self.loss,) = self.course.plot([], [], "o-", color=plots.GREY, ms=3, label="training")
        (self.held_out,) = self.course.plot([], [], "s-", color=plots.BLUE, ms=3, label="held out, mean")
        self.now = self.course.axvline(0, color=plots.VERMILLION, lw=1)
        self.course.set(xlabel="thousand images seen", ylabel="loss", title="loss", yscale="log")
        self.course.legend(loc="upper right")
        (self.first,) = self.levels.plot([], [], color="0.7", label="first")
        (self.last,) = self.levels.plot([], [], color=plots.BLUE, label="this moment")
        self.levels.set(xlabel="noise level σ", title="held-out loss", xscale="log", yscale="log")
        self.levels.invert_xaxis()  # as in every picture of this course: sampling runs to the right
        self.levels.legend()
        plain_ticks(self.course.yaxis)
        plain_ticks(self.levels.yaxis)
        plain_ticks(self.levels.xaxis, every=(1.0,))
        self.samples.set(xticks=[], yticks=[], title="samples")
        self.samples.grid(False)

    def show(self, rows: list[dict[str, Any]], index: int, folder: Path) -> tuple[str, str]:
        row = rows[index]
        seen = [r["images"] / 1000 for r in rows]
        held_out = [float(np.mean(list(r["held_out"].values()))) for r in rows]
        self.loss.set_data(seen, [r["loss"] for r in rows])
        self.held_out.set_data(seen, held_out)
        self.now.set_xdata([seen[index]] * 2)
        for line, values in ((self.first, rows[0]["held_out"]), (self.last, row["held_out"])):
            line.set_data([float(s) for s in values], list(values.values()))
        for ax in (self.course, self.levels):
            ax.relim()
            ax.autoscale_view()
        picture = self._show_samples(folder / f"samples-{row['images']:09d}.png")
        worst = max(row["held_out"], key=row["held_out"].get)
        alt = (
            f"After {row['images']:,} images: training loss {row['loss']:.3g}, held-out loss {held_out[index]:.3g}, "
            f"worst {row['held_out'][worst]:.3g} at sigma {worst}; entry {index + 1} of {len(rows)}; {picture}."
        )
        return alt, alt

    def _show_samples(self, path: Path) -> str:
        while self.samples.images:
            self.samples.images[0].remove()
        if not path.exists():
            return "no samples drawn at this moment"
        self.samples.imshow(image.imread(path), cmap="gray", vmin=0, vmax=1)
        return "samples at the right"

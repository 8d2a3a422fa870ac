"""Explorers: move a slider, see the picture and numbers change; and the predict-first questions of the lessons.

Each function returns an `Explorer`: a box of labelled controls, which work by mouse and keyboard (Tab, then the arrow
keys), over one picture. The picture is an HTML image whose alternative text states the numbers seen, so it can be read
aloud and tested in a browser; an exception shows in its place and is never swallowed. Where widgets cannot run, in a
notebook's preview or an exported page, the picture as first drawn stands alone.

Everything slow is computed once, when the explorer is made, and later redraws reuse one figure: 0.1 to 0.2 s on two
cores for problems of the size used in the course. A U-Net inside `schedule_lab` takes as long as its evaluations do.

`predict` asks for a guess before it shows a number.
"""

from teachkit.course import needs

with needs("course", "the explorers"):
    import ipywidgets  # noqa: F401  (before anything else needs it)
    import matplotlib  # noqa: F401

from teachkit.course.widgets.cloud import cloud_player
from teachkit.course.widgets.explorer import Explorer
from teachkit.course.widgets.plane import denoiser_field, mean_shift_steps
from teachkit.course.widgets.player import path_player
from teachkit.course.widgets.prediction import Prediction, predict
from teachkit.course.widgets.schedules import schedule_lab
from teachkit.course.widgets.solvers import ends_lab, solver_lab
from teachkit.course.widgets.training import training_monitor
from teachkit.course.widgets.turned import turn_boomerang
from teachkit.course.widgets.walk import noise_walk

__all__ = ["Explorer", "Prediction", "cloud_player", "denoiser_field", "ends_lab", "mean_shift_steps", "noise_walk"]
__all__ += ["path_player", "predict", "schedule_lab", "solver_lab", "training_monitor", "turn_boomerang"]

"""Pictures: one function per kind, each returning a figure that describes itself.

Every function takes plain arrays, tensors or a `Trajectory`, draws with labels and units, and returns a
`Picture`: a matplotlib figure with a ``caption`` and, in ``alt``, a text that states the numbers seen. Pass ``ax=``
to draw into a panel of a larger picture (`panels`). The style and its colour-blind-safe palette (Okabe and Ito)
stand in ``teachkit.mplstyle`` and never touch the user's own settings. Used in every notebook.

A picture is shown in three forms: an HTML image, the only one that carries alternative text in JupyterLab;
image/png for PDF export; and, as text/plain, the alternative text, which nbval compares in place of the pixels.
"""

from teachkit.course import needs

with needs("course", "pictures"):
    import matplotlib  # noqa: F401

from teachkit.course.plots.figure import BLUE, GREEN, GREY, ORANGE, VERMILLION, Picture, markup, panels, show, style
from teachkit.course.plots.labels import label_ends
from teachkit.course.plots.plane import grid, mixture_contours, steps_on_path, vector_field
from teachkit.course.plots.results import cost_matrix, image_grid, loss_by_noise_level, work_precision
from teachkit.course.plots.trajectories import boomerang, deviation, explained_variance, film_strip

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "VERMILLION"]
__all__ += ["Picture", "boomerang", "cost_matrix", "deviation", "explained_variance", "film_strip", "grid"]
__all__ += ["image_grid", "label_ends", "loss_by_noise_level", "markup", "mixture_contours", "panels", "show"]
__all__ += ["steps_on_path", "style", "vector_field", "work_precision"]

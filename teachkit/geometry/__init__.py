"""The shape of given paths: how straight they are, in how many dimensions they bend, and how alike.

Every function takes a `Trajectory` or a tensor ``(N+1, B, *event)`` and keeps the batch. The chord of a path is the
line through its two ends; the paper's finding is that what is left after removing the chord is small, nearly
two-dimensional and nearly the same curve, a boomerang, for every sample (arXiv 2506.10177, Secs. 2-3;
arXiv 2405.11326). The chord is so long (about sigma_max * sqrt(d)) that any measure which includes it proves
nothing; hence ``remove_chord`` in `explained_variance` and ``about_chord`` in `align`. The null models to compare
with are in `teachkit.regularity`. Taught in ``notebooks/07_one_line_and_a_bend`` and ``08_the_boomerang``.

`chord` measures paths against their chords, `alignment` lays them on one another, `curvature` looks at them locally.
"""

from teachkit.geometry.alignment import align, procrustes, procrustes_residual
from teachkit.geometry.chord import (
    arc_length,
    cosines,
    deviation,
    deviation_peak,
    distance_to_end,
    explained_variance,
    norms,
    project,
)
from teachkit.geometry.curvature import curvature_torsion, path_curvature

__all__ = [
    "align",
    "arc_length",
    "cosines",
    "curvature_torsion",
    "deviation",
    "deviation_peak",
    "distance_to_end",
    "explained_variance",
    "norms",
    "path_curvature",
    "procrustes",
    "procrustes_residual",
    "project",
]

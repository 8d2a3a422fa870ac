"""Schedules by dynamic programming: where to stop when only a few steps are allowed.

The shape of a path says where few steps suffice (where it is straight) and where they are needed (where it bends).
`cost_matrix` prices every Euler jump along a teacher's paths, `shortest_path` finds the cheapest route
(arXiv 2405.11326, Sec. 4; arXiv 2506.10177, Sec. 5), `score_optimal` makes the work of all steps equal
(arXiv 2412.07877), `find_schedule` finds levels for the solver that will use them, and `fit_solver` fits the solver's
weights to the paths. All take a closed form in place of a network, and what they find then costs no evaluation of it:
a `LowRankMixture` fitted to the classes of its data, or without data a `Gaussian.power_law`, of which the levels are
worth taking and the weights are not. A `Schedule` remembers how it was found. Taught in
``notebooks/14_schedules_by_dynamic_programming``.
"""

from teachkit.scheduling.amed import AMED
from teachkit.scheduling.costs import METRICS, cost_matrix
from teachkit.scheduling.diffusers import drive
from teachkit.scheduling.dynamic_programme import path_cost, shortest_path, shortest_paths
from teachkit.scheduling.equal_work import score_optimal
from teachkit.scheduling.fit import fit_solver
from teachkit.scheduling.fitted import FittedMultistep
from teachkit.scheduling.learn import learn_solver
from teachkit.scheduling.mean_direction import learn_amed
from teachkit.scheduling.schedule import Schedule
from teachkit.scheduling.search import find_schedule
from teachkit.scheduling.student import multistep_weights
from teachkit.scheduling.teacher import states_at, teacher_paths

__all__ = [
    "AMED",
    "METRICS",
    "FittedMultistep",
    "Schedule",
    "cost_matrix",
    "drive",
    "find_schedule",
    "fit_solver",
    "learn_amed",
    "learn_solver",
    "multistep_weights",
    "path_cost",
    "score_optimal",
    "shortest_path",
    "shortest_paths",
    "states_at",
    "teacher_paths",
]

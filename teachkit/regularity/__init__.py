"""Why sampling paths have the shape they have, and the null models that a claim about the shape must beat.

`geometry` measures a path; this package holds the statements that explain the measurement. `convexity`: every step is a
convex combination of where it starts and what the denoiser says, and the likelihood rises with it (`unrolled_weights`,
`span_residual`, `likelihood_gain`). `stages`: few data points have a say in D after a certain level
(`effective_neighbours`, `speciation_sigma`, `commitment_sigma`, `rotation`), and before it a Gaussian does just as well
(`state_gap`, `score_gap`, `teleport`). `null_models`: a claim about the shape of a path means something only beside
what chance would give (`random_walk`, `brownian_bridge`, `integrated_walk`, `time_shuffled`). Taught in
``notebooks/06_high_dimensions`` to ``10_gaussians`` and in ``11_stages``; from arXiv 2506.10177 and
arXiv 2405.11326.
"""

from teachkit.regularity.convexity import (
    likelihood_gain,
    noise_norm_spread,
    span_residual,
    step_targets,
    unrolled_weights,
)
from teachkit.regularity.null_models import brownian_bridge, integrated_walk, random_walk, time_shuffled
from teachkit.regularity.stages import (
    class_posteriors,
    commitment_sigma,
    effective_neighbours,
    rotation,
    score_gap,
    speciation_sigma,
    state_gap,
    teleport,
)

__all__ = [
    "brownian_bridge",
    "class_posteriors",
    "commitment_sigma",
    "effective_neighbours",
    "integrated_walk",
    "likelihood_gain",
    "noise_norm_spread",
    "random_walk",
    "rotation",
    "score_gap",
    "span_residual",
    "speciation_sigma",
    "state_gap",
    "step_targets",
    "teleport",
    "time_shuffled",
    "unrolled_weights",
]

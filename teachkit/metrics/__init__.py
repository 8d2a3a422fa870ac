"""How good are these samples? Distances between two sets, the error to a reference solution, and honest error bars.

One equation does most of the work: for two Gaussians fitted to features of real and of generated images,
d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the Fréchet distance (Dowson & Landau 1982; with
Inception features it is the FID of Heusel et al. 2017, arXiv 1706.08500). Beside it: the sliced Wasserstein distance
(Bonneel et al. 2015), the maximum mean discrepancy (Gretton et al. 2012; with a cubic kernel it is the KID of
Binkowski et al. 2018, arXiv 1801.01401), and the plain distance of each sample to where the exact ODE solution ends,
which needs no features at all. `bootstrap` puts error bars on any of them, `proportion` on a share that is counted.
Features of digits and of emoji come from small classifiers that ship with the package. Taught in
``notebooks/12_training_edm`` and ``17_real_gpu_models``.
"""

from teachkit.metrics.distances import error_to_reference, mmd, sliced_wasserstein
from teachkit.metrics.features import (
    Classifier,
    digit_classifier,
    digit_features,
    digit_probabilities,
    emoji_classifier,
    emoji_features,
    emoji_probabilities,
    inception_features,
)
from teachkit.metrics.frechet import FeatureStatistics, frechet_distance
from teachkit.metrics.intervals import Estimate, bootstrap, proportion

__all__ = [
    "Classifier",
    "Estimate",
    "FeatureStatistics",
    "bootstrap",
    "digit_classifier",
    "digit_features",
    "digit_probabilities",
    "emoji_classifier",
    "emoji_features",
    "emoji_probabilities",
    "error_to_reference",
    "frechet_distance",
    "inception_features",
    "mmd",
    "proportion",
    "sliced_wasserstein",
]

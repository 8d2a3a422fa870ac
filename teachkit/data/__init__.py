"""Data sets, offline first: digits, emoji and photographs that ship, 2-D toys that are computed, downloads on request.

Images are ``(N, C, H, W)`` float32 scaled to [-1, 1]; toys are ``(N, 2)`` float64.
"""

from teachkit.data.sets import NAMES, Dataset, captions, class_names, directory, load, split, verify
from teachkit.data.toys import TOYS, checkerboard, gaussian_grid, ring, spiral, two_moons

__all__ = ["NAMES", "TOYS", "Dataset", "captions", "checkerboard", "class_names", "directory", "gaussian_grid"]
__all__ += ["load", "ring", "spiral", "split", "two_moons", "verify"]

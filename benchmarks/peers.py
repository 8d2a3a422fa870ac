"""Other projects that benchmarks and tests compare with, where they are installed.

k-diffusion's package imports training tools (wandb, clip, ...) that have no part in sampling. Only its `sampling`
module is wanted, so the package's own ``__init__`` is left out and with it those dependencies:

    pip install torchdiffeq torchsde          # or the extra `peers`
    pip install --no-deps k-diffusion
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

HOW_TO_INSTALL = "pip install torchdiffeq torchsde; pip install --no-deps k-diffusion"


def k_diffusion_sampling() -> ModuleType:
    """The module ``k_diffusion.sampling``. ImportError with what to install if it is absent."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"k-diffusion is not installed: {HOW_TO_INSTALL}")
    if "k_diffusion" not in sys.modules:
        bare = ModuleType("k_diffusion")
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules["k_diffusion"] = bare
    return importlib.import_module("k_diffusion.sampling")

"""Other projects that benchmarks and tests compare with, where they are installed.

k-diffusion's package imports training tools (wandb, clip, ...) that have no part in sampling. Only its `sampling`
module is wanted, so the package's own ``__init__`` is left out and with it those dependencies:

    pip install torchdiffeq torchsde          # or the extra `peers`
    pip install --no-deps k-diffusion

The same goes for smalldiffusion, of which only the module with `IdealDenoiser` is wanted: it needs einops, its training
loop accelerate.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

HOW_TO_INSTALL = "pip install torchdiffeq torchsde; pip install --no-deps k-diffusion"


def _part(package: str, module: str, remedy: str) -> ModuleType:
    """One module of a package whose ``__init__`` is left out. ImportError with the remedy if the package is absent."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(remedy)
    if package not in sys.modules:
        bare = ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules[package] = bare
    return importlib.import_module(f"{package}.{module}")


def k_diffusion_sampling() -> ModuleType:
    """The module ``k_diffusion.sampling``. ImportError with what to install if it is absent."""
    return _part("k_diffusion", "sampling", f"k-diffusion is not installed: {HOW_TO_INSTALL}")


def ideal_denoiser() -> type:
    """The class ``smalldiffusion.IdealDenoiser``. ImportError with what to install if it is absent."""
    remedy = "smalldiffusion is not installed: pip install einops; pip install --no-deps smalldiffusion"
    return _part("smalldiffusion", "model", remedy).IdealDenoiser

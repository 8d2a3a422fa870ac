"""Other projects that benchmarks and tests compare with, where they are installed: `make peers` installs them.

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
    """One module of a package whose ``__init__`` is left out.

    The package without its ``__init__`` is in `sys.modules` only while the module is imported: whoever imports the
    package before or after this call gets the whole of it, and nothing depends on which came first.

    Raises
    ------
    ImportError
        With the remedy, if the package or something that the module imports is absent.
    """

    def of_package() -> dict[str, ModuleType]:
        return {name: m for name, m in sys.modules.items() if name == package or name.startswith(f"{package}.")}

    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(remedy)
    before = of_package()
    if package not in before:
        sys.modules[package] = importlib.util.module_from_spec(spec)  # not executed
    try:
        return importlib.import_module(f"{package}.{module}")
    except ImportError as error:
        raise ImportError(f"{error}: {remedy}") from error
    finally:
        if package not in before:
            for name in of_package():
                del sys.modules[name]


def k_diffusion_sampling() -> ModuleType:
    """The module ``k_diffusion.sampling``. ImportError with what to install if it is absent."""
    return _part("k_diffusion", "sampling", f"k-diffusion is not installed: {HOW_TO_INSTALL}")


def ideal_denoiser() -> type:
    """The class ``smalldiffusion.IdealDenoiser``. ImportError with what to install if it is absent."""
    remedy = "smalldiffusion is not installed: pip install einops; pip install --no-deps smalldiffusion"
    return _part("smalldiffusion", "model", remedy).IdealDenoiser

"""Other predictions and other people's networks as D(x; sigma), so that the same solvers run them.

`from_eps`, `from_v`, `from_x0` and `from_velocity` take a plain callable, by what it predicts; `from_diffusers` a
network of diffusers with its scheduler; `from_pipeline` a whole pipeline, with prompts, guidance and pictures;
`from_k_diffusion` and `to_k_diffusion` go both ways.
"""

from teachkit.adapters.adapted import AdaptedDenoiser
from teachkit.adapters.diffusers import from_diffusers
from teachkit.adapters.k_diffusion import from_k_diffusion, to_k_diffusion
from teachkit.adapters.pipelines import from_pipeline
from teachkit.adapters.predictions import from_eps, from_v, from_velocity, from_x0, time_index, vp_time

__all__ = [
    "AdaptedDenoiser",
    "from_diffusers",
    "from_eps",
    "from_k_diffusion",
    "from_pipeline",
    "from_v",
    "from_velocity",
    "from_x0",
    "time_index",
    "to_k_diffusion",
    "vp_time",
]

"""Preconditioning: how a network F of unit-scale signals becomes a denoiser D for every noise level.

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma))

The four coefficients keep what F sees and what it must predict at unit variance whether sigma is 0.002 or 80.  The
EDM choice follows from asking exactly that; VP, VE and iDDPM are earlier models written in the same form, so that one
sampler serves all.  Taught in ``notebooks/12_training_edm.ipynb``.

Reference: Karras et al. 2022 (arXiv 2206.00364), Section 5, Table 1 and Appendix B.6 and C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from teachkit.checks import integer, number, shown
from teachkit.schedules.linear_beta import LinearBeta

from .denoiser import Coefficients, LearnedDenoiser

_MOST_LEVELS = 10**5  # of a model of discrete time


class EDMPrecond(LearnedDenoiser):
    """Unit variance at both ends of the network for data of standard deviation sigma_data (EDM).

        c_skip = sigma_data^2 / (sigma^2 + sigma_data^2)         c_in = 1 / sqrt(sigma^2 + sigma_data^2)
        c_out  = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)   c_noise = ln(sigma) / 4

    Parameters
    ----------
    *args, model_type, **kwargs
        ``img_resolution`` and ``img_channels`` of the square images; ``label_dim`` classes, 0 for none; the network,
        "SongUNet" or "DhariwalUNet", and further arguments of it.
    sigma_min, sigma_max
        Noise levels the model was made for.
    sigma_data
        Standard deviation of the data.
    levels
        Of a network that was distilled (`teachkit.edm.distil`): where its sampler stops, largest first, and all that
        it was trained for. ``sample(D, x, D.levels)`` draws from it. None for a network of all levels.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix B.6.

    Examples
    --------
    >>> D = EDMPrecond(8, 1, model_channels=4, channel_mult=[1], num_blocks=1)
    >>> D(torch.zeros(2, 1, 8, 8), sigma=0.5).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        *args: Any,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "DhariwalUNet",
        levels: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_range(sigma_min, sigma_max)
        sigma_data = number("sigma_data", sigma_data, above=0)
        self.levels = None if levels is None else _check_levels(levels, sigma_min, sigma_max)
        super().__init__(*args, model_type=model_type, **kwargs)
        self.sigma_min, self.sigma_max, self.sigma_data = float(sigma_min), float(sigma_max), float(sigma_data)
        self.config |= {"sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data}
        if self.levels is not None:
            self.config["levels"] = self.levels

    @property
    def distilled(self) -> bool:
        """Whether it answers rightly at its ``levels`` alone."""
        return self.levels is not None

    def _coefficients(self, sigma: Tensor) -> Coefficients:
        variance = sigma.square() + self.sigma_data**2
        c_in = variance.rsqrt()
        return Coefficients(self.sigma_data**2 / variance, sigma * self.sigma_data * c_in, c_in, sigma.log() / 4)


class VPPrecond(LearnedDenoiser):
    """The variance-preserving model of score-SDE in variance-exploding coordinates.

        c_skip = 1    c_out = -sigma    c_in = 1 / sqrt(sigma^2 + 1)    c_noise = (M - 1) t(sigma)

    with sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1.

    Parameters
    ----------
    *args, model_type, **kwargs
        ``img_resolution`` and ``img_channels`` of the square images; ``label_dim`` classes, 0 for none; the network,
        "SongUNet" or "DhariwalUNet", and further arguments of it.
    beta_d, beta_min
        Extent and start of the linear noise rate.
    M
        Number of time steps the network was trained with.
    epsilon_t
        Smallest training time.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix C.1.

    Examples
    --------
    >>> D = VPPrecond(8, 1, model_channels=4, channel_mult=[1], num_blocks=1)
    >>> round(float(D.sigma(float(D.time(torch.tensor(2.0, dtype=torch.float64))))), 4)
    2.0
    """

    def __init__(
        self,
        *args: Any,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        **kwargs: Any,
    ) -> None:
        beta_d, beta_min = number("beta_d", beta_d, above=0), number("beta_min", beta_min, above=0)
        M, epsilon_t = integer("M", M, 1, _MOST_LEVELS), number("epsilon_t", epsilon_t, above=0, below=1)
        super().__init__(*args, model_type=model_type, **kwargs)
        self.beta_d, self.beta_min, self.M, self.epsilon_t = beta_d, beta_min, M, epsilon_t
        self.clock = LinearBeta(beta_min, beta_d)
        self.sigma_min, self.sigma_max = self.sigma(epsilon_t), self.sigma(1.0)
        self.config |= {"beta_d": beta_d, "beta_min": beta_min, "M": M, "epsilon_t": epsilon_t}

    def sigma(self, t: float) -> float:
        """Noise level at time ``t`` of the original process."""
        t = number("t", t, least=0)
        sigma = float(self.clock.sigma(t))
        if not math.isfinite(sigma):
            raise ValueError(f"t = {t:.3g} gives a noise level beyond float64")
        return sigma

    def time(self, sigma: Tensor) -> Tensor:
        """Time of the original process at noise level ``sigma``: the inverse of :meth:`sigma`."""
        return self.clock.time(self._levels(sigma))

    def _coefficients(self, sigma: Tensor) -> Coefficients:
        c_in = (sigma.square() + 1).rsqrt()
        return Coefficients(torch.ones_like(sigma), -sigma, c_in, (self.M - 1) * self.clock.time(sigma))


class VEPrecond(LearnedDenoiser):
    """The variance-exploding model of score-SDE.

        c_skip = 1    c_out = sigma    c_in = 1    c_noise = ln(sigma / 2)

    Parameters
    ----------
    *args, model_type, **kwargs
        ``img_resolution`` and ``img_channels`` of the square images; ``label_dim`` classes, 0 for none; the network,
        "SongUNet" or "DhariwalUNet", and further arguments of it.
    sigma_min, sigma_max
        Noise levels the model was made for.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix C.2.

    Examples
    --------
    >>> D = VEPrecond(8, 1, model_channels=4, channel_mult=[1], num_blocks=1)
    >>> D(torch.zeros(2, 1, 8, 8), sigma=0.5).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self, *args: Any, sigma_min: float = 0.02, sigma_max: float = 100.0, model_type: str = "SongUNet", **kwargs: Any
    ) -> None:
        _check_range(sigma_min, sigma_max)
        super().__init__(*args, model_type=model_type, **kwargs)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.config |= {"sigma_min": sigma_min, "sigma_max": sigma_max}

    def _coefficients(self, sigma: Tensor) -> Coefficients:
        one = torch.ones_like(sigma)
        return Coefficients(one, sigma, one, (0.5 * sigma).log())


class iDDPMPrecond(LearnedDenoiser):
    """Improved DDPM with its cosine schedule of M discrete noise levels u_0 > ... > u_M = 0.

        c_skip = 1    c_out = -sigma    c_in = 1 / sqrt(sigma^2 + 1)    c_noise = M - 1 - argmin_j |u_j - sigma|

    The network predicts twice the channels; the second half, the variances, is not used here.

    Parameters
    ----------
    *args, model_type, **kwargs
        ``img_resolution`` and ``img_channels`` of the square images; ``label_dim`` classes, 0 for none; the network,
        "SongUNet" or "DhariwalUNet", and further arguments of it.
    C_1, C_2
        Limit of the noise added per step, and offset of the cosine schedule.
    M
        Number of noise levels.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364), Table 1 and Appendix C.3; Nichol and Dhariwal 2021 (arXiv 2102.09672).

    Examples
    --------
    >>> D = iDDPMPrecond(8, 1, model_channels=4, channel_mult=[1], num_blocks=1)
    >>> float(D.round_sigma(torch.tensor(0.5, dtype=torch.float64))) in D.levels
    True
    """

    outputs = 2

    def __init__(
        self,
        *args: Any,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        model_type: str = "DhariwalUNet",
        **kwargs: Any,
    ) -> None:
        C_1, C_2 = number("C_1", C_1, above=0, below=1), number("C_2", C_2, least=0)
        M = integer("M", M, 1, _MOST_LEVELS)
        super().__init__(*args, model_type=model_type, **kwargs)
        self.M = M
        levels = [0.0] * (M + 1)
        signal = [math.sin(0.5 * math.pi * j / M / (C_2 + 1)) ** 2 for j in range(M + 1)]
        for j in range(M, 0, -1):
            ratio = max(signal[j - 1] / signal[j], C_1)
            levels[j - 1] = math.sqrt((levels[j] ** 2 + 1) / ratio - 1)
        self.levels = tuple(levels)
        self.sigma_min, self.sigma_max = levels[M - 1], levels[0]
        self.config |= {"C_1": C_1, "C_2": C_2, "M": M}

    def _nearest(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        levels = torch.tensor(self.levels, device=sigma.device, dtype=sigma.dtype)
        index = (sigma[..., None] - levels).abs().argmin(dim=-1)
        return levels[index], index

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest of the model's noise levels."""
        return self._nearest(self._levels(sigma))[0]

    def _coefficients(self, sigma: Tensor) -> Coefficients:
        c_noise = (self.M - 1 - self._nearest(sigma)[1]).to(sigma.dtype)
        return Coefficients(torch.ones_like(sigma), -sigma, (sigma.square() + 1).rsqrt(), c_noise)


PRECONDITIONINGS: dict[str, type[LearnedDenoiser]] = {
    cls.__name__: cls for cls in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)
}


def _check_range(sigma_min: float, sigma_max: float) -> None:
    number("sigma_min", sigma_min, least=0)
    if not (isinstance(sigma_max, float) and sigma_max == math.inf):
        number("sigma_max", sigma_max, above=sigma_min)


def _check_levels(levels: Sequence[float], sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Levels of a distilled network as plain numbers; no tensors, as a network may be built without memory."""
    if not isinstance(levels, list | tuple):
        raise TypeError(f"levels must be a list of noise levels, got {shown(levels)}")
    found = tuple(number("levels", level, least=sigma_min, most=sigma_max, above=0) for level in levels)
    if len(found) < 2 or not all(high > low for high, low in pairwise(found)):
        raise ValueError(f"levels must be two or more, strictly decreasing, got {shown(levels)}")
    return found

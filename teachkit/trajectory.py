"""A batch of sampling paths: what `sample` returns, what `geometry` measures and `scheduling` learns from.

The state ``x[n]`` at ``sigmas[n]`` and the output ``denoised[n]`` of the denoiser there stand under one index. What
needs every state asks `Trajectory.whole`. Taught in ``notebooks/03_the_ode``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from teachkit import checks, schedules
from teachkit.checks import flag, integer, real_tensor, same, shown, squarable
from teachkit.denoisers import default_dtype
from teachkit.files import write_whole

__all__ = ["Trajectory"]

FORMAT = "teachkit trajectory 1"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A batch of sampling paths. Two are equal if all they hold is, number by number.

    ``path[3]``, ``path[:8]`` and ``path[mask]`` are the trajectories of these samples; an integer keeps the axis of
    the batch, so that ``path[3].x`` is ``(N+1, 1, *event)``. ``for one in path`` goes through the samples in the same
    way. There is no ``len``: ``path.x.shape[:2]`` says how many states and how many samples.

    Attributes
    ----------
    sigmas : (N+1,)
        Noise levels, decreasing, float64 on the CPU.
    x : (N+1, B, *event)
        The state at each level, there where D was evaluated: the sampling trajectory. (Of UniPC these are its
        predictions; the corrected states, from which it steps on, are not kept.) With ``keep="final"`` only the last
        one, ``(1, B, *event)``.
    denoised : (N, B, *event)
        ``D(x[n]; sigmas[n])``: the denoising trajectory. Empty with ``keep="final"``, and where a solver evaluated
        at other levels than these, as EDM's stochastic sampler does after adding noise. With an analytical first step
        the first is what that takes in place of D.
    nfe : int
        Number of function evaluations: how often the denoiser was called for the batch.

    Raises
    ------
    ValueError, TypeError
        For tensors that do not belong together, or hold NaN or infinity.

    Examples
    --------
    >>> path = Trajectory(torch.tensor([2.0, 1.0]), torch.zeros(2, 5, 3), torch.zeros(1, 5, 3), nfe=1)
    >>> path.final.shape, path[3].x.shape, path[:2].x.shape
    (torch.Size([5, 3]), torch.Size([2, 1, 3]), torch.Size([2, 2, 3]))
    """

    sigmas: Tensor
    x: Tensor
    denoised: Tensor
    nfe: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", schedules.validate(self.sigmas))
        object.__setattr__(self, "nfe", integer("nfe", self.nfe, 0))
        x, denoised = real_tensor("x", self.x, "(N+1, B, *event)"), real_tensor("denoised", self.denoised)
        states = len(self.sigmas)
        if x.ndim < 3 or x.numel() == 0 or len(x) not in (1, states):
            raise ValueError(f"x must have shape ({states} or 1, B, *event), as sigmas say, got {tuple(x.shape)}")
        if not denoised.numel():
            object.__setattr__(self, "denoised", denoised.new_empty(0, *x.shape[1:]))
        elif denoised.shape != (states - 1, *x.shape[1:]):
            raise ValueError(
                f"denoised must be empty or have shape {(states - 1, *x.shape[1:])}, as sigmas and x say, "
                f"got {tuple(denoised.shape)}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trajectory):
            return NotImplemented
        return same([*vars(self).values()], [*vars(other).values()])

    def __hash__(self) -> int:
        return hash((self.nfe, self.x.shape, *self.sigmas.tolist()))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Trajectory:
        count = self.x.shape[1]
        try:
            rows = np.array(np.arange(count)[index.cpu().numpy() if isinstance(index, Tensor) else index])
        except (IndexError, TypeError, ValueError):
            rows = np.empty(0, int)
        if rows.ndim > 1 or rows.size == 0:
            raise IndexError(
                f"index must be an integer, a slice, a mask or integers that leave some of {count} samples, "
                f"got {shown(index)}"
            )
        if rows.ndim == 0:
            index = slice(int(rows), int(rows) + 1)
        ahead = isinstance(index, slice) and (index.step is None or index.step > 0)  # torch takes no other steps
        pick = index if ahead else torch.from_numpy(rows).to(self.x.device)
        return replace(self, x=self.x[:, pick], denoised=self.denoised[:, pick])

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[i] for i in range(self.x.shape[1]))

    @property
    def final(self) -> Tensor:
        """The samples: the state at the last noise level, ``(B, *event)``."""
        return self.x[-1]

    def whole(self, outputs: bool = False, name: str = "trajectory") -> Trajectory:
        """Itself, if the state at every level is kept; and with ``outputs`` those of the denoiser too.

        ``name`` is what the ValueError calls it otherwise.
        """
        if len(self.x) != len(self.sigmas):
            raise ValueError(f"{name} must be kept whole, but holds only its final state; sample with keep='all'")
        if flag("outputs", outputs) and not len(self.denoised):
            wanted = "sample with keep='all' and a deterministic solver"
            raise ValueError(f"{name} must be kept whole, but holds no outputs of its denoiser; {wanted}")
        return self

    def detach(self) -> Trajectory:
        """The same numbers without gradients."""
        return replace(self, x=self.x.detach(), denoised=self.denoised.detach())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Trajectory:
        """States and outputs on another device or in another floating-point dtype; the levels stay as they are."""
        place, kind = checks.device("device", device), checks.floating_dtype("dtype", dtype)
        moved = {name: getattr(self, name).to(device=place, dtype=kind) for name in ("x", "denoised")}
        return replace(self, **moved)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as safetensors, without gradients; the file is whole or absent."""
        from safetensors.torch import save_file

        tensors = {"sigmas": self.sigmas, "x": self.x, "denoised": self.denoised}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if tensors["x"].untyped_storage().data_ptr() == tensors["denoised"].untyped_storage().data_ptr():
            tensors["denoised"] = tensors["denoised"].clone()  # the format has no tensors that share their numbers
        about = {"format": FORMAT, "nfe": str(self.nfe)}
        write_whole(checks.path("path", path), lambda beside: save_file(tensors, beside, about))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trajectory:
        """Read what `save` wrote, onto the CPU.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file; if it is damaged or holds something else.
        """
        from safetensors import SafetensorError, safe_open

        file = checks.path("path", path)
        if not file.is_file():
            raise FileNotFoundError(f"path must be a file that Trajectory.save wrote: no file {file}")
        try:
            with safe_open(file, "pt") as opened:
                about, names = opened.metadata() or {}, set(opened.keys())
                if about.get("format") != FORMAT or names != {"sigmas", "x", "denoised"}:
                    raise ValueError(
                        f"{file} is not a {FORMAT!r}: its format is {shown(about.get('format'))}, it holds "
                        f"{', '.join(sorted(names)) or 'nothing'}"
                    )
                tensors = {name: opened.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{file} is not a readable safetensors file: {error}") from None
        try:
            return cls(**tensors, nfe=int(about.get("nfe", "")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} does not hold a trajectory: {error}") from None


def whole_path(name: str, value: object, outputs: bool = False) -> Trajectory:
    """An argument that must be a `Trajectory` kept whole, of numbers whose squares are numbers too."""
    if not isinstance(value, Trajectory):
        raise TypeError(f"{name} must be a Trajectory, got {shown(value)}")
    squarable(name, value.whole(outputs, name).x)
    if outputs:
        squarable(name, value.denoised)
    return value


def states(name: str, value: Trajectory | Tensor) -> Tensor:
    """The states (N+1, B, *event) of an argument that is a `Trajectory` kept whole, or a tensor of paths."""
    x = real_tensor(name, value.whole(name=name).x if isinstance(value, Trajectory) else value, "or a Trajectory")
    if x.ndim < 3 or len(x) < 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (N+1, B, *event) with at least two states, got {tuple(x.shape)}")
    return squarable(name, x)


def flat(x: Tensor) -> Tensor:
    """States (N+1, B, *event) as vectors (N+1, B, d), in the precision for sums."""
    return x.flatten(2).to(default_dtype(x.device))

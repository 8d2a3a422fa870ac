"""Paths against their chords: deviation, lengths, norms, and the principal components of what the chord leaves.

With the ends x_0 and x_N of a path and v the unit vector of its chord x_N - x_0, what is left of a state without the
chord is r_n = (x_n - x_0) - <x_n - x_0, v> v; its length is the deviation, and its principal components are the axes
of the picture (arXiv 2405.11326, Sec. 3; arXiv 2506.10177, Sec. 3). Taught in ``notebooks/07_one_line_and_a_bend``
and ``08_the_boomerang``. Sums are made in float64 over blocks of samples: a long path in float32 is never copied whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit.checks import flag, integer
from teachkit.geometry.blocks import by_blocks
from teachkit.trajectory import Trajectory, states, whole_path


def deviation(traj: Trajectory | Tensor, relative: bool = False) -> Tensor:
    """Distance of every state to its chord, the line through both ends of its path (arXiv 2405.11326, Sec. 3).

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths.
    relative : bool
        Divide by the length of the chord.

    Returns
    -------
    Tensor
        ``(N+1, B)``, in the units of x. Zero at both ends. A path that ends where it began has no chord; then the
        distance to that point is given (and ``relative`` is refused).

    Examples
    --------
    >>> states = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])[:, None]  # one path: (3, 1, 2)
    >>> deviation(states)[:, 0].tolist(), deviation(states, relative=True)[1].tolist()
    ([0.0, 1.0, 0.0], [0.5])
    """

    relative = flag("relative", relative)

    def block(x: Tensor) -> Tensor:
        residual, _, length = _remove_chord(x)
        out = torch.linalg.vector_norm(residual, dim=-1)
        if relative and not (length > 0).all():
            raise ValueError("traj has a path that ends where it began: it has no chord to be relative to")
        return out / length if relative else out

    return by_blocks(block, states("traj", traj))


def deviation_peak(traj: Trajectory) -> tuple[Tensor, Tensor]:
    """Largest deviation of each path relative to its chord, and the noise level where it occurs.

    Parameters
    ----------
    traj : Trajectory
        The paths, kept whole.

    Returns
    -------
    peak : (B,)
        Largest deviation / chord length.
    sigma : (B,)
        Noise level of that state.

    Examples
    --------
    >>> states = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])[:, None]  # one path: (3, 1, 2)
    >>> path = Trajectory(torch.tensor([4.0, 2.0, 1.0]), states, states[:2], nfe=2)
    >>> peak, sigma = deviation_peak(path)
    >>> peak.tolist(), sigma.tolist()
    ([0.5], [2.0])
    """
    peak, index = deviation(whole_path("traj", traj), relative=True).max(0)
    return peak, traj.sigmas.to(peak)[index]


def distance_to_end(traj: Trajectory | Tensor) -> Tensor:
    """Distance of every state to the last one: for images it falls monotonically (arXiv 2405.11326, Sec. 3).

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths.

    Returns
    -------
    Tensor
        ``(N+1, B)``, in the units of x.

    Examples
    --------
    >>> states = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])[:, None]  # one path: (3, 1, 2)
    >>> distance_to_end(states)[:, 0].tolist()
    [5.0, 4.0, 0.0]
    """
    return by_blocks(lambda x: torch.linalg.vector_norm(x - x[-1], dim=-1), states("traj", traj))


def arc_length(traj: Trajectory | Tensor) -> Tensor:
    """Length of the path travelled up to every state, starting at 0.

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths.

    Returns
    -------
    Tensor
        ``(N+1, B)``, in the units of x.

    Examples
    --------
    >>> states = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])[:, None]  # one path: (3, 1, 2)
    >>> arc_length(states)[:, 0].tolist()
    [0.0, 3.0, 7.0]
    """

    def block(x: Tensor) -> Tensor:
        steps = torch.linalg.vector_norm(x.diff(dim=0), dim=-1)
        return torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])

    return by_blocks(block, states("traj", traj))


def norms(traj: Trajectory) -> tuple[Tensor, Tensor, Tensor]:
    """Norms of the state, of the denoised state and of the direction eps = (x - D) / sigma.

    Parameters
    ----------
    traj : Trajectory
        The paths, kept whole.

    Returns
    -------
    x, denoised, eps : (N, B) each
        At the N levels where the denoiser was evaluated. In high dimension |eps| stays near sqrt(d).

    Examples
    --------
    >>> states = torch.tensor([[0.0, 8.0], [0.0, 4.0], [0.0, 2.0]])[:, None]  # one path: (3, 1, 2)
    >>> path = Trajectory(torch.tensor([4.0, 2.0, 1.0]), states, torch.zeros(2, 1, 2), nfe=2)
    >>> [size[:, 0].tolist() for size in norms(path)]
    [[8.0, 4.0], [0.0, 0.0], [2.0, 2.0]]
    """
    whole_path("traj", traj, outputs=True)

    def block(pair: Tensor) -> Tensor:
        return torch.stack([torch.linalg.vector_norm(y, dim=-1) for y in (*pair, pair[0] - pair[1])])

    x, denoised, distance = by_blocks(block, traj.x[:-1], traj.denoised, batch_dim=2)
    return x, denoised, distance / traj.sigmas[:-1, None].to(distance)


def cosines(traj: Trajectory | Tensor) -> Tensor:
    """Cosine between every step of a path and its chord: 1 on a straight path.

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths.

    Returns
    -------
    Tensor
        ``(N, B)``; 0 where a step, or the chord, has no length.

    Examples
    --------
    >>> states = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [2.0, 1.0], [4.0, 0.0]])[:, None]
    >>> [round(c, 3) for c in cosines(states)[:, 0].tolist()]
    [1.0, 0.0, 1.0, 0.894]
    """

    def block(x: Tensor) -> Tensor:
        return (_unit(x.diff(dim=0)) * _unit(x[-1] - x[0])).sum(-1).clamp(-1, 1)

    return by_blocks(block, states("traj", traj))


def explained_variance(traj: Trajectory | Tensor, k: int, remove_chord: bool = False, centre: bool = True) -> Tensor:
    """Share of each path's variance in its first 1, 2, ..., k principal components: cumulative, ``(B, k)``.

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths; each gets its own principal components.
    k : int
        Number of components, at most the number of states.
    remove_chord : bool
        Remove the direction of the chord first. Without this the first component of *any* path from sigma = 80
        explains about 99.99 % and says only that the path is long; with it, the shape of the bend is measured.
    centre : bool
        Subtract the mean over the path, as principal component analysis does. The null models differ: a Brownian
        bridge has 30.4 / 60.8 / 68.4 % centred, and 60.8 / 76.0 / 82.7 % uncentred; an integrated walk, which is smooth
        as paths are, about 69 / 93 / 97 % centred.

    Returns
    -------
    Tensor
        ``(B, k)`` in [0, 1], non-decreasing along k. A path with no variance left (exactly straight) gives 1.

    Examples
    --------
    >>> s = torch.linspace(0, 1, 21)
    >>> path = torch.stack([100 * s, s * (1 - s), 0.1 * s * (1 - s) * (2 * s - 1)], 1)[:, None]  # (21, 1, 3)
    >>> explained_variance(path, 3).round(decimals=4)
    tensor([[1., 1., 1.]], dtype=torch.float64)
    >>> explained_variance(path, 3, remove_chord=True).round(decimals=4)
    tensor([[0.9933, 1.0000, 1.0000]], dtype=torch.float64)
    """
    paths = states("traj", traj)
    k = integer("k", k, 1, len(paths))
    remove_chord, centre = flag("remove_chord", remove_chord), flag("centre", centre)

    def block(x: Tensor) -> Tensor:
        y = _remove_chord(x)[0] if remove_chord else x
        size = torch.linalg.vector_norm(x - x[-1], dim=-1).amax(0) ** 2
        if centre:
            y = y - y.mean(0)
        values = torch.linalg.eigvalsh(_gram(y)).flip(-1).clamp(min=0)  # (b, min(N+1, d)), largest first
        values = torch.nn.functional.pad(values, (0, max(0, k - values.shape[-1])))
        total = values.sum(-1, keepdim=True)
        nothing = total <= size[:, None] * _rounding(x) ** 2 * len(x)
        share = values.cumsum(-1) / total.where(~nothing, torch.ones_like(total))
        return share.where(~nothing, torch.ones_like(share))[:, :k].clamp(max=1)

    return by_blocks(block, paths, batch_dim=0)


def project(traj: Trajectory | Tensor) -> Tensor:
    """Three coordinates of every path: along its chord, and along two components of what remains.

    The components are principal axes of the centred residual; the coordinates are those of the residual itself, so
    both ends of every path lie at (0, 0) in them. Signs are fixed: the entry of largest size in each of the two
    residual coordinates is positive (arXiv 2405.11326, Fig. 3).

    Parameters
    ----------
    traj : Trajectory or (N+1, B, *event)
        The paths.

    Returns
    -------
    Tensor
        ``(N+1, B, 3)``: distance along the chord from the first state, then the two residual coordinates, in the
        units of x. Coordinates that do not exist (a straight path, or d < 3) are 0.

    Examples
    --------
    >>> s = torch.linspace(0, 1, 5)
    >>> path = torch.stack([8 * s, 4 * s * (1 - s), 0 * s], 1)[:, None]  # (5, 1, 3): an arch above its chord
    >>> project(path)[2, 0, :2].round(decimals=3).tolist()
    [4.0, 1.0]
    """

    def block(x: Tensor) -> Tensor:
        residual, along, length = _remove_chord(x)
        centred = residual - residual.mean(0)
        values, vectors = torch.linalg.eigh(_gram(centred))  # (b, m), (b, m, m) with m = min(N+1, d)
        count = min(2, len(x), x.shape[-1])
        values, vectors = values.flip(-1)[:, :count], vectors.flip(-1)[..., :count]
        size = length.maximum(torch.linalg.vector_norm(x - x[0], dim=-1).amax(0))
        floor = (size[:, None] * _rounding(x)) ** 2 * len(x)
        scale = values.where(values > floor, torch.inf * torch.ones_like(values)).sqrt()
        if len(x) < x.shape[-1]:
            axes = torch.einsum("nbd,bnk->bkd", centred, vectors) / scale[..., None]  # unit vectors, or 0
        else:
            axes = vectors.mT * scale.isfinite()[..., None]
        pcs = torch.einsum("nbd,bkd->nbk", residual, axes)
        biggest = pcs.abs().argmax(0, keepdim=True)
        sign = torch.where(pcs.gather(0, biggest) < 0, -1.0, 1.0)
        out = torch.zeros(*along.shape, 3, dtype=x.dtype, device=x.device)
        out[..., 0], out[..., 1 : 1 + count] = along, pcs * sign
        return out

    return by_blocks(block, states("traj", traj))


def _unit(x: Tensor) -> Tensor:
    """Vectors (..., d) at length 1, however short they were; those without length stay 0."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.where(length > 0, torch.ones_like(length))


def _remove_chord(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x relative to its first state: what is beside the chord (N+1, b, d), along it (N+1, b); chord lengths (b,)."""
    offset = x - x[0]
    chord = offset[-1]
    length = torch.linalg.vector_norm(chord, dim=-1)
    unit = _unit(chord)
    along = (offset * unit).sum(-1)
    residual = offset - along[..., None] * unit
    residual[-1] = residual[-1] * (length == 0)[:, None]  # exactly on the chord
    return residual, along, length


def _gram(x: Tensor) -> Tensor:
    """Inner products of the states of each path (b, N+1, N+1), or of its coordinates (b, d, d) if there are fewer.

    Both have the same eigenvalues, apart from zeros, and neither is larger than the paths themselves.
    """
    y = x.transpose(0, 1)
    return y @ y.mT if len(x) < x.shape[-1] else y.mT @ y


def _rounding(x: Tensor) -> float:
    """Size, relative to the chord, below which a residual is rounding."""
    return 64 * torch.finfo(x.dtype).eps

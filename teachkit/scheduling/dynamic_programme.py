"""The dynamic programme: the cheapest way through a cost matrix in a given number of steps.

With V_1[i] = C[i, N] and V_k[i] = min_{i < j < N} C[i, j] + coefficient * V_{k-1}[j], the best schedule of K steps
costs V_K[0] (arXiv 2405.11326, Sec. 4.2). Every later cost is multiplied by the coefficient once more, so a
coefficient above 1 buys care at the end of the path with carelessness at its start.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from teachkit.checks import as_real, integer, number, shown


def shortest_path(cost: Tensor, steps: int, coefficient: float = 1.0) -> Tensor:
    """Indices of the cheapest path with exactly ``steps`` steps from the first grid point to the last.

    Parameters
    ----------
    cost : (N+1, N+1)
        Cost of jumping from i to j; only i < j is read. May be negative.
    steps : int
        From 1 to N.
    coefficient : float
        Weight by which each step's cost exceeds the one before, > 0.

    Returns
    -------
    Tensor
        ``(steps + 1,)`` int64 on the CPU, strictly increasing, first 0, last N. Ties go to the smallest index.

    Raises
    ------
    ValueError, TypeError
        For a cost matrix that is not square or holds NaN or infinity above its diagonal, too many steps, or a bad
        coefficient.

    Examples
    --------
    >>> cost = torch.tensor([[0.0, 1, 4, 9], [0, 0, 1, 4], [0, 0, 0, 1], [0, 0, 0, 0]])
    >>> shortest_path(cost, 2).tolist()
    [0, 1, 3]
    """
    return _cheapest(cost, "steps", steps, coefficient)[-1]


def shortest_paths(cost: Tensor, max_steps: int, coefficient: float = 1.0) -> list[Tensor]:
    """Cheapest paths of 1, 2, ..., ``max_steps`` steps, from one table; O(max_steps * N^2).

    Parameters
    ----------
    cost : (N+1, N+1)
        Cost of jumping from i to j; only i < j is read. May be negative.
    max_steps : int
        From 1 to N.
    coefficient : float
        Weight by which each step's cost exceeds the one before, > 0.

    Returns
    -------
    list of Tensor
        Entry k - 1 holds the k + 1 indices of the path of k steps, on the CPU.

    Raises
    ------
    ValueError, TypeError
        For a cost matrix that is not square or holds NaN or infinity above its diagonal, too many steps, or a bad
        coefficient.

    Examples
    --------
    >>> cost = torch.tensor([[0.0, 1, 4, 9], [0, 0, 1, 4], [0, 0, 0, 1], [0, 0, 0, 0]])
    >>> [path.tolist() for path in shortest_paths(cost, 3)]
    [[0, 3], [0, 1, 3], [0, 1, 2, 3]]
    """
    return _cheapest(cost, "max_steps", max_steps, coefficient)


def _cheapest(cost: Tensor, name: str, max_steps: int, coefficient: float) -> list[Tensor]:
    """`shortest_paths`; ``name`` is what an error calls the number of steps."""
    c, coefficient = _check(cost), number("coefficient", coefficient, above=0)
    n = len(c) - 1
    max_steps = integer(name, max_steps, 1, n)
    value, choices = c[:, n].copy(), []
    for _ in range(max_steps - 1):
        # c is infinite on and below its diagonal; the last point must not be reached early.
        through = c[:, :n] + coefficient * value[None, :n]  # (N+1, N)
        choice = through.argmin(1)  # the first of equals
        value = np.take_along_axis(through, choice[:, None], 1)[:, 0]
        choices.append(choice)
    out = []
    for steps in range(1, max_steps + 1):
        path = [0]
        for k in range(steps - 2, -1, -1):
            path.append(int(choices[k][path[-1]]))
        out.append(torch.tensor([*path, n]))
    return out


def path_cost(cost: Tensor, path: Tensor, coefficient: float = 1.0) -> float:
    """Objective of a path: C[p0, p1] + coefficient * (C[p1, p2] + coefficient * (...)).

    Parameters
    ----------
    cost : (N+1, N+1)
        Cost of jumping from i to j, such as `cost_matrix` gives; only i < j is read.
    path : (k+1,)
        Increasing indices, two or more.
    coefficient : float
        Weight by which each step's cost exceeds the one before, > 0.

    Returns
    -------
    float
        In the units of ``cost``.

    Raises
    ------
    ValueError, TypeError
        For a cost matrix that is not square or holds NaN or infinity above its diagonal, a path that does not
        increase or leaves the matrix, or a bad coefficient.

    Examples
    --------
    >>> cost = torch.tensor([[0.0, 1, 4, 9], [0, 0, 1, 4], [0, 0, 0, 1], [0, 0, 0, 0]])
    >>> path_cost(cost, torch.tensor([0, 1, 3]), 1.5)  # 1 + 1.5 * 4
    7.0
    """
    c, at = torch.from_numpy(_check(cost)), as_real("path", path).cpu()
    if at.ndim != 1 or len(at) < 2 or at.is_floating_point():
        raise ValueError(f"path must hold two or more indices of grid points, got {shown(path)}")
    if int(at[0]) < 0 or int(at[-1]) >= len(c) or not bool((at.diff() > 0).all()):
        raise ValueError(f"path must hold increasing indices from 0 to {len(c) - 1}, got {at.tolist()}")
    coefficient = number("coefficient", coefficient, above=0)
    jumps = c[at[:-1], at[1:]]
    weights = coefficient ** torch.arange(len(jumps), dtype=torch.float64)
    return float((weights * jumps).sum())


def _check(cost: Tensor) -> np.ndarray:
    """Validated copy, infinite on and below the diagonal."""
    c = as_real("cost", cost, torch.float64).detach().cpu().double().numpy().copy()
    if c.ndim != 2 or c.shape[0] != c.shape[1] or len(c) < 2:
        raise ValueError(f"cost must be a square matrix of at least 2 grid points, got shape {c.shape}")
    above = np.triu(np.ones_like(c, dtype=bool), 1)
    if not np.isfinite(c[above]).all():
        raise ValueError("cost must be finite above its diagonal, got NaN or infinity")
    c[~above] = np.inf
    return c

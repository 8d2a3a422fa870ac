"""How the end of a multistep path answers to every number that decides it: its levels and all its weights.

A small change of a weight of step n moves x_{n+1} along the direction that it weighs; a change of a level moves the
direction that is taken there. From then on every such tangent t follows the path,

    t_{n+1} = t_n + sum over j of w_{nj} dd_j,     dd = (t - dD) / s - (ds / s) d,

where dD, the change of the denoised output along t (and along the level), costs one evaluation: a Jacobian-vector
product, here by a small shift, so that any model will do. A number costs nothing before the step where it enters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHIFT = 1e-2  # of the noise level, root mean square: so wide that half precision still tells what it changes


def tangent_cost(rows: Sequence[int], levels: bool) -> int:
    """Evaluations that `end_tangents` takes for a sample beside those of the path, with rows of so many weights."""
    alive = total = 0
    for n, length in enumerate(rows):
        alive += levels and n > 0
        total += alive
        alive += length
    return total


@torch.no_grad()
def end_tangents(
    evaluate: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Tensor,
    rows: Sequence[Tensor],
    levels: bool,
    shift: float = SHIFT,
) -> Tensor:
    """Derivative (B, d, k) float64 of a multistep path's end by the logarithms of inner levels, then by all weights.

    ``rows`` holds the weights of each step, newest direction first; without ``levels`` these are no numbers.
    """
    inner = len(rows) - 1 if levels else 0
    first = [inner + sum(map(len, rows[:n])) for n in range(len(rows))]  # where the weights of each step begin
    number, tangents = list[int](), list[Tensor]()  # of those that have entered: which it is, and (B, *event)
    directions, moved = list[Tensor](), list[list[Tensor]]()  # newest first: d, and how it moves with each tangent
    for n, (row, sigma) in enumerate(zip(rows, sigmas.tolist())):
        enters = levels and n > 0
        if enters:
            number.append(n - 1)
            tangents.append(torch.zeros_like(x))
        denoised = evaluate(x, sigma)
        directions.insert(0, (x - denoised) / sigma)
        moved.insert(0, [])
        for k, t in enumerate(tangents):
            ds = sigma if enters and k == len(tangents) - 1 else 0.0
            by = shift * sigma / max(float(t.double().pow(2).mean().sqrt()), ds, 1e-30)
            change = (evaluate(x + by * t, sigma + by * ds) - denoised) / by
            moved[0].append((t - change) / sigma - ds / sigma * directions[0])
        weighed = list(zip(row.tolist(), directions, moved))
        for w, _, along in weighed:
            tangents[: len(along)] = [t + w * dd for t, dd in zip(tangents, along)]
        number += range(first[n], first[n] + len(row))
        tangents += directions[: len(row)]
        x = x + sum(w * d for w, d, _ in weighed)
    order = sorted(range(len(number)), key=number.__getitem__)
    return torch.stack([tangents[k].flatten(1).double() for k in order], -1)

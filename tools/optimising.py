"""The optimiser of the small networks that tools train: AdamW, a short warm-up, then a cosine to zero."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

WARM_UP = 100  # steps


def adamw(net: nn.Module, rate: float, weight_decay: float, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """For so many steps in all; both are to be stepped once in each."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=weight_decay)

    def factor(k: int) -> float:
        return min(1.0, (k + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * k / steps))

    return optimizer, LambdaLR(optimizer, factor)

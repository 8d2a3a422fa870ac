"""The exact denoiser of a finite data set, in chunks and safe at any noise level.

D(x; sigma) = sum_i w_i y_i with w = softmax(-|x - y_i|^2 / (2 sigma^2)). Taught in
``notebooks/01_noise_and_denoising`` and ``notebooks/05_high_dimensions``; arXiv 2506.10177, Lemma 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from teachkit import checks
from teachkit.checks import integer, number
from teachkit.denoisers.base import DenoiserModule, check_data, default_dtype, drawing_device, finite

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Empirical(DenoiserModule):
    """The exact denoiser of a finite data set: a softmax-weighted mean of all its points (arXiv 2506.10177, Lemma 3).

    D(x; sigma) = sum_i w_i y_i with w = softmax(-|x - y_i|^2 / (2 sigma^2)), the mean-shift map of a Gaussian kernel
    density estimate with bandwidth sigma. Exact, in memory O(B * chunk): two matrix products per chunk of data and a
    running softmax.

    Parameters
    ----------
    data : (N, *event)
        The data set y. It is not copied if already contiguous.
    bandwidth : float
        Standard deviation of a Gaussian put on every point (0: the points themselves). With a bandwidth this is the
        isotropic `GaussianMixture` with a component per point.
    labels : (N,) integers, optional
        Classes of the points; ``D(x, sigma, labels)`` then averages only over points of the class asked for.
    chunk : int
        Number of data points handled at a time.

    Raises
    ------
    ValueError, TypeError
        For empty data, values that are not finite, a negative bandwidth, labels of the wrong shape.
    """

    data: Tensor  # (N, d)
    half_norms: Tensor  # (N,)
    classes: Tensor | None  # (N,)

    # A float32 logit may be off by this much before it is computed again with more care.
    _logit_tolerance = 1e-3
    _candidates = 32

    def __init__(self, data: Tensor, bandwidth: float = 0.0, labels: Tensor | None = None, chunk: int = 4096) -> None:
        super().__init__()
        y = check_data(data)
        bandwidth, chunk = number("bandwidth", bandwidth, least=0), integer("chunk", chunk, 1)
        self.event_shape, self.bandwidth, self.chunk = tuple(y.shape[1:]), float(bandwidth), chunk
        flat = y.reshape(len(y), -1).contiguous()
        self.register_buffer("data", flat)
        self.register_buffer("half_norms", 0.5 * torch.linalg.vector_norm(flat, dim=1) ** 2)
        if labels is not None:
            labels = checks.class_labels("labels", labels, len(y), y.device)
            self.num_classes = int(labels.max()) + 1
            if (labels.bincount(minlength=self.num_classes) == 0).any():
                raise ValueError(f"labels must use every class from 0 to {self.num_classes - 1} at least once")
        self.register_buffer("classes", labels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Empirical:
        """Where ``.to(dtype)`` and its kin pass through: norms follow the converted data, at its new precision."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.half_norms = 0.5 * torch.linalg.vector_norm(self.data, dim=1) ** 2
        return self

    def __len__(self) -> int:
        return len(self.data)

    def _blurred(self, sigma: Tensor) -> Tensor:
        """Standard deviation of noise and bandwidth together; must be positive."""
        total = (sigma**2 + self.bandwidth**2).sqrt()
        if not (total > 0).all():
            raise ValueError("sigma must be > 0 for a data set without bandwidth")
        return total

    def _logits(self, x: Tensor, s: Tensor, labels: Tensor | None, start: int) -> Tensor:
        """-|x - y|^2 / (2 s^2) up to a constant of x, for one chunk: (B, chunk)."""
        y = self.data[start : start + self.chunk].to(x.dtype)
        if x.dtype == self.data.dtype:
            half = self.half_norms[start : start + self.chunk]
        else:  # asked for more precision than the stored norms have
            half = 0.5 * (y**2).sum(1)
        logits = torch.addmm(-half, x, y.mT) / s**2
        if labels is not None and self.classes is not None:
            logits = logits.masked_fill(self.classes[start : start + self.chunk] != labels[:, None], -math.inf)
        return logits

    def _softmax_mean(self, x: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """Softmax-weighted mean of the data by a running softmax over chunks: (B, d)."""
        top = x.new_full((len(x), 1), -math.inf)  # running maximum
        norm, mean = torch.zeros_like(top), torch.zeros_like(x)  # running normaliser (B, 1) and sum (B, d)
        smallest = math.log(torch.finfo(x.dtype).tiny) + 7
        for start in range(0, len(self.data), self.chunk):
            logits = self._logits(x, s, labels, start)
            new = torch.maximum(top, logits.detach().amax(1, keepdim=True))
            below = logits - new.clamp(min=torch.finfo(x.dtype).min)
            # Weights too small to matter become 0, not denormal numbers, which slow the product down tenfold.
            w = below.masked_fill(below < smallest, -math.inf).exp()  # (B, chunk)
            keep = (top - new).nan_to_num(nan=0.0, neginf=-math.inf).exp()
            y = self.data[start : start + self.chunk].to(x.dtype)
            norm = norm * keep + w.sum(1, keepdim=True)
            mean = torch.addmm(mean * keep, w, y)
            top = new
        return mean / norm

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        s = self._blurred(sigma)
        eps = torch.finfo(x.dtype).eps
        biggest = float(self.half_norms.max().mul(2).sqrt())
        reach = torch.linalg.vector_norm(x.detach(), dim=1, keepdim=True) * biggest + biggest**2
        # Rounding may matter in these rows. An infinite x is left to become NaN, for the caller to see.
        careful = ((4 * eps * reach / s**2 > self._logit_tolerance) & reach.isfinite())[:, 0]
        if x.dtype == torch.float64 or x.device.type == "mps" or not careful.any():
            mean = self._softmax_mean(x, s, labels)
        else:
            mean = torch.empty_like(x)
            s = s.expand(len(x), 1)
            for rows, rule in ((~careful, self._softmax_mean), (careful, self._careful_mean)):
                if rows.any():
                    mean[rows] = rule(x[rows], s[rows], None if labels is None else labels[rows])
        if not self.bandwidth:
            return mean
        return (self.bandwidth**2 * x + sigma**2 * mean) / (self.bandwidth**2 + sigma**2)

    def _careful_mean(self, x: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """The same mean in float32, where rounding of |x - y|^2 could change the weights.

        One float32 pass finds the few nearest points of each row; their distances are then computed again from
        differences in float64. Rows with many near points are done wholly in float64.
        """
        k = min(self._candidates, len(self.data))
        best = x.new_full((len(x), 0), 0.0)
        index = torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
        with torch.no_grad():
            for start in range(0, len(self.data), self.chunk):
                value, at = self._logits(x, s, labels, start).topk(min(k, len(self.data) - start, self.chunk), 1)
                best, order = torch.cat([best, value], 1).topk(min(k, best.shape[1] + value.shape[1]), 1)
                index = torch.cat([index, at + start], 1).gather(1, order)
            biggest = float(self.half_norms.max().mul(2).sqrt())
            reach = torch.linalg.vector_norm(x, dim=1, keepdim=True) * biggest + biggest**2
            slack = 40 + 8 * torch.finfo(x.dtype).eps * reach / s**2  # exp(-40) is nothing beside 1
            near = best >= best[:, :1] - slack  # (B, k): everything else has no weight
            few = ~near[:, -1] if k < len(self.data) else torch.ones_like(near[:, 0])
        out = torch.empty_like(x)
        many = (~few).nonzero()[:, 0]
        if len(many):
            rows = x[many].double(), s[many].double(), None if labels is None else labels[many]
            out[many] = self._softmax_mean(*rows).to(x.dtype)
        block = max(1, 2**22 // (k * self.dim))
        for rows in few.nonzero()[:, 0].split(block) if few.any() else ():
            m = int(near[rows].sum(1).max())
            y = self.data[index[rows, :m]].double()  # (b, m, d)
            d2 = ((x[rows, None].double() - y) ** 2).sum(-1)
            logits = (-0.5 * d2 / s[rows].double() ** 2).masked_fill(~near[rows, :m], -math.inf)
            out[rows] = torch.einsum("bm,bmd->bd", logits.softmax(1), y).to(x.dtype)
        return out

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        wide = x.to(default_dtype(x.device))  # log densities differ by |x|^2 / sigma^2: float32 is not enough
        s = self._blurred(sigma).to(wide.dtype)
        total = wide.new_full((len(x),), -math.inf)
        for start in range(0, len(self.data), self.chunk):
            total = torch.logaddexp(total, self._logits(wide, s, labels, start).logsumexp(1))
        count = wide.new_full((1,), len(self.data))
        if labels is not None and self.classes is not None:
            count = self.classes.bincount()[labels].to(wide.dtype)
        constant = count.log() + self.dim * (s[:, 0].log() + _HALF_LOG_2PI)
        return (total - 0.5 * (wide**2).sum(1) / s[:, 0] ** 2 - constant).to(x.dtype)

    def weights(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Posterior probability of every data point given x: ``(B, N)``, rows sum to 1. Memory O(B * N)."""
        flat, s = self._check(x, sigma)
        labels, wide = self._check_labels(labels, len(x)), flat.to(default_dtype(x.device))
        starts = range(0, len(self.data), self.chunk)
        s = self._blurred(s).to(wide.dtype)
        return finite(torch.cat([self._logits(wide, s, labels, i) for i in starts], 1).softmax(1).to(x.dtype), x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` points of the data set, with replacement, plus noise of the bandwidth: ``(n, *event)``.

        ``generator`` may lie on the CPU or beside the data.
        """
        n, generator = integer("n", n, 1), checks.generator("generator", generator)
        device = drawing_device(generator, self.data)
        index = torch.randint(len(self.data), (n,), generator=generator, device=device).to(self.data.device)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.data.dtype, device=device)
        return (self.data[index] + self.bandwidth * noise.to(self.data.device)).reshape(n, *self.event_shape)

"""The exact denoiser of a finite data set, in chunks and safe at any noise level.

D(x; sigma) = sum_i w_i y_i with w = softmax(-|x - y_i|^2 / (2 sigma^2)). Taught in
``notebooks/01_noise_and_denoising`` and ``notebooks/06_high_dimensions``; arXiv 2506.10177, Lemma 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import threshold

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
        The data set y. It is not copied if already contiguous; data far from the origin are kept a second time,
        relative to a point among them, so that results do not depend on where the origin lies.
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

    Examples
    --------
    >>> D = Empirical(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    >>> x = torch.tensor([[0.5], [0.9]], dtype=torch.float64)
    >>> D(x, 0.5).round(decimals=3).flatten().tolist()  # the nearer point weighs more
    [0.5, 0.832]
    >>> D.weights(x, 0.1).round(decimals=3).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """

    data: Tensor  # (N, d)
    centre: Tensor  # (d,)
    centred: Tensor | None  # (N, d): data - centre; the data themselves where the centre is 0
    half_norms: Tensor  # (N,)
    radius: Tensor  # (): the largest norm
    classes: Tensor | None  # (N,)

    # A logit may be off by this much, in single and in double precision, before it is computed again with more care.
    _logit_tolerance = (1e-3, 1e-7)
    _candidates = 32

    def __init__(self, data: Tensor, bandwidth: float = 0.0, labels: Tensor | None = None, chunk: int = 4096) -> None:
        super().__init__()
        y = check_data(data)
        bandwidth, chunk = number("bandwidth", bandwidth, least=0), integer("chunk", chunk, 1)
        self.event_shape, self.bandwidth, self.chunk = tuple(y.shape[1:]), float(bandwidth), chunk
        self.register_buffer("data", y.reshape(len(y), -1).contiguous())
        for name in ("centre", "centred", "half_norms", "radius"):
            self.register_buffer(name, None, persistent=False)
        self._prepare()
        if labels is not None:
            labels = checks.class_labels("labels", labels, len(y), y.device)
            self.num_classes = int(labels.max()) + 1
            if (labels.bincount(minlength=self.num_classes) == 0).any():
                raise ValueError(f"labels must use every class from 0 to {self.num_classes - 1} at least once")
        self.register_buffer("classes", labels)

    def _prepare(self) -> None:
        """What follows from the data: an origin near them, the data seen from there, and half their squared norms.

        Matrix products give |x|^2 + |y|^2 - 2 x.y, which cancels far from the origin. A coordinate in which all data
        lie closer to one another than to 0 is moved, by subtractions that are exact (Sterbenz 1974).
        """
        low, high = self.data.detach().aminmax(dim=0)
        near, far = low.abs().minimum(high.abs()), low.abs().maximum(high.abs())
        centre = torch.where((low.sign() * high.sign() > 0) & (far <= 2 * near), low / 2 + high / 2, 0.0)
        size, left = torch.linalg.vector_norm(far), torch.linalg.vector_norm((high - centre).maximum(centre - low))
        moved = not self.data.is_meta and bool(left < size / 2)  # worth a copy
        self.centre = centre if moved else torch.zeros_like(centre)
        self.centred = self.data - centre if moved else self.data
        self.half_norms = 0.5 * torch.linalg.vector_norm(self.centred, dim=1) ** 2
        self.radius = self.half_norms.max().mul(2).sqrt()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Empirical:
        """Where ``.to(dtype)`` and its kin pass through: what follows from the data is made anew."""
        self.centred = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._prepare()

    def __len__(self) -> int:
        return len(self.data)

    def _points(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Some of the data, seen from the centre."""
        assert self.centred is not None
        return self.centred[which].to(dtype)

    def _blurred(self, sigma: Tensor) -> Tensor:
        """Standard deviation of noise and bandwidth together; must be positive."""
        total = (sigma**2 + self.bandwidth**2).sqrt()
        if not (total > 0).all():
            raise ValueError("sigma must be > 0 for a data set without bandwidth")
        return total

    def _wide(self, x: Tensor) -> Tensor:
        """x seen from the centre, in double precision where there is one."""
        return x.to(default_dtype(x.device)) - self.centre

    def _chunks(self) -> range:
        return range(0, len(self.data), self.chunk)

    def _logits(self, x: Tensor, s: Tensor, labels: Tensor | None, start: int, first: Tensor | None = None) -> Tensor:
        """-|x - y|^2 / (2 s^2) for one chunk, (B, chunk), up to a constant of x.

        That constant is -|x - first|^2 / (2 s^2) where a point near x is given, (B, d): then nothing cancels.
        """
        y = self._points(slice(start, start + self.chunk), x.dtype)
        if first is not None:
            logits = _differences(x, s, y, first)
        else:
            stored = x.dtype == self.data.dtype  # or asked for more precision than the stored norms have
            half = self.half_norms[start : start + self.chunk] if stored else 0.5 * (y**2).sum(1)
            logits = torch.addmm(-half, x, y.mT) / s**2
        if labels is not None and self.classes is not None:
            logits = logits.masked_fill(self.classes[start : start + self.chunk] != labels[:, None], -math.inf)
        return logits

    def _reach(self, x: Tensor) -> Tensor:
        """Bound of |x.y| + |y|^2, whose rounding is that of the logits: (B, 1)."""
        radius = self.radius.to(x.dtype)
        return torch.linalg.vector_norm(x.detach(), dim=1, keepdim=True) * radius + radius**2

    def _doubtful(self, x: Tensor, s: Tensor) -> Tensor:
        """Rows (B,) in which rounding of the logits may matter. An infinite x is left to become NaN, to be seen."""
        reach = self._reach(x)
        tolerance = self._logit_tolerance[x.dtype == torch.float64]
        return ((4 * torch.finfo(x.dtype).eps * reach / s**2 > tolerance) & reach.isfinite())[:, 0]

    def _softmax_mean(self, x: Tensor, s: Tensor, labels: Tensor | None, first: Tensor | None = None) -> Tensor:
        """Softmax-weighted mean of the data by a running softmax over chunks: (B, d)."""
        lowest, smallest = torch.finfo(x.dtype).min, math.log(torch.finfo(x.dtype).tiny) + 7
        so_far: tuple[Tensor, Tensor, Tensor] | None = None  # running maximum, normaliser (B, 1) and sum (B, d)
        for start in self._chunks():
            logits = self._logits(x, s, labels, start, first)
            top = logits.detach().amax(1, keepdim=True)
            top = top if so_far is None else torch.maximum(so_far[0], top)
            below = logits.sub_(top.clamp(min=lowest)).clamp(min=smallest - 1)
            # Weights too small to matter become 0: denormal numbers slow the product down tenfold, and arguments
            # for which there is no normal number the exponential.
            w = threshold(below.exp_(), math.exp(smallest), 0.0)  # (B, chunk)
            norm, y = w.sum(1, keepdim=True), self._points(slice(start, start + self.chunk), x.dtype)
            if so_far is None:
                so_far = top, norm, w @ y
            else:
                keep = (so_far[0] - top).nan_to_num(nan=0.0, neginf=-math.inf).exp()
                so_far = top, so_far[1] * keep + norm, torch.addmm(so_far[2] * keep, w, y)
        assert so_far is not None  # there is one point at least
        return so_far[2] / so_far[1]

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        wide, s = self._wide(x), self._blurred(sigma)
        mean = self._mean(wide, s, labels, x.dtype)
        if self.bandwidth:
            mean = (self.bandwidth**2 * wide.to(x.dtype) + sigma**2 * mean) / (self.bandwidth**2 + sigma**2)
        return mean + self.centre

    def _mean(self, wide: Tensor, s: Tensor, labels: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The mean of the data under the weights, computed in ``dtype`` where that is enough: (B, d)."""
        x = wide.to(dtype)
        doubtful = self._doubtful(x, s)
        if not checks.anywhere(doubtful):
            return self._softmax_mean(x, s, labels)
        s = s.expand(len(x), 1)
        if bool(doubtful.all()):
            return self._careful_mean(wide, s, labels).to(dtype)
        mean = torch.empty_like(x)
        for rows, rule in ((~doubtful, self._softmax_mean), (doubtful, self._careful_mean)):
            if rows.any():
                given = x if rule == self._softmax_mean else wide
                mean[rows] = rule(given[rows], s[rows], None if labels is None else labels[rows]).to(dtype)
        return mean

    def _careful_mean(self, wide: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """The same mean where rounding of |x - y|^2 could change the weights.

        One pass in the precision of s finds the few nearest points of each row; their distances are then compared
        by differences, in double precision. Rows with many near points are done wholly that way.
        """
        few, many, near, index = self._nearest(wide, s, labels)

        def mean(*given: Tensor) -> Tensor:
            first, gap, logits = self._compare(*given)
            return first + torch.einsum("bm,bmd->bd", logits.softmax(1), gap)

        if len(few) == 1 and not len(many):  # all rows in one block
            return mean(wide, s, near, index)
        out = torch.empty_like(wide)
        if len(many):
            own = None if labels is None else labels[many]
            if s.dtype != wide.dtype:
                out[many] = self._mean(wide[many], s[many].to(wide), own, wide.dtype)
            else:
                first = self._points(index[many, 0], wide.dtype)
                out[many] = self._softmax_mean(wide[many], s[many], own, first)
        for rows in few:
            out[rows] = mean(wide[rows], s[rows], near[rows], index[rows])
        return out

    def _compare(self, wide: Tensor, s: Tensor, near: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest point (b, d), the others from there (b, m, d), and their logits beside its (b, m)."""
        m = int(near.sum(1).max())
        y = self._points(index[:, :m], wide.dtype)
        first, gap = y[:, 0], y - y[:, :1]
        return first, gap, _relative(gap, wide - first, s.to(wide)).masked_fill(~near[:, :m], -math.inf)

    @torch.no_grad()
    def _nearest(
        self, wide: Tensor, s: Tensor, labels: Tensor | None
    ) -> tuple[Sequence[Tensor], Tensor, Tensor, Tensor]:
        """The nearest points of every row that may have weight, nearest first, from one pass in the precision of s.

        Rows with few of them, in blocks; rows with many; which of the nearest may have weight, and their numbers,
        (B, k) each. Nothing else has weight.
        """
        x, k = wide.to(s.dtype), min(self._candidates, len(self.data))
        slack = 40 + 8 * torch.finfo(x.dtype).eps * self._reach(x) / s**2  # exp(-40) is nothing beside 1
        found: list[tuple[Tensor, Tensor]] = []
        for start in self._chunks():
            value, at = _largest(self._logits(x, s, labels, start), k, slack)
            found.append((value, at + start))
            if start:  # two are merged into one
                value, index = (torch.cat(pair, 1) for pair in zip(*found))
                value, order = value.topk(min(k, value.shape[1]), 1)
                found = [(value, index.gather(1, order))]
        best, index = found[0]
        near = best >= best[:, :1] - slack
        crowded = (near.sum(1) >= k) & (k < len(self.data))
        few, many = (~crowded).nonzero()[:, 0], crowded.nonzero()[:, 0]
        return few.split(max(1, 2**22 // (k * self.dim))) if len(few) else (), many, near, index

    def _log_prob(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        wide = self._wide(x)  # log densities differ by |x - y|^2 / sigma^2: float32 is not enough
        s = self._blurred(sigma).to(wide.dtype)
        total, best = wide.new_full((2, len(x)), -math.inf)
        index = torch.zeros_like(best, dtype=torch.long)
        for start in self._chunks():
            logits = self._logits(wide, s, labels, start)
            total = torch.logaddexp(total, logits.logsumexp(1))
            value, at = logits.detach().max(1)
            index = torch.where(value > best, at + start, index)
            best = best.maximum(value)
        first = self._points(index, wide.dtype)  # log p is that of one near point, and the others beside it
        own = ((wide - first / 2) * first).sum(1) / s[:, 0] ** 2
        log_p = total - own - 0.5 * ((wide - first) ** 2).sum(1) / s[:, 0] ** 2
        doubtful = self._doubtful(wide, s)
        if checks.anywhere(doubtful):
            for rows in doubtful.nonzero()[:, 0].split(max(1, 2**22 // len(self.data))):
                logits, first = self._careful_logits(wide, s, labels, rows)
                far = 0.5 * ((wide[rows] - first) ** 2).sum(1) / s.expand(len(wide), 1)[rows, 0] ** 2
                log_p = log_p.index_put((rows,), logits.logsumexp(1) - far)
        count = wide.new_full((1,), len(self.data))
        if labels is not None and self.classes is not None:
            count = self.classes.bincount()[labels].to(wide.dtype)
        return (log_p - count.log() - self.dim * (s[:, 0].log() + _HALF_LOG_2PI)).to(x.dtype)

    def weights(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Posterior probability of every data point given x: ``(B, N)``, rows sum to 1. Memory O(B * N)."""
        flat, s = self._check(x, sigma)
        labels, wide = self._check_labels(labels, len(x)), self._wide(flat)
        s = self._blurred(s).to(wide.dtype)
        logits = torch.cat([self._logits(wide, s, labels, i) for i in self._chunks()], 1)
        doubtful = self._doubtful(wide, s)
        if checks.anywhere(doubtful):
            logits = logits.index_put((doubtful,), self._careful_logits(wide, s, labels, doubtful)[0])
        return finite(logits.softmax(1).to(x.dtype), x)

    def _careful_logits(self, wide: Tensor, s: Tensor, labels: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor]:
        """All logits of some rows by differences, beside that of a near point (b, N); and that point (b, d)."""
        wide, s, labels = wide[rows], s.expand(len(wide), 1)[rows], None if labels is None else labels[rows]
        few, many, near, index = self._nearest(wide, s, labels)
        out, first = wide.new_full((len(wide), len(self.data)), -math.inf), self._points(index[:, 0], wide.dtype)
        for part in few:
            logits = self._compare(wide[part], s[part], near[part], index[part])[2]
            out[part] = out[part].scatter(1, index[part, : logits.shape[1]], logits)
        if len(many):
            given = wide[many], s[many], None if labels is None else labels[many]
            out[many] = torch.cat([self._logits(*given, start, first[many]) for start in self._chunks()], 1)
        return out, first

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` points of the data set, with replacement, plus noise of the bandwidth: ``(n, *event)``.

        ``generator`` may lie on the CPU or beside the data.
        """
        n, generator = integer("n", n, 1), checks.generator("generator", generator)
        device = drawing_device(generator, self.data)
        index = torch.randint(len(self.data), (n,), generator=generator, device=device).to(self.data.device)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.data.dtype, device=device)
        return (self.data[index] + self.bandwidth * noise.to(self.data.device)).reshape(n, *self.event_shape)


def _largest(logits: Tensor, k: int, slack: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest of each row and where they are, or fewer if none of the others comes within ``slack`` of the first.

    Two or four take a tenth of the time of 32.
    """
    for count in (2, 4, k):
        value, at = logits.topk(min(count, k, logits.shape[1]), 1)
        if bool((value[:, -1:] < value[:, :1] - slack).all()):
            break
    return value, at


def _relative(gap: Tensor, offset: Tensor, s: Tensor) -> Tensor:
    """(|x - f|^2 - |x - y|^2) / (2 s^2) from gap = y - f, (b, m, d), and offset = x - f, (b, d): (b, m).

    It is gap . (offset - gap / 2) / s^2: no two large numbers are subtracted, however far x is.
    """
    return (torch.einsum("bmd,bd->bm", gap, offset) - 0.5 * (gap**2).sum(-1)) / s**2


def _differences(x: Tensor, s: Tensor, y: Tensor, first: Tensor) -> Tensor:
    """`_relative` for all points y (m, d), in blocks: (b, m)."""
    parts = []
    for points in y.split(max(1, 2**20 // y.shape[1])):
        rows = max(1, 2**20 // points.numel())
        blocks = zip(first.split(rows), x.split(rows), s.expand(len(x), 1).split(rows))
        parts.append(torch.cat([_relative(points - f[:, None], u - f, level) for f, u, level in blocks]))
    return torch.cat(parts, 1)

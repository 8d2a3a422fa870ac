"""Answers to assignment 1 with which its tests are tested: right ones written differently, wrong ones as people err."""

# ruff: noqa: E501  (a table of edits reads better with one edit a line)
from __future__ import annotations

from .marking import Answers, Desk, edited

NAME = "A1_denoisers_and_mean_shift"

OWN = """
points, few, place = own_clusters(ID)


def look(s):
    w = torch.softmax(-((place - points) ** 2).sum(1) / (2 * s * s), 0)
    first = points[:, 0]
    return float((w * (first - (w * first).sum()) ** 2).sum().sqrt()), s, float(w[:few].sum())


x = place
for s in [5.0, 3.0, 2.0, 1.5, 1.0, 0.8, 0.6, 0.3]:
    x = meanshift.mean_shift(Empirical(points), x, s, max_steps=1000, tolerance=1e-4)[-1]
own_numbers = (*max(map(look, LEVELS)), float(x[0, 0]))
"""
COIN = """
p = own_coin(ID)
z = torch.linspace(-6, 6, 6001, dtype=torch.float64)
x, weights = 80 * z, torch.exp(-(z**2) / 2)
levels = torch.logspace(math.log10(80), -3, 3000, dtype=torch.float64).tolist()
for s, t in zip(levels, levels[1:]):
    plus = torch.sigmoid(2 * x / s**2 + math.log((1 - p) / p))
    f = torch.where(plus > 0.5, 1.0, -1.0)
    x = x + (t - s) * (x - f) / s
own_share = float((weights * (x < 0)).sum() / weights.sum())
"""
NUMBERS_ONLY = ("a1_own_numbers", "a1_own_share")  # their marks are for numbers: other code may give the same

RIGHT: Answers = {
    "a1_posterior_mean": [
        (
            "loops in NumPy, the largest logarithm subtracted by hand",
            """
def posterior_mean(x, noise, weights, means, covariances):
    x, noise, weights, means, covariances = (np.asarray(v) for v in (x, noise, weights, means, covariances))
    out = np.zeros_like(x)
    for b in range(len(x)):
        logs, guesses = [], []
        for k in range(len(weights)):
            total = covariances[k] + noise
            offset = x[b] - means[k]
            logs.append(np.log(weights[k]) - 0.5 * offset @ np.linalg.solve(total, offset)
                        - 0.5 * np.linalg.slogdet(total)[1])
            guesses.append(means[k] + covariances[k] @ np.linalg.solve(total, offset))
        share = np.exp(np.array(logs) - max(logs))
        out[b] = share @ np.array(guesses) / share.sum()
    return out
""",
        ),
        (
            "einsum over all components, explicit inverses",
            """
def posterior_mean(x, noise, weights, means, covariances):
    total = covariances + noise
    inverse = torch.linalg.inv(total)
    offset = x[:, None] - means
    log_pi = weights.log() - 0.5 * torch.einsum("bki,kij,bkj->bk", offset, inverse, offset) - 0.5 * total.logdet()
    r = means + torch.einsum("kij,kjl,bkl->bki", covariances, inverse, offset)
    return torch.einsum("bk,bki->bi", log_pi.softmax(-1), r)
""",
        ),
        (
            "float32, with the class of torch.distributions",
            """
def posterior_mean(x, noise, weights, means, covariances):
    x, noise, weights, means, covariances = (v.float() for v in (x, noise, weights, means, covariances))
    gaussians = torch.distributions.MultivariateNormal(means, covariances + noise)
    pi = (gaussians.log_prob(x[:, None]) + weights.log()).softmax(1)
    kept = torch.linalg.solve(covariances + noise, covariances).mT
    r = means + ((x[:, None] - means)[:, :, None] * kept).sum(-1)
    return (pi[..., None] * r).sum(1)
""",
        ),
        (
            "in coordinates in which the noise is round",
            """
def posterior_mean(x, noise, weights, means, covariances):
    half = torch.linalg.cholesky(noise)
    inverse = torch.linalg.inv(half)
    u, m, S = x @ inverse.T, means @ inverse.T, inverse @ covariances @ inverse.T
    value, vector = torch.linalg.eigh(S)
    value = value.clamp(min=0)
    along = torch.einsum("kij,bki->bkj", vector, u[:, None] - m)
    log_pi = weights.log() - (along**2 / (value + 1)).sum(-1) / 2 - torch.log1p(value).sum(-1) / 2
    r = m + torch.einsum("kij,bkj->bki", vector, along * value / (value + 1))
    log_pi = log_pi - torch.logsumexp(log_pi, 1, keepdim=True)
    return torch.einsum("bk,bki->bi", log_pi.exp(), r) @ half.T
""",
        ),
        (
            "Tweedie with automatic differentiation",
            """
def posterior_mean(x, noise, weights, means, covariances):
    z = x.detach().clone().requires_grad_(True)
    d = z.shape[1]
    total = covariances + noise
    offset = z[:, None] - means
    log_p = torch.logsumexp(weights.log() - 0.5 * (offset * torch.linalg.solve(total, offset[..., None])[..., 0]).sum(-1)
                            - 0.5 * total.logdet(), 1)
    (score,) = torch.autograd.grad(log_p.sum(), z)
    return (z + score @ noise).detach()
""",
        ),
    ],
    "a1_tweedie": [
        (
            "NumPy, sample by sample",
            """
def tweedie(log_prob, z, a, s):
    z = np.asarray(z)
    out = np.empty_like(z)
    h = s / 1000
    for b in range(z.shape[0]):
        for i in range(z.shape[1]):
            up, down = z[b : b + 1].copy(), z[b : b + 1].copy()
            up[0, i] += h
            down[0, i] -= h
            slope = (float(log_prob(torch.tensor(up))[0]) - float(log_prob(torch.tensor(down))[0])) / (2 * h)
            out[b, i] = (z[b, i] + s * s * slope) / a
    return out
""",
        ),
        (
            "all shifts in one call",
            """
def tweedie(log_prob, z, a, s):
    B, d = z.shape
    h = 3e-5 * s
    steps = h * torch.eye(d, dtype=z.dtype)
    both = torch.cat([z[None] + steps[:, None], z[None] - steps[:, None]])  # (2d, B, d)
    values = log_prob(both.reshape(-1, d)).reshape(2, d, B)
    score = ((values[0] - values[1]) / (2 * h)).T
    return z / a + score * s**2 / a
""",
        ),
        (
            "five-point stencil",
            """
def tweedie(log_prob, z, a, s):
    h = 0.002 * s
    columns = []
    for i in range(z.shape[1]):
        e = torch.zeros(z.shape[1], dtype=z.dtype)
        e[i] = h
        f = [log_prob(z + k * e) for k in (-2, -1, 1, 2)]
        columns.append((f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h))
    return (z + s**2 * torch.stack(columns, 1)) / a
""",
        ),
        (
            "forward difference with a very small step",
            """
def tweedie(log_prob, z, a, s):
    h = 1e-7 * s
    here = log_prob(z)
    out = []
    for i in range(z.shape[-1]):
        there = z.clone()
        there[:, i] = there[:, i] + h
        out.append(z[:, i] + s**2 * (log_prob(there) - here) / h)
    return torch.stack(out, dim=-1) / a
""",
        ),
        (
            "answer handed over in float32",
            """
def tweedie(log_prob, z, a, s):
    h = 1e-4 * float(s)
    eye = torch.eye(z.shape[1], dtype=torch.float64) * h
    score = torch.stack([log_prob(z + e) - log_prob(z - e) for e in eye], -1) / h / 2
    return ((z + s * s * score) / a).float()
""",
        ),
    ],
    "a1_posterior_covariance": [
        (
            "NumPy, sample by sample",
            """
def posterior_covariance(D, x, sigma):
    x = np.asarray(x)
    B, d = x.shape
    out = np.zeros((B, d, d))
    h = 1e-3 * sigma
    for b in range(B):
        for j in range(d):
            e = np.zeros((1, d))
            e[0, j] = h
            up, down = np.asarray(D(torch.tensor(x[b : b + 1] + e), sigma)), np.asarray(D(torch.tensor(x[b : b + 1] - e), sigma))
            out[b, :, j] = sigma**2 * (up - down)[0] / (2 * h)
    return out
""",
        ),
        (
            "all shifts in one call",
            """
def posterior_covariance(D, x, sigma):
    B, d = x.shape
    h = 1e-4 * sigma
    steps = h * torch.eye(d, dtype=x.dtype)[:, None]
    up, down = D((x + steps).reshape(-1, d), sigma), D((x - steps).reshape(-1, d), sigma)
    return sigma**2 / (2 * h) * (up - down).reshape(d, B, d).transpose(0, 1)
""",
        ),
        (
            "five-point stencil, made symmetric",
            """
def posterior_covariance(D, x, sigma):
    h, rows = 0.01 * sigma, []
    for e in torch.eye(x.shape[1], dtype=x.dtype) * h:
        rows.append((D(x - 2 * e, sigma) - 8 * D(x - e, sigma) + 8 * D(x + e, sigma) - D(x + 2 * e, sigma)) / (12 * h))
    J = torch.stack(rows, 1)
    return sigma * sigma * (J + J.mT) / 2
""",
        ),
        (
            "through the residual D - x, forward difference",
            """
def posterior_covariance(D, x, sigma):
    d, h = x.shape[1], 1e-6 * sigma
    here = D(x, sigma) - x
    columns = []
    for i in range(d):
        y = x.clone()
        y[:, i] += h
        columns.append((D(y, sigma) - y - here) / h)
    return sigma**2 * (torch.eye(d, dtype=x.dtype) + torch.stack(columns, -1))
""",
        ),
    ],
    "a1_empirical": [
        (
            "loops in NumPy",
            """
def empirical(x, sigma, y, log_weights):
    shape = x.shape
    x, y = np.asarray(x, dtype=float).reshape(len(x), -1), np.asarray(y, dtype=float).reshape(len(y), -1)
    sigma = np.broadcast_to(np.asarray(sigma, dtype=float), (len(x),))
    l = np.asarray(log_weights, dtype=float)
    l = l - l.max() - np.log(np.exp(l - l.max()).sum())
    means, heights = [], []
    for point, s in zip(x, sigma):
        logits = l - ((point - y) ** 2).sum(1) / (2 * s**2)
        top = logits.max()
        w = np.exp(logits - top)
        means.append(w @ y / w.sum())
        heights.append(top + np.log(w.sum()) - y.shape[1] * (np.log(s) + np.log(2 * np.pi) / 2))
    return np.array(means).reshape(shape), np.array(heights)
""",
        ),
        (
            "a running softmax, one data point at a time",
            """
def empirical(x, sigma, y, log_weights):
    sigma = torch.as_tensor(sigma).double() * torch.ones(len(x), dtype=torch.float64)
    x2, y2 = x.double().flatten(1), y.double().flatten(1)
    top = torch.full((len(x),), -math.inf, dtype=torch.float64)
    total, mean = torch.zeros_like(top), torch.zeros_like(x2)
    for point, weight in zip(y2, log_weights.double()):
        logit = weight - ((x2 - point) ** 2).sum(1) / (2 * sigma**2)
        new = torch.maximum(top, logit)
        old, add = (top - new).exp(), (logit - new).exp()
        total, mean, top = old * total + add, old[:, None] * mean + add[:, None] * point, new
    d = x2.shape[1]
    log_p = top + total.log() - log_weights.double().logsumexp(0) - d * sigma.log() - d / 2 * math.log(2 * math.pi)
    return (mean / total[:, None]).reshape(x.shape), log_p
""",
        ),
        (
            "float32 as it comes, differences taken before squares",
            """
def empirical(x, sigma, y, log_weights):
    if not isinstance(sigma, torch.Tensor):
        sigma = torch.full((len(x),), sigma, dtype=x.dtype)
    difference = x.unsqueeze(1) - y.unsqueeze(0)
    squares = (difference**2).flatten(2).sum(2)
    logits = (log_weights - log_weights.logsumexp(0)) - squares / (2 * sigma.unsqueeze(1) ** 2)
    D = torch.einsum("bn,n...->b...", logits.softmax(1).to(y.dtype), y)
    d = x[0].numel()
    return D, logits.logsumexp(1) - d / 2 * torch.log(2 * torch.pi * sigma**2)
""",
        ),
        (
            "cdist in float64, as a list",
            """
def empirical(x, sigma, y, log_weights):
    s = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1)
    far = torch.cdist(x.double().flatten(1), y.double().flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    joint = log_weights.double() - torch.logsumexp(log_weights.double(), 0) - 0.5 * (far / s) ** 2
    d = far.new_tensor(x[0].numel())
    log_p = torch.logsumexp(joint - d * s.log() - d / 2 * math.log(2 * math.pi), dim=-1)
    return [(torch.softmax(joint, -1) @ y.double().flatten(1)).view_as(x), log_p]
""",
        ),
    ],
    "a1_merge": [
        (
            "logaddexp and exp",
            """
def merge(a, b):
    n = a[2] + b[2]
    la, lb = a[1] + np.log(a[2] / n), b[1] + np.log(b[2] / n)
    log_p = torch.logaddexp(la, lb)
    shape = [-1] + [1] * (a[0].ndim - 1)
    return (la - log_p).exp().reshape(shape) * a[0] + (lb - log_p).exp().reshape(shape) * b[0], log_p, n
""",
        ),
        (
            "logistic function, moving from one to the other",
            """
def merge(a, b):
    Da, pa, na = a
    Db, pb, nb = b
    share = torch.sigmoid(pb - pa + math.log(nb) - math.log(na))
    D = Da + torch.einsum("b,b...->b...", share, Db - Da)
    top = torch.maximum(pa, pb)
    log_p = top + torch.log((na * (pa - top).exp() + nb * (pb - top).exp()) / (na + nb))
    return D, log_p, na + nb
""",
        ),
        (
            "NumPy, sample by sample",
            """
def merge(a, b):
    (Da, pa, na), (Db, pb, nb) = [(np.asarray(D), np.asarray(p), n) for D, p, n in (a, b)]
    D, log_p = np.empty_like(Da), np.empty_like(pa)
    for i in range(len(pa)):
        top = max(pa[i], pb[i])
        wa, wb = na * np.exp(pa[i] - top), nb * np.exp(pb[i] - top)
        D[i] = (wa * Da[i] + wb * Db[i]) / (wa + wb)
        log_p[i] = top + np.log(wa + wb) - np.log(na + nb)
    return D, log_p, int(na + nb)
""",
        ),
        (
            "answers in float32, as a list",
            """
def merge(a, b):
    logs = torch.stack([a[1], b[1]], 1) + torch.tensor([a[2], b[2]]).double().log()
    w = torch.softmax(logs, 1).float()
    D = torch.stack([a[0], b[0]], 1).float()
    D = (w.reshape(*w.shape, *[1] * (D.ndim - 2)) * D).sum(1)
    return [D, torch.logsumexp(logs, 1) - math.log(a[2] + b[2]), torch.tensor(a[2] + b[2])]
""",
        ),
    ],
    "a1_anneal": [
        (
            "a while loop, squared lengths",
            """
def anneal(D, x, sigmas, tolerance, max_steps):
    calls = 0
    for s in sigmas:
        steps, moving = 0, True
        while moving and steps < max_steps:
            new = D(x, s)
            steps += 1
            moving = bool((((new - x) ** 2).reshape(len(x), -1).sum(1) > (tolerance * s) ** 2).any())
            x = new
        calls += steps
    return x, calls
""",
        ),
        (
            "NumPy",
            """
def anneal(D, x, sigmas, tolerance, max_steps):
    x, calls = np.asarray(x), 0
    for sigma in sigmas:
        for step in range(1, max_steps + 1):
            new = np.asarray(D(torch.as_tensor(x), sigma))
            moved = np.sqrt(((new - x) ** 2).reshape(len(x), -1).sum(axis=1))
            x = new
            calls = calls + 1
            if np.all(moved <= tolerance * sigma):
                break
    return x, calls
""",
        ),
        (
            "one sample after the other when the lengths are taken, a list returned",
            """
def anneal(D, x, sigmas, tolerance, max_steps):
    count = [0]
    def step(x, sigma):
        count[0] += 1
        return D(x, sigma)
    for sigma in sigmas:
        left = max_steps
        while left > 0:
            new, left = step(x, sigma), left - 1
            longest = max(float(torch.linalg.vector_norm(a - b)) for a, b in zip(new, x))
            x = new
            if longest <= tolerance * sigma:
                left = 0
    return [x, count[0]]
""",
        ),
        (
            "recursion",
            """
def anneal(D, x, sigmas, tolerance, max_steps):
    def climb(x, sigma, n):
        new = D(x, sigma)
        if n + 1 == max_steps or not ((new - x).flatten(1).norm(dim=-1) > tolerance * sigma).any():
            return new, n + 1
        return climb(new, sigma, n + 1)
    if len(sigmas) == 0:
        return x, 0
    import sys
    sys.setrecursionlimit(20000)
    x, first = climb(x, sigmas[0], 0)
    x, rest = anneal(D, x, sigmas[1:], tolerance, max_steps)
    return x, first + rest
""",
        ),
    ],
    "a1_own_numbers": [
        ("the posterior by hand", OWN),
        (
            "a list of tensors",
            OWN.replace("own_numbers = (", "own_numbers = list(map(torch.as_tensor, (").replace(
                "float(x[0, 0]))", "float(x[0, 0]))))"
            ),
        ),
        ("typed in", "own_numbers = (1.782, 1.0, 0.5454, 1.827)"),
        (
            "by the library, which is allowed here",
            OWN.replace(
                "torch.softmax(-((place - points) ** 2).sum(1) / (2 * s * s), 0)",
                "Empirical(points).weights(place, s)[0]",
            ),
        ),
    ],
    "a1_own_share": [
        ("by trial", COIN),
        (
            "by trial, with more starts at random",
            COIN.replace(
                "torch.linspace(-6, 6, 6001, dtype=torch.float64)", "normal(torch.Generator().manual_seed(3), 40000)"
            ).replace("torch.exp(-(z**2) / 2)", "torch.ones_like(z)"),
        ),
        (
            "on paper",
            "p = own_coin(ID)\nown_share = torch.special.ndtr(-torch.tensor(2 * math.log((1 - p) / p)).sqrt() + 1 / 80)",
        ),
        (
            "on paper, 80 taken as infinite",
            "from statistics import NormalDist\nown_share = NormalDist().cdf(-((2 * math.log(1 / own_coin(ID) - 1)) ** 0.5))",
        ),
    ],
}


def wrong(desk: Desk) -> Answers:
    """Wrong answers: edits of the solution, each a mistake that somebody makes, and some written from scratch."""
    ref = desk.references

    def edits(name: str, *rows: tuple[str, str, str]) -> list[tuple[str, str]]:
        return [(what, edited(ref[name], (old, new))) for what, old, new in rows]

    return {
        "a1_posterior_mean": [
            *edits(
                "a1_posterior_mean",
                ("no log determinant", "(quadratic + torch.logdet(total)) / 2", "quadratic / 2"),
                (
                    "determinant, not its root",
                    "(quadratic + torch.logdet(total)) / 2",
                    "quadratic / 2 - total.logdet()",
                ),
                (
                    "no half in the exponent",
                    "(quadratic + torch.logdet(total)) / 2",
                    "quadratic - torch.logdet(total) / 2",
                ),
                ("determinant with the wrong sign", "quadratic + torch", "quadratic - torch"),
                ("weights forgotten", "torch.log(weight) - ", "-"),
                ("weights without logarithm", "torch.log(weight) - ", "weight - "),
                ("noise taken for a standard deviation", "covariance + noise ", "covariance + noise @ noise "),
                (
                    "only the variances of the noise",
                    "covariance + noise ",
                    "covariance + torch.diag(noise.diagonal()) ",
                ),
                (
                    "noise of the first direction everywhere",
                    "covariance + noise ",
                    "covariance + noise[0, 0] * torch.eye(len(noise), dtype=x.dtype) ",
                ),
                ("noise left out", "covariance + noise ", "covariance "),
                (
                    "no log-sum-exp",
                    "torch.stack(log_share).softmax(0)",
                    "torch.stack(log_share).exp() / torch.stack(log_share).exp().sum(0)",
                ),
                (
                    "a small number against 0 / 0",
                    "torch.stack(log_share).softmax(0)",
                    "torch.stack(log_share).exp() / (torch.stack(log_share).exp().sum(0) + 1e-12)",
                ),
                ("softmax over the batch", "softmax(0)", "softmax(1)"),
                ("shares not normalised", "torch.stack(log_share).softmax(0)", "torch.stack(log_share).exp()"),
                (
                    "the likeliest component takes all",
                    "torch.stack(log_share).softmax(0)",
                    "torch.nn.functional.one_hot(torch.stack(log_share).argmax(0), len(weights)).T.to(x.dtype)",
                ),
                ("the noise's share instead of the data's", "(covariance @ whitened)", "(noise @ whitened)"),
                (
                    "matrices in the wrong order",
                    "(covariance @ whitened).T",
                    "torch.linalg.solve(total, covariance @ (x - mean).T).T",
                ),
                ("means only, components taken for points", "mean + (covariance @ whitened).T", "mean.expand_as(x)"),
                ("mean not added back", "mean + (covariance @ whitened).T", "(covariance @ whitened).T"),
                (
                    "shares of the first sample for all",
                    "(share[:, :, None] * torch.stack(guesses)).sum(0)",
                    "torch.einsum('k,kbi->bi', share[:, 0], torch.stack(guesses))",
                ),
                ("squeezed: a batch of one loses its axis", ".sum(0)\n    ###", ".sum(0).squeeze()\n    ###"),
                ("transposed", "torch.stack(guesses)).sum(0)", "torch.stack(guesses)).sum(0).T"),
                (
                    "density of the clean data",
                    "quadratic = (whitened.T * (x - mean)).sum(1)",
                    "quadratic = ((x - mean) @ torch.linalg.pinv(covariance) * (x - mean)).sum(1)",
                ),
            ),
            (
                "inverse of the components' covariances: fails when one is flat",
                """
def posterior_mean(x, noise, weights, means, covariances):
    precision = torch.linalg.inv(noise)
    log_pi, r = [], []
    for w, m, S in zip(weights, means, covariances):
        own = torch.linalg.inv(S)
        V = torch.linalg.inv(own + precision)
        r.append((x @ precision + m @ own) @ V)
        log_pi.append(w.log() + torch.distributions.MultivariateNormal(m, S + noise).log_prob(x))
    return (torch.stack(log_pi).softmax(0)[..., None] * torch.stack(r)).sum(0)
""",
            ),
            (
                "float32 densities, multiplied and divided",
                """
def posterior_mean(x, noise, weights, means, covariances):
    x, noise, weights, means, covariances = (v.float() for v in (x, noise, weights, means, covariances))
    total = covariances + noise
    offset = x[:, None] - means
    inverse = torch.linalg.inv(total)
    p = weights * torch.exp(-0.5 * torch.einsum("bki,kij,bkj->bk", offset, inverse, offset)) / total.det().sqrt()
    r = means + torch.einsum("kij,kjl,bkl->bki", covariances, inverse, offset)
    return torch.einsum("bk,bki->bi", p / p.sum(1, keepdim=True), r)
""",
            ),
            ("x itself", "def posterior_mean(x, noise, weights, means, covariances):\n    return x\n"),
            (
                "the mean of the data",
                "def posterior_mean(x, noise, weights, means, covariances):\n    return (weights @ means).expand_as(x)\n",
            ),
            ("not answered", "def posterior_mean(x, noise, weights, means, covariances):\n    ...\n"),
            (
                "asks the library, in coordinates in which the noise is round",
                """
def posterior_mean(x, noise, weights, means, covariances):
    half = torch.linalg.cholesky(noise)
    inverse = torch.linalg.inv(half)
    white = GaussianMixture(weights, means @ inverse.T, inverse @ covariances @ inverse.T)
    return white(x @ inverse.T, 1.0) @ half.T
""",
            ),
        ],
        "a1_tweedie": [
            *edits(
                "a1_tweedie",
                ("not divided by a", ") / a", ")"),
                ("divided by a squared", ") / a", ") / a**2"),
                ("multiplied by a", ") / a", ") * a"),
                ("only z divided by a", "(z + s**2 * score) / a", "z / a + s**2 * score"),
                ("only the score divided by a", "(z + s**2 * score) / a", "z + s**2 * score / a"),
                ("s instead of s squared", "s**2 * score", "s * score"),
                ("sigma = s / a in the formula", "s**2 * score", "(s / a) ** 2 * score"),
                ("wrong sign", "z + s**2 * score", "z - s**2 * score"),
                ("divided by s squared", "s**2 * score", "score / s**2"),
                ("the score only", "(z + s**2 * score) / a", "score"),
                ("difference over h, not 2 h", "/ (2 * h)", "/ h"),
                (
                    "one-sided difference with the step of the two-sided one",
                    "log_prob(z - shift)) / (2 * h)",
                    "log_prob(z)) / h",
                ),
                ("a fixed large step", "1e-4 * s", "1e-2"),
                ("a fixed tiny step", "1e-4 * s", "1e-10"),
                ("a tiny relative step", "1e-4 * s", "1e-12 * s"),
                ("a step as large as s", "1e-4 * s", "s"),
                ("a step of a tenth of s", "1e-4 * s", "0.1 * s"),
                ("all coordinates moved at once", "shift[:, i] = h", "shift[:] = h"),
                ("only the first sample moved", "shift[:, i] = h", "shift[0, i] = h"),
                ("the last coordinate moved each time", "shift[:, i] = h", "shift[:, -1] = h"),
                (
                    "the shift piles up",
                    "shift = torch.zeros_like(z)",
                    "shift = torch.zeros_like(z) if i == 0 else shift",
                ),
                (
                    "gradient of the density",
                    "(log_prob(z + shift) - log_prob(z - shift))",
                    "(log_prob(z + shift).exp() - log_prob(z - shift).exp())",
                ),
                ("slopes averaged over the batch", "/ (2 * h)", ".mean() / (2 * h)"),
                ("float32 points", "h = 1e-4 * s", "h = 1e-4 * s; z = z.float()"),
            ),
            (
                "automatic differentiation of a black box",
                """
def tweedie(log_prob, z, a, s):
    z = z.clone().requires_grad_(True)
    (score,) = torch.autograd.grad(log_prob(z).sum(), z)
    return (z + s**2 * score) / a
""",
            ),
            ("z / a", "def tweedie(log_prob, z, a, s):\n    return z / a\n"),
        ],
        "a1_posterior_covariance": [
            *edits(
                "a1_posterior_covariance",
                ("the Jacobian alone", "sigma**2 * ", ""),
                ("sigma instead of its square", "sigma**2 * ", "sigma * "),
                (
                    "divided by sigma squared",
                    "sigma**2 * torch.stack(columns, dim=2)",
                    "torch.stack(columns, dim=2) / sigma**2",
                ),
                ("wrong sign", "sigma**2 * ", "-(sigma**2) * "),
                (
                    "identity minus Jacobian",
                    "torch.stack(columns, dim=2)",
                    "(torch.eye(x.shape[1], dtype=x.dtype) - torch.stack(columns, dim=2))",
                ),
                (
                    "Jacobian minus identity: of the score",
                    "torch.stack(columns, dim=2)",
                    "(torch.stack(columns, dim=2) - torch.eye(x.shape[1], dtype=x.dtype))",
                ),
                ("difference over h, not 2 h", "/ (2 * h)", "/ h"),
                ("a fixed large step", "1e-4 * sigma", "0.05"),
                ("a tiny step", "1e-4 * sigma", "1e-12"),
                ("a step as large as sigma", "1e-4 * sigma", "sigma"),
                ("a step of a third of sigma", "1e-4 * sigma", "0.3 * sigma"),
                (
                    "the diagonal only",
                    "torch.stack(columns, dim=2)",
                    "torch.diag_embed(torch.stack([c[:, i] for i, c in enumerate(columns)], 1))",
                ),
                ("axes in the wrong order", "dim=2)", "dim=0)"),
                (
                    "averaged over the batch",
                    "torch.stack(columns, dim=2)",
                    "torch.stack(columns, dim=2).mean(0, keepdim=True).expand(len(x), -1, -1)",
                ),
                (
                    "added over the batch",
                    "torch.stack(columns, dim=2)",
                    "torch.stack(columns, dim=2).sum(0, keepdim=True)",
                ),
                ("only the first sample", "torch.stack(columns, dim=2)", "torch.stack(columns, dim=2)[:1]"),
                (
                    "squeezed: a batch of one loses its axis",
                    "torch.stack(columns, dim=2)",
                    "torch.stack(columns, dim=2).squeeze()",
                ),
                ("all coordinates moved at once", "shift[:, i] = h", "shift[:] = h"),
                ("only the first sample moved", "shift[:, i] = h", "shift[0, i] = h"),
                (
                    "the trace",
                    "torch.stack(columns, dim=2)",
                    "torch.stack(columns, dim=2).diagonal(dim1=1, dim2=2).sum(1)",
                ),
                ("standard deviations", "torch.stack(columns, dim=2)", "torch.stack(columns, dim=2).abs().sqrt()"),
                ("float32 points", "h = 1e-4 * sigma", "h = 1e-4 * sigma; x = x.float()"),
            ),
            (
                "one-sided difference with a step of a hundredth of sigma",
                edited(
                    ref["a1_posterior_covariance"],
                    ("1e-4", "1e-2"),
                    ("D(x - shift, sigma)) / (2 * h)", "D(x, sigma)) / h"),
                ),
            ),
            (
                "outer product of D with itself",
                """
def posterior_covariance(D, x, sigma):
    d = D(x, sigma)
    return d[:, :, None] * d[:, None]
""",
            ),
            (
                "outer product of D - x",
                """
def posterior_covariance(D, x, sigma):
    d = D(x, sigma) - x
    return d[:, :, None] * d[:, None]
""",
            ),
            (
                "automatic differentiation of a black box",
                """
def posterior_covariance(D, x, sigma):
    return torch.stack([sigma**2 * torch.autograd.functional.jacobian(lambda z: D(z[None], sigma)[0], p) for p in x])
""",
            ),
        ],
        "a1_empirical": [
            *edits(
                "a1_empirical",
                ("weights not normalised", "torch.log_softmax(log_weights.double(), 0)", "log_weights.double()"),
                ("weights forgotten", "torch.log_softmax(log_weights.double(), 0)", "-math.log(len(y))"),
                (
                    "weights without logarithm",
                    "torch.log_softmax(log_weights.double(), 0)",
                    "log_weights.double().softmax(0)",
                ),
                (
                    "weights with the wrong sign",
                    "torch.log_softmax(log_weights.double(), 0)",
                    "torch.log_softmax(-log_weights.double(), 0)",
                ),
                (
                    "weights normalised without log-sum-exp",
                    "torch.log_softmax(log_weights.double(), 0)",
                    "(log_weights.double() - log_weights.double().exp().sum().log())",
                ),
                (
                    "weights normalised by their sum",
                    "torch.log_softmax(log_weights.double(), 0)",
                    "(log_weights.double() / log_weights.double().sum())",
                ),
                (
                    "weights through exp and log",
                    "torch.log_softmax(log_weights.double(), 0)",
                    "(log_weights.double().exp() / log_weights.double().exp().sum()).log()",
                ),
                ("no half in the exponent", "(2 * sigma[:, None] ** 2)", "(sigma[:, None] ** 2)"),
                ("sigma instead of its square", "(2 * sigma[:, None] ** 2)", "(2 * sigma[:, None])"),
                ("lengths instead of squares", ".sum(-1)  #", ".sum(-1).sqrt()  #"),
                ("a mean over coordinates instead of a sum", ".square().sum(-1)", ".square().mean(-1)"),
                ("dimension read off the wrong axis", "points.shape[1] / 2", "x.shape[1] / 2"),
                ("normalisation of one dimension", "points.shape[1] / 2 * ", "0.5 * "),
                ("no normalisation", "torch.logsumexp(logits, 1) - log_norm", "torch.logsumexp(logits, 1)"),
                (
                    "normalisation with the wrong sign",
                    "torch.logsumexp(logits, 1) - log_norm",
                    "torch.logsumexp(logits, 1) + log_norm",
                ),
                ("sigma not squared in the normalisation", "math.pi * sigma**2", "math.pi * sigma"),
                ("no log-sum-exp for the density", "torch.logsumexp(logits, 1)", "logits.exp().sum(1).log()"),
                (
                    "no log-sum-exp, with a small number",
                    "torch.logsumexp(logits, 1)",
                    "(logits.exp().sum(1) + 1e-300).log()",
                ),
                (
                    "no log-sum-exp for the mean",
                    "logits.softmax(1)",
                    "(logits.exp() / logits.exp().sum(1, keepdim=True))",
                ),
                (
                    "a small number against 0 / 0",
                    "logits.softmax(1)",
                    "(logits.exp() / (logits.exp().sum(1, keepdim=True) + 1e-10))",
                ),
                ("softmax over the batch", "logits.softmax(1)", "logits.softmax(0)"),
                ("the nearest point takes all", "logits.softmax(1) @ centres", "centres[logits.argmax(1)]"),
                ("only the nearest point in the density", "torch.logsumexp(logits, 1)", "logits.amax(1)"),
                ("result left flat", "denoised.reshape(x.shape)", "denoised"),
                (
                    "D only",
                    "denoised.reshape(x.shape).to(x.dtype), torch.logsumexp(logits, 1) - log_norm",
                    "denoised.reshape(x.shape)",
                ),
                (
                    "the two in the wrong order",
                    "denoised.reshape(x.shape).to(x.dtype), torch.logsumexp(logits, 1) - log_norm",
                    "torch.logsumexp(logits, 1) - log_norm, denoised.reshape(x.shape)",
                ),
                (
                    "log p of the whole batch",
                    "torch.logsumexp(logits, 1) - log_norm",
                    "(torch.logsumexp(logits, 1) - log_norm).sum()",
                ),
                (
                    "the density, not its logarithm",
                    "torch.logsumexp(logits, 1) - log_norm",
                    "(torch.logsumexp(logits, 1) - log_norm).exp()",
                ),
                (
                    "one sigma for all",
                    "sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))",
                    "sigma = torch.as_tensor(sigma, dtype=torch.float64).flatten()[:1].expand(len(x))",
                ),
                (
                    "numbers only, no tensor of sigmas",
                    "sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))",
                    "sigma = torch.full((len(x),), float(sigma), dtype=torch.float64)",
                ),
            ),
            (
                "squares expanded, in float32",
                """
def empirical(x, sigma, y, log_weights):
    p, c = x.flatten(1), y.flatten(1)
    sigma = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x))
    squares = (p**2).sum(1, keepdim=True) - 2 * p @ c.T + (c**2).sum(1)
    logits = torch.log_softmax(log_weights.to(x.dtype), 0) - squares / (2 * sigma[:, None] ** 2)
    log_p = torch.logsumexp(logits, 1) - p.shape[1] / 2 * torch.log(2 * math.pi * sigma**2)
    return (logits.softmax(1) @ c).reshape(x.shape), log_p
""",
            ),
            (
                "only for points in the plane",
                """
def empirical(x, sigma, y, log_weights):
    squares = ((x[:, None] - y) ** 2).sum(-1)
    logits = torch.log_softmax(log_weights, 0) - squares / (2 * sigma**2)
    return logits.softmax(1) @ y, torch.logsumexp(logits, 1) - math.log(2 * math.pi * sigma**2)
""",
            ),
            (
                "asks the library",
                """
def empirical(x, sigma, data, log_weights):
    points = data.flatten(1)
    D = GaussianMixture(log_weights.double().softmax(0), points.double(), torch.full(points.shape, 1e-12).double())
    flat = x.flatten(1).double()
    return D(flat, sigma).reshape(x.shape).to(x), D.log_prob(flat, sigma).to(x)
""",
            ),
        ],
        "a1_merge": [
            *edits(
                "a1_merge",
                ("sizes forgotten", "[log_p_a + math.log(n_a), log_p_b + math.log(n_b)]", "[log_p_a, log_p_b]"),
                (
                    "sizes without logarithm",
                    "[log_p_a + math.log(n_a), log_p_b + math.log(n_b)]",
                    "[log_p_a + n_a, log_p_b + n_b]",
                ),
                (
                    "sizes swapped",
                    "[log_p_a + math.log(n_a), log_p_b + math.log(n_b)]",
                    "[log_p_a + math.log(n_b), log_p_b + math.log(n_a)]",
                ),
                (
                    "sizes divided out",
                    "[log_p_a + math.log(n_a), log_p_b + math.log(n_b)]",
                    "[log_p_a - math.log(n_a), log_p_b - math.log(n_b)]",
                ),
                (
                    "weighted by size alone",
                    "log_share.softmax(0)",
                    "torch.tensor([n_a, n_b]).double().div(n_a + n_b)[:, None].expand(2, len(D_a))",
                ),
                ("weighted by logarithms", "log_share.softmax(0)", "(log_share / log_share.sum(0))"),
                ("no log-sum-exp for the shares", "log_share.softmax(0)", "(log_share.exp() / log_share.exp().sum(0))"),
                ("no log-sum-exp for the density", "log_share.logsumexp(0)", "log_share.exp().sum(0).log()"),
                ("a small number against log 0", "log_share.logsumexp(0)", "(log_share.exp().sum(0) + 1e-30).log()"),
                ("shares swapped", "share_a * D_a + share_b * D_b", "share_b * D_a + share_a * D_b"),
                ("the mean of both", "share_a * D_a + share_b * D_b", "(D_a + D_b) / 2"),
                (
                    "the likelier part takes all",
                    "share_a * D_a + share_b * D_b",
                    "torch.where(share_a > share_b, D_a, D_b)",
                ),
                ("density not normalised", " - math.log(n_a + n_b)", ""),
                ("density normalised twice", "- math.log(n_a + n_b)", "- 2 * math.log(n_a + n_b)"),
                ("density normalised by the number of parts", "math.log(n_a + n_b)", "math.log(2)"),
                ("sum of the log densities", "log_share.logsumexp(0) - math.log(n_a + n_b)", "log_p_a + log_p_b"),
                (
                    "mean of the log densities",
                    "log_share.logsumexp(0) - math.log(n_a + n_b)",
                    "(n_a * log_p_a + n_b * log_p_b) / (n_a + n_b)",
                ),
                (
                    "larger of the log densities",
                    "log_share.logsumexp(0) - math.log(n_a + n_b)",
                    "torch.maximum(log_p_a, log_p_b)",
                ),
                ("events of one axis only", "w.reshape(-1, *[1] * (D_a.ndim - 1))", "w[:, None]"),
                (
                    "shares of the first sample for all",
                    "log_share.softmax(0)",
                    "log_share[:, :1].softmax(0).expand(2, len(D_a))",
                ),
                ("softmax over the batch", "softmax(0)", "softmax(1)"),
                ("n of the larger part", ", n_a + n_b\n", ", max(n_a, n_b)\n"),
                ("n of the number of parts", ", n_a + n_b\n", ", 2\n"),
                ("n forgotten", ", log_p, n_a + n_b\n", ", log_p\n"),
            ),
        ],
        "a1_anneal": [
            *edits(
                "a1_anneal",
                ("stops when the first point rests", ".max()", ".min()"),
                ("stops when they rest on average", ".max()", ".mean()"),
                ("length over the whole batch", ".flatten(1).norm(dim=1).max()", ".norm()"),
                ("largest coordinate, not length", ".flatten(1).norm(dim=1).max()", ".abs().max()"),
                ("length over the last axis only", ".flatten(1).norm(dim=1).max()", ".norm(dim=-1).max()"),
                ("squared length", ".norm(dim=1).max()", ".square().sum(1).max()"),
                ("sum of absolute values", ".norm(dim=1).max()", ".abs().sum(1).max()"),
                ("mean over coordinates", ".norm(dim=1).max()", ".square().mean(1).sqrt().max()"),
                ("tolerance without sigma", "tolerance * sigma", "tolerance"),
                ("tolerance with sigma squared", "tolerance * sigma", "tolerance * sigma**2"),
                ("tolerance divided by sigma", "tolerance * sigma", "tolerance / sigma"),
                ("one step too many allowed", "range(max_steps)", "range(max_steps + 1)"),
                ("one step too few allowed", "range(max_steps)", "range(max_steps - 1)"),
                ("the limit ignored", "range(max_steps)", "range(10_000)"),
                ("never stops early", "<= tolerance * sigma", "< 0"),
                ("stops for good", "                break", "                return x, calls"),
                ("last step thrown away", "                break", "                x = before\n                break"),
                ("levels in the reverse order", "for sigma in sigmas:", "for sigma in sigmas[::-1]:"),
                ("levels sorted", "for sigma in sigmas:", "for sigma in sorted(sigmas, reverse=True):"),
                ("the last level left out", "for sigma in sigmas:", "for sigma in sigmas[:-1]:"),
                (
                    "each level from the start",
                    "for sigma in sigmas:",
                    "first = x\n    for sigma in sigmas:\n        x = first",
                ),
                ("sigma squared handed to D", "D(x, sigma)", "D(x, sigma**2)"),
                (
                    "D called once more for the length",
                    "before, x = x, D(x, sigma)",
                    "before, x = x, D(x, sigma) + 0 * D(x, sigma)",
                ),
                (
                    "calls counted twice at a new level",
                    "        for _ in range(max_steps):\n",
                    "        calls += 1\n        for _ in range(max_steps):\n",
                ),
                ("calls counted from one", "calls = 0", "calls = 1"),
                ("calls that converged not counted", "            calls += 1\n", ""),
                ("steps of half the length", "x, D(x, sigma)", "x, (x + D(x, sigma)) / 2"),
                ("position only", "return x, calls", "return x"),
                ("the whole path", "return x, calls", "return torch.stack([before, x]), calls"),
            ),
            (
                "one step a level, as in lesson 02",
                """
def anneal(D, x, sigmas, tolerance, max_steps):
    for sigma in sigmas:
        x = D(x, sigma)
    return x, len(sigmas)
""",
            ),
            (
                "asks the library",
                """
def anneal(D, x, sigmas, tolerance, max_steps):
    calls = 0
    for sigma in sigmas:
        path = meanshift.mean_shift(D, torch.as_tensor(x), sigma, max_steps=max_steps, tolerance=tolerance)
        x, calls = path[-1], calls + len(path) - 1
    return x, calls
""",
            ),
            (
                "one call for each sample",
                """
def anneal(D, x, sigmas, tolerance, max_steps):
    calls, out = 0, []
    for point in x:
        p = point[None]
        for sigma in sigmas:
            for _ in range(max_steps):
                before, p = p, D(p, sigma)
                calls += 1
                if (p - before).norm() <= tolerance * sigma:
                    break
        out.append(p[0])
    return torch.stack(out), calls
""",
            ),
        ],
        "a1_own_numbers": [
            ("not answered", "own_numbers = None"),
            *[
                (what, edited(ref["a1_own_numbers"], change))
                for what, *change in (
                    ("another copy", "own_clusters(ID)", "own_clusters(31415)"),
                    ("a variance", ".sqrt())", ")"),
                    ("along axis 2", "[0, 0, 0]", "[0, 1, 1]"),
                    ("the smallest deviation", "spread.index(max(spread))", "spread.index(min(spread))"),
                    ("the number of the level", "max(spread), widest,", "max(spread), spread.index(max(spread)),"),
                    ("the share of the large cluster", "weights[:left]", "weights[left:]"),
                    ("the prior", "weights[:left].sum()", "torch.tensor(left / len(cloud))"),
                    ("2 sigma squared forgotten", "(2 * widest**2)", "widest**2"),
                    ("the climb from the other end", "reversed(LEVELS)", "LEVELS"),
                    ("the climb at one level", "if 0.3 <= s <= 5]", "if s == 0.3]"),
                    ("the second coordinate", "climb[0, 0]", "climb[0, 1]"),
                    (
                        "at the level before",
                        "widest = LEVELS[spread.index(max(spread))]",
                        "widest = LEVELS[spread.index(max(spread)) - 1]",
                    ),
                )
            ],
        ],
        "a1_own_share": [
            ("not answered", "own_share = ..."),
            ("the coin itself", "own_share = own_coin(ID)"),
            ("the other side", "own_share = 1 - own_coin(ID)"),
            ("in percent", edited(ref["a1_own_share"], ("own_share = ", "own_share = 100 * "))),
            ("half of the starts", "own_share = 0.5"),
            ("0", "own_share = 0.0"),
            ("the example of a friend", "own_share = 0.0987"),
            *[
                (what, edited(ref["a1_own_share"], change))
                for what, *change in (
                    ("another copy", "own_coin(ID)", "own_coin(4)"),
                    ("odds upside down, without their sign", "math.log(odds)", "abs(math.log(1 / odds)) / 4"),
                    ("no 2", "2 * math.log(odds)", "math.log(odds)"),
                    ("no root", "math.sqrt(2 * math.log(odds))", "2 * math.log(odds)"),
                    ("the other tail", "1 / 80 - slope", "slope - 1 / 80"),
                )
            ],
        ],
    }


# What gets full marks although it is changed, and why. "equivalent": it computes the same, or as well as is asked for.
KNOWN: dict[str, dict[str, str]] = {
    "a1_tweedie": {
        "line 4, column 8: 0.0001 * s -> 0.0001": "equivalent: small enough for every s from 0.01 to 80, as promised"
    },
    "a1_posterior_covariance": {
        "line 4, column 8: 0.0001 * sigma -> 0.0001": "equivalent: small enough for every sigma that occurs",
        "line 10, column 47: 2 -> 1": "equivalent: the Jacobian is symmetric",
    },
    "a1_empirical": {
        "line 4, column 22: x.flatten(1).double() -> x.flatten(1)": "equivalent: the data are in float64, so the differences are",
        "line 6, column 15: points[:, None] - centres -> centres - points[:, None]": "equivalent: it is squared",
        "line 7, column 31: log_weights.double() -> log_weights": "equivalent: precise enough as given",
        "line 7, column 53: 0 -> -1": "equivalent: the only axis is the last one",
        "line 10, column 11: denoised.reshape(x.shape).to(x.dtype) -> denoised.reshape(x.shape)": "equivalent: any dtype is taken",
    },
    "a1_merge": {"line 6, column 46: D_a -> D_b": "equivalent: both have the same number of axes"},
    "a1_anneal": {"line 9, column 16: x - before -> before - x": "equivalent: a length has no sign"},
}

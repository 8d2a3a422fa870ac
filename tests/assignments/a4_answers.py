"""Answers to assignment 4 with which its tests are tested: right ones written differently, wrong ones as people err."""

# ruff: noqa: E501  (a table of edits reads better with one edit a line)
from __future__ import annotations

from .marking import Answers, Desk, edited

NAME = "A4_scheduling"

RIGHT: Answers = {
    "a4_jump_costs": [
        (
            "loops in NumPy, path by path",
            """
def jump_costs(x, denoised, sigmas, metric):
    x, denoised, sigmas = np.asarray(x), np.asarray(denoised), np.asarray(sigmas)
    n, batch = len(x) - 1, x.shape[1]
    cost = np.zeros((n + 1, n + 1))
    for b in range(batch):
        path, said = x[:, b].reshape(n + 1, -1), denoised[:, b].reshape(n, -1)
        v = (path[n] - path[0]) / np.linalg.norm(path[n] - path[0])
        off = lambda p: np.linalg.norm((p - path[0]) - np.dot(p - path[0], v) * v)
        for i in range(n):
            eps = (path[i] - said[i]) / sigmas[i]
            for j in range(i + 1, n + 1):
                y = path[i] + (sigmas[j] - sigmas[i]) * eps
                cost[i, j] += np.linalg.norm(y - path[j]) if metric == "position" else off(y) - off(path[j])
    return cost / batch
""",
        ),
        (
            "all jumps in one tensor",
            """
def jump_costs(x, denoised, sigmas, metric):
    x, D = x.reshape(*x.shape[:2], -1), denoised.reshape(*denoised.shape[:2], -1)
    s = torch.cat([sigmas, sigmas.new_zeros(0)])
    ratio = s[None, :] / s[:-1, None]  # (N, N+1)
    y = D[:, None] + ratio[..., None, None] * (x[:-1] - D)[:, None]  # (N, N+1, B, d)
    if metric == "position":
        C = (y - x).square().sum(-1).sqrt().mean(-1)
    else:
        v = torch.nn.functional.normalize(x[0] - x[-1], dim=-1)
        across = lambda p: ((p - x[-1]) - torch.einsum("...bd,bd->...b", p - x[-1], v)[..., None] * v).norm(dim=-1).mean(-1)
        C = across(y) - across(x)
    return torch.cat([C, torch.zeros_like(C[:1])]).triu(1)
""",
        ),
        (
            "deviation by Pythagoras, the projection as a matrix",
            """
def jump_costs(x, denoised, sigmas, metric):
    N, B = len(denoised), x.shape[1]
    x, denoised = x.reshape(N + 1, B, -1), denoised.reshape(N, B, -1)
    eps = (x[:-1] - denoised) / sigmas[:-1].reshape(-1, 1, 1)
    C = torch.zeros((N + 1, N + 1), dtype=torch.float64)
    u = x[-1] - x[0]
    P = torch.eye(x.shape[2], dtype=x.dtype) - u[:, :, None] * u[:, None] / (u**2).sum(1)[:, None, None]  # (B, d, d)
    for i in range(N):
        for j in range(i + 1, N + 1):
            y = x[i] + (sigmas[j] - sigmas[i]) * eps[i]
            if metric == "bend":
                far = torch.einsum("bij,bj->bi", P, y - x[0]).norm(dim=1)
                near = torch.einsum("bij,bj->bi", P, x[j] - x[0]).norm(dim=1)
                C[i, j] = (far - near).mean()
            else:
                C[i, j] = torch.dist(y[0], x[j][0]) / B + sum(torch.dist(a, b) for a, b in zip(y[1:], x[j][1:])) / B
    return C
""",
        ),
        (
            "a list of lists, the deviation from the last state",
            """
def jump_costs(x, denoised, sigmas, metric):
    n = len(sigmas) - 1
    rows = [[0.0] * (n + 1) for _ in range(n + 1)]
    def height(p, first, last):
        chord = first - last
        t = ((p - last) * chord).sum(-1) / (chord * chord).sum(-1)
        return (p - last - t[:, None] * chord).norm(dim=-1)
    flat = [s.flatten(1) for s in x]
    for i in range(n):
        D = denoised[i].flatten(1)
        for j in range(i + 1, n + 1):
            keep = float(sigmas[j] / sigmas[i])
            y = keep * flat[i] + (1 - keep) * D
            if metric == "position":
                rows[i][j] = float((y - flat[j]).norm(dim=1).mean())
            else:
                rows[i][j] = float((height(y, flat[0], flat[n]) - height(flat[j], flat[0], flat[n])).mean())
    return torch.tensor(rows)
""",
        ),
    ],
    "a4_cheapest_through": [
        (
            "tables of values and choices, backwards",
            """
def cheapest_through(cost, steps, stops):
    n = len(cost) - 1
    c = torch.full((n + 1, n + 1), math.inf, dtype=torch.float64)
    for i in range(n):
        for j in range(i + 1, n + 1):
            if not [s for s in stops if i < s < j]:
                c[i, j] = float(cost[i][j])
    value, choices = c[:, n].clone(), []
    for _ in range(steps - 1):
        through = c + value
        value, choice = through.min(1)
        choice = (through == value[:, None]).double().argmax(1)
        choices.append(choice)
    if not math.isfinite(float(value[0])):
        return None
    route = [0]
    for choice in reversed(choices):
        route.append(int(choice[route[-1]]))
    return [*route, n]
""",
        ),
        (
            "recursion with a memory",
            """
def cheapest_through(cost, steps, stops):
    import functools
    n = len(cost) - 1
    price = [[float(v) for v in row] for row in cost]
    need = sorted(s for s in stops if 0 < s < n)
    @functools.lru_cache(None)
    def best(i, left):
        if left == 0:
            return (0.0, (n,)) if i == n else None
        ahead = [s for s in need if s > i]
        limit = ahead[0] if ahead else n
        out = None
        for j in range(i + 1, limit + 1):
            rest = best(j, left - 1)
            if rest is not None:
                way = (price[i][j] + rest[0], (i, *rest[1]))
                if out is None or way < out:
                    out = way
        return out
    found = best(0, steps)
    return None if found is None else list(found[1])
""",
        ),
        (
            "between the stops one table each, then the shares of the steps",
            """
def cheapest_through(cost, steps, stops):
    n = len(cost) - 1
    marks = sorted({0, n, *stops})
    cost = np.asarray(cost, dtype=float)
    total = {0: (0.0, (n,))}
    for a, b in reversed(list(zip(marks[:-1], marks[1:]))):
        part = {0: {b: (0.0, (b,))}}
        for k in range(1, b - a + 1):
            part[k] = {}
            for i in range(a, b):
                ways = [(cost[i, j] + v, (i, *r)) for j, (v, r) in part[k - 1].items() if j > i]
                if ways:
                    part[k][i] = min(ways)
        new = {}
        for k in part:
            if k and a in part[k]:
                v, r = part[k][a]
                for used, (w, rest) in total.items():
                    way = (v + w, (*r, *rest[1:]))
                    if k + used not in new or way < new[k + used]:
                        new[k + used] = way
        total = new
    return list(total[steps][1]) if steps in total else None
""",
        ),
        (
            "NumPy, infinite prices over the stops, a tensor returned",
            """
def cheapest_through(cost, steps, stops):
    c = np.array(cost, dtype=np.float64)
    n = c.shape[0] - 1
    c[np.tril_indices(n + 1)] = np.inf
    for s in stops:
        c[:s, s + 1 :] = np.inf
    V = np.full(n + 1, np.inf)
    V[n] = 0.0
    choice = np.zeros((steps + 1, n + 1), dtype=int)
    for k in range(1, steps + 1):
        W = c + V[None, :]
        choice[k] = W.argmin(axis=1)
        V = W.min(axis=1)
    if not np.isfinite(V[0]):
        return None
    at, route = 0, [0]
    for k in range(steps, 0, -1):
        at = int(choice[k, at])
        route.append(at)
    return torch.tensor(route)
""",
        ),
    ],
    "a4_mixed_route": [
        (
            "recursion with a memory",
            """
def mixed_route(euler, heun, budget):
    import functools
    n = len(euler) - 1
    E, H = euler.tolist(), heun.tolist()
    @functools.lru_cache(None)
    def best(i, left):
        if i == n:
            return 0.0, (), ()
        out = (math.inf, (), ())
        for j in range(i + 1, n + 1):
            for kind, price, table in (("euler", 1, E), ("heun", 2, H)):
                if price <= left:
                    v, r, k = best(j, left - price)
                    if table[i][j] + v < out[0]:
                        out = (table[i][j] + v, (j, *r), (kind, *k))
        return out
    _, route, kinds = best(0, budget)
    return [0, *route], list(kinds)
""",
        ),
        (
            "tables in NumPy, backwards, at most b evaluations",
            """
def mixed_route(euler, heun, budget):
    tables = [np.array(euler, dtype=float), np.array(heun, dtype=float)]
    n = len(tables[0]) - 1
    for t in tables:
        t[np.tril_indices(n + 1)] = np.inf
    V = np.full((budget + 1, n + 1), np.inf)
    V[:, n] = 0.0
    step = {}
    for b in range(1, budget + 1):
        for i in range(n):
            for kind in (0, 1):
                if b >= kind + 1:
                    ways = tables[kind][i] + V[b - kind - 1]
                    j = int(np.argmin(ways))
                    if ways[j] < V[b, i]:
                        V[b, i], step[b, i] = ways[j], (j, kind)
    i, b, route, kinds = 0, budget, [0], []
    while i != n:
        i, kind = step[b, i]
        b -= kind + 1
        route.append(i)
        kinds.append(("euler", "heun")[kind])
    return route, kinds
""",
        ),
        (
            "forwards, shortest path in a graph of (index, spent)",
            """
def mixed_route(euler, heun, budget):
    n = len(euler) - 1
    reached = {(0, 0): (0.0, None, None)}
    for i in range(n):
        for spent in range(budget + 1):
            if (i, spent) not in reached:
                continue
            here = reached[i, spent][0]
            for j in range(i + 1, n + 1):
                for kind, price, table in (("heun", 2, heun), ("euler", 1, euler)):
                    new = here + float(table[i, j])
                    key = (j, spent + price)
                    if spent + price <= budget and (key not in reached or new < reached[key][0]):
                        reached[key] = (new, (i, spent), kind)
    at = min((k for k in reached if k[0] == n), key=lambda k: reached[k][0])
    route, kinds = [n], []
    while at != (0, 0):
        _, before, kind = reached[at]
        route.insert(0, before[0])
        kinds.insert(0, kind)
        at = before
    return route, kinds
""",
        ),
        (
            "the number of jumps of each kind counted apart, a tensor returned",
            """
def mixed_route(euler, heun, budget):
    n = len(euler) - 1
    E, H = euler.tolist(), heun.tolist()
    table = {(0, 0): {n: (0.0, (n,), ())}}
    for total in range(1, budget + 1):
        for h in range(total // 2 + 1):
            e = total - 2 * h
            new = {}
            for cell, price, kind in (((e - 1, h), E, "euler"), ((e, h - 1), H, "heun")):
                for j, (v, r, k) in table.get(cell, {}).items():
                    for i in range(j):
                        way = (price[i][j] + v, (i, *r), (kind, *k))
                        if i not in new or way[0] < new[i][0]:
                            new[i] = way
            table[e, h] = new
    ways = [t[0] for t in table.values() if 0 in t]
    _, route, kinds = min(ways)
    return torch.tensor(route), list(kinds)
""",
        ),
    ],
    "a4_paired_ratio": [
        (
            "the variance written out, in NumPy",
            """
def paired_ratio(new, old):
    new, old = np.asarray(new), np.asarray(old)
    r = new.mean() / old.mean()
    c = np.cov(np.stack([new, old]))
    var = (c[0, 0] - 2 * r * c[0, 1] + r**2 * c[1, 1]) / len(new) / old.mean() ** 2
    return r, 1.96 * np.sqrt(var)
""",
        ),
        (
            "bootstrap of the pairs, standard deviation",
            """
def paired_ratio(new, old):
    rng = torch.Generator().manual_seed(1)
    rows = torch.randint(len(new), (2000, len(new)), generator=rng)
    return new.mean() / old.mean(), 1.96 * (new[rows].mean(1) / old[rows].mean(1)).std()
""",
        ),
        (
            "bootstrap of the pairs, percentiles",
            """
def paired_ratio(new, old):
    rng = np.random.default_rng(5)
    new, old = new.numpy(), old.numpy()
    draws = []
    for _ in range(3000):
        rows = rng.integers(0, len(new), len(new))
        draws.append(new[rows].sum() / old[rows].sum())
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(new.sum() / old.sum()), float(high - low) / 2
""",
        ),
        (
            "jackknife",
            """
def paired_ratio(new, old):
    n = len(new)
    left_out = (new.sum() - new) / (old.sum() - old)
    variance = (n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()
    return (new.mean() / old.mean()).item(), 2 * variance.sqrt().item()
""",
        ),
        (
            "influence of every pair, float32",
            """
def paired_ratio(new, old):
    new, old = new.float(), old.float()
    r = new.sum() / old.sum()
    influence = (new - r * old) / old.mean()
    return r, 1.96 * influence.square().mean().sqrt() / math.sqrt(len(new))
""",
        ),
    ],
    "a4_find_levels": [
        (
            "an even grid in log sigma, its own table",
            """
def find_levels(D, noise, steps):
    grid = torch.linspace(math.log(80), math.log(0.002), 71).double().exp()
    grid[0], grid[-1] = 80.0, 0.002
    x, states, slopes = noise, [noise], []
    for a, b in zip(grid[:-1].tolist(), grid[1:].tolist()):
        first = (x - D(x, a)) / a
        there = x + (b - a) * first
        x = x + (b - a) * (first + (there - D(there, b)) / b) / 2
        slopes.append(first)
        states.append(x)
    n = len(grid) - 1
    value, choices = None, []
    cost = np.full((n + 1, n + 1), np.inf)
    for i in range(n):
        for j in range(i + 1, n + 1):
            cost[i, j] = float((states[i] + (grid[j] - grid[i]) * slopes[i] - states[j]).norm(dim=1).mean())
    value = cost[:, n]
    for _ in range(steps - 1):
        ways = cost + value
        choices.append(ways.argmin(1))
        value = ways.min(1)
    route = [0]
    for c in reversed(choices):
        route.append(int(c[route[-1]]))
    return grid[[*route, n]].tolist()
""",
        ),
        (
            "more levels in the teacher, a small coefficient",
            """
def find_levels(D, noise, steps):
    grid = schedules.polynomial(80)
    x, states, denoised = noise[:32], [noise[:32]], []
    for s, t in zip(grid[:-1].tolist(), grid[1:].tolist()):
        d = D(x, s)
        slope = (x - d) / s
        there = x + (t - s) * slope
        x = x + (t - s) / 2 * (slope + (there - D(there, t)) / t)
        states.append(x)
        denoised.append(d)
    cost = jump_costs(torch.stack(states), torch.stack(denoised), grid, "position")
    return grid[cheapest_through(cost, steps, [])]
""",
        ),
        (
            "cheapest route first, then single levels moved by trial on the warm-up noise",
            """
def find_levels(D, noise, steps):
    grid, calls = schedules.polynomial(60), [0]
    def ask(x, s):
        calls[0] += 1
        return D(x, s)
    x, states, denoised = noise, [noise], []
    for s, t in zip(grid[:-1].tolist(), grid[1:].tolist()):
        denoised.append(ask(x, s))
        slope = (x - denoised[-1]) / s
        there = x + (t - s) * slope
        x = x + (t - s) / 2 * (slope + (there - ask(there, t)) / t)
        states.append(x)
    end = x
    best = grid[cheapest_through(jump_costs(torch.stack(states), torch.stack(denoised), grid, "position"), steps, [])]
    def error(levels):
        y = noise
        for s, t in zip(levels[:-1].tolist(), levels[1:].tolist()):
            y = y + (t - s) * (y - ask(y, s)) / s
        return float((y - end).norm(dim=1).mean())
    least, size, k = error(best), 0.3, 0
    while calls[0] + steps < 500:
        i, sign = 1 + (k // 2) % (steps - 1), 1 - 2 * (k % 2)
        trial = best.clone()
        trial[i] *= math.exp(sign * size)
        k += 1
        if k % (4 * (steps - 1)) == 0:
            size /= 2
        if bool((trial.diff() < 0).all()) and (e := error(trial)) < least:
            best, least = trial, e
    return best
""",
        ),
        (
            "even shares of the square root of the second derivative along the path",
            """
def find_levels(D, noise, steps):
    grid = torch.linspace(math.log(80), math.log(0.002), 201).double().exp()
    grid[0], grid[-1] = 80.0, 0.002
    x, slopes = noise, []
    for a, b in zip(grid[:-1].tolist(), grid[1:].tolist()):
        first = (x - D(x, a)) / a
        there = x + (b - a) * first
        second = (there - D(there, b)) / b
        x = x + (b - a) * (first + second) / 2
        slopes.append((second - first).norm(dim=1).mean() / (a - b))  # |x''|
    density = torch.stack(slopes).sqrt() * -grid.diff()
    share = torch.cat([torch.zeros(1).double(), density.cumsum(0)]) / density.sum()
    inner = np.interp(np.arange(1, steps) / steps, share.numpy(), grid.log().numpy())
    return [80.0, *np.exp(inner).tolist(), 0.002]
""",
        ),
    ],
    "a4_ab2_rows": [
        (
            "entry by entry, the formula of the textbook",
            """
def ab2_rows(sigmas):
    s = [float(v) for v in sigmas]
    n_steps = len(s) - 1
    W = np.zeros((n_steps, n_steps))
    W[0, 0] = 1
    for n in range(1, n_steps):
        omega = (s[n + 1] - s[n]) / (s[n] - s[n - 1])
        W[n, n], W[n, n - 1] = 1 + omega / 2, -omega / 2
    return W
""",
        ),
        (
            "the line through two directions at the middle of the step",
            """
def ab2_rows(sigmas):
    rows = [[1.0] + [0.0] * (len(sigmas) - 2)]
    for n in range(1, len(sigmas) - 1):
        before, now, after = sigmas[n - 1 : n + 2].tolist()
        middle = (now + after) / 2
        row = [0.0] * (len(sigmas) - 1)
        row[n - 1] = (middle - now) / (before - now)
        row[n] = (middle - before) / (now - before)
        rows.append(row)
    return rows
""",
        ),
        (
            "two equations: exact for 1 and for sigma",
            """
def ab2_rows(sigmas):
    N = len(sigmas) - 1
    out = torch.zeros(N, N).double()
    out[0, 0] = 1.0
    for n in range(1, N):
        a, b = sigmas[n], sigmas[n + 1]
        powers = torch.stack([torch.ones(2).double(), sigmas[n - 1 : n + 1]])
        exact = torch.stack([b - a, (b**2 - a**2) / 2]) / (b - a)
        out[n, n - 1 : n + 1] = torch.linalg.solve(powers, exact)
    return out
""",
        ),
        (
            "two diagonals, in single precision",
            """
def ab2_rows(sigmas):
    h = sigmas.diff()
    if len(h) == 1:
        return torch.ones(1, 1)
    r = h[1:] / h[:-1] / 2
    newest = torch.cat([torch.ones(1).double(), 1 + r])
    return (torch.diag(newest) - torch.diag(r, -1)).float()
""",
        ),
    ],
    "a4_roll_out": [
        (
            "a tensor of directions, one product a step",
            """
def roll_out(D, x, sigmas, rows):
    N = len(sigmas) - 1
    d = torch.zeros(N, *x.shape, dtype=torch.float64)
    for n in range(N):
        d[n] = (x - D(x, float(sigmas[n]))) / sigmas[n]
        x = x + (sigmas[n + 1] - sigmas[n]) * torch.tensordot(rows[n], d, 1)
    return x
""",
        ),
        (
            "NumPy",
            """
def roll_out(D, x, sigmas, rows):
    s, w, y, past = sigmas.numpy(), rows.numpy(), x.numpy(), []
    for n in range(len(w)):
        past.append((y - D(torch.tensor(y), s[n]).numpy()) / s[n])
        y = y + (s[n + 1] - s[n]) * sum(w[n, j] * past[j] for j in range(n + 1))
    return y
""",
        ),
        (
            "steps in place of shares, levels as tensors, one number for each sample to D",
            """
def roll_out(D, x, sigmas, rows):
    steps, seen = rows * sigmas.diff()[:, None], []
    for n, sigma in enumerate(sigmas[:-1]):
        seen += [(x - D(x, sigma.expand(len(x)).contiguous())) / sigma]
        for j, d in enumerate(seen):
            x = x + steps[n, j] * d
    return x
""",
        ),
        (
            "flat, the newest first",
            """
def roll_out(D, x, sigmas, rows):
    shape, y, history = x.shape, x.flatten(1), []
    for n, (a, b) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist())):
        history.insert(0, (y - D(y.reshape(shape), a).flatten(1)) / a)
        y = y + (b - a) * torch.einsum("j,jbd->bd", rows[n, : n + 1].flip(0), torch.stack(history))
    return y.reshape(shape)
""",
        ),
    ],
    "a4_fit_row": [
        (
            "NumPy's least squares",
            """
def fit_row(x, directions, target, step, mass):
    root = np.sqrt(np.asarray(mass)).reshape(-1, 1)
    A = np.stack([(root * step * d.flatten(1).numpy()).ravel() for d in directions], axis=1)
    b = (root * (target - x).flatten(1).numpy()).ravel()
    return np.linalg.lstsq(A, b, rcond=None)[0]
""",
        ),
        (
            "normal equations with a pseudo-inverse",
            """
def fit_row(x, directions, target, step, mass):
    d, gap = directions.flatten(2), (target - x).flatten(1) / step
    A = torch.einsum("kbi,lbi,b->kl", d, d, mass)
    return torch.linalg.pinv(A, hermitian=True, rtol=1e-12) @ torch.einsum("kbi,bi,b->k", d, gap, mass)
""",
        ),
        (
            "normal equations with a very small ridge",
            """
def fit_row(x, directions, target, step, mass):
    columns = step * directions.flatten(2)
    weighted = columns * mass[None, :, None]
    A = weighted.flatten(1) @ columns.flatten(1).T
    b = weighted.flatten(1) @ (target - x).flatten()
    return torch.linalg.solve(A + 1e-10 * A.diagonal().mean() * torch.eye(len(A)).double(), b)
""",
        ),
        (
            "PyTorch's least squares, sample by sample",
            """
def fit_row(x, directions, target, step, mass):
    rows, right = [], []
    for b in range(len(x)):
        m = math.sqrt(float(mass[b]))
        rows.append(m * step * directions[:, b].reshape(len(directions), -1).T)
        right.append(m * (target[b] - x[b]).reshape(-1, 1))
    return torch.linalg.lstsq(torch.cat(rows), torch.cat(right), driver="gelsd").solution.squeeze(1)
""",
        ),
        (
            "one direction at a time, each made orthogonal to those before",
            """
def fit_row(x, directions, target, step, mass):
    flat = (directions * step * mass.sqrt().reshape(1, -1, *[1] * (x.ndim - 1))).reshape(len(directions), -1)
    left = ((target - x) * mass.sqrt().reshape(-1, *[1] * (x.ndim - 1))).flatten()
    basis, tables, row = [], [], torch.zeros(len(flat)).double()
    for k, v in enumerate(flat):
        table = torch.eye(len(flat)).double()[k]
        size = v.norm()
        for _ in range(2):
            for q, t in zip(basis, tables):
                inside = q @ v
                v, table = v - inside * q, table - inside * t
        if v.norm() > 1e-9 * size:
            basis.append(v / v.norm())
            tables.append(table / v.norm())
    for q, t in zip(basis, tables):
        row += (q @ left) * t
    return row
""",
        ),
    ],
    "a4_own_run": [
        ("numbers typed in", "own_run = (0.1568, 0.0293)"),
        (
            "nothing of the exercises used",
            """
def run(seed):
    D, s, warm, fresh = own_model(seed)
    both, y = torch.cat([warm[0], fresh[0]]), fresh[0]
    past, old_past = [], []
    for n in range(6):
        h = s[n + 1] - s[n]
        past.append((both - D(both, float(s[n]))) / s[n])
        A = h * torch.stack([d[:64].flatten() for d in past[-3:]], 1)
        w = torch.linalg.lstsq(A, (warm[n + 1] - both[:64]).reshape(-1, 1)).solution.flatten()
        both = both + h * sum(a * d for a, d in zip(w, past[-3:]))
        old_past.append((y - D(y, float(s[n]))) / s[n])
        ratio = h / (s[n] - s[n - 1]) / 2 if n else 0.0
        y = y + h * ((1 + ratio) * old_past[n] - ratio * old_past[n - 1])
    new, old = (both[64:] - fresh[-1]).norm(dim=1), (y - fresh[-1]).norm(dim=1)
    rng = torch.Generator().manual_seed(0)
    rows = torch.randint(400, (2000, 400), generator=rng)
    return float(new.mean() / old.mean()), 1.96 * float((new[rows].mean(1) / old[rows].mean(1)).std())
own_run = run(ID)
""",
        ),
        (
            "a list, tensors for the two numbers",
            """
D, sigmas, warm_up, fresh = own_model(ID)
rows = torch.zeros(6, 6).double()
for n in range(6):
    states, d = warm_up[0], []
    for m in range(n + 1):  # from the start every time
        d.append((states - D(states, float(sigmas[m]))) / sigmas[m])
        if m < n:
            states = states + (sigmas[m + 1] - sigmas[m]) * torch.tensordot(rows[m, : m + 1], torch.stack(d), 1)
    first = max(0, n - 2)
    rows[n, first : n + 1] = fit_row(
        states, torch.stack(d[first:]), warm_up[n + 1], float(sigmas[n + 1] - sigmas[n]), torch.ones(64).double()
    )
fitted = (roll_out(D, fresh[0], sigmas, rows) - fresh[-1]).norm(dim=1)
classical = (roll_out(D, fresh[0], sigmas, ab2_rows(sigmas)) - fresh[-1]).norm(dim=1)
rest = fitted - fitted.mean() / classical.mean() * classical
own_run = [fitted.mean() / classical.mean(), 1.96 * rest.std() / 20 / classical.mean()]
""",
        ),
        (
            "the library, which is allowed here, for the sampling",
            """
D, s, warm, fresh = own_model(ID)
weights, x, past = [], warm[0], []
for n in range(6):
    h = float(s[n + 1] - s[n])
    past.append((x - D(x, float(s[n]))) / s[n])
    newest = torch.stack(past[::-1][:3])
    w = fit_row(x, newest, warm[n + 1], h, torch.ones(64).double())
    x = x + h * torch.tensordot(w, newest, 1)
    weights.append((h * w).tolist())
new = (sample(D, fresh[0], s, scheduling.FittedMultistep(weights)).final - fresh[-1]).norm(dim=1)
old = (sample(D, fresh[0], s, solvers.get("ipndm_v", order=2)).final - fresh[-1]).norm(dim=1)
own_run = (float(new.mean() / old.mean()), paired_ratio(new, old)[1])
""",
        ),
    ],
}


def wrong(desk: Desk) -> Answers:
    """Wrong answers: edits of the solution, each a mistake that somebody makes, and some written from scratch."""
    ref = desk.references

    def edits(name: str, *rows: tuple[str, str, str]) -> list[tuple[str, str]]:
        return [(what, edited(ref[name], (old, new))) for what, old, new in rows]

    def grid(levels: str) -> str:
        return f"\ndef find_levels(D, noise, steps):\n    return {levels}\n"

    return {
        "a4_jump_costs": [
            *edits(
                "a4_jump_costs",
                ("step with the wrong sign", "(sigmas[i + 1 :] - sigmas[i])", "(sigmas[i] - sigmas[i + 1 :])"),
                ("direction not divided by sigma", "(x[i] - denoised[i]) / sigmas[i]", "x[i] - denoised[i]"),
                ("direction with the wrong sign", "(x[i] - denoised[i])", "(denoised[i] - x[i])"),
                (
                    "direction from the difference of states",
                    "(x[i] - denoised[i]) / sigmas[i]",
                    "(x[i + 1] - x[i]) / (sigmas[i + 1] - sigmas[i])",
                ),
                (
                    "denoised read one level late",
                    "(x[i] - denoised[i])",
                    "(x[i] - denoised[min(i + 1, len(denoised) - 1)])",
                ),
                ("landed from the start of the path", "landed = x[i] +", "landed = x[0] +"),
                ("distance to the start of the jump", "(landed - later).norm", "(landed - x[i]).norm"),
                ("squared distance", "(landed - later).norm(dim=2)", "(landed - later).square().sum(2)"),
                ("sum of absolute values", "(landed - later).norm(dim=2)", "(landed - later).abs().sum(2)"),
                ("mean over coordinates", "(landed - later).norm(dim=2)", "(landed - later).square().mean(2).sqrt()"),
                ("norm over the batch", "(landed - later).norm(dim=2)", "(landed - later).norm(dim=1)"),
                ("sum over the batch", "price.mean(1)", "price.sum(1)"),
                ("the first path only", "price.mean(1)", "price[:, 0]"),
                ("median over the batch", "price.mean(1)", "price.median(1).values"),
                ("root mean square over the batch", "price.mean(1)", "price.square().mean(1).sqrt()"),
                (
                    "absolute value of the bend",
                    "deviation(landed) - deviation(later)",
                    "(deviation(landed) - deviation(later)).abs()",
                ),
                (
                    "bend with the wrong sign",
                    "deviation(landed) - deviation(later)",
                    "deviation(later) - deviation(landed)",
                ),
                ("deviation of the landing only", "deviation(landed) - deviation(later)", "deviation(landed)"),
                ("deviation of the difference", "deviation(landed) - deviation(later)", "deviation(landed - later)"),
                ("deviation of the start subtracted", "deviation(later)", "deviation(x[i : i + 1])"),
                ("chord not of unit length", "chord / chord.norm(dim=1, keepdim=True)", "chord"),
                (
                    "chord divided by the square of its length",
                    "chord.norm(dim=1, keepdim=True)",
                    "chord.square().sum(1, keepdim=True)",
                ),
                ("one unit vector for the whole batch", "chord.norm(dim=1, keepdim=True)", "chord.norm()"),
                ("chord through the origin", "offset = states - x[0]", "offset = states"),
                ("chord to the denoised end", "chord = x[-1] - x[0]", "chord = denoised[-1] - x[0]"),
                ("chord of the next state", "chord = x[-1] - x[0]", "chord = x[1] - x[0]"),
                (
                    "distance along the chord",
                    "(offset - (offset * v).sum(2, keepdim=True) * v).norm(dim=2)",
                    "(offset * v).sum(2)",
                ),
                (
                    "distance to the first state",
                    "(offset - (offset * v).sum(2, keepdim=True) * v).norm(dim=2)",
                    "offset.norm(dim=2)",
                ),
                ("entries shifted by one", "cost[i, i + 1 :]", "cost[i, :-1][i:]"),
                ("transposed", "return cost", "return cost.T"),
                ("lower triangle filled too", "return cost", "return cost + cost.T"),
                ("diagonal of infinities", "return cost", "return cost.fill_diagonal_(math.inf)"),
                ("metrics swapped", 'metric == "position"', 'metric != "position"'),
                ("position for both", 'metric == "position"', "True"),
                ("vectors only, no pictures", "x, denoised = x.flatten(2), denoised.flatten(2)", "pass"),
            ),
        ],
        "a4_cheapest_through": [
            *edits(
                "a4_cheapest_through",
                ("stops ignored", " and not any(i < s < j for s in stops)", ""),
                (
                    "one of the stops is enough",
                    "not any(i < s < j for s in stops)",
                    "(not stops or not all(i < s < j for s in stops))",
                ),
                ("only the first stop", "for s in stops)", "for s in stops[:1])"),
                ("stops must not be skipped, nor landed on", "i < s < j", "i < s <= j"),
                ("stops avoided", "not any(i < s < j for s in stops)", "j not in [s for s in stops if s < n]"),
                ("one step too many", "range(steps)", "range(steps + 1)"),
                ("one step too few", "range(steps)", "range(steps - 1)"),
                ("ties to the larger route", "min(ways)", "min(ways, key=lambda w: (w[0], [-k for k in w[1]]))"),
                ("ties to the last found", "min(ways)", "min(reversed(ways), key=lambda w: w[0])"),
                ("dearest route", "min(ways)", "max(ways)"),
                ("cheapest jump first, greedily", "cost[i][j] + price", "cost[i][j]"),
                ("largest jump instead of the sum", "cost[i][j] + price", "max(cost[i][j], price)"),
                ("the matrix read backwards", "cost[i][j]", "cost[j][i]"),
                ("a coefficient of 1.15", "cost[i][j] + price", "cost[i][j] + 1.15 * price"),
                ("negative costs taken for 0", "cost[i][j] + price", "max(cost[i][j], 0) + price"),
                ("absolute costs", "cost[i][j] + price", "abs(cost[i][j]) + price"),
                ("staying in place allowed", "j > i", "j >= i"),
                ("an empty list where there is no route", "else None", "else []"),
                ("an error where there is no route", "best[0][1] if 0 in best else None", "best[0][1]"),
                ("the cost with the route", "best[0][1] if", "best[0] if"),
                ("the route backwards", "best[0][1] if", "best[0][1][::-1] if"),
                ("the route without its start", "best[0][1] if", "best[0][1][1:] if"),
                ("the route without its end", "best[0][1] if", "best[0][1][:-1] if"),
                ("jumps of equal length", "best[0][1] if", "[round(k * n / steps) for k in range(steps + 1)] if"),
            ),
            (
                "at most so many steps",
                edited(ref["a4_cheapest_through"], ("best = found", "best = {**found, n: (0.0, [n])}")),
            ),
            (
                "forwards: ties to the smallest index before the end",
                """
def cheapest_through(cost, steps, stops):
    cost, n = cost.tolist(), len(cost) - 1
    best = {0: (0.0, [0])}
    for _ in range(steps):
        found = {}
        for j in range(1, n + 1):
            ways = [(price + cost[i][j], route[::-1], route) for i, (price, route) in best.items()
                    if i < j and not any(i < s < j for s in stops)]
            if ways:
                found[j] = (min(ways)[0], [*min(ways)[2], j])
        best = found
    return best[n][1] if n in best else None
""",
            ),
            (
                "always the cheapest next jump",
                """
def cheapest_through(cost, steps, stops):
    n, route = len(cost) - 1, [0]
    for k in range(steps - 1):
        i = route[-1]
        route.append(min(range(i + 1, n - steps + k + 2), key=lambda j: float(cost[i, j])))
    return [*route, n]
""",
            ),
            (
                "stops swapped in afterwards",
                """
def cheapest_through(cost, steps, stops):
    route = scheduling.shortest_path(cost.nan_to_num(0.0), steps).tolist()
    for s in stops:
        if s not in route and len(route) > 2:
            k = min(range(1, len(route) - 1), key=lambda k: abs(route[k] - s))
            route[k] = s
    return sorted(route)
""",
            ),
        ],
        "a4_mixed_route": [
            *edits(
                "a4_mixed_route",
                ("a Heun step for one evaluation", '("heun", 2)', '("heun", 1)'),
                ("a Heun step for three evaluations", '("heun", 2)', '("heun", 3)'),
                ("an Euler step for two evaluations", '("euler", 1)', '("euler", 2)'),
                ("no Euler steps", '("euler", 1): torch.as_tensor(euler).tolist(), ', ""),
                ("no Heun steps", ', ("heun", 2): torch.as_tensor(heun).tolist()', ""),
                ("tables swapped", "torch.as_tensor(euler).tolist()", "torch.as_tensor(heun).tolist()"),
                ("the whole budget must be spent", "for v in value[1:] if", "for v in value[-1:] if"),
                ("the budget exceeded by one", "range(1, budget + 1)", "range(1, budget + 2)"),
                ("the budget not used up", "range(1, budget + 1)", "range(1, max(budget, 2))"),
                ("dearest way to each index", "total < found[i][0]", "total > found[i][0]"),
                ("the first way found", " or total < found[i][0]", ""),
                ("greedy: the rest of the way is free", "total = table[i][j] + rest", "total = table[i][j]"),
                ("largest jump instead of the sum", "table[i][j] + rest", "max(table[i][j], rest)"),
                ("the matrix read backwards", "table[i][j] + rest", "table[j][i] + rest"),
                ("ends at the last but one", "{n: (0.0, [n], [])}", "{n - 1: (0.0, [n - 1], [])}"),
                ("kinds backwards", "[kind, *kinds]", "[*kinds, kind]"),
                ("kinds of the last jump only", "[kind, *kinds]", "[kind]"),
                ("route backwards", "return route, kinds", "return route[::-1], kinds"),
                ("route and kinds swapped", "return route, kinds", "return kinds, route"),
                ("route only", "return route, kinds", "return route"),
                ("kinds in capitals", "return route, kinds", "return route, [k.upper() for k in kinds]"),
                (
                    "fewest evaluations among the routes",
                    "key=lambda way: way[0]",
                    "key=lambda way: len(way[2]) + way[2].count('heun')",
                ),
                ("dearest of the budgets", "= min((v[0]", "= max((v[0]"),
            ),
            (
                "the better of Euler only and Heun only",
                """
def mixed_route(euler, heun, budget):
    n, ways = len(euler) - 1, []
    for kind, price, table in (("euler", 1, euler), ("heun", 2, heun.clamp(max=1e9))):
        for k in range(1, min(n, budget // price) + 1):
            route = scheduling.shortest_path(table, k)
            ways.append((scheduling.path_cost(table, route), route.tolist(), [kind] * k))
    _, route, kinds = min(ways)
    return route, kinds
""",
            ),
            (
                "cheapest Euler route, Heun where evaluations are left",
                """
def mixed_route(euler, heun, budget):
    n = len(euler) - 1
    best = min((scheduling.path_cost(euler, r), r.tolist()) for r in scheduling.shortest_paths(euler, min(n, budget)))[1]
    left, kinds = budget - (len(best) - 1), ["euler"] * (len(best) - 1)
    gains = sorted(((float(heun[a, b] - euler[a, b]), k) for k, (a, b) in enumerate(zip(best, best[1:]))))
    for gain, k in gains[:left]:
        if gain < 0:
            kinds[k] = "heun"
    return best, kinds
""",
            ),
            (
                "the cheaper kind for each jump, then one table, evaluations not counted",
                """
def mixed_route(euler, heun, budget):
    n = len(euler) - 1
    both = torch.minimum(euler, heun)
    route = min((scheduling.path_cost(both, r), r.tolist()) for r in scheduling.shortest_paths(both, min(n, budget)))[1]
    return route, ["heun" if heun[a, b] < euler[a, b] else "euler" for a, b in zip(route, route[1:])]
""",
            ),
            (
                "the same, Heun costs doubled",
                """
def mixed_route(euler, heun, budget):
    n = len(euler) - 1
    both = torch.minimum(euler, 2 * heun)
    routes = scheduling.shortest_paths(both, min(n, budget))
    for route in reversed([r.tolist() for r in routes]):
        kinds = ["heun" if 2 * heun[a, b] < euler[a, b] else "euler" for a, b in zip(route, route[1:])]
        if len(kinds) + kinds.count("heun") <= budget:
            return route, kinds
    return [0, n], ["euler"]
""",
            ),
        ],
        "a4_paired_ratio": [
            *edits(
                "a4_paired_ratio",
                ("mean of the ratios", "new.mean() / old.mean()", "(new / old).mean()"),
                ("ratio of the medians", "new.mean() / old.mean()", "new.median() / old.median()"),
                ("old over new", "new.mean() / old.mean()", "old.mean() / new.mean()"),
                (
                    "ratio of root mean squares",
                    "new.mean() / old.mean()",
                    "(new**2).mean().sqrt() / (old**2).mean().sqrt()",
                ),
                ("geometric mean of the ratios", "new.mean() / old.mean()", "(new / old).log().mean().exp()"),
                ("difference of the means", "new.mean() / old.mean()", "new.mean() - old.mean()"),
                ("relative gain", "float(ratio), ", "float(1 - ratio), "),
                ("in percent", "float(ratio), ", "100 * float(ratio), "),
                ("one standard error", "1.96 * float", "float"),
                ("the whole width", "1.96 * float", "2 * 1.96 * float"),
                ("the quantile of 99 %", "1.96 * float", "2.58 * float"),
                ("the one-sided quantile", "1.96 * float", "1.645 * float"),
                ("spread of one sample, not of the mean", " / len(rest) ** 0.5", ""),
                ("divided by n, not by its root", "len(rest) ** 0.5", "len(rest)"),
                ("not divided by the old mean", "** 0.5 / old.mean()", "** 0.5"),
                ("divided by the new mean", "** 0.5 / old.mean()", "** 0.5 / new.mean()"),
                ("variance for deviation", "rest.std()", "rest.var()"),
                ("old taken for exact", "rest = new - ratio * old", "rest = new"),
                ("difference, ratio forgotten", "rest = new - ratio * old", "rest = new - old"),
                ("wrong sign of the pairing", "new - ratio * old", "new + ratio * old"),
                ("the ends of the interval", "1.96 * float(deviation)", "float(ratio) + 1.96 * float(deviation)"),
                ("ratio only", "return float(ratio), 1.96 * float(deviation)", "return float(ratio)"),
                (
                    "half-width first",
                    "return float(ratio), 1.96 * float(deviation)",
                    "return 1.96 * float(deviation), float(ratio)",
                ),
            ),
            (
                "as if the two were independent",
                """
def paired_ratio(new, old):
    r = new.mean() / old.mean()
    relative = (new.var() / new.mean() ** 2 + old.var() / old.mean() ** 2) / len(new)
    return float(r), 1.96 * float(r * relative.sqrt())
""",
            ),
            (
                "bootstrap that draws the two apart",
                """
def paired_ratio(new, old):
    rng, n = torch.Generator().manual_seed(0), len(new)
    a, b = (torch.randint(n, (2000, n), generator=rng) for _ in range(2))
    return new.mean() / old.mean(), 1.96 * (new[a].mean(1) / old[b].mean(1)).std()
""",
            ),
            (
                "spread of the single ratios",
                """
def paired_ratio(new, old):
    return float(new.mean() / old.mean()), 1.96 * float((new / old).std()) / len(new) ** 0.5 * 2
""",
            ),
            (
                "bootstrap of two hundred of the samples",
                """
def paired_ratio(new, old):
    rng = torch.Generator().manual_seed(0)
    rows = torch.randint(len(new), (2000, 20), generator=rng)
    return new.mean() / old.mean(), 1.96 * (new[rows].mean(1) / old[rows].mean(1)).std()
""",
            ),
            (
                "a fixed 5 %",
                "\ndef paired_ratio(new, old):\n    return new.mean() / old.mean(), 0.05 * new.mean() / old.mean()\n",
            ),
        ],
        "a4_find_levels": [
            ("the baseline", grid("schedules.polynomial(steps)")),
            ("even in log sigma", grid("schedules.logsnr(steps)")),
            ("cosine", grid("schedules.cosine(steps)")),
            ("even in time", grid("schedules.time_uniform(steps)")),
            ("even in sigma", grid("schedules.linear(steps)")),
            ("another rho", grid("schedules.polynomial(steps, rho=5.0)")),
            ("a smaller rho", grid("schedules.polynomial(steps, rho=3.0)")),
            (
                "levels of the lesson, typed in",
                """
def find_levels(D, noise, steps):
    levels = [80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002]
    extra = [5.8389, 0.9654, 20.0]
    return sorted([*levels, *extra[: steps - 6]], reverse=True) if steps >= 6 else [*levels[:4], 0.5666, 0.002]
""",
            ),
            (
                "the best of the usual grids, for a unit Gaussian",
                """
def find_levels(D, noise, steps):
    G, x = Gaussian([0.0] * 8, 1.0), noise
    end = G.flow(x, 80.0, 0.002) if x.shape[1] == 8 else None
    grids = [f(steps) for f in (schedules.cosine, schedules.logsnr, schedules.time_uniform)]
    if end is None:
        return grids[0]
    return min(grids, key=lambda s: float((sample(G, x, s).final - end).norm(dim=1).mean()))
""",
            ),
            (
                "a few random schedules tried",
                """
def find_levels(D, noise, steps):
    rng = torch.Generator().manual_seed(0)
    best, least = None, math.inf
    end = D(noise, 80.0)
    for _ in range(10):
        inner = torch.rand(steps - 1, generator=rng).double().sort(descending=True).values
        levels = torch.cat([torch.tensor([80.0]).double(), 0.002 * (79 / 0.002) ** inner, torch.tensor([0.002]).double()])
        x = noise
        for s, t in zip(levels[:-1].tolist(), levels[1:].tolist()):
            x = x + (t - s) * (x - D(x, s)) / s
        if (e := float((x - end).norm())) < least:
            best, least = levels, e
    return best
""",
            ),
            *edits(
                "a4_find_levels",
                (
                    "one level too few",
                    "return grid[cheapest_through(cost, steps, [])]",
                    "return grid[cheapest_through(cost, steps - 1, [])]",
                ),
                (
                    "rising",
                    "return grid[cheapest_through(cost, steps, [])]",
                    "return grid[cheapest_through(cost, steps, [])].flip(0)",
                ),
                (
                    "indices instead of levels",
                    "return grid[cheapest_through(cost, steps, [])]",
                    "return cheapest_through(cost, steps, [])",
                ),
                (
                    "the end left out",
                    "return grid[cheapest_through(cost, steps, [])]",
                    "return grid[cheapest_through(cost, steps, [])][:-1]",
                ),
                (
                    "0 at the end",
                    "return grid[cheapest_through(cost, steps, [])]",
                    "return [*grid[cheapest_through(cost, steps, [])][:-1].tolist(), 0.0]",
                ),
                ("dearest route", "cheapest_through(cost,", "cheapest_through(-cost,"),
                ("costs transposed", "cheapest_through(cost,", "cheapest_through(cost.T,"),
                ("all jumps at one price", "cheapest_through(cost,", "cheapest_through(torch.ones_like(cost),"),
                ("a grid that is too coarse", "schedules.polynomial(60)", "schedules.polynomial(steps + 1)"),
                ("an even grid", "schedules.polynomial(60)", "schedules.linear(60)"),
                ("too many calls", "schedules.polynomial(60)", "schedules.polynomial(300)"),
                ("to 0.01 only", "schedules.polynomial(60)", "schedules.polynomial(60, sigma_min=0.01)"),
                ("from 20 only", "schedules.polynomial(60)", "schedules.polynomial(60, sigma_max=20.0)"),
                ("direction with the wrong sign", "(x - denoised[-1]) / s", "(denoised[-1] - x) / s"),
                (
                    "half of the route only",
                    "return grid[cheapest_through(cost, steps, [])]",
                    "return grid[[*range(steps), 60]]",
                ),
            ),
        ],
        "a4_ab2_rows": [
            *edits(
                "a4_ab2_rows",
                ("even steps", "steps[n] / (2 * steps[n - 1])", "torch.tensor(0.5).double()"),
                ("ratio of steps upside down", "steps[n] / (2 * steps[n - 1])", "steps[n - 1] / (2 * steps[n])"),
                ("ratio not halved", "steps[n] / (2 * steps[n - 1])", "steps[n] / steps[n - 1]"),
                ("ratio of the next steps", "(2 * steps[n - 1])", "(2 * steps[min(n + 1, len(steps) - 1)])"),
                ("ratio of levels", "steps[n] / (2 * steps[n - 1])", "sigmas[n + 1] / (2 * sigmas[n])"),
                (
                    "ratio of steps in log sigma",
                    "steps[n] / (2 * steps[n - 1])",
                    "(sigmas[n + 1] / sigmas[n]).log() / (2 * (sigmas[n] / sigmas[n - 1]).log())",
                ),
                ("length of the step in place of the ratio", "steps[n] / (2 * steps[n - 1])", "steps[n].abs() / 2"),
                ("signs swapped", "[-share, 1 + share]", "[share, 1 - share]"),
                ("newest and oldest swapped", "[-share, 1 + share]", "[1 + share, -share]"),
                ("rows that do not sum to 1", "[-share, 1 + share]", "[-share, 1 + 2 * share]"),
                ("weights of a whole step", "return rows", "return rows * steps[:, None]"),
                ("implicit: the trapezoid's", "[-share, 1 + share]", "[share / share / 2, share / share / 2]"),
                ("newest first, as in the lesson's list of weights", "return rows", "return rows.flip(1)"),
                ("a row for every level", "return rows", "return torch.nn.functional.pad(rows, (0, 1, 0, 1))"),
                ("only the newest two columns", "return rows", "return rows[:, -2:]"),
                ("transposed", "return rows", "return rows.T"),
                ("Euler's", "range(1, len(steps))", "range(0)"),
                ("the second step by Euler too", "range(1, len(steps))", "range(2, len(steps))"),
                ("the last step by Euler", "range(1, len(steps))", "range(1, len(steps) - 1)"),
                ("fails for a single step", "range(1, len(steps))", "range(1, len(steps) if len(steps) > 1 else 3)"),
            ),
            (
                "the library's",
                "\ndef ab2_rows(sigmas):\n    return scheduling.multistep_weights(solvers.get('ipndm_v', order=2), sigmas)\n",
            ),
            (
                "the library's, under another name",
                "\nfrom teachkit.scheduling import multistep_weights as found\ndef ab2_rows(sigmas):\n    return found(solvers.get('ipndm_v', order=2), sigmas)\n",
            ),
            (
                "iPNDM's of order 2",
                """
def ab2_rows(sigmas):
    rows = torch.eye(len(sigmas) - 1).double() * 1.5 - 0.5 * torch.diag(torch.ones(len(sigmas) - 2).double(), -1)
    rows[0, 0] = 1
    return rows
""",
            ),
            (
                "fails where the last level is 0",
                edited(
                    ref["a4_ab2_rows"],
                    (
                        "steps = sigmas.diff()",
                        "steps = sigmas.log().diff().expm1() * sigmas[:-1] if sigmas[-1] > 0 else 1 / sigmas",
                    ),
                ),
            ),
        ],
        "a4_roll_out": [
            *edits(
                "a4_roll_out",
                (
                    "the newest direction only",
                    "for weight, direction in zip(row, directions)",
                    "for weight, direction in [(row[n], directions[n])]",
                ),
                ("the newest two directions only", "in zip(row, directions)", "in list(zip(row, directions))[-2:]"),
                ("the newest four directions only", "in zip(row, directions)", "in list(zip(row, directions))[-4:]"),
                ("newest first", "zip(row, directions)", "zip(row, reversed(directions))"),
                ("weights taken by columns", "enumerate(rows)", "enumerate(rows.T)"),
                ("the next row", "zip(row, directions)", "zip(rows[min(n + 1, len(rows) - 1)], directions)"),
                ("the last row for all steps", "zip(row, directions)", "zip(rows[-1], directions)"),
                ("rows made to sum to 1", "zip(row, directions)", "zip(row / row.sum(), directions)"),
                ("absolute weights", "zip(row, directions)", "zip(row.abs(), directions)"),
                ("step with the wrong sign", "x = x + (", "x = x - ("),
                ("step not multiplied", "(sigmas[n + 1] - sigma) * combined", "combined"),
                ("direction with the wrong sign", "(x - D(x, sigma))", "(D(x, sigma) - x)"),
                ("direction not divided by sigma", "(x - D(x, sigma)) / sigma", "x - D(x, sigma)"),
                ("direction divided by sigma squared", "/ sigma)", "/ sigma**2)"),
                ("directions at the start only", "(x - D(x, sigma)) / sigma", "(x - D(x, float(sigmas[0]))) / sigma"),
                (
                    "D called twice a step",
                    "directions.append((x - D(x, sigma))",
                    "directions.append(0.5 * (2 * x - D(x, sigma) - D(x, sigma))",
                ),
                ("D in place of the direction", "(x - D(x, sigma)) / sigma", "D(x, sigma)"),
                ("one step too few", "enumerate(rows)", "enumerate(rows[:-1])"),
                ("each step from the start", "x = x + (", "start = x if n == 0 else start\n        x = start + ("),
                (
                    "vectors only",
                    "directions.append((x",
                    "x.T @ x if x.ndim == 2 else 1 / 0\n        directions.append((x",
                ),
                ("the last denoised at the end", "return x", "return D(x, max(float(sigmas[-1]), 1e-3))"),
                ("all states returned", "return x", "return torch.stack([x] * len(sigmas))"),
                ("fails where the last level is 0", "directions = []", "directions, _ = [], 1 / float(sigmas[-1])"),
                ("flattened", "return x", "return x.flatten(1) if x.ndim > 2 else x"),
            ),
            (
                "the library's solver with these rows",
                """
def roll_out(D, x, sigmas, rows):
    weights = [(row[: n + 1].flip(0) * (sigmas[n + 1] - sigmas[n])).tolist() for n, row in enumerate(rows)]
    return sample(D, x, sigmas, scheduling.FittedMultistep(weights)).final
""",
            ),
            (
                "Euler's method",
                "\ndef roll_out(D, x, sigmas, rows):\n    for s, t in zip(sigmas, sigmas[1:]):\n        x = x + (t - s) * (x - D(x, float(s))) / s\n    return x\n",
            ),
        ],
        "a4_fit_row": [
            *edits(
                "a4_fit_row",
                ("weights of the samples ignored", "mass.sqrt()", "torch.ones_like(mass)"),
                ("weights of the samples not rooted", "mass.sqrt()", "mass"),
                ("weights of the samples squared", "mass.sqrt()", "mass.square()"),
                ("the inverse of the weights of the samples", "mass.sqrt()", "(mass + 1e-3).rsqrt()"),
                ("samples that count 0 still count", "mass.sqrt()", "mass.clamp(min=0.1).sqrt()"),
                ("samples weighted on one side only", "gap = (root * (target - x)", "gap = ((target - x)"),
                ("directions weighted on no side", "(root * step * directions", "(step * directions"),
                ("the step left out", "root * step * directions", "root * directions"),
                ("the step with the other sign", "root * step * directions", "root * -step * directions"),
                ("the step divided", "root * step * directions", "root / step * directions"),
                ("x left out", "(target - x)", "target"),
                ("the gap backwards", "(target - x)", "(x - target)"),
                ("weights of whole steps", "@ gap", "@ gap * step"),
                ("weights in the other order", "columns.T) @ gap", "columns.flip(0).T) @ gap"),
                (
                    "made to sum to 1",
                    "return torch.linalg.pinv(columns.T) @ gap",
                    "row = torch.linalg.pinv(columns.T) @ gap\n    return row / row.sum()",
                ),
                ("projection without the inverse", "torch.linalg.pinv(columns.T)", "columns"),
                (
                    "each direction as if it were alone",
                    "torch.linalg.pinv(columns.T) @ gap",
                    "(columns @ gap / columns.square().sum(1))",
                ),
                (
                    "a ridge that is felt",
                    "torch.linalg.pinv(columns.T) @ gap",
                    "torch.linalg.solve(columns @ columns.T + 0.1 * torch.eye(len(columns)).double(), columns @ gap)",
                ),
                (
                    "normal equations that fail for dependent directions",
                    "torch.linalg.pinv(columns.T) @ gap",
                    "torch.linalg.inv(torch.linalg.cholesky(columns @ columns.T)).T @ torch.linalg.inv(torch.linalg.cholesky(columns @ columns.T)) @ (columns @ gap)",
                ),
                (
                    "the first sample only",
                    ".flatten(1)  # (K, B * d)\n",
                    "[:, :1].flatten(1)\n    target, x, root = target[:1], x[:1], root[:1]\n",
                ),
                ("a row for every sample", "@ gap", "@ gap.reshape(-1, 1).expand(-1, len(x))"),
                (
                    "the landing in place of the weights",
                    "return torch.linalg.pinv(columns.T) @ gap",
                    "return columns.T @ torch.linalg.pinv(columns.T) @ gap",
                ),
                ("vectors only", "directions.flatten(2)", "directions.reshape(len(directions), *x.shape[:2])"),
                (
                    "mean of the directions",
                    "torch.linalg.pinv(columns.T) @ gap",
                    "torch.full((len(columns),), 1 / len(columns)).double()",
                ),
            ),
            (
                "the weight of one direction after the other",
                """
def fit_row(x, directions, target, step, mass):
    row, left = [], target - x
    shape = (-1, *[1] * (x.ndim - 1))
    for d in directions:
        row.append((mass.reshape(shape) * d * left).sum() / step / (mass.reshape(shape) * d * d).sum())
        left = left - step * row[-1] * d
    return torch.stack(row)
""",
            ),
            (
                "the mean of the rows of the samples",
                """
def fit_row(x, directions, target, step, mass):
    rows = [torch.linalg.pinv(step * directions[:, b].flatten(1).T) @ (target - x)[b].flatten() for b in range(len(x))]
    return (mass[:, None] * torch.stack(rows)).sum(0) / mass.sum()
""",
            ),
        ],
        "a4_own_run": [
            # The first four stand alone: what they get does not depend on the other answers of a submission.
            ("the numbers of another copy", "own_run = (0.1282, 0.0235)"),
            ("the ratio upside down", "own_run = (1 / 0.1568, 0.0293)"),
            ("one standard error", "own_run = (0.1568, 0.0293 / 1.96)"),
            ("the gain in place of the ratio", "own_run = (1 - 0.1568, 0.0293)"),
            ("the whole width", "own_run = (0.1568, 2 * 0.0293)"),
            ("in percent", "own_run = (15.68, 2.93)"),
            ("rounded to a digit", "own_run = (0.2, 0.02)"),
            ("three numbers", "own_run = (2027, 0.1568, 0.0293)"),
            ("negative", "own_run = (-0.1568, 0.0293)"),
            ("in words", "own_run = ('0.1568', 0.0293)"),
            ("not answered", "own_run = ..."),
            ("infinite", "own_run = (math.inf, math.inf)"),
            *edits(
                "a4_own_run",
                ("two directions", "directions[-3:]", "directions[-2:]"),
                ("all directions", "directions[-3:]", "directions"),
                ("the oldest three", "directions[-3:]", "directions[:3]"),
                (
                    "four of the warm-up paths only",
                    "D, sigmas, warm_up, fresh = own_model(ID)",
                    "D, sigmas, warm_up, fresh = own_model(ID)\nwarm_up = torch.cat([warm_up[:, :4]] * 16, 1)",
                ),
                ("fitted at the teacher's states", "    step = float(", "    x = warm_up[n]\n    step = float("),
                ("fitted to the teacher's end", "warm_up[n + 1]", "warm_up[-1]"),
                (
                    "judged on the warm-up paths",
                    "fresh[0], sigmas, table) - fresh[-1]",
                    "warm_up[0], sigmas, table) - warm_up[-1]",
                ),
                ("fitted on the fresh noise", "= own_model(ID)", "= own_model(ID)\nwarm_up = fresh[:, :64]"),
                ("against Euler's method", "ab2_rows(sigmas))", "torch.eye(6).double())"),
                (
                    "medians",
                    "paired_ratio(*distances)",
                    "distances[0].median() / distances[1].median(), paired_ratio(*distances)[1]",
                ),
                ("squared distances", ".norm(dim=1)", ".square().sum(1)"),
                ("rows in the wrong columns", "rows[n, n + 1 - len(row) : n + 1]", "rows[n, : len(row)]"),
            ),
            (
                "mean of the ratios",
                edited(
                    ref["a4_own_run"],
                    (
                        "paired_ratio(*distances)",
                        "(distances[0] / distances[1]).mean(), paired_ratio(*distances)[1]",
                    ),
                ),
            ),
            (
                "as if unpaired",
                edited(
                    ref["a4_own_run"],
                    (
                        "paired_ratio(*distances)",
                        "(r := paired_ratio(*distances)[0], 1.96 * r / 20 * sum(d.var() / d.mean() ** 2 for d in distances).sqrt())",
                    ),
                ),
            ),
        ],
    }


# What gets full marks although it is changed, and why. "equivalent": it computes the same, or as well as is asked for.
KNOWN: dict[str, dict[str, str]] = {
    "a4_jump_costs": {
        "line 5, column 12: x[-1] - x[0] -> x[0] - x[-1]": "equivalent: a line has no direction",
        "line 9, column 17: states - x[0] -> x[0] - states": "equivalent: a length has no sign",
        "line 9, column 28: 0 -> -1": "equivalent: both ends lie on the chord",
        "line 10, column 16: offset - (offset * v).sum(2, keepdim=True) * v -> (offset * v).sum(2, keepdim=True) * v - offset": "equivalent: a length has no sign",
        "line 18, column 21: landed - later -> later - landed": "equivalent: a length has no sign",
    },
    "a4_cheapest_through": {
        "line 4, column 4: cost = torch.as_tensor(cost).tolist() dropped": "equivalent: tensors can be added and compared too",
        "line 4, column 11: torch.as_tensor(cost).tolist() -> torch.as_tensor(cost)": "equivalent: tensors can be added and compared too",
        "line 4, column 11: torch.as_tensor(cost) -> cost": "equivalent: it is a tensor already",
        "line 6, column 16: 0.0 -> 1.0": "equivalent: all routes cost one more",
        "line 6, column 16: 0.0 -> -1.0": "equivalent: all routes cost one less",
    },
    "a4_mixed_route": {
        "line 4, column 28: torch.as_tensor(euler).tolist() -> torch.as_tensor(euler)": "equivalent: tensors for numbers",
        "line 4, column 28: torch.as_tensor(euler) -> euler": "equivalent: it is a tensor already",
        "line 4, column 74: torch.as_tensor(heun).tolist() -> torch.as_tensor(heun)": "equivalent: tensors for numbers",
        "line 4, column 74: torch.as_tensor(heun) -> heun": "equivalent: it is a tensor already",
        "line 6, column 18: 0.0 -> 1.0": "equivalent: all routes cost one more",
        "line 6, column 18: 0.0 -> -1.0": "equivalent: all routes cost one less",
        "line 13, column 41: total < found[i][0] -> total <= found[i][0]": "equivalent: of equal costs any will do",
        "line 16, column 47: 1 -> 0": "equivalent: without an evaluation one is at the end only",
    },
    "a4_paired_ratio": {
        "line 5, column 11: new - ratio * old -> ratio * old - new": "equivalent: a standard deviation has no sign",
        "line 7, column 11: float(ratio) -> ratio": "equivalent: a tensor is taken for a number",
        "line 7, column 32: float(deviation) -> deviation": "equivalent: a tensor is taken for a number",
    },
    "a4_find_levels": {
        "line 4, column 32: 60 -> 61": "equivalent: one level more or less in the teacher",
        "line 4, column 32: 60 -> 59": "equivalent: one level more or less in the teacher",
        "line 6, column 20: grid[:-1].tolist() -> grid[:-1]": "equivalent: tensors for numbers",
        "line 6, column 40: grid[1:].tolist() -> grid[1:]": "equivalent: tensors for numbers",
    },
    "a4_roll_out": {
        "line 6, column 16: float(sigmas[n]) -> sigmas[n]": "equivalent: tensors for numbers",
        "line 8, column 67: zip(row, directions) -> zip(directions, row)": "equivalent: a product has no order",
    },
    "a4_own_run": {
        "mean of the ratios": "on this copy it differs by less than the 2 % that are allowed",
        "line 1, column 0: own_run = None dropped": "equivalent: it is set below",
        "line 4, column 37: 6 -> 7": "equivalent: a column of zeros that nobody reads",
        "line 6, column 11: float(sigmas[n + 1] - sigmas[n]) -> sigmas[n + 1] - sigmas[n]": "equivalent: a tensor for a number",
        "line 7, column 32: float(sigmas[n]) -> sigmas[n]": "equivalent: a tensor for a number",
        "line 12, column 14: roll_out(D, fresh[0], sigmas, table) - fresh[-1] -> fresh[-1] - roll_out(D, fresh[0], sigmas, table)": "equivalent: a distance has no sign",
        "line 12, column 60: 1 -> 2": "one level before the end, at 0.05, where the ratio differs by half a percent",
    },
}

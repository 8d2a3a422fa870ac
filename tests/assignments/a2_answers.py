"""Answers to assignment 2 with which its tests are tested: right ones written differently, wrong ones as people err."""

# ruff: noqa: E501  (a table of edits reads better with one edit a line)
from __future__ import annotations

from .marking import Answers, Desk, edited

NAME = "A2_solvers"

LEVELS = """
def levels(n, low, high, rho):
    ramp = torch.arange(n + 1).double() / n
    return (high ** (1 / rho) * (1 - ramp) + low ** (1 / rho) * ramp) ** rho
"""
GUIDED = """
def guided(conditional, unconditional, weight, x, sigma):
    return weight * conditional(x, sigma) + (1 - weight) * unconditional(x, sigma)
"""
IPNDM = """
def ipndm_3(D, x, sigmas):
    table = {1: [1.0], 2: [1.5, -0.5], 3: [23 / 12, -4 / 3, 5 / 12]}
    seen = []
    for i in range(len(sigmas) - 1):
        seen = [(x - D(x, float(sigmas[i]))) / float(sigmas[i]), *seen][:3]
        x = x + float(sigmas[i + 1] - sigmas[i]) * sum(w * d for w, d in zip(table[len(seen)], seen))
    return x
"""

OWN = """
def own_solver(D, x):
    return SOLVER


D, x, even, _ = own_problem(ID)
truth = sample(D, x, even(1000), "heun").final
ends = ab2(D, x, even(32))[0], two_stage(D, x, even(16), 0.5), dpmpp_2m(D, x, even(32))
own_errors = [float((end - truth).norm(dim=1).mean()) for end in ends]
own_gain = gain((own_solver(D, x) - truth).norm(dim=1), (ends[0] - truth).norm(dim=1))
"""
BUGS = """
D, x, even, _ = own_problem(ID)
truth, plain = sample(D, x, even(1000), "heun").final, Gaussian([0.0, 0.0], 1.0)
bad, good = (float((sample(D, x, g(64, 0.2, 2.0, 7.0)).final - truth).norm(dim=1).mean()) for g in (broken_levels, levels))
u, v = (ab2(lambda y, s, g=g: g(D, plain, 2.0, y, s), x, even(64))[0] for g in (broken_guided, guided))
far = (u - v).norm(dim=1).mean()
own_bugs = bad / good, far
"""
NUMBERS_ONLY = ("a2_own_problem", "a2_own_bugs")  # their marks are for numbers: other code may give the same

RIGHT: Answers = {
    "a2_two_stage": [
        (
            "NumPy",
            """
def two_stage(D, x, sigmas, alpha):
    x, levels = np.array(x), np.array(sigmas)
    call = lambda y, s: np.asarray(D(torch.tensor(y), float(s)))
    for i in range(len(levels) - 1):
        s, t = levels[i], levels[i + 1]
        e1 = (x - call(x, s)) / s
        m = s + alpha * (t - s)
        if abs(m) < 1e-14:
            x = x + (t - s) * e1
            continue
        y = x + (m - s) * e1
        e2 = (y - call(y, m)) / m
        x = x + (t - s) * ((1 - 0.5 / alpha) * e1 + 0.5 / alpha * e2)
    return x
""",
        ),
        (
            "Euler first, then a correction",
            """
def two_stage(D, x, sigmas, alpha):
    for s, t in zip(sigmas, sigmas[1:]):
        d = (x - D(x, s)) / s
        euler = x + (t - s) * d
        m = (1 - alpha) * s + alpha * t
        if m <= 0:
            x = euler
        else:
            z = (1 - alpha) * x + alpha * euler
            x = euler + (t - s) / (2 * alpha) * ((z - D(z, m)) / m - d)
    return x
""",
        ),
        (
            "recursion, one step a call",
            """
def two_stage(D, x, sigmas, alpha):
    if len(sigmas) == 1:
        return x
    s, t = float(sigmas[0]), float(sigmas[1])
    k1 = (x - D(x, s)) / s
    if alpha == 1 and t == 0:
        return two_stage(D, x - s * k1, sigmas[1:], alpha)
    m = s + (t - s) * alpha
    z = x + (m - s) * k1
    k2 = (z - D(z, m)) / m
    return two_stage(D, x + (t - s) * (k1 + (k2 - k1) / (2 * alpha)), sigmas[1:], alpha)
""",
        ),
        (
            "float32",
            """
def two_stage(D, x, sigmas, alpha):
    x = x.float()
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        e1 = (x - D(x, s).float()) / s
        m = s + alpha * (t - s)
        if m == 0:
            x = D(x, s).float() if False else x + (t - s) * e1
        else:
            y = x + alpha * (t - s) * e1
            e2 = (y - D(y, m).float()) / m
            x = torch.lerp(x + (t - s) * e1, x + (t - s) * e2, 1 / (2 * alpha))
    return x
""",
        ),
    ],
    "a2_ab2": [
        (
            "a memory with keys that are no strings",
            """
def ab2(D, x, sigmas, memory=None):
    memory = dict(memory or {})
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        memory[0] = (x - D(x, s)) / s
        memory[(0, "level")] = s
        d = memory[0]
        if 1 in memory:
            d = d + (t - s) / 2 * (memory[0] - memory[1]) / (s - memory[(1, "level")])
        x = x + (t - s) * d
        memory = {1: memory[0], (1, "level"): s}
    return x, memory
""",
        ),
        (
            "NumPy, memory as a dict",
            """
def ab2(D, x, sigmas, memory=None):
    x = np.array(x)
    for s, t in zip(np.array(sigmas)[:-1], np.array(sigmas)[1:]):
        d = (x - np.asarray(D(torch.tensor(x), float(s)))) / s
        if memory is None:
            x = x + (t - s) * d
        else:
            r = (t - s) / (s - memory["sigma"])
            x = x + (t - s) * (d + r / 2 * (d - np.asarray(memory["direction"])))
        memory = {"sigma": float(s), "direction": d}
    return x, memory
""",
        ),
        (
            "history in lists, Lagrange weights",
            """
def ab2(D, x, sigmas, memory=None):
    levels, directions = ([], []) if memory is None else (list(memory[0]), list(memory[1]))
    for i in range(len(sigmas) - 1):
        s, t = float(sigmas[i]), float(sigmas[i + 1])
        levels.append(s)
        directions.append((x - D(x, s)) / s)
        if len(levels) == 1:
            x = x + (t - s) * directions[-1]
        else:
            p = levels[-2]
            newest = ((t - p) ** 2 - (s - p) ** 2) / (2 * (s - p))  # integral of (u - p) / (s - p)
            older = (t - s) ** 2 / (2 * (p - s))  # integral of (u - s) / (p - s)
            x = x + newest * directions[-1] + older * directions[-2]
        levels, directions = levels[-1:], directions[-1:]
    return x, (levels, directions)
""",
        ),
        (
            "remembers where it was and what D said",
            """
def ab2(D, x, sigmas, memory=None):
    for s, t in zip(sigmas[:-1], sigmas[1:]):
        denoised = D(x, s)
        d, h = (x - denoised) / s, t - s
        change = h * d
        if memory:
            p, x_then, D_then = memory
            change = change + h * h / 2 * (d - (x_then - D_then) / p) / (s - p)
        memory = [s, x, denoised]
        x = x + change
    return [x, memory]
""",
        ),
        (
            "remembers the slope of the line to come",
            """
def ab2(D, x, sigmas, memory=None):
    before = () if memory is None else memory
    for i, h in enumerate(sigmas.diff().tolist()):
        s = sigmas[i].item()
        d = x / s - D(x, s) / s
        if before:
            h_before, d_before = before
            x = x + h * ((1 + 0.5 * h / h_before) * d - 0.5 * h / h_before * d_before)
        else:
            x = x + h * d
        before = (h, d)
    return x, before
""",
        ),
    ],
    "a2_dpmpp_2m": [
        (
            "a level for every sample, in a tensor that holds one number",
            """
def dpmpp_2m(D, x, sigmas, prediction="x0"):
    before = None
    for s, t in zip(sigmas[:-1], sigmas[1:]):
        v = D(x, s.expand(1))
        v = (x - v) / s if prediction == "eps" else v
        g = v
        if before is not None and t > 0:
            g = v + (v - before[1]) * (s / t).log() / (before[0] / s).log() / 2
        before = (s, v)
        x = x + (t - s) * (g if prediction == "eps" else (x - g) / s)
    return x
""",
        ),
        (
            "NumPy, in lambda",
            """
def dpmpp_2m(D, x, sigmas, prediction="x0"):
    x, s = np.array(x), np.array(sigmas)
    lam = [-np.log(v) if v > 0 else np.inf for v in s]
    seen = []
    for i in range(len(s) - 1):
        model = np.asarray(D(torch.tensor(x), float(s[i])))
        if prediction == "eps":
            model = (x - model) / s[i]
        seen.append(model)
        use = model
        if i > 0 and s[i + 1] != 0:
            use = model + 0.5 * (lam[i + 1] - lam[i]) / (lam[i] - lam[i - 1]) * (model - seen[i - 1])
        x = s[i + 1] / s[i] * x + (1 - s[i + 1] / s[i]) * use if prediction == "x0" else x + (s[i + 1] - s[i]) * use
    return x
""",
        ),
        (
            "as in the paper: weights 1 + 1 / 2r and -1 / 2r, and expm1",
            """
def dpmpp_2m(D, x, sigmas, prediction="x0"):
    old = h_old = None
    for s, t in zip(sigmas[:-1], sigmas[1:]):
        m = D(x, s) if prediction == "x0" else (x - D(x, s)) / s
        h = (s / t).log() if t > 0 else None
        if old is None or h is None:
            d = m
        else:
            r = h_old / h
            d = (1 + 1 / (2 * r)) * m - 1 / (2 * r) * old
        if prediction == "eps":
            x = x + (t - s) * d
        elif h is None:
            x = d
        else:
            x = t / s * x - torch.expm1(-h) * d
        old, h_old = m, h
    return x
""",
        ),
        (
            "the same Euler step for both, D or the direction put in",
            """
def dpmpp_2m(D, x, sigmas, prediction="x0"):
    def euler(x, s, t, value):
        direction = value if prediction == "eps" else (x - value) / s
        return x + (t - s) * direction
    values = []
    for i in range(len(sigmas) - 1):
        s, t = float(sigmas[i]), float(sigmas[i + 1])
        denoised = D(x, s)
        values.append((x - denoised) / s if prediction == "eps" else denoised)
        if i == 0 or t == 0:
            x = euler(x, s, t, values[-1])
        else:
            p = float(sigmas[i - 1])
            share = math.log(t / s) / (2 * math.log(s / p))
            x = euler(x, s, t, torch.lerp(values[-2], values[-1], 1 + share))
    return x
""",
        ),
        (
            "float32",
            """
def dpmpp_2m(D, x, sigmas, prediction="x0"):
    x, last = x.float(), None
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        v = D(x, s).float()
        v = (x - v) / s if prediction == "eps" else v
        g = v
        if last and t:
            g = v + (v - last[1]) * (math.log(s) - math.log(t)) / (math.log(last[0]) - math.log(s)) / 2
        last = (s, v)
        x = x + (t - s) * g if prediction == "eps" else g + t / s * (x - g)
    return x
""",
        ),
    ],
    "a2_richardson": [
        (
            "NumPy",
            """
def richardson(solve, n):
    a, b, c = (np.asarray(solve(k)) for k in (n, 2 * n, 4 * n))
    ratio = np.linalg.norm(a - b, axis=1).sum() / np.linalg.norm(b - c, axis=1).sum()
    return np.log(ratio) / np.log(2), c + (c - b) / (ratio - 1)
""",
        ),
        (
            "a list, the order as a tensor, in float32",
            """
def richardson(solve, n):
    ends = [solve(n * 2**k).float() for k in range(3)]
    gaps = [torch.stack([torch.dist(a, b) for a, b in zip(u, v)]).sum() for u, v in zip(ends, ends[1:])]
    p = torch.log2(gaps[0] / gaps[1])
    return [p, (2**p * ends[2] - ends[1]) / (2**p - 1)]
""",
        ),
        (
            "sample by sample",
            """
def richardson(solve, n):
    a, b, c = solve(n), solve(n + n), solve(n * 4)
    far = near = 0.0
    for u, v, w in zip(a, b, c):
        far += float(torch.dist(u, v)) / len(a)
        near += float(torch.dist(v, w)) / len(a)
    p = (math.log(far) - math.log(near)) / math.log(2)
    return p, torch.stack([w - (v - w) / (2**p - 1) for v, w in zip(b, c)])
""",
        ),
        (
            "the finest run first, weights written out",
            """
def richardson(solve, n):
    fine, middle, coarse = solve(4 * n).double(), solve(2 * n).double(), solve(n).double()
    q = torch.linalg.vector_norm(middle - coarse, dim=-1).mean() / torch.linalg.vector_norm(fine - middle, dim=-1).mean()
    return float(torch.log2(q)), q / (q - 1) * fine - middle / (q - 1)
""",
        ),
    ],
    "a2_repaired": [
        ("written anew: a ramp of weights, a table of coefficients", LEVELS + GUIDED + IPNDM),
        (
            "the same code with copies in the history",
            """
def levels(n, low, high, rho):
    ramp = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    first, last = high ** (1 / rho), low ** (1 / rho)
    return torch.pow(first + ramp * (last - first), rho)


def guided(conditional, unconditional, weight, x, sigma):
    with_class = conditional(x, sigma)
    without_class = unconditional(x, sigma)
    return with_class + (weight - 1) * (with_class - without_class)


def ipndm_3(D, x, sigmas):
    history = []
    for i in range(len(sigmas) - 1):
        direction = (x - D(x, sigmas[i])) / sigmas[i]
        history.insert(0, direction.clone())
        if len(history) == 2:
            direction *= 3 / 2
            direction -= history[1] / 2
        if len(history) >= 3:
            direction *= 23 / 12
            direction -= history[1] * 16 / 12
            direction += history[2] * 5 / 12
        x = x + (sigmas[i + 1] - sigmas[i]) * direction
    return x
""",
        ),
        (
            "NumPy",
            """
def levels(n, low, high, rho):
    return np.linspace(high ** (1 / rho), low ** (1 / rho), n + 1) ** rho


def guided(conditional, unconditional, weight, x, sigma):
    a, b = np.asarray(conditional(x, sigma)), np.asarray(unconditional(x, sigma))
    return b + weight * (a - b)


def ipndm_3(D, x, sigmas):
    x, s = np.array(x), np.array(sigmas)
    e1 = e2 = None
    for i in range(len(s) - 1):
        e = (x - np.asarray(D(torch.tensor(x), float(s[i])))) / s[i]
        if e1 is None:
            mix = e
        elif e2 is None:
            mix = 1.5 * e - 0.5 * e1
        else:
            mix = (23 * e - 16 * e1 + 5 * e2) / 12
        x, e1, e2 = x + (s[i + 1] - s[i]) * mix, e, e1
    return x
""",
        ),
        (
            "loops and lists of numbers",
            """
def levels(n, low, high, rho):
    a, b = high ** (1 / rho), low ** (1 / rho)
    return [(a + (b - a) * k / n) ** rho for k in range(n + 1)]


def guided(conditional, unconditional, weight, x, sigma):
    if weight == 1:
        return conditional(x, sigma)
    if weight == 0:
        return unconditional(x, sigma)
    return torch.lerp(unconditional(x, sigma), conditional(x, sigma), weight)


def ipndm_3(D, x, sigmas):
    newest_first = []
    for s, t in zip(sigmas[:-1], sigmas[1:]):
        newest_first = [(x - D(x, s)) / s] + newest_first[:2]
        if len(newest_first) == 3:
            a, b, c = newest_first
            d = 23 / 12 * a - 16 / 12 * b + 5 / 12 * c
        elif len(newest_first) == 2:
            d = (3 * newest_first[0] - newest_first[1]) / 2
        else:
            d = newest_first[0]
        x = x + (t - s) * d
    return x
""",
        ),
    ],
    "a2_own_problem": [
        (
            "everything by hand",
            """
D, x, even, uneven = own_problem(ID)


def heun(D, x, sigmas, b=0.5, a=1.0):
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        d = (x - D(x, s)) / s
        m = s + a * (t - s)
        y = x + a * (t - s) * d
        x = x + (t - s) * ((1 - b) * d + b * (y - D(y, m)) / m)
    return x


def own_solver(D, x):
    return heun(D, x, 2 * torch.logspace(0, -1, 17, dtype=torch.float64))


truth = heun(D, x, even(600))
error = lambda y: torch.linalg.vector_norm(y - truth, dim=1)
old = error(ab2(D, x, even(32))[0])
own_errors = [old.mean(), error(heun(D, x, even(16), 1.0, 0.5)).mean(), error(dpmpp_2m(D, x, even(32))).mean()]
own_gain = list(gain(error(own_solver(D, x)), old))
""",
        ),
        (
            "numbers typed in, ab2 itself",
            "own_errors = 0.001533, 0.000414, 0.000210\nown_gain = 0.0, 0.0\n\n\ndef own_solver(D, x):\n    return ab2(D, x, own_problem(ID)[2](32))[0]\n",
        ),
        (
            "another choice: alpha = 1/2 on other levels",
            OWN.replace(
                "SOLVER",
                "two_stage(D, x, (2.0 ** (1 / 7) + torch.arange(17).double() / 16 * (0.2 ** (1 / 7) - 2.0 ** (1 / 7))) ** 7, 0.5)",
            ),
        ),
        ("fewer calls", OWN.replace("SOLVER", "dpmpp_2m(D, x, own_problem(ID)[2](20))")),
    ],
    "a2_own_bugs": [
        ("typed in", "own_bugs = (1.0868, 0.4848)"),
        ("a list of tensors", BUGS.replace("bad / good, far", "[torch.tensor(float(bad / good)), far]")),
        (
            "guidance written out",
            BUGS.replace("g(D, plain, 2.0, y, s)", "w * D(y, s) + (1 - w) * plain(y, s)")
            .replace("g=g", "w=w")
            .replace("for g in (broken_guided, guided)", "for w in (3, 2)"),
        ),
        (
            "the distance first",
            BUGS.replace("own_bugs = bad / good, far", "far_first = (far, bad / good)\nown_bugs = far_first[::-1]"),
        ),
    ],
}


def wrong(desk: Desk) -> Answers:
    """Wrong answers: edits of the solution, each a mistake that somebody makes, and some written from scratch."""
    ref = desk.references

    def edits(name: str, *rows: tuple[str, str, str]) -> list[tuple[str, str]]:
        return [(what, edited(ref[name], (old, new))) for what, old, new in rows]

    good = LEVELS + GUIDED + IPNDM
    return {
        "a2_two_stage": [
            *edits(
                "a2_two_stage",
                ("weight for Heun only", "1 / (2 * alpha)", "1 / 2"),
                ("weight alpha / 2", "1 / (2 * alpha)", "alpha / 2"),
                ("weight 1 - alpha / 2", "1 / (2 * alpha)", "1 - alpha / 2"),
                ("weight 1 / alpha", "1 / (2 * alpha)", "1 / alpha"),
                ("weight 1: only the second look", "1 / (2 * alpha)", "1.0"),
                ("weight 0: Euler", "1 / (2 * alpha)", "0.0"),
                (
                    "weights swapped",
                    "(1 - weight) * slope + weight * slope_middle",
                    "weight * slope + (1 - weight) * slope_middle",
                ),
                ("weights that do not add up to 1", "(1 - weight) * slope", "slope"),
                ("direction of the step reversed", "step = sigma_next - sigma", "step = sigma - sigma_next"),
                (
                    "Euler step to the end instead of the middle",
                    "middle = x + alpha * step * slope",
                    "middle = x + step * slope",
                ),
                ("second look at x", "middle = x + alpha * step * slope", "middle = x"),
                (
                    "second look at the level of the first",
                    "(middle - D(middle, sigma_middle)) / sigma_middle",
                    "(middle - D(middle, sigma)) / sigma",
                ),
                (
                    "divided by the wrong level",
                    "(middle - D(middle, sigma_middle)) / sigma_middle",
                    "(middle - D(middle, sigma_middle)) / sigma",
                ),
                ("second look at the end", "sigma_middle = sigma + alpha * step", "sigma_middle = sigma_next"),
                (
                    "middle in log sigma",
                    "sigma_middle = sigma + alpha * step",
                    "sigma_middle = sigma ** (1 - alpha) * sigma_next**alpha",
                ),
                (
                    "alpha counted from the end",
                    "sigma_middle = sigma + alpha * step",
                    "sigma_middle = sigma_next - alpha * step",
                ),
                (
                    "x instead of the middle in the slope",
                    "(middle - D(middle, sigma_middle)) / sigma_middle",
                    "(x - D(middle, sigma_middle)) / sigma_middle",
                ),
                (
                    "step taken from the middle",
                    "        x = x + step * slope\n    return",
                    "        x = middle + step * slope\n    return",
                ),
                ("an Euler step whenever the end is 0", "if sigma_middle > 1e-12 * sigma:", "if sigma_next > 0:"),
                ("D called at 0", "if sigma_middle > 1e-12 * sigma:", "if True:"),
                (
                    "0 replaced by a small number",
                    "if sigma_middle > 1e-12 * sigma:",
                    "sigma_middle = max(sigma_middle, 1e-6)\n        if True:",
                ),
                ("downwards only", "if sigma_middle > 1e-12 * sigma:", "if 0 < sigma_middle < sigma:"),
                (
                    "the last step left out",
                    "zip(sigmas[:-1].tolist(), sigmas[1:].tolist())",
                    "zip(sigmas[:-2].tolist(), sigmas[1:-1].tolist())",
                ),
                (
                    "the last step is always Euler",
                    "if sigma_middle > 1e-12 * sigma:",
                    "if sigma_middle > 0 and sigma_next != sigmas[-1]:",
                ),
                (
                    "D called once more",
                    "slope = (x - D(x, sigma)) / sigma",
                    "slope = (x - D(x, sigma) + 0 * D(x, sigma)) / sigma",
                ),
                ("the direction forgets to divide", "slope = (x - D(x, sigma)) / sigma\n", "slope = x - D(x, sigma)\n"),
                ("the path instead of the end", "    return x\n", "    return torch.stack([x, x])\n"),
            ),
            (
                "Heun whatever alpha",
                edited(ref["a2_two_stage"], ("weight = 1 / (2 * alpha)", "alpha = 1.0\n    weight = 0.5")),
            ),
        ],
        "a2_ab2": [
            *edits(
                "a2_ab2",
                (
                    "weights for equal steps",
                    "x_next + step**2 / 2 * slope",
                    "x_next + step * (direction - direction_before) / 2",
                ),
                ("Euler: the memory is not used", "x_next = x_next + step**2 / 2 * slope", "pass"),
                ("memory of an earlier run ignored", "### BEGIN SOLUTION", "memory = None"),
                ("memory not returned", "return x, memory", "return x, None"),
                ("x only", "return x, memory", "return x"),
                ("line extrapolated to the end of the step", "step**2 / 2", "step**2"),
                ("no factor of the step", "step**2 / 2", "step / 2"),
                (
                    "slope with the wrong sign",
                    "(direction - direction_before) / (sigma - sigma_before)",
                    "(direction_before - direction) / (sigma - sigma_before)",
                ),
                ("slope over this step instead of the last", "/ (sigma - sigma_before)", "/ step"),
                (
                    "ratio of the steps inverted",
                    "x_next + step**2 / 2 * slope",
                    "x_next + step / 2 * (direction - direction_before) * (sigma - sigma_before) / step",
                ),
                (
                    "the sum of slopes remembered",
                    "memory = (sigma, direction)",
                    "memory = (sigma, direction if memory is None else direction + memory[1])",
                ),
                (
                    "D remembered instead of the direction",
                    "memory = (sigma, direction)",
                    "memory = (sigma, x - sigma * direction)",
                ),
                ("the new level remembered", "memory = (sigma, direction)", "memory = (sigma_next, direction)"),
                (
                    "the direction of the step remembered",
                    "memory = (sigma, direction)",
                    "memory = (sigma, (x_next - x) / step)",
                ),
                (
                    "the first memory kept for ever",
                    "memory = (sigma, direction)",
                    "memory = memory or (sigma, direction)",
                ),
                (
                    "a memory of two steps ago",
                    "memory = (sigma, direction)",
                    "memory = (sigma, direction) if memory is None else (sigma, direction_before)",
                ),
                (
                    "off by one: the direction compared with itself",
                    "sigma_before, direction_before = memory",
                    "sigma_before, direction_before = memory[0], direction",
                ),
                ("direction of the step reversed", "step = sigma_next - sigma", "step = sigma - sigma_next"),
                ("step with its sign lost", "step = sigma_next - sigma", "step = -abs(sigma_next - sigma)"),
                (
                    "level read at the end of the step",
                    "(x - D(x, sigma)) / sigma\n",
                    "(x - D(x, sigma_next)) / sigma_next\n",
                ),
                ("divided by the end of the step", "(x - D(x, sigma)) / sigma\n", "(x - D(x, sigma)) / sigma_next\n"),
                ("denoiser forgotten", "(x - D(x, sigma)) / sigma\n", "x / sigma + 0 * D(x, sigma)\n"),
                (
                    "the direction evaluated again at the end",
                    "return x, memory",
                    "return x, (float(sigmas[-1]), (x - D(x, float(sigmas[-1]))) / float(sigmas[-1]))",
                ),
                (
                    "the last step left out",
                    "zip(sigmas[:-1].tolist(), sigmas[1:].tolist())",
                    "zip(sigmas[:-2].tolist(), sigmas[1:-1].tolist())",
                ),
                ("a step to 0 is Euler", "if memory is not None:", "if memory is not None and sigma_next > 0:"),
                (
                    "the last step is Euler",
                    "if memory is not None:",
                    "if memory is not None and sigma_next != float(sigmas[-1]):",
                ),
                (
                    "first step of every run is Euler",
                    "if memory is not None:",
                    "if memory is not None and sigma != float(sigmas[0]):",
                ),
            ),
            (
                "memory changed in place: it cannot be used twice",
                """
def ab2(D, x, sigmas, memory=None):
    memory = [] if memory is None else memory
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        d = (x - D(x, s)) / s
        memory += [(s, d)]
        h = t - s
        x_next = x + h * d
        if len(memory) > 1:
            p, e = memory[0] if len(memory) == 2 else memory[-2]
            x_next = x_next + h * h / 2 * (d - e) / (s - p)
        x = x_next
    return x, (memory if len(memory) < 4 else memory[:1] + memory[-1:])
""",
            ),
            (
                "a memory that grows",
                edited(
                    ref["a2_ab2"],
                    ("sigma_before, direction_before = memory", "sigma_before, direction_before = memory[-1]"),
                    ("memory = (sigma, direction)", "memory = [*(memory or []), (sigma, direction)]"),
                ),
            ),
            (
                "a run along one level forgets",
                edited(
                    ref["a2_ab2"], ("    for sigma,", "    if len(sigmas) == 1:\n        memory = None\n    for sigma,")
                ),
            ),
            (
                "appended to the memory that was given",
                edited(
                    ref["a2_ab2"],
                    ("    for sigma,", "    memory = [] if memory is None else memory\n    for sigma,"),
                    ("if memory is not None:", "if memory:"),
                    ("sigma_before, direction_before = memory", "sigma_before, direction_before = memory"),
                    ("memory = (sigma, direction)", "memory[:] = [sigma, direction]"),
                ),
            ),
            (
                "the library's solver",
                "def ab2(D, x, sigmas, memory=None):\n    return sample(D, x, sigmas, solvers.get('ipndm_v', order=2)).final, None\n",
            ),
            (
                "directions in one buffer, overwritten",
                """
def ab2(D, x, sigmas, memory=None):
    buffer, last = torch.zeros_like(x), None if memory is None else memory[0]
    if memory is not None:
        buffer = memory[1]
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist()):
        old = buffer
        buffer.copy_((x - D(x, s)) / s)
        x_next = x + (t - s) * buffer
        if last is not None:
            x_next = x_next + (t - s) ** 2 / 2 * (buffer - old) / (s - last)
        x, last = x_next, s
    return x, (last, buffer)
""",
            ),
        ],
        "a2_dpmpp_2m": [
            *edits(
                "a2_dpmpp_2m",
                ("Euler", "guess = value + (value - value_before) / (2 * ratio)", "guess = value"),
                ("ratio inverted", "/ (2 * ratio)", "* ratio / 2"),
                ("no half: extrapolated to the end", "/ (2 * ratio)", "/ ratio"),
                ("weights for equal steps", "/ (2 * ratio)", "/ 2"),
                ("wrong sign", "value + (value - value_before)", "value - (value - value_before)"),
                ("difference reversed", "(value - value_before)", "(value_before - value)"),
                (
                    "ratio in sigma instead of its logarithm",
                    "math.log(sigma_before / sigma) / math.log(sigma / sigma_next)",
                    "(sigma_before - sigma) / (sigma - sigma_next)",
                ),
                (
                    "ratio of the logarithms themselves",
                    "math.log(sigma_before / sigma) / math.log(sigma / sigma_next)",
                    "math.log(sigma_before) / math.log(sigma)",
                ),
                (
                    "steps without their sign",
                    "math.log(sigma_before / sigma) / math.log(sigma / sigma_next)",
                    "-abs(math.log(sigma_before / sigma) / math.log(sigma / sigma_next))",
                ),
                ("the extrapolated value remembered", "before = (sigma, value)", "before = (sigma, guess)"),
                ("the new level remembered", "before = (sigma, value)", "before = (sigma_next * 1.0001, value)"),
                ("the history never moves on", "before = (sigma, value)", "before = before or (sigma, value)"),
                ("the history is never begun", "before = (sigma, value)", "before = None"),
                ("x remembered instead of D", "before = (sigma, value)", "before = (sigma, x)"),
                ("prediction ignored", 'if prediction == "eps":\n            value', "if False:\n            value"),
                ("the direction without its division", "value = (x - value) / sigma", "value = x - value"),
                ("the direction with the wrong sign", "value = (x - value) / sigma", "value = (value - x) / sigma"),
                ("score for direction", "value = (x - value) / sigma", "value = (x - value) / sigma**2"),
                ("step of eps reversed", "x + (sigma_next - sigma) * guess", "x + (sigma - sigma_next) * guess"),
                (
                    "x kept whole",
                    "sigma_next / sigma * x + (1 - sigma_next / sigma) * guess",
                    "x + (1 - sigma_next / sigma) * guess",
                ),
                (
                    "shares swapped",
                    "sigma_next / sigma * x + (1 - sigma_next / sigma) * guess",
                    "(1 - sigma_next / sigma) * x + sigma_next / sigma * guess",
                ),
                (
                    "share upside down",
                    "sigma_next / sigma * x + (1 - sigma_next / sigma) * guess",
                    "sigma / sigma_next * x + (1 - sigma / sigma_next) * guess",
                ),
                (
                    "exponential with the wrong sign",
                    "(1 - sigma_next / sigma) * guess",
                    "(sigma / sigma_next - 1) * guess",
                ),
                ("no Euler step to 0", "and sigma_next > 0", ""),
                ("0 replaced by a small number", "and sigma_next > 0", "and (sigma_next := max(sigma_next, 1e-3))"),
                ("the last step always Euler", "and sigma_next > 0", "and sigma_next != float(sigmas[-1])"),
                ("downwards only", "and sigma_next > 0", "and 0 < sigma_next < sigma"),
                (
                    "the last step left out",
                    "zip(sigmas[:-1].tolist(), sigmas[1:].tolist())",
                    "zip(sigmas[:-2].tolist(), sigmas[1:-1].tolist())",
                ),
                ("D called twice a step", "value = D(x, sigma)", "value = D(x, sigma) + 0 * D(x, sigma)"),
                ("level read at the end of the step", "value = D(x, sigma)", "value = D(x, sigma_next)"),
                (
                    "clipped to [-1, 1], as for pictures",
                    "value = D(x, sigma)",
                    "value = torch.as_tensor(D(x, sigma)).clamp(-1, 1)",
                ),
            ),
        ],
        "a2_richardson": [
            *edits(
                "a2_richardson",
                ("ratio upside down", "math.log2(first / second)", "math.log2(second / first)"),
                ("natural logarithm", "math.log2(first / second)", "math.log(first / second)"),
                ("decimal logarithm", "math.log2(first / second)", "math.log10(first / second)"),
                ("the ratio itself", "math.log2(first / second)", "float(first / second)"),
                ("rounded", "math.log2(first / second)", "round(math.log2(first / second))"),
                (
                    "distances to the finest run",
                    "(coarse - middle).norm(dim=1).mean(), (middle - fine)",
                    "(coarse - fine).norm(dim=1).mean(), (middle - fine)",
                ),
                (
                    "distances to the coarsest run",
                    "(coarse - middle).norm(dim=1).mean(), (middle - fine)",
                    "(coarse - middle).norm(dim=1).mean(), (coarse - fine)",
                ),
                (
                    "squared distances",
                    "(coarse - middle).norm(dim=1).mean(), (middle - fine).norm(dim=1).mean()",
                    "(coarse - middle).square().sum(1).mean(), (middle - fine).square().sum(1).mean()",
                ),
                (
                    "sizes of the ends for their distances",
                    "(coarse - middle).norm(dim=1).mean(), (middle - fine).norm(dim=1).mean()",
                    "coarse.norm(dim=1).mean(), middle.norm(dim=1).mean()",
                ),
                (
                    "signed differences averaged to nothing",
                    "(coarse - middle).norm(dim=1).mean(), (middle - fine).norm(dim=1).mean()",
                    "(coarse - middle).norm(dim=1).mean(), (middle - coarse).norm(dim=1).mean()",
                ),
                ("runs with n, 2n and 3n steps", "solve(4 * n)", "solve(3 * n)"),
                ("runs with n, 2n and n squared steps", "solve(4 * n)", "solve(n * n)"),
                ("runs with one step more each", "solve(2 * n), solve(4 * n)", "solve(n + 1), solve(n + 2)"),
                ("the finest run as the limit", "fine + (fine - middle) / (2**order - 1)", "fine"),
                ("mean of the last two runs", "fine + (fine - middle) / (2**order - 1)", "(fine + middle) / 2"),
                ("extrapolated backwards", "fine + (fine - middle)", "fine - (fine - middle)"),
                ("extrapolated from the middle run", "fine + (fine - middle)", "middle + (fine - middle)"),
                ("as if of order 1", "(2**order - 1)", "1"),
                ("as if of order 2", "(2**order - 1)", "3"),
                ("no minus 1", "(2**order - 1)", "2**order"),
                ("p for 2 to the p", "(2**order - 1)", "order"),
                ("4 to the p", "(2**order - 1)", "(4**order - 1)"),
                (
                    "an order for each sample",
                    ".norm(dim=1).mean(), (middle - fine).norm(dim=1).mean()\n    order = math.log2(first / second)",
                    ".norm(dim=1), (middle - fine).norm(dim=1)\n    order = torch.log2(first / second)[:, None]",
                ),
                ("the order only", "return order, fine + (fine - middle) / (2**order - 1)", "return order"),
                (
                    "the two in the wrong order",
                    "return order, fine + (fine - middle) / (2**order - 1)",
                    "return fine + (fine - middle) / (2**order - 1), order",
                ),
                (
                    "the first sample only",
                    "fine + (fine - middle) / (2**order - 1)",
                    "(fine + (fine - middle) / (2**order - 1))[:1]",
                ),
                (
                    "averaged over the samples",
                    "fine + (fine - middle) / (2**order - 1)",
                    "(fine + (fine - middle) / (2**order - 1)).mean(0)",
                ),
                ("more runs than needed", "coarse, middle, fine = ", "solve(8 * n)\n    coarse, middle, fine = "),
            ),
            (
                "root mean square distances",
                edited(
                    ref["a2_richardson"],
                    (
                        "(coarse - middle).norm(dim=1).mean(), (middle - fine).norm(dim=1).mean()",
                        "(coarse - middle).norm(), (middle - fine).norm()",
                    ),
                ),
            ),
            (
                "mean of the logarithms of the distances",
                edited(
                    ref["a2_richardson"],
                    (
                        "(coarse - middle).norm(dim=1).mean(), (middle - fine).norm(dim=1).mean()",
                        "(coarse - middle).norm(dim=1).log().mean().exp(), (middle - fine).norm(dim=1).log().mean().exp()",
                    ),
                ),
            ),
            ("hard-coded for order 1", "def richardson(solve, n):\n    return 1.0, 2 * solve(4 * n) - solve(2 * n)\n"),
        ],
        "a2_repaired": [
            ("nothing repaired", "levels, guided, ipndm_3 = broken_levels, broken_guided, broken_ipndm_3\n"),
            ("the schedule not repaired", good + "levels = broken_levels\n"),
            ("the guidance not repaired", good + "guided = broken_guided\n"),
            ("the solver not repaired", good + "ipndm_3 = broken_ipndm_3\n"),
            *[
                (what, edited(good, change))
                for what, *change in (
                    (
                        "powers for roots in the schedule",
                        "(high ** (1 / rho) * (1 - ramp) + low ** (1 / rho) * ramp) ** rho",
                        "(high**rho * (1 - ramp) + low**rho * ramp) ** (1 / rho)",
                    ),
                    (
                        "schedule upside down",
                        "high ** (1 / rho) * (1 - ramp) + low ** (1 / rho) * ramp",
                        "low ** (1 / rho) * (1 - ramp) + high ** (1 / rho) * ramp",
                    ),
                    (
                        "schedule even in sigma",
                        "(high ** (1 / rho) * (1 - ramp) + low ** (1 / rho) * ramp) ** rho",
                        "high + (low - high) * ramp",
                    ),
                    (
                        "schedule even in log sigma",
                        "(high ** (1 / rho) * (1 - ramp) + low ** (1 / rho) * ramp) ** rho",
                        "high * (low / high) ** ramp",
                    ),
                    ("schedule for rho = 7 only", "1 / rho", "1 / 7"),
                    (
                        "one level too few",
                        "torch.arange(n + 1).double() / n",
                        "torch.arange(n).double() / max(n - 1, 1)",
                    ),
                    (
                        "the last level not reached",
                        "torch.arange(n + 1).double() / n",
                        "torch.arange(n + 1).double() / (n + 1)",
                    ),
                    (
                        "an additional 0 at the end",
                        "+ low ** (1 / rho) * ramp) ** rho",
                        "+ low ** (1 / rho) * ramp) ** rho * (ramp < 1)",
                    ),
                    (
                        "guidance with the models swapped",
                        "weight * conditional(x, sigma) + (1 - weight) * unconditional(x, sigma)",
                        "weight * unconditional(x, sigma) + (1 - weight) * conditional(x, sigma)",
                    ),
                    (
                        "guidance of weight + 1",
                        "weight * conditional(x, sigma) + (1 - weight)",
                        "(1 + weight) * conditional(x, sigma) - weight",
                    ),
                    (
                        "guidance away from the class",
                        "weight * conditional(x, sigma) + (1 - weight)",
                        "(2 - weight) * conditional(x, sigma) + (weight - 1)",
                    ),
                    (
                        "the conditional model whatever the weight",
                        "weight * conditional(x, sigma) + (1 - weight) * unconditional(x, sigma)",
                        "conditional(x, sigma)",
                    ),
                    (
                        "guidance cut off at 1",
                        "return weight * conditional",
                        "weight = min(max(weight, 0), 1)\n    return weight * conditional",
                    ),
                    (
                        "squared weight",
                        "return weight * conditional",
                        "weight = weight**2\n    return weight * conditional",
                    ),
                    ("order 2 only", "[:3]", "[:2]"),
                    (
                        "history in the wrong order",
                        "zip(table[len(seen)], seen)",
                        "zip(table[len(seen)], reversed(seen))",
                    ),
                    ("history never used", "zip(table[len(seen)], seen)", "zip([1.0], seen)"),
                    ("third weight with the wrong sign", "5 / 12]", "-5 / 12]"),
                    ("second weight with the wrong sign", "-4 / 3", "4 / 3"),
                    ("weights of order 2 swapped", "[1.5, -0.5]", "[-0.5, 1.5]"),
                    ("weights do not add up to 1", "23 / 12", "24 / 12"),
                    (
                        "order not ramped up: history of copies",
                        "seen = []",
                        "seen = [(x - D(x, float(sigmas[0]))) / float(sigmas[0])] * 2",
                    ),
                    ("step reversed", "float(sigmas[i + 1] - sigmas[i])", "float(sigmas[i] - sigmas[i + 1])"),
                    (
                        "level read at the end",
                        "(x - D(x, float(sigmas[i]))) / float(sigmas[i])",
                        "(x - D(x, float(sigmas[i + 1]))) / float(sigmas[i + 1])",
                    ),
                    (
                        "the mixed direction kept",
                        "        x = x + float",
                        "        seen[0] = sum(w * d for w, d in zip(table[len(seen)], seen))\n        x = x + float",
                    ),
                    ("the last step left out", "range(len(sigmas) - 1)", "range(len(sigmas) - 2)"),
                )
            ],
        ],
        "a2_own_problem": [
            ("not answered", "own_errors = own_gain = None\n\n\ndef own_solver(D, x):\n    ...\n"),
            *[
                (what, edited(ref["a2_own_problem"], change))
                for what, *change in (
                    ("another copy", "own_problem(ID)", "own_problem(31415)"),
                    ("errors in the wrong order", "for end in rivals]", "for end in rivals[::-1]]"),
                    ("medians", ".norm(dim=1).mean())", ".norm(dim=1).median())"),
                    ("squares", ".norm(dim=1).mean())", ".square().sum(1).mean())"),
                    ("at 16 calls", "even_own(16), 0.5", "even_own(8), 0.5"),
                    ("at 32 steps and 64 calls", "even_own(16), 0.5", "even_own(32), 0.5"),
                    ("alpha = 1", "even_own(16), 0.5", "even_own(16), 1.0"),
                    (
                        "the direction extrapolated",
                        "dpmpp_2m(problem, x_own, even_own(32))",
                        "dpmpp_2m(problem, x_own, even_own(32), 'eps')",
                    ),
                    ("uneven levels", "problem, x_own, even_own, _", "problem, x_own, _, even_own"),
                    ("a coarse truth", "even_own(1000)", "even_own(20)"),
                    (
                        "33 calls and more",
                        "torch.arange(33, dtype=torch.float64) / 32",
                        "torch.arange(41, dtype=torch.float64) / 40",
                    ),
                    (
                        "old over new",
                        "in (own_solver(problem, x_own), rivals[0])",
                        "in (rivals[0], own_solver(problem, x_own))",
                    ),
                    (
                        "against another rival",
                        "own_solver(problem, x_own), rivals[0]",
                        "own_solver(problem, x_own), rivals[1]",
                    ),
                    (
                        "the library's solver",
                        "    return dpmpp_2m(D, x, ",
                        "    return sample(D, x, schedules.logsnr(32, 0.2, 2.0), 'unipc').final\n    (",
                    ),
                )
            ],
        ],
        "a2_own_bugs": [
            ("not answered", "own_bugs = ..."),
            ("one number", "own_bugs = (1.0868,)"),
            ("rounded", "own_bugs = (1.0, 0.5)"),
            *[
                (what, edited(ref["a2_own_bugs"], change))
                for what, *change in (
                    ("another copy", "own_problem(ID)", "own_problem(31415)"),
                    ("ratio upside down", "bad / good", "good / bad"),
                    ("weight 1", "plain, 2.0, x, s", "plain, 1.0, x, s"),
                    ("2 steps", "x, even(64)", "x, even(2)"),
                    ("3 steps on the levels", "g(64, 0.2, 2.0, 7.0)", "g(3, 0.2, 2.0, 7.0)"),
                    ("from 10", "g(64, 0.2, 2.0, 7.0)", "g(64, 0.2, 10.0, 7.0)"),
                    ("rho = 1", "g(64, 0.2, 2.0, 7.0)", "g(64, 0.2, 2.0, 1.0)"),
                    ("the models swapped", "g(D, plain,", "g(plain, D,"),
                    ("largest distance", ".norm(dim=1).mean())\n### END", ".norm(dim=1).max())\n### END"),
                    (
                        "the other way round",
                        "float(bad / good), float((ends[0] - ends[1]).norm(dim=1).mean())",
                        "float((ends[0] - ends[1]).norm(dim=1).mean()), float(bad / good)",
                    ),
                )
            ],
        ],
    }


# What gets full marks although it is changed, and why. "equivalent": it computes the same, or as well as is asked for.
NUMBERS = "equivalent: levels as tensors instead of numbers"
KNOWN: dict[str, dict[str, str]] = {
    "a2_two_stage": {
        "line 5, column 33: sigmas[:-1].tolist() -> sigmas[:-1]": NUMBERS,
        "line 5, column 55: sigmas[1:].tolist() -> sigmas[1:]": NUMBERS,
        **{
            f"line 9, column {change}": "equivalent: any tiny bound tells 0 from the levels"
            for change in (
                "11: sigma_middle > 1e-12 * sigma -> sigma_middle >= 1e-12 * sigma",
                "26: 1e-12 * sigma -> 1e-12 / sigma",
                "26: 1e-12 * sigma -> 1e-12",
                "34: sigma -> sigma_middle",
                "34: sigma -> sigma_next",
            )
        },
    },
    "a2_ab2": {
        "line 4, column 33: sigmas[:-1].tolist() -> sigmas[:-1]": NUMBERS,
        "line 4, column 55: sigmas[1:].tolist() -> sigmas[1:]": NUMBERS,
    },
    "a2_dpmpp_2m": {
        "line 5, column 33: sigmas[:-1].tolist() -> sigmas[:-1]": NUMBERS,
        "line 5, column 55: sigmas[1:].tolist() -> sigmas[1:]": NUMBERS,
    },
    "a2_richardson": {
        "line 5, column 21: coarse - middle -> middle - coarse": "equivalent: a distance has no sign",
        "line 5, column 59: middle - fine -> fine - middle": "equivalent: a distance has no sign",
    },
}

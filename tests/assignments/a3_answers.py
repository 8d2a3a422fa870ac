"""Answers to assignment 3 with which its tests are tested: right ones written differently, wrong ones as people err."""

# ruff: noqa: E501  (a table of edits reads better with one edit a line)
from __future__ import annotations

from .marking import Answers, Desk, edited

NAME = "A3_geometry"

OWN = """
def shape(x):
    x = np.asarray(x)
    chord = x[-1] - x[0]
    length = np.linalg.norm(chord, axis=1)
    unit = chord / length[:, None]
    rest = x - x[0] - ((x - x[0]) * unit).sum(2, keepdims=True) * unit
    away = np.linalg.norm(rest, axis=2)
    falls = (np.diff(np.linalg.norm(x - x[-1], axis=2), axis=0) <= 1e-9).all(0).mean()
    centred = rest - rest.mean(0)
    sizes = np.stack([np.linalg.svd(centred[:, b], compute_uv=False) ** 2 for b in range(x.shape[1])])
    C = geometry.project(torch.tensor(x))[..., 1:]
    laid, misfit = align(C, C[:, 0], True)
    two = sizes[:, :2].sum(1) / sizes.sum(1)
    return (away.max(0) / length).mean(), falls, two.mean(), float(misfit[1:].mean())


mine = own_paths(ID)
own_numbers = shape(mine)
own_prediction = (7, *shape(own_paths(ID, 7))[:2])
"""
NUMBERS_ONLY = ("a3_own_numbers",)  # its marks are for numbers: other code may give the same

RIGHT: Answers = {
    "a3_along_and_across": [
        (
            "loops in NumPy",
            """
def along_and_across(distance):
    distance = np.asarray(distance)
    B, n, _ = distance.shape
    along, across = np.zeros((B, n)), np.zeros((B, n))
    for b in range(B):
        c = distance[b, 0, n - 1]
        for i in range(n):
            a, e = distance[b, 0, i], distance[b, i, n - 1]
            along[b, i] = (a * a + c * c - e * e) / (2 * c) if c > 0 else 0.0
            across[b, i] = np.sqrt(max(a * a - along[b, i] ** 2, 0.0))
    return along, across
""",
        ),
        (
            "inner products by polarisation",
            """
def along_and_across(distance):
    square = distance.square()
    gram = (square[:, :1] + square[:, :, :1] - square) / 2  # <x_i - x_0, x_j - x_0>
    c2 = gram[:, -1:, -1]
    chord = c2.sqrt()
    along = torch.where(chord > 0, gram[:, -1] / chord, torch.zeros_like(gram[:, -1]))
    rest = torch.diagonal(gram, dim1=1, dim2=2) - along * along
    return along, torch.relu(rest).sqrt()
""",
        ),
        (
            "coordinates from the distances by classical scaling, then lesson 07",
            """
def along_and_across(distance):
    square = distance**2
    gram = (square[:, :1] + square[:, :, :1] - square) / 2
    value, vector = torch.linalg.eigh(gram)
    x = vector * value.clamp(min=0).sqrt()[:, None]  # (B, N+1, N+1), up to a turn
    offset = x - x[:, :1]
    chord = offset[:, -1]
    length = chord.norm(dim=1, keepdim=True)
    straight = distance[:, 0, -1:] > 0
    v = torch.where(straight, chord / length.clamp(min=1e-300), torch.zeros_like(chord))
    along = torch.einsum("bnd,bd->bn", offset, v)
    return along, (offset - along[..., None] * v[:, None]).norm(dim=2)
""",
        ),
        (
            "the height of a triangle from its area, Heron as Kahan writes it",
            """
def along_and_across(distance):
    a, c = distance[:, 0], distance[:, 0, -1:].expand(distance.shape[:2])
    b = distance[:, -1]
    sides = torch.stack([a, b, c]).sort(0, descending=True).values
    p, q, r = sides
    area = ((p + (q + r)) * (r - (p - q)) * (r + (p - q)) * (p + (q - r))).clamp(min=0).sqrt() / 4
    some = c > 0
    across = torch.where(some, 2 * area / torch.where(some, c, 1.0), a)
    along = torch.where(some, (c + (a - b) * (a + b) / torch.where(some, c, 1.0)) / 2, 0.0)
    return [along, across]
""",
        ),
    ],
    "a3_bend_shares": [
        (
            "path by path, eigenvalues of the covariance, in NumPy",
            """
def bend_shares(x, weights, k):
    x, w = np.asarray(x), np.asarray(weights)
    out = np.ones((x.shape[1], k))
    for b in range(x.shape[1]):
        p = x[:, b].reshape(len(x), -1)
        v = (p[-1] - p[0]) / np.linalg.norm(p[-1] - p[0])
        r = (p - p[0]) - np.outer((p - p[0]) @ v, v)
        c = np.cov(r.T, aweights=w, bias=True).reshape(p.shape[1], p.shape[1])
        value = np.sort(np.linalg.eigvalsh(c))[::-1].clip(0)
        share = np.cumsum(value) / value.sum()
        out[b, : min(k, len(share))] = share[:k]
    return out
""",
        ),
        (
            "eigenvalues of the inner products",
            """
def bend_shares(x, weights, k):
    x = x.reshape(*x.shape[:2], -1)
    chord = x[-1] - x[0]
    along = torch.einsum("nbd,bd->nb", x - x[0], chord) / chord.square().sum(1)
    r = x - x[0] - along[..., None] * chord
    r = r - torch.einsum("n,nbd->bd", weights, r) / weights.sum()
    r = r * weights.sqrt()[:, None, None]
    gram = torch.einsum("nbd,mbd->bnm", r, r)
    value = torch.linalg.eigvalsh(gram).flip(1).clamp(min=0)
    value = torch.cat([value, value.new_zeros(len(value), k)], 1)
    return (value.cumsum(1) / value.sum(1, keepdim=True))[:, :k]
""",
        ),
        (
            "the projection as a matrix",
            """
def bend_shares(x, weights, k):
    x = x.flatten(2).transpose(0, 1)  # (B, N+1, d)
    d = x.shape[2]
    u = x[:, -1] - x[:, 0]
    P = torch.eye(d, dtype=x.dtype) - torch.einsum("bi,bj->bij", u, u) / (u**2).sum(1)[:, None, None]
    r = (x - x[:, :1]) @ P
    w = weights / weights.sum()
    m = torch.einsum("n,bnd->bd", w, r)
    S = torch.einsum("n,bni,bnj->bij", w, r, r) - m[:, :, None] * m[:, None]
    value = torch.linalg.eigvalsh(S).clamp(min=0).flip(-1)
    share = value.cumsum(-1) / value.sum(-1)[:, None]
    return torch.stack([share[:, min(j, d - 1)] for j in range(k)], 1)
""",
        ),
        (
            "one component after the other taken away",
            """
def bend_shares(x, weights, k):
    rows = []
    for p in x.unbind(1):
        p = p.reshape(len(x), -1)
        v = torch.nn.functional.normalize(p[-1] - p[0], dim=0)
        r = p - torch.outer(p @ v, v)
        r = (r - (weights @ r) / weights.sum()) * weights.sqrt()[:, None]
        total, left, row = r.square().sum(), r, []
        for _ in range(k):
            _, _, axes = torch.linalg.svd(left, full_matrices=False)
            left = left - torch.outer(left @ axes[0], axes[0])
            row.append(1 - left.square().sum() / total)
        rows.append(torch.stack(row))
    return torch.stack(rows)
""",
        ),
        (
            "the chord from the other end",
            """
def bend_shares(x, weights, k):
    x = x.flatten(2)
    back = x - x[-1]
    v = back[0] / back[0].norm(dim=-1)[:, None]
    r = back - (back * v).sum(-1)[..., None] * v
    w = weights.reshape(-1, 1, 1)
    r = (r - (w * r).sum(0) / w.sum()) * w.sqrt()
    shares = []
    for b in range(r.shape[1]):
        s = torch.linalg.svdvals(r[:, b]).square()
        s = torch.nn.functional.pad(s, (0, k))
        shares.append((s.cumsum(0) / s.sum())[:k])
    return torch.stack(shares).float()
""",
        ),
    ],
    "a3_bridge_control": [
        (
            "path by path in NumPy",
            """
def bridge_control(x, walk, times):
    shape, x, walk, times = x.shape, np.asarray(x), np.asarray(walk), np.asarray(times)
    out = np.empty((shape[0], shape[1], x[0, 0].size))
    for b in range(shape[1]):
        p, w = x[:, b].reshape(shape[0], -1), walk[:, b].reshape(shape[0], -1)
        v = (p[-1] - p[0]) / np.sqrt(((p[-1] - p[0]) ** 2).sum())
        bridge = np.empty_like(w)
        for n in range(shape[0]):
            part = (times[n] - times[0]) / (times[-1] - times[0])
            bridge[n] = w[n] - w[0] - part * (w[-1] - w[0])
            bridge[n] -= bridge[n].dot(v) * v
        foot = p[0] + np.outer((p - p[0]) @ v, v)
        rms = lambda r: np.sqrt((r**2).sum(1).mean())
        out[:, b] = foot + bridge * rms(p - foot) / rms(bridge)
    return out.reshape(shape)
""",
        ),
        (
            "the projection as a matrix, the line as a mixture of both ends",
            """
def bridge_control(x, walk, times):
    p, w = x.flatten(2), walk.flatten(2)
    u = p[-1] - p[0]
    across = torch.eye(p.shape[2], dtype=p.dtype) - u[:, :, None] * u[:, None, :] / (u * u).sum(1)[:, None, None]
    t = (times - times[0]).div(times[-1] - times[0]).reshape(-1, 1, 1)
    bridge = torch.einsum("bij,nbj->nbi", across, w - torch.lerp(w[:1], w[-1:], t))
    r = torch.einsum("bij,nbj->nbi", across, p - p[0])
    return (p - r + bridge * (r.norm(dim=(0, 2)) / bridge.norm(dim=(0, 2)))[None, :, None]).view(x.shape)
""",
        ),
        (
            "the control as the path plus a difference",
            """
def bridge_control(x, walk, times):
    shape = x.shape
    x, walk = x.reshape(*shape[:2], -1), walk.reshape(*shape[:2], -1)
    v = torch.nn.functional.normalize(x[0] - x[-1], dim=1)
    off = lambda y: y - torch.einsum("nbd,bd->nb", y, v).unsqueeze(-1) * v
    share = (times - times[0]) / (times[-1] - times[0])
    tied = walk - walk[0] - torch.einsum("n,bd->nbd", share, walk[-1] - walk[0])
    bend, chance = off(x - x[-1]), off(tied)
    rms = lambda y: (y**2).sum(2).mean(0).sqrt()[None, :, None]
    return (x + chance * rms(bend) / rms(chance) - bend).reshape(shape)
""",
        ),
        (
            "the line removed by solving for it, float32 answer",
            """
def bridge_control(x, walk, times):
    n, batch = x.shape[:2]
    p, w = x.reshape(n, batch, -1), walk.reshape(n, batch, -1)
    slope = (w[-1] - w[0]) / (times[-1] - times[0])
    rows = []
    for i in range(n):
        rows.append(w[i] - w[0] - slope * (times[i] - times[0]))
    w = torch.stack(rows)
    chord = p[-1] - p[0]
    along = ((p - p[0]) * chord).sum(2, keepdim=True) / (chord**2).sum(1, keepdim=True)
    w = w - (w * chord).sum(2, keepdim=True) / (chord**2).sum(1, keepdim=True) * chord
    size = ((p - p[0] - along * chord) ** 2).mean((0, 2), keepdim=True) / (w**2).mean((0, 2), keepdim=True)
    return (p[0] + along * chord + w * size.sqrt()).reshape(x.shape).float()
""",
        ),
    ],
    "a3_align": [
        (
            "curve by curve in NumPy",
            """
def align(curves, reference, mirror):
    C, A = np.asarray(curves), np.asarray(reference)
    laid, misfit = np.empty_like(C), np.empty(C.shape[1])
    for b in range(C.shape[1]):
        U, S, Vt = np.linalg.svd(C[:, b].T @ A)
        if not mirror and np.linalg.det(U) * np.linalg.det(Vt) < 0:
            U[:, -1] *= -1
            S[-1] *= -1
        laid[:, b] = S.sum() / (C[:, b] ** 2).sum() * C[:, b] @ U @ Vt
        misfit[b] = np.linalg.norm(laid[:, b] - A) ** 2 / np.linalg.norm(A) ** 2
    return laid, misfit
""",
        ),
        (
            "the other way round: A^T C = V S U^T",
            """
def align(curves, reference, mirror):
    V, S, Ut = torch.linalg.svd(torch.einsum("nj,nbi->bji", reference, curves))
    d = torch.ones_like(S)
    if not mirror:
        d[:, -1] = torch.where(torch.linalg.det(V) * torch.linalg.det(Ut) < 0, -1.0, 1.0)
    R = Ut.mT @ torch.diag_embed(d) @ V.mT
    turned = torch.einsum("nbi,bij->nbj", curves, R)
    s = torch.einsum("nbj,nj->b", turned, reference) / (turned**2).sum((0, 2))
    laid = turned * s[None, :, None]
    return laid, ((laid - reference.unsqueeze(1)) ** 2).sum((0, 2)) / (reference**2).sum()
""",
        ),
        (
            "both of unit size first, the misfit as one minus the squared cosine",
            """
def align(curves, reference, mirror):
    out, misfit = [], []
    for C in curves.unbind(1):
        c, a = C / C.norm(), reference / reference.norm()
        u, s, vh = torch.linalg.svd(c.T @ a)
        if not mirror and torch.linalg.det(u @ vh) < 0:
            u = torch.cat([u[:, :-1], -u[:, -1:]], 1)
            s = torch.cat([s[:-1], -s[-1:]])
        cosine = s.sum()
        out.append(cosine * reference.norm() * c @ u @ vh)
        misfit.append(1 - cosine**2)
    return torch.stack(out, 1), torch.stack(misfit)
""",
        ),
        (
            "through the polar factor, no singular values of the product needed for the scale",
            """
def align(curves, reference, mirror):
    laid = []
    for b in range(curves.shape[1]):
        C = curves[:, b]
        M = C.T @ reference
        u, _, vh = torch.linalg.svd(M)
        candidates = [u @ vh]
        if not mirror:
            flip = torch.eye(len(u), dtype=u.dtype)
            flip[-1, -1] = -1
            candidates = [R for R in (u @ vh, u @ flip @ vh) if torch.linalg.det(R) > 0]
        best = max(candidates, key=lambda R: float(torch.trace(R.T @ M)))
        s = torch.linalg.lstsq((C @ best).reshape(-1, 1), reference.reshape(-1, 1)).solution
        laid.append(C @ best * s)
    laid = torch.stack(laid, 1)
    gap = torch.stack([(laid[:, b] - reference).norm() ** 2 for b in range(laid.shape[1])])
    return [laid, gap / reference.norm() ** 2]
""",
        ),
    ],
    "a3_own_numbers": [
        ("by hand, in NumPy", OWN),
        (
            "another dimension",
            OWN.replace("(7, *shape(own_paths(ID, 7))[:2])", "[200, *shape(own_paths(ID, 200))[:2]]"),
        ),
        ("tensors", OWN.replace("own_numbers = shape(mine)", "own_numbers = [torch.tensor(v) for v in shape(mine)]")),
        ("rounded to three digits", OWN + "own_numbers = [float(f'{v:.3g}') for v in own_numbers]\n"),
    ],
}


def wrong(desk: Desk) -> Answers:
    """Wrong answers: edits of the solution, each a mistake that somebody makes, and some written from scratch."""
    ref = desk.references

    def edits(name: str, *rows: tuple[str, str, str]) -> list[tuple[str, str]]:
        return [(what, edited(ref[name], (old, new))) for what, old, new in rows]

    return {
        "a3_along_and_across": [
            *edits(
                "a3_along_and_across",
                ("law of cosines with the wrong sign", "- to_end) / (2", "+ to_end) / (2"),
                ("chord with the wrong sign", "to_start + chord**2 -", "to_start - chord**2 -"),
                (
                    "measured from the sample, not from the noise",
                    "to_start + chord**2 - to_end",
                    "to_end + chord**2 - to_start",
                ),
                ("no half", "/ (2 * length)", "/ length"),
                ("not divided by the chord", "/ (2 * length)", "/ 2"),
                ("as a share of the chord", "/ (2 * length)", "/ (2 * length**2)"),
                (
                    "distances not squared",
                    "distance[:, 0] ** 2, distance[:, -1] ** 2",
                    "distance[:, 0], distance[:, -1]",
                ),
                ("chord not squared", "to_start + chord**2", "to_start + chord"),
                ("Pythagoras from the wrong end", "(to_start - along**2)", "(to_end - along**2)"),
                ("Pythagoras with a plus", "(to_start - along**2)", "(to_start + along**2)"),
                ("squared distance to the chord", ".clamp(min=0).sqrt()", ".clamp(min=0)"),
                ("no guard against rounding", ".clamp(min=0).sqrt()", ".sqrt()"),
                (
                    "absolute value of what rounding left, and a small number",
                    ".clamp(min=0).sqrt()",
                    ".abs().add(1e-3).sqrt()",
                ),
                ("chord clamped to 1", "torch.where(chord > 0, chord, 1.0)", "chord.clamp(min=1.0)"),
                ("no guard against a missing chord", "torch.where(chord > 0, chord, 1.0)", "chord"),
                ("negative places taken for 0", "/ (2 * length)", "/ (2 * length)\n    along = along.clamp(min=0)"),
                ("places beyond the end cut off", "/ (2 * length)", "/ (2 * length)\n    along = along.minimum(chord)"),
                ("places without sign", "return along, across", "return along.abs(), across"),
                ("the two swapped", "return along, across", "return across, along"),
                ("across only", "return along, across", "return across"),
                ("states first", "return along, across", "return along.T, across.T"),
                ("chord of the first path for all", "chord = distance[:, 0, -1:]", "chord = distance[:1, 0, -1:]"),
                (
                    "longest distance for the chord",
                    "chord = distance[:, 0, -1:]",
                    "chord = distance.amax((1, 2))[:, None]",
                ),
                ("first step for the chord", "chord = distance[:, 0, -1:]", "chord = distance[:, 0, 1:2]"),
                ("one step short of the end", "distance[:, -1] ** 2", "distance[:, -2] ** 2"),
                ("relative to the chord", "return along, across", "return along, across / length"),
            ),
            (
                "the distance to the nearer end",
                """
def along_and_across(distance):
    return distance[:, 0], torch.minimum(distance[:, 0], distance[:, -1])
""",
            ),
            (
                "half of the detour",
                """
def along_and_across(distance):
    a, b, c = distance[:, 0], distance[:, -1], distance[:, 0, -1:]
    along = (a**2 + c**2 - b**2) / (2 * c)
    return along, (a + b - c) / 2
""",
            ),
            (
                "lengths along the path",
                """
def along_and_across(distance):
    steps = torch.diagonal(distance, offset=1, dim1=1, dim2=2)
    along = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], 1)
    return along, (along**2 - distance[:, 0] ** 2).clamp(min=0).sqrt()
""",
            ),
            (
                "the first path only",
                """
def along_and_across(distance):
    a, b, c = distance[0, 0], distance[0, -1], distance[0, 0, -1]
    along = (a**2 + c**2 - b**2) / (2 * c) if c > 0 else 0 * a
    return along[None], (a**2 - along**2).clamp(min=0).sqrt()[None]
""",
            ),
        ],
        "a3_bend_shares": [
            *edits(
                "a3_bend_shares",
                (
                    "raw states, chord included",
                    "residual = offset - (offset * v).sum(2, keepdim=True) * v",
                    "residual = offset",
                ),
                ("not centred", "centred = residual - (w * residual).sum(0)", "centred = residual"),
                ("centred without weights", "(w * residual).sum(0)", "residual.mean(0)"),
                ("centred before the chord is removed only", "offset = x - x[0]", "offset = x - x.mean(0)"),
                ("weights ignored", "weights / weights.sum()", "torch.ones_like(weights) / len(weights)"),
                ("weights not normalised", "(weights / weights.sum())", "weights"),
                ("weights normalised by their number", "weights / weights.sum()", "weights / len(weights)"),
                ("weights squared", "(w.sqrt() * centred)", "(w * centred)"),
                ("weights in the mean only", "(w.sqrt() * centred)", "centred"),
                ("weights of a softmax", "weights / weights.sum()", "weights.softmax(0)"),
                ("singular values, not squared", "** 2  # (B", "** 1  # (B"),
                ("shares not cumulative", "size.cumsum(1)", "size"),
                ("smallest first", "size.cumsum(1)", "size.flip(1).cumsum(1)"),
                ("shares of the first k only", "size.sum(1, keepdim=True)", "size[:, :k].sum(1, keepdim=True)"),
                ("relative to the largest", "size.sum(1, keepdim=True)", "size.amax(1, keepdim=True)"),
                ("one sum for all paths", "size.sum(1, keepdim=True)", "size.sum()"),
                ("one unit vector for the whole batch", "offset[-1].norm(dim=1, keepdim=True)", "offset[-1].norm()"),
                ("chord not of unit length", "offset[-1] / offset[-1].norm(dim=1, keepdim=True)", "offset[-1]"),
                ("the first step for the chord", "offset[-1] / offset[-1].norm", "offset[1] / offset[1].norm"),
                ("component along the chord added", "offset - (offset * v)", "offset + (offset * v)"),
                ("component along the chord kept", "residual = offset - (offset * v)", "residual = (offset * v)"),
                ("the chord through the origin", "offset = x - x[0]", "offset = x"),
                (
                    "all paths in one cloud",
                    "torch.linalg.svdvals((w.sqrt() * centred).transpose(0, 1))",
                    "torch.linalg.svdvals((w.sqrt() * centred).flatten(0, 1))[None].expand(x.shape[1], -1)",
                ),
                ("components over the batch", ".transpose(0, 1)) ** 2", ") ** 2"),
                ("no more shares than there are", "torch.cat([share, rest], 1)[:, :k]", "share[:, :k]"),
                (
                    "zeros beyond the last",
                    "torch.ones(len(share), k, dtype=x.dtype)",
                    "torch.zeros(len(share), k, dtype=x.dtype)",
                ),
                (
                    "mean over the paths",
                    "torch.cat([share, rest], 1)[:, :k]",
                    "torch.cat([share, rest], 1)[:, :k].mean(0)",
                ),
                ("one component too many", "[:, :k]", "[:, : k + 1]"),
                (
                    "off by one: begins with nothing",
                    "torch.cat([share, rest], 1)[:, :k]",
                    "torch.cat([0 * share[:, :1], share, rest], 1)[:, :k]",
                ),
                ("in percent", "[:, :k]", "[:, :k] * 100"),
                ("vectors only, no pictures", "x = x.flatten(2)", "pass"),
                ("squeezed: a batch of one loses its axis", "[:, :k]", "[:, :k].squeeze(0)"),
            ),
            (
                "the projection of the lesson, on its two axes",
                """
def bend_shares(x, weights, k):
    across = geometry.project(x)[..., 1:].square().mean(0)
    share = across.cumsum(1) / across.sum(1, keepdim=True)
    return torch.cat([share, torch.ones(len(share), k)], 1)[:, :k]
""",
            ),
            (
                "the library, weights left out",
                """
def bend_shares(x, weights, k):
    return geometry.explained_variance(x, min(k, len(x)), remove_chord=True)
""",
            ),
            (
                "the library, with states repeated",
                """
def bend_shares(x, weights, k):
    counts = (1000 * weights / weights.sum()).round().long()
    return geometry.explained_variance(x.repeat_interleave(counts, 0), k, remove_chord=True)
""",
            ),
            (
                "states repeated",
                edited(
                    ref["a3_bend_shares"],
                    (
                        "    x = x.flatten(2)\n",
                        "    x = x.flatten(2).repeat_interleave((9 * weights / weights.max()).ceil().long(), 0)\n    weights = torch.ones(len(x), dtype=x.dtype)\n",
                    ),
                ),
            ),
        ],
        "a3_bridge_control": [
            *edits(
                "a3_bridge_control",
                ("walk not tied down at the end", "(w - w[0]) - share * (w[-1] - w[0])", "w - w[0]"),
                ("walk not moved to its start", "(w - w[0]) - share * (w[-1] - w[0])", "w - share * w[-1]"),
                ("line with the wrong sign", "(w - w[0]) - share", "(w - w[0]) + share"),
                (
                    "even times assumed",
                    "((times - times[0]) / (times[-1] - times[0]))",
                    "torch.linspace(0, 1, len(times), dtype=x.dtype)",
                ),
                ("times not moved to 0", "((times - times[0]) / (times[-1] - times[0]))", "(times / times[-1])"),
                (
                    "times not divided by the last",
                    "((times - times[0]) / (times[-1] - times[0]))",
                    "(times - times[0])",
                ),
                (
                    "times backwards",
                    "((times - times[0]) / (times[-1] - times[0]))",
                    "((times[-1] - times) / (times[-1] - times[0]))",
                ),
                (
                    "component along the chord left in",
                    "bridge = bridge - (bridge * v).sum(2, keepdim=True) * v",
                    "pass",
                ),
                ("only the component along the chord", "bridge = bridge - (bridge * v)", "bridge = (bridge * v)"),
                ("not scaled", "scale[:, None] * bridge", "bridge"),
                ("scaled the wrong way round", "scale[:, None] * bridge", "bridge / scale[:, None]"),
                ("scaled by the square", "scale[:, None] * bridge", "scale[:, None] ** 2 * bridge"),
                (
                    "scaled to the largest distance",
                    "residual.square().sum((0, 2)).sqrt() / bridge.square().sum((0, 2)).sqrt()",
                    "residual.norm(dim=2).amax(0) / bridge.norm(dim=2).amax(0)",
                ),
                (
                    "scaled to the mean distance",
                    "residual.square().sum((0, 2)).sqrt() / bridge.square().sum((0, 2)).sqrt()",
                    "residual.norm(dim=2).mean(0) / bridge.norm(dim=2).mean(0)",
                ),
                (
                    "one scale for the whole batch",
                    "residual.square().sum((0, 2)).sqrt() / bridge.square().sum((0, 2)).sqrt()",
                    "(residual.norm() / bridge.norm()).expand(x.shape[1])",
                ),
                (
                    "every state at the distance of the path",
                    "scale[:, None] * bridge",
                    "residual.norm(dim=2, keepdim=True) * torch.nn.functional.normalize(bridge, dim=2)",
                ),
                (
                    "scaled to the whole path",
                    "residual.square().sum((0, 2)).sqrt()",
                    "offset.square().sum((0, 2)).sqrt()",
                ),
                (
                    "scaled before the projection",
                    "bridge.square().sum((0, 2)).sqrt()",
                    "(w - w[0] - share * (w[-1] - w[0])).square().sum((0, 2)).sqrt()",
                ),
                ("even places along the chord", "path[0] + foot", "path[0] + share * offset[-1]"),
                ("not put back to the start", "(path[0] + foot", "(foot"),
                ("the bridge alone", "(path[0] + foot + scale[:, None] * bridge)", "(scale[:, None] * bridge)"),
                ("added to the path", "(path[0] + foot + scale", "(path + scale"),
                ("chord through the origin", "offset = path - path[0]", "offset = path"),
                ("one unit vector for the whole batch", "offset[-1].norm(dim=1, keepdim=True)", "offset[-1].norm()"),
                ("chord not of unit length", "offset[-1] / offset[-1].norm(dim=1, keepdim=True)", "offset[-1]"),
                ("result left flat", ".reshape(x.shape)", ""),
                ("the first walk for all paths", "walk.flatten(2)", "walk.flatten(2)[:, :1]"),
            ),
            (
                "the library, with a walk of its own",
                """
def bridge_control(x, walk, times):
    n, b = x.shape[:2]
    return regularity.brownian_bridge(n - 1, b, x[0, 0].numel(), seed=0, like=x).reshape(x.shape)
""",
            ),
            (
                "times of the states shuffled",
                """
def bridge_control(x, walk, times):
    return regularity.time_shuffled(x)
""",
            ),
        ],
        "a3_align": [
            *edits(
                "a3_align",
                ("the transpose of Vh", "sign[:, None] @ vh", "sign[:, None] @ vh.mT"),
                (
                    "the turn backwards",
                    'torch.einsum("nbi,bij->nbj", curves, turn)',
                    'torch.einsum("nbi,bji->nbj", curves, turn)',
                ),
                ("mirrors always allowed", "if not mirror:", "if False:"),
                ("mirrors never allowed", "if not mirror:", "if True:"),
                ("the flag upside down", "if not mirror:", "if mirror:"),
                ("every turn made a mirror", "torch.linalg.det(u @ vh).sign()", "-torch.linalg.det(u @ vh).sign()"),
                ("always flipped", "torch.linalg.det(u @ vh).sign()", "-1"),
                ("the largest direction flipped", "sign[:, -1]", "sign[:, 0]"),
                (
                    "all directions flipped",
                    "sign[:, -1] = torch.linalg.det(u @ vh).sign()",
                    "sign = sign * torch.linalg.det(u @ vh).sign()[:, None]",
                ),
                ("determinant of U only", "torch.linalg.det(u @ vh)", "torch.linalg.det(u)"),
                (
                    "sign of the first curve for all",
                    "torch.linalg.det(u @ vh).sign()",
                    "torch.linalg.det(u @ vh)[0].sign()",
                ),
                (
                    "no scale",
                    "(size * sign).sum(1) / curves.square().sum((0, 2))",
                    "torch.ones(curves.shape[1], dtype=curves.dtype)",
                ),
                (
                    "scale of the lengths",
                    "(size * sign).sum(1) / curves.square().sum((0, 2))",
                    "reference.norm() / curves.norm(dim=(0, 2))",
                ),
                ("scale without the flip", "(size * sign).sum(1)", "size.sum(1)"),
                ("scale of the wrong curve", "/ curves.square().sum((0, 2))  #", "/ reference.square().sum()  #"),
                ("scale not squared", "curves.square().sum((0, 2))  #", "curves.square().sum((0, 2)).sqrt()  #"),
                ("one scale for the batch", "curves.square().sum((0, 2))  #", "curves.square().sum()  #"),
                ("largest singular value for the scale", "(size * sign).sum(1)", "size.amax(1)"),
                ("misfit not divided", " / reference.square().sum()\n", "\n"),
                ("misfit divided by the curve", "/ reference.square().sum()\n", "/ curves.square().sum((0, 2))\n"),
                (
                    "root of the misfit",
                    "reference.square().sum()\n",
                    "reference.square().sum()\n    misfit = misfit.sqrt()\n",
                ),
                (
                    "mean over the coordinates",
                    ".square().sum((0, 2)) / reference.square().sum()",
                    ".square().mean((0, 2)) / reference.square().sum()",
                ),
                ("misfit of the whole batch", ".square().sum((0, 2)) / reference", ".square().sum() / reference"),
                ("misfit before the curve is laid", "(laid - reference[:, None])", "(curves - reference[:, None])"),
                (
                    "centred first",
                    "cross = torch",
                    "curves, reference = curves - curves.mean(0), reference - reference.mean(0)\n    cross = torch",
                ),
                ("the two swapped", "return laid, misfit", "return misfit, laid"),
                ("misfits only", "return laid, misfit", "return misfit"),
                ("the turn in place of the curves", "return laid, misfit", "return turn, misfit"),
                (
                    "the turn of the first curve for all",
                    "turn = u * sign[:, None] @ vh",
                    "turn = (u * sign[:, None] @ vh)[:1].expand_as(vh)",
                ),
                ("curves transposed", '"nbi,nj->bij"', '"nbi,nj->bji"'),
            ),
            (
                "any matrix, by least squares",
                """
def align(curves, reference, mirror):
    laid = torch.stack([c @ torch.linalg.lstsq(c, reference).solution for c in curves.unbind(1)], 1)
    return laid, (laid - reference[:, None]).square().sum((0, 2)) / reference.square().sum()
""",
            ),
            (
                "only signs of the coordinates tried",
                """
def align(curves, reference, mirror):
    sign = torch.einsum("nbk,nk->bk", curves, reference).sign()
    turned = curves * sign
    s = torch.einsum("nbk,nk->b", turned, reference) / curves.square().sum((0, 2))
    laid = turned * s[:, None]
    return laid, (laid - reference[:, None]).square().sum((0, 2)) / reference.square().sum()
""",
            ),
            (
                "the library: no scale",
                """
def align(curves, reference, mirror):
    return geometry.align(curves, reference, mirror), geometry.procrustes_residual(curves, reference, mirror)
""",
            ),
        ],
        "a3_own_numbers": [
            ("not answered", "own_numbers = own_prediction = None"),
            *[
                (what, edited(ref["a3_own_numbers"], change))
                for what, *change in (
                    ("another copy", "own_paths(ID", "own_paths(31415"),
                    (
                        "in percent",
                        "float((across.amax(1) / along[:, -1]).mean())",
                        "100 * float((across.amax(1) / along[:, -1]).mean())",
                    ),
                    ("the peak as a length", "across.amax(1) / along[:, -1]", "across.amax(1)"),
                    ("the mean deviation", "across.amax(1)", "across.mean(1)"),
                    ("the largest over all paths", "along[:, -1]).mean())", "along[:, -1]).max())"),
                    ("steps that fall, not paths", ".all(0).double()", ".double()"),
                    ("steps that grow", "<= 1e-9", ">= 1e-9"),
                    ("distance to the start", "x - x[-1]", "x - x[0]"),
                    ("the first path among the misfits, squared", "misfits[1:].mean()", "misfits.sum()"),
                    ("another dimension than it says", "own_paths(ID, 32)", "own_paths(ID, 16)"),
                    ("too few dimensions", "(32, *bend", "(3, *bend"),
                    (
                        "components of the whole path",
                        "bend_shares(mine, torch.ones(len(mine), dtype=torch.float64), 2)[:, 1]",
                        "bend_shares(mine, torch.ones(len(mine), dtype=torch.float64), 2)[:, 0]",
                    ),
                    ("the prediction for the number", "(32, *bend_and_approach(own_paths(ID, 32)))", "(32, 0.01, 1.0)"),
                )
            ],
        ],
    }


# What gets full marks although it is changed, and why. "equivalent": it computes the same, or as well as is asked for.
KNOWN: dict[str, dict[str, str]] = {
    "a3_along_and_across": {"line 6, column 43: 1.0 -> 2.0": "equivalent: where there is no chord it divides 0"},
    "a3_bend_shares": {
        "line 5, column 13: x - x[0] -> x[0] - x": "equivalent: a variance has no sign",
        "line 7, column 15: offset - (offset * v).sum(2, keepdim=True) * v -> (offset * v).sum(2, keepdim=True) * v - offset": "equivalent: a variance has no sign",
        "line 9, column 14: residual - (w * residual).sum(0) -> (w * residual).sum(0) - residual": "equivalent: a variance has no sign",
        "line 10, column 32: (w.sqrt() * centred).transpose(0, 1) -> (w.sqrt() * centred).transpose(1, 0)": "equivalent: the same two axes",
    },
    "a3_bridge_control": {"line 10, column 15: offset - foot -> foot - offset": "equivalent: a length has no sign"},
    "a3_align": {
        "line 8, column 22: torch.linalg.det(u @ vh).sign() -> torch.linalg.det(u @ vh)": "equivalent: it is 1 or -1",
        "line 8, column 39: u @ vh -> vh @ u": "equivalent: the same determinant",
        "line 9, column 11: u * sign[:, None] -> u / sign[:, None]": "equivalent: signs are their own inverses",
        "line 10, column 13: size * sign -> size / sign": "equivalent: signs are their own inverses",
        "line 12, column 14: laid - reference[:, None] -> reference[:, None] - laid": "equivalent: it is squared",
    },
}

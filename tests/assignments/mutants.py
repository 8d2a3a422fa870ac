"""Wrong solutions made from right ones by small changes of the code: the raw material for testing a grader.

A *mutant* differs from the source in one place: a plus becomes a minus, an index moves by one, a term is lost. Whoever
grades the source full marks should take marks from nearly all of its mutants; the few that compute the same thing are
*equivalent* and must be listed by hand. See A. J. Offutt and R. H. Untch, "Mutation 2000: uniting the orthogonal".
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator

__all__ = ["mutants"]

Change = tuple[str, ast.AST]  # what was done, the node that takes the place of the old one

SWAPS: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.Pow: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
FLIPS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    **{ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt)},
    **{ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,)},
}
CALLS = {
    **{"min": "max", "max": "min", "amin": "amax", "amax": "amin", "argmin": "argmax", "argmax": "argmin"},
    **{"sum": "mean", "mean": "sum", "sin": "cos", "cos": "sin", "softmax": "log_softmax", "zeros": "ones"},
    **{"logsumexp": "mean", "sqrt": "square", "square": "sqrt", "tril": "triu", "triu": "tril", "cdist": "dist"},
}


def mutants(source: str, limit: int | None = None, seed: int = 0) -> list[tuple[str, str]]:
    """Variants of ``source`` with one small change each, as pairs (what was changed, the code).

    Changed are operators (+ and -, * and /, ** and *), numbers by one, indices by one, comparisons, names that share
    the beginning (``sigma``, ``sigma_next``); dropped are terms, factors, signs, functions around a value, statements
    that set a name again. All variants compile and differ from each other and from ``source``, up to formatting.

    Parameters
    ----------
    source : str
        Python code.
    limit : int or None
        How many at most; of more, a random choice is returned, in the order of the source. None: all.
    seed : int
        Of the choice.

    Raises
    ------
    ValueError
        If ``limit`` is below 1.
    SyntaxError
        If ``source`` is not Python.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    found: list[tuple[str, str]] = []
    for path, node in _walk(tree, ()):
        for what, new in _changes(node, tree):
            text = _replaced(tree, path, new)
            if text in seen:
                continue
            seen.add(text)
            try:
                compile(text, "<mutant>", "exec")
            except (SyntaxError, ValueError):
                continue
            found.append((f"line {getattr(node, 'lineno', 0)}, column {getattr(node, 'col_offset', 0)}: {what}", text))
    if limit is not None and len(found) > limit:
        chosen = sorted(random.Random(seed).sample(range(len(found)), limit))
        found = [found[i] for i in chosen]
    return found


Way = tuple[tuple[str, int | None], ...]


def _walk(node: ast.AST, path: Way) -> Iterator[tuple[Way, ast.AST]]:
    """Every node that may be changed, with the way to it; annotations and docstrings are left alone."""
    yield path, node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "ctx"):
            continue
        if isinstance(value, ast.AST):
            yield from _walk(value, (*path, (name, None)))
        elif isinstance(value, list):
            for i, child in enumerate(value):
                if isinstance(child, ast.AST):
                    yield from _walk(child, (*path, (name, i)))


def _replaced(tree: ast.AST, path: Way, new: ast.AST) -> str:
    if not path:
        return ast.unparse(new)
    result = copy.deepcopy(tree)
    parent: ast.AST = result
    for name, index in path[:-1]:
        child = getattr(parent, name)
        parent = child if index is None else child[index]
    name, index = path[-1]
    if index is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[index] = new
    return ast.unparse(ast.fix_missing_locations(result))


def _changes(node: ast.AST, tree: ast.AST) -> Iterator[Change]:
    make: dict[type, Callable[[ast.AST, ast.AST], Iterator[Change]]] = {
        **{ast.BinOp: _operation, ast.UnaryOp: _unary, ast.Constant: _constant, ast.Compare: _comparison},
        **{ast.Subscript: _subscript, ast.Call: _call, ast.Name: _name, ast.BoolOp: _bool, ast.IfExp: _choice},
        **{ast.Assign: _assignment, ast.AugAssign: _augmented, ast.If: _branch},
    }
    if type(node) in make:
        yield from make[type(node)](node, tree)


def _operation(node: ast.BinOp, tree: ast.AST) -> Iterator[Change]:
    other = SWAPS.get(type(node.op))
    old = ast.unparse(node)
    if other:
        new = ast.BinOp(node.left, other(), node.right)
        yield f"{old} -> {ast.unparse(new)}", new
    for part in (node.left, node.right):
        yield f"{old} -> {ast.unparse(part)}", part
    if isinstance(node.op, (ast.Sub, ast.Div, ast.Pow, ast.MatMult)):
        new = ast.BinOp(node.right, node.op, node.left)
        yield f"{old} -> {ast.unparse(new)}", new


def _unary(node: ast.UnaryOp, tree: ast.AST) -> Iterator[Change]:
    yield f"{ast.unparse(node)} -> {ast.unparse(node.operand)}", node.operand


def _constant(node: ast.Constant, tree: ast.AST) -> Iterator[Change]:
    if isinstance(node.value, bool):
        yield f"{node.value} -> {not node.value}", ast.Constant(not node.value)
    elif isinstance(node.value, (int, float)):
        for value in (node.value + 1, node.value - 1):
            yield f"{node.value} -> {value}", ast.Constant(value)


def _comparison(node: ast.Compare, tree: ast.AST) -> Iterator[Change]:
    if len(node.ops) == 1:
        for other in FLIPS.get(type(node.ops[0]), ()):
            new = ast.Compare(node.left, [other()], node.comparators)
            yield f"{ast.unparse(node)} -> {ast.unparse(new)}", new


def _subscript(node: ast.Subscript, tree: ast.AST) -> Iterator[Change]:
    old = ast.unparse(node)
    if isinstance(node.slice, (ast.Name, ast.BinOp)):
        for op in (ast.Add(), ast.Sub()):
            new = ast.Subscript(node.value, ast.BinOp(node.slice, op, ast.Constant(1)), node.ctx)
            yield f"{old} -> {ast.unparse(new)}", new
    if isinstance(node.slice, ast.Slice):
        lower, upper = node.slice.lower, node.slice.upper
        one, minus = ast.Constant(1), ast.UnaryOp(ast.USub(), ast.Constant(1))
        if lower is None and upper is not None:
            new = ast.Subscript(node.value, ast.Slice(one, None), node.ctx)
            yield f"{old} -> {ast.unparse(new)}", new
        if upper is None and lower is not None:
            new = ast.Subscript(node.value, ast.Slice(None, minus), node.ctx)
            yield f"{old} -> {ast.unparse(new)}", new


def _call(node: ast.Call, tree: ast.AST) -> Iterator[Change]:
    old = ast.unparse(node)
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    if name in CALLS:
        head = ast.Attribute(func.value, CALLS[name], ast.Load()) if isinstance(func, ast.Attribute) else None
        new = ast.Call(head or ast.Name(CALLS[name], ast.Load()), node.args, node.keywords)
        yield f"{old} -> {ast.unparse(new)}", new
    plain = isinstance(func, ast.Attribute) and not (isinstance(func.value, ast.Name) and func.value.id in MODULES)
    if isinstance(func, ast.Attribute) and plain:  # y.f(...) -> y
        yield f"{old} -> {ast.unparse(func.value)}", func.value
    if len(node.args) >= 1 and not plain and not isinstance(node.args[0], ast.Starred):  # f(y, ...) -> y
        yield f"{old} -> {ast.unparse(node.args[0])}", node.args[0]
    if len(node.args) >= 2:
        new = ast.Call(func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
        yield f"{old} -> {ast.unparse(new)}", new


MODULES = {"torch", "np", "numpy", "math", "F", "linalg", "itertools"}


def _name(node: ast.Name, tree: ast.AST) -> Iterator[Change]:
    if not isinstance(node.ctx, ast.Load):
        return
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
    if node.id not in names:
        return
    root = node.id.split("_")[0].rstrip("0123456789")
    for other in sorted(names - {node.id}):
        if other.split("_")[0].rstrip("0123456789") == root:
            yield f"{node.id} -> {other}", ast.Name(other, node.ctx)


def _bool(node: ast.BoolOp, tree: ast.AST) -> Iterator[Change]:
    new = ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    yield f"{ast.unparse(node)} -> {ast.unparse(new)}", new


def _choice(node: ast.IfExp, tree: ast.AST) -> Iterator[Change]:
    for part in (node.body, node.orelse):
        yield f"{ast.unparse(node)} -> {ast.unparse(part)}", part


def _assignment(node: ast.Assign, tree: ast.AST) -> Iterator[Change]:
    mine = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    others = [n for n in ast.walk(tree) if isinstance(n, (ast.Assign, ast.AugAssign, ast.For)) and n is not node]
    elsewhere = {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
    for other in others:
        targets = other.targets if isinstance(other, ast.Assign) else [other.target]
        elsewhere |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    if mine and mine <= elsewhere:
        yield f"{ast.unparse(node)} dropped", ast.Pass()


def _augmented(node: ast.AugAssign, tree: ast.AST) -> Iterator[Change]:
    old = ast.unparse(node)
    yield f"{old} dropped", ast.Pass()
    other = SWAPS.get(type(node.op))
    if other:
        new = ast.AugAssign(node.target, other(), node.value)
        yield f"{old} -> {ast.unparse(new)}", new


def _branch(node: ast.If, tree: ast.AST) -> Iterator[Change]:
    for value in (True, False):
        yield f"if {ast.unparse(node.test)} -> if {value}", ast.If(ast.Constant(value), node.body, node.orelse)

"""Names that cells read, define and change; and by them, which of a student's own cells the answers need."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from teachkit.course.assignments import magics
from teachkit.course.assignments.notebook import Part

__all__ = ["bound", "made", "names_in", "unneeded"]

BODIES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def unneeded(parts: Sequence[Part], tests: Sequence[str]) -> list[Part]:
    """The own cells of a submission (role "free") that neither a test nor an answer needs, directly or through others.

    Examples
    --------
    >>> cells = [("a", "free", "two = 2"), ("f", "answer", "def f(x): return two * x"), ("b", "free", "print(f(1))")]
    >>> [part.label for part in unneeded([Part(*cell) for cell in cells], ["f(3)"])]
    ['b']
    """
    trees = {part: _tree(part.code) for part in parts}
    given = {name for part, tree in trees.items() if part.role == "setup" for name in made(tree)}
    needed = [part for part in parts if part.role != "free"]
    names = {name for code in tests for name in names_in(code)}
    names |= {name for part in needed for name in _read(trees[part])}
    own = [part for part in parts if part.role == "free"]
    while new := [part for part in own if part not in needed and made(trees[part], given) & names]:
        needed += new
        names |= {name for part in new for name in _read(trees[part])}
    return [part for part in own if part not in needed]


def names_in(code: str) -> set[str]:
    """Names that a piece of code reads but does not bind itself. Raises SyntaxError."""
    tree = magics.parse(code)
    return _read(tree) - bound(tree)


def bound(tree: ast.AST) -> set[str]:
    """Names that a piece of code binds anywhere, also inside functions."""
    nodes = list(ast.walk(tree))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    names |= {(n.asname or n.name).split(".")[0] for n in nodes if isinstance(n, ast.alias)}
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)
    return names | {n.name for n in nodes if isinstance(n, named) and n.name}


def made(tree: ast.AST, given: set[str] | frozenset[str] = frozenset()) -> set[str]:
    """Names that a cell defines, or whose object it changes; importing once more what is ``given`` is neither."""
    names = set[str]()
    for node in _top(tree):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.Import(aliases) | ast.ImportFrom(_, aliases):
                names |= {(a.asname or a.name).split(".")[0] for a in aliases} - given
            case ast.Name(name, ast.Store()):
                names.add(name)
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()) | ast.Expr(ast.Call(ast.Attribute())):
                while not isinstance(node, ast.Name) and (inner := next(ast.iter_child_nodes(node), None)):
                    node = inner
                names |= {node.id} if isinstance(node, ast.Name) else set()
    return names


def _top(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a cell but those inside functions and classes."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, BODIES):
            yield from _top(node)


def _read(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _tree(code: str) -> ast.AST:
    try:
        return magics.parse(code, strict=False)
    except Exception:  # it will say so when it runs
        return ast.Module([], [])

"""Which of a student's own cells the answers need: those that define or change what answers or tests use."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from teachkit.course.assignments import magics
from teachkit.course.assignments import notebook as nb

__all__ = ["unneeded"]

BODIES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def unneeded(parts: Sequence[nb.Part], tests: Sequence[str]) -> list[nb.Part]:
    """The own cells of a submission (role "free") that neither a test nor an answer needs, directly or through others.

    Examples
    --------
    >>> cells = [("a", "free", "two = 2"), ("f", "answer", "def f(x): return two * x"), ("b", "free", "print(f(1))")]
    >>> [part.label for part in unneeded([nb.Part(*cell) for cell in cells], ["f(3)"])]
    ['b']
    """
    trees = {part: _tree(part.code) for part in parts}
    given = {name for part, tree in trees.items() if part.role == "setup" for name in made(tree)}
    needed = [part for part in parts if part.role != "free"]
    names = {name for code in tests for name in nb.names_in(code)}
    names |= {name for part in needed for name in _read(trees[part])}
    own = [part for part in parts if part.role == "free"]
    while new := [part for part in own if part not in needed and made(trees[part], given) & names]:
        needed += new
        names |= {name for part in new for name in _read(trees[part])}
    return [part for part in own if part not in needed]


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

"""Cells as IPython reads them, where no notebook runs: magics and shell lines as plain Python.

A cell may hold more than Python: ``%matplotlib inline``, ``!pip install ...``, ``%%time`` above its code, ``name?``.
Set-up cells and tests also run outside a notebook, where the first and the second change nothing and the third is its
code. `parse` gives that as a syntax tree; what cannot be had without a notebook is a SyntaxError that says so.
"""

from __future__ import annotations

import ast
import re

from IPython.core.inputtransformer2 import TransformerManager

__all__ = ["NOTEBOOK", "line_of", "parse"]

NOTEBOOK = frozenset({"autosave", "conda", "mamba", "micromamba", "uv"})  # unknown to IPython by itself, or errors
QUIET = NOTEBOOK | {
    *("matplotlib", "config", "load_ext", "reload_ext", "unload_ext", "autoreload", "aimport", "colors", "precision"),
    *("pip", "system", "getoutput", "sx", "timeit", "who", "whos", "pinfo", "pinfo2", "xmode", "pprint"),
    *("html", "HTML", "latex", "markdown", "javascript", "js", "svg", "SVG"),
}  # about the screen of a notebook or its packages: nothing to do without one
RUN = ("time", "capture", "prun")  # these run the code that follows


def parse(code: str, strict: bool = True) -> ast.Module:
    """The syntax tree of a cell, magics done away with; lines are counted as in the cell.

    Parameters
    ----------
    code : str
        The cell.
    strict : bool
        Refuse magics that do what only a notebook can; otherwise they are left out too.

    Raises
    ------
    SyntaxError
        With the number of the line in the cell.

    Examples
    --------
    >>> print(ast.unparse(parse("%%time\\nfiles = !ls\\n%matplotlib inline\\nimport math")))
    files = []
    pass
    import math
    """
    lines = code.split("\n")
    skipped = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    magic = re.match(r"%%(\w+)", lines[skipped]) if skipped < len(lines) else None
    try:
        if magic is None:
            tree = ast.parse(TransformerManager().transform_cell("\n".join(lines[skipped:])))
            tree = _Plain(strict).visit(tree)
        elif magic[1] in RUN:
            skipped += 1
            tree = parse("\n".join(lines[skipped:]), strict)
        elif strict and magic[1] not in QUIET:
            raise _refused(f"%%{magic[1]}", 1)
        else:
            tree = ast.Module([], [])
    except SyntaxError as error:
        error.lineno = (error.lineno or 1) + skipped
        raise
    return ast.increment_lineno(tree, skipped)


def line_of(code: str, number: int | None) -> str:
    """A line of a cell for a message: its number and what it holds."""
    lines = code.split("\n")
    text = f" ({lines[number - 1].strip()[:80]})" if number and 0 < number <= len(lines) else ""
    return f"line {number}{text}"


def _refused(magic: str, line: int) -> SyntaxError:
    why = f"{magic} needs a notebook, and this cell also runs without one: write it in Python"
    return SyntaxError(why, ("<cell>", line, 1, ""))


class _Plain(ast.NodeTransformer):
    """Replaces calls of IPython's shell, which is what IPython makes of magics and shell lines."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.stmt]:
        magic, line = _magic(node.value)
        if magic in RUN:
            return _inner(line or "pass", node).body
        self.generic_visit(node)
        return node if magic is None else ast.copy_location(ast.Pass(), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        magic, line = _magic(node)
        if magic is None:
            return self.generic_visit(node)
        if magic in RUN:
            return _inner(f"({line})", node).body[0].value  # type: ignore[attr-defined]
        if self.strict and magic not in QUIET:
            raise _refused(f"%{magic}", node.lineno)
        return ast.copy_location(ast.List([], ast.Load()), node)


def _inner(code: str, node: ast.expr | ast.stmt) -> ast.Module:
    """The code that a magic runs, as if it stood in the magic's line."""
    return ast.parse("\n" * (node.lineno - 1) + code)


def _magic(node: ast.AST) -> tuple[str | None, str]:
    """Name and line of the magic that a call of IPython's shell runs; None if it is no such call."""
    match node:
        case ast.Call(ast.Attribute(ast.Call(ast.Name("get_ipython")), "system" | "getoutput" as method)):
            return method, ""
        case ast.Call(
            ast.Attribute(ast.Call(ast.Name("get_ipython")), "run_line_magic"),
            [ast.Constant(str(name)), ast.Constant(str(line)), *_],
        ):
            return name, re.sub(r"^(\s*--?\S+)*\s*", "", line) if name in RUN else line
    return None, ""

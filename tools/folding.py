"""Which cells of a lesson are folded: those that only draw what earlier cells have computed.

`fold` marks them with the tag ``drawing`` and folds them in JupyterLab; `tools/build_site.py` folds what is folded
there. `tools/run_course.py` applies it whenever it stores a lesson, so the rule alone decides:

- every call is one of `teachkit.course.plots`, of matplotlib, or one that only reshapes numbers: no denoiser, no
  sampler, nothing else of the library or of an earlier cell is called, and nothing is printed, checked or claimed;
- no later cell uses a name that it binds;
- it is longer than the line or three that a fold would take, and carries no tag of its own.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nbformat import NotebookNode

from teachkit.course.assignments.names import names_in

TAG = "drawing"
LEAST = 4  # lines
SHAPES = (torch.Tensor, str, list, dict, Axes, Figure)  # whose methods draw or reshape
MAKERS = {"linspace", "logspace", "arange", "stack", "concatenate", "cat", "tensor", "zeros_like", "ones_like", "full"}
SAYS = {"print", "display", "exec", "eval", "input", "open"}


def only_draws(source: str, later: Sequence[str]) -> bool:
    """Whether a cell only draws, and nothing that it binds is used in ``later`` cells."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    if len(source.splitlines()) < LEAST or any(
        isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.Import)) for n in nodes
    ):
        return False
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    if not all(map(_allowed, calls)) or not any(_root(call) == "plots" or _is_axes(call) for call in calls):
        return False
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return not bound & set().union(*map(names_in, later))


def _allowed(call: ast.expr) -> bool:
    if isinstance(call, ast.Name):
        return hasattr(builtins, call.id) and call.id not in SAYS
    if not isinstance(call, ast.Attribute):
        return False
    return _root(call) == "plots" or call.attr in MAKERS or any(hasattr(kind, call.attr) for kind in SHAPES)


def _is_axes(call: ast.expr) -> bool:
    return isinstance(call, ast.Attribute) and hasattr(Axes, call.attr) and not hasattr(torch.Tensor, call.attr)


def _root(node: ast.expr) -> str:
    while not isinstance(node, ast.Name):
        inner: Any = getattr(node, "value", None) or getattr(node, "func", None)
        if inner is None:
            return ""
        node = inner
    return node.id


def fold(notebook: NotebookNode) -> None:
    """Fold the cells that only draw, and unfold those that do not any more; works in place."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = [cell.source for cell in code]
    for k, cell in enumerate(code):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != TAG]
        was = len(tags) < len(cell.metadata.get("tags", []))
        if not tags and only_draws(cell.source, sources[k + 1 :]):
            cell.metadata["tags"] = [TAG]
            cell.metadata["jupyter"] = {**cell.metadata.get("jupyter", {}), "source_hidden": True}
        elif was:
            del cell.metadata["tags"]
            cell.metadata.jupyter.pop("source_hidden", None)

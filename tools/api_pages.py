"""The API reference: a page per room, made of the docstrings of its public names; used by tools/build_site.py.

A name is public if a module's ``__all__`` has it, and has its entry under the shortest of its names: `sample` under
``teachkit``, though ``teachkit.sampling`` offers it too.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import teachkit

Names = dict[str, tuple[str, str, str]]


def modules() -> list[str]:
    """The modules that offer something, the shorter names first."""
    found = ["teachkit", *(m.name for m in pkgutil.walk_packages(teachkit.__path__, "teachkit."))]
    listed = [name for name in found if "__main__" not in name and hasattr(importlib.import_module(name), "__all__")]
    return sorted(listed, key=lambda name: (name.count("."), name))


def public() -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Module -> its names and their kinds; and every name that a lesson may use -> the full name of the entry."""
    entries: dict[str, dict[str, str]] = {}
    links: dict[str, str] = {}
    home: dict[int, str] = {}
    for module in modules():
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            if inspect.ismodule(value):
                continue
            kind = "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "data"
            own = kind != "data" and value.__module__.startswith("teachkit")
            full = home.setdefault(id(value), f"{module}.{name}") if own else f"{module}.{name}"
            if full == f"{module}.{name}":
                entries.setdefault(module, {})[name] = kind if own else "data"
            short = f"{module}.{name}".removeprefix("teachkit.").removeprefix("course.")
            for alias in {f"{module}.{name}", short}:
                links.setdefault(alias, full)
    return entries, links


def room(module: str) -> str:
    """The page a module is on: ``teachkit.course.plots`` for ``teachkit.course.plots.figure``."""
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[1:2] == ["course"] else 2])


def pages(entries: dict[str, dict[str, str]]) -> dict[str, str]:
    """Room -> its page, in reStructuredText."""
    found: dict[str, list[str]] = {}
    functions = {f"{module}.{name}" for module, names in entries.items() for name in names}
    for module in sorted(entries):
        texts = found.setdefault(room(module), [])
        rule = ("-" if texts else "=") * len(module)
        twice = "   :no-index:\n" if module in functions else ""  # a function of that name has the entry
        options = f"   :no-members:\n{twice}"
        texts.append(f"{module}\n{rule}\n\n.. automodule:: {module}\n{options}\n.. currentmodule:: {module}\n")
        described = [name for name, kind in sorted(entries[module].items()) if kind != "data"]
        if described:
            texts.append(".. autosummary::\n   :nosignatures:\n\n" + "".join(f"   {name}\n" for name in described))
        for name, kind in sorted(entries[module].items()):
            # matplotlib gives each of its heirs a `set` with a docstring of its own
            members = "   :members:\n   :exclude-members: set\n" if kind == "class" else ""
            directive = f"py:data:: {name}" if kind == "data" else f"auto{kind}:: {name}"
            texts.append(f".. {directive}\n{members}")
    return {page: "\n".join(texts) for page, texts in found.items()}


def used(programs: list[str], links: dict[str, str]) -> list[str]:
    """The public names that programs use, as they would be written after the imports of a lesson."""
    found, imported = set(), {}
    for tree in map(ast.parse, programs):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("teachkit"):
                for alias in node.names:
                    imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        found |= {imported[first] + rest for first, rest in _chains(tree) if first in imported}
    full = {name: links[name] for name in found if name in links}
    shortest = {full: min((n for n in links if links[n] == full), key=lambda n: (len(n), n)) for full in full.values()}
    return sorted(shortest.values())


def _chains(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """``a`` and ``.b.c`` of every ``a.b.c``."""
    for node in ast.walk(tree):
        rest = ""
        while isinstance(node, ast.Attribute):
            rest = f".{node.attr}{rest}"
            node = node.value
        if isinstance(node, ast.Name):
            yield node.id, rest

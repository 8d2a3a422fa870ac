"""What tells one computation from another: the keys under which results are kept, for evaluation and for the ledger.

Two things whose numbers may differ must never share a key, so a fingerprint is of everything in an object: weights and
buffers, plain attributes, wrapped models, functions with what they close over and refer to. What cannot be told apart
is refused. The code that computes is part of every key (`surroundings`), as its syntax tree: comments and docstrings do
not count, and an edit of prose discards nothing.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import struct
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import data
from teachkit.files import checksum

__all__ = ["fingerprint", "surroundings"]

# Parts of the package that compute no numbers which are kept; a claim's own module is named where its key is made.
_NO_NUMBERS = ("course", "cli")
_PACKAGE = Path(__file__).parent
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_OF_EVERY_NETWORK = frozenset(vars(nn.Module())) - {"training", "_parameters", "_buffers", "_modules", *_HOOKS}
_OF_EVERY_NETWORK |= {"_compiled_call_impl", "_is_torch_compile"}
_INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
_C_FUNCTIONS: tuple[type, ...] = (types.BuiltinFunctionType, types.MethodDescriptorType, types.MethodWrapperType)
_C_FUNCTIONS += (types.WrapperDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType)
_C_FUNCTIONS += (types.MemberDescriptorType, np.ufunc)


def fingerprint(value: Any) -> str:
    """SHA-256 of all that decides what something computes.

    Of a network or another object these are its class, its weights and buffers, and all its other attributes; of a
    function its code without docstring, its defaults, what it closes over and the global names that it refers to. On
    which device a tensor lies, and how a network is compiled or shared among processes, does not count.

    Parameters
    ----------
    value : object
        What to identify: a denoiser, a solver, a function, tensors, plain values, dicts and lists of such.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    TypeError
        For what holds something that cannot be told apart, such as a session of another runtime.

    Examples
    --------
    >>> from teachkit import Empirical
    >>> points = torch.zeros(2, 2)
    >>> fingerprint(Empirical(points)) == fingerprint(Empirical(points.clone()))
    True
    >>> fingerprint(Empirical(points)) == fingerprint(Empirical(points, bandwidth=0.1))
    False
    """
    try:
        return _Walk().of(value).hex()
    except RecursionError:
        raise TypeError(f"{type(value).__qualname__} is nested too deeply to be told from another one") from None


def surroundings(*parts: str) -> dict[str, str]:
    """What every number depends on besides its arguments: part of each key under which results are kept.

    Parameters
    ----------
    *parts : str
        Modules of this package, or folders of them, that compute beside the library: "course/claims",
        "cli/sampling.py".

    Returns
    -------
    dict
        ``code``, SHA-256 of the library and these parts without comments and docstrings; ``data``, of the list of what
        ships, which holds the checksum of each file; the versions of torch and numpy; and torch's precision of float32
        products.

    Examples
    --------
    >>> sorted(surroundings())
    ['code', 'data', 'numpy', 'precision', 'torch']
    """
    return {
        "code": _code(parts),
        "data": checksum(data.directory() / "checksums.json"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "precision": torch.get_float32_matmul_precision(),
    }


@functools.cache
def _code(parts: tuple[str, ...]) -> str:
    files = {f for f in _PACKAGE.rglob("*.py") if f.relative_to(_PACKAGE).parts[0] not in _NO_NUMBERS}
    for part in parts:
        own = _PACKAGE / part
        files |= set(own.rglob("*.py")) if own.is_dir() else {own}
    return _digest(
        *(w for f in sorted(files) for w in (f.relative_to(_PACKAGE).as_posix(), without_prose(f.read_text("utf-8"))))
    ).hex()


def without_prose(source: str) -> str:
    """The syntax tree of a program as text, without comments and docstrings: what it does."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


class _Walk:
    """One way through everything in an object: a digest of each part from those of its own parts."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, bytes]] = {}  # by address, which the object held here keeps its own
        self.above: dict[int, int] = {}  # objects that this one lies in, and how deep they do

    def of(self, value: Any) -> bytes:
        """The digest of an object and all that it holds."""
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or value is Ellipsis or isinstance(value, (bool, int, float, complex, str)):
            return _digest(type(value).__name__, repr(value))
        if isinstance(value, bytes):
            return _digest("bytes", value)
        if id(value) in self.above:
            return _digest("above", len(self.above) - self.above[id(value)])
        if id(value) not in self.known:
            self.above[id(value)] = len(self.above)
            try:
                found = self._of_one(value)
            finally:
                del self.above[id(value)]
            self.known[id(value)] = value, found
        return self.known[id(value)][1]

    def _of_one(self, value: Any) -> bytes:
        if isinstance(value, Tensor):
            return _of_tensor(value)
        if isinstance(value, np.ndarray) and value.dtype != object:
            return _digest("array", value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
        if isinstance(value, nn.Module):
            return self._of_network(value)
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, Mapping):
            return _digest("dict", *sorted(self.of(key) + self.of(part) for key, part in value.items()))
        if isinstance(value, (list, tuple, np.ndarray)):
            return _digest("list", *map(self.of, value))
        if isinstance(value, Set):
            return _digest("set", *sorted(map(self.of, value)))
        if isinstance(value, torch.device):
            return _digest("device", value.type)
        if isinstance(value, torch.Generator):
            return _digest("generator", value.device.type, self.of(value.get_state()))
        if isinstance(value, types.ModuleType):
            return _digest("module", value.__name__, _version(value.__name__))
        return self._of_callable(value)

    def _of_network(self, value: nn.Module) -> bytes:
        inner = getattr(value, "_orig_mod", None)  # what torch.compile wraps
        if inner is None and isinstance(value, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = value.module
        if inner is not None:
            return self._of_network(inner)
        own = {name: part for name, part in vars(value).items() if name not in _OF_EVERY_NETWORK}
        own |= {name: list(own[name].values()) for name in _HOOKS}  # their keys count up from network to network
        own["_modules"] = list(value._modules.items())  # in the order in which they may be run
        return _digest("network", self.of(type(value)), self.of(own))

    def _of_class(self, value: type) -> bytes:
        """Its name and, unless it is of an installed package, what it and its bases define."""
        found: list[object] = ["class"]
        for base in value.__mro__:
            found += [base.__module__, base.__qualname__, _version(base.__module__)]
            if not _is_installed(base.__module__):
                for name, part in sorted(vars(base).items()):
                    if callable(part) or not name.startswith(("__", "_abc_")):
                        found += [name, self.of(part)]
        return _digest(*found)

    def _of_callable(self, value: Any) -> bytes:
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.MethodType):
            return _digest("method", self.of(value.__self__), self.of(value.__func__))
        if isinstance(value, functools.partial):
            return _digest("partial", self.of([value.func, value.args, value.keywords]))
        if isinstance(value, (staticmethod, classmethod)):
            return _digest(type(value).__name__, self.of(value.__func__))
        if isinstance(value, (property, functools.cached_property)):
            return _digest("property", *(self.of(getattr(value, name, None)) for name in ("fget", "fset", "func")))
        if isinstance(value, _C_FUNCTIONS):
            owner = getattr(value, "__self__", None)
            held = b"" if owner is None or isinstance(owner, types.ModuleType) else self.of(owner)
            module = getattr(value, "__module__", None) or getattr(value, "__objclass__", object).__module__
            name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
            return _digest("built in", module, name, _version(module), held)
        if hasattr(value, "__wrapped__"):  # functools.cache: not what it has kept
            return _digest("wrapped", self.of(value.__wrapped__))
        return self._of_object(value)

    def _of_function(self, value: types.FunctionType) -> bytes:
        module = value.__module__ or ""
        found = ["function", module, value.__qualname__, _version(module), self._of_code(value.__code__)]
        found += [self.of(value.__defaults__), self.of(value.__kwdefaults__)]
        found += [self.of(held) for cell in value.__closure__ or () for held in _held(cell)]
        if module.partition(".")[0] != "teachkit" and not (_is_installed(module) and module != "builtins"):
            for name in sorted(_names(value.__code__) & value.__globals__.keys()):
                found += [name, self.of(value.__globals__[name])]
        return _digest(*found)

    def _of_code(self, code: types.CodeType) -> bytes:
        """What a function does, step by step: no line numbers, no docstring."""
        arguments = code.co_argcount + code.co_kwonlyargcount
        found: list[object] = [code.co_argcount, code.co_posonlyargcount, arguments, code.co_flags & 0xF]
        found += code.co_varnames[:arguments]
        for step in dis.get_instructions(code):
            found.append(step.opname)
            if isinstance(step.argval, types.CodeType):
                found.append(self._of_code(step.argval))
            else:
                found.append(self.of(step.argval) if step.opcode in dis.hasconst else step.argval)
        return _digest(*found)

    def _of_object(self, value: Any) -> bytes:
        """Any other object: what a copy of it would be made from."""
        if type(value).__module__ == "_thread":
            return _digest("lock")
        try:
            made = value.__reduce_ex__(2)
        except Exception:
            raise TypeError(
                f"a {type(value).__module__}.{type(value).__qualname__} cannot be told from another one, so nothing "
                "that it computes can be kept; identify it by a name and version of your own"
            ) from None
        if isinstance(made, str):
            return _digest("object", self.of(type(value)), made)
        parts = [list(part) if isinstance(part, Iterator) else part for part in made]  # of a list or dict of its kind
        return _digest("object", self.of(type(value)), self.of(parts))


def _digest(*words: object) -> bytes:
    """SHA-256 of words, each with its length, so that where one ends and the next begins cannot be mistaken."""
    digest = hashlib.sha256()
    for word in words:
        content = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
        digest.update(struct.pack("<q", len(content)))
        digest.update(content)
    return digest.digest()


def _of_tensor(value: Tensor) -> bytes:
    value = value.detach()
    if value.is_meta:
        return _digest("tensor", value.dtype, tuple(value.shape))
    dense = value.to_dense() if value.layout != torch.strided else value
    plain = dense.resolve_conj().resolve_neg().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
    return _digest("tensor", value.dtype, tuple(value.shape), plain.view(torch.uint8).numpy().tobytes())


def _names(code: types.CodeType) -> set[str]:
    """Names that a function, or one within it, looks up."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _held(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # not filled yet
        return []


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether a module is of Python or of an installed package, which its version identifies."""
    found = sys.modules.get(module)
    if found is None or module in ("__main__", "teachkit") or module.startswith("teachkit."):
        return False
    file = getattr(found, "__file__", None)
    return file is None or file.startswith(_INSTALLED)


@functools.cache
def _version(module: str) -> str:
    top = module.partition(".")[0]
    return "" if top == "teachkit" else str(getattr(sys.modules.get(top), "__version__", ""))

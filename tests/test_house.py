"""The order of the house: nothing dangerous is called, modules are short, every public name is documented once.

Which module may import which: tests/test_imports.py.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path

import pytest

import teachkit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "teachkit"
NAMES = [
    "teachkit",
    *(m.name for m in pkgutil.walk_packages(teachkit.__path__, "teachkit.") if "__main__" not in m.name),
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def part(name: str) -> str:
    """The room a module is in: "plots" for ``teachkit.course.plots.figure``."""
    rooms = name.split(".")[1:]
    return rooms[1] if rooms[0] == "course" and len(rooms) > 1 else rooms[0]


# --- What may be called -----------------------------------------------------------------------------------------------

# Functions that run what a file or a string says; reading a stranger's file must never come to them.
FORBIDDEN = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "pickle._Unpickler",
        "dill.load",
        "dill.loads",
        "joblib.load",
        "marshal.loads",
    ),
    *("marshal.load", "shelve.open", "pandas.read_pickle", "torch.hub.load", "yaml.load", "yaml.unsafe_load"),
    *("tempfile.mktemp", "shutil.unpack_archive", "builtins.eval", "builtins.exec", "code.interact"),
}
# Running a student's cells is what a grader is for: in a process that can neither write, connect nor look around.
# The tests of the assignments run the answers that are written beside them.
# The reader of snapshots is made from Python's own, by taking out whatever calls something.
ALLOWED = {
    "teachkit/edm/pickle_machine.py": {"pickle._Unpickler"},
    "teachkit/course/assignments/engine.py": {"exec"},
    "tests/assignments/marking.py": {"exec"},
    "tools/flip_book.py": {"exec"},  # the cells of the lessons
}
SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("teachkit", "tools", "benchmarks", "tests", "notebooks", "docs", ".ci")
    for pattern in ("*.py", "*.ipynb")
    for path in (ROOT / folder).rglob(pattern)
    if not {".ipynb_checkpoints", "_data"} & set(path.parts)
)


def code_of(path: Path) -> list[str]:
    """The program, or the code cells of a notebook, lines for a shell as what IPython makes of them."""
    if path.suffix == ".py":
        return [path.read_text()]
    cells = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    shell = re.compile(r"(?m)^(\s*)(?:!|%%?(?:sx|sc|system|bash|sh|script)\b)(.*)$")
    cells = [shell.sub(lambda m: f"{m[1]}__import__('os').system({m[2]!r})", cell) for cell in cells]
    return [re.sub(r"(?m)^(\s*)%.*$", r"\1pass", cell) for cell in cells]


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """``np.random.rand`` as ``numpy.random.rand``, if ``np`` was imported so."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([names.get(node.id, node.id), *reversed(parts)]) if isinstance(node, ast.Name) else ""


def imported_names(tree: ast.AST) -> dict[str, str]:
    """What the names that a program imports stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dangers(source: str) -> set[str]:
    """What a program mentions of `FORBIDDEN`, and calls that are safe only with the right argument."""
    tree = ast.parse(source)
    names = imported_names(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
            found |= {dotted(node, names)} & FORBIDDEN
        if isinstance(node, ast.Call):
            given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else k for k in node.keywords}
            if dotted(node.func, names) == "torch.load" and given.get("weights_only") is not True:
                found.add("torch.load")
            found |= {name for name in ("shell", "allow_pickle") if given.get(name, False) is not False}
            unpacks = isinstance(node.func, ast.Attribute) and node.func.attr == "extractall"
            unpacks = unpacks and given.get("filter") != "data"  # which stays inside the folder
            if unpacks or given.get("verify") is False:
                found.add(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_dangerous_is_called(path):
    found = set().union(*map(dangers, code_of(ROOT / path)))
    assert found == ALLOWED.get(path.as_posix(), set())


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import pickle\npickle.loads(b'')", "pickle.loads"),
        ("from pickle import load as read\nf = read", "pickle.load"),
        ("import pickle as p\np.Unpickler", "pickle.Unpickler"),
        ("import torch\ntorch.load('a')", "torch.load"),
        ("import torch\ntorch.load('a', weights_only=False)", "torch.load"),
        ("import torch as t\nt.load('a', weights_only=flag)", "torch.load"),
        ("import numpy as np\nnp.load('a', allow_pickle=True)", "allow_pickle"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "shell"),
        ("eval('1')", "eval"),
        ("import os\nos.system('ls')", "os.system"),
        ("archive.extractall()", "archive.extractall"),
        ("requests.get('https://a', verify=False)", "requests.get"),
    ],
)
def test_the_scan_sees(program, found):
    assert dangers(program) == {found}


@pytest.mark.parametrize(
    "program",
    [
        "import torch\ntorch.load('a', weights_only=True)",
        "net.eval()\nimport pickle\npickle.dumps(1)",
        "import numpy as np\nnp.load('a')\nnp.load('a', allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "archive.extractall('a', filter='data')",
    ],
)
def test_the_scan_lets_pass(program):
    assert not dangers(program)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] in ("teachkit", "tools")], ids=str)
def test_nothing_is_fetched_in_the_clear(path):
    """No address of another machine without TLS; the names of XML's languages only look like addresses."""
    words = [n.value for n in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(n, ast.Constant)]
    addresses = [a for word in words if isinstance(word, str) for a in re.findall(r"http://([\w.-]+)", word)]
    assert set(addresses) <= {"127.0.0.1", "localhost", "www.w3.org"}


# --- Modules and their names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_modules_are_short(name):
    """About 350 lines: what one reads in a sitting."""
    assert len(FILES[name].read_text().splitlines()) <= 360


@pytest.mark.parametrize("name", FILES)
def test_modules_say_what_they_are(name):
    assert ast.get_docstring(ast.parse(FILES[name].read_text()))


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != Path(__file__).name], ids=str)
def test_nothing_is_left_to_do(path):
    assert not re.search(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b", "\n".join(code_of(ROOT / path)))


def public(name: str) -> dict[str, object]:
    """The public names of a module and what they are, modules left out."""
    module = importlib.import_module(name)
    offered = {each: getattr(module, each) for each in getattr(module, "__all__", ())}
    return {each: value for each, value in offered.items() if not inspect.ismodule(value)}


PUBLIC = {f"{name}.{each}": value for name in NAMES for each, value in public(name).items()}
# One entry for each function and class, under the shortest of its public names.
FUNCTIONS, CLASSES = (
    {
        name: value
        for name, value in sorted(PUBLIC.items(), key=lambda item: len(item[0]), reverse=True)
        if kind(value) and getattr(value, "__module__", "").startswith("teachkit")
    }
    for kind in (inspect.isfunction, inspect.isclass)
)
FUNCTIONS, CLASSES = ({value: name for name, value in each.items()} for each in (FUNCTIONS, CLASSES))


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(importlib.import_module(name), "__all__")])
def test_lists_of_names_are_in_order(name):
    listed = importlib.import_module(name).__all__
    assert len(set(listed)) == len(listed)
    assert sorted(listed) == sorted(listed, key=str)  # all strings
    assert all(hasattr(importlib.import_module(name), each) for each in listed)


# A module may offer the names of one beside it.
LENT = {
    "teachkit.sampling": ("teachkit.noise", "teachkit.trajectory"),
    "teachkit.evaluation": ("teachkit.fingerprints", "teachkit.launcher"),
}


def test_a_name_is_public_in_one_place():
    """Where it is defined, and in the packages around that module; nowhere else."""
    for name in NAMES:
        for each, value in public(name).items():
            home = getattr(value, "__module__", name)
            if callable(value) and home.startswith("teachkit"):
                inside = home == name or home.startswith((f"{name}.", *LENT.get(name, ())))
                assert inside, f"{name}.__all__ offers {each}, which is public in {home}"


def below(cls: type) -> set[type]:
    return {cls}.union(*map(below, cls.__subclasses__()))


def test_no_solver_that_can_be_made_is_the_base_of_another():
    ours = {cls for cls in below(teachkit.solvers.Solver) if cls.__module__.startswith("teachkit")}
    final = {cls for cls in ours if not inspect.isabstract(cls)}
    assert set(teachkit.solvers.REGISTRY.values()) <= final
    for cls in final:
        assert not final & set(cls.__mro__[1:]), f"{cls.__name__} inherits from a solver that can be made"


@pytest.mark.parametrize("value", [*FUNCTIONS, *CLASSES], ids=lambda v: {**FUNCTIONS, **CLASSES}[v])
def test_public_names_are_documented(value):
    assert value.__dict__.get("__doc__") or (inspect.isfunction(value) and value.__doc__)
    assert not value.__doc__.startswith(f"{value.__name__}(")  # what a dataclass writes by itself


@functools.cache
def sections(value: object) -> dict[str, list[str]]:
    """The numpydoc sections of a docstring and their lines."""
    found: dict[str, list[str]] = {}
    lines = (inspect.getdoc(value) or "").splitlines()
    current = None
    for line, below in zip(lines, [*lines[1:], ""]):
        if line.strip() and re.fullmatch(r"-{3,}", below.strip()):
            current = found.setdefault(line.strip(), [])
        elif current is not None and not re.fullmatch(r"-{3,}", line.strip()):
            current.append(line)
    return found


def entries(lines: list[str]) -> list[str]:
    """The names of a section: ``a, b : int`` are two."""
    heads = [line.partition(" :")[0] for line in lines if line.strip() and not line.startswith(" ")]
    return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


def parameters(value: object) -> list[str]:
    return [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize("value", [*FUNCTIONS, *CLASSES], ids=lambda v: {**FUNCTIONS, **CLASSES}[v])
def test_documented_parameters_are_those_of_the_signature(value):
    described = sections(value).get("Parameters")
    if described is not None:
        assert sorted(entries(described)) == sorted(parameters(value))


# What a reader is meant to call: all of the library, and what the packages for instructors offer as a whole, where a
# sentence is enough for one or two arguments. What plots and widgets return is their picture: that needs no section.
TOOLS = ("assignments", "claims", "evaluation", "cli")
CALLED = [
    value
    for value, name in FUNCTIONS.items()
    if part(name) not in TOOLS or (name.count(".") == 2 and len(parameters(value)) > 2)
]


@pytest.mark.parametrize("value", CALLED, ids=FUNCTIONS.get)
def test_functions_say_what_they_take_and_give(value):
    if parameters(value):
        assert "Parameters" in sections(value)
        if inspect.signature(value).return_annotation not in ("None", "Picture", "Explorer"):
            assert {"Returns", "Yields"} & set(sections(value))


def test_what_holds_tensors_says_when_two_are_equal():
    # A dataclass or a named tuple compares field by field, and tensors answer with a tensor, which has no truth.
    looked_at = []
    for name in NAMES:
        for kind in vars(importlib.import_module(name)).values():
            if not isinstance(kind, type) or kind.__module__ != name:
                continue
            record = dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
            if record and any("Tensor" in str(t) for t in vars(kind).get("__annotations__", {}).values()):
                looked_at.append(kind.__name__)
                file = inspect.getsourcefile(vars(kind)["__eq__"]) if "__eq__" in vars(kind) else None
                by_hand = file is not None and Path(file).is_relative_to(PACKAGE)
                assert by_hand or kind.__eq__ is object.__eq__, f"{kind} compares tensors as truths"
    assert {"Trajectory", "Dataset", "Coefficients", "Method", "Schedule"} <= set(looked_at)

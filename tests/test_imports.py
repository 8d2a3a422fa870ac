"""Imports point one way and take only what is declared; `import teachkit` brings numbers and nothing else."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# --- One way ----------------------------------------------------------------------------------------------------------


def rules(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the rules in ``folder/pyproject.toml``."""
    pytest.importorskip("importlinter", reason="the rules need the extra test: pip install -e '.[test]'")
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run([sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True)


def test_imports_point_one_way():
    done = rules(ROOT)
    assert done.returncode == 0, done.stdout


# What would be wrong: an import, and the rule that finds it.
WRONG = {
    "the library imports the course": ("meanshift", "from teachkit.course import claims", "library -> course"),
    "in a function too": ("data/toys", "def late():\n    from teachkit import geometry", "library -> course"),
    "geometry imports what is above": ("geometry/paths", "from teachkit import scheduling", "library -> course"),
    "by way of the package": ("schedules", "from teachkit import sample", "library -> course"),
    "the course imports the command line": ("course/plots/figure", "import teachkit.cli", "library -> course"),
    "claims import widgets": ("course/claims/registry", "import teachkit.course.widgets", "inside the course"),
    "a circle": ("solvers/base", "from teachkit.solvers import multistep", "no circles"),
    "a picture in the library": ("edm/loss", "def draw():\n    import matplotlib.figure", "the library is numbers"),
    "a command in the course": ("course/claims/registry", "import typer", "only the command line"),
    "a room without a place": ("extra_room", '"""New."""', "library -> course"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_import_that_points_the_wrong_way_is_found(name, tmp_path):
    module, line, rule = WRONG[name]
    shutil.copytree(ROOT / "teachkit", tmp_path / "teachkit", ignore=shutil.ignore_patterns("__pycache__", "_data"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "teachkit" / f"{module}.py").open("a") as file:
        file.write(f"\n{line}\n")
    done = rules(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = "".join(line for line in done.stdout.splitlines(keepends=True) if "BROKEN" in line)
    assert rule in broken, done.stdout


# --- Only what is declared --------------------------------------------------------------------------------------------

# Where the name to import is not the name to install.
IMPORTED_AS = {"pillow": "PIL", "ipython": "IPython", "pyyaml": "yaml", "import-linter": "importlinter"}
IMPORTED_AS |= {"scikit-learn": "sklearn", "scikit-image": "skimage"}
COMMANDS = {"build", "check_jsonschema", "furo", "hatchling", "mypy", "nbval", "ruff", "xdist"}  # run, not imported


def declared(*extras: str) -> set[str]:
    """The packages that an installation with these extras may import."""
    lines = [*PROJECT["dependencies"], *(line for e in extras for line in PROJECT["optional-dependencies"][e])]
    found = set()
    for requirement in map(Requirement, lines):
        if requirement.name == "teachkit":
            found |= declared(*requirement.extras)
        else:
            found.add(IMPORTED_AS.get(requirement.name, requirement.name.replace("-", "_")))
    return found


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """The packages that a program imports, and whether it does so at once: not in a function, not for types alone."""
    tree = ast.parse(source)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], id(node) not in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0], id(node) not in late
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "installed":  # checks.installed
            yield ast.literal_eval(node.args[0]).partition(".")[0], id(node) not in late


def foreign(*patterns: str, late: bool = True) -> dict[str, set[str]]:
    """Packages of others that the files import, and where."""
    own = {path.stem for folder in ("tools", "tests", "benchmarks") for path in (ROOT / folder).glob("*.py")}
    own |= {"teachkit", "benchmarks", "tests", "a_peer_of_ours", "__future__", *sys.stdlib_module_names}
    found: dict[str, set[str]] = {}
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        programs = [path.read_text()]
        if path.suffix == ".ipynb":
            cells = (c for c in json.loads(programs[0])["cells"] if c["cell_type"] == "code")
            programs = [re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", "".join(cell["source"])) for cell in cells]
        for package, early in (each for program in programs for each in imports(program)):
            if package not in own and (early or late):
                found.setdefault(package, set()).add(path.relative_to(ROOT).as_posix())
    return found


LIBRARY = ["teachkit/*.py", "teachkit/[abd-z]*/**/*.py"]
NUMBERS = {"torch", "numpy", "tqdm", "safetensors"}
WINGS = {
    "library": (LIBRARY, declared("course", "fid")),  # in functions, which say what to install
    "course": (["teachkit/course/**/*.py"], declared("course")),
    "command line": (["teachkit/cli/*.py"], declared("lab")),
    "lessons": (["notebooks/**/*.ipynb"], declared("lab")),
    "site": (["docs/conf.py", "tools/build_site.py"], declared("docs")),
    "tools": (["tools/*.py"], declared("test", "sources", "peers", "fid")),
    "tests": (["tests/**/*.py", "conftest.py"], declared("test", "sources", "peers", "fid", "nbgrader")),
    "benchmarks": (["benchmarks/*.py"], {*declared("test", "peers"), "k_diffusion"}),
}


def test_the_wings_are_the_whole_house():
    seen = {path for patterns, _ in WINGS.values() for pattern in patterns for path in ROOT.glob(pattern)}
    assert set((ROOT / "teachkit").rglob("*.py")) <= seen


@pytest.mark.parametrize("wing", WINGS)
def test_what_is_imported_is_declared(wing):
    patterns, allowed = WINGS[wing]
    found = foreign(*patterns)
    assert found
    assert not {package: sorted(where) for package, where in found.items() if package not in allowed}


def test_the_library_is_imported_with_four_packages_and_the_command_line_with_what_everyone_has():
    assert set(foreign(*LIBRARY, late=False)) == NUMBERS
    assert set(foreign("teachkit/cli/*.py", late=False)) <= declared()


def test_what_everyone_must_install_is_used():
    library, course = foreign("teachkit/**/*.py"), foreign("teachkit/course/**/*.py", *LIBRARY)
    assert declared() <= set(library)
    assert declared("course") - declared() <= set(course)


@pytest.mark.slow
def test_importing_teachkit_brings_numbers_and_nothing_else():
    code = (
        "import sys, torch; before = {m.partition('.')[0] for m in sys.modules}; import teachkit;"
        "print(*({m.partition('.')[0] for m in sys.modules} - before - sys.stdlib_module_names))"
    )
    added = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(added) <= {"teachkit", "numpy", "safetensors", "tqdm"}


@pytest.mark.parametrize(("own", "kept"), [(None, "1000"), ("77", "77")])
def test_threads_that_wait_give_way_unless_one_says_otherwise(own, kept):
    rest = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    code = "import teachkit, os; print(os.environ['GOMP_SPINCOUNT'])"
    given = rest if own is None else rest | {"GOMP_SPINCOUNT": own}
    said = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == kept


@pytest.mark.slow
def test_rooms_are_opened_when_they_are_first_asked_for():
    code = (
        "import sys, teachkit; loaded = lambda: {m for m in sys.modules if m.startswith('teachkit.')};"
        "print(sorted({'teachkit.edm', 'teachkit.scheduling', 'teachkit.metrics'} & loaded()));"
        "print(set(teachkit.__all__) <= set(dir(teachkit)), all(hasattr(teachkit, name) for name in teachkit.__all__));"
        "from teachkit import *; print(edm.__name__, teachkit.edm is edm, hasattr(teachkit, 'nowhere'))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["[]", "True True", "teachkit.edm True False"]


@pytest.mark.slow
def test_a_plain_installation_samples_and_has_its_command_line():
    extras = declared("course", "lab") - declared()
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(extras)}));"
        "from teachkit import data, edm, initial_noise, sample, schedules;"
        "D = edm.load('edm-digits8'); x = initial_noise(2, (1, 8, 8), seed=0);"
        "print(sample(D, x, schedules.polynomial(3), progress=True).final.shape, len(data.load('emoji32').labels) > 0);"
        "sys.argv = ['teachkit', '--help']; from teachkit.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 1, 8, 8]) True" in done.stdout
    assert "schedule" in done.stdout

"""How many small mistakes in the code the tests find: each is put in alone, and the module's quick tests are run.

    python tools/mutate.py scheduling --sample 100

A mistake that no test finds is printed; it is equivalent to the code (a bound that is never met, a tie), or a test is
missing. Nothing is written: a child process imports the changed source in place of the file.
"""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import linecache
import os
import random
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.assignments.mutants import mutants  # noqa: E402

SCHEDULING = ("conditions", "learn", "amed", "tangents", "equal_work", "stand_in")
TESTS = {  # in the order in which they are run: what finds most first
    "solvers": ["test_solvers.py", "test_sampling.py", "test_solvers_taylor.py", "test_solvers_oracles.py"],
    "geometry": ["test_geometry.py"],
    "scheduling": [
        "test_scheduling.py",
        *(f"test_scheduling_{each}.py" for each in SCHEDULING),
        "fuzz/test_learned.py",
        "fuzz/test_files.py",
    ],
    "adapters": [
        "test_adapters.py",
        *(f"test_adapters_{each}.py" for each in ("pipelines", "diffusers", "k_diffusion")),
    ],
}
FUZZ = ["tests/fuzz/test_core.py", "tests/fuzz/test_paths.py"]  # wrong arguments: those of the part alone
SECONDS = 240  # a mistake that makes the tests take longer is found


def import_changed(path: Path, source: str) -> None:
    """From now on, importing the module at ``path`` compiles ``source``, and a traceback shows its lines."""
    linecache.cache[str(path)] = (len(source), None, source.splitlines(keepends=True), str(path))
    loader = importlib.machinery.SourceFileLoader
    get_code = loader.get_code

    def changed(self, fullname):
        own = Path(self.get_filename(fullname)) == path
        return compile(source, str(path), "exec") if own else get_code(self, fullname)

    loader.get_code = changed


def is_found(part: str, path: Path, source: str) -> bool:
    """Run the tests in a child of this process, which has imported what takes long; whether one failed."""
    child = os.fork()
    if child == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        signal.alarm(SECONDS)
        import_changed(path, source)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
        files = [f"tests/{name}" for name in TESTS[part]]
        os._exit(pytest.main([*options, *files, *FUZZ, "-k", f"not (test_core or test_paths) or {part}"]))
    return os.waitpid(child, 0)[1] != 0


def prepare() -> None:
    """What every child needs and no mistake is in; one thread each."""
    import hypothesis  # noqa: F401
    import scipy.integrate  # noqa: F401
    import torch

    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(TESTS), help=f"of {', '.join(TESTS)}; all by default")
    parser.add_argument("--sample", type=int, default=100, help="mistakes tried in each part (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(TESTS):
        parser.error(f"parts must be of {sorted(TESTS)}, got {sorted(unknown)}")

    os.chdir(ROOT)
    jobs, unchanged = [], []
    for part in given.parts:
        files = sorted((ROOT / "teachkit" / part).glob("*.py"))
        every = [(part, path, source, what) for path in files for what, source in mutants(path.read_text())]
        jobs += random.Random(given.seed).sample(every, min(given.sample, len(every)))
        unchanged += [(part, path, ast.unparse(ast.parse(path.read_text()))) for path in files]
    found: dict[str, list[bool]] = {part: [] for part in given.parts}
    with ProcessPoolExecutor(initializer=prepare) as pool:
        for (part, path, _), failed in zip(unchanged, pool.map(is_found, *zip(*unchanged))):
            if failed:
                sys.exit(f"the tests of {part} fail without any mistake in {path.name}")
        results = pool.map(is_found, *list(zip(*jobs))[:3])
        for (part, path, _, what), it_is in tqdm(zip(jobs, results), total=len(jobs), file=sys.stderr):
            found[part].append(it_is)
            if not it_is:
                print(f"not found: {path.relative_to(ROOT)}, {what}", flush=True)
    for part, its in found.items():
        print(f"{part}: {sum(its)} of {len(its)} found ({100 * sum(its) / len(its):.0f} %)")


if __name__ == "__main__":
    main()

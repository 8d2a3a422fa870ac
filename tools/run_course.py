"""Run the lessons without a browser: ``python tools/run_course.py [--in-place] [--out DIR] [notebook ...]``.

Each notebook in ``notebooks/`` (or only those named, by path, name or number) runs from top to bottom in a fresh
kernel. A line of progress is printed for each, then what its cells tagged ``claim`` measured. The executed copies and
their pictures are left in ``build/course/``, or in the folder that ``--out`` names (a checkout may be read-only). A
lesson that fails does not stop the others; the exit code tells.

``--in-place`` also stores the outputs in the notebooks themselves, without what would change from run to run (times,
version numbers, messages on stderr), so that running it twice changes nothing.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
import time
import traceback
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

sys.path.insert(0, str(Path(__file__).parent))  # also where another program imports this file
from folding import fold

from teachkit.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ROOT / "notebooks"
OUT = ROOT / "build" / "course"
EXPECTED_SECONDS = 90
TIMEOUT = 600  # for one cell


def find(names: list[str]) -> list[Path]:
    """The lessons ``NN_*.ipynb`` in reading order, or those that ``names`` (path, file name, stem or number) select."""
    lessons = sorted(LESSONS.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return lessons
    chosen = []
    for name in names:
        match = [p for p in lessons if name in (p.name, p.stem, p.stem[:2])] or [
            p for p in [Path(name)] if p.suffix == ".ipynb" and p.is_file()
        ]
        if not match:
            have = ", ".join(p.stem for p in lessons) or "none"
            raise SystemExit(f"no notebook called {name!r}; the lessons are: {have}")
        chosen += match
    return chosen


def execute(path: Path) -> tuple[nbformat.NotebookNode, str | None]:
    """Run a notebook; return it with its outputs, and the error that stopped it, if one did."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # no start-up warnings between the lines of progress
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        return notebook, f"{error.ename}: {error.evalue}"
    except Exception as error:  # a dead kernel or a timeout: report it, go on with the next lesson
        return notebook, traceback.format_exception_only(error)[-1].strip()
    return notebook, None


def normalise(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Drop what changes from run to run, give cells deterministic ids, fold those that only draw; works in place."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: set[str] = set()
    for index, cell in enumerate(notebook.cells):
        if not cell.get("id") or cell["id"] in seen:
            cell["id"] = cell_id(name, index)
        seen.add(cell["id"])
        for key in ("execution", "collapsed", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                if "text/html" in output.get("data", {}):  # stored, a widget shows what it is without a kernel
                    output.data.pop("application/vnd.jupyter.widget-view+json", None)
    fold(notebook)
    return notebook


def cell_id(name: str, index: int) -> str:
    """An id that depends only on the notebook's name and the position at which the cell was first written."""
    return hashlib.sha256(f"{name}/{index}".encode()).hexdigest()[:12]


def claims(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells tagged ``claim`` printed."""
    lines: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "claim" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                text = output.get("text") if output.output_type == "stream" else None
                if output.output_type == "execute_result":
                    text = output.data.get("text/plain")
                lines += [line for line in (text or "").splitlines() if line.strip()]
    return lines


def save_pictures(notebook: nbformat.NotebookNode, folder: Path, stem: str) -> int:
    """Write every PNG output to ``folder`` as ``stem-NN.png``; return how many there were."""
    pictures = [
        output.data["image/png"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    for old in folder.glob(f"{stem}-[0-9][0-9].png"):
        old.unlink()
    for number, data in enumerate(pictures, 1):
        (folder / f"{stem}-{number:02}.png").write_bytes(base64.b64decode(data))
    return len(pictures)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write beside, then rename: an interrupted run never leaves half a notebook."""
    write_whole(path, lambda beside: nbformat.write(notebook, beside))


def run(path: Path, in_place: bool = False, out: Path | None = None) -> bool:
    """Execute one notebook, report on it, keep its results; True if nothing failed."""
    print(f"{path.stem:<40}", end=" ", flush=True)
    start = time.perf_counter()
    notebook, error = execute(path)
    seconds = time.perf_counter() - start
    noisy = [
        str(cell.execution_count)
        for cell in notebook.cells
        if cell.cell_type == "code" and any(o.get("name") == "stderr" for o in cell.outputs)
    ]
    normalise(notebook, path.stem)
    out = out or OUT
    out.mkdir(parents=True, exist_ok=True)
    write(notebook, out / path.name)
    count = save_pictures(notebook, out, path.stem)
    slow = f", expected within {EXPECTED_SECONDS} s" if seconds > EXPECTED_SECONDS else ""
    print(f"{'FAILED' if error else 'ok':<6} {seconds:5.1f} s, {count} pictures{slow}", flush=True)
    if error:
        print(f"    {error}")
    if noisy:
        print(f"    wrote to stderr, which is not stored: cell {', '.join(noisy)}")
    for line in claims(notebook):
        print(f"    {line}")
    if in_place and not error:
        write(notebook, path)
    return error is None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the lessons without a browser.")
    parser.add_argument("notebooks", nargs="*", help="path, name or number of a lesson; all lessons if left out")
    parser.add_argument("--in-place", action="store_true", help="store the outputs in the notebooks themselves")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the results; build/course if left out")
    options = parser.parse_args(arguments)
    paths = find(options.notebooks)
    if not paths:
        print(f"no lessons in {LESSONS}", file=sys.stderr)
        return 1
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"cannot write to {options.out} ({error.strerror}): name another folder with --out", file=sys.stderr)
        return 1
    start = time.perf_counter()
    failed = [path.stem for path in paths if not run(path, options.in_place, options.out)]
    seconds = time.perf_counter() - start
    print(f"{len(paths) - len(failed)} of {len(paths)} lessons ran in {seconds:.0f} s; see {options.out}")
    if failed:
        print("failed: " + ", ".join(failed))
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())

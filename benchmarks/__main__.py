"""Run every benchmark, or the named ones, and write what they measured: ``python -m benchmarks sampling``."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Benchmarks

`make bench` runs them all and writes this file; `python -m benchmarks sampling` runs one and replaces its section.
Each compares with its peer in one run and one process, in turns: what else the machine does changes both. Each section
says under which load it was measured; `growth` has how the time of each area grows with the size of its problem.
"""


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table; columns in the order of the first row."""
    columns = list(rows[0])
    ruler = ["---" if isinstance(rows[0][c], str) else "---:" for c in columns]
    body = [[str(row[c]) for c in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, ruler, *body))


def machine() -> str:
    """Processor, cores, memory and what else was running."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        cpu = found[1].strip() if found else cpu
    parts = [f"{os.cpu_count()} cores of {cpu}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    if hasattr(os, "getloadavg"):
        parts.append(f"load average {os.getloadavg()[0]:.1f} at the start")
    return ", ".join(parts)


def versions(packages: Sequence[str]) -> str:
    """Python and the installed versions of ``packages``."""
    out = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            out.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            out.append(f"{package} of unknown version")
    return ", ".join(out)


def section(module: ModuleType) -> str:
    """Run a benchmark; its text, its table, and where it was measured."""
    where = machine()
    rows = module.run()
    measured = f"Measured on {where}; {versions(('torch', *module.PEERS))}."
    return f"{module.ABOUT.strip()}\n\n{table(rows)}\n\n{measured}"


def write(new: Mapping[str, str], path: Path = RESULTS) -> None:
    """Replace or add sections of the file of results; the others stay as they are."""
    old = path.read_text() if path.exists() else ""
    found = re.split(r"^## (\w+)\n", old, flags=re.M)[1:]
    sections = dict(zip(found[::2], (text.strip() for text in found[1::2]))) | dict(new)
    text = HEAD + "".join(f"\n## {name}\n\n{sections[name]}\n" for name in sorted(sections))
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def main(names: Sequence[str]) -> None:
    """Run ``bench_NAME.run()`` for each name (default: every one beside this file), print and write the tables."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(unknown)}; known: {', '.join(known)}")
    for name in names or known:
        try:
            text = section(importlib.import_module(f"benchmarks.bench_{name}"))
        except ImportError as error:
            print(f"\n## {name}\n\nskipped: {error}", flush=True)
            continue
        print(f"\n## {name}\n\n{text}", flush=True)
        write({name: text})


if __name__ == "__main__":
    main(sys.argv[1:])

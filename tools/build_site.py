"""Build the course as a static site: ``python tools/build_site.py [OUT]``, by default ``build/html``.

The README becomes the first page, the lessons and the documents follow, at the paths they have in the repository, so
that their links hold, then a page for every room of the package (tools/api_pages.py), to which names in backticks
lead. Solutions are folded. Nothing is run and nothing is downloaded: outputs are those stored in the
notebooks, formulas are MathML. Any warning is an error.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import api_pages

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "docs/SYMBOLS.md",
    "docs/ARCHITECTURE.md",
    "docs/WRITE_A_SOLVER.md",
    "docs/SCHEDULES.md",
    "docs/SCALE.md",
    "docs/GPU.md",
    "docs/COLD_START.md",
    "docs/LITERATURE.md",
    "docs/CONCEPT_TEST.md",
    "benchmarks/RESULTS.md",
    "data/README.md",
    "data/licences/README.md",
    "CHANGELOG.md",
)
DOCUMENTS += ("CONTRIBUTING.md", "INSTRUCTORS.md", "SECURITY.md")
FILES = (
    "docs/five.png",
    "docs/boomerang.png",
    "docs/ode.png",
    "docs/ode_still.png",
    "docs/architecture.svg",
    "LICENSE",
    "CITATION.cff",
    "data/licences/Apache-2.0.txt",
)
FILES += tuple(f"data/sheets/{name}.png" for name in ("emoji32", "photos32", "spectrum"))


def stage(source: Path) -> None:
    """Lay out what the site is made of under ``source``."""
    lessons = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    documents = [name for name in DOCUMENTS if (ROOT / name).is_file()]
    for name in (*documents, *FILES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / "notebooks").mkdir()
    (source / "api").mkdir()
    entries, links = api_pages.public()
    (source / "api" / "links.json").write_text(json.dumps(links))
    reference = api_pages.pages(entries)
    for name, page in reference.items():
        (source / "api" / f"{name}.rst").write_text(page)
    for lesson in lessons:
        notebook = ending(folded(json.loads(lesson.read_text())), links)
        (source / "notebooks" / lesson.name).write_text(json.dumps(notebook))
    pages = {
        "Lessons": [f"notebooks/{p.stem}" for p in lessons],
        "Library": [f"api/{name}" for name in reference],
        "More": [name.removesuffix(".md") for name in documents],
    }
    trees = "".join(contents(caption, names) for caption, names in pages.items())
    (source / "index.md").write_text(linked((ROOT / "README.md").read_text()) + trees)


def contents(caption: str, names: list[str]) -> str:
    """A table of contents for the side bar."""
    listed = "\n".join(names)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def linked(text: str) -> str:
    """What is no page of the site is offered as a file."""
    return re.sub(r"\]\((LICENSE|CITATION\.cff)\)", r"](<path:\1>)", text)


def folded(notebook: dict) -> dict:
    """A lesson whose hidden cells, the solutions, can be opened by the reader."""
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append("hide-input")
    return notebook


def ending(notebook: dict, links: dict[str, str]) -> dict:
    """A lesson that ends with what it used of the library; docs/conf.py makes links of the names."""
    programs = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = api_pages.used([re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", each) for each in programs], links)
    text = f"## In the library\n\nWhat this lesson used: {', '.join(f'`{name}`' for name in names)}."
    notebook["cells"].append({"cell_type": "markdown", "id": "in-the-library", "metadata": {}, "source": text})
    return notebook


def build(out: Path) -> None:
    """Stage and build, from nothing, so that no page of an earlier build is left."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        stage(source)
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
        subprocess.run(
            [*command, "-c", ROOT / "docs", "-d", f"{scratch}/doctrees", source, Path(scratch) / "html"], check=True
        )
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(scratch) / "html", out)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "html"
    build(target)
    print(target / "index.html")

"""Build the course as a static site: ``python tools/build_site.py [OUT]``, by default ``build/html``.

The README becomes the first page, the lessons and the documents follow, at the paths they have in the repository, so
that their links hold, then a page for every room of the package (tools/api_pages.py), to which names in backticks
lead. Solutions are folded. Outputs are those stored in the notebooks, formulas are MathML; only the explorers are
drawn anew, so that they move without Python (tools/flip_book.py, some minutes), in the lessons that ``--moving``
names, or in all. Nothing is downloaded. Any warning is an error.

``--repository https://github.com/OWNER/NAME/tree/BRANCH`` adds to every lesson a link that opens it in a hosted
notebook; so does ``Repository`` under ``[project.urls]`` in pyproject.toml.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import api_pages
import hosted

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
    "docs/FIRST_LECTURE.md",
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


HOSTED = "https://colab.research.google.com/github/{place}/notebooks/{name}"


def stage(source: Path, books: dict[str, Any], repository: str | None) -> None:
    """Lay out what the site is made of under ``source``."""
    lessons = every_lesson()
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
        notebook = moving(folded(json.loads(lesson.read_text())), lesson.stem, books.get(lesson.stem, {}))
        notebook["cells"].insert(1, text_cell("to-take-away", take_away(lesson.name, repository)))
        (source / "notebooks" / lesson.name).write_text(json.dumps(ending(notebook, links)))
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
    """A lesson whose hidden cells, the solutions, can be opened by the reader; one that installs is not shown."""
    for cell in notebook["cells"]:
        if hosted.TAG in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("remove-cell")
        elif cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append("hide-input")
    return notebook


def ending(notebook: dict, links: dict[str, str]) -> dict:
    """A lesson that ends with what it used of the library; docs/conf.py makes links of the names."""
    programs = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = api_pages.used([re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", each) for each in programs], links)
    text = f"## In the library\n\nWhat this lesson used: {', '.join(f'`{name}`' for name in names)}."
    notebook["cells"].append(text_cell("in-the-library", text))
    return notebook


def text_cell(name: str, source: str) -> dict:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def take_away(name: str, repository: str | None) -> str:
    """The lesson as a notebook, on paper and, where the repository is known, in a hosted notebook."""
    links = [f'<a href="{name}" download>Download this notebook</a>', '<button type="button" hidden>Print</button>']
    if repository:
        place = repository.removeprefix("https://github.com/").strip("/").replace("/tree/", "/blob/")
        place += "" if "/blob/" in place else "/blob/main"
        links.append(f'<a href="{HOSTED.format(place=place, name=name)}">Open in a hosted notebook</a>')
    return f'<p class="take-away">{" · ".join(links)}</p>'


# ---- explorers


def draw(lessons: list[Path], frames: Path) -> dict[str, Any]:
    """Draw the explorers of lessons, each lesson in a process of its own; what is in their flip books, by lesson."""
    frames.mkdir()

    def drawn(lesson: Path) -> Any:
        command = [sys.executable, ROOT / "tools" / "flip_book.py", lesson, frames]
        subprocess.run(command, check=True, cwd=lesson.parent, env={"OMP_NUM_THREADS": "1"} | os.environ)
        said = frames / f"{lesson.stem}.json"
        books = json.loads(said.read_text())
        said.unlink()
        return books

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip([lesson.stem for lesson in lessons], pool.map(drawn, lessons)))


def moving(notebook: dict, stem: str, books: dict[str, Any]) -> dict:
    """A lesson in which flip books stand for its explorers."""
    for place, book in books.items():
        shown = {"text/html": figure(book, f"frames/{stem}-{place}")}
        output = {"output_type": "display_data", "metadata": {}, "data": shown}
        notebook["cells"][int(place)]["outputs"] = [output]
    return notebook


def figure(book: dict[str, Any], folder: str) -> str:
    """A flip book as HTML: its first picture, which stands without a script, and what docs/static/site.js needs."""
    controls, first, (width, height) = book["controls"], 0, book["size"]
    for control in controls:
        first = first * len(control["names"]) + control["at"]
    alt, caption = (html.escape(book["frames"][first][key]) for key in ("alt", "caption"))
    more = f" In the notebook it also has: {', '.join(book['others'])}." if book["others"] else ""
    written = json.dumps(book).replace("</", "<\\/")
    return (
        f'<figure class="flip-book"><div class="turns" hidden>{"".join(map(turn, controls))}'
        f'<button type="button">play</button></div><img src="{folder}/{book["frames"][first]["file"]}" alt="{alt}" '
        f'width="{width}" height="{height}" loading="lazy"><figcaption aria-live="polite">{caption}</figcaption>'
        f"<p>{len(book['frames'])} pictures drawn beforehand.{html.escape(more)}</p>"
        f'<script type="application/json">{written}</script></figure>'
    )


def turn(control: dict[str, Any]) -> str:
    """A slider or a list, with its label."""
    label, names, at = html.escape(control["label"]), [html.escape(name) for name in control["names"]], control["at"]
    if control["list"]:
        options = "".join(f"<option value={k}{' selected' * (k == at)}>{name}" for k, name in enumerate(names))
        return f'<label>{label} <select autocomplete="off">{options}</select></label>'
    return (
        f'<label>{label} <input type="range" max="{len(names) - 1}" value="{at}" aria-valuetext="{names[at]}" '
        f'autocomplete="off"> <output>{names[at]}</output></label>'
    )


# ---- the whole


def every_lesson() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def build(out: Path, moving: list[str] | None = None, repository: str | None = None) -> None:
    """Draw, stage and build, from nothing, so that no page of an earlier build is left."""
    lessons = [path for path in every_lesson() if moving is None or path.stem[:2] in moving]
    with tempfile.TemporaryDirectory() as scratch:
        source, frames = Path(scratch) / "source", Path(scratch) / "frames"
        source.mkdir()
        stage(source, draw(lessons, frames), repository)
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
        subprocess.run(
            [*command, "-c", ROOT / "docs", "-d", f"{scratch}/doctrees", source, Path(scratch) / "html"], check=True
        )
        for lesson in every_lesson():
            shutil.copy(lesson, Path(scratch) / "html" / "notebooks")
        shutil.move(frames, Path(scratch) / "html" / "notebooks")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(scratch) / "html", out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "build" / "html")
    parser.add_argument("--moving", nargs="*", metavar="NN", help="only the explorers of these lessons; none if empty")
    parser.add_argument(
        "--repository", default=hosted.repository(), help="its address on github.com, for links to a hosted notebook"
    )
    options = parser.parse_args()
    build(options.out, options.moving, options.repository)
    print(options.out / "index.html")

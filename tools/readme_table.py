"""Write the table of lessons into README.md from the titles and promises of the notebooks."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- lessons -->", "<!-- /lessons -->"


def rows() -> list[str]:
    """One table row for each lesson: number, linked title, promise."""
    out = []
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        text = nbformat.read(path, as_version=4).cells[0].source
        title = re.match(r"# (\d\d) · (.+)", text)
        promise = re.search(r"^\*(?!\*)(.+?)\*$", text, re.M)
        if not title or not promise:
            raise ValueError(f"{path.name} must begin with '# NN · Title' and a promise in italics")
        out.append(f"| {title[1]} | [{title[2]}](notebooks/{path.name}) | {promise[1]} |")
    return out


def render(text: str) -> str:
    """README with its table of lessons made anew."""
    head, rest = text.split(START)
    tail = rest.split(END)[1] if END in rest else rest
    table = ["| | lesson | what it shows |", "|---|---|---|", *rows()]
    return f"{head}{START}\n\n" + "\n".join(table) + f"\n\n{END}{tail}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))

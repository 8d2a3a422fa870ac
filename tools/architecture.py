"""Draw the house: ``python tools/architecture.py`` writes docs/architecture.svg and the table in docs/ARCHITECTURE.md.

Nothing is said twice: the wings and what lies at the bottom are those of the import rules in pyproject.toml, the
arrows are the imports that grimp finds in the code, what a room is for is the first line of its docstring, and its
lines are counted, to the nearest hundred. An arrow that follows from others is left out.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import grimp
from renumber import between

ROOT = Path(__file__).resolve().parents[1]
PICTURE, PAGE = ROOT / "docs" / "architecture.svg", ROOT / "docs" / "ARCHITECTURE.md"
WIDTH, ROW, BOX, GAP, HEIGHT, LANE, MARGIN = 1080, 78, 118, 34, 42, 30, 18
WINGS = {"cli": "command line", "course": "course", "library": "library"}  # from the top
STYLE = """
  text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; text-anchor: middle; fill: #1b1f24; }
  .name { font-size: 15px; font-weight: 600; } .lines { font-size: 11px; }
  .wing { font-size: 14px; text-anchor: start; }
  .page { fill: #ffffff; } .room { fill: #ffffff; stroke: #57606a; } .arrow { fill: none; stroke: #57606a; }
  .head { fill: #57606a; } .cli { fill: #fff1d6; } .course { fill: #dff3e8; } .library { fill: #dfecfa; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .page { fill: #0d1117; } .room { fill: #161b22; stroke: #9aa4b0; } .head { fill: #9aa4b0; }
    .arrow { stroke: #9aa4b0; } .cli { fill: #3b2e12; } .course { fill: #12352a; } .library { fill: #14294a; }
  }
"""


def room(module: str) -> str:
    """The room a module is in: ``course.plots`` for ``teachkit.course.plots.figure``; "" for the packages around."""
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[:1] == ["course"] else 1]) if parts not in ([], ["course"]) else ""


def wing(name: str) -> str:
    """What a room belongs to."""
    first = name.partition(".")[0]
    return first if first in WINGS else "library"


def base() -> set[str]:
    """What every room may use: the last two lines of the import rules."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return set(re.findall(r"\w+", " ".join(contracts[0]["layers"][-2:])))


def needed() -> dict[str, set[str]]:
    """Room -> the rooms it imports, without those that another of them imports already."""
    graph = grimp.build_graph("teachkit", exclude_type_checking_imports=True, cache_dir=None)
    direct: dict[str, set[str]] = {}
    for module in sorted(graph.modules):
        if room(module) not in ("", "__main__"):
            targets = {room(target) for target in graph.find_modules_directly_imported_by(module)}
            direct.setdefault(room(module), set()).update(targets - {"", room(module)})

    def reached(name: str) -> set[str]:
        return direct[name].union(*(reached(each) for each in direct[name]))

    return {name: {t for t in ts if not any(t in reached(u) for u in ts - {t})} for name, ts in direct.items()}


def files(name: str) -> list[Path]:
    """The modules of a room."""
    path = ROOT / "teachkit" / name.replace(".", "/")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def lines(name: str) -> int:
    """How many, to the nearest hundred, at least one."""
    return max(100, round(sum(len(path.read_text().splitlines()) for path in files(name)) / 100) * 100)


def purpose(name: str) -> str:
    """The first line of the room's docstring."""
    docstring = ast.get_docstring(ast.parse(files(name)[0].read_text())) or ""
    return docstring.partition("\n")[0].replace("``", "`").replace("|", "\\|")


def rows(edges: dict[str, set[str]]) -> list[list[str]]:
    """The rooms from the top: a room stands below all that need it, and a wing below the wings above."""

    def depth(name: str) -> int:
        return 1 + max((depth(t) for t in edges[name] if wing(t) == wing(name)), default=-1)

    found = []
    for each in WINGS:
        depths = {name: depth(name) for name in edges if wing(name) == each}
        found += [sorted(n for n in depths if depths[n] == d) for d in range(max(depths.values()), -1, -1)]
    return found


def lanes(levels: list[list[str]], edges: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Every arrow as the stops on its way, one a row; in the rows between its rooms it gets a lane of its own."""
    where = {name: row for row, names in enumerate(levels) for name in names}
    found = []
    for name in sorted(edges):
        for target in sorted(edges[name]):
            between = [f"{name}>{target}>{row}" for row in range(where[name] + 1, where[target])]
            for row, lane in enumerate(between, where[name] + 1):
                levels[row].append(lane)
            found.append((name, *between, target))
    return found


def placed(levels: list[list[str]], arrows: list[tuple[str, ...]]) -> dict[str, float]:
    """Where each box and lane stands across the page: near its neighbours, in an order with few crossings."""
    near = defaultdict(list)
    for arrow in arrows:
        for a, b in pairwise(arrow):
            near[a].append(b)
            near[b].append(a)
    x = {n: WIDTH * (k + 1) / (len(names) + 1) for names in levels for k, n in enumerate(names)}
    for turn in range(60):
        for names in levels if turn % 2 else reversed(levels):
            wanted = {n: fmean(x[m] for m in near[n]) if near[n] else x[n] for n in names}
            if turn < 40:
                names.sort(key=lambda n: (wanted[n], n))
            x.update(spread(names, wanted))
    shift = WIDTH / 2 + 50 - (min(x.values()) + max(x.values())) / 2  # the names of the wings stand on the left
    return {name: at + shift for name, at in x.items()}


def spread(names: list[str], wanted: dict[str, float]) -> dict[str, float]:
    """Positions in this order that leave room for each, as near to the wanted ones as groups in touch can be."""
    half = {n: (LANE if ">" in n else BOX + GAP) / 2 for n in names}
    groups: list[list[str]] = []

    def start(group: list[str]) -> float:
        """Of a group in touch: its members are where they want to be on average."""
        offsets, at = [], 0.0
        for n in group:
            offsets.append(wanted[n] - at - half[n])
            at += 2 * half[n]
        return fmean(offsets)

    for name in names:
        groups.append([name])
        while len(groups) > 1 and start(groups[-2]) + sum(2 * half[n] for n in groups[-2]) > start(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    found = {}
    for group in groups:
        at = start(group)
        for name in group:
            found[name] = at + half[name]
            at += 2 * half[name]
    return found


def draw() -> str:
    """The picture, as SVG."""
    below = base()
    edges = {name: targets - below for name, targets in needed().items() if name not in below}
    levels = rows(edges)
    tops, parts = {}, []
    y = MARGIN
    for each, label in WINGS.items():
        inside = [k for k, names in enumerate(levels) if wing(names[0]) == each]
        tall = ROW * len(inside) + 14 + (ROW - 10) * (each == "library")
        parts.append(f'<rect class="{each}" x="8" y="{y}" width="{WIDTH - 16}" height="{tall}" rx="10"/>')
        parts.append(f'<text class="wing" x="22" y="{y + 24}">{label}</text>')
        tops.update({row: y + 26 + ROW * k for k, row in enumerate(inside)})
        y += tall + 12
    arrows = lanes(levels, edges)
    x = placed(levels, arrows)
    where = {name: row for row, names in enumerate(levels) for name in names}
    parts += [curve([(x[n], tops[where[n]]) for n in arrow]) for arrow in arrows]
    parts += [box(n, x[n], tops[where[n]]) for names in levels for n in sorted(names) if ">" not in n]
    foot = y - 12 - ROW + 18
    parts.append(f'<text class="wing" x="22" y="{foot + 26}">for all of it</text>')
    parts += [box(n, 230 + k * (BOX + GAP), foot) for k, n in enumerate(sorted(below))]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" aria-labelledby="t d">\n'
        f'<title id="t">The rooms of teachkit</title>\n<desc id="d">{escape(description(levels, edges))}</desc>\n'
        f'<style>{STYLE}</style>\n<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>\n'
        f'<rect class="page" width="{WIDTH}" height="{y}" rx="12"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def box(name: str, x: float, y: float) -> str:
    """A room: its name and its lines."""
    return (
        f'<rect class="room" x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
        f'<text class="name" x="{x:.0f}" y="{y + 19}">{name.rpartition(".")[2]}</text>'
        f'<text class="lines" x="{x:.0f}" y="{y + 34}">{lines(name):,} lines</text>'
    )


def curve(stops: list[tuple[float, float]]) -> str:
    """An arrow down through its stops, straight past the rows between."""
    path = f"M{stops[0][0]:.0f} {stops[0][1] + HEIGHT}"
    for (x0, y0), (x1, y1) in pairwise(stops):
        begin, end = y0 + HEIGHT, y1 - (1 if (x1, y1) == stops[-1] else 0)
        middle = (begin + end) / 2
        path += f" C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {end:.0f}"
        if (x1, y1) != stops[-1]:
            path += f" V{y1 + HEIGHT}"
    return f'<path class="arrow" marker-end="url(#head)" d="{path}"/>'


def description(levels: list[list[str]], edges: dict[str, set[str]]) -> str:
    """The picture in words."""
    said = []
    for each, label in WINGS.items():
        names = [n for level in levels for n in level if n in edges and wing(n) == each]
        said.append(f"{label}: {', '.join(n.rpartition('.')[2] for n in names)}")
    return f"Boxes in three bands from top to bottom, arrows only downwards. {'. '.join(said)}."


def table() -> str:
    """Room, what it is for, what it stands on."""
    edges = needed()
    order = sorted(edges, key=lambda n: (["library", "course", "cli"].index(wing(n)), n))
    out = ["| room | what it is for | lines |", "|---|---|---|"]
    out += [f"| `{n}` | {purpose(n)} | {lines(n):,} |" for n in order]
    return "\n".join(out)


def page(text: str) -> str:
    """The document with its table as the code has it."""
    return between(text, "rooms", [table()])


if __name__ == "__main__":
    PICTURE.write_text(draw())
    PAGE.write_text(page(PAGE.read_text()))
    print(PICTURE.relative_to(ROOT), PAGE.relative_to(ROOT))

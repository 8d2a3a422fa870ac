"""Make everything agree with the list of lessons, `teachkit.course.outline`: ``python tools/renumber.py [--check]``.

Lessons may have been moved in the list, taken out or put in; a new one is first written as ``notebooks/SLUG.ipynb``,
without a number. Then this renames the notebooks and rewrites what follows from the list: numbers and names wherever
they are mentioned, headings, links, the tables of README.md, INSTRUCTORS.md and the first lesson, what the assignments
say they need, and the times of the lessons, which follow from what these hold (tools/reading_time.py). ``--check``
writes nothing, and names what would change; the exit code tells.

Only what is written in one of these ways is found: ``08_the_boomerang``, "lesson 08", "lessons 06, 07 and 08", and
links to a lesson. The text of a lesson mentions others by links; plain numbers in it become links here.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import reading_time

from teachkit.course import outline

ROOT = Path(__file__).resolve().parents[1]
# What mentions lessons. The change log tells of lessons by the numbers that they had.
WHERE = (
    *("*.md", "Makefile", "docs/*.md", "docs/claims.json", "data/*.md", "benchmarks/*", "tools/*.py"),
    *("tests/**/*.py", "teachkit/**/*.py", "notebooks/*.ipynb", "notebooks/assignments/*.ipynb"),
)
NOT = ("CHANGELOG.md",)
MENTION = re.compile(r"([Ll]essons?) (\d\d\b(?:(?:, and |, | and | to | or |–)\d\d\b(?!%))*)")
CLAIM = re.compile(r'(?<="lesson": ")(\d\d)(?=")')
WORDS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")


def on_disk(root: Path) -> dict[str, Path]:
    """The notebook of every lesson of the list, numbered or not.

    Raises
    ------
    SystemExit
        If one is missing, there twice, or not in the list.
    """
    slugs = [entry.slug for entry in outline.LESSONS]
    found: dict[str, Path] = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        slug = re.sub(r"^\d\d_", "", path.stem)
        if slug not in slugs or slug in found:
            raise SystemExit(
                f"{path.name} is {'there twice' if slug in found else 'not in teachkit/course/outline.py'}"
            )
        found[slug] = path
    if missing := [slug for slug in slugs if slug not in found]:
        raise SystemExit(f"notebooks/{missing[0]}.ipynb is in teachkit/course/outline.py, but not written yet")
    return found


def changes(root: Path = ROOT) -> dict[Path, tuple[Path, str]]:
    """What disagrees with the list: every such file with its new place and its new text."""
    lessons = on_disk(root)
    numbers = {p.stem[:2]: outline.number(slug) for slug, p in lessons.items() if p.stem != slug}
    targets = {path: path.with_name(f"{outline.name(slug)}.ipynb") for slug, path in lessons.items()}
    times = {slug: reading_time.minutes(json.loads(p.read_text(encoding="utf-8"))) for slug, p in lessons.items()}
    found = {}
    for path in sorted({p for pattern in WHERE for p in root.glob(pattern) if p.is_file() and p.name not in NOT}):
        before = path.read_text(encoding="utf-8")
        try:
            text = renumbered(before, numbers)
        except KeyError as error:
            raise SystemExit(f"{path.relative_to(root)}: there is no lesson {error}") from None
        if path.suffix == ".ipynb":
            text = in_notebook(text, path, lessons, times)
        elif edit := {"README.md": readme, "INSTRUCTORS.md": instructors}.get(str(path.relative_to(root))):
            text = edit(text, numbers, times)
        target = targets.get(path, path)
        if text != before or target != path:
            found[path] = target, text
    return found


def renumbered(text: str, numbers: dict[str, str]) -> str:
    """A text with new numbers: beside a name by the name, alone by what they were."""
    slugs = "|".join(sorted((entry.slug for entry in outline.LESSONS), key=len, reverse=True))
    text = MENTION.sub(lambda m: f"{m[1]} {each(m[2], numbers.__getitem__)}", text)
    text = CLAIM.sub(lambda m: numbers[m[1]], text)
    link = rf"\[\d\d(?=[^\]]*\]\([\w./]*?(?:\d\d_)?({slugs})\.ipynb\))"
    text = re.sub(link, lambda m: f"[{outline.number(m[1])}", text)
    return re.sub(rf"\b\d\d_({slugs})\b|(?<=[(/])({slugs})(?=\.ipynb\))", lambda m: outline.name(m[1] or m[2]), text)


def each(text: str, new: Callable[[str], str]) -> str:
    """A text with all its numbers of two digits replaced."""
    return re.sub(r"\d\d", lambda m: new(m[0]), text)


def link(number: str, folder: str = "", title: bool = False) -> str:
    """A lesson as a link in markdown: its number, or number and title."""
    entry = outline.LESSONS[int(number)]
    return f"[{number}{' ' + entry.title if title else ''}]({folder}{outline.name(entry.slug)}.ipynb)"


def linked(text: str, folder: str = "") -> str:
    """A text in which every mention of a lesson is a link."""
    return MENTION.sub(lambda m: f"{m[1]} {each(m[2], lambda n: link(n, folder))}", text)


def between(text: str, mark: str, lines: list[str]) -> str:
    """A text with what stands between ``<!-- mark -->`` and ``<!-- /mark -->`` made anew."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise SystemExit(f"{start} and {end} must stand once each")
    return re.sub(f"{start}.*{end}", lambda m: "\n".join([f"{start}\n", *lines, f"\n{end}"]), text, flags=re.S)


def replaced(text: str, pattern: str, new: str | Callable[[re.Match[str]], str]) -> str:
    """A text with the first match of a pattern replaced. What has none breaks the rules of a lesson."""
    text, count = re.subn(pattern, new if callable(new) else lambda m: new, text, count=1, flags=re.M)
    if not count:
        raise SystemExit(f"nothing matches {pattern!r} in: {text[:60]!r}")
    return text


# ---- notebooks


def in_notebook(text: str, path: Path, lessons: dict[str, Path], times: dict[str, int]) -> str:
    """A lesson or an assignment, as JSON, with its heading and links made anew."""
    notebook = json.loads(text)
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    slug = next((slug for slug, place in lessons.items() if place == path), None)
    if slug is None:
        needs = {entry.name: entry.needs for entry in outline.ASSIGNMENTS}[path.stem]
        sources[0] = replaced(
            sources[0], r"\*\*Needs\*\*: lessons [\d, toand]+?(?= ·)", f"**Needs**: lessons {spoken(needs)}"
        )
    else:
        sources = lesson(slug, sources, [cell["cell_type"] == "markdown" for cell in notebook["cells"]], times[slug])
    for cell, source in zip(notebook["cells"], sources):
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def spoken(slugs: tuple[str, ...]) -> str:
    """Numbers as they are said: "00 to 02", or "04, 06 and 11"."""
    numbers = sorted(outline.number(slug) for slug in slugs)
    if len(numbers) > 2 and int(numbers[-1]) - int(numbers[0]) == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return " and ".join(filter(None, [", ".join(numbers[:-1]), numbers[-1]]))


def lesson(slug: str, sources: list[str], markdown: list[bool], minutes: int) -> list[str]:
    """The cells of a lesson."""
    entry, number = outline.lesson(slug), outline.number(slug)
    sources = [linked(source) if text else source for source, text in zip(sources, markdown)]
    helps = spoken(entry.helps) if entry.helps else ""
    helps = f" ({helps} help{'' if len(entry.helps) > 1 else 's'})" if helps else ""
    needs = ", ".join(sorted(map(outline.number, entry.needs))) + helps or "nothing"
    top = replaced(sources[0], r"\A# (?:\d\d · )?.+$", f"# {number} · {entry.title}")
    top = replaced(top, r"^\*(?!\*).+?\*$", f"*{entry.idea}*")
    top = replaced(top, r"\*\*Time\*\*: \d+ minutes", f"**Time**: {minutes} minutes")
    sources[0] = replaced(top, r"\*\*Needs\*\*: .+?(?= · )", f"**Needs**: {each(needs, link)}")
    if number == "00":
        sources[-1] = between(sources[-1], "lessons", course_map())
    if entry is not outline.LESSONS[-1]:
        after = f"Next: **{link(f'{int(number) + 1:02d}', title=True)}**"
        sources[-1] = replaced(sources[-1], r"Next: \*\*.+?\*\*", after)
    elif "Next: **" in sources[-1]:
        raise SystemExit(f"{slug} is the last lesson: it has no next one")
    return sources


def course_map() -> list[str]:
    """Every lesson with its question, and what the parts of the course are for."""
    rows = [f"| {outline.number(e.slug)} | {e.title} | {e.question} |" for e in outline.LESSONS]
    parts = []
    for part, purpose in list(outline.PARTS.items())[1:]:
        inside = [outline.number(e.slug) for e in outline.LESSONS if e.part == part]
        parts.append(f"{link(inside[0])} to {link(inside[-1])} {purpose}")
    return ["| | lesson | question |", "|---|---|---|", *rows, "", f"Lessons {'; '.join(parts)}."]


# ---- README and INSTRUCTORS


def readme(text: str, _: dict[str, str], times: dict[str, int]) -> str:
    """README.md with its table of lessons, and how many there are and how long they take."""
    rows = [
        f"| {outline.number(e.slug)} | [{e.title}](notebooks/{outline.name(e.slug)}.ipynb) | {e.idea} |"
        for e in outline.LESSONS
    ]
    text = between(text, "lessons", ["| | lesson | what it shows |", "|---|---|---|", *rows])
    shortest, longest = min(times.values()), max(times.values())
    said = f"{how_many()} lessons of {shortest} to {longest} minutes"
    return replaced(text, r"\b\w+ lessons of \d+ to \d+ minutes", said)


def how_many() -> str:
    """The number of lessons in words."""
    count = len(outline.LESSONS)
    return WORDS[count - 10] if 10 <= count < 20 else str(count)


def instructors(text: str, numbers: dict[str, str], times: dict[str, int]) -> str:
    """INSTRUCTORS.md with its hours, its syllabuses, and its mentions of lessons as links."""
    text = replaced(text, r"^\w+ lessons(?=, )", f"{how_many().capitalize()} lessons")
    hours = round(sum(times.values()) / 60)
    text = between(text, "speeds", [f"{reading_time.stated()}."])
    text = replaced(text, r"about \d+ hours of lessons", f"about {hours} hours of lessons")
    head, *plans = between(text, "hours", hours_table(times)).split("## Syllabus for ")
    return linked("## Syllabus for ".join([head, *(syllabus(plan, numbers) for plan in plans)]), "notebooks/")


def hours_table(times: dict[str, int]) -> list[str]:
    """Minutes of the lessons in two columns, and hours and points of the assignments."""
    minutes = [f"| {outline.number(e.slug)} | {times[e.slug]} " for e in outline.LESSONS]
    half = -(-len(minutes) // 2)
    graded = [
        f"| {a.name[:2]} {a.subject} | {a.hours} | {a.points} | {max(map(outline.number, a.needs))} |"
        for a in outline.ASSIGNMENTS
    ]
    columns = [minutes[:half], minutes[half:], graded]
    rows = [
        [c[k] if k < len(c) else empty for c, empty in zip(columns, ("| | ", "| | ", "| | | | |"))] for k in range(half)
    ]
    head = ["| lesson | minutes | | lesson | minutes | | assignment | hours | points | after |", "|---" * 10 + "|"]
    return head + ["| ".join(row) for row in rows]


def syllabus(plan: str, numbers: dict[str, str]) -> str:
    """A syllabus with every lesson: those that are new in the week of the one before, those that are gone left out."""
    week = re.compile(r"^(\| \d+ \| )(\d\d(?:, \d\d)*)(?= \|)", re.M)
    weeks = [[numbers[n] for n in m[2].split(", ") if n in numbers] for m in week.finditer(plan)]
    if not weeks:
        return plan
    for k in range(len(outline.LESSONS)):
        if not any(f"{k:02d}" in given for given in weeks):
            next((given for given in weeks if f"{k - 1:02d}" in given), weeks[0]).append(f"{k:02d}")
    rows = iter(weeks)
    return week.sub(lambda m: m[1] + ", ".join(sorted(next(rows))), plan)


def write(found: dict[Path, tuple[Path, str]]) -> None:
    """Make the `changes`; first what goes away, for a new name may be an old one of another lesson."""
    for path in found:
        path.unlink()
    for target, text in found.values():
        target.write_text(text, encoding="utf-8")


def main() -> None:
    """Write, or only say, what disagrees with the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if anything disagrees")
    check, found = parser.parse_args().check, changes()
    for path, (target, _) in found.items():
        moved = f" -> {target.name}" if target != path else ""
        print(f"{path.relative_to(ROOT)}{moved}: {'disagrees' if check else 'written'}")
    if check:
        raise SystemExit(bool(found))
    write(found)


if __name__ == "__main__":
    main()

"""The map of the literature has every work that is cited, once, and names only lessons and code that there are."""

import json
import re
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAP = ROOT / "docs" / "LITERATURE.md"
TEXT = MAP.read_text(encoding="utf-8")
WORKS = re.findall(r"^- .+", TEXT, re.M)
NUMBER = re.compile(r"(?<![\d.])(?:0[7-9]|[12]\d)(?:0[1-9]|1[0-2])\.\d{5}(?!\d)")
WHERE = ("*.md", "docs/*.md", "data/*.md", "notebooks/**/*.ipynb", "teachkit/**/*.py", "tools/*.py")


def written(path):
    """What a person wrote in a file: of a notebook the sources, without pictures and printed numbers."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def cited():
    """Every arXiv number that is cited, with the files that do."""
    found = {}
    for path in (p for pattern in WHERE for p in ROOT.glob(pattern) if p != MAP):
        for number in NUMBER.findall(written(path)):
            found.setdefault(number, set()).add(path.relative_to(ROOT).as_posix())
    return found


def named(name):
    """The object or the file of a name in the map."""
    if name.startswith("tools/"):
        assert (ROOT / name).is_file(), name
        return None
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            thing = import_module(".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(name)


def test_every_number_that_is_cited_is_in_the_map_once():
    found = cited()
    assert len(found) > 50, "the search finds what is cited"
    entries = [re.search(r"\*\*, \[(\d{4}\.\d{5})\]", work) for work in WORKS]
    numbers = [entry[1] for entry in entries if entry]
    assert len(set(numbers)) == len(numbers), "once each"
    missing = {number: files for number, files in found.items() if number not in numbers}
    assert not missing, "add a line to docs/LITERATURE.md"


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work[4:44])
def test_a_work_has_authors_a_year_a_place_and_what_became_of_it(work):
    head = re.match(r"- \*\*[^*]+ (1[89]|20)\d\d\*\*, (\[(.+?)\]\((.+?)\)|[^:]{4,})", work)
    assert head, "authors and year in bold, then where it appeared"
    if head[3] and NUMBER.fullmatch(head[3]):
        assert head[4] == f"https://arxiv.org/abs/{head[3]}"
    assert ": " in work
    assert work.endswith(".")
    assert re.search(r"\.ipynb\)|`(teachkit|tools)\b|because ", work), "a lesson, code, or why there is none"


def test_lessons_and_code_that_the_map_names_are_there():
    lessons = set(re.findall(r"\]\(\.\./(notebooks/\w+\.ipynb)\)", TEXT))
    assert len(lessons) > 12
    assert not [lesson for lesson in lessons if not (ROOT / lesson).is_file()]
    names = set(re.findall(r"`((?:teachkit|tools)[./][\w./]+)`", TEXT))
    assert len(names) > 60
    for name in names:
        named(name)


def test_arguments_that_the_map_names_are_there():
    given = re.findall(r"`(teachkit[\w.]+)` with `(\w+)(?:=\"(\w+)\")?`", TEXT)
    assert len(given) > 5
    for name, argument, value in given:
        thing = named(name)
        assert argument in signature(thing).parameters, f"{name}: {argument}"
        assert not value or f'"{value}"' in thing.__doc__, f"{name}: {value}"


def test_what_is_wrong_in_a_map_is_found():
    with pytest.raises((AssertionError, AttributeError)):
        named("teachkit.solvers.Heuns")
    with pytest.raises(AssertionError):
        named("tools/no_such_file.py")
    assert NUMBER.findall("(arXiv 2206.00364; 2107.00630, eq. 13), 12206.00364, 2206.003641, 2213.00364") == [
        "2206.00364",
        "2107.00630",
    ]

"""The list of lessons is what everything else agrees with, and goes on to when the list changes."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from teachkit.course import claims, outline

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import renumber  # noqa: E402

NEW = outline.Lesson(
    "put_in_the_middle",
    "plane",
    "Flow matching",
    35,
    "is it another model?",
    "Another time, the same curve.",
    ("the_ode",),
)
BODY = """# Flow matching

*A promise.*

**Time**: 1 minutes · **Needs**: ? · **Leans on**: `teachkit.adapters` · **Notation**: as in lesson {00}

Lessons {00} and {04}; more in [{06} High dimensions](HIGH.ipynb).

Next: **somewhere**. And on."""


def test_everything_agrees_with_the_list():
    assert not [str(path.relative_to(ROOT)) for path in renumber.changes()], "run python tools/renumber.py"


def test_lessons_build_on_earlier_ones_and_belong_to_a_part():
    slugs = [entry.slug for entry in outline.LESSONS]
    assert len(set(slugs)) == len(slugs)
    for k, entry in enumerate(outline.LESSONS):
        assert {*entry.needs, *entry.helps} <= set(slugs[:k]), entry.slug
        assert not set(entry.needs) & set(entry.helps)
    parts = [entry.part for entry in outline.LESSONS]
    assert parts == sorted(parts, key=list(outline.PARTS).index), "a part is one stretch of lessons"
    assert set(parts) == set(outline.PARTS)


def test_an_unknown_lesson_is_named_and_the_nearest_suggested():
    with pytest.raises(ValueError, match=r"'the_ods'; 'the_ode'\?"):
        outline.number("the_ods")
    for wrong in (None, 3, ["the_ode"], ""):
        for function in (outline.lesson, outline.number, outline.name):
            with pytest.raises(ValueError, match="slug must be one of"):
                function(wrong)


def test_every_assignment_is_in_the_list():
    on_disk = sorted(path.stem for path in (ROOT / "notebooks" / "assignments").glob("*.ipynb"))
    assert on_disk == [entry.name for entry in outline.ASSIGNMENTS]


def test_a_claim_that_lessons_state_is_stated_in_the_one_it_names():
    where = {entry.sentence: set() for entry in claims.chosen()}
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        for sentence in re.findall(r'"claim: (.+?)\\n"', path.read_text(encoding="utf-8")):
            where[sentence].add(path.stem[:2])
    assert sum(map(bool, where.values())) > 40
    assert not [e.id for e in claims.chosen() if where[e.sentence] and e.lesson not in where[e.sentence]]


@pytest.fixture
def scratch(tmp_path):
    """A copy of all that mentions lessons."""
    for pattern in renumber.WHERE:
        for path in filter(Path.is_file, ROOT.glob(pattern)):
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def put_in(monkeypatch, root, after="five_evaluations"):
    """A new lesson in the middle of the list, written without a number."""
    place = [entry.slug for entry in outline.LESSONS].index(after) + 1
    monkeypatch.setattr(outline, "LESSONS", (*outline.LESSONS[:place], NEW, *outline.LESSONS[place:]))
    cell = {
        "cell_type": "markdown",
        "id": "a",
        "metadata": {},
        "source": re.sub(r"\{(\d\d)\}", r"\1", BODY).replace("HIGH", "high_dimensions"),
    }
    book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (root / "notebooks" / f"{NEW.slug}.ipynb").write_text(json.dumps(book), encoding="utf-8")
    return place


def mentioned(root):
    """Every mention of a lesson with its file and the name beside it, or in a link."""
    for path in (*root.rglob("*.py"), *root.rglob("*.ipynb"), *root.rglob("*.md")):
        if path.name != "CHANGELOG.md":
            text = path.read_text(encoding="utf-8")
            yield from re.findall(r"\[(\d\d)[^\]]*\]\([\w./]*?(\d\d)_(\w+)\.ipynb", text)
            yield from ((n, n, s) for n, s in re.findall(r"notebooks/(\d\d)_(\w+)", text))


def test_a_lesson_put_into_the_middle_moves_all_others_on(scratch, monkeypatch):
    before = {slug: outline.number(slug) for slug in (entry.slug for entry in outline.LESSONS)}
    place = put_in(monkeypatch, scratch)
    renumber.write(renumber.changes(scratch))
    assert not renumber.changes(scratch), "once is enough"
    names = sorted(path.stem for path in (scratch / "notebooks").glob("*.ipynb"))
    assert names == [outline.name(entry.slug) for entry in outline.LESSONS]
    seen = list(mentioned(scratch))
    assert len(seen) > 200
    known = [entry.slug for entry in outline.LESSONS]
    assert all(a == b == outline.number(slug) for a, b, slug in seen if slug in known)
    record = {row["id"]: row["lesson"] for row in json.loads((scratch / "docs" / "claims.json").read_text())["claims"]}
    moved = {number: outline.number(slug) for slug, number in before.items()}
    assert record == {entry.id: moved[entry.lesson] for entry in claims.chosen()}

    new = json.loads((scratch / "notebooks" / f"{place:02d}_{NEW.slug}.ipynb").read_text())
    top = "".join(new["cells"][0]["source"])
    assert top.startswith(f"# {place:02d} · Flow matching\n\n*{NEW.idea}*\n\n**Time**: 35 minutes · **Needs**: [")
    after = f"[{place + 1:02d} High dimensions]({outline.name('high_dimensions')}.ipynb)"
    assert f"more in {after}." in top
    assert f"Next: **{after}**. And on." in top
    ahead = json.loads((scratch / "notebooks" / f"{outline.name('five_evaluations')}.ipynb").read_text())
    assert f"Next: **[{place:02d} Flow matching]" in "".join(ahead["cells"][-1]["source"])
    for path in ("docs/SCHEDULES.md", "docs/SCALE.md", "data/README.md"):
        assert (scratch / path).read_text() == (ROOT / path).read_text(), "figures in tables are no lessons"
    instructors = (scratch / "INSTRUCTORS.md").read_text()
    assert f"| {place:02d} | 35 " in instructors
    assert len(re.findall(rf"^\| \d+ \| .*{before['five_evaluations']}, {place:02d} \|", instructors, re.M)) == 2
    assert "20 lessons of 25 to 40 minutes" in (scratch / "README.md").read_text()
    fourth = (scratch / "notebooks" / "assignments" / "A4_scheduling.ipynb").read_text()
    assert f"**Needs**: lessons {renumber.spoken(outline.ASSIGNMENTS[-1].needs)} ·" in fourth
    assert renumber.spoken(outline.ASSIGNMENTS[-1].needs) == "04, 08, 15 and 16"


def test_a_link_from_another_folder_to_a_lesson_without_a_number_gets_it():
    slug = outline.LESSONS[-1].slug
    new = renumber.renumbered(f"[00](../notebooks/{slug}.ipynb), [00]({slug}.ipynb), ``notebooks/{slug}``", {})
    name, number = outline.name(slug), outline.number(slug)
    assert new == f"[{number}](../notebooks/{name}.ipynb), [{number}]({name}.ipynb), ``notebooks/{slug}``"


def test_what_cannot_be_numbered_is_refused(scratch, monkeypatch):
    stray = scratch / "notebooks" / "99_stray.ipynb"
    stray.write_text("{}")
    with pytest.raises(SystemExit, match=r"99_stray\.ipynb is not in"):
        renumber.changes(scratch)
    stray.unlink()
    put_in(monkeypatch, scratch)
    written = scratch / "notebooks" / f"{NEW.slug}.ipynb"
    written.write_text(written.read_text().replace("Lessons ", "Lesson" + " 77, lessons "))
    with pytest.raises(SystemExit, match="there is no lesson '77'"):
        renumber.changes(scratch)
    written.unlink()
    with pytest.raises(SystemExit, match=r"put_in_the_middle\.ipynb is in .*, but not written yet"):
        renumber.changes(scratch)
    assert (scratch / "notebooks" / "00_start_here.ipynb").is_file(), "nothing was written"

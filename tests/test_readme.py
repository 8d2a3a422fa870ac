"""The README says what is true: its links lead somewhere, its program runs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import teachkit
from teachkit.course import outline

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("weeks", [6, 12])
def test_a_syllabus_has_every_lesson_and_assignment_once(weeks):
    plan = (ROOT / "INSTRUCTORS.md").read_text().split(f"## Syllabus for {weeks} weeks")[1].split("## ")[0]
    rows = re.findall(r"^\| (\d+) \| ([\d, ]+) \|([^|]*)\|", plan, re.M)
    assert [int(week) for week, *_ in rows] == list(range(1, weeks + 1))
    lessons = [lesson for _, lessons, _ in rows for lesson in lessons.split(", ")]
    assert lessons == [outline.number(entry.slug) for entry in outline.LESSONS]
    assert re.findall(r"(A\d) out", " ".join(row[2] for row in rows)) == [
        entry.name[:2] for entry in outline.ASSIGNMENTS
    ]


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("d*/*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / page).read_text()):
        assert (folder / target).exists(), target


def test_there_is_one_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == teachkit.__version__
    assert re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] in (teachkit.__version__, "Unreleased")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]  # read from teachkit/__init__.py


def test_the_citation_names_the_papers():
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the citation; it comes with the docs extra")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    papers = {paper["url"].rpartition("/")[2]: paper for paper in citation["references"]}
    assert papers.keys() == {"2506.10177", "2405.11326", "2305.19947"}
    for number, paper in papers.items():
        assert paper["identifiers"] == [{"type": "other", "value": f"arXiv:{number}"}]
        assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])
    assert papers["2506.10177"]["title"] in " ".join(README.split())


@pytest.mark.slow
def test_the_program_in_the_readme_runs():
    program = re.search(r"```python\n(.+?)```", README, re.S)[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"largest deviation: 0\.5\d % of the chord", done.stdout), done.stdout

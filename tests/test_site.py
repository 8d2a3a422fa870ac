"""The course as a static site: every page whole, every link and picture there, nothing from elsewhere."""

import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest

ROOT = Path(__file__).resolve().parents[1]
for needed in ("sphinx", "myst_nb", "furo", "latex2mathml", "numpydoc"):
    pytest.importorskip(needed, reason="the site needs the extra docs: pip install -e '.[docs]'")
pytestmark = pytest.mark.slow
sys.path.insert(0, str(ROOT / "tools"))
import api_pages  # noqa: E402
import hosted  # noqa: E402


class Page(HTMLParser):
    """Links, embedded things, anchors and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.embedded, self.anchors, self.pictures, self.formulas, self.text, self.code = (
            [],
            [],
            set(),
            [],
            0,
            [],
            0,
        )
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.anchors |= {a[k] for k in ("id", "name") if a.get(k)}
        if tag == "a" and a.get("href"):
            self.links.append(a["href"])
        if tag in ("img", "script", "iframe", "source") and a.get("src"):
            self.embedded.append(a["src"])
        if tag == "link" and a.get("rel") in ("stylesheet", "icon", "shortcut icon"):
            self.embedded.append(a["href"])
        if tag == "img":
            self.pictures.append(a)
        self.formulas += tag == "math"
        self.code += tag in ("pre", "code", "annotation")

    def handle_endtag(self, tag):
        self.code -= tag in ("pre", "code", "annotation")

    def handle_data(self, data):
        if not self.code:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(built_site):
    return {path: Page(path.read_text()) for path in built_site.rglob("*.html")}


def test_every_lesson_and_document_has_a_page(site):
    names = {path.stem for path in site}
    assert {p.stem for p in (ROOT / "notebooks").glob("[0-9]*.ipynb")} | {
        *("index", "SYMBOLS", "SCHEDULES", "RESULTS")
    } <= names


def test_no_link_is_broken_and_nothing_comes_from_elsewhere(site):
    broken, seen = [], 0
    for path, page in site.items():
        for reference in [*page.links, *page.embedded]:
            if urlparse(reference).scheme in ("http", "https", "mailto", "data"):
                if reference in page.embedded and not reference.startswith("data:"):
                    broken.append((path.name, reference, "needs the network"))
                continue
            file, anchor = urldefrag(reference)
            target = (path.parent / unquote(urlparse(file).path)).resolve() if file else path
            seen += 1
            if not target.is_file():
                broken.append((path.name, reference, "is not there"))
            elif anchor and target.suffix == ".html" and unquote(anchor) not in site[target].anchors:
                broken.append((path.name, reference, "has no such place"))
    assert not broken
    assert seen > 500


def test_pictures_formulas_and_solutions_of_the_lessons(site):
    for path, page in site.items():
        if not path.stem[:2].isdigit():
            continue
        text = "".join(page.text)
        pictures = [picture for picture in page.pictures if "sidebar" not in (picture.get("class") or "")]
        assert pictures, f"{path.stem} shows no picture"
        assert all(picture.get("alt", "").strip() for picture in pictures), path.stem
        assert page.formulas, path.stem
        assert "$" not in text, f"{path.stem}: a formula was not set"
        assert "Show code cell source" in path.read_text(), f"{path.stem}: solutions are not folded"
        assert "Loading widget" not in text


def test_folded_cells_and_answers_of_predictions_can_be_opened(site):
    """In details elements, which browsers open by keyboard as well."""
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        cells = [cell for cell in cells if "hosted" not in cell["metadata"].get("tags", [])]
        folded = sum(bool(cell["metadata"].get("jupyter", {}).get("source_hidden")) for cell in cells)
        asked = sum("widgets.predict(" in "".join(cell["source"]) for cell in cells)
        page = next(page for page in site if page.stem == path.stem).read_text()
        assert len(re.findall(r'<details class="[^"]*hide above-input">\s*<summary', page)) == folded, path.stem
        assert page.count("<details><summary>Show what was measured</summary>") == asked, path.stem


def test_each_lesson_can_be_taken_away(site):
    for path, page in site.items():
        if path.stem[:2].isdigit():
            assert f"{path.stem}.ipynb" in page.links
            told = bool(hosted.repository() or "TEACHKIT_SITE" not in os.environ)  # the address
            assert any("colab" in link for link in page.links) == told


def test_an_explorer_has_its_first_picture_and_labelled_controls(site):
    (page,) = (path.read_text() for path in site if path.stem == "09_curvature_and_torsion")
    assert re.search(r'<label>window <input type="range" max="14" value="4" aria-valuetext="101"', page)
    assert re.search(r'<img src="frames/09_curvature_and_torsion-\d+/004.webp" alt="Window of 101 points', page)


def test_every_public_name_has_one_entry(site):
    anchors = [a for path, page in site.items() if path.parent.name == "api" for a in page.anchors]
    entries, links = api_pages.public()
    names = {f"{module}.{name}" for module, each in entries.items() for name in each}
    assert {"teachkit.sample", "teachkit.geometry.deviation", "teachkit.course.grading.check"} <= names
    assert names == set(links.values())
    assert not {name: anchors.count(name) for name in names if anchors.count(name) != 1}


def test_lessons_lead_to_what_they_use(site):
    for path, page in site.items():
        if path.stem[:2].isdigit():
            places = {unquote(urldefrag(link)[1]) for link in page.links if link.startswith("../api/")}
            assert len(places) > 3, path.stem
            assert "In the library" in "".join(page.text)


def test_names_are_those_of_the_code():
    _, links = api_pages.public()
    program = "from teachkit import sample as draw, geometry as g\nfrom teachkit.course import plots\nplots.show(0)\n"
    assert api_pages.used([f"{program}draw(g.deviation(x).mean(), unknown.deviation)"], links) == [
        "geometry.deviation", "plots.show", "sample",
    ]  # fmt: skip

"""The site in Chromium: every explorer is moved, on pages that load nothing from elsewhere.

The site is built with two lessons whose explorers move. ``TEACHKIT_SITE=build/html`` names one that is there already,
with all of them.
"""

from __future__ import annotations

import os
import re

import pytest

from ..conftest import MOVING
from .conftest import ROOT, SHOTS

for needed in ("sphinx", "myst_nb", "furo", "latex2mathml", "numpydoc"):
    pytest.importorskip(needed, reason="the site needs the extra docs: pip install -e '.[docs]'")
BUILT = os.environ.get("TEACHKIT_SITE")
PAGE = "04_solvers"


@pytest.fixture(scope="module")
def folder(built_site):
    return built_site


@pytest.fixture
def visit(folder, context):
    """Open a page of the site; afterwards nothing may have been asked for outside it, and no error been written."""
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))

    def open_page(name):
        page.goto((folder / "notebooks" / f"{name}.html").as_uri())
        return page

    yield open_page
    page.close()
    assert not errors
    assert asked
    assert all(url.startswith((folder.as_uri() + "/", "data:", "blob:")) for url in asked)


def lessons():
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return names if BUILT else [name for name in names if name[:2] in MOVING]


def seen(book):
    """The picture, its text, and the text below it; once it is in sight, for it is loaded lazily, and drawn."""
    image = book.locator("img")
    image.scroll_into_view_if_needed()
    image.evaluate("async image => { await image.decode(); }")
    return image.get_attribute("src"), image.get_attribute("alt"), book.locator("figcaption").inner_text()


@pytest.mark.parametrize("name", lessons())
def test_every_control_turns_the_picture_and_its_text(visit, name):
    page = visit(name)
    books = page.locator(".flip-book")
    if not books.count():
        assert BUILT, "no explorer moves on this page"
        assert "widgets." not in re.sub(r"widgets\.predict", "", page.inner_text("article"))
    for book in books.all():
        first = seen(book)
        assert first[1] in first[2]
        for control in book.locator("input").all():
            before, told = seen(book), control.get_attribute("aria-valuetext")
            end = control.input_value() == control.get_attribute("max")
            control.focus()
            page.keyboard.press("ArrowLeft" if end else "ArrowRight")
            assert all(a != b for a, b in zip(seen(book), before)), "picture and text follow"
            assert control.get_attribute("aria-valuetext") != told
            page.keyboard.press("ArrowRight" if end else "ArrowLeft")
            assert seen(book) == before
        for control in book.locator("select").all():
            before = seen(book)
            control.focus()
            page.keyboard.press("ArrowDown")
            assert all(a != b for a, b in zip(seen(book), before))
    page.screenshot(path=SHOTS / f"site-{name}.png")


def test_it_plays_to_the_end_but_not_for_who_wants_rest(visit):
    page = visit(PAGE)
    book = page.locator(".flip-book").first
    assert not book.locator("button").is_visible(), "the tests ask for reduced motion"
    page.emulate_media(reduced_motion="no-preference")
    slider = book.locator("input").first
    end = int(slider.get_attribute("max"))
    slider.evaluate("(slider, value) => { slider.value = value; }", end - 1)
    before = seen(book)
    book.get_by_role("button", name="play").click()
    book.get_by_role("button", name="play").wait_for(timeout=10_000)
    assert slider.input_value() == str(end)
    assert seen(book) != before
    page.emulate_media(reduced_motion="reduce")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_narrow_screens_and_dark_ones(visit, width, dark):
    page = visit(PAGE)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if dark else "light")
    book = page.locator(".flip-book").first
    seen(book)
    for part in (book.locator("img"), *book.locator("input, select").all()):
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    page.screenshot(path=SHOTS / f"site-{width}-{'dark' if dark else 'light'}.png")


def test_without_the_script_the_first_picture_stands(visit, context):
    context.route(re.compile(r"/site\.js"), lambda route: route.fulfill(body="", content_type="text/javascript"))
    book = visit(PAGE).locator(".flip-book").first
    context.unroute(re.compile(r"/site\.js"))
    assert seen(book)[1]
    assert not book.locator(".turns").is_visible()


def test_the_site_is_small(folder):
    """All of it, and each page with what it loads before its explorers are touched."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 40e6
    shared = sum(size for path, size in sizes.items() if path.is_relative_to(folder / "_static"))
    for path, size in sizes.items():
        if path.suffix == ".html":
            pictures = {
                name.split("?")[0] for name in re.findall(r'(?:src|href)="([^":]+\.(?:png|svg|webp))', path.read_text())
            }
            loaded = [(path.parent / name).resolve() for name in pictures]
            assert size + shared + sum(sizes.get(each, 0) for each in loaded) < 6e6, path.name


def test_a_lesson_can_be_downloaded_printed_and_opened_elsewhere(visit, folder):
    page = visit(PAGE)
    name = f"{PAGE}.ipynb"
    link = page.get_by_role("link", name="Download this notebook")
    assert link.get_attribute("download") is not None
    assert (folder / "notebooks" / link.get_attribute("href")).read_bytes() == (ROOT / "notebooks" / name).read_bytes()
    page.evaluate("() => { window.print = () => { window.printed = true; }; }")
    page.get_by_role("button", name="Print").click()
    assert page.evaluate("() => window.printed")
    page.emulate_media(media="print")
    assert not page.locator(".turns").first.is_visible()
    assert page.locator(".flip-book img").first.is_visible()
    page.emulate_media(media="screen")
    if not BUILT:
        link = page.get_by_role("link", name="Open in a hosted notebook").get_attribute("href")
        assert link == f"https://colab.research.google.com/github/someone/teachkit/blob/main/notebooks/{name}"

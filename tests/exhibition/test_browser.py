"""The page in a real browser: keys, panels, links, the walk, both colour schemes, a narrow screen, accessibility."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from avignon.core import pages
from avignon.core.events import Reporter
from avignon.core.workspace import Workspace
from avignon.curation import contact_sheet
from avignon.stages import exhibit
from tests.support.exhibition import hang_all, recipe_of
from tests.support.museum import draw

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = (
    "--no-sandbox",  # Root, as in a container, is refused a sandbox.
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}

PANELS = ("picture-1-0", "picture-1-1", "picture-2-3")
"""At the beginning and the end of a line, without neighbours, and one that is flagged as a copy."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a small run with everything on it: restricted works, a copy, extras, films."""
    recipe = recipe_of(exhibit={"title": "Sea & table", "films": ["grid"]})
    space = hang_all(recipe, tmp_path_factory.mktemp("run"))
    exhibit.run(recipe, space, Reporter("exhibit", lambda event: None))
    return space.page.as_uri()


@pytest.fixture
def show(browser: Browser, url: str) -> Iterator[Any]:
    """Opens the page; at the end nothing may have gone wrong in it, and nothing may have been fetched beside it."""
    contexts, wrong = [], []

    def opened(anchor: str = "", size: ViewportSize = WIDE, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(("data:", url)) else wrong.append(asked.url))
        page.goto(f"{url}#{anchor}" if anchor else url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def address(page: Page) -> str:
    """What the address names."""
    return str(page.evaluate("location.hash"))


def focused(page: Page) -> str:
    """Where the focus is: the nearest id around it."""
    return str(page.evaluate("document.activeElement.closest('[id]')?.id ?? ''"))


def settled(find: Callable[[], Any], wanted: Any) -> Any:
    """What is found, as soon as it is what is wanted, or after five seconds: the script hears of a new address late."""
    end = time.monotonic() + 5
    while (found := find()) != wanted and time.monotonic() < end:
        time.sleep(0.02)
    return found


def inert(page: Page) -> bool:
    """Whether the page behind the panels is out of reach."""
    return bool(page.evaluate("document.querySelector('main').inert"))


def test_panel_opens_and_closes(show: Any) -> None:
    """A picture opens its panel, takes the focus there and puts the rest out of reach; closing gives all back."""
    page = show()
    assert page.locator(".panel:visible").count() == 0
    page.locator("#cell-picture-2-1 a").click()
    assert page.locator(".panel:visible").get_attribute("id") == "picture-2-1"
    opened = ("picture-2-1-title", True)
    assert settled(lambda: (focused(page), inert(page)), opened) == opened
    page.locator("#picture-2-1 .close").click()
    assert page.locator(".panel:visible").count() == 0
    closed = ("#cell-picture-2-1", "cell-picture-2-1", False)
    assert settled(lambda: (address(page), focused(page), inert(page)), closed) == closed


def test_keys_go_along_the_line(show: Any) -> None:
    """Arrows go to the neighbours and stop at the ends, Escape closes; with a modifier they are the browser's own."""
    page = show("picture-1-1")
    for key, place in (
        ("ArrowRight", "#picture-1-2"),
        ("ArrowRight", "#picture-1-3"),
        ("ArrowRight", "#picture-1-3"),
        ("ArrowLeft", "#picture-1-2"),
        ("Control+ArrowLeft", "#picture-1-2"),
        ("ArrowLeft", "#picture-1-1"),
        ("ArrowLeft", "#picture-1-0"),
        ("ArrowLeft", "#picture-1-0"),
        ("Escape", "#cell-picture-1-0"),
        ("ArrowRight", "#cell-picture-1-0"),
        ("Escape", "#cell-picture-1-0"),
    ):
        page.keyboard.press(key)
        assert settled(lambda: address(page), place) == place, key
    page.go_back()
    assert page.url == "about:blank", "the keys leave no trail to go back through"


def test_keys_alone_reach_the_panel(show: Any) -> None:
    """Enter on a picture opens its panel; the next tab stop is inside it."""
    page = show()
    page.locator("#cell-picture-1-2 a").focus()
    page.keyboard.press("Enter")
    assert settled(lambda: focused(page), "picture-1-2-title") == "picture-1-2-title"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.panel')?.id") == "picture-1-2"


def test_links_lead_back(show: Any) -> None:
    """From a picture to its adapter, its works, the base and the copied work: each is shown where the link leads."""
    page = show("picture-1-1")
    links = page.locator("#picture-1-1 .ways a, #picture-1-1 .check a")
    places = [link.get_attribute("href") for link in links.all()]
    assert {"#adapter-the-sea-painter", "#base", "#work-1", "#work-2"} <= set(places)
    for number, place in enumerate(places):
        page.evaluate("location.hash = 'picture-1-1'")
        links.nth(number).click()
        page.wait_for_function(
            "place => { const box = document.querySelector(place).getBoundingClientRect();"
            " return box.bottom > 0 && box.top < innerHeight }",
            arg=place,
        )
        assert (address(page), page.locator(".panel:visible").count(), inert(page)) == (place, 0, False)


def test_every_link_inside_the_page_arrives(show: Any) -> None:
    """No anchor is without its element."""
    missing = "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
    assert show().evaluate(missing) == 0


def test_the_walk(show: Any) -> None:
    """The slider shows a stop's picture and weights, the list another scene, the box the picture without adapters."""
    page = show()
    front, shares, link = page.locator("#walk-front"), page.locator("#walk-shares"), page.locator("#walk-open")
    page.locator("#walk-stop").focus()
    page.keyboard.press("ArrowRight")
    assert link.evaluate("link => link.hash") == "#picture-1-2"
    assert front.get_attribute("src") == page.locator("#picture-1-2 .large").get_attribute("src")
    assert "The Sea Painter 0.25" in shares.inner_text()
    assert page.locator("#walk-stop").get_attribute("aria-valuetext") == "Scene 1, stop 2 of 3"
    assert page.locator(".changes:visible").get_attribute("data-scene") == "1"
    page.locator("#walk-scene").select_option("2")
    assert "a jug" in page.locator("#walk-prompt").inner_text()
    assert page.locator(".changes:visible").get_attribute("data-scene") == "2"
    page.locator("#walk-without").check()
    assert link.evaluate("link => link.hash") == "#picture-2-0"
    assert "no adapter was at work" in shares.inner_text()
    assert page.locator("#walk-stop").is_disabled()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pictures_of_any_shape(browser: Browser, tmp_path: Path, size: ViewportSize) -> None:
    """A panorama and a tall picture keep their shape and stay within the window: in grid, panel, ribbon and walk."""
    scenes = [{"prompt": "a coast", "width": 256, "height": 64}, {"prompt": "a tower", "width": 64, "height": 256}]
    recipe = recipe_of(generate={"scenes": scenes, "stops": 3})
    exhibit.run(recipe, hang_all(recipe, tmp_path), Reporter("exhibit", lambda event: None))
    page = browser.new_page(viewport=size, reduced_motion="reduce")
    uri = Workspace(tmp_path).page.as_uri()

    def shape(selector: str) -> float:
        box = page.locator(selector).first.bounding_box()
        assert box
        assert box["height"] <= size["height"]
        assert box["width"] <= size["width"]
        return box["width"] / box["height"]

    for number, aspect in ((1, 4.0), (2, 0.25)):
        page.goto(f"{uri}#picture-{number}-1")
        assert shape(f"#picture-{number}-1 .large") == pytest.approx(aspect, rel=0.02)
        page.goto(uri)
        assert shape(f"#cell-picture-{number}-1 img") == pytest.approx(aspect, rel=0.02)
        page.locator("#walk-scene").select_option(str(number))
        assert shape("#walk-front") == shape("#walk-back") == pytest.approx(aspect, rel=0.02)
    assert shape(".ribbon img") == pytest.approx(4.0, rel=0.02)
    assert page.locator("#base").get_by_text("256 × 64, 64 × 256 pixels").count() == 1
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "no sideways scrolling"
    page.close()


def test_light_and_dark(show: Any) -> None:
    """The wall is light or dark as the system asks, and the text its opposite."""
    levels = {}
    for scheme in ("light", "dark"):
        page = show(scheme=scheme)
        colours = page.evaluate("(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))")
        levels[scheme] = [sum(map(int, colour.strip("rgb()").split(","))) for colour in colours]
    assert levels["light"][0] > 700 > 100 > levels["light"][1]
    assert levels["dark"][0] < 100 < 600 < levels["dark"][1]


@pytest.mark.parametrize("anchor", ["", *PANELS])
def test_a_phone_needs_no_sideways_scrolling(show: Any, anchor: str) -> None:
    """At 390 pixels neither the page nor a panel is wider than the screen."""
    page = show(anchor, size=NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    if anchor:
        assert page.locator(f"#{anchor}").evaluate("panel => panel.scrollWidth") <= NARROW["width"]
        assert page.locator(f"#{anchor} .close").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_accessibility(show: Any, scheme: str, size: ViewportSize) -> None:
    """axe-core finds nothing serious or critical: contrast, names, roles, order; on the page and on panels."""
    found = []
    for anchor in ("", *PANELS):
        page = show(anchor, size=size, scheme=scheme)
        for store in page.locator("details").all():
            store.evaluate("details => details.open = true")
        results = Axe().run(page).response
        assert len(results["passes"]) > 30, "axe ran"
        found += [
            (anchor, rule["id"], node["html"][:200], node["failureSummary"])
            for rule in results["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
    assert found == []


def test_contact_sheet_is_accessible(browser: Browser, tmp_path: Path) -> None:
    """The curator's contact sheet passes the same rules."""
    picture = pages.webp_bytes(draw(1, 64, 48), 64)
    prints = [
        contact_sheet.Print("A", str(n), f"Work {n}", "1873, 64 × 48", n == 1, "blurred", "Open: free.", picture)
        for n in (1, 2)
    ]
    file = tmp_path / "index.html"
    file.write_text(contact_sheet.page("small", prints, {"A": ""}), encoding="utf-8")
    shown = browser.new_page()
    shown.goto(file.as_uri())
    violations = Axe().run(shown).response["violations"]
    shown.close()
    assert [rule["id"] for rule in violations if rule["impact"] in ("serious", "critical")] == []

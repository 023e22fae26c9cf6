"""The pages in a real browser, headless Chromium, opened from disk as a user opens them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from galaxyspark.report.comparison import write_comparison
from galaxyspark.report.page import write_report
from galaxyspark.settings import CompareJob, ReportJob
from tests.report.handmade import SCRIPT, galaxy_id_of, make_run

THEMES = ("light", "dark")
DESKTOP, PHONE = (1280, 900), (390, 844)

INK_ON_PAPER = """
[...document.querySelectorAll("p, td, th, h2, h3, small, figcaption, summary, b, button span")].map(element => {
  let below = element;
  while (below && getComputedStyle(below).backgroundColor === "rgba(0, 0, 0, 0)") below = below.parentElement;
  return [getComputedStyle(element).color, getComputedStyle(below || document.body).backgroundColor];
})"""
"""Of every text its colour, and that of what it stands on."""

Opener = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium or Chrome on the PATH (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser: Browser) -> Opener:
    """Opens a file; afterwards there must have been no error in the console, and no request but for the file."""

    @contextmanager
    def open_file(file: Path, theme: str = "light", size: tuple[int, int] = DESKTOP) -> Iterator[Page]:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(color_scheme=theme, viewport=viewport)
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri(), wait_until="load")
        yield page
        assert said == []
        assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
        context.close()

    return open_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_run(tmp_path_factory.mktemp("browser") / "first", votes=True)
    write_report(ReportJob(run=root))
    return root


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    return run / "report" / "index.html"


@pytest.fixture(scope="module")
def comparison(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    other = make_run(tmp_path_factory.mktemp("browser") / "second", num_galaxies=12, more_wrong=2)
    return write_comparison(CompareJob(runs=(run, other), output=other.parent / "comparison.html"))


def galaxy_in_dialog(page: Page) -> str:
    page.locator("#galaxy").wait_for(state="visible")
    return page.locator("#galaxy-id").inner_text().removeprefix("Galaxy ")


def test_numbers_on_the_page_are_those_of_the_metrics(opened: Opener, run: Path, report: Path) -> None:
    test = json.loads((run / "metrics.json").read_text())["splits"]["test"]
    with opened(report) as page:
        for name in ("cnn_mean16", "svm_mean16", "always_commonest"):
            assert (
                page.locator(f".card[data-classifier={name}] .number").inner_text() == f"{test[name]['accuracy']:.1%}"
            )
        for name, metric in test.items():
            cells = page.locator(f"#table-test tr[data-classifier={name}] td").all_inner_texts()
            low, high = metric["accuracy_interval"]
            assert cells[:2] == [f"{metric['accuracy']:.1%}", f"{low:.1%} – {high:.1%}"]
            assert cells[2:4] == [f"{metric['macro_f1']:.3f}", f"{metric['log_loss']:.3f}"]


def test_gallery_opens_a_galaxy(opened: Opener, report: Path) -> None:
    with opened(report) as page:
        page.locator("button[data-galaxy='0004']").first.click()
        assert galaxy_in_dialog(page) == "0004"
        assert page.locator("#galaxy-classes").inner_text() == "True class: smooth. Network: featured, wrong."
        assert page.locator("#galaxy-views").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
            192,
            192,
        ]
        rows = page.locator("#galaxy-probabilities tbody tr").all_inner_texts()
        sure = 0.55 + 0.43 * 4 / 19
        assert [row.split() for row in rows] == [
            ["smooth", f"{(1 - sure) / 2:.1%}"],
            ["featured", f"{sure:.1%}"],
            ["artifact", f"{(1 - sure) / 2:.1%}"],
        ]
        page.locator("#galaxy-votes summary").click()
        assert page.locator("#galaxy-votes tbody tr").count() == 37
        assert page.locator("#galaxy-votes thead").inner_text().split() == [
            "Question",
            "Answer",
            "Volunteers",
            "Network",
        ]
        page.keyboard.press("Escape")
        page.locator("#galaxy").wait_for(state="hidden")


def test_map_shows_and_opens_the_galaxy_under_the_mouse(opened: Opener, report: Path) -> None:
    with opened(report) as page:
        page.locator("#map-plot .point").first.wait_for()
        assert page.locator("#map-plot .point").count() == 20
        page.locator("#map").scroll_into_view_if_needed()
        box = page.locator("#map-plot .trace.scatter").nth(2).locator(".point").first.bounding_box()
        assert box
        place = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.move(*place)
        page.locator("#map-tip").wait_for(state="visible")
        tip = page.locator("#map-tip").inner_text()
        assert tip == "0010: featured"
        assert page.locator("#map-tip img").evaluate("image => image.naturalWidth") == 48
        page.mouse.click(*place)
        assert galaxy_in_dialog(page) == "0010"


def test_names_do_nothing(opened: Opener, report: Path) -> None:
    """Galaxy 3 has a script for a name, and so has a quarantined file."""
    with opened(report) as page:
        assert page.title().startswith("75.0%")
        page.locator("button", has_text=galaxy_id_of(3)).first.click()
        assert galaxy_in_dialog(page) == f"{SCRIPT}.jpg"
        assert page.title().startswith("75.0%")
        assert SCRIPT in page.locator("#table-quarantine").inner_text()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_page_fits_and_can_be_read(
    opened: Opener, request: pytest.FixtureRequest, tmp_path: Path, which: str, theme: str, size: tuple[int, int]
) -> None:
    with opened(request.getfixturevalue(which), theme, size) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        for ink, paper in {tuple(pair) for pair in page.evaluate(INK_ON_PAPER)}:
            assert contrast(ink, paper) >= 4.5, (ink, paper)  # WCAG 2.1, level AA
        page.screenshot(path=tmp_path / f"{which}-{theme}.png", full_page=True)


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two CSS colours such as ``rgb(1, 2, 3)``, by WCAG 2.1."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_theme_reaches_the_map(opened: Opener, report: Path) -> None:
    inks = set()
    for theme in THEMES:
        with opened(report, theme) as page:
            page.locator("#map-plot .legendtext").first.wait_for()
            inks.add(page.locator("#map-plot .legendtext").first.evaluate("text => getComputedStyle(text).fill"))
    assert len(inks) == 2


def test_on_paper_all_is_shown_in_the_light_theme(opened: Opener, report: Path) -> None:
    with opened(report, "dark") as page:
        assert not page.locator("#settings pre").first.is_visible()
        page.emulate_media(media="print")
        assert page.locator("#settings pre").first.is_visible()
        assert not page.locator("nav").is_visible()
        page.locator("#map-plot .legendtext").first.wait_for()
        ink = page.locator("#map-plot .legendtext").first.evaluate("text => getComputedStyle(text).fill")
        assert contrast(ink, "rgb(255, 255, 255)") >= 4.5


def test_comparison_opens_a_galaxy_on_which_runs_differ(opened: Opener, comparison: Path) -> None:
    """Galaxies 0 to 4 are wrong in the first run, 0 to 6 in the second; of those that differ only 5 is in both."""
    with opened(comparison) as page:
        assert "1 of 8 shared test galaxies" in page.locator("#differ").inner_text()
        page.locator("#differ button").click()
        assert galaxy_in_dialog(page) == "0005"
        text = page.locator("#galaxy-classes").inner_text()
        assert text == "True class: smooth. first: smooth, right. second: featured, wrong."
        heads = page.locator("#galaxy-probabilities thead th").all_inner_texts()
        assert heads == ["Probability", "first", "second"]

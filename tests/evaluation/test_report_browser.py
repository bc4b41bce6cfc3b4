"""The report in a real browser: complete, quiet, offline, and fit for a phone."""

import pytest
from report_example import example, pictures

from evaluation.report import render

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container has little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(example(pictures=pictures(4))))
    return path.as_uri()


@pytest.fixture
def open_page(browser, address):
    """Opens the report at a width and scheme; complains and requests are collected on the page object."""
    pages = []

    def opened(width, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(address, wait_until="load")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()


def test_the_report_opens_without_a_complaint_and_asks_no_one_for_anything(open_page, address):
    page = open_page(1200)
    assert page.complaints == []
    assert [url for url in page.requests if url != address and not url.startswith("data:")] == []


def test_every_picture_is_loaded_and_the_table_is_seen(open_page):
    page = open_page(1200)
    loaded = page.eval_on_selector_all("img", "images => images.map(i => i.complete && i.naturalWidth > 0)")
    assert len(loaded) == 4 * 15
    assert all(loaded)
    cell = page.locator("#denoising .places td", has_text="31.20").first
    assert cell.is_visible()
    assert "[31.08, 31.32]" in cell.inner_text()
    assert page.locator("#denoising .film img").first.bounding_box()["width"] > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone_but_what_scrolls_by_itself(open_page, scheme):
    page = open_page(390, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.body.scrollWidth") <= 390
    panels = page.locator("#denoising .panels").first
    assert panels.evaluate("e => e.scrollWidth > e.clientWidth")
    assert panels.locator("img").first.bounding_box()["width"] > 130


def test_light_and_dark_differ_and_both_can_be_read(open_page):
    def contrast(scheme):
        page = open_page(800, scheme)
        style = "getComputedStyle(document.body)"
        return [luminance(page.evaluate(f"{style}.{name}")) for name in ("color", "backgroundColor")]

    def luminance(css):
        channels = [int(part) / 255 for part in css[css.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for scheme, sign in (("light", -1), ("dark", 1)):
        ink, paper = contrast(scheme)
        assert sign * (ink - paper) > 0
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7


def test_folded_parts_open(open_page):
    page = open_page(1200)
    page.get_by_text("1 more picture").click()
    assert page.locator("details.more .film").first.is_visible()
    page.get_by_text("Every case").click()
    every = page.locator("#denoising details", has_text="Every case").last
    assert every.locator("table").is_visible()
    assert every.locator("tbody tr").count() == 20


def canvases(film):
    """The axial panels of a picture as what they show: one checksum of pixels each."""
    return film.evaluate(
        "f => [...f.querySelectorAll('.axial canvas')].map(c => "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.reduce((a, b) => (a * 31 + b) % 1000003, 0))"
    )


def test_a_slider_moves_all_panels_of_its_picture_by_mouse_and_by_keyboard(open_page):
    page = open_page(1200)
    film, other = page.locator(".film").nth(0), page.locator(".film").nth(1)
    slider, said = film.locator("input[type=range]"), film.locator("output")
    panels = film.locator(".panel").count()
    slider.click(position={"x": 2, "y": slider.bounding_box()["height"] / 2})
    film.locator(".axial canvas").nth(panels - 1).wait_for()
    assert said.inner_text() == "slice 1 of 12, z = −40 mm"
    lowest = canvases(film)
    slider.press("ArrowRight")
    page.wait_for_function("document.querySelector('.film output').value.startsWith('slice 2')")
    assert said.inner_text() == "slice 2 of 12, z = −36 mm"
    page.wait_for_timeout(100)
    moved = canvases(film)
    assert len(moved) == panels
    assert all(a != b for a, b in zip(lowest, moved, strict=True))
    slider.press("End")
    page.wait_for_function("document.querySelector('.film output').value.startsWith('slice 12')")
    assert other.locator("canvas").count() == 0
    assert page.complaints == []


def test_without_scripts_three_planes_stand_there_and_no_slider(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    film = page.locator(".film").first
    assert not film.locator(".slider").is_visible()
    assert film.locator("img").count() == 3 * film.locator(".panel").count()
    page.close()


def test_plots_are_seen_with_their_legends(open_page):
    page = open_page(390)
    roc, sigma = (page.locator(".plot", has_text=title).first for title in ("ROC within the organ", "Noise level"))
    assert roc.locator("polyline.series").count() == 2
    assert roc.locator(".legend").inner_text().split() == ["ours", "organ-median"]
    assert sigma.locator("circle.series").count() == 3
    page.get_by_text("spread over patients").first.click()
    assert page.locator("svg.spread .dot").first.is_visible()
    cost = page.locator(".plot", has_text="Cost and PSNR").first
    assert sorted(cost.locator(".name").all_text_contents()) == ["ours-mean", "ours-restore", "tv"]
    for plot in page.locator(".plot svg").all():
        assert plot.bounding_box()["width"] <= 390

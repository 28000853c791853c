"""report.html in a real browser: on a phone and a desk, light and dark, and alone in the world."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from looking import fits_in_width, outside, texts
from running import forgiving, kvswarm, run, until

pytestmark = pytest.mark.browser

SHOTS = os.environ.get("KVSWARM_SCREENSHOTS")
"""A folder for the pictures of docs/; without it none are made."""
WIDTHS_PX = (390, 820, 1440)
WIDTHS = "return [...document.querySelectorAll('.main-svg')].map((e) => e.clientWidth)"
INK = "return document.querySelector('.plot').layout.font.color"
TAB = "\ue004"
GROUND = "return getComputedStyle(document.querySelector('#meaning')).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, url: str) -> Path:
    """The page of a run that has variants, plots and a server."""
    folder = tmp_path_factory.mktemp("report")
    profile = forgiving(folder, "requests: 120\nshared_prefix_tokens: 64\ninput_tokens: 128")
    done = run(folder / "run", "--profile", profile, "--url", url)
    assert done.code == 0, done.err
    return done.run.path / "report.html"


def opened(browser: Any, page: Path) -> None:
    """Open it and wait until its plots are drawn."""
    browser.get(page.as_uri())
    drawn = """
        const plots = [...document.querySelectorAll(".plot")];
        return plots.length > 3 && plots.every((plot) => plot.querySelector(".main-svg"));"""
    until(lambda: browser.execute_script(drawn), "the plots are drawn")


def media(browser: Any, **features: str) -> None:
    """What the system says of itself."""
    plain = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": plain})


def test_the_page_fits_phones_tablets_and_desks(browser: Any, page: Path) -> None:
    """Without scrolling sideways, and without a word to anybody."""
    for width_px in WIDTHS_PX:
        size = {"width": width_px, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        opened(browser, page)
        fits_in_width(browser)
        widths = browser.execute_script(WIDTHS)
        assert 0 < max(widths) <= width_px
        if SHOTS is not None:
            browser.save_screenshot(str(Path(SHOTS) / f"report-{width_px}.png"))
    assert outside(browser, page.as_uri()) == []
    assert [line["message"] for line in browser.get_log("browser")] == []


def test_tables_are_sorted_by_their_headings_and_restored(browser: Any, page: Path) -> None:
    """By keyboard as by mouse; a screen reader is told."""
    opened(browser, page)
    column = """
        const [table] = document.querySelectorAll("table:not(.facts)");
        return [...table.rows].slice(1).map((row) => row.cells[2].textContent);"""
    sort = "return document.querySelector('table:not(.facts)').rows[0].cells[2]"
    before = browser.execute_script(column)
    heading = browser.execute_script(sort)
    button = heading.find_element("css selector", "button")

    def numbers() -> list[float]:
        return [float(text) for text in browser.execute_script(column) if text != "-"]

    states = []
    for _ in range(3):
        button.send_keys("\n")
        states.append((heading.get_attribute("aria-sort"), numbers()))
    ascending = sorted(states[0][1])
    assert states[0] == ("ascending", ascending)
    assert states[1] == ("descending", ascending[::-1])
    assert states[2][0] == "none"
    assert browser.execute_script(column) == before


def test_a_figure_says_what_it_means_on_hover_and_on_focus(browser: Any, page: Path) -> None:
    """A phone has no hover, a keyboard neither."""
    opened(browser, page)
    seen = []
    for _ in range(12):
        browser.switch_to.active_element.send_keys(TAB)
        seen += texts(browser, "#meaning")
    assert seen[0] == ""
    assert seen[1] == "mean: arithmetic mean"
    assert "TTFT: first token minus sent" in seen


def test_light_dark_and_paper_have_their_own_ink(browser: Any, page: Path) -> None:
    """Plots too, also where the system changes while the page is open; paper is always light."""
    media(browser, prefers_color_scheme="light")
    opened(browser, page)
    light = browser.execute_script(INK), browser.execute_script(GROUND)
    media(browser, prefers_color_scheme="dark")
    until(lambda: browser.execute_script(INK) != light[0], "the plots' ink is for the dark")
    assert browser.execute_script(GROUND) != light[1]
    if SHOTS is not None:
        browser.save_screenshot(str(Path(SHOTS) / "report-dark.png"))
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    until(lambda: browser.execute_script(INK) == light[0], "the ink is for paper")
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    until(lambda: browser.execute_script(INK) != light[0], "it is dark again")


@pytest.mark.usefixtures("browser")
def test_the_plots_are_drawn_as_pictures(page: Path) -> None:
    """Each of the page's, in a file of its own."""
    env = {"KVSWARM_CHROMIUM": os.environ["KVSWARM_CHROMIUM"]}
    done = kvswarm("report", page.parent, "--png", cwd=page.parent, env=env)
    assert done.code == 0, done.err
    pictures = sorted((page.parent / "plots").glob("*.png"))
    assert {"ttft-over-time.png", "ttft-distribution.png"} <= {path.name for path in pictures}
    for path in pictures:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000

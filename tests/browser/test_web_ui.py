"""What a person does in the web UI, in a real browser: start a run, watch it, take its figures."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from looking import fits_in_width, outside, texts
from running import CHECKOUT, LOCUST, going, until

pytestmark = pytest.mark.browser

LOCUSTFILE = CHECKOUT / "locustfiles" / "standard.py"
SHOTS = os.environ.get("KVSWARM_SCREENSHOTS")
"""A folder for the pictures of docs/web-ui.md; without it none are made."""
WIDTHS_PX = (1280, 400)


def click(browser: Any, name: str) -> None:
    """Press a button or link by what stands on it, once it is there."""
    script = """
    const found = [...document.querySelectorAll("button, a")].find((e) =>
        e.innerText.trim().toLowerCase() === arguments[0].toLowerCase());
    found?.click();
    return found !== undefined;"""
    until(lambda: browser.execute_script(script, name), f"there is a button {name!r}")


def start(browser: Any, **fields: str) -> None:
    """Fill in the start form, as it is shown first, and send it."""
    until(lambda: "Custom parameters" in texts(browser, "button"), "the start form is there")
    click(browser, "Custom parameters")
    until(lambda: browser.find_element("name", "kvProfile").is_displayed(), "the options are shown")
    for name, value in fields.items():
        field = browser.find_element("name", name)
        if field.tag_name == "select":
            choice = field.find_element("css selector", f'option[value="{value}"]')
            browser.execute_script("arguments[0].scrollIntoView()", choice)
            choice.click()
        else:
            field.send_keys(value)
    click(browser, "Start")


def llm_tab(browser: Any) -> dict[str, list[str]]:
    """The rows of the tab: name -> the other cells."""
    rows = texts(browser, "tbody tr")
    cells = [row.split("\t") for row in rows]
    return {name: [cell.strip() for cell in others] for name, *others in cells}


def plotted(browser: Any, plot: str) -> dict[str, int]:
    """How many moments of each line of a plot are drawn."""
    lines: list[dict[str, Any]] = browser.execute_script(
        "return (document.getElementById(arguments[0]).data || []).map("
        "(line) => ({name: line.name, y: [...line.y]}))",
        f"plot-{plot}",
    )
    return {line["name"]: sum(y is not None for y in line["y"]) for line in lines}


def colors(browser: Any) -> list[str]:
    """Of the page's text, its ground, and the texts in its plots."""
    return browser.execute_script("""
        const canvas = document.createElement("div");
        canvas.style.color = "CanvasText";
        canvas.style.background = "Canvas";
        document.body.append(canvas);
        const {color, backgroundColor} = getComputedStyle(canvas);
        const found = [color, backgroundColor];
        canvas.remove();
        return [...found, document.getElementById("plot-ttft").layout.font.color];""")


def shoot(browser: Any, name: str) -> None:
    if SHOTS is None:
        return
    for width_px in WIDTHS_PX:
        browser.set_window_size(width_px, 900)
        until(
            lambda width_px=width_px: browser.execute_script("return innerWidth") <= width_px,
            "the window has its size",
        )
        browser.execute_script("scrollTo(0, 0)")
        fits_in_width(browser)
        browser.save_screenshot(str(Path(SHOTS) / f"{name}-{width_px}.png"))
    browser.set_window_size(1280, 900)


def test_a_run_is_started_watched_stopped_and_its_figures_taken_in_the_browser(
    browser: Any, url: str, tmp_path: Path
) -> None:
    """From the form to summary.json without a terminal, and without a word to another host."""
    command = (*LOCUST, "-f", LOCUSTFILE, "--host", url, "--web-port", "0")
    with going(*command, cwd=tmp_path) as locust:
        address = locust.address()
        browser.get(address)
        start(browser, kvProfile="burst", kvRequests="60", kvRate="8")
        click(browser, "LLM")
        until(lambda: llm_tab(browser).get("Requests ok", [""])[0].endswith("of 60"), "it runs")
        until(lambda: int(llm_tab(browser)["Requests ok"][0].split()[0]) > 0, "some have ended")
        before = llm_tab(browser)
        until(lambda: llm_tab(browser)["Requests ok"] != before["Requests ok"], "it moves on")
        seen = llm_tab(browser)
        for figure in ("TTFT (ms)", "ITL (ms)", "TPOT (ms)", "E2E (ms)"):
            p50, p90, p99 = (float(cell) for cell in seen[figure][1:])
            assert 0 < p50 <= p90 <= p99
        assert seen["Verdict"][0].startswith("so far: ")
        shoot(browser, "web-ui-tab")

        click(browser, "Live plots")
        until(lambda: plotted(browser, "ttft").get("p50", 0) >= 1, "TTFT is drawn")
        first = plotted(browser, "requests")
        until(
            lambda: plotted(browser, "requests")["in flight"] >= first["in flight"] + 2,
            "the plot grows",
        )
        assert {name: set(plotted(browser, name)) for name in ("ttft", "itl", "tokens", "kv")} == {
            "ttft": {"p50", "p99"}, "itl": {"p50", "p99"}, "tokens": {"tokens/s"}, "kv": {"in use"},
        }  # fmt: skip
        assert set(plotted(browser, "requests")) == {
            "in flight", "server: running", "server: waiting",
        }  # fmt: skip

        until(lambda: "summary.json" in texts(browser, "#run-list a"), "the report is made")
        browser.set_window_size(400, 900)
        fits_in_width(browser)
        browser.set_window_size(1280, 900)
        shoot(browser, "web-ui-llm")
        light = colors(browser)
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        until(
            lambda: all(a != b for a, b in zip(colors(browser), light, strict=True)), "it is dark"
        )
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        click(browser, "summary.json")
        until(lambda: bool(list(tmp_path.glob("*-summary.json"))), "the file is here")
        click(browser, "Locust: start, stop, tables")
        until(lambda: "run.json" in texts(browser, "#kvswarm-links a"), "the tab has the links too")
        until(lambda: "Requests ok" in llm_tab(browser), "the tab has its rows")
        assert llm_tab(browser)["Requests ok"] == ["60 of 60", "", "", ""]
        assert outside(browser, address) == []
        said = [line["message"] for line in browser.get_log("browser")]
        assert said == []
        locust.end(signal.SIGTERM)
    (downloaded,) = tmp_path.glob("*-summary.json")
    summary = json.loads(downloaded.read_text())
    assert summary["requests"]["ok"] == 60
    assert summary["run"]["profile"] == "burst"


def test_a_run_that_would_go_on_is_stopped_in_the_browser(
    browser: Any, url: str, tmp_path: Path
) -> None:
    """Locust's own button ends the load, and the run still has its figures."""
    command = (*LOCUST, "-f", LOCUSTFILE, "--host", url, "--web-port", "0")
    with going(*command, cwd=tmp_path) as locust:
        browser.get(locust.address())
        start(browser, kvRequests="1000000", kvMaxTokens="8")
        click(browser, "LLM")
        until(lambda: llm_tab(browser).get("TTFT (ms)", ["", "-"])[1] not in {"", "-"}, "it runs")
        click(browser, "Stop")
        until(lambda: "summary.json" in texts(browser, "#kvswarm-links a"), "the report is made")
        (told,) = texts(browser, "#kvswarm-links span")
        assert told.split(": ")[1] in {"valid", "degraded", "invalid"}
        locust.end(signal.SIGTERM)
    (summary,) = tmp_path.glob("runs/*/summary.json")
    assert json.loads(summary.read_text())["requests"]["ok"] > 0


def test_with_a_login_the_browser_gets_in_by_it_alone(
    browser: Any, url: str, tmp_path: Path
) -> None:
    """A browser sends what it was told once with every later request, to every route."""
    env = {"KVSWARM_WEB_USER": "ann", "KVSWARM_WEB_PASSWORD": "open-0815"}
    command = (*LOCUST, "-f", LOCUSTFILE, "--host", url, "--web-port", "0")
    with going(*command, cwd=tmp_path, env=env) as locust:
        address = locust.address()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/llm", timeout=30)  # noqa: S310 - http
        assert refused.value.code == 401
        refused.value.close()
        browser.get(f"http://ann:open-0815@{urlsplit(address).netloc}/")  # as into the prompt
        browser.get(address)
        start(browser, kvRequests="20", kvMaxTokens="8")
        click(browser, "LLM")
        until(lambda: llm_tab(browser).get("Requests ok", [""])[0] == "20 of 20", "it has run")
        click(browser, "Live plots")
        until(lambda: "summary.json" in texts(browser, "#run-list a"), "the page has the run")
        locust.end(signal.SIGTERM)

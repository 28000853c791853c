"""What a person sees of a page, and what a page asks of other hosts."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from running import until


def texts(browser: Any, selector: str) -> list[str]:
    """What a person reads in these elements."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", selector
    )


def outside(browser: Any, address: str) -> list[str]:
    """Hosts other than Locust's that its pages asked for anything."""
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert asked
    hosts = [urlsplit(url).netloc for url in asked if url.startswith(("http", "ws"))]
    return [host for host in hosts if host != urlsplit(address).netloc]


def fits_in_width(browser: Any) -> None:
    """Nobody scrolls sideways on a phone."""
    wide = "return document.documentElement.scrollWidth <= innerWidth"
    until(lambda: browser.execute_script(wide), "the page is no wider than the window")

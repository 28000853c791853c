"""A real browser, and Locust with its web UI as a person starts it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from running import simulator

CHROMIUM, DRIVER = "KVSWARM_CHROMIUM", "KVSWARM_CHROMEDRIVER"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Chromium without a window and with a fresh profile; skips where there is none."""
    if not (os.environ.get(CHROMIUM) and os.environ.get(DRIVER)):
        pytest.skip(f"{CHROMIUM} is not set: `make test-browser` looks for Chromium and runs these")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ[CHROMIUM]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=os.environ[DRIVER])
        chromium = webdriver.Chrome(options=options, service=service)
        try:
            chromium.set_window_size(1280, 900)
            yield chromium
        finally:
            chromium.quit()


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A simulator."""
    with simulator() as address:
        yield address

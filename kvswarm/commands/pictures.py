"""`kvswarm report --png`: the plots of a run as pictures, drawn by a browser without a window.

In:  a finished run directory.  Out: `plots/NAME.png` in it. Raises UsageError where no browser is.
Plotly draws in a page of this machine that asks nobody for anything; the browser prints that page,
with the pictures in it, and leaves.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

# plotly.offline re-exports it without saying so to mypy.
from plotly.offline import get_plotlyjs

from kvswarm.analysis.report import run_figures
from kvswarm.errors import KvswarmError, UsageError
from kvswarm.rundir import RunDir

BROWSER_ENV: Final = "KVSWARM_CHROMIUM"
BROWSERS: Final = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
)  # fmt: skip
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=60000", "--dump-dom",
)  # fmt: skip
WIDTH_PX, HEIGHT_PX = 1000, 440
DRAWING_S: Final = 180.0
PICTURE: Final = re.compile(r'<img id="plot(\d+)" src="data:image/png;base64,([^"]+)"')
PAGE: Final = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<body>
<script>$plotly</script>
<script type="application/json" id="figures">$figures</script>
<script>
const figures = JSON.parse(document.getElementById("figures").textContent);
figures.forEach((figure, place) => {
  Plotly.toImage(figure, {format: "png", width: $width, height: $height, scale: 2}).then((url) => {
    const image = document.createElement("img");
    image.id = "plot" + place;
    image.src = url;
    document.body.append(image);
  });
});
</script>
"""


def write_pictures(run: RunDir, summary: dict[str, Any]) -> list[Path]:
    """Draw every plot; give the files. Raises UsageError, KvswarmError, RunDirError."""
    browser = _browser()
    figures = run_figures(run, summary)
    pictures = _drawn(browser, figures)
    folder = run.path / "plots"
    folder.mkdir(exist_ok=True)
    paths = []
    for figure, picture in zip(figures, pictures, strict=True):
        name = re.sub(r"[^a-z0-9]+", "-", _name(figure).lower()).strip("-")
        paths.append(folder / f"{name}.png")
        paths[-1].write_bytes(picture)
    return paths


def _name(figure: Any) -> str:
    """What a plot is of: its title, or for a distribution the figure that it is of."""
    title = str(figure.layout.title.text)
    of, colon, _ = title.partition(": share of")
    return f"{of} distribution" if colon else title


def _drawn(browser: str, figures: Sequence[Any]) -> list[bytes]:
    """A PNG of each figure."""
    plain = [json.loads(figure.to_json()) for figure in figures]
    text = Template(PAGE).substitute(
        plotly=get_plotlyjs(),
        figures=json.dumps(plain).replace("</", "<\\/"),
        width=WIDTH_PX,
        height=HEIGHT_PX,
    )
    with tempfile.TemporaryDirectory(prefix="kvswarm-", ignore_cleanup_errors=True) as scratch:
        page = Path(scratch) / "plots.html"
        page.write_text(text, "utf-8")
        command = [browser, *FLAGS, f"--user-data-dir={scratch}/profile", page.as_uri()]
        try:
            done = subprocess.run(  # noqa: S603 - a browser that the person has, no shell
                command, capture_output=True, text=True, timeout=DRAWING_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KvswarmError(f"{browser}: drew no pictures in {DRAWING_S:g} s") from error
    found = {int(place): base64.b64decode(data) for place, data in PICTURE.findall(done.stdout)}
    if len(found) < len(figures):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise KvswarmError(f"{browser}: drew {len(found)} of {len(figures)} pictures: {last}")
    return [found[place] for place in range(len(figures))]


def _browser() -> str:
    """The browser's path. Raises UsageError where there is none."""
    wanted = os.environ.get(BROWSER_ENV)
    found = next(filter(None, map(shutil.which, [wanted] if wanted else BROWSERS)), None)
    if found is None:
        raise UsageError(
            f"--png: there is no {wanted or 'Chromium or Chrome'} on this machine",
            fix=f"Install one, or name it in {BROWSER_ENV}. report.html draws them, too.",
        )
    return found

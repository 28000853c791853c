"""Ask a server for its metrics once a second, in a process of its own.

Use: python -m kvswarm.telemetry.recorder FILE
In:  on standard input one line of JSON (`url`, `headers`, `ca_file`, `insecure`), and then nothing,
     until its end says that the run is over. So it ends when the process that measures does.
Out: FILE (`pages.py`); on standard output `ready` after the first page, or why there will be none.

The process that measures has no time for this: a page of vLLM is 60 kB.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from pathlib import Path
from typing import Final

from kvswarm.errors import UsageError
from kvswarm.stream.target import TLS, Target
from kvswarm.telemetry.pages import append_page

INTERVAL_S: Final = 1.0
PAGES_PER_INTERVAL: Final = 600
"""After so many pages the interval doubles: a day's run must not fill the disk."""
TIMEOUT_S: Final = 5.0
MAX_PAGE_BYTES: Final = 16 << 20
OK: Final = 200
READY: Final = "ready"
API_PATHS: Final = ("/openai/v1", "/v1")


def metrics_path(base_path: str) -> str:
    """Where a server whose API hangs on this path has its metrics."""
    for path in API_PATHS:
        if base_path.endswith(path):
            return base_path.removesuffix(path) + "/metrics"
    return base_path + "/metrics"


def fetch(target: Target) -> bytes:
    """Give the text of /metrics. Raises OSError or HTTPException where there is none."""
    connection = target.connection(TIMEOUT_S)
    try:
        headers = {**target.headers, "Accept": "text/plain"}
        connection.request("GET", metrics_path(target.base_path), headers=headers)
        response = connection.getresponse()
        text = response.read(MAX_PAGE_BYTES)
    finally:
        connection.close()
    if response.status != OK:
        raise http.client.HTTPException(f"status {response.status}")
    return text


def record(target: Target, path: Path) -> None:
    """Record until standard input ends, and once more then."""
    with path.open("xb") as file:
        append_page(file, time.time_ns(), fetch(target))
        print(READY, flush=True)  # noqa: T201 - for the process that started this one
        pages, over = 1, False
        while not over:
            interval_s = INTERVAL_S * 2 ** (pages // PAGES_PER_INTERVAL)
            over = bool(select.select([sys.stdin], [], [], interval_s)[0])
            try:
                append_page(file, time.time_ns(), fetch(target))
                pages += 1
            except (OSError, http.client.HTTPException):
                continue  # a server under load may miss one; the next tells as much


def main() -> None:
    """Read what to ask, and ask."""
    asked = json.loads(sys.stdin.readline())
    try:
        tls = TLS(ca_file=asked["ca_file"], insecure=asked["insecure"])
        record(Target.of(asked["url"], asked["headers"], tls), Path(sys.argv[1]))
    except (OSError, http.client.HTTPException, UsageError) as error:
        Path(sys.argv[1]).unlink(missing_ok=True)
        print(f"no /metrics: {error}", flush=True)  # noqa: T201 - see above


if __name__ == "__main__":
    main()

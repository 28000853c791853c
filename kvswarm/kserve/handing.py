"""The words between a run's master on the cluster and who fetches its results.

Every request has the token in the header `TOKEN_HEADER`: the API server's proxy to pods, through
which it comes, keeps `Authorization` for itself. Every answer has the header `OUR_HEADER`, so that
it is not taken for one of the API server.

| Request | Answer |
|---|---|
| GET /state | `State` as JSON |
| GET /archive | the run directory, see `kvswarm.archive`; `Range: bytes=N-` goes on from there |
| POST /stop | the run ends in order, as by Ctrl-C |
| POST /taken | the master ends |
"""

from __future__ import annotations

from typing import Final

import msgspec

TOKEN_HEADER: Final = "X-Kvswarm-Token"  # noqa: S105 - a header's name
OUR_HEADER: Final = "X-Kvswarm"


class State(msgspec.Struct, kw_only=True):
    """Where the run stands. `phase`: `starting`, `running`, `ended`."""

    phase: str = "starting"
    exit_code: int | None = None
    error: str | None = None
    """Why it ended without a run, in words."""
    archive_bytes: int | None = None
    """None: there is nothing to fetch."""
    archive_sha256: str | None = None

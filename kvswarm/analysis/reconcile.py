"""Does the server tell of the same run as the client? What it says otherwise, in words.

In:  the table of requests and the server's own counters, both over the whole run.
Out: contradictions, for the verdict. None where the server has no vLLM metrics.

A server that counted fewer requests is no contradiction: it may be one of several replicas.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kvswarm.analysis.rows import open_table
from kvswarm.analysis.server import server_totals
from kvswarm.rundir import RunDir

TOLERANCE_SHARE: Final = 0.01
TTFT_SHARE: Final = 0.10
TTFT_MS: Final = 5.0


def contradictions(run: RunDir) -> tuple[str, ...]:
    """Compare requests, tokens and the mean TTFT. Raises RunDirError where the table is damaged."""
    server = server_totals(run)
    if server is None:
        return ()
    with open_table(run) as file:
        table = file.read(columns=["error_kind", "completion_tokens", "ttft_ms"])
    ok = np.array(table["error_kind"].is_null())
    tokens = table["completion_tokens"].to_numpy().astype(float)[ok]
    ttft_ms = table["ttft_ms"].to_numpy().astype(float)[ok]
    count, others = int(ok.sum()), int((~ok).sum())
    margin = max(1.0, TOLERANCE_SHARE * count)
    if server.requests > count + others + margin:
        return (
            f"the server finished {server.requests:.0f} requests in the run, this run made "
            f"{count + others}: others used it too, so the load was not this run's alone.",
        )
    found = []
    if others or abs(server.requests - count) > margin or not count:
        return ()  # one of several replicas, or answers whose tokens nobody counted whole
    told = float(tokens.sum())  # NaN, and so no contradiction, where an answer has no usage
    if abs(server.tokens - told) > max(1.0, TOLERANCE_SHARE * told):
        found.append(
            f"the server's /metrics counts {server.tokens:.0f} output tokens in the run, its "
            f"answers tell of {told:.0f}."
        )
    if server.ttft_count:
        server_ms = server.ttft_sum_s / server.ttft_count * 1000
        client_ms = float(ttft_ms.mean())
        if server_ms > client_ms * (1 + TTFT_SHARE) and server_ms > client_ms + TTFT_MS:
            found.append(
                f"TTFT is {client_ms:.2f} ms on average, but {server_ms:.2f} ms by the server's "
                "own /metrics: no client can see a token before it is there."
            )
    return tuple(found)

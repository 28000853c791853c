"""Do the servers tell of the same run as the client? Side by side, and contradictions in words.

In:  the table of requests and what the servers told, both over the same window.
Out: `ServerSection`: the summary's `server`, and contradictions for the verdict.

The window is that of the pages: from the last one before the first measured request was sent to
the first one after the last measured one ended. Of the client, what ended within it counts,
whichever phase it belongs to, for the server knows no phases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from kvswarm.analysis.client_side import ClientSide, client_side, measured_window
from kvswarm.analysis.server_figures import server_figures
from kvswarm.analysis.server_told import Told
from kvswarm.rundir import RunDir, RunInfo

TOLERANCE_SHARE: Final = 0.01
FASTER_SHARE: Final = 0.10
FASTER_MS: Final = 5.0
"""A client may be faster than the server on the mean by so much, of either, and not by both."""
EDGE_SHARE: Final = 0.10
"""With more of the requests in flight at an edge of the window, the means are of other ones."""
TOKENS_PER_EVENT: Final = 1.02
"""From here on a gap between events is not a gap between tokens, nor between the server's steps."""
COUNTED: Final = ("vllm", "trtllm", "tgi")
"""Kinds that count a request once, when it has ended. Triton has several models to one."""
UNCOVERED: Final = (
    "Not compared: the server's pages do not cover the window, or it was started anew."
)
WITHIN: Final = f"Within {FASTER_MS:g} ms, or {FASTER_SHARE:.0%}."
AGREES: Final = "They agree."
WAY: Final = (
    "HTTP, the network and proxies between, there and back, and time until the token was sent."
)
CONTRADICTS: Final = "They contradict each other: see the verdict."
BUNDLED: Final = "something between, such as a proxy, holds tokens back and sends them together."
BEFORE: Final = {
    "ttft_ms": "no client can see a token before it is there.",
    "itl_ms": BUNDLED,
    "tpot_ms": BUNDLED,
    "e2e_ms": "no answer can end before the server has ended it.",
}
"""What is wrong where the client was faster."""
LABELS: Final = {"ttft_ms": "TTFT", "itl_ms": "ITL", "tpot_ms": "TPOT", "e2e_ms": "E2E"}


@dataclass(frozen=True)
class ServerSection:
    """What the summary and the verdict need of the servers."""

    section: dict[str, Any] | None = None
    contradictions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Line:
    """One comparison."""

    client: float | None
    server: float | None
    explained: str
    contradiction: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the summary has it."""
        both = self.client is not None and self.server is not None
        return {
            "client": self.client,
            "server": self.server,
            "difference": self.client - self.server if both else None,  # type: ignore[operator]
            "explained": self.explained,
        }


def server_section(run: RunDir, info: RunInfo) -> ServerSection:
    """Compute both. Raises RunDirError where a table is damaged."""
    window = measured_window(run) if run.server.exists() else None
    figures = server_figures(run, info, window) if window is not None else None
    if figures is None:
        return ServerSection()
    if figures.total is None:
        return ServerSection({**figures.section, "reconciliation": None})
    client = client_side(run, figures.total.span)
    lines = _compare(client, figures.total, all_given=figures.all_given)
    if figures.all_given and figures.replicas > 1 and lines["requests"].explained == AGREES:
        over_all = f"They agree, over all {figures.replicas} replicas."
        lines["requests"] = replace(lines["requests"], explained=over_all)
    notes = [*figures.section["notes"], *_unmeasured(client)]
    return ServerSection(
        {
            **figures.section,
            "notes": notes,
            "reconciliation": {name: line.to_dict() for name, line in lines.items()},
        },
        tuple(line.contradiction for line in lines.values() if line.contradiction is not None),
    )


def _unmeasured(client: ClientSide) -> list[str]:
    if not client.unmeasured:
        return []
    whole = client.ok + client.others
    return [
        f"{client.unmeasured} of the {whole} requests that ended between the first page and the "
        "last are of warm-up or cool-down, and in these figures: a page comes once a second."
    ]


def _compare(client: ClientSide, server: Told, *, all_given: bool) -> dict[str, _Line]:
    """Requests first: only where they agree, the rest is of the same requests."""
    requests = _requests(client, server, all_given=all_given)
    why_not = _why_not(client, server, requests)
    lines = {"requests": requests}
    for name, mine, counter in (
        ("prompt_tokens", client.prompt_tokens, "prompt_tokens"),
        ("output_tokens", client.output_tokens, "generation_tokens"),
    ):
        told = server.counters.get(counter)
        if mine is None or told is None or why_not is not None:
            lines[name] = _not_compared(mine, told, why_not)
        else:
            lines[name] = _tokens(name, mine, told, client.tokens_at_edges)
    for name in LABELS:
        mine, told = client.means_ms.get(name), server.mean_ms(name)
        not_alike = why_not or _not_alike(name, client, server)
        if mine is None or told is None or not_alike is not None:
            lines[name] = _not_compared(mine, told, not_alike)
        else:
            lines[name] = _mean(name, mine, told)
    if lines["itl_ms"].contradiction is not None:  # TPOT would say the same again
        lines["tpot_ms"] = replace(lines["tpot_ms"], contradiction=None)
    return lines


def _margin(client: ClientSide) -> float:
    return max(1.0, TOLERANCE_SHARE * client.ok) + client.at_edges


def _requests(client: ClientSide, server: Told, *, all_given: bool) -> _Line:
    ok, told, most = client.ok, server.requests, client.ok + client.others
    if told is None or server.kind not in COUNTED:
        return _Line(ok, told, "Not compared: the server does not count whole requests.")
    if server.restarted or not server.span.whole:
        return _Line(ok, told, UNCOVERED)
    contradiction = None
    if told > most + _margin(client):
        contradiction = (
            f"the server finished {told:.0f} requests in the run, this run made {most}: others "
            "used it too, so the load was not this run's alone."
        )
    elif told < ok - _margin(client) and all_given:
        contradiction = (
            f"the servers that were asked for metrics finished {told:.0f} requests in the run, the "
            f"client saw {ok}: others answered too, so the servers' figures are of a part."
        )
    if contradiction is not None:
        return _Line(ok, told, CONTRADICTS, contradiction)
    return _Line(ok, told, _small_difference(client, told))


def _small_difference(client: ClientSide, told: float) -> str:
    if told == client.ok:
        return AGREES
    if told < client.ok - _margin(client):
        return "The page is of one of several replicas; name each with --metrics-url."
    if client.others:
        return "Failed and cancelled requests, which the server may have finished."
    if client.at_edges:
        return f"{client.at_edges} requests were in flight at an edge of the window."
    return "Within one request or 1 %."


def _why_not(client: ClientSide, server: Told, requests: _Line) -> str | None:
    """Why tokens and means cannot be held against each other; None: they can."""
    told = server.requests
    reasons = (
        (requests.contradiction is not None, "Not compared: the server tells of other requests."),
        (server.restarted or not server.span.whole, UNCOVERED),
        (not client.ok, "Not compared: no request succeeded."),
        (
            client.others > 0,
            "Not compared: the server counts what it did for failed requests, too.",
        ),
        (
            client.at_edges > EDGE_SHARE * client.ok,
            f"Not compared: {client.at_edges} requests were in flight at an edge of the window.",
        ),
        (
            server.kind in COUNTED and (told is None or abs(told - client.ok) > _margin(client)),
            "Not compared: the server tells of a part of the requests.",
        ),
    )
    return next((reason for holds, reason in reasons if holds), None)


def _not_compared(mine: float | None, told: float | None, why: str | None) -> _Line:
    if told is None:
        why = "The server does not tell."
    elif mine is None:
        why = "Not compared: the answers do not tell."
    return _Line(mine, told, why or "")


def _tokens(name: str, mine: float, told: float, at_edges: float) -> _Line:
    if told == mine:
        return _Line(mine, told, AGREES)
    if abs(told - mine) <= max(1.0, TOLERANCE_SHARE * mine) + at_edges:
        return _Line(mine, told, "Within 1 %, or of requests at an edge of the window.")
    words = name.replace("_", " ")
    return _Line(
        mine,
        told,
        CONTRADICTS,
        f"the server's own metrics count {told:.0f} {words} in the run, its answers tell of "
        f"{mine:.0f}.",
    )


def _not_alike(name: str, client: ClientSide, server: Told) -> str | None:
    """Why this mean is of something else on the two sides; None: it is not."""
    if name == "tpot_ms" and server.kind == "tgi":
        return "Not compared: TGI's has the prefill in it."
    per = client.tokens_per_event
    if name == "itl_ms" and (per is None or per > TOKENS_PER_EVENT):
        seen = "an unknown number of" if per is None else f"{per:.2f}"
        return f"Not compared: an event had {seen} tokens; see tpot_ms."
    return None


def _mean(name: str, mine: float, told: float) -> _Line:
    if told > mine * (1 + FASTER_SHARE) and told > mine + FASTER_MS:
        return _Line(
            mine,
            told,
            CONTRADICTS,
            f"{LABELS[name]} is {mine:.2f} ms on average, but {told:.2f} ms by the server's own "
            f"metrics: {BEFORE[name]}",
        )
    return _Line(mine, told, WAY if mine >= told else WITHIN)

"""What the client saw over a window, in the server's terms: counts, tokens and means.

In:  the table of requests, one row group at a time.
Out: `Window`, the measured part of the run; `ClientSide`, what ended within a span of pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kvswarm.analysis.rows import Flags, Rows, read_rows
from kvswarm.analysis.series import Span
from kvswarm.analysis.server_figures import Window
from kvswarm.rundir import RunDir


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0


@dataclass
class ClientSide:
    """Requests that ended within the span, whichever phase they belong to."""

    ok: int = 0
    others: int = 0
    """Failed or cancelled ones that were sent."""
    unmeasured: int = 0
    """Of all these, those of warm-up and cool-down."""
    prompt_tokens: float | None = 0.0
    """Of the successful ones; None where an answer does not tell."""
    output_tokens: float | None = 0.0
    events: int = 0
    at_edges: int = 0
    """Requests that were in flight when the first or the last page was read."""
    tokens_at_edges: float = 0.0
    _means: dict[str, _Mean] = field(default_factory=dict)

    @property
    def tokens_per_event(self) -> float | None:
        """Output tokens per token-bearing event; None where it is not known."""
        if self.output_tokens is None or not self.events:
            return None
        return self.output_tokens / self.events

    @property
    def means_ms(self) -> dict[str, float]:
        """Means of what the successful ones had, by the summary's name."""
        return {name: mean.total / mean.count for name, mean in self._means.items()}

    def add(self, name: str, values_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        """Add values to a mean."""
        if len(values_ms):
            mean = self._means.setdefault(name, _Mean())
            mean.total += float(values_ms.sum())
            mean.count += len(values_ms)


def measured_window(run: RunDir) -> Window | None:
    """From the sending of the first measured request to the end of the last; None without any.

    Raises RunDirError where the table is damaged.
    """
    first_ns, last_ns, tokens = np.inf, -np.inf, 0.0
    for rows in read_rows(run):
        sent = rows.measured & ~np.isnan(rows["sent_ns"])
        if sent.any():
            # As floats, moments are rounded by up to 128 ns, which no page's moment is near to.
            first_ns = min(first_ns, float(rows["sent_ns"][sent].min()))
            last_ns = max(last_ns, float(rows["end_ns"][sent].max()))
        tokens += float(rows.output_tokens[rows.good].sum())
    if first_ns > last_ns:
        return None
    return Window(int(first_ns), int(last_ns), tokens)


def client_side(run: RunDir, span: Span) -> ClientSide:
    """Count what ended within the span. Raises RunDirError where the table is damaged."""
    side = ClientSide()
    for rows in read_rows(run):
        _count(rows, span, side)
    return side


def _count(rows: Rows, span: Span, side: ClientSide) -> None:
    sent_ns, end_ns = rows["sent_ns"], rows["end_ns"]
    was_sent = ~np.isnan(sent_ns)
    inside = was_sent & (end_ns > span.start_ns) & (end_ns <= span.end_ns)
    ok = inside & rows.ok
    side.ok += int(ok.sum())
    side.others += int((inside & ~rows.ok).sum())
    side.unmeasured += int((inside & ~rows.measured).sum())
    side.events += int(rows["events"][ok].sum())
    edges: Flags = was_sent & (
        _overlaps(rows, *span.start_edge_ns) | _overlaps(rows, *span.end_edge_ns)
    )
    side.at_edges += int(edges.sum())
    for name in ("prompt_tokens", "completion_tokens"):
        side.tokens_at_edges += float(rows.of(name, edges).sum())
    side.prompt_tokens = _plus(side.prompt_tokens, rows["prompt_tokens"][ok])
    side.output_tokens = _plus(side.output_tokens, rows["completion_tokens"][ok])
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        side.add(name, rows.of(name, ok))
    side.add("itl_ms", rows.flat("itl_us", ok) / 1e3)


def _overlaps(rows: Rows, start_ns: int, end_ns: int) -> Flags:
    """Requests that were in flight while a page was asked for."""
    found: Flags = (rows["sent_ns"] <= end_ns) & (rows["end_ns"] >= start_ns)
    return found


def _plus(
    sum_so_far: float | None, values: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float | None:
    """NaN is what an answer did not tell."""
    if sum_so_far is None or np.isnan(values).any():
        return None
    return sum_so_far + float(values.sum())

"""A run that another tool measured, as a run directory can hold it.

Out: `ImportedRun`, its `RunInfo`, and its table of requests, with the columns of requests.parquet;
what the tool does not tell is null there.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

import kvswarm
from kvswarm.analysis.table import LISTS, SCHEMA
from kvswarm.origin import ImportedInfo
from kvswarm.rundir import RunInfo, TargetInfo


class Row(dict[str, Any]):
    """One request by column. Moments are ns, from wherever the source counts until `shift`."""

    def answer(self, ttft_s: float, gaps_s: Sequence[float], e2e_s: float) -> None:
        """It succeeded: its times, and the gaps between its chunks."""
        gaps_us = [round(gap * 1e6) for gap in gaps_s]
        self["ttft_ms"], self["e2e_ms"] = ttft_s * 1e3, e2e_s * 1e3
        self["itl_us"], self["events"] = gaps_us, len(gaps_us) + 1
        if self.get("sent_ns") is not None:
            self["first_token_ns"] = self["sent_ns"] + round(ttft_s * 1e9)
            self["last_token_ns"] = self["first_token_ns"] + sum(gaps_us) * 1000
            self["end_ns"] = self["sent_ns"] + round(e2e_s * 1e9)
            if self.get("intended_ns") is not None:
                self["ttft_from_intended_ms"] = (self["first_token_ns"] - self["intended_ns"]) / 1e6

    def tokens(self, output: int | None, from_first_s: float | None = None) -> None:
        """Output tokens, and with them TPOT. `from_first_s`: from first token to last."""
        self["completion_tokens"] = output
        if from_first_s is None:
            from_first_s = sum(self["itl_us"]) / 1e6
        if output is not None and output > 1:
            self["tpot_ms"] = from_first_s * 1e3 / (output - 1)

    def fail(self, kind: str, detail: str | None) -> None:
        """It failed, and has no latencies."""
        self["error_kind"], self["error_detail"] = kind, detail

    def shift(self, origin_ns: int) -> None:
        """Count its moments from 1970, where `origin_ns` is what they were counted from."""
        for name, value in self.items():
            if name.endswith("_ns") and value is not None:
                self[name] = value + origin_ns


def row_of(index: int, endpoint: str | None) -> Row:
    """A request of which nothing more is known."""
    lists: dict[str, list[int]] = {name: [] for name in LISTS}
    return Row(index=index, phase="measure", endpoint=endpoint, events=0, resent=0, **lists)


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """What an importer found. None: the file does not tell."""

    imported: ImportedInfo
    model: str | None = None
    endpoint: str | None = None
    base_url: str | None = None
    seed: int | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    ended: str | None = "completed"
    """As in `RunInfo`: None where the tool says that it is not whole."""
    rows: list[Row] | None = None
    notes: list[str] = field(default_factory=list)

    def info(self) -> RunInfo:
        """Make its run.json."""
        return RunInfo(
            run_id=secrets.token_hex(3),
            profile={},
            seed=self.seed,
            target=TargetInfo(base_url=self.base_url, model=self.model, endpoint=self.endpoint),
            argv=[],
            locust_argv=[],
            versions={"kvswarm": kvswarm.__version__},
            host={},
            started_ns=self.started_ns,
            ended_ns=self.ended_ns,
            ended=self.ended,
            notes=self.notes,
            imported=self.imported,
        )

    def table(self) -> pa.Table:
        """Its requests; without rows where only sums are known.

        Raises pyarrow.ArrowException or OverflowError where a number is beyond what can be held.
        """
        return pa.Table.from_pylist(self.rows or [], schema=SCHEMA)

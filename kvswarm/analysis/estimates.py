"""What was measured, held against what `kvswarm validate` had estimated.

In:  `estimate.json` of a run directory: the figures of an estimate, of one replica.
Out: the section `estimate` of summary.json; null where the run has none.

A floor is a time that a server cannot go below, so that a run that beats it has a mistake
somewhere: in the GPU's name, the quantization, the model, or the measurement.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from kvswarm.errors import RunDirError, UsageError
from kvswarm.rundir import RunDir, write_atomically

SCHEMA_VERSION: Final = 1
Kind = Literal["floor", "size"]
TIMES: Final = (("ttft_floor_ms", "ttft_ms"), ("tpot_floor_at_load_ms", "tpot_ms"))
"""Estimated floors, and the latencies of summary.json whose medians they are for."""


def keep_estimate(run: RunDir, path: Path) -> None:
    """Put the estimate of a `kvswarm validate --json` into a run directory.

    Raises UsageError where the file holds none, RunDirError where it cannot be written.
    """
    try:
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--estimate {path}: cannot be read: {error}",
            fix="Give what `kvswarm validate --model DIR --gpu NAME --json` printed.",
        ) from error
    found = plain.get("estimate", plain) if isinstance(plain, dict) else None
    if not isinstance(found, dict) or found.get("is_estimate") is not True:
        raise UsageError(
            f"--estimate {path}: holds no estimate",
            fix="It takes a model's config.json and a GPU: `kvswarm validate --model DIR --gpu "
            "NAME --json`.",
        )
    if found.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"--estimate {path}: schema_version {found.get('schema_version')}, this kvswarm reads "
            f"{SCHEMA_VERSION}",
            fix="Make it again with this kvswarm.",
        )
    try:
        write_atomically(run.estimate, json.dumps(found, indent=1).encode() + b"\n")
    except OSError as error:
        raise RunDirError(f"{run.estimate}: cannot be written: {error}") from error


def estimate_section(run: RunDir, summary: dict[str, Any]) -> dict[str, Any] | None:
    """Compare. Raises RunDirError where the run's estimate is damaged."""
    if not run.estimate.exists():
        return None
    try:
        estimate = json.loads(run.estimate.read_bytes())
        device, figures = str(estimate["device"]), _figures(estimate, summary)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDirError(
            f"{run.estimate}: is damaged: {error!r}",
            fix="Give it again with `kvswarm report DIR --estimate FILE`, or take the file away.",
        ) from error
    return {"device": device, "figures": figures}


def _figures(estimate: dict[str, Any], summary: dict[str, Any]) -> list[dict[str, Any]]:
    figures = [
        _figure("floor", latency, estimate[name], summary[latency]["p50"])
        for name, latency in TIMES
    ]
    cache = (summary["server"] or {}).get("kv_cache") or {}
    figures.append(
        _figure("size", "kv_cache_tokens", estimate["kv_cache_tokens"], cache.get("tokens"))
    )
    return figures


def _figure(
    kind: Kind, name: str, estimated: float | None, measured: float | None
) -> dict[str, Any]:
    """`reached_share` of a floor: 1 is as fast as can be; of a size: measured by estimated."""
    share = None
    if estimated and measured:
        share = estimated / measured if kind == "floor" else measured / estimated
    return {
        "kind": kind,
        "figure": name,
        "estimated": estimated,
        "measured": measured,
        "reached_share": share,
        "beaten": None if share is None or kind == "size" else share > 1.0,
    }


HEADINGS: Final = {
    "ttft_ms": ("TTFT p50", "ms"),
    "tpot_ms": ("TPOT p50", "ms"),
    "kv_cache_tokens": ("KV cache", "tokens"),
}


def estimate_lines(section: dict[str, Any]) -> list[str]:
    """A line for each figure that both sides know."""
    lines = []
    for figure in section["figures"]:
        if figure["reached_share"] is None:
            continue
        heading, unit = HEADINGS[figure["figure"]]
        form = "{:,.0f}" if figure["kind"] == "size" else "{:.2f}"
        measured, estimated = (form.format(figure[key]) for key in ("measured", "estimated"))
        if figure["kind"] == "size":
            told = f"{figure['reached_share']:.0%} of the estimated {estimated}"
        elif figure["beaten"]:
            told = f"below {estimated}, the floor on {section['device']}: a mistake somewhere"
        else:
            told = f"{figure['reached_share']:.0%} of what {section['device']} could, {estimated}"
        lines.append(f"{heading} {measured} {unit}: {told}")
    return lines

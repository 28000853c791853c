"""Moments as summary.json holds them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(ns: int | None) -> str | None:
    """A moment in ns of CLOCK_REALTIME as UTC by ISO 8601; None where there is none."""
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).isoformat() if ns is not None else None

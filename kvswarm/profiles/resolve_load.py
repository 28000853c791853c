"""When requests start: the keys that shape a load, and the rules between them.

In:  merged values that the schema accepts, and where to report what breaks a rule.
Out: a `Load`. Where something was reported it is not to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from kvswarm.profiles.layers import ENDS, KEYS_OF_PATTERN, SHAPE_KEYS, pattern_of
from kvswarm.profiles.model import OPEN_LOOP, Load, Pattern, Stage
from kvswarm.profiles.problems import KeyPath

Report = Callable[[KeyPath, str, str], None]

DEFAULT_ON_S: Final = 5.0
DEFAULT_OFF_S: Final = 5.0
LEVEL_UNITS: Final = ("concurrency", "rate_rps")


def resolve_load(values: Mapping[str, Any], report: Report) -> Load:
    """Make the load of merged values."""
    pattern = pattern_of(dict(values))
    for key in sorted(SHAPE_KEYS & values.keys() - KEYS_OF_PATTERN[pattern]):
        goes_with = [name for name, keys in KEYS_OF_PATTERN.items() if key in keys]
        report(
            (key,),
            f"has no effect with pattern {pattern}; it goes with {', '.join(goes_with)}",
            f"Leave out {key}, or change pattern.",
        )
    if pattern in {"ramp", "stages"}:
        return _load_of_levels(pattern, values, report)
    _check_end(values, report)
    if pattern in OPEN_LOOP:
        return _open_loop(pattern, values, report)
    if "concurrency" not in values:
        report(
            (),
            "concurrency is missing: pattern steady needs its number of users",
            "Give concurrency, such as 10.",
        )
    return Load(
        pattern="steady",
        open_loop=False,
        concurrency=_int(values, "concurrency"),
        **_common(values),
    )


def _int(values: Mapping[str, Any], key: str) -> int | None:
    return None if values.get(key) is None else int(values[key])


def _common(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read the keys that every pattern has."""
    duration_s = values.get("duration_s")
    common: dict[str, Any] = {
        "requests": _int(values, "requests"),
        "duration_s": None if duration_s is None else float(duration_s),
    }
    if "drain_s" in values:
        common["drain_s"] = float(values["drain_s"])
    return common


def _check_end(values: Mapping[str, Any], report: Report) -> None:
    if not any(end in values for end in ENDS):
        report(
            (),
            "has no end: requests and duration_s are both missing",
            "Give requests, such as 100, duration_s, such as 60, or both: the first one ends it.",
        )


def _open_loop(pattern: str, values: Mapping[str, Any], report: Report) -> Load:
    if "rate_rps" not in values:
        capped = "concurrency" in values
        report(
            ("pattern",),
            f"is {pattern}, which needs rate_rps"
            + (": concurrency only limits the requests in flight here" if capped else ""),
            "Give rate_rps, in requests per second, or --rate"
            + ("; concurrency then does what max_in_flight does" if capped else "")
            + ". For a fixed number of users: pattern: steady.",
        )
    in_flight = [key for key in ("max_in_flight", "concurrency") if key in values]
    if len(in_flight) == 2:  # noqa: PLR2004 - both of the two names
        report(
            ("concurrency",),
            "and max_in_flight mean the same with arrivals at a rate",
            "Keep max_in_flight alone.",
        )
    shape: dict[str, Any] = {}
    if in_flight:
        shape["max_in_flight"] = int(values[in_flight[0]])
    if pattern == "gamma":
        shape["burstiness"] = float(values.get("burstiness", 1.0))
    if pattern == "bursty":
        shape["on_s"] = float(values.get("on_s", DEFAULT_ON_S))
        shape["off_s"] = float(values.get("off_s", DEFAULT_OFF_S))
        shape["off_rate_rps"] = float(values.get("off_rate_rps", 0.0))
    rate_rps = values.get("rate_rps")
    return Load(
        pattern=cast("Pattern", pattern),
        open_loop=True,
        rate_rps=None if rate_rps is None else float(rate_rps),
        **shape,
        **_common(values),
    )


def _load_of_levels(pattern: str, values: Mapping[str, Any], report: Report) -> Load:
    stages = _ramp_stages(values, report) if pattern == "ramp" else _stages(values, report)
    levels = [_level(stage) for stage in stages]
    if stages and not any(levels):
        report((pattern,), "never rises above 0", "Give at least one level above 0.")
    open_loop = any(stage.rate_rps is not None for stage in stages)
    common = _common(values)
    no_end = common["requests"] is None and common["duration_s"] is None
    never_done = common["duration_s"] is None and stages and not levels[-1]
    if no_end or never_done:
        # Without an end, or with requests that a last level of 0 would never send.
        common["duration_s"] = sum(stage.duration_s for stage in stages)
    if "max_in_flight" in values:
        if open_loop:
            common["max_in_flight"] = int(values["max_in_flight"])
        else:
            report(
                ("max_in_flight",),
                "has no effect on users; it goes with levels in rate_rps",
                "Leave out max_in_flight.",
            )
    return Load(
        pattern="ramp" if pattern == "ramp" else "stages",
        open_loop=open_loop,
        stages=stages,
        **common,
    )


def _level(stage: Stage) -> float:
    return (stage.rate_rps if stage.concurrency is None else stage.concurrency) or 0.0


def _ramp_stages(values: Mapping[str, Any], report: Report) -> tuple[Stage, ...]:
    ramp = values.get("ramp")
    if ramp is None:
        report(
            ("pattern",),
            "is ramp, but the key ramp is missing",
            "Give ramp: {from: 1, to: 50, duration_s: 60, unit: concurrency}.",
        )
        return ()
    unit = ramp["unit"]
    if unit == "rate_rps":
        return (
            Stage(duration_s=0.0, rate_rps=float(ramp["from"])),
            Stage(duration_s=float(ramp["duration_s"]), rate_rps=float(ramp["to"]), linear=True),
        )
    for key in ("from", "to"):
        if ramp[key] != int(ramp[key]):
            report(("ramp", key), f"is {ramp[key]}; users are whole", "Give a whole number.")
    return (
        Stage(duration_s=0.0, concurrency=int(ramp["from"])),
        Stage(duration_s=float(ramp["duration_s"]), concurrency=int(ramp["to"]), linear=True),
    )


def _stages(values: Mapping[str, Any], report: Report) -> tuple[Stage, ...]:
    if "stages" not in values:
        report(
            ("pattern",),
            "is stages, but the key stages is missing",
            "Give stages: [{duration_s: 30, concurrency: 10}, {duration_s: 30, concurrency: 20}].",
        )
        return ()
    units: set[str] = set()
    stages: list[Stage] = []
    for i, given in enumerate(values["stages"]):
        own = [unit for unit in LEVEL_UNITS if unit in given]
        if len(own) != 1:
            report(
                ("stages", i),
                "needs either concurrency or rate_rps" + ("; it has both" if own else ""),
                "Give one of them.",
            )
            continue
        units.update(own)
        rate_rps = given.get("rate_rps")
        stages.append(
            Stage(
                duration_s=float(given["duration_s"]),
                concurrency=_int(given, "concurrency"),
                rate_rps=None if rate_rps is None else float(rate_rps),
                linear=given.get("linear", False),
            )
        )
    if len(units) > 1:
        report(
            ("stages",),
            "mix concurrency and rate_rps",
            "Give all levels as users, or all as rates.",
        )
    return tuple(stages)

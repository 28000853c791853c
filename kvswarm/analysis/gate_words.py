"""What a gate says in words, for the terminal, Markdown and JUnit alike.

In:  a `Gating` and its checks.  Out: plain text; whoever shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvswarm.analysis.gating import Change, Check, Gated, Gating

DIGITS: Final = (4, 6, 9, 17)
OUTCOMES: Final = {"passed": "passed", "failed": "FAILED", "unknown": "cannot tell"}


def gating_lines(gating: Gating) -> Iterator[str]:
    """A line for each check, and what becomes of them all."""
    for check in gating.checks:
        yield f"{OUTCOMES[check.outcome]:11} {check_text(check)}"
    for each in gating.invalid:
        yield f"{'INVALID':11} {invalid_text(each)}"
    yield summary_text(gating)


def summary_text(gating: Gating) -> str:
    """The result in a line."""
    if gating.invalid:
        return "gate invalid: nothing can be said of such figures"
    counts = dict.fromkeys(OUTCOMES, 0)
    for check in gating.checks:
        counts[check.outcome] += 1
    parts = [f"{counts['passed']} of {len(gating.checks)} checks passed"]
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    if counts["unknown"]:
        parts.append(f"{counts['unknown']} cannot be told and count as passed")
    return f"gate {gating.word}: {', '.join(parts)}"


def invalid_text(gated: Gated) -> str:
    """Why a run says nothing."""
    return f"{gated.path}: {'; '.join(gated.summary['verdict']['reasons'])}"


def check_text(check: Check) -> str:
    """A check in a line: what was asked, what was found, and why."""
    parts = [check.name]
    if check.change is not None:
        parts = [f"{check.name} {value_text(check)} after {reference_text(check)}:"]
        parts.append(f"{change_text(check)}, margin {margin_text(check.change)}")
    elif check.kind == "slo":
        parts = [f"{check.name} {value_text(check)}, {limit_text(check)}"]
    why = "; ".join(each for each in (check.reason, check.note) if each)
    return f"{' '.join(parts)} ({why})" if why else " ".join(parts)


def limit_text(check: Check) -> str:
    """Such as `at most 300 ms`."""
    bounds = (("at least", check.at_least), ("at most", check.at_most))
    return ", ".join(f"{word} {_told(check, bound)}" for word, bound in bounds if bound is not None)


def value_text(check: Check) -> str:
    """The figure, with so many digits that it does not look like a limit that it is not."""
    return "none" if check.value is None else _told(check, check.value)


def reference_text(check: Check) -> str:
    """The baseline's figure."""
    return "none" if check.change is None else _told(check, check.change.reference)


def change_text(check: Check) -> str:
    """The change with its interval of 95 %, in percent of the baseline's figure or in points."""
    change = check.change
    if change is None:
        return "none"
    whole = 1.0 if change.points else abs(change.reference)
    if not whole:
        return f"{change.difference:+.4g}"
    unit = " points" if change.points else " %"
    text = f"{change.difference / whole * 100:+.2f}{unit}"
    if change.low is None or change.high is None:
        return text
    return f"{text} [{change.low / whole * 100:+.2f}, {change.high / whole * 100:+.2f}]"


def margin_text(change: Change) -> str:
    """Such as `5 %`."""
    return f"{change.margin * 100:g}{' points' if change.points else ' %'}"


def _told(check: Check, value: float) -> str:
    others = [bound for bound in (check.at_least, check.at_most, check.value) if bound is not None]
    for digits in DIGITS:
        text = _text(check, value, digits)
        if all(bound == value or _text(check, bound, digits) != text for bound in others):
            break
    return text


def _text(check: Check, value: float, digits: int) -> str:
    if check.unit == "share":
        return f"{value * 100:.{digits}g} %"
    shown = f"{round(value)}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return f"{shown} {check.unit}".rstrip()

"""The summary's `server` in words: a few lines for a terminal, and the cells of the report.

In:  the `server` part of a summary.  Out: pairs of a label and a text; none for what is null.
"""

from __future__ import annotations

from typing import Any, Final

GIB: Final = float(1 << 30)
MEANS: Final = {
    "queue_time_ms": "queue, ms", "ttft_ms": "TTFT, ms", "itl_ms": "ITL, ms", "tpot_ms": "TPOT, ms",
    "e2e_ms": "E2E, ms", "prefill_time_ms": "prefill, ms", "decode_time_ms": "decode, ms",
}  # fmt: skip
COMPARED: Final = {
    "requests": "requests", "prompt_tokens": "prompt tokens", "output_tokens": "output tokens",
    "ttft_ms": "TTFT, ms", "itl_ms": "ITL, ms", "tpot_ms": "TPOT, ms", "e2e_ms": "E2E, ms",
}  # fmt: skip


def server_lines(server: dict[str, Any]) -> list[tuple[str, str]]:
    """At most six lines: replicas, queue, KV cache, prefix cache, speculation, GPU."""
    lines = (
        ("replicas", _replicas(server)),
        ("queue", _queue(server)),
        ("KV cache", _kv_cache(server)),
        ("prefixes", _prefixes(server["prefix_cache"])),
        ("drafts", _speculation(server["speculation"])),
        ("GPU", _gpu(server["gpu"])),
    )
    return [(label, text) for label, text in lines if text]


def figure_cells(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Everything of a replica, or of all together, for a table."""
    cells = [("kind", figures["kind"] or "")]
    for name, label in MEANS.items():
        if figures[name] is not None:
            cells.append((label, f"{figures[name]['mean']:.2f}"))
    for name, label in (("running", "running"), ("waiting", "waiting")):
        if (level := figures[name]) is not None:
            cells.append((label, f"{level['mean']:.1f} (max {level['max']:g})"))
    requests = figures["requests"]
    texts = (
        ("KV cache", _kv_cache(figures)),
        ("prefix cache", _prefixes(figures["prefix_cache"])),
        ("speculation", _speculation(figures["speculation"])),
        ("requests", ", ".join(f"{name} {n}" for name, n in (requests or {}).items() if n)),
        ("prompt tokens", _number(figures["prompt_tokens"])),
        ("output tokens", _number(figures["generation_tokens"])),
        ("LoRA adapters", _lora(figures["lora"])),
    )
    return cells + [(label, text) for label, text in texts if text]


def gpu_text(gpu: dict[str, Any] | None) -> str:
    """The GPUs in one line; empty where there are none."""
    return _gpu(gpu)


def compared_cells(line: dict[str, Any]) -> list[str]:
    """One line of the reconciliation: client, server, difference, what explains it."""
    numbers = (line["client"], line["server"], line["difference"])
    return [*("-" if n is None else f"{n:,.6g}" for n in numbers), line["explained"]]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _replicas(server: dict[str, Any]) -> str:
    """How the load was spread; empty where there is one, or one that does not count requests."""
    told = [each["requests"] for each in server["replicas"].values()]
    if not told or None in told:
        return ""
    counts = [sum(requests.values()) for requests in told]
    text = f"{len(counts)} ended {sum(counts):,} requests, {min(counts):,} to {max(counts):,} each"
    line = (server["reconciliation"] or {}).get("requests")
    return text if line is None else f"{text}; the client saw {line['client']:,.0f} succeed"


def _queue(server: dict[str, Any]) -> str:
    parts = []
    if server["queue_time_ms"] is not None:
        parts.append(f"{server['queue_time_ms']['mean']:.2f} ms on average")
    parts += [
        f"{server[name]['mean']:.1f} {name} (max {server[name]['max']:g})"
        for name in ("waiting", "running")
        if server[name] is not None
    ]
    return ", ".join(parts)


def _kv_cache(figures: dict[str, Any]) -> str:
    usage, cache, preemptions = (
        figures["kv_usage_share"], figures["kv_cache"], figures["preemptions"]
    )  # fmt: skip
    parts = []
    if usage is not None:
        parts.append(f"{usage['mean']:.1%} in use (max {usage['max']:.1%})")
    if cache is not None and cache["tokens"] is not None:
        parts.append(f"of {cache['tokens']:,} tokens")
        if cache["max_concurrency"] is not None:
            parts.append(f"room for {cache['max_concurrency']:.1f} requests of the longest context")
    if preemptions:
        parts.append(f"{preemptions} preemptions")
    return ", ".join(parts)


def _prefixes(prefixes: dict[str, Any] | None) -> str:
    if prefixes is None or prefixes["hit_share"] is None:
        return ""
    return f"{prefixes['hit_share']:.1%} of {prefixes['query_tokens']:,} tokens found"


def _speculation(speculation: dict[str, Any] | None) -> str:
    if speculation is None:
        return ""
    text = f"{speculation['acceptance_share']:.1%} of {speculation['draft_tokens']:,} accepted"
    length = speculation["mean_acceptance_length"]
    return text if length is None else f"{text}, {length:.2f} tokens per step"


def _lora(lora: dict[str, Any] | None) -> str:
    if lora is None:
        return ""
    most = "" if lora["max_loras"] is None else f" of {lora['max_loras']}"
    return f"{lora['max_running_adapters']}{most} at once"


def _gpu(gpu: dict[str, Any] | None) -> str:
    if gpu is None:
        return ""
    parts = [f"{gpu['gpus']} GPU" + ("s" if gpu["gpus"] != 1 else "")]
    if gpu["utilisation_share"] is not None:
        parts.append(f"{gpu['utilisation_share']:.1%} busy")
    if gpu["memory_used_bytes"] is not None:
        parts.append(f"{gpu['memory_used_bytes'] / GIB:.1f} GiB")
    if gpu["power_w"] is not None:
        parts.append(f"{gpu['power_w']:.0f} W")
    if gpu["energy_j"] is not None:
        parts.append(f"{gpu['energy_j']:,.0f} J")
    if gpu["energy_j_per_1k_output_tokens"] is not None:
        parts.append(f"{gpu['energy_j_per_1k_output_tokens']:,.1f} J per 1,000 output tokens")
    return ", ".join(parts)

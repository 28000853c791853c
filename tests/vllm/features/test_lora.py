"""The lora profile: every adapter asked for by its name, and served."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from measuring import check_served, measure, refined
from serving import MODEL, Server
from tapping import tapping

pytestmark = pytest.mark.vllm
logger = logging.getLogger("kvswarm.vllm")

SERVED = {MODEL: "base", "adapter-1": "adapter-1", "adapter-2": "adapter-2"}
"""The names that the server has, and kvswarm's variants."""
INFO = "vllm:lora_requests_info"


def test_requests_reach_the_adapters_that_they_are_counted_for(
    server: Server, runs: Path, tmp_path: Path
) -> None:
    """Variants have as many requests as went over the wire for that model, and all are ok."""
    weights = "adapters: {base: 2, adapter-1: 3, adapter-2: 2}"
    profile = refined("lora", server, tmp_path, weights)
    with tapping(server) as (tapped, seen):
        flags = ["--requests", "80", "--max-tokens", "96"]
        run = measure(tapped, runs, "--profile", str(profile), *flags)
    logger.info("lora, attempt %d\n%s", len(run.attempts), run.output)
    for attempt in run.attempts:
        check_served(attempt)
    asked = Counter(SERVED[one.asked["model"]] for one in seen[-80:])
    assert set(asked) == set(SERVED.values())
    assert asked["adapter-1"] > asked["base"] / 2
    assert Counter(run.rows["variant"]) == asked
    assert {v["variant"]: v["ok"] for v in run.summary["variants"]} == asked
    against = {effect["against"] for effect in run.summary["effects"]}
    assert {"base", "same adapter before"} <= against

    running = run.after.by_label(INFO, "running_lora_adapters")
    ran = {name for names in running for name in names.split(",") if name}
    assert ran == {"adapter-1", "adapter-2"}
    assert run.summary["server"]["lora"]["max_loras"] == 2
    assert run.summary["server"]["lora"]["max_running_adapters"] in {1, 2}
    logger.info("adapters that ran: %s; %s", sorted(running), run.summary["server"]["lora"])


def test_the_adapters_are_other_models(server: Server) -> None:
    """Else a server that ignored the name would look just as good above."""
    prompt = "say something about the many words that one may find here and there and everywhere"
    asked = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    assert len({server.complete(model=model, **asked) for model in SERVED}) == 3

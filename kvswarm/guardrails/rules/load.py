"""Rules about the load and what is asked for: runs whose figures would mean something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import Example, Rule
from kvswarm.profiles.load import Written
from kvswarm.profiles.run_length import expected_duration_s, expected_requests

SHORT_S: Final = 30.0
"""Less is over before a queue that grows can be told from one that does not."""
NEEDED_REQUESTS: Final = {"p99": 100, "p999": 1000}
"""With fewer, the percentile is the slowest request."""


def _users_without_requests(facts: Facts) -> Iterator[Found]:
    load = facts.written.profile.load
    if load.requests is not None and facts.peak_users > load.requests:
        what = f"is {facts.peak_users}, and there are {load.requests} requests for them"
        path = ("concurrency",) if load.pattern == "steady" else (load.pattern,)
        yield Found(path=path, what=what)


def _short_open_loop(facts: Facts) -> Iterator[Found]:
    load = facts.written.profile.load
    duration_s = expected_duration_s(load)
    if not load.open_loop or load.duration_s is not None or duration_s is None:
        return
    if duration_s < SHORT_S:
        what = f"is all that ends the load: at {load.rate_rps:g}/s after {duration_s:.3g} s"
        yield Found(path=("requests",), what=f"({load.requests}) {what}")


def _one_prompt(facts: Facts) -> Iterator[Found]:
    for written in facts.written.senders:
        prompt = written.profile.prompt
        if not prompt.unique and prompt.prompts_file is None:
            what = "is false: every request has the same prompt, which the prefix cache holds"
            yield Found(path=("unique",), what=what, of=written)


def _nothing_fits(facts: Facts) -> Iterator[Found]:
    limit = facts.max_model_len
    if limit is None:
        return
    for written in facts.written.senders:
        prompt = written.profile.prompt
        least = prompt.input_tokens.min_tokens + prompt.output_tokens.min_tokens
        if least > limit:
            what = (
                f"asks for {prompt.input_tokens.min_tokens} + {prompt.output_tokens.min_tokens} "
                f"tokens at the least, and the server takes {limit}"
            )
            yield Found(path=_length_key(written), what=what, of=written)


def _longest_do_not_fit(facts: Facts) -> Iterator[Found]:
    limit = facts.max_model_len
    if limit is None:
        return
    for written in facts.written.senders:
        prompt, turns = written.profile.prompt, written.profile.conversation
        if prompt.input_tokens.kind == "file" or prompt.output_tokens.kind == "file":
            continue
        least = prompt.input_tokens.min_tokens + prompt.output_tokens.min_tokens
        most = prompt.input_tokens.max_tokens + prompt.output_tokens.max_tokens
        if least <= limit < most:
            what = f"asks for up to {most} tokens, and the server takes {limit}"
            yield Found(path=_length_key(written), what=what, of=written)
        elif turns is not None and most <= limit < most * turns.turns:
            what = (
                f"is {turns.turns}: with the history before it the last turn has up to "
                f"{most * turns.turns} tokens, and the server takes {limit}"
            )
            yield Found(path=("conversation", "turns"), what=what, of=written)


def _length_key(written: Written) -> tuple[str]:
    given = written.document.values
    return next(((key,) for key in ("input_tokens", "max_tokens") if key in given), ("max_tokens",))


def _rare_percentiles(facts: Facts) -> Iterator[Found]:
    requests = expected_requests(facts.written.profile.load)
    if requests is None:
        return
    for key in facts.written.profile.gate:
        figure = key.removesuffix("_ms").rpartition("_")[2]
        needed = NEEDED_REQUESTS.get(figure, 0)
        if requests < needed:
            what = f"is a gate on one request: of {requests:.0f}, the {figure} is the slowest"
            yield Found(path=("gate", key), what=what)


RULES: Final = (
    Rule(
        id="KVS003",
        title="There are requests for all users",
        severity="warning",
        scope="load",
        check=_users_without_requests,
        reason="Users for whom no request is left never start, so that fewer run at a time than "
        "the profile says, and figures are told for a concurrency that there was not.",
        source="kvswarm/swarm/quota.py",
        fix="Give requests of several times the users, or duration_s.",
        bad=Example(profile="concurrency: 50\nrequests: 20\n"),
        good=Example(profile="concurrency: 20\nrequests: 200\n"),
    ),
    Rule(
        id="KVS004",
        title="An open loop lasts",
        severity="warning",
        scope="load",
        check=_short_open_loop,
        reason="At a rate, the question is whether a queue grows. Requests alone end the load "
        "after requests / rate seconds, before a server that is too slow shows it.",
        source="docs/profiles.md",
        fix="Give duration_s of a minute or more, in place of requests or beside many more.",
        bad=Example(profile="pattern: poisson\nconcurrency: null\nrate_rps: 20\nrequests: 100\n"),
        good=Example(
            profile="pattern: poisson\nconcurrency: null\nrate_rps: 20\nduration_s: 120\n"
        ),
    ),
    Rule(
        id="KVS005",
        title="Prompts differ",
        severity="warning",
        scope="requests",
        check=_one_prompt,
        reason="With one prompt for all, its prefill is done once and then found in the prefix "
        "cache: TTFT and throughput are those of a server that reads no prompts.",
        source="docs/profiles.md; vLLM has prefix caching on by default since 0.8",
        fix="Leave unique out, and say with shared_prefix_tokens how much prompts have in common.",
        bad=Example(profile="unique: false\n"),
        good=Example(profile="unique: true\nshared_prefix_tokens: 128\n"),
    ),
    Rule(
        id="KVS006",
        title="Requests fit into max_model_len",
        severity="error",
        scope="server",
        check=_nothing_fits,
        reason="A prompt with max_tokens beyond max_model_len is refused with 400: every request "
        "would fail.",
        source="vllm 0.32.0 answers 400: 'maximum context length is N tokens'",
        fix="Give shorter input_tokens or max_tokens, or a larger vllm_features.max_model_len.",
        bad=Example(
            profile="input_tokens: 2048\nmax_tokens: 512\nvllm_features: {max_model_len: 2048}\n"
        ),
        good=Example(
            profile="input_tokens: 1024\nmax_tokens: 512\nvllm_features: {max_model_len: 2048}\n"
        ),
    ),
    Rule(
        id="KVS007",
        title="The longest requests fit, too",
        severity="warning",
        scope="server",
        check=_longest_do_not_fit,
        reason="The longest requests are refused with 400, and what is left is easier than what "
        "the profile says: the figures get better by failures.",
        source="vllm 0.32.0 answers 400: 'maximum context length is N tokens'",
        fix="Cap the lengths (max of input_tokens and output_tokens, turns), or raise "
        "vllm_features.max_model_len.",
        bad=Example(
            profile="input_tokens: {uniform: {min: 64, max: 4096}}\nmax_tokens: 128\n"
            "vllm_features: {max_model_len: 4096}\n"
        ),
        good=Example(
            profile="input_tokens: {uniform: {min: 64, max: 3968}}\nmax_tokens: 128\n"
            "vllm_features: {max_model_len: 4096}\n"
        ),
    ),
    Rule(
        id="KVS008",
        title="A gate on a percentile has requests enough",
        severity="warning",
        scope="load",
        check=_rare_percentiles,
        reason="Of fewer than 100 requests the p99 is the slowest one (of fewer than 1,000 the "
        "p999): the gate passes and fails by chance.",
        source="docs/metrics.md",
        fix="Give more requests, or gate on p95 or p90.",
        bad=Example(profile="requests: 60\ngate: {ttft_p99_ms: 500}\n"),
        good=Example(profile="requests: 400\ngate: {ttft_p99_ms: 500}\n"),
    ),
)

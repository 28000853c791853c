"""Rules about the server's flags: which a version has, what they take, and which go together.

The tables of `kvswarm.serving` say what each version has; these rules say where a profile is at
odds with them. kvswarm itself leaves out what a version has no more, so that the server starts:
what is refused here is a run that would not measure what its profile says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import VLLM, Example, Rule
from kvswarm.serving.flags import known_keys, read_flags, spelled, standing
from kvswarm.serving.problems import nearest, seen
from kvswarm.serving.speculation import (
    OLDER_KEYS,
    SPECULATION_KEYS,
    config_since,
    flags_since,
    member_span,
)
from kvswarm.serving.versions import Span, Version

PARSERS: Final = (
    "kvswarm/serving/vllm_keys.yaml, read in the argument parsers of vLLM 0.4.0 to 0.32.0"
)
MULTI_STEP: Final = Span(Version(0, 5, 5), Version(0, 10, 1))
"""Versions with --num-scheduler-steps."""
BEFORE_CHUNKS: Final = Version(0, 8, 0)
"""Chunked prefill is on by default from here on."""
UNMISSED: Final = frozenset({
    "device", "disable_log_requests", "enable_reasoning", "task", "use_v2_block_manager",
})  # fmt: skip
"""Keys that are gone because servers do by themselves what they asked for."""
FIRST_SPECULATION: Final = Span(Version(0, 4, 1), Version(0, 6, 0))


def _unknown_keys(facts: Facts) -> Iterator[Found]:
    every = [*known_keys(), *SPECULATION_KEYS]
    for key in facts.features:
        if key not in every:
            yield facts.at(key, f"is no flag that is known here.{nearest(key, every)}")


def _wrong_values(facts: Facts) -> Iterator[Found]:
    """Everything that the flags of this version cannot be written for, but for speculation."""
    values = {
        key: feature.value
        for key, feature in facts.features.items()
        if key in known_keys() and key not in SPECULATION_KEYS
    }
    _, problems = read_flags(values, facts.server.version)
    for problem in problems:
        yield facts.at(problem.key, problem.what, problem.fix)


def _clashes(facts: Facts) -> Iterator[Found]:
    for clash in facts.clashes:
        first, second = clash.first, clash.second
        if first.of is second.of:
            what = f"is given twice: {first.path[-1]} means the same"
        else:
            names = f"{first.of.profile.name} and {second.of.profile.name}"
            what = f"is {seen(first.value)} and {seen(second.value)}: {names} share one server"
        yield Found(path=second.path, what=what, of=second.of)


def _gone(facts: Facts) -> Iterator[Found]:
    version = facts.server.version
    yield from _gone_keys(facts, missed=True)
    for name in facts.speculation.others if facts.speculation else ():
        if member_span(name).after(version):
            what = f"is gone since vLLM {member_span(name).until}, and this is {version}"
            yield facts.at(_member_key(facts, name), what, "Take it away.")


def _gone_unmissed(facts: Facts) -> Iterator[Found]:
    return _gone_keys(facts, missed=False)


def _gone_keys(facts: Facts, *, missed: bool) -> Iterator[Found]:
    """Keys that are gone, and with them what they asked for; or only the key."""
    version = facts.server.version
    for key, feature in facts.features.items():
        if key not in known_keys() or missed != (key not in UNMISSED or feature.value is False):
            continue
        if (found := standing(key, version)).gone_since:
            what = f"is gone since vLLM {found.gone_since}, and this is {version}"
            yield facts.at(key, what, found.remedy)


def _still_to_come(facts: Facts) -> Iterator[Found]:
    version = facts.server.version
    for key in facts.features:
        if key in known_keys() and (found := standing(key, version)).came_with:
            yield facts.at(key, f"came with vLLM {found.came_with}, and this is {version}")
    drafts = facts.speculation_key
    if drafts is not None and version < flags_since():
        what = f"asks for drafts, which came with vLLM {flags_since()}, and this is {version}"
        yield facts.at(drafts, what)
    for name in facts.speculation.others if facts.speculation else ():
        if member_span(name).before(version):
            what = f"came with vLLM {member_span(name).since}, and this is {version}"
            yield facts.at(_member_key(facts, name), what)


def _member_key(facts: Facts, name: str) -> str:
    """The key of a member of speculation, as the profile gave it."""
    older = next((key for key, member in OLDER_KEYS.items() if member == name), None)
    if older in facts.features:
        return str(older)
    return f"{facts.speculation_key}.{name}"


def _renamed(facts: Facts) -> Iterator[Found]:
    version = facts.server.version
    for key in facts.features:
        if key in OLDER_KEYS and version >= config_since():
            what = f"is a part of --speculative-config since vLLM {config_since()}"
            fix = f"Write speculative: {{{OLDER_KEYS[key]}: ...}}."
            yield facts.at(key, what, fix)
        flag = standing(key, version).flag if key in known_keys() else None
        if flag is not None and spelled(flag) != key:
            yield facts.at(key, f"is {flag} in vLLM {version}")


def _multi_step_without_end(facts: Facts) -> Iterator[Found]:
    if not _steps(facts):
        return
    for written in facts.written.senders:
        if not {"max_tokens", "output_tokens"} & written.document.values.keys():
            what = f"is {_steps(facts)}, and the profile does not say max_tokens"
            yield facts.at("num_scheduler_steps", what)


def _steps(facts: Facts) -> int | None:
    steps: int | None = facts.value("num_scheduler_steps")
    return steps if steps is not None and steps > 1 else None


def _multi_step_companions(facts: Facts) -> Iterator[Found]:
    if not _steps(facts):
        return
    what = f"is {_steps(facts)}, beside"
    if facts.speculation is not None:
        reason = "speculation, with which vLLM does not start"
        yield facts.at("num_scheduler_steps", f"{what} {reason}")
    if any(written.profile.structured_output for written in facts.written.senders):
        reason = "structured output, at which the engine ends"
        yield facts.at("num_scheduler_steps", f"{what} {reason}")


def _batch_below_sequences(facts: Facts) -> Iterator[Found]:
    tokens, sequences = (facts.value(key) for key in ("max_num_batched_tokens", "max_num_seqs"))
    if tokens is not None and sequences is not None and tokens < sequences:
        what = f"is {tokens}, below max_num_seqs, which is {sequences}"
        yield facts.at("max_num_batched_tokens", what)


def _batch_below_sequence(facts: Facts) -> Iterator[Found]:
    chunked = facts.value("enable_chunked_prefill")
    if chunked is None:
        chunked = facts.server.version >= BEFORE_CHUNKS
    tokens, limit = facts.value("max_num_batched_tokens"), facts.max_model_len
    if not chunked and tokens is not None and limit is not None and tokens < limit:
        what = f"is {tokens}, below max_model_len, which is {limit}, without chunked prefill"
        yield facts.at("max_num_batched_tokens", what)


def _first_speculation(facts: Facts) -> Iterator[Found]:
    key = facts.speculation_key
    if key is None or facts.speculation is None:
        return
    if not facts.value("use_v2_block_manager"):
        yield facts.at(key, "needs use_v2_block_manager in these versions")
    if facts.value("enable_chunked_prefill"):
        yield facts.at("enable_chunked_prefill", "does not go with speculation in these versions")


def _few_images(facts: Facts) -> Iterator[Found]:
    limits: Any = facts.value("limit_mm_per_prompt")
    if limits is None or "image" not in limits:
        return
    for written in facts.written.senders:
        images = written.profile.images
        if images is not None and max(images.counts) > limits["image"]:
            what = f"asks for {max(images.counts)} at a time, and the server takes "
            what += f"{limits['image']} (limit_mm_per_prompt)"
            yield Found(path=("images",), what=what, of=written)


RULES: Final = (
    Rule(
        id="KVS020",
        title="Flags are flags of vLLM",
        severity="error",
        scope="server",
        check=_unknown_keys,
        runtimes=VLLM,
        reason="vLLM ends at once with 'unrecognized arguments', and kvswarm starts no server "
        "with a key that it does not know.",
        source=PARSERS,
        fix="docs/serving.md lists every key with the versions that have it.",
        bad=Example(profile="vllm_features: {max_num_sequences: 64}\n"),
        good=Example(profile="vllm_features: {max_num_seqs: 64}\n"),
    ),
    Rule(
        id="KVS021",
        title="Flags have values that the version takes",
        severity="error",
        scope="server",
        check=_wrong_values,
        runtimes=VLLM,
        reason="vLLM refuses a value that is not of the flag's kind, or that its version does not "
        "have, before it loads the model.",
        source=PARSERS,
        fix="docs/serving.md has the values of every key, by version.",
        bad=Example(profile="vllm_features: {quantization: hqq}\n"),
        good=Example(profile="vllm_features: {quantization: hqq}\n", version="0.10.0"),
    ),
    Rule(
        id="KVS022",
        title="One server is asked to be one thing",
        severity="error",
        scope="server",
        check=_clashes,
        reason="A flag that is given twice has one of its values, and which is not for the profile "
        "to say; the parts of a mix share one server.",
        source="kvswarm/commands/wanted.py: server_features",
        fix="Keep one of them; for a mix, --set vllm_features.KEY=VALUE says it for all parts.",
        bad=Example(profile="vllm_features: {max_num_seqs: 64, max-num-seqs: 128}\n"),
        good=Example(profile="vllm_features: {max_num_seqs: 64}\n"),
    ),
    Rule(
        id="KVS023",
        title="What flags ask for is not gone",
        severity="error",
        scope="server",
        check=_gone,
        runtimes=VLLM,
        reason="vLLM ends at once with 'unrecognized arguments'. Where kvswarm writes the flags it "
        "leaves the key out, and the run does not measure what its profile says.",
        source=PARSERS,
        fix="Take it away.",
        bad=Example(profile="vllm_features: {swap_space: 4}\n"),
        good=Example(profile="vllm_features: {swap_space: 4}\n", version="0.17.0"),
    ),
    Rule(
        id="KVS032",
        title="Flags that nobody needs any more are left out",
        severity="warning",
        scope="server",
        check=_gone_unmissed,
        runtimes=VLLM,
        reason="The server does by itself what the key asks for, and kvswarm leaves it out; but "
        "vLLM itself ends with 'unrecognized arguments' where a person copies the key into a "
        "command line or a manifest.",
        source=PARSERS,
        fix="Take it away, if no older server is meant.",
        bad=Example(profile="vllm_features: {use_v2_block_manager: true}\n"),
        good=Example(profile="vllm_features: {use_v2_block_manager: true}\n", version="0.9.2"),
    ),
    Rule(
        id="KVS024",
        title="Flags are there already",
        severity="error",
        scope="server",
        check=_still_to_come,
        runtimes=VLLM,
        reason="vLLM ends at once with 'unrecognized arguments'. Where kvswarm writes the flags it "
        "leaves the key out, and the run does not measure what its profile says.",
        source=PARSERS,
        fix="Serve with a version that has it, or take it away.",
        bad=Example(profile="vllm_features: {async_scheduling: true}\n", version="0.9.2"),
        good=Example(profile="vllm_features: {async_scheduling: true}\n", version="0.24.0"),
    ),
    Rule(
        id="KVS025",
        title="Flags have the names of the version",
        severity="warning",
        scope="server",
        check=_renamed,
        runtimes=VLLM,
        reason="kvswarm writes it under its name of today, but vLLM itself ends with 'unrecognized "
        "arguments' where a person copies the key into a command line or a manifest.",
        source=PARSERS,
        fix="Write the name of today, if no older server is meant.",
        bad=Example(profile="vllm_features: {guided_decoding_backend: outlines}\n"),
        good=Example(profile="vllm_features: {structured_outputs_config: {backend: outlines}}\n"),
    ),
    Rule(
        id="KVS026",
        title="Multi-step scheduling has max_tokens",
        severity="warning",
        scope="server",
        check=_multi_step_without_end,
        runtimes=VLLM,
        versions=MULTI_STEP,
        reason="One request without max_tokens ends the engine, and every request after it fails. "
        "kvswarm always sends max_tokens (128 where the profile has none); others may not.",
        source="https://github.com/kserve/kserve/issues/3971",
        fix="Give max_tokens, and see that all clients do; or leave num_scheduler_steps out.",
        bad=Example(
            profile="max_tokens: null\nvllm_features: {num_scheduler_steps: 8}\n",
            version="0.6.3",
        ),
        good=Example(
            profile="max_tokens: 128\nvllm_features: {num_scheduler_steps: 8}\n", version="0.6.3"
        ),
    ),
    Rule(
        id="KVS027",
        title="Multi-step scheduling is alone",
        severity="error",
        scope="server",
        check=_multi_step_companions,
        runtimes=VLLM,
        versions=MULTI_STEP,
        reason="vLLM does not start with speculation beside it, and ends at the first request "
        "with structured output: 'Logits Processors are not supported in multi-step decoding'.",
        source="https://github.com/vllm-project/vllm/issues/8985; vllm/engine/arg_utils.py of "
        "0.6.3: 'Speculative decoding is not supported with multi-step'",
        fix="Leave num_scheduler_steps out.",
        bad=Example(
            profile="vllm_features: {num_scheduler_steps: 8, speculative_model: '[ngram]', "
            "num_speculative_tokens: 4, ngram_prompt_lookup_max: 4}\n",
            version="0.6.3",
        ),
        good=Example(
            profile="vllm_features: {speculative_model: '[ngram]', "
            "num_speculative_tokens: 4, ngram_prompt_lookup_max: 4}\n",
            version="0.6.3",
        ),
    ),
    Rule(
        id="KVS028",
        title="A batch has a token for every sequence",
        severity="error",
        scope="server",
        check=_batch_below_sequences,
        runtimes=VLLM,
        reason="Every sequence that decodes needs one token of the batch; vLLM refuses to start: "
        "'max_num_batched_tokens must be greater than or equal to max_num_seqs'.",
        source="vllm/config/scheduler.py of 0.32.0, verify_max_model_len; seen with 0.32.0",
        fix="Raise max_num_batched_tokens (2048 and more), or lower max_num_seqs.",
        bad=Example(profile="vllm_features: {max_num_batched_tokens: 64, max_num_seqs: 128}\n"),
        good=Example(profile="vllm_features: {max_num_batched_tokens: 2048, max_num_seqs: 128}\n"),
    ),
    Rule(
        id="KVS029",
        title="Without chunked prefill a whole prompt fits into a batch",
        severity="error",
        scope="server",
        check=_batch_below_sequence,
        runtimes=VLLM,
        reason="A prompt that is not cut must fit into one batch; vLLM refuses to start: "
        "'max_num_batched_tokens is smaller than max_model_len'.",
        source="vllm/config/scheduler.py of 0.32.0, verify_max_model_len; seen with 0.32.0; "
        "chunked prefill is off by default before 0.8",
        fix="Raise max_num_batched_tokens to max_model_len, or turn on enable_chunked_prefill.",
        bad=Example(
            profile="vllm_features: {enable_chunked_prefill: false, max_num_batched_tokens: 2048, "
            "max_model_len: 4096}\n"
        ),
        good=Example(
            profile="vllm_features: {enable_chunked_prefill: true, max_num_batched_tokens: 2048, "
            "max_model_len: 4096}\n"
        ),
    ),
    Rule(
        id="KVS030",
        title="The first versions with speculation have what it needs",
        severity="error",
        scope="server",
        check=_first_speculation,
        runtimes=VLLM,
        versions=FIRST_SPECULATION,
        reason="vLLM refuses to start: 'Speculative decoding requires usage of the V2 block "
        "manager', and 'Speculative decoding and chunked prefill are mutually exclusive'.",
        source="vllm/config.py of 0.4.1 to 0.5.5, SpeculativeConfig.maybe_create_spec_config",
        fix="Give use_v2_block_manager: true, and leave enable_chunked_prefill out.",
        bad=Example(
            profile="vllm_features: {speculative_model: org/draft, num_speculative_tokens: 5}\n",
            version="0.5.4",
        ),
        good=Example(
            profile="vllm_features: {speculative_model: org/draft, num_speculative_tokens: 5, "
            "use_v2_block_manager: true}\n",
            version="0.5.4",
        ),
    ),
    Rule(
        id="KVS031",
        title="Requests have no more images than the server takes",
        severity="error",
        scope="server",
        check=_few_images,
        runtimes=VLLM,
        reason="vLLM answers 400: 'At most N image(s) may be provided in one prompt'.",
        source="vllm/multimodal/processing/context.py of 0.32.0",
        fix="Raise vllm_features.limit_mm_per_prompt.image, or lower images.count.",
        bad=Example(
            profile="images: {count: 3}\nvllm_features: {limit_mm_per_prompt: {image: 2}}\n"
        ),
        good=Example(
            profile="images: {count: 2}\nvllm_features: {limit_mm_per_prompt: {image: 2}}\n"
        ),
    ),
)

"""Rules about what requests ask for: constraints, functions, adapters, and a server for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import VLLM, Example, Rule
from kvswarm.profiles.features import BASE
from kvswarm.profiles.load import Written
from kvswarm.serving.problems import nearest
from kvswarm.serving.tables import table
from kvswarm.serving.versions import NEWEST, Span, Version

LEGACY: Final = (
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend",
    "guided_whitespace_pattern",
)  # fmt: skip
"""Fields of requests that vLLM had before `structured_outputs`."""
WITHOUT_LEGACY: Final = Span(since=Version(0, 12, 0))
STRUCTURED_SINCE: Final = Version(0, 11, 0)
ALL_CHOICES_PARSED: Final = Version(0, 32, 0)
"""From here on required and named choices need a parser, too; it may have come before."""
BACKENDS: Final = ("auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer")
WITHOUT_GRAMMAR: Final = frozenset({"outlines", "lm-format-enforcer"})
DEFAULT_RANK: Final = 16
TOOLS: Final = "tools: [{type: function, ask: Add., function: {name: add}}]"
PARSED: Final = "vllm_features: {enable_auto_tool_choice: true, tool_call_parser: hermes}"
"""Both of the examples."""


def _legacy_fields(facts: Facts) -> Iterator[Found]:
    for written in facts.written.senders:
        for name in LEGACY:
            if name in written.profile.request:
                yield Found(path=("request", name), what="is a field that is ignored", of=written)


def _early_structured_outputs(facts: Facts) -> Iterator[Found]:
    if facts.server.version >= STRUCTURED_SINCE:
        return
    what = f"came with vLLM {STRUCTURED_SINCE}, and this is {facts.server.version}"
    for written in facts.written.senders:
        wanted = written.profile.structured_output
        if wanted is not None and any(
            constraint.kind != "json" or wanted.via == "structured_outputs"
            for constraint in wanted.constraints
        ):
            sent = "is sent as structured_outputs, which"
            yield Found(path=("structured_output",), what=f"{sent} {what}", of=written)


def _backend_of(facts: Facts) -> tuple[str, str] | None:
    """The key and the value that choose what constrains answers."""
    older = facts.value("guided_decoding_backend")
    if older is not None:
        return "guided_decoding_backend", str(older).partition(":")[0]
    config: Any = facts.value("structured_outputs_config")
    if isinstance(config, dict) and isinstance(config.get("backend"), str):
        return "structured_outputs_config.backend", config["backend"]
    return None


def _unknown_backend(facts: Facts) -> Iterator[Found]:
    found = _backend_of(facts)
    if found is not None and found[1] not in BACKENDS:
        yield facts.at(found[0], f"is {found[1]}, and there is none.{nearest(found[1], BACKENDS)}")


def _backend_without_grammar(facts: Facts) -> Iterator[Found]:
    found = _backend_of(facts)
    if found is None or found[1] not in WITHOUT_GRAMMAR:
        return
    for written in facts.written.senders:
        wanted = written.profile.structured_output
        if wanted is not None and any(each.kind == "grammar" for each in wanted.constraints):
            what = f"has a grammar, which {found[1]} ({found[0]}) does not take"
            yield Found(path=("structured_output",), what=what, of=written)


def _enforcer_with_drafts(facts: Facts) -> Iterator[Found]:
    found = _backend_of(facts)
    if found is not None and found[1] == "lm-format-enforcer" and facts.speculation is not None:
        yield facts.at(found[0], "is lm-format-enforcer, beside speculation")


def _calls_without_parser(facts: Facts) -> Iterator[Found]:
    lacking = [
        key for key in ("enable_auto_tool_choice", "tool_call_parser") if not facts.value(key)
    ]
    if not lacking:
        return
    every = facts.server.version >= ALL_CHOICES_PARSED
    for written in facts.written.senders:
        calling = written.profile.tool_calling
        choices = [] if calling is None else [c for c, weight in calling.choices.items() if weight]
        refused = [choice for choice in choices if every or choice == "auto"]
        if refused:
            what = f"has choice {' and '.join(refused)}, and vllm_features lacks "
            what += " and ".join(lacking)
            yield Found(path=(_key_of_tools(written),), what=what, of=written)


def _key_of_tools(written: Written) -> str:
    """Where the profile speaks of functions."""
    return "tool_calling" if "tool_calling" in written.document.values else "tools"


def _enabled_without_parser(facts: Facts) -> Iterator[Found]:
    if facts.value("enable_auto_tool_choice") and not facts.value("tool_call_parser"):
        yield facts.at("enable_auto_tool_choice", "is true, and there is no tool_call_parser")


def _unknown_parsers(facts: Facts) -> Iterator[Found]:
    for key, names in table("vllm_parsers").items():
        given = facts.value(key)
        if given is None or given in names["now"]:
            continue
        if given not in names["before"]:
            known = [*names["now"], *names["before"]]
            yield facts.at(key, f"is {given}, and there is none.{nearest(str(given), known)}")
        elif facts.server.version >= NEWEST:
            yield facts.at(key, f"is {given}, which vLLM {facts.server.version} has no more")


def _tools_without_strict(facts: Facts) -> Iterator[Found]:
    for written in facts.written.senders:
        calling = written.profile.tool_calling
        if calling is not None and not calling.strict:
            what = "has strict: false, so that arguments are not held to their schema"
            yield Found(path=(_key_of_tools(written),), what=what, of=written)


def _adapters_of(facts: Facts) -> Iterator[tuple[str, Found]]:
    for written in facts.written.senders:
        for name in written.profile.adapters:
            if name != BASE:
                what = f"asks for {name}, and vllm_features"
                yield name, Found(path=("adapters",), what=what, of=written)


def _modules_without_lora(facts: Facts) -> Iterator[Found]:
    if facts.value("lora_modules") and not facts.value("enable_lora"):
        yield facts.at("lora_modules", "names adapters, and there is no enable_lora")


def _adapters_without_lora(facts: Facts) -> Iterator[Found]:
    if facts.value("enable_lora"):
        return
    for _, found in _adapters_of(facts):
        yield Found(path=found.path, what=f"{found.what} has no enable_lora", of=found.of)


def _high_ranks(facts: Facts) -> Iterator[Found]:
    most: int = facts.value("max_lora_rank") or DEFAULT_RANK
    for name, rank in facts.server.adapter_ranks.items():
        if rank > most:
            what = f"is {most}, and the adapter {name} has rank {rank}"
            yield facts.at("max_lora_rank", what)


RULES: Final = (
    Rule(
        id="KVS040",
        title="Constraints are sent in fields that are read",
        severity="error",
        scope="requests",
        check=_legacy_fields,
        runtimes=VLLM,
        versions=WITHOUT_LEGACY,
        reason="vLLM answers with HTTP 200 and text that nothing constrains; only its log says so. "
        "The run would measure the overhead of nothing.",
        source="vllm/entrypoints/serve/engine/protocol.py of 0.32.0; seen with 0.32.0",
        fix="Use the key structured_output, or request: {structured_outputs: {json: ...}}.",
        bad=Example(profile="request: {guided_json: {type: object}}\n"),
        good=Example(profile="request: {structured_outputs: {json: {type: object}}}\n"),
    ),
    Rule(
        id="KVS041",
        title="The version reads structured_outputs",
        severity="error",
        scope="requests",
        check=_early_structured_outputs,
        runtimes=VLLM,
        reason="Versions before it pass over the field: HTTP 200, and text that nothing "
        "constrains.",
        source="https://github.com/vllm-project/vllm/releases/tag/v0.11.0",
        fix="Serve with 0.11 or newer, or keep to JSON Schemas via response_format.",
        bad=Example(
            profile="structured_output: {constraints: [{name: n, ask: A number., "
            'regex: "[0-9]+"}]}\n',
            version="0.10.0",
        ),
        good=Example(
            profile="structured_output: {constraints: [{name: n, ask: A number., "
            'regex: "[0-9]+"}]}\n'
        ),
    ),
    Rule(
        id="KVS042",
        title="What constrains answers is there",
        severity="error",
        scope="server",
        check=_unknown_backend,
        runtimes=VLLM,
        reason="vLLM refuses to start with a backend that it does not know.",
        source="vllm/config/structured_outputs.py of 0.32.0",
        fix=f"Take one of {', '.join(BACKENDS)}.",
        bad=Example(profile="vllm_features: {structured_outputs_config: {backend: outline}}\n"),
        good=Example(profile="vllm_features: {structured_outputs_config: {backend: outlines}}\n"),
    ),
    Rule(
        id="KVS043",
        title="What constrains answers takes grammars",
        severity="error",
        scope="server",
        check=_backend_without_grammar,
        runtimes=VLLM,
        reason="Each request with a grammar is refused with status 400.",
        source="vllm/v1/structured_output/backend_{outlines,lm_format_enforcer}.py of 0.32.0",
        fix="Take xgrammar or guidance, or leave grammars out.",
        bad=Example(
            profile="vllm_features: {structured_outputs_config: {backend: outlines}}\n"
            "structured_output: {constraints: [{name: n, ask: A word., "
            "grammar: 'root ::= \"a\"'}]}\n"
        ),
        good=Example(
            profile="vllm_features: {structured_outputs_config: {backend: xgrammar}}\n"
            "structured_output: {constraints: [{name: n, ask: A word., "
            "grammar: 'root ::= \"a\"'}]}\n"
        ),
    ),
    Rule(
        id="KVS044",
        title="LM Format Enforcer is without speculation",
        severity="error",
        scope="server",
        check=_enforcer_with_drafts,
        runtimes=VLLM,
        reason="It cannot take tokens back, and refuses the requests that it is to constrain.",
        source="vllm/v1/structured_output/backend_lm_format_enforcer.py of 0.32.0",
        fix="Take xgrammar, guidance or outlines.",
        bad=Example(
            profile="vllm_features: {structured_outputs_config: {backend: lm-format-enforcer}}\n"
            "speculative: {method: ngram, num_speculative_tokens: 4}\n"
        ),
        good=Example(
            profile="vllm_features: {structured_outputs_config: {backend: xgrammar}}\n"
            "speculative: {method: ngram, num_speculative_tokens: 4}\n"
        ),
    ),
    Rule(
        id="KVS045",
        title="Tool calls have a parser",
        severity="error",
        scope="server",
        check=_calls_without_parser,
        runtimes=VLLM,
        reason="Every request with tool_choice auto is refused with status 400, in 0.32 those with "
        "required or a function's name, too.",
        source="vllm/renderers/online_renderer.py of 0.32.0",
        fix="Give vllm_features.enable_auto_tool_choice: true and the tool_call_parser of the "
        "model.",
        bad=Example(profile=f"{TOOLS}\n"),
        good=Example(profile=f"{TOOLS}\n{PARSED}\n"),
    ),
    Rule(
        id="KVS046",
        title="Automatic tool choice is enabled with a parser",
        severity="error",
        scope="server",
        check=_enabled_without_parser,
        runtimes=VLLM,
        reason="vLLM does not start: --enable-auto-tool-choice requires --tool-call-parser.",
        source="vllm/entrypoints/launchers/cli_args.py of 0.32.0",
        fix="Add the tool_call_parser of the model.",
        bad=Example(profile="vllm_features: {enable_auto_tool_choice: true}\n"),
        good=Example(profile=f"{PARSED}\n"),
    ),
    Rule(
        id="KVS047",
        title="Parsers have names that vLLM knows",
        severity="error",
        scope="server",
        check=_unknown_parsers,
        runtimes=VLLM,
        reason="vLLM does not start with a parser that it does not know.",
        source="kvswarm/serving/vllm_parsers.yaml, read in the wheel of 0.32.0",
        fix="`vllm serve --help=tool-call-parser` lists those of your version.",
        bad=Example(
            profile="vllm_features: {enable_auto_tool_choice: true, tool_call_parser: hermse}\n"
        ),
        good=Example(profile=f"{PARSED}\n"),
    ),
    Rule(
        id="KVS048",
        title="Functions are strict",
        severity="warning",
        scope="requests",
        check=_tools_without_strict,
        runtimes=VLLM,
        reason="Without it vLLM constrains no arguments, and they need not be JSON: valid answers "
        "depend on the model alone.",
        source="seen with 0.32.0",
        fix="Leave tool_calling.strict at true, unless the model alone is what you measure.",
        bad=Example(profile=f"{TOOLS}\n{PARSED}\ntool_calling: {{strict: false}}\n"),
        good=Example(profile=f"{TOOLS}\n{PARSED}\ntool_calling: {{strict: true}}\n"),
    ),
    Rule(
        id="KVS070",
        title="Adapters that are loaded are enabled",
        severity="error",
        scope="server",
        check=_modules_without_lora,
        runtimes=VLLM,
        reason="vLLM does not start with lora_modules and without enable_lora.",
        source="seen with 0.32.0",
        fix="Add enable_lora: true.",
        bad=Example(profile="vllm_features: {lora_modules: {sql: /adapters/sql}}\n"),
        good=Example(
            profile="vllm_features: {enable_lora: true, lora_modules: {sql: /adapters/sql}}\n"
        ),
    ),
    Rule(
        id="KVS071",
        title="Adapters that are asked for are enabled",
        severity="error",
        scope="server",
        check=_adapters_without_lora,
        runtimes=VLLM,
        reason="A server without LoRA answers requests for an adapter with status 404.",
        source="seen with 0.32.0",
        fix="Add vllm_features.enable_lora: true, and lora_modules with their paths.",
        bad=Example(profile="adapters: {base: 1, sql: 1}\n"),
        good=Example(profile="adapters: {base: 1, sql: 1}\nvllm_features: {enable_lora: true}\n"),
    ),
    Rule(
        id="KVS072",
        title="max_lora_rank is that of the adapters",
        severity="error",
        scope="server",
        check=_high_ranks,
        runtimes=VLLM,
        reason="vLLM refuses an adapter of a higher rank when it loads it: LoRA rank is greater "
        "than max_lora_rank.",
        source="vllm/lora/peft_helper.py of 0.32.0",
        fix="Raise max_lora_rank to the highest; higher than that costs memory.",
        bad=Example(
            profile="vllm_features: {enable_lora: true, max_lora_rank: 8}\n",
            adapter_ranks={"sql": 16},
        ),
        good=Example(
            profile="vllm_features: {enable_lora: true, max_lora_rank: 16}\n",
            adapter_ranks={"sql": 16},
        ),
    ),
)

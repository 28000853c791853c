"""Rules about speculative decoding: what starts, a draft that fits, a use for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kvswarm.errors import ProfileError
from kvswarm.guardrails.facts import Facts, Found
from kvswarm.guardrails.rule import VLLM, Example, Rule
from kvswarm.serving.drafts import choose_draft, families
from kvswarm.serving.flags import read_flags
from kvswarm.serving.speculation import AUTO, SPECULATION_KEYS, flags_since
from kvswarm.serving.versions import Span, Version

MANY_USERS: Final = 32
"""From about here on a GPU computes rather than reads, and drafts cost what they bring."""
PENALTIES: Final = ("min_p", "logit_bias")


def _wrong_configuration(facts: Facts) -> Iterator[Found]:
    for problem in facts.speculation_problems:
        yield facts.at(problem.key, problem.what, problem.fix)


def _not_of_this_version(facts: Facts) -> Iterator[Found]:
    """What a configuration that is right in itself is not to this version."""
    key, version = facts.speculation_key, facts.server.version
    if key is None or facts.speculation is None or version < flags_since():
        return
    values = {k: f.value for k, f in facts.features.items() if k in SPECULATION_KEYS}
    _, problems = read_flags(values, version)
    for problem in problems:
        at = problem.key if problem.key.split(".")[0] in facts.features else key
        what = problem.what if at == problem.key else f"{problem.key} {problem.what}"
        what = what.removeprefix("speculative ")
        yield facts.at(at, what, problem.fix)


def _no_draft(facts: Facts) -> Iterator[Found]:
    """`speculative: auto`, where the model is known and no draft for it is."""
    feature, model = facts.features.get("speculative"), facts.server.model
    if feature is None or feature.value != AUTO or model is None:
        return
    try:
        choose_draft(model, facts.server.config)
    except ProfileError as error:
        what = error.message.removeprefix("speculative is auto, and ")
        yield facts.at("speculative", f"is auto, and {what}", error.fix)


def _vocabularies(facts: Facts) -> Iterator[Found]:
    speculation = facts.speculation
    if speculation is None or speculation.method != "draft_model":
        return
    if speculation.others.get("use_heterogeneous_vocab"):
        return
    target, draft = vocab_size(facts.server.config), vocab_size(facts.server.draft_config)
    if draft is None:
        sizes = {entry.get("draft"): entry.get("draft_vocab_size") for entry in families()}
        draft = sizes.get(speculation.model)
    if target is not None and draft is not None and target != draft:
        what = f"is {speculation.model}, with a vocabulary of {draft} tokens; the model's has "
        yield facts.at(_model_key(facts), f"{what}{target}")


def _model_key(facts: Facts) -> str:
    older = "speculative_model"
    return older if older in facts.features else f"{facts.speculation_key}.model"


def vocab_size(config: Mapping[str, Any] | None) -> int | None:
    """Read the vocabulary's size in a config.json; None: it does not tell."""
    if config is None:
        return None
    text = config.get("text_config")
    parts = (text if isinstance(text, Mapping) else {}, config)
    sizes = (part.get("vocab_size") for part in parts)
    return next((size for size in sizes if isinstance(size, int)), None)


def _many_users(facts: Facts) -> Iterator[Found]:
    key, speculation = facts.speculation_key, facts.speculation
    if key is None or facts.peak_users < MANY_USERS:
        return
    if speculation is not None and "disable_by_batch_size" in speculation.others:
        return
    what = f"asks for drafts, and the load has up to {facts.peak_users} users at a time"
    yield facts.at(key, what)


def _refused_sampling(facts: Facts) -> Iterator[Found]:
    if facts.speculation_key is None:
        return
    for written in facts.written.senders:
        for name in PENALTIES:
            if written.profile.request.get(name):
                yield Found(path=("request", name), what="is sent beside speculation", of=written)


RULES: Final = (
    Rule(
        id="KVS060",
        title="Speculation is described in full",
        severity="error",
        scope="server",
        check=_wrong_configuration,
        runtimes=VLLM,
        reason="vLLM refuses to start: without num_speculative_tokens, with a method or member "
        "that it does not know, without a draft where one is needed, or where the n-gram's min "
        "is above its max.",
        source="vllm/config/speculative.py of 0.32.0; seen with 0.32.0",
        fix="Give method, num_speculative_tokens, and a model for what drafts with one.",
        bad=Example(
            profile="speculative: {method: ngram, num_speculative_tokens: 4, "
            "prompt_lookup_min: 5, prompt_lookup_max: 3}\n"
        ),
        good=Example(
            profile="speculative: {method: ngram, num_speculative_tokens: 4, "
            "prompt_lookup_min: 2, prompt_lookup_max: 4}\n"
        ),
    ),
    Rule(
        id="KVS061",
        title="The version can speculate so",
        severity="error",
        scope="server",
        check=_not_of_this_version,
        runtimes=VLLM,
        reason="A method that the version does not have yet, or not any more, is refused at the "
        "start: draft models, for one, were away from 0.10 to 0.14.",
        source="kvswarm/serving/vllm_keys.yaml: speculation.methods, read in 0.4.1 to 0.32.0",
        fix="Serve with a version that can, or take ngram, which needs no draft.",
        bad=Example(
            profile="speculative: {method: draft_model, model: org/draft, "
            "num_speculative_tokens: 5}\n",
            version="0.12.0",
        ),
        good=Example(
            profile="speculative: {method: draft_model, model: org/draft, "
            "num_speculative_tokens: 5}\n",
            version="0.24.0",
        ),
    ),
    Rule(
        id="KVS062",
        title="`speculative: auto` has a draft",
        severity="error",
        scope="server",
        check=_no_draft,
        reason="kvswarm starts no server where it knows no draft that fits the model.",
        source="kvswarm/serving/drafts.yaml",
        fix="Give a draft of your own, or take ngram, which needs none.",
        bad=Example(profile="speculative: auto\n", model="org/unheard-of-7b"),
        good=Example(profile="speculative: auto\n", model="meta-llama/Llama-3.1-8B-Instruct"),
    ),
    Rule(
        id="KVS063",
        title="Draft and model have one vocabulary",
        severity="error",
        scope="server",
        check=_vocabularies,
        runtimes=VLLM,
        reason="vLLM refuses to start: 'Target and draft model should have the same vocabulary "
        "size'.",
        source="vllm/config/speculative.py of 0.32.0, verify_equal_vocab_size_if_draft_model",
        fix="Take a draft of the model's own family; from vLLM 0.25 on "
        "use_heterogeneous_vocab: true lets them differ.",
        bad=Example(
            profile="speculative: {method: draft_model, model: ./draft, "
            "num_speculative_tokens: 5}\n",
            config={"vocab_size": 152064},
            draft_config={"vocab_size": 151936},
        ),
        good=Example(
            profile="speculative: {method: draft_model, model: ./draft, "
            "num_speculative_tokens: 5}\n",
            config={"vocab_size": 151936},
            draft_config={"vocab_size": 151936},
        ),
    ),
    Rule(
        id="KVS064",
        title="Speculation is for few users",
        severity="warning",
        scope="server",
        check=_many_users,
        reason="Drafts use arithmetic that a GPU has to spare while it reads weights for few "
        "users. At many users there is none to spare: every draft that is refused costs "
        "throughput.",
        source="https://docs.vllm.ai/en/latest/features/spec_decode/; docs/serving.md",
        fix="Measure with fewer users, or measure both ways: --sweep "
        "speculative.num_speculative_tokens=1,3,5.",
        bad=Example(
            profile="concurrency: 64\nspeculative: {method: ngram, num_speculative_tokens: 4}\n"
        ),
        good=Example(
            profile="concurrency: 4\nspeculative: {method: ngram, num_speculative_tokens: 4}\n"
        ),
    ),
    Rule(
        id="KVS065",
        title="Sampling goes with speculation",
        severity="error",
        scope="server",
        check=_refused_sampling,
        runtimes=VLLM,
        versions=Span(Version(0, 12, 0)),
        reason="vLLM answers 400: 'The min_p and logit_bias sampling parameters are not yet "
        "supported with speculative decoding'.",
        source="vllm/sampling_params.py of 0.32.0, _validate_spec_decode; seen with 0.32.0",
        fix="Take it out of request, or measure without speculation.",
        bad=Example(
            profile="request: {min_p: 0.05}\n"
            "speculative: {method: ngram, num_speculative_tokens: 4}\n"
        ),
        good=Example(
            profile="request: {top_p: 0.95}\n"
            "speculative: {method: ngram, num_speculative_tokens: 4}\n"
        ),
    ),
)

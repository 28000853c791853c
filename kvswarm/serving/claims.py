"""Does the server run what the profile claims? Each claim confirmed, contradicted, or unknown.

In:  `vllm_features`, and what is known of the server: `ServerEvidence`.
Out: a `Claim` per key that can be checked, with a sentence for people; `KVCapacity`.
Not: asking the server. A claim is never more certain than its evidence: a served name that says
     AWQ is chosen by whoever started the server, and proves nothing; the checkpoint's own name
     (`root`) counts, and so do the deployment's flags and what the engine says in its metrics.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kvswarm.errors import ProfileError
from kvswarm.serving.checkpoints import fit, hints_in
from kvswarm.serving.flags import known_keys, spelled
from kvswarm.serving.problems import Problem, raise_problems
from kvswarm.serving.quantization import methods, names
from kvswarm.serving.speculation import ALSO, AUTO, SPECULATION_KEYS, speculation_of
from kvswarm.serving.values import wrong_value
from kvswarm.serving.versions import Version, vllm_version

Status = Literal["confirmed", "contradicted", "unknown"]

SPECULATION_METRICS: Final = "vllm:spec_decode_"
SPECULATION_METRICS_SINCE: Final = Version(0, 9, 0)
"""From here on an engine with speculation has these metrics, and one without has none."""

LORA_METRIC: Final = "vllm:lora_requests_info"

E4M3: Final = frozenset({"fp8", "fp8_e4m3"})
"""Two names of one thing: fp8 is e4m3."""

HALVES: Final = frozenset({"float16", "bfloat16"})

UTILIZATION_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvidence:
    """What is known of a running server. Empty or None: not known."""

    model_card: Mapping[str, Any] = field(default_factory=dict)
    """The entry of /v1/models that is asked: id, root, parent, max_model_len."""
    models: tuple[str, ...] = ()
    """Every id in /v1/models."""
    cache_config: Mapping[str, str] = field(default_factory=dict)
    """Labels of `vllm:cache_config_info`."""
    metric_names: frozenset[str] = frozenset()
    """Names on the server's metrics page."""
    server_version: str | None = None
    deployment_flags: tuple[str, ...] | None = None
    """Arguments that the server was started with, where the deployment is known."""
    simulator: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the profile, and what the evidence says of it."""

    key: str
    claimed: str
    seen: str | None
    """What the evidence says; None: nothing."""
    status: Status
    sentence: str


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """What the KV cache holds. None: not known."""

    tokens: int | None
    max_concurrency: float | None
    """Requests of max_model_len tokens that fit at once."""


def kv_cache_capacity(cache_config: Mapping[str, str], max_model_len: int | None) -> KVCapacity:
    """Work out what the KV cache holds: num_gpu_blocks x block_size tokens, over max_model_len.

    `cache_config` holds the labels of `vllm:cache_config_info`, which are texts ("None" for none).
    """
    blocks, block_tokens = (
        _number(cache_config.get(key)) for key in ("num_gpu_blocks", "block_size")
    )
    if blocks is None or block_tokens is None:
        return KVCapacity(None, None)
    tokens = int(blocks * block_tokens)
    return KVCapacity(tokens, tokens / max_model_len if max_model_len else None)


def check_claims(features: Mapping[str, Any], evidence: ServerEvidence) -> tuple[Claim, ...]:
    """Check each claim of `vllm_features` that evidence can tell something about, in their order.

    Raises ProfileError: a value that is to be checked is none that its key takes.
    """
    claims: list[Claim] = []
    speculation_checked = False
    given = {spelled(key): value for key, value in features.items() if value is not None}
    found = {key: wrong_value(known_keys()[key], given[key]) for key in given if key in _CHECKS}
    fix = "Change it, or leave it out."
    raise_problems([Problem(key, wrong, fix) for key, wrong in found.items() if wrong])
    for key, value in given.items():
        if key in SPECULATION_KEYS and not speculation_checked:
            speculation_checked = True
            claims.append(_speculation(given, evidence))
        elif key in _CHECKS:
            claims.extend(_CHECKS[key](key, value, evidence))
    return tuple(_of_simulator(claim) if evidence.simulator else claim for claim in claims)


def _of_simulator(claim: Claim) -> Claim:
    sentence = (
        f"{claim.key}: the simulator has no GPU and no {claim.key} of vLLM's; the figures are the "
        f"simulator's, and say nothing of {claim.claimed}."
    )
    return Claim(claim.key, claim.claimed, "the simulator", "unknown", sentence)


def _told(key: str, claimed: str, seen: str, source: str, *, agree: bool) -> Claim:
    """Make a claim of two values that can be compared."""
    if agree:
        return Claim(key, claimed, seen, "confirmed", f"{key}: {claimed}, as {source} says.")
    sentence = f"{key}: the profile claims {claimed}, and {source} says {seen}."
    return Claim(key, claimed, seen, "contradicted", sentence)


def _unknown(key: str, claimed: str, seen: str | None, why: str) -> Claim:
    return Claim(
        key, claimed, seen, "unknown", f"{key}: whether it is {claimed} is not known: {why}."
    )


def _label(
    key: str, claimed: Any, label: str, evidence: ServerEvidence, same: Callable[[str], bool]
) -> Claim:
    """Compare with a label of `vllm:cache_config_info`."""
    seen = evidence.cache_config.get(label)
    if seen is None:
        return _unknown(key, _text(claimed), None, "the server shows no vllm:cache_config_info")
    source = f"vllm:cache_config_info ({label})"
    return _told(key, _text(claimed), seen, source, agree=same(seen))


def _kv_cache_dtype(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    claimed = str(value)
    if claimed in HALVES and evidence.cache_config.get("cache_dtype") == "auto":
        yield _unknown(key, claimed, "auto", "the server has auto, which is the model's own dtype")
        return
    same = E4M3 if claimed in E4M3 else {claimed}
    yield _label(
        key, claimed, "cache_dtype", evidence, lambda seen: claimed == "auto" or seen in same
    )


def _prefix_caching(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    yield _label(key, value, "enable_prefix_caching", evidence, lambda seen: seen == str(value))


def _block_size(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    yield _label(key, value, "block_size", evidence, lambda seen: _number(seen) == value)


def _gpu_memory_utilization(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    def same(seen: str) -> bool:
        number = _number(seen)
        return number is not None and abs(number - value) < UTILIZATION_TOLERANCE

    yield _label(key, value, "gpu_memory_utilization", evidence, same)


def _max_model_len(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    seen = evidence.model_card.get("max_model_len")
    if seen is None:
        yield _unknown(key, str(value), None, "/v1/models does not tell max_model_len")
    else:
        yield _told(key, str(value), str(seen), "/v1/models", agree=seen == value)


def _sliding_window(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    """Check against the label, which has no window for models where only some layers have one."""
    claimed = "off" if value else "as the model has it"
    flag = _flag_value(evidence, "--disable-sliding-window")
    if flag is not None:
        seen = "as the model has it" if flag == "False" else "off"
        yield _told(key, claimed, seen, "the deployment", agree=seen == claimed)
        return
    window = _number(evidence.cache_config.get("sliding_window"))
    if window is not None:
        seen = f"a window of {int(window)} tokens"
        source = "vllm:cache_config_info (sliding_window)"
        yield _told(key, claimed, seen, source, agree=not value)
    else:
        why = "the server shows no window, as it does too where only some layers have one"
        yield _unknown(key, claimed, None, why)


def _lora_modules(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    names = [str(name) for name in value]
    claimed = ", ".join(names)
    if not evidence.models:
        yield _unknown(key, claimed, None, "/v1/models was not read")
        return
    missing = [name for name in names if name not in evidence.models]
    served = ", ".join(evidence.models)
    if missing:
        sentence = f"{key}: {', '.join(missing)} is not served; /v1/models has {served}."
        yield Claim(key, claimed, served, "contradicted", sentence)
    else:
        sentence = f"{key}: {claimed} served, as /v1/models says."
        yield Claim(key, claimed, served, "confirmed", sentence)


def _enable_lora(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    """Check by the metric that an engine has only with LoRA on."""
    claimed = _text(value)
    if not any(name.startswith("vllm:") for name in evidence.metric_names):
        yield _unknown(key, claimed, None, "the server's metrics were not read")
        return
    seen = LORA_METRIC in evidence.metric_names
    source = f"the metrics page ({LORA_METRIC})"
    yield _told(key, claimed, _text(seen), source, agree=seen == value)


def _speculation(given: Mapping[str, Any], evidence: ServerEvidence) -> Claim:
    """Check that there is speculation: by its metrics; only a deployment tells the method."""
    key = "speculative"
    speculation = None if given.get(key) == AUTO else speculation_of(given)
    claimed = speculation.method if speculation else AUTO
    deployed = _deployed_method(evidence)
    if speculation and deployed is not None and deployed != claimed:
        return _told(key, claimed, deployed, "the deployment", agree=False)
    if any(name.startswith(SPECULATION_METRICS) for name in evidence.metric_names):
        told = "as the deployment says" if deployed else "though its metrics do not tell by what"
        sentence = f"{key}: {claimed}; the server counts drafts, {told}."
        return Claim(key, claimed, deployed or "on", "confirmed", sentence)
    if not any(name.startswith("vllm:") for name in evidence.metric_names):
        return _unknown(key, claimed, deployed, "the server's metrics were not read")
    version = _version(evidence)
    if version is not None and version < SPECULATION_METRICS_SINCE:
        why = f"vLLM {version} counts no drafts, whether it speculates or not"
        return _unknown(key, claimed, deployed, why)
    sentence = (
        f"{key}: the profile claims {claimed}, and the server does not speculate: "
        f"its metrics have no {SPECULATION_METRICS}*."
    )
    return Claim(key, claimed, "off", "contradicted", sentence)


def _quantization(key: str, value: Any, evidence: ServerEvidence) -> Iterator[Claim]:
    """Check the flag first, then the checkpoint's name, then the served name, which is a hint."""
    claimed = str(value)
    name = names().get(claimed.lower())
    flags = {claimed} if name is None else set(methods()[name].flags)
    flag = _flag_value(evidence, "--quantization") or _flag_value(evidence, "-q")
    if flag in flags:
        yield _told(key, claimed, flag, "the deployment (--quantization)", agree=True)
        return
    # compressed-tensors is the container of several methods: it alone tells none of them.
    if flag is not None and flag not in _containers(name):
        yield _told(key, claimed, flag, "the deployment (--quantization)", agree=False)
        return
    # An adapter's root is the adapter; its parent is the served name of the model below it.
    card = evidence.model_card
    root = "" if card.get("parent") else card.get("root")
    yield _by_name(
        key, claimed, name, str(root or ""), str(card.get("parent") or card.get("id") or "")
    )


def _containers(name: str | None) -> tuple[str, ...]:
    return () if name is None else methods()[name].checkpoints


def _by_name(key: str, claimed: str, name: str | None, root: str, served: str) -> Claim:
    hints = hints_in(root)
    seen = ", ".join(sorted(hints)) or None
    if not hints:
        said = ", ".join(sorted(hints_in(served))) or None
        why = "neither the checkpoint's name nor the deployment tells"
        if said:
            why = f"the server calls its model {served}, a name that anybody may choose"
        return _unknown(key, claimed, said, why)
    fits = None if name is None else fit(name, hints)
    if fits is None:
        return _unknown(key, claimed, seen, f"the checkpoint {root} may be that or another")
    return _told(key, claimed, str(seen), f"the checkpoint's name ({root})", agree=fits)


def _deployed_method(evidence: ServerEvidence) -> str | None:
    """Read the method out of the deployment's --speculative-config."""
    text = _flag_value(evidence, "--speculative-config") or _flag_value(evidence, "-sc")
    try:
        contents = json.loads(text or "")
    except ValueError:
        return None
    method = contents.get("method") if isinstance(contents, dict) else None
    return None if method is None else ALSO.get(str(method), str(method))


def _flag_value(evidence: ServerEvidence, flag: str) -> str | None:
    """Find a flag among the deployment's; "True" or "False" for one without a value."""
    flags = evidence.deployment_flags or ()
    negated = f"--no-{flag.removeprefix('--')}"
    for at, part in enumerate(flags):
        name, assigned, value = part.partition("=")
        name = name.replace("_", "-")
        if name == negated:
            return "False"
        if name == flag:
            if assigned:
                return value
            following = flags[at + 1] if at + 1 < len(flags) else "-"
            return "True" if following.startswith("-") else following
    return None


def _version(evidence: ServerEvidence) -> Version | None:
    try:
        return vllm_version(evidence.server_version or "")
    except ProfileError:
        return None


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_CHECKS: Final[Mapping[str, Callable[[str, Any, ServerEvidence], Iterator[Claim]]]] = {
    "quantization": _quantization,
    "kv_cache_dtype": _kv_cache_dtype,
    "enable_prefix_caching": _prefix_caching,
    "enable_lora": _enable_lora,
    "lora_modules": _lora_modules,
    "max_model_len": _max_model_len,
    "gpu_memory_utilization": _gpu_memory_utilization,
    "disable_sliding_window": _sliding_window,
    "block_size": _block_size,
}

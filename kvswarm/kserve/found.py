"""A service of KServe as it was found: plain data, and how its server's words are read.

In:  containers of pods and runtimes, as the API server has them.
Out: `FoundService`, `FoundPod`, `Serving`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

CONTAINERS: Final = ("kserve-container", "main")
"""The server's container, of an InferenceService and of an LLMInferenceService."""
NAME_FLAGS: Final = ("--served-model-name", "--model-name")
VARIABLE: Final = re.compile(r"\$\{?VLLM_ADDITIONAL_ARGS\}?")
FILLED: Final = re.compile(r"\{\{\s*\.(Name|Namespace)\s*\}\}")
SECRET: Final = re.compile(
    r"(--[\w-]*(?:api[-_]key|password|secret|(?:access|auth|hf|hub)[-_]token))(=|$)"
)
API_PATHS: Final = {
    "vllm": "/openai/v1",
    "vllm-runtime": "/v1",
    "tgi": "/v1",
    "tensorrt-llm": "/v1",
}
"""What each backend's API hangs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPod:
    """One pod of a service. `port`, `path` and `scheme` are those of its metrics."""

    name: str
    uid: str
    ip: str | None
    node: str | None
    image: str | None
    port: int
    path: str
    scheme: str
    running: bool
    """Whether the server's container runs, ready or not."""
    ready: bool
    leaving: bool
    """Whether it is being deleted: it ends what it has begun, and gets nothing new."""
    restarts: int
    counts: bool
    """Whether its metrics count whole requests: one that only prefills hands them on, and one that
    helps a server on another node has no page."""
    words: tuple[str, ...]
    """The command line of its server."""
    gpus: int = 0
    """GPUs, or slices of them, that its server asks for."""
    gpu_resource: str | None = None
    cpus: float | None = None
    """What it asks for; None: nothing."""
    memory_gib: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of its node, or those that it wants of one, which say what machine that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves the model. None: not known."""

    backend: str | None
    """As `kvswarm manifest --backend` has it."""
    runtime: str | None
    image: str | None
    words: tuple[str, ...]

    @property
    def version(self) -> str | None:
        """The image's tag."""
        name, colon, tag = (self.image or "").partition("@")[0].rpartition(":")
        return tag if colon and name and "/" not in tag else None

    @property
    def flags(self) -> tuple[str, ...]:
        """The command line without what a flag of a secret says."""
        shown: list[str] = []
        hide = False
        for word in self.words:
            found = SECRET.match(word)
            shown.append("***" if hide else f"{found[1]}=***" if found and found[2] else word)
            hide = found is not None and not found[2]
        return tuple(shown)

    @property
    def api_path(self) -> str | None:
        """What the API hangs on."""
        return API_PATHS.get(self.backend or "")

    @property
    def model(self) -> str | None:
        """The name that the command line gives the model."""
        return model_of(self.words, self.backend)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundService:
    """One InferenceService or LLMInferenceService. None: not known, or not there."""

    kind: str
    namespace: str
    name: str
    url: str | None
    local_url: str | None
    """Its address inside the cluster."""
    model: str | None
    """As requests must name it; None: its server tells."""
    serving: Serving
    mode: str | None
    min_replicas: int | None
    may_sleep: bool
    """Whether it can be scaled to zero."""
    ready: bool
    why_not_ready: str
    failed: bool = False
    """Whether KServe has given its model up."""
    gateways: tuple[str, ...] = ()
    """`NAMESPACE/NAME` of the Gateways that it says lead to it."""
    selector: str
    """Labels of its pods."""
    pods: tuple[FoundPod, ...] | None = None
    """None: the user may not list them."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """What its document says that a pod asks for, by the names of `FoundPod`; empty: nothing."""
    notes: tuple[str, ...] = ()

    @property
    def asleep(self) -> bool:
        """Whether it is scaled to zero, so that the first request wakes it."""
        return self.may_sleep and self.pods is not None and all(pod.leaving for pod in self.pods)


def main_container(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The server's container of a pod's spec or a runtime's; empty where there is none."""
    containers = spec.get("containers") or []
    for name in CONTAINERS:
        for container in containers:
            if container.get("name") == name:
                return dict(container)
    return dict(containers[0]) if containers else {}


def words_of(container: Mapping[str, Any], more: Sequence[str] = ()) -> tuple[str, ...]:
    """A container's command line, word by word; a shell's script is divided as a shell does.

    `more` are arguments that another document adds.
    """
    given = [*(container.get("command") or []), *(container.get("args") or []), *more]
    script = next((i for i, word in enumerate(given) if word == "-c"), None)
    if script is not None and script + 1 < len(given):
        given = _divided(given[script + 1])
    environment = {each["name"]: each.get("value") for each in container.get("env") or []}
    added = environment.get("VLLM_ADDITIONAL_ARGS")
    words: list[str] = []
    for word in given:
        if VARIABLE.fullmatch(word):
            words += _divided(added or "")
        else:
            words.append(str(word).replace("$$(", "$("))
    return tuple(words)


def _divided(script: str) -> list[str]:
    """The words of the last command of a script; of a broken one what spaces divide."""
    try:
        words = shlex.split(script.replace("\\\n", " "), comments=True)
    except ValueError:
        words = script.split()
    starts = [i for i, word in enumerate(words) if word == "vllm"]
    return words[starts[-1] :] if starts else words


def filled(words: Sequence[str], namespace: str, name: str) -> tuple[str, ...]:
    """Put the service's name where a runtime leaves room for it."""
    values = {"Name": name, "Namespace": namespace}
    return tuple(FILLED.sub(lambda found: values[found[1]], word) for word in words)


def flag_value(words: Sequence[str], *names: str) -> str | None:
    """The value of the last of these flags, however its words are joined; None without any."""
    value = None
    for word, after in zip(words, (*words[1:], ""), strict=False):
        name, assigned, text = word.partition("=")
        if name.replace("_", "-") in names and name.startswith("--"):
            value = text if assigned else after
    return value or None


def model_of(words: Sequence[str], backend: str | None) -> str | None:
    """The name that a command line gives the model; None where the server chooses one."""
    named = flag_value(words, *NAME_FLAGS)
    if named is None and backend == "tensorrt-llm" and "trtllm-serve" in words:
        after = [w for w in words[words.index("trtllm-serve") + 1 :] if w != "serve"]
        named = after[0].rstrip("/").rpartition("/")[2] if after else None
    return named


def backend_of(image: str | None, words: Sequence[str], model_format: str | None) -> str | None:
    """Which server it is, by its image, its command and the format that it was chosen for."""
    known = image or ""
    if "text-generation-inference" in known or model_format == "tgi":
        return "tgi"
    if "tensorrt-llm" in known or "trtllm-serve" in words or model_format == "tensorrt-llm":
        return "tensorrt-llm"
    hugging_face = ("--model_name", "--model_id", "--model_dir")
    if "huggingfaceserver" in known or any(w.partition("=")[0] in hugging_face for w in words):
        return "vllm"
    if "vllm" in known or "vllm" in words or model_format == "vLLM":
        return "vllm-runtime"
    return "vllm" if model_format == "huggingface" else None

"""What a rule may look at: the profile as it was written, and what is known of its server.

In:  `Written` (profile, values, places), and `Server`.
Out: `Facts`, with the features of the server gathered from the profile or the parts of a mix.
A value that is not of the kind that its key wants is as good as not given: one rule says so, and
all others can rely on kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.profiles.load import Written
from kvswarm.profiles.problems import KeyPath
from kvswarm.serving.flags import known_keys, spelled
from kvswarm.serving.problems import Problem
from kvswarm.serving.speculation import AUTO, SPECULATION_KEYS, Speculation, read_speculation
from kvswarm.serving.values import wrong_value
from kvswarm.serving.versions import NEWEST, Version

RUNTIMES: Final = {
    "vllm": "vllm",
    "vllm-runtime": "vllm",
    "tgi": "tgi",
    "tensorrt-llm": "tensorrt-llm",
    "triton": "tensorrt-llm",
}
"""What serves behind each backend."""
CPU: Final = frozenset({"cpu", "none"})
"""What stands for no GPU at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How the server is to run on KServe. None or empty: not said."""

    mode: str = "standard"
    min_replicas: int = 1
    max_replicas: int | None = None
    autoscaler: str | None = None
    scale_metric: str | None = None
    gpus: int | None = None
    gpu_resource: str = "nvidia.com/gpu"
    cpu: str | None = None
    memory: str | None = None
    shared_memory: bool | None = None
    """Whether /dev/shm is a volume in memory."""
    nodes: int = 1
    image: str | None = None
    storage: str | None = None
    """Where the model comes from: hf, pvc, oci, s3, ..."""
    url_path: str | None = None
    """Path before /v1 that requests are sent to."""
    timeout_s: float | None = None
    """The predictor's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of the server that a profile is for. None: not known."""

    backend: str = "vllm"
    version: Version = NEWEST
    """vLLM's; of no meaning for other runtimes."""
    certain: bool = True
    """Whether backend and version are known; if not, what depends on them is no error."""
    model: str | None = None
    """Name or directory."""
    config: Mapping[str, Any] | None = None
    """The model's config.json."""
    weights_bytes: int | None = None
    """Of the checkpoint, where its weights lie beside that."""
    draft_config: Mapping[str, Any] | None = None
    """The draft's, where it lies here."""
    adapter_ranks: Mapping[str, int] = field(default_factory=dict)
    """Rank of each adapter that lies here."""
    gpu: str | None = None
    """As it was given: A100-80GB, H100, ... or cpu."""
    mig: str | None = None
    """A slice of it, such as 1g.10gb."""
    deployment: Deployment | None = None

    @property
    def runtime(self) -> str:
        """What serves: vllm, tgi, tensorrt-llm."""
        return RUNTIMES[self.backend]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature that the server is to have, and where the profile says so."""

    key: str
    """As the tables spell it."""
    value: Any
    path: KeyPath
    of: Written


@dataclass(frozen=True, slots=True)
class Clash:
    """A feature that is said a second time. `first` may have another value."""

    first: Feature
    second: Feature


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a rule finds: at which key, and what is wrong there."""

    path: KeyPath
    what: str
    """Goes on from the key: "is 8, and ..."."""
    of: Written | None = None
    """The part of a mix that it is in; None: the profile itself."""
    fix: str = ""
    """What to do, where that is more than the rule's own remedy says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that rules go by."""

    written: Written
    server: Server
    features: Mapping[str, Feature]
    clashes: tuple[Clash, ...]
    speculation: Speculation | None
    """None: none, one that is wrong, or auto."""
    speculation_problems: tuple[Problem, ...]

    def value(self, key: str) -> Any:
        """A feature's value; None: not given, or not of the kind that its key wants."""
        feature = self.features.get(key)
        if feature is None:
            return None
        entry = known_keys().get(key)
        return None if entry and wrong_value(entry, feature.value) else feature.value

    def at(self, key: str, what: str, fix: str = "") -> Found:
        """Make a finding at a feature, or at a member of one (`speculative.model`)."""
        head, *members = key.split(".")
        feature = self.features.get(head) or self._speculative()
        if feature is None:
            return Found(path=("vllm_features",), what=what, fix=fix)
        inside = tuple(members) if head in self.features else ()
        return Found(path=(*feature.path, *inside), what=what, of=feature.of, fix=fix)

    def _speculative(self) -> Feature | None:
        return next((f for key, f in self.features.items() if key in SPECULATION_KEYS), None)

    @property
    def speculation_key(self) -> str | None:
        """The feature that speaks of speculation; None: none does."""
        feature = self._speculative()
        return None if feature is None else feature.key

    @property
    def on_cpu(self) -> bool:
        """Whether the server is to run without a GPU."""
        deployment = self.server.deployment
        return (
            (self.server.gpu or "").lower() in CPU
            or self.value("device") == "cpu"
            or self.value("vllm_cpu_kvcache_space") is not None
            or (deployment is not None and deployment.gpus == 0)
        )

    @property
    def max_model_len(self) -> int | None:
        """Tokens that a sequence may have: as the profile says, else as the model's config does."""
        given: int | None = self.value("max_model_len")
        if given is not None or self.server.config is None:
            return given
        text = self.server.config.get("text_config", self.server.config)
        limit = text.get("max_position_embeddings") if isinstance(text, Mapping) else None
        return limit if isinstance(limit, int) and limit > 0 else None

    @property
    def peak_users(self) -> int:
        """Most users at a time; 0: arrivals at a rate."""
        return self.written.profile.load.peak_users


def facts_of(written: Written, server: Server) -> Facts:
    """Gather the facts. A mix has one server, so that its parts' features belong together."""
    features: dict[str, Feature] = {}
    clashes = []
    each = (written, *written.parts)
    for feature in (feature for part in each for feature in _features_of(part)):
        first = features.setdefault(feature.key, feature)
        same_place = first.of is feature.of
        if first is not feature and (same_place or first.value != feature.value):
            clashes.append(Clash(first, feature))
    values = {key: feature.value for key, feature in features.items()}
    problems: list[Problem] = []
    is_auto = values.get("speculative") == AUTO
    speculation = None if is_auto else read_speculation(values, problems)
    return Facts(
        written=written,
        server=server,
        features=features,
        clashes=tuple(clashes),
        speculation=speculation,
        speculation_problems=tuple(problems),
    )


def _features_of(written: Written) -> Iterator[Feature]:
    profile = written.profile
    for key, value in profile.vllm_features.items():
        if value is not None:
            yield Feature(spelled(key), value, ("vllm_features", key), written)
    if profile.speculative is not None:
        yield Feature("speculative", profile.speculative, ("speculative",), written)

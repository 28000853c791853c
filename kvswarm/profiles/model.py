"""What a profile resolves to: one immutable object, which is also written to run.json.

Loading and resolving is in `load.py`, the JSON Schema in `profile.schema.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from kvswarm.profiles.features import (
    Conversation,
    Images,
    StructuredOutput,
    ToolCalling,
)

Pattern = Literal["steady", "constant", "poisson", "gamma", "bursty", "heavy", "ramp", "stages"]
OPEN_LOOP: frozenset[str] = frozenset({"constant", "poisson", "gamma", "bursty", "heavy"})
"""Patterns of arrivals. `ramp` and `stages` are open loop where they are given in rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A distribution of token counts.

    kind `fixed`: mean. `uniform`: min to max, both included. `normal`: mean and std, held
    within min and max. `values`: each of `values` in turn. `file`: as the row of the file says.
    """

    kind: Literal["fixed", "uniform", "normal", "values", "file"]
    mean_tokens: float = 0.0
    std_tokens: float = 0.0
    min_tokens: int = 1
    max_tokens: int = 1
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of `ramp` or `stages`: to a level, over a time, in a straight line or at once."""

    duration_s: float
    concurrency: int | None = None
    rate_rps: float | None = None
    linear: bool = False
    """True: go from the level before to this one evenly over the stage; False: jump to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """When requests start, and when they stop starting. `ramp` is kept as stages."""

    pattern: Pattern
    open_loop: bool
    requests: int | None = None
    duration_s: float | None = None
    concurrency: int | None = None
    """Users of a closed loop; None for an open loop."""
    rate_rps: float | None = None
    """Arrivals per second of an open loop: for `bursty` while on, else the mean."""
    burstiness: float = 1.0
    """Shape of the gamma distribution of gaps: 1 is Poisson, below 1 burstier."""
    on_s: float | None = None
    off_s: float | None = None
    off_rate_rps: float = 0.0
    stages: tuple[Stage, ...] = ()
    max_in_flight: int = 4096
    """Per run: arrivals of an open loop beyond it are dropped and counted."""
    drain_s: float = 60.0
    """How long in-flight requests may go on after the load stopped; then they are cancelled."""

    @property
    def peak_users(self) -> int:
        """Most users that a closed loop has at a time; 0 for an open loop."""
        if self.open_loop:
            return 0
        return max([self.concurrency or 0, *(stage.concurrency or 0 for stage in self.stages)])


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSpec:
    """What is sent and how much is asked for."""

    input_tokens: Lengths
    output_tokens: Lengths
    prompts_file: str | None = None
    tokenizer: str | None = None
    """File or directory with tokenizer.json: lengths are exact then, else estimated."""
    shared_prefix_tokens: int = 0
    shared_prefixes: int = 1
    """So many different ones, in turn."""
    shared_prefix_share: float = 1.0
    """Share of the requests with a shared prefix; the others have one of their own, as long."""
    unique: bool = True
    system: str | None = None
    ignore_eos: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Warm-up or cool-down, in requests or in seconds; none where both are None."""

    requests: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Deadlines of one request, in seconds."""

    connect_s: float = 10.0
    first_byte_s: float = 300.0
    between_bytes_s: float = 60.0
    total_s: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLimits:
    """When a run is degraded or invalid. The error shares are of the figure, 0.05 is 5 %."""

    degraded_error_share: float = 0.025
    degraded_error_ms: float = 1.0
    invalid_error_share: float = 0.20
    invalid_error_ms: float = 2.0
    degraded_send_lag_p99_ms: float = 10.0
    invalid_send_lag_p99_ms: float = 1000.0
    max_dropped_arrival_share: float = 0.0
    max_clock_step_ms: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One resolved profile: everything a run depends on, besides the target."""

    name: str
    description: str
    load: Load
    prompt: PromptSpec
    endpoint: Literal["chat", "completions"] = "chat"
    seed: int = 0
    use_cases: tuple[str, ...] = ()
    recommended_for: tuple[str, ...] = ()
    needs: str = ""
    expect: str = ""
    characteristics: Mapping[str, Any] = field(default_factory=dict)
    vllm_features: Mapping[str, Any] = field(default_factory=dict)
    speculative: Mapping[str, Any] | Literal["auto"] | None = None
    """As vLLM's --speculative-config; `auto` picks a draft for the model."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """Extra members of every request body, such as temperature."""
    structured_output: StructuredOutput | None = None
    tool_calling: ToolCalling | None = None
    conversation: Conversation | None = None
    images: Images | None = None
    adapters: Mapping[str, float] = field(default_factory=dict)
    """Names of LoRA adapters to their weights; `base` is the model itself."""
    mix: tuple[MixPart, ...] = ()
    """Other profiles whose requests this one's load is made of."""
    warmup: Window = field(default_factory=Window)
    cooldown: Window = field(default_factory=Window)
    slo: Mapping[str, float] = field(default_factory=dict)
    """`ttft_ms`, `itl_p99_ms`, ... to the limit in ms; a request that meets all is goodput."""
    gate: Mapping[str, float] = field(default_factory=dict)
    """`error_share`, `goodput_share`, `ttft_p99_ms`, ...: missed, and the run exits 1."""
    cost: Mapping[str, Any] = field(default_factory=dict)
    """Prices, and what a replica is; see `kvswarm.serving.prices`."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    verdict: VerdictLimits = field(default_factory=VerdictLimits)
    on_worker_loss: Literal["continue", "stop"] = "continue"
    """What becomes of a run that loses a load-generating process."""
    source: str | None = None
    """Path of the file that the profile came from."""

    @property
    def parts(self) -> tuple[Profile, ...]:
        """The profiles that requests are made by: those of the mix, or this one alone."""
        return tuple(part.profile for part in self.mix) or (self,)

    @property
    def server_features(self) -> dict[str, Any]:
        """`vllm_features`, with `speculative` in it: what this profile's own server is to be."""
        own = {} if self.speculative is None else {"speculative": self.speculative}
        return {**self.vllm_features, **own}

    @property
    def has_dialogues(self) -> bool:
        """Whether a request may depend on the answer to the one before."""
        second_turn = self.tool_calling is not None and self.tool_calling.second_turn
        own = self.conversation is not None or second_turn
        return own or any(part.profile.has_dialogues for part in self.mix)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for run.json; `profile_from_dict` reads it back."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class MixPart:
    """One profile of a mix: what it sends counts, when it would do so does not."""

    weight: float
    profile: Profile


def profile_from_dict(plain: Mapping[str, Any]) -> Profile:
    """Read what `Profile.to_dict` gave. Raises msgspec.ValidationError for anything else."""
    return msgspec.convert(dict(plain), Profile)

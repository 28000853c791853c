"""What a comparison of finished runs is, as plain data.

In:  what `comparison.py` found.  Out: `RunComparison`; `run_comparison.schema.json` describes it.
"""

from __future__ import annotations

import string
from typing import Any, Final

import msgspec

from kvswarm.analysis.differences import CONFIDENCE, RELEVANT_SHARE
from kvswarm.analysis.schemas import validator

SCHEMA: Final = "run_comparison.schema.json"
SCHEMA_VERSION: Final = 1
LABELS: Final = string.ascii_uppercase
"""What runs are called, in the order in which they are given."""

FASTER: Final = "faster"
SLOWER: Final = "slower"
HIGHER: Final = "higher"
LOWER: Final = "lower"
NO_DIFFERENCE: Final = "no difference that these runs can show"
TOO_LITTLE: Final = "too little to tell"


class RunFigures(msgspec.Struct, kw_only=True, frozen=True):
    """One run, as summary.json has it."""

    label: str
    name: str
    path: str
    run_id: str
    profile: str
    model: str
    backend: str | None
    quantization: str | None
    server_version: str | None
    simulator: bool
    concurrency: int | None
    rate_rps: float | None
    gpus: float | None
    """GPUs of all replicas together, over time; None: not known."""
    requests: int
    """Measured requests."""
    slo: dict[str, float]
    verdict: str
    reasons: list[str]
    figures: dict[str, float | None]
    """By their names in `FIGURES`; None: the run has none."""
    cost: dict[str, float]
    """What work costs by its sections `cost` and `energy`: `cost.per_request_usd`, ..."""


class Change(msgspec.Struct, kw_only=True, frozen=True):
    """One figure of a run against that of another, in the figure's unit."""

    figure: str
    verdict: str
    why: str | None = None
    """Why there is too little to tell."""
    difference: float | None = None
    reference: float | None = None
    """The other's, over the same values that the difference is made of."""
    change_share: float | None = None
    ratio: float | None = None
    """The one by the other."""
    low: float | None = None
    high: float | None = None
    """Interval of 95 % of the difference."""
    p_value: float | None = None
    p_corrected: float | None = None
    """For all figures of all runs of the comparison (Holm)."""
    faster_share: float | None = None
    """Latencies: how probably a request of the one is faster than one of the other."""
    count: int = 0
    """Values of the smaller side, or pairs."""
    blocks: int = 0
    paired: bool = False
    needed_requests: int | None = None
    """Requests of each run that would show a change of 5 % in 80 of 100 cases."""


class Pair(msgspec.Struct, kw_only=True, frozen=True):
    """One run against another, both by their labels."""

    run: str
    against: str
    obstacles: list[str]
    """What stands against the comparison; then there are no changes."""
    same_work: bool
    """Whether the run and the baseline differ in nothing that stands against it but the load."""
    changes: list[Change]


class FactorRow(msgspec.Struct, kw_only=True, frozen=True):
    """A run by what was varied, with what one decides by. None: not known."""

    run: str
    backend: str | None
    quantization: str | None
    load: str
    output_tokens_per_s: float | None
    output_tokens_per_gpu_s: float | None
    ttft_p95_ms: float | None
    itl_p99_ms: float | None
    goodput_share: float | None
    per_million_output_tokens_usd: float | None


class Front(msgspec.Struct, kw_only=True, frozen=True):
    """Runs that no other one surpasses in both of two figures."""

    more: str
    """The figure of which more is better."""
    less: str
    """The figure of which less is better."""
    runs: list[str]
    """In the order of the first figure, the best first."""


class Recommendation(msgspec.Struct, kw_only=True, frozen=True):
    """Which run suits a use, and why."""

    use_case: str
    run: str | None
    """None: nothing is to be said."""
    text: str
    figures: list[str]
    """The figures that it is said of, `LABEL.FIGURE` each."""


class Factors(msgspec.Struct, kw_only=True, frozen=True):
    """Runs by backend, quantization and load."""

    rows: list[FactorRow]
    fronts: list[Front]
    recommendations: list[Recommendation]


class Sentence(msgspec.Struct, kw_only=True, frozen=True):
    """What is said, and the figures that it is said of."""

    text: str
    figures: list[str]
    """`LABEL.FIGURE` each."""


class RunComparison(msgspec.Struct, kw_only=True, frozen=True):
    """A comparison of finished runs."""

    schema_version: int = SCHEMA_VERSION
    confidence: float = CONFIDENCE
    relevant_share: float = RELEVANT_SHARE
    baseline: str
    runs: list[RunFigures]
    pairs: list[Pair]
    tests: int
    """p-values that were corrected together."""
    notes: list[str] = []
    sentences: list[Sentence] = []
    factors: Factors | None = None
    """None: neither backend nor quantization nor load differs between the runs."""

    def run(self, label: str) -> RunFigures:
        """The run of a label."""
        return self.runs[LABELS.index(label)]

    def plain(self) -> dict[str, Any]:
        """Plain data, as its schema has it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        validator(SCHEMA).validate(plain)
        return plain

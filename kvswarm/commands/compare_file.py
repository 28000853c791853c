"""comparison.json: what was compared, on what, and what came of each variant.

In:  outcomes of deployments and runs.
Out: `Comparison`, as plain data on disk; `comparison.schema.json` describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from kvswarm.commands.series_file import Outcome, read_series, write_series

COMPARISON_FILE: Final = "comparison.json"
SCHEMA_PATH: Final = Path(__file__).with_name("comparison.schema.json")
SCHEMA_VERSION: Final = 1


class VariantRun(Outcome, kw_only=True):
    """One variant: its deployment and its run."""

    backend: str
    quantization: str | None
    model: str
    """URI of what is served."""
    service: str
    manifests_sha256: str
    """Of the manifests as YAML: a server that is deployed by others is another one."""
    image: str | None
    """As its pods have it; before that, as the manifests name it. None: the cluster chooses."""
    runtime_version: str | None = None
    """As the server tells it."""
    deployment: str | None = None
    """The file that the deployment wrote, beside comparison.json."""
    phases_s: dict[str, float | None] = msgspec.field(default_factory=dict)
    """When the deployment had reached each phase, in seconds since it was applied."""
    started_ns: int | None = None
    """When its deployment began, in ns since 1970."""
    ended_ns: int | None = None
    """When it was taken down."""
    left_out: list[str] = msgspec.field(default_factory=list)
    """Features of the profile that its backend has no words for."""
    unlike: list[str] = msgspec.field(default_factory=list)
    """Those of them that another variant has: in these the two cannot be compared."""
    notes: list[str] = msgspec.field(default_factory=list)
    """What its backend says about the profile's features."""


class ClusterFile(msgspec.Struct, kw_only=True):
    """The cluster, as it answers."""

    server: str
    version: str


class MachineFile(msgspec.Struct, kw_only=True):
    """What every replica of every variant has."""

    gpu_resource: str
    gpus: int
    cpu: str
    memory: str
    node_selector: dict[str, str]
    tolerations: list[dict[str, str]]


class Comparison(msgspec.Struct, kw_only=True):
    """comparison.json."""

    schema_version: int = SCHEMA_VERSION
    model: str
    profile: str
    seed: int
    """Of prompts and arrivals, and of the order where it was shuffled."""
    cluster: ClusterFile
    namespace: str
    mode: str
    machine: MachineFile
    order: list[str]
    """Texts of the variants, in the order in which they are run."""
    variants: list[VariantRun]
    """In the order in which they were given; effects are against the first."""
    notes: list[str] = []

    def write(self, folder: Path) -> None:
        """Write it whole or not at all."""
        write_series(self, folder / COMPARISON_FILE, SCHEMA_PATH)


def read_comparison(folder: Path) -> Comparison:
    """Read what an earlier call wrote. Raises RunDirError where it is damaged or not ours."""
    return read_series(folder / COMPARISON_FILE, Comparison, SCHEMA_VERSION)


def unlike(left_out: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of what each variant leaves out, what not all of them do, in the same order."""
    everywhere = set(left_out[0]).intersection(*left_out)
    return [[key for key in keys if key not in everywhere] for keys in left_out]

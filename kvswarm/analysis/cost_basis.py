"""cost.json of a run directory: what a replica was, and what its parts cost an hour.

In:  what `kvswarm run` and `kvswarm report` found out: the analysis asks no cluster and no list.
Out: `CostBasis`.  What is not known is None, and the notes say what to give.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kvswarm.errors import RunDirError
from kvswarm.rundir import RunDir, write_atomically
from kvswarm.serving.prices import Costs

SCHEMA_VERSION: Final = 1


class CostBasis(msgspec.Struct, kw_only=True, frozen=True):
    """What ran, and its prices in US dollars."""

    schema_version: int = SCHEMA_VERSION
    gpu: str | None = None
    """As it is called; None: not known, or there is none."""
    gpus_per_replica: int | None = None
    """0: a replica that has none."""
    cpus_per_replica: float | None = None
    memory_gib_per_replica: float | None = None
    replicas: int | None = None
    """As it was given, or as many as there were before the load."""
    replicas_given: bool = False
    """A person said how many: then it is not asked what the cluster saw."""
    gpu_hour_usd: float | None = None
    cpu_core_hour_usd: float | None = None
    memory_gib_hour_usd: float | None = None
    overhead_share: float = 0.0
    idle_w_per_gpu: float | None = None
    price_source: str | None = None
    price_as_of: str | None = None
    price_region: str | None = None
    notes: list[str] = []
    given: Costs = Costs()
    """What flags and files said, for when the figures are made again."""

    @property
    def replica_hour_usd(self) -> float | None:
        """What a replica costs for an hour; None where a part of it has no price."""
        gpus = self.gpus_per_replica
        if gpus is None:
            return None
        parts = [_product(gpus, self.gpu_hour_usd)] if gpus else []
        if not gpus or self.cpu_core_hour_usd is not None:
            parts.append(_product(self.cpus_per_replica, self.cpu_core_hour_usd))
        if self.memory_gib_hour_usd is not None:
            parts.append(_product(self.memory_gib_per_replica, self.memory_gib_hour_usd))
        known = [part for part in parts if part is not None]
        return sum(known) * (1 + self.overhead_share) if len(known) == len(parts) else None

    @property
    def lacking(self) -> list[str]:
        """What must be given before there is a cost, in words."""
        gpus = self.gpus_per_replica
        wanted = (
            (gpus is None, "the GPUs of a replica: --gpus N"),
            (bool(gpus) and self.gpu is None and self.gpu_hour_usd is None, "which: --gpu NAME"),
            (gpus != 0 and self.gpu_hour_usd is None, "the price of a GPU: --prices or --cloud"),
            (gpus == 0 and self.cpu_core_hour_usd is None, "cpu_core_hour_usd in --prices"),
            (
                self.cpus_per_replica is None and (gpus == 0 or self.cpu_core_hour_usd is not None),
                "the cores of a replica: cpus in --prices",
            ),
            (
                self.memory_gib_hour_usd is not None and self.memory_gib_per_replica is None,
                "the memory of a replica: memory_gib in --prices",
            ),
        )
        return [words for lacks, words in wanted if lacks]


def _product(amount: float | None, price_usd: float | None) -> float | None:
    return None if amount is None or price_usd is None else amount * price_usd


def write_basis(run: RunDir, basis: CostBasis) -> None:
    """Keep it in the run directory. Raises RunDirError."""
    try:
        write_atomically(run.cost, msgspec.json.format(msgspec.json.encode(basis)) + b"\n")
    except OSError as error:
        raise RunDirError(f"{run.cost}: cannot be written: {error}") from error


def read_basis(run: RunDir) -> CostBasis | None:
    """Read it; None where the run has none. Raises RunDirError where it is damaged."""
    try:
        basis = msgspec.json.decode(run.cost.read_bytes(), type=CostBasis)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunDirError(
            f"{run.cost}: cannot be read: {error}",
            fix="Take the file away, and give `kvswarm report` the flags of cost again.",
        ) from error
    if basis.schema_version != SCHEMA_VERSION:
        raise RunDirError(
            f"{run.cost}: schema_version {basis.schema_version}, this kvswarm reads "
            f"{SCHEMA_VERSION}",
            fix="Take the file away, and give `kvswarm report` the flags of cost again.",
        )
    return basis

"""The flags of `kvswarm run` and `kvswarm report` that say what a replica is and what it costs.

In:  the command line's values.  Out: `CostAsked`.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

OPTIONS: Final = (
    click.option(
        "--prices",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Prices, and what a replica is: the figures of cost are made with them.",
    ),
    click.option(
        "--cloud",
        metavar="NAME|FILE",
        help="Cluster whose prices hold where --prices gives none: eks, gke, aks.",
    ),
    click.option("--gpu", metavar="NAME[/SLICE]", help="GPU of a replica, for its price."),
    click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs of a replica."),
    click.option(
        "--replicas", type=click.IntRange(min=0), metavar="R", help="Replicas that are paid for."
    ),
    click.option(
        "--idle-watts",
        type=click.FloatRange(min=0),
        metavar="W",
        help="Power of an idle GPU: the energy above it is told, too.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostAsked:
    """What the flags say. None: nothing."""

    prices: Path | None = None
    cloud: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    replicas: int | None = None
    idle_watts: float | None = None


NO_COSTS: Final = CostAsked()


def cost_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def cost_asked(values: MutableMapping[str, Any]) -> CostAsked:
    """Take the flags out of the values."""
    names = ("prices", "cloud", "gpu", "gpus", "replicas", "idle_watts")
    return CostAsked(**{name: values.pop(name, None) for name in names})

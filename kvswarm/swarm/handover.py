"""What `kvswarm run --service` found, for the Locust process that runs the load.

In:  the environment: it holds no secret but the path of a list of pods on this machine.
Out: `Handover`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import msgspec

from kvswarm.rundir import ServiceInfo

SERVICE_ENV: Final = "KVSWARM_SERVICE"


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """A service that was found."""

    service: ServiceInfo
    pods_url: str | None
    """Lists the pods and where their metrics are; None: they cannot be asked."""
    notes: list[str] = []
    """What a reader of the figures must know."""

    def to_environment(self) -> dict[str, str]:
        """For the child."""
        return {SERVICE_ENV: msgspec.json.encode(self).decode()}


def handover(environ: Mapping[str, str] = os.environ) -> Handover | None:
    """The service that was handed over to this process; None: the target is a URL."""
    text = environ.get(SERVICE_ENV)
    return msgspec.json.decode(text, type=Handover) if text else None

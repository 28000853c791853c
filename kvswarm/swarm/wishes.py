"""What a run is to be: Locust's options, as they are now, made into a profile, a target, a start.

In:  the environment with its parsed options, and those at the start of the process.
Out: `RunStart`.  Raises KvswarmError for what a person has to mend.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from locust.env import Environment
from locust.runners import MasterRunner

from kvswarm.errors import KvswarmError, UsageError
from kvswarm.profiles.load import load_profile
from kvswarm.profiles.model import Profile
from kvswarm.rundir import InterleaveInfo, TargetInfo, new_run_dir
from kvswarm.stream.target import TLS, Target
from kvswarm.swarm.handover import handover
from kvswarm.swarm.interleave import alternation, other_target
from kvswarm.swarm.options import option_values, overrides_of
from kvswarm.swarm.preflight import check_adapters, known_target
from kvswarm.swarm.progress import ARGV_ENV, SIMULATOR_ENV
from kvswarm.swarm.run_start import RunStart
from kvswarm.swarm.secrets import headers_of
from kvswarm.telemetry.sources import sources_of


class Wishes:
    """What the options of one process ask for."""

    def __init__(self, environment: Environment, at_start: Mapping[str, Any]) -> None:
        self._environment = environment
        self._at_start = at_start

    def profile(self, users: int | None = None) -> Profile:
        """The profile; a closed loop has the `users` that Locust was told to start, if it was."""
        values = self.values()
        overrides = overrides_of(values)
        profile = load_profile(values["profile"], overrides)
        if users and profile.load.concurrency not in {None, users} and not profile.load.open_loop:
            profile = load_profile(values["profile"], replace(overrides, concurrency=users))
        if users and profile.load.peak_users > users:
            raise UsageError(
                f"{values['profile']}: its stages want up to {profile.load.peak_users} users, "
                f"but Locust was told to start {users}",
                fix=f"Start {profile.load.peak_users} users.",
            )
        return profile

    def values(self) -> dict[str, Any]:
        """The options of kvswarm by their keys."""
        return option_values(vars(self._environment.parsed_options), self._at_start)

    def start(self, *, first: bool) -> RunStart:
        """Resolve everything and make the run directory: that of --kv-out for the first run."""
        runner: Any = self._environment.runner
        values = self.values()
        profile = self.profile(users=runner.target_user_count)
        tls = TLS(ca_file=values["ca_file"], insecure=bool(values["insecure"]))
        headers = headers_of(values["api_key_env"])
        gateway = values["gateway"]
        asked = Target.of(self._host(), headers, tls, gateway=gateway)
        target = self._target(asked, profile, values["model"])
        own = Target.of(str(target.base_url), headers, tls, gateway=gateway)
        interleave = self._interleave(own, tls, profile)
        service = handover()
        out = Path(values["out"]) if values["out"] and first else None
        workers = ["local"]
        if isinstance(runner, MasterRunner):
            workers = [client.id for client in runner.clients.ready]
        return RunStart(
            run=new_run_dir(profile.name, out),
            profile=profile,
            target=target,
            api_key_env=values["api_key_env"],
            header_names=sorted(headers),
            ca_file=values["ca_file"],
            insecure=bool(values["insecure"]),
            gateway=gateway,
            interleave=interleave,
            traceparent=bool(values["traceparent"]),
            argv=shlex.split(os.environ.get(ARGV_ENV, "")),
            workers=workers,
            metrics=sources_of(
                own,
                values["metrics_url"],
                tls,
                other=interleave.target.base_url if interleave is not None else None,
                pods_url=service.pods_url if service is not None else None,
            ),
            notes=list(service.notes) if service is not None else [],
        )

    def _host(self) -> str:
        host = self._environment.host
        if not host:
            raise KvswarmError(
                "no target: Locust has no --host",
                fix="Give --host URL (the server's root), or use `kvswarm run`.",
            )
        return str(host)

    def _interleave(self, own: Target, tls: TLS, profile: Profile) -> InterleaveInfo | None:
        """The second target, and how requests alternate, where that is asked for."""
        values = self.values()
        if values["interleave"] is None:
            return None
        alternates = alternation(profile, values["block"])
        return InterleaveInfo(
            target=other_target(own, tls, values["interleave"], values["model"], profile),
            block_requests=alternates.block_requests,
            guard_requests=alternates.guard_requests,
            seed=alternates.seed,
        )

    def _target(self, target: Target, profile: Profile, model: str | None) -> TargetInfo:
        found = known_target(target, model, profile, handover())
        found.simulator = SIMULATOR_ENV in os.environ
        check_adapters(found, profile)
        return found

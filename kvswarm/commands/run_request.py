"""What the flags of `kvswarm run` ask for, as one `RunRequest`.

In:  the command line's values, and its words.  Out: `RunRequest`.
Raises UsageError or click.UsageError for flags that do not go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from kvswarm.commands.cost_options import cost_asked
from kvswarm.commands.in_cluster_options import in_cluster_asked
from kvswarm.commands.load import Master, RunRequest
from kvswarm.commands.run_flags import interleaved_url
from kvswarm.commands.serve import Serve, without_key
from kvswarm.commands.service_options import service_asked


def request_of(values: Mapping[str, Any], words: Sequence[str]) -> RunRequest:
    """Make the request of a command that has the flags of `kvswarm run`, or some of them."""
    rest = dict(values)

    def take(name: str, default: Any = None) -> Any:
        return rest.pop(name, default)

    port, hand_over_port, processes = (
        take("master_bind_port"),
        take("hand_over_port"),
        take("processes"),
    )
    url = interleaved_url(take("url"), rest)
    in_cluster = in_cluster_asked(rest, port=port, hand_over_port=hand_over_port)
    given = {
        "workers": take("expect_workers"),
        "bind_host": take("master_bind_host"),
        "bind_port": port if in_cluster is None else None,
    }
    return RunRequest(
        url=url,
        headers=take("headers", ()),
        processes=processes,
        master=_master(given, wanted=take("master", default=False), processes=processes),
        in_cluster=in_cluster,
        hand_over_port=hand_over_port,
        baseline=take("baseline"),
        costs=cost_asked(rest),
        sweep=_only(take("sweeps", ())),
        serve=_serve(take("serve"), take("serve_version"), take("serve_timeout")),
        service=service_asked(rest),
        dry_run=take("dry_run"),
        validated=not take("skip_rules"),
        as_json=take("as_json"),
        argv=redacted(words),
        values=rest,
    )


def _only(sweeps: tuple[str, ...]) -> str | None:
    if len(sweeps) > 1:
        raise click.UsageError(
            "--sweep is given twice: one key at a time, so that a difference has one cause. "
            "`kvswarm sweep` takes several."
        )
    return sweeps[0] if sweeps else None


def _serve(command: str | None, version: str | None, timeout_s: float | None) -> Serve | None:
    if command is None:
        if version is not None or timeout_s is not None:
            raise click.UsageError("--serve-version and --serve-timeout go with --serve.")
        return None
    serve = Serve(command=command)
    if version is not None:
        serve = replace(serve, version=version)
    return serve if timeout_s is None else replace(serve, timeout_s=timeout_s)


def _master(given: dict[str, Any], *, wanted: bool, processes: int | None) -> Master | None:
    """What `--master` and the flags beside it ask for. Raises click.UsageError."""
    settings = {name: value for name, value in given.items() if value is not None}
    if wanted and processes is not None:
        raise click.UsageError(
            "--processes: with --master the load is made by workers. Leave it out, and give it to "
            "`kvswarm worker`."
        )
    if settings and not wanted:
        raise click.UsageError("--expect-workers and --master-bind-...: go with --master. Add it.")
    return Master(**settings) if wanted else None


def redacted(words: Sequence[str]) -> tuple[str, ...]:
    """The command line without the values of headers, and of a server's key."""
    shown = ["kvswarm", *words]
    for place, word in enumerate(shown):
        if word == "--header" and place + 1 < len(shown):
            shown[place + 1] = shown[place + 1].partition(":")[0] + ": ***"
        elif word.startswith("--header="):
            shown[place] = word.partition(":")[0] + ": ***"
        elif word.startswith("--serve=") or (place and shown[place - 1] == "--serve"):
            shown[place] = without_key(word)
    return tuple(shown)

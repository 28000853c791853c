"""`kvswarm kserve locusttest`: a run as the official Locust operator makes it.

In:  the flags of the command line.
Out: YAML on standard output, and on standard error what a person must know about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from kvswarm.commands.load import LOCUSTFILES
from kvswarm.kserve.locust_test import FOLDER, LOCUSTFILE, OperatorRun, locust_test
from kvswarm.kserve.run_pods import Share
from kvswarm.profiles.flat import PROFILE_NAME, flat_profile
from kvswarm.profiles.load import load_profile
from kvswarm.swarm.options import locust_arguments, locust_users, overrides_of

CA_NAME: Final = "ca.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRequest:
    """What the command line asked for. `values` are those of `options.OPTIONS`, by key."""

    values: dict[str, Any]
    url: str
    name: str
    namespace: str
    image: str
    workers: int
    pull_secrets: tuple[str, ...]
    share: Share


def show_locust_test(request: OperatorRequest) -> None:
    """Print the manifests. Raises UsageError or ProfileError."""
    decided = locust_test(operator_run(request))
    for note in decided.notes:
        click.echo(f"kvswarm: {note}", err=True)
    click.echo(decided.to_yaml(), nl=False)


def operator_run(request: OperatorRequest) -> OperatorRun:
    """The run as plain data. Raises ProfileError."""
    values = request.values
    overrides = overrides_of(values)
    load = load_profile(values["profile"], overrides).load
    flat = flat_profile(values["profile"], overrides)
    files = {LOCUSTFILE: LOCUSTFILES["standard"].read_bytes(), **flat.files}
    kept: dict[str, Any] = {
        key: values.get(key)
        for key in ("model", "insecure", "gateway", "metrics_url", "traceparent")
    }
    kept["profile"] = f"{FOLDER}/{PROFILE_NAME}"
    if values.get("ca_file") is not None:
        files[CA_NAME] = Path(values["ca_file"]).read_bytes()
        kept["ca_file"] = f"{FOLDER}/{CA_NAME}"
    users = str(locust_users(load, request.workers))
    arguments = ["-f", f"{FOLDER}/{LOCUSTFILE}", "--host", request.url]
    arguments += ["--users", users, "--spawn-rate", users]
    # Not headless: the operator asks the web UI how the run stands.
    arguments += ["--autostart", "--expect-workers", str(request.workers)]
    arguments += ["--web-host", "0.0.0.0"]  # noqa: S104 - of a pod
    return OperatorRun(
        name=request.name,
        namespace=request.namespace,
        image=request.image,
        workers=request.workers,
        arguments=(*arguments, *locust_arguments(kept)),
        files=files,
        pull_secrets=request.pull_secrets,
        share=request.share,
    )

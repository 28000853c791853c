"""Commands about servers and runs on a cluster; like `cli.py`, thin: parse, call, print."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from kvswarm.commands.deploy_options import deploy_options, teardown_options
from kvswarm.commands.manifest_options import manifest_options
from kvswarm.commands.run_flags import run_options

NOT_OF_THE_OPERATOR: Final = (
    "api-key-env", "interleave", "block", "metrics-port", "metrics-host", "out",
)  # fmt: skip
"""It takes no secrets, opens no port of ours, and keeps nothing of its pods."""


@click.command()
@manifest_options
def manifest(**values: Any) -> None:
    """Print a profile's server as KServe manifests, for `kubectl apply --server-side -f -`.

    Example: kvswarm manifest --model hf://Qwen/Qwen3-8B --namespace llm --service qwen
    """
    from kvswarm.commands.manifest import show_typed  # noqa: PLC0415 - keeps --help quick

    show_typed(values)


@click.command()
@manifest_options
@deploy_options
def deploy(**values: Any) -> None:
    """Deploy a profile's server on KServe, and wait until it is ready.

    Example: kvswarm deploy --model hf://Qwen/Qwen3-8B --namespace llm --service qwen
    """
    from kvswarm.commands.deploy import deploy_typed  # noqa: PLC0415 - keeps --help quick

    deploy_typed(values)


@click.command()
@teardown_options
def teardown(**values: Any) -> None:
    """Remove what `kvswarm deploy` made for a service, and wait until its pods are gone.

    Example: kvswarm teardown --namespace llm --service qwen
    """
    from kvswarm.commands.deploy import teardown_typed  # noqa: PLC0415 - keeps --help quick

    teardown_typed(values)


@click.command()
@click.option("--namespace", required=True, metavar="N", help="Namespace of the run.")
@click.option("--run", "name", required=True, metavar="NAME", help="Its name, as it was printed.")
@click.option("--context", metavar="C", help="Entry of the kubeconfig; default: its current.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="The run directory itself."
)
@click.option("--json", "as_json", is_flag=True, help="Print summary.json.")
def fetch(namespace: str, name: str, context: str | None, out: Path | None, as_json: bool) -> int:
    """Fetch the results of a run that was left on a cluster, and take it away.

    Example: kvswarm fetch --namespace llm --run kvswarm-3f2a91
    """
    from kvswarm.commands.fetch import FetchRequest  # noqa: PLC0415 - keeps --help quick
    from kvswarm.commands.fetch import fetch as fetch_run  # noqa: PLC0415

    return fetch_run(
        FetchRequest(namespace=namespace, run=name, context=context, out=out, as_json=as_json)
    )


@click.group()
def kserve() -> None:
    """More for clusters.

    Example: kvswarm kserve locusttest --help
    """


@kserve.command()
@partial(run_options, without=NOT_OF_THE_OPERATOR)
@click.option("--url", required=True, metavar="URL", help="The server's address in the cluster.")
@click.option("--namespace", required=True, metavar="N", help="Namespace of the LocustTest.")
@click.option("--name", default="kvswarm", show_default=True, metavar="NAME", help="Its name.")
@click.option("--image", required=True, metavar="I", help="kvswarm's image, entering at locust.")
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="Pods that make the load.",
)
@click.option("--image-pull-secret", multiple=True, metavar="NAME", help="Secret of its registry.")
@click.option(
    "--cpus",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    metavar="C",
    help="Whole CPUs of a pod.",
)
@click.option("--memory", default="2Gi", show_default=True, metavar="Q", help="Its memory.")
def locusttest(  # noqa: PLR0913, PLR0917 - one per flag
    url: str,
    namespace: str,
    name: str,
    image: str,
    workers: int,
    image_pull_secret: tuple[str, ...],
    cpus: int,
    memory: str,
    **values: Any,
) -> None:
    """Print a run as a LocustTest, for the official Locust operator.

    Example: kvswarm kserve locusttest --url http://qwen-predictor.llm --namespace llm --image I
    """
    from kvswarm.commands.locust_test import (  # noqa: PLC0415 - keeps --help quick
        OperatorRequest,
        show_locust_test,
    )
    from kvswarm.kserve.run_pods import Share  # noqa: PLC0415

    show_locust_test(
        OperatorRequest(
            values=values,
            url=url,
            name=name,
            namespace=namespace,
            image=image,
            workers=workers,
            pull_secrets=image_pull_secret,
            share=Share(cpus=cpus, memory=memory),
        )
    )


COMMANDS: Final = (manifest, deploy, teardown, fetch, kserve)
"""In the order of the help."""

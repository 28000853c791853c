"""The same run for the official Locust operator: its LocustTest, and the files as a ConfigMap.

In:  `OperatorRun`: plain data.
Out: `Manifests`.

The operator makes two Jobs out of it: `args` go to the master and to the workers alike, after
`--master` or `--worker`, and to the image's entry point. It takes variables by value alone, so no
secret may be among them; the ConfigMap is mounted at /home/locust in the place of what is there.
Source: https://docs.locust.io/en/stable/kubernetes-operator.html (LocustTest, locust.io/v1), and
https://github.com/locustio/k8s-operator, locust_operator/objects.py and
charts/locust-operator/crds/locusttest.yaml.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.kserve.manifests import LABELS, Manifests
from kvswarm.kserve.on_cluster import CONFIG_MAP_BYTES
from kvswarm.kserve.on_cluster import NAME as NAME_FORM
from kvswarm.kserve.run_pods import Share

FOLDER: Final = "/home/locust"
LOCUSTFILE: Final = "locustfile.py"
GROUP: Final = "locust.io/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRun:
    """One run, as the operator makes it."""

    name: str
    namespace: str
    image: str
    workers: int
    arguments: tuple[str, ...]
    """Of Locust, for master and workers alike."""
    files: Mapping[str, bytes]
    """At `FOLDER`, `LOCUSTFILE` among them."""
    pull_secrets: tuple[str, ...] = ()
    share: Share = field(default_factory=Share)


def locust_test(run: OperatorRun) -> Manifests:
    """Decide the manifests. Raises UsageError."""
    if not NAME_FORM.fullmatch(run.name):
        raise UsageError(
            f"--name {run.name}: is no name that Kubernetes takes here",
            fix="Give small letters, digits and -, at most 40, with a letter first.",
        )
    size_bytes = sum(len(name) + len(content) for name, content in run.files.items())
    if size_bytes > CONFIG_MAP_BYTES:
        raise UsageError(
            f"the profile and the files that it names have {size_bytes} bytes; a ConfigMap holds "
            f"{CONFIG_MAP_BYTES}, and the operator mounts nothing else",
            fix="Put them into the image, and name their paths there with --set; or take "
            "`kvswarm run --in-cluster --data-claim NAME`.",
        )
    metadata = {"name": run.name, "namespace": run.namespace, "labels": dict(LABELS)}
    part = {"resources": run.share.resources()}
    spec: dict[str, Any] = {
        "image": run.image,
        "workers": run.workers,
        "args": shlex.join(run.arguments),
        "locustfile": {"configMap": {"name": run.name}},
        "master": part,
        "worker": part,
    }
    if run.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in run.pull_secrets]
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {name: content.decode() for name, content in run.files.items()},
    }
    test = {"apiVersion": GROUP, "kind": "LocustTest", "metadata": metadata, "spec": spec}
    return Manifests(documents=(config_map, test), notes=_notes(run))


def _notes(run: OperatorRun) -> tuple[str, ...]:
    pod = f"$(kubectl get pods -n {run.namespace} -o name -l locust.io/test-run={run.name}"
    return (
        "the operator hands its arguments to the image's entry point, and kvswarm's image has "
        'none: build one from it with ENTRYPOINT ["locust"].',
        "the results are in the master's pod, which the operator deletes with the LocustTest: copy "
        f"them before, with kubectl cp of {pod},locust.io/component=master):/runs.",
        "it takes no secrets, claims or nodes: for these, `kvswarm run --in-cluster`.",
    )

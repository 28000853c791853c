"""deploy/kustomize: its base is what `kvswarm run --in-cluster` makes, its overlay changes what it says.

Renew the base after a wanted change, and read the difference:
    KVSWARM_RENEW=1 python -m pytest tests/kserve/test_kustomize.py && git diff deploy/kustomize
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from cluster_runs import BASE, EXAMPLE, OLD
from kube_api_server import APPLY, ApiServer

from kvswarm.kserve.kinds import kind_of
from kvswarm.kserve.manifests import Manifests
from kvswarm.kserve.on_cluster import documents

KUSTOMIZE = Path(__file__).parents[2] / "deploy" / "kustomize"
OVERLAY = KUSTOMIZE / "overlays" / "example"
NEWER_THAN_1_20 = ("completionMode", "backoffLimitPerIndex")


def read(path: Path) -> list[dict[str, Any]]:
    """The documents of a file."""
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def by_name(made: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind and name."""
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in made}


def test_the_base_is_what_the_command_makes() -> None:
    """One truth, in two forms."""
    text = Manifests(documents=tuple(documents(BASE)), notes=()).to_yaml()
    path = KUSTOMIZE / "base" / "run.yaml"
    if "KVSWARM_RENEW" in os.environ:
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text, "renew: see the top of this file"


def test_the_overlays_patches_hit_what_they_mean() -> None:
    """A patch by place would change another argument where the base's had moved."""
    (overlay,) = read(OVERLAY / "kustomization.yaml")
    base = by_name(read(KUSTOMIZE / "base" / "run.yaml"))
    for patch in overlay["patches"]:
        if "target" not in patch:
            continue
        job = base[f"Job/{patch['target']['name']}"]
        for step in yaml.safe_load(patch["patch"]):
            *way, last = step["path"].strip("/").split("/")
            found: Any = job
            for key in way:
                found = found[int(key) if isinstance(found, list) else key]
            place = int(last) if isinstance(found, list) else last
            before = found[place]
            assert type(before) is type(step["value"])
            if isinstance(place, int):
                flag = "--url" if str(step["value"]).startswith("http") else "--expect-workers"
                assert found[place - 1] == flag


def test_the_rendered_overlay_is_the_run_that_it_says() -> None:
    """By kubectl's own Kustomize, where there is one."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl, whose `kustomize` would render it")
    words = [kubectl, "kustomize", str(OVERLAY)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rendered = by_name(list(yaml.safe_load_all(done.stdout)))
    claim = rendered.pop("PersistentVolumeClaim/kvswarm-runs")
    assert claim["metadata"]["namespace"] == EXAMPLE.namespace
    assert rendered == by_name(documents(EXAMPLE))


@pytest.mark.kube
def test_an_api_server_takes_base_and_claim(api: ApiServer) -> None:
    """But for the two fields that came after 1.20."""
    assert BASE.version > OLD
    files = (KUSTOMIZE / "base" / name for name in ("run.yaml", "results.yaml"))
    for document in (each for path in files for each in read(path)):
        document["metadata"]["namespace"] = "llm"
        if document["metadata"]["name"] == "kvswarm-workers" and document["kind"] == "Job":
            for key in NEWER_THAN_1_20:
                del document["spec"][key]
        path = "/api/v1/namespaces/llm/persistentvolumeclaims/kvswarm-runs"
        if document["kind"] != "PersistentVolumeClaim":
            path = kind_of(document).path("llm", document["metadata"]["name"])
        status, answer = api.ask("PATCH", f"{path}?fieldManager=k&dryRun=All", document, APPLY)
        assert status == 201, answer

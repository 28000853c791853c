"""The manifests as they are printed, per backend and mode, and whether KServe's schemas take them.

Renew them after a wanted change, and read the difference:
    KVSWARM_RENEW=1 python -m pytest tests/kserve/test_golden.py && git diff tests/kserve/golden
"""

from __future__ import annotations

import copy
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kvswarm.cli import main
from kvswarm.kserve.backends import BACKENDS
from kvswarm.kserve.scaling import Scaling

sys.path.insert(0, str(Path(__file__).parent))
from kserve_manifests import GOLDEN, ask, crd

PROFILES = {"fp8": "quantization/fp8", "speculation": "speculative-decoding"}
CASES = [
    (backend, mode, name)
    for backend in BACKENDS
    for mode in ("standard", "knative")
    for name in PROFILES
]
PLURALS = {"InferenceService": "inferenceservices", "ServingRuntime": "servingruntimes"}
FLAGS = {
    "standard": "--gpus 2 --secret hf-token",
    "knative": "--gpu-resource nvidia.com/mig-3g.40gb --scale-metric concurrency --scale-target 16",
}


@pytest.mark.parametrize(("backend", "mode", "name"), CASES)
def test_what_is_printed_is_what_was_read_and_approved(
    backend: str,
    mode: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A change of a manifest is a change of what is measured; renewing is told above."""
    words = f"--backend {backend} --mode {mode} --profile {PROFILES[name]} {FLAGS[mode]}"
    rest = "--model hf://Qwen/Qwen3-8B --namespace llm --service qwen"
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setattr(sys, "argv", ["kvswarm", "manifest", *f"{words} {rest}".split()])
    with pytest.raises(SystemExit) as left:
        main()
    printed, told = capfd.readouterr()
    assert left.value.code == 0, told
    path = GOLDEN / f"{backend}-{mode}-{name}.yaml"
    if "KVSWARM_RENEW" in os.environ:
        path.write_text(printed, "utf-8")
    assert printed == path.read_text("utf-8"), "renew: see the top of this file"


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_kserves_own_schemas_take_every_manifest(case: tuple[str, str, str]) -> None:
    """A misspelled field would be dropped by the cluster without a word."""
    path = GOLDEN / f"{'-'.join(case)}.yaml"
    documents = list(yaml.safe_load_all(path.read_text("utf-8")))
    assert [each for each in documents if each["kind"] == "InferenceService"]
    for document in documents:
        if document["kind"] in PLURALS:
            checker(PLURALS[document["kind"]]).validate(document)


def test_every_case_is_there_and_no_other() -> None:
    """A file of a backend that is gone would be checked for ever."""
    files = {path.stem for path in GOLDEN.glob("*.yaml")}
    assert files == {"-".join(case) for case in CASES}


@pytest.mark.parametrize(
    "scaling",
    [
        Scaling(autoscaler="hpa", metric="cpu", target=70, max_replicas=3),
        Scaling(autoscaler="keda", metric="memory", target=70, max_replicas=3),
        Scaling(autoscaler="keda", query="up", prometheus="http://p", target=5, max_replicas=3),
        Scaling(autoscaler="external", max_replicas=3),
    ],
)
def test_the_schemas_take_every_autoscaler(scaling: Scaling) -> None:
    """Their fields are in no golden manifest."""
    (service,) = ask(scaling=scaling).documents
    checker("inferenceservices").validate(service)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("spec", "predictor", "model", "modelFormta"), {"name": "vLLM"}),
        (("spec", "predictor", "scaleMetric"), "requests"),
        (("spec", "predictor", "timeout"), "60s"),
        (("spec", "predictor", "model", "resources", "limits", "cpu"), ["4"]),
    ],
)
def test_the_schemas_refuse_what_is_wrong(at: tuple[str, ...], value: Any) -> None:
    """Or the check above could not fail."""
    (service,) = copy.deepcopy(ask().documents)
    inside = service
    for key in at[:-1]:
        inside = inside[key]
    inside[at[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        checker("inferenceservices").validate(service)


@cache
def checker(plural: str) -> jsonschema.Draft202012Validator:
    """The schema of a CustomResourceDefinition as JSON Schema, closed to unknown fields."""
    (version,) = [each for each in crd(plural)["spec"]["versions"] if each["served"]]
    schema: dict[str, Any] = closed(version["schema"]["openAPIV3Schema"])
    # The API server knows what metadata is; the definition only that it is an object.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def closed(schema: Any) -> Any:
    """Turn a structural schema into a JSON Schema that refuses what Kubernetes would prune."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {
        key: {name: closed(each) for name, each in value.items()}
        if key == "properties"
        else closed(value)
        for key, value in schema.items()
    }
    keeps = converted.get("x-kubernetes-preserve-unknown-fields", False)
    if converted.get("type") == "object" and "additionalProperties" not in converted and not keeps:
        converted["additionalProperties"] = False
    if converted.pop("nullable", False):
        converted["type"] = [converted["type"], "null"]
    return converted

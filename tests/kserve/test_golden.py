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
FLAGS = {
    "standard": "--gpus 2 --secret hf-token",
    "knative": "--gpu-resource nvidia.com/mig-3g.40gb --scale-metric concurrency --scale-target 16",
}
HF = "--model hf://Qwen/Qwen3-8B"
BUCKET = "--model s3://models/qwen3-8b"
VOLUME = "--model pvc://models/qwen3-8b"
OF_BACKENDS = {
    f"{backend}-{mode}-{name}": f"--backend {backend} --mode {mode} --profile {profile} {FLAGS[mode]} "
    + (BUCKET if backend == "triton" else HF)
    for backend in BACKENDS
    for mode in FLAGS
    for name, profile in PROFILES.items()
}
OF_LLMS = {
    f"llm-{backend}-{name}": f"--kind llm --backend {backend} --profile {profile} --gpus 2 {HF}"
    for backend in ("vllm", "vllm-runtime")
    for name, profile in PROFILES.items()
}
OTHERS = {
    "llm-prefill": f"{HF} --kind llm --prefill-replicas 2 --router scheduler --min-replicas 3 "
    "--router-gateway gateways/main --profile quantization/fp8",
    "llm-nodes": f"{VOLUME} --kind llm --nodes 2 --gpus 8 --profile speculative-decoding",
    "llm-lora": f"{HF} --kind llm --router none --profile lora --service-account loader "
    "--adapter sql=hf://org/sql-lora --adapter code=s3://adapters/code",
    "nodes-fp8": f"{VOLUME} --nodes 2 --gpus 8 --profile quantization/fp8",
    "nodes-speculation": f"{VOLUME} --nodes 4 --gpus 8 --profile speculative-decoding "
    "--gpu-resource example.com/gpu --image registry.example.com/server:1",
    "canary-knative": f"{BUCKET} --mode knative --canary-percent 10 --backend vllm-runtime",
    "canary-standard": f"{HF} --min-replicas 4 --canary-percent 25 --canary-model hf://Qwen/Qwen3-8B-FP8",
    "canary-standard-tgi": f"{BUCKET} --backend tgi --min-replicas 2 --canary-percent 0 "
    "--canary-image registry.example.com/tgi:2",
    "gke-gpus": f"{BUCKET} --cluster gke:l4-24gb --gpus 4",
    "gke-slice": f"{BUCKET} --cluster gke --gpu h100-80gb/1g.10gb --mode knative",
    "eks-llm": f"{BUCKET} --cluster eks:h100-80gb --gpus 8 --kind llm --backend vllm-runtime",
    "eks-karpenter": f"{BUCKET} --cluster eks-karpenter:a100-80gb --gpus 2 --backend tensorrt-llm",
    "aks-slice": f"{BUCKET} --cluster aks --gpu a100-80gb/3g.40gb --backend triton",
    "on-prem-nodes": f"{VOLUME} --cluster on-prem:h100-80gb --gpus 8 --nodes 2 --memory 500Gi",
}
CASES = {**OF_BACKENDS, **OF_LLMS, **OTHERS}
PLURALS = {
    "InferenceService": "inferenceservices",
    "LLMInferenceService": "llminferenceservices",
    "ServingRuntime": "servingruntimes",
}
VERSIONS = {"llminferenceservices": "v1alpha2"}
"""Where a definition serves more than one."""


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed_is_what_was_read_and_approved(
    case: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A change of a manifest is a change of what is measured; renewing is told above."""
    words = f"{CASES[case]} --namespace llm --service qwen"
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setattr(sys, "argv", ["kvswarm", "manifest", *words.split()])
    with pytest.raises(SystemExit) as left:
        main()
    printed, told = capfd.readouterr()
    assert left.value.code == 0, told
    path = GOLDEN / f"{case}.yaml"
    if "KVSWARM_RENEW" in os.environ:
        path.write_text(printed, "utf-8")
    assert printed == path.read_text("utf-8"), "renew: see the top of this file"


@pytest.mark.parametrize("case", CASES)
def test_kserves_own_schemas_take_every_manifest(case: str) -> None:
    """A misspelled field would be dropped by the cluster without a word."""
    path = GOLDEN / f"{case}.yaml"
    documents = list(yaml.safe_load_all(path.read_text("utf-8")))
    assert [each for each in documents if each["kind"].endswith("InferenceService")]
    for document in documents:
        if document["kind"] in PLURALS:
            checker(PLURALS[document["kind"]]).validate(document)


def test_every_case_is_there_and_no_other() -> None:
    """A file of a backend that is gone would be checked for ever."""
    files = {path.stem for path in GOLDEN.glob("*.yaml")}
    assert files == set(CASES)


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
    served = [each for each in crd(plural)["spec"]["versions"] if each["served"]]
    (version,) = [each for each in served if VERSIONS.get(plural, each["name"]) == each["name"]]
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

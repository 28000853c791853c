"""Rules about how a server is deployed on KServe. They hold where a deployment is described."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kvswarm.guardrails.facts import Deployment, Facts, Found
from kvswarm.guardrails.rule import Example, Rule
from kvswarm.guardrails.rules.gpu import MIG_RESOURCE
from kvswarm.guardrails.sizing import spread

CUSTOM: Final = frozenset({"tgi", "tensorrt-llm"})
"""Backends that KServe has no runtime for: their predictor is a container of one's own."""
PREFIXES: Final = {"vllm": "/openai", "vllm-runtime": "", "tgi": "", "tensorrt-llm": ""}
"""Path before /v1 of each backend's OpenAI API."""
AUTOSCALERS: Final = {"standard": ("none", "hpa", "keda", "external"), "knative": ("kpa",)}
METRICS: Final = {
    "kpa": ("concurrency", "rps"), "hpa": ("cpu", "memory"), "keda": ("cpu", "memory"),
}  # fmt: skip
NO_ZERO: Final = frozenset({"hpa", "none"})
MULTI_NODE_STORAGE: Final = frozenset({"pvc", "oci"})
SECRET_NAME: Final = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)$", re.I)
SECRET_VALUE: Final = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16})")
SECRET_FLAG: Final = re.compile(r"--(api-key|hf-token)(=|$)")
UNPINNED: Final = re.compile(r"(^[^:@]+(:\d+/[^:@]+)?$)|(:latest$)")


def _at(flag: str, what: str, fix: str = "") -> Found:
    return Found(path=(flag,), what=what, fix=fix)


def _autoscaler(deployment: Deployment) -> str:
    return deployment.autoscaler or ("kpa" if deployment.mode == "knative" else "none")


def _wrong_prefix(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None or deployment.url_path is None:
        return
    wanted = PREFIXES[facts.server.backend]
    path = deployment.url_path.rstrip("/")
    path = path.removesuffix("/v1")
    # A service that is reached by a path of the gateway has that before its own.
    if not path.endswith(wanted) or (not wanted and path.endswith("/openai")):
        what = f"has the path {deployment.url_path}, and {facts.server.backend} serves {wanted}/v1"
        yield _at("--url", what)


def _default_resources(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None or facts.server.backend not in CUSTOM:
        return
    given = deployment.cpu is not None or deployment.memory is not None
    if deployment.memory is None and (given or deployment.image is not None):
        yield _at("--memory", f"is not given for {facts.server.backend}")


def _no_shared_memory(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is not None and deployment.shared_memory is False and spread(facts).tensor > 1:
        what = f"is {spread(facts).tensor}, and /dev/shm is no volume in memory"
        yield facts.at("tensor_parallel_size", what)


def _short_timeout(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None or deployment.timeout_s is None:
        return
    longest = max(written.profile.timeouts.total_s for written in facts.written.senders)
    if deployment.timeout_s < longest:
        what = f"is {longest:g} s, and the predictor's timeout is {deployment.timeout_s:g} s"
        yield Found(path=("timeouts", "total_s"), what=what)


def _autoscaler_of_other_mode(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None:
        return
    autoscaler = _autoscaler(deployment)
    if autoscaler not in AUTOSCALERS.get(deployment.mode, (autoscaler,)):
        yield _at("--autoscaler", f"is {autoscaler}, in mode {deployment.mode}")
        return
    metrics = METRICS.get(autoscaler, ())
    if deployment.scale_metric is not None and deployment.scale_metric not in metrics:
        yield _at(
            "--scale-metric", f"is {deployment.scale_metric}, and the autoscaler {autoscaler}"
        )


def _zero_is_one(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is not None and deployment.min_replicas == 0:
        autoscaler = _autoscaler(deployment)
        if autoscaler in NO_ZERO:
            yield _at("--min-replicas", f"is 0, and the autoscaler {autoscaler}")


def _gpus_of_another_number(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None or not deployment.gpus or deployment.nodes > 1:
        return
    if deployment.gpu_resource.startswith(MIG_RESOURCE):
        return
    wanted = spread(facts).gpus * (facts.value("data_parallel_size") or 1)
    is_said = facts.features.keys() & {"tensor_parallel_size", "pipeline_parallel_size"}
    if is_said and deployment.gpus != wanted:
        what = f"is {deployment.gpus}, and the features spread the model over {wanted}"
        yield _at("--gpus", what)


def _amd_gets_the_cpu_image(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None or facts.server.backend != "vllm-runtime":
        return
    if deployment.gpu_resource.startswith("amd.com/") and deployment.image is None:
        yield _at("--gpu-resource", f"is {deployment.gpu_resource}, with the runtime's own image")


def _unpinned(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is not None and deployment.image and UNPINNED.search(deployment.image):
        yield _at("--image", f"is {deployment.image}, which names no version")


def _archived(facts: Facts) -> Iterator[Found]:
    if facts.server.deployment is not None and facts.server.backend == "tgi":
        yield _at("--backend", "is tgi")


def _multi_node(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None or deployment.nodes < 2:  # noqa: PLR2004 - two nodes are several
        return
    if deployment.storage is not None and deployment.storage not in MULTI_NODE_STORAGE:
        yield _at("--model", f"comes from {deployment.storage}, for {deployment.nodes} nodes")
    if deployment.autoscaler not in {None, "none"}:
        yield _at("--autoscaler", f"is {deployment.autoscaler}, for {deployment.nodes} nodes")
    if deployment.gpu_resource.startswith(MIG_RESOURCE):
        yield _at("--gpu-resource", f"is {deployment.gpu_resource}, for {deployment.nodes} nodes")


def _plain_secrets(facts: Facts) -> Iterator[Found]:
    deployment = facts.server.deployment
    if deployment is None:
        return
    for name, value in deployment.environment.items():
        if value and (SECRET_NAME.search(name) or SECRET_VALUE.search(value)):
            yield _at("--env", f"{name} stands in plain text")
    for argument in deployment.arguments:
        if SECRET_FLAG.match(argument) or SECRET_VALUE.search(argument):
            flag = argument.partition("=")[0] if argument.startswith("--") else "a secret"
            yield _at("--arguments", f"hold {flag} in plain text")


SOURCE: Final = "KServe v0.20; docs/kserve.md"
RULES: Final = (
    Rule(
        id="KVS150",
        title="Requests go to the path of the runtime",
        severity="error",
        scope="deployment",
        check=_wrong_prefix,
        reason="Every request is answered with 404: KServe's Hugging Face runtime serves "
        "/openai/v1, its vLLM runtime and most others /v1.",
        source=SOURCE,
        fix="Give the path before /v1 that the runtime has.",
        bad=Example(profile="concurrency: 4\n", deployment=Deployment(url_path="/v1")),
        good=Example(profile="concurrency: 4\n", deployment=Deployment(url_path="/openai/v1")),
    ),
    Rule(
        id="KVS151",
        title="A custom predictor has memory of its own",
        severity="error",
        scope="deployment",
        check=_default_resources,
        reason="KServe gives a custom container 1 CPU and 2 Gi: it is killed (OOMKilled) while it "
        "loads the model.",
        source=SOURCE,
        fix="Give --cpu and --memory: at least the weights and some GiB.",
        bad=Example(
            profile="concurrency: 4\n",
            backend="tensorrt-llm",
            deployment=Deployment(cpu="4"),
        ),
        good=Example(
            profile="concurrency: 4\n",
            backend="tensorrt-llm",
            deployment=Deployment(cpu="4", memory="32Gi"),
        ),
    ),
    Rule(
        id="KVS152",
        title="Tensor parallelism has shared memory",
        severity="error",
        scope="deployment",
        check=_no_shared_memory,
        reason="A container has 64 MiB of /dev/shm, and NCCL shares more between the processes of "
        'one model: "unhandled system error", or "No space left on device".',
        source=SOURCE,
        fix="Mount an emptyDir with medium Memory at /dev/shm; `kvswarm manifest` does.",
        bad=Example(
            profile="vllm_features: {tensor_parallel_size: 2}\n",
            deployment=Deployment(gpus=2, shared_memory=False),
        ),
        good=Example(
            profile="vllm_features: {tensor_parallel_size: 2}\n",
            deployment=Deployment(gpus=2, shared_memory=True),
        ),
    ),
    Rule(
        id="KVS153",
        title="The predictor waits as long as the profile does",
        severity="warning",
        scope="deployment",
        check=_short_timeout,
        reason="Routes cut a request off at the predictor's timeout, 60 s where none is set: long "
        "streams end without a finish_reason, and look like errors of the server.",
        source=SOURCE,
        fix="Give predictor.timeout the profile's timeouts.total_s; `kvswarm manifest` does.",
        bad=Example(profile="timeouts: {total_s: 600}\n", deployment=Deployment(timeout_s=60.0)),
        good=Example(profile="timeouts: {total_s: 600}\n", deployment=Deployment(timeout_s=600.0)),
    ),
    Rule(
        id="KVS154",
        title="Autoscaler, mode and metric go together",
        severity="error",
        scope="deployment",
        check=_autoscaler_of_other_mode,
        reason="KServe refuses the service, or does not scale it: Knative scales by concurrency or "
        "rps, HPA and KEDA by cpu or memory.",
        source=SOURCE,
        fix="Standard mode takes none, hpa, keda, external; Knative its own, kpa.",
        bad=Example(
            profile="concurrency: 4\n", deployment=Deployment(mode="knative", autoscaler="hpa")
        ),
        good=Example(
            profile="concurrency: 4\n",
            deployment=Deployment(autoscaler="hpa", scale_metric="cpu", max_replicas=3),
        ),
    ),
    Rule(
        id="KVS155",
        title="Scaling to zero has an autoscaler that can",
        severity="error",
        scope="deployment",
        check=_zero_is_one,
        reason="KServe raises minReplicas 0 to 1 with hpa and without an autoscaler, and says "
        "nothing: no cold start is measured, and the GPU is paid for.",
        source=SOURCE,
        fix="Take mode knative, or the autoscaler keda.",
        bad=Example(
            profile="concurrency: 4\n", deployment=Deployment(min_replicas=0, autoscaler="hpa")
        ),
        good=Example(
            profile="concurrency: 4\n", deployment=Deployment(min_replicas=0, mode="knative")
        ),
    ),
    Rule(
        id="KVS156",
        title="A replica has as many GPUs as its model is spread over",
        severity="error",
        scope="deployment",
        runtimes=("vllm",),
        check=_gpus_of_another_number,
        reason="With fewer vLLM does not start; with more they stand idle and are paid for.",
        source="vllm/config/parallel.py; docs/kserve.md",
        fix="Give as many GPUs as tensor x pipeline x data parallelism.",
        bad=Example(
            profile="vllm_features: {tensor_parallel_size: 4}\n", deployment=Deployment(gpus=2)
        ),
        good=Example(
            profile="vllm_features: {tensor_parallel_size: 4}\n", deployment=Deployment(gpus=4)
        ),
    ),
    Rule(
        id="KVS157",
        title="AMD GPUs have an image for them",
        severity="error",
        scope="deployment",
        check=_amd_gets_the_cpu_image,
        reason="KServe's vLLM runtime knows NVIDIA's resources only: for amd.com/gpu it takes its "
        "CPU image, and the GPU stands idle.",
        source=SOURCE,
        fix="Give --image, such as rocm/vllm with a version.",
        bad=Example(
            profile="concurrency: 4\n",
            backend="vllm-runtime",
            deployment=Deployment(gpu_resource="amd.com/gpu"),
        ),
        good=Example(
            profile="concurrency: 4\n",
            backend="vllm-runtime",
            deployment=Deployment(gpu_resource="amd.com/gpu", image="rocm/vllm:0.32.0"),
        ),
    ),
    Rule(
        id="KVS158",
        title="Images name their version",
        severity="warning",
        scope="deployment",
        check=_unpinned,
        reason="What :latest means changes from day to day, and from node to node: two runs are "
        "then of two servers.",
        source="https://kubernetes.io/docs/concepts/containers/images/",
        fix="Name a version or a digest.",
        bad=Example(
            profile="concurrency: 4\n", deployment=Deployment(image="vllm/vllm-openai:latest")
        ),
        good=Example(
            profile="concurrency: 4\n", deployment=Deployment(image="vllm/vllm-openai:v0.32.0")
        ),
    ),
    Rule(
        id="KVS159",
        title="TGI is archived",
        severity="warning",
        scope="deployment",
        check=_archived,
        reason="Text Generation Inference is archived since March 2026; its last release is 3.3.7, "
        "and newer models do not run on it.",
        source="https://github.com/huggingface/text-generation-inference",
        fix="Serve with vllm or tensorrt-llm; keep tgi to compare with older figures.",
        bad=Example(
            profile="concurrency: 4\n", backend="tgi", deployment=Deployment(cpu="4", memory="32Gi")
        ),
        good=Example(profile="concurrency: 4\n", deployment=Deployment(cpu="4", memory="32Gi")),
    ),
    Rule(
        id="KVS160",
        title="Several nodes go without autoscaling, slices and downloads",
        severity="error",
        scope="deployment",
        check=_multi_node,
        reason="KServe refuses a workerSpec with an autoscaler, with MIG resources, or with a "
        "model that does not lie on a volume or in an image (pvc, oci).",
        source=SOURCE,
        fix="Put the model on a PVC or into an OCI image, and give autoscaler none.",
        bad=Example(
            profile="concurrency: 4\n", deployment=Deployment(nodes=2, storage="hf", gpus=8)
        ),
        good=Example(
            profile="concurrency: 4\n", deployment=Deployment(nodes=2, storage="pvc", gpus=8)
        ),
    ),
    Rule(
        id="KVS161",
        title="No secret stands in the deployment",
        severity="error",
        scope="deployment",
        check=_plain_secrets,
        reason="Whoever may read the InferenceService, or the process list, can use it.",
        source="https://kubernetes.io/docs/concepts/configuration/secret/",
        fix="Put it into a Secret, and name that: --secret for Hugging Face.",
        bad=Example(
            profile="concurrency: 4\n",
            deployment=Deployment(environment={"HF_TOKEN": "not-a-real-one"}),
        ),
        good=Example(
            profile="concurrency: 4\n",
            deployment=Deployment(environment={"VLLM_LOGGING_LEVEL": "INFO"}),
        ),
    ),
)

"""How many replicas, and what changes their number.

In:  `Scaling`, and the mode of deployment.
Out: fields of the predictor and annotations; a UsageError naming both keys that do not go together.

Which autoscaler takes what, by KServe's own rules: Knative has its own (kpa: concurrency, rps),
Standard has hpa (cpu, memory), keda (metrics of its own, no scaleMetric), external and none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from kvswarm.errors import UsageError

Mode = Literal["standard", "knative"]
AUTOSCALERS: Final[dict[Mode, tuple[str, ...]]] = {
    "standard": ("none", "hpa", "keda", "external"),
    "knative": ("kpa",),
}
METRICS: Final[dict[str, tuple[str, ...]]] = {
    "kpa": ("concurrency", "rps"),
    "hpa": ("cpu", "memory"),
    "keda": ("cpu", "memory"),
    "none": (),
    "external": (),
}
CLASS_ANNOTATION: Final = "serving.kserve.io/autoscalerClass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Replicas. `target` is of `metric`: requests in flight, requests/s, or % of what is asked."""

    min_replicas: int = 1
    max_replicas: int | None = None
    """None: as many as `min_replicas`, at least 1."""
    autoscaler: str | None = None
    """None: `none` in Standard mode, `kpa` in Knative mode."""
    metric: str | None = None
    target: int | None = None
    query: str | None = None
    """A query of Prometheus, for keda; `target` is then of its value."""
    prometheus: str | None = None


def scaling_fields(scaling: Scaling, mode: Mode) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the predictor's fields and the annotations. Raises UsageError."""
    autoscaler = scaling.autoscaler or AUTOSCALERS[mode][0]
    most = scaling.max_replicas
    if most is None:
        most = max(scaling.min_replicas, 1)
    _check_autoscaler(scaling, autoscaler, mode)
    _check_replicas(scaling, autoscaler, most)
    _check_metric(scaling, autoscaler)
    fields: dict[str, Any] = {"minReplicas": scaling.min_replicas, "maxReplicas": most}
    annotations = {} if mode == "knative" else {CLASS_ANNOTATION: autoscaler}
    if autoscaler == "keda":
        fields["autoScaling"] = {"metrics": [_keda_metric(scaling)]}
        return fields, annotations
    if scaling.metric is not None:
        fields["scaleMetric"] = scaling.metric
    if scaling.target is not None:
        fields["scaleTarget"] = scaling.target
    return fields, annotations


def _check_autoscaler(scaling: Scaling, autoscaler: str, mode: Mode) -> None:
    if autoscaler not in AUTOSCALERS[mode]:
        other: Mode = "knative" if mode == "standard" else "standard"
        raise UsageError(
            f"--autoscaler {autoscaler} and --mode {mode}: it goes with --mode {other} alone",
            fix=f"With --mode {mode} take {', '.join(AUTOSCALERS[mode])}.",
        )
    if (scaling.query is None) != (scaling.prometheus is None):
        raise UsageError(
            "--scale-query and --prometheus: one is given, and they need each other",
            fix="Give both: the query, and the URL of the Prometheus that answers it.",
        )
    if scaling.query is not None and autoscaler != "keda":
        raise UsageError(
            f"--scale-query and --autoscaler {autoscaler}: only keda asks Prometheus",
            fix="Add --mode standard --autoscaler keda, or leave the query out.",
        )


def _check_replicas(scaling: Scaling, autoscaler: str, most: int) -> None:
    least = scaling.min_replicas
    if most < max(least, 1):
        raise UsageError(
            f"--min-replicas {least} and --max-replicas {most}: the most is below the least",
            fix="Give --max-replicas of at least 1 and at least --min-replicas.",
        )
    if autoscaler == "none" and most != max(least, 1):
        raise UsageError(
            f"--max-replicas {most} and --autoscaler none: nothing would change {least} to {most}",
            fix="Leave --max-replicas out, or choose an autoscaler: hpa, keda.",
        )
    if least == 0 and autoscaler in {"none", "hpa"}:
        raise UsageError(
            f"--min-replicas 0 and --autoscaler {autoscaler}: KServe raises it to 1",
            fix="Scale to zero with --mode knative, or with --autoscaler keda.",
        )


def _check_metric(scaling: Scaling, autoscaler: str) -> None:
    metrics = METRICS[autoscaler]
    if scaling.metric is not None and scaling.metric not in metrics:
        takes = f"it takes {', '.join(metrics)}" if metrics else "it takes no metric"
        raise UsageError(
            f"--scale-metric {scaling.metric} and --autoscaler {autoscaler}: {takes}",
            fix="concurrency and rps are kpa's (--mode knative), cpu and memory hpa's and keda's.",
        )
    if scaling.target is not None and not metrics:
        raise UsageError(
            f"--scale-target {scaling.target} and --autoscaler {autoscaler}: it has no target",
            fix="Leave the target out, or choose an autoscaler: hpa, keda, kpa.",
        )
    if scaling.metric is not None and scaling.query is not None:
        raise UsageError(
            "--scale-metric and --scale-query: both say what to scale by", fix="Keep one of them."
        )
    if autoscaler == "keda" and scaling.target is None:
        raise UsageError(
            "--autoscaler keda and no --scale-target: keda needs a target",
            fix="Give --scale-target, with --scale-metric cpu, or with --scale-query.",
        )
    if autoscaler == "keda" and scaling.metric is None and scaling.query is None:
        raise UsageError(
            "--autoscaler keda and neither --scale-metric nor --scale-query: scale by what?",
            fix="Give --scale-metric cpu, or --scale-query with --prometheus.",
        )


def _keda_metric(scaling: Scaling) -> dict[str, Any]:
    if scaling.query is None:
        target = {"type": "Utilization", "averageUtilization": scaling.target}
        return {"type": "Resource", "resource": {"name": scaling.metric, "target": target}}
    metric = {
        "backend": "prometheus",
        "serverAddress": scaling.prometheus,
        "query": scaling.query,
    }
    value = {"type": "Value", "value": str(scaling.target)}
    return {"type": "External", "external": {"metric": metric, "target": value}}

"""Read a cluster's file: one that kvswarm has, by its name, or one of your own, by its path.

In:  `gke`, or `./mine.yaml`, which may say `extends: gke` and give what differs. Mappings are laid
     over each other, all else takes the place of what was there; null for a GPU takes it away.
Out: `Cluster`, or a UsageError naming the file and the key.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from kvswarm.errors import UsageError
from kvswarm.kserve.clusters.model import Cluster, Gpu, Node, Price, Slice
from kvswarm.kserve.machine import GPU
from kvswarm.serving.problems import nearest

FOLDER: Final = Path(__file__).parent
SCHEMA_PATH: Final = FOLDER / "cluster.schema.json"


def cluster_names() -> tuple[str, ...]:
    """The clusters that kvswarm has."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_cluster(name: str) -> Cluster:
    """Read a cluster by its name or path. Raises UsageError."""
    path = _path(name, "--cluster")
    document = _document(path, (path,))
    schema = json.loads(SCHEMA_PATH.read_text("utf-8"))
    error = best_match(Draft202012Validator(schema).iter_errors(document))
    if error is not None:
        key = ".".join(str(part) for part in error.absolute_path) or "the file"
        raise UsageError(
            f"{path}: {key}: {error.message}",
            fix=f"See {FOLDER / 'gke.yaml'} for how a cluster is written.",
        )
    return _cluster(path.stem, document)


def _path(name: str, flag: str) -> Path:
    """A path has a slash or a suffix; all else is a name."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in cluster_names():
        raise UsageError(
            f"{flag} {name}: there is none of that name.{nearest(name, cluster_names())}",
            fix=f"Clusters: {', '.join(cluster_names())}; a file of your own: ./mine.yaml.",
        )
    return FOLDER / f"{name}.yaml"


def _document(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file, laid over what it extends."""
    try:
        document = yaml.load(path.read_text("utf-8"), _TextDates)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--cluster {path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--cluster {path}: is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"--cluster {path}: is no mapping", fix="Give title, storage and gpus.")
    base = document.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str):
        raise UsageError(f"{path}: extends: is {base!r}; must be a cluster's name or file")
    below = _path(base, f"{path}: extends")
    if not below.is_absolute():
        below = path.parent / below
    if below.resolve() in {each.resolve() for each in seen}:
        raise UsageError(f"{path}: extends: {base} extends this file again")
    laid = _lay(_document(below, (*seen, below)), document)
    laid["gpus"] = {name: gpu for name, gpu in (laid.get("gpus") or {}).items() if gpu is not None}
    return laid


def _lay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        if isinstance(lower, Mapping) and isinstance(value, Mapping) and key not in WHOLE:
            merged[key] = _lay(lower, value)
        else:
            merged[key] = value
    return merged


WHOLE: Final = frozenset({"node_selector"})
"""What another cluster's labels must not be mixed into."""


class _TextDates(yaml.SafeLoader):
    """Dates stay text: the schema judges their form."""


def _as_written(_loader: _TextDates, node: yaml.ScalarNode) -> str:
    return str(node.value)


_TextDates.add_constructor("tag:yaml.org,2002:timestamp", _as_written)


def _cluster(name: str, document: Mapping[str, Any]) -> Cluster:
    tolerations = document.get("tolerations", [])
    return Cluster(
        name=name,
        title=document["title"],
        **document["storage"],
        gpus={
            key: _gpu(gpu, gpu.get("tolerations", tolerations))
            for key, gpu in document["gpus"].items()
        },
    )


def _gpu(gpu: Mapping[str, Any], tolerations: list[dict[str, str]]) -> Gpu:
    return Gpu(
        product=gpu["product"],
        memory_gib=gpu["memory_gib"],
        nodes=tuple(_node(node) for node in gpu["nodes"]),
        gpu_resource=gpu.get("gpu_resource", GPU),
        node_selector=gpu.get("node_selector", {}),
        tolerations=tuple(tolerations),
        slices={name: Slice(**each) for name, each in gpu.get("slices", {}).items()},
    )


def _node(node: Mapping[str, Any]) -> Node:
    return Node(**{**node, "price": None if node["price"] is None else _price(node["price"])})


def _price(price: Mapping[str, Any]) -> Price:
    try:
        as_of = datetime.date.fromisoformat(price["as_of"])
    except ValueError as error:
        raise UsageError(f"as_of: {price['as_of']} is no date: {error}") from error
    return Price(
        price_per_hour_usd=price["price_per_hour_usd"],
        as_of=as_of,
        region=price["region"],
        source=price["source"],
    )

"""Apply manifests, or ask the API server what it would do; know what was made by it.

In:  documents in the order in which they are applied.
Out: `Applied`, filled as it goes, so that an interrupted call can be undone; `Judged` of a dry run.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kvswarm.errors import UsageError
from kvswarm.kserve.cluster import MANAGER, Cluster
from kvswarm.kserve.kinds import kind_of
from kvswarm.kserve.refusals import ConflictError
from kvswarm.kserve.teardown import SERVICES, Made, is_managed

SERVER_KEPT: Final = frozenset(
    {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"}
)
"""Of an object's metadata: the API server's own."""


@dataclass(kw_only=True)
class Applied:
    """What was applied so far."""

    made: list[Made] = field(default_factory=list)
    """Objects that were not there before."""
    changed: list[Made] = field(default_factory=list)
    """Objects that were there, and are not as they were."""
    words: list[str] = field(default_factory=list)
    service: dict[str, Any] = field(default_factory=dict)
    """The service as the API server then had it."""
    is_new: bool = False
    """The service was not there before."""
    is_same: bool = False
    """Nothing was made or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the API server says of one document."""

    made: Made
    is_new: bool
    changes: tuple[str, ...]
    """`spec.predictor.timeout: 60 -> 1800`, each."""
    dropped: tuple[str, ...]
    """Fields that the cluster does not know, and leaves out."""


def service_of(documents: Sequence[Mapping[str, Any]]) -> Made:
    """The service among the documents. Raises UsageError where there is not exactly one."""
    found = [each for each in documents if each["kind"] in SERVICES]
    if len(found) != 1:
        raise UsageError(f"the manifests hold {len(found)} services; to deploy there must be one")
    return _made(found[0])


def apply_all(
    cluster: Cluster, documents: Sequence[Mapping[str, Any]], applied: Applied, *, force: bool
) -> None:
    """Apply every document. Raises ConflictError for what others manage, or ClusterError.

    All are looked at before the first is applied, so that a refusal leaves nothing half done.
    """
    before = [existing(cluster, document, force=force) for document in documents]
    for document, was in zip(documents, before, strict=True):
        made = _made(document)
        if was is None:
            # Before it is sent: an answer that never comes may have made it all the same.
            applied.made.append(made)
        answer = cluster.apply(document, force=force)
        if was is None:
            applied.words.append(f"made {made.words}")
        elif any(differences(was, answer)):
            applied.changed.append(made)
            applied.words.append(f"changed {made.words}")
        else:
            applied.words.append(f"{made.words} is as it was")
        if document["kind"] in SERVICES:
            applied.service, applied.is_new = answer, was is None
    applied.is_same = not (applied.made or applied.changed)


def judge(
    cluster: Cluster, documents: Sequence[Mapping[str, Any]], *, force: bool
) -> Iterator[Judged]:
    """Have the API server judge every document, and keep nothing. Raises as `apply_all`."""
    for document in documents:
        was = existing(cluster, document, force=force)
        answer = cluster.apply(document, force=force, dry_run=True)
        yield Judged(
            made=_made(document),
            is_new=was is None,
            changes=() if was is None else tuple(differences(was, answer)),
            dropped=tuple(dropped(document, answer)),
        )


def existing(
    cluster: Cluster, document: Mapping[str, Any], *, force: bool
) -> dict[str, Any] | None:
    """What is there of that name. Raises ConflictError for what kvswarm must not change."""
    made = _made(document)
    found = cluster.get(made.kind, made.namespace, made.name)
    if found is None:
        return None
    if "deletionTimestamp" in found["metadata"]:
        raise ConflictError(
            f"{made.words} is being deleted",
            fix=f"Wait until it is gone: {command_line('teardown', made.namespace, made.name)}",
        )
    if not force and not is_managed(found):
        managers = sorted({each["manager"] for each in found["metadata"].get("managedFields", [])})
        whose = ", ".join(managers) or "others"
        raise ConflictError(
            f"{made.words} is there, and {MANAGER} does not manage it, but {whose}",
            fix="Take another --service, or --force to change it all the same.",
        )
    return found


def command_line(command: str, namespace: str, service: str, context: str | None = None) -> str:
    """A command of kvswarm to paste."""
    words = ["kvswarm", command, "--namespace", namespace, "--service", service]
    return shlex.join(words if context is None else [*words, "--context", context])


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What is not the same, by its path, but for what the API server or a controller writes."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            if (not path and name == "status") or (path == "metadata" and name in SERVER_KEPT):
                continue
            below = f"{path}.{name}" if path else name
            yield from differences(before.get(name), after.get(name), below)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{path}[{place}]")
    elif before != after:
        yield f"{path}: {_shown(before)} -> {_shown(after)}"


def dropped(sent: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Paths of what was sent and did not come back."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for name in sent:
            below = f"{path}.{name}" if path else name
            if name not in kept:
                yield below
            else:
                yield from dropped(sent[name], kept[name], below)
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for place, (old, new) in enumerate(zip(sent, kept, strict=True)):
            yield from dropped(old, new, f"{path}[{place}]")


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _made(document: Mapping[str, Any]) -> Made:
    metadata = document["metadata"]
    return Made(kind=kind_of(document), namespace=metadata["namespace"], name=metadata["name"])

"""What an API server says no with, as errors that a person can act on.

In:  the status and the body of an answer, and what was asked.
Out: a `ClusterError`, each a TargetError with exit code 4.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from kvswarm.errors import TargetError
from kvswarm.kserve.kinds import Kind, full_name

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409
GONE: Final = 410
INVALID: Final = frozenset({400, 422})
TOO_MANY: Final = 429
SHOWN_CHARACTERS: Final = 1000
NO_KIND: Final = ("the server could not find the requested resource", "404 page not found")
"""Where a group has no such resource, and where there is no such group or version."""


class ClusterError(TargetError):
    """The cluster could not be reached, or said no."""


class UnreachableError(ClusterError):
    """No answer from the API server: now, or for as long as was waited."""


class NotAllowedError(ClusterError):
    """The user that the kubeconfig names lacks a right."""


class NotThereError(ClusterError):
    """The object, its namespace, or its whole kind is not there."""


class ConflictError(ClusterError):
    """Another field manager owns fields that were to be written, or the object has changed."""


class RefusedError(ClusterError):
    """The API server takes no such object: validation, admission, a quota."""


class ExpiredError(ClusterError):
    """A watch asked for a moment that the API server no longer knows: list again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, in the words of a Role: `verb` is get, list, watch, create, patch, delete."""

    verb: str
    kind: Kind
    namespace: str | None = None
    name: str | None = None
    subresource: str = ""

    @property
    def words(self) -> str:
        """`patch inferenceservice/qwen in namespace llm`."""
        what = self.kind.plural + (f"/{self.subresource}" if self.subresource else "")
        if self.name is not None:
            return f"{self.verb} {full_name(self.kind, self.namespace, self.name)}"
        place = f" in namespace {self.namespace}" if self.namespace is not None else ""
        return f"{self.verb} {what}{place}"

    @property
    def rule(self) -> str:
        """The rule of a Role that allows it."""
        resource = self.kind.plural + (f"/{self.subresource}" if self.subresource else "")
        group = self.kind.group
        return f"apiGroups: [{group!r}], resources: [{resource!r}], verbs: [{self.verb!r}]"


def refusal(asked: Asked, status: int, body: bytes) -> ClusterError:
    """Translate an answer that is none."""
    plain = _status(body)
    message = str(plain.get("message") or body[:SHOWN_CHARACTERS].decode(errors="replace")).strip()
    make = {
        UNAUTHORIZED: _unauthorized,
        FORBIDDEN: _forbidden,
        NOT_FOUND: _not_found,
        CONFLICT: _conflict,
    }.get(status)
    if make is not None:
        return make(asked, message)
    if status == GONE:
        return ExpiredError(f"{asked.words}: {message}")
    if status in INVALID:
        return RefusedError(
            f"the API server refuses to {asked.words}: {message}",
            fix="Mend what it names; `--dry-run` shows the manifests.",
        )
    if status == TOO_MANY:
        return UnreachableError(f"{asked.words}: the API server is overloaded: {message}")
    return UnreachableError(f"{asked.words}: the API server answers {status}: {message}")


def _status(body: bytes) -> dict[str, Any]:
    try:
        plain = json.loads(body)
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) else {}


def _unauthorized(asked: Asked, message: str) -> ClusterError:
    return NotAllowedError(
        f"{asked.words}: the API server does not know this user: {message}",
        fix="Log in again, or choose another entry of the kubeconfig with --context.",
    )


def _forbidden(asked: Asked, message: str) -> ClusterError:
    if "exceeded quota" in message:
        return RefusedError(
            f"{asked.words}: {message}",
            fix="Ask for less, free some of the quota, or have it raised: "
            f"`kubectl describe quota -n {asked.namespace}`.",
        )
    if "is being terminated" in message:
        return RefusedError(
            f"{asked.words}: {message}", fix="Wait until the namespace is gone, or take another."
        )
    if "cannot " in message or "forbidden" in message.lower():
        if asked.verb == "patch" and message.endswith("is forbidden:"):
            # To apply what is not there yet also needs the right to create it. Who lacks that one
            # is refused without a reason, other than who may not patch.
            asked = replace(asked, verb="create")
        place = f"a Role in namespace {asked.namespace}" if asked.namespace else "a ClusterRole"
        return NotAllowedError(
            f"this user may not {asked.words}: {message}", fix=f"{place} must have {asked.rule}."
        )
    return RefusedError(f"the API server refuses to {asked.words}: {message}")


def _not_found(asked: Asked, message: str) -> ClusterError:
    if any(words in message for words in NO_KIND) or not message:
        return no_such_kind(asked.kind)
    if "namespaces " in message and asked.kind.name != "Namespace":
        return NotThereError(
            f"--namespace {asked.namespace}: there is none of that name",
            fix=f"Make it: kubectl create namespace {asked.namespace}",
        )
    return NotThereError(f"{asked.words}: {message}")


def no_such_kind(kind: Kind) -> ClusterError:
    """The error where the cluster does not have a kind."""
    if kind.group == "serving.kserve.io":
        return NotThereError(
            f"this cluster has no {kind.resource} in version {kind.api_version.rpartition('/')[2]}",
            fix="Install KServe v0.20 or newer, or choose another cluster with --context.",
        )
    return NotThereError(
        f"this cluster has no {kind.resource} in version {kind.api_version}",
        fix="Choose another cluster with --context.",
    )


def _conflict(asked: Asked, message: str) -> ClusterError:
    return ConflictError(
        f"{asked.words}: {message}",
        fix="Another manager owns these fields. Take another --service, or --force to take them "
        "over.",
    )

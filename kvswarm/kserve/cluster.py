"""A cluster's API server, as the kubeconfig, or the pod that this runs in, says how to reach it.

In:  kinds, names, documents as plain dicts.
Out: plain dicts as the API server has them; for each way to say no a `ClusterError`.
Not: threads or waiting, see `watching.py`.

The official client reads kubeconfigs, tokens, certificates and login plugins, and holds the
connections. Its classes per kind are left out: every request here is one of seven forms, which the
manifests' plain dicts go through unchanged, also fields that the client is too old to know.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from kvswarm.kserve.kinds import KINDS, Kind, kind_of
from kvswarm.kserve.refusals import (
    Asked,
    ClusterError,
    NotThereError,
    UnreachableError,
    no_such_kind,
    refusal,
)

MANAGER: Final = "kvswarm"
"""The field manager of everything that kvswarm writes."""
TIMEOUT_S: Final = 30.0
LOG_SILENCE_S: Final = 300.0
"""How long a log that is followed may say nothing before it is asked for again."""
JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
MULTIPLE_CHOICES: Final = 300
INTERNAL_ERROR: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The `Date` of an answer: seconds since 1970 by the server, cut to whole ones.

    Between asking and answering, ns of this machine's clock, it was that second there.
    """

    asked_ns: int
    answered_ns: int
    date_s: int


class Cluster:
    """Requests to one API server, safe for several threads."""

    def __init__(self, client: Any, namespace: str | None = None) -> None:
        """`client` is the official client's ApiClient; `namespace` that of its context."""
        self._client = client
        self.namespace = namespace

    @classmethod
    def connect(cls, context: str | None = None) -> Cluster:
        """Read the kubeconfig ($KUBECONFIG, ~/.kube/config), or the pod's own account.

        Raises ClusterError where there is neither, the context is not in it, or a file that it
        names cannot be read.
        """
        from kubernetes import client, config  # noqa: PLC0415 - a third of a second
        from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415

        settings = client.Configuration()
        settings.retries = False
        files = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
        try:
            if context is None and not any(Path(each).exists() for each in files.split(os.pathsep)):
                config.load_incluster_config(client_configuration=settings)
                return cls(client.ApiClient(settings), _namespace_of_pod())
            contexts, current = config.list_kube_config_contexts(files)
            config.load_kube_config(files, context, settings)
        except (ConfigException, OSError, ValueError, KeyError, TypeError) as error:
            raise ClusterError(
                f"no cluster to talk to by {files}: {error}",
                fix="Set KUBECONFIG to a kubeconfig, or choose one of its entries with --context.",
            ) from error
        chosen = next((each for each in contexts if each["name"] == context), current)
        return cls(client.ApiClient(settings), chosen["context"].get("namespace"))

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._client.configuration.host)

    def token(self) -> str | None:
        """The user's bearer token of this moment; None for one who has none."""
        for name, value in self._credentials().items():
            scheme, _, token = value.partition(" ")
            if name.lower() == "authorization" and scheme.lower() == "bearer" and token:
                return token.strip()
        return None

    # -- objects -----------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any] | None:
        """One object; None where there is none of that name. Raises ClusterError."""
        asked = Asked(verb="get", kind=kind, namespace=namespace, name=name)
        try:
            return self._json(asked, "GET", kind.path(namespace, name))
        except NotThereError:
            self.check_kind(kind)
            return None

    def list_all(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: str = "",
        name: str = "",
        cached: bool = False,
    ) -> tuple[list[dict[str, Any]], str]:
        """All objects that have the labels or the name, and the version to watch them from.

        `cached`: what the API server has at hand, a moment old maybe. Who asks often must not have
        it read all of a namespace from its store each time.
        """
        asked = Asked(verb="list", kind=kind, namespace=namespace)
        query = selectors(labels, name) | ({"resourceVersion": "0"} if cached else {})
        answer = self._json(asked, "GET", kind.path(namespace), query)
        items = [
            {"apiVersion": kind.api_version, "kind": kind.name, **item}
            for item in answer.get("items") or []
        ]
        return items, str(answer["metadata"]["resourceVersion"])

    def apply(
        self, document: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Server-side apply; the object as it then is. Raises ClusterError, such as ConflictError.

        `force` takes over fields of other managers. `dry_run`: the API server judges, and keeps
        nothing.
        """
        kind = kind_of(document)
        metadata = document["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        asked = Asked(verb="patch", kind=kind, namespace=namespace, name=name)
        query = {"fieldManager": MANAGER, "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        return self._json(
            asked, "PATCH", kind.path(namespace, name), query, body=document, content_type=APPLY
        )

    def create(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object that must not be there yet. Raises ClusterError."""
        kind = kind_of(document)
        namespace = document["metadata"].get("namespace")
        asked = Asked(verb="create", kind=kind, namespace=namespace)
        query = {"fieldManager": MANAGER}
        return self._json(asked, "POST", kind.path(namespace), query, body=document)

    def delete(self, kind: Kind, namespace: str | None, name: str) -> bool:
        """Delete an object and, in the background, all that it owns. False: it was not there."""
        asked = Asked(verb="delete", kind=kind, namespace=namespace, name=name)
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            self._json(asked, "DELETE", kind.path(namespace, name), body=body)
        except NotThereError:
            return False
        return True

    def version(self) -> tuple[int, int]:
        """The API server's version, such as (1, 34). Raises ClusterError."""
        plain = json.loads(
            self._read("GET", "/version", Asked(verb="get", kind=KINDS["Namespace"]))
        )
        return int(plain["major"]), int("".join(c for c in plain["minor"] if c.isdigit()))

    def clock(self, timeout_s: float = TIMEOUT_S) -> Answered:
        """Ask for the API server's time. Raises UnreachableError, also for an answer without it."""
        asked_ns = time.time_ns()
        response = self._open("GET", "/version", timeout_s=timeout_s)
        answered_ns = time.time_ns()
        with contextlib.closing(response):
            date = response.headers.get("Date")
            if response.status >= INTERNAL_ERROR or date is None:
                asked = Asked(verb="get", kind=KINDS["Namespace"])
                raise refusal(asked, max(INTERNAL_ERROR, response.status), response.data)
            response.drain_conn()
        date_s = parsedate_to_datetime(date).timestamp()
        return Answered(asked_ns=asked_ns, answered_ns=answered_ns, date_s=int(date_s))

    def check_kind(self, kind: Kind) -> None:
        """Raise NotThereError where the cluster does not have a kind, or not in this version."""
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"
        asked = Asked(verb="get", kind=kind)
        try:
            listed = self._json(asked, "GET", root)
        except NotThereError:
            listed = {"resources": []}
        if kind.plural not in {each["name"] for each in listed["resources"]}:
            raise no_such_kind(kind)

    # -- pods --------------------------------------------------------------------------------

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        tail_lines: int = 20,
        previous: bool = False,
    ) -> list[str]:
        """The last lines of a container's log; of the one before its last restart, if asked."""
        asked = Asked(
            verb="get", kind=KINDS["Pod"], namespace=namespace, name=pod, subresource="log"
        )
        query = {"container": container, "tailLines": str(tail_lines)}
        if previous:
            query["previous"] = "true"
        path = f"{KINDS['Pod'].path(namespace, pod)}/log"
        return self._read("GET", path, asked, query).decode(errors="replace").splitlines()

    def pod_path(self, namespace: str, pod: str, port: int, path: str) -> str:
        """The API server's path to a port of a pod: its proxy."""
        return f"{KINDS['Pod'].path(namespace, pod)}:{port}/proxy/{quote(path.lstrip('/'))}"

    @contextlib.contextmanager
    def open_pod(  # noqa: PLR0913 - one request
        self,
        namespace: str,
        pod: str,
        port: int,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Iterator[Any]:
        """Ask a pod, through the API server: a urllib3 response, whatever its status.

        Raises UnreachableError where the API server does not answer.
        """
        response = self._open(
            method, self.pod_path(namespace, pod, port, path), headers=headers, timeout_s=timeout_s
        )
        try:
            yield response
        finally:
            response.close()

    @contextlib.contextmanager
    def open_log(
        self, namespace: str, pod: str, container: str, *, since: str | None = None
    ) -> Iterator[Any]:
        """Follow a container's log to its end: a urllib3 response of lines `TIMESTAMP TEXT`.

        `since`: a timestamp, in whole seconds, before which nothing is told. Raises ClusterError.
        """
        asked = Asked(
            verb="get", kind=KINDS["Pod"], namespace=namespace, name=pod, subresource="log"
        )
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since is not None:
            query["sinceTime"] = since
        path = f"{KINDS['Pod'].path(namespace, pod)}/log"
        response = self._open("GET", path, query=query, timeout_s=LOG_SILENCE_S)
        with contextlib.closing(response):
            if response.status >= MULTIPLE_CHOICES:
                raise refusal(asked, response.status, self.body(response))
            yield response

    # -- watches -----------------------------------------------------------------------------

    def open_watch(self, kind: Kind, namespace: str | None, query: Mapping[str, str]) -> Any:
        """Begin a watch: a urllib3 response of one JSON object a line. Raises ClusterError."""
        asked = Asked(verb="watch", kind=kind, namespace=namespace)
        wanted = {**query, "watch": "1", "allowWatchBookmarks": "true"}
        seconds = float(query.get("timeoutSeconds", TIMEOUT_S))
        response = self._open(
            "GET", kind.path(namespace), query=wanted, timeout_s=seconds + TIMEOUT_S
        )
        if response.status >= MULTIPLE_CHOICES:
            with contextlib.closing(response):
                raise refusal(asked, response.status, self.body(response))
        return response

    # -- requests ----------------------------------------------------------------------------

    def _json(  # noqa: PLR0913 - one request
        self,
        asked: Asked,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(
            self._read(method, path, asked, query, body=body, content_type=content_type)
        )
        return plain

    def _read(  # noqa: PLR0913 - one request
        self,
        method: str,
        path: str,
        asked: Asked,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        content_type: str = JSON,
    ) -> bytes:
        headers = {"Content-Type": content_type} if body is not None else {}
        response = self._open(method, path, query=query, headers=headers, body=body)
        with contextlib.closing(response):
            data = self.body(response)
            if response.status >= MULTIPLE_CHOICES:
                raise refusal(asked, response.status, data)
            return data

    def _open(  # noqa: PLR0913 - one request
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - with the client

        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            return self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers={"Accept": JSON, **self._credentials(), **(headers or {})},
                timeout=timeout_s,
                preload_content=False,
                retries=False,
            )
        except (HTTPError, OSError) as error:
            raise UnreachableError(
                f"the API server {self.server} cannot be reached: {error}",
                fix="Check the network, and the kubeconfig's entry; --context chooses another.",
            ) from error

    def body(self, response: Any) -> bytes:
        """The whole body of an answer. Raises UnreachableError where it breaks off."""
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - with the client

        try:
            data: bytes = response.data
        except (HTTPError, OSError) as error:
            raise UnreachableError(
                f"an answer of the API server {self.server} broke off: {error}",
                fix="Check the network between here and the cluster.",
            ) from error
        return data

    def _credentials(self) -> dict[str, str]:
        """The token of this moment: the client runs login plugins and renews tokens that end."""
        settings = self._client.configuration.auth_settings()
        return {
            each["key"]: each["value"]
            for each in settings.values()
            if each.get("in") == "header" and each.get("value")
        }


def selectors(labels: str, name: str) -> dict[str, str]:
    """The query that chooses objects by labels, by name, or both."""
    query = {}
    if labels:
        query["labelSelector"] = labels
    if name:
        query["fieldSelector"] = f"metadata.name={name}"
    return query


def _namespace_of_pod() -> str | None:
    path = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return path.read_text("utf-8").strip() if path.exists() else None

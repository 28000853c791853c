"""Ask a run's master on the cluster, through the API server, and fetch its run directory.

In:  a `Cluster`, the master's pod, its port and token.
Out: its `State`; the archive as a file, checked against the hash that the master told.

A copy that breaks off goes on from the byte that it came to, also in another process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kvswarm.archive import sha256_of
from kvswarm.kserve.cluster import Cluster
from kvswarm.kserve.handing import OUR_HEADER, TOKEN_HEADER, State
from kvswarm.kserve.kinds import KINDS
from kvswarm.kserve.refusals import (
    Asked,
    ClusterError,
    NotAllowedError,
    RefusedError,
    UnreachableError,
    refusal,
)

OK: Final = 200
PARTIAL: Final = 206
MULTIPLE_CHOICES: Final = 300
TRIES: Final = 5
"""Times in a row that a copy may break off without having brought a byte."""
BLOCK_BYTES: Final = 1 << 16
"""Small: of a block that is cut, urllib3 gives nothing, and it has to be asked for again."""
ASK_S: Final = 10.0
BLOCK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a run's results are handed over."""

    cluster: Cluster
    namespace: str
    pod: str
    port: int
    token: str

    def state(self) -> State:
        """Where the run stands. Raises UnreachableError where nothing listens yet."""
        return msgspec.json.decode(self._ask("GET", "state"), type=State)

    def stop(self) -> None:
        """Let the run end in order. Raises ClusterError."""
        self._ask("POST", "stop")

    def taken(self) -> None:
        """Let the master end. Raises ClusterError."""
        self._ask("POST", "taken")

    def fetch(self, state: State, file: Path, pause: Callable[[], None]) -> None:
        """Copy the archive to `file`, or the rest of it. Raises ClusterError where it cannot.

        `pause` is called before each try after the first.
        """
        for whole in (False, True):
            if whole:
                file.unlink(missing_ok=True)
            self._copy(state, file, pause)
            if sha256_of(file) == state.archive_sha256:
                return
        file.unlink(missing_ok=True)
        raise RefusedError(
            f"pod {self.pod}: what was copied is not what the master packed: its SHA-256 is "
            "another one, twice",
            fix="Fetch it again; look for what changes data between here and the cluster.",
        )

    def _copy(self, state: State, file: Path, pause: Callable[[], None]) -> None:
        failures = 0
        while (have_bytes := _size_bytes(file)) < (state.archive_bytes or 0):
            cut = UnreachableError(f"pod {self.pod}: sends nothing more of its results")
            try:
                self._copy_from(have_bytes, file)
            except UnreachableError as error:
                cut = error
            failures = 0 if _size_bytes(file) > have_bytes else failures + 1
            if failures >= TRIES:
                raise cut
            if _size_bytes(file) < (state.archive_bytes or 0):
                pause()

    def _copy_from(self, start_bytes: int, file: Path) -> None:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - with the client

        headers = {TOKEN_HEADER: self.token, "Range": f"bytes={start_bytes}-"}
        with self.cluster.open_pod(
            self.namespace, self.pod, self.port, "archive", headers=headers, timeout_s=BLOCK_S
        ) as response:
            if response.status != PARTIAL:
                raise self._refused("GET", response)
            with file.open("ab") as target:
                try:
                    while block := response.read(BLOCK_BYTES):
                        target.write(block)
                except (HTTPError, OSError) as error:
                    raise UnreachableError(
                        f"pod {self.pod}: the copy of its results broke off: {error}"
                    ) from error

    def _ask(self, method: str, path: str) -> bytes:
        with self.cluster.open_pod(
            self.namespace,
            self.pod,
            self.port,
            path,
            method=method,
            headers={TOKEN_HEADER: self.token},
            timeout_s=ASK_S,
        ) as response:
            if response.status >= MULTIPLE_CHOICES or OUR_HEADER not in response.headers:
                raise self._refused(method, response)
            return self.cluster.body(response)

    def _refused(self, method: str, response: Any) -> ClusterError:
        """Tell an answer of the master from one of the API server."""
        if OUR_HEADER in response.headers:
            return NotAllowedError(
                f"pod {self.pod}: its master answers {response.status}: "
                f"{self.cluster.body(response)[:200].decode(errors='replace')}",
                fix="The token is in the Secret of the run: fetch it with `kvswarm fetch`.",
            )
        asked = Asked(
            verb="get" if method == "GET" else "create",
            kind=KINDS["Pod"],
            namespace=self.namespace,
            name=self.pod,
            subresource="proxy",
        )
        return refusal(asked, response.status, self.cluster.body(response))


def _size_bytes(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0

"""The log of a run's master, passed on as it is written.

In:  the run, its master's pod.  Out: lines, each once, through cuts of the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kvswarm.kserve.on_cluster import MASTER
from kvswarm.kserve.placing import OfRun
from kvswarm.kserve.refusals import ClusterError, NotAllowedError, UnreachableError

PAUSE_S: Final = 1.0


class RunLog(threading.Thread):
    """Passes on the master's log as it is written."""

    def __init__(self, of: OfRun, pod: str, say: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name=f"log of {pod}")
        self._of, self._pod, self._say = of, pod, say
        self._over = threading.Event()
        self._since = ""

    def run(self) -> None:
        """Follow it through cuts."""
        while not self._over.is_set():
            try:
                self._follow()
            except UnreachableError:
                self._over.wait(PAUSE_S)
            except ClusterError as error:
                hint = " It can do without." if isinstance(error, NotAllowedError) else ""
                return self._say(f"The master's log cannot be shown: {error.message}{hint}")
            else:
                self._over.wait(PAUSE_S)
        return None

    def close(self) -> None:
        """Say no more."""
        self._over.set()

    def _follow(self) -> None:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - with the client

        since = f"{self._since[:19]}Z" if self._since else None
        of = self._of
        with of.cluster.open_log(of.namespace, self._pod, MASTER, since=since) as response:
            rest = b""
            try:
                for piece in response.stream(amt=None):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._tell(line)
            except (HTTPError, OSError):
                return

    def _tell(self, line: bytes) -> None:
        stamp, _, text = line.decode(errors="replace").partition(" ")
        if self._over.is_set() or (self._since and _moment(stamp) <= _moment(self._since)):
            return
        self._since = stamp
        self._say(f"  | {text}")


def _moment(stamp: str) -> tuple[str, str]:
    """A timestamp's second and its fraction: kubelets leave out zeros at the end."""
    second, _, fraction = stamp.removesuffix("Z").partition(".")
    return second, fraction.ljust(9, "0")

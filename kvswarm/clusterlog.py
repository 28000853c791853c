"""cluster.jsonl of a run directory: what became of a service's pods while it was measured.

In:  entries, as they are seen.
Out: one JSON object a line, appended and handed to the kernel as it comes, so that `kill -9` loses
     nothing; read back by `read_log`.

Each line has a `kind` and `time_ns`, when this machine had it, in ns of its CLOCK_REALTIME:

- `service`   the first line: whose pods these are, and `schema_version`
- `pod`       the newest state of a pod (`PodEntry`); moments other than `time_ns` are the pod's
              own, of the cluster's clocks, and have a resolution of one second
- `wanted`    how many replicas a deployment is to have; null: the deployment is gone
- `clock`     by how much the API server's clock is ahead of this machine's, at least and at most
- `away`      the API server did not answer from `since_ns` to `time_ns`
- `note`      what a reader must know, in words
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from kvswarm.errors import RunDirError

SCHEMA_VERSION: Final = 1


class Entry(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind"):
    """What all lines have."""

    time_ns: int


class ServiceEntry(Entry, kw_only=True, frozen=True, tag="service"):
    """Whose pods are followed."""

    schema_version: int = SCHEMA_VERSION
    namespace: str
    service: str
    pods_known: bool = True
    """Whether the pods could be listed: without, none on a line does not mean none."""
    wanted_known: bool = True
    """Whether the deployments could be."""


class PodEntry(Entry, kw_only=True, frozen=True, tag="pod"):
    """A pod's newest state. Moments: null, as long as it has not come so far."""

    pod: str
    uid: str
    phase: str
    """As Kubernetes has it: `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`."""
    created_ns: int
    scheduled_ns: int | None = None
    """A node was chosen for it."""
    initialized_ns: int | None = None
    """Its init containers are through: KServe's loads the model's files."""
    started_ns: int | None = None
    """Its server's process was last started: the image is there."""
    ready: bool = False
    ready_ns: int | None = None
    """Since when it is ready; null while it is not."""
    deleting: bool = False
    """It was told to end."""
    deleted: bool = False
    """It is gone; the line holds its last state."""
    node: str | None = None
    reason: str | None = None
    """What it waits for or why it ended: the container's reason, else the scheduler's."""
    restarts: int = 0
    listed: bool = False
    """The state was found, at `time_ns` or before, not seen to come about."""


class WantedEntry(Entry, kw_only=True, frozen=True, tag="wanted"):
    """How many replicas one deployment of the service is to have."""

    deployment: str
    replicas: int | None


class ClockEntry(Entry, kw_only=True, frozen=True, tag="clock"):
    """The API server's clock less this machine's, from below and from above."""

    least_ns: int
    most_ns: int


class AwayEntry(Entry, kw_only=True, frozen=True, tag="away"):
    """A time in which the API server did not answer: changes within it were seen late."""

    since_ns: int


class NoteEntry(Entry, kw_only=True, frozen=True, tag="note"):
    """Words for whoever reads the figures."""

    text: str


AnyEntry = ServiceEntry | PodEntry | WantedEntry | ClockEntry | AwayEntry | NoteEntry


class LogWriter:
    """Append entries, from several threads. Raises OSError where the file cannot be made."""

    def __init__(self, path: Path, on_failure: Callable[[OSError], None]) -> None:
        # Unbuffered: each line is one write, and in the kernel before the next.
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._on_failure: Callable[[OSError], None] | None = on_failure

    def append(self, entry: AnyEntry) -> None:
        """Write a line. The first that the disk refuses is told to `on_failure`, once."""
        line = msgspec.json.encode(entry) + b"\n"
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(line)
            except OSError as error:
                if self._on_failure is not None:
                    self._on_failure(error)
                self._on_failure = None

    def close(self) -> None:
        """Close the file; what comes later is dropped."""
        with self._lock:
            self._file.close()


@dataclass(frozen=True)
class Log:
    """The lines of a file."""

    entries: list[AnyEntry] = field(default_factory=list)
    damaged_lines: int = 0
    """Lines that no writer of ours made; one that was cut off at the end does not count."""


def read_log(path: Path) -> Log | None:
    """Read a file; None where there is none. Raises RunDirError where it is not ours."""
    try:
        *lines, _cut_off = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirError(
            f"{path}: cannot be read: {error.strerror}",
            fix="Mend access to it, or remove it: the other figures need it not.",
        ) from error
    decoder = msgspec.json.Decoder(AnyEntry)
    entries: list[AnyEntry] = []
    damaged = 0
    for line in lines:
        try:
            entries.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            damaged += 1
    _check_first(path, entries, damaged)
    return Log(entries, damaged)


def _check_first(path: Path, entries: Sequence[AnyEntry], damaged_lines: int) -> None:
    """Raise RunDirError where the first line is none of ours, or of another version."""
    first = entries[0] if entries else None
    if isinstance(first, ServiceEntry):
        if first.schema_version != SCHEMA_VERSION:
            raise RunDirError(
                f"{path}: schema_version {first.schema_version}, this kvswarm reads "
                f"{SCHEMA_VERSION}",
                fix="Use the version of kvswarm that made the run (run.json names it).",
            )
    elif entries or damaged_lines:
        raise RunDirError(
            f"{path}: does not begin with a line of kind `service`",
            fix="Restore it from a copy, or remove it: the other figures need it not.",
        )

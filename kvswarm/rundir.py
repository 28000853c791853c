"""The run directory: the contract between the load (`swarm`) and the analysis.

Written as the run goes, readable after a crash:

- `run.json`          what was run (`RunInfo`), rewritten atomically as the run goes on
- `requests.journal`  batches of records, appended as they arrive; removed once the table is whole
- `requests.parquet`  one row per request, made from the journal by `kvswarm.analysis`
- `cluster.jsonl`     a service's pods and replicas over time, where one is measured by its name:
                      see `kvswarm.clusterlog`
- `cost.json`         what ran and what it costs; `estimate.json`: what `validate` had estimated
- `summary.json`, `report.html`, `locust.log`, Locust's own CSVs, `server.log` of `--serve`

The journal is a sequence of frames `length (u32 LE) | crc32 (u32 LE) | payload`. The first payload
is a JSON header, the others are what `records.encode_batch` made. A crash can cut the last frame
short; a reader stops there and says so. `kill -9` loses nothing that was written, because the
bytes are in the kernel then. Who writes it holds a lock on it, so that nobody else takes a run
that goes on for one that was cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from kvswarm.errors import RunDirError
from kvswarm.origin import ImportedInfo
from kvswarm.records import SCHEMA_VERSION, Record, decode_batch

FRAME: Final = struct.Struct("<II")
SERVER_LOG: Final = "server.log"
RUNS: Final = Path("runs")
CLUSTER_LOG: Final = "cluster.jsonl"
THERE_BEFORE: Final = ("locust", SERVER_LOG, CLUSTER_LOG)
"""Beginnings of names that a run directory may hold before its run begins: logs and CSVs."""


class PodInfo(msgspec.Struct, kw_only=True):
    """One pod of a service, as it was before the load."""

    name: str
    node: str | None = None
    image: str | None = None
    ready: bool = False
    restarts: int = 0
    gpus: int | None = None
    """GPUs, or slices of them, that its server asks for; None: not recorded."""
    gpu_resource: str | None = None
    """As Kubernetes names them: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`."""
    cpus: float | None = None
    memory_gib: float | None = None
    labels: dict[str, str] = {}
    """Of its node, or those that it wants of one: product of the GPU, type of the machine."""


class ServiceInfo(msgspec.Struct, kw_only=True):
    """The service of KServe that was measured. None: not known."""

    kind: str
    namespace: str
    name: str
    cluster: str
    """URL of its API server."""
    mode: str | None = None
    backend: str | None = None
    runtime: str | None = None
    image: str | None = None
    version: str | None = None
    """The image's tag."""
    flags: list[str] = []
    """The command line of its server, but for secrets."""
    min_replicas: int | None = None
    asleep: bool = False
    """Whether it was scaled to zero before the load."""
    pods: list[PodInfo] | None = None
    replica: PodInfo | None = None
    """What a pod would ask for, of a service that had none before the load."""


class TargetInfo(msgspec.Struct, kw_only=True):
    """What was measured. `base_url` is what `/chat/completions` hangs on.

    Only of an imported run are the first three None: the tool that made it does not tell.
    """

    base_url: str | None
    model: str | None
    endpoint: str | None
    simulator: bool = False
    server_version: str | None = None
    models: list[str] = []
    """All names that the server serves, adapters included."""
    model_card: dict[str, Any] = {}
    """What /v1/models says of the model."""
    gateway: str | None = None
    """What connections went to, in place of the host of `base_url`."""
    service: ServiceInfo | None = None


class InterleaveInfo(msgspec.Struct, kw_only=True):
    """The second target of an interleaved run, and how requests alternate.

    See `kvswarm.workload.interleaving`.
    """

    target: TargetInfo
    block_requests: int
    guard_requests: int
    seed: int


class MetricsInfo(msgspec.Struct, kw_only=True):
    """One endpoint that was asked for the server's own metrics."""

    name: str
    """What tables and figures call it: the replica."""
    url: str
    own: bool = False
    """Whether it is the target's own page, which --metrics-url did not name."""
    late: bool = False
    """Whether it is a pod that was not ready before the load: all that it counts is of the run."""


class WorkerInfo(msgspec.Struct, kw_only=True):
    """One load-generating process, as it reported itself at its end."""

    worker: int
    host: str
    pid: int
    records: int = 0
    """Requests it started, each of which owes the table a row."""
    cpu_s: float | None = None
    """CPU time of the process (user and system) from the start of the load to its end."""
    token_events: int = 0
    dropped_arrivals: int = 0
    """Arrivals of an open loop that found `max_in_flight` requests running, so were not sent."""
    failed_listeners: int = 0
    """Exceptions in listeners of our events, which Locust would only log."""
    notes: list[str] = []
    """What a reader of the figures must know of the workload."""
    lost: bool = False
    """It never said that all was sent: its unsent records are missing."""
    away: bool = False
    """It was missing for so long that others made the rest of its part; it may have come back."""
    lost_in_flight: int = 0
    """Requests that a lost worker had begun and that left no record."""
    unmade_arrivals: int = 0
    """Arrivals of its part of an open loop that nobody made, because it was missing then."""
    clock_offset_us: int | None = None
    """Its clock less the master's, by the quickest of many round trips. None: not measured."""
    clock_rtt_us: int | None = None
    """That round trip. The offset is known to half of it, and means nothing below it."""


class RunInfo(msgspec.Struct, kw_only=True):
    """run.json. Moments are ns of CLOCK_REALTIME; None: not reached, or not told."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    profile: dict[str, Any]
    """The resolved profile, as `Profile.to_dict` gives it; empty for an imported run."""
    seed: int | None
    target: TargetInfo
    interleave: InterleaveInfo | None = None
    """Set where the run measured two targets in alternating blocks."""
    metrics: list[MetricsInfo] = msgspec.field(default_factory=list)
    argv: list[str]
    locust_argv: list[str]
    versions: dict[str, str]
    host: dict[str, Any]
    workers: list[WorkerInfo] = msgspec.field(default_factory=list)
    late_workers: int = 0
    """Locust workers that joined after the start and found nothing to do."""
    started_ns: int | None
    load_started_ns: int | None = None
    """When the load pattern began."""
    load_stopped_ns: int | None = None
    """When it stopped making new requests; in-flight ones may end later."""
    ended_ns: int | None = None
    ended: str | None = None
    """`completed`, `stopped`, `interrupted`, `disk_full`, `worker_lost`.

    None: it goes on, or was cut off.
    """
    notes: list[str] = msgspec.field(default_factory=list)
    """Things that a reader of the figures must know, in words."""
    imported: ImportedInfo | None = None
    """Where another tool measured it. None: kvswarm did."""


class Versioned(msgspec.Struct):
    """The part of run.json that every version of it has."""

    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run directory, and its reading and writing."""

    path: Path

    @property
    def run_json(self) -> Path:
        """What was run."""
        return self.path / "run.json"

    @property
    def journal(self) -> Path:
        """Records as they arrived."""
        return self.path / "requests.journal"

    @property
    def requests(self) -> Path:
        """The table of requests."""
        return self.path / "requests.parquet"

    @property
    def server_pages(self) -> Path:
        """What the server's /metrics said, as it came."""
        return self.path / "server.pages"

    @property
    def server(self) -> Path:
        """The table of the server's metrics."""
        return self.path / "server.parquet"

    @property
    def cluster_log(self) -> Path:
        """What the cluster did with the service's pods."""
        return self.path / CLUSTER_LOG

    @property
    def summary(self) -> Path:
        """The figures."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def locust_log(self) -> Path:
        """What Locust logged."""
        return self.path / "locust.log"

    @property
    def server_log(self) -> Path:
        """What the server said that `--serve` started."""
        return self.path / SERVER_LOG

    @property
    def estimate(self) -> Path:
        """What `kvswarm validate` had estimated, where somebody gave it to the run."""
        return self.path / "estimate.json"

    @property
    def cost(self) -> Path:
        """What ran and what it costs, as far as it is known."""
        return self.path / "cost.json"

    @property
    def going_on(self) -> bool:
        """Whether a process still writes the journal; False where the file system has no locks."""
        try:
            with self.journal.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def write_info(self, info: RunInfo) -> None:
        """Write run.json whole or not at all."""
        write_atomically(self.run_json, msgspec.json.format(msgspec.json.encode(info), indent=2))

    def read_info(self) -> RunInfo:
        """Read run.json. Raises RunDirError where it is missing, damaged or not ours."""
        try:
            content = self.run_json.read_bytes()
            # First: what another version wrote need not have the fields of this one.
            version = msgspec.json.decode(content, type=Versioned).schema_version
            check_version(self.run_json, version)
            return msgspec.json.decode(content, type=RunInfo)
        except FileNotFoundError as error:
            raise RunDirError(
                f"{self.path}: no run.json here",
                fix="Give the directory of a run, as `kvswarm run` printed it.",
            ) from error
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunDirError(
                f"{self.run_json}: cannot be read: {error}",
                fix="Restore it from a copy; without it nobody can tell what the rows are of.",
            ) from error


def check_version(path: Path, version: int | str | None) -> None:
    """Raise RunDirError where a file has another layout than this kvswarm reads."""
    if str(version) != str(SCHEMA_VERSION):
        raise RunDirError(
            f"{path}: schema_version {version}, this kvswarm reads {SCHEMA_VERSION}",
            fix="Use the version of kvswarm that made the run (run.json names it).",
        )


def new_run_dir(profile_name: str, out: Path | None = None) -> RunDir:
    """Make the run directory: `out`, which must be new or empty, or one under `runs/`.

    Raises RunDirError where it holds something already or cannot be made.
    """
    path = out or RUNS / new_name(profile_name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(not entry.name.startswith(THERE_BEFORE) for entry in path.iterdir()):
            raise RunDirError(
                f"{path}: the run directory holds files already",
                fix="Give --out a directory that is new or empty; no run overwrites another.",
            )
    except OSError as error:
        raise RunDirError(f"{path}: cannot make the run directory: {error.strerror}") from error
    return RunDir(path.resolve())


def new_name(profile_name: str) -> str:
    """A name for a run directory that no other one has: `<UTC time>-<profile>-<6 hex>`."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    safe_name = "".join(c if c.isalnum() or c in "-_." else "-" for c in profile_name)
    return f"{stamp}-{safe_name}-{secrets.token_hex(3)}"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a reader or a crash sees the old or the new, whole."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


class JournalWriter:
    """Append batches of records, as `records.encode_batch` made them.

    The file is locked while it is open; the kernel lifts the lock however the process ends.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: what the disk refused must not wait in a buffer to be written later.
        self._file = path.open("xb", buffering=0)
        with contextlib.suppress(OSError):  # a file system without locks must not stop a run
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.written_bytes = 0
        self._append(msgspec.json.encode({"schema_version": SCHEMA_VERSION}))

    def append(self, blob: bytes) -> None:
        """Append one batch and hand it to the kernel. Raises OSError, such as for a full disk."""
        self._append(blob)

    def _append(self, payload: bytes) -> None:
        start_bytes = self.written_bytes
        left = memoryview(FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            # A frame cut short would hide every later one from a reader.
            self._file.seek(start_bytes)
            self._file.truncate(start_bytes)
            raise
        self.written_bytes += FRAME.size + len(payload)

    def close(self) -> None:
        """Push the bytes to the disk and close, even where the disk refuses: the run is over."""
        with self._file:
            os.fsync(self._file.fileno())


@dataclass
class JournalReader:
    """Iterate over the batches of a journal; afterwards `cut_short` tells of a broken end."""

    path: Path
    cut_short: bool = False

    def __iter__(self) -> Iterator[list[Record]]:
        """Yield batches in the order of arrival. Raises RunDirError for a foreign file."""
        with self.path.open("rb") as file:
            header = self._payload(file)
            if header is None:
                return
            try:
                check_version(self.path, msgspec.json.decode(header, type=Versioned).schema_version)
                while (payload := self._payload(file)) is not None:
                    yield decode_batch(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                # Not a crash: what is broken is found by its checksum.
                raise RunDirError(
                    f"{self.path}: holds what this kvswarm did not write: {error}",
                    fix="Use the version of kvswarm that made the run (run.json names it).",
                ) from error

    def _payload(self, file: BinaryIO) -> bytes | None:
        head = file.read(FRAME.size)
        if not head:
            return None
        if len(head) == FRAME.size:
            length, checksum = FRAME.unpack(head)
            payload = file.read(length)
            # A length of 0 is no frame of ours: zeros stand where data was lost with the power.
            if length and len(payload) == length and zlib.crc32(payload) == checksum:
                return payload
        self.cut_short = True
        return None

"""What distribution costs: one, two and four workers, and how many records one master takes.

1. `kvswarm run --processes W` against the C server: token events per second, CPU per event, and
   what the master takes meanwhile.
2. A master (plain Locust, no report) and the record traffic of 100 workers: a few processes that
   speak Locust's protocol, each for many workers, send batches of records of 128 tokens as fast as
   the master acknowledges them; as they are, and compressed as over a network.

Use: python benchmarks/distributed.py [--workers 100] [--records 600000] [--streams 256]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import psutil
import target
import zmq

from kvswarm.commands.load import LOCUSTFILES
from kvswarm.profiles.load import load_profile
from kvswarm.records import Record, decode_batch, encode_batch, pack_u32
from kvswarm.rundir import JournalReader, RunDir
from kvswarm.simulator.launch import start_simulator
from kvswarm.swarm.progress import PROGRESS_FD_ENV
from kvswarm.swarm.shipping import BATCH_RECORDS, squeezed
from kvswarm.swarm.standing import Standing

SENDERS = 2
WINDOW = 4
"""Batches of a simulated worker that wait for their acknowledgement at a time."""
LOOK_S = 0.2
FLUSH_S = 0.25
SCALE_WORKERS = (1, 2, 4)


@dataclass
class Watched:
    """CPU time and largest resident memory of a process."""

    process: psutil.Process
    cpu_s: float = 0.0
    rss_mb: float = 0.0

    def look(self) -> None:
        """Look once more."""
        try:
            times = self.process.cpu_times()
            self.cpu_s = times.user + times.system
            self.rss_mb = max(self.rss_mb, self.process.memory_info().rss / 1e6)
        except psutil.Error:
            pass  # it has ended: what was seen before stands


# -- one, two and four workers ------------------------------------------------------------------


def scale(streams: int, workers: int) -> list[str]:
    """One run over some workers: a row of the table."""
    with tempfile.TemporaryDirectory() as folder, target.server(Path(folder) / "truth") as port:
        command = target.run_command(port, streams, 6 * streams, Path(folder) / "run")[3:]
        command += ["--processes", str(workers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        master: Watched | None = None
        while process.poll() is None:
            found = [p for p in psutil.Process(process.pid).children(recursive=True) if _locust(p)]
            if found and master is None:
                master = Watched(min(found, key=lambda p: p.create_time()))
            if master is not None:
                master.look()
            time.sleep(LOOK_S)
        summary = json.loads(process.communicate()[0])
        info = json.loads((Path(folder) / "run" / "run.json").read_text())
    if master is None:
        raise SystemExit("the run was over before its master was seen")
    events = sum(worker["token_events"] for worker in info["workers"])
    took_s = (info["load_stopped_ns"] - info["load_started_ns"]) / 1e9
    return [
        str(workers), str(streams), f"{events / took_s:.0f}",
        f"{summary['generator']['cpu_us_per_token_event']:.2f}",
        f"{summary['ttft_ms']['p99']:.1f}", f"{summary['itl_ms']['p99']:.2f}",
        f"{master.cpu_s:.1f}", f"{master.rss_mb:.0f}", summary["verdict"]["status"],
    ]  # fmt: skip


def _locust(process: psutil.Process) -> bool:
    try:
        return "locust" in process.cmdline()
    except psutil.Error:
        return False


# -- the traffic of many workers ---------------------------------------------------------------


def a_batch(rng: np.random.Generator) -> bytes:
    """Records as a run makes them: 128 tokens about 10 ms apart."""
    start_ns = time.time_ns()
    records = []
    for index in range(BATCH_RECORDS):
        gaps_us = rng.normal(10_000, 300, 127).clip(0).astype(np.int64)
        first_ns = start_ns + 100_000_000
        last_ns = first_ns + int(gaps_us.sum()) * 1000
        records.append(
            Record(
                index=index, worker=1, phase="measure", scenario="standard", endpoint="chat",
                intended_ns=start_ns, sent_ns=start_ns + 50_000, first_byte_ns=first_ns - 1000,
                first_token_ns=first_ns, last_token_ns=last_ns, end_ns=last_ns + 90_000,
                send_spread_us=40, http_status=200, finish_reason="length",
                asked_input_tokens=256, asked_output_tokens=128, prompt_tokens=256,
                completion_tokens=128, events=128, first_event_tokens=1,
                packed_itl_us=pack_u32(gaps_us),
                packed_read_lag_us=pack_u32(rng.integers(20, 400, 128)),
            )
        )  # fmt: skip
    return encode_batch(records)


@dataclass
class Pretended:
    """One worker, as far as the master can tell."""

    name: str
    line: Any
    batches: int
    run_id: str = ""
    sent: int = 0
    acknowledged: int = 0
    beat_s: float = 0.0
    counts_s: float = 0.0
    over: bool = False
    state: str = "ready"
    info: dict[str, Any] = field(default_factory=dict)

    def send(self, kind: str, data: Any) -> None:
        """Send a message as Locust does."""
        self.line.send(msgpack.dumps((kind, data, self.name)))

    def tell(self, kind: str, **data: Any) -> None:
        """Send one of this run's."""
        self.send(kind, {**data, "run": self.run_id})

    def hear(self, message: dict[str, Any]) -> None:
        """Answer what the master says."""
        blob, size_bytes = message["blob"], message["size_bytes"]
        kind, data, _ = msgpack.loads(self.line.recv(), raw=False, strict_map_key=False)
        if kind == "kv_plan":
            self.run_id = data["run_id"]
            self.info = {"worker": data["shard"], "host": self.name, "pid": 0}
            self.tell("kv_ready")
        elif kind == "kv_alive":
            self.tell("kv_pong", sent_ns=data["sent_ns"], there_ns=time.time_ns())
        elif kind == "spawn":
            self.state, users = "running", data["user_classes_count"]
            told = {"user_classes_count": users, "user_count": sum(users.values())}
            self.send("spawning_complete", told)
        elif kind == "kv_start":
            time.sleep(max(0, data["start_ns"] - time.time_ns()) / 1e9)
            for _ in range(min(WINDOW, self.batches)):
                self.ship(blob, size_bytes)
        elif kind == "kv_ack" and data["number"] is not None:
            self.acknowledged += 1
            if self.sent < self.batches:
                self.ship(blob, size_bytes)
            elif self.acknowledged == self.batches:
                records = self.batches * BATCH_RECORDS
                self.tell("kv_all_sent", info={**self.info, "records": records}, early=False)
        elif kind == "quit":
            self.over = True

    def ship(self, blob: bytes, size_bytes: int | None) -> None:
        """Send one batch."""
        number, self.sent = self.sent, self.sent + 1
        begun = self.sent * BATCH_RECORDS
        self.tell(
            "kv_records", number=number, count=BATCH_RECORDS, begun=begun, size_bytes=size_bytes,
            blob=blob,
        )  # fmt: skip

    def beat(self, counts: dict[str, Any]) -> None:
        """Send what a worker sends at times: Locust's heartbeat, and where it stands."""
        if self.run_id and time.monotonic() - self.counts_s > FLUSH_S:
            self.counts_s = time.monotonic()
            self.tell("kv_counts", counts=counts)
        if time.monotonic() - self.beat_s > 1.0:
            self.beat_s = time.monotonic()
            state = {"state": self.state, "current_cpu_usage": 1, "current_memory_usage": 1}
            self.send("heartbeat", state)


def pretend(port: int, names: list[str], batches: int, blob: bytes, size_bytes: int | None) -> None:
    """Be some workers until the master says that it is over. Runs in a process of its own."""
    context, poller = zmq.Context(), zmq.Poller()
    version = subprocess.run(
        [sys.executable, "-c", "import locust; print(locust.__version__)"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    workers: dict[Any, Pretended] = {}
    for name in names:
        line = context.socket(zmq.DEALER)
        line.setsockopt(zmq.IDENTITY, name.encode())
        line.setsockopt(zmq.LINGER, 0)
        line.connect(f"tcp://127.0.0.1:{port}")
        poller.register(line, zmq.POLLIN)
        workers[line] = Pretended(name, line, batches)
        workers[line].send("client_ready", version)
    message = {"blob": blob, "size_bytes": size_bytes}
    standing = Standing(load_profile("standard"))
    standing.add(decode_batch(a_batch(np.random.default_rng(2))))
    counts = standing.packed()
    while not all(worker.over for worker in workers.values()):
        for line, _ in poller.poll(200):
            workers[line].hear(message)
        for worker in workers.values():
            worker.beat(counts)


def traffic(workers: int, records: int, *, squeeze: bool) -> list[str]:
    """The traffic of many workers into one master: a row of the table."""
    blob = a_batch(np.random.default_rng(1))
    size_bytes = len(blob) if squeeze else None
    shipped = squeezed(blob) if squeeze else blob
    batches = -(-records // (workers * BATCH_RECORDS))
    with tempfile.TemporaryDirectory() as folder, start_simulator([]) as simulator:
        out = Path(folder) / "run"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        command = [
            sys.executable, "-m", "locust", "-f", LOCUSTFILES["standard"], "--headless",
            "--only-summary", "--host", simulator.url, "--master", "--master-bind-host",
            "127.0.0.1", "--master-bind-port", str(port), "--expect-workers", str(workers),
            "--kv-requests", str(records), "--kv-concurrency", str(workers), "--users",
            str(workers), "--spawn-rate", str(workers), "--kv-out", out,
        ]  # fmt: skip
        environ = {**os.environ, PROGRESS_FD_ENV: str(nowhere)}
        master = subprocess.Popen(
            command, env=environ, pass_fds=(nowhere,), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        watched = Watched(psutil.Process(master.pid))
        names = [f"pretended_{number}" for number in range(workers)]
        senders = [
            multiprocessing.get_context("spawn").Process(
                target=pretend, args=(port, names[place::SENDERS], batches, shipped, size_bytes)
            )
            for place in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        before_cpu_s = 0.0
        while master.poll() is None:
            watched.look()
            if any(sender.exitcode for sender in senders):
                master.kill()
                raise SystemExit("a sender failed")
            if not (out / "requests.journal").exists():
                before_cpu_s = watched.cpu_s
            time.sleep(LOOK_S / 4)
        for sender in senders:
            sender.join()
        info = json.loads((out / "run.json").read_text())
        taken = sum(len(batch) for batch in JournalReader(RunDir(out).journal))
        shutil.rmtree(out)
    took_s = (info["load_stopped_ns"] - info["load_started_ns"]) / 1e9
    if taken != batches * workers * BATCH_RECORDS:
        raise SystemExit("records were lost, or came twice")
    cpu_us = (watched.cpu_s - before_cpu_s) / taken * 1e6
    return [
        str(workers), "zstd" if squeeze else "as they are", f"{len(shipped) / BATCH_RECORDS:.0f}",
        str(taken), f"{taken / took_s:.0f}", f"{cpu_us:.1f}", f"{watched.rss_mb:.0f}",
    ]  # fmt: skip


def show(heading: list[str], rows: list[list[str]]) -> None:
    """Print a table as the docs have it."""
    for cells in [heading, ["---"] * len(heading), *rows]:
        print("|", " | ".join(cells), "|")
    print()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--records", type=int, default=600_000)
    parser.add_argument("--streams", type=int, default=256)
    options = parser.parse_args()
    target.build()
    show(
        [
            "workers", "streams", "token events/s", "worker CPU us/event", "TTFT p99 ms",
            "ITL p99 ms", "master CPU s", "master MB", "verdict",
        ],
        [scale(options.streams, workers) for workers in SCALE_WORKERS],
    )  # fmt: skip
    show(
        [
            "workers", "batches", "bytes/record", "records", "records/s", "master CPU us/record",
            "master MB",
        ],
        [traffic(options.workers, options.records, squeeze=s) for s in (False, True)],
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())

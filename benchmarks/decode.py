"""What decoding costs: from the reads of one stream to its record, without sockets.

Streams as vLLM sends them (128 tokens, one event and one HTTP chunk per packet) are decoded over
and over; prints the least and the median CPU time per token event. Compare within one run: say
`--baseline DIR` with a checkout of what was there before, and both are measured by turns.

Use: python benchmarks/decode.py [--rounds 40] [--baseline DIR]
"""

from __future__ import annotations

import argparse
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kvswarm.stream.client import absorb
from kvswarm.stream.deltas import Meaning
from kvswarm.stream.exchange import Exchange
from kvswarm.stream.outcome import Ask, record_of

TOKENS = 128
STREAMS = 64


def wire(stream: int) -> list[bytes]:
    """Packets of one response: headers with the role, tokens, finish, usage, the end."""
    head = (
        f'data: {{"id":"chatcmpl-{stream:032x}","object":"chat.completion.chunk",'
        '"created":1700000000,"model":"meta-llama/Llama-3.1-8B-Instruct","choices":'
    )

    def chunk(text: str) -> bytes:
        return f"{len(text):x}\r\n{text}\r\n".encode()

    def choice(delta: str, finish: str = "null") -> bytes:
        text = f'{head}[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}'
        return chunk(text + "\n\n")

    headers = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked"
    usage = '[],"usage":{"prompt_tokens":256,"total_tokens":384,"completion_tokens":128}}\n\n'
    return [
        headers + b"\r\n\r\n" + choice('{"role":"assistant","content":""}'),
        *[choice(f'{{"content":" word{place}"}}') for place in range(TOKENS)],
        choice('{"content":""}', '"length"'),
        chunk(head + usage),
        chunk("data: [DONE]\n\n") + b"0\r\n\r\n",
    ]


def us_per_event() -> float:
    """Decode STREAMS streams; give the CPU time per token event."""
    connection: Any = type("Opened", (), {"recvmsg": None, "tls": None})()
    exchanges = []
    for stream in range(STREAMS):
        exchange = Exchange(connection, Meaning())
        exchange.sent_ns = 1_700_000_000_000_000_000
        for place, piece in enumerate(wire(stream)):
            stamp_ns = exchange.sent_ns + 100_000_000 + 10_000_000 * place
            exchange.pieces.append(piece)
            exchange.stamps.append(struct.pack("<qq", *divmod(stamp_ns, 10**9)))
            exchange.reads.append(stamp_ns + 50_000)
        # The first and the last piece are not what a token's is: the reactor notes that.
        exchange.odd += [0, len(exchange.pieces) - 1]
        exchange.ended_ns = exchange.last_stamp_ns()
        exchanges.append(exchange)
    ask = Ask(
        index=0,
        worker=0,
        phase="measure",
        scenario="standard",
        endpoint="chat",
        intended_ns=1_700_000_000_000_000_000,
    )
    start_ns = time.process_time_ns()
    for exchange in exchanges:
        absorb(exchange)
        record = record_of(ask, exchange)
    cpu_ns = time.process_time_ns() - start_ns
    if record.error_kind is not None or record.events != TOKENS:
        raise SystemExit(f"decoded wrongly: {record}")
    return cpu_ns / 1e3 / (STREAMS * TOKENS)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        us_per_event()
        print(*[us_per_event() for _ in range(10)])
        return
    here = Path(__file__).parent.parent
    folders = {"now": here} | ({"baseline": options.baseline} if options.baseline else {})
    found: dict[str, list[float]] = {name: [] for name in folders}
    for _ in range(max(1, options.rounds // 10)):
        for name, folder in folders.items():
            command = [sys.executable, str(Path(__file__).resolve()), "--one"]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={"PYTHONPATH": str(folder)}
            )
            found[name] += map(float, done.stdout.split())
    print("| code | least us/event | median us/event |\n|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {min(values):.2f} | {statistics.median(values):.2f} |")


if __name__ == "__main__":
    main()

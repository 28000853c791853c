"""A worker as Locust is before its first event: what the master sends to it is dropped.

Run as `deaf_worker.py PORT`; ends with 0 once it has its plan again after it said that it listens.
"""

import sys
from typing import Any

import gevent
from locust.rpc.protocol import Message
from locust.rpc.zmqrpc import Client

NAME = "deaf"


def main(port: int) -> None:
    client = Client("127.0.0.1", port, NAME)
    client.send(Message("client_ready", "2.47.0", NAME))

    def beat() -> None:
        while True:
            heard = {"state": "ready", "current_cpu_usage": 0, "current_memory_usage": 0}
            client.send(Message("heartbeat", heard, NAME))
            gevent.sleep(0.5)

    gevent.spawn(beat)
    dropped = next_plan(client)
    client.send(Message("kv_here", {}, NAME))
    assert next_plan(client) == dropped


def next_plan(client: Client) -> Any:
    while True:
        message = client.recv()
        if message.type == "kv_plan":
            return message.data


main(int(sys.argv[1]))

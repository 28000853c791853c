"""The simulated server: the routes of its flavor over uvicorn, and what answers a request.

In:  `SimulatorConfig`.  Out: HTTP, a truth log, one ready line on standard output.
Not: the engine (`engine.py`), the fixed times of --exact (`player.py`), the wire (`wire.py`).

Token events go straight to the connection's transport, in the order in which they are due: a task
and two awaits per event would hold 30,000 a second late. uvicorn does all the rest of HTTP.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from typing import Any, Final

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kvswarm.simulator.answers import FREE, Answer, answer_to
from kvswarm.simulator.asked import Request, parse_request
from kvswarm.simulator.config import SimulatorConfig
from kvswarm.simulator.engine import Sequence, block_hashes
from kvswarm.simulator.flavor import VLLM, Serving
from kvswarm.simulator.launch import READY
from kvswarm.simulator.player import EnginePlayer, ExactPlayer
from kvswarm.simulator.refusal import RequestError
from kvswarm.simulator.responses import Response, TruthLog, Wire
from kvswarm.simulator.tgi import TGI
from kvswarm.simulator.trtllm import TRTLLM
from kvswarm.simulator.wire import encode

COMPLETIONS: Final = {"/v1/chat/completions": True, "/v1/completions": False}
FLAVORS: Final = {"vllm": VLLM, "tgi": TGI, "trtllm": TRTLLM}


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which also shows itself to the application."""

    response: Response | None = None

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["kvswarm.connection"] = self  # type: ignore[typeddict-unknown-key]

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the response in flight need not wait for its next token to find out."""
        super().connection_lost(exc)
        if self.response is not None:
            self.response.leave()


class Application:
    """The ASGI application."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._flavor = FLAVORS[config.flavor]
        self._engine = self._flavor.engine(config)
        self._metrics = self._flavor.metrics(config)
        self._serving = Serving(config, self._engine, self._metrics)
        self._wire = Wire(config.stream_interval, config.keep_alive)
        self._truth = TruthLog(config.truth_log)
        self._player: ExactPlayer | EnginePlayer
        if config.exact is not None:
            self._player = ExactPlayer(*config.exact, self._metrics)
        else:
            self._player = EnginePlayer(self._engine, self._metrics)
        self._caching = config.prefix_caching and config.exact is None
        self._requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path, method = self._path(scope["path"]), scope["method"]
        if method == "POST" and path in COMPLETIONS:
            await self._complete(path, scope, receive, send)
            return
        page = self._flavor.pages.get(path)
        if path not in COMPLETIONS and page is None:
            await answer(send, 404, encode({"detail": "Not Found"}))
        elif method != "GET" or page is None:
            await answer(send, 405, encode({"detail": "Method Not Allowed"}))
        else:
            await answer(send, 200, *page(self._serving))

    def _path(self, asked: str) -> str:
        """The path without what /v1 hangs below; what is not below it is not there."""
        base_path = self._config.base_path
        if base_path is None:
            return asked
        if asked.startswith("/v1/"):
            return ""
        below = asked.removeprefix(base_path)
        return below if below.startswith("/v1/") else asked

    async def _complete(self, path: str, scope: Any, receive: Any, send: Any) -> None:
        raw = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        read_ns = time.time_ns()
        self._player.catch_up()
        config = self._config
        number = self._requests
        self._requests += 1
        self._metrics.received += 1
        fault = self._fault(number)
        if fault is not None and fault.startswith("status-"):
            status = int(fault.removeprefix("status-"))
            error = RequestError(status, f"simulated status {status}", kind="SimulatedError")
            await self._refuse(send, error)
            return
        try:
            request = parse_request(raw, config, chat=COMPLETIONS[path])
            planned = self._answer_to(request, number, fault)
        except RequestError as error:
            await self._refuse(send, error)
            return
        if not self._engine.fits(len(request.words), request.max_tokens):
            too_large = RequestError(400, "the request is larger than the whole KV cache")
            await self._refuse(send, too_large)
            return
        response = Response(
            request=request,
            answer=planned,
            chunks=self._flavor.chunks(request, planned, number, config),
            transport=scope["kvswarm.connection"].transport,
            wire=self._wire,
            fault=fault,
            request_id=_header(scope, b"x-request-id"),
            read_ns=read_ns,
        )
        scope["kvswarm.connection"].response = response
        await self._play(response, number, send)

    def _answer_to(self, request: Request, number: int, fault: str | None) -> Answer:
        planned = FREE
        if request.constraint is not None or request.tools is not None:
            rng = random.Random(f"{self._config.seed}/{number}/answer")  # noqa: S311 - no secret
            planned = answer_to(request, rng, fault)
        if fault == "cold-prefix" and self._caching:
            planned = replace(planned, fault=fault)
        return planned

    def _sequence(self, response: Response, number: int) -> Sequence:
        """The request as the engine has it."""
        config, request = self._config, response.request
        hashes: list[int] = []
        if self._caching and response.answer.fault != "cold-prefix":
            hashes = block_hashes(request.words, config.block_size, request.adapter)
        drafts = config.speculative_tokens and config.exact is None
        name = f"{config.seed}/{number}"
        return Sequence(
            prompt_tokens=len(request.words),
            max_tokens=request.max_tokens,
            ignore_eos=request.ignore_eos or config.exact is not None,
            hashes=hashes,
            rng=random.Random(f"{name}/eos"),  # noqa: S311 - no secret
            document_tokens=response.chunks.complete_tokens,
            adapter=request.adapter,
            draft_rng=random.Random(f"{name}/draft") if drafts else None,  # noqa: S311 - no secret
        )

    async def _play(self, response: Response, number: int, send: Any) -> None:
        request = response.request
        self._player.catch_up()
        if request.stream:
            await send(_start(response.fault))
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        sequence = self._sequence(response, number)
        await self._player.play(response, sequence)
        self._player.catch_up()
        if response.gone:
            return
        self._truth.add(response, sequence)
        if request.stream:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            reason = response.chunks.finish_reason(sequence.finish_reason)
            body = response.chunks.whole(reason, sequence.cached_tokens)
            await answer(send, 200, body)

    def _fault(self, number: int) -> str | None:
        config = self._config
        if config.fault is None:
            return None
        drawn = random.Random(f"{config.seed}/{number}/fault").random()  # noqa: S311 - no secret
        return config.fault if drawn < config.fault_share else None

    async def _refuse(self, send: Any, error: RequestError) -> None:
        headers = [(b"retry-after", b"2")] if error.status == 429 else []  # noqa: PLR2004 - HTTP's
        status, body = self._flavor.refusal(error)
        self._metrics.refused[status] += 1
        await answer(send, status, body, extra=headers)

    def close(self) -> None:
        """Write what is left of the truth."""
        self._truth.close()


def _header(scope: Any, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value.decode("latin-1"))
    return None


def _start(fault: str | None) -> dict[str, Any]:
    content_type = b"text/event-stream; charset=utf-8"
    if fault == "content-type":
        content_type = b"text/html"
    headers = [(b"content-type", content_type)]
    if fault == "gzip":
        headers.append((b"content-encoding", b"gzip"))
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def answer(
    send: Any,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Send a whole response."""
    length = str(len(body)).encode()
    headers = [(b"content-type", content_type), (b"content-length", length), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(config: SimulatorConfig) -> int:
    """Serve until a signal, or the end of standard input where that was asked for."""
    try:
        listener = socket.create_server(
            (config.host, config.port),
            family=socket.AF_INET6 if ":" in config.host else socket.AF_INET,
            backlog=8192,
        )
    except OSError as error:
        print(  # noqa: T201 - a message for the person
            f"kvswarm simulate: cannot listen on {config.host}:{config.port}: {error.strerror}",
            file=sys.stderr,
        )
        return 2
    try:
        application = Application(config)
    except OSError as error:
        listener.close()
        print(  # noqa: T201 - a message for the person
            f"kvswarm simulate: --truth-log {config.truth_log}: {error.strerror}", file=sys.stderr
        )
        return 2
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=Connection,
            loop="none",
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=600,
        )
    )
    # uvicorn raises the signal once more when it is done: by default that would end the process
    # before the last of the truth is written.
    signal.signal(signal.SIGTERM, server.handle_exit)
    if config.exit_with_parent:
        threading.Thread(target=_stop_at_eof, args=(server,), daemon=True).start()
    # What is loaded by now stays: the collector need not look through it again amid streams.
    gc.freeze()
    host = f"[{config.host}]" if ":" in config.host else config.host
    print(f"{READY}http://{host}:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    try:
        uvloop.run(server.serve(sockets=[listener]))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    finally:
        application.close()
    return 0


def _stop_at_eof(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True
    signal.raise_signal(signal.SIGTERM)

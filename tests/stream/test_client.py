"""The stream client against real sockets: framing, faults, deadlines, TLS."""

from __future__ import annotations

import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme

from kvswarm.records import ERROR_KINDS, Record
from kvswarm.stream.client import Deadlines, StreamClient
from kvswarm.stream.outcome import Ask
from kvswarm.stream.target import TLS, Target, request_bytes

sys.path.insert(0, str(Path(__file__).parent))
from scripted import (
    CHUNKED,
    DONE,
    FINISH,
    GOOD,
    HEAD,
    LAST_CHUNK,
    TOKEN,
    USAGE,
    Peer,
    chunk,
    scripted,
)  # fmt: skip

SHORT = Deadlines(connect_s=1.0, first_byte_s=0.4, between_bytes_s=0.4, total_s=1.0)
LONG = Deadlines(connect_s=5.0, first_byte_s=5.0, between_bytes_s=5.0, total_s=5.0)


class Lab:
    """A client and the records it made."""

    def __init__(self, port: int, deadlines: Deadlines, tls: TLS | None, host: str) -> None:
        scheme = "https" if tls else "http"
        self.target = Target.of(f"{scheme}://{host}:{port}/v1", tls=tls)
        self.records: list[Record] = []
        self.client = StreamClient(self.target, deadlines, lambda r, _: self.records.append(r))
        self.asked = 0

    def ask(self) -> Ask:
        """The next request's label."""
        self.asked += 1
        return Ask(
            index=self.asked - 1, worker=0, phase="measure", scenario="t", endpoint="chat",
            intended_ns=time.time_ns(),
        )  # fmt: skip

    def start(self) -> Any:
        """Start a request in a greenlet."""
        head = self.target.head_bytes("/chat/completions")
        return gevent.spawn(self.client.perform, self.ask(), request_bytes(head, b"{}", "id"))

    def perform(self) -> Record:
        """Make one request; give its record."""
        before = len(self.records)
        self.start().join(20)
        while self.client.undecoded:
            gevent.sleep(0.001)
        assert len(self.records) == before + 1, "every request has exactly one record"
        return self.records[-1]


@pytest.fixture
def lab() -> Iterator[Callable[..., Lab]]:
    """Make clients, and close them."""
    labs: list[Lab] = []

    def make(
        port: int, deadlines: Deadlines = LONG, tls: TLS | None = None, host: str = "127.0.0.1"
    ) -> Lab:
        labs.append(Lab(port, deadlines, tls, host))
        return labs[-1]

    yield make
    for one in labs:
        one.client.close()


def sends(*pieces: bytes) -> Callable[[Peer], None]:
    """A play that sends these."""
    return lambda peer: peer.send(*pieces)


def sends_and_closes(*pieces: bytes) -> Callable[[Peer], None]:
    """A play that sends these and ends the connection."""

    def play(peer: Peer) -> None:
        peer.send(*pieces)
        peer.sock.close()

    return play


BODY = TOKEN + TOKEN + FINISH + USAGE + DONE
LENGTH = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
CLOSE = HEAD + b"connection: close\r\n\r\n" + BODY


@pytest.mark.parametrize(
    "play",
    [
        sends(GOOD),
        sends(*(GOOD[i : i + 7] for i in range(0, len(GOOD), 7))),
        sends(GOOD[:-1], GOOD[-1:]),
        sends(GOOD[:-3], GOOD[-3:]),
        sends(b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD),
        sends(LENGTH),
        sends(LENGTH[:100], LENGTH[100:]),
        sends_and_closes(CLOSE),
        sends(CHUNKED + chunk(BODY.replace(b"\n", b"\r\n")) + LAST_CHUNK),
        sends(CHUNKED + chunk(b": hi\n\n" + BODY) + LAST_CHUNK),
        sends(CHUNKED + chunk(BODY) + b"0\r\nx-trailer: 1\r\n\r\n"),
    ],
    ids=[
        "chunked", "in pieces of 7", "last byte alone", "cut in the last chunk", "100 first",
        "length", "length in two", "close", "CRLF", "comment", "trailer",
    ],
)  # fmt: skip
def test_a_good_answer_is_ok_however_it_is_framed(
    play: Callable[[Peer], None], lab: Callable[..., Lab]
) -> None:
    """Proxies re-frame bodies; the meaning must not change, nor the next request suffer."""
    with scripted(play) as port:
        one = lab(port)
        for _ in range(2):
            record = one.perform()
            assert (record.error_kind, record.error_detail) == (None, None)
            assert (record.events, record.completion_tokens) == (2, 2)
            assert record.finish_reason == "length"
            assert record.sent_ns is not None
            assert record.first_token_ns is not None
            assert record.sent_ns <= record.first_token_ns <= (record.last_token_ns or 0)
            assert (record.last_token_ns or 0) <= (record.end_ns or 0)


def test_a_connection_is_kept_and_a_stale_one_costs_no_error(lab: Callable[..., Lab]) -> None:
    """A server may close an idle connection just as we send: the request goes out once more."""

    def closes_unanswered(peer: Peer) -> None:
        peer.sock.close()

    with scripted(sends(GOOD), closes_unanswered, sends(GOOD)) as port:
        one = lab(port)
        assert one.perform().connect_us is not None
        record = one.perform()
        assert record.error_kind is None
        assert record.resent == 1
        again = one.perform()
        assert again.connect_us is None
        assert again.resent == 0


@pytest.mark.skipif(sys.platform != "linux", reason="kernel stamps are Linux's")
def test_arrival_is_the_kernels_stamp_not_the_moment_of_the_read(lab: Callable[..., Lab]) -> None:
    """A busy process reads late; what it reports must not be."""
    sent_ns: list[int] = []

    def play(peer: Peer) -> None:
        peer.send(CHUNKED)
        time.sleep(0.05)
        sent_ns.append(time.time_ns())
        peer.send(chunk(TOKEN))
        time.sleep(0.3)
        peer.send(*map(chunk, (TOKEN, FINISH, DONE)), LAST_CHUNK)

    with scripted(play) as port:
        one = lab(port)
        request = one.start()
        gevent.sleep(0.02)
        busy_until_s = time.monotonic() + 0.2
        while time.monotonic() < busy_until_s:
            time.sleep(0.01)  # holds the hub: gevent has not patched this process
        request.join()
        while one.client.undecoded:
            gevent.sleep(0.001)
    record = one.records[0]
    assert record.unstamped_reads == 0
    assert record.first_token_ns is not None
    assert abs(record.first_token_ns - sent_ns[0]) < 20_000_000
    assert int(record.read_lag_us[0]) > 50_000


def test_events_that_were_read_together_are_counted_and_bounded(lab: Callable[..., Lab]) -> None:
    """Only the last byte's time is known: the bound must reach back to the true sending."""
    sent_ns: list[int] = []

    def play(peer: Peer) -> None:
        peer.send(CHUNKED)
        for _ in range(3):
            time.sleep(0.05)
            sent_ns.append(time.time_ns())
            peer.send(chunk(TOKEN))
        time.sleep(0.1)
        peer.send(*map(chunk, (FINISH, DONE)), LAST_CHUNK)

    with scripted(play) as port:
        one = lab(port)
        request = one.start()
        gevent.sleep(0.02)
        time.sleep(0.2)  # holds the hub while three events come
        request.join()
        while one.client.undecoded:
            gevent.sleep(0.001)
    record = one.records[0]
    assert record.events == 3
    assert record.coalesced_events == len(record.late_us) >= 1
    assert record.first_token_ns is not None
    earliest_ns = record.first_token_ns - int(record.late_us[0]) * 1000
    assert earliest_ns <= sent_ns[0] + 1_000_000


FAULTS: dict[str, tuple[str, Callable[[Peer], None]]] = {
    "404": ("http_404", sends(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")),
    "500": ("http_500", sends(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")),
    "503": ("http_503", sends(b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
    "cut by FIN": ("disconnected", sends_and_closes(CHUNKED + chunk(TOKEN))),
    "cut in length": ("disconnected", sends_and_closes(LENGTH[:-20])),
    "malformed": ("malformed_event", sends(CHUNKED + chunk(TOKEN + b"data: {\n\n" + DONE) + LAST_CHUNK)),
    "error object": (
        "server_error_event",
        sends(CHUNKED + chunk(TOKEN + b'data: {"error": {"message": "x"}}\n\n' + DONE) + LAST_CHUNK),
    ),
    "no DONE": ("no_done", sends(CHUNKED + chunk(TOKEN + FINISH) + LAST_CHUNK)),
    "no finish": ("no_finish_reason", sends(CHUNKED + chunk(TOKEN + DONE) + LAST_CHUNK)),
    "empty": ("empty_output", sends(CHUNKED + chunk(FINISH + DONE) + LAST_CHUNK)),
    "content type": (
        "content_type", sends(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"),
    ),
    "gzip": (
        "content_encoding",
        sends(HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b"),
    ),
    "not HTTP": ("http_protocol", sends(b"SSH-2.0-OpenSSH\r\n\r\n")),
    "first byte": ("first_byte_timeout", lambda peer: peer.wait_for_end()),
    "RST": ("disconnected", lambda peer: (peer.send(CHUNKED + chunk(TOKEN)), peer.reset())[0]),
}  # fmt: skip


def stalls(peer: Peer) -> None:
    """Send two tokens, then nothing."""
    peer.send(CHUNKED + chunk(TOKEN), chunk(TOKEN))
    peer.wait_for_end()


def drips(peer: Peer) -> None:
    """Go on for ever, never slow enough for a stall."""
    peer.send(CHUNKED)
    while not peer.over.wait(0.05):
        peer.send(chunk(TOKEN))


FAULTS["stall"] = ("stall", stalls)
FAULTS["total"] = ("total_timeout", drips)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_kind_once_and_the_next_request_is_fine(
    name: str, lab: Callable[..., Lab]
) -> None:
    """A failure is a row of its own kind; the run goes on."""
    kind, play = FAULTS[name]
    with scripted(play, sends(GOOD)) as port:
        one = lab(port, SHORT)
        record = one.perform()
        assert (record.error_kind, record.ok) == (kind, False)
        assert kind in ERROR_KINDS or kind.startswith("http_")
        assert record.error_detail is not None
        assert one.perform().error_kind is None


def test_429_keeps_what_retry_after_says(lab: Callable[..., Lab]) -> None:
    """A rate limit is a finding, and when to come back is part of it."""
    answer = b'HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 29\r\n\r\n{"error":{"message":"slow"}}\n'
    with scripted(sends(answer)) as port:
        record = lab(port).perform()
    assert (record.error_kind, record.http_status) == ("http_429", 429)
    assert record.retry_after_s == 7.0
    assert record.error_detail == "slow"


def test_a_refused_connection_is_a_record_that_was_never_sent(lab: Callable[..., Lab]) -> None:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    record = lab(port).perform()
    assert (record.error_kind, record.sent_ns) == ("connect", None)


def test_a_name_that_is_none_is_a_connect_error(lab: Callable[..., Lab]) -> None:
    """DNS belongs to connecting."""
    assert lab(80, host="no-such-host.invalid").perform().error_kind == "connect"


def test_a_full_backlog_is_a_connect_timeout(lab: Callable[..., Lab]) -> None:
    """A server that does not accept must not hold a user for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)  # noqa: FBT003 - the signature of socket
            filler.connect_ex(listener.getsockname())
        gevent.sleep(0.1)
        record = lab(listener.getsockname()[1], SHORT).perform()
        for filler in fillers:
            filler.close()
    # Where the backlog took the connection after all, nobody answers on it.
    assert record.error_kind in {"connect_timeout", "first_byte_timeout"}


def test_a_killed_user_leaves_its_request_as_cancelled(lab: Callable[..., Lab]) -> None:
    """Requests in flight at the end are not lost: they are the slow ones."""
    with scripted(stalls) as port:
        one = lab(port)
        request = one.start()
        while not one.client.in_flight or not one.client._asks:
            gevent.sleep(0.01)
        gevent.sleep(0.1)
        request.kill()
        while one.client.undecoded:
            gevent.sleep(0.001)
    assert [record.error_kind for record in one.records] == ["cancelled"]
    assert one.records[0].events == 2


def test_cancel_all_ends_every_request_once(lab: Callable[..., Lab]) -> None:
    """Stop must not wait for a slow server."""
    with scripted(stalls) as port:
        one = lab(port)
        requests = [one.start() for _ in range(5)]
        gevent.sleep(0.2)
        one.client.cancel_all()
        gevent.joinall(requests, timeout=5)
        while one.client.undecoded:
            gevent.sleep(0.001)
    assert sorted(record.index for record in one.records) == list(range(5))
    assert {record.error_kind for record in one.records} == {"cancelled"}


def test_a_first_token_is_told_once_and_early(lab: Callable[..., Lab]) -> None:
    """Listeners want it when it comes, not when the stream ends."""
    told: list[tuple[int, int]] = []
    with scripted(stalls) as port:
        one = lab(port, SHORT)
        one.client.listen_first_token(lambda ask, at_ns: told.append((ask.index, at_ns)))
        request = one.start()
        gevent.sleep(0.2)
        assert [index for index, _ in told] == [0]
        request.join()
    assert len(told) == 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority of our own."""
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """A server's context with a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_tls_with_our_own_authority_has_kernel_stamps(
    authority: trustme.CA, lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """Ciphertext is read with recvmsg, so the stamps hold there too; records split anywhere."""
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    big = CHUNKED + chunk(TOKEN * 2000 + FINISH + DONE) + LAST_CHUNK
    with scripted(sends(big), sends(GOOD), context=server_context(authority, "127.0.0.1")) as port:
        one = lab(port, tls=TLS(ca_file=str(ca_file)))
        record = one.perform()
        assert (record.error_kind, record.events) == (None, 2000)
        assert record.unstamped_reads == 0 or sys.platform != "linux"
        again = one.perform()
        assert (again.error_kind, again.connect_us) == (None, None)


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"])
def test_an_untrusted_certificate_is_a_tls_error_unless_insecure_is_asked_for(
    name: str, authority: trustme.CA, lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """Verified by default: an unknown authority, and a known one for another host."""
    ca_file = None
    if name != "127.0.0.1":
        ca_file = str(tmp_path / "ca.pem")
        authority.cert_pem.write_to_path(ca_file)
    with scripted(sends(GOOD), context=server_context(authority, name)) as port:
        record = lab(port, tls=TLS(ca_file=ca_file)).perform()
        assert (record.error_kind, record.sent_ns) == ("tls", None)
        assert lab(port, tls=TLS(insecure=True)).perform().error_kind is None


def test_a_server_that_hangs_up_in_the_handshake_is_a_tls_error(lab: Callable[..., Lab]) -> None:
    """Plain HTTP behind an https URL is the usual case."""
    with scripted(sends(GOOD)) as port:
        record = lab(port, SHORT, TLS(insecure=True)).perform()
    assert record.error_kind in {"tls", "connect_timeout"}

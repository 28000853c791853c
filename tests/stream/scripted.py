"""A real server that plays a script: what to send on each request, cut as told, and how to end."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices": [{"delta": {"content": " a"}}]}\n\n'
FINISH = b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"

Play = Callable[["Peer"], None]


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


GOOD = CHUNKED + b"".join(map(chunk, (TOKEN, TOKEN, FINISH, USAGE, DONE))) + LAST_CHUNK


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, over: threading.Event) -> None:
        self.sock = sock
        self.over = over
        self._rest = b""

    def request(self) -> bytes | None:
        """Read one request whole; None where the client has closed."""
        data = self._rest
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self.sock.recv(65536)
        self._rest = body[length:]
        return head + b"\r\n\r\n" + body[:length]

    def send(self, *pieces: bytes) -> None:
        """Send each piece in a packet of its own."""
        for piece in pieces:
            self.sock.sendall(piece)

    def reset(self) -> None:
        """End with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_end(self) -> None:
        """Do nothing until the test is over."""
        self.over.wait()


@contextmanager
def scripted(*plays: Play, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve: the n-th request of all is answered by the n-th play, later ones by the last."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    lock = threading.Lock()
    left = list(plays)

    def serve(sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = context.wrap_socket(sock, server_side=True) if context else sock
            peer = Peer(wrapped, over)
            with wrapped:
                while peer.request() is not None:
                    with lock:
                        play = left.pop(0) if len(left) > 1 else left[0]
                    play(peer)
                    if wrapped.fileno() < 0:
                        return
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)

"""Open one connection to the target: DNS, TCP, TLS; what the reactor needs to read it.

In:  a Target.  Out: `Connection` with a non-blocking socket that stamps what it receives.
Not: waiting for responses (`reactor.py`).

TLS is read as ciphertext with recvmsg and decrypted through ssl.MemoryBIO, because ssl's own
sockets give no kernel stamps. Sockets are the plain ones, not gevent's: the reactor waits for
all of them at once. DNS goes through gevent's resolver, so that it does not hold the loop.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from typing import Any, Final

import gevent
import gevent.monkey
import gevent.socket

from kvswarm.stream.target import Target

RawSocket: Any = gevent.monkey.get_original("socket", "socket")

SO_TIMESTAMPNS: Final = getattr(socket, "SO_TIMESTAMPNS", 35)
"""Python 3.11 has no constant for it; 35 holds on x86, ARM, RISC-V and POWER."""
HAS_KERNEL_STAMPS: Final = sys.platform == "linux"
ANCILLARY_BYTES: Final = 64
READ_BYTES: Final = 16384
DNS_TTL_S: Final = 30.0


class ConnectError(Exception):
    """No connection. `kind` is a key of records.ERROR_KINDS."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Connection:
    """An open connection; `recvmsg` reads it with the stamp of the kernel."""

    __slots__ = ("closed", "fd", "recvmsg", "requests", "sock", "tls")

    def __init__(self, sock: Any, tls: Cipher | None = None) -> None:
        self.sock = sock
        self.fd: int = sock.fileno()
        self.tls = tls
        self.recvmsg: Any = sock.recvmsg
        self.requests = 0
        self.closed = False

    def send_all(self, data: bytes, timeout_s: float) -> None:
        """Hand all of `data` to the kernel, waiting where its buffer is full. Raises OSError."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                gevent.socket.wait_write(
                    self.fd, timeout=timeout_s, timeout_exc=TimeoutError("send timed out")
                )

    def close(self) -> None:
        """Close the socket; twice is once."""
        if not self.closed:
            self.closed = True
            self.sock.close()


class Cipher:
    """TLS over bytes: ciphertext in, plain text out, and the other way."""

    __slots__ = ("_incoming", "_object", "_outgoing")

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is done. Raises ssl.SSLError."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Give the plain text that is whole with these bytes. Raises ssl.SSLError."""
        if ciphertext:
            self._incoming.write(ciphertext)
        pieces = []
        try:
            while piece := self._object.read(65536):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            pass  # close_notify; the end of the stream follows
        return b"".join(pieces)

    def encrypt(self, plain: bytes) -> bytes:
        """Give the ciphertext to send."""
        self._object.write(plain)
        return self.pending()

    def feed(self, ciphertext: bytes) -> None:
        """Take bytes of the peer, in the handshake."""
        self._incoming.write(ciphertext)

    def pending(self) -> bytes:
        """Ciphertext that waits to be sent."""
        return self._outgoing.read()


class Connector:
    """Opens connections to one target. DNS answers are kept for DNS_TTL_S."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = target.tls.context() if target.tls is not None else None
        self._addresses: list[Any] = []
        self._addresses_until_s = 0.0

    def open(self, timeout_s: float) -> Connection:
        """Connect within `timeout_s`, DNS and TLS included. Raises ConnectError."""
        try:
            with gevent.Timeout(timeout_s, ConnectError("connect_timeout", self._late(timeout_s))):
                sock = self._connect_any()
                try:
                    tls = self._secure(sock, self._context) if self._context else None
                except BaseException:
                    sock.close()
                    raise
                return Connection(sock, tls)
        except ssl.SSLError as error:
            raise ConnectError("tls", str(error)) from error
        except OSError as error:
            raise ConnectError("connect", f"{self._target.place}: {error}") from error

    def _late(self, timeout_s: float) -> str:
        return f"{self._target.place}: no connection within {timeout_s:g} s"

    def _connect_any(self) -> Any:
        failure: OSError | None = None
        for family, kind, protocol, _, address in self._resolve():
            sock = RawSocket(family, kind, protocol)
            try:
                self._connect(sock, address)
            except OSError as error:
                sock.close()
                failure = error
                self._addresses_until_s = 0.0
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure or OSError(errno.EHOSTUNREACH, "the name has no address")

    def _resolve(self) -> list[Any]:
        now_s = gevent.get_hub().loop.now()
        if not self._addresses or now_s > self._addresses_until_s:
            self._addresses = gevent.socket.getaddrinfo(
                *self._target.address, type=socket.SOCK_STREAM
            )
            self._addresses_until_s = now_s + DNS_TTL_S
        return self._addresses

    @staticmethod
    def _connect(sock: Any, address: Any) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the signature of socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if HAS_KERNEL_STAMPS:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        code = sock.connect_ex(address)
        if code in {errno.EINPROGRESS, errno.EWOULDBLOCK}:
            gevent.socket.wait_write(sock.fileno())
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _secure(self, sock: Any, context: ssl.SSLContext) -> Cipher:
        cipher = Cipher(context, self._target.host)
        while True:
            done = cipher.handshake()
            if data := cipher.pending():
                Connection(sock).send_all(data, timeout_s=60.0)
            if done:
                return cipher
            gevent.socket.wait_read(sock.fileno())
            try:
                data = sock.recv(READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectError("tls", "the peer closed the connection in the TLS handshake")
            cipher.feed(data)

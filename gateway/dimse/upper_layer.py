"""Move PDUs over one connection: one thread, no polling, data fragments parsed in place (PS3.8 section 9).

Every wait is a `poll()` on the socket and an eventfd, with a deadline. P-DATA is read into one buffer that is
used again and again; fragments are handed on as memoryviews of it, valid until the next read.
"""

import contextlib
import mmap
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.dimse.pdu import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    UNRECOGNIZED_PDU,
    PduError,
)
from gateway.errors import PeerError

Buffer = bytes | bytearray | memoryview

_BUFFER = 1 << 20
_LONGEST = {
    ASSOCIATE_RQ: 1 << 19,  # 128 contexts of 38 syntaxes need 135 kB
    ASSOCIATE_AC: 1 << 19,
    ASSOCIATE_RJ: 4,
    RELEASE_RQ: 4,
    RELEASE_RP: 4,
    ABORT: 4,
}
_PDU_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")
_DATA_HEADER = struct.Struct(">BxIIBB")
_MOST_VECTORS = 512


class ConnectionLost(PeerError):
    """Report that the peer closed, reset or stalled the connection."""


class TimeIsUp(PeerError):
    """Report that the peer stayed silent longer than it may."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """Hold one presentation data value (PS3.8 Annex E); `data` is valid until the next read."""

    context: int
    command: bool
    last: bool
    data: memoryview


class Connection:
    """Read and write PDUs on a connected socket; not thread-safe but for `wake` and `stop`.

    `max_pdu` is the longest P-DATA body taken, in bytes; `timeout` in seconds bounds each PDU from its first
    byte to its last and each write.
    """

    def __init__(self, sock: socket.socket, *, max_pdu: int, timeout: float) -> None:
        self._sock = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._max_pdu = max_pdu
        self._timeout = timeout
        # Not a bytearray, all of which would be in memory: an idle association has touched a page or two
        self._buffer: mmap.mmap | bytearray = mmap.mmap(-1, max(_BUFFER, 2 * max_pdu))
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._open = True
        self._closing = threading.Lock()
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # not a TCP socket in a test
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def handshake(self, deadline: float) -> None:
        """Finish a TLS handshake by `deadline` (monotonic seconds); raises ConnectionLost or TimeIsUp."""
        while isinstance(self._sock, ssl.SSLSocket):
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                self._await(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._await(select.POLLOUT, deadline)
            except (ssl.SSLError, OSError) as error:
                reason = getattr(error, "reason", None) or error
                raise ConnectionLost(f"the TLS handshake failed: {reason}") from error
            else:
                return

    def wake(self) -> None:
        """Let the thread that sits in `wait` go on; safe from any thread and after `close`."""
        # Under the lock: once closed, the number may be that of another file, an instance's perhaps
        with self._closing:
            if self._open:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout: float) -> bool:
        """Wait until the peer sent something (then say so), `wake` is called or `timeout` seconds are over."""
        if self.buffered or (self._tls and self._sock.pending()):  # type: ignore[attr-defined]
            return True
        readable = False
        for descriptor, _ in self._poll.poll(max(0, timeout) * 1000):
            if descriptor == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            else:
                readable = True
        return readable

    def next_pdu(self, deadline: float, *, whole: bool = False) -> tuple[int, memoryview]:
        """Read a PDU: its type and its body, which is valid until the next read.

        The first byte has to come by `deadline` (monotonic seconds), the rest within the connection's
        timeout, or by `deadline` too if `whole`. Raises TimeIsUp, ConnectionLost, and PduError on a type or
        length that PS3.8 or our limits forbid.
        """
        begun = whole
        while True:
            have = self._end - self._start
            if have and not begun:
                begun, deadline = True, time.monotonic() + self._timeout
            needed = 6
            if have >= 6:
                kind, length = _PDU_HEADER.unpack_from(self._buffer, self._start)
                self._check(kind, length)
                needed = 6 + length
                if have >= needed:
                    body = self._view[self._start + 6 : self._start + needed]
                    self._start += needed
                    return kind, body
            self._make_room(needed)
            self._fill(deadline)

    def data(self, context: int) -> memoryview:
        """Take the whole PDUs in the buffer that hold one fragment of a data set each, not the last one's.

        The fragments come as one piece, moved together over their headers; it is valid until the next read.
        """
        at, begin, end = self._start, self._start, self._start
        while self._end - at >= _DATA_HEADER.size:
            kind, length, inner, identifier, header = _DATA_HEADER.unpack_from(self._buffer, at)
            following = at + 6 + length
            if following > self._end or (kind, identifier, header) != (P_DATA, context, 0):
                break
            if inner != length - 4 or not 6 <= length <= self._max_pdu:
                break
            size = length - 6
            if end == begin:
                begin = end = at + 12
            else:
                self._view[end : end + size] = self._view[at + 12 : following]
            end += size
            at = following
        self._start = at
        return self._view[begin:end]

    @property
    def buffered(self) -> bool:
        """Say whether a whole PDU is in the buffer, so that reading it leaves earlier fragments valid."""
        have = self._end - self._start
        if have < 6:
            return False
        return have >= 6 + int(_PDU_HEADER.unpack_from(self._buffer, self._start)[1])

    def send(self, pieces: Iterable[Buffer]) -> None:
        """Write pieces in order; raises ConnectionLost, or TimeIsUp when the peer takes nothing in time."""
        vectors = [memoryview(piece) for piece in pieces if len(piece)]
        if self._tls:
            vectors = [memoryview(b"".join(vectors))]
        first = 0
        while first < len(vectors):
            try:
                sent = (
                    self._sock.send(vectors[first])
                    if self._tls
                    else self._sock.sendmsg(vectors[first : first + _MOST_VECTORS])
                )
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._await(select.POLLOUT, time.monotonic() + self._timeout)
                continue
            except ssl.SSLWantReadError:
                self._await(select.POLLIN, time.monotonic() + self._timeout)
                continue
            except OSError as error:
                raise ConnectionLost(f"the connection broke while sending: {error.strerror}") from error
            while first < len(vectors) and sent >= len(vectors[first]):
                sent -= len(vectors[first])
                first += 1
            if sent:
                vectors[first] = vectors[first][sent:]

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        with self._closing:
            if not self._open:
                return
            self._open = False
            os.close(self._wake)
        self._start = self._end = 0  # what holds us may live until the next garbage collection; not the megabyte
        self._buffer = bytearray()
        self._view = memoryview(self._buffer)
        with contextlib.suppress(OSError):  # the peer may have been first
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def sever(self) -> None:
        """Break the connection, so that its thread ends; safe from any thread."""
        with contextlib.suppress(OSError):  # it may be closed this very moment
            self._sock.shutdown(socket.SHUT_RDWR)

    def drain(self, deadline: float) -> None:
        """Read and drop what still comes until the peer closes (PS3.8 Sta13), so that it sees our last PDU."""
        with contextlib.suppress(PeerError, OSError):
            if not self._tls:
                self._sock.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline:
                self._start = self._end = 0
                self._fill(deadline)

    def _check(self, kind: int, length: int) -> None:
        longest = self._max_pdu if kind == P_DATA else _LONGEST.get(kind)
        if longest is None:
            raise PduError(f"PDU type {kind:02X}H is not of PS3.8", UNRECOGNIZED_PDU)
        if length > longest:
            raise PduError(f"a PDU of type {kind:02X}H has {length} bytes, more than the {longest} allowed")

    def _make_room(self, needed: int) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._start < needed or self._end == len(self._buffer):
            have = self._end - self._start
            self._view[:have] = self._view[self._start : self._end]
            self._start, self._end = 0, have

    def _fill(self, deadline: float) -> None:
        while True:
            try:
                count = self._sock.recv_into(self._view[self._end :])
            except (BlockingIOError, ssl.SSLWantReadError):
                self._await(select.POLLIN, deadline)
                continue
            except ssl.SSLWantWriteError:
                self._await(select.POLLOUT, deadline)
                continue
            except OSError as error:
                raise ConnectionLost(f"the connection broke: {error.strerror}") from error
            if count == 0:
                raise ConnectionLost("the peer closed the connection")
            self._end += count
            if not self._tls:
                self._acknowledge()
            return

    def _acknowledge(self) -> None:
        """Have the kernel acknowledge at once: a sender with Nagle on waits 44 ms for a delayed ACK."""
        with contextlib.suppress(OSError):  # not a TCP socket in a test
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _await(self, event: int, deadline: float) -> None:
        """Wait for the socket alone; `wake` does not end this wait."""
        poll = select.poll()
        poll.register(self._sock, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeIsUp("the peer was silent for too long")


def fragments(body: memoryview) -> Iterator[Fragment]:
    """Take a P-DATA body apart (PS3.8 9.3.5.1 and Annex E.2); raises PduError."""
    offset, end = 0, len(body)
    while offset < end:
        if offset + 6 > end:
            raise PduError("a presentation data value is cut")
        length, context, header = _PDV_HEADER.unpack_from(body, offset)
        if length < 2 or offset + 4 + length > end:
            raise PduError("a presentation data value is longer than its PDU")
        yield Fragment(context, bool(header & 1), bool(header & 2), body[offset + 6 : offset + 4 + length])
        offset += 4 + length


def data_pdus(context: int, data: Buffer, max_pdu: int, *, command: bool, last: bool = True) -> Iterator[Buffer]:
    """Cut data into P-DATA PDUs of one fragment each; `max_pdu` 0 means that the peer sets no limit."""
    size = ((max_pdu or 131_072) - 6) & ~1
    total = len(data)
    if total <= size:
        yield _DATA_HEADER.pack(P_DATA, total + 6, total + 2, context, int(command) | (2 if last else 0))
        yield data
        return
    view = memoryview(data)
    for start in range(0, total, size):
        piece = view[start : start + size]
        flags = int(command) | (2 if last and start + size >= total else 0)
        yield _DATA_HEADER.pack(P_DATA, len(piece) + 6, len(piece) + 2, context, flags)
        yield piece

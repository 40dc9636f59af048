"""Answer each STOW-RS request as an archive would and keep nothing, a process for each connection.

How many instances came is counted in a file of 8-byte numbers, one per process, which `Counter` adds up.
"""

import itertools
import json
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_PIECE = 1 << 20
_SLOTS = 1 << 16
_META = 1_024  # bytes in which File Meta Information names class and instance
_CLASS, _INSTANCE = b"\x02\x00\x02\x00UI", b"\x02\x00\x03\x00UI"


class Counter:
    """Count instances in a file that several processes share."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8 * _SLOTS))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def add(self, slot: int, count: int) -> None:
        at = slot % _SLOTS * 8
        (before,) = struct.unpack_from("<Q", self._map, at)
        struct.pack_into("<Q", self._map, at, before + count)

    def total(self) -> int:
        return sum(struct.unpack(f"<{_SLOTS}Q", self._map))


class _Request:
    """Read one HTTP request from a connection; what came of the next is kept."""

    def __init__(self, sock: socket.socket, buffered: bytearray) -> None:
        self._sock = sock
        self._buffer = buffered
        head = self._until(b"\r\n\r\n").split(b"\r\n")
        self.method = head[0].split(b" ")[0]
        fields = (line.partition(b":") for line in head[1:])
        self.headers = {name.strip().lower(): value.strip() for name, _, value in fields}

    def body(self) -> Iterator[bytes]:
        if self.headers.get(b"expect", b"").lower() == b"100-continue":
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.headers.get(b"transfer-encoding", b"").lower() != b"chunked":
            yield from self._exactly(int(self.headers.get(b"content-length", b"0")))
            return
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            yield from self._exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer:
                self._receive(min(size, _PIECE))
            piece = bytes(self._buffer[:size])
            del self._buffer[: len(piece)]
            size -= len(piece)
            yield piece

    def _until(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            self._receive(_PIECE)
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return found

    def _receive(self, most: int) -> None:
        data = self._sock.recv(most)
        if not data:
            raise ConnectionError("closed")
        self._buffer += data


def instances(pieces: Iterator[bytes], boundary: bytes) -> Iterator[tuple[str, str]]:
    """Yield SOP Class and SOP Instance UID of each part of a multipart body."""
    delimiter = b"--" + boundary
    window = b""
    for piece in pieces:
        window += piece
        while (at := window.find(delimiter)) >= 0:
            if len(window) < at + len(delimiter) + _META and not window.endswith((b"--\r\n", b"--")):
                break
            meta = window[at : at + len(delimiter) + _META]
            window = window[at + len(delimiter) :]
            if _INSTANCE in meta:
                yield _uid(meta, _CLASS), _uid(meta, _INSTANCE)
        else:
            window = window[-len(delimiter) + 1 :]


def _uid(meta: bytes, tag: bytes) -> str:
    at = meta.index(tag) + len(tag)
    (length,) = struct.unpack_from("<H", meta, at)
    return meta[at + 2 : at + 2 + length].decode().rstrip("\0")


def _serve(sock: socket.socket, counter: Counter, slot: int) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffered = bytearray()
    while True:
        request = _Request(sock, buffered)
        stored = []
        if request.method == b"POST":
            boundary = request.headers[b"content-type"].split(b"boundary=")[1].split(b";")[0].strip(b'"')
            stored = list(instances(request.body(), boundary))
        items = [
            {"00081150": {"vr": "UI", "Value": [sop_class]}, "00081155": {"vr": "UI", "Value": [instance]}}
            for sop_class, instance in stored
        ]
        body = json.dumps({"00081199": {"vr": "SQ", "Value": items}}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: %d\r\n\r\n"
        counter.add(slot, len(stored))
        sock.sendall(head % len(body) + body)


def main(port: int, path: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    counter = Counter(path)
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    for slot in itertools.count():
        sock, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                _serve(sock, counter, slot)
            except ConnectionError:
                os._exit(0)
            finally:
                os._exit(1)
        sock.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

"""Write the bodies of requests to sockets: small pieces together, large files straight from the page cache."""

import errno
import os
import select
import ssl
from collections.abc import Callable, Iterable
from socket import socket

from gateway.dicomweb.stow import Body, Upload
from gateway.errors import SpoolBroken

_TOGETHER = 262_144  # bytes that are worth a call of their own
_SMALL = 65_536  # a file up to here is copied next to its neighbours: to send each alone costs more
_NO_WAY = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))


def write(sock: socket, stream: object) -> None:
    """Write the body of a request; each wait for the peer may last as long as the socket's time-out.

    Raises OSError when the peer does not take it, SpoolBroken when a file cannot be read.
    """
    if isinstance(stream, Body):
        _write_parts(sock, stream)
    elif isinstance(stream, Iterable):
        for piece in stream:
            _send(sock, piece)


def _write_parts(sock: socket, body: Body) -> None:
    progress = body.progress or _ignored
    straight = not isinstance(sock, ssl.SSLSocket)  # what is to be encrypted has to pass through here
    held = bytearray()
    for part in body.parts():
        if isinstance(part, bytes):
            held += part
            continue
        if straight and isinstance(part, Upload) and part.size > _SMALL:
            _send(sock, held)
            held.clear()
            _send_file(sock, part, progress)
            continue
        for chunk in part.chunks():
            held += chunk
            progress(len(chunk))
            if len(held) >= _TOGETHER:
                _send(sock, held)
                held.clear()
    _send(sock, held)


def _send(sock: socket, data: bytes | bytearray) -> None:
    """Send all of it; unlike `sendall` this may take longer than the time-out, as long as there is progress."""
    at = 0
    with memoryview(data) as view:
        while at < len(view):
            at += sock.send(view[at:])


def _send_file(sock: socket, upload: Upload, progress: Callable[[int], None]) -> None:
    """Have the kernel send a file: nothing of it is copied to here."""
    at = 0
    with upload.opened() as file:
        while at < upload.size:
            try:
                sent = os.sendfile(sock.fileno(), file.fileno(), file.start + at, min(upload.size - at, _TOGETHER))
            except BlockingIOError:
                _await_room(sock)
                continue
            except OSError as error:
                if error.errno == errno.EIO:
                    raise SpoolBroken(f"an instance cannot be read: {error.strerror}") from error
                if at or error.errno not in _NO_WAY:
                    raise
                _copy_file(sock, upload, progress)  # a file system that only reads
                return
            if not sent:
                raise SpoolBroken("an instance's file has not the length that it had")
            at += sent
            progress(sent)


def _copy_file(sock: socket, upload: Upload, progress: Callable[[int], None]) -> None:
    for chunk in upload.chunks():
        _send(sock, chunk)
        progress(len(chunk))


def _await_room(sock: socket) -> None:
    seconds = sock.gettimeout()
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(None if seconds is None else seconds * 1000):
        raise TimeoutError("the peer takes nothing")


def _ignored(_: int) -> None:
    """Take no note."""

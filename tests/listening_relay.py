"""A relay in front of an archive that hears each HTTP request: method, path and headers."""

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_HEAD = re.compile(rb"(GET|POST|DELETE) (\S+) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)+)\r\n")


@dataclass
class Relay:
    port: int = 0
    heard: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def ear(self) -> Callable[[bytes], None]:
        """Give what notes the requests of one connection."""
        tail = b""

        def hear(data: bytes) -> None:
            nonlocal tail
            tail += data
            end = 0
            for found in _HEAD.finditer(tail):
                lines = found[3].decode("latin-1").splitlines()
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                self.heard.append((found[1].decode(), found[2].decode(), headers))
                end = found.end()
            tail = tail[end:][-8192:]

        return hear

    def requests(self, method: str) -> list[dict[str, str]]:
        """Give the headers of each request with that method."""
        return [headers for sent, _, headers in self.heard if sent == method]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def relaying(port: int) -> Iterator[Relay]:
    """Relay to a port of this machine; for requests whose bodies hold nothing that looks like a request."""
    relay = Relay()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as archive:
                back = threading.Thread(target=_pump, args=(archive, self.request, lambda _: None))
                back.start()
                _pump(self.request, archive, relay.ear())
                back.join()

    with _Server(("127.0.0.1", 0), Handler) as server:
        relay.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield relay
        finally:
            server.shutdown()
            thread.join()


def _pump(source: socket.socket, target: socket.socket, hear: Callable[[bytes], None]) -> None:
    """Copy until the source ends, then end the target: HTTP/1.1 has no half-closed connections."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            hear(data)
            target.sendall(data)
    for side in (source, target):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)

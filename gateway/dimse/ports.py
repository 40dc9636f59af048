"""Take the ports on which peers call: one in the clear, one with TLS, or both side by side."""

import contextlib
import socket
from dataclasses import dataclass
from typing import Self

from gateway.config import Listen


@dataclass(frozen=True, slots=True)
class Ports:
    """Hold the listening sockets, which all processes of a gateway share; as a context manager, close them."""

    plain: socket.socket | None
    secured: socket.socket | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Give those that are there."""
        return tuple(sock for sock in (self.plain, self.secured) if sock is not None)

    @property
    def port(self) -> int:
        """Give the number of `listen.port`, whatever is spoken there."""
        return _number(self.sockets[0])

    @property
    def tls_port(self) -> int | None:
        """Give the number of the port with TLS."""
        return None if self.secured is None else _number(self.secured)

    def close(self) -> None:
        """Close them in this process; in others they stay open."""
        for sock in self.sockets:
            sock.close()

    def shut(self) -> None:
        """Let no connection in from now on, in no process."""
        for sock in self.sockets:
            with contextlib.suppress(OSError):  # it may never have been listening
                sock.shutdown(socket.SHUT_RDWR)


def open_ports(listen: Listen) -> Ports:
    """Take what the configuration asks for; raises OSError with the port. They open when somebody serves them."""
    if listen.tls is None:
        return Ports(_bind(listen.host, listen.port), None)
    if listen.tls_port is None:
        return Ports(None, _bind(listen.host, listen.port))
    plain = _bind(listen.host, listen.port)
    try:
        return Ports(plain, _bind(listen.host, listen.tls_port))
    except OSError:
        plain.close()
        raise


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)  # several processes may accept: the slower one must not wait
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{host}, port {port}: {error.strerror}") from error
    return listener


def _number(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])

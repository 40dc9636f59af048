"""Speak syslog: RFC 5424 messages over TLS (RFC 5425) or UDP (RFC 5426), as PS3.15 A.6 and A.7 use them."""

import select
import socket
import ssl
from typing import Protocol

from gateway.audit.messages import Event
from gateway.audit_options import SyslogServer

_PRIORITY = 10 * 8 + 5  # security and authorization, notice (PS3.15 A.6)
_MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"
_TIMEOUT = 10.0  # seconds to connect, and for each message
_LONGEST_DATAGRAM = 65_507


class Transport(Protocol):
    """Take messages to a server."""

    def send(self, message: bytes) -> None:
        """Send one message; raises OSError."""

    def close(self) -> None:
        """End the connection."""


def message(event: Event, xml: bytes) -> bytes:
    """Make an RFC 5424 message of an audit message, without a line end."""
    header = (
        f"<{_PRIORITY}>1 {event.at:%Y-%m-%dT%H:%M:%S.%f}Z {_field(event.source.host, 255)}"
        f" {_field(event.source.name, 48)} {event.source.process} {_MESSAGE_ID} - "
    )
    return header.encode("ascii") + _BOM + xml


def connect(server: SyslogServer) -> Transport:
    """Open the way to a server; raises OSError."""
    return _Tls(server) if server.transport == "tls" else _Udp(server)


class _Tls:
    """Send with octet counting over TLS (RFC 5425 4.3), to a server whose certificate and name are checked."""

    def __init__(self, server: SyslogServer) -> None:
        context = ssl.create_default_context(cafile=server.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if server.certificate is not None:
            context.load_cert_chain(server.certificate, server.key)
        plain = socket.create_connection((server.host, server.port), _TIMEOUT)
        try:
            self._sock = context.wrap_socket(plain, server_hostname=server.server_name or server.host)
        except BaseException:
            plain.close()
            raise

    def send(self, message: bytes) -> None:
        # The server never speaks: what can be read is its farewell, after which a write would be lost in silence
        while select.select([self._sock], [], [], 0)[0] or self._sock.pending():
            self._sock.settimeout(0)
            try:
                if not self._sock.recv(4096):
                    raise ConnectionResetError("the syslog server closed the connection")
            except ssl.SSLWantReadError:
                break  # a session ticket, no data
            finally:
                self._sock.settimeout(_TIMEOUT)
        self._sock.sendall(str(len(message)).encode("ascii") + b" " + message)

    def close(self) -> None:
        self._sock.close()


class _Udp:
    """Send one datagram per message (RFC 5426); what gets lost is lost."""

    def __init__(self, server: SyslogServer) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)[0]
        self._sock = socket.socket(family, kind, protocol)
        self._address = address

    def send(self, message: bytes) -> None:
        self._sock.sendto(message[:_LONGEST_DATAGRAM], self._address)

    def close(self) -> None:
        self._sock.close()


def _field(text: str, longest: int) -> str:
    kept = "".join(c for c in text if "!" <= c <= "~")[:longest]
    return kept or "-"

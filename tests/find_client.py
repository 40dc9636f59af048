"""A C-FIND peer that reads response by response, when it likes, over sockets of its own (PS3.7 9.1.2)."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from bench import wire

_C_CANCEL = 0x0FFF


@dataclass(frozen=True)
class Response:
    status: int
    comment: str
    identifier: bytes


class Query:
    """One query on an association of its own; `receive_buffer` keeps the kernel from reading ahead."""

    def __init__(
        self,
        port: int,
        identifier: bytes,
        *,
        calling: str = "PEER",
        model: str = wire.STUDY_ROOT_FIND,
        receive_buffer: int | None = None,
    ) -> None:
        self._connection = wire.associate("127.0.0.1", port, "GATEWAY", calling, [(model, wire.EXPLICIT_LE)])
        if receive_buffer:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        request = wire.command(wire.C_FIND, 1, model)
        self._connection.send(
            (
                wire.p_data(1, request, 16_384, is_command=True),
                wire.p_data(1, identifier, 16_384, is_command=False),
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def cancel(self) -> None:
        body = wire.element(0x0100, _C_CANCEL.to_bytes(2, "little")) + wire.element(0x0120, b"\x01\x00")
        body += wire.element(0x0800, b"\x01\x01")
        command = wire.element(0x0000, len(body).to_bytes(4, "little")) + body
        self._connection.send((wire.p_data(1, command, 16_384, is_command=True),))

    def responses(self) -> Iterator[Response]:
        """Yield the responses as they come, the final one last."""
        while True:
            values = wire.elements(self._message(is_command=True))
            status = int.from_bytes(values[0x0900], "little")
            is_pending = status in wire.PENDING
            identifier = self._message(is_command=False) if is_pending else b""
            yield Response(status, values.get(0x0902, b"").decode().strip(), identifier)
            if not is_pending:
                return

    def _message(self, *, is_command: bool) -> bytes:
        data = b""
        while True:
            kind, body = self._connection.pdu()
            assert kind == wire.P_DATA, f"a PDU of type {kind}"
            for fragment in wire.fragments(body):
                assert fragment.is_command == is_command
                data += bytes(fragment.data)
                if fragment.is_last:
                    return data

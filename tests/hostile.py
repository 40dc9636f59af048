"""What a peer of ill will, or a scanner, sends to the port."""

import random
import socket
import struct

from pynetdicom import AE

from gateway.dimse import commands, pdu
from gateway.dimse.pdu import AssociateRequest, ProposedContext, UserInformation, encode_request

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"


def request(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "called": "GATEWAY",
        "calling": "HOSTILE",
        "protocol_version": 1,
        "application_context": pdu.APPLICATION_CONTEXT,
        "contexts": (
            ProposedContext(1, VERIFICATION, (IMPLICIT,)),
            ProposedContext(3, CT, (IMPLICIT,)),
        ),
        "user": UserInformation(16_384, "1.2.3", "HOSTILE"),
    }
    return encode_request(AssociateRequest(**{**fields, **changes}))  # type: ignore[arg-type]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5)


def associated(port: int) -> socket.socket:
    sock = connect(port)
    sock.sendall(request())
    answer = receive(sock)
    assert answer[0] == pdu.ASSOCIATE_AC
    return sock


def receive(sock: socket.socket) -> bytes:
    """Read one PDU, empty when the connection ends."""
    sock.settimeout(6)
    data = b""
    try:
        while len(data) < 6 or len(data) < 6 + struct.unpack(">I", data[2:6])[0]:
            more = sock.recv(65_536)
            if not more:
                return data
            data += more
    except ConnectionResetError:
        return b""
    return data


def echoes(port: int) -> bool:
    entity = AE(ae_title="FRIEND")
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", port, ae_title="GATEWAY")
    if not association.is_established:
        return False
    status = association.send_c_echo().Status
    association.release()
    return bool(status == 0)


OPENINGS = {
    "random": random.Random(5).randbytes(4000),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100f8010000f40303") + bytes(240),
    "huge length": struct.pack(">BxI", 1, 0xFFFFFFFF),
    "unknown type": struct.pack(">BxI", 9, 4) + bytes(4),
    "data first": struct.pack(">BxI", 4, 6) + bytes(6),
    "release first": pdu.RELEASE_REQUEST,
    "short request": struct.pack(">BxI", 1, 10) + bytes(10),
    "even context": request(contexts=(ProposedContext(2, VERIFICATION, (IMPLICIT,)),)),
    "repeated context": request(contexts=(ProposedContext(1, VERIFICATION, (IMPLICIT,)),) * 2),
}


MESSAGES = {
    "unknown context": struct.pack(">BxIIBB", 4, 8, 4, 99, 3) + b"xx",
    "cut fragment": struct.pack(">BxIIBB", 4, 8, 400, 1, 3) + b"xx",
    "random command": struct.pack(">BxIIBB", 4, 106, 102, 1, 3) + random.Random(1).randbytes(100),
    "data before command": struct.pack(">BxIIBB", 4, 8, 4, 1, 2) + b"xx",
    "associate again": request(),
    "too long": struct.pack(">BxI", 4, 200_000),
    "endless command": (struct.pack(">BxIIBB", 4, 60_006, 60_002, 1, 1) + bytes(60_000)) * 2,
    "response": struct.pack(">BxIIBB", 4, 6 + 66, 68 - 0, 1, 3) + bytes(66),
}


def fragment(context: int, data: bytes, *, command: bool, last: bool = True) -> bytes:
    """Encode a presentation data value."""
    return struct.pack(">IBB", len(data) + 2, context, command | last << 1) + data


def p_data(*fragments: bytes) -> bytes:
    """Encode one P-DATA-TF PDU."""
    body = b"".join(fragments)
    return struct.pack(">BxI", pdu.P_DATA, len(body)) + body


def store_request(instance: str = "1.2.3") -> bytes:
    """Encode the command set of a C-STORE request."""
    return commands.encode(
        {
            "AffectedSOPClassUID": CT,
            "CommandField": commands.C_STORE_RQ,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": commands.DATA_SET_PRESENT,
            "AffectedSOPInstanceUID": instance,
        }
    )


HALF_A_STORE = p_data(fragment(3, store_request(), command=True)) + p_data(
    fragment(3, bytes(10_000), command=False, last=False)
)


def data_set(study: str) -> bytes:
    """Encode a data set in Implicit VR Little Endian that goes with `store_request`."""
    values = {0x00080016: CT, 0x00080018: "1.2.3", 0x00100020: "", 0x0020000D: study, 0x0020000E: "1.2.5"}
    return b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) + len(value) % 2)
        + value.encode().ljust(len(value) + len(value) % 2, b"\0")
        for tag, value in values.items()
    )


STORES = {
    "half": HALF_A_STORE,
    "whole, then nonsense in the same PDU": p_data(
        fragment(3, store_request(), command=True),
        fragment(3, bytes(10_000), command=False),
        fragment(99, b"xx", command=True),
    ),
    "two in one PDU": p_data(
        *(
            fragment(3, data, command=command)
            for _ in range(2)
            for data, command in ((store_request(), True), (bytes(1000), False))
        )
    ),
    "command only": p_data(fragment(3, store_request(), command=True)),
    "odd UIDs": p_data(fragment(3, store_request("../../etc/passwd\n"), command=True))
    + p_data(fragment(3, bytes(100), command=False)),
    "odd UIDs in the data set": b"".join(
        p_data(fragment(3, store_request(), command=True), fragment(3, data_set(study), command=False))
        for study in ("1.2/../../3", "..", "1.2%2F3", "1.2 3", "1.2\r\n3", "x")
    ),
    "long UIDs": p_data(fragment(3, store_request("1." * 30_000), command=True))
    + p_data(fragment(3, bytes(100), command=False)),
    "empty": p_data(fragment(3, store_request(), command=True)) + p_data(fragment(3, b"", command=False)),
}
"""Instances that nobody may ever acknowledge."""

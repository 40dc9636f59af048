"""What is negotiated, byte by byte: requests that no library makes, and the answers taken apart (PS3.8 9.3)."""

import socket
import struct
from collections.abc import Iterator

import hostile
import pytest
from hostile import CT, IMPLICIT, VERIFICATION
from pynetdicom import ALL_TRANSFER_SYNTAXES

from gateway.app import running
from gateway.config import parse
from gateway.dimse import commands, pdu
from gateway.dimse.pdu import ProposedContext
from gateway.translate.part10 import IMPLEMENTATION_CLASS_UID

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
EXPLICIT = "1.2.840.10008.1.2.1"
USER = 0x50

Items = list[tuple[int, bytes]]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    sections = {
        "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
        "unknown_peers": "accept",
        "spool": {"folder": str(tmp_path_factory.mktemp("gateway")), "high_water": 1.0},
    }
    with running(parse(sections, "test")) as gateway:
        yield gateway.port


def contexts(*proposed: tuple[str, tuple[str, ...]]) -> tuple[ProposedContext, ...]:
    return tuple(ProposedContext(2 * at + 1, uid, syntaxes) for at, (uid, syntaxes) in enumerate(proposed))


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def of_class(uid: str, value: bytes) -> bytes:
    return struct.pack(">H", len(uid)) + uid.encode() + value


def items(data: bytes) -> Items:
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from(">BxH", data, at)
        found.append((kind, data[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def with_user_items(request: bytes, *added: bytes) -> bytes:
    """Add sub-items to the user information, which stands last in the request."""
    at = request.rindex(struct.pack(">BxH", 0x51, 4)) - 4
    user = request[at + 4 :] + b"".join(added)
    body = request[6:at] + item(USER, user)
    return request[:2] + struct.pack(">I", len(body)) + body


def answered(port: int, request: bytes) -> tuple[socket.socket, bytes]:
    sock = hostile.connect(port)
    sock.sendall(request)
    return sock, hostile.receive(sock)


def accepted(port: int, request: bytes) -> tuple[Items, Items]:
    """Give the items of the acceptance and those of its user information."""
    sock, answer = answered(port, request)
    sock.close()
    assert answer[0] == pdu.ASSOCIATE_AC
    found = items(answer[74:])
    (user,) = [value for kind, value in found if kind == USER]
    return found, items(user)


def results(found: Items) -> list[tuple[int, int]]:
    return [(value[0], value[2]) for kind, value in found if kind == 0x21]


def echo(identifier: int) -> bytes:
    return commands.encode(
        {
            "AffectedSOPClassUID": VERIFICATION,
            "CommandField": commands.C_ECHO_RQ,
            "MessageID": identifier,
            "CommandDataSetType": commands.DATA_SET_ABSENT,
        }
    )


def test_echoes_are_answered_in_each_of_128_contexts_with_38_syntaxes(port: int) -> None:
    syntaxes = (*(f"1.2.3.{number}" for number in range(37)), IMPLICIT)
    sock, answer = answered(port, hostile.request(contexts=contexts(*[(VERIFICATION, syntaxes)] * 128)))
    with sock:
        assert results(items(answer[74:])) == [(2 * at + 1, pdu.ACCEPTED) for at in range(128)]
        for at in range(256):
            context = 2 * (at % 128) + 1
            sock.sendall(hostile.p_data(hostile.fragment(context, echo(at), command=True)))
            response = hostile.receive(sock)
            command = commands.decode(response[12:])
            assert (response[10], command["Status"], command["MessageIDBeingRespondedTo"]) == (context, 0, at)


@pytest.mark.parametrize(("version", "answer"), [(0, (3, 1, 2, 2)), (2, (3, 1, 2, 2)), (1, (2,)), (0xFFFF, (2,))])
def test_of_the_protocol_version_the_first_bit_counts(port: int, version: int, answer: tuple[int, ...]) -> None:
    request = bytearray(hostile.request())
    request[6:8] = version.to_bytes(2, "big")
    sock, received = answered(port, bytes(request))
    sock.close()
    assert (received[0], *received[7:10])[: len(answer)] == answer


def test_padding_of_titles_does_not_count_and_bytes_11_to_74_come_back_as_they_were(port: int) -> None:
    request = bytearray(hostile.request())
    request[10:74] = b"  GATEWAY       " + b" X Y            " + bytes(range(32))
    sock, answer = answered(port, bytes(request))
    sock.close()
    assert answer[0] == pdu.ASSOCIATE_AC
    assert answer[10:74] == request[10:74]
    assert answer[7] & 1


def test_an_acceptance_has_one_application_context_and_our_own_implementation(port: int) -> None:
    found, user = accepted(port, hostile.request())
    kinds = [kind for kind, _ in found]
    assert (kinds.count(0x10), kinds.count(USER)) == (1, 1)
    assert [kind for kind, _ in user] == [0x51, 0x52, 0x55]
    values = dict(user)
    assert values[0x52].decode() == IMPLEMENTATION_CLASS_UID
    assert 1 <= len(values[0x55]) <= 16


def test_each_context_has_one_result_and_what_is_not_offered_costs_nothing_else(port: int) -> None:
    proposed = contexts(
        (VERIFICATION, (IMPLICIT,)),
        ("1.2.840.10008.5.1.4.31", (IMPLICIT,)),
        (VERIFICATION, ("1.2.840.10008.1.2.4.50",)),
        (FIND, ("1.2.840.10008.1.2.4.50",)),
        (CT, ()),
        (FIND, (IMPLICIT, EXPLICIT)),
    )
    found, _ = accepted(port, hostile.request(contexts=proposed))
    assert results(found) == [(1, 0), (3, 3), (5, 4), (7, 4), (9, 4), (11, 0)]


def test_storage_is_accepted_in_every_syntax_known_or_not(port: int) -> None:
    syntaxes = [*map(str, ALL_TRANSFER_SYNTAXES), "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.110", "1.2.3.4"]
    found, _ = accepted(port, hostile.request(contexts=contexts(*((CT, (uid,)) for uid in syntaxes))))
    assert results(found) == [(2 * at + 1, 0) for at in range(len(syntaxes))]
    assert [items(value[4:]) for kind, value in found if kind == 0x21] == [[(0x40, s.encode())] for s in syntaxes]


@pytest.mark.parametrize(
    "sub_item",
    [
        *(item(0x58, bytes((kind, 1)) + b"\0\4user\0\4pass") for kind in (1, 2, 3, 4, 5)),
        item(0x57, of_class(CT, struct.pack(">H", 0))),
        item(0x5F, b"of a later edition"),
        item(0x53, struct.pack(">HH", 5, 5)),
        item(0x53, struct.pack(">HH", 0, 0)),
    ],
    ids=["user", "user and passcode", "kerberos", "saml", "jwt", "common", "unknown", "asynchronous", "unlimited"],
)
def test_what_is_not_used_is_passed_over_and_never_promised(port: int, sub_item: bytes) -> None:
    _, user = accepted(port, with_user_items(hostile.request(), sub_item))
    values = dict(user)
    assert values.keys() <= {0x51, 0x52, 0x53, 0x55}
    assert values.get(0x53, struct.pack(">HH", 1, 1)) == struct.pack(">HH", 1, 1)


@pytest.mark.parametrize(
    ("uid", "asked", "granted"),
    [
        (CT, (0, 1), [(0, 1)]),
        (CT, (1, 1), [(1, 1)]),
        (CT, (1, 0), [(1, 0)]),
        (COMMITMENT, (1, 1), [(1, 0)]),
        (FIND, (1, 1), []),
        ("1.2.840.10008.5.1.4.1.1.4", (0, 1), []),  # a class without a context
    ],
)
def test_a_role_is_answered_where_it_was_proposed_and_never_with_more(
    port: int, uid: str, asked: tuple[int, int], granted: list[tuple[int, int]]
) -> None:
    proposed = contexts((CT, (EXPLICIT,)), (FIND, (EXPLICIT,)), (COMMITMENT, (EXPLICIT,)))
    request = with_user_items(hostile.request(contexts=proposed), item(0x54, of_class(uid, bytes(asked))))
    _, user = accepted(port, request)
    assert [value for kind, value in user if kind == 0x54] == [of_class(uid, bytes(roles)) for roles in granted]


def test_a_private_class_for_shutting_down_has_no_effect(port: int) -> None:
    shutdown = "1.2.276.0.7230010.3.4.1915765545.18030.917282194.0"
    found, _ = accepted(port, hostile.request(contexts=contexts((shutdown, (IMPLICIT,)))))
    assert results(found) == [(1, 3)]
    assert hostile.echoes(port)


def test_a_release_in_the_midst_of_a_query_is_answered(port: int) -> None:
    sock, _ = answered(port, hostile.request(contexts=contexts((FIND, (IMPLICIT,)))))
    command = {
        "AffectedSOPClassUID": FIND,
        "CommandField": commands.C_FIND_RQ,
        "MessageID": 1,
        "Priority": 0,
        "CommandDataSetType": commands.DATA_SET_PRESENT,
    }
    keys = struct.pack("<HHI", 8, 0x52, 6) + b"STUDY " + struct.pack("<HHI", 0x20, 0xD, 0)
    request = hostile.fragment(1, commands.encode(command), command=True), hostile.fragment(1, keys, command=False)
    with sock:
        sock.sendall(hostile.p_data(*request) + pdu.RELEASE_REQUEST)
        answers = [hostile.receive(sock)]
        while answers[-1] and answers[-1][0] == pdu.P_DATA:
            answers.append(hostile.receive(sock))
    assert answers[-1] == pdu.RELEASE_RESPONSE

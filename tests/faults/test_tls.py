"""TLS on the DIMSE side: who is let in, who is not, and that those who are not harm nobody (PS3.15 B.12)."""

import hashlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dcmtk
import pytest
import trustme
from processes import await_true

from gateway.admin.advice import advice
from gateway.app import Gateway, running
from gateway.config import ServerTls, parse
from gateway.dimse import pdu
from gateway.dimse.pdu import AssociateRequest, ProposedContext, UserInformation, encode_request
from gateway.dimse.tls import server_context
from gateway.recent import Recent, Refusal

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
IN_TIME = 5.0  # the gateway below gives a caller 1.5 s


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


@dataclass(frozen=True)
class Office:
    """Certificates of the hospital's authority and of another, below `folder`."""

    folder: Path
    ours: trustme.CA
    others: trustme.CA

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str, *, by: trustme.CA | None = None, expired: bool = False) -> Identity:
        day = timedelta(days=1)
        now = datetime.now(UTC)
        until = {"not_before": now - 3 * day, "not_after": now - day} if expired else {}
        leaf = (by or self.ours).issue_cert(name, "127.0.0.1", common_name=f"{name}-cn", **until)
        identity = Identity(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        identity.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(identity.key)
        return identity


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    made = Office(tmp_path_factory.mktemp("office"), trustme.CA(), trustme.CA())
    made.ours.cert_pem.write_to_path(made.ca)
    return made


@pytest.fixture(scope="module")
def gateway(office: Office, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    server, by_print = office.issue("server"), office.issue("by-print")
    config = {
        "listen": {
            "host": "127.0.0.1",
            "port": 0,
            "tls": {"certificate": str(server.certificate), "key": str(server.key), "ca": str(office.ca)},
            "tls_port": 0,
            "grace": 1,
            "negotiation_timeout": 1.5,
            "max_associations": 40,
            "max_associations_per_peer": 20,
        },
        "peers": {
            "ANY": {},
            "BY_NAME": {"certificates": ["CT01"]},
            "BY_CN": {"certificates": ["ct01-cn"]},
            "BY_PRINT": {"certificates": [f"SHA256:{by_print.fingerprint}"]},
            "NEAR": {"addresses": ["192.0.2.7", "127.0.0.0/8"]},
            "FAR": {"addresses": ["192.0.2.0/24", "2001:db8::/32"]},
        },
        "archives": {"main": {"url": "http://127.0.0.1:9/v2"}},
        "ae_titles": {"GATEWAY": {"archive": "main"}},
        "spool": {"folder": str(tmp_path_factory.mktemp("spool")), "high_water": 1.0},
    }
    with running(parse(config, "test")) as running_gateway:
        yield running_gateway


@pytest.fixture(scope="module")
def ct01(office: Office) -> Identity:
    return office.issue("ct01")


def tls_port(gateway: Gateway) -> int:
    assert gateway.tls_port is not None
    return gateway.tls_port


def client(office: Office, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=office.ca)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def ask(port: int, context: ssl.SSLContext | None = None, calling: str = "ANY") -> bytes:
    """Ask for an association and give the answer: a PDU, or nothing when the connection ends before it."""
    user = UserInformation(16_384, "1.2.3", "TEST")
    contexts = (ProposedContext(1, VERIFICATION, (IMPLICIT,)),)
    request = encode_request(AssociateRequest("GATEWAY", calling, 1, pdu.APPLICATION_CONTEXT, contexts, user))
    with socket.create_connection(("127.0.0.1", port), IN_TIME) as plain:
        sock = context.wrap_socket(plain, server_hostname="127.0.0.1") if context is not None else plain
        with sock:
            sock.sendall(request)
            return sock.recv(4096)


def let_in(port: int, context: ssl.SSLContext | None = None, calling: str = "ANY") -> bool:
    answer = ask(port, context, calling)
    assert answer, "the connection ended without an answer"
    assert answer[0] in (pdu.ASSOCIATE_AC, pdu.ASSOCIATE_RJ)
    return answer[0] == pdu.ASSOCIATE_AC


def is_cut(port: int, context: ssl.SSLContext | None = None) -> bool:
    """Say whether the connection ends without a PDU, with an alert perhaps."""
    try:
        answer = ask(port, context)
    except (ssl.SSLError, ConnectionError):  # in TLS 1.3 the caller hears of it when it reads
        return True
    return not answer or answer[0] == 21


def hello(version: int, *ciphers: int) -> bytes:
    """Make a ClientHello by hand, for what no library offers any more."""
    suites = b"".join(struct.pack(">H", cipher) for cipher in ciphers)
    groups = bytes.fromhex("000a00080006001d00170018")
    points = bytes.fromhex("000b00020100")
    algorithms = bytes.fromhex("000d00120010040308040401050308050501020302010000"[: 2 * 22])
    extensions = groups + points + algorithms
    body = struct.pack(">H", version) + bytes(32) + b"\0"
    body += struct.pack(">H", len(suites)) + suites + b"\1\0" + struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    return struct.pack(">BHH", 22, 0x0301, len(message)) + message


def answer_to(port: int, opening: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), IN_TIME) as sock:
        sock.sendall(opening)
        return sock.recv(4096)


def test_plain_and_tls_are_served_side_by_side(gateway: Gateway, office: Office, ct01: Identity) -> None:
    assert let_in(gateway.port)
    assert let_in(tls_port(gateway), client(office, ct01))


def test_dcmtk_echoes_by_tls(gateway: Gateway, office: Office, ct01: Identity) -> None:
    result = dcmtk.run(
        *("echoscu", "-aet", "BY_NAME", "-aec", "GATEWAY"),
        *("+tls", ct01.key, ct01.certificate, "+cf", office.ca, "127.0.0.1", str(tls_port(gateway))),
    )
    assert (result.returncode, result.status) == (0, 0), result.output[-2000:]


def test_a_title_bound_to_a_certificate_is_taken_with_that_certificate_alone(
    gateway: Gateway, office: Office, ct01: Identity
) -> None:
    other, by_print = office.issue("other"), Identity(office.folder / "by-print.pem", office.folder / "by-print.key")
    secured = tls_port(gateway)
    assert let_in(secured, client(office, ct01), "BY_NAME")
    assert let_in(secured, client(office, ct01), "BY_CN")
    assert let_in(secured, client(office, by_print), "BY_PRINT")
    assert not let_in(secured, client(office, other), "BY_NAME")
    assert not let_in(secured, client(office, other), "BY_CN")
    assert not let_in(secured, client(office, ct01), "BY_PRINT")
    assert not let_in(gateway.port, None, "BY_NAME")


def test_a_title_bound_to_networks_is_taken_from_these_alone(gateway: Gateway) -> None:
    assert let_in(gateway.port, None, "NEAR")
    assert ask(gateway.port, None, "FAR")[6:] == bytes((0, 1, 1, 3))


@pytest.mark.parametrize("kind", ["none", "other authority", "expired"])
def test_a_caller_without_a_good_certificate_gets_no_association(gateway: Gateway, office: Office, kind: str) -> None:
    identities = {
        "none": None,
        "other authority": office.issue("stranger", by=office.others),
        "expired": office.issue("late", expired=True),
    }
    begun = time.monotonic()
    assert is_cut(tls_port(gateway), client(office, identities[kind]))
    assert time.monotonic() - begun < IN_TIME
    assert let_in(gateway.port)


@pytest.mark.parametrize("port", ["listen.tls_port", "listen.port"])
def test_who_fails_to_speak_what_a_port_speaks_is_among_the_refused_callers(
    gateway: Gateway, office: Office, port: str
) -> None:
    context = client(office) if port == "listen.tls_port" else None
    if context is not None:
        assert is_cut(tls_port(gateway), context)  # no certificate
    else:
        assert answer_to(gateway.port, hello(0x0303, 0xC030))  # TLS where it is not spoken
    words = "the TLS handshake failed" if context is not None else "PDU"
    with Recent(gateway.config.spool.folder / "recent.db") as recent:

        def known() -> list[Refusal]:
            return [one for one in recent.refusals() if not one.called and words in one.reason]

        await_true(lambda: bool(known()), what="the refused caller")
        assert known()[0].address == "127.0.0.1"
        assert advice(known()[0], gateway.config) == ""


OBSOLETE = {
    "TLS 1.1": hello(0x0302, 0xC014, 0xC013, 0x002F),
    "TLS 1.0": hello(0x0301, 0xC014, 0xC013, 0x002F),
    "SSL 3": hello(0x0300, 0x002F),
    "NULL": hello(0x0303, 0x003B, 0x0002, 0xC010),
    "RC4": hello(0x0303, 0xC011, 0x0005),
    "3DES": hello(0x0303, 0xC012, 0x000A),
    "static RSA": hello(0x0303, 0x009C, 0x009D, 0x003C, 0x002F),
    "CBC": hello(0x0303, 0xC027, 0xC023, 0xC013, 0xC009),
    "anonymous": hello(0x0303, 0x00A6, 0xC018),
}


@pytest.mark.parametrize("name", OBSOLETE)
def test_what_bcp_195_forbids_is_refused_with_an_alert(gateway: Gateway, name: str) -> None:
    answer = answer_to(tls_port(gateway), OBSOLETE[name])
    assert (answer[0], answer[5]) == (21, 2), answer.hex()  # a fatal alert
    assert answer[6] in (40, 70)  # handshake_failure, protocol_version
    assert let_in(gateway.port)


def test_the_hand_made_hello_is_taken_with_a_suite_of_bcp_195(gateway: Gateway) -> None:
    answer = answer_to(tls_port(gateway), hello(0x0303, 0xC02F, 0xC02B))
    assert (answer[0], answer[5]) == (22, 2), answer.hex()  # a ServerHello: the refusals above are for what they say


@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-AES256-GCM-SHA384",
    ],
)
def test_each_suite_of_bcp_195_for_rsa_is_agreed_on(suite: str, office: Office) -> None:
    leaf = office.ours.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
    pem = office.folder / "rsa.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(pem)
    theirs = ssl.create_default_context(cafile=office.ca)
    theirs.maximum_version = ssl.TLSVersion.TLSv1_2
    theirs.set_ciphers(suite)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server_context(ServerTls(certificate=pem, key=pem)).wrap_bio(to_server, to_client, server_side=True)
    peer = theirs.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(3):
        for side in (peer, ours):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert (peer.cipher() or ("none",))[0] == suite


def test_openssl_with_tls_1_1_gets_no_further(gateway: Gateway) -> None:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.tls_port}", "-tls1_1", "-cipher", "ALL@SECLEVEL=0"],
        input=b"",
        capture_output=True,
        timeout=IN_TIME * 2,
        check=False,
    )
    assert done.returncode != 0
    assert b"protocol version" in done.stdout + done.stderr


def test_plain_dicom_on_the_tls_port_is_cut_off(gateway: Gateway, office: Office, ct01: Identity) -> None:
    begun = time.monotonic()
    assert is_cut(tls_port(gateway))
    assert time.monotonic() - begun < IN_TIME
    assert let_in(tls_port(gateway), client(office, ct01))


def test_tls_on_the_plain_port_is_cut_off(gateway: Gateway, office: Office) -> None:
    assert is_cut(gateway.port, client(office))
    assert let_in(gateway.port)


def test_silent_handshakes_are_cut_in_time_while_others_are_served(
    gateway: Gateway, office: Office, ct01: Identity
) -> None:
    begun = time.monotonic()
    silent = [socket.create_connection(("127.0.0.1", tls_port(gateway)), IN_TIME) for _ in range(5)]
    halves = [socket.create_connection(("127.0.0.1", tls_port(gateway)), IN_TIME) for _ in range(4)]
    for sock in halves:
        sock.sendall(OBSOLETE["CBC"][:30])
    assert let_in(tls_port(gateway), client(office, ct01))
    assert time.monotonic() - begun < 1.5  # they are all still there
    for sock in silent + halves:
        assert sock.recv(1) == b""
        sock.close()
    assert time.monotonic() - begun < IN_TIME


def test_one_address_that_only_connects_does_not_take_the_room_of_all(gateway: Gateway) -> None:
    silent = [socket.create_connection(("127.0.0.1", gateway.port), IN_TIME) for _ in range(40)]
    silent[-1].settimeout(1)  # less than the gateway's patience
    assert silent[-1].recv(1) == b""
    with socket.create_connection(("127.0.0.1", gateway.port), IN_TIME, source_address=("127.0.0.9", 0)) as sock:
        sock.sendall(OBSOLETE["CBC"])  # whatever it says, it is answered: with an abort
        assert sock.recv(16)[:1] == bytes((pdu.ABORT,))
    for sock in silent:
        sock.close()
    await_true(lambda: not is_cut(gateway.port), IN_TIME)


def test_a_renewed_certificate_is_used_at_once_and_a_broken_one_never(
    gateway: Gateway, office: Office, ct01: Identity
) -> None:
    def serial() -> object:
        with socket.create_connection(("127.0.0.1", tls_port(gateway)), IN_TIME) as plain:
            with client(office, ct01).wrap_socket(plain, server_hostname="127.0.0.1") as sock:
                return (sock.getpeercert() or {})["serialNumber"]

    before = serial()
    held = socket.create_connection(("127.0.0.1", tls_port(gateway)), IN_TIME)  # a handshake that is under way
    renewed = office.issue("server-2")
    server = Identity(office.folder / "server.pem", office.folder / "server.key")
    renewed.certificate.replace(server.certificate)  # key still the old one: they do not fit
    assert serial() == before
    renewed.key.replace(server.key)
    after = serial()
    assert after != before
    server.certificate.write_text("not a certificate")
    assert serial() == after
    held.close()


def test_handshakes_at_once_do_not_wait_for_each_other(gateway: Gateway, office: Office, ct01: Identity) -> None:
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(let_in(tls_port(gateway), client(office, ct01))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(IN_TIME)
    assert results == [True] * 8

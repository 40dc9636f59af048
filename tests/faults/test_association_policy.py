"""What a peer may not do, or be called, is refused in the standard's own words and costs it nothing else."""

import io
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
from embedded_archive import instance
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet  # type: ignore[attr-defined]

from gateway.app import Gateway, running
from gateway.config import parse
from gateway.dimse.negotiation import CALLED_TITLE_UNKNOWN, CALLING_TITLE_UNKNOWN


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    sections = {
        "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
        "unknown_peers": "accept",
        "peers": {"GETTER": {"allow": ["get"]}},
        "spool": {"folder": str(tmp_path), "high_water": 1.0},
    }
    with running(parse(sections, "test")) as gateway:
        yield gateway


def test_a_peer_that_may_get_but_not_store_is_refused_its_stores(gateway: Gateway, tmp_path: Path) -> None:
    entity = AE(ae_title="GETTER")
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    entity.add_requested_context(SecondaryCaptureImageStorage)
    role = build_role(SecondaryCaptureImageStorage, scu_role=True, scp_role=True)
    association = entity.associate("127.0.0.1", gateway.port, ae_title="GATEWAY", ext_neg=[role])
    assert association.is_established
    refused = association.send_c_store(dcmread(io.BytesIO(instance())))
    again = association.send_c_store(dcmread(io.BytesIO(instance())))
    association.release()
    assert [int(refused.Status), int(again.Status)] == [0x0124, 0x0124]
    assert refused.ErrorComment
    assert not [file for file in (tmp_path / "incoming").rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    ("titles", "reason"),
    [
        ({"called": b"GATEW\xc4Y"}, CALLED_TITLE_UNKNOWN),
        ({"called": b"\xff" * 16}, CALLED_TITLE_UNKNOWN),
        ({"calling": b"R\xd6NTGEN"}, CALLING_TITLE_UNKNOWN),
        ({"calling": b"CT01\\CT02"}, CALLING_TITLE_UNKNOWN),
        ({"calling": b"CT01\r\nCT02"}, CALLING_TITLE_UNKNOWN),
        ({"calling": b"CT01\x1b[31m"}, CALLING_TITLE_UNKNOWN),
    ],
    ids=str,
)
def test_a_title_that_is_none_is_rejected_as_one_that_is_not_known(
    titles: dict[str, bytes], reason: tuple[int, int, int], gateway: Gateway
) -> None:
    request = bytearray(hostile.request())
    for at, name in ((10, "called"), (26, "calling")):
        if name in titles:
            request[at : at + 16] = titles[name].ljust(16)
    with hostile.connect(gateway.port) as sock:
        sock.sendall(request)
        answer = hostile.receive(sock)
    assert (answer[0], tuple(answer[7:10])) == (3, reason)

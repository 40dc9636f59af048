"""What a peer and an archive do to a running operation: cancel it, hang, or send other content under known UIDs."""

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hostile
import pytest
from embedded_archive import instance
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pynetdicom import AE
from pynetdicom.association import Association
from scripted_server import Answer, scripted

from gateway.app import running
from gateway.config import parse
from gateway.dimse import commands, pdu
from gateway.dimse.pdu import ProposedContext

FIND, MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
STUDY, SERIES, SOP = "1.2.3", "1.2.3.4", "1.2.3.4.5"


@contextmanager
def served(folder: Path, **sections: object) -> Iterator[int]:
    config = parse(
        {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
            "unknown_peers": "accept",
            "spool": {"folder": str(folder), "high_water": 1.0},
            **sections,
        },
        "test",
    )
    with running(config) as gateway:
        yield gateway.port


@contextmanager
def associated(folder: Path, uid: str, **sections: object) -> Iterator[Association]:
    with served(folder, **sections) as port:
        entity = AE(ae_title="PEER")
        entity.add_requested_context(uid)
        association = entity.associate("127.0.0.1", port, ae_title="GATEWAY")
        assert association.is_established
        yield association
        association.release()


def identifier() -> Dataset:
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.StudyInstanceUID = STUDY
    return keys


@pytest.mark.parametrize("uid", [FIND, MOVE])
def test_a_cancel_ends_an_operation_on_a_hanging_archive_within_two_seconds(uid: str, tmp_path: Path) -> None:
    with scripted(Answer(wait=20)) as server:
        sections = {
            "archives": {"main": {"url": server.url}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "peers": {"ELSEWHERE": {"host": "127.0.0.1", "port": 9}},
        }
        with associated(tmp_path, uid, **sections) as association:
            cancelled: list[float] = []

            def cancel() -> None:
                cancelled.append(time.monotonic())
                association.send_c_cancel(1, query_model=uid)

            timer = threading.Timer(0.5, cancel)
            timer.start()
            answers = (
                association.send_c_find(identifier(), uid, msg_id=1)
                if uid == FIND
                else association.send_c_move(identifier(), "ELSEWHERE", uid, msg_id=1)
            )
            statuses = [int(status.Status) for status, _ in answers]
            ended = time.monotonic()
            timer.join()
            assert statuses[-1] == 0xFE00
            assert set(statuses[:-1]) <= {0xFF00}
            assert ended - cancelled[0] < 2


def test_the_same_again_is_success_and_another_under_its_uids_is_refused(tmp_path: Path) -> None:
    first = dcmread(DicomBytesIO(instance(STUDY, SERIES, SOP)))
    other = dcmread(DicomBytesIO(instance(STUDY, SERIES, SOP, StudyDescription="another")))
    with associated(tmp_path, str(first.SOPClassUID)) as association:
        statuses = [int(association.send_c_store(one).Status) for one in (first, first, other, first)]
    assert statuses == [0x0000, 0x0000, 0x0111, 0x0000]


def test_priority_and_the_originator_of_a_move_do_not_keep_an_instance_out(tmp_path: Path) -> None:
    first = dcmread(DicomBytesIO(instance(STUDY, SERIES, SOP)))
    with associated(tmp_path, str(first.SOPClassUID)) as association:
        status = association.send_c_store(first, priority=1, originator_aet="MOVER", originator_id=7)
    assert status.Status == 0x0000


@pytest.mark.parametrize(("named", "ended"), [(1, 0xFE00), (2, 0x0000)], ids=["ours", "foreign"])
def test_a_cancel_is_for_the_operation_that_it_names_and_late_or_foreign_ones_are_ignored(
    named: int, ended: int, tmp_path: Path
) -> None:
    def command(**elements: int | str) -> bytes:
        return hostile.p_data(hostile.fragment(1, commands.encode(elements), command=True))

    query = {"AffectedSOPClassUID": FIND, "CommandField": commands.C_FIND_RQ, "MessageID": 1, "Priority": 0}
    cancel = {"CommandField": commands.C_CANCEL_RQ, "CommandDataSetType": commands.DATA_SET_ABSENT}
    keys = struct.pack("<HHI", 8, 0x52, 6) + b"STUDY " + struct.pack("<HHI", 0x20, 0xD, 0)
    request = hostile.request(contexts=(ProposedContext(1, FIND, (hostile.IMPLICIT,)),))
    with scripted(Answer(204, wait=1)) as server:
        sections = {"archives": {"main": {"url": server.url}}, "ae_titles": {"GATEWAY": {"archive": "main"}}}
        with served(tmp_path, **sections) as port, hostile.connect(port) as sock:
            sock.sendall(request)
            assert hostile.receive(sock)[0] == pdu.ASSOCIATE_AC
            sock.sendall(command(**cancel, MessageIDBeingRespondedTo=1))  # nothing runs
            sock.sendall(command(**query, CommandDataSetType=commands.DATA_SET_PRESENT))
            sock.sendall(hostile.p_data(hostile.fragment(1, keys, command=False)))
            sock.sendall(command(**cancel, MessageIDBeingRespondedTo=named))
            answer = commands.decode(hostile.receive(sock)[12:])
    assert (answer["MessageIDBeingRespondedTo"], answer["Status"]) == (1, ended)
    assert answer["CommandDataSetType"] == commands.DATA_SET_ABSENT

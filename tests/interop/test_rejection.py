"""Rejection notes with pynetdicom as the quality-control station, in front of Orthanc, which cannot delete."""

import json

import dcmtk
from embedded_archive import instance
from gateway_process import GatewayProcess
from orthanc import Orthanc
from processes import await_true, free_port
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pynetdicom import AE
from pynetdicom.sop_class import KeyObjectSelectionDocumentStorage, SecondaryCaptureImageStorage
from rejection_notes import note

ONE, TWO = ("1.2.1", "1.2.1.1", "1.2.1.1.1"), ("1.2.1", "1.2.1.1", "1.2.1.1.2")
WHOLE = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={ONE[0]}")


def store(gateway, *files):
    """Store over one association and give status and Error Comment of each."""
    entity = AE(ae_title="QC")
    entity.add_requested_context(KeyObjectSelectionDocumentStorage)
    entity.add_requested_context(SecondaryCaptureImageStorage)
    association = entity.associate("127.0.0.1", gateway.port, ae_title="GATEWAY")
    assert association.is_established
    answers = [association.send_c_store(dcmread(DicomBytesIO(file))) for file in files]
    association.release()
    return [(answer.Status, answer.get("ErrorComment", "")) for answer in answers]


def test_what_cannot_be_deleted_is_hidden_and_stays_out(tmp_path):
    receiver_port = free_port()
    with (
        Orthanc(tmp_path) as orthanc,
        dcmtk.storescp(tmp_path / "received", port=receiver_port) as receiver,
        GatewayProcess(
            tmp_path / "gateway",
            archives={"orthanc": {"url": orthanc.url, "profile": "orthanc"}},
            ae_titles={"GATEWAY": {"archive": "orthanc", "rejection": {"safety": "delete"}}},
            peers={
                "QC": {"allow": ["store", "find", "move", "reject"]},
                "STORESCP": {"host": "127.0.0.1", "port": receiver_port},
            },
            log={"format": "json"},
        ) as gateway,
    ):
        files = [instance(*ONE), instance(*TWO)]
        assert store(gateway, *files, note(ONE, study="1.5")) == [(0x0000, "")] * 3
        await_true(lambda: "rejected instance hidden, for it cannot be deleted" in gateway.log)
        ((status, comment),) = store(gateway, files[0])
        assert (status, comment) == (0xC770, "a rejection note has rejected this instance; it is not stored")
        assert orthanc.count() == 3
        keys = (*WHOLE, "NumberOfStudyRelatedInstances")
        (study,) = dcmtk.findscu(gateway.port, *keys, calling="QC").responses
        assert study.NumberOfStudyRelatedInstances == 1
        moved = dcmtk.movescu(gateway.port, receiver.title, *WHOLE, model="S", calling="QC")
        assert moved.status == 0x0000
        assert [dcmread(path).SOPInstanceUID for path in receiver.files] == [TWO[2]]
        told = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
        assert [line["instance"] for line in told if "cannot be deleted" in line["event"]] == [ONE[2]]

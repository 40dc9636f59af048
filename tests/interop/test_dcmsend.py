"""dcmsend, the client for many files at once, opens as many associations as the files need."""

import dcmtk
from samples import data_sets

MOST_REFUSED = 10  # by the archives themselves, with a failure status


def test_every_file_that_dcmsend_takes_comes_back_byte_for_byte(gateway, receiver, samples, reference):
    files = [one.path for one in samples if one.has_patient_id]
    sent = reference(dcmtk.dcmsend, *files)
    assert len(sent) > 150
    result = dcmtk.dcmsend(gateway.port, *files)
    assert result.returncode == 0, result.output[-3000:]
    studies = sorted({one.study for one in samples if one.sop_instance in sent})
    keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + "\\".join(studies))
    assert dcmtk.movescu(gateway.port, receiver.title, *keys, model="S").status == 0x0000
    received = data_sets(receiver.folder)
    assert len(sent) - len(received) <= MOST_REFUSED
    assert [uid for uid in received if received[uid] != sent.get(uid)] == []

"""An archive that is down: each service says so, and works again as soon as the archive does."""

import re
from pathlib import Path

import dcmtk
import processes
import pydicom.data
from pydicom import dcmread

from gateway.embedded.server import EmbeddedArchive

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
KEYS = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={dcmread(CT).StudyInstanceUID}")
STATUSES = {"C-STORE": 0xA700, "C-FIND": 0xA700, "C-MOVE": 0xA701, "C-GET": 0xA701}


def ask(gateway, receiver, folder):
    """Give what each service answers, and the Error Comments."""
    results = {
        "C-STORE": dcmtk.storescu(gateway.port, CT),
        "C-FIND": dcmtk.findscu(gateway.port, *KEYS, model="S"),
        "C-MOVE": dcmtk.movescu(gateway.port, receiver.title, *KEYS, model="S"),
        "C-GET": dcmtk.getscu(gateway.port, folder / "got", *KEYS, model="S"),
    }
    return {service: result.status for service, result in results.items()}


def test_each_service_fails_while_it_is_down_and_works_when_it_is_back(start_gateway, log_lines, receiver, tmp_path):
    port = processes.free_port()
    archives = {"remote": {"url": f"http://127.0.0.1:{port}/v2", "profile": "azure"}}
    titles = {"GATEWAY": {"archive": "remote"}}
    with start_gateway(tmp_path, archives=archives, ae_titles=titles) as gateway:
        assert dcmtk.echoscu(gateway.port).status == 0x0000
        assert ask(gateway, receiver, tmp_path) == STATUSES
        for service, status in STATUSES.items():
            # the line is written after the response
            processes.await_true(lambda service=service: any(line["event"] == service for line in log_lines(gateway)))
            (line,) = [line for line in log_lines(gateway) if line["event"] == service]
            assert line["status"] == f"{status:04X}H"
            assert re.match("archive remote: .+", line["reason"])
        assert "CompressedSamples" not in gateway.log
        with EmbeddedArchive(tmp_path / "archive", host="127.0.0.1", port=port):
            assert set(ask(gateway, receiver, tmp_path).values()) == {0x0000}
        assert len(receiver.files) == 1

"""Composite Instance Root MOVE and GET, and GET without bulk data, over the wire (PS3.4 Annexes Y and Z)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import embedded_archive
import pytest
import retrieving
from bench import wire
from destinations import destination
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from gateway.app import running
from gateway.config import parse

MOVE, GET, WITHOUT_BULK = (f"1.2.840.10008.5.1.4.1.2.{last}" for last in ("4.2", "4.3", "5.3"))
SC = "1.2.840.10008.5.1.4.1.1.7"
FRAMES = [bytes(range(9 * number, 9 * number + 9)) for number in range(6)]
IMAGE, PLAIN = "1.2.1.1.1", "1.2.1.1.2"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Any]]:
    folder: Path = tmp_path_factory.mktemp("composite")
    with embedded_archive.running(folder / "archive") as caller, destination() as where:
        files = [embedded_archive.image(FRAMES, SOPInstanceUID=IMAGE), embedded_archive.instance(sop=PLAIN)]
        assert caller.store(*files).status_code == 200
        config = parse(
            {
                "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
                "archives": {"main": {"url": caller.archive.url, "profile": "embedded"}},
                "ae_titles": {"GATEWAY": {"archive": "main"}},
                "peers": {"BENCH": {}, "DEST": where.peer},
                "spool": {"folder": str(folder / "gateway"), "high_water": 1.0},
            },
            "test",
        )
        with running(config) as gateway:
            yield gateway.port, where
        assert not list((folder / "gateway").rglob("incoming/*"))


def get(port: int, sop_class: str, **keys: object) -> tuple[retrieving.Response, list[Any]]:
    retrieval = retrieving.get(port, [(SC, wire.EXPLICIT_LE)], sop_class=sop_class, **keys)
    final = retrieval.all()[-1]
    return final, [read_dataset(DicomBytesIO(one.data), False, True) for one in retrieval.got]


def test_instances_are_got_by_their_uids_alone(port: Any) -> None:
    final, got = get(port[0], GET, QueryRetrieveLevel="IMAGE", SOPInstanceUID=[IMAGE, PLAIN, "1.9"])
    assert (final.status, final.counters["completed"]) == (0x0000, 2)
    assert {one.SOPInstanceUID for one in got} == {IMAGE, PLAIN}


def test_frames_are_got_as_a_new_instance(port: Any) -> None:
    keys = {"QueryRetrieveLevel": "FRAME", "SOPInstanceUID": IMAGE, "SimpleFrameList": [2, 5]}
    final, (one,) = get(port[0], GET, **keys)
    assert final.status == 0x0000
    assert one.SOPInstanceUID != IMAGE
    assert one.PixelData == FRAMES[1] + FRAMES[4]
    assert one.FrameExtractionSequence[0].MultiFrameSourceSOPInstanceUID == IMAGE


def test_frames_are_moved_as_a_new_instance(port: Any) -> None:
    number, where = port
    keys = {"QueryRetrieveLevel": "FRAME", "SOPInstanceUID": IMAGE, "CalculatedFrameList": [1, 6, 2]}
    assert retrieving.move(number, "DEST", sop_class=MOVE, **keys).all()[-1].status == 0x0000
    one = read_dataset(DicomBytesIO(where.received[-1].data), False, True)
    assert one.PixelData[:27] == FRAMES[0] + FRAMES[2] + FRAMES[4]
    assert where.received[-1].sop_instance == one.SOPInstanceUID != IMAGE


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"SOPInstanceUID": IMAGE, "SimpleFrameList": [7]}, 0xAA00),
        ({"SOPInstanceUID": PLAIN, "SimpleFrameList": [1]}, 0xAA01),
        ({"SOPInstanceUID": IMAGE, "TimeRange": [0.0, 1.0]}, 0xAA03),
        ({"SOPInstanceUID": IMAGE}, 0xAA04),
        ({"SimpleFrameList": [1]}, 0xA900),
        ({"SOPInstanceUID": "1.9", "SimpleFrameList": [1]}, 0x0000),
    ],
)
@pytest.mark.parametrize("sop_class", [MOVE, GET])
def test_what_cannot_be_done_has_its_own_status(port: Any, sop_class: str, keys: dict[str, Any], status: int) -> None:
    if sop_class == MOVE:
        final = retrieving.move(port[0], "DEST", sop_class=MOVE, QueryRetrieveLevel="FRAME", **keys).all()[-1]
    else:
        final, _ = get(port[0], GET, QueryRetrieveLevel="FRAME", **keys)
    assert final.status == status
    assert bool(final.comment) == bool(status)


def test_an_instance_is_got_without_its_bulk_data(port: Any) -> None:
    final, (one,) = get(port[0], WITHOUT_BULK, QueryRetrieveLevel="IMAGE", SOPInstanceUID=IMAGE)
    assert final.status == 0x0000
    assert one.SOPInstanceUID == IMAGE
    assert "PixelData" not in one
    assert one.NumberOfFrames == 6


def test_frames_without_bulk_data_are_refused(port: Any) -> None:
    keys = {"QueryRetrieveLevel": "FRAME", "SOPInstanceUID": IMAGE, "SimpleFrameList": [1]}
    final, _ = get(port[0], WITHOUT_BULK, **keys)
    assert final.status == 0xA900

"""What was acknowledged and still waits in the outbox is retrieved with what the archive has."""

from collections.abc import Iterator
from pathlib import Path

import embedded_archive
import pytest
import retrieving
from bench import wire
from destinations import Destination, destination
from meddling_proxy import meddling

from gateway.app import running
from gateway.config import parse

SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY, FIRST, SECOND = "1.2.3", "1.2.3.1", "1.2.3.2"
ARCHIVED = [f"{FIRST}.{number}" for number in range(1, 5)]
WAITING = [f"{FIRST}.9", f"{SECOND}.1", f"{SECOND}.2", f"{SECOND}.3"]


def instance(uid: str) -> bytes:
    return embedded_archive.instance(STUDY, uid.rpartition(".")[0], uid)


def data_set(file: bytes) -> bytes:
    return file[144 + int.from_bytes(file[140:144], "little") :]


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[int, Destination]]:
    """Run an archive that takes nothing more, and a gateway with four instances in its outbox."""
    with embedded_archive.running(tmp_path / "archive") as caller, destination() as where:
        assert caller.store(*map(instance, ARCHIVED)).status_code == 200
        with meddling(caller.archive.url) as proxy:  # it knows no POST
            config = parse(
                {
                    "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
                    "archives": {"main": {"url": proxy.url, "profile": "embedded"}},
                    "ae_titles": {"GATEWAY": {"archive": "main", "acknowledge": "spooled"}},
                    "peers": {"BENCH": {}, "DEST": where.peer},
                    "spool": {"folder": str(tmp_path / "gateway"), "high_water": 1.0},
                },
                "test",
            )
            with running(config) as gateway:
                connection = wire.associate("127.0.0.1", gateway.port, "GATEWAY", "BENCH", [(SC, wire.EXPLICIT_LE)])
                for uid in WAITING:
                    assert wire.store(connection, 1, SC, uid, data_set(instance(uid))) == 0x0000
                wire.release(connection)
                yield gateway.port, where
            assert not list((tmp_path / "gateway").rglob("incoming/*"))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"QueryRetrieveLevel": "STUDY"}, [*ARCHIVED, *WAITING]),
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": FIRST}, [*ARCHIVED, WAITING[0]]),
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": SECOND}, WAITING[1:]),
        (
            {"QueryRetrieveLevel": "IMAGE", "SeriesInstanceUID": FIRST, "SOPInstanceUID": [WAITING[0], ARCHIVED[0]]},
            [WAITING[0], ARCHIVED[0]],
        ),
    ],
)
def test_a_move_brings_what_waits_in_the_outbox_too(
    sides: tuple[int, Destination], keys: dict[str, object], expected: list[str]
) -> None:
    port, where = sides
    *_, final = retrieving.move(port, "DEST", StudyInstanceUID=STUDY, **keys).all()
    assert (final.status, final.counters["completed"]) == (0x0000, len(expected))
    assert {one.sop_instance: one.data for one in where.received} == {
        uid: data_set(instance(uid)) for uid in expected
    }


def test_a_get_by_uid_alone_brings_what_waits(sides: tuple[int, Destination]) -> None:
    retrieval = retrieving.get(
        sides[0],
        [(SC, wire.EXPLICIT_LE)],
        sop_class="1.2.840.10008.5.1.4.1.2.4.3",
        QueryRetrieveLevel="IMAGE",
        SOPInstanceUID=WAITING[1],
    )
    assert retrieval.all()[-1].status == 0x0000
    assert [one.sop_instance for one in retrieval.got] == [WAITING[1]]

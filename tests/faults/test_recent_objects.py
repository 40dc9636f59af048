"""What was just fetched is sent to the next destination from here, and only while it is what the archive holds."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import embedded_archive
import psutil
import pytest
import retrieving
from admin_page import AdminPage, admin
from bench import wire
from destinations import Destination, destination
from embedded_archive import Caller
from gateway_process import GatewayProcess
from meddling_proxy import Proxy, meddling
from processes import await_true
from small_disk import small_disk
from spooled import left_over

from gateway.app import running
from gateway.config import parse

SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY, LONG, SHORT = "1.2.3", "1.2.3.1", "1.2.3.2"
INSTANCES = [f"{LONG}.{number}" for number in range(1, 11)] + [f"{SHORT}.{number}" for number in range(1, 3)]
ONE = INSTANCES[0]
WHOLE = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY}


def instance(uid: str, **values: Any) -> bytes:
    return embedded_archive.instance(STUDY, uid.rpartition(".")[0], uid, **values)


def large(uid: str, megabytes: int) -> bytes:
    frames = [os.urandom(1 << 20) for _ in range(megabytes)]
    return embedded_archive.image(
        frames, study=STUDY, series=uid.rpartition(".")[0], sop=uid, Rows=1024, Columns=1024
    )


def data_set(file: bytes) -> bytes:
    return file[144 + int.from_bytes(file[140:144], "little") :]


def retrievals(proxy: Proxy) -> list[str]:
    """Give the WADO-RS requests so far; the others have a query."""
    return [path for path in proxy.paths if path.startswith("/studies/") and "?" not in path]


class Site:
    """An archive, a proxy that counts its requests, two destinations and a gateway's configuration."""

    def __init__(self, archive: Caller, proxy: Proxy, places: dict[str, Destination], folder: Path) -> None:
        self.archive = archive
        self.proxy = proxy
        self.places = places
        self.folder = folder
        self.port = 0

    def sections(self, **sections: Any) -> dict[str, Any]:
        peers = {title: place.peer for title, place in self.places.items()}
        return {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
            "archives": {"main": {"url": self.proxy.url, "profile": "embedded", "duplicates": "replace"}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "peers": {"BENCH": {}, **peers},
            "spool": {"folder": str(self.folder / "spool"), "high_water": 1.0},
            **sections,
        }

    @contextmanager
    def gateway(self, **sections: Any) -> Iterator[None]:
        config = parse(self.sections(**sections), "test")
        with running(config) as started:
            self.port = started.port
            yield
        assert not list(config.spool.folder.rglob("incoming/*")), "files were left behind"
        assert not (config.spool.folder / "cache").exists()

    def cached(self, spool: Path | None = None) -> list[Path]:
        return [path for path in ((spool or self.folder / "spool") / "cache").iterdir() if path.name != "state"]

    def move(self, title: str, **keys: object) -> dict[str, bytes]:
        """Move and give what the destination received: SOP Instance UID -> data set."""
        before = len(self.places[title].received)
        final = retrieving.move(self.port, title, **(keys or WHOLE)).all()[-1]
        received = self.places[title].received[before:]
        assert (final.status, final.counters["completed"]) == (0x0000, len(received))
        return {one.sop_instance: one.data for one in received}

    def store(self, file: bytes) -> int:
        """Store in the gateway."""
        connection = wire.associate("127.0.0.1", self.port, "GATEWAY", "BENCH", [(SC, wire.EXPLICIT_LE)])
        uid = file.partition(b"\x08\x00\x18\x00UI")[2][2:66].partition(b"\x08")[0].rstrip(b"\0").decode()
        status = wire.store(connection, 1, SC, uid, data_set(file))
        wire.release(connection)
        return status


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        archive = stack.enter_context(embedded_archive.running(tmp_path / "archive"))
        assert archive.store(*map(instance, INSTANCES)).status_code == 200
        proxy = stack.enter_context(meddling(archive.archive.url))
        places = {title: stack.enter_context(destination()) for title in ("FIRST", "SECOND")}
        yield Site(archive, proxy, places, tmp_path)


EXPECTED = {uid: data_set(instance(uid)) for uid in INSTANCES}


def test_a_study_that_was_just_moved_is_not_fetched_again_for_the_next_destination(site: Site) -> None:
    with site.gateway():
        assert site.move("FIRST") == EXPECTED
        fetched = len(retrievals(site.proxy))
        assert fetched
        assert site.move("SECOND") == EXPECTED
        assert site.move("FIRST", QueryRetrieveLevel="IMAGE", **ids(ONE)) == {ONE: EXPECTED[ONE]}
        assert len(retrievals(site.proxy)) == fetched


def ids(uid: str) -> dict[str, str]:
    return {"StudyInstanceUID": STUDY, "SeriesInstanceUID": uid.rpartition(".")[0], "SOPInstanceUID": uid}


def test_a_get_takes_what_a_move_fetched_and_the_reverse(site: Site) -> None:
    with site.gateway():
        first = retrieving.get(site.port, [(SC, wire.EXPLICIT_LE)], QueryRetrieveLevel="IMAGE", **ids(ONE))
        assert first.all()[-1].status == 0x0000
        assert len(retrievals(site.proxy)) == 1
        assert site.move("FIRST", QueryRetrieveLevel="IMAGE", **ids(ONE)) == {ONE: EXPECTED[ONE]}
        assert len(retrievals(site.proxy)) == 1
        site.move("FIRST")
        fetched = len(retrievals(site.proxy))
        second = retrieving.get(site.port, [(SC, wire.EXPLICIT_LE)], **WHOLE)
        assert second.all()[-1].status == 0x0000
        assert {one.sop_instance: one.data for one in first.got} == {ONE: EXPECTED[ONE]}
        assert {one.sop_instance: one.data for one in second.got} == EXPECTED
        assert len(retrievals(site.proxy)) == fetched


def test_instances_too_long_for_memory_are_kept_as_well(site: Site) -> None:
    uid = f"{SHORT}.9"
    file = large(uid, 3)
    assert site.archive.store(file).status_code == 200
    with site.gateway():
        for title in ("FIRST", "SECOND"):
            assert site.move(title, QueryRetrieveLevel="IMAGE", **ids(uid)) == {uid: data_set(file)}
        assert len(retrievals(site.proxy)) == 1


def test_what_the_archive_deleted_or_took_in_meanwhile_is_right_at_once(site: Site) -> None:
    new = f"{LONG}.11"
    with site.gateway():
        site.move("FIRST")
        fetched = len(retrievals(site.proxy))
        assert site.archive.delete(f"/studies/{STUDY}/series/{LONG}/instances/{ONE}").status_code == 204
        assert site.archive.store(instance(new)).status_code == 200
        expected = {uid: data for uid, data in EXPECTED.items() if uid != ONE} | {new: data_set(instance(new))}
        assert site.move("SECOND") == expected
        assert retrievals(site.proxy)[fetched:] == [f"/studies/{STUDY}/series/{LONG}/instances/{new}"]


@pytest.mark.parametrize("acknowledge", ["archived", "spooled"])
def test_what_is_replaced_through_the_gateway_is_sent_as_it_is_now(site: Site, acknowledge: str) -> None:
    corrected = instance(ONE, StudyDate="20250607")
    with site.gateway(ae_titles={"GATEWAY": {"archive": "main", "acknowledge": acknowledge}}):
        assert site.move("FIRST") == EXPECTED
        assert site.store(corrected) == 0x0000
        outbox = site.folder / "spool" / "outbox"
        await_true(lambda: not left_over(outbox), what="the delivery")
        fetched = len(retrievals(site.proxy))
        assert site.move("SECOND") == EXPECTED | {ONE: data_set(corrected)}
        assert len(retrievals(site.proxy)) == fetched + 1


def test_what_others_changed_in_the_archive_is_sent_as_it_was_until_it_is_too_old(site: Site) -> None:
    corrected = instance(ONE, StudyDate="20250607")
    with site.gateway():
        assert site.move("FIRST") == EXPECTED
        assert site.archive.delete(f"/studies/{STUDY}/series/{LONG}/instances/{ONE}").status_code == 204
        assert site.archive.store(corrected).status_code == 200
        assert site.move("SECOND") == EXPECTED
        for path in site.cached():
            os.utime(path, (path.stat().st_mtime - 600,) * 2)
        assert site.move("SECOND") == EXPECTED | {ONE: data_set(corrected)}


def test_with_size_0_every_retrieve_fetches_and_nothing_is_kept(site: Site) -> None:
    with site.gateway(retrieve={"cache": {"size": 0}}):
        assert site.move("FIRST") == EXPECTED
        fetched = len(retrievals(site.proxy))
        assert site.move("SECOND") == EXPECTED
        assert len(retrievals(site.proxy)) == 2 * fetched
        assert site.cached() == []


def test_what_the_embedded_archive_has_is_not_kept_since_it_is_on_this_disk(site: Site) -> None:
    with site.gateway(ae_titles={"GATEWAY": {}}):
        assert site.store(instance(ONE)) == 0x0000
        assert site.move("FIRST") == {ONE: EXPECTED[ONE]}
        assert site.cached() == []


def test_receiving_comes_first_when_the_disk_is_full(site: Site) -> None:
    files = [large(f"{SHORT}.{number}", 1) for number in range(11, 21)]
    assert site.archive.store(*files).status_code == 200
    with small_disk(site.folder / "disk", 48 << 20) as disk:
        spool = disk / "spool"
        with site.gateway(
            ae_titles={"GATEWAY": {"archive": "main", "acknowledge": "spooled"}},
            spool={"folder": str(spool), "high_water": 1.0},
        ):
            site.move("FIRST")
            assert len(site.cached(spool)) == len(INSTANCES) + len(files)
            free = os.statvfs(disk)
            with (disk / "something else").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (7 << 18))
            assert site.store(instance(f"{SHORT}.30")) == 0x0000
            await_true(lambda: not site.cached(spool), what="the room to be given back")


def serving(gateway: GatewayProcess) -> psutil.Process:
    """Find the process that serves the one association that is open."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        found[:] = [
            child
            for child in psutil.Process(gateway.pid).children()
            if any(
                one.status == "ESTABLISHED" and one.laddr.port == gateway.port
                for one in child.net_connections(kind="tcp")
            )
        ]
        return len(found) == 1

    await_true(is_there, what="the process that serves")
    return found[0]


def next_receiver(gateway: GatewayProcess) -> psutil.Process:
    """Find a process that takes associations now."""
    connection = wire.associate("127.0.0.1", gateway.port, "GATEWAY", "BENCH", [(SC, wire.EXPLICIT_LE)])
    process = serving(gateway)
    wire.release(connection)
    return process


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    """Stop a process; its threads stop one after another, and until then any of them may take a connection."""
    process.suspend()
    try:
        await_true(lambda: all(is_stopped(process, thread.id) for thread in process.threads()), what="a full stop")
        yield
    finally:
        process.resume()


def is_stopped(process: psutil.Process, thread: int) -> bool:
    return Path(f"/proc/{process.pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_two_receivers_share_what_one_of_them_fetched_and_the_metrics_tell(site: Site) -> None:
    sections = site.sections(listen={"workers": 2}, admin=admin(), log={"format": "json"})
    del sections["spool"]
    with GatewayProcess(site.folder / "gateway", **sections) as gateway:
        await_true(lambda: '"listening"' in gateway.log, what="every process")
        site.port = gateway.port
        one = next_receiver(gateway)
        with suspended(one):
            other = next_receiver(gateway)
            assert one.pid != other.pid
            assert site.move("FIRST") == EXPECTED
        fetched = len(retrievals(site.proxy))
        with suspended(other):
            assert site.move("SECOND") == EXPECTED
        assert len(retrievals(site.proxy)) == fetched
        counted = AdminPage(gateway).metrics("dicom_gateway_cache_instances_total")
        assert counted == {("main", "miss"): len(INSTANCES), ("main", "hit"): len(INSTANCES)}


def test_a_killed_gateway_leaves_nothing_that_its_next_start_does_not_remove(site: Site) -> None:
    sections = site.sections(listen={}, log={"format": "json"})
    del sections["spool"]
    gateway = GatewayProcess(site.folder / "gateway", **sections)
    spool = site.folder / "gateway" / "spool"
    with gateway:
        site.port = gateway.port
        assert site.move("FIRST") == EXPECTED
        assert len(site.cached(spool)) == len(INSTANCES)
        (spool / "cache" / "new-1-1").write_bytes(b"half written")
        gateway.kill()
    assert len(site.cached(spool)) == len(INSTANCES) + 1
    fetched = len(retrievals(site.proxy))
    with gateway:
        assert site.cached(spool) == []
        assert site.move("SECOND") == EXPECTED
        assert len(retrievals(site.proxy)) == 2 * fetched
    assert not (spool / "cache").exists()

"""`acknowledge: spooled`: what was acknowledged reaches the archive, whatever happens to that or to our processes."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dcmtk
import httpx
import psutil
import pydicom.data
from bench import wire
from bench.instances import SOP_CLASS, Batch
from gateway_process import GatewayProcess
from processes import answers, await_true, free_port
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from scripted_server import Answer, scripted
from spooled import left_over

from gateway.embedded.server import EmbeddedArchive

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
QUICK = {"connections": 2, "retry_first": 0.2, "retry_longest": 0.5}


def gateway_for(
    folder: Path,
    url: str,
    *,
    acknowledge: str = "spooled",
    archive: dict[str, object] | None = None,
    **sections: object,
) -> GatewayProcess:
    return GatewayProcess(
        folder / "gateway",
        archives={"far": {"url": url, "profile": "embedded", "delivery": QUICK, **(archive or {})}},
        ae_titles={"GATEWAY": {"archive": "far", "acknowledge": acknowledge}},
        unknown_peers="accept",
        log={"format": "json"},
        **sections,
    )


def store(gateway: GatewayProcess, batch: Batch, numbers: Sequence[int] | None = None) -> list[int]:
    connection = wire.associate("127.0.0.1", gateway.port, "GATEWAY", "BENCH", [(SOP_CLASS, wire.EXPLICIT_LE)])
    statuses = []
    for number in range(batch.count) if numbers is None else numbers:
        pieces = (batch.prefixes[number], batch.tail) if batch.size > 20_000 else (batch.prefixes[number],)
        connection.send(pieces)
        statuses.append(wire.answer(connection))
    wire.release(connection)
    return statuses


def archived(url: str, batch: Batch) -> set[str]:
    """Give the SOP Instance UIDs that the archive has of a batch's first study."""
    query = f"{url}/studies/{batch.study}/instances?limit=200"
    answer = httpx.get(query, headers={"Accept": "application/dicom+json"}, trust_env=False)
    return {row["00080018"]["Value"][0] for row in answer.json()} if answer.status_code == 200 else set()


def lines(gateway: GatewayProcess, event: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def children(gateway: GatewayProcess) -> list[psutil.Process]:
    await_true(lambda: lines(gateway, "listening"), what="every process")
    return [child for child in psutil.Process(gateway.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def far(folder: Path, port: int) -> Iterator[str]:
    with EmbeddedArchive(folder / "far", port=port) as archive:
        yield archive.url


def test_a_sender_does_not_notice_that_the_archive_is_down_and_all_is_delivered_later(tmp_path: Path) -> None:
    port, batch = free_port(), Batch(run=11, count=20, size=30_000)
    with gateway_for(tmp_path, f"http://127.0.0.1:{port}/v2") as gateway:
        assert store(gateway, batch) == [0x0000] * 20
        with far(tmp_path, port) as url:
            await_true(lambda: len(archived(url, batch)) == 20, what="the delivery")
            one = archived(url, batch).pop()
            stored = httpx.get(
                f"{url}/studies/{batch.study}/series/{batch._uid(2, 0)}/instances/{one}",
                headers={"Accept": "application/dicom; transfer-syntax=*"},
                trust_env=False,
            )
    sent = next(prefix for prefix in batch.prefixes if one.encode() in prefix)
    header = batch._header(batch.prefixes.index(sent))
    assert header + bytes(batch.size - len(header)) in stored.content


def test_what_waits_at_the_stop_is_delivered_after_the_next_start(tmp_path: Path) -> None:
    port, batch = free_port(), Batch(run=12, count=5, size=5_000)
    with gateway_for(tmp_path, f"http://127.0.0.1:{port}/v2") as gateway:
        assert store(gateway, batch) == [0x0000] * 5
        assert gateway.stop() == 0
    with far(tmp_path, port) as url, gateway_for(tmp_path, url):
        await_true(lambda: len(archived(url, batch)) == 5, what="the delivery")


def test_a_process_that_dies_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    batch = Batch(run=13, count=30, size=5_000)
    with far(tmp_path, free_port()) as url, gateway_for(tmp_path, url, listen={"workers": 2}) as gateway:
        for round_ in range(3):
            assert store(gateway, batch, range(10 * round_, 10 * round_ + 10)) == [0x0000] * 10
            victims = children(gateway)
            assert len(victims) == 3  # two that receive, one that delivers
            victims[round_].kill()
            victims[round_].wait(10)
            await_true(lambda: len(children(gateway)) == 3, what="the process again")
        await_true(lambda: len(archived(url, batch)) == 30, what="the delivery")
        ended = lines(gateway, "a process ended and is started again")
        assert {line["process"] for line in ended} <= {"delivery", "receiver-1", "receiver-2"}
        assert len(ended) == 3
        assert gateway.stop() == 0


def test_when_the_supervisor_is_killed_its_processes_end_as_well(tmp_path: Path) -> None:
    with gateway_for(tmp_path, "http://127.0.0.1:1/v2", listen={"grace": 1}) as gateway:
        family = children(gateway)
        gateway.process.kill()
        gateway.process.wait()
        gone, alive = psutil.wait_procs(family, timeout=10)
        assert (len(gone), alive) == (2, [])
        assert not answers(gateway.port)


def test_the_limit_of_associations_counts_over_all_processes(tmp_path: Path) -> None:
    contexts = [(SOP_CLASS, wire.EXPLICIT_LE)]

    def associate(calling: str) -> wire.Connection:
        return wire.associate("127.0.0.1", gateway.port, "GATEWAY", calling, contexts)

    limits = {"workers": 3, "max_associations": 7, "max_associations_per_peer": 5}
    with gateway_for(tmp_path, "http://127.0.0.1:1/v2", listen=limits) as gateway:
        held = [associate("ONE") for _ in range(5)]
        assert dcmtk.echoscu(gateway.port, calling="ONE").rejected
        held += [associate("TWO"), associate("THREE")]
        assert dcmtk.echoscu(gateway.port, calling="FOUR").rejected
        limits_reached = {"listen.max_associations is reached", "listen.max_associations_per_peer is reached"}
        await_true(  # a line is written after the peer has its answer
            lambda: {line["reason"] for line in lines(gateway, "association rejected")} == limits_reached
        )
        for connection in held:
            wire.release(connection)
        await_true(lambda: not dcmtk.echoscu(gateway.port, calling="FOUR").rejected, what="room")
        held = [associate("ONE") for _ in range(5)]
        assert dcmtk.echoscu(gateway.port, calling="ONE").rejected
        for victim in children(gateway):
            victim.kill()
            victim.wait(10)
        await_true(lambda: len(children(gateway)) == 4, what="the processes again")
        assert dcmtk.echoscu(gateway.port, calling="ONE").status == 0  # the dead hold no place
        for connection in held:
            connection.close()


def test_above_the_quota_a_store_gets_a700_and_a_new_association_for_storage_is_rejected(tmp_path: Path) -> None:
    batch = Batch(run=14, count=8, size=100_000)
    unlimited = gateway_for(tmp_path, "http://127.0.0.1:1/v2", spool={"peer_quota": 250_000})
    with unlimited as gateway:
        assert store(gateway, batch, range(6)) == [0x0000] * 3 + [0xA700] * 3
        result = dcmtk.storescu(gateway.port, CT, calling="BENCH")
        assert result.rejected
        await_true(lambda: lines(gateway, "association rejected"), what="the line of the rejection")
        (line,) = lines(gateway, "association rejected")
        assert "this peer" in str(line["reason"])
        assert dcmtk.echoscu(gateway.port, calling="BENCH").status == 0x0000
        other = wire.associate("127.0.0.1", gateway.port, "GATEWAY", "OTHER", [(SOP_CLASS, wire.EXPLICIT_LE)])
        other.send((batch.prefixes[7], batch.tail))
        assert wire.answer(other) == 0x0000
        wire.release(other)


def test_above_the_high_water_mark_nothing_more_is_taken_but_queries_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    with EmbeddedArchive(folder) as archive:
        with gateway_for(tmp_path, archive.url, spool={"high_water": 0.0001}) as gateway:
            assert dcmtk.storescu(gateway.port, CT).rejected
            keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID")
            assert dcmtk.findscu(gateway.port, *keys).status == 0x0000


def _pair(keyword: str) -> tuple[Batch, Batch]:
    """Give two batches of one instance each, under the same UIDs and with different data."""
    return Batch(run=15, count=1, size=5_000), Batch(run=15, count=1, size=5_000, date=keyword)


def test_another_object_under_the_same_uids_is_handled_by_policy_and_never_silently(tmp_path: Path) -> None:
    first, second = _pair("20250505")
    expected = {"reject": (0x0111, first), "keep": (0xB000, first), "replace": (0x0000, second)}
    for policy, (status, winner) in expected.items():
        port, folder = free_port(), tmp_path / policy
        # between attempts: what replaces one that is under way waits until that one's lease is over
        archive = {"duplicates": policy, "delivery": {**QUICK, "retry_first": 5, "retry_longest": 5}}
        with gateway_for(folder, f"http://127.0.0.1:{port}/v2", archive=archive) as gateway:
            assert store(gateway, first) == [0x0000]
            await_true(lambda gateway=gateway: lines(gateway, "sent"), what="the first attempt")
            assert store(gateway, first) == [0x0000]
            assert store(gateway, second) == [status]
            await_true(lambda gateway=gateway: len(lines(gateway, "C-STORE")) == 3)
            assert [line.get("duplicate") for line in lines(gateway, "C-STORE")][:2] == [None, "duplicate"]
            with far(folder, port) as url:
                await_true(lambda url=url: len(archived(url, first)) == 1, 60, "the delivery")
                (date,) = {
                    row["00080020"]["Value"][0]
                    for row in httpx.get(
                        f"{url}/studies?StudyInstanceUID={first.study}&includefield=StudyDate",
                        headers={"Accept": "application/dicom+json"},
                        trust_env=False,
                    ).json()
                }
        assert date == winner.date


def _stow(uid: str, status: int = 200, **item: object) -> Answer:
    sequence = "00081199" if "00081197" not in item else "00081198"
    entry = {"00081155": {"vr": "UI", "Value": [uid]}, **item}
    body = {sequence: {"vr": "SQ", "Value": [entry]}}
    return Answer(status, {"Content-Type": "application/dicom+json"}, json.dumps(body).encode())


def test_acknowledge_archived_carries_the_archive_s_verdict_and_leaves_nothing_in_the_outbox(tmp_path: Path) -> None:
    batch = Batch(run=16, count=1, size=5_000)
    uid = batch._uid(3, 0)
    reason, warning = "00081197", "00081196"
    verdicts = [
        (_stow(uid), 0x0000),
        (_stow(uid, 202, **{warning: {"vr": "US", "Value": [0xB000]}}), 0xB000),
        (_stow(uid, 409, **{reason: {"vr": "US", "Value": [0xA700]}}), 0xA700),
        (_stow(uid, 409, **{reason: {"vr": "US", "Value": [0xC123]}}), 0xC123),
        (_stow(uid, 409, **{reason: {"vr": "US", "Value": [0x0122]}}), 0x0122),
        (Answer(503), 0xA700),
        (Answer(413), 0xA700),
        (Answer(400), 0xC000),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>"), 0x0110),
    ]
    with scripted(*(answer for answer, _ in verdicts)) as far_archive:
        options = {"profile": "standard"}
        url = far_archive.url.rstrip("/")
        with gateway_for(tmp_path, url, acknowledge="archived", archive=options) as gateway:
            assert [store(gateway, batch)[0] for _ in verdicts] == [status for _, status in verdicts]
            outbox = gateway.folder / "spool" / "outbox"
            assert not left_over(outbox)
            assert not list((outbox / "incoming").iterdir())


def _first_part(body: bytes) -> DicomBytesIO:
    return DicomBytesIO(body[body.index(b"\r\n\r\n") + 4 :])


def test_an_archive_that_wants_explicit_vr_and_a_patient_id_gets_both_on_either_way(tmp_path: Path) -> None:
    without = Batch(run=17, count=1, size=5_000)
    header = without._header(0)
    at = header.index(b"\x10\x00\x20\x00")
    length = 8 + int.from_bytes(header[at + 6 : at + 8], "little")
    dataset = dcmread(DicomBytesIO(header[:at] + header[at + length : header.index(b"\xe0\x7f\x10\x00")]), force=True)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    path = tmp_path / "implicit.dcm"
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    for acknowledge in ("archived", "spooled"):
        with scripted(_stow(without._uid(3, 0))) as archive:
            folder, url = tmp_path / acknowledge, archive.url.rstrip("/")
            azure = {"profile": "azure"}
            with gateway_for(folder, url, acknowledge=acknowledge, archive=azure) as gateway:
                assert dcmtk.storescu(gateway.port, path, options=["-xi"]).status == 0x0000
                await_true(lambda archive=archive: archive.requests, what="the STOW request")
                sent = dcmread(_first_part(archive.requests[0].body))
        assert sent.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert sent.PatientID == ""
        assert sent.PatientName == dataset.PatientName

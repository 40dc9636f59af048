"""C-MOVE and C-GET, whatever destination, archive and the one who asks do meanwhile: counters, statuses, bounds."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import embedded_archive
import pytest
import retrieving
from bench import wire
from destinations import STORAGE_CLASSES, Destination, destination, silent
from meddling_proxy import Proxy, Rule, meddling
from processes import free_port

from gateway.app import running
from gateway.config import parse

SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY, LONG, SHORT = "1.2.3", "1.2.3.1", "1.2.3.2"
INSTANCES = [f"{LONG}.{number}" for number in range(1, 11)] + [f"{SHORT}.{number}" for number in range(1, 3)]
WHOLE = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY}
TEN = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": STUDY, "SeriesInstanceUID": LONG}
ALL_COUNTERS = {"remaining", "completed", "failed", "warning"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_archive.running(tmp_path_factory.mktemp("archive")) as caller:
        files = [embedded_archive.instance(STUDY, uid.rpartition(".")[0], uid) for uid in INSTANCES]
        assert caller.store(*files).status_code == 200
        yield caller.archive.url


@pytest.fixture
def proxy(archive: str) -> Iterator[Proxy]:
    with meddling(archive) as proxy:
        yield proxy


@contextmanager
def gateway(url: str, folder: Path, *, timeout: float = 60, **peers: Any) -> Iterator[int]:
    config = parse(
        {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 1, "network_timeout": timeout},
            "archives": {"main": {"url": url, "profile": "azure"}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "peers": {"BENCH": {}, **peers},
            "spool": {"folder": str(folder), "high_water": 1.0},
        },
        "test",
    )
    with running(config) as started:
        yield started.port
    assert not list(folder.rglob("incoming/*")), "files were left behind"


@pytest.fixture
def start(archive: str, tmp_path: Path) -> Iterator[Any]:
    """Start a gateway with a destination that behaves as told; both end with the test."""
    with ExitStack() as stack:

        def start(
            *arguments: Any, url: str = archive, timeout: float = 60, max_moves: int = 4, **options: Any
        ) -> tuple[int, Destination]:
            where = stack.enter_context(destination(*arguments, **options))
            peer = {**where.peer, "max_moves": max_moves}
            return stack.enter_context(gateway(url, tmp_path, timeout=timeout, DEST=peer)), where

        yield start


def sums(responses: list[retrieving.Response]) -> set[int]:
    return {sum(response.counters.values()) for response in responses}


# -- counters and statuses -------------------------------------------------------------------------------------


def test_counters_are_in_every_response_their_sum_is_constant_and_the_final_one_names_no_remaining(
    start: Any,
) -> None:
    port, where = start()
    responses = retrieving.move(port, "DEST", **WHOLE).all()
    *pending, final = responses
    assert final.status == 0x0000
    assert final.counters == {"completed": 12, "failed": 0, "warning": 0}
    assert pending
    assert {response.status for response in pending} == {0xFF00}
    assert all(response.counters.keys() == ALL_COUNTERS for response in pending)
    assert sums(responses) == {12}
    remaining = [response.counters["remaining"] for response in pending]
    assert remaining == sorted(remaining, reverse=True)
    assert sorted(one.sop_instance for one in where.received) == sorted(INSTANCES)
    assert where.associations == 1


def test_sub_operations_name_the_move_originator_and_call_as_the_gateway(start: Any) -> None:
    port, where = start()
    retrieving.move(port, "DEST", **WHOLE).all()
    assert {(one.originator, one.message_id) for one in where.received} == {("BENCH", retrieving.MESSAGE_ID)}
    assert where.calling == ["GATEWAY"]


def test_a_warning_and_a_failure_in_the_middle_are_counted_listed_and_the_rest_goes_on(start: Any) -> None:
    port, where = start(lambda number: {1: 0xB000, 3: 0xA900}.get(number, 0))
    *pending, final = retrieving.move(port, "DEST", **TEN).all()
    assert final.status == 0xB000
    assert final.counters == {"completed": 8, "failed": 1, "warning": 1}
    assert final.failed == [where.received[2].sop_instance]
    assert sums(pending) == {10}


def test_when_all_sub_operations_fail_the_status_is_a702_with_all_uids(start: Any) -> None:
    port, _ = start(lambda _: 0xA700)
    *_, final = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.counters) == (0xA702, {"completed": 0, "failed": 12, "warning": 0})
    assert sorted(final.failed) == sorted(INSTANCES)


@pytest.mark.parametrize("model", ["1.2.840.10008.5.1.4.1.2.1.2", wire.STUDY_ROOT_MOVE])
def test_no_match_is_success_with_zero_counters_and_no_association(start: Any, model: str) -> None:
    port, where = start()
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.9.9", "PatientID": "ID1"}
    (final,) = retrieving.move(port, "DEST", sop_class=model, **keys).all()
    assert (final.status, final.counters) == (0x0000, {"completed": 0, "failed": 0, "warning": 0})
    assert where.associations == 0


def test_lists_of_uids_are_moved_each_instance_once(start: Any) -> None:
    port, where = start()
    keys = {**TEN, "QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": [*INSTANCES[2:5], INSTANCES[3], "1.9.9"]}
    *_, final = retrieving.move(port, "DEST", **keys).all()
    assert (final.status, final.counters["completed"]) == (0x0000, 3)
    assert sorted(one.sop_instance for one in where.received) == sorted(INSTANCES[2:5])


def test_pending_responses_come_at_least_every_two_seconds_while_the_archive_is_slow(
    start: Any, proxy: Proxy
) -> None:
    proxy.rule = lambda path: Rule(wait=0 if "?" in path else 4.5)
    port, _ = start(url=proxy.url)
    responses = retrieving.move(port, "DEST", **TEN).all()
    times = [response.at for response in responses]
    assert times[-1] > 4
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 2
    assert times[0] < 2
    assert sums(responses) == {10}


# -- cancel ----------------------------------------------------------------------------------------------------


def cancelled(retrieval: retrieving.Retrieval, after: float = 0.7) -> tuple[retrieving.Response, float]:
    """Cancel after some seconds; give the final response and how long it took to come."""
    timer = threading.Timer(after, retrieval.cancel)
    timer.start()
    responses = retrieval.all()
    timer.join()
    return responses[-1], responses[-1].at - after


def test_a_cancel_ends_a_move_within_two_seconds_when_the_destination_does_not_answer(start: Any) -> None:
    port, _ = start(lambda number: "hang" if number == 3 else 0)
    final, seconds = cancelled(retrieving.move(port, "DEST", **WHOLE))
    assert final.status == 0xFE00
    assert final.counters == {"remaining": 10, "completed": 2, "failed": 0, "warning": 0}
    assert seconds < 2


def test_a_cancel_ends_a_move_within_two_seconds_when_the_destination_gives_no_association(
    archive: str, tmp_path: Path
) -> None:
    with silent() as nobody, gateway(archive, tmp_path, DEST={"host": "127.0.0.1", "port": nobody}) as port:
        final, seconds = cancelled(retrieving.move(port, "DEST", **WHOLE))
        assert (final.status, final.counters["remaining"]) == (0xFE00, 12)
        assert seconds < 2


@pytest.mark.parametrize("is_move", [True, False])
def test_a_cancel_ends_a_retrieve_within_two_seconds_when_the_archive_hangs(
    start: Any, proxy: Proxy, is_move: bool
) -> None:
    proxy.rule = lambda path: Rule(wait=0 if "?" in path else 20)
    port, _ = start(url=proxy.url)
    running = (
        retrieving.move(port, "DEST", **WHOLE) if is_move else retrieving.get(port, [(SC, wire.EXPLICIT_LE)], **WHOLE)
    )
    final, seconds = cancelled(running)
    assert final.status == 0xFE00
    assert sum(final.counters.values()) == 12
    assert seconds < 2


def test_a_cancel_stops_after_the_sub_operation_under_way(start: Any) -> None:
    port, where = start(lambda _: "slow")
    final, seconds = cancelled(retrieving.move(port, "DEST", **WHOLE))
    assert final.status == 0xFE00
    assert final.counters["completed"] == len(where.received) < 12
    assert sum(final.counters.values()) == 12
    assert seconds < 2


def test_a_peer_that_cancels_a_get_and_stays_silent_gets_its_answer_and_may_answer_late(start: Any) -> None:
    port, _ = start()
    silenced: list[str] = []

    def answers(uid: str) -> int | None:
        return silenced.append(uid) if len(silenced) == 0 else 0

    retrieval = retrieving.get(port, [(SC, wire.EXPLICIT_LE)], answers=answers, **TEN)
    timer = threading.Timer(0.7, retrieval.cancel)
    timer.start()
    final = list(retrieval.responses())[-1]
    assert final.status == 0xFE00
    assert final.counters["remaining"] == 10
    assert final.at < 2.7
    late = retrieval.got[0]
    command = b"".join(wire.element(number, value) for number, value in sorted(late.command.items()))
    retrieval.connection.send((wire.store_response(command, late.context),))
    wire.release(retrieval.connection)


# -- destinations that drop, refuse or hang --------------------------------------------------------------------


def test_a_destination_that_drops_once_is_called_again_and_gets_the_rest(start: Any) -> None:
    port, where = start(lambda number: "abort" if number == 5 else 0)
    responses = retrieving.move(port, "DEST", **WHOLE).all()
    assert (responses[-1].status, responses[-1].counters["completed"]) == (0x0000, 12)
    assert sums(responses) == {12}
    uids = [one.sop_instance for one in where.received]
    assert len(uids) == 13
    assert uids[4] == uids[5]
    assert where.associations == 2


def test_an_instance_that_makes_its_destination_drop_fails_alone(start: Any) -> None:
    port, where = start(lambda number: "abort" if number in (5, 6) else 0)
    *_, final = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.counters) == (0xB000, {"completed": 11, "failed": 1, "warning": 0})
    assert final.failed == [where.received[4].sop_instance]
    assert where.associations == 3


def test_a_destination_that_always_drops_is_given_up(start: Any) -> None:
    port, where = start(lambda _: "abort")
    *_, final = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.counters["failed"]) == (0xA702, 12)
    assert sorted(final.failed) == sorted(INSTANCES)
    assert where.associations == 4


def test_a_destination_that_stops_answering_is_given_up_after_two_time_outs(start: Any) -> None:
    port, where = start(lambda number: "hang" if number > 3 else 0, timeout=1)
    *_, final = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.counters) == (0xB000, {"completed": 3, "failed": 9, "warning": 0})
    assert sorted(final.failed) == sorted(set(INSTANCES) - {one.sop_instance for one in where.received[:3]})
    assert final.at < 10


def test_a_destination_that_is_down_is_a702_with_all_uids(archive: str, tmp_path: Path) -> None:
    with gateway(archive, tmp_path, DEST={"host": "127.0.0.1", "port": free_port()}) as port:
        *_, final = retrieving.move(port, "DEST", **WHOLE).all()
        assert (final.status, final.counters["failed"]) == (0xA702, 12)
        assert final.comment == "move destination gives no association"
        assert sorted(final.failed) == sorted(INSTANCES)


def test_a_destination_that_refuses_long_requests_is_asked_for_less(start: Any) -> None:
    port, where = start(most_proposed=2)
    (*_, final) = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.counters["completed"]) == (0x0000, 12)
    assert where.associations == 1


def test_a_stuck_destination_holds_nobody_else(archive: str, tmp_path: Path) -> None:
    with (
        destination(lambda _: "hang") as stuck,
        destination() as well,
        gateway(archive, tmp_path, STUCK={**stuck.peer, "max_moves": 20}, WELL=well.peer) as port,
    ):
        waiting = [retrieving.move(port, "STUCK", **WHOLE) for _ in range(10)]
        time.sleep(0.5)
        for _ in range(3):
            *_, final = retrieving.move(port, "WELL", **WHOLE).all()
            assert (final.status, final.counters["completed"]) == (0x0000, 12)
            assert final.at < 10
        for retrieval in waiting:
            retrieval.cancel()
        assert {retrieval.all()[-1].status for retrieval in waiting} == {0xFE00}


def test_no_more_moves_than_allowed_send_to_a_destination_at_once(start: Any) -> None:
    port, where = start(lambda _: "slow", max_moves=2)
    keys = {**TEN, "QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": INSTANCES[:2]}
    waiting = [retrieving.move(port, "DEST", **keys) for _ in range(5)]
    assert [retrieval.all()[-1].status for retrieval in waiting] == [0x0000] * 5
    assert where.most_open == 2
    assert where.associations == 5


def test_a_peer_that_goes_away_ends_its_move(start: Any) -> None:
    port, where = start(lambda _: "slow")
    retrieval = retrieving.move(port, "DEST", **WHOLE)
    next(retrieval.responses())
    retrieval.connection.close()
    time.sleep(1.5)
    sent = len(where.received)
    time.sleep(1)
    assert len(where.received) == sent < 12


# -- archives that cut, lack or refuse -------------------------------------------------------------------------


def is_series(path: str) -> bool:
    return path in (f"/studies/{STUDY}/series/{LONG}", f"/studies/{STUDY}/series/{SHORT}")


def test_a_long_series_is_one_request(start: Any, proxy: Proxy) -> None:
    port, _ = start(url=proxy.url)
    assert retrieving.move(port, "DEST", **WHOLE).all()[-1].counters["completed"] == 12
    fetched = sorted(path for path in proxy.paths if not path.partition("?")[1])
    expected = [f"/studies/{STUDY}/series/{LONG}"]
    assert fetched == expected + [f"/studies/{STUDY}/series/{SHORT}/instances/{uid}" for uid in INSTANCES[10:]]


def lacking_two(body: bytes) -> bytes:
    """Take the first two parts out, the framing stays right."""
    boundary = body[: body.index(b"\r\n")]
    parts = body.split(boundary)
    return boundary.join([parts[0], *parts[3:]])


@pytest.mark.parametrize(
    "rule",
    [Rule(cut_after=3_000), Rule(change=lacking_two), Rule(status=406), Rule(change=lambda _: b"nonsense")],
    ids=["cut", "two parts short", "refused", "nonsense"],
)
def test_what_a_series_request_does_not_bring_is_fetched_instance_by_instance(
    start: Any, proxy: Proxy, rule: Rule
) -> None:
    proxy.rule = lambda path: rule if is_series(path) else Rule()
    port, where = start(url=proxy.url)
    responses = retrieving.move(port, "DEST", **WHOLE).all()
    assert (responses[-1].status, responses[-1].counters["completed"]) == (0x0000, 12)
    assert sums(responses) == {12}
    assert sorted(one.sop_instance for one in where.received) == sorted(INSTANCES)


def test_one_instance_that_the_archive_has_lost_fails_alone(start: Any, proxy: Proxy) -> None:
    lost = INSTANCES[3]
    proxy.rule = lambda path: Rule(status=404) if is_series(path) or path.endswith(f"/{lost}") else Rule()
    port, _ = start(url=proxy.url)
    *_, final = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.failed) == (0xB000, [lost])
    assert final.counters == {"completed": 11, "failed": 1, "warning": 0}


def test_an_expansion_that_fails_is_a701(start: Any, proxy: Proxy) -> None:
    proxy.rule = lambda path: Rule(status=503) if "?" in path else Rule()
    port, where = start(url=proxy.url)
    (final,) = retrieving.move(port, "DEST", **WHOLE).all()
    assert final.status == 0xA701
    assert "archive main is busy" in final.comment
    assert not where.received


def test_pages_of_one_series_are_one_request_and_each_instance_is_sent_once(tmp_path: Path) -> None:
    with embedded_archive.running(tmp_path / "archive") as caller:
        uids = [f"{LONG}.{number}" for number in range(1, 26)]
        assert caller.store(*[embedded_archive.instance(STUDY, LONG, uid) for uid in uids]).status_code == 200
        caller.archive.switches.set(embedded_archive.Faults(short_page=4, repeated=1))
        with destination() as where, gateway(caller.archive.url, tmp_path / "gateway", DEST=where.peer) as port:
            responses = retrieving.move(port, "DEST", **WHOLE).all()
        assert responses[-1].counters == {"completed": 25, "failed": 0, "warning": 0}
        assert sums(responses) == {25}
        assert sorted(one.sop_instance for one in where.received) == sorted(uids)
        fetched = [line for line in caller.archive.switches.requests() if "?" not in line and "GET" in line]
        assert len(fetched) == 1


# -- contexts --------------------------------------------------------------------------------------------------


@pytest.fixture
def many_classes(tmp_path: Path) -> Iterator[str]:
    """Run an archive with 140 instances, each of a SOP class of its own."""
    with embedded_archive.running(tmp_path / "archive") as caller:
        files = [
            embedded_archive.instance(STUDY, LONG, f"{LONG}.{number}", SOPClassUID=STORAGE_CLASSES[number])
            for number in range(140)
        ]
        assert caller.store(*files).status_code == 200
        yield caller.archive.url


def test_more_classes_than_an_association_has_contexts_are_split(many_classes: str, tmp_path: Path) -> None:
    with (
        destination(classes=STORAGE_CLASSES[:100]) as where,
        gateway(many_classes, tmp_path / "gateway", DEST=where.peer) as port,
    ):
        *_, final = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.counters) == (0xB000, {"completed": 100, "failed": 40, "warning": 0})
    assert all(len(proposed) <= 128 for proposed in where.proposals)
    assert where.associations <= 5


def test_a_destination_that_takes_one_context_gets_each_class_on_an_association_of_its_own(tmp_path: Path) -> None:
    with embedded_archive.running(tmp_path / "archive") as caller:
        files = [
            embedded_archive.instance(STUDY, LONG, f"{LONG}.{number}", SOPClassUID=STORAGE_CLASSES[number // 3])
            for number in range(9)
        ]
        assert caller.store(*files).status_code == 200
        with (
            destination(most_contexts=1) as where,
            gateway(caller.archive.url, tmp_path / "gateway", DEST=where.peer) as port,
        ):
            *_, final = retrieving.move(port, "DEST", **WHOLE).all()
    assert (final.status, final.counters["completed"]) == (0x0000, 9)
    assert where.associations < 9


# -- C-GET -----------------------------------------------------------------------------------------------------


def test_a_get_counts_as_a_move_and_names_no_originator(start: Any) -> None:
    port, _ = start()
    retrieval = retrieving.get(port, [(SC, wire.EXPLICIT_LE)], **WHOLE)
    responses = retrieval.all()
    assert (responses[-1].status, responses[-1].counters["completed"]) == (0x0000, 12)
    assert sums(responses) == {12}
    assert sorted(one.sop_instance for one in retrieval.got) == sorted(INSTANCES)
    assert not any({0x1030, 0x1031} & one.command.keys() for one in retrieval.got)


def test_failures_and_warnings_of_the_peer_that_gets_are_counted(start: Any) -> None:
    port, _ = start()
    statuses = {INSTANCES[0]: 0xB007, INSTANCES[1]: 0xC000}
    retrieval = retrieving.get(port, [(SC, wire.EXPLICIT_LE)], answers=lambda uid: statuses.get(uid, 0), **TEN)
    final = retrieval.all()[-1]
    assert (final.status, final.counters) == (0xB000, {"completed": 8, "failed": 1, "warning": 1})
    assert final.failed == [INSTANCES[1]]


def test_a_response_without_a_status_is_no_success(start: Any) -> None:
    port, _ = start()
    answers = {INSTANCES[0]: retrieving.NO_STATUS}
    retrieval = retrieving.get(port, [(SC, wire.EXPLICIT_LE)], answers=lambda uid: answers.get(uid, 0), **TEN)
    final = retrieval.all()[-1]
    assert (final.status, final.counters) == (0xB000, {"completed": 9, "failed": 1, "warning": 0})
    assert final.failed == [INSTANCES[0]]


@pytest.mark.parametrize("role", ["class not proposed", "no SCP role"])
def test_a_get_sends_nothing_where_the_peer_is_no_scp(start: Any, role: str) -> None:
    port, _ = start()
    contexts = [("1.2.840.10008.5.1.4.1.1.2", wire.EXPLICIT_LE)]
    if role == "no SCP role":
        contexts.append((SC, wire.EXPLICIT_LE))
    retrieval = retrieving.get(port, contexts, without_role=[SC], **WHOLE)
    final = retrieval.all()[-1]
    assert (final.status, final.counters["failed"]) == (0xA702, 12)
    assert not retrieval.got


def test_500_instances_of_five_series_go_to_their_destination_over_one_association(
    start: Any, tmp_path: Path
) -> None:
    study = "1.2.5"
    uids = [f"{study}.{number % 5}.{number}" for number in range(500)]
    with embedded_archive.running(tmp_path / "archive") as caller:
        for at in range(0, 500, 100):
            files = [embedded_archive.instance(study, uid.rpartition(".")[0], uid) for uid in uids[at : at + 100]]
            assert caller.store(*files).status_code == 200
        port, where = start(url=caller.archive.url)
        responses = retrieving.move(port, "DEST", QueryRetrieveLevel="STUDY", StudyInstanceUID=study).all()
        assert (responses[-1].status, responses[-1].counters["completed"]) == (0x0000, 500)
        assert sums(responses) == {500}
        assert sorted(one.sop_instance for one in where.received) == sorted(uids)
        assert where.associations == 1

"""With `retrieve_early` the archive is asked for what is named while it searches, and what is sent is the same."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import embedded_archive
import pytest
import retrieving
from bench.peers import Archive, delayed
from destinations import Destination, destination
from meddling_proxy import Proxy, Rule, meddling
from processes import await_true

from gateway.app import running
from gateway.config import parse

STUDY = "1.2.3"
SERIES = [f"{STUDY}.{number}" for number in (1, 2, 3)]
INSTANCES = [f"{series}.{at}" for series, count in zip(SERIES, (30, 10, 2), strict=True) for at in range(count)]
OTHER, SHORT = "1.2.4", "1.2.4.1"
WHOLE = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY}
FIRST = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES[0]}
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"


class Site:
    """A gateway between a destination and an archive whose requests are seen."""

    def __init__(self, port: int, proxy: Proxy, where: Destination) -> None:
        self.port, self.proxy, self.where = port, proxy, where

    def retrievals(self) -> list[str]:
        return [path for path in self.proxy.paths if "?" not in path]

    def retrieved_before_searches(self, *, seconds: float) -> list[bool]:
        """Hold searches for a while; give a list that says of each whether a retrieval came before its answer."""
        asked, before = threading.Event(), list[bool]()

        def rule(path: str) -> Rule:
            if "?" in path:
                before.append(asked.wait(seconds))
            else:
                asked.set()
            return Rule()

        self.proxy.rule = rule
        return before

    def move(self, **options: Any) -> retrieving.Response:
        return retrieving.move(self.port, "DEST", **options).all()[-1]

    def received(self) -> list[str]:
        return sorted(one.sop_instance for one in self.where.received)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_archive.running(tmp_path_factory.mktemp("archive")) as caller:
        files = [embedded_archive.instance(STUDY, uid.rpartition(".")[0], uid) for uid in INSTANCES]
        files += [embedded_archive.instance(OTHER, SHORT, f"{SHORT}.{at}") for at in range(5)]
        assert caller.store(*files).status_code == 200
        yield caller.archive.url


@pytest.fixture
def start(archive: str, tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def start(*, round_trip: float = 0, **options: Any) -> Site:
            proxy, where = stack.enter_context(meddling(archive)), stack.enter_context(destination())
            line = Archive(proxy.url, "azure", lambda: 0)
            if round_trip:
                line = stack.enter_context(delayed(tmp_path, line, round_trip))
            main = {"url": line.url, "profile": "azure", "retrieve_early": True, **options}
            config = parse(
                {
                    "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
                    "archives": {"main": main},
                    "ae_titles": {"GATEWAY": {"archive": "main"}},
                    "peers": {"BENCH": {}, "DEST": where.peer},
                    "spool": {"folder": str(tmp_path / "spool"), "high_water": 1.0},
                    "retrieve": {"cache": {"size": 0 if round_trip else 1 << 30}},
                },
                "test",
            )
            return Site(stack.enter_context(running(config)).port, proxy, where)

        yield start
    assert not list(tmp_path.rglob("incoming/*")), "files were left behind"


@pytest.mark.parametrize(
    ("keys", "path", "expected"),
    [
        (WHOLE, f"/studies/{STUDY}", INSTANCES),
        (FIRST, f"/studies/{STUDY}/series/{SERIES[0]}", INSTANCES[:30]),
    ],
    ids=["study", "series"],
)
def test_what_is_named_is_asked_for_before_the_search_is_answered(
    start: Any, keys: dict[str, str], path: str, expected: list[str]
) -> None:
    site = start()
    before = site.retrieved_before_searches(seconds=20)
    final = site.move(**keys)
    assert path in site.retrievals()
    assert all(before)
    assert (final.status, final.counters) == (0x0000, {"completed": len(expected), "failed": 0, "warning": 0})
    assert site.received() == sorted(expected)


def test_the_first_instance_is_there_in_less_than_two_round_trips(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # the line is a process of tests/bench
    round_trip, other = 2.0, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": OTHER}
    site = start(round_trip=round_trip)
    assert site.move(**other).status == 0x0000  # from here on the gateway has its connections
    before, begun = len(site.where.received), time.monotonic()
    moving = retrieving.move(site.port, "DEST", **other)
    await_true(lambda: len(site.where.received) > before, 60)
    assert time.monotonic() - begun < 2 * round_trip
    assert moving.all()[-1].counters["completed"] == 5


def lacking_two(body: bytes) -> bytes:
    parts = body.split(boundary := body[: body.index(b"\r\n")])
    return boundary.join([parts[0], *parts[3:]])


@pytest.mark.parametrize(
    "rule",
    [
        Rule(wait=0.5),
        Rule(cut_after=3_000),
        Rule(change=lacking_two),
        Rule(status=404),
        Rule(change=lambda _: b"nonsense"),
    ],
    ids=["late", "cut", "two parts short", "not there", "nonsense"],
)
@pytest.mark.parametrize("keys", [WHOLE, FIRST], ids=["study", "series"])
def test_whatever_the_early_answer_is_each_instance_is_sent_once(
    start: Any, keys: dict[str, str], rule: Rule
) -> None:
    site, early = start(), f"/studies/{STUDY}" + (f"/series/{SERIES[0]}" if keys is FIRST else "")
    site.proxy.rule = lambda path: rule if path == early else Rule()
    final, expected = site.move(**keys), INSTANCES if keys is WHOLE else INSTANCES[:30]
    assert (final.status, final.counters["completed"], final.counters["failed"]) == (0x0000, len(expected), 0)
    assert site.received() == sorted(expected)
    assert early in site.retrievals()


def test_of_another_patient_nothing_is_sent_whatever_came_early(start: Any) -> None:
    site = start()
    final = site.move(sop_class=PATIENT_ROOT_MOVE, PatientID="ID2", **WHOLE)
    assert (final.status, final.counters) == (0x0000, {"completed": 0, "failed": 0, "warning": 0})
    assert not site.where.associations


def test_what_is_kept_is_not_asked_for_again(start: Any) -> None:
    site = start()
    assert site.move(**WHOLE).status == 0x0000
    before = site.retrievals()
    assert site.move(**WHOLE).counters["completed"] == len(INSTANCES)
    assert site.retrievals() == before


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"retrieve_early": False}, FIRST),
        ({"connections": 2}, FIRST),
        ({}, {**FIRST, "SeriesInstanceUID": SERIES[:2]}),
        ({}, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": [STUDY, "1.2.4"]}),
    ],
    ids=["not wanted", "too few connections", "two series", "two studies"],
)
def test_the_search_comes_first_where_early_is_not_wanted_or_not_possible(
    start: Any, options: dict[str, Any], keys: dict[str, Any]
) -> None:
    site = start(**options)
    before = site.retrieved_before_searches(seconds=0.5)
    assert site.move(**keys).status == 0x0000
    assert before[0] is False


def test_a_cancel_ends_an_early_answer_that_hangs(start: Any) -> None:
    site = start()
    site.proxy.rule = lambda _: Rule(wait=60)
    moving = retrieving.move(site.port, "DEST", **WHOLE)
    moving.cancel()
    assert [one.status for one in moving.all()][-1] == 0xFE00
    site.proxy.over.set()

"""A retrieve of more instances than a counter holds is counted to the last, and says what failed by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import retrieving
from destinations import destination
from meddling_proxy import Proxy, Rule, meddling

from gateway.app import running
from gateway.config import parse
from gateway.embedded.index import Addition, Index
from gateway.embedded.server import EmbeddedArchive

SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY, SERIES = "1.2.3", "1.2.3.1"
COUNT = 70_000
WHOLE = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY}
INSTANCES = [f"{SERIES}.{number}" for number in range(COUNT)]


def addition(uid: str) -> Addition:
    values = {"00080016": SC, "00080018": uid, "0020000D": STUDY, "0020000E": SERIES}
    model: dict[str, Any] = {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}
    return Addition((STUDY, SERIES, uid), "none", "1.2.840.10008.1.2.1", model)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Run an archive that lists many instances and is too busy to give any."""
    folder = tmp_path_factory.mktemp("archive")
    index = Index(folder / "index.sqlite3")
    try:
        index.add([addition(uid) for uid in INSTANCES])
    finally:
        index.close()
    with EmbeddedArchive(folder) as embedded, meddling(embedded.url) as proxy:
        proxy.rule = lambda path: Rule() if "?" in path else Rule(status=503)
        yield proxy


@contextmanager
def moved(archive: Proxy, folder: Path, max_scanned: int) -> Iterator[list[retrieving.Response]]:
    with destination() as where:
        config = {
            "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
            "archives": {"main": {"url": archive.url, "profile": "azure", "max_scanned": max_scanned}},
            "ae_titles": {"GATEWAY": {"archive": "main"}},
            "peers": {"BENCH": {}, "DEST": where.peer},
            "spool": {"folder": str(folder), "high_water": 1.0},
        }
        with running(parse(config, "test")) as gateway:
            yield retrieving.move(gateway.port, "DEST", **WHOLE).all()


def test_more_instances_than_a_counter_holds_are_counted_to_the_last(archive: Proxy, tmp_path: Path) -> None:
    with moved(archive, tmp_path, max_scanned=100_000) as responses:
        final = responses[-1]
        assert (final.status, final.counters) == (0xA702, {"completed": 0, "failed": 65_535, "warning": 0})
        assert sorted(final.failed) == sorted(INSTANCES)


def test_more_instances_than_may_be_read_are_refused_and_none_is_sent(archive: Proxy, tmp_path: Path) -> None:
    with moved(archive, tmp_path, max_scanned=1_000) as responses:
        assert responses[-1].status == 0xA701
        assert "too broad" in responses[-1].comment

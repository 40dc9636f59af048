"""What an archive can do, as the operator finds it in the outbox and as a peer that waits is told."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from bench.instances import SOP_CLASS, Batch
from gateway_process import GatewayProcess
from load import store
from processes import await_true, free_port
from scripted_server import Answer, Script, scripted

from gateway.outbox import Ledger
from gateway.translate.part10 import file_header

SIZE = 1_000_000  # more than the sockets between us hold


def batch_of(name: str) -> Batch:
    return Batch(run=300 + list(CASES).index(name), count=1, size=SIZE)


def stow(name: str, status: int = 200, reason: int | None = None) -> Answer:
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [batch_of(name)._uid(3, 0)]}}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    body = {"00081199" if reason is None else "00081198": {"vr": "SQ", "Value": [item]}}
    return Answer(status, {"Content-Type": "application/dicom+json"}, json.dumps(body).encode())


def retrieved(name: str, *, changed: bool) -> Answer:
    batch = batch_of(name)
    header = batch._header(0)
    data = header + bytes(SIZE - len(header) - changed) + b"x" * changed
    file = file_header(SOP_CLASS, batch._uid(3, 0), "1.2.840.10008.1.2.1") + data
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--x--\r\n"
    return Answer(200, {"Content-Type": "multipart/related; boundary=x"}, body)


@dataclass(frozen=True)
class Case:
    """What the archive answers (none: it is down); what becomes of the instance, and what a peer is told."""

    state: str
    status: int
    answers: list[str | Answer] = field(default_factory=list)
    reason: str = ""
    requests: int = 1


CASES = {
    "down": Case("todo", 0xA700, reason="connection failed"),
    "503": Case("done", 0xA700, [Answer(503), "stored"], requests=2),
    "429": Case("done", 0xA700, [Answer(429, {"Retry-After": "2"}), "stored"], requests=2),
    "401": Case("todo", 0x0124, [Answer(401)], reason="401"),
    "reset": Case("done", 0xA700, [Answer(reset=True), "stored"], requests=2),
    "dropped": Case("done", 0xA700, [Answer(drop=True), "stored"], requests=2),
    "cut": Case("done", 0x0110, ["stored, but cut", "stored"], requests=2),
    "301": Case("todo", 0x0110, [Answer(301, {"Location": "http://127.0.0.2:9/v2/studies"})], reason="301"),
    "hang": Case("done", 0xA700, [Answer(wait=30), "stored"], requests=2),
    "202": Case("set aside", 0xA900, ["refused"], reason="A900H"),
    "same": Case("done", 0x0000, ["duplicate", "the same"], requests=2),
    "other": Case("set aside", 0x0111, ["duplicate", "another"], reason="keeps another object", requests=2),
    "413": Case("set aside", 0xA700, [Answer(413)], reason="413"),
}


def script(name: str) -> list[Answer]:
    named = {
        "stored": stow(name),
        "stored, but cut": replace(stow(name), cut=True),
        "refused": stow(name, 202, 0xA900),
        "duplicate": stow(name, 409, 45070),
        "the same": retrieved(name, changed=False),
        "another": retrieved(name, changed=True),
    }
    return [named[answer] if isinstance(answer, str) else answer for answer in CASES[name].answers]


class Archives:
    """A gateway with an archive for each case and each way to acknowledge, and a called AE title for each."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.token = folder / "token"
        self.token.write_text("old")
        self.scripts: dict[str, Script] = {}
        archives, titles = {}, {}
        for name, case in CASES.items():
            for acknowledge, letter in (("spooled", "S"), ("archived", "A")):
                url = f"http://127.0.0.1:{free_port()}/v2"
                if case.answers:
                    self.scripts[letter + name] = stack.enter_context(scripted(*script(name)))
                    url = self.scripts[letter + name].url
                archives[letter + name] = {
                    "url": url,
                    "read_timeout": 1.5,
                    "delivery": {"connections": 1, "retry_first": 0.1, "retry_longest": 0.3},
                    **({"auth": {"kind": "bearer", "token_file": str(self.token)}} if name == "401" else {}),
                }
                titles[(letter + name).upper()] = {"archive": letter + name, "acknowledge": acknowledge}
        self.gateway = stack.enter_context(
            GatewayProcess(folder, archives=archives, ae_titles=titles, unknown_peers="accept")
        )

    def send(self, letter: str, name: str) -> int:
        (status,) = store(self.gateway.port, batch_of(name), called=(letter + name).upper())
        return status

    def entry(self, name: str) -> tuple[str, int, str]:
        """Give state, attempts and reason of an instance that was spooled."""
        outbox = self.gateway.folder / "spool" / "outbox" / "outbox.db"
        connection = sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)
        try:
            query = "SELECT state, attempts, reason FROM entries WHERE archive = ?"
            return connection.execute(query, (f"S{name}",)).fetchone()  # type: ignore[no-any-return]
        finally:
            connection.close()

    def kept(self) -> int:
        """Count the instances that the outbox keeps."""
        with Ledger(self.gateway.folder / "spool" / "outbox") as outbox:
            return sum(entry.extent.exists() for entry in outbox.entries())


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    with ExitStack() as stack:
        yield Archives(tmp_path_factory.mktemp("archives"), stack)


def test_a_new_token_is_used_as_soon_as_it_is_there(archives: Archives) -> None:
    script = archives.scripts["S401"]
    assert archives.send("S", "401") == 0x0000
    await_true(lambda: "401" in archives.entry("401")[2], what="the reason")
    assert {request.headers["authorization"] for request in script.requests} == {"Bearer old"}
    archives.token.write_text("new")
    await_true(lambda: script.requests[-1].headers["authorization"] == "Bearer new", 30, "the new token")
    script.answers[:] = [stow("401")]  # not before: the next attempt may just begin with the old one
    await_true(lambda: archives.entry("401")[0] == "done", 30, "the delivery")
    assert script.requests[-1].headers["authorization"] == "Bearer new"


@pytest.mark.parametrize("name", [name for name in CASES if name != "401"])
def test_what_becomes_of_an_instance_that_waits_in_the_outbox(archives: Archives, name: str) -> None:
    case = CASES[name]
    assert archives.send("S", name) == 0x0000
    await_true(lambda: archives.entry(name)[0] == case.state, 30, f"an instance that is {case.state}")
    if case.answers and case.state != "todo":
        assert len(archives.scripts[f"S{name}"].requests) == case.requests
    await_true(lambda: case.reason in archives.entry(name)[2], what="the reason")


@pytest.mark.parametrize("name", CASES)
def test_what_a_peer_is_told_that_waits_for_the_archive(archives: Archives, name: str) -> None:
    before = archives.kept()
    assert archives.send("A", name) == CASES[name].status
    assert archives.kept() <= before
    assert "Traceback" not in archives.gateway.log


def test_retry_after_is_waited_for(archives: Archives) -> None:
    first, second = archives.scripts["S429"].requests
    assert second.when - first.when > 1.9


def test_what_is_set_aside_stays_in_the_spool(archives: Archives) -> None:
    time.sleep(0.2)
    assert archives.kept() == sum(archives.entry(name)[0] != "done" for name in CASES)


def test_archives_that_all_hang_delay_the_stop_by_one_grace_time(tmp_path: Path) -> None:
    with scripted(Answer(wait=60)) as hanging:
        names = [f"FAR{number}" for number in range(8)]
        with GatewayProcess(
            tmp_path,
            archives={name: {"url": hanging.url, "read_timeout": 60} for name in names},
            ae_titles={name: {"archive": name, "acknowledge": "spooled"} for name in names},
            unknown_peers="accept",
        ) as gateway:
            for name in names:
                assert store(gateway.port, batch_of("hang"), called=name) == [0x0000]
            await_true(lambda: len(hanging.requests) == len(names), what="the requests")
            assert gateway.stop() == 0
            assert "is killed" not in gateway.log

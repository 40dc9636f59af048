"""What the embedded archive acknowledged outlives its process; what it did not leaves nothing behind."""

import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from embedded_archive import JSON, ORIGINAL, instance, multipart, parts, reasons, running, values

from gateway.embedded.index import Addition, Index
from gateway.embedded.server import EmbeddedArchive

INSTANCE = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
RELATED = JSON | {"Content-Type": "multipart/related; boundary=b"}

# Runs an archive until its standard input ends, or until the process kills itself at the n-th call of a function.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from gateway.embedded.index import Addition, Index
from gateway.embedded.server import EmbeddedArchive

folder, function, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with EmbeddedArchive(Path(folder)) as archive:
    if function:
        real, left = getattr(os, function), [count]
        def deadly(*arguments, **options):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, function, deadly)
    print(archive.url, flush=True)
    sys.stdin.read()
"""


class Process:
    def __init__(self, process: subprocess.Popen, url: str) -> None:
        self.url = url
        self.process = process


@contextmanager
def process(folder: Path, function: str = "", count: int = 0) -> Iterator[Process]:
    """Run an archive in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, folder, function, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield Process(running, running.stdout.readline().strip())
        finally:
            running.kill()


def whole(folder: Path) -> int:
    """Assert that an archive's folder has no more and no less than its index says; give the number of instances."""
    with running(folder) as caller:
        answer = caller.get("/instances?limit=200")
        found = answer.json() if answer.status_code == 200 else []
        for model in found:
            study, series, sop = (values(model, tag)[0] for tag in ("0020000D", "0020000E", "00080018"))
            [(_, body)] = parts(caller.get(f"/studies/{study}/series/{series}/instances/{sop}", ORIGINAL))
            assert body == instance(study, series, sop)
        studies = caller.get("/studies")
        assert (studies.status_code == 200) == bool(found)
    assert not list(folder.glob("incoming/*"))
    assert len(list(folder.glob("instances/*/*"))) == len(found)
    return len(found)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        ("write", 1),  # the instance's file
        ("fsync", 1),  # the instance's file
        ("fsync", 2),  # a new folder
        ("rename", 1),  # to its own name
        ("fsync", 3),  # the folder of that name; the next is the index's commit
    ],
)
def test_a_kill_between_two_steps_leaves_nothing_half_stored(tmp_path, function, count):
    with process(tmp_path, function, count) as archive:
        with pytest.raises(httpx.TransportError):
            httpx.post(archive.url + "/studies", content=multipart([instance()]), headers=RELATED)
        assert archive.process.wait(10) == -signal.SIGKILL
    assert whole(tmp_path) == 0
    with process(tmp_path) as archive:
        assert (
            httpx.post(archive.url + "/studies", content=multipart([instance()]), headers=RELATED).status_code == 200
        )


def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path):
    acknowledged = []

    def send(url: str, client: int) -> None:
        with httpx.Client() as http:
            for number in range(1000):
                file = instance(f"1.{client}", f"1.{client}.1", f"1.{client}.1.{number}")
                try:
                    answer = http.post(url + "/studies", content=multipart([file]), headers=RELATED)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged.append(number)

    with process(tmp_path) as archive:
        clients = [threading.Thread(target=send, args=(archive.url, client)) for client in (1, 2, 3)]
        for client in clients:
            client.start()
        while len(acknowledged) < 30:
            assert any(client.is_alive() for client in clients)
        archive.process.kill()
        for client in clients:
            client.join()
    found = whole(tmp_path)
    assert len(acknowledged) <= found <= len(acknowledged) + 3


def test_an_interrupted_delete_is_finished_at_the_next_start(tmp_path):
    with process(tmp_path, "unlink", 2) as archive:  # the first one is the instance's name in incoming/
        httpx.post(archive.url + "/studies", content=multipart([instance()]), headers=RELATED)
        with pytest.raises(httpx.TransportError):
            httpx.delete(archive.url + "/studies/1.2.1")
    assert len(list(tmp_path.glob("instances/*/*"))) == 1
    assert whole(tmp_path) == 0


def test_an_upload_that_its_client_aborts_leaves_nothing(tmp_path):
    class AbortedError(Exception):
        pass

    def body():
        yield multipart([instance()])[:-10] + bytes(1 << 20)
        raise AbortedError

    with running(tmp_path) as caller:
        with pytest.raises(AbortedError):
            caller.http.post(caller.archive.url + "/studies", content=body(), headers=RELATED)
        assert caller.store(instance()).status_code == 200
    assert whole(tmp_path) == 1


UPLOAD = (
    b"POST /v2/studies HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nContent-Type: application/dicom\r\n"
    b"Content-Length: 10000000\r\n\r\n"
) + bytes(1 << 20)


def test_stalled_uploads_keep_no_search_waiting(tmp_path):
    with running(tmp_path) as caller, ExitStack() as stack:
        for _ in range(45):
            address = caller.archive.url.split("/")[2].split(":")
            stack.enter_context(socket.create_connection(address, timeout=20)).sendall(UPLOAD)
        while len(list(tmp_path.glob("incoming/*"))) < 32:
            time.sleep(0.01)
        assert caller.get("/studies").status_code == 204


def test_what_cannot_be_indexed_harms_no_other_instance_of_the_same_commit(tmp_path):
    index = Index(tmp_path / "index.sqlite3")
    model = {"0020000D": {"vr": "UI", "Value": ["1.1"]}}
    outcomes = {}

    def add(name: str, file: object) -> None:
        try:
            outcomes[name] = index.add([Addition(("1.1", "1.2", name), file, "1.2.3", model)])
        except sqlite3.Error as error:
            outcomes[name] = type(error)

    writers = [
        threading.Thread(target=add, args=one) for one in (("1", "a"), ("2", "b"), ("3", object()), ("4", "d"))
    ]
    with closing(sqlite3.connect(tmp_path / "index.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the first writer waits for it, the others for the first
        for writer in writers:
            writer.start()
            time.sleep(0.05)
        other.execute("ROLLBACK")
        for writer in writers:
            writer.join()
    index.close()
    added = ([True], [])
    assert outcomes == {"1": added, "2": added, "3": sqlite3.ProgrammingError, "4": added}


def test_a_client_that_stalls_in_its_upload_does_not_hold_up_the_stop(tmp_path):
    archive = EmbeddedArchive(tmp_path)
    archive.start()
    with socket.create_connection(archive.url.split("/")[2].split(":"), timeout=20) as client:
        client.sendall(UPLOAD)
        while not list(tmp_path.glob("incoming/*")):
            time.sleep(0.01)
        begin = time.monotonic()
        archive.stop()
        assert time.monotonic() - begin < 10
    assert not list(tmp_path.glob("incoming/*"))


def test_a_delete_leaves_no_rows(tmp_path):
    with running(tmp_path) as caller:
        caller.store(instance(), instance("1.2.2", sop="1.2.2.1"))
        assert caller.delete("/studies/1.2.1").status_code == 204
    with closing(sqlite3.connect(tmp_path / "index.sqlite3")) as index:
        tables = ("study", "series", "instance", "metadata")
        assert [index.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables] == [(1,)] * 4


def test_a_folder_is_for_one_archive_at_a_time(tmp_path):
    with running(tmp_path) as caller:
        with pytest.raises(BlockingIOError), EmbeddedArchive(tmp_path):
            pass
        assert caller.store(instance()).status_code == 200
    assert whole(tmp_path) == 1


@pytest.mark.parametrize("version", [0, 2])
def test_an_index_of_another_version_is_left_alone(tmp_path, version):
    with closing(sqlite3.connect(tmp_path / "index.sqlite3")) as index:
        index.executescript(f"CREATE TABLE study (key); PRAGMA user_version = {version};")
    with pytest.raises(OSError, match="another version"), EmbeddedArchive(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "index.sqlite3")) as index:
        assert index.execute("SELECT name FROM sqlite_schema").fetchall() == [("study",)]


def test_an_index_that_is_no_database_is_an_oserror(tmp_path):
    (tmp_path / "index.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match="cannot be used"), EmbeddedArchive(tmp_path):
        pass


def test_many_clients_store_at_the_same_time_and_each_gets_its_own_outcome(tmp_path):
    with running(tmp_path) as caller:
        outcomes = {}

        def send(client: int) -> None:
            files = [instance("1.1", f"1.1.{client}", f"1.1.{client}.{number % 7}") for number in range(8)]
            outcomes[client] = caller.store(*files)

        clients = [threading.Thread(target=send, args=(client,)) for client in range(1, 7)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        for client, answer in outcomes.items():
            assert (answer.status_code, reasons(answer)) == (202, [45070])
            assert len(values(answer.json(), "00081199")) == 7, client
        [study] = caller.get("/studies?includefield=NumberOfStudyRelatedInstances").json()
        assert values(study, "00201208") == [42]


def test_a_full_disk_stores_nothing_and_says_so(tmp_path):
    """A limit on the size of files stands for the disk: writing fails in the middle of the instance."""
    with process(tmp_path) as archive:
        psutil.Process(archive.process.pid).rlimit(psutil.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        large = multipart([instance(EncapsulatedDocument=bytes(2 << 20))])
        assert httpx.post(archive.url + "/studies", content=large, headers=RELATED).status_code == 503
        assert httpx.get(archive.url + "/studies", headers=JSON).status_code == 204
        assert not list(tmp_path.glob("incoming/*"))


MEGABYTES = 300


def test_an_instance_of_any_size_passes_in_little_memory(tmp_path):
    head = instance(EncapsulatedDocument=bytes(2))
    before, document, after = head.rpartition(b"\x42\x00\x11\x00OB\0\0\x02\0\0\0")
    size = MEGABYTES << 20
    document = document[:-4] + size.to_bytes(4, "little")
    piece = os.urandom(1 << 16)

    def body() -> Iterator[bytes]:
        yield b"--b\r\nContent-Type: application/dicom\r\n\r\n" + before + document
        for _ in range(size // len(piece)):
            yield piece
        yield after[2:] + b"\r\n--b--\r\n"

    with process(tmp_path) as archive:
        watched = psutil.Process(archive.process.pid)
        peaks = [watched.memory_info().rss]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.01):
                peaks.append(watched.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            answer = httpx.post(archive.url + "/studies", content=body(), headers=RELATED, timeout=60)
            assert answer.status_code == 200, answer.text
            accept = {"Accept": "application/dicom; transfer-syntax=*"}
            received = io.BytesIO()
            with httpx.stream("GET", archive.url + INSTANCE, headers=accept, timeout=60) as got:
                total = sum(
                    len(chunk) if received.tell() > 1000 else received.write(chunk) for chunk in got.iter_raw()
                )
        finally:
            over.set()
            watcher.join()
    assert total == len(before) + len(document) + size + len(after) - 2
    assert received.getvalue().startswith(before + document)
    assert max(peaks) - peaks[0] < 60 << 20

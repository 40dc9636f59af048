"""The operator's command on a real outbox, alone and beside a process that has it open."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import audit_trail
import dcmtk
import pydicom.data
import pytest
from gateway_process import ROOT, GatewayProcess
from processes import await_true, free_port
from pydicom import dcmread
from queue_command import QueueCommand
from spooled import arrival, content, left_over, lose, put

from gateway.embedded.server import EmbeddedArchive
from gateway.outbox import FILE_LOST, Entry, Limits, Outbox, State

CT = Path(pydicom.data.__file__).parent / "test_files/CT_small.dcm"
LIMITS = Limits(high_water=1)
REFUSED = "archive main refused the instance, reason C000H"


@pytest.fixture
def queue(tmp_path: Path) -> QueueCommand:
    """Leave a queue behind: a delivered study 1.1; 1.2 delivered, set aside, backing off, waiting; 1.3 waiting."""
    command = QueueCommand(tmp_path)
    with Outbox(command.spool, LIMITS) as outbox:
        for study, count in (("1.1", 2), ("1.2", 4), ("1.3", 1)):
            for number in range(count):
                put(outbox, arrival(f"{study}.9.{number}", study=study), content((study, number)))
        entries = outbox.claim("main", count=5, max_bytes=10**9, lease=600)
        outbox.done([entry.id for entry in entries[:3]])
        outbox.set_aside(entries[3].id, REFUSED)
        outbox.retry(entries[4].id, time.time() + 3600, "archive main: no connection")
        put(outbox, arrival("1.3.9.0", study="1.3", archive="other"), content("other"))
    return command


def left(queue: QueueCommand) -> dict[tuple[str, str], State]:
    with Outbox(queue.spool, LIMITS) as outbox:
        return {(entry.sop_instance, entry.archive): entry.state for entry in outbox.entries()}


def entry(queue: QueueCommand, instance: str) -> Entry:
    with Outbox(queue.spool, LIMITS) as outbox:
        (found,) = outbox.find(sop_instance=instance)
    return found


# list


def test_the_list_says_of_each_study_what_was_delivered_waits_or_is_set_aside_and_why(queue: QueueCommand) -> None:
    first, second, other = queue.json("list")
    assert (first["study"], first["archive"], first["received"]) == ("1.2", "main", 4)
    assert (first["delivered"], first["waiting"], first["sending"], first["set_aside"]) == (1, 2, 0, 1)
    assert first["reason"] == REFUSED
    assert (second["study"], second["waiting"], second["reason"]) == ("1.3", 1, "")
    assert (other["study"], other["archive"]) == ("1.3", "other")


def test_a_person_reads_the_same_in_a_table_with_whole_uids_in_80_columns(queue: QueueCommand) -> None:
    study = "1.2.826.0.1.3680043.8.498.13230779778012324449356534479549187420"
    with Outbox(queue.spool, LIMITS) as outbox:
        put(outbox, arrival("1.9", study=study), b"x")
    printed = queue("list").stdout
    assert all(text in printed for text in (study, REFUSED, "4 received", "1 delivered", "1 set-aside"))
    assert "In the queue: 4 waiting, 1 set-aside" not in printed
    assert "In the queue: 5 waiting, 1 set-aside" in printed
    assert "No gateway has this queue open" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_delivered_study_is_listed_when_it_is_named_or_all_are_wanted(queue: QueueCommand) -> None:
    assert [study["study"] for study in queue.json("list", "--all")] == ["1.1", "1.2", "1.3", "1.3"]
    (study,) = queue.json("list", "1.1")
    assert (study["delivered"], study["received"], study["next_attempt"]) == (2, 2, None)
    assert queue.json("list", "9.9") == []


def test_the_list_can_be_of_an_archive_of_a_state_or_of_instances(queue: QueueCommand) -> None:
    assert [study["study"] for study in queue.json("list", "--archive", "other")] == ["1.3"]
    assert [study["study"] for study in queue.json("list", "--state", "set-aside")] == ["1.2"]
    aside, backing_off = queue.json("list", "1.2", "--instances", "--limit", "3")[1:]
    assert (aside["instance"], aside["state"], aside["attempts"]) == ("1.2.9.1", "set-aside", 1)
    assert backing_off["reason"] == "archive main: no connection"
    assert backing_off["next_attempt"] is not None
    assert "There are more" in queue("list", "--limit", "2").stdout
    assert "There are more" not in queue("list", "--limit", "3").stdout


def test_what_an_archive_said_can_neither_colour_nor_steer_the_terminal(queue: QueueCommand) -> None:
    with Outbox(queue.spool, LIMITS) as outbox:
        (claimed,) = outbox.claim("other", count=1, max_bytes=10**9, lease=600)
        outbox.set_aside(claimed.id, "[red]no[/red] \x1b[31mno\x1b]0;no\x07")
    printed = queue("list").stdout
    assert "[red]no[/red]" in printed
    assert "\x1b" not in printed
    assert "\x07" not in printed


def test_the_list_names_an_archive_that_is_not_configured_any_more(queue: QueueCommand) -> None:
    assert "Not in the configuration" not in queue("list").stdout
    with Outbox(queue.spool, LIMITS) as outbox:
        put(outbox, arrival("1.9", study="1.9", archive="gone"), b"x")
    assert "Not in the configuration, so nothing goes there: gone." in queue("list").stdout


# retry, hold, release


def test_retry_takes_what_is_set_aside_and_what_backs_off(queue: QueueCommand) -> None:
    assert queue.json("retry", "1.2") == [{"retried": 2, "file_lost": 0}]
    with Outbox(queue.spool, LIMITS) as outbox:
        assert len(outbox.claim("main", count=9, max_bytes=10**9, lease=60)) == 4
    assert queue.json("retry", "--all", code=1) == [{"retried": 0, "file_lost": 0}]


def test_retry_says_which_have_no_file_any_more(queue: QueueCommand) -> None:
    lost = entry(queue, "1.2.9.1")
    lose(lost)
    with Outbox(queue.spool, LIMITS) as outbox:  # as the delivery does that finds it so
        outbox.retry_now(ids=[lost.id])
        assert [one.id for one in outbox.claim("main", count=1, max_bytes=10**9, lease=60)] == [lost.id]
        outbox.set_aside(lost.id, FILE_LOST)
    assert entry(queue, "1.2.9.1").reason == FILE_LOST
    assert queue.json("retry", "--all") == [{"retried": 1, "file_lost": 1}]


def test_a_hold_keeps_what_is_there_and_what_comes_until_the_release(queue: QueueCommand) -> None:
    assert queue.json("hold", "1.3", "--archive", "main") == [{"held": 1, "sending": 0}]
    with Outbox(queue.spool, LIMITS) as outbox:
        put(outbox, arrival("1.3.9.7", study="1.3"), b"new")
    assert left(queue)["1.3.9.7", "main"] is State.HELD
    assert left(queue)["1.3.9.0", "other"] is State.TODO
    assert queue.json("release", "1.3") == [{"released": 2, "held": 0}]


def test_an_archive_can_be_held_as_a_whole_and_a_study_s_release_does_not_pierce_that(queue: QueueCommand) -> None:
    assert queue.json("hold", "--archive", "main") == [{"held": 3, "sending": 0}]
    with Outbox(queue.spool, LIMITS) as outbox:
        put(outbox, arrival("1.7.9", study="1.7"), b"new")
        assert outbox.claim("main", count=9, max_bytes=10**9, lease=60) == []
    released = queue("release", "1.3")
    assert released.returncode == 1
    assert "Released: 0 instances." in released.stdout
    assert "every study for main" in released.stdout
    assert queue.json("release", "--all") == [{"released": 4, "held": 0}]
    assert State.HELD not in left(queue).values()


# export


def test_export_copies_byte_for_byte_and_leaves_the_queue_alone(queue: QueueCommand, tmp_path: Path) -> None:
    before = left(queue)
    with entry(queue, "1.2.9.1").extent.open() as file:
        wanted = file.read()
    (result,) = queue.json("export", tmp_path / "out", "--state", "set-aside")
    assert (result["written"], result["bytes"], result["gone"]) == (1, len(wanted), 0)
    assert [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*") if p.is_file()] == [
        Path("1.2/1.2.9.1.dcm")
    ]
    assert (tmp_path / "out" / "1.2" / "1.2.9.1.dcm").read_bytes() == wanted
    assert left(queue) == before


def test_export_overwrites_nothing_and_can_be_repeated(queue: QueueCommand, tmp_path: Path) -> None:
    (result,) = queue.json("export", tmp_path / "out", "1.3")
    assert result["written"] == 2  # one UID, two archives, two contents
    files = {path.name: path.read_bytes() for path in (tmp_path / "out" / "1.3").iterdir()}
    assert len(set(files.values())) == 2
    assert "1.3.9.0.dcm" in files
    (again,) = queue.json("export", tmp_path / "out", "1.3")
    assert (again["written"], again["already_there"]) == (0, 2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "1.3").iterdir()} == files


def test_export_says_when_a_file_is_gone_or_nothing_was_there(queue: QueueCommand, tmp_path: Path) -> None:
    lose(entry(queue, "1.2.9.3"))
    (result,) = queue.json("export", tmp_path / "out", "1.2", code=1)
    assert (result["written"], result["gone"]) == (2, 1)
    assert queue.json("export", tmp_path / "out", "1.1", code=1)[0]["written"] == 0


def test_a_uid_that_is_a_path_does_not_lead_out_of_the_folder(queue: QueueCommand, tmp_path: Path) -> None:
    with Outbox(queue.spool, LIMITS) as outbox:
        put(outbox, arrival("../../outside", study="../outside"), b"x")
    queue.json("export", tmp_path / "a" / "out", "../outside")
    (file,) = (path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert file.parent == tmp_path / "a" / "out" / "other"


# discard


def test_discard_asks_and_a_no_or_no_answer_deletes_nothing(queue: QueueCommand) -> None:
    before = left(queue)
    for answer in ("n\n", "", "\n"):
        ran = queue("discard", "1.2", answer=answer)
        assert ran.returncode == 1
        assert "3 instances of 1 study" in ran.stderr
    assert left(queue) == before


def test_discard_deletes_after_a_yes_but_never_what_is_delivered(queue: QueueCommand) -> None:
    assert queue("discard", "1.2", answer="y\n").returncode == 0
    assert [instance for instance, _ in left(queue) if instance.startswith("1.2.")] == ["1.2.9.0"]
    assert queue.json("discard", "1.1", "--yes", code=1) == [{"discarded": 0}]
    assert queue.json("discard", "--all", "--yes") == [{"discarded": 2}]
    assert set(left(queue).values()) == {State.DONE}
    assert left_over(queue.spool) == []


def test_discard_of_a_state_leaves_the_others(queue: QueueCommand) -> None:
    assert queue.json("discard", "--state", "set-aside", "--yes") == [{"discarded": 1}]
    assert State.SET_ASIDE not in left(queue).values()
    assert len(left(queue)) == 7


def test_discard_and_export_are_told_to_the_audit_trail_once_for_each_study(
    queue: QueueCommand, tmp_path: Path
) -> None:
    assert queue("export", tmp_path / "out", "1.2").returncode in (0, 1)
    assert queue("discard", "1.2", "--yes").returncode == 0
    assert queue("discard", "1.2", "--yes").returncode == 1
    told = audit_trail.of_kind(audit_trail.in_folder(queue.spool.parent / "audit"), "110103")
    assert [root.find("EventIdentification").get("EventActionCode") for root in told] == ["R", "D"]
    for root in told:
        assert list(audit_trail.parts(root).studies) == ["1.2"]
    assert sum(audit_trail.parts(told[1]).studies["1.2"].values()) == 3


# what goes wrong


@pytest.mark.parametrize("command", ["retry", "hold", "release", "discard"])
def test_a_command_without_a_selection_does_nothing_and_says_what_it_needs(command: str, queue: QueueCommand) -> None:
    before = left(queue)
    ran = queue(command)
    assert ran.returncode == 2
    assert "--all" in ran.stderr
    assert left(queue) == before


def test_a_mistyped_archive_is_an_error_and_no_empty_answer(queue: QueueCommand) -> None:
    ran = queue("list", "--archive", "mian")
    assert ran.returncode == 2
    assert "main" in ran.stderr


@pytest.mark.parametrize("asked", ["list", "commitments"])
def test_a_folder_without_an_outbox_is_an_error_and_stays_as_it_is(asked: str, tmp_path: Path) -> None:
    command = QueueCommand(tmp_path)
    ran = command(asked)
    assert ran.returncode == 2
    assert "holds no outbox" in ran.stderr
    assert not command.spool.parent.exists()


# beside another process

OWNER = """
import sys
from pathlib import Path
from spooled import arrival, put
from gateway.outbox import Limits, Outbox
with Outbox(Path(sys.argv[1]), Limits(high_water=1)) as outbox:
    with outbox.incoming("CT01", b"x" * 200) as incoming:
        leased = outbox.claim("main", count=1, max_bytes=10**9, lease=600)
        print(leased[0].sop_instance, flush=True)
        for number, line in enumerate(sys.stdin):
            put(outbox, arrival(f"1.8.{number}", study="1.8"), b"new")
            print(len(outbox.claim("main", count=9, max_bytes=10**9, lease=600)), flush=True)
    assert list(outbox.renew([leased[0].id], 60)) == [leased[0].id], "the lease was lost"
"""


@contextmanager
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def ask(process: subprocess.Popen[str]) -> int:
    """Let the owner take one instance in and claim all that is due; give how many that were."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def test_a_running_owner_keeps_its_leases_and_files_and_obeys_the_operator(queue: QueueCommand) -> None:
    with owner(queue.spool) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "1.2.9.3\n"
        assert queue.json("list", "1.2")[0]["sending"] == 1
        assert "No gateway" not in queue("list").stdout
        assert left_over(queue.spool)
        assert queue.json("hold", "--archive", "main") == [{"held": 2, "sending": 1}]
        assert ask(running) == 0
        assert queue.json("release", "--all") == [{"released": 3, "held": 0}]
        assert ask(running) == 4
        assert queue.json("list", "1.8")[0]["sending"] == 2
        assert len(list((queue.spool / "owners").iterdir())) == 1  # the command has none


def test_an_operator_holds_releases_and_follows_what_a_running_gateway_delivers(tmp_path: Path) -> None:
    study, port = str(dcmread(CT, stop_before_pixels=True).StudyInstanceUID), free_port()
    sections = {
        "archives": {
            "far": {
                "url": f"http://127.0.0.1:{port}/v2",
                "profile": "embedded",
                "delivery": {"retry_first": 600, "retry_longest": 600},
            }
        },
        "ae_titles": {"GATEWAY": {"archive": "far", "acknowledge": "spooled"}},
        "unknown_peers": "accept",
    }
    with GatewayProcess(tmp_path, **sections) as gateway:
        queue = QueueCommand(tmp_path)
        assert dcmtk.storescu(gateway.port, CT).statuses == [0x0000]

        def listed() -> dict[str, Any]:
            return queue.json("list", study)[0]

        await_true(lambda: "far" in listed()["reason"], what="the reason")
        assert (listed()["waiting"], listed()["delivered"]) == (1, 0)
        assert queue.json("hold", study) == [{"held": 1, "sending": 0}]
        with EmbeddedArchive(tmp_path / "far", port=port):
            assert queue.json("retry", study, code=1) == [{"retried": 0, "file_lost": 0}]
            with entry(queue, dcmread(CT, stop_before_pixels=True).SOPInstanceUID).extent.open() as spooled:
                wanted = spooled.read()
            assert queue.json("export", tmp_path / "out", study)[0]["written"] == 1
            (exported,) = (tmp_path / "out").rglob("*.dcm")
            assert exported.read_bytes() == wanted
            assert queue.json("release", study) == [{"released": 1, "held": 0}]
            await_true(lambda: listed()["delivered"] == 1, what="the delivery")


def test_the_command_leaves_no_trace_of_itself_and_sweeps_nothing(queue: QueueCommand) -> None:
    stray = queue.spool / "incoming" / "0000000100000000"
    stray.write_bytes(b"x")
    before = sorted(path.relative_to(queue.spool) for path in queue.spool.rglob("*"))
    queue.json("list")
    queue.json("retry", "--all")
    assert sorted(path.relative_to(queue.spool) for path in queue.spool.rglob("*")) == before

"""The rules of storage commitment and its durable table, without peers and archives."""

import io
import sqlite3
import threading

import pytest
from modality import PUSH_MODEL, WELL_KNOWN, references
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from gateway.commitment import Outcome, Reference, Register, Request, State, Transaction, read_request
from gateway.commitment.register import KEEP_ENDED, MOST_OPEN
from gateway.commitment.transaction import encode_report, pause, verdict
from gateway.errors import CommitmentRefused, SpoolBroken

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PAIRS = (Reference(CT, "1.2.1"), Reference(MR, "1.2.2"))


def encoded(dataset, syntax):
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = UID(syntax).is_implicit_VR
    buffer.is_little_endian = UID(syntax).is_little_endian
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def read(dataset, syntax=EXPLICIT, **named):
    asked = {"sop_class": PUSH_MODEL, "sop_instance": WELL_KNOWN, "action_type": 1}
    data = encoded(dataset, syntax) if isinstance(dataset, Dataset) else dataset
    return read_request(data=data, transfer_syntax=syntax, **(asked | named))


def without(keyword):
    dataset = references(*PAIRS)
    del dataset[keyword]
    return dataset


def item_with(**values):
    dataset = references(*PAIRS)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset.ReferencedSOPSequence[1], keyword)
        else:
            setattr(dataset.ReferencedSOPSequence[1], keyword, value)
    return dataset


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_a_request_is_read_in_any_transfer_syntax(syntax):
    assert read(references(*PAIRS, transaction="1.2.3"), syntax) == Request("1.2.3", PAIRS)


def test_a_reference_that_stands_twice_is_one():
    assert read(references(*PAIRS, *PAIRS)).references == PAIRS


@pytest.mark.parametrize(
    ("dataset", "named", "status"),
    [
        (references(*PAIRS), {"sop_class": CT}, 0x0118),
        (references(*PAIRS), {"sop_class": ""}, 0x0118),
        (references(*PAIRS), {"sop_instance": "1.2.3"}, 0x0112),
        (references(*PAIRS), {"sop_instance": ""}, 0x0117),
        (references(*PAIRS), {"sop_instance": "x"}, 0x0117),
        (references(*PAIRS), {"action_type": 2}, 0x0123),
        (references(*PAIRS), {"action_type": 0}, 0x0123),
        (references(*PAIRS, transaction=None), {}, 0x0120),
        (without("ReferencedSOPSequence"), {}, 0x0120),
        (references(), {}, 0x0121),
        (item_with(ReferencedSOPInstanceUID=None), {}, 0x0120),
        (item_with(ReferencedSOPClassUID=None), {}, 0x0120),
        (item_with(ReferencedSOPInstanceUID=""), {}, 0x0121),
        (b"", {}, 0x0120),
        (b"\x08\x00\x95\x11UI\x02\x00\xff\xfe", {}, 0x0115),
    ],
)
def test_a_request_that_is_wrong_is_refused_with_what_is_wrong(dataset, named, status):
    with pytest.raises(CommitmentRefused) as refused:
        read(dataset, **named)
    assert refused.value.status == status


def test_an_empty_transaction_uid_is_refused():
    dataset = references(*PAIRS)
    dataset.TransactionUID = ""
    with pytest.raises(CommitmentRefused) as refused:
        read(dataset)
    assert refused.value.status == 0x0121


@pytest.mark.parametrize("uid", [b"../../x\0", b"1.2/3?x", b"abc\0", b"1.2\\1.3\0"])
def test_what_is_no_uid_never_gets_further(uid):
    data = b"\x08\x00\x99\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    data += b"\x08\x00\x50\x11UI\x04\x001.2\0" + b"\x08\x00\x55\x11UI" + len(uid).to_bytes(2, "little") + uid
    data += b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    with pytest.raises(CommitmentRefused) as refused:
        read(b"\x08\x00\x95\x11UI\x04\x001.2\0" + data)
    assert refused.value.status == 0x0115


# -- reports


def judged(*verdicts):
    pairs = tuple(Reference(CT, f"1.2.{number}") for number in range(len(verdicts)))
    return Transaction(1, "1.2.3", "CT01", "GATEWAY", "main", 0.0, State.JUDGED, 1, pairs, verdicts)


def decoded(transaction, syntax):
    raw = encode_report(transaction, syntax)
    return dcmread(io.BytesIO(_with_meta(raw, syntax)))


def _with_meta(raw, syntax):
    meta = b"\x02\x00\x10\x00UI" + (len(syntax) + len(syntax) % 2).to_bytes(2, "little")
    return bytes(128) + b"DICM" + meta + syntax.encode() + b"\0" * (len(syntax) % 2) + raw


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_each_reference_is_in_one_of_the_two_sequences(syntax):
    transaction = judged(0, 0x0112, 0, 0x0119)
    report = decoded(transaction, syntax)
    assert transaction.event_type == 2
    assert report.TransactionUID == "1.2.3"
    assert report.RetrieveAETitle == "GATEWAY"
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == ["1.2.0", "1.2.2"]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in report.FailedSOPSequence] == [
        ("1.2.1", 0x0112),
        ("1.2.3", 0x0119),
    ]
    assert {item.ReferencedSOPClassUID for item in (*report.FailedSOPSequence, *report.ReferencedSOPSequence)} == {CT}


def test_without_failures_there_is_no_failed_sequence_and_the_event_type_is_1():
    report = decoded(judged(0, 0), IMPLICIT)
    assert judged(0, 0).event_type == 1
    assert "FailedSOPSequence" not in report


def test_without_a_committed_instance_there_is_nothing_to_retrieve():
    report = decoded(judged(0x0112), IMPLICIT)
    assert "ReferencedSOPSequence" not in report
    assert "RetrieveAETitle" not in report


def test_an_instance_is_committed_under_its_own_sop_class_only():
    assert verdict({CT}, PAIRS[0]) == 0
    assert verdict({CT, MR}, PAIRS[0]) == 0
    assert verdict({MR}, PAIRS[0]) == 0x0119
    assert verdict(None, PAIRS[0]) == 0x0112


def test_pauses_double_up_to_a_limit_and_chance_takes_up_to_half():
    waits = [pause(attempts, 0, first=5, longest=600) for attempts in range(1, 12)]
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == 600
    assert pause(10_000, 1, first=5, longest=600) == 300


# -- the register


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def register(tmp_path, clock):
    with Register(tmp_path, clock=clock) as register:
        yield register


def add(register, uid="1.2.3", *, calling="CT01", holder="a", hold=20.0):
    request = Request(uid, PAIRS)
    register.add(request, calling=calling, called="GATEWAY", archive="main", holder=holder, hold=hold)


def judge(register, verdicts=(0, 0x0112)):
    transaction = register.claim_waiting("main", 60)
    register.judge(transaction, verdicts)
    return transaction


def claim(register, calling="CT01"):
    return register.claim_reports(calling, "GATEWAY", 60, 10)


def test_a_transaction_survives_the_process(tmp_path, clock):
    with Register(tmp_path, clock=clock) as register:
        add(register)
        judge(register)
    with Register(tmp_path, clock=clock) as register:
        (found,) = register.transactions()
    assert (found.uid, found.calling, found.archive) == ("1.2.3", "CT01", "main")
    assert (found.state, found.references, found.verdicts) == (State.JUDGED, PAIRS, (0, 0x0112))


def test_a_transaction_uid_that_is_in_use_by_the_same_peer_is_refused(register):
    add(register)
    with pytest.raises(CommitmentRefused) as refused:
        add(register)
    assert refused.value.status == 0x0131
    add(register, calling="CT02")
    register.end(judge(register), Outcome.DELIVERED)
    add(register)


def test_a_peer_may_have_so_many_open_transactions_and_no_more(register):
    register._database._connection.execute("PRAGMA synchronous = OFF")  # a thousand syncs prove nothing here
    for number in range(MOST_OPEN):
        add(register, f"1.2.{number}")
    with pytest.raises(CommitmentRefused) as refused:
        add(register, "1.3")
    assert refused.value.status == 0x0213
    add(register, "1.3", calling="CT02")


def test_a_transaction_is_claimed_by_one_until_its_lease_runs_out(register, clock, tmp_path):
    add(register)
    with Register(tmp_path, clock=clock) as other:
        assert register.claim_waiting("main", 60).uid == "1.2.3"
        assert other.claim_waiting("main", 60) is None
        clock.now += 61
        assert other.claim_waiting("main", 60).attempts == 2


def test_only_the_archive_in_question_is_asked(register):
    add(register)
    assert register.claim_waiting("other", 60) is None
    assert [found.uid for found in register.waiting_for_others(["other"])] == ["1.2.3"]
    assert register.waiting_for_others(["main", "other"]) == []


def test_a_report_is_for_its_association_alone_while_that_lives(register, clock):
    add(register, holder="a")
    judge(register)
    clock.now += 15
    assert register.keep("a", 20)
    clock.now += 15
    assert register.reports_due() == []
    assert claim(register) == []
    assert register.claim_here("b", 60) is None
    assert register.claim_here("a", 60).uid == "1.2.3"


def test_a_report_is_for_anyone_when_its_association_ends(register):
    add(register)
    judge(register)
    register.let_go("a")
    assert register.reports_due() == [("CT01", "GATEWAY")]
    assert [found.uid for found in claim(register)] == ["1.2.3"]
    assert register.claim_here("a", 60) is None


def test_a_report_is_for_anyone_when_its_process_died(register, clock):
    add(register, hold=20)
    judge(register)
    clock.now += 21
    assert [found.uid for found in claim(register)] == ["1.2.3"]


def test_a_postponed_report_comes_again_when_it_is_due(register, clock):
    add(register, hold=0)
    judge(register)
    (transaction,) = claim(register)
    register.postpone(transaction, 300, "nobody answers")
    clock.now += 299
    assert claim(register) == []
    clock.now += 2
    assert [found.attempts for found in claim(register)] == [2]


def test_a_new_start_tries_at_once_what_was_postponed_or_claimed(register):
    for number in range(2):
        add(register, f"1.2.{number}", hold=0)
        judge(register)
    first, _ = claim(register)
    register.postpone(first, 300, "nobody answers")
    register.hurry()
    assert len(claim(register)) == 2


def test_an_open_association_keeps_its_reports_at_a_new_start_of_the_reporter(register):
    add(register, hold=20)
    judge(register)
    assert register.claim_here("a", 60) is not None
    register.hurry()
    assert claim(register) == []
    assert register.claim_here("a", 60) is None


def test_a_report_that_nobody_takes_ends(register, clock):
    add(register, hold=0)
    judge(register)
    clock.now += 99
    assert register.expire(100) == []
    clock.now += 2
    assert [found.uid for found in register.expire(100)] == ["1.2.3"]
    assert claim(register) == []
    assert [found.state for found in register.transactions()] == [State.ENDED]


def test_what_ended_long_ago_is_forgotten(register, clock):
    add(register, "1.2.1")
    register.end(judge(register), Outcome.DELIVERED)
    clock.now += KEEP_ENDED + 1
    add(register, "1.2.2")
    register.end(judge(register), Outcome.DELIVERED)
    assert [found.uid for found in register.transactions()] == ["1.2.2"]


def test_many_threads_of_two_processes_worth_claim_each_transaction_once(tmp_path):
    with Register(tmp_path) as first, Register(tmp_path) as second:
        for number in range(40):
            add(first, f"1.2.{number}", hold=0)
        got: list[str] = []

        def work(register):
            while transaction := register.claim_waiting("main", 60):
                got.append(transaction.uid)

        threads = [threading.Thread(target=work, args=(register,)) for register in (first, second) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(got) == sorted(f"1.2.{number}" for number in range(40))


def test_a_table_of_another_version_is_not_touched(tmp_path):
    with Register(tmp_path) as register:
        add(register)
    connection = sqlite3.connect(tmp_path / "commitments.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SpoolBroken, match="another version"):
        Register(tmp_path)

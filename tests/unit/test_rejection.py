"""Rejection notes: reading them, what the table keeps of them, and in how few requests their instances can go."""

import contextlib
import io
import random
import sqlite3
import struct

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from rejection_notes import note

from gateway.errors import DataSetError, GatewayError, SpoolBroken
from gateway.rejection import State, Tombstones, units
from gateway.translate import rejection_note
from gateway.translate.part10 import read_file_meta
from gateway.translate.rejection_note import (
    TITLES,
    Note,
    Reference,
    patient_digest,
    read_note,
    read_patient_id,
)

NAMED = (
    ("1.2", "1.2.1", "1.2.1.1"),
    ("1.2", "1.2.1", "1.2.1.2"),
    ("1.2", "1.2.2", "1.2.2.1"),
    ("1.3", "1.3.1", "1.3.1.1"),
)


def read(file: bytes) -> Note | None:
    stream = io.BytesIO(file)
    meta = read_file_meta(stream)
    stream.seek(meta.offset)
    return read_note(stream, meta.transfer_syntax)


def changed(**values) -> bytes:
    """Make a note whose data set has other values; None leaves an element out."""
    dataset = dcmread(io.BytesIO(note(*NAMED)))
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("title", TITLES)
def test_a_note_is_read_in_every_encoding(syntax, title):
    found = read(note(*NAMED, title=title, syntax=syntax, patient="ID7"))
    assert found == Note(title, patient_digest("ID7"), tuple(Reference(*one) for one in NAMED))


@pytest.mark.parametrize(("title", "scheme"), [("113000", "DCM"), ("113037", "99HERE"), ("", "DCM")])
def test_another_title_rejects_nothing(title, scheme):
    assert read(note(*NAMED, title=title, scheme=scheme)) is None


def test_a_document_without_title_or_evidence_rejects_nothing():
    assert read(changed(ConceptNameCodeSequence=None)) is None
    found = read(changed(CurrentRequestedProcedureEvidenceSequence=None))
    assert found is not None
    assert found.references == ()


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_a_reference_without_its_uids_makes_a_note_unreadable(level):
    dataset = dcmread(io.BytesIO(note(*NAMED)))
    study = dataset.CurrentRequestedProcedureEvidenceSequence[1]
    series = study.ReferencedSeriesSequence[0]
    if level == "study":
        del study.StudyInstanceUID
    elif level == "series":
        del series.SeriesInstanceUID
    else:
        del series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    with pytest.raises(DataSetError):
        read(file.getvalue())


def test_a_note_that_names_too_many_is_not_read(monkeypatch):
    monkeypatch.setattr(rejection_note, "MOST_REFERENCES", 3)
    with pytest.raises(DataSetError, match="more than 3"):
        read(note(*NAMED))


def test_a_note_that_is_cut_or_garbled_raises_nothing_but_a_data_set_error():
    file, choose = note(*NAMED), random.Random(1)
    for _ in range(2000):
        broken = bytearray(file[: choose.randint(400, len(file))])
        for _ in range(choose.randint(0, 3)):
            broken[choose.randrange(400, len(broken)) if len(broken) > 400 else 399] = choose.randrange(256)
        with contextlib.suppress(DataSetError):
            read(bytes(broken))


def test_nested_sequences_do_not_exhaust_the_stack():
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested = (struct.pack("<HH2sHL", 0x0040, 0xA375, b"SQ", 0, 0xFFFFFFFF) + item) * 5000
    with pytest.raises(DataSetError, match="deep"):
        read_note(io.BytesIO(nested), ExplicitVRLittleEndian)


@pytest.mark.parametrize("patient", ["ID1", "", " ID1 ", "Ä1"])
def test_a_patient_is_known_again_by_the_digest_of_its_id(patient):
    stream = io.BytesIO(note(*NAMED, patient=patient))
    meta = read_file_meta(stream)
    stream.seek(meta.offset)
    assert patient_digest(read_patient_id(stream, meta.transfer_syntax)) == patient_digest(patient.strip())
    assert patient_digest(patient) != patient_digest("ID2")


# -- units

STUDY = {"1": "a", "2": "a", "3": "b"}


@pytest.mark.parametrize(
    ("rejected", "expected"),
    [
        ({"1", "2", "3"}, [("", "")]),
        ({"1", "2"}, [("a", "")]),
        ({"3"}, [("b", "")]),
        ({"1"}, [("a", "1")]),
        ({"1", "3"}, [("a", "1"), ("b", "")]),
        ({"1", "2", "3", "4"}, [("", "")]),
        ({"4"}, []),
        (set(), []),
    ],
)
def test_units_are_as_large_as_they_can_be(rejected, expected):
    found = units("s", STUDY, rejected)
    assert [(unit.series, unit.sop_instance) for unit in found] == expected
    assert {uid for unit in found for uid in unit.instances} == rejected & STUDY.keys()


def test_units_take_all_that_is_rejected_and_nothing_else():
    choose = random.Random(2)
    for _ in range(500):
        listed = {str(number): str(choose.randint(1, 3)) for number in range(choose.randint(0, 8))}
        rejected = {uid for uid in listed if choose.random() < 0.6}
        taken: list[str] = []
        for unit in units("s", listed, rejected):
            taken += [
                uid
                for uid, series in listed.items()
                if unit.series in ("", series) and unit.sop_instance in ("", uid)
            ]
        assert sorted(taken) == sorted(rejected)


# -- the table

ONE = Reference("1.2", "1.2.1", "1.2.1.1")


@pytest.fixture
def table(tmp_path):
    with Tombstones(tmp_path) as table:
        yield table


def add(table, title="113037", action="delete", *, uid="9.1", patient="p", references=(ONE,)):
    return table.add(Note(title, patient, references), uid, action, archive="main", calling="QC", called="GATEWAY")


def settle(table, state):
    table.set_state(table.due("main"), state, final=True)


def test_the_same_note_again_is_nothing_new(table):
    assert [add(table), add(table)] == [1, 0]
    settle(table, State.GONE)
    assert add(table) == 0
    assert table.due("main") == []


@pytest.mark.parametrize(
    ("first", "second", "new"),
    [
        (("113001", "hide"), ("113001", "delete"), 1),
        (("113001", "delete"), ("113001", "hide"), 0),
        (("113001", "hide"), ("113037", "delete"), 1),
        (("113001", "delete"), ("113037", "hide"), 0),
        (("113037", "hide"), ("113001", "hide"), 1),
        (("113039", "delete"), ("113037", "delete"), 1),
        (("113037", "delete"), ("113039", "delete"), 0),
        (("113037", "hide"), ("113039", "delete"), 0),
    ],
)
def test_another_note_makes_a_rejection_stronger_and_never_weaker(table, first, second, new):
    add(table, *first)
    settle(table, State.HIDDEN)
    assert add(table, *second, uid="9.2") == new
    found = table.find("main", ONE.sop_instance)
    assert (found.title, found.action) == (second if new else first)
    assert found.state is State.HIDDEN  # nothing is seen meanwhile
    assert (found.due is None) == (not new)


def test_a_note_of_another_patient_changes_nothing_but_what_was_refused(table):
    add(table)
    assert add(table, "113001", uid="9.2", patient="q") == 0
    settle(table, State.REFUSED)
    assert add(table, uid="9.3", patient="q") == 1
    assert table.find("main", ONE.sop_instance).patient == "q"


def test_only_what_is_hidden_is_out_of_sight(table):
    other = Reference("1.3", "1.3.1", "1.3.1.1")
    add(table, references=(ONE, other))
    assert table.hidden("main", [ONE.sop_instance]) == set()
    rows = table.due("main")
    table.set_state(rows, State.HIDDEN, final=False)
    assert table.hidden("main", [ONE.sop_instance, other.sop_instance, "1"]) == {rows[0].sop_instance}
    assert table.touched("main", ["1.2", "1.3"]) == {(rows[0].study, rows[0].series)}
    assert table.hidden("other", [ONE.sop_instance]) == set()
    settle(table, State.GONE)
    assert table.hidden("main", [ONE.sop_instance]) == set()


def test_what_was_let_back_or_noted_anew_meanwhile_is_not_changed_by_who_still_works_on_it(table):
    add(table, "113039")
    old = table.due("main")
    table.forget("main", ONE.sop_instance)
    table.set_state(old, State.GONE, final=True)
    assert table.find("main", ONE.sop_instance) is None
    add(table, uid="9.2")
    table.set_state(old, State.GONE, final=True)
    assert table.find("main", ONE.sop_instance).state is State.WAITING


def test_what_was_postponed_is_due_again_in_its_time_and_at_once_after_a_start(tmp_path):
    now = [1000.0]
    with Tombstones(tmp_path, clock=lambda: now[0]) as table:
        add(table)
        table.postpone(table.due("main"), 10)
        assert table.due("main") == []
        now[0] += 10
        (row,) = table.due("main")
        assert (row.attempts, row.looks) == (1, 0)
        table.look_again([row], 100)
        assert table.due("main") == []
        table.hurry()
        (row,) = table.due("main")
        assert (row.attempts, row.looks) == (0, 1)


def test_many_rejections_are_found_by_an_index(tmp_path):
    with Tombstones(tmp_path) as table:
        add(table, references=tuple(Reference("1.2", "1.2.1", f"1.2.1.{n}") for n in range(1000)))
    with sqlite3.connect(tmp_path / "rejections.db") as connection:
        for question in (
            "sop_instance = '1'",
            "state = 'hidden' AND study IN ('1')",
            "due <= 5 ORDER BY due LIMIT 1",
        ):
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM rejections WHERE archive = 'main' AND {question}"
            ).fetchall()
            assert all("SEARCH" in row[3] for row in plan), plan
    connection.close()


def test_a_table_of_another_version_or_what_is_none_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "rejections.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(SpoolBroken, match=r"rejections\.db was written by another version"):
        Tombstones(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rejections.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(GatewayError):
        Tombstones(tmp_path / "other")

"""DCMTK's own clients store, find and retrieve through the gateway, whatever the archive."""

from pathlib import Path

import dcmtk
import pydicom.data
import pytest
from pydicom import dcmread
from samples import data_sets

# One patient: three studies, seven series, 17 instances
PATIENT = Path(pydicom.data.__file__).parent / "test_files/dicomdirtests/98892003"
UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
VALUES = {
    "PATIENT": ("PatientName",),
    "STUDY": ("StudyDate", "PatientName", "StudyID"),
    "SERIES": ("Modality", "SeriesNumber"),
    "IMAGE": ("InstanceNumber",),
}
LEVELS = [("S", level) for level in ("STUDY", "SERIES", "IMAGE")] + [("P", level) for level in UNIQUE]


@pytest.fixture(scope="module")
def instances():
    return [dcmread(path) for path in sorted(PATIENT.rglob("*")) if path.is_file()]


@pytest.fixture(scope="module")
def stored(gateway, instances, reference):
    """Store them and give what DCMTK sends of it: data sets by SOP Instance UID."""
    files = [instance.filename for instance in instances]
    assert set(dcmtk.storescu(gateway.port, *files).statuses) == {0x0000}
    return reference(dcmtk.storescu, *files)


def keys(instance, model, level):
    """Give the keys that name `instance` at a level, the unique keys above it among them."""
    names = list(UNIQUE.values())[model == "S" : list(UNIQUE).index(level) + 1]
    return [f"QueryRetrieveLevel={level}", *(f"{name}={instance[name].value}" for name in names)]


def below(instances, one, level):
    """Give the UIDs of the instances that belong to the same entity of a level as `one`."""
    return {str(i.SOPInstanceUID) for i in instances if i[UNIQUE[level]].value == one[UNIQUE[level]].value}


def test_echoscu_is_answered(gateway):
    assert dcmtk.echoscu(gateway.port).status == 0x0000


@pytest.mark.parametrize(("model", "level"), LEVELS)
def test_findscu_finds_every_entity_of_a_level(gateway, stored, instances, model, level):
    *parents, _ = keys(instances[0], model, level)
    result = dcmtk.findscu(gateway.port, *parents, UNIQUE[level], model=model)
    assert result.status == 0x0000, result.output
    found = [str(response[UNIQUE[level]].value) for response in result.responses]
    assert sorted(found) == sorted({str(instance[UNIQUE[level]].value) for instance in siblings(instances, level)})


def siblings(instances, level):
    """Give the instances below the parent that the first one has at a level."""
    parent = {"SERIES": "StudyInstanceUID", "IMAGE": "SeriesInstanceUID"}.get(level, "PatientID")
    return [instance for instance in instances if instance[parent].value == instances[0][parent].value]


@pytest.mark.parametrize(("model", "level"), LEVELS)
def test_findscu_gets_the_values_it_asks_for(gateway, stored, instances, model, level):
    wanted = keys(instances[0], model, level)
    result = dcmtk.findscu(gateway.port, *wanted, *VALUES[level], model=model)
    (response,) = result.responses
    assert [response[k].value for k in VALUES[level]] == [instances[0][k].value for k in VALUES[level]]
    assert response.QueryRetrieveLevel == level


def test_findscu_without_match_is_a_success_without_answers(gateway, stored):
    result = dcmtk.findscu(gateway.port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3.4")
    assert result.statuses == [0x0000]
    assert not result.responses


@pytest.mark.parametrize(("model", "level"), LEVELS)
def test_movescu_brings_back_the_bytes_that_were_stored(gateway, receiver, stored, instances, model, level):
    result = dcmtk.movescu(gateway.port, receiver.title, *keys(instances[0], model, level), model=model)
    assert result.status == 0x0000, result.output
    received = data_sets(receiver.folder)
    assert received == {uid: stored[uid] for uid in below(instances, instances[0], level)}
    assert result.counters[-1] == {"completed": len(received), "failed": 0, "warning": 0}


@pytest.mark.parametrize(("model", "level"), LEVELS)
def test_getscu_brings_back_the_bytes_that_were_stored(gateway, stored, instances, model, level, tmp_path):
    result = dcmtk.getscu(gateway.port, tmp_path, *keys(instances[0], model, level), model=model)
    assert result.returncode == 0, result.output
    assert data_sets(tmp_path) == {uid: stored[uid] for uid in below(instances, instances[0], level)}
    assert result.counters[-1]["failed"] == 0

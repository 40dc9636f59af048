"""The same question has the same answer on archives that match in their own ways."""

from datetime import timedelta

import brute_force
import hospital
import pytest
import queries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orthanc import Orthanc
from queries import FIELDS

from gateway.dicomweb.client import Client
from gateway.embedded.server import EmbeddedArchive
from gateway.errors import IdentifierError
from gateway.translate.attributes import read_json
from gateway.translate.computed import COMPUTED, computation, compute, further_request
from gateway.translate.patients import Patients
from gateway.translate.profiles import PROFILES
from gateway.translate.search import (
    Model,
    Negotiated,
    expand_plan,
    instances_of,
    matches,
    plan,
    project,
)

UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
INSTANCES = list(hospital.instances())
RELATIONAL = Negotiated(relational=True)
bounded = settings(
    max_examples=80, deadline=timedelta(seconds=20), database=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module", params=["embedded", "orthanc"])
def archive(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    running = EmbeddedArchive(folder) if request.param == "embedded" else Orthanc(folder)
    profile = PROFILES["azure" if request.param == "embedded" else "orthanc"]
    with running, Client(running.url, profile=profile) as client:
        uploads = [hospital.upload(instance, folder) for instance in INSTANCES]
        for start in range(0, len(uploads), 10):
            outcomes = client.store(uploads[start : start + 10])
            assert all(outcome.stored for outcome in outcomes), outcomes
        yield client


def rows(archive, request):
    return [row for page in archive.search(request.resource, request.parameters) for row in page]


def found(archive, search):
    """Give the entities that match, each once, by their unique key."""
    every = [row for request in search.requests for row in rows(archive, request) if matches(search, row)]
    answers = [project(search, row, retrieve_aet="GATEWAY") for row in every]
    return {str(answer[UNIQUE[search.level]].value): answer for answer in answers}


def expected(identifier, search):
    keyword = UNIQUE[search.level]
    return {
        str(instance[keyword].value): instance
        for instance in INSTANCES
        if brute_force.matches(identifier, instance, search.level, ignored=search.unsupported_keys)
    }


@bounded
@given(st.sampled_from(["STUDY", "SERIES", "IMAGE"]).flatmap(queries.identifiers))
def test_the_answer_is_the_brute_force_matcher_s(archive, identifier):
    try:
        search = plan(identifier, Model.STUDY_ROOT, archive.profile, RELATIONAL)
    except IdentifierError:
        return
    answers, wanted = found(archive, search), expected(identifier, search)
    assert answers.keys() == wanted.keys()
    asked = [key.keyword for key in identifier if key.keyword in FIELDS and key.VR not in ("DS", "IS")]
    for keyword in (one for one in asked if brute_force.level_of(one) == search.level):
        for uid, answer in answers.items():
            assert values(answer, keyword) == values(wanted[uid], keyword), keyword


def values(dataset, keyword):
    return [text for text in brute_force.texts(dataset[keyword]) if text] if keyword in dataset else []


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_an_identifier_without_values_finds_every_entity_of_the_level(archive, level):
    search = plan(queries.identifier_of(level), Model.STUDY_ROOT, archive.profile, RELATIONAL)
    assert found(archive, search).keys() == {str(instance[UNIQUE[level]].value) for instance in INSTANCES}


def test_patients_are_found_once_each_with_the_name_of_their_newest_study(archive):
    identifier = queries.identifier_of("PATIENT", PatientName="", PatientBirthDate="")
    search = plan(identifier, Model.PATIENT_ROOT, archive.profile, Negotiated())
    patients = Patients()
    for request in search.requests:
        patients.add(row for row in rows(archive, request) if matches(search, row))
    answers = [project(search, patient, retrieve_aet="GATEWAY") for patient in patients.entities()]
    assert sorted((one.PatientID, str(one.PatientName)) for one in answers) == sorted(
        {(one.PatientID, str(one.PatientName)) for one in INSTANCES}
    )


@pytest.mark.parametrize("keyword", sorted(COMPUTED))
def test_computed_attributes_are_right_for_every_entity(archive, keyword):
    way = computation(keyword, archive.profile)
    of = (
        "PatientID"
        if "Patient" in keyword
        else "SeriesInstanceUID"
        if "SeriesRelated" in keyword
        else "StudyInstanceUID"
    )
    checked = 0
    for entity in {instance[of].value: instance for instance in INSTANCES}.values():
        model = {
            tag: {"vr": "UI" if tag != "00100020" else "LO", "Value": [str(entity[tag].value)]}
            for tag in ("00100020", "0020000D", "0020000E")
        }
        request = further_request(way, model, archive.profile)
        if request is None:
            continue  # a Patient ID that this archive cannot be asked for
        computed = compute(way, model, rows(archive, request))
        ((tag, element),) = computed.items()
        assert read_json(int(tag, 16), element).values == counted(keyword, of, entity)
        checked += 1
    assert checked > 3


def counted(keyword, of, entity):
    """Count among the instances that belong to the entity."""
    below = [instance for instance in INSTANCES if instance[of].value == entity[of].value]
    values = {
        "ModalitiesInStudy": "Modality",
        "SOPClassesInStudy": "SOPClassUID",
        "Studies": "StudyInstanceUID",
        "Series": "SeriesInstanceUID",
        "Instances": "SOPInstanceUID",
    }
    counted = next(value for end, value in values.items() if keyword.endswith(end))
    distinct = sorted({str(instance[counted].value) for instance in below})
    return distinct if keyword.endswith("InStudy") else [str(len(distinct))]


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
def test_a_retrieve_expands_to_exactly_the_instances_it_names(archive, level):
    keyword = {"PATIENT": "PatientID", **UNIQUE}[level]
    for wanted in {instance[keyword].value: instance for instance in INSTANCES}.values():
        identifier = queries.identifier_of(level, **{keyword: str(wanted[keyword].value)})
        if level == "PATIENT" and set(wanted.PatientID) & set("*?"):
            continue
        search = expand_plan(identifier, Model.PATIENT_ROOT, archive.profile, RELATIONAL)
        entities = [row for request in search.requests for row in rows(archive, request) if matches(search, row)]
        if search.studies_first:
            entities = [row for study in entities for row in rows(archive, instances_of(study, archive.profile))]
        names = {row["00080018"]["Value"][0] for row in entities}
        assert all(row["00080016"]["Value"] for row in entities)
        assert names == {one.SOPInstanceUID for one in INSTANCES if one[keyword].value == wanted[keyword].value}

from datetime import timedelta

import brute_force
import queries
import simulated_archives
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import IdentifierError
from gateway.translate import person_name
from gateway.translate.dicom_json import from_dataset
from gateway.translate.profiles import PROFILES
from gateway.translate.search import Model, Negotiated, matches, plan

LEVELS = ["STUDY", "SERIES", "IMAGE"]
identifiers = st.sampled_from(LEVELS).flatmap(queries.identifiers)
names = st.text("aAé^=*? ", max_size=8)


def bounded(examples):
    return settings(max_examples=examples, deadline=timedelta(seconds=2), database=None)


@bounded(500)
@given(identifiers, queries.entities(), st.booleans())
def test_an_entity_matches_exactly_when_the_brute_force_matcher_says_so(identifier, entity, combined):
    negotiated = Negotiated(relational=True, combined_datetime=combined)
    try:
        search = plan(identifier, Model.STUDY_ROOT, PROFILES["standard"], negotiated)
    except IdentifierError:
        return
    ignored = search.unsupported_keys
    assert all(brute_force.level_of(keyword) != search.level or keyword == "ModalitiesInStudy" for keyword in ignored)
    expected = brute_force.matches(identifier, entity, search.level, combined=combined, ignored=ignored)
    assert matches(search, from_dataset(entity, bulk=False)) == expected
    assert matches(search, entity) == expected


@bounded(200)
@given(queries.ranges(queries.DATES), queries.ranges(queries.TIMES), queries.entities())
def test_a_combined_range_matches_exactly_when_the_brute_force_matcher_says_so(dates, times, entity):
    identifier = queries.identifier_of(StudyDate=dates, StudyTime=times)
    try:
        search = plan(identifier, Model.STUDY_ROOT, PROFILES["azure"], Negotiated(combined_datetime=True))
    except IdentifierError:
        return
    assert matches(search, entity) == brute_force.matches(identifier, entity, "STUDY", combined=True)


@bounded(1000)
@given(names, names)
def test_a_name_matches_exactly_when_the_brute_force_matcher_says_so(asked, have):
    test = person_name.name_test(asked)
    assert (test is None or test(have)) == brute_force.name_matches(asked, have)


@bounded(1000)
@given(st.text("ab*?", max_size=9), st.text("ab", max_size=9))
def test_a_wildcard_matches_exactly_when_the_brute_force_matcher_says_so(pattern, text):
    assert bool(person_name.wildcard(pattern).fullmatch(text)) == brute_force.glob(pattern, text)


@bounded(500)
@given(
    st.sampled_from(sorted(PROFILES)),
    identifiers,
    st.lists(queries.entities(), max_size=6, unique_by=lambda entity: entity.SOPInstanceUID),
)
def test_the_answer_is_the_brute_force_matcher_s_on_every_kind_of_archive(name, identifier, entities):
    profile = PROFILES[name]
    try:
        search = plan(identifier, Model.STUDY_ROOT, profile, Negotiated(relational=True))
    except IdentifierError:
        return
    found = {
        entity.SOPInstanceUID
        for request in search.requests
        for entity in simulated_archives.rows(request, entities, profile)
        if matches(search, entity)
    }
    assert found == {
        entity.SOPInstanceUID
        for entity in entities
        if brute_force.matches(identifier, entity, search.level, ignored=search.unsupported_keys)
    }

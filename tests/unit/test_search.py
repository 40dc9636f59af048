"""From an identifier to the searches of an archive, and from its rows to answers."""

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from queries import identifier_of, put

from gateway.errors import IdentifierError
from gateway.translate.dicom_json import from_dataset
from gateway.translate.patients import Patients
from gateway.translate.profiles import PROFILES
from gateway.translate.responses import Responder
from gateway.translate.search import (
    Model,
    Negotiated,
    expand_plan,
    instances_of,
    malformed,
    matches,
    plan,
    project,
)

AZURE, ORTHANC, STANDARD = PROFILES["azure"], PROFILES["orthanc"], PROFILES["standard"]
BASELINE, RELATIONAL = Negotiated(), Negotiated(relational=True)


def study_search(profile=AZURE, negotiated=BASELINE, **keys):
    return plan(identifier_of("STUDY", **keys), Model.STUDY_ROOT, profile, negotiated)


def sent(search):
    """Give the filters of each request."""
    return [[one for one in request.parameters if one[0] != "includefield"] for request in search.requests]


def included(search):
    return dict(search.requests[0].parameters)["includefield"].split(",")


def row(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        put(dataset, keyword, value)
    return from_dataset(dataset, bulk=False)


class TestLevels:
    @pytest.mark.parametrize("level", ["", "WARD", "IMAGES", "PATIENT", ["STUDY", "SERIES"], ["STUDY", ""]])
    def test_a_level_that_the_model_does_not_have_is_refused(self, level):
        identifier = identifier_of("STUDY")
        identifier.QueryRetrieveLevel = level
        with pytest.raises(IdentifierError) as raised:
            plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE)
        assert raised.value.keyword == "QueryRetrieveLevel"
        assert "STUDY, SERIES, IMAGE" in raised.value.problem

    def test_a_missing_level_is_the_peer_s_default_level(self):
        identifier = Dataset()
        assert plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE, default_level="STUDY").level == "STUDY"
        with pytest.raises(IdentifierError):
            plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE)

    def test_series_are_no_level_of_patient_study_only(self):
        identifier = identifier_of("SERIES", PatientID="1", StudyInstanceUID="1.2")
        with pytest.raises(IdentifierError):
            plan(identifier, Model.PATIENT_STUDY_ONLY, AZURE, BASELINE)

    @pytest.mark.parametrize(
        ("model", "level", "keys", "missing"),
        [
            (Model.STUDY_ROOT, "SERIES", {}, "StudyInstanceUID"),
            (Model.STUDY_ROOT, "SERIES", {"StudyInstanceUID": ""}, "StudyInstanceUID"),
            (Model.STUDY_ROOT, "SERIES", {"StudyInstanceUID": "*"}, "StudyInstanceUID"),
            (Model.STUDY_ROOT, "SERIES", {"StudyInstanceUID": ["1.2", "1.3"]}, "StudyInstanceUID"),
            (Model.STUDY_ROOT, "IMAGE", {"StudyInstanceUID": "1.2"}, "SeriesInstanceUID"),
            (Model.PATIENT_ROOT, "STUDY", {}, "PatientID"),
            (Model.PATIENT_ROOT, "STUDY", {"PatientID": "A*"}, "PatientID"),
            (Model.PATIENT_ROOT, "SERIES", {"PatientID": "A"}, "StudyInstanceUID"),
        ],
    )
    def test_a_baseline_query_needs_one_value_in_each_unique_key_above(self, model, level, keys, missing):
        with pytest.raises(IdentifierError) as raised:
            plan(identifier_of(level, **keys), model, AZURE, BASELINE)
        assert raised.value.keyword == missing

    @pytest.mark.parametrize("how", [{"negotiated": RELATIONAL}, {"negotiated": BASELINE, "lenient": True}])
    def test_relational_and_lenient_queries_need_none(self, how):
        negotiated = how.pop("negotiated")
        search = plan(identifier_of("IMAGE", Modality="CT"), Model.PATIENT_ROOT, AZURE, negotiated, **how)
        assert [request.resource for request in search.requests] == ["instances"]
        assert sent(search) == [[("Modality", "CT")]]

    def test_an_archive_without_flat_searches_refuses_a_query_without_a_study(self):
        with pytest.raises(IdentifierError, match="only within a study"):
            plan(identifier_of("SERIES"), Model.STUDY_ROOT, PROFILES["aws"], RELATIONAL)

    def test_the_resource_follows_from_level_and_unique_keys(self):
        def resources(level, **keys):
            search = plan(identifier_of(level, **keys), Model.STUDY_ROOT, AZURE, RELATIONAL)
            return [request.resource for request in search.requests]

        assert resources("STUDY") == ["studies"]
        assert resources("SERIES", StudyInstanceUID="1.2") == ["studies/1.2/series"]
        assert resources("SERIES", StudyInstanceUID=["1.2", "1.3"]) == ["studies/1.2/series", "studies/1.3/series"]
        assert resources("IMAGE", StudyInstanceUID="1.2", SeriesInstanceUID=["1.4", "1.5"]) == [
            "studies/1.2/series/1.4/instances",
            "studies/1.2/series/1.5/instances",
        ]
        assert resources("IMAGE", StudyInstanceUID="1.2") == ["studies/1.2/instances"]
        assert resources("SERIES") == ["series"]


class TestKeys:
    @pytest.mark.parametrize(
        ("keyword", "value"),
        [
            ("StudyDate", "2020"),
            ("StudyDate", "20201301"),
            ("StudyDate", "-"),
            ("StudyDate", "2020010*"),
            ("StudyDate", "20200131-20200101"),
            ("StudyTime", "25"),
            ("StudyTime", "2200-0600"),
            ("StudyInstanceUID", "1.2.*"),
            ("StudyInstanceUID", "../patients"),
            ("PatientWeight", "7*"),
            ("PatientWeight", "heavy"),
        ],
    )
    def test_a_value_that_its_vr_cannot_ask_for_is_refused_by_name(self, keyword, value):
        with pytest.raises(IdentifierError) as raised:
            study_search(**{keyword: value})
        assert raised.value.keyword == keyword
        assert value not in str(raised.value), "no patient data in errors"

    def test_a_sequence_key_with_two_items_is_refused(self):
        with pytest.raises(IdentifierError, match="ProcedureCodeSequence"):
            study_search(ProcedureCodeSequence=[Dataset(), Dataset()])

    def test_keys_of_lower_levels_do_not_narrow_and_are_unsupported(self):
        search = study_search(Modality="CT", InstanceNumber="1", SeriesDescription="")
        assert matches(search, row(StudyInstanceUID="1.2"))
        assert search.unsupported_keys == {"Modality", "InstanceNumber"}
        assert "00080060" not in included(search)

    def test_an_identifier_that_asks_only_for_what_is_supported_has_no_unsupported_key(self):
        search = study_search(
            PatientName="A*", ModalitiesInStudy="CT", NumberOfStudyRelatedSeries="", TimezoneOffsetFromUTC="+0100"
        )
        assert search.unsupported_keys == frozenset()

    def test_private_keys_do_not_narrow_and_their_creator_is_no_key(self):
        identifier = identifier_of(PatientID="1")
        identifier.private_block(0x0029, "SOMEBODY", create=True)
        search = plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE)
        assert search.unsupported_keys == frozenset()
        assert matches(search, row(StudyInstanceUID="1.2", PatientID="1"))
        identifier.private_block(0x0029, "SOMEBODY").add_new(0x10, "LO", "value")
        search = plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE)
        assert search.unsupported_keys == {"(0029,1010)"}
        assert matches(search, row(StudyInstanceUID="1.2", PatientID="1"))

    def test_counts_cannot_be_matched(self):
        search = study_search(NumberOfStudyRelatedSeries="2")
        assert search.unsupported_keys == {"NumberOfStudyRelatedSeries"}
        assert matches(search, row(StudyInstanceUID="1.2"))

    def test_sequences_are_unsupported_only_where_the_archive_does_not_return_them(self):
        item = identifier_of()
        del item.QueryRetrieveLevel
        item.CodeValue = "1"
        assert study_search(AZURE, ProcedureCodeSequence=[item]).unsupported_keys == frozenset()
        assert study_search(ORTHANC, ProcedureCodeSequence=[item]).unsupported_keys == {"ProcedureCodeSequence"}

    def test_the_gateway_s_own_attributes_are_not_asked_of_the_archive(self):
        search = study_search(RetrieveAETitle="X", InstanceAvailability="", RetrieveURL="", PatientID="")
        assert not {"00080005", "00080052", "00080054", "00080056", "00081190"} & set(included(search))


class TestPushDown:
    def test_only_attributes_the_archive_indexes_are_sent(self):
        search = study_search(StudyTime="10", StudyID="1", PatientID="P", PatientName="Doe")
        assert sent(search) == [[("PatientID", "P")]]
        assert {"00080030", "00200010", "00100010"} <= set(included(search))

    @pytest.mark.parametrize("value", ["A*", "A?", "A,B", "A<B", 'say "A"'])
    def test_values_that_azure_takes_literally_or_refuses_are_not_sent(self, value):
        assert sent(study_search(AZURE, AccessionNumber=value)) == [[]]

    @pytest.mark.parametrize(
        ("value", "pushed"), [("A*", "A*"), ("A1", "A1"), ("Ä 1", "*1"), ("A,1", "A*1"), ("a?b", "a*b")]
    )
    def test_what_orthanc_cannot_decode_is_sent_as_a_wildcard(self, value, pushed):
        assert sent(study_search(ORTHANC, AccessionNumber=value)) == [[("AccessionNumber", pushed)]]

    @pytest.mark.parametrize(
        ("name", "pushed"),
        [("Doe^J*", "*Doe*J*"), ("DOE^^", "*DOE*"), ("A=山田^太郎", None), ("山田", None), ("*", None)],
    )
    def test_names_are_sent_as_wildcards_only_to_archives_that_ignore_case(self, name, pushed):
        assert sent(study_search(ORTHANC, PatientName=name)) == [[("PatientName", pushed)] if pushed else []]
        assert sent(study_search(STANDARD, PatientName=name)) == [[]]

    def test_an_archive_that_indexes_everything_is_still_asked_for_names_only_if_it_ignores_case(self):
        everything = replace(STANDARD, filters=None)
        assert sent(study_search(everything, PatientName="Doe", PatientWeight="70", StudyTime="10")) == [[]]
        assert sent(study_search(replace(everything, name_wildcard=True), PatientName="Doe")) == [
            [("PatientName", "*Doe*")]
        ]

    def test_attributes_of_several_values_are_not_sent_because_archives_index_the_first(self):
        assert sent(study_search(replace(STANDARD, filters=None), OtherPatientIDs="A", StudyID="1")) == [
            [("StudyID", "1")]
        ]

    def test_a_value_too_long_for_a_url_is_not_sent(self):
        assert sent(study_search(PatientID="A" * 5000)) == [[]]

    def test_fuzzy_names_are_never_sent(self):
        assert sent(study_search(ORTHANC, Negotiated(fuzzy=True), PatientName="Doe")) == [[]]

    @pytest.mark.parametrize(
        ("value", "pushed"),
        [
            ("20200101", "20200101"),
            ("2020.01.01", "20200101"),
            ("20200101-", "20200101-"),
            ("-2020.01.31", "-20200131"),
            ("20200101 - 20200131", "20200101-20200131"),
        ],
    )
    def test_dates_are_sent_in_today_s_form(self, value, pushed):
        assert sent(study_search(StudyDate=value)) == [[("StudyDate", pushed)]]

    def test_each_modality_is_a_search_of_its_own(self):
        assert sent(study_search(ModalitiesInStudy=["CT", "MR"])) == [
            [("ModalitiesInStudy", "CT")],
            [("ModalitiesInStudy", "MR")],
        ]
        assert sent(study_search(ORTHANC, ModalitiesInStudy=["CT", "MR"])) == [[]], "it pages wrongly by that key"

    def test_a_list_of_uids_is_one_search_each_where_lists_are_not_understood(self):
        uids = [f"1.2.{number}" for number in range(300)]
        assert sent(study_search(AZURE, StudyInstanceUID=uids)) == [[("StudyInstanceUID", uid)] for uid in uids]

    def test_a_long_list_of_uids_is_split_where_lists_are_understood(self):
        uids = [f"1.2.{number}" for number in range(300)]
        requests = sent(study_search(STANDARD, StudyInstanceUID=uids))
        assert len(requests) == 6
        assert [uid for ((_, value),) in requests for uid in value.split(",")] == uids

    def test_a_list_within_a_study_is_matched_here_when_it_is_long(self):
        uids = [f"1.2.{number}" for number in range(300)]
        identifier = identifier_of("SERIES", StudyInstanceUID="1.2", SeriesInstanceUID=uids)
        assert sent(plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE)) == [[]]

    def test_alternatives_do_not_multiply_without_bound(self):
        ids = [str(number) for number in range(10)]
        search = study_search(AZURE, PatientID=ids, AccessionNumber=ids, StudyDescription=ids)
        assert len(search.requests) <= 16

    def test_too_many_fields_are_asked_for_with_all_where_all_means_all(self):
        identifier = identifier_of()
        for number in range(700):
            identifier.add_new(0x00091000 + number, "LO", "")
        search = plan(identifier, Model.STUDY_ROOT, STANDARD, BASELINE)
        assert included(search) == ["all"]
        search = plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE)
        assert len(search.requests[0].parameters[0][1]) <= AZURE.query_length
        assert search.unsupported_keys, "what does not fit is not answered, and said so"

    def test_a_time_zone_widens_the_dates_by_a_day(self):
        negotiated = Negotiated(timezone=True)
        search = study_search(AZURE, negotiated, StudyDate="20200101-20200103", TimezoneOffsetFromUTC="+0900")
        assert sent(search) == [[("StudyDate", "20191231-20200104")]]


class TestAnswers:
    ROW = row(StudyInstanceUID="1.2", PatientName="Doe^J", StudyDate="20200101", ModalitiesInStudy=["CT", "SR"])

    def test_it_has_all_that_was_asked_for_and_nothing_else(self):
        search = study_search(PatientName="", StudyTime="", Modality="", RetrieveURL="", RequestedProcedureID="")
        answer = project(search, self.ROW, retrieve_aet="GATEWAY")
        assert [element.keyword for element in answer] == [
            "SpecificCharacterSet",
            "StudyTime",
            "QueryRetrieveLevel",
            "RetrieveAETitle",
            "InstanceAvailability",
            "Modality",
            "RetrieveURL",
            "PatientName",
            "StudyInstanceUID",
            "RequestedProcedureID",
        ]
        assert (answer.StudyInstanceUID, answer.QueryRetrieveLevel, answer.PatientName) == ("1.2", "STUDY", "Doe^J")
        assert (answer.RetrieveAETitle, answer.InstanceAvailability) == ("GATEWAY", "ONLINE")
        assert answer["StudyTime"].is_empty
        assert answer["RetrieveURL"].is_empty

    def test_values_of_lower_levels_are_some_entity_s_and_not_passed_on(self):
        answer = project(study_search(Modality=""), {**self.ROW, **row(Modality="CT")}, retrieve_aet="GATEWAY")
        assert answer["Modality"].is_empty

    def test_all_values_of_a_multi_valued_attribute_come_back_when_one_matches(self):
        search = study_search(ModalitiesInStudy="SR")
        assert matches(search, self.ROW)
        assert project(search, self.ROW, retrieve_aet="GATEWAY").ModalitiesInStudy == ["CT", "SR"]

    @pytest.mark.parametrize(
        "broken",
        [
            None,
            5,
            {"vr": "PN", "Value": [5]},
            {"vr": "PN", "Value": [{"Alphabetic": 5}]},
            {"vr": "XX", "Value": [["Doe"]]},
            {"vr": "UN", "InlineBinary": "AAE="},
        ],
    )
    def test_a_malformed_attribute_is_lost_and_not_the_answer(self, broken):
        search = study_search(PatientName="")
        broken_row = {**self.ROW, "00100010": broken}
        assert malformed(search, broken_row) == 1
        responder = Responder(search, retrieve_aet="GATEWAY", transfer_syntax="1.2.840.10008.1.2")
        assert responder.encode(broken_row)
        assert responder.malformed == 1
        answer = project(search, broken_row, retrieve_aet="GATEWAY")
        assert answer["PatientName"].is_empty
        assert answer.StudyInstanceUID == "1.2"

    def sequence_search(self, *items):
        item = Dataset()
        for keyword, value in items:
            setattr(item, keyword, value)
        identifier = identifier_of("SERIES", StudyInstanceUID="1.2")
        identifier.RequestAttributesSequence = [item] if items else []
        return plan(identifier, Model.STUDY_ROOT, AZURE, BASELINE)

    def series(self):
        items = []
        for number in ("1", "2"):
            item = Dataset()
            item.RequestedProcedureID = number
            item.ScheduledProcedureStepID = f"S{number}"
            item.AccessionNumber = "A"
            items.append(item)
        return row(StudyInstanceUID="1.2", SeriesInstanceUID="1.3", RequestAttributesSequence=items)

    def test_a_zero_length_sequence_key_returns_the_whole_sequence(self):
        answer = project(self.sequence_search(), self.series(), retrieve_aet="GATEWAY")
        assert [len(item) for item in answer.RequestAttributesSequence] == [3, 3]

    def test_an_item_key_returns_matching_items_with_what_it_asks_for(self):
        search = self.sequence_search(("RequestedProcedureID", "2"), ("ScheduledProcedureStepID", ""))
        assert matches(search, self.series())
        (item,) = project(search, self.series(), retrieve_aet="GATEWAY").RequestAttributesSequence
        assert [element.value for element in item] == ["S2", "2"]

    def test_one_item_has_to_match_all_item_keys(self):
        search = self.sequence_search(("RequestedProcedureID", "2"), ("ScheduledProcedureStepID", "S1"))
        assert not matches(search, self.series())

    def test_a_time_zone_moves_the_times_of_matches_and_answers(self):
        search = study_search(
            AZURE,
            Negotiated(timezone=True),
            StudyDate="20200102",
            StudyTime="0030-0130",
            TimezoneOffsetFromUTC="+0100",
        )
        entity = row(StudyDate="20200101", StudyTime="2315", TimezoneOffsetFromUTC="-0030", StudyInstanceUID="1.2")
        assert matches(search, entity)
        answer = project(search, entity, retrieve_aet="GATEWAY")
        assert (answer.StudyDate, answer.StudyTime, answer.TimezoneOffsetFromUTC) == ("20200102", "004500", "+0100")
        assert not matches(replace(search, zone=None), entity)


class TestPatients:
    def test_one_patient_is_one_id_of_one_issuer_with_the_newest_demographics(self):
        studies = [
            row(PatientID="1", PatientName="Old", PatientSex="F", StudyDate="20200101", StudyInstanceUID="1.1"),
            row(PatientID="1", PatientName="New", PatientSex="", StudyDate="2020.06.01", StudyInstanceUID="1.2"),
            row(PatientID="1", PatientName="Mid", StudyDate="20200301", StudyInstanceUID="1.3"),
            row(PatientID="1", IssuerOfPatientID="B", PatientName="Other", StudyInstanceUID="1.4"),
            row(PatientID="", PatientName="Nobody", StudyInstanceUID="1.5"),
            row(PatientID="", PatientName="Somebody", StudyInstanceUID="1.6"),
        ]
        identifier = identifier_of("PATIENT", PatientName="", PatientSex="")
        search = plan(identifier, Model.PATIENT_ROOT, AZURE, BASELINE)
        patients = Patients()
        patients.add(studies[:3])
        patients.add(studies[3:])
        answers = [project(search, patient, retrieve_aet="G") for patient in patients.entities()]
        assert [(one.PatientID or "", one.PatientName, one.PatientSex or "") for one in answers] == [
            ("1", "New", "F"),
            ("1", "Other", ""),
            ("", "Nobody", ""),
            ("", "Somebody", ""),
        ]

    def test_study_keys_do_not_narrow_patients(self):
        identifier = identifier_of("PATIENT", StudyDate="20200101")
        search = plan(identifier, Model.PATIENT_ROOT, AZURE, BASELINE)
        assert sent(search) == [[]]
        assert matches(search, row(PatientID="1", StudyDate="20210101"))


class TestRetrieves:
    def expand(self, level, model=Model.STUDY_ROOT, profile=AZURE, negotiated=BASELINE, **keys):
        return expand_plan(identifier_of(level, **keys), model, profile, negotiated)

    def test_levels_expand_to_instances(self):
        def resources(level, **keys):
            return [request.resource for request in self.expand(level, **keys).requests]

        assert resources("STUDY", StudyInstanceUID=["1.2", "1.3"]) == [
            "studies/1.2/instances",
            "studies/1.3/instances",
        ]
        assert resources("SERIES", StudyInstanceUID="1.2", SeriesInstanceUID=["1.4", "1.5"]) == [
            "studies/1.2/series/1.4/instances",
            "studies/1.2/series/1.5/instances",
        ]
        search = self.expand("IMAGE", StudyInstanceUID="1.2", SeriesInstanceUID="1.4", SOPInstanceUID=["1.6", "1.7"])
        assert sent(search) == [[("SOPInstanceUID", "1.6")], [("SOPInstanceUID", "1.7")]]
        assert {"00080016", "0020000D", "0020000E", "00080018"} <= set(included(search))
        assert search.level == "IMAGE"

    @pytest.mark.parametrize(
        ("level", "keys", "keyword"),
        [
            ("", {}, "QueryRetrieveLevel"),
            ("PATIENT", {"PatientID": "1"}, "QueryRetrieveLevel"),
            ("STUDY", {}, "StudyInstanceUID"),
            ("STUDY", {"StudyInstanceUID": ""}, "StudyInstanceUID"),
            ("STUDY", {"StudyInstanceUID": "*"}, "StudyInstanceUID"),
            ("STUDY", {"StudyInstanceUID": "1.2*"}, "StudyInstanceUID"),
            ("SERIES", {"SeriesInstanceUID": "1.2"}, "StudyInstanceUID"),
            ("SERIES", {"StudyInstanceUID": ["1.2", "1.3"], "SeriesInstanceUID": "1.4"}, "StudyInstanceUID"),
            ("IMAGE", {"StudyInstanceUID": "1.2", "SOPInstanceUID": "1.4"}, "SeriesInstanceUID"),
        ],
    )
    def test_missing_universal_and_wildcard_unique_keys_are_refused(self, level, keys, keyword):
        with pytest.raises(IdentifierError) as raised:
            self.expand(level, **keys)
        assert raised.value.keyword == keyword

    @pytest.mark.parametrize("value", ["", "*", "A*", "A?", ["A", "B"]])
    def test_a_patient_is_retrieved_by_one_id_without_wildcards(self, value):
        with pytest.raises(IdentifierError, match="PatientID"):
            self.expand("PATIENT", Model.PATIENT_ROOT, PatientID=value)

    def test_other_keys_do_not_count(self):
        search = self.expand("STUDY", StudyInstanceUID="1.2", PatientName="nobody", StudyDate="nonsense", Modality="")
        assert matches(search, row(StudyInstanceUID="1.2", SOPInstanceUID="1.3"))

    def test_a_patient_id_restricts_exactly(self):
        search = self.expand("PATIENT", Model.PATIENT_ROOT, PatientID="a1")
        assert [request.resource for request in search.requests] == ["instances"]
        assert matches(search, row(PatientID="a1", SOPInstanceUID="1.3"))
        assert not matches(search, row(PatientID="A1", SOPInstanceUID="1.3")), "the archive ignores case"

    def test_a_patient_id_that_cannot_be_sent_is_looked_up_in_the_studies_first(self):
        search = self.expand("PATIENT", Model.PATIENT_ROOT, PatientID="a<1")
        assert search.studies_first
        assert [request.resource for request in search.requests] == ["studies"]
        study = row(StudyInstanceUID="1.2", PatientID="a<1")
        assert matches(search, study)
        assert instances_of(study, AZURE).resource == "studies/1.2/instances"
        assert instances_of(row(StudyInstanceUID="../x"), AZURE) is None

    def test_relational_retrieves_need_no_unique_key_above(self):
        search = self.expand("IMAGE", negotiated=RELATIONAL, SOPInstanceUID="1.4")
        assert [request.resource for request in search.requests] == ["instances"]
        assert sent(search) == [[("SOPInstanceUID", "1.4")]]

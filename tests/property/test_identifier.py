from contextlib import suppress
from datetime import timedelta
from functools import lru_cache

import pytest
import queries
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from gateway.errors import IdentifierError
from gateway.translate import charset
from gateway.translate.dicom_json import from_dataset, to_dataset
from gateway.translate.encode import encode_elements
from gateway.translate.identifier import decode_identifier, encode_identifier
from gateway.translate.profiles import PROFILES
from gateway.translate.responses import Responder
from gateway.translate.search import Model, Negotiated, answer, expand_plan, matches, plan, project

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
syntaxes = st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED])
EVERYTHING = Negotiated(relational=True, combined_datetime=True, fuzzy=True, timezone=True, empty_value=True)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 99),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\ud800", "1.5", "x^y", "00100010", "20200101", "CT", "Müller", "1.2.3"]),
)
VRS = ["AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OW", "PN", "SH", "SL", "SQ"]
VRS += ["SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV", "XX", ""]
TAGS = {
    "00080005": "CS",
    "00080018": "UI",
    "00080020": "DA",
    "00080061": "CS",
    "00081110": "SQ",
    "00080201": "SH",
    "00100010": "PN",
    "00100020": "LO",
    "00101030": "DS",
    "00200013": "IS",
    "0020000d": "UI",
    "0020000D": "UI",
    "00280010": "US",
    "00400275": "SQ",
    "00091001": "UN",
    "7FE00010": "OW",
    "00020010": "UI",
    "00080000": "UL",
    "zz": "LO",
}


@st.composite
def members(draw, inner):
    """Give a member of a DICOM JSON object: often right, often not."""
    name = draw(st.sampled_from(sorted(TAGS)))
    names = st.fixed_dictionaries({}, optional={"Alphabetic": scalars, "Ideographic": scalars, "Phonetic": scalars})
    element = st.fixed_dictionaries(
        {"vr": st.one_of(st.just(TAGS[name]), st.just(TAGS[name]), st.sampled_from(VRS), scalars)},
        optional={
            "Value": st.one_of(st.lists(st.one_of(scalars, scalars, names, inner), max_size=3), scalars),
            "InlineBinary": st.one_of(scalars, st.just("AAE=")),
            "BulkDataURI": st.just("x"),
        },
    )
    return name, draw(st.one_of(element, element, element, scalars))


models = st.recursive(st.just({}), lambda inner: st.lists(members(inner), max_size=8).map(dict), max_leaves=6)


REPERTOIRES = {
    ("ISO_IR 100",): "latin_1",
    ("ISO_IR 101",): "iso8859_2",
    ("ISO_IR 109",): "iso8859_3",
    ("ISO_IR 110",): "iso8859_4",
    ("ISO_IR 126",): "iso8859_7",
    ("ISO_IR 127",): "iso8859_6",
    ("ISO_IR 138",): "iso8859_8",
    ("ISO_IR 144",): "iso8859_5",
    ("ISO_IR 148",): "iso8859_9",
    ("ISO_IR 166",): "tis_620",
    ("ISO_IR 192",): "utf-8",
    ("GB18030",): "gb18030",
    ("GBK",): "gbk",
    ("", "ISO 2022 IR 87"): "iso2022_jp",
    ("", "ISO 2022 IR 87", "ISO 2022 IR 159"): "euc_jp",
    ("", "ISO 2022 IR 149"): "euc_kr",
    ("", "ISO 2022 IR 58"): "gb2312",
    ("ISO 2022 IR 100", "ISO 2022 IR 126"): "iso8859_7",
    ("ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 87"): "iso2022_jp",
}


def bounded(examples):
    return settings(max_examples=examples, deadline=timedelta(seconds=2), database=None)


def pydicom_encoding(dataset, syntax):
    target = DicomBytesIO()
    target.is_implicit_VR, target.is_little_endian = UID(syntax).is_implicit_VR, UID(syntax).is_little_endian
    write_dataset(target, dataset, ["utf-8"])
    return target.getvalue()


@bounded(400)
@given(models)
def test_no_model_makes_the_door_raise_and_what_comes_through_can_be_encoded(model):
    dataset, lost = to_dataset(model)
    assert lost >= 0
    assert pydicom_encoding(dataset, EXPLICIT)
    again, lost_again = to_dataset(from_dataset(dataset, bulk=True))
    assert (again, lost_again) == (dataset, 0)


@bounded(300)
@given(models, queries.identifiers("STUDY"), syntaxes)
def test_any_row_is_matched_and_answered_with_pydicom_s_bytes(row, identifier, syntax):
    try:
        search = plan(identifier, Model.STUDY_ROOT, PROFILES["azure"], EVERYTHING)
    except IdentifierError:
        return
    assert matches(search, row) in (True, False)
    elements = answer(search, row, retrieve_aet="GATEWAY")
    encoded = encode_elements(elements, syntax)
    assert Responder(search, retrieve_aet="GATEWAY", transfer_syntax=syntax).encode(row) == encoded
    projected = project(search, row, retrieve_aet="GATEWAY")
    assert encode_identifier(projected, syntax) == encoded
    if syntax != DEFLATED:
        if b"\x08\x00\x05\x00" not in encoded[:4] and b"\x00\x08\x00\x05" not in encoded[:4]:
            del projected.SpecificCharacterSet
        assert encoded == pydicom_encoding(projected, syntax)


@bounded(200)
@given(queries.entities(), queries.identifiers("IMAGE"), syntaxes, st.sampled_from(sorted(REPERTOIRES)))
def test_a_plain_row_is_answered_at_once_with_the_bytes_of_the_long_way(entity, identifier, syntax, terms):
    try:
        search = plan(identifier, Model.STUDY_ROOT, PROFILES["azure"], Negotiated(relational=True))
    except IdentifierError:
        return
    row = from_dataset(entity, bulk=False)
    responder = Responder(search, retrieve_aet="GATEWAY", transfer_syntax=syntax, terms=terms)
    assert responder.encode(row) == encode_elements(answer(search, row, retrieve_aet="GATEWAY"), syntax, terms)


@bounded(150)
@given(queries.entities(), queries.identifiers("IMAGE"), syntaxes)
def test_an_identifier_survives_encoding_and_decoding(entity, identifier, syntax):
    for dataset in (entity, identifier):
        decoded = decode_identifier(encode_identifier(dataset, syntax), syntax)
        assert without_charset(decoded) == without_charset(dataset)


@bounded(100)
@given(queries.identifiers("STUDY"), syntaxes, st.data())
def test_an_identifier_that_is_cut_inside_an_element_is_refused(identifier, syntax, data):
    raw = encode_identifier(identifier, syntax)
    whole = without_charset(decode_identifier(raw, syntax))
    try:
        cut = decode_identifier(raw[: data.draw(st.integers(1, len(raw) - 1))], syntax)
    except IdentifierError:
        return
    for name, element in without_charset(cut).items():
        assert element == whole[name]


def without_charset(dataset):
    """Give the DICOM JSON model without character set and trailing spaces, which say nothing (PS3.5 6.2)."""
    return bare({tag: element for tag, element in from_dataset(dataset, bulk=True).items() if tag != "00080005"})


def bare(value):
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    if isinstance(value, list):
        return [bare(item) for item in value]
    return value.rstrip(" ") if isinstance(value, str) else value


@bounded(400)
@given(
    st.one_of(
        st.binary(max_size=200), queries.identifiers("STUDY").map(lambda one: encode_identifier(one, IMPLICIT))
    ),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    syntaxes,
    st.sampled_from(list(Model)),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_bytes_give_a_search_or_an_identifier_error(raw, damage, syntax, model):
    damaged = bytearray(raw)
    for position, value in damage:
        if position < len(damaged):
            damaged[position] = value
    try:
        identifier = decode_identifier(bytes(damaged), syntax)
    except IdentifierError:
        return
    for make in (plan, expand_plan):
        for negotiated in (Negotiated(), EVERYTHING):
            try:
                make(identifier, model, PROFILES["dcm4chee"], negotiated, default_level="STUDY")
            except IdentifierError as error:
                assert error.keyword


@lru_cache
def letters(codec):
    """Give some of what a codec has in each script, without delimiters."""
    codes = (
        *range(0x20, 0x700),
        *range(0xE00, 0xE60),
        *range(0x3040, 0x3100),
        *range(0x4E00, 0x5200),
        0xAC00,
        0xFF71,
    )
    plane = "".join(map(chr, codes)).encode(codec, "ignore").decode(codec, "ignore")
    return sorted({letter for letter in plane if letter.isprintable()} - set("^=\\"))


@st.composite
def texts_in_sets(draw):
    terms = draw(st.sampled_from(sorted(REPERTOIRES)))
    letter = st.sampled_from(letters(REPERTOIRES[terms]))
    parts = draw(st.lists(st.text(letter, max_size=5), min_size=1, max_size=4))
    return terms, draw(st.sampled_from(["^", "=", " ", "\\"])).join(parts)


@bounded(400)
@given(texts_in_sets())
def test_text_survives_each_character_set_or_does_not_fit_it(case):
    terms, text = case
    encoded = charset.encode(text, terms, person_name=True)
    if encoded is None:
        assert len(terms) > 1, "a single set takes all that it has"
        return
    assert charset.decode(encoded, terms, person_name=True) == text


@bounded(400)
@given(st.binary(max_size=24), st.sampled_from(sorted(REPERTOIRES)))
def test_bytes_in_a_character_set_are_decoded_or_refused(data, terms):
    with suppress(UnicodeError):
        charset.decode(data, terms)
    assert isinstance(charset.decode(data, terms, errors="replace"), str)

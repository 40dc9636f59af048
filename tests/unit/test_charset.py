"""Names in the character sets that hospitals use, both ways (PS3.3 C.12.1.1.2, PS3.5 6.1.2)."""

import pydicom
import pytest
from names import ALL, NAMES, SELF_EXPLANATORY, element, raw_name, read
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from queries import identifier_of

from gateway.errors import IdentifierError
from gateway.translate import charset
from gateway.translate.dicom_json import from_dataset
from gateway.translate.encode import encode_elements
from gateway.translate.encoding import EXPLICIT, header
from gateway.translate.identifier import decode_identifier, encode_identifier
from gateway.translate.profiles import PROFILES
from gateway.translate.responses import Responder
from gateway.translate.search import Model, Negotiated, answer, matches, plan, project

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def archived(name):
    """Give the row of an archive that holds the file: JSON in UTF-8."""
    return from_dataset(read(name), bulk=False)


def find(identifier):
    return plan(identifier, Model.STUDY_ROOT, PROFILES["azure"], Negotiated())


@pytest.mark.parametrize("name", ALL)
def test_a_stored_name_is_decoded(name):
    groups = archived(name)["00100010"]["Value"][0]
    assert (
        "=".join(groups.get(one, "") for one in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=") == NAMES[name]
    )


@pytest.mark.parametrize(
    ("name", "declared"), [(name, True) for name in ALL] + [(name, False) for name in SELF_EXPLANATORY]
)
def test_a_name_is_found_by_an_identifier_in_its_own_character_set(name, declared):
    """As a sender writes it: the bytes of the file, with or without (0008,0005)."""
    dataset = read(name)
    raw = element(0x00080052, "CS", b"STUDY ") + element(0x00100010, "PN", raw_name(dataset))
    if declared:
        raw = element(0x00080005, "CS", "\\".join(charset.declared(dataset)).encode()) + raw
    search = find(decode_identifier(raw, ExplicitVRLittleEndian))
    assert matches(search, archived(name))
    others = [other for other in ALL if NAMES[name] not in (NAMES[other], *NAMES[other].split("="))]
    assert [other for other in others if matches(search, archived(other))] == []


@pytest.mark.parametrize("name", [name for name in ALL if "Multi" not in name])
def test_the_peer_s_default_holds_where_none_is_declared(name):
    dataset = read(name)
    default = "\\".join(charset.declared(dataset))
    raw = element(0x00100010, "PN", raw_name(dataset))
    identifier = decode_identifier(raw, ExplicitVRLittleEndian, default_charset=default)
    assert identifier.PatientName == NAMES[name]
    assert "SpecificCharacterSet" not in identifier


@pytest.mark.parametrize("name", ALL)
def test_a_name_is_found_by_an_identifier_in_utf_8(name):
    identifier = decode_identifier(
        encode_identifier(identifier_of(PatientName=NAMES[name]), ImplicitVRLittleEndian), ImplicitVRLittleEndian
    )
    assert identifier.SpecificCharacterSet == "ISO_IR 192"
    assert matches(find(identifier), archived(name))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_answer_is_readable_by_pydicom_in_the_set_the_peer_wants(name, syntax):
    terms = charset.terms_of(read(name))
    search = find(identifier_of(PatientName=""))
    encoded = encode_elements(answer(search, archived(name), retrieve_aet="GATEWAY"), syntax, terms)
    decoded = decoded_by_pydicom(encoded, syntax)
    assert str(decoded.PatientName) == NAMES[name]
    assert [one or "" for one in values(decoded.SpecificCharacterSet)] == list(terms)
    responder = Responder(search, retrieve_aet="GATEWAY", transfer_syntax=syntax, terms=terms)
    assert responder.encode(archived(name)) == encoded


@pytest.mark.parametrize("name", [name for name in ALL if "Fren" not in name and "Germ" not in name])
def test_an_answer_that_does_not_fit_the_set_is_in_utf_8_and_never_has_question_marks(name):
    projected = project(find(identifier_of(PatientName="")), archived(name), retrieve_aet="GATEWAY")
    encoded = encode_identifier(projected, ExplicitVRLittleEndian, charset=("ISO_IR 100",))
    decoded = decoded_by_pydicom(encoded, ExplicitVRLittleEndian)
    assert (str(decoded.PatientName), decoded.SpecificCharacterSet) == (NAMES[name], "ISO_IR 192")


def test_an_answer_in_ascii_declares_no_character_set():
    identifier = identifier_of(PatientName="Doe^John")
    assert "SpecificCharacterSet" not in decode_identifier(
        encode_identifier(identifier, ImplicitVRLittleEndian), ImplicitVRLittleEndian
    )


@pytest.mark.parametrize("name", ["chrArab", "chrGreek", "chrHbrw", "chrRuss", "chrH31", "chrH32", "chrI2"])
def test_bytes_are_those_of_the_file_when_encoded_again(name):
    dataset = read(name)
    encoded = charset.encode(NAMES[name], charset.terms_of(dataset), person_name=True)
    assert encoded == raw_name(dataset).rstrip(b" ")


def test_the_same_bytes_in_another_set_are_another_name():
    greek = element(0x00080005, "CS", b"ISO_IR 126") + element(0x00100010, "PN", raw_name(read("chrGreek")))
    cyrillic = greek.replace(b"ISO_IR 126", b"ISO_IR 144")
    assert matches(find_level(greek), archived("chrGreek"))
    assert not matches(find_level(cyrillic), archived("chrGreek"))


@pytest.mark.parametrize("value", [b"ISO_IR 999", b"KLINGON", b"ISO_IR 100\\X-1"])
@pytest.mark.filterwarnings("ignore:Unknown encoding:UserWarning")  # pydicom's own word on it
def test_an_unknown_set_is_read_as_ascii_or_refused(value):
    declared = element(0x00080005, "CS", value + b" " * (len(value) % 2))
    assert decode_identifier(declared + element(0x00100010, "PN", b"Doe^John"), ExplicitVRLittleEndian).PatientName
    with pytest.raises(IdentifierError, match="SpecificCharacterSet"):
        decode_identifier(declared + element(0x00100010, "PN", b"D\xf6e^J\xf6rn"), ExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("terms", "data"),
    [
        (b"ISO_IR 192", b"D\xf6e"),
        (b"\\ISO 2022 IR 87", b"\x1b$Z"),
        (b"ISO 2022 IR 149", b"\x1b$)C\xff\xff"),
        (b"GB18030", b"\xff\xff"),
    ],
)
def test_bytes_that_are_no_text_in_their_set_are_refused_by_the_key_s_name(terms, data):
    raw = element(0x00080005, "CS", terms + b" " * (len(terms) % 2))
    raw += element(0x00100010, "PN", data + b" " * (len(data) % 2))
    with pytest.raises(IdentifierError, match="PatientName"):
        decode_identifier(raw, ExplicitVRLittleEndian)


def test_items_of_a_sequence_inherit_the_character_set():
    item = element(0x0008103E, "LO", b"Sch\xe4del ")
    raw = element(0x00080005, "CS", b"ISO_IR 100")
    raw += element(0x00081110, "SQ", header(EXPLICIT, 0xFFFEE000, "", len(item)) + item)
    assert decode_identifier(raw, ExplicitVRLittleEndian).ReferencedStudySequence[0].SeriesDescription == "Schädel"


@pytest.mark.parametrize(
    ("spelling", "term"),
    [
        ("ISO_IR 100", "ISO_IR 100"),
        ("iso-ir 100", "ISO_IR 100"),
        ("ISO IR 100 ", "ISO_IR 100"),
        ("ISO_IR_100", "ISO_IR 100"),
        ("ISO 2022 IR 100", "ISO 2022 IR 100"),
        ("ISO2022 IR 87", "ISO 2022 IR 87"),
        ("ISO_IR 149", "ISO 2022 IR 149"),
        ("UTF-8", "ISO_IR 192"),
        ("ISO 2022 IR 192", "ISO_IR 192"),
        ("ISO 2022 GBK", "GBK"),
        ("", ""),
        ("LATIN1", None),
    ],
)
def test_usual_spellings_of_a_defined_term_are_understood(spelling, term):
    assert charset.defined_term(spelling) == term


def test_text_with_characters_of_two_sets_switches_between_them():
    terms = ("ISO 2022 IR 100", "ISO 2022 IR 126", "ISO 2022 IR 87")
    text = "Müller^Διον=山田 und Jörg"
    encoded = charset.encode(text, terms, person_name=True)
    assert b"\x1b-F" in encoded
    assert b"\x1b$B" in encoded
    assert charset.decode(encoded, terms, person_name=True) == text


def find_level(raw):
    identifier = decode_identifier(raw, ExplicitVRLittleEndian)
    identifier.QueryRetrieveLevel = "STUDY"
    return find(identifier)


def values(value):
    return [value] if isinstance(value, str) else list(value)


def decoded_by_pydicom(encoded: bytes, syntax: str) -> Dataset:
    stream = pydicom.filebase.DicomBytesIO(encoded)
    return pydicom.filereader.read_dataset(stream, syntax.is_implicit_VR, syntax.is_little_endian)

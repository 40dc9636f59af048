"""Names of nine scripts, asked by DCMTK's findscu in any character set: found, and readable for it in the answer."""

import subprocess
from contextlib import ExitStack

import dcmtk
import pydicom
import pytest
from gateway_process import GatewayProcess
from names import ALL, NAMES, SELF_EXPLANATORY, element, raw_name, read
from orthanc import Orthanc
from pydicom.uid import generate_uid

from gateway.translate import charset
from gateway.translate.part10 import file_header

EXPLICIT = "1.2.840.10008.1.2.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SETS = sorted({"\\".join(charset.declared(read(name))) for name in ALL})
# Debian's DCMTK has no converter for these sets, and Orthanc 1.10 answers QIDO-RS with escape sequences for them
DCMTK_LACKS = "ISO 2022 IR 87"
ORTHANC_MISREADS = ("chrH32", "chrJapMultiExplicitIR6")
PEERS = {
    "DCMTK": {},
    "SAME_SET": {"answer_character_set": "request"},
    **{
        f"SILENT{number}": {"character_set": one, "answer_character_set": "request"}
        for number, one in enumerate(SETS)
    },
    **{f"WANTS{number}": {"answer_character_set": one} for number, one in enumerate(SETS)},
}


@pytest.fixture
def port(request, gateway_port):
    kind, port = gateway_port
    name = request.node.callspec.params.get("name")
    if kind == "orthanc" and name in ORTHANC_MISREADS:
        pytest.skip("the archive itself does not read this name")
    return port


@pytest.fixture(scope="module", params=["embedded", "orthanc"])
def gateway_port(request, tmp_path_factory):
    """Run a gateway whose archive holds the files, each as a study of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        sections = {}
        if request.param == "orthanc":
            orthanc = stack.enter_context(Orthanc(folder))
            sections = {
                "archives": {"orthanc": {"url": orthanc.url, "profile": "orthanc"}},
                "ae_titles": {"GATEWAY": {"archive": "orthanc"}},
            }
        gateway = stack.enter_context(GatewayProcess(folder / "gateway", peers=PEERS, **sections))
        stored = dcmtk.storescu(gateway.port, *[file_of(name, folder) for name in ALL])
        assert stored.statuses == [0x0000] * len(ALL)
        yield request.param, gateway.port
        assert "Traceback" not in gateway.log


def file_of(name, folder):
    """Write a file with UIDs and a Patient ID of its own; its texts keep their bytes."""
    dataset = read(name)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (generate_uid() for _ in range(3))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = name
    path = folder / f"{name}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def found(port, folder, name, *, calling, value, declared):
    """Ask for a name and give the answer's file; fails unless it is the one answer."""
    keys = element(0x00080005, "CS", padded(declared.encode())) if declared is not None else b""
    keys += element(0x00080052, "CS", b"STUDY ") + element(0x00100010, "PN", padded(value))
    keys += element(0x00100020, "LO", padded(name.encode())) + element(0x0020000D, "UI", b"")
    question = folder / "question.dcm"
    question.write_bytes(file_header(FIND, "1.2.3", EXPLICIT) + keys)
    options = ("-S", "-X", "-od", folder, "-aec", "GATEWAY", "-aet", calling)
    result = dcmtk.run("findscu", *options, "127.0.0.1", str(port), question)
    assert result.statuses == [0xFF00, 0x0000], result.output[-2000:]
    return folder / "rsp0001.dcm"


def padded(value):
    return value + b" " * (len(value) % 2)


def check(answer, name, declared):
    """Read an answer with pydicom, and with DCMTK, which converts it to UTF-8."""
    dataset = pydicom.dcmread(answer, force=True)
    assert str(dataset.PatientName) == NAMES[name]
    assert "\\".join(charset.declared(dataset)) == declared
    if DCMTK_LACKS not in declared:
        dump = subprocess.run(["dcmdump", "+U8", "+P", "0010,0010", answer], capture_output=True, check=True)
        assert NAMES[name] in dump.stdout.decode()


def declared_by(name):
    return "\\".join(charset.declared(read(name)))


@pytest.mark.parametrize("name", ALL)
def test_a_name_is_found_in_its_own_set_and_answered_in_utf_8(port, name, tmp_path):
    value, declared = raw_name(read(name)), declared_by(name)
    check(found(port, tmp_path, name, calling="DCMTK", value=value, declared=declared), name, "ISO_IR 192")


@pytest.mark.parametrize("name", ALL)
def test_a_name_is_found_in_its_own_set_and_answered_in_it_where_the_peer_wants_that(port, name, tmp_path):
    value, declared = raw_name(read(name)), declared_by(name)
    check(found(port, tmp_path, name, calling="SAME_SET", value=value, declared=declared), name, declared)


@pytest.mark.parametrize("name", ALL)
def test_a_name_is_found_in_utf_8_and_answered_in_the_set_that_the_peer_demands(port, name, tmp_path):
    wanted = declared_by(name)
    calling, value = f"WANTS{SETS.index(wanted)}", NAMES[name].encode()
    check(found(port, tmp_path, name, calling=calling, value=value, declared="ISO_IR 192"), name, wanted)


@pytest.mark.parametrize("name", ALL)
def test_a_name_without_a_declared_set_is_found_by_the_peer_s_default(port, name, tmp_path):
    default = declared_by(name)
    calling, value = f"SILENT{SETS.index(default)}", raw_name(read(name))
    check(found(port, tmp_path, name, calling=calling, value=value, declared=None), name, default)


@pytest.mark.parametrize("name", SELF_EXPLANATORY)
def test_a_name_that_explains_itself_is_found_without_a_declared_set(port, name, tmp_path):
    value = raw_name(read(name))
    check(found(port, tmp_path, name, calling="DCMTK", value=value, declared=None), name, "ISO_IR 192")


@pytest.mark.parametrize("name", ["chrGreek", "chrH31", "chrI2", "chrX2"])
def test_a_name_that_the_demanded_set_does_not_have_is_answered_in_utf_8(port, name, tmp_path):
    calling, value = f"WANTS{SETS.index('ISO_IR 100')}", NAMES[name].encode()
    check(found(port, tmp_path, name, calling=calling, value=value, declared="ISO_IR 192"), name, "ISO_IR 192")


@pytest.mark.parametrize(("part", "name"), [("*小東", "chrX1"), ("ДИОН*", None), ("διονυσιοσ", "chrGreek")])
def test_a_wildcard_and_another_case_find_what_they_should(port, part, name, tmp_path):
    keys = (f"PatientName={part}", "SpecificCharacterSet=ISO_IR 192", "QueryRetrieveLevel=STUDY", "PatientID")
    answers = dcmtk.findscu(port, *keys).responses
    assert [one.PatientID for one in answers] == ([name] if name else [])

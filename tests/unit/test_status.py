import inspect

import pytest
from pynetdicom.status import (
    QR_FIND_SERVICE_CLASS_STATUS,
    QR_GET_SERVICE_CLASS_STATUS,
    QR_MOVE_SERVICE_CLASS_STATUS,
    STORAGE_COMMITMENT_SERVICE_CLASS_STATUS,
    STORAGE_SERVICE_CLASS_STATUS,
)

from gateway import errors, status
from gateway.errors import Cancelled, GatewayError, InstanceRefused
from gateway.status import CANCEL, TABLE, Service, comment, status_of

PATIENT = "DOE^JANE 19700101"
KNOWN = {
    Service.STORE: STORAGE_SERVICE_CLASS_STATUS,
    Service.FIND: QR_FIND_SERVICE_CLASS_STATUS,
    Service.MOVE: QR_MOVE_SERVICE_CLASS_STATUS,
    Service.GET: QR_GET_SERVICE_CLASS_STATUS,
    # pynetdicom has 0131 as a Failure Reason only (PS3.3 C.14.1.1)
    Service.COMMIT: {**STORAGE_COMMITMENT_SERVICE_CLASS_STATUS, 0x0131: ("Failure", "Duplicate transaction UID")},
}
CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, GatewayError)]
ARGUMENTS = {
    "archive": "main",
    "destination": "VIEWER",
    "keyword": "StudyDate",
    "title": PATIENT,
    "source": "config.yaml",
    "problem": PATIENT,
    "status": 0x0120,
    "comment": PATIENT,
    "reason": 0xC000,
    "faults": (),
    "http_status": 500,
    "retry_after": 1.0,
}


def make(kind):
    """Make an error of a class as if what it was told held patient data."""
    if kind.__init__ is Exception.__init__:
        return kind(PATIENT)
    signature = inspect.signature(kind).parameters.values()
    required = [parameter for parameter in signature if parameter.default is parameter.empty]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in required):
        return kind(PATIENT)
    return kind(**{parameter.name: ARGUMENTS[parameter.name] for parameter in signature})


every_error = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
every_service = pytest.mark.parametrize("service", Service, ids=lambda service: service.value)


@every_error
@every_service
def test_every_error_has_a_failure_status_that_the_service_knows(kind, service):
    code = status_of(make(kind), service).code
    category, _ = KNOWN[service][code]
    if kind is Cancelled and service not in (Service.STORE, Service.COMMIT):
        assert (code, category) == (CANCEL, "Cancel")
    else:
        assert category == "Failure"


@every_service
def test_every_code_in_the_table_is_known_to_its_service(service):
    for kind, row in TABLE.items():
        if service in row:
            assert row[service] in KNOWN[service], f"{kind.__name__}: {row[service]:04X}H"


@every_error
@every_service
def test_every_failure_has_an_error_comment_of_at_most_64_ascii_characters(kind, service):
    text = status_of(make(kind), service).comment
    assert 0 < len(text) <= 64
    assert text.isascii()
    assert text.isprintable()
    assert "\\" not in text


# an identifier's problem is our own wording about a key, the only one that is passed on
@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if kind is not errors.IdentifierError], ids=lambda kind: kind.__name__
)
@every_service
def test_an_error_comment_repeats_nothing_that_an_archive_or_a_data_set_said(kind, service):
    text = status_of(make(kind), service).comment
    assert not any(word in text for word in ("DOE", "JANE", "1970"))


def test_an_identifiers_fault_names_its_key():
    found = status_of(errors.IdentifierError("StudyDate", "is not a date or a range of dates"), Service.FIND)
    assert found.comment == "StudyDate: is not a date or a range of dates"


def test_an_archive_with_a_long_name_leaves_the_comment_within_its_limit():
    error = errors.ArchiveBusy("archive-of-the-university-hospital-" * 4, "busy")
    assert len(status_of(error, Service.STORE).comment) == 64


def test_a_subclass_without_a_row_has_the_status_of_its_parent():
    class Stalled(errors.ArchiveUnreachable):
        pass

    error = Stalled("main", "stalled")
    assert status_of(error, Service.STORE) == status_of(errors.ArchiveUnreachable("main", ""), Service.STORE)


def test_every_failure_reason_of_an_archive_ends_as_a_failure_that_c_store_knows():
    for reason in range(0x10000):
        code = status_of(InstanceRefused("main", reason), Service.STORE).code
        assert KNOWN[Service.STORE].get(code, ("unknown",))[0] == "Failure", f"{reason:04X}H -> {code:04X}H"


@pytest.mark.parametrize("reason", [0xA700, 0xA900, 0xC000, 0x0110, 0x0122, 0x0124])
def test_a_failure_reason_that_is_a_c_store_status_is_passed_on(reason):
    assert status_of(InstanceRefused("main", reason), Service.STORE).code == reason


@pytest.mark.parametrize(
    ("error", "service", "code"),
    [
        (errors.DestinationUnknown("X", ""), Service.MOVE, 0xA801),
        (errors.IdentityMismatch(""), Service.STORE, 0xA900),
        (errors.SpoolFull(""), Service.STORE, 0xA700),
        (errors.IdentifierError("", ""), Service.FIND, 0xA900),
        (errors.IdentifierError("", ""), Service.GET, 0xA900),
    ],
)
def test_the_standards_own_codes_are_used(error, service, code):
    assert status_of(error, service).code == code


def test_named_statuses_are_in_the_category_that_their_name_says():
    move = KNOWN[Service.MOVE]
    assert move[status.SUCCESS][0] == "Success"
    assert move[status.PENDING][0] == "Pending"
    assert KNOWN[Service.FIND][status.PENDING_WITH_UNSUPPORTED_KEYS][0] == "Pending"
    assert move[status.SUB_OPERATIONS_FAILED][0] == "Warning"
    assert move[status.ALL_SUB_OPERATIONS_FAILED][0] == "Failure"
    for code in (status.SOP_CLASS_NOT_SUPPORTED, status.NOT_AUTHORIZED, status.UNRECOGNIZED_OPERATION):
        assert move[code][0] == "Failure"


@pytest.mark.parametrize("text", ["a\\b", "a\nb", "Müller", "x" * 200, " x "])
def test_a_comment_is_cleaned_and_cut(text):
    clean = comment(text)
    assert 0 < len(clean) <= 64
    assert clean == clean.strip()
    assert clean.isascii()
    assert clean.isprintable()
    assert "\\" not in clean


@pytest.mark.parametrize("code", sorted(status._REFUSALS))
def test_every_status_that_refuses_a_commitment_is_known_and_passed_on(code):
    found = status_of(errors.CommitmentRefused(code, PATIENT), Service.COMMIT)
    assert found.code == code
    assert KNOWN[Service.COMMIT][code][0] == "Failure"
    assert 0 < len(found.comment) <= 64
    assert "DOE" not in found.comment

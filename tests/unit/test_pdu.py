import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from gateway.dimse import pdu
from gateway.dimse.pdu import AssociateRequest, ContextResult, PduError, ProposedContext, UserInformation

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def pynetdicom_request() -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = pdu.APPLICATION_CONTEXT
    primitive.calling_ae_title = "CT 01"
    primitive.called_ae_title = "GATEWAY"
    length = MaximumLengthNotification()
    length.maximum_length_received = 32_768
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, False, True
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = FIND, b"\x01\x00\x01"
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"someone"
    primitive.user_information = [length, implementation, role, extended, identity]
    contexts = [build_context(FIND), build_context(CT, "1.2.840.10008.1.2.4.50")]
    contexts[0].context_id, contexts[1].context_id = 1, 3
    primitive.presentation_context_definition_list = contexts
    message = A_ASSOCIATE_RQ()
    message.from_primitive(primitive)
    return bytes(message.encode())


def test_a_request_of_pynetdicom_is_read_whole() -> None:
    request = pdu.decode_request(pynetdicom_request()[6:])
    assert (request.calling, request.called) == ("CT 01", "GATEWAY")
    assert request.contexts[1] == ProposedContext(3, CT, ("1.2.840.10008.1.2.4.50",))
    assert request.user.max_length == 32_768
    assert request.user.roles == {CT: (False, True)}
    assert request.user.extended == {FIND: b"\x01\x00\x01"}


def test_an_acceptance_is_read_by_pynetdicom_and_repeats_bytes_11_to_74() -> None:
    raw = pynetdicom_request()
    request = pdu.decode_request(raw[6:])
    user = UserInformation(65_536, "1.2.3", "VERSION", {CT: (False, True)}, {FIND: b"\x01"}, (1, 1))
    results = (ContextResult(1, 0, "1.2.840.10008.1.2.1"), ContextResult(3, 4, "1.2.840.10008.1.2.4.50"))
    answer = pdu.encode_accept(request, results, user)
    assert answer[10:74] == raw[10:74]
    theirs = A_ASSOCIATE_AC()
    theirs.decode(answer)
    primitive = theirs.to_primitive()
    assert [context.result for context in primitive.presentation_context_definition_results_list] == [0, 4]
    assert pdu.decode_accept(answer[6:]) == pdu.AssociateAccept(results, user)


def test_our_own_request_is_read_by_pynetdicom() -> None:
    request = AssociateRequest(
        "STORE",
        "GATEWAY",
        1,
        pdu.APPLICATION_CONTEXT,
        (ProposedContext(1, CT, ("1.2.840.10008.1.2",)),),
        UserInformation(16_384, "1.2.3", "VERSION"),
    )
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(pdu.encode_request(request))
    assert theirs.to_primitive().called_ae_title == "STORE"


@pytest.mark.parametrize("identifiers", [(1, 1), (2,), (0,)])
def test_even_zero_or_repeated_context_identifiers_are_refused(identifiers: tuple[int, ...]) -> None:
    contexts = tuple(ProposedContext(number, CT, ("1.2.840.10008.1.2",)) for number in identifiers)
    raw = pdu.encode_request(
        AssociateRequest("A", "B", 1, pdu.APPLICATION_CONTEXT, contexts, UserInformation(0, "1", "V"))
    )
    with pytest.raises(PduError):
        pdu.decode_request(raw[6:])


@pytest.mark.parametrize("length", [1, 6, 7])
def test_a_maximum_length_that_no_fragment_fits_is_refused(length: int) -> None:
    contexts = (ProposedContext(1, CT, ("1.2.840.10008.1.2",)),)
    request = AssociateRequest("A", "B", 1, pdu.APPLICATION_CONTEXT, contexts, UserInformation(length, "1", "V"))
    with pytest.raises(PduError):
        pdu.decode_request(pdu.encode_request(request)[6:])


@given(st.data())
def test_a_damaged_request_is_read_or_refused_but_never_breaks(data: st.DataObject) -> None:
    raw = bytearray(pynetdicom_request()[6:])
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for damaged in (bytes(raw), cut):
        try:
            pdu.decode_request(damaged)
        except PduError as error:
            assert str(error)


def test_an_abort_names_its_source_and_reason() -> None:
    assert pdu.encode_abort(pdu.BY_PROVIDER, pdu.UNEXPECTED_PDU) == struct.pack(">BxIxxBB", 7, 4, 2, 2)

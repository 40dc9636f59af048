"""What is answered to an association request (PS3.7 Annex D)."""

import pytest

from gateway.config import Config
from gateway.dimse.negotiation import EXPLICIT_LE, FIND_MODELS, MOVE_MODELS, accept
from gateway.dimse.pdu import (
    ABSTRACT_SYNTAX_UNKNOWN,
    ACCEPTED,
    APPLICATION_CONTEXT,
    AssociateRequest,
    ProposedContext,
    UserInformation,
)
from gateway.translate.search import Negotiated

FIND, MOVE = next(iter(FIND_MODELS)), next(iter(MOVE_MODELS))


def answered(uid, asked=b""):
    contexts = (ProposedContext(1, uid, (EXPLICIT_LE,)),)
    user = UserInformation(
        max_length=16_384, implementation_class="1.2", implementation_version="T", extended={uid: asked}
    )
    request = AssociateRequest(
        protocol_version=1,
        called="GATEWAY",
        calling="PEER",
        application_context=APPLICATION_CONTEXT,
        contexts=contexts,
        user=user,
    )
    return accept(request, Config())


def agreed(uid, asked):
    acceptance = answered(uid, asked)
    return acceptance.user.extended, acceptance.negotiated


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("01", "01"),
        ("0001", "0001"),
        ("0101010101", "0101010100"),
        ("01010101010101", "01010101000101"),
        ("0101010101010101", "01010101000101"),
        ("", ""),
        ("ff", "01"),
    ],
)
def test_a_query_s_extended_negotiation_grants_what_works_and_no_more_bytes_than_were_asked(asked, granted):
    extended, _ = agreed(FIND, bytes.fromhex(asked))
    assert extended == {FIND: bytes.fromhex(granted)}


def test_what_is_granted_is_what_the_query_may_use():
    everything = Negotiated(relational=True, combined_datetime=True, fuzzy=True, timezone=True, empty_value=True)
    assert agreed(FIND, bytes([1] * 7))[1] == {FIND: everything}
    assert agreed(FIND, bytes([0, 1, 0, 1]))[1] == {FIND: Negotiated(combined_datetime=True, timezone=True)}


def test_a_retrieve_may_be_relational_and_has_no_multi_frame_views():
    assert agreed(MOVE, b"\1\1") == ({MOVE: b"\1\0"}, {MOVE: Negotiated(relational=True)})


def test_nothing_is_answered_for_a_context_that_is_refused():
    assert agreed("1.2.840.10008.5.1.4.31", b"\1") == ({}, {})


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model, retired
        "1.2.840.10008.1.9",  # Basic Study Content Notification, retired
        "1.2.840.10008.5.1.4.34.4.1",  # Unified Procedure Step - Push, trial
        "1.2.840.10008.1.2",  # a transfer syntax
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol: belongs to no study
    ],
)
def test_what_the_standard_has_for_something_else_is_not_taken_for_a_storage_class(uid):
    assert [result.result for result in answered(uid).results] == [ABSTRACT_SYNTAX_UNKNOWN]


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound Image, retired
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale Image, retired
        "1.2.840.10008.5.1.4.1.1.9999",  # not given to anything yet
        "1.3.12.2.1107.5.9.1",  # private
    ],
)
def test_retired_private_and_unknown_storage_classes_are_accepted(uid):
    assert [result.result for result in answered(uid).results] == [ACCEPTED]

"""Whatever bytes come from outside, a parser raises the errors that it names, or none; it neither hangs nor grows."""

import struct

import pytest
from fuzzing import TARGETS, attack, fuzz

from gateway.errors import IdentifierError
from gateway.translate.identifier import decode_identifier


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_crashes_a_parser(name: str) -> None:
    assert fuzz(name, 60, shrink=True) >= 100


@pytest.mark.parametrize("name", TARGETS)
def test_a_valid_input_is_taken(name: str) -> None:
    for seed in TARGETS[name].seeds:
        if name == "upper layer":  # ends with the connection
            attack(TARGETS[name], seed)
        else:
            TARGETS[name].run(seed)


@pytest.mark.parametrize("vr", [b"S\0", b"ZZ"])
def test_an_element_of_no_vr_that_ends_at_its_header_is_a_fault_of_the_identifier(vr: bytes) -> None:
    raw = struct.pack("<HH2sHI", 0x0008, 0x1032, vr, 0, 8)
    with pytest.raises(IdentifierError):
        decode_identifier(raw, "1.2.840.10008.1.2.1")

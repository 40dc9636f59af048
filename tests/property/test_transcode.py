"""Any data set, converted, equals what a second, simple encoder makes of the same elements."""

import io
import struct
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from gateway.errors import TranscodingError
from gateway.translate.transcode import NATIVE, convert

IMPLICIT, EXPLICIT, BIG, DEFLATED = map(
    str,
    (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian),
)

LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
WORD = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
# Standard elements, one of nearly each VR that the dictionary gives without ambiguity
STANDARD = {
    0x00080005: "CS",
    0x00080018: "UI",
    0x00080020: "DA",
    0x00080030: "TM",
    0x0008002A: "DT",
    0x00080054: "AE",
    0x00081030: "LO",
    0x00081190: "UR",
    0x00089459: "FL",
    0x00080119: "UC",
    0x00100010: "PN",
    0x00101010: "AS",
    0x00101030: "DS",
    0x001021B0: "LT",
    0x00186020: "SL",
    0x00189073: "FD",
    0x00200013: "IS",
    0x00280009: "AT",
    0x00280010: "US",
    0x00281201: "OW",
    0x00287FE0: "UR",
    0x00420011: "OB",
    0x00401005: "LO",
    0x0040A0B0: "US",
    0x0040A160: "UT",
    0x00660016: "OF",
    0x00660129: "OL",
    0x00720082: "SV",
    0x00720083: "UV",
    0x00720078: "UL",
    0x00189219: "SS",
    0x7FE00003: "UV",
    0x7FE00009: "OD",
}
SEQUENCES = (0x00081115, 0x00082112, 0x00400275, 0x0040A730)
PRIVATE = (0x00991001, 0x00991002, 0x00991003)
ANY_VR = sorted({*STANDARD.values()} - {"SQ"})


@dataclass(frozen=True)
class Element:
    """An element with a little endian value, or with items; `defined` says how its sequence's length is written."""

    tag: int
    vr: str
    value: bytes = b""
    items: tuple[tuple["Element", ...], ...] | None = None
    defined: bool = False


def encode(elements, syntax, *, defined_too=False):
    """Encode elements the plain way; sequences have undefined lengths unless `defined_too` lets them say."""
    order = ">" if syntax == BIG else "<"

    def header(tag, vr, length):
        tag = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if syntax == IMPLICIT or not vr:
            return tag + struct.pack(f"{order}I", length)
        if vr in LONG:
            return tag + vr.encode() + struct.pack(f"{order}HI", 0, length)
        return tag + vr.encode() + struct.pack(f"{order}H", length)

    def element(one):
        if one.items is None:
            word = WORD.get(one.vr, 1) if order == ">" else 1
            value = b"".join(one.value[at : at + word][::-1] for at in range(0, len(one.value), word))
            return header(one.tag, one.vr, len(value)) + value
        defined = one.defined and defined_too
        field = b""
        for item in one.items:
            inner = b"".join(map(element, item))
            end = b"" if defined else header(0xFFFEE00D, "", 0)
            field += header(0xFFFEE000, "", len(inner) if defined else 0xFFFFFFFF) + inner + end
        if defined:
            return header(one.tag, "SQ", len(field)) + field
        return header(one.tag, "SQ", 0xFFFFFFFF) + field + header(0xFFFEE0DD, "", 0)

    return b"".join(map(element, elements))


def converted(data, source, target):
    out = io.BytesIO()
    convert(io.BytesIO(data), source, out, target)
    return out.getvalue()


def values(vr):
    words = WORD.get(vr, 2)
    return st.binary(max_size=5 * words).map(lambda value: value[: len(value) // words * words])


def element(tag, vr):
    return st.builds(Element, st.just(tag), st.just(vr), values(vr))


standard = st.sampled_from(sorted(STANDARD)).flatmap(lambda tag: element(tag, STANDARD[tag]))
private = st.tuples(st.sampled_from(PRIVATE), st.sampled_from(ANY_VR)).flatmap(lambda pair: element(*pair))


def in_order(elements):
    """Give the elements by ascending tag, the first of each tag, a creator before private ones."""
    chosen = {one.tag: one for one in reversed(elements)}
    if any(tag >> 16 == 0x0099 for tag in chosen):
        chosen[0x00990010] = Element(0x00990010, "LO", b"TEST")
    return tuple(chosen[tag] for tag in sorted(chosen))


def sequence(items):
    contents = st.lists(items, max_size=3).map(tuple)
    return st.builds(
        lambda tag, contents, defined: Element(tag, "SQ", items=contents, defined=defined),
        st.sampled_from((*SEQUENCES, 0x00991004)),
        contents,
        st.booleans(),
    )


leaves = st.lists(standard | private, max_size=8).map(in_order)
data_sets = st.recursive(
    leaves, lambda inner: st.lists(standard | private | sequence(inner), max_size=6).map(in_order), max_leaves=12
)
native = st.sampled_from((IMPLICIT, EXPLICIT, BIG, DEFLATED))


def private_as_un(elements):
    """Give what is left of elements whose VRs were not written: private values are UN, sequences still known."""
    return tuple(
        replace(one, items=tuple(map(private_as_un, one.items)))
        if one.items is not None
        else replace(one, vr="UN")
        if one.tag in PRIVATE
        else one
        for one in elements
    )


@settings(max_examples=60)
@given(data_sets)
def test_without_vrs_the_elements_are_the_same(elements):
    explicit = encode(elements, EXPLICIT, defined_too=True)
    assert converted(explicit, EXPLICIT, IMPLICIT) == encode(elements, IMPLICIT)


@settings(max_examples=60)
@given(data_sets)
def test_in_big_endian_each_word_is_turned_and_nothing_else(elements):
    explicit = encode(elements, EXPLICIT, defined_too=True)
    assert converted(explicit, EXPLICIT, BIG) == encode(elements, BIG)
    assert converted(encode(elements, BIG, defined_too=True), BIG, EXPLICIT) == encode(elements, EXPLICIT)
    assert converted(encode(elements, BIG), BIG, IMPLICIT) == encode(elements, IMPLICIT)


@settings(max_examples=60)
@given(data_sets)
def test_the_dictionary_gives_back_the_vrs_that_were_not_written(elements):
    implicit = encode(elements, IMPLICIT)
    assert converted(implicit, IMPLICIT, EXPLICIT) == encode(private_as_un(elements), EXPLICIT)
    assert converted(implicit, IMPLICIT, BIG) == encode(private_as_un(elements), BIG)


@settings(max_examples=60)
@given(data_sets)
def test_there_and_back_keeps_every_value(elements):
    explicit = encode(elements, EXPLICIT, defined_too=True)
    there = converted(explicit, EXPLICIT, IMPLICIT)
    back = converted(there, IMPLICIT, EXPLICIT)
    assert back == encode(private_as_un(elements), EXPLICIT)
    assert converted(back, EXPLICIT, IMPLICIT) == there


@settings(max_examples=60)
@given(data_sets)
def test_deflated_and_inflated_a_data_set_has_the_same_bytes(elements):
    explicit = encode(elements, EXPLICIT, defined_too=True)
    deflated = converted(explicit, EXPLICIT, DEFLATED)
    assert len(deflated) % 2 == 0
    assert converted(deflated, DEFLATED, EXPLICIT) == explicit
    assert converted(deflated, DEFLATED, IMPLICIT) == converted(explicit, EXPLICIT, IMPLICIT)


@given(data_sets.filter(bool), native, native, st.data())
def test_a_cut_data_set_is_an_error_or_ends_between_elements(elements, source, target, data):
    whole = encode(elements, EXPLICIT) if source == DEFLATED else encode(elements, source)
    if source == DEFLATED:
        whole = converted(whole, EXPLICIT, DEFLATED)
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        got = converted(whole[:cut], source, target)
    except TranscodingError:
        return
    if source != target and {source, target} != {EXPLICIT, DEFLATED}:
        expected = converted(whole, source, target)
        assert target == DEFLATED or expected.startswith(got)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(sorted(NATIVE)), st.sampled_from(sorted(NATIVE)))
def test_bytes_that_are_no_data_set_are_an_error_at_most(junk, source, target):
    try:
        converted(junk, source, target)
    except TranscodingError as error:
        assert " to " in str(error)


@pytest.mark.parametrize("source", [IMPLICIT, EXPLICIT, BIG])
@given(elements=data_sets, data=st.data())
def test_a_damaged_data_set_is_an_error_at_most(source, elements, data):
    damaged = bytearray(encode(elements, source))
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        converted(bytes(damaged), source, EXPLICIT if source != EXPLICIT else IMPLICIT)
    except TranscodingError as error:
        assert " to " in str(error)

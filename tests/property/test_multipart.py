import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MultipartError
from gateway.translate.multipart import boundary_of, media_type, split

BOUNDARY = "b0undary"


def body(parts: list[bytes], preamble: bytes = b"", epilogue: bytes = b"") -> bytes:
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    return (
        (preamble + b"\r\n" if preamble else b"")
        + b"".join(b"--b0undary" + head + part + b"\r\n" for part in parts)
        + b"--b0undary--"
        + epilogue
    )


def chunked(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks, start = [], 0
    for size in sizes:
        chunks.append(data[start : start + size])
        start += size
    return [*chunks, data[start:]]


content = st.binary(max_size=60) | st.sampled_from([b"\r\n--b0undar", b"--", b"\r", b"\r\n\r\n", b"--b0undary"[:-1]])


@given(st.lists(content, max_size=4), st.lists(st.integers(0, 9), max_size=80), st.sampled_from([b"", b"\r\n", b"x"]))
def test_any_chunking_gives_the_same_parts(parts: list[bytes], sizes: list[int], epilogue: bytes) -> None:
    found = [b"".join(part.body) for part in split(chunked(body(parts, epilogue=epilogue), sizes), BOUNDARY)]
    assert found == parts


@given(st.lists(content, min_size=1, max_size=3), st.data())
def test_a_cut_body_is_never_taken_for_a_whole_one(parts: list[bytes], data: st.DataObject) -> None:
    whole = body(parts)
    cut = whole[: data.draw(st.integers(0, len(whole) - 2))]
    with pytest.raises(MultipartError):
        [b"".join(part.body) for part in split([cut], BOUNDARY)]


def test_a_part_that_was_not_read_is_passed_over() -> None:
    parts = split([body([b"one", b"two"], preamble=b"hello")], BOUNDARY)
    assert next(parts).headers == {"content-type": "application/dicom"}
    assert b"".join(next(parts).body) == b"two"


def test_a_large_part_in_small_chunks_takes_linear_time() -> None:
    data = random.Random(3).randbytes(20_000_000)
    whole = body([data])
    chunks = [whole[start : start + 8192] for start in range(0, len(whole), 8192)]
    (part,) = (b"".join(part.body) for part in split(chunks, BOUNDARY))
    assert part == data


def test_a_part_without_headers_has_none() -> None:
    part = next(split([b"--b0undary\r\n\r\nabc\r\n--b0undary--"], BOUNDARY))
    assert (part.headers, b"".join(part.body)) == ({}, b"abc")


@pytest.mark.parametrize(
    "quoted", ['multipart/related; boundary="a;b"; type="x"', 'Multipart/Related;BOUNDARY="a;b"']
)
def test_a_boundary_may_be_quoted(quoted: str) -> None:
    assert boundary_of(quoted) == "a;b"
    assert media_type(quoted)[0] == "multipart/related"


@pytest.mark.parametrize("content_type", ["", "text/html", "multipart/related", "multipart/related; boundary="])
def test_a_missing_boundary_is_an_error(content_type: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(content_type)

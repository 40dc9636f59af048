import tracemalloc
from collections.abc import Iterator

import pytest

from gateway.errors import MultipartError
from gateway.translate.multipart import boundary_of, media_type, split

HEAD = b"--b\r\nContent-Type: application/dicom\r\n\r\n"


def bodies(data: bytes) -> list[bytes]:
    return [b"".join(part.body) for part in split([data], "b")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"--b--", []),
        (b"\r\n--b--\r\n", []),
        (b"a preamble\r\n" + HEAD + b"x\r\n--b--", [b"x"]),
        (HEAD + b"\r\n--b--", [b""]),
        (HEAD + b"x\r\n--b \t\r\n\r\ny\r\n--b--", [b"x", b"y"]),
        (HEAD + b"x--b\r\n\r\n-b\r\n--b--", [b"x--b\r\n\r\n-b"]),
        (HEAD + b"x\n--b\n\r\n--b--", [b"x\n--b\n"]),
    ],
    ids=["no part", "line before", "preamble", "empty", "blanks", "boundary in a line", "bare line feeds"],
)
def test_framing(data: bytes, expected: list[bytes]) -> None:
    assert bodies(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no boundary at all",
        HEAD,
        HEAD + b"x",
        HEAD + b"x\r\n--b",
        HEAD + b"x\r\n--b-",
        HEAD + b"x\r\n--b\r\n",
        HEAD + b"x\r\n--bother\r\n\r\ny\r\n--b--",
        b"--b\r\nno colon\r\n\r\nx\r\n--b--",
        b"--b\r\nX: " + b"y" * 17_000 + b"\r\n\r\nx\r\n--b--",
        b"--b" + b" " * 40_000,
    ],
)
def test_broken_framing_is_an_error(data: bytes) -> None:
    with pytest.raises(MultipartError):
        bodies(data)


def test_header_names_are_in_lower_case_and_values_without_blanks() -> None:
    data = b"--b\r\nCONTENT-Type:application/dicom;\r\n a=b \r\nContent-Location: http://x/y:z\r\n\r\nx\r\n--b--"
    assert next(split([data], "b")).headers == {
        "content-type": "application/dicom; a=b",
        "content-location": "http://x/y:z",
    }


def test_chunks_may_be_memoryviews_and_empty() -> None:
    data = HEAD + b"x" * 100 + b"\r\n--b--"
    chunks = [b"", memoryview(data)[:50], b"", memoryview(data)[50:]]
    assert [b"".join(part.body) for part in split(chunks, "b")] == [b"x" * 100]  # type: ignore[arg-type]


def test_the_chunks_are_read_to_their_end() -> None:
    chunks = iter([HEAD + b"x\r\n--b--", b"\r\n", b"an epilogue"])
    assert [b"".join(part.body) for part in split(chunks, "b")] == [b"x"]
    assert next(chunks, None) is None


def test_an_epilogue_without_end_is_an_error() -> None:
    def endless() -> Iterator[bytes]:
        yield HEAD + b"x\r\n--b--"
        while True:
            yield bytes(10_000)

    with pytest.raises(MultipartError):
        list(split(endless(), "b"))


def test_a_large_part_is_never_held_in_memory() -> None:
    def chunks() -> Iterator[bytes]:
        yield HEAD
        for _ in range(400):
            yield bytes(65_536)
        yield b"\r\n--b--"

    tracemalloc.start()
    try:
        size = sum(len(piece) for part in split(chunks(), "b") for piece in part.body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 400 * 65_536
    assert peak < 8 * 65_536


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", {})),
        ("Application/DICOM+json", ("application/dicom+json", {})),
        ('a/b; Type="x;y" ;q=1;;', ("a/b", {"type": "x;y", "q": "1", "": ""})),
        ('a/b; t="say \\"hi\\""', ("a/b", {"t": 'say "hi"'})),
        ("a/b; t=Mixed*", ("a/b", {"t": "Mixed*"})),
    ],
)
def test_media_types_are_split_into_their_parameters(text: str, expected: tuple[str, dict[str, str]]) -> None:
    assert media_type(text) == expected


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/html",
        "multipart/related",
        "multipart/related; boundary=",
        f"multipart/x; boundary={'b' * 500}",
        "multipart/related; boundary=\u00e9",
        "text/html; boundary=b",
    ],
)
def test_a_content_type_without_a_usable_boundary_is_an_error(content_type: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(content_type)

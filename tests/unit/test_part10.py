import io
import struct
import zlib
from pathlib import Path

import pydicom.data
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from gateway.errors import DataSetError
from gateway.translate.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    FileMeta,
    Identity,
    file_header,
    read_file_meta,
    read_identity,
    walk,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
GE = "1.2.840.113619.5.2"
HERE = Identity(study="1.2.1", series="1.2.22", sop_class=CT, sop_instance="1.2.333")
FILES = Path(pydicom.data.__file__).parent / "test_files"
UNLIKE = {  # wrong on purpose, and refused
    "SC_rgb_jpeg.dcm",
    "DICOMDIR-nooffset",
    "meta_missing_tsyntax.dcm",
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
}


def data_set(depth: int = 0) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = HERE.sop_class, HERE.sop_instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = HERE.study, HERE.series
    dataset.add_new(0x00091002, "OB", bytes(70_000))
    innermost = dataset
    for _ in range(depth):
        inner = Dataset()
        inner.SOPInstanceUID = inner.StudyInstanceUID = inner.SeriesInstanceUID = "9.9"
        innermost.ReferencedStudySequence = Sequence([inner])
        innermost = inner
    dataset.add_new(0x00091001, "UN", b"private")
    dataset.add_new(0x7FE00010, "OW", bytes(200_000))
    return dataset


def encoded(dataset: Dataset, transfer_syntax: str) -> bytes:
    implicit = transfer_syntax in (IMPLICIT, GE)
    stream = io.BytesIO()
    dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=transfer_syntax != BIG_ENDIAN)
    if transfer_syntax != DEFLATED:
        return stream.getvalue()
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(stream.getvalue()) + deflate.flush()


def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


class Watched(io.BytesIO):
    """Count the bytes that are read and not skipped."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.taken += len(piece)
        return piece


@pytest.mark.parametrize("source_ae", ["", "CT01", "A TITLE OF 16 CH"])
def test_the_header_is_what_pydicom_reads_back(source_ae: str) -> None:
    header = file_header(CT, "1.2.3", EXPLICIT, source_ae=source_ae)
    meta = dcmread(io.BytesIO(header)).file_meta
    assert header.startswith(bytes(128) + b"DICM")
    assert meta.FileMetaInformationGroupLength == len(header) - 128 - 4 - 12
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, "1.2.3")
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.get("SourceApplicationEntityTitle", "") == source_ae


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
@pytest.mark.parametrize(
    "rest", [b"", b"\x08\x00", b"\x02\x01\x00\x00\x00\x00\x00\x00", b"any \xff\xff\xff\xff data"]
)
def test_the_data_set_begins_where_the_header_ends(uid: str, rest: bytes) -> None:
    header = file_header(CT, uid, DEFLATED, source_ae="X")
    assert read_file_meta(io.BytesIO(header + rest)) == FileMeta(CT, uid, DEFLATED, len(header))


def test_every_file_of_pydicom_has_the_identity_that_pydicom_sees() -> None:
    compared = 0
    for path in sorted(FILES.rglob("*")):
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            if file.read(132)[128:] != b"DICM" or path.name in UNLIKE:
                continue
            file.seek(0)
            meta = read_file_meta(file)
            file.seek(meta.offset)
            found = read_identity(file, meta.transfer_syntax)
        seen = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
        assert meta.transfer_syntax == seen.file_meta.TransferSyntaxUID
        assert found == Identity(
            study=seen.get("StudyInstanceUID") or "",
            series=seen.get("SeriesInstanceUID") or "",
            sop_class=seen.get("SOPClassUID") or "",
            sop_instance=seen.get("SOPInstanceUID") or "",
        ), path.name
        compared += 1
    assert compared > 50


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, JPEG, GE, "1.2.3.4.5"])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_identity_is_found_in_every_encoding_and_never_inside_a_sequence(syntax: str, undefined: bool) -> None:
    dataset = data_set(depth=3)
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            element.value[0].is_undefined_length_sequence_item = undefined
    assert read_identity(io.BytesIO(encoded(dataset, syntax)), syntax) == HERE


def test_the_identity_is_read_from_where_the_stream_stands() -> None:
    header = file_header(CT, "1.2.333", EXPLICIT)
    stream = io.BytesIO(header + encoded(data_set(), EXPLICIT))
    stream.seek(len(header))
    assert read_identity(stream, EXPLICIT) == HERE


def test_values_are_skipped_not_read() -> None:
    stream = Watched(encoded(data_set(depth=2), EXPLICIT))
    assert read_identity(stream, EXPLICIT) == HERE
    assert stream.taken < 20_000  # of 270,000


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_the_identity_is_found_wherever_the_window_of_the_reading_ends(syntax: str) -> None:
    data = encoded(data_set(), syntax)
    for length in range(3000, 4200, 2):  # each UID's header and value come to lie across 4,096
        head = struct.pack("<HH2sHI", 8, 1, b"OB", 0, length)
        filler = (head if syntax == EXPLICIT else head[:4] + head[8:]) + bytes(length)
        assert read_identity(io.BytesIO(filler + data), syntax) == HERE, length


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, JPEG, GE])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_identity_is_seen_in_passing_however_the_pieces_are_cut(syntax: str, undefined: bool) -> None:
    dataset = data_set(depth=3)
    del dataset[0x7FE00010], dataset[0x00091002]
    dataset.SeriesInstanceUID = "1." * 31 + "22"  # of 64 bytes
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            element.value[0].is_undefined_length_sequence_item = undefined
    data = encoded(dataset, syntax)
    expected = read_identity(io.BytesIO(data), syntax)
    assert expected.series == dataset.SeriesInstanceUID
    for pieces in [*([size] for size in range(1, len(data) + 1)), [1, 100], [200, 7, 2], [90, 1, 1]]:
        assert passed(data, syntax, pieces) == expected, pieces
        assert passed(data[:-1], syntax, pieces) is None, pieces


def test_what_is_seen_in_passing_is_what_the_file_says_or_nothing() -> None:
    compared = 0
    for path in sorted(FILES.rglob("*.dcm")):
        data = path.read_bytes()
        if data[128:132] != b"DICM" or path.name in UNLIKE:
            continue
        meta = read_file_meta(io.BytesIO(data))
        data = data[meta.offset :]
        if walk(meta.transfer_syntax) is None:
            continue
        for sizes in ([1000], [16_378], [1 << 20]):
            found = passed(data, meta.transfer_syntax, sizes)
            assert found in (None, read_identity(io.BytesIO(data), meta.transfer_syntax)), path.name
            compared += found is not None
    assert compared > 150


def test_what_only_a_reader_can_tell_is_not_seen_in_passing() -> None:
    whole = encoded(data_set(), EXPLICIT)
    odd = explicit(0x00081110, b"SQ", b"")[:6] + b"\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4
    unknown = b"\x09\0\x01\x10UN\0\0\xff\xff\xff\xff" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert passed(odd * 64 + closed * 64 + whole, EXPLICIT, [50]) == HERE
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    for data in (
        whole + b"\0" * 20,
        whole + b"\0",
        unknown + whole,
        item + whole,
        odd * 65 + closed * 65,
        bytes(500),
    ):
        assert passed(data, EXPLICIT, [50]) is None
        assert passed(data, EXPLICIT, [len(data)]) is None
    assert walk(DEFLATED) is None
    assert walk(BIG_ENDIAN) is None


def passed(data: bytes, syntax: str, sizes: list[int]) -> Identity | None:
    """Walk over pieces of these sizes in turn, each of them gone after it was taken."""
    going, at, number = walk(syntax), 0, 0
    assert going is not None
    while at < len(data):
        piece = bytearray(data[at : at + sizes[number % len(sizes)]])
        going.take(memoryview(piece))
        at, number = at + len(piece), number + 1
        piece[:] = b"\xaa" * len(piece)
    return going.identity(len(data))


def test_a_uid_that_is_absent_is_empty() -> None:
    assert read_identity(io.BytesIO(explicit(0x00080060, b"CS", b"CT")), EXPLICIT) == Identity()


def test_padding_does_not_belong_to_a_uid() -> None:
    data = explicit(0x00080018, b"UI", b"1.2\0") + explicit(0x0020000D, b"UI", b"1.3 ")
    assert read_identity(io.BytesIO(data), EXPLICIT) == Identity(study="1.3", sop_instance="1.2")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_sequences_may_be_nested_64_deep_and_no_deeper(syntax: str) -> None:
    assert read_identity(io.BytesIO(encoded(data_set(depth=64), syntax)), syntax) == HERE
    deeper = explicit(0x00081110, b"SQ", b"")[:6] + b"\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4
    with pytest.raises(DataSetError):
        read_identity(io.BytesIO(deeper * 65), EXPLICIT)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_a_data_set_that_is_cut_is_refused_wherever_it_is_cut(syntax: str) -> None:
    dataset = data_set(depth=2)
    del dataset[0x7FE00010], dataset[0x00091002]
    whole = encoded(dataset, syntax)
    identity = read_identity(io.BytesIO(whole), syntax)
    assert identity == HERE
    for end in range(1, len(whole)):
        try:
            found = read_identity(io.BytesIO(whole[:end]), syntax)
        except DataSetError:
            continue
        # only between two elements of the top level is a cut no cut, then it is the UIDs behind it that lack
        assert syntax != DEFLATED
        assert (
            dcmread(io.BytesIO(file_header(CT, "1", syntax) + whole[:end])).get("SeriesInstanceUID", "")
            == found.series
        )


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, JPEG])
@pytest.mark.parametrize("lacking", [1, 2, 9, 150_000])
def test_a_data_set_whose_pixel_data_are_cut_is_refused(syntax: str, lacking: int) -> None:
    dataset = data_set()
    if syntax == JPEG:
        dataset.PixelData = encapsulate([bytes(200_000)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    whole = encoded(dataset, syntax)
    assert read_identity(io.BytesIO(whole), syntax) == HERE
    lacking = min(lacking, len(whole) // 10)  # zeros deflate well
    with pytest.raises(DataSetError):
        read_identity(io.BytesIO(whole[:-lacking]), syntax)


@pytest.mark.parametrize("data", [b"\x00", b"random bytes, no data set", bytes(range(256)), b"\xff" * 64])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_what_is_no_data_set_is_refused(data: bytes, syntax: str) -> None:
    with pytest.raises(DataSetError):
        read_identity(io.BytesIO(data), syntax)


def test_what_is_odd_behind_the_uids_is_left_to_the_archive() -> None:
    head = encoded(data_set(), EXPLICIT)
    assert read_identity(io.BytesIO(head + b"\x00" * 20), EXPLICIT) == HERE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(132),
        bytes(128) + b"DICM",
        file_header(CT, "1.2", "")[:-1],
        file_header(CT, "1.2", ""),
        file_header(CT, "1.2", EXPLICIT)[:150],
        bytes(128) + b"DICM" + explicit(0x00020010, b"UI", b"1.2\0")[:-2],
        bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 1, b"OB", 0, 0x7FFFFFFF),
        bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 1, b"OB", 0, 0xFFFFFFFF),
    ],
    ids=["empty", "no prefix", "no meta", "cut", "no syntax", "cut early", "cut value", "huge", "undefined"],
)
def test_a_file_without_a_whole_file_meta_is_refused(data: bytes) -> None:
    with pytest.raises(DataSetError):
        read_file_meta(io.BytesIO(data))

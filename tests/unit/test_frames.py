"""New instances of some frames (PS3.4 Annex Y) and instances without bulk data (Annex Z)."""

import io

import embedded_archive
import numpy as np
import pytest
from conversion import BIG, DEFLATED, EXPLICIT, IMPLICIT, readable_files
from data import encoded
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

from gateway.errors import (
    FramesNotExtractable,
    FramesNotFound,
    FramesRequestInvalid,
    IdentifierError,
    InstanceHasNoFrames,
    InstanceHasNoTimes,
)
from gateway.translate.composite import FrameRequest, read_composite
from gateway.translate.frames import extract
from gateway.translate.generate import multi_frame
from gateway.translate.part10 import file_header, read_file_meta
from gateway.translate.without_bulk import without_bulk

FRAMES = [bytes(range(9 * number, 9 * number + 9)) for number in range(6)]


def request(keyword, *values):
    return FrameRequest(keyword, values)


def extracted(file, what, syntax=EXPLICIT):
    target = io.BytesIO()
    new = extract(io.BytesIO(file), syntax, what, target)
    header = file_header("1.2.840.10008.5.1.4.1.1.7", new, syntax)
    return dcmread(io.BytesIO(header + target.getvalue()))


@pytest.mark.parametrize(
    ("what", "numbers"),
    [
        (request("SimpleFrameList", 1), [1]),
        (request("SimpleFrameList", 2, 3, 6), [2, 3, 6]),
        (request("SimpleFrameList", 5, 7, 8), [5]),
        (request("CalculatedFrameList", 1, 5, 2), [1, 3, 5]),
        (request("CalculatedFrameList", 2, 0xFFFFFFFF, 3), [2, 5]),
        (request("CalculatedFrameList", 1, 2, 1, 4, 6, 2, 9, 12, 1), [1, 2, 4, 6]),
    ],
)
def test_the_frames_asked_for_keep_their_bytes_and_order(what, numbers):
    file = embedded_archive.image(FRAMES)
    result = extracted(file, what)
    assert result.NumberOfFrames == len(numbers)
    assert result.PixelData[: 9 * len(numbers)] == b"".join(FRAMES[number - 1] for number in numbers)
    assert len(result.PixelData) % 2 == 0
    original = dcmread(io.BytesIO(file))
    assert result.SOPInstanceUID != original.SOPInstanceUID
    changed = {"SOPInstanceUID", "NumberOfFrames", "PixelData", "FrameExtractionSequence"}
    changed |= {"ContributingEquipmentSequence"}
    assert {e.keyword for e in result if original.get(e.tag) != e} <= changed


def test_the_new_instance_says_where_it_comes_from_and_the_same_request_makes_the_same_again():
    file = embedded_archive.image(FRAMES)
    what = request("CalculatedFrameList", 1, 5, 2)
    result = extracted(file, what)
    (item,) = result.FrameExtractionSequence
    assert item.MultiFrameSourceSOPInstanceUID == dcmread(io.BytesIO(file)).SOPInstanceUID
    assert item.CalculatedFrameList == [1, 5, 2]
    assert result.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109105"
    assert extracted(file, what) == result
    assert extracted(file, request("SimpleFrameList", 1, 3, 5)).SOPInstanceUID != result.SOPInstanceUID
    again = io.BytesIO()
    result.save_as(again, enforce_file_format=True)
    twice = extracted(again.getvalue(), request("SimpleFrameList", 2))
    assert [item.MultiFrameSourceSOPInstanceUID for item in twice.FrameExtractionSequence] == [
        item.MultiFrameSourceSOPInstanceUID,
        result.SOPInstanceUID,
    ]


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG, RLELossless, JPEG2000Lossless])
def test_frames_are_taken_out_in_every_encoding(tmp_path, syntax):
    source = multi_frame(tmp_path, "frames", frames=5, rows=32, columns=48).path
    path = encoded(source, tmp_path / "encoded.dcm", syntax)
    result = extracted(path.read_bytes(), request("SimpleFrameList", 2, 4), syntax)
    assert np.array_equal(result.pixel_array, dcmread(source).pixel_array[[1, 3]])
    assert result.file_meta.TransferSyntaxUID == UID(syntax)


def cine(**values):
    described = {"FrameIncrementPointer": 0x00181063, "FrameTime": "100", "FrameDelay": "500"}
    return embedded_archive.image(FRAMES, **described | values)


def test_a_time_range_takes_the_frames_within_it_and_the_times_stay_true():
    result = extracted(cine(), request("TimeRange", 0.6, 0.8))
    assert result.NumberOfFrames == 3
    assert result.PixelData[:9] == FRAMES[1]
    assert (result.FrameDelay, result.FrameTime) == (600, 100)
    assert result.FrameExtractionSequence[0].TimeRange == [0.6, 0.8]


def test_frames_that_are_not_evenly_spaced_get_a_frame_time_vector():
    result = extracted(cine(), request("SimpleFrameList", 2, 3, 6))
    assert result.FrameTimeVector == [0, 100, 300]
    assert result.FrameIncrementPointer == 0x00181065
    assert "FrameTime" not in result
    assert result.FrameDelay == 600
    again = extracted(
        embedded_archive.image(FRAMES, FrameIncrementPointer=0x00181065, FrameTimeVector=["0", *["50"] * 5]),
        request("TimeRange", 0.1, 10.0),
    )
    assert again.FrameTimeVector == [0, 50, 50, 50]


def test_functional_groups_and_vectors_follow_their_frames():
    groups = []
    for number in range(6):
        group, content = Dataset(), Dataset()
        content.FrameReferenceDateTime = f"2024010212000{number}.5"
        group.FrameContentSequence = [content]
        groups.append(group)
    file = embedded_archive.image(
        FRAMES,
        ContentDate="20240102",
        ContentTime="120000",
        PerFrameFunctionalGroupsSequence=groups,
        FrameIncrementPointer=0x00540080,
        SliceVector=list(range(1, 7)),
    )
    result = extracted(file, request("TimeRange", 1.0, 3.0))
    assert [group.FrameContentSequence[0] for group in result.PerFrameFunctionalGroupsSequence] == [
        group.FrameContentSequence[0] for group in groups[1:3]
    ]
    assert result.SliceVector == [2, 3]


@pytest.mark.parametrize(
    ("file", "what", "syntax", "error"),
    [
        (embedded_archive.image(FRAMES), request("SimpleFrameList", 7), EXPLICIT, FramesNotFound),
        (embedded_archive.image(FRAMES), request("TimeRange", 0.0, 1.0), EXPLICIT, InstanceHasNoTimes),
        (cine(), request("TimeRange", 0.0, 0.1), EXPLICIT, FramesNotFound),
        (embedded_archive.instance(), request("SimpleFrameList", 1), EXPLICIT, InstanceHasNoFrames),
        (
            embedded_archive.image(FRAMES, BitsAllocated=1, BitsStored=1, HighBit=0),
            request("SimpleFrameList", 1),
            EXPLICIT,
            FramesNotExtractable,
        ),
        (
            embedded_archive.image(FRAMES, NumberOfFrames=60),
            request("SimpleFrameList", 1),
            EXPLICIT,
            FramesNotExtractable,
        ),
        (embedded_archive.image(FRAMES), request("SimpleFrameList", 1), DEFLATED, FramesNotExtractable),
        (embedded_archive.image(FRAMES)[:-8], request("SimpleFrameList", 6), EXPLICIT, FramesNotExtractable),
    ],
)
def test_what_cannot_be_done_is_said(file, what, syntax, error):
    with pytest.raises(error):
        extract(io.BytesIO(file), syntax, what, io.BytesIO())


def keys(level="FRAME", **values):
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    identifier.SOPInstanceUID = "1.2.3"
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    return identifier


@pytest.mark.parametrize(
    "identifier",
    [
        keys(),
        keys(SimpleFrameList=[1], TimeRange=[0, 1]),
        keys(SimpleFrameList=[2, 1]),
        keys(SimpleFrameList=[0, 1]),
        keys(SimpleFrameList=[1, 1]),
        keys(CalculatedFrameList=[1, 2]),
        keys(CalculatedFrameList=[2, 1, 1]),
        keys(CalculatedFrameList=[1, 2, 0]),
        keys(CalculatedFrameList=[1, 3, 1, 3, 5, 1]),
        keys(TimeRange=[2, 1]),
        keys(SimpleFrameList=[1], SOPInstanceUID=["1.2.3", "1.2.4"]),
    ],
)
def test_malformed_frame_range_keys_are_an_invalid_request(identifier):
    with pytest.raises(FramesRequestInvalid):
        read_composite(identifier, frames=True)


@pytest.mark.parametrize(("level", "frames"), [("STUDY", True), ("FRAME", False), ("", True)])
def test_levels_that_the_model_lacks_are_refused(level, frames):
    with pytest.raises(IdentifierError):
        read_composite(keys(level, SimpleFrameList=[1]), frames=frames)


# -- without bulk data -------------------------------------------------------------------------------------------

DROPPED = {
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "SpectroscopyData", "EncapsulatedDocument"),
    *("OverlayData", "CurveData", "PixelDataProviderURL", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
}


def stripped(path):
    with path.open("rb") as source:
        meta = read_file_meta(source)
        source.seek(meta.offset)
        target = io.BytesIO()
        syntax = UID(without_bulk(source, meta.transfer_syntax, target))
    target.seek(0)
    return syntax, read_dataset(target, syntax.is_implicit_VR, syntax.is_little_endian)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's doubts about some of the files
def test_every_sample_loses_its_bulk_data_and_nothing_else():
    smaller = 0
    for path, stored in readable_files():
        syntax, result = stripped(path)
        original = dcmread(path)
        overlays = [one.tag for one in original if one.tag.group >> 8 == 0x60 and one.tag.element == 0x3000]
        kept = [e for e in original if e.tag.element and e.keyword not in DROPPED and e.tag not in overlays]
        for waveform in original.get("WaveformSequence", []):
            waveform.pop("WaveformData", None)
        assert [str(e.tag) for e in result] == [str(e.tag) for e in kept], path.name
        if "WaveformSequence" in result:
            assert all("WaveformData" not in item for item in result.WaveformSequence)
        smaller += len(list(original)) > len(kept)
        assert (syntax == stored) or UID(stored).is_compressed or stored == DEFLATED
    assert smaller > 100

"""Make a new instance of some frames of another, one frame in memory at a time (PS3.4 Y.3.3)."""

import itertools
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO, Any, BinaryIO, cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import DA, DT, TM

from gateway.errors import FramesNotExtractable, FramesNotFound, GatewayError, InstanceHasNoFrames, InstanceHasNoTimes
from gateway.translate.composite import TIMES, FrameRequest
from gateway.translate.encoding import ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, Encoding, Reader, header
from gateway.translate.generate import uid
from gateway.translate.part10 import encoding_of, read_file_meta
from gateway.translate.tokens import Kind, tokens

_PIECE = 1 << 20
_VIDEO = "1.2.840.10008.1.2.4.10"  # MPEG-2, MPEG-4, HEVC: ...4.100 to ...4.108, one stream for all frames
_FRAME_TIME, _FRAME_TIME_VECTOR = 0x00181063, 0x00181065
_GRID_OFFSETS = 0x3004000C
_TRIMS = ("StartTrim", "StopTrim", "RepresentativeFrameNumber", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def extract(source: BinaryIO, transfer_syntax: str, request: FrameRequest, target: IO[bytes]) -> str:
    """Write the data set of a new instance with the frames asked for, and give its SOP Instance UID.

    `source` is a Part 10 file from its start. The same request makes the same instance again. The frames keep
    their bytes, the transfer syntax stays. Raises FramesNotFound, InstanceHasNoFrames, InstanceHasNoTimes,
    FramesNotExtractable.
    """
    if transfer_syntax == DeflatedExplicitVRLittleEndian or transfer_syntax.startswith(_VIDEO):
        raise FramesNotExtractable("the transfer syntax does not keep frames apart")
    try:
        return _extract(source, transfer_syntax, request, target)
    except GatewayError:
        raise
    except Exception as error:  # what pydicom raises for a malformed data set is not documented
        raise FramesNotExtractable("the instance cannot be read") from error


def _extract(source: BinaryIO, transfer_syntax: str, request: FrameRequest, target: IO[bytes]) -> str:
    source.seek(0)
    dataset = dcmread(source, stop_before_pixels=True)
    count = int(dataset.get("NumberOfFrames") or 1)
    if "Rows" not in dataset or "SOPInstanceUID" not in dataset:
        raise InstanceHasNoFrames("the instance is not an image")
    times = _times(dataset, count)
    if request.keyword == TIMES and times is None:
        raise InstanceHasNoTimes("the frames of the instance have no times")
    numbers = request.numbers(count, times)
    if not numbers:
        raise FramesNotFound("no frame that was asked for exists")
    _describe(dataset, request, numbers, count, times)
    encoding = encoding_of(UID(transfer_syntax))
    writer = DicomIO(target)
    writer.is_little_endian, writer.is_implicit_VR = encoding.order == "<", not encoding.explicit
    write_dataset(writer, dataset)
    _pixels(source, dataset, (numbers, count), encoding, target)
    return str(dataset.SOPInstanceUID)


def _describe(
    dataset: Dataset, request: FrameRequest, numbers: Sequence[int], count: int, times: Sequence[float] | None
) -> None:
    """Make the data set that of the new instance."""
    origin = str(dataset.SOPInstanceUID)
    if any(element.tag.group >> 8 == 0x60 and element.tag.element == 0x0015 for element in dataset):
        raise FramesNotExtractable("the instance has overlays with frames of their own")
    if _GRID_OFFSETS in dataset:
        raise InstanceHasNoFrames("the frames of a dose are planes of one grid")
    dataset.SOPInstanceUID = uid("frames", origin, request.keyword, *map(str, request.values))
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = len(numbers)
    if "PerFrameFunctionalGroupsSequence" in dataset:
        groups = dataset.PerFrameFunctionalGroupsSequence
        if len(groups) != count:
            raise FramesNotExtractable("the functional groups are not as many as the frames")
        dataset.PerFrameFunctionalGroupsSequence = Items([groups[number - 1] for number in numbers])
    _reindex(dataset, numbers, count, times)
    for keyword in _TRIMS:
        if keyword in dataset:
            delattr(dataset, keyword)
    item = Dataset()
    item.MultiFrameSourceSOPInstanceUID = origin
    integers = [float(value) if request.keyword == TIMES else int(value) for value in request.values]
    setattr(item, request.keyword, integers)
    dataset.FrameExtractionSequence = Items([*dataset.get("FrameExtractionSequence", []), item])
    dataset.ContributingEquipmentSequence = Items([*dataset.get("ContributingEquipmentSequence", []), _equipment()])


def _equipment() -> Dataset:
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109105", "DCM"
    purpose.CodeMeaning = "Frame Extracting Equipment"
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = Items([purpose])
    equipment.Manufacturer = "dicom-gateway"
    return equipment


def _reindex(dataset: Dataset, numbers: Sequence[int], count: int, times: Sequence[float] | None) -> None:
    """Let the attributes that Frame Increment Pointer names, one value a frame, follow the frames."""
    pointers = dataset.get("FrameIncrementPointer") or []
    pointers = [pointers] if isinstance(pointers, int) else list(pointers)
    for tag in pointers:
        if tag in (_FRAME_TIME, _FRAME_TIME_VECTOR) or tag not in dataset:
            continue
        values = dataset[tag].value
        if not hasattr(values, "__len__") or len(values) != count:
            raise FramesNotExtractable("an attribute of the frames has not one value for each")
        dataset[tag].value = [values[number - 1] for number in numbers]
    if times is None or "PerFrameFunctionalGroupsSequence" in dataset:
        return
    start = times[numbers[0] - 1]
    dataset.FrameDelay = round(float(dataset.get("FrameDelay") or 0) + (start - times[0]) * 1000, 3)
    steps = [round((times[b - 1] - times[a - 1]) * 1000, 3) for a, b in itertools.pairwise(numbers)]
    others = [tag for tag in pointers if tag not in (_FRAME_TIME, _FRAME_TIME_VECTOR)]
    if _FRAME_TIME_VECTOR not in pointers and len(set(steps)) <= 1:
        dataset.FrameTime = steps[0] if steps else dataset.FrameTime
        return
    if "FrameTime" in dataset:
        del dataset.FrameTime
    dataset.FrameTimeVector = [0, *steps]
    dataset.FrameIncrementPointer = [_FRAME_TIME_VECTOR, *others] if others else _FRAME_TIME_VECTOR


def _times(dataset: Dataset, count: int) -> tuple[float, ...] | None:
    """Give the frames' times in seconds after Content Time, if they have any (PS3.3 C.7.6.5, C.7.6.16.2.2)."""
    delay = float(dataset.get("FrameDelay") or 0) / 1000
    vector = dataset.get("FrameTimeVector")
    if vector is not None and hasattr(vector, "__len__") and len(vector) == count:
        passed, times = 0.0, []
        for increment in vector:
            passed += float(increment) / 1000
            times.append(delay + passed)
        return tuple(times)
    if dataset.get("FrameTime"):
        return tuple(delay + number * float(dataset.FrameTime) / 1000 for number in range(count))
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    return _absolute_times(dataset, groups) if len(groups) == count else None


def _absolute_times(dataset: Dataset, groups: Sequence[Dataset]) -> tuple[float, ...] | None:
    try:
        origin = datetime.combine(DA(dataset.ContentDate), TM(dataset.ContentTime))
        times = []
        for group in groups:
            (content,) = group.FrameContentSequence
            stamp: Any = content.get("FrameReferenceDateTime") or content.get("FrameAcquisitionDateTime")
            times.append((cast(datetime, DT(str(stamp))).replace(tzinfo=None) - origin).total_seconds())
    except (AttributeError, TypeError, ValueError):
        return None
    return tuple(times)


def _pixels(
    source: BinaryIO, dataset: Dataset, frames: tuple[Sequence[int], int], encoding: Encoding, target: IO[bytes]
) -> None:
    """Copy the frames; what follows Pixel Data in the source, padding and signatures, no longer holds."""
    numbers, count = frames
    source.seek(0)
    source.seek(read_file_meta(source).offset)
    reader = Reader(source, source)
    for token in tokens(reader, encoding):
        if token.kind is Kind.ENCAPSULATED:
            _encapsulated(source, token.at, numbers, count, target)
            return
        if token.kind is Kind.ELEMENT and token.tag == PIXEL_DATA:
            bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
            if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
                bits = bits * 2 // 3
            if bits % 8 or bits // 8 * count > token.length:
                raise FramesNotExtractable("the frames do not lie apart in the pixel data")
            size = bits // 8
            total = size * len(numbers)
            target.write(header(encoding, PIXEL_DATA, token.vr if encoding.explicit else "OW", total + total % 2))
            for number in numbers:
                source.seek(token.at + (number - 1) * size)
                _copy(source, size, target)
            target.write(b"\0" * (total % 2))
            return
    raise InstanceHasNoFrames("the instance has no pixel data")


def _copy(source: BinaryIO, size: int, target: IO[bytes]) -> None:
    while size:
        piece = source.read(min(size, _PIECE))
        if not piece:
            raise FramesNotExtractable("the pixel data are cut")
        target.write(piece)
        size -= len(piece)


def _encapsulated(source: BinaryIO, at: int, numbers: Sequence[int], count: int, target: IO[bytes]) -> None:
    """Write each frame as one fragment, without a Basic Offset Table (PS3.5 A.4)."""
    target.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED))
    target.write(struct.pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, 0))
    for frame in _frames(source, at, numbers, count):
        padded = frame + b"\0" * (len(frame) % 2)
        target.write(struct.pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, len(padded)))
        target.write(padded)
    target.write(struct.pack("<HHI", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0))


def _frames(source: BinaryIO, at: int, numbers: Sequence[int], count: int) -> Iterator[bytes]:
    source.seek(at)
    wanted = set(numbers)
    try:
        for number, frame in enumerate(generate_frames(source, number_of_frames=count), 1):
            if number in wanted:
                wanted.discard(number)
                yield frame
    except (ValueError, EOFError) as error:
        raise FramesNotExtractable("the frames cannot be told apart") from error
    if wanted:
        raise FramesNotExtractable("frames are missing from the pixel data")

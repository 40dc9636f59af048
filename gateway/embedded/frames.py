"""Find the frames of a stored instance without reading the others (PS3.5 8.2, A.4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import ImplicitVRLittleEndian

from gateway.embedded.transcoding import explicit
from gateway.translate.part10 import read_file_meta

_TAGS: Final = {0x7FE00008: 32, 0x7FE00009: 64, 0x7FE00010: 0}
_UNDEFINED: Final = 0xFFFFFFFF
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"


class NoFrame(Exception):
    """Say that the instance has no pixel data, or not that many frames."""


def read_frames(path: Path, numbers: Sequence[int], syntax: str) -> tuple[str, list[bytes]]:
    """Return the transfer syntax and the bytes of frames, counted from 1; `syntax` `*` means as stored.

    Raises NoFrame, and TranscodingError when the frames cannot be had in `syntax`.
    """
    with path.open("rb") as file:
        stored = read_file_meta(file).transfer_syntax
    if stored == _DEFLATED or syntax not in {"*", stored}:
        with explicit(path) as converted:
            return _frames(converted, numbers)
    return _frames(path, numbers)


def _frames(path: Path, numbers: Sequence[int]) -> tuple[str, list[bytes]]:
    with path.open("rb") as file:
        dataset = dcmread(file, stop_before_pixels=True, force=True)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        bits, length = _pixel_header(file, syntax)
        count = int(dataset.get("NumberOfFrames") or 1)
        if min(numbers) < 1 or max(numbers) > count:
            raise NoFrame
        if length == _UNDEFINED:
            begin = file.tell()
            return syntax, [_encapsulated(file, begin, number - 1, count) for number in numbers]
        return syntax, _native(file, dataset, bits, length, numbers)


def _pixel_header(file: BinaryIO, syntax: str) -> tuple[int, int]:
    """Go behind the header of the pixel data; return its bits per value, 0 when the data set tells, and length."""
    order = "big" if syntax == "1.2.840.10008.1.2.2" else "little"
    header = file.read(8 if syntax == ImplicitVRLittleEndian else 12)
    if len(header) < 8:
        raise NoFrame
    group = int.from_bytes(header[:2], order)  # type: ignore[arg-type]
    tag = group << 16 | int.from_bytes(header[2:4], order)  # type: ignore[arg-type]
    if tag not in _TAGS:
        raise NoFrame
    return _TAGS[tag], int.from_bytes(header[-4:], order)  # type: ignore[arg-type]


def _encapsulated(file: BinaryIO, begin: int, index: int, count: int) -> bytes:
    file.seek(begin)
    try:
        return get_frame(file, index, number_of_frames=count)
    except ValueError as error:
        raise NoFrame from error


def _native(file: BinaryIO, dataset: Dataset, bits: int, length: int, numbers: Sequence[int]) -> list[bytes]:
    size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    size *= bits or int(dataset.BitsAllocated)
    begin, frames = file.tell(), []
    for number in numbers:
        first = size * (number - 1)
        low, high = first // 8, -(-(first + size) // 8)
        if high > length:
            raise NoFrame
        file.seek(begin + low)
        whole = file.read(high - low)
        shift = first % 8
        if shift:  # single-bit frames follow each other without padding
            value = int.from_bytes(whole, "little") >> shift
            whole = value.to_bytes(len(whole), "little")[: -(-size // 8)]
        frames.append(whole)
    return frames

"""Find the frames of a stored instance without reading the others (PS3.5 8.2, A.4)."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, Literal

from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import UID, ImplicitVRLittleEndian

from gateway.embedded.accept import EXPLICIT, STORED
from gateway.embedded.transcoding import explicit
from gateway.errors import TranscodingError
from gateway.translate.part10 import read_file_meta

_TAGS: Final = {0x7FE00008: 32, 0x7FE00009: 64, 0x7FE00010: 0}
"""The elements that hold pixels, and the bits of a value; 0 where the data set tells."""
_UNDEFINED: Final = 0xFFFFFFFF
_SKIPPED: Final = 1 << 16
"""Values longer than this are of no interest here and not read."""


class NoFrame(Exception):
    """Say that the instance has no pixel data, or not that many frames."""


def read_frames(path: Path, numbers: Sequence[int], syntax: str) -> tuple[str, Generator[bytes]]:
    """Return the transfer syntax and, one by one, the bytes of frames counted from 1; `*` means as stored.

    Raises NoFrame, and TranscodingError when the frames cannot be had in `syntax`.
    """
    with ExitStack() as stack:
        file, found = _opened(path, syntax)
        stack.enter_context(file)
        frames = _Frames(file, numbers, found)
        stack.pop_all()
    return str(found), frames.read()


def _opened(path: Path, syntax: str) -> tuple[BinaryIO, UID]:
    """Open the file that has the frames in `syntax`, and say which that is."""
    with path.open("rb") as file:
        stored = UID(read_file_meta(file).transfer_syntax)
    if syntax not in (STORED, EXPLICIT, stored):
        raise TranscodingError("the service does not compress")
    deflated = stored.is_transfer_syntax and stored.is_deflated
    if deflated or syntax not in (STORED, stored):
        return explicit(path), UID(EXPLICIT)
    return path.open("rb"), stored


class _Frames:
    """Read frames from a file whose pixel data were found and are sure to have them."""

    def __init__(self, file: BinaryIO, numbers: Sequence[int], syntax: UID) -> None:
        self._file = file
        self._numbers = numbers
        dataset = dcmread(file, stop_before_pixels=True, defer_size=_SKIPPED, force=True)
        self._count = _number(dataset, "NumberOfFrames") or 1
        bits, length = _pixel_header(file, syntax)
        self._begin = file.tell()
        self._encapsulated = length == _UNDEFINED
        self._size = 0 if self._encapsulated else _bits_of_frame(dataset, bits)
        if not 1 <= min(numbers) <= max(numbers) <= self._count:
            raise NoFrame
        if not self._encapsulated and self._size * max(numbers) > 8 * length:
            raise NoFrame

    def read(self) -> Generator[bytes]:
        """Yield the frames, and close the file behind the last one."""
        with self._file:
            for number in self._numbers:
                yield self._fragments(number) if self._encapsulated else self._native(number)

    def _fragments(self, number: int) -> bytes:
        self._file.seek(self._begin)
        try:
            return get_frame(self._file, number - 1, number_of_frames=self._count)
        except ValueError as error:
            raise NoFrame from error

    def _native(self, number: int) -> bytes:
        first = self._size * (number - 1)
        self._file.seek(self._begin + first // 8)
        whole = self._file.read(-(-(first + self._size) // 8) - first // 8)
        shift = first % 8
        if not shift:
            return whole
        value = int.from_bytes(whole, "little") >> shift  # single-bit frames follow each other without padding
        return value.to_bytes(len(whole), "little")[: -(-self._size // 8)]


def _pixel_header(file: BinaryIO, syntax: UID) -> tuple[int, int]:
    """Go behind the header of the pixel data; return the bits of a value (`_TAGS`) and the length."""
    big = syntax.is_transfer_syntax and not syntax.is_little_endian
    order: Literal["big", "little"] = "big" if big else "little"
    header = file.read(8 if syntax == ImplicitVRLittleEndian else 12)
    tag = int.from_bytes(header[:2], order) << 16 | int.from_bytes(header[2:4], order)
    if len(header) < 8 or tag not in _TAGS:
        raise NoFrame
    return _TAGS[tag], int.from_bytes(header[-4:], order)


def _bits_of_frame(dataset: Dataset, bits: int) -> int:
    size = bits or _number(dataset, "BitsAllocated")
    for keyword in ("Rows", "Columns"):
        size *= _number(dataset, keyword)
    size *= _number(dataset, "SamplesPerPixel") or 1
    if not size:
        raise NoFrame
    return size // 3 * 2 if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" else size


def _number(dataset: Dataset, keyword: str) -> int:
    try:
        return int(dataset.get(keyword) or 0)
    except (TypeError, ValueError) as error:
        raise NoFrame from error

"""Decode encapsulated pixel data to native frames, one frame in memory at a time (PS3.5 8.2, A.4)."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, BinaryIO, cast

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from gateway.errors import DataSetError
from gateway.translate.encoding import UNDEFINED
from gateway.translate.survey import (
    BITS_ALLOCATED,
    BITS_STORED,
    COLUMNS,
    FRAMES,
    PHOTOMETRIC,
    PLANAR,
    REPRESENTATION,
    ROWS,
    SAMPLES,
    Facts,
    text,
    unsigned,
)

_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"  # pydicom has no name for it
_LOSSY_JPEG = frozenset((JPEGBaseline8Bit, JPEGExtended12Bit))
_JPEG = _LOSSY_JPEG | {JPEGLossless, JPEGLosslessSV1}
DECODABLE = _JPEG | frozenset(
    (
        JPEGLSLossless,
        JPEGLSNearLossless,
        JPEG2000Lossless,
        JPEG2000,
        HTJ2KLossless,
        HTJ2KLosslessRPCL,
        HTJ2K,
        RLELossless,
        _ENCAPSULATED_UNCOMPRESSED,
    )
)

_LARGEST_FRAME = 1 << 29  # bytes; what one hostile header may cost in memory

# Third-party decoders raise nearly everything for codestreams they cannot read.
_CODEC_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Native:
    """Hold decoded pixel data: `length` bytes in `frames`, and how the Image Pixel module describes them."""

    length: int
    bits_allocated: int
    photometric: str
    planar: int | None  # Planar Configuration, None where a pixel has one sample
    frames: Iterator[bytes]


def native(stream: IO[bytes], at: int, facts: Facts, syntax: str) -> Native:
    """Return the little endian frames of the encapsulated pixel data that begin at `at`.

    Lossy JPEG comes out as RGB, as viewers expect it; all else keeps the colours it was encoded from.
    `frames` moves the stream while it is read. Raises DataSetError when the description is incomplete or the
    result too long; and, as `frames` does too, when a frame cannot be decoded.
    """
    options = _options(facts)
    bits, count = options["bits_allocated"], options["number_of_frames"]
    frame = options["rows"] * options["columns"] * options["samples_per_pixel"] * bits // 8
    if bits % 8:
        raise DataSetError(f"pixels of {bits} bits are not decoded")
    if frame > _LARGEST_FRAME or frame * count >= UNDEFINED:
        raise DataSetError("the decoded pixel data are too long")
    if syntax == _ENCAPSULATED_UNCOMPRESSED:
        frames = _unwrapped(stream, at, options, frame)
    else:
        frames = _decoded(stream, at, syntax, options)
    photometric, planar, first = next(frames)
    return Native(
        length=len(first) * count,
        bits_allocated=bits,
        photometric=photometric,
        planar=planar if options["samples_per_pixel"] > 1 else None,
        frames=chain((first,), (frame for _, _, frame in frames)),
    )


def _options(facts: Facts) -> dict[str, Any]:
    options: dict[str, Any] = {
        "samples_per_pixel": unsigned(facts, SAMPLES),
        "rows": unsigned(facts, ROWS),
        "columns": unsigned(facts, COLUMNS),
        "bits_allocated": unsigned(facts, BITS_ALLOCATED),
        "bits_stored": unsigned(facts, BITS_STORED),
        "pixel_representation": unsigned(facts, REPRESENTATION),
        "photometric_interpretation": text(facts, PHOTOMETRIC) or None,
    }
    absent = [name.replace("_", " ") for name, value in options.items() if value is None]
    if absent:
        raise DataSetError(f"the pixel data have no {', '.join(absent)}")
    frames = text(facts, FRAMES) or "1"
    if not (frames.isascii() and frames.isdecimal() and int(frames)):
        raise DataSetError("Number of Frames is not a positive number")
    options["number_of_frames"] = int(frames)
    options["planar_configuration"] = unsigned(facts, PLANAR) or 0
    options["pixel_keyword"] = "PixelData"
    return options


def _decoded(stream: IO[bytes], at: int, syntax: str, options: dict[str, Any]) -> Iterator[tuple[str, int, bytes]]:
    bits, signed = options["bits_allocated"], options["pixel_representation"] == 1
    decoder, source = get_decoder(UID(syntax)), cast(BinaryIO, stream)
    if syntax in _JPEG and options["bits_stored"] <= 8 < bits:
        options = options | {"bits_allocated": _coded_bits(decoder, source, at, options)}
    pixels = decoder.iter_array(
        source,
        raw=syntax not in _LOSSY_JPEG,
        # Lossless JPEG decodes to unsigned samples, so that short negative ones have lost their sign.
        correct_unused_bits=signed and syntax in _JPEG,
        **options,
    )
    dtype = np.dtype(f"<{'i' if signed else 'u'}{bits // 8}")
    for number in range(1, options["number_of_frames"] + 1):
        stream.seek(at)
        with _codec(number):
            frame, described = next(pixels, (None, {}))
        if frame is None or frame.dtype.itemsize > dtype.itemsize:
            raise DataSetError(f"frame {number} is missing or wider than {bits} bits")
        at = stream.tell()
        photometric = str(described["photometric_interpretation"])
        if photometric == "YBR_FULL_422":
            photometric = "YBR_FULL"  # the decoder has undone the subsampling
        yield photometric, 0, frame.astype(dtype, copy=False).tobytes()


def _coded_bits(decoder: Decoder, source: BinaryIO, at: int, options: dict[str, Any]) -> int:
    """Return 8 or 16 as the codestream was made of short samples or of the room they were in: both are found."""
    source.seek(at)
    with _codec(1):
        frame, _ = next(decoder.iter_buffer(source, **options))
    samples: int = options["rows"] * options["columns"] * options["samples_per_pixel"]
    return len(frame) * 8 // samples


@contextmanager
def _codec(number: int) -> Iterator[None]:
    try:
        yield
    except _CODEC_FAULTS as fault:
        raise DataSetError(f"frame {number} is not decoded: {' '.join(str(fault).split())}") from fault


def _unwrapped(stream: IO[bytes], at: int, options: dict[str, Any], length: int) -> Iterator[tuple[str, int, bytes]]:
    if options["photometric_interpretation"] == "YBR_FULL_422":
        length = length * 2 // 3  # two pixels share their colour (PS3.3 C.7.6.3.1.2)
    stream.seek(at)
    frames = generate_frames(stream, number_of_frames=options["number_of_frames"])
    for number in range(1, options["number_of_frames"] + 1):
        stream.seek(at)
        with _codec(number):
            frame = next(frames, b"")[:length]
        if len(frame) < length:
            raise DataSetError(f"frame {number} is too short")
        at = stream.tell()
        yield options["photometric_interpretation"], options["planar_configuration"], frame

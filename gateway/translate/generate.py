"""Make synthetic studies for the demonstration, the tests and the benchmarks: made-up people, no real pixels."""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from gateway.translate.encoding import EXPLICIT, ITEM, PIXEL_DATA, UNDEFINED, header
from gateway.translate.part10 import file_header

_SHAPE_ROOT = "1.2.826.0.1.3680043.8.498."
_SHAPE_ROWS, _SHAPE_COLUMNS = 979, 985
_CIRCLE_SERIES = "77033797676425927098669402985243398207"
_OTHER_SERIES = "45787841905473114233124723359129632652"
# name -> series, its number, the instance's number and UID, colour
_SHAPES = {
    "blue-circle": (_CIRCLE_SERIES, 2, 1, "13273713909719068980354078852867170114", (30, 60, 220)),
    "red-triangle": (_OTHER_SERIES, 1, 1, "47359123102728459884412887463296905395", (220, 40, 30)),
    "green-square": (_OTHER_SERIES, 1, 2, "12714725698140337137334606354172323212", (20, 150, 60)),
}

Value = str | int | Sequence[str] | Sequence[Mapping[str, "Value"]]
Attributes = Mapping[str, Value]  # keyword -> value


@dataclass(frozen=True, slots=True)
class Generated:
    """Name a generated Part 10 file and what is in it."""

    path: Path
    study: str
    series: str
    sop_class: str
    sop_instance: str
    transfer_syntax: str


def uid(*names: str | int) -> str:
    """Return the UID that these names always give (PS3.5 B.2, from a name-based UUID)."""
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(map(str, names))).int}"


def demo_study(folder: Path) -> list[Generated]:
    """Write one study of a made-up patient: two CT series, a multi-frame and an RLE compressed colour image."""
    return [
        *ct_series(folder, "demo", count=6, rows=256, columns=256),
        *ct_series(folder, "demo", number=2, count=4, rows=128, columns=128),
        multi_frame(folder, "demo", number=3, frames=5, rows=128, columns=160),
        colour(folder, "demo", number=4),
    ]


def ct_series(
    folder: Path,
    seed: str,
    *,
    count: int,
    rows: int = 512,
    columns: int = 512,
    number: int = 1,
    attributes: Attributes | None = None,
) -> Iterator[Generated]:
    """Write a series of CT slices of `rows` x `columns` x 2 bytes and yield each as it is written.

    The same `seed` gives the same study, `number` the series in it; `attributes` replace or add elements.
    """
    series = uid(seed, number)
    plane = _phantom(rows, columns)
    for index in range(1, count + 1):
        pixels = np.roll(plane, index, axis=0) + np.int16(index % 512)
        image = {
            **_study(seed),
            **_pixel_module(rows, columns, bits=16),
            "BitsStored": 12,
            "HighBit": 11,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": uid(seed, number, index),
            "Modality": "CT",
            "SeriesDescription": f"Phantom, series {number}",
            "SeriesInstanceUID": series,
            "SeriesNumber": str(number),
            "InstanceNumber": str(index),
            "FrameOfReferenceUID": uid(seed, "frame of reference"),
            "ImagePositionPatient": ["-128", "-128", str(index * 2.5)],
            "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
            "SliceThickness": "2.5",
            "PixelSpacing": ["0.5", "0.5"],
            "KVP": "120",
            "RescaleIntercept": "-1024",
            "RescaleSlope": "1",
            "WindowCenter": "40",
            "WindowWidth": "400",
            **(attributes or {}),
        }
        yield _write(folder, image, ExplicitVRLittleEndian, "OW", rows * columns * 2, (pixels.tobytes(),))


def multi_frame(
    folder: Path,
    seed: str,
    *,
    frames: int,
    rows: int = 512,
    columns: int = 512,
    number: int = 1,
    attributes: Attributes | None = None,
) -> Generated:
    """Write one multi-frame image of `frames` x `rows` x `columns` x 2 bytes, a frame in memory at a time."""
    image = {
        **_study(seed),
        **_pixel_module(rows, columns, bits=16),
        **_secondary_capture(seed, number),
        "SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        "NumberOfFrames": str(frames),
        "FrameIncrementPointer": "FrameTime",
        "FrameTime": "40",
        "PresentationLUTShape": "IDENTITY",
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
        **(attributes or {}),
    }
    plane = _phantom(rows, columns)
    pixels = ((np.roll(plane, index, axis=1) + np.int16(index % 512)).tobytes() for index in range(frames))
    return _write(folder, image, ExplicitVRLittleEndian, "OW", frames * rows * columns * 2, pixels)


def colour(
    folder: Path,
    seed: str,
    *,
    rows: int = 200,
    columns: int = 200,
    number: int = 1,
    attributes: Attributes | None = None,
) -> Generated:
    """Write one RGB image, RLE compressed."""
    grey = (_phantom(rows, columns) >> 4).astype(np.uint8)
    pixels = np.stack((grey, np.roll(grey, 20, axis=0), np.roll(grey, 20, axis=1)), axis=-1)
    image = {
        **_study(seed),
        **_pixel_module(rows, columns, bits=8),
        **_secondary_capture(seed, number),
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        **(attributes or {}),
    }
    frame = RLELosslessEncoder.encode(
        pixels,
        rows=rows,
        columns=columns,
        samples_per_pixel=3,
        number_of_frames=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="RGB",
        planar_configuration=0,
    )
    encapsulated = encapsulate([frame]) + header(EXPLICIT, 0xFFFEE0DD, "", 0)
    return _write(folder, image, RLELossless, "OB", UNDEFINED, (encapsulated,))


def shapes(folder: Path) -> list[Generated]:
    """Write the three images of the tutorial: one study, two series, the UIDs of the well-known sample files."""
    return [shape(folder / f"{name}.dcm", name) for name in _SHAPES]


def shape(path: Path, name: str) -> Generated:
    """Write the `blue-circle`, `red-triangle` or `green-square`, 979 x 985 RGB."""
    series, number, instance, sop, rgb = _SHAPES[name]
    y, x = np.mgrid[-1 : 1 : _SHAPE_ROWS * 1j, -1 : 1 : _SHAPE_COLUMNS * 1j]
    inside = {
        "blue-circle": x**2 + y**2 < 0.5,
        "red-triangle": (y < 0.7) & (y > 2.4 * abs(x) - 0.8),
        "green-square": np.maximum(abs(x), abs(y)) < 0.6,
    }[name]
    pixels = np.where(inside[..., None], np.array(rgb), np.array((255, 255, 255))).astype(np.uint8)
    image = {
        **_pixel_module(_SHAPE_ROWS, _SHAPE_COLUMNS, bits=8),
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": f"{_SHAPE_ROOT}{sop}",
        "StudyDate": "20200922",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "Modality": "OT",
        "ConversionType": "SYN",
        "ReferringPhysicianName": "Doctor Doc",
        "PatientName": "Anony Mous",
        "PatientID": "ID1",
        "PatientBirthDate": "",
        "PatientSex": "F",
        "PatientAge": "024Y",
        "StudyInstanceUID": f"{_SHAPE_ROOT}13230779778012324449356534479549187420",
        "SeriesInstanceUID": f"{_SHAPE_ROOT}{series}",
        "StudyID": "1",
        "SeriesNumber": str(number),
        "InstanceNumber": str(instance),
        "PatientOrientation": "",
        "ImageComments": f"Fake DICOM - {name.replace('-', ' ').title()}",
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "PixelSpacing": ["1", "1"],
    }
    size = pixels.size + pixels.size % 2
    return _write(
        path.parent, image, ExplicitVRLittleEndian, "OB", size, (pixels.tobytes().ljust(size, b"\0"),), path.name
    )


def _study(seed: str) -> dict[str, Value]:
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "InstanceCreationDate": "20240229",
        "InstanceCreationTime": "101500",
        "StudyDate": "20240229",
        "StudyTime": "101500",
        "SeriesDate": "20240229",
        "SeriesTime": "101500",
        "ContentDate": "20240229",
        "ContentTime": "101500",
        "AccessionNumber": f"A{uid(seed)[5:13]}",
        "Manufacturer": "Dicom Gateway",
        "ManufacturerModelName": "Generator",
        "ReferringPhysicianName": "Example^Rita",
        "StudyDescription": "Synthetic study",
        "PatientName": "Sample^Ada",
        "PatientID": f"P{uid(seed)[5:13]}",
        "PatientBirthDate": "19701231",
        "PatientSex": "O",
        "StudyInstanceUID": uid(seed),
        "StudyID": "1",
        "RequestAttributesSequence": [{"ScheduledProcedureStepID": "S1", "RequestedProcedureID": "R1"}],
    }


def _secondary_capture(seed: str, number: int) -> dict[str, Value]:
    return {
        "ImageType": ["DERIVED", "SECONDARY"],
        "SOPInstanceUID": uid(seed, number, 1),
        "Modality": "OT",
        "ConversionType": "SYN",
        "SeriesDescription": f"Phantom, series {number}",
        "SeriesInstanceUID": uid(seed, number),
        "SeriesNumber": str(number),
        "InstanceNumber": "1",
        "PatientOrientation": "",
        "BurnedInAnnotation": "NO",
    }


def _pixel_module(rows: int, columns: int, *, bits: int) -> dict[str, Value]:
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
    }


def _phantom(rows: int, columns: int) -> NDArray[np.int16]:
    """Return an ellipse on a gradient with noise, 0 to 3,500, the same for the same size."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 1000.0, 0.0)
    spine = np.where(x**2 + (y - 0.3) ** 2 < 0.02, 1000.0, 0.0)
    noise = np.random.default_rng(rows * columns).integers(0, 64, (rows, columns))
    phantom: NDArray[np.int16] = (body + spine + 500 * (1 + np.sin(math.pi * x)) + noise).astype("<i2")
    return phantom


def _write(
    folder: Path, image: Attributes, syntax: str, vr: str, length: int, pixels: Iterable[bytes], name: str = ""
) -> Generated:
    generated = Generated(
        path=folder / (name or f"{image['SOPInstanceUID']}.dcm"),
        study=str(image["StudyInstanceUID"]),
        series=str(image["SeriesInstanceUID"]),
        sop_class=str(image["SOPClassUID"]),
        sop_instance=str(image["SOPInstanceUID"]),
        transfer_syntax=str(syntax),
    )
    folder.mkdir(parents=True, exist_ok=True)
    head = file_header(generated.sop_class, generated.sop_instance, generated.transfer_syntax)
    with generated.path.open("wb") as file:
        for piece in chain((head, _encoded(image), header(EXPLICIT, PIXEL_DATA, vr, length)), pixels):
            file.write(piece)
    return generated


def _encoded(attributes: Attributes) -> bytes:
    """Return the elements in Explicit VR Little Endian, in the order of their tags."""
    tagged = {_tag(keyword): value for keyword, value in attributes.items()}
    return b"".join(_element(tag, dictionary_VR(tag), tagged[tag]) for tag in sorted(tagged))


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not the keyword of an element")
    return tag


def _element(tag: int, vr: str, value: Value) -> bytes:
    if isinstance(value, int):
        field = struct.pack("<H", value)
    elif vr == "SQ":
        items = [_encoded(item) for item in value if isinstance(item, Mapping)]
        field = b"".join(header(EXPLICIT, ITEM, "", len(item)) + item for item in items)
    elif vr == "AT":
        pointed = _tag(str(value))
        field = struct.pack("<HH", pointed >> 16, pointed & 0xFFFF)
    else:
        field = (value if isinstance(value, str) else "\\".join(map(str, value))).encode()
        field += (b"\0" if vr == "UI" else b" ") * (len(field) % 2)
    return header(EXPLICIT, tag, vr, len(field)) + field

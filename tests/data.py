"""Make instances that the generator of the demonstration does not: odd classes, names, syntaxes; with pydicom."""

from pathlib import Path

import numpy as np
from dcmtk import run
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RawDataStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from gateway.translate.generate import Generated, uid

PRIVATE_CLASS = "1.2.826.0.1.3680043.10.1338.1"

# SOP instance, series and colour of the seed samples' equivalents (dicomweb-services.md 5.6)
_ROOT = "1.2.826.0.1.3680043.8.498."
SHAPES_STUDY = f"{_ROOT}13230779778012324449356534479549187420"
SHAPES = {
    "green-square": (
        f"{_ROOT}12714725698140337137334606354172323212",
        f"{_ROOT}45787841905473114233124723359129632652",
        (0, 255, 0),
    ),
    "red-triangle": (
        f"{_ROOT}47359123102728459884412887463296905395",
        f"{_ROOT}45787841905473114233124723359129632652",
        (255, 0, 0),
    ),
    "blue-circle": (
        f"{_ROOT}13273713909719068980354078852867170114",
        f"{_ROOT}77033797676425927098669402985243398207",
        (0, 0, 255),
    ),
}

_EMPTY = (
    *("ContentDate", "AcquisitionDateTime", "ContentTime", "PatientPosition"),
    *("PatientOrientation", "Laterality"),
)

# Specific Character Set -> a name that it can hold (PS3.5 Annexes H to K, PS3.3 C.12.1.1.2)
NAMES = {
    "": "Doe^Jane",
    "ISO_IR 100": "Äneas^Rüdiger",
    "ISO_IR 101": "Wałęsa^Łucja",
    "ISO_IR 144": "Жилин^Илья",
    "ISO_IR 126": "Διονυσιος",
    "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 138": "שרון^דבורה",
    "ISO_IR 166": "นามสกุล",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "GB18030": "Wang^XiaoDong=王^小东",
    "GBK": "Wang^XiaoDong=王^小东",
    "ISO_IR 192": "Wang^XiaoDong=王^小東",
}

# How DCMTK encodes a native file in a transfer syntax; pydicom does JPEG 2000.
_TOOLS = {
    ImplicitVRLittleEndian: ("dcmconv", "+ti"),
    ExplicitVRLittleEndian: ("dcmconv", "+te"),
    ExplicitVRBigEndian: ("dcmconv", "+tb"),
    DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
    JPEGBaseline8Bit: ("dcmcjpeg", "+eb"),
    JPEGExtended12Bit: ("dcmcjpeg", "+ee"),
    JPEGLossless: ("dcmcjpeg", "+el"),
    JPEGLosslessSV1: ("dcmcjpeg", "+e1"),
    JPEGLSLossless: ("dcmcjpls", "+el"),
    JPEGLSNearLossless: ("dcmcjpls", "+en"),
    RLELossless: ("dcmcrle",),
}


def encoded(source: Path, target: Path, syntax: str) -> Path:
    """Write a native Part 10 file in another transfer syntax, by tools that share no code with ours.

    The lossy ones give the result a SOP Instance UID of its own; those for 8-bit data make it 8-bit.
    """
    if syntax in (JPEG2000, JPEG2000Lossless):
        dataset = dcmread(source)
        ratios = {} if syntax == JPEG2000Lossless else {"j2k_cr": [5]}
        dataset.compress(UID(syntax), encoding_plugin="pylibjpeg", generate_instance_uid=False, **ratios)
        dataset.save_as(target)
        return target
    tool, *options = _TOOLS[UID(syntax)]
    result = run(tool, *options, source, target)
    assert result.returncode == 0, result.output[-2000:]
    return target


def shapes(folder: Path) -> list[Generated]:
    """Write the equivalents of the three seed samples: the same UIDs and elements, other pixels.

    Their frames have an odd number of bytes, 2,892,945, so that Pixel Data ends with a padding byte.
    """
    y, x = np.mgrid[0:979, 0:985]
    covered = {
        "green-square": (abs(x - 492) < 200) & (abs(y - 489) < 200),
        "red-triangle": (y > 200) & (y < 780) & (2 * abs(x - 492) < y - 200),
        "blue-circle": (x - 492) ** 2 + (y - 489) ** 2 < 300**2,
    }
    made: list[Generated] = []
    for name, (instance, series, colour) in SHAPES.items():
        pixels = np.where(covered[name][:, :, None], np.uint8(colour), np.uint8(255))
        dataset = _data_set(SHAPES_STUDY, series, instance)
        dataset.ImageComments = f"Fake DICOM - {name.replace('-', ' ').title()}"
        dataset.SeriesNumber = 2 if name == "blue-circle" else 1
        dataset.InstanceNumber = 2 if name == "green-square" else 1
        dataset.PatientAge = "024Y"
        for keyword in _EMPTY:
            setattr(dataset, keyword, "")
        dataset.PixelSpacing = [1, 1]
        dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = 0, 255
        dataset.PhotometricInterpretation = "RGB"
        dataset.SamplesPerPixel = 3
        dataset.PlanarConfiguration = 0
        dataset.Rows, dataset.Columns = 979, 985
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelRepresentation = 0
        dataset.PixelData = pixels.tobytes() + b"\0"
        dataset["PixelData"].VR = "OB"
        made.append(save(dataset, folder / f"{name}.dcm"))
    return made


def private_class(folder: Path, seed: str = "private") -> Generated:
    """Write an instance of a private SOP class, with private elements and a sequence of them."""
    dataset = _data_set(uid(seed), uid(seed, 1), uid(seed, 1, 1))
    dataset.SOPClassUID = PRIVATE_CLASS
    block = dataset.private_block(0x0099, "GATEWAY TEST", create=True)
    inner = Dataset()
    inner.private_block(0x0099, "GATEWAY TEST", create=True).add_new(0x02, "FD", 2.5)
    block.add_new(0x01, "LO", "a private value")
    block.add_new(0x03, "SQ", [inner, Dataset()])
    block.add_new(0x04, "UN", bytes(range(255)) + b"\0")
    block.add_new(0x05, "OW", bytes(range(256)))
    return save(dataset, folder / "private-class.dcm")


def named(folder: Path) -> dict[str, Generated]:
    """Write an instance for each of `NAMES`, without pixels, by its Specific Character Set."""
    made = {}
    for number, (charset, name) in enumerate(NAMES.items(), 1):
        dataset = _data_set(uid("named", number), uid("named", number, 1), uid("named", number, 1, 1))
        dataset.SOPClassUID = RawDataStorage
        dataset.SpecificCharacterSet = charset.split("\\")
        dataset.PatientName = name
        dataset.PatientID = f"NAMED{number:02}"
        made[charset] = save(dataset, folder / f"named-{number}.dcm")
    return made


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Generated:
    """Write a native data set, or one compressed before, in `syntax`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return Generated(
        path,
        str(dataset.StudyInstanceUID),
        str(dataset.SeriesInstanceUID),
        str(dataset.SOPClassUID),
        str(dataset.SOPInstanceUID),
        str(syntax),
    )


def _data_set(study: str, series: str, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = instance
    dataset.StudyDate = "20200922"
    dataset.StudyTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"
    dataset.ReferringPhysicianName = "Doctor Doc"
    dataset.PatientName = "Anony Mous"
    dataset.PatientID = "ID1"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F"
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = series
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    return dataset

"""Make synthetic CT instances, encoded once as C-STORE PDUs: a prefix of their own and a tail that all share."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench import wire
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.2"  # CT Image Storage
_ROOT = "1.2.826.0.1.3680043.8.498"
_BLOCK = 2_048  # PDUs in one piece: what is longer than 32 MB is sent in pieces
_SERIES = 100  # instances in a series


@dataclass(frozen=True)
class Batch:
    """A number of instances of `size` bytes, even and at least 1,024, unique by `run`, spread over `studies`.

    The data sets differ in UIDs and numbers of fixed length only, so that each is a prefix and a common tail.
    """

    run: int
    count: int
    size: int
    studies: int = 1
    date: str = "20240101"
    max_pdu: int = 16_382  # the least of what the receivers take (pynetdicom)

    @property
    def study(self) -> str:
        """Give the first study's UID."""
        return self._uid(1, 0)

    @property
    def megabytes(self) -> float:
        """Give the size of all data sets in 10^6 bytes."""
        return self.count * self.size / 1e6

    @cached_property
    def prefixes(self) -> list[bytes]:
        """Give each instance's command set and the first PDU of its data set."""
        return [self._prefix(number) for number in range(self.count)]

    @cached_property
    def tails(self) -> list[bytes]:
        """Give the PDUs behind the first; pieces of a large instance are one and the same object."""
        block = self._room * _BLOCK
        whole, rest = divmod(max(0, self.size - self._room), block)
        if whole and not rest:
            whole, rest = whole - 1, block
        piece = wire.p_data(1, bytes(block), self.max_pdu, is_command=False, is_last=False) if whole else b""
        return [piece] * whole + [wire.p_data(1, bytes(rest), self.max_pdu, is_command=False)]

    @property
    def tail(self) -> bytes:
        """Give the PDUs behind the first in one piece."""
        return b"".join(self.tails)

    def encode(self) -> None:
        """Encode everything now, so that it is not part of a measure."""
        _ = self.prefixes, self.tails

    def files(self, folder: Path) -> Path:
        """Write the instances as Part 10 files into a new folder below `folder`, and give it."""
        made = folder / f"files-{self.run}"
        made.mkdir()
        for number in range(self.count):
            header = self._header(number)
            path = made / f"{number:06}.dcm"
            path.write_bytes(self._file_meta(number) + header + bytes(self.size - len(header)))
        return made

    def _file_meta(self, number: int) -> bytes:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SOP_CLASS, self._uid(3, number)
        meta.TransferSyntaxUID = wire.EXPLICIT_LE
        buffer = DicomBytesIO()
        write_file_meta_info(buffer, meta)
        return bytes(128) + b"DICM" + buffer.getvalue()

    @property
    def _room(self) -> int:
        return self.max_pdu - 6

    def _prefix(self, number: int) -> bytes:
        header = self._header(number)
        first = header + bytes(min(self.size, self._room) - len(header))
        command = wire.command(
            wire.C_STORE,
            number % 65_535 + 1,
            SOP_CLASS,
            wire.element(0x1000, wire.uid(self._uid(3, number))),
        )
        return wire.p_data(1, command, self.max_pdu, is_command=True) + wire.p_data(
            1, first, self.max_pdu, is_command=False, is_last=self.size <= self._room
        )

    def _header(self, number: int) -> bytes:
        """Encode everything before the value of Pixel Data."""
        study = number % self.studies
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = SOP_CLASS, self._uid(3, number)
        dataset.StudyDate, dataset.StudyTime = self.date, "120000"
        dataset.AccessionNumber = f"A{study:08}"
        dataset.Modality, dataset.StudyDescription = "CT", "Benchmark"
        dataset.PatientName, dataset.PatientID = f"Bench^{study:08}", f"P{study:08}"
        dataset.StudyInstanceUID = self._uid(1, study)
        dataset.SeriesInstanceUID = self._uid(2, study * 1_000 + number // self.studies // _SERIES)
        dataset.SeriesNumber, dataset.InstanceNumber = 1, f"{number + 1:08}"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation, dataset.Rows, dataset.Columns = 0, 512, 512
        encoded = encode(dataset)
        pixels = self.size - len(encoded) - 12
        return encoded + b"\xe0\x7f\x10\x00OW\0\0" + pixels.to_bytes(4, "little")

    def _uid(self, kind: int, number: int) -> str:
        return f"{_ROOT}.{kind}.{1_000_000 + self.run}.{100_000_000 + number}"


class Batches:
    """Make batches that share no UID."""

    def __init__(self) -> None:
        self._runs = itertools.count(1)

    def make(self, count: int, size: int, studies: int = 1, date: str = "20240101") -> Batch:
        """Make the next batch."""
        return Batch(next(self._runs), count, size, studies, date)


def encode(dataset: Dataset) -> bytes:
    """Encode a data set in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def study_of(batch: Batch) -> bytes:
    """Encode the identifier that retrieves a batch's first study."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", batch.study
    return encode(identifier)


def studies_of(date: str) -> bytes:
    """Encode the identifier that finds a day's studies, with the keys of a usual study list."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyDate = "STUDY", date
    for keyword in (
        "StudyTime",
        "AccessionNumber",
        "ModalitiesInStudy",
        "StudyDescription",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "StudyInstanceUID",
        "NumberOfStudyRelatedInstances",
    ):
        setattr(identifier, keyword, None)
    return encode(identifier)

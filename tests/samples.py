"""The sample files: pydicom's packaged Part 10 files and, when present, those in ../shared/dcms."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import FileDataset

SHARED = Path(__file__).parents[2] / "shared" / "dcms"
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Sample:
    """A Part 10 file: UIDs of File Meta and data set; `complete` when it has all, in digits, and they agree."""

    path: Path
    sop_class: str
    sop_instance: str
    syntax: str
    study: str
    series: str
    complete: bool
    has_patient_id: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """Give the keys that name the instance in a Study Root query or retrieve."""
        return (
            "QueryRetrieveLevel=IMAGE",
            f"StudyInstanceUID={self.study}",
            f"SeriesInstanceUID={self.series}",
            f"SOPInstanceUID={self.sop_instance}",
        )


def part10_files() -> Iterator[Path]:
    packaged = [Path(name) for name in get_testdata_files("**/*")]
    for path in sorted({*packaged, *SHARED.glob("*.dcm")}):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    yield path


def samples(folder: Path) -> list[Sample]:
    """Give every file that can be sent, each under a SOP Instance UID of its own.

    A file that shares its UID with an earlier one is copied into `folder` under another, of the same length.
    """
    chosen: list[Sample] = []
    seen: set[str] = set()
    for path in part10_files():
        sample = _read(path)
        if sample is not None and sample.complete and sample.sop_instance in seen:
            sample = _read(_renamed(path, sample.sop_instance, folder, len(seen)))
        if sample is not None:
            seen.add(sample.sop_instance)
            chosen.append(sample)
    return chosen


def data_set(path: Path) -> bytes:
    """Give the bytes behind the File Meta, whose group length is trusted where it is there."""
    content = path.read_bytes()
    assert content[128:132] == b"DICM"
    if content[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return content[_end_of_meta(content) :]
    return content[144 + int.from_bytes(content[140:144], "little") :]


def data_sets(folder: Path) -> dict[str, bytes]:
    """Give the data sets of a folder's Part 10 files by the SOP Instance UID of their File Meta."""
    files = [path for path in folder.iterdir() if path.is_file()]
    return {dcmread(path, specific_tags=[]).file_meta.MediaStorageSOPInstanceUID: data_set(path) for path in files}


def _end_of_meta(content: bytes) -> int:
    """Walk the elements of group 0002, Explicit VR Little Endian (PS3.10 7.1)."""
    offset = 132
    while content[offset : offset + 2] == b"\x02\x00":
        if content[offset + 4 : offset + 6] in (b"OB", b"UN"):
            offset += 12 + int.from_bytes(content[offset + 8 : offset + 12], "little")
        else:
            offset += 8 + int.from_bytes(content[offset + 6 : offset + 8], "little")
    return offset


def _read(path: Path) -> Sample | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some samples are there for their faults
        return _sample(path, dcmread(path, stop_before_pixels=True))


def _sample(path: Path, dataset: FileDataset) -> Sample | None:
    meta = dataset.file_meta
    named = [str(meta.get(f"MediaStorageSOP{part}UID") or "") for part in ("Class", "Instance")]
    syntax = str(meta.get("TransferSyntaxUID") or "")
    if not all((*named, syntax)):
        return None
    uids = [str(dataset.get(keyword) or "") for keyword in _UIDS]
    complete = all(map(_UID.fullmatch, uids)) and uids[:2] == named
    return Sample(path, named[0], named[1], syntax, uids[2], uids[3], complete, complete and "PatientID" in dataset)


def _renamed(path: Path, uid: str, folder: Path, number: int) -> Path:
    content = path.read_bytes()
    assert uid.encode() in content
    renamed = folder / f"{number}-{path.name}"
    renamed.write_bytes(content.replace(uid.encode(), f"{uid[:-4]}9{number:03}".encode()))
    return renamed

"""A real embedded archive and the plain HTTP requests that tests send to it."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gateway.embedded.server import EmbeddedArchive
from gateway.embedded.switches import Faults, Switches
from gateway.translate.multipart import boundary_of, split

JSON = {"Accept": "application/dicom+json"}
ORIGINAL = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


def instance(study: str = "1.2.1", series: str = "1.2.1.1", sop: str = "1.2.1.1.1", **values: Any) -> bytes:
    """Make a Part 10 file; `values` are elements by keyword, None leaves one out."""
    syntax = values.pop("syntax", ExplicitVRLittleEndian)
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = sop
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = series
    dataset.PatientID = "ID1"
    dataset.PatientName = "Doe^John"
    dataset.StudyDate = "20240102"
    dataset.Modality = "OT"
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = sop
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def uid_of(file: bytes) -> str:
    """Give the SOP Instance UID of a Part 10 file."""
    return str(dcmread(io.BytesIO(file), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def image(frames: Sequence[bytes], **values: Any) -> bytes:
    """Make a Part 10 file with 8-bit frames of 3 by 3 pixels, unless `values` say otherwise."""
    pixels = b"".join(frames)
    described = {
        "Rows": 3,
        "Columns": 3,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "NumberOfFrames": len(frames),
        "PixelData": pixels + b"\0" * (len(pixels) % 2),
    }
    return instance(**described | values)


class Caller:
    """Send requests to one archive and keep the connection pool."""

    def __init__(self, archive: EmbeddedArchive) -> None:
        self.archive = archive
        self.http = httpx.Client(timeout=20)

    def get(self, path: str, headers: dict[str, str] = JSON) -> httpx.Response:
        request = self.http.build_request("GET", self.archive.url + path)
        request.headers.pop("Accept", None)  # httpx adds one, the rules are about a missing one
        request.headers.update(headers)
        return self.http.send(request)

    def delete(self, path: str) -> httpx.Response:
        return self.http.delete(self.archive.url + path)

    def store(self, *files: bytes, path: str = "/studies", part: str | None = "application/dicom") -> httpx.Response:
        return self.post(multipart(files, part), 'multipart/related; type="application/dicom"; boundary=b', path)

    def post(self, body: bytes, content_type: str, path: str = "/studies", version: str = "v2") -> httpx.Response:
        url = self.archive.url.removesuffix("v2") + version + path
        return self.http.post(url, content=body, headers=JSON | {"Content-Type": content_type})


def multipart(files: Sequence[bytes], part: str | None = "application/dicom") -> bytes:
    """Make a multipart body with the boundary `b`."""
    header = b"" if part is None else b"Content-Type: " + part.encode() + b"\r\n"
    return b"".join(b"--b\r\n" + header + b"\r\n" + file + b"\r\n" for file in files) + b"--b--\r\n"


def parts(answer: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """Take a multipart answer apart."""
    boundary = boundary_of(answer.headers["Content-Type"])
    return [(part.headers, b"".join(part.body)) for part in split([answer.content], boundary)]


def values(model: dict[str, Any], tag: str) -> list[Any]:
    """Return the values of an attribute of a DICOM JSON object, none when it is absent."""
    return model.get(tag, {}).get("Value", [])


def reasons(answer: httpx.Response) -> list[int]:
    """Return the Failure Reasons of a STOW-RS answer."""
    return [values(item, "00081197")[0] for item in values(answer.json(), "00081198")]


@contextmanager
def running(folder: Path) -> Iterator[Caller]:
    """Run an archive on any free port and give a caller for it."""
    with EmbeddedArchive(folder) as archive:
        caller = Caller(archive)
        with caller.http:
            yield caller


@contextmanager
def running_archive(folder: Path, faults: Faults | None = None) -> Iterator[tuple[str, Switches]]:
    """Run an archive on any free port; give the base URL of its resources and the switches of its faults."""
    with EmbeddedArchive(folder) as archive:
        archive.switches.set(faults or Faults())
        yield archive.url, archive.switches

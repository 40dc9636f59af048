"""A multi-frame of 1 GB passes both ways in bounded memory."""

import hashlib
from pathlib import Path

import dcmtk
import pytest
from bench.usage import Usage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MultiFrameGrayscaleByteSecondaryCaptureImageStorage, generate_uid

FRAMES, ROWS, COLUMNS = 1_024, 1_024, 1_024
LIMIT = 300_000_000  # bytes


@pytest.fixture
def multi_frame(tmp_path):
    """Make a Part 10 file whose Pixel Data is a hole of 1 GiB with a mark at its end."""
    dataset = Dataset()
    dataset.SOPClassUID = MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (generate_uid() for _ in range(3))
    dataset.PatientID, dataset.PatientName, dataset.Modality = "LARGE", "Large", "OT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = FRAMES, ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    meta = dataset.file_meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path / "large.dcm"
    dataset.save_as(path, enforce_file_format=True)
    size = FRAMES * ROWS * COLUMNS
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(b"\xe0\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little"))
        file.seek(size - 4, 1)
        file.write(b"END!")
    return dataset, path


def digest(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def meta_size(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(144)
    return 144 + int.from_bytes(head[140:144], "little")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_multi_frame_of_1_gb_is_stored_moved_and_got_in_300_mb(start_gateway, receiver, multi_frame, tmp_path):
    dataset, path = multi_frame
    keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={dataset.StudyInstanceUID}")
    wanted = digest(path, meta_size(path))
    with start_gateway(tmp_path / "gateway") as gateway:
        usage = Usage(gateway.pid)
        assert dcmtk.storescu(gateway.port, path).status == 0x0000
        path.unlink()
        assert usage.peak() < LIMIT
        assert dcmtk.movescu(gateway.port, receiver.title, *keys, model="S").status == 0x0000
        (moved,) = receiver.files
        assert digest(moved, meta_size(moved)) == wanted
        receiver.clear()
        assert dcmtk.getscu(gateway.port, tmp_path / "got", *keys, model="S").returncode == 0
        (got,) = (tmp_path / "got").iterdir()
        assert digest(got, meta_size(got)) == wanted
        assert usage.peak() < LIMIT

"""A destination that takes few transfer syntaxes gets what can be made of the stored ones, and no other loss."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import embedded_archive
import numpy as np
import pytest
import retrieving
from codestreams import HTJ2K_GREY
from data import encoded, save
from destinations import Destination, destination
from meddling_proxy import Rule, meddling
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from gateway.app import running
from gateway.config import parse
from gateway.translate.generate import Generated, ct_series

LOSSLESS = (JPEGLosslessSV1, RLELossless, JPEGLSLossless, JPEG2000Lossless)


@dataclass
class Study:
    """A study in the archive: the decoded pixels of each instance, none where nobody can decode them."""

    url: str
    uid: str
    pixels: dict[str, "np.ndarray | None"]
    syntaxes: dict[str, str]


def with_codestream(slice_: Generated, folder: Path, syntax: str, codestream: bytes) -> Path:
    """Write a slice with a codestream in place of its pixels, 16 x 12 in 12 bits."""
    dataset = dcmread(slice_.path)
    dataset.Rows, dataset.Columns = 12, 16
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return save(dataset, folder / f"{slice_.sop_instance}.dcm", syntax).path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """Run an archive with one slice in each lossless syntax, a native one, an HTJ2K, an MPEG-2 and a baseline one."""
    folder = tmp_path_factory.mktemp("study")
    slices = list(ct_series(folder, "few syntaxes", count=8, rows=64, columns=64))
    paths = [slices[0].path]
    for one, syntax in zip(slices[1:5], LOSSLESS, strict=True):
        paths.append(encoded(one.path, folder / f"{syntax}.dcm", syntax))
    paths.append(with_codestream(slices[5], folder, HTJ2KLossless, base64.b64decode(HTJ2K_GREY)))
    paths.append(with_codestream(slices[6], folder, MPEG2MPML, b"\0\0\1\xb3" + bytes(60)))
    paths.append(encoded(slices[7].path, folder / "baseline.dcm", JPEGBaseline8Bit))
    found = [dcmread(path) for path in paths]
    y, x = np.mgrid[0:12, 0:16]
    originals = [dcmread(one.path).pixel_array for one in slices[:5]]
    pixels = {str(one.SOPInstanceUID): original for one, original in zip(found[:5], originals, strict=True)}
    pixels[str(found[5].SOPInstanceUID)] = (x * x * 13 + y * 97) % 4096
    pixels[str(found[6].SOPInstanceUID)] = None
    pixels[str(found[7].SOPInstanceUID)] = found[7].pixel_array
    with embedded_archive.running(folder / "archive") as caller:
        assert caller.store(*[path.read_bytes() for path in paths]).status_code == 200
        yield Study(
            caller.archive.url,
            slices[0].study,
            pixels,
            {str(one.SOPInstanceUID): str(one.file_meta.TransferSyntaxUID) for one in found},
        )


@contextmanager
def moved(study: Study, folder: Path, *syntaxes: str) -> Iterator[tuple[list[retrieving.Response], Destination]]:
    """Move the study to a destination that takes these transfer syntaxes alone."""
    with destination(syntaxes=syntaxes) as where:
        config = parse(
            {
                "listen": {"host": "127.0.0.1", "port": 0, "grace": 1},
                "archives": {"main": {"url": study.url, "profile": "azure"}},
                "ae_titles": {"GATEWAY": {"archive": "main"}},
                "peers": {"BENCH": {}, "DEST": where.peer},
                "spool": {"folder": str(folder), "high_water": 1.0},
            },
            "test",
        )
        with running(config) as gateway:
            keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study.uid}
            yield retrieving.move(gateway.port, "DEST", **keys).all(), where
        assert not list(folder.rglob("incoming/*"))


def test_a_destination_for_implicit_vr_gets_all_that_can_be_decoded_and_the_rest_is_named(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with moved(study, tmp_path, ImplicitVRLittleEndian) as (responses, where):
        final = responses[-1]
        (undecodable,) = (uid for uid, pixels in study.pixels.items() if pixels is None)
        assert (final.status, final.failed) == (0xB000, [undecodable])
        assert final.counters == {"completed": 7, "failed": 1, "warning": 0}
        for one in where.received:
            dataset = read_dataset(DicomBytesIO(one.data), is_implicit_VR=True, is_little_endian=True)
            dataset.file_meta = dcmread(DicomBytesIO(_header())).file_meta
            assert np.array_equal(dataset.pixel_array, study.pixels[one.sop_instance]), study.syntaxes[
                one.sop_instance
            ]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "sub-operation failed" in line)
    assert undecodable in line
    assert MPEG2MPML in line


def _header() -> bytes:
    return embedded_archive.instance(syntax=ImplicitVRLittleEndian)


def test_a_destination_for_jpeg_baseline_gets_that_and_nothing_is_made_lossy(study: Study, tmp_path: Path) -> None:
    with moved(study, tmp_path, JPEGBaseline8Bit) as (responses, where):
        (baseline,) = (uid for uid, syntax in study.syntaxes.items() if syntax == JPEGBaseline8Bit)
        assert responses[-1].status == 0xB000
        assert [one.sop_instance for one in where.received] == [baseline]
        assert sorted([*responses[-1].failed, baseline]) == sorted(study.pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_cannot_be_converted_here_is_asked_from_an_archive_that_can(
    study: Study, tmp_path: Path, syntax: str
) -> None:
    (undecodable,) = (uid for uid, pixels in study.pixels.items() if pixels is None)
    decoded = embedded_archive.instance(study.uid, "1.2", undecodable, SOPClassUID=CTImageStorage, StudyID="decoded")
    with meddling(study.url) as proxy:
        proxy.rule = lambda path: Rule(explicit=decoded if path.endswith(undecodable) else None)
        with moved(replace(study, url=proxy.url), tmp_path, syntax) as (responses, where):
            assert (responses[-1].status, responses[-1].counters["completed"]) == (0x0000, 8)
            (one,) = (one for one in where.received if one.sop_instance == undecodable)
    dataset = read_dataset(DicomBytesIO(one.data), syntax == ImplicitVRLittleEndian, is_little_endian=True)
    assert dataset.StudyID == "decoded"

"""The Accept table of the embedded archive, and the transfer syntaxes that it gives."""

import io
from contextlib import closing
from http.client import HTTPConnection

import numpy as np
import pytest
from embedded_archive import JSON, ORIGINAL, image, instance, parts, reasons, running
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from gateway.embedded.switches import Faults

STUDY = "/studies/1.2.1"
SERIES = STUDY + "/series/1.2.1.1"
INSTANCE = SERIES + "/instances/1.2.1.1.1"
FRAME = INSTANCE + "/frames/1"
FRAMES = [bytes([number] * 9) for number in (1, 2, 3)]
EXPLICIT = "1.2.840.10008.1.2.1"
RELATED = "multipart/related"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Run an archive with one instance, in Implicit VR."""
    with running(tmp_path_factory.mktemp("archive")) as caller:
        assert caller.store(image(FRAMES, syntax=ImplicitVRLittleEndian)).status_code == 202
        yield caller


def form(answer):
    """Give the form of an answer: its status or media type, and the transfer syntaxes in it."""
    if answer.status_code != 200:
        return answer.status_code
    content_type = answer.headers["Content-Type"]
    if not content_type.startswith(RELATED):
        return content_type
    return [headers["content-type"] for headers, _ in parts(answer)]


DICOM = f"application/dicom; transfer-syntax={EXPLICIT}"
AS_STORED = f"application/dicom; transfer-syntax={ImplicitVRLittleEndian}"


@pytest.mark.parametrize(
    ("path", "accept", "expected"),
    [
        (STUDY, f"{RELATED}; type=application/dicom", [DICOM]),
        (STUDY, f'{RELATED}; type="application/dicom"; transfer-syntax="{EXPLICIT}"', [DICOM]),
        (STUDY, f'{RELATED}; transfer-syntax=*; type="application/dicom"', [AS_STORED]),
        (STUDY, f'{RELATED}; type="application/dicom"; transfer-syntax={JPEG2000Lossless}', 406),
        (STUDY, f'{RELATED}; type="application/dicom"; transfer-syntax={RLELossless}', 406),
        (STUDY, f'{RELATED}; type="application/octet-stream"', 406),
        (STUDY, "application/dicom", 406),
        (STUDY, "*/*", 406),
        (STUDY, f"{RELATED}; type=x/y, */*", [AS_STORED]),
        (STUDY, f"*/*, {RELATED}; type=x/y", 406),
        (SERIES, f"{RELATED}; type=application/dicom;transfer-syntax=*", [AS_STORED]),
        (SERIES, "application/dicom; transfer-syntax=*", 406),
        (INSTANCE, "application/dicom", DICOM),
        (INSTANCE, "application/dicom; transfer-syntax=*", AS_STORED),
        (INSTANCE, f"application/dicom; transfer-syntax={JPEG2000Lossless}", 406),
        (INSTANCE, f"{RELATED}; type=application/dicom", [DICOM]),
        (INSTANCE, "*/*", [AS_STORED]),
        (INSTANCE, "application/dicom; q=0.5, application/dicom; transfer-syntax=*; q=0.4", DICOM),
        (INSTANCE, "application/dicom, application/dicom; transfer-syntax=*", AS_STORED),
        (INSTANCE, "application/dicom; q=x, application/dicom; transfer-syntax=*; q=0.1", AS_STORED),
        (INSTANCE, "application/dicom+json", 406),
        (INSTANCE, "image/jpeg", 406),
        (FRAME, "application/octet-stream", f"application/octet-stream; transfer-syntax={EXPLICIT}"),
        (
            FRAME,
            "application/octet-stream; transfer-syntax=*",
            f"application/octet-stream; transfer-syntax={ImplicitVRLittleEndian}",
        ),
        (FRAME, "*/*", [f"application/octet-stream; transfer-syntax={ImplicitVRLittleEndian}"]),
        (
            FRAME,
            f'{RELATED}; type="application/octet-stream"',
            [f"application/octet-stream; transfer-syntax={EXPLICIT}"],
        ),
        (FRAME, f'{RELATED}; type="application/octet-stream"; transfer-syntax={JPEG2000Lossless}', 406),
        (FRAME, f'{RELATED}; type="image/jp2"', 406),
        (FRAME, "image/jp2", 406),
        (INSTANCE + "/metadata", "application/dicom", 406),
        (INSTANCE + "/metadata", "application/json", "application/dicom+json"),
        ("/studies", "application/*", "application/dicom+json"),
        ("/studies", "text/plain, */*;q=0.1", "application/dicom+json"),
        ("/studies", 'application/dicom+xml; x=","', 406),
    ],
)
def test_the_form_of_an_answer_follows_the_accept_table(archive, path, accept, expected):
    answer = archive.get(path, {"Accept": accept})
    assert form(answer) == expected
    if expected == 406 and "json" not in accept:
        assert "dicom" not in answer.headers.get("Content-Type", "")


def test_several_accept_headers_count_like_one(archive):
    client = HTTPConnection(archive.archive.url.split("/")[2], timeout=10)
    client.putrequest("GET", "/v2" + INSTANCE)
    client.putheader("Accept", "text/plain")
    client.putheader("Accept", "application/dicom; transfer-syntax=*")
    client.endheaders()
    with closing(client), client.getresponse() as answer:
        assert answer.headers["Content-Type"] == AS_STORED


def test_jpeg_2000_frames_come_as_image_jp2(tmp_path):
    path = get_testdata_file("examples_jpeg2k.dcm")
    dataset = dcmread(path)
    url = f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
    with running(tmp_path) as archive, open(path, "rb") as file:  # noqa: PTH123
        assert archive.store(file.read()).status_code in {200, 202}
        answer = archive.get(url + "/frames/1", {"Accept": f'{RELATED}; type="image/jp2"'})
        [(headers, body)] = parts(answer)
        assert headers == {"content-type": f"image/jp2; transfer-syntax={JPEG2000Lossless}"}
        assert body[:4] == b"\xff\x4f\xff\x51"
        whole = archive.get(url, {"Accept": f"application/dicom; transfer-syntax={JPEG2000Lossless}"})
        assert dcmread(io.BytesIO(whole.content)).PixelData == dataset.PixelData
        decoded = archive.get(url, {"Accept": "application/dicom"})
        assert form(decoded) == DICOM
        assert np.array_equal(dcmread(io.BytesIO(decoded.content)).pixel_array, dataset.pixel_array)


def test_pixels_outlive_the_change_of_the_byte_order(tmp_path):
    with running(tmp_path) as archive:
        archive.store(instance(Rows=513, syntax=ExplicitVRBigEndian))
        dataset = dcmread(io.BytesIO(archive.get(INSTANCE, {"Accept": "application/dicom"}).content))
        assert (dataset.Rows, dataset.file_meta.TransferSyntaxUID) == (513, EXPLICIT)


def test_above_100_mb_nothing_is_transcoded(tmp_path):
    with running(tmp_path) as archive:
        zeros = bytes(101 * 1024 * 1024)
        assert archive.store(image([zeros], syntax=ImplicitVRLittleEndian)).status_code == 202
        assert archive.get(INSTANCE, {"Accept": "application/dicom"}).status_code == 406
        answer = archive.get(INSTANCE, {"Accept": "application/dicom; transfer-syntax=*"})
        assert len(answer.content) == int(answer.headers["Content-Length"]) > len(zeros)


def test_a_syntax_without_a_decoder_is_406(tmp_path):
    file = instance().replace(EXPLICIT.encode() + b"\0", b"1.2.840.10008.1.2.9\0"[:20])
    with running(tmp_path) as archive:
        assert archive.store(file).status_code == 200
        assert archive.get(INSTANCE, {"Accept": "application/dicom"}).status_code == 406
        assert parts(archive.get(INSTANCE, ORIGINAL))[0][1] == file


def test_a_one_bit_frame_begins_at_any_bit_and_ybr_422_takes_two_thirds(tmp_path):
    accept = {"Accept": "application/octet-stream; transfer-syntax=*"}
    with running(tmp_path) as archive:
        one_bit = image(
            [b"\xff\xfe\x01\x00"], sop="1.2.5", BitsAllocated=1, BitsStored=1, HighBit=0, NumberOfFrames=2
        )
        assert archive.store(one_bit).status_code == 200
        frame = archive.get(SERIES + "/instances/1.2.5/frames/2", accept).content
        assert int.from_bytes(frame, "little") & 0x1FF == 0x01FEFF >> 9 & 0x1FF
        subsampled = image(
            [bytes(range(16))],
            sop="1.2.6",
            Rows=2,
            Columns=2,
            SamplesPerPixel=3,
            PhotometricInterpretation="YBR_FULL_422",
            NumberOfFrames=2,
        )
        assert archive.store(subsampled).status_code == 200
        assert archive.get(SERIES + "/instances/1.2.6/frames/2", accept).content == bytes(range(8, 16))


def test_the_managed_service_refuses_implicit_vr_and_replaces_on_put(tmp_path):
    headers = JSON | {"Content-Type": "application/dicom"}
    with running(tmp_path) as archive:
        url = archive.archive.url + "/studies"
        assert archive.http.put(url, content=instance(), headers=headers).status_code == 405
        archive.archive.switches.set(Faults(managed=True))
        assert reasons(archive.store(instance(sop="1.2.9", syntax=ImplicitVRLittleEndian))) == [43264]
        changed = instance(PatientID="ID2")
        for file in (instance(), changed):
            assert archive.http.put(url, content=file, headers=headers).status_code == 200
        [(_, body)] = parts(archive.get(STUDY, ORIGINAL))
        assert body == changed
        assert len(list(tmp_path.glob("instances/*/*.dcm"))) == 1
        assert archive.get("/studies?PatientID=ID2").status_code == 200
        assert archive.get("/studies?PatientID=ID1").status_code == 204


def test_what_is_too_large_for_the_managed_service_is_413(tmp_path):
    with running(tmp_path) as archive:
        archive.archive.switches.set(Faults(managed=True))
        client = HTTPConnection(archive.archive.url.split("/")[2], timeout=10)
        client.putrequest("POST", "/v2/studies")
        for name, value in (
            JSON | {"Content-Type": "application/dicom", "Content-Length": f"{(4 << 30) + 1}"}
        ).items():
            client.putheader(name, value)
        client.endheaders()
        with closing(client), client.getresponse() as answer:
            assert answer.status == 413

"""Encapsulated pixel data decoded: every codec, against the originals, DCMTK and pydicom."""

import base64
import tracemalloc

import numpy as np
import pytest
from codestreams import HTJ2K_COLOUR, HTJ2K_GREY, HTJ2K_LOSSY, lossless_jpeg, rle
from conversion import BIG, EXPLICIT, IMPLICIT, converted, data_set_converted, differences, readable_files, written
from data import encoded, save
from dcmtk import run
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    CTImageStorage,
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

from gateway.errors import TranscodingError
from gateway.translate.generate import colour, ct_series, multi_frame
from gateway.translate.pixels import DECODABLE

ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
LOSSLESS = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)
# What decoding may change: Photometric Interpretation, Planar Configuration, Pixel Data
PIXELS = ("/(0028,0004)", "/(0028,0006)", "/(7FE0,0010)")
# Derivation Description, which DCMTK's encoders write
DERIVED = ("/(0008,2111)",)


@pytest.fixture(scope="module")
def files():
    return readable_files()


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's doubts about some of the files
def test_compressed_files_keep_every_other_element_and_decode_as_pydicom_does(files):
    chosen = [(path, syntax) for path, syntax in files if syntax in DECODABLE]
    assert len(chosen) > 40
    for path, _ in chosen:
        original, result = dcmread(path), dcmread(converted(path, EXPLICIT))
        if "PixelData" in original:
            assert np.array_equal(pixel_array(result), pixel_array(path)), path.name
        assert differences(path, converted(path, EXPLICIT), but=PIXELS) == set(), path.name


@pytest.fixture
def noise(tmp_path):
    """Write 64 x 64 random pixels: bits allocated and stored, signed or not."""

    def noise(allocated, stored, *, signed):
        (generated,) = ct_series(tmp_path, "noise", count=1, rows=64, columns=64)
        dataset = dcmread(generated.path)
        low, high = (-(1 << stored - 1), 1 << stored - 1) if signed else (0, 1 << stored)
        pixels = np.random.default_rng(stored).integers(low, high, (64, 64))
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
        dataset.PixelRepresentation = int(signed)
        dataset.PixelData = pixels.astype(f"{'i' if signed else 'u'}{allocated // 8}").tobytes()
        dataset["PixelData"].VR = "OW" if allocated > 8 else "OB"
        path = tmp_path / "noise.dcm"
        save(dataset, path)
        return path

    return noise


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 8), (16, 8), (16, 10), (16, 12), (16, 16)])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_pixels_come_back_bit_by_bit(noise, tmp_path, syntax, allocated, stored, signed):
    original = noise(allocated, stored, signed=signed)
    compressed = encoded(original, tmp_path / "compressed.dcm", syntax)
    assert dcmread(compressed).file_meta.TransferSyntaxUID == syntax
    for target in (EXPLICIT, IMPLICIT, BIG):
        assert differences(original, converted(compressed, target), but=DERIVED) == set()


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless])
def test_lossy_pixels_come_out_as_dcmtk_decodes_them(tmp_path, syntax):
    (generated,) = ct_series(tmp_path, "lossy", count=1, rows=64, columns=64)
    compressed = encoded(generated.path, tmp_path / "compressed.dcm", syntax)
    tool = "dcmdjpls" if syntax == JPEGLSNearLossless else "dcmdjpeg"
    assert run(tool, compressed, tmp_path / "decoded.dcm").returncode == 0
    ours, theirs = dcmread(converted(compressed, EXPLICIT)), dcmread(tmp_path / "decoded.dcm")
    assert abs(ours.pixel_array.astype(int) - theirs.pixel_array).max() <= 1
    assert ours.LossyImageCompression == "01"
    assert ours.LossyImageCompressionRatio == dcmread(compressed).LossyImageCompressionRatio
    assert ours.SOPInstanceUID == dcmread(compressed).SOPInstanceUID


@pytest.fixture
def colours(tmp_path):
    """Write a native colour image: its Photometric Interpretation."""

    def colours(photometric):
        dataset = dcmread(colour(tmp_path, "colours").path)
        dataset.decompress(generate_instance_uid=False)
        dataset.PhotometricInterpretation = photometric
        return save(dataset, tmp_path / "colours.dcm").path

    return colours


def test_lossy_jpeg_in_ybr_becomes_rgb(tmp_path, colours):
    source = colours("RGB")
    compressed = encoded(source, tmp_path / "compressed.dcm", JPEGBaseline8Bit)
    assert dcmread(compressed).PhotometricInterpretation.startswith("YBR")
    result = dcmread(converted(compressed, EXPLICIT))
    assert (result.PhotometricInterpretation, result.PlanarConfiguration) == ("RGB", 0)
    assert abs(result.pixel_array.astype(int) - dcmread(source).pixel_array).mean() < 4


@pytest.mark.parametrize("syntax", [JPEG2000, JPEG2000Lossless])
def test_the_colours_of_jpeg_2000_come_out_as_rgb(tmp_path, colours, syntax):
    source = colours("RGB")
    compressed = encoded(source, tmp_path / "compressed.dcm", syntax)
    result = dcmread(converted(compressed, EXPLICIT))
    assert (result.PhotometricInterpretation, result.PlanarConfiguration) == ("RGB", 0)
    difference = abs(result.pixel_array.astype(int) - dcmread(source).pixel_array).max()
    assert difference == 0 if syntax == JPEG2000Lossless else difference < 100


def test_colours_without_loss_stay_in_their_colour_space(tmp_path, colours):
    source = colours("YBR_FULL")
    compressed = encoded(source, tmp_path / "compressed.dcm", RLELossless)
    assert differences(source, converted(compressed, EXPLICIT), but=DERIVED) == set()


def described(frames, rows, columns, *, bits=8, samples=1):
    """Give a data set that describes pixels but has none."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = "MONOCHROME2" if samples == 1 else "RGB"
    if samples > 1:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    return dataset


def pixels(shape, *, bits=8):
    return np.random.default_rng(1).integers(0, 1 << bits, shape).astype(f"u{bits // 8}")


def with_pixels(dataset, value):
    dataset.PixelData = value
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


@pytest.mark.parametrize(
    ("syntax", "codestream"),
    [(HTJ2KLossless, HTJ2K_GREY), (HTJ2KLosslessRPCL, HTJ2K_GREY), (HTJ2K, HTJ2K_LOSSY), (HTJ2K, HTJ2K_GREY)],
)
def test_high_throughput_jpeg_2000_is_decoded(tmp_path, syntax, codestream):
    y, x = np.mgrid[0:12, 0:16]
    dataset = described(1, 12, 16, bits=16)
    dataset.BitsStored, dataset.HighBit = 12, 11
    with_pixels(dataset, encapsulate([base64.b64decode(codestream)]))
    result = dcmread(converted(save(dataset, tmp_path / "htj2k.dcm", syntax).path, EXPLICIT))
    difference = abs(result.pixel_array.astype(int) - (x * x * 13 + y * 97) % 4096).max()
    assert difference <= (3 if codestream == HTJ2K_LOSSY else 0)
    assert (result.BitsAllocated, result.BitsStored) == (16, 12)


def test_high_throughput_jpeg_2000_in_colour_is_decoded(tmp_path):
    y, x = np.mgrid[0:12, 0:16]
    dataset = described(1, 12, 16, samples=3)
    dataset.PhotometricInterpretation = "YBR_RCT"
    with_pixels(dataset, encapsulate([base64.b64decode(HTJ2K_COLOUR)]))
    result = dcmread(converted(save(dataset, tmp_path / "htj2k.dcm", HTJ2KLossless).path, EXPLICIT))
    assert np.array_equal(result.pixel_array, np.stack((16 * x, 20 * y, x * y), axis=-1) % 256)
    assert result.PhotometricInterpretation == "RGB"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 8), (16, 8), (16, 12), (16, 16)])
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_samples_coded_in_no_more_bits_than_they_have_keep_their_sign(
    noise, tmp_path, syntax, allocated, stored, signed
):
    original = noise(allocated, stored, signed=signed)
    dataset = dcmread(original)
    codestream = lossless_jpeg(dataset.pixel_array.astype(int) % (1 << stored), stored)
    with_pixels(dataset, encapsulate([codestream]))
    compressed = save(dataset, tmp_path / "compressed.dcm", syntax).path
    assert differences(original, converted(compressed, EXPLICIT)) == set()


@pytest.mark.parametrize("bits", [8, 16])
def test_encapsulated_uncompressed_frames_are_unwrapped(tmp_path, bits):
    frames = pixels((3, 3, 5), bits=bits)
    dataset = with_pixels(described(3, 3, 5, bits=bits), encapsulate([frame.tobytes() for frame in frames]))
    source = save(dataset, tmp_path / "wrapped.dcm", ENCAPSULATED_UNCOMPRESSED).path
    for target in (EXPLICIT, BIG):
        assert np.array_equal(dcmread(converted(source, target)).pixel_array, frames)


def test_pixels_that_were_subsampled_are_called_so_only_while_they_are(tmp_path):
    dataset = described(1, 4, 6, samples=3)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    whole, halved = pixels((4, 6, 3)), pixels(4 * 6 * 2)
    decoded = save(with_pixels(dataset, encapsulate([rle(whole)])), tmp_path / "rle.dcm", RLELossless).path
    result = dcmread(converted(decoded, EXPLICIT))
    assert (result.PhotometricInterpretation, result.PixelData) == ("YBR_FULL", whole.tobytes())
    with_pixels(dataset, encapsulate([halved.tobytes() + b"padding!"]))
    unwrapped = save(dataset, tmp_path / "wrapped.dcm", ENCAPSULATED_UNCOMPRESSED).path
    result = dcmread(converted(unwrapped, EXPLICIT))
    assert (result.PhotometricInterpretation, result.PixelData) == ("YBR_FULL_422", halved.tobytes())


def test_a_frame_in_several_fragments_without_offset_table_is_one_frame(tmp_path):
    multi = dcmread(multi_frame(tmp_path, "fragments", frames=3, rows=64, columns=64).path)
    multi.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    frames = list(generate_frames(multi.PixelData, number_of_frames=3))
    original = multi.pixel_array
    with_pixels(multi, encapsulate(frames, fragments_per_frame=3, has_bot=False))
    source = save(multi, tmp_path / "fragments.dcm", JPEG2000Lossless).path
    assert np.array_equal(dcmread(converted(source, EXPLICIT)).pixel_array, original)


def test_the_offset_tables_of_compressed_frames_are_left_out(tmp_path):
    frames = pixels((3, 4, 6))
    dataset = described(3, 4, 6)
    value, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
        [rle(frame) for frame in frames]
    )
    source = save(with_pixels(dataset, value), tmp_path / "extended.dcm", RLELossless).path
    result = dcmread(converted(source, EXPLICIT))
    assert "ExtendedOffsetTable" not in result
    assert "ExtendedOffsetTableLengths" not in result
    assert np.array_equal(result.pixel_array, frames)


def test_a_compressed_icon_is_decoded_by_its_own_description(tmp_path):
    frames, icon = pixels((2, 4, 6), bits=16), pixels((3, 5))
    dataset = with_pixels(described(2, 4, 6, bits=16), encapsulate([rle(frame) for frame in frames]))
    small = with_pixels(described(1, 3, 5), encapsulate([rle(icon)]))
    dataset.IconImageSequence = [small]
    source = save(dataset, tmp_path / "icon.dcm", RLELossless).path
    for target in (EXPLICIT, IMPLICIT):
        result = dcmread(converted(source, target))
        assert np.array_equal(result.pixel_array, frames)
        assert result.IconImageSequence[0].PixelData == icon.tobytes() + b"\0"


def test_a_planar_configuration_that_was_missing_is_supplied(tmp_path):
    frame = pixels((4, 6, 3))
    dataset = with_pixels(described(1, 4, 6, samples=3), encapsulate([rle(frame)]))
    del dataset.PlanarConfiguration
    source = save(dataset, tmp_path / "planar.dcm", RLELossless).path
    for target in (EXPLICIT, BIG):
        result = dcmread(converted(source, target))
        assert result.PlanarConfiguration == 0
        assert np.array_equal(result.pixel_array, frame)


def test_every_syntax_that_is_called_decodable_has_its_decoder_installed():
    for syntax in DECODABLE - {ENCAPSULATED_UNCOMPRESSED}:
        assert get_decoder(UID(syntax)).is_available, syntax


def test_compressed_frames_are_decoded_one_at_a_time(tmp_path):
    source = multi_frame(tmp_path, "frames", frames=40, rows=256, columns=256).path
    compressed = encoded(source, tmp_path / "compressed.dcm", RLELossless)
    with (tmp_path / "result.dcm").open("w+b") as result:
        tracemalloc.start()
        converted(compressed, EXPLICIT, result)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(dcmread(result).pixel_array, dcmread(source).pixel_array)
    assert peak < 10 * 256 * 256 * 2


def broken_pixels(**changes):
    dataset = with_pixels(described(2, 4, 6), encapsulate([rle(frame) for frame in pixels((2, 4, 6))]))
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Rows": None}, "no rows"),
        ({"Rows": None, "PhotometricInterpretation": None}, "no rows, photometric interpretation"),
        ({"NumberOfFrames": 3}, "missing"),
        ({"NumberOfFrames": 0}, "not a positive number"),
        ({"BitsAllocated": 1, "BitsStored": 1}, "1 bits"),
        ({"Rows": 65_535, "Columns": 65_535}, "too long"),
        ({"Columns": 7}, "not decoded"),
        ({"SamplesPerPixel": 0}, "not decoded"),
        ({"PixelData": encapsulate([b"nonsense", b"nonsense"])}, "not decoded"),
    ],
)
def test_pixels_that_cannot_be_decoded_are_an_error_that_says_why(tmp_path, changes, problem):
    dataset = broken_pixels(**changes)
    dataset.PatientName = "Secret^Person"
    source = save(dataset, tmp_path / "broken.dcm", RLELossless).path
    with pytest.raises(TranscodingError, match=problem) as caught:
        converted(source, EXPLICIT)
    assert "Secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_encapsulated_pixels_without_an_end_are_an_error(tmp_path):
    source = save(broken_pixels(), tmp_path / "whole.dcm", RLELossless).path
    source.write_bytes(source.read_bytes().removesuffix(b"\xfe\xff\xdd\xe0\0\0\0\0"))
    with pytest.raises(TranscodingError, match="no end"):
        converted(source, EXPLICIT)


def test_pixels_encapsulated_in_a_native_syntax_are_an_error():
    data = written(broken_pixels(), implicit=False)
    with pytest.raises(TranscodingError, match="encapsulated in a native"):
        data_set_converted(data, EXPLICIT, IMPLICIT)

"""Conversions between native transfer syntaxes: of real files, and of what is awkward in a data set."""

import io
import tracemalloc

import pytest
from conversion import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    converted,
    data_set_converted,
    differences,
    elements,
    readable_files,
    written,
)
from data import private_class
from dcmtk import run
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from gateway.errors import TranscodingError
from gateway.translate.generate import colour, multi_frame
from gateway.translate.part10 import file_header
from gateway.translate.transcode import NATIVE, accepts


@pytest.fixture(scope="module")
def files():
    return readable_files()


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_native_files_keep_every_value_in_every_native_syntax(files, target):
    chosen = [path for path, syntax in files if syntax in NATIVE and syntax != target]
    assert len(chosen) > 20
    assert {path.name: found for path in chosen if (found := differences(path, converted(path, target)))} == {}


@pytest.mark.parametrize("target", [IMPLICIT, BIG])
def test_dcmtk_reads_the_same_values_from_the_result(files, tmp_path, target):
    chosen = [path for path, syntax in files if syntax in (EXPLICIT, DEFLATED)][::6]
    for path in [*chosen, private_class(tmp_path).path]:
        (tmp_path / "ours.dcm").write_bytes(converted(path, target).getvalue())
        for source, result in ((path, "original.dcm"), (tmp_path / "ours.dcm", "back.dcm")):
            assert run("dcmconv", "+te", source, tmp_path / result).returncode == 0
        assert differences(tmp_path / "original.dcm", tmp_path / "back.dcm") == set(), path.name


def explicit(dataset):
    """Encode a data set without VRs, convert it and read what it became."""
    data = data_set_converted(written(dataset), IMPLICIT, EXPLICIT)
    return dcmread(io.BytesIO(file_header("1.2", "1.2.3", EXPLICIT) + data))


@pytest.mark.parametrize(("representation", "vr"), [(None, "US"), (0, "US"), (1, "SS")])
def test_pixel_values_are_signed_where_pixels_are_however_far_away_that_is_said(representation, vr):
    dataset, item = Dataset(), Dataset()
    dataset.add_new("ZeroVelocityPixelValue", "US", 7)  # group 0018, before Pixel Representation
    if representation is not None:
        dataset.PixelRepresentation = representation
    item.add_new("RealWorldValueFirstValueMapped", "US", 1)
    dataset.RealWorldValueMappingSequence = [item]
    dataset.add_new("SmallestImagePixelValue", "US", 7)
    result = explicit(dataset)
    mapped = result.RealWorldValueMappingSequence[0]["RealWorldValueFirstValueMapped"]
    assert {result["ZeroVelocityPixelValue"].VR, result["SmallestImagePixelValue"].VR, mapped.VR} == {vr}


def test_an_item_that_describes_its_own_pixels_decides_for_itself():
    dataset, icon = Dataset(), Dataset()
    dataset.PixelRepresentation = 1
    icon.PixelRepresentation = 0
    icon.add_new("SmallestImagePixelValue", "US", 7)
    dataset.IconImageSequence = [icon]
    dataset.add_new("LargestImagePixelValue", "US", 7)
    result = explicit(dataset)
    assert result.IconImageSequence[0]["SmallestImagePixelValue"].VR == "US"
    assert result["LargestImagePixelValue"].VR == "SS"


@pytest.mark.parametrize(("bits", "vr"), [(8, "OB"), (16, "OW")])
def test_samples_are_bytes_or_words_by_their_bits(bits, vr):
    channel, waveform, dataset = Dataset(), Dataset(), Dataset()
    channel.add_new("ChannelMinimumValue", "OW", b"\1\2")
    waveform.ChannelDefinitionSequence = [channel]  # stands before Waveform Bits Allocated
    waveform.WaveformBitsAllocated = bits
    waveform.add_new("WaveformData", "OW", b"\1\2\3\4")
    dataset.BitsAllocated = bits
    dataset.WaveformSequence = [waveform]
    dataset.add_new("PixelData", "OW", b"\1\2\3\4")
    result = explicit(dataset)
    item = result.WaveformSequence[0]
    least = item.ChannelDefinitionSequence[0]["ChannelMinimumValue"]
    assert {result["PixelData"].VR, item["WaveformData"].VR, least.VR} == {vr}


@pytest.mark.parametrize(("entries", "vr"), [(1, "US"), (2, "OW")])
def test_lookup_table_data_are_words_unless_there_is_one(entries, vr):
    table, dataset = Dataset(), Dataset()
    table.add_new("LUTDescriptor", "US", [entries, 0, 16])
    table.add_new("LUTData", "OW", b"\1\2" * entries)
    dataset.ModalityLUTSequence = [table]
    dataset.add_new(0x60003000, "OW", b"\1\2")
    result = explicit(dataset)
    table = result.ModalityLUTSequence[0]
    vrs = [one.VR for one in (table["LUTData"], result[0x60003000])]
    assert vrs == [vr, "OW"]


def test_private_elements_without_vr_are_un_and_their_creators_lo():
    dataset = Dataset()
    block = dataset.private_block(0x0099, "GATEWAY TEST", create=True)
    block.add_new(1, "LO", "text")
    block.add_new(2, "SQ", [Dataset()])
    block.private_creator  # noqa: B018
    dataset[0x00991002].is_undefined_length = True
    data = data_set_converted(written(dataset), IMPLICIT, EXPLICIT)
    assert data.startswith(b"\x99\x00\x10\x00LO")
    assert b"\x99\x00\x01\x10UN\0\0\x04\0\0\0text" in data
    assert b"\x99\x00\x02\x10SQ\0\0\xff\xff\xff\xff" in data


def test_a_value_too_long_for_its_vr_is_called_un():
    value = (70_000).to_bytes(4, "little") + b"x" * 70_000
    data = data_set_converted(b"\x08\x00\x30\x10" + value, IMPLICIT, EXPLICIT)
    assert data == b"\x08\x00\x30\x10UN\0\0" + value


def test_a_sequence_in_un_keeps_its_implicit_vrs_but_in_big_endian():
    item = b"\x10\x00\x20\x00\x04\0\0\0" + b"ID1 "
    inner = b"\xfe\xff\x00\xe0\x0c\0\0\0" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    undefined = b"\xff\xff\xff\xff"
    in_un = b"\x99\x00\x01\x10UN\0\0" + undefined + inner
    kept = inner.replace(b"\x00\xe0\x0c\0\0\0" + item, b"\x00\xe0" + undefined + item + b"\xfe\xff\x0d\xe0\0\0\0\0")
    assert data_set_converted(in_un, EXPLICIT, IMPLICIT) == b"\x99\x00\x01\x10" + undefined + kept
    to_big = b"\x00\x99\x10\x01SQ\0\0" + undefined + b"\xff\xfe\xe0\x00" + undefined
    assert data_set_converted(in_un, EXPLICIT, BIG).startswith(to_big + b"\x00\x10\x00\x20LO\x00\x04ID1 ")


def test_group_lengths_are_left_out():
    group_length = b"\x08\x00\x00\x00UL\x04\x00\x0a\0\0\0"
    rest = b"\x08\x00\x60\x00CS\x02\x00CT"
    assert data_set_converted(group_length + rest, EXPLICIT, IMPLICIT) == b"\x08\x00\x60\x00\x02\0\0\0CT"


def test_a_data_set_that_stays_in_its_syntax_is_copied_byte_for_byte(tmp_path):
    group_length = b"\x08\x00\x00\x00UL\x04\x00\x0a\0\0\0"
    assert data_set_converted(group_length, EXPLICIT, EXPLICIT) == group_length
    compressed = colour(tmp_path, "copy").path
    assert converted(compressed, RLELossless).getvalue()[-1000:] == compressed.read_bytes()[-1000:]
    deflated = data_set_converted(group_length, EXPLICIT, DEFLATED)
    assert data_set_converted(deflated, DEFLATED, EXPLICIT) == group_length


def test_native_pixels_of_any_size_are_converted_in_little_memory(tmp_path):
    source = multi_frame(tmp_path, "large", frames=64).path
    for target in (IMPLICIT, BIG):
        with (tmp_path / "result.dcm").open("w+b") as result:
            tracemalloc.start()
            converted(source, target, result)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert (tmp_path / "result.dcm").stat().st_size > 64 * 512 * 1024
        assert peak < 1_000_000


@pytest.mark.parametrize(
    ("source", "targets", "chosen"),
    [
        (JPEG2000, [EXPLICIT, JPEG2000], JPEG2000),
        (IMPLICIT, [EXPLICIT, IMPLICIT], IMPLICIT),
        (JPEG2000, [BIG, IMPLICIT, EXPLICIT], EXPLICIT),
        (JPEG2000, [BIG, IMPLICIT], IMPLICIT),
        (EXPLICIT, [DEFLATED, BIG], BIG),
        (EXPLICIT, [DEFLATED, JPEG2000Lossless], DEFLATED),
        (EXPLICIT, [JPEGBaseline8Bit, RLELossless], None),
        (JPEG2000, [JPEG2000Lossless], None),
        (MPEG4HP41, [EXPLICIT, IMPLICIT], None),
        (MPEG4HP41, [EXPLICIT, MPEG4HP41], MPEG4HP41),
        ("1.2.3.4", [EXPLICIT], None),
        (EXPLICIT, [], None),
    ],
)
def test_the_stored_syntax_is_sent_if_accepted_else_a_native_one_never_a_compressed(source, targets, chosen):
    assert accepts(str(source), [str(target) for target in targets]) == chosen


@pytest.mark.parametrize(
    ("source", "target"),
    [(MPEG4HP41, EXPLICIT), (EXPLICIT, JPEGBaseline8Bit), (JPEG2000, JPEG2000Lossless), ("1.2.3.4", EXPLICIT)],
)
def test_a_conversion_that_does_not_exist_is_refused_by_name(source, target):
    with pytest.raises(TranscodingError) as caught:
        data_set_converted(b"", str(source), str(target))
    assert UID(source).name in str(caught.value)
    assert UID(target).name in str(caught.value)


def nested(depth):
    dataset = Dataset()
    dataset.Modality = "CT"
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedSeriesSequence = [dataset]
        dataset = outer
    return dataset


def test_sequences_nest_sixty_four_deep_and_no_deeper():
    assert differences_of(nested(64)) == set()
    with pytest.raises(TranscodingError, match="nested more than 64 deep"):
        differences_of(nested(65))


def differences_of(dataset):
    result = explicit(dataset)
    before, after = elements(dataset), elements(result)
    return {place for place in before.keys() | after.keys() if str(before.get(place)) != str(after.get(place))}


@pytest.mark.parametrize(
    ("data", "source", "problem"),
    [
        (b"\x08\x00\x60\x00CS\x02", EXPLICIT, "cut"),
        (b"\x08\x00\x60\x00CS\x04\x00CT", EXPLICIT, "cut"),
        (b"\x08\x00\x60\x00\x04\0\0\0CT", IMPLICIT, "cut"),
        (b"\x08\x00\x60\x00\x02\0\0\0CT", EXPLICIT, "no VR"),
        (b"\xfe\xff\x00\xe0\0\0\0\0", EXPLICIT, "outside a sequence"),
        (b"\xfe\xff\x0d\xe0\0\0\0\0", EXPLICIT, "delimiter"),
        (b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff", EXPLICIT, "inside a sequence"),
        (b"\x08\x00\x15\x11SQ\0\0\x0a\0\0\0\x08\x00\x60\x00CS\x02\x00CT", EXPLICIT, "between items"),
        (
            b"\x08\x00\x15\x11SQ\0\0\x12\0\0\0\xfe\xff\x00\xe0\x08\0\0\0\x08\x00\x60\x00CS\x02\x00CT",
            EXPLICIT,
            "longer than the item",
        ),
        (b"nothing that was deflated", DEFLATED, "not deflated|cut"),
        (b"", DEFLATED, "cut"),
    ],
)
def test_what_is_not_a_data_set_is_an_error_that_says_why(data, source, problem):
    with pytest.raises(TranscodingError, match=problem):
        data_set_converted(data, source, BIG)

"""Convert files and compare what they hold, value by value, by pydicom's reading."""

import io

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from samples import part10_files

from gateway.translate.part10 import file_header, read_file_meta
from gateway.translate.transcode import convert

IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    str(uid)
    for uid in (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    )
)
WORD = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
# Packaged files that are cut or have wrong lengths, are not in the transfer syntax that they name, or are refused
# by their decoder.
BROKEN = {
    "DICOMDIR-nooffset",
    "JPEG-lossy.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "MR_truncated.dcm",
    "SC_rgb_jpeg.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm",
    "rtplan_truncated.dcm",
}
# Specific Character Set, Pixel Representation: pydicom decodes them while it reads, or not
READ_AT_ONCE = (0x00080005, 0x00280103)


def converted(path, syntax, target=None):
    """Convert a Part 10 file and give the result as another, in memory."""
    with path.open("rb") as source:
        meta = read_file_meta(source)
        source.seek(meta.offset)
        result = target or io.BytesIO()
        result.write(file_header("1.2.3", "1.2.3.4", syntax))
        convert(source, meta.transfer_syntax, result, syntax)
    result.seek(0)
    return result


def data_set_converted(data, source, target):
    result = io.BytesIO()
    convert(io.BytesIO(data), source, result, target)
    return result.getvalue()


def little_endian(value, vr, dataset):
    """Give a raw value in little endian words."""
    if dataset.original_encoding != (False, False) or vr not in WORD:
        return value
    return np.frombuffer(value, f"u{WORD[vr]}").byteswap().tobytes()


def elements(dataset, path=""):
    """Give every element's value as little endian bytes, or a sequence's number of items, by its path."""
    found = {}
    for tag in sorted(dataset.keys()):
        raw = dataset.get_item(tag)
        place = f"{path}/{tag}"
        if tag.element == 0:
            continue
        if (raw.VR or implied_vr(tag)) == "SQ":
            items = dataset[tag].value
            found[place] = len(items)
            for number, item in enumerate(items):
                found |= elements(item, f"{place}[{number}]")
        elif isinstance(raw, RawDataElement) and tag not in READ_AT_ONCE:
            found[place] = little_endian(raw.value or b"", raw.VR, dataset)
        else:
            found[place] = str(dataset[tag].value or "").encode()
    return found


def implied_vr(tag):
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"


def differences(path, result, *, but=()):
    """Name the elements that are not the same in a Part 10 file and in the result of its conversion."""
    before, after = elements(dcmread(path)), elements(dcmread(result))
    assert len(before) > 0
    return {place for place in before.keys() | after.keys() if before.get(place) != after.get(place)} - set(but)


def readable_files():
    """Give the packaged files that can be read, with their transfer syntaxes."""
    chosen = []
    for path in part10_files():
        if path.name not in BROKEN and path.stat().st_size < 1_000_000:
            syntax = dcmread(path, stop_before_pixels=True).file_meta.get("TransferSyntaxUID")
            if syntax is not None:
                chosen.append((path, str(syntax)))
    assert len(chosen) > 150
    return chosen


def written(dataset, *, implicit=True):
    """Encode a data set alone, little endian."""
    result = io.BytesIO()
    dataset.save_as(result, implicit_vr=implicit, little_endian=True)
    return result.getvalue()

"""Read from a received file what the archive has to know of it, never its pixels (PS3.10 7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from gateway.errors import DataSetError
from gateway.translate.dicom_json import from_dataset
from gateway.translate.encoding import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    Encoding,
    Inflated,
    Reader,
)
from gateway.translate.excerpt import LEVELS, copied_without_bulk, is_bulk
from gateway.translate.part10 import read_file_meta
from gateway.translate.tokens import Kind, tokens

UID_TAGS: Final = ("0020000D", "0020000E", "00080018", "00080016")
"""Study, Series and SOP Instance UID, SOP Class UID."""
_PIXELS: Final = 0x7FE00008
"""Float Pixel Data, the first of the elements that only hold pixels."""
_SMALL: Final = 8 << 20
"""Bytes of a file that may be read whole."""
_LONGEST_METADATA: Final = 64 << 20
"""Bytes that the attributes of one instance may have without their bulk values."""


@dataclass(frozen=True, slots=True)
class Read:
    """Hold what a received file says of itself; UIDs are empty where there is not exactly one."""

    transfer_syntax: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    sop_class: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Read:
    """Read a Part 10 file; raises DataSetError when it is none, and OSError."""
    with path.open("rb") as file:
        meta = read_file_meta(file)
        file.seek(meta.offset)
        try:
            dataset = _data_set(file, meta.transfer_syntax, path.stat().st_size)
            model = from_dataset(dataset, bulk=False)
        except (DataSetError, OSError):
            raise
        except Exception as error:  # what pydicom raises for damaged bytes is not documented
            raise DataSetError("the data set cannot be read") from error
    study, series, instance, sop_class = (_only(model, tag) for tag in UID_TAGS)
    return Read(meta.transfer_syntax, study, series, instance, sop_class, model)


def _data_set(file: BinaryIO, syntax: str, size: int) -> Dataset:
    """Read the data set at the file's position up to its pixels."""
    uid = UID(syntax)
    encoding = _encoding(uid)
    if uid.is_transfer_syntax and uid.is_deflated:
        file = BytesIO(_without_bulk(Reader(Inflated(file), None), encoding))
    elif size > _SMALL:
        file = BytesIO(_without_bulk(Reader(file, file), encoding))
    return read_dataset(file, not encoding.explicit, encoding.order == "<", stop_when=_at_pixels)


def _encoding(syntax: UID) -> Encoding:
    if not syntax.is_transfer_syntax:
        return EXPLICIT  # a private one: all that are known are explicit (PS3.5 10)
    if syntax.is_implicit_VR:
        return IMPLICIT
    return EXPLICIT if syntax.is_little_endian else BIG_ENDIAN


def _at_pixels(tag: BaseTag, _: str | None, __: int) -> bool:
    return int(tag) >= _PIXELS


def _without_bulk(reader: Reader, encoding: Encoding) -> bytes:
    """Copy a data set up to its pixels in its own encoding, bulk values emptied at all depths."""
    copied = bytearray()
    level = 0
    for token in tokens(reader, encoding):
        if not level and token.tag >= _PIXELS:
            break
        level += LEVELS.get(token.kind, 0)
        if token.kind is Kind.ELEMENT and token.length > _LONGEST_METADATA and not is_bulk(token):
            raise DataSetError("an attribute is too long to be kept as metadata")
        copied += copied_without_bulk(token, reader)
        if len(copied) > _LONGEST_METADATA:
            raise DataSetError("the attributes are too many to be kept as metadata")
    return bytes(copied)


def _only(model: Mapping[str, Any], tag: str) -> str:
    values = model.get(tag, {}).get("Value") or []
    return values[0].rstrip(" \0") if len(values) == 1 and isinstance(values[0], str) else ""

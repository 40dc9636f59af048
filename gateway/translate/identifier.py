"""Read and write identifiers: data sets of a few elements in a negotiated transfer syntax (PS3.4 C.4.1.1.3)."""

import zlib
from io import BytesIO

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from gateway.errors import IdentifierError
from gateway.translate import charset
from gateway.translate.attributes import Attribute
from gateway.translate.dicom_json import to_element
from gateway.translate.elements import read_element

_DEEPEST = 8  # levels of sequences in an identifier


def decode_identifier(raw: bytes, transfer_syntax: str, *, default_charset: str = "") -> Dataset:
    """Decode an identifier into text in ISO_IR 192; `default_charset` is for peers that do not declare one.

    Raises IdentifierError when it cannot be read.
    """
    syntax = UID(transfer_syntax)
    try:
        if syntax.is_deflated:
            raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, 1 << 24)
        dataset = read_dataset(BytesIO(raw), syntax.is_implicit_VR, syntax.is_little_endian)
        default = charset.defined_term(default_charset) if default_charset else None
        return _decoded(dataset, (default,) if default else (), 0)
    except IdentifierError:
        raise
    except Exception as error:  # pydicom raises a dozen unrelated types on bytes that are no data set
        raise IdentifierError("identifier", "cannot be read") from error


def _decoded(dataset: Dataset, inherited: tuple[str, ...], depth: int) -> Dataset:
    if depth > _DEEPEST:
        raise IdentifierError("identifier", "is nested too deep")
    terms = charset.terms_of(dataset, inherited)
    decoded = Dataset()
    if not depth:
        decoded.SpecificCharacterSet = charset.UTF_8
    for tag in sorted(dataset.keys()):
        if tag == 0x00080005 or tag.group <= 2 or tag.element == 0:
            continue
        try:
            attribute = read_element(dataset, tag, terms, errors="strict")
        except UnicodeError as error:
            raise IdentifierError(keyword_for_tag(tag) or str(tag), "is not in its character set") from error
        if attribute is None:
            raise IdentifierError(keyword_for_tag(tag) or str(tag), "cannot be read")
        if attribute.vr == "SQ":
            attribute = Attribute("SQ", [_decoded(item, terms, depth + 1) for item in attribute.values])
        decoded[tag] = to_element(int(tag), attribute)
    return decoded


def encode_identifier(dataset: Dataset, transfer_syntax: str) -> bytes:
    """Encode an identifier whose text is in ISO_IR 192."""
    syntax = UID(transfer_syntax)
    target = DicomBytesIO()
    target.is_implicit_VR, target.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(target, dataset, ["utf-8"])
    encoded = target.getvalue()
    if syntax.is_deflated:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        encoded = deflate.compress(encoded) + deflate.flush()
        encoded += b"\0" * (len(encoded) % 2)
    return encoded

"""The one door between the DICOM JSON model (PS3.18 F) and pydicom's data sets."""

from collections.abc import Mapping
from typing import Any, Final

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from gateway.translate import charset
from gateway.translate.attributes import BULK_VRS, Attribute, read_json, read_tag, write_json
from gateway.translate.elements import read_element

MAX_DEPTH: Final = 64
"""Sequences nested deeper than this are lost, so that no archive can exhaust the stack."""
_SPECIFIC_CHARACTER_SET: Final = 0x00080005


def to_dataset(model: Mapping[str, Any]) -> tuple[Dataset, int]:
    """Build a data set from DICOM JSON; the second value counts the malformed attributes that were lost.

    Never raises for what a model holds. The data set is in ISO_IR 192 (JSON is UTF-8) whatever the model says of
    its character set; elements with a BulkDataURI are left out and not counted.
    """
    return _to_dataset(model, 0)


def _to_dataset(model: Mapping[str, Any], depth: int) -> tuple[Dataset, int]:
    dataset = Dataset()
    if not depth:
        dataset.SpecificCharacterSet = "ISO_IR 192"
    lost = 0
    for key, element in model.items():
        tag = read_tag(key)
        if tag == _SPECIFIC_CHARACTER_SET or (isinstance(element, Mapping) and "BulkDataURI" in element):
            continue
        attribute = None if tag is None or depth > MAX_DEPTH else read_json(tag, element)
        if tag is None or attribute is None:
            lost += 1
            continue
        if attribute.vr == "SQ":
            items = [_to_dataset(item, depth + 1) for item in attribute.values]
            lost += sum(lost_inside for _, lost_inside in items)
            attribute = Attribute("SQ", [item for item, _ in items])
        dataset[tag] = to_element(tag, attribute)
    return dataset, lost


def to_element(tag: int, attribute: Attribute) -> DataElement:
    """Build pydicom's element; the items of a sequence must be data sets already.

    Texts that are no numbers, as keys of VR IS and DS may be, are held as they are.
    """
    vr, values = attribute
    value: Any = values
    if vr != "SQ":
        value = None if not values else values[0] if len(values) == 1 else values
    try:
        return DataElement(BaseTag(tag), vr, value, validation_mode=config.IGNORE)
    except (ValueError, TypeError, OverflowError):
        return DataElement(BaseTag(tag), vr, value, already_converted=True)


def from_dataset(dataset: Dataset, *, bulk: bool) -> dict[str, Any]:
    """Build DICOM JSON from a data set; `bulk=False` drops OB OD OF OL OV OW UN at all depths.

    Group 0002 and group lengths are left out (PS3.18 F.2.2), as are elements whose bytes cannot be values of
    their VR. Specific Character Set becomes ISO_IR 192, the encoding of the JSON.
    """
    return _from_dataset(dataset, (), bulk=bulk)


def _from_dataset(dataset: Dataset, inherited: tuple[str, ...], *, bulk: bool) -> dict[str, Any]:
    terms = charset.terms_of(dataset, inherited)
    model: dict[str, Any] = {}
    for tag in sorted(dataset.keys()):
        key = f"{tag:08X}"
        if read_tag(key) is None:
            continue
        if tag == _SPECIFIC_CHARACTER_SET:
            model[key] = {"vr": "CS", "Value": ["ISO_IR 192"]}
            continue
        attribute = read_element(dataset, tag, terms)
        if attribute is None or (attribute.vr in BULK_VRS and not bulk):
            continue
        if attribute.vr == "SQ":
            attribute = Attribute("SQ", [_from_dataset(item, terms, bulk=bulk) for item in attribute.values])
        model[key] = write_json(attribute)
    return model

"""Keep an instance's metadata as text, one attribute a line, so that answers are cut from it without parsing."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

Lines = Mapping[str, str]
"""Attributes of the DICOM JSON model (PS3.18 F.2) by their tag, each as the text `"ggggeeee":{...}`."""

_BETWEEN: Final = ",\n"  # JSON text made by `json` has no line feed inside
_encode = json.JSONEncoder(separators=(",", ":")).encode


def line(tag: str, attribute: Mapping[str, Any]) -> str:
    """Return the text of one attribute."""
    return f'"{tag}":{_encode(attribute)}'


def lines(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of all attributes of a DICOM JSON object."""
    return {tag: line(tag, attribute) for tag, attribute in model.items()}


def joined(texts: Iterable[str]) -> str:
    """Return attributes as the inside of a JSON object, in the order of their tags."""
    return _BETWEEN.join(sorted(texts))


def split(text: str) -> dict[str, str]:
    """Take apart what `joined` made."""
    return {one[1:9]: one for one in text.split(_BETWEEN)} if text else {}


def first(text: str) -> str:
    """Return the first value of an attribute given as the text of `line`."""
    (attribute,) = json.loads("{" + text + "}").values()
    return str(attribute["Value"][0])
